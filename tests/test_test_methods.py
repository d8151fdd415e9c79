"""The coursework's tests of layers and penalties: debug packs, and gradients that only a proof finds wrong."""

import importlib

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError
from mlp.layers import Layer
from mlp.penalties import L2Penalty

checks = importlib.import_module("mlp.test_methods")
LAYERS = {
    "leaky_relu": checks.test_leaky_relu,
    "random_relu": checks.test_random_relu,
    "parametric_relu": checks.test_parametric_relu,
    "exponential_linear_unit": checks.test_exponential_linear_unit,
}
REGULARISERS = {
    "dropout": checks.test_dropout_layer,
    "L1_penalty": checks.test_L1_Penalty,
    "L2_penalty": checks.test_L2_Penalty,
}
TESTS = LAYERS | REGULARISERS
every_test = pytest.mark.parametrize("name", TESTS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of data, in which no pack lies yet."""
    for name in ("data", "work", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("mlp.data_providers.download.user_cache", lambda: tmp_path / "cache")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """What is right of every test, in float32, so that it is known where it comes from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        patch.delenv("MLP_DATA_DIR", raising=False)
        outcomes = {name: test() for name, test in TESTS.items()}
    return {
        name: (np.asarray(o.fprop_correct, np.float32), np.asarray(o.bprop_correct, np.float32))
        for name, o in outcomes.items()
    }


def nested(right, names):
    return {name: {"fprop_correct": right[name][0], "grad_correct": right[name][1]} for name in names}


def flat(right, names):
    return {f"{name}_{kind}": right[name][i] for name in names for i, kind in enumerate(("fprop", "bprop"))}


def write(folder, right, shape=nested, **changes):
    """Write both packs, as the coursework did."""
    changed = right | changes
    np.save(folder / checks.ACTIVATIONS, shape(changed, LAYERS))
    np.save(folder / checks.REGULARISATION, shape(changed, REGULARISERS))


@every_test
def test_an_outcome_has_names(name):
    outcome = TESTS[name]()
    assert outcome._fields == tuple(
        "fprop_test fprop_output fprop_correct bprop_test bprop_output bprop_correct".split()
    )
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 1.0)
    assert np.asarray(outcome.fprop_correct).dtype == np.float64


@every_test
@pytest.mark.parametrize("shape", [nested, flat])
def test_a_debug_pack_is_used(folder, right, name, shape):
    write(folder, right, shape)
    outcome = TESTS[name]()
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 1.0)
    for correct, expected in zip((outcome.fprop_correct, outcome.bprop_correct), right[name], strict=True):
        assert correct.dtype == np.float32
        np.testing.assert_array_equal(correct, expected)


def test_a_pack_is_found_in_the_folder_data_too(tmp_path, right):
    (tmp_path / "work" / "data").mkdir()
    write(tmp_path / "work" / "data", right)
    assert checks.test_leaky_relu().fprop_correct.dtype == np.float32


@every_test
def test_a_pack_with_other_outputs_fails_the_forward_half(folder, right, name):
    write(folder, right, **{name: (np.asarray(right[name][0] + 1.0), right[name][1])})
    outcome = TESTS[name]()
    assert (outcome.fprop_test, outcome.bprop_test) == (0.0, 1.0)
    np.testing.assert_array_equal(outcome.fprop_correct, right[name][0] + 1.0)


@every_test
def test_a_pack_with_other_gradients_fails_the_backward_half(folder, right, name):
    write(folder, right, **{name: (right[name][0], 2.0 * right[name][1] + 1.0)})
    outcome = TESTS[name]()
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 0.0)


@pytest.mark.parametrize("kind", [np.float64, float])
def test_a_pack_may_hold_a_penalty_s_value_as_a_number(folder, right, kind):
    write(folder, right, L1_penalty=(kind(right["L1_penalty"][0]), right["L1_penalty"][1]))
    assert checks.test_L1_Penalty().bprop_correct.dtype == np.float32
    assert checks.test_dropout_layer().fprop_correct.dtype == np.float32


def test_a_pack_of_another_shape_fails_and_does_not_broadcast(folder, right):
    outputs, grads = right["leaky_relu"]
    write(folder, right, leaky_relu=(outputs[None], grads[:1]))
    outcome = checks.test_leaky_relu()
    assert (outcome.fprop_test, outcome.bprop_test) == (0.0, 0.0)


def test_a_wrong_layer_fails_by_a_pack_as_well(folder, right, monkeypatch):
    class Wrong(checks.LeakyReluLayer):
        def fprop(self, inputs):
            return 2.0 * super().fprop(inputs)

    write(folder, right)
    monkeypatch.setattr(checks, "LeakyReluLayer", Wrong)
    assert checks.test_leaky_relu().fprop_test == 0.0


@pytest.mark.parametrize(
    "content",
    [
        {"something": {"else": np.ones(2)}, "other": np.ones(2)},
        {"leaky_relu": {"fprop_correct": np.ones(2), "other": np.ones(2)}},
        {"leaky_relu": {"grad_a": np.ones(2), "grad_b": np.ones(2)}},
        {"leaky_relu": np.ones(2)},
        {"leaky_relu": {"fprop": np.ones(2), "grad": np.ones(2), "more": np.ones(2)}},
    ],
    ids=["other names", "no gradient", "no output", "one array", "three arrays"],
)
def test_a_pack_that_does_not_fit_is_not_used_and_says_what_it_holds(folder, content):
    path = folder / checks.ACTIVATIONS
    np.save(path, content)
    with pytest.warns(RuntimeWarning, match="it is not used") as caught:
        outcome = checks.test_leaky_relu()
    text = str(caught[0].message)
    assert len(caught) == 1
    assert str(path) in text
    assert "'leaky'" in text
    for key, value in content.items():
        for name in [key] if isinstance(value, np.ndarray) else [f"{key}/{inner}" for inner in value]:
            assert name in text
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 1.0)
    assert outcome.fprop_correct.dtype == np.float64


def test_a_warning_about_a_pack_points_at_who_called_the_test(folder):
    np.save(folder / checks.ACTIVATIONS, {"a": np.ones(1)})
    np.save(folder / checks.REGULARISATION, {"a": np.ones(1)})
    for test in TESTS.values():
        with pytest.warns(RuntimeWarning, match="it is not used") as caught:
            test()
        assert caught[0].filename == __file__


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"\x93NUMPY\x01\x00"], ids=["nothing", "text", "a magic"])
def test_a_damaged_pack_is_told_by_name(folder, data):
    path = folder / checks.ACTIVATIONS
    path.write_bytes(data)
    with pytest.raises(DataDamagedError) as caught:
        checks.test_leaky_relu()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data


def test_a_malicious_pack_does_not_run(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "marker"), "w")

    np.save(folder / checks.ACTIVATIONS, {"leaky_relu": Evil()})
    with pytest.raises(DataDamagedError):
        checks.test_leaky_relu()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("packed", [False, True], ids=["formula", "pack"])
def test_a_wrong_gradient_of_a_parameter_fails_the_backward_half(folder, right, monkeypatch, packed):
    class Wrong(checks.ParametricReluLayer):
        def grads_wrt_params(self, inputs, grads_wrt_outputs):
            return [2.0 * grad for grad in super().grads_wrt_params(inputs, grads_wrt_outputs)]

    if packed:
        write(folder, right)
    monkeypatch.setattr(checks, "ParametricReluLayer", Wrong)
    with pytest.warns(RuntimeWarning, match="alpha"):
        outcome = checks.test_parametric_relu()
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 0.0)
    np.testing.assert_allclose(outcome.bprop_output, outcome.bprop_correct)


@pytest.fixture
def wrong_where_it_is_proven(monkeypatch):
    """Set a penalty whose gradient is wrong for small arrays, as the proof's, only."""

    class Wrong(checks.L1Penalty):
        def grad(self, parameter):
            return super().grad(parameter) * (1.0 if parameter.size > 100 else 2.0)

    monkeypatch.setattr(checks, "L1Penalty", Wrong)


def test_a_penalty_s_gradient_is_proven_too(wrong_where_it_is_proven):
    with pytest.warns(RuntimeWarning):
        outcome = checks.test_L1_Penalty()
    assert (outcome.fprop_test, outcome.bprop_test) == (1.0, 0.0)


def test_a_warning_about_a_gradient_points_at_who_called_the_test(wrong_where_it_is_proven):
    with pytest.warns(RuntimeWarning) as caught:
        checks.test_L1_Penalty()
    assert caught[0].filename == __file__


def test_random_relu_and_dropout_draw_from_their_seeds():
    outcome = checks.test_random_relu()
    inputs = np.random.RandomState(92019).normal(0.0, 5.0, (50, 3, 64, 64))
    slopes = np.random.RandomState(1234).uniform(0.125, 1.0 / 3.0, (50, 3, 64, 64))
    np.testing.assert_allclose(outcome.fprop_correct, np.where(inputs > 0, inputs, slopes * inputs), rtol=1e-12)
    outcome = checks.test_dropout_layer()
    mask = np.random.RandomState(92019).uniform(size=(1, 3, 64, 64)) < 0.5
    np.testing.assert_allclose(outcome.fprop_correct, mask * inputs, rtol=1e-12)
    np.testing.assert_array_equal(outcome.bprop_correct, np.broadcast_to(mask, inputs.shape))


class InPlace(Layer):
    """A plain rectifier, written into its inputs."""

    def fprop(self, inputs):
        np.maximum(inputs, 0, out=inputs)
        return inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = grads_wrt_outputs.copy()
        grads[inputs <= 0] *= 0.01
        return grads


def test_a_layer_that_changes_its_inputs_is_wrong(monkeypatch):
    monkeypatch.setattr(checks, "LeakyReluLayer", InPlace)
    with pytest.warns(RuntimeWarning, match="InPlace changed its inputs"):
        outcome = checks.test_leaky_relu()
    assert outcome.fprop_test == 0.0
    inputs = np.random.RandomState(92019).normal(0, 5, (50, 3, 64, 64))
    np.testing.assert_allclose(outcome.fprop_correct, np.where(inputs > 0, inputs, 0.01 * inputs))


@pytest.mark.parametrize("value", [None, "1", 1j, [1.0, 2.0]])
def test_a_penalty_without_a_number_is_wrong(monkeypatch, value):
    class Wrong(L2Penalty):
        def __call__(self, parameter):
            return value

    monkeypatch.setattr(checks, "L2Penalty", Wrong)
    assert checks.test_L2_Penalty().fprop_test == 0.0
