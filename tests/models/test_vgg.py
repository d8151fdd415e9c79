import numpy as np
import pytest

from mlp import models
from mlp.layers import BatchNormalizationLayer, LayerWithParameters

PARAMETERS = {
    "vgg08": 59_716,
    "vgg38": 336_196,
    "vgg38_rc": 336_196,
    "vgg38_bn": 338_500,
    "vgg38_bn_rc": 338_500,
}
every_network = pytest.mark.parametrize("name", PARAMETERS)


@every_network
def test_parameters_are_the_reports(name):
    model = getattr(models, name)()
    assert sum(param.size for param in model.params) == PARAMETERS[name]
    assert {param.dtype for param in model.params} == {np.dtype(np.float32)}


@every_network
def test_initial_values_are_uniform_within_one_over_root_fan_in(name):
    for layer_name, layer in getattr(models, name)().named_layers():
        if isinstance(layer, BatchNormalizationLayer):
            assert (layer.gamma == 1).all()
            assert (layer.beta == 0).all()
            assert (layer.epsilon, layer.momentum) == (1e-5, 0.1)
        elif isinstance(layer, LayerWithParameters):
            weights, *biases = layer.params
            bound = 1 / np.sqrt(weights[0].size)
            assert weights[0].size == {"input": 27, "logit": 32}.get(layer_name[:5], 288)
            for values in (weights, *biases):
                assert np.abs(values).max() <= bound * (1 + 1e-6)
            assert weights.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
            assert np.abs(weights).max() > 0.98 * bound


def test_layers_of_the_smallest_network_stand_in_the_reports_order():
    model = models.vgg(1, batch_norm=True, residual=True)
    kinds = [type(layer).__name__.removesuffix("Layer") for _, layer in model.named_layers()]
    conv, norm, act, pool = "Convolution2D", "BatchNormalization", "LeakyRelu", "AveragePooling2D"
    processing = [conv, norm, act, conv, norm, act]
    reduction = [conv, norm, act, pool, conv, norm, act]
    assert kinds == [conv, norm, act, *(processing + reduction) * 3, "GlobalAveragePooling2D", "Affine"]


def test_only_entry_has_batch_norm_in_plain_networks_and_only_reductions_have_biases():
    names = [name for name, layer in models.vgg38().named_layers() if isinstance(layer, BatchNormalizationLayer)]
    assert names == ["input_conv_bn_0"]
    with_biases = [layer for layer, key, _ in models.vgg38().param_keys() if key == "biases"]
    assert with_biases == [
        *(f"reduction_block_{stage}_conv_{i}" for stage in range(3) for i in range(2)),
        "logit_linear_layer",
    ]


def test_weights_are_named_as_in_the_gradient_flow_figure():
    names = [layer for layer, _, is_offset in models.vgg08().param_keys() if not is_offset]
    reductions = [f"reduction_block_{stage}_conv_{i}" for stage in range(3) for i in range(2)]
    assert names == ["input_conv_conv_0", "input_conv_bn_0", *reductions, "logit_linear_layer"]
    assert len([1 for *_, is_offset in models.vgg38_bn().param_keys() if not is_offset]) == 37 + 37 + 1


def test_the_same_stream_gives_the_same_network():
    one, other = (models.vgg38_rc(rng=np.random.RandomState(3)).params for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    # The first 864 draws are the entry's, whatever network follows.
    np.testing.assert_array_equal(one[0], models.vgg08(rng=np.random.RandomState(3)).params[0])


def test_sizes_are_options():
    model = models.vgg08(num_filters=6, num_classes=10, num_channels=1, dtype=np.float64)
    outputs = model.fprop(np.zeros((2, 1, 16, 16)), evaluation=True)[-1]
    assert outputs.shape == (2, 10)
    with pytest.raises(ValueError, match="num_blocks is -1"):
        models.vgg(-1)


def test_the_work_of_a_training_step_is_28_gflop_forward():
    assert 2 * 100 * models.summary(models.vgg38(), (3, 32, 32)).multiply_adds == pytest.approx(28.0e9, rel=0.01)
