"""Many arrays in one: a list whose arrays lie one after the other in a single flat array."""

import operator
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from mlp.backend import Array, array_module

_CHUNK_LENGTH = 49_152
"""Numbers of each of a few arrays that are worked on at once: they stay in a core's cache."""


class Pieces(list[Array]):
    """A list of arrays, the views in their order of one flat array, so that all can be changed in one pass.

    It may be changed as any list; `flat` is then None. Copied or pickled, it is a list of arrays like any other.
    """

    def __init__(self, flat: Array, shapes: Iterable[Sequence[int]]) -> None:
        super().__init__()
        start = 0
        for shape in shapes:
            size = prod(shape)
            self.append(flat[start : start + size].reshape(shape))
            start += size
        self._flat, self._own = flat, tuple(self)

    @property
    def flat(self) -> Array | None:
        """The flat array, or None where the list holds other arrays than its views."""
        same = len(self) == len(self._own) and all(map(operator.is_, self, self._own))
        return self._flat if same else None

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (list(self),)


def zeros_like_all(arrays: Sequence[Array]) -> list[Array]:
    """Return zeros in the shapes of arrays: pieces of one array where all are of one kind."""
    if len({(array_module(array), array.dtype) for array in arrays}) != 1:
        return [array_module(array).zeros_like(array) for array in arrays]
    flat = array_module(arrays[0]).zeros(sum(int(array.size) for array in arrays), arrays[0].dtype)
    return Pieces(flat, [array.shape for array in arrays])


def chunks(length: int) -> list[slice]:
    """Return slices of about equal length that cover range(length), for arrays too long for the cache."""
    number = max(1, round(length / _CHUNK_LENGTH))
    return [slice(length * i // number, length * (i + 1) // number) for i in range(number)]


def listed(arrays: Any) -> list[Array]:
    """Return a list of arrays, for one array the list of its parts along the first axis (views, numbers too)."""
    if isinstance(arrays, Pieces):
        return arrays
    return [arrays[i, ...] for i in range(len(arrays))] if hasattr(arrays, "ndim") else list(arrays)
