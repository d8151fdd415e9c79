"""What layers inherit: refusals of what a subclass lacks, setting parameters, copies of another dtype or device."""

import sys
from collections import namedtuple
from inspect import signature

import numpy as np
import pytest

from mlp import layers, penalties
from mlp.backend import device_of
from mlp.checks import DeviceMixError, DTypeError, ShapeError, StaleStateError
from mlp.initialisers import ConstantInit
from mlp.layers.base import assign, forward, initial, layers_astype, layers_to_device, walk

from ..strict_cupy import StrictCupy

X = np.arange(6.0).reshape(2, 3)
Memory = namedtuple("Memory", "inputs outputs")


class Doubling(layers.Layer):
    def fprop(self, inputs):
        return 2 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2 * grads_wrt_outputs


class Scaling(layers.LayerWithParameters):
    param_names = ("scale", "offset")

    def __init__(self, offset=True):
        self.scale = np.full(3, 2.0)
        self.offset = np.ones(3) if offset else None
        self.scale_penalty = penalties.L2Penalty(0.5)

    def fprop(self, inputs):
        return inputs * self.scale

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.scale

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return self.with_penalties([(grads_wrt_outputs * inputs).sum(axis=0), grads_wrt_outputs.sum(axis=0)])


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        (layers.Layer, lambda layer: layer.fprop(X), "Layer has no fprop"),
        (layers.Layer, lambda layer: layer.bprop(X, X, X), "Layer has no bprop"),
        (layers.StochasticLayer, lambda layer: layer.fprop(X), "StochasticLayer has no fprop"),
        (
            layers.LayerWithParameters,
            lambda layer: layer.grads_wrt_params(X, X),
            "LayerWithParameters has no grads_wrt_params",
        ),
    ],
)
def test_what_a_subclass_must_write_is_said(kind, call, message):
    with pytest.raises(NotImplementedError) as caught:
        call(kind())
    assert str(caught.value) == message


def test_a_layer_needs_two_methods_only():
    layer = Doubling()
    through, grads = layer.backprop(X, layer.fprop(X), X)
    np.testing.assert_array_equal(through, 2 * X)
    assert grads == []
    assert layer.backprop(X, X, X, need_inputs=False) == (None, [])
    assert (layer.children(), layer.array_names(), layer.multiply_adds((2, 3), (2, 3))) == ((), (), 0)
    assert (layer.name, layer.gives_subgradients, repr(layer)) == (None, True, "Doubling")
    assert list(walk(layer)) == [layer]
    np.testing.assert_array_equal(forward(layer, X, stochastic=True), 2 * X)


def test_a_layer_with_parameters_needs_their_names_and_gradients():
    layer = Scaling()
    through, grads = layer.backprop(X, layer.fprop(X), np.ones_like(X))
    np.testing.assert_array_equal(through, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(grads[0], X.sum(axis=0) + 0.5 * layer.scale)
    np.testing.assert_array_equal(grads[1], [2.0, 2.0, 2.0])
    through, again = layer.backprop(X, X, np.ones_like(X), need_inputs=False)
    assert through is None
    np.testing.assert_array_equal(again, grads)
    assert layer.params_penalty() == penalties.L2Penalty(0.5)(layer.scale)
    assert layers.AffineLayer(3, 2).params_penalty() == 0
    assert layer.array_names() == ("scale", "offset")
    assert Scaling(offset=False).array_names() == ("scale",)


def test_a_gradient_too_few_is_no_silent_loss():
    with pytest.raises(ValueError, match="zip"):
        Scaling().with_penalties([np.ones(3)])


def test_parameters_without_names_are_refused_where_names_are_needed():
    class Nameless(Scaling):
        param_names = ()
        params = (1, 2)

    with pytest.raises(TypeError) as caught:
        Nameless().array_names()
    assert str(caught.value) == "Nameless has 2 params and names 0: set param_names = (...)"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (lambda: [np.ones(3)], ShapeError, "Scaling.params: 1 arrays, expected 2: scale, offset"),
        (
            lambda: [np.ones(3), np.ones(4)],
            ShapeError,
            "Scaling.offset has shape (4,), expected (3,): axis 0 is 4, not 3",
        ),
        (
            lambda: [np.ones(3), [0.0] * 3],
            DTypeError,
            "Scaling.offset is a list, expected a NumPy or CuPy array: use np.asarray(...)",
        ),
        (
            lambda: [np.ones(3), np.ones(3, complex)],
            TypeError,
            "Scaling.offset is float64 and cannot hold complex128: use layer.astype(...) first",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_any_is_set(values, error, message):
    layer = Scaling()
    with pytest.raises(error) as caught:
        layer.params = values()
    assert str(caught.value) == message
    assert (layer.scale == 2.0).all()


def test_parameters_are_set_from_any_numbers_that_fit():
    layer = Scaling()
    layer.params = [np.array([1, 2, 3], np.uint8), np.array([0.5, 1, 2], np.float32)]
    np.testing.assert_array_equal(layer.params, [[1, 2, 3], [0.5, 1, 2]])
    assert layer.scale.dtype == np.float64


def test_parameters_are_not_set_from_another_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    layer = Scaling()
    with pytest.raises(DeviceMixError, match=r"^Scaling.scale lies on the gpu, the parameters lie on the cpu: move"):
        layer.params = layers_to_device([layer], "gpu")[0].params


def test_as_many_values_as_parameters_are_assigned():
    with pytest.raises(ValueError, match="zip"):
        assign(["a"], [np.ones(2)], [np.ones(2), np.ones(2)])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f2", "f2"), ("f4", "f4"), ("f8", "f8"), ("c8", "c8"), ("u1", "f8"), ("i4", "f8"), ("i8", "f8")],
)
def test_initial_values_are_floats(dtype, expected):
    source = np.ones((2, 3), dtype)
    values = initial("x", lambda shape: source, (2, 3))
    assert values.dtype == expected
    assert values is not source
    np.testing.assert_array_equal(values, np.ones((2, 3)))


def test_what_was_remembered_belongs_to_its_arrays():
    layer = Doubling()
    message = (
        "Doubling: the backward pass was asked for with other arrays than those of the last fprop; call "
        "fprop(inputs) first, and pass on the arrays that it took and returned: no copy of its outputs"
    )

    def refused(*arguments):
        with pytest.raises(StaleStateError) as caught:
            layer.remembered(*arguments)
        assert str(caught.value) == message

    refused(Memory, X)
    outputs = layer.fprop(X)
    layer._memory = Memory(X, outputs)
    assert layer.remembered(Memory, X) is layer.remembered(Memory, X, outputs) is layer._memory
    assert layer.remembered(Memory, X.copy(), outputs) is layer._memory
    refused(Memory, X, outputs.copy())
    for other in (X + 1.0, X.astype("f4"), X[:1], X.astype("c16")):
        refused(Memory, other)
        refused(Memory, other, outputs)
    refused(Memory, X.copy())
    refused(namedtuple("Other", "inputs outputs"), X, outputs)
    assert "_memory" not in layer.__getstate__()


def test_a_copy_of_another_dtype_keeps_the_original():
    layer = layers.BatchNormalizationLayer(3)
    copy = layer.astype("float32")
    assert {getattr(copy, name).dtype for name in layer.array_names()} == {np.dtype("f4")}
    assert {getattr(layer, name).dtype for name in layer.array_names()} == {np.dtype("f8")}
    with pytest.raises(TypeError) as caught:
        layer.astype("int64")
    assert str(caught.value) == "astype: dtype is 'int64', expected a float or complex dtype"


def test_a_copy_on_another_device_keeps_the_original(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    chain = layers.ChainLayer([layers.AffineLayer(3, 2), layers.BatchNormalizationLayer(2)])
    copy = chain.to_device("gpu")
    for one, device in ((chain, "cpu"), (copy, "gpu"), (copy.to_device("cpu"), "cpu")):
        assert {device_of(getattr(leaf, name)) for leaf in walk(one) for name in leaf.array_names()} == {device}


def test_what_layers_share_their_copies_share():
    rng = np.random.RandomState(0)
    one, other = layers_astype([layers.DropoutLayer(rng), layers.DropoutLayer(rng)], "float32")
    assert one.rng is other.rng
    assert one.rng is not rng


def test_a_stochastic_layer_has_a_stream():
    rng = np.random.RandomState(0)
    assert layers.StochasticLayer(rng).rng is rng
    assert isinstance(layers.StochasticLayer().rng, np.random.RandomState)
    assert layers.ChainLayer([Doubling()]).rng is None


@pytest.mark.parametrize(
    "kind",
    [
        layers.StochasticLayer,
        layers.DropoutLayer,
        layers.BatchNormalizationLayer,
        layers.ChainLayer,
        layers.ResidualLayer,
        layers.AdditionLayer,
        layers.ConcatenationLayer,
        layers.MatrixProductLayer,
    ],
)
def test_training_is_the_mode_unless_told_otherwise(kind):
    assert signature(kind.fprop).parameters["stochastic"].default is True


def test_the_initialiser_gets_the_shape_and_is_called_once():
    seen = []

    def init(shape):
        seen.append(shape)
        return ConstantInit(1.0)(shape)

    layers.AffineLayer(3, 2, init, init)
    assert seen == [(2, 3), (2,)]
