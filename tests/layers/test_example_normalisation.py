"""Normalisation within an example: values by definition, integers, empty axes."""

import numpy as np
import pytest

from mlp.checks import ShapeError
from mlp.layers import (
    BatchNormalizationLayer,
    GroupNormalizationLayer,
    LayerNormalizationLayer,
    LocalResponseNormalizationLayer,
)
from mlp.layers.example_normalisation import ExampleStatistics

X = np.random.default_rng(0).standard_normal((2, 4, 3)) * 3 + 1


def normalised(x, axes, epsilon=1e-5):
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (LayerNormalizationLayer(3), normalised(X, 2)),
        (LayerNormalizationLayer((4, 3), epsilon=0.1), normalised(X, (1, 2), 0.1)),
        (GroupNormalizationLayer(1, 4), normalised(X, (1, 2))),
        (GroupNormalizationLayer(2, 4), normalised(X.reshape(2, 2, 2, 3), (2, 3)).reshape(X.shape)),
        (GroupNormalizationLayer(4, 4), normalised(X, 2)),
    ],
    ids=repr,
)
def test_groups_are_normalised_and_scaled(layer, expected):
    rng = np.random.default_rng(1)
    np.testing.assert_allclose(layer.fprop(X), expected, rtol=1e-12)
    layer.params = [rng.standard_normal(param.shape) for param in layer.params]
    spread = [param[:, None] if isinstance(layer, GroupNormalizationLayer) else param for param in layer.params]
    outputs = layer.fprop(X)
    np.testing.assert_allclose(outputs, expected * spread[0] + spread[1], rtol=1e-11, atol=1e-12)
    statistics = layer.remembered(ExampleStatistics, X, outputs)
    assert (statistics.inputs is X, statistics.outputs is outputs) == (True, True)


@pytest.mark.parametrize("build", [lambda: LayerNormalizationLayer(3), lambda: GroupNormalizationLayer(1, 3)])
def test_integers_are_normalised_as_floats(build):
    integers = np.array([[0, 4, 2], [2, 4, 9]])
    layer = build()
    outputs = layer.fprop(integers)
    np.testing.assert_allclose(outputs, normalised(integers, 1), rtol=1e-12)
    floats = integers.astype(float)
    twin = build()
    expected = twin.fprop(floats)
    np.testing.assert_array_equal(layer.bprop(integers, outputs, integers), twin.bprop(floats, expected, floats))


def of_channels(x, size, alpha, beta, bias):
    low, high = (size - 1) // 2, size // 2
    squares = np.stack([(x[:, max(0, c - low) : c + high + 1] ** 2).sum(axis=1) for c in range(x.shape[1])], axis=1)
    return x / (bias + alpha / size * squares) ** beta


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9])
def test_local_responses_are_weighed_by_their_neighbours(size):
    layer = LocalResponseNormalizationLayer(size, 0.7, 0.6, 1.3)
    np.testing.assert_allclose(layer.fprop(X), of_channels(X, size, 0.7, 0.6, 1.3), rtol=1e-13)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: GroupNormalizationLayer(1, 3), (2, 3, 0)),
        (lambda: GroupNormalizationLayer(1, 3), (2, 3, 4, 0)),
        (lambda: BatchNormalizationLayer(3), (2, 3, 0)),
    ],
)
def test_an_empty_axis_is_refused(build, shape):
    with pytest.raises(ShapeError) as caught:
        build().fprop(np.ones(shape))
    assert str(caught.value) == f"{build().__class__.__name__}.fprop: inputs has shape {shape}: an axis is empty"
