"""Evaluation: the same scores for every batch size, a model in evaluation mode, and images that nothing augmented."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp.data_providers import ImageDataProvider, ImageSet
from mlp.engine import ENGINES, Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments import runner
from mlp.experiments.runner import Runner
from mlp.layers import (
    AffineLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    MaxPooling2DLayer,
    ResidualLayer,
)
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import MultipleLayerModel
from mlp.optimisers import Optimiser, evaluate
from mlp.records import RunFolder

from .experiments import tiny

ERROR = CrossEntropySoftmaxError()
COUNT = 11
SIZES = range(1, COUNT + 4)
repeatable = settings(derandomize=True, deadline=None, max_examples=8)


def made(seed, count=COUNT):
    """Return images (N, 3, 6, 6) in float64, labels of 5 classes, and a model whose running statistics have moved."""
    rng = np.random.default_rng(seed)
    model = MultipleLayerModel(
        [
            Convolution2DLayer(3, 4, 3, padding=1),
            BatchNormalizationLayer(4),
            LeakyReluLayer(),
            ResidualLayer([Convolution2DLayer(4, 4, 3, padding=1), BatchNormalizationLayer(4)]),
            MaxPooling2DLayer(size=2),
            DropoutLayer(rng, 0.7, share_across_batch=False),
            GlobalAveragePooling2DLayer(),
            AffineLayer(4, 5),
        ]
    )
    for name, array in model.named_arrays().items():
        array += rng.uniform(0.1, 0.5, array.shape) if "running" in name else rng.normal(0, 0.5, array.shape)
    return rng.standard_normal((count, 3, 6, 6)), rng.integers(0, 5, count), model


def one_by_one(inputs, labels, model):
    """Return the sum of the losses and the number of right answers, image after image, in plain loops."""
    losses, right = [], 0
    for image, label in zip(inputs, labels.tolist(), strict=True):
        (scores,) = model.fprop(image[None], evaluation=True)[-1].tolist()
        highest = max(scores)
        losses.append(highest + float(np.log(sum(np.exp(score - highest) for score in scores))) - scores[label])
        right += scores.index(highest) == label
    return sum(losses), right


def batches_of(inputs, labels, size):
    return [(inputs[i : i + size], labels[i : i + size]) for i in range(0, len(inputs), size)]


@pytest.mark.parametrize("kind", ENGINES)
@repeatable
@given(st.integers(0, 2**32))
def test_scores_are_those_of_single_images_for_every_batch_size(kind, seed):
    inputs, labels, model = made(seed)
    loss_sum, right = one_by_one(inputs, labels, model)
    engine = Engine(model, ERROR, kind)
    for size in SIZES:
        scores = evaluate(engine, batches_of(inputs, labels, size))
        assert (scores.correct, scores.images) == (right, COUNT)
        assert scores.accuracy == 100.0 * right / COUNT
        assert scores.loss_sum == pytest.approx(loss_sum, rel=1e-12, abs=0)


@pytest.mark.parametrize("kind", ENGINES)
@repeatable
@given(st.integers(0, 2**32))
def test_monitors_are_those_of_single_images_for_every_batch_size(kind, seed):
    """A provider that gives its incomplete last batch has it counted; the coursework's own drops it, as documented."""
    inputs, labels, model = made(seed)
    loss_sum, right = one_by_one(inputs, labels, model)
    hits = {"acc": lambda outputs, targets: (outputs.argmax(1) == targets).mean()}
    optimiser = Optimiser(model, ERROR, GradientDescentLearningRule(0.1), [], data_monitors=hits, engine=kind)
    for size in SIZES:
        found = optimiser.eval_monitors(batches_of(inputs, labels, size), "(valid)")
        assert round(found["acc(valid)"] * COUNT, 9) == right
        assert found["error(valid)"] == pytest.approx(loss_sum / COUNT, rel=1e-12, abs=0)


@pytest.mark.parametrize("count", [1, 5, 11])
def test_an_image_provider_has_every_image_scored_once(count):
    _, labels, model = made(3, count)
    model = model.astype(np.float32)
    images = ImageSet(np.random.default_rng(count).integers(0, 256, (count, 6, 6, 3), np.uint8), labels)
    found = []
    for size in range(1, count + 4):
        batches = ImageDataProvider(images, size, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        found.append(evaluate(Engine(model, ERROR), batches))
    assert {scores.images for scores in found} == {count}
    assert {scores.correct for scores in found} == {found[0].correct}
    for scores in found:
        assert scores.loss_sum == pytest.approx(found[0].loss_sum, rel=1e-5)


# --- what evaluation gets in a run


def plain(data, images):
    """Return images as a network is to see them: a byte is a number of its channel, computed once, and stays there."""
    out = np.empty((len(images.pixels), 3, 8, 8), np.float32)
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        scale, shift = np.float32(1.0 / (255.0 * std)), np.float32(mean / std)
        numbers = np.array([np.float32(byte) * scale - shift for byte in range(256)], np.float32)
        out[:, channel] = numbers[images.pixels[..., channel]]
    return out


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("size", [7, 60, 100])
def test_a_whole_run_evaluates_the_plain_images_to_the_bit(tmp_path, monkeypatch, kind, size):
    """Every epoch the validation images and, at the end, the test images: in order, each once, none augmented."""
    data, seen, trained = tiny.shapes(28, 60, 60), [], []
    predict, learn = Engine.predict, Engine.forward_backward

    def spy(engine, inputs, *rest, **options):
        seen.append(inputs.copy())
        return predict(engine, inputs, *rest, **options)

    def spy_on_training(engine, inputs, targets):
        trained.append(inputs.copy())
        return learn(engine, inputs, targets)

    monkeypatch.setattr(Engine, "predict", spy)
    monkeypatch.setattr(Engine, "forward_backward", spy_on_training)
    monkeypatch.setattr(runner, "EVALUATION_BATCH", size)
    Runner(tiny.VGG, data, RunFolder.create(tmp_path, "run"), "cpu", quiet=True, engine=kind).run()
    expected = [plain(data, data.valid)] * 3 + [plain(data, data.test)]
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate(expected))
    assert [len(batch) for batch in seen] == ([7] * 8 + [4] if size == 7 else [60]) * 4
    known = {image.tobytes() for image in plain(data, data.train)}
    assert sum(image.tobytes() in known for batch in trained for image in batch) < 10  # of 84: those are augmented
