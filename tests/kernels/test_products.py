import numpy as np
import pytest

from mlp.kernels.products import matmul_rows


@pytest.mark.parametrize("rows", [1, 2, 47, 50, 64])
@pytest.mark.parametrize("inner", [3, 784])
@pytest.mark.parametrize("transposed", [False, True])
def test_pieces_of_rows_give_the_product(rows, inner, transposed):
    rng = np.random.default_rng(rows)
    left, right = rng.standard_normal((rows, inner)), rng.standard_normal((inner, 100))
    if transposed:
        right = np.asfortranarray(right)
    out = np.full((rows, 100), np.nan)
    matmul_rows(left, right, out)
    np.testing.assert_allclose(out, left @ right, rtol=1e-12, atol=1e-12)
