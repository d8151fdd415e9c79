"""Layers, each with its forward pass `fprop` and its backward pass `bprop` written by hand."""

from mlp.layers.activations import (
    ELULayer,
    ExponentialLinearUnitLayer,
    LeakyReluLayer,
    ParametricReluLayer,
    RandomReluLayer,
    ReluLayer,
    SELULayer,
    SigmoidLayer,
    TanhLayer,
)
from mlp.layers.affine import AffineLayer
from mlp.layers.base import (
    Layer,
    LayerWithParameters,
    StochasticLayer,
    StochasticLayerWithParameters,
)
from mlp.layers.batch_normalisation import BatchNormalizationLayer
from mlp.layers.branches import AdditionLayer, ConcatenationLayer, IdentityLayer, MatrixProductLayer
from mlp.layers.chain import ChainLayer, ResidualLayer
from mlp.layers.convolution import Convolution1DLayer, Convolution2DLayer, Convolution3DLayer, ConvolutionalLayer
from mlp.layers.dropout import DropoutLayer
from mlp.layers.example_normalisation import (
    GroupNormalizationLayer,
    LayerNormalizationLayer,
    LocalResponseNormalizationLayer,
)
from mlp.layers.pooling import (
    AveragePooling1DLayer,
    AveragePooling2DLayer,
    AveragePooling3DLayer,
    GlobalAveragePooling1DLayer,
    GlobalAveragePooling2DLayer,
    GlobalAveragePooling3DLayer,
    MaxPooling1DLayer,
    MaxPooling2DLayer,
    MaxPooling3DLayer,
    MaxPoolingLayer,
)
from mlp.layers.radial_basis import RadialBasisFunctionLayer
from mlp.layers.reshape import ReshapeLayer
from mlp.layers.softmax import LogSoftmaxLayer, SoftmaxLayer
from mlp.layers.transposed_convolution import (
    ConvolutionTranspose1DLayer,
    ConvolutionTranspose2DLayer,
    ConvolutionTranspose3DLayer,
)

__all__ = [
    "AdditionLayer",
    "AffineLayer",
    "AveragePooling1DLayer",
    "AveragePooling2DLayer",
    "AveragePooling3DLayer",
    "BatchNormalizationLayer",
    "ChainLayer",
    "ConcatenationLayer",
    "Convolution1DLayer",
    "Convolution2DLayer",
    "Convolution3DLayer",
    "ConvolutionTranspose1DLayer",
    "ConvolutionTranspose2DLayer",
    "ConvolutionTranspose3DLayer",
    "ConvolutionalLayer",
    "DropoutLayer",
    "ELULayer",
    "ExponentialLinearUnitLayer",
    "GlobalAveragePooling1DLayer",
    "GlobalAveragePooling2DLayer",
    "GlobalAveragePooling3DLayer",
    "GroupNormalizationLayer",
    "IdentityLayer",
    "Layer",
    "LayerNormalizationLayer",
    "LayerWithParameters",
    "LeakyReluLayer",
    "LocalResponseNormalizationLayer",
    "LogSoftmaxLayer",
    "MatrixProductLayer",
    "MaxPooling1DLayer",
    "MaxPooling2DLayer",
    "MaxPooling3DLayer",
    "MaxPoolingLayer",
    "ParametricReluLayer",
    "RadialBasisFunctionLayer",
    "RandomReluLayer",
    "ReluLayer",
    "ReshapeLayer",
    "ResidualLayer",
    "SELULayer",
    "SigmoidLayer",
    "SoftmaxLayer",
    "StochasticLayer",
    "StochasticLayerWithParameters",
    "TanhLayer",
]
