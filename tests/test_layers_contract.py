"""What every layer must do, generated from the table of cases."""

import copy
import pickle
import re
import sys

import numpy as np
import pytest

from mlp import layers
from mlp.backend import to_device
from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.checks import DeviceMixError, DTypeError, ShapeError, StaleStateError
from mlp.layers.base import forward
from mlp.models import SingleLayerModel
from mlp.testing import check_gradients
from mlp.testing.cases import LAYER_CASES
from mlp.testing.conduct import layouts_of

from .strict_cupy import StrictCupy

ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}
CASES_AND_LAYOUTS = [(case, name) for case in LAYER_CASES for name, _ in layouts_of(np.zeros(case.shape))]

every_case = pytest.mark.parametrize("case", LAYER_CASES, ids=[case.name for case in LAYER_CASES])
both_modes = pytest.mark.parametrize("stochastic", [True, False], ids=["training", "evaluation"])


def inputs_of(case, seed=11, dtype=np.float64, batch=None):
    shape = case.shape if batch is None else (batch, *case.shape[1:])
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays_of(layer):
    return layer.params if isinstance(layer, layers.LayerWithParameters) else []


def passes(layer, inputs, upstream, stochastic=True):
    """Return (outputs, [dE/d inputs, dE/d parameter, ...])."""
    outputs = forward(layer, inputs, stochastic)
    grads_wrt_inputs, grads_wrt_params = layer.backprop(inputs, outputs, upstream)
    return outputs, [grads_wrt_inputs, *grads_wrt_params]


def upstream_of(layer, inputs):
    outputs = forward(copy.deepcopy(layer), inputs, True)
    return np.random.default_rng(12).standard_normal(outputs.shape).astype(inputs.dtype)


@every_case
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize(("method", "tolerance"), [("complex step", 1e-12), ("central differences", 1e-6)])
def test_gradients_are_right(case, seed, mode, method, tolerance):
    report = check_gradients(
        case.build(),
        case.shape,
        modes=[mode],
        methods=[method],
        tolerance=tolerance,
        directions=20,
        seed=seed,
        conduct=False,
    )
    used = [row.complex_step if method == "complex step" else row.central_differences for row in report.arrays]
    assert None not in used
    assert max(used) <= tolerance
    assert len(used) == 1 + len(arrays_of(case.build()))
    assert report.notes == ()


@every_case
def test_the_conduct_is_right(case):
    report = check_gradients(case.build(), case.shape, directions=5)
    assert "calls repeat" in report.conduct
    refusals = [note for note in report.notes if "is refused" in note]
    assert all("one value per channel" in note for note in refusals)


@every_case
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_of_other_sizes_are_right_or_refused_with_a_sentence(case, batch):
    def check():
        shape = (batch, *case.shape[1:])
        return check_gradients(case.build(), shape, methods=["complex step"], directions=5, conduct=False)

    if batch == 1 and case.name == "batch norm":
        with pytest.raises(ShapeError, match=r"one value per channel, .* is not defined: train on a larger batch"):
            check()
    else:
        assert check().worst <= 1e-11


@every_case
def test_a_batch_of_none_is_refused_with_a_sentence(case):
    layer = case.build()
    with pytest.raises(ShapeError, match=r"empty|expected"):
        layer.fprop(inputs_of(case)[:0])


@every_case
def test_bprop_and_grads_wrt_params_equal_backprop(case):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(layer, inputs)
    outputs, (grads_wrt_inputs, *grads) = passes(layer, inputs, upstream)
    np.testing.assert_allclose(layer.bprop(inputs, outputs, upstream), grads_wrt_inputs, rtol=1e-12, atol=1e-13)
    if isinstance(layer, layers.LayerWithParameters):
        alone = layer.grads_wrt_params(inputs, upstream)
        assert len(alone) == len(layer.params) == len(grads)
        for one, other in zip(alone, grads, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    through, _ = layer.backprop(inputs, outputs, upstream, need_inputs=False)
    assert through is None or np.array_equal(through, grads_wrt_inputs)


@every_case
@both_modes
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_in_is_dtype_out(case, stochastic, dtype):
    layer = case.build().astype(dtype)
    inputs = inputs_of(case, dtype=dtype)
    outputs, grads = passes(layer, inputs, upstream_of(layer, inputs), stochastic)
    assert {array.dtype for array in (outputs, *grads)} == {np.dtype(dtype)}
    assert all(
        getattr(leaf, name).dtype == dtype
        for _, leaf in SingleLayerModel(layer).named_layers()
        for name in leaf.array_names()
    )


@every_case
@both_modes
def test_float32_is_within_1e5_of_float64(case, stochastic):
    double = case.build()
    single = double.astype(np.float32)
    inputs = inputs_of(case, dtype=np.float32)
    upstream = upstream_of(single, inputs)
    wide, wide_upstream = inputs.astype(np.float64), upstream.astype(np.float64)
    expected, expected_grads = passes(double, wide, wide_upstream, stochastic)
    outputs, grads = passes(single, inputs, upstream, stochastic)
    for got, want in zip((outputs, *grads), (expected, *expected_grads), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(
    ("case", "layout"), CASES_AND_LAYOUTS, ids=[f"{c.name}, {name}" for c, name in CASES_AND_LAYOUTS]
)
@both_modes
def test_memory_layout_does_not_matter(case, stochastic, layout):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(layer, inputs)
    outputs, grads = passes(copy.deepcopy(layer), inputs, upstream, stochastic)
    x, g = (dict(layouts_of(array)).get(layout, array) for array in (inputs, upstream))
    again, grads_again = passes(copy.deepcopy(layer), x, g, stochastic)
    for one, other in zip((outputs, *grads), (again, *grads_again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@every_case
@both_modes
def test_no_argument_is_modified_and_calls_repeat(case, stochastic):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(layer, inputs)
    given = [inputs.copy(), upstream.copy(), *(param.copy() for param in arrays_of(layer))]
    outputs, grads = passes(copy.deepcopy(layer), inputs, upstream, stochastic)
    again, grads_again = passes(copy.deepcopy(layer), inputs, upstream, stochastic)
    for one, other in zip((outputs, *grads), (again, *grads_again), strict=True):
        np.testing.assert_array_equal(one, other)
    for before, after in zip(given, (inputs, upstream, *arrays_of(layer)), strict=True):
        np.testing.assert_array_equal(before, after)


@every_case
def test_evaluation_leaves_the_state_as_it_is(case):
    layer, inputs = case.build(), inputs_of(case)
    model = SingleLayerModel(layer)
    before = {name: array.copy() for name, array in model.named_arrays().items()}
    forward(layer, inputs, False)
    for name, array in model.named_arrays().items():
        np.testing.assert_array_equal(array, before[name])


@every_case
def test_a_copy_by_pickle_behaves_the_same(case):
    layer, inputs = case.build(), inputs_of(case)
    forward(layer, inputs, True)
    clone = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(forward(layer, inputs, True), forward(clone, inputs, True))
    assert repr(clone) == repr(layer)
    assert repr(layer).startswith(type(layer).__name__)


@every_case
def test_a_checkpoint_brings_everything_back(case, tmp_path):
    layer, inputs = case.build(), inputs_of(case)
    forward(layer, inputs, True)
    save_checkpoint(tmp_path / "a.safetensors", SingleLayerModel(layer), None, {})
    clone = case.build()
    for array in SingleLayerModel(clone).named_arrays().values():
        array[...] = 3.0
    load_checkpoint(tmp_path / "a.safetensors", SingleLayerModel(clone))
    np.testing.assert_array_equal(forward(layer, inputs, False), forward(clone, inputs, False))


ALL_THREE = ("inputs", "outputs", "grads_wrt_outputs")
METHODS = {
    "fprop": ("inputs",),
    "bprop": ALL_THREE,
    "backprop": ALL_THREE,
    "grads_wrt_params": ("inputs", "grads_wrt_outputs"),
}
CALLS = [
    (case, method)
    for case in LAYER_CASES
    for method in METHODS
    if hasattr(case.build(), method) and not case.build().children()
]
LENGTH = r"(?:[NCKDLHW]|A\d|\.\.\.|\d+)"
SENTENCES = (
    rf" has shape \([\d, ]*\), expected \({LENGTH}(, {LENGTH})*,?\): "
    r"(axis \d is \d+, not \d+|it has \d axes, not \d|axis \d is empty)",
    r"(: what it belongs to)? is a list, expected a NumPy or CuPy array: use np\.asarray\(\.\.\.\)",
    r"(: what it belongs to)? has dtype object, expected numbers \(float32, float64, complex128, \.\.\.\): "
    r"use x\.astype\(\.\.\.\)",
    r" has shape \([\d, ]*\): \d+ numbers an example do not fit output_shape \([-\d, ]*\)",
    r" has shape \([\d, ]*\): the last axis is no multiple of \d",
)
STALE = (
    ": the backward pass was asked for with other arrays than those of the last fprop; call fprop(inputs) first, and "
    "pass on the arrays that it took and returned: no copy of its outputs"
)


def called(case):
    """Return a layer that did a forward pass, and the arguments of its methods."""
    layer, inputs = case.build(), inputs_of(case)
    outputs = forward(layer, inputs, True)
    grads = np.random.default_rng(12).standard_normal(outputs.shape)
    return layer, {"inputs": inputs, "outputs": outputs, "grads_wrt_outputs": grads}


def wrong_forms(array):
    """Return a list, objects, an axis more, an axis less, an empty batch, and a longer array along every axis."""
    longer = [np.concatenate([array, array.take([0], axis=axis)], axis=axis) for axis in range(array.ndim)]
    return [array.tolist(), array.astype(object), array[..., None], array[0], array[:0], *longer]


def results(layer, method, arguments):
    """Return the arrays that a method returns."""
    found = getattr(layer, method)(*(arguments[name] for name in METHODS[method]))
    return [found[0], *found[1]] if isinstance(found, tuple) else found if isinstance(found, list) else [found]


def assert_is_a_sentence(error, layer, method, name):
    """Say who, what came, what was expected and which axis: in the very words."""
    if isinstance(error, StaleStateError):
        assert str(error) == f"{layer!r}{STALE}"
        return
    methods = {"fprop": "fprop", "bprop": "bprop"}.get(method, "bprop|backprop|grads_wrt_params")
    named = name if name == "grads_wrt_outputs" or method == "fprop" else "|".join(ALL_THREE)
    pattern = rf"{type(layer).__name__}\.({methods}): ({named})({'|'.join(SENTENCES)})"
    assert re.fullmatch(pattern, str(error)), error


@pytest.mark.parametrize(("case", "method"), CALLS, ids=[f"{case.name}, {method}" for case, method in CALLS])
def test_a_wrong_argument_is_refused_with_a_sentence(case, method):
    layer, right = called(case)
    for name in METHODS[method]:
        for wrong in wrong_forms(right[name]):
            try:
                found = results(copy.deepcopy(layer) if method == "fprop" else layer, method, {**right, name: wrong})
            except (ShapeError, DTypeError, StaleStateError) as error:
                assert_is_a_sentence(error, layer, method, name)
                continue
            if name == "outputs":  # where it is not looked at
                assert all(map(np.array_equal, found, results(layer, method, right)))
            else:  # inputs of another size, which are right too
                assert name == "inputs"
                assert wrong.dtype == float
                assert wrong.size
                assert found[0].shape == wrong.shape or method in ("fprop", "grads_wrt_params")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: layers.AffineLayer(4, 3), "(N, 4)"),
        (lambda: layers.IdentityLayer(), "(N, ...)"),
        (lambda: layers.ReshapeLayer(), "(N, ...)"),
        (lambda: layers.Convolution1DLayer(3, 2, 1), "(N, 3, L)"),
        (lambda: layers.Convolution2DLayer(3, 2, 1), "(N, 3, H, W)"),
        (lambda: layers.Convolution3DLayer(3, 2, 1), "(N, 3, D, H, W)"),
        (lambda: layers.ConvolutionalLayer(3, 2, 4, 5, 2, 2), "(N, 3, 4, 5)"),
        (lambda: layers.ConvolutionTranspose1DLayer(3, 2, 1), "(N, 3, L)"),
        (lambda: layers.ConvolutionTranspose2DLayer(3, 2, 1), "(N, 3, H, W)"),
        (lambda: layers.ConvolutionTranspose3DLayer(3, 2, 1), "(N, 3, D, H, W)"),
        (lambda: layers.BatchNormalizationLayer(3), "(N, 3, ...)"),
        (lambda: layers.LayerNormalizationLayer((3, 4)), "(N, 3, 4)"),
        (lambda: layers.GroupNormalizationLayer(1, 3), "(N, 3, ...)"),
        (lambda: layers.LocalResponseNormalizationLayer(3), "(N, C, ...)"),
        (lambda: layers.SigmoidLayer(), "(N, ...)"),
        (lambda: layers.TanhLayer(), "(N, ...)"),
        (lambda: layers.ReluLayer(), "(N, ...)"),
        (lambda: layers.LeakyReluLayer(), "(N, ...)"),
        (lambda: layers.ELULayer(), "(N, ...)"),
        (lambda: layers.SELULayer(), "(N, ...)"),
        (lambda: layers.SoftmaxLayer(), "(N, K, ...)"),
        (lambda: layers.LogSoftmaxLayer(), "(N, K, ...)"),
        (lambda: layers.DropoutLayer(), "(N, ...)"),
        (lambda: layers.MaxPooling1DLayer(), "(N, C, L)"),
        (lambda: layers.MaxPooling2DLayer(), "(N, C, H, W)"),
        (lambda: layers.MaxPooling3DLayer(), "(N, C, D, H, W)"),
        (lambda: layers.AveragePooling1DLayer(), "(N, C, L)"),
        (lambda: layers.AveragePooling2DLayer(), "(N, C, H, W)"),
        (lambda: layers.AveragePooling3DLayer(), "(N, C, D, H, W)"),
        (lambda: layers.GlobalAveragePooling1DLayer(), "(N, C, L)"),
        (lambda: layers.GlobalAveragePooling2DLayer(), "(N, C, H, W)"),
        (lambda: layers.GlobalAveragePooling3DLayer(), "(N, C, D, H, W)"),
        (lambda: layers.MaxPoolingLayer(), "(N, D, ...)"),
    ],
)
def test_inputs_have_the_axes_of_the_docstring(build, expected):
    layer, axes = build(), expected.replace(", ...", "").count(",") + 1
    with pytest.raises(ShapeError) as caught:
        layer.fprop(np.ones(()))
    who = type(layer).__name__
    assert str(caught.value) == f"{who}.fprop: inputs has shape (), expected {expected}: it has 0 axes, not {axes}"


def test_inputs_of_layer_normalisation_may_have_axes_in_between():
    with pytest.raises(ShapeError) as caught:
        layers.LayerNormalizationLayer((3, 4)).fprop(np.ones((2, 5, 6, 3, 5)))
    assert str(caught.value) == (
        "LayerNormalizationLayer.fprop: inputs has shape (2, 5, 6, 3, 5), expected (N, A1, A2, 3, 4): "
        "axis 4 is 5, not 4"
    )


@every_case
def test_arrays_on_two_devices_are_refused(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    layer, right = called(case)
    moved = {name: to_device(array, "gpu") for name, array in right.items()}
    message = (
        r"\w+\.\w+: (inputs|outputs|grads_wrt_outputs) lies on the [cg]pu, the parameters lie on the [cg]pu: move one "
    )
    calls = [("bprop", {**right, "grads_wrt_outputs": moved["grads_wrt_outputs"]})]
    if not layer.children():
        calls.append(("bprop", {**moved, "grads_wrt_outputs": right["grads_wrt_outputs"]}))
        calls.append(("bprop", {**moved, "inputs": right["inputs"]}))
    if arrays_of(layer):
        calls.append(("fprop", moved))
        calls.append(("grads_wrt_params", {**right, "grads_wrt_outputs": moved["grads_wrt_outputs"]}))
    for method, arguments in calls:
        with pytest.raises(DeviceMixError, match=message):
            results(layer, method, arguments)


@every_case
def test_a_stale_backward_pass_is_refused_where_there_is_memory(case):
    layer, inputs = case.build(), inputs_of(case)
    outputs = forward(layer, inputs, True)
    if layer._memory is not None:
        for stale in ((1.5 * inputs, outputs), (inputs, outputs.copy())):
            with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
                layer.bprop(*stale, np.ones_like(outputs))
        again = forward(layer, inputs, False)
        if again is not outputs:
            for backward in (layer.bprop, layer.backprop):
                with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
                    backward(inputs, outputs, np.ones_like(outputs))
        assert layer.bprop(inputs, again, np.ones_like(outputs)).shape == inputs.shape
    else:
        np.testing.assert_array_equal(
            layer.bprop(inputs.copy(), outputs, np.ones_like(outputs)),
            layer.bprop(inputs, outputs, np.ones_like(outputs)),
        )


@every_case
def test_params_are_set_in_place(case):
    layer = case.build()
    before = arrays_of(layer)
    if before:
        values = [np.random.default_rng(4).standard_normal(param.shape) for param in before]
        layer.params = values
        assert all(a is b for a, b in zip(layer.params, before, strict=True))
        for param, value in zip(layer.params, values, strict=True):
            np.testing.assert_array_equal(param, value)
        with pytest.raises(ShapeError, match="arrays, expected"):
            layer.params = values[:-1]


def test_every_public_layer_has_a_case():
    built = {type(case.build()).__name__ for case in LAYER_CASES}
    assert set(layers.__all__) - ABSTRACT == built


def test_every_case_has_a_name_of_its_own():
    assert len({case.name for case in LAYER_CASES}) == len(LAYER_CASES)
