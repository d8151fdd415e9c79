"""Ctrl-C that waits for the step at hand."""

import signal
import threading

import pytest

from mlp.experiments.interrupt import StopAfterStep


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_a_request(number):
    with StopAfterStep() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_request_stops_at_once(first):
    with StopAfterStep() as stop:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_a_second_sigterm_still_waits():
    with StopAfterStep() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_afterwards_signals_mean_what_they_meant(number):
    before = signal.getsignal(number)
    with StopAfterStep():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before
    with pytest.raises(ZeroDivisionError), StopAfterStep():
        raise ZeroDivisionError
    assert signal.getsignal(number) == before


def test_one_inside_the_other_takes_turns():
    with StopAfterStep() as outer:
        with StopAfterStep() as inner:
            signal.raise_signal(signal.SIGINT)
        assert (inner.requested, outer.requested) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert outer.requested


def test_a_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopAfterStep() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
    assert signal.getsignal(signal.SIGINT) == before
