"""The reader of npz files: arrays of numbers and names, or damage that is told."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp.data_providers import DataDamagedError, DataMissingError
from mlp.data_providers.npz import check_examples, check_set, need_file, read_npz

from .test_mnist import MEMBERS, changed, npy
from .test_pickle_reader import EDITS, Evil, edited

ARRAYS = {
    "inputs": np.arange(12, dtype=np.float32).reshape(4, 3),
    "targets": np.arange(4),
    "names": np.array(["a", "ö"]),
}


def packed(save=np.savez, **arrays):
    buffer = io.BytesIO()
    save(buffer, **(arrays or ARRAYS))
    return buffer.getvalue()


def assert_damaged(path, *names, match=None):
    before = path.read_bytes()
    with pytest.raises(DataDamagedError, match=match) as caught:
        read_npz(path, *(names or ARRAYS))
    assert str(path) in str(caught.value)
    assert "left as it is" in str(caught.value)
    assert path.read_bytes() == before


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_in_the_order_they_are_asked_for(path, save):
    path.write_bytes(packed(save))
    names = ("targets", "names", "inputs")
    arrays = read_npz(path, *names)
    for name, array in zip(names, arrays, strict=True):
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_what_is_not_asked_for_is_not_read(path):
    path.write_bytes(packed(inputs=ARRAYS["inputs"], other=np.array([{"a": 1}], dtype=object)))
    np.testing.assert_array_equal(read_npz(path, "inputs")[0], ARRAYS["inputs"])


def test_arrays_may_be_written_to(path):
    path.write_bytes(packed())
    read_npz(path, "inputs")[0][0] = 7


def test_lacking_names_are_listed_beside_those_that_are_there(path):
    path.write_bytes(packed(b=np.ones(1), a=np.ones(1)))
    assert_damaged(path, "inputs", "b", "targets", match="it lacks inputs, targets and holds a, b")


def test_an_empty_archive_holds_nothing(path):
    with zipfile.ZipFile(path, "w"):
        pass
    assert_damaged(path, "inputs", match="it lacks inputs and holds nothing")


def test_objects_are_refused_and_do_not_run(path, tmp_path):
    evil = Evil(open, str(tmp_path / "marker"), "w")
    path.write_bytes(packed(inputs=np.array([evil], dtype=object)))
    assert_damaged(path, "inputs")
    assert not (tmp_path / "marker").exists()
    with np.load(path, allow_pickle=True) as content:
        content["inputs"][0].close()
    assert (tmp_path / "marker").exists()


def test_a_pickle_in_place_of_the_file_does_not_run(path, tmp_path):
    import pickle

    path.write_bytes(pickle.dumps(Evil(open, str(tmp_path / "marker"), "w")))
    assert_damaged(path)
    assert not (tmp_path / "marker").exists()


def test_records_of_objects_are_refused(path):
    path.write_bytes(packed(inputs=np.array([(1, {})], dtype=[("a", int), ("b", object)])))
    assert_damaged(path, "inputs")


OTHERS = {
    "text": b"garbage" * 100,
    "pickle": b"\x80\x02}.",
    "npy": npy(np.ones(3)),
    "gz": b"\x1f\x8b\x08",
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_another_file_is_damaged(path, data):
    path.write_bytes(data)
    assert_damaged(path)


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_members_that_are_no_arrays_are_damaged(path, member):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs.npy", member)
    assert_damaged(path, "inputs")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_damaged_wherever_it_ends(path, save):
    data = packed(save)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert_damaged(path)


@pytest.mark.parametrize("what", ["checksum", "stream", "method", "encrypted"])
def test_a_damaged_archive_is_damaged(path, what):
    path.write_bytes(changed(packed(np.savez_compressed), what))
    assert_damaged(path)


def test_a_file_that_is_not_there_or_a_folder_is_told_by_name(path):
    for _ in range(2):
        with pytest.raises(DataDamagedError, match=path.name):
            read_npz(path, "inputs")
        path.mkdir(exist_ok=True)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([np.savez, np.savez_compressed]), st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_file_is_read_or_damaged(tmp_path_factory, save, edits):
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(edited(packed(save), edits))
    try:
        arrays = read_npz(path, *ARRAYS)
    except DataDamagedError:
        return
    assert [type(array) for array in arrays] == [np.ndarray] * 3


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_member_is_read_or_damaged(tmp_path_factory, edits):
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs.npy", edited(npy(ARRAYS["inputs"]), edits))
    try:
        (array,) = read_npz(path, "inputs")
    except DataDamagedError:
        return
    assert array.dtype.kind != "O"


def test_a_needed_file_is_found_or_missed_with_every_place_and_the_advice(folder, tmp_path):
    with pytest.raises(DataMissingError) as caught:
        need_file("some.npz", "The thing", tmp_path / "given", "Do this.")
    text = str(caught.value)
    assert text.startswith("The thing was not found")
    assert text.endswith("Do this.")
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place / "some.npz") in text
    (folder / "some.npz").touch()
    assert need_file("some.npz", "The thing", None, "") == folder / "some.npz"


def test_a_set_is_one_of_those_named():
    assert check_set(int, "train", ("train", "valid")) == "train"
    for wrong in ("Train", "", None, 0):
        with pytest.raises(ValueError, match=r"int: which_set.*'train', 'valid'"):
            check_set(int, wrong, ("train", "valid"))


@pytest.mark.parametrize("labels", [[0, 1, 2], [2, 2, 2]])
def test_examples_with_a_label_each_are_let_through(path, labels):
    check_examples(path, np.ones((3, 2)), np.array(labels), 3)


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (np.ones((3, 2)), np.array([0, 1, 3])),
        (np.ones((3, 2)), np.array([0, 1, -1])),
        (np.ones((3, 2)), np.array([0, 1])),
        (np.ones((3, 2)), np.ones(3)),
        (np.ones((3, 2)), np.ones((3, 1), int)),
        (np.ones((3, 2)), np.array([True, False, True])),
        (np.ones((3, 2), complex), np.arange(3)),
        (np.array(["a", "b", "c"]), np.arange(3)),
        (np.ones((0, 2)), np.arange(0)),
        (np.ones((3, 0)), np.arange(3)),
        (np.ones(()), np.array(0)),
        (np.ones(()), np.arange(3)),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_examples_without_a_label_each_are_damaged(path, inputs, labels):
    with pytest.raises(DataDamagedError, match=path.name):
        check_examples(path, inputs, labels, 3)
