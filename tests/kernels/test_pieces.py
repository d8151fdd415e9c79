import copy
import pickle

import numpy as np
import pytest

from mlp.kernels import Pieces, chunks, zeros_like_all

SHAPES = [(2, 3), (), (4,), (1, 2, 2)]


@pytest.fixture
def pieces():
    return Pieces(np.arange(15.0), SHAPES)


def test_pieces_are_views_in_order(pieces):
    assert [piece.shape for piece in pieces] == SHAPES
    np.testing.assert_array_equal(np.concatenate([piece.ravel() for piece in pieces]), np.arange(15.0))
    pieces[2][1] = -1.0
    assert pieces.flat[8] == -1.0


@pytest.mark.parametrize(
    "change",
    [
        lambda pieces: pieces.__setitem__(0, pieces[0].copy()),
        lambda pieces: pieces.append(np.ones(2)),
        lambda pieces: pieces.pop(),
        lambda pieces: pieces.reverse(),
    ],
)
def test_a_changed_list_has_no_flat_array(pieces, change):
    change(pieces)
    assert pieces.flat is None


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda pieces: pickle.loads(pickle.dumps(pieces))])
def test_a_copy_is_a_list_of_arrays(pieces, copied):
    other = copied(pieces)
    assert type(other) is list
    for mine, its in zip(pieces, other, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_zeros_are_pieces_where_all_arrays_are_of_one_kind():
    zeros = zeros_like_all([np.ones(shape, np.float32) for shape in SHAPES])
    assert zeros.flat.dtype == np.float32
    assert [(zero.shape, zero.any()) for zero in zeros] == [(shape, False) for shape in SHAPES]
    mixed = zeros_like_all([np.ones(2), np.ones(3, np.float32)])
    assert type(mixed) is list
    assert [zero.dtype for zero in mixed] == [np.float64, np.float32]
    assert zeros_like_all([]) == []


@pytest.mark.parametrize("length", [0, 1, 49_152, 49_153, 89_610, 338_500])
def test_chunks_cover_all_once_in_equal_parts(length):
    parts = chunks(length)
    np.testing.assert_array_equal(np.concatenate([np.arange(length)[part] for part in parts]), np.arange(length))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= 73_728
