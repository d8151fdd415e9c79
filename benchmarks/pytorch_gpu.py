"""PyTorch's side on a GPU: the same networks, and training steps in each of the ways that PyTorch offers.

Adam is its fused one, and cuDNN tries its algorithms and takes the fastest (`cudnn.benchmark`). All steps are taken
with one batch, which lies on the device: no side of PyTorch's gathers or augments anything. Kept to what PyTorch 2.11
has.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.pytorch import LAYOUTS, network

MODES = {"compile": "default", "autotune": "max-autotune"}
"""The modes of torch.compile. In the second one Inductor makes CUDA graphs of the passes, too."""
WAYS = ("eager", "graph", *MODES)
DEVICE = "cuda"


def set_precision(precision: str) -> None:
    """Let products and convolutions of float32 numbers be TF32's, or not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True


class Trainer:
    """A network with Adam, that takes steps with one batch. `way` is one of `WAYS`.

    eager: forward, cross-entropy, backward and Adam, one call after the other; graph: all of that as one CUDA graph;
    compile and autotune: forward, cross-entropy and backward by torch.compile.
    """

    def __init__(
        self,
        name: str,
        params: Sequence[np.ndarray],
        batch: tuple[np.ndarray, np.ndarray],
        precision: str,
        way: str,
        layout: str = "channels_last",
        num_filters: int = 32,
    ) -> None:
        self._precision, self._way = precision, way
        set_precision(precision)
        model = network(name, params, num_filters).to(memory_format=LAYOUTS[layout]).to(DEVICE)
        self._params = list(model.parameters())
        self._first = [param.detach().to("cpu", copy=True) for param in self._params]
        self._adam = torch.optim.Adam(self._params, fused=True, capturable=way == "graph")
        inputs = torch.from_numpy(batch[0]).to(DEVICE).contiguous(memory_format=LAYOUTS[layout])
        self._batch = inputs, torch.from_numpy(batch[1]).to(DEVICE)
        self._loss_of = _loss_of(model, MODES.get(way))
        self._step = self._captured() if way == "graph" else self._eager_step

    def take(self, steps: int) -> None:
        """Take so many steps."""
        set_precision(self._precision)
        for _ in range(steps):
            self._step()

    def loss(self) -> float:
        """Return the loss of the first weights, after which they change by a step."""
        set_precision(self._precision)
        with torch.no_grad():
            for param, first in zip(self._params, self._first, strict=True):
                param.copy_(first)
        return float(self._step())

    def _eager_step(self) -> torch.Tensor:
        if self._way == "autotune":
            torch.compiler.cudagraph_mark_step_begin()
        self._adam.zero_grad(set_to_none=True)
        loss = self._loss_of(*self._batch)
        loss.backward()
        self._adam.step()
        return loss.detach()

    def _captured(self) -> Callable[[], torch.Tensor]:
        """Return a function that replays a step as a graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._eager_step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._adam.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            loss = self._eager_step()

        def replay() -> torch.Tensor:
            graph.replay()
            return loss

        return replay


def _loss_of(model: nn.Module, mode: str | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the loss as a function of a batch, compiled in a mode (None: not compiled)."""

    def loss_of(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(inputs), labels)

    return loss_of if mode is None else torch.compile(loss_of, mode=mode)


def peak_memory(trainer: Trainer, steps: int = 4) -> tuple[int, int]:
    """Return the most bytes allocated, and reserved, during steps after the first ones, which try algorithms."""
    trainer.take(steps)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.take(steps)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
