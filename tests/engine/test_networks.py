"""Networks by plans give what they give by layers: containers in containers, the report's networks, every error."""

import copy

import numpy as np
import pytest

from mlp import errors, layers
from mlp.engine import Engine
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    ReluLayer,
    ReshapeLayer,
    ResidualLayer,
    SigmoidLayer,
    SoftmaxLayer,
)
from mlp.models import vgg
from mlp.testing.cases import ERROR_CASES

from .comparison import (
    SQUARES,
    Probe,
    assert_arrays_close,
    assert_close,
    assert_same_numbers,
    assert_steps_close,
    moved,
    random,
    twins,
)

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
both_methods = pytest.mark.parametrize("method", ["winograd", "im2col"])


def conv(inputs=3, outputs=3, size=3, **options):
    return moved(Convolution2DLayer(inputs, outputs, size, padding=size // 2, **options), seed=outputs)


def norm(channels=3):
    return moved(BatchNormalizationLayer(channels))


def affine(inputs=5, outputs=5):
    return moved(AffineLayer(inputs, outputs))


def pre_activation():
    """Return a block whose inputs are read by batch normalisation and by the connection around it."""
    return ResidualLayer([norm(), LeakyReluLayer(), conv(bias=False), norm(), LeakyReluLayer(), conv()])


def post_activation():
    return [ResidualLayer([conv(bias=False), norm(), LeakyReluLayer(), conv(bias=False), norm()]), LeakyReluLayer()]


MAPS = {
    "residual": lambda: [conv(), *post_activation(), conv()],
    "residual at the bottom": lambda: post_activation(),
    "pre-activation": lambda: [pre_activation()],
    "pre-activation, twice": lambda: [conv(), pre_activation(), pre_activation(), norm(), ReluLayer()],
    "nested residuals": lambda: [
        ResidualLayer([conv(), ResidualLayer([ReluLayer(), conv()]), conv(bias=False), norm()])
    ],
    "residual of a residual": lambda: [ResidualLayer([ResidualLayer([ResidualLayer([conv()])])])],
    "residual of one relu": lambda: [conv(), ResidualLayer([ReluLayer()]), conv()],
    "residual that ends in a relu": lambda: [ResidualLayer([conv(), ReluLayer()]), ReluLayer()],
    "residual of a layer as it is": lambda: [conv(), ResidualLayer([SigmoidLayer()]), ReluLayer(), conv()],
    "residual of the identity": lambda: [conv(), ResidualLayer([layers.IdentityLayer()]), conv()],
    "residuals in a row": lambda: [ResidualLayer([conv(), ReluLayer()]) for _ in range(4)],
    "residual with another memory": lambda: [
        ResidualLayer([conv(3, 5), AveragePooling2DLayer(1), ReluLayer(), conv(5, 3)])
    ],
    "chains of chains": lambda: [
        ChainLayer([conv(), ChainLayer([ChainLayer([norm()]), ReluLayer()])]),
        ChainLayer([ResidualLayer([ChainLayer([conv()]), ReluLayer()]), AveragePooling2DLayer(2)]),
        ChainLayer([GlobalAveragePooling2DLayer(), affine(3, 4)]),
    ],
    "residual around a chain with dropout": lambda: [
        ResidualLayer([ChainLayer([conv(), DropoutLayer(np.random.RandomState(3), 0.6)]), ReluLayer()]),
        conv(),
    ],
    "dropout between": lambda: [
        conv(),
        ReluLayer(),
        DropoutLayer(np.random.RandomState(3), 0.6, share_across_batch=False),
        conv(bias=False),
        norm(),
    ],
    "branches between": lambda: [
        conv(),
        layers.ConcatenationLayer([[conv(3, 2), ReluLayer()], [], conv(3, 1, 1)]),
        conv(6, 3),
        layers.AdditionLayer([conv(), []]),
        norm(),
    ],
    "head": lambda: [conv(3, 4), norm(4), LeakyReluLayer(), AveragePooling2DLayer(2), ReshapeLayer(), affine(24, 5)],
}
ROWS = {
    "affine, norm, relu": lambda: [affine(), norm(5), ReluLayer(), affine(5, 2)],
    "residual rows": lambda: [ResidualLayer([norm(5), ReluLayer(), affine()]), ResidualLayer([affine(), ReluLayer()])],
    "dropout first": lambda: [DropoutLayer(np.random.RandomState(3), 0.6), affine(), ReluLayer(), affine(5, 3)],
    "norm first": lambda: [norm(5), affine(5, 3)],
}
NETWORKS = [*((name, build, (9, 3, 4, 6)) for name, build in MAPS.items()), *((n, b, (23, 5)) for n, b in ROWS.items())]
every_network = pytest.mark.parametrize(("build", "shape"), [n[1:] for n in NETWORKS], ids=[n[0] for n in NETWORKS])


@every_network
@both_methods
@both_dtypes
def test_networks_give_what_their_layers_give(build, shape, method, dtype, monkeypatch, small_shards):
    """Gradients are compared with the largest of the step: some (of shifts in front of batch normalisation) are 0 but
    for rounding, which in float32 grows on the way down."""
    monkeypatch.setenv("MLP_CONV", method)
    assert_same_numbers(build, shape, dtype, floor=1.0 if dtype is np.float32 else 1e-3)


@every_network
def test_networks_give_what_their_layers_give_in_one_shard(build, shape):
    assert_same_numbers(build, shape, floor=1e-3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: [ResidualLayer([ReluLayer()]), affine()],
        lambda: [ReluLayer(), ResidualLayer([ResidualLayer([SigmoidLayer()]), ReluLayer()]), affine()],
        lambda: [ResidualLayer([ResidualLayer([ReluLayer()]), affine()])],
        lambda: [ResidualLayer([ChainLayer([SigmoidLayer()])]), ReluLayer(), norm(5)],
        lambda: [ResidualLayer([ReluLayer()]), DropoutLayer(np.random.RandomState(3), 0.6), affine()],
        lambda: [ResidualLayer([ReluLayer()])],
    ],
)
def test_residuals_without_parameters_below_those_with_some(build, small_shards):
    """No gradient has to go that far down."""
    assert_same_numbers(build, (9, 5))


def test_a_network_without_parameters_has_no_gradients(small_shards):
    ours, theirs = twins([ReluLayer(), AveragePooling2DLayer(2), ReshapeLayer(), SoftmaxLayer()])
    step = ours.forward_backward(random(9, 3, 4, 6), random(9, 18, seed=1))
    assert step.grads == []
    assert_steps_close(step, theirs.forward_backward(random(9, 3, 4, 6), random(9, 18, seed=1)))


def clear_of_kinks(model, shape, seed):
    """Return random inputs for which no activation has an input near 0, whose sign rounding could turn in float32."""

    def clear(x):
        model_of_x = copy.deepcopy(model)
        activations = model_of_x.fprop(x)
        pairs = zip(model_of_x.layers, activations[:-1], strict=True)
        bent = [before for layer, before in pairs if isinstance(layer, LeakyReluLayer)]
        bent += [inner for layer in model_of_x.layers for inner in inner_activations(layer)]
        return all(np.abs(before).min() > 5e-6 * np.abs(before).max() for before in bent)

    return next(x for x in (random(*shape, seed=1000 * seed + i) for i in range(1000)) if clear(x))


def inner_activations(layer):
    """Return the inputs of the activations in a chain."""
    if not isinstance(layer, ChainLayer):
        return []
    inner = layer._memory.inner
    pairs = zip(layer.layers, inner[:-1], strict=True)
    return [before for child, before in pairs if isinstance(child, LeakyReluLayer)]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@both_methods
@both_dtypes
def test_the_reports_networks_give_what_their_layers_give(
    batch_norm, residual, method, dtype, monkeypatch, small_shards
):
    """Three steps in a row. The gradients of biases in front of batch normalisation are 0 but for rounding.

    So gradients are compared with the largest of the step in float32, where rounding grows on the way down.
    """
    monkeypatch.setenv("MLP_CONV", method)
    model = vgg(1, batch_norm, residual, num_filters=4, num_classes=7, dtype=dtype, rng=np.random.RandomState(1))
    error = errors.CrossEntropySoftmaxError()
    ours, theirs = Engine(model, error), Engine(copy.deepcopy(model), error, "layers")
    for turn in range(3):
        x, labels = clear_of_kinks(model.astype(np.float64), (26, 3, 8, 8), turn).astype(dtype), np.arange(26) % 7
        step = theirs.forward_backward(x, labels)
        assert_steps_close(ours.forward_backward(x, labels), step, floor=1.0 if dtype is np.float32 else 1e-2)
        assert_arrays_close(ours, theirs)
        assert_close(ours.predict(x), theirs.predict(x))
        for engine in (ours, theirs):
            for param, grad in zip(engine.model.params, step.grads, strict=True):
                param -= 0.1 * grad


HEADS = {
    "BinaryCrossEntropyError": SigmoidLayer,
    "CrossEntropyError": lambda: SoftmaxLayer(axis=1),
}


def network_for(case):
    """Return layers whose outputs lie in the domain of an error's case, and their inputs' shape."""
    name, shape = type(case.error).__name__, (len(case.outputs) * 3, 5, *case.outputs.shape[2:])
    first = affine(5, case.outputs.shape[1]) if case.outputs.ndim == 2 else conv(5, case.outputs.shape[1])
    return [first, HEADS.get(name, layers.IdentityLayer)()], shape


@pytest.mark.parametrize("case", ERROR_CASES, ids=[case.name for case in ERROR_CASES])
@both_methods
@both_dtypes
def test_every_error_gives_what_it_gives_by_layers(case, method, dtype, monkeypatch, small_shards):
    """A mean over the examples, in one plan with the layers; another one, between the passes; with one that is no
    number, the very message."""
    monkeypatch.setenv("MLP_CONV", method)
    parts, shape = network_for(case)
    targets = np.concatenate([case.targets] * 3)
    targets = targets.astype(dtype) if targets.dtype.kind == "f" else targets
    for below in ([], [Probe(shape)]):
        ours, theirs = twins([layer.astype(dtype) for layer in (*below, *parts)], case.error)
        x = random(*shape, dtype=dtype)
        if getattr(case.error, "reduction", "mean") == "none":
            assert outcome(ours, x, targets) == outcome(theirs, x, targets) != None  # noqa: E711
        else:
            assert_steps_close(ours.forward_backward(x, targets), theirs.forward_backward(x, targets))


def outcome(engine, x, targets):
    """Return what an engine raises."""
    try:
        engine.forward_backward(x, targets)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("case", ERROR_CASES, ids=[case.name for case in ERROR_CASES])
def test_an_error_that_says_so_is_the_mean_over_its_examples(case):
    """What `is_mean_over_examples` promises, for the parts of a batch."""
    if not case.error.is_mean_over_examples if hasattr(case.error, "is_mean_over_examples") else True:
        assert case.error.class_weights is not None or case.error.reduction != "mean"
        return
    n, whole = len(case.outputs), case.error.grad(case.outputs, case.targets)
    halves = [(slice(0, 1), 1 / n), (slice(1, n), (n - 1) / n)]
    value = sum(case.error(case.outputs[rows], case.targets[rows]) * weight for rows, weight in halves)
    np.testing.assert_allclose(value, case.error(case.outputs, case.targets), rtol=1e-13)
    grads = [case.error.grad(case.outputs[rows], case.targets[rows]) * weight for rows, weight in halves]
    assert_close(np.concatenate(grads), whole)


class HardestHalf(errors.SumOfSquaredDiffsError):
    """A user's error: of the worse half of the examples alone. It is no mean over parts, and does not say it is."""

    def _kept(self, outputs, targets):
        sizes = ((outputs - targets) ** 2).sum(axis=1)
        return (sizes >= np.median(sizes))[:, None]

    def __call__(self, outputs, targets):
        return super().__call__(outputs * (kept := self._kept(outputs, targets)), targets * kept)

    def grad(self, outputs, targets):
        return super().grad(outputs, targets) * self._kept(outputs, targets)


class Doubled(errors.SumOfSquaredDiffsError):
    """A user's error: the sum over the batch."""

    def __call__(self, outputs, targets):
        return super().__call__(outputs, targets) * len(outputs)

    def grad(self, outputs, targets):
        return super().grad(outputs, targets) * len(outputs)


class Plain:
    """A user's error that knows nothing of plans."""

    def __call__(self, outputs, targets):
        return np.abs(outputs - targets).max()

    def grad(self, outputs, targets):
        worst = np.abs(outputs - targets)
        return np.sign(outputs - targets) * (worst == worst.max())


class Mean(Plain):
    """A user's error that says that it is a mean over examples, and is."""

    is_mean_over_examples = True

    def __call__(self, outputs, targets):
        return np.abs(outputs - targets).sum() / len(outputs)

    def grad(self, outputs, targets):
        return np.sign(outputs - targets) / len(outputs)


@pytest.mark.parametrize("error", [HardestHalf(), Doubled(), Plain(), Mean()], ids=lambda error: type(error).__name__)
def test_a_users_error_gives_what_it_gives_by_layers(error, small_shards):
    assert_same_numbers(lambda: [affine(), ReluLayer(), affine(5, 3)], (23, 5), error=error)


class Smoothed(errors.CrossEntropySoftmaxError):
    """A user's error: the library's, with labels that are not quite sure."""

    def _smooth(self, outputs, targets):
        return 0.9 * np.eye(outputs.shape[1])[targets] + 0.1 / outputs.shape[1]

    def __call__(self, outputs, targets):
        return super().__call__(outputs, self._smooth(outputs, targets))

    def grad(self, outputs, targets):
        return super().grad(outputs, self._smooth(outputs, targets))


@pytest.mark.parametrize("top", [ReluLayer, lambda: DropoutLayer(np.random.RandomState(1), 0.9)])
@pytest.mark.parametrize("kind", ["plan", "layers"])
def test_what_a_users_error_overrides_is_what_is_computed(top, kind, small_shards):
    """In a plan, after a layer by itself, and by layers: the value and the gradient that its methods give."""
    x, labels, error, layer = random(9, 5), np.arange(9) % 3, Smoothed(), affine(5, 3)
    engine = twins([affine(), ReluLayer(), layer, top()], error)[kind == "layers"]
    step = engine.forward_backward(x, labels)
    np.testing.assert_allclose(step.loss, error(step.outputs, labels), rtol=1e-12)
    if top is ReluLayer:
        expected = (error.grad(step.outputs, labels) * (step.outputs > 0)).sum(axis=0)
        np.testing.assert_allclose(step.grads[-1], expected, rtol=1e-12)


def test_without_an_error_a_model_predicts(small_shards):
    ours, theirs = twins([affine(), ReluLayer()], None)
    assert_close(ours.predict(random(9, 5)), theirs.predict(random(9, 5)))


@both_dtypes
def test_inputs_may_have_any_layout_in_memory(dtype, small_shards):
    x, t = random(9, 3, 4, 6, dtype=dtype), random(9, 5, dtype=dtype)
    ours, theirs = twins([layer.astype(dtype) for layer in MAPS["head"]()], SQUARES)
    wide = np.zeros((9, 6, 8, 6), dtype)
    wide[:, ::2, ::2] = x
    for same in (np.asfortranarray(x), wide[:, ::2, ::2], x[::-1, :, ::-1].copy()[::-1, :, ::-1]):
        np.testing.assert_array_equal(same, x)
        assert_close(ours.predict(same), theirs.predict(x))
        same.flags.writeable = False
        assert_close(ours.forward_backward(same, t).outputs, theirs.forward_backward(x, t).outputs)
