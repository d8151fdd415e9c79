"""What a layer promises besides right derivatives; each check raises GradientError when a promise is broken."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import StaleStateError
from mlp.layers import Layer, LayerWithParameters
from mlp.layers.base import forward, walk
from mlp.testing.derivatives import COMPLEX, Probe
from mlp.testing.problems import ModelProblem, describe, layer_passes, params_of
from mlp.testing.report import GradientError
from mlp.testing.ties import check_ties

BATCHES = (1, 2, 3)


def check_layer_conduct(problems: list[ModelProblem], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check every promise of a layer in every mode; return what was found right, and notes."""
    notes: list[str] = []
    for problem in problems:
        check_halves(problem)
        check_arguments(problem)
        check_repeats(problem)
        check_stale(problem)
        check_layouts(problem)
        notes += check_batches(problem, seed)
        check_ties(problem)
    layouts = ", ".join(name for name, _ in layouts_of(problems[0].arrays[0]))
    promises = (
        "bprop and grads_wrt_params agree with backprop",
        "no argument is changed",
        "calls repeat",
        "a stale bprop is right or refused",
        f"memory order ({layouts}) does not matter",
        f"batches of {', '.join(map(str, BATCHES))}",
        "ties",
    )
    return promises, tuple(dict.fromkeys(notes))


def check_model_conduct(problems: list[ModelProblem]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check that a model's passes change no argument and repeat."""
    for problem in problems:
        inputs, params = problem.arrays[0].copy(), [param.copy() for param in problem.model.params]
        first, again = problem.gradients(), problem.gradients()
        _same(problem, "two calls give two results", first, again, 0.0)
        _same(problem, "the passes changed", [inputs, *params], [problem.arrays[0], *problem.model.params], 0.0)
    return ("no argument is changed", "calls repeat"), ()


def check_error_conduct(subject: Any, outputs: Array, targets: Array | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check that an error or penalty changes no argument, repeats, and is a mean over the batch."""
    arguments = [outputs] if targets is None else [outputs, targets]
    given = [argument.copy() for argument in arguments]
    first = [subject(*arguments), subject.grad(*arguments)]
    _equal(subject, "two calls give two results", first, [subject(*arguments), subject.grad(*arguments)])
    _equal(subject, "an argument was changed", given, arguments)
    promises = ["no argument is changed", "calls repeat"]
    for name, x in layouts_of(outputs):
        rest = arguments[1:]
        _equal(
            subject, f"{name} memory gives another result", first, [subject(x, *rest), subject.grad(x, *rest)], 1e-12
        )
    if targets is not None and getattr(subject, "reduction", "mean") == "mean":
        twice = [np.concatenate([argument, argument]) for argument in arguments]
        cause = "the error of a batch put twice is another: it is no mean over the batch, a 1/N is missing"
        _equal(subject, cause, first[:1], [subject(*twice)], 1e-12)
        promises.append("a mean over the batch")
    return tuple(promises), ()


def check_halves(problem: ModelProblem) -> None:
    """Raise unless `bprop` and `grads_wrt_params` give what `backprop` gives."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0], problem.weights
    outputs = forward(layer, inputs, problem.stochastic)
    grads_wrt_inputs, grads = layer.backprop(inputs, outputs, upstream)
    halves = [layer.bprop(inputs, outputs, upstream)]
    if isinstance(layer, LayerWithParameters):
        halves += layer.grads_wrt_params(inputs, upstream)
    _same(problem, "backprop gives other gradients than bprop and grads_wrt_params", [grads_wrt_inputs, *grads], halves)
    alone = layer.backprop(inputs, outputs, upstream, need_inputs=False)[1]
    _same(problem, "backprop gives other gradients with need_inputs=False", grads, alone)


def check_arguments(problem: ModelProblem) -> None:
    """Raise if a pass changes its inputs, outputs, upstream gradient, or the parameters."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0].copy(), problem.weights.copy()
    params = [param.copy() for param in params_of(layer)]
    outputs = forward(layer, inputs, problem.stochastic)
    _same(problem, "fprop changed its inputs", [problem.arrays[0]], [inputs], 0.0)
    given = outputs.copy()
    layer.backprop(inputs, outputs, upstream)
    after = (("inputs", problem.arrays[0], inputs), ("outputs", given, outputs))
    for name, before, now in (*after, ("grads_wrt_outputs", problem.weights, upstream)):
        _same(problem, f"the backward pass changed its {name}", [before], [now], 0.0)
    _same(problem, "the passes changed the parameters", params, params_of(layer), 0.0)


def check_repeats(problem: ModelProblem) -> None:
    """Raise if the passes depend on what was called before (but for random streams, which are wound back)."""
    layer, fresh = _layer(problem), _layer(problem)
    inputs, upstream = problem.arrays[0], problem.weights
    first = layer_passes(fresh, inputs.copy(), upstream.copy(), problem.stochastic)
    layer_passes(layer, _other(inputs), upstream[::-1].copy(), problem.stochastic)
    for used, unused in zip(walk(layer), walk(_layer(problem)), strict=True):
        if getattr(used, "rng", None) is not None:
            used.rng = unused.rng  # type: ignore[attr-defined]
    again = layer_passes(layer, inputs.copy(), upstream.copy(), problem.stochastic)
    _same(problem, "the result depends on the previous call", first, again, 0.0)


def check_stale(problem: ModelProblem) -> None:
    """Raise if `bprop` with the arrays of an earlier `fprop` silently gives another gradient."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0], problem.weights
    outputs = forward(layer, inputs, problem.stochastic)
    right = [array.copy() for array in _backward(layer, inputs, outputs, upstream)]
    forward(layer, _other(inputs), problem.stochastic)
    try:
        stale = _backward(layer, inputs, outputs, upstream)
    except StaleStateError:
        return
    _same(
        problem,
        "after fprop of another batch, bprop of the first gives another gradient: keep nothing between the passes, or "
        "ask for it with `remembered`",
        right,
        stale,
    )


def check_layouts(problem: ModelProblem) -> None:
    """Raise if results depend on the memory order of inputs and upstream gradient."""
    inputs, upstream = problem.arrays[0], problem.weights
    expected = layer_passes(_layer(problem), inputs, upstream, problem.stochastic)
    for (name, x), (_, g) in zip(layouts_of(inputs), _cycle(upstream), strict=False):
        got = layer_passes(_layer(problem), x, g, problem.stochastic)
        _same(problem, f"{name} memory gives another result", expected, got)


def check_batches(problem: ModelProblem, seed: int) -> list[str]:
    """Check batches of 1, 2 and 3 along one random direction per array; return which were refused, and why."""
    notes = []
    for n in BATCHES:
        inputs = np.resize(problem.arrays[0], (n, *problem.arrays[0].shape[1:]))
        inputs = inputs + 0.01 * np.random.default_rng(seed).standard_normal(inputs.shape)
        try:
            small = ModelProblem(problem.subject, inputs, None, None, problem.stochastic, problem.mode, seed)
        except ValueError as refusal:
            notes.append(f"a batch of {n} is refused: {refusal}")
            continue
        _check_along_one_direction(small, f"a batch of {n}")
    return notes


def layouts_of(x: Array) -> Iterator[tuple[str, Array]]:
    """Yield (name, the same numbers in another memory order)."""
    yield "Fortran", np.asfortranarray(x)
    yield "reversed", x[..., ::-1].copy()[..., ::-1]
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield "strided", wide[..., ::2]
    if x.ndim > 2:
        yield "channels-last", np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)


def _cycle(x: Array) -> Iterator[tuple[str, Array]]:
    """Yield layouts without end, so that an upstream gradient of fewer axes has one for each of the inputs'."""
    while x.ndim:
        yield from layouts_of(x)


def _check_along_one_direction(problem: ModelProblem, what: str) -> None:
    probe = Probe(problem, (COMPLEX,))
    rng = np.random.default_rng(0)
    numbers = []
    for index, gradient in enumerate(problem.gradients()):
        direction = rng.standard_normal(gradient.shape)
        numbers.append((float((gradient * direction).sum()), probe.complex_step(index, direction)))
        if np.isnan(numbers[-1][1]):
            numbers[-1] = (numbers[-1][0], probe.slopes(index, direction, 1e-6).central)
    largest = max(abs(expected) for _, expected in numbers)
    for name, (got, expected) in zip(problem.names, numbers, strict=True):
        if not abs(got - expected) <= 1e-9 * max(abs(expected), 1e-3 * largest):
            _broken(problem, f"{what}: derivative by {name} got {got:.6g}, expected {expected:.6g}", name)


def _layer(problem: ModelProblem) -> Layer:
    """Return a fresh copy of the layer, its random streams as at the start."""
    return problem.model.astype(np.float64).layers[0]


def _other(inputs: Array) -> Array:
    return copy.deepcopy(1.5 * inputs[::-1] + 0.25)


def _backward(layer: Layer, inputs: Array, outputs: Array, upstream: Array) -> list[Array]:
    halves = [layer.bprop(inputs, outputs, upstream)]
    if isinstance(layer, LayerWithParameters):
        halves += layer.grads_wrt_params(inputs, upstream)
    return halves


def _same(problem: ModelProblem, cause: str, expected: list[Any], got: list[Any], tolerance: float = 1e-12) -> None:
    for a, b in zip(expected, got, strict=True):
        if not _within(a, b, tolerance):
            _broken(problem, cause)


def _equal(subject: Any, cause: str, expected: list[Any], got: list[Any], tolerance: float = 0.0) -> None:
    for a, b in zip(expected, got, strict=True):
        if not _within(a, b, tolerance):
            raise GradientError(f"{subject!r}: {cause}", subject=repr(subject), mode="both", cause=cause)


def _within(a: Any, b: Any, tolerance: float) -> bool:
    if np.shape(a) != np.shape(b):
        return False
    if tolerance == 0.0:
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc"))
    return bool(
        np.abs(np.asarray(a) - b).max(initial=0.0) <= tolerance * max(float(np.abs(a).max(initial=0.0)), 1e-300)
    )


def _broken(problem: ModelProblem, cause: str, array: str | None = None) -> None:
    mode = "" if problem.mode == "both" else f" in {problem.mode} mode"
    text = describe(problem.subject)
    raise GradientError(f"{text}{mode}: {cause}", subject=text, mode=problem.mode, array=array, cause=cause)
