"""What fails now and then is found by repeats, and said."""

import json
import subprocess
import sys

from benchmarks.machine import ROOT

TESTS = """
import random
import time

import pytest

order = []


@pytest.fixture(scope="module")
def shared():
    return 1


@pytest.mark.parametrize("name", ["a", "b"])
def test_that_fails_now_and_then(name):
    assert random.random() < 0.5


def test_that_needs_to_be_first():
    assert order == []


def test_that_comes_in_its_way():
    order.append(1)


class TestClass:
    def test_that_passes(self):
        pass


def test_that_shares(shared):
    assert False


def test_that_is_slow():
    time.sleep(0.2)
"""


def python(*command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


def test_what_fails_now_and_then_is_counted_and_the_rest_passes(tmp_path):
    tests, times, results = tmp_path / "test_some.py", tmp_path / "times.xml", tmp_path / "flaky.jsonl"
    tests.write_text(TESTS)
    python("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={times}", str(tests))
    command = ["-m", "benchmarks.flaky", str(times), str(tests), "--limit", "0.1", "--results", str(results)]
    python(*command, "--repeats", "3")
    status, said = python(*command, "--repeats", "12")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(1, 13))
    assert {line["passed"] + len(line["failed"]) for line in lines} == {5}
    failed = sum(len(line["failed"]) for line in lines)
    assert f"12 repeats: {60 - failed} passed, 0 skipped, {failed} failed" in said
    names = {name.partition("::")[2] for line in lines for name in line["failed"]}
    now_and_then = {f"test_that_fails_now_and_then[{name}] (call)" for name in "ab"}
    assert names == now_and_then | {"test_that_needs_to_be_first (call)"}
    assert all(0 < sum(name in key for line in lines for key in line["failed"]) < 12 for name in names)
    assert status == 1
