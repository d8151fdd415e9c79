import sys

import numpy as np
import pytest

from mlp.backend import to_device
from mlp.engine import Engine, profile
from mlp.errors import CrossEntropySoftmaxError
from mlp.models import summary, vgg

from ..strict_cupy import StrictCupy


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    model = vgg(1, True, True, num_filters=4, num_classes=5, rng=np.random.RandomState(0))
    engine = Engine(model, CrossEntropySoftmaxError())
    inputs, labels = rng.standard_normal((6, 3, 16, 16)).astype(np.float32), rng.integers(0, 5, 6)
    return model, profile(engine, inputs, labels, repeats=2), engine


def test_every_action_has_a_time(found):
    _, costs, engine = found
    (plan,) = engine.plans()
    assert len(costs.costs) == len(plan.executor.program.actions)
    assert all(cost.seconds > 0 for cost in costs.costs)
    assert sum(cost.seconds for cost in costs.costs) <= costs.seconds * costs.threads
    assert plan.executor.times is None


def test_operations_are_those_of_the_summary(found):
    """Forward once; backward twice, but for the gradient by the images."""
    model, costs, _ = found
    forward = 2 * 6 * summary(model, (3, 16, 16)).multiply_adds
    first = 2 * 6 * 16 * 16 * 3 * 9 * 4
    assert sum(cost.flops for cost in costs.costs) == 3 * forward - first


def test_merged_costs_add_up(found):
    _, costs, _ = found
    merged = costs.merged()
    assert sum(cost.seconds for cost in merged) == pytest.approx(sum(cost.seconds for cost in costs.costs))
    assert [cost.seconds for cost in merged] == sorted((cost.seconds for cost in merged), reverse=True)
    assert len({cost.what for cost in merged}) == len(merged)
    assert "Convolution forward (4, 16, 16)" in {cost.what for cost in merged}


def test_a_gpus_launches_are_timed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    rng = np.random.default_rng(0)
    model = vgg(0, True, num_filters=4, num_classes=5, rng=np.random.RandomState(0))
    engine = Engine(model.to_gpu(), CrossEntropySoftmaxError())
    engine.predict(to_device(np.zeros((3, 3, 16, 16), np.float32), "gpu"))  # a plan that the steps do not use
    inputs, labels = rng.standard_normal((2, 3, 16, 16)).astype(np.float32), rng.integers(0, 5, 2)
    costs = profile(engine, to_device(inputs, "gpu"), to_device(labels, "gpu"), repeats=2)
    (plan,) = engine.plans_in_use()
    assert costs.threads == 0
    assert [cost.what for cost in costs.costs] == [launch.name for launch in plan.launches]
    assert all(cost.seconds > 0 for cost in costs.costs)
    assert all(cost.bytes > 0 for cost in costs.costs)
    forward = 2 * 2 * summary(model, (3, 16, 16)).multiply_adds
    assert sum(cost.flops for cost in costs.costs) == 3 * forward - 2 * 2 * 16 * 16 * 3 * 9 * 4
