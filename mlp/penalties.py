"""Penalties on parameters, added to the error: ``penalty(parameter)`` and ``penalty.grad(parameter)``."""

from typing import Any

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import check_array, check_number

seed = 22102017
rng = np.random.RandomState(seed)
"""The coursework's seed and stream of this module; nothing here draws from it."""


class L1Penalty:
    """c sum |w|, with gradient c sign(w) (0 at 0). The coefficient c is positive.

    >>> import numpy as np
    >>> from mlp.penalties import L1Penalty
    >>> penalty = L1Penalty(0.5)
    >>> float(penalty(np.array([1.0, -2.0]))), penalty.grad(np.array([1.0, -2.0]))
    (1.5, array([ 0.5, -0.5]))
    """

    def __init__(self, coefficient: float) -> None:
        number = check_number("L1Penalty: coefficient", coefficient, 0.0, low_open=True)
        self.coefficient = coefficient if isinstance(coefficient, int) else number  # no float64 of NumPy's

    def __call__(self, parameter: Array) -> Any:
        """Return c sum |w|."""
        check_array("L1Penalty: parameter", parameter)
        return self.coefficient * (parameter * _real_sign(parameter)).sum()

    def grad(self, parameter: Array) -> Array:
        """Return c sign(w)."""
        check_array("L1Penalty.grad: parameter", parameter)
        return self.coefficient * _real_sign(parameter)

    def __repr__(self) -> str:
        return f"L1Penalty({self.coefficient})"


class L2Penalty:
    """c/2 sum w^2, with gradient c w. The coefficient c is positive.

    >>> import numpy as np
    >>> from mlp.penalties import L2Penalty
    >>> penalty = L2Penalty(0.5)
    >>> float(penalty(np.array([1.0, -2.0]))), penalty.grad(np.array([1.0, -2.0]))
    (1.25, array([ 0.5, -1. ]))
    """

    def __init__(self, coefficient: float) -> None:
        number = check_number("L2Penalty: coefficient", coefficient, 0.0, low_open=True)
        self.coefficient = coefficient if isinstance(coefficient, int) else number  # no float64 of NumPy's

    def __call__(self, parameter: Array) -> Any:
        """Return c/2 sum w^2."""
        check_array("L2Penalty: parameter", parameter)
        return 0.5 * self.coefficient * (parameter * parameter).sum()

    def grad(self, parameter: Array) -> Array:
        """Return c w."""
        check_array("L2Penalty.grad: parameter", parameter)
        return self.coefficient * parameter

    def __repr__(self) -> str:
        return f"L2Penalty({self.coefficient})"


def _real_sign(parameter: Array) -> Array:
    """Return the sign of the real part: what |w| = w sign(w) needs to stay analytic for the complex step."""
    xp = array_module(parameter)
    return xp.sign(parameter.real).astype(parameter.dtype)
