"""The plans of an engine within the memory there is: which are kept, and how large their shards may be."""

import gc
import logging
import os
from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import Any, TypeVar

import numpy as np

from mlp.engine.catalogue import is_known
from mlp.engine.gpu import GpuPlan
from mlp.engine.plan import Plan
from mlp.layers import Layer

logger = logging.getLogger(__name__)

T = TypeVar("T")
AnyPlan = Plan | GpuPlan
Planned = tuple[int, AnyPlan | None]
"""The layer before which a plan ends, and the plan; or the next layer, and None."""
MB = 1_000_000
_PLANS_BYTES = 256_000_000
"""Plans that were not in the last pass are kept while all take no more than this, or than 1.5 times the largest."""


class WorkspaceError(ValueError):
    """A plan cannot be had in the memory that plans may take."""


class Plans:
    """The plans of an engine, by a key that says what each is for. `begin` and `end` enclose a pass.

    `workspace` bounds the bytes that plans on the CPU take, and `most` the examples in a shard: `run` halves it where
    memory runs out.
    """

    def __init__(self, workspace: int | None = None) -> None:
        self.workspace = workspace
        self.most: int | None = None
        self._plans: dict[Any, Planned] = {}
        self._in_use: set[Any] = set()
        self._crowded = False

    def begin(self) -> None:
        """Forget what the last pass used."""
        self._in_use = set()

    def end(self) -> None:
        """Make room, where there are new plans."""
        if self._crowded:
            self._make_room()

    def get(self, key: Any, make: Callable[[], Planned]) -> Planned:
        """Return the plan of this key, or else a new one."""
        if key not in self._plans:
            self._plans[key] = make()
            self._crowded = True
            if self.workspace is not None:
                self._make_room(key)
        self._in_use.add(key)
        planned = self._plans[key] = self._plans.pop(key)  # the plan in use last stands last
        return planned

    def present(self) -> list[AnyPlan]:
        """Return the plans that are there, in use last the last."""
        return [plan for _, plan in self._plans.values() if plan is not None]

    def in_use(self) -> list[AnyPlan]:
        """Return the plans of the last pass."""
        return [plan for key, (_, plan) in self._plans.items() if plan is not None and key in self._in_use]

    def clear(self) -> None:
        """Forget all plans."""
        self._forget(list(self._plans))

    def fitted(self, make: Callable[[int | None], Plan]) -> Plan:
        """Return a plan of ``make(most)`` that keeps within the workspace, `most` being the examples in a shard.

        Shards are halved until threads on all cores of the machine fit; where they never do, those are taken that take
        least, on fewer threads. So the cut, and with it the bits, do not depend on the number of threads. Raises
        WorkspaceError.
        """
        plan = make(self.most)
        if self.workspace is None:
            return plan
        cores = os.cpu_count() or 1
        room = self.workspace - sum(used.num_bytes(cores) for used in self.in_use() if isinstance(used, Plan))
        tried = [plan]
        while tried[-1].num_bytes(cores) > room and tried[-1].shard_size > 1:
            tried.append(make(tried[-1].shard_size // 2))
        plan = tried[-1] if tried[-1].num_bytes(cores) <= room else min(tried, key=lambda each: each.num_bytes(1))
        least = plan.num_bytes(1)
        if least > room:
            needed, there = ceil(10 * least / MB) / 10, floor(10 * room / MB) / 10
            raise WorkspaceError(
                f"a batch of shape {plan.shape} needs {needed:,.1f} MB of memory, and the workspace has {there:,.1f} "
                "MB for it: allow more (workspace, --workspace-mb), or use a smaller batch"
            )
        plan.executor.most_threads = min(cores, 1 + (room - least) // max(plan.executor.thread_bytes, 1))
        return plan

    def run(self, layers: Sequence[Layer], a_pass: Callable[[], T]) -> T:
        """Run a pass that changes these layers; where memory runs out, put them back and run again with smaller shards.

        Where that does not help either, the error comes out, and all is as it was before.
        """
        most = self.most
        while True:
            before = StateBefore(layers)
            try:
                return a_pass()
            except (MemoryError, WorkspaceError) as error:
                before.put_back()
                if isinstance(error, WorkspaceError) or not self._halve(error):
                    if self.most != most:
                        self.most = most
                        self.clear()
                    raise
            gc.collect()  # the error's frames hold plans

    def _halve(self, error: MemoryError) -> bool:
        """Forget all plans, for ones with shards of half the size; return whether there can be any."""
        largest = max((plan.shard_size for plan in self.in_use() if isinstance(plan, Plan)), default=1)
        if largest > 1:
            self.most = largest // 2
            self.clear()
            logger.warning(
                "Memory ran out (%s). The step is repeated with %d of its examples at once in place of %d, "
                "which may change the last digits of its results, and of those after it",
                str(error),  # not the error, which holds the pass: a handler may keep what it is given
                self.most,
                largest,
            )
        return largest > 1

    def _make_room(self, new: Any = None) -> None:
        """Forget plans that this pass did not use, those first that were not in use for longest; not the `new` one."""
        sizes = {key: plan.num_bytes() if plan else 0 for key, (_, plan) in self._plans.items()}
        limit = self.workspace or max(_PLANS_BYTES, 1.5 * max(sizes.values(), default=0))
        forgotten = []
        for key in [key for key in self._plans if key not in self._in_use and key != new]:
            if sum(sizes.values()) > limit:
                forgotten.append(key)
                del sizes[key]
        self._forget(forgotten)
        self._crowded = False

    def _forget(self, keys: Sequence[Any]) -> None:
        """Forget plans, and free their memory now: they refer to themselves, and Python would leave them a while."""
        for key in keys:
            del self._plans[key]
        if keys:
            gc.collect()


class StateBefore:
    """What a pass in training mode changes in layers, to be put back: running statistics, streams in attributes."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._arrays: list[tuple[Any, Any]] = []
        self._streams: list[tuple[Any, Any]] = []
        for layer in layers:
            for name in layer.state_names:
                array = getattr(layer, name)
                self._arrays.append((array, array.copy()))
            for value in vars(layer).values():
                if isinstance(value, np.random.RandomState):
                    self._streams.append((value, value.get_state(legacy=False)))
                elif isinstance(value, np.random.Generator):
                    self._streams.append((value.bit_generator, value.bit_generator.state))

    def put_back(self) -> None:
        """Make it as it was."""
        for array, before in self._arrays:
            array[...] = before
        for stream, before in self._streams:
            if isinstance(stream, np.random.RandomState):
                stream.set_state(before)
            else:
                stream.state = before


def layers_that_change(layers: Sequence[Layer]) -> list[Layer]:
    """Return those of the layers, and of those inside them, which a pass may change: not what plans know as pure."""
    found: list[Layer] = []
    for layer in layers:
        if layer.state_names or not is_known(layer):
            found.append(layer)
        found += layers_that_change(layer.children())
    return found
