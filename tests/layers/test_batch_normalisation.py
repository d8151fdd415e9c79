import numpy as np
import pytest

from mlp.checks import ShapeError, StaleStateError
from mlp.layers import BatchNormalizationLayer

X = np.random.default_rng(0).standard_normal((4, 3, 5, 2)) * 3 + 1


def flat(x):
    return x.transpose(1, 0, 2, 3).reshape(3, -1)


def test_training_normalises_by_the_biased_statistics_of_the_batch():
    layer = BatchNormalizationLayer(3)
    layer.params = [np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, -1.0])]
    mean, var = flat(X).mean(axis=1), flat(X).var(axis=1)
    expected = (flat(X) - mean[:, None]) / np.sqrt(var + 1e-5)[:, None] * [[1.0], [2.0], [3.0]] + [[0.0], [1.0], [-1.0]]
    np.testing.assert_allclose(flat(layer.fprop(X)), expected, rtol=1e-12)


def test_running_statistics_take_a_tenth_of_the_mean_and_of_the_unbiased_variance():
    layer = BatchNormalizationLayer(3)
    mean, var = np.zeros(3), np.ones(3)
    for scale in (1.0, 2.0):
        layer.fprop(scale * X)
        mean = 0.9 * mean + 0.1 * scale * flat(X).mean(axis=1)
        var = 0.9 * var + 0.1 * scale**2 * flat(X).var(axis=1, ddof=1)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-12)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    layer = BatchNormalizationLayer(3)
    layer.fprop(X)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    outputs = layer.fprop(X, stochastic=False)
    np.testing.assert_allclose(flat(outputs), (flat(X) - mean[:, None]) / np.sqrt(var + 1e-5)[:, None], rtol=1e-12)
    np.testing.assert_array_equal(layer.running_mean, mean)
    np.testing.assert_array_equal(layer.running_var, var)
    assert layer.fprop(X[:1, :, :1, :1], stochastic=False).shape == (1, 3, 1, 1)


def test_a_batch_of_one_value_a_channel_cannot_be_trained_on():
    with pytest.raises(ShapeError, match="one value per channel"):
        BatchNormalizationLayer(3).fprop(np.ones((1, 3)))


def test_backward_belongs_to_the_last_forward():
    layer = BatchNormalizationLayer(3)
    outputs = layer.fprop(X)
    layer.fprop(X[:2])
    for call in (lambda: layer.bprop(X, outputs, outputs), lambda: layer.grads_wrt_params(X, outputs)):
        with pytest.raises(StaleStateError, match=r"BatchNormalizationLayer\(input_dim=3\)"):
            call()


@pytest.mark.parametrize("options", [{"epsilon": 0.0}, {"momentum": 1.5}, {"momentum": -0.1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BatchNormalizationLayer(3, **options)


def test_wrong_channels_are_refused():
    with pytest.raises(ShapeError, match="axis 1 is 4, not 3"):
        BatchNormalizationLayer(3).fprop(np.ones((2, 4, 5, 5)))
    with pytest.raises(ShapeError, match="it has 1 axes, not 2"):
        BatchNormalizationLayer(3).fprop(np.ones(3))
    with pytest.raises(ShapeError, match="an axis is empty"):
        BatchNormalizationLayer(3).fprop(np.ones((2, 3, 0)))


def test_integers_are_normalised_as_floats():
    integers = np.array([[0, 4], [2, 4], [1, 1]])
    layer, twin = BatchNormalizationLayer(2), BatchNormalizationLayer(2)
    outputs, expected = layer.fprop(integers), twin.fprop(integers.astype(float))
    np.testing.assert_array_equal(outputs, expected)
    grads = layer.backprop(integers, outputs, expected)
    np.testing.assert_array_equal(grads[0], twin.bprop(twin._memory.inputs, expected, expected))
    np.testing.assert_array_equal(layer.running_mean, twin.running_mean)
    np.testing.assert_array_equal(layer.fprop(integers, False), twin.fprop(integers.astype(float), False))


def test_onnx_weighs_the_old_and_takes_the_biased_variance():
    layer = BatchNormalizationLayer(3, momentum=0.8, momentum_weighs="running", running_variance="biased")
    layer.fprop(X)
    np.testing.assert_allclose(layer.running_mean, 0.2 * flat(X).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.8 + 0.2 * flat(X).var(axis=1), rtol=1e-12)
    layer.fprop(np.ones((1, 3)))  # one value a channel has a biased variance
    np.testing.assert_allclose(layer.running_var, 0.64 + 0.16 * flat(X).var(axis=1), rtol=1e-12)


def test_the_smallest_batch_to_train_on_has_two_values_a_channel():
    layer = BatchNormalizationLayer(1)
    layer.fprop(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose((layer.running_mean, layer.running_var), [[0.2], [0.9 + 0.1 * 2.0]])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 3),
            "inputs has one value per channel, whose variance is not defined: train on a larger batch, or pass "
            "stochastic=False",
        ),
        ((2, 3, 0), "inputs has shape (2, 3, 0): an axis is empty"),
    ],
)
def test_batches_without_a_variance_are_refused(shape, message):
    with pytest.raises(ShapeError) as caught:
        BatchNormalizationLayer(3).fprop(np.ones(shape))
    assert str(caught.value) == f"BatchNormalizationLayer.fprop: {message}"


def test_a_stream_is_kept_and_not_drawn_from():
    rng = np.random.RandomState(0)
    layer = BatchNormalizationLayer(3, rng)
    layer.fprop(X)
    assert layer.rng is rng
    assert rng.uniform() == np.random.RandomState(0).uniform()
