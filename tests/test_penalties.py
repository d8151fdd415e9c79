import numpy as np
import pytest

from mlp.checks import DTypeError
from mlp.penalties import L1Penalty, L2Penalty
from mlp.testing import check_gradients
from mlp.testing.cases import PENALTY_CASES


@pytest.mark.parametrize("case", PENALTY_CASES, ids=[case.name for case in PENALTY_CASES])
@pytest.mark.parametrize("method", ["complex step", "central differences"])
def test_gradients_are_right(case, method):
    report = check_gradients(case.penalty, case.parameter, methods=[method])
    assert report.worst <= (1e-12 if method == "complex step" else 1e-6)


def test_values_and_gradients():
    weights = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert L1Penalty(0.5)(weights) == 3.0
    np.testing.assert_array_equal(L1Penalty(0.5).grad(weights), [[0.5, -0.5], [0.0, 0.5]])
    assert L2Penalty(0.5)(weights) == 3.5
    np.testing.assert_array_equal(L2Penalty(0.5).grad(parameter=weights), 0.5 * weights)


@pytest.mark.parametrize("penalty", [L1Penalty, L2Penalty])
def test_coefficients_are_positive_numbers(penalty):
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="coefficient is"):
            penalty(wrong)
    with pytest.raises(TypeError, match="expected a number"):
        penalty("0.1")
    with pytest.raises(DTypeError, match="expected a NumPy or CuPy array"):
        penalty(0.1)([1.0])


def test_they_print_and_hash_as_in_the_coursework():
    assert repr(L1Penalty(1e-5)) == "L1Penalty(1e-05)"
    assert {L2Penalty(0.1): 1, None: 2}[None] == 2
    assert L2Penalty(0.1).grad(np.ones(2, np.float32)).dtype == np.float32


@pytest.mark.parametrize("penalty", [L1Penalty, L2Penalty])
def test_a_coefficient_of_numpy_s_leaves_float32_as_it_is(penalty):
    grad = penalty(np.logspace(-4, -3, 2)[0]).grad(np.ones(3, np.float32))
    assert grad.dtype == np.float32
