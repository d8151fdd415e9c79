// dE/dw of a 3x3 convolution at stride 1: for each place of the kernel, (channels, pixels) times (pixels, filters).
//
// Blocks sum over tiles of pixels into parts of their own, which are then added in order.

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

