"""Batch normalisation: its statistics couple the shards."""

from math import ceil

import numpy as np

from mlp.backend import Array
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Executor, Shard
from mlp.engine.program import Value

_SAMPLE = 16
"""Pixels whose mean stands for that of a shard, to be taken off first."""


_ROWS = "first", "scale", "shift", "beta", "slope", "constant"


class BatchNormStep(Step):
    """y = gamma (x - mean) / std + beta.

    In training, every shard takes off a value near its mean, `first`, and sums up c = x - first and c^2.
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
        builder.reserve.append(self._take_scratch)
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

    def _take_scratch(self, shard: Shard) -> None:
        if self.training:
            shard.like(self.inputs)
        for name in _ROWS:
            shard.row(name, self.inputs, self.layer.gamma)

    def _statistics(self, shard: Shard) -> None:
        source, flat, i = shard.flat[self.inputs], shard.flat[self.centred], shard.index
        self.first[i] = self._typical(source)
        self.shard_counts[i] = shard.n * self.places
        np.subtract(source, shard.row("first", self.inputs, self.first[i]), out=flat)
        squares = shard.like(self.inputs)
        with np.errstate(over="ignore"):
            np.multiply(flat, flat, out=squares)
            self.sums[i], self.squares[i] = self._sum(flat), self._sum(squares)

    def _combine(self, batch: Executor) -> None:
        unit = self._unit(batch)
        first = self.first.astype(np.float64) * unit
        offsets = self.sums / self.shard_counts
        weights = self.shard_counts / self.count
        origin = first[0]
        shift = (weights * (first - origin + offsets)).sum(axis=0)
        apart = first - origin + offsets - shift
        var = ((self.squares - self.sums * offsets) / self.count + weights * apart * apart).sum(axis=0)
        var = np.maximum(var, 0.0)
        self.from_mean = (first - origin - shift) / unit
        with np.errstate(over="ignore"):
            self.layer.update_running((origin + shift) / unit, var / unit / unit, self.count)
        self._set_scale(np.sqrt(var + self.layer.epsilon * unit * unit) / unit)

    def _unit(self, batch: Executor) -> Array | float:
        """Return what x is multiplied by in the sums: 1; where squares have overflowed powers of two, with new sums."""
        if np.isfinite(self.squares).all():
            return 1.0
        shards = [flat.astype(np.float64).reshape(-1, self.channels) for flat in batch.flat(self.centred)]
        _, exponents = np.frexp(np.max([np.abs(rows).max(axis=0) for rows in shards], axis=0))
        unit: Array = np.ldexp(1.0, -np.maximum(exponents, 0))
        for i, rows in enumerate(shards):
            self.sums[i], self.squares[i] = (rows * unit).sum(axis=0), ((rows * unit) ** 2).sum(axis=0)
        return unit

    def _typical(self, flat: Array) -> Array:
        """Return a value (C,) near the mean, and equal to all where all are equal: the mean of a few pixels."""
        sample = flat[: ceil(_SAMPLE * self.channels / flat.shape[1])].reshape(-1, self.channels)
        typical: Array = sample[0] + (sample - sample[0]).mean(axis=0)
        return typical

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
        self.slope = grad_gamma / self.count / self.std
        self.constants = grad_beta / self.count + self.slope * self.from_mean
        self.grads[0][...], self.grads[1][...] = grad_gamma, grad_beta

    def _backward(self, shard: Shard) -> None:
        """dE/dx = scale (g - mean(g) - xhat mean(g xhat))."""
        grads, target = shard.flat[self.grads_value], shard.flat[self.grads_wrt_inputs]
        means = shard.like(self.grads_value)
        np.multiply(shard.flat[self.centred], shard.row("slope", self.inputs, self.slope), out=means)
        means += shard.row("constant", self.inputs, self.constants[shard.index])
        np.subtract(grads, means, out=target)
        target *= shard.row("scale", self.inputs, self.scale)

    def _sum(self, flat: Array) -> Array:
        """Return the sums (C,) over all but the channels."""
        return np.add.reduce(np.add.reduce(flat, axis=0).reshape(-1, self.channels), axis=0)
