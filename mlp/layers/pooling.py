"""Pooling: max and average over windows, average over the whole map, and the coursework's 1-d max pooling."""

from math import prod
from typing import ClassVar

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import (
    ShapeError,
    check_flag,
    check_padding,
    check_positive_int,
    check_same_shape,
    check_shape,
    check_sizes,
)
from mlp.kernels import Padding, PoolGeometry, Sizes
from mlp.layers.base import Layer
from mlp.layers.convolution import SPATIAL_AXES, show_padding


class PoolingLayer(Layer):
    """What max and average pooling over one, two and three spatial axes have in common.

    `size`, `stride` (default: `size`), `padding` and `dilation` (the steps between a window's places) are whole
    numbers, or one per spatial axis; `padding` may also be a pair (before, after) per spatial axis. The number of
    windows along an axis is that of a convolution, OH = floor((H + PH before + PH after - DH (KH - 1) - 1) / SH) + 1;
    in `ceil_mode` it is rounded up, and a window may reach over the end. Inputs where a window would meet no pixel
    at all are refused.
    """

    runs_in_shards = True
    num_axes: ClassVar[int]

    def __init__(
        self,
        size: int | Sizes = 2,
        stride: int | Sizes | None = None,
        padding: int | Sizes | Padding = 0,
        dilation: int | Sizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        who, axes = type(self).__name__, self.num_axes
        self.size = check_sizes(f"{who}: size", size, axes)
        self.stride = self.size if stride is None else check_sizes(f"{who}: stride", stride, axes)
        self.geometry = PoolGeometry(
            self.size,
            self.stride,
            check_padding(f"{who}: padding", padding, axes),
            check_sizes(f"{who}: dilation", dilation, axes),
            check_flag(f"{who}: ceil_mode", ceil_mode),
        )

    def _check(self, method: str, inputs: Array, *like_outputs: Array) -> None:
        who = f"{type(self).__name__}.{method}"
        check_shape(f"{who}: inputs", inputs, ("N", "C", *SPATIAL_AXES[self.num_axes]))
        size = self.geometry.output_size(inputs.shape[2:])
        text = f"{who}: inputs are {'x'.join(map(str, inputs.shape[2:]))}"
        if min(size) < 1:
            raise ShapeError(f"{text}, smaller than {self!r}")
        padded = self.geometry.ceil_mode or any(map(any, self.geometry.padding))
        if padded and min(int(c.min()) for c in self.geometry.counts(inputs.shape[2:], with_padding=False)) < 1:
            raise ShapeError(f"{text}, and a window of {self!r} would see nothing but padding")
        for name, array in zip(("outputs", "grads_wrt_outputs"), like_outputs, strict=False):
            check_shape(f"{who}: {name}", array, (*inputs.shape[:2], *size), like=inputs)

    def _places(self, inputs: Array) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Return, for each place in a window, indices of the outputs and of the inputs that it meets there."""
        every = (slice(None), slice(None))
        places = self.geometry.places(inputs.shape[2:])
        return [((*every, *windows), (*every, *pixels)) for windows, pixels in places]

    def _outputs(self, inputs: Array, fill: float) -> Array:
        xp = array_module(inputs)
        shape = (inputs.shape[0], *self.geometry.output_size(inputs.shape[2:]), inputs.shape[1])
        outputs = xp.full(shape, fill, inputs.dtype)  # channels-last
        return outputs.transpose(0, len(shape) - 1, *range(1, len(shape) - 1))

    def _extras(self) -> dict[str, object]:
        """Return the arguments for `repr` that are not at their defaults."""
        padding, dilation = show_padding(self.geometry.padding), self.geometry.dilation
        extras = {"padding": padding, "dilation": dilation, "ceil_mode": self.geometry.ceil_mode}
        zeros, ones = (0,) * self.num_axes, (1,) * self.num_axes
        defaults = {"padding": zeros, "dilation": ones, "ceil_mode": False}
        return {name: value for name, value in extras.items() if value != defaults[name]}

    def __repr__(self) -> str:
        extras = "".join(f", {name}={value}" for name, value in self._extras().items())
        return f"{type(self).__name__}(size={self.size}, stride={self.stride}{extras})"


class MaxPooling1DLayer(PoolingLayer):
    """y[n,c,i] = the maximum over u < K of x[n, c, i S + u D - P], x (N, C, L). Padding never wins.

    Of equal maxima the first gets the gradient. The arguments are those of `PoolingLayer`.
    """

    num_axes = 1

    def fprop(self, inputs: Array) -> Array:
        """Return y, (N, C) and the number of windows along each spatial axis."""
        self._check("fprop", inputs)
        kind = inputs.dtype.kind
        outputs = self._outputs(inputs, np.iinfo(inputs.dtype).min if kind == "i" else -np.inf)
        for windows, pixels in self._places(inputs):
            array_module(inputs).maximum(outputs[windows], inputs[pixels], out=outputs[windows])
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx: each dE/dy at the place of its window's first maximum."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        xp = array_module(inputs)
        grads_wrt_inputs = xp.zeros_like(inputs, dtype=grads_wrt_outputs.dtype)
        open_windows = xp.ones_like(outputs, dtype=bool)
        for windows, pixels in self._places(inputs):
            here = open_windows[windows] & (inputs[pixels] == outputs[windows])
            grads_wrt_inputs[pixels] += here * grads_wrt_outputs[windows]
            open_windows[windows] &= ~here
        return grads_wrt_inputs


class MaxPooling2DLayer(MaxPooling1DLayer):
    """y[n,c,i,j] = the maximum over u < KH, v < KW of x[n, c, i SH + u DH - PH, j SW + v DW - PW].

    x (N, C, H, W). Of equal maxima the first gets the gradient. Where `input_height` and `input_width` are given, as
    the coursework does, other inputs are refused. The other arguments are those of `PoolingLayer`.
    """

    num_axes = 2

    def __init__(
        self,
        input_height: int | None = None,
        input_width: int | None = None,
        size: int | Sizes = 2,
        stride: int | Sizes | None = None,
        padding: int | Sizes | Padding = 0,
        dilation: int | Sizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(size, stride, padding, dilation, ceil_mode)
        if (input_height is None) != (input_width is None):
            given = input_height if input_width is None else input_width
            raise TypeError(f"MaxPooling2DLayer: give input_height and input_width, or none; is size={given} meant?")
        for name, value in (("input_height", input_height), ("input_width", input_width)):
            if value is not None:
                check_positive_int(f"MaxPooling2DLayer: {name}", value)
        self.input_height, self.input_width = input_height, input_width

    def _check(self, method: str, inputs: Array, *like_outputs: Array) -> None:
        expected = ("N", "C", self.input_height or "H", self.input_width or "W")
        check_shape(f"MaxPooling2DLayer.{method}: inputs", inputs, expected)
        super()._check(method, inputs, *like_outputs)


class MaxPooling3DLayer(MaxPooling1DLayer):
    """`MaxPooling1DLayer` over three spatial axes, x (N, C, D, H, W)."""

    num_axes = 3


class AveragePooling2DLayer(PoolingLayer):
    """y[n,c,i,j] = the mean over u < KH, v < KW of x[n, c, i SH + u DH - PH, j SW + v DW - PW], x (N, C, H, W).

    Padding is zeros. The sum is divided by the number of places in the padded image, or, without `count_include_pad`,
    of those in the image itself. The other arguments are those of `PoolingLayer`.
    """

    num_axes = 2

    def __init__(
        self,
        size: int | Sizes = 2,
        stride: int | Sizes | None = None,
        padding: int | Sizes | Padding = 0,
        dilation: int | Sizes = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(size, stride, padding, dilation, ceil_mode)
        self.count_include_pad = check_flag(f"{type(self).__name__}: count_include_pad", count_include_pad)

    def fprop(self, inputs: Array) -> Array:
        """Return y, (N, C) and the number of windows along each spatial axis."""
        self._check("fprop", inputs)
        outputs = self._outputs(inputs if inputs.dtype.kind in "fc" else inputs.astype(np.float64), 0.0)
        for windows, pixels in self._places(inputs):
            outputs[windows] += inputs[pixels]
        return outputs * self._weights(outputs, inputs.shape[2:])

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx: every dE/dy, divided as the sum was, to each pixel of its window."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        share = grads_wrt_outputs * self._weights(grads_wrt_outputs, inputs.shape[2:])
        grads_wrt_inputs = array_module(inputs).zeros_like(inputs, dtype=share.dtype)
        for windows, pixels in self._places(inputs):
            grads_wrt_inputs[pixels] += share[windows]
        return grads_wrt_inputs

    def _weights(self, like: Array, size: Sizes) -> Array | float:
        """Return what each window's sum is multiplied by: one number where all windows are alike."""
        counts = self.geometry.counts(size, self.count_include_pad)
        if all(axis.min() == axis.max() for axis in counts):
            return 1.0 / prod(int(axis[0]) for axis in counts)
        places = np.ones((), like.real.dtype)
        for axis in counts:
            places = places[..., None] * axis.astype(like.real.dtype)
        return array_module(like).asarray(1.0 / places)

    def _extras(self) -> dict[str, object]:
        return super()._extras() | ({} if self.count_include_pad else {"count_include_pad": False})


class AveragePooling1DLayer(AveragePooling2DLayer):
    """`AveragePooling2DLayer` along one spatial axis, x (N, C, L)."""

    num_axes = 1


class AveragePooling3DLayer(AveragePooling2DLayer):
    """`AveragePooling2DLayer` over three spatial axes, x (N, C, D, H, W)."""

    num_axes = 3


class GlobalAveragePooling2DLayer(Layer):
    """y[n,c] = the mean over H and W of x[n,c,h,w]: (N, C, H, W) to (N, C).

    Lin, Chen and Yan, Network in network, ICLR 2014, section 3.2.
    """

    runs_in_shards = True
    num_axes: ClassVar[int] = 2

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, C) for x (N, C, H, W)."""
        check_shape(f"{type(self).__name__}.fprop: inputs", inputs, ("N", "C", *SPATIAL_AXES[self.num_axes]))
        return inputs.mean(axis=tuple(range(2, inputs.ndim)))

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W): dE/dy / (H W) at every pixel."""
        who = f"{type(self).__name__}.bprop"
        check_shape(f"{who}: inputs", inputs, ("N", "C", *SPATIAL_AXES[self.num_axes]))
        check_shape(f"{who}: grads_wrt_outputs", grads_wrt_outputs, inputs.shape[:2], like=inputs)
        share = grads_wrt_outputs * (1.0 / prod(inputs.shape[2:]))
        grads_wrt_inputs = array_module(inputs).empty_like(inputs, dtype=share.dtype)
        grads_wrt_inputs[...] = share[(..., *[None] * self.num_axes)]
        return grads_wrt_inputs


class GlobalAveragePooling1DLayer(GlobalAveragePooling2DLayer):
    """`GlobalAveragePooling2DLayer` along one spatial axis: (N, C, L) to (N, C)."""

    num_axes = 1


class GlobalAveragePooling3DLayer(GlobalAveragePooling2DLayer):
    """`GlobalAveragePooling2DLayer` over three spatial axes: (N, C, D, H, W) to (N, C)."""

    num_axes = 3


class MaxPoolingLayer(Layer):
    """The coursework's 1-d max pooling: the maximum of every `pool_size` consecutive values of the last axis.

    Of equal maxima every one gets the gradient, as in the coursework. Goodfellow et al., Maxout networks, ICML 2013.
    """

    runs_in_shards = True
    gives_subgradients = False  # at a tie

    def __init__(self, pool_size: int = 2) -> None:
        self.pool_size = check_positive_int("MaxPoolingLayer: pool_size", pool_size)

    def fprop(self, inputs: Array) -> Array:
        """Return (N, ..., D / pool_size) for (N, ..., D)."""
        pools = self._pools("fprop", inputs)
        xp = array_module(inputs)
        first = xp.argmax(pools.real, axis=-1)
        return xp.take_along_axis(pools, first[..., None], axis=-1)[..., 0]

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx: each dE/dy at every maximum of its pool."""
        pools = self._pools("bprop", inputs)
        check_shape("MaxPoolingLayer.bprop: outputs", outputs, pools.shape[:-1], like=inputs)
        check_same_shape("MaxPoolingLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        maxima = pools == outputs[..., None]
        return (maxima * grads_wrt_outputs[..., None]).reshape(inputs.shape)

    def _pools(self, method: str, inputs: Array) -> Array:
        check_shape(f"MaxPoolingLayer.{method}: inputs", inputs, ("N", "D", "..."))
        if inputs.shape[-1] % self.pool_size:
            text = f"MaxPoolingLayer.{method}: inputs has shape {inputs.shape}"
            raise ShapeError(f"{text}: the last axis is no multiple of {self.pool_size}")
        return inputs.reshape(*inputs.shape[:-1], -1, self.pool_size)

    def __repr__(self) -> str:
        return f"MaxPoolingLayer(pool_size={self.pool_size})"
