"""Times taken in turns, and what is said of them: medians of the ratios of neighbours, with quartiles."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Call = Callable[[], Any]
Times = dict[str, np.ndarray]
Row = dict[str, Any]

PAUSE = 0.05
"""Seconds before each timing: the threads of the side before it (OpenMP's, the BLAS's) spin for a while, then sleep."""

LIMITS = (1e-5, 1e-2)
"""How far two float32 sides may differ, relatively: before a training step and, where 38 layers with batch
normalisation have enlarged the rounding errors of Adam's first step, after it."""


class DisagreementError(RuntimeError):
    """Two sides do not compute the same numbers, so that their times cannot be compared."""


def differences(calls: Mapping[str, Call], limits: Sequence[float] = LIMITS) -> list[float]:
    """Return how far what the calls return is from what the first one returns, relatively, at most: for two rounds.

    The second sees the parameters that a training step has left. Raises DisagreementError above the limits.
    """
    found = []
    for limit in limits:
        expected, *others = (np.array(call(), dtype=np.float64) for call in calls.values())
        scale = np.abs(expected).max()
        found.append(max(float(np.abs(other - expected).max() / scale) for other in others))
        if not found[-1] <= limit:
            raise DisagreementError(f"{', '.join(calls)} differ by {found}, expected at most {limit:g}")
    return found


def in_turns(calls: Mapping[str, Call], rounds: int, warm_up: int = 0) -> Times:
    """Return how long each call took in each round, in seconds; every second round runs backwards.

    Calls that `differences` has made need no warm-up.
    """
    for call in [*calls.values()] * warm_up:
        call()
    times = {name: np.empty(rounds) for name in calls}
    for i in range(rounds):
        for name in list(calls) if i % 2 == 0 else reversed(calls):
            time.sleep(PAUSE)
            start = time.perf_counter()
            calls[name]()
            times[name][i] = time.perf_counter() - start
    return times


def compared(label: str, figures: Times, ours: str, others: Iterable[str], unit: str = "s", **more: Any) -> Row:
    """Return a row: the figures of `ours` over those of the others' best, round by round."""
    best = min(others, key=lambda name: float(np.median(figures[name])))
    low, ratio, high = np.percentile(figures[ours] / figures[best], (25, 50, 75))
    medians = {name: float(np.median(values)) for name, values in figures.items()}
    return {
        "row": label,
        "ours": ours,
        "other": best,
        "ratio": float(ratio),
        "low": float(low),
        "high": float(high),
        "pairs": len(figures[ours]),
        "unit": unit,
        "medians": medians,
        **more,
    }
