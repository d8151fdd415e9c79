"""Planned batch normalisation gives what the layer gives: also where digits cancel or squares overflow."""

import numpy as np
import pytest

from mlp.checks import ShapeError
from mlp.engine.catalogue import step_for
from mlp.engine.steps.normalisation import BatchNormStep
from mlp.layers import BatchNormalizationLayer, Convolution2DLayer

from ..comparison import (
    SQUARES,
    Probe,
    assert_arrays_close,
    assert_close,
    assert_same_numbers,
    assert_steps_close,
    moved,
    random,
    twins,
)

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = [(4, 2), (7, 5), (101, 17), (1, 3, 2, 2), (7, 3, 5, 7), (5, 48, 1, 1), (33, 17, 4, 4), (13, 2, 8, 8)]
OPTIONS = [
    {},
    {"epsilon": 1e-3, "momentum": 0.3},
    {"momentum": 0.9, "momentum_weighs": "running", "running_variance": "biased"},
    {"momentum": 1.0},
    {"momentum": 0.0, "running_variance": "biased"},
]


def normalisation(channels, **options):
    return moved(BatchNormalizationLayer(channels, **options))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@both_dtypes
def test_batch_normalisation_gives_what_the_layer_gives(shape, options, dtype, small_shards):
    layer = normalisation(shape[1], **options)
    assert isinstance(step_for(layer, shape[1:], shape[0], ""), BatchNormStep)
    inputs = lambda rng: 1.5 + 2.0 * rng.standard_normal(shape)  # noqa: E731
    assert_same_numbers(lambda: [layer], shape, dtype, inputs=inputs)


@pytest.mark.parametrize("shape", [(8, 3), (9, 3, 4, 5)], ids=str)
@both_dtypes
def test_two_in_a_row_give_what_the_layers_give(shape, dtype, small_shards):
    """The gradients of the lower one are 0 but for rounding: they are compared with the largest of the step."""
    assert_same_numbers(lambda: [normalisation(3), normalisation(3)], shape, dtype, floor=1.0)


@pytest.mark.parametrize("shape", [(40, 3), (9, 3, 5, 4)], ids=str)
@both_dtypes
def test_a_large_mean_takes_no_digits(shape, dtype, small_shards):
    """A mean of 1e4 standard deviations, which leaves float32 three digits of x - mean: the same in both."""
    inputs = lambda rng: 1e4 + rng.standard_normal(shape)  # noqa: E731
    assert_same_numbers(lambda: [normalisation(3)], shape, dtype, inputs=inputs)


@both_dtypes
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e4, 1e30])
def test_a_constant_channel_becomes_beta(constant, dtype, small_shards):
    x = random(11, 3, 4, 3, dtype=dtype)
    x[:, 1] = constant
    layer = normalisation(3).astype(dtype)
    ours, theirs = twins([layer])
    got, want = (engine.predict(x, stochastic=True) for engine in (ours, theirs))
    np.testing.assert_array_equal(got[:, 1], np.full_like(got[:, 1], layer.beta[1]))
    assert_close(got, want)
    assert_arrays_close(ours, theirs)
    t = random(11, 3, 4, 3, seed=1, dtype=dtype)
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))


@pytest.mark.parametrize("scale", [1e15, 1e18])
@both_dtypes
def test_large_inputs_whose_squares_have_a_place_give_what_the_layer_gives(scale, dtype, small_shards):
    inputs = lambda rng: scale * rng.standard_normal((9, 3, 5, 4))  # noqa: E731
    assert_same_numbers(lambda: [normalisation(3)], (9, 3, 5, 4), dtype, inputs=inputs, probes=[False])


def overflowing(dtype, scale):
    """Return the twins of probe and normalisation, inputs of which squares overflow, and targets."""
    shape = (9, 3, 5, 4)
    layers = [Probe(shape).astype(dtype), normalisation(3).astype(dtype)]
    return (*twins(layers), (scale * random(*shape)).astype(dtype), random(*shape, seed=1, dtype=dtype))


OVERFLOWS = [(np.float32, 1e20), (np.float32, 1e25), (np.float32, 1e30), (np.float64, 1e160), (np.float64, 1e200)]


@pytest.mark.parametrize(("dtype", "scale"), OVERFLOWS)
def test_outputs_are_right_where_squares_overflow(dtype, scale, small_shards):
    ours, theirs, x, _ = overflowing(dtype, scale)
    with np.errstate(over="ignore", under="ignore"):  # the running variance has no place for the square
        assert_close(ours.predict(x, stochastic=True), theirs.predict(x, stochastic=True))


@pytest.mark.parametrize(("dtype", "scale"), OVERFLOWS)
def test_gradients_are_right_where_squares_overflow(dtype, scale, small_shards):
    ours, theirs, x, t = overflowing(dtype, scale)
    with np.errstate(over="ignore", under="ignore"):
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))


@pytest.mark.parametrize("scale", [1e-10, 1e-20, 1e-30])
@both_dtypes
def test_small_inputs_give_what_the_layer_gives(scale, dtype, small_shards):
    """With epsilon as small as their variance."""
    inputs = lambda rng: scale * rng.standard_normal((9, 3, 5, 4))  # noqa: E731
    layer = normalisation(3, epsilon=1e-30)
    with np.errstate(under="ignore"):
        assert_same_numbers(lambda: [layer], (9, 3, 5, 4), dtype, inputs=inputs, probes=[False])


@pytest.mark.parametrize(
    ("dtype", "away"), [*((np.float32, away) for away in (0, 3, 10, 30, 100)), (np.float64, 3), (np.float64, 10)]
)
@pytest.mark.parametrize("pixels", ["one", "all corners"])
def test_a_first_pixel_far_from_the_rest_takes_no_digits(dtype, away, pixels):
    """The value that a shard takes off its channel is its first: it may be far from the mean.

    Compared with what the layer finds in float64, as it loses some digits here in float32 itself.
    """
    x, t = random(12, 2, 32, 32, dtype=dtype), random(12, 2, 32, 32, seed=1, dtype=dtype)
    x[slice(1 if pixels == "one" else None), :, 0, 0] += away
    (ours, _), (_, exact) = twins([normalisation(2).astype(dtype)]), twins([normalisation(2)])
    step, expected = ours.forward_backward(x, t), exact.forward_backward(x.astype(np.float64), t.astype(np.float64))
    found = [step.outputs, *step.grads, *ours.model.named_arrays().values()]
    known = [expected.outputs, *expected.grads, *exact.model.named_arrays().values()]
    for got, want in zip(found, known, strict=True):
        assert_close(got, want.astype(dtype))


def test_a_first_pixel_far_from_the_rest_takes_no_digits_by_the_exact_statistics():
    x = random(12, 2, 32, 32, dtype=np.float32)
    x[0, :, 0, 0] = 100.0
    exact = x.astype(np.float64)
    mean, std = exact.mean(axis=(0, 2, 3), keepdims=True), exact.std(axis=(0, 2, 3), keepdims=True)
    ours, _ = twins([BatchNormalizationLayer(2, epsilon=1e-12).astype(np.float32)])
    outputs, expected = ours.predict(x, stochastic=True), (exact - mean) / std
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_one_value_a_channel_is_refused_as_the_layer_refuses_it():
    for engine in twins([Convolution2DLayer(3, 4, 2), BatchNormalizationLayer(4)]):
        with pytest.raises(ShapeError, match="one value per channel"):
            engine.forward_backward(random(1, 3, 2, 2), random(1, 4, 1, 1))
        with pytest.raises(ShapeError, match="one value per channel"):
            engine.predict(random(1, 3, 2, 2), stochastic=True)
    ours, theirs = twins([Convolution2DLayer(3, 4, 2), BatchNormalizationLayer(4)])
    assert_close(ours.predict(random(1, 3, 2, 2)), theirs.predict(random(1, 3, 2, 2)))


def test_one_value_a_channel_has_a_biased_variance():
    assert_same_numbers(lambda: [normalisation(4, running_variance="biased")], (1, 4), probes=[False])


def test_running_statistics_stay_as_they_are_in_evaluation(small_shards):
    ours, _ = twins([normalisation(3)], SQUARES)
    before = {name: array.copy() for name, array in ours.model.named_arrays().items()}
    ours.predict(random(9, 3, 5, 4))
    for name, array in ours.model.named_arrays().items():
        np.testing.assert_array_equal(array, before[name])
