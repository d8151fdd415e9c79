"""Every public layer against PyTorch: outputs, all gradients and running statistics, in float64."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'mlp[oracle]'")

import torch.nn.functional as F  # noqa: E402

from mlp import layers  # noqa: E402
from mlp.layers.base import forward, walk  # noqa: E402

from .torch_twins import KINKED, LARGE, TWINS, Twin, layer_params, tensor, windows  # noqa: E402

drawn = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}


def channels_last(x):
    axis = min(1, x.ndim - 1)
    return np.moveaxis(np.moveaxis(x, axis, -1).copy(), -1, axis)


LAYOUTS = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "channels-last": channels_last,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
}


def numbers(data, rng):
    """Return a function of a shape that gives inputs, or gradients, of one size and layout."""
    scale, shift = data.draw(st.sampled_from([1.0, 0.01, 30.0])), data.draw(st.sampled_from([0.0, 0.0, 3.0, -3.0]))
    layout = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))]
    return lambda shape: layout(scale * (rng.standard_normal(shape) + shift)) if shape else np.asarray(rng.normal())


def assert_close(what, got, want):
    want = want.detach().numpy()
    assert got.shape == want.shape, what
    assert got.dtype == np.float64, what
    difference = np.abs(got - want).max(initial=0)
    assert difference <= 1e-10 * max(1, np.abs(want).max(initial=0)), f"{what} differs by {difference}"


def compare(twin, rng, draw_inputs, draw_upstream):
    """Assert that a layer, with random parameters, does what its twin does, in training and then in the twin's mode."""
    layer = twin.layer
    if layer_params(layer):
        layer.params = [rng.standard_normal(param.shape) for param in layer.params]
    params = [tensor(param, requires_grad=True) for param in layer_params(layer)]
    for _ in range(twin.rounds):
        inputs = draw_inputs(twin.shape)
        forward(layer, inputs, True)
        twin.function(tensor(inputs), params, True)

    inputs = draw_inputs(twin.shape)
    their_inputs = tensor(inputs, requires_grad=True)
    outputs = forward(layer, inputs, twin.training)
    their_outputs = twin.function(their_inputs, params, twin.training)
    assert_close("outputs", outputs, their_outputs)
    upstream = draw_upstream(outputs.shape)
    their_outputs.backward(tensor(upstream))

    grads_wrt_inputs, grads = layer.backprop(inputs, outputs, upstream)
    assert_close("gradient by inputs", grads_wrt_inputs, their_inputs.grad)
    assert_close("bprop", layer.bprop(inputs, outputs, upstream), their_inputs.grad)
    of_params = [grads, layer.backprop(inputs, outputs, upstream, need_inputs=False)[1]]
    if isinstance(layer, layers.LayerWithParameters):
        of_params.append(layer.grads_wrt_params(inputs, upstream))
    for grads in of_params:
        for i, (got, param) in enumerate(zip(grads, params, strict=True)):
            assert_close(f"gradient by parameter {i}", got, param.grad)
    states = [getattr(leaf, name) for leaf in walk(layer) for name in leaf.state_names]
    for i, (got, wanted) in enumerate(zip(states, twin.states, strict=True)):
        assert_close(f"state {i}", got, wanted)


@pytest.mark.parametrize("name", TWINS)
@drawn
@given(data=st.data())
def test_a_layer_is_its_twin(name, data):
    twin = data.draw(TWINS[name], label="twin")
    assert type(twin.layer).__name__ == name
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), label="seed"))
    compare(twin, rng, numbers(data, rng), numbers(data, rng))


@pytest.mark.parametrize("name", KINKED)
@drawn
@given(data=st.data())
def test_at_kinks_and_ties_the_gradient_is_torchs(name, data):
    twin = data.draw(KINKED[name], label="twin")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), label="seed"))
    compare(twin, rng, lambda shape: rng.integers(-1, 2, shape).astype(np.float64), rng.standard_normal)


@pytest.mark.parametrize("build", LARGE.values(), ids=LARGE.keys())
def test_a_convolution_of_a_large_batch_is_its_twin(build):
    rng = np.random.default_rng(1)
    compare(build(), rng, rng.standard_normal, rng.standard_normal)


def test_a_branch_may_give_a_gradient_by_the_inputs_that_the_others_leave_out():
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)

    def function(inputs, params, training):
        gamma, beta, *affine = params
        return F.batch_norm(inputs, mean, var, gamma, beta, training) + F.linear(inputs, *affine)

    layer = layers.AdditionLayer([layers.BatchNormalizationLayer(2), layers.AffineLayer(2, 2)])
    rng = np.random.default_rng(2)
    compare(Twin(layer, (3, 2), function, (mean, var)), rng, rng.standard_normal, rng.standard_normal)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_branches_of_whole_numbers_are_torchs(axis):
    inputs = np.random.default_rng(3).integers(-(2**40), 2**40, (3, 3))
    theirs = torch.from_numpy(inputs)
    for layer, want in (
        (layers.AdditionLayer([[], layers.IdentityLayer()]), theirs + theirs),
        (layers.ConcatenationLayer([[], layers.ReluLayer()], axis), torch.cat([theirs, theirs.relu()], axis)),
        (layers.MatrixProductLayer([[], []]), theirs @ theirs),
    ):
        got = forward(layer, inputs, False)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want.numpy())


def test_every_public_layer_has_a_twin():
    assert set(layers.__all__) - ABSTRACT == set(TWINS)


@pytest.mark.parametrize("axes", [1, 2, 3])
@drawn
@given(data=st.data())
def test_the_twins_own_pooling_is_torchs_where_torch_has_it(axes, data):
    pooling, shape = data.draw(windows(axes, torchs=True))
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    assert torch.equal(pooling.maxima(inputs), pooling.torchs_maxima(inputs))
    if pooling.are_torchs(shape[2:], average=True):
        for include in (True, False):
            got, want = pooling.means(inputs, include), pooling.torchs_means(inputs, include)
            torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
