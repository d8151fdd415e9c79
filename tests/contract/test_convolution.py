"""The coursework's convolution, 2-d max pooling and batch normalisation."""

import numpy as np
import pytest

from mlp import layers
from mlp.initialisers import ConstantInit, UniformInit
from mlp.penalties import L1Penalty, L2Penalty

SIZES = {"input_height": 5, "input_width": 4, "kernel_height": 3, "kernel_width": 2}
SIZES_2017 = {"input_dim_1": 5, "input_dim_2": 4, "kernel_dim_1": 3, "kernel_dim_2": 2}
both_spellings = pytest.mark.parametrize("sizes", [SIZES, SIZES_2017], ids=["2018", "2017"])

RNG = np.random.RandomState(1)
X = RNG.normal(size=(2, 3, 5, 4))
KERNELS = RNG.normal(size=(4, 3, 3, 2))
BIASES = RNG.normal(size=4)
G = RNG.normal(size=(2, 4, 3, 3))


def convolve(x, kernels, biases):
    """Return the true convolution: y[i, j] takes x[i + a, j + b] with the kernel's entry [KH - 1 - a, KW - 1 - b]."""
    (n, channels, height, width), (filters, _, kh, kw) = x.shape, kernels.shape
    y = np.zeros((n, filters, height - kh + 1, width - kw + 1))
    for b, k, i, j in np.ndindex(*y.shape):
        y[b, k, i, j] = biases[k]
        for c, u, v in np.ndindex(channels, kh, kw):
            y[b, k, i, j] += x[b, c, i + u, j + v] * kernels[k, c, kh - 1 - u, kw - 1 - v]
    return y


def convolve_back(x, kernels, g):
    """Return (dE/dx, dE/dkernels, dE/dbiases)."""
    dx, dk, db = np.zeros(x.shape), np.zeros(kernels.shape), np.zeros(len(kernels))
    kh, kw = kernels.shape[2:]
    for b, k, i, j in np.ndindex(*g.shape):
        db[k] += g[b, k, i, j]
        for c, u, v in np.ndindex(x.shape[1], kh, kw):
            dx[b, c, i + u, j + v] += g[b, k, i, j] * kernels[k, c, kh - 1 - u, kw - 1 - v]
            dk[k, c, kh - 1 - u, kw - 1 - v] += g[b, k, i, j] * x[b, c, i + u, j + v]
    return dx, dk, db


@both_spellings
def test_attributes_and_defaults(sizes):
    layer = layers.ConvolutionalLayer(num_input_channels=3, num_output_channels=4, **sizes)
    assert layer.kernels_shape == (4, 3, 3, 2)
    assert layer.inputs_shape == (None, 3, 5, 4)
    assert layer.kernels.shape == (4, 3, 3, 2)
    assert (np.abs(layer.kernels) <= 0.01).all()
    assert np.abs(layer.kernels).max() > 0.005
    np.testing.assert_array_equal(layer.biases, np.zeros(4))
    assert layer.kernels.dtype == layer.biases.dtype == np.float64
    assert (layer.kernels_penalty, layer.biases_penalty) == (None, None)
    assert layer.params[0] is layer.kernels
    assert layer.params[1] is layer.biases


def test_there_is_a_cache():
    assert layers.ConvolutionalLayer(3, 4, **SIZES).cache is None
    assert hasattr(layers.BatchNormalizationLayer(5), "cache")


def test_arguments_by_position():
    rng, theirs = np.random.RandomState(0), np.random.RandomState(0)
    penalties = L1Penalty(0.1), L2Penalty(0.2)
    init, biases_init = UniformInit(-1, 1, rng), UniformInit(2, 3, rng)
    layer = layers.ConvolutionalLayer(3, 4, 5, 4, 3, 2, init, biases_init, *penalties)
    np.testing.assert_array_equal(layer.kernels, theirs.uniform(-1, 1, (4, 3, 3, 2)))
    np.testing.assert_array_equal(layer.biases, theirs.uniform(2, 3, 4))
    assert (layer.kernels_penalty, layer.biases_penalty) == penalties


@both_spellings
def test_it_is_a_true_convolution(sizes):
    layer = layers.ConvolutionalLayer(3, 4, **sizes)
    layer.params = [KERNELS, BIASES]
    np.testing.assert_allclose(layer.fprop(X), convolve(X, KERNELS, BIASES), rtol=1e-11, atol=1e-13)


@both_spellings
def test_gradients_need_no_forward_pass(sizes):
    dx, dk, db = convolve_back(X, KERNELS, G)
    layer = layers.ConvolutionalLayer(3, 4, **sizes)
    layer.params = [KERNELS, BIASES]
    kernels, biases = layer.grads_wrt_params(X, G)
    np.testing.assert_allclose(kernels, dk, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(biases, db, rtol=1e-11, atol=1e-13)
    layer = layers.ConvolutionalLayer(3, 4, **sizes)
    layer.params = [KERNELS, BIASES]
    np.testing.assert_allclose(layer.bprop(X, None, G), dx, rtol=1e-11, atol=1e-13)
    outputs = convolve(X, KERNELS, BIASES)
    np.testing.assert_allclose(layer.bprop(inputs=X, outputs=outputs, grads_wrt_outputs=G), dx, rtol=1e-11, atol=1e-13)


def test_penalties_are_added_to_the_gradients():
    layer = layers.ConvolutionalLayer(3, 4, **SIZES, kernels_penalty=L1Penalty(0.1), biases_penalty=L2Penalty(0.2))
    layer.params = [KERNELS, BIASES]
    _, dk, db = convolve_back(X, KERNELS, G)
    kernels, biases = layer.grads_wrt_params(X, G)
    np.testing.assert_allclose(kernels, dk + 0.1 * np.sign(KERNELS), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(biases, db + 0.2 * BIASES, rtol=1e-11, atol=1e-13)
    expected = 0.1 * np.abs(KERNELS).sum() + 0.1 * (BIASES**2).sum()
    assert layer.params_penalty() == pytest.approx(expected, rel=1e-12)


def test_everything_may_be_integers():
    inputs, kernels = np.arange(96).reshape(2, 3, 4, 4), np.arange(-12, 12).reshape(2, 3, 2, 2)
    biases, grads = np.arange(2), np.arange(-20, 16).reshape(2, 2, 3, 3)
    dx, dk, db = convolve_back(inputs, kernels, grads)

    def layer():
        built = layers.ConvolutionalLayer(3, 2, input_dim_1=4, input_dim_2=4, kernel_dim_1=2, kernel_dim_2=2)
        built.params = [kernels, biases]
        return built

    np.testing.assert_array_equal(layer().params[0], kernels)
    np.testing.assert_array_equal(layer().params[1], biases)
    np.testing.assert_allclose(layer().fprop(inputs), convolve(inputs, kernels, biases), rtol=1e-12)
    np.testing.assert_allclose(layer().bprop(inputs, None, grads), dx, rtol=1e-12, atol=1e-10)
    for found, expected in zip(layer().grads_wrt_params(inputs, grads), (dk, db), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-10)


# --- max pooling


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"), [(8, 8, 2, 2), (7, 6, 3, 2), (5, 6, 2, 1), (7, 7, 2, 3)]
)
def test_max_pooling_2d(height, width, size, stride):
    x = RNG.permutation(2 * 3 * height * width).reshape(2, 3, height, width).astype(float)
    layer = layers.MaxPooling2DLayer(input_height=height, input_width=width, size=size, stride=stride)
    out = (height - size) // stride + 1, (width - size) // stride + 1
    expected, g, dx = np.zeros((2, 3, *out)), RNG.normal(size=(2, 3, *out)), np.zeros_like(x)
    for n, c, i, j in np.ndindex(*expected.shape):
        places = [(i * stride + u, j * stride + v) for u, v in np.ndindex(size, size)]
        best = max(places, key=lambda place: x[n, c][place])
        expected[n, c, i, j] = x[n, c][best]
        dx[n, c][best] += g[n, c, i, j]
    outputs = layer.fprop(x)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_allclose(layer.bprop(x, outputs, g), dx, rtol=1e-13)
    fresh = layers.MaxPooling2DLayer(height, width, size, stride)
    np.testing.assert_allclose(fresh.bprop(inputs=x, outputs=outputs, grads_wrt_outputs=g), dx, rtol=1e-13)


# --- batch normalisation

ROWS = RNG.normal(3.0, 2.0, (12, 5))
GRADS = RNG.normal(size=(12, 5))
GAMMA, BETA = RNG.normal(size=5), RNG.normal(size=5)


def normalised(x):
    xhat = np.zeros_like(x)
    for d in range(x.shape[1]):
        mean = sum(x[:, d]) / len(x)
        var = sum((x[:, d] - mean) ** 2) / len(x)
        xhat[:, d] = (x[:, d] - mean) / (var + 1e-5) ** 0.5
    return xhat


def test_batch_normalisation_forward_and_backward():
    layer = layers.BatchNormalizationLayer(input_dim=5)
    assert (layer.gamma.shape, layer.beta.shape) == ((5,), (5,))
    assert layer.epsilon == 1e-5
    assert layer.input_dim == 5
    layer.params = [GAMMA, BETA]
    xhat = normalised(ROWS)
    outputs = layer.fprop(ROWS)
    np.testing.assert_allclose(outputs, GAMMA * xhat + BETA, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(layer.fprop(inputs=ROWS, stochastic=True), outputs)
    outputs = layer.fprop(ROWS)
    expected, step = np.zeros_like(ROWS), 1e-5
    for place in np.ndindex(*ROWS.shape):
        high, low = ROWS.copy(), ROWS.copy()
        high[place] += step
        low[place] -= step
        expected[place] = (GRADS * GAMMA * (normalised(high) - normalised(low))).sum() / (2 * step)
    np.testing.assert_allclose(layer.bprop(ROWS, outputs, GRADS), expected, rtol=1e-6, atol=1e-9)
    gamma, beta = layer.grads_wrt_params(ROWS, GRADS)
    np.testing.assert_allclose(gamma, (GRADS * xhat).sum(axis=0), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(beta, GRADS.sum(axis=0), rtol=1e-12, atol=1e-13)


def test_batch_normalisation_has_two_parameters_and_no_penalty():
    layer = layers.BatchNormalizationLayer(5)
    assert len(layer.params) == 2
    assert layer.params[0] is layer.gamma
    assert layer.params[1] is layer.beta
    assert layer.params_penalty() == 0
    layer.params = [np.arange(5), np.arange(5) * 2]
    np.testing.assert_array_equal(layer.gamma, np.arange(5))
    np.testing.assert_array_equal(layer.params[1], np.arange(5) * 2)


def test_batch_normalisation_evaluates_every_example_alone():
    layer = layers.BatchNormalizationLayer(5)
    layer.params = [GAMMA, BETA]
    for _ in range(300):
        layer.fprop(ROWS)
    together = layer.fprop(ROWS, stochastic=False)
    alone = [layer.fprop(ROWS[i : i + 1], stochastic=False) for i in range(len(ROWS))]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12)
    low, high = together.min(axis=0), together.max(axis=0)
    assert ((high - low) > 0.5 * np.abs(GAMMA) * np.ptp(normalised(ROWS), axis=0)).all()
    np.testing.assert_allclose(together.mean(axis=0), BETA, atol=1e-6)


def test_constant_init_may_start_a_convolution():
    layer = layers.ConvolutionalLayer(1, 1, 3, 3, 2, 2, ConstantInit(1.0), ConstantInit(0.5))
    np.testing.assert_allclose(layer.fprop(np.ones((1, 1, 3, 3))), np.full((1, 1, 2, 2), 4.5))
