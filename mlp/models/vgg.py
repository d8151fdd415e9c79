"""The report's networks: VGG with 8 and with 38 layers, plain, with batch normalisation, with residual connections.

Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015, give the idea
of 3x3 convolutions in stages. One network is

    entry block        conv 3x3 (no bias) - batch norm (in every network) - LeakyReLU
    3 stages of        processing blocks  conv - [BN] - LeakyReLU - conv - [BN] - [+ input] - LeakyReLU  (no biases)
                       a reduction block  conv - [BN] - LeakyReLU - average pool 2x2 - conv - [BN] - LeakyReLU (biases)
    head               average pool over what is left - affine map with bias
"""

from typing import Any

import numpy as np

from mlp.checks import check_positive_int
from mlp.initialisers import FanInUniformInit
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LeakyReluLayer,
    ResidualLayer,
)
from mlp.models.base import MultipleLayerModel
from mlp.rng import Rng, default_rng

NUM_STAGES = 3


def vgg(
    num_blocks: int,
    batch_norm: bool = False,
    residual: bool = False,
    num_filters: int = 32,
    num_classes: int = 100,
    num_channels: int = 3,
    dtype: Any = np.float32,
    rng: Rng | None = None,
) -> MultipleLayerModel:
    """Return a VGG network of 8 + 6 `num_blocks` layers, for (N, C, H, W) images.

    `num_blocks` processing blocks a stage, 3 stages. All convolutions and the affine map start uniform in
    +-1 / sqrt(fan_in), biases too; draws of `rng` are in the order of `params`, in float64, then cast to `dtype`.
    """
    check_positive_int("vgg: num_blocks", num_blocks, minimum=0)
    blocks = _Blocks(batch_norm, residual, num_filters, default_rng(rng))
    layers = [
        blocks.conv("input_conv_conv_0", num_channels, bias=False),
        blocks.norm("input_conv_bn_0"),
        LeakyReluLayer(),
    ]
    for stage in range(NUM_STAGES):
        for block in range(num_blocks):
            layers += blocks.processing(f"block_{stage}_{block}")
        layers += blocks.reduction(f"reduction_block_{stage}")
    layers += [GlobalAveragePooling2DLayer(), blocks.logits("logit_linear_layer", num_classes)]
    return MultipleLayerModel(layers).astype(dtype)


def vgg08(**options: Any) -> MultipleLayerModel:
    """Return VGG08, which trains; the options are those of `vgg`."""
    return vgg(0, **options)


def vgg38(**options: Any) -> MultipleLayerModel:
    """Return VGG38, whose gradient vanishes; the options are those of `vgg`."""
    return vgg(5, **options)


def vgg38_bn(**options: Any) -> MultipleLayerModel:
    """Return VGG38 with batch normalisation; the options are those of `vgg`."""
    return vgg(5, batch_norm=True, **options)


def vgg38_rc(**options: Any) -> MultipleLayerModel:
    """Return VGG38 with residual connections; the options are those of `vgg`."""
    return vgg(5, residual=True, **options)


def vgg38_bn_rc(**options: Any) -> MultipleLayerModel:
    """Return VGG38 with both; the options are those of `vgg`."""
    return vgg(5, batch_norm=True, residual=True, **options)


class _Blocks:
    """The building blocks of one network, drawing from one random stream."""

    def __init__(self, batch_norm: bool, residual: bool, num_filters: int, rng: Rng) -> None:
        self.batch_norm, self.residual = batch_norm, residual
        self.num_filters, self.rng = num_filters, rng

    def conv(self, name: str, num_channels: int, bias: bool) -> Layer:
        """Return a 3x3 convolution that keeps height and width."""
        layer = Convolution2DLayer(
            num_channels,
            self.num_filters,
            kernel_size=3,
            padding=1,
            bias=bias,
            kernels_init=FanInUniformInit(rng=self.rng),
            biases_init=FanInUniformInit(9 * num_channels, rng=self.rng),
        )
        return _named(layer, name)

    def norm(self, name: str) -> Layer:
        return _named(BatchNormalizationLayer(self.num_filters), name)

    def conv_norm(self, block: str, number: int, bias: bool) -> list[Layer]:
        """Return conv - [BN], the `number`-th of a block."""
        layers = [self.conv(f"{block}_conv_{number}", self.num_filters, bias)]
        return [*layers, self.norm(f"{block}_bn_{number}")] if self.batch_norm else layers

    def processing(self, block: str) -> list[Layer]:
        """Return the layers of a processing block."""
        inner = [
            *self.conv_norm(block, 0, bias=False),
            LeakyReluLayer(),
            *self.conv_norm(block, 1, bias=False),
        ]
        return [*([ResidualLayer(inner)] if self.residual else inner), LeakyReluLayer()]

    def reduction(self, block: str) -> list[Layer]:
        """Return the layers of a reduction block, which halves height and width."""
        return [
            *self.conv_norm(block, 0, bias=True),
            LeakyReluLayer(),
            AveragePooling2DLayer(2),
            *self.conv_norm(block, 1, bias=True),
            LeakyReluLayer(),
        ]

    def logits(self, name: str, num_classes: int) -> Layer:
        weights = FanInUniformInit(rng=self.rng)
        biases = FanInUniformInit(self.num_filters, rng=self.rng)
        return _named(AffineLayer(self.num_filters, num_classes, weights, biases), name)


def _named(layer: Layer, name: str) -> Layer:
    layer.name = name
    return layer
