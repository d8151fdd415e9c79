"""The coursework's providers of CIFAR, from its npz files and from the official ones."""

import numpy as np
import pytest

from mlp.data_providers import (
    CIFAR10DataProvider,
    CIFAR100DataProvider,
    DataDamagedError,
    DataMissingError,
    cifar,
    cifar_providers,
)

from . import python2, test_cifar
from .test_cifar import COUNT, class_names, files_of, images_of, write_archive, write_folder

FIRST = 33
COARSE_NAMES = [f"coarse_{i}" for i in range(20)]
every_form = pytest.mark.parametrize("form", [0, 1], ids=["binary", "python"])
every_set = pytest.mark.parametrize("which_set", ["train", "valid"])
every_kind = pytest.mark.parametrize(
    ("kind", "dataset"), [(CIFAR10DataProvider, "cifar10"), (CIFAR100DataProvider, "cifar100")]
)
PARTS = {"train": slice(0, FIRST), "valid": slice(FIRST, COUNT)}


@pytest.fixture(autouse=True)
def _few_images_train(folder, monkeypatch):
    monkeypatch.setattr(cifar_providers, "TRAINING_IMAGES", FIRST)


def write_npz(folder, number, which_set="train", **changes):
    rng = np.random.RandomState(0)
    arrays = {"inputs": rng.normal(size=(12, 3072)).astype(np.float32)}
    if number == 10:
        arrays |= {"targets": np.arange(12) % 10, "label_map": np.array(class_names("cifar10"))}
    else:
        arrays["targets"] = np.stack([np.arange(12) + 88, np.arange(12) + 8], axis=1)
        arrays |= {"fine_label_map": np.array(class_names("cifar100")), "coarse_label_map": np.array(COARSE_NAMES)}
    arrays |= changes
    path = folder / f"cifar-{number}-{which_set}.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path, arrays


def assert_images(p, planes):
    assert p.inputs.dtype == np.float32
    assert p.inputs.shape == (len(planes), 3072)
    for channel in range(3):
        expected = planes[:, channel].reshape(len(planes), 1024) / 255.0
        np.testing.assert_allclose(p.inputs[:, 1024 * channel : 1024 * (channel + 1)], expected, rtol=1e-6)


@every_form
@every_kind
@every_set
def test_the_official_folder_is_split_in_its_own_order(folder, kind, dataset, form, which_set):
    write_folder(folder, dataset, form)
    (planes, labels, _), _ = images_of(dataset)
    p = kind(which_set, batch_size=7, shuffle_order=False)
    assert_images(p, planes[PARTS[which_set]])
    np.testing.assert_array_equal(p.targets, labels[PARTS[which_set]])
    assert p.num_classes == len(p.label_map) == cifar.NUM_CLASSES[dataset]
    assert list(p.label_map) == class_names(dataset)
    np.testing.assert_array_equal(p.next()[1], np.eye(p.num_classes)[labels[PARTS[which_set]][:7]])


@every_form
@every_kind
def test_the_official_archive_gives_the_same(folder, monkeypatch, tmp_path, kind, dataset, form):
    (tmp_path / "unpacked").mkdir()
    write_folder(tmp_path / "unpacked", dataset, form)
    write_archive(monkeypatch, folder, dataset, form)
    a, b = (kind("train", rng=np.random.RandomState(1), data_dir=place) for place in (tmp_path / "unpacked", folder))
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.targets, b.targets)


@every_form
@every_set
def test_the_official_files_have_coarse_labels_too(folder, form, which_set):
    write_folder(folder, "cifar100", form)
    (planes, _, coarse), _ = images_of("cifar100")
    p = CIFAR100DataProvider(which_set, use_coarse_targets=True, batch_size=7, shuffle_order=False)
    assert_images(p, planes[PARTS[which_set]])
    np.testing.assert_array_equal(p.targets, coarse[PARTS[which_set]])
    assert (p.num_classes, p.use_coarse_targets) == (20, True)
    assert list(p.label_map) == COARSE_NAMES
    np.testing.assert_array_equal(p.next()[1], np.eye(20)[coarse[PARTS[which_set]][:7]])


@every_form
def test_a_coarse_label_that_is_none_is_damage_only_where_coarse_labels_are_asked_for(folder, monkeypatch, form):
    (planes, labels, coarse), test = images_of("cifar100")
    coarse[5] = 20
    monkeypatch.setattr(test_cifar, "images_of", lambda *_: [(planes, labels, coarse), test])
    place = write_folder(folder, "cifar100", form)
    assert CIFAR100DataProvider("train").num_classes == 100
    with pytest.raises(DataDamagedError, match=r"labels outside 0\.\.19") as caught:
        CIFAR100DataProvider("train", True)
    assert str(place) in str(caught.value)


@every_form
@pytest.mark.parametrize("count", [19, 100])
def test_coarse_names_are_twenty(folder, form, count):
    names = [f"n_{i}".encode() for i in range(count)]
    files = files_of("cifar100", form)
    if form == 0:
        files["coarse_label_names.txt"] = b"\n".join(names)
    else:
        fine = [name.encode() for name in class_names("cifar100")]
        files["meta"] = python2.dumps({b"fine_label_names": fine, b"coarse_label_names": names})
    write_folder(folder, "cifar100", form, files)
    assert CIFAR100DataProvider("train").num_classes == 100
    with pytest.raises(DataDamagedError, match=f"names {count} classes, expected 20"):
        CIFAR100DataProvider("train", True)


@every_form
def test_a_folder_without_coarse_names_gives_fine_labels_only(folder, form):
    if form == 0:
        files = files_of("cifar100", form)
        del files["coarse_label_names.txt"]
        write_folder(folder, "cifar100", form, files)
    else:
        files = files_of("cifar100", form)
        files["meta"] = python2.dumps({b"fine_label_names": [name.encode() for name in class_names("cifar100")]})
        write_folder(folder, "cifar100", form, files)
    assert CIFAR100DataProvider("train").num_classes == 100
    with pytest.raises(DataDamagedError):
        CIFAR100DataProvider("train", True)


def test_cifar_10_has_no_coarse_labels():
    with pytest.raises(ValueError, match="cifar10 has no coarse labels"):
        cifar.read_cifar("cifar10", coarse=True)


def test_the_coursework_trains_on_40000_images(monkeypatch):
    monkeypatch.undo()
    assert cifar_providers.TRAINING_IMAGES == 40_000


@every_kind
def test_the_coursework_s_file_goes_before_the_official_ones(folder, kind, dataset):
    write_folder(folder, dataset, 0)
    _, arrays = write_npz(folder, cifar.NUM_CLASSES[dataset])
    p = kind("train", shuffle_order=False)
    np.testing.assert_array_equal(p.inputs, arrays["inputs"])
    assert kind("valid", shuffle_order=False).inputs.shape == (COUNT - FIRST, 3072)


@every_kind
def test_a_given_folder_goes_first(folder, tmp_path, kind, dataset):
    (tmp_path / "given").mkdir()
    number = cifar.NUM_CLASSES[dataset]
    write_npz(folder, number)
    _, arrays = write_npz(tmp_path / "given", number, inputs=np.ones((12, 3072), np.float32))
    np.testing.assert_array_equal(kind("train", data_dir=str(tmp_path / "given")).inputs, arrays["inputs"])


@pytest.mark.parametrize("coarse", [False, True])
def test_the_two_columns_of_the_npz_are_fine_and_coarse_labels(folder, coarse):
    _, arrays = write_npz(folder, 100, targets=np.stack([np.arange(12) + 88, np.arange(12) + 8], axis=1))
    p = CIFAR100DataProvider("train", coarse, shuffle_order=False)
    np.testing.assert_array_equal(p.targets, arrays["targets"][:, int(coarse)])
    assert p.targets.dtype == np.int64


def test_a_label_map_that_is_not_asked_for_may_lack(folder):
    write_npz(folder, 100, coarse_label_map=None)
    assert CIFAR100DataProvider("train").num_classes == 100
    with pytest.raises(DataDamagedError, match="it lacks coarse_label_map"):
        CIFAR100DataProvider("train", True)


@pytest.mark.parametrize("value", [0, 1, None, "no"])
def test_coarse_or_not_is_true_or_false(folder, value):
    write_npz(folder, 100)
    with pytest.raises(TypeError, match="use_coarse_targets"):
        CIFAR100DataProvider("train", value)


@every_kind
@every_set
def test_what_is_missing_is_told_with_all_that_helps(folder, tmp_path, kind, dataset, which_set):
    with pytest.raises(DataMissingError) as caught:
        kind(which_set, data_dir=tmp_path / "given")
    text = str(caught.value)
    assert f"cifar-{cifar.NUM_CLASSES[dataset]}-{which_set}.npz" in text
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place) in text
    for form in cifar.FORMS[dataset]:
        assert form.archive.url in text


def test_damaged_official_files_are_not_called_missing(folder):
    place = write_folder(folder, "cifar10", 0)
    (place / "data_batch_3.bin").unlink()
    with pytest.raises(DataDamagedError, match=r"it lacks data_batch_3\.bin"):
        CIFAR10DataProvider("train")


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (10, {"inputs": None}),
        (10, {"label_map": None}),
        (10, {"inputs": np.ones((11, 3072), np.float32)}),
        (10, {"inputs": np.ones((12, 3072), "U1")}),
        (10, {"targets": np.arange(12)}),
        (10, {"targets": np.arange(12) % 10 - 1}),
        (10, {"targets": np.ones(12)}),
        (10, {"targets": np.zeros((12, 2), int)}),
        (10, {"inputs": np.ones((0, 3072), np.float32), "targets": np.ones(0, int)}),
        (10, {"inputs": np.ones((12, 5), np.float32)}),
        (10, {"inputs": np.array(1.0), "targets": np.array(1)}),
        (10, {"label_map": np.array([f"n{i}" for i in range(12)])}),
        (10, {"label_map": np.array([f"n{i}" for i in range(12)]), "targets": np.arange(12)}),
        (10, {"label_map": np.array("name")}),
        (100, {"targets": np.arange(12)}),
        (100, {"targets": np.zeros((12, 3), int)}),
        (100, {"targets": np.array(1)}),
        (100, {"targets": np.full((12, 2), 100)}),
        (100, {"fine_label_map": np.array(COARSE_NAMES), "targets": np.zeros((12, 2), int)}),
    ],
    ids=lambda value: (
        ", ".join(f"{k} {getattr(v, 'dtype', '')}{getattr(v, 'shape', '')}" for k, v in value.items())
        if isinstance(value, dict)
        else str(value)
    ),
)
def test_an_npz_of_other_arrays_is_damaged(folder, number, changes):
    path, _ = write_npz(folder, number, **changes)
    with pytest.raises(DataDamagedError) as caught:
        (CIFAR10DataProvider if number == 10 else CIFAR100DataProvider)("train")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8])
def test_batches_of_an_npz_are_float32_whatever_its_numbers(folder, dtype):
    _, arrays = write_npz(folder, 10, inputs=np.ones((12, 3072), dtype))
    batch, _ = CIFAR10DataProvider("train", 4).next()
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, arrays["inputs"][:4])
