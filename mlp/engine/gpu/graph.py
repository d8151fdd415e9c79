"""Launches in a row that are repeated: one by one at first, then as one CUDA graph."""

import logging
from collections.abc import Sequence
from typing import Any

from mlp.kernels.gpu import Launch

logger = logging.getLogger(__name__)

_RUNS_BEFORE = 2
"""How often the launches run one by one: the first time kernels are compiled and loaded, which no capture allows."""


class CapturedLaunches:
    """Launches in a row. `run` does them all, on the current stream.

    From the third run on they are one CUDA graph, which costs the host one call. Where a graph cannot be made, they go
    on one by one, and a line in the log says why. `graph` is the graph, once there is one.
    """

    def __init__(self, xp: Any, launches: Sequence[Launch], label: str, capture: bool = True) -> None:
        self._xp, self.launches, self.label = xp, tuple(launches), label
        self._runs, self._capture = 0, capture
        self.graph: Any = None

    def run(self) -> None:
        """Do all launches."""
        if self._capture and self.graph is None and self._runs >= _RUNS_BEFORE:
            self._make_graph()
        self._runs += 1
        if self.graph is not None:
            self.graph.launch()
        else:
            self.run_eagerly()

    def run_eagerly(self) -> None:
        """Do all launches one by one, whether or not there is a graph."""
        for launch in self.launches:
            launch()

    def _make_graph(self) -> None:
        self._capture = False
        stream = self._xp.cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    self.run_eagerly()
                finally:
                    graph = stream.end_capture()
        except Exception as error:  # CuPy raises many kinds, and the launches themselves show theirs without a graph
            logger.warning("%s runs without a CUDA graph: %s: %s", self.label, type(error).__name__, error)
            return
        self.graph = graph
