"""How fast the library is on a CPU, and how much memory it takes, as ratios that are each measured in one run.

    python -m benchmarks.cpu [--rows 'train-*' mlp ...] [--pairs 15] [--quick] [--json FILE]

A ratio is the time (or memory) of the first side over that of the second: smaller is better. Both sides have the same
network with the same weights, the same float32 batch of 100 images and the same number of threads, and take turns;
PyTorch runs in both its memory layouts and the faster one counts, with its fused Adam. The ratio is the median over
pairs of neighbours, with its quartiles. Before anything is timed, both sides must compute the same: `differ` is the
largest relative difference of their losses before and after a training step, or of two passes' outputs. `others` is
the share of the machine that other processes took meanwhile. It should be 0: two threads that wait for each other, as
PyTorch's do, lose more by it than ours, and the ratio is then too small.

Rows: train-* is forward, cross-entropy, backward and Adam (-64, -128: with so many filters); infer-* outputs in
evaluation mode; mlp 200 steps of a 784-100-100-10 network at batch 50; plan-* the engine's plans against the layers'
own passes; memory-* the peak resident memory of a process that takes five steps; growth-* our time per image at a
batch of 25, 50, 200, 400 against 100; threads-* two threads against one; data-* making an augmented training batch
against a step with it; autograd-* a step of ours against HIPS/autograd's. (`pip install -e '.[oracle]' autograd`
installs the others.)
"""

import argparse
import json
import os
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.machine import ROOT, busy_seconds, machine, own_seconds, versions
from benchmarks.measure import Row
from benchmarks.rows import ROWS

QUICK_PAIRS = 3
COLUMNS = "{:22}  {:27}  {:>5}  {:>23}  {:>30}  {:15}  {:>8}  {:>6}"
HEADER = COLUMNS.format("row", "ratio (quartiles)", "pairs", "first", "second", "differ", "took", "others")


def main() -> int:
    """Measure the rows that were asked for and print the table; return 1 if one failed."""
    args = _arguments()
    content = {"machine": machine(), "versions": versions(), "rows": []}
    for part in ("machine", "versions"):
        print("  ".join(f"{key} {value}" for key, value in content[part].items()))
    print(f"\n{HEADER}", flush=True)
    for name in args.rows:
        for row in _measured(name, args.pairs):
            content["rows"].append(row)
            print(_line(row), flush=True)
        if args.json:
            args.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(row.get("failed") for row in content["rows"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15, help="timings of each side (15; some slow rows take fewer)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=["*"], help=f"names or patterns: {' '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help=f"no more than {QUICK_PAIRS} pairs")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    args = parser.parse_args()
    unknown = [pattern for pattern in args.rows if not any(fnmatchcase(name, pattern) for name in ROWS)]
    if unknown or args.pairs < 1:
        parser.error(
            f"--rows {' '.join(unknown)}: no such row, expected some of {' '.join(ROWS)}"
            if unknown
            else "--pairs: at least 1"
        )
    args.rows = [name for name in ROWS if any(fnmatchcase(name, pattern) for pattern in args.rows)]
    args.pairs = min(args.pairs, QUICK_PAIRS) if args.quick else args.pairs
    return args


def _measured(name: str, pairs: int) -> list[Row]:
    """Return a row of the table, or several, from a process of its own, with what else the machine did meanwhile."""
    command = [sys.executable, "-m", "benchmarks.rows", name, str(pairs)]
    start, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    seconds = time.perf_counter() - start
    if process.returncode:
        rows = [{"row": name, "note": "failed", "failed": True}]
    else:
        rows = json.loads(process.stdout.splitlines()[-1])
    rows[0]["took"] = seconds
    if busy is not None:
        others = busy_seconds() - busy - (own_seconds() - own)
        rows[0]["others"] = max(others, 0.0) / (seconds * os.cpu_count())
    return rows


def _line(row: Row) -> str:
    """Return a row's line in the table."""
    end = [f"{row['took']:.0f} s" if "took" in row else "", f"{row['others']:.0%}" if "others" in row else ""]
    if "ratio" not in row:
        return COLUMNS.format(row["row"], row["note"], *[""] * 4, *end).rstrip()
    first, second = (f"{row[side]} {_size(row['medians'][row[side]], row['unit'])}" for side in ("ours", "other"))
    ratio = f"{row['ratio']:.3g} ({row['low']:.3g} - {row['high']:.3g})"
    found = ", ".join(f"{value:.0e}" for value in row.get("differences", []))
    note = f"\n{'':24}{row['note']}" if "note" in row else ""
    return COLUMNS.format(row["row"], ratio, row["pairs"], first, second, found, *end).rstrip() + note


def _size(value: float, unit: str) -> str:
    return f"{value:.0f} MB" if unit == "MB" else f"{1e3 * value:.4g} m{unit}"


if __name__ == "__main__":
    sys.exit(main())
