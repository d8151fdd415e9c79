"""Every random stream of the library, each with a golden hash, and none shifted by another.

What is hashed are whole numbers, truth values and raw bits: numbers that went through a logarithm, a cosine or a fused
multiplication may differ in the last bit on another processor. NumPy may change what its Generator draws (NEP 19);
then these tests say which streams did, and runs of before cannot be repeated with that NumPy.
"""

import ast
import hashlib
import inspect
from pathlib import Path

import numpy as np
import pytest

import mlp
from mlp import DEFAULT_SEED
from mlp.data_providers import (
    DataAugmentation,
    DataProvider,
    ImageDataProvider,
    ImageSet,
    crop_and_flip,
    load_digits,
    split,
)
from mlp.data_providers.shapes import draw_shapes
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.layers import AffineLayer, ChainLayer, Convolution2DLayer, ConvolutionalLayer, DropoutLayer, RandomReluLayer
from mlp.layers import affine as affine_module
from mlp.layers import convolution as convolution_module
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import MultipleLayerModel
from mlp.optimisers import train_step
from mlp.rng import default_rng, stream

from .experiments import tiny

ROOT = Path(inspect.getfile(mlp)).parent
PROOFS = ("testing", "selftest.py", "test_methods.py", "tests.py")
"""What proves layers draws from seeds of its own, none of which a training sees."""


def sha(*arrays):
    """Return the start of the SHA-256 of whole numbers or truth values, whatever the machine's byte order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        digest.update(array.astype({"b": "u1", "u": "<u8", "i": "<i8"}[array.dtype.kind]).tobytes())
    return digest.hexdigest()[:16]


def raw(rng, count=1000):
    """Return random 64-bit words of a stream; of a RandomState 32-bit ones."""
    if isinstance(rng, np.random.RandomState):
        return rng.randint(2**32, size=count, dtype=np.uint32)
    return rng.bit_generator.random_raw(count)


def images(count):
    """Return images of one pixel, each with its own number for a label."""
    return ImageSet(np.zeros((count, 1, 1, 3), np.uint8), np.arange(count))


def order(epoch):
    provider = ImageDataProvider(images(1000), 100, (0.5,) * 3, (0.2,) * 3, seed=0, shuffle_order=True)
    return provider.order(epoch)


def crops(epoch):
    """Return what augmentation makes of an image whose pixels are all different."""
    pixels = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(500, axis=0)
    return crop_and_flip(pixels, np.arange(500), 0, epoch)


def coursework_orders():
    provider = DataProvider(np.zeros((1000, 1)), np.arange(1000), 500)
    return [provider.targets.copy(), *(provider.new_epoch() or provider.targets.copy() for _ in range(2))]


def masks(layer):
    return [layer.fprop(np.ones((20, 30))) > 0 for _ in range(3)]


def single_crops():
    transform, image = DataAugmentation(), np.arange(1, 193, dtype=np.uint8).reshape(8, 8, 3)
    return [transform(image) for _ in range(100)]


def shapes_labels(name):
    return draw_shapes(300, name).labels


def digits_parts():
    data = load_digits()
    return data.train, data.valid, data.test


def classes_split():
    labels = ImageSet(np.arange(1000), np.arange(1000) % 7)
    return [part.pixels for part in split(labels, 950, stratified=True)]


GOLDEN = {
    "init, raw": (lambda: [raw(stream(0, "init")), raw(stream(1, "init"))], "eed46945c4ae41a8"),
    "order": (lambda: [order(epoch) for epoch in (0, 1, 99)], "3f7689470d0fb7c8"),
    "augmentation": (lambda: [crops(epoch) for epoch in (0, 1, 99)], "a9dfe1fe41cc6978"),
    "shapes, raw": (
        lambda: [raw(stream(0, f"shapes {name}")) for name in ("train", "valid", "test")],
        "fceb841d4439f005",
    ),
    "shapes, labels": (lambda: map(shapes_labels, ("train", "valid", "test")), "33cd27d6af1d2560"),
    "split": (lambda: [part.labels for part in split(images(50_000), 47_500)], "0e0ced19b832d496"),
    "stratified split": (classes_split, "7cc02fbbc0e82fbc"),
    "digits": (lambda: [part.labels for part in digits_parts()], "27335e36f645eea7"),
    "default stream": (lambda: [raw(default_rng(None))], "1b7702af73e967c5"),
    "coursework's order": (coursework_orders, "0802af6863822acc"),
    "dropout, default": (lambda: masks(DropoutLayer()), "7d4e85f71d10e061"),
    "dropout, named": (
        lambda: masks(DropoutLayer(stream(0, "dropout"), 0.7, share_across_batch=False)),
        "0181c6d0980a7b23",
    ),
    "random ReLU, raw": (lambda: [raw(RandomReluLayer().rng)], "775e03c9722fa7a2"),
    "one image's augmentation": (single_crops, "96fe0f3fddd5922d"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_stream_has_its_golden_hash(name):
    draw, golden = GOLDEN[name]
    assert sha(*draw()) == golden


# --- which streams there are

SOURCES = {
    "data_providers/augmentation.py": ["hash_bits(seed, 'augmentation', epoch, samples.astype(np.int64), draw)"],
    "data_providers/base.py": ["default_rng(rng)"],
    "data_providers/digits.py": ["np.random.RandomState(0)"],
    "data_providers/images.py": ["np.random.RandomState(0)", "stream(self.seed, 'order', epoch)"],
    "data_providers/items.py": ["default_rng(rng)"],
    "data_providers/shapes.py": ["stream(0, f'shapes {name}')"],
    "engine/gpu/session.py": ["zlib.crc32(b'augmentation')"],  # the same hash, in CUDA
    "experiments/commands.py": ["np.random.default_rng(0)"],  # the inputs of `profile`
    "experiments/configs.py": ["stream(self.seed, 'init')"],
    "initialisers.py": ["default_rng(rng)"] * 4,
    "layers/activations.py": ["default_rng(rng)", "np.random.RandomState(seed=1234)"],
    "layers/base.py": ["default_rng(rng)"],
    "layers/convolution.py": ["default_rng(None)"],
    "models/vgg.py": ["default_rng(rng)"],
    "penalties.py": ["np.random.RandomState(seed)"],  # the coursework's name; nothing draws from it
    "rng.py": [
        "np.random.RandomState(DEFAULT_SEED)",
        "np.random.default_rng([seed, zlib.crc32(name.encode()), *counters])",
        "zlib.crc32(name.encode())",
        "zlib.crc32(name.encode())",
    ],
}
MAKERS = (
    "stream",
    "hash_bits",
    "default_rng",
    "RandomState",
    "Generator",
    "PCG64",
    "Philox",
    "MT19937",
    "SFC64",
    "crc32",
)


def sources():
    """Yield (file, syntax tree) of all that takes part in a training."""
    for file in sorted(ROOT.rglob("*.py")):
        if file.relative_to(ROOT).parts[0] not in PROOFS:
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())


def test_these_are_all_streams_that_there_are():
    """A new one needs a golden hash above, and a name of its own."""
    found = {}
    for file, tree in sources():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        made = [ast.unparse(call) for call in calls if ast.unparse(call.func).rpartition(".")[2] in MAKERS]
        if made:
            found[file] = sorted(made)
    assert found == SOURCES


def test_nothing_draws_from_a_global_state():
    allowed = {"RandomState", "Generator", "default_rng"}
    for file, tree in sources():
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used = {name.rpartition(".")[2] for name in used if name.rpartition(".")[0] in ("np.random", "numpy.random")}
        assert used <= allowed, (file, used - allowed)
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in imports for alias in node.names} | {
            getattr(node, "module", "") for node in imports
        }
        assert not names & {"random", "secrets", "uuid", "numpy.random"}, file


def test_a_last_counter_of_zero_is_no_counter():
    """So a name is used with as many counters everywhere; `SOURCES` shows that it is."""
    assert sha(raw(stream(3, "x"))) == sha(raw(stream(3, "x", 0)))
    assert sha(raw(stream(3, "x"))) != sha(raw(stream(3, "x", 1)))


# --- what is made of them


@pytest.mark.parametrize("name", ["vgg08", "vgg38_bn_rc"])
def test_initial_weights_are_the_words_of_init_in_the_order_of_the_parameters(name):
    """A word w makes the weight (2 floor(w / 2^11) / 2^53 - 1) / sqrt(fan_in); rounding is left to the machine."""
    experiment = EXPERIMENTS[name]
    model, words = experiment.build_model(100), stream(experiment.seed, "init").bit_generator
    fan_in = None
    for (layer, _, _), param in zip(model.param_keys(), model.params, strict=True):
        if "_bn_" in layer:
            continue
        fan_in = param[0].size if param.ndim > 1 else fan_in
        expected = (2.0 * (words.random_raw(param.size) >> np.uint64(11)) / 2.0**53 - 1.0) / np.sqrt(fan_in)
        np.testing.assert_allclose(param.ravel(), expected, rtol=1e-6, atol=1e-9)


def test_random_relu_draws_from_its_stream():
    inputs = -np.ones((4, 5))
    slopes = np.random.RandomState(1234).uniform(0.125, 1.0 / 3.0, (4, 5))
    np.testing.assert_array_equal(RandomReluLayer().fprop(inputs), -slopes)


# --- none shifts another

EXPERIMENT = tiny.VGG_BN


def trained(dropouts, steps=4):
    """Train a network of the report with dropout layers at some places; return all that is drawn on the way.

    `dropouts` maps the place of a layer to the name of its stream.
    """
    data, layers, drawn = tiny.shapes(), [], {}
    plain = EXPERIMENT.build_model(data.num_classes)
    for place, layer in enumerate(plain.layers):
        layers.append(layer)
        if place in dropouts:
            layers.append(Watched(stream(EXPERIMENT.seed, dropouts[place]), drawn.setdefault(dropouts[place], [])))
    model = MultipleLayerModel(layers)
    initial = [param.copy() for param in model.params]
    batches = ImageDataProvider(data.train, 5, data.mean, data.std, EXPERIMENT.seed, shuffle_order=True, augment=True)
    engine, rule, seen = Engine(model, CrossEntropySoftmaxError()), KingmaAdamLearningRule(), []
    rule.initialise(model.params)
    for step in range(steps):
        inputs, labels = batches.batch(*divmod(step, batches.num_batches))
        train_step(engine, rule, inputs, labels)
        seen.append((inputs.tobytes(), labels.tobytes()))
    return initial, seen, drawn


class Watched(DropoutLayer):
    """Notes its masks."""

    def __init__(self, rng, drawn):
        super().__init__(rng, 0.6, share_across_batch=False, rescale=True)
        self.drawn = drawn

    def fprop(self, inputs, stochastic=True):
        outputs = super().fprop(inputs, stochastic)
        self.drawn.append((self._memory.factors > 0).tobytes())
        return outputs


def test_a_dropout_layer_with_a_name_of_its_own_changes_no_other_stream():
    """Neither initial weights, nor the order, nor the augmentation, nor another dropout layer's masks."""
    last = len(EXPERIMENT.build_model(100).layers) - 2
    initial, seen, _ = trained({})
    one_initial, one_seen, one = trained({last: "dropout 1"})
    two_initial, two_seen, two = trained({3: "dropout 2", last: "dropout 1"})
    for other in (one_initial, two_initial):
        assert all(np.array_equal(a, b) for a, b in zip(initial, other, strict=True))
    assert seen == one_seen == two_seen
    assert one["dropout 1"] == two["dropout 1"]
    assert len(two["dropout 2"]) == len(one["dropout 1"]) == 4
    assert len(set(two["dropout 1"])) == 4


def shared_streams():
    """Return the states of the streams that layers without an initialiser share."""
    streams = [convolution_module._default_stream, convolution_module._default_kernels.rng]
    streams.append(affine_module._default_weights.rng)
    return [(state[1].tobytes(), *state[2:]) for state in (rng.get_state() for rng in streams)]


def test_a_dropout_layer_without_rng_does_not_draw_from_what_other_layers_share():
    before = shared_streams()
    layer = ChainLayer([DropoutLayer(), RandomReluLayer()])
    layer.fprop(np.ones((3, 4)))
    DataProvider(np.zeros((5, 1)), np.arange(5), 2)
    assert shared_streams() == before


def test_what_is_not_separate_is_what_the_documentation_says():
    """Layers of a kind without initialisers share a stream: one more shifts the next. Two dropout layers draw alike."""
    for build, index in ((lambda: Convolution2DLayer(1, 1, 1), 0), (lambda: AffineLayer(2, 2), 2)):
        before = shared_streams()
        build()
        after = shared_streams()
        assert [a == b for a, b in zip(before, after, strict=True)] == [i != index for i in range(3)]
    before = shared_streams()
    ConvolutionalLayer(1, 1, 4, 4, 2, 2)
    assert shared_streams()[1] != before[1]
    first, second = (DropoutLayer().fprop(np.ones((2, 50))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    mask = np.random.RandomState(DEFAULT_SEED).uniform(size=(1, 50)) < 0.5
    np.testing.assert_array_equal(first > 0, np.repeat(mask, 2, axis=0))
