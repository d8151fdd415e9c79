"""Every learning rule follows its formula, and every wrong one is found."""

import inspect
import re

import numpy as np
import pytest

from mlp import learning_rules as rules
from mlp.testing import GradientError, check_learning_rule
from tests.testing import formulas, rule_mistakes

SEEDS = range(12)


def _log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _rate(rng):
    return {"learning_rate": _log_uniform(rng, 1e-4, 1.0)}


def _mom(rng):
    return _rate(rng) | {"mom_coeff": rng.uniform(0.0, 0.99)}


def _epsilon(rng):
    return _rate(rng) | {"epsilon": _log_uniform(rng, 1e-8, 1e-1)}


def _betas(rng):
    return _epsilon(rng) | {"beta_1": rng.uniform(0.0, 0.99), "beta_2": 1.0 - _log_uniform(rng, 1e-3, 0.5)}


def _decay(rng):
    return _betas(rng) | {"weight_decay": _log_uniform(rng, 1e-6, 1e-1)}


def _beta(rng):
    return _epsilon(rng) | {"beta": rng.uniform(0.0, 0.999)}


RULES = {
    "gradient descent": (rules.GradientDescentLearningRule, formulas.gradient_descent, _rate, {}),
    "momentum": (rules.MomentumLearningRule, formulas.momentum, _mom, {}),
    "Nesterov": (rules.NesterovMomentumLearningRule, formulas.nesterov, _mom, {}),
    "Adam": (rules.AdamLearningRule, formulas.adam, _betas, {}),
    "Adam, no correction": (rules.AdamLearningRule, formulas.adam, _betas, {"bias_correction": False}),
    "Kingma's Adam": (rules.KingmaAdamLearningRule, formulas.kingma_adam, _betas, {}),
    "Kingma's Adam, no correction": (
        rules.KingmaAdamLearningRule,
        formulas.kingma_adam,
        _betas,
        {"bias_correction": False},
    ),
    "Adam, weight decay": (rules.AdamLearningRuleWithWeightDecay, formulas.adam, _decay, {}),
    "Adam, weight decay, no correction": (
        rules.AdamLearningRuleWithWeightDecay,
        formulas.adam,
        _decay,
        {"bias_correction": False},
    ),
    "AdaGrad": (rules.AdaGradLearningRule, formulas.adagrad, _epsilon, {}),
    "AdaGrad, epsilon outside": (
        rules.AdaGradLearningRule,
        formulas.adagrad,
        _epsilon,
        {"epsilon_inside_root": False},
    ),
    "RMSProp": (rules.RMSPropLearningRule, formulas.rmsprop, _beta, {}),
    "RMSProp, epsilon outside": (rules.RMSPropLearningRule, formulas.rmsprop, _beta, {"epsilon_inside_root": False}),
}


def test_every_public_rule_and_option_has_a_formula():
    public = {value for value in vars(rules).values() if inspect.isclass(value) and value.__module__ == rules.__name__}
    assert {rule for rule, *_ in RULES.values()} == public
    for rule, formula, draw, options in RULES.values():
        drawn = draw(np.random.default_rng(0)) | options
        known = set(inspect.signature(rule).parameters)
        switches = {name for name in known if isinstance(inspect.signature(rule).parameters[name].default, bool)}
        assert known - switches <= set(drawn) <= known
        assert set(drawn) <= set(inspect.signature(formula).parameters)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_follows_its_formula(name, seed):
    rule, formula, draw, options = RULES[name]
    values = draw(np.random.default_rng(seed)) | options
    assert check_learning_rule(rule(**values), formula(**values), seed=seed) <= 1e-12


M = rule_mistakes
SMALL = {"learning_rate": 0.1}
MOM = {"learning_rate": 0.1, "mom_coeff": 0.9}
ADAM = {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-2}
DECAY = ADAM | {"weight_decay": 1e-2}
ADAGRAD = {"learning_rate": 0.1, "epsilon": 1e-2}
RMS = {"learning_rate": 0.1, "beta": 0.9, "epsilon": 1e-2}
FIRST = r"after step 1 parameter 0\[\d, \d\] is .* times as far as it should, at the very first step"
LATER = r"after step 2 parameter 0\[\d, \d\] is .*right until step 2: what the rule remembers is wrong"

WRONG_FORMULAS = [
    (M.Ascent, SMALL, formulas.gradient_descent, r"after step 1 parameter 0\[.*the sign is wrong"),
    (M.StandsStill, SMALL, formulas.gradient_descent, "it does not move"),
    (M.DividesByTheStep, SMALL, formulas.gradient_descent, LATER),
    (M.NormedGradients, SMALL, formulas.gradient_descent, FIRST),
    (M.StepRoundedToFloat32, SMALL, formulas.gradient_descent, "agrees to some digits|right to"),
    (M.MomentumWithTheSignWrong, MOM, formulas.momentum, LATER),
    (M.MomentumSubtracted, MOM, formulas.momentum, "the sign is wrong"),
    (M.MomentumAveraged, MOM, formulas.momentum, r"it went 0\.1 times as far as it should, at the very first step"),
    (M.MomentumForgets, MOM, formulas.momentum, LATER),
    (M.MomentumOneStepLate, MOM, formulas.momentum, "after step 1 .*it does not move"),
    (M.PlainMomentumForNesterov, MOM, formulas.nesterov, r"it went 0\.526316 times .*first step"),
    (M.NesterovWithTheNewMomentum, MOM, formulas.nesterov, r"it went 0\.526316 times .*first step"),
    (M.AdamWithoutCorrection, ADAM, formulas.adam, r"it went 3\.16228 times .*first step"),
    (M.AdamWithoutFirstCorrection, ADAM, formulas.adam, r"it went 0\.1 times .*first step"),
    (M.AdamCorrectionWithoutRoot, ADAM, formulas.adam, r"it went 0\.0316228 times .*first step"),
    (M.AdamEpsilonInsideRoot, ADAM, formulas.adam, FIRST),
    (M.AdamEpsilonAfterCorrection, ADAM, formulas.adam, FIRST),
    (M.KingmaEpsilonBeforeCorrection, ADAM, formulas.kingma_adam, FIRST),
    (M.AdamBetasExchanged, ADAM, formulas.adam, FIRST),
    (M.AdamFromStepZero, ADAM, formulas.adam, FIRST),
    (M.AdamCountsOnFromTwo, ADAM, formulas.adam, FIRST),
    (M.AdamCountsParameters, ADAM, formulas.adam, r"after step 1 parameter 1\[.*first step"),
    (M.AdamWithoutSquares, ADAM, formulas.adam, FIRST),
    (M.AdamSharesAMoment, ADAM, formulas.adam, FIRST),
    (M.DecayTimesLearningRate, DECAY, formulas.adam, FIRST),
    (M.DecayOfTheNewParameter, DECAY, formulas.adam, FIRST),
    (M.DecayInTheGradient, DECAY, formulas.adam, FIRST),
    (M.AdaGradForgets, ADAGRAD, formulas.adagrad, LATER),
    (M.AdaGradWithoutRoot, ADAGRAD, formulas.adagrad, FIRST),
    (M.AdaGradOneStepLate, ADAGRAD, formulas.adagrad, FIRST),
    (M.AdaGradEpsilonOutside, ADAGRAD, formulas.adagrad, FIRST),
    (M.RmsBetasExchanged, RMS, formulas.rmsprop, FIRST),
    (M.RmsOfSums, RMS, formulas.rmsprop, FIRST),
    (M.MomentsByShape, MOM, formulas.momentum, "disturb each other|what the rule remembers is wrong"),
]

BROKEN_PROMISES = [
    (M.Rebinds, SMALL, formulas.gradient_descent, "step 1 rebinds a parameter: change it in place"),
    (M.ChangesGradients, SMALL, formulas.gradient_descent, "step 1 changed its gradients"),
    (M.CopiesParameters, SMALL, formulas.gradient_descent, "step 1 rebinds a parameter: change it in place"),
    (M.ResetKeepsTheCount, ADAM, formulas.adam, r"after reset\(\) it does not start anew"),
    (M.ResetKeepsTheMomentum, MOM, formulas.momentum, r"after reset\(\) it does not start anew"),
    (M.UpcastState, MOM, formulas.momentum, "float32 does not stay float32"),
    (M.UpcastParameters, SMALL, formulas.gradient_descent, "float32 does not stay float32"),
    (M.FirstRateForGood, SMALL, formulas.gradient_descent, "learning.rate"),
]


def _named(cases):
    return pytest.mark.parametrize(("rule", "values", "formula", "cause"), cases, ids=[c[0].__name__ for c in cases])


@_named(WRONG_FORMULAS)
def test_every_wrong_formula_is_found_with_the_step_the_entry_and_the_ratio(rule, values, formula, cause):
    caught = _caught(rule, values, formula, cause)
    assert re.fullmatch(r"parameter [0-3]", caught.array)


@_named(BROKEN_PROMISES)
def test_every_broken_promise_is_named(rule, values, formula, cause):
    _caught(rule, values, formula, cause)


def _caught(rule, values, formula, cause):
    with pytest.raises(GradientError) as caught:
        check_learning_rule(rule(**values), formula(**values))
    assert rule.__name__ in caught.value.subject
    assert re.search(cause, caught.value.cause)
    assert caught.value.cause in str(caught.value)
    return caught.value


def test_every_planted_mistake_is_in_a_table():
    planted = {v for v in vars(rule_mistakes).values() if inspect.isclass(v) and v.__module__ == rule_mistakes.__name__}
    assert {case[0] for case in (*WRONG_FORMULAS, *BROKEN_PROMISES)} == planted


def test_a_formula_of_another_rule_is_refused_for_every_rule():
    for name, (rule, _, draw, options) in RULES.items():
        values = draw(np.random.default_rng(1)) | options
        with pytest.raises(GradientError, match=rule.__name__):
            check_learning_rule(rule(**values), lambda start, grads: start - 0.123 * grads[-1])
        assert name


def test_the_rule_is_left_with_nothing():
    rule = rules.AdamLearningRule(**ADAM)
    check_learning_rule(rule, formulas.adam(**ADAM))
    assert rule.params == []
    assert rule.step_count == 0
