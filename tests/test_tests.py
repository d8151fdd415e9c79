"""The coursework's tests of Adam with weight decay and cosine annealing: right classes pass, wrong ones are named."""

import importlib

import numpy as np
import pytest

tests = importlib.import_module("mlp.tests")
Adam, Cosine = tests.AdamLearningRuleWithWeightDecay, tests.CosineAnnealingWithWarmRestarts


def test_right_classes_pass_and_say_so(capsys):
    assert tests.test_adam_with_weight_decay() is True
    assert tests.test_cosine_scheduler() is True
    assert capsys.readouterr().out == "Adam with weight decay: passed\nCosine annealing with warm restarts: passed\n"


class NoDecay(Adam):
    def update_params(self, grads_wrt_params):
        self.weight_decay = 0.0
        super().update_params(grads_wrt_params)


class DecayTwice(Adam):
    def update_params(self, grads_wrt_params):
        super().update_params(grads_wrt_params)
        for param in self.params:
            param *= 1.0 - 1e-3


class DecayIntoTheGradient(Adam):
    """L2 in place of decoupled decay, the mistake that Adam with weight decay mends."""

    def update_params(self, grads_wrt_params):
        decay, self.weight_decay = self.weight_decay, 0.0
        super().update_params(grads_wrt_params + decay * self.params[0])
        self.weight_decay = decay


class AtAConstantRate(Adam):
    def update_params(self, grads_wrt_params):
        self.learning_rate = 1e-2
        super().update_params(grads_wrt_params)


class NoUpdate(Adam):
    def update_params(self, grads_wrt_params):
        pass


class NotANumber(Adam):
    def update_params(self, grads_wrt_params):
        super().update_params(grads_wrt_params)
        for param in self.params:
            param[...] = np.nan


class SlightlyOff(Adam):
    def update_params(self, grads_wrt_params):
        super().update_params(grads_wrt_params)
        for param in self.params:
            param *= 1.0 + 1e-8


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        (NoDecay, 1),
        (DecayTwice, 1),
        (DecayIntoTheGradient, 1),
        (AtAConstantRate, 2),
        (NoUpdate, 1),
        (NotANumber, 1),
        (SlightlyOff, 1),
    ],
)
def test_a_wrong_rule_is_named_with_the_step(monkeypatch, capsys, rule, step):
    monkeypatch.setattr(tests, "AdamLearningRuleWithWeightDecay", rule)
    with pytest.raises(AssertionError, match=f"AdamLearningRuleWithWeightDecay: step {step}\n"):
        tests.test_adam_with_weight_decay()
    assert capsys.readouterr().out == ""


def scheduler(change):
    """A scheduler whose rates go through `change(rate, epoch)`."""

    class Changed(Cosine):
        def update_learning_rule(self, learning_rule, epoch_number):
            learning_rule.learning_rate = change(
                super().update_learning_rule(learning_rule, epoch_number), epoch_number
            )
            return learning_rule.learning_rate

    return Changed


class NoReturn(Cosine):
    def update_learning_rule(self, learning_rule, epoch_number):
        super().update_learning_rule(learning_rule, epoch_number)


class NoRule(Cosine):
    def update_learning_rule(self, learning_rule, epoch_number):
        before = learning_rule.learning_rate
        rate = super().update_learning_rule(learning_rule, epoch_number)
        learning_rule.learning_rate = before
        return rate


class NoDiscount(Cosine):
    def __init__(self, low, high, period, discount, factor):
        super().__init__(low, high, period, 1.0, factor)


class NoGrowth(Cosine):
    def __init__(self, low, high, period, discount, factor):
        super().__init__(low, high, period, discount, 1.0)


class Remembering(Cosine):
    """Counts for itself, so that epochs out of order come out wrong."""

    count = -1

    def update_learning_rule(self, learning_rule, epoch_number):
        self.count += 1
        return super().update_learning_rule(learning_rule, self.count)


@pytest.mark.parametrize(
    ("kind", "epoch"),
    [
        (scheduler(lambda rate, epoch: rate * (1.0 + 1e-8)), 0),
        (scheduler(lambda rate, epoch: np.nan), 0),
        (scheduler(lambda rate, epoch: rate * (1.0 + (epoch == 1234))), 1234),
        (NoDiscount, 50),
        (NoGrowth, 51),
        (Remembering, 2000),
        (NoRule, 0),
        (NoReturn, 0),
    ],
    ids="1e-8 NaN late NoDiscount NoGrowth Remembering NoRule NoReturn".split(),
)
def test_a_wrong_scheduler_is_named_with_the_epoch(monkeypatch, capsys, kind, epoch):
    monkeypatch.setattr(tests, "CosineAnnealingWithWarmRestarts", kind)
    with pytest.raises(AssertionError, match=f"CosineAnnealingWithWarmRestarts: .*in epoch {epoch}(\n| is None)"):
        tests.test_cosine_scheduler()
    assert capsys.readouterr().out == ""
