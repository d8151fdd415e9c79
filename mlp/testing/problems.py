"""What is differentiated: one number, as a function of arrays, and the gradients that the subject claims for it.

For a layer or model the number is its outputs weighed with **random** numbers, or an error, plus the penalties. (With
weights of one a wrong batch norm or softmax goes unseen: the sum of its outputs is constant.)
"""

from typing import Any, Protocol

import numpy as np

from mlp.backend import Array
from mlp.layers import Layer, LayerWithParameters, StochasticLayer
from mlp.layers.base import forward
from mlp.layers.chain import MissingReturnError
from mlp.models import Model, SingleLayerModel
from mlp.testing.report import GradientError


class Problem(Protocol):
    """One number as a function of named arrays.

    `owners` names, for each array, the layer that it belongs to: gradients of a layer and its neighbours are measured
    against each other. `mode` is the mode as the report calls it, `rounding` the rounding error of a gradient that
    cancels.
    """

    subject: Any
    names: list[str]
    owners: list[str]
    arrays: list[Array]
    mode: str
    rounding: float

    def value(self, arrays: list[Array]) -> Any:
        """Return the number for these arrays."""
        ...

    def gradients(self) -> list[Array]:
        """Return the gradients that the subject claims, one per array."""
        ...


class ModelProblem:
    """A layer or model, perhaps closed by an error, in one mode."""

    def __init__(
        self, subject: Layer | Model, inputs: Array, error: Any, targets: Any, stochastic: bool, mode: str, seed: int
    ) -> None:
        model = subject if isinstance(subject, Model) else SingleLayerModel(subject)
        self.subject, self.model, self.mode = subject, model.astype(np.float64), mode
        _move_off_starting_values(self.model, seed)
        self.stochastic, self.error = stochastic, error
        self.targets = None if targets is None else np.array(targets)
        self.arrays = [inputs, *self.model.params]
        keys = self.model.param_keys()
        single = isinstance(subject, Layer) and not subject.children()
        self.names = ["inputs", *(key if single else f"{owner}.{key}" for owner, key, _ in keys)]
        self.owners = [keys[0][0] if keys else "inputs", *(owner for owner, _, _ in keys)]
        outputs = self._run(self.arrays)[0]
        self.weights = np.random.default_rng([seed, 2]).standard_normal(outputs.shape)
        self.outputs = outputs
        self.rounding = 2e-15 * float(np.abs(self.weights).max()) if single else 0.0

    def value(self, arrays: list[Array]) -> Any:
        """Return the number, penalties included, from a fresh copy of the model."""
        outputs, penalty = self._run(arrays)
        value = (self.weights * outputs).sum() if self.error is None else self.error(outputs, self.targets)
        return value + penalty

    def gradients(self) -> list[Array]:
        """Return what the backward pass says, one gradient per array; raise GradientError where a shape is wrong."""
        model, inputs = self.model.astype(np.float64), self.arrays[0].copy()
        activations = model.fprop(inputs, stochastic=self.stochastic)
        upstream = self.weights if self.error is None else self.error.grad(activations[-1], self.targets)
        try:
            grads_wrt_inputs, grads_wrt_params = model.bprop(activations, upstream.copy())
        except MissingReturnError as error:
            raise GradientError(str(error), subject=describe(self.subject), mode=self.mode, cause=str(error)) from error
        gradients = [grads_wrt_inputs, *grads_wrt_params]
        self._check(gradients)
        return gradients

    def upstream(self) -> Array:
        """Return dE/d outputs."""
        return self.weights if self.error is None else self.error.grad(self.outputs, self.targets)

    def _check(self, gradients: list[Array]) -> None:
        text = describe(self.subject)
        if len(gradients) != len(self.arrays):
            cause = f"{len(gradients)} gradients of {len(self.arrays)} arrays ({', '.join(self.names)})"
            raise GradientError(f"{text}: {cause}", subject=text, mode=self.mode, cause=cause)
        for name, gradient, array in zip(self.names, gradients, self.arrays, strict=True):
            _check_gradient(self, name, gradient, array)

    def _run(self, arrays: list[Array]) -> tuple[Array, Any]:
        model = self.model.astype(np.result_type(*arrays))
        model.params = arrays[1:]
        outputs = model.fprop(arrays[0].copy(), stochastic=self.stochastic)[-1]
        _check_array(self, "fprop", outputs)
        return outputs, model.params_penalty()


class ErrorProblem:
    """An error, as a function of the outputs."""

    def __init__(self, error: Any, outputs: Array, targets: Any) -> None:
        self.subject, self.targets, self.mode, self.rounding = error, np.array(targets), "both", 0.0
        self.names, self.owners, self.arrays = ["outputs"], ["outputs"], [outputs]

    def arguments(self) -> list[Array]:
        """Return copies of what the error is called with."""
        return [self.arrays[0].copy(), self.targets.copy()]

    def value(self, arrays: list[Array]) -> Any:
        """Return the error (the sum of an unreduced one)."""
        value = self.subject(arrays[0].copy(), self.targets)
        if np.ndim(value) > 0 and getattr(self.subject, "reduction", None) != "none":
            _wrong(self, f"an error is one number, and this one has shape {np.shape(value)}", None)
        return np.sum(value)

    def gradients(self) -> list[Array]:
        """Return [dE/d outputs]."""
        gradient = self.subject.grad(*self.arguments())
        _check_gradient(self, "outputs", gradient, self.arrays[0])
        return [gradient]


class PenaltyProblem:
    """A penalty, as a function of the parameter."""

    def __init__(self, penalty: Any, parameter: Array) -> None:
        self.subject, self.mode, self.rounding = penalty, "both", 0.0
        self.names, self.owners, self.arrays = ["parameter"], ["parameter"], [parameter]

    def arguments(self) -> list[Array]:
        """Return a copy of what the penalty is called with."""
        return [self.arrays[0].copy()]

    def value(self, arrays: list[Array]) -> Any:
        """Return the penalty."""
        return self.subject(arrays[0].copy())

    def gradients(self) -> list[Array]:
        """Return [dE/d parameter]."""
        gradient = self.subject.grad(*self.arguments())
        _check_gradient(self, "parameter", gradient, self.arrays[0])
        return [gradient]


def _move_off_starting_values(model: Model, seed: int) -> None:
    """Move parameters and state by about a tenth: at 0 and 1, where they start, a forgotten factor does not show."""
    rng = np.random.default_rng([seed, 3])
    for array in model.named_arrays().values():
        array += 0.1 * rng.standard_normal(array.shape) * np.where(array == 0, 1.0, np.abs(array))


def _check_gradient(problem: Problem, name: str, gradient: Any, array: Array) -> None:
    _check_array(problem, f"the gradient of {name}", gradient, name)
    if gradient.shape != array.shape:
        _wrong(problem, f"the gradient of {name} has shape {gradient.shape}, not {array.shape}", name)
    if gradient.dtype.kind != "f":
        _wrong(problem, f"the gradient of {name} has dtype {gradient.dtype}, expected floats", name)


def _check_array(problem: Any, what: str, value: Any, name: str | None = None) -> None:
    if not isinstance(value, (np.ndarray, np.generic)):
        hint = ": is a return missing?" if value is None else ""
        _wrong(problem, f"{what} is {'None' if value is None else f'a {type(value).__name__}'}, no array{hint}", name)


def _wrong(problem: Any, cause: str, name: str | None) -> None:
    text = describe(problem.subject)
    raise GradientError(f"{text}: {cause}", subject=text, mode=problem.mode, array=name, cause=cause)


def describe(subject: Any) -> str:
    """Return one line that names a subject: its `repr` with its class, or for a model its class and its size."""
    kind, text = type(subject).__name__, repr(subject)
    if isinstance(subject, Model) and len(subject.layers) > 1:
        return f"{kind} of {len(subject.layers)} layers"
    return text if kind in text else f"{kind} ({text})"


def has_modes(model: Model) -> bool:
    """Return whether training and evaluation may differ."""
    return any(isinstance(leaf, StochasticLayer) for _, leaf in model.named_layers())


def layer_passes(layer: Layer, inputs: Array, upstream: Array, stochastic: bool) -> list[Array]:
    """Return [outputs, dE/d inputs, dE/d parameter, ...] of one forward and one backward pass."""
    outputs = forward(layer, inputs, stochastic)
    grads_wrt_inputs, grads_wrt_params = layer.backprop(inputs, outputs, upstream)
    return [outputs, grads_wrt_inputs, *grads_wrt_params]


def params_of(layer: Layer) -> list[Array]:
    """Return the layer's parameters; none for one without."""
    return layer.params if isinstance(layer, LayerWithParameters) else []
