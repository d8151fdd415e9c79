"""How fast the library is on a GPU, and how much memory it takes, as ratios that are each measured in one run.

    python -m benchmarks.gpu [--rows 'train-*' tiles ...] [--quick] [--json FILE]

A ratio is the time (or memory) of the first side over that of the second: smaller is better. Both sides have the same
network with the same weights and a batch of 100 random 32x32 images in float32. The ratio is the median over pairs of
neighbours, with its quartiles; where there are several seconds, the fastest counts. All take turns in one process and
are timed by CUDA events around some steps, after a warm-up. Before anything is timed, both sides must compute the same
loss of the same batch from the same weights: to 1e-5 in fp32, to 1e-3 in TF32, relatively.

Ours takes steps through a data set on the device, launched one by one (eager) or as a replayed CUDA graph (graph). Its
step gathers the batch, crops and flips it, and counts the right answers, too; PyTorch's step has its batch before it,
always the same one. fp32 and tf32 say what both compute in: ours in its 3x3 convolutions, PyTorch in convolutions and
matrix products. PyTorch has its fused Adam and tries cuDNN's algorithms (cudnn.benchmark), in both memory layouts in
eager mode, and channels_last elsewhere.

Rows: train-* is forward, cross-entropy, backward and Adam (-64, -128: with so many filters), and what our graphs
achieve: operations a second, counted as plain sums, and the bytes of all arguments of all launches against what a copy
moves. memory-* is the memory of training; launches-* the time of each launch of our step, the dearest kernels first;
tiles a convolution in the tile that the library takes against other tiles; epoch-* an epoch of the runner end to end,
on random data of CIFAR-100's size, and what Table 1 would take by that; compile-* our graph against the best of
PyTorch's graph and torch.compile, in its default mode and with max-autotune.

Each row has a process of its own and a time limit; one that fails says why, and the others go on. All rows together end
within 8 minutes: what is not done by then is given up. The exit status is 1 if anything failed, and 2 if there is no
GPU to use. Needs CuPy, PyTorch with CUDA for its sides, and, for compile-*, a C compiler.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from benchmarks.gpu_rows import ROWS
from benchmarks.machine import ROOT, gpu, machine, versions
from benchmarks.measure import Row
from mlp.backend import usable_gpu

ROUNDS, QUICK_ROUNDS = 11, 7
SLOW = "compile-*"
ALL_SECONDS = 470.0
"""All rows together take no longer."""
COLUMNS = "{:34}  {:27}  {:>6}  {:>26}  {:>48}  {:>6}"
HEADER = COLUMNS.format("row", "ratio (quartiles)", "rounds", "first", "second", "took")


def main() -> int:
    """Measure the rows that were asked for and print the table; return 1 if one failed, 2 without a GPU."""
    args, status = _arguments(), usable_gpu()
    if not status.usable:
        print(f"benchmarks.gpu: there is no GPU to use: {status.reason}", file=sys.stderr)
        return 2
    content: dict[str, Any] = {"gpu": gpu(), "machine": machine(), "versions": versions(), "rows": []}
    for part in ("gpu", "machine", "versions"):
        print("  ".join(f"{key} {value}" for key, value in content[part].items()))
    print(f"\n{HEADER}", flush=True)
    end = time.monotonic() + ALL_SECONDS
    for name in args.rows:
        for row in measured(name, args.rounds, min(ROWS[name].limit, end - time.monotonic())):
            content["rows"].append(row)
            print(line(row), flush=True)
        if args.json:
            args.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(row.get("failed") for row in content["rows"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="PATTERN", help=f"names or patterns: {' '.join(ROWS)}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds, not {ROUNDS}, and no {SLOW} unless it is asked for",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    args = parser.parse_args()
    unknown = [pattern for pattern in args.rows or [] if not any(fnmatchcase(name, pattern) for name in ROWS)]
    if unknown:
        parser.error(f"--rows {' '.join(unknown)}: no such row, expected some of {' '.join(ROWS)}")
    args.rounds = QUICK_ROUNDS if args.quick else ROUNDS
    left_out = args.quick and args.rows is None
    args.rows = [
        name
        for name in ROWS
        if any(fnmatchcase(name, pattern) for pattern in args.rows or ["*"])
        and not (left_out and fnmatchcase(name, SLOW))
    ]
    return args


def measured(name: str, rounds: int, limit: float, module: str = "benchmarks.gpu_rows") -> list[Row]:
    """Return what a process of its own measures within so many seconds; where it fails, with a row that says why."""
    if limit < 1:
        return [_failed(name, "no time is left")]
    start = time.monotonic()
    with TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
        reason = _run([sys.executable, "-m", module, name, str(rounds)], limit, out, errors)
        for file in (out, errors):
            file.seek(0)
        lines, told = out.read().splitlines(), errors.read().splitlines()
    rows: list[Row] = [json.loads(text) for text in lines if text.startswith('{"row"') and text.endswith("}")]
    if reason or not rows:
        rows.append(_failed(name, reason or "nothing was measured"))
    if any(row.get("failed") for row in rows):
        print(*told[-20:], sep="\n", file=sys.stderr, flush=True)
    rows[0]["took"] = time.monotonic() - start
    return rows


def _run(command: list[str], limit: float, out: IO[str], errors: IO[str]) -> str:
    """Run a command, and end all that it started; return what went wrong, or nothing."""
    child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT, start_new_session=True)
    try:
        code = child.wait(limit)
    except subprocess.TimeoutExpired:
        return f"given up after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return f"ended with status {code}" if code else ""


def _failed(name: str, reason: str) -> Row:
    return {"row": name, "note": f"failed: {reason}", "failed": True}


def line(row: Row) -> str:
    """Return a row's line in the table, and those that it brings along."""
    took = f"{row['took']:.0f} s" if "took" in row else ""
    more = "".join(f"\n{'':36}{text}" for text in row.get("lines", []))
    if "ratio" not in row:
        return f"{row['row']:34}  {row['note']}{'  ' if took else ''}{took}{more}"
    first, second = (f"{row[side]} {_size(row['medians'][row[side]], row['unit'])}" for side in ("ours", "other"))
    ratio = f"{row['ratio']:.3g} ({row['low']:.3g} - {row['high']:.3g})"
    return COLUMNS.format(row["row"], ratio, row["pairs"], first, second, took).rstrip() + more


def _size(value: float, unit: str) -> str:
    return f"{value:.0f} MB" if unit == "MB" else f"{1e3 * value:.4g} m{unit}"


if __name__ == "__main__":
    sys.exit(main())
