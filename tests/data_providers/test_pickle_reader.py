"""The reader of pickled files: what it reads, and that it reads nothing else and runs nothing."""

import builtins
import contextlib
import io
import os
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mlp.data_providers import DataDamagedError, pickle_reader
from mlp.data_providers.pickle_reader import read_pickled_dict

from . import python2
from .python2 import EMPTY_ARRAY, array_state, integer, name_of, string

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 12)
RECORD = {
    b"batch_label": b"training batch 1 of 1",
    b"filenames": [b"a.png", b"b.png"],
    b"fine_labels": [3, 99],
    b"big": [256, 70_000, -5, 2**40],
    b"data": PIXELS,
}
STAND_INS = list(pickle_reader._NAMES.values())


def in_dict(value):
    """Return the pickle of a dictionary that holds, as data, what these opcodes make."""
    return b"\x80\x02}" + string(b"data") + value + b"s."


def assert_record(content):
    assert {key: value for key, value in content.items() if key != "data"} == {
        key.decode(): value for key, value in RECORD.items() if key != b"data"
    }
    assert content["data"].dtype == np.uint8
    np.testing.assert_array_equal(content["data"], PIXELS)


def memory_of_stand_ins():
    return [dict(getattr(stand_in, "__dict__", {})) for stand_in in STAND_INS]


@contextlib.contextmanager
def stand_ins_restored():
    """Take back what a file managed to do to the reader's own names, so that one test cannot spoil the next."""
    before = memory_of_stand_ins()
    try:
        yield
    finally:
        for stand_in, attributes in zip(STAND_INS, before, strict=True):
            for name in set(getattr(stand_in, "__dict__", {})) - set(attributes):
                delattr(stand_in, name)
            for name, value in attributes.items():
                if vars(stand_in)[name] is not value:
                    setattr(stand_in, name, value)


@pytest.fixture(autouse=True)
def _stand_ins_restored():
    with stand_ins_restored():
        yield


def test_the_helper_writes_what_pickle_itself_reads():
    content = pickle.loads(python2.dumps(RECORD), encoding="bytes")
    np.testing.assert_array_equal(content.pop(b"data"), PIXELS)
    assert content == {key: value for key, value in RECORD.items() if key != b"data"}


def test_it_reads_what_python_2_wrote():
    assert_record(read_pickled_dict(python2.dumps(RECORD), "file"))


def test_it_reads_many_memo_entries_and_long_strings():
    names = [f"image_{i}.png".encode() for i in range(700)]
    text = b"x" * 300
    content = read_pickled_dict(python2.dumps({b"filenames": names, b"text": text, b"data": PIXELS}), "file")
    assert content["filenames"] == names
    assert content["text"] == text
    np.testing.assert_array_equal(content["data"], PIXELS)


@pytest.mark.parametrize("keys", [bytes, str])
def test_it_reads_what_python_3_wrote_in_protocol_3(keys):
    record = {key if keys is bytes else key.decode(): value for key, value in RECORD.items()}
    assert_record(read_pickled_dict(pickle.dumps(record, 3), "file"))


def test_it_reads_an_empty_dictionary_and_the_constants():
    assert read_pickled_dict(python2.dumps({}), "file") == {}
    assert read_pickled_dict(pickle.dumps({"a": None, "b": True, "c": False, "d": ()}, 3), "file") == {
        "a": None,
        "b": True,
        "c": False,
        "d": (),
    }


@pytest.mark.parametrize("shape", [(0, 12), (24,), (2, 3, 4), ()])
def test_arrays_have_the_shape_they_were_given(shape):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.uint8).reshape(shape)
    content = read_pickled_dict(python2.dumps({b"data": array}), "file")
    assert content["data"].shape == shape
    np.testing.assert_array_equal(content["data"], array)


@pytest.mark.parametrize("protocol", [4, 5])
def test_newer_protocols_are_refused_cleanly(protocol):
    with pytest.raises(DataDamagedError, match="opcode FRAME at byte 2 is not admitted"):
        read_pickled_dict(pickle.dumps({"a" * 10: 1}, protocol), "file")


@pytest.mark.parametrize("value", [[1, 2], 5, b"text", None, (1,), PIXELS], ids=type)
def test_what_is_no_dictionary_is_refused(value):
    with pytest.raises(DataDamagedError, match="FILE"):
        read_pickled_dict(pickle.dumps(value, 3), "FILE")


def test_the_error_names_the_file():
    with pytest.raises(DataDamagedError, match=r"^/some/where: train: not a CIFAR file"):
        read_pickled_dict(b"", "/some/where: train")


class Evil:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Return pickles that make a file, by name."""
    command, code = f"echo > '{marker}'", f"open({str(marker)!r}, 'w').close()"
    found = {
        "system by text": f"(S'data'\ncos\nsystem\n(S\"{command}\"\ntRd.".encode(),
        "system": in_dict(name_of("os", "system") + string(command.encode()) + b"\x85R"),
        "eval": in_dict(name_of("builtins", "eval") + string(code.encode()) + b"\x85R"),
        "python 2's eval": in_dict(name_of("__builtin__", "eval") + string(code.encode()) + b"\x85R"),
        "inst": f"(S'data'\n(S\"{command}\"\nios\nsystem\nd.".encode(),
        "obj": in_dict(b"(" + name_of("os", "system") + string(command.encode()) + b"o"),
        "stack global": b"\x80\x04}\x8c\x04data\x8c\x02os\x8c\x06system\x8c"
        + bytes([len(command)])
        + command.encode()
        + b"\x85\x93Rs.",
        "after the record": python2.dumps(RECORD)[:-1]
        + b"0"
        + name_of("os", "system")
        + string(command.encode())
        + b"\x85R.",
    }
    for protocol in range(6):
        found[f"reduce {protocol}"] = pickle.dumps({"data": Evil(os.system, command)}, protocol)
        found[f"reduce {protocol} to eval"] = pickle.dumps([Evil(builtins.eval, code)], protocol)
        objects = np.array([Evil(os.system, command)], dtype=object)
        found[f"object array {protocol}"] = pickle.dumps({"data": objects}, protocol)
    return found


@pytest.mark.parametrize("name", attacks("marker"))
def test_a_malicious_file_is_refused_and_does_not_run(name, tmp_path):
    data = attacks(tmp_path / "marker")[name]
    with pytest.raises(DataDamagedError):
        read_pickled_dict(data, "file")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["system by text", "eval", "inst", "reduce 2", "object array 3", "after the record"])
def test_the_malicious_files_would_run_elsewhere(name, tmp_path):
    pickle.loads(attacks(tmp_path / "marker")[name])
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "encode"),
        ("numpy", "load"),
        ("numpy", "ndarray.__class__"),
        ("numpy", "dtype.__init__.__globals__"),
        ("numpy.core", "multiarray._reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("mlp.data_providers.pickle_reader", "_reconstruct"),
    ],
)
def test_no_other_name_is_looked_up(module, name):
    with pytest.raises(DataDamagedError, match="which this file has no need of"):
        read_pickled_dict(in_dict(name_of(module, name)), "file")


def test_all_is_checked_before_the_first_opcode_runs(monkeypatch):
    looked_up = []
    monkeypatch.setattr(pickle_reader._Reader, "find_class", lambda *names: looked_up.append(names))
    with pytest.raises(DataDamagedError, match="opcode POP"):
        read_pickled_dict(b"\x80\x02}" + name_of("numpy", "ndarray") + b"0.", "file")
    assert looked_up == []


@pytest.mark.parametrize("code", [b"O8", b"O", b"i8", b"u2", b"f4", b"S1", b"V1", b"|u1", b"", b"u1,O8"])
def test_an_array_of_anything_but_bytes_is_refused(code):
    with pytest.raises(DataDamagedError, match="expected bytes"):
        read_pickled_dict(in_dict(EMPTY_ARRAY + array_state((2, 4), bytes(8), code)), "file")


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_, np.uint16, "S3", object])
@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_numpy_s_own_pickles_of_other_arrays_are_refused(dtype, protocol):
    with pytest.raises(DataDamagedError):
        read_pickled_dict(pickle.dumps({"data": np.ones(4).astype(dtype)}, protocol), "file")


@pytest.mark.parametrize("length", [0, 1, 7, 9, 16])
def test_a_wrong_number_of_bytes_is_refused(length):
    with pytest.raises(DataDamagedError, match="shape does not match"):
        read_pickled_dict(in_dict(EMPTY_ARRAY + array_state((2, 4), bytes(length))), "file")


@pytest.mark.parametrize("shape", [(-2, -4), (-1, 8), (2, 2**40), (0, -1)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(DataDamagedError):
        read_pickled_dict(in_dict(EMPTY_ARRAY + array_state(shape, bytes(8))), "file")


def test_a_fortran_array_is_refused():
    with pytest.raises(DataDamagedError):
        read_pickled_dict(in_dict(EMPTY_ARRAY + array_state((2, 4), bytes(8), fortran=True)), "file")
    with pytest.raises(DataDamagedError):
        read_pickled_dict(pickle.dumps({"data": np.asfortranarray(PIXELS)}, 3), "file")


@pytest.mark.parametrize(
    "state",
    [
        b"N",
        b")",
        b"K\x05",
        b"}",
        b"(K\x01K\x02K\x03t",
        b"(K\x01(K\x08tK\x00\x89U\x08aaaaaaaat",
        b"(K\x01(K\x08t" + name_of("numpy", "dtype") + b"\x89U\x08aaaaaaaat",
        b"(K\x01K\x08" + name_of("numpy", "dtype") + b"U\x02u1\x85R\x89U\x08aaaaaaaat",
        b"(K\x01(K\x08t" + name_of("numpy", "dtype") + b"U\x02u1\x85R\x89X\x08\x00\x00\x00aaaaaaaat",
        b"(K\x01(U\x01at" + name_of("numpy", "dtype") + b"U\x02u1\x85R\x89U\x01at",
    ],
)
def test_a_state_that_is_no_array_s_is_refused(state):
    with pytest.raises(DataDamagedError):
        read_pickled_dict(in_dict(EMPTY_ARRAY + state + b"b"), "file")


def test_truncated_data_are_refused_wherever_they_end():
    data = python2.dumps(RECORD)
    for length in range(len(data)):
        with pytest.raises(DataDamagedError):
            read_pickled_dict(data[:length], "file")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x00" * 100,
        b"hello world",
        b"\x1f\x8b\x08",
        b"\x80\x02.",
        b"\x80\xff}.",
        b"\x80\x02}(K\x01u.",
        b"(",
    ],
)
def test_garbage_is_refused(data):
    with pytest.raises(DataDamagedError):
        read_pickled_dict(data, "file")


@pytest.mark.parametrize("key", [b"\xff\xfe", b"caf\xe9"])
def test_a_key_that_is_no_ascii_is_refused(key):
    with pytest.raises(DataDamagedError):
        read_pickled_dict(python2.dumps({key: 1}), "file")


def test_deep_nesting_is_refused_or_read_but_breaks_nothing():
    depth = 100_000
    with contextlib.suppress(DataDamagedError):
        read_pickled_dict(in_dict(b"]" * depth + b"a" * (depth - 1)), "file")
    with pytest.raises(DataDamagedError):
        read_pickled_dict(b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s.", "file")


@pytest.mark.parametrize("put", [b"r" + struct.pack("<I", 1 << 22), b"p4194304\n"], ids=["binary", "text"])
def test_a_huge_memo_index_buys_no_memory(put):
    data = b"\x80\x02}" + put + b"."
    tracemalloc.start()
    try:
        with contextlib.suppress(DataDamagedError):
            read_pickled_dict(data, "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_doubling_tuples_make_no_giant_message():
    doubling = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(16))
    with pytest.raises(DataDamagedError) as caught:
        read_pickled_dict(in_dict(name_of("numpy", "dtype") + doubling + b"\x85R"), "file")
    assert len(str(caught.value)) < 1000


SLOTS = b"N}X\x05\x00\x00\x00valueK\x07s\x86b"
"""The state (None, {"value": 7}): pickle sets its second half with setattr."""
DICT = b"}X\x05\x00\x00\x00valueK\x07sb"
"""The state {"value": 7}: pickle updates __dict__ with it."""


@pytest.mark.parametrize("state", [SLOTS, DICT], ids=["setattr", "dict"])
@pytest.mark.parametrize(
    "target",
    [
        name_of("numpy", "ndarray"),
        name_of("numpy", "dtype"),
        name_of("numpy.core.multiarray", "_reconstruct"),
        EMPTY_ARRAY,
    ],
    ids=["ndarray", "dtype", "reconstruct", "an array"],
)
def test_no_attribute_of_a_stand_in_can_be_set(target, state):
    before = memory_of_stand_ins()
    with pytest.raises(DataDamagedError):
        read_pickled_dict(in_dict(target + state), "file")
    assert memory_of_stand_ins() == before


def test_a_file_cannot_change_how_the_next_one_is_read():
    def method(name, function):
        return name_of("numpy", "ndarray") + b"N}X" + struct.pack("<I", len(name)) + name + function + b"s\x86b"

    for name in (b"__eq__", b"__new__", b"__setstate__", b"__call__", b"__hash__", b"__del__"):
        with contextlib.suppress(DataDamagedError):
            read_pickled_dict(in_dict(method(name, name_of("numpy.core.multiarray", "_reconstruct"))), "file")
        code = array_state((2, 4), bytes(8)).replace(string(b"u1"), name_of("numpy", "ndarray") + b")R")
        with pytest.raises(DataDamagedError):
            read_pickled_dict(in_dict(EMPTY_ARRAY + code), "file")
        assert_record(read_pickled_dict(python2.dumps(RECORD), "file"))


@pytest.mark.parametrize(
    "value",
    [
        name_of("numpy", "ndarray"),
        name_of("numpy", "ndarray") + b")R",
        name_of("numpy", "dtype") + string(b"u1") + b"\x85R",
        name_of("numpy.core.multiarray", "_reconstruct"),
        b"]" + EMPTY_ARRAY + array_state((2, 4), bytes(8)) + b"a",
    ],
    ids=["ndarray", "an ndarray", "a dtype", "reconstruct", "array in a list"],
)
def test_no_stand_in_comes_out(value):
    try:
        content = read_pickled_dict(in_dict(value), "file")
    except DataDamagedError:
        return
    found = content["data"][0] if isinstance(content["data"], list) else content["data"]
    assert type(found) is np.ndarray


def huge_memo_index(data):
    """Whether a mutation asks for a memo of gigabytes: test_a_huge_memo_index_buys_no_memory has that case."""
    with contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name in ("PUT", "LONG_BINPUT") and argument > 1 << 16:
                return True
    return False


def assert_only_damage(data):
    assume(not huge_memo_index(data))
    with stand_ins_restored():
        try:
            content = read_pickled_dict(data, "file")
        except DataDamagedError:
            return
        assert all(type(key) is str for key in content)


SAMPLES = (python2.dumps(RECORD), pickle.dumps(RECORD, 3), pickle.dumps({"labels": [1, 2], "data": PIXELS}, 3))
EDITS = st.tuples(
    st.sampled_from(["set", "insert", "delete", "cut", "swap"]),
    st.integers(0, 10**4),
    st.binary(min_size=1, max_size=4),
)


def edited(data, edits):
    for kind, where, new in edits:
        at = where % (len(data) + 1)
        if kind == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[at:] + data[:at]
    return data


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(SAMPLES), st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_file_is_read_or_damaged(data, edits):
    assert_only_damage(edited(data, edits))


def test_a_file_with_any_one_byte_changed_is_read_or_damaged():
    for at in range(len(SAMPLES[0])):
        for value in (0, ord("b"), ord("R"), ord("."), ord("("), 0xFF):
            data = SAMPLES[0][:at] + bytes([value]) + SAMPLES[0][at + 1 :]
            if not huge_memo_index(data):
                with stand_ins_restored(), contextlib.suppress(DataDamagedError):
                    read_pickled_dict(data, "file")


PIECES = [
    *(b"N \x88 \x89 } ] ) ( t \x85 \x86 \x87 s u a e R b d K\x00 K\x05 q\x01 h\x01 q\x02 h\x02".split()),
    *(name_of(*name) for name in pickle_reader._NAMES),
    EMPTY_ARRAY,
    EMPTY_ARRAY + array_state((2, 2), bytes(4)),
    string(b"u1"),
    string(b"data"),
    integer(2**40),
    integer(-1),
    b"X\x0c\x00\x00\x00__setstate__",
    b"X\x05\x00\x00\x00value",
    b"X\x08\x00\x00\x00__dict__",
]


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=25))
@example([name_of("numpy", "ndarray"), b"N", b"}", string(b"data"), b"N", b"s", b"\x86", b"b"])
def test_any_sequence_of_admitted_opcodes_is_read_or_damaged(pieces):
    assert_only_damage(b"\x80\x02" + b"".join(pieces) + b".")
    assert_only_damage(in_dict(b"".join(pieces)))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_read_or_damaged(data):
    assert_only_damage(data)
