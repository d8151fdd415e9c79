import numpy as np
import pytest

from mlp.kernels import log_softmax, sigmoid, softmax, softplus

EXTREMES = np.array([-1e30, -1000.0, -50.0, -1e-8, 0.0, 1e-8, 50.0, 1000.0, 1e30])


def test_sigmoid_and_softplus_are_finite_and_right_everywhere():
    exact = [0.0, 0.0, 1.9287498479639178e-22, 0.4999999975, 0.5, 0.5000000025, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(sigmoid(EXTREMES), exact, rtol=1e-15)
    middle = np.linspace(-30, 30, 61)
    np.testing.assert_allclose(softplus(middle), np.logaddexp(0.0, middle), rtol=1e-14)
    np.testing.assert_array_equal(softplus(EXTREMES)[[0, 1, 7, 8]], [0.0, 0.0, 1000.0, 1e30])


def test_softmax_is_finite_and_sums_to_one():
    for rows in (EXTREMES[None], np.zeros((1, 4)), np.full((2, 3), 1e30)):
        y = softmax(rows)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y.sum(axis=-1), 1.0)
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


def test_log_softmax_keeps_what_softmax_loses():
    np.testing.assert_allclose(log_softmax(np.array([[0.0, -1000.0]])), [[0.0, -1000.0]])
    rows = np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_allclose(np.exp(log_softmax(rows)), softmax(rows), rtol=1e-14)


@pytest.mark.parametrize("function", [sigmoid, softmax, softplus, log_softmax])
def test_float32_stays_float32(function):
    assert function(np.ones((2, 3), np.float32)).dtype == np.float32
