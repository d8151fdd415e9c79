"""Defects that the coursework's own package has, or had: each one's absence."""

import numpy as np
import pytest

from mlp import data_providers, errors, layers, learning_rules, models, optimisers

from .common import numeric_grad, run_python

RNG = np.random.RandomState(3)
X = RNG.normal(size=(6, 4))


def numbers(count=20, batch_size=5):
    rng = np.random.RandomState(0)
    return data_providers.DataProvider(rng.normal(size=(count, 4)), rng.normal(size=(count, 1)), batch_size, rng=rng)


def test_emnist_can_be_reshaped_by_the_numpy_of_today(tmp_path, monkeypatch):
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path))
    pixels = RNG.randint(0, 256, (8, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "emnist-train.npz", inputs=pixels, targets=np.arange(8))
    p = data_providers.EMNISTDataProvider("train", 4, shuffle_order=False)
    np.testing.assert_allclose(p.inputs, pixels.reshape(8, 784) / 255, rtol=1e-6)


def test_ccpp_without_input_dims_has_all_four(tmp_path, monkeypatch):
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path))
    inputs = RNG.normal(size=(15, 4))
    arrays = {f"{part}_{kind}": inputs[:, : 4 if kind == "inputs" else 1] for part in ("train", "valid")
              for kind in ("inputs", "targets")}  # fmt: skip
    np.savez(tmp_path / "ccpp_data.npz", **arrays)
    p = data_providers.CCPPDataProvider("train", input_dims=None, shuffle_order=False)
    np.testing.assert_array_equal(p.inputs, inputs)


@pytest.mark.parametrize("name", ["MomentumLearningRule", "NesterovMomentumLearningRule"])
def test_momentum_can_be_reset(name):
    rule, params = getattr(learning_rules, name)(0.1, 0.9), [X.copy(), X[0].copy()]
    rule.initialise(params)
    rule.update_params([X, X[0]])
    assert all(mom.any() for mom in rule.moms)
    rule.reset()
    assert not any(mom.any() for mom in rule.moms)


def test_dropout_without_a_random_stream_has_the_default_one():
    layer = layers.DropoutLayer(rng=None, incl_prob=0.5)
    mask = np.random.RandomState(123456).uniform(size=(1, 4)) < 0.5
    np.testing.assert_array_equal(layer.fprop(X), X * mask)


def test_radial_basis_functions_can_be_shown():
    assert repr(layers.RadialBasisFunctionLayer(7)) == "RadialBasisFunctionLayer(grid_dim=7)"
    assert "RadialBasisFunctionLayer(grid_dim=7)" in repr(
        models.MultipleLayerModel([layers.RadialBasisFunctionLayer(7), layers.AffineLayer(7, 1)])
    )


def test_the_gradient_of_radial_basis_functions_has_the_factor_of_the_outputs():
    layer, x = layers.RadialBasisFunctionLayer(3, [[-1.0, 1.0]]), X[:, :1]
    outputs = layer.fprop(x)
    g = RNG.normal(size=outputs.shape)
    expected = numeric_grad(lambda inputs: (layer.fprop(inputs) * g).sum(), x)
    np.testing.assert_allclose(layer.bprop(x, outputs, g), expected, rtol=1e-6, atol=1e-9)


def test_a_single_layer_model_can_be_trained_by_the_optimiser():
    model, rule = models.SingleLayerModel(layers.AffineLayer(4, 1)), learning_rules.GradientDescentLearningRule()
    np.testing.assert_array_equal(model.fprop(X, evaluation=True)[-1], model.fprop(X)[-1])
    error = errors.SumOfSquaredDiffsError()
    stats, _, _ = optimisers.Optimiser(model, error, rule, numbers(), numbers()).train(2, 1)
    assert stats.shape == (3, 2)


@pytest.mark.parametrize(
    "name", ["LeakyReluLayer", "ParametricReluLayer", "RandomReluLayer", "ELULayer", "ExponentialLinearUnitLayer"]
)
def test_no_activation_writes_into_its_inputs(name):
    layer, x, g = getattr(layers, name)(), X.copy(), X[::-1].copy()
    outputs = layer.fprop(x)
    kept = outputs.copy()
    layer.bprop(x, outputs, g)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(outputs, kept)
    np.testing.assert_array_equal(g, X[::-1])


def test_a_training_without_a_recorded_epoch():
    model, rule = models.SingleLayerModel(layers.AffineLayer(4, 1)), learning_rules.GradientDescentLearningRule()
    optimiser = optimisers.Optimiser(model, errors.SumOfSquaredDiffsError(), rule, numbers())
    for num_epochs in (0, 3):
        stats, keys, run_time = optimiser.train(num_epochs, stats_interval=5)
        assert stats.shape == (1, 1)
        assert keys == {"error(train)": 0}
        assert run_time >= 0


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_the_binary_error_keeps_its_convention_and_says_so(num_outputs):
    y, t = RNG.uniform(0.1, 0.9, (6, num_outputs)), RNG.randint(0, 2, (6, num_outputs)).astype(float)
    error = errors.BinaryCrossEntropyError()
    assert error(y, t) == pytest.approx(-np.mean(t * np.log(y) + (1 - t) * np.log(1 - y)), rel=1e-13)
    expected = num_outputs * numeric_grad(lambda outputs: error(outputs, t), y)
    np.testing.assert_allclose(error.grad(y, t), expected, rtol=1e-5)
    text = " ".join(errors.BinaryCrossEntropyError.__doc__.split())
    assert "gradient is K times that of the value" in text


def test_optimisers_need_no_tqdm(tmp_path):
    code = "import sys; sys.modules['tqdm'] = sys.modules['tqdm.auto'] = None\nimport mlp.optimisers\nprint(1)"
    assert run_python(code, tmp_path).strip() == "1"
