"""Every schedule against PyTorch's, for 200 epochs."""

import inspect
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'mlp[oracle]'")

from torch.optim import lr_scheduler  # noqa: E402

from mlp import schedulers  # noqa: E402
from mlp.learning_rules import GradientDescentLearningRule, MomentumLearningRule  # noqa: E402

torch.set_num_threads(1)
EPOCHS = 200
COMPARED = set()
rates = st.floats(1e-6, 10.0)
quarters = st.integers(4, 120).map(lambda whole: whole / 4)


def compares(kind):
    """Note that a test compares this kind of schedule, and return the settings of the test."""
    COMPARED.add(kind)
    return settings(derandomize=True, deadline=None, max_examples=50)


def optimiser(learning_rate, momentum=0.0):
    return torch.optim.SGD([torch.zeros(1)], lr=learning_rate, momentum=momentum)


def theirs(sgd, scheduler, key="lr"):
    """Return the optimiser's hyper-parameter in every epoch."""
    values = []
    for _ in range(EPOCHS):
        values.append(sgd.param_groups[0][key])
        sgd.step()
        scheduler.step()
    return values


def ours(scheduler):
    """Return the learning rate of every epoch, as it arrives in the rule."""
    rule, values = GradientDescentLearningRule(1.0), []
    for epoch in range(EPOCHS):
        returned = scheduler.update_learning_rule(rule, epoch)
        assert returned == rule.learning_rate == scheduler.learning_rate_at(epoch)
        values.append(rule.learning_rate)
    return values


def annealing_bounds(minimum, maximum):
    return min(minimum, maximum), max(minimum, maximum)


@compares(schedulers.ConstantLearningRateScheduler)
@given(rates)
def test_constant(rate):
    sgd = optimiser(rate)
    want = theirs(sgd, lr_scheduler.ConstantLR(sgd, factor=1.0, total_iters=EPOCHS // 2))
    assert ours(schedulers.ConstantLearningRateScheduler(rate)) == pytest.approx(want, rel=1e-9, abs=0)


@compares(schedulers.CosineAnnealing)
@given(st.sampled_from([0.0, 1e-7, 2e-5, 0.3]), rates, st.integers(1, 300))
def test_cosine_annealing_also_beyond_its_last_epoch(minimum, maximum, total_epochs):
    minimum, maximum = annealing_bounds(minimum, maximum)
    sgd = optimiser(maximum)
    want = theirs(sgd, lr_scheduler.CosineAnnealingLR(sgd, T_max=total_epochs, eta_min=minimum))
    got = ours(schedulers.CosineAnnealing(minimum, maximum, total_epochs))
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15 * maximum)


def warm_restarts(minimum, maximum, period, discount, expansion):
    """Return PyTorch's rates, its maximum rescaled and its (there whole) periods stretched at each restart."""
    sgd = optimiser(maximum)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(sgd, T_0=1, eta_min=minimum)
    scheduler.T_i, scheduler.T_mult = period, expansion
    values = []
    for _ in range(EPOCHS):
        values.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if scheduler.T_cur + 1 >= scheduler.T_i:
            scheduler.base_lrs[0] *= discount
        scheduler.step()
    return values


@compares(schedulers.CosineAnnealingWithWarmRestarts)
@given(st.sampled_from([0.0, 2e-5, 0.3]), rates, st.integers(1, 250), st.integers(1, 4))
def test_warm_restarts_are_torchs_without_a_discount(minimum, maximum, period, expansion):
    minimum, maximum = annealing_bounds(minimum, maximum)
    sgd = optimiser(maximum)
    want = theirs(sgd, lr_scheduler.CosineAnnealingWarmRestarts(sgd, period, expansion, eta_min=minimum))
    got = ours(schedulers.CosineAnnealingWithWarmRestarts(minimum, maximum, period, 1.0, expansion))
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15 * maximum)


@compares(schedulers.CosineAnnealingWithWarmRestarts)
@given(
    st.sampled_from([0.0, 2e-5, 0.3]),
    rates,
    quarters,
    st.floats(0.0, 2.0),
    st.sampled_from([1.0, 1.25, 1.5, 2.0, 2.5, 3.0]),
)
def test_warm_restarts_with_a_discount_and_fractional_periods(minimum, maximum, period, discount, expansion):
    minimum, maximum = annealing_bounds(minimum, maximum)
    want = warm_restarts(minimum, maximum, period, discount, expansion)
    got = ours(schedulers.CosineAnnealingWithWarmRestarts(minimum, maximum, period, discount, expansion))
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15 * max(want))


@compares(schedulers.ExponentialLearningRateScheduler)
@given(rates, st.floats(0.5, 1e4))
def test_exponential(rate, decay):
    sgd = optimiser(rate)
    want = theirs(sgd, lr_scheduler.ExponentialLR(sgd, gamma=exp(-1 / decay)))
    assert ours(schedulers.ExponentialLearningRateScheduler(rate, decay)) == pytest.approx(want, rel=1e-9, abs=0)


@compares(schedulers.ReciprocalLearningRateScheduler)
@given(rates, st.floats(1e-3, 1e4))
def test_reciprocal(rate, decay):
    sgd = optimiser(rate)
    want = theirs(sgd, lr_scheduler.LambdaLR(sgd, lambda epoch: decay / (decay + epoch)))
    assert ours(schedulers.ReciprocalLearningRateScheduler(rate, decay)) == pytest.approx(want, rel=1e-9, abs=0)


@compares(schedulers.ReciprocalMomentumCoefficientScheduler)
@given(st.floats(1e-3, 1.0), st.floats(0.0, 1.0), st.floats(1.0, 50.0))
def test_reciprocal_momentum(maximum, share, offset):
    growth = share * offset
    sgd = optimiser(maximum)
    want = theirs(sgd, lr_scheduler.LambdaLR(sgd, lambda epoch: (epoch + offset - growth) / (epoch + offset)))
    scheduler = schedulers.ReciprocalMomentumCoefficientScheduler(maximum, growth, offset)
    rule, got = MomentumLearningRule(), []
    for epoch in range(EPOCHS):
        scheduler.update_learning_rule(rule, epoch)
        got.append(rule.mom_coeff)
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15 * maximum)


def test_every_public_scheduler_is_compared():
    public = {
        value
        for name, value in inspect.getmembers(schedulers, inspect.isclass)
        if value.__module__ == schedulers.__name__ and not name.startswith("_")
    }
    assert public - {schedulers.LearningRateScheduler} == COMPARED
