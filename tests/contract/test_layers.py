"""Layers: base classes, affine, activations, softmax, radial basis functions, dropout, reshape, 1-d max pooling."""

import inspect
import json

import numpy as np
import pytest

from mlp import layers
from mlp.initialisers import ConstantInit, UniformInit
from mlp.models import MultipleLayerModel
from mlp.penalties import L1Penalty, L2Penalty

from .common import BY_BEHAVIOUR, REQUIRED, check_signature, numeric_grad, run_python, same_state, softmax

RNG = np.random.RandomState(8)
X = RNG.normal(size=(7, 6))
X[0, :3] = -3.0, 2.0, 0.25
G = RNG.normal(size=(7, 6))

SIGNATURES = {
    "AffineLayer": {
        "input_dim": REQUIRED,
        "output_dim": REQUIRED,
        "weights_initialiser": BY_BEHAVIOUR,
        "biases_initialiser": BY_BEHAVIOUR,
        "weights_penalty": None,
        "biases_penalty": None,
    },
    "SigmoidLayer": {},
    "TanhLayer": {},
    "ReluLayer": {},
    "LeakyReluLayer": {"alpha": 0.01},
    "ELULayer": {"alpha": 1.0},
    "SELULayer": {},
    "ExponentialLinearUnitLayer": {"alpha": 0.01},
    "RandomReluLayer": {"lower": 0.125, "upper": 1 / 3, "rng": None},
    "ParametricReluLayer": {"alpha": 0.25},
    "SoftmaxLayer": {},
    "RadialBasisFunctionLayer": {"grid_dim": REQUIRED, "intervals": BY_BEHAVIOUR},
    "DropoutLayer": {"rng": None, "incl_prob": 0.5, "share_across_batch": True},
    "ReshapeLayer": {"output_shape": None},
    "MaxPoolingLayer": {"pool_size": 2},
    "StochasticLayer": {"rng": None},
    "StochasticLayerWithParameters": {"rng": None},
    "ConvolutionalLayer": {
        "num_input_channels": REQUIRED,
        "num_output_channels": REQUIRED,
        "input_height": BY_BEHAVIOUR,
        "input_width": BY_BEHAVIOUR,
        "kernel_height": BY_BEHAVIOUR,
        "kernel_width": BY_BEHAVIOUR,
        "kernels_init": BY_BEHAVIOUR,
        "biases_init": BY_BEHAVIOUR,
        "kernels_penalty": None,
        "biases_penalty": None,
    },
    "MaxPooling2DLayer": {
        "input_height": REQUIRED,
        "input_width": REQUIRED,
        "size": REQUIRED,
        "stride": REQUIRED,
    },
    "BatchNormalizationLayer": {"input_dim": REQUIRED, "rng": None},
}

REPRS = {
    "AffineLayer(input_dim=4, output_dim=3)": lambda: layers.AffineLayer(4, 3),
    "SigmoidLayer": lambda: layers.SigmoidLayer(),
    "TanhLayer": lambda: layers.TanhLayer(),
    "ReluLayer": lambda: layers.ReluLayer(),
    "LeakyReluLayer": lambda: layers.LeakyReluLayer(0.2),
    "ELULayer": lambda: layers.ELULayer(),
    "SELULayer": lambda: layers.SELULayer(),
    "ExponentialLinearUnitLayer": lambda: layers.ExponentialLinearUnitLayer(),
    "RandomReluLayer": lambda: layers.RandomReluLayer(),
    "ParametricReluLayer": lambda: layers.ParametricReluLayer(),
    "SoftmaxLayer": lambda: layers.SoftmaxLayer(),
    "RadialBasisFunctionLayer(grid_dim=5)": lambda: layers.RadialBasisFunctionLayer(5, [[-1.0, 1.0]]),
    "DropoutLayer(incl_prob=0.5)": lambda: layers.DropoutLayer(),
    "DropoutLayer(incl_prob=0.8)": lambda: layers.DropoutLayer(incl_prob=0.84),
    "ReshapeLayer(output_shape=(1, 28, 28))": lambda: layers.ReshapeLayer((1, 28, 28)),
    "MaxPoolingLayer(pool_size=2)": lambda: layers.MaxPoolingLayer(),
    "BatchNormalizationLayer(input_dim=3)": lambda: layers.BatchNormalizationLayer(3),
}


# --- what all layers share


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_of_constructors(name):
    check_signature(getattr(layers, name), **SIGNATURES[name])


@pytest.mark.parametrize("name", ["Layer", "LayerWithParameters", *SIGNATURES])
def test_signatures_of_methods(name):
    kind = getattr(layers, name)
    stochastic = {"stochastic": True} if issubclass(kind, layers.StochasticLayer) else {}
    check_signature(kind.fprop, inputs=REQUIRED, **({"leakiness": None} if name == "RandomReluLayer" else stochastic))
    check_signature(kind.bprop, inputs=REQUIRED, outputs=REQUIRED, grads_wrt_outputs=REQUIRED)
    if issubclass(kind, layers.LayerWithParameters) or issubclass(kind, layers.StochasticLayerWithParameters):
        check_signature(kind.grads_wrt_params, inputs=REQUIRED, grads_wrt_outputs=REQUIRED)
        check_signature(kind.params_penalty)
        params = inspect.getattr_static(kind, "params")
        assert isinstance(params, property)
        assert params.fset is not None


@pytest.mark.parametrize("text", REPRS)
def test_reprs(text):
    assert repr(REPRS[text]()) == str(REPRS[text]()) == text


def test_base_classes_compute_nothing():
    for kind in (layers.Layer, layers.LayerWithParameters, layers.StochasticLayer):
        with pytest.raises(NotImplementedError):
            kind().fprop(X)
        with pytest.raises(NotImplementedError):
            kind().bprop(X, X, G)
    with pytest.raises(NotImplementedError):
        layers.LayerWithParameters().grads_wrt_params(X, G)


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("AffineLayer", "LayerWithParameters"),
        ("ParametricReluLayer", "LayerWithParameters"),
        ("ConvolutionalLayer", "LayerWithParameters"),
        ("BatchNormalizationLayer", "StochasticLayerWithParameters"),
        ("DropoutLayer", "StochasticLayer"),
        ("RandomReluLayer", "Layer"),
        ("MaxPooling2DLayer", "Layer"),
        ("LayerWithParameters", "Layer"),
        ("StochasticLayer", "Layer"),
        ("StochasticLayerWithParameters", "Layer"),
    ],
)
def test_families(name, bases):
    assert issubclass(getattr(layers, name), getattr(layers, bases))


def test_models_find_the_parameters_and_the_randomness_of_batch_normalisation():
    class Scale(layers.StochasticLayerWithParameters):
        def __init__(self):
            super().__init__()
            self.calls, self.scale = [], np.ones(1)

        def fprop(self, inputs, stochastic=True):
            self.calls.append(stochastic)
            return inputs * self.scale

        @property
        def params(self):
            return [self.scale]

        def grads_wrt_params(self, inputs, grads_wrt_outputs):
            return [np.array([(inputs * grads_wrt_outputs).sum()])]

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs * self.scale

    scale = Scale()
    model = MultipleLayerModel([layers.AffineLayer(6, 2), scale])
    assert len(model.params) == 3
    assert model.params[2] is scale.scale
    activations = model.fprop(X)
    model.fprop(X, evaluation=True)
    assert scale.calls == [True, False]
    assert len(model.grads_wrt_params(activations, activations[-1])) == 3


@pytest.mark.parametrize("name", ["StochasticLayer", "StochasticLayerWithParameters", "DropoutLayer"])
def test_the_random_stream_of_a_stochastic_layer(name):
    rng = np.random.RandomState(2)
    assert getattr(layers, name)(rng).rng is rng
    assert same_state(getattr(layers, name)(None).rng, np.random.RandomState(123456))
    assert same_state(getattr(layers, name)().rng, np.random.RandomState(123456))


def test_the_random_stream_of_batch_normalisation():
    rng = np.random.RandomState(2)
    assert layers.BatchNormalizationLayer(3, rng).rng is rng


def test_default_initialisers_are_shared_streams(tmp_path):
    code = """
import json
from mlp.layers import AffineLayer, ConvolutionalLayer
built = [AffineLayer(3, 4), AffineLayer(5, 2), ConvolutionalLayer(2, 3, 5, 5, 2, 2), AffineLayer(2, 2),
         ConvolutionalLayer(1, 2, 5, 5, 3, 2)]
print(json.dumps([[p.tolist() for p in layer.params] for layer in built]))
"""
    first, second, third, fourth, fifth = json.loads(run_python(code, tmp_path))
    rng = np.random.RandomState(123456)
    for (weights, biases), shape in ((first, (4, 3)), (second, (2, 5)), (fourth, (2, 2))):
        np.testing.assert_array_equal(weights, rng.uniform(-0.1, 0.1, shape))
        np.testing.assert_array_equal(biases, np.zeros(shape[0]))
    rng = np.random.RandomState(123456)
    for (kernels, biases), shape in ((third, (3, 2, 2, 2)), (fifth, (2, 1, 3, 2))):
        np.testing.assert_array_equal(kernels, rng.uniform(-0.01, 0.01, shape))
        np.testing.assert_array_equal(biases, np.zeros(shape[0]))


STATELESS = {
    "affine": lambda: layers.AffineLayer(6, 6, ConstantInit(0.5)),
    "sigmoid": layers.SigmoidLayer,
    "tanh": layers.TanhLayer,
    "relu": layers.ReluLayer,
    "leaky relu": layers.LeakyReluLayer,
    "elu": layers.ELULayer,
    "selu": layers.SELULayer,
    "exponential linear unit": lambda: layers.ExponentialLinearUnitLayer(),
    "parametric relu": lambda: layers.ParametricReluLayer(),
    "softmax": layers.SoftmaxLayer,
    "reshape": lambda: layers.ReshapeLayer((2, 3)),
    "max pooling": layers.MaxPoolingLayer,
    "radial basis": lambda: layers.RadialBasisFunctionLayer(3),
}


@pytest.mark.parametrize("name", STATELESS)
def test_layers_without_state_go_back_without_a_forward_pass(name):
    x = X[:, :1] if name == "radial basis" else X
    inputs = x.copy()
    outputs = STATELESS[name]().fprop(inputs=inputs)
    np.testing.assert_array_equal(inputs, x)
    grads = RNG.normal(size=outputs.shape)
    copies = {"inputs": x.copy(), "outputs": outputs.copy(), "grads_wrt_outputs": grads.copy()}
    fresh = STATELESS[name]().bprop(**copies)
    np.testing.assert_array_equal(fresh, STATELESS[name]().bprop(x, outputs, grads))
    assert fresh.shape == x.shape
    assert fresh.dtype == np.float64
    for array, before in zip(copies.values(), (x, outputs, grads), strict=True):
        np.testing.assert_array_equal(array, before)
    layer = STATELESS[name]()
    if isinstance(layer, layers.LayerWithParameters):
        assert [g.shape for g in layer.grads_wrt_params(inputs=x, grads_wrt_outputs=grads)] == [
            p.shape for p in layer.params
        ]


@pytest.mark.parametrize("name", STATELESS)
def test_gradients_are_sums_over_the_batch(name):
    x = X[:, :1] if name == "radial basis" else X
    layer = STATELESS[name]()
    outputs = layer.fprop(x)
    grads = RNG.normal(size=outputs.shape)
    expected = numeric_grad(lambda inputs: (layer.fprop(inputs) * grads).sum(), x)
    np.testing.assert_allclose(layer.bprop(x, outputs, grads), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", STATELESS)
def test_float32_images_through_float64_parameters_give_float64(name):
    x = (X[:, :1] if name == "radial basis" else X).astype(np.float32)
    layer = STATELESS[name]()
    if isinstance(layer, layers.LayerWithParameters):
        assert layer.fprop(x).dtype == np.float64


def test_there_is_no_mode_and_no_outputs_on_layers():
    for build in STATELESS.values():
        layer = build()
        layer.fprop(X[:, :1] if isinstance(layer, layers.RadialBasisFunctionLayer) else X)
        assert [name for name in ("outputs", "train", "eval") if hasattr(layer, name)] == []


# --- affine


def test_affine_passes():
    layer = layers.AffineLayer(6, 4, UniformInit(-1, 1, np.random.RandomState(0)), ConstantInit(0.5))
    assert (layer.input_dim, layer.output_dim) == (6, 4)
    assert (layer.weights_penalty, layer.biases_penalty) == (None, None)
    assert (layer.weights.shape, layer.biases.shape) == ((4, 6), (4,))
    assert layer.weights.dtype == layer.biases.dtype == np.float64
    expected, g = np.zeros((7, 4)), RNG.normal(size=(7, 4))
    grads, grad_weights, grad_biases = np.zeros((7, 6)), np.zeros((4, 6)), np.zeros(4)
    for n, k in np.ndindex(7, 4):
        expected[n, k] = 0.5 + sum(layer.weights[k, d] * X[n, d] for d in range(6))
        grad_biases[k] += g[n, k]
        for d in range(6):
            grads[n, d] += g[n, k] * layer.weights[k, d]
            grad_weights[k, d] += g[n, k] * X[n, d]
    outputs = layer.fprop(X)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layer.bprop(X, outputs, g), grads, rtol=1e-12, atol=1e-14)
    found = layer.grads_wrt_params(X, g)
    assert isinstance(found, list)
    np.testing.assert_allclose(found[0], grad_weights, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[1], grad_biases, rtol=1e-12, atol=1e-14)
    assert layer.params[0] is layer.weights
    assert layer.params[1] is layer.biases
    assert layer.params_penalty() == 0


def test_affine_initialises_weights_before_biases_by_position():
    rng, theirs = np.random.RandomState(4), np.random.RandomState(4)
    penalty = L2Penalty(0.1)
    layer = layers.AffineLayer(3, 2, UniformInit(-2, 2, rng), UniformInit(0, 1, rng), penalty, None)
    np.testing.assert_array_equal(layer.weights, theirs.uniform(-2, 2, (2, 3)))
    np.testing.assert_array_equal(layer.biases, theirs.uniform(0, 1, 2))
    assert same_state(rng, theirs)
    assert layer.weights_penalty is penalty


def test_penalties_are_added_once_a_batch():
    layer = layers.AffineLayer(6, 2, UniformInit(-1, 1, np.random.RandomState(0)), ConstantInit(-0.5))
    g = RNG.normal(size=(7, 2))
    plain = layer.grads_wrt_params(X, g)
    layer.weights_penalty, layer.biases_penalty = L1Penalty(0.3), L2Penalty(0.7)
    weights, biases = layer.grads_wrt_params(X, g)
    np.testing.assert_allclose(weights, plain[0] + 0.3 * np.sign(layer.weights), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(biases, plain[1] + 0.7 * layer.biases, rtol=1e-13, atol=1e-14)
    expected = 0.3 * np.abs(layer.weights).sum() + 0.5 * 0.7 * (layer.biases**2).sum()
    assert layer.params_penalty() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("kind", [list, tuple])
def test_params_can_be_set_in_their_order_by_integers_too(kind):
    layer = layers.AffineLayer(3, 2)
    weights, biases = np.arange(6).reshape(2, 3), np.array([10, 20])
    layer.params = kind([weights, biases])
    np.testing.assert_array_equal(layer.weights, weights)
    np.testing.assert_array_equal(layer.biases, biases)
    np.testing.assert_array_equal(layer.params[0], weights)
    np.testing.assert_allclose(layer.fprop(np.array([[0.5, 1.0, 2.0]])), [[15.0, 35.5]])
    layer.params = kind([weights / 4, biases / 8])
    np.testing.assert_array_equal(layer.weights, weights / 4)
    np.testing.assert_array_equal(layer.biases, biases / 8)


# --- activations


def elementwise(function, x):
    return np.array([function(v) for v in x.ravel().tolist()]).reshape(x.shape)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def elu(alpha, gamma=1.0):
    return (
        lambda v: gamma * v if v > 0 else gamma * alpha * (np.exp(v) - 1),
        lambda v: gamma if v > 0 else gamma * alpha * np.exp(v),
    )


ACTIVATIONS = {
    "sigmoid": (lambda: layers.SigmoidLayer(), sigmoid, lambda v: sigmoid(v) * (1 - sigmoid(v))),
    "tanh": (lambda: layers.TanhLayer(), np.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "relu": (lambda: layers.ReluLayer(), lambda v: max(v, 0.0), lambda v: float(v > 0)),
    "leaky relu": (lambda: layers.LeakyReluLayer(), lambda v: v if v > 0 else 0.01 * v, lambda v: 1 if v > 0 else 0.01),
    "leaky relu 0.3": (
        lambda: layers.LeakyReluLayer(alpha=0.3),
        lambda v: v if v > 0 else 0.3 * v,
        lambda v: 1 if v > 0 else 0.3,
    ),
    "elu": (lambda: layers.ELULayer(), *elu(1.0)),
    "elu 0.5": (lambda: layers.ELULayer(alpha=0.5), *elu(0.5)),
    "selu": (lambda: layers.SELULayer(), *elu(1.6733, 1.0507)),
    "exponential linear unit": (lambda: layers.ExponentialLinearUnitLayer(), *elu(0.01)),
    "exponential linear unit 0.5": (lambda: layers.ExponentialLinearUnitLayer(alpha=0.5), *elu(0.5)),
    "parametric relu": (
        lambda: layers.ParametricReluLayer(),
        lambda v: v if v > 0 else 0.25 * v,
        lambda v: 1 if v > 0 else 0.25,
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(7, 6), (7, 2, 3), (7, 1, 2, 3)])
def test_activations(name, shape):
    build, value, slope = ACTIVATIONS[name]
    layer, x, g = build(), X.reshape(shape), G.reshape(shape)
    outputs = layer.fprop(x)
    np.testing.assert_allclose(outputs, elementwise(value, x), rtol=1e-12, atol=1e-15)
    expected = g * elementwise(slope, x)
    np.testing.assert_allclose(layer.bprop(x, outputs, g), expected, rtol=1e-11, atol=1e-15)


def test_parametric_relu_learns_one_shared_slope():
    layer = layers.ParametricReluLayer(alpha=0.4)
    assert isinstance(layer.alpha, np.ndarray)
    assert layer.alpha.tolist() == [0.4]
    assert len(layer.params) == 1
    assert layer.params[0] is layer.alpha
    expected = sum(G[i] * X[i] for i in np.ndindex(*X.shape) if X[i] < 0)
    (grad,) = layer.grads_wrt_params(inputs=X, grads_wrt_outputs=G)
    assert np.shape(grad) == (1,)
    np.testing.assert_allclose(grad, [expected], rtol=1e-12)
    layer.params = [np.array([2.0])]
    np.testing.assert_allclose(layer.fprop(X), np.where(X > 0, X, 2.0 * X), rtol=1e-14)
    np.testing.assert_allclose(layer.bprop(X, layer.fprop(X), G), np.where(X > 0, G, 2.0 * G), rtol=1e-14)
    assert layer.params_penalty() == 0


def test_random_relu_draws_one_slope_for_every_element():
    layer, rng = layers.RandomReluLayer(), np.random.RandomState(1234)
    for _ in range(2):
        slopes = rng.uniform(0.125, 1 / 3, size=X.shape)
        outputs = layer.fprop(X)
        np.testing.assert_allclose(outputs, np.where(X > 0, X, slopes * X), rtol=1e-14)
        grads = layer.bprop(inputs=X, outputs=outputs, grads_wrt_outputs=G)
        np.testing.assert_allclose(grads, np.where(X > 0, G, slopes * G), rtol=1e-14)
    layer = layers.RandomReluLayer(0.2, 0.7, np.random.RandomState(9))
    assert (layer.lower, layer.upper) == (0.2, 0.7)
    slopes = np.random.RandomState(9).uniform(0.2, 0.7, size=X.shape)
    np.testing.assert_allclose(layer.fprop(X), np.where(X > 0, X, slopes * X), rtol=1e-14)


def test_random_relu_with_given_slopes_draws_nothing():
    layer = layers.RandomReluLayer(rng=np.random.RandomState(3))
    slopes = np.random.RandomState(5).uniform(size=X.shape)
    outputs = layer.fprop(inputs=X, leakiness=slopes)
    np.testing.assert_allclose(outputs, np.where(X > 0, X, slopes * X), rtol=1e-14)
    np.testing.assert_allclose(layer.bprop(X, outputs, G), np.where(X > 0, G, slopes * G), rtol=1e-14)
    assert same_state(layer.rng, np.random.RandomState(3))


def test_softmax():
    layer = layers.SoftmaxLayer()
    outputs = layer.fprop(X)
    expected = softmax(X)
    np.testing.assert_allclose(outputs, expected, rtol=1e-13)
    grads = np.zeros_like(X)
    for n, i, j in np.ndindex(7, 6, 6):
        grads[n, i] += G[n, j] * expected[n, j] * ((i == j) - expected[n, i])
    np.testing.assert_allclose(layer.bprop(X, outputs, G), grads, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(layer.fprop(np.array([[1000.0, 1000.0 + np.log(3.0)]])), [[0.25, 0.75]], rtol=1e-12)


# --- radial basis functions


def test_radial_basis_functions_of_a_line():
    layer = layers.RadialBasisFunctionLayer(4, [[-1.0, 3.0]])
    centres, scale = [-1.0, 1 / 3, 5 / 3, 3.0], 1.0
    np.testing.assert_allclose(layer.centres, [centres], rtol=1e-14)
    np.testing.assert_allclose(layer.scales, [[scale]], rtol=1e-14)
    assert layer.grid_dim == 4
    x = np.random.RandomState(0).uniform(-1, 3, 9)
    expected = np.array([[np.exp(-((v - c) ** 2) / scale**2) for c in centres] for v in x])
    g = np.random.RandomState(1).normal(size=expected.shape)
    grads = np.zeros(9)
    for n, k in np.ndindex(9, 4):
        grads[n] += -2 * (x[n] - centres[k]) / scale**2 * expected[n, k] * g[n, k]
    for inputs, of_inputs in ((x, grads), (x[:, None], grads[:, None])):
        outputs = layer.fprop(inputs)
        assert outputs.shape == (9, 4)
        np.testing.assert_allclose(outputs, expected, rtol=1e-12)
        np.testing.assert_allclose(layer.bprop(inputs, outputs, g), of_inputs, rtol=1e-12, atol=1e-14)


def test_radial_basis_functions_of_a_plane_are_taken_dimension_by_dimension():
    intervals = [[0.0, 1.0], [-2.0, 2.0]]
    layer = layers.RadialBasisFunctionLayer(3, intervals)
    centres = np.array([[0, 0.5, 1] * 3, [-2] * 3 + [0] * 3 + [2] * 3])
    np.testing.assert_allclose(layer.centres, centres, atol=1e-15)
    np.testing.assert_allclose(layer.scales, [[1 / 3], [4 / 3]], rtol=1e-14)
    x = np.random.RandomState(0).uniform(-1, 1, (5, 2))
    expected, grads = np.zeros((5, 2, 9)), np.zeros((5, 2))
    g = np.random.RandomState(1).normal(size=(5, 18))
    for n, d, k in np.ndindex(5, 2, 9):
        s = [1 / 3, 4 / 3][d]
        expected[n, d, k] = np.exp(-((x[n, d] - centres[d, k]) ** 2) / s**2)
        grads[n, d] += -2 * (x[n, d] - centres[d, k]) / s**2 * expected[n, d, k] * g[n, 9 * d + k]
    outputs = layer.fprop(x)
    np.testing.assert_allclose(outputs, expected.reshape(5, 18), rtol=1e-12)
    np.testing.assert_allclose(layer.bprop(x, outputs, g), grads, rtol=1e-12, atol=1e-14)


def test_the_default_interval_is_from_0_to_1():
    layer = layers.RadialBasisFunctionLayer(3)
    np.testing.assert_allclose(layer.centres, [[0.0, 0.5, 1.0]])
    np.testing.assert_allclose(layer.scales, [[1 / 3]])


def test_a_model_takes_a_line_of_inputs():
    model = MultipleLayerModel([layers.RadialBasisFunctionLayer(5, [[-1.0, 1.0]]), layers.AffineLayer(5, 1)])
    assert model.fprop(np.linspace(-1, 1, 500))[-1].shape == (500, 1)


# --- dropout


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("shape", [(7, 6), (7, 2, 3), (7, 1, 2, 3)])
def test_dropout(share, shape):
    layer, rng = layers.DropoutLayer(np.random.RandomState(6), 0.7, share), np.random.RandomState(6)
    assert (layer.incl_prob, layer.share_across_batch) == (0.7, share)
    x, g = X.reshape(shape), G.reshape(shape)
    for _ in range(2):
        mask = rng.uniform(size=(1, *shape[1:]) if share else shape) < 0.7
        outputs = layer.fprop(inputs=x, stochastic=True)
        np.testing.assert_array_equal(outputs, x * mask)
        np.testing.assert_array_equal(layer.bprop(inputs=x, outputs=outputs, grads_wrt_outputs=g), g * mask)
    np.testing.assert_allclose(layer.fprop(x, stochastic=False), 0.7 * x, rtol=1e-15)
    assert same_state(layer.rng, rng)


def test_dropout_is_random_by_default_and_shared_in_the_batch():
    mask = np.random.RandomState(123456).uniform(size=(1, 6)) < 0.5
    np.testing.assert_array_equal(layers.DropoutLayer().fprop(X), X * mask)


@pytest.mark.parametrize("incl_prob", [0.0, -0.5, 1.5])
def test_dropout_asserts_a_probability(incl_prob):
    with pytest.raises(AssertionError, match="incl_prob"):
        layers.DropoutLayer(incl_prob=incl_prob)


def test_dropout_may_keep_all():
    np.testing.assert_array_equal(layers.DropoutLayer(incl_prob=1.0).fprop(X), X)


# --- reshape and maxout


@pytest.mark.parametrize(
    ("given", "shape", "outputs_shape"),
    [
        (None, (4, 2, 3), (4, 6)),
        ((3, 2), (4, 6), (4, 3, 2)),
        ((2, -1), (4, 6), (4, 2, 3)),
        ((1, 2, 3), (4, 6), (4, 1, 2, 3)),
    ],
)
def test_reshape(given, shape, outputs_shape):
    layer, x = layers.ReshapeLayer(given), np.arange(24.0).reshape(shape)
    outputs = layer.fprop(x)
    assert outputs.shape == outputs_shape
    np.testing.assert_array_equal(outputs.ravel(), np.arange(24.0))
    grads = layer.bprop(x, outputs, 2 * outputs)
    np.testing.assert_array_equal(grads, 2 * x)


def test_max_pooling_gives_the_gradient_to_every_maximum():
    layer = layers.MaxPoolingLayer(3)
    assert layer.pool_size == 3
    x = np.array([[1.0, 5.0, 2.0, 4.0, 4.0, -1.0], [7.0, 7.0, 7.0, 0.0, -3.0, -2.0]])
    outputs = layer.fprop(x)
    np.testing.assert_array_equal(outputs, [[5.0, 4.0], [7.0, 0.0]])
    grads = layer.bprop(x, outputs, np.array([[10.0, 20.0], [30.0, 40.0]]))
    np.testing.assert_array_equal(grads, [[0, 10, 0, 20, 20, 0], [30, 30, 30, 40, 0, 0]])
    np.testing.assert_array_equal(layers.MaxPoolingLayer().fprop(x), [[5, 4, 4], [7, 7, -2]])


def test_max_pooling_asserts_that_pools_fill_the_inputs():
    with pytest.raises(AssertionError, match="multiple of 4"):
        layers.MaxPoolingLayer(4).fprop(X)
