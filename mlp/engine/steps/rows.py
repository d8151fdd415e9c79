"""Steps on examples without a memory layout of their own: affine maps, and layers that run as they are on a shard."""

import numpy as np

from mlp.backend import Array
from mlp.checks import check_shape
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Executor, Shard
from mlp.engine.program import MAP, ROWS, SUMS, Value
from mlp.kernels.products import matmul_rows
from mlp.layers.chain import MissingReturnError


class AffineStep(Step):
    """y = x W' + b. The gradients are summed over the shards; where there is one, they are written where they go."""

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        self.inputs, self.outputs = inputs, Value(ROWS, (self.layer.output_dim,))
        self.flops = 2 * int(self.layer.weights.size)
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label, flops=self.flops)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(ROWS, self.inputs.shape)
        self.sums = Value(SUMS, self.layer.weights.shape), Value(SUMS, self.layer.biases.shape)
        builder.shard(self._backward_params, (self.inputs, grads), self.sums, self.label, flops=self.flops)
        self.alone = builder.num_shards == 1
        if not self.alone or self.layer.has_penalties():
            builder.when_whole(self._finish, self.sums, self.label)
        if not need_inputs:
            return None
        builder.shard(self._backward_inputs, (grads,), (self.grads_wrt_inputs,), self.label, flops=self.flops)
        return self.grads_wrt_inputs

    def _forward(self, shard: Shard) -> None:
        outputs = shard.arrays[self.outputs]
        matmul_rows(shard.arrays[self.inputs], self.layer.weights.T, outputs)
        outputs += self.layer.biases

    def _backward_params(self, shard: Shard) -> None:
        grads, inputs = shard.arrays[self.grads_value], shard.arrays[self.inputs]
        if self.alone:
            matmul_rows(np.ascontiguousarray(grads.T), inputs, self.grads[0])
            np.add.reduce(grads, axis=0, out=self.grads[1])
        else:
            shard.add_product(self.sums[0], grads.T, inputs)
            shard.add_to(self.sums[1], np.add.reduce(grads, axis=0))

    def _backward_inputs(self, shard: Shard) -> None:
        matmul_rows(shard.arrays[self.grads_value], self.layer.weights, shard.arrays[self.grads_wrt_inputs])

    def _finish(self, batch: Executor) -> None:
        if not self.alone:
            for value, grad in zip(self.sums, self.grads, strict=True):
                batch.total(value, grad)
        for grad, value in zip(self.grads, self.layer.with_penalties(self.grads), strict=True):
            grad[...] = value


class LayerStep(Step):
    """A layer that treats examples one by one and remembers nothing, by its own `fprop` and `bprop` on a shard."""

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        with np.errstate(all="ignore"):
            shape = self.layer.fprop(np.ones((1, *inputs.shape), builder.dtype)).shape[1:]
        self.inputs, self.outputs = inputs, Value(MAP if len(shape) == 3 else ROWS, shape)
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(self.inputs.kind, self.inputs.shape)
        reads = (grads, self.inputs, self.outputs)
        builder.shard(self._backward, reads, (self.grads_wrt_inputs,), self.label)
        return self.grads_wrt_inputs

    def _forward(self, shard: Shard) -> None:
        self._put(shard, self.outputs, "fprop", self.layer.fprop(examples(shard, self.inputs)))

    def _backward(self, shard: Shard) -> None:
        arrays = [examples(shard, value) for value in (self.inputs, self.outputs, self.grads_value)]
        self._put(shard, self.grads_wrt_inputs, "bprop", self.layer.bprop(*arrays))

    def _put(self, shard: Shard, value: Value, method: str, result: Array) -> None:
        """Keep what a method returned; raise MissingReturnError or ShapeError where it is not what it must be."""
        target = examples(shard, value)
        if result is None:
            raise MissingReturnError(f"{self.layer!r}.{method} returned None: is a return missing?")
        check_shape(f"{self.layer!r}.{method}: what it returned", result, target.shape)
        target[...] = result


def examples(shard: Shard, value: Value) -> Array:
    """Return a shard's array as layers see it: (n, C, H, W) or (n, D, ...), a view."""
    array = shard.arrays[value]
    return array.transpose(2, 3, 0, 1) if value.kind == MAP else array
