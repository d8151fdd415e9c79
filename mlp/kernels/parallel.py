"""Threads above a single-threaded BLAS: a batch is cut into parts, and each part stays in its core's cache.

How a batch is cut depends on its size alone, never on the number of threads, results come back in the order of the
parts, and the BLAS computes every part on one thread: so a convolution's results are the same to the bit whatever the
number of threads. (The limit on the BLAS holds for the whole process while a kernel runs.)
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

PARTS = 8
"""A batch is cut into at most this many parts."""

T = TypeVar("T")


class SettingError(ValueError):
    """An environment variable has a value that cannot be used."""


@cache
def num_threads() -> int:
    """Return the number of threads: ``$MLP_NUM_THREADS``, or else the cores that this process may use."""
    text = os.environ.get("MLP_NUM_THREADS")
    if text is None:
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise SettingError(f"MLP_NUM_THREADS is {text!r}, expected a whole number >= 1")
    return int(text)


def run_parts(work: Callable[[int, int], T], count: int, grain: int) -> list[T]:
    """Call ``work(start, stop)`` for consecutive parts of range(count) on threads; return the results in order.

    Every part but the last is a multiple of `grain` long.
    """
    grains = -(-count // grain)
    step = -(-grains // PARTS) * grain
    parts = [(start, min(start + step, count)) for start in range(0, count, step)]
    with _single_threaded_blas():
        if len(parts) == 1 or num_threads() == 1:
            return [work(*part) for part in parts]
        futures = [_pool().submit(work, *part) for part in parts]
        return [future.result() for future in futures]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="mlp")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _single_threaded_blas() -> Any:
    return _controller().limit(limits=1, user_api="blas")


if hasattr(os, "register_at_fork"):  # a child has no threads of its parent: it makes its own pool
    os.register_at_fork(after_in_child=_pool.cache_clear)
