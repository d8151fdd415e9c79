from math import cos, exp, pi

import pytest

from mlp import schedulers
from mlp.learning_rules import GradientDescentLearningRule, MomentumLearningRule


def rates(scheduler, epochs):
    rule = GradientDescentLearningRule(1.0)
    returned = [scheduler.update_learning_rule(rule, epoch) for epoch in epochs]
    assert rule.learning_rate == returned[-1]
    return returned


def test_cosine_annealing_is_the_reports():
    got = rates(schedulers.CosineAnnealing(2e-5, 1e-3, 100), range(100))
    assert got == pytest.approx([2e-5 + (1e-3 - 2e-5) * (1 + cos(pi * e / 100)) / 2 for e in range(100)])
    assert got[0] == pytest.approx(1e-3)


def test_warm_restarts_are_stateless_in_the_epoch():
    scheduler = schedulers.CosineAnnealingWithWarmRestarts(0.1, 1.0, 10, 0.5, 2.0)

    def rate(since, period, maximum):
        return 0.1 + 0.5 * (maximum - 0.1) * (1 + cos(pi * since / period))

    want = {0: rate(0, 10, 1), 9: rate(9, 10, 1), 10: rate(0, 20, 0.5), 29: rate(19, 20, 0.5), 30: rate(0, 40, 0.25)}
    assert rates(scheduler, [0, 9, 10, 29, 30]) == pytest.approx(list(want.values()))
    assert rates(scheduler, [30, 0]) == pytest.approx([want[30], want[0]])
    assert scheduler.total_epochs_per_period == 10


def test_exponential_and_reciprocal():
    assert rates(schedulers.ExponentialLearningRateScheduler(0.5, 4), [0, 8]) == pytest.approx([0.5, 0.5 * exp(-2)])
    assert rates(schedulers.ReciprocalLearningRateScheduler(0.5, 4), [0, 8]) == pytest.approx([0.5, 0.5 / 3])
    assert rates(schedulers.ConstantLearningRateScheduler(0.2), [0, 5]) == [0.2, 0.2]


def test_momentum_grows_towards_its_maximum():
    rule, scheduler = MomentumLearningRule(), schedulers.ReciprocalMomentumCoefficientScheduler()
    scheduler.update_learning_rule(rule, 0)
    assert rule.mom_coeff == pytest.approx(0.99 * 0.4)
    scheduler.update_learning_rule(rule, 10**6)
    assert rule.mom_coeff == pytest.approx(0.99, abs=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedulers.ConstantLearningRateScheduler(0.0), "learning_rate is 0.0"),
        (lambda: schedulers.CosineAnnealing(0.0, 1.0, 0), "total_epochs is 0"),
        (lambda: schedulers.CosineAnnealing(-1.0, 1.0, 5), "min_learning_rate is -1.0"),
        (lambda: schedulers.CosineAnnealingWithWarmRestarts(0, 1, 0, 1, 1), "total_iters_per_period is 0"),
        (lambda: schedulers.ReciprocalMomentumCoefficientScheduler(1.5), "max_mom_coeff is 1.5"),
        (lambda: schedulers.ReciprocalMomentumCoefficientScheduler(0.9, 9.0, 5.0), "growth_param is 9.0"),
        (lambda: rates(schedulers.CosineAnnealing(0.0, 1.0, 5), [-1]), "epoch_number is -1"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
