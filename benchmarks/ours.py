"""Our side: networks, batches, and functions that take one step. Knows no other framework."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from benchmarks.measure import Call
from mlp import models
from mlp.data_providers import ImageDataProvider, ImageSet
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import AffineLayer, ReluLayer
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import Model, MultipleLayerModel
from mlp.optimisers import train_step
from mlp.rng import stream

BATCH = 100
NETWORKS = ("vgg08", "vgg38", "vgg38_bn", "vgg38_rc", "vgg38_bn_rc")
CIFAR_MEAN, CIFAR_STD = (0.51, 0.49, 0.44), (0.27, 0.26, 0.28)

MLP_SIZES, MLP_BATCH, MLP_STEPS = (784, 100, 100, 10), 50, 200
"""A network of affine layers, and how many steps of it make one timing."""

Batch = tuple[np.ndarray, np.ndarray]


def images(count: int = BATCH) -> Batch:
    """Return float32 images (N, 3, 32, 32), channels last in memory as a provider's are, and their labels."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    return inputs, rng.integers(0, 100, count)


def network(name: str, num_filters: int = 32) -> Model:
    """Return one of the report's networks, with the same weights at every call."""
    model: Model = getattr(models, name)(num_filters=num_filters, rng=stream(0, "init"))
    return model


def trainer(model: Model, inputs: np.ndarray, labels: np.ndarray, kind: str = "plan") -> Call:
    """Return a function that takes one training step, and returns the loss before it."""
    engine, rule = Engine(model, CrossEntropySoftmaxError(), kind), KingmaAdamLearningRule()
    rule.initialise(model.params)
    return lambda: train_step(engine, rule, inputs, labels).loss


def predictor(model: Model, inputs: np.ndarray) -> Call:
    """Return a function that returns the outputs in evaluation mode."""
    engine = Engine(model)
    return lambda: engine.predict(inputs)


def mlp_batches() -> list[Batch]:
    """Return the batches of a timing of the MLP: one for each step."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((MLP_STEPS, MLP_BATCH, MLP_SIZES[0])).astype(np.float32)
    return list(zip(inputs, rng.integers(0, MLP_SIZES[-1], (MLP_STEPS, MLP_BATCH)), strict=True))


def mlp() -> Model:
    """Return the MLP, affine maps with ReLU between them."""
    layers = [layer for pair in pairwise(MLP_SIZES) for layer in (AffineLayer(*pair), ReluLayer())]
    return MultipleLayerModel(layers[:-1]).astype(np.float32)


def mlp_trainer(model: Model, batches: list[Batch]) -> Call:
    """Return a function that takes a step with each batch, and returns the losses before them."""
    engine, rule = Engine(model, CrossEntropySoftmaxError()), KingmaAdamLearningRule()
    rule.initialise(model.params)
    return lambda: [train_step(engine, rule, *batch).loss for batch in batches]


def data_batches(count: int = 10_000) -> Iterator[Batch]:
    """Yield training batches without an end: drawn in a random order, cropped, flipped, normalised."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    data = ImageSet(pixels, rng.integers(0, 100, count))
    provider = ImageDataProvider(data, BATCH, CIFAR_MEAN, CIFAR_STD, shuffle_order=True, augment=True)
    while True:
        yield from provider
