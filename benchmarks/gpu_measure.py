"""Times on a GPU: between CUDA events, in turns, on the stream that CuPy and PyTorch share (the null stream)."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.measure import Call, Times
from mlp.kernels.gpu import Launch

Take = Callable[[int], Any]
"""Takes so many steps: puts their work on the stream."""

WARM_UP, FEWEST, MOST = 4, 3, 90
"""Steps before the first timing, and of a timing, at least and at most."""
SECONDS = 0.05
"""A timing takes about so long."""

COPIED, COPIES = 2**28, 20
"""Bytes of the array whose copies are timed, and how many copies make one timing."""

SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
CYCLES, GROUP = 8_000_000, 64
"""Keep the device busy for so many cycles (4 ms at 2 GHz) while the host queues so many launches."""


def seconds(call: Call) -> float:
    """Return the seconds that the device takes for what a call puts on the stream, waiting for the host included."""
    cuda = import_module("cupy").cuda
    start, end = cuda.Event(), cuda.Event()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(cuda.get_elapsed_time(start, end)) / 1e3


def steps_for(take: Take) -> int:
    """Warm up, and return how many steps a timing is to have."""
    take(WARM_UP)
    each = seconds(partial(take, WARM_UP)) / WARM_UP
    return int(np.clip(SECONDS / max(each, 1e-9), FEWEST, MOST))


def in_turns(takes: dict[str, Take], rounds: int) -> Times:
    """Return how long a step of each side took in each round, in seconds; every second round runs backwards."""
    steps = {name: steps_for(take) for name, take in takes.items()}
    times = {name: np.empty(rounds) for name in takes}
    for i in range(rounds):
        for name in list(takes) if i % 2 == 0 else reversed(takes):
            times[name][i] = seconds(partial(takes[name], steps[name])) / steps[name]
    return times


def copy_bandwidth(num_bytes: int = COPIED, rounds: int = 7) -> float:
    """Return the bytes a second that a copy from the device to itself reads and writes."""
    cupy = import_module("cupy")
    source, target = (cupy.zeros(num_bytes // 4, np.float32) for _ in range(2))

    def copies(count: int) -> None:
        for _ in range(count):
            cupy.copyto(target, source)

    copies(WARM_UP)
    return 2 * num_bytes * COPIES / float(np.median([seconds(partial(copies, COPIES)) for _ in range(rounds)]))


def launch_times(launches: Sequence[Launch], repeats: int, before: Call) -> tuple[np.ndarray, int]:
    """Return the seconds of each launch (repeats, launches), run one by one in their order; `before` each repeat.

    The host queues them while the device is kept busy, so that no launch waits for the host; the second result says in
    how many groups of launches the host was too slow for that. What an event itself takes, a microsecond or two, is in
    each of the times.
    """
    cupy = import_module("cupy")
    spin = cupy.RawKernel(SPIN, "spin")
    delay = partial(spin, (1,), (1,), (np.int64(CYCLES),))
    delay()
    times, late = np.empty((repeats, len(launches))), 0
    for row in times:
        before()
        for start in range(0, len(launches), GROUP):
            row[start : start + GROUP], was_late = _group_times(cupy.cuda, launches[start : start + GROUP], delay)
            late += was_late
    return times, late


def _group_times(cuda: Any, launches: Sequence[Launch], delay: Call) -> tuple[list[float], bool]:
    first, *events = (cuda.Event() for _ in range(len(launches) + 2))
    start = time.perf_counter()
    first.record()
    delay()
    events[0].record()
    for launch, event in zip(launches, events[1:], strict=True):
        launch()
        event.record()
    queued = time.perf_counter() - start
    events[-1].synchronize()
    between = [cuda.get_elapsed_time(*pair) / 1e3 for pair in pairwise(events)]
    return between, queued > cuda.get_elapsed_time(first, events[0]) / 1e3
