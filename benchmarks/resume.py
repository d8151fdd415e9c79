"""Runs that are killed and gone on with: ``python -m benchmarks.resume --trials 200``.

VGG08 with batch normalisation and residual connections on shapes is trained once without mishap. Then every trial
trains it in processes that meet with SIGKILL, up to three times: at a random moment, or at a random event, an event
being a training step or a moment of writing a file. Each process runs on 1, 2 or 3 threads and saves as often as
chance has it. At the end every file of the run's folder must be that of the run without mishap, to the byte: all
checkpoints (parameters, running statistics, Adam's moments, the best epoch's), metrics (but for the column `seconds`),
gradient flow, test figures, configuration, figures (as PNG; a PDF holds its time).
"""

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.resume_run import Part, work

EVENTS = 110
"""About as many as a run has that saves after every step."""


@cache
def _processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.resume_run"])
    return context


def run(path: Path, part: Part, seconds: float | None = None) -> int | None:
    """Run a part in a process, killed after so many `seconds`; return its exit status."""
    process = _processes().Process(target=work, args=(path, part))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def files(path: Path) -> dict[str, bytes]:
    """Return what is in a run's folder: metrics.csv without the seconds; not PDFs, and not `previous`.

    (`previous.safetensors` is the checkpoint before the last, whenever that was saved.)
    """
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.suffix != ".pdf" and file.name not in ("previous.safetensors", ".lock"):
            content = file.read_bytes()
            if file.name == "metrics.csv":
                content = b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())
            found[file.relative_to(path).as_posix()] = content
    return found


def trial(rng: random.Random, place: Path, duration: float) -> tuple[dict[str, bytes], int]:
    """Run with up to three kills, and to the end; return the files and how many kills met a process at work."""
    kills = 0
    for _ in range(rng.randint(1, 3)):
        often = rng.choice([-1.0, 0.1, 1e9])
        at_event = rng.random() < 0.5
        part = Part(rng.randint(1, 3), often, rng.randint(1, EVENTS) if at_event else 0)
        kills += run(place, part, None if at_event else rng.uniform(0.0, duration)) == -signal.SIGKILL
    if run(place, Part(rng.randint(1, 3), 1e9)) != 0:
        return {}, kills
    return files(place), kills


def trials(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Return how many trials, kills, files compared and differing files there were, and a line for each such trial."""
    sums: Counter[str] = Counter()
    lines: list[str] = []
    with TemporaryDirectory() as name:
        whole, start = Path(name) / "vgg08_bn_rc-run", time.monotonic()
        whole.mkdir()
        if run(whole, Part(1, 1e9)) != 0:
            raise RuntimeError("the run without mishap came to no end")
        expected, duration = files(whole), time.monotonic() - start
        whole.rename(Path(name) / "whole")
        for number in range(count):
            whole.mkdir()  # every trial in a folder of the same name, which stands in the figures
            found, kills = trial(random.Random(f"{seed} {number}"), whole, duration)
            different = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
            sums.update(trials=1, kills=kills, compared=len(found), different=len(different))
            lines += [f"trial {number}: {', '.join(sorted(different))}"] if different else []
            whole.rename(Path(name) / str(number))
    return sums, lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the sums; return 1 where any file differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume")
    parser.add_argument("--trials", type=int, default=200, help="default: 200")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    sums, lines = trials(args.trials, args.seed)
    print(*lines, sep="\n", end="\n" if lines else "")
    print("  ".join(f"{name} {sums[name]}" for name in ("trials", "kills", "compared", "different")))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
