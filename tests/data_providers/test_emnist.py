"""EMNIST from the original idx files, and what of the coursework's npz files the contract leaves open."""

import gzip

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError, DataMissingError, EMNISTDataProvider, emnist, load_emnist

from .test_mnist import idx

VALID = 7
PREFIXES = {"train": "train", "valid": "train", "test": "test"}


@pytest.fixture(autouse=True)
def _small_parts(folder, monkeypatch):
    parts = {"train": ("train", slice(0, -VALID)), "valid": ("train", slice(-VALID, None))}
    monkeypatch.setattr(emnist, "PARTS", parts | {"test": ("test", slice(None))})


def characters(count=30, seed=0):
    """Upright images (N, 28, 28), and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 47, count, dtype=np.uint8)


def on_their_side(images):
    """Row y, column x of an image, in row x, column y."""
    turned = np.empty_like(images)
    for y in range(28):
        for x in range(28):
            turned[:, x, y] = images[:, y, x]
    return turned


def paths(folder, prefix, suffix=""):
    return [folder / f"emnist-balanced-{prefix}-{kind}-ubyte{suffix}" for kind in ("images-idx3", "labels-idx1")]


def write(folder, images, labels, prefix="test", suffix=""):
    """Write the original files, whose images lie on their side."""
    for path, array in zip(paths(folder, prefix, suffix), (on_their_side(images), labels), strict=True):
        path.write_bytes(gzip.compress(idx(array), mtime=0) if suffix else idx(array))


def write_npz(folder, images, labels, which_set="test"):
    np.savez(folder / f"emnist-{which_set}.npz", inputs=images, targets=labels)
    return folder / f"emnist-{which_set}.npz"


def assert_right(loaded, images, labels):
    inputs, targets = loaded
    assert (inputs.dtype, targets.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(inputs, [[k / 255 for k in image.ravel().tolist()] for image in images], rtol=1e-7)
    np.testing.assert_array_equal(targets, labels)


def assert_damaged(path, which_set="test"):
    before = path.read_bytes()
    with pytest.raises(DataDamagedError) as caught:
        load_emnist(which_set)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
def test_the_original_files_give_upright_images(folder, suffix):
    images, labels = characters()
    write(folder, images, labels, suffix=suffix)
    assert_right(load_emnist("test"), images, labels)


def test_a_pixel_of_the_first_row_and_second_column_is_input_1(folder):
    original = np.zeros((1, 28, 28), np.uint8)
    original[0, 1, 0] = 255  # the file's second row, first column
    for path, array in zip(paths(folder, "test"), (original, np.array([46], np.uint8)), strict=True):
        path.write_bytes(idx(array))
    inputs, labels = load_emnist("test")
    assert np.flatnonzero(inputs[0]).tolist() == [1]
    assert (inputs[0, 1], labels[0]) == (1.0, 46)


@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
def test_the_last_training_images_validate(folder, suffix):
    images, labels = characters()
    write(folder, images, labels, "train", suffix)
    write(folder, *characters(seed=1), "test", suffix)
    assert_right(load_emnist("train"), images[:-VALID], labels[:-VALID])
    assert_right(load_emnist("valid"), images[-VALID:], labels[-VALID:])


def test_the_paper_s_validation_set_has_18800_images(monkeypatch):
    monkeypatch.undo()
    assert {name: (prefix, part) for name, (prefix, part) in emnist.PARTS.items()} == {
        "train": ("train", slice(0, -18_800)),
        "valid": ("train", slice(-18_800, None)),
        "test": ("test", slice(None)),
    }


@pytest.mark.parametrize("which_set", PREFIXES)
def test_the_coursework_s_file_goes_before_the_original_ones(folder, which_set):
    images, labels = characters()
    write_npz(folder, images, labels, which_set)
    write(folder, *characters(seed=1), PREFIXES[which_set])
    assert_right(load_emnist(which_set), images, labels)


def test_another_set_s_npz_does_not_stand_in_the_way(folder):
    images, labels = characters()
    write_npz(folder, *characters(seed=1), "train")
    write(folder, images, labels)
    assert_right(load_emnist("test"), images, labels)


def test_a_plain_file_goes_before_a_packed_one(folder):
    images, labels = characters()
    write(folder, images, labels)
    write(folder, *characters(seed=1), suffix=".gz")
    assert_right(load_emnist("test"), images, labels)


def test_a_given_folder_goes_before_the_environment(folder, tmp_path):
    images, labels = characters()
    (tmp_path / "given").mkdir()
    write(tmp_path / "given", images, labels)
    write(folder, *characters(seed=1))
    assert_right(load_emnist("test", tmp_path / "given"), images, labels)
    assert_right(load_emnist("test", str(tmp_path / "given")), images, labels)
    p = EMNISTDataProvider("test", 30, shuffle_order=False, data_dir=tmp_path / "given")
    np.testing.assert_array_equal(p.targets, labels)


def test_the_provider_reads_the_original_files(folder):
    images, labels = characters()
    write(folder, images, labels, "train", ".gz")
    p = EMNISTDataProvider("train", 23, shuffle_order=False, flatten=False)
    inputs, targets = p.next()
    np.testing.assert_allclose(inputs, images[:23, None] / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(targets, np.eye(47)[labels[:23]])


@pytest.mark.parametrize("which_set", PREFIXES)
def test_what_is_missing_is_told_with_every_place_looked_in(folder, tmp_path, which_set):
    with pytest.raises(DataMissingError) as caught:
        EMNISTDataProvider(which_set, data_dir=tmp_path / "given")
    text = str(caught.value)
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place / f"emnist-{which_set}.npz") in text
    assert f"emnist-balanced-{PREFIXES[which_set]}-images-idx3-ubyte.gz" in text
    assert emnist.SOURCE in text


@pytest.mark.parametrize(("name", "value"), [("smooth_labels", 1), ("flatten", None), ("flatten", "no")])
def test_flags_are_true_or_false(folder, name, value):
    write_npz(folder, *characters())
    with pytest.raises(TypeError, match=f"EMNISTDataProvider: {name}"):
        EMNISTDataProvider("test", **{name: value})


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_labels_are_smoothed_by_a_share(folder, alpha):
    write_npz(folder, *characters())
    with pytest.raises(ValueError, match="alpha"):
        EMNISTDataProvider("test").label_smoothing(np.array([1]), alpha)


@pytest.mark.parametrize("suffix", ["", ".gz"], ids=["plain", "gz"])
@pytest.mark.parametrize("which", [0, 1], ids=["images", "labels"])
def test_a_truncated_file_is_damaged(folder, suffix, which):
    write(folder, *characters(), suffix=suffix)
    path = paths(folder, "test", suffix)[which]
    data = path.read_bytes()
    for length in (0, 3, 4, 7, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert_damaged(path)


@pytest.mark.parametrize("which", [0, 1], ids=["images", "labels"])
@pytest.mark.parametrize("what", ["no gz", "checksum", "stream"])
def test_a_damaged_packed_file_is_damaged(folder, which, what):
    write(folder, *characters(), suffix=".gz")
    path = paths(folder, "test", ".gz")[which]
    data = bytearray(path.read_bytes())
    if what == "no gz":
        data = b"no archive" * 100
    elif what == "checksum":
        data[-5] ^= 1
    else:
        data[10] = 7  # a kind of block that deflate does not know
    path.write_bytes(data)
    assert_damaged(path)


IMAGES, LABELS = characters()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES, LABELS[:-1]),
        (IMAGES[:-1], LABELS),
        (IMAGES[:, :27, :27], LABELS),
        (IMAGES, LABELS.reshape(30, 1)),
        (IMAGES, LABELS + 47),
        (IMAGES[:0], LABELS[:0]),
        (IMAGES.reshape(30, 784), LABELS),
        (LABELS, LABELS),
    ],
    ids=lambda array: "x".join(map(str, array.shape)),
)
def test_files_that_do_not_fit_are_damaged(folder, images, labels):
    for path, array in zip(paths(folder, "test"), (images, labels), strict=True):
        path.write_bytes(idx(array))
    with pytest.raises(DataDamagedError) as caught:
        load_emnist("test")
    assert str(folder / "emnist-balanced-test-") in str(caught.value)


def test_images_without_their_labels_are_told_by_name(folder):
    write(folder, IMAGES, LABELS)
    labels = paths(folder, "test")[1]
    labels.unlink()
    with pytest.raises((DataDamagedError, DataMissingError)) as caught:
        load_emnist("test")
    assert str(labels) in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (IMAGES[:29], LABELS),
        (IMAGES[:, :27], LABELS),
        (IMAGES, LABELS + 47),
        (IMAGES, LABELS.astype(np.int8) - 47),
        (IMAGES, LABELS.astype(float)),
        (IMAGES, np.eye(47)[LABELS]),
        (IMAGES.astype("U3"), LABELS),
        (IMAGES[:0], LABELS[:0]),
        (np.array(1.0), np.array(3)),
    ],
    ids=lambda array: f"{array.dtype} {'x'.join(map(str, array.shape))}",
)
def test_an_npz_of_other_arrays_is_damaged(folder, inputs, targets):
    assert_damaged(write_npz(folder, inputs, targets))


def test_an_npz_that_is_none_is_damaged_though_the_original_files_are_whole(folder):
    write(folder, IMAGES, LABELS)
    (folder / "emnist-test.npz").write_bytes(b"garbage" * 100)
    assert_damaged(folder / "emnist-test.npz")
