import itertools
from fractions import Fraction
from math import prod

import numpy as np
import pytest

from mlp.kernels import ConvGeometry, SettingError, conv, conv_grads, conv_method, winograd
from mlp.kernels.scratch import Scratch
from mlp.kernels.winograd import TILE, WINDOW, Winograd, kernels_adjoint, transformed_kernels, transforms

from .. import reference
from .test_columns import dirty_scratch, framed, memory, of_memory, random

PADDINGS = [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((2, 2), (2, 2)), ((0, 1), (2, 0)), ((1, 2), (0, 0)), ((2, 0), (1, 1))]
SIZES = [(8, 8), (4, 4), (5, 7), (7, 5), (3, 9), (9, 12), (13, 4), (1, 1), (2, 6)]
SHAPES = [
    (size, padding)
    for size, padding in itertools.product(SIZES, PADDINGS)
    if all(length + sum(pair) >= 3 for length, pair in zip(size, padding, strict=True))
]


class Passes:
    """A convolution and the two that make its backward pass, in one scratch."""

    def __init__(self, x, w, padding, scratch=None):
        scratch = Scratch() if scratch is None else scratch
        self.x, self.w, size = x, w, x.shape[2:]
        out_size = ConvGeometry((3, 3), (1, 1), padding, (1, 1)).output_size(size)
        (top, _), (left, _) = padding
        (filters, channels), n = w.shape[:2], len(x)
        self.forward = Winograd(size, out_size, (top, left), (n, channels, filters), x.dtype, scratch, True)
        self.backward = Winograd(out_size, size, (2 - top, 2 - left), (n, filters, channels), x.dtype, scratch)
        self.g = random(n, filters, *out_size, seed=2, dtype=x.dtype)

    def run(self):
        """Return y, dE/dx and dE/dw, as layers see them."""
        x, w, g = self.x, self.w, self.g
        y, dx = np.full(memory(g).shape, np.nan, x.dtype), np.full(memory(x).shape, np.nan, x.dtype)
        self.forward.correlate(framed(x), transformed_kernels(w), y)
        self.backward.correlate(framed(g), transformed_kernels(w[:, :, ::-1, ::-1].swapaxes(0, 1)), dx)
        dw = kernels_adjoint(self.forward.kernels_grad(framed(x), memory(g))).reshape(3, 3, *w.shape[1::-1])
        return of_memory(y), of_memory(dx), dw.transpose(3, 2, 0, 1)


def problem(size, padding, n=2, channels=2, filters=3, dtype=np.float64, scratch=None):
    x, w = random(n, channels, *size, dtype=dtype), random(filters, channels, 3, 3, seed=1, dtype=dtype)
    return Passes(x, w, padding, scratch)


def exactly(passes, padding):
    """Return y, dE/dx and dE/dw in float64, by columns."""
    geometry = ConvGeometry((3, 3), (1, 1), padding, (1, 1))
    x, w, g = (array.astype(np.float64) for array in (passes.x, passes.w, passes.g))
    return conv(x, w, None, geometry), *conv_grads(x, g, w, geometry)


@pytest.mark.parametrize(("size", "padding"), SHAPES, ids=str)
def test_all_passes_equal_the_naive_loops(size, padding):
    """The loops know no padding at one end alone: they get images with their zeros around."""
    passes = problem(size, padding)
    wide = np.pad(passes.x, ((0, 0), (0, 0), *padding))
    y = reference.conv2d(wide, passes.w, np.zeros(3), (1, 1), (0, 0), (1, 1))
    dx, dw = reference.conv2d_grads(wide, passes.w, passes.g, (1, 1), (0, 0), (1, 1))
    (top, bottom), (left, right) = padding
    dx = dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]
    for got, want in zip(passes.run(), (y, dx, dw), strict=True):
        assert np.abs(got - want).max() <= 1e-12 * np.abs(want).max()


@pytest.mark.parametrize(("size", "padding"), SHAPES, ids=str)
@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_channels_equals_columns(size, padding, n, dtype):
    passes = problem(size, padding, n, 17, 5, dtype)
    for got, want in zip(passes.run(), exactly(passes, padding), strict=True):
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= (2e-6 if dtype is np.float32 else 1e-13) * np.abs(want).max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "channels", "size"), [(4, 32, (32, 32)), (13, 32, (16, 16)), (40, 48, (8, 8))])
def test_float32_is_nearly_as_exact_as_a_plain_sum(seed, n, channels, size):
    padding = ((1, 1), (1, 1))
    passes = problem(size, padding, n, channels, channels, np.float32)
    passes.x = random(n, channels, *size, seed=10 + seed, dtype=np.float32)
    for got, want in zip(passes.run(), exactly(passes, padding), strict=True):
        assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("size", [1, 20_000, 50_000])
@pytest.mark.parametrize("shape", [(16, 9), (17, 8)])
def test_rows_of_tiles_in_several_chunks_add_up(size, shape, monkeypatch):
    padding = ((1, 1), (1, 1))
    expected = problem(shape, padding, 3, 4, 5).run()
    monkeypatch.setattr(winograd, "_CHUNK_BYTES", size)
    passes = problem(shape, padding, 3, 4, 5)
    assert len(passes.forward.chunks) > 1
    for got, want in zip(passes.run(), expected, strict=True):
        assert np.abs(got - want).max() <= 1e-13 * np.abs(want).max()


def test_what_is_in_the_scratch_does_not_matter_and_may_be_shared():
    """Convolutions of many sizes take turns in one thread's scratch, which is full of what is no number."""
    scratch, tasks = dirty_scratch(), []
    for (size, padding), n, channels in zip(
        SHAPES, itertools.cycle([3, 2, 6]), itertools.cycle([2, 3, 1]), strict=False
    ):
        arguments = (size, padding, n, channels, 2 + channels)
        tasks.append((problem(*arguments, scratch=scratch), problem(*arguments).run()))
    for _ in range(2):
        for passes, expected in tasks:
            for got, want in zip(passes.run(), expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_nothing_that_is_read_is_written():
    passes = problem((8, 8), ((1, 1), (1, 1)))
    arrays = framed(passes.x), transformed_kernels(passes.w), memory(passes.g)
    for array in arrays:
        array.flags.writeable = False
    passes.forward.correlate(arrays[0], arrays[1], np.empty_like(arrays[2]))
    passes.forward.kernels_grad(arrays[0], arrays[2])


def test_the_adjoint_of_the_kernels_transform_is_its_transpose():
    w, g = random(4, 3, 3, 3), random(36, 3, 4, seed=1)
    forth = (transformed_kernels(w) * g).sum()
    back = (kernels_adjoint(g).reshape(3, 3, 3, 4).transpose(3, 2, 0, 1) * w).sum()
    np.testing.assert_allclose(forth, back, rtol=1e-13)


# The transforms, as polynomials over the rational numbers.

POINTS = [Fraction(point) for point in winograd._POINTS]


def exact_transforms():
    """Return A', G and B' of one axis in rational numbers, from the points and infinity."""
    last = len(POINTS)
    outputs = [[point**i for point in POINTS] + [Fraction(i == TILE - 1)] for i in range(TILE)]
    others = [[other for other in POINTS if other != point] for point in POINTS]
    scales = [
        prod((point - other for other in rest), start=Fraction(1)) for point, rest in zip(POINTS, others, strict=True)
    ]
    kernels = [[point**k / scale for k in range(3)] for point, scale in zip(POINTS, scales, strict=True)]
    kernels.append([Fraction(0), Fraction(0), Fraction(1)])
    inputs = [[*coefficients(rest), Fraction(0)] for rest in others] + [coefficients(POINTS)]
    assert len(kernels) == len(inputs) == last + 1 == WINDOW
    return outputs, kernels, inputs


def coefficients(roots):
    """Return the coefficients of the product of (x - root), that of x^0 first."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [-root * c for c in found] + [Fraction(0)]
        found = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return found


def test_six_multiplications_give_four_outputs_exactly():
    """For every input and every weight alone, in rational numbers: y_i = x_(i + k) w_k, and nothing else."""
    outputs, kernels, inputs = exact_transforms()
    for i, k, j in itertools.product(range(TILE), range(3), range(WINDOW)):
        found = sum(outputs[i][m] * kernels[m][k] * inputs[m][j] for m in range(WINDOW))
        assert found == (i + k == j)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_matrices_are_the_exact_ones_rounded(dtype):
    for exact, ours in zip(exact_transforms(), transforms(np.dtype(dtype)), strict=False):
        assert ours.dtype == dtype
        assert ours.flags.c_contiguous
        expected = np.array([[float(value) for value in row] for row in exact])
        np.testing.assert_allclose(ours, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    found = transforms(np.dtype(dtype))
    np.testing.assert_array_equal(found.outputs_adjoint, found.outputs.T)


def test_one_tile_is_the_correlation_of_one_window():
    outputs, kernels, inputs, _ = transforms(np.dtype(np.float64))
    x, w = random(WINDOW, WINDOW), random(3, 3, seed=1)
    tile = outputs @ ((kernels @ w @ kernels.T) * (inputs @ x @ inputs.T)) @ outputs.T
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3))
    np.testing.assert_allclose(tile, (windows * w).sum(axis=(2, 3)), atol=1e-13)


@pytest.mark.parametrize(
    ("text", "expected"), [(None, "auto"), ("auto", "auto"), ("im2col", "im2col"), ("winograd", "winograd")]
)
def test_the_method_is_that_of_the_environment(text, expected, monkeypatch):
    monkeypatch.delenv("MLP_CONV", raising=False)
    if text is not None:
        monkeypatch.setenv("MLP_CONV", text)
    assert conv_method() == expected


@pytest.mark.parametrize("text", ["", "Winograd", "fft"])
def test_a_method_that_there_is_not_is_refused(text, monkeypatch):
    monkeypatch.setenv("MLP_CONV", text)
    with pytest.raises(SettingError, match=f"MLP_CONV is '{text}', expected one of: auto, im2col, winograd"):
        conv_method()
