"""Average pooling over whole windows, and over the whole map."""

import numpy as np

from mlp.backend import Array
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Shard
from mlp.engine.program import MAP, ROWS, Value


class AveragePoolingStep(Step):
    """The mean over windows that neither overlap nor leave a pixel out."""

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        channels, height, width = inputs.shape
        self.rows, self.columns = self.layer.size
        self.inputs = inputs
        self.outputs = Value(MAP, (channels, height // self.rows, width // self.columns))
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(MAP, self.inputs.shape)
        builder.shard(self._backward, (grads,), (self.grads_wrt_inputs,), self.label)
        builder.reserve.append(self._share)
        return self.grads_wrt_inputs

    def _share(self, shard: Shard) -> Array:
        return shard.like(self.grads_value).reshape(shard.arrays[self.grads_value].shape)

    def _forward(self, shard: Shard) -> None:
        outputs = shard.arrays[self.outputs]
        for i, pixels in enumerate(self._pixels(shard.arrays[self.inputs])):
            if i:
                outputs += pixels
            else:
                outputs[...] = pixels
        outputs *= 1.0 / (self.rows * self.columns)

    def _backward(self, shard: Shard) -> None:
        share = self._share(shard)
        np.multiply(shard.arrays[self.grads_value], 1.0 / (self.rows * self.columns), out=share)
        for pixels in self._pixels(shard.arrays[self.grads_wrt_inputs]):
            pixels[...] = share

    def _pixels(self, images: Array) -> list[Array]:
        """Return, for each place in a window, the view of the pixels there."""
        return [images[u :: self.rows, v :: self.columns] for u, v in np.ndindex(self.rows, self.columns)]


class GlobalAverageStep(Step):
    """The mean over H and W: a map to rows (n, C)."""

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        self.inputs, self.outputs = inputs, Value(ROWS, inputs.shape[:1])
        self.share = 1.0 / (inputs.shape[1] * inputs.shape[2])
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(MAP, self.inputs.shape)
        builder.shard(self._backward, (grads,), (self.grads_wrt_inputs,), self.label)
        return self.grads_wrt_inputs

    def _forward(self, shard: Shard) -> None:
        sums = np.add.reduce(np.add.reduce(shard.arrays[self.inputs], axis=0), axis=0)
        np.multiply(sums, self.share, out=shard.arrays[self.outputs])

    def _backward(self, shard: Shard) -> None:
        shard.arrays[self.grads_wrt_inputs][...] = shard.arrays[self.grads_value] * self.share
