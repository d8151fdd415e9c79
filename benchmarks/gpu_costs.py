"""What a training step costs, counted: operations, bytes, and the times of its kernels by name."""

from collections.abc import Iterable, Sequence

import numpy as np

from mlp.kernels.gpu import Launch
from mlp.models import Model, summary

NOT_COUNTED = ("gather_batch",)
"""Kernels of which an argument is the whole data set."""


def step_flops(model: Model, shape: Sequence[int], batch: int) -> int:
    """Return the floating-point operations of a training step, counted as plain sums, of convolutions and matrices.

    A multiplication and an addition are two. Forward, dE/dw and dE/dx take as many each, but for the first layer, which
    needs no dE/dx. The rest of the step (normalisation, activations, Adam) is not counted.
    """
    counts = [row.multiply_adds for row in summary(model, shape).rows]
    return 2 * batch * (3 * sum(counts) - counts[0])


def step_bytes(launches: Iterable[Launch]) -> int:
    """Return the bytes of a step's arrays, each counted once for every time that it is an argument of a launch.

    An estimate: what a kernel reads twice (the frame of a tile), and what it both reads and writes, counts once, and
    what the second-level cache serves counts as if it came from memory. The gathering of the batch is left out.
    """
    return sum(launch.num_bytes for launch in launches if launch.name not in NOT_COUNTED)


def by_name(launches: Sequence[Launch], seconds: np.ndarray) -> list[tuple[str, int, float]]:
    """Return (name, how many launches, their seconds together) of each kernel, the dearest first."""
    names = np.array([launch.name for launch in launches])
    found = [(str(name), int((names == name).sum()), float(seconds[names == name].sum())) for name in np.unique(names)]
    return sorted(found, key=lambda entry: -entry[2])
