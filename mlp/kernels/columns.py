"""Convolutions of any kernel, stride, padding and dilation on images in (H, W, N, C) memory, by matrix products.

As `mlp.kernels.convolution` does it, for the memory that threads work in: the columns of some output rows of all
images, (rows OW N, KH KW C), are copied, multiplied with (KH KW C, K), and forgotten.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.kernels.convolution import ConvGeometry
from mlp.kernels.scratch import Scratch
from mlp.kernels.windows import Sizes

_CHUNK_BYTES = 1_200_000


class Columns:
    """A convolution of `n` images (H, W, n, C), which come framed with a row of zeros above and below.

    Memory is taken here, that of `inputs_grad` where it is needed.
    """

    def __init__(
        self,
        geometry: ConvGeometry,
        size: Sizes,
        shape: tuple[int, int, int],
        dtype: Any,
        scratch: Scratch,
        need_inputs: bool = False,
    ) -> None:
        self.geometry, self.size, self.shape = geometry, size, shape
        self.dtype = np.dtype(dtype)
        self.out_size = geometry.output_size(size)
        n, channels, _ = shape
        row = self.out_size[1] * n * prod(geometry.kernel) * channels * self.dtype.itemsize
        self.num_rows = min(self.out_size[0], max(1, _CHUNK_BYTES // row))
        padded = (length + sum(pair) for length, pair in zip(size, geometry.padding, strict=True))
        padded_shape = (*padded, n, channels)
        self.padded = scratch.zeros(("columns images", geometry.padding), padded_shape, dtype)
        self.padded_grads = scratch.empty("columns grad", padded_shape, dtype) if need_inputs else None
        self.columns = scratch.empty(
            "columns", (self.num_rows, self.out_size[1], n, *geometry.kernel, channels), self.dtype
        )

    def correlate(self, inputs: Array, matrix: Array, outputs: Array) -> None:
        """Write y (OH, OW, n, K) for framed x and w as (KH KW C, K)."""
        for rows, columns in self._chunks(inputs):
            np.matmul(columns, matrix, out=outputs[rows].reshape(len(columns), -1))

    def inputs_grad(self, grads: Array, matrix: Array, grads_wrt_inputs: Array) -> None:
        """Write dE/dx (H, W, n, C) for dE/dy (OH, OW, n, K): the columns' gradients, added up where they overlap."""
        padded = self.padded_grads
        assert padded is not None
        padded[...] = 0
        stride, dilation = self.geometry.stride, self.geometry.dilation
        for rows in self._row_slices():
            flat = grads[rows].reshape(-1, matrix.shape[1])
            places = self.columns[: rows.stop - rows.start]
            np.matmul(flat, matrix.T, out=places.reshape(len(flat), len(matrix)))
            for u, v in np.ndindex(*self.geometry.kernel):
                down = slice(rows.start * stride[0] + u * dilation[0], None, stride[0])
                right = slice(v * dilation[1], None, stride[1])
                padded[down, right][: len(places), : self.out_size[1]] += places[:, :, :, u, v]
        grads_wrt_inputs[...] = padded[self._inside()]

    def kernels_grad(self, inputs: Array, grads: Array) -> Array:
        """Return dE/dw as (KH KW C, K) for framed x and dE/dy (OH, OW, n, K)."""
        total: Array | None = None
        for rows, columns in self._chunks(inputs):
            part = columns.T @ grads[rows].reshape(len(columns), -1)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _chunks(self, inputs: Array) -> Iterator[tuple[slice, Array]]:
        """Yield (which output rows, their columns), of framed x."""
        padded = self.padded
        padded[self._inside()] = inputs[1:-1]
        (down, right), (below, beside) = self.geometry.stride, self.geometry.dilation
        row, pixel, image, channel = padded.strides
        n, channels, _ = self.shape
        shape = (*self.out_size, n, *self.geometry.kernel, channels)
        strides = (row * down, pixel * right, image, row * below, pixel * beside, channel)
        windows = np.lib.stride_tricks.as_strided(padded, shape, strides)
        for rows in self._row_slices():
            columns = self.columns[: rows.stop - rows.start]
            columns[...] = windows[rows]
            yield rows, columns.reshape(-1, prod(self.geometry.kernel) * channels)

    def _row_slices(self) -> Iterator[slice]:
        for start in range(0, self.out_size[0], self.num_rows):
            yield slice(start, min(start + self.num_rows, self.out_size[0]))

    def _inside(self) -> tuple[slice, slice]:
        """Return where the images stand in the padded ones."""
        (top, _), (left, _) = self.geometry.padding
        return slice(top, top + self.size[0]), slice(left, left + self.size[1])
