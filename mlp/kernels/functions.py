"""Functions that need care to stay finite. They branch on real parts, so that the complex step passes through."""

from mlp.backend import Array, array_module


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)): with e = exp(-|x|) it is 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0."""
    xp = array_module(x)
    positive = x.real >= 0
    e = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, 1, e) / (1.0 + e)


def softplus(x: Array) -> Array:
    """Return ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))."""
    xp = array_module(x)
    positive = x.real > 0
    return x * positive + xp.log1p(xp.exp(xp.where(positive, -x, x)))


def softmax(x: Array) -> Array:
    """Return exp(x_k) / sum over the last axis of exp(x_j), computed from x - max x."""
    exps = array_module(x).exp(x - x.real.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Return ln softmax(x) = z - ln sum over the last axis of exp(z), with z = x - max x."""
    xp = array_module(x)
    shifted = x - x.real.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))
