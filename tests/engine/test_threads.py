"""Threads: the same bits on any number of them, none left over, several callers, and use after a fork."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from mlp.layers import (
    AffineLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LeakyReluLayer,
    ResidualLayer,
)

from .comparison import assert_steps_close, moved, random, twins

TRAINING = """
import hashlib
import sys

import numpy as np

from mlp.engine import Engine, plan
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import num_threads
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import vgg
from mlp.optimisers import train_step

plan._SHARD_BYTES = 20_000  # shards of 4 to 6 images, and parts of several
digest = hashlib.sha256()
for batch_norm in (False, True):
    model = vgg(1, batch_norm, batch_norm, num_filters=5, num_classes=10, rng=np.random.RandomState(1))
    engine, rule = Engine(model, CrossEntropySoftmaxError()), KingmaAdamLearningRule()
    rule.initialise(model.params)
    rng = np.random.default_rng(0)
    for batch in (66, 66, 13, 66):
        x, labels = rng.standard_normal((batch, 3, 16, 16)).astype(np.float32), rng.integers(0, 10, batch)
        step = train_step(engine, rule, x, labels)
        digest.update(np.float64(step.loss).tobytes())
        digest.update(engine.predict(x).tobytes())
    for array in model.named_arrays().values():
        assert np.isfinite(array).all()
        digest.update(array.tobytes())
    cuts = [len(made.executor.cut.sizes) for made in engine.plans()]
    assert max(cuts) > 12, cuts
print(num_threads(), digest.hexdigest())
"""


def started(script, count, **settings):
    """Start a Python of its own."""
    environment = {**os.environ, "MLP_NUM_THREADS": str(count), **settings}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)


def finished(process):
    """Return what a process printed, word by word."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return out.split()


@pytest.mark.parametrize("method", ["winograd", "im2col"])
def test_training_gives_the_same_bits_on_any_number_of_threads_and_again(method):
    """A plain network, and one with batch normalisation and residual connections, over steps of Adam."""
    counts = (1, 2, 3, 5, 2)
    found = [finished(started(TRAINING, count, MLP_CONV=method)) for count in counts]
    assert [int(count) for count, _ in found] == list(counts)
    assert len({digest for _, digest in found}) == 1


FORK = """
import os

import numpy as np

from mlp.engine import Engine, plan
from mlp.errors import SumOfSquaredDiffsError
from mlp.layers import BatchNormalizationLayer, Convolution2DLayer, ReluLayer
from mlp.models import MultipleLayerModel

plan._SHARD_BYTES = 1
layers = [Convolution2DLayer(3, 4, 3, padding=1), BatchNormalizationLayer(4), ReluLayer()]
engine = Engine(MultipleLayerModel(layers), SumOfSquaredDiffsError())
rng = np.random.default_rng(0)
x, t = rng.standard_normal((30, 3, 8, 8)), rng.standard_normal((30, 4, 8, 8))
step = engine.forward_backward(x, t)
expected = b"".join(array.tobytes() for array in (step.outputs, *step.grads))
reader, writer = os.pipe()
child = os.fork()
again = engine.forward_backward(x, t)
found = b"".join(array.tobytes() for array in (again.outputs, *again.grads))
if child == 0:
    os.write(writer, b"same" if found == expected else b"not the same")
    os._exit(0)
os.waitpid(child, 0)
print(os.read(reader, 20).decode(), found == expected)
"""


@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_goes_on_in_a_forked_child_and_in_its_parent(count):
    assert finished(started(FORK, count)) == ["same", "True"]


def network():
    return [
        moved(Convolution2DLayer(3, 4, 3, padding=1)),
        moved(BatchNormalizationLayer(4)),
        LeakyReluLayer(),
        ResidualLayer([moved(Convolution2DLayer(4, 4, 3, padding=1)), LeakyReluLayer()]),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(4, 5)),
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_threads_gives_what_the_layers_give(count, threads, small_shards):
    threads(count)
    ours, theirs = twins(network())
    for turn in range(4):
        x, t = random(53, 3, 8, 8, seed=turn), random(53, 5, seed=turn)
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)


def test_no_threads_are_left_over_but_those_of_the_pool(threads, small_shards):
    before = set(threading.enumerate())
    threads(3)
    for n in (9, 30):
        for build in (network, lambda: network()[:2]):
            ours, _ = twins(build())
            outputs = ours.predict(random(n, 3, 8, 8))
            ours.forward_backward(random(n, 3, 8, 8), random(*outputs.shape))
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert len(left) <= 3
    assert all(name.startswith("mlp") for name in left)


class Meeting(Layer):
    """Notes which threads its shards run on; the first waits for another, where there is a barrier to meet at."""

    runs_in_shards = True

    def __init__(self):
        self.barriers, self.seen = [], []

    def fprop(self, inputs):
        self.seen.append(threading.get_ident())
        for barrier in self.barriers:
            if len(self.seen) <= barrier.parties:
                barrier.wait()
        return 1.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 1.0 * grads_wrt_outputs


@pytest.mark.parametrize(("batch", "parties", "shards"), [(30, 2, 8), (4, 1, 1)])
def test_shards_run_on_several_threads_and_one_on_the_callers(batch, parties, shards, threads, small_shards):
    threads(2)
    meeting = Meeting()
    ours, _ = twins([meeting, moved(AffineLayer(4, 3))])
    ours.predict(random(batch, 4))
    meeting.barriers.append(threading.Barrier(parties, timeout=60))
    meeting.seen.clear()
    ours.predict(random(batch, 4))
    assert len(meeting.seen) == shards
    assert len(set(meeting.seen)) == parties
    assert threading.get_ident() in meeting.seen


@pytest.mark.parametrize("count", [1, 3])
def test_two_python_threads_may_use_one_engine(count, threads, small_shards):
    """Each gets what is its own: the gradients of its batch, also where the other's has another size."""
    threads(count)
    ours, _ = twins([*network()[2:4], GlobalAveragePooling2DLayer(), moved(AffineLayer(4, 5))])
    batches = [(random(n, 4, 8, 8, seed=i), random(n, 5, seed=i)) for i, n in enumerate([13, 9, 13, 30])]
    expected = [(ours.forward_backward(x, t), ours.predict(x)) for x, t in batches]
    ready, wrong, done = threading.Barrier(4, timeout=60), [], []

    def use(number):
        x, t = batches[number]
        ready.wait()
        for _ in range(10):
            step, outputs = ours.forward_backward(x, t), ours.predict(x)
            arrays = step.outputs, *step.grads, outputs
            known = expected[number][0].outputs, *expected[number][0].grads, expected[number][1]
            if not all(map(np.array_equal, arrays, known)) or step.loss != expected[number][0].loss:
                wrong.append(number)
        done.append(number)

    users = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert sorted(done) == [0, 1, 2, 3]
    assert wrong == []


def test_two_python_threads_may_use_two_engines(threads, small_shards):
    threads(3)
    engines = [twins(network())[0] for _ in range(2)]
    again = [twins(network())[0] for _ in range(2)]
    x, t = random(30, 3, 8, 8), random(30, 5, seed=1)
    expected = [[engine.forward_backward(x, t).loss for _ in range(8)] for engine in again]
    found = [[], []]

    def use(number):
        found[number] += [engines[number].forward_backward(x, t).loss for _ in range(8)]

    users = [threading.Thread(target=use, args=(number,)) for number in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert found == expected


def test_an_engine_may_be_used_on_another_thread_than_it_was_made_on(small_shards):
    ours, theirs = twins(network())
    x, t = random(30, 3, 8, 8), random(30, 5, seed=1)
    steps = [ours.forward_backward(x, t)]
    user = threading.Thread(target=lambda: steps.append(ours.forward_backward(x, t)))
    user.start()
    user.join()
    for step in steps:
        assert_steps_close(step, theirs.forward_backward(x, t), floor=1e-2)
