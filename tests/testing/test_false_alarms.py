"""No right layer is rejected, whatever the seed.

`python -m tests.testing.test_false_alarms 1000` runs every case with 1,000 seeds; a second number is where to start.
"""

import sys
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from mlp.layers.base import walk
from mlp.testing import GradientError, check_gradients
from mlp.testing.cases import ERROR_CASES, LAYER_CASES, PENALTY_CASES, LayerCase

PAIRS, PARTS = 1000, 8


def check_case(case: LayerCase, seed: int, directions: int = 6) -> None:
    """Check a layer at random inputs, parameters and running statistics; raise GradientError on a false alarm."""
    rng = np.random.default_rng([seed, 2])
    layer = case.build()
    if hasattr(layer, "params"):
        layer.params = [param + 0.3 * rng.standard_normal(param.shape) for param in layer.params]
    for leaf in walk(layer):
        for name in leaf.state_names:
            state = getattr(leaf, name)
            state[...] = rng.uniform(0.3, 3.0, state.shape)
    check_gradients(layer, case.shape, seed=seed, directions=directions)


def false_alarms(pairs: Iterable[tuple[LayerCase, int]]) -> Iterator[str]:
    """Yield a line for every pair of a case and a seed where a right layer is rejected."""
    for case, seed in pairs:
        try:
            check_case(case, seed)
        except GradientError as alarm:
            yield f"{case.name!r}, seed {seed}: {alarm}"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_right_layer_is_rejected_in_a_thousand_seeds(part):
    pairs = [(LAYER_CASES[i % len(LAYER_CASES)], i) for i in range(part, PAIRS, PARTS)]
    assert len(pairs) == PAIRS // PARTS
    assert not list(false_alarms(pairs))


def test_every_case_has_its_share_of_the_seeds():
    shares = np.bincount([i % len(LAYER_CASES) for i in range(PAIRS)])
    assert len(shares) == len(LAYER_CASES)
    assert shares.min() >= PAIRS // len(LAYER_CASES) >= 5


@pytest.mark.parametrize("case", ERROR_CASES, ids=lambda case: case.name)
def test_no_right_error_is_rejected(case):
    for seed in range(20):
        outputs = case.outputs + 1e-2 * np.random.default_rng(seed).uniform(-1, 1, case.outputs.shape)
        assert check_gradients(case.error, outputs, targets=case.targets, seed=seed).right


@pytest.mark.parametrize("case", PENALTY_CASES, ids=lambda case: case.name)
def test_no_right_penalty_is_rejected(case):
    for seed in range(20):
        assert check_gradients(case.penalty, (3, 4), seed=seed).right


def main(count: int, first: int = 0) -> int:
    """Run every case with `count` seeds, print the false alarms, and return their number."""
    found = 0
    for case in LAYER_CASES:
        for alarm in false_alarms((case, seed) for seed in range(first, first + count)):
            found += 1
            print(alarm, flush=True)
    print(f"{len(LAYER_CASES)} cases, {count} seeds each: {found} false alarms")
    return found


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
