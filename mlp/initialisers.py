"""Initial values of parameters: ``initialiser(shape)`` returns a float64 array.

Each array costs one call of the random stream, so the order in which layers are built decides the values.
"""

from collections.abc import Callable, Sequence
from math import prod, sqrt

import numpy as np

from mlp.backend import Array
from mlp.checks import ShapeError, check_number, check_positive_int
from mlp.rng import Rng, default_rng

ShapeLike = int | Sequence[int]
Initialiser = Callable[[ShapeLike], Array]
"""What layers accept as an initialiser: any function from a shape to an array."""


class ConstantInit:
    """Every entry is `value`.

    >>> from mlp.initialisers import ConstantInit
    >>> ConstantInit(0.5)((2, 3))
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]])
    """

    def __init__(self, value: float) -> None:
        self.value = check_number("ConstantInit: value", value, -float("inf"))

    def __call__(self, shape: ShapeLike) -> Array:
        """Return an array of this shape."""
        return np.full(shape, self.value, dtype=np.float64)


class UniformInit:
    """Entries uniform in [low, high)."""

    def __init__(self, low: float, high: float, rng: Rng | None = None) -> None:
        self.low = check_number("UniformInit: low", low, -float("inf"))
        self.high = check_number("UniformInit: high", high, self.low)
        self.rng = default_rng(rng)

    def __call__(self, shape: ShapeLike) -> Array:
        """Return an array of this shape."""
        return np.asarray(self.rng.uniform(low=self.low, high=self.high, size=shape))


class NormalInit:
    """Entries normal with this mean and standard deviation."""

    def __init__(self, mean: float, std: float, rng: Rng | None = None) -> None:
        self.mean = check_number("NormalInit: mean", mean, -float("inf"))
        self.std = check_number("NormalInit: std", std, 0.0)
        self.rng = default_rng(rng)

    def __call__(self, shape: ShapeLike) -> Array:
        """Return an array of this shape."""
        return np.asarray(self.rng.normal(loc=self.mean, scale=self.std, size=shape))


class _GlorotInit:
    """Standard deviation gain sqrt(2 / (fan_in + fan_out)) for a weight matrix (fan_out, fan_in).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010,
    equations 12 and 16.
    """

    def __init__(self, gain: float = 1.0, rng: Rng | None = None) -> None:
        self.gain = check_number(f"{type(self).__name__}: gain", gain, 0.0)
        self.rng = default_rng(rng)

    def _std(self, shape: ShapeLike) -> float:
        if isinstance(shape, int) or len(shape) != 2:
            raise ShapeError(f"{type(self).__name__}: shape is {shape}, expected a matrix (output_dim, input_dim)")
        return self.gain * sqrt(2.0 / (shape[0] + shape[1]))


class GlorotUniformInit(_GlorotInit):
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)), for a weight matrix (fan_out, fan_in).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010,
    equation 16 (with gain 1).

    >>> import numpy as np
    >>> from mlp.initialisers import GlorotUniformInit
    >>> weights = GlorotUniformInit(rng=np.random.RandomState(0))((100, 200))
    >>> bool(abs(weights).max() <= np.sqrt(6 / 300))
    True
    """

    def __call__(self, shape: ShapeLike) -> Array:
        """Return a matrix of this shape."""
        bound = sqrt(3.0) * self._std(shape)
        return np.asarray(self.rng.uniform(low=-bound, high=bound, size=shape))


class GlorotNormalInit(_GlorotInit):
    """Normal with mean 0 and variance gain^2 2 / (fan_in + fan_out), for a weight matrix (fan_out, fan_in).

    Glorot and Bengio 2010 (as `GlorotUniformInit`), equation 12 (with gain 1).
    """

    def __call__(self, shape: ShapeLike) -> Array:
        """Return a matrix of this shape."""
        return np.asarray(self.rng.normal(loc=0.0, scale=self._std(shape), size=shape))


class FanInUniformInit:
    """Uniform in +-1 / sqrt(fan_in).

    `fan_in` is the number of inputs of one output: the product of all axes but the first, unless given (biases take
    their weights'). PyTorch's default for convolutions and affine maps; in the terms of He et al., Delving deep into
    rectifiers, ICCV 2015, a uniform law of variance 1 / (3 fan_in): their equation 15 with a = sqrt(5).
    """

    def __init__(self, fan_in: int | None = None, rng: Rng | None = None) -> None:
        self.fan_in = None if fan_in is None else check_positive_int("FanInUniformInit: fan_in", fan_in)
        self.rng = default_rng(rng)

    def __call__(self, shape: ShapeLike) -> Array:
        """Return an array of this shape."""
        if self.fan_in is None and (isinstance(shape, int) or len(shape) < 2):
            raise ShapeError(f"FanInUniformInit: shape is {shape}, which shows no fan-in: pass fan_in")
        fan_in = self.fan_in or prod(shape[1:])  # type: ignore[index]
        bound = 1.0 / sqrt(fan_in)
        return np.asarray(self.rng.uniform(low=-bound, high=bound, size=shape))
