"""What plans are compared with: a copy of the same model, run by its layers' own passes."""

import copy

import numpy as np

from mlp.engine import Engine
from mlp.errors import SumOfSquaredDiffsError
from mlp.layers import LayerWithParameters
from mlp.models import MultipleLayerModel

SQUARES = SumOfSquaredDiffsError()
TOLERANCES = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}


class Probe(LayerWithParameters):
    """A user's layer that adds a parameter of the shape of the whole batch, whose gradient is dE/d inputs of the next.

    Plans do not know it; the plan of the layers above it is asked for that gradient.
    """

    param_names = ("offsets",)

    def __init__(self, shape):
        self.offsets = np.zeros(shape)

    def fprop(self, inputs):
        return inputs + self.offsets

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs]


def by_chance(seed, threads=3):
    """Return what can stand for `run_on_threads`: threads, one at a time, take what there is to do in random order."""
    rng = np.random.default_rng(seed)

    def run(work, count, _):
        for index in rng.permutation(count).tolist():
            work(int(rng.integers(threads)), index)

    return run


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def moved(layer, seed=7):
    """Return the layer with parameters and running statistics that are not special, and the same in every call."""
    rng = np.random.default_rng(seed)
    for name, param in zip(layer.own_param_names(), layer.params, strict=True):
        scale = 0.3 if param.ndim == 1 else np.sqrt(len(param) / param.size)
        param[...] = (name == "gamma") + scale * rng.standard_normal(param.shape)
    for name in layer.state_names:
        getattr(layer, name)[...] = 0.5 + rng.random(getattr(layer, name).shape)
    return layer


def twins(layers, error=SQUARES):
    """Return an engine that runs the layers by plans, and one that runs a copy of them by their own passes."""
    model = MultipleLayerModel(layers)
    return Engine(model, error), Engine(copy.deepcopy(model), copy.deepcopy(error), kind="layers")


def assert_close(got, want, floor=0.0):
    """Assert that arrays of one dtype are the same up to a share of the largest number, or of `floor`."""
    assert isinstance(got, np.ndarray)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.size:
        assert np.isfinite(want).all(), "the numbers to compare with are no numbers"
        worst, largest = np.abs(got - want).max(), max(np.abs(want).max(), floor)
        assert worst <= TOLERANCES[want.dtype] * largest, f"off by {worst / largest if largest else np.inf:.2g}"


def assert_steps_close(ours, theirs, floor=0.0):
    """Assert that two steps found the same error, outputs and gradients.

    Gradients are compared with their own largest number, or with `floor` times the largest of all: where one is 0 but
    for rounding, as that of a bias below batch normalisation.
    """
    assert abs(ours.loss - theirs.loss) <= TOLERANCES[theirs.outputs.dtype] * max(abs(theirs.loss), 1e-300)
    assert_close(ours.outputs, theirs.outputs)
    assert len(ours.grads) == len(theirs.grads)
    largest = max((np.abs(grad).max() for grad in theirs.grads if grad.size), default=0.0)
    for one, other in zip(ours.grads, theirs.grads, strict=True):
        assert_close(one, other, floor * largest)


def assert_arrays_close(ours, theirs):
    """Assert that two engines' models hold the same parameters and running statistics.

    A mean is compared with the standard deviation too: that of numbers of both signs may be next to nothing.
    """
    arrays = theirs.model.named_arrays()
    assert ours.model.named_arrays().keys() == arrays.keys()
    for name, array in ours.model.named_arrays().items():
        of_mean = name.endswith(".running_mean")
        variance = arrays[name.removesuffix("mean") + "var"] if of_mean else np.zeros(1)
        assert_close(array, arrays[name], floor=float(np.sqrt(variance.max())))


def normal_targets(rng, outputs):
    return rng.standard_normal(outputs.shape)


def assert_same_numbers(
    build, shape, dtype=np.float64, error=SQUARES, targets=normal_targets, inputs=None, floor=0.0, probes=(False, True)
):
    """Assert that plans give what layers give: both modes, gradients, dE/dx, running statistics, two steps in a row.

    `build` returns new layers, `targets` makes targets for outputs, `inputs` inputs from a random stream. With a probe
    below the layers their dE/dx is compared too.
    """
    for probe in probes:
        layers = [*([Probe(shape)] if probe else []), *build()]
        ours, theirs = twins([layer.astype(dtype) for layer in layers], error)
        rng = np.random.default_rng(5)
        for turn in range(2):
            x = (inputs or (lambda rng: rng.standard_normal(shape)))(rng).astype(dtype)
            x = x if turn == 0 else np.asfortranarray(x[::-1])[::-1]
            outputs = theirs.predict(x)
            t = targets(rng, outputs)
            t = t.astype(dtype) if t.dtype.kind == "f" else t
            assert_close(ours.predict(x), outputs)
            step = theirs.forward_backward(x, t)
            assert_steps_close(ours.forward_backward(x, t), step, floor)
            assert_arrays_close(ours, theirs)
            for engine in (ours, theirs):
                for param, grad in zip(engine.model.params, step.grads, strict=True):
                    param -= 0.01 * grad
        assert_close(ours.predict(x, stochastic=True), theirs.predict(x, stochastic=True))
        assert_arrays_close(ours, theirs)
