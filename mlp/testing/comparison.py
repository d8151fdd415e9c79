"""The comparison of what a backward pass says with numerical derivatives, array by array."""

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
            self.tolerances = (tolerance, TOLERANCES[CENTRAL]) if COMPLEX in methods else (0.0, tolerance)
        self.rng = np.random.default_rng([seed, 1])

    def run(self, notes: list[str]) -> tuple[list[CheckedArray], list[Diagnosis]]:
        """Return the rows of the report and a diagnosis of every wrong one; add notes."""
        for _ in range(4):
            probe, gradients = self._probe(), self.problem.gradients()
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

    def _probe(self) -> Probe:
        probe = Probe(self.problem, self.methods)
        if not np.isfinite(probe.here):
            text, mode = describe(self.problem.subject), self.problem.mode
            cause = f"the value is {probe.here} there: choose other inputs (or outputs, or targets)"
            raise GradientError(f"{text}: {cause}", subject=text, mode=mode, cause=cause)
        return probe

    def _notes(self, row: CheckedArray) -> list[str]:
        if row.complex_step is None and COMPLEX in self.methods:
            why = "fprop is not analytic in complex numbers (abs, astype(float), ...)"
            return [f"{row.name}: {why}, so that the complex step cannot be used; central differences decide"]
        if row.central_differences is None and CENTRAL in self.methods:
            return [f"{row.name}: central differences are lost in rounding; the complex step decides"]
        return []

    def _derivatives(self, probe: Probe, index: int, gradient: Array) -> Derivatives:
        chosen, entries = directions_of(gradient.shape, self.directions, self.rng)
        found = probe.derivatives(index, gradient, chosen, entries)
        if (np.isnan(found.by_step) & np.isnan(found.by_difference)).any():
            what = f"the derivative by {self.problem.names[index]} cannot be taken by {' or '.join(self.methods)}"
            why = "fprop does not take complex numbers"
            raise GradientError(f"{what}: {why}", array=self.problem.names[index], mode=self.problem.mode, cause=why)
        return found

    def _row(self, probe: Probe, index: int, derivatives: Derivatives, found: list[Derivatives]) -> CheckedArray:
        """Measure the errors in units of the largest derivative. Below 1e-13 of its layer it is what rounding left."""
        owner = self.problem.owners[index]
        largest = max(d.scale for d, at in zip(found, self.problem.owners, strict=True) if at == owner)
        resolved = derivatives.scale > 1e-13 * largest
        tiny = max(self.problem.rounding / TOLERANCES[COMPLEX], float(np.finfo(float).tiny))
        unit = max(derivatives.scale, 1e-3 * largest if resolved else largest, tiny)
        errors = derivatives.errors(unit, max(unit, probe.floor))
        if errors[0] is not None and probe.floor > unit:
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
