"""Plans on a GPU compute what the layers compute, whatever they are made of."""

import logging
import re

import numpy as np
import pytest

from mlp.backend import DeviceError, to_cpu, to_device
from mlp.engine import Engine, GpuPlan
from mlp.engine.gpu.graph import CapturedLaunches
from mlp.engine.passes import Purpose
from mlp.errors import CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    MaxPooling2DLayer,
    ReluLayer,
    ReshapeLayer,
    ResidualLayer,
    SigmoidLayer,
)
from mlp.models import MultipleLayerModel, vgg, vgg08, vgg38_bn_rc
from mlp.penalties import L2Penalty

from ..comparison import moved
from .comparison import FP32, TF32, assert_near, assert_same_on_gpu, assert_steps_near, engines, on_gpu

NETWORKS = {"plain": {}, "bn": {"batch_norm": True}, "rc": {"residual": True}}
NETWORKS["bn+rc"] = {**NETWORKS["bn"], **NETWORKS["rc"]}


def conv(channels, filters, seed=1, **options):
    options.setdefault("padding", 1)
    return moved(Convolution2DLayer(channels, filters, options.pop("kernel_size", 3), **options), seed)


def norm(channels, **options):
    return moved(BatchNormalizationLayer(channels, **options), 3)


def head(channels, classes=5):
    return [GlobalAveragePooling2DLayer(), moved(AffineLayer(channels, classes), 4)]


def normal(rng, outputs):
    return rng.standard_normal(outputs.shape)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("batch", "width", "size"), [(1, 3, 16), (7, 17, 16), (3, 32, 16)])
def test_networks_of_the_report(gpu, name, batch, width, size):
    model = vgg(1, num_filters=width, num_classes=10, rng=np.random.RandomState(1), **NETWORKS[name])
    assert_same_on_gpu(model.layers, (batch, 3, size, size))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_report_in_tf32(gpu, name):
    model = vgg(0, num_filters=8, num_classes=10, rng=np.random.RandomState(1), **NETWORKS[name])
    assert_same_on_gpu(model.layers, (3, 3, 16, 16), precision="tf32", tolerance=TF32)


def test_a_card_without_tf32_says_so(gpu, monkeypatch):
    monkeypatch.setattr("mlp.backend._TF32_SINCE", 1000)
    ours, _ = engines([conv(3, 4), *head(4)], precision="tf32")
    with pytest.raises(
        DeviceError, match=r"'tf32', and this GPU has compute capability \d+, expected 1000 .* use 'fp32'"
    ):
        ours.predict(on_gpu(np.zeros((1, 3, 4, 4))))


ROWS = {
    "convolution": lambda: [conv(3, 4), *head(4)],
    "without bias": lambda: [conv(3, 4, bias=False), *head(4)],
    "relu": lambda: [conv(3, 4), ReluLayer(), *head(4)],
    "steep": lambda: [conv(3, 4), LeakyReluLayer(0.9), conv(4, 5), LeakyReluLayer(0.1), *head(5)],
    "normalised": lambda: [conv(3, 4), norm(4), *head(4)],
    "normalised at once": lambda: [norm(3), conv(3, 4), LeakyReluLayer(), *head(4)],
    "normalised twice": lambda: [conv(3, 4), norm(4), norm(4), ReluLayer(), *head(4)],
    "two activations": lambda: [conv(3, 4), LeakyReluLayer(0.5), LeakyReluLayer(0.2), *head(4)],
    "activation first": lambda: [LeakyReluLayer(0.3), conv(3, 4), *head(4)],
    "pools": lambda: [conv(3, 4), ReluLayer(), AveragePooling2DLayer(2), conv(4, 5), *head(5)],
    "odd pools": lambda: [conv(3, 4), AveragePooling2DLayer((3, 2)), norm(4), ReluLayer(), *head(4)],
    "convolution around": lambda: [conv(3, 4), ResidualLayer([conv(4, 4, 2)]), ReluLayer(), *head(4)],
    "activation around": lambda: [conv(3, 4), ResidualLayer([LeakyReluLayer()]), *head(4)],
    "around an activated": lambda: [conv(3, 4), ReluLayer(), ResidualLayer([conv(4, 4, 2), ReluLayer()]), *head(4)],
    "one in another": lambda: [conv(3, 4), ResidualLayer([ResidualLayer([conv(4, 4, 2)]), ReluLayer()]), *head(4)],
    "two in a row": lambda: [
        conv(3, 4),
        ResidualLayer([conv(4, 4, 2), norm(4)]),
        ResidualLayer([ReluLayer(), conv(4, 4, 5), norm(4)]),
        ReluLayer(),
        *head(4),
    ],
    "around a pool": lambda: [conv(3, 4), ResidualLayer([AveragePooling2DLayer(1), conv(4, 4, 2)]), *head(4)],
    "pre-activation": lambda: [conv(3, 4), ResidualLayer([norm(4), ReluLayer(), conv(4, 4, 2)]), *head(4)],
    "a chain": lambda: [ChainLayer([conv(3, 4), ReluLayer()]), ChainLayer([conv(4, 2, 2)]), *head(2)],
    "strides": lambda: [conv(3, 4, stride=2), ReluLayer(), conv(4, 3, 2, stride=(1, 2), padding=0), *head(3)],
    "dilation": lambda: [conv(3, 4, dilation=2, padding=2), norm(4), ReluLayer(), conv(4, 4, 2), *head(4)],
    "1x1 and 5x5": lambda: [conv(3, 4, kernel_size=1, padding=0), ReluLayer(), conv(4, 3, 2, kernel_size=5), *head(3)],
    "2x3 at one end": lambda: [conv(3, 4, kernel_size=(2, 3), padding=((1, 0), (2, 1))), ReluLayer(), *head(4)],
    "by columns around": lambda: [
        conv(3, 4),
        ReluLayer(),
        ResidualLayer([conv(4, 4, 2, kernel_size=1, padding=0)]),
        *head(4),
    ],
    "no padding": lambda: [conv(3, 4, padding=0), ReluLayer(), conv(4, 4, 2, padding=2), *head(4)],
    "padding at one end": lambda: [
        conv(3, 4, padding=((2, 0), (0, 1))),
        conv(4, 4, 2, padding=((0, 1), (2, 2))),
        *head(4),
    ],
    "true convolution": lambda: [
        moved(ConvolutionalLayer(3, 4, 6, 8, 3, 3)),
        ReluLayer(),
        moved(ConvolutionalLayer(4, 3, 4, 6, 2, 3)),
        *head(3),
    ],
    "biased statistics": lambda: [
        conv(3, 4),
        norm(4, momentum=0.8, momentum_weighs="running", running_variance="biased", epsilon=1e-2),
        *head(4),
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_layers_in_all_orders(gpu, name):
    assert_same_on_gpu(ROWS[name](), (3, 3, 6, 8))


@pytest.mark.parametrize("name", ["normalised", "one in another", "strides"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (7, 3, 6, 5), (2, 3, 33, 17)])
def test_odd_sizes(gpu, name, shape):
    assert_same_on_gpu(ROWS[name](), shape)


def test_small_maps_go_by_columns(gpu):
    assert_same_on_gpu([conv(3, 4), norm(4), ReluLayer(), conv(4, 4, 2), *head(4)], (5, 3, 2, 1))


def test_a_large_batch_of_small_maps(gpu):
    assert_same_on_gpu([conv(1, 3), norm(3), ReluLayer(), *head(3)], (101, 1, 4, 4))


def test_wide_layers(gpu):
    assert_same_on_gpu([conv(48, 33), norm(33), ReluLayer(), conv(33, 65, 2), *head(65)], (2, 48, 4, 5))


def test_columns_that_are_made_in_parts(gpu, monkeypatch):
    monkeypatch.setattr("mlp.engine.gpu.convolution._COLUMNS_BYTES", 1)
    assert_same_on_gpu(ROWS["strides"](), (3, 3, 6, 8))


def test_rows(gpu):
    layers = [AffineLayer(6, 70), BatchNormalizationLayer(70), ReluLayer(), AffineLayer(70, 4)]
    assert_same_on_gpu([moved(layer) if hasattr(layer, "params") else layer for layer in layers], (9, 6))


@pytest.mark.parametrize(
    ("error", "targets", "plans"),
    [
        (SumOfSquaredDiffsError(), normal, 1),
        (CrossEntropySoftmaxError(), lambda rng, outputs: np.eye(5)[rng.integers(0, 5, len(outputs))], 2),
        (CrossEntropySoftmaxError(reduction="sum"), None, 1),
    ],
    ids=["squares", "one-hot", "sum"],
)
def test_errors_that_no_kernel_knows(gpu, error, targets, plans):
    assert_same_on_gpu(ROWS["relu"](), (3, 3, 6, 8), error, targets, plans=plans)


@pytest.mark.parametrize(
    ("between", "plans"),
    [(SigmoidLayer(), 2), (DropoutLayer(incl_prob=1.0), 2), (MaxPooling2DLayer(size=2), 2)],
    ids=lambda value: type(value).__name__,
)
def test_other_layers_run_by_their_own_passes(gpu, between, plans):
    assert_same_on_gpu([conv(3, 4), ReluLayer(), between, conv(4, 3, 2), *head(3)], (3, 3, 6, 8), plans=plans)


def test_gradients_of_maps_below_a_plan(gpu):
    assert_same_on_gpu([conv(3, 4), SigmoidLayer(), norm(4), LeakyReluLayer(), *head(4)], (3, 3, 6, 8), plans=2)
    assert_same_on_gpu([conv(3, 4), SigmoidLayer(), LeakyReluLayer(), *head(4)], (3, 3, 6, 8), plans=2)


def test_outputs_that_are_maps(gpu):
    layers = [conv(3, 4), norm(4), ReluLayer()]
    assert_same_on_gpu(layers, (2, 3, 5, 4), SumOfSquaredDiffsError(), normal)
    assert_same_on_gpu(layers, (2, 3, 5, 4), CrossEntropySoftmaxError(), lambda rng, y: rng.integers(0, 4, (2, 5, 4)))


def test_reshaped_maps(gpu):
    layers = [conv(3, 2), ReluLayer(), ReshapeLayer(), moved(AffineLayer(2 * 5 * 4, 3))]
    assert_same_on_gpu(layers, (2, 3, 5, 4), plans=2)


def test_penalties(gpu):
    layer = moved(Convolution2DLayer(3, 4, 3, padding=1, kernels_penalty=L2Penalty(0.3)))
    affine = moved(AffineLayer(4, 3, weights_penalty=L2Penalty(0.2)))
    assert_same_on_gpu([layer, ReluLayer(), GlobalAveragePooling2DLayer(), affine], (2, 3, 5, 4))


def test_float64_runs_by_the_layers(gpu):
    model = MultipleLayerModel(ROWS["normalised"]())
    ours, theirs = (
        Engine(model.to_gpu(), CrossEntropySoftmaxError()),
        Engine(model, CrossEntropySoftmaxError(), "layers"),
    )
    x, labels = np.random.default_rng(0).standard_normal((3, 3, 6, 8)), np.array([0, 3, 1])
    ours_step = ours.forward_backward(to_device(x, "gpu"), on_gpu(labels))
    step = theirs.forward_backward(x, labels)
    assert ours.plans() == []
    np.testing.assert_allclose(to_cpu(ours_step.outputs), step.outputs, rtol=0, atol=1e-12 * np.abs(step.outputs).max())
    for one, other in zip(ours_step.grads, step.grads, strict=True):
        np.testing.assert_allclose(to_cpu(one), other, rtol=0, atol=1e-12 * max(np.abs(other).max(), 1.0))


def test_a_large_mean_takes_no_digits(gpu):
    ours, theirs = engines([norm(3), ReluLayer(), *head(3)])
    x = 1000.0 + np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32).astype(np.float64)
    x = x.astype(np.float32).astype(np.float64)
    labels = np.array([0, 1, 2, 1, 0])
    assert_steps_near(ours.forward_backward(on_gpu(x), on_gpu(labels)), theirs.forward_backward(x, labels))


def test_statistics_from_a_convolution_far_from_zero_keep_their_digits(gpu):
    layer = conv(3, 4)
    layer.biases[...] += 1000.0
    ours, theirs = engines([layer, norm(4), ReluLayer(), *head(4)])
    x, labels = np.random.default_rng(0).standard_normal((5, 3, 6, 7)), np.array([0, 1, 2, 1, 0])
    step, wanted = ours.forward_backward(on_gpu(x), on_gpu(labels)), theirs.forward_backward(x, labels)
    assert_near(step.outputs, wanted.outputs, 1e-4)  # the convolution's own outputs are rounded to 6e-5


def test_numbers_of_any_type_as_hyper_parameters(gpu):
    layer = norm(4)
    layer.epsilon, layer.momentum = np.float64(1e-3), 1
    assert_same_on_gpu([conv(3, 4), layer, LeakyReluLayer(np.float64(0.2)), *head(4)], (3, 3, 6, 8))


@pytest.mark.parametrize("what", ["kernels", "weights", "running_mean", "running_var in float64"])
def test_arrays_that_kernels_cannot_read_run_by_the_layers(gpu, what):
    ours, theirs = engines([conv(3, 4), norm(4), ReluLayer(), *head(4)])
    for engine, move in ((theirs, np.asarray), (ours, on_gpu)):
        name = what.split()[0]
        layer = next(layer for layer in engine.model.layers if hasattr(layer, name))
        old = to_cpu(getattr(layer, name))
        if old.ndim == 1:
            new = to_device(old.astype(np.float64), "gpu") if move is on_gpu else old
            new = new if "float64" in what else move(np.repeat(old, 2))[::2]
        else:
            new = move(np.ascontiguousarray(old.swapaxes(-1, -2))).swapaxes(-1, -2)
        setattr(layer, name, new)
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 8))
    np.testing.assert_allclose(to_cpu(ours.predict(on_gpu(x))), theirs.predict(x), rtol=0, atol=1e-5)
    assert layer not in [leaf for plan in ours.plans() for leaf in plan.layers]


def test_evaluation_keeps_nothing_for_a_backward_pass(gpu):
    layers = [layer for _ in range(6) for layer in (conv(4, 4), norm(4), ReluLayer())]
    engine, _ = engines([*layers, *head(4)])
    engine.predict(on_gpu(np.zeros((2, 4, 30, 30))))
    (plan,) = engine.plans()
    assert plan.num_bytes() < 5 * plan.inputs.nbytes


def test_steps_are_the_same_bits_eagerly_and_as_a_graph(gpu):
    model = vgg08(num_filters=4, num_classes=7, rng=np.random.RandomState(2)).to_gpu()
    engine = Engine(model, CrossEntropySoftmaxError())
    rng = np.random.default_rng(1)
    x, labels = on_gpu(rng.standard_normal((3, 3, 8, 8))), on_gpu(rng.integers(0, 7, 3))
    steps = [engine.forward_backward(x, labels) for _ in range(4)]
    (plan,) = engine.plans()
    run = plan._runs[0]
    assert run.graph is not None
    assert [step.loss for step in steps[1:]] == [steps[0].loss] * 3
    for step in steps[1:]:
        for one, other in zip(step.grads, steps[0].grads, strict=True):
            np.testing.assert_array_equal(to_cpu(one), to_cpu(other))
    if gpu == "stand-in":
        assert len(run.graph.nodes) == len(run.launches)
    else:
        nodes = set(re.findall(r'"(graph_\d+_node_\d+)"', run.graph.debug_dot_str(0)))
        assert len(nodes) == len(run.launches)


def test_a_new_step_leaves_the_arrays_of_the_last_as_they_were(gpu):
    ours, _ = engines(ROWS["normalised"]())
    rng = np.random.default_rng(1)
    first = ours.forward_backward(on_gpu(rng.standard_normal((3, 3, 6, 8))), on_gpu(np.array([0, 1, 2])))
    kept = [to_cpu(array).copy() for array in (first.outputs, *first.grads)]
    ours.forward_backward(on_gpu(rng.standard_normal((3, 3, 6, 8))), on_gpu(np.array([2, 1, 0])))
    for array, before in zip((first.outputs, *first.grads), kept, strict=True):
        np.testing.assert_array_equal(to_cpu(array), before)


def test_a_changed_model_is_planned_anew(gpu):
    ours, theirs = engines(ROWS["relu"]())
    x, labels = np.random.default_rng(0).standard_normal((3, 3, 6, 8)), np.array([0, 1, 2])
    ours.forward_backward(on_gpu(x), on_gpu(labels))
    for engine, move in ((ours, on_gpu), (theirs, np.asarray)):
        layer = engine.model.layers[0]
        layer.kernels = move(0.5 * to_cpu(layer.kernels))
        engine.model.layers[1] = LeakyReluLayer(0.4)
    assert_steps_near(ours.forward_backward(on_gpu(x), on_gpu(labels)), theirs.forward_backward(x, labels))


def test_parameters_may_change_in_place(gpu):
    ours, theirs = engines(ROWS["relu"]())
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 8))
    for _ in range(4):
        for engine in (ours, theirs):
            for param in engine.model.params:
                param *= 0.9
        assert_near(ours.predict(on_gpu(x)), theirs.predict(x), FP32)


@pytest.mark.parametrize("labels", [np.array([0, 5, 1]), np.array([0, -1, 1])])
def test_labels_that_are_no_classes_are_refused(gpu, labels):
    ours, _ = engines(ROWS["relu"]())
    with pytest.raises(ValueError, match=r"targets holds labels .*, expected 0\.\.4"):
        ours.forward_backward(on_gpu(np.zeros((3, 3, 6, 8))), on_gpu(labels))


def test_what_cannot_be_captured_runs_eagerly_and_says_so(gpu, caplog):
    ran = []

    def launch():
        ran.append(1)
        if len(ran) > 2:
            on_gpu(np.zeros(3)).get()

    import cupy

    run = CapturedLaunches(cupy, [launch], "the plan of a test")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run.run()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cupy.cuda.Stream, "begin_capture", refuse)
            run.run()
    assert run.graph is None
    assert len(ran) == 3
    assert "the plan of a test runs without a CUDA graph: RuntimeError: no capture here" in caplog.text


def refuse(*_):
    raise RuntimeError("no capture here")


def test_the_whole_of_vgg38_is_one_plan(gpu):
    model = vgg38_bn_rc(num_filters=4, rng=np.random.RandomState(0)).to_gpu()
    engine = Engine(model, CrossEntropySoftmaxError())
    stop, plan = engine._planned(0, on_gpu(np.zeros((2, 3, 32, 32))), Purpose(True, True, with_error=True))
    assert stop == len(model.layers)
    assert isinstance(plan, GpuPlan)
    kernels = [launch.label.split()[0] for launch in plan.launches]
    assert kernels.count("conv3x3_fp32") == 37 + 36  # forward, and backward to all inputs but the images
    assert kernels.count("conv3x3_grad_fp32") == 37
    assert kernels.count("bn_moments") == 0  # statistics come out of the convolutions
    assert kernels.count("activate") == kernels.count("activate_grad") == 0  # and all else is fused


@pytest.mark.parametrize("name", ["biases", "gamma", "beta", "running_mean", "kernels", "weights"])
def test_arrays_of_other_shapes_are_no_matter_for_kernels(gpu, name):
    ours, _ = engines([conv(3, 4), norm(4), ReluLayer(), *head(4)])
    x, labels = on_gpu(np.random.default_rng(0).standard_normal((3, 3, 6, 8))), on_gpu(np.array([0, 1, 2]))
    layer = next(layer for layer in ours.model.layers if hasattr(layer, name))
    setattr(layer, name, getattr(layer, name)[:1].copy())
    by_layers = Engine(ours.model, ours.error, "layers")
    try:
        wanted = to_cpu(by_layers.forward_backward(x, labels).outputs)
    except Exception as error:  # of any kind: the plan must raise the same
        with pytest.raises(type(error)):
            ours.forward_backward(x, labels)
    else:
        np.testing.assert_allclose(to_cpu(ours.forward_backward(x, labels).outputs), wanted, rtol=0, atol=1e-5)
    assert layer not in [leaf for plan in ours.plans() for leaf in plan.layers]


def test_penalties_are_added_where_the_layers_add_them(gpu):
    layer = norm(4)
    layer.gamma_penalty = L2Penalty(3.0)
    assert_same_on_gpu([conv(3, 4), layer, ReluLayer(), *head(4)], (3, 3, 6, 8))


def test_an_activation_of_infinity(gpu):
    engine = Engine(MultipleLayerModel([ReluLayer()]).to_gpu())
    x = np.array([[-np.inf, np.inf, np.nan, -1.0]], np.float32)
    np.testing.assert_array_equal(to_cpu(engine.predict(on_gpu(x))), [[0.0, np.inf, np.nan, 0.0]])


def test_targets_in_a_list_are_refused_with_a_sentence(gpu):
    ours, _ = engines(ROWS["relu"]())
    with pytest.raises(TypeError, match="targets is a list, expected a NumPy or CuPy array"):
        ours.forward_backward(on_gpu(np.zeros((3, 3, 6, 8))), [0, 1, 2])


def test_tied_parameters_stay_tied(gpu):
    layers = [moved(AffineLayer(4, 4)), ReluLayer(), moved(AffineLayer(4, 4))]
    layers[2].weights = layers[0].weights
    model = MultipleLayerModel(layers).astype(np.float32).to_gpu()
    assert model.layers[2].weights is model.layers[0].weights
    assert model.flat_params() is None
    assert_same_on_gpu(layers, (5, 4))


def test_squares_that_overflow_are_seen(gpu):
    ours, _ = engines([norm(3), ReluLayer(), *head(3)])
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 4))
    x[:, 1] *= 1e20
    assert np.isnan(ours.forward_backward(on_gpu(x), on_gpu(np.arange(5))).loss)
