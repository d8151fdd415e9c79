"""CIFAR-100 against two independent decoders, and a hash of its content that does not know the order."""

import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import cifar_decoders as others
from mlp.data_providers import CIFAR100DataProvider, DataDamagedError, DataMissingError, cifar, load_cifar
from mlp.data_providers import cifar_content as content
from mlp.data_providers.cifar_content import content_hash, content_of

from . import python2
from .test_cifar import binary_file, files_of, images_of, write_archive, write_folder

repeatable = settings(derandomize=True, deadline=None, max_examples=25)


@st.composite
def parts(draw, coarse=None):
    """Made-up (planes, fine labels, coarse labels) of a training and a test part of any size."""
    found = []
    for _ in range(2):
        fine = draw(st.lists(st.integers(0, 99), min_size=1, max_size=6))
        above = [coarse(label) for label in fine] if coarse else [draw(st.integers(0, 19)) for _ in fine]
        planes = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, (len(fine), 3, 32, 32), np.uint8)
        planes[:, draw(st.integers(0, 2))] //= draw(st.integers(1, 255))  # no two channels alike
        found.append((planes, np.array(fine), np.array(above)))
    return found


def write_both_forms(place, made):
    """Write the parts in the binary and in the Python form, each into a folder of its own; return the folders."""
    for form in (0, 1):
        (place / str(form)).mkdir()
        files = files_of("cifar100", form)
        for name, part in zip(("train", "test"), made, strict=True):
            planes, fine, coarse = part
            record = {b"fine_labels": fine.tolist(), b"coarse_labels": coarse.tolist()}
            record |= {b"data": planes.reshape(-1, 3072)}
            data = python2.dumps(record) if form else binary_file("cifar100", *part)
            files[name if form else f"{name}.bin"] = data
        write_folder(place / str(form), "cifar100", form, files)
    return place / "0" / "cifar-100-binary", place / "1" / "cifar-100-python"


@repeatable
@given(parts())
def test_both_forms_give_the_records_that_independent_decoders_give(made):
    """Python's pickle and a loop over numbers; the binary form cut by hand. Order, labels and channels are theirs."""
    with TemporaryDirectory() as place:
        binary, python = write_both_forms(Path(place), made)
        for part, of_binary, of_python in zip(
            ("train", "test"), others.by_ours(binary), others.by_ours(python), strict=True
        ):
            expected = list(others.by_pickle(python / part))
            assert of_python == expected
            assert of_binary == expected
            assert list(others.by_bytes(binary / f"{part}.bin")) == expected


def superclass(fine):
    name = others.FINE[fine]
    return next(i for i, above in enumerate(others.COARSE) if name in others.CLASSES[above].split())


@repeatable
@given(parts(coarse=superclass))
def test_image_files_read_by_pillow_have_the_same_content(made):
    with TemporaryDirectory() as place:
        folders = write_both_forms(Path(place), made)
        for part, (planes, fine, _) in zip(("train", "test"), made, strict=True):
            (Path(place) / part).mkdir()
            for label in set(fine.tolist()):
                stack = planes[fine == label].transpose(0, 2, 3, 1).reshape(-1, 32, 3)
                Image.fromarray(stack).save(Path(place) / part / f"{label:02d}.png")
            expected = others.digest(others.by_stacks(Path(place) / part))
            for folder in folders:
                index = ("train", "test").index(part)
                assert others.digest(others.by_ours(folder)[index]) == expected
                assert content_hash(others.by_ours(folder)[index]) == expected


def test_the_names_of_the_classes_are_a_hundred_in_twenty():
    assert len(set(others.FINE)) == 100
    assert {len(names.split()) for names in others.CLASSES.values()} == {5}
    assert len(others.CLASSES) == 20


RECORDS = st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=20)


@repeatable
@given(RECORDS, st.randoms(use_true_random=False))
def test_the_order_does_not_change_the_hash(records, random):
    shuffled = random.sample(records, len(records))
    assert content_hash(shuffled) == content_hash(records) == others.digest(records)


@repeatable
@given(RECORDS, st.data())
def test_anything_else_does(records, data):
    index, byte = data.draw(st.integers(0, len(records) - 1)), data.draw(st.integers(0, 2))
    changed = bytearray(records[index])
    changed[byte] ^= data.draw(st.integers(1, 255))
    rest = records[:index] + records[index + 1 :]
    known = content_hash(records)
    assert content_hash([*rest, bytes(changed)]) != known
    assert content_hash(rest) != known
    assert content_hash([*records, records[index]]) != known


@pytest.fixture
def golden(monkeypatch):
    """Make the tests' images the official ones."""
    hashes = []
    for planes, fine, coarse in images_of("cifar100"):
        hashes.append(others.digest(map(bytes, np.c_[coarse, fine, planes.reshape(-1, 3072)].astype(np.uint8))))
    monkeypatch.setitem(content.GOLDEN, "cifar100", tuple(hashes))


@pytest.mark.parametrize("form", [0, 1])
def test_the_official_content_is_known_in_any_order(folder, golden, monkeypatch, form):
    write_folder(folder, "cifar100", form)
    assert content_of("cifar100").official is True
    made = [[array[::-1] for array in part] for part in images_of("cifar100")]
    again = folder / "again"
    again.mkdir()
    shutil.move(write_both_forms(again, made)[form], again)
    found = content_of("cifar100", again)
    assert found == (True, "that of the official cifar100, by the SHA-256 of its images and labels in any order")


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("what", range(3), ids=["a pixel", "a fine label", "a coarse label"])
@pytest.mark.parametrize("part", [0, 1], ids=["train", "test"])
def test_one_changed_byte_is_other_content(folder, golden, form, what, part):
    made = images_of("cifar100")
    made[part][what].flat[0] ^= 1
    write_both_forms(folder, made)
    found = content_of("cifar100", folder / str(form))
    words = f"at least one of the {('40 training', '6 test')[part]} images or labels is not the official one"
    assert found == (False, f"NOT that of the official cifar100: {words}")


def test_labels_of_two_images_exchanged_are_other_content(folder, golden):
    made = images_of("cifar100")
    made[0][1][:2] = made[0][1][1::-1]
    write_both_forms(folder, made)
    assert content_of("cifar100", folder / "1").official is False


def test_fewer_images_are_other_content(folder):
    write_folder(folder, "cifar100", 1)
    found = content_of("cifar100")
    assert found.official is False
    assert found.words.endswith("40 training images, expected 50,000; 6 test images, expected 10,000")


def test_an_archive_is_official_by_its_md5(folder, monkeypatch):
    path = write_archive(monkeypatch, folder, "cifar100", 0)
    assert content_of("cifar100") == (True, "that of the official cifar100, by size, MD5 and SHA-256 of its archive")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataDamagedError, match="MD5"):
        content_of("cifar100")


def test_of_a_folder_of_cifar_10_nothing_is_said_that_is_not_known(folder):
    write_folder(folder, "cifar10", 1)
    assert content_of("cifar10").official is None


def test_a_coarse_label_that_is_none_is_damage(folder):
    made = images_of("cifar100")
    made[1][2][0] = 20
    write_both_forms(folder, made)
    with pytest.raises(DataDamagedError, match="outside 0"):
        content_of("cifar100", folder / "0")


def test_nothing_is_missing_and_not_downloaded(folder, monkeypatch):
    monkeypatch.setattr(cifar, "fetch", lambda *_: pytest.fail("a download"))
    with pytest.raises(DataMissingError, match="cifar100 was not found"):
        content_of("cifar100")


@pytest.mark.parametrize("read", [lambda: load_cifar("cifar100"), CIFAR100DataProvider], ids=["load", "provider"])
def test_a_part_of_the_data_set_is_read_and_named_in_one_line(folder, caplog, monkeypatch, read):
    place = write_folder(folder, "cifar100", 0)
    monkeypatch.setattr("mlp.data_providers.cifar_providers.TRAINING_IMAGES", 30)
    with caplog.at_level(logging.WARNING):
        read()
    (line,) = caplog.messages
    expected = "holds 40 training and 6 test images; the official cifar100 has 50,000 training and 10,000 test images"
    assert line == f"{place} {expected}"


def test_as_many_images_as_there_should_be_are_read_without_a_word(folder, caplog, monkeypatch):
    write_folder(folder, "cifar100", 0)
    monkeypatch.setattr(cifar, "NUM_TRAIN", 40)
    monkeypatch.setattr(cifar, "NUM_TEST", 6)
    load_cifar("cifar100")
    assert caplog.messages == []
