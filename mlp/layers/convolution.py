"""Convolution over one, two or three spatial axes, and the coursework's: one implementation."""

from math import prod
from typing import ClassVar

from mlp.backend import Array
from mlp.checks import ShapeError, check_flag, check_padding, check_positive_int, check_shape, check_sizes
from mlp.initialisers import ConstantInit, FanInUniformInit, Initialiser, UniformInit
from mlp.kernels import ConvGeometry, Padding, Sizes, conv, conv_grad_inputs, conv_grad_kernels, conv_grads
from mlp.layers.base import LayerWithParameters, Penalty, Shape, initial
from mlp.rng import default_rng

SPATIAL_AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


class ConvolutionLayer(LayerWithParameters):
    """What convolutions over one, two and three spatial axes, and transposed ones, have in common.

    `kernel_size`, `stride`, `padding` and `dilation` are whole numbers, or one per spatial axis; `padding` may also be
    a pair (before, after) per spatial axis. `groups` cuts the channels in and out into groups that do not see each
    other. Both parameters start uniform in +-1 / sqrt(numbers in w[0]) unless told otherwise.
    """

    param_names = ("kernels", "biases")
    num_axes: ClassVar[int]

    def __init__(
        self,
        num_input_channels: int,
        num_output_channels: int,
        kernel_size: int | Sizes,
        stride: int | Sizes = 1,
        padding: int | Sizes | Padding = 0,
        dilation: int | Sizes = 1,
        bias: bool = True,
        kernels_init: Initialiser | None = None,
        biases_init: Initialiser | None = None,
        kernels_penalty: Penalty | None = None,
        biases_penalty: Penalty | None = None,
        *,
        groups: int = 1,
    ) -> None:
        who, axes = type(self).__name__, self.num_axes
        self.num_input_channels = check_positive_int(f"{who}: num_input_channels", num_input_channels)
        self.num_output_channels = check_positive_int(f"{who}: num_output_channels", num_output_channels)
        self.geometry = ConvGeometry(
            check_sizes(f"{who}: kernel_size", kernel_size, axes),
            check_sizes(f"{who}: stride", stride, axes),
            check_padding(f"{who}: padding", padding, axes),
            check_sizes(f"{who}: dilation", dilation, axes),
            check_positive_int(f"{who}: groups", groups),
        )
        self.kernels_shape = self._kernels_shape()
        self._initialise(check_flag(f"{who}: bias", bias), kernels_init, biases_init)
        self.kernels_penalty = kernels_penalty
        self.biases_penalty = biases_penalty

    def _initialise(self, bias: bool, kernels_init: Initialiser | None, biases_init: Initialiser | None) -> None:
        who = type(self).__name__
        init = FanInUniformInit(rng=_default_stream) if kernels_init is None else kernels_init
        self.kernels = initial(f"{who}: kernels", init, self.kernels_shape)
        self.biases = None
        if bias:
            init = FanInUniformInit(self.kernels[0].size, _default_stream) if biases_init is None else biases_init
            self.biases = initial(f"{who}: biases", init, (self.num_output_channels,))

    def _kernels_shape(self) -> Shape:
        """Return (K, C / groups, *kernel); raise ValueError where the groups do not divide the channels."""
        channels, groups = (self.num_input_channels, self.num_output_channels), self.geometry.groups
        if channels[0] % groups or channels[1] % groups:
            raise ValueError(f"{type(self).__name__}: {groups} groups do not divide the channels {channels}")
        return channels[1], channels[0] // groups, *self.geometry.kernel

    def output_size(self, size: Sizes) -> Sizes:
        """Return the spatial size of the outputs for inputs of this spatial size."""
        return self.geometry.output_size(size)

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/dw, dE/db = sum of dE/dy over N and the spatial axes]; the first alone without biases."""
        self._check("grads_wrt_params", inputs, grads_wrt_outputs)
        return self._finished(self._grads_wrt_kernels(inputs, grads_wrt_outputs), grads_wrt_outputs)

    def _grads_wrt_kernels(self, inputs: Array, grads_wrt_outputs: Array) -> Array:
        return conv_grad_kernels(inputs, grads_wrt_outputs, self.geometry)

    def multiply_adds(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return N OH OW K C KH KW / groups."""
        return output_shape[0] * prod(output_shape[2:]) * int(self.kernels.size)

    def turn(self, kernels: Array) -> Array:
        """Return the kernels as cross-correlation takes them, or its gradient by them as that by `kernels`."""
        return kernels

    def _finished(self, grads_wrt_kernels: Array, grads_wrt_outputs: Array) -> list[Array]:
        grads = [self.turn(grads_wrt_kernels)]
        if self.biases is not None:
            grads.append(grads_wrt_outputs.sum(axis=tuple(range(2, grads_wrt_outputs.ndim))).sum(axis=0))
        return self.with_penalties(grads)

    def _check(self, method: str, inputs: Array, *grads_wrt_outputs: Array) -> None:
        who, axes = f"{type(self).__name__}.{method}", SPATIAL_AXES[self.num_axes]
        check_shape(f"{who}: inputs", inputs, ("N", self.num_input_channels, *axes), like=self.kernels)
        size = self.output_size(inputs.shape[2:])
        if min(size) < 1:
            text = "x".join(map(str, inputs.shape[2:]))
            raise ShapeError(f"{who}: inputs are {text}, too small for {self!r}")
        for grads in grads_wrt_outputs:
            expected = (len(inputs), self.num_output_channels, *size)
            check_shape(f"{who}: grads_wrt_outputs", grads, expected, like=self.kernels)

    def _extras(self) -> dict[str, object]:
        """Return the arguments for `repr` that are not at their defaults."""
        kernel, stride, padding, dilation, groups = self.geometry
        ones = (1,) * len(kernel)
        extras = {"stride": stride, "padding": show_padding(padding), "dilation": dilation, "groups": groups}
        defaults = {"stride": ones, "padding": (0,) * len(kernel), "dilation": ones, "groups": 1}
        return {name: value for name, value in extras.items() if value != defaults[name]}

    def __repr__(self) -> str:
        extras = self._extras() | ({} if self.biases is not None else {"bias": False})
        text = "".join(f", {name}={value}" for name, value in extras.items())
        channels = f"{self.num_input_channels}, {self.num_output_channels}"
        return f"{type(self).__name__}({channels}, kernel_size={self.geometry.kernel}{text})"


class Convolution2DLayer(ConvolutionLayer):
    """2-d convolution as deep-learning libraries mean it: a cross-correlation, with zero padding.

        y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i SH + u DH - PH, j SW + v DW - PW]

    x (N, C, H, W); `kernels` w (K, C / groups, KH, KW), `biases` b (K,) or None (`bias=False`); y (N, K, OH, OW) with
    OH = floor((H + PH before + PH after - DH (KH - 1) - 1) / SH) + 1. The arguments are those of `ConvolutionLayer`.
    """

    num_axes = 2

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, K, OH, OW) for x (N, C, H, W)."""
        self._check("fprop", inputs)
        return conv(inputs, self.turn(self.kernels), self.biases, self.geometry)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W), the transposed convolution of dE/dy."""
        self._check("bprop", inputs, grads_wrt_outputs)
        return conv_grad_inputs(grads_wrt_outputs, self.turn(self.kernels), self.geometry, inputs.shape[2:])

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/dx or None, [dE/dw, dE/db]), sharing the columns of dE/dy between both."""
        if not need_inputs:
            return None, self.grads_wrt_params(inputs, grads_wrt_outputs)
        self._check("backprop", inputs, grads_wrt_outputs)
        kernels = self.turn(self.kernels)
        grads_wrt_inputs, grads_wrt_kernels = conv_grads(inputs, grads_wrt_outputs, kernels, self.geometry)
        return grads_wrt_inputs, self._finished(grads_wrt_kernels, grads_wrt_outputs)


class Convolution1DLayer(Convolution2DLayer):
    """`Convolution2DLayer` along one spatial axis: x (N, C, L), w (K, C / groups, KL), y (N, K, OL)."""

    num_axes = 1


class Convolution3DLayer(Convolution2DLayer):
    """`Convolution2DLayer` over three spatial axes: x (N, C, D, H, W), w (K, C / groups, KD, KH, KW)."""

    num_axes = 3


class ConvolutionalLayer(Convolution2DLayer):
    """The coursework's layer: a true ('valid') convolution, its kernels turned by half a turn.

        y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i + KH - 1 - u, j + KW - 1 - v]

    x (N, C, H, W) of the given height and width; y (N, K, H - KH + 1, W - KW + 1). The defaults are the
    coursework's: kernels U(-0.01, 0.01), biases 0. The sizes may also be given under their names of 2017:
    `input_dim_1`, `input_dim_2`, `kernel_dim_1`, `kernel_dim_2`.
    """

    cache = None
    """The coursework's attribute; nothing is kept in it."""

    def __init__(
        self,
        num_input_channels: int,
        num_output_channels: int,
        input_height: int | None = None,
        input_width: int | None = None,
        kernel_height: int | None = None,
        kernel_width: int | None = None,
        kernels_init: Initialiser | None = None,
        biases_init: Initialiser | None = None,
        kernels_penalty: Penalty | None = None,
        biases_penalty: Penalty | None = None,
        *,
        input_dim_1: int | None = None,
        input_dim_2: int | None = None,
        kernel_dim_1: int | None = None,
        kernel_dim_2: int | None = None,
    ) -> None:
        height = _one_of("input_height", input_height, "input_dim_1", input_dim_1)
        width = _one_of("input_width", input_width, "input_dim_2", input_dim_2)
        kernel_size = (
            _one_of("kernel_height", kernel_height, "kernel_dim_1", kernel_dim_1),
            _one_of("kernel_width", kernel_width, "kernel_dim_2", kernel_dim_2),
        )
        super().__init__(
            num_input_channels,
            num_output_channels,
            kernel_size,
            kernels_init=_default_kernels if kernels_init is None else kernels_init,
            biases_init=ConstantInit(0.0) if biases_init is None else biases_init,
            kernels_penalty=kernels_penalty,
            biases_penalty=biases_penalty,
        )
        self.inputs_shape = (None, self.num_input_channels, height, width)
        if min(self.geometry.output_size((height, width))) < 1:
            raise ShapeError(f"ConvolutionalLayer: kernels {kernel_size} do not fit into inputs {(height, width)}")

    def turn(self, kernels: Array) -> Array:
        """Return the kernels as cross-correlation takes them: turned by half a turn."""
        return kernels[:, :, ::-1, ::-1]

    def _check(self, method: str, inputs: Array, *grads_wrt_outputs: Array) -> None:
        expected = ("N", *self.inputs_shape[1:])
        check_shape(f"ConvolutionalLayer.{method}: inputs", inputs, expected, like=self.kernels)
        super()._check(method, inputs, *grads_wrt_outputs)


def show_padding(padding: Padding) -> tuple[object, ...]:
    """Return the padding as one would write it: one number per axis where before and after are alike."""
    alike = all(before == after for before, after in padding)
    return tuple(before for before, _ in padding) if alike else padding


def _one_of(name: str, value: int | None, alias: str, other: int | None) -> int:
    """Return the one of two spellings of an argument that was given."""
    if (value is None) == (other is None):
        raise TypeError(f"ConvolutionalLayer: give {name} (or its older name {alias}), one of the two")
    return check_positive_int(f"ConvolutionalLayer: {name}", value if other is None else other)


_default_stream = default_rng(None)  # one for all layers without an initialiser, so that no two are alike
_default_kernels = UniformInit(-0.01, 0.01)  # the coursework's, shared by all layers too
