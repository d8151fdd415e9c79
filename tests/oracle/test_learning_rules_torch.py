"""Every learning rule against PyTorch's optimisers, for 200 steps along gradients of very different sizes.

A rule that PyTorch has under another convention is compared with PyTorch's optimiser, whose hyper-parameters are set
anew before each step; only where epsilon stands inside the root are there a few lines of PyTorch instead.
"""

import inspect
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'mlp[oracle]'")

from mlp import learning_rules as rules  # noqa: E402
from mlp import schedulers  # noqa: E402

torch.set_num_threads(1)
STEPS = 200
SHAPES = [(3, 4), (5,), (2, 1, 3), (1,), (7,)]


def powers_of_ten(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


rates, epsilons = powers_of_ten(-5, 0), powers_of_ten(-12, -1)
coefficients = st.floats(0.001, 1.0)
betas = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]), st.floats(0.0, 0.9999))
adam_arguments = {
    "learning_rate": rates,
    "beta_1": betas,
    "beta_2": betas,
    "epsilon": epsilons,
    "bias_correction": st.booleans(),
}


def torch_sgd(rule, tensors):
    """Return (optimiser, what to do before a step): PyTorch's buffer is -m / lr, so it follows a change of lr."""
    momentum = getattr(rule, "mom_coeff", 0.0)
    nesterov = isinstance(rule, rules.NesterovMomentumLearningRule)
    sgd = torch.optim.SGD(tensors, lr=rule.learning_rate, momentum=momentum, nesterov=nesterov)
    (group,) = sgd.param_groups

    def follow():
        for state in sgd.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].mul_(group["lr"] / rule.learning_rate)
        group["lr"], group["momentum"] = rule.learning_rate, getattr(rule, "mom_coeff", 0.0)

    return sgd, follow


def torch_adam(rule, tensors):
    """Return (optimiser, what to do before a step) for each of our forms of Adam.

    PyTorch's step is lr / c1 m1 / (sqrt(m2) / c2 + eps), with c1 = 1 - b1^t and c2 = sqrt(1 - b2^t).
    """
    beta_1, beta_2 = rule.beta_1, rule.beta_2
    decaying = isinstance(rule, rules.AdamLearningRuleWithWeightDecay)
    kind = torch.optim.AdamW if decaying else torch.optim.Adam
    adam = kind(tensors, lr=rule.learning_rate, betas=(beta_1, beta_2), eps=rule.epsilon, weight_decay=0.0)
    (group,) = adam.param_groups
    initial_rate = rule.learning_rate

    def follow():
        step = rule.step_count + 1
        correction_1, correction_2 = 1 - beta_1**step, sqrt(1 - beta_2**step)
        group["lr"] = rule.learning_rate
        if not (isinstance(rule, rules.KingmaAdamLearningRule) and rule.bias_correction):
            group["eps"] = rule.epsilon / correction_2
        if not rule.bias_correction:
            group["lr"] *= correction_1 / correction_2
        if decaying:
            group["weight_decay"] = rule.learning_rate / initial_rate * rule.weight_decay / group["lr"]

    return adam, follow


def torch_adagrad(rule, tensors):
    if rule.epsilon_inside_root:
        return InsideRoot(rule, tensors, 1.0, 1.0), lambda: None
    adagrad = torch.optim.Adagrad(tensors, lr=rule.learning_rate, eps=rule.epsilon)
    return adagrad, lambda: adagrad.param_groups[0].update(lr=rule.learning_rate)


def torch_rmsprop(rule, tensors):
    if rule.epsilon_inside_root:
        return InsideRoot(rule, tensors, rule.beta, 1 - rule.beta), lambda: None
    rmsprop = torch.optim.RMSprop(tensors, lr=rule.learning_rate, alpha=rule.beta, eps=rule.epsilon)
    return rmsprop, lambda: rmsprop.param_groups[0].update(lr=rule.learning_rate)


class InsideRoot:
    """s <- keep s + take g^2, p <- p - lr g / sqrt(s + epsilon)."""

    def __init__(self, rule, tensors, keep, take):
        self.rule, self.tensors, self.keep, self.take = rule, tensors, keep, take
        self.sums = [torch.zeros_like(tensor) for tensor in tensors]

    def step(self):
        for tensor, total in zip(self.tensors, self.sums, strict=True):
            total.mul_(self.keep).addcmul_(tensor.grad, tensor.grad, value=self.take)
            tensor.data.addcmul_(tensor.grad, torch.rsqrt(total + self.rule.epsilon), value=-self.rule.learning_rate)


TWINS = {
    rules.GradientDescentLearningRule: (torch_sgd, {"learning_rate": rates}),
    rules.MomentumLearningRule: (torch_sgd, {"learning_rate": rates, "mom_coeff": coefficients}),
    rules.NesterovMomentumLearningRule: (torch_sgd, {"learning_rate": rates, "mom_coeff": coefficients}),
    rules.AdamLearningRule: (torch_adam, adam_arguments),
    rules.KingmaAdamLearningRule: (torch_adam, adam_arguments),
    rules.AdamLearningRuleWithWeightDecay: (torch_adam, {**adam_arguments, "weight_decay": st.floats(0.0, 0.2)}),
    rules.AdaGradLearningRule: (
        torch_adagrad,
        {"learning_rate": rates, "epsilon": epsilons, "epsilon_inside_root": st.booleans()},
    ),
    rules.RMSPropLearningRule: (
        torch_rmsprop,
        {"learning_rate": rates, "beta": betas, "epsilon": epsilons, "epsilon_inside_root": st.booleans()},
    ),
}


def schedules(rule):
    """Return how hyper-parameters change on the way: nothing, the learning rate, or a momentum too."""
    rate = rule.learning_rate
    choices = [
        (),
        (schedulers.CosineAnnealing(rate / 50, rate, STEPS),),
        (schedulers.ExponentialLearningRateScheduler(rate, 40.0),),
        (schedulers.CosineAnnealingWithWarmRestarts(rate / 10, rate, 30, 0.8, 2),),
    ]
    if hasattr(rule, "mom_coeff"):
        choices.append((schedulers.ReciprocalMomentumCoefficientScheduler(0.95), *choices[1]))
    return st.sampled_from(choices)


def sizes(rng):
    """Return one size of gradient per array: 1, tiny, huge, huge to begin with and tiny later, and all at once."""
    falling = 10.0 ** np.linspace(8, -8, STEPS)
    mixed = 10.0 ** rng.uniform(-10, 8, (STEPS, *SHAPES[4]))
    return [np.ones(STEPS), np.full(STEPS, 1e-10), np.full(STEPS, 1e8), falling, mixed]


def gradients(rng):
    """Yield the gradients of every step, one in eight numbers 0."""
    scales = sizes(rng)
    for step in range(STEPS):
        yield [
            rng.standard_normal(shape) * (rng.uniform(size=shape) < 0.875) * scale[step]
            for shape, scale in zip(SHAPES, scales, strict=True)
        ]


@pytest.mark.parametrize("kind", TWINS, ids=lambda kind: kind.__name__)
@settings(derandomize=True, deadline=None, max_examples=30)
@given(data=st.data())
def test_two_hundred_steps_stay_together(kind, data):
    make_twin, arguments = TWINS[kind]
    rule = data.draw(st.builds(kind, **arguments), label="rule")
    changes = data.draw(schedules(rule), label="schedules")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), label="seed"))
    params = [rng.standard_normal(shape) * data.draw(st.sampled_from([0.0, 1e-6, 1.0])) for shape in SHAPES]
    rule.initialise(params)
    tensors = [torch.tensor(param, requires_grad=True) for param in params]
    optimiser, follow = make_twin(rule, tensors)
    largest = [np.abs(param) for param in params]
    for step, grads in enumerate(gradients(rng)):
        for change in changes:
            change.update_learning_rule(rule, step)
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.from_numpy(grad.copy())
        follow()
        optimiser.step()
        rule.update_params(grads)
        for i, (ours, tensor) in enumerate(zip(params, tensors, strict=True)):
            theirs = tensor.detach().numpy()
            largest[i] = np.maximum(largest[i], np.abs(theirs))
            assert (np.abs(ours - theirs) <= 1e-9 * largest[i]).all(), f"step {step}, parameter {i}"


def test_every_public_learning_rule_is_compared():
    public = {
        value
        for name, value in inspect.getmembers(rules, inspect.isclass)
        if value.__module__ == rules.__name__ and not name.startswith("_")
    }
    assert public == set(TWINS)
