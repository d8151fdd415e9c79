// Convolution 3x3 at stride 1 as an implicit matrix product, its gradients, and columns for all other convolutions.
//
// A block computes a tile of P outputs times 32 channels, P = TN images x TH rows x TW columns. The inputs that the tile
// depends on, with a border, stay in shared memory for 16 input channels at a time, with the kernels for these: each
// input is read once from memory, not nine times. The gradient by the inputs is the same kernel with turned kernels.

#define DEPTH 16   // input channels in shared memory at once
#define WIDTH 32   // output channels of a block
#define XS 20      // floats from one pixel to the next in shared memory: no two lanes of a warp meet in a bank
#define WS 40      // floats from one input channel's kernels to the next
#define TAPS 9

// A tile, and where it stands. `tw` and `th` are the logarithms of TW and TH.
struct Tile {
    int tw, th, n, y, x;  // n, y, x: its first image, row and column
    DEVICE Tile(int index, int pixels, int height, int width, int tw_, int th_) : tw(tw_), th(th_) {
        const int across = ceil_div(width, 1 << tw), down = ceil_div(height, 1 << th);
        x = (index % across) << tw;
        y = (index / across % down) << th;
        n = index / (across * down) * (pixels >> (tw + th));
    }
    // The place of pixel p of the tile in the inputs' (TN, TH + 2, TW + 2) pixels.
    DEVICE int place(int p) const {
        const int image = p >> (tw + th), row = (p >> tw) & ((1 << th) - 1), column = p & ((1 << tw) - 1);
        return (image * ((1 << th) + 2) + row) * ((1 << tw) + 2) + column;
    }
};

struct Sizes {
    int n, height, width, channels;
    DEVICE i64 index(int image, int y, int x) const { return (((i64)image * height + y) * width + x) * channels; }
    DEVICE bool inside(int image, int y, int x) const {
        return image < n && y >= 0 && y < height && x >= 0 && x < width;
    }
};

// Bring the pixels of a tile, with the border, to shared memory: `depth` channels from `first` on, zeros outside.
DEVICE void stage_pixels(float* to, const float* from, const Sizes& s, const Tile& tile, int images, int top, int left,
                         int first, int depth, int border, int stride) {
    const int columns = (1 << tile.tw) + border, rows = (1 << tile.th) + border, quads = depth >> 2;
    const bool ok = s.channels % 4 == 0;
    for (int i = threadIdx.x; i < images * rows * columns * quads; i += blockDim.x) {
        const int pixel = i / quads, c = first + i % quads * 4;
        const int image = tile.n + pixel / (rows * columns);
        const int y = tile.y - top + pixel / columns % rows, x = tile.x - left + pixel % columns;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (s.inside(image, y, x)) load<4>(v, from + s.index(image, y, x) + c, s.channels - c, ok);
        store<4>(to + pixel * stride + (c - first), v, 4, true);
    }
}

// Bring kernels (9, C, K) to shared memory: `depth` input channels from `first` on, 32 output channels.
DEVICE void stage_kernels(float* to, const float* from, int channels, int filters, int first, int filter) {
    const bool ok = filters % 4 == 0;
    for (int i = threadIdx.x; i < TAPS * DEPTH * (WIDTH / 4); i += blockDim.x) {
        const int row = i / (WIDTH / 4), k = filter + i % (WIDTH / 4) * 4, c = first + row % DEPTH;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (c < channels) load<4>(v, from + ((i64)(row / DEPTH) * channels + c) * filters + k, filters - k, ok);
        store<4>(to + row * WS + (k - filter), v, 4, true);
    }
}

// What happens to an output on its way to memory: y = act(v + bias + skip) * slope of the mask, + y before.
struct Epilogue {
    const float *bias, *skip, *mask;
    float slope, mask_slope;
    int add;
    float* moments;  // (blocks, 3, K): mean, squares and count of v + bias over the tile's pixels
};

// Sum over the block's threads, for each of 32 channels, what every quad of threads holds of them.
DEVICE float channel_sum(const float (&mine)[8], const int (&channel)[8], float* room) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 8; j++) room[(threadIdx.x >> 2) * WIDTH + channel[j]] = mine[j];
    __syncthreads();
    float total = 0.0f;
    if (threadIdx.x < WIDTH)
        for (int i = 0; i < blockDim.x >> 2; i++) total += room[i * WIDTH + threadIdx.x];
    return total;
}

// Write the tile's moments of every channel; `seen` says which of the thread's pixels exist.
template <int PIXELS> DEVICE void tile_moments(const float (&acc)[PIXELS][8], const bool (&seen)[PIXELS],
                                               const int (&channel)[8], int filter, int filters, float* to, float* room) {
    float sums[8], counts[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sums[j] = counts[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            sums[j] += seen[i] ? acc[i][j] : 0.0f;
            counts[j] += seen[i] ? 1.0f : 0.0f;
        }
    }
    const float count = channel_sum(counts, channel, room);
    const float mean = channel_sum(sums, channel, room) / (count > 0.0f ? count : 1.0f);
    __syncthreads();
    if (threadIdx.x < WIDTH) room[threadIdx.x] = mean;
    __syncthreads();
    float means[8];
#pragma unroll
    for (int j = 0; j < 8; j++) means[j] = room[channel[j]];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sums[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < PIXELS; i++) sums[j] += seen[i] ? (acc[i][j] - means[j]) * (acc[i][j] - means[j]) : 0.0f;
    }
    const float squares = channel_sum(sums, channel, room);
    if (threadIdx.x < WIDTH && filter + threadIdx.x < filters) {
        float* place = to + (i64)blockIdx.x * 3 * filters + filter + threadIdx.x;
        place[0] = mean;
        place[filters] = squares;
        place[2 * filters] = count;
    }
}

// Finish a thread's outputs, PIXELS pixels of 8 channels which come V in a row, and write them.
template <int PIXELS, int V> DEVICE void finish(float (&acc)[PIXELS][8], const int (&pixel)[PIXELS], const int (&channel)[8],
                                                const Sizes& out, const Tile& tile, int filter, const Epilogue& e,
                                                float* y, float* room) {
    const bool ok = out.channels % V == 0;
    bool seen[PIXELS];
    i64 start[PIXELS];
#pragma unroll
    for (int i = 0; i < PIXELS; i++) {
        const int image = tile.n + (pixel[i] >> (tile.tw + tile.th));
        const int row = tile.y + ((pixel[i] >> tile.tw) & ((1 << tile.th) - 1));
        const int column = tile.x + (pixel[i] & ((1 << tile.tw) - 1));
        seen[i] = out.inside(image, row, column);
        start[i] = out.index(image, row, column) + filter;
    }
    if (e.bias)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float bias = filter + channel[j] < out.channels ? e.bias[filter + channel[j]] : 0.0f;
#pragma unroll
            for (int i = 0; i < PIXELS; i++) acc[i][j] += bias;
        }
    if (e.moments) tile_moments<PIXELS>(acc, seen, channel, filter, out.channels, e.moments, room);
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
#pragma unroll
        for (int j = 0; j < 8; j += V) {
            const int count = out.channels - filter - channel[j];
            if (!seen[i] || count <= 0) continue;
            const i64 at = start[i] + channel[j];
            float v[V], other[V];
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = acc[i][j + k];
            if (e.skip) {
                load<V>(other, e.skip + at, count, ok);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] += other[k];
            }
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = leaky(v[k], e.slope);
            if (e.add) {
                load<V>(other, y + at, count, ok);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] += other[k];
            }
            if (e.mask) {
                load<V>(other, e.mask + at, count, ok);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] *= other[k] > 0.0f ? 1.0f : e.mask_slope;
            }
            store<V>(y + at, v, count, ok);
        }
}

// y (N, OH, OW, K) for x (N, H, W, C) and kernels (9, C, K); tiles of 2 blockDim outputs. A thread computes 8 pixels
// times 8 channels. Grid: (tiles, ceil(K / 32)).
KERNEL __launch_bounds__(128) conv3x3_fp32(
    const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, const float* __restrict__ bias,
    const float* __restrict__ skip, const float* __restrict__ mask, float* __restrict__ moments, int n, int height,
    int width, int channels, int out_height, int out_width, int filters, int top, int left, int tw, int th, float slope,
    float mask_slope, int add) {
    SHARED_MEMORY(memory);
    const int pixels = 2 * blockDim.x, images = pixels >> (tw + th), filter = blockIdx.y * WIDTH;
    const Sizes in = {n, height, width, channels}, out = {n, out_height, out_width, filters};
    const Tile tile(blockIdx.x, pixels, out_height, out_width, tw, th);
    float *kernels = memory, *inputs = memory + TAPS * DEPTH * WS;
    const int quad = threadIdx.x & 3, group = threadIdx.x >> 2, groups = blockDim.x >> 2;
    int pixel[8], place[8], channel[8];
    float acc[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        pixel[i] = group + groups * i;
        place[i] = tile.place(pixel[i]) * XS;
        channel[i] = quad * 8 + i;
#pragma unroll
        for (int j = 0; j < 8; j++) acc[i][j] = 0.0f;
    }
    for (int first = 0; first < channels; first += DEPTH) {
        __syncthreads();
        const int depth = min(DEPTH, (channels - first + 3) & ~3);
        stage_pixels(inputs, x, in, tile, images, top, left, first, depth, 2, XS);
        stage_kernels(kernels, w, channels, filters, first, filter);
        __syncthreads();
        for (int tap = 0; tap < TAPS; tap++) {
            const float* from = inputs + (tap / 3 * ((1 << tw) + 2) + tap % 3) * XS;
            for (int c = 0; c < depth; c += 4) {
                float a[8][4];
#pragma unroll
                for (int i = 0; i < 8; i++) load<4>(a[i], from + place[i] + c, 4, true);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float b[2][4];
                    load<4>(b[0], kernels + (tap * DEPTH + c + k) * WS + quad * 8, 4, true);
                    load<4>(b[1], kernels + (tap * DEPTH + c + k) * WS + quad * 8 + 4, 4, true);
#pragma unroll
                    for (int i = 0; i < 8; i++)
#pragma unroll
                        for (int j = 0; j < 8; j++) acc[i][j] += a[i][k] * b[j >> 2][j & 3];
                }
            }
        }
    }
    finish<8, 4>(acc, pixel, channel, out, tile, filter, {bias, skip, mask, slope, mask_slope, add, moments}, y, memory);
}

// The same on tensor cores: factors rounded to TF32 (10 bits of fraction), sums in float32; tiles of blockDim outputs. A
// warp computes 32 pixels times 32 channels, in products of 16 x 8 by 8 x 8 matrices.
KERNEL __launch_bounds__(256) conv3x3_tf32(
    const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, const float* __restrict__ bias,
    const float* __restrict__ skip, const float* __restrict__ mask, float* __restrict__ moments, int n, int height,
    int width, int channels, int out_height, int out_width, int filters, int top, int left, int tw, int th, float slope,
    float mask_slope, int add) {
    SHARED_MEMORY(memory);
    const int pixels = blockDim.x, images = pixels >> (tw + th), filter = blockIdx.y * WIDTH;
    const Sizes in = {n, height, width, channels}, out = {n, out_height, out_width, filters};
    const Tile tile(blockIdx.x, pixels, out_height, out_width, tw, th);
    float *kernels = memory, *inputs = memory + TAPS * DEPTH * WS;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int pixel[4], place[4], channel[8];
    float acc[4][8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        pixel[i] = warp * 32 + i * 8 + g;
        place[i] = tile.place(pixel[i]) * XS;
        channel[2 * i] = i * 8 + 2 * t;
        channel[2 * i + 1] = i * 8 + 2 * t + 1;
#pragma unroll
        for (int j = 0; j < 8; j++) acc[i][j] = 0.0f;
    }
    for (int first = 0; first < channels; first += DEPTH) {
        __syncthreads();
        const int depth = min(DEPTH, (channels - first + 7) & ~7);
        stage_pixels(inputs, x, in, tile, images, top, left, first, depth, 2, XS);
        stage_kernels(kernels, w, channels, filters, first, filter);
        __syncthreads();
        for (int tap = 0; tap < TAPS; tap++) {
            const float* from = inputs + (tap / 3 * ((1 << tw) + 2) + tap % 3) * XS;
            for (int c = 0; c < depth; c += 8) {
                unsigned a[4][2], b[4][2];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    a[i][0] = to_tf32(from[place[i] + c + t]);
                    a[i][1] = to_tf32(from[place[i] + c + t + 4]);
                    b[i][0] = to_tf32(kernels[(tap * DEPTH + c + t) * WS + i * 8 + g]);
                    b[i][1] = to_tf32(kernels[(tap * DEPTH + c + t + 4) * WS + i * 8 + g]);
                }
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int q = 0; q < 4; q++)
                        mma_16x8x8(acc[2 * m][2 * q], acc[2 * m][2 * q + 1], acc[2 * m + 1][2 * q], acc[2 * m + 1][2 * q + 1],
                                   a[2 * m][0], a[2 * m + 1][0], a[2 * m][1], a[2 * m + 1][1], b[q][0], b[q][1]);
            }
        }
    }
    finish<4, 2>(acc, pixel, channel, out, tile, filter, {bias, skip, mask, slope, mask_slope, add, moments}, y, memory);
}

// The kernels of all convolutions in one launch: (K, C, T) of T places as (T, C, K), and turned by half a turn as (T, K, C).
// A row of the table is a convolution: the addresses of the three arrays, K, C, T, whether the kernels are turned to begin
// with (a true convolution), and the number of the first thread that works on it.
KERNEL pack_kernels(const u64* __restrict__ table, int convolutions, int threads) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    const u64* row = table;
    for (int j = 1; j < convolutions && (u64)thread >= table[8 * j + 7]; j++) row = table + 8 * j;
    const float* w = (const float*)row[0];
    float *forward = (float*)row[1], *backward = (float*)row[2];
    const int filters = row[3], channels = row[4], places = row[5], i = thread - (int)row[7];
    const int c = i / places % channels, k = i / places / channels, tap = row[6] ? places - 1 - i % places : i % places;
    forward[(tap * channels + c) * filters + k] = w[i];
    backward[((places - 1 - tap) * filters + k) * channels + c] = w[i];
}

// ---- dE/dw: for each place of the kernel, (channels, pixels) times (pixels, filters) ----

#define GS 40        // floats from one pixel to the next in shared memory
#define PART 64      // outputs of a tile

// Partial sums (splits, 9, C, K) of dE/dw, over the tiles that a block takes: every gridDim.x-th. A block sums for 32
// input channels times 32 output channels; a thread, of 256, for 2 x 2 of these and all 9 places. Grid: (splits,
// ceil(C / 32), ceil(K / 32)).
KERNEL __launch_bounds__(256) conv3x3_grad_fp32(
    const float* __restrict__ x, const float* __restrict__ grads, float* __restrict__ partial, int n, int height, int width,
    int channels, int out_height, int out_width, int filters, int top, int left, int tw, int th, int tiles) {
    SHARED_MEMORY(memory);
    const int images = PART >> (tw + th), first = blockIdx.y * WIDTH, filter = blockIdx.z * WIDTH;
    const Sizes in = {n, height, width, channels}, out = {n, out_height, out_width, filters};
    float *upstream = memory, *inputs = memory + PART * GS;
    const int k = (threadIdx.x & 15) * 2, c = (threadIdx.x >> 4) * 2, line = (1 << tw) + 2;
    float acc[TAPS][4];
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) acc[tap][0] = acc[tap][1] = acc[tap][2] = acc[tap][3] = 0.0f;
    for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(index, PART, out_height, out_width, tw, th);
        __syncthreads();
        stage_pixels(inputs, x, in, tile, images, top, left, first, WIDTH, 2, GS);
        stage_pixels(upstream, grads, out, tile, images, 0, 0, filter, WIDTH, 0, GS);
        __syncthreads();
        for (int p = 0; p < PART; p++) {
            const float* from = inputs + tile.place(p) * GS + c;
            float g[2];
            load<2>(g, upstream + p * GS + k, 2, true);
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) {
                float v[2];
                load<2>(v, from + (tap / 3 * line + tap % 3) * GS, 2, true);
                acc[tap][0] += v[0] * g[0];
                acc[tap][1] += v[0] * g[1];
                acc[tap][2] += v[1] * g[0];
                acc[tap][3] += v[1] * g[1];
            }
        }
    }
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int ci = first + c + (j >> 1), ki = filter + k + (j & 1);
            if (ci < channels && ki < filters)
                partial[(((i64)blockIdx.x * TAPS + tap) * channels + ci) * filters + ki] = acc[tap][j];
        }
}

// The same on tensor cores, with 288 threads: a warp for each place of the kernel.
KERNEL __launch_bounds__(288) conv3x3_grad_tf32(
    const float* __restrict__ x, const float* __restrict__ grads, float* __restrict__ partial, int n, int height, int width,
    int channels, int out_height, int out_width, int filters, int top, int left, int tw, int th, int tiles) {
    SHARED_MEMORY(memory);
    const int images = PART >> (tw + th), first = blockIdx.y * WIDTH, filter = blockIdx.z * WIDTH;
    const Sizes in = {n, height, width, channels}, out = {n, out_height, out_width, filters};
    float *upstream = memory, *inputs = memory + PART * GS;
    const int lane = threadIdx.x & 31, tap = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int shift = (tap / 3 * ((1 << tw) + 2) + tap % 3) * GS;
    float acc[2][4][4];
#pragma unroll
    for (int i = 0; i < 32; i++) acc[i >> 4][i >> 2 & 3][i & 3] = 0.0f;
    for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(index, PART, out_height, out_width, tw, th);
        __syncthreads();
        stage_pixels(inputs, x, in, tile, images, top, left, first, WIDTH, 2, GS);
        stage_pixels(upstream, grads, out, tile, images, 0, 0, filter, WIDTH, 0, GS);
        __syncthreads();
        for (int p = 0; p < PART; p += 8) {
            const float *near = inputs + shift + tile.place(p + t) * GS, *far = inputs + shift + tile.place(p + t + 4) * GS;
            unsigned a[2][4], b[4][2];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                a[m][0] = to_tf32(near[m * 16 + g]);
                a[m][1] = to_tf32(near[m * 16 + g + 8]);
                a[m][2] = to_tf32(far[m * 16 + g]);
                a[m][3] = to_tf32(far[m * 16 + g + 8]);
            }
#pragma unroll
            for (int q = 0; q < 4; q++) {
                b[q][0] = to_tf32(upstream[(p + t) * GS + q * 8 + g]);
                b[q][1] = to_tf32(upstream[(p + t + 4) * GS + q * 8 + g]);
            }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int q = 0; q < 4; q++)
                    mma_16x8x8(acc[m][q][0], acc[m][q][1], acc[m][q][2], acc[m][q][3], a[m][0], a[m][1], a[m][2], a[m][3],
                               b[q][0], b[q][1]);
        }
    }
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int m = i >> 4, q = i >> 2 & 3, r = i & 3;
        const int ci = first + m * 16 + g + (r >> 1) * 8, ki = filter + q * 8 + 2 * t + (r & 1);
        if (ci < channels && ki < filters)
            partial[(((i64)blockIdx.x * TAPS + tap) * channels + ci) * filters + ki] = acc[m][q][r];
    }
}

// dE/dw (K, C, T) from partial sums (splits, T, C, K). 256 threads: eight share a number, each adds every eighth split, and
// their sums are added in order. Grid: (ceil(K C T / 32)).
KERNEL __launch_bounds__(256) sum_kernel_grads(const float* __restrict__ partial, float* __restrict__ grads, int splits,
                                               int places, int channels, int filters, int turned) {
    __shared__ float room[8][32];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, i = blockIdx.x * 32 + lane;
    const int count = places * channels * filters;
    float total = 0.0f;
    if (i < count) {
#pragma unroll 8
        for (int s = group; s < splits; s += 8) total += partial[(i64)s * count + i];
    }
    room[group][lane] = total;
    __syncthreads();
    if (group || i >= count) return;
    total = 0.0f;
    for (int g = 0; g < 8; g++) total += room[g][lane];
    const int k = i % filters, c = i / filters % channels, tap = i / filters / channels;
    grads[((i64)k * channels + c) * places + (turned ? places - 1 - tap : tap)] = total;
}

// ---- Columns: all other convolutions are matrix products of them ----

// Columns (N OH OW, KH KW, C) of x (N, H, W, C).
KERNEL im2col(const float* __restrict__ x, float* __restrict__ columns, int n, int height, int width, int channels,
              int out_height, int out_width, int kernel_height, int kernel_width, int stride_y, int stride_x, int top,
              int left, int step_y, int step_x) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)n * out_height * out_width * kernel_height * kernel_width * channels) return;
    const int c = i % channels, v = i / channels % kernel_width, u = i / channels / kernel_width % kernel_height;
    const i64 pixel = i / channels / kernel_width / kernel_height;
    const Sizes in = {n, height, width, channels};
    const int image = pixel / out_width / out_height;
    const int y = pixel / out_width % out_height * stride_y - top + u * step_y;
    const int xx = pixel % out_width * stride_x - left + v * step_x;
    columns[i] = in.inside(image, y, xx) ? x[in.index(image, y, xx) + c] : 0.0f;
}

// dE/dx from dE/d columns: every pixel gathers from the windows it is in.
KERNEL col2im(const float* __restrict__ columns, float* __restrict__ x, int n, int height, int width, int channels,
              int out_height, int out_width, int kernel_height, int kernel_width, int stride_y, int stride_x, int top,
              int left, int step_y, int step_x) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)n * height * width * channels) return;
    const int c = i % channels, column = i / channels % width, row = i / channels / width % height;
    const int image = i / channels / width / height;
    float total = 0.0f;
    for (int u = 0; u < kernel_height; u++)
        for (int v = 0; v < kernel_width; v++) {
            const int y = row + top - u * step_y, xx = column + left - v * step_x;
            if (y < 0 || xx < 0 || y % stride_y || xx % stride_x) continue;
            const int oy = y / stride_y, ox = xx / stride_x;
            if (oy >= out_height || ox >= out_width) continue;
            const i64 pixel = ((i64)image * out_height + oy) * out_width + ox;
            total += columns[((pixel * kernel_height + u) * kernel_width + v) * channels + c];
        }
    x[i] = total;
}
