"""Windows that slide over spatial axes: how many there are, and which pixels each place of a window meets."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np

Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def num_windows(
    size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int, ceil_mode: bool = False
) -> int:
    """Return how many windows fit along one axis: floor((H + PH before + after - DH (KH - 1) - 1) / SH) + 1.

    In `ceil_mode` the quotient is rounded up, so that the last window may reach over the end; one that would start
    beyond the image, in the padding at its end, is left out.
    """
    room = size + sum(padding) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding[0] else count


class PoolGeometry(NamedTuple):
    """Sizes of the windows of a pooling, one per spatial axis; `padding` is a pair (before, after) per axis."""

    size: Sizes
    stride: Sizes
    padding: Padding
    dilation: Sizes
    ceil_mode: bool

    def output_size(self, size: Sizes) -> Sizes:
        """Return (OH, OW) for images of this (H, W)."""
        axes = zip(size, self.size, self.stride, self.padding, self.dilation, strict=True)
        return tuple(num_windows(*axis, self.ceil_mode) for axis in axes)

    def places(self, size: Sizes) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Return, for every place in a window that meets any pixel: the windows that do, and their pixels."""
        axes = []
        for length, count, kernel, step, (before, _), dilation in self._axes(size):
            met = (_met(length, count, step, place * dilation - before) for place in range(kernel))
            axes.append([pair for pair in met if pair is not None])
        return [tuple(zip(*pairs, strict=True)) for pairs in product(*axes)]

    def counts(self, size: Sizes, with_padding: bool) -> "list[np.ndarray[Any, Any]]":
        """Return, per axis, how many places of each window lie in the image (or in the padded image)."""
        counts = []
        for length, count, kernel, step, (before, after), dilation in self._axes(size):
            starts = np.arange(count) * step - before
            ends = (0, length) if not with_padding else (-before, length + after)
            first, last = (np.clip(-((starts - end) // dilation), 0, kernel) for end in ends)
            counts.append(last - first)
        return counts

    def _axes(self, size: Sizes) -> list[tuple[int, int, int, int, tuple[int, int], int]]:
        counts = self.output_size(size)
        return list(zip(size, counts, self.size, self.stride, self.padding, self.dilation, strict=True))


def _met(length: int, count: int, step: int, shift: int) -> tuple[slice, slice] | None:
    """Return the windows i in range(count) whose pixel i step + shift lies in range(length), and these pixels."""
    first = max(0, -(shift // step))
    last = min(count, (length - 1 - shift) // step + 1)
    if last <= first:
        return None
    return slice(first, last), slice(first * step + shift, (last - 1) * step + shift + 1, step)
