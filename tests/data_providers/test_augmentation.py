"""Crops and flips against one image at a time."""

import numpy as np
import pytest

from mlp.checks import DTypeError, ShapeError
from mlp.data_providers import crop_and_flip

from ..test_rng import chi_square, hash_of_one


def pixels_of(count, height=8, width=7, channels=3, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, height, width, channels), dtype=np.uint8)


def crop(image, top, left, flip, padding=4):
    """The crop at (top, left) of the padded image, mirrored if `flip`, pixel by pixel."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, col = y + top - padding, x + left - padding
            if 0 <= row < height and 0 <= col < width:
                out[y, width - 1 - x if flip else x] = image[row, col]
    return out


def drawn(sample, seed, epoch, padding=4):
    words = [hash_of_one(seed, "augmentation", epoch, sample, draw) >> 32 for draw in range(3)]
    return tuple(word * high >> 32 for word, high in zip(words, (2 * padding + 1, 2 * padding + 1, 2), strict=True))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (7, 99), (123456, 3)])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_it_equals_a_loop_over_images_and_pixels(seed, epoch, padding):
    samples = np.array([0, 1, 17, 49_999, 5, 47_499, 2, 3, 4, 100])
    pixels = pixels_of(len(samples))
    expected = [
        crop(image, *drawn(sample, seed, epoch, padding), padding)
        for image, sample in zip(pixels, samples.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(crop_and_flip(pixels, samples, seed, epoch, padding), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 2), (9, 3, 1), (32, 32, 3)])
def test_any_height_width_and_channels_will_do(shape):
    pixels = pixels_of(6, *shape)
    expected = [crop(image, *drawn(sample, 0, 0)) for sample, image in enumerate(pixels)]
    np.testing.assert_array_equal(crop_and_flip(pixels, np.arange(6), 0, 0), expected)


def test_the_images_are_left_alone_and_come_back_as_uint8():
    pixels = pixels_of(5)
    before = pixels.copy()
    out = crop_and_flip(pixels, np.arange(5), 0, 0)
    out[:] = 0
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)


def test_it_does_not_depend_on_the_order_of_the_batch():
    pixels, order = pixels_of(40), np.random.default_rng(1).permutation(40)
    out = crop_and_flip(pixels, np.arange(40), 3, 4)
    np.testing.assert_array_equal(crop_and_flip(pixels[order], order, 3, 4), out[order])


def test_it_does_not_depend_on_the_rest_of_the_batch():
    pixels = pixels_of(40)
    out = crop_and_flip(pixels, np.arange(40), 3, 4)
    for first, last in ((0, 1), (1, 8), (8, 39), (39, 40)):
        part = crop_and_flip(pixels[first:last], np.arange(first, last), 3, 4)
        np.testing.assert_array_equal(part, out[first:last])


def test_the_same_sample_twice_in_a_batch_is_treated_alike():
    pixels = np.repeat(pixels_of(1), 3, axis=0)
    out = crop_and_flip(pixels, np.array([5, 5, 5]), 0, 0)
    np.testing.assert_array_equal(out[0], out[1])
    np.testing.assert_array_equal(out[0], out[2])


def test_epoch_and_seed_and_sample_change_it():
    pixels = pixels_of(50)
    outs = [crop_and_flip(pixels, np.arange(50) + shift, seed, epoch) for seed, epoch, shift in TRIPLES]
    for i in range(len(outs)):
        for j in range(i):
            same = (outs[i] == outs[j]).all(axis=(1, 2, 3)).sum()
            assert same < 8, (TRIPLES[i], TRIPLES[j])


TRIPLES = ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 50))


def test_the_padding_is_zeros():
    out = crop_and_flip(pixels_of(500), np.arange(500), 0, 0)
    for sample, image in enumerate(out):
        top, left, flip = drawn(sample, 0, 0)
        inside = np.zeros((8, 7), bool)
        inside[max(0, 4 - top) : 12 - top, max(0, 4 - left) : 11 - left] = True
        inside = inside[:, ::-1] if flip else inside
        assert not image[~inside].any()
        assert image[inside].all()


def test_all_81_crops_and_both_flips_come_about_equally_often():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
    keys = {
        crop(image[0], top, left, flip).tobytes(): (top * 9 + left) * 2 + flip
        for top in range(9)
        for left in range(9)
        for flip in range(2)
    }
    assert len(keys) == 162
    for seed, epoch in ((0, 0), (1, 50)):
        out = crop_and_flip(np.repeat(image, 16_200, axis=0), np.arange(16_200), seed, epoch)
        counts = np.bincount([keys[crop.tobytes()] for crop in out], minlength=162).reshape(81, 2)
        for table in (counts, counts.sum(1), counts.sum(0)):
            freedom = table.size - 1
            assert chi_square(table) < freedom + 4 * np.sqrt(2 * freedom)


def test_wrong_shapes_are_shape_errors():
    pixels = pixels_of(5)
    with pytest.raises(ShapeError, match="samples"):
        crop_and_flip(pixels, np.arange(4), 0, 0)
    with pytest.raises(ShapeError, match="pixels"):
        crop_and_flip(pixels[0], np.arange(5), 0, 0)
    with pytest.raises(DTypeError, match="samples"):
        crop_and_flip(pixels, [0, 1, 2, 3, 4], 0, 0)
