"""Errors, initialisers, penalties and schedulers."""

import math

import numpy as np
import pytest

from mlp import errors, initialisers, learning_rules, penalties, schedulers

from .common import REQUIRED, check_signature, numeric_grad, same_state, softmax

# --- errors

RNG = np.random.RandomState(2)
SHAPE = (5, 4)
REALS = RNG.normal(size=SHAPE) * 2
SHARES = RNG.uniform(0.05, 0.95, SHAPE)
ROWS = softmax(REALS)
TARGETS = RNG.normal(size=SHAPE)
YES_NO = RNG.randint(0, 2, SHAPE).astype(float)
ONE_HOT = np.eye(4)[[1, 0, 3, 3, 2]]
SOFT = softmax(RNG.normal(size=SHAPE))


def sigmoid(y):
    return 1 / (1 + np.exp(-y))


def half_squares(y, t):
    return 0.5 * sum(sum((a - b) ** 2 for a, b in zip(r, s, strict=True)) for r, s in zip(y, t, strict=True)) / len(y)


def binary(y, t):
    return -np.mean([b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(y.ravel(), t.ravel(), strict=True)])


def cross_entropy(y, t):
    return -sum(b * math.log(a) for r, s in zip(y, t, strict=True) for a, b in zip(r, s, strict=True)) / len(y)


ERRORS = {
    "SumOfSquaredDiffsError": ("MeanSquaredErrorCost", REALS, TARGETS, half_squares, lambda y, t: (y - t) / 5),
    "BinaryCrossEntropyError": (
        "BinaryCrossEntropyError",
        SHARES,
        YES_NO,
        binary,
        lambda y, t: ((1 - t) / (1 - y) - t / y) / 5,
    ),
    "BinaryCrossEntropySigmoidError": (
        "BinaryCrossEntropySigmoidError",
        REALS,
        YES_NO,
        lambda y, t: binary(sigmoid(y), t),
        lambda y, t: (sigmoid(y) - t) / 5,
    ),
    "CrossEntropyError": ("CrossEntropyError", ROWS, ONE_HOT, cross_entropy, lambda y, t: -(t / y) / 5),
    "CrossEntropySoftmaxError": (
        "CrossEntropySoftmaxError",
        REALS,
        ONE_HOT,
        lambda y, t: cross_entropy(softmax(y), t),
        lambda y, t: (softmax(y) - t) / 5,
    ),
}
every_error = pytest.mark.parametrize("name", ERRORS)


@every_error
def test_values_and_gradients(name):
    text, outputs, targets, value, grad = ERRORS[name]
    error = getattr(errors, name)()
    assert repr(error) == text
    assert np.ndim(error(outputs, targets)) == 0
    assert error(outputs, targets) == pytest.approx(value(outputs, targets), rel=1e-12)
    found = error.grad(outputs=outputs, targets=targets)
    assert found.shape == SHAPE
    np.testing.assert_allclose(found, grad(outputs, targets), rtol=1e-11, atol=1e-15)
    check_signature(error.__call__, outputs=REQUIRED, targets=REQUIRED)
    check_signature(error.grad, outputs=REQUIRED, targets=REQUIRED)


@every_error
def test_gradients_of_values(name):
    """Only the two binary errors are K times off: their value is a mean over all elements, the gradient is over N."""
    _, outputs, targets, value, _ = ERRORS[name]
    expected = numeric_grad(lambda y: value(y, targets), outputs) * (4 if name.startswith("Binary") else 1)
    np.testing.assert_allclose(getattr(errors, name)().grad(outputs, targets), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["SumOfSquaredDiffsError", "CrossEntropyError", "CrossEntropySoftmaxError"])
def test_soft_targets(name):
    _, outputs, _, value, grad = ERRORS[name]
    error = getattr(errors, name)()
    assert error(outputs, SOFT) == pytest.approx(value(outputs, SOFT), rel=1e-12)
    np.testing.assert_allclose(error.grad(outputs, SOFT), grad(outputs, SOFT), rtol=1e-11, atol=1e-15)


def test_the_softmax_error_is_stable():
    error, outputs = errors.CrossEntropySoftmaxError(), np.array([[1000.0, 0.0], [0.0, -1000.0]])
    assert error(outputs, np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(500.0)
    np.testing.assert_allclose(error.grad(outputs, np.eye(2)), [[0.0, 0.0], [0.5, -0.5]])


# --- initialisers

INITIALISERS = {
    "UniformInit": ((-2.0, 3.0), lambda rng, shape: rng.uniform(-2.0, 3.0, shape)),
    "NormalInit": ((1.0, 0.5), lambda rng, shape: rng.normal(1.0, 0.5, shape)),
    "GlorotUniformInit": (
        (1.5,),
        lambda rng, shape: rng.uniform(-1.5 * math.sqrt(6 / sum(shape)), 1.5 * math.sqrt(6 / sum(shape)), shape),
    ),
    "GlorotNormalInit": ((1.5,), lambda rng, shape: rng.normal(0.0, 1.5 * math.sqrt(2 / sum(shape)), shape)),
}
every_initialiser = pytest.mark.parametrize("name", INITIALISERS)


def test_signatures_of_initialisers():
    check_signature(initialisers.ConstantInit, value=REQUIRED)
    check_signature(initialisers.UniformInit, low=REQUIRED, high=REQUIRED, rng=None)
    check_signature(initialisers.NormalInit, mean=REQUIRED, std=REQUIRED, rng=None)
    check_signature(initialisers.GlorotUniformInit, gain=1.0, rng=None)
    check_signature(initialisers.GlorotNormalInit, gain=1.0, rng=None)
    for name in ("ConstantInit", *INITIALISERS):
        check_signature(getattr(initialisers, name).__call__, shape=REQUIRED)


@every_initialiser
def test_an_array_is_one_draw(name):
    arguments, draw = INITIALISERS[name]
    ours, theirs = np.random.RandomState(4), np.random.RandomState(4)
    init = getattr(initialisers, name)(*arguments, ours)
    for shape in ((3, 5), (2, 2)):
        array = init(shape)
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, draw(theirs, shape), rtol=1e-14)
        assert same_state(ours, theirs)
    assert init.rng is ours


@every_initialiser
def test_the_default_stream_is_a_fresh_one(name):
    arguments, draw = INITIALISERS[name]
    for _ in range(2):
        array = getattr(initialisers, name)(*arguments)((3, 5))
        np.testing.assert_allclose(array, draw(np.random.RandomState(123456), (3, 5)), rtol=1e-14)


@pytest.mark.parametrize("shape", [4, (4,), (2, 3, 2, 2)])
def test_shapes_of_any_kind(shape):
    np.testing.assert_array_equal(initialisers.ConstantInit(2)(shape), np.full(shape, 2.0))
    assert initialisers.ConstantInit(2)(shape).dtype == np.float64
    expected = np.random.RandomState(1).uniform(-1, 1, shape)
    np.testing.assert_array_equal(initialisers.UniformInit(-1, 1, np.random.RandomState(1))(shape), expected)
    expected = np.random.RandomState(1).normal(0, 2, shape)
    np.testing.assert_array_equal(initialisers.NormalInit(0, 2, rng=np.random.RandomState(1))(shape), expected)


@pytest.mark.parametrize("name", ["GlorotUniformInit", "GlorotNormalInit"])
def test_glorot_takes_its_arguments_by_name_too_and_asserts_a_matrix(name):
    by_name = getattr(initialisers, name)(rng=np.random.RandomState(4), gain=1.5)
    np.testing.assert_allclose(by_name((3, 5)), INITIALISERS[name][1](np.random.RandomState(4), (3, 5)), rtol=1e-14)
    for shape in ((3,), (2, 3, 2, 2)):
        with pytest.raises(AssertionError, match="shape"):
            by_name(shape)


# --- penalties


@pytest.mark.parametrize(
    ("name", "value", "grad"),
    [
        ("L1Penalty", lambda w: sum(abs(v) for v in w), lambda v: math.copysign(1.0, v)),
        ("L2Penalty", lambda w: 0.5 * sum(v * v for v in w), lambda v: v),
    ],
)
def test_penalties(name, value, grad):
    kind = getattr(penalties, name)
    check_signature(kind, coefficient=REQUIRED)
    check_signature(kind.__call__, parameter=REQUIRED)
    check_signature(kind.grad, parameter=REQUIRED)
    penalty = kind(0.3)
    assert penalty.coefficient == 0.3
    assert penalty(parameter=REALS) == pytest.approx(0.3 * value(REALS.ravel()), rel=1e-13)
    expected = np.array([0.3 * grad(v) for v in REALS.ravel()]).reshape(SHAPE)
    np.testing.assert_allclose(penalty.grad(parameter=REALS), expected, rtol=1e-15)
    assert {penalty: 1, None: 2}[penalty] == 1
    for coefficient in (0.0, -1.0):
        with pytest.raises(AssertionError, match="coefficient"):
            kind(coefficient)


@pytest.mark.parametrize("name", ["L1Penalty", "L2Penalty"])
@pytest.mark.parametrize("coefficient", [1e-5, 0.5, 1])
def test_reprs_of_penalties(name, coefficient):
    assert repr(getattr(penalties, name)(coefficient)) == f"{name}({coefficient})"


def test_the_l1_penalty_has_no_slope_at_zero():
    np.testing.assert_array_equal(penalties.L1Penalty(2.0).grad(np.array([0.0, -1.0, 3.0])), [0.0, -2.0, 2.0])


def test_the_module_of_penalties_has_a_seed_and_a_stream():
    assert penalties.seed == 22102017
    assert isinstance(penalties.rng, np.random.RandomState)


# --- schedulers


def test_signatures_of_schedulers():
    check_signature(schedulers.ConstantLearningRateScheduler, learning_rate=REQUIRED)
    check_signature(
        schedulers.CosineAnnealingWithWarmRestarts,
        min_learning_rate=REQUIRED,
        max_learning_rate=REQUIRED,
        total_iters_per_period=REQUIRED,
        max_learning_rate_discount_factor=REQUIRED,
        period_iteration_expansion_factor=REQUIRED,
    )
    for name in ("ExponentialLearningRateScheduler", "ReciprocalLearningRateScheduler"):
        check_signature(getattr(schedulers, name), init_learning_rate=REQUIRED, decay_param=REQUIRED)
    momentum = schedulers.ReciprocalMomentumCoefficientScheduler
    check_signature(momentum, max_mom_coeff=0.99, growth_param=3.0, epoch_offset=5.0)
    for kind in (momentum, schedulers.ConstantLearningRateScheduler, schedulers.CosineAnnealingWithWarmRestarts):
        check_signature(kind.update_learning_rule, learning_rule=REQUIRED, epoch_number=REQUIRED)


@pytest.mark.parametrize(
    ("scheduler", "rate"),
    [
        (lambda: schedulers.ConstantLearningRateScheduler(0.2), lambda epoch: 0.2),
        (lambda: schedulers.ExponentialLearningRateScheduler(0.2, 7.0), lambda epoch: 0.2 * math.exp(-epoch / 7)),
        (lambda: schedulers.ReciprocalLearningRateScheduler(0.2, 7.0), lambda epoch: 0.2 / (1 + epoch / 7)),
    ],
)
def test_learning_rates_of_epochs(scheduler, rate):
    built, rule = scheduler(), learning_rules.GradientDescentLearningRule(1.0)
    for epoch in (0, 1, 2, 30, 5):
        built.update_learning_rule(rule, epoch)
        assert rule.learning_rate == pytest.approx(rate(epoch), rel=1e-14)


def test_momentum_coefficients_of_epochs():
    rule = learning_rules.MomentumLearningRule(0.1)
    for epoch in (0, 1, 2, 30, 5):
        schedulers.ReciprocalMomentumCoefficientScheduler().update_learning_rule(rule, epoch)
        assert rule.mom_coeff == pytest.approx(0.99 * (1 - 3 / (epoch + 5)), rel=1e-14)
        schedulers.ReciprocalMomentumCoefficientScheduler(0.8, 2.0, 4.0).update_learning_rule(rule, epoch)
        assert rule.mom_coeff == pytest.approx(0.8 * (1 - 2 / (epoch + 4)), rel=1e-14)


@pytest.mark.parametrize("arguments", [(-0.1,), (1.1,), (0.9, -1.0), (0.9, 6.0, 5.0), (0.9, 0.5, 0.5)])
def test_the_momentum_scheduler_asserts_its_arguments(arguments):
    with pytest.raises(AssertionError, match=r"max_mom_coeff|growth_param|epoch_offset"):
        schedulers.ReciprocalMomentumCoefficientScheduler(*arguments)


@pytest.mark.parametrize(("period", "discount", "expansion"), [(30, 0.9, 1.5), (100, 0.5, 2.0), (7, 1.0, 1.0)])
def test_cosine_annealing_with_warm_restarts(period, discount, expansion):
    scheduler = schedulers.CosineAnnealingWithWarmRestarts(0.001, 0.1, period, discount, expansion)
    assert scheduler.total_epochs_per_period == period
    rule, expected = learning_rules.AdamLearningRuleWithWeightDecay(0.1), []
    since, length, restarts = 0.0, float(period), 0
    for _ in range(2001):
        if since >= length:
            since, length, restarts = since - length, length * expansion, restarts + 1
        high = 0.1 * discount**restarts
        expected.append(0.001 + 0.5 * (high - 0.001) * (1 + math.cos(math.pi * since / length)))
        since += 1
    for epoch in (*range(1000), 2000, 3, *range(1000, 2000)):
        returned = scheduler.update_learning_rule(rule, epoch)
        assert returned == rule.learning_rate
        assert returned == pytest.approx(expected[epoch], rel=1e-9)
