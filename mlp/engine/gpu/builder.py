"""What the steps of a GPU's plan are made with: buffers, and the launches in their order."""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.engine.gpu.network import Network, Unit, Value
from mlp.engine.passes import Purpose
from mlp.kernels.gpu import Launch, address, gpu_kernels


class Arena:
    """Buffers by size. One that is given back is taken again by who comes later in the order of the launches."""

    def __init__(self, xp: Any) -> None:
        self.xp, self.num_bytes = xp, 0
        self._free: dict[int, list[Array]] = {}

    def take(self, shape: Iterable[int]) -> Array:
        """Return a buffer of float32 numbers."""
        shape = tuple(shape)
        waiting = self._free.get(prod(shape))
        return waiting.pop().reshape(shape) if waiting else self.take_new(shape)

    def take_new(self, shape: Iterable[int]) -> Array:
        """Return a buffer that nobody has had before: what is written before all other launches may lie in it."""
        shape = tuple(shape)
        self.num_bytes += 4 * prod(shape)
        return self.xp.zeros(shape, np.float32)

    def give(self, buffer: Array) -> None:
        """Give a buffer back."""
        self._free.setdefault(int(buffer.size), []).append(buffer)


class Gradient:
    """dE/d value so far: how many of its readers have added theirs, and whether it is through the activation."""

    def __init__(self, array: Array) -> None:
        self.array, self.times, self.masked = array, 0, False


class Builder:
    """Collects the launches of a plan for `n` examples.

    `arrays` are the values' buffers, `grads` those of their gradients. `needed` are the values whose gradient leads to
    a parameter, or to the inputs. `stochastic` is the layers' mode, `backward` whether what the backward pass needs
    must be kept.
    """

    def __init__(self, xp: Any, like: Array, n: int, network: Network, precision: str, purpose: Purpose) -> None:
        self.xp, self.n, self.precision = xp, n, precision
        self.stochastic, self.backward = purpose.stochastic, purpose.backward
        self.kernels, self.arena = gpu_kernels(like), Arena(xp)
        self.launches: list[Launch] = []
        self.packed: list[tuple[tuple[Array, Array, Array], tuple[int, int, int, int]]] = []
        self.arrays: dict[Value, Array] = {network.inputs: self.new(network.inputs)}
        self.grads: dict[Value, Gradient] = {}
        self.needed: set[Value] = set()

    def need(self, network: Network, inputs: bool) -> None:
        """Find the values whose gradient is needed; that of the inputs, if it is asked for."""
        self.needed = {network.inputs} if inputs else set()
        for unit in network.units:
            if unit.layers() or unit.inputs in self.needed or unit.skip in self.needed:
                self.needed.add(unit.outputs)

    def pack(self) -> None:
        """Put a launch before all others that packs the kernels of all convolutions, as they have asked in `packed`.

        Each has given its kernels, the two buffers, and (filters, channels, places, turned): see `pack_kernels`.
        """
        if not self.packed:
            return
        rows, threads = [], 0
        for arrays, sizes in self.packed:
            rows.append([*(address(array) for array in arrays), *sizes, threads])
            threads += int(arrays[0].size)
        table = self.xp.asarray(np.array(rows, np.uint64))
        self.launches.insert(0, self.kernels.over("pack_kernels", threads, table, len(rows), threads))

    def new(self, value: Value) -> Array:
        """Return a buffer for a value."""
        return self.arena.take((self.n, *value.shape))

    def count(self, value: Value) -> np.int64:
        """Return how many numbers a value has, as kernels take it."""
        return np.int64(self.n * prod(value.shape))

    def add(self, launch: Launch) -> None:
        """Add a launch."""
        self.launches.append(launch)

    def multiply(
        self,
        arrays: tuple[Array, Array, Array | None, Array],
        sizes: tuple[int, int, int],
        strides: tuple[int, int, int, int],
        label: str,
        parts: int = 1,
    ) -> None:
        """Add a matrix product: arrays (A, B, bias or None, C), sizes (rows, columns, inner length).

        `strides` are A's by row and inner index, B's by inner index and column: so a side may be transposed. With
        `parts` the sums over the inner length are cut into so many, one after the other in C.
        """
        grid, flops = (-(-sizes[0] // 64), -(-sizes[1] // 64), parts), 2 * prod(sizes)
        self.add(self.kernels.launch("matmul_fp32", grid, 256, *arrays, *sizes, *strides, label=label, flops=flops))

    def target(self, value: Value, can_add: bool, can_mask: bool) -> tuple[Array, bool, Array | None, float]:
        """Return where a reader of a value is to leave its gradient: (buffer, whether to add, mask or None, slope).

        Where the kernel cannot add, and there is something to add to, the buffer is a new one: call `arrive` after it.
        The last reader may put the sum through the activation that the value came out of, given a mask.
        """
        grad = self.grads.get(value)
        add = grad is not None
        if grad is None:
            grad = self.grads[value] = Gradient(self.new(value))
        grad.times += 1
        aside = add and not can_add
        array = self.new(value) if aside else grad.array
        if value.slope is None or grad.times < value.readers or aside or not can_mask:
            return array, add and can_add, None, 1.0
        grad.masked = True
        return array, add and can_add, self.arrays[value], value.slope

    def arrive(self, value: Value, array: Array) -> None:
        """Add what was left in a buffer of its own."""
        grad = self.grads[value]
        if array is not grad.array:
            self.masked(array, None, grad.array, value, 1.0, add=True)
            self.arena.give(array)

    def hand_over(self, value: Value, array: Array) -> None:
        """Make a buffer the gradient of a value, or add it to what is there."""
        if value not in self.grads:
            self.grads[value] = Gradient(array)
            self.grads[value].times = 1
        else:
            self.grads[value].times += 1
            self.arrive(value, array)

    def masked(
        self, grads: Array, y: Array | None, out: Array, value: Value, slope: float, add: bool = False, label: str = ""
    ) -> None:
        """Add a launch: out = grads times the slope at y, or that added to out."""
        count = self.count(value)
        self.add(
            self.kernels.elementwise("activate_grad", int(count), grads, y, out, count, slope, int(add), label=label)
        )

    def finished(self, unit: Unit) -> tuple[Array, Array | None]:
        """Return dE/d outputs of a unit, and the outputs if the gradient is yet to go through their activation."""
        grad = self.grads.pop(unit.outputs)
        return grad.array, None if grad.masked or unit.activated is None else self.arrays[unit.outputs]
