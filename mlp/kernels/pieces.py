"""Many arrays in one: a list whose arrays lie one after the other in a single flat array."""

import operator
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from mlp.backend import Array


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
