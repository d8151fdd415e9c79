"""Models of one layer and of several."""

import inspect

import numpy as np
import pytest

from mlp import layers, models
from mlp.initialisers import ConstantInit, UniformInit
from mlp.penalties import L1Penalty, L2Penalty

from .common import REQUIRED, check_signature

RNG = np.random.RandomState(5)
X = RNG.normal(size=(6, 4))
W1, B1, W2, B2 = RNG.normal(size=(5, 4)), RNG.normal(size=5), RNG.normal(size=(2, 5)), RNG.normal(size=2)


def network(*between):
    first, second = layers.AffineLayer(4, 5, weights_penalty=L2Penalty(0.2)), layers.AffineLayer(5, 2)
    second.biases_penalty = L1Penalty(0.3)
    first.params, second.params = [W1, B1], [W2, B2]
    return models.MultipleLayerModel([first, *between, second])


def test_signatures():
    check_signature(models.SingleLayerModel, layer=REQUIRED)
    check_signature(models.MultipleLayerModel, layers=REQUIRED)
    for kind in (models.SingleLayerModel, models.MultipleLayerModel):
        check_signature(kind.fprop, inputs=REQUIRED, evaluation=False)
        assert "stochastic" in inspect.signature(kind.fprop).parameters
        check_signature(kind.grads_wrt_params, activations=REQUIRED, grads_wrt_outputs=REQUIRED)
        check_signature(kind.params_penalty)


def test_a_single_layer_model():
    layer = layers.AffineLayer(4, 3, UniformInit(-1, 1), ConstantInit(0.1), L2Penalty(0.5))
    model = models.SingleLayerModel(layer)
    assert model.layer is layer
    assert [a is b for a, b in zip(model.params, (layer.weights, layer.biases), strict=True)] == [True, True]
    assert repr(model) == "SingleLayerModel(AffineLayer(input_dim=4, output_dim=3))"
    for activations in (model.fprop(X), model.fprop(X, evaluation=True), model.fprop(X, True)):
        assert len(activations) == 2
        assert activations[0] is X
        np.testing.assert_allclose(activations[1], X @ layer.weights.T + 0.1, rtol=1e-13)
    g = RNG.normal(size=(6, 3))
    weights, biases = model.grads_wrt_params(activations, g)
    np.testing.assert_allclose(weights, g.T @ X + 0.5 * layer.weights, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(biases, g.sum(axis=0), rtol=1e-12, atol=1e-14)


def test_a_single_layer_model_without_parameters():
    model = models.SingleLayerModel(layers.SigmoidLayer())
    assert model.params == []
    activations = model.fprop(X)
    assert model.grads_wrt_params(activations, X) == []


def test_a_single_layer_model_evaluates():
    model = models.SingleLayerModel(layers.DropoutLayer(np.random.RandomState(0), 0.6))
    np.testing.assert_allclose(model.fprop(X, evaluation=True)[1], 0.6 * X, rtol=1e-15)
    mask = np.random.RandomState(0).uniform(size=(1, 4)) < 0.6
    np.testing.assert_array_equal(model.fprop(X, evaluation=False)[1], X * mask)


def test_the_representation_of_several_layers():
    text = (
        "MultiLayerModel(\n    AffineLayer(input_dim=4, output_dim=5)\n    TanhLayer\n    DropoutLayer(incl_prob=0.5)"
    )
    model = network(layers.TanhLayer(), layers.DropoutLayer())
    assert repr(model) == text + "\n    AffineLayer(input_dim=5, output_dim=2)\n)"


def test_activations_parameters_and_gradients_of_several_layers():
    tanh = layers.TanhLayer()
    model = network(tanh)
    assert len(model.layers) == 3
    assert model.layers[1] is tanh
    first, second = model.layers[0], model.layers[2]
    owned = [first.weights, first.biases, second.weights, second.biases]
    assert all(a is b for a, b in zip(model.params, owned, strict=True))
    activations = model.fprop(X)
    hidden = np.tanh(X @ W1.T + B1)
    expected = [X, X @ W1.T + B1, hidden, hidden @ W2.T + B2]
    assert len(activations) == 4
    for one, other in zip(activations, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    g = RNG.normal(size=(6, 2))
    back = (g @ W2) * (1 - hidden**2)
    grads = model.grads_wrt_params(activations, g)
    wanted = [back.T @ X + 0.2 * W1, back.sum(axis=0), g.T @ hidden, g.sum(axis=0) + 0.3 * np.sign(B2)]
    assert isinstance(grads, list)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    penalty = 0.5 * 0.2 * (W1**2).sum() + 0.3 * np.abs(B2).sum()
    assert model.params_penalty() == pytest.approx(penalty, rel=1e-12)


def test_the_parameters_include_those_of_batch_normalisation_and_of_slopes():
    norm, slope = layers.BatchNormalizationLayer(5), layers.ParametricReluLayer()
    params = network(norm, slope, layers.DropoutLayer()).params
    assert len(params) == 7
    assert params[2] is norm.gamma
    assert params[3] is norm.beta
    assert params[4] is slope.alpha


@pytest.mark.parametrize(
    ("options", "evaluating"),
    [
        ({}, False),
        ({"evaluation": False}, False),
        ({"evaluation": True}, True),
        ({"stochastic": True}, False),
        ({"stochastic": False}, True),
    ],
)
def test_the_two_spellings_of_training_and_evaluation(options, evaluating):
    model = network(layers.DropoutLayer(np.random.RandomState(7), 0.6))
    hidden = X @ W1.T + B1
    kept = 0.6 if evaluating else np.random.RandomState(7).uniform(size=(1, 5)) < 0.6
    np.testing.assert_allclose(model.fprop(X, **options)[-1], (hidden * kept) @ W2.T + B2, rtol=1e-12, atol=1e-14)


def test_setting_the_parameters_of_a_model_accepts_integers():
    model = network(layers.TanhLayer())
    values = [np.arange(p.size).reshape(p.shape) for p in model.params]
    for given in (values, tuple(values)):
        model.params = given
        for one, other in zip(model.params, values, strict=True):
            np.testing.assert_array_equal(one, other)
