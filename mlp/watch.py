"""Watches the numbers of a training: NaN and infinity are noticed in the step in which they appear, and named.

`is_finite` is what a step costs: one product of the gradient with itself. Only where it says no does `find` run the
batch again, by the layers' own passes on a copy of the model, with a probe at every layer.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from mlp.backend import Array, array_module, to_cpu
from mlp.kernels import Pieces
from mlp.layers import Layer
from mlp.models import Model


@dataclass(frozen=True)
class Finding:
    """Where the first number that is not finite stands.

    `where` names the layer, the learning rule, "error" or "batch"; `part` is the pass or what else it belongs to
    ("fprop", "bprop", "grads_wrt_params", "parameter", "state", "value", "grad", "given"); `tensor` is the array.
    """

    where: str
    part: str
    tensor: str
    index: tuple[int, ...]
    value: float
    step: int

    def __str__(self) -> str:
        return f"step {self.step}: {self.where}, {self.part}: {self.tensor}{list(self.index)} is {self.value}"


class NumbersError(ArithmeticError):
    """A number of a training is NaN or infinite. `finding` says which; it is None where the layers find none."""

    def __init__(self, finding: Finding | None, step: int) -> None:
        lost = f"step {step}: the loss or a gradient is not finite, and the layers' own passes find it finite"
        super().__init__(str(finding) if finding else lost)
        self.finding = finding


def is_finite(loss: float, outputs: Array, grads: Sequence[Array]) -> bool:
    """Return whether a loss, a model's outputs and all gradients are finite numbers."""
    xp = array_module(outputs)
    for array in (outputs, grads.flat) if isinstance(grads, Pieces) else (outputs, *grads):
        squares = xp.vdot(array, array)  # not finite where an entry is not, and where squares overflow
        if not isfinite(abs(squares)) and not xp.isfinite(array).all():
            return False
    return isfinite(loss)


def find(model: Model, error: Any, learning_rule: Any, inputs: Array, targets: Array) -> Finding | None:
    """Return where the first number of a training step stands that is not finite; None where all are.

    Looks at the batch, the learning rule's state, the parameters, and then at every layer's forward pass, the error,
    and every layer's backward pass, in this order. Model and learning rule are not changed.
    """
    probe = _Probe(learning_rule.step_count + 1)
    with np.errstate(all="ignore"):
        try:
            _look_at_what_is_given(probe, model, learning_rule, inputs, targets)
            clone = copy.deepcopy(model)
            for name, leaf in clone.named_layers():
                probe.watch(name, leaf)
            activations = clone.fprop(inputs)
            probe.look("error", "value", "E", error(activations[-1], targets))
            grads = error.grad(activations[-1], targets)
            probe.look("error", "grad", "grads_wrt_outputs", grads)
            clone.grads_wrt_params(activations, grads)
        except _FoundError as found:
            return found.finding
    return None


class _FoundError(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class _Probe:
    """Looks at arrays, and raises at the first that is not finite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def look(self, where: str, part: str, tensor: str, values: Any) -> None:
        array = np.asarray(to_cpu(values))
        if array.dtype.kind not in "fc" or np.isfinite(array).all():
            return
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise _FoundError(Finding(where, part, tensor, index, float(array[index].real), self.step))

    def watch(self, name: str, leaf: Layer) -> None:
        """Look at what a layer's passes return, from now on."""
        forward: Callable[..., Array] = leaf.fprop
        backward: Callable[..., tuple[Array | None, list[Array]]] = leaf.backprop
        names = leaf.array_names()

        def fprop(inputs: Array, *more: Any, **options: Any) -> Array:
            outputs = forward(inputs, *more, **options)
            self.look(name, "fprop", "outputs", outputs)
            return outputs

        def backprop(*arguments: Any, **options: Any) -> tuple[Array | None, list[Array]]:
            grads, grads_wrt_params = backward(*arguments, **options)
            for key, grad in zip(names, grads_wrt_params, strict=False):
                self.look(name, "grads_wrt_params", key, grad)
            if grads is not None:
                self.look(name, "bprop", "grads_wrt_inputs", grads)
            return grads, grads_wrt_params

        leaf.fprop = fprop  # type: ignore[method-assign]
        leaf.backprop = backprop  # type: ignore[method-assign]


def _look_at_what_is_given(probe: _Probe, model: Model, learning_rule: Any, inputs: Array, targets: Array) -> None:
    probe.look("batch", "given", "inputs", inputs)
    probe.look("batch", "given", "targets", targets)
    keys = [f"{layer}.{key}" for layer, key, _ in model.param_keys()]
    for state in learning_rule.state_names:
        for key, array in zip(keys, getattr(learning_rule, state), strict=True):
            probe.look(type(learning_rule).__name__, "state", f"{state} of {key}", array)
    for (layer, name, _), array in zip(model.param_keys(), model.params, strict=True):
        probe.look(layer, "parameter", name, array)
