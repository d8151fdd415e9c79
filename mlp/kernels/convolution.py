"""2-d convolution (cross-correlation) as matrix products of image columns: im2col.

Letters: N batch, C K channels in and out, H W, KH KW kernel, SH SW stride, PH PW padding, DH DW dilation, OH OW.

    y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i SH + u DH - PH, j SW + v DW - PW]

The patch that one output pixel sees, KH KW C numbers, is one row of a matrix of columns, so that
y = columns(x) w, (N OH OW, KH KW C) times (KH KW C, K). The matrix of a whole batch would be nine times the batch for
a 3x3 kernel: it is made, used and forgotten for a few images at a time, while it is in the cache (Chellapilla, Puri
and Simard, High performance convolutional neural networks for document processing, IWFHR 2006).

Memory is channels-last: results are (N, C, H, W) views of (N, H, W, C) memory; inputs may have any strides.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mlp.backend import Array, array_module, is_gpu_array
from mlp.kernels.parallel import run_parts

Pair = tuple[int, int]

_CHUNK_NUMBERS = 300_000
"""Numbers in one chunk of columns: 1.2 MB in float32, what a core's second-level cache holds."""


class ConvGeometry(NamedTuple):
    """Sizes of a convolution, each a pair (height, width)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def output_size(self, height: int, width: int) -> Pair:
        """Return (OH, OW) for an image of this size: floor((H + 2 PH - DH (KH - 1) - 1) / SH) + 1."""
        sizes = [
            (size + 2 * pad - dil * (ker - 1) - 1) // step + 1
            for size, ker, step, pad, dil in zip((height, width), *self, strict=True)
        ]
        return sizes[0], sizes[1]


class _Frame(NamedTuple):
    """Where images are placed in a frame of zeros, and which windows are read from the frame.

    Pixel i of an image goes to `offset` + i `spread`, and is left out where that is outside. Window i starts at
    i `stride` and reads every `dilation`-th pixel.
    """

    windows: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    offset: Pair
    spread: Pair

    def size(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (self.windows[axis] - 1) * self.stride[axis] + reach + 1

    def placement(self, axis: int, length: int) -> tuple[slice, slice]:
        """Return the slice of the frame and the slice of an image of this length that goes there."""
        offset, spread, size = self.offset[axis], self.spread[axis], self.size(axis)
        first = max(0, -(offset // spread))
        last = min(length, -((offset - size) // spread))
        if last <= first:
            return slice(0, 0), slice(0, 0)
        return slice(offset + first * spread, offset + (last - 1) * spread + 1, spread), slice(first, last)


def conv2d(inputs: Array, kernels: Array, biases: Array | None, geometry: ConvGeometry) -> Array:
    """Return y (N, K, OH, OW) for x (N, C, H, W), w (K, C, KH, KW) and b (K,) or None."""
    xp = array_module(inputs)
    frame = _forward_frame(inputs, geometry)
    matrix = kernels.transpose(2, 3, 1, 0).reshape(-1, kernels.shape[0])
    outputs = _empty_rows(inputs, kernels, frame.windows, kernels.shape[0])

    def part(start: int, stop: int) -> None:
        for chunk, columns in _column_chunks(inputs, frame, start, stop):
            rows = outputs[chunk].reshape(len(columns), -1)
            xp.matmul(columns, matrix, out=rows)
            if biases is not None:
                rows += biases

    run_parts(part, len(inputs), _chunk_length(inputs, frame))
    return outputs.transpose(0, 3, 1, 2)


def conv2d_grad_inputs(grads: Array, kernels: Array, geometry: ConvGeometry, size: Pair) -> Array:
    """Return dE/dx (N, C, H, W) for dE/dy (N, K, OH, OW), w (K, C, KH, KW) and `size` = (H, W).

    A convolution too: of dE/dy, spread by the stride and padded, with the kernels turned by half a turn.
    """
    xp = array_module(grads)
    frame = _backward_frame(geometry, size)
    matrix = _turned(kernels)
    grads_wrt_inputs = _empty_rows(grads, kernels, size, kernels.shape[1])

    def part(start: int, stop: int) -> None:
        for chunk, columns in _column_chunks(grads, frame, start, stop):
            xp.matmul(columns, matrix, out=grads_wrt_inputs[chunk].reshape(len(columns), -1))

    run_parts(part, len(grads), _chunk_length(grads, frame))
    return grads_wrt_inputs.transpose(0, 3, 1, 2)


def conv2d_grad_kernels(inputs: Array, grads: Array, geometry: ConvGeometry) -> Array:
    """Return dE/dw (K, C, KH, KW) for x (N, C, H, W) and dE/dy (N, K, OH, OW): columns(x)' dE/dy."""
    frame = _forward_frame(inputs, geometry)
    channels = inputs.shape[1], grads.shape[1]

    def part(start: int, stop: int) -> Array:
        chunks = _column_chunks(inputs, frame, start, stop)
        return _sum([columns.T @ _rows(grads[chunk]) for chunk, columns in chunks])

    total = _sum(run_parts(part, len(inputs), _chunk_length(inputs, frame)))
    return total.reshape(*geometry.kernel, *channels).transpose(3, 2, 0, 1)


def conv2d_grads(inputs: Array, grads: Array, kernels: Array, geometry: ConvGeometry) -> tuple[Array, Array]:
    """Return dE/dx and dE/dw together, as `conv2d_grad_inputs` and `conv2d_grad_kernels` do.

    At stride 1 both come from one matrix of columns, that of dE/dy: dE/dw = x' columns(dE/dy), turned.
    """
    size = (inputs.shape[2], inputs.shape[3])
    if geometry.stride != (1, 1):
        grads_wrt_kernels = conv2d_grad_kernels(inputs, grads, geometry)
        return conv2d_grad_inputs(grads, kernels, geometry, size), grads_wrt_kernels
    xp = array_module(grads)
    frame = _backward_frame(geometry, size)
    matrix = _turned(kernels)
    grads_wrt_inputs = _empty_rows(grads, kernels, size, kernels.shape[1])

    def part(start: int, stop: int) -> Array:
        products = []
        for chunk, columns in _column_chunks(grads, frame, start, stop):
            xp.matmul(columns, matrix, out=grads_wrt_inputs[chunk].reshape(len(columns), -1))
            products.append(_rows(inputs[chunk]).T @ columns)
        return _sum(products)

    total = _sum(run_parts(part, len(grads), _chunk_length(grads, frame)))
    turned = total.reshape(kernels.shape[1], *geometry.kernel, kernels.shape[0])[:, ::-1, ::-1]
    return grads_wrt_inputs.transpose(0, 3, 1, 2), turned.transpose(3, 0, 1, 2)


def _forward_frame(inputs: Array, geometry: ConvGeometry) -> _Frame:
    windows = geometry.output_size(*inputs.shape[2:])
    return _Frame(windows, geometry.kernel, geometry.stride, geometry.dilation, geometry.padding, (1, 1))


def _backward_frame(geometry: ConvGeometry, size: Pair) -> _Frame:
    (kh, kw), (dh, dw), (ph, pw) = geometry.kernel, geometry.dilation, geometry.padding
    offset = dh * (kh - 1) - ph, dw * (kw - 1) - pw
    return _Frame(size, geometry.kernel, (1, 1), geometry.dilation, offset, geometry.stride)


def _chunk_length(images: Array, frame: _Frame) -> int:
    """Return how many images' columns to make at once: a cacheful on a CPU, all on a GPU."""
    if is_gpu_array(images):
        return len(images)
    (oh, ow), (kh, kw) = frame.windows, frame.kernel
    return max(1, _CHUNK_NUMBERS // int(oh * ow * kh * kw * images.shape[1]))


def _column_chunks(images: Array, frame: _Frame, start: int, stop: int) -> Iterator[tuple[slice, Array]]:
    """Yield (which images, their columns (n OH OW, KH KW C)) for chunks of images[start:stop].

    The columns live in one buffer, which the next chunk overwrites.
    """
    xp = array_module(images)
    length = min(_chunk_length(images, frame), stop - start)
    channels = images.shape[1]
    padded = xp.zeros((length, frame.size(0), frame.size(1), channels), images.dtype)
    columns = xp.empty((length, *frame.windows, *frame.kernel, channels), images.dtype)
    windows = _windows(padded, frame)
    (rows_to, rows_from), (cols_to, cols_from) = (frame.placement(a, images.shape[2 + a]) for a in (0, 1))
    for first in range(start, stop, length):
        chunk = slice(first, min(first + length, stop))
        n = chunk.stop - first
        padded[:n, rows_to, cols_to] = images[chunk, :, rows_from, cols_from].transpose(0, 2, 3, 1)
        columns[:n] = windows[:n]
        yield chunk, columns[:n].reshape(-1, columns[0, 0, 0].size)


def _windows(padded: Array, frame: _Frame) -> Array:
    """Return the view (N, OH, OW, KH, KW, C) of the windows of `padded` (N, rows, columns, C)."""
    n, row, col, channel = padded.strides
    (sh, sw), (dh, dw) = frame.stride, frame.dilation
    shape = (len(padded), *frame.windows, *frame.kernel, padded.shape[3])
    strides = (n, row * sh, col * sw, row * dh, col * dw, channel)
    return array_module(padded).lib.stride_tricks.as_strided(padded, shape, strides)


def _rows(images: Array) -> Array:
    """Return (N, C, H, W) as the matrix (N H W, C) of its pixels: a view where memory is channels-last."""
    return images.transpose(0, 2, 3, 1).reshape(-1, images.shape[1])


def _turned(kernels: Array) -> Array:
    """Return w (K, C, KH, KW) turned by half a turn, as the matrix (KH KW K, C)."""
    return kernels[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(-1, kernels.shape[1])


def _empty_rows(images: Array, kernels: Array, size: Pair, channels: int) -> Array:
    xp = array_module(images)
    return xp.empty((len(images), *size, channels), xp.result_type(images, kernels))


def _sum(arrays: list[Array]) -> Array:
    """Return the sum of arrays of one shape, in their order."""
    total = arrays[0]
    for array in arrays[1:]:
        total += array
    return total
