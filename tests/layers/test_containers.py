"""Layers made of layers: chains, residual connections, branches."""

import numpy as np
import pytest

from mlp import layers, penalties
from mlp.checks import ShapeError
from mlp.layers.base import LayerWithParameters, StochasticLayer
from mlp.layers.chain import chain_backprop, chain_fprop, set_chain_params
from mlp.models import SingleLayerModel
from mlp.testing import check_gradients

X = np.random.default_rng(0).standard_normal((2, 3))


def affine(inputs, outputs, **options):
    return layers.AffineLayer(inputs, outputs, **options)


def reshaped(shape):
    return layers.ReshapeLayer(shape)


CONTAINERS = [
    (lambda: layers.ChainLayer([affine(3, 3)]), "ChainLayer"),
    (lambda: layers.ResidualLayer([affine(3, 3)]), "ResidualLayer"),
    (lambda: layers.AdditionLayer([affine(3, 3), []]), "AdditionLayer"),
    (lambda: layers.ConcatenationLayer([affine(3, 2), affine(3, 1)]), "ConcatenationLayer"),
    (lambda: layers.MatrixProductLayer([[reshaped((1, 3))], [affine(3, 9), reshaped((3, 3))]]), "MatrixProductLayer"),
]
every_container = pytest.mark.parametrize(("build", "who"), CONTAINERS, ids=[who for _, who in CONTAINERS])


@every_container
@pytest.mark.parametrize("method", ["bprop", "backprop", "grads_wrt_params"])
def test_gradients_of_another_shape_are_refused_by_the_container(build, who, method):
    layer = build()
    outputs = layer.fprop(X)
    shape = str(outputs.shape)
    for wrong in (np.ones((*outputs.shape, 2)), np.ones(outputs.shape[1:]), np.ones((5, *outputs.shape[1:]))):
        arguments = (X, wrong) if method == "grads_wrt_params" else (X, outputs, wrong)
        with pytest.raises(ShapeError) as caught:
            getattr(layer, method)(*arguments)
        said = f"{who}.bprop: grads_wrt_outputs has shape {wrong.shape}, expected {shape}: "
        assert str(caught.value).startswith(said)


@every_container
def test_a_containers_parameters_are_its_layers(build, who):
    layer = build()
    inner = [leaf for leaf in SingleLayerModel(layer).layers[0].children() if isinstance(leaf, LayerWithParameters)]
    assert len(layer.params) == sum(len(part.params) for part in inner) > 0
    assert all(
        one is other for one, other in zip(layer.params, [p for part in inner for p in part.params], strict=True)
    )
    assert layer.own_param_names() == ()
    with pytest.raises(ShapeError) as caught:
        layer.params = layer.params[1:]
    count = len(layer.params)
    assert str(caught.value) == f"{layer!r}.params: {count - 1} arrays, expected {count}"
    with pytest.raises(ShapeError) as caught:
        layer.params = [*layer.params[:-1], np.ones(17)]
    last = layer.params[-1].shape
    assert str(caught.value) == (
        f"{layer!r}.params[{count - 1}] has shape (17,), expected {last}: axis 0 is 17, not {last[0]}"
    )


@every_container
def test_the_lowest_layers_gradient_is_spared_where_nobody_wants_it(build, who):
    layer = build()
    outputs = layer.fprop(X)
    wanted, grads = layer.backprop(X, outputs, np.ones_like(outputs))
    spared, same = layer.backprop(X, outputs, np.ones_like(outputs), need_inputs=False)
    assert wanted.shape == X.shape
    assert spared is None
    for one, other, alone in zip(grads, same, layer.grads_wrt_params(X, np.ones_like(outputs)), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, alone)


def test_penalties_of_all_layers_are_added_up():
    penalty = penalties.L2Penalty(0.5)
    one, other = affine(3, 3, weights_penalty=penalty), affine(3, 3, weights_penalty=penalty)
    chain = layers.ChainLayer([one, layers.TanhLayer(), layers.ResidualLayer([other])])
    assert chain.params_penalty() == pytest.approx(penalty(one.weights) + penalty(other.weights))
    assert layers.ChainLayer([layers.TanhLayer()]).params_penalty() == 0


def test_a_chain_remembers_every_activation_and_a_residual_adds_its_inputs():
    inner = [layers.TanhLayer(), affine(3, 3)]
    activations = chain_fprop(inner, X, True)
    assert activations[0] is X
    np.testing.assert_array_equal(activations[1], np.tanh(X))
    np.testing.assert_array_equal(layers.ResidualLayer(inner).fprop(X), X + activations[2])
    through, grads = chain_backprop(inner, activations, X, True)
    assert through.shape == X.shape
    assert [grad.shape for grad in grads] == [(3, 3), (3,)]
    assert chain_backprop(inner, activations, X, False)[0] is None
    with pytest.raises(ShapeError) as caught:
        chain_backprop(inner, activations[:-1], X, True)
    assert str(caught.value) == "2 activations for 2 layers, expected all that fprop returned"


class Recording(layers.IdentityLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        self.needed, self.given = need_inputs, grads_wrt_outputs
        return super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)


def test_only_the_lowest_layer_is_told_that_nobody_wants_its_gradient():
    inner = [Recording(), Recording(), Recording()]
    chain = layers.ChainLayer(inner)
    outputs = chain.fprop(X)
    chain.backprop(X, outputs, X, need_inputs=False)
    assert [layer.needed for layer in inner] == [False, True, True]
    chain.bprop(X, outputs, X)
    assert [layer.needed for layer in inner] == [True, True, True]
    assert chain.grads_wrt_params(X, X) == []
    assert [layer.needed for layer in inner] == [False, True, True]
    chain = layers.ChainLayer([layers.BatchNormalizationLayer(3)])  # which gives it all the same
    assert chain.backprop(X, chain.fprop(X), X, need_inputs=False)[0] is None
    branches = layers.AdditionLayer([Recording(), Recording()])
    outputs = branches.fprop(X)
    assert branches.backprop(X, outputs, X, need_inputs=False) == (None, [])
    assert [layer.needed for layer in branches.branches] == [False, False]
    branches.bprop(X, outputs, X)
    assert branches.grads_wrt_params(X, X) == []
    assert [layer.needed for layer in branches.branches] == [False, False]


class Forgetful(layers.AffineLayer):
    """A layer whose author forgot a return."""

    forgets = ""

    def bprop(self, *arguments):
        return None if self.forgets == "bprop" else super().bprop(*arguments)

    def grads_wrt_params(self, *arguments):
        return None if self.forgets == "grads_wrt_params" else super().grads_wrt_params(*arguments)


@pytest.mark.parametrize("method", ["bprop", "grads_wrt_params"])
def test_a_forgotten_return_is_said(method):
    forgetful = Forgetful(3, 3)
    chain = layers.ChainLayer([layers.TanhLayer(), forgetful])
    outputs = chain.fprop(X)
    assert len(chain.backprop(X, outputs, X)[1]) == 2
    forgetful.forgets = method
    with pytest.raises(TypeError) as caught:
        chain.backprop(X, outputs, X)
    assert str(caught.value) == f"{forgetful!r}.{method} returned None: is a return missing?"
    lowest = layers.ChainLayer([forgetful])
    outputs = lowest.fprop(X)
    if method == "bprop":  # nobody wants it there
        assert len(lowest.grads_wrt_params(X, X)) == 2


def test_a_residual_that_changes_the_shape_is_refused():
    with pytest.raises(ShapeError) as caught:
        layers.ResidualLayer([affine(3, 1)]).fprop(X)
    assert str(caught.value) == ("ResidualLayer.fprop: F(x) has shape (2, 1) and x (2, 3): F must keep the shape")


def test_a_layer_that_hides_its_mode_is_refused():
    class Hiding(layers.Layer):
        def fprop(self, inputs, stochastic=True):
            return inputs

    class Showing(StochasticLayer):
        def fprop(self, inputs, stochastic=True):
            return inputs + stochastic

    with pytest.raises(TypeError) as caught:
        layers.ChainLayer([layers.TanhLayer(), Hiding()])
    assert str(caught.value) == (
        "ChainLayer: Hiding takes `stochastic` and is no StochasticLayer, so evaluation would miss it"
    )
    for container in (layers.ChainLayer([Showing()]), layers.AdditionLayer([Showing()])):
        np.testing.assert_array_equal(container.fprop(X), X + 1)
        np.testing.assert_array_equal(container.fprop(X, stochastic=False), X)


def test_values_for_a_chain_are_counted():
    with pytest.raises(ShapeError) as caught:
        set_chain_params("model", [affine(3, 2)], [np.ones(2)])
    assert str(caught.value) == "model.params: 1 arrays, expected 2"


def test_identity_is_the_very_array():
    layer = layers.IdentityLayer()
    assert layer.fprop(X) is X
    assert layer.bprop(X, X, X) is X


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: layers.AdditionLayer([affine(3, 2), []]),
            "AdditionLayer.fprop: branches give shapes [(2, 2), (2, 3)], which do not broadcast",
        ),
        (
            lambda: layers.ConcatenationLayer([affine(3, 2), []], axis=0),
            "ConcatenationLayer([AffineLayer(input_dim=3, output_dim=2), IdentityLayer], axis=0).fprop: branches give "
            "shapes [(2, 2), (2, 3)]: only axis 0 may differ",
        ),
        (
            lambda: layers.ConcatenationLayer([[], [reshaped((3, 1))]], axis=2),
            "ConcatenationLayer([IdentityLayer, ChainLayer([ReshapeLayer(output_shape=(3, 1))])], axis=2).fprop: "
            "branches give shapes [(2, 3), (2, 3, 1)], which have no axis 2",
        ),
        *(
            (
                lambda axis=axis: layers.ConcatenationLayer([layers.TanhLayer(), []], axis=axis),
                f"ConcatenationLayer([TanhLayer, IdentityLayer], axis={axis}).fprop: branches give shapes "
                f"[(2, 3), (2, 3)], which have no axis {axis}",
            )
            for axis in (2, -3)
        ),
        (
            lambda: layers.ConcatenationLayer([[reshaped((3, 1))], []]),
            "ConcatenationLayer([ChainLayer([ReshapeLayer(output_shape=(3, 1))]), IdentityLayer]).fprop: branches give "
            "shapes [(2, 3, 1), (2, 3)]: only axis 1 may differ",
        ),
        (
            lambda: layers.MatrixProductLayer([[], affine(3, 4)]),
            "MatrixProductLayer.fprop: branches give shapes (2, 3) and (2, 4), which have no matrix product",
        ),
        (
            lambda: layers.MatrixProductLayer(
                [[affine(3, 6), reshaped((2, 1, 3))], [affine(3, 9), reshaped((3, 3, 1))]]
            ),
            "MatrixProductLayer.fprop: branches give shapes [(2, 2), (2, 3)], which do not broadcast",
        ),
    ],
)
def test_branches_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ShapeError) as caught:
        build().fprop(X)
    assert str(caught.value) == message


class Fixed(layers.LayerWithParameters):
    """A branch of any shape: its parameter, times the sum of the inputs."""

    param_names = ("array",)

    def __init__(self, *shape):
        self.array = np.random.RandomState(len(shape)).standard_normal(shape)

    def fprop(self, inputs):
        return self.array * inputs.sum()

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.full_like(inputs, (grads_wrt_outputs * self.array).sum())

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs * inputs.sum()]


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((4, 3), (3,)),
    ((4, 3), (3, 2)),
    ((3,), (5, 3, 2)),
    ((5, 4, 3), (3,)),
    ((5, 4, 3), (3, 2)),
    ((4, 3), (5, 3, 2)),
    ((1, 4, 3), (5, 3, 2)),
    ((6, 1, 4, 3), (5, 3, 2)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matrix_products_follow_numpys_rules_for_any_axes(left, right):
    layer = layers.MatrixProductLayer([Fixed(*left), Fixed(*right)])
    factor, other = (branch.array * X.sum() for branch in layer.branches)
    outputs = layer.fprop(X)
    np.testing.assert_array_equal(outputs, factor @ other)
    assert isinstance(outputs, np.ndarray)
    report = check_gradients(layer, X.shape, methods=["complex step"], directions=20, conduct=False)
    assert report.worst <= 1e-11


@pytest.mark.parametrize(
    "shapes", [((3,), (2, 3)), ((2, 3), (2, 1)), ((4, 1, 3), (2, 1)), ((1,), (1, 1)), ((4, 3, 1), (1, 1))]
)
def test_sums_broadcast_as_numpy_does(shapes):
    layer = layers.AdditionLayer([Fixed(*shape) for shape in shapes])
    np.testing.assert_array_equal(layer.fprop(X), sum(branch.array * X.sum() for branch in layer.branches))
    report = check_gradients(layer, X.shape, methods=["complex step"], directions=20, conduct=False)
    assert report.worst <= 1e-11


def test_one_branch_is_that_branch_and_gets_the_very_gradient():
    for kind in (layers.AdditionLayer, layers.ConcatenationLayer):
        layer = kind([Recording()])
        outputs = layer.fprop(X)
        np.testing.assert_array_equal(outputs, X)
        np.testing.assert_array_equal(layer.bprop(X, outputs, outputs), X)
    branches = layers.AdditionLayer([Recording(), Recording()])
    branches.bprop(X, branches.fprop(X), outputs)
    assert all(branch.given is outputs for branch in branches.branches)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_concatenation_is_numpys(axis):
    layer = layers.ConcatenationLayer([Fixed(2, 3, 4), Fixed(2, 3, 4), Fixed(2, 3, 4)], axis=axis)
    expected = np.concatenate([branch.array * X.sum() for branch in layer.branches], axis=axis)
    np.testing.assert_array_equal(layer.fprop(X), expected)
    report = check_gradients(layer, X.shape, methods=["complex step"], directions=20, conduct=False)
    assert report.worst <= 1e-11
