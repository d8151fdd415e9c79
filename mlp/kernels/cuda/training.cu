// What stands around a network in a training step: its batch, its error, its learning rule.
//
// `Control` lives on the device, so that a step can be repeated by a graph in which nothing changes: it says which batch
// comes next and with which learning rate, and counts.

struct Control {
    i64 epoch, batch;                                 // the batch that comes next
    i64 steps;                                        // of the learning rule
    double learning_rate, beta_1, beta_2, epsilon;    // its hyper-parameters
    i64 epsilon_corrected;                            // 1: epsilon is added after the correction of the bias (Kingma)
    i64 bias_correction;                              // 1: with it
    double loss_sum;                                  // sums over the examples since the host has set them to 0
    i64 correct, images;
};

// ---- The batch: SplitMix64 of (seed, name, epoch, sample, draw), as `mlp.rng.hash_bits`, bit for bit ----

DEVICE u64 mixed(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

DEVICE u64 absorbed(u64 state, u64 word) {
    const u64 golden = 0x9E3779B97F4A7C15ull;
    return mixed(state * golden ^ (word + golden));
}

DEVICE int drawn(u64 state, int draw, int high) { return (int)((absorbed(state, draw) >> 32) * (u64)high >> 32); }

// Inputs (B, H, W, C) and labels (B,) of the batch that comes next: the images of `order`, each cropped out of its
// zero-padded self and flipped, times scale minus shift (`padding` < 0: as it is). A thread takes a pixel.
KERNEL gather_batch(const u8* __restrict__ pixels, const i64* __restrict__ all_labels, const i64* __restrict__ order,
                    const Control* __restrict__ control, float* __restrict__ inputs, i64* __restrict__ labels, int batch,
                    int full_batch, int height, int width, int channels, int padding, u64 seed, u64 name,
                    const float* __restrict__ scale, const float* __restrict__ shift) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= batch * height * width) return;
    const int x = i % width, y = i / width % height, b = i / width / height;
    const i64 sample = order[control->batch * full_batch + b];
    if (x == 0 && y == 0) labels[b] = all_labels[sample];
    int row = y, column = x;
    if (padding >= 0) {
        const u64 state = absorbed(absorbed(absorbed(absorbed(0, seed), name), (u64)control->epoch), (u64)sample);
        const int span = 2 * padding + 1;
        if (drawn(state, 2, 2) == 1) column = width - 1 - x;
        row += drawn(state, 0, span) - padding;
        column += drawn(state, 1, span) - padding;
    }
    const bool inside = row >= 0 && row < height && column >= 0 && column < width;
    const u8* from = pixels + ((sample * height + row) * width + column) * channels;
    for (int c = 0; c < channels; c++)  // two roundings, as on the CPU: no fused multiply-add
        inputs[(i64)i * channels + c] = __fsub_rn(__fmul_rn(inside ? (float)from[c] : 0.0f, scale[c]), shift[c]);
}

// ---- The error: cross-entropy of softmax with labels ----

// The losses of rows x (B, K) with labels, as -ln softmax(x)_t, whether the largest is the label's, and grads = (softmax(x) -
// [k = t]) / B. A warp of 32 threads takes a row; a sum over K is made by lanes, then over the lanes, in order.
KERNEL cross_entropy(const float* __restrict__ x, const i64* __restrict__ labels, float* __restrict__ grads,
                     float* __restrict__ losses, int* __restrict__ hits, int rows, int classes, float share) {
    __shared__ float values[8][32];
    __shared__ int places[8][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = blockIdx.x * 8 + warp;
    const bool real = row < rows;
    const float* from = x + (i64)row * classes;
    const int label = real ? (int)labels[row] : 0;
    float top = 0.0f;
    int first = -1;
    if (real)
        for (int k = lane; k < classes; k += 32)
            if (first < 0 || from[k] > top) top = from[k], first = k;
    values[warp][lane] = top;
    places[warp][lane] = first;
    __syncthreads();
    for (int i = 0; i < 32; i++) {  // the largest, and of equal ones the first
        const int k = places[warp][i];
        const float v = values[warp][i];
        if (k >= 0 && (first < 0 || v > top || (v == top && k < first))) top = v, first = k;
    }
    __syncthreads();
    float others = 0.0f, rest = 0.0f;  // sums of exp(x - top): without the largest, and without the label's
    if (real)
        for (int k = lane; k < classes; k += 32) {
            const float z = from[k] - top, back = z - from[k], e = expf(z);
            // the rounding error of z (Knuth's two-sum), which exp would blow up, is given back
            const float v = z < -1e4f ? 0.0f : e + e * ((from[k] - (z - back)) - (top + back));
            grads[(i64)row * classes + k] = v;
            if (k != first) others += v;
            if (k != label) rest += v;
        }
    values[warp][lane] = others;
    __syncthreads();
    others = 0.0f;
    for (int i = 0; i < 32; i++) others += values[warp][i];
    __syncthreads();
    values[warp][lane] = rest;
    __syncthreads();
    rest = 0.0f;
    for (int i = 0; i < 32; i++) rest += values[warp][i];
    if (!real) return;
    const float total = others + 1.0f;
    for (int k = lane; k < classes; k += 32) {
        float* to = grads + (i64)row * classes + k;
        *to = (k == label ? -rest : *to) / total * share;
    }
    if (lane == 0) {
        losses[row] = log1pf(others) - (from[label] - top);
        hits[row] = first == label;
    }
}

// Add a batch to the sums in control, and put its mean loss in `loss`. One block of 256 threads; each takes every 256th row,
// and what they found is added in a fixed order.
KERNEL __launch_bounds__(256) count_batch(const float* __restrict__ losses, const int* __restrict__ hits, int rows,
                                          float* __restrict__ loss, Control* control) {
    __shared__ double totals[256];
    __shared__ int corrects[256];
    double total = 0.0;
    int correct = 0;
    for (int i = threadIdx.x; i < rows; i += 256) total += losses[i], correct += hits[i];
    totals[threadIdx.x] = total;
    corrects[threadIdx.x] = correct;
    for (int half = 128; half; half >>= 1) {
        __syncthreads();
        if (threadIdx.x < half) {
            totals[threadIdx.x] += totals[threadIdx.x + half];
            corrects[threadIdx.x] += corrects[threadIdx.x + half];
        }
    }
    if (threadIdx.x) return;
    *loss = totals[0] / rows;
    if (!control) return;
    control->loss_sum += totals[0];
    control->correct += corrects[0];
    control->images += rows;
}

// ---- The learning rule ----

// One step of Adam for all parameters, in the coursework's form or Kingma's: see `mlp.learning_rules`. A thread takes one.
KERNEL adam(float* __restrict__ params, const float* __restrict__ grads, float* __restrict__ moms_1,
            float* __restrict__ moms_2, i64 count, const Control* __restrict__ control) {
    __shared__ float rate, epsilon;
    if (threadIdx.x == 0) {
        double correction_1 = 1.0, correction_2 = 1.0;
        if (control->bias_correction) {
            const double t = control->steps + 1;
            correction_1 = control->beta_1 > 0.0 ? -expm1(t * log(control->beta_1)) : 1.0;
            correction_2 = sqrt(control->beta_2 > 0.0 ? -expm1(t * log(control->beta_2)) : 1.0);
        }
        rate = control->learning_rate * correction_2 / correction_1;
        epsilon = control->epsilon * (control->epsilon_corrected ? correction_2 : 1.0);
    }
    __syncthreads();
    const float b1 = control->beta_1, b2 = control->beta_2, c1 = 1.0 - control->beta_1, c2 = 1.0 - control->beta_2;
    EACH(i, count) {
        const float g = grads[i], m1 = b1 * moms_1[i] + c1 * g, m2 = b2 * moms_2[i] + c2 * (g * g);
        moms_1[i] = m1;
        moms_2[i] = m2;
        params[i] -= rate * (m1 / (sqrtf(m2) + epsilon));
    }
}

// Go on to the next batch. One thread.
KERNEL next_batch(Control* control, int learned) {
    control->batch += 1;
    control->steps += learned;
}
