"""Mean and variance that neither overflow nor lose a constant."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlp.backend import Array, array_module


class Moments(NamedTuple):
    """(x - mean) scale, mean, variance scale^2, and scale: 1 but where squares or sums would overflow."""

    centred: Array
    mean: Array
    var: Array
    scale: Array


def moments(x: Array, first: Array, mean: Callable[[Array], Array]) -> Moments:
    """Return mean and (biased) variance of x over the axes that `mean` averages, and keeps with length 1.

    `first` holds a value of x for each mean, in the mean's shape. The mean is computed as that of x - first, plus
    first: for equal numbers it is that number, exactly (Chan, Golub and LeVeque, Algorithms for computing the sample
    variance, The American Statistician 37 (1983), on shifted data). Where a square or a sum overflows, all is done
    again with x - first times a power of two.
    """
    xp = array_module(x)
    with np.errstate(over="ignore", invalid="ignore"):
        found = _moments(x, first, mean, None)
    if bool(xp.isfinite(found.var).all()):
        return found
    axes = tuple(axis for axis, length in enumerate(first.shape) if length == 1)
    _, exponents = xp.frexp(xp.abs((x - first).real).max(axis=axes, keepdims=True))
    return _moments(x, first, mean, xp.ldexp(xp.ones_like(found.var.real), -xp.maximum(exponents, 0)))


def _moments(x: Array, first: Array, mean: Callable[[Array], Array], scale: Array | None) -> Moments:
    centred = x - first
    if scale is not None:
        centred *= scale
    offset = mean(centred)
    centred -= offset
    var = mean(centred * centred)
    scale = array_module(x).ones_like(var.real) if scale is None else scale
    return Moments(centred, first + offset / scale, var, scale)
