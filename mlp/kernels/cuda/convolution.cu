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
    float* moments;  // (blocks, 4, K): `Moments` of v + bias over the tile's pixels
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
    if (threadIdx.x < WIDTH) room[threadIdx.x] = mean;  // over what this thread alone has read
    __syncthreads();
    float means[8], differences[8];
#pragma unroll
    for (int j = 0; j < 8; j++) means[j] = room[channel[j]];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sums[j] = differences[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            const float apart = seen[i] ? acc[i][j] - means[j] : 0.0f;
            differences[j] += apart;
            sums[j] += apart * apart;
        }
    }
    const float difference = channel_sum(differences, channel, room), squares = channel_sum(sums, channel, room);
    if (threadIdx.x < WIDTH && filter + threadIdx.x < filters) {
        store_moments(to, blockIdx.x, filters, filter + threadIdx.x, mean, difference, squares, count);
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
