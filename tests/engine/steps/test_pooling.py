"""Planned average poolings give what the layers give."""

import numpy as np
import pytest

from mlp.engine.catalogue import output_shape, step_for
from mlp.engine.steps.pooling import AveragePoolingStep, GlobalAverageStep
from mlp.engine.steps.rows import LayerStep
from mlp.layers import (
    AveragePooling2DLayer,
    Convolution2DLayer,
    GlobalAveragePooling2DLayer,
    MaxPooling2DLayer,
    ReluLayer,
)

from ..comparison import assert_same_numbers, moved

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
AVERAGES = [
    ((2, 2), {}, (8, 8), AveragePoolingStep),
    ((2, 2), {}, (2, 6), AveragePoolingStep),
    ((3, 2), {}, (9, 4), AveragePoolingStep),
    ((1, 1), {}, (5, 7), AveragePoolingStep),
    ((5, 7), {}, (5, 7), AveragePoolingStep),
    ((2, 2), {"count_include_pad": False, "ceil_mode": True}, (4, 6), AveragePoolingStep),
    ((2, 2), {}, (5, 7), LayerStep),
    ((2, 2), {"ceil_mode": True}, (5, 7), LayerStep),
    ((2, 2), {"stride": 1}, (4, 4), LayerStep),
    ((2, 2), {"stride": (2, 3)}, (4, 6), LayerStep),
    ((2, 2), {"padding": 1}, (4, 4), LayerStep),
    ((3, 3), {"padding": ((0, 1), (2, 0)), "count_include_pad": False}, (6, 6), LayerStep),
    ((2, 2), {"dilation": 2}, (4, 4), LayerStep),
]


@pytest.mark.parametrize(("size", "options", "images", "kind"), AVERAGES, ids=str)
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (7, 17), (101, 2)])
@both_dtypes
def test_average_pooling_gives_what_the_layer_gives(size, options, images, kind, batch, channels, dtype, small_shards):
    layer, shape = AveragePooling2DLayer(size, **options), (batch, channels, *images)
    assert type(step_for(layer, shape[1:], batch, "")) is kind
    assert output_shape(layer, shape[1:], batch) == (channels, *layer.geometry.output_size(images))
    assert_same_numbers(lambda: [layer], shape, dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 17, 5, 7), (101, 3, 4, 4), (5, 48, 1, 1)], ids=str)
@both_dtypes
def test_global_average_pooling_gives_what_the_layer_gives(shape, dtype, small_shards):
    assert type(step_for(GlobalAveragePooling2DLayer(), shape[1:], shape[0], "")) is GlobalAverageStep
    assert_same_numbers(lambda: [GlobalAveragePooling2DLayer()], shape, dtype)


@both_dtypes
def test_poolings_between_other_layers_give_what_the_layers_give(dtype, small_shards):
    """What a pooling reads and writes may lie where another map was, with another frame."""

    def build():
        return [
            moved(Convolution2DLayer(3, 4, 3, padding=1)),
            ReluLayer(),
            AveragePooling2DLayer(2),
            moved(Convolution2DLayer(4, 4, 3, padding=1)),
            MaxPooling2DLayer(size=2),
            ReluLayer(),
            AveragePooling2DLayer((1, 2)),
            GlobalAveragePooling2DLayer(),
        ]

    assert_same_numbers(build, (9, 3, 8, 8), dtype)
