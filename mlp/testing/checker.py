"""The gradient checker: compares what the backward pass says with numerical derivatives of the forward pass."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import check_array, check_choice, check_number, check_positive_int
from mlp.layers import Layer
from mlp.models import Model, SingleLayerModel
from mlp.testing.conduct import check_error_conduct, check_layer_conduct, check_model_conduct
from mlp.testing.derivatives import CENTRAL, COMPLEX, TOLERANCES, Derivatives, Probe, directions_of
from mlp.testing.diagnosis import Diagnosis, diagnose
from mlp.testing.problems import ErrorProblem, ModelProblem, PenaltyProblem, Problem, describe, has_modes
from mlp.testing.report import CheckedArray, GradientError, GradientReport

METHODS = (COMPLEX, CENTRAL)
MODES = ("training", "evaluation")


def check_gradients(
    subject: Any,
    inputs: Array | tuple[int, ...],
    error: Any = None,
    targets: Array | None = None,
    *,
    modes: Iterable[str] = MODES,
    methods: Iterable[str] = METHODS,
    tolerance: float | None = None,
    directions: int = 40,
    seed: int = 0,
    conduct: bool = True,
) -> GradientReport:
    """Prove the gradients of a layer or model right, by its inputs and every parameter, or raise GradientError.

    `subject` is a layer, a chain, a model (which `error` and `targets` may close), or an error (with `targets`) or a
    penalty, for which `inputs` are the outputs or the parameter. `inputs` is a batch, or a shape, which is filled
    with normal random numbers. Every gradient is compared with the complex step (to 1e-11) and with central
    differences (to 1e-6), in training and in evaluation mode; `tolerance` is that of the first of `methods`. Arrays
    of up to `directions` entries are checked entry by entry, larger ones along that many random directions. An
    array's error is its largest wrong derivative over its own largest one, however small that is, down to 1e-3 of
    the largest in its layer.

    At an exact kink or tie any sub-gradient is right; where a large array meets one, its point is moved by random
    numbers of 1e-3, and the report says so. Where `fprop` does not take complex numbers (`abs`, `astype(float)`),
    central differences alone decide, and the report says so too.

    With `conduct`, also what else a layer promises: `bprop` and `grads_wrt_params` agree with `backprop`; no argument
    is changed; calls repeat, whatever was called before; a `bprop` with the arrays of an earlier `fprop` is right or
    refused; Fortran, channels-last, strided and reversed memory gives the same; batches of 1, 2 and 3 are right or
    refused; ties get a sub-gradient. `subject` is not changed. Returns the report, a table.

    The error names the mode, the array, an entry with what was got and expected, and a guess at the cause.
    """
    methods, modes = tuple(methods), tuple(modes)
    for name, values, choices in (("methods", methods, METHODS), ("modes", modes, MODES)):
        for value in values or ("",):
            check_choice(f"check_gradients: {name}", value, choices)
    if tolerance is not None:
        tolerance = check_number("check_gradients: tolerance", tolerance, 0.0)
    directions = check_positive_int("check_gradients: directions", directions)
    inputs = _batch(inputs, seed)
    problems = _problems(subject, inputs, error, targets, modes, seed)
    rows: list[CheckedArray] = []
    notes: list[str] = []
    failures: list[Diagnosis] = []
    for problem in problems:
        found = _Check(problem, methods, tolerance, directions, seed).run(notes)
        rows += found[0]
        failures += found[1]
    report = GradientReport(describe(subject), tuple(rows), (), tuple(dict.fromkeys(notes)))
    if failures:
        raise _failure(report, failures)
    if not conduct:
        return report
    promises, more = _conduct(subject, problems, targets, seed)
    return report._replace(conduct=promises, notes=report.notes + more)


def _batch(inputs: Array | tuple[int, ...], seed: int) -> Array:
    if isinstance(inputs, (tuple, list)):
        shape = tuple(check_positive_int("check_gradients: a size in the shape of inputs", size) for size in inputs)
        return np.random.default_rng(seed).standard_normal(shape)
    check_array("check_gradients: inputs", inputs)
    if not np.isfinite(inputs).all():
        raise ValueError("check_gradients: inputs holds numbers that are not finite")
    return np.array(inputs, np.float64)


def _problems(
    subject: Any, inputs: Array, error: Any, targets: Any, modes: tuple[str, ...], seed: int
) -> list[ModelProblem | ErrorProblem | PenaltyProblem]:
    if isinstance(subject, (Layer, Model)):
        model = subject if isinstance(subject, Model) else SingleLayerModel(subject)
        chosen = modes if has_modes(model) else ("both",)
        return [ModelProblem(subject, inputs, error, targets, m != "evaluation", m, seed) for m in chosen]
    if not (callable(subject) and hasattr(subject, "grad")):
        raise TypeError(f"check_gradients: subject is {subject!r}, expected a layer, model, error or penalty")
    return [PenaltyProblem(subject, inputs) if targets is None else ErrorProblem(subject, inputs, targets)]


class _Check:
    """The check of one problem: every array of it, by the methods asked for."""

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
            row = self._row(index, derivatives, found)
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

    def _row(self, index: int, derivatives: Derivatives, found: list[Derivatives]) -> CheckedArray:
        """Measure the errors. A derivative below 1e-10 of the largest in its layer is what rounding left."""
        owner = self.problem.owners[index]
        largest = max(d.scale for d, at in zip(found, self.problem.owners, strict=True) if at == owner)
        resolved = derivatives.scale > 1e-10 * largest
        unit = max(derivatives.scale, 1e-3 * largest if resolved else largest, float(np.finfo(float).tiny))
        floor = 1e-3 * max(1.0, abs(float(np.real(self.problem.value(self.problem.arrays)))))
        errors = derivatives.errors(unit, max(unit, floor))
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


def _failure(report: GradientReport, failures: list[Diagnosis]) -> GradientError:
    lines = [f"  {failure.text()}" for failure in failures]
    first = failures[0]
    return GradientError(
        "\n".join([repr(report), *lines]),
        subject=report.subject,
        mode=first.mode,
        array=first.array,
        index=first.place,
        got=first.got,
        expected=first.expected,
        cause=first.cause,
        report=report,
    )


def _conduct(subject: Any, problems: list[Any], targets: Any, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what else was found right, and notes."""
    if isinstance(subject, Layer):
        return check_layer_conduct(problems, seed)
    if isinstance(subject, Model):
        return check_model_conduct(problems)
    return check_error_conduct(subject, problems[0].arrays[0], targets)
