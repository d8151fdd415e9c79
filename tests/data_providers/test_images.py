"""Image sets, their batches and their splits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp.checks import DTypeError, ShapeError
from mlp.data_providers import ImageData, ImageDataProvider, ImageSet, crop_and_flip, split

repeatable = settings(derandomize=True, deadline=None, max_examples=60)

MEAN, STD = (0.49, 0.48, 0.44), (0.2, 0.19, 0.21)


def image_set(count=23, height=5, width=4, seed=0, classes=7):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return ImageSet(pixels, rng.permutation(np.arange(count) % classes))


def image_data():
    sets = (image_set(count, seed=seed) for seed, count in enumerate((12, 5, 6)))
    return ImageData("name", *sets, tuple("abcdefg"), MEAN, STD, "here")


def provider(images=None, **kwargs):
    return ImageDataProvider(images or image_set(), **{"batch_size": 5, "mean": MEAN, "std": STD, **kwargs})


def normalised(image):
    """One image (H, W, C) as a network sees it, number by number in float64."""
    height, width, channels = image.shape
    out = np.empty((channels, height, width))
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                out[c, y, x] = (int(image[y, x, c]) / 255 - MEAN[c]) / STD[c]
    return out


def assert_batches_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for (x, t), (y, u) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(t, u)


def assert_disjoint_and_whole(images, *parts):
    """Every image, known by its unique pixels, is in exactly one part, with its label."""
    rows = [(p.tobytes(), int(t)) for part in parts for p, t in zip(*part, strict=True)]
    assert sorted(rows) == sorted((p.tobytes(), int(t)) for p, t in zip(*images, strict=True))


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_normalised_images(shuffle):
    images = image_set()
    p = provider(images, shuffle_order=shuffle, seed=3)
    order = p.order(0)
    for index, (inputs, labels) in enumerate(p):
        chosen = order[5 * index : 5 * index + 5]
        np.testing.assert_allclose(inputs, [normalised(images.pixels[i]) for i in chosen], rtol=0, atol=2e-6)
        assert labels.tolist() == [images.labels[i] for i in chosen]


def test_augmented_batches_are_cropped_and_flipped_before_normalisation():
    images = image_set()
    p = provider(images, shuffle_order=True, augment=True, seed=3)
    for index in range(p.num_batches):
        chosen = p.order(2)[5 * index : 5 * index + 5]
        cropped = crop_and_flip(images.pixels[chosen], chosen, 3, 2)
        inputs, labels = p.batch(2, index)
        np.testing.assert_allclose(inputs, [normalised(image) for image in cropped], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(labels, images.labels[chosen])


def test_an_augmented_image_does_not_depend_on_its_batch():
    images = image_set()
    runs = [{}, {}]
    for run, size in zip(runs, (5, 4), strict=True):
        p = provider(images, batch_size=size, augment=True, shuffle_order=size == 5, seed=1)
        for index in range(p.num_batches):
            for i, x in zip(p.order(0)[size * index : size * index + size], p.batch(0, index)[0], strict=True):
                run[int(i)] = x.tobytes()
    assert runs[0] == runs[1]
    assert len(runs[0]) == 23


def test_batches_are_float32_with_memory_channels_last():
    inputs, labels = provider().batch(0, 0)
    assert inputs.dtype == np.float32
    assert inputs.shape == (5, 3, 5, 4)
    assert inputs.transpose(0, 2, 3, 1).flags.c_contiguous
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("size", "shapes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (24, [23]), (1, [1] * 23), (22, [22, 1])]
)
def test_the_incomplete_last_batch_is_included(size, shapes):
    p = provider(batch_size=size)
    assert p.num_batches == len(shapes)
    assert [len(x) for x, _ in p] == shapes
    assert [len(t) for _, t in p] == shapes


def test_without_shuffling_every_epoch_is_in_file_order():
    p = provider()
    for epoch in (0, 1, 7):
        np.testing.assert_array_equal(p.order(epoch), np.arange(23))


def test_the_order_is_a_permutation_of_seed_and_epoch_alone():
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1, 2):
            orders[seed, epoch] = provider(seed=seed, shuffle_order=True).order(epoch).tolist()
            assert sorted(orders[seed, epoch]) == list(range(23))
    assert len({tuple(order) for order in orders.values()}) == 6
    other = provider(image_set(seed=9), seed=1, shuffle_order=True, batch_size=2, augment=True)
    for epoch in (2, 0, 1, 2):
        assert other.order(epoch).tolist() == orders[1, epoch]


@pytest.mark.parametrize("augment", [False, True])
def test_any_batch_at_any_time_equals_iteration(augment):
    images = image_set()
    iterated = provider(images, shuffle_order=True, augment=augment, seed=5)
    epochs = [list(iterated) for _ in range(3)]
    random_access = provider(images, shuffle_order=True, augment=augment, seed=5)
    for epoch in (2, 0, 1):
        batches = [random_access.batch(epoch, index) for index in (4, 0, 3, 1, 2)]
        assert_batches_equal([batches[i] for i in (1, 3, 4, 2, 0)], epochs[epoch])


def test_iterating_gives_one_epoch_after_the_other():
    images = image_set()
    p, q = (provider(images, shuffle_order=True) for _ in range(2))
    for epoch in range(3):
        assert_batches_equal(list(p), [q.batch(epoch, index) for index in range(5)])
    assert p.epoch == 3


def test_a_run_goes_on_in_the_epoch_it_is_set_to():
    images = image_set()
    p, q = (provider(images, shuffle_order=True, augment=True) for _ in range(2))
    list(p), list(p)
    q.epoch = 2
    assert_batches_equal(list(p), list(q))


def test_batches_leave_the_images_as_they_are():
    images = image_set()
    before = images.pixels.copy(), images.labels.copy()
    for inputs, labels in provider(images, augment=True):
        inputs[:] = 0
        labels[:] = 0
    np.testing.assert_array_equal(images.pixels, before[0])
    np.testing.assert_array_equal(images.labels, before[1])


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_a_value_error(size):
    with pytest.raises(ValueError, match="batch_size"):
        provider(batch_size=size)


def test_wrong_shapes_are_shape_errors():
    images = image_set()
    with pytest.raises(ShapeError, match="axis 3 is 3, not 1"):
        provider(images, mean=(0.5,), std=(0.5,))
    with pytest.raises(ShapeError, match="labels"):
        provider(ImageSet(images.pixels, images.labels[:-1]))
    with pytest.raises(DTypeError, match="pixels"):
        provider(ImageSet(images.pixels.tolist(), images.labels))


def test_the_split_is_the_choice_of_random_state_zero():
    images = image_set(40)
    train, valid = split(images, 38)
    chosen = np.random.RandomState(0).choice(40, 38, replace=False)
    rest = sorted(set(range(40)) - set(chosen.tolist()))
    for part, indices in ((train, chosen), (valid, rest)):
        np.testing.assert_array_equal(part.pixels, images.pixels[indices])
        np.testing.assert_array_equal(part.labels, images.labels[indices])


def test_the_split_of_the_report_has_its_first_and_last_images():
    images = ImageSet(np.zeros((50_000, 1), np.uint8), np.arange(50_000))
    train, valid = split(images, 47_500)
    chosen = np.random.RandomState(0).choice(50_000, 47_500, replace=False)
    np.testing.assert_array_equal(train.labels, chosen)
    np.testing.assert_array_equal(valid.labels, np.setdiff1d(np.arange(50_000), chosen))
    assert len(valid.labels) == 2_500


@pytest.mark.parametrize("stratified", [False, True])
def test_a_split_is_disjoint_whole_and_always_the_same(stratified):
    images = image_set(60)
    parts = split(images, 50, stratified)
    assert [len(part.labels) for part in parts] == [50, 10]
    assert_disjoint_and_whole(images, *parts)
    np.random.seed(1)
    for ours, again in zip(parts, split(images, 50, stratified), strict=True):
        np.testing.assert_array_equal(ours.pixels, again.pixels)
        np.testing.assert_array_equal(ours.labels, again.labels)


@repeatable
@given(st.data(), st.booleans())
def test_a_split_of_any_size_is_disjoint_whole_and_in_proportion(data, stratified):
    labels = np.array(data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=80)))
    num_train = data.draw(st.integers(1, len(labels) - 1))
    images = ImageSet(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    parts = split(images, num_train, stratified)
    assert [len(part.labels) for part in parts] == [num_train, len(labels) - num_train]
    assert_disjoint_and_whole(images, *parts)
    assert (np.diff(parts[1].pixels.ravel().astype(int)) > 0).all()
    if stratified:
        shares = np.bincount(labels) * num_train / len(labels)
        assert abs(np.bincount(parts[0].labels, minlength=len(shares)) - shares).max() <= 1


TABLE = np.arange(256, dtype=np.float32)


@repeatable
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 2**32), st.integers(0, 100), st.booleans())
def test_without_augment_any_batch_is_the_plain_image_to_the_bit(count, size, seed, epoch, shuffle):
    """Whatever seed, epoch, order and batch: a byte of a channel is one number, and stays where it is."""
    images = image_set(count)
    p = provider(images, batch_size=size, seed=seed, shuffle_order=shuffle)
    numbers = [TABLE * p.scale[c] - p.shift[c] for c in range(3)]
    plain = np.stack([numbers[c][images.pixels[..., c]] for c in range(3)], axis=1)
    batches = [p.batch(epoch, index) for index in range(p.num_batches)]
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in batches]), plain[p.order(epoch)])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), images.labels[p.order(epoch)])
    assert plain.dtype == np.float32


def test_a_stratified_split_of_equal_classes_is_exactly_proportional():
    images = image_set(200, classes=10)
    train, valid = split(images, 190, stratified=True)
    assert np.bincount(train.labels).tolist() == [19] * 10
    assert np.bincount(valid.labels).tolist() == [1] * 10


def test_a_stratified_split_of_unequal_classes_is_proportional_to_one_image():
    labels = np.repeat(np.arange(4), (10, 37, 53, 100))
    images = ImageSet(np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1), labels)
    for num_train in (50, 101, 190):
        train, valid = split(images, num_train, stratified=True)
        assert len(train.labels) == num_train
        shares = np.bincount(labels) * num_train / 200
        assert abs(np.bincount(train.labels, minlength=4) - shares).max() <= 1
        assert_disjoint_and_whole(images, train, valid)


def test_the_plain_split_is_not_stratified():
    train, _ = split(image_set(200, classes=10), 100)
    assert len(set(np.bincount(train.labels).tolist())) > 1


def test_take_keeps_images_and_labels_together():
    images = image_set()
    taken = images.take(np.array([3, 1, 3]))
    np.testing.assert_array_equal(taken.pixels, images.pixels[[3, 1, 3]])
    np.testing.assert_array_equal(taken.labels, images.labels[[3, 1, 3]])


def test_limited_keeps_the_first_training_images_and_all_others():
    data = image_data()
    limited = data.limited(5)
    np.testing.assert_array_equal(limited.train.pixels, data.train.pixels[:5])
    np.testing.assert_array_equal(limited.train.labels, data.train.labels[:5])
    assert limited.valid is data.valid
    assert limited.test is data.test
    assert len(data.train.labels) == 12


def test_limited_to_none_or_to_more_is_everything():
    data = image_data()
    assert data.limited(None) is data
    assert data.limited(1000).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("limit", [0, -3])
def test_limited_to_less_than_one_is_a_value_error(limit):
    with pytest.raises(ValueError, match="train_limit"):
        image_data().limited(limit)


def test_num_classes_counts_the_names():
    assert image_data().num_classes == 7


def test_the_fingerprint_is_that_of_pixels_and_labels_alone():
    data = image_data()
    fingerprint = data.fingerprint()
    assert fingerprint == image_data().fingerprint()
    assert fingerprint == replace(data, name="other", source="there").fingerprint()
    assert len(fingerprint) == 64


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("field", ["pixels", "labels"])
def test_one_pixel_or_label_changes_the_fingerprint(part, field):
    data = image_data()
    images = getattr(data, part)
    changed = getattr(images, field).copy()
    changed.flat[-1] ^= 1
    assert replace(data, **{part: images._replace(**{field: changed})}).fingerprint() != data.fingerprint()


def test_another_order_changes_the_fingerprint():
    data = image_data()
    assert replace(data, train=data.train.take(slice(None, None, -1))).fingerprint() != data.fingerprint()


def test_the_fingerprint_does_not_depend_on_the_memory_order():
    data = image_data()
    pixels = np.asfortranarray(data.train.pixels)
    assert replace(data, train=data.train._replace(pixels=pixels)).fingerprint() == data.fingerprint()
