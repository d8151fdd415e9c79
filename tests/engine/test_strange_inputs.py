"""Inputs and targets of other shapes, dtypes and kinds: plans answer as layers do, in the same words."""

import numpy as np
import pytest

from mlp.engine import Engine
from mlp.errors import (
    BinaryCrossEntropySigmoidError,
    CrossEntropyError,
    CrossEntropySoftmaxError,
    SumOfSquaredDiffsError,
)
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    LeakyReluLayer,
    MaxPooling2DLayer,
    ReluLayer,
    ReshapeLayer,
    ResidualLayer,
    SigmoidLayer,
    SoftmaxLayer,
)
from mlp.models import MultipleLayerModel

from .comparison import SQUARES, Probe, moved, random, twins


def affine(inputs=4, outputs=3):
    return moved(AffineLayer(inputs, outputs))


def conv(**options):
    return moved(Convolution2DLayer(3, 3, 3, **options))


MODELS = {
    "affine": lambda: [affine()],
    "relu, affine": lambda: [ReluLayer(), affine()],
    "norm, affine": lambda: [moved(BatchNormalizationLayer(4)), affine()],
    "leaky, relu": lambda: [LeakyReluLayer(), LeakyReluLayer(2.0), ReluLayer()],
    "sigmoid, affine": lambda: [SigmoidLayer(), affine(), SoftmaxLayer()],
    "dropout, relu": lambda: [DropoutLayer(np.random.RandomState(1)), ReluLayer()],
    "conv": lambda: [conv()],
    "conv, padding": lambda: [conv(padding=2), ReluLayer()],
    "conv, norm, pool": lambda: [conv(padding=1), moved(BatchNormalizationLayer(3)), AveragePooling2DLayer(2)],
    "pool": lambda: [AveragePooling2DLayer(2), MaxPooling2DLayer(size=2), GlobalAveragePooling2DLayer()],
    "norm": lambda: [moved(BatchNormalizationLayer(3))],
    "reshape, affine": lambda: [ReshapeLayer((4,)), affine()],
    "residual": lambda: [ResidualLayer([conv(padding=1), ReluLayer()]), GlobalAveragePooling2DLayer()],
    "chain": lambda: [ChainLayer([affine(4, 4), ReluLayer()]), affine(4, 3)],
}
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
SHAPES = [
    *[(), (1,), (4,), (0,)],
    *[(5, 4), (5, 3), (0, 4), (5, 0), (0, 0), (1, 4)],
    *[(5, 3, 4), (5, 4, 1), (0, 3, 4), (5, 3, 0), (5, 2, 2)],
    *[(5, 3, 8, 8), (5, 4, 8, 8), (0, 3, 8, 8), (5, 0, 8, 8), (5, 3, 0, 8), (5, 3, 8, 0), (5, 3, 1, 1), (5, 3, 2, 5)],
    *[(1, 3, 1, 1), (1, 3, 8, 8), (5, 3, 4, 4, 4), (0, 3, 4, 4, 4)],
]


def outcome(act):
    """Return what a call raises, as (its type, its words), or the arrays that it returns."""
    try:
        with np.errstate(all="ignore"):
            found = act()
    except Exception as error:
        return type(error).__name__, str(error)
    return [found] if isinstance(found, np.ndarray) else [np.array(found.loss), found.outputs, *found.grads]


def assert_same_outcome(ours, theirs, tolerance=1e-12, dtypes=True):
    """Assert that both raised the same, or found arrays of the same dtypes and shapes, and the same numbers."""
    if isinstance(theirs, tuple) or isinstance(ours, tuple):
        assert ours == theirs
        return
    if dtypes:
        assert [array.dtype for array in ours] == [array.dtype for array in theirs]
    assert [array.shape for array in ours] == [array.shape for array in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def both(build, x, t=None, dtype=None, error=SQUARES):
    """Return what plans and what layers say to predicting in both modes, and to a step if there are targets."""
    layers = [layer if dtype is None else layer.astype(dtype) for layer in build()]
    outcomes = []
    for engine in twins(layers, error):
        calls = [lambda e=engine: e.predict(x), lambda e=engine: e.predict(x, stochastic=True)]
        if t is not None:
            calls.append(lambda e=engine: e.forward_backward(x, t))
        outcomes.append([outcome(call) for call in calls])
    return list(zip(*outcomes, strict=True))


@every_model
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inputs_of_any_shape_are_taken_or_refused_as_layers_do(build, shape):
    x = random(*shape)
    like = outcome(lambda: Engine(MultipleLayerModel(build()), None, "layers").predict(x))
    t = random(3, 3) if isinstance(like, tuple) else np.ones(like[0].shape)
    for ours, theirs in both(build, x, t):
        assert_same_outcome(ours, theirs)


NO_ARRAYS = [None, 3, 2.5, "text", [[1.0] * 4] * 5, ((1.0,),), object(), np.float64(3.0), np.array("text"), range(3)]
ODD_ARRAYS = [
    np.ones((5, 4)).astype(object),
    np.ones((5, 4), bool),
    np.ones((5, 4), np.int32),
    np.ones((5, 4), np.uint8),
    np.ma.masked_array(np.ones((5, 4))),
    np.ones((5, 4)).view(np.matrix),
    np.array(["2020"], "M8[Y]"),
]


@pytest.mark.parametrize("x", [*NO_ARRAYS, *ODD_ARRAYS], ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')}")
def test_what_is_no_array_of_numbers_is_refused_as_layers_do(x):
    for build in (MODELS["affine"], MODELS["leaky, relu"], MODELS["conv"]):
        for ours, theirs in both(build, x, random(5, 3)):
            assert isinstance(ours, tuple)
            assert_same_outcome(ours, theirs)


DTYPES = [np.float16, np.float32, np.float64, np.longdouble, np.complex64, np.complex128, np.int64]
TOLERANCES = {np.float16: 3e-2, np.float32: 1e-4, np.complex64: 1e-4}
"""For a step in which a part is computed in that dtype by the layers; plans may use a wider one inside."""


def targets_like(t, inputs, params):
    """Return targets of the inputs' dtype; none for complex numbers, whose error is none to train with."""
    return None if "complex" in f"{inputs} {params}" else t.astype(inputs)


@pytest.mark.parametrize(
    "build", [MODELS[name] for name in ("relu, affine", "norm, affine", "sigmoid, affine", "chain")]
)
@pytest.mark.parametrize("inputs", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("params", DTYPES[:-1], ids=lambda dtype: dtype.__name__)
def test_results_have_the_dtype_that_layers_give_them(build, inputs, params, small_shards):
    """For every dtype of inputs and targets with every dtype of parameters."""
    x, t = (2 * random(9, 4)).astype(inputs), targets_like(random(9, 3, seed=1), inputs, params)
    tolerance = max(TOLERANCES.get(inputs, 1e-12), TOLERANCES.get(params, 1e-12))
    for ours, theirs in both(build, x, t, params):
        assert_same_outcome(ours, theirs, tolerance)


@pytest.mark.parametrize("inputs", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("params", DTYPES[:-1], ids=lambda dtype: dtype.__name__)
def test_images_have_the_dtype_that_layers_give_them(inputs, params, small_shards):
    x, t = (2 * random(9, 3, 4, 4)).astype(inputs), targets_like(random(9, 3, 2, 2, seed=1), inputs, params)
    tolerance = max(TOLERANCES.get(inputs, 1e-12), TOLERANCES.get(params, 1e-12))
    for ours, theirs in both(MODELS["conv, norm, pool"], x, t, params):
        assert_same_outcome(ours, theirs, tolerance)


@pytest.mark.parametrize(
    "targets", [np.float16, np.float32, np.float64, np.longdouble, np.int64], ids=lambda t: t.__name__
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("error", [SQUARES, CrossEntropySoftmaxError(), BinaryCrossEntropySigmoidError()], ids=repr)
def test_targets_of_another_dtype_are_taken(targets, dtype, error, small_shards):
    """As the coursework's one-hot rows in float64, for a model in float32. Gradients are of the plan's dtype."""
    x, t = random(9, 4, dtype=dtype), np.eye(3)[np.arange(9) % 3].astype(targets)
    for ours, theirs in both(MODELS["norm, affine"], x, t, dtype, error):
        assert_same_outcome(ours, theirs, 1e-5 if dtype is np.float32 else 1e-12, dtypes=False)
        assert {array.dtype for array in ours if array.ndim} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float32)])
@pytest.mark.parametrize("inputs", [np.float32, np.float64])
@pytest.mark.parametrize("between", [[], [lambda: Probe((9, 4))], [lambda: DropoutLayer(np.random.RandomState(1))]])
def test_layers_of_several_dtypes_give_the_numbers_that_layers_give(dtypes, inputs, between, small_shards):
    """Gradients of layers below others of a higher dtype are of the lower one's."""
    low, high = dtypes
    parts = [affine(4, 4).astype(low), ReluLayer(), *(make() for make in between), affine(4, 3).astype(high)]
    x, t = random(9, 4, dtype=inputs), random(9, 3, dtype=inputs)
    for ours, theirs in both(lambda: parts, x, t):
        assert_same_outcome(ours, theirs, 3e-2 if np.float16 in dtypes else 1e-5, dtypes=False)


def targets_for(n, classes):
    """Return targets that are right, and those that are not, each with what it is."""
    labels, rows = np.arange(n) % classes, np.eye(classes)[np.arange(n) % classes]
    return {
        "labels": labels,
        "rows": rows,
        "short labels": labels.astype(np.uint8),
        "too many rows": np.concatenate([rows, rows]),
        "too few rows": rows[:-1],
        "one row": rows[:1],
        "too many labels": np.concatenate([labels, labels]),
        "too few labels": labels[:-1],
        "one label": labels[:1],
        "no labels": labels[:0],
        "no rows": rows[:0],
        "labels too high": labels + np.arange(n),
        "one label too high": np.where(np.arange(n) == n - 1, classes + 3, labels),
        "labels below 0": labels - 2,
        "float labels": labels.astype(float),
        "too many classes": np.eye(classes + 1)[labels],
        "one class": rows[:, :1],
        "an axis more": rows[:, :, None],
        "no axis": np.array(1.0),
        "boolean rows": rows.astype(bool),
        "objects": rows.astype(object),
        "a list of rows": rows.tolist(),
        "a list of labels": labels.tolist(),
        "a number": 1,
        "nothing": None,
        "complex rows": rows.astype(complex),
        "probabilities above 1": 2 * rows,
        "no numbers": np.full_like(rows, np.nan),
    }


ERRORS = [SumOfSquaredDiffsError(), CrossEntropySoftmaxError(), CrossEntropyError(), BinaryCrossEntropySigmoidError()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("name", targets_for(9, 3))
@pytest.mark.parametrize("plan", ["one plan", "a layer by itself at the top"])
def test_targets_of_any_kind_are_taken_or_refused_as_layers_do(error, name, plan, small_shards):
    top = [SoftmaxLayer()] if plan == "one plan" else [SoftmaxLayer(), DropoutLayer(np.random.RandomState(1), 0.9)]
    parts = [affine(), *top]
    for ours, theirs in both(lambda: parts, random(9, 4), targets_for(9, 3)[name], error=error):
        if not isinstance(theirs, tuple) and theirs[0].dtype.kind == "f" and np.isnan(theirs[0]).any():
            assert np.isnan(ours[0]).all()
        else:
            assert_same_outcome(ours, theirs)


def test_a_step_without_an_error_is_refused():
    (_, _), (_, _), (ours, theirs) = both(MODELS["affine"], random(9, 4), random(9, 3), error=None)
    assert isinstance(theirs, tuple)
    assert isinstance(ours, tuple)


def test_after_any_refusal_the_engine_works(small_shards):
    ours, theirs = twins(
        [conv(padding=1), moved(BatchNormalizationLayer(3)), ReluLayer(), GlobalAveragePooling2DLayer()]
    )
    x, t = random(9, 3, 4, 4), random(9, 3, seed=1)
    for shape in SHAPES:
        outcome(lambda shape=shape: ours.forward_backward(random(*shape), t))
    for targets in targets_for(9, 4).values():
        outcome(lambda targets=targets: ours.forward_backward(x, targets))
    for engine in (ours, theirs):
        engine.model.layers[1].running_mean[...] = 0
        engine.model.layers[1].running_var[...] = 1
    step = outcome(lambda: ours.forward_backward(x, t))
    assert_same_outcome(step, outcome(lambda: theirs.forward_backward(x, t)))
    assert_same_outcome(outcome(lambda: ours.predict(x)), outcome(lambda: theirs.predict(x)))
