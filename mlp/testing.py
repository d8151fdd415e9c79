"""The gradient checker: compares what the backward pass of a layer or model says with the derivative of its `fprop`.

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
from mlp.layers import Layer, LayerWithParameters
from mlp.models import Model, SingleLayerModel


class GradientError(AssertionError):
    """A gradient is wrong; the message is the report."""


class CheckedArray(NamedTuple):
    """One array whose gradient was checked: its name, the number of derivatives, and the worst relative error.

    Not `resolved` is a gradient too small for the method to tell from rounding errors, as that of a bias before a
    batch normalisation, which is 0.
    """

    name: str
    derivatives: int
    error: float
    resolved: bool


class GradientReport(NamedTuple):
    """What was checked and how well it agreed; prints as a table, in a notebook too."""

    subject: str
    method: str
    tolerance: float
    arrays: tuple[CheckedArray, ...]

    @property
    def worst(self) -> float:
        """The worst relative error; NaN if one is NaN."""
        return float(np.max([array.error for array in self.arrays]))

    def __repr__(self) -> str:
        width = max(len(array.name) for array in self.arrays)
        lines = [
            f"  {a.name:{width}}  {a.derivatives:4} derivatives  error {a.error:.1e}"
            f"{'' if a.resolved else '  (0 to rounding)'}{'' if a.error <= self.tolerance else '  WRONG'}"
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
    that many random directions. An array's error is its largest wrong derivative over its own largest derivative,
    however small that is, down to what the method resolves. Also checked: that every gradient has its array's shape,
    that a single layer's `bprop` and `grads_wrt_params` agree with its `backprop`, and that the inputs are left as they
    are. `subject` is not changed. Returns the report; raises GradientError where a gradient is wrong.
    """
    if method not in _METHODS:
        raise ValueError(f"check_gradients: method is {method!r}, expected one of {', '.join(map(repr, _METHODS))}")
    differentiate, default, resolution = _METHODS[method]
    model = subject if isinstance(subject, Model) else SingleLayerModel(subject)
    rng = np.random.default_rng(seed)
    problem = _Problem(model, np.array(inputs, np.float64), error, targets, stochastic, rng)
    keys = [("inputs", "inputs"), *((layer, f"{layer}.{key}") for layer, key, _ in model.param_keys())]
    found = []
    for index, gradient in enumerate(problem.gradients([name for _, name in keys])):
        chosen = _directions(gradient.shape, max(1, directions), rng)
        numeric = np.array([differentiate(problem, index, direction) for direction in chosen])
        found.append((numeric, np.array([(gradient * direction).sum() for direction in chosen])))
    noise = resolution(problem, [layer for layer, _ in keys], [np.abs(numeric).max() for numeric, _ in found])
    checked = tuple(_compared(name, *pair, n) for (_, name), pair, n in zip(keys, found, noise, strict=True))
    report = GradientReport(repr(subject), method, default if tolerance is None else tolerance, checked)
    if not report.worst <= report.tolerance:
        raise GradientError(repr(report))
    return report


class Noise(NamedTuple):
    """What a method cannot resolve: derivatives below `floor`; their errors are measured in `unit`."""

    floor: float
    unit: float


def _compared(name: str, numeric: Array, analytic: Array, noise: Noise) -> CheckedArray:
    scale, wrong = np.abs(numeric).max(), np.abs(numeric - analytic).max()
    resolved = bool(scale > noise.floor)
    return CheckedArray(name, len(numeric), float(wrong / (scale if resolved else noise.unit)), resolved)


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

    def gradients(self, names: list[str]) -> list[Array]:
        """Return what the backward pass says of every array."""
        model, inputs = self.model.astype(np.float64), self.arrays[0].copy()
        activations = model.fprop(inputs, stochastic=self.stochastic)
        upstream = self.weights if self.error is None else self.error.grad(activations[-1], self.targets)
        grads_wrt_inputs, grads_wrt_params = model.bprop(activations, upstream)
        gradients = [grads_wrt_inputs, *grads_wrt_params]
        shapes = [(np.shape(gradient), array.shape) for gradient, array in zip(gradients, self.arrays, strict=False)]
        wrong = [f"{name}: {got}, not {want}" for name, (got, want) in zip(names, shapes, strict=False) if got != want]
        if wrong or len(gradients) != len(self.arrays):
            raise GradientError(f"{len(gradients)} gradients of {len(self.arrays)} arrays; shapes {'; '.join(wrong)}")
        if not np.array_equal(inputs, self.arrays[0]):
            raise GradientError("the passes changed the inputs")
        if len(model.layers) == 1:
            self._check_halves(model.layers[0], activations, upstream, gradients)
        return gradients

    def _check_halves(self, layer: Layer, activations: list[Array], upstream: Array, gradients: list[Array]) -> None:
        """Raise GradientError unless `bprop` and `grads_wrt_params` give what `backprop` gave."""
        halves = [layer.bprop(activations[0], activations[1], upstream)]
        if isinstance(layer, LayerWithParameters):
            halves += layer.grads_wrt_params(activations[0], upstream)
        for half, gradient in zip(halves, gradients, strict=True):
            if np.abs(half - gradient).max() > 1e-12 * max(np.abs(gradient).max(), np.finfo(float).tiny):
                raise GradientError(f"{layer!r}: backprop gives other gradients than bprop and grads_wrt_params")

    def moved(self, index: int, step: Any) -> Any:
        """Return the scalar with one array moved by a step."""
        arrays = list(self.arrays)
        arrays[index] = arrays[index] + step
        return self.value(arrays)

    def _run(self, arrays: list[Array]) -> tuple[Array, Any]:
        model = self.model.astype(np.result_type(*arrays))
        model.params = arrays[1:]
        return model.fprop(arrays[0].copy(), stochastic=self.stochastic)[-1], model.params_penalty()


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


def _complex_noise(_: _Problem, layers: list[str], scales: list[float]) -> list[Noise]:
    """A derivative below 1e-10 of the largest in its layer is what rounding left, and is compared with that one."""
    largest = [max(scale for scale, at in zip(scales, layers, strict=True) if at == layer) for layer in layers]
    return [Noise(1e-10 * scale, max(scale, float(np.finfo(float).tiny))) for scale in largest]


def _difference_noise(problem: _Problem, layers: list[str], _: list[float]) -> list[Noise]:
    """A derivative needs six digits above the rounding of f, 1e-16 f, divided by h."""
    floor = 1e-3 * max(1.0, abs(float(problem.value(problem.arrays))))
    return [Noise(floor, floor)] * len(layers)


_Differentiate = Callable[[_Problem, int, Array], float]
_Resolution = Callable[[_Problem, list[str], list[float]], list[Noise]]
_METHODS: dict[str, tuple[_Differentiate, float, _Resolution]] = {
    "complex step": (_complex_step, 1e-11, _complex_noise),
    "central differences": (_central_difference, 1e-6, _difference_noise),
}
