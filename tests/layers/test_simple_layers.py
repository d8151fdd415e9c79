"""The values of the layers without matrix products: activations, pooling, dropout, reshape, residual."""

import numpy as np
import pytest

from mlp import layers
from mlp.backend import to_cpu, to_gpu
from mlp.checks import ShapeError, StaleStateError

from .. import reference

X = np.random.default_rng(0).standard_normal((3, 2, 7, 6))


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (layers.SigmoidLayer(), lambda x: 1 / (1 + np.exp(-x))),
        (layers.TanhLayer(), np.tanh),
        (layers.ReluLayer(), lambda x: np.where(x > 0, x, 0)),
        (layers.LeakyReluLayer(), lambda x: np.where(x > 0, x, 0.01 * x)),
        (layers.LeakyReluLayer(0.3), lambda x: np.where(x > 0, x, 0.3 * x)),
        (layers.SoftmaxLayer(), lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_activations_are_their_formulas(layer, function):
    np.testing.assert_allclose(layer.fprop(X), function(X), rtol=1e-13)


def test_integers_become_floats_where_a_slope_needs_it():
    np.testing.assert_array_equal(layers.LeakyReluLayer(0.5).fprop(np.array([[-2, 4]])), [[-1.0, 4.0]])


def test_nan_is_not_hidden():
    x = np.array([[np.nan, 1.0]])
    for layer in (layers.ReluLayer(), layers.LeakyReluLayer(), layers.SigmoidLayer(), layers.SoftmaxLayer()):
        assert np.isnan(layer.fprop(x)[0, 0]), layer


@pytest.mark.parametrize(("size", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 3)), ((1, 1), (2, 2)), ((7, 6), (1, 1))])
def test_pooling_equals_the_naive_loops(size, stride):
    cases = [(layers.MaxPooling2DLayer(size=size, stride=stride), np.max)]
    cases.append((layers.AveragePooling2DLayer(size, stride), np.mean))
    for layer, reduce in cases:
        np.testing.assert_allclose(layer.fprop(X), reference.pool2d(X, size, stride, reduce), rtol=1e-13)


def test_of_equal_maxima_the_first_gets_the_gradient_in_2d_and_all_do_in_1d():
    ones = np.ones((1, 1, 2, 4))
    layer = layers.MaxPooling2DLayer()
    grads = layer.bprop(ones, layer.fprop(ones), np.array([[[[5.0, 7.0]]]]))
    np.testing.assert_array_equal(grads, [[[[5, 0, 7, 0], [0, 0, 0, 0]]]])
    row = np.array([[1.0, 1.0, 0.0, 2.0]])
    layer = layers.MaxPoolingLayer(2)
    np.testing.assert_array_equal(layer.bprop(row, layer.fprop(row), np.array([[5.0, 7.0]])), [[5, 5, 0, 7]])


def test_pooling_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="axis 2 is 7, not 8"):
        layers.MaxPooling2DLayer(8, 6, 2, 2).fprop(X)
    with pytest.raises(ShapeError, match="inputs are 7x6, smaller than"):
        layers.AveragePooling2DLayer(8).fprop(X)
    with pytest.raises(ShapeError, match="no multiple of 4"):
        layers.MaxPoolingLayer(4).fprop(X)
    for wrong in (0, (2, 0), 2.0):
        with pytest.raises((ValueError, TypeError), match="size is"):
            layers.AveragePooling2DLayer(wrong)


def test_global_average_is_the_mean_of_each_map():
    np.testing.assert_allclose(layers.GlobalAveragePooling2DLayer().fprop(X), X.mean(axis=(2, 3)), rtol=1e-13)


@pytest.mark.parametrize("shared", [True, False])
def test_dropout_draws_as_the_coursework_and_does_not_rescale(shared):
    layer = layers.DropoutLayer(np.random.RandomState(3), 0.7, shared)
    draw = np.random.RandomState(3).uniform(size=(1, *X.shape[1:]) if shared else X.shape)
    outputs = layer.fprop(X)
    np.testing.assert_array_equal(outputs, X * (draw < 0.7))
    np.testing.assert_array_equal(layer.bprop(X, outputs, X), X * (draw < 0.7))
    expected = layer.fprop(X, stochastic=False)
    np.testing.assert_array_equal(expected, 0.7 * X)
    np.testing.assert_array_equal(layer.bprop(X, expected, X), 0.7 * X)
    with pytest.raises(StaleStateError, match="other arrays than those of the last fprop"):
        layer.bprop(X, outputs, X)


def test_dropout_has_a_stream_of_its_own_by_default():
    draw = np.random.RandomState(123456).uniform(size=(1, *X.shape[1:]))
    np.testing.assert_array_equal(layers.DropoutLayer().fprop(X), X * (draw < 0.5))
    assert repr(layers.DropoutLayer(incl_prob=0.25)) == "DropoutLayer(incl_prob=0.2)"
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="incl_prob is"):
            layers.DropoutLayer(incl_prob=wrong)


def test_reshape():
    assert layers.ReshapeLayer().fprop(X).shape == (3, 84)
    assert layers.ReshapeLayer((4, -1)).fprop(X).shape == (3, 4, 21)
    with pytest.raises(ShapeError, match="84 numbers an example do not fit output_shape"):
        layers.ReshapeLayer((5, -1)).fprop(X)
    with pytest.raises(ShapeError, match="do not fit"):
        layers.ReshapeLayer((83,)).fprop(X)
    with pytest.raises(TypeError, match="output_shape is 3, expected a tuple"):
        layers.ReshapeLayer(3)
    with pytest.raises(ValueError, match="or sizes >= 1 and one -1"):
        layers.ReshapeLayer((-1, -1))


def test_residual_adds_and_keeps_the_shape():
    layer = layers.ResidualLayer([layers.TanhLayer()])
    np.testing.assert_allclose(layer.fprop(X), X + np.tanh(X))
    with pytest.raises(ShapeError, match="F must keep the shape"):
        layers.ResidualLayer([layers.AffineLayer(3, 2)]).fprop(np.ones((4, 3)))


def test_a_chain_is_its_layers_and_passes_the_mode_on():
    dropout = layers.DropoutLayer(np.random.RandomState(0))
    chain = layers.ChainLayer([layers.TanhLayer(), layers.ResidualLayer([dropout])])
    np.testing.assert_allclose(chain.fprop(X, stochastic=False), 1.5 * np.tanh(X))
    assert chain.params == []
    assert repr(chain) == "ChainLayer([TanhLayer, ResidualLayer([DropoutLayer(incl_prob=0.5)])])"


def test_affine_defaults_are_the_courseworks():
    first = layers.AffineLayer(3, 2)
    assert np.abs(first.weights).max() <= 0.1
    assert (first.biases == 0).all()
    assert first.weights.dtype == first.biases.dtype == np.float64
    # One stream serves all layers that name no initialiser, so that two layers are not alike.
    assert not np.array_equal(first.weights, layers.AffineLayer(3, 2).weights)


@pytest.mark.parametrize("kind", [layers.SoftmaxLayer, layers.LogSoftmaxLayer])
@pytest.mark.parametrize("axis", [2, 3, -3, -4])
def test_softmax_needs_its_axis(kind, axis):
    layer, x = kind(axis), np.ones((2, 3))
    for method, arguments in (("fprop", (x,)), ("bprop", (x, x, x))):
        with pytest.raises(ShapeError) as caught:
            getattr(layer, method)(*arguments)
        assert str(caught.value) == f"{kind.__name__}.{method}: inputs has shape (2, 3), and no axis {axis}"


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_softmax_takes_any_axis(axis):
    probabilities = np.exp(X) / np.exp(X).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(layers.SoftmaxLayer(axis).fprop(X), probabilities, rtol=1e-13)
    np.testing.assert_allclose(layers.LogSoftmaxLayer(axis).fprop(X), np.log(probabilities), rtol=1e-12)


def test_softmax_spares_its_gradient_a_cancellation():
    x, layer = np.array([[40.0, 0.0]]), layers.SoftmaxLayer()
    small = np.exp(-40.0)
    grads = layer.bprop(x, layer.fprop(x), np.array([[1.0, 1.0 + 2.0**-50]]))
    np.testing.assert_allclose(grads, small * 2.0**-50 * np.array([[-1.0, 1.0]]), rtol=1e-12)
    np.testing.assert_array_equal(layer.bprop(x, layer.fprop(x), np.array([[3.0, 3.0]])), [[0.0, 0.0]])


def test_exponentials_that_are_not_used_do_not_overflow():
    x = np.array([[1e4, -1e4]])
    for layer in (layers.ELULayer(0.5), layers.SELULayer(0.5, 2.0)):
        gamma = layer.gamma
        np.testing.assert_array_equal(layer.fprop(x), gamma * np.array([[1e4, -0.5]]))
        np.testing.assert_array_equal(layer.bprop(x, layer.fprop(x), np.ones_like(x)), gamma * np.array([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("layer", "slope"),
    [
        (layers.ReluLayer(), 0.0),
        (layers.LeakyReluLayer(0.3), 0.3),
        (layers.ELULayer(0.4), 0.4),
        (layers.SELULayer(0.5, 3.0), 1.5),
    ],
    ids=repr,
)
def test_the_gradient_at_a_kink_is_the_left_one(layer, slope):
    zeros = np.zeros((1, 2))
    outputs = layer.fprop(zeros)
    np.testing.assert_array_equal(outputs, zeros)
    np.testing.assert_array_equal(layer.bprop(zeros, outputs, np.array([[1.0, 2.0]])), [[slope, 2 * slope]])


def test_evaluation_needs_no_random_numbers_and_training_is_the_default():
    class Counting(np.random.RandomState):
        draws = 0

        def uniform(self, **options):
            self.draws += 1
            return super().uniform(**options)

    rng = Counting(3)
    layer = layers.DropoutLayer(rng, 0.4, rescale=True)
    assert layer.fprop(X, stochastic=False) is not X
    np.testing.assert_array_equal(layer.fprop(X, stochastic=False), X)
    assert rng.draws == 0
    outputs = layer.fprop(X)
    assert rng.draws == 1
    np.testing.assert_allclose(outputs[outputs != 0], (X / 0.4)[outputs != 0])
    assert outputs.astype(np.float32).dtype == layer.fprop(X.astype(np.float32)).dtype


def test_reshape_goes_there_and_back():
    for shape in ((84,), (-1,), (2, 42), (4, -1, 7), (1, 84, 1)):
        layer = layers.ReshapeLayer(shape)
        outputs = layer.fprop(X)
        np.testing.assert_array_equal(layer.bprop(X, outputs, outputs), X)
    assert layers.ReshapeLayer(()).fprop(np.ones((3, 1))).shape == (3,)
    for shape, inputs in (((5, -1), X), ((83,), X), ((), X), ((0,), X)):
        with pytest.raises(ShapeError) as caught:
            layers.ReshapeLayer(shape).fprop(inputs)
        assert str(caught.value) == (
            f"ReshapeLayer.fprop: inputs has shape (3, 2, 7, 6): 84 numbers an example do not fit output_shape {shape}"
        )


def test_a_draw_below_the_probability_keeps_a_unit_and_an_equal_one_does_not():
    class Fixed(np.random.RandomState):
        def uniform(self, **options):
            return np.array([[0.0, 0.5, np.nextafter(0.5, 0), 0.75]])

    np.testing.assert_array_equal(layers.DropoutLayer(Fixed(), 0.5).fprop(np.ones((2, 4))), [[1, 0, 1, 0]] * 2)


def test_slopes_of_a_random_rectifier_are_one_number_or_one_an_entry():
    layer, x = layers.RandomReluLayer(), np.array([[-1.0, 2.0], [-3.0, -4.0]])
    np.testing.assert_array_equal(layer.fprop(x, leakiness=0.5), [[-0.5, 2.0], [-1.5, -2.0]])
    np.testing.assert_array_equal(layer.fprop(x, leakiness=np.float64(0.5)), [[-0.5, 2.0], [-1.5, -2.0]])
    with pytest.raises(ShapeError, match=r"leakiness has shape \(1, 2\), expected \(2, 2\)"):
        layer.fprop(x, leakiness=np.ones((1, 2)))
    with pytest.raises(TypeError, match="leakiness is 'a'"):
        layer.fprop(x, leakiness="a")


def test_a_random_rectifier_s_bounds_are_in_order():
    with pytest.raises(ValueError, match=r"upper is 0\.1"):
        layers.RandomReluLayer(0.2, 0.1)


def test_a_random_rectifier_takes_a_number_on_either_device(gpu):
    x = np.array([[-1.0, 2.0]], np.float32)
    outputs = layers.RandomReluLayer().fprop(to_gpu(x), leakiness=0.5)
    np.testing.assert_array_equal(to_cpu(outputs), [[-0.5, 2.0]])


def test_a_parametric_rectifier_s_gradient_masks_before_it_multiplies():
    layer = layers.ParametricReluLayer()
    (grad,) = layer.grads_wrt_params(np.array([[np.inf, -1.0]]), np.ones((1, 2)))
    assert grad[0] == -1.0
