"""The coursework's tests of layers and penalties, as its notebooks call them.

Each returns six values: whether the forward pass (a penalty's call) is right, what it gave, what is right, and the same
of the backward pass (a penalty's `grad`); as in::

    fprop_test, fprop_output, fprop_correct, bprop_test, bprop_output, bprop_correct = test_leaky_relu()

To test your own class, set it in this module: ``mlp.test_methods.LeakyReluLayer = MyLayer``. What is right comes from
the coursework's debug pack, activation_debug_pack.npy or regularization_debug_pack.npy, where one lies in
$MLP_DATA_DIR (or data/), and from the formula and its complex-step derivative where not; in both cases
`mlp.testing.check_gradients` proves the gradients too.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.checks import StaleStateError
from mlp.data_providers.base import DataDamagedError
from mlp.data_providers.download import find_file
from mlp.data_providers.pickle_reader import read_pack
from mlp.layers import (
    DropoutLayer,
    ExponentialLinearUnitLayer,
    LeakyReluLayer,
    ParametricReluLayer,
    RandomReluLayer,
)
from mlp.penalties import L1Penalty, L2Penalty
from mlp.reading import read_file
from mlp.testing import GradientError, check_gradients

SEED, SHAPE, STEP = 92019, (50, 3, 64, 64), 1e-30
MAX_PACK = 2**28
"""Bytes of a pack; ten arrays of this shape have 50 million."""
ACTIVATIONS, REGULARISATION = "activation_debug_pack.npy", "regularization_debug_pack.npy"


class Outcome(NamedTuple):
    """What a test found: of the forward pass, then of the backward pass. `..._test` is 1.0 where right, else 0.0."""

    fprop_test: float
    fprop_output: Any
    fprop_correct: Any
    bprop_test: float
    bprop_output: Any
    bprop_correct: Any

    def __repr__(self) -> str:
        forward, backward = ("right" if test else "WRONG" for test in (self.fprop_test, self.bprop_test))
        return f"Outcome(forward {forward}, backward {backward})"


def test_leaky_relu() -> Outcome:
    """Test `LeakyReluLayer()`."""
    return _layer(LeakyReluLayer(), lambda x: np.where(x.real > 0, x, 0.01 * x), ACTIVATIONS, "leaky")


def test_random_relu() -> Outcome:
    """Test `RandomReluLayer` with its default slopes, drawn by ``RandomState(1234)``."""
    slopes = np.random.RandomState(1234).uniform(0.125, 1.0 / 3.0, size=SHAPE)
    layer = RandomReluLayer(rng=np.random.RandomState(1234))
    return _layer(layer, lambda x: np.where(x.real > 0, x, slopes * x), ACTIVATIONS, "random")


def test_parametric_relu() -> Outcome:
    """Test `ParametricReluLayer()`, its parameter's gradient included."""
    return _layer(ParametricReluLayer(), lambda x: np.where(x.real > 0, x, 0.25 * x), ACTIVATIONS, "parametric")


def test_exponential_linear_unit() -> Outcome:
    """Test `ExponentialLinearUnitLayer()`."""

    def formula(x: Array) -> Array:
        return np.where(x.real > 0, x, 0.01 * (np.exp(np.where(x.real > 0, 0, x)) - 1.0))

    return _layer(ExponentialLinearUnitLayer(), formula, ACTIVATIONS, "exponential")


def test_dropout_layer() -> Outcome:
    """Test `DropoutLayer` in training mode, with its defaults and ``RandomState(92019)``."""
    mask = np.random.RandomState(SEED).uniform(size=(1, *SHAPE[1:])) < 0.5
    return _layer(DropoutLayer(np.random.RandomState(SEED)), lambda x: mask * x, REGULARISATION, "dropout")


def test_L1_Penalty() -> Outcome:  # the coursework's name
    """Test ``L1Penalty(1e-4)``."""
    coefficient = 1e-4
    return _penalty(L1Penalty(coefficient), lambda w: coefficient * w * np.sign(w.real), "l1")


def test_L2_Penalty() -> Outcome:  # the coursework's name
    """Test ``L2Penalty(1e-4)``."""
    coefficient = 1e-4
    return _penalty(L2Penalty(coefficient), lambda w: 0.5 * coefficient * w * w, "l2")


def _layer(layer: Any, formula: Callable[[Array], Array], pack: str, name: str) -> Outcome:
    """Compare an elementwise layer with its formula, which the complex step differentiates, or with a pack."""
    inputs, given = _inputs(), _inputs()
    outputs = layer.fprop(given)
    kept = np.array_equal(given, inputs)
    got = np.array(outputs)
    try:
        grads = layer.bprop(inputs=given, outputs=outputs, grads_wrt_outputs=np.ones(SHAPE))
    except StaleStateError:  # a forward pass that returns other arrays than it remembers
        grads = np.full(SHAPE, np.nan)
    right = formula(inputs), formula(inputs + 1j * STEP).imag / STEP
    return _outcome(layer, inputs[:3, :, :2, :2], (got, grads), _packed(pack, name) or right, kept)


def _penalty(penalty: Any, term: Callable[[Array], Array], name: str) -> Outcome:
    """Compare a penalty with the sum of its terms, which the complex step differentiates, or with a pack."""
    parameter, given = _inputs(), _inputs()
    value = penalty(given)
    kept = np.array_equal(given, parameter)
    grad = penalty.grad(_inputs())
    right = term(parameter).sum(), term(parameter + 1j * STEP).imag / STEP
    return _outcome(penalty, parameter[:3, :, :2, :2], (value, grad), _packed(REGULARISATION, name) or right, kept)


def _outcome(subject: Any, few: Array, got: tuple[Any, Any], right: tuple[Any, Any], kept: bool) -> Outcome:
    """Return the outcome; gradients are also proven on `few` inputs, where the forward pass is right.

    A forward pass that has not `kept` its inputs as they were is wrong.
    """
    agree = [_close(a, b) for a, b in zip(got, right, strict=True)]
    if not kept:
        warnings.warn(f"{type(subject).__name__} changed its inputs", RuntimeWarning, stacklevel=4)
        agree[0] = False
    if all(agree):
        try:
            check_gradients(subject, few)
        except GradientError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=4)
            agree[1] = False
    return Outcome(float(agree[0]), got[0], right[0], float(agree[1]), got[1], right[1])


def _close(got: Any, right: Any) -> bool:
    array = np.asarray(got)
    return array.dtype.kind in "fiu" and array.shape == np.shape(right) and bool(np.allclose(array, right))


def _inputs() -> Array:
    return np.random.RandomState(SEED).normal(loc=0.0, scale=5.0, size=SHAPE)


def _packed(pack: str, name: str) -> tuple[Array, Array] | None:
    """Return the right outputs and gradients in a debug pack, found by the words in its keys; None without a pack."""
    path = find_file(pack)
    if path is None:
        return None
    try:
        data = read_file(path, MAX_PACK)
    except (OSError, ValueError) as error:
        raise DataDamagedError(f"{path} cannot be read: {error}. It was left as it is.") from error
    arrays = read_pack(data, str(path))
    mine = {key: array for key, array in arrays.items() if name in key.lower()}
    grads = [array for key, array in mine.items() if "grad" in key.lower() or "bprop" in key.lower()]
    outputs = [array for key, array in mine.items() if "grad" not in key.lower() and "bprop" not in key.lower()]
    if len(grads) == len(outputs) == 1:
        return outputs[0], grads[0]
    warnings.warn(
        f"{path} has not one output and one gradient with {name!r} in its keys, but {', '.join(arrays)}: it is not "
        f"used, and what is right comes from the formula",
        RuntimeWarning,
        stacklevel=4,
    )
    return None
