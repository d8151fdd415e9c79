"""Our networks against the same networks in PyTorch, in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'mlp[oracle]'")

from mlp.errors import CrossEntropySoftmaxError  # noqa: E402
from mlp.learning_rules import KingmaAdamLearningRule  # noqa: E402
from mlp.models import vgg  # noqa: E402
from mlp.schedulers import CosineAnnealing  # noqa: E402

from .torch_vgg import NETWORKS, copy_of, running_statistics  # noqa: E402

networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def build(network):
    model = vgg(*network, dtype=np.float64, rng=np.random.RandomState(7))
    return model, copy_of(model, *network)


def batch(seed, size):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((size, 3, 32, 32)), rng.integers(0, 100, size)


def relative(ours, theirs):
    theirs = theirs.detach().numpy()
    scale = np.abs(theirs).max()
    return np.abs(ours - theirs).max() / scale if scale else np.abs(ours).max()


def is_idle(network, layer, key):
    """Return whether this is a bias before a batch normalisation: it changes nothing, its true gradient is 0."""
    return network[1] and layer.startswith("reduction") and key == "biases"


@networks
@pytest.mark.parametrize("size", [2, 5])
def test_outputs_and_all_gradients_agree(network, size):
    model, twin = build(network)
    inputs, labels = batch(1, size)
    theirs = torch.from_numpy(inputs).requires_grad_()
    outputs = twin(theirs)
    loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels))
    loss.backward()

    error = CrossEntropySoftmaxError()
    activations = model.fprop(inputs)
    grads_wrt_inputs, grads = model.bprop(activations, error.grad(activations[-1], labels))
    assert error(activations[-1], labels) == pytest.approx(float(loss.detach()), rel=1e-12)
    assert relative(activations[-1], outputs) < 1e-10
    assert relative(grads_wrt_inputs, theirs.grad) < 1e-10
    for (layer, key, _), ours, param in zip(model.param_keys(), grads, twin.params_in_order(), strict=True):
        if is_idle(network, layer, key):
            assert np.abs(ours).max() < 1e-12
            assert param.grad.abs().max() < 1e-12
        else:
            assert relative(ours, param.grad) < 1e-10, f"{layer}.{key}"


@networks
def test_evaluation_mode_and_running_statistics_agree(network):
    model, twin = build(network)
    for seed in range(3):
        inputs, _ = batch(seed, 4)
        model.fprop(inputs)
        twin(torch.from_numpy(inputs))
    for (mean, var), norm in zip(running_statistics(model), twin.norms_in_order(), strict=True):
        assert relative(mean, norm.running_mean) < 1e-10
        assert relative(var, norm.running_var) < 1e-10
    inputs, _ = batch(9, 4)
    twin.eval()
    assert relative(model.fprop(inputs, evaluation=True)[-1], twin(torch.from_numpy(inputs))) < 1e-10


@networks
def test_fifty_adam_steps_with_cosine_annealing_stay_together(network):
    model, twin = build(network)
    error, rule, schedule = (
        CrossEntropySoftmaxError(),
        KingmaAdamLearningRule(1e-3),
        CosineAnnealing(2e-5, 1e-3, 10),
    )
    rule.initialise(model.params)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=10, eta_min=2e-5)
    # Without residual connections VGG38 BN is chaotic: rounding errors grow until an activation changes its sign, after
    # which two right programs part (on most seeds, by 1e-2 in 50 steps). So its batches are eight examples of a seed
    # where none does, and the biases before a batch normalisation, whose gradient is 0 but for rounding errors that
    # Adam would blow up, stay where they are in both programs.
    size, first = (8, 6000) if network == NETWORKS["vgg38_bn"] else (2, 0)
    idle = [i for i, (layer, key, _) in enumerate(model.param_keys()) if is_idle(network, layer, key)]
    for step in range(50):
        if step % 5 == 0:
            schedule.update_learning_rule(rule, step // 5)
        inputs, labels = batch(first + step, size)
        activations = model.fprop(inputs)
        grads = model.grads_wrt_params(activations, error.grad(activations[-1], labels))
        adam.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.from_numpy(inputs)), torch.from_numpy(labels)).backward()
        for i in idle:
            grads[i][...] = 0
            twin.params_in_order()[i].grad.zero_()
        rule.update_params(grads)
        adam.step()
        if step % 5 == 4:
            annealing.step()
    for (layer, key, _), ours, param in zip(model.param_keys(), model.params, twin.params_in_order(), strict=True):
        assert np.abs(ours - param.detach().numpy()).max() < 1e-8, f"{layer}.{key}"
    for (mean, var), norm in zip(running_statistics(model), twin.norms_in_order(), strict=True):
        assert relative(mean, norm.running_mean) < 1e-8
        assert relative(var, norm.running_var) < 1e-8
