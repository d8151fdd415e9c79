"""Planned affine maps, and layers that run as they are on a shard, give what the layers give."""

import numpy as np
import pytest

from mlp import layers
from mlp.engine.catalogue import step_for
from mlp.engine.steps.rows import AffineStep, LayerStep
from mlp.layers import AffineLayer
from mlp.penalties import L1Penalty, L2Penalty

from ..comparison import assert_same_numbers, moved

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PENALTIES = [(None, None), (L2Penalty(0.3), None), (None, L1Penalty(0.2)), (L1Penalty(0.1), L2Penalty(0.4))]


@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(1, 4, 3), (7, 1, 17), (7, 48, 1), (101, 17, 10)])
@pytest.mark.parametrize("penalties", PENALTIES, ids=str)
@both_dtypes
def test_affine_maps_give_what_the_layer_gives(batch, inputs, outputs, penalties, dtype, small_shards):
    layer = moved(AffineLayer(inputs, outputs, None, None, *penalties))
    assert type(step_for(layer, (inputs,), batch, "")) is AffineStep
    assert_same_numbers(lambda: [layer], (batch, inputs), dtype)


@both_dtypes
def test_affine_maps_in_a_row_give_what_the_layers_give(dtype, small_shards):
    sizes = [(5, 7), (7, 5), (5, 5), (5, 7), (7, 3)]
    assert_same_numbers(lambda: [moved(AffineLayer(*size)) for size in sizes], (23, 5), dtype)


IN_SHARDS = [
    (lambda: layers.SigmoidLayer(), (7, 3, 4, 5)),
    (lambda: layers.TanhLayer(), (101, 3)),
    (lambda: layers.ELULayer(0.7), (7, 3, 4)),
    (lambda: layers.SELULayer(), (7, 3, 4, 5)),
    (lambda: layers.SoftmaxLayer(), (101, 5)),
    (lambda: layers.SoftmaxLayer(axis=1), (7, 3, 4, 5)),
    (lambda: layers.LogSoftmaxLayer(axis=-2), (7, 3, 4, 5)),
    (lambda: layers.LogSoftmaxLayer(), (7, 3)),
    (lambda: layers.ReshapeLayer(), (7, 3, 4, 5)),
    (lambda: layers.ReshapeLayer((3, 2, 2)), (7, 12)),
    (lambda: layers.ReshapeLayer((4, -1)), (7, 3, 2, 2)),
    (lambda: layers.IdentityLayer(), (7, 3, 2, 2)),
    (lambda: layers.MaxPooling2DLayer(size=3, stride=2, padding=1), (7, 3, 6, 5)),
    (lambda: layers.MaxPooling1DLayer(), (7, 3, 6)),
    (lambda: layers.MaxPooling3DLayer(), (7, 2, 4, 2, 4)),
    (lambda: layers.AveragePooling1DLayer(3, 1), (7, 3, 6)),
    (lambda: layers.AveragePooling3DLayer(), (7, 2, 4, 2, 4)),
    (lambda: layers.GlobalAveragePooling1DLayer(), (7, 3, 6)),
    (lambda: layers.GlobalAveragePooling3DLayer(), (7, 2, 4, 2, 4)),
    (lambda: layers.MaxPoolingLayer(3), (7, 6)),
]


@pytest.mark.parametrize(
    ("build", "shape"), IN_SHARDS, ids=lambda value: str(value) if isinstance(value, tuple) else ""
)
@both_dtypes
def test_layers_that_run_as_they_are_give_what_they_give_on_the_whole_batch(build, shape, dtype, small_shards):
    assert type(step_for(build(), shape[1:], shape[0], "")) is LayerStep
    assert_same_numbers(lambda: [build()], shape, dtype)


@pytest.mark.parametrize("kind", [layers.SoftmaxLayer, layers.LogSoftmaxLayer])
@pytest.mark.parametrize(("axis", "shape"), [(0, (11, 3)), (-2, (11, 3)), (0, (11, 3, 2, 2)), (-4, (11, 3, 2, 2))])
def test_a_softmax_over_the_examples_sees_all_of_them(kind, axis, shape, small_shards):
    assert_same_numbers(lambda: [kind(axis)], shape)


@both_dtypes
def test_rows_become_maps_and_maps_rows(dtype, small_shards):
    def build():
        return [
            moved(AffineLayer(5, 12)),
            layers.ReshapeLayer((3, 2, 2)),
            moved(layers.Convolution2DLayer(3, 4, 3, padding=1)),
            layers.ReluLayer(),
            layers.ReshapeLayer(),
            moved(AffineLayer(16, 6)),
            layers.ReshapeLayer((3, 2)),
            layers.LeakyReluLayer(0.2),
            layers.ReshapeLayer((6, 1, 1)),
            layers.GlobalAveragePooling2DLayer(),
            layers.SoftmaxLayer(),
        ]

    assert_same_numbers(build, (23, 5), dtype)
