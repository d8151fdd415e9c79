import numpy as np
import pytest

from mlp.checks import ShapeError
from mlp.layers import Convolution1DLayer, Convolution2DLayer, ConvolutionalLayer, ConvolutionTranspose2DLayer

from .. import reference

INPUTS = np.arange(96).reshape((2, 3, 4, 4))
KERNELS = np.arange(-12, 12).reshape((2, 3, 2, 2))
BIASES = np.arange(2)


def coursework_layer():
    layer = ConvolutionalLayer(3, 2, input_height=4, input_width=4, kernel_height=2, kernel_width=2)
    layer.params = [KERNELS, BIASES]
    return layer


def naive(inputs, kernels, biases):
    return reference.conv2d(inputs, kernels[:, :, ::-1, ::-1], biases, (1, 1), (0, 0), (1, 1))


def test_the_courseworks_layer_is_a_true_convolution_of_integer_arrays_too():
    outputs = coursework_layer().fprop(INPUTS)
    np.testing.assert_array_equal(outputs, naive(INPUTS, KERNELS, BIASES))
    np.testing.assert_array_equal(outputs[0, :, 0], [[-958, -1036, -1114], [1707, 1773, 1839]])


def test_its_backward_passes_need_no_forward_pass():
    grads = np.arange(-20, 16).reshape((2, 2, 3, 3))
    dx, dw = reference.conv2d_grads(
        INPUTS.astype(float), KERNELS[:, :, ::-1, ::-1].astype(float), grads, (1, 1), (0, 0), (1, 1)
    )
    np.testing.assert_array_equal(coursework_layer().bprop(INPUTS, None, grads), dx)
    grad_kernels, grad_biases = coursework_layer().grads_wrt_params(INPUTS, grads)
    np.testing.assert_array_equal(grad_kernels, dw[:, :, ::-1, ::-1])
    np.testing.assert_array_equal(grad_biases, grads.sum(axis=(0, 2, 3)))


def test_sizes_may_be_given_under_their_names_of_2017():
    layer = ConvolutionalLayer(3, 2, input_dim_1=4, input_dim_2=5, kernel_dim_1=2, kernel_dim_2=3)
    assert layer.inputs_shape == (None, 3, 4, 5)
    assert layer.kernels_shape == (2, 3, 2, 3)
    assert np.abs(layer.kernels).max() <= 0.01
    assert (layer.biases == 0).all()
    for wrong in ({}, {"input_height": 4, "input_dim_1": 4}):
        with pytest.raises(TypeError, match=r"give input_height \(or its older name input_dim_1\)"):
            ConvolutionalLayer(3, 2, **wrong, input_width=5, kernel_height=2, kernel_width=3)


def test_one_implementation_has_two_faces():
    rng = np.random.default_rng(0)
    true = ConvolutionalLayer(2, 3, 5, 6, 2, 3)
    cross = Convolution2DLayer(2, 3, (2, 3))
    kernels, biases = rng.standard_normal(true.kernels_shape), rng.standard_normal(3)
    true.params, cross.params = [kernels, biases], [kernels[:, :, ::-1, ::-1], biases]
    x = rng.standard_normal((2, 2, 5, 6))
    np.testing.assert_array_equal(true.fprop(x), cross.fprop(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Convolution2DLayer(0, 1, 3), "num_input_channels is 0"),
        (lambda: Convolution2DLayer(1, 1, 0), "kernel_size is 0"),
        (lambda: Convolution2DLayer(1, 1, (3, 3, 3)), "or 2, one per spatial axis"),
        (lambda: Convolution2DLayer(1, 1, 3, stride=0), "stride is 0"),
        (lambda: Convolution2DLayer(1, 1, 3, padding=-1), "padding is -1"),
        (lambda: Convolution2DLayer(1, 1, 3, dilation=1.5), "dilation is 1.5"),
        (lambda: ConvolutionalLayer(1, 1, 3, 3, 4, 2), "do not fit"),
    ],
)
def test_bad_sizes_are_refused(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_bad_inputs_are_refused():
    layer = Convolution2DLayer(3, 2, 5)
    with pytest.raises(
        ShapeError, match=r"inputs has shape \(1, 4, 9, 9\), expected \(N, 3, H, W\): axis 1 is 4, not 3"
    ):
        layer.fprop(np.ones((1, 4, 9, 9)))
    with pytest.raises(ShapeError, match="inputs are 4x9, too small for Convolution2DLayer"):
        layer.fprop(np.ones((1, 3, 4, 9)))
    with pytest.raises(ShapeError, match="axis 3 is 6, not 5"):
        ConvolutionalLayer(3, 2, 4, 5, 2, 2).fprop(np.ones((1, 3, 4, 6)))


def test_repr_tells_what_is_not_the_default():
    assert repr(Convolution2DLayer(3, 4, 3)) == "Convolution2DLayer(3, 4, kernel_size=(3, 3))"
    layer = Convolution2DLayer(3, 4, (3, 2), stride=2, padding=(0, 1), bias=False)
    assert repr(layer) == "Convolution2DLayer(3, 4, kernel_size=(3, 2), stride=(2, 2), padding=(0, 1), bias=False)"


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (
            lambda: Convolution2DLayer(3, 2, 5),
            (1, 3, 4, 9),
            "inputs are 4x9, too small for Convolution2DLayer(3, 2, kernel_size=(5, 5))",
        ),
        (
            lambda: Convolution1DLayer(3, 2, 3, dilation=2),
            (1, 3, 4),
            "inputs are 4, too small for Convolution1DLayer(3, 2, kernel_size=(3,), dilation=(2,))",
        ),
        (
            lambda: ConvolutionTranspose2DLayer(3, 2, 2, padding=1),
            (1, 3, 1, 3),
            "inputs are 1x3, too small for ConvolutionTranspose2DLayer(3, 2, kernel_size=(2, 2), padding=(1, 1))",
        ),
        (
            lambda: ConvolutionalLayer(3, 2, 4, 5, 2, 2),
            (1, 3, 4, 6),
            "inputs has shape (1, 3, 4, 6), expected (N, 3, 4, 5): axis 3 is 6, not 5",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(build, shape, message):
    layer = build()
    with pytest.raises(ShapeError) as caught:
        layer.fprop(np.ones(shape))
    assert str(caught.value) == f"{type(layer).__name__}.fprop: {message}"


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        (Convolution2DLayer(1, 1, 3), (3, 4), (1, 2)),
        (Convolution2DLayer(1, 1, (3, 2), (2, 1), ((0, 1), (2, 3)), (1, 3)), (6, 4), (3, 6)),
        (ConvolutionTranspose2DLayer(1, 1, 3), (1, 2), (3, 4)),
        (
            ConvolutionTranspose2DLayer(1, 1, (3, 2), (2, 3), ((0, 1), (2, 3)), (1, 3), output_padding=(1, 2)),
            (6, 4),
            (13, 10),
        ),
    ],
)
def test_output_sizes_are_those_of_the_docstrings(layer, size, expected):
    assert layer.output_size(size) == expected
    assert layer.fprop(np.ones((2, 1, *size))).shape == (2, 1, *expected)
    with pytest.raises(ValueError, match="zip"):
        layer.output_size((*size, 1))
