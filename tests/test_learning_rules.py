import numpy as np
import pytest

from mlp import learning_rules as rules
from mlp.checks import DTypeError, ShapeError

GRADS = [np.random.default_rng(i).standard_normal((3, 2)) for i in range(4)]


def run(rule, steps=GRADS):
    param = np.full((3, 2), 0.5)
    rule.initialise([param])
    for grad in steps:
        rule.update_params([grad])
    return param


def expected(update, steps=GRADS):
    """Run update(p, g, t, state) -> p over the steps."""
    param, state = np.full((3, 2), 0.5), {}
    for t, grad in enumerate(steps, start=1):
        param = update(param, grad, t, state)
    return param


def momentum(p, g, t, s):
    s["m"] = 0.9 * s.get("m", 0.0) - 0.1 * g
    return p + s["m"]


def nesterov(p, g, t, s):
    old = s.get("m", np.zeros_like(p))
    s["m"] = 0.9 * old - 0.1 * g
    return p + 1.9 * s["m"] - 0.9 * old


def moments(g, t, s):
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    return s["m"], s["v"]


def adam(p, g, t, s):
    m, v = moments(g, t, s)
    return p - 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-2)


def kingma(p, g, t, s):
    m, v = moments(g, t, s)
    return p - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-2)


def adamw(p, g, t, s):
    return adam(p, g, t, s) - 0.01 * p


def adagrad(p, g, t, s):
    s["s"] = s.get("s", 0.0) + g**2
    return p - 0.1 * g / np.sqrt(s["s"] + 1e-2)


def rmsprop(p, g, t, s):
    s["s"] = 0.9 * s.get("s", 0.0) + 0.1 * g**2
    return p - 0.1 * g / np.sqrt(s["s"] + 1e-2)


CASES = [
    (rules.GradientDescentLearningRule(0.1), lambda p, g, t, s: p - 0.1 * g),
    (rules.MomentumLearningRule(0.1, 0.9), momentum),
    (rules.NesterovMomentumLearningRule(0.1, 0.9), nesterov),
    (rules.AdamLearningRule(0.1, epsilon=1e-2), adam),
    (rules.KingmaAdamLearningRule(0.1, epsilon=1e-2), kingma),
    (rules.AdamLearningRuleWithWeightDecay(0.1, epsilon=1e-2, weight_decay=0.01), adamw),
    (rules.AdaGradLearningRule(0.1, epsilon=1e-2), adagrad),
    (rules.RMSPropLearningRule(0.1, 0.9, epsilon=1e-2), rmsprop),
]
every_rule = pytest.mark.parametrize(("rule", "update"), CASES, ids=[type(rule).__name__ for rule, _ in CASES])


@every_rule
def test_steps_follow_the_formula(rule, update):
    np.testing.assert_allclose(run(rule), expected(update), rtol=1e-12)


@every_rule
def test_parameters_change_in_place_and_gradients_do_not(rule, update):
    param, grad = np.ones((3, 2)), GRADS[0].copy()
    rule.initialise([param])
    rule.update_params([grad])
    assert rule.params[0] is param
    assert (param != 1.0).all()
    np.testing.assert_array_equal(grad, GRADS[0])


@every_rule
def test_reset_starts_anew_in_place(rule, update):
    first = run(rule)
    states = [array for name in rule.state_names for array in getattr(rule, name)]
    rule.reset()
    assert rule.step_count == 0
    assert all((array == 0).all() for array in states)
    after = [array for name in rule.state_names for array in getattr(rule, name)]
    assert all(one is other for one, other in zip(after, states, strict=True))
    np.testing.assert_array_equal(run(rule), first)


@every_rule
def test_float32_stays_float32(rule, update):
    param = np.ones(3, np.float32)
    rule.initialise([param])
    rule.update_params([np.ones(3, np.float32)])
    assert {param.dtype, *(array.dtype for name in rule.state_names for array in getattr(rule, name))} == {
        np.dtype(np.float32)
    }


@every_rule
def test_one_array_counts_as_its_rows(rule, update):
    params = np.full((4, 3, 2), 0.5)
    rule.initialise(params)
    rule.update_params(np.stack(GRADS))
    assert len(rule.params) == 4
    assert (params != 0.5).all()


@every_rule
def test_gradients_that_do_not_fit_are_refused_before_anything_changes(rule, update):
    param, other = np.ones((3, 2)), np.ones(4)
    rule.initialise([param, other])
    with pytest.raises(ShapeError, match="1 gradients for 2 parameters"):
        rule.update_params([GRADS[0]])
    with pytest.raises(ShapeError, match="gradient 1 has shape"):
        rule.update_params([GRADS[0], np.ones(3)])
    np.testing.assert_array_equal(param, np.ones((3, 2)))


def test_one_array_of_numbers_is_updated_too():
    params = np.ones(3)
    rule = rules.AdamLearningRule(0.1)
    rule.initialise(params)
    rule.update_params(np.array([1.0, -1.0, 2.0]))
    np.testing.assert_allclose(params, [0.9, 1.1, 0.9], rtol=1e-6)


def test_parameters_that_cannot_follow_are_refused():
    with pytest.raises(DTypeError, match="parameter 1 has dtype int64, not float"):
        rules.GradientDescentLearningRule().initialise([np.ones(2), np.arange(3)])


def test_use_before_initialise_is_refused():
    with pytest.raises(ShapeError, match="call initialise"):
        rules.AdamLearningRule().update_params(GRADS)


def test_decay_follows_the_schedule():
    rule = rules.AdamLearningRuleWithWeightDecay(0.1, weight_decay=0.01)
    param = np.ones(2)
    rule.initialise([param])
    rule.learning_rate = 0.05
    rule.update_params([np.zeros(2)])
    np.testing.assert_allclose(param, 1 - 0.5 * 0.01)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: rules.GradientDescentLearningRule(0.0), "learning_rate is 0.0"),
        (lambda: rules.GradientDescentLearningRule("fast"), "expected a number"),
        (lambda: rules.MomentumLearningRule(mom_coeff=1.5), "mom_coeff is 1.5"),
        (lambda: rules.AdamLearningRule(beta_1=1.0), "beta_1 is 1.0"),
        (lambda: rules.AdamLearningRule(epsilon=0.0), "epsilon is 0.0"),
        (lambda: rules.AdamLearningRuleWithWeightDecay(weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: rules.RMSPropLearningRule(beta=1.0), "beta is 1.0"),
    ],
)
def test_bad_hyper_parameters_are_refused(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
