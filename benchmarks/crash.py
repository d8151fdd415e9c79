"""Crashes in a thousand ways: ``python -m benchmarks.crash --trials 1000``.

A loop saves checkpoints and records, as a run does at the end of an epoch, and meets with a mishap at a random moment:

kill    SIGKILL of its process
ENOSPC  the disk is full: one call fails, or all from then on; what fails in writing has written a part
EIO     the same, an input/output error
EROFS   the same, the folder has become read-only
short   every write takes only some of the bytes, and the process ends
power   a simulated disk that keeps what was synced, and of the rest what chance keeps

Then every file must be whole and one that a loop without mishap writes too ("unreadable" counts the trials in which
one was not); no checkpoint may be lost that was saved when the mishap came, nor the one before it ("lost"); and a loop
that goes on from there must end with the same bytes ("other end").
"""

import argparse
import errno
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.crash_disks import CountingDisk, FailingDisk, PowerDisk, ShortDisk, StoppedError, in_place
from benchmarks.crash_loop import found, horizon, loop, new_folder, problems, states, victim
from mlp.checkpoints import CheckpointError
from mlp.records import RecordError, RunFolder

EPOCHS = 5
"""How far a loop goes that ends by an error or with the power."""


def trial(kind: str, rng: random.Random, folder: RunFolder, without: Sequence[str] = ()) -> dict[str, str]:
    """Run a loop into a mishap, look, and go on; return what is wrong."""
    saved = [-1]
    MISHAPS[kind](rng, folder, saved.append, without)
    wrong = problems(folder, saved[-1])
    end = max(EPOCHS, saved[-1] + 3)
    try:
        with in_place(CountingDisk()):
            loop(folder, end, lambda _: None)
    except (CheckpointError, RecordError) as error:
        return {**wrong, "other end": str(error)}
    expected = states(horizon(end))[end]
    different = [name for name, content in found(folder).items() if expected.get(name) != content]
    return {**wrong, "other end": f"{different} differ"} if different else wrong


Mishap = Callable[[random.Random, RunFolder, Callable[[int], object], Sequence[str]], None]


@cache
def _calls() -> int:
    """Return the number of calls to the disk of a loop without mishap."""
    with TemporaryDirectory() as place, in_place(CountingDisk()) as disk:
        loop(new_folder(Path(place) / "run"), EPOCHS, lambda _: None)
    return disk.calls


def _failing(number: int) -> Mishap:
    def mishap(rng: random.Random, folder: RunFolder, saved: Callable[[int], object], _: Sequence[str]) -> None:
        with in_place(FailingDisk(number, rng.randint(1, _calls()), rng.random() < 0.5)):
            try:
                loop(folder, EPOCHS, saved)
            except OSError as error:
                if error.errno != number:
                    raise

    return mishap


def _short(rng: random.Random, folder: RunFolder, saved: Callable[[int], object], _: Sequence[str]) -> None:
    with in_place(ShortDisk(rng, rng.randint(1, 2 * _calls()))), suppress(StoppedError):
        loop(folder, EPOCHS, saved)


def _power(rng: random.Random, folder: RunFolder, saved: Callable[[int], object], without: Sequence[str]) -> None:
    with in_place(PowerDisk(rng, rng.randint(1, _calls()), without)) as disk:
        with suppress(StoppedError):
            loop(folder, EPOCHS, saved)
        disk.fail(folder.path)


@cache
def _processes() -> ForkServerContext:
    """Return how processes are made: by a fork of one that has imported all this."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.crash_loop"])
    return context


def _kill(rng: random.Random, folder: RunFolder, saved: Callable[[int], object], _: Sequence[str]) -> None:
    here, there = _processes().Pipe(duplex=False)
    process = _processes().Process(target=victim, args=(folder.path, there))
    process.start()
    there.close()
    try:
        for _message in range(rng.randint(1, 4)):
            saved(here.recv())
        time.sleep(rng.uniform(0.0, 0.05))
    finally:
        process.kill()
        process.join()
    try:
        while True:
            saved(here.recv())
    except EOFError:
        here.close()


MISHAPS: dict[str, Mishap] = {
    "kill": _kill,
    "ENOSPC": _failing(errno.ENOSPC),
    "EIO": _failing(errno.EIO),
    "EROFS": _failing(errno.EROFS),
    "short": _short,
    "power": _power,
}
COUNTED = ("unreadable", "lost", "other end")


def trials(kind: str, count: int, seed: int, without: Sequence[str] = ()) -> tuple[Counter[str], list[str]]:
    """Return how many trials of a kind went wrong, by how, and a line for each."""
    wrong: Counter[str] = Counter()
    lines = []
    for number in range(count):
        with TemporaryDirectory() as place:
            result = trial(kind, random.Random(f"{seed} {kind} {number}"), new_folder(Path(place) / "run"), without)
        wrong.update(result.keys())
        lines += [f"{kind} {number}: {how}: {what}" for how, what in result.items()]
    return wrong, lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of all kinds; return 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash")
    parser.add_argument("--trials", type=int, default=1000, help="in all kinds together; default: 1000")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print(f"{'':8}{'trials':>10}" + "".join(f"{how:>12}" for how in COUNTED))
    total, shown = Counter(), []
    for index, kind in enumerate(MISHAPS):
        count = (args.trials + index) // len(MISHAPS)
        wrong, lines = trials(kind, count, args.seed)
        total.update(wrong, trials=count)
        shown += lines
        print(f"{kind:8}{count:>10}" + "".join(f"{wrong[how]:>12}" for how in COUNTED), flush=True)
    print(f"{'all':8}{total['trials']:>10}" + "".join(f"{total[how]:>12}" for how in COUNTED))
    print(*shown[:20], sep="\n", file=sys.stderr)
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main())
