"""Logits of minus infinity, as a mask puts them: a probability of exactly 0."""

import numpy as np
import pytest

from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import log_softmax, softmax

LOGITS = np.array([[-np.inf, -1.0, -2.0], [5.0, -np.inf, 4.0], [-3e30, -np.inf, -3e30]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_masked_logit_has_no_probability_and_does_not_disturb_the_others(dtype):
    x = LOGITS.astype(dtype)
    rest = [[1, 2], [0, 2], [0, 2]]
    for row, kept, probabilities, logs in zip(x, rest, softmax(x), log_softmax(x), strict=True):
        masked = ({0, 1, 2} - set(kept)).pop()
        assert probabilities[masked] == 0.0
        assert logs[masked] == -np.inf
        np.testing.assert_array_equal(probabilities[kept], softmax(row[kept]))
        np.testing.assert_array_equal(logs[kept], log_softmax(row[kept]))


def test_cross_entropy_takes_masked_logits():
    error, labels = CrossEntropySoftmaxError(), np.array([1, 0, 2])
    expected = np.mean([-log_softmax(row[np.isfinite(row)])[i] for row, i in zip(LOGITS, [0, 0, 1], strict=True)])
    assert error(LOGITS, labels) == pytest.approx(expected)
    assert np.isfinite(error.grad(LOGITS, labels)).all()
    assert error.grad(LOGITS, labels)[0, 0] == 0.0
