"""Plans on a GPU against the layers' own passes in float64 on the CPU."""

import copy

import numpy as np

from mlp.backend import device_of, to_cpu, to_device
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import BatchNormalizationLayer
from mlp.models import MultipleLayerModel

FP32, TF32 = 1e-5, 2e-2
"""How far results may be off, relatively. TF32's factors have 10 bits of fraction, and errors add up over layers."""


def engines(layers, error=None, precision="fp32"):
    """Return an engine on the GPU, and one of a float64 copy of the model that runs the layers on the CPU."""
    model, error = MultipleLayerModel(layers), error or CrossEntropySoftmaxError()
    ours = Engine(model.astype(np.float32).to_gpu(), copy.deepcopy(error), precision=precision)
    return ours, Engine(model.astype(np.float64), error, "layers")


def on_gpu(array):
    return to_device(array.astype(np.float32) if array.dtype.kind == "f" else array, "gpu")


def assert_near(got, want, tolerance, floor=0.0):
    """Assert that an array on the GPU is the one wanted up to a share of its largest number, or of `floor`."""
    assert device_of(got) == "gpu"
    assert got.dtype == np.float32
    assert got.shape == want.shape
    worst, largest = np.abs(to_cpu(got) - want).max(), max(np.abs(want).max(), floor)
    assert worst <= tolerance * largest, f"off by {worst / largest:.2g} of {largest:.2g}"


def assert_steps_near(ours, theirs, tolerance=FP32):
    """Assert that two steps found the same; gradients up to a share of the largest of all: a bias below a batch

    normalisation has a gradient of 0 but for rounding.
    """
    assert abs(ours.loss - theirs.loss) <= tolerance * abs(theirs.loss)
    assert_near(ours.outputs, theirs.outputs, tolerance)
    largest = max((np.abs(grad).max() for grad in theirs.grads), default=0.0)
    assert len(ours.grads) == len(theirs.grads)
    for one, other in zip(ours.grads, theirs.grads, strict=True):
        assert_near(one, other, tolerance, floor=0.1 * largest)


def assert_same_statistics(ours, theirs, tolerance=FP32):
    """Assert that all batch normalisations have the same running statistics."""
    for one, other in zip(ours.model.named_layers(), theirs.model.named_layers(), strict=True):
        if isinstance(one[1], BatchNormalizationLayer):
            scale = float(np.sqrt(other[1].running_var.max()))
            assert_near(one[1].running_mean, other[1].running_mean, tolerance, floor=scale)
            assert_near(one[1].running_var, other[1].running_var, tolerance)


def assert_same_on_gpu(layers, shape, error=None, targets=None, precision="fp32", tolerance=FP32, plans=1):
    """Assert that plans on the GPU find what the layers find: twice in training, then in evaluation.

    `plans` is how many plans a training step takes (0: none).
    """
    ours, theirs = engines(layers, error, precision)
    rng = np.random.default_rng(5)
    for turn in range(2):
        x = rng.standard_normal(shape)
        outputs = theirs.predict(x)
        t = targets(rng, outputs) if targets else rng.integers(0, outputs.shape[1], len(outputs))
        step = theirs.forward_backward(x, t)
        assert_steps_near(ours.forward_backward(on_gpu(x), on_gpu(t)), step, tolerance)
        assert_same_statistics(ours, theirs, tolerance)
        if turn == 0:
            assert len(ours.plans()) == plans
        for engine, move in ((ours, on_gpu), (theirs, np.asarray)):
            for param, grad in zip(engine.model.params, step.grads, strict=True):
                param -= move(0.01 * grad)
    assert_near(ours.predict(on_gpu(x)), theirs.predict(x), tolerance)
    assert_near(ours.predict(on_gpu(x), stochastic=True), theirs.predict(x, stochastic=True), tolerance)
