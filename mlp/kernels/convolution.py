"""Convolution (cross-correlation) over one or more spatial axes, as matrix products of image columns: im2col.

Letters, for two spatial axes: N batch, C K channels in and out, H W, KH KW kernel, SH SW stride, PH PW padding before,
DH DW dilation, OH OW.

    y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i SH + u DH - PH, j SW + v DW - PW]

The patch that one output pixel sees, KH KW C numbers, is one row of a matrix of columns, so that
y = columns(x) w, (N OH OW, KH KW C) times (KH KW C, K). The matrix of a whole batch would be nine times the batch for
a 3x3 kernel: it is made, used and forgotten for a few images at a time, while it is in the cache (Chellapilla, Puri
and Simard, High performance convolutional neural networks for document processing, IWFHR 2006).

Memory is channels-last: results are (N, C, H, W) views of (N, H, W, C) memory; inputs may have any strides. One and
three spatial axes, (N, C, L) and (N, C, D, H, W), go the same way. With groups, w is (K, C / groups, KH, KW): the
channels in and out are cut into that many groups, and each group of outputs sees its own group of inputs.
"""

from collections.abc import Iterator
from itertools import starmap
from math import prod
from typing import NamedTuple

from mlp.backend import Array, array_module, is_gpu_array
from mlp.kernels.parallel import run_parts
from mlp.kernels.windows import Padding, Sizes, num_windows

_CHUNK_NUMBERS = 300_000
"""Numbers in one chunk of columns: 1.2 MB in float32, what a core's second-level cache holds."""


class ConvGeometry(NamedTuple):
    """Sizes of a convolution, one per spatial axis; `padding` is a pair (before, after) per axis."""

    kernel: Sizes
    stride: Sizes
    padding: Padding
    dilation: Sizes
    groups: int = 1

    def output_size(self, size: Sizes) -> Sizes:
        """Return (OH, OW) for images of this (H, W)."""
        axes = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(starmap(num_windows, axes))


class _Frame(NamedTuple):
    """Where images are placed in a frame of zeros, and which windows are read from the frame, axis by axis.

    Pixel i of an image goes to `offset` + i `spread`, and is left out where that is outside. Window i starts at
    i `stride` and reads every `dilation`-th pixel.
    """

    windows: Sizes
    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    offset: Sizes
    spread: Sizes

    def size(self) -> Sizes:
        return tuple(
            (windows - 1) * step + dilation * (kernel - 1) + 1
            for windows, kernel, step, dilation in zip(
                self.windows, self.kernel, self.stride, self.dilation, strict=True
            )
        )

    def placement(self, image: Sizes) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the slices of the frame, and the slices of an image of this size that go there."""
        pairs = list(starmap(_placement, zip(self.offset, self.spread, self.size(), image, strict=True)))
        return tuple(to for to, _ in pairs), tuple(taken for _, taken in pairs)


def _placement(offset: int, spread: int, size: int, length: int) -> tuple[slice, slice]:
    first = max(0, -(offset // spread))
    last = min(length, -((offset - size) // spread))
    if last <= first:
        return slice(0, 0), slice(0, 0)
    return slice(offset + first * spread, offset + (last - 1) * spread + 1, spread), slice(first, last)


def conv(inputs: Array, kernels: Array, biases: Array | None, geometry: ConvGeometry) -> Array:
    """Return y (N, K, OH, OW) for x (N, C, H, W), w (K, C, KH, KW) and b (K,) or None."""
    xp = array_module(inputs)
    if geometry.groups > 1:
        groups = zip(*(xp.split(x, geometry.groups, axis) for x, axis in ((inputs, 1), (kernels, 0))), strict=True)
        outputs = xp.concatenate([conv(x, w, None, geometry._replace(groups=1)) for x, w in groups], axis=1)
        return outputs if biases is None else outputs + _per_channel(biases, outputs)
    frame = _forward_frame(inputs, geometry)
    matrix = channels_last(kernels).reshape(kernels.shape[0], -1).T
    outputs = _empty_rows(inputs, kernels, frame.windows, kernels.shape[0])

    def part(start: int, stop: int) -> None:
        for chunk, columns in _column_chunks(inputs, frame, start, stop):
            rows = outputs[chunk].reshape(len(columns), -1)
            xp.matmul(columns, matrix, out=rows)
            if biases is not None:
                rows += biases

    run_parts(part, len(inputs), _chunk_length(inputs, frame))
    return channels_first(outputs)


def conv_grad_inputs(
    grads: Array, kernels: Array, geometry: ConvGeometry, size: Sizes, biases: Array | None = None
) -> Array:
    """Return dE/dx (N, C, H, W) for dE/dy (N, K, OH, OW), w (K, C, KH, KW) and `size` = (H, W).

    A convolution too: of dE/dy, spread by the stride and padded, with the kernels turned by half a turn. `biases`
    (C,), which a transposed convolution has, are added.
    """
    xp = array_module(grads)
    if geometry.groups > 1:
        groups = zip(*(xp.split(x, geometry.groups, axis) for x, axis in ((grads, 1), (kernels, 0))), strict=True)
        parts = [conv_grad_inputs(g, w, geometry._replace(groups=1), size) for g, w in groups]
        whole = xp.concatenate(parts, axis=1)
        return whole if biases is None else whole + _per_channel(biases, whole)
    frame = _backward_frame(geometry, size)
    matrix = _turned(kernels)
    grads_wrt_inputs = _empty_rows(grads, kernels, size, kernels.shape[1])

    def part(start: int, stop: int) -> None:
        for chunk, columns in _column_chunks(grads, frame, start, stop):
            rows = grads_wrt_inputs[chunk].reshape(len(columns), -1)
            xp.matmul(columns, matrix, out=rows)
            if biases is not None:
                rows += biases

    run_parts(part, len(grads), _chunk_length(grads, frame))
    return channels_first(grads_wrt_inputs)


def conv_grad_kernels(inputs: Array, grads: Array, geometry: ConvGeometry) -> Array:
    """Return dE/dw (K, C, KH, KW) for x (N, C, H, W) and dE/dy (N, K, OH, OW): columns(x)' dE/dy."""
    if geometry.groups > 1:
        xp = array_module(inputs)
        groups = zip(*(xp.split(x, geometry.groups, axis=1) for x in (inputs, grads)), strict=True)
        return xp.concatenate([conv_grad_kernels(x, g, geometry._replace(groups=1)) for x, g in groups])
    frame = _forward_frame(inputs, geometry)

    def part(start: int, stop: int) -> Array:
        chunks = _column_chunks(inputs, frame, start, stop)
        return _sum([columns.T @ _rows(grads[chunk]) for chunk, columns in chunks])

    total = _sum(run_parts(part, len(inputs), _chunk_length(inputs, frame)))
    return channels_first(total.T.reshape(grads.shape[1], *geometry.kernel, inputs.shape[1]))


def conv_grads(inputs: Array, grads: Array, kernels: Array, geometry: ConvGeometry) -> tuple[Array, Array]:
    """Return dE/dx and dE/dw together, as `conv_grad_inputs` and `conv_grad_kernels` do.

    At stride 1 both come from one matrix of columns, that of dE/dy: dE/dw = x' columns(dE/dy), turned.
    """
    size = inputs.shape[2:]
    if geometry.groups > 1 or max(geometry.stride) > 1:
        grads_wrt_kernels = conv_grad_kernels(inputs, grads, geometry)
        return conv_grad_inputs(grads, kernels, geometry, size), grads_wrt_kernels
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
    columns_of = total.reshape(kernels.shape[1], *geometry.kernel, kernels.shape[0])
    return channels_first(grads_wrt_inputs), _half_turn(channels_first(columns_of).swapaxes(0, 1))


def channels_last(x: Array) -> Array:
    """Return (N, C, H, W) as (N, H, W, C), a view; any number of spatial axes."""
    return x.transpose(0, *range(2, x.ndim), 1)


def channels_first(x: Array) -> Array:
    """Return (N, H, W, C) as (N, C, H, W), a view; any number of spatial axes."""
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def _forward_frame(inputs: Array, geometry: ConvGeometry) -> _Frame:
    kernel, stride, padding, dilation, _ = geometry
    before = tuple(pair[0] for pair in padding)
    return _Frame(geometry.output_size(inputs.shape[2:]), kernel, stride, dilation, before, (1,) * len(kernel))


def _backward_frame(geometry: ConvGeometry, size: Sizes) -> _Frame:
    kernel, stride, padding, dilation, _ = geometry
    offset = tuple(d * (k - 1) - before for d, k, (before, _) in zip(dilation, kernel, padding, strict=True))
    return _Frame(size, kernel, (1,) * len(kernel), dilation, offset, stride)


def _chunk_length(images: Array, frame: _Frame) -> int:
    """Return how many images' columns to make at once: a cacheful on a CPU, all on a GPU."""
    if is_gpu_array(images):
        return len(images)
    return max(1, _CHUNK_NUMBERS // (prod(frame.windows) * prod(frame.kernel) * int(images.shape[1])))


def _column_chunks(images: Array, frame: _Frame, start: int, stop: int) -> Iterator[tuple[slice, Array]]:
    """Yield (which images, their columns (n OH OW, KH KW C)) for chunks of images[start:stop].

    The columns live in one buffer, which the next chunk overwrites.
    """
    xp = array_module(images)
    length = min(_chunk_length(images, frame), stop - start)
    channels = images.shape[1]
    padded = xp.zeros((length, *frame.size(), channels), images.dtype)
    columns = xp.empty((length, *frame.windows, *frame.kernel, channels), images.dtype)
    windows = _windows(padded, frame)
    to, taken = frame.placement(images.shape[2:])
    for first in range(start, stop, length):
        chunk = slice(first, min(first + length, stop))
        n = chunk.stop - first
        padded[(slice(n), *to)] = channels_last(images[(chunk, slice(None), *taken)])
        columns[:n] = windows[:n]
        yield chunk, columns[:n].reshape(-1, prod(frame.kernel) * channels)


def _windows(padded: Array, frame: _Frame) -> Array:
    """Return the view (N, OH, OW, KH, KW, C) of the windows of `padded` (N, rows, columns, C)."""
    image, *pixels, channel = padded.strides
    shape = (len(padded), *frame.windows, *frame.kernel, padded.shape[-1])
    steps = [pixel * step for pixel, step in zip(pixels, frame.stride, strict=True)]
    inside = [pixel * step for pixel, step in zip(pixels, frame.dilation, strict=True)]
    return array_module(padded).lib.stride_tricks.as_strided(padded, shape, (image, *steps, *inside, channel))


def _rows(images: Array) -> Array:
    """Return (N, C, H, W) as the matrix (N H W, C) of its pixels: a view where memory is channels-last."""
    return channels_last(images).reshape(-1, images.shape[1])


def _half_turn(kernels: Array) -> Array:
    return kernels[(..., *[slice(None, None, -1)] * (kernels.ndim - 2))]


def _turned(kernels: Array) -> Array:
    """Return w (K, C, KH, KW) turned by half a turn, as the matrix (KH KW K, C)."""
    return channels_last(_half_turn(kernels).swapaxes(0, 1)).reshape(kernels.shape[1], -1).T


def _per_channel(biases: Array, images: Array) -> Array:
    return biases.reshape(-1, *[1] * (images.ndim - 2))


def _empty_rows(images: Array, kernels: Array, size: Sizes, channels: int) -> Array:
    xp = array_module(images)
    return xp.empty((len(images), *size, channels), xp.result_type(images, kernels))


def _sum(arrays: list[Array]) -> Array:
    """Return the sum of arrays of one shape, in their order."""
    total = arrays[0]
    for array in arrays[1:]:
        total += array
    return total
