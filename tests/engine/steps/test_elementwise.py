"""Planned activations give what the layers give, in place or not."""

import copy

import numpy as np
import pytest

from mlp.engine.catalogue import step_for
from mlp.engine.steps.elementwise import ReluStep
from mlp.engine.steps.rows import LayerStep
from mlp.layers import AffineLayer, LeakyReluLayer, ReluLayer, ResidualLayer, TanhLayer

from ..comparison import assert_same_numbers, moved, random, twins

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = [(1, 1), (7, 5), (101, 17), (7, 3, 5, 7), (5, 1, 1, 1), (6, 3, 4), (5, 2, 3, 2, 3)]
ALPHAS = [None, 0.0, 0.01, 0.3, 1.0, 1.7, -0.5]


def activation(alpha):
    return ReluLayer() if alpha is None else LeakyReluLayer(alpha)


def zeros_among(shape):
    """Return a function that draws inputs of which some are 0 and some -0."""

    def inputs(rng):
        x = rng.standard_normal(shape)
        x[rng.random(shape) < 0.1] = 0.0
        x[rng.random(shape) < 0.1] = -0.0
        return x

    return inputs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
@both_dtypes
def test_activations_give_what_the_layer_gives(shape, alpha, dtype, small_shards):
    planned = isinstance(step_for(activation(alpha), shape[1:], shape[0], ""), ReluStep)
    assert planned == (alpha is None or 0.0 <= alpha <= 1.0)
    assert_same_numbers(lambda: [activation(alpha)], shape, dtype, inputs=zeros_among(shape))


@pytest.mark.parametrize("alpha", ALPHAS)
@both_dtypes
def test_activations_of_activations_give_what_the_layers_give(alpha, dtype, small_shards):
    """What is computed in place of its inputs, above and below what reads them again."""

    def build():
        inner = [activation(alpha), moved(AffineLayer(6, 6)), TanhLayer(), activation(alpha)]
        return [moved(AffineLayer(6, 6)), activation(alpha), ResidualLayer(inner), activation(alpha), activation(0.1)]

    assert_same_numbers(build, (9, 6), dtype)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_infinite_inputs_give_what_the_layer_gives(alpha):
    x = np.array([[np.inf, -1.0, 2.0], [0.0, np.inf, -3.0], [1.0, 2.0, 3.0]])
    ours, theirs = twins([activation(alpha)])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_minus_infinity_is_rectified_to_nothing():
    ours, theirs = twins([ReluLayer()])
    x = np.array([[-np.inf, 1.0], [2.0, -np.inf]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_what_is_no_number_stays_so():
    ours, theirs = twins([ReluLayer(), LeakyReluLayer()])
    x = np.array([[np.nan, 1.0], [-2.0, np.nan]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@both_dtypes
@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.5, 1.0])
def test_the_slope_is_that_of_x_where_alpha_x_is_too_small_for_a_number(alpha, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([[tiny, -tiny, 0.0, 1.0, -1.0]], dtype)
    ours, theirs = twins([moved(AffineLayer(5, 5)).astype(dtype), LeakyReluLayer(alpha)])
    for engine in (ours, theirs):
        first = engine.model.layers[0]
        first.weights[...], first.biases[...] = np.eye(5), 0
    t = random(1, 5, dtype=dtype)
    for one, other in zip(ours.forward_backward(x, t).grads, theirs.forward_backward(x, t).grads, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_alpha_outside_of_0_to_1_runs_by_the_layer_itself():
    for alpha in (-0.01, 1.01):
        assert isinstance(step_for(LeakyReluLayer(alpha), (3,), 5, ""), LayerStep)


def test_inputs_are_not_changed(small_shards):
    x = random(9, 3, 4, 5)
    before = copy.deepcopy(x)
    twins([ReluLayer(), LeakyReluLayer()])[0].forward_backward(x, random(9, 3, 4, 5, seed=1))
    np.testing.assert_array_equal(x, before)
