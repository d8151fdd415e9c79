"""The gradient checker: compares what `bprop` and `grads_wrt_params` say with the derivative of `fprop`.

    check_gradients(AffineLayer(3, 2), np.random.randn(5, 3))

Two methods that share nothing with the backward pass. The complex step (Squire and Trapp, Using complex variables to
estimate derivatives of real functions, SIAM Review 40 (1998)): f'(x) = Im f(x + ih) / h, exact to rounding, as
nothing is subtracted, with h = 1e-30. Central differences: (f(x + h) - f(x - h)) / 2h, good to about 1e-8.

The scalar that is differentiated is the outputs weighed with **random** numbers, or an error, plus the penalties. (With
weights of one a wrong batch norm or softmax goes unseen: the sum of its outputs is constant.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.layers import Layer
from mlp.models import Model, SingleLayerModel


class GradientError(AssertionError):
    """A gradient is wrong; the message is the report."""


class CheckedArray(NamedTuple):
    """One array whose gradient was checked: its name, the number of derivatives, and the worst relative error."""

    name: str
    derivatives: int
    error: float


class GradientReport(NamedTuple):
    """What was checked and how well it agreed; prints as a table, in a notebook too."""

    subject: str
    method: str
    tolerance: float
    arrays: tuple[CheckedArray, ...]

    @property
    def worst(self) -> float:
        """The worst relative error."""
        return max(array.error for array in self.arrays)

    def __repr__(self) -> str:
        width = max(len(array.name) for array in self.arrays)
        lines = [
            f"  {a.name:{width}}  {a.derivatives:4} derivatives  error {a.error:.1e}"
            f"{'' if a.error <= self.tolerance else '  WRONG'}"
            for a in self.arrays
        ]
        verdict = "right" if self.worst <= self.tolerance else "WRONG"
        head = f"gradients of {self.subject}: {verdict} (by {self.method}, tolerance {self.tolerance:g})"
        return "\n".join([head, *lines])


def check_gradients(
    subject: Layer | Model,
    inputs: Array,
    error: Any = None,
    targets: Array | None = None,
    stochastic: bool = True,
    method: str = "complex step",
    tolerance: float | None = None,
    directions: int = 40,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients of a layer or model, by its inputs and every parameter, with numerical derivatives.

    `inputs` are a batch away from kinks and ties (random numbers are); `error` and `targets` may close the model with
    an error function; `stochastic` false checks evaluation mode; `method` is ``"complex step"`` (tolerance 1e-11) or
    ``"central differences"`` (1e-6). Arrays of up to `directions` entries are checked entry by entry, larger ones along
    that many random directions. An array's error is its largest wrong derivative over its largest derivative
    (at least a thousandth of the largest of all arrays, so that a gradient that should be 0 may be a rounding error).
    `subject` is not changed. Returns the report; raises GradientError with it where a gradient is wrong.
    """
    differentiate, default = _METHODS[method]
    model = subject if isinstance(subject, Model) else SingleLayerModel(subject)
    rng = np.random.default_rng(seed)
    problem = _Problem(model, np.asarray(inputs, np.float64), error, targets, stochastic, rng)
    names = ["inputs", *(f"{layer}.{key}" for layer, key, _ in model.param_keys())]
    differences, scales = [], []
    for index, gradient in enumerate(problem.gradients()):
        chosen = _directions(gradient.shape, directions, rng)
        numeric = np.array([differentiate(problem, index, direction) for direction in chosen])
        analytic = np.array([(gradient * direction).sum() for direction in chosen])
        differences.append(np.abs(numeric - analytic))
        scales.append(np.abs(numeric).max())
    floor = max(max(scales) * 1e-3, np.finfo(float).tiny)
    checked = [
        CheckedArray(name, len(wrong), float(wrong.max() / max(scale, floor)))
        for name, wrong, scale in zip(names, differences, scales, strict=True)
    ]
    report = GradientReport(repr(subject), method, tolerance or default, tuple(checked))
    if not report.worst <= report.tolerance:
        raise GradientError(repr(report))
    return report


class _Problem:
    """A scalar function of the inputs and of every parameter."""

    def __init__(
        self, model: Model, inputs: Array, error: Any, targets: Array | None, stochastic: bool, rng: np.random.Generator
    ) -> None:
        self.model = model.astype(np.float64)
        self.stochastic, self.error, self.targets = stochastic, error, targets
        self.arrays = [inputs, *self.model.params]
        self.weights = rng.standard_normal(self._run(self.arrays)[0].shape)

    def value(self, arrays: list[Array]) -> Any:
        """Return the scalar, penalties included, for these inputs and parameters, from a fresh copy of the model."""
        outputs, penalty = self._run(arrays)
        value = (self.weights * outputs).sum() if self.error is None else self.error(outputs, self.targets)
        return value + penalty

    def gradients(self) -> list[Array]:
        """Return what the backward pass says of every array."""
        model, inputs = self.model.astype(np.float64), self.arrays[0]
        activations = model.fprop(inputs, stochastic=self.stochastic)
        upstream = self.weights if self.error is None else self.error.grad(activations[-1], self.targets)
        grads_wrt_inputs, grads_wrt_params = model.bprop(activations, upstream)
        return [grads_wrt_inputs, *grads_wrt_params]

    def moved(self, index: int, step: Any) -> Any:
        """Return the scalar with one array moved by a step."""
        arrays = list(self.arrays)
        arrays[index] = arrays[index] + step
        return self.value(arrays)

    def _run(self, arrays: list[Array]) -> tuple[Array, Any]:
        model = self.model.astype(np.result_type(*arrays))
        model.params = arrays[1:]
        return model.fprop(arrays[0], stochastic=self.stochastic)[-1], model.params_penalty()


def _directions(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> Array:
    """Return every unit direction of a small array, random directions of a large one."""
    size = int(np.prod(shape))
    flat = np.eye(size) if size <= count else rng.standard_normal((count, size))
    return flat.reshape(-1, *shape)


def _complex_step(problem: _Problem, index: int, direction: Array, h: float = 1e-30) -> float:
    return float(problem.moved(index, 1j * h * direction).imag / h)


def _central_difference(problem: _Problem, index: int, direction: Array, h: float = 1e-6) -> float:
    ahead, behind = (problem.moved(index, sign * h * direction) for sign in (1.0, -1.0))
    return float((ahead - behind) / (2.0 * h))


_Method = Callable[[_Problem, int, Array], float]
_METHODS: dict[str, tuple[_Method, float]] = {
    "complex step": (_complex_step, 1e-11),
    "central differences": (_central_difference, 1e-6),
}
