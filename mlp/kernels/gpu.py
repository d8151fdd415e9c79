"""The GPU's kernels: CUDA C (`cuda/*.cu`), compiled on first use, and the shapes that they are launched in.

A `Launch` is a kernel with everything it needs. Arrays in it must stay where they are: a graph of launches is repeated
without a look at them. Buffers are contiguous float32, feature maps (N, H, W, C).
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array, array_module

THREADS, MAX_BLOCKS = 256, 2112
"""Threads of a block that works elementwise, and at most so many blocks: 16 for each of 132 multiprocessors."""


class Launch(NamedTuple):
    """A kernel, ready to run on the current stream. `flops` are those of the plain sums, for profiles."""

    kernel: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]
    shared: int = 0
    label: str = ""
    flops: int = 0

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.label.split()[0]

    @property
    def num_bytes(self) -> int:
        """The bytes of the arrays that it reads and writes, once each."""
        return sum(int(arg.nbytes) for arg in self.args if getattr(arg, "ndim", 0))

    def __call__(self) -> None:
        """Run it."""
        self.kernel(self.grid, self.block, self.args, shared_mem=self.shared)


class Kernels:
    """The kernels of a CuPy module, by name. `launch` makes a launch of one."""

    def __init__(self, xp: ModuleType) -> None:
        self._module = xp.RawModule(code=source(), options=("-std=c++17",))
        self._known: dict[str, Any] = {}

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        threads: int,
        *args: Any,
        shared: int = 0,
        label: str = "",
        flops: int = 0,
    ) -> Launch:
        """Return a launch. Python's whole numbers are passed as int32, other numbers as float32, None as no array."""
        if name not in self._known:
            self._known[name] = self._module.get_function(name)
        label = f"{name} {label}".strip()
        return Launch(self._known[name], grid, (threads,), tuple(map(_argument, args)), shared, label, flops)

    def elementwise(self, name: str, count: int, *args: Any, each: int = 1, label: str = "") -> Launch:
        """Return a launch of a kernel whose threads take every so many of `count` numbers, `each` at a time."""
        blocks = min(-(-count // (THREADS * each)), MAX_BLOCKS)
        return self.launch(name, (max(blocks, 1),), THREADS, *args, label=label)

    def over(self, name: str, count: int, *args: Any, label: str = "") -> Launch:
        """Return a launch of a kernel with a thread for each of `count` numbers."""
        return self.launch(name, (-(-count // THREADS),), THREADS, *args, label=label)


def gpu_kernels(like: Array) -> Kernels:
    """Return the kernels for arrays of this one's module."""
    return _kernels(array_module(like))


@cache
def _kernels(xp: ModuleType) -> Kernels:
    return Kernels(xp)


@cache
def source() -> str:
    """Return the CUDA sources, as one text."""
    folder = files("mlp.kernels") / "cuda"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".cu"))
    names.sort(key=lambda name: name != "common.cu")
    return "\n".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in names)


def address(array: Array) -> int:
    """Return where a contiguous array's memory starts on the device. Who keeps it must keep the array too."""
    return int(array.data.ptr)


class ConvTile(NamedTuple):
    """A tile of outputs: how many, and the logarithms of its width and height."""

    pixels: int
    tw: int
    th: int

    def halo(self) -> int:
        """Return the number of inputs that a tile depends on, in pixels."""
        images = self.pixels >> (self.tw + self.th)
        return images * ((1 << self.th) + 2) * ((1 << self.tw) + 2)

    def number(self, n: int, height: int, width: int) -> int:
        """Return how many tiles cover n maps."""
        images = self.pixels >> (self.tw + self.th)
        return -(-n // images) * -(-height // (1 << self.th)) * -(-width // (1 << self.tw))


MAX_HALO, SMALLEST_MAP, MULTIPROCESSORS = 324, 3, 132
GRAD_PIXELS, MAX_SPLITS = 64, 264


def conv_tile(n: int, height: int, width: int, pixels: Iterable[int] = (256, 128, 64)) -> ConvTile:
    """Return the largest tile that fits the shared memory and gives every multiprocessor work, or the smallest."""
    tiles = []
    for size in pixels:
        tw = min(4, (width - 1).bit_length(), size.bit_length() - 1)
        tiles.append(ConvTile(size, tw, min(size.bit_length() - 1 - tw, (height - 1).bit_length())))
    fitting = [tile for tile in tiles if tile.halo() <= MAX_HALO]
    busy = [tile for tile in fitting if tile.number(n, height, width) >= MULTIPROCESSORS]
    return (busy or fitting[-1:])[0]


def conv_shared(tile: ConvTile) -> int:
    """Return the bytes of shared memory of a convolution's block."""
    return 4 * (9 * 16 * 40 + tile.halo() * 20)


def grad_shared(tile: ConvTile) -> int:
    """Return the bytes of shared memory of a block that sums up dE/dw."""
    return 4 * 40 * (tile.pixels + tile.halo())


def _argument(value: Any) -> Any:
    if value is None:
        return np.uint64(0)
    if hasattr(value, "dtype") and not isinstance(value, np.floating):
        return value
    return np.int32(value) if isinstance(value, int) else np.float32(value)
