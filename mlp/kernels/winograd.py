"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3).

A tile of 4x4 outputs depends on 6x6 inputs. Seen as polynomials of degree 2 (kernel) and 3 (outputs, transposed),
one axis at a time, their product has degree 5, so 6 values fix it: instead of 4 x 3 = 12 multiplications an axis takes
6, and both axes 36 instead of 144. With the points p_i (and the point at infinity), one axis is

    y = A' ((G w) * (B' x)), * elementwise,    y 4 outputs, w 3 weights, x 6 inputs

Winograd, Arithmetic complexity of computations, SIAM 1980; Lavin and Gray, Fast algorithms for convolutional neural
networks, CVPR 2016, section 4. The matrices are those of the points 0, 3/4, -3/4, 3/2, -3/2: with them rounding errors
are a quarter to a third of those with the common 0, 1, -1, 2, -2 (docs/architecture.md has figures).

All three stages are matrix products: the transforms along H, with whole rows of all images as columns; those along W,
with the channels of all images; and the multiplication, (tiles N, C) times (C, K), once for each of the 36 places.
Images lie in memory as (H, W, N, C): then every one of these is a plain product of views, and nothing is gathered.
"""

import os
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.kernels.parallel import SettingError
from mlp.kernels.scratch import Scratch
from mlp.kernels.windows import Sizes

TILE, WINDOW = 4, 6
"""Outputs and inputs of a tile, along an axis."""

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
_CHUNK_BYTES = 1_800_000
"""Transformed inputs and outputs that are worked on at once: what the second-level cache nearly holds."""


METHODS = ("auto", "im2col", "winograd")


def conv_method() -> str:
    """Return how plans are to compute 3x3 convolutions: ``$MLP_CONV``, "auto" by default."""
    wanted = os.environ.get("MLP_CONV", "auto")
    if wanted not in METHODS:
        raise SettingError(f"MLP_CONV is {wanted!r}, expected one of: {', '.join(METHODS)}")
    return wanted


class Transforms(NamedTuple):
    """A' (4, 6), G (6, 3) and B' (6, 6) of one axis, and A (6, 4)."""

    outputs: Array
    kernels: Array
    inputs: Array
    outputs_adjoint: Array


@cache
def transforms(dtype: Any) -> Transforms:
    """Return the matrices of F(4, 3): Lagrange's interpolation at the points and at infinity."""
    points, last = np.array(_POINTS), WINDOW - 1
    others = [np.delete(points, i) for i in range(last)]
    outputs, kernels, inputs = np.zeros((TILE, WINDOW)), np.zeros((WINDOW, 3)), np.zeros((WINDOW, WINDOW))
    outputs[:, :last] = points ** np.arange(TILE)[:, None]
    outputs[-1, last] = kernels[last, -1] = 1.0
    for i, point in enumerate(points):
        kernels[i] = point ** np.arange(3) / prod(point - others[i])
        inputs[i, :last] = np.poly(others[i])[::-1]
    inputs[last] = np.poly(points)[::-1]
    return Transforms(*(np.ascontiguousarray(m, dtype) for m in (outputs, kernels, inputs, outputs.T)))


@cache
def _both_axes(dtype: Any) -> Array:
    """Return the transform (36, 9) of kernels along both axes."""
    matrix = transforms(np.dtype(np.float64)).kernels
    return np.kron(matrix, matrix).astype(dtype)


def transformed_kernels(kernels: Array) -> Array:
    """Return w (K, C, 3, 3) as 36 matrices (36, C, K)."""
    both = _both_axes(kernels.dtype)
    flat = kernels.transpose(2, 3, 1, 0).reshape(9, -1)
    return (both @ flat).reshape(WINDOW * WINDOW, kernels.shape[1], kernels.shape[0])


def kernels_adjoint(grads: Array) -> Array:
    """Return dE/dw as (9, C, K) from the gradients (36, C, K) of the transformed kernels."""
    flat = _both_axes(grads.dtype).T @ grads.reshape(WINDOW * WINDOW, -1)
    return flat.reshape(9, *grads.shape[1:])


class Winograd:
    """A 3x3 convolution of `n` images (H, W, n, C) at stride 1, `before` rows and columns of zeros above and left.

    Outputs are (OH, OW, n, K). Inputs come framed, with one row of zeros above and below: (H + 2, W, n, C). Rows of
    tiles are worked on in chunks that stay in the cache. Memory is taken here, that of `kernels_grad` with `trains`.
    """

    def __init__(
        self,
        size: Sizes,
        out_size: Sizes,
        before: Sizes,
        shape: tuple[int, int, int],
        dtype: Any,
        scratch: Scratch,
        trains: bool = False,
    ) -> None:
        self.size, self.out_size, self.before, self.shape = size, out_size, before, shape
        self.dtype, self.scratch = np.dtype(dtype), scratch
        self.transforms = transforms(self.dtype)
        self.tiles = tuple(-(-length // TILE) for length in out_size)
        n, channels, filters = shape
        row = self.tiles[1] * n * (channels + filters) * WINDOW * WINDOW * self.dtype.itemsize
        rows = min(self.tiles[0], max(1, _CHUNK_BYTES // row))
        rows = -(-self.tiles[0] // -(-self.tiles[0] // rows))
        starts = range(0, self.tiles[0], rows)
        self.chunks = [_Chunk(self, first, min(rows, self.tiles[0] - first)) for first in starts]
        self.fits = before[0] == 1 and TILE * self.tiles[0] == size[0]
        if not self.fits:
            rows_shape = (TILE * self.tiles[0] + 2, size[1] * n * channels)
            self.padded = scratch.zeros(("winograd rows", size, before[0]), rows_shape, dtype)
        if trains:
            sums_shape = (WINDOW * WINDOW, channels, filters)
            self.sums = [scratch.empty(("winograd", name), sums_shape, dtype) for name in ("total", "part")]

    def correlate(self, inputs: Array, kernels: Array, outputs: Array) -> None:
        """Write y (OH, OW, n, K) for framed x and `transformed_kernels`."""
        rows = self._rows(inputs)
        for chunk in self.chunks:
            chunk.transform_inputs(rows)
            np.matmul(chunk.values, kernels, out=chunk.products)
            chunk.transform_outputs(outputs)

    def kernels_grad(self, inputs: Array, grads: Array) -> Array:
        """Return the gradient (36, C, K) of the transformed kernels for framed x and dE/dy (OH, OW, n, K)."""
        rows, (total, part) = self._rows(inputs), self.sums
        for i, chunk in enumerate(self.chunks):
            chunk.transform_grads(grads)
            chunk.transform_inputs(rows)
            np.matmul(chunk.values.transpose(0, 2, 1), chunk.products, out=part if i else total)
            if i:
                total += part
        return total

    def _rows(self, inputs: Array) -> Array:
        """Return the images with the rows that all tiles need, (4 TH + 2, W n C)."""
        height, top = self.size[0], self.before[0]
        if self.fits:
            return inputs.reshape(height + 2, -1)
        used = min(height, len(self.padded) - top)
        self.padded[top : top + used] = inputs[1 : 1 + used].reshape(used, -1)
        return self.padded


class _Chunk:
    """Views for some rows of tiles: of the transformed inputs (36, R, C), of the products (36, R, K), between them."""

    def __init__(self, whole: Winograd, first: int, rows: int) -> None:
        self.whole, self.first, self.num_rows = whole, first, rows
        (n, channels, filters), tiles, dtype = whole.shape, whole.tiles[1], whole.dtype
        width, left = TILE * tiles + 2, whole.before[1]
        key, scratch = (whole.size, whole.out_size, whole.before), whole.scratch
        half = scratch.zeros(("winograd half", key), (rows, WINDOW, width, n * channels), dtype)
        self.half_in = _columns(half, left, whole.size[1])
        step = half.strides
        self.half_tiles = np.lib.stride_tricks.as_strided(
            half, (rows, WINDOW, tiles, WINDOW, n * channels), (*step[:2], TILE * step[2], *step[2:])
        )
        places = (WINDOW, WINDOW, rows, tiles, n)
        values = scratch.empty("winograd values", (*places, channels), dtype)
        products = scratch.empty("winograd products", (*places, filters), dtype)
        self.values = values.reshape(WINDOW * WINDOW, -1, channels)
        self.products = products.reshape(WINDOW * WINDOW, -1, filters)
        self.values_by_tile = values.reshape(*places[:4], -1).transpose(2, 0, 3, 1, 4)
        self.products_by_tile = products.reshape(*places[:4], -1).transpose(2, 0, 3, 1, 4)
        self.lines = scratch.empty("winograd lines", (rows, WINDOW, tiles, TILE, n * filters), dtype)
        self.line_rows = self.lines.reshape(rows, WINDOW, -1)
        self.cropped = (TILE * (first + rows) > whole.out_size[0]) or TILE * tiles != whole.out_size[1]
        full = (TILE * rows, TILE * tiles, n, filters)
        self.full = scratch.empty("winograd full", full, dtype) if self.cropped else None

    def transform_inputs(self, rows: Array) -> None:
        """B' x B of the tiles, from the rows of all images."""
        step, length = rows.strides[0], rows.shape[1]
        shape, strides = (self.num_rows, WINDOW, length), (TILE * step, step, rows.itemsize)
        windows = np.ndarray(shape, rows.dtype, rows, TILE * self.first * step, strides)
        matrix = self.whole.transforms.inputs
        np.matmul(matrix, windows, out=self.half_in)
        np.matmul(matrix, self.half_tiles, out=self.values_by_tile)

    def transform_outputs(self, outputs: Array) -> None:
        """A' m A of the products, into the outputs."""
        matrix = self.whole.transforms.outputs
        np.matmul(matrix, self.products_by_tile, out=self.lines)
        whole, used = self._outputs(outputs)
        np.matmul(matrix, self.line_rows, out=whole.reshape(self.num_rows, TILE, -1))
        if self.full is not None:
            used[...] = whole[: len(used), : used.shape[1]]

    def transform_grads(self, grads: Array) -> None:
        """A dE/dy A' of the tiles, into the products."""
        matrix = self.whole.transforms.outputs_adjoint
        whole, used = self._outputs(grads)
        if self.full is not None:
            whole[...] = 0
            whole[: len(used), : used.shape[1]] = used
        np.matmul(matrix, whole.reshape(self.num_rows, TILE, -1), out=self.line_rows)
        np.matmul(matrix, self.lines, out=self.products_by_tile)

    def _outputs(self, outputs: Array) -> tuple[Array, Array]:
        """Return the chunk's outputs as whole tiles, and those of them that exist."""
        start = TILE * self.first
        used = outputs[start : start + TILE * self.num_rows]
        return (used if self.full is None else self.full), used


def _columns(half: Array, left: int, width: int) -> Array:
    """Return the view (rows, 6, W n C) of the columns of (rows, 6, 4 TW + 2, n C) where the images stand."""
    rows, window, _, length = half.shape
    inside = half[:, :, left : left + width]
    return np.lib.stride_tricks.as_strided(
        inside, (rows, window, inside.shape[2] * length), (*half.strides[:2], half.itemsize)
    )
