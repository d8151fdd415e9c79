"""What every layer must do, generated from the table of cases."""

import copy
import pickle

import numpy as np
import pytest

from mlp import layers
from mlp.checks import DTypeError, ShapeError, StaleStateError
from mlp.layers.base import forward
from mlp.testing import check_gradients

from .cases import ABSTRACT, LAYER_CASES

every_case = pytest.mark.parametrize("case", LAYER_CASES, ids=[case.name for case in LAYER_CASES])
both_modes = pytest.mark.parametrize("stochastic", [True, False], ids=["training", "evaluation"])


def inputs_of(case, seed=11, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(case.shape).astype(dtype)


def arrays_of(layer):
    return layer.params if isinstance(layer, layers.LayerWithParameters) else []


def passes(layer, inputs, upstream, stochastic=True):
    """Return (outputs, [dE/d inputs, dE/d parameter, ...])."""
    outputs = forward(layer, inputs, stochastic)
    grads_wrt_inputs, grads_wrt_params = layer.backprop(inputs, outputs, upstream)
    return outputs, [grads_wrt_inputs, *grads_wrt_params]


def upstream_of(case, layer, dtype=np.float64):
    outputs = forward(copy.deepcopy(layer), inputs_of(case, dtype=dtype), True)
    return np.random.default_rng(12).standard_normal(outputs.shape).astype(dtype)


@every_case
@both_modes
@pytest.mark.parametrize("method", ["complex step", "central differences"])
def test_gradients_are_right(case, stochastic, method):
    check_gradients(case.build(), inputs_of(case), stochastic=stochastic, method=method)


@every_case
def test_bprop_and_grads_wrt_params_equal_backprop(case):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(case, layer)
    outputs, (grads_wrt_inputs, *grads) = passes(layer, inputs, upstream)
    np.testing.assert_allclose(layer.bprop(inputs, outputs, upstream), grads_wrt_inputs, rtol=1e-12, atol=1e-13)
    if isinstance(layer, layers.LayerWithParameters):
        alone = layer.grads_wrt_params(inputs, upstream)
        assert len(alone) == len(layer.params) == len(grads)
        for one, other in zip(alone, grads, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@every_case
@both_modes
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_in_is_dtype_out(case, stochastic, dtype):
    layer = case.build().astype(dtype)
    outputs, grads = passes(layer, inputs_of(case, dtype=dtype), upstream_of(case, layer, dtype), stochastic)
    assert {array.dtype for array in (outputs, *grads)} == {np.dtype(dtype)}


@every_case
def test_float32_is_within_1e5_of_float64(case):
    double = case.build()
    single = double.astype(np.float32)
    inputs, upstream = inputs_of(case, dtype=np.float32), upstream_of(case, double, np.float32)
    expected, expected_grads = passes(double, inputs.astype(np.float64), upstream.astype(np.float64))
    outputs, grads = passes(single, inputs, upstream)
    for got, want in zip((outputs, *grads), (expected, *expected_grads), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


def _layouts(x):
    yield "Fortran", np.asfortranarray(x)
    yield "reversed", x[..., ::-1].copy()[..., ::-1]
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]))
    wide[..., ::2] = x
    yield "strided", wide[..., ::2]
    if x.ndim == 4:
        yield "channels-last", x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


@every_case
def test_memory_layout_does_not_matter(case):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(case, layer)
    outputs, grads = passes(copy.deepcopy(layer), inputs, upstream)
    for (name, x), (_, g) in zip(_layouts(inputs), _layouts(upstream), strict=False):
        again, grads_again = passes(copy.deepcopy(layer), x, g)
        for one, other in zip((outputs, *grads), (again, *grads_again), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13, err_msg=name)


@every_case
@both_modes
def test_no_argument_is_modified_and_calls_repeat(case, stochastic):
    layer, inputs = case.build(), inputs_of(case)
    upstream = upstream_of(case, layer)
    given = [inputs.copy(), upstream.copy(), *(param.copy() for param in arrays_of(layer))]
    outputs, grads = passes(copy.deepcopy(layer), inputs, upstream, stochastic)
    again, grads_again = passes(copy.deepcopy(layer), inputs, upstream, stochastic)
    for one, other in zip((outputs, *grads), (again, *grads_again), strict=True):
        np.testing.assert_array_equal(one, other)
    for before, after in zip(given, (inputs, upstream, *arrays_of(layer)), strict=True):
        np.testing.assert_array_equal(before, after)


@every_case
def test_a_copy_by_pickle_behaves_the_same(case):
    layer, inputs = case.build(), inputs_of(case)
    clone = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(forward(layer, inputs, True), forward(clone, inputs, True))
    assert repr(clone) == repr(layer)
    assert repr(layer).startswith(type(layer).__name__)


@every_case
def test_wrong_arguments_are_refused_with_a_sentence(case):
    layer, inputs = case.build(), inputs_of(case)
    who = type(layer).__name__
    outputs = forward(layer, inputs, True)
    with pytest.raises(DTypeError, match="list, expected a NumPy or CuPy array"):
        layer.fprop(inputs.tolist())
    with pytest.raises(DTypeError, match="dtype"):
        layer.fprop(inputs.astype(object))
    with pytest.raises(ShapeError, match=r"empty|expected"):
        layer.fprop(inputs[:0])
    with pytest.raises(ShapeError, match=r"has shape .*, expected .*: (axis|it has)") as caught:
        layer.bprop(inputs, outputs, np.ones((*outputs.shape, 2)))
    if who not in ("ChainLayer", "ResidualLayer"):
        assert who in str(caught.value)


@every_case
def test_a_stale_backward_pass_is_refused_where_there_is_memory(case):
    layer, inputs = case.build(), inputs_of(case)
    outputs = forward(layer, inputs, True)
    remembers = layer._memory is not None
    other = inputs.copy()
    if remembers:
        with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
            layer.bprop(other, outputs, np.ones_like(outputs))
        again = forward(layer, inputs, False)
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
    built = {type(leaf).__name__ for case in LAYER_CASES for leaf in [case.build()]}
    assert set(layers.__all__) - ABSTRACT - built == set()
