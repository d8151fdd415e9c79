import itertools

import numpy as np
import pytest

from mlp.kernels import ConvGeometry, conv, conv_grads
from mlp.kernels.columns import Columns
from mlp.kernels.scratch import Scratch

from .. import reference

# Images in the memory that threads work in: (H, W, N, C), framed with a row of zeros above and below.


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def memory(x):
    """Return (N, C, H, W) as (H, W, N, C), contiguous."""
    return np.ascontiguousarray(x.transpose(2, 3, 0, 1))


def of_memory(x):
    """Return (H, W, N, C) as (N, C, H, W)."""
    return x.transpose(2, 3, 0, 1)


def framed(x):
    """Return (N, C, H, W) as (H + 2, W, N, C), the first and the last row zeros."""
    return np.pad(memory(x), ((1, 1), (0, 0), (0, 0), (0, 0)))


class _Dirty(Scratch):
    def empty(self, name, shape, dtype):
        array = super().empty(name, shape, dtype)
        array[...] = np.nan
        return array


def dirty_scratch():
    """Return scratch in which every array that may hold anything holds what is no number."""
    return _Dirty()


GEOMETRIES = list(
    itertools.product(
        [(1, 1), (3, 3), (2, 3), (5, 4)],
        [(1, 1), (2, 1), (3, 2)],
        [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((3, 3), (2, 2)), ((0, 1), (2, 0))],
        [(1, 1), (2, 1), (1, 3)],
    )
)
FITTING = [g for g in GEOMETRIES if min(ConvGeometry(*g).output_size((8, 9))) > 0]


def passes(columns, x, w, g):
    """Return y, dE/dx and dE/dw of a convolution by columns, all as layers see them."""
    matrix = w.transpose(2, 3, 1, 0).reshape(-1, len(w))
    y, dx = np.full(memory(g).shape, np.nan, x.dtype), np.full(memory(x).shape, np.nan, x.dtype)
    columns.correlate(framed(x), matrix, y)
    columns.inputs_grad(memory(g), matrix, dx)
    dw = columns.kernels_grad(framed(x), memory(g)).reshape(*w.shape[2:], *w.shape[1::-1])
    return of_memory(y), of_memory(dx), dw.transpose(3, 2, 0, 1)


def problem(geometry, n=2, channels=2, filters=3, size=(8, 9), dtype=np.float64):
    shape = (n, filters, *geometry.output_size(size))
    x, w = random(n, channels, *size, dtype=dtype), random(filters, channels, *geometry.kernel, seed=1, dtype=dtype)
    return x, w, random(*shape, seed=2, dtype=dtype)


def columns_of(geometry, x, w, scratch=None):
    shape = (len(x), x.shape[1], len(w))
    return Columns(geometry, x.shape[2:], shape, x.dtype, Scratch() if scratch is None else scratch, True)


@pytest.mark.parametrize("geometry", FITTING, ids=str)
def test_all_passes_equal_the_naive_loops(geometry):
    """The loops know no padding at one end alone: they get images with their zeros around."""
    geometry = ConvGeometry(*geometry)
    x, w, g = problem(geometry, size=(8, 9))
    wide = np.pad(x, ((0, 0), (0, 0), *geometry.padding))
    y = reference.conv2d(wide, w, np.zeros(3), geometry.stride, (0, 0), geometry.dilation)
    dx, dw = reference.conv2d_grads(wide, w, g, geometry.stride, (0, 0), geometry.dilation)
    (top, bottom), (left, right) = geometry.padding
    dx = dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]
    for got, want in zip(passes(columns_of(geometry, x, w), x, w, g), (y, dx, dw), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("n", [1, 7, 33])
@pytest.mark.parametrize("channels", [(1, 1), (17, 5), (48, 32)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_larger_ones_equal_the_other_implementation(n, channels, dtype, tolerance):
    geometry = ConvGeometry((3, 3), (2, 1), ((1, 1), (0, 2)), (1, 1))
    x, w, g = problem(geometry, n, *channels, dtype=dtype)
    wide = [array.astype(np.float64) for array in (x, g, w)]
    expected = conv(wide[0], wide[2], None, geometry), *conv_grads(*wide, geometry)
    for got, want in zip(passes(columns_of(geometry, x, w), x, w, g), expected, strict=True):
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize("size", [1, 3000, 20_000])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_columns_of_a_few_rows_at_a_time_add_up(size, stride, monkeypatch):
    geometry = ConvGeometry((3, 3), stride, ((1, 1), (1, 1)), (1, 1))
    x, w, g = problem(geometry, n=3, size=(11, 9))
    expected = passes(columns_of(geometry, x, w), x, w, g)
    monkeypatch.setattr("mlp.kernels.columns._CHUNK_BYTES", size)
    cut = columns_of(geometry, x, w)
    assert cut.num_rows < cut.out_size[0] or size == 20_000
    for got, want in zip(passes(cut, x, w, g), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_what_is_in_the_scratch_does_not_matter_and_may_be_shared():
    """Convolutions of several sizes take turns in one thread's scratch, which is full of what is no number."""
    scratch, tasks = dirty_scratch(), []
    for size, padding in itertools.product(
        [(5, 4), (4, 5), (8, 8)], [((1, 1), (1, 1)), ((0, 2), (1, 1)), ((0, 0), (0, 0))]
    ):
        geometry = ConvGeometry((3, 2), (1, 1), padding, (1, 1))
        x, w, g = problem(geometry, size=size)
        tasks.append((columns_of(geometry, x, w, scratch), x, w, g, passes(columns_of(geometry, x, w), x, w, g)))
    for _ in range(2):
        for columns, x, w, g, expected in tasks:
            for got, want in zip(passes(columns, x, w, g), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_nothing_that_is_read_is_written():
    geometry = ConvGeometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    x, w, g = problem(geometry)
    arrays = framed(x), w.transpose(2, 3, 1, 0).reshape(-1, len(w)), memory(g).copy()
    for array in arrays:
        array.flags.writeable = False
    columns = columns_of(geometry, x, w)
    columns.correlate(arrays[0], arrays[1], np.empty_like(memory(g)))
    columns.inputs_grad(arrays[2], arrays[1], np.empty_like(memory(x)))
    columns.kernels_grad(arrays[0], arrays[2])
