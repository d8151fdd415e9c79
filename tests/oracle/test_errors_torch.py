"""Every error function against PyTorch: values and gradients, in float64."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'mlp[oracle]'")

import torch.nn.functional as F  # noqa: E402

from mlp import errors  # noqa: E402

from .torch_twins import shapes, tensor  # noqa: E402

INTEGERS = [np.int64, np.int32, np.int16, np.uint8]


class Twin(NamedTuple):
    """An error, outputs and targets, and the error of the same outputs in PyTorch."""

    error: object
    outputs: np.ndarray
    targets: np.ndarray
    function: Callable
    factor: float = 1.0
    """By how much our gradient is larger than that of the value."""


def random_numbers(draw):
    return np.random.default_rng(draw(st.integers(0, 10**6)))


@st.composite
def squares(draw):
    shape, rng = draw(shapes()), random_numbers(draw)
    outputs, targets = rng.standard_normal((2, *shape)) * draw(st.sampled_from([0.01, 1.0, 100.0]))
    return Twin(
        errors.SumOfSquaredDiffsError(),
        outputs,
        targets,
        lambda y: F.mse_loss(y, tensor(targets), reduction="sum") / 2 / len(y),
    )


@st.composite
def binary(draw, with_sigmoid):
    shape, rng = draw(shapes()), random_numbers(draw)
    targets = draw(st.sampled_from([rng.uniform(size=shape), rng.integers(0, 2, shape).astype(float)]))
    factor = targets[0].size  # the coursework's: the value is a mean over all entries, the gradient is over N alone
    if with_sigmoid:
        outputs = rng.standard_normal(shape) * draw(st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
        error, function = errors.BinaryCrossEntropySigmoidError(), F.binary_cross_entropy_with_logits
    else:
        outputs = rng.uniform(0.001, 0.999, shape)
        error, function = errors.BinaryCrossEntropyError(), F.binary_cross_entropy
    return Twin(error, outputs, targets, lambda y: function(y, tensor(targets)), factor)


def class_targets(draw, rng, shape):
    """Return targets as labels, one-hot or soft, for outputs of a shape (N, K, ...)."""
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(draw(st.sampled_from(INTEGERS)))
    kind = draw(st.sampled_from(["labels", "one-hot", "soft"]))
    if kind == "labels":
        return labels
    if kind == "one-hot":
        return np.moveaxis(np.eye(shape[1])[labels], -1, 1)
    soft = rng.uniform(size=shape)
    return soft / soft.sum(axis=1, keepdims=True)


@st.composite
def cross_entropies(draw):
    shape, rng = draw(shapes(2, 4)), random_numbers(draw)
    outputs, targets = rng.uniform(0.01, 1.0, shape), class_targets(draw, rng, shape)

    def function(y):
        if targets.ndim < y.ndim:
            return F.nll_loss(y.log(), tensor(targets).long())
        return -(tensor(targets) * y.log()).sum(1).mean()

    return Twin(errors.CrossEntropyError(), outputs, targets, function)


@st.composite
def softmax_cross_entropies(draw):
    shape, rng = draw(shapes(2, 4)), random_numbers(draw)
    outputs = rng.standard_normal(shape) * draw(st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
    targets, classes = class_targets(draw, rng, shape), shape[1]
    given = {} if draw(st.booleans()) else {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    reduction = given.get("reduction", "mean")
    weights = None
    if draw(st.booleans()):
        weights = given["class_weights"] = rng.uniform(0.1, 3.0, classes)
    if targets.ndim < outputs.ndim:
        ignored = draw(st.sampled_from([None, classes + 3, 100, -1, -100, *([0, classes - 1] if classes > 1 else [])]))
        if ignored is not None:
            given["ignore_label"] = ignored
            targets = ignoring(draw, rng, targets, ignored, classes)

    def function(y):
        weight = None if weights is None else tensor(weights)
        if targets.ndim < y.ndim:
            ignore_index = given.get("ignore_label", -100)
            return F.cross_entropy(y, tensor(targets).long(), weight, ignore_index=ignore_index, reduction=reduction)
        if weight is None:
            return F.cross_entropy(y, tensor(targets), reduction=reduction)
        losses = F.cross_entropy(y, tensor(targets), weight, reduction="none")
        if reduction == "none":
            return losses
        # PyTorch divides by the number of places here, and by the sum of weights where targets are labels; ours always
        # divides by the sum of weights.
        totals = torch.einsum("k,nk...->", weight, tensor(targets))
        return losses.sum() / (totals if reduction == "mean" else 1.0)

    return Twin(errors.CrossEntropySoftmaxError(**given), outputs, targets, function)


def ignoring(draw, rng, labels, ignored, classes):
    """Return labels with some of them the ignored one, but not all."""
    labels = labels.astype(np.int64) if ignored < 0 else labels.copy()
    labels[rng.uniform(size=labels.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = ignored
    if (labels == ignored).all():
        labels.flat[0] = (ignored + 1) % classes
    return labels


TWINS = {
    "SumOfSquaredDiffsError": squares(),
    "BinaryCrossEntropyError": binary(False),
    "BinaryCrossEntropySigmoidError": binary(True),
    "CrossEntropyError": cross_entropies(),
    "CrossEntropySoftmaxError": softmax_cross_entropies(),
}


def assert_close(what, got, want):
    want = want.detach().numpy()
    assert np.shape(got) == want.shape, what
    difference = np.abs(got - want).max()
    assert difference <= 1e-10 * max(1, np.abs(want).max()), f"{what} differs by {difference}"


@pytest.mark.parametrize("name", TWINS)
@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_values_and_gradients_are_torchs(name, data):
    twin = data.draw(TWINS[name], label="twin")
    assert type(twin.error).__name__ == name
    outputs = tensor(twin.outputs, requires_grad=True)
    value = twin.function(outputs)
    value.sum().backward()
    assert_close("value", twin.error(twin.outputs, twin.targets), value)
    assert_close("gradient", twin.error.grad(twin.outputs, twin.targets), outputs.grad * twin.factor)


def test_every_public_error_has_a_twin():
    public = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if value.__module__ == errors.__name__ and not name.startswith("_")
    }
    assert public == set(TWINS)
