"""The guess at the cause: every sentence is reached from a right gradient and a wrong one made by hand."""

import numpy as np
import pytest

from mlp import layers
from mlp.testing import GradientError, check_gradients
from mlp.testing.diagnosis import Diagnosis, guess

RNG = np.random.default_rng(5)
RIGHT = RNG.standard_normal((6, 4))
IMAGE = RNG.standard_normal((3, 2, 4, 5))
INPUTS = RNG.standard_normal((6, 4))


def of_inputs(**more):
    """Return the context of a wrong dE/d inputs."""
    return {"array": INPUTS, "N": 6, "batch": True, "outputs": RIGHT + 1.0, "layer": None} | more


def of_parameter(array, **more):
    return {"array": array, "N": 6, "batch": False, "outputs": RIGHT + 1.0, "layer": None} | more


def of_images():
    images = RNG.standard_normal(IMAGE.shape)
    return {"array": images, "N": 3, "batch": True, "outputs": IMAGE + 1.0, "upstream": images + 2.0, "layer": None}


def changed(array, *places, to=None):
    array = array.copy()
    for place in places:
        array[place] = array[place] + 1.0 if to is None else to
    return array


# Numbers that say it all.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(value):
    assert guess(RIGHT, changed(RIGHT, (2, 3), to=value), of_inputs()) == "it holds numbers that are not finite"


def test_zeros_where_there_is_a_gradient_and_a_gradient_where_there_are_zeros():
    zeros = np.zeros_like(RIGHT)
    assert guess(RIGHT, zeros, of_inputs()) == "it is all zeros: the gradient is missing"
    assert guess(zeros, RIGHT, of_inputs()) == "it should be all zeros"


def test_a_few_right_digits_are_a_matter_of_precision():
    rounded = RIGHT.astype(np.float32).astype(np.float64)
    for got in (rounded, RIGHT * (1.0 + 1e-8), RIGHT + 1e-7 * RNG.standard_normal(RIGHT.shape)):
        sentence = guess(RIGHT, got, of_inputs())
        assert "digits" in sentence or "right to" in sentence
        assert "float32" in sentence


# A constant factor.


FACTORS = {
    -1.0: "the sign is wrong",
    1 / 6: "it is divided by the batch size, 6: averaged where it must be summed",
    6.0: "it is 6 times the right one, the batch size: a 1/N is missing",
    6 / 5: "it is n / (n - 1) times the right one, n = 6",
    5 / 6: "it is (n - 1) / n times the right one, n = 6",
    np.sqrt(6 / 5): "it is the root of n / (n - 1) times the right one, n = 6",
    np.sqrt(5 / 6): "it is the root of (n - 1) / n times the right one, n = 6",
    2.0: "it is twice the right one: a 1/2 is missing, or a term is added twice",
    0.5: "it is half the right one: a factor 2 is missing",
    0.37: "it is 0.37 times the right one",
    -2.5: "it is -2.5 times the right one",
    1.01: "it is 1.01 times the right one",
}


@pytest.mark.parametrize("factor", FACTORS)
def test_a_constant_factor_is_recognised(factor):
    assert guess(RIGHT, factor * RIGHT, of_inputs()) == FACTORS[factor]
    assert guess(RIGHT[0], factor * RIGHT[0], of_parameter(np.ones(4))) == FACTORS[factor]


OUTPUTS = "the number of pixels of the outputs"
IMAGE_FACTORS = {
    1 / 20: f"it is divided by {OUTPUTS}, 20: averaged where it must be summed",
    20.0: f"it is 20 times the right one, {OUTPUTS}: a 1/N is missing",
    1 / 60: f"it is divided by the batch size times {OUTPUTS}, 60: averaged where it must be summed",
    60.0: f"it is 60 times the right one, the batch size times {OUTPUTS}: a 1/N is missing",
    20 / 19: "it is n / (n - 1) times the right one, n = 20",
    60 / 59: "it is n / (n - 1) times the right one, n = 60",
    59 / 60: "it is (n - 1) / n times the right one, n = 60",
    np.sqrt(59 / 60): "it is the root of (n - 1) / n times the right one, n = 60",
}


@pytest.mark.parametrize("factor", IMAGE_FACTORS)
def test_factors_of_pixels_are_recognised_where_there_are_any(factor):
    assert guess(IMAGE, factor * IMAGE, of_images()) == IMAGE_FACTORS[factor]
    assert guess(RIGHT, 20.0 * RIGHT, of_inputs()) == "it is 20 times the right one"


def test_a_batch_of_one_is_no_factor():
    assert guess(RIGHT, -RIGHT, of_inputs(N=1)) == "the sign is wrong"
    assert "agrees" in guess(RIGHT, (1.0 + 1e-8) * RIGHT, of_inputs(N=1))


def test_the_probability_of_a_dropout_layer_is_recognised():
    context = of_inputs(layer=layers.DropoutLayer(np.random.RandomState(1), 0.6))
    assert guess(RIGHT, 0.6 * RIGHT, context) == "it is multiplied by the probability to stay once too often"
    assert guess(RIGHT, RIGHT / 0.6, context) == "it is divided by the probability to stay"


# Order.


def test_exchanged_axes_are_recognised():
    square = RNG.standard_normal((3, 3))
    assert guess(square, square.T, of_parameter(square)) == (
        "it is the right one transposed: axes 0 and 1 are exchanged"
    )
    kernels = RNG.standard_normal((2, 3, 4, 4))
    sentence = guess(kernels, kernels.swapaxes(2, 3), of_parameter(kernels))
    assert sentence == "it is the right one transposed: axes 2 and 3 are exchanged"


@pytest.mark.parametrize("axes", [(2,), (2, 3), (0, 1), (3,), (0, 1, 2, 3)])
def test_reversed_axes_are_recognised(axes):
    kernels = RNG.standard_normal((2, 3, 4, 5))
    sentence = guess(kernels, np.flip(kernels, axes), of_parameter(kernels + 3.0))
    assert sentence == f"it is the right one with axes {list(axes)} reversed"


# Places.


@pytest.mark.parametrize(("axis", "index"), [(2, 0), (2, 3), (3, 0), (3, 4)])
def test_a_lost_border_is_recognised(axis, index):
    got = IMAGE.copy()
    np.moveaxis(got, axis, 0)[index] = 0.0
    assert guess(IMAGE, got, of_images()) == f"only index {index} of axis {axis} is wrong: a border is lost"


def test_some_wrong_entries_are_counted():
    got = changed(RIGHT, (1, 1), (2, 3), (4, 1))
    assert guess(RIGHT, got, of_inputs()) == "3 of 24 entries are wrong"
    got = changed(RIGHT, (1, 1), (2, 3), to=0.0)
    assert guess(RIGHT, got, of_inputs()) == "2 of 24 entries are wrong, they are 0"


# Missing terms.


def test_the_way_past_is_recognised():
    upstream = RNG.standard_normal(RIGHT.shape)
    sentence = guess(RIGHT, RIGHT - upstream, of_inputs(upstream=upstream))
    assert sentence == "a term is missing: the difference is dE/d outputs itself, the way past F(x)"
    sentence = guess(RIGHT, RIGHT + upstream, of_inputs(upstream=upstream))
    assert sentence == "a term is there twice: the difference is dE/d outputs itself, the way past F(x)"


def test_the_way_through_a_mean_is_recognised():
    expected = "a term is missing or wrong: the difference is the same for all examples, the way through a mean"
    assert guess(RIGHT, RIGHT + 0.3, of_inputs()) == expected
    assert guess(RIGHT, RIGHT + np.array([0.3, -0.2, 0.1, 2.0]), of_inputs()) == expected
    assert guess(IMAGE, IMAGE - np.array([0.3, -0.2])[:, None, None], of_images()) == expected
    within = "a term is missing or wrong: the difference is constant within an example, the way through its mean"
    assert guess(RIGHT, RIGHT + RNG.standard_normal((6, 1)), of_inputs()) == within


def test_the_way_through_a_variance_is_recognised():
    expected = "a term is missing or wrong: the difference goes with the centred inputs, the way through a variance"
    centred = INPUTS - INPUTS.mean(axis=0)
    assert guess(RIGHT, RIGHT - 0.2 * centred, of_inputs()) == expected
    assert guess(RIGHT, RIGHT - np.array([0.3, -0.2, 0.1, 2.0]) * centred, of_inputs()) == expected
    alone = INPUTS - INPUTS.mean(axis=1, keepdims=True)
    within = (
        "a term is missing or wrong: the difference goes with the inputs centred within each example, "
        "the way through its variance"
    )
    assert guess(RIGHT, RIGHT - RNG.standard_normal((6, 1)) * alone, of_inputs()) == within


def test_the_way_through_a_sum_is_recognised():
    expected = "a term is missing or wrong: the difference goes with the outputs, the way through a sum"
    outputs, rows = RNG.uniform(0.1, 0.9, RIGHT.shape), RNG.standard_normal((6, 1))
    assert guess(RIGHT, RIGHT + rows * outputs, of_inputs(outputs=outputs)) == expected


def test_a_forgotten_penalty_is_recognised():
    weights = RNG.standard_normal((6, 4))
    assert guess(RIGHT, RIGHT - 0.3 * weights, of_parameter(weights)) == (
        "the gradient of an L2 penalty is missing: the difference goes with the parameter"
    )
    assert guess(RIGHT, RIGHT - 0.2 * np.sign(weights), of_parameter(weights)) == (
        "the gradient of an L1 penalty is missing: the difference goes with its sign"
    )


def test_a_penalty_that_is_there_twice_is_recognised():
    weights = RNG.standard_normal((6, 4))
    for kind, term in (("L2", weights), ("L1", np.sign(weights))):
        sentence = guess(RIGHT, RIGHT + 0.3 * term, of_parameter(weights))
        assert sentence.startswith(f"the gradient of an {kind} penalty is there once too often")


@pytest.mark.parametrize("axis", [0, 1])
def test_factors_of_their_own_are_recognised(axis):
    factors = np.expand_dims(RNG.uniform(1.5, 3.0, RIGHT.shape[axis]), 1 - axis)
    sentence = guess(RIGHT, factors * RIGHT, of_parameter(INPUTS))
    assert sentence == f"each index of axis {axis} has a wrong factor of its own"


def test_a_factor_with_two_explanations_is_given_both():
    sentence = guess(RIGHT, 2.0 * RIGHT, of_inputs(N=2))
    assert sentence.split("; or ") == [
        "it is 2 times the right one, the batch size: a 1/N is missing",
        "it is n / (n - 1) times the right one, n = 2",
        "it is twice the right one: a 1/2 is missing, or a term is added twice",
    ]


@pytest.mark.parametrize("shape", [(4,), (3,), (6, 4), (3, 2, 4, 5), (1, 5), (5, 1), (1, 1, 3, 3), (2, 2)])
def test_what_is_unrelated_is_called_so_whatever_the_shape(shape):
    right, got, array = RNG.standard_normal((3, *shape))
    upstream, outputs = RNG.standard_normal((2, *shape))
    context = {"array": array, "N": shape[0], "outputs": outputs, "upstream": upstream, "layer": None}
    for batch in (True, False):
        assert guess(right, got, context | {"batch": batch}) == "no simple relation between both"


# Where.


@pytest.mark.parametrize(("mode", "start"), [("both", "weights[1, 2]"), ("training", "in training mode weights[1, 2]")])
def test_a_diagnosis_is_one_line(mode, start):
    diagnosis = Diagnosis(mode, "weights", (1, 2), 0.5, -1.25, "the sign is wrong")
    assert diagnosis.text() == f"{start}: got 0.5, expected -1.25; the sign is wrong"


class Wrong(layers.TanhLayer):
    def __init__(self, change):
        self.change = change

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return self.change(super().bprop(inputs, outputs, grads_wrt_outputs))


class WrongAbs(layers.Layer):
    def __init__(self, *places):
        self.places = places

    def fprop(self, inputs):
        return np.abs(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return changed(grads_wrt_outputs * np.sign(inputs), *self.places)


def failure(layer, shape):
    with pytest.raises(GradientError) as caught:
        check_gradients(layer, shape, directions=10, conduct=False)
    return caught.value


@pytest.mark.parametrize("shape", [(5, 4), (60, 20), (200, 20), (20, 5, 6, 7)], ids=str)
def test_the_entry_that_is_most_wrong_is_named_in_small_arrays_and_a_wrong_one_in_large(shape):
    place = tuple(length // 2 for length in shape)
    error = failure(Wrong(lambda grads: changed(grads, place)), shape)
    assert error.index == place
    assert error.got == pytest.approx(error.expected + 1.0)
    worst, mild = place, (0,) * len(shape)
    error = failure(Wrong(lambda grads: changed(changed(grads, worst, worst), mild)), shape)
    assert error.index in ([worst] if np.prod(shape) <= 1500 else [worst, mild])
    assert error.got != pytest.approx(error.expected)


@pytest.mark.parametrize("shape", [(5, 4), (200, 20)], ids=str)
def test_the_entry_is_found_where_the_complex_step_cannot_be_used(shape):
    place = shape[0] // 3, 2
    error = failure(WrongAbs(place), shape)
    assert error.index == place
    assert error.got == pytest.approx(error.expected + 1.0)


@pytest.mark.parametrize("shape", [(5, 4), (200, 20), (10, 4, 6, 8)], ids=str)
def test_a_cause_is_guessed_for_large_arrays_too(shape):
    assert failure(Wrong(lambda grads: -grads), shape).cause == "the sign is wrong"
    assert failure(Wrong(np.zeros_like), shape).cause == "it is all zeros: the gradient is missing"
    n = shape[0]
    averaged = f"it is divided by the batch size, {n}: averaged where it must be summed"
    assert failure(Wrong(lambda grads: grads / n), shape).cause == averaged
    assert failure(Wrong(lambda grads: np.where(grads > 0, np.nan, grads)), shape).cause == (
        "it holds numbers that are not finite"
    )


def test_on_a_kink_no_slope_is_expected_that_cannot_be_right():
    class Relu(layers.ReluLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs * np.where(inputs == 0, 1.5, inputs > 0)

    with pytest.raises(GradientError) as caught:
        check_gradients(Relu(), np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.3]]))
    error = caught.value
    assert error.index in [(0, 0), (1, 1)]
    upstream = error.got / 1.5
    assert 0.0 <= error.expected / upstream <= 1.0


def test_the_methods_that_were_not_asked_for_have_no_say_in_the_diagnosis():
    class Relu(layers.ReluLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs * np.where(inputs == 0, 0.5, inputs > 0)

    inputs = np.array([[0.0, 1.0, -1.0], [2.0, 0.4, 0.3]])
    with pytest.raises(GradientError) as caught:
        check_gradients(Relu(), inputs, methods=("complex step",))
    assert caught.value.index == (0, 0)
    assert caught.value.got != caught.value.expected


def test_the_message_of_a_model_names_the_layer_of_the_parameter():
    chain = layers.ChainLayer([layers.AffineLayer(3, 4), layers.TanhLayer(), layers.AffineLayer(4, 2)])
    last = chain.layers[2]
    right = last.grads_wrt_params
    last.grads_wrt_params = lambda inputs, grads: [right(inputs, grads)[0].T.reshape(2, 4), right(inputs, grads)[1]]
    with pytest.raises(GradientError) as caught:
        check_gradients(chain, (5, 3))
    assert caught.value.array == "AffineLayer_2.weights"
    assert "AffineLayer_2.weights[" in str(caught.value).splitlines()[-1]
