"""Hostile files: mutations of valid ones, read by every reader: `python -m benchmarks.fuzz --seconds 600`.

Each worker is a process with a limit of memory and an alarm of one second an input; one that crashes or hangs is found
by the number of its last input, which it leaves in a file, and replaced. Counted are crashes, hangs, inputs that took
more memory than twice the file's size and 64 MiB, files that were written, and exceptions other than the reader
documents or without a clear sentence. `--one NUMBER` reads one input again.
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.fuzz_readers import READERS, Reader

MEMORY = 2 << 30
HANG, OVER = 3, 4
ROOM = 64 << 20
WORDS = [
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff" * 8, b"9" * 20, b"-1", b"NaN", b"1e999", b"Infinity",
    b"{" * 9, b"[" * 99, b"]", b"}", b'"', b",", b"'", b"(", b")", b"\n", b"\0", b"\x1b[2J", b"../", b"/", b"null",
    b"true", b"|O", b"<U9", b"<f8", b"True", b"None", b"cos\nsystem\n", b"0x", b"PK\1\2", b"PK\5\6", b"\x1f\x8b",
    b"\x93NUMPY",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a copy with one to eight changes: bits, bytes, words that mean something, cuts, doublings, swaps."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 1, 2, 4, 8, 30, 200))
        kind = rng.randrange(8)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            word = rng.choice(WORDS)
            found[at : at + len(word)] = word
        elif kind == 3:
            found[at:at] = rng.choice(WORDS) * rng.choice((1, 1, 1, 3, 50))
        elif kind == 4:
            del found[at : at + length]
        elif kind == 5:
            found[at:at] = found[at : at + length] * rng.choice((1, 2, 20))
        elif kind == 6:
            other = rng.randrange(len(found) + 1)
            found[at : at + length] = found[other : other + length]
        elif rng.random() < 0.2:
            del found[at:]
    return bytes(found)


def made(seed: int) -> tuple[Reader, bytes]:
    """Return the reader and the file of an input, which its number decides."""
    rng = random.Random(seed)
    reader = READERS[seed % len(READERS)]
    return reader, reader.wrap(mutated(rng.choice(reader.seeds()), rng))


def judged(reader: Reader, data: bytes, folder: Path) -> str:
    """Return how a file was read: 'read', 'refused', or what is wrong."""
    before = {path.name for path in folder.iterdir()}
    try:
        reader.read(reader.place(folder, data))
        outcome = "read"
    except reader.documented as error:
        text = str(error)
        clear = len(text) < 2_000 and all(letter.isprintable() or letter == "\n" for letter in text)
        outcome = "refused" if clear and str(folder) in text else f"WRONG no clear sentence: {text[:300]!r}"
    except Exception as error:  # whatever is not documented is what is looked for
        outcome = f"WRONG {type(error).__name__}: {str(error)[:200]}"
    strange = {path.name for path in folder.iterdir()} - before - {reader.file}
    return f"WRONG wrote {strange}" if strange else outcome


def _most_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    """Return the bytes of this process's address space, where the system says so."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0


def _alarm(*_: object) -> None:
    os._exit(HANG)


def work(start: int, step: int, until: float, count: int, place: str, results: Any) -> None:
    """Read inputs until the time or their number is up; send counts, and whatever is wrong."""
    signal.signal(signal.SIGALRM, _alarm)
    folder, mark = Path(place) / "files", os.open(Path(place) / "seed", os.O_CREAT | os.O_WRONLY)
    folder.mkdir(exist_ok=True)
    for reader in READERS:  # what is imported and made once is no input's
        judged(reader, reader.wrap(reader.seeds()[0]), folder)
    most = _address_space() + MEMORY  # more than was there: a fork has its parent's
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    counts: Counter[tuple[str, str]] = Counter()
    seed, base = start, _most_memory()
    while seed < count and time.time() < until and not counts["", "over"]:
        reader, data = made(seed)
        os.pwrite(mark, b"%-20d" % seed, 0)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        outcome = judged(reader, data, folder)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        taken = _most_memory() - base  # of this input or one before it
        counts["", "over"] = int(taken > 2 * len(data) + ROOM)
        if counts["", "over"]:
            outcome = f"WRONG memory: {taken:,} bytes for a file of {len(data):,}"
        if outcome.startswith("WRONG"):
            results.put((seed, reader.name, outcome))
        counts[reader.name, outcome.split()[0]] += 1
        counts["", "peak"] = max(counts["", "peak"], taken)
        seed += step
    results.put(counts)
    if counts["", "over"]:
        os._exit(OVER)


def run(workers: int, seconds: float, inputs: int, first: int) -> Iterator[Any]:
    """Yield what workers say; a worker that ends early has met a crash or a hang, and another goes on behind it.

    Raises RuntimeError where a worker ends before it has read an input: so would the next one.
    """
    context, until = get_context("fork"), time.time() + seconds
    live: dict[int, Any] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        results = context.SimpleQueue()

        def begin(index: int, start: int) -> None:
            folder = Path(place) / str(index)
            folder.mkdir(exist_ok=True)
            (folder / "seed").write_bytes(b"")
            arguments = (start, workers, until, first + inputs, str(folder), results)
            live[index] = context.Process(target=work, args=arguments)
            live[index].start()

        try:
            for index in range(workers):
                begin(index, first + index)
            while live or not results.empty():
                while not results.empty():
                    yield results.get()
                for index, process in list(live.items()):
                    if process.exitcode is None:
                        continue
                    del live[index]
                    if process.exitcode:
                        seed = _last_seed(Path(place) / str(index), process.exitcode)
                        if process.exitcode != OVER:
                            what = "hang" if process.exitcode == HANG else f"crash {process.exitcode}"
                            yield seed, made(seed)[0].name, f"WRONG {what}"
                        begin(index, seed + workers)
                time.sleep(0.05)
        finally:
            for process in live.values():
                process.kill()
                process.join()


def _last_seed(folder: Path, status: int) -> int:
    """Return the number of the last input that a worker has begun to read."""
    text = (folder / "seed").read_text()
    if not text:
        raise RuntimeError(f"a worker ended with status {status} before it read an input")
    return int(text)


def main() -> int:
    """Run, and print a table; return 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many seconds")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="stop after so many inputs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", type=int, help="read the input of this number again, and show it")
    args = parser.parse_args()
    if args.one is not None:
        reader, data = made(args.one)
        with tempfile.TemporaryDirectory() as place:
            print(reader.name, repr(data[:2000]), judged(reader, data, Path(place)), sep="\n")
            reader.read(reader.place(Path(place), data))
        return 0
    start, counts, wrong = time.time(), Counter[tuple[str, str]](), Counter[str]()
    for found in run(args.workers, args.seconds, args.inputs, args.first):
        if isinstance(found, Counter):
            peak = max(counts["", "peak"], found["", "peak"])
            counts += found
            counts["", "peak"] = peak
        else:
            seed, name, outcome = found
            wrong[outcome.split(":")[0]] += 1
            print(f"input {seed} ({name}): {outcome}", flush=True)
    for reader in READERS:
        row = {what: counts[reader.name, what] for what in ("read", "refused", "WRONG")}
        print(f"{reader.name:24}" + "".join(f"{what} {number:8,}  " for what, number in row.items()))
    total = sum(number for (name, _), number in counts.items() if name)
    print(f"{total:,} inputs in {time.time() - start:.0f} s; wrong: {dict(wrong) or 'none'}")
    print(f"the most memory that reading took: {counts['', 'peak'] / 2**20:.1f} MiB (files of up to some 20 kB)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
