"""Threads above a single-threaded BLAS: a batch is cut into parts, and each part stays in its core's cache.

How a batch is cut depends on its size alone, never on the number of threads, results come back in the order of the
parts, and the BLAS computes every part on one thread: so a convolution's results are the same to the bit whatever the
number of threads. (The limit on the BLAS holds for the whole process while a kernel runs.)
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import cache
from threading import Lock
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
    with single_threaded_blas():
        if len(parts) == 1 or num_threads() == 1:
            return [work(*part) for part in parts]
        futures = [_submit(work, *part) for part in parts]
        return [future.result() for future in futures]


def run_on_threads(work: Callable[[int, int], object], count: int, threads: int | None = None) -> None:
    """Call ``work(thread, index)`` for every index of range(count), each on whichever thread is free; wait for all.

    There are `threads` of them, by default `num_threads()`, numbered from 0, the caller's own. Where a call raises, or
    Ctrl-C is pressed, no further one starts, those that run come to their end, and the error is raised.
    """
    threads = min(threads or num_threads(), count)
    indices = iter(range(count))  # threads share it: under Python's interpreter lock, each number comes once
    failed: list[int] = []

    def worker(thread: int) -> None:
        try:
            for index in indices:
                if failed:
                    return
                work(thread, index)
        except BaseException:
            failed.append(thread)
            raise

    futures: list[Future[None]] = []
    try:
        futures += (_submit(worker, thread) for thread in range(1, threads))
        worker(0)
    except BaseException:
        failed.append(0)  # also for one that is still to start
        raise
    finally:
        _wait(futures, failed)
    for future in futures:
        future.result()


def _wait(futures: Sequence[Future[None]], failed: list[int]) -> None:
    """Wait until all are done, also where Ctrl-C is pressed meanwhile; then raise that."""
    interrupted: BaseException | None = None
    while not all(future.done() for future in futures):
        try:
            wait(futures)
        except BaseException as error:
            interrupted = error
            failed.append(0)
    if interrupted is not None:
        raise interrupted


def _submit(work: Callable[..., T], *args: int) -> Future[T]:
    """Run a function in the pool, with the caller's context: NumPy's `errstate` is part of it."""
    context = copy_context()
    return submit(_pool(), lambda: context.run(work, *args))


def submit(pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> Future[T]:
    """Run a function in a pool; raise MemoryError where the system gives no thread, which is what it mostly means."""
    try:
        return pool.submit(work, *args)
    except RuntimeError as error:
        raise MemoryError(f"no thread can be started: {error}") from error


class _SingleThreadedBlas:
    """Keeps the BLAS of this process on one thread, from the first that enters to the last that leaves."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = [library.num_threads for library in _blas_libraries()]
                for library in _blas_libraries():
                    library.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for library, number in zip(_blas_libraries(), self._before, strict=True):
                    library.set_num_threads(number)


_single_threaded_blas = _SingleThreadedBlas()


def single_threaded_blas() -> AbstractContextManager[None]:
    """Keep the BLAS of this process on one thread meanwhile."""
    return _single_threaded_blas


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="mlp")


@cache
def _blas_libraries() -> list[Any]:
    controllers: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return controllers


def _after_fork() -> None:
    """In a child: it has no threads of its parent, and nobody in it uses the BLAS yet."""
    _pool.cache_clear()
    _single_threaded_blas.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
