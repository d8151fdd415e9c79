"""Activations and sums, elementwise on a shard, in place where nobody reads the inputs again."""

import numpy as np

from mlp.backend import Array
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Shard
from mlp.engine.program import Value
from mlp.layers import LeakyReluLayer

_ZERO = np.zeros(1)


class ReluStep(Step):
    """y = max(x, alpha x) with 0 <= alpha <= 1: rectified linear for alpha = 0, leaky for others.

    The slope is read off y, whose sign is that of x.
    """

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        self.inputs, self.outputs = inputs, Value(inputs.kind, inputs.shape)
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label, in_place=True)
        builder.reserve.append(self._bent)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(grads.kind, grads.shape)
        builder.shard(self._backward, (grads, self.outputs), (self.grads_wrt_inputs,), self.label, in_place=True)
        builder.reserve.append(self._slopes)
        return self.grads_wrt_inputs

    @property
    def alpha(self) -> float:
        """The slope for x <= 0."""
        return self.layer.alpha if isinstance(self.layer, LeakyReluLayer) else 0.0

    def _forward(self, shard: Shard) -> None:
        source, bent = shard.flat[self.inputs], self._bent(shard)
        if self.alpha:
            np.multiply(source, self.alpha, out=bent)
        np.maximum(source, bent, out=shard.flat[self.outputs])

    def _backward(self, shard: Shard) -> None:
        outputs, alpha = shard.flat[self.outputs], self.alpha
        slopes, positive, least = self._slopes(shard)
        np.greater(outputs, 0, out=positive)
        np.copyto(slopes, positive)
        if alpha:
            np.maximum(slopes, least, out=slopes)
        np.multiply(shard.flat[self.grads_value], slopes, out=shard.flat[self.grads_wrt_inputs])

    def _bent(self, shard: Shard) -> Array:
        return shard.like(self.inputs) if self.alpha else shard.row("zero", self.inputs, _ZERO)

    def _slopes(self, shard: Shard) -> tuple[Array, Array, Array]:
        least = shard.row("alpha", self.outputs, np.full(1, self.alpha, shard.dtype))
        return shard.like(self.outputs), shard.like(self.outputs, bool), least


class Sum:
    """The sum of two values."""

    def __init__(self, first: Value, second: Value) -> None:
        self.first, self.second, self.total = first, second, Value(first.kind, first.shape)

    def add(self, shard: Shard) -> None:
        """Add the two."""
        np.add(shard.flat[self.first], shard.flat[self.second], out=shard.flat[self.total])


def add(builder: Builder, first: Value, second: Value, label: str) -> Value:
    """Add the sum of two values to a program, in place of the first where nobody reads it again."""
    both = Sum(first, second)
    builder.shard(both.add, (first, second), (both.total,), label, in_place=True)
    return both.total
