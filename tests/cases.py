"""One table of cases: every public layer, error and penalty, with the shapes that its generic tests run on."""

from typing import NamedTuple

import numpy as np

from mlp import errors, layers, penalties

RNG = np.random.RandomState


class LayerCase(NamedTuple):
    """A layer (built anew for each test) and the shape of its inputs."""

    name: str
    build: callable
    shape: tuple


def _normal(*shape):
    return RNG(5).standard_normal(shape)


def _conv(*args, **kwargs):
    return lambda: layers.Convolution2DLayer(*args, **kwargs)


def _coursework_conv(**extra):
    return lambda: layers.ConvolutionalLayer(3, 2, 5, 6, 2, 3, kernels_init=_normal_init, **extra)


def _normal_init(shape):
    return RNG(6).standard_normal(shape)


def _batch_norm(input_dim, **options):
    def build():
        layer = layers.BatchNormalizationLayer(input_dim, **options)
        layer.params = [_normal(input_dim) + 2.0, _normal(input_dim)]
        layer.running_mean[...] = _normal(input_dim)
        layer.running_var[...] = 1.0 + _normal(input_dim) ** 2
        return layer

    return build


def _block():
    return [layers.Convolution2DLayer(3, 3, 3, padding=1, bias=False), _batch_norm(3)(), layers.LeakyReluLayer()]


LAYER_CASES = [
    LayerCase("affine", lambda: layers.AffineLayer(4, 3), (5, 4)),
    LayerCase("affine, one example", lambda: layers.AffineLayer(4, 3), (1, 4)),
    LayerCase(
        "affine, penalties",
        lambda: layers.AffineLayer(4, 3, None, None, penalties.L2Penalty(0.3), penalties.L1Penalty(0.2)),
        (5, 4),
    ),
    LayerCase("conv 3x3", _conv(3, 4, 3, padding=1), (2, 3, 6, 5)),
    LayerCase("conv, no bias", _conv(3, 4, 3, bias=False), (3, 3, 6, 5)),
    LayerCase("conv 1x1", _conv(3, 4, 1), (2, 3, 4, 5)),
    LayerCase("conv, stride", _conv(3, 4, 3, stride=2, padding=1), (2, 3, 7, 6)),
    LayerCase("conv, uneven", _conv(2, 3, (2, 3), stride=(3, 2), padding=(0, 2), dilation=(2, 1)), (3, 2, 9, 8)),
    LayerCase("conv, dilation", _conv(2, 2, 3, padding=2, dilation=2), (2, 2, 6, 7)),
    LayerCase("conv, padding beyond the kernel", _conv(2, 2, 1, padding=2), (1, 2, 3, 4)),
    LayerCase("conv, penalty", _conv(2, 2, 3, kernels_penalty=penalties.L2Penalty(0.5)), (2, 2, 5, 5)),
    LayerCase("true convolution", _coursework_conv(), (2, 3, 5, 6)),
    LayerCase("true convolution, penalty", _coursework_conv(kernels_penalty=penalties.L1Penalty(0.1)), (2, 3, 5, 6)),
    LayerCase("batch norm", _batch_norm(4), (5, 4)),
    LayerCase("batch norm 2d", _batch_norm(3), (2, 3, 4, 5)),
    LayerCase("batch norm, one image", _batch_norm(3, epsilon=1e-3, momentum=0.3), (1, 3, 2, 2)),
    LayerCase("leaky relu", layers.LeakyReluLayer, (4, 3)),
    LayerCase("leaky relu, steep", lambda: layers.LeakyReluLayer(1.7), (2, 3, 4, 2)),
    LayerCase("relu", layers.ReluLayer, (2, 3, 4, 2)),
    LayerCase("sigmoid", layers.SigmoidLayer, (4, 3)),
    LayerCase("tanh", layers.TanhLayer, (4, 3)),
    LayerCase("softmax", layers.SoftmaxLayer, (4, 3)),
    LayerCase("max pooling", layers.MaxPooling2DLayer, (2, 3, 5, 6)),
    LayerCase("max pooling, overlapping", lambda: layers.MaxPooling2DLayer(7, 6, 3, 2), (2, 3, 7, 6)),
    LayerCase("max pooling, gaps", lambda: layers.MaxPooling2DLayer(size=2, stride=3), (2, 3, 7, 6)),
    LayerCase("average pooling", layers.AveragePooling2DLayer, (2, 3, 4, 6)),
    LayerCase("average pooling, overlapping", lambda: layers.AveragePooling2DLayer((3, 2), 1), (2, 3, 5, 4)),
    LayerCase("global average pooling", layers.GlobalAveragePooling2DLayer, (2, 3, 4, 5)),
    LayerCase("1-d max pooling", lambda: layers.MaxPoolingLayer(3), (4, 6)),
    LayerCase("dropout", lambda: layers.DropoutLayer(RNG(3), 0.6), (4, 5)),
    LayerCase("dropout, own masks", lambda: layers.DropoutLayer(RNG(3), 0.6, False), (3, 2, 4, 4)),
    LayerCase("reshape", lambda: layers.ReshapeLayer((3, -1)), (2, 3, 4, 5)),
    LayerCase("flatten", layers.ReshapeLayer, (2, 3, 4, 5)),
    LayerCase("chain", lambda: layers.ChainLayer([*_block(), layers.AveragePooling2DLayer()]), (2, 3, 4, 6)),
    LayerCase("residual", lambda: layers.ResidualLayer(_block()), (2, 3, 4, 5)),
    LayerCase(
        "residual in a chain", lambda: layers.ChainLayer([layers.ResidualLayer(_block()), *_block()]), (2, 3, 4, 5)
    ),
]

ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}


class ErrorCase(NamedTuple):
    """An error, outputs inside its domain, and targets."""

    name: str
    error: object
    outputs: np.ndarray
    targets: np.ndarray


def _probabilities(rows):
    exps = np.exp(rows)
    return exps / exps.sum(axis=1, keepdims=True)


_OUTPUTS, _LABELS = _normal(6, 4), np.array([0, 3, 1, 1, 2, 0])
_ONE_HOT, _SOFT = np.eye(4)[_LABELS], _probabilities(RNG(8).standard_normal((6, 4)))
_YES_NO = RNG(9).uniform(0.1, 0.9, (6, 1))

ERROR_CASES = [
    ErrorCase("squares", errors.SumOfSquaredDiffsError(), _OUTPUTS, _SOFT),
    ErrorCase("binary", errors.BinaryCrossEntropyError(), RNG(2).uniform(0.1, 0.9, (6, 1)), _YES_NO),
    ErrorCase("binary sigmoid", errors.BinaryCrossEntropySigmoidError(), _OUTPUTS[:, :1], _YES_NO),
    ErrorCase("cross-entropy", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _ONE_HOT),
    ErrorCase("cross-entropy, soft targets", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _SOFT),
    ErrorCase("cross-entropy, labels", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _LABELS),
    ErrorCase("softmax", errors.CrossEntropySoftmaxError(), _OUTPUTS, _ONE_HOT),
    ErrorCase("softmax, soft targets", errors.CrossEntropySoftmaxError(), _OUTPUTS, _SOFT),
    ErrorCase("softmax, labels", errors.CrossEntropySoftmaxError(), _OUTPUTS, _LABELS),
]
