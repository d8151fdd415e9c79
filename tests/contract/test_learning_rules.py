"""Learning rules: each update, from its formula."""

import numpy as np
import pytest

from mlp import learning_rules

from .common import REQUIRED, check_signature

ADAM = {"learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
SIGNATURES = {
    "GradientDescentLearningRule": {"learning_rate": 1e-3},
    "MomentumLearningRule": {"learning_rate": 1e-3, "mom_coeff": 0.9},
    "NesterovMomentumLearningRule": {"learning_rate": 1e-3, "mom_coeff": 0.9},
    "AdamLearningRule": ADAM,
    "AdamLearningRuleWithWeightDecay": {**ADAM, "weight_decay": 0.00001},
    "AdaGradLearningRule": {"learning_rate": 1e-2, "epsilon": 1e-8},
    "RMSPropLearningRule": {"learning_rate": 1e-3, "beta": 0.9, "epsilon": 1e-8},
}
STATES = {
    "GradientDescentLearningRule": (),
    "MomentumLearningRule": ("moms",),
    "NesterovMomentumLearningRule": ("moms",),
    "AdamLearningRule": ("moms_1", "moms_2"),
    "AdamLearningRuleWithWeightDecay": ("moms_1", "moms_2"),
    "AdaGradLearningRule": ("sum_sq_grads",),
    "RMSPropLearningRule": ("moms_2",),
}
every_rule = pytest.mark.parametrize("name", SIGNATURES)
OTHERS = {
    "GradientDescentLearningRule": {"learning_rate": 0.3},
    "MomentumLearningRule": {"learning_rate": 0.3, "mom_coeff": 0.7},
    "NesterovMomentumLearningRule": {"learning_rate": 0.3, "mom_coeff": 0.7},
    "AdamLearningRule": {"learning_rate": 0.3, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-2},
    "AdamLearningRuleWithWeightDecay": {
        "learning_rate": 0.3,
        "beta_1": 0.8,
        "beta_2": 0.9,
        "epsilon": 1e-2,
        "weight_decay": 0.05,
    },
    "AdaGradLearningRule": {"learning_rate": 0.3, "epsilon": 1e-2},
    "RMSPropLearningRule": {"learning_rate": 0.3, "beta": 0.8, "epsilon": 1e-2},
}
SHAPES = [(4, 3), (5,), (2, 1, 3, 3)]


def follow(name, p, grads, rates, learning_rate, mom_coeff=0.9, beta_1=0.9, beta_2=0.999, beta=0.9, epsilon=1e-8,
           weight_decay=0.00001):  # fmt: skip
    """Return one number after the steps of a rule, and its state; `rates` are the learning rates of the steps."""
    m = m1 = m2 = s = 0.0
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        if name == "GradientDescentLearningRule":
            p = p - lr * g
        elif name == "MomentumLearningRule":
            m = mom_coeff * m - lr * g
            p = p + m
        elif name == "NesterovMomentumLearningRule":
            new = mom_coeff * m - lr * g
            p, m = p + (1 + mom_coeff) * new - mom_coeff * m, new
        elif name.startswith("AdamLearningRule"):
            old = p
            m1 = beta_1 * m1 + (1 - beta_1) * g
            m2 = beta_2 * m2 + (1 - beta_2) * g**2
            alpha = lr * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
            p = p - alpha * m1 / (m2**0.5 + epsilon)
            if name.endswith("WeightDecay"):
                p = p - lr / learning_rate * weight_decay * old
        elif name == "AdaGradLearningRule":
            s = s + g**2
            p = p - lr * g / (s + epsilon) ** 0.5
        elif name == "RMSPropLearningRule":
            m2 = beta * m2 + (1 - beta) * g**2
            p = p - lr * g / (m2 + epsilon) ** 0.5
    return p, {"moms": m, "moms_1": m1, "moms_2": m2, "sum_sq_grads": s}


def follow_all(name, params, grads, rates, **options):
    """Return arrays after the steps of a rule, and the arrays of its state."""
    new, state = [np.zeros(p.shape) for p in params], {key: [np.zeros(p.shape) for p in params] for key in STATES[name]}
    for i, param in enumerate(params):
        for place in np.ndindex(*param.shape):
            steps = [float(step[i][place]) for step in grads]
            new[i][place], numbers = follow(name, float(param[place]), steps, rates, **options)
            for key in state:
                state[key][i][place] = numbers[key]
    return new, state


def problem(shapes=SHAPES, steps=6):
    rng = np.random.RandomState(3)
    return [rng.normal(size=s) for s in shapes], [[rng.normal(size=s) for s in shapes] for _ in range(steps)]


def assert_all_close(ours, theirs, rtol=1e-11):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-14)


@every_rule
def test_signatures(name):
    kind = getattr(learning_rules, name)
    check_signature(kind, **SIGNATURES[name])
    check_signature(kind.initialise, params=REQUIRED)
    check_signature(kind.reset)
    check_signature(kind.update_params, grads_wrt_params=REQUIRED)
    rule = kind(**OTHERS[name])
    assert {key: getattr(rule, key) for key in OTHERS[name]} == OTHERS[name]
    assert [getattr(kind(*OTHERS[name].values()), key) for key in OTHERS[name]] == list(OTHERS[name].values())


@every_rule
@pytest.mark.parametrize("which", ["defaults", "others"])
def test_updates(name, which):
    options = {} if which == "defaults" else OTHERS[name]
    rule, (params, grads) = getattr(learning_rules, name)(**options), problem()
    expected, state = follow_all(name, params, grads, [rule.learning_rate] * 6, **(SIGNATURES[name] | options))
    arrays = list(params)
    rule.initialise(params)
    for step in grads:
        rule.update_params(grads_wrt_params=step)
    assert all(a is b for a, b in zip(rule.params, arrays, strict=True))
    assert_all_close(arrays, expected)
    for key in STATES[name]:
        assert_all_close(getattr(rule, key), state[key])
    if name.startswith("Adam"):
        assert rule.step_count == 6


@every_rule
def test_a_schedule_may_change_the_learning_rate(name):
    rule, (params, grads) = getattr(learning_rules, name)(**OTHERS[name]), problem()
    rates = [0.3, 0.2, 0.1, 0.3, 0.05, 0.01]
    expected, _ = follow_all(name, params, grads, rates, **OTHERS[name])
    rule.initialise(params)
    for rate, step in zip(rates, grads, strict=True):
        rule.learning_rate = rate
        rule.update_params(step)
    assert_all_close(params, expected)
    if name.endswith("WeightDecay"):
        assert rule.initial_learning_rate == 0.3


@every_rule
def test_reset_zeroes_the_state_in_place(name):
    rule, (params, grads) = getattr(learning_rules, name)(**OTHERS[name]), problem()
    rule.initialise(params)
    for step in grads:
        rule.update_params(step)
    kept = {key: list(getattr(rule, key)) for key in STATES[name]}
    before = [param.copy() for param in params]
    rule.reset()
    assert_all_close(params, before, rtol=0)
    for key, arrays in kept.items():
        for now, then in zip(getattr(rule, key), arrays, strict=True):
            np.testing.assert_array_equal(now, np.zeros(now.shape))
            np.testing.assert_array_equal(then, np.zeros(then.shape))
    if name.startswith("Adam"):
        assert rule.step_count == 0
    expected, _ = follow_all(name, params, grads, [0.3] * 6, **OTHERS[name])
    for step in grads:
        rule.update_params(step)
    assert_all_close(params, expected)


@every_rule
def test_one_array_is_iterated_along_its_first_axis_and_changed_in_place(name):
    rng = np.random.RandomState(0)
    params, grads = rng.normal(size=(20, 50)), rng.normal(size=(3, 20, 50))
    expected, _ = follow_all(name, [params], [[step] for step in grads], [0.3] * 3, **OTHERS[name])
    rule = getattr(learning_rules, name)(**OTHERS[name])
    rule.initialise(params)
    for step in grads:
        rule.update_params(step)
    np.testing.assert_allclose(params, expected[0], rtol=1e-11, atol=1e-14)


@every_rule
@pytest.mark.parametrize("learning_rate", [0.0, -0.1])
def test_a_positive_learning_rate_is_asserted(name, learning_rate):
    with pytest.raises(AssertionError, match="learning_rate"):
        getattr(learning_rules, name)(learning_rate)


@pytest.mark.parametrize("name", ["MomentumLearningRule", "NesterovMomentumLearningRule"])
def test_the_momentum_coefficient_is_asserted(name):
    for wrong in (-0.1, 1.1):
        with pytest.raises(AssertionError, match="mom_coeff"):
            getattr(learning_rules, name)(0.1, wrong)
    assert getattr(learning_rules, name)(0.1, 0.0).mom_coeff == 0.0
    assert getattr(learning_rules, name)(0.1, 1.0).mom_coeff == 1.0
