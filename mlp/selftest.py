"""The self-test: `python -m mlp.selftest` proves every layer, error and penalty right on this machine.

Gradients by two methods over the whole table of cases, the report's five networks over all their parameters, functions
at extremes against 60-digit arithmetic, plans against the layers, and, where there is a GPU, every layer on it against
the CPU. It needs nothing but the library, about half a minute, and no network. The exit status is 1 where anything is
wrong.
"""

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

import mlp
from mlp.backend import Array, GpuStatus, to_cpu, to_device, usable_gpu
from mlp.engine import ENGINES, Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import SettingError, log_softmax, num_threads, sigmoid, softmax
from mlp.layers import BatchNormalizationLayer, Convolution2DLayer
from mlp.layers.base import forward
from mlp.models import vgg
from mlp.testing import GradientReport, check_gradients
from mlp.testing.cases import ERROR_CASES, LAYER_CASES, PENALTY_CASES, LayerCase

NETWORKS = {
    "VGG08": (0, False, False),
    "VGG38": (5, False, False),
    "VGG38 BN": (5, True, False),
    "VGG38 RC": (5, False, True),
    "VGG38 BN+RC": (5, True, True),
}


class Section(NamedTuple):
    """One part of the self-test: its name, what it proves, and its named checks, each of which returns a report."""

    name: str
    proves: str
    checks: Mapping[str, Callable[[], GradientReport | float]]


def sections(gpu: bool, quick: bool = False) -> list[Section]:
    """Return the parts of the self-test; of a `quick` one only gradients, a case of every class, and no networks."""
    first = {type(case.build()): case for case in reversed(LAYER_CASES)}
    cases = list(first.values()) if quick else LAYER_CASES
    layers = {case.name: _layer_check(case, conduct=not quick) for case in cases}
    outer = {f"error: {name}": _check(error, x, targets) for name, error, x, targets in ERROR_CASES}
    outer |= {f"penalty: {name}": _check(penalty, parameter, None) for name, penalty, parameter in PENALTY_CASES}
    methods = "gradients by complex step and central differences"
    plans = dict(map(_plan, NETWORKS))
    found = [
        Section("layers", f"{methods}, {'of every class' if quick else 'and all that a layer promises'}", layers),
        Section("errors, penalties", methods, outer),
        Section("networks", "gradients of all parameters, 4 filters, by complex step", dict(map(_network, NETWORKS))),
        Section("extremes", "float32 within 4 units in the last place of 60-digit arithmetic", EXTREMES),
        Section("threads", "a convolution in parts is the sum of its images, to 1e-12", {"conv": _parts}),
        Section("plans", "the numbers that the layers compute one by one, to 1e-11", plans),
        Section("GPU", "the same numbers as on the CPU, to 1e-11", {case.name: _gpu_check(case) for case in cases}),
    ]
    without = {name for name, left_out in (("networks", quick), ("GPU", not gpu)) if left_out}
    return [section for section in found if section.name not in without]


def _layer_check(case: LayerCase, conduct: bool = True) -> Callable[[], GradientReport]:
    return lambda: check_gradients(case.build(), case.shape, tolerance=1e-12, conduct=conduct)


def _check(subject: object, inputs: Array, targets: Array | None) -> Callable[[], GradientReport]:
    return lambda: check_gradients(subject, inputs, targets=targets, tolerance=1e-12)


def _network(name: str) -> tuple[str, Callable[[], GradientReport]]:
    def check() -> GradientReport:
        model = vgg(*NETWORKS[name], num_filters=4, num_classes=5, rng=np.random.RandomState(2))
        return check_gradients(
            model,
            (3, 3, 8, 8),
            CrossEntropySoftmaxError(),
            np.array([4, 0, 2]),
            modes=["training"],
            methods=["complex step"],
            directions=1,
            conduct=False,
        )

    return name, check


def _plan(name: str) -> tuple[str, Callable[[], float]]:
    def check() -> float:
        rng = np.random.default_rng(0)
        inputs, labels = rng.standard_normal((7, 3, 16, 16)), rng.integers(0, 5, 7)
        found = []
        for kind in ENGINES:
            model = vgg(*NETWORKS[name], num_filters=4, num_classes=5, dtype=np.float64, rng=np.random.RandomState(2))
            engine = Engine(model, CrossEntropySoftmaxError(), kind)
            step = engine.forward_backward(inputs, labels)
            found.append(np.concatenate([array.ravel() for array in (step.outputs, *step.grads)]))
        worst = float(np.abs(found[0] - found[1]).max() / np.abs(found[1]).max())
        return _bounded("a plan and the layers differ by", worst, 1e-11)

    return name, check


def _parts() -> float:
    """Compare a batch that is cut into parts, for the threads, with one image after another."""
    rng = np.random.default_rng(0)
    layer = Convolution2DLayer(8, 4, 3, padding=1, kernels_init=rng.standard_normal)
    x, upstream = rng.standard_normal((64, 8, 16, 16)), rng.standard_normal((64, 4, 16, 16))
    together = layer.backprop(x, layer.fprop(x), upstream)
    alone = [layer.backprop(x[i : i + 1], layer.fprop(x[i : i + 1]), upstream[i : i + 1]) for i in range(len(x))]
    pairs = [
        (together[0], np.concatenate([dx for dx, _ in alone])),
        (layer.fprop(x), np.concatenate(list(map(layer.fprop, x[:, None])))),
    ]
    pairs += [(together[1][k], sum(grads[k] for _, grads in alone)) for k in range(2)]
    worst = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return _bounded("a batch and its images differ by", worst, 1e-12)


def _gpu_check(case: LayerCase) -> Callable[[], float]:
    def check() -> float:
        results = []
        inputs = np.random.default_rng(0).standard_normal(case.shape)
        for device in ("cpu", "gpu"):
            layer, x = case.build().to_device(device), to_device(inputs, device)
            outputs = forward(layer, x, True)
            upstream = np.random.default_rng(1).standard_normal(outputs.shape)
            dx, grads = layer.backprop(x, outputs, to_device(upstream, device))
            results.append([to_cpu(array) for array in (outputs, dx, *grads)])
        worst = max(
            float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max()))) for a, b in zip(*results, strict=True)
        )
        return _bounded("GPU and CPU differ by", worst, 1e-11)

    return check


LOGITS = np.array([[80.1, 0.3, -7.7, 3.0], [1e4, -1e4, 0.0, 9990.0], [0.5] * 4, [-3e38, 3e38, 0.0, 1.0]], np.float32)


def _units(got: Array, exact: list[Decimal]) -> float:
    """Return how many units in the last place `got` is from exact numbers; denormal results count as right."""
    worst = 0.0
    for value, right in zip(np.ravel(got), exact, strict=True):
        if abs(right) >= Decimal(float(np.finfo(np.float32).tiny)):
            unit = Decimal(float(np.spacing(np.abs(np.float32(float(right))))))
            worst = max(worst, float(abs(Decimal(float(value)) - right) / unit))
    return _bounded("units in the last place", worst, 4.0)


def _bounded(what: str, value: float, bound: float) -> float:
    if not value <= bound:
        raise AssertionError(f"{what}: {value:.3g}, expected at most {bound:g}")
    return value


def _exact_softmax(row: Array) -> list[Decimal]:
    numbers = [Decimal(float(x)) for x in row]
    exps = [(x - max(numbers)).exp() for x in numbers]
    return [e / sum(exps) for e in exps]


def _extreme(check: Callable[[], float]) -> Callable[[], float]:
    def checked() -> float:
        with localcontext() as context, np.errstate(all="raise", under="ignore"):
            context.prec = 60
            context.Emin = -(10**9)
            return check()

    return checked


def _softmaxes() -> float:
    exact = [y for row in LOGITS for y in _exact_softmax(row)]
    return _units(softmax(LOGITS), exact)


def _log_softmaxes() -> float:
    return _units(log_softmax(LOGITS[:3]), [y.ln() for row in LOGITS[:3] for y in _exact_softmax(row)])


def _cross_entropies() -> float:
    labels = np.array([0, 3, 1])
    error = CrossEntropySoftmaxError(reduction="none")
    exact = [-_exact_softmax(row)[label].ln() for row, label in zip(LOGITS, labels, strict=False)]
    return _units(error(LOGITS[:3], labels), exact)


def _sigmoids() -> float:
    x = np.array([0.0, -80.0, 80.0, 1e30, -1e30, 1e-30, -17.3], np.float32)
    exact = [1 / (1 + (-Decimal(float(v))).exp()) if v > -100 else Decimal(0) for v in x]
    return _units(sigmoid(x), exact)


def _constant_batches() -> float:
    layer = BatchNormalizationLayer(3).astype(np.float32)
    layer.beta[...] = np.array([0.5, -1e30, 1e-30], np.float32)
    x = np.broadcast_to(np.array([0.1, 1e30, -1e-30], np.float32), (7, 3)).copy()
    return _units(layer.fprop(x), [Decimal(float(b)) for b in layer.beta] * 7)


EXTREMES: dict[str, Callable[[], GradientReport | float]] = {
    "softmax": _extreme(_softmaxes),
    "log-softmax": _extreme(_log_softmaxes),
    "cross-entropy": _extreme(_cross_entropies),
    "sigmoid": _extreme(_sigmoids),
    "batch norm of constants": _extreme(_constant_batches),
}


class Outcome(NamedTuple):
    """What a section's checks found: how many were tried, what was wrong, and the largest errors by both methods."""

    tried: int
    wrong: list[str]
    worst: float
    by_differences: float

    def words(self, section: Section) -> str:
        """Return it as a line."""
        right = f"{self.tried - len(self.wrong)} of {len(section.checks)} right, worst error {self.worst:.2g}"
        second = f", by differences {self.by_differences:.2g}" if self.by_differences else ""
        late = f"; {len(section.checks) - self.tried} not tried, for lack of time"
        return right + second + (late if self.tried < len(section.checks) else "")


def examine(section: Section, seconds: float = float("inf")) -> Outcome:
    """Try a section's checks, one after the other; none begins when the seconds are over."""
    end, tried, wrong, worst, differences = time.perf_counter() + seconds, 0, [], [0.0], [0.0]
    for name, check in section.checks.items():
        if time.perf_counter() >= end:
            break
        tried += 1
        try:
            found = check()
        except Exception as error:  # whatever a check raises is a finding, and the others still run
            text = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            wrong.append(f"{section.name}: {name}: {text}")
            continue
        worst.append(found if isinstance(found, float) else found.worst)
        if isinstance(found, GradientReport):
            differences += [array.central_differences or 0.0 for array in found.arrays]
    return Outcome(tried, wrong, max(worst), max(differences))


def run(section: Section) -> list[str]:
    """Run a section, print its line, and return what was wrong."""
    began, words = time.perf_counter(), f"{section.name}: {section.proves}"
    outcome = examine(section)
    print(f"{words}\n    {outcome.words(section)}, {time.perf_counter() - began:.1f} s", flush=True)
    return outcome.wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the self-test; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlp.selftest", description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu: do not look for a GPU")
    options = parser.parse_args(arguments)
    try:
        num_threads()
    except SettingError as error:
        parser.error(str(error))
    status = usable_gpu() if options.device == "auto" else None
    machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"
    print(f"mlp {mlp.__version__} on {machine}, {num_threads()} threads")
    wrong = [text for section in sections(status is not None and status.usable) for text in run(section)]
    for text in wrong:
        print(f"\nWRONG  {text}")
    print(f"\nDevice: CPU{_gpu_words(status)}")
    kinds = len({type(case.build()).__name__ for case in LAYER_CASES})
    right = f"All right: {kinds} classes of layers, every error and penalty."
    print(f"{len(wrong)} checks failed." if wrong else right)
    return 1 if wrong else 0


def _gpu_words(status: GpuStatus | None) -> str:
    if status is None:
        return " only, as asked for."
    if not status.usable:
        return f" only. The GPU was not tested: {status.reason}."
    return f" and GPU ({status.reason})."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
