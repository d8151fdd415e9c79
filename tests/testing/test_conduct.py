"""What a layer promises besides right derivatives: every broken promise is found, and none is imagined."""

import re

import numpy as np
import pytest

from mlp import errors, layers
from mlp.models import MultipleLayerModel, SingleLayerModel
from mlp.testing import GradientError, check_gradients

X = np.random.default_rng(3).standard_normal((4, 3))
IMAGES = np.random.default_rng(3).standard_normal((2, 3, 4, 5))


class Tanh(layers.Layer):
    def fprop(self, inputs):
        return np.tanh(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1.0 - np.tanh(inputs) ** 2) * grads_wrt_outputs


class Affine(layers.AffineLayer):
    pass


class ChangesInputs(Tanh):
    def fprop(self, inputs):
        inputs *= 1.0 + 1e-3
        return super().fprop(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 1.001 * super().bprop(inputs, outputs, grads_wrt_outputs)


class LeakyInPlace(layers.LeakyReluLayer):
    def fprop(self, inputs):
        inputs[inputs < 0] *= self.alpha
        return inputs


class ChangesOutputs(Tanh):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        outputs *= outputs
        outputs -= 1.0
        return -outputs * grads_wrt_outputs


class ChangesInputsBackwards(Tanh):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        right = super().bprop(inputs, outputs, grads_wrt_outputs)
        inputs[...] = 0.0
        return right


class ChangesUpstream(Tanh):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads_wrt_outputs *= 1.0 - outputs**2
        return grads_wrt_outputs


class DoublesUpstream(layers.Layer):
    def fprop(self, inputs):
        return 1.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads_wrt_outputs *= 2.0
        return grads_wrt_outputs


class ChangesParameters(Affine):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        grads = super().grads_wrt_params(inputs, grads_wrt_outputs)
        self.weights -= 0.1 * grads[0]
        return grads


class TwoTongues(Affine):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        return grads_wrt_outputs @ self.weights, super().grads_wrt_params(inputs, grads_wrt_outputs)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [3.0 * grad for grad in super().grads_wrt_params(inputs, grads_wrt_outputs)]


class OtherWithoutInputs(Affine):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, (weights, biases) = super().backprop(inputs, outputs, grads_wrt_outputs)
        return grads, [weights if need_inputs else 0.0 * weights, biases]


class Counts(Tanh):
    calls = 0

    def fprop(self, inputs):
        self.calls += 1
        return (1.0 if self.calls == 1 else 1.5) * np.tanh(inputs)


class KeepsTheMask(layers.Layer):
    def fprop(self, inputs):
        self.mask = inputs.real > 0
        return inputs * self.mask

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.mask


class MemoryOrder(Tanh):
    def fprop(self, inputs):
        return np.tanh(inputs.ravel(order="K").reshape(inputs.shape))


class ForTwoAndMore(Tanh):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        right = super().bprop(inputs, outputs, grads_wrt_outputs)
        return right if len(inputs) > 1 else 2.0 * right


class Pairs(Tanh):
    def fprop(self, inputs):
        if len(inputs) % 2:
            raise ValueError(f"{len(inputs)} examples are no pairs")
        return super().fprop(inputs)


class OfFour(Tanh):
    def fprop(self, inputs):
        if len(inputs) != 4:
            raise ValueError(f"this layer takes 4 examples, not {len(inputs)}")
        return super().fprop(inputs)


BROKEN = {
    ChangesInputsBackwards: "the backward pass changed its inputs",
    ChangesOutputs: "the backward pass changed its outputs",
    ChangesUpstream: "the backward pass changed its grads_wrt_outputs",
    Counts: "the result depends on the previous call",
    KeepsTheMask: "after fprop of another batch, bprop of the first gives another gradient",
    MemoryOrder: "Fortran memory gives another result",
    ForTwoAndMore: r"a batch of 1: inputs\[0, \d\]: got \S+, expected \S+; it is twice the right one",
}
BROKEN_WITH_PARAMETERS = {
    ChangesParameters: "the backward pass changed the parameters",
    TwoTongues: "backprop gives other gradients than bprop and grads_wrt_params",
    OtherWithoutInputs: "backprop gives other gradients with need_inputs=False",
}


@pytest.mark.parametrize("kind", [*BROKEN, *BROKEN_WITH_PARAMETERS], ids=lambda kind: kind.__name__)
def test_a_broken_promise_is_named(kind):
    layer = kind() if kind in BROKEN else kind(3, 2)
    sentence = (BROKEN | BROKEN_WITH_PARAMETERS)[kind]
    with pytest.raises(GradientError, match=sentence) as caught:
        check_gradients(layer, X)
    error = caught.value
    assert re.match(sentence, error.cause)
    assert str(error) == f"{error.subject}: {error.cause}"
    assert (error.mode, error.report) == ("both", None)


@pytest.mark.parametrize("kind", [LeakyInPlace, ChangesInputs], ids=lambda kind: kind.__name__)
def test_inputs_that_fprop_changes_are_noticed(kind):
    with pytest.raises(GradientError, match="fprop changed its inputs"):
        check_gradients(kind(), X)


def test_conduct_can_be_left_out():
    for kind in (KeepsTheMask, LeakyInPlace):
        report = check_gradients(kind(), X, conduct=False)
        assert report.right
        assert report.conduct == ()


@pytest.mark.parametrize("conduct", [True, False])
def test_an_upstream_gradient_changed_in_place_hides_no_mistake(conduct):
    for subject in (DoublesUpstream(), MultipleLayerModel([DoublesUpstream()])):
        with pytest.raises(GradientError):
            check_gradients(subject, X, conduct=conduct)


@pytest.mark.parametrize("kind", [LeakyInPlace, ChangesInputs, ChangesInputsBackwards, ChangesOutputs, ChangesUpstream])
def test_models_promise_to_change_no_argument_too(kind):
    before = X.copy()
    models = (
        MultipleLayerModel([kind()]),
        SingleLayerModel(kind()),
        MultipleLayerModel([layers.AffineLayer(3, 3), kind()]),
    )
    for model in models:
        with pytest.raises(GradientError, match="changed"):
            check_gradients(model, X)
    np.testing.assert_array_equal(X, before)


def test_a_model_that_changes_its_parameters_is_found():
    with pytest.raises(GradientError, match="changed"):
        check_gradients(MultipleLayerModel([ChangesParameters(3, 2)]), X)


def test_a_model_whose_passes_do_not_repeat_is_found():
    class Drifts(Tanh):
        total = np.zeros(1)  # shared by all copies

        def fprop(self, inputs):
            self.total += 1e-3
            return np.tanh(inputs) + self.total * inputs

    with pytest.raises(GradientError):
        check_gradients(MultipleLayerModel([Drifts()]), X)


def test_the_mode_of_a_broken_promise_is_said():
    class KeepsInTraining(layers.DropoutLayer):
        def fprop(self, inputs, stochastic=True):
            outputs = super().fprop(inputs, stochastic)
            if stochastic:
                self.kept = self._memory
            return outputs

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            if self._memory.inputs is inputs and self._memory.outputs is outputs:
                return super().bprop(inputs, outputs, grads_wrt_outputs)
            return 0.0 * grads_wrt_outputs

    with pytest.raises(GradientError, match="in training mode: after fprop of another batch") as caught:
        check_gradients(KeepsInTraining(np.random.RandomState(1)), X)
    assert caught.value.mode == "training"


def test_the_layers_promises_are_listed_in_the_report():
    report = check_gradients(layers.Convolution2DLayer(3, 2, 3), IMAGES)
    assert set(report.conduct) == {
        "bprop and grads_wrt_params agree with backprop",
        "no argument is changed",
        "calls repeat",
        "a stale bprop is right or refused",
        "memory order (Fortran, reversed, strided, channels-last) does not matter",
        "batches of 1, 2, 3",
        "ties",
    }
    assert "memory order (Fortran, reversed, strided) does not matter" in check_gradients(Tanh(), X).conduct
    assert check_gradients(MultipleLayerModel([Tanh()]), X).conduct == ("no argument is changed", "calls repeat")


def test_batches_that_a_layer_refuses_are_noted_with_its_reason():
    report = check_gradients(layers.BatchNormalizationLayer(3), X)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("a batch of 1 is refused: BatchNormalizationLayer.fprop: inputs has one value")
    assert check_gradients(layers.BatchNormalizationLayer(3), X, modes=("evaluation",)).notes == ()
    assert check_gradients(Pairs(), X).notes == tuple(
        f"a batch of {n} is refused: {n} examples are no pairs" for n in (1, 3)
    )


def test_a_layer_that_takes_one_size_of_batch_only_is_not_right():
    with pytest.raises(GradientError, match=r"batches of \[1, 2, 3\] are refused: .*is a batch size written into it\?"):
        check_gradients(OfFour(), X)


def test_what_was_not_checked_is_not_called_right():
    assert "batches of 2" in check_gradients(Pairs(), X).conduct
    assert "batches of 2, 3" in check_gradients(layers.BatchNormalizationLayer(3), X).conduct
    assert "ties" in check_gradients(layers.ReluLayer(), X).conduct
    for layer in (layers.ChainLayer([layers.ReluLayer()]), layers.MaxPoolingLayer(3)):
        assert ("ties" in check_gradients(layer, X).conduct) == (layer.gives_subgradients and not layer.children())


def test_a_layer_that_keeps_nothing_or_asks_for_what_it_remembers_is_right():
    for layer in (Tanh(), layers.DropoutLayer(np.random.RandomState(1)), layers.LayerNormalizationLayer(3)):
        assert "a stale bprop is right or refused" in check_gradients(layer, X).conduct


# No false alarms.


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: layers.BatchNormalizationLayer(3), (2, 3)),
        (lambda: layers.LayerNormalizationLayer(2), (4, 2)),
        (lambda: layers.GroupNormalizationLayer(3, 3), (4, 3)),
        (lambda: layers.SoftmaxLayer(), (4, 1)),
        (lambda: layers.ChainLayer([layers.AffineLayer(3, 3), layers.BatchNormalizationLayer(3)]), (4, 3)),
        (
            lambda: layers.ChainLayer(
                [layers.Convolution2DLayer(3, 2, 3), layers.BatchNormalizationLayer(2), layers.ReluLayer()]
            ),
            (2, 3, 4, 5),
        ),
        (lambda: layers.ResidualLayer([layers.BatchNormalizationLayer(3)]), (4, 3)),
    ],
    ids=["batch of two", "two features", "groups of one", "one class", "affine, batch norm", "conv block", "residual"],
)
def test_gradients_of_rounding_errors_break_no_promise(build, shape):
    for seed in range(3):
        assert check_gradients(build(), shape, seed=seed).right


class Sine(Tanh):
    def fprop(self, inputs):
        return np.sin(np.abs(inputs)) * np.sign(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.cos(inputs) * grads_wrt_outputs


def test_small_batches_are_checked_by_differences_where_the_complex_step_cannot_be_used():
    assert "batches of 1, 2, 3" in check_gradients(Sine(), X).conduct

    class WrongForOne(Sine):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return (1.0 + 1e-4 * (len(inputs) == 1)) * super().bprop(inputs, outputs, grads_wrt_outputs)

    with pytest.raises(GradientError, match=r"a batch of 1: inputs\[0, \d\]: got"):
        check_gradients(WrongForOne(), X)


def test_wrong_parameters_in_small_batches_are_named():
    class WrongForOne(Affine):
        def grads_wrt_params(self, inputs, grads_wrt_outputs):
            weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
            return [weights, biases * (2.0 if len(inputs) == 3 else 1.0)]

    with pytest.raises(GradientError, match=r"a batch of 3: biases\[\d\]: got") as caught:
        check_gradients(WrongForOne(3, 2), X)
    assert caught.value.array == "biases"


# Errors and penalties.


class Squares:
    def __call__(self, outputs, targets):
        return ((outputs - targets) ** 2).sum() / len(outputs)

    def grad(self, outputs, targets):
        return 2.0 * (outputs - targets) / len(outputs)

    def __repr__(self):
        return type(self).__name__


class ChangesTargets(Squares):
    def grad(self, outputs, targets):
        targets -= outputs
        return -2.0 * targets / len(outputs)


class ChangesErrorsOutputs(Squares):
    def grad(self, outputs, targets):
        outputs -= targets
        return 2.0 * outputs / len(outputs)


class SumOfSquares(Squares):
    def __call__(self, outputs, targets):
        return ((outputs - targets) ** 2).sum()

    def grad(self, outputs, targets):
        return 2.0 * (outputs - targets)


class MemoryOrderOfErrors(Squares):
    def __call__(self, outputs, targets):
        return super().__call__(outputs.ravel(order="K").reshape(outputs.shape), targets)


class Restless(Squares):
    def __init__(self):
        self.calls = 0

    def grad(self, outputs, targets):
        self.calls += 1
        return super().grad(outputs, targets) * (1.0 + 1e-13 * self.calls)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ChangesTargets(), "an argument was changed|two calls give two results"),
        (ChangesErrorsOutputs(), "an argument was changed|two calls give two results"),
        (SumOfSquares(), "the error of a batch put twice is another: it is no mean over the batch, a 1/N is missing"),
        (MemoryOrderOfErrors(), "Fortran memory gives another result"),
        (Restless(), "two calls give two results"),
    ],
    ids=repr,
)
def test_promises_of_errors_are_checked(error, sentence):
    assert check_gradients(Squares(), X, targets=X[::-1] + 0.1).right
    with pytest.raises(GradientError, match=rf"^{type(error).__name__}: ({sentence})"):
        check_gradients(error, X, targets=X[::-1] + 0.1)


def test_an_error_that_says_it_is_a_sum_may_be_one():
    class Said(SumOfSquares):
        reduction = "sum"

    report = check_gradients(Said(), X, targets=X[::-1] + 0.1)
    assert report.conduct == ("no argument is changed", "calls repeat")
    assert check_gradients(errors.CrossEntropySoftmaxError(reduction="sum"), X, targets=np.array([0, 1, 2, 0])).right


def test_promises_of_penalties_are_checked():
    class Shrinks:
        def __call__(self, parameter):
            return (parameter**2).sum()

        def grad(self, parameter):
            parameter *= 2.0
            return parameter

        def __repr__(self):
            return "Shrinks"

    with pytest.raises(GradientError, match=r"^Shrinks: (an argument was changed|two calls give two results)"):
        check_gradients(Shrinks(), X)
