"""Memory: what a plan takes is known before, stays within a workspace, is found where it ran out, and does not grow."""

import copy
import gc
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from mlp.engine import Engine, WorkspaceError
from mlp.engine.executor import Executor
from mlp.engine.memory import StateBefore, layers_that_change
from mlp.engine.plan import Plan, Purpose
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels.scratch import Measure, Scratch
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LeakyReluLayer,
    MaxPooling2DLayer,
    ReluLayer,
    ResidualLayer,
)
from mlp.models import MultipleLayerModel

from .comparison import assert_close, moved, random

SHAPE = (29, 3, 12, 12)
TRAINING, EVALUATION = Purpose(stochastic=True, backward=True), Purpose(stochastic=False, backward=False)


def convolutional(dtype=np.float32, norm=True, padding=1):
    norms = [moved(BatchNormalizationLayer(6))] if norm else []
    parts = [
        moved(Convolution2DLayer(3, 6, 3, padding=padding, bias=not norm)),
        *norms,
        LeakyReluLayer(),
        ResidualLayer([moved(Convolution2DLayer(6, 6, 3, padding=1)), ReluLayer()]),
        AveragePooling2DLayer(2),
        moved(Convolution2DLayer(6, 8, 3, stride=2, padding=1)),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(8, 5)),
    ]
    return [part.astype(dtype) for part in parts]


def labels(batch=SHAPE[0], classes=5):
    return np.arange(batch) % classes


def an_engine(layers, **options):
    return Engine(MultipleLayerModel(layers), CrossEntropySoftmaxError(), **options)


@pytest.mark.parametrize("method", ["winograd", "im2col"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("purpose", [TRAINING, TRAINING._replace(need_inputs=True), EVALUATION], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_all_memory_is_known_before_a_plan_runs_and_taken_by_its_first_run(
    purpose, norm, dtype, method, padding, small_shards, threads, monkeypatch
):
    monkeypatch.setenv("MLP_CONV", method)
    pieces, take = [], Scratch._take
    monkeypatch.setattr(Scratch, "_take", lambda *arguments: pieces.append(take(*arguments)) or pieces[-1])
    threads(2)
    plan = Plan(convolutional(dtype, norm, padding), SHAPE, dtype, purpose)
    predicted = plan.num_bytes()
    executor = plan.executor
    assert len(set(executor.cut.sizes)) == 2  # shards of both sizes
    assert plan.shard_size == max(executor.cut.sizes)
    executor.take_memory()
    taken = [hand.scratch.sizes() for hand in executor._hands.values()]
    for _ in range(2):
        plan.outputs(random(*SHAPE, dtype=dtype))
        if purpose.backward:
            plan.gradients(random(SHAPE[0], 5, dtype=dtype))
    assert [hand.scratch.sizes() for hand in executor._hands.values()] == taken
    batch = sum(array.nbytes for arrays in executor._memory if arrays is not None for array in arrays)
    kept = sum(array.nbytes for step in plan.steps for array in getattr(step, "matrices", []))
    assert predicted == batch + kept + sum(hand.scratch.num_bytes() for hand in executor._hands.values())
    assert predicted == plan.num_bytes() == batch + kept + sum(piece.nbytes for piece in pieces)  # none was replaced


def test_a_plan_that_has_not_run_takes_nothing(monkeypatch):
    """Not even where it would not fit into memory."""
    plan = Plan(convolutional(), (10_000_000, *SHAPE[1:]), np.float32, TRAINING)
    assert plan.num_bytes() > 1e11


def test_memory_is_that_of_the_threads_that_were_at_work_and_of_no_more_than_have_a_part(small_shards, threads):
    threads(3)
    plan = Plan(convolutional(), SHAPE, np.float32, EVALUATION)
    on_three = plan.num_bytes()
    plan.outputs(random(*SHAPE, dtype=np.float32))
    threads(1)
    assert plan.num_bytes() == on_three  # it still holds that of three
    assert plan.num_bytes(1) < plan.num_bytes(2) < on_three
    assert plan.num_bytes(1000) == plan.num_bytes(plan.executor.cut.num_parts) > on_three


def test_a_measure_says_what_scratch_takes():
    def use(scratch):
        return [
            scratch.empty("a", (3, 4), np.float32),
            scratch.empty("a", (50,), np.float32),
            scratch.empty("a", (2,), np.float64),
            scratch.zeros("b", (7, 2), np.float64),
            scratch.zeros("b", (7, 3), np.float64),
        ]

    measure = Measure()
    measured = use(measure)
    scratch = Scratch(measure.sizes())
    first = use(scratch)
    assert measure.sizes() == scratch.sizes()
    assert measure.num_bytes() == scratch.num_bytes() == 50 * 4 + 16 + 35 * 8
    assert [array.shape for array in measured] == [array.shape for array in first]
    assert first[0].base is first[1].base  # the room for the largest was there from the first
    assert not first[3].any()


CHILD = """
import ctypes, json, os, resource
os.cpu_count = lambda: CORES  # on which it depends how a batch is cut
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no pages of 2 MiB, which hold more than was asked for
import numpy as np
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.models import vgg

def status(*names):
    with open("/proc/self/status") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in names)

def own():
    return status("RssAnon", "VmSwap")  # memory of its own, there or swapped out; not what is mapped of libraries
"""


def child(code, cores=2, **environment):
    """Run Python code, with the names of CHILD, as on so many cores; return (its last line, as JSON, and its log)."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD.replace("CORES", str(cores)) + code],
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


on_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK) or "\nRssAnon:" not in Path("/proc/self/status").read_text(),
    reason="measures by Linux's /proc",
)


@on_linux
@pytest.mark.parametrize(
    ("blocks", "norm", "residual", "batch", "cores"),
    [(0, False, False, 100, 2), (0, False, False, 100, 16), (5, False, False, 50, 2), (0, True, True, 100, 2)],
)
def test_the_predicted_peak_is_within_ten_percent_of_the_measured(blocks, norm, residual, batch, cores):
    found, _ = child(
        f"""
engine = Engine(vgg({blocks}, {norm}, {residual}, 32, 100, rng=np.random.default_rng(0)), CrossEntropySoftmaxError())
images = np.random.default_rng(0).standard_normal(({batch}, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
engine.model.fprop(images[:2])  # what the libraries take for themselves
predicted = engine.memory(images.shape)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
before, own_before = status("VmRSS"), own()
for _ in range(3):
    step = engine.forward_backward(images, np.arange({batch}))
peak, at_end = status("VmHWM") - before, own() - own_before
print(json.dumps([predicted, max(peak, at_end)]))  # what is swapped out is not in the peak
""",
        cores,
        MLP_NUM_THREADS="2",
    )
    predicted, measured = found
    assert abs(predicted / measured - 1) < 0.1, found


def test_memory_counts_outputs_and_gradients_and_knows_no_layers_of_a_user():
    layers = convolutional()
    engine = an_engine(layers)
    step, evaluation = engine.memory(SHAPE), engine.memory(SHAPE, training=False)
    engine.forward_backward(random(*SHAPE, dtype=np.float32), labels())
    (plan,) = engine.plans_in_use()
    params = sum(param.nbytes for param in engine.params)
    assert step == plan.num_bytes() + params + SHAPE[0] * 5 * 4
    engine.predict(random(*SHAPE, dtype=np.float32))
    (other,) = engine.plans_in_use()
    assert evaluation == other.num_bytes() + SHAPE[0] * 5 * 4
    assert len(engine.plans()) == 2  # those that `memory` made
    assert an_engine(layers, kind="layers").memory(SHAPE) is None
    assert an_engine([*convolutional()[:3], DropoutLayer(), *convolutional()[3:]]).memory(SHAPE) is None


@pytest.mark.parametrize("shape", [(4, 3, 12, -1), (4.0, 3, 12, 12), "ab", (True, 3, 12, 12), (None, 3, 12, 12)])
def test_a_shape_whose_memory_is_asked_for_is_of_whole_numbers(shape):
    with pytest.raises(
        (TypeError, ValueError), match=r"Engine.memory: a length in shape is .*, expected a whole number"
    ):
        an_engine(convolutional()).memory(shape)


def bits(step):
    return [step.loss, *(array.tobytes() for array in (step.outputs, *step.grads))]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.0])
def test_a_workspace_bounds_plans_and_gives_the_same_bits_on_any_number_of_threads(share, threads):
    x = random(64, 3, 12, 12, dtype=np.float32)
    threads(2)
    free = an_engine(convolutional(norm=False))
    wanted = free.forward_backward(x, labels(64))
    (plan,) = free.plans()
    least = Plan(convolutional(norm=False), x.shape, np.float32, TRAINING, free.error, 1).num_bytes(1)
    bound = int(least + share * (plan.num_bytes(os.cpu_count()) - least))
    found = []
    for count in (1, 2, 3):
        threads(count)
        engine = an_engine(convolutional(norm=False), workspace=bound)
        step = engine.forward_backward(x, labels(64))
        (bounded,) = engine.plans()
        executor = bounded.executor
        assert bounded.num_bytes() <= bounded.num_bytes(os.cpu_count()) <= bound
        assert executor.batch_bytes + sum(hand.scratch.num_bytes() for hand in executor._hands.values()) <= bound
        assert bounded.shard_size < plan.shard_size or share == 0.9
        assert bounded.num_bytes(os.cpu_count()) <= bound or bounded.shard_size == 1  # on all cores, where that can be
        found.append(bits(step))
        for one, other in zip(step.grads, wanted.grads, strict=True):
            assert_close(one, other)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("share", [0.95, 1.5, 1.8])
def test_two_plans_of_a_pass_are_cut_alike_on_any_number_of_threads(share, threads, small_shards, monkeypatch):
    """What the first takes leaves the second as much room, whatever the threads."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    x = random(64, 3, 12, 12, dtype=np.float32)

    def layers():
        upper = [moved(Convolution2DLayer(6, 6, 3, padding=1)), *convolutional(norm=False)[-2:-1]]
        lower = [moved(Convolution2DLayer(3, 6, 3, padding=1)), LeakyReluLayer(), Mine(), *upper]
        return [layer.astype(np.float32) for layer in [*lower, moved(AffineLayer(6, 5))]]

    threads(1)
    free = an_engine(layers())
    free.forward_backward(x, labels(64))
    bound = int(share * sum(plan.num_bytes(1) for plan in free.plans()))
    found = []
    for count in (1, 2, 3, 5):
        threads(count)
        engine = an_engine(layers(), workspace=bound)
        try:
            found.append((bits(engine.forward_backward(x, labels(64))), [plan.shard_size for plan in engine.plans()]))
        except WorkspaceError as error:
            found.append(str(error))
            continue
        assert len(engine.plans()) == 2
        assert sum(plan.num_bytes() for plan in engine.plans()) <= bound
    assert isinstance(found[0], tuple) or share < 1
    assert all(one == found[0] for one in found)


def test_where_smaller_shards_take_more_memory_the_least_is_taken_and_named():
    """A wide affine layer's gradient is summed in every part, and small shards make more parts."""
    layers = [layer.astype(np.float32) for layer in [moved(AffineLayer(1000, 900)), ReluLayer(), AffineLayer(900, 5)]]
    engine = an_engine(layers)
    engine.memory((2000, 1000))
    (plan,) = engine.plans()
    least = plan.num_bytes(1)
    assert Plan(layers, plan.shape, np.float32, TRAINING, engine.error, 1).num_bytes(1) > 1.5 * least
    tight = an_engine(layers, workspace=least)
    tight.memory((2000, 1000))
    assert [made.shard_size for made in tight.plans()] == [plan.shard_size]
    with pytest.raises(WorkspaceError, match=f"needs {least / 1e6:,.1f} MB"):
        an_engine(layers, workspace=least - 1).memory((2000, 1000))


def test_sums_of_parts_are_added_without_memory_of_their_own():
    layers = [layer.astype(np.float32) for layer in [moved(AffineLayer(1000, 900)), ReluLayer(), AffineLayer(900, 5)]]
    engine, x = an_engine(layers), np.ones((2000, 1000), np.float32)
    engine.forward_backward(x[:2], labels(2))  # what the libraries take for themselves
    predicted = engine.memory(x.shape)
    (executor,) = (plan.executor for plan in engine.plans() if plan.shape == x.shape)
    assert executor.cut.num_parts > 2
    tracemalloc.start()
    engine.forward_backward(x, labels(2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(predicted / peak - 1) < 0.03


def test_a_workspace_that_is_too_small_is_said_with_what_is_needed():
    engine = an_engine(convolutional(), workspace=100_000)
    with pytest.raises(WorkspaceError, match=r"batch of shape \(29, 3, 12, 12\) needs [\d.]+ MB .* has 0\.1 MB for it"):
        engine.forward_backward(random(*SHAPE, dtype=np.float32), labels())


def test_the_least_that_an_error_names_is_enough():
    x = random(*SHAPE, dtype=np.float32)
    with pytest.raises(WorkspaceError) as caught:
        an_engine(convolutional(), workspace=100_000).forward_backward(x, labels())
    needed = float(re.search(r"needs ([\d.]+) MB", str(caught.value))[1])
    an_engine(convolutional(), workspace=round(needed * 1e6)).forward_backward(x, labels())


def test_a_workspace_holds_for_all_plans_together():
    x = random(*SHAPE, dtype=np.float32)
    free = an_engine(convolutional())
    step, evaluation = free.memory(SHAPE), free.memory(SHAPE, training=False)
    engine = an_engine(convolutional(), workspace=max(step, evaluation) + 1000)
    for _ in range(2):
        engine.forward_backward(x, labels())
        engine.predict(x)
        assert sum(plan.num_bytes() for plan in engine.plans()) <= max(step, evaluation) + 1000
    roomy = an_engine(convolutional(), workspace=step + evaluation)
    roomy.forward_backward(x, labels())
    roomy.predict(x)
    assert len(roomy.plans()) == 2


@pytest.fixture
def held(monkeypatch):
    """How many bytes plans hold, each time that one takes its memory; Python's collector does not run by itself."""
    found, executors, original = [], [], Executor.take_memory

    def take_memory(executor):
        original(executor)
        if all(executor is not other() for other in executors):
            executors.append(weakref.ref(executor))
        found.append(sum(other().num_bytes() for other in executors if other()))

    monkeypatch.setattr(Executor, "take_memory", take_memory)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


def test_a_plan_that_was_forgotten_has_given_its_memory_back_before_another_takes_its_own(held):
    x = random(*SHAPE, dtype=np.float32)
    free = an_engine(convolutional())
    most = max(free.memory(SHAPE), free.memory(SHAPE, training=False))
    engine = an_engine(convolutional(), workspace=most)
    steps = []
    for _ in range(3):
        steps.append(engine.forward_backward(x, labels()))
        engine.predict(x)
    assert len(held) == 6
    engine.model.layers[2] = ReluLayer()
    engine.predict(x)
    assert max(held) <= most
    assert bits(steps[0]) == bits(steps[1]) == bits(steps[2])


def test_plans_of_one_pass_share_a_workspace(held):
    x = random(*SHAPE)
    free = an_engine(remembering())
    wanted = free.forward_backward(x, labels())
    plans = len(free.plans_in_use())
    bound = int(0.8 * held[-1])
    del free
    gc.collect()
    held.clear()
    engine = an_engine(remembering(), workspace=bound)
    step = engine.forward_backward(x, labels())
    assert len(engine.plans_in_use()) == plans > 1
    assert sum(plan.num_bytes() for plan in engine.plans_in_use()) <= bound
    assert max(held) <= bound
    assert_close(step.outputs, wanted.outputs)


@pytest.mark.parametrize("workspace", [0, -1, 1.5, True, "8"])
def test_a_workspace_is_a_whole_number_of_bytes(workspace):
    with pytest.raises((TypeError, ValueError), match=r"Engine: workspace is .*, expected a whole number >= 1"):
        an_engine(convolutional(), workspace=workspace)


def test_a_copy_of_an_engine_has_its_workspace():
    engine = copy.copy(an_engine(convolutional(), workspace=100_000))
    with pytest.raises(WorkspaceError, match=r"the workspace has 0\.1 MB"):
        engine.predict(random(1000, *SHAPE[1:]))


def test_layers_by_their_own_passes_have_no_workspace():
    with pytest.raises(ValueError, match="workspace 1000, which are for plans"):
        an_engine(convolutional(), kind="layers", workspace=1000)


class Mine(Layer):
    """A layer that plans do not know."""

    def fprop(self, inputs):
        return 1.5 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 1.5 * grads_wrt_outputs


def remembering():
    """Running statistics, two random streams, and plans below and above a layer that is not planned."""
    return [
        moved(Convolution2DLayer(3, 6, 3, padding=1)),
        moved(BatchNormalizationLayer(6)),
        LeakyReluLayer(),
        DropoutLayer(rng=np.random.RandomState(1), incl_prob=0.7),
        Mine(),
        moved(Convolution2DLayer(6, 6, 3, padding=1)),
        moved(BatchNormalizationLayer(6)),
        DropoutLayer(rng=np.random.default_rng(2), incl_prob=0.7),
        MaxPooling2DLayer(size=2),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(6, 5)),
    ]


def scarce(monkeypatch, most, fails_in="take_memory"):
    """Let memory run out for shards of more than `most` examples; return the sizes that were tried."""
    tried, original = [], getattr(Executor, fails_in)

    def method(self, *arguments):
        tried.append(self.cut.sizes[0])
        if self.cut.sizes[0] > most:
            raise MemoryError("Unable to allocate 1 TiB")
        return original(self, *arguments)

    monkeypatch.setattr(Executor, fails_in, method)
    return tried


@pytest.mark.parametrize("most", [1, 3, 8])
@pytest.mark.parametrize("fails_in", ["take_memory", "total"])
def test_where_memory_runs_out_the_step_is_repeated_with_smaller_shards(most, fails_in, monkeypatch, caplog):
    """As if they had been so small from the start, to the bit: also running statistics and random streams."""
    x = random(*SHAPE, dtype=np.float64)
    engine = an_engine(remembering())
    with monkeypatch.context() as patch:
        tried = scarce(patch, most, fails_in)
        steps = [engine.forward_backward(x, labels()) for _ in range(2)]
    assert max(tried) > most
    last = tried[-1]
    assert last <= most
    sizes = sorted(set(tried), reverse=True)
    assert all(size <= larger // 2 for larger, size in itertools.pairwise(sizes))
    smaller = an_engine(remembering())
    smaller._plans.most = last
    wanted = [smaller.forward_backward(x, labels()) for _ in range(2)]
    assert [bits(step) for step in steps] == [bits(step) for step in wanted]
    for (name, one), (_, other) in zip(
        engine.model.named_arrays().items(), smaller.model.named_arrays().items(), strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=name)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len({size for size in tried if size > most})
    assert all("Memory ran out (Unable to allocate 1 TiB). The step is repeated with" in line for line in lines)


def test_nothing_of_a_pass_that_failed_is_there_when_it_is_repeated(monkeypatch):
    left, original = [], Executor.take_memory

    def take_memory(executor):
        assert [other() for other in left] == [None] * len(left)
        left.append(weakref.ref(executor))
        if executor.cut.sizes[0] > 3:
            raise MemoryError("Unable to allocate 1 TiB")
        return original(executor)

    monkeypatch.setattr(Executor, "take_memory", take_memory)
    gc.disable()
    try:
        an_engine(convolutional()).forward_backward(random(*SHAPE), labels())
    finally:
        gc.enable()
    assert len(left) > 1


def test_the_plans_of_a_pass_are_kept_however_large_they_are(monkeypatch):
    monkeypatch.setattr("mlp.engine.memory._PLANS_BYTES", 1)
    engine, found = an_engine(remembering()), []
    for _ in range(2):
        engine.forward_backward(random(*SHAPE), labels())
        found.append(engine.plans())
    sizes = [plan.num_bytes() for plan in found[0]]
    assert sum(sizes) > 1.5 * max(sizes)
    assert found[0] == found[1] == engine.plans_in_use()


def test_an_evaluation_is_repeated_too(monkeypatch, caplog):
    x = random(*SHAPE, dtype=np.float64)
    wanted = an_engine(remembering()).predict(x)
    scarce(monkeypatch, 2)
    assert_close(an_engine(remembering()).predict(x), wanted)
    assert len(caplog.records) > 0


def test_where_not_even_shards_of_one_example_fit_the_error_comes_out_and_nothing_has_changed(monkeypatch):
    engine = an_engine(remembering())
    before = copy.deepcopy(engine.model)
    scarce(monkeypatch, 0)
    with pytest.raises(MemoryError, match="1 TiB"):
        engine.forward_backward(random(*SHAPE), labels())
    for (name, one), (_, other) in zip(engine.model.named_arrays().items(), before.named_arrays().items(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


class Greedy(Mine):
    """A user's layer for which memory runs out, whatever the shards."""

    greedy = True

    def fprop(self, inputs):
        if self.greedy:
            raise MemoryError("all of it")
        return super().fprop(inputs)


def test_where_smaller_shards_do_not_help_later_passes_have_the_shards_of_before(caplog):
    x, greedy = random(*SHAPE), Greedy()
    engine = an_engine([*convolutional(np.float64, norm=False), greedy])
    with pytest.raises(MemoryError, match="all of it"):
        engine.forward_backward(x, labels())
    assert len(caplog.records) > 1
    greedy.greedy = False
    step = engine.forward_backward(x, labels())
    assert bits(step) == bits(an_engine(engine.model.layers).forward_backward(x, labels()))
    assert max(plan.shard_size for plan in engine.plans()) > 1


class Noisy(Mine):
    """A user's layer with random streams of other names than the library's."""

    def __init__(self):
        self.noise, self.sign = np.random.RandomState(5), np.random.default_rng(6)

    def fprop(self, inputs):
        return inputs + self.noise.standard_normal(inputs.shape) * self.sign.choice([-1.0, 1.0])

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs


def test_random_streams_of_a_user_s_layer_are_put_back_whatever_their_names(monkeypatch):
    x = random(*SHAPE)
    with monkeypatch.context() as patch:
        scarce(patch, 3)
        engine = an_engine([Noisy(), *convolutional(np.float64)])
        steps = [engine.forward_backward(x, labels()) for _ in range(2)]
    smaller = an_engine([Noisy(), *convolutional(np.float64)])
    smaller._plans.most = engine._plans.most
    assert [bits(step) for step in steps] == [bits(smaller.forward_backward(x, labels())) for _ in range(2)]


class Larger(Mine):
    """A user's layer whose outputs are more than a workspace allows the plan above it."""

    def fprop(self, inputs):
        return inputs.repeat(12, 2)


def test_where_a_later_plan_does_not_fit_the_workspace_nothing_has_changed():
    layers = [BatchNormalizationLayer(3), DropoutLayer(np.random.RandomState(3)), Larger(), *convolutional(np.float64)]
    lower = an_engine(layers[:1]).memory(SHAPE, np.float64)
    engine = an_engine(layers, workspace=lower + 100_000)
    mean, draws = layers[0].running_mean.copy(), copy.deepcopy(layers[1].rng)
    with pytest.raises(WorkspaceError, match=r"batch of shape \(29, 3, 144, 12\)"):
        engine.forward_backward(random(*SHAPE), labels())
    np.testing.assert_array_equal(layers[0].running_mean, mean)
    assert layers[1].rng.random_sample() == draws.random_sample()


def test_a_plan_s_memory_is_free_before_the_step_is_repeated_also_where_a_handler_keeps_records(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    failed, original = [], Executor.total

    def total(self, *arguments):
        if not failed:
            failed.append(weakref.ref(self))
            raise MemoryError("Unable to allocate 1 TiB")
        assert failed[0]() is None
        return original(self, *arguments)

    monkeypatch.setattr(Executor, "total", total)
    an_engine(convolutional()).forward_backward(random(*SHAPE, dtype=np.float32), labels())
    assert len(caplog.records) == 1


def test_the_state_of_layers_inside_containers_is_put_back():
    model = MultipleLayerModel([ResidualLayer([BatchNormalizationLayer(4), DropoutLayer(np.random.RandomState(3))])])
    norm, dropout = model.layers[0].layers
    before = StateBefore(layers_that_change(model.layers))
    first = model.fprop(random(5, 4))[-1]
    changed = norm.running_mean.copy()
    before.put_back()
    assert not np.array_equal(changed, norm.running_mean)
    np.testing.assert_array_equal(model.fprop(random(5, 4))[-1], first)
    np.testing.assert_array_equal(norm.running_mean, changed)
    assert dropout.rng is not None


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_the_state_of_any_random_stream_is_put_back(kind):
    layer = DropoutLayer(rng=np.random.Generator(kind(1)))
    layer.rng.random(3)
    layer.rng.integers(10, dtype=np.uint8)  # half of a number is left over
    before = StateBefore([layer])
    first = [layer.rng.random(1000).tolist(), layer.rng.integers(10, size=7, dtype=np.uint8).tolist()]
    before.put_back()
    assert [layer.rng.random(1000).tolist(), layer.rng.integers(10, size=7, dtype=np.uint8).tolist()] == first


@on_linux
def test_with_too_little_address_space_training_goes_on_with_smaller_shards():
    """The system itself says no: RLIMIT_AS stands where all but a part of the memory of a step fits."""
    code = """
model = vgg(5, False, False, 32, 100, rng=np.random.default_rng(0))
engine = Engine(model, CrossEntropySoftmaxError())
images = np.random.default_rng(0).standard_normal((100, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
engine.model.fprop(images[:2])
if SHARE:
    most = status("VmSize") + int(SHARE * engine.memory(images.shape))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
step = engine.forward_backward(images, np.arange(100))
print(json.dumps([step.loss, [float(grad.sum()) for grad in step.grads], engine.plans()[0].shard_size]))
"""
    (loss, grads, size), log = child("SHARE = 0\n" + code, MLP_NUM_THREADS="1")
    assert "Memory ran out" not in log
    (lean_loss, lean_grads, lean_size), log = child("SHARE = 0.7\n" + code, MLP_NUM_THREADS="1")
    assert "Memory ran out (Unable to allocate" in log
    assert lean_size < size
    np.testing.assert_allclose(lean_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(lean_grads, grads, rtol=1e-3, atol=1e-4 * np.abs(grads).max())


@on_linux
def test_ten_thousand_steps_take_no_more_memory_than_a_few_hundred():
    """Within 1 MiB."""
    grown, _ = child(
        """
from mlp.layers import *
from mlp.learning_rules import AdamLearningRule
from mlp.models import MultipleLayerModel
from mlp.optimisers import train_step
rng = np.random.RandomState(0)
layers = [
    Convolution2DLayer(2, 3, 3, padding=1), BatchNormalizationLayer(3), LeakyReluLayer(),
    ResidualLayer([Convolution2DLayer(3, 3, 3, padding=1)]), DropoutLayer(rng), MaxPooling2DLayer(size=2),
    GlobalAveragePooling2DLayer(), AffineLayer(3, 4),
]
engine = Engine(MultipleLayerModel(layers), CrossEntropySoftmaxError())
rule = AdamLearningRule()
rule.initialise(engine.params)
images = [rng.standard_normal((n, 2, 4, 4)) for n in (6, 5)]
sizes = []
for step in range(10_301):
    batch = images[step % 10 == 9]
    train_step(engine, rule, batch, np.arange(len(batch)) % 4)
    if step % 100 == 0:
        engine.predict(batch)
    if step in (300, 10_300):
        sizes.append(own())
print(json.dumps(sizes[1] - sizes[0]))
""",
        MLP_NUM_THREADS="2",
    )
    assert grown <= 2**20, f"{grown / 2**20:.2f} MiB"


def test_of_a_network_without_state_nothing_is_kept_for_a_repeat():
    """It would be a share of a small network's step."""
    assert layers_that_change(convolutional(norm=False)) == []
    layers = remembering()
    assert layers_that_change(layers) == [layers[i] for i in (1, 3, 4, 6, 7)]
    inside = ResidualLayer([BatchNormalizationLayer(4), ReluLayer()])
    assert layers_that_change([inside]) == [inside.layers[0]]
