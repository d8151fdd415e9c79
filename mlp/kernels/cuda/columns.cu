// Columns: convolutions that have no kernel of their own are matrix products of them.

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
