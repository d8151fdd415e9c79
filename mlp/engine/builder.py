"""What steps are made with: a builder collects their actions, and a step is a layer's two passes as actions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.engine.program import Action, Value
from mlp.layers.base import Layer


class Builder:
    """Collects the actions of a program, in order.

    `before` holds what runs once before the first action of every run. `reserve` holds what takes all the scratch that
    the actions on a shard ask for, so that a plan's memory is known, and taken, before it runs. `num_shards` and
    `batch` say how the batch is cut, `stochastic` which mode the layers are in.
    """

    def __init__(self, batch: int, num_shards: int, dtype: Any, stochastic: bool) -> None:
        self.batch, self.num_shards, self.dtype, self.stochastic = batch, num_shards, np.dtype(dtype), stochastic
        self.actions: list[Action] = []
        self.before: list[Callable[[], None]] = []
        self.reserve: list[Callable[[Any], object]] = []
        self._waiting: list[Action] = []

    def shard(
        self,
        run: Callable[[Any], None],
        reads: tuple[Value, ...],
        writes: tuple[Value, ...],
        label: str,
        in_place: bool = False,
        flops: int = 0,
    ) -> None:
        """Add an action on a shard."""
        self.actions.append(Action(run, reads, writes, label, in_place=in_place, flops=flops))

    def whole(self, run: Callable[[Any], None], reads: tuple[Value, ...], label: str) -> None:
        """Add an action on the whole batch, after those that wait for the next."""
        self.flush()
        self.actions.append(Action(run, reads, (), label, whole=True))

    def when_whole(self, run: Callable[[Any], None], reads: tuple[Value, ...], label: str) -> None:
        """Add an action on the whole batch just before the next one: it is in no hurry, and asks for no phase."""
        self._waiting.append(Action(run, reads, (), label, whole=True))

    def flush(self) -> None:
        """Add the actions that wait."""
        self.actions += self._waiting
        self._waiting = []


class Step:
    """A layer in a plan: what it adds to a program, forward and backward.

    `grads` are the arrays in which a run leaves the gradients of the layer's parameters, given anew for every run.
    `num_bytes` is the memory that the step itself keeps, beside values and scratch.
    """

    def __init__(self, layer: Layer, label: str) -> None:
        self.layer: Any = layer
        self.label = label
        self.grads: list[Array] = []
        self.num_bytes = 0

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass; return the outputs."""
        raise NotImplementedError

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass; return dE/d inputs, or None where it is not needed."""
        raise NotImplementedError
