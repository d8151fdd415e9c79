"""MNIST from the coursework's files and from the original ones."""

import gc
import gzip
import hashlib
import io
import sys
import zipfile

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError, DataMissingError, MNISTDataProvider, download, load_mnist, mnist

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """One folder to put files in, found by $MLP_DATA_DIR; nothing else is found and nothing can be downloaded."""
    folder = tmp_path / "place"
    for name in ("place", "work", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLP_DATA_DIR", str(folder))
    monkeypatch.setattr(download, "user_cache", lambda: tmp_path / "cache")

    def fetch(remote, folder=None, quiet=False):
        raise DataMissingError(f"{remote.url} could not be downloaded (no network).")

    monkeypatch.setattr(mnist, "fetch", fetch)
    return folder


def digits(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8)


def idx(array):
    """The idx file of a uint8 array: 0, 0, 8, the number of axes, the lengths in 4 bytes, the data."""
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_idx(place, images, labels, prefix="t10k"):
    (place / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
    (place / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))


def write_gz(monkeypatch, place, name, data):
    """Write a packed file and make it the official one, by its size and its checksums."""
    name, packed = f"{name}.gz", gzip.compress(data, mtime=0)
    sums = {"md5": hashlib.md5(packed).hexdigest(), "sha256": hashlib.sha256(packed).hexdigest()}
    official = mnist.IDX_FILES[name]._replace(size=len(packed), **sums)
    monkeypatch.setitem(mnist.IDX_FILES, name, official)
    (place / name).write_bytes(packed)
    return place / name


def write_npz(place, images, labels, which_set="test", **changes):
    """Write the coursework's file: inputs k / 256 in float16, targets in int8."""
    arrays = {"inputs": (images.reshape(-1, 784) / 256.0).astype(np.float16), "targets": labels.astype(np.int8)}
    path = place / f"mnist-{which_set}.npz"
    np.savez_compressed(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def assert_right(loaded, images, labels):
    inputs, targets = loaded
    assert inputs.dtype == np.float32
    assert targets.dtype == np.int64
    np.testing.assert_array_equal(inputs, [[k / 256 for k in image.ravel().tolist()] for image in images])
    np.testing.assert_array_equal(targets, labels)


def assert_damaged(path, match=None, which_set="test"):
    """Loading says what is damaged, by name, and leaves it as it is."""
    before = path.read_bytes()
    with pytest.raises(DataDamagedError, match=match) as caught:
        load_mnist(which_set)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("which_set", ["train", "valid", "test"])
def test_the_coursework_s_file_is_read(place, which_set):
    images, labels = digits()
    write_npz(place, images, labels, which_set)
    assert_right(load_mnist(which_set), images, labels)


def test_float16_holds_every_pixel_exactly(place):
    images = np.resize(np.arange(256, dtype=np.uint8), (1, 28, 28))
    write_npz(place, images, np.array([3]))
    assert_right(load_mnist("test"), images, [3])


def test_the_original_plain_files_are_read(place):
    images, labels = digits()
    write_idx(place, images, labels)
    assert_right(load_mnist("test"), images, labels)


def test_the_original_packed_files_are_read(place, monkeypatch):
    images, labels = digits()
    write_gz(monkeypatch, place, IMAGES, idx(images))
    write_gz(monkeypatch, place, LABELS, idx(labels))
    assert_right(load_mnist("test"), images, labels)
    assert len(list(place.iterdir())) == 2


def test_train_and_valid_are_the_first_50000_and_the_rest(place):
    images = np.zeros((50_003, 28, 28), np.uint8)
    images[:, 3, 4] = np.arange(50_003) % 251
    labels = (np.arange(50_003) % 10).astype(np.uint8)
    write_idx(place, images, labels, "train")
    inputs, targets = load_mnist("train")
    assert inputs.shape == (50_000, 784)
    np.testing.assert_array_equal(inputs[:, 3 * 28 + 4] * 256, np.arange(50_000) % 251)
    np.testing.assert_array_equal(targets, labels[:50_000])
    assert_right(load_mnist("valid"), images[50_000:], labels[50_000:])


def test_the_coursework_s_file_goes_before_the_original_ones(place):
    images, labels = digits()
    write_npz(place, images, labels)
    write_idx(place, *digits(seed=1))
    assert_right(load_mnist("test"), images, labels)


def test_a_given_folder_goes_before_the_environment(place, tmp_path):
    images, labels = digits()
    given = tmp_path / "given"
    given.mkdir()
    write_npz(given, images, labels)
    write_npz(place, *digits(seed=1))
    assert_right(load_mnist("test", given), images, labels)
    assert_right(load_mnist("test", str(given)), images, labels)


def test_what_is_missing_is_downloaded(place, monkeypatch, tmp_path):
    images, labels = digits()
    files = {f"{IMAGES}.gz": idx(images), f"{LABELS}.gz": idx(labels)}
    fetched = []

    def fetch(remote, folder=None, quiet=False):
        fetched.append((remote.name, folder))
        return write_gz(monkeypatch, place, remote.name.removesuffix(".gz"), files[remote.name])

    monkeypatch.setattr(mnist, "fetch", fetch)
    assert_right(load_mnist("test", tmp_path / "given"), images, labels)
    assert fetched == [(name, tmp_path / "given") for name in files]
    assert_right(load_mnist("test"), images, labels)
    assert len(fetched) == 2


def test_the_provider_gives_one_hot_targets(place):
    images, labels = digits()
    write_npz(place, images, labels)
    p = MNISTDataProvider("test", batch_size=7, shuffle_order=False)
    batches = list(p)
    assert [x.shape for x, _ in batches] == [(7, 784)] * 4
    assert {x.dtype for x, _ in batches} == {np.dtype(np.float32)}
    assert {t.dtype for _, t in batches} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(np.concatenate([t for _, t in batches]), np.eye(10)[labels[:28]])
    assert (p.which_set, p.num_classes, p.num_batches) == ("test", 10, 4)


def test_the_provider_takes_the_coursework_s_arguments_in_their_order(place):
    images, labels = digits()
    write_npz(place, images, labels, "valid")
    p = MNISTDataProvider("valid", 5, 3, True, np.random.RandomState(4), True)
    order = np.random.RandomState(4).permutation(30)
    assert p.num_batches == 3
    assert p.smooth_labels is True
    for index, (inputs, targets) in enumerate(p):
        chosen = order[5 * index : 5 * index + 5]
        np.testing.assert_array_equal(inputs, images[chosen].reshape(5, 784) / 256)
        np.testing.assert_array_equal(targets, np.eye(10)[labels[chosen]])


def test_the_provider_s_defaults_are_the_coursework_s(place):
    write_npz(place, *digits(250), "train")
    p = MNISTDataProvider()
    assert (p.which_set, p.batch_size, p.max_num_batches, p.num_batches) == ("train", 100, -1, 2)
    assert (p.shuffle_order, p.smooth_labels) == (True, False)


@pytest.mark.parametrize("which_set", ["Train", "", None, "../train"])
def test_another_set_is_a_value_error(which_set):
    with pytest.raises(ValueError, match=r"which_set.*'train', 'valid', 'test'"):
        MNISTDataProvider(which_set)


@pytest.mark.parametrize("which_set", ["train", "valid", "test"])
def test_what_is_missing_is_told_with_all_that_helps(place, tmp_path, which_set):
    with pytest.raises(DataMissingError) as caught:
        MNISTDataProvider(which_set, data_dir=tmp_path / "given")
    text = str(caught.value)
    for folder in (tmp_path / "given", place, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(folder) in text
    for name in mnist.IDX_FILES:
        assert name in text
    assert f"mnist-{which_set}.npz" in text
    assert "no network" in text
    missing = mnist.IDX_FILES[f"{'t10k' if which_set == 'test' else 'train'}-images-idx3-ubyte.gz"]
    assert f"({missing.name}: {missing.described()})" in text


def test_the_official_files_are_known():
    assert {name: file[2:] for name, file in mnist.IDX_FILES.items()} == {
        "train-images-idx3-ubyte.gz": (
            9_912_422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        "train-labels-idx1-ubyte.gz": (
            28_881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        "t10k-images-idx3-ubyte.gz": (
            1_648_877,
            "9fb629c4189551a2d022fa330f9573f3",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            4_542,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    }
    for name, file in mnist.IDX_FILES.items():
        assert file.url.endswith(f"/{name}")
        assert file.name == name


@pytest.mark.parametrize("part", [0, 1, 4, 100, 0.5, 0.99])
def test_a_truncated_npz_is_damaged(place, part):
    path = write_npz(place, *digits())
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data)) if 0 < part < 1 else part])
    assert_damaged(path)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"garbage" * 100, b"\x93NUMPY", b"\x80\x02}.", npy(np.zeros((3, 784)))],
    ids=["text", "npy header", "pickle", "npy"],
)
def test_an_npz_that_is_none_is_damaged(place, data):
    path = place / "mnist-test.npz"
    path.write_bytes(data)
    assert_damaged(path)


def changed(data, what):
    """A whole npz with one thing changed, which zipfile finds out in a way of its own each."""
    data, directory = bytearray(data), data.index(b"PK\x01\x02")
    if what == "checksum":
        data[directory + 16] ^= 0xFF
    elif what == "stream":
        data[30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")] = 7
    elif what == "method":
        data[directory + 10] = data[8] = 99
    elif what == "encrypted":
        data[directory + 8] |= 1
        data[6] |= 1
    return bytes(data)


@pytest.mark.parametrize("what", ["checksum", "stream", "method", "encrypted"])
def test_a_changed_byte_in_an_npz_is_damaged(place, what):
    path = write_npz(place, *digits())
    path.write_bytes(changed(path.read_bytes(), what))
    assert_damaged(path)


HUGE = b"{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000, 784), }".ljust(117) + b"\n"
MEMBERS = {
    "text": b"no array",
    "empty": b"",
    "header": npy(np.zeros(3))[:20],
    "short": npy(np.zeros(3))[:-1],
    "huge": b"\x93NUMPY\x01\x00" + len(HUGE).to_bytes(2, "little") + HUGE,
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_an_npz_whose_members_are_no_arrays_is_damaged(place, member):
    path = place / "mnist-test.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs.npy", member)
        archive.writestr("targets.npy", member)
    assert_damaged(path)


def test_a_damaged_npz_is_closed_again(place, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", lambda complaint: complaints.append(str(complaint.exc_value)))
    path = write_npz(place, *digits())
    path.write_bytes(path.read_bytes()[:-100])
    assert_damaged(path)
    gc.collect()
    assert complaints == []


def test_an_npz_of_objects_is_refused_and_does_not_run(place, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "marker"), "w")

    path = write_npz(place, *digits(), targets=np.array([Evil()] * 30, dtype=object))
    assert_damaged(path)
    assert not (tmp_path / "marker").exists()


IMAGES_30, LABELS_30 = digits()
INPUTS_30 = IMAGES_30.reshape(30, 784) / 256


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": None},
        {"targets": None},
        {"inputs": INPUTS_30[:29]},
        {"inputs": INPUTS_30[:, :783]},
        {"inputs": INPUTS_30.ravel()},
        {"inputs": INPUTS_30.reshape(30, 28, 28)},
        {"inputs": INPUTS_30.astype("U5")},
        {"targets": np.eye(10)[LABELS_30]},
        {"targets": LABELS_30.astype(np.int8) - 10},
        {"targets": LABELS_30 + 10},
        {"targets": LABELS_30.astype("U1")},
        {"targets": np.full(30, np.nan)},
        {"inputs": INPUTS_30[:0], "targets": LABELS_30[:0]},
    ],
    ids=lambda changes: ", ".join(f"{k} {getattr(v, 'shape', '')}" for k, v in changes.items()),
)
def test_an_npz_of_other_arrays_is_damaged(place, changes):
    assert_damaged(write_npz(place, IMAGES_30, LABELS_30, **changes))


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_truncated_plain_file_is_damaged(place, name):
    write_idx(place, *digits())
    data = (place / name).read_bytes()
    for length in (0, 3, 4, 7, len(data) // 2, len(data) - 1):
        (place / name).write_bytes(data[:length])
        assert_damaged(place / name)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_plain_file_that_is_none_is_damaged(place, name):
    write_idx(place, *digits())
    data = (place / name).read_bytes()
    for other in (data + b"\0", b"\0\0\x0d" + data[3:], b"\1" + data[1:], b"\0\0\x08\0", b"\0\0\x08\xff" + data[4:]):
        (place / name).write_bytes(other)
        assert_damaged(place / name)


def assert_pair_damaged(place, prefix, which_set):
    """Loading says what is damaged, and names one of the two files at least."""
    with pytest.raises(DataDamagedError) as caught:
        load_mnist(which_set)
    assert str(place / f"{prefix}-") in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES_30, LABELS_30[:-1]),
        (IMAGES_30[:-1], LABELS_30),
        (IMAGES_30[:, :27], LABELS_30),
        (IMAGES_30[:, :, :27], LABELS_30),
        (IMAGES_30, LABELS_30.reshape(30, 1)),
        (IMAGES_30, LABELS_30 + 10),
        (LABELS_30, LABELS_30),
        (IMAGES_30[:0], LABELS_30[:0]),
    ],
    ids=lambda array: "x".join(map(str, array.shape)),
)
def test_plain_files_that_do_not_fit_are_damaged(place, images, labels):
    write_idx(place, images, labels)
    assert_pair_damaged(place, "t10k", "test")


def test_a_training_file_without_a_validation_part_is_damaged(place):
    write_idx(place, *digits(), "train")
    assert_pair_damaged(place, "train", "valid")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_damaged_packed_file_is_told(place, monkeypatch, name):
    images, labels = digits()
    write_gz(monkeypatch, place, IMAGES, idx(images))
    write_gz(monkeypatch, place, LABELS, idx(labels))
    path = place / f"{name}.gz"
    data = path.read_bytes()
    for other, match in (
        (data[:-1], "truncated"),
        (data + b"x", "expected"),
        (data[:-1] + bytes([data[-1] ^ 1]), "MD5"),
        (b"", "0 bytes"),
    ):
        path.write_bytes(other)
        assert_damaged(path, match)


@pytest.mark.parametrize("checksum", ["md5", "sha256"])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_each_checksum_of_a_packed_file_counts(place, monkeypatch, name, checksum):
    images, labels = digits()
    write_gz(monkeypatch, place, IMAGES, idx(images))
    write_gz(monkeypatch, place, LABELS, idx(labels))
    monkeypatch.setitem(mnist.IDX_FILES, f"{name}.gz", mnist.IDX_FILES[f"{name}.gz"]._replace(**{checksum: "0"}))
    assert_damaged(place / f"{name}.gz", f"has {'MD5' if checksum == 'md5' else 'SHA-256'}")


def test_a_damaged_download_is_told_as_damage(monkeypatch):
    def fetch(remote, folder=None, quiet=False):
        raise DataDamagedError("wrong bytes")

    monkeypatch.setattr(mnist, "fetch", fetch)
    with pytest.raises(DataDamagedError, match="wrong bytes"):
        load_mnist("test")
