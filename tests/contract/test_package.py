"""The package, its modules, and the checks of a student's work that it brings along."""

import importlib

import numpy as np
import pytest

import mlp

from .common import run_python

MODULES = "data_providers errors initialisers layers learning_rules models optimisers penalties schedulers".split()
CHECKS = {
    "test_leaky_relu": "LeakyReluLayer",
    "test_random_relu": "RandomReluLayer",
    "test_parametric_relu": "ParametricReluLayer",
    "test_exponential_linear_unit": "ExponentialLinearUnitLayer",
    "test_dropout_layer": "DropoutLayer",
    "test_L1_Penalty": "L1Penalty",
    "test_L2_Penalty": "L2Penalty",
}
every_check = pytest.mark.parametrize("name", CHECKS)


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """The module of checks; no file lies around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_DATA_DIR", raising=False)
    return importlib.import_module("mlp.test_methods")


def test_the_default_seed():
    assert mlp.DEFAULT_SEED == 123456


def test_three_authors_are_named():
    assert isinstance(mlp.__authors__, list)
    assert len(mlp.__authors__) == 3
    assert all(isinstance(name, str) and name for name in mlp.__authors__)


@pytest.mark.parametrize("name", [*MODULES, "test_methods", "tests"])
def test_every_module_can_be_imported(name):
    importlib.import_module(f"mlp.{name}")


def test_no_module_needs_tqdm_or_torch(tmp_path):
    code = f"""
import importlib, sys
sys.modules["tqdm"] = sys.modules["torch"] = None  # importing them fails
for name in {MODULES!r}:
    importlib.import_module("mlp." + name)
import numpy as np
from mlp.data_providers import DataProvider
from mlp.errors import SumOfSquaredDiffsError
from mlp.layers import AffineLayer
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import SingleLayerModel
from mlp.optimisers import Optimiser
data = DataProvider(np.ones((6, 2)), np.ones((6, 1)), 3)
model, error = SingleLayerModel(AffineLayer(2, 1)), SumOfSquaredDiffsError()
for notebook in (False, True):
    stats, _, _ = Optimiser(model, error, GradientDescentLearningRule(), data, notebook=notebook).train(2, 1)
print(stats.shape)
"""
    assert run_python(code, tmp_path).strip() == "(3, 1)"


@every_check
def test_a_right_layer_passes_its_check(checks, name):
    result = getattr(checks, name)()
    assert isinstance(result, tuple)
    assert len(result) == 6
    for test, output, correct in (result[:3], result[3:]):
        assert test == 1
        assert np.shape(output) == np.shape(correct)
        np.testing.assert_allclose(output, correct, rtol=1e-6)


def test_the_checks_use_the_courseworks_inputs(checks):
    inputs = np.random.RandomState(92019).normal(0, 5, (50, 3, 64, 64))
    for result in (checks.test_leaky_relu()[1:3], checks.test_leaky_relu()[1:3]):
        for array in result:
            np.testing.assert_allclose(array, np.where(inputs > 0, inputs, 0.01 * inputs), rtol=1e-12)


@every_check
@pytest.mark.parametrize("half", ["forward", "backward"])
def test_a_wrong_layer_fails_its_check_without_an_exception(checks, monkeypatch, name, half):
    right = getattr(checks, CHECKS[name])
    is_penalty = CHECKS[name].endswith("Penalty")
    method = {"forward": "__call__" if is_penalty else "fprop", "backward": "grad" if is_penalty else "bprop"}[half]

    class Wrong(right):
        pass

    setattr(Wrong, method, lambda self, *args, **options: 3.0 * getattr(right, method)(self, *args, **options))
    monkeypatch.setattr(checks, CHECKS[name], Wrong)
    result = getattr(checks, name)()
    assert len(result) == 6
    wrong = result[0] if half == "forward" else result[3]
    assert wrong == 0
    if half == "backward":
        assert result[0] == 1


def test_a_leaky_relu_that_does_nothing_fails_both_halves(checks, monkeypatch):
    class Wrong(checks.LeakyReluLayer):
        def fprop(self, inputs):
            return inputs

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs

    monkeypatch.setattr(checks, "LeakyReluLayer", Wrong)
    result = checks.test_leaky_relu()
    assert (result[0], result[3]) == (0, 0)


@pytest.mark.parametrize("name", ["test_adam_with_weight_decay", "test_cosine_scheduler"])
def test_the_checks_of_learning_rules_run_without_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_DATA_DIR", raising=False)
    getattr(importlib.import_module("mlp.tests"), name)()
