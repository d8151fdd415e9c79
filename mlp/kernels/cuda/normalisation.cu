// Batch normalisation of (rows, C), rows = N H W pixels: a channel's statistics go over all rows.
//
// Partial results come from blocks, as (blocks, 4, C) moments or (blocks, 2, C) sums, and one block puts them together in
// float64, in a fixed order. Statistics (3, C) are the mean as two floats whose sum it is, and 1 / sqrt(var + epsilon):
// x - mean keeps its digits where the mean is large. Blocks have 256 threads; a thread keeps to one channel of 32, eight rows run side by side.

#define CHANNELS 32
#define LANES 32  // threads that share a channel where partial results are put together

// Moments of x over the rows of a block. Grid: (blocks, ceil(C / 32)).
KERNEL bn_moments(const float* __restrict__ x, float* __restrict__ moments, int rows, int channels, int rows_per_block) {
    __shared__ float room[2][8][CHANNELS];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.y * CHANNELS + lane;
    const i64 first = (i64)blockIdx.x * rows_per_block, last = first + rows_per_block < rows ? first + rows_per_block : rows;
    const float near = c < channels ? x[first * channels + c] : 0.0f;
    float differences = 0.0f, squares = 0.0f;
    if (c < channels)
        for (i64 row = first + group; row < last; row += 8) {
            const float apart = x[row * channels + c] - near;
            differences += apart;
            squares += apart * apart;
        }
    room[0][group][lane] = differences;
    room[1][group][lane] = squares;
    __syncthreads();
    if (group || c >= channels) return;
    differences = squares = 0.0f;
    for (int i = 0; i < 8; i++) differences += room[0][i][lane], squares += room[1][i][lane];
    store_moments(moments, blockIdx.x, channels, c, near, differences, squares, last - first);
}

// Squares of differences from 1.8e19 on overflow: such a channel becomes NaN (inf - inf), not 0 without a word.
DEVICE void store_statistics(float* to, int channels, int c, double mean, double var) {
    to[c] = mean;
    to[channels + c] = mean - (double)to[c];
    to[2 * channels + c] = 1.0 / sqrt(var) + (var - var);
}

// (x - mean) / std by statistics (3, C).
DEVICE float normalised(float x, const float* statistics, int channels, int c) {
    return ((x - statistics[c]) - statistics[channels + c]) * statistics[2 * channels + c];
}

// Put moments of blocks together to statistics (3, C), and to the running statistics, which move by `weight`; the variance in them is multiplied by `unbiased`. 1024 threads. Grid: (ceil(C / 32)).
KERNEL __launch_bounds__(1024) bn_statistics(const float* __restrict__ moments, int blocks, int channels, float epsilon,
                                             float weight, float unbiased, float* __restrict__ running_mean,
                                             float* __restrict__ running_var, float* __restrict__ statistics) {
    __shared__ Moments room[LANES][CHANNELS];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.x * CHANNELS + lane;
    Moments found = {0.0, 0.0, 0.0};
    if (c < channels)
#pragma unroll 4
        for (int i = group; i < blocks; i += LANES) found = merged(found, stored_moments(moments, i, channels, c));
    room[group][lane] = found;
    for (int half = LANES / 2; half; half >>= 1) {
        __syncthreads();
        if (group < half) room[group][lane] = merged(room[group][lane], room[group + half][lane]);
    }
    if (group || c >= channels) return;
    found = room[0][lane];
    const double var = found.squares / found.count;
    store_statistics(statistics, channels, c, found.mean, var + (double)epsilon);
    running_mean[c] = (1.0f - weight) * running_mean[c] + weight * (float)found.mean;
    running_var[c] = (1.0f - weight) * running_var[c] + weight * (float)(var * unbiased);
}

// Statistics (3, C) of evaluation mode, from the running ones.
KERNEL bn_running(const float* __restrict__ running_mean, const float* __restrict__ running_var, int channels, float epsilon,
                  float* __restrict__ statistics) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    store_statistics(statistics, channels, c, running_mean[c], (double)running_var[c] + (double)epsilon);
}

// y = act((x - mean) gamma / std + beta + skip).
KERNEL bn_apply(const float* __restrict__ x, const float* __restrict__ skip, const float* __restrict__ statistics,
                const float* __restrict__ gamma, const float* __restrict__ beta, float* __restrict__ y, i64 count,
                int channels, float slope) {
    const bool ok = channels % 4 == 0;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < count; i += (i64)gridDim.x * blockDim.x * 4) {
        const int left = count - i < 4 ? count - i : 4;
        float v[4], other[4];
        load<4>(v, x + i, left, ok);
        if (skip) load<4>(other, skip + i, left, ok);
        const int first = i % channels;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int c = ok ? first + j : (first + j) % channels;
            v[j] = normalised(v[j], statistics, channels, c) * gamma[c] + beta[c];
            v[j] = leaky(skip ? v[j] + other[j] : v[j], slope);
        }
        store<4>(y + i, v, left, ok);
    }
}

// g = dE/dy times the slope at y, where y = act(...); without an activation y is null.
DEVICE float masked(float g, const float* y, i64 i, float slope) { return !y || y[i] > 0.0f ? g : g * slope; }

// Sums (blocks, 2, C) of g and g xhat over the rows of a block. Grid: (blocks, ceil(C / 32)).
KERNEL bn_sums(const float* __restrict__ grads, const float* __restrict__ y, const float* __restrict__ x,
               const float* __restrict__ statistics, float* __restrict__ sums, int rows, int channels, int rows_per_block,
               float slope) {
    __shared__ float room[2][8][CHANNELS];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.y * CHANNELS + lane;
    const i64 first = (i64)blockIdx.x * rows_per_block, last = first + rows_per_block < rows ? first + rows_per_block : rows;
    float total = 0.0f, products = 0.0f;
    if (c < channels)
        for (i64 row = first + group; row < last; row += 8) {
            const i64 i = row * channels + c;
            const float g = masked(grads[i], y, i, slope);
            total += g;
            products += g * normalised(x[i], statistics, channels, c);
        }
    room[0][group][lane] = total;
    room[1][group][lane] = products;
    __syncthreads();
    if (group < 2 && c < channels) {
        total = 0.0f;
        for (int i = 0; i < 8; i++) total += room[group][i][lane];
        sums[((i64)blockIdx.x * 2 + group) * channels + c] = total;
    }
}

// Put sums (blocks, 2, C) together: `second` and `first` get the totals of the two, e.g. dE/dgamma and dE/dbeta; either may
// be null. 1024 threads. Grid: (ceil(C / 32), 2).
KERNEL __launch_bounds__(1024) total_sums(const float* __restrict__ sums, int blocks, int channels,
                                          float* __restrict__ first, float* __restrict__ second) {
    __shared__ double room[LANES][CHANNELS];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.x * CHANNELS + lane;
    float* to = blockIdx.y ? second : first;
    double total = 0.0;
    if (c < channels)
        for (int i = group; i < blocks; i += LANES) total += sums[((i64)i * 2 + blockIdx.y) * channels + c];
    room[group][lane] = total;
    for (int half = LANES / 2; half; half >>= 1) {
        __syncthreads();
        if (group < half) room[group][lane] += room[group + half][lane];
    }
    if (group == 0 && c < channels && to) to[c] = room[0][lane];
}

// dE/dx = gamma / std (g - mean(g) - xhat mean(g xhat)), and g itself, which goes past the normalisation, to `past`: null, or
// any buffer, that of `grads` too.
KERNEL bn_backward(const float* grads, const float* __restrict__ y, const float* __restrict__ x,
                   const float* __restrict__ statistics, const float* __restrict__ gamma,
                   const float* __restrict__ grad_gamma, const float* __restrict__ grad_beta, float* __restrict__ out,
                   float* past, i64 count, int channels, float per_row, float slope) {
    const bool ok = channels % 4 == 0;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < count; i += (i64)gridDim.x * blockDim.x * 4) {
        const int left = count - i < 4 ? count - i : 4;
        float g[4], v[4], sign[4];
        load<4>(g, grads + i, left, ok);
        load<4>(v, x + i, left, ok);
        if (y) load<4>(sign, y + i, left, ok);
        const int first = i % channels;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int c = ok ? first + j : (first + j) % channels;
            if (y) g[j] *= sign[j] > 0.0f ? 1.0f : slope;
            const float scale = statistics[2 * channels + c], xhat = normalised(v[j], statistics, channels, c);
            v[j] = gamma[c] * scale * (g[j] - grad_beta[c] * per_row - xhat * (grad_gamma[c] * per_row));
        }
        store<4>(out + i, v, left, ok);
        if (past) store<4>(past + i, g, left, ok);
    }
}

// Sums (blocks, 2, C) of g over the rows of a block, as in `bn_sums`, the second half zero: the gradients of biases.
KERNEL bias_sums(const float* __restrict__ grads, float* __restrict__ sums, int rows, int channels, int rows_per_block) {
    __shared__ float room[8][CHANNELS];
    const int lane = threadIdx.x & 31, group = threadIdx.x >> 5, c = blockIdx.y * CHANNELS + lane;
    const i64 first = (i64)blockIdx.x * rows_per_block, last = first + rows_per_block < rows ? first + rows_per_block : rows;
    float total = 0.0f;
    if (c < channels)
        for (i64 row = first + group; row < last; row += 8) total += grads[row * channels + c];
    room[group][lane] = total;
    __syncthreads();
    if (group == 0 && c < channels) {
        total = 0.0f;
        for (int i = 0; i < 8; i++) total += room[i][lane];
        sums[(i64)blockIdx.x * 2 * channels + c] = total;
        sums[((i64)blockIdx.x * 2 + 1) * channels + c] = 0.0f;
    }
}
