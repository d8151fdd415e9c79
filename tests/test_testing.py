"""The checker is checked: wrong layers are found, right ones pass."""

import numpy as np
import pytest

from mlp import layers
from mlp.errors import CrossEntropySoftmaxError
from mlp.models import MultipleLayerModel, vgg
from mlp.testing import GradientError, check_gradients

X = np.random.default_rng(0).standard_normal((4, 3))
IMAGES = np.random.default_rng(0).standard_normal((3, 3, 8, 8))
both_methods = pytest.mark.parametrize("method", ["complex step", "central differences"])


class NoVarianceTerm(layers.BatchNormalizationLayer):
    def _backprop(self, inputs, outputs, grads_wrt_outputs):
        grads, params = super()._backprop(inputs, outputs, grads_wrt_outputs)
        xhat = (inputs - inputs.mean(axis=0)) / np.sqrt(inputs.var(axis=0) + self.epsilon)
        std = np.sqrt(inputs.var(axis=0) + self.epsilon)
        return grads + self.gamma / std * xhat * (grads_wrt_outputs * xhat).mean(axis=0), params


class AveragedBias(layers.AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights, biases / len(inputs)]


class DiagonalSoftmax(layers.SoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * (1 - outputs) * grads_wrt_outputs


class ForgetfulResidual(layers.ResidualLayer):
    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, params = super()._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return None if grads is None else grads - grads_wrt_outputs, params


class LostBorder(layers.Convolution2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[:, :, 0] = 0
        return grads

    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        return self.bprop(inputs, outputs, grads_wrt_outputs), self.grads_wrt_params(inputs, grads_wrt_outputs)


def _leaky():
    return [layers.AffineLayer(3, 3), layers.LeakyReluLayer()]


class SummedOverTheBatch(layers.TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs).sum(axis=0, keepdims=True)


class NotANumber(layers.AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights, biases * np.nan]


class TwoTongues(layers.AffineLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        return grads_wrt_outputs @ self.weights, super().grads_wrt_params(inputs, grads_wrt_outputs)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [3 * grad for grad in super().grads_wrt_params(inputs, grads_wrt_outputs)]


class InPlace(layers.LeakyReluLayer):
    def fprop(self, inputs):
        inputs[inputs < 0] *= self.alpha
        return inputs


class NoWeights(layers.Convolution2DLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, (kernels, *rest) = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads, [0 * kernels, *rest]


WRONG = {
    "inputs": [
        (NoVarianceTerm(3), X),
        (DiagonalSoftmax(), X),
        (ForgetfulResidual(_leaky()), X),
        (LostBorder(3, 2, 3, padding=1), IMAGES),
    ],
    "biases": [(AveragedBias(3, 2), X)],
}


@both_methods
@pytest.mark.parametrize(
    ("array", "layer", "inputs"),
    [(array, *case) for array, cases in WRONG.items() for case in cases],
    ids=lambda value: type(value).__name__,
)
def test_wrong_layers_are_found_and_the_array_named(array, layer, inputs, method):
    with pytest.raises(GradientError) as caught:
        check_gradients(layer, inputs, method=method)
    wrong = [line for line in str(caught.value).splitlines()[1:] if "WRONG" in line]
    assert wrong
    assert all(array in line for line in wrong)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (SummedOverTheBatch(), r"inputs: \(1, 3\), not \(4, 3\)"),
        (NotANumber(3, 2), r"biases .* error nan  WRONG"),
        (TwoTongues(3, 2), "backprop gives other gradients"),
        (InPlace(), "changed the inputs"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_mistakes_are_found_too(layer, message):
    before = X.copy()
    with pytest.raises(GradientError, match=message):
        check_gradients(layer, X)
    np.testing.assert_array_equal(X, before)


def test_a_lost_gradient_is_found_however_much_it_had_vanished():
    model = vgg(5, num_filters=4, num_classes=5, rng=np.random.RandomState(2))
    conv = model.layers[3]
    conv.__class__ = NoWeights
    with pytest.raises(GradientError) as caught:
        check_gradients(model, IMAGES, CrossEntropySoftmaxError(), np.array([4, 0, 2]), directions=1)
    wrong = [line.split()[0] for line in str(caught.value).splitlines() if "  WRONG" in line]
    assert wrong == ["block_0_0_conv_0.kernels"]


def test_a_gradient_that_is_zero_is_said_to_be():
    model = MultipleLayerModel([layers.AffineLayer(3, 3), layers.BatchNormalizationLayer(3)])
    report = check_gradients(model, X)
    assert [array.name for array in report.arrays if not array.resolved] == ["AffineLayer_0.biases"]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="method is 'cs', expected one of 'complex step', 'central differences'"):
        check_gradients(layers.TanhLayer(), X, method="cs")


@both_methods
def test_a_model_with_its_error_is_checked_by_every_parameter(method):
    model = MultipleLayerModel([layers.AffineLayer(3, 5), layers.TanhLayer(), layers.AffineLayer(5, 4)])
    before = [param.copy() for param in model.params]
    report = check_gradients(model, X, CrossEntropySoftmaxError(), np.array([0, 1, 3, 2]), method=method)
    assert [array.name for array in report.arrays] == [
        "inputs",
        "AffineLayer_0.weights",
        "AffineLayer_0.biases",
        "AffineLayer_2.weights",
        "AffineLayer_2.biases",
    ]
    assert report.worst <= report.tolerance
    assert "right" in repr(report)
    for old, new in zip(before, model.params, strict=True):
        np.testing.assert_array_equal(old, new)


NETWORKS = [(0, False, False), (5, False, False), (5, True, False), (5, False, True), (5, True, True)]


@pytest.mark.parametrize("network", NETWORKS, ids=["vgg08", "vgg38", "vgg38_bn", "vgg38_rc", "vgg38_bn_rc"])
def test_whole_narrow_networks_are_right(network):
    model = vgg(*network, num_filters=4, num_classes=5, rng=np.random.RandomState(2))
    report = check_gradients(model, IMAGES, CrossEntropySoftmaxError(), np.array([4, 0, 2]), directions=2)
    assert report.worst < 1e-10
