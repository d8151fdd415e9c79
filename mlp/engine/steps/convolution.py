"""Convolution with its bias, on a shard."""

from math import prod
from typing import Any, Protocol

import numpy as np

from mlp.backend import Array
from mlp.engine.builder import Builder, Step
from mlp.engine.executor import Executor, Shard
from mlp.engine.program import MAP, SUMS, Value
from mlp.kernels import ConvGeometry, Sizes, conv_method
from mlp.kernels.columns import Columns
from mlp.kernels.scratch import Scratch
from mlp.kernels.winograd import TILE, WINDOW, Winograd, kernels_adjoint, transformed_kernels


class ShardConvolution(Protocol):
    """One way to compute a convolution of images in (H, W, n, C) memory."""

    def outputs(self, inputs: Array, outputs: Array) -> None:
        """Write y without bias, for framed x."""

    def inputs_grad(self, grads: Array, framed_grads: Array, grads_wrt_inputs: Array) -> None:
        """Write dE/dx."""

    def kernels_grad(self, inputs: Array, grads: Array) -> Array:
        """Return dE/dw as (KH KW, C, K), for framed x."""


class ConvolutionStep(Step):
    """y = w * x + b. The gradients of w and b are summed over a part's shards, then over the parts."""

    def forward(self, builder: Builder, inputs: Value) -> Value:
        """Add the forward pass."""
        layer, self.inputs, self.dtype = self.layer, inputs, builder.dtype
        self.geometry, self.size = layer.geometry, inputs.shape[1:]
        self.method = choose_method(self.geometry, self.size)
        self.shape = (inputs.shape[0], layer.kernels.shape[0])
        self.outputs = Value(MAP, (self.shape[1], *self.geometry.output_size(self.size)))
        self.trains = False
        self.grads_wrt_inputs: Value | None = None
        builder.before.append(self._prepare)
        builder.reserve.append(self._take_scratch)
        numbers = WINDOW * WINDOW * prod(self.shape) if self.method == "winograd" else layer.kernels.size
        self.num_bytes = int(numbers) * self.dtype.itemsize
        self.flops = 2 * prod(self.outputs.shape[1:]) * int(layer.kernels.size)
        builder.shard(self._forward, (inputs,), (self.outputs,), self.label, flops=self.flops)
        return self.outputs

    def backward(self, builder: Builder, grads: Value, need_inputs: bool) -> Value | None:
        """Add the backward pass."""
        self.trains, self.grads_value, places = True, grads, prod(self.geometry.kernel)
        self.kernel_sums = Value(SUMS, (places, *self.shape))
        self.bias_sums = Value(SUMS, (self.shape[1],))
        self.grads_wrt_inputs = Value(MAP, self.inputs.shape) if need_inputs else None
        self.num_bytes *= 2 if need_inputs and self.method == "winograd" else 1
        writes = (self.kernel_sums, self.bias_sums)
        builder.shard(self._backward_params, (self.inputs, grads), writes, self.label, flops=self.flops)
        if self.grads_wrt_inputs is not None:
            builder.shard(self._backward_inputs, (grads,), (self.grads_wrt_inputs,), self.label, flops=self.flops)
        builder.when_whole(self._finish, writes, self.label)
        return self.grads_wrt_inputs

    def _prepare(self) -> None:
        kernels = self.layer.turn(self.layer.kernels).astype(self.dtype, copy=False)
        if self.method == "winograd":
            both = [kernels, kernels[:, :, ::-1, ::-1].swapaxes(0, 1)]
            self.matrices = [
                transformed_kernels(each) for each in both[: 2 if self.grads_wrt_inputs is not None else 1]
            ]
        else:
            self.matrices = [np.ascontiguousarray(kernels.transpose(2, 3, 1, 0)).reshape(-1, self.shape[1])]

    def _take_scratch(self, shard: Shard) -> None:
        self._kernel(shard)
        if self.layer.biases is not None:
            shard.row("biases", self.outputs, self.layer.biases)

    def _forward(self, shard: Shard) -> None:
        self._kernel(shard).outputs(shard.framed[self.inputs], shard.arrays[self.outputs])
        if self.layer.biases is not None:
            flat = shard.flat[self.outputs]
            flat += shard.row("biases", self.outputs, self.layer.biases)

    def _backward_params(self, shard: Shard) -> None:
        grads = shard.arrays[self.grads_value]
        shard.add_to(self.kernel_sums, self._kernel(shard).kernels_grad(shard.framed[self.inputs], grads))
        if self.layer.biases is not None:
            sums = np.add.reduce(shard.flat[self.grads_value], axis=0)
            shard.add_to(self.bias_sums, sums.reshape(-1, self.shape[1]).sum(axis=0))

    def _backward_inputs(self, shard: Shard) -> None:
        grads = self.grads_value
        assert self.grads_wrt_inputs is not None
        self._kernel(shard).inputs_grad(shard.arrays[grads], shard.framed[grads], shard.arrays[self.grads_wrt_inputs])

    def _finish(self, batch: Executor) -> None:
        kernels = batch.total(self.kernel_sums)
        grads = kernels.reshape(*self.geometry.kernel, *self.shape).transpose(3, 2, 0, 1)
        found = [self.layer.turn(grads)]
        if self.layer.biases is not None:
            found.append(batch.total(self.bias_sums))
        for target, value in zip(self.grads, self.layer.with_penalties(found), strict=True):
            target[...] = value

    def _kernel(self, shard: Shard) -> ShardConvolution:
        kind = _WinogradConvolution if self.method == "winograd" else _ColumnsConvolution
        kernel: ShardConvolution = shard.scratch.once((self, shard.n), lambda: kind(self, shard))
        return kernel


class _WinogradConvolution:
    """Both passes by Winograd's transforms: dE/dx is the convolution of dE/dy with the kernels turned."""

    def __init__(self, step: ConvolutionStep, shard: Shard) -> None:
        self.step, size, out_size = step, step.size, step.outputs.shape[1:]
        (top, _), (left, _) = step.geometry.padding
        channels, filters = step.shape
        common: tuple[Any, Scratch] = (shard.dtype, shard.scratch)
        self.forward = Winograd(size, out_size, (top, left), (shard.n, channels, filters), *common, step.trains)
        self.backward: Winograd | None = None
        if step.grads_wrt_inputs is not None:
            self.backward = Winograd(out_size, size, (2 - top, 2 - left), (shard.n, filters, channels), *common)

    def outputs(self, inputs: Array, outputs: Array) -> None:
        self.forward.correlate(inputs, self.step.matrices[0], outputs)

    def inputs_grad(self, grads: Array, framed_grads: Array, grads_wrt_inputs: Array) -> None:
        assert self.backward is not None
        self.backward.correlate(framed_grads, self.step.matrices[1], grads_wrt_inputs)

    def kernels_grad(self, inputs: Array, grads: Array) -> Array:
        return kernels_adjoint(self.forward.kernels_grad(inputs, grads))


class _ColumnsConvolution:
    """Both passes by columns."""

    def __init__(self, step: ConvolutionStep, shard: Shard) -> None:
        self.step = step
        need_inputs = step.grads_wrt_inputs is not None
        shape = (shard.n, *step.shape)
        self.columns = Columns(step.geometry, step.size, shape, shard.dtype, shard.scratch, need_inputs)

    def outputs(self, inputs: Array, outputs: Array) -> None:
        self.columns.correlate(inputs, self.step.matrices[0], outputs)

    def inputs_grad(self, grads: Array, framed_grads: Array, grads_wrt_inputs: Array) -> None:
        self.columns.inputs_grad(grads, self.step.matrices[0], grads_wrt_inputs)

    def kernels_grad(self, inputs: Array, grads: Array) -> Array:
        return self.columns.kernels_grad(inputs, grads).reshape(-1, *self.step.shape)


def choose_method(geometry: ConvGeometry, size: Sizes) -> str:
    """Return "winograd" or "im2col": as ``$MLP_CONV`` says, by default the one with fewer multiplications.

    Tiles that hang over the edge of a small map are computed whole. The choice depends on sizes alone, not on a timing,
    which would make results depend on it.
    """
    wanted = conv_method()
    plain = geometry._replace(padding=())._asdict() == ConvGeometry((3, 3), (1, 1), (), (1, 1))._asdict()
    if not plain or max(max(pair) for pair in geometry.padding) > 2:
        return "im2col"
    out_size = geometry.output_size(size)
    tiled = prod(WINDOW * -(-length // TILE) for length in out_size)
    return "winograd" if wanted == "winograd" or (wanted == "auto" and tiled < 9 * prod(out_size)) else "im2col"
