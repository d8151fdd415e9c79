"""Schedules: ``scheduler.update_learning_rule(rule, epoch)`` sets a rule's hyper-parameters at the start of an epoch.

Epochs are counted from 0.
"""

from math import cos, exp, pi
from typing import Protocol

from mlp.checks import check_number, check_positive_int


class _LearningRule(Protocol):
    """What a learning-rate schedule sets."""

    learning_rate: float


class _MomentumLearningRule(Protocol):
    """What a momentum schedule sets."""

    mom_coeff: float


class LearningRateScheduler:
    """A learning rate as a function of the epoch. A subclass writes `learning_rate_at`."""

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate of this epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no learning_rate_at")

    def update_learning_rule(self, learning_rule: _LearningRule, epoch_number: int) -> float:
        """Set the rule's learning rate for this epoch, and return it."""
        epoch = check_positive_int(f"{type(self).__name__}: epoch_number", epoch_number, minimum=0)
        learning_rule.learning_rate = self.learning_rate_at(epoch)
        return learning_rule.learning_rate


class ConstantLearningRateScheduler(LearningRateScheduler):
    """The same learning rate in every epoch."""

    def __init__(self, learning_rate: float) -> None:
        name = "ConstantLearningRateScheduler: learning_rate"
        self.learning_rate = check_number(name, learning_rate, 0.0, low_open=True)

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate."""
        return self.learning_rate


class CosineAnnealing(LearningRateScheduler):
    """lr(e) = min + (max - min) (1 + cos(pi e / total_epochs)) / 2, for e = 0 .. total_epochs.

    Per epoch, without restarts. Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR
    2017, equation 5.

    >>> from mlp.schedulers import CosineAnnealing
    >>> [round(CosineAnnealing(0.0, 1.0, 4).learning_rate_at(epoch), 3) for epoch in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, min_learning_rate: float, max_learning_rate: float, total_epochs: int) -> None:
        self.min_learning_rate = check_number("CosineAnnealing: min_learning_rate", min_learning_rate, 0.0)
        name = "CosineAnnealing: max_learning_rate"
        self.max_learning_rate = check_number(name, max_learning_rate, self.min_learning_rate)
        self.total_epochs = check_positive_int("CosineAnnealing: total_epochs", total_epochs)

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate of this epoch."""
        span = self.max_learning_rate - self.min_learning_rate
        return self.min_learning_rate + span * (1.0 + cos(pi * epoch_number / self.total_epochs)) / 2.0


class CosineAnnealingWithWarmRestarts(LearningRateScheduler):
    """Cosine annealing that restarts, each time from a lower maximum and for a longer period.

        lr = min + (max discount^n - min) (1 + cos(pi t / T)) / 2

    after n restarts, t epochs after the last; T starts at `total_iters_per_period` and is multiplied by
    `period_iteration_expansion_factor` at each restart. Loshchilov and Hutter 2017 (as `CosineAnnealing`), eq. 5.
    """

    def __init__(
        self,
        min_learning_rate: float,
        max_learning_rate: float,
        total_iters_per_period: float,
        max_learning_rate_discount_factor: float,
        period_iteration_expansion_factor: float,
    ) -> None:
        who = "CosineAnnealingWithWarmRestarts"
        self.min_learning_rate = check_number(f"{who}: min_learning_rate", min_learning_rate, 0.0)
        self.max_learning_rate = check_number(f"{who}: max_learning_rate", max_learning_rate, self.min_learning_rate)
        name = f"{who}: total_iters_per_period"
        self.total_epochs_per_period = check_number(name, total_iters_per_period, 1.0)
        discount, expansion = max_learning_rate_discount_factor, period_iteration_expansion_factor
        self.max_learning_rate_discount_factor = check_number(f"{who}: discount factor", discount, 0.0)
        self.period_iteration_expansion_factor = check_number(f"{who}: expansion factor", expansion, 1.0)

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate of this epoch, whatever epoch was asked for before."""
        since_restart, period = float(epoch_number), self.total_epochs_per_period
        maximum = self.max_learning_rate
        while since_restart >= period:
            since_restart -= period
            period *= self.period_iteration_expansion_factor
            maximum *= self.max_learning_rate_discount_factor
        span = maximum - self.min_learning_rate
        return self.min_learning_rate + 0.5 * span * (1.0 + cos(pi * since_restart / period))


class ExponentialLearningRateScheduler(LearningRateScheduler):
    """lr(e) = lr0 exp(-e / decay)."""

    def __init__(self, init_learning_rate: float, decay_param: float) -> None:
        who = "ExponentialLearningRateScheduler"
        self.init_learning_rate = check_number(f"{who}: init_learning_rate", init_learning_rate, 0.0, low_open=True)
        self.decay_param = check_number(f"{who}: decay_param", decay_param, 0.0, low_open=True)

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate of this epoch."""
        return self.init_learning_rate * exp(-epoch_number / self.decay_param)


class ReciprocalLearningRateScheduler(LearningRateScheduler):
    """lr(e) = lr0 / (1 + e / decay)."""

    def __init__(self, init_learning_rate: float, decay_param: float) -> None:
        who = "ReciprocalLearningRateScheduler"
        self.init_learning_rate = check_number(f"{who}: init_learning_rate", init_learning_rate, 0.0, low_open=True)
        self.decay_param = check_number(f"{who}: decay_param", decay_param, 0.0, low_open=True)

    def learning_rate_at(self, epoch_number: int) -> float:
        """Return the learning rate of this epoch."""
        return self.init_learning_rate / (1.0 + epoch_number / self.decay_param)


class ReciprocalMomentumCoefficientScheduler:
    """mom(e) = max_mom (1 - growth / (e + offset)): a momentum coefficient that grows towards its maximum."""

    def __init__(self, max_mom_coeff: float = 0.99, growth_param: float = 3.0, epoch_offset: float = 5.0) -> None:
        who = "ReciprocalMomentumCoefficientScheduler"
        self.max_mom_coeff = check_number(f"{who}: max_mom_coeff", max_mom_coeff, 0.0, 1.0)
        self.epoch_offset = check_number(f"{who}: epoch_offset", epoch_offset, 1.0)
        self.growth_param = check_number(f"{who}: growth_param", growth_param, 0.0, self.epoch_offset)

    def update_learning_rule(self, learning_rule: _MomentumLearningRule, epoch_number: int) -> None:
        """Set the rule's momentum coefficient for this epoch."""
        epoch = check_positive_int("ReciprocalMomentumCoefficientScheduler: epoch_number", epoch_number, minimum=0)
        fraction = self.growth_param / (epoch + self.epoch_offset)
        learning_rule.mom_coeff = self.max_mom_coeff * (1.0 - fraction)
