import pickle
import re
import sys

import numpy as np
import pytest

from mlp import errors, penalties
from mlp.backend import device_of, to_cpu, to_device
from mlp.checks import DeviceMixError, DTypeError, ShapeError
from mlp.testing import check_gradients
from mlp.testing.cases import ERROR_CASES, PENALTY_CASES

from .strict_cupy import StrictCupy

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
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_value_and_gradient_in_one_go_are_those_of_the_two_calls(case, dtype):
    outputs = case.outputs.astype(dtype)
    if dtype == np.complex128:
        outputs = outputs + 1e-30j * np.random.default_rng(0).standard_normal(outputs.shape)
    targets = case.targets if case.targets.dtype.kind == "i" else case.targets.astype(outputs.real.dtype)
    value, grads = errors.value_and_grad(case.error, outputs, targets)
    expected, tolerance = case.error.grad(outputs, targets), 1e-6 if dtype == np.float32 else 1e-14
    for part in ("real", "imag") if dtype == np.complex128 else ("real",):
        for got, wanted in ((value, case.error(outputs, targets)), (grads, expected)):
            got, wanted = np.asarray(getattr(got, part)), np.asarray(getattr(wanted, part))
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    assert grads.dtype == expected.dtype


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


LENGTH = r"(?:[NK]|\.\.\.|\d+)"
SENTENCES = (
    rf"has shape \([\d, ]*\), expected \({LENGTH}(, {LENGTH})*,?\): "
    r"(axis \d is \d+, not \d+|it has \d axes, not \d|axis \d is empty)",
    r"is a list, expected a NumPy or CuPy array: use np\.asarray\(\.\.\.\)",
    r"has dtype object, expected numbers \(float32, float64, complex128, \.\.\.\): use x\.astype\(\.\.\.\)",
)


def wrong_forms(array):
    """Return a list, objects, two axes more, none, an empty batch, and a longer array along every axis."""
    longer = [np.concatenate([array, array.take([0], axis=axis)], axis=axis) for axis in range(array.ndim)]
    return [
        array.tolist(),
        array.astype(object),
        array[..., None, None],
        array[(0,) * array.ndim][...],
        array[:0],
        *longer,
    ]


@every_case
@pytest.mark.parametrize("method", ["", ".grad"])
def test_wrong_arguments_are_refused_with_a_sentence(case, method):
    call = case.error.grad if method else case.error
    for name, given in (("outputs", case.outputs), ("targets", case.targets)):
        forms = wrong_forms(given)
        if name == "outputs" and case.targets.ndim < given.ndim:
            del forms[6]  # labels fit more classes too
        for wrong in forms:
            arguments = {"outputs": case.outputs, "targets": case.targets, name: wrong}
            with pytest.raises((ShapeError, DTypeError)) as caught:
                call(**arguments)
            said = "outputs|targets" if name == "outputs" else "targets"
            pattern = (
                rf"({type(case.error).__name__}{re.escape(method)}: ({said})|CrossEntropySoftmaxError: class_weights)"
            )
            assert re.fullmatch(rf"{pattern} ({'|'.join(SENTENCES)})", str(caught.value)), caught.value


@every_case
def test_targets_on_another_device_are_refused(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    outputs, who = to_device(case.outputs, "gpu"), type(case.error).__name__
    for method, call in (("", case.error), (".grad", case.error.grad)):
        with pytest.raises(DeviceMixError, match=rf"^{who}{method}: targets lies on the cpu, .* on the gpu: move one"):
            call(outputs, case.targets)


def test_weights_follow_the_outputs_to_their_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    outputs, labels = np.arange(6.0).reshape(2, 3) ** 2, np.array([2, 0])
    on_cpu = errors.CrossEntropySoftmaxError(np.array([1.0, 2.0, 3.0]))
    on_gpu = errors.CrossEntropySoftmaxError(to_device(on_cpu.class_weights, "gpu"))
    for error in (on_cpu, on_gpu):
        moved = error.grad(to_device(outputs, "gpu"), to_device(labels, "gpu"))
        assert device_of(moved) == "gpu"
        np.testing.assert_allclose(to_cpu(moved), on_cpu.grad(outputs, labels), rtol=1e-14)
        np.testing.assert_allclose(error(outputs, labels), on_cpu(outputs, labels), rtol=1e-14)


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


OUTPUTS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0], [2.0, 2.0, -1.0]])
LOSSES = np.log(np.exp(OUTPUTS).sum(axis=1)) - OUTPUTS[[0, 1, 2], [2, 0, 1]]
LABELS = np.array([2, 0, 1])
cross_entropy = errors.CrossEntropySoftmaxError


@pytest.mark.parametrize(
    ("error", "targets", "kind", "message"),
    [
        (
            cross_entropy(),
            [0, 3, 1],
            ShapeError,
            "CrossEntropySoftmaxError: targets holds labels 0..3, expected 0..2, one per output",
        ),
        (
            cross_entropy(),
            [-1, 2, 1],
            ShapeError,
            "CrossEntropySoftmaxError: targets holds labels -1..2, expected 0..2, one per output",
        ),
        (
            cross_entropy(ignore_label=-1),
            [-1, 7, -1],
            ShapeError,
            "CrossEntropySoftmaxError: targets holds labels 7..7, expected 0..2, one per output",
        ),
        (
            cross_entropy(ignore_label=9),
            [9, 1, -2],
            ShapeError,
            "CrossEntropySoftmaxError: targets holds labels -2..1, expected 0..2, one per output",
        ),
        (
            cross_entropy(),
            [0.0, 1.0, 2.0],
            DTypeError,
            "CrossEntropySoftmaxError: targets has dtype float64, expected whole-number labels or one-hot rows",
        ),
        (
            cross_entropy(ignore_label=1),
            np.eye(3),
            DTypeError,
            "CrossEntropySoftmaxError: targets are one-hot rows, expected labels: only labels can be ignored",
        ),
        (
            cross_entropy(np.ones(4)),
            [0, 1, 2],
            ShapeError,
            "CrossEntropySoftmaxError: class_weights has shape (4,), expected (3,): axis 0 is 4, not 3",
        ),
        (
            cross_entropy(ignore_label=1),
            [1, 1, 1],
            ValueError,
            "CrossEntropySoftmaxError(ignore_label=1): the weights of all targets are 0, or all are ignored: a mean of "
            "nothing",
        ),
        (
            cross_entropy(np.array([0.0, 1.0, 1.0])),
            [0, 0, 0],
            ValueError,
            "CrossEntropySoftmaxError(class_weights=...): the weights of all targets are 0, or all are ignored: a mean "
            "of nothing",
        ),
    ],
)
def test_targets_that_mean_nothing_are_refused(error, targets, kind, message):
    for method, call in (("", error), (".grad", error.grad)):
        with pytest.raises(kind) as caught:
            call(OUTPUTS, np.asarray(targets))
        said = message.replace("Error: targets", f"Error{method}: targets")
        assert str(caught.value) == said


def test_labels_of_any_integer_type_are_labels():
    for dtype in (np.uint8, np.int32, np.int64):
        assert cross_entropy()(OUTPUTS, LABELS.astype(dtype)) == pytest.approx(LOSSES.mean())
    assert cross_entropy()(OUTPUTS[:, :1], np.zeros(3, int)) == 0.0


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("ignored", [-1, 1, 9])
def test_where_all_labels_are_ignored_nothing_is_left(reduction, ignored):
    error = cross_entropy(ignore_label=ignored, reduction=reduction)
    labels = np.full(3, ignored)
    assert np.sum(error(OUTPUTS, labels)) == 0.0
    assert np.shape(error(OUTPUTS, labels)) == (() if reduction == "sum" else (3,))
    np.testing.assert_array_equal(error.grad(OUTPUTS, labels), np.zeros((3, 3)))


def test_ignored_labels_take_no_part():
    for ignored in (0, -5, 7):
        labels, kept = np.array([2, ignored, 1]), [0, 2]
        total = cross_entropy(ignore_label=ignored, reduction="sum")(OUTPUTS, labels)
        assert total == pytest.approx(LOSSES[kept].sum())
        mean = cross_entropy(ignore_label=ignored)
        assert mean(OUTPUTS, labels) == pytest.approx(LOSSES[kept].mean())
        grads = mean.grad(OUTPUTS, labels)
        np.testing.assert_allclose(grads[kept], cross_entropy().grad(OUTPUTS[kept], labels[kept]), rtol=1e-14)
        assert (grads[1] == 0).all()


def test_reductions_and_weights_are_their_formulas():
    weights = np.array([0.5, 2.0, 3.0])
    of_labels = weights[LABELS]
    np.testing.assert_allclose(cross_entropy(reduction="none")(OUTPUTS, LABELS), LOSSES)
    assert cross_entropy(reduction="sum")(OUTPUTS, LABELS) == pytest.approx(LOSSES.sum())
    assert cross_entropy(weights)(OUTPUTS, LABELS) == pytest.approx((of_labels * LOSSES).sum() / of_labels.sum())
    assert cross_entropy(weights, reduction="sum")(OUTPUTS, LABELS) == pytest.approx((of_labels * LOSSES).sum())
    narrow = cross_entropy(weights).grad(OUTPUTS.astype(np.float32), LABELS)
    assert narrow.dtype == np.float32


def test_a_logit_of_minus_infinity_is_a_class_that_cannot_be():
    masked = np.array([[0.0, -np.inf, 0.0]])
    for targets in (np.array([2]), np.array([[0.0, 0.0, 1.0]])):
        assert cross_entropy()(masked, targets) == pytest.approx(np.log(2))
        np.testing.assert_allclose(cross_entropy().grad(masked, targets), [[0.5, 0.0, -0.5]])


@pytest.mark.parametrize("sure", [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])])
def test_what_is_sure_and_right_costs_nothing(sure):
    expected = {"CrossEntropyError": -sure, "BinaryCrossEntropyError": 1 - 2 * sure}
    for error in (errors.CrossEntropyError(), errors.BinaryCrossEntropyError()):
        assert error(sure, sure) == 0.0
        np.testing.assert_array_equal(error.grad(sure, sure), expected[repr(error)])
        assert error(np.array([[0.5, 0.5]]), sure) == pytest.approx(np.log(2))


@pytest.mark.parametrize("size", [2.0, 40.0, 600.0, 800.0])
def test_the_sigmoids_cross_entropy_keeps_its_digits_on_both_sides(size):
    error, rest = errors.BinaryCrossEntropySigmoidError(), np.log1p(np.exp(-size))
    for output, right, wrong in ((size, 1.0, 0.0), (-size, 0.0, 1.0)):
        outputs = np.array([[output]])
        assert error(outputs, np.array([[right]])) == pytest.approx(rest, rel=1e-14, abs=0)
        assert error(outputs, np.array([[wrong]])) == pytest.approx(size + rest, rel=1e-14)
    assert error(np.zeros((1, 1)), np.ones((1, 1))) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("build", "spelling"),
    [
        (errors.SumOfSquaredDiffsError, "MeanSquaredErrorCost"),
        (errors.BinaryCrossEntropyError, "BinaryCrossEntropyError"),
        (errors.BinaryCrossEntropySigmoidError, "BinaryCrossEntropySigmoidError"),
        (errors.CrossEntropyError, "CrossEntropyError"),
        (cross_entropy, "CrossEntropySoftmaxError"),
        (lambda: cross_entropy(ignore_label=0), "CrossEntropySoftmaxError(ignore_label=0)"),
        (lambda: cross_entropy(reduction="sum"), "CrossEntropySoftmaxError(reduction='sum')"),
        (
            lambda: cross_entropy(np.ones(2), -1, "none"),
            "CrossEntropySoftmaxError(class_weights=..., ignore_label=-1, reduction='none')",
        ),
    ],
)
def test_an_error_says_how_it_was_built(build, spelling):
    assert repr(build()) == spelling


def test_what_is_not_given_has_its_default():
    assert cross_entropy(np.array([0, 2])).class_weights.tolist() == [0, 2]
    error = cross_entropy()
    assert (error.class_weights, error.ignore_label, error.reduction) == (None, None, "mean")
    assert cross_entropy(ignore_label=np.int64(3)).ignore_label == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"class_weights": np.ones((2, 2))},
            "CrossEntropySoftmaxError: class_weights has shape (2, 2), expected (K,): it has 2 axes, not 1",
        ),
        (
            {"class_weights": [1.0]},
            "CrossEntropySoftmaxError: class_weights is a list, expected a NumPy or CuPy array: use np.asarray(...)",
        ),
        *(
            (
                {"class_weights": np.array(weights)},
                f"CrossEntropySoftmaxError: class_weights is {np.array(weights)}, expected finite numbers >= 0",
            )
            for weights in ([1.0, -0.5], [1.0, np.inf], [np.nan, 1.0], [1.0, 1j])
        ),
        ({"ignore_label": 1.0}, "CrossEntropySoftmaxError: ignore_label is 1.0 (float), expected a whole number"),
        ({"reduction": "max"}, "CrossEntropySoftmaxError: reduction is 'max', expected one of 'mean', 'sum', 'none'"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        cross_entropy(**arguments)
    assert str(caught.value) == message


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
