"""A model that changes after it was planned: what runs is what it is now."""

import numpy as np
import pytest

from mlp.errors import BinaryCrossEntropySigmoidError, CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    DropoutLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LeakyReluLayer,
    ReluLayer,
    ResidualLayer,
    SigmoidLayer,
)
from mlp.penalties import L1Penalty, L2Penalty

from .comparison import Probe, assert_arrays_close, assert_close, assert_steps_close, moved, random, twins

SHAPE = (9, 3, 4, 6)


def layers():
    return [
        moved(Convolution2DLayer(3, 4, 3, padding=1)),
        moved(BatchNormalizationLayer(4)),
        LeakyReluLayer(),
        ResidualLayer([moved(Convolution2DLayer(4, 4, 3, padding=1)), ChainLayer([ReluLayer(), SigmoidLayer()])]),
        AveragePooling2DLayer(2),
        GlobalAveragePooling2DLayer(),
        moved(AffineLayer(4, 5)),
    ]


class Negation(Layer):
    """A user's layer, unknown to plans."""

    def fprop(self, inputs):
        return -inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return -grads_wrt_outputs


class Last4(Layer):
    """Four channels of three, by repeating the last: a user's layer."""

    def fprop(self, inputs):
        return inputs[:, [0, 1, 2, 2]]

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = grads_wrt_outputs[:, :3].copy()
        grads[:, 2] += grads_wrt_outputs[:, 3]
        return grads


def set_item(*path_and_value):
    """Return a change that puts a new layer, from its builder, at a place in the model."""
    *path, last, build = path_and_value

    def change(model):
        target = model.layers
        for step in path:
            target = target[step].layers
        target[last] = build()

    return change


def set_attribute(index, name, value):
    """Return a change of a layer's attribute."""
    return lambda model: setattr(model.layers[index], name, value)


def made_of(index, name, make):
    """Return a change of a layer's attribute to what a function makes of the present one."""
    return lambda model: setattr(model.layers[index], name, make(getattr(model.layers[index], name)))


def insert(index, build):
    return lambda model: model.layers.insert(index, build())


def in_place(index, name, change):
    """Return a change inside an array of a layer."""

    def apply(model):
        array = getattr(model.layers[index], name)
        array[...] = change(array)

    return apply


def append_inside(model):
    model.layers[3].layers.append(ReluLayer())


def move_up(model):
    model.layers.insert(0, model.layers.pop(2))


def replace_all(model):
    model.layers = [moved(Convolution2DLayer(3, 5, 2), seed=2), GlobalAveragePooling2DLayer()]


def set_params(model):
    model.params = [param + 0.1 for param in model.params]


def penalise(model):
    model.layers[0].kernels_penalty = L2Penalty(0.3)


def penalise_more(model):
    penalise(model)
    model.layers[0].kernels_penalty.coefficient = 0.7


def nothing(model):
    pass


def without_the_lowest(model):
    model.layers[0] = Last4()


def new_affine():
    return moved(AffineLayer(4, 5), seed=1)


CHANGES = {
    "nothing": nothing,
    "a layer more at the end": lambda model: model.layers.append(SigmoidLayer()),
    "a user's layer more at the end": lambda model: model.layers.append(Negation()),
    "a layer more in between": insert(2, SigmoidLayer),
    "a user's layer more in between": insert(2, Negation),
    "a layer more at the bottom": insert(0, SigmoidLayer),
    "a layer with parameters more at the bottom": insert(0, lambda: moved(Convolution2DLayer(3, 3, 1))),
    "a layer less": lambda model: model.layers.pop(2),
    "a user's layer for the lowest": without_the_lowest,
    "a layer in another place": move_up,
    "another activation": set_item(2, ReluLayer),
    "another affine layer": set_item(6, new_affine),
    "another layer inside": set_item(3, 0, lambda: moved(Convolution2DLayer(4, 4, 1), seed=1)),
    "another layer deep inside": set_item(3, 1, 0, LeakyReluLayer),
    "a user's layer inside": set_item(3, 1, 1, Negation),
    "a layer more inside": append_inside,
    "another list of layers": replace_all,
    "another array of kernels": made_of(0, "kernels", lambda kernels: 2 * kernels),
    "a copy of the kernels": made_of(0, "kernels", lambda kernels: kernels.copy()),
    "another array of biases": made_of(0, "biases", lambda biases: biases + 1.0),
    "another gamma": made_of(1, "gamma", lambda gamma: gamma + 1.0),
    "another running mean": made_of(1, "running_mean", lambda mean: mean + 1.0),
    "another array of weights": made_of(6, "weights", lambda weights: -weights),
    "kernels changed in place": in_place(0, "kernels", lambda kernels: kernels + 0.5),
    "biases changed in place": in_place(0, "biases", lambda biases: biases - 0.5),
    "gamma changed in place": in_place(1, "gamma", lambda gamma: 3 * gamma),
    "beta changed in place": in_place(1, "beta", lambda beta: beta - 1),
    "running mean changed in place": in_place(1, "running_mean", lambda mean: mean + 0.5),
    "running variance changed in place": in_place(1, "running_var", lambda var: 2 * var),
    "weights changed in place": in_place(6, "weights", lambda weights: weights * 2),
    "parameters set": set_params,
    "no biases": set_attribute(0, "biases", None),
    "alpha": set_attribute(2, "alpha", 0.4),
    "alpha 0": set_attribute(2, "alpha", 0.0),
    "alpha above 1": set_attribute(2, "alpha", 1.5),
    "alpha below 0": set_attribute(2, "alpha", -0.5),
    "epsilon": set_attribute(1, "epsilon", 0.1),
    "momentum": set_attribute(1, "momentum", 0.7),
    "momentum's meaning": set_attribute(1, "momentum_weighs", "running"),
    "running variance's meaning": set_attribute(1, "running_variance", "biased"),
    "a penalty": penalise,
    "a penalty's coefficient": penalise_more,
    "a penalty of the affine layer": set_attribute(6, "weights_penalty", L1Penalty(0.2)),
    "a convolution's geometry": made_of(0, "geometry", lambda g: g._replace(dilation=(2, 2), padding=((2, 2),) * 2)),
    "a name": set_attribute(0, "name", "first"),
    "an attribute of a user's": lambda model: setattr(model.layers[0], "remark", "frozen"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("probe", [False, True])
def test_what_runs_is_what_the_model_is_now(change, probe, small_shards):
    """Changed after both purposes were planned; then once more."""
    ours, theirs = twins(layers())
    t = random(9, 5, seed=1)

    def compare():
        x = random(*SHAPE)
        assert_close(ours.predict(x), theirs.predict(x))
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)
        assert_arrays_close(ours, theirs)
        assert list(map(id, ours.params)) == list(map(id, ours.model.params))

    compare()
    compare()
    for engine in (ours, theirs):
        change(engine.model)
    compare()
    if probe:
        for engine in (ours, theirs):
            engine.model.layers.insert(0, Probe(SHAPE))
        compare()


def test_a_changed_model_is_planned_anew_and_no_other(monkeypatch):
    from mlp.engine import engine as engine_module

    made, plan = [], engine_module.Plan
    monkeypatch.setattr(engine_module, "Plan", lambda *rest: made.append(1) or plan(*rest))
    engine, _ = twins(layers())
    x, t = random(*SHAPE), random(9, 5)
    engine.forward_backward(x, t)
    for name in ("parameters set", "gamma changed in place", "nothing"):
        CHANGES[name](engine.model)
        engine.forward_backward(x, t)
    assert len(made) == 1
    CHANGES["alpha"](engine.model)
    engine.forward_backward(x, t)
    assert len(made) == 2


def test_parameters_of_another_dtype_make_results_of_another_dtype(small_shards):
    ours, theirs = twins(layers())
    x, t = random(*SHAPE, dtype=np.float32), random(9, 5, dtype=np.float32)
    for dtype in (np.float64, np.float32, np.float64):
        for engine in (ours, theirs):
            engine.model.layers = [layer.astype(dtype) for layer in engine.model.layers]
        step = ours.forward_backward(x, t)
        assert step.outputs.dtype == dtype
        assert_steps_close(step, theirs.forward_backward(x, t), floor=1e-2 if dtype is np.float64 else 1.0)


def test_another_error_is_the_one_that_is_run(small_shards):
    ours, theirs = twins(layers())
    x, t = random(*SHAPE), np.eye(5)[np.arange(9) % 5]
    softmax = CrossEntropySoftmaxError()
    for error in (SumOfSquaredDiffsError(), softmax, BinaryCrossEntropySigmoidError(), SumOfSquaredDiffsError()):
        ours.error = theirs.error = error
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)


@pytest.mark.parametrize("change", [{"reduction": "sum"}, {"class_weights": np.arange(1.0, 6.0)}, {"ignore_label": 2}])
def test_an_error_that_is_no_mean_any_more_is_not_run_in_parts(change, small_shards):
    ours, theirs = twins(layers(), CrossEntropySoftmaxError())
    x, labels = random(*SHAPE), np.arange(9) % 5
    assert_steps_close(ours.forward_backward(x, labels), theirs.forward_backward(x, labels), floor=1e-2)
    for engine in (ours, theirs):
        vars(engine.error).update(change)
    assert_steps_close(ours.forward_backward(x, labels), theirs.forward_backward(x, labels), floor=1e-2)


def test_another_model_is_the_one_that_is_run(small_shards):
    (ours, theirs), (other, others) = twins(layers()), twins([*layers(), SigmoidLayer()])
    x, t = random(*SHAPE), random(9, 5)
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)
    ours.model, theirs.model = other.model, others.model
    assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t), floor=1e-2)


def test_dropout_goes_on_with_its_random_numbers(small_shards):
    ours, theirs = twins([moved(AffineLayer(5, 5)), DropoutLayer(np.random.RandomState(3), 0.5), new_affine_of(5)])
    for turn in range(4):
        x, t = random(9, 5, seed=turn), random(9, 5, seed=9)
        assert_steps_close(ours.forward_backward(x, t), theirs.forward_backward(x, t))
        assert_close(ours.predict(x, stochastic=True), theirs.predict(x, stochastic=True))


def new_affine_of(size):
    return moved(AffineLayer(size, size), seed=1)


ODD = {
    "biases of one number": lambda layers: setattr(layers[-1], "biases", np.array([0.3])),
    "gamma of one number": lambda layers: setattr(layers[1], "gamma", np.array([1.7])),
    "running mean of one number": lambda layers: setattr(layers[1], "running_mean", np.array([0.2])),
    "kernels of another size": lambda layers: setattr(layers[0], "kernels", random(4, 3, 5, 5)),
    "one filter less": lambda layers: setattr(layers[0], "kernels", random(3, 3, 3, 3)),
    "weights for fewer inputs": lambda layers: setattr(layers[-1], "weights", random(5, 3)),
}


def result(engine, x, t):
    """Return what a step computes, or the kind of the error that it raises."""
    try:
        step = engine.forward_backward(x, t)
    except Exception as error:  # of any kind: both ways must raise the same
        return type(error)
    return step.outputs, *step.grads


@pytest.mark.parametrize("what", ODD)
def test_arrays_of_other_shapes_are_taken_or_refused_as_the_layers_do(what):
    layers = [moved(Convolution2DLayer(3, 4, 3, padding=1)), moved(BatchNormalizationLayer(4))]
    ours, theirs = twins([*layers, GlobalAveragePooling2DLayer(), moved(AffineLayer(4, 5))])
    x, t = random(6, 3, 5, 4), random(6, 5)
    ours.forward_backward(x, t)
    for engine in (ours, theirs):
        ODD[what](engine.model.layers)
    mine, wanted = result(ours, x, t), result(theirs, x, t)
    if isinstance(wanted, type):
        assert mine is wanted
    else:
        for one, other in zip(mine, wanted, strict=True):
            assert_close(one, other, floor=1.0)


@pytest.mark.parametrize("name", ["fprop", "grads_wrt_params"])
def test_a_models_own_passes_are_the_ones_that_run(name):
    ours, _ = twins([moved(AffineLayer(4, 5))])
    called, own = [], getattr(ours.model, name)
    setattr(ours.model, name, lambda *args, **options: (called.append(name), own(*args, **options))[1])
    ours.forward_backward(random(3, 4), random(3, 5))
    assert called == [name]


def test_targets_that_are_no_array_are_refused_with_a_sentence():
    ours, _ = twins([moved(AffineLayer(4, 5))], CrossEntropySoftmaxError())
    with pytest.raises(TypeError, match="targets is a list, expected a NumPy or CuPy array"):
        ours.forward_backward(random(3, 4), [0, 1, 2])


def test_precision_is_for_plans():
    ours, _ = twins([moved(AffineLayer(4, 5))])
    with pytest.raises(ValueError, match="precision is 'tf32'"):
        type(ours)(ours.model, kind="layers", precision="tf32")
