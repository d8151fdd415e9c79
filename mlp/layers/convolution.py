"""2-d convolution: one implementation, two faces."""

from mlp.backend import Array
from mlp.checks import ShapeError, check_pair, check_positive_int, check_shape
from mlp.initialisers import ConstantInit, FanInUniformInit, Initialiser, UniformInit
from mlp.kernels import ConvGeometry, conv2d, conv2d_grad_inputs, conv2d_grad_kernels, conv2d_grads
from mlp.layers.base import LayerWithParameters, Penalty, Shape, initial
from mlp.rng import default_rng


class Convolution2DLayer(LayerWithParameters):
    """2-d convolution as deep-learning libraries mean it: a cross-correlation, with zero padding.

        y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i SH + u DH - PH, j SW + v DW - PW]

    x (N, C, H, W); `kernels` w (K, C, KH, KW), `biases` b (K,) or None (`bias=False`); y (N, K, OH, OW) with
    OH = floor((H + 2 PH - DH (KH - 1) - 1) / SH) + 1. `kernel_size`, `stride`, `padding` and `dilation` are whole
    numbers or pairs (height, width). Both parameters start uniform in +-1 / sqrt(C KH KW) unless told otherwise.
    """

    param_names = ("kernels", "biases")

    def __init__(
        self,
        num_input_channels: int,
        num_output_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        kernels_init: Initialiser | None = None,
        biases_init: Initialiser | None = None,
        kernels_penalty: Penalty | None = None,
        biases_penalty: Penalty | None = None,
    ) -> None:
        who = type(self).__name__
        self.num_input_channels = check_positive_int(f"{who}: num_input_channels", num_input_channels)
        self.num_output_channels = check_positive_int(f"{who}: num_output_channels", num_output_channels)
        self.geometry = ConvGeometry(
            check_pair(f"{who}: kernel_size", kernel_size),
            check_pair(f"{who}: stride", stride),
            check_pair(f"{who}: padding", padding, minimum=0),
            check_pair(f"{who}: dilation", dilation),
        )
        self.kernels_shape = (self.num_output_channels, self.num_input_channels, *self.geometry.kernel)
        init = FanInUniformInit(rng=_default_stream) if kernels_init is None else kernels_init
        self.kernels = initial(f"{who}: kernels", init, self.kernels_shape)
        self.biases = None
        if bias:
            init = FanInUniformInit(self.kernels[0].size, _default_stream) if biases_init is None else biases_init
            self.biases = initial(f"{who}: biases", init, (self.num_output_channels,))
        self.kernels_penalty = kernels_penalty
        self.biases_penalty = biases_penalty

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, K, OH, OW) for x (N, C, H, W)."""
        self._check("fprop", inputs)
        return conv2d(inputs, self._turn(self.kernels), self.biases, self.geometry)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W), the transposed convolution of dE/dy."""
        self._check("bprop", inputs, grads_wrt_outputs)
        kernels = self._turn(self.kernels)
        return conv2d_grad_inputs(grads_wrt_outputs, kernels, self.geometry, (inputs.shape[2], inputs.shape[3]))

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/dw, dE/db = sum of dE/dy over N, OH, OW]; the first alone without biases."""
        self._check("grads_wrt_params", inputs, grads_wrt_outputs)
        return self._finished(conv2d_grad_kernels(inputs, grads_wrt_outputs, self.geometry), grads_wrt_outputs)

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/dx or None, [dE/dw, dE/db]), sharing the columns of dE/dy between both."""
        if not need_inputs:
            return None, self.grads_wrt_params(inputs, grads_wrt_outputs)
        self._check("backprop", inputs, grads_wrt_outputs)
        kernels = self._turn(self.kernels)
        grads_wrt_inputs, grads_wrt_kernels = conv2d_grads(inputs, grads_wrt_outputs, kernels, self.geometry)
        return grads_wrt_inputs, self._finished(grads_wrt_kernels, grads_wrt_outputs)

    def multiply_adds(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return N OH OW K C KH KW."""
        n, _, oh, ow = output_shape
        return n * oh * ow * int(self.kernels.size)

    def _turn(self, kernels: Array) -> Array:
        """Return the kernels as cross-correlation takes them."""
        return kernels

    def _finished(self, grads_wrt_kernels: Array, grads_wrt_outputs: Array) -> list[Array]:
        grads = [self._turn(grads_wrt_kernels)]
        if self.biases is not None:
            grads.append(grads_wrt_outputs.sum(axis=(2, 3)).sum(axis=0))
        return self.with_penalties(grads)

    def _check(self, method: str, inputs: Array, grads_wrt_outputs: Array | None = None) -> None:
        who = f"{type(self).__name__}.{method}"
        check_shape(f"{who}: inputs", inputs, ("N", self.num_input_channels, "H", "W"), like=self.kernels)
        size = self.geometry.output_size(*inputs.shape[2:])
        if min(size) < 1:
            raise ShapeError(f"{who}: inputs are {inputs.shape[2]}x{inputs.shape[3]}, too small for {self!r}")
        if grads_wrt_outputs is not None:
            expected = (len(inputs), self.num_output_channels, *size)
            check_shape(f"{who}: grads_wrt_outputs", grads_wrt_outputs, expected, like=self.kernels)

    def __repr__(self) -> str:
        kernel, *rest = self.geometry
        extras = [
            f", {name}={value}"
            for name, value, default in zip(ConvGeometry._fields[1:], rest, (1, 0, 1), strict=True)
            if value != (default, default)
        ]
        bias = "" if self.biases is not None else ", bias=False"
        return (
            f"{type(self).__name__}({self.num_input_channels}, {self.num_output_channels}, kernel_size={kernel}"
            f"{''.join(extras)}{bias})"
        )


class ConvolutionalLayer(Convolution2DLayer):
    """The coursework's layer: a true ('valid') convolution, its kernels turned by half a turn.

        y[n,k,i,j] = b[k] + sum over c,u,v of  w[k,c,u,v] x[n, c, i + KH - 1 - u, j + KW - 1 - v]

    x (N, C, H, W) of the given height and width; y (N, K, H - KH + 1, W - KW + 1). The defaults are the
    coursework's: kernels U(-0.01, 0.01), biases 0. The sizes may also be given under their names of 2017:
    `input_dim_1`, `input_dim_2`, `kernel_dim_1`, `kernel_dim_2`.
    """

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
        if min(self.geometry.output_size(height, width)) < 1:
            raise ShapeError(f"ConvolutionalLayer: kernels {kernel_size} do not fit into inputs {(height, width)}")

    def _turn(self, kernels: Array) -> Array:
        return kernels[:, :, ::-1, ::-1]

    def _check(self, method: str, inputs: Array, grads_wrt_outputs: Array | None = None) -> None:
        expected = ("N", *self.inputs_shape[1:])
        check_shape(f"ConvolutionalLayer.{method}: inputs", inputs, expected, like=self.kernels)
        super()._check(method, inputs, grads_wrt_outputs)


def _one_of(name: str, value: int | None, alias: str, other: int | None) -> int:
    """Return the one of two spellings of an argument that was given."""
    if (value is None) == (other is None):
        raise TypeError(f"ConvolutionalLayer: give {name} (or its older name {alias}), one of the two")
    return check_positive_int(f"ConvolutionalLayer: {name}", value if other is None else other)


_default_stream = default_rng(None)  # one for all layers without an initialiser, so that no two are alike
_default_kernels = UniformInit(-0.01, 0.01)  # the coursework's, shared by all layers too
