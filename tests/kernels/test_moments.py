"""Means and variances where numbers are large, constant, whole or far apart."""

import numpy as np
import pytest

from mlp.kernels import moments
from mlp.layers import BatchNormalizationLayer, GroupNormalizationLayer, LayerNormalizationLayer
from mlp.layers.base import forward
from mlp.testing import check_gradients

NORMALISATIONS = [
    lambda: BatchNormalizationLayer(4),
    lambda: LayerNormalizationLayer(4),
    lambda: GroupNormalizationLayer(2, 4),
]
every_normalisation = pytest.mark.parametrize("build", NORMALISATIONS, ids=["batch", "layer", "group"])


def of_columns(x):
    return moments(x, x[:1], lambda rows: rows.mean(axis=0, keepdims=True))


def test_ordinary_numbers_have_the_ordinary_moments():
    x = np.random.default_rng(0).standard_normal((9, 3))
    centred, found = of_columns(x)
    np.testing.assert_allclose(centred, x - x.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(found.mean()[0], x.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(found.variance()[0], x.var(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.std(1e-5)[0], np.sqrt(x.var(axis=0) + 1e-5), rtol=1e-14)
    assert found.scale is None
    assert found.unit == 1.0


def test_a_constant_is_its_own_mean_exactly():
    centred, found = of_columns(np.full((7, 2), 0.1))
    np.testing.assert_array_equal(centred, 0.0)
    np.testing.assert_array_equal(found.mean(), 0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows_but_what_is_not_representable(dtype):
    largest = 0.9 * float(np.finfo(dtype).max)
    x = np.array([[largest, 1.0], [-largest, 2.0]], dtype)
    centred, found = of_columns(x)
    normalised = centred / found.std(1e-5)
    np.testing.assert_allclose(normalised[:, 0], [1.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose(normalised[:, 1], [-1.0, 1.0], rtol=1e-4)
    np.testing.assert_allclose(found.centred(x), centred)


@every_normalisation
@pytest.mark.parametrize("mean", [1e4, 1e6])
def test_gradients_keep_their_digits_where_the_mean_is_large(build, mean):
    x = mean + np.random.default_rng(0).standard_normal((6, 4))
    assert check_gradients(build(), x, methods=["complex step"], conduct=False).worst < 1e-11
    single, g = build().astype(np.float32), np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    shifted = x.astype(np.float32)
    dx, grads = single.backprop(shifted, forward(single, shifted, True), g)
    double = build()
    wide = shifted.astype(np.float64)
    expected, expected_grads = double.backprop(wide, forward(double, wide, True), g.astype(np.float64))
    for got, want in zip((dx, *grads), (expected, *expected_grads), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * max(1.0, np.abs(want).max()))


@every_normalisation
def test_whole_numbers_are_computed_with(build):
    x = np.arange(24).reshape(6, 4)
    layer, same = build(), build()
    outputs, expected = forward(layer, x, True), forward(same, x.astype(np.float64), True)
    np.testing.assert_allclose(outputs, expected, atol=1e-14)
    g = np.random.default_rng(0).standard_normal((6, 4))
    dx, grads = layer.backprop(x, outputs, g)
    assert dx.dtype == np.float64
    assert all(np.isfinite(grad).all() for grad in grads)
