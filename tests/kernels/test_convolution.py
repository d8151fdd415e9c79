import itertools

import numpy as np
import pytest

from mlp.kernels import ConvGeometry, conv, conv_grad_inputs, conv_grad_kernels, conv_grads

from .. import reference

GEOMETRIES = list(
    itertools.product(
        [(1, 1), (3, 3), (2, 3)],
        [(1, 1), (2, 1), (3, 2)],
        [(0, 0), (1, 1), (3, 2)],
        [(1, 1), (2, 1), (1, 3)],
    )
)


def geometry_of(kernel, stride, padding, dilation):
    return ConvGeometry(kernel, stride, tuple((size, size) for size in padding), dilation)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_all_passes_equal_the_naive_loops(geometry):
    kernel, *rest = geometry
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 2, 8, 7)), rng.standard_normal((3, 2, *kernel)), rng.standard_normal(3)
    ours = geometry_of(*geometry)
    y = conv(x, w, b, ours)
    np.testing.assert_allclose(y, reference.conv2d(x, w, b, *rest), atol=1e-12)
    g = rng.standard_normal(y.shape)
    dx, dw = reference.conv2d_grads(x, w, g, *rest)
    np.testing.assert_allclose(conv_grad_inputs(g, w, ours, x.shape[2:]), dx, atol=1e-12)
    np.testing.assert_allclose(conv_grad_kernels(x, g, ours), dw, atol=1e-12)
    for got, want in zip(conv_grads(x, g, w, ours), (dx, dw), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_any_batch_is_cut_into_parts_that_add_up(n, monkeypatch):
    monkeypatch.setattr("mlp.kernels.convolution._CHUNK_NUMBERS", 500)
    rng = np.random.default_rng(1)
    x, w, g = rng.standard_normal((n, 2, 5, 4)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal((n, 3, 5, 4))
    geometry = geometry_of((3, 3), (1, 1), (1, 1), (1, 1))
    np.testing.assert_allclose(
        conv(x, w, None, geometry), reference.conv2d(x, w, np.zeros(3), (1, 1), (1, 1), (1, 1)), atol=1e-12
    )
    dx, dw = reference.conv2d_grads(x, w, g, (1, 1), (1, 1), (1, 1))
    for got, want in zip(conv_grads(x, g, w, geometry), (dx, dw), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11)


def test_results_are_channels_last_in_memory():
    x, w = np.ones((2, 3, 6, 5)), np.ones((4, 3, 3, 3))
    y = conv(x, w, None, geometry_of((3, 3), (1, 1), (1, 1), (1, 1)))
    assert y.shape == (2, 4, 6, 5)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
