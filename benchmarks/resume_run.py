"""What a process of `benchmarks.resume` does: a part of a run, on some threads, to its end or its death."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot  # noqa: F401 - here, not in every process

from mlp.data_providers import ImageData
from mlp.data_providers.shapes import CLASS_NAMES, draw_shapes
from mlp.experiments import runner
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.runner import Runner
from mlp.kernels import num_threads, parallel
from mlp.plots import plot_run
from mlp.records import RunFolder

EXPERIMENT = replace(
    EXPERIMENTS["vgg38_bn_rc"],
    name="vgg08_bn_rc",
    num_blocks=0,
    num_filters=8,
    dataset="shapes",
    epochs=3,
    batch_size=50,
)


DATA = ImageData(
    "shapes",
    *(draw_shapes(count, part) for count, part in ((180, "train"), (60, "valid"), (60, "test"))),
    CLASS_NAMES,
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
    "benchmarks",
)
"""Drawn once, for all processes."""


class Part(NamedTuple):
    """How a process runs: on how many threads, how often it saves, and the event at which it dies (0: at none)."""

    threads: int
    seconds_between_checkpoints: float
    dies_at: int = 0


def work(path: Path, part: Part) -> None:
    """Run, or go on with, the run in a folder; in a process of its own."""
    os.environ["MLP_NUM_THREADS"] = str(part.threads)
    num_threads.cache_clear()
    parallel._pool.cache_clear()
    runner.SECONDS_BETWEEN_CHECKPOINTS = part.seconds_between_checkpoints
    if part.dies_at:
        _die_at(part.dies_at)
    folder = RunFolder(path)
    if not (path / "config.json").exists():
        folder.write_json("config.json", {"experiment": EXPERIMENT.to_dict()})
    Runner(EXPERIMENT, DATA, folder, "cpu", quiet=True).run()
    plot_run(folder)


def _die_at(left: int) -> None:
    def event() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def with_events(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            event()
            result = function(*args, **kwargs)
            event()
            return result

        return wrapped

    runner.train_step = with_events(runner.train_step)
    os.fsync = with_events(os.fsync)
    Path.replace = with_events(Path.replace)  # type: ignore[method-assign]
