"""Batch normalisation: its statistics couple the shards."""

import numpy as np

from mlp.backend import Array
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Executor, Shard
from mlp.engine.program import Value


class BatchNormStep(Step):
    """y = gamma (x - mean) / std + beta.

    In training, every shard takes off its first value in each channel, `first`, and sums up c = x - first and c^2.
    What the shards found is put together in float64 (Chan, Golub and LeVeque, Algorithms for computing the sample
    variance, The American Statistician 37 (1983)): a shard of m values has the mean first + sum(c) / m. From then on x
    stays as c in memory, so that a large mean takes no digits. Backward, the sums of g and g c go the same way.
    """

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        self.inputs, self.outputs = inputs, Value(inputs.kind, inputs.shape)
        self.centred = Value(inputs.kind, inputs.shape) if builder.stochastic else inputs
        self.channels, self.training = inputs.shape[0], builder.stochastic
        self.places = int(np.prod(inputs.shape[1:]))
        self.count = builder.batch * self.places
        shape = (builder.num_shards, self.channels)
        self.first = np.zeros(shape, builder.dtype)
        self.sums, self.squares, self.grad_sums, self.product_sums = (np.zeros(shape) for _ in range(4))
        self.shard_counts = np.zeros((builder.num_shards, 1))
        if self.training:
            builder.shard(self._statistics, (inputs,), (self.centred,), self.label, in_place=True)
            builder.whole(self._combine, (self.centred,), self.label)
        else:
            builder.before.append(self._take_running)
        builder.shard(self._normalise, (self.centred,), (self.outputs,), self.label, in_place=True)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass, of training mode."""
        self.grads_value, self.grads_wrt_inputs = grads, Value(grads.kind, grads.shape)
        builder.shard(self._sum_grads, (grads, self.centred), (), self.label)
        builder.whole(self._combine_grads, (), self.label)
        if not need_inputs:
            return None
        builder.shard(self._backward, (grads, self.centred), (self.grads_wrt_inputs,), self.label, in_place=True)
        return self.grads_wrt_inputs

    def _statistics(self, shard: Shard) -> None:
        source, flat, i = shard.flat[self.inputs], shard.flat[self.centred], shard.index
        self.first[i] = source[0, : self.channels]
        self.shard_counts[i] = shard.n * self.places
        np.subtract(source, shard.row("first", self.inputs, self.first[i]), out=flat)
        squares = shard.like(self.inputs)
        with np.errstate(over="ignore"):
            np.multiply(flat, flat, out=squares)
            self.sums[i], self.squares[i] = self._sum(flat), self._sum(squares)

    def _combine(self, batch: Executor) -> None:
        layer, first = self.layer, self.first.astype(np.float64)
        if not np.isfinite(self.squares).all():
            self._statistics_in_float64(batch)
        offsets = self.sums / self.shard_counts
        weights = self.shard_counts / self.count
        origin = first[0]
        shift = (weights * (first - origin + offsets)).sum(axis=0)
        apart = first - origin + offsets - shift
        var = ((self.squares - self.sums * offsets) / self.count + weights * apart * apart).sum(axis=0)
        var = np.maximum(var, 0.0)
        self.from_mean = first - origin - shift
        layer.update_running(origin + shift, var, self.count)
        self._set_scale(np.sqrt(var + layer.epsilon))

    def _statistics_in_float64(self, batch: Executor) -> None:
        """Sum up again where squares have overflowed."""
        for i, flat in enumerate(batch.flat(self.centred)):
            exact = flat.astype(np.float64)
            self.sums[i], self.squares[i] = self._sum(exact), self._sum(exact * exact)

    def _take_running(self) -> None:
        self.first[...] = 0
        self.from_mean = np.broadcast_to(-self.layer.running_mean.astype(np.float64), self.first.shape)
        self._set_scale(np.sqrt(self.layer.running_var.astype(np.float64) + self.layer.epsilon))

    def _set_scale(self, std: Array) -> None:
        self.std, self.scale = std, self.layer.gamma / std
        self.shifts = self.from_mean * self.scale + self.layer.beta

    def _normalise(self, shard: Shard) -> None:
        source, target = shard.flat[self.centred], shard.flat[self.outputs]
        if self.training:
            np.multiply(source, shard.row("scale", self.inputs, self.scale), out=target)
            target += shard.row("shift", self.inputs, self.shifts[shard.index])
        else:
            np.add(source, shard.row("shift", self.inputs, self.from_mean[0]), out=target)
            target *= shard.row("scale", self.inputs, self.scale)
            target += shard.row("beta", self.inputs, self.layer.beta)

    def _sum_grads(self, shard: Shard) -> None:
        grads, products = shard.flat[self.grads_value], shard.like(self.grads_value)
        np.multiply(grads, shard.flat[self.centred], out=products)
        self.grad_sums[shard.index], self.product_sums[shard.index] = self._sum(grads), self._sum(products)

    def _combine_grads(self, batch: Executor) -> None:
        grad_beta = self.grad_sums.sum(axis=0)
        grad_gamma = (self.product_sums + self.from_mean * self.grad_sums).sum(axis=0) / self.std
        slope = grad_gamma / self.count / self.std
        self.centred_factor = -self.scale * slope
        self.constants = -self.scale * (grad_beta / self.count + slope * self.from_mean)
        self.grads[0][...], self.grads[1][...] = grad_gamma, grad_beta

    def _backward(self, shard: Shard) -> None:
        """dE/dx = scale (g - mean(g) - xhat mean(g xhat))."""
        grads, target = shard.flat[self.grads_value], shard.flat[self.grads_wrt_inputs]
        centred = shard.like(self.grads_value)
        np.multiply(shard.flat[self.centred], shard.row("factor", self.inputs, self.centred_factor), out=centred)
        centred += shard.row("constant", self.inputs, self.constants[shard.index])
        np.multiply(grads, shard.row("scale", self.inputs, self.scale), out=target)
        target += centred

    def _sum(self, flat: Array) -> Array:
        """Return the sums (C,) over all but the channels."""
        return np.add.reduce(np.add.reduce(flat, axis=0).reshape(-1, self.channels), axis=0)
