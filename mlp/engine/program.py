"""A program: actions on numbered values, in order, and the memory that the values live in.

A batch is cut into shards of a few images, and the shards into parts. An action either runs on one shard, after the
actions before it on the same shard, or, `whole`, once on the batch, after the actions before it on all shards. Actions
on shards between two whole ones make a phase: a thread takes a part and runs all the phase's actions on one shard after
the other, so that what one action writes is still in the cache when the next reads it.

A value is what actions write and read: a feature map, rows, or sums over a part's shards. One that is written and last
read in one phase lives in the thread's memory, which the next shard uses again; all others live in the batch's memory.
In both, a value takes the place of one that is no longer read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlp.backend import Array
from mlp.kernels.windows import Sizes

MAP, ROWS, SUMS = "map", "rows", "sums"


@dataclass(eq=False)
class Value:
    """An array of the program. `shape` is that of one example, (C, H, W) or (D, ...), or of the sums.

    A feature map lies in memory as (H, W, n, C), between two rows of zeros, rows as (n, D, ...).
    """

    kind: str
    shape: Sizes

    def memory_shape(self, n: int) -> Sizes:
        """Return the shape in memory, for a shard of n examples."""
        if self.kind == MAP:
            channels, height, width = self.shape
            return (height + 2, width, n, channels)
        return (n, *self.shape) if self.kind == ROWS else self.shape


class Action(NamedTuple):
    """One step of a program: what runs, which values it reads and writes, and what to call it in an error.

    With `in_place`, the first value written may take the memory of the first value read. `flops` are an example's.
    """

    run: Callable[[Any], None]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    label: str
    whole: bool = False
    in_place: bool = False
    flops: int = 0


class Place(NamedTuple):
    """Where a value lives: in the memory of threads or of the batch, and which piece of it."""

    in_thread: bool
    piece: int


class Phase(NamedTuple):
    """Actions on shards, or one action on the whole batch."""

    whole: bool
    actions: list[Action]


class Program:
    """Actions in order, cut into phases, with a place for every value.

    `kept` values are read by someone else after the last action, and written before the first. `breaks` are numbers of
    actions before which a new phase starts.
    """

    def __init__(self, actions: Sequence[Action], kept: Iterable[Value] = (), breaks: Iterable[int] = ()) -> None:
        self.actions, self._kept = list(actions), set(kept)
        self._phase_of = self._phases(set(breaks))
        self._first, self._last = self._lifetimes()
        self._root: dict[Value, Value] = {value: value for value in self._first}
        self._share_in_place()
        self.pieces: list[tuple[Value, bool]] = []
        self.places = self._places()

    def phases(self, start: int = 0, stop: int | None = None) -> list[Phase]:
        """Return the phases of actions[start:stop], which must start and end with a phase."""
        phases: list[Phase] = []
        known = None
        for action, number in list(zip(self.actions, self._phase_of, strict=True))[start:stop]:
            if number != known:
                phases.append(Phase(action.whole, []))
            phases[-1].actions.append(action)
            known = number
        return phases

    def _phases(self, breaks: set[int]) -> list[int]:
        """Return the number of each action's phase."""
        numbers: list[int] = []
        number = 0
        for i, action in enumerate(self.actions):
            number += action.whole or i in breaks or (i > 0 and self.actions[i - 1].whole)
            numbers.append(number)
        return numbers

    def _lifetimes(self) -> tuple[dict[Value, int], dict[Value, int]]:
        first: dict[Value, int] = {}
        last: dict[Value, int] = {}
        for i, action in enumerate(self.actions):
            for value in (*action.reads, *action.writes):
                first.setdefault(value, i)
                last[value] = i
        for value in self._kept:
            first[value], last[value] = -1, len(self.actions)
        return first, last

    def _share_in_place(self) -> None:
        """Give the output of an action in place the memory of its first input, where nobody reads that again."""
        for i, action in enumerate(self.actions):
            if not (action.in_place and action.reads and action.writes):
                continue
            old, new = self._root[action.reads[0]], action.writes[0]
            same = (old.kind, old.shape) == (new.kind, new.shape)
            if same and self._last[old] == i and self._first[new] == i:
                self._root[new] = old
                self._last[old] = self._last[new]

    def _places(self) -> dict[Value, Place]:
        """Assign pieces of memory: the free one of the same shape that was in use last, or a new one."""
        roots = sorted(dict.fromkeys(self._root.values()), key=lambda root: self._first[root])
        ends: list[tuple[int, Value, Place]] = []
        free: dict[Any, list[Place]] = {}
        placed: dict[Value, Place] = {}
        for root in roots:
            for end in [end for end in ends if end[0] < self._first[root]]:
                ends.remove(end)
                free.setdefault(self._key(end[1]), []).append(end[2])
            waiting = free.get(self._key(root))
            placed[root] = place = waiting.pop() if waiting else self._new_place(root)
            ends.append((self._last[root], root, place))
        return {value: placed[root] for value, root in self._root.items()}

    def _key(self, root: Value) -> Any:
        return root.kind, root.shape, self._in_one_phase(root)

    def _in_one_phase(self, root: Value) -> bool:
        first, last = self._first[root], self._last[root]
        return root not in self._kept and root.kind != SUMS and self._phase_of[first] == self._phase_of[last]

    def _new_place(self, root: Value) -> Place:
        in_thread = self._in_one_phase(root)
        self.pieces.append((root, in_thread))
        return Place(in_thread, len(self.pieces) - 1)


def numbers_of(value: Value, n: int) -> int:
    """Return how many numbers a value has in memory for a shard of n examples."""
    total = 1
    for length in value.memory_shape(n):
        total *= length
    return total


def view(memory: Array, value: Value) -> Array:
    """Return the array itself without the frame of a feature map: (H, W, n, C)."""
    return memory[1:-1] if value.kind == MAP else memory
