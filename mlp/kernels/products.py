"""Matrix products cut into pieces that the BLAS multiplies without copying them first."""

import numpy as np

from mlp.backend import Array

_SMALL = 1_000_000
"""OpenBLAS multiplies matrices in place, without packing them into buffers, up to this many multiplications."""


def matmul_rows(left: Array, right: Array, out: Array) -> None:
    """Write ``left @ right`` to `out`, for matrices (N, D) and (D, K): some rows at a time where that is faster."""
    pieces = _pieces(len(left), left.size * right.shape[1])
    shapes = ((pieces, -1, left.shape[1]), (pieces, -1, right.shape[1]))
    np.matmul(left.reshape(shapes[0]), right, out=out.reshape(shapes[1]))


def _pieces(rows: int, multiplications: int) -> int:
    """Return into how many equal pieces to cut the rows; 1 where no number from 2 to 16 does it."""
    fits = (n for n in range(1, 17) if rows % n == 0 and multiplications <= n * _SMALL)
    return next(fits, 1)
