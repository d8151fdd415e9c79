"""Runs the command line in a process of its own, on small networks and data, with a mishap: for tests.

``python driver.py MISHAP ARGUMENT...``, where MISHAP is "none", "kill N" (SIGKILL at the N-th event, an event being a
training step or one of the moments of writing a file) or "pause N" (at the N-th training step say "paused" and wait
for a line of standard input).
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from mlp.data_providers import shapes
from mlp.experiments import runner
from mlp.experiments.__main__ import main
from mlp.experiments.configs import EXPERIMENTS


def shrink():
    """Make all networks and data small, and save after every step."""
    shapes.COUNTS.update(train=200, valid=40, test=40)
    for name, experiment in EXPERIMENTS.items():
        EXPERIMENTS[name] = replace(experiment, num_filters=4, num_blocks=min(experiment.num_blocks, 1))
    runner.SECONDS_BETWEEN_CHECKPOINTS = -1.0


def kill_at(count):
    """End the process without warning at an event."""
    left = count

    def event():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def with_events(function):
        def wrapped(*args, **kwargs):
            event()
            result = function(*args, **kwargs)
            event()
            return result

        return wrapped

    runner.train_step = with_events(runner.train_step)
    os.fsync = with_events(os.fsync)
    Path.replace = with_events(Path.replace)


def pause_at(count):
    """Wait at a training step."""
    left, real = count, runner.train_step

    def train_step(*args):
        nonlocal left
        left -= 1
        if left == 0:
            print("paused", flush=True)
            sys.stdin.readline()
        return real(*args)

    runner.train_step = train_step


if __name__ == "__main__":
    shrink()
    mishap, _, number = sys.argv[1].partition(" ")
    if mishap != "none":
        {"kill": kill_at, "pause": pause_at}[mishap](int(number))
    sys.exit(main(sys.argv[2:]))
