// Activations, sums and poolings, elementwise on float32 buffers. Grids of any size: every thread takes every so many.

// y = act(x + skip); skip may be null, and y may be x.
KERNEL activate(const float* x, const float* __restrict__ skip, float* y, i64 count, float slope) {
    EACH(i, count) y[i] = leaky(skip ? x[i] + skip[i] : x[i], slope);
}

// out = g times the slope at y; with `add`, added to what is there. y null: the slope is 1.
KERNEL activate_grad(const float* grads, const float* __restrict__ y, float* out, i64 count, float slope, int add) {
    EACH(i, count) {
        const float g = !y || y[i] > 0.0f ? grads[i] : grads[i] * slope;
        out[i] = add ? out[i] + g : g;
    }
}

// y (N, H / PH, W / PW, C): means over windows that neither overlap nor leave a pixel out.
KERNEL average_pool(const float* __restrict__ x, float* __restrict__ y, int n, int out_height, int out_width, int channels,
                    int pool_height, int pool_width) {
    EACH(i, (i64)n * out_height * out_width * channels) {
        const int c = i % channels, column = i / channels % out_width, row = i / channels / out_width % out_height;
        const i64 image = i / channels / out_width / out_height, width = (i64)out_width * pool_width;
        const float* from = x + ((image * out_height + row) * pool_height * width + (i64)column * pool_width) * channels + c;
        float total = 0.0f;
        for (int u = 0; u < pool_height; u++)
            for (int v = 0; v < pool_width; v++) total += from[(u * width + v) * channels];
        y[i] = total / (pool_height * pool_width);
    }
}

// dE/dx of `average_pool`, times the slope at `mask`, x itself where it is an activation's output (null: the slope is 1).
KERNEL average_pool_grad(const float* __restrict__ grads, const float* __restrict__ mask, float* __restrict__ out, int n,
                         int out_height, int out_width, int channels, int pool_height, int pool_width, float slope) {
    const int height = out_height * pool_height, width = out_width * pool_width;
    EACH(i, (i64)n * height * width * channels) {
        const int c = i % channels, column = i / channels % width / pool_width, row = i / channels / width % height / pool_height;
        const i64 image = i / channels / width / height;
        const float g = grads[((image * out_height + row) * out_width + column) * channels + c] / (pool_height * pool_width);
        out[i] = !mask || mask[i] > 0.0f ? g : g * slope;
    }
}

// y (N, C): the mean over the pixels of x (N, P, C).
KERNEL global_average(const float* __restrict__ x, float* __restrict__ y, int n, int pixels, int channels) {
    EACH(i, (i64)n * channels) {
        const float* from = x + i / channels * pixels * channels + i % channels;
        float total = 0.0f;
        for (int p = 0; p < pixels; p++) total += from[(i64)p * channels];
        y[i] = total / pixels;
    }
}

// dE/dx (N, P, C) of `global_average`, times the slope at `mask`.
KERNEL global_average_grad(const float* __restrict__ grads, const float* __restrict__ mask, float* __restrict__ out, int n,
                           int pixels, int channels, float slope) {
    EACH(i, (i64)n * pixels * channels) {
        const float g = grads[i / channels / pixels * channels + i % channels] / pixels;
        out[i] = !mask || mask[i] > 0.0f ? g : g * slope;
    }
}
