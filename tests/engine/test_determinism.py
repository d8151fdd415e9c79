"""The same seed gives the same bits after a thousand steps, on any number of threads and with any hash seed."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mlp.engine import ENGINES, Engine
from mlp.errors import SumOfSquaredDiffsError
from mlp.layers import AffineLayer, Layer
from mlp.models import MultipleLayerModel

from .test_threads import finished, started

TRAINING = """
import hashlib
import os

import numpy as np

from mlp.data_providers import ImageDataProvider, ImageSet, Prefetcher
from mlp.data_providers.shapes import draw_shapes
from mlp.engine import Engine, plan
from mlp.errors import CrossEntropySoftmaxError
from mlp.initialisers import FanInUniformInit
from mlp.kernels import num_threads
from mlp.layers import *
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import MultipleLayerModel
from mlp.optimisers import train_step
from mlp.rng import stream

plan._SHARD_BYTES, plan._MIN_SHARD = 3_100, 3  # four parts of 3 images
init = FanInUniformInit(rng=stream(0, "init"))


def conv(channels):
    return Convolution2DLayer(channels, 4, 3, padding=1, bias=False, kernels_init=init)


model = MultipleLayerModel(
    [
        *(conv(3), BatchNormalizationLayer(4), LeakyReluLayer()),
        *(ResidualLayer([conv(4), BatchNormalizationLayer(4)]), LeakyReluLayer(), AveragePooling2DLayer(2)),
        DropoutLayer(stream(0, "dropout"), 0.8, share_across_batch=False, rescale=True),
        *(GlobalAveragePooling2DLayer(), AffineLayer(4, 100, init)),
    ]
).astype(np.float32)
images = draw_shapes(57)
images = ImageSet(np.ascontiguousarray(images.pixels[:, ::4, ::4]), images.labels)
provider = ImageDataProvider(images, 12, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), shuffle_order=True, augment=True)
engine, rule = Engine(model, CrossEntropySoftmaxError()), KingmaAdamLearningRule()
rule.initialise(model.params)
losses, start = [], model.params[0].copy()
with Prefetcher(provider) as batches:
    for number in range(STEPS):
        losses.append(train_step(engine, rule, *batches.batch(*divmod(number, provider.num_batches))).loss)
digest = hashlib.sha256(np.array(losses).tobytes())
for array in [*model.named_arrays().values(), *rule.moms_1, *rule.moms_2]:
    assert np.isfinite(array).all()
    digest.update(array.tobytes())
assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.3, losses[-20:]
cuts = [made.executor.cut for made in engine.plans()]
assert max(cut.num_parts for cut in cuts) >= 4, cuts
print(num_threads(), os.environ["PYTHONHASHSEED"], digest.hexdigest())
"""


def test_a_thousand_steps_give_the_same_bits_on_any_number_of_threads_and_again():
    """Convolutions, batch normalisation, a residual connection, pooling and dropout; augmented images, Adam."""
    script = TRAINING.replace("STEPS", "1_000")
    turns = [(1, 0), (2, 123), (3, 0), (5, 123), (2, 0)]
    running = [
        started(script, threads, PYTHONHASHSEED=str(seed), OPENBLAS_NUM_THREADS=str(threads)) for threads, seed in turns
    ]  # side by side, so that threads are put off at any moment
    found = [finished(process) for process in running]
    assert [(int(threads), int(seed)) for threads, seed, _ in found] == turns
    assert len({digest for *_, digest in found}) == 1


def test_another_stream_gives_other_bits():
    """So the hash is one of all that was drawn."""
    short = TRAINING.replace("STEPS", "8").replace(" - 0.3", " + 9")
    changes = [('stream(0, "dropout")', "stream(1, 'dropout')"), ('stream(0, "init")', "stream(1, 'init')")]
    changes += [("shuffle_order=True", "shuffle_order=False"), ("augment=True", "augment=False")]
    assert all(old in short for old, _ in changes)
    running = [started(short.replace(*change), 2, PYTHONHASHSEED="0") for change in [("", ""), *changes]]
    assert len({finished(process)[-1] for process in running}) == 5


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


class Watching(Layer):
    """A user's layer, which notes on how many threads a product of its own would be computed."""

    def __init__(self):
        self.seen = []

    def fprop(self, inputs):
        self.seen.append(blas_threads())
        return 1.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        self.seen.append(blas_threads())
        return 1.0 * grads_wrt_outputs


@pytest.mark.parametrize("kind", ENGINES)
def test_the_layers_own_products_do_not_depend_on_the_threads_of_the_blas(kind):
    """A BLAS cuts a large product by its number of threads, and then sums in another order."""
    watching = Watching()
    engine = Engine(MultipleLayerModel([AffineLayer(3, 4), watching]), SumOfSquaredDiffsError(), kind)
    inputs = np.ones((5, 3))
    with threadpool_limits(3, user_api="blas"):
        engine.forward_backward(inputs, np.zeros((5, 4)))
        engine.predict(inputs)
        assert blas_threads() == {3}
    assert watching.seen == [{1}] * 3
