"""The data set that the library draws."""

import hashlib

import numpy as np
import pytest

from mlp.data_providers import load_shapes
from mlp.data_providers.shapes import CLASS_NAMES, draw_shapes

SHA_256 = "2d41168e7524eaafefef2ea6cae235a27dd6ca1d76a2e1020cd8e04d09cf1049"


@pytest.fixture(scope="module")
def shapes():
    return load_shapes()


def test_a_draw_is_the_same_for_everyone():
    images = draw_shapes(200)
    digest = hashlib.sha256(images.pixels.tobytes() + images.labels.astype("<i8").tobytes())
    assert digest.hexdigest() == SHA_256


def test_a_draw_does_not_depend_on_the_global_random_state():
    np.random.seed(0)
    first = draw_shapes(20)
    np.random.seed(1)
    np.testing.assert_array_equal(draw_shapes(20).pixels, first.pixels)


def test_the_name_is_the_seed():
    train, valid = draw_shapes(100, "train"), draw_shapes(100, "valid")
    assert not np.array_equal(train.labels, valid.labels)
    assert not np.array_equal(train.pixels, valid.pixels)


def test_there_are_100_classes_with_names_of_their_own():
    assert len(set(CLASS_NAMES)) == 100
    assert CLASS_NAMES[0] == "plain red disc"
    assert CLASS_NAMES[99] == "dotted violet ring"


@pytest.mark.parametrize("count", [100, 250])
def test_a_draw_holds_classes_in_equal_parts(count):
    counts = np.bincount(draw_shapes(count).labels, minlength=100)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == count


def test_the_parts_have_their_sizes_and_types(shapes):
    for part, count in ((shapes.train, 10_000), (shapes.valid, 1_000), (shapes.test, 1_000)):
        assert part.pixels.shape == (count, 32, 32, 3)
        assert part.pixels.dtype == np.uint8
        assert part.labels.shape == (count,)
        assert part.labels.dtype == np.int64


def test_every_part_is_balanced(shapes):
    for part in (shapes.train, shapes.valid, shapes.test):
        assert set(np.bincount(part.labels, minlength=100).tolist()) == {len(part.labels) // 100}


def test_labels_are_shuffled(shapes):
    assert (np.diff(shapes.train.labels) == 1).mean() < 0.05


def test_no_image_is_in_two_parts(shapes):
    rows = [p.tobytes() for part in (shapes.train, shapes.valid, shapes.test) for p in part.pixels]
    assert len(set(rows)) == 12_000


def test_mean_and_deviation_are_those_of_the_training_images(shapes):
    pixels = shapes.train.pixels.astype(np.float64) / 255
    np.testing.assert_allclose(shapes.mean, pixels.mean((0, 1, 2)), rtol=0, atol=1e-3)
    np.testing.assert_allclose(shapes.std, pixels.std((0, 1, 2)), rtol=0, atol=1e-3)


def test_the_data_set_has_its_name_and_classes(shapes):
    assert shapes.name == "shapes"
    assert shapes.class_names == CLASS_NAMES
    assert shapes.num_classes == 100


def test_the_middle_of_a_plain_disc_has_its_colour():
    images = draw_shapes(1000)
    middles = images.pixels[:, 12:20, 12:20].mean((1, 2))
    for name, channel in (("red", 0), ("green", 1), ("blue", 2)):
        label = CLASS_NAMES.index(f"plain {name} disc")
        assert (middles[images.labels == label].argmax(1) == channel).all()


def test_loading_twice_draws_once(shapes):
    assert load_shapes() is shapes
