"""What a run shows while it goes on."""

import io
import sys
from types import SimpleNamespace

import pytest

from mlp.experiments import progress
from mlp.experiments.progress import Progress
from mlp.optimisers import Scores


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def stderr(monkeypatch):
    def use(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    monkeypatch.setattr(progress, "in_notebook", lambda: False)
    return use


SCORES = Scores(123.4, 10, 100)


def test_a_log_gets_a_line_every_thirty_seconds(clock, stderr):
    log = stderr(io.StringIO())
    with Progress(3000, 0, quiet=False) as shown:
        for _ in range(10):
            clock.seconds += 10.0
            shown.step(1, 3, 100, SCORES)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "epoch 1/3  10.0 %  loss 1.234  acc 10.0 %  10 images/s  0:04:30 left"
    assert lines[2] == "epoch 1/3  30.0 %  loss 1.234  acc 10.0 %  10 images/s  0:03:30 left"


def test_the_rate_counts_what_was_done_since_the_start(clock, stderr):
    log = stderr(io.StringIO())
    with Progress(2000, 1000, quiet=False) as shown:
        clock.seconds += 50.0
        shown.step(2, 2, 100, SCORES)
    assert log.getvalue() == "epoch 2/2  55.0 %  loss 1.234  acc 10.0 %  2 images/s  0:07:30 left\n"


def test_hours_are_shown(clock, stderr):
    log = stderr(io.StringIO())
    with Progress(1_000_000, 0, quiet=False) as shown:
        clock.seconds += 100.0
        shown.step(1, 9, 1000, SCORES)
    assert log.getvalue().endswith("10 images/s  27:45:00 left\n")


def test_a_log_holds_no_bar(clock, stderr):
    log = stderr(io.StringIO())
    with Progress(1000, 0, quiet=False) as shown:
        shown.step(1, 1, 100, SCORES)
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(stderr):
    terminal = stderr(Terminal())
    with Progress(300, 100, quiet=False) as shown:
        shown.step(1, 3, 100, SCORES)
        shown.step(2, 3, 100, SCORES)
    text = terminal.getvalue()
    assert "epoch 2/3" in text
    assert "100%" in text
    assert "loss=1.234" in text
    assert "acc=10.0%" in text
    assert "image/s" in text


def test_a_notebook_gets_a_bar(stderr, monkeypatch):
    log = stderr(io.StringIO())
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    with Progress(100, 0, quiet=False) as shown:
        shown.step(1, 1, 100, SCORES)
    assert "epoch 1/1" in log.getvalue()
    assert "100%" in log.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_shows_nothing(clock, stderr, capsys, stream):
    shown_there = stderr(stream())
    with Progress(1000, 0, quiet=True) as shown:
        clock.seconds += 100.0
        shown.step(1, 1, 100, SCORES)
        shown.say("a line")
    assert shown_there.getvalue() == ""
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_line_goes_to_the_output_and_not_into_the_bar(stderr, capsys, stream):
    beside = stderr(stream())
    with Progress(1000, 0, quiet=False) as shown:
        shown.step(1, 1, 100, SCORES)
        shown.say("epoch 1/1 done")
    assert capsys.readouterr().out == "epoch 1/1 done\n"
    assert "done" not in beside.getvalue()
