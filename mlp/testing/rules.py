"""The check of a learning rule: many steps against its formula in higher precision, and what a rule promises."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import check_number, check_positive_int
from mlp.testing.problems import describe
from mlp.testing.report import GradientError

Formula = Callable[[Array, Sequence[Array]], Array]
"""``formula(start, grads)``: the parameter after all these gradients, from its start. Arrays are longdouble."""


def check_learning_rule(
    rule: Any, formula: Formula, *, steps: int = 50, tolerance: float = 1e-12, seed: int = 0
) -> float:
    """Compare a learning rule with its formula, or raise GradientError; return the worst relative error.

    `formula(start, grads)` says, in plain arithmetic, where a parameter stands after a list of gradients. The rule is
    run on four parameters of different shapes and magnitudes for `steps` steps, and compared after each of the first
    ten, and at the end. Also checked: parameters are changed in place, gradients are not changed, parameters do not
    disturb each other, a learning rate set on the way is heeded, `reset` starts anew, and float32 stays float32. The
    rule is left initialised with nothing.

    >>> from mlp.learning_rules import GradientDescentLearningRule
    >>> from mlp.testing import check_learning_rule
    >>> check_learning_rule(GradientDescentLearningRule(0.1), lambda start, grads: start - 0.1 * sum(grads)) < 1e-12
    True
    """
    if isinstance(rule, type) or not all(hasattr(rule, name) for name in ("initialise", "update_params", "reset")):
        raise TypeError(f"check_learning_rule: rule is {rule!r}, expected a learning rule")
    if not callable(formula):
        raise TypeError(f"check_learning_rule: formula is {formula!r}, expected a function of (start, grads)")
    steps = check_positive_int("check_learning_rule: steps", steps, minimum=3)
    tolerance = check_number("check_learning_rule: tolerance", tolerance, 0.0)
    rng = np.random.default_rng(seed)
    sizes = (((3, 4), 1.0, 1.0), ((5,), 1e-3, 1e-2), ((2, 1, 3), 1e2, 10.0), ((5,), 1.0, 0.1))
    starts = [rng.standard_normal(shape) * size for shape, size, _ in sizes]
    grads = [[rng.standard_normal(shape) * size for shape, _, size in sizes] for _ in range(steps)]
    worst = _compare(rule, formula, starts, grads, tolerance)
    _check_reset(rule, starts, grads)
    _check_rate(rule, starts, grads)
    _check_dtype(rule, starts, grads[0])
    rule.initialise([])
    return worst


def _compare(rule: Any, formula: Formula, starts: list[Array], grads: list[list[Array]], tolerance: float) -> float:
    params = [start.copy() for start in starts]
    rule.initialise(params)
    kept, worst = list(rule.params), 0.0
    for step, given in enumerate(grads, 1):
        before = [grad.copy() for grad in given]
        rule.update_params(given)
        if any(not np.array_equal(a, b) for a, b in zip(before, given, strict=True)):
            _wrong(rule, f"step {step} changed its gradients")
        if any(a is not b for a, b in zip(kept, rule.params, strict=True)) or kept[0] is not params[0]:
            _wrong(rule, f"step {step} rebinds a parameter: change it in place")
        if step > 10 and step < len(grads):
            continue
        for i, (param, start) in enumerate(zip(params, starts, strict=True)):
            past = [np.asarray(grad[i], np.longdouble) for grad in grads[:step]]
            expected = formula(np.asarray(start, np.longdouble), past)
            error = float(np.abs(param - expected).max() / np.abs(expected).max())
            worst = max(worst, error)
            if not error <= tolerance:
                alone = len(params) > 1 and _right_alone(rule, formula, start, [[grad[i]] for grad in grads], tolerance)
                _wrong(rule, _why(i, step, start, param, expected, alone), f"parameter {i}")
    return worst


def _right_alone(rule: Any, formula: Formula, start: Array, grads: list[list[Array]], tolerance: float) -> bool:
    try:
        _compare(rule, formula, [start], grads, tolerance)
    except GradientError:
        return False
    return True


def _why(i: int, step: int, start: Array, param: Array, expected: Array, alone: bool) -> str:
    """Return what is wrong with parameter i after a step."""
    if alone:
        return f"parameter {i} is right alone and wrong beside others: they disturb each other"
    at = np.unravel_index(int(np.argmax(np.abs(param - expected))), param.shape)
    got, right = float(param[at]), float(expected[at])
    where = f"after step {step} parameter {i}{[int(j) for j in at]}"
    return f"{where} is {got:.9g}, expected {right:.9g} ({_guess(float(start[at]), got, right, step)})"


def _guess(start: float, got: float, expected: float, step: int) -> str:
    """Guess at the cause from how far the parameter went."""
    went, right = got - start, expected - start
    if went == 0.0:
        return "it does not move"
    ratio = went / right if right else float("inf")
    when = "at the very first step" if step == 1 else f"right until step {step}: what the rule remembers is wrong"
    if abs(ratio + 1.0) < 1e-6:
        return "the sign is wrong"
    if abs(ratio - 1.0) < 1e-4:
        return f"it agrees to some digits: a cast to float32, or a small constant (epsilon) out of place; {when}"
    return f"it went {ratio:.6g} times as far as it should, {when}"


def _check_reset(rule: Any, starts: list[Array], grads: list[list[Array]]) -> None:
    results = []
    for fresh in (True, False):
        params = [start.copy() for start in starts]
        if fresh:
            rule.initialise(params)
        else:
            params = list(rule.params)
            for param, start in zip(params, starts, strict=True):
                param[...] = start
            rule.reset()
        for given in grads[:3]:
            rule.update_params(given)
        results.append([param.copy() for param in params])
    if any(not np.array_equal(a, b) for a, b in zip(*results, strict=True)):
        _wrong(rule, "after reset() it does not start anew")


def _check_rate(rule: Any, starts: list[Array], grads: list[list[Array]]) -> None:
    """Raise if a learning rate that a schedule sets on the way is not heeded."""
    rate, results = rule.learning_rate, []
    for later in (rate, 0.5 * rate):
        params = [start.copy() for start in starts]
        rule.initialise(params)
        rule.update_params(grads[0])
        rule.learning_rate = later
        rule.update_params(grads[1])
        rule.learning_rate = rate
        results.append(params)
    if all(np.array_equal(a, b) for a, b in zip(*results, strict=True)):
        _wrong(rule, "a learning rate that is set on the way is not heeded")


def _check_dtype(rule: Any, starts: list[Array], grads: list[Array]) -> None:
    params = [start.astype(np.float32) for start in starts]
    rule.initialise(params)
    rule.update_params([grad.astype(np.float32) for grad in grads])
    states = [array for name in getattr(rule, "state_names", ()) for array in getattr(rule, name)]
    if any(array.dtype != np.float32 for array in (*rule.params, *states)):
        _wrong(rule, "float32 does not stay float32")


def _wrong(rule: Any, cause: str, array: str | None = None) -> None:
    text = describe(rule)
    raise GradientError(f"{text}: {cause}", subject=text, mode="both", array=array, cause=cause)
