// What all kernels share. The files of this folder are compiled together, in the order common, then by name.
//
// Every float buffer is contiguous float32. A feature map is (N, H, W, C), channels last. No kernel adds with atomics:
// sums are made in a fixed order, so two runs give the same bits.

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

#define EACH(i, count) \
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += (i64)gridDim.x * blockDim.x)

typedef unsigned char u8;
typedef unsigned long long u64;
typedef long long i64;

#ifdef __CUDACC__
#define SHARED_MEMORY(name) extern __shared__ __align__(16) float name[]

// x rounded to TF32, to the nearest, ties away from zero. TF32 is there since compute capability 8.0; on older cards the
// host does not launch what needs it.
DEVICE unsigned to_tf32(float x) {
    unsigned rounded = 0;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
#else
    __trap();
#endif
    return rounded;
}

// D (16, 8) += A (16, 8) B (8, 8) by a warp. Lane 4 g + t holds D[g, 2 t], D[g, 2 t + 1], D[g + 8, 2 t], D[g + 8, 2 t + 1];
// A[g, t], A[g + 8, t], A[g, t + 4], A[g + 8, t + 4]; B[t, g], B[t + 4, g]. (PTX ISA, mma.m16n8k8 with .tf32)
DEVICE void mma_16x8x8(float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}
#endif

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

// An activation with the slope for x <= 0; 0 for -infinity where the slope is 0, and NaN stays NaN.
DEVICE float leaky(float x, float slope) { return x > 0.0f || x != x ? x : slope != 0.0f ? x * slope : 0.0f; }

// Up to V floats at a time, V = 1, 2 or 4; `ok` says that the address may be taken as one vector.
template <int V> DEVICE void load(float (&to)[V], const float* from, int count, bool ok) {
    if (ok && count >= V) {
        if constexpr (V == 4) { const float4 v = *(const float4*)from; to[0] = v.x; to[1] = v.y; to[2] = v.z; to[3] = v.w; }
        else if constexpr (V == 2) { const float2 v = *(const float2*)from; to[0] = v.x; to[1] = v.y; }
        else to[0] = from[0];
        return;
    }
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = i < count ? from[i] : 0.0f;
}

template <int V> DEVICE void store(float* to, const float (&from)[V], int count, bool ok) {
    if (ok && count >= V) {
        if constexpr (V == 4) *(float4*)to = make_float4(from[0], from[1], from[2], from[3]);
        else if constexpr (V == 2) *(float2*)to = make_float2(from[0], from[1]);
        else to[0] = from[0];
        return;
    }
#pragma unroll
    for (int i = 0; i < V; i++)
        if (i < count) to[i] = from[i];
}

// Feature maps of n images.
struct Sizes {
    int n, height, width, channels;
    DEVICE i64 index(int image, int y, int x) const { return (((i64)image * height + y) * width + x) * channels; }
    DEVICE bool inside(int image, int y, int x) const {
        return image < n && y >= 0 && y < height && x >= 0 && x < width;
    }
};

// The mean and the sum of squared differences to it, of `count` values.
struct Moments {
    double mean, squares, count;
};

// Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 37 (1983).
DEVICE Moments merged(const Moments& a, const Moments& b) {
    if (b.count == 0.0) return a;
    if (a.count == 0.0) return b;
    const double count = a.count + b.count, apart = b.mean - a.mean;
    return {a.mean + apart * (b.count / count), a.squares + b.squares + apart * apart * (a.count * (b.count / count)), count};
}

// A block's moments of channel c in (blocks, 4, C): a value near the mean, the sums of the differences to it and of their
// squares, the count. So a large mean takes no digits.
DEVICE void store_moments(float* to, int block, int channels, int c, float near, float differences, float squares,
                          float count) {
    float* place = to + (i64)block * 4 * channels + c;
    place[0] = near;
    place[channels] = differences;
    place[2 * channels] = squares;
    place[3 * channels] = count;
}

DEVICE Moments stored_moments(const float* from, int block, int channels, int c) {
    const float* place = from + (i64)block * 4 * channels + c;
    const double differences = place[channels], count = place[3 * channels];
    if (count == 0.0) return {0.0, 0.0, 0.0};
    return {place[0] + differences / count, place[2 * channels] - differences * differences / count, count};
}
