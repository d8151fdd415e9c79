"""What units add to a GPU's plan, forward and backward."""

from math import prod
from typing import Any

from mlp.backend import Array
from mlp.engine.gpu.builder import Builder
from mlp.engine.gpu.convolution import convolution
from mlp.engine.gpu.network import Unit
from mlp.layers import AffineLayer, Convolution2DLayer, ConvolutionalLayer, GlobalAveragePooling2DLayer

_ROWS_PER_BLOCK, _MAX_BLOCKS = 64, 528

Grads = list[Array]
"""The arrays that get the gradients of a unit's parameters, those of the main layer first."""


class Step:
    """A unit's launches. `forward` adds those of the outputs, `backward` those of the gradients."""

    def __init__(self, unit: Unit, grads: Grads) -> None:
        self.unit, self.grads, self.label = unit, grads, unit.label

    def forward(self, build: Builder) -> None:
        """Add the forward pass, into a new buffer for the outputs."""
        raise NotImplementedError

    def backward(self, build: Builder) -> None:
        """Add the backward pass: the parameters' gradients, and the share of the inputs' where it is needed."""
        raise NotImplementedError


class PoolingStep(Step):
    """Average pooling, over windows or over the whole map."""

    def forward(self, build: Builder) -> None:
        """Add the means."""
        unit = self.unit
        y = build.arrays[unit.outputs] = build.new(unit.outputs)
        name = "global_average" if self._is_global() else "average_pool"
        args = (build.arrays[unit.inputs], y, *self._sizes(build))
        build.add(build.kernels.elementwise(name, y.size, *args, label=self.label))

    def backward(self, build: Builder) -> None:
        """Give every pixel of a window its share."""
        grads, _ = build.finished(self.unit)
        if self.unit.inputs in build.needed:
            out, _, mask, slope = build.target(self.unit.inputs, can_add=False, can_mask=True)
            name = "global_average_grad" if self._is_global() else "average_pool_grad"
            args = (grads, mask, out, *self._sizes(build), float(slope))
            build.add(build.kernels.elementwise(name, out.size, *args, label=self.label))
            build.arrive(self.unit.inputs, out)
        build.arena.give(grads)

    def _is_global(self) -> bool:
        return type(self.unit.main) is GlobalAveragePooling2DLayer

    def _sizes(self, build: Builder) -> tuple[int, ...]:
        if self._is_global():
            return build.n, prod(self.unit.inputs.shape[:-1]), self.unit.inputs.channels
        return (build.n, *self.unit.outputs.shape, *self.unit.main.size)


class AffineStep(Step):
    """y = x W' + b, and its gradients, as matrix products."""

    def forward(self, build: Builder) -> None:
        """Add the product."""
        unit, layer = self.unit, self.unit.main
        y = build.arrays[unit.outputs] = build.new(unit.outputs)
        k, d = layer.weights.shape
        arrays = (build.arrays[unit.inputs], layer.weights, layer.biases, y)
        build.multiply(arrays, (build.n, k, d), (d, 1, 1, d), self.label)

    def backward(self, build: Builder) -> None:
        """Add dE/dW = dE/dy' x, dE/db and dE/dx = dE/dy W."""
        unit, layer = self.unit, self.unit.main
        (k, d), (grads, _) = layer.weights.shape, build.finished(unit)
        x = build.arrays[unit.inputs]
        build.multiply((grads, x, None, self.grads[0]), (k, d, build.n), (1, k, d, 1), self.label)
        _add_bias_grad(build, grads, self.grads[1], self.label)
        if unit.inputs in build.needed:
            out, _, _, _ = build.target(unit.inputs, can_add=False, can_mask=False)
            build.multiply((grads, layer.weights, None, out), (build.n, d, k), (k, 1, d, 1), self.label)
            build.arrive(unit.inputs, out)
        build.arena.give(grads)


class FusedStep(Step):
    """Convolution or nothing, batch normalisation or nothing, a sum or nothing, an activation or nothing."""

    def forward(self, build: Builder) -> None:
        """Add the forward pass."""
        unit, norm = self.unit, self.unit.norm
        x, y = build.arrays[unit.inputs], build.new(unit.outputs)
        skip = None if unit.skip is None else build.arrays[unit.skip]
        build.arrays[unit.outputs] = y
        moments = None
        self.raw = x
        if unit.main is not None:
            self.convolution = convolution(build, unit)
            self.raw = build.new(unit.outputs) if norm is not None else y
            tail = (None, 1.0) if norm is not None else (skip, unit.slope)
            moments = self.convolution.outputs(build, x, self.raw, *tail, norm is not None and build.stochastic)
        if norm is not None:
            self._normalise(build, moments, skip, y)
        elif unit.main is None:
            count = build.count(unit.outputs)
            build.add(build.kernels.elementwise("activate", y.size, x, skip, y, count, unit.slope, label=self.label))

    def _normalise(self, build: Builder, moments: tuple[Array, int] | None, skip: Array | None, y: Array) -> None:
        unit, norm, channels = self.unit, self.unit.norm, self.unit.outputs.channels
        self.statistics = build.arena.take((3 * channels,))
        groups, rows = -(-channels // 32), unit.outputs.pixels(build.n)
        running = (norm.running_mean, norm.running_var)
        if not build.stochastic:
            args: tuple[Any, ...] = (*running, channels, float(norm.epsilon), self.statistics)
            build.add(build.kernels.over("bn_running", channels, *args, label=self.label))
        else:
            if moments is None:
                blocks, each = _blocks(rows)
                moments = build.arena.take((blocks * 4 * channels,)), blocks
                args = (self.raw, moments[0], rows, channels, each)
                build.add(build.kernels.launch("bn_moments", (blocks, groups), 256, *args, label=self.label))
            unbiased = rows / (rows - 1) if norm.running_variance == "unbiased" else 1.0
            weight = float(norm.momentum if norm.momentum_weighs == "batch" else 1.0 - norm.momentum)
            args = (*moments, channels, float(norm.epsilon), weight, unbiased, *running, self.statistics)
            build.add(build.kernels.launch("bn_statistics", (groups,), 1024, *args, label=self.label))
            build.arena.give(moments[0])
        count = build.count(unit.outputs)
        args = (self.raw, skip, self.statistics, norm.gamma, norm.beta, y, count, channels, unit.slope)
        build.add(build.kernels.elementwise("bn_apply", y.size, *args, each=4, label=self.label))
        if not build.backward:  # nobody reads these again
            for buffer in [self.statistics, *([] if unit.main is None else [self.raw])]:
                build.arena.give(buffer)

    def backward(self, build: Builder) -> None:
        """Add the backward pass, from the activation to the convolution."""
        unit = self.unit
        grads, y = build.finished(unit)
        past = grads if unit.skip is not None and unit.skip in build.needed else None
        if unit.norm is not None:
            inner = self._through_normalisation(build, grads, y, past)
            if past is None:
                build.arena.give(grads)
        else:
            inner = grads
            if y is not None:
                build.masked(grads, y, grads, unit.outputs, unit.slope, label=self.label)
        self._through_main(build, inner, shared=inner is past)
        if unit.skip is not None and past is not None:
            build.hand_over(unit.skip, past)

    def _through_main(self, build: Builder, grads: Array, shared: bool) -> None:
        """Go through the convolution, if there is one, to the inputs. `shared`: somebody else takes these gradients."""
        unit = self.unit
        if unit.main is not None:
            self.convolution.kernels_grad(build, build.arrays[unit.inputs], grads, self.grads[0])
            if unit.main.biases is not None:
                _add_bias_grad(build, grads, self.grads[1], self.label)
            if unit.inputs in build.needed:
                self.convolution.inputs_grad(build, grads)
        elif unit.inputs in build.needed:
            if not shared:
                build.hand_over(unit.inputs, grads)
                return
            copy = build.new(unit.outputs)
            build.masked(grads, None, copy, unit.outputs, 1.0, label=self.label)
            build.hand_over(unit.inputs, copy)
        if not shared:
            build.arena.give(grads)

    def _through_normalisation(self, build: Builder, grads: Array, y: Array | None, past: Array | None) -> Array:
        """Return dE/d what was normalised; leave the gradient that goes past it in `past`."""
        unit, channels, rows = self.unit, self.unit.outputs.channels, self.unit.outputs.pixels(build.n)
        grad_gamma, grad_beta = self.grads[-2:]
        (blocks, each), groups, slope = _blocks(rows), -(-channels // 32), unit.slope
        sums, out = build.arena.take((blocks * 2 * channels,)), build.new(unit.outputs)
        common = (grads, y, self.raw, self.statistics)
        launch = build.kernels.launch
        args: tuple[Any, ...] = (*common, sums, rows, channels, each, slope)
        build.add(launch("bn_sums", (blocks, groups), 256, *args, label=self.label))
        args = (sums, blocks, channels, grad_beta, grad_gamma)
        build.add(launch("total_sums", (groups, 2), 1024, *args, label=self.label))
        args = (*common, unit.norm.gamma, grad_gamma, grad_beta, out, past, build.count(unit.outputs), channels)
        args = (*args, 1.0 / rows, slope)
        build.add(build.kernels.elementwise("bn_backward", out.size, *args, each=4, label=self.label))
        build.arena.give(sums)
        return out


def _add_bias_grad(build: Builder, grads: Array, out: Array, label: str) -> None:
    """Add launches for dE/db (K,): the sums of dE/dy (..., K) over all but the channels."""
    channels = grads.shape[-1]
    rows = int(grads.size) // channels
    (blocks, each), groups = _blocks(rows), -(-channels // 32)
    sums = build.arena.take((blocks * 2 * channels,))
    build.add(build.kernels.launch("bias_sums", (blocks, groups), 256, grads, sums, rows, channels, each, label=label))
    build.add(build.kernels.launch("total_sums", (groups, 2), 1024, sums, blocks, channels, out, None, label=label))
    build.arena.give(sums)


def step_for(unit: Unit, grads: Grads) -> Step:
    """Return the step of a unit."""
    if unit.main is None or type(unit.main) in (Convolution2DLayer, ConvolutionalLayer):
        return FusedStep(unit, grads)
    return AffineStep(unit, grads) if type(unit.main) is AffineLayer else PoolingStep(unit, grads)


def _blocks(rows: int) -> tuple[int, int]:
    """Return how many blocks share rows, and how many each takes."""
    each = max(_ROWS_PER_BLOCK, -(-rows // _MAX_BLOCKS))
    return -(-rows // each), each
