"""The stand-in for a GPU's kernels: what it computes, what it refuses, what it finds out."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mlp.kernels import gpu

from ..strict_cupy import StrictCupy
from .guarded import Guarded
from .on_cpu import MAX_SHARED, MAX_SHARED_WITHOUT_ASKING, Kernel, LaunchError, RawModule, needs_compiler

pytestmark = needs_compiler

ROOT = Path(__file__).parents[2]
XP = StrictCupy()

KERNELS = r"""
struct Pair { i64 first; double second; };

KERNEL places(int* to) {
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    to[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
KERNEL takes_all(const float* a, const Pair* b, u8* c, int d, i64 e, u64 f, float g, double h) {
    if (a) c[0] = a[0] + b->first + b->second + d + e + f + g + h;
}
KERNEL __launch_bounds__(64) few(float* to) { to[threadIdx.x] = 1.0f; }
KERNEL reversed(float* to) {
    SHARED_MEMORY(room);
    __shared__ float other[64];
    const int mine = threadIdx.x, across = blockDim.x - 1 - threadIdx.x;
    to[mine] = room[mine], to[64 + mine] = other[mine];
    room[mine] = other[mine] = mine;
    __syncthreads();
    to[128 + mine] = room[across], to[192 + mine] = other[across];
}
KERNEL product(const float* a, const float* b, float* d, int warps) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const float* x = a + threadIdx.x / 32 * 128;
    float* y = d + threadIdx.x / 32 * 128;
    for (int i = 0; i < 2; i++)
        mma_16x8x8(y[g * 8 + 2 * t], y[g * 8 + 2 * t + 1], y[(g + 8) * 8 + 2 * t], y[(g + 8) * 8 + 2 * t + 1],
                   to_tf32(x[g * 8 + t]), to_tf32(x[(g + 8) * 8 + t]), to_tf32(x[g * 8 + t + 4]),
                   to_tf32(x[(g + 8) * 8 + t + 4]), to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g]));
}
KERNEL rounded(const float* x, float* y) {
    const unsigned bits = to_tf32(x[threadIdx.x]);
    memcpy(y + threadIdx.x, &bits, 4);
}
// Wrong, every one of these.
KERNEL some_end(float* to) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    to[threadIdx.x] = 1.0f;
}
KERNEL some_of_a_warp_end(float* to) {
    if (threadIdx.x < 40) return;
    mma_16x8x8(to[0], to[1], to[2], to[3], 0, 0, 0, 0, 0, 0);
}
KERNEL two_barriers(float* to) {
    if (threadIdx.x < 40) __syncthreads();
    else mma_16x8x8(to[0], to[1], to[2], to[3], 0, 0, 0, 0, 0, 0);
}
KERNEL without_a_barrier(float* to) {
    __shared__ float room[64];
    room[threadIdx.x] = 0.0f;
    to[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}
KERNEL one_for_all(float* to) { to[0] = threadIdx.x; }
KERNEL blocks_meet(float* to) { to[blockIdx.x] = blockIdx.x ? to[blockIdx.x - 1] : 1.0f; }
KERNEL too_far(float* to, int from) { to[(int)threadIdx.x + from] = 1.0f; }
"""
CODE = (files("mlp.kernels") / "cuda" / "common.cu").read_text() + KERNELS


def kernel(name):
    return RawModule(CODE, ("-std=c++17",)).get_function(name)


def array(*shape, dtype=np.float32):
    return XP.zeros(shape, dtype)


def test_threads_and_blocks_know_their_places():
    to = array(2 * 3 * 4, 2 * 3 * 5, dtype=np.int32)
    kernel("places")((2, 3, 4), (5, 3, 2), (to,))
    np.testing.assert_array_equal(to.get(), 1000 * np.arange(24)[:, None] + np.arange(30))


def test_arguments_come_through():
    pair = np.frombuffer(np.array((2, 0.5), "i8, f8").tobytes(), np.uint8)
    args = [XP.full(1, 1.25, np.float32), XP.asarray(pair), array(1, dtype=np.uint8)]
    args += [np.int32(-4), np.int64(-8), np.uint64(16), np.float32(0.25), np.float64(32)]
    kernel("takes_all")((1,), (1,), tuple(args))
    assert int(args[2][0]) == 1.25 + 2 + 0.5 - 4 - 8 + 16 + 0.25 + 32
    for null in (None, np.uint64(0)):
        kernel("takes_all")((1,), (1,), (null, *args[1:]))


GOOD = {
    "a": array(1),
    "b": array(16, dtype=np.uint8),
    "c": array(1, dtype=np.uint8),
    "d": np.int32(0),
    "e": np.int64(0),
    "f": np.uint64(0),
    "g": np.float32(0),
    "h": np.float64(0),
}


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("a", array(1, dtype=np.float64), "points to f8, expected f4"),
        ("a", array(1, dtype=np.int32), "points to i4, expected f4"),
        ("a", np.zeros(1, np.float32), "expected a contiguous CuPy array"),
        ("a", array(4, 4).T[1:], "expected a contiguous CuPy array"),
        ("a", array(4)[::2], "expected a contiguous CuPy array"),
        ("a", np.uint64(64), "expected a contiguous CuPy array"),
        ("a", 0, "expected a contiguous CuPy array"),
        ("b", array(15, dtype=np.uint8), "not a structure of 16 bytes"),
        ("b", array(2, dtype=np.float64), "not a structure of 16 bytes"),
        ("c", array(1, dtype=np.int8), "points to i1, expected u1"),
        ("d", 1, "expected a NumPy scalar i4"),
        ("d", np.int64(1), "expected a NumPy scalar i4"),
        ("d", np.uint32(1), "expected a NumPy scalar i4"),
        ("d", True, "expected a NumPy scalar i4"),
        ("d", array(1, dtype=np.int32), "expected a NumPy scalar i4"),
        ("e", np.int32(1), "expected a NumPy scalar i8"),
        ("f", np.int64(1), "expected a NumPy scalar u8"),
        ("g", 1.0, "expected a NumPy scalar f4"),
        ("g", np.float64(1.0), "expected a NumPy scalar f4"),
        ("h", 1.0, "expected a NumPy scalar f8"),
        ("h", None, "expected a NumPy scalar f8"),
    ],
)
def test_arguments_of_another_type_are_refused(name, value, match):
    kernel("takes_all")((1,), (1,), tuple(GOOD.values()))
    with pytest.raises(LaunchError, match=match):
        kernel("takes_all")((1,), (1,), tuple((GOOD | {name: value}).values()))


@pytest.mark.parametrize("count", [0, 7, 9])
def test_too_few_and_too_many_arguments_are_refused(count):
    values = (*GOOD.values(), np.float32(0))
    with pytest.raises(LaunchError, match=f"takes_all: {count} arguments, expected 8"):
        kernel("takes_all")((1,), (1,), values[:count])


@pytest.mark.parametrize(
    ("name", "grid", "block"),
    [
        ("places", (1,), (1025,)),
        ("places", (1,), (33, 32)),
        ("places", (1,), (0,)),
        ("places", (0,), (1,)),
        ("places", (1, 65536), (1,)),
        ("places", (1, 1, 65536), (1,)),
        ("places", (2**31,), (1,)),
        ("few", (1,), (65,)),
    ],
)
def test_grids_and_blocks_of_impossible_sizes_are_refused(name, grid, block):
    dtype = np.float32 if name == "few" else np.int32
    with pytest.raises(LaunchError, match=rf"{name}: grid .* block .* at most {64 if name == 'few' else 1024} threads"):
        kernel(name)(grid, block, (array(4, dtype=dtype),))


def test_the_largest_blocks_run():
    to = array(1024, dtype=np.int32)
    kernel("places")((1,), (1024,), (to,))
    assert int(to[-1]) == 1023
    few = array(64)
    kernel("few")((1,), (64,), (few,))
    assert few.get().all()


def test_shared_memory_must_be_asked_for():
    function, to = kernel("reversed"), array(256)
    function((1,), (64,), (to,), shared_mem=MAX_SHARED_WITHOUT_ASKING)
    for size in (MAX_SHARED_WITHOUT_ASKING + 1, -1):
        with pytest.raises(LaunchError, match="bytes of shared memory were not asked for"):
            function((1,), (64,), (to,), shared_mem=size)
    function.max_dynamic_shared_size_bytes = MAX_SHARED + 1
    function((1,), (64,), (to,), shared_mem=MAX_SHARED)
    with pytest.raises(LaunchError, match="bytes of shared memory were not asked for"):
        function((1,), (64,), (to,), shared_mem=MAX_SHARED + 1)


def test_options_that_mean_nothing_here_are_refused():
    with pytest.raises(LaunchError, match="--use_fast_math"):
        RawModule(CODE, ("-std=c++17", "--use_fast_math"))


def test_a_block_finds_nan_in_shared_memory_and_then_what_its_threads_wrote():
    to = array(4, 64)
    kernel("reversed")((3,), (64,), (to,), shared_mem=256)
    fresh_dynamic, fresh_static, *filled = to.get()
    assert np.isnan(fresh_dynamic).all()
    assert np.isnan(fresh_static).all()
    for row in filled:
        np.testing.assert_array_equal(row, np.arange(64)[::-1])


@pytest.mark.parametrize("backwards", [False, True])
def test_products_of_warps(backwards, monkeypatch):
    """Twice in a row, added to what was there."""
    monkeypatch.setattr(Kernel, "backwards", backwards)
    a, b, d = (
        np.random.default_rng(i).integers(-9, 10, shape) for i, shape in enumerate([(3, 16, 8), (8, 8), (3, 16, 8)])
    )
    a, b, d = (x.astype(np.float32) for x in (a, b, d))
    to = XP.asarray(d.copy())
    kernel("product")((1,), (96,), (XP.asarray(a), XP.asarray(b), to, np.int32(3)))
    np.testing.assert_array_equal(to.get(), d + 2 * (a @ b))


def test_tf32_has_ten_bits_of_fraction():
    unit = 2.0**-10
    given = [1.0, 1 + unit / 2, 1 + unit * 0.49, -1 - unit * 1.5, 2 - unit / 4, np.inf, -np.inf, np.nan, -0.0]
    expected = [1.0, 1 + unit, 1.0, -1 - 2 * unit, 2.0, np.inf, -np.inf, np.nan, -0.0]
    y = array(len(given))
    kernel("rounded")((1,), (len(given),), (XP.asarray(np.float32(given)), y))
    np.testing.assert_array_equal(y.get(), expected)
    assert np.signbit(y.get()[-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_end", "thread 5 ended while thread . waits at a barrier"),
        ("some_of_a_warp_end", "thread 32 ended while thread 40 waits at a barrier"),
        ("two_barriers", "a block hangs at a barrier"),
    ],
)
def test_barriers_that_not_all_threads_reach_end_the_program(name, message):
    script = f"from tests.cuda.test_on_cpu import *; kernel({name!r})((1,), (64,), (array(64),)); print('went on')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode < 0
    assert "went on" not in done.stdout
    assert re.search(message, done.stderr)


# ---- What tests/cuda/guarded.py finds out ----


@pytest.fixture
def guarded(monkeypatch):
    monkeypatch.setattr(gpu, "source", lambda: CODE)
    return Guarded()


@pytest.mark.parametrize(("name", "blocks"), [("without_a_barrier", 1), ("one_for_all", 1), ("blocks_meet", 64)])
def test_results_that_depend_on_the_order_of_threads_are_found(guarded, name, blocks):
    with pytest.raises(AssertionError, match=f"{name}: the order of the threads matters"):
        guarded.launch(name, (blocks,), 64 // blocks, guarded.array(np.zeros(64)))
    assert Kernel.backwards is False


@pytest.mark.parametrize("start", [-1, 1])
def test_writing_outside_an_array_is_found(guarded, start):
    guarded.launch("too_far", (1,), 64, guarded.empty(64), 0)
    with pytest.raises(AssertionError, match="too_far: written outside an array"):
        guarded.launch("too_far", (1,), 64, guarded.empty(64), start)


def test_arrays_hold_what_they_are_given_or_nothing_of_use(guarded):
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(guarded.array(values).get(), values)
    np.testing.assert_array_equal(guarded.array(values.T).get(), values.T)
    assert guarded.array(values.T).flags.c_contiguous
    assert np.isnan(guarded.empty(2, 3).get()).all()
    np.testing.assert_array_equal(guarded.empty(3, dtype=np.int64).get(), -1)
