"""Transposed convolution over one, two or three spatial axes: the gradient of a convolution, used forwards."""

from mlp.backend import Array
from mlp.checks import check_sizes
from mlp.initialisers import Initialiser
from mlp.kernels import Padding, Sizes, conv, conv_grad_inputs, conv_grad_kernels
from mlp.layers.base import Penalty, Shape
from mlp.layers.convolution import ConvolutionLayer


class ConvolutionTranspose2DLayer(ConvolutionLayer):
    """2-d transposed convolution: every input pixel puts a kernel's worth of numbers into the outputs.

        y[n, k, i SH + u DH - PH, j SW + v DW - PW]  +=  w[c,k,u,v] x[n,c,i,j],   and then + b[k]

    x (N, C, H, W); `kernels` w (C, K / groups, KH, KW), `biases` b (K,) or None; y (N, K, OH, OW) with OH =
    (H - 1) SH - PH before - PH after + DH (KH - 1) + 1 + output_padding. The same map as dE/dx of the convolution
    with these kernels from K to C channels. `output_padding` (less than the stride) adds rows at the end, which the
    stride makes ambiguous; `padding` takes rows away. The other arguments are those of `ConvolutionLayer`.

    Zeiler, Krishnan, Taylor and Fergus, Deconvolutional networks, CVPR 2010; Dumoulin and Visin, A guide to
    convolution arithmetic for deep learning, 2016, chapter 4.
    """

    num_axes = 2

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
        output_padding: int | Sizes = 0,
        groups: int = 1,
    ) -> None:
        channels = num_input_channels, num_output_channels
        super().__init__(
            *channels, kernel_size, stride, padding, dilation, bias, kernels_init, biases_init, groups=groups
        )
        self.kernels_penalty, self.biases_penalty = kernels_penalty, biases_penalty
        what = f"{type(self).__name__}: output_padding"
        self.output_padding = check_sizes(what, output_padding, self.num_axes, minimum=0)
        if any(extra >= step for extra, step in zip(self.output_padding, self.geometry.stride, strict=True)):
            raise ValueError(f"{what} is {output_padding}, expected less than the stride {self.geometry.stride}")

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, K, OH, OW) for x (N, C, H, W)."""
        self._check("fprop", inputs)
        size = self.output_size(inputs.shape[2:])
        return conv_grad_inputs(inputs, self.kernels, self.geometry, size, self.biases)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx (N, C, H, W), the convolution of dE/dy."""
        self._check("bprop", inputs, grads_wrt_outputs)
        return conv(grads_wrt_outputs, self.kernels, None, self.geometry)

    def _grads_wrt_kernels(self, inputs: Array, grads_wrt_outputs: Array) -> Array:
        return conv_grad_kernels(grads_wrt_outputs, inputs, self.geometry)

    def output_size(self, size: Sizes) -> Sizes:
        """Return the spatial size of the outputs for inputs of this spatial size."""
        kernel, stride, padding, dilation, _ = self.geometry
        axes = zip(size, kernel, stride, padding, dilation, self.output_padding, strict=True)
        return tuple((n - 1) * s - sum(pad) + d * (k - 1) + 1 + extra for n, k, s, pad, d, extra in axes)

    def multiply_adds(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return N H W K C KH KW / groups."""
        return super().multiply_adds(output_shape, input_shape)

    def _kernels_shape(self) -> Shape:
        outputs, inputs_per_group, *kernel = super()._kernels_shape()
        groups = self.geometry.groups
        return inputs_per_group * groups, outputs // groups, *kernel

    def _extras(self) -> dict[str, object]:
        extra = {"output_padding": self.output_padding} if any(self.output_padding) else {}
        return super()._extras() | extra


class ConvolutionTranspose1DLayer(ConvolutionTranspose2DLayer):
    """`ConvolutionTranspose2DLayer` along one spatial axis: x (N, C, L), w (C, K / groups, KL), y (N, K, OL)."""

    num_axes = 1


class ConvolutionTranspose3DLayer(ConvolutionTranspose2DLayer):
    """`ConvolutionTranspose2DLayer` over three spatial axes: x (N, C, D, H, W), w (C, K / groups, KD, KH, KW)."""

    num_axes = 3
