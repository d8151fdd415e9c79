"""Repeat the tests that are fast, each time in another order, and count what fails.

    python -m pytest -q -n 2 --junitxml=TIMES.xml       # how long each test takes
    python -m benchmarks.flaky TIMES.xml --repeats 200 --results FLAKY.jsonl

The fast part: the tests that took at most `--limit` seconds, their fixtures included, and that share no fixture of this
suite with other tests, which whichever comes first would pay for. They are collected once. Each repeat is a fork of
that process, shuffles all of them by its own seed, whatever their files, and appends one line to the results: its seed,
how many passed, were skipped and failed, and the texts of the failures. A second call goes on after the last seed.
"""

import argparse
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest

from .machine import ROOT


def fast_tests(times: Path, limit: float) -> set[tuple[str, str]]:
    """Return class name and name, as JUnit's files have them, of the tests that took at most so many seconds."""
    cases = ElementTree.parse(times).getroot().iter("testcase")
    return {(c.get("classname", ""), c.get("name", "")) for c in cases if float(c.get("time", "inf")) <= limit}


def is_alone(item: pytest.Item) -> bool:
    """Return whether a test shares no fixture of this suite with another test."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    return all(used.scope == "function" for defined in fixtures for used in defined if used.baseid)


class Repeats:
    """A plugin of pytest that runs the fast part again and again in place of the suite once."""

    def __init__(self, fast: set[tuple[str, str]], seeds: range, results: Path) -> None:
        self.fast, self.seeds, self.results = fast, seeds, results
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count an outcome of the repeat that runs in this process."""
        if report.failed:
            self.failures[f"{report.nodeid} ({report.when})"] = report.longreprtext
        if report.when == "call" or report.skipped:
            self.outcomes[report.outcome] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Fork for every repeat."""
        items = [item for item in session.items if self.name(item) in self.fast and is_alone(item)]
        print(f"\n{len(items)} of {len(session.items)} tests", flush=True)
        gc.collect()
        gc.freeze()  # what was collected is not looked through, and so not copied, in every fork
        for seed in self.seeds:
            child = os.fork()
            if child == 0:
                self.repeat(items, seed)
                os._exit(0)
            if status := os.waitpid(child, 0)[1]:
                self.write({"seed": seed, "failed": {"the process": f"ended with status {status}"}})
        return True

    @staticmethod
    def name(item: pytest.Item) -> tuple[str, str]:
        """Return class name and name of a test as JUnit's files have them."""
        path, *names = item.nodeid.split("[")[0].split("::")
        return ".".join([path.removesuffix(".py").replace("/", "."), *names[:-1]]), item.name

    def repeat(self, items: list[pytest.Item], seed: int) -> None:
        """Run the tests in the order of a seed and write what came of it."""
        start = time.perf_counter()
        random.Random(seed).shuffle(items)
        items[0].config.option.randomly_seed = seed  # from which pytest-randomly seeds `random` and NumPy for each test
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        took = round(time.perf_counter() - start, 1)
        self.write({"seed": seed, "seconds": took, **self.outcomes, "failed": self.failures})

    def write(self, line: dict[str, object]) -> None:
        """Append a line to the results."""
        with self.results.open("a") as file:
            print(json.dumps(line), file=file)


def report(results: Path) -> str:
    """Return a sentence on all the repeats of a file."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    passed, skipped = (sum(line.get(outcome, 0) for line in lines) for outcome in ("passed", "skipped"))
    failed = Counter(name for line in lines for name in line["failed"])
    names = "".join(f"\n  {count} x {name}" for name, count in failed.most_common())
    return f"{len(lines)} repeats: {passed:,} passed, {skipped:,} skipped, {failed.total():,} failed{names}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flaky", description=__doc__.splitlines()[0])
    parser.add_argument("times", type=Path, help="what `pytest --junitxml` wrote")
    parser.add_argument("--limit", type=float, default=0.01, help="seconds of a fast test (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("flaky.jsonl"), help="default: %(default)s")
    parser.add_argument("files", nargs="*", help="where the tests are (default: everywhere)")
    options = parser.parse_intermixed_args()
    results = options.results.resolve()
    done = [json.loads(line)["seed"] for line in results.read_text().splitlines()] if results.exists() else []
    seeds = range(max(done, default=0) + 1, options.repeats + 1)
    os.chdir(ROOT)
    plugin = Repeats(fast_tests(options.times, options.limit), seeds, results)
    with TemporaryDirectory() as place:  # where no other run of pytest clears up
        folders = [f"--basetemp={place}/tests", "-o", "tmp_path_retention_policy=none"]
        pytest.main(["-q", "-p", "no:cacheprovider", *folders, *options.files], plugins=[plugin])
    print(report(results))
    return int(any(json.loads(line)["failed"] for line in results.read_text().splitlines()))


if __name__ == "__main__":
    sys.exit(main())
