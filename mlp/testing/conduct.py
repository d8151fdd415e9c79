"""What a layer promises besides right derivatives; each check raises GradientError when a promise is broken."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import StaleStateError
from mlp.layers import Layer, LayerWithParameters, StochasticLayer
from mlp.layers.base import forward, walk
from mlp.testing.comparison import Comparison
from mlp.testing.problems import ErrorProblem, ModelProblem, PenaltyProblem, describe, layer_passes, params_of
from mlp.testing.report import GradientError
from mlp.testing.ties import check_ties

BATCHES = (1, 2, 3)


def check_layer_manners(problem: ModelProblem) -> None:
    """Raise if a pass of a layer changes its arguments, or depends on what was called before."""
    check_arguments(problem)
    check_repeats(problem)


def check_model_manners(problem: ModelProblem) -> None:
    """Raise if a model's passes change an argument, or if two calls give two results."""
    first = [array.copy() for array in problem.gradients()]
    _same(problem, "two calls give two results", first, problem.gradients(), 0.0)
    model, x, alone = problem.model.astype(np.float64), problem.arrays[0].copy(), []
    params = [param.copy() for param in model.params]
    for layer in problem.model.astype(np.float64).layers:
        alone.append(x.copy())
        x = forward(layer, x, problem.stochastic)
    upstream = problem.upstream().copy()
    activations = model.fprop(problem.arrays[0].copy(), stochastic=problem.stochastic)
    model.bprop(activations, upstream)
    given = None if problem.targets is None else problem.targets.copy()
    if problem.error is not None:
        problem.error(activations[-1].copy(), problem.targets), problem.error.grad(activations[-1], problem.targets)
        _same(problem, "the error changed its targets", [given], [problem.targets], 0.0)
    who = [*(f"inputs of {layer!r}" for layer in model.layers), "outputs of the model"]
    for what, before, after in zip(who, [*alone, x], activations, strict=True):
        _same(problem, f"the passes changed the {what}", [before], [after], 0.0)
    _same(problem, "the passes changed their upstream gradient", [problem.upstream()], [upstream], 0.0)
    _same(problem, "the passes changed the parameters", params, model.params, 0.0)


def check_error_manners(problem: ErrorProblem | PenaltyProblem) -> None:
    """Raise if an error or penalty changes an argument, or if two calls give two results."""
    subject, given, arguments = problem.subject, problem.arguments(), problem.arguments()
    first = [np.copy(subject(*arguments)), np.copy(subject.grad(*arguments))]
    _same(problem, "an argument was changed", given, arguments, 0.0)
    other = [problem.arrays[0][::-1] * 0.9, *(argument[::-1] for argument in arguments[1:])]
    subject(*other), subject.grad(*other)
    again = [subject(*arguments), subject.grad(*arguments)]
    _same(problem, "two calls give two results", first, again, 0.0)


MANNERS = ("no argument is changed", "calls repeat")


def check_layer_conduct(problems: list[ModelProblem]) -> list[str]:
    """Check what a layer promises of its passes, in every mode; return what was found right."""
    tied = True
    for problem in problems:
        check_halves(problem)
        check_stale(problem)
        check_layouts(problem)
        check_examples(problem)
        tied = check_ties(problem) and tied
    layouts = ", ".join(name for name, _ in layouts_of(problems[0].arrays[0]))
    found = ["bprop and grads_wrt_params agree with backprop", "a stale bprop is right or refused"]
    return [*found, f"memory order ({layouts}) does not matter", *(["ties"] if tied else [])]


def check_error_conduct(problem: ErrorProblem | PenaltyProblem) -> list[str]:
    """Check that memory order does not matter to an error or penalty, and that a mean is one."""
    subject, arguments = problem.subject, problem.arguments()
    first = [subject(*arguments), subject.grad(*arguments)]
    for name, x in layouts_of(arguments[0]):
        again = [subject(x, *arguments[1:]), subject.grad(x, *arguments[1:])]
        _same(problem, f"{name} memory gives another result", first, again)
    if len(arguments) == 1 or getattr(subject, "reduction", "mean") != "mean":
        return []
    twice = [np.concatenate([argument, argument]) for argument in arguments]
    cause = "the error of a batch put twice is another: it is no mean over the batch, a 1/N is missing"
    _same(problem, cause, first[:1], [subject(*twice)])
    return ["a mean over the batch"]


def check_arguments(problem: ModelProblem) -> None:
    """Raise if a pass changes its inputs, outputs, upstream gradient, or the parameters."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0].copy(), problem.weights.copy()
    params = [param.copy() for param in params_of(layer)]
    outputs = forward(layer, inputs, problem.stochastic)
    _same(problem, "fprop changed its inputs", [problem.arrays[0]], [inputs], 0.0)
    _same(problem, "fprop changed the parameters", params, params_of(layer), 0.0)
    given = outputs.copy()
    layer.backprop(inputs, outputs, upstream)
    after = (("inputs", problem.arrays[0], inputs), ("outputs", given, outputs))
    for name, before, now in (*after, ("grads_wrt_outputs", problem.weights, upstream)):
        _same(problem, f"the backward pass changed its {name}", [before], [now], 0.0)
    _same(problem, "the backward pass changed the parameters", params, params_of(layer), 0.0)


def check_repeats(problem: ModelProblem) -> None:
    """Raise if the passes depend on what was called before (but for random streams, which are wound back)."""
    layer, batch = _layer(problem), (problem.arrays[0], problem.weights)
    other = _other(problem.arrays[0]), problem.weights[::-1]
    first = _passes(problem, layer, batch)
    kept = [array.copy() for array in first]
    for later in (other, batch):
        _rewind(layer, _layer(problem))
        expected = _passes(problem, _layer(problem), later)
        got = _passes(problem, layer, later)
        _same(problem, "a later call overwrites what an earlier one returned: return new arrays", kept, first, 0.0)
        _same(problem, "the result depends on the previous call", expected, got, 0.0)


def check_halves(problem: ModelProblem) -> None:
    """Raise unless `bprop` and `grads_wrt_params` give what `backprop` gives."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0].copy(), problem.weights.copy()
    outputs = forward(layer, inputs, problem.stochastic)
    grads_wrt_inputs, grads = layer.backprop(inputs, outputs, upstream)
    whole = [grads_wrt_inputs, *grads]
    halves = _backward(layer, inputs, outputs, upstream)
    _same(problem, "backprop gives other gradients than bprop and grads_wrt_params", whole, halves)
    alone = layer.backprop(inputs, outputs, upstream, need_inputs=False)[1]
    _same(problem, "backprop gives other gradients with need_inputs=False", grads, alone)


def check_stale(problem: ModelProblem) -> None:
    """Raise if `bprop` with the arrays of an earlier `fprop` silently gives another gradient."""
    layer, inputs, upstream = _layer(problem), problem.arrays[0].copy(), problem.weights.copy()
    outputs = forward(layer, inputs, problem.stochastic)
    right = [array.copy() for array in _backward(layer, inputs, outputs, upstream)]
    forward(layer, _other(inputs), problem.stochastic)
    try:
        stale = _backward(layer, inputs, outputs, upstream)
    except StaleStateError:
        return
    _same(
        problem,
        "after fprop of another batch, bprop of the first gives another gradient: what fprop keeps must be bound to "
        "its inputs, by self.remember in fprop and self.remembered in bprop",
        right,
        stale,
    )


def check_layouts(problem: ModelProblem) -> None:
    """Raise if results depend on the memory order of inputs and upstream gradient."""
    inputs, upstream = problem.arrays[0], problem.weights
    expected = layer_passes(_layer(problem), inputs.copy(), upstream.copy(), problem.stochastic)
    for (name, x), (_, g) in zip(layouts_of(inputs), _cycle(upstream), strict=False):
        got = layer_passes(_layer(problem), x, g, problem.stochastic)
        _same(problem, f"{name} memory gives another result", expected, got)


def check_examples(problem: ModelProblem) -> None:
    """Raise if in evaluation mode an example's outputs depend on the other examples of the batch."""
    layer, inputs = _layer(problem), problem.arrays[0]
    if problem.stochastic or not isinstance(layer, StochasticLayer) or layer.children() or len(inputs) == 1:
        return
    try:
        fewer = forward(layer, inputs[:-1].copy(), False)
    except ValueError:  # refused, which check_batches notes
        return
    cause = "in evaluation an example's outputs depend on the other examples of the batch"
    _same(problem, cause, [problem.outputs[:-1]], [fewer])


def check_batches(
    problems: list[ModelProblem], compare: Callable[[ModelProblem], Comparison], notes: list[str], seed: int
) -> list[str]:
    """Compare the gradients of batches of 1, 2 and 3; note which were refused, and why."""
    refused: dict[int, str] = {}
    for problem in problems:
        for n in BATCHES:
            inputs = np.resize(problem.arrays[0], (n, *problem.arrays[0].shape[1:]))
            inwards = 0.1 * np.random.default_rng([seed, 4]).uniform(size=inputs.shape)
            inputs = inputs + inwards * (problem.arrays[0].mean() - inputs)
            try:
                small = ModelProblem(problem.subject, inputs, None, None, problem.stochastic, problem.mode, seed)
            except ValueError as refusal:
                refused[n] = str(refusal)
            else:
                _check_batch(problem, small, n, compare)
    others = [n for n in BATCHES if n != len(problems[0].arrays[0])]
    if all(n in refused for n in others):
        why = f"{refused[others[-1]]}: is a batch size written into it?"
        _broken(problems[0], f"batches of {others} are refused: {why}")
    notes += [f"a batch of {n} is refused: {refusal}" for n, refusal in refused.items()]
    return [f"batches of {', '.join(str(n) for n in BATCHES if n not in refused)}"]


def _check_batch(
    problem: ModelProblem, small: ModelProblem, n: int, compare: Callable[[ModelProblem], Comparison]
) -> None:
    if small.outputs.ndim != problem.outputs.ndim:
        shapes = f"{small.outputs.shape}, where {len(problem.arrays[0])} give {problem.outputs.shape}"
        _broken(problem, f"a batch of {n} gives outputs of shape {shapes}: an axis is lost")
    try:
        _, failures = compare(small).run([])
    except ValueError as refusal:
        _broken(problem, f"a batch of {n}: fprop takes it, and the backward pass raises: {refusal}")
    for failure in failures:
        _broken(problem, f"a batch of {n}: {failure.text()}", failure.array)


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


def _layer(problem: ModelProblem) -> Layer:
    """Return a fresh copy of the layer, its random streams as at the start."""
    return problem.model.astype(np.float64).layers[0]


def _passes(problem: ModelProblem, layer: Layer, batch: tuple[Array, Array]) -> list[Array]:
    return layer_passes(layer, batch[0].copy(), batch[1].copy(), problem.stochastic)


def _rewind(layer: Layer, fresh: Layer) -> None:
    """Give a layer the random streams of a fresh one."""
    for used, unused in zip(walk(layer), walk(fresh), strict=True):
        if getattr(used, "rng", None) is not None:
            used.rng = unused.rng  # type: ignore[attr-defined]  # only some layers have one


def _other(inputs: Array) -> Array:
    """Return another batch, between the numbers of this one: inside the same domain."""
    return 0.75 * inputs[::-1] + 0.25 * inputs.mean()


def _backward(layer: Layer, inputs: Array, outputs: Array, upstream: Array) -> list[Array]:
    halves = [layer.bprop(inputs, outputs, upstream)]
    if isinstance(layer, LayerWithParameters):
        halves += layer.grads_wrt_params(inputs, upstream)
    return halves


_ROUNDING = 64 * float(np.finfo(float).eps)
"""Of the largest number in a layer: what a gradient of 0, as a bias's before a batch normalisation, is off by."""


def _same(problem: Any, cause: str, expected: list[Any], got: list[Any], tolerance: float = 1e-12) -> None:
    largest = max((float(np.abs(a).max(initial=0.0)) for a in expected), default=0.0)
    floor = max(1e-3 * tolerance, _ROUNDING) * max(largest, float(np.finfo(float).tiny))
    pairs = zip(expected, got, strict=len(expected) == len(got))
    if len(expected) != len(got) or not all(_within(a, b, tolerance, floor) for a, b in pairs):
        _broken(problem, cause)


def _within(a: Any, b: Any, tolerance: float, floor: float) -> bool:
    if np.shape(a) != np.shape(b):
        return False
    if tolerance == 0.0:
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc"))
    allowed = max(tolerance * float(np.abs(a).max(initial=0.0)), floor)
    return bool(np.abs(np.asarray(a) - b).max(initial=0.0) <= allowed)


def _broken(problem: Any, cause: str, array: str | None = None) -> None:
    mode = "" if problem.mode == "both" else f" in {problem.mode} mode"
    text = describe(problem.subject)
    raise GradientError(f"{text}{mode}: {cause}", subject=text, mode=problem.mode, array=array, cause=cause)
