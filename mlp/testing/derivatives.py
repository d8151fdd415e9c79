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
        return max(self.numeric_scale, float(np.nan_to_num(self.size, posinf=0.0)))

    @property
    def numeric_scale(self) -> float:
        """The largest derivative that was found, whatever is claimed."""
        best = np.where(np.isnan(self.by_step), self.by_difference, self.by_step)
        return float(np.nanmax(np.abs(best), initial=0.0))

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

    @property
    def gap(self) -> float:
        """How far both sides are apart."""
        return abs(self.right - self.left)


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
                settled = self._settled(index, direction, step, max(self.floor, *np.nan_to_num((size, abs(step)))))
            found.append((claimed, *settled))
        claims, steps, differences, lows, highs = np.array(found, np.float64).T
        return Derivatives(claims, steps, differences, lows, highs, entries, size)

    def complex_step(self, index: int, direction: Array, h: float = 1e-30) -> float:
        """Return Im f(x + ih d) / h, or NaN where f does not take complex numbers."""
        return float(np.imag(self._moved(index, 1j * h * direction))) / h

    def slopes(self, index: int, direction: Array, h: float) -> Slopes:
        """Return the difference quotients along a direction; NaN where f is not defined so far from x."""
        ahead, behind = (float(np.real(self._moved(index, sign * h * direction))) for sign in (1.0, -1.0))
        noise = 4e-15 * max(abs(ahead), abs(behind), abs(self.here)) / h
        return Slopes((self.here - behind) / h, (ahead - self.here) / h, (ahead - behind) / (2.0 * h), noise)

    def _settled(self, index: int, direction: Array, step: float, scale: float) -> tuple[float, float, float, float]:
        """Return (complex step or NaN, difference or NaN, lowest and highest right slope) along a direction."""
        tolerance = 0.5 * TOLERANCES[CENTRAL] * scale
        size = float(np.abs(self.problem.arrays[index]).max(initial=0.0))
        size = size if size > 1e-6 else 1.0  # zeros have no size
        tried = []
        for h in (1e-6 * size, 1e-7 * size, 1e-8 * size):
            found = self.slopes(index, direction, h)
            tried.append(found)
            if found.gap <= max(1e-3 * max(scale, abs(found.central)), 4.0 * found.noise):  # smooth over the step
                off = abs(found.central - step)
                if off <= max(tolerance, found.noise):
                    return step, found.central if off <= tolerance else float("nan"), step, step
                if np.isnan(step) or found.gap < 0.2 * off:
                    return float("nan"), found.central, found.central, found.central
        return self._at_kink(index, direction, step, tried, 1e-11 * size)

    def _at_kink(
        self, index: int, direction: Array, step: float, tried: list[Slopes], h: float
    ) -> tuple[float, float, float, float]:
        """Return the same where there is a kink in every step, or f is not defined on one side."""
        known = [slopes for slopes in tried if np.isfinite(slopes.central)]
        if not known:
            return step, float("nan"), step, step
        closest, last = self.slopes(index, direction, h), known[-1]
        apart = closest.gap > max(1e-2 * last.gap, 4.0 * closest.noise) or closest.noise > 0.1 * last.gap
        if apart or np.isnan(step):
            slack = TOLERANCES[CENTRAL] * max(abs(last.left), abs(last.right))
            return step, last.central, min(last.left, last.right) - slack, max(last.left, last.right) + slack
        if abs(closest.central - step) > max(10.0 * closest.noise, closest.gap):
            return float("nan"), closest.central, closest.central - closest.noise, closest.central + closest.noise
        return step, float("nan"), step, step  # the kink is close by, and the complex step right

    def _moved(self, index: int, step: Array) -> Any:
        """Return f with one array moved; NaN where f refuses that, or drops imaginary parts."""
        arrays = list(self.problem.arrays)
        arrays[index] = np.asarray(arrays[index] + step)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            try:
                return self.problem.value(arrays)
            except (TypeError, ValueError, np.exceptions.ComplexWarning):
                return float("nan") * (1 + 1j)


def directions_of(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> tuple[Iterator[Array], bool]:
    """Return every unit direction of a small array, random directions of a large one; and whether it was the former.

    Arrays of more than 100,000 entries get a fifth of the directions, each of which tells more there.
    """
    size = int(np.prod(shape))
    if size <= count:
        return (unit.reshape(shape) for unit in np.eye(size)), True
    count = count if size <= 100_000 else max(1, count // 5)
    return (rng.standard_normal(shape) for _ in range(count)), False
