"""CIFAR-10 and -100 from tiny archives and folders, whole and damaged."""

import gzip
import hashlib
import io
import re
import tarfile
import tracemalloc

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError, DataMissingError, cifar, download, find_cifar, load_cifar

from . import python2

COUNT, TEST_COUNT = 40, 6
KINDS = [("cifar100", 0), ("cifar100", 1), ("cifar10", 0), ("cifar10", 1)]
ids = [cifar.FORMS[dataset][form].folder for dataset, form in KINDS]
every_kind = pytest.mark.parametrize(("dataset", "form"), KINDS, ids=ids)
binary_kinds = pytest.mark.parametrize(("dataset", "form"), KINDS[::2], ids=ids[::2])
python_kinds = pytest.mark.parametrize(("dataset", "form"), KINDS[1::2], ids=ids[1::2])


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The four folders that are looked in, in order, all of this test's own; nothing can be downloaded."""
    folders = [tmp_path / name for name in ("given", "environment", "work/data", "cache")]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLP_DATA_DIR", str(folders[1]))
    for module in (cifar, download):
        monkeypatch.setattr(module, "user_cache", lambda: folders[3])

    def fetch(remote, folder=None, quiet=False):
        raise DataMissingError(f"{remote.url} could not be downloaded (no network).")

    monkeypatch.setattr(cifar, "fetch", fetch)
    return folders


def class_names(dataset):
    return [f"name_{i}" for i in range(cifar.NUM_CLASSES[dataset])]


def images_of(dataset, seed=0):
    """Return (planes (N, 3, 32, 32), labels, coarse labels) to train and to test."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in (COUNT, TEST_COUNT):
        labels = rng.permutation(cifar.NUM_CLASSES[dataset])[np.arange(count) % cifar.NUM_CLASSES[dataset]]
        planes = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        parts.append((planes, labels, (labels * 7 + 3) % 20))
    return parts


def binary_file(dataset, planes, labels, coarse):
    records = b""
    for image, label, super_label in zip(planes, labels.tolist(), coarse.tolist(), strict=True):
        head = [super_label, label] if dataset == "cifar100" else [label]
        records += bytes(head) + image.tobytes()
    return records


def python_record(dataset, planes, labels, coarse):
    record = {b"batch_label": b"batch", b"filenames": [b"%d.png" % i for i in range(len(labels))]}
    if dataset == "cifar100":
        record |= {b"fine_labels": labels.tolist(), b"coarse_labels": coarse.tolist()}
    else:
        record |= {b"labels": labels.tolist()}
    return record | {b"data": planes.reshape(len(planes), 3072)}


def python_names(dataset):
    names = [name.encode() for name in class_names(dataset)]
    if dataset == "cifar10":
        return {b"num_cases_per_batch": 10_000, b"label_names": names, b"num_vis": 3072}
    return {b"fine_label_names": names, b"coarse_label_names": [b"coarse_%d" % i for i in range(20)]}


def files_of(dataset, form, seed=0):
    """Return the files of a tiny data set in its official layout, by name."""
    is_binary, prefix = form == 0, "data_batch_"
    train, test = images_of(dataset, seed)
    if dataset == "cifar100":
        chunks = {"train": train, "test": test}
    else:
        each = COUNT // 5
        chunks = {f"{prefix}{i + 1}": [x[each * i : each * (i + 1)] for x in train] for i in range(5)}
        chunks["test_batch"] = test
    if is_binary:
        files = {f"{name}.bin": binary_file(dataset, *part) for name, part in chunks.items()}
        text = "\n".join(class_names(dataset)) + "\n\n"
        files["fine_label_names.txt" if dataset == "cifar100" else "batches.meta.txt"] = text.encode()
        files["coarse_label_names.txt"] = b"\n".join(b"coarse_%d" % i for i in range(20))
    else:
        files = {name: python2.dumps(python_record(dataset, *part)) for name, part in chunks.items()}
        files["meta" if dataset == "cifar100" else "batches.meta"] = python2.dumps(python_names(dataset))
    return files | {"readme.html": b"<html>"}


def write_folder(place, dataset, form, files=None):
    folder = place / cifar.FORMS[dataset][form].folder
    folder.mkdir()
    for name, data in (files or files_of(dataset, form)).items():
        (folder / name).write_bytes(data)
    return folder


def archive_bytes(dataset, form, files=None):
    buffer = io.BytesIO()
    folder = cifar.FORMS[dataset][form].folder
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(folder)
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
        for name, data in (files or files_of(dataset, form)).items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def expect_archive(monkeypatch, dataset, form, data):
    """Make `data` the official archive, by its size and its checksums."""
    forms = list(cifar.FORMS[dataset])
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    archive = forms[form].archive._replace(size=len(data), **sums)
    forms[form] = forms[form]._replace(archive=archive)
    monkeypatch.setitem(cifar.FORMS, dataset, tuple(forms))


def write_archive(monkeypatch, place, dataset, form, data=None):
    data = archive_bytes(dataset, form) if data is None else data
    expect_archive(monkeypatch, dataset, form, data)
    path = place / cifar.FORMS[dataset][form].archive.name
    path.write_bytes(data)
    return path


def assert_right(data, dataset, source, seed=0):
    (planes, labels, _), (test_planes, test_labels, _) = images_of(dataset, seed)
    chosen = np.random.RandomState(0).choice(COUNT, COUNT * 19 // 20, replace=False)
    rest = np.setdiff1d(np.arange(COUNT), chosen)
    parts = (
        (data.train, planes[chosen], labels[chosen]),
        (data.valid, planes[rest], labels[rest]),
        (data.test, test_planes, test_labels),
    )
    for part, expected, expected_labels in parts:
        assert part.pixels.dtype == np.uint8
        assert part.labels.dtype == np.int64
        assert part.pixels.shape == (len(expected), 32, 32, 3)
        for channel in range(3):
            np.testing.assert_array_equal(part.pixels[..., channel], expected[:, channel])
        np.testing.assert_array_equal(part.labels, expected_labels)
    assert data.class_names == tuple(class_names(dataset))
    assert (data.name, data.num_classes, data.source) == (dataset, cifar.NUM_CLASSES[dataset], str(source))


def assert_damaged(dataset, path, match=None, named=""):
    """Loading says what is damaged, by name, and leaves every file as it is."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    before = {file: file.read_bytes() for file in files}
    with pytest.raises(DataDamagedError, match=match) as caught:
        load_cifar(dataset)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert {file: file.read_bytes() for file in files} == before
    assert sorted(path.parent.iterdir()) == [path]


@every_kind
def test_a_folder_gives_the_right_images(places, dataset, form):
    folder = write_folder(places[0], dataset, form)
    assert_right(load_cifar(dataset, places[0]), dataset, folder)


@every_kind
def test_an_archive_gives_the_right_images(places, monkeypatch, dataset, form):
    path = write_archive(monkeypatch, places[0], dataset, form)
    assert_right(load_cifar(dataset, places[0]), dataset, path)
    assert sorted(places[0].iterdir()) == [path]


@pytest.mark.parametrize("dataset", ["cifar100", "cifar10"])
def test_all_four_forms_have_one_fingerprint(places, monkeypatch, dataset):
    fingerprints = set()
    for form in (0, 1):
        folder, archives = places[form] / "a", places[form] / "b"
        folder.mkdir()
        archives.mkdir()
        write_folder(folder, dataset, form)
        write_archive(monkeypatch, archives, dataset, form)
        fingerprints |= {load_cifar(dataset, place).fingerprint() for place in (folder, archives)}
    assert len(fingerprints) == 1


def test_pixels_can_be_written_to(places):
    write_folder(places[0], "cifar100", 0)
    data = load_cifar("cifar100", places[0])
    data.train.pixels[0] = 0
    data.test.labels[0] = 0


def test_files_that_python_3_pickled_give_the_right_images(places):
    import pickle

    files = {
        name: pickle.dumps(pickle.loads(x, encoding="bytes"), 3)
        for name, x in files_of("cifar100", 1).items()
        if name != "readme.html"
    }
    folder = write_folder(places[0], "cifar100", 1, files)
    assert_right(load_cifar("cifar100", places[0]), "cifar100", folder)


@every_kind
def test_loading_a_folder_takes_less_than_twice_its_size(places, dataset, form):
    """And 1 MB here: of such small files, the rest counts too."""
    files, train = files_of(dataset, form), cifar.FORMS[dataset][form].train
    many = [np.concatenate([array] * (125 // len(train))) for array in images_of(dataset)[0]]
    for name in train:
        files[name] = files[name] * 125 if form == 0 else python2.dumps(python_record(dataset, *many))
    write_folder(places[0], dataset, form, files)
    size = sum(map(len, files.values()))
    assert size > 15_000_000
    tracemalloc.start()
    try:
        data = load_cifar(dataset, places[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.train.pixels.flags.c_contiguous
    assert peak < 2 * size + 2**20, peak / size


def test_mean_and_deviation_are_the_report_s(places):
    write_folder(places[0], "cifar100", 0)
    data = load_cifar("cifar100", places[0])
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.std == (0.2023, 0.1994, 0.2010)


def test_a_stratified_split_is_asked_for_by_name(places):
    train, test = images_of("cifar10")
    write_folder(places[0], "cifar10", 0)
    plain, stratified = (load_cifar("cifar10", places[0], stratified=s) for s in (False, True))
    rows = sorted(p.tobytes() for part in (stratified.train, stratified.valid) for p in part.pixels)
    assert rows == sorted(p.tobytes() for p in train[0].transpose(0, 2, 3, 1))
    assert np.bincount(stratified.train.labels, minlength=10).min() >= 3
    assert len(stratified.train.labels) == len(plain.train.labels) == 38
    assert plain.fingerprint() != stratified.fingerprint()
    np.testing.assert_array_equal(stratified.test.pixels, test[0].transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_places_are_looked_in_one_after_the_other(places, monkeypatch, kind):
    for seed in (3, 2, 1, 0):
        if kind == "folder":
            write_folder(places[seed], "cifar100", 0, files_of("cifar100", 0, seed))
        else:
            data = archive_bytes("cifar100", 0, files_of("cifar100", 0, seed))
            write_archive(monkeypatch, places[seed], "cifar100", 0, data)
        place = find_cifar("cifar100", places[0])[1]
        assert place.resolve().parent == places[seed]
        assert_right(load_cifar("cifar100", places[0]), "cifar100", place, seed)


def test_without_data_dir_the_environment_is_first(places):
    for seed in (0, 1, 2):
        write_folder(places[seed], "cifar100", 0, files_of("cifar100", 0, seed))
    assert_right(load_cifar("cifar100"), "cifar100", places[1] / "cifar-100-binary", 1)


def test_without_the_environment_the_folder_data_is_next(places, monkeypatch):
    for seed in (1, 2, 3):
        write_folder(places[seed], "cifar100", 0, files_of("cifar100", 0, seed))
    for value in (None, ""):
        monkeypatch.delenv("MLP_DATA_DIR") if value is None else monkeypatch.setenv("MLP_DATA_DIR", value)
        data = load_cifar("cifar100")
        assert_right(data, "cifar100", data.source, 2)


def test_the_binary_form_is_preferred_in_one_place(places, monkeypatch):
    write_folder(places[0], "cifar100", 1, files_of("cifar100", 1, 1))
    write_archive(monkeypatch, places[0], "cifar100", 1)
    folder = write_folder(places[0], "cifar100", 0)
    assert_right(load_cifar("cifar100", places[0]), "cifar100", folder)


def test_an_earlier_place_wins_over_a_preferred_form(places):
    folder = write_folder(places[0], "cifar100", 1, files_of("cifar100", 1, 1))
    write_folder(places[1], "cifar100", 0)
    assert_right(load_cifar("cifar100", places[0]), "cifar100", folder, 1)


def test_the_other_data_set_is_not_taken(places):
    write_folder(places[0], "cifar10", 0)
    assert find_cifar("cifar100", places[0]) is None
    assert find_cifar("cifar10", places[0])[1] == places[0] / "cifar-10-batches-bin"


@pytest.mark.parametrize("get", [True, False])
@pytest.mark.parametrize("dataset", ["cifar100", "cifar10"])
def test_what_is_missing_is_told_with_all_that_helps(places, dataset, get):
    with pytest.raises(DataMissingError) as caught:
        load_cifar(dataset, places[0], download=get)
    text = str(caught.value)
    for folder in places:
        assert str(folder) in text
    for form in cifar.FORMS[dataset]:
        assert form.archive.url in text
        assert f"{form.archive.size:,} bytes" in text
        assert f"MD5 {form.archive.md5}, SHA-256 {form.archive.sha256}" in text
        assert f"{form.folder}/" in text
    assert f"python -m mlp.experiments data fetch {dataset}" in text
    assert f"python -m mlp.experiments data check {dataset}" in text
    assert "--dataset shapes" in text
    assert "--dataset digits" in text
    assert ("no network" in text) == get
    assert ("Nothing was downloaded." in text) != get


def test_the_official_archives_are_known():
    known = {form.archive.name: form.archive[2:] for forms in cifar.FORMS.values() for form in forms}
    assert known == {
        "cifar-100-binary.tar.gz": (
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        "cifar-100-python.tar.gz": (
            169_001_437,
            "eb9058c3a382ffc7106e4002c42a8d85",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
        "cifar-10-binary.tar.gz": (
            170_052_171,
            "c32a1d4ab5d03f1284b67883e8d87530",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        "cifar-10-python.tar.gz": (
            170_498_071,
            "c58f30108f718f92721af3b95e74349a",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    }


@pytest.mark.parametrize("given", [True, False])
def test_what_is_missing_is_downloaded_in_binary_form(places, monkeypatch, given):
    data, fetched = archive_bytes("cifar100", 0), []
    expect_archive(monkeypatch, "cifar100", 0, data)

    def fetch(remote, folder=None, quiet=False):
        fetched.append((remote.name, folder, quiet))
        (folder / remote.name).write_bytes(data)
        return folder / remote.name

    monkeypatch.setattr(cifar, "fetch", fetch)
    target = places[0 if given else 3]
    for _ in range(2):
        loaded = load_cifar("cifar100", places[0] if given else None, quiet=True)
        assert_right(loaded, "cifar100", target / "cifar-100-binary.tar.gz")
    assert fetched == [("cifar-100-binary.tar.gz", target, True)]


def test_a_damaged_download_is_told_as_damage(places, monkeypatch):
    def fetch(remote, folder=None, quiet=False):
        raise DataDamagedError("wrong bytes")

    monkeypatch.setattr(cifar, "fetch", fetch)
    with pytest.raises(DataDamagedError, match="wrong bytes"):
        load_cifar("cifar100")


@every_kind
def test_an_archive_of_another_size_is_damaged(places, monkeypatch, dataset, form):
    path = write_archive(monkeypatch, places[1], dataset, form)
    path.write_bytes(path.read_bytes() + b"\0")
    assert_damaged(dataset, path, "bytes, expected")


@pytest.mark.parametrize("checksum", ["md5", "sha256"])
@every_kind
def test_an_archive_of_another_checksum_is_damaged(places, monkeypatch, dataset, form, checksum):
    """Each checksum counts, also where the other one is right."""
    path = write_archive(monkeypatch, places[1], dataset, form)
    forms = list(cifar.FORMS[dataset])
    forms[form] = forms[form]._replace(archive=forms[form].archive._replace(**{checksum: "0"}))
    monkeypatch.setitem(cifar.FORMS, dataset, tuple(forms))
    assert_damaged(dataset, path, f"{path.name} has {'MD5' if checksum == 'md5' else 'SHA-256'}")


@every_kind
def test_a_truncated_archive_is_damaged(places, monkeypatch, dataset, form):
    path = write_archive(monkeypatch, places[1], dataset, form)
    path.write_bytes(path.read_bytes()[:-1])
    assert_damaged(dataset, path, "truncated")


@pytest.mark.parametrize("part", [0, 5, 20, 300, 0.3, 0.6, 0.9, 0.999])
@every_kind
def test_an_archive_that_ends_early_is_damaged_whatever_its_md5(places, monkeypatch, dataset, form, part):
    data = archive_bytes(dataset, form)
    data = data[: int(part * len(data)) if part < 1 else part]
    path = write_archive(monkeypatch, places[1], dataset, form, data)
    assert_damaged(dataset, path, "left as it is")


@pytest.mark.parametrize(
    "data",
    [b"garbage" * 1000, gzip.compress(b"no tar" * 1000, mtime=0), b"PK\x03\x04" * 300],
    ids=["text", "gz", "zip"],
)
def test_an_archive_that_is_none_is_damaged_whatever_its_md5(places, monkeypatch, data):
    path = write_archive(monkeypatch, places[1], "cifar100", 0, data)
    assert_damaged("cifar100", path, "left as it is")


def test_changed_bytes_in_an_archive_are_damage_or_other_images_whatever_its_md5(places, monkeypatch):
    whole = archive_bytes("cifar100", 1)
    messages = []
    for at in np.random.default_rng(0).integers(0, len(whole), 30):
        data = bytearray(whole)
        data[at] ^= 0x55
        write_archive(monkeypatch, places[1], "cifar100", 1, bytes(data))
        try:
            assert load_cifar("cifar100").num_classes == 100
        except DataDamagedError as error:
            messages.append(str(error))
    assert all(str(places[1]) in message for message in messages)


@every_kind
def test_an_archive_that_lacks_a_member_is_damaged(places, monkeypatch, dataset, form):
    kind = cifar.FORMS[dataset][form]
    for name in (kind.train[-1], kind.test[0], kind.names):
        files = files_of(dataset, form)
        del files[name]
        path = write_archive(monkeypatch, places[1], dataset, form, archive_bytes(dataset, form, files))
        assert_damaged(dataset, path, f"it lacks {name}")


@every_kind
def test_a_folder_that_lacks_a_file_is_damaged(places, dataset, form):
    kind = cifar.FORMS[dataset][form]
    folder = write_folder(places[1], dataset, form)
    for name in (kind.names, kind.test[0], kind.train[0]):
        (folder / name).unlink()
        assert_damaged(dataset, folder, "is not complete: it lacks", name)


def test_members_that_are_links_are_not_followed(places, monkeypatch):
    buffer, files = io.BytesIO(), files_of("cifar100", 0)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            if name == "train.bin":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    path = write_archive(monkeypatch, places[1], "cifar100", 0, buffer.getvalue())
    assert_damaged("cifar100", path, "it lacks train.bin")


def test_a_member_too_large_is_not_read(places, monkeypatch):
    path = write_archive(monkeypatch, places[1], "cifar100", 0)
    monkeypatch.setattr(cifar, "MAX_MEMBER_BYTES", COUNT * 3074 - 1)
    assert_damaged("cifar100", path, "it lacks train.bin")


def test_a_file_in_place_of_the_folder_is_damaged(places):
    path = places[1] / "cifar-100-binary"
    path.write_bytes(b"no folder")
    assert_damaged("cifar100", path, "9 bytes")


@every_kind
def test_a_truncated_file_in_a_folder_is_damaged(places, dataset, form):
    folder = write_folder(places[1], dataset, form)
    for part in ("test", "train"):
        name = getattr(cifar.FORMS[dataset][form], part)[-1]
        data = (folder / name).read_bytes()
        for length in (len(data) - 1, len(data) // 2 + 1, 1, 0):
            (folder / name).write_bytes(data[:length])
            assert_damaged(dataset, folder, None if length else "holds no images|not a CIFAR file", name)


@every_kind
def test_truncated_names_are_damage(places, dataset, form):
    folder = write_folder(places[1], dataset, form)
    name = cifar.FORMS[dataset][form].names
    data = (folder / name).read_bytes()
    for length in (len(data) // 2, 0):
        (folder / name).write_bytes(data[:length])
        assert_damaged(dataset, folder, named=name)


@binary_kinds
def test_a_label_that_is_no_class_is_damage(places, dataset, form):
    folder = write_folder(places[1], dataset, form)
    name = cifar.FORMS[dataset][form].train[-1]
    data = bytearray((folder / name).read_bytes())
    number = cifar.NUM_CLASSES[dataset]
    data[2 * 3074 + 1 if dataset == "cifar100" else 2 * 3073] = number
    data[-3073] = 255
    (folder / name).write_bytes(data)
    words = f"{folder / name} holds labels outside 0..{number - 1}: the first is {number}, of image 2, counted from 0"
    assert_damaged(dataset, folder, re.escape(words), name)


def change_record(folder, dataset, form, **changes):
    name = cifar.FORMS[dataset][form].test[0]
    record = python_record(dataset, *images_of(dataset)[1])
    for key, value in changes.items():
        label_key = b"fine_labels" if dataset == "cifar100" else b"labels"
        record[label_key if key == "labels" else key.encode()] = value
    (folder / name).write_bytes(python2.dumps({k: v for k, v in record.items() if v is not None}))
    return name


@pytest.mark.parametrize(
    "labels",
    [
        None,
        [],
        5,
        b"123456",
        [0] * (TEST_COUNT - 1),
        [0] * (TEST_COUNT + 1),
        [0] * (TEST_COUNT - 1) + [100],
        [0] * (TEST_COUNT - 1) + [-1],
        [0] * (TEST_COUNT - 1) + [b"1"],
        [0] * (TEST_COUNT - 1) + [[1]],
        [0] * (TEST_COUNT - 1) + [2**70],
        np.zeros(TEST_COUNT, np.uint8),
    ],
    ids=str,
)
@python_kinds
def test_wrong_labels_in_a_python_file_are_damage(places, dataset, form, labels):
    folder = write_folder(places[1], dataset, form)
    assert_damaged(dataset, folder, named=change_record(folder, dataset, form, labels=labels))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [0] * TEST_COUNT,
        b"0" * 3072,
        np.zeros((TEST_COUNT, 3071), np.uint8),
        np.zeros((TEST_COUNT * 3072,), np.uint8),
        np.zeros((TEST_COUNT, 3, 1024), np.uint8),
        np.zeros((TEST_COUNT - 1, 3072), np.uint8),
        np.zeros((0, 3072), np.uint8),
    ],
    ids=lambda x: str(getattr(x, "shape", type(x).__name__)),
)
@python_kinds
def test_wrong_pixels_in_a_python_file_are_damage(places, dataset, form, data):
    folder = write_folder(places[1], dataset, form)
    assert_damaged(dataset, folder, named=change_record(folder, dataset, form, data=data))


def test_no_images_at_all_are_damage(places):
    folder = write_folder(places[1], "cifar100", 1)
    name = change_record(folder, "cifar100", 1, data=np.zeros((0, 3072), np.uint8), labels=[])
    assert_damaged("cifar100", folder, f"{name} holds no images; it was left as it is: move or delete it", name)


WRONG_NAMES = {
    "none": None,
    "a number": 5,
    "no names": [],
    "one name": [b"one"],
    "numbers": [1] * 100,
    "one string": b"x" * 100,
    "99": [b"n"] * 99,
    "101": [b"n"] * 101,
}


@pytest.mark.parametrize("names", WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_wrong_names_in_a_python_file_are_damage(places, names):
    folder = write_folder(places[1], "cifar100", 1)
    content = python_names("cifar100") | {b"fine_label_names": names}
    (folder / "meta").write_bytes(python2.dumps({k: v for k, v in content.items() if v is not None}))
    assert_damaged("cifar100", folder, named="meta")


@pytest.mark.parametrize("names", [b"", b"one\ntwo\n", b"n\n" * 99, b"n\n" * 101], ids=[0, 2, 99, 101])
def test_wrong_names_in_a_text_file_are_damage(places, names):
    folder = write_folder(places[1], "cifar100", 0)
    (folder / "fine_label_names.txt").write_bytes(names)
    assert_damaged("cifar100", folder, named="fine_label_names.txt")


def test_a_malicious_python_file_is_damage_and_does_not_run(places, tmp_path):
    folder = write_folder(places[1], "cifar100", 1)
    (folder / "train").write_bytes(f"(S'data'\ncos\nsystem\n(S\"echo > '{tmp_path}/marker'\"\ntRd.".encode())
    assert_damaged("cifar100", folder, "not a CIFAR file", "train")
    assert not (tmp_path / "marker").exists()
