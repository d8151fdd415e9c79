"""The executor: shards, sums over parts, threads, and what comes out when an action fails."""

import signal
import threading
import time

import numpy as np
import pytest

from mlp.engine.executor import MAX_PARTS, Cut, Executor, cut
from mlp.engine.program import MAP, ROWS, SUMS, Action, Program, Value
from mlp.kernels import parallel
from mlp.kernels.parallel import run_on_threads, single_threaded_blas

from .comparison import by_chance


def executor_of(actions, batch=40, ideal=3, dtype=np.float64):
    program = Program(actions)
    return Executor(program, cut(batch, ideal), dtype), program.phases()


def test_shards_cover_the_batch_in_order_and_parts_hold_as_many():
    seen = []
    executor, phases = executor_of(
        [Action(lambda s: seen.append((s.index, s.part, s.first_of_part, s.rows)), (), (), "")]
    )
    executor.run(phases)
    assert [index for index, *_ in sorted(seen)] == list(range(14))
    rows = [shard_rows for *_, shard_rows in sorted(seen)]
    assert [i for r in rows for i in range(r.start, r.stop)] == list(range(40))
    assert [part for _, part, *_ in sorted(seen)] == [i // 2 for i in range(14)]
    assert [first for _, _, first, _ in sorted(seen)] == [i % 2 == 0 for i in range(14)]


def test_many_shards_make_at_most_so_many_parts():
    assert cut(1000, 1) == Cut((1,) * 1000, 84)
    assert cut(1000, 1).num_parts == MAX_PARTS
    assert cut(7, 3) == Cut((3, 2, 2), 1)


def summing():
    """Return an action that sums up numbers of which the order matters, the sums, and numbers."""
    sums, numbers = Value(SUMS, (5,)), 10.0 ** np.random.default_rng(0).integers(-8, 8, (40, 5))

    def add(shard):
        shard.add_to(sums, numbers[shard.rows].sum(axis=0))

    return Action(add, (), (sums,), "sum"), sums, numbers


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_the_same_to_the_bit_whoever_makes_them(seed, monkeypatch):
    action, sums, numbers = summing()
    executor, phases = executor_of([action, Action(lambda batch: None, (sums,), (), "", whole=True)])
    expected = 0.0
    for part in range(7):
        of_part = [numbers[rows].sum(axis=0) for rows in executor.rows[2 * part : 2 * part + 2]]
        expected = expected + (of_part[0] + of_part[1])
    monkeypatch.setattr("mlp.engine.executor.run_on_threads", by_chance(seed))
    for _ in range(2):
        executor.run(phases)
        np.testing.assert_array_equal(executor.total(sums), expected)


def test_products_are_added_up_likewise():
    sums, x, y = Value(SUMS, (2, 3)), np.random.default_rng(0).random((40, 2)), np.random.default_rng(1).random((40, 3))
    action = Action(lambda s: s.add_product(sums, x[s.rows].T, y[s.rows]), (), (sums,), "")
    executor, phases = executor_of([action, Action(lambda batch: None, (sums,), (), "", whole=True)])
    for _ in range(2):
        executor.run(phases)
        np.testing.assert_allclose(executor.total(sums), x.T @ y, rtol=1e-14)


def test_arrays_of_a_shard_are_views_of_its_memory():
    a, b, seen = Value(MAP, (2, 3, 5)), Value(ROWS, (4,)), []

    def look(shard):
        seen.append((shard.n, shard.framed[a].shape, shard.arrays[a].shape, shard.flat[a].shape, shard.flat[b].shape))
        assert np.shares_memory(shard.framed[a], shard.flat[a])
        row = shard.row("row", a, np.arange(2.0))
        np.testing.assert_array_equal(row, np.tile([0.0, 1.0], 5 * shard.n))
        assert shard.like(a).shape == shard.flat[a].shape
        assert shard.like(a).dtype == row.dtype == np.float32

    executor, phases = executor_of([Action(look, (), (a, b), "")], batch=7, ideal=4, dtype=np.float32)
    executor.run(phases)
    assert sorted(seen) == [(n, (5, 5, n, 2), (3, 5, n, 2), (3, 10 * n), (n, 4)) for n in (3, 4)]
    assert executor.batch_bytes == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_map_lies_between_zeros_whichever_thread_takes_a_shard(seed, monkeypatch):
    """Shards of two sizes take turns in a thread's memory, and come to a thread in any order."""
    a, b = Value(MAP, (2, 4, 3)), Value(MAP, (2, 4, 3))

    def fill(shard):
        for value in (a, b):
            assert (shard.framed[value][[0, -1]] == 0).all()
            shard.arrays[value][...] = 1.0

    executor, phases = executor_of([Action(fill, (), (a, b), "")], batch=14, ideal=4)
    monkeypatch.setattr("mlp.engine.executor.run_on_threads", by_chance(seed, threads=2))
    for _ in range(4):
        executor.run(phases)


def test_what_lives_with_the_batch_is_counted():
    a, b = Value(MAP, (2, 3, 5)), Value(SUMS, (6,))
    actions = [Action(lambda s: None, (), (a, b), ""), Action(lambda batch: None, (a, b), (), "", whole=True)]
    executor, _ = executor_of(actions, batch=7, ideal=4)
    assert executor.batch_bytes == 8 * (5 * 5 * 7 * 2 + 2 * 6)
    assert [flat.shape for flat in executor.flat(a)] == [(3, 40), (3, 30)]


class Trouble(Exception):
    """Something of a user's own."""


class Failing:
    """An action that fails on one shard as long as it is told to."""

    def __init__(self, error, index=5):
        self.error, self.index, self.calls = error, index, []

    def __call__(self, shard):
        self.calls.append(shard.index)
        if shard.index == self.index and self.error is not None:
            raise self.error


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_actions_error_comes_out_as_itself_and_says_whose_it_is(count, threads):
    threads(count)
    failing, error = Failing(Trouble("here")), None
    executor, phases = executor_of([Action(failing, (), (), "the third layer")])
    with pytest.raises(Trouble, match="here") as caught:
        executor.run(phases)
    assert caught.value is failing.error
    assert caught.value.__notes__ == ["(in the third layer)"]
    failing.error, failing.calls = error, []
    executor.run(phases)
    assert sorted(failing.calls) == list(range(14))


def test_an_error_on_the_whole_batch_says_whose_it_is_too():
    def fail(batch):
        raise Trouble("there")

    executor, phases = executor_of([Action(fail, (), (), "norm", whole=True), Action(fail, (), (), "next")])
    with pytest.raises(Trouble, match="there") as caught:
        executor.run(phases)
    assert caught.value.__notes__ == ["(in norm)"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), Trouble()], ids=lambda error: type(error).__name__
)
def test_what_stops_a_run_stops_it(error, threads):
    """On one thread nothing comes after it: no shard, no phase."""
    threads(1)
    failing, later = Failing(error), []
    actions = [Action(failing, (), (), "a"), Action(later.append, (), (), "b", whole=True)]
    executor, phases = executor_of(actions)
    with pytest.raises(type(error)):
        executor.run(phases)
    assert failing.calls[-1] == 5
    assert later == []
    failing.error = None
    executor.run(phases)
    assert len(later) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Trouble()], ids=lambda error: type(error).__name__)
def test_an_error_on_one_thread_stops_the_others_before_their_next_part(error, threads):
    """Both hold a part when it happens; the one that did not fail takes no other."""
    threads(2)
    both, failed, calls = threading.Barrier(2, timeout=60), threading.Event(), []

    def work(thread, index):
        calls.append(index)
        both.wait()
        if thread == 1:
            failed.set()
            raise error
        failed.wait(60)
        time.sleep(0.05)  # what the other does after it has failed takes microseconds

    with pytest.raises(type(error)):
        run_on_threads(work, 100)
    assert len(calls) == 2


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt: also where a shell has started the tests in the background, and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_waiting_for_other_threads_leaves_none_at_work(threads, ctrl_c):
    """Else the next run would meet them in its memory."""
    threads(2)
    both, finished = threading.Barrier(2, timeout=60), []

    def work(thread, index):
        both.wait()
        if thread == 1:
            time.sleep(0.05)  # so that the other one, which is done, waits for this one
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
            finished.append(index)

    with pytest.raises(KeyboardInterrupt):
        run_on_threads(work, 2)
    assert len(finished) == 1


def test_where_no_thread_can_be_started_memory_is_short_and_nothing_works_on_afterwards(threads, monkeypatch):
    """The pool keeps what it could not start, and runs it when a thread is free again."""
    threads(2)
    parallel._pool.cache_clear()
    pool, seen = parallel._pool(), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(MemoryError, match="no thread can be started: can't start new thread"):
            run_on_threads(lambda thread, index: seen.append(index), 50)
    pool.submit(int).result()  # the pool has a thread by now, and has done what it kept
    assert seen == []
    run_on_threads(lambda thread, index: seen.append(index), 50)
    assert sorted(seen) == list(range(50))


def no_thread(_):
    raise RuntimeError("can't start new thread")


def test_indices_are_each_taken_once_by_threads_with_small_numbers(threads):
    threads(3)
    seen = []
    run_on_threads(lambda thread, index: seen.append((thread, index)), 50)
    assert sorted(index for _, index in seen) == list(range(50))
    assert {thread for thread, _ in seen} <= {0, 1, 2}
    seen.clear()
    run_on_threads(lambda thread, index: seen.append((thread, index)), 1)
    assert seen == [(0, 0)]


def test_numpys_settings_of_the_caller_hold_on_every_thread(threads):
    """`np.errstate` around a run is for all of it."""
    threads(2)
    both, seen = threading.Barrier(2, timeout=60), []

    def work(thread, index):
        both.wait()
        seen.append((thread, np.geterr()["over"]))

    with np.errstate(over="raise"):
        run_on_threads(work, 2)
    assert sorted(seen) == [(0, "raise"), (1, "raise")]


def test_the_blas_has_its_threads_back_when_two_that_overlap_have_ended():
    """As when two Python threads run two engines."""
    from mlp.kernels.parallel import _blas_libraries

    libraries = _blas_libraries()
    before = [library.num_threads for library in libraries]
    for library in libraries:
        library.set_num_threads(2)
    try:
        first, second = single_threaded_blas(), single_threaded_blas()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert {library.num_threads for library in libraries} == {1}
        second.__exit__(None, None, None)
        assert {library.num_threads for library in libraries} == {2}
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)
