import numpy as np
import pytest

from mlp.kernels.scratch import Scratch


def test_memory_of_one_name_is_used_over_and_over():
    scratch = Scratch()
    first = scratch.empty("a", (3, 4), np.float64)
    first[...] = 7.0
    again = scratch.empty("a", (2, 6), np.float64)
    assert np.shares_memory(first, again)
    assert (again == 7.0).all()
    assert np.shares_memory(scratch.empty("a", (2,), np.float64), first)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_an_array_has_the_shape_and_dtype_that_was_asked_for(shape, dtype):
    scratch = Scratch()
    for ask in (scratch.empty, scratch.zeros):
        array = ask("a", shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_names_dtypes_and_owners_have_memory_of_their_own():
    scratch, other = Scratch(), Scratch()
    arrays = [
        scratch.empty("a", (8,), np.float64),
        scratch.empty("b", (8,), np.float64),
        scratch.empty(("a", 1), (8,), np.float64),
        scratch.empty("a", (8,), np.float32),
        scratch.zeros("a", (8,), np.float64),
        other.empty("a", (8,), np.float64),
        other.zeros("a", (8,), np.float64),
    ]
    for i, one in enumerate(arrays):
        assert not any(np.shares_memory(one, two) for two in arrays[:i])


def test_a_larger_wish_gets_larger_memory_and_old_views_stay_valid():
    scratch = Scratch()
    small = scratch.empty("a", (3,), np.float64)
    small[...] = 1.0
    large = scratch.empty("a", (1000,), np.float64)
    large[...] = 2.0
    assert (small == 1.0).all()
    assert np.shares_memory(scratch.empty("a", (3,), np.float64), large)


def test_zeros_are_zero_at_first_and_belong_to_their_shape():
    scratch = Scratch()
    zeros = scratch.zeros("a", (3, 4), np.float64)
    assert (zeros == 0).all()
    zeros[1:] = 5.0
    assert scratch.zeros("a", (3, 4), np.float64) is zeros
    assert (scratch.zeros("a", (4, 3), np.float64) == 0).all()
    assert (scratch.zeros("a", (3, 4), np.float32) == 0).all()
    assert (scratch.zeros("a", (3, 4), np.float64)[1:] == 5.0).all()


def test_what_is_made_of_the_memory_is_made_once_for_each_key():
    scratch, made = Scratch(), []

    def make():
        made.append(scratch.empty("a", (2,), np.float32))
        return len(made)

    assert [scratch.once(key, make) for key in ("x", "y", "x", "y")] == [1, 2, 1, 2]
