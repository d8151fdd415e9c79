"""Numbers that break are noticed in their step, and the layer, pass, array, index and step are named."""

import copy
import logging

import numpy as np
import pytest

from mlp import learning_rules
from mlp.data_providers import DataProvider
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.kernels import Pieces
from mlp.layers import AffineLayer, TanhLayer
from mlp.models import MultipleLayerModel, vgg
from mlp.optimisers import Optimiser, train_step
from mlp.watch import Finding, NumbersError, find, is_finite

ERROR = CrossEntropySoftmaxError()
RULES = [
    learning_rules.GradientDescentLearningRule,
    learning_rules.MomentumLearningRule,
    learning_rules.NesterovMomentumLearningRule,
    learning_rules.AdamLearningRule,
    learning_rules.KingmaAdamLearningRule,
    learning_rules.AdamLearningRuleWithWeightDecay,
    learning_rules.AdaGradLearningRule,
    learning_rules.RMSPropLearningRule,
]


def network():
    return vgg(1, True, True, 4, 5, dtype=np.float64, rng=np.random.RandomState(0))


NAMES = [name for name, _ in network().named_layers()]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 3, 16, 16)), np.array([0, 4, 2])


@pytest.fixture
def trained(batch):
    """A network, its rule after two steps, and an engine that runs the layers."""
    model = network()
    rule = learning_rules.KingmaAdamLearningRule(1e-3)
    rule.initialise(model.params)
    engine = Engine(model, ERROR, "layers")
    for _ in range(2):
        train_step(engine, rule, *batch)
    return model, rule, engine


def hurt(array, seed=0, value=np.nan):
    """Put a number that is not finite into an array; return where."""
    index = tuple(int(i) for i in np.random.default_rng(seed).integers(0, array.shape))
    array[index] = value
    return index


def alarm_of(engine, rule, batch):
    before = [param.copy() for param in engine.params]
    with pytest.raises(NumbersError) as caught:
        train_step(engine, rule, *batch)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, engine.params, strict=True))
    return caught.value.finding


def change(model, name, method, changed):
    """Let a layer's method return what `changed(leaf, returned)` makes of it; copies of the layer do so too."""
    leaf = dict(model.named_layers())[name]
    kind = type(leaf)

    def patched(self, *arguments, **options):
        return changed(self, getattr(kind, method)(self, *arguments, **options))

    leaf.__class__ = type(kind.__name__, (kind,), {method: patched})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_s_forward_pass_is_named(trained, batch, name, value):
    model, rule, engine = trained
    places = []

    def changed(leaf, outputs):
        places.append(hurt(outputs, value=value))
        return outputs

    change(model, name, "fprop", changed)
    with np.errstate(all="ignore"):
        finding = alarm_of(engine, rule, batch)
    assert (finding.where, finding.part, finding.tensor) == (name, "fprop", "outputs")
    assert finding.index == places[0]
    assert finding.step == 3
    np.testing.assert_equal(finding.value, value)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_layer_s_gradient_by_its_inputs_is_named(trained, batch, name):
    model, rule, engine = trained
    places = []

    def changed(leaf, returned):
        grads = np.array(returned[0])
        places.append(hurt(grads))
        return grads, returned[1]

    change(model, name, "backprop", changed)
    with np.errstate(all="ignore"):
        finding = alarm_of(engine, rule, batch)
    assert (finding.where, finding.part, finding.index) == (name, "bprop", places[0])


@pytest.mark.parametrize("which", range(len(network().params)))
def test_a_parameter_s_gradient_is_named(trained, batch, which):
    model, rule, engine = trained
    layer, key, _ = model.param_keys()[which]
    places = []

    def changed(leaf, returned):
        grads = [np.array(grad) for grad in returned[1]]
        places.append(hurt(grads[leaf.own_param_names().index(key)]))
        return returned[0], grads

    change(model, layer, "backprop", changed)
    finding = alarm_of(engine, rule, batch)
    assert (finding.where, finding.part, finding.tensor, finding.index) == (layer, "grads_wrt_params", key, places[0])


@pytest.mark.parametrize("kind", ["plan", "layers"])
@pytest.mark.parametrize("which", range(len(network().params)))
def test_a_parameter_is_named(batch, which, kind):
    model, rule = network(), learning_rules.KingmaAdamLearningRule(1e-3)
    rule.initialise(model.params)
    layer, key, _ = model.param_keys()[which]
    index = hurt(model.params[which])
    finding = alarm_of(Engine(model, ERROR, kind), rule, batch)
    assert finding.part == "parameter"
    assert (finding.where, finding.tensor, finding.index, finding.step) == (layer, key, index, 1)


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_every_slot_of_every_learning_rule_is_named(kind):
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    for state in kind.state_names:
        for which in range(4):
            model = MultipleLayerModel([AffineLayer(4, 5), TanhLayer(), AffineLayer(5, 3)])
            rule = kind(1e-3)
            rule.initialise(model.params)
            engine = Engine(model, ERROR)
            train_step(engine, rule, inputs, targets)
            index = hurt(getattr(rule, state)[which], seed=which)
            train_step(engine, rule, inputs, targets)  # now it is in the parameter
            finding = alarm_of(engine, rule, (inputs, targets))
            layer, key, _ = model.param_keys()[which]
            assert (finding.where, finding.part) == (kind.__name__, "state")
            assert (finding.tensor, finding.index, finding.step) == (f"{state} of {layer}.{key}", index, 3)


@pytest.mark.parametrize(("name", "which"), [("inputs", 0), ("targets", 1)])
def test_what_the_batch_brings_is_named(name, which):
    batch = [np.ones((4, 3)), np.ones((4, 2))]
    index = hurt(batch[which])
    model, rule = MultipleLayerModel([AffineLayer(3, 2)]), learning_rules.GradientDescentLearningRule()
    rule.initialise(model.params)
    finding = alarm_of(Engine(model, SumOfSquaredDiffsError()), rule, batch)
    assert (finding.where, finding.part, finding.tensor, finding.index) == ("batch", "given", name, index)


class BrokenError(SumOfSquaredDiffsError):
    """Gives NaN as its value, or as a gradient."""

    def __init__(self, part):
        self.part = part

    def __call__(self, outputs, targets):
        return np.nan if self.part == "value" else super().__call__(outputs, targets)

    def grad(self, outputs, targets):
        grads = super().grad(outputs, targets)
        if self.part == "grad":
            grads[1, 0] = np.inf
        return grads


@pytest.mark.parametrize(("part", "index"), [("value", ()), ("grad", (1, 0))])
def test_the_error_is_named(part, index):
    model, rule = MultipleLayerModel([AffineLayer(3, 2)]), learning_rules.GradientDescentLearningRule()
    rule.initialise(model.params)
    with np.errstate(all="ignore"):
        finding = alarm_of(Engine(model, BrokenError(part)), rule, (np.ones((4, 3)), np.ones((4, 2))))
    assert (finding.where, finding.part, finding.index) == ("error", part, index)


def test_nothing_is_found_where_all_is_finite(trained, batch):
    model, rule, _ = trained
    before = copy.deepcopy(model.named_arrays())
    assert find(model, ERROR, rule, *batch) is None
    for name, array in model.named_arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert "fprop" not in vars(model.layers[0])


def test_the_message_says_all():
    finding = Finding("conv_3", "fprop", "outputs", (1, 0, 2, 5), float("nan"), 17)
    assert str(NumbersError(finding, 17)) == "step 17: conv_3, fprop: outputs[1, 0, 2, 5] is nan"
    assert "step 4: the loss or a gradient is not finite" in str(NumbersError(None, 4))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_large_gradients_are_no_alarm(dtype):
    large = np.full(10, np.finfo(dtype).max, dtype)
    assert is_finite(1.0, large, [large])
    assert is_finite(1.0, large, Pieces(large, [(2, 5)]))
    for value in (np.nan, np.inf, -np.inf):
        wrong = large.copy()
        wrong[7] = value
        assert not is_finite(1.0, large, [np.ones(3), wrong])
        assert not is_finite(1.0, large, Pieces(wrong, [(2, 5)]))
        assert not is_finite(1.0, wrong, [large])
        assert not is_finite(value, large, [np.ones(3)])


def test_an_optimiser_says_it_once_and_goes_on_at_full_speed(caplog, monkeypatch):
    looks = []
    monkeypatch.setattr("mlp.optimisers.find", lambda *arguments: looks.append(1) or find(*arguments))
    inputs = np.ones((8, 3))
    data = DataProvider(inputs, np.full((8, 2), 1e200), 4, shuffle_order=False)
    model = MultipleLayerModel([AffineLayer(3, 2)])
    rule = learning_rules.GradientDescentLearningRule(1e300)
    with caplog.at_level(logging.WARNING, logger="mlp.optimisers"), np.errstate(all="ignore"):
        stats = Optimiser(model, SumOfSquaredDiffsError(), rule, data).train(3, 1)[0]
    assert len(stats) == 4
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == len(looks) == 1
    assert said[0].startswith("Training goes on with numbers that are not finite. step 1: ")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("where", ["outputs", "pieces", "list"])
def test_a_step_is_finite_also_where_squares_overflow_and_that_is_no_warning(dtype, where):
    """In float16 the squares of 300 do, in float32 those of 1e20."""
    largest = np.finfo(dtype).max
    outputs = np.ones((3, 4, 2, 5), dtype).transpose(0, 3, 1, 2)  # as images are, channels-last in memory
    grads = (
        Pieces(np.ones(7, dtype), [(2, 3), (1,)]) if where != "list" else [np.ones((2, 3), dtype), np.ones(1, dtype)]
    )
    hurt = outputs if where == "outputs" else grads[0]
    assert is_finite(1.0, outputs, grads)
    for value, finite in ((largest, True), (-largest, True), (np.inf, False), (-np.inf, False), (np.nan, False)):
        for index in (0, -1):
            before = hurt[(index,) * hurt.ndim]
            hurt[(index,) * hurt.ndim] = value
            assert is_finite(1.0, outputs, grads) is finite
            hurt[(index,) * hurt.ndim] = before
    assert not is_finite(float("nan"), outputs, grads)
    assert not is_finite(-float("inf"), outputs, grads)
