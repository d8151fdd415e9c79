"""Checks of arguments, with messages that say who, what came, what was expected, and which axis."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from mlp.backend import Array, device_of

Expected = Sequence[int | str | None]
"""An expected shape: a number is that length, a letter any length, ``"..."`` any further axes."""


_ODD = (np.matrix, np.ma.MaskedArray)
"""Subclasses of arrays that compute otherwise."""


class ArgumentError(ValueError, AssertionError):
    """A value is outside its range: a ValueError, and the AssertionError that the coursework's modules raise there."""


class ShapeError(ArgumentError):
    """An array has another shape than the operation can take."""


class DTypeError(TypeError):
    """An argument is no array, or an array of something that is not a number."""


class DeviceMixError(ValueError):
    """Arrays that must lie on one device lie on two."""


class StaleStateError(RuntimeError):
    """A backward pass was asked for with other inputs than the last forward pass saw."""


def _text(shape: Sequence[object]) -> str:
    inner = ", ".join(str(s) for s in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def check_array(what: str, x: object, like: object = None, integers: bool = False) -> None:
    """Raise DTypeError unless `x` is an array of numbers, DeviceMixError unless it lies where `like` lies.

    Numbers are floats, complex numbers and, as in the coursework, int64. Shorter and unsigned integers would overflow
    without a word and are refused, but where `integers` says that they are labels or pixels.
    """
    plain = isinstance(getattr(x, "dtype", None), np.dtype) and hasattr(x, "shape") and not isinstance(x, _ODD)
    if not plain or isinstance(x, np.generic):
        raise DTypeError(f"{what} is a {type(x).__name__}, expected a NumPy or CuPy array: use np.asarray(...)")
    dtype: np.dtype[Any] = x.dtype  # type: ignore[attr-defined]
    if dtype.kind not in "fc" and dtype != np.int64 and not (integers and dtype.kind in "iu"):
        raise DTypeError(
            f"{what} has dtype {dtype}, expected numbers (float32, float64, complex128, ...): use x.astype(...)"
        )
    if like is not None and device_of(x) != device_of(like):
        raise DeviceMixError(
            f"{what} lies on the {device_of(x)}, the parameters lie on the {device_of(like)}: "
            f"move one with mlp.backend.to_device"
        )


def check_shape(what: str, x: object, expected: Expected, like: object = None, integers: bool = False) -> None:
    """Raise unless `x` is an array of numbers of the `expected` shape, on the device of `like` if given.

    ``check_shape("AffineLayer.fprop: inputs", x, ("N", 3))`` says, for a wrong `x`: ``AffineLayer.fprop: inputs has
    shape (5, 4), expected (N, 3): axis 1 is 4, not 3``. Raises ShapeError, DTypeError or DeviceMixError.
    """
    check_array(what, x, like, integers)
    shape: tuple[int, ...] = x.shape  # type: ignore[attr-defined]
    fixed = tuple(e for e in expected if e != "...")
    if shape == expected and 0 not in shape:
        return
    text = f"{what} has shape {_text(shape)}, expected {_text(expected)}"
    if len(shape) < len(fixed) or (len(shape) > len(fixed) and "..." not in expected):
        raise ShapeError(f"{text}: it has {len(shape)} axes, not {len(fixed)}")
    for axis, (got, want) in enumerate(zip(shape, fixed, strict=False)):
        if isinstance(want, int) and got != want:
            raise ShapeError(f"{text}: axis {axis} is {got}, not {want}")
        if got == 0 and want != 0:
            raise ShapeError(f"{text}: axis {axis} is empty")


def check_same_shape(what: str, x: object, other: Array) -> None:
    """Raise unless `x` is an array of numbers with the shape, and on the device, of `other`."""
    check_array(f"{what}: what it belongs to", other)
    check_shape(what, x, other.shape, like=other)


def check_whole_number(what: str, value: Any) -> int:
    """Return `value` as int; raise TypeError unless it is a whole number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}), expected a whole number")
    return int(value)


def check_positive_int(what: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as int; raise TypeError or ValueError unless it is a whole number of at least `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}), expected a whole number >= {minimum}")
    if value < minimum:
        raise ArgumentError(f"{what} is {value}, expected a whole number >= {minimum}")
    return int(value)


def check_sizes(what: str, value: Any, axes: int, minimum: int = 1) -> tuple[int, ...]:
    """Return a size given as one whole number, or as one for each of the spatial axes, as a tuple of ints."""
    if not isinstance(value, (tuple, list)):
        return (check_positive_int(what, value, minimum),) * axes
    if len(value) != axes:
        raise ArgumentError(f"{what} is {value!r}, expected one whole number or {axes}, one per spatial axis")
    return tuple(check_positive_int(what, size, minimum) for size in value)


def check_padding(what: str, value: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Return a padding, given as `check_sizes` takes it or as a pair (before, after) per spatial axis, as pairs."""
    pairs = list(value) if isinstance(value, (tuple, list)) else [value]
    if not any(isinstance(pair, (tuple, list)) for pair in pairs):
        return tuple((size, size) for size in check_sizes(what, value, axes, minimum=0))
    if len(pairs) != axes or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise ArgumentError(f"{what} is {value!r}, expected {axes} pairs (before, after), one per spatial axis")
    return tuple((check_positive_int(what, pair[0], 0), check_positive_int(what, pair[1], 0)) for pair in pairs)


def check_flag(what: str, value: Any) -> bool:
    """Return `value` as bool; raise TypeError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}), expected True or False")
    return bool(value)


def check_choice(what: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value`; raise ValueError unless it is one of `choices`."""
    if value not in choices:
        raise ArgumentError(f"{what} is {value!r}, expected one of {', '.join(map(repr, choices))}")
    return str(value)


def check_number(
    what: str,
    value: Any,
    low: float,
    high: float = float("inf"),
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as float; raise TypeError or ValueError unless it is a finite number in [low, high].

    With `low_open` the lower end is excluded, with `high_open` the upper one.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{what} is {value!r} ({type(value).__name__}), expected a number")
    number = float(value)
    above = low < number if low_open else low <= number
    below = number < high if high_open else number <= high
    if not (above and below and np.isfinite(number)):
        interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ArgumentError(f"{what} is {value}, expected a finite number in {interval}")
    return number
