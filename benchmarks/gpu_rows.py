"""The rows of the table of `benchmarks.gpu`. Each is measured in a process of its own.

    python -m benchmarks.gpu_rows NAME ROUNDS

prints what it measured as JSON, a row of the table on a line, as soon as it is there. CuPy and PyTorch are imported by
who needs them.
"""

import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks import gpu_tiles, ours, ours_gpu
from benchmarks.gpu_costs import by_name, step_bytes, step_flops
from benchmarks.gpu_measure import Take, copy_bandwidth, in_turns, launch_times
from benchmarks.measure import Row, Times, compared, differences
from mlp.experiments.configs import EXPERIMENTS
from mlp.kernels.gpu import conv_tile

LIMITS = {"fp32": (1e-5,), "tf32": (1e-3,)}
"""How far PyTorch's loss of the first weights may be from ours, relatively, where both compute in this precision."""
MAPS, FILTERS = (32, 16, 8, 4), (32, 64, 128)
DEAREST = 12
SHAPE = (3, 32, 32)


class Measurement(Protocol):
    """Measures in so many rounds, and yields rows of the table."""

    def __call__(self, label: str, rounds: int, /) -> Iterable[Row]: ...  # noqa: D102


class Entry(NamedTuple):
    """How a row is measured, and after how many seconds it is given up."""

    measurement: Measurement
    limit: float


class Contest:
    """Sides that take training steps of one network in turns: ours in some precisions, and PyTorch's that join."""

    def __init__(self, label: str, network: str, num_filters: int = 32, precisions: Iterable[str] = LIMITS) -> None:
        self.label, self.network, self.num_filters = label, network, num_filters
        self.model, self.batch = ours.network(network, num_filters), ours.images()
        self.ours = {name: ours_gpu.Trainer(self.model, name, ours_gpu.provider()) for name in precisions}
        self.losses = {name: trainer.loss(*self.batch) for name, trainer in self.ours.items()}
        self.takes: dict[str, Take] = {}
        for name, trainer in self.ours.items():
            trainer.warm_up()
            self.takes.update({f"ours {name} {way}": take for way, take in trainer.takes().items()})

    def join(self, precision: str, way: str, layout: str = "channels_last") -> list[Row]:
        """Let one of PyTorch's sides take part. Where it cannot be built, return a row with the reason.

        Raises DisagreementError where it computes another loss than ours.
        """
        name = f"PyTorch {precision} {way} {layout}"
        try:
            theirs = import_module("benchmarks.pytorch_gpu")
            arguments = (self.network, self.model.params, self.batch, precision, way, layout, self.num_filters)
            trainer = theirs.Trainer(*arguments)
            loss = trainer.loss()
        except Exception as error:  # no PyTorch, no compiler, no memory: what there is, is measured all the same
            return [failure(f"{self.label}/{precision}-{way}", error, name)]
        losses = {f"ours {precision}": lambda: self.losses[precision], name: lambda: loss}
        differences(losses, LIMITS[precision])
        self.takes[name] = trainer.take
        return []

    def theirs(self, start: str = "") -> list[str]:
        """Return the names of PyTorch's sides that begin so."""
        return [name for name in self.takes if name.startswith(f"PyTorch {start}")]

    def compared(self, times: Times, ending: str, mine: str, others: list[str]) -> list[Row]:
        """Return a row, or none where none of the others takes part."""
        return [compared(f"{self.label}/{ending}", times, mine, others)] if others else []


def training(label: str, rounds: int, network: str, num_filters: int = 32) -> Iterator[Row]:
    """Compare training steps: forward, cross-entropy, backward, Adam; ours gather and augment their batches too."""
    contest = Contest(label, network, num_filters)
    for precision in LIMITS:
        for layout in ("channels_last", "contiguous"):
            yield from contest.join(precision, "eager", layout)
        yield from contest.join(precision, "graph")
    times = in_turns(contest.takes, rounds)
    for precision in ("tf32", "fp32"):
        for way in ("eager", "graph"):
            others = contest.theirs(f"{precision} {way}")
            yield from contest.compared(times, f"{precision}-{way}", f"ours {precision} graph", others)
    yield _all_times(label, times)
    yield _rates(contest, times)


def _all_times(label: str, times: Times) -> Row:
    """Return a row with the time of every side: the median, and in JSON every round's."""
    lines = [f"{np.median(values) * 1e3:9.4g} ms  {name}" for name, values in times.items()]
    return {"row": f"{label}/all", "note": "a step", "lines": lines, "times": {k: [*v] for k, v in times.items()}}


def _rates(contest: Contest, times: Times) -> Row:
    """Return a row with the operations and bytes a second of our graphs."""
    flops, copied = step_flops(contest.model, SHAPE, len(contest.batch[0])), copy_bandwidth()
    rates, lines = {}, []
    for precision, trainer in contest.ours.items():
        seconds, moved = float(np.median(times[f"ours {precision} graph"])), step_bytes(trainer.launches())
        rates[precision] = {"flops": flops / seconds, "bytes": moved / seconds, "share": moved / seconds / copied}
        lines.append(
            f"{precision}: {flops / seconds / 1e12:.1f} TFLOP/s; {moved / 1e9:.2f} GB of arguments at "
            f"{moved / seconds / 1e12:.2f} TB/s, {moved / seconds / copied:.0%} of a copy's {copied / 1e12:.2f} TB/s"
        )
    note = f"{flops / 1e9:.1f} GFLOP a step"
    return {"row": f"{contest.label}/rates", "note": note, "lines": lines, "rates": rates, "copy": copied}


def compiling(label: str, rounds: int, network: str) -> Iterator[Row]:
    """Compare our graph in TF32 with the best of PyTorch's graph and torch.compile, in its two modes."""
    contest = Contest(label, network, precisions=("tf32",))
    yield from contest.join("tf32", "graph")
    for way in ("compile", "autotune"):
        failures = contest.join("tf32", way)
        yield from failures
        if not failures:
            times = in_turns(contest.takes, rounds)
            yield from contest.compared(times, f"best-with-{way}", "ours tf32 graph", contest.theirs())
            yield _all_times(f"{label}/{way}", times)


def memory(label: str, _: int, network: str, num_filters: int = 32) -> Iterator[Row]:
    """Compare the memory of training: CuPy's arrays that are alive with the most that PyTorch's tensors took at once.

    Ours includes a data set of four batches. Both include parameters, moments and gradients. PyTorch's is that of steps
    after the first ones, in which cuDNN tries its algorithms.
    """
    pool = import_module("cupy").get_default_memory_pool()
    model, batch = ours.network(network, num_filters), ours.images()
    trainer = ours_gpu.Trainer(model, "fp32", ours_gpu.provider(4 * ours.BATCH))
    trainer.warm_up()
    sizes = {"plan": trainer.num_bytes(), "used": pool.used_bytes(), "reserved": pool.total_bytes()}
    lines = [f"ours: plan {_mb(sizes['plan'])}, all arrays {_mb(sizes['used'])}, pool {_mb(sizes['reserved'])}"]
    try:
        theirs = import_module("benchmarks.pytorch_gpu")
        other = theirs.Trainer(network, model.params, batch, "fp32", "eager", num_filters=num_filters)
        peak, reserved = theirs.peak_memory(other)
    except Exception as error:  # no PyTorch, no memory: ours is reported all the same
        yield {"row": label, "note": "ours", "lines": lines, "bytes": sizes}
        yield failure(label, error, "PyTorch fp32 eager channels_last")
        return
    lines.append(f"PyTorch eager channels_last: peak {_mb(peak)}, reserved {_mb(reserved)}")
    figures = {"ours": np.array([sizes["used"] / 1e6]), "PyTorch": np.array([peak / 1e6])}
    sizes.update({"PyTorch peak": peak, "PyTorch reserved": reserved})
    yield compared(label, figures, "ours", ["PyTorch"], unit="MB", lines=lines, bytes=sizes)


def launches(label: str, rounds: int, network: str = "vgg38_bn_rc") -> Iterator[Row]:
    """Time every launch of a step, and give the dearest kernels; in JSON every launch."""
    for precision in LIMITS:
        trainer = ours_gpu.Trainer(ours.network(network), precision, ours_gpu.provider())
        trainer.warm_up()
        step = trainer.launches()
        times, late = launch_times(step, rounds, trainer.first)
        each = np.median(times, axis=0)
        costs, total = by_name(step, each), float(each.sum())
        lines = [f"{t * 1e3:8.4f} ms  {t / total:5.1%}  {count:4d} x {name}" for name, count, t in costs[:DEAREST]]
        note = f"{len(step)} launches, {total * 1e3:.3f} ms together, with their events"
        if late:
            note += f"; the host was too slow in {late} groups of launches, whose times are too long"
        details = [[i.label, i.grid, i.block, i.shared, float(t)] for i, t in zip(step, each, strict=True)]
        yield {"row": f"{label}-{precision}", "note": note, "lines": lines, "late": late, "launches": details}


def tiles(label: str, rounds: int, maps: Sequence[int] = MAPS, filters: Sequence[int] = FILTERS) -> Iterator[Row]:
    """Compare a convolution in the tile that `conv_tile` takes with the other sizes: above 1, another one is faster.

    A plain one, forward, whose arrays lie in the second-level cache where they fit: the same ones are used each time.
    """
    for size in maps:
        chosen = f"{conv_tile(ours.BATCH, size, size).pixels} pixels"
        for channels in filters:
            for precision in LIMITS:
                name = f"{label}-{size}x{size}-{channels}-{precision}"
                yield _tile_row(name, rounds, chosen, (ours.BATCH, size, channels, precision))


def _tile_row(label: str, rounds: int, chosen: str, conv: tuple[int, int, int, str]) -> Row:
    found = {f"{pixels} pixels": gpu_tiles.convolution_launch(*conv, pixels) for pixels in gpu_tiles.PIXELS}
    takes = {name: gpu_tiles.repeated(launch) for name, launch in found.items() if launch is not None}
    with ours_gpu.refused_warnings():
        figures = {name: values / gpu_tiles.CONVOLUTIONS for name, values in in_turns(takes, rounds).items()}
    missing = [name for name, launch in found.items() if launch is None]
    line = ", ".join(f"{name} {np.median(values) * 1e6:.2f} us" for name, values in figures.items())
    line += "".join(f", {name} do not fit" for name in missing)
    others = [name for name in figures if name != chosen]
    return compared(label, figures, chosen, others or [chosen], lines=[line])


def epochs(label: str, _: int) -> Iterator[Row]:
    """Time the second epoch of runs on random data of CIFAR-100's size, and extrapolate Table 1 from them."""
    precision, data = label.rsplit("-", 1)[1], ours_gpu.random_data()
    found: dict[tuple[int, bool, bool], float] = {}
    for experiment in EXPERIMENTS.values():
        key = ours_gpu.network_key(experiment)
        if key not in found:
            found[key] = ours_gpu.second_epoch(experiment, data, precision)
            note = f"{found[key]:.2f} s: 475 steps, validation, records, checkpoints"
            yield {"row": f"{label}/{experiment.name}", "note": note, "seconds": found[key]}
    total = sum(found[ours_gpu.network_key(experiment)] * experiment.epochs for experiment in EXPERIMENTS.values())
    note = f"{total / 60:.1f} minutes for Table 1, {len(EXPERIMENTS)} experiments of 100 epochs: extrapolated, not run"
    yield {"row": f"{label}/table-1", "note": note, "seconds": total, "extrapolated": True}


def failure(label: str, error: BaseException, who: str = "") -> Row:
    """Return the row of what could not be measured, with the reason."""
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0][:300]}"
    return {"row": label, "note": f"failed: {who + ': ' if who else ''}{reason}", "failed": True}


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB"


ROWS: dict[str, Entry] = {
    **{f"train-{name}": Entry(partial(training, network=name), 75) for name in ours.NETWORKS},
    "train-vgg38_bn_rc-64": Entry(partial(training, network="vgg38_bn_rc", num_filters=64), 75),
    "train-vgg38_bn_rc-128": Entry(partial(training, network="vgg38_bn_rc", num_filters=128), 90),
    "memory-vgg38_bn_rc": Entry(partial(memory, network="vgg38_bn_rc"), 40),
    "memory-vgg38_bn_rc-128": Entry(partial(memory, network="vgg38_bn_rc", num_filters=128), 40),
    "launches-vgg38_bn_rc": Entry(launches, 40),
    "tiles": Entry(tiles, 60),
    "epoch-fp32": Entry(epochs, 75),
    "epoch-tf32": Entry(epochs, 75),
    "compile-vgg38": Entry(partial(compiling, network="vgg38"), 180),
    "compile-vgg38_bn_rc": Entry(partial(compiling, network="vgg38_bn_rc"), 180),
}


def main(name: str, rounds: int) -> None:
    """Print the rows, each when it is there; the last one says so where something failed."""
    try:
        for row in ROWS[name].measurement(name, rounds):
            print(json.dumps(row), flush=True)
    except Exception as error:  # whatever it is, the row says it, and the next rows are measured
        traceback.print_exc()
        print(json.dumps(failure(name, error)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
