"""Runs a program on the CPU: parts of the batch on threads, each above a single-threaded BLAS."""

from collections.abc import Callable, Sequence
from math import ceil
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.engine.program import MAP, SUMS, Action, Phase, Program, Value, numbers_of, view
from mlp.kernels.parallel import num_threads, run_on_threads, single_threaded_blas
from mlp.kernels.scratch import Measure, Scratch

MAX_PARTS = 12
"""A batch is cut into at most this many parts: more threads than that have nothing to do."""


class Cut(NamedTuple):
    """How a batch is cut: the sizes of its shards, and how many shards make a part. It depends on sizes alone."""

    sizes: tuple[int, ...]
    shards_per_part: int

    @property
    def num_parts(self) -> int:
        """The number of parts."""
        return ceil(len(self.sizes) / self.shards_per_part)


def cut(batch: int, ideal: int, at_least: int = 1) -> Cut:
    """Return how to cut a batch into shards of at most `ideal` examples, and `at_least` so many, as equal as can be."""
    number = min(max(ceil(batch / max(ideal, 1)), at_least), batch)
    small, larger = divmod(batch, number)
    sizes = (small + 1,) * larger + (small,) * (number - larger)
    return Cut(sizes, ceil(number / MAX_PARTS))


class Shard:
    """A shard in the hands of a thread: the arrays of the program's values, and the thread's scratch."""

    def __init__(self, index: int, rows: slice, part: int, first_of_part: bool, dtype: Any, scratch: Scratch) -> None:
        self.index, self.rows, self.part, self.first_of_part = index, rows, part, first_of_part
        self.n, self.dtype, self.scratch = rows.stop - rows.start, dtype, scratch
        self.framed: dict[Value, Array] = {}
        self.arrays: dict[Value, Array] = {}
        self.flat: dict[Value, Array] = {}
        self._frames: list[Array] = []
        self._known: dict[Any, Array] = {}

    def clear_frames(self) -> None:
        """Write the rows of zeros of maps in the thread's memory, where shards of another size have been."""
        for memory in self._frames:
            memory[0] = memory[-1] = 0

    def put(self, value: Value, memory: Array, in_thread: bool) -> None:
        """Say where a value lies: `framed` with its rows of zeros, `arrays` without, `flat` as (H, W n C) or (n, D)."""
        if in_thread and value.kind == MAP:
            self._frames.append(memory)
        self.framed[value] = memory
        self.arrays[value] = inside = view(memory, value)
        self.flat[value] = inside.reshape(len(inside), -1)

    def add_to(self, sums: Value, array: Array) -> None:
        """Add an array to the sums of the shard's part."""
        if self.first_of_part:
            self.arrays[sums][...] = array
        else:
            self.arrays[sums] += array

    def add_product(self, sums: Value, left: Array, right: Array) -> None:
        """Add a matrix product to the sums of the shard's part."""
        if self.first_of_part:
            np.matmul(left, right, out=self.arrays[sums])
        else:
            self.arrays[sums] += left @ right

    def like(self, value: Value, dtype: Any = None) -> Array:
        """Return scratch in the shape of a value's `flat`, by default of the program's dtype."""
        return self._scratch("like", self.flat[value].shape, self.dtype if dtype is None else dtype)

    def row(self, name: str, value: Value, vector: Array) -> Array:
        """Return a vector (C,) repeated along a row of a value's `flat`."""
        row = self._scratch(name, (self.flat[value].shape[1] // len(vector), len(vector)), self.dtype)
        row[...] = vector
        return row.reshape(-1)

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        key = (name, shape, dtype)
        array = self._known.get(key)
        if array is None:
            array = self._known[key] = self.scratch.empty(name, shape, dtype)
        return array


class _Hand:
    """What a thread works with: its memory, its views of it, and the size of the last shard that was in it."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch, self.size_before = scratch, 0
        self.shards: dict[int, Shard] = {}


class Executor:
    """The memory of a program and the way to run it.

    How much memory it is, is known from the start: `reserve` holds what takes a shard's scratch, as `Builder.reserve`.
    It is taken when the program first runs, before the first action. `most_threads` may be set below `num_threads`.

    Which thread runs which part is left to chance; what is computed is not: every part's sums are made in the order of
    its shards, and the parts' sums are added in the order of the parts. So the results are the same to the bit for any
    number of threads.
    """

    def __init__(
        self, program: Program, cut: Cut, dtype: Any, reserve: Sequence[Callable[[Shard], object]] = ()
    ) -> None:
        self.program, self.cut, self.dtype, self._reserve = program, cut, np.dtype(dtype), reserve
        ends = np.cumsum(cut.sizes).tolist()
        self.rows = [slice(end - size, end) for end, size in zip(ends, cut.sizes, strict=True)]
        self.most_threads = MAX_PARTS
        self._hands: dict[int, _Hand] = {}
        self._memory = self._batch_memory(Measure.array)
        self.batch_bytes: int = sum(array.nbytes for arrays in self._memory if arrays is not None for array in arrays)
        measured = self._new_hand(Measure()).scratch
        self.thread_bytes, self._sizes = measured.num_bytes(), measured.sizes()
        self._is_taken = False
        self._numbers = {action: i for i, action in enumerate(program.actions)}
        self.times: dict[tuple[int, int], float] | None = None

    def run(self, phases: Sequence[Phase]) -> None:
        """Run phases in order. An action's error is raised with a note that says whose it is."""
        self.take_memory()
        with single_threaded_blas():
            for i, phase in enumerate(phases):
                if phase.whole:
                    for action in phase.actions:
                        self._act(0, action, self)
                else:
                    work = self._work(phase.actions, backwards=i % 2 > 0)
                    run_on_threads(work, self.cut.num_parts, self.num_threads)

    def total(self, sums: Value, out: Array | None = None) -> Array:
        """Return the sum over all parts, added in order; in `out` where that is given."""
        first, *others = self._arrays(sums)
        if out is None:
            out = np.empty(sums.shape, self.dtype)
        out[...] = first
        for other in others:
            out += other
        return out

    def flat(self, value: Value) -> list[Array]:
        """Return every shard's array of a value as (H, W n C) or (n, D)."""
        return [(array := view(memory, value)).reshape(len(array), -1) for memory in self._arrays(value)]

    def _arrays(self, value: Value) -> list[Array]:
        memory = self._memory[self.program.places[value].piece]
        assert memory is not None
        return memory

    def num_bytes(self, threads: int | None = None) -> int:
        """Return all the bytes that are taken, or will be: for the batch's values, and by each of so many threads."""
        if threads is None:
            threads = max(self.num_threads, len(self._hands))
        return self.batch_bytes + min(threads, self.cut.num_parts, self.most_threads) * self.thread_bytes

    @property
    def num_threads(self) -> int:
        """The number of threads that shards run on."""
        return min(num_threads(), self.cut.num_parts, self.most_threads)

    def _act(self, thread: int, action: Action, subject: Any) -> None:
        """Run an action, and add up its time where somebody asks."""
        start = perf_counter()
        try:
            action.run(subject)
        except Exception as error:
            error.add_note(f"(in {action.label})")
            raise
        if self.times is not None:
            key = (thread, self._numbers[action])
            self.times[key] = self.times.get(key, 0.0) + perf_counter() - start

    def _work(self, actions: Sequence[Action], backwards: bool) -> Callable[[int, int], None]:
        """Return what a thread does with a part.

        Every other phase takes the parts `backwards`: those that the last phase wrote last are still in the cache.
        """
        size, shards, last = self.cut.shards_per_part, len(self.rows), self.cut.num_parts - 1

        def work(thread: int, number: int) -> None:
            part = last - number if backwards else number
            hand = self._hand(thread)
            for index in range(part * size, min((part + 1) * size, shards)):
                shard = self._shard(hand, index)
                if hand.size_before != shard.n:
                    shard.clear_frames()
                    hand.size_before = shard.n  # last: Ctrl-C may come in between
                for action in actions:
                    self._act(thread, action, shard)

        return work

    def take_memory(self) -> None:
        """Take all memory, where that has not been done."""
        if not self._is_taken:
            self._memory, self._is_taken = self._batch_memory(np.zeros), True
        for thread in range(self.num_threads):
            self._hand(thread)

    def _batch_memory(self, take: Callable[..., Array]) -> list[list[Array] | None]:
        return [None if in_thread else self._memory_of(value, take) for value, in_thread in self.program.pieces]

    def _memory_of(self, value: Value, take: Callable[..., Array]) -> list[Array]:
        if value.kind == SUMS:
            return [take(value.shape, self.dtype) for _ in range(self.cut.num_parts)]
        counts = [numbers_of(value, n) for n in self.cut.sizes]
        block = take(sum(counts), self.dtype)  # one block: large enough for the system's large pages
        pieces = np.split(block, np.cumsum(counts[:-1]))
        return [piece.reshape(value.memory_shape(n)) for piece, n in zip(pieces, self.cut.sizes, strict=True)]

    def _hand(self, thread: int) -> _Hand:
        if thread not in self._hands:
            self._hands[thread] = self._new_hand(Scratch(self._sizes))
        return self._hands[thread]

    def _new_hand(self, scratch: Scratch) -> _Hand:
        """Return what a thread works with, with all the memory that it will ask for."""
        hand = _Hand(scratch)
        for index in sorted({0, len(self.rows) - 1}):  # a shard of each size
            shard = self._shard(hand, index)
            for reserve in self._reserve:
                reserve(shard)
        return hand

    def _shard(self, hand: _Hand, index: int) -> Shard:
        shard = hand.shards.get(index)
        if shard is None:
            shard = hand.shards[index] = self._new_shard(index, hand.scratch)
        return shard

    def _new_shard(self, index: int, scratch: Scratch) -> Shard:
        part, within = divmod(index, self.cut.shards_per_part)
        shard = Shard(index, self.rows[index], part, within == 0, self.dtype, scratch)
        for value, place in self.program.places.items():
            memory = self._memory[place.piece]
            if memory is None:
                array = scratch.empty(("value", place.piece), value.memory_shape(shard.n), self.dtype)
            else:
                array = memory[part if value.kind == SUMS else index]
            shard.put(value, array, memory is None)
        return shard
