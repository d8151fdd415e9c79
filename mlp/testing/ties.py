"""Kinks and ties: where a maximum is shared or an input is exactly 0, a layer must give a sub-gradient.

The inputs are rounded to -1, 0 and 1, so that there are many ties. For single outputs y_j, each convex or concave in
such a corner, and for directions d > 0, what the backward pass says of d must lie between the slopes of y_j just
behind, just ahead, and at some points close by. To give the gradient to all tied maxima fails, and so does to give it
to none.
"""

import warnings

import numpy as np

from mlp.backend import Array
from mlp.layers.base import forward
from mlp.testing.problems import ModelProblem, describe
from mlp.testing.report import GradientError

_STEP, _SLACK = 1e-6, 1e-3
_OUTPUTS, _DIRECTIONS, _NEAR = 8, 4, 6


def check_ties(problem: ModelProblem) -> bool:
    """Raise GradientError unless a single layer gives sub-gradients at ties; return whether it was checked.

    Chains and branches are made of such, and not checked as a whole.
    """
    layer = problem.model.layers[0]
    if layer.children() or not layer.gives_subgradients:
        return False
    rng = np.random.default_rng(0)
    inputs = np.clip(np.round(problem.arrays[0]), -1.0, 1.0)
    if not _defined(problem, inputs):
        return False
    for flat in rng.integers(0, problem.weights.size, _OUTPUTS):
        upstream = np.zeros(problem.weights.shape)
        upstream.reshape(-1)[flat] = 1.0
        copy = problem.model.astype(np.float64).layers[0]
        outputs = forward(copy, inputs, problem.stochastic)
        gradient = copy.bprop(inputs, outputs, upstream)
        for direction in np.abs(rng.standard_normal((_DIRECTIONS, *inputs.shape))):
            _check_direction(problem, inputs, upstream, gradient, direction)
    return True


def _check_direction(problem: ModelProblem, inputs: Array, upstream: Array, gradient: Array, direction: Array) -> None:
    here, ahead, behind = (
        float((upstream * _outputs(problem, inputs + step * direction)).sum()) for step in (0.0, _STEP, -_STEP)
    )
    slopes: tuple[float, ...] = (ahead - here) / _STEP, (here - behind) / _STEP
    rng = np.random.default_rng(1)
    near = (inputs + 1e-4 * rng.standard_normal(inputs.shape) for _ in range(_NEAR))
    slopes += tuple(_slope(problem, x, upstream, direction) for x in near)
    claimed = float((gradient * direction).sum())
    slack = _SLACK * max(map(abs, slopes)) + 1e-8 * max(1.0, abs(here))
    if not min(slopes) - slack <= claimed <= max(slopes) + slack:
        text = describe(problem.subject)
        cause = (
            f"at ties of the inputs the backward pass gives no sub-gradient: along a direction it says {claimed:.6g}, "
            f"the slopes to both sides are {slopes[1]:.6g} and {slopes[0]:.6g}"
        )
        raise GradientError(f"{text}: {cause}", subject=text, mode=problem.mode, array="inputs", cause=cause)


def _slope(problem: ModelProblem, inputs: Array, upstream: Array, direction: Array) -> float:
    """Return the slope at a point off the ties."""
    ahead, behind = (_outputs(problem, inputs + step * direction) for step in (_STEP, -_STEP))
    return float((upstream * (ahead - behind)).sum()) / (2.0 * _STEP)


def _defined(problem: ModelProblem, inputs: Array) -> bool:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return all(np.isfinite(_outputs(problem, inputs + step)).all() for step in (0.0, _STEP, -_STEP))
        except ValueError:
            return False


def _outputs(problem: ModelProblem, inputs: Array) -> Array:
    return forward(problem.model.astype(np.float64).layers[0], inputs, problem.stochastic)
