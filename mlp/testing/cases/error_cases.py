"""The cases of the errors and penalties."""

from typing import Any, NamedTuple

import numpy as np

from mlp import errors, penalties
from mlp.backend import Array


class ErrorCase(NamedTuple):
    """An error, outputs inside its domain, and targets."""

    name: str
    error: Any
    outputs: Array
    targets: Array


class PenaltyCase(NamedTuple):
    """A penalty and a parameter."""

    name: str
    penalty: Any
    parameter: Array


def _random(*shape: int) -> Array:
    return np.random.RandomState(5).standard_normal(shape)


def _probabilities(rows: Array) -> Array:
    exps = np.exp(rows)
    return exps / exps.sum(axis=1, keepdims=True)


_OUTPUTS, _LABELS, _SOME = _random(6, 4), np.array([0, 3, 1, 1, 2, 0]), np.array([0, 3, -1, 1, -1, 0])
_ONE_HOT, _SOFT = np.eye(4)[_LABELS], _probabilities(np.random.RandomState(8).standard_normal((6, 4)))
_YES_NO, _GUESSES = (np.random.RandomState(seed).uniform(0.1, 0.9, (6, 1)) for seed in (9, 2))
_MAPS, _PIXELS = _random(2, 4, 3, 2), np.random.RandomState(4).randint(0, 4, (2, 3, 2))
_WEIGHTS = np.array([0.5, 2.0, 1.0, 0.1])
_softmax = errors.CrossEntropySoftmaxError

ERROR_CASES: list[ErrorCase] = [
    ErrorCase("squares", errors.SumOfSquaredDiffsError(), _OUTPUTS, _SOFT),
    ErrorCase("squares, images", errors.SumOfSquaredDiffsError(), _MAPS, 0.5 * _MAPS + 1.0),
    ErrorCase("binary", errors.BinaryCrossEntropyError(), _GUESSES, _YES_NO),
    ErrorCase("binary sigmoid", errors.BinaryCrossEntropySigmoidError(), _OUTPUTS[:, :1], _YES_NO),
    ErrorCase("cross-entropy", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _ONE_HOT),
    ErrorCase("cross-entropy, soft targets", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _SOFT),
    ErrorCase("cross-entropy, labels", errors.CrossEntropyError(), _probabilities(_OUTPUTS), _LABELS),
    ErrorCase("cross-entropy, pixels", errors.CrossEntropyError(), _probabilities(_MAPS), _PIXELS),
    ErrorCase("softmax", _softmax(), _OUTPUTS, _ONE_HOT),
    ErrorCase("softmax, soft targets", _softmax(), _OUTPUTS, _SOFT),
    ErrorCase("softmax, labels", _softmax(), _OUTPUTS, _LABELS),
    ErrorCase("softmax, pixels", _softmax(), _MAPS, _PIXELS),
    ErrorCase("softmax, class weights", _softmax(_WEIGHTS), _OUTPUTS, _LABELS),
    ErrorCase("softmax, weighted soft targets", _softmax(_WEIGHTS), _OUTPUTS, _SOFT),
    ErrorCase("softmax, ignored labels", _softmax(_WEIGHTS, ignore_label=-1), _OUTPUTS, _SOME),
    ErrorCase("softmax, sum", _softmax(reduction="sum"), _OUTPUTS, _LABELS),
    ErrorCase("softmax, no reduction", _softmax(_WEIGHTS, reduction="none"), _MAPS, _PIXELS),
]

PENALTY_CASES: list[PenaltyCase] = [
    PenaltyCase("L1", penalties.L1Penalty(0.3), _random(4, 3)),
    PenaltyCase("L2", penalties.L2Penalty(0.3), _random(4, 3)),
    PenaltyCase("L2, kernels", penalties.L2Penalty(1e-3), _random(3, 2, 2, 2)),
]
