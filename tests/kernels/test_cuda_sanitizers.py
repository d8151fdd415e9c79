"""The GPU's kernels on the CPU under the address and undefined-behaviour sanitizers, in processes of their own."""

import os
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

from ..cuda.on_cpu import SANITIZERS, needs_compiler

pytestmark = needs_compiler
ROOT = Path(__file__).parents[2]

COMMON = (files("mlp.kernels") / "cuda" / "common.cu").read_text()
WRONG = {
    "reads past an array": ("y[i] = x[i + 1];", "heap-buffer-overflow"),
    "writes before an array": ("y[i - 1] = x[i];", "heap-buffer-overflow"),
    "reads past shared memory": ("SHARED_MEMORY(room); room[i] = x[i]; y[i] = room[i + 1];", "heap-buffer-overflow"),
    "reads past an array in shared memory": (
        "__shared__ float room[32]; room[i] = x[i]; __syncthreads(); y[i] = *(&room[i] + 1);",
        "global-buffer-overflow",
    ),
    "takes an odd address for a vector's": ("y[i] = ((const float4*)(x + 1))->x;", "misaligned address"),
    "counts too far": ("y[i] = 2147483647 + i;", "signed integer overflow"),
}
RIGHT = "SHARED_MEMORY(room); room[i] = x[i]; __syncthreads(); y[i] = room[31 - i] + ((const float4*)x)->x;"


@cache
def runtime():
    """Return the sanitizer's library, which must be in a process from the start."""
    found = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("g++ has no address sanitizer here")
    return found


def sanitized(*arguments):
    """Run Python under the sanitizers. Its own memory is left to leak; fibers have stacks that must not be faked."""
    options = {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=0"}
    env = {**os.environ, **options, SANITIZERS: "1", "LD_PRELOAD": runtime()}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)


def launched(body):
    """Run a kernel with this body in one block of 32 threads, on arrays of NumPy's."""
    code = f"{COMMON}\nKERNEL probe(const float* x, float* y) {{ const int i = threadIdx.x; {body} }}\n"
    lines = [
        "from tests.strict_cupy import StrictCupy",
        "xp = StrictCupy()",
        f"probe = xp.RawModule({code!r}, ('-std=c++17',)).get_function('probe')",
        "x, y = xp.arange(32, dtype='f4'), xp.zeros(32, 'f4')",
        "probe((1,), (32,), (x, y), shared_mem=128)",
        "print('sum', float(y.sum()))",
    ]
    return sanitized("-c", "\n".join(lines))


def test_no_kernel_leaves_its_arrays():
    done = sanitized(
        "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/kernels/test_gpu.py"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("what", WRONG)
def test_a_kernel_is_caught_that(what):
    body, message = WRONG[what]
    done = launched(body)
    assert done.returncode != 0
    assert message in done.stderr
    assert "sum" not in done.stdout


def test_a_right_kernel_is_not_caught():
    done = launched(RIGHT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "sum 496.0\n"
