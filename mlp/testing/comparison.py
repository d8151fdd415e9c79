"""The comparison of what a backward pass says with numerical derivatives, array by array."""

import numpy as np

from mlp.backend import Array
from mlp.testing.derivatives import CENTRAL, COMPLEX, TOLERANCES, Derivatives, Probe, directions_of
from mlp.testing.diagnosis import Diagnosis, diagnose
from mlp.testing.problems import Problem
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
        """Return the rows of the report and a diagnosis of every wrong one."""
        for _ in range(4):
            probe, gradients = Probe(self.problem, self.methods), self.problem.gradients()
            found = [self._derivatives(probe, i, gradient) for i, gradient in enumerate(gradients)]
            stuck = [d for d in found if d.kinks.any() and not d.entries]
            if not stuck:
                break
            notes.append("the point was moved by random numbers of 1e-3, off kinks and ties")
            for array in self.problem.arrays:
                array += 1e-3 * self.rng.standard_normal(array.shape)
        rows, failures = [], []
        for index, derivatives in enumerate(found):
            row = self._row(probe, index, derivatives, found)
            if row.complex_step is None and COMPLEX in self.methods:
                notes.append(
                    f"{row.name}: fprop is not analytic in complex numbers (abs, astype(float), ...), so that the "
                    f"complex step cannot be used; central differences decide"
                )
            rows.append(row)
            if not row.right:
                failures.append(diagnose(probe, index, gradients[index], row))
        return rows, failures

    def _derivatives(self, probe: Probe, index: int, gradient: Array) -> Derivatives:
        chosen, entries = directions_of(gradient.shape, self.directions, self.rng)
        found = probe.derivatives(index, gradient, chosen, entries)
        if (np.isnan(found.by_step) & np.isnan(found.by_difference)).any():
            what = f"the derivative by {self.problem.names[index]} cannot be taken by {' or '.join(self.methods)}"
            why = "f is not finite there" if not np.isfinite(probe.here) else "fprop does not take complex numbers"
            raise GradientError(f"{what}: {why}", array=self.problem.names[index], mode=self.problem.mode, cause=why)
        return found

    def _row(self, probe: Probe, index: int, derivatives: Derivatives, found: list[Derivatives]) -> CheckedArray:
        """Measure the errors in units of the largest derivative. Below 1e-10 of its layer it is what rounding left."""
        owner = self.problem.owners[index]
        largest = max(d.scale for d, at in zip(found, self.problem.owners, strict=True) if at == owner)
        resolved = derivatives.scale > 1e-10 * largest
        tiny = max(self.problem.rounding / TOLERANCES[COMPLEX], float(np.finfo(float).tiny))
        unit = max(derivatives.scale, 1e-3 * largest if resolved else largest, tiny)
        errors = derivatives.errors(unit, max(unit, probe.floor))
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
