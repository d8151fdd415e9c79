"""Mean and variance of which neither a square nor a sum overflows, and to which a constant is no trouble."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlp.backend import Array, array_module


class Moments(NamedTuple):
    """Mean `offset` and (biased) variance `var` of x' = x - first, or of x scale - first scale where squares overflow.

    The mean of x is first + offset / scale. Where that has not the digits for x - mean, `centred` has.
    """

    first: Array
    offset: Array
    var: Array
    scale: Array | None = None

    def centred(self, x: Array) -> Array:
        """Return (x - mean) scale, a new array."""
        shifted = x - self.first if self.scale is None else x * self.scale - self.first * self.scale
        shifted -= self.offset
        return shifted

    @property
    def unit(self) -> Array | float:
        """The scale, 1 where there is none."""
        return 1.0 if self.scale is None else self.scale

    def mean(self) -> Array:
        """Return the mean of x."""
        return self.first + self.offset / self.unit

    def variance(self) -> Array:
        """Return the variance of x."""
        return self.var / self.unit / self.unit

    def std(self, epsilon: float) -> Array:
        """Return sqrt(variance + epsilon) scale."""
        return array_module(self.var).sqrt(self.var + epsilon * self.unit * self.unit)


def moments(x: Array, first: Array, mean: Callable[[Array], Array]) -> tuple[Array, Moments]:
    """Return x - mean(x) (scaled, see `Moments`) and the moments of x over the axes that `mean` averages.

    `mean` keeps these axes, with length 1; `first` holds a value of x for each mean, in its shape. The mean is computed
    as that of x - first, plus first: for equal numbers it is that number, exactly (Chan, Golub and LeVeque, Algorithms
    for computing the sample variance: analysis and recommendations, The American Statistician 37 (1983), shifted
    data). Where a square or a sum overflows, all is done again with x times a power of two. (To see that, a GPU is
    waited for.)
    """
    xp = array_module(x)
    with np.errstate(over="ignore", invalid="ignore"):
        centred, found = _moments(x, Moments(first, first, first), mean)
    if bool(xp.isfinite(found.var).all()):
        return centred, found
    axes = tuple(axis for axis, length in enumerate(first.shape) if length == 1)
    _, exponents = xp.frexp(xp.abs(0.5 * x.real - 0.5 * first.real).max(axis=axes, keepdims=True))
    scale = xp.ldexp(xp.ones_like(found.var.real), -xp.maximum(exponents, 0))
    return _moments(x, Moments(first, first, first, scale), mean)


def _moments(x: Array, start: Moments, mean: Callable[[Array], Array]) -> tuple[Array, Moments]:
    centred = start._replace(offset=0).centred(x)
    offset = mean(centred)
    centred -= offset
    return centred, start._replace(offset=offset, var=mean(centred * centred))
