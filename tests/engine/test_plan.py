"""A plan by itself: dE/dx, the two halves or all in one, what it allocates, and the order of its phases."""

import numpy as np
import pytest

from mlp.engine.executor import MAX_PARTS
from mlp.engine.plan import Plan, Purpose
from mlp.engine.steps.convolution import ConvolutionStep
from mlp.engine.steps.normalisation import BatchNormStep
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    ReluLayer,
    ResidualLayer,
)
from mlp.layers.chain import chain_backprop, chain_fprop

from .comparison import assert_close, by_chance, moved, random

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
TRAINING = Purpose(stochastic=True, backward=True)
ALL = Purpose(stochastic=True, backward=True, need_inputs=True)
SHAPE = (13, 3, 8, 8)


def network(dtype=np.float64, norm=True):
    norms = [moved(BatchNormalizationLayer(4))] if norm else []
    parts = [
        moved(Convolution2DLayer(3, 4, 3, padding=1, bias=not norm)),
        *norms,
        LeakyReluLayer(),
        ResidualLayer([moved(Convolution2DLayer(4, 4, 3, padding=1)), ReluLayer()]),
        AveragePooling2DLayer(2),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(4, 5)),
    ]
    return [part.astype(dtype) for part in parts]


def by_layers(parts, x, grads):
    activations = chain_fprop(parts, x, stochastic=True)
    return activations[-1], *chain_backprop(parts, activations, grads, need_inputs=True)


@both_dtypes
@pytest.mark.parametrize("norm", [False, True])
def test_both_halves_give_outputs_and_all_gradients(dtype, norm, small_shards):
    x, upstream = random(*SHAPE, dtype=dtype), random(13, 5, seed=1, dtype=dtype)
    outputs, grads_wrt_inputs, grads = by_layers(network(dtype, norm), x, upstream)
    plan = Plan(network(dtype, norm), SHAPE, dtype, ALL)
    for _ in range(2):
        assert_close(plan.outputs(x), outputs)
        found_wrt_inputs, found = plan.gradients(upstream)
        assert_close(found_wrt_inputs, grads_wrt_inputs)
        for one, other in zip(found, grads, strict=True):
            assert_close(one, other)
    without = Plan(network(dtype, norm), SHAPE, dtype, TRAINING)
    without.outputs(x)
    found_wrt_inputs, found = without.gradients(upstream)
    assert found_wrt_inputs is None
    for one, other in zip(found, grads, strict=True):
        assert_close(one, other)


@both_dtypes
@pytest.mark.parametrize("norm", [False, True])
def test_all_in_one_gives_the_error_too(dtype, norm, small_shards):
    x, labels, error = random(*SHAPE, dtype=dtype), np.arange(13) % 5, CrossEntropySoftmaxError()
    activations = chain_fprop(network(dtype, norm), x, stochastic=True)
    upstream = error.grad(activations[-1], labels)
    outputs, grads_wrt_inputs, grads = by_layers(network(dtype, norm), x, upstream)
    plan = Plan(network(dtype, norm), SHAPE, dtype, ALL, error)
    for _ in range(2):
        loss, found_outputs, found_wrt_inputs, found = plan.train(x, labels)
        assert type(loss) is float
        np.testing.assert_allclose(loss, float(error(outputs, labels)), rtol=1e-6 if dtype is np.float32 else 1e-13)
        assert_close(found_outputs, outputs)
        assert_close(found_wrt_inputs, grads_wrt_inputs)
        for one, other in zip(found, grads, strict=True):
            assert_close(one, other)


def test_without_batch_normalisation_a_shard_goes_all_the_way_and_back_at_once():
    """One phase on shards, between one for the parameters and one for each sum of gradients."""
    alone = Plan(network(norm=False), SHAPE, np.float64, TRAINING, CrossEntropySoftmaxError())
    assert [phase.whole for phase in alone._phases].count(False) == 1
    coupled = Plan(network(norm=True), SHAPE, np.float64, TRAINING, CrossEntropySoftmaxError())
    assert [phase.whole for phase in coupled._phases].count(False) == 3


def test_a_plan_that_predicts_holds_no_memory_of_the_batch():
    for norm in (False, True):
        plan = Plan(network(norm=norm), SHAPE, np.float64, Purpose(stochastic=False, backward=False))
        assert plan.executor.batch_bytes == 0


def test_memory_grows_with_the_batch_and_the_bytes_of_a_number():
    def memory(batch, dtype):
        return Plan(network(dtype), (batch, *SHAPE[1:]), dtype, TRAINING).executor.batch_bytes

    assert memory(8, np.float32) < memory(8, np.float64) < memory(16, np.float64)


@pytest.mark.parametrize(("cores", "shards"), [(1, 4), (2, 4), (6, 6), (64, 32)])
def test_a_machine_with_more_cores_has_a_shard_for_each_that_is_worth_it(cores, shards, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    plan = Plan([ReluLayer()], (100, 32, 32, 32), np.float32, TRAINING)
    assert len(plan.executor.cut.sizes) == shards


def test_shards_are_small_enough_for_the_cache_and_hold_four_examples_at_least(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def sizes(batch, *shape):
        return Plan([ReluLayer()], (batch, *shape), np.float32, TRAINING).executor.cut.sizes

    assert sizes(100, 3, 8, 8) == (100,)
    assert sizes(100, 32, 32, 32) == (25,) * 4  # 3.3 MB
    assert sizes(25, 32, 32, 32) == (13, 12)
    assert sum(sizes(100, 32, 32, 32)) == 100
    assert max(sizes(10, 512, 64, 64)) == 4
    assert sizes(3, 512, 64, 64) == (2, 1)
    assert Plan([ReluLayer()], (10000, 32, 32, 32), np.float32, TRAINING).executor.cut.num_parts <= MAX_PARTS


def test_steps_stand_in_the_order_of_the_parameters(small_shards):
    parts = network()
    plan = Plan(parts, SHAPE, np.float64, TRAINING)
    assert [type(step) for step in plan.steps][:2] == [ConvolutionStep, BatchNormStep]
    plan.outputs(random(*SHAPE))
    _, grads = plan.gradients(random(13, 5))
    params = [param for part in parts for param in getattr(part, "params", [])]
    assert [grad.shape for grad in grads] == [param.shape for param in params]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", ["winograd", "im2col"])
@pytest.mark.parametrize("batch", [13, 53])
def test_the_same_bits_come_out_whichever_thread_takes_a_part(seed, method, batch, monkeypatch, small_shards):
    """Threads, one at a time, take parts in random order; shards are of two sizes."""
    monkeypatch.setenv("MLP_CONV", method)
    monkeypatch.setattr(
        "mlp.engine.executor.run_on_threads", lambda work, count, threads: [work(0, i) for i in range(count)]
    )
    x, upstream = random(batch, *SHAPE[1:]), random(batch, 5, seed=1)
    expected_plan = Plan(network(), x.shape, np.float64, ALL)
    plan = Plan(network(), x.shape, np.float64, ALL)
    schedule = by_chance(seed)
    for _ in range(3):
        monkeypatch.setattr(
            "mlp.engine.executor.run_on_threads", lambda work, count, threads: [work(0, i) for i in range(count)]
        )
        expected = expected_plan.outputs(x), *expected_plan.gradients(upstream)
        monkeypatch.setattr("mlp.engine.executor.run_on_threads", schedule)
        found = plan.outputs(x), *plan.gradients(upstream)
        for one, other in zip((*found[:2], *found[2]), (*expected[:2], *expected[2]), strict=True):
            np.testing.assert_array_equal(one, other)
