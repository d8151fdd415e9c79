"""Pooling: max and average over 2-d windows, average over the whole map, and the coursework's 1-d max pooling."""

from collections.abc import Iterator

from mlp.backend import Array, array_module
from mlp.checks import ShapeError, check_pair, check_positive_int, check_same_shape, check_shape
from mlp.layers.base import Layer

Pair = tuple[int, int]


class _Pooling2DLayer(Layer):
    """Windows of `size` at every `stride` over (N, C, H, W), no padding; OH = floor((H - KH) / SH) + 1."""

    def __init__(self, size: int | Pair, stride: int | Pair | None) -> None:
        who = type(self).__name__
        self.size = check_pair(f"{who}: size", size)
        self.stride = self.size if stride is None else check_pair(f"{who}: stride", stride)

    def _output_size(self, inputs: Array) -> Pair:
        height, width = (
            (length - size) // stride + 1
            for length, size, stride in zip(inputs.shape[2:], self.size, self.stride, strict=True)
        )
        return height, width

    def _check(self, method: str, inputs: Array, *like_outputs: Array) -> None:
        who = f"{type(self).__name__}.{method}"
        check_shape(f"{who}: inputs", inputs, ("N", "C", "H", "W"))
        if min(self._output_size(inputs)) < 1:
            raise ShapeError(f"{who}: inputs are {inputs.shape[2]}x{inputs.shape[3]}, smaller than {self!r}")
        expected = (*inputs.shape[:2], *self._output_size(inputs))
        for name, array in zip(("outputs", "grads_wrt_outputs"), like_outputs, strict=False):
            check_shape(f"{who}: {name}", array, expected, like=inputs)

    def _slices(self, inputs: Array) -> Iterator[tuple[slice, slice]]:
        """Yield, for each place in a window, where that place's pixels are in the inputs, one per window."""
        (oh, ow), (sh, sw) = self._output_size(inputs), self.stride
        for u in range(self.size[0]):
            for v in range(self.size[1]):
                yield slice(u, u + (oh - 1) * sh + 1, sh), slice(v, v + (ow - 1) * sw + 1, sw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, stride={self.stride})"


class MaxPooling2DLayer(_Pooling2DLayer):
    """y[n,c,i,j] = the maximum over u < KH, v < KW of x[n, c, i SH + u, j SW + v].

    `size` and `stride` (default: `size`) are whole numbers or pairs. Where `input_height` and `input_width` are
    given, as the coursework does, other inputs are refused. Of equal maxima the first gets the gradient.
    """

    def __init__(
        self,
        input_height: int | None = None,
        input_width: int | None = None,
        size: int | Pair = 2,
        stride: int | Pair | None = None,
    ) -> None:
        super().__init__(size, stride)
        for name, value in (("input_height", input_height), ("input_width", input_width)):
            if value is not None:
                check_positive_int(f"MaxPooling2DLayer: {name}", value)
        self.input_height, self.input_width = input_height, input_width

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, C, OH, OW) for x (N, C, H, W)."""
        self._check("fprop", inputs)
        places = [inputs[:, :, rows, cols] for rows, cols in self._slices(inputs)]
        outputs = places[0].copy("K")
        for place in places[1:]:
            array_module(inputs).maximum(outputs, place, out=outputs)
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W): each dE/dy at the place of its window's first maximum."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        xp = array_module(inputs)
        grads_wrt_inputs = xp.zeros_like(inputs, dtype=grads_wrt_outputs.dtype)
        open_windows = xp.ones_like(outputs, dtype=bool)
        for rows, cols in self._slices(inputs):
            here = open_windows & (inputs[:, :, rows, cols] == outputs)
            grads_wrt_inputs[:, :, rows, cols] += here * grads_wrt_outputs
            open_windows &= ~here
        return grads_wrt_inputs

    def _check(self, method: str, inputs: Array, *like_outputs: Array) -> None:
        expected = ("N", "C", self.input_height or "H", self.input_width or "W")
        check_shape(f"MaxPooling2DLayer.{method}: inputs", inputs, expected)
        super()._check(method, inputs, *like_outputs)


class AveragePooling2DLayer(_Pooling2DLayer):
    """y[n,c,i,j] = the mean over u < KH, v < KW of x[n, c, i SH + u, j SW + v].

    `size` and `stride` (default: `size`) are whole numbers or pairs.
    """

    def __init__(self, size: int | Pair = 2, stride: int | Pair | None = None) -> None:
        super().__init__(size, stride)

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, C, OH, OW) for x (N, C, H, W)."""
        self._check("fprop", inputs)
        places = [inputs[:, :, rows, cols] for rows, cols in self._slices(inputs)]
        return sum(places[1:], start=places[0]) * (1.0 / len(places))

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W): every dE/dy / (KH KW) to each pixel of its window."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        share = grads_wrt_outputs * (1.0 / (self.size[0] * self.size[1]))
        grads_wrt_inputs = array_module(inputs).zeros_like(inputs, dtype=share.dtype)
        for rows, cols in self._slices(inputs):
            grads_wrt_inputs[:, :, rows, cols] += share
        return grads_wrt_inputs


class GlobalAveragePooling2DLayer(Layer):
    """y[n,c] = the mean over H and W of x[n,c,h,w]: (N, C, H, W) to (N, C).

    Lin, Chen and Yan, Network in network, ICLR 2014, section 3.2.
    """

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, C) for x (N, C, H, W)."""
        check_shape("GlobalAveragePooling2DLayer.fprop: inputs", inputs, ("N", "C", "H", "W"))
        return inputs.mean(axis=(2, 3))

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W): dE/dy / (H W) at every pixel."""
        who = "GlobalAveragePooling2DLayer.bprop"
        check_shape(f"{who}: inputs", inputs, ("N", "C", "H", "W"))
        check_shape(f"{who}: grads_wrt_outputs", grads_wrt_outputs, inputs.shape[:2], like=inputs)
        share = grads_wrt_outputs * (1.0 / (inputs.shape[2] * inputs.shape[3]))
        grads_wrt_inputs = array_module(inputs).empty_like(inputs, dtype=share.dtype)
        grads_wrt_inputs[...] = share[:, :, None, None]
        return grads_wrt_inputs


class MaxPoolingLayer(Layer):
    """The coursework's 1-d max pooling: the maximum of every `pool_size` consecutive values of the last axis.

    Of equal maxima every one gets the gradient, as in the coursework. Goodfellow et al., Maxout networks, ICML 2013.
    """

    def __init__(self, pool_size: int = 2) -> None:
        self.pool_size = check_positive_int("MaxPoolingLayer: pool_size", pool_size)

    def fprop(self, inputs: Array) -> Array:
        """Return (N, ..., D / pool_size) for (N, ..., D)."""
        check_shape("MaxPoolingLayer.fprop: inputs", inputs, ("N", "D", "..."))
        pools = self._pools(inputs)
        xp = array_module(inputs)
        first = xp.argmax(pools.real, axis=-1)
        return xp.take_along_axis(pools, first[..., None], axis=-1)[..., 0]

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx: each dE/dy at every maximum of its pool."""
        check_same_shape("MaxPoolingLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        pools = self._pools(inputs)
        maxima = pools == outputs[..., None]
        return (maxima * grads_wrt_outputs[..., None]).reshape(inputs.shape)

    def _pools(self, inputs: Array) -> Array:
        if inputs.shape[-1] % self.pool_size:
            raise ShapeError(
                f"MaxPoolingLayer: inputs has shape {inputs.shape}: the last axis is no multiple of {self.pool_size}"
            )
        return inputs.reshape(*inputs.shape[:-1], -1, self.pool_size)

    def __repr__(self) -> str:
        return f"MaxPoolingLayer(pool_size={self.pool_size})"
