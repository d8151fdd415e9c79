"""A plan: layers in a row as one program, for one shape of inputs."""

import os
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.checks import check_shape
from mlp.engine.builder import Builder, Step
from mlp.engine.catalogue import step_for
from mlp.engine.executor import Cut, Executor, Shard, cut
from mlp.engine.passes import Purpose
from mlp.engine.program import MAP, ROWS, Phase, Program, Value
from mlp.engine.steps.elementwise import add
from mlp.engine.steps.rows import examples
from mlp.errors import value_and_grad
from mlp.kernels import Pieces
from mlp.layers import ChainLayer, Layer, LayerWithParameters, ResidualLayer
from mlp.layers.base import walk

_SHARD_BYTES, _MIN_SHARD = 3_420_000, 4
"""How large the largest feature map of a shard should be, but not fewer examples than this: larger ones leave the
cache, and with smaller ones threads wait for Python's interpreter lock too often (benchmarks/README.md)."""
_WORTH_A_THREAD = 400_000
"""The bytes of a shard's largest map below which a core is not worth a shard of its own."""


class _Sum(NamedTuple):
    """A residual connection in the order of computation: outputs = first + second."""

    first: Value
    second: Value
    outputs: Value


class _Node(NamedTuple):
    """A step in the order of computation."""

    step: Step
    inputs: Value
    outputs: Value


class Plan:
    """Layers in a row, planned for a batch of one shape and dtype.

    `outputs` runs forward; `gradients` then runs backward, with the memory of that forward pass. With an `error` that
    is a mean over examples, `train` runs both with the error between them, so that a shard without batch
    normalisation goes all the way and back while it is in the cache. A shard has `most` examples at most, where that is
    given. The memory of values and scratch is taken by the first run, before anything else happens.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: tuple[int, ...],
        dtype: Any,
        purpose: Purpose,
        error: Any = None,
        most: int | None = None,
    ) -> None:
        self.shape, self.dtype, self.purpose, self.error, self.most = shape, np.dtype(dtype), purpose, error, most
        self.layers = list(layers)
        self._nodes: list[_Node | _Sum] = []
        self._inputs: Array = np.empty(0)
        self._targets: Array = np.empty(0)
        kind = MAP if len(shape) == 4 else ROWS
        self.first, shards = Value(kind, shape[1:]), self._cut(shape)
        builder = Builder(shape[0], len(shards.sizes), self.dtype, purpose.stochastic)
        builder.whole(self._prepare, (), "parameters")
        builder.shard(self._load, (), (self.first,), "inputs")
        self.last = self._forward(builder, layers, self.first)
        builder.shard(self._store, (self.last,), (), "outputs")
        self._half = len(builder.actions)
        self.losses = np.zeros(len(shards.sizes))
        if purpose.backward:
            self._backward(builder)
        self._before = builder.before
        breaks = () if error is not None else (self._half,)
        program = Program(builder.actions, breaks=breaks)
        self.executor = Executor(program, shards, self.dtype, builder.reserve)
        self.steps = [node.step for node in self._nodes if isinstance(node, _Node)]
        self._param_shapes = [_param_shapes(step.layer) for step in self.steps]
        halves = purpose.backward and error is None
        self._phases: list[Phase] = program.phases(0, self._half if halves else None)
        self._backward_phases = program.phases(self._half) if halves else []

    @property
    def shard_size(self) -> int:
        """The number of examples in the largest shard."""
        return self.executor.cut.sizes[0]

    def num_bytes(self, threads: int | None = None) -> int:
        """Return the bytes of the plan's memory, on so many threads, by default those that it runs on."""
        return self.executor.num_bytes(threads) + sum(step.num_bytes for step in self.steps)

    def takes(self, targets: Any) -> bool:
        """Return whether `train` can run with these targets. Where not, the error itself says why, of a whole batch."""
        if self.error is None or not isinstance(targets, np.ndarray) or targets.dtype.kind not in "fiu":
            return False
        if targets.shape == (self.shape[0], *self.last.shape):
            return True
        whole = targets.dtype.kind in "iu" and getattr(self.error, "takes_labels", False)
        labels = whole and targets.shape == (self.shape[0], *self.last.shape[1:])
        return labels and int(targets.min()) >= 0 and int(targets.max()) < self.last.shape[0]

    def outputs(self, inputs: Array) -> Array:
        """Return the last layer's outputs."""
        self._start(inputs)
        self.executor.run(self._phases)
        return self._result

    def gradients(self, grads_wrt_outputs: Array) -> tuple[Array | None, list[Array]]:
        """Return (dE/d inputs or None, the gradients of all parameters) for the last call of `outputs`.

        Raises ShapeError where the gradients have not the outputs' shape.
        """
        who = f"{type(self.layers[-1]).__name__}.backprop: grads_wrt_outputs"
        check_shape(who, grads_wrt_outputs, (self.shape[0], *self.last.shape))
        self._incoming, grads = grads_wrt_outputs, self._new_grads()
        self._grads_wrt_inputs = self._like_examples(self.first) if self.purpose.need_inputs else None
        self.executor.run(self._backward_phases)
        return self._grads_wrt_inputs, grads

    def train(self, inputs: Array, targets: Array) -> tuple[float, Array, Array | None, list[Array]]:
        """Return (the error, the outputs, dE/d inputs or None, the gradients of all parameters) of a batch."""
        self._targets, grads = targets, self._new_grads()
        self._start(inputs)
        self._grads_wrt_inputs = self._like_examples(self.first) if self.purpose.need_inputs else None
        self.executor.run(self._phases)
        return float(self.losses.sum()), self._result, self._grads_wrt_inputs, grads

    def _start(self, inputs: Array) -> None:
        self._inputs, self._result = inputs, self._like_examples(self.last)

    def _prepare(self, batch: Executor) -> None:
        for prepare in self._before:
            prepare()

    def _new_grads(self) -> list[Array]:
        """Return new arrays for the gradients, views of one, and hand them to the steps."""
        shapes = [shape for of_step in self._param_shapes for shape in of_step]
        grads = Pieces(np.empty(sum(map(prod, shapes)), self.dtype), shapes)
        start = 0
        for step, of_step in zip(self.steps, self._param_shapes, strict=True):
            step.grads = grads[start : start + len(of_step)]
            start += len(of_step)
        return grads

    def _forward(self, builder: Builder, layers: Sequence[Layer], inputs: Value) -> Value:
        """Add the layers' forward passes; return the outputs."""
        value = inputs
        for layer in layers:
            if isinstance(layer, ChainLayer):
                inside = self._forward(builder, layer.layers, value)
                if isinstance(layer, ResidualLayer):
                    total = add(builder, inside, value, repr(layer))
                    self._nodes.append(_Sum(inside, value, total))
                    inside = total
                value = inside
            else:
                step = step_for(layer, value.shape, builder.batch, layer.name or repr(layer))
                outputs = step.forward(builder, value)
                self._nodes.append(_Node(step, value, outputs))
                value = outputs
        return value

    def _backward(self, builder: Builder) -> None:
        """Add the error, or the gradient that comes from outside, and all backward passes."""
        self._outputs_grad = start = Value(self.last.kind, self.last.shape)
        if self.error is None:
            builder.shard(self._load_grads, (), (start,), "gradients of the outputs")
        else:
            builder.shard(self._error, (self.last,), (start,), repr(self.error))
        found: dict[Value, list[Value]] = {self.last: [start]}
        needed = self._needed()
        for node in reversed(self._nodes):
            if node.outputs not in found:
                continue
            if isinstance(node, _Sum):
                grads = self._summed(builder, found.pop(node.outputs))
                for value in (node.first, node.second):
                    found.setdefault(value, []).append(grads)
                continue
            grads = self._summed(builder, found.pop(node.outputs))
            through = node.step.backward(builder, grads, node.inputs in needed)
            if through is not None:
                found.setdefault(node.inputs, []).append(through)
        builder.flush()
        if self.purpose.need_inputs:
            self._inputs_grad = self._summed(builder, found[self.first])
            builder.shard(self._store_grads, (self._inputs_grad,), (), "inputs")

    def _needed(self) -> set[Value]:
        """Return the values whose gradient leads to a parameter, or to the inputs where that is asked for."""
        needed = {self.first} if self.purpose.need_inputs else set()
        for node in self._nodes:
            if isinstance(node, _Sum):
                if node.first in needed or node.second in needed:
                    needed.add(node.outputs)
            elif node.inputs in needed or isinstance(node.step.layer, LayerWithParameters):
                needed.add(node.outputs)
        return needed

    def _summed(self, builder: Builder, grads: list[Value]) -> Value:
        """Return the sum of gradients, the latest first."""
        total = grads[-1]
        for value in grads[-2::-1]:
            total = add(builder, total, value, "sum of gradients")
        return total

    def _cut(self, shape: tuple[int, ...]) -> Cut:
        """Return how to cut the batch: by its size, the layers' and the machine's cores, not by the threads in use."""
        leaves = [leaf for layer in self.layers for leaf in walk(layer)] if len(shape) == 4 else []
        width = max([shape[1], *(getattr(leaf, "num_output_channels", 1) for leaf in leaves)])
        example = width * prod(shape[2:]) * self.dtype.itemsize
        ideal = min(max(_MIN_SHARD, _SHARD_BYTES // example), self.most or shape[0])
        return cut(shape[0], ideal, min(os.cpu_count() or 1, shape[0] * example // _WORTH_A_THREAD))

    def _load(self, shard: Shard) -> None:
        examples(shard, self.first)[...] = self._inputs[shard.rows]

    def _store(self, shard: Shard) -> None:
        self._result[shard.rows] = examples(shard, self.last)

    def _load_grads(self, shard: Shard) -> None:
        examples(shard, self._outputs_grad)[...] = self._incoming[shard.rows]

    def _store_grads(self, shard: Shard) -> None:
        assert self._grads_wrt_inputs is not None
        self._grads_wrt_inputs[shard.rows] = examples(shard, self._inputs_grad)

    def _error(self, shard: Shard) -> None:
        outputs, targets = self._result[shard.rows], self._targets[shard.rows]
        weight = shard.n / self.shape[0]
        value, grads = value_and_grad(self.error, outputs, targets)
        self.losses[shard.index] = float(value) * weight
        np.multiply(grads, weight, out=examples(shard, self._outputs_grad))

    def _like_examples(self, value: Value) -> Array:
        """Return a new array for all examples of a value, channels-last in memory."""
        n = self.shape[0]
        if value.kind == ROWS:
            return np.empty((n, *value.shape), self.dtype)
        channels, height, width = value.shape
        return np.empty((n, height, width, channels), self.dtype).transpose(0, 3, 1, 2)


def _param_shapes(layer: Layer) -> list[tuple[int, ...]]:
    return [param.shape for param in layer.params] if isinstance(layer, LayerWithParameters) else []
