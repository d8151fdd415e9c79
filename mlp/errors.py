"""Error functions: ``error(outputs, targets)`` is the value, ``error.grad(outputs, targets)`` its gradient.

N is the batch size throughout. Gradients hold the 1/N, so that layers sum over the batch. Where an error takes class
targets, they are one-hot rows (N, K) of probabilities, or whole-number labels (N,).
"""

from typing import Any

from mlp.backend import Array, array_module
from mlp.checks import DTypeError, ShapeError, check_same_shape, check_shape
from mlp.kernels import log_softmax, sigmoid, softmax, softplus


class SumOfSquaredDiffsError:
    """Half the squared distance, averaged over the batch: E = 1/(2N) sum (y - t)^2."""

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        _check("SumOfSquaredDiffsError", outputs, targets)
        diffs = outputs - targets
        return 0.5 * (diffs * diffs).sum() / len(outputs)

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return dE/dy = (y - t) / N."""
        _check("SumOfSquaredDiffsError.grad", outputs, targets)
        return (outputs - targets) / len(outputs)

    def __repr__(self) -> str:
        return "MeanSquaredErrorCost"


class BinaryCrossEntropyError:
    """Cross-entropy of independent yes/no outputs y in (0, 1): E = -mean of t ln y + (1 - t) ln(1 - y).

    The coursework's convention: the value is the mean over **all** entries, the gradient is divided by N alone, so
    for K > 1 outputs the gradient is K times that of the value.
    """

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        _check("BinaryCrossEntropyError", outputs, targets)
        log = array_module(outputs).log
        return -(targets * log(outputs) + (1.0 - targets) * log(1.0 - outputs)).mean()

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return ((1 - t) / (1 - y) - t / y) / N."""
        _check("BinaryCrossEntropyError.grad", outputs, targets)
        return ((1.0 - targets) / (1.0 - outputs) - targets / outputs) / len(outputs)

    def __repr__(self) -> str:
        return "BinaryCrossEntropyError"


class BinaryCrossEntropySigmoidError:
    """`BinaryCrossEntropyError` of sigmoid(y), computed from y without overflow; the same convention."""

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E = mean of ln(1 + exp(y)) - y t."""
        _check("BinaryCrossEntropySigmoidError", outputs, targets)
        return (softplus(outputs) - outputs * targets).mean()

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return (sigmoid(y) - t) / N."""
        _check("BinaryCrossEntropySigmoidError.grad", outputs, targets)
        return (sigmoid(outputs) - targets) / len(outputs)

    def __repr__(self) -> str:
        return "BinaryCrossEntropySigmoidError"


class CrossEntropyError:
    """Cross-entropy of class probabilities y: E = -1/N sum t ln y."""

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        _check_classes("CrossEntropyError", outputs, targets)
        return -_picked(array_module(outputs).log(outputs), targets).sum() / len(outputs)

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return dE/dy = -t / (y N)."""
        _check_classes("CrossEntropyError.grad", outputs, targets)
        return -_rows(targets, outputs) / outputs / len(outputs)

    def __repr__(self) -> str:
        return "CrossEntropyError"


class CrossEntropySoftmaxError:
    """Cross-entropy of softmax(y), computed from y: E = -1/N sum t ln softmax(y), each row of t summing to 1."""

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        _check_classes("CrossEntropySoftmaxError", outputs, targets)
        return -_picked(log_softmax(outputs), targets).sum() / len(outputs)

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return dE/dy = (softmax(y) - t) / N."""
        _check_classes("CrossEntropySoftmaxError.grad", outputs, targets)
        return (softmax(outputs) - _rows(targets, outputs)) / len(outputs)

    def __repr__(self) -> str:
        return "CrossEntropySoftmaxError"


def _check(who: str, outputs: Array, targets: Array) -> None:
    check_shape(f"{who}: outputs", outputs, ("N", "..."))
    check_same_shape(f"{who}: targets", targets, outputs)


def _check_classes(who: str, outputs: Array, targets: Array) -> None:
    check_shape(f"{who}: outputs", outputs, ("N", "K"))
    if getattr(targets, "ndim", 2) != 1:
        check_same_shape(f"{who}: targets", targets, outputs)
        return
    check_shape(f"{who}: targets", targets, (len(outputs),), like=outputs, integers=True)
    if targets.dtype.kind not in "iu":
        raise DTypeError(f"{who}: targets has dtype {targets.dtype}, expected whole-number labels or one-hot rows")
    low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[1]
    if low < 0 or high >= classes:
        raise ShapeError(f"{who}: targets holds labels {low}..{high}, expected 0..{classes - 1}, one per output")


def _picked(logs: Array, targets: Array) -> Array:
    """Return t ln y for one-hot rows t, or ln y of the labelled class of each row."""
    if targets.ndim == 2:
        return targets * logs
    return array_module(logs).take_along_axis(logs, targets[:, None], axis=1)


def _rows(targets: Array, outputs: Array) -> Array:
    """Return targets as one-hot rows; labels get the outputs' (real) dtype."""
    if targets.ndim == 2:
        return targets
    xp = array_module(outputs)
    return (targets[:, None] == xp.arange(outputs.shape[1])).astype(outputs.real.dtype)
