"""The gradient checker as a tool: what it takes, what it refuses, what it leaves alone, and how sharply it sees."""

import pickle

import numpy as np
import pytest

from mlp import errors, layers, penalties
from mlp.checks import DTypeError, ShapeError
from mlp.models import MultipleLayerModel, SingleLayerModel, vgg
from mlp.testing import GradientError, check_gradients

COMPLEX, CENTRAL = ("complex step",), ("central differences",)
X = np.random.default_rng(3).standard_normal((4, 3))
IMAGES = np.random.default_rng(0).standard_normal((3, 3, 8, 8))
LABELS = np.array([0, 1, 3, 2])


class Double(layers.Layer):
    def fprop(self, inputs):
        return 2.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2.0 * grads_wrt_outputs


class Scale(layers.LayerWithParameters):
    param_names = ("scale",)

    def __init__(self, dim):
        self.scale = np.full(dim, 2.0)

    def fprop(self, inputs):
        return inputs * self.scale

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.scale

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [(grads_wrt_outputs * inputs).sum(axis=0)]


class Shift(layers.LayerWithParameters):
    param_names = ("shift",)

    def __init__(self, dim):
        self.shift = np.arange(1.0, dim + 1.0)

    def fprop(self, inputs):
        return inputs + self.shift

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs.copy()

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs.sum(axis=0)]


class OffBy(layers.TanhLayer):
    def __init__(self, relative):
        self.relative = relative

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1.0 + self.relative) * super().bprop(inputs, outputs, grads_wrt_outputs)


class OneWrong(layers.TanhLayer):
    def __init__(self, place, value):
        self.place, self.value = place, value

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[self.place] = self.value
        return grads


class Elementwise(layers.Layer):
    def __init__(self, function, derivative):
        self.function, self.derivative = function, derivative

    def fprop(self, inputs):
        return self.function(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.derivative(inputs)


class Norm(layers.Layer):
    def __init__(self, factor=1.0):
        self.factor = factor

    def fprop(self, inputs):
        return np.linalg.norm(inputs, axis=1, keepdims=True)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return self.factor * grads_wrt_outputs * inputs / outputs


def in_a_float_buffer(x):
    buffer = np.zeros(x.shape)
    for i, row in enumerate(x):
        buffer[i] = np.sin(row)
    return buffer


def float64_alone(x):
    if x.dtype != np.float64:
        raise ValueError("this layer computes in float64")
    return np.sin(x)


def model():
    rng = np.random.RandomState(4)

    def init(shape):
        return rng.standard_normal(shape)

    return MultipleLayerModel(
        [layers.AffineLayer(3, 5, init), layers.TanhLayer(), layers.AffineLayer(5, 4, init)],
    )


def names(report):
    return [array.name for array in report.arrays]


def wrong(caught):
    return [array.name for array in caught.value.report.arrays if not array.right]


# What it takes.


def test_a_shape_stands_for_a_batch_of_normal_random_numbers_from_the_seed():
    seen = []

    class Sees(Double):
        def fprop(self, inputs):
            seen.append(np.real(inputs))
            return super().fprop(inputs)

    reports = [
        check_gradients(Sees(), shape, seed=seed) for seed, shape in ((7, (50, 40)), (7, [50, 40]), (8, (50, 40)))
    ]
    assert reports[0] == reports[1] != reports[2]
    assert seen[0].shape == (50, 40)
    assert abs(seen[0].mean()) < 0.1
    assert 0.9 < seen[0].std() < 1.1


def test_the_upstream_gradient_is_not_the_random_batch_itself():
    layer = Elementwise(lambda x: 2.0 * x, lambda x: 2.0)
    layer.bprop = lambda inputs, outputs, grads_wrt_outputs: 2.0 * inputs
    for seed in range(3):
        with pytest.raises(GradientError):
            check_gradients(layer, (4, 3), conduct=False, seed=seed)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_batches_of_other_real_dtypes_are_checked_in_double_precision(dtype):
    inputs = np.arange(12).reshape(4, 3).astype(dtype)
    for layer in (layers.TanhLayer(), layers.AffineLayer(3, 2), layers.AffineLayer(3, 2).astype(np.float32)):
        assert check_gradients(layer, inputs).worst < 1e-14
    assert inputs.dtype == dtype
    np.testing.assert_array_equal(inputs, np.arange(12).reshape(4, 3))


def test_a_layer_in_single_precision_is_checked_in_double_and_stays_what_it_was():
    layer = layers.AffineLayer(3, 2).astype(np.float32)
    assert check_gradients(layer, X).worst < 1e-14
    assert {param.dtype for param in layer.params} == {np.dtype(np.float32)}


def test_parameters_of_whole_numbers_are_no_obstacle():
    layer = Scale(3)
    layer.scale = np.array([1, 2, 3])
    assert check_gradients(layer, X).right
    assert layer.scale.dtype == np.int64


def test_minimal_layers_of_a_user_are_checked():
    report = check_gradients(Double(), (5, 3))
    assert names(report) == ["inputs"]
    assert report.right
    report = check_gradients(Scale(3), (5, 3))
    assert names(report) == ["inputs", "scale"]
    assert report.worst < 1e-15


def test_layers_without_parameters_have_one_row_even_in_chains():
    assert names(check_gradients(layers.ChainLayer([layers.TanhLayer(), layers.SigmoidLayer()]), X)) == ["inputs"]
    assert names(check_gradients(layers.ReshapeLayer((1, 3)), X)) == ["inputs"]


def test_parameters_of_chains_and_models_are_named_with_their_layers():
    chain = layers.ChainLayer([layers.AffineLayer(3, 2), layers.TanhLayer()])
    expected = ["inputs", "AffineLayer_0.weights", "AffineLayer_0.biases"]
    assert names(check_gradients(chain, X)) == expected
    assert names(check_gradients(MultipleLayerModel([chain]), X)) == expected
    assert names(check_gradients(SingleLayerModel(layers.AffineLayer(3, 2)), X)) == expected
    chain.layers[0].name = "map"
    assert names(check_gradients(chain, X)) == ["inputs", "map.weights", "map.biases"]


@pytest.mark.parametrize("methods", [COMPLEX, CENTRAL, COMPLEX + CENTRAL])
def test_a_model_closed_by_its_error_is_checked_by_every_parameter(methods):
    report = check_gradients(model(), X, errors.CrossEntropySoftmaxError(), LABELS, methods=methods)
    assert names(report) == [
        "inputs",
        *(f"AffineLayer_{i}.{key}" for i in (0, 2) for key in ("weights", "biases")),
    ]
    assert report.right


def test_a_layer_can_be_closed_by_an_error_too():
    targets = np.random.default_rng(1).standard_normal((4, 2))
    assert check_gradients(layers.AffineLayer(3, 2), X, errors.SumOfSquaredDiffsError(), targets).right


def test_the_error_and_not_random_weights_close_the_model():
    class HalfTheGradient(errors.SumOfSquaredDiffsError):
        def grad(self, outputs, targets):
            return 0.5 * super().grad(outputs, targets)

    assert check_gradients(model(), X).right
    with pytest.raises(GradientError) as caught:
        check_gradients(model(), X, HalfTheGradient(), np.ones((4, 4)))
    assert wrong(caught) == names(caught.value.report)


def test_penalties_of_layers_take_part():
    penalised = layers.AffineLayer(3, 2, None, None, penalties.L2Penalty(0.3), penalties.L1Penalty(0.2))
    assert check_gradients(penalised, X).right
    penalised.with_penalties = lambda grads: grads
    with pytest.raises(GradientError) as caught:
        check_gradients(penalised, X)
    assert wrong(caught) == ["weights", "biases"]


def test_an_error_is_a_subject_with_its_targets():
    report = check_gradients(errors.CrossEntropySoftmaxError(), (4, 5), targets=LABELS)
    assert names(report) == ["outputs"]
    assert report.conduct == ("no argument is changed", "calls repeat", "a mean over the batch")
    assert check_gradients(errors.CrossEntropySoftmaxError(reduction="none"), (4, 5), targets=LABELS).right


def test_a_wrong_error_is_found():
    class NoMean(errors.SumOfSquaredDiffsError):
        def grad(self, outputs, targets):
            return outputs - targets

    with pytest.raises(GradientError, match="it is 4 times the right one, the batch size: a 1/N is missing"):
        check_gradients(NoMean(), (4, 3), targets=X)


def test_a_penalty_is_a_subject_by_itself():
    assert names(check_gradients(penalties.L2Penalty(0.3), (30, 20))) == ["parameter"]

    class Wrong(penalties.L2Penalty):
        def grad(self, parameter):
            return 2.0 * super().grad(parameter)

    with pytest.raises(GradientError, match=r"parameter\[.*it is twice the right one"):
        check_gradients(Wrong(0.3), X)


def test_gradients_of_wrong_shape_are_refused_whatever_the_subject():
    flat = Elementwise(np.tanh, None)
    flat.bprop = lambda inputs, outputs, grads_wrt_outputs: grads_wrt_outputs.sum(axis=0)
    with pytest.raises(GradientError, match=r"the gradient of inputs has shape \(3,\), not \(4, 3\)"):
        check_gradients(flat, X)

    class FlatError(errors.SumOfSquaredDiffsError):
        def grad(self, outputs, targets):
            return super().grad(outputs, targets).sum(axis=0)

    with pytest.raises(GradientError, match=r"the gradient of outputs has shape \(3,\), not \(4, 3\)"):
        check_gradients(FlatError(), X, targets=X + 1.0)


def test_a_gradient_too_few_is_counted():
    layer = layers.AffineLayer(3, 2)
    layer.grads_wrt_params = lambda inputs, grads_wrt_outputs: [grads_wrt_outputs.T @ inputs]
    with pytest.raises(GradientError, match=r"2 gradients of 3 arrays \(inputs, weights, biases\)"):
        check_gradients(layer, X)


def test_a_forgotten_return_is_said_to_be_one():
    layer = Double()
    layer.bprop = lambda inputs, outputs, grads_wrt_outputs: None
    with pytest.raises((GradientError, TypeError), match="None"):
        check_gradients(layer, X)
    layer = Double()
    layer.fprop = lambda inputs: None
    with pytest.raises((GradientError, TypeError), match="None"):
        check_gradients(layer, X)


# What it refuses.


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"methods": ("cs",)}, ValueError, "methods is 'cs', expected one of 'complex step', 'central differences'"),
        ({"methods": ()}, ValueError, "methods is '', expected one of 'complex step', 'central differences'"),
        ({"modes": ("train",)}, ValueError, "modes is 'train', expected one of 'training', 'evaluation'"),
        ({"modes": "train"}, ValueError, "modes is 'train', expected one of 'training', 'evaluation'"),
        ({"modes": ()}, ValueError, "modes is '', expected one of 'training', 'evaluation'"),
        ({"modes": ("training", "both")}, ValueError, "modes is 'both'"),
        ({"tolerance": -1.0}, ValueError, r"tolerance is -1.0, expected a finite number in \[0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance is nan, expected a finite number"),
        ({"tolerance": "small"}, TypeError, "tolerance is 'small' .*expected a number"),
        ({"directions": 0}, ValueError, "directions is 0, expected a whole number >= 1"),
        ({"directions": 2.5}, TypeError, "directions is 2.5 .*expected a whole number >= 1"),
        ({"seed": -1}, ValueError, "check_gradients: seed is -1, expected a whole number >= 0"),
        ({"seed": "x"}, TypeError, "check_gradients: seed is 'x' .*expected a whole number >= 0"),
        ({"targets": X}, ValueError, "error and targets close a model together: give both, or neither"),
        ({"error": errors.SumOfSquaredDiffsError()}, ValueError, "error and targets close a model together"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_options_are_refused_with_a_sentence(options, kind, sentence):
    with pytest.raises(kind, match=sentence):
        check_gradients(layers.TanhLayer(), X, **options)


@pytest.mark.parametrize(
    ("inputs", "kind", "sentence"),
    [
        ((4, 0), ValueError, "a size in the shape of inputs is 0, expected a whole number >= 1"),
        ((4, 3.0), TypeError, "a size in the shape of inputs is 3.0 .*expected a whole number >= 1"),
        ([[1.0, 2.0]], TypeError, "a size in the shape of inputs is"),
        (None, DTypeError, "inputs is a NoneType, expected a NumPy or CuPy array"),
        (X.astype(object), DTypeError, "inputs has dtype object, expected numbers"),
        (np.array([[1.0, np.nan]]), ValueError, "inputs holds numbers that are not finite"),
        (np.array([[1.0, -np.inf]]), ValueError, "inputs holds numbers that are not finite"),
        (X + 0j, TypeError, "inputs .*complex"),
        (X[:0], ShapeError, "axis 0 is empty"),
        (np.array(1.0), ShapeError, "it has 0 axes"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " "),
)
def test_bad_inputs_are_refused_with_a_sentence(inputs, kind, sentence):
    with pytest.raises(kind, match=sentence):
        check_gradients(layers.TanhLayer(), inputs)


@pytest.mark.parametrize("subject", [3, "AffineLayer", None, X, np.tanh, layers.TanhLayer], ids=str)
def test_what_is_no_layer_model_error_or_penalty_is_refused(subject):
    with pytest.raises(TypeError, match=r"(?s)check_gradients: subject is .*expected "):
        check_gradients(subject, X)


def test_an_error_class_is_not_an_error():
    with pytest.raises(TypeError, match=r"check_gradients: subject is .*CrossEntropySoftmaxError"):
        check_gradients(errors.CrossEntropySoftmaxError, (4, 5), targets=LABELS)


def test_an_error_without_targets_is_refused():
    with pytest.raises(TypeError, match="targets"):
        check_gradients(errors.SumOfSquaredDiffsError(), X)


def test_what_the_layer_itself_refuses_is_left_to_its_own_sentence():
    with pytest.raises(ShapeError, match=r"AffineLayer.fprop: inputs has shape \(4, 3\), expected \(N, 2\)"):
        check_gradients(layers.AffineLayer(2, 2), X)
    with pytest.raises(ShapeError, match="train on a larger batch"):
        check_gradients(layers.BatchNormalizationLayer(3), X[:1])
    with pytest.raises(NotImplementedError, match="NoBackwardPass has no bprop"):
        check_gradients(type("NoBackwardPass", (layers.Layer,), {"fprop": lambda self, x: x.copy()})(), X)


# Modes, methods, tolerance, directions.


def test_modes_are_checked_one_by_one_where_they_may_differ():
    dropout = layers.DropoutLayer(np.random.RandomState(1))
    assert [array.mode for array in check_gradients(dropout, X).arrays] == ["training", "evaluation"]
    assert [array.mode for array in check_gradients(dropout, X, modes=["evaluation"]).arrays] == ["evaluation"]
    assert [array.mode for array in check_gradients(layers.TanhLayer(), X).arrays] == ["both"]
    assert [array.mode for array in check_gradients(layers.TanhLayer(), X, modes=("training",)).arrays] == ["both"]
    model = MultipleLayerModel([layers.TanhLayer(), layers.ResidualLayer([dropout])])
    assert [array.mode for array in check_gradients(model, X).arrays] == ["training", "evaluation"]


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_mistake_in_one_mode_is_found_in_that_mode_alone(mode):
    class WrongInOneMode(layers.BatchNormalizationLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            right = super().bprop(inputs, outputs, grads_wrt_outputs)
            return (2.0 if self._memory.of_the_batch == (mode == "training") else 1.0) * right

        def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
            _, grads = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
            return self.bprop(inputs, outputs, grads_wrt_outputs), grads

    with pytest.raises(GradientError, match=rf"in {mode} mode inputs\[") as caught:
        check_gradients(WrongInOneMode(3), X)
    found = [(array.name, array.mode) for array in caught.value.report.arrays if not array.right]
    assert found == [("inputs", mode)]
    other = "evaluation" if mode == "training" else "training"
    assert check_gradients(WrongInOneMode(3), X, modes=(other,)).right


def test_only_the_methods_asked_for_are_used():
    both, complex_step, central = (
        check_gradients(layers.TanhLayer(), X, methods=m) for m in (COMPLEX + CENTRAL, COMPLEX, CENTRAL)
    )
    assert both.arrays[0].complex_step == complex_step.arrays[0].complex_step < 1e-15
    assert both.arrays[0].central_differences == pytest.approx(central.arrays[0].central_differences)
    assert complex_step.arrays[0].central_differences is None
    assert central.arrays[0].complex_step is None
    assert 1e-13 < central.worst < 1e-8


def test_the_default_tolerances_are_1e11_and_1e6():
    assert check_gradients(OffBy(1e-12), X).right
    with pytest.raises(GradientError):
        check_gradients(OffBy(1e-10), X)
    assert check_gradients(OffBy(1e-7), X, methods=CENTRAL, conduct=False).right
    with pytest.raises(GradientError):
        check_gradients(OffBy(1e-5), X, methods=CENTRAL, conduct=False)


@pytest.mark.parametrize(("methods", "off"), [(COMPLEX, 1e-9), (CENTRAL, 1e-4), (COMPLEX + CENTRAL, 1e-8)])
def test_the_tolerance_is_what_an_error_may_be(methods, off):
    assert check_gradients(OffBy(off), X, methods=methods, tolerance=2.0 * off, conduct=False).right
    with pytest.raises(GradientError) as caught:
        check_gradients(OffBy(off), X, methods=methods, tolerance=0.5 * off, conduct=False)
    array = caught.value.report.arrays[0]
    assert (array.central_differences if methods == CENTRAL else array.complex_step) == pytest.approx(off, rel=1e-3)


def test_the_tolerance_is_that_of_the_first_method():
    first = check_gradients(layers.TanhLayer(), X, methods=COMPLEX + CENTRAL, tolerance=1e-9)
    assert first.arrays[0].tolerances == (1e-9, 1e-6)
    first = check_gradients(layers.TanhLayer(), X, methods=CENTRAL + COMPLEX, tolerance=1e-4)
    assert first.arrays[0].tolerances == (1e-11, 1e-4)


def test_arrays_of_up_to_directions_entries_are_checked_one_by_one_and_the_table_says_so():
    for directions, count in ((12, 12), (13, 12), (11, 11), (1, 1)):
        report = check_gradients(layers.TanhLayer(), X, directions=directions, conduct=False)
        array = report.arrays[0]
        assert (array.derivatives, array.size) == (count, 12)
        assert ("12 of 12" in repr(report)) == (directions >= 12)
        assert f"{count} " in array.cells()[2]


def test_a_mistake_in_any_entry_is_found_one_by_one_and_along_random_directions():
    for place in ((0, 0), (1, 2), (3, 1)):
        for directions in (40, 1):
            with pytest.raises(GradientError) as caught:
                check_gradients(OneWrong(place, 0.4), X, directions=directions)
            assert (caught.value.array, caught.value.index, caught.value.got) == ("inputs", place, 0.4)


@pytest.mark.parametrize("value", [3.0, 0.0, np.nan, np.inf])
def test_a_single_wrong_entry_among_50000_is_located(value):
    inputs = np.random.default_rng(1).standard_normal((500, 100))
    with pytest.raises(GradientError) as caught:
        check_gradients(OneWrong((123, 45), value), inputs, directions=10)
    error = caught.value
    assert error.index == (123, 45)
    np.testing.assert_equal(error.got, value)
    upstream = error.expected / (1.0 - np.tanh(inputs[123, 45]) ** 2)
    assert 1e-3 < abs(upstream) < 6.0
    assert not np.isfinite(value) or "finite" not in error.cause


# What it leaves alone.


class InPlaceParameter(Scale):
    def fprop(self, inputs):
        self.scale += 1.0
        return super().fprop(inputs)


def _dropout():
    return layers.DropoutLayer(np.random.RandomState(3), 0.6)


def _batch_norm():
    return layers.BatchNormalizationLayer(3)


@pytest.mark.parametrize(
    "build",
    [_dropout, _batch_norm, lambda: layers.ChainLayer([layers.AffineLayer(3, 3), _batch_norm(), _dropout()])],
    ids=["dropout", "batch norm", "chain"],
)
def test_the_subject_is_not_changed(build):
    for subject in (build(), MultipleLayerModel([build()])):
        layer = subject if isinstance(subject, layers.Layer) else subject.layers[0]
        inputs = X.copy()
        outputs = layer.fprop(inputs)
        memory, before = layer._memory, pickle.dumps(subject)
        check_gradients(subject, inputs)
        assert pickle.dumps(subject) == before
        assert layer._memory is memory
        assert layer.bprop(inputs, outputs, np.ones_like(outputs)).shape == inputs.shape
        np.testing.assert_array_equal(inputs, X)


def test_neither_are_the_subject_and_the_arguments_of_a_check_that_fails():
    layer, inputs, targets = InPlaceParameter(3), X.copy(), np.ones((4, 3))
    with pytest.raises(GradientError):
        check_gradients(layer, inputs, errors.SumOfSquaredDiffsError(), targets)
    np.testing.assert_array_equal(layer.scale, np.full(3, 2.0))
    np.testing.assert_array_equal(inputs, X)
    np.testing.assert_array_equal(targets, np.ones((4, 3)))


def test_targets_are_not_changed_even_by_an_error_that_does():
    class Clips(errors.SumOfSquaredDiffsError):
        def grad(self, outputs, targets):
            np.clip(targets, -0.5, 0.5, out=targets)
            return super().grad(outputs, targets)

    targets = X.copy()
    with pytest.raises(GradientError):
        check_gradients(Clips(), X[::-1], targets=targets)
    np.testing.assert_array_equal(targets, X)
    check_gradients(Double(), X[::-1], errors.SumOfSquaredDiffsError(), targets)
    np.testing.assert_array_equal(targets, X)


def test_numpys_global_random_numbers_are_not_touched():
    before = pickle.dumps(np.random.get_state())
    check_gradients(layers.ChainLayer([_dropout(), _batch_norm()]), (4, 3))
    assert pickle.dumps(np.random.get_state()) == before


def test_results_repeat_for_the_same_seed_and_differ_for_another():
    layer, inputs = layers.AffineLayer(30, 4), np.random.default_rng(2).standard_normal((5, 30))
    first, again, other = (check_gradients(layer, inputs, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "build",
    [
        lambda: layers.ReluLayer(),
        lambda: layers.MaxPooling2DLayer(size=3, stride=1),
        lambda: layers.LocalResponseNormalizationLayer(3),
        lambda: layers.ChainLayer([layers.Convolution2DLayer(3, 3, 3), layers.BatchNormalizationLayer(3)]),
        lambda: layers.ChainLayer([layers.Convolution2DLayer(3, 2, 3), layers.ReluLayer(), layers.ReshapeLayer()]),
    ],
)
def test_right_layers_are_right_for_every_seed(build):
    for seed in range(8):
        report = check_gradients(build(), (2, 3, 5, 5), seed=seed, directions=5)
        assert report.right
        assert report.worst < 1e-13


# Functions with peculiarities.


NOT_FOR_COMPLEX_NUMBERS = {
    "abs": (np.abs, np.sign),
    "a cast to float": (lambda x: x.astype(float) ** 2, lambda x: 2.0 * x),
    "the real part": (lambda x: np.sin(x.real), np.cos),
    "a float buffer": (in_a_float_buffer, np.cos),
    "a refusal": (float64_alone, np.cos),
}


@pytest.mark.parametrize("shape", [(4, 3), (20, 6)], ids=["entries", "directions"])
@pytest.mark.parametrize("name", NOT_FOR_COMPLEX_NUMBERS)
def test_functions_that_do_not_take_complex_numbers_are_decided_by_central_differences(name, shape):
    function, derivative = NOT_FOR_COMPLEX_NUMBERS[name]
    report = check_gradients(Elementwise(function, derivative), shape)
    assert report.arrays[0].complex_step is None
    assert report.worst == report.arrays[0].central_differences < 1e-8
    assert any("inputs" in note and "central differences decide" in note for note in report.notes)
    with pytest.raises(GradientError) as caught:
        check_gradients(Elementwise(function, lambda x: 1.00001 * derivative(x)), shape)
    assert wrong(caught) == ["inputs"]
    assert "central differences decide" in str(caught.value)


def test_a_norm_is_decided_by_central_differences_too():
    report = check_gradients(Norm(), X)
    assert report.arrays[0].complex_step is None
    assert report.notes
    with pytest.raises(GradientError, match=r"1\.001 times the right one"):
        check_gradients(Norm(1.001), X)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5, 1e-7])
def test_a_layer_that_is_for_complex_numbers_in_some_entries_only_is_right_or_wrong_in_all(size):
    def partly(x):
        return size * np.concatenate([x[:, :1], np.abs(x[:, 1:])], axis=1)

    def slope(x):
        return size * np.concatenate([np.ones_like(x[:, :1]), np.sign(x[:, 1:])], axis=1)

    def wrong_slope(x):
        return slope(x) * np.array([1.0, 1.0, 1.01])

    for conduct in (True, False):
        assert check_gradients(Elementwise(partly, slope), X, conduct=conduct).right
        with pytest.raises(GradientError):
            check_gradients(Elementwise(partly, wrong_slope), X, conduct=conduct)


def test_what_the_complex_step_alone_would_call_right_is_refused():
    flat = Elementwise(np.abs, np.zeros_like)
    assert check_gradients(flat, X, methods=COMPLEX, conduct=False).right
    with pytest.raises(GradientError, match="it is all zeros: the gradient is missing"):
        check_gradients(flat, X)


def test_an_error_and_a_penalty_need_not_take_complex_numbers():
    class Absolute:
        def __call__(self, outputs, targets):
            return np.abs(outputs - targets).sum() / len(outputs)

        def grad(self, outputs, targets):
            return np.sign(outputs - targets) / len(outputs)

    class Lasso:
        def __call__(self, parameter):
            return np.abs(parameter).sum()

        def grad(self, parameter):
            return np.sign(parameter)

    for report in (check_gradients(Absolute(), X, targets=X[::-1] + 0.1), check_gradients(Lasso(), X)):
        assert report.right
        assert report.arrays[0].complex_step is None
        assert report.notes


def test_a_function_that_is_not_finite_is_refused_with_a_sentence():
    root = Elementwise(lambda x: np.sqrt(np.where(x > 0, x, np.nan)), lambda x: 0.5 / np.sqrt(np.abs(x)))
    infinite = Elementwise(lambda x: np.where(x > 0, np.inf, x), np.ones_like)
    both_infinities = Elementwise(lambda x: np.where(x > 0, np.inf, -np.inf) + 0.0 * x, np.ones_like)
    for layer in (root, infinite, both_infinities):
        with pytest.raises(GradientError, match=r"the value is (nan|-?inf)"):
            check_gradients(layer, X)


def test_gradients_that_are_not_finite_are_wrong():
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(GradientError, match="it holds numbers that are not finite") as caught:
            check_gradients(OneWrong((2, 1), value), X)
        assert caught.value.index == (2, 1)


@pytest.mark.parametrize(
    ("function", "derivative"),
    [(np.log, lambda x: 1.0 / x), (np.sqrt, lambda x: 0.5 / np.sqrt(x)), (lambda x: np.log(x / (1.0 - x)),) * 2],
    ids=["log", "sqrt", "logit"],
)
def test_functions_are_checked_inside_their_domain_only(function, derivative):
    if function is derivative:
        derivative = lambda x: 1.0 / (x * (1.0 - x))  # noqa: E731
    inputs = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    assert check_gradients(Elementwise(function, derivative), inputs).right
    with pytest.raises(GradientError):
        check_gradients(Elementwise(function, lambda x: 1.001 * derivative(x)), inputs)


def test_a_layer_that_refuses_what_lies_outside_its_domain_is_checked_inside():
    def guarded(x):
        if (x.real <= 0.0).any() or (x.real >= 1.0).any():
            raise ValueError("a probability lies in (0, 1)")
        return x * x

    inputs = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    assert check_gradients(Elementwise(guarded, lambda x: 2.0 * x), inputs).right


@pytest.mark.parametrize("edge", [1e-9, 3e-8, 3e-7, 1.5e-6, 1e-5])
def test_at_the_edge_of_a_domain_the_complex_step_decides_where_differences_cannot(edge):
    inputs = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    inputs[2, 1] = edge
    assert check_gradients(Elementwise(np.log, lambda x: 1.0 / x), inputs, conduct=False).right
    with pytest.raises(GradientError) as caught:
        check_gradients(Elementwise(np.log, lambda x: 1.001 / x), inputs, conduct=False)
    assert caught.value.index == (2, 1)
    outputs = np.array([[edge, 1.0 - edge], [0.3, 0.7]])
    assert check_gradients(errors.CrossEntropyError(), outputs, targets=np.array([0, 1]), conduct=False).right


def test_random_numbers_from_elsewhere_are_found_and_nothing_is_called_right():
    noisy = layers.TanhLayer()
    stream = np.random.default_rng(0)
    noisy.fprop = lambda inputs: np.tanh(inputs) + 1e-3 * stream.uniform(size=inputs.shape)
    with pytest.raises(GradientError, match=r"two calls give two results|the result depends on the previous call"):
        check_gradients(noisy, X)


# What is zero, and what has vanished.


def test_a_gradient_that_is_zero_is_said_to_be():
    model = MultipleLayerModel([layers.AffineLayer(3, 3), layers.BatchNormalizationLayer(3)])
    report = check_gradients(model, X, modes=("training",))
    assert [array.name for array in report.arrays if not array.resolved] == ["AffineLayer_0.biases"]
    assert "0 to rounding" in repr(report)
    assert all(array.resolved for array in check_gradients(model, X, modes=("evaluation",)).arrays)


def test_a_gradient_of_zero_is_no_false_alarm_where_the_layer_has_no_other_parameter():
    shift, norm = Shift(3), layers.BatchNormalizationLayer(3)
    for subject in (
        MultipleLayerModel([layers.AffineLayer(3, 3), shift, norm]),
        MultipleLayerModel([shift, norm]),
        layers.ChainLayer([shift, norm]),
        layers.ChainLayer([layers.AffineLayer(3, 3), norm]),
    ):
        report = check_gradients(subject, X)
        assert report.right
        offsets = [a.name for a in report.arrays if a.mode == "training" and a.name.endswith((".shift", ".biases"))]
        assert [a.name for a in report.arrays if not a.resolved] == offsets


def test_what_is_constant_has_a_gradient_of_zero_and_of_nothing_else():
    for layer, inputs in (
        (layers.SoftmaxLayer(), X[:, :1]),
        (layers.GroupNormalizationLayer(3, 3), X),
        (Elementwise(np.zeros_like, np.zeros_like), X),
    ):
        report = check_gradients(layer, inputs)
        assert not report.arrays[0].resolved
    with pytest.raises(GradientError, match="it should be all zeros"):
        check_gradients(Elementwise(np.zeros_like, lambda x: np.full_like(x, 1e-3)), X)


def test_a_constant_whose_rounding_errors_are_not_zero_is_right_too():
    class OneOfMany(layers.Layer):
        def fprop(self, inputs):
            return inputs / inputs

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs / inputs - grads_wrt_outputs * inputs / (inputs * inputs)

    for seed in range(3):
        assert check_gradients(OneOfMany(), (4, 3), seed=seed).right


class NoKernels(layers.Convolution2DLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, (kernels, *rest) = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads, [0 * kernels, *rest]


def test_a_lost_gradient_is_found_however_much_it_had_vanished():
    model = vgg(5, num_filters=2, num_classes=5, rng=np.random.RandomState(2))
    conv = model.layers[3]
    conv.__class__ = NoKernels
    options = {"directions": 1, "methods": COMPLEX, "modes": ("training",), "conduct": False}
    with pytest.raises(GradientError) as caught:
        check_gradients(model, IMAGES, errors.CrossEntropySoftmaxError(), np.array([4, 0, 2]), **options)
    assert wrong(caught) == ["block_0_0_conv_0.kernels"]
    assert caught.value.cause == "it is all zeros: the gradient is missing"
    assert abs(caught.value.expected) < 1e-6


class OtherWeights(layers.AffineLayer):
    factor = 0.0

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [self.factor * weights, biases]


@pytest.mark.parametrize("size", [1e-6, 1e-10, 1e-13, 1e-16, 1e-30])
def test_a_lost_gradient_is_found_even_beside_one_that_is_large(size):
    right = MultipleLayerModel([layers.AffineLayer(3, 2), layers.TanhLayer()])
    report = check_gradients(right, size * X)
    assert report.worst < 1e-11
    assert all(array.resolved for array in report.arrays)
    with pytest.raises(GradientError, match="it is all zeros: the gradient is missing") as caught:
        check_gradients(MultipleLayerModel([OtherWeights(3, 2), layers.TanhLayer()]), size * X)
    assert wrong(caught) == ["OtherWeights_0.weights"]


@pytest.mark.parametrize("value", [np.inf, 1e20])
def test_an_enormous_gradient_does_not_hide_the_mistake_beside_it(value):
    class Enormous(layers.AffineLayer):
        def grads_wrt_params(self, inputs, grads_wrt_outputs):
            weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
            weights[0, 0] = value
            return [weights, 3.0 * biases]

    with pytest.raises(GradientError) as caught:
        check_gradients(Enormous(3, 2), X, conduct=False)
    assert wrong(caught) == ["weights", "biases"]


NETWORKS = {
    "vgg08": (0, False, False),
    "vgg38": (5, False, False),
    "vgg38_bn": (5, True, False),
    "vgg38_rc": (5, False, True),
    "vgg38_bn_rc": (5, True, True),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_whole_narrow_networks_are_right_in_both_modes(network):
    model = vgg(*NETWORKS[network], num_filters=4, num_classes=5, rng=np.random.RandomState(2))
    error, labels = errors.CrossEntropySoftmaxError(), np.array([4, 0, 2])
    for mode, directions in (("training", 2), ("evaluation", 1)):
        options = {"conduct": False, "methods": COMPLEX, "modes": (mode,), "directions": directions}
        report = check_gradients(model, IMAGES, error, labels, **options)
        assert len(report.arrays) == 1 + len(model.params)
        assert report.worst < 1e-11
        zero = [array.name for array in report.arrays if not array.resolved]
        assert mode == "training" or not zero
        assert all(name.endswith(".biases") for name in zero)


@pytest.mark.parametrize(("network", "directions"), [("vgg08", 4), ("vgg38_rc", 1)])
def test_networks_whose_gradients_do_not_vanish_are_right_by_central_differences_too(network, directions):
    model = vgg(*NETWORKS[network], num_filters=4, num_classes=5, rng=np.random.RandomState(2))
    report = check_gradients(
        model, IMAGES, errors.CrossEntropySoftmaxError(), np.array([4, 0, 2]), directions=directions, conduct=False
    )
    assert report.worst < 1e-11
    differences = [array.central_differences for array in report.arrays if array.central_differences is not None]
    assert len(differences) > 0.1 * len(report.arrays)
    assert max(differences) < 1e-6
    lost = [note.split(":")[0] for note in report.notes if "central differences are lost in rounding" in note]
    assert set(lost) == {array.name for array in report.arrays if array.central_differences is None}
