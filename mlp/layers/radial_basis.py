"""Radial basis functions."""

from collections.abc import Sequence

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import ArgumentError, check_number, check_positive_int, check_shape
from mlp.layers.base import Layer, real_dtype


class RadialBasisFunctionLayer(Layer):
    """Gaussian bumps on a grid: y_ndb = exp(-(x_nd - c_db)^2 / s_d^2), as (N, D B).

    D dimensions, one interval (low, high) each; the B = grid_dim^D centres c (D, B) are the points of the grid of
    `grid_dim` equally spaced points along each interval, ends included, and s_d = (high - low) / grid_dim. A function
    looks at one dimension: the D factors of a bump are not multiplied. As in the coursework, one interval serves
    inputs of any number of dimensions, and inputs (N,) are N numbers.
    """

    def __init__(self, grid_dim: int, intervals: Sequence[Sequence[float]] = ((0.0, 1.0),)) -> None:
        self.grid_dim = check_positive_int("RadialBasisFunctionLayer: grid_dim", grid_dim)
        if not hasattr(intervals, "__iter__"):
            raise TypeError(f"RadialBasisFunctionLayer: intervals is {intervals!r}, expected [[low, high], ...]")
        self.intervals = [_interval(i, interval) for i, interval in enumerate(intervals)]
        if not self.intervals:
            raise ArgumentError("RadialBasisFunctionLayer: intervals is empty, expected [[low, high], ...]")
        lines = [np.linspace(low, high, self.grid_dim) for low, high in self.intervals]
        self.centres: Array = np.array(np.meshgrid(*lines)).reshape(len(lines), -1)
        self.scales: Array = np.array([[(high - low) / self.grid_dim] for low, high in self.intervals])

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, D B) for x (N, D) or (N,)."""
        self._check("fprop", inputs)
        offsets = self._offsets(inputs)
        outputs = array_module(inputs).exp(-(offsets * offsets))
        return outputs.reshape(len(inputs), -1)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx = -2 sum over b of dE/dy (x - c) / s^2 y, of the inputs' shape."""
        self._check("bprop", inputs)
        expected = (len(inputs), inputs.size // len(inputs) * self.centres.shape[1])
        check_shape("RadialBasisFunctionLayer.bprop: outputs", outputs, expected, like=inputs)
        check_shape("RadialBasisFunctionLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, expected, like=inputs)
        offsets = self._offsets(inputs)
        grads = (grads_wrt_outputs * outputs).reshape(offsets.shape) * (offsets / self._as(self.scales, inputs))
        return -2.0 * grads.sum(axis=-1).reshape(inputs.shape)

    def _offsets(self, inputs: Array) -> Array:
        """Return (x - c) / s, (N, D, B)."""
        rows = inputs.reshape(len(inputs), -1, 1)
        return (rows - self._as(self.centres, inputs)) / self._as(self.scales, inputs)

    def _as(self, constants: Array, inputs: Array) -> Array:
        return array_module(inputs).asarray(constants, dtype=real_dtype(inputs))

    def _check(self, method: str, inputs: Array) -> None:
        dims: tuple[str | int, ...] = (len(self.intervals),) if len(self.intervals) > 1 else ("D",)
        expected = ("N",) if dims == ("D",) and getattr(inputs, "ndim", 2) == 1 else ("N", *dims)
        check_shape(f"RadialBasisFunctionLayer.{method}: inputs", inputs, expected)

    def __repr__(self) -> str:
        return f"RadialBasisFunctionLayer(grid_dim={self.grid_dim})"


def _interval(i: int, interval: Sequence[float]) -> tuple[float, float]:
    name = f"RadialBasisFunctionLayer: intervals[{i}]"
    if np.shape(interval) != (2,):
        raise ArgumentError(f"{name} is {interval!r}, expected [low, high]")
    low = check_number(name, interval[0], -float("inf"))
    high = check_number(name, interval[1], low, low_open=True)
    check_number(f"{name}: high - low", high - low, 1e-100)
    return low, high
