"""A plan on a GPU: layers in a row as launches on preallocated buffers."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array, array_module, check_tf32, is_gpu_array
from mlp.checks import check_shape
from mlp.engine.gpu.builder import Builder, Gradient
from mlp.engine.gpu.graph import CapturedLaunches
from mlp.engine.gpu.network import Network, Value
from mlp.engine.gpu.steps import step_for
from mlp.engine.passes import Purpose
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import Pieces
from mlp.kernels.gpu import Launch
from mlp.layers import BatchNormalizationLayer, Layer
from mlp.layers.base import walk

PRECISIONS = ("fp32", "tf32")


class GpuPlan:
    """Layers in a row, planned for a batch of one shape, in float32.

    As `Plan`: `outputs` runs forward, `gradients` backward, `train` both with the error between them. `precision` is
    that of the 3x3 convolutions' products; "tf32" raises DeviceError on a card without. `inputs`, `labels`, `losses`
    and `hits` are the buffers that a training step reads and writes, `grads` those of the gradients: views of one
    array.
    """

    def __init__(
        self, layers: Sequence[Layer], inputs: Array, purpose: Purpose, error: Any = None, precision: str = "fp32"
    ) -> None:
        if precision == "tf32":
            check_tf32(inputs)
        self.layers, self.purpose, self.error, self.precision = list(layers), purpose, error, precision
        self.shape, self.n = inputs.shape, inputs.shape[0]
        self._xp = array_module(inputs)
        is_map = inputs.ndim == 4
        shape = (*inputs.shape[2:], inputs.shape[1]) if is_map else inputs.shape[1:]
        self._network = Network(layers, shape, self.n)
        self._build = Builder(self._xp, inputs, self.n, self._network, precision, purpose)
        self.grads = self._grads()
        self._forward(purpose.backward)
        self._build.pack()
        forward = len(self._build.launches)
        if purpose.backward or error is not None:
            self._backward()
        launches = self._build.launches
        halves = (launches[:forward], launches[forward:]) if error is None else (launches, ())
        name = f"the plan of {layers[0]!r} .. {layers[-1]!r}"
        self._runs = [CapturedLaunches(self._xp, half, name) for half in halves]

    @property
    def launches(self) -> list[Launch]:
        """All launches, in order."""
        return list(self._build.launches)

    @property
    def inputs(self) -> Array:
        """The buffer of the inputs, channels last."""
        return self._build.arrays[self._network.inputs]

    @property
    def rows(self) -> Array:
        """The buffer of the outputs, channels last."""
        return self._build.arrays[self._network.outputs]

    def num_bytes(self) -> int:
        """Return the bytes of all buffers but the parameters' gradients."""
        return self._build.arena.num_bytes

    def times(self, repeats: int) -> list[float]:
        """Return the mean seconds of every launch, each run by itself between two events of the device."""
        cuda, launches = self._xp.cuda, self.launches
        totals = [0.0] * len(launches)
        for _ in range(repeats):
            events = [cuda.Event() for _ in range(len(launches) + 1)]
            events[0].record()
            for launch, event in zip(launches, events[1:], strict=True):
                launch()
                event.record()
            events[-1].synchronize()
            for i, (before, after) in enumerate(pairwise(events)):
                totals[i] += cuda.get_elapsed_time(before, after) / 1e3
        return [total / repeats for total in totals]

    def takes(self, targets: Any) -> bool:
        """Return whether `train` can run with these targets. Where not, the error itself says why, of a whole batch."""
        if self.error is None or not is_gpu_array(targets) or targets.dtype.kind not in "iu":
            return False
        if targets.shape != (self.n,):
            return False
        return int(targets.min()) >= 0 and int(targets.max()) < self._network.outputs.channels

    def outputs(self, inputs: Array) -> Array:
        """Return the last layer's outputs."""
        self._load(inputs)
        self._runs[0].run()
        return self._like_layers(self._network.outputs, self.rows)

    def gradients(self, grads_wrt_outputs: Array) -> tuple[Array | None, list[Array]]:
        """Return (dE/d inputs or None, the gradients of all parameters) for the last call of `outputs`."""
        who = f"{type(self.layers[-1]).__name__}.backprop: grads_wrt_outputs"
        check_shape(who, grads_wrt_outputs, self._view(self._network.outputs, self.rows).shape)
        self._view(self._network.outputs, self._outputs_grad)[...] = grads_wrt_outputs
        self._runs[1].run()
        return self._found()

    def train(self, inputs: Array, targets: Array) -> tuple[float, Array, Array | None, list[Array]]:
        """Return (the error, the outputs, dE/d inputs or None, the gradients of all parameters) of a batch."""
        self._load(inputs)
        self.labels[...] = targets
        self._runs[0].run()
        outputs = self._like_layers(self._network.outputs, self.rows)
        return float(self.losses.mean(dtype=np.float64)), outputs, *self._found()

    def _load(self, inputs: Array) -> None:
        self._view(self._network.inputs, self.inputs)[...] = inputs

    def _found(self) -> tuple[Array | None, list[Array]]:
        """Return the gradients as new arrays, penalties included."""
        found: list[Array] = self.copied_grads()
        if self.has_penalties():
            found = self._with_penalties(found)
        value = self._network.inputs
        if not self.purpose.need_inputs:
            return None, found
        return self._like_layers(value, self._inputs_grad), found

    def copied_grads(self) -> Pieces:
        """Return a copy of the gradients of all parameters, views of one array."""
        return Pieces(self.grads.flat.copy(), [grad.shape for grad in self.grads])

    def has_penalties(self) -> bool:
        """Return whether any parameter has a penalty, whose gradient no launch adds."""
        return any(layer.has_penalties() for layer in self._owners() if not isinstance(layer, BatchNormalizationLayer))

    def _owners(self) -> list[Any]:
        """Return the layers with parameters, in order."""
        return [layer for unit in self._network.units for layer in unit.layers()]

    def _with_penalties(self, grads: list[Array]) -> Any:
        total: list[Array] = []
        for layer in self._owners():
            found = grads[len(total) : len(total) + len(layer.params)]
            own = isinstance(layer, BatchNormalizationLayer)  # whose gradients have no penalties in the layer either
            total += found if own else layer.with_penalties(found)
        return total

    def _grads(self) -> Any:
        shapes = [param.shape for layer in self._owners() for param in layer.params]
        return Pieces(self._xp.zeros(sum(map(prod, shapes)), np.float32), shapes)

    def _forward(self, keep: bool) -> None:
        build, network = self._build, self._network
        start, readers = 0, {value: value.readers for value in (network.inputs, *(u.outputs for u in network.units))}
        self._steps = []
        for unit in network.units:
            number = len([param for layer in unit.layers() for param in layer.params])
            step = step_for(unit, self.grads[start : start + number])
            start += number
            step.forward(build)
            self._steps.append(step)
            for value in (unit.inputs, unit.skip) if not keep else ():
                if value is not None:
                    readers[value] -= 1
                    if not readers[value] and value is not network.inputs:
                        build.arena.give(build.arrays[value])

    def _backward(self) -> None:
        """Add the error, or the gradient that comes from outside, and all backward passes."""
        build, network = self._build, self._network
        build.need(network, self.purpose.need_inputs)
        self._outputs_grad = build.new(network.outputs)
        build.grads[network.outputs] = Gradient(self._outputs_grad)
        build.grads[network.outputs].times = 1
        if self.error is not None:
            self._add_error()
        for step in reversed(self._steps):
            if self.purpose.backward and step.unit.outputs in build.needed:
                step.backward(build)
        if self.purpose.need_inputs:
            self._inputs_grad = build.grads[network.inputs].array

    def _add_error(self) -> None:
        classes, xp = self._network.outputs.channels, self._xp
        self.labels, self.hits = xp.zeros(self.n, np.int64), xp.zeros(self.n, np.int32)
        self.losses = xp.zeros(self.n, np.float32)
        args = (self.rows, self.labels, self._outputs_grad, self.losses, self.hits, self.n, classes, 1.0 / self.n)
        self._build.add(self._build.kernels.launch("cross_entropy", (-(-self.n // 8),), 256, *args, label="error"))

    def _like_layers(self, value: Value, buffer: Array) -> Array:
        """Return a copy of a buffer as the layers have it: (N, C, H, W), channels-last in memory."""
        return self._view(value, buffer.copy())

    def _view(self, value: Value, buffer: Array) -> Array:
        return buffer.transpose(0, 3, 1, 2) if len(value.shape) == 3 else buffer


def arrays_fit(layers: Sequence[Layer], inputs: Array) -> bool:
    """Return whether all is in float32, and parameters and states lie in memory as the kernels read them."""
    leaves = [leaf for layer in layers for leaf in walk(layer)]
    arrays = [getattr(leaf, name) for leaf in leaves for name in leaf.array_names()]
    readable = [is_gpu_array(array) and array.flags.c_contiguous for array in arrays]
    return all(readable) and all(array.dtype == np.float32 for array in (inputs, *arrays))


def error_fits(error: Any, outputs: tuple[int, ...]) -> bool:
    """Return whether a plan on a GPU can go through an error by itself: cross-entropy of rows with labels."""
    return type(error) is CrossEntropySoftmaxError and error.is_mean_over_examples and len(outputs) == 1
