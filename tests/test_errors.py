import pickle

import numpy as np
import pytest

from mlp import errors, penalties
from mlp.checks import DTypeError, ShapeError
from mlp.testing import check_gradients
from mlp.testing.cases import ERROR_CASES, PENALTY_CASES

every_case = pytest.mark.parametrize("case", ERROR_CASES, ids=[case.name for case in ERROR_CASES])


@every_case
@pytest.mark.parametrize(("method", "tolerance"), [("complex step", 1e-12), ("central differences", 1e-6)])
def test_gradients_are_right(case, method, tolerance):
    report = check_gradients(case.error, case.outputs, targets=case.targets, methods=[method], tolerance=tolerance)
    assert report.worst <= tolerance
    assert report.notes == ()
    means = "a mean over the batch" in report.conduct
    assert means == (getattr(case.error, "reduction", "mean") == "mean")


@every_case
def test_float32_is_within_1e5_of_float64(case):
    targets = case.targets if case.targets.dtype.kind == "i" else case.targets.astype(np.float32)
    outputs = case.outputs.astype(np.float32)
    wide = outputs.astype(np.float64), targets.astype(np.float64 if targets.dtype.kind == "f" else np.int64)
    np.testing.assert_allclose(case.error(outputs, targets), case.error(*wide), rtol=1e-5)
    np.testing.assert_allclose(case.error.grad(outputs, targets), case.error.grad(*wide), rtol=1e-5, atol=1e-6)


@every_case
def test_a_copy_by_pickle_behaves_the_same(case):
    clone = pickle.loads(pickle.dumps(case.error))
    np.testing.assert_array_equal(clone(case.outputs, case.targets), case.error(case.outputs, case.targets))
    assert repr(clone) == repr(case.error)


@every_case
def test_dtype_of_the_gradient_is_the_outputs(case):
    targets = case.targets if case.targets.dtype.kind == "i" else case.targets.astype(np.float32)
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


def test_every_public_error_and_penalty_has_a_case():
    for module, cases in ((errors, ERROR_CASES), (penalties, PENALTY_CASES)):
        defined = {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        }
        assert {type(case[1]).__name__ for case in cases} == {name for name in defined if not name.startswith("_")}
