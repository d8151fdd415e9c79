"""Error functions: ``error(outputs, targets)`` is the value, ``error.grad(outputs, targets)`` its gradient.

N is the batch size throughout. Gradients hold the 1/N, so that layers sum over the batch. Where an error takes class
targets, they are one-hot rows (N, K) of probabilities, or whole-number labels (N,); further axes may follow.

`is_mean_over_examples` says that the error of a batch is the mean of those of its parts, weighed with their examples,
and its gradient those of the parts likewise: then a batch may be run in parts.
"""

from typing import Any

import numpy as np

from mlp.backend import Array, array_module, device_of, to_device
from mlp.checks import DTypeError, ShapeError, check_choice, check_same_shape, check_shape, check_whole_number
from mlp.kernels import label_losses_and_minus, log_softmax, log_softmax_and_minus, sigmoid, softmax_minus, softplus


def is_mean_over_examples(error: Any) -> bool:
    """Return whether an error says so of itself: what a subclass inherits may not be true of it."""
    return "is_mean_over_examples" in vars(type(error)) and bool(error.is_mean_over_examples)


def value_and_grad(error: Any, outputs: Array, targets: Array) -> tuple[Any, Array]:
    """Return an error and its gradient: in one go where the error knows how, and one after the other elsewhere."""
    if "value_and_grad" in vars(type(error)):  # what a subclass inherits may not be its own
        both: tuple[Any, Array] = error.value_and_grad(outputs, targets)
        return both
    return error(outputs, targets), error.grad(outputs, targets)


class SumOfSquaredDiffsError:
    """Half the squared distance, averaged over the batch: E = 1/(2N) sum (y - t)^2.

    >>> import numpy as np
    >>> from mlp.errors import SumOfSquaredDiffsError
    >>> error = SumOfSquaredDiffsError()
    >>> outputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 4.0]])
    >>> float(error(outputs, targets))
    3.25
    >>> error.grad(outputs, targets)
    array([[0. , 1. ],
           [1.5, 0. ]])
    """

    is_mean_over_examples = True

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

    is_mean_over_examples = True

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E, with 0 ln 0 = 0."""
        _check("BinaryCrossEntropyError", outputs, targets)
        xp = array_module(outputs)
        yes = targets * xp.log(xp.where(targets == 0, 1, outputs))
        no = (1.0 - targets) * xp.log1p(xp.where(targets == 1, 0, -outputs))
        return -(yes + no).mean()

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return ((1 - t) / (1 - y) - t / y) / N."""
        _check("BinaryCrossEntropyError.grad", outputs, targets)
        where, n = array_module(outputs).where, len(outputs)
        no = (1.0 - targets) / n / where(targets == 1, 1, 1.0 - outputs)
        return no - targets / n / where(targets == 0, 1, outputs)

    def __repr__(self) -> str:
        return "BinaryCrossEntropyError"


class BinaryCrossEntropySigmoidError:
    """`BinaryCrossEntropyError` of sigmoid(y), computed from y without overflow; the same convention."""

    is_mean_over_examples = True

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E = mean of ln(1 + exp(y)) - y t, as |y| (1 - t or t) + ln(1 + exp(-|y|))."""
        _check("BinaryCrossEntropySigmoidError", outputs, targets)
        xp = array_module(outputs)
        positive = outputs.real > 0
        sizes = xp.where(positive, outputs, -outputs)
        return (sizes * xp.where(positive, 1.0 - targets, targets) + softplus(-sizes)).mean()

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return (sigmoid(y) - t) / N, as ((1 - t) sigmoid(y) - t sigmoid(-y)) / N."""
        _check("BinaryCrossEntropySigmoidError.grad", outputs, targets)
        return ((1.0 - targets) * sigmoid(outputs) - targets * sigmoid(-outputs)) / len(outputs)

    def __repr__(self) -> str:
        return "BinaryCrossEntropySigmoidError"


class CrossEntropyError:
    """Cross-entropy of class probabilities y: E = -1/N sum t ln y, with 0 ln 0 = 0.

    y (N, K, ...), the classes along axis 1; t one-hot (or soft) of y's shape, or labels (N, ...). N counts every
    place, so (N, K, H, W) has N H W examples.
    """

    is_mean_over_examples = True
    takes_labels = True

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        _check_classes("CrossEntropyError", outputs, targets)
        xp, rows = array_module(outputs), _one_hot(targets, outputs)
        logs = xp.log(xp.where(rows == 0, 1, outputs))
        return -(rows * logs).sum() / (outputs.size // outputs.shape[1])

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return dE/dy = -t / (y N)."""
        _check_classes("CrossEntropyError.grad", outputs, targets)
        rows = _one_hot(targets, outputs)
        divisors = array_module(outputs).where(rows == 0, 1, outputs)
        return -rows / (outputs.size // outputs.shape[1]) / divisors

    def __repr__(self) -> str:
        return "CrossEntropyError"


class CrossEntropySoftmaxError:
    """Cross-entropy of softmax(y), computed from y: E = -1/N sum t ln softmax(y), each row of t summing to 1.

    y (N, K, ...), the classes along axis 1; t one-hot (or soft) of y's shape, or labels (N, ...). Every place is an
    example: l = -sum over k of w_k t_k ln softmax(y)_k, with `class_weights` w (K,), 1 by default. Places with the
    label `ignore_label` take no part; such labels may lie outside 0..K-1. `reduction` is ``"mean"``, the sum of l
    over the sum of the w that took part (over the number of places without weights or ignored labels), ``"sum"``, or
    ``"none"``, the array of all l, whose `grad` is that of its sum. (ONNX's and, for labels, PyTorch's conventions.)

    >>> import numpy as np
    >>> from mlp.errors import CrossEntropySoftmaxError
    >>> error = CrossEntropySoftmaxError()
    >>> outputs, labels = np.zeros((2, 4)), np.array([0, 3])
    >>> float(error(outputs, labels)), float(np.log(4))
    (1.3862943611198906, 1.3862943611198906)
    >>> error.grad(outputs, labels)
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    takes_labels = True

    def __init__(
        self, class_weights: Array | None = None, ignore_label: int | None = None, reduction: str = "mean"
    ) -> None:
        who = "CrossEntropySoftmaxError"
        if class_weights is not None:
            check_shape(f"{who}: class_weights", class_weights, ("K",))
            if class_weights.dtype.kind == "c" or not bool(((class_weights >= 0) & (class_weights < np.inf)).all()):
                raise ValueError(f"{who}: class_weights is {class_weights}, expected finite numbers >= 0")
        if ignore_label is not None:
            ignore_label = check_whole_number(f"{who}: ignore_label", ignore_label)
        self.class_weights, self.ignore_label = class_weights, ignore_label
        self.reduction = check_choice(f"{who}: reduction", reduction, ("mean", "sum", "none"))

    def __call__(self, outputs: Array, targets: Array) -> Any:
        """Return E."""
        rows = self._weighted_rows("CrossEntropySoftmaxError", outputs, targets)
        return self._value(outputs, rows, log_softmax(outputs, axis=1))

    def grad(self, outputs: Array, targets: Array) -> Array:
        """Return dE/dy = (softmax(y) - t) / N; with weights (softmax(y) sum of w t - w t) / sum of weights."""
        rows = self._weighted_rows("CrossEntropySoftmaxError.grad", outputs, targets)
        return softmax_minus(outputs, rows, axis=1) / self._count(outputs, rows)

    def value_and_grad(self, outputs: Array, targets: Array) -> tuple[Any, Array]:
        """Return E and dE/dy, for which softmax is computed once."""
        if self._plain() and getattr(outputs, "ndim", 0) == 2 and getattr(targets, "ndim", 0) == 1:
            _check_classes("CrossEntropySoftmaxError", outputs, targets)
            losses, grads = label_losses_and_minus(outputs, targets)
            count = len(outputs) if self.reduction == "mean" else 1
            return losses if self.reduction == "none" else losses.sum() / count, grads / count
        rows = self._weighted_rows("CrossEntropySoftmaxError", outputs, targets)
        logs, grads = log_softmax_and_minus(outputs, rows, 1)
        return self._value(outputs, rows, logs), grads / self._count(outputs, rows)

    def _value(self, outputs: Array, rows: Array, logs: Array) -> Any:
        losses = -(rows * array_module(rows).where(rows == 0, 0, logs)).sum(axis=1)  # 0 ln 0 = 0
        return losses if self.reduction == "none" else losses.sum() / self._count(outputs, rows)

    def _plain(self) -> bool:
        return self.class_weights is None and self.ignore_label is None

    def _count(self, outputs: Array, rows: Array) -> Any:
        """Return what the sum is divided by."""
        if self.reduction != "mean":
            return 1
        if self._plain():
            return outputs.size // outputs.shape[1]
        total = rows.sum()
        if total == 0:
            raise ValueError(f"{self!r}: the weights of all targets are 0, or all are ignored: a mean of nothing")
        return total

    def _weighted_rows(self, who: str, outputs: Array, targets: Array) -> Array:
        """Return w t, of the outputs' shape."""
        known = _check_classes(who, outputs, targets, self.ignore_label)
        rows = _one_hot(targets, outputs)
        if known is not None:
            rows = rows * known
        if self.class_weights is None:
            return rows
        check_shape("CrossEntropySoftmaxError: class_weights", self.class_weights, (outputs.shape[1],))
        weights = to_device(self.class_weights, device_of(outputs)).astype(outputs.real.dtype)
        return rows * weights.reshape(-1, *[1] * (outputs.ndim - 2))

    @property
    def is_mean_over_examples(self) -> bool:
        """Whether E is the mean of the errors of the examples, so that parts of a batch can be added up."""
        return self._plain() and self.reduction == "mean"

    def __repr__(self) -> str:
        extras = [] if self.class_weights is None else ["class_weights=..."]
        extras += [] if self.ignore_label is None else [f"ignore_label={self.ignore_label}"]
        extras += [] if self.reduction == "mean" else [f"reduction={self.reduction!r}"]
        return f"CrossEntropySoftmaxError{'(' + ', '.join(extras) + ')' if extras else ''}"


def _check(who: str, outputs: Array, targets: Array) -> None:
    check_shape(f"{who}: outputs", outputs, ("N", "..."))
    check_same_shape(f"{who}: targets", targets, outputs)


def _check_classes(who: str, outputs: Array, targets: Array, ignore_label: int | None = None) -> Array | None:
    """Raise unless targets are one-hot rows or labels for outputs (N, K, ...); return which labels are not ignored."""
    check_shape(f"{who}: outputs", outputs, ("N", "K", "..."))
    labels_ndim = outputs.ndim - 1
    if getattr(targets, "ndim", outputs.ndim) != labels_ndim:
        check_same_shape(f"{who}: targets", targets, outputs)
        if ignore_label is not None:
            raise DTypeError(f"{who}: targets are one-hot rows, expected labels: only labels can be ignored")
        return None
    expected = (len(outputs), *outputs.shape[2:])
    check_shape(f"{who}: targets", targets, expected, like=outputs, integers=True)
    if targets.dtype.kind not in "iu":
        raise DTypeError(f"{who}: targets has dtype {targets.dtype}, expected whole-number labels or one-hot rows")
    known = None if ignore_label is None else targets != ignore_label
    labels = targets if known is None else targets[known]
    if known is not None and not labels.size:
        return known[:, None]
    low, high, classes = int(labels.min()), int(labels.max()), outputs.shape[1]
    if low < 0 or high >= classes:
        raise ShapeError(f"{who}: targets holds labels {low}..{high}, expected 0..{classes - 1}, one per output")
    return None if known is None else known[:, None]


def _one_hot(targets: Array, outputs: Array) -> Array:
    """Return targets as one-hot rows of the outputs' shape; labels get the outputs' (real) dtype."""
    if targets.ndim == outputs.ndim:
        return targets
    classes = array_module(outputs).arange(outputs.shape[1]).reshape(-1, *[1] * (outputs.ndim - 2))
    return (targets[:, None] == classes).astype(outputs.real.dtype)
