"""Layers, each with its forward pass `fprop` and its backward pass `bprop` written by hand."""

from mlp.layers.activations import LeakyReluLayer, ReluLayer, SigmoidLayer, TanhLayer
from mlp.layers.affine import AffineLayer
from mlp.layers.base import (
    Layer,
    LayerWithParameters,
    StochasticLayer,
    StochasticLayerWithParameters,
)
from mlp.layers.chain import ChainLayer, ResidualLayer
from mlp.layers.convolution import Convolution2DLayer, ConvolutionalLayer
from mlp.layers.dropout import DropoutLayer
from mlp.layers.normalisation import BatchNormalizationLayer
from mlp.layers.pooling import (
    AveragePooling2DLayer,
    GlobalAveragePooling2DLayer,
    MaxPooling2DLayer,
    MaxPoolingLayer,
)
from mlp.layers.reshape import ReshapeLayer
from mlp.layers.softmax import SoftmaxLayer

__all__ = [
    "AffineLayer",
    "AveragePooling2DLayer",
    "BatchNormalizationLayer",
    "ChainLayer",
    "Convolution2DLayer",
    "ConvolutionalLayer",
    "DropoutLayer",
    "GlobalAveragePooling2DLayer",
    "Layer",
    "LayerWithParameters",
    "LeakyReluLayer",
    "MaxPooling2DLayer",
    "MaxPoolingLayer",
    "ReluLayer",
    "ReshapeLayer",
    "ResidualLayer",
    "SigmoidLayer",
    "SoftmaxLayer",
    "StochasticLayer",
    "StochasticLayerWithParameters",
    "TanhLayer",
]
