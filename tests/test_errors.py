import numpy as np
import pytest

from mlp import errors
from mlp.checks import DTypeError, ShapeError
from mlp.layers import ReshapeLayer
from mlp.testing import check_gradients

from .cases import ERROR_CASES

every_case = pytest.mark.parametrize("case", ERROR_CASES, ids=[case.name for case in ERROR_CASES])


@every_case
@pytest.mark.parametrize("method", ["complex step", "central differences"])
def test_gradients_are_right(case, method):
    identity = ReshapeLayer(case.outputs.shape[1:])
    check_gradients(identity, case.outputs, case.error, case.targets, method=method)


@every_case
def test_dtype_of_the_gradient_is_the_outputs(case):
    targets = case.targets if case.targets.ndim == 1 else case.targets.astype(np.float32)
    assert case.error.grad(case.outputs.astype(np.float32), targets).dtype == np.float32
    assert case.error.grad(case.outputs, case.targets).dtype == np.float64


@every_case
def test_wrong_shapes_are_refused(case):
    for call in (case.error, case.error.grad):
        with pytest.raises(ShapeError, match="targets has shape"):
            call(case.outputs, case.targets[:-1])
        with pytest.raises(DTypeError, match="outputs is a list"):
            call(case.outputs.tolist(), case.targets)


def test_values():
    outputs, targets = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    assert errors.SumOfSquaredDiffsError()(outputs, targets) == pytest.approx((1 + 4 + 1 + 1) / 4)
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert errors.CrossEntropyError()(probabilities, np.eye(2)[[1, 0]]) == pytest.approx(
        -(np.log(0.75) + np.log(0.5)) / 2
    )
    uniform = errors.CrossEntropySoftmaxError()(np.zeros((3, 100)), np.array([0, 50, 99]))
    assert uniform == pytest.approx(np.log(100))
    assert errors.BinaryCrossEntropyError()(np.array([[0.25]]), np.array([[1.0]])) == pytest.approx(np.log(4))


def test_binary_errors_follow_the_courseworks_two_normalisations():
    outputs, targets = np.array([[0.2, 0.6]]), np.array([[0.0, 1.0]])
    error = errors.BinaryCrossEntropyError()
    assert error(outputs, targets) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    np.testing.assert_allclose(error.grad(outputs, targets), [[1 / 0.8, -1 / 0.6]])


def test_labels_mean_the_same_as_one_hot_rows():
    rng = np.random.default_rng(0)
    outputs, labels = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    for error in (errors.CrossEntropySoftmaxError(), errors.CrossEntropyError()):
        values = np.exp(outputs)
        assert error(values, labels) == pytest.approx(error(values, np.eye(4)[labels]))
        np.testing.assert_allclose(error.grad(values, labels), error.grad(values, np.eye(4)[labels]))


@pytest.mark.parametrize("labels", [np.array([0, 4]), np.array([-1, 2])])
def test_labels_outside_the_classes_are_refused(labels):
    with pytest.raises(ShapeError, match=r"targets holds labels .*, expected 0\.\.3"):
        errors.CrossEntropySoftmaxError()(np.zeros((2, 4)), labels)


def test_labels_that_are_no_whole_numbers_are_refused():
    with pytest.raises(DTypeError, match="whole-number labels"):
        errors.CrossEntropySoftmaxError()(np.zeros((2, 4)), np.array([0.0, 1.0]))


def test_every_error_has_a_case_and_a_repr():
    public = {name for name in vars(errors) if name.endswith("Error") and vars(errors)[name].__module__ == "mlp.errors"}
    assert public == {type(case.error).__name__ for case in ERROR_CASES}
    assert repr(errors.SumOfSquaredDiffsError()) == "MeanSquaredErrorCost"
    assert repr(errors.CrossEntropySoftmaxError()) == "CrossEntropySoftmaxError"
