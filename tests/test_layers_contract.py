"""What every layer must do, generated from the table of cases."""

import copy
import pickle

import numpy as np
import pytest

from mlp import layers
from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.checks import DTypeError, ShapeError, StaleStateError
from mlp.layers.base import forward
from mlp.models import SingleLayerModel
from mlp.testing import check_gradients
from mlp.testing.cases import LAYER_CASES
from mlp.testing.conduct import layouts_of

ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}
LAYOUTS = ["Fortran", "reversed", "strided", "channels-last"]

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


@every_case
@both_modes
@pytest.mark.parametrize("layout", LAYOUTS)
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


@every_case
def test_wrong_arguments_are_refused_with_a_sentence(case):
    layer, inputs = case.build(), inputs_of(case)
    who = type(layer).__name__
    outputs = forward(layer, inputs, True)
    with pytest.raises(DTypeError, match="list, expected a NumPy or CuPy array"):
        layer.fprop(inputs.tolist())
    with pytest.raises(DTypeError, match="dtype"):
        layer.fprop(inputs.astype(object))
    with pytest.raises(ShapeError, match=r"has shape .*, expected .*: (axis|it has)") as caught:
        layer.bprop(inputs, outputs, np.ones((*outputs.shape, 2)))
    if not layer.children():
        assert who in str(caught.value)


@every_case
def test_a_stale_backward_pass_is_refused_where_there_is_memory(case):
    layer, inputs = case.build(), inputs_of(case)
    outputs = forward(layer, inputs, True)
    other = inputs.copy()
    if layer._memory is not None:
        with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
            layer.bprop(other, outputs, np.ones_like(outputs))
        again = forward(layer, inputs, False)
        if again is not outputs:
            with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
                layer.bprop(inputs, outputs, np.ones_like(outputs))
        assert layer.bprop(inputs, again, np.ones_like(outputs)).shape == inputs.shape
    else:
        np.testing.assert_array_equal(
            layer.bprop(other, outputs, np.ones_like(outputs)), layer.bprop(inputs, outputs, np.ones_like(outputs))
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
