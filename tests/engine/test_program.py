"""Programs: where values live, and that no two that are needed at one time live in one place."""

from itertools import combinations, pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp.engine.executor import MAX_PARTS, Executor, cut
from mlp.engine.program import MAP, ROWS, SUMS, Action, Program, Value, numbers_of, view

from .comparison import by_chance

KINDS = [(MAP, (2, 3, 1)), (MAP, (1, 2, 2)), (ROWS, (3,)), (ROWS, (2, 2)), (ROWS, ()), (SUMS, (2,)), (SUMS, (3, 1))]
repeatable = settings(deadline=None, derandomize=True, max_examples=100)


def nothing(subject):
    pass


class Draft:
    """Actions on values, drawn at random: every value is written before it is read."""

    def __init__(self, draw):
        self.kept = [Value(*kind) for kind in draw(st.lists(st.sampled_from(KINDS[:4]), max_size=2))]
        self.values, self.actions = list(self.kept), []
        for _ in range(draw(st.integers(1, 16))):
            self.actions.append(self._whole(draw) if draw(st.integers(0, 5)) == 0 else self._shard(draw))
        numbers = st.integers(0, len(self.actions))
        self.breaks = sorted(set(draw(st.lists(numbers, max_size=2))))

    def _whole(self, draw):
        return Action(nothing, self._some(draw, self.values), (), "whole", whole=True)

    def _shard(self, draw):
        reads = self._some(draw, [value for value in self.values if value.kind != SUMS])
        new = [Value(*kind) for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))]
        if reads and draw(st.booleans()):
            new[0] = Value(reads[0].kind, reads[0].shape)
        again = [value for value in self.values if value.kind != SUMS and value not in reads]
        rewritten = [draw(st.sampled_from(again))] if again and draw(st.integers(0, 3)) == 0 else []
        self.values += new
        return Action(nothing, reads, (*new, *rewritten), "shard", in_place=draw(st.booleans()))

    @staticmethod
    def _some(draw, values):
        return tuple(draw(st.lists(st.sampled_from(values), max_size=3))) if values else ()

    def program(self):
        return Program(self.actions, self.kept, self.breaks)


drafts = st.composite(Draft)()


def lifetime(draft, value):
    """Return the numbers of the first and the last action that has to do with a value."""
    if value in draft.kept:
        return -1, len(draft.actions)
    used = [i for i, action in enumerate(draft.actions) if value in (*action.reads, *action.writes)]
    return used[0], used[-1]


def handed_over(draft, one, other):
    """Return whether an action in place, the last of the one value and the first of the other, joins the two."""
    (_, last), (first, _) = lifetime(draft, one), lifetime(draft, other)
    if last != first:
        return False
    action = draft.actions[last]
    return action.in_place and action.reads[:1] == (one,) and action.writes[:1] == (other,)


@given(drafts)
@repeatable
def test_values_that_are_needed_at_one_time_never_share_memory(draft):
    program = draft.program()
    used = [value for value in draft.values if value in program.places]
    for one, other in combinations(used, 2):
        if program.places[one] == program.places[other]:
            assert (one.kind, one.shape) == (other.kind, other.shape)
            early, late = sorted((one, other), key=lambda value: lifetime(draft, value))
            apart = lifetime(draft, early)[1] < lifetime(draft, late)[0]
            assert apart or handed_over(draft, early, late)


@given(drafts)
@repeatable
def test_every_value_has_a_place_of_its_kind_and_shape(draft):
    program = draft.program()
    for i, action in enumerate(program.actions):
        assert action is draft.actions[i]
        for value in (*action.reads, *action.writes):
            piece, in_thread = program.pieces[program.places[value].piece]
            assert (piece.kind, piece.shape) == (value.kind, value.shape)
            assert program.places[value].in_thread == in_thread


@given(drafts)
@repeatable
def test_only_what_is_written_and_read_in_one_phase_lives_with_a_thread(draft):
    program = draft.program()
    numbers = [i for i, phase in enumerate(program.phases()) for _ in phase.actions]
    for value, place in program.places.items():
        if place.in_thread:
            first, last = lifetime(draft, value)
            assert value not in draft.kept
            assert value.kind != SUMS
            assert numbers[first] == numbers[last]


@given(drafts)
@repeatable
def test_phases_are_the_actions_in_order_and_start_where_they_must(draft):
    program = draft.program()
    phases = program.phases()
    assert [action for phase in phases for action in phase.actions] == draft.actions
    starts = np.cumsum([0, *(len(phase.actions) for phase in phases)])[:-1].tolist()
    for phase in phases:
        assert phase.whole == any(action.whole for action in phase.actions)
        assert len(phase.actions) == 1 or not phase.whole
    expected = {0} | {i for i in draft.breaks if i < len(draft.actions)}
    expected |= {i for i, action in enumerate(draft.actions) if action.whole or (i and draft.actions[i - 1].whole)}
    assert set(starts) == expected
    for start in starts:
        assert program.phases(0, start) + program.phases(start) == phases


class Simulation:
    """Runs a draft on real memory: every action looks whether it finds what was written last, and writes its mark."""

    def __init__(self, draft, batch, ideal):
        self.draft, self.cut = draft, cut(batch, ideal)
        self.versions = dict.fromkeys(draft.kept, 0)
        actions = [action._replace(run=self._acting(i)) for i, action in enumerate(draft.actions)]
        self.program = Program(actions, draft.kept, draft.breaks)
        self.executor = Executor(self.program, self.cut, np.float64)
        self.executor.take_memory()
        for value in draft.kept:
            for shard, flat in enumerate(self.executor.flat(value)):
                flat[...] = self.mark(value, -1, shard)

    def mark(self, value, version, shard):
        return 10_000.0 * (1 + self.draft.values.index(value)) + 100 * (version + 1) + shard

    def last_write(self, value, before):
        writes = [i for i, action in enumerate(self.draft.actions[:before]) if value in action.writes]
        return writes[-1] if writes else -1

    def _acting(self, i):
        action = self.draft.actions[i]

        def on_shard(shard):
            assert all((framed[[0, -1]] == 0).all() for value, framed in shard.framed.items() if value.kind == MAP)
            for value in action.reads:
                assert (shard.arrays[value] == self.mark(value, self.last_write(value, i), shard.index)).all()
            for value in action.writes:
                mark = self.mark(value, i, shard.index)
                if value.kind == SUMS:
                    shard.add_to(value, np.full(value.shape, mark))
                else:
                    shard.arrays[value][...] = mark

        def on_batch(executor):
            for value in action.reads:
                marks = [self.mark(value, self.last_write(value, i), shard) for shard in range(len(self.cut.sizes))]
                if value.kind == SUMS:
                    assert (executor.total(value) == sum(marks)).all()
                else:
                    for flat, mark in zip(executor.flat(value), marks, strict=True):
                        assert (flat == mark).all()

        return on_batch if action.whole else on_shard

    def check_kept(self):
        for value in self.draft.kept:
            version = self.last_write(value, len(self.draft.actions))
            for shard, flat in enumerate(self.executor.flat(value)):
                assert (flat == self.mark(value, version, shard)).all()
                flat[...] = self.mark(value, -1, shard)


BATCHES = st.tuples(st.integers(1, 60), st.integers(1, 9))


@given(drafts, BATCHES, st.integers(0, 1000))
@repeatable
def test_every_action_finds_what_was_written_last(draft, batch_and_ideal, seed):
    """On real memory, shards of two sizes, parts of several shards, whole and cut at the breaks.

    Whichever thread takes a part: also that there are zeros around a map where shards of another size have been.
    """
    simulation = Simulation(draft, *batch_and_ideal)
    ends = [*(i for i in draft.breaks if i < len(draft.actions)), len(draft.actions)]
    with patch("mlp.engine.executor.run_on_threads", by_chance(seed)):
        for _ in range(2):
            simulation.executor.run(simulation.program.phases())
            simulation.check_kept()
            for start, stop in zip([0, *ends], ends, strict=False):
                simulation.executor.run(simulation.program.phases(start, stop))
            simulation.check_kept()


@given(st.integers(1, 3000), st.integers(-3, 400))
@repeatable
def test_a_batch_is_cut_into_shards_as_equal_as_can_be(batch, ideal):
    sizes, per_part = found = cut(batch, ideal)
    assert sum(sizes) == batch
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(ideal, 1)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert len(sizes) == -(-batch // max(ideal, 1))
    assert found.num_parts == -(-len(sizes) // per_part) <= MAX_PARTS
    assert per_part == 1 or -(-len(sizes) // (per_part - 1)) > MAX_PARTS


def test_an_action_in_place_takes_over_memory_that_nobody_reads_again():
    a, b, c, d = (Value(ROWS, (3,)) for _ in range(4))
    actions = [
        Action(nothing, (), (a,), "a"),
        Action(nothing, (a,), (b,), "b", in_place=True),
        Action(nothing, (b,), (c,), "c", in_place=True),
        Action(nothing, (c, b), (d,), "d", in_place=True),
    ]
    places = Program(actions).places
    assert places[a] == places[b] != places[c] == places[d]
    assert len(Program(actions).pieces) == 2


def test_a_value_takes_the_place_of_one_that_is_not_read_again():
    values = [Value(MAP, (2, 3, 3)) for _ in range(9)]
    first = Action(nothing, (), values[:1], "first")
    rest = [Action(nothing, (x,), (y,), "next") for x, y in pairwise(values)]
    program = Program([first, *rest])
    assert len(program.pieces) == 2
    assert all(place.in_thread for place in program.places.values())


def test_what_is_read_after_an_action_on_the_whole_batch_lives_with_the_batch():
    a, b = Value(ROWS, (3,)), Value(ROWS, (3,))
    actions = [
        Action(nothing, (), (a, b), "both"),
        Action(nothing, (b,), (), "read"),
        Action(nothing, (), (), "whole", whole=True),
        Action(nothing, (a,), (), "later"),
    ]
    places = Program(actions).places
    assert not places[a].in_thread
    assert places[b].in_thread
    assert not Program(actions, kept=[b]).places[b].in_thread
    assert not Program(actions, breaks=[1]).places[b].in_thread


@pytest.mark.parametrize(
    ("kind", "shape", "memory"),
    [
        (MAP, (5, 3, 4), (5, 4, 7, 5)),
        (ROWS, (6,), (7, 6)),
        (ROWS, (), (7,)),
        (ROWS, (2, 3), (7, 2, 3)),
        (SUMS, (2, 3), (2, 3)),
    ],
)
def test_a_map_lies_between_two_rows_of_zeros(kind, shape, memory):
    value = Value(kind, shape)
    assert value.memory_shape(7) == memory
    assert numbers_of(value, 7) == np.prod(memory)
    array = np.zeros(memory)
    assert view(array, value).shape == ((3, 4, 7, 5) if kind == MAP else memory)
    assert np.shares_memory(view(array, value), array)
