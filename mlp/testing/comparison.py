"""The comparison of what a backward pass says with numerical derivatives, array by array."""

import copy

import numpy as np

from mlp.backend import Array
from mlp.testing.derivatives import CENTRAL, COMPLEX, TOLERANCES, Derivatives, Probe, directions_of
from mlp.testing.diagnosis import Diagnosis, diagnose
from mlp.testing.problems import Problem, describe
from mlp.testing.report import CheckedArray, GradientError


class Comparison:
    """The comparison of one problem: every array of it, by the methods asked for."""

    def __init__(
        self, problem: Problem, methods: tuple[str, ...], tolerance: float | None, directions: int, seed: int
    ) -> None:
        self.problem, self.methods, self.directions = problem, methods, directions
        self.tolerances = TOLERANCES[COMPLEX], TOLERANCES[CENTRAL]
        if tolerance is not None:
            first = methods[0] == COMPLEX
            self.tolerances = (tolerance, self.tolerances[1]) if first else (self.tolerances[0], tolerance)
        self.rng = np.random.default_rng([seed, 1])

    def run(self, notes: list[str]) -> tuple[list[CheckedArray], list[Diagnosis]]:
        """Return the rows of the report and a diagnosis of every wrong one; add notes."""
        for _ in range(4):
            probe, gradients = Probe(self.problem, self.methods), self.problem.gradients()
            found = [self._derivatives(probe, i, gradient) for i, gradient in enumerate(gradients)]
            if all(d.entries or not d.kinks.any() for d in found):
                break
            notes.append("the point was moved by random numbers of 1e-3, off kinks and ties")
            for array in self.problem.arrays:
                array += 1e-3 * self.rng.standard_normal(array.shape)
        rows = [self._row(probe, index, derivatives, found) for index, derivatives in enumerate(found)]
        notes += [note for row in rows for note in self._notes(row)]
        wrong = [index for index, row in enumerate(rows) if not row.right]
        return rows, [diagnose(probe, index, gradients[index], rows[index]) for index in wrong]

    def _notes(self, row: CheckedArray) -> list[str]:
        if row.complex_step == 0.0 and not row.resolved:
            return [
                f"{row.name}: every derivative is 0 here, so that nothing was tested: choose other inputs or targets"
            ]
        if row.complex_step is None and COMPLEX in self.methods:
            why = "fprop is not analytic in complex numbers (abs, astype(float), a float buffer, ...)"
            return [f"{row.name}: {why}, so that the complex step cannot be used; central differences decide"]
        if row.central_differences is None and CENTRAL in self.methods:
            return [f"{row.name}: central differences are lost in rounding; the complex step decides"]
        return []

    def _is_exact(self, probe: Probe, index: int) -> bool:
        """Return whether small derivatives stay the same a hair away: rounding errors do not."""
        rng, moved = np.random.default_rng(0), copy.copy(self.problem)
        moved.arrays = [array * (1.0 + 1e-8 * rng.standard_normal(array.shape)) for array in self.problem.arrays]
        chosen = list(directions_of(self.problem.arrays[index].shape, 2, rng)[0])
        probes = (probe, Probe(moved, self.methods))
        here, there = (np.array([p.complex_step(index, direction) for direction in chosen]) for p in probes)
        return bool(here.any() and np.abs(here - there).max() <= 1e-3 * np.abs(here).max())

    def _near(self, owner: str, index: int) -> bool:
        """Return whether a layer is the one of array `index`, or stands next to it."""
        order = list(dict.fromkeys(self.problem.owners))
        return abs(order.index(owner) - order.index(self.problem.owners[index])) <= 1

    def _derivatives(self, probe: Probe, index: int, gradient: Array) -> Derivatives:
        chosen, entries = directions_of(gradient.shape, self.directions, self.rng)
        found = probe.derivatives(index, gradient, chosen, entries)
        if (np.isnan(found.by_step) & np.isnan(found.by_difference)).any():
            what = f"the derivative by {self.problem.names[index]} cannot be taken by {' or '.join(self.methods)}"
            why = "fprop does not take complex numbers"
            raise GradientError(f"{what}: {why}", array=self.problem.names[index], mode=self.problem.mode, cause=why)
        return found

    def _row(self, probe: Probe, index: int, derivatives: Derivatives, found: list[Derivatives]) -> CheckedArray:
        """Measure the errors in units of the largest derivative, at least 1e-3 of the largest near by.

        Derivatives below 1e-10 of the largest near by are what rounding left, unless they are exact.
        """
        near = (d for d, owner in zip(found, self.problem.owners, strict=True) if self._near(owner, index))
        largest = max(d.numeric_scale for d in near)
        tiny = max(self.problem.rounding / TOLERANCES[COMPLEX], float(np.finfo(float).tiny))
        own = max(derivatives.scale, tiny)
        resolved = derivatives.numeric_scale > 1e-10 * largest or self._is_exact(probe, index)
        lost = resolved and not derivatives.claimed.any()
        unit = own if lost else max(own, 1e-3 * largest if resolved else largest)
        errors = derivatives.errors(unit, max(unit, probe.floor))
        settled = not np.isnan(derivatives.by_step).any() and not derivatives.kinks.any()
        if settled and probe.floor > unit:
            errors = errors[0], None
        return CheckedArray(
            self.problem.names[index],
            self.problem.mode,
            int(self.problem.arrays[index].size),
            len(derivatives.claimed),
            *errors,
            self.tolerances,
            resolved,
            int(derivatives.kinks.sum()),
        )


def check_finite(problem: Problem) -> None:
    """Raise GradientError where the number to be differentiated is none."""
    with np.errstate(all="ignore"):
        value = problem.value(problem.arrays)
    if not np.isfinite(value):
        text = describe(problem.subject)
        cause = f"the value is {value} there: choose other inputs (or outputs, or targets)"
        raise GradientError(f"{text}: {cause}", subject=text, mode=problem.mode, cause=cause)
