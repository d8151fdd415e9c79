"""Our side on a GPU: training steps launched one by one and as a graph, and epochs of the runner."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.gpu_measure import WARM_UP, Take
from benchmarks.ours import BATCH, CIFAR_MEAN, CIFAR_STD
from mlp.backend import to_gpu
from mlp.data_providers import ImageData, ImageDataProvider, ImageSet
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import Experiment
from mlp.experiments.runner import Runner
from mlp.kernels.gpu import Launch
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import Model
from mlp.records import RunFolder

IMAGES = 10_000
CIFAR_SIZES = (47_500, 2_500, 10_000)
"""Images to train with, of the validation set and of the test set."""


def random_images(count: int, size: int = 32, seed: int = 0) -> ImageSet:
    """Return random uint8 images and labels."""
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), rng.integers(0, 100, count))


def provider(count: int = IMAGES, size: int = 32, batch: int = BATCH) -> ImageDataProvider:
    """Return a provider of random images, shuffled, cropped and flipped as in training."""
    images = random_images(count, size)
    return ImageDataProvider(images, batch, CIFAR_MEAN, CIFAR_STD, shuffle_order=True, augment=True)


class Trainer:
    """A copy of a network on the GPU, with Adam, that takes steps through the batches of a provider.

    A step gathers its batch, augments it, goes forward and backward, learns and counts the right answers: more than
    PyTorch's side does.
    """

    def __init__(self, model: Model, precision: str, batches: ImageDataProvider) -> None:
        self.model, self.batch = model.to_gpu(), batches.batch_size
        self.engine = Engine(self.model, CrossEntropySoftmaxError(), precision=precision)
        rule = KingmaAdamLearningRule()
        rule.initialise(self.model.params)
        session = self.engine.gpu_session(batches, rule)
        if session is None:
            raise RuntimeError("the engine has no session for this network: it would take steps one by one")
        self.session = session

    def loss(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the loss of a batch, by the plan whose launches make the steps."""
        return self.engine.forward_backward(to_gpu(inputs), to_gpu(labels)).loss

    def warm_up(self) -> None:
        """Take steps until there is a graph. Raises RuntimeError where none was made, or where a step went wrong."""
        with refused_warnings():
            loss, _, images = self.session.run(0, 0, WARM_UP)
        if not math.isfinite(loss) or images != WARM_UP * self.batch:
            raise RuntimeError(f"{WARM_UP} steps of {self.batch} images gave the loss {loss:g} of {images} images")

    def takes(self) -> dict[str, Take]:
        """Return the two ways to take steps."""
        return {"eager": self.eagerly, "graph": self.by_graph}

    def by_graph(self, steps: int) -> None:
        """Take the first steps of an epoch by replaying the graph of a step."""
        self.session.run(0, 0, steps)

    def eagerly(self, steps: int) -> None:
        """Take the first steps of an epoch, one launch after the other."""
        launches = self.launches()
        self.first()
        for _ in range(steps):
            for launch in launches:
                launch()

    def first(self) -> None:
        """Go back to the first batch."""
        self.session.run(0, 0, 0)

    def launches(self) -> list[Launch]:
        """Return the launches of a step."""
        return self.session.launches(self.batch)

    def num_bytes(self) -> int:
        """Return the bytes of the plan's buffers."""
        return sum(plan.num_bytes() for plan in self.engine.plans())


class _Lines(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def refused_warnings() -> Iterator[None]:
    """Raise RuntimeError where the library logs a warning, as when it goes on without a graph."""
    logger, handler = logging.getLogger("mlp"), _Lines()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.lines:
        raise RuntimeError(handler.lines[0])


def random_data(sizes: tuple[int, int, int] = CIFAR_SIZES, size: int = 32) -> ImageData:
    """Return random images and labels of 100 classes, of the size of CIFAR-100."""
    train, valid, test = (random_images(count, size, seed) for seed, count in enumerate(sizes))
    names = tuple(map(str, range(100)))
    return ImageData("random", train, valid, test, names, CIFAR_MEAN, CIFAR_STD, "random numbers")


def second_epoch(experiment: Experiment, data: ImageData, precision: str) -> float:
    """Return the seconds of the second epoch of a run on the GPU: training, validation, records and checkpoints."""
    with TemporaryDirectory() as place, refused_warnings():
        folder = RunFolder.create(Path(place), experiment.name)
        runner = Runner(replace(experiment, epochs=3), data, folder, "gpu", quiet=True, precision=precision)
        if runner.session is None:
            raise RuntimeError("the runner has no session: it would take steps one by one")
        runner.run(stop_after=1)
        start = time.perf_counter()
        runner.run(stop_after=2)
        return time.perf_counter() - start


def network_key(experiment: Experiment) -> tuple[int, bool, bool]:
    """Return what an experiment's time depends on, of all that the experiments of Table 1 differ in."""
    return experiment.num_blocks, experiment.batch_norm, experiment.residual
