"""Which layers plans know, by which step, and what comes out of them."""

import numpy as np
import pytest

from mlp import layers
from mlp.engine.catalogue import output_shape, step_for
from mlp.engine.steps.convolution import ConvolutionStep
from mlp.engine.steps.elementwise import ReluStep
from mlp.engine.steps.normalisation import BatchNormStep
from mlp.engine.steps.rows import AffineStep, LayerStep
from mlp.layers import (
    AffineLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    Layer,
    LeakyReluLayer,
    ReluLayer,
    ResidualLayer,
)
from mlp.layers.base import forward
from mlp.testing.cases import LAYER_CASES

KNOWN = [
    (lambda: Convolution2DLayer(3, 4, 3), (3, 5, 5), ConvolutionStep, (4, 3, 3)),
    (lambda: Convolution2DLayer(3, 4, 1, stride=2), (3, 5, 4), ConvolutionStep, (4, 3, 2)),
    (lambda: ConvolutionalLayer(3, 4, 5, 6, 2, 3), (3, 5, 6), ConvolutionStep, (4, 4, 4)),
    (lambda: BatchNormalizationLayer(3), (3,), BatchNormStep, (3,)),
    (lambda: BatchNormalizationLayer(3), (3, 2, 5), BatchNormStep, (3, 2, 5)),
    (lambda: AffineLayer(3, 4), (3,), AffineStep, (4,)),
    (lambda: ReluLayer(), (3, 2), ReluStep, (3, 2)),
    (lambda: LeakyReluLayer(0.0), (3, 2, 2), ReluStep, (3, 2, 2)),
    (lambda: LeakyReluLayer(1.0), (3,), ReluStep, (3,)),
    (lambda: LeakyReluLayer(2.0), (3,), LayerStep, (3,)),
    (lambda: layers.SigmoidLayer(), (3, 4, 5, 6), LayerStep, (3, 4, 5, 6)),
    (lambda: layers.ReshapeLayer(), (3, 4, 5), LayerStep, (60,)),
]
UNKNOWN = [
    (lambda: Convolution2DLayer(4, 4, 3, groups=2), (4, 5, 5)),
    (lambda: Convolution2DLayer(3, 4, 3), (4, 5, 5)),
    (lambda: Convolution2DLayer(3, 4, 3), (3, 5)),
    (lambda: Convolution2DLayer(3, 4, 3), (3, 2, 2)),
    (lambda: ConvolutionalLayer(3, 4, 5, 6, 2, 3), (3, 6, 6)),
    (lambda: layers.Convolution1DLayer(3, 4, 3), (3, 5)),
    (lambda: layers.ConvolutionTranspose2DLayer(3, 4, 3), (3, 5, 5)),
    (lambda: BatchNormalizationLayer(3), (4,)),
    (lambda: BatchNormalizationLayer(3), (3, 5)),
    (lambda: BatchNormalizationLayer(3), (3, 5, 5, 5)),
    (lambda: AffineLayer(3, 4), (4,)),
    (lambda: AffineLayer(3, 4), (3, 1)),
    (lambda: layers.DropoutLayer(), (3,)),
    (lambda: layers.LayerNormalizationLayer(3), (3,)),
    (lambda: layers.AdditionLayer([AffineLayer(3, 3), []]), (3,)),
    (lambda: layers.MaxPooling2DLayer(size=4), (3, 2, 2)),
    (lambda: ResidualLayer([AffineLayer(3, 4)]), (3,)),
    (lambda: ChainLayer([AffineLayer(3, 4), AffineLayer(5, 4)]), (3,)),
    (lambda: ChainLayer([AffineLayer(3, 4), layers.DropoutLayer()]), (3,)),
]


@pytest.mark.parametrize(("build", "shape", "kind", "expected"), KNOWN)
def test_known_layers_have_a_step_and_a_shape(build, shape, kind, expected):
    layer = build()
    assert output_shape(layer, shape, 5) == expected
    assert layer.fprop(np.ones((5, *shape))).shape[1:] == expected
    step = step_for(layer, shape, 5, "label")
    assert type(step) is kind
    assert step.layer is layer
    assert step.label == "label"


@pytest.mark.parametrize(("build", "shape"), UNKNOWN)
def test_other_layers_and_other_shapes_are_left_to_the_layers(build, shape):
    assert output_shape(build(), shape, 5) is None


def test_batch_normalisation_of_one_value_a_channel_is_left_to_the_layer():
    assert output_shape(BatchNormalizationLayer(3), (3,), 1) is None
    assert output_shape(BatchNormalizationLayer(3), (3, 1, 1), 1) is None
    assert output_shape(BatchNormalizationLayer(3), (3, 1, 2), 1) == (3, 1, 2)


@pytest.mark.parametrize("case", LAYER_CASES, ids=[case.name for case in LAYER_CASES])
def test_shapes_are_those_of_the_layer(case):
    layer, shape = case.build(), case.shape[1:]
    expected = forward(layer, np.ones(case.shape), False).shape[1:]
    assert output_shape(layer, shape, case.shape[0]) in (expected, None)
    if case.build().runs_in_shards:
        assert output_shape(layer, shape, case.shape[0]) == expected


class Twice(Layer):
    def fprop(self, inputs):
        return 2.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2.0 * grads_wrt_outputs


class TwiceInShards(Twice):
    runs_in_shards = True


class TwiceAgain(TwiceInShards):
    """It may remember something, for all that it says."""


SUBCLASSES = [
    (ReluLayer, ()),
    (LeakyReluLayer, ()),
    (layers.SigmoidLayer, ()),
    (AffineLayer, (3, 3)),
    (BatchNormalizationLayer, (3,)),
    (layers.MaxPoolingLayer, (3,)),
]


@pytest.mark.parametrize(("kind", "arguments"), SUBCLASSES, ids=[kind.__name__ for kind, _ in SUBCLASSES])
def test_a_subclass_of_a_known_layer_is_not_known(kind, arguments):
    assert output_shape(kind(*arguments), (3,), 5) is not None
    assert output_shape(type("Mine", (kind,), {})(*arguments), (3,), 5) is None


def test_a_users_layer_runs_in_shards_where_its_own_class_says_so():
    assert output_shape(Twice(), (3,), 5) is None
    assert output_shape(TwiceInShards(), (3,), 5) == (3,)
    assert output_shape(TwiceAgain(), (3,), 5) is None


@pytest.mark.parametrize("kind", [ChainLayer, ResidualLayer])
def test_containers_are_known_where_all_inside_is(kind):
    inside = [AffineLayer(3, 4), ReluLayer(), AffineLayer(4, 3)]
    assert output_shape(kind(inside), (3,), 5) == (3,)
    assert output_shape(kind([kind(inside)]), (3,), 5) == (3,)
    assert output_shape(kind([*inside, Twice()]), (3,), 5) is None
    assert output_shape(kind([kind([Twice()]), *inside]), (3,), 5) is None
    assert output_shape(type("Mine", (kind,), {})(inside), (3,), 5) is None
