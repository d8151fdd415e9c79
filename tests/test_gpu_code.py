"""The GPU's code paths on a strict stand-in for CuPy, and, where there is a GPU, on the GPU.

Without a GPU this shows that the code asks for nothing that CuPy lacks, and moves data only where it says so. Only
the tests marked `gpu` run on a card.
"""

import copy
import sys

import numpy as np
import pytest

from mlp.backend import DeviceError, array_module, device_of, to_cpu, to_device
from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.checks import DeviceMixError
from mlp.data_providers import crop_and_flip
from mlp.data_providers.shapes import draw_shapes
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import AffineLayer, LayerWithParameters
from mlp.layers.base import forward
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import vgg
from mlp.optimisers import evaluate, train_step
from mlp.testing.cases import ERROR_CASES, LAYER_CASES

from .strict_cupy import StrictCupy
from .test_learning_rules import CASES as RULE_CASES

every_layer = pytest.mark.parametrize("case", LAYER_CASES, ids=[case.name for case in LAYER_CASES])
every_error = pytest.mark.parametrize("case", ERROR_CASES, ids=[case.name for case in ERROR_CASES])


def to_gpu(x):
    return to_device(x, "gpu")


def assert_same(gpu_arrays, cpu_arrays):
    for on_gpu, on_cpu in zip(gpu_arrays, cpu_arrays, strict=True):
        assert device_of(on_gpu) == "gpu"
        assert on_gpu.dtype == on_cpu.dtype
        np.testing.assert_allclose(to_cpu(on_gpu), on_cpu, rtol=1e-11, atol=1e-12)


@every_layer
@pytest.mark.parametrize("stochastic", [True, False], ids=["training", "evaluation"])
def test_layers_compute_the_same_on_both_devices(gpu, case, stochastic):
    rng = np.random.default_rng(0)
    on_cpu = case.build()
    on_gpu = copy.deepcopy(on_cpu).to_device("gpu")
    inputs = rng.standard_normal(case.shape)
    gpu_inputs = to_gpu(inputs)
    outputs, gpu_outputs = forward(on_cpu, inputs, stochastic), forward(on_gpu, gpu_inputs, stochastic)
    upstream = rng.standard_normal(outputs.shape)
    dx, grads = on_cpu.backprop(inputs, outputs, upstream)
    gpu_dx, gpu_grads = on_gpu.backprop(gpu_inputs, gpu_outputs, to_gpu(upstream))
    assert_same([gpu_outputs, gpu_dx, *gpu_grads], [outputs, dx, *grads])
    if isinstance(on_cpu, LayerWithParameters):
        assert_same(on_gpu.grads_wrt_params(gpu_inputs, to_gpu(upstream)), grads)


@every_error
def test_errors_compute_the_same_on_both_devices(gpu, case):
    outputs, targets = to_gpu(case.outputs), to_gpu(case.targets)
    values = case.error(outputs, targets), case.error(case.outputs, case.targets)
    np.testing.assert_allclose(to_cpu(values[0]), values[1], rtol=1e-11)
    assert_same([case.error.grad(outputs, targets)], [case.error.grad(case.outputs, case.targets)])


@pytest.mark.parametrize(("rule", "_"), RULE_CASES, ids=[type(rule).__name__ for rule, _ in RULE_CASES])
def test_learning_rules_compute_the_same_on_both_devices(gpu, rule, _):
    grads = np.random.default_rng(1).standard_normal((3, 4, 2))
    on_cpu = np.ones((4, 2))
    on_gpu = to_gpu(on_cpu.copy())
    for param, move in ((on_cpu, lambda x: x), (on_gpu, to_gpu)):
        rule.initialise([param])
        for grad in grads:
            rule.update_params([move(grad)])
    assert_same([on_gpu], [on_cpu])


def test_augmentation_gives_the_same_bits_on_both_devices(gpu):
    pixels = draw_shapes(20).pixels
    samples = np.arange(100, 120)
    moved = crop_and_flip(to_gpu(pixels), to_gpu(samples), seed=3, epoch=2)
    np.testing.assert_array_equal(to_cpu(moved), crop_and_flip(pixels, samples, seed=3, epoch=2))


def _trained(device, path):
    model = vgg(1, True, True, num_filters=4, dtype=np.float64, rng=np.random.RandomState(5)).to_device(device)
    rule, error = KingmaAdamLearningRule(), CrossEntropySoftmaxError()
    rule.initialise(model.params)
    rng = np.random.default_rng(2)
    for _ in range(3):
        inputs, labels = rng.standard_normal((4, 3, 16, 16)), rng.integers(0, 100, 4)
        train_step(Engine(model, error), rule, to_device(inputs, device), to_device(labels, device))
    save_checkpoint(path, model, rule, {"epoch": 1})
    clone = vgg(1, True, True, num_filters=4, dtype=np.float64).to_device(device)
    assert load_checkpoint(path, clone) == {"epoch": 1}
    return clone, evaluate(Engine(clone, error), [(inputs, labels)], device)


def test_a_network_trains_evaluates_and_is_saved_the_same_on_both_devices(gpu, tmp_path):
    (on_cpu, cpu_scores), (on_gpu, gpu_scores) = (_trained(d, tmp_path / f"{d}.safetensors") for d in ("cpu", "gpu"))
    for a, b in zip(on_gpu.named_arrays().values(), on_cpu.named_arrays().values(), strict=True):
        assert device_of(a) == "gpu"
        np.testing.assert_allclose(to_cpu(a), b, rtol=1e-6, atol=1e-8)
    assert gpu_scores.loss == pytest.approx(cpu_scores.loss, rel=1e-6)


def test_mixing_devices_is_refused(gpu):
    layer = AffineLayer(3, 2)
    with pytest.raises(DeviceMixError, match="inputs lies on the gpu, the parameters lie on the cpu"):
        layer.fprop(to_gpu(np.ones((4, 3))))
    model = vgg(0, num_filters=2).to_device("gpu")
    with pytest.raises(DeviceMixError, match="inputs lies on the cpu, the parameters lie on the gpu"):
        model.fprop(np.ones((1, 3, 8, 8), np.float32))


def test_the_stand_in_refuses_what_cupy_refuses(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    x = to_gpu(np.ones((2, 3)))
    xp = array_module(x)
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones((2, 3))
    with pytest.raises(TypeError, match="use the functions of array_module"):
        np.concatenate([x, x])
    with pytest.raises(AttributeError, match="errstate"):
        _ = xp.errstate
    with pytest.raises(TypeError, match="no keyword 'where'"):
        xp.sum(x, where=x > 0)
    with pytest.raises(AttributeError, match="ctypes"):
        _ = x.ctypes
    assert x.sum().shape == ()


def test_a_driver_that_fails_is_a_device_error_with_the_reason(monkeypatch):
    class NoDriver(StrictCupy):
        def asarray(self, *_):
            raise RuntimeError("cudaErrorInsufficientDriver: the driver is older than CUDA")

        def arange(self, *_, **__):
            raise RuntimeError("cudaErrorInsufficientDriver: the driver is older than CUDA")

    monkeypatch.setitem(sys.modules, "cupy", NoDriver())
    with pytest.raises(DeviceError, match=r"the GPU cannot be used: .*InsufficientDriver.* Update it"):
        vgg(0, num_filters=2).to_gpu()


def test_gradients_on_another_device_are_refused_before_anything_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    model = vgg(0, num_filters=2, num_classes=5)
    rule = KingmaAdamLearningRule()
    rule.initialise(model.to_gpu().params)
    engine = Engine(model, CrossEntropySoftmaxError())
    grads = engine.forward_backward(np.ones((2, 3, 16, 16), np.float32), np.array([0, 1])).grads
    with pytest.raises(DeviceMixError, match="gradient 0 lies on the cpu, the parameters lie on the gpu"):
        rule.update_params(grads)
    assert rule.step_count == 0
