"""The GPU's kernels, compiled for the CPU, against plain NumPy in float64. None of this has run on a GPU."""

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest

from mlp.data_providers import ImageDataProvider, ImageSet
from mlp.engine.gpu.session import CONTROL
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import gpu as launching
from mlp.kernels.gpu import GRAD_PIXELS, SMALLEST_MAP, address, conv_shared, conv_tile, grad_shared, source
from mlp.learning_rules import AdamLearningRule, KingmaAdamLearningRule

from .. import reference
from ..cuda.guarded import SANITIZED, Guarded
from ..cuda.on_cpu import MAX_SHARED_WITHOUT_ASKING, kernel_names, needs_compiler

pytestmark = needs_compiler


@pytest.fixture
def gpu():
    return Guarded()


@pytest.fixture(params=[launching.MAX_BLOCKS, 1])
def any_grid(request, monkeypatch):
    """Elementwise kernels get as many blocks as they like, or one, whose threads go on and on."""
    monkeypatch.setattr(launching, "MAX_BLOCKS", request.param)


def some(cases):
    """Return the cases; under the sanitizers, which take their time, every third."""
    return cases[::3] if SANITIZED else cases


def random(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1.0, shape).astype(np.float32)


def exact(x):
    return np.asarray(x.get() if hasattr(x, "get") else x, np.float64)


def close(got, want, tolerance):
    """Whether numbers are as near to what they should be as `tolerance` of the largest."""
    got = exact(got)
    assert got.shape == want.shape
    return np.abs(got - want).max() <= tolerance * np.abs(want).max()


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


def test_every_kernel_is_named_here():
    text = Path(__file__).read_text()
    names = kernel_names(source())
    assert len(names) == source().count("\nKERNEL ")
    assert [name for name in names if f'"{name}"' not in text] == []


# ---- Convolutions 3x3 ----


def test_tiles_cover_maps_of_all_sizes_in_the_shared_memory_there_is():
    for n, height, width in itertools.product((1, 7, 512), range(SMALLEST_MAP, 70), range(SMALLEST_MAP, 70)):
        tile, part = conv_tile(n, height, width), conv_tile(n, height, width, pixels=(GRAD_PIXELS,))
        assert max(conv_shared(tile), grad_shared(part)) <= MAX_SHARED_WITHOUT_ASKING
        assert tile.number(n, height, width) * tile.pixels >= n * height * width
        assert part.pixels == GRAD_PIXELS
        assert all(each.tw + each.th <= each.pixels.bit_length() - 1 for each in (tile, part))


CONV = {"fp32": "conv3x3_fp32", "tf32": "conv3x3_tf32"}
GRAD = {"fp32": ("conv3x3_grad_fp32", 256), "tf32": ("conv3x3_grad_tf32", 288)}
ONE, NONE, WIDE, UNEQUAL = ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((2, 2), (2, 2)), ((0, 1), (2, 1))
SHAPES = [  # images, their size, channels in and out, padding
    (1, (5, 7), 3, 17, ONE),
    (7, (3, 3), 17, 32, ONE),
    (101, (3, 3), 3, 1, ONE),
    (7, (5, 7), 1, 48, UNEQUAL),
    (101, (4, 3), 1, 3, WIDE),
    (1, (33, 17), 32, 3, NONE),
    (1, (8, 8), 32, 48, ONE),
    (7, (8, 8), 48, 3, UNEQUAL),
    (1, (33, 17), 1, 17, WIDE),
    (1, (16, 16), 17, 48, NONE),
    (1, (33, 17), 48, 32, ONE),
    (7, (5, 7), 3, 3, NONE),
    (2, (16, 16), 32, 32, UNEQUAL),
    (101, (5, 5), 3, 1, NONE),
    (2, (5, 7), 6, 10, ONE),
    (3, (3, 8), 34, 2, ONE),
]
every_shape = pytest.mark.parametrize(("n", "size", "channels", "filters", "padding"), some(SHAPES))
both_precisions = pytest.mark.parametrize("precision", ["fp32", "tf32"])


def tf32(x):
    """Return x rounded to 10 bits of fraction, to the nearest, ties away from zero."""
    fraction, exponent = np.frexp(exact(x))
    return np.copysign(np.ldexp(np.floor(np.abs(fraction) * 2**11 + 0.5), exponent - 11), x)


def taps(x, padding):
    """Yield (u, v, the pixels that the kernels' place (u, v) meets), of images (N, H, W, C)."""
    wide = np.pad(exact(x), ((0, 0), *padding, (0, 0)))
    height, width = wide.shape[1] - 2, wide.shape[2] - 2
    for u, v in np.ndindex(3, 3):
        yield u, v, wide[:, u : u + height, v : v + width]


def convolved(x, w, padding):
    """Return y (N, OH, OW, K) of x (N, H, W, C) and w (K, C, 3, 3), in float64."""
    return sum(near @ exact(w)[:, :, u, v].T for u, v, near in taps(x, padding))


def conv_grads(x, w, g, padding):
    """Return (dE/dx, dE/dw) for g = dE/dy, in float64."""
    dw, wide = np.zeros(w.shape), np.pad(np.zeros(x.shape), ((0, 0), *padding, (0, 0)))
    (top, _), (left, _) = padding
    for u, v, near in taps(x, padding):
        dw[:, :, u, v] = np.tensordot(exact(g), near, ((0, 1, 2), (0, 1, 2)))
        wide[:, u : u + g.shape[1], v : v + g.shape[2]] += exact(g) @ exact(w)[:, :, u, v]
    return wide[:, top : top + x.shape[1], left : left + x.shape[2]], dw


def test_the_reference_is_that_of_the_naive_loops():
    x, w = random(2, 5, 4, 3), random(2, 3, 3, 3, seed=1)
    wide = np.pad(exact(x), ((0, 0), *UNEQUAL, (0, 0))).transpose(0, 3, 1, 2)
    settings = (1, 1), (0, 0), (1, 1)
    y = reference.conv2d(wide, exact(w), np.zeros(2), *settings)
    np.testing.assert_allclose(convolved(x, w, UNEQUAL), y.transpose(0, 2, 3, 1), atol=1e-13)
    g = random(*convolved(x, w, UNEQUAL).shape, seed=2)
    dx, dw = reference.conv2d_grads(wide, exact(w), exact(g).transpose(0, 3, 1, 2), *settings)
    found = conv_grads(x, w, g, UNEQUAL)
    np.testing.assert_allclose(found[0], dx[:, :, 0:5, 2:6].transpose(0, 2, 3, 1), atol=1e-13)
    np.testing.assert_allclose(found[1], dw, atol=1e-13)


def packed(gpu, w, turned=0):
    """Return the kernels as they are used forward and backward."""
    filters, channels, places = w.shape[0], w.shape[1], w[0, 0].size
    forward, backward = gpu.empty(places, channels, filters), gpu.empty(places, filters, channels)
    pack(gpu, [(gpu.array(w), forward, backward, turned)])
    return forward, backward


def pack(gpu, convolutions):
    """Launch the packing of several convolutions' kernels: (kernels, forward, backward, turned) of each."""
    rows, threads = [], 0
    for w, forward, backward, turned in convolutions:
        places = int(np.prod(w.shape[2:]))
        rows.append([*map(address, (w, forward, backward)), *w.shape[:2], places, turned, threads])
        threads += int(w.size)
    gpu.over("pack_kernels", threads, gpu.array(rows, np.uint64), len(rows), threads)


def convolve(gpu, precision, x, kernels, y, padding, *, pixels=(256, 128, 64), moments=None, **more):
    """Launch a convolution to y. More: bias, skip, mask, slope, mask_slope, add."""
    tile, (n, *out_size, filters) = conv_tile(len(x), *y.shape[1:3], pixels), y.shape
    arrays = (x, kernels, y, more.get("bias"), more.get("skip"), more.get("mask"), moments)
    slopes = float(more.get("slope", 1.0)), float(more.get("mask_slope", 1.0))
    sizes = (*x.shape, *out_size, filters, padding[0][0], padding[1][0], tile.tw, tile.th)
    grid, threads = (tile.number(n, *out_size), -(-filters // 32)), tile.pixels // (2 if precision == "fp32" else 1)
    args = (*arrays, *sizes, *slopes, int(more.get("add", False)))
    gpu.launch(CONV[precision], grid, threads, *args, shared=conv_shared(tile))


def kernels_grad(gpu, precision, x, g, padding, splits=264, turned=0):
    """Return dE/dw (K, C, 3, 3)."""
    channels, (n, *out_size, filters) = x.shape[3], g.shape
    tile = conv_tile(n, *out_size, pixels=(GRAD_PIXELS,))
    tiles = tile.number(n, *out_size)
    splits = min(tiles, splits)
    partial, out = gpu.empty(splits, 9, channels, filters), gpu.empty(filters, channels, 3, 3)
    sizes = (*x.shape, *out_size, filters, padding[0][0], padding[1][0], tile.tw, tile.th, tiles)
    name, threads = GRAD[precision]
    grid = (splits, -(-channels // 32), -(-filters // 32))
    gpu.launch(name, grid, threads, x, g, partial, *sizes, shared=grad_shared(tile))
    gpu.launch("sum_kernel_grads", (-(-out.size // 32),), 256, partial, out, splits, 9, channels, filters, turned)
    return out


def passes(gpu, precision, x, w, g, padding, turned=0, **more):
    """Return what the kernels make of y, dE/dx and dE/dw."""
    x_there, g_there, y, dx = gpu.array(x), gpu.array(g), gpu.empty(*g.shape), gpu.empty(*x.shape)
    forward, backward = packed(gpu, w, turned)
    convolve(gpu, precision, x_there, forward, y, padding, **more)
    back = tuple((2 - low, 2 - high) for low, high in padding)
    convolve(gpu, precision, g_there, backward, dx, back, **more)
    return y, dx, kernels_grad(gpu, precision, x_there, g_there, padding, turned=turned)


def problem(n, size, channels, filters, padding):
    x, w = random(n, *size, channels), random(filters, channels, 3, 3, seed=1)
    out_size = [length + sum(pair) - 2 for length, pair in zip(size, padding, strict=True)]
    return x, w, random(n, *out_size, filters, seed=2)


def assert_passes(precision, found, x, w, g, padding):
    want = convolved(x, w, padding), *conv_grads(x, w, g, padding)
    for got, right in zip(found, want, strict=True):
        assert close(got, right, 2e-6 if precision == "fp32" else 2e-3)
    if precision == "tf32":
        x, w, g = tf32(x), tf32(w), tf32(g)
        want = convolved(x, w, padding), *conv_grads(x, w, g, padding)
        for got, right in zip(found, want, strict=True):
            assert close(got, right, 2e-6)


@both_precisions
@every_shape
def test_convolutions_forward_and_backward(gpu, precision, n, size, channels, filters, padding):
    x, w, g = problem(n, size, channels, filters, padding)
    assert_passes(precision, passes(gpu, precision, x, w, g, padding), x, w, g, padding)


@both_precisions
@pytest.mark.parametrize(("pixels", "size"), some([(256, (16, 16)), (128, (8, 8)), (128, (3, 3)), (256, (33, 17))]))
def test_tiles_larger_than_small_batches_get(gpu, precision, pixels, size):
    x, w, g = problem(3, size, 5, 4, ONE)
    assert conv_tile(3, *size, (pixels,)).pixels == pixels
    assert_passes(precision, passes(gpu, precision, x, w, g, ONE, pixels=(pixels,)), x, w, g, ONE)


@both_precisions
def test_kernels_of_a_true_convolution_are_turned(gpu, precision):
    x, w, g = problem(2, (5, 7), 3, 4, UNEQUAL)
    y, dx, dw = passes(gpu, precision, x, w, g, UNEQUAL, turned=1)
    turned = np.ascontiguousarray(w[:, :, ::-1, ::-1])
    found = y, dx, exact(dw)[:, :, ::-1, ::-1]
    assert_passes(precision, found, x, turned, g, UNEQUAL)


@both_precisions
@pytest.mark.parametrize("splits", [1, 3])
def test_gradients_of_kernels_whose_blocks_take_several_tiles(gpu, precision, splits):
    x, w, g = problem(7, (8, 8), 3, 5, ONE)
    dw = kernels_grad(gpu, precision, gpu.array(x), gpu.array(g), ONE, splits)
    factors = (x, w, g) if precision == "fp32" else (tf32(x), tf32(w), tf32(g))
    assert close(dw, conv_grads(*factors, ONE)[1], 2e-6)


def test_rounding_to_tf32_has_ties_away_from_zero(gpu):
    """A kernel with one 1 hands its inputs through, rounded."""
    unit = 2.0**-10
    values = np.array([1 + unit / 2, 1 + unit * 0.4999, 1 + 1.5 * unit, -1 - unit / 2, 3e38, -1e-30, 0.0, 2 - unit / 8])
    x, w = np.float32(values).reshape(1, 2, 4, 1), np.zeros((1, 1, 3, 3), np.float32)
    w[0, 0, 1, 1] = 1
    y = gpu.empty(1, 2, 4, 1)
    convolve(gpu, "tf32", gpu.array(x), packed(gpu, w)[0], y, ONE)
    np.testing.assert_array_equal(exact(y), tf32(x))
    np.testing.assert_array_equal(exact(y).flat[[0, 1, 2, 3, 7]], [1 + unit, 1, 1 + 2 * unit, -1 - unit, 2])


PARTS = ["bias", "skip", "slope", "add", "mask", "moments"]


@both_precisions
@pytest.mark.parametrize("filters", some([33, 4, 6]))
@pytest.mark.parametrize("number", some(range(len(PARTS) + 1)))
def test_all_that_may_happen_to_an_output_on_its_way(gpu, precision, filters, number):
    """y = (act(v + bias + skip) + what was there) times the slope at the mask, with v the convolution."""
    x, w, _ = problem(3, (5, 7), 3, filters, ONE)
    shape = (3, 5, 7, filters)
    given = {"bias": random(filters, seed=3)} | {
        name: random(*shape, seed=seed) for seed, name in enumerate(["skip", "add", "mask"], 4)
    }
    there = {name: gpu.array(given[name]) for name in ("bias", "skip", "mask")}
    there |= {
        "x": gpu.array(x),
        "kernels": packed(gpu, w)[0],
        "before": gpu.array(given["add"]),
        "y": gpu.empty(*shape),
    }
    v = convolved(x, w, ONE) if precision == "fp32" else convolved(tf32(x), tf32(w), ONE)
    blocks = conv_tile(3, 5, 7).number(3, 5, 7)
    moments = gpu.empty(blocks, 4, filters)
    for on in itertools.combinations(PARTS, number):
        y = there["y"]
        y[...] = there["before"] if "add" in on else np.float32(np.nan)
        more = {name: there[name] for name in ("bias", "skip", "mask") if name in on}
        more |= {"slope": 0.1} if "slope" in on else {}
        more |= {"mask_slope": 0.2} if "mask" in on else {}
        more |= {"moments": moments} if "moments" in on else {}
        convolve(gpu, precision, there["x"], there["kernels"], y, ONE, add="add" in on, **more)
        raw = v + (given["bias"] if "bias" in on else 0)
        want = leaky(raw + (given["skip"] if "skip" in on else 0), 0.1 if "slope" in on else 1.0)
        want = want + (given["add"] if "add" in on else 0)
        want = want * (np.where(given["mask"] > 0, 1, 0.2) if "mask" in on else 1)
        assert close(y, want, 2e-6), on
        if "moments" in on:
            assert_moments(moments, raw, 1e-6)


def assert_moments(moments, values, tolerance):
    """Compare moments (blocks, 4, K) with those of values (..., K)."""
    rows = values.reshape(-1, values.shape[-1])
    near, differences, squares, counts = np.moveaxis(exact(moments), 1, 0)
    np.testing.assert_array_equal(counts.sum(axis=0), len(rows))
    means, squares = near + differences / counts, squares - differences**2 / counts
    mean = (means * counts).sum(axis=0) / len(rows)
    assert close(mean, rows.mean(axis=0), tolerance)
    squares = (squares + counts * (means - mean) ** 2).sum(axis=0)
    np.testing.assert_allclose(squares, ((rows - rows.mean(axis=0)) ** 2).sum(axis=0), rtol=10 * tolerance)


@both_precisions
@pytest.mark.parametrize(("n", "size"), some([(7, (3, 3)), (1, (33, 17)), (5, (8, 8))]))
def test_moments_of_outputs_far_from_zero(gpu, precision, n, size):
    x, w, _ = problem(n, size, 3, 5, ONE)
    bias, y = random(5, seed=3, mean=1e3), gpu.empty(n, *size, 5)
    moments = gpu.empty(conv_tile(n, *size).number(n, *size), 4, 5)
    there = {"bias": gpu.array(bias), "moments": moments}
    convolve(gpu, precision, gpu.array(x), packed(gpu, w)[0], y, ONE, **there)
    factors = (x, w) if precision == "fp32" else (tf32(x), tf32(w))
    assert_moments(moments, convolved(*factors, ONE) + bias, 1e-6)


# ---- Columns and matrix products ----

WINDOWS = [  # size of the image, of the kernel, strides, padding, steps between the kernel's places
    ((5, 7), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((5, 7), (1, 1), (2, 3), (0, 0), (1, 1)),
    ((7, 6), (3, 2), (2, 1), (1, 0), (1, 2)),
    ((9, 8), (5, 3), (1, 2), (4, 1), (2, 1)),
    ((6, 6), (4, 4), (2, 2), (1, 1), (1, 1)),
    ((4, 3), (2, 3), (3, 1), (2, 2), (3, 2)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "step"), WINDOWS)
def test_columns_and_what_gathers_them(gpu, size, kernel, stride, padding, step, channels):
    out_size = [
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, k, s, p, d in zip(size, kernel, stride, padding, step, strict=True)
    ]
    x = random(3, *size, channels)
    columns, g = np.zeros((3, *out_size, *kernel, channels)), random(3, *out_size, *kernel, channels, seed=1)
    dx = np.zeros(x.shape)
    for i, j, u, v in np.ndindex(*out_size, *kernel):
        row, column = i * stride[0] - padding[0] + u * step[0], j * stride[1] - padding[1] + v * step[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            columns[:, i, j, u, v] = x[:, row, column]
            dx[:, row, column] += g[:, i, j, u, v]
    args = (*x.shape, *out_size, *kernel, *stride, *padding, *step)
    found, gathered = gpu.empty(*columns.shape), gpu.empty(*x.shape)
    gpu.over("im2col", columns.size, gpu.array(x), found, *args)
    np.testing.assert_array_equal(exact(found), columns)
    gpu.over("col2im", x.size, gpu.array(g), gathered, *args)
    assert close(gathered, dx, 1e-6)


@pytest.mark.parametrize(("rows", "columns", "inner"), [(1, 1, 1), (65, 3, 17), (7, 130, 33), (64, 64, 16)])
@pytest.mark.parametrize("turn_a", [False, True])
@pytest.mark.parametrize("turn_b", [False, True])
def test_matrix_products(gpu, rows, columns, inner, turn_a, turn_b):
    a, b, bias = random(rows, inner), random(inner, columns, seed=1), random(columns, seed=2)
    a_there, b_there = (gpu.array(x.T if turn else x) for x, turn in ((a, turn_a), (b, turn_b)))
    strides = ((1, rows) if turn_a else (inner, 1)) + ((1, inner) if turn_b else (columns, 1))
    args, blocks = (rows, columns, inner, *strides), (-(-rows // 64), -(-columns // 64))
    for addend in (None, bias):
        c = gpu.empty(rows, columns)
        addend_there = None if addend is None else gpu.array(addend)
        gpu.launch("matmul_fp32", (*blocks, 1), 256, a_there, b_there, addend_there, c, *args)
        assert close(c, exact(a) @ exact(b) + (0 if addend is None else addend), 2e-6)
    for splits in (2, 5):
        parts = gpu.empty(splits, rows, columns)
        gpu.launch("matmul_fp32", (*blocks, splits), 256, a_there, b_there, None, parts, *args)
        assert close(exact(parts).sum(axis=0), exact(a) @ exact(b), 2e-6)


def test_kernels_of_many_sizes_are_packed_at_once(gpu):
    shapes, convolutions = [(5, 3, 3, 3), (1, 1, 1, 1), (4, 7, 5, 2), (32, 32, 3, 3), (3, 300, 1, 1)], []
    for i, shape in enumerate(shapes):
        w = gpu.array(random(*shape, seed=i))
        convolutions.append((w, gpu.empty(int(w.size)), gpu.empty(int(w.size)), i % 2))
    pack(gpu, convolutions)
    for w, forward, backward, turned in convolutions:
        k = exact(w).reshape(*w.shape[:2], -1)[..., :: -1 if turned else 1]
        np.testing.assert_array_equal(exact(forward), k.transpose(2, 1, 0).ravel())
        np.testing.assert_array_equal(exact(backward), k[..., ::-1].transpose(2, 0, 1).ravel())


@pytest.mark.parametrize("splits", [1, 3, 8, 21])
def test_gradients_of_kernels_of_any_size_are_summed_and_turned(gpu, splits):
    partial = random(splits, 6, 3, 5)
    for turned in (0, 1):
        out = gpu.empty(5, 3, 2, 3)
        gpu.launch("sum_kernel_grads", (-(-out.size // 32),), 256, gpu.array(partial), out, splits, 6, 3, 5, turned)
        want = exact(partial).sum(axis=0).transpose(2, 1, 0).reshape(5, 3, 2, 3)
        assert close(out, want[:, :, ::-1, ::-1] if turned else want, 1e-6)


@pytest.mark.parametrize("turned", [0, 1])
def test_packing_moves_every_number_to_its_place(gpu, turned):
    w = random(5, 3, 3, 5)
    forward, backward = (exact(x) for x in packed(gpu, w, turned))
    seen = w[:, :, ::-1, ::-1] if turned else w
    np.testing.assert_array_equal(forward, seen.reshape(5, 3, 15).transpose(2, 1, 0))
    np.testing.assert_array_equal(backward, seen[:, :, ::-1, ::-1].reshape(5, 3, 15).transpose(2, 0, 1))


# ---- Batch normalisation ----

ROWS = [(63, 3), (1, 5), (200, 33), (257, 32), (65, 64), (9, 1)]
EPSILON = 1e-5


def parted(mean, scale):
    """Return statistics (3, C): the mean as two floats, and 1 / std."""
    high = mean.astype(np.float32)
    return [high, mean - high, scale]


def normalised(x):
    """Return mean and 1 / std of the channels of x (rows, C), and x normalised, in float64."""
    mean, scale = exact(x).mean(axis=0), 1 / np.sqrt(exact(x).var(axis=0) + EPSILON)
    return mean, scale, (exact(x) - mean) * scale


@pytest.mark.parametrize("each", [64, 7])
@pytest.mark.parametrize("centre", [0.0, 1e3, -3e4])
@pytest.mark.parametrize(("rows", "channels"), some(ROWS))
def test_statistics_of_batch_normalisation(gpu, rows, channels, centre, each):
    x, blocks, groups = random(rows, channels, mean=centre), -(-rows // each), -(-channels // 32)
    old = random(channels, seed=1), random(channels, seed=2) ** 2
    moments, statistics, running = gpu.empty(blocks, 4, channels), gpu.empty(3, channels), [gpu.array(v) for v in old]
    gpu.launch("bn_moments", (blocks, groups), 256, gpu.array(x), moments, rows, channels, each)
    unbiased = rows / max(rows - 1, 1)
    args = (moments, blocks, channels, EPSILON, 0.25, unbiased, *running, statistics)
    gpu.launch("bn_statistics", (groups,), 1024, *args)
    mean, scale, _ = normalised(x)
    var = exact(x).var(axis=0) * unbiased
    np.testing.assert_allclose(exact(statistics)[:2].sum(axis=0), mean, rtol=1e-12, atol=2e-7)
    np.testing.assert_allclose(exact(statistics)[2], scale, rtol=1e-6)
    np.testing.assert_allclose(exact(running[0]), 0.75 * old[0] + 0.25 * mean, rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(exact(running[1]), 0.75 * old[1] + 0.25 * var, rtol=1e-6)


def test_statistics_of_very_many_blocks(gpu):
    """More partial results than threads of a channel, some of them of a single row."""
    x = random(151, 3, mean=50.0)
    moments, statistics, running = gpu.empty(76, 4, 3), gpu.empty(3, 3), [gpu.array(np.zeros(3)) for _ in range(2)]
    gpu.launch("bn_moments", (76, 1), 256, gpu.array(x), moments, 151, 3, 2)
    gpu.launch("bn_statistics", (1,), 1024, moments, 76, 3, EPSILON, 1.0, 1.0, *running, statistics)
    mean, scale, _ = normalised(x)
    high, low, found = exact(statistics)
    np.testing.assert_allclose([high + low, found], [mean, scale], rtol=1e-6)
    np.testing.assert_allclose(exact(running[1]), exact(x).var(axis=0), rtol=1e-6)


def test_statistics_of_evaluation_mode(gpu):
    mean, var, statistics = random(300), random(300, seed=1) ** 2, gpu.empty(3, 300)
    gpu.over("bn_running", 300, gpu.array(mean), gpu.array(var), 300, EPSILON, statistics)
    np.testing.assert_array_equal(exact(statistics)[0], mean)
    np.testing.assert_array_equal(exact(statistics)[1], 0)
    np.testing.assert_allclose(exact(statistics)[2], 1 / np.sqrt(exact(var) + EPSILON), rtol=2e-7)


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize(("slope", "skip"), [(1.0, False), (0.1, True), (0.0, False)])
@pytest.mark.parametrize(("centre", "tolerance"), [(0.0, 1e-6), (1e3, 1e-6), (-3e4, 1e-6)])
@pytest.mark.parametrize(("rows", "channels"), some([(63, 3), (37, 33), (65, 64), (301, 4)]))
def test_batch_normalisation_forward(gpu, rows, channels, centre, tolerance, slope, skip):
    x, other = random(rows, channels, mean=centre), random(rows, channels, seed=1)
    gamma, beta, y = random(channels, seed=2, mean=1.0), random(channels, seed=3), gpu.empty(rows, channels)
    mean, scale, xhat = normalised(x)
    statistics = gpu.array(parted(mean, scale))
    arrays = (gpu.array(x), gpu.array(other) if skip else None, statistics, gpu.array(gamma), gpu.array(beta), y)
    gpu.elementwise("bn_apply", y.size, *arrays, np.int64(y.size), channels, slope, each=4)
    assert close(y, leaky(xhat * gamma + beta + (other if skip else 0), slope), tolerance)


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize(("slope", "past"), [(1.0, "nowhere"), (0.1, "elsewhere"), (0.0, "in place")])
@pytest.mark.parametrize(("centre", "tolerance"), [(0.0, 2e-6), (1e3, 2e-6), (-3e4, 2e-6)])
@pytest.mark.parametrize(("rows", "channels", "each"), some([(63, 3, 64), (200, 33, 7), (65, 64, 64), (301, 4, 64)]))
def test_batch_normalisation_backward(gpu, rows, channels, each, centre, tolerance, slope, past):
    x, g, y = random(rows, channels, mean=centre), random(rows, channels, seed=1), random(rows, channels, seed=2)
    y[::5] = 0.0  # has the slope of what is below 0
    gamma, (mean, scale, xhat) = random(channels, seed=3, mean=1.0), normalised(x)
    slopes = np.ones(y.shape) if slope == 1.0 else np.where(y > 0, 1.0, np.float32(slope))
    masked = g * slopes
    grad_beta, grad_gamma = masked.sum(axis=0), (masked * xhat).sum(axis=0)
    dx = gamma * scale * (masked - grad_beta / rows - xhat * grad_gamma / rows)

    blocks, groups, grads = -(-rows // each), -(-channels // 32), gpu.array(g)
    sums, out = gpu.empty(blocks, 2, channels), gpu.empty(rows, channels)
    found = gpu.empty(channels), gpu.empty(channels)
    common = (grads, None if slope == 1.0 else gpu.array(y), gpu.array(x), gpu.array(parted(mean, scale)))
    gpu.launch("bn_sums", (blocks, groups), 256, *common, sums, rows, channels, each, slope)
    gpu.launch("total_sums", (groups, 2), 1024, sums, blocks, channels, *found)
    assert close(found[0], grad_beta, tolerance)
    assert close(found[1], grad_gamma, tolerance)
    to = {"nowhere": None, "elsewhere": gpu.empty(rows, channels), "in place": grads}[past]
    args = (*common, gpu.array(gamma), found[1], found[0], out, to, np.int64(x.size), channels, 1.0 / rows, slope)
    gpu.elementwise("bn_backward", x.size, *args, each=4)
    assert close(out, dx, tolerance)
    if to is not None:
        assert close(to, masked, 1e-7)


@pytest.mark.parametrize(("rows", "channels", "each"), [(1, 1, 64), (63, 3, 64), (200, 33, 3), (301, 64, 64)])
def test_gradients_of_biases(gpu, rows, channels, each):
    g, blocks, groups = random(rows, channels, mean=0.5), -(-rows // each), -(-channels // 32)
    sums, out = gpu.empty(blocks, 2, channels), gpu.empty(channels)
    gpu.launch("bias_sums", (blocks, groups), 256, gpu.array(g), sums, rows, channels, each)
    np.testing.assert_array_equal(exact(sums)[:, 1], 0)
    gpu.launch("total_sums", (groups, 2), 1024, sums, blocks, channels, out, None)
    assert close(out, exact(g).sum(axis=0), 1e-6)


def test_totals_go_where_they_are_wanted(gpu):
    sums, first, second = random(70, 2, 40), gpu.empty(40), gpu.empty(40)
    gpu.launch("total_sums", (2, 2), 1024, gpu.array(sums), 70, 40, None, second)
    np.testing.assert_allclose(exact(second), exact(sums).sum(axis=0)[1], rtol=1e-6, atol=1e-6)
    gpu.launch("total_sums", (2, 2), 1024, gpu.array(sums), 70, 40, first, None)
    np.testing.assert_allclose(exact(first), exact(sums).sum(axis=0)[0], rtol=1e-6, atol=1e-6)


# ---- Activations and poolings ----

COUNTS = [1, 255, 1025]


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_activations(gpu, count, slope):
    x, skip, number = random(count), random(count, seed=1), np.int64(count)
    x[0] = 0.0
    there = gpu.array(x)
    for other in (None, skip):
        y = gpu.empty(count)
        gpu.elementwise("activate", count, there, None if other is None else gpu.array(other), y, number, slope)
        assert close(y, leaky(exact(x) + (0 if other is None else other), slope), 2e-7)
    gpu.elementwise("activate", count, there, None, there, number, slope)
    assert close(there, leaky(exact(x), slope), 2e-7)


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("add", [0, 1])
def test_gradients_of_activations(gpu, count, slope, add):
    g, y, before, number = random(count), random(count, seed=1), random(count, seed=2), np.int64(count)
    y[0] = 0.0  # has the slope of what is below 0
    for seen in (None, y):
        grads, out = gpu.array(g), gpu.array(before)
        want = exact(g) * (1 if seen is None else np.where(seen > 0, 1, slope))
        args = (None if seen is None else gpu.array(seen),)
        gpu.elementwise("activate_grad", count, grads, *args, out, number, slope, add)
        assert close(out, want + before * add, 2e-7)
        gpu.elementwise("activate_grad", count, grads, *args, grads, number, slope, add)
        assert close(grads, want + exact(g) * add, 2e-7)


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize(
    ("n", "size", "pool", "channels"), [(1, (1, 1), (2, 3), 1), (7, (3, 2), (2, 3), 5), (2, (2, 3), (3, 1), 4)]
)
def test_average_pooling(gpu, n, size, pool, channels):
    x, g = random(n, size[0] * pool[0], size[1] * pool[1], channels), random(n, *size, channels, seed=1)
    y, args = gpu.empty(*g.shape), (n, *size, channels, *pool)
    gpu.elementwise("average_pool", g.size, gpu.array(x), y, *args)
    want = reference.pool2d(exact(x).transpose(0, 3, 1, 2), pool, pool, np.mean)
    assert close(y, want.transpose(0, 2, 3, 1), 1e-6)
    back = np.kron(exact(g), np.ones((1, *pool, 1))) / np.prod(pool)
    for mask in (None, x):
        out = gpu.empty(*x.shape)
        mask_there = None if mask is None else gpu.array(mask)
        gpu.elementwise("average_pool_grad", x.size, gpu.array(g), mask_there, out, *args, 0.1)
        assert close(out, back if mask is None else back * np.where(mask > 0, 1, 0.1), 1e-6)


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize(("n", "pixels", "channels"), [(1, 1, 1), (7, 35, 3), (3, 64, 100)])
def test_global_average_pooling(gpu, n, pixels, channels):
    x, g, y = random(n, pixels, channels), random(n, channels, seed=1), gpu.empty(n, channels)
    gpu.elementwise("global_average", g.size, gpu.array(x), y, n, pixels, channels)
    assert close(y, exact(x).mean(axis=1), 1e-6)
    back = np.repeat(exact(g)[:, None], pixels, axis=1) / pixels
    for mask in (None, x):
        out = gpu.empty(*x.shape)
        mask_there = None if mask is None else gpu.array(mask)
        gpu.elementwise("global_average_grad", x.size, gpu.array(g), mask_there, out, n, pixels, channels, 0.1)
        assert close(out, back if mask is None else back * np.where(mask > 0, 1, 0.1), 1e-6)


# ---- The error, the learning rule, the batch ----


def cross_entropy(gpu, x, labels):
    """Return the losses, the gradients and the hits of rows x (B, K)."""
    rows, classes = x.shape
    grads, losses, hits = gpu.empty(rows, classes), gpu.empty(rows), gpu.empty(rows, dtype=np.int32)
    args = (gpu.array(x), gpu.array(labels, np.int64), grads, losses, hits, rows, classes, 1.0 / rows)
    gpu.launch("cross_entropy", (-(-rows // 8),), 256, *args)
    return losses, exact(grads), hits.get()


def assert_cross_entropy(gpu, x, labels):
    """Every loss and every gradient has its digits, however small it is."""
    losses, grads, hits = cross_entropy(gpu, x, labels)
    error, parts = CrossEntropySoftmaxError(), CrossEntropySoftmaxError(reduction="none")
    np.testing.assert_allclose(exact(losses), parts.value_and_grad(exact(x), labels)[0], rtol=1e-6, atol=1e-37)
    value, right = error.value_and_grad(exact(x), labels)
    np.testing.assert_allclose(grads, right, rtol=2e-6, atol=1e-37)
    np.testing.assert_array_equal(hits, x.argmax(axis=1) == labels)
    return float(value), losses, hits


@pytest.mark.parametrize("scale", [1.0, 30.0, 3e3])
@pytest.mark.parametrize(("rows", "classes"), some([(1, 10), (101, 100), (8, 33), (300, 3), (9, 1), (7, 2), (3, 32)]))
def test_cross_entropy_and_its_sums(gpu, rows, classes, scale):
    x = np.clip(random(rows, classes) * np.float32(scale), -1e4, 1e4)
    labels = np.random.default_rng(1).integers(0, classes, rows)
    labels[::2] = x.argmax(axis=1)[::2]
    value, losses, hits = assert_cross_entropy(gpu, x, labels)
    loss, control = gpu.empty(1), np.zeros((), CONTROL)
    control["loss_sum"], control["correct"], control["images"], control["steps"] = 0.5, 3, 4, 9
    there = gpu.array(np.frombuffer(control.tobytes(), np.uint8), np.uint8)
    gpu.launch("count_batch", (1,), 256, losses, gpu.array(hits, np.int32), rows, loss, there)
    assert float(loss[0]) == pytest.approx(value, rel=1e-6, abs=1e-37)
    after = np.frombuffer(there.get().tobytes(), CONTROL)[0]
    total = exact(losses).sum()
    assert after["loss_sum"] == pytest.approx(0.5 + total, rel=1e-12)
    assert (after["correct"], after["images"]) == (3 + hits.sum(), 4 + rows)
    same = [name for name in CONTROL.names if name not in ("loss_sum", "correct", "images")]
    assert [after[name] for name in same] == [control[name] for name in same]
    loss[...] = np.float32(np.nan)
    gpu.launch("count_batch", (1,), 256, losses, gpu.array(hits, np.int32), rows, loss, None)
    assert float(loss[0]) == pytest.approx(value, rel=1e-6, abs=1e-37)


def test_cross_entropy_of_strange_logits(gpu):
    inf = np.inf
    rows = [
        [0.0, 0.0, 0.0, 0.0],  # equal: the first is the answer
        [-7.5, -7.5, -7.5, -7.5],
        [1e4, -1e4, 9999.0, 1e4],
        [-1e4, -1e4, 1e4, 0.0],
        [1.0, -inf, 2.0, -inf],
        [5.0, -inf, -3e30, 4.0],
        [0.0, -40.0, -90.0, -1000.0],
        [1e38, -1e38, 0.0, 1e38],
        [16777216.0, 16777215.0, 1.0, 16777214.0],
    ]
    x = np.float32(rows)
    for label in range(4):
        labels = np.full(len(rows), label)
        keep = np.isfinite(x[:, label])
        assert_cross_entropy(gpu, x[keep], labels[keep])
    losses, grads, hits = cross_entropy(gpu, x[4:6], np.array([1, 1]))
    np.testing.assert_array_equal(exact(losses), inf)
    np.testing.assert_array_equal(hits, 0)
    np.testing.assert_allclose(grads.sum(axis=1), 0, atol=1e-7)
    np.testing.assert_array_equal(grads[:, 1], -0.5)


def control_of(rule):
    """Return `Control` as the host writes it for a rule of Adam."""
    control = np.zeros((), CONTROL)
    for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "bias_correction"):
        control[name] = getattr(rule, name)
    control["epsilon_corrected"] = type(rule) is KingmaAdamLearningRule
    return control


RULES = [
    form(0.01, **settings)
    for form in (AdamLearningRule, KingmaAdamLearningRule)
    for settings in ({}, {"epsilon": 0.1}, {"bias_correction": False}, {"beta_1": 0.0}, {"beta_1": 0.0, "beta_2": 0.0})
]


@pytest.mark.usefixtures("any_grid")
@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_of_adam(gpu, rule):
    params = random(1000)
    right = exact(params).copy()
    rule.initialise([right])
    there, moments = gpu.array(params), [gpu.array(np.zeros(1000)) for _ in range(2)]
    control = gpu.array(np.frombuffer(control_of(rule).tobytes(), np.uint8), np.uint8)
    grads = gpu.empty(1000)
    for step in range(20):
        grad = random(1000, seed=step + 1) * np.float32(10.0 ** (step % 3 - 1))
        grads[...] = gpu.xp.asarray(grad)
        rule.update_params([exact(grad)])
        gpu.elementwise("adam", 1000, there, grads, *moments, np.int64(1000), control)
        gpu.launch("next_batch", (1,), 1, control, 1)
    moved = exact(there) - params, right - params
    assert np.abs(moved[1]).max() > 0.05
    np.testing.assert_allclose(*moved, atol=3e-6)
    for found, want in zip(moments, (rule.moms_1[0], rule.moms_2[0]), strict=True):
        assert close(found, want, 1e-6)
    after = np.frombuffer(control.get().tobytes(), CONTROL)[0]
    assert after["steps"] == rule.step_count == 20


@pytest.mark.parametrize("learned", [0, 1])
def test_going_on_to_the_next_batch(gpu, learned):
    control = np.array(tuple(range(10, 10 + len(CONTROL.names))), CONTROL)
    there = gpu.array(np.frombuffer(control.tobytes(), np.uint8), np.uint8)
    gpu.launch("next_batch", (1,), 1, there, learned)
    control["batch"] += 1
    control["steps"] += learned
    assert there.get().tobytes() == control.tobytes()


PROVIDERS = [  # images, batch, their shape, seed, in random order, padding of what is augmented
    (10, 4, (5, 7, 3), 0, False, None),
    (10, 4, (5, 7, 3), 1, True, 4),
    (7, 7, (8, 8, 1), 2**63 + 5, True, 4),
    (5, 2, (12, 9, 4), 123456, False, 2),
    (10, 3, (4, 6, 2), 3, False, 0),
    (3, 1, (1, 1, 3), 7, True, None),
]


@pytest.mark.parametrize(("count", "batch", "shape", "seed", "shuffle", "padding"), PROVIDERS)
def test_batches_are_those_of_the_provider_bit_for_bit(gpu, count, batch, shape, seed, shuffle, padding):
    rng = np.random.default_rng(3)
    images = ImageSet(rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 100, count))
    mean, std = rng.uniform(0.2, 0.8, (2, shape[2]))
    provider = ImageDataProvider(images, batch, tuple(mean), tuple(std), seed, shuffle, padding is not None)
    provider.padding = padding
    there = gpu.array(images.pixels, np.uint8), gpu.array(images.labels, np.int64)
    scale, shift = gpu.array(provider.scale), gpu.array(provider.shift)
    words = np.uint64(seed), np.uint64(zlib.crc32(b"augmentation"))
    for epoch, index in itertools.product((0, 3), range(provider.num_batches)):
        want, labels = provider.batch(epoch, index)
        control, size = np.zeros((), CONTROL), len(labels)
        control["epoch"], control["batch"] = epoch, index
        inputs, found = gpu.empty(size, *shape), gpu.empty(size, dtype=np.int64)
        order = gpu.array(provider.order(epoch), np.int64)
        arrays = (*there, order, gpu.array(np.frombuffer(control.tobytes(), np.uint8), np.uint8), inputs, found)
        sizes = (size, batch, *shape, -1 if padding is None else padding)
        gpu.over("gather_batch", size * shape[0] * shape[1], *arrays, *sizes, *words, scale, shift)
        assert inputs.get().tobytes() == np.ascontiguousarray(want.transpose(0, 2, 3, 1)).tobytes()
        np.testing.assert_array_equal(found.get(), labels)
