"""Memory that a thread works in: taken once, used over and over, given back with its owner."""

from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array


class Scratch:
    """Named pieces of memory of one thread. What is in them lasts until the next to take the same name writes there.

    An array that is too small for a later wish is replaced by a larger one; views of the old one stay valid.
    """

    def __init__(self) -> None:
        self._pieces: dict[Any, Array] = {}

    def empty(self, name: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape, of any content, in the memory called `name`."""
        count, key = prod(shape), (name, np.dtype(dtype))
        piece = self._pieces.get(key)
        if piece is None or piece.size < count:
            piece = self._pieces[key] = np.empty(count, dtype)
        return piece[:count].reshape(shape)

    def num_bytes(self) -> int:
        """Return how much memory it is."""
        return sum(int(piece.nbytes) for piece in self._pieces.values())

    def zeros(self, name: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this shape, zero at first, which belongs to this name and this shape alone."""
        key = (name, shape, np.dtype(dtype))
        if key not in self._pieces:
            self._pieces[key] = np.zeros(shape, dtype)
        return self._pieces[key]
