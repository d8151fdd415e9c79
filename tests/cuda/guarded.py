"""Launches that are watched: every array stands between guards, and every launch is done twice, in two orders."""

import os

import numpy as np

from mlp.kernels.gpu import Kernels

from ..strict_cupy import StrictCupy
from .on_cpu import SANITIZERS, Kernel

SANITIZED = os.environ.get(SANITIZERS) == "1"
GUARD = 0 if SANITIZED else 64
"""Bytes on either side of an array, all 0xff: NaN to who reads them. The sanitizers watch the array's own ends."""


class Guarded:
    """The GPU's kernels, and arrays for them. Arrays hold NaN, or whole numbers that fit nothing, where none are given.

    A launch runs with the first block and thread first, and again from the same state with the last ones first. Both
    must leave the same bits, and the guards alone. (Under the sanitizers, which take their time, it runs once.)
    """

    def __init__(self):
        self.xp = StrictCupy()
        self.kernels = Kernels(self.xp)
        self._memories = []

    def array(self, values, dtype=np.float32):
        """Return an array of the stand-in's that holds these values."""
        values = np.ascontiguousarray(values, dtype)
        memory = np.full(values.nbytes + 2 * GUARD, 0xFF, np.uint8)
        inner = memory[GUARD : GUARD + values.nbytes]
        inner[...] = values.reshape(-1).view(np.uint8)
        self._memories.append(memory)
        return self.xp.asarray(inner.view(dtype).reshape(values.shape))

    def empty(self, *shape, dtype=np.float32):
        """Return an array to write to."""
        return self.array(
            np.full(np.prod(shape) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype).reshape(shape), dtype
        )

    def launch(self, *args, **keywords):
        """Make a launch, as `Kernels.launch`, and do it."""
        self._do(self.kernels.launch(*args, **keywords))

    def elementwise(self, *args, **keywords):
        """Make a launch, as `Kernels.elementwise`, and do it."""
        self._do(self.kernels.elementwise(*args, **keywords))

    def over(self, *args, **keywords):
        """Make a launch, as `Kernels.over`, and do it."""
        self._do(self.kernels.over(*args, **keywords))

    def _do(self, launch):
        if SANITIZED:
            launch()
            return
        before = [memory.copy() for memory in self._memories]
        launch()
        once = [memory.copy() for memory in self._memories]
        for memory, state in zip(self._memories, before, strict=True):
            memory[...] = state
        Kernel.backwards = True
        try:
            launch()
        finally:
            Kernel.backwards = False
        for memory, other in zip(self._memories, once, strict=True):
            assert np.array_equal(memory, other), f"{launch.label}: the order of the threads matters"
            ends = memory[:GUARD], memory[len(memory) - GUARD :]
            assert all((end == 0xFF).all() for end in ends), f"{launch.label}: written outside an array"
