import numpy as np
import pytest

from mlp import layers
from mlp.checks import DTypeError, ShapeError
from mlp.engine import Engine
from mlp.errors import SumOfSquaredDiffsError
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import MultipleLayerModel, SingleLayerModel
from mlp.optimisers import train_step
from mlp.penalties import L2Penalty

X = np.random.default_rng(0).standard_normal((5, 3))


def model():
    return MultipleLayerModel(
        [
            layers.AffineLayer(3, 4, weights_penalty=L2Penalty(0.1)),
            layers.BatchNormalizationLayer(4),
            layers.DropoutLayer(np.random.RandomState(1), 0.5),
            layers.AffineLayer(4, 2),
        ]
    )


def test_fprop_returns_all_activations_and_grads_come_in_the_order_of_params():
    net = model()
    activations = net.fprop(X)
    assert activations[0] is X
    assert [a.shape for a in activations] == [(5, 3), (5, 4), (5, 4), (5, 4), (5, 2)]
    grads = net.grads_wrt_params(activations, np.ones((5, 2)))
    assert [g.shape for g in grads] == [p.shape for p in net.params] == [(4, 3), (4,), (4,), (4,), (2, 4), (2,)]
    grads_wrt_inputs, again = net.bprop(activations, np.ones((5, 2)))
    assert grads_wrt_inputs.shape == X.shape
    for one, other in zip(grads, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_is_deterministic_and_differs_from_training():
    net = model()
    net.fprop(X)
    first, second = (net.fprop(X, evaluation=True)[-1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(net.fprop(X, stochastic=False)[-1], first)
    assert not np.allclose(net.fprop(X)[-1], first)


def test_a_single_layer_model_takes_evaluation_too():
    layer = layers.AffineLayer(3, 2)
    net = SingleLayerModel(layer)
    assert net.layer is layer
    assert [a.shape for a in net.fprop(X, evaluation=True)] == [(5, 3), (5, 2)]
    assert net.params[0] is layer.weights
    assert repr(net) == "SingleLayerModel(AffineLayer(input_dim=3, output_dim=2))"


def test_repr_is_the_courseworks():
    net = MultipleLayerModel([layers.AffineLayer(3, 2), layers.SoftmaxLayer()])
    assert repr(net) == "MultiLayerModel(\n    AffineLayer(input_dim=3, output_dim=2)\n    SoftmaxLayer\n)"


def test_params_are_set_in_place_and_in_order():
    net = model()
    before = net.params
    net.params = [np.full(p.shape, float(i)) for i, p in enumerate(before)]
    assert all(a is b for a, b in zip(before, net.params, strict=True))
    assert [p.ravel()[0] for p in net.params] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ShapeError, match="1 arrays, expected 6"):
        net.params = before[:1]


def test_named_arrays_hold_parameters_and_running_statistics():
    assert list(model().named_arrays()) == [
        "AffineLayer_0.weights",
        "AffineLayer_0.biases",
        "BatchNormalizationLayer_1.gamma",
        "BatchNormalizationLayer_1.beta",
        "BatchNormalizationLayer_1.running_mean",
        "BatchNormalizationLayer_1.running_var",
        "AffineLayer_3.weights",
        "AffineLayer_3.biases",
    ]


def test_two_layers_of_one_name_are_refused_where_names_count():
    net = MultipleLayerModel([layers.AffineLayer(3, 3), layers.AffineLayer(3, 3)])
    for layer in net.layers:
        layer.name = "twin"
    with pytest.raises(ValueError, match="two layers have one name"):
        net.named_arrays()


def test_astype_copies():
    net = model()
    single = net.astype(np.float32)
    assert {a.dtype for a in single.named_arrays().values()} == {np.dtype(np.float32)}
    assert {a.dtype for a in net.named_arrays().values()} == {np.dtype(np.float64)}
    assert not np.shares_memory(single.params[0], net.params[0])


def test_penalties_add_up():
    net = model()
    assert net.params_penalty() == pytest.approx(0.05 * (net.params[0] ** 2).sum())


class Secretive(layers.Layer):
    """Differs between training and evaluation, and does not say so by its class."""

    def fprop(self, inputs, stochastic=True):
        return inputs * stochastic


def test_a_layer_whose_evaluation_would_be_missed_is_refused():
    with pytest.raises(TypeError, match="Secretive takes `stochastic` and is no StochasticLayer"):
        MultipleLayerModel([layers.TanhLayer(), Secretive()])


def test_copies_share_what_the_layers_shared():
    rng = np.random.RandomState(0)
    net = MultipleLayerModel([layers.DropoutLayer(rng), layers.DropoutLayer(rng)])
    single = net.astype(np.float32)
    assert single.layers[0].rng is single.layers[1].rng is not rng


def test_a_copys_parameters_are_not_trained_by_the_originals_rule():
    net, rule = model(), KingmaAdamLearningRule()
    rule.initialise(net.params)
    with pytest.raises(ValueError, match=r"call initialise\(model\.params\)"):
        train_step(Engine(net.astype(np.float32), SumOfSquaredDiffsError()), rule, X, np.ones((5, 2)))


def test_a_parameter_that_is_not_named_is_missed_aloud():
    class Unnamed(Scaling):
        param_names = ()

        @property
        def params(self):
            return [self.scale]

    with pytest.raises(TypeError, match="has 1 params and names 0: set param_names"):
        MultipleLayerModel([Unnamed()]).named_arrays()


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="no Layer"):
        MultipleLayerModel([layers.TanhLayer(), "relu"])
    with pytest.raises(TypeError, match="layers is empty"):
        MultipleLayerModel([])
    twice = layers.TanhLayer()
    with pytest.raises(ValueError, match="there twice"):
        MultipleLayerModel([twice, twice])
    with pytest.raises(DTypeError, match=r"MultipleLayerModel\.fprop: inputs is a list"):
        model().fprop(X.tolist())


class Scaling(layers.LayerWithParameters):
    """A layer as a user would write it, knowing nothing but the coursework's interface."""

    param_names = ("scale",)

    def __init__(self):
        self.scale = np.array([2.0])

    def fprop(self, inputs):
        return inputs * self.scale

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.scale

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [np.array([(inputs * grads_wrt_outputs).sum()])]


def test_a_users_layer_takes_part_in_everything():
    net = MultipleLayerModel([Scaling(), layers.ResidualLayer([Scaling(), layers.TanhLayer()])])
    activations = net.fprop(X)
    np.testing.assert_allclose(activations[-1], 2 * X + np.tanh(4 * X))
    assert len(net.grads_wrt_params(activations, np.ones_like(X))) == 2
    assert list(net.named_arrays()) == ["Scaling_0.scale", "Scaling_1.scale"]
