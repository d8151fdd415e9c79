"""Kinks and ties: any sub-gradient is right there, and nothing else, whether a test meets one by chance or not."""

import numpy as np
import pytest

from mlp import layers
from mlp.models import MultipleLayerModel
from mlp.testing import GradientError, check_gradients

AT_ZERO = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.3]])
TIED = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
MOVED = "the point was moved by random numbers of 1e-3, off kinks and ties"


def many_zeros(shape=(20, 10)):
    inputs = np.random.default_rng(0).standard_normal(shape)
    return np.where(inputs < 0.3, 0.0, inputs)


class Relu(layers.Layer):
    def __init__(self, slope):
        self.slope = slope

    def fprop(self, inputs):
        return inputs * (inputs.real > 0)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * np.where(inputs == 0, self.slope, inputs > 0)


class Absolute(layers.Layer):
    def __init__(self, slope, function=np.abs):
        self.slope, self.function = slope, function

    def fprop(self, inputs):
        return self.function(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * np.where(inputs == 0, self.slope, np.sign(inputs))


def absolute_of_complex_numbers(x):
    return x * np.sign(x.real)


class Maximum(layers.Layer):
    """The largest of each row."""

    def __init__(self, share):
        self.share = share

    def fprop(self, inputs):
        return np.take_along_axis(inputs, inputs.real.argmax(axis=1)[:, None], axis=1)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.share(inputs == outputs)


def to_the_first(largest):
    return largest & (largest.cumsum(axis=1) == 1)


def to_the_last(largest):
    return to_the_first(largest[:, ::-1])[:, ::-1]


def in_equal_parts(largest):
    return largest / largest.sum(axis=1, keepdims=True)


def to_all(largest):
    return largest


def to_none(largest):
    return largest & (largest.sum(axis=1, keepdims=True) == 1)


SLOPES = {0.0: True, 0.5: True, 1.0: True, 1.5: False, -0.5: False}
RIGHT, WRONG = (to_the_first, to_the_last, in_equal_parts), (to_all, to_none)


# A single point on a kink.


@pytest.mark.parametrize("conduct", [True, False])
@pytest.mark.parametrize("slope", SLOPES)
def test_at_0_a_relu_may_have_any_slope_from_0_to_1_and_no_other(slope, conduct):
    if SLOPES[slope]:
        report = check_gradients(Relu(slope), AT_ZERO, conduct=conduct)
        assert report.right
        assert not report.notes
        return
    with pytest.raises(GradientError, match="2 of 6 entries are wrong") as caught:
        check_gradients(Relu(slope), AT_ZERO, conduct=conduct)
    assert caught.value.index in [(0, 0), (1, 1)]


def test_the_table_counts_kinks_where_another_sub_gradient_was_accepted():
    (array,) = check_gradients(Relu(0.5), AT_ZERO, conduct=False).arrays
    assert array.kinks == 2
    assert array.cells()[-1] == "2 at kinks"
    assert array.derivatives == array.size == 6


@pytest.mark.parametrize("function", [np.abs, absolute_of_complex_numbers], ids=["abs", "for complex numbers"])
@pytest.mark.parametrize("slope", [-1.5, -1.0, -0.3, 0.0, 0.5, 1.0, 1.5])
def test_at_0_an_absolute_value_may_have_any_slope_from_minus_1_to_1(function, slope):
    for inputs in (AT_ZERO, many_zeros()):
        if abs(slope) <= 1.0:
            assert check_gradients(Absolute(slope, function), inputs).right
        else:
            with pytest.raises(GradientError):
                check_gradients(Absolute(slope, function), inputs)


def test_a_penalty_may_have_any_slope_at_0_too():
    class Lasso:
        def __call__(self, parameter):
            return absolute_of_complex_numbers(parameter).sum()

        def grad(self, parameter):
            return np.where(parameter == 0, self.slope, np.sign(parameter))

    for slope, right in ((0.0, True), (1.0, True), (-0.7, True), (1.2, False)):
        penalty = Lasso()
        penalty.slope = slope
        if right:
            assert check_gradients(penalty, AT_ZERO).right
        else:
            with pytest.raises(GradientError):
                check_gradients(penalty, AT_ZERO)


@pytest.mark.parametrize("distance", [1e-6, 1e-7, 5e-8, 1e-8, 5e-9, 1e-9, -1e-7, -5e-9])
def test_near_a_kink_the_right_slope_is_right_and_a_wrong_one_wrong(distance):
    inputs = AT_ZERO.copy()
    inputs[0, 0] = distance
    for layer in (layers.ReluLayer(), Absolute(0.0), Absolute(0.0, absolute_of_complex_numbers)):
        assert check_gradients(layer, inputs, conduct=False).right

    class Wrong(Relu):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs * np.where(abs(inputs) < 1e-3, 1.5, inputs > 0)

    with pytest.raises(GradientError):
        check_gradients(Wrong(0.0), inputs, conduct=False)


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
def test_slopes_at_0_are_checked_where_they_are_small_too(size):
    class Small(Relu):
        def fprop(self, inputs):
            return size * super().fprop(inputs)

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return size * super().bprop(inputs, outputs, grads_wrt_outputs)

    assert check_gradients(Small(0.5), AT_ZERO, conduct=False).right
    with pytest.raises(GradientError):
        check_gradients(Small(1.5), AT_ZERO, conduct=False)


@pytest.mark.parametrize("share", [*RIGHT, *WRONG], ids=lambda share: share.__name__)
def test_tied_maxima_share_one_gradient(share):
    if share in RIGHT:
        assert check_gradients(Maximum(share), TIED).right
        assert check_gradients(Maximum(share), (4, 3)).right
        return
    for inputs in (TIED, (4, 3), (20, 6)):
        with pytest.raises(
            GradientError, match="at ties of the inputs the backward pass gives no sub-gradient"
        ) as caught:
            check_gradients(Maximum(share), inputs)
        assert caught.value.array == "inputs"
        assert caught.value.report is None


@pytest.mark.parametrize("share", RIGHT, ids=lambda share: share.__name__)
def test_a_model_that_meets_ties_may_have_any_sub_gradient(share):
    assert check_gradients(MultipleLayerModel([Maximum(share)]), TIED).right


# A large array, whose point is moved.


@pytest.mark.parametrize("slope", SLOPES)
def test_a_large_array_is_moved_off_its_kinks_and_the_report_says_so(slope):
    inputs = many_zeros()
    before = inputs.copy()
    if SLOPES[slope]:
        report = check_gradients(Relu(slope), inputs)
        assert report.right
        assert (MOVED in report.notes) == (slope != 0.0 or bool(report.notes))
        assert report.notes.count(MOVED) <= 1
        assert report.arrays[0].kinks == 0
    else:
        with pytest.raises(GradientError, match="at ties of the inputs"):
            check_gradients(Relu(slope), inputs)
    np.testing.assert_array_equal(inputs, before)


def test_moving_the_point_changes_neither_the_inputs_nor_the_parameters_of_the_caller():
    layer, inputs = layers.AffineLayer(10, 20), many_zeros()
    model = MultipleLayerModel([Relu(0.5), layer])
    before = [inputs.copy(), *(param.copy() for param in layer.params)]
    report = check_gradients(model, inputs)
    assert MOVED in report.notes
    for old, new in zip(before, [inputs, *layer.params], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_wrong_layer_is_found_where_the_point_is_moved():
    class Wrong(Relu):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return 1.001 * super().bprop(inputs, outputs, grads_wrt_outputs)

    with pytest.raises(GradientError, match=r"it is 1\.001 times the right one") as caught:
        check_gradients(Wrong(0.5), many_zeros())
    assert MOVED in caught.value.report.notes


def test_the_result_repeats_where_the_point_is_moved():
    first, again = (check_gradients(Relu(0.5), many_zeros()) for _ in range(2))
    assert first == again


# The library's own layers.


TIED_LAYERS = {
    "relu": (layers.ReluLayer, (20, 10)),
    "leaky relu": (layers.LeakyReluLayer, (20, 10)),
    "steep leaky relu": (lambda: layers.LeakyReluLayer(1.7), (20, 10)),
    "max pooling": (layers.MaxPooling2DLayer, (2, 3, 4, 6)),
    "overlapping max pooling": (lambda: layers.MaxPooling2DLayer(size=3, stride=1), (2, 3, 4, 6)),
    "1-d max pooling": (lambda: layers.MaxPooling1DLayer(2), (2, 3, 6)),
    "3-d max pooling": (lambda: layers.MaxPooling3DLayer(2), (2, 1, 4, 2, 4)),
    "residual": (lambda: layers.ResidualLayer([layers.ReluLayer()]), (20, 10)),
}


@pytest.mark.parametrize("values", ["rounded", "zeros", "small integers"])
@pytest.mark.parametrize("name", TIED_LAYERS)
def test_the_librarys_layers_are_right_at_ties(name, values):
    build, shape = TIED_LAYERS[name]
    inputs = np.random.default_rng(1).standard_normal(shape)
    inputs = {"rounded": np.round(inputs, 1), "zeros": np.zeros(shape), "small integers": np.round(inputs)}[values]
    assert check_gradients(build(), inputs).right


def test_a_convention_that_is_no_sub_gradient_is_left_alone_where_the_layer_says_so():
    assert not layers.MaxPoolingLayer.gives_subgradients
    assert check_gradients(layers.MaxPoolingLayer(3), (4, 6)).right

    class Said(Maximum):
        gives_subgradients = False

    assert check_gradients(Said(to_all), (4, 3)).right


def test_functions_that_are_not_defined_at_0_are_not_tried_there():
    class Logarithm(layers.Layer):
        def fprop(self, inputs):
            return np.log(inputs)

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return grads_wrt_outputs / inputs

    assert check_gradients(Logarithm(), np.abs(AT_ZERO) + 0.1).right
