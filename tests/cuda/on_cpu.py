"""CUDA sources compiled for the CPU, and called as CuPy calls them: `RawModule`, of the stand-in for CuPy.

What is checked here is more than CuPy checks: that every argument has the kernel's type, arrays down to their dtype.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles the CUDA sources for the CPU")

SHIM = Path(__file__).with_name("shim.h")
SANITIZERS = "MLP_TEST_SANITIZERS"
"""Set to 1, the code is compiled with sanitizers: see kernels/test_cuda_sanitizers.py."""
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-Wall", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-unused", "-Wno-sign-compare", "-Wno-maybe-uninitialized"]
SANITIZING = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZING += ["-fsanitize-sections=shared_memory"]
MAX_THREADS, MAX_SHARED, MAX_SHARED_WITHOUT_ASKING = 1024, 227 * 1024, 48 * 1024


class LaunchError(TypeError):
    """A kernel is called in a way that a GPU would not take, or would take wrongly."""


@cache
def compiled(code: str) -> ctypes.CDLL:
    """Return the library of some sources, compiled once and kept for other processes."""
    flags = FLAGS + (SANITIZING if os.environ.get(SANITIZERS) == "1" else [])
    exports = "".join(f"EXPORT({name})\n" for name in kernel_names(code))
    text = f'#include "{SHIM}"\n{code}\n{exports}'
    digest = hashlib.sha256(repr([text, SHIM.read_text(), flags]).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mlp-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            source, made = Path(place) / "kernels.cpp", Path(place) / "kernels.so"
            source.write_text(text)
            plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            subprocess.run(["g++", *flags, "-o", str(made), str(source)], check=True, env=plain)
            made.rename(library)
    return ctypes.CDLL(str(library))


def kernel_names(code: str) -> list[str]:
    """Return the names of the kernels in some sources, which define them with KERNEL."""
    return re.findall(r"^KERNEL (?:__launch_bounds__\(\d+\) )?(\w+)\(", code, re.MULTILINE)


class RawModule:
    """CuPy's RawModule, on the CPU."""

    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        unknown = [option for option in options if not option.startswith(("-std=c++17", "-D"))]
        if unknown:
            raise LaunchError(f"RawModule: options {unknown} are not known here")
        self.code = code
        self.library = compiled(code)

    def get_function(self, name: str) -> "Kernel":
        """Return a kernel."""
        return Kernel(self, name)


class Kernel:
    """CuPy's RawKernel, on the CPU."""

    capture = None
    """Where a stream is capturing: the list of launches that it records."""
    backwards = False
    """Whether the last block and the last thread come first, which no result may depend on."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.name, self.library = name, module.library
        self.max_dynamic_shared_size_bytes = MAX_SHARED_WITHOUT_ASKING
        getattr(module.library, f"signature_{name}").restype = ctypes.c_char_p
        self.types = getattr(module.library, f"signature_{name}")().decode().split()
        self.call = getattr(module.library, f"call_{name}")
        bounds = re.search(rf"^KERNEL __launch_bounds__\((\d+)\) {name}\(", module.code, re.MULTILINE)
        self.most = int(bounds[1]) if bounds else MAX_THREADS

    def __call__(self, grid, block, args, *, shared_mem=0):
        """Run the kernel, or record it."""
        grid, block = (tuple(size) + (1,) * (3 - len(size)) for size in (grid, block))
        if not 0 < np.prod(block) <= self.most or not 0 < np.prod(grid) < 2**31 or max(grid[1:]) > 65535:
            raise LaunchError(f"{self.name}: grid {grid}, block {block}, at most {self.most} threads")
        if not 0 <= shared_mem <= min(self.max_dynamic_shared_size_bytes, MAX_SHARED):
            raise LaunchError(f"{self.name}: {shared_mem} bytes of shared memory were not asked for")
        if len(args) != len(self.types):
            raise LaunchError(f"{self.name}: {len(args)} arguments, expected {len(self.types)}: {self.types}")
        values = [_value(self.name, i, *pair) for i, pair in enumerate(zip(args, self.types, strict=True))]
        if Kernel.capture is None:
            self._run(grid, block, shared_mem, values)
        else:
            Kernel.capture.append((self, grid, block, shared_mem, values, args))

    def _run(self, grid, block, shared_mem, values):
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        ctypes.c_int.in_dll(self.library, "backwards").value = Kernel.backwards
        self.call(*sizes, ctypes.c_uint(shared_mem), pointers)


def _value(name, i, given, kind):
    """Return the bytes of an argument as an array; refuse what has not the kernel's type."""
    if kind[0] != "*":
        if not isinstance(given, np.generic) or f"{given.dtype.kind}{given.itemsize}" != kind:
            raise LaunchError(f"{name}: argument {i} is {given!r}, expected a NumPy scalar {kind}")
        return np.array(given)
    if given is None or (isinstance(given, np.generic) and given == 0 and given.dtype == np.uint64):
        return np.array(0, np.uint64)
    if type(given).__module__ != "cupy" or not given.flags.c_contiguous:
        raise LaunchError(f"{name}: argument {i} is {type(given)}, expected a contiguous CuPy array")
    plain = np.ndarray.view(given, np.ndarray)
    expected = f"{plain.dtype.kind}{plain.itemsize}"
    if kind[1:].isdigit() and (plain.dtype != np.uint8 or plain.nbytes != int(kind[1:])):
        raise LaunchError(f"{name}: argument {i} is not a structure of {kind[1:]} bytes")
    if not kind[1:].isdigit() and expected != kind[1:]:
        raise LaunchError(f"{name}: argument {i} points to {expected}, expected {kind[1:]}")
    return np.array(plain.ctypes.data, np.uint64)
