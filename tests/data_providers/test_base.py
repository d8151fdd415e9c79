"""The coursework's iteration protocol."""

import numpy as np
import pytest

from mlp import DEFAULT_SEED
from mlp.checks import DTypeError, ShapeError
from mlp.data_providers import DataDamagedError, DataError, DataMissingError, DataProvider, OneOfKDataProvider

N = 23
INPUTS = np.arange(N * 3.0).reshape(N, 3)
TARGETS = np.arange(N) * 10


class Labels(OneOfKDataProvider):
    num_classes = 4


def provider(**kwargs):
    return DataProvider(INPUTS, TARGETS, **{"batch_size": 5, "rng": np.random.RandomState(1), **kwargs})


def targets_of(batches):
    return [t.tolist() for _, t in batches]


def in_fives(order, count=4):
    return [TARGETS[order][5 * i : 5 * i + 5].tolist() for i in range(count)]


def test_without_shuffling_batches_come_in_file_order():
    batches = list(provider(shuffle_order=False))
    assert targets_of(batches) == in_fives(np.arange(N))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), INPUTS[:20])


def test_inputs_and_targets_are_permuted_alike():
    for inputs, targets in provider():
        np.testing.assert_array_equal(inputs, INPUTS[targets // 10])


def test_construction_and_every_epoch_draw_one_permutation_each():
    ours, theirs = np.random.RandomState(1), np.random.RandomState(1)
    p, order = provider(rng=ours), np.arange(N)
    for _ in range(3):
        order = order[theirs.permutation(N)]
        assert targets_of(p) == in_fives(order)
    theirs.permutation(N)
    assert ours.randint(2**31) == theirs.randint(2**31)


def test_without_shuffling_nothing_is_drawn():
    ours = np.random.RandomState(1)
    p = provider(rng=ours, shuffle_order=False)
    list(p)
    p.reset()
    assert ours.randint(2**31) == np.random.RandomState(1).randint(2**31)


def test_a_generator_shuffles_too():
    p = provider(rng=np.random.default_rng(1))
    assert targets_of(p) == in_fives(np.random.default_rng(1).permutation(N))


def test_without_an_rng_the_default_seed_is_used():
    p = provider(rng=None)
    assert targets_of(p) == in_fives(np.random.RandomState(DEFAULT_SEED).permutation(N))


def test_shuffle_permutes_on_top_of_what_was():
    rng = np.random.RandomState(1)
    first, second = rng.permutation(N), rng.permutation(N)
    p = provider()
    p.shuffle()
    np.testing.assert_array_equal(p.targets, TARGETS[first][second])
    np.testing.assert_array_equal(p.inputs, INPUTS[first][second])
    np.testing.assert_array_equal(p._current_order, first[second])


def test_reset_undoes_all_permutations():
    p = provider()
    for _ in range(3):
        list(p)
    p.shuffle_order = False
    p.reset()
    np.testing.assert_array_equal(p.inputs, INPUTS)
    np.testing.assert_array_equal(p.targets, TARGETS)
    np.testing.assert_array_equal(p._current_order, np.arange(N))


def test_reset_shuffles_again_from_the_state_of_the_rng():
    p = provider()
    list(p)
    p.next()
    p.rng.seed(42)
    p.reset()
    assert targets_of(p) == in_fives(np.random.RandomState(42).permutation(N))


def test_reseeding_and_resetting_repeats_the_epochs():
    p, runs = provider(), []
    for _ in range(2):
        p.rng.seed(3)
        p.reset()
        runs.append([targets_of(p) for _ in range(3)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_iter_is_the_provider_itself():
    p = provider()
    assert iter(p) is p


def test_next_as_function_and_as_method_are_the_same():
    p, q = provider(), provider()
    for _ in range(4):
        for ours, theirs in zip(next(p), q.next(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("following", [next, DataProvider.next])
def test_an_epoch_ends_with_a_new_one_and_then_stop_iteration(following):
    p = provider()
    for _ in range(4):
        following(p)
    before = p._current_order.copy()
    with pytest.raises(StopIteration):
        following(p)
    assert p._curr_batch == 0
    assert not np.array_equal(p._current_order, before)
    assert len(list(p)) == 4


def test_new_epoch_starts_again_in_mid_epoch():
    p = provider(shuffle_order=False)
    p.next()
    p.new_epoch()
    assert targets_of(p) == in_fives(np.arange(N))


@pytest.mark.parametrize(("size", "count"), [(1, 23), (5, 4), (11, 2), (12, 1), (23, 1), (24, 0)])
def test_the_incomplete_last_batch_is_dropped(size, count):
    p = provider(batch_size=size)
    assert p.num_batches == count
    assert [x.shape for x, _ in p] == [(size, 3)] * count


@pytest.mark.parametrize(("most", "count"), [(-1, 4), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_max_num_batches_caps_an_epoch(most, count):
    p = provider(max_num_batches=most, shuffle_order=False)
    assert p.num_batches == count
    assert targets_of(p) == in_fives(np.arange(N), count)


def test_setting_the_batch_size_changes_the_number_of_batches():
    p = provider(max_num_batches=3)
    p.batch_size = 10
    assert (p.batch_size, p.num_batches) == (10, 2)
    assert [x.shape for x, _ in p] == [(10, 3)] * 2
    p.batch_size = 2
    assert p.num_batches == 3


def test_setting_max_num_batches_changes_the_number_of_batches():
    p = provider()
    p.max_num_batches = 2
    assert (p.max_num_batches, p.num_batches) == (2, 2)
    p.max_num_batches = -1
    assert p.num_batches == 4


@pytest.mark.parametrize("size", [0, -1, -5])
def test_a_batch_size_below_one_is_a_value_error(size):
    with pytest.raises(ValueError, match="batch_size"):
        provider(batch_size=size)
    p = provider()
    with pytest.raises(ValueError, match="batch_size"):
        p.batch_size = size
    assert (p.batch_size, p.num_batches) == (5, 4)


@pytest.mark.parametrize("most", [0, -2, -10])
def test_max_num_batches_of_zero_or_below_minus_one_is_a_value_error(most):
    with pytest.raises(ValueError, match="max_num_batches"):
        provider(max_num_batches=most)
    p = provider()
    with pytest.raises(ValueError, match="max_num_batches"):
        p.max_num_batches = most
    assert (p.max_num_batches, p.num_batches) == (-1, 4)


@pytest.mark.parametrize("size", [2.0, "5", True, None])
def test_a_batch_size_that_is_no_whole_number_is_a_type_error(size):
    with pytest.raises(TypeError, match="batch_size"):
        provider(batch_size=size)


def test_unequal_numbers_of_inputs_and_targets_are_a_shape_error():
    with pytest.raises(ShapeError, match="23 inputs and 22 targets"):
        DataProvider(INPUTS, TARGETS[:22], 5)


def test_lists_are_a_dtype_error():
    with pytest.raises(DTypeError, match="inputs"):
        DataProvider(INPUTS.tolist(), TARGETS, 5)
    with pytest.raises(DTypeError, match="targets"):
        DataProvider(INPUTS, TARGETS.tolist(), 5)


def test_the_arrays_given_are_not_changed():
    inputs, targets = INPUTS.copy(), TARGETS.copy()
    p = DataProvider(inputs, targets, 5)
    list(p)
    np.testing.assert_array_equal(inputs, INPUTS)
    np.testing.assert_array_equal(targets, TARGETS)


@pytest.mark.parametrize("value", [False, True])
def test_smooth_labels_and_shuffle_order_are_kept_as_attributes(value):
    p = provider(smooth_labels=value, shuffle_order=value)
    assert (p.smooth_labels, p.shuffle_order) == (value, value)


def test_one_of_k_batches_are_one_hot_in_float64():
    labels = np.arange(N, dtype=np.int8) % 4
    for inputs, targets in Labels(INPUTS, labels, 5, rng=np.random.RandomState(0)):
        assert targets.dtype == np.float64
        np.testing.assert_array_equal(targets, np.eye(4)[inputs[:, 0].astype(int) // 3 % 4])


def test_one_of_k_keeps_the_labels_themselves():
    p = Labels(INPUTS, np.arange(N) % 4, 5, shuffle_order=False)
    p.next()
    np.testing.assert_array_equal(p.targets, np.arange(N) % 4)


def test_one_of_k_ends_an_epoch_alike():
    p = Labels(INPUTS, np.arange(N) % 4, 5)
    assert [len(list(p)), len(list(p))] == [4, 4]


def test_to_one_of_k_is_public_and_takes_no_labels_too():
    p = Labels(INPUTS, np.arange(N) % 4, 5)
    np.testing.assert_array_equal(p.to_one_of_k(np.array([3, 0])), [[0, 0, 0, 1], [1, 0, 0, 0]])
    assert p.to_one_of_k(np.array([], int)).shape == (0, 4)


@pytest.mark.parametrize("label", [-1, 4, 100])
def test_labels_outside_the_classes_are_a_shape_error(label):
    with pytest.raises(ShapeError, match=r"outside 0\.\.3"):
        Labels(INPUTS, np.full(N, label), 5).next()


def test_both_data_errors_are_data_errors():
    assert issubclass(DataDamagedError, DataError)
    assert issubclass(DataMissingError, DataError)
