import sys

import numpy as np
import pytest

from mlp import learning_rules as rules
from mlp.backend import to_device
from mlp.checks import DTypeError, ShapeError

from .strict_cupy import StrictCupy

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


DECAYED = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "bias_correction": True}


@pytest.mark.parametrize(
    ("kind", "expected", "states"),
    [
        (rules.GradientDescentLearningRule, {"learning_rate": 1e-3}, ()),
        (rules.MomentumLearningRule, {"learning_rate": 1e-3, "mom_coeff": 0.9}, ("moms",)),
        (rules.NesterovMomentumLearningRule, {"learning_rate": 1e-3, "mom_coeff": 0.9}, ("moms",)),
        (rules.AdamLearningRule, {"learning_rate": 1e-3, **DECAYED}, ("moms_1", "moms_2")),
        (rules.KingmaAdamLearningRule, {"learning_rate": 1e-3, **DECAYED}, ("moms_1", "moms_2")),
        (
            rules.AdamLearningRuleWithWeightDecay,
            {"learning_rate": 1e-3, "initial_learning_rate": 1e-3, "weight_decay": 1e-5, **DECAYED},
            ("moms_1", "moms_2"),
        ),
        (
            rules.AdaGradLearningRule,
            {"learning_rate": 1e-2, "epsilon": 1e-8, "epsilon_inside_root": True},
            ("sum_sq_grads",),
        ),
        (
            rules.RMSPropLearningRule,
            {"learning_rate": 1e-3, "beta": 0.9, "epsilon": 1e-8, "epsilon_inside_root": True},
            ("moms_2",),
        ),
    ],
)
def test_what_is_not_given_has_its_default(kind, expected, states):
    rule = kind()
    assert {name: getattr(rule, name) for name in expected} == expected
    assert (rule.state_names, rule.step_count, rule.params) == (states, 0, [])
    assert repr(rule) == f"{kind.__name__}(learning_rate={expected['learning_rate']})"
    assert repr(kind(0.5)) == f"{kind.__name__}(learning_rate=0.5)"
    param = np.ones(2)
    rule.initialise([param])
    assert rule.params[0] is param
    assert [getattr(rule, name)[0].tolist() for name in states] == [[0.0, 0.0]] * len(states)


@pytest.mark.parametrize("kind", [rules.AdamLearningRule, rules.KingmaAdamLearningRule])
def test_without_bias_correction_adams_first_steps_are_larger(kind):
    p = run(kind(0.1, epsilon=1e-2, bias_correction=False))
    np.testing.assert_allclose(p, expected(uncorrected), rtol=1e-12)


def uncorrected(p, g, t, s):
    m, v = moments(g, t, s)
    return p - 0.1 * m / (np.sqrt(v) + 1e-2)


def test_options_of_adam_reach_its_form_with_weight_decay():
    rule = rules.AdamLearningRuleWithWeightDecay(0.1, 0.5, 0.6, 0.7, 0.8, bias_correction=False)
    assert (rule.beta_1, rule.beta_2, rule.epsilon, rule.weight_decay) == (0.5, 0.6, 0.7, 0.8)
    p = run(rules.AdamLearningRuleWithWeightDecay(0.1, epsilon=1e-2, weight_decay=0.01, bias_correction=False))
    np.testing.assert_allclose(p, expected(lambda p, g, t, s: uncorrected(p, g, t, s) - 0.01 * p), rtol=1e-12)


def test_without_momentum_a_beta_of_zero_is_no_special_case():
    p = run(rules.AdamLearningRule(0.1, 0.0, 0.0, 1e-2))
    np.testing.assert_allclose(p, expected(lambda p, g, t, s: p - 0.1 * g / (np.abs(g) + 1e-2)), rtol=1e-12)


def test_epsilon_may_stand_outside_the_root():
    ada = run(rules.AdaGradLearningRule(0.1, epsilon=1e-2, epsilon_inside_root=False))
    np.testing.assert_allclose(ada, expected(adagrad_outside), rtol=1e-12)
    rms = run(rules.RMSPropLearningRule(0.1, 0.9, epsilon=1e-2, epsilon_inside_root=False))
    np.testing.assert_allclose(rms, expected(rmsprop_outside), rtol=1e-12)


def adagrad_outside(p, g, t, s):
    s["s"] = s.get("s", 0.0) + g**2
    return p - 0.1 * g / (np.sqrt(s["s"]) + 1e-2)


def rmsprop_outside(p, g, t, s):
    s["s"] = 0.9 * s.get("s", 0.0) + 0.1 * g**2
    return p - 0.1 * g / (np.sqrt(s["s"]) + 1e-2)


KINDS = [type(rule) for rule, _ in CASES]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_refused_with_a_sentence(kind, monkeypatch):
    def refuses(call, message):
        with pytest.raises((ShapeError, DTypeError, ValueError)) as caught:
            call()
        assert str(caught.value) == f"{kind.__name__}{message}"

    rule, params = kind(), [np.ones(2), np.ones((3, 2))]
    refuses(
        lambda: rule.update_params([np.ones(2)]),
        ".update_params: 1 gradients for 0 parameters; call initialise(params) first",
    )
    refuses(
        lambda: kind().initialise([np.ones(2), [1.0]]),
        ".initialise: parameter 1 is a list, expected a NumPy or CuPy array: use np.asarray(...)",
    )
    refuses(
        lambda: kind().initialise([np.ones(2), np.arange(3)]), ".initialise: parameter 1 has dtype int64, not float"
    )
    rule.initialise(params)
    refuses(lambda: rule.update_params(params[:1]), ".update_params: 1 gradients for 2 parameters")
    refuses(
        lambda: rule.update_params([np.ones(2), np.ones((3, 1))]),
        ".update_params: gradient 1 has shape (3, 1), expected (3, 2): axis 1 is 1, not 2",
    )
    refuses(
        lambda: rule.update_params([[1.0, 1.0], np.ones((3, 2))]),
        ".update_params: gradient 0 is a list, expected a NumPy or CuPy array: use np.asarray(...)",
    )
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    refuses(
        lambda: rule.update_params([np.ones(2), to_device(np.ones((3, 2)), "gpu")]),
        ".update_params: gradient 1 lies on the gpu, the parameters lie on the cpu: "
        "move one with mlp.backend.to_device",
    )
    assert (rule.step_count, params[0].tolist()) == (0, [1.0, 1.0])
    rule.check_owns(params)
    other = (
        " was initialised with other parameters than the model's (a copy's, by astype or to_device?): call "
        "initialise(model.params)"
    )
    for given in (params[:1], [params[0], params[1].copy()], [*params, params[0]], params[::-1]):
        refuses(lambda given=given: rule.check_owns(given), other)


LEARNING_RATE = "learning_rate is {}, expected a finite number in (0.0, inf]"
INSIDE = "epsilon_inside_root is None (NoneType), expected True or False"
EPSILON = "epsilon is 0.0, expected a finite number in (0.0, inf]"
adams = (rules.AdamLearningRule, rules.KingmaAdamLearningRule, rules.AdamLearningRuleWithWeightDecay)
momentums = (rules.MomentumLearningRule, rules.NesterovMomentumLearningRule)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        *((kind, {"learning_rate": 0.0}, LEARNING_RATE.format("0.0")) for kind in KINDS),
        *((kind, {"learning_rate": -1}, LEARNING_RATE.format("-1")) for kind in KINDS),
        *((kind, {"learning_rate": "fast"}, "learning_rate is 'fast' (str), expected a number") for kind in KINDS),
        *((kind, {"mom_coeff": 1.5}, "mom_coeff is 1.5, expected a finite number in [0.0, 1.0]") for kind in momentums),
        *((kind, {"mom_coeff": -1}, "mom_coeff is -1, expected a finite number in [0.0, 1.0]") for kind in momentums),
        *((kind, {"beta_1": 1.0}, "beta_1 is 1.0, expected a finite number in [0.0, 1.0)") for kind in adams),
        *((kind, {"beta_2": 1.0}, "beta_2 is 1.0, expected a finite number in [0.0, 1.0)") for kind in adams),
        *((kind, {"beta_2": -0.1}, "beta_2 is -0.1, expected a finite number in [0.0, 1.0)") for kind in adams),
        *((kind, {"bias_correction": 1}, "bias_correction is 1 (int), expected True or False") for kind in adams),
        *(
            (kind, {"epsilon_inside_root": None}, INSIDE)
            for kind in (rules.AdaGradLearningRule, rules.RMSPropLearningRule)
        ),
        *((kind, {"epsilon": 0.0}, EPSILON) for kind in (*adams, rules.AdaGradLearningRule, rules.RMSPropLearningRule)),
        (
            rules.AdamLearningRuleWithWeightDecay,
            {"weight_decay": -1.0},
            "weight_decay is -1.0, expected a finite number in [0.0, inf]",
        ),
        (rules.RMSPropLearningRule, {"beta": 1.0}, "beta is 1.0, expected a finite number in [0.0, 1.0)"),
        (rules.RMSPropLearningRule, {"beta": -1.0}, "beta is -1.0, expected a finite number in [0.0, 1.0)"),
    ],
)
def test_bad_hyper_parameters_are_refused(kind, arguments, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        kind(**arguments)
    assert str(caught.value) == f"{kind.__name__}: {message}"


def test_the_ends_of_the_allowed_are_allowed():
    for mom_coeff in (0.0, 1.0):
        assert rules.MomentumLearningRule(mom_coeff=mom_coeff).mom_coeff == mom_coeff
    assert rules.AdamLearningRule(beta_1=0.0, beta_2=0.0).beta_1 == 0.0
    assert rules.AdamLearningRuleWithWeightDecay(weight_decay=0.0).weight_decay == 0.0
    assert rules.RMSPropLearningRule(beta=0.0).beta == 0.0
    assert rules.GradientDescentLearningRule(2.0).learning_rate == 2.0
