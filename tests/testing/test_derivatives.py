"""Numerical derivatives: exact to rounding where f is smooth, bounds at kinks, and never a number that is made up."""

import numpy as np
import pytest

from mlp.testing import GradientError, check_gradients
from mlp.testing.derivatives import CENTRAL, COMPLEX, TOLERANCES, Probe, directions_of

BOTH = (COMPLEX, CENTRAL)
WEIGHTS = np.array([0.7, -1.3, 2.1, 0.4])


class Function:
    """The sum of weights times f(x), entry by entry, and its gradient with what `slope` says at x."""

    subject, mode = "f", "both"

    def __init__(self, f, slope, *x, offset=0.0):
        self.f, self.slope, self.offset = f, slope, offset
        self.names, self.owners, self.arrays = ["x"], ["x"], [np.array(x)]

    def value(self, arrays):
        return (WEIGHTS[: arrays[0].size] * self.f(arrays[0])).sum() + self.offset

    def gradients(self):
        x = self.arrays[0]
        return [WEIGHTS[: x.size] * self.slope(x)]


def derivatives(function, methods=BOTH):
    (gradient,) = function.gradients()
    directions, entries = directions_of(gradient.shape, 40, np.random.default_rng(0))
    return Probe(function, methods).derivatives(0, gradient, directions, entries)


def errors(function, methods=BOTH):
    found = derivatives(function, methods)
    return found.errors(found.scale, found.scale)


def relu(x):
    return x * (x.real > 0)


def absolute(x):
    return x * np.sign(x.real)


def step_at(value):
    """Return a slope that is `value` at 0, 0 below and 1 above."""
    return lambda x: np.where(x == 0, value, x > 0)


def steep(k):
    def sigmoid(x):
        return 0.5 * (1.0 + np.tanh(0.5 * k * x))

    return sigmoid, lambda x: k * sigmoid(x) * (1.0 - sigmoid(x))


# Smooth functions.


SMOOTH = {
    "sin": (np.sin, np.cos),
    "exp": (np.exp, np.exp),
    "tanh": (np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "cube": (lambda x: x**3, lambda x: 3.0 * x**2),
    "a constant": (lambda x: 0.0 * x + 3.0, lambda x: 0.0 * x),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_complex_step_is_exact_to_rounding_and_differences_to_1e8(name):
    f, slope = SMOOTH[name]
    function = Function(f, slope, 0.3, -0.9, 1.7, 0.0)
    found = derivatives(function)
    (right,) = function.gradients()
    np.testing.assert_allclose(found.by_step, right, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(found.by_difference, right, rtol=0.0, atol=1e-8)
    np.testing.assert_array_equal(found.low, found.high)
    assert not found.kinks.any()


def test_a_step_of_1e30_subtracts_nothing():
    probe, direction = Probe(Function(np.sin, np.cos, 0.7), BOTH), np.ones(1)
    right = WEIGHTS[0] * np.cos(0.7)
    for h in (1e-30, 1e-20, 1e-100):
        assert abs(probe.complex_step(0, direction, h) - right) < 1e-15
    central = abs(probe.slopes(0, direction, 1e-6).central - right)
    assert 1e-15 < central < 1e-9


def test_one_sided_slopes_differ_at_a_kink_and_their_mean_is_the_central_one():
    slopes = Probe(Function(absolute, np.sign, 0.0), BOTH).slopes(0, np.ones(1), 1e-6)
    np.testing.assert_allclose([slopes.left, slopes.right, slopes.central], [-0.7, 0.7, 0.0], rtol=1e-12)


def test_only_the_method_asked_for_is_used():
    function = Function(np.sin, np.cos, 0.3, -0.9)
    step, difference = derivatives(function, (COMPLEX,)), derivatives(function, (CENTRAL,))
    assert not np.isnan(step.by_step).any()
    assert np.isnan(step.by_difference).all()
    assert np.isnan(difference.by_step).all()
    assert not np.isnan(difference.by_difference).any()
    assert errors(function, (COMPLEX,))[1] is None
    assert errors(function, (CENTRAL,))[0] is None


def test_an_error_is_the_largest_wrong_derivative_in_its_unit():
    found = derivatives(Function(np.sin, lambda x: np.cos(x) + 0.01 * (x > 0), 0.3, -0.9, 0.5))
    step, difference = found.errors(2.0, 4.0)
    np.testing.assert_allclose([step, difference], [0.01 * 2.1 / 2.0, 0.01 * 2.1 / 4.0], rtol=1e-6)


def test_a_claim_that_is_no_number_gives_an_error_that_is_none():
    found = derivatives(Function(np.sin, lambda x: np.where(x > 0, np.nan, np.cos(x)), 0.3, -0.9))
    assert np.isnan(found.errors(1.0, 1.0)).all()


def test_differences_lost_in_a_large_value_raise_no_alarm():
    for offset in (1e6, 1e8, 1e12):
        function = Function(np.sin, np.cos, 0.3, -0.9, offset=offset)
        found, probe = derivatives(function), Probe(function, BOTH)
        assert probe.floor == pytest.approx(1e-3 * offset, rel=1e-4)
        step, difference = found.errors(found.scale, probe.floor)
        assert step < 1e-15
        assert difference < TOLERANCES[CENTRAL]


@pytest.mark.parametrize("k", [1e2, 1e3, 1e4, 1e5])
def test_a_steep_curve_is_no_kink(k):
    f, slope = steep(k)
    at = np.array([0.3, -1.2, 1.9, 0.0]) / k
    step, difference = errors(Function(f, slope, *at))
    assert step < 1e-14
    assert difference <= TOLERANCES[CENTRAL]
    assert not derivatives(Function(f, slope, *at)).kinks.any()
    wrong, _ = errors(Function(f, lambda x: 1.001 * slope(x), *at))
    assert wrong > 1e-4


@pytest.mark.parametrize("k", [1e2, 1e3])
def test_central_differences_alone_manage_curves_of_some_steepness(k):
    f, slope = steep(k)
    _, difference = errors(Function(f, slope, *(np.array([0.3, -1.2, 1.9, 0.0]) / k)), (CENTRAL,))
    assert difference < TOLERANCES[CENTRAL]


# Kinks.


@pytest.mark.parametrize("methods", [BOTH, (CENTRAL,)], ids=["both methods", "central differences"])
@pytest.mark.parametrize(
    ("f", "slope", "right"),
    [
        *((relu, step_at(value), 0.0 <= value <= 1.0) for value in (-0.5, 0.0, 0.5, 1.0, 1.5)),
        *(
            (absolute, lambda x, value=value: np.where(x == 0, value, np.sign(x)), abs(value) <= 1.0)
            for value in (-1.5, -1.0, -0.3, 0.0, 0.5, 1.0, 1.5)
        ),
    ],
    ids=[f"relu {v}" for v in (-0.5, 0.0, 0.5, 1.0, 1.5)]
    + [f"abs {v}" for v in (-1.5, -1.0, -0.3, 0.0, 0.5, 1.0, 1.5)],
)
def test_exactly_on_a_kink_every_slope_between_the_two_is_right_and_no_other(f, slope, right, methods):
    step, difference = errors(Function(f, slope, 0.0, 0.0, 1.0, -0.4), methods)
    assert step is None or step < 1e-15
    assert (difference < TOLERANCES[CENTRAL]) == right
    if not right:
        assert difference == pytest.approx(1.3 * 0.5 / 2.1, rel=1e-4)


def test_kinks_are_bounded_by_the_slopes_to_both_sides():
    found = derivatives(Function(relu, step_at(0.5), 0.0, 0.0, 1.0, -0.4))
    np.testing.assert_array_equal(found.kinks, [True, True, False, False])
    np.testing.assert_allclose(found.low, [0.0, -1.3, 2.1, 0.0], atol=1e-5)
    np.testing.assert_allclose(found.high, [0.7, 0.0, 2.1, 0.0], atol=1e-5)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("size", [1.0, 30.0], ids=["small numbers", "a large number beside it"])
def test_a_kink_at_any_distance_raises_no_false_alarm_and_hides_no_mistake(side, size):
    for distance in np.geomspace(1e-13, 1e-4, 55):
        point = side * distance, size, -0.4
        right = errors(Function(relu, step_at(0.0), *point))
        assert right[0] < 1e-15, distance
        assert right[1] is None or right[1] <= TOLERANCES[CENTRAL], distance
        for factor in (1.5, -0.5):
            step, difference = errors(Function(relu, lambda x, f=factor: np.where(abs(x) < 1e-3, f, x > 0), *point))
            wrong = (step > TOLERANCES[COMPLEX], difference is not None and difference > TOLERANCES[CENTRAL])
            assert any(wrong), distance


def test_central_differences_alone_see_a_kink_that_is_near():
    for distance in np.geomspace(1e-13, 1e-4, 55):
        _, difference = errors(Function(relu, step_at(0.0), distance, 1.0, -0.4), (CENTRAL,))
        assert difference <= TOLERANCES[CENTRAL], distance


@pytest.mark.parametrize("methods", [BOTH, (CENTRAL,)], ids=["both methods", "central differences"])
def test_a_kink_at_any_distance_is_no_false_alarm_where_the_complex_step_cannot_be_used(methods):
    for distance in np.geomspace(1e-13, 1e-4, 55):
        step, difference = errors(Function(np.abs, np.sign, distance, 1.0, -0.4), methods)
        assert step is None or step <= TOLERANCES[COMPLEX], distance
        assert difference <= TOLERANCES[CENTRAL], distance


# Functions that are not for complex numbers, or not defined everywhere.


def refuses(x):
    if x.dtype.kind == "c":
        raise ValueError("real numbers only")
    return x**2


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (np.abs, np.sign),
        (lambda x: np.abs(x) ** 3, lambda x: 3.0 * x * np.abs(x)),
        (lambda x: np.sin(x.real), np.cos),
        (lambda x: x.astype(float) ** 2, lambda x: 2.0 * x),
        (lambda x: np.array([float(value) ** 2 for value in x]), lambda x: 2.0 * x),
        (lambda x: np.floor(x) + x.real, np.ones_like),
        (refuses, lambda x: 2.0 * x),
        (lambda x: x * np.conj(x), lambda x: 2.0 * x),
    ],
    ids=["abs", "abs cubed", "real part", "cast", "float", "floor", "refusal", "conjugate"],
)
def test_where_the_complex_step_cannot_be_used_differences_decide(f, slope):
    point = 0.3, -0.9, 1.7, -2.2
    step, difference = errors(Function(f, slope, *point))
    assert step is None
    assert difference < 1e-8
    assert errors(Function(f, lambda x: 1.00001 * slope(x), *point))[1] > TOLERANCES[CENTRAL]


def test_a_method_that_cannot_be_used_is_nan_and_not_a_number_that_is_made_up():
    direction = np.ones(2)
    for f in (refuses, lambda x: x.astype(float) ** 2, np.floor):
        assert np.isnan(Probe(Function(f, np.ones_like, 0.3, -0.9), BOTH).complex_step(0, direction))


@pytest.mark.parametrize("distance", [1e-12, 1e-9, 1e-8, 1.5e-8, 5e-8, 1e-7, 3e-7, 1e-6, 2e-6, 1e-5, 1e-3])
def test_at_the_edge_of_the_domain_the_complex_step_decides(distance):
    for f, slope in ((np.log, lambda x: 1.0 / x), (np.sqrt, lambda x: 0.5 / np.sqrt(x))):
        step, difference = errors(Function(f, slope, distance, 0.6))
        assert step < 1e-15
        assert difference is None or difference <= TOLERANCES[CENTRAL]
        assert errors(Function(f, lambda x, s=slope: 1.001 * s(x), distance, 0.6))[0] > 1e-4


# Directions.


def taken(shape, count):
    directions, entries = directions_of(shape, count, np.random.default_rng(0))
    return np.array(list(directions)), entries


def test_a_small_array_is_taken_entry_by_entry_and_a_large_one_along_random_directions():
    for shape, count in (((2, 3), 6), ((2, 3), 40), ((1,), 1)):
        directions, entries = taken(shape, count)
        assert entries
        size = int(np.prod(shape))
        np.testing.assert_array_equal(directions.reshape(size, size), np.eye(size))
        assert directions.shape == (size, *shape)
    directions, entries = taken((2, 3), 5)
    assert not entries
    assert directions.shape == (5, 2, 3)
    assert np.linalg.matrix_rank(directions.reshape(5, 6)) == 5
    again, _ = taken((2, 3), 5)
    np.testing.assert_array_equal(directions, again)


def test_an_array_of_no_axes_has_one_direction():
    directions, entries = taken((), 40)
    assert entries
    np.testing.assert_array_equal(directions, [1.0])


def test_what_neither_method_can_take_is_said_and_not_called_right():
    class Refuses:
        def __call__(self, parameter):
            return refuses(parameter).sum()

        def grad(self, parameter):
            return 2.0 * parameter

    assert check_gradients(Refuses(), (4,)).right
    with pytest.raises(GradientError, match="cannot be taken by complex step") as caught:
        check_gradients(Refuses(), (4,), methods=(COMPLEX,))
    assert caught.value.array == "parameter"
