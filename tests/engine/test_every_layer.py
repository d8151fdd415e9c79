"""Every public layer runs in an engine as it runs by itself, generated from the table of cases."""

import copy

import numpy as np
import pytest

from mlp import layers
from mlp.layers import LayerWithParameters, StochasticLayer
from mlp.layers.base import walk
from mlp.testing.cases import LAYER_CASES

from .comparison import assert_close, assert_same_numbers, random, twins

every_case = pytest.mark.parametrize("case", LAYER_CASES, ids=[case.name for case in LAYER_CASES])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PER_EXAMPLE = [case for case in LAYER_CASES if case.build().runs_in_shards]
every_layer_in_shards = pytest.mark.parametrize("case", PER_EXAMPLE, ids=[case.name for case in PER_EXAMPLE])
ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}

FLOORS = {"residual in a chain": 1e-3}
"""Where a gradient almost cancels: that of beta in front of batch normalisation, against the largest of the step."""


@every_case
@both_dtypes
@pytest.mark.parametrize("batch", [None, 9])
def test_an_engine_gives_what_the_layer_gives(case, dtype, batch, small_shards):
    shape = case.shape if batch is None else (batch, *case.shape[1:])
    if case.name == "matrix product, nested" and batch:
        shape = case.shape
    assert_same_numbers(lambda: [case.build()], shape, dtype, floor=FLOORS.get(case.name, 0.0))


@every_case
def test_a_layer_between_planned_ones_gives_what_it_gives_by_itself(case, small_shards):
    """With a plan below that must hand on its gradient, and one above that must give one."""

    def build():
        return [layers.LeakyReluLayer(0.3), case.build(), layers.LeakyReluLayer(0.2)]

    assert_same_numbers(build, case.shape, floor=FLOORS.get(case.name, 0.0))


def parts_of(array):
    return array[:1], array[1:4], array[4:]


@every_layer_in_shards
@both_dtypes
def test_parts_of_a_batch_are_what_the_whole_is(case, dtype):
    layer, x = case.build(), random(9, *case.shape[1:], dtype=dtype)
    outputs = layer.fprop(x)
    assert_close(np.concatenate([layer.fprop(part) for part in parts_of(x)]), outputs)
    grads = random(*outputs.shape, seed=1, dtype=dtype)
    found = [layer.bprop(*part) for part in zip(*map(parts_of, (x, outputs, grads)), strict=True)]
    assert_close(np.concatenate(found), layer.bprop(x, outputs, grads))


@every_layer_in_shards
def test_a_layer_that_runs_in_shards_remembers_nothing_and_is_neither_stochastic_nor_trained(case):
    layer = case.build()
    before = copy.deepcopy(vars(layer))
    layer.bprop(x := random(*case.shape), y := layer.fprop(x), y)
    assert vars(layer).keys() == before.keys()
    assert layer._memory is None
    assert not isinstance(layer, (StochasticLayer, LayerWithParameters))


def test_every_public_layer_that_runs_in_shards_has_a_case():
    public = {name for name in set(layers.__all__) - ABSTRACT if getattr(layers, name).runs_in_shards}
    assert public == {type(case.build()).__name__ for case in PER_EXAMPLE}


@every_case
def test_planning_and_running_leave_nothing_on_the_layers(case):
    """No step, no plan: what is pickled, copied and saved is the layer as it was."""
    layer = case.build()
    ours, _ = twins([layer])
    before = [set(vars(leaf)) for leaf in walk(layer)]
    ours.predict(random(*case.shape))
    ours.forward_backward(x := random(*case.shape), ours.predict(x))
    assert [set(vars(leaf)) - {"_memory"} for leaf in walk(layer)] == before
