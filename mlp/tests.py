"""The coursework's tests of 2018: Adam with weight decay, and cosine annealing with warm restarts.

Each compares the class in this module (set your own: ``mlp.tests.CosineAnnealingWithWarmRestarts = MyScheduler``) with
its formula, prints that it passed and returns True, or raises an AssertionError that says where it differs. They need
no file.
"""

from math import cos, pi

import numpy as np

from mlp.backend import Array
from mlp.learning_rules import AdamLearningRuleWithWeightDecay
from mlp.schedulers import CosineAnnealingWithWarmRestarts

STEPS = 10


def test_adam_with_weight_decay() -> bool:
    """Test ten steps of Adam with weight decay on an array (20, 50), at a learning rate that falls on the way."""
    rng = np.random.RandomState(92019)
    weights = rng.normal(size=(20, 50))
    expected, m1, m2 = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    rule = AdamLearningRuleWithWeightDecay(learning_rate=1e-2, weight_decay=0.1)
    rule.initialise(weights)
    for t in range(1, STEPS + 1):
        rule.learning_rate = 1e-2 / t
        grads: Array = rng.normal(size=weights.shape)
        m1, m2 = 0.9 * m1 + 0.1 * grads, 0.999 * m2 + 0.001 * grads**2
        step = rule.learning_rate * np.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t) * m1 / (np.sqrt(m2) + 1e-8)
        expected -= step + rule.learning_rate / 1e-2 * 0.1 * expected
        rule.update_params(grads)
        _compare("AdamLearningRuleWithWeightDecay", f"step {t}", weights, expected)
    print("Adam with weight decay: passed")
    return True


def test_cosine_scheduler() -> bool:
    """Test the learning rate of 2,000 epochs, in order and not, with restarts that come later and start lower."""
    scheduler = CosineAnnealingWithWarmRestarts(1e-4, 1e-2, 50, 0.8, 1.5)
    rule = AdamLearningRuleWithWeightDecay()
    for epoch in [*range(1000), 2000, 17, 1234]:
        since_restart, period, maximum = float(epoch), 50.0, 1e-2
        while since_restart >= period:
            since_restart, period, maximum = since_restart - period, period * 1.5, maximum * 0.8
        expected = 1e-4 + 0.5 * (maximum - 1e-4) * (1.0 + cos(pi * since_restart / period))
        returned = scheduler.update_learning_rule(rule, epoch)
        _compare("CosineAnnealingWithWarmRestarts", f"what it returns in epoch {epoch}", returned, expected)
        _compare("CosineAnnealingWithWarmRestarts", f"the rule's in epoch {epoch}", rule.learning_rate, expected)
    print("Cosine annealing with warm restarts: passed")
    return True


def _compare(who: str, what: str, got: Array | float | None, expected: Array | float) -> None:
    if got is None:
        raise AssertionError(f"{who}: {what} is None, expected {expected}")
    np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=f"{who}: {what}")
