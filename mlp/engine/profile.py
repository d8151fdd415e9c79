"""Where the time of a plan goes, step by step."""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

from mlp.backend import Array
from mlp.checks import check_positive_int
from mlp.engine.engine import Engine
from mlp.engine.executor import Executor
from mlp.engine.gpu import GpuPlan
from mlp.engine.plan import Plan
from mlp.engine.program import Action, numbers_of

_WARM_UP = 3
"""Steps before any is timed: a plan on a GPU is a graph from then on."""


class Cost(NamedTuple):
    """What an action costs in a training step.

    `seconds` are those of all threads together. `flops` are those of the plain sums (a multiplication and an addition
    are two), however they are computed; `bytes` are those of the values read and written, once each.
    """

    label: str
    what: str
    seconds: float
    flops: int
    bytes: int

    @property
    def gflops(self) -> float:
        """Billions of floating-point operations a second."""
        return self.flops / max(self.seconds, 1e-9) / 1e9


class Profile(NamedTuple):
    """The costs of a training step, its time by the clock, and the threads that it ran on (0: on a GPU)."""

    costs: list[Cost]
    seconds: float
    threads: int

    def merged(self) -> list[Cost]:
        """Return the costs of all actions of one name together, the dearest first."""
        names = dict.fromkeys(cost.what for cost in self.costs)
        groups = [[cost for cost in self.costs if cost.what == name] for name in names]
        return sorted((_sum(group) for group in groups), key=lambda cost: -cost.seconds)


def profile(engine: Engine, inputs: Array, targets: Array, repeats: int = 5) -> Profile:
    """Take training steps and return their mean costs. Timing every action takes a little time itself.

    On a GPU the launches are timed one by one, without a graph. Raises ValueError where no part of the model runs by a
    plan.
    """
    check_positive_int("profile: repeats", repeats)
    for _ in range(_WARM_UP):
        engine.forward_backward(inputs, targets)
    plans = engine.plans_in_use()
    if not plans:
        raise ValueError("profile: no part of the model runs by a plan")
    executors = [plan.executor for plan in plans if isinstance(plan, Plan)]
    for executor in executors:
        executor.times = {}
    try:
        start = perf_counter()
        for _ in range(repeats):
            engine.forward_backward(inputs, targets)
        seconds = (perf_counter() - start) / repeats
        used = [(executor, executor.times) for executor in executors if executor.times]
    finally:
        for executor in executors:
            executor.times = None
    costs = [cost for executor, times in used for cost in _costs(executor, times, repeats)]
    costs += [cost for plan in plans if isinstance(plan, GpuPlan) for cost in _launch_costs(plan, repeats)]
    return Profile(costs, seconds, max((executor.num_threads for executor, _ in used), default=0))


def _launch_costs(plan: GpuPlan, repeats: int) -> Iterator[Cost]:
    for launch, seconds in zip(plan.launches, plan.times(repeats), strict=True):
        where = launch.label.removeprefix(launch.name).strip()
        yield Cost(where or launch.name, launch.name, seconds, launch.flops, launch.num_bytes)


def _costs(executor: Executor, times: dict[tuple[int, int], float], repeats: int) -> Iterator[Cost]:
    for i, action in enumerate(executor.program.actions):
        seconds = sum(value for (_, number), value in times.items() if number == i) / repeats
        batch = sum(executor.cut.sizes)
        numbers = sum(numbers_of(value, batch) for value in {*action.reads, *action.writes})
        yield Cost(action.label, name_of(action), seconds, action.flops * batch, numbers * executor.dtype.itemsize)


def name_of(action: Action) -> str:
    """Return what an action does, ``"Convolution forward (32, 16, 16)"``, with the shape that it writes or reads."""
    owner = type(getattr(action.run, "__self__", None)).__name__.removesuffix("Step")
    owner = "Plan" if owner == "NoneType" else owner
    values = [value for value in (*action.writes, *action.reads) if value.kind != "sums"]
    what = getattr(action.run, "__name__", "run").strip("_").replace("_", " ")
    return " ".join([owner, what, *(str(value.shape) for value in values[:1])])


def _sum(costs: Sequence[Cost]) -> Cost:
    first = costs[0]
    return Cost(
        f"{len(costs)} times" if len(costs) > 1 else first.label,
        first.what,
        sum(cost.seconds for cost in costs),
        sum(cost.flops for cost in costs),
        sum(cost.bytes for cost in costs),
    )
