"""The gradient checker: compares what the backward pass says with numerical derivatives of the forward pass."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import check_array, check_choice, check_number, check_positive_int
from mlp.layers import Layer
from mlp.models import Model, SingleLayerModel
from mlp.testing.comparison import Comparison, check_finite
from mlp.testing.conduct import (
    MANNERS,
    check_batches,
    check_error_conduct,
    check_error_manners,
    check_layer_conduct,
    check_layer_manners,
    check_model_manners,
)
from mlp.testing.derivatives import CENTRAL, COMPLEX
from mlp.testing.diagnosis import Diagnosis
from mlp.testing.problems import ErrorProblem, ModelProblem, PenaltyProblem, describe, has_modes
from mlp.testing.report import GradientError, GradientReport

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
    the largest in its layer and those beside it. Parameters and state are moved by about a tenth before (in a copy),
    off the values 0 and 1 at which they start and at which a forgotten factor does not show.

    At an exact kink or tie any sub-gradient is right; where a large array meets one, its point is moved by random
    numbers of 1e-3, and the report says so. Where `fprop` does not take complex numbers (`abs`, `astype(float)`),
    central differences alone decide, and the report says so too.

    With `conduct`, also what else a layer promises: `bprop` and `grads_wrt_params` agree with `backprop`; no argument
    is changed; calls repeat, whatever was called before; a `bprop` with the arrays of an earlier `fprop` is right or
    refused; Fortran, channels-last, strided and reversed memory gives the same; batches of 1, 2 and 3 are right or
    refused; ties get a sub-gradient. `subject` is not changed. Returns the report, a table.

    The error names the mode, the array, an entry with what was got and expected, and a guess at the cause.

    >>> from mlp.layers import AffineLayer
    >>> from mlp.testing import check_gradients
    >>> report = check_gradients(AffineLayer(3, 2), (5, 3))
    >>> report.right, report.worst < 1e-12
    (True, True)
    >>> class Wrong(AffineLayer):
    ...     def bprop(self, inputs, outputs, grads_wrt_outputs):
    ...         return 2.0 * grads_wrt_outputs @ self.weights
    >>> check_gradients(Wrong(3, 2), (5, 3))
    Traceback (most recent call last):
    ...
    mlp.testing.report.GradientError: gradients of ...
    """
    methods, modes = _chosen("methods", methods, METHODS), _chosen("modes", modes, MODES)
    if tolerance is not None:
        tolerance = check_number("check_gradients: tolerance", tolerance, 0.0)
    directions = check_positive_int("check_gradients: directions", directions)
    seed = check_positive_int("check_gradients: seed", seed, minimum=0)
    inputs = _batch(inputs, [seed] if isinstance(subject, (Layer, Model)) else [seed, 5])  # not the targets' stream
    problems = _problems(subject, inputs, error, targets, modes, seed)
    for problem in problems:
        check_finite(problem)
        problem.gradients()  # refuses what is no gradient at all
        if conduct:
            _manners_of(subject)(problem)
    notes: list[str] = []
    compared = [Comparison(problem, methods, tolerance, directions, seed).run(notes) for problem in problems]
    failures = [failure for _, found in compared for failure in found]
    report = GradientReport(describe(subject), tuple(row for rows, _ in compared for row in rows))
    if failures:
        raise _failure(report._replace(notes=tuple(dict.fromkeys(notes))), failures)
    promises = [*MANNERS] if conduct else []
    if conduct and isinstance(subject, Layer):
        promises += check_layer_conduct(problems)
        promises += check_batches(problems, lambda small: Comparison(small, methods, tolerance, 1, seed), notes, seed)
    elif conduct and not isinstance(subject, Model):
        promises += check_error_conduct(problems[0])
    return report._replace(conduct=tuple(promises), notes=tuple(dict.fromkeys(notes)))


def _chosen(name: str, values: Iterable[str], choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the methods or modes asked for; one may be given by its name alone."""
    chosen = (values,) if isinstance(values, str) else tuple(values)
    return tuple(check_choice(f"check_gradients: {name}", value, choices) for value in chosen or ("",))


def _batch(inputs: Array | tuple[int, ...], stream: list[int]) -> Array:
    if isinstance(inputs, (tuple, list)):
        shape = tuple(check_positive_int("check_gradients: a size in the shape of inputs", size) for size in inputs)
        return np.random.default_rng(stream[0] if len(stream) == 1 else stream).standard_normal(shape)
    check_array("check_gradients: inputs", inputs)
    if inputs.dtype.kind == "c":
        raise TypeError(f"check_gradients: inputs has dtype {inputs.dtype}, expected real numbers")
    if not np.isfinite(inputs).all():
        raise ValueError("check_gradients: inputs holds numbers that are not finite")
    return np.array(inputs, np.float64)


def _problems(subject: Any, inputs: Array, error: Any, targets: Any, modes: tuple[str, ...], seed: int) -> list[Any]:
    if isinstance(subject, (Layer, Model)):
        if (error is None) != (targets is None):
            raise ValueError("check_gradients: error and targets close a model together: give both, or neither")
        if isinstance(error, type):
            raise TypeError(f"check_gradients: error is the class {error.__name__}: call it first")
        model = subject if isinstance(subject, Model) else SingleLayerModel(subject)
        chosen = modes if has_modes(model) else ("both",)
        return [ModelProblem(subject, inputs, error, targets, m != "evaluation", m, seed) for m in chosen]
    if isinstance(subject, type) or not (callable(subject) and hasattr(subject, "grad")):
        hint = "call the class first" if isinstance(subject, type) else "a layer is a subclass of mlp.layers.Layer"
        raise TypeError(f"check_gradients: subject is {subject!r}, expected a layer, model, error or penalty: {hint}")
    if targets is None and len(signature(subject.grad).parameters) > 1:
        raise TypeError(f"check_gradients: {subject!r} is an error: give its targets, as targets=...")
    return [PenaltyProblem(subject, inputs) if targets is None else ErrorProblem(subject, inputs, targets)]


def _failure(report: GradientReport, failures: list[Diagnosis]) -> GradientError:
    report, first = report._replace(causes=tuple(failure.text() for failure in failures)), failures[0]
    return GradientError(
        repr(report),
        subject=report.subject,
        mode=first.mode,
        array=first.array,
        index=first.place,
        got=first.got,
        expected=first.expected,
        cause=first.cause,
        report=report,
    )


def _manners_of(subject: Any) -> Callable[[Any], None]:
    """Return the check of arguments and repetition that fits a subject."""
    if isinstance(subject, Layer):
        return check_layer_manners
    return check_model_manners if isinstance(subject, Model) else check_error_manners
