# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Convolution as a matrix product
#
# After this notebook you can
#
# - write a convolution with stride and padding as loops, and as one matrix product of image columns
#   (im2col),
# - derive its three gradients from those of an affine layer, with col2im as the adjoint of im2col,
# - say what a convolution costs in multiply-adds, and what its columns cost in memory,
# - explain why a few images at a time are faster than a whole batch,
# - derive Winograd's algorithm from the product of two polynomials, and count what it saves.
#
# You need notebook 1, *One layer by hand*: the gradients of an affine layer, and `check_gradients`.

# %%
import os
import time

os.environ["MLP_NUM_THREADS"] = "1"  # all times below are those of one thread

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from threadpoolctl import threadpool_limits

from mlp.engine import Engine
from mlp.kernels.winograd import transforms
from mlp.layers import Convolution2DLayer, LayerWithParameters
from mlp.models import SingleLayerModel
from mlp.testing import check_gradients

threadpool_limits(1)
rng = np.random.default_rng(2)
BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## The sum
#
# Images $x$ $(N, C, H, W)$, $K$ kernels $w$ $(K, C, K_H, K_W)$, stride $S$ and $P$ rows and columns of
# zeros on each side. Every output pixel is a weighed sum of the window that it sees:
#
# $$y_{nkij} = b_k + \sum_{c=1}^{C} \sum_{u=0}^{K_H - 1} \sum_{v=0}^{K_W - 1}
# w_{kcuv}\; x_{n,\,c,\;iS + u - P,\;jS + v - P}, \qquad x = 0 \text{ outside the image.}$$
#
# Mathematicians call this a cross-correlation, as the kernel is not turned; in deep learning it is called a
# convolution. The last window must still fit into the padded image, $(O_H - 1) S + K_H \le H + 2P$, hence
#
# $$O_H = \Big\lfloor \frac{H + 2P - K_H}{S} \Big\rfloor + 1, \qquad \text{and } O_W \text{ likewise.}$$
#
# As loops, it is the formula itself:


# %%
def conv_by_loops(x, w, b, stride=1, padding=0):
    """Return y (N, K, OH, OW) for x (N, C, H, W), w (K, C, KH, KW) and b (K,)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height, width = ((padded.shape[a] - w.shape[a]) // stride + 1 for a in (2, 3))
    y = np.empty((len(x), len(w), height, width))
    for n, k, i, j in np.ndindex(*y.shape):
        y[n, k, i, j] = b[k]
        for c, u, v in np.ndindex(*w.shape[1:]):
            y[n, k, i, j] += w[k, c, u, v] * padded[n, c, i * stride + u, j * stride + v]
    return y


x, w, b = (rng.standard_normal(shape) for shape in ((2, 3, 7, 6), (4, 3, 3, 3), (4,)))
for stride, padding in ((1, 0), (1, 1), (2, 0), (2, 1)):
    layer = Convolution2DLayer(3, 4, 3, stride=stride, padding=padding)
    layer.params = [w, b]
    y = conv_by_loops(x, w, b, stride, padding)
    print(f"stride {stride}, padding {padding}: {y.shape}, as the library: {np.allclose(y, layer.fprop(x))}")

# %% [markdown]
# ## im2col, drawn
#
# Each output is an inner product of two lists of $K_H K_W C$ numbers: a window and a kernel. Write every
# window as one row of a matrix, and all inner products are one matrix product. Here are an image of
# $5 \times 5$ pixels, whose values are its pixels' numbers, and the $3 \times 3$ windows of its
# $3 \times 3$ outputs. Three of them are coloured.

# %%
image = np.arange(25).reshape(5, 5)
columns = np.lib.stride_tricks.sliding_window_view(image, (3, 3)).reshape(9, 9)
coloured = {0: BLUE, 4: AMBER, 8: RED}  # number of the window, in reading order


def draw_matrix(axes, values, title, colour_of):
    """Draw numbers in cells; colour_of(i, j) is the colour of a cell, or None."""
    for (i, j), value in np.ndenumerate(values):
        colour = colour_of(i, j)
        face = "white" if colour is None else colour + "55"
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=face, edgecolor="0.75", linewidth=0.8))
        axes.text(j + 0.5, i + 0.5, f"{value}", ha="center", va="center", fontsize=9)
    height, width = values.shape
    axes.set(xlim=(-0.3, width + 0.3), ylim=(height + 0.3, -0.3), aspect="equal", title=title)
    axes.axis("off")


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.3), layout="constrained", width_ratios=(5, 9))
draw_matrix(left, image, "image (5, 5)", lambda i, j: None)
for number, colour in coloured.items():
    corner = np.array(divmod(number, 3)[::-1]) + 0.06 * (number / 4 - 1)
    left.add_patch(Rectangle(corner, 3, 3, facecolor=colour + "22", edgecolor=colour, linewidth=2.5))
draw_matrix(right, columns, "columns (9, 9): a window a row", lambda i, j: coloured.get(i))
plt.show()

# %% [markdown]
# A window on the left is the row of its colour on the right. Pixel 12, in the middle, is in all nine
# windows, so it stands nine times in the matrix; pixel 0 in the corner stands there once.
#
# Now the product. Each kernel becomes one column of nine numbers; the kernel here finds vertical edges, and
# the image has one.

# %%
edge = np.where(np.arange(5) < 2, 0, 1) * np.ones((5, 1), int)  # dark on the left, bright on the right
kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # Sobel's
edge_columns = np.lib.stride_tricks.sliding_window_view(edge, (3, 3)).reshape(9, 9)
found = edge_columns @ kernel.reshape(9, 1)

figure, parts = plt.subplots(1, 4, figsize=(9.5, 4.0), layout="constrained", width_ratios=(5, 9, 2.2, 3))
draw_matrix(parts[0], edge, "image", lambda i, j: None)
draw_matrix(parts[1], edge_columns, "columns (9, 9)", lambda i, j: coloured.get(i))
draw_matrix(parts[2], kernel.reshape(9, 1), "kernel (9, 1)", lambda i, j: TEAL)
draw_matrix(parts[3], found.reshape(3, 3), "output (3, 3)", lambda i, j: coloured.get(3 * i + j))
parts[1].text(9.75, 4.6, r"$\times$", fontsize=16, ha="center")
parts[3].text(-0.75, 1.7, "=", fontsize=16, ha="center")
plt.show()

# %% [markdown]
# The product is a column of nine numbers, one a window, drawn here in its place in the output image: the
# edge gives 4, and the flat part 0. With $K$ kernels the second factor has $K$ columns, and the product one
# column an output channel.
#
# For a batch with channels, a row is a window of all channels. In which order a row lists its numbers does
# not matter, as long as the kernels do likewise. We take $(u, v, c)$, as the library does: its images lie
# in memory with the channels of a pixel side by side, and the row of a $3 \times 3$ window is then three
# runs of $3C$ numbers.


# %%
def im2col(x, size, stride=1, padding=0):
    """Return the columns (N OH OW, size size C) of images x (N, C, H, W), for square kernels."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 4, 5, 1)  # N, OH, OW, u, v, C
    return windows.reshape(-1, size * size * x.shape[1])


def as_matrix(w):
    """Return kernels w (K, C, KH, KW) as the matrix (KH KW C, K)."""
    return w.transpose(2, 3, 1, 0).reshape(-1, len(w))


def conv_by_columns(x, w, b, stride=1, padding=0):
    """Return y (N, K, OH, OW), by one matrix product."""
    size = w.shape[-1]
    height, width = ((length + 2 * padding - size) // stride + 1 for length in x.shape[2:])
    rows = im2col(x, size, stride, padding) @ as_matrix(w) + b
    return rows.reshape(len(x), height, width, len(w)).transpose(0, 3, 1, 2)


for stride, padding in ((1, 0), (1, 1), (2, 0), (2, 1)):
    same = np.allclose(conv_by_columns(x, w, b, stride, padding), conv_by_loops(x, w, b, stride, padding))
    print(f"stride {stride}, padding {padding}: as the loops: {same}")

# %% [markdown]
# `sliding_window_view` copies nothing: it is the same memory, read with other strides. The copy is made by
# `reshape`, as no strides can describe the matrix of columns.
#
# ## Backwards: col2im
#
# The convolution is now two maps, one after the other:
#
# $$X \;\xrightarrow{\;\text{im2col}\;}\; X_{\text{col}} \;\xrightarrow{\;\text{affine}\;}\;
# Y = X_{\text{col}} M + \mathbf{1} b^\top , \qquad M \;(K_H K_W C, K).$$
#
# The second is an affine layer, each output pixel a row. With the upstream gradient as a matrix $G$
# $(N O_H O_W, K)$, its gradients are known:
#
# $$\frac{\partial E}{\partial M} = X_{\text{col}}^\top G, \qquad
# \frac{\partial E}{\partial b} = G^\top \mathbf{1}, \qquad
# \frac{\partial E}{\partial X_{\text{col}}} = G M^\top .$$
#
# im2col is linear: seen as a map between long vectors it is a matrix $A$ of zeros and ones,
# $X_{\text{col}} = A X$. A row of $A$ has a single 1, at the pixel that is copied (none where padding is
# copied). By the chain rule the gradient goes back through the transposed matrix:
#
# $$\frac{\partial E}{\partial X} = A^\top \frac{\partial E}{\partial X_{\text{col}}} .$$
#
# A column of $A$ has a 1 for every copy of a pixel. So $A^\top$, called **col2im**, *adds up* the gradients
# of all copies of a pixel. To know who came from where, let im2col copy the pixels' numbers:


# %%
def col2im_by_numbers(columns, shape, size, stride=1, padding=0):
    """Return the sum over all copies of each pixel, in the shape (N, C, H, W) of the images."""
    count = int(np.prod(shape))
    numbers = im2col(np.arange(1, count + 1).reshape(shape), size, stride, padding)  # 0: padding
    sums = np.bincount(numbers.ravel(), weights=columns.ravel(), minlength=count + 1)
    return sums[1:].reshape(shape)


class ColumnConvolutionLayer(LayerWithParameters):
    """A convolution by im2col and col2im; square kernels."""

    param_names = ("kernels", "biases")

    def __init__(self, channels, filters, size, stride=1, padding=0):
        self.kernels = np.random.default_rng(0).standard_normal((filters, channels, size, size))
        self.biases = np.zeros(filters)
        self.geometry = size, stride, padding

    def fprop(self, inputs):
        """Return y (N, K, OH, OW)."""
        return conv_by_columns(inputs, self.kernels, self.biases, *self.geometry[1:])

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx = col2im(G M')."""
        rows = grads_wrt_outputs.transpose(0, 2, 3, 1).reshape(-1, len(self.kernels))
        return col2im_by_numbers(rows @ as_matrix(self.kernels).T, inputs.shape, *self.geometry)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/dw = columns' G in the shape of w, dE/db]."""
        filters, channels, size, _ = self.kernels.shape
        rows = grads_wrt_outputs.transpose(0, 2, 3, 1).reshape(-1, filters)
        grads = im2col(inputs, *self.geometry).T @ rows
        return [grads.reshape(size, size, channels, filters).transpose(3, 2, 0, 1), rows.sum(axis=0)]


for stride, padding in ((1, 1), (2, 0)):
    check_gradients(ColumnConvolutionLayer(3, 4, 3, stride, padding), (2, 3, 7, 6))
check_gradients(ColumnConvolutionLayer(3, 4, 3, 2, 1), (2, 3, 7, 6))

# %% [markdown]
# How often is a pixel copied? col2im of a matrix of ones counts it.

# %%
figure, parts = plt.subplots(1, 4, figsize=(10, 3.1), layout="constrained")
for axes, (stride, padding) in zip(parts, ((1, 0), (1, 1), (2, 0), (2, 1)), strict=True):
    ones = np.ones_like(im2col(np.zeros((1, 1, 7, 7)), 3, stride, padding))
    copies = col2im_by_numbers(ones, (1, 1, 7, 7), 3, stride, padding)[0, 0].astype(int)
    axes.imshow(copies, cmap="Blues", vmin=0, vmax=12)
    for (i, j), value in np.ndenumerate(copies):
        axes.text(j, i, value, ha="center", va="center", fontsize=9, color="white" if value > 7 else "black")
    outputs = (7 + 2 * padding - 3) // stride + 1
    axes.set_title(f"stride {stride}, padding {padding}:\noutput {outputs} x {outputs}", fontsize=11)
    axes.axis("off")
plt.show()

# %% [markdown]
# Copies of each pixel of a $7 \times 7$ image for a $3 \times 3$ kernel. At stride 1 the inside is copied
# nine times, which is the nine-fold memory of im2col; without padding a corner is seen only once. At stride
# 2 the counts alternate between 1, 2 and 4, and gradients by the inputs show the same grid.
#
# **Exercise 1.** `np.bincount` goes through all entries one by one. Write a faster col2im with a loop over
# the $K_H K_W$ places of the kernel only: all entries for one place $(u, v)$ are an image of outputs, which
# is added to every $S$-th pixel of a padded image, starting at $(u, v)$; the border is cut off in the end.
#
# It is checked against `col2im_by_numbers`, and by what makes it the adjoint:
# $\langle \text{im2col}(x), c \rangle = \langle x, \text{col2im}(c) \rangle$ for all $x$ and $c$. The
# solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def col2im(columns, shape, size, stride=1, padding=0):
    """Return the sum over all copies of each pixel, (N, C, H, W).

    columns (N OH OW, size size C), as im2col returns them, in the order N, OH, OW and u, v, C; shape is
    (N, C, H, W); square kernels. Loop over u and v only.
    """
    ### BEGIN SOLUTION
    n, channels, height, width = shape
    out_height, out_width = ((length + 2 * padding - size) // stride + 1 for length in (height, width))
    parts = columns.reshape(n, out_height, out_width, size, size, channels).transpose(0, 5, 3, 4, 1, 2)
    padded = np.zeros((n, channels, height + 2 * padding, width + 2 * padding), columns.dtype)
    for u in range(size):
        for v in range(size):
            rows = slice(u, u + stride * (out_height - 1) + 1, stride)
            places = slice(v, v + stride * (out_width - 1) + 1, stride)
            padded[:, :, rows, places] += parts[:, :, u, v]
    return padded[:, :, padding : padding + height, padding : padding + width]
    ### END SOLUTION


# %% tags=["check"]
for size, stride, padding in ((3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 3, 2), (2, 2, 0)):
    case = f"size {size}, stride {stride}, padding {padding}"
    copied = im2col(x, size, stride, padding)
    c = rng.standard_normal(copied.shape)
    summed = col2im(c, x.shape, size, stride, padding)
    assert np.shape(summed) == x.shape, f"{case}: the result has shape {np.shape(summed)}, expected {x.shape}"
    both = (copied * c).sum(), (x * summed).sum()
    assert np.isclose(*both), f"{case}: <im2col(x), c> is {both[0]:.6f} and <x, col2im(c)> is {both[1]:.6f}"
    expected = col2im_by_numbers(c, x.shape, size, stride, padding)
    assert np.allclose(summed, expected), f"{case}: some sums are not those of col2im_by_numbers"
print("Exercise 1: right")

# %% [markdown]
# ## The gradient by the inputs is a convolution
#
# At stride 1 there is another way back. Input $x_{ncpq}$ acts on output $(i, j)$ through the weight at
# $u = p - i + P$, $v = q - j + P$. So
#
# $$\frac{\partial E}{\partial x_{ncpq}} = \sum_{k,u,v} G_{n,\,k,\;p - u + P,\;q - v + P}\; w_{kcuv}, \qquad
# G = 0 \text{ outside.}$$
#
# This is a sum over windows of $G$, but $u$ has the wrong sign. Count from the other end,
# $u = K_H - 1 - u'$ and $v = K_W - 1 - v'$:
#
# $$\frac{\partial E}{\partial x_{ncpq}} = \sum_{k,u',v'}
# w_{k,\,c,\;K_H - 1 - u',\;K_W - 1 - v'}\; G_{n,\,k,\;p + u' - (K_H - 1 - P),\;q + v' - (K_W - 1 - P)} .$$
#
# Compare with the first formula of this notebook: a convolution of $G$, with the kernels turned by half a
# turn, the channels in and out exchanged, and padding $K_H - 1 - P$. A $3 \times 3$ kernel with $P = 1$
# keeps its padding. (At a larger stride, $G$ is spread with $S - 1$ zeros between its pixels first.)
#
# **Exercise 2.** Write this with `conv_by_columns`. It is checked against the library's layer for kernels
# of sizes 1, 3 and 5 and several paddings. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def grads_wrt_inputs_by_convolution(grads_wrt_outputs, w, padding):
    """Return dE/dx (N, C, H, W) of a convolution with stride 1, as a convolution of dE/dy.

    grads_wrt_outputs dE/dy (N, K, OH, OW), w (K, C, size, size), padding P <= size - 1. Call
    conv_by_columns(x, w, b, stride, padding), which takes w as (channels out, channels in, size, size); it
    needs biases, of zeros.
    """
    ### BEGIN SOLUTION
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return conv_by_columns(grads_wrt_outputs, turned, np.zeros(len(turned)), 1, w.shape[-1] - 1 - padding)
    ### END SOLUTION


# %% tags=["check"]
for size, padding in ((1, 0), (3, 0), (3, 1), (3, 2), (5, 1)):
    layer = Convolution2DLayer(3, 4, size, padding=padding)
    y = layer.fprop(x)
    g = rng.standard_normal(y.shape)
    expected, got = layer.bprop(x, y, g), grads_wrt_inputs_by_convolution(g, layer.kernels, padding)
    case = f"size {size}, padding {padding}"
    assert np.shape(got) == x.shape, f"{case}: the result has shape {np.shape(got)}, expected {x.shape}"
    assert np.allclose(got, expected), f"{case}: another gradient than the library's: turned in both axes?"
print("Exercise 2: right")

# %% [markdown]
# The library uses this form, and more: at stride 1 the columns of $G$ serve both gradients, as
# $\partial E / \partial w$ can be read from $X^\top \,\text{columns}(G)$ too.
#
# ## What it costs
#
# Every output takes $K_H K_W C$ multiplications and as many additions: a convolution has
# $N O_H O_W K \cdot K_H K_W C$ multiply-adds forward, and twice that backward. As for memory, the columns
# hold $N O_H O_W K_H K_W C$ numbers, about $K_H K_W$ times the images themselves.

# %%
print(" channels      map  million multiply-adds    images    columns")
for channels, size in ((32, 32), (32, 16), (32, 8), (32, 4)):
    layer = Convolution2DLayer(channels, channels, 3, padding=1)
    shape = (100, channels, size, size)
    megabytes = 4 * np.prod(shape) / 1e6
    work = layer.multiply_adds(shape, shape) / 1e6
    print(f"{channels:9d} {size:5d} x{size:2d} {work:22,.1f} {megabytes:6.1f} MB {9 * megabytes:7.1f} MB")

# %% [markdown]
# For a batch of 100 in float32, at the sizes of the maps in the report's VGG networks. 118 MB do not fit
# into any core's cache: they are written to main memory and read from there again, just to be multiplied
# once.
#
# But nobody needs all columns at once. Make those of a few images, multiply, and write the next ones into
# the same memory:


# %%
def conv_in_chunks(x, matrix, chunk):
    """Return y (N, H, W, K) for x (N, C, H, W) and a 3x3 kernel as a matrix, a few images at a time."""
    n, channels, height, width = x.shape
    padded = np.zeros((chunk, height + 2, width + 2, channels), x.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)  # chunk, H, W, u, v, C: a view
    columns = np.empty(windows.shape, x.dtype)
    y = np.empty((n, height, width, matrix.shape[1]), x.dtype)
    for first in range(0, n, chunk):
        padded[:, 1:-1, 1:-1] = x[first : first + chunk].transpose(0, 2, 3, 1)
        columns[...] = windows
        flat = columns.reshape(-1, len(matrix))
        np.matmul(flat, matrix, out=y[first : first + chunk].reshape(len(flat), -1))
    return y


def times_in_turns(sides, rounds):
    """Return {name: processor seconds of every round} for functions that are called in turns."""
    seconds = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = time.process_time()  # not counting other programs
            side()
            if number > 0:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in seconds.items()}


# %%
batch = rng.standard_normal((100, 32, 32, 32)).astype(np.float32).transpose(0, 3, 1, 2)  # channels-last
weights = rng.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17.0
matrix = as_matrix(weights)
chunks = (1, 2, 4, 5, 10, 20, 50, 100)
seconds = times_in_turns({n: lambda n=n: conv_in_chunks(batch, matrix, n) for n in chunks}, rounds=9)
ratios = np.array([seconds[n] / seconds[100] for n in chunks])
low, middle, high = np.percentile(ratios, (25, 50, 75), axis=1)

figure, axes = plt.subplots(figsize=(8, 4.0), layout="constrained")
axes.errorbar(chunks, middle, (middle - low, high - middle), fmt="o-", color=BLUE, capsize=4, markersize=6)
axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1)
axes.set(xscale="log", xlabel="images whose columns are made at once", ylim=(0, 1.15 * max(1.0, high.max())))
axes.set_ylabel("time, as a share of the time\nwith all columns at once")
axes.set_xticks(chunks, [str(n) for n in chunks])
axes.minorticks_off()
per_image = 32 * 32 * 9 * 32 * 4 / 1e6
above = axes.secondary_xaxis("top")
above.set_xticks(chunks, [f"{n * per_image:.1f}" if n < 10 else f"{n * per_image:.0f}" for n in chunks])
above.set_xlabel("columns, MB")
above.minorticks_off()
plt.show()

# %% [markdown]
# The same multiplications and additions, in chunks of different size: median and quartiles of nine rounds,
# processor time of one thread. Below the dashed line chunks are faster than the whole batch. Where the
# curve rises depends on the caches of your machine: the columns should fit into the second-level cache of a
# core, often 1 or 2 MB, together with what they are multiplied with. The library's layer makes columns of
# 1.2 MB at a time.
#
# ## Fewer multiplications
#
# So far the sum was computed as it stands, and only the memory was arranged. Winograd's algorithm computes
# another sum with the same value. It begins with one axis: two neighbouring outputs of a kernel of three,
#
# $$y_0 = w_0 x_0 + w_1 x_1 + w_2 x_2, \qquad y_1 = w_0 x_1 + w_1 x_2 + w_2 x_3 ,$$
#
# take six multiplications as they stand. Four are enough. Additions and division by constants are not
# counted: what involves $w$ alone is done once for all images, and what involves $x$ alone once for all $K$
# kernels.
#
# To see how many products an algorithm takes, let numbers count them:


# %%
def value_of(number):
    """Return the value of a counted number, or the number itself."""
    return getattr(number, "value", number)


class Counted:
    """A number that counts the products, and quotients, of two of its kind."""

    products = 0

    def __init__(self, value):
        self.value = value

    def __mul__(self, other):
        """Return the product."""
        Counted.products += isinstance(other, Counted)
        return Counted(self.value * value_of(other))

    def __truediv__(self, other):
        """Return the quotient."""
        Counted.products += isinstance(other, Counted)
        return Counted(self.value / value_of(other))

    def __add__(self, other):
        """Return the sum."""
        return Counted(self.value + value_of(other))

    def __sub__(self, other):
        """Return the difference."""
        return Counted(self.value - value_of(other))

    def __neg__(self):
        """Return the negative."""
        return Counted(-self.value)

    __radd__, __rmul__ = __add__, __mul__


# %% [markdown]
# **Exercise 3.** Find the algorithm $F(2, 3)$ with four products
# $m_i = (\text{sum of some } x) \cdot (\text{sum of some } w)$. Take the factors
#
# $$x_0 - x_2, \quad x_1 + x_2, \quad x_2 - x_1, \quad x_1 - x_3$$
#
# and find what each is to be multiplied with. (Hint: only $y_0$ contains $x_0$, and only as $w_0 x_0$. The
# middle two products are needed by both outputs, with $w_0 \pm w_1 + w_2$.) It is checked with such
# counting numbers. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def winograd_2_3(x, w):
    """Return (y_0, y_1) of y_i = w_0 x_i + w_1 x_(i+1) + w_2 x_(i+2), with four products.

    x holds four numbers, w three. Allowed without limit: + and -, and division by a constant.
    """
    ### BEGIN SOLUTION
    m_0 = (x[0] - x[2]) * w[0]
    m_1 = (x[1] + x[2]) * ((w[0] + w[1] + w[2]) / 2)
    m_2 = (x[2] - x[1]) * ((w[0] - w[1] + w[2]) / 2)
    m_3 = (x[1] - x[3]) * w[2]
    return m_0 + m_1 + m_2, m_1 - m_2 - m_3
    ### END SOLUTION


# %% tags=["check"]
for _ in range(5):
    numbers, taps = rng.standard_normal(4), rng.standard_normal(3)
    Counted.products = 0
    pair = winograd_2_3([Counted(value) for value in numbers], [Counted(value) for value in taps])
    expected = [taps @ numbers[:3], taps @ numbers[1:]]
    assert len(pair) == 2, f"{len(pair)} numbers came back, expected the pair (y_0, y_1)"
    got = [value_of(number) for number in pair]
    assert np.allclose(got, expected), f"got {np.round(got, 4)}, expected {np.round(expected, 4)}"
    assert Counted.products <= 4, f"{Counted.products} products, expected 4"
print("Exercise 3: right")

# %% [markdown]
# ## Where such algorithms come from
#
# Multiply two polynomials, $w(p) = w_0 + w_1 p + w_2 p^2$ and $u(p) = u_0 + u_1 p + u_2 p^2 + u_3 p^3$. The
# product has degree 5, so its six coefficients are fixed by six values. Choose five points $p_i$, and as a
# sixth value the leading coefficient $w_2 u_3$, "the value at infinity". At each point one multiplication
# is enough: $w(p_i)\, u(p_i)$. In three steps, all of them matrices:
#
# $$\text{coefficients of } w u \;=\;
# \underbrace{B}_{\text{interpolation}} \big(
# \underbrace{(G w)}_{w(p_i)} \odot \underbrace{(A u)}_{u(p_i)} \big)
# \;=\; B \operatorname{diag}(G w)\, A \; u .$$
#
# For a fixed $w$ this is a linear map of $u$: a $6 \times 4$ matrix whose entry $(j, i)$ is $w_{j-i}$. Its
# transpose, $4 \times 6$, has the entry $w_{j-i}$ at $(i, j)$, and maps $x$ to
# $\sum_j w_{j-i}\, x_j = \sum_u w_u\, x_{i+u}$: four outputs of a convolution. So with the same matrices
#
# $$y = A^\top \operatorname{diag}(G w)\, B^\top x = A^\top \big( (G w) \odot (B^\top x) \big) .$$
#
# That is $F(4, 3)$: six multiplications for four outputs, instead of twelve. Lagrange's interpolation
# polynomials give $B$, with their denominators moved into $G$:


# %%
def winograd_matrices(points, outputs=4, taps=3):
    """Return A' (outputs, n), G (n, taps) and B' (n, n), for n - 1 points and infinity."""
    n = outputs + taps - 1
    at, g, bt = np.zeros((outputs, n)), np.zeros((n, taps)), np.zeros((n, n))
    at[:, :-1] = np.array(points) ** np.arange(outputs)[:, None]
    for i, point in enumerate(points):
        others = np.delete(points, i)
        g[i] = point ** np.arange(taps) / np.prod(point - others)
        bt[i, :-1] = np.poly(others)[::-1]  # coefficients of the product of (p - other), from p^0 on
    at[-1, -1] = g[-1, -1] = 1.0  # infinity: the leading coefficients
    bt[-1] = np.poly(points)[::-1]
    return at, g, bt


at, g, bt = winograd_matrices((0.0, 0.75, -0.75, 1.5, -1.5))
taps, line = rng.standard_normal(3), rng.standard_normal(6)
expected = [taps @ line[i : i + 3] for i in range(4)]
print("one axis is right:", np.allclose(at @ ((g @ taps) * (bt @ line)), expected))
theirs = transforms(np.dtype(np.float64))
same = map(np.allclose, (at, g, bt), (theirs.outputs, theirs.kernels, theirs.inputs))
print("the same matrices as the library's:", all(same))

# %% [markdown]
# Along both axes, one after the other, a tile of $4 \times 4$ outputs takes $6 \times 6$ multiplications
# instead of $4 \cdot 4 \cdot 9 = 144$, a quarter:
#
# $$y = A^\top \big[ (G\, w\, G^\top) \odot (B^\top x\, B) \big] A .$$
#
# With channels, the sum over $c$ is taken inside the brackets. At each of the 36 places it is then a matrix
# product, (tiles, $C$) times ($C$, $K$): we are back at matrix products, 36 small ones. Each transform is
# done once for a tile and a channel, however many channels are on the other side.


# %%
def conv_by_winograd(x, w, matrices):
    """Return y (N, K, H, W) for x (N, C, H, W), 3x3 kernels, stride 1, padding 1; H and W multiples of 4."""
    at, g, bt = (m.astype(x.dtype) for m in matrices)
    n, channels, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(2, 3))[:, :, ::4, ::4]
    values = (bt @ tiles @ bt.T).transpose(4, 5, 0, 2, 3, 1).reshape(36, -1, channels)  # 36, tiles, C
    kernels = (g @ w @ g.T).transpose(2, 3, 1, 0).reshape(36, channels, -1)  # 36, C, K
    products = (values @ kernels).reshape(6, 6, n, height // 4, width // 4, -1)
    y = at @ products.transpose(2, 5, 3, 4, 0, 1) @ at.T  # N, K, tiles down, tiles across, 4, 4
    return y.swapaxes(3, 4).reshape(n, -1, height, width)


few = batch[:4]
exact = conv_by_columns(few.astype(float), weights.astype(float), np.zeros(32), padding=1)
sides = {"plain sum": conv_by_columns(few, weights, np.zeros(32, np.float32), padding=1)}
for points in ((0.0, 0.75, -0.75, 1.5, -1.5), (0.0, 1.0, -1.0, 2.0, -2.0)):
    sides[f"Winograd, {points}"] = conv_by_winograd(few, weights, winograd_matrices(points))
print("largest error in float32, relative to the largest output")
for name, y in sides.items():
    print(f"    {name:39s} {np.abs(y - exact).max() / np.abs(exact).max():.1e}")

# %% [markdown]
# The price is digits: Winograd's sums cancel, and their rounding errors are several times those of the
# plain sum. The points decide how many. Small whole numbers are convenient on paper, but their powers
# differ more in size; the library takes the first of the two sets. Beside the noise of a gradient that is
# estimated from a batch of images, errors of $10^{-6}$ are small.
#
# ## What we saw
#
# What is left to do is to count, and to measure. The count, for one image of 32 channels of $32 \times 32$
# pixels and 32 kernels: the plain sum, and Winograd's products and transforms, each written as a product
# with a dense matrix.

# %%
tiles, channels = (32 // 4) ** 2, 32
work = {
    "36 matrix products": 36 * tiles * channels * channels,
    "transforms of the inputs": 2 * 6 * 6 * 6 * tiles * channels,
    "transforms of the outputs": (4 * 6 * 6 + 4 * 6 * 4) * tiles * channels,
}
plain = 9 * 32 * 32 * channels * channels
layer = Convolution2DLayer(32, 32, 3, padding=1, bias=False, kernels_init=lambda shape: weights)
engine = Engine(SingleLayerModel(layer))


def by_plan(method):
    """Return y by a plan of the library, with "winograd" or "im2col"."""
    os.environ["MLP_CONV"] = method
    return engine.predict(batch)


sides = {
    "all columns at once": lambda: conv_in_chunks(batch, matrix, 100),
    "columns of 1 image at once": lambda: conv_in_chunks(batch, matrix, 1),
    "the library's layer": lambda: layer.fprop(batch),
    "the library's plan, im2col": lambda: by_plan("im2col"),
    "the library's plan, Winograd": lambda: by_plan("winograd"),
}
seconds = times_in_turns(sides, rounds=9)
apart = [np.abs(by_plan(method) - layer.fprop(batch)).max() for method in ("im2col", "winograd")]
print(f"largest differences of the plans from the layer: im2col {apart[0]:.0e}, Winograd {apart[1]:.0e}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=(2, 3))
left.bar(0, plain / 1e6, color=GREY, width=0.6)
bottom = 0.0
for (name, count), colour in zip(work.items(), (BLUE, TEAL, AMBER), strict=True):
    left.bar(1, count / 1e6, bottom=bottom / 1e6, color=colour, width=0.6, label=name)
    bottom += count
left.set_xticks((0, 1), ("plain sum", "Winograd\n$F(4\\times4, 3\\times3)$"))
left.set_ylabel("million multiply-adds an image")
left.set_ylim(0, 1.45 * plain / 1e6)
left.legend(loc="upper right", frameon=False, fontsize=9)

ratios = [values / seconds["all columns at once"] for values in seconds.values()]
low, middle, high = np.percentile(ratios, (25, 50, 75), axis=1)
places = np.arange(len(sides))[::-1]
spread = middle - low, high - middle
right.errorbar(middle, places, xerr=spread, fmt="o", color=BLUE, capsize=4, markersize=7)
right.axvline(1.0, color=GREY, linestyle="--", linewidth=1)
right.set_yticks(places, list(sides))
right.set(xlim=(0, 1.1 * max(1.0, high.max())), ylim=(-0.6, len(sides) - 0.4))
right.set_xlabel("time, as a share of the first; one thread")
right.grid(axis="y", color="0.9")
plt.show()

# %%
small = batch[:1, :, :8, :8].astype(float)
ends = {
    "loops": lambda: conv_by_loops(small, weights, np.zeros(32), 1, 1),
    "plan": lambda: by_plan("winograd"),
}
loops = times_in_turns(ends, rounds=1)
factor = (loops["loops"][0] / small[0, 0].size) / (loops["plan"][0] / batch[:, 0].size)
print(f"the loops take {factor:,.0f} times as long an output pixel as the plan with Winograd's algorithm")

# %% [markdown]
# Left: Winograd's algorithm needs a quarter of the multiply-adds in its products, and the transforms take
# back a part of what is saved. Right: median and quartiles of nine rounds on your machine; the first way is
# 1.
#
# - A convolution is an affine layer on columns. Its gradients are those of the affine layer, followed by
#   col2im, which adds up what im2col copied; at stride 1 that is again a convolution, with turned kernels.
# - The columns are nine times the images for a $3 \times 3$ kernel. Made for a few images at a time, they
#   need never leave the cache.
# - The same sum can be had with fewer multiplications, at the price of some digits and of transforms.
# - The loops and the fastest way compute the same formula; what differs is the order of the work.
#
# The library keeps its layer in the form of this notebook's columns, as the reference that can be read, and
# runs $3 \times 3$ convolutions of stride 1 by Winograd's algorithm in its plans, where that takes fewer
# multiplications (`mlp/kernels/convolution.py`, `mlp/kernels/winograd.py`, and *The engine* in
# `docs/architecture.md`).
#
# ## Further reading
#
# - K. Chellapilla, S. Puri and P. Simard, *High performance convolutional neural networks for document
#   processing*, IWFHR 2006.
# - S. Winograd, *Arithmetic Complexity of Computations*, SIAM, 1980.
# - A. Lavin and S. Gray, *Fast algorithms for convolutional neural networks*, CVPR 2016, section 4.
# - V. Dumoulin and F. Visin, *A guide to convolution arithmetic for deep learning*, arXiv:1603.07285, 2016.
