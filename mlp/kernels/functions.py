"""Functions that need care to stay finite. They branch on real parts, so that the complex step passes through."""

import numpy as np

from mlp.backend import Array, array_module


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)): with e = exp(-|x|) it is 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0."""
    xp = array_module(x)
    positive = x.real >= 0
    e = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, 1, e) / (1.0 + e)


def sigmoid_slope(x: Array) -> Array:
    """Return the derivative of `sigmoid`, e / (1 + e)^2 with e = exp(-|x|): right where y (1 - y) has lost 1 - y."""
    xp = array_module(x)
    e = xp.exp(xp.where(x.real >= 0, -x, x))
    return e / ((1.0 + e) * (1.0 + e))


def softplus(x: Array) -> Array:
    """Return ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))."""
    xp = array_module(x)
    positive = x.real > 0
    return x * positive + xp.log1p(xp.exp(xp.where(positive, -x, x)))


def softmax(x: Array, axis: int = -1) -> Array:
    """Return exp(x_k) / sum along the axis of exp(x_j)."""
    exps, _ = _exps(x, axis)
    return exps / exps.sum(axis=axis, keepdims=True)


def softmax_minus(x: Array, targets: Array, axis: int = -1) -> Array:
    """Return softmax(x) sum(t) - t, where the sum is 1: softmax(x) - t; sums along the axis.

    As (exp(x_k) sum over j != k of t_j - t_k sum over j != k of exp(x_j)) / sum over j of exp(x_j), which keeps its
    digits where softmax(x) rounds to 1.
    """
    exps, first = _exps(x, axis)
    return _minus(exps, first, targets, axis)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """Return ln softmax(x) = z - ln(1 + the sum along the axis of the exp(z) but the largest), with z = x - max x."""
    return _log(x, *_exps(x, axis), axis)


def log_softmax_and_minus(x: Array, targets: Array, axis: int) -> tuple[Array, Array]:
    """Return `log_softmax` and `softmax_minus` of the same x, for which exp is taken once."""
    exps, first = _exps(x, axis)
    return _log(x, exps, first, axis), _minus(exps, first, targets, axis)


def label_losses_and_minus(x: Array, labels: Array) -> tuple[Array, Array]:
    """Return -ln softmax(x)_t (N,) and softmax(x) - [k = t] (N, K), of rows x (N, K) and labels t (N,).

    What `log_softmax_and_minus` says of one-hot targets, in half as many passes: small networks feel them.
    """
    xp = array_module(x)
    rows, first = xp.arange(len(x)), x.real.argmax(axis=1)
    top = x[rows, first]
    exps = _exps_below(x, top.real[:, None])
    largest = exps[rows, first]  # 1, but for an imaginary part
    exps[rows, first] = 0
    others = exps.sum(axis=1)
    exps[rows, first] = largest
    total = others + largest
    rest = xp.where(labels == first, others, total - exps[rows, labels])
    exps[rows, labels] = -rest
    exps /= total[:, None]
    return xp.log1p(others + (largest - 1)) - (x[rows, labels] - top.real), exps


def _log(x: Array, exps: Array, first: Array, axis: int) -> Array:
    others = (exps - first).sum(axis=axis, keepdims=True)
    return x - x.real.max(axis=axis, keepdims=True) - array_module(x).log1p(others)


def _minus(exps: Array, first: Array, targets: Array, axis: int) -> Array:
    weighed = exps * _others(targets, first, axis) - targets * _others(exps, first, axis)
    return weighed / exps.sum(axis=axis, keepdims=True)


def _exps(x: Array, axis: int) -> tuple[Array, Array]:
    """Return exp(x - max x), and where x is largest: at one place along the axis, where the first is 1."""
    xp = array_module(x)
    indices = [1] * x.ndim
    indices[axis] = -1
    first = xp.arange(x.shape[axis]).reshape(indices) == xp.argmax(x.real, axis=axis, keepdims=True)
    return _exps_below(x, x.real.max(axis=axis, keepdims=True)), first


def _exps_below(x: Array, top: Array) -> Array:
    """Return exp(x - top) for x <= top.

    The rounding error of x - top (Knuth's two-sum) is given back: exp would blow it up by the size of the difference.
    """
    xp = array_module(x)
    lowest = -0.5 * float(np.finfo(top.dtype).max)
    low = xp.maximum(2.0 * xp.minimum(xp.maximum(top, lowest), 0), 2.0 * lowest + 2e4)
    low = low - 2e4  # exp(low - top) is 0, and nothing overflows
    x = xp.where(x.real < low, low, x)
    z = x - top
    back = z - x
    exps = xp.exp(z)
    return exps + exps * ((x - (z - back)) - (top + back))


def _others(x: Array, first: Array, axis: int) -> Array:
    """Return the sum over j != k of x_j, added up (not subtracted from the whole) at the places `first`."""
    added = array_module(x).where(first, 0, x).sum(axis=axis, keepdims=True)
    return array_module(x).where(first, added, x.sum(axis=axis, keepdims=True) - x)
