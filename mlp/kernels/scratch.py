"""Memory that a thread works in: taken once, used over and over, given back with its owner."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeVar

import numpy as np

from mlp.backend import Array

T = TypeVar("T")


class Scratch:
    """Named pieces of memory of one thread. What is in them lasts until the next to take the same name writes there.

    A piece has room for `sizes` of its name, as a `Measure` found them. An array that is too small for a later wish is
    replaced by a larger one; views of the old one stay valid.
    """

    def __init__(self, sizes: Mapping[Any, int] | None = None) -> None:
        self._sizes = sizes or {}
        self._pieces: dict[Any, Array] = {}
        self._made: dict[Any, Any] = {}

    def empty(self, name: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape, of any content, in the memory called `name`."""
        count, key = prod(shape), (name, np.dtype(dtype))
        piece = self._pieces.get(key)
        if piece is None or piece.size < count:
            piece = self._pieces[key] = self._take((max(count, self._sizes.get(key, 0)),), key[1])
        return piece[:count].reshape(shape)

    def zeros(self, name: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape, zero at first, which belongs to this name and this shape alone."""
        key = (name, shape, np.dtype(dtype))
        if key not in self._pieces:
            self._pieces[key] = piece = self._take(shape, key[2])
            piece[...] = 0
        return self._pieces[key]

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` made of this memory when it was first asked for under this key."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def sizes(self) -> dict[Any, int]:
        """Return how many numbers each piece has room for."""
        return {key: piece.size for key, piece in self._pieces.items()}

    def num_bytes(self) -> int:
        """Return how much memory it is."""
        return sum(int(piece.nbytes) for piece in self._pieces.values())

    def _take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.empty(shape, dtype)


class Measure(Scratch):
    """Scratch that takes no memory: every array is one number, seen everywhere. It finds out how much there will be."""

    @staticmethod
    def array(shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape whose numbers are all one."""
        shape = (shape,) if isinstance(shape, int) else shape
        return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))

    def _take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.array(shape, dtype)
