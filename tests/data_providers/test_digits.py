"""Scikit-learn's digits as colour images."""

import sys

import numpy as np
import pytest
from sklearn import datasets

from mlp.data_providers import DataMissingError, load_digits


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def parts(data):
    return data.train, data.valid, data.test


def test_the_parts_have_their_sizes_and_types(digits):
    for part, count in zip(parts(digits), (1297, 250, 250), strict=True):
        assert part.pixels.shape == (count, 32, 32, 3)
        assert part.pixels.dtype == np.uint8
        assert part.labels.shape == (count,)
        assert part.labels.dtype == np.int64


def test_the_parts_are_disjoint_and_make_up_the_whole(digits):
    bunch = datasets.load_digits()
    rows = [
        (np.rint(p[::4, ::4, 0] / 255 * 16).astype(int).tobytes(), int(t))
        for part in parts(digits)
        for p, t in zip(*part, strict=True)
    ]
    expected = [(i.astype(int).tobytes(), int(t)) for i, t in zip(bunch.images, bunch.target, strict=True)]
    assert sorted(rows) == sorted(expected)


def test_every_pixel_is_a_grey_block_of_four_by_four(digits):
    for part in parts(digits):
        blocks = part.pixels.reshape(-1, 8, 4, 8, 4, 3)
        assert (blocks == blocks[:, :, :1, :, :1, :1]).all()
        assert part.pixels.min() == 0
        assert part.pixels.max() == 255


def test_mean_and_deviation_are_those_of_the_training_images(digits):
    pixels = digits.train.pixels / 255
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=0, atol=1e-3)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=0, atol=1e-3)


def test_every_part_holds_every_digit(digits):
    assert digits.class_names == tuple("0123456789")
    for part in parts(digits):
        assert set(part.labels.tolist()) == set(range(10))


def test_loading_again_gives_the_same(digits):
    np.random.seed(5)
    assert load_digits().fingerprint() == digits.fingerprint()


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataMissingError, match=r"pip install scikit-learn"):
        load_digits()
