"""The cases of the layers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp import layers, penalties
from mlp.backend import Array
from mlp.layers import Layer

Shape = tuple[int, ...]


class LayerCase(NamedTuple):
    """A layer, built anew by each call of `build`, and the shape of its inputs."""

    name: str
    build: Callable[[], Layer]
    shape: Shape


def _normal_init(shape: Any) -> Array:
    return np.random.RandomState(6).standard_normal(shape)


def _set(layer: Any) -> Any:
    """Return the layer with parameters and running statistics that are the same in every build, and not special."""
    rng = np.random.RandomState(7)
    layer.params = [0.5 + rng.standard_normal(param.shape) for param in layer.params]
    for name in layer.state_names:
        getattr(layer, name)[...] = 1.0 + rng.standard_normal(getattr(layer, name).shape) ** 2
    return layer


def _of(kind: Callable[..., Layer], name: str, shape: Shape, *args: Any, **options: Any) -> LayerCase:
    """Return the case of ``kind(*args, **options)``; layers with parameters are moved from their starting values."""
    has_params = issubclass(kind, layers.LayerWithParameters) and not issubclass(kind, layers.ChainLayer)  # type: ignore[arg-type]

    def build() -> Layer:
        layer = kind(*args, **options)
        return _set(layer) if has_params else layer

    return LayerCase(name, build, shape)


def _containers(
    name: str, kind: Callable[..., Layer], parts: Callable[[], Any], shape: Shape, **options: Any
) -> LayerCase:
    return LayerCase(name, lambda: kind(parts(), **options), shape)


def _block(channels: int = 3) -> list[Layer]:
    conv = layers.Convolution2DLayer(channels, channels, 3, padding=1, bias=False, kernels_init=_normal_init)
    return [conv, _set(layers.BatchNormalizationLayer(channels)), layers.LeakyReluLayer()]


def _conv(channels: int, filters: int, size: int | Shape, **options: Any) -> Layer:
    layer: Layer = _set(layers.Convolution2DLayer(channels, filters, size, **options))
    return layer


def _affine(inputs: int, outputs: int) -> Layer:
    layer: Layer = _set(layers.AffineLayer(inputs, outputs))
    return layer


def _true_conv(**penalty: Any) -> Layer:
    return layers.ConvolutionalLayer(3, 2, 5, 6, 2, 3, kernels_init=_normal_init, **penalty)


def _dropout(**options: Any) -> Layer:
    return layers.DropoutLayer(np.random.RandomState(3), 0.6, **options)


def _dense() -> list[LayerCase]:
    both = {"weights_penalty": penalties.L2Penalty(0.3), "biases_penalty": penalties.L1Penalty(0.2)}
    return [
        _of(layers.AffineLayer, "affine", (5, 4), 4, 3),
        _of(layers.AffineLayer, "affine, one example", (1, 4), 4, 3),
        _of(layers.AffineLayer, "affine, square", (3, 4), 4, 4),
        _of(layers.AffineLayer, "affine, one number", (3, 1), 1, 1),
        _of(layers.AffineLayer, "affine, many inputs", (4, 30), 30, 2),
        _of(layers.AffineLayer, "affine, penalties", (5, 4), 4, 3, **both),
        _of(layers.RadialBasisFunctionLayer, "radial basis", (4, 3), 5),
        _of(layers.RadialBasisFunctionLayer, "radial basis, two intervals", (4, 2), 3, [[-2.0, 2.0], [0.0, 3.0]]),
        _of(layers.IdentityLayer, "identity", (3, 4)),
        _of(layers.ReshapeLayer, "reshape", (2, 3, 4, 5), (3, -1)),
        _of(layers.ReshapeLayer, "reshape to an image", (2, 12), (3, 2, 2)),
        _of(layers.ReshapeLayer, "flatten", (2, 3, 4, 5)),
    ]


def _convolutions() -> list[LayerCase]:
    one, two, three = layers.Convolution1DLayer, layers.Convolution2DLayer, layers.Convolution3DLayer
    uneven = {"stride": (3, 2), "padding": (0, 2), "dilation": (2, 1)}
    return [
        _of(two, "conv 3x3", (2, 3, 6, 5), 3, 4, 3, padding=1),
        _of(two, "conv, no bias", (3, 3, 6, 5), 3, 4, 3, bias=False),
        _of(two, "conv 1x1", (2, 3, 4, 5), 3, 4, 1),
        _of(two, "conv, stride", (2, 3, 7, 6), 3, 4, 3, stride=2, padding=1),
        _of(two, "conv, uneven", (3, 2, 9, 8), 2, 3, (2, 3), **uneven),
        _of(two, "conv, dilation", (2, 2, 6, 7), 2, 2, 3, padding=2, dilation=2),
        _of(two, "conv, padding beyond the kernel", (1, 2, 3, 4), 2, 2, 1, padding=2),
        _of(two, "conv, padding at one end", (2, 2, 4, 5), 2, 3, 3, padding=((0, 2), (1, 0))),
        _of(two, "conv, groups", (2, 4, 5, 4), 4, 6, 3, padding=1, groups=2),
        _of(two, "conv, depthwise", (2, 3, 5, 4), 3, 3, 3, stride=2, padding=1, groups=3),
        _of(two, "conv, penalty", (2, 2, 5, 5), 2, 2, 3, kernels_penalty=penalties.L2Penalty(0.5)),
        _of(two, "conv, a kernel as large as the image", (3, 2, 3, 4), 2, 3, (3, 4)),
        _of(one, "1-d conv", (3, 2, 9), 2, 4, 3, padding=1),
        _of(one, "1-d conv, stride, dilation", (2, 3, 11), 3, 2, 3, stride=2, dilation=2),
        _of(one, "1-d conv, causal", (2, 4, 6), 4, 4, 3, padding=((2, 0),), groups=2),
        _of(three, "3-d conv", (2, 2, 4, 3, 5), 2, 3, 2, padding=1),
        _of(three, "3-d conv, uneven", (1, 2, 5, 4, 3), 2, 2, (3, 2, 1), stride=(2, 1, 1), bias=False),
        LayerCase("true convolution", _true_conv, (2, 3, 5, 6)),
        LayerCase(
            "true convolution, penalty", lambda: _true_conv(kernels_penalty=penalties.L1Penalty(0.1)), (2, 3, 5, 6)
        ),
    ]


def _transposed() -> list[LayerCase]:
    one, two, three = (
        layers.ConvolutionTranspose1DLayer,
        layers.ConvolutionTranspose2DLayer,
        layers.ConvolutionTranspose3DLayer,
    )
    return [
        _of(two, "transposed conv", (2, 3, 4, 3), 3, 2, 3),
        _of(two, "transposed conv, stride", (2, 3, 3, 4), 3, 2, 3, stride=2, padding=1, output_padding=1),
        _of(two, "transposed conv, uneven", (3, 2, 3, 2), 2, 3, (2, 3), stride=(3, 2), dilation=(1, 2), bias=False),
        _of(two, "transposed conv, groups", (2, 4, 3, 3), 4, 6, 2, stride=2, groups=2),
        _of(two, "transposed conv, padding at one end", (2, 2, 3, 4), 2, 2, 3, padding=((1, 0), (0, 2))),
        _of(two, "transposed conv, penalty", (2, 2, 3, 3), 2, 3, 2, kernels_penalty=penalties.L2Penalty(0.4)),
        _of(one, "1-d transposed conv", (3, 2, 5), 2, 3, 4, stride=2, padding=1),
        _of(three, "3-d transposed conv", (1, 2, 2, 3, 2), 2, 2, 2, stride=(1, 2, 1)),
    ]


def _normalisations() -> list[LayerCase]:
    batch, group = layers.BatchNormalizationLayer, layers.GroupNormalizationLayer
    onnx = {"momentum": 0.9, "momentum_weighs": "running", "running_variance": "biased"}
    return [
        _of(batch, "batch norm", (5, 4), 4),
        _of(batch, "batch norm, sequences", (3, 4, 5), 4),
        _of(batch, "batch norm 2d", (2, 3, 4, 5), 3),
        _of(batch, "batch norm 3d", (2, 2, 3, 2, 3), 2),
        _of(batch, "batch norm, one image", (1, 3, 2, 2), 3, epsilon=1e-3, momentum=0.3),
        _of(batch, "batch norm, ONNX's conventions", (4, 3, 2, 2), 3, **onnx),
        _of(layers.LayerNormalizationLayer, "layer norm", (4, 5), 5),
        _of(layers.LayerNormalizationLayer, "layer norm, sequences", (2, 3, 4), 4, epsilon=1e-3),
        _of(layers.LayerNormalizationLayer, "layer norm, images", (2, 3, 4, 2), (3, 4, 2)),
        _of(group, "group norm", (3, 4, 2, 3), 2, 4),
        _of(group, "group norm, one group", (3, 4, 5), 1, 4),
        _of(group, "instance norm", (2, 3, 3, 2), 3, 3, epsilon=1e-2),
        _of(layers.LocalResponseNormalizationLayer, "local response norm", (2, 6, 3, 2), 3, 0.5, 0.75, 1.0),
        _of(layers.LocalResponseNormalizationLayer, "local response norm, even", (3, 5), 4, 1.0, 0.5, 2.0),
        _of(layers.LocalResponseNormalizationLayer, "local response norm, wide", (2, 3, 4), 9, 2.0, 1.0, 1.5),
    ]


def _elementwise() -> list[LayerCase]:
    return [
        _of(layers.LeakyReluLayer, "leaky relu", (4, 3)),
        _of(layers.LeakyReluLayer, "leaky relu, steep", (2, 3, 4, 2), 1.7),
        _of(layers.LeakyReluLayer, "leaky relu, falling", (5, 2), -0.5),
        _of(layers.ReluLayer, "relu", (2, 3, 4, 2)),
        _of(layers.ReluLayer, "relu, one number", (1, 1)),
        _of(layers.ELULayer, "elu", (4, 3)),
        _of(layers.ELULayer, "elu, alpha", (2, 3, 4), 0.4),
        _of(layers.SELULayer, "selu", (4, 3, 2)),
        _of(layers.ExponentialLinearUnitLayer, "exponential linear unit", (4, 3)),
        _of(layers.ParametricReluLayer, "parametric relu", (2, 3, 4, 2)),
        _of(layers.RandomReluLayer, "random relu", (3, 4)),
        _of(layers.SigmoidLayer, "sigmoid", (4, 3)),
        _of(layers.SigmoidLayer, "sigmoid, images", (2, 3, 2, 2)),
        _of(layers.TanhLayer, "tanh", (4, 3)),
        _of(layers.TanhLayer, "tanh, sequences", (2, 3, 4)),
        _of(layers.SoftmaxLayer, "softmax", (4, 3)),
        _of(layers.SoftmaxLayer, "softmax, channels", (2, 3, 2, 2), 1),
        _of(layers.LogSoftmaxLayer, "log-softmax", (4, 3)),
        _of(layers.LogSoftmaxLayer, "log-softmax, channels", (2, 4, 3), 1),
        LayerCase("dropout", _dropout, (4, 5)),
        LayerCase("dropout, own masks", lambda: _dropout(share_across_batch=False), (3, 2, 4, 4)),
        LayerCase("dropout, rescaled", lambda: _dropout(share_across_batch=False, rescale=True), (4, 5)),
    ]


def _poolings() -> list[LayerCase]:
    most, mean = layers.MaxPooling2DLayer, layers.AveragePooling2DLayer
    return [
        _of(most, "max pooling", (2, 3, 5, 6)),
        _of(most, "max pooling, overlapping", (2, 3, 7, 6), 7, 6, 3, 2),
        _of(most, "max pooling, gaps", (2, 3, 7, 6), size=2, stride=3),
        _of(most, "max pooling, padding", (2, 2, 5, 4), size=3, stride=2, padding=1),
        _of(most, "max pooling, dilation, ceil", (2, 2, 6, 7), size=2, stride=3, dilation=2, ceil_mode=True),
        _of(most, "max pooling, padding at one end", (1, 2, 4, 4), size=2, stride=1, padding=((0, 1), (1, 0))),
        _of(layers.MaxPooling1DLayer, "max pooling of sequences", (2, 3, 9), 3, 2),
        _of(layers.MaxPooling3DLayer, "max pooling of volumes", (2, 2, 4, 2, 3), 2, 1, 1),
        _of(mean, "average pooling", (2, 3, 4, 6)),
        _of(mean, "average pooling, overlapping", (2, 3, 5, 4), (3, 2), 1),
        _of(mean, "average pooling, padding", (2, 2, 5, 4), 3, 2, 1),
        _of(mean, "average pooling, image only", (2, 2, 5, 4), 3, 2, 1, count_include_pad=False),
        _of(mean, "average pooling, dilation, ceil", (2, 2, 6, 7), 2, 2, ((0, 1), (1, 1)), 2, True, False),
        _of(layers.AveragePooling1DLayer, "average pooling of sequences", (2, 3, 9), 4, 3),
        _of(layers.AveragePooling3DLayer, "average pooling of volumes", (1, 2, 4, 3, 4), 2, 1, 1),
        _of(layers.GlobalAveragePooling2DLayer, "global average pooling", (2, 3, 4, 5)),
        _of(layers.GlobalAveragePooling1DLayer, "global average pooling of sequences", (2, 3, 4)),
        _of(layers.GlobalAveragePooling3DLayer, "global average pooling of volumes", (2, 3, 2, 3, 2)),
        _of(layers.MaxPoolingLayer, "1-d max pooling", (4, 6), 3),
        _of(layers.MaxPoolingLayer, "1-d max pooling, pairs", (2, 3, 4)),
    ]


def _combinations() -> list[LayerCase]:
    chain, residual = layers.ChainLayer, layers.ResidualLayer
    add, concat, product = layers.AdditionLayer, layers.ConcatenationLayer, layers.MatrixProductLayer
    return [
        _containers("chain", chain, lambda: [*_block(), layers.AveragePooling2DLayer()], (2, 3, 4, 6)),
        _containers("chain of one", chain, lambda: [layers.TanhLayer()], (2, 3)),
        _containers("residual", residual, _block, (2, 3, 4, 5)),
        _containers("residual in a chain", chain, lambda: [residual(_block()), *_block()], (2, 3, 4, 5)),
        _containers("residual, dropout", residual, lambda: [_affine(4, 4), _dropout()], (3, 4)),
        _containers("addition, projection", add, lambda: [_block(2), _conv(2, 2, 1)], (2, 2, 4, 3)),
        _containers("addition, identity", add, lambda: [[], layers.TanhLayer(), []], (3, 4)),
        _containers("addition, broadcast", add, lambda: [_affine(4, 3), _affine(4, 1)], (5, 4)),
        _containers("concatenation", concat, lambda: [_conv(3, 2, 1), [], _block()], (2, 3, 3, 4)),
        _containers("concatenation, last axis", concat, lambda: [_affine(4, 2), [], _affine(4, 3)], (3, 4), axis=-1),
        _containers("matrix product", product, lambda: [[], layers.SigmoidLayer()], (3, 4, 4)),
        _containers(
            "matrix product, nested",
            product,
            lambda: [_product_of_itself(), layers.LayerNormalizationLayer(4)],
            (2, 4, 4),
        ),
    ]


def _product_of_itself() -> Sequence[Layer]:
    return [layers.MatrixProductLayer([[], layers.TanhLayer()]), layers.SoftmaxLayer()]


LAYER_CASES: list[LayerCase] = [
    *_dense(),
    *_convolutions(),
    *_transposed(),
    *_normalisations(),
    *_elementwise(),
    *_poolings(),
    *_combinations(),
]
