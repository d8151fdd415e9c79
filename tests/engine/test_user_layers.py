"""Layers that a user writes run as they are, wherever they stand, and so do their errors."""

import copy

import numpy as np
import pytest

from mlp.layers import (
    AffineLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    DropoutLayer,
    Layer,
    LayerWithParameters,
    LeakyReluLayer,
    ReluLayer,
    ReshapeLayer,
    ResidualLayer,
    StochasticLayer,
)
from mlp.layers.chain import MissingReturnError

from .comparison import (
    assert_arrays_close,
    assert_close,
    assert_same_numbers,
    assert_steps_close,
    moved,
    random,
    twins,
)

SHAPE = (9, 3, 4, 6)


class Square(Layer):
    def fprop(self, inputs):
        return inputs * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2.0 * inputs * grads_wrt_outputs


class SquareInShards(Square):
    runs_in_shards = True


class Scale(LayerWithParameters):
    """A parameter for all examples."""

    param_names = ("scale",)

    def __init__(self):
        self.scale = np.array([1.7])

    def fprop(self, inputs):
        return inputs * self.scale

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.scale

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [np.array([(inputs * grads_wrt_outputs).sum()], inputs.dtype)]


class ScaleInShards(Scale):
    """`fprop` and `bprop` treat examples one by one, as `runs_in_shards` asks; the parameter has a gradient still."""

    runs_in_shards = True


class Noise(StochasticLayer):
    """Random in training, and it remembers what it drew."""

    def __init__(self, seed=4):
        super().__init__(np.random.RandomState(seed))

    def fprop(self, inputs, stochastic=True):
        self.noise = self.rng.uniform(0.5, 1.5, inputs.shape).astype(inputs.dtype) if stochastic else 1.0
        return inputs * self.noise

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.noise


class DoubledInTraining(StochasticLayer):
    """One thing in training and another in evaluation; example by example, and it remembers nothing."""

    runs_in_shards = True

    def fprop(self, inputs, stochastic=True):
        return inputs * (2.0 if stochastic else 1.0)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2.0 * grads_wrt_outputs


class BatchMean(Layer):
    """Couples the examples."""

    def fprop(self, inputs):
        return inputs - inputs.mean(axis=0)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs - grads_wrt_outputs.mean(axis=0)


class BatchMeanRelu(ReluLayer):
    """A known layer whose `fprop` a user overrides; `runs_in_shards` is inherited, and no longer true."""

    def fprop(self, inputs):
        return super().fprop(inputs - inputs.mean(axis=0))

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        return grads - grads.mean(axis=0)


class BackwardOnly(LeakyReluLayer):
    """A known layer whose `bprop` alone a user overrides."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 3.0 * super().bprop(inputs, outputs, grads_wrt_outputs)


class LoudChain(ChainLayer):
    """A container whose `fprop` a user overrides."""

    def _outputs(self, inputs, last):
        return 2.0 * last

    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs):
        return super()._backprop(inputs, outputs, 2.0 * grads_wrt_outputs, need_inputs)


class Keeper(Layer):
    """Keeps an array in an attribute, as many a layer does."""

    def fprop(self, inputs):
        self.kept = np.tanh(inputs)
        return self.kept

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * (1.0 - self.kept**2)


class Counter(Layer):
    """Hands its very inputs on, and counts."""

    calls = 0

    def fprop(self, inputs):
        self.calls += 1
        return inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs


def conv(inputs=3, outputs=3):
    return moved(Convolution2DLayer(inputs, outputs, 3, padding=1), seed=outputs)


def norm():
    return moved(BatchNormalizationLayer(3))


LAYERS = [
    Square,
    SquareInShards,
    Scale,
    ScaleInShards,
    Noise,
    DoubledInTraining,
    BatchMean,
    BatchMeanRelu,
    BackwardOnly,
    lambda: LoudChain([conv(), ReluLayer()]),
    Keeper,
    Counter,
]
PLACES = {
    "alone": lambda user: [user()],
    "at the bottom": lambda user: [user(), conv(), ReluLayer()],
    "below a layer without parameters": lambda user: [ReluLayer(), user(), ReluLayer(), conv()],
    "in the middle": lambda user: [conv(), norm(), user(), ReluLayer(), conv()],
    "at the top": lambda user: [conv(), norm(), ReluLayer(), user()],
    "several": lambda user: [user(), conv(), user(), user(), norm(), ReluLayer(), user()],
    "in a chain": lambda user: [conv(), ChainLayer([ReluLayer(), user(), conv()]), norm()],
    "in a residual": lambda user: [conv(), ResidualLayer([norm(), user(), conv()]), ReluLayer()],
    "alone in a residual": lambda user: [conv(), ResidualLayer([user()]), ReluLayer(), conv()],
    "at the bottom in a residual": lambda user: [ResidualLayer([user()]), ReluLayer(), conv()],
    "in containers in containers": lambda user: [
        ResidualLayer([ChainLayer([ResidualLayer([user(), conv()])])]),
        conv(),
    ],
}


@pytest.mark.parametrize("user", LAYERS, ids=lambda user: user.__name__.strip("<>"))
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_users_layer_runs_as_it_is(user, place, small_shards):
    """Gradients that are 0 but for rounding stand below a mean: compared with a thousandth of the largest."""
    assert_same_numbers(lambda: place(user), SHAPE, floor=1e-3)


@pytest.mark.parametrize("user", [Square, SquareInShards, Scale, ScaleInShards, Keeper], ids=lambda user: user.__name__)
def test_a_users_layer_runs_in_float32_too(user, small_shards):
    assert_same_numbers(lambda: PLACES["in the middle"](user), SHAPE, np.float32, floor=1.0)


class First(Layer):
    """One number an example, (N,)."""

    runs_in_shards = True

    def fprop(self, inputs):
        return inputs[:, 0]

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        grads[:, 0] = grads_wrt_outputs
        return grads


@pytest.mark.parametrize(
    "after", [ReluLayer, lambda: LeakyReluLayer(0.3), lambda: ReshapeLayer(()), lambda: ReshapeLayer((1,))]
)
def test_a_layer_may_give_one_number_an_example(after, small_shards):
    assert_same_numbers(lambda: [moved(AffineLayer(5, 3)), First(), after()], (9, 5))
    assert_same_numbers(lambda: [ReshapeLayer((2, 3)), moved_flat(), First(), after(), ReluLayer()], (9, 6))


def moved_flat():
    return ReshapeLayer((6,))


def test_a_layer_may_hand_its_inputs_on_without_a_copy(small_shards):
    """Neither an input nor a result of a step may be written to by the plan above."""
    x, t = random(*SHAPE), random(9, 3, 4, 6, seed=1)
    before = x.copy()
    ours, theirs = twins([Counter(), ReluLayer(), conv(), Counter(), ReluLayer(), Counter()])
    first = ours.predict(x)
    kept = first.copy()
    step = ours.forward_backward(x, t)
    np.testing.assert_array_equal(x, before)
    assert_steps_close(step, theirs.forward_backward(x, t))
    ours.predict(2 * x)
    np.testing.assert_array_equal(first, kept)


def test_a_users_layer_sees_each_batch_once(small_shards):
    counter = Counter()
    ours, _ = twins([conv(), counter, ReluLayer()])
    for calls in range(1, 4):
        ours.forward_backward(random(*SHAPE), random(*SHAPE))
        assert counter.calls == calls


class Trouble(Exception):
    """A user's own."""


class Troubled(Layer):
    """Raises what it is told to, forward or backward, at an example that has it coming."""

    def __init__(self, where):
        self.where, self.error = where, None

    def fprop(self, inputs):
        self._perhaps("forward", inputs)
        return np.tanh(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        self._perhaps("backward", inputs)
        return grads_wrt_outputs * (1.0 - outputs * outputs)

    def _perhaps(self, where, inputs):
        if self.error is not None and self.where == where and (inputs > 50).any():
            raise self.error


class TroubledInShards(Troubled):
    runs_in_shards = True


def troubled(kind, where):
    """Return the engine of a network with trouble in it, one of its layers, inputs that it dislikes, and targets."""
    user = kind(where)
    user.name = "trouble"
    layers = [conv(), norm(), ReluLayer(), ReshapeLayer(), user, ReshapeLayer((3, 4, 6)), conv()]
    ours, theirs = twins(layers)
    layers[1].gamma[...] = theirs.model.layers[1].gamma[...] = 100.0
    return ours, theirs, user, random(*SHAPE), random(*SHAPE, seed=1)


ERRORS = [Trouble("here"), ValueError("there"), KeyboardInterrupt(), SystemExit(2)]


@pytest.mark.parametrize("kind", [Troubled, TroubledInShards])
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_comes_out_as_itself_and_the_engine_works_afterwards(kind, where, error, count, threads, small_shards):
    threads(count)
    error = copy.copy(error)
    ours, theirs, user, x, t = troubled(kind, where)
    step = theirs.forward_backward(x, t)
    running = copy.deepcopy(ours.model.named_arrays())
    assert_steps_close(ours.forward_backward(x, t), step, floor=1e-2)
    user.error = error
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            ours.forward_backward(x, t)
        assert caught.value is error
    user.error = None
    for name, array in ours.model.named_arrays().items():
        array[...] = running[name]
    assert_steps_close(ours.forward_backward(x, t), step, floor=1e-2)
    assert_arrays_close(ours, theirs)
    assert_close(ours.predict(x), theirs.predict(x))


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("name", [None, "trouble"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_shard_says_in_which_layer(where, name, count, threads, small_shards):
    threads(count)
    ours, _, user, x, t = troubled(TroubledInShards, where)
    user.name, user.error = name, Trouble("here")
    with pytest.raises(Trouble) as caught:
        ours.forward_backward(x, t)
    assert f"(in {name or repr(user)})" in caught.value.__notes__


def test_an_error_of_the_library_in_a_shard_says_in_which_layer(monkeypatch, small_shards):
    ours, theirs = twins([conv(), ReluLayer(), ReshapeLayer(), moved(AffineLayer(72, 5))])
    x, t = random(*SHAPE), random(9, 5)
    ours.model.layers[3].name = "the head"
    ours.forward_backward(x, t)

    def fail(*_):
        raise ValueError("mismatch")

    with monkeypatch.context() as patch:
        patch.setattr("mlp.engine.steps.rows.matmul_rows", fail)
        with pytest.raises(ValueError, match="mismatch") as caught:
            ours.forward_backward(x, t)
    assert caught.value.__notes__ == ["(in the head)"]
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))


def test_an_error_in_evaluation_leaves_the_engine_as_it_was(small_shards):
    ours, theirs, user, x, _ = troubled(TroubledInShards, "forward")
    user.error = Trouble("here")
    for layer in (ours.model.layers[1], theirs.model.layers[1]):
        layer.beta += 100.0
    with pytest.raises(Trouble):
        ours.predict(x)
    user.error = None
    assert_close(ours.predict(x), theirs.predict(x))


def test_a_method_put_on_an_object_is_the_one_that_runs(small_shards):
    """As it is done to look into a network, or to try something out."""
    ours, theirs = twins([conv(), ReluLayer(), conv()])
    x, t = random(*SHAPE), random(*SHAPE, seed=1)
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))
    for engine in (ours, theirs):
        engine.model.layers[1].fprop = np.abs
        engine.model.layers[1].bprop = lambda inputs, outputs, grads: grads * np.sign(inputs)
    assert_close(ours.predict(x), theirs.predict(x))
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))


class ReturnsNothing(Layer):
    def fprop(self, inputs):
        return 1.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        pass


class ReturnsNoList(Scale):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(inputs, grads_wrt_outputs)[0]


@pytest.mark.parametrize(
    ("user", "error", "said"),
    [
        (ReturnsNothing, MissingReturnError, r"ReturnsNothing\.bprop returned None: is a return missing\?"),
        (ReturnsNoList, TypeError, r"ReturnsNoList\.grads_wrt_params returned one ndarray, expected a list"),
    ],
)
def test_the_usual_mistakes_are_named_as_by_layers(user, error, said):
    for engine in twins([conv(), user(), ReluLayer(), conv()]):
        with pytest.raises(error, match=said):
            engine.forward_backward(random(*SHAPE), random(*SHAPE))


class Dropping(DropoutLayer):
    """A stochastic layer of the library, with a subclass."""


def test_dropout_and_its_subclass_draw_what_they_draw_by_layers(small_shards):
    for kind in (DropoutLayer, Dropping):
        parts = lambda kind=kind: [conv(), kind(np.random.RandomState(5), 0.5, share_across_batch=False), conv()]  # noqa: E731
        assert_same_numbers(parts, SHAPE)
