"""Pooling at its edges: integers, fixed sizes, windows that do not fit."""

import numpy as np
import pytest

from mlp import layers
from mlp.checks import ShapeError

INTEGERS = np.array([[[[3, 3, 1, 0], [-1, 2, 5, 5]]]])


def test_the_maximum_of_integers_is_an_integer_and_its_gradients_are_floats():
    layer = layers.MaxPooling2DLayer()
    outputs = layer.fprop(INTEGERS)
    assert outputs.dtype == np.int64
    np.testing.assert_array_equal(outputs, [[[[3, 5]]]])
    grads = layer.bprop(INTEGERS, outputs, np.array([[[[0.5, 0.25]]]]))
    assert grads.dtype == np.float64
    np.testing.assert_array_equal(grads, [[[[0.5, 0, 0, 0], [0, 0, 0.25, 0]]]])
    padded = layers.MaxPooling2DLayer(size=2, stride=2, padding=1).fprop(-1 - INTEGERS)
    np.testing.assert_array_equal(padded, [[[[-4, -2, -1], [0, -3, -6]]]])


def test_the_mean_of_integers_and_its_gradients_are_floats():
    layer = layers.AveragePooling2DLayer()
    outputs = layer.fprop(INTEGERS)
    np.testing.assert_array_equal(outputs, [[[[1.75, 2.75]]]])
    np.testing.assert_array_equal(layer.bprop(INTEGERS, outputs, outputs)[0, 0, 0], [0.4375, 0.4375, 0.6875, 0.6875])
    layer = layers.GlobalAveragePooling2DLayer()
    np.testing.assert_array_equal(layer.fprop(INTEGERS), [[2.25]])
    np.testing.assert_array_equal(layer.bprop(INTEGERS, np.ones((1, 1)), np.ones((1, 1))), np.full((1, 1, 2, 4), 1 / 8))
    layer = layers.MaxPoolingLayer(2)
    rows = np.array([[1, 1, 0, 2]])
    np.testing.assert_array_equal(layer.fprop(rows), [[1, 2]])
    np.testing.assert_array_equal(layer.bprop(rows, layer.fprop(rows), np.array([[0.5, 0.25]])), [[0.5, 0.5, 0, 0.25]])


def test_a_sum_of_large_integers_does_not_overflow():
    large = np.full((1, 1, 2, 2), 2**62)
    assert layers.AveragePooling2DLayer().fprop(large) == 2.0**62


def test_average_weights_follow_the_dtype_where_windows_differ():
    layer = layers.AveragePooling2DLayer(2, 2, 1, count_include_pad=False)
    ones = np.ones((1, 1, 4, 4), np.float32)
    outputs = layer.fprop(ones)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, np.ones((1, 1, 3, 3)))
    grads = layer.bprop(ones, outputs, outputs)
    assert grads.dtype == np.float32
    np.testing.assert_array_equal(grads[0, 0, 0], [1, 0.5, 0.5, 1])


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            lambda: layers.MaxPooling2DLayer(4, 6),
            (1, 3, 4, 7),
            "MaxPooling2DLayer.fprop: inputs has shape (1, 3, 4, 7), expected (N, C, 4, 6): axis 3 is 7, not 6",
        ),
        (
            lambda: layers.MaxPooling1DLayer(3),
            (1, 3, 2),
            "MaxPooling1DLayer.fprop: inputs are 2, smaller than MaxPooling1DLayer(size=(3,), stride=(3,))",
        ),
        (
            lambda: layers.AveragePooling3DLayer((1, 1, 3)),
            (1, 3, 2, 4, 2),
            "AveragePooling3DLayer.fprop: inputs are 2x4x2, smaller than "
            "AveragePooling3DLayer(size=(1, 1, 3), stride=(1, 1, 3))",
        ),
        (
            lambda: layers.MaxPooling2DLayer(size=2, stride=1, padding=2),
            (1, 3, 4, 5),
            "MaxPooling2DLayer.fprop: inputs are 4x5, and a window of MaxPooling2DLayer(size=(2, 2), stride=(1, 1), "
            "padding=(2, 2)) would see nothing but padding",
        ),
        (
            lambda: layers.MaxPoolingLayer(3),
            (2, 4),
            "MaxPoolingLayer.fprop: inputs has shape (2, 4): the last axis is no multiple of 3",
        ),
        (
            lambda: layers.MaxPoolingLayer(3),
            (6,),
            "MaxPoolingLayer.fprop: inputs has shape (6,), expected (N, D, ...): it has 1 axes, not 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(layer, shape, message):
    with pytest.raises(ShapeError) as caught:
        layer().fprop(np.ones(shape))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.MaxPooling2DLayer(4, 6), (2, 3, 2, 3)),
        (lambda: layers.MaxPooling2DLayer(4, 6, (4, 3)), (2, 3, 1, 2)),
        (lambda: layers.AveragePooling2DLayer((4, 6)), (2, 3, 1, 1)),
        (lambda: layers.MaxPooling2DLayer(size=2, stride=2, padding=1), (2, 3, 3, 4)),
        (lambda: layers.AveragePooling2DLayer(3, 2, ceil_mode=True), (2, 3, 2, 3)),
    ],
)
def test_what_just_fits_is_taken(layer, shape):
    inputs = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    outputs = layer().fprop(inputs)
    assert outputs.shape == shape
    assert layer().bprop(inputs, outputs, outputs).shape == inputs.shape


@pytest.mark.parametrize("kind", [layers.MaxPooling2DLayer, layers.AveragePooling2DLayer])
def test_outputs_lie_channels_last_in_memory(kind):
    outputs = kind().fprop(np.ones((2, 3, 4, 6)))
    assert outputs.transpose(0, 2, 3, 1).flags.c_contiguous
