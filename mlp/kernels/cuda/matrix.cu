// Matrix products in float32.

#define SIDE 64
#define STEP 16

// C (M, N) = A B (+ bias), in parts: block z of gridDim.z sums over its share of the inner length, and writes to C + z M N.
// A[m, k] stands at A[m am + k ak], B[k, n] at B[k bk + n bn]: so a side may be transposed. 256 threads, each with 4 x 4 of
// a tile of 64 x 64. Grid: (ceil(M / 64), ceil(N / 64), parts).
KERNEL __launch_bounds__(256) matmul_fp32(const float* __restrict__ a, const float* __restrict__ b,
                                          const float* __restrict__ bias, float* __restrict__ c, int rows, int columns,
                                          int inner, int am, int ak, int bk, int bn) {
    __shared__ __align__(16) float left[STEP][SIDE + 4], right[STEP][SIDE + 4];
    const int m0 = blockIdx.x * SIDE, n0 = blockIdx.y * SIDE, m = (threadIdx.x >> 4) * 4, n = (threadIdx.x & 15) * 4;
    const int share = ceil_div(ceil_div(inner, gridDim.z), STEP) * STEP;
    const int first = blockIdx.z * share, last = min(first + share, inner);
    float acc[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++) acc[i >> 2][i & 3] = 0.0f;
    for (int k0 = first; k0 < last; k0 += STEP) {
        __syncthreads();
        for (int i = threadIdx.x; i < STEP * SIDE; i += blockDim.x) {
            // neighbours in a warp go along the axis whose numbers lie side by side
            const int ka = ak == 1 ? i % STEP : i / SIDE, ma = ak == 1 ? i / STEP : i % SIDE;
            const int kb = bk == 1 ? i % STEP : i / SIDE, nb = bk == 1 ? i / STEP : i % SIDE;
            left[ka][ma] = k0 + ka < last && m0 + ma < rows ? a[(i64)(m0 + ma) * am + (i64)(k0 + ka) * ak] : 0.0f;
            right[kb][nb] = k0 + kb < last && n0 + nb < columns ? b[(i64)(k0 + kb) * bk + (i64)(n0 + nb) * bn] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < STEP; k++) {
            float u[4], v[4];
            load<4>(u, &left[k][m], 4, true);
            load<4>(v, &right[k][n], 4, true);
#pragma unroll
            for (int i = 0; i < 16; i++) acc[i >> 2][i & 3] += u[i >> 2] * v[i & 3];
        }
    }
    c += (i64)blockIdx.z * rows * columns;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int row = m0 + m + (i >> 2), column = n0 + n + (i & 3);
        if (row < rows && column < columns) c[(i64)row * columns + column] = acc[i >> 2][i & 3] + (bias ? bias[column] : 0.0f);
    }
}
