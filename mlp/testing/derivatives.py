"""Numerical derivatives of a problem, by two methods that share nothing with the backward pass.

The complex step (Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40
(1998)): f'(x) = Im f(x + ih) / h, exact to rounding, as nothing is subtracted, with h = 1e-30. Central differences:
(f(x + h) - f(x - h)) / 2h, good to about 1e-8, with h = 1e-6.

Where the two disagree, smaller steps tell why. Differences that come round to the complex step: a kink lies between
x - h and x + h, or a steep curve. Slopes to the left and to the right that stay apart: x is exactly on a kink or tie,
where any slope between the two is right. Two slopes that agree with each other and not with the complex step: the
function is not analytic (`abs`, a cast to float), so that the complex step cannot be used, and differences decide.
"""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.testing.problems import Problem

COMPLEX, CENTRAL = "complex step", "central differences"
TOLERANCES = {COMPLEX: 1e-11, CENTRAL: 1e-6}


class Derivatives(NamedTuple):
    """Derivatives of one array along directions: claimed, and by each method; NaN where a method cannot be used.

    `low` and `high` bound what is right: equal but at an exact kink. `size` is the length of the claimed gradient,
    what a derivative along a random direction is of the order of (or its largest entry, where `entries`).
    """

    claimed: Array
    by_step: Array
    by_difference: Array
    low: Array
    high: Array
    entries: bool
    size: float

    @property
    def kinks(self) -> Array:
        """Where the point is on a kink, and what is claimed is another slope than that of the complex step."""
        agrees = np.abs(self.claimed - self.by_step) <= 1e-9 * self.scale
        return (self.low != self.high) & ~agrees

    @property
    def scale(self) -> float:
        """The largest derivative; at least the claimed size, as one direction may by chance be an even one."""
        best = np.where(np.isnan(self.by_step), self.by_difference, self.by_step)
        return float(np.nanmax(np.abs(np.append(best, self.size)), initial=0.0))

    def errors(self, unit_step: float, unit_difference: float) -> tuple[float | None, float | None]:
        """Return the largest wrong derivative by each method, in these units; None where it was not used."""
        outside = np.maximum(np.maximum(self.low - self.claimed, self.claimed - self.high), 0.0)
        outside = np.where(np.isnan(self.claimed), np.nan, outside)
        wrong = []
        for method, unit in ((self.by_step, unit_step), (self.by_difference, unit_difference)):
            used = ~np.isnan(method)
            smooth = self.low == self.high
            gaps = np.abs(self.claimed - method)[used & smooth]
            wrong.append(float(np.max(gaps, initial=0.0)) / unit if used.any() else None)
        if self.kinks.any() and wrong[1] is not None:
            wrong[1] = float(np.maximum(wrong[1], np.max(outside[self.kinks]) / unit_difference))
        return wrong[0], wrong[1]


class Slopes(NamedTuple):
    """One-sided and central difference quotients for one step."""

    left: float
    right: float
    central: float
    noise: float


class Probe:
    """Takes derivatives of a problem, by the methods asked for."""

    def __init__(self, problem: Problem, methods: tuple[str, ...]) -> None:
        self.problem, self.methods = problem, methods
        self.here = float(np.real(problem.value(problem.arrays)))
        self.floor = 1e-3 * max(1.0, abs(self.here))
        """Derivatives below it are lost in the rounding errors of differences."""

    def derivatives(self, index: int, gradient: Array, directions: Iterable[Array], entries: bool) -> Derivatives:
        """Return the derivatives of array `index` along directions, and what the gradient claims."""
        found = []
        size = float(np.abs(gradient).max(initial=0.0) if entries else np.sqrt((gradient * gradient).sum()))
        for direction in directions:
            with np.errstate(invalid="ignore"):
                claimed = float((gradient * direction).sum())
            step = self.complex_step(index, direction) if COMPLEX in self.methods else float("nan")
            settled = (step, float("nan"), step, step)
            if CENTRAL in self.methods:
                settled = self._settled(index, direction, step, max(self.floor, size, np.nan_to_num(abs(step))))
            found.append((claimed, *settled))
        claims, steps, differences, lows, highs = np.array(found, np.float64).T
        return Derivatives(claims, steps, differences, lows, highs, entries, size)

    def complex_step(self, index: int, direction: Array, h: float = 1e-30) -> float:
        """Return Im f(x + ih d) / h, or NaN where f does not take complex numbers."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            try:
                return float(np.imag(self._moved(index, 1j * h * direction))) / h
            except (TypeError, np.exceptions.ComplexWarning):
                return float("nan")

    def slopes(self, index: int, direction: Array, h: float) -> Slopes:
        """Return the difference quotients along a direction."""
        ahead, behind = (float(np.real(self._moved(index, sign * h * direction))) for sign in (1.0, -1.0))
        noise = 4e-15 * max(abs(ahead), abs(behind), abs(self.here)) / h
        return Slopes((self.here - behind) / h, (ahead - self.here) / h, (ahead - behind) / (2.0 * h), noise)

    def _settled(self, index: int, direction: Array, step: float, scale: float) -> tuple[float, float, float, float]:
        """Return (complex step or NaN, difference, lowest and highest right slope) along a direction."""
        tolerance = 0.5 * TOLERANCES[CENTRAL] * scale
        size = max(float(np.abs(self.problem.arrays[index]).max(initial=0.0)), 1e-6)
        size = 1.0 if size == 1e-6 else size  # zeros have no size
        tried = []
        for h in (1e-6 * size, 1e-7 * size, 1e-8 * size):
            tried.append(self.slopes(index, direction, h))
            off = abs(tried[-1].central - step)
            if off <= max(tolerance, tried[-1].noise):
                return step, tried[-1].central if off <= tolerance else float("nan"), step, step
        first, last = tried[0], tried[-1]
        gaps = [abs(slopes.right - slopes.left) for slopes in tried]
        if min(gaps) > max(tolerance, 4.0 * last.noise) and max(gaps) < 1.5 * min(gaps):
            slack = TOLERANCES[CENTRAL] * max(abs(first.left), abs(first.right))
            return step, first.central, min(first.left, first.right) - slack, max(first.left, first.right) + slack
        for i, (slopes, gap) in enumerate(zip(tried, gaps, strict=True)):
            if gap < 0.2 * abs(slopes.central - step) or np.isnan(step):
                steep = gap > 1e-3 * max(scale, abs(slopes.central))
                central = tried[min(i + 1, 2)].central if steep else slopes.central
                return float("nan"), central, central, central
        return step, float("nan"), step, step  # a kink closer by than any step: the differences say nothing

    def _moved(self, index: int, step: Array) -> Any:
        arrays = list(self.problem.arrays)
        arrays[index] = np.asarray(arrays[index] + step)
        return self.problem.value(arrays)


def directions_of(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> tuple[Iterator[Array], bool]:
    """Return every unit direction of a small array, random directions of a large one; and whether it was the former.

    Arrays of more than 100,000 entries get a fifth of the directions, each of which tells more there.
    """
    size = int(np.prod(shape))
    if size <= count:
        return (unit.reshape(shape) for unit in np.eye(size)), True
    count = count if size <= 100_000 else max(1, count // 5)
    return (rng.standard_normal(shape) for _ in range(count)), False
