"""The engine: plans for batches of many sizes, what it hands out, and what it keeps."""

import copy
import pickle

import numpy as np
import pytest

from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.engine import Engine
from mlp.engine import engine as engine_module
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    ResidualLayer,
)
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import Model, MultipleLayerModel
from mlp.optimisers import Optimiser, evaluate, train_step

from .comparison import SQUARES, Probe, assert_arrays_close, assert_close, assert_steps_close, moved, random, twins

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def network(dtype=np.float64):
    layers = [
        moved(Convolution2DLayer(3, 4, 3, padding=1, bias=False)),
        moved(BatchNormalizationLayer(4)),
        LeakyReluLayer(),
        ResidualLayer([moved(Convolution2DLayer(4, 4, 3, padding=1)), LeakyReluLayer()]),
        AveragePooling2DLayer(2),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(4, 5)),
    ]
    return [layer.astype(dtype) for layer in layers]


def batch(n, seed=0, dtype=np.float64):
    return random(n, 3, 4, 6, seed=seed, dtype=dtype), random(n, 5, seed=seed + 100, dtype=dtype)


@pytest.fixture
def made(monkeypatch):
    """Return the list of the shapes that plans are made for."""
    shapes, plan = [], engine_module.Plan

    def counted(layers, shape, *rest):
        shapes.append(shape)
        return plan(layers, shape, *rest)

    monkeypatch.setattr(engine_module, "Plan", counted)
    return shapes


@both_dtypes
def test_batches_of_other_sizes_take_turns(dtype, small_shards):
    """Among them the last, incomplete one, in training and in evaluation."""
    ours, theirs = twins(network(dtype))
    for turn, n in enumerate([9, 4, 9, 2, 13, 1, 9, 4]):
        x, t = batch(n, turn, dtype)
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)
        assert_close(ours.predict(x), theirs.predict(x))
        assert_arrays_close(ours, theirs)


def test_images_of_other_sizes_take_turns(small_shards):
    ours, theirs = twins(network())
    for turn, size in enumerate([(4, 6), (8, 8), (2, 2), (4, 6)]):
        x, t = random(9, 3, *size, seed=turn), random(9, 5)
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)


def test_a_plan_is_made_once_for_a_shape_and_a_purpose(made):
    engine, _ = twins(network())
    for n in (9, 9, 4, 9, 4):
        engine.forward_backward(*batch(n))
        engine.predict(batch(n)[0])
        engine.predict(batch(n)[0], stochastic=True)
        for param in engine.model.params:
            param *= 0.99
    assert sorted(shape[0] for shape in made) == [4, 4, 4, 9, 9, 9]


def test_plans_are_forgotten_where_they_take_too_much_memory(made, monkeypatch):
    monkeypatch.setattr("mlp.engine.memory._PLANS_BYTES", 1)
    ours, theirs = twins([Probe((1, 3, 4, 6)), *network()])
    for turn, n in enumerate([9, 5, 9, 5]):
        x, t = batch(n, turn)
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)
        assert len(ours.plans()) == 1
    assert [shape[0] for shape in made] == [9, 5, 9, 5]


def test_the_plan_that_was_not_in_use_for_longest_is_forgotten_first(made, monkeypatch):
    engine, _ = twins(network())
    for n in (9, 4):
        engine.forward_backward(*batch(n))
    size = sum(plan.executor.batch_bytes for plan in engine.plans())
    monkeypatch.setattr("mlp.engine.memory._PLANS_BYTES", size)
    engine.forward_backward(*batch(9))
    engine.forward_backward(*batch(3))
    engine.forward_backward(*batch(9))
    assert [shape[0] for shape in made] == [9, 4, 3]


@both_dtypes
def test_what_a_step_returned_is_not_overwritten_by_the_next(dtype, small_shards):
    """In one plan, and in two with a layer of a user's between."""
    for layers in (network(dtype), [*network(dtype)[:3], Probe((9, 4, 4, 6)).astype(dtype), *network(dtype)[3:]]):
        engine, _ = twins(layers)
        x, t = batch(9, dtype=dtype)
        first = engine.forward_backward(x, t)
        predicted, trained = engine.predict(x), engine.predict(x, stochastic=True)
        arrays = [first.outputs, *first.grads, predicted, trained]
        before = copy.deepcopy(arrays)
        for param in engine.model.params:
            param += 1.0
        second = engine.forward_backward(*batch(9, 1, dtype))
        later = [second.outputs, *second.grads, engine.predict(2 * x), engine.predict(2 * x, stochastic=True)]
        for array, known in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, known)
            assert not any(np.shares_memory(array, other) for other in later)


def test_what_a_caller_writes_into_results_and_inputs_does_not_come_back(small_shards):
    ours, theirs = twins(network())
    for turn in range(3):
        x, t = batch(9, turn)
        expected = theirs.forward_backward(x, t)
        step = ours.forward_backward(x, t)
        assert_steps_close(step, expected, floor=1e-2)
        for array in (x, t, step.outputs, *step.grads, ours.predict(x)):
            array[...] = np.nan


def test_gradients_are_arrays_of_their_own():
    engine, _ = twins(network())
    step = engine.forward_backward(*batch(9))
    for i, one in enumerate(step.grads):
        assert one.flags.writeable
        assert not any(np.shares_memory(one, other) for other in (*step.grads[:i], *engine.model.params, step.outputs))


def test_inputs_and_targets_are_not_changed(small_shards):
    engine, _ = twins(network())
    x, t = batch(9)
    given = x.copy(), t.copy()
    engine.forward_backward(x, t)
    engine.predict(x)
    np.testing.assert_array_equal(x, given[0])
    np.testing.assert_array_equal(t, given[1])


def test_running_twice_gives_the_same_bits(small_shards):
    model = MultipleLayerModel(network())
    engine, again = Engine(model, SQUARES), Engine(copy.deepcopy(model), SQUARES)
    for turn in range(3):
        step, other = engine.forward_backward(*batch(13, turn)), again.forward_backward(*batch(13, turn))
        assert step.loss == other.loss
        for one, two in zip((step.outputs, *step.grads), (other.outputs, *other.grads), strict=True):
            np.testing.assert_array_equal(one, two)


def test_both_kinds_are_there_and_no_other():
    model = MultipleLayerModel(network())
    assert Engine(model).kind == "plan"
    with pytest.raises(ValueError, match="Engine: kind is 'graph', expected one of 'plan', 'layers'"):
        Engine(model, None, "graph")


class Halved(Model):
    """A model of a user's with a forward pass of its own."""

    def fprop(self, inputs, evaluation=False, stochastic=None):
        return super().fprop(0.5 * inputs, evaluation, stochastic)


class Slowed(Model):
    """A model of a user's with a backward pass of its own."""

    def grads_wrt_params(self, activations, grads_wrt_outputs):
        return [0.1 * grad for grad in super().grads_wrt_params(activations, grads_wrt_outputs)]


@pytest.mark.parametrize("kind", [Halved, Slowed])
def test_a_model_with_passes_of_its_own_is_run_by_them(kind, made):
    model = kind(network())
    ours, theirs = Engine(model, SQUARES), Engine(copy.deepcopy(model), SQUARES, "layers")
    x, t = batch(9)
    assert_close(ours.predict(x), theirs.predict(x))
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)
    assert made == []


def test_a_model_may_be_pickled_and_copied_after_planning(small_shards):
    engine, _ = twins(network())
    x, t = batch(9)
    engine.forward_backward(x, t)
    copies = [pickle.loads(pickle.dumps(engine.model)), copy.deepcopy(engine.model), engine.model.astype(np.float64)]
    expected = engine.forward_backward(x, t)
    for model in copies:
        again = Engine(model, SQUARES)
        step = again.forward_backward(x, t)
        assert step.loss == expected.loss
        for one, two in zip((step.outputs, *step.grads), (expected.outputs, *expected.grads), strict=True):
            np.testing.assert_array_equal(one, two)
        assert not any(np.shares_memory(a, b) for a, b in zip(model.params, engine.model.params, strict=True))


def test_the_loop_around_an_engine_can_be_copied_and_pickled():
    """As it could before there were engines."""
    model = MultipleLayerModel([moved(AffineLayer(3, 2))])
    optimiser = Optimiser(model, SQUARES, KingmaAdamLearningRule(), [(random(4, 3), random(4, 2))])
    optimiser.engine.forward_backward(random(4, 3), random(4, 2))
    for clone in (copy.deepcopy(optimiser), pickle.loads(pickle.dumps(optimiser))):
        assert clone.engine.model is clone.model
        np.testing.assert_array_equal(clone.engine.predict(random(4, 3)), optimiser.engine.predict(random(4, 3)))


def test_a_checkpoint_loaded_after_planning_is_what_is_run(tmp_path, small_shards):
    ours, theirs = twins(network())
    x, t = batch(9)
    ours.forward_backward(x, t)
    other = MultipleLayerModel([layer.astype(np.float64) for layer in network()])
    for array in other.named_arrays().values():
        array += 0.1
    save_checkpoint(tmp_path / "a.safetensors", other, None, {})
    for engine in (ours, theirs):
        load_checkpoint(tmp_path / "a.safetensors", engine.model)
    assert_close(ours.predict(x), theirs.predict(x))
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)


def test_training_goes_the_same_way(small_shards):
    """Ten steps of Adam with batches of two sizes and dropout, and an evaluation."""
    layers = [*network()[:-1], DropoutLayer(np.random.RandomState(1), 0.8), moved(AffineLayer(4, 5))]
    error = CrossEntropySoftmaxError()
    ours, theirs = twins(layers, error)
    rules = KingmaAdamLearningRule(0.01), KingmaAdamLearningRule(0.01)
    for engine, rule in zip((ours, theirs), rules, strict=True):
        rule.initialise(engine.model.params)
    for turn in range(10):
        n = 9 if turn % 3 else 5
        for engine, rule in zip((ours, theirs), rules, strict=True):
            train_step(engine, rule, batch(n, turn)[0], np.arange(n) % 5)
    for one, other in zip(ours.model.params, theirs.model.params, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)  # Adam divides rounding by rounding where g is 0
    batches = [(batch(n, n)[0], np.arange(n) % 5) for n in (9, 9, 4)]
    scores = evaluate(ours, batches), evaluate(theirs, batches)
    assert scores[0].images == scores[1].images == 22
    assert scores[0].correct == scores[1].correct
    np.testing.assert_allclose(scores[0].loss, scores[1].loss, rtol=1e-8)
