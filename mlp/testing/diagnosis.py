"""Where a gradient is wrong, and a guess at why: ratios and differences that classic mistakes leave behind."""

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.testing.derivatives import Probe
from mlp.testing.problems import ModelProblem
from mlp.testing.report import CheckedArray

_UNKNOWN = "no simple relation between both"
_FULL = 1500
"""Gradients of up to this many entries are computed in full for the guess."""


class Diagnosis(NamedTuple):
    """One wrong array: an entry with what was got and expected, and a guess at the cause."""

    mode: str
    array: str
    place: tuple[int, ...]
    got: float
    expected: float
    cause: str

    def text(self) -> str:
        """Return one line that says it all."""
        mode = "" if self.mode == "both" else f"in {self.mode} mode "
        entry = f"{self.array}[{', '.join(map(str, self.place))}]"
        got, expected = self.got + 0.0, self.expected + 0.0  # no -0
        digits = 6 if f"{got:.6g}" != f"{expected:.6g}" else 17
        return f"{mode}{entry}: got {got:.{digits}g}, expected {expected:.{digits}g}; {self.cause}"


def diagnose(probe: Probe, index: int, gradient: Array, row: CheckedArray) -> Diagnosis:
    """Return where array `index` is wrong, and why, as far as can be guessed."""
    gradient = np.asarray(gradient, np.float64)
    if not np.isfinite(gradient).all():
        at = np.unravel_index(int(np.argmin(np.isfinite(gradient))), gradient.shape)
        right = _derivative_of_entries(probe, index)(int(np.argmin(np.isfinite(gradient))))
        cause = "it holds numbers that are not finite"
        return Diagnosis(row.mode, row.name, tuple(int(i) for i in at), float(gradient[at]), right, cause)
    entry = _derivative_of_entries(probe, index)
    usable = row.complex_step is not None
    if gradient.size <= _FULL:
        expected = np.array([entry(i) for i in range(gradient.size)]).reshape(gradient.shape)
        wrong = np.nan_to_num(np.abs(gradient - expected), nan=np.inf)
        at = np.unravel_index(int(np.argmax(wrong)), gradient.shape)
        forgotten = _upstream_forgotten(probe, index, gradient)
        cause = forgotten or guess(expected, gradient, _context(probe.problem, index))
        return Diagnosis(row.mode, row.name, tuple(int(i) for i in at), float(gradient[at]), float(expected[at]), cause)
    flat = _bisect(probe, index, gradient, usable)
    some = np.unique(np.append(np.random.default_rng(0).integers(0, gradient.size, 200), flat))
    expected = np.array([entry(i) for i in some])
    cause = _ratio(expected, gradient.ravel()[some], _context(probe.problem, index)) or _UNKNOWN
    at = np.unravel_index(flat, gradient.shape)
    return Diagnosis(row.mode, row.name, tuple(int(i) for i in at), float(gradient[at]), float(entry(flat)), cause)


def _upstream_forgotten(probe: Probe, index: int, gradient: Array) -> str | None:
    """Recognise the gradient of the plain sum of the outputs."""
    problem = probe.problem
    if not isinstance(problem, ModelProblem) or problem.error is not None:
        return None
    kept, problem.weights = problem.weights, np.ones_like(problem.weights)
    entry = _derivative_of_entries(Probe(problem, probe.methods), index)
    plain = np.array([entry(i) for i in range(gradient.size)]).reshape(gradient.shape)
    problem.weights = kept
    if plain.any() and _close(plain, gradient):
        return "it is the gradient for grads_wrt_outputs of 1: the upstream gradient is forgotten"
    return None


def _derivative_of_entries(probe: Probe, index: int) -> Callable[[int], float]:
    shape = probe.problem.arrays[index].shape

    def derivative(flat: int) -> float:
        direction = np.zeros(prod(shape))
        direction[flat] = 1.0
        step = probe.complex_step(index, direction.reshape(shape))
        slopes = probe.slopes(index, direction.reshape(shape), 1e-6)
        near = abs(step - slopes.central) <= 1e-4 * max(abs(step), probe.floor)
        return step if near else slopes.central

    return derivative


def _bisect(probe: Probe, index: int, gradient: Array, usable: bool) -> int:
    """Return a wrong entry of a large array: halve the entries, go where the derivative is further off."""
    rng = np.random.default_rng(0)
    low, high = 0, int(gradient.size)
    noise = rng.standard_normal(gradient.size)
    while high - low > 1:
        middle = (low + high) // 2
        gaps = []
        for start, stop in ((low, middle), (middle, high)):
            direction = np.zeros(gradient.size)
            direction[start:stop] = noise[start:stop]
            direction = direction.reshape(gradient.shape)
            by_step = probe.complex_step(index, direction)
            right = by_step if usable else probe.slopes(index, direction, 1e-6).central
            gaps.append(abs(right - float((gradient * direction).sum())))
        low, high = (low, middle) if not gaps[0] < gaps[1] else (middle, high)
    return low


def _context(problem: Any, index: int) -> dict[str, Any]:
    """Return arrays and numbers that mistakes are made of."""
    array = problem.arrays[index]
    context: dict[str, Any] = {"array": array, "N": len(array), "batch": index == 0}
    if isinstance(problem, ModelProblem):
        inputs = problem.arrays[0]
        context |= {"N": len(inputs), "inputs": inputs, "outputs": problem.outputs, "upstream": problem.upstream()}
        context["layer"] = problem.model.layers[0] if len(problem.model.layers) == 1 else None
    return context


def guess(expected: Array, got: Array, context: dict[str, Any]) -> str:
    """Return a sentence about the likely cause, from the right gradient and the wrong one."""
    if not np.isfinite(got).all():
        return "it holds numbers that are not finite"
    found = (
        _ratio(expected, got, context),
        _rearranged(expected, got),
        _places(expected, got, few=True),
        _missing(expected, got, context),
        _ratios(expected, got),
        _places(expected, got, few=False),
    )
    return next((cause for cause in found if cause is not None), _UNKNOWN)


def _close(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() <= 1e-5 * max(float(np.abs(b).max()), float(np.finfo(float).tiny)))


def _ratio(expected: Array, got: Array, context: dict[str, Any]) -> str | None:
    """Recognise a constant factor."""
    if not got.any():
        return "it is all zeros: the gradient is missing"
    if not expected.any():
        return "it should be all zeros"
    unit = np.abs(expected).max()
    scaled = expected / unit
    factor = float((scaled * (got / unit)).sum() / (scaled * scaled).sum())
    if not _close(factor * expected, got):
        return None
    texts = [text for value, text in _factors(context) if abs(factor - value) <= 1e-5 * abs(value)]
    if texts:
        return "; or ".join(texts)
    if abs(factor - 1.0) <= 1e-4:
        return "it agrees to some digits: a cast to float32, or a small constant (epsilon) out of place"
    return f"it is {factor:.6g} times the right one"


def _factors(context: dict[str, Any]) -> Iterator[tuple[float, str]]:
    yield -1.0, "the sign is wrong"
    n = context["N"]
    counts = {"the batch size": n}
    for which in ("outputs", "inputs"):
        if which in context and context[which].ndim > 2:
            pixels = prod(context[which].shape[2:])
            counts[f"the number of pixels of the {which}"] = pixels
            counts[f"the batch size times the number of pixels of the {which}"] = n * pixels
    for name, count in counts.items():
        if count > 1:
            yield 1.0 / count, f"it is divided by {name}, {count}: averaged where it must be summed"
            yield float(count), f"it is {count} times the right one, {name}: a 1/N is missing"
            for power, root in ((1.0, ""), (0.5, "the root of ")):
                yield (count / (count - 1)) ** power, f"it is {root}n / (n - 1) times the right one, n = {count}"
                yield ((count - 1) / count) ** power, f"it is {root}(n - 1) / n times the right one, n = {count}"
    yield 2.0, "it is twice the right one: a 1/2 is missing, or a term is added twice"
    yield 0.5, "it is half the right one: a factor 2 is missing"
    kept = getattr(context.get("layer"), "incl_prob", None)
    if kept is not None:
        yield kept, "it is multiplied by the probability to stay once too often"
        yield 1.0 / kept, "it is divided by the probability to stay"


def _rearranged(expected: Array, got: Array) -> str | None:
    """Recognise transposed or reversed axes."""
    for first, second in ((a, b) for a in range(expected.ndim) for b in range(a + 1, expected.ndim)):
        if expected.shape[first] == expected.shape[second] and _close(expected.swapaxes(first, second), got):
            return f"it is the right one transposed: axes {first} and {second} are exchanged"
    for chosen in product((False, True), repeat=expected.ndim):
        axes = [axis for axis, reverse in enumerate(chosen) if reverse]
        if axes and _close(np.flip(expected, tuple(axes)), got):
            return f"it is the right one with axes {axes} reversed"
    return None


def _ratios(expected: Array, got: Array) -> str | None:
    """Recognise a factor of its own for each index of an axis."""
    for axis, length in enumerate(expected.shape):
        others = tuple(a for a in range(expected.ndim) if a != axis)
        if length > 1 and expected.size >= 3 * length and _multiple(got, expected, others):
            return f"each index of axis {axis} has a wrong factor of its own"
    return None


def _places(expected: Array, got: Array, few: bool) -> str | None:
    """Recognise mistakes in some entries only: in half of them at most, where `few`."""
    wrong = np.abs(got - expected) > 1e-6 * np.abs(expected).max()
    if wrong.all() or not wrong.any() or (few and 2 * wrong.sum() > wrong.size):
        return None
    for axis, length in enumerate(wrong.shape):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        lines = np.flatnonzero(wrong.any(axis=others))
        if length > 2 and len(lines) == 1 and lines[0] in (0, length - 1):
            return f"only index {lines[0]} of axis {axis} is wrong: a border is lost"
    zeros = ", they are 0" if not got[wrong].any() else ""
    return f"{int(wrong.sum())} of {wrong.size} entries are wrong{zeros}"


def _missing(expected: Array, got: Array, context: dict[str, Any]) -> str | None:
    """Recognise a term that is missing, or there too often, by what the difference is a multiple of."""
    gap, array = expected - got, context["array"]
    if context["batch"]:
        return _missing_in_inputs(gap, context)
    for kind, term, words in (("L2", array, "the parameter"), ("L1", np.sign(array), "its sign")):
        if gap.size > 2 and term.any() and _multiple(gap, term, None):
            often = "is missing" if (gap * term).sum() > 0 else "is there once too often"
            return f"the gradient of an {kind} penalty {often}: the difference goes with {words}"
    return None


def _missing_in_inputs(gap: Array, context: dict[str, Any]) -> str | None:
    inputs, outputs, upstream = context["array"], context.get("outputs"), context.get("upstream")
    if upstream is not None and upstream.shape == gap.shape:
        for sign, words in ((1.0, "a term is missing"), (-1.0, "a term is there twice")):
            if _close(sign * upstream, gap):
                return f"{words}: the difference is dE/d outputs itself, the way past F(x)"
    axes, inner = (0, *range(2, gap.ndim)), tuple(range(1, gap.ndim))
    centred, alone = (inputs - inputs.mean(axis=over, keepdims=True) for over in (axes, inner or None))
    terms = [
        ("is the same for all examples, the way through a mean", np.ones(gap.shape), axes),
        ("goes with the centred inputs, the way through a variance", centred, axes),
        ("is constant within an example, the way through its mean", np.ones(gap.shape), inner),
        ("goes with the inputs centred within each example, the way through its variance", alone, inner),
    ]
    if outputs is not None and outputs.shape == gap.shape:
        terms.append(("goes with the outputs, the way through a sum", outputs, inner))
    for text, term, over in terms:
        if term.any() and _multiple(gap, term, over):
            return f"a term is missing or wrong: the difference {text}"
    return None


def _multiple(gap: Array, term: Array, axes: tuple[int, ...] | None) -> bool:
    """Return whether the gap is a multiple of the term: as a whole, or with a factor for each place off `axes`.

    Fewer than three entries to a factor prove nothing.
    """
    per_factor = gap.size if axes is None else prod(gap.shape[axis] for axis in axes)
    if per_factor < 3:
        return False
    squares = (term * term).sum(axis=axes, keepdims=True)
    factor = (gap * term).sum(axis=axes, keepdims=True) / np.where(squares == 0, 1.0, squares)
    return _close(factor * term, gap)
