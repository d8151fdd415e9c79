"""One table of cases: every public layer, error and penalty, built and fed, for the generic tests and the self-test.

A part without a case fails the test suite. To check a new layer, add a line.
"""

from mlp.testing.cases.error_cases import ERROR_CASES, PENALTY_CASES, ErrorCase, PenaltyCase
from mlp.testing.cases.layer_cases import LAYER_CASES, LayerCase

__all__ = ["ERROR_CASES", "LAYER_CASES", "PENALTY_CASES", "ErrorCase", "LayerCase", "PenaltyCase"]
