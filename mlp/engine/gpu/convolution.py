"""Convolutions on a GPU: 3x3 at stride 1 by kernels of their own, all others by columns."""

from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.engine.gpu.builder import Builder
from mlp.engine.gpu.network import Unit
from mlp.kernels import ConvGeometry
from mlp.kernels.gpu import GRAD_PIXELS, MAX_SPLITS, SMALLEST_MAP, conv_shared, conv_tile, grad_shared
from mlp.layers import ConvolutionalLayer

_COLUMNS_BYTES = 64_000_000
"""Columns that are made at once."""
_SPLITS = 32


class Convolution:
    """A convolution of n maps. `outputs` adds launches for y, `kernels_grad` for dE/dw, `inputs_grad` for dE/dx."""

    def __init__(self, build: Builder, unit: Unit) -> None:
        self.unit, self.layer, self.label = unit, unit.main, unit.label
        self.geometry: ConvGeometry = self.layer.geometry
        (self.height, self.width, self.channels) = unit.inputs.shape
        self.filters, self.places = self.layer.kernels.shape[0], prod(self.geometry.kernel)
        self.out_size: Any = self.geometry.output_size((self.height, self.width))
        self.flops = 2 * build.n * prod(self.out_size) * int(self.layer.kernels.size)
        self.turned = int(type(self.layer) is ConvolutionalLayer)
        self.forward, self.backward = (build.arena.take_new((self.layer.kernels.size,)) for _ in range(2))
        sizes = (self.filters, self.channels, self.places, self.turned)
        build.packed.append(((self.layer.kernels, self.forward, self.backward), sizes))

    def outputs(
        self, build: Builder, x: Array, y: Array, skip: Array | None, slope: float, moments: bool
    ) -> tuple[Array, int] | None:
        """Add launches for y = act(w * x + b + skip).

        Returns the moments of w * x + b over blocks of pixels, and how many blocks, where they are wanted and found.
        """
        raise NotImplementedError

    def kernels_grad(self, build: Builder, x: Array, grads: Array, out: Array) -> None:
        """Add launches for dE/dw, from dE/dy."""
        raise NotImplementedError

    def inputs_grad(self, build: Builder, grads: Array) -> None:
        """Add launches for dE/dx, to where the gradient of the inputs is gathered."""
        raise NotImplementedError

    def _sum(self, build: Builder, partial: Array, splits: int, out: Array) -> None:
        sizes = (splits, self.places, self.channels, self.filters, self.turned)
        build.add(
            build.kernels.launch("sum_kernel_grads", (-(-out.size // 32),), 256, partial, out, *sizes, label=self.label)
        )
        build.arena.give(partial)


class Convolution3x3(Convolution):
    """3x3, stride 1: an implicit matrix product. See kernels/cuda/convolution.cu."""

    def outputs(
        self, build: Builder, x: Array, y: Array, skip: Array | None, slope: float, moments: bool
    ) -> tuple[Array, int] | None:
        """Add the forward pass."""
        tile = conv_tile(build.n, *self.out_size)
        blocks = tile.number(build.n, *self.out_size)
        found = build.arena.take((blocks * 4 * self.filters,)) if moments else None
        (top, _), (left, _) = self.geometry.padding
        sizes = (build.n, self.height, self.width, self.channels, *self.out_size, self.filters, top, left)
        arrays = (x, self.forward, y, self.layer.biases, skip, None, found)
        self._convolve(build, tile, arrays, sizes, slope, 1.0, False)
        return None if found is None else (found, blocks)

    def inputs_grad(self, build: Builder, grads: Array) -> None:
        """Add the convolution of dE/dy with the kernels turned."""
        tile = conv_tile(build.n, self.height, self.width)
        out, add, mask, slope = build.target(self.unit.inputs, can_add=True, can_mask=True)
        (top, _), (left, _) = self.geometry.padding
        sizes = (build.n, *self.out_size, self.filters, self.height, self.width, self.channels, 2 - top, 2 - left)
        arrays = (grads, self.backward, out, None, None, mask, None)
        self._convolve(build, tile, arrays, sizes, 1.0, slope, add)

    def _convolve(
        self, build: Builder, tile: Any, arrays: Any, sizes: Any, slope: float, mask_slope: float, add: bool
    ) -> None:
        n, _, _, _, height, width, filters, *_ = sizes
        grid = (tile.number(n, height, width), -(-filters // 32))
        threads = tile.pixels // (2 if build.precision == "fp32" else 1)
        args = (*arrays, *sizes, tile.tw, tile.th, float(slope), float(mask_slope), int(add))
        name = f"conv3x3_{build.precision}"
        more = {"shared": conv_shared(tile), "label": self.label, "flops": self.flops}
        build.add(build.kernels.launch(name, grid, threads, *args, **more))

    def kernels_grad(self, build: Builder, x: Array, grads: Array, out: Array) -> None:
        """Add partial sums over tiles of outputs, and their sum."""
        tile = conv_tile(build.n, self.out_size[0], self.out_size[1], (GRAD_PIXELS,))
        tiles = tile.number(build.n, *self.out_size)
        blocks = (-(-self.channels // 32), -(-self.filters // 32))
        splits = min(tiles, max(MAX_SPLITS // prod(blocks), 1))
        partial = build.arena.take((splits * self.layer.kernels.size,))
        (top, _), (left, _) = self.geometry.padding
        sizes = (build.n, self.height, self.width, self.channels, *self.out_size, self.filters, top, left)
        args = (x, grads, partial, *sizes, tile.tw, tile.th, tiles)
        threads = 256 if build.precision == "fp32" else 288
        name, shared = f"conv3x3_grad_{build.precision}", grad_shared(tile)
        more = {"shared": shared, "label": self.label, "flops": self.flops}
        build.add(build.kernels.launch(name, (splits, *blocks), threads, *args, **more))
        self._sum(build, partial, splits, out)


class ConvolutionByColumns(Convolution):
    """Any kernel, stride, padding and dilation: matrix products of columns, in float32, some images at a time."""

    def outputs(
        self, build: Builder, x: Array, y: Array, skip: Array | None, slope: float, moments: bool
    ) -> tuple[Array, int] | None:
        """Add the forward pass; moments are for others to find."""
        inner = self.places * self.channels
        for part in self._parts(build):
            columns = self._columns(build, x[part])
            arrays, sizes = (columns, self.forward, self.layer.biases, y[part]), (len(columns), self.filters, inner)
            build.multiply(arrays, sizes, (inner, 1, self.filters, 1), self.label)
            build.arena.give(columns)
        if skip is not None or slope != 1.0:
            count = np.int64(y.size)
            build.add(build.kernels.elementwise("activate", y.size, y, skip, y, count, float(slope), label=self.label))
        return None

    def kernels_grad(self, build: Builder, x: Array, grads: Array, out: Array) -> None:
        """Add the products of the columns, transposed, with dE/dy."""
        inner, parts = self.places * self.channels, self._parts(build)
        partial = build.arena.take((len(parts) * _SPLITS, inner * self.filters))
        for i, part in enumerate(parts):
            columns = self._columns(build, x[part])
            arrays = (columns, grads[part], None, partial[i * _SPLITS : (i + 1) * _SPLITS])
            sizes, strides = (inner, self.filters, len(columns)), (1, inner, self.filters, 1)
            build.multiply(arrays, sizes, strides, self.label, parts=_SPLITS)
            build.arena.give(columns)
        self._sum(build, partial, len(partial), out)

    def inputs_grad(self, build: Builder, grads: Array) -> None:
        """Add the products of dE/dy with the kernels, gathered where windows overlap."""
        out, _, _, _ = build.target(self.unit.inputs, can_add=False, can_mask=False)
        inner = self.places * self.channels
        for part in self._parts(build):
            rows = (part.stop - part.start) * prod(self.out_size)
            columns = build.arena.take((rows, inner))
            arrays, sizes = (grads[part], self.forward, None, columns), (rows, inner, self.filters)
            build.multiply(arrays, sizes, (self.filters, 1, 1, self.filters), self.label)
            count = out[part].size
            args = (columns, out[part], *self._geometry(part))
            build.add(build.kernels.over("col2im", count, *args, label=self.label))
            build.arena.give(columns)
        build.arrive(self.unit.inputs, out)

    def _columns(self, build: Builder, x: Array) -> Array:
        rows = len(x) * prod(self.out_size)
        columns = build.arena.take((rows, self.places * self.channels))
        args = (x, columns, *self._geometry(slice(0, len(x))))
        build.add(build.kernels.over("im2col", columns.size, *args, label=self.label))
        return columns

    def _geometry(self, part: slice) -> tuple[int, ...]:
        g = self.geometry
        (top, _), (left, _) = g.padding
        sizes = (part.stop - part.start, self.height, self.width, self.channels, *self.out_size)
        return (*sizes, *g.kernel, *g.stride, top, left, *g.dilation)

    def _parts(self, build: Builder) -> list[slice]:
        """Return slices of the batch whose columns are made at once."""
        image = 4 * prod(self.out_size) * self.places * self.channels
        step = min(max(1, _COLUMNS_BYTES // image), build.n)
        return [slice(i, min(i + step, build.n)) for i in range(0, build.n, step)]


def convolution(build: Builder, unit: Unit) -> Convolution:
    """Return the way to compute a unit's convolution, with its kernels packed."""
    g = unit.main.geometry
    plain = (g.kernel, g.stride, g.dilation) == ((3, 3), (1, 1), (1, 1)) and max(max(pair) for pair in g.padding) <= 2
    large = min(*unit.inputs.shape[:2], *unit.outputs.shape[:2]) >= SMALLEST_MAP
    return (Convolution3x3 if plain and large else ConvolutionByColumns)(build, unit)
