"""The reader of pickled files: what it reads, and that it reads nothing else and runs nothing."""

import builtins
import contextlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mlp.data_providers import DataDamagedError, pickle_reader
from mlp.data_providers.pickle_reader import read_pack, read_pickled_dict

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
STAND_INS = [pickle_reader._Name, pickle_reader._DType, pickle_reader._Array, pickle_reader._Machine]


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


def defaults_of_stand_ins():
    return [getattr(stand_in, "__defaults__", None) for stand_in in STAND_INS]


@contextlib.contextmanager
def stand_ins_restored():
    """Take back what a file managed to do to the reader's own names, so that one test cannot spoil the next."""
    before, defaults = memory_of_stand_ins(), defaults_of_stand_ins()
    try:
        yield
    finally:
        for stand_in, default in zip(STAND_INS, defaults, strict=True):
            if getattr(stand_in, "__defaults__", None) is not default:
                stand_in.__defaults__ = default
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


def test_python_s_own_machine_is_not_used(monkeypatch):
    def never(*_):
        raise AssertionError("pickle was asked")

    for name in ("Unpickler", "_Unpickler", "load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, never)
    assert_record(read_pickled_dict(python2.dumps(RECORD), "file"))


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
    *(name_of(*name) for name in sorted(pickle_reader._NAMES)),
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


# --- what a file may cost


def peak_of(read, data):
    """Return what was read (None: damage) and the most bytes that Python held meanwhile."""
    content = None
    tracemalloc.start()
    try:
        with contextlib.suppress(DataDamagedError):
            content = read(data, "file")
        return content, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def text(value):
    """Return the opcode of a `str`."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def as_dict(key=b"U\x01a", value=b"N"):
    """Return the pickle of a dictionary with one entry, for `read_pickled_dict`."""
    return b"\x80\x02}" + key + value + b"s."


def as_pack(key=b"U\x01a", value=None):
    """Return the same as a pack; the value is an array of two numbers unless one is given."""
    return packed(b"}" + key + (TWO_NUMBERS if value is None else value) + b"s")


READERS = {"dict": (read_pickled_dict, as_dict), "pack": (read_pack, as_pack)}
every_reader = pytest.mark.parametrize(("read", "build"), READERS.values(), ids=READERS)


@every_reader
@pytest.mark.parametrize(
    "item", [b"]K\x00a", b"U\x01x", b"X\x01\x00\x00\x00x", b"K\x00\x85"], ids="list bytes str tuple".split()
)
def test_a_shape_that_multiplies_a_sequence_buys_no_memory(read, build, item):
    state = array_state((2, 4), bytes(8)).replace(b"(K\x02K\x04t", b"(" + item + integer(10**7) + b"t")
    content, peak = peak_of(read, build(value=EMPTY_ARRAY + state))
    assert content is None
    assert peak < 4_000_000


@every_reader
@pytest.mark.parametrize("levels", [8, 17])
def test_a_key_of_doubling_tuples_is_no_longer_than_its_file(read, build, levels):
    data = build(b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(levels)))
    content, peak = peak_of(read, data)
    assert all(len(key) <= len(data) for key in content or ())
    assert peak < 1_000_000


@pytest.mark.parametrize("reader", READERS)
def test_a_key_of_a_million_nested_tuples_breaks_nothing(reader):
    code = f"""
from mlp.data_providers import DataDamagedError
from tests.data_providers.test_pickle_reader import READERS
read, build = READERS[{reader!r}]
try:
    read(build(b")" + b"\\x85" * 3_000_000), "file")
except DataDamagedError:
    print("damaged")
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=root)
    assert (done.returncode, done.stdout.strip()) == (0, "damaged"), done.stderr[-1000:]


# --- packs


def npy_of(pickled):
    """Return the npy file, as numpy.save writes it, of one object with this pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array({}, dtype=object))
    data = buffer.getvalue()
    return data[: 10 + int.from_bytes(data[8:10], "little")] + pickled


def pack_of(content, protocol=4):
    """Return the file of numpy.save, of any version of NumPy: its pickle has one protocol or another."""
    return npy_of(pickle.dumps(np.array(content, dtype=object), protocol))


def packed(value, state=None):
    """Return the pack of what these opcodes make."""
    state = state or array_state((), b"", b"O8").replace(string(b""), b"]" + value + b"a")
    return npy_of(b"\x80\x04" + EMPTY_ARRAY + state + b".")


TWO_NUMBERS = EMPTY_ARRAY + array_state((2,), np.array([1.5, -2.0]).tobytes(), b"f8")
CONTENT = {
    "leaky_relu": {"fprop_correct": np.arange(6.0).reshape(2, 3), "grad_correct": np.ones((2, 1), np.float32)},
    "counts": np.array([-1, 2**40]),
    "nothing": {},
    "deep": {"deeper": {"deepest": np.arange(4, dtype=np.uint8), "scalar": np.array(3.5)}},
}
FLAT = {
    "leaky_relu/fprop_correct": CONTENT["leaky_relu"]["fprop_correct"],
    "leaky_relu/grad_correct": CONTENT["leaky_relu"]["grad_correct"],
    "counts": CONTENT["counts"],
    "deep/deeper/deepest": CONTENT["deep"]["deeper"]["deepest"],
    "deep/deeper/scalar": CONTENT["deep"]["deeper"]["scalar"],
}
every_protocol = pytest.mark.parametrize("protocol", [2, 3, 4])


def assert_flat(arrays):
    assert list(arrays) == list(FLAT)
    for key, array in arrays.items():
        assert (type(array), array.dtype, array.shape) == (np.ndarray, FLAT[key].dtype, FLAT[key].shape)
        np.testing.assert_array_equal(array, FLAT[key])


def assert_no_pack(data, match=None):
    with pytest.raises(DataDamagedError, match=match) as caught:
        read_pack(data, "PACK")
    assert str(caught.value).startswith("PACK: not a pack of the coursework, or damaged")


@every_protocol
def test_a_pack_is_read(protocol):
    assert_flat(read_pack(pack_of(CONTENT, protocol), "pack"))


def test_what_numpy_saves_is_read():
    buffer = io.BytesIO()
    np.save(buffer, CONTENT)
    assert_flat(read_pack(buffer.getvalue(), "pack"))


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_older_versions_of_numpy_saved_is_read(protocol):
    data = pack_of(CONTENT, protocol)
    assert b"numpy._core" in data
    assert_flat(read_pack(data.replace(b"numpy._core", b"numpy.core"), "pack"))


def test_what_python_2_saved_is_read():
    value = b"}" + string(b"a") + b"}" + string(b"b") + TWO_NUMBERS + b"ss"
    data = packed(value).replace(b"\x80\x04", b"\x80\x02", 1)
    assert {key: array.tolist() for key, array in read_pack(data, "pack").items()} == {"a/b": [1.5, -2.0]}


@every_protocol
def test_an_empty_pack_has_no_arrays(protocol):
    assert read_pack(pack_of({}, protocol), "pack") == {}


@every_protocol
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 4)])
def test_arrays_of_numbers_come_back(protocol, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = read_pack(pack_of({"a": array}, protocol), "pack")["a"]
    assert (found.dtype, found.shape) == (dtype, shape)
    np.testing.assert_array_equal(found, array)


def test_numbers_of_every_kind_come_back_to_the_bit():
    array = np.array([np.nan, -0.0, np.inf, 5e-324, 1.7976931348623157e308])
    assert read_pack(pack_of({"a": array}), "pack")["a"].tobytes() == array.tobytes()


@every_protocol
def test_one_array_under_two_names_is_read_twice(protocol):
    array = np.arange(3.0)
    arrays = read_pack(pack_of({"a": array, "b": {"c": array}}, protocol), "pack")
    assert {key: value.tolist() for key, value in arrays.items()} == {"a": [0, 1, 2], "b/c": [0, 1, 2]}


@every_protocol
@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i8"])
def test_big_endian_numbers_are_refused(protocol, dtype):
    assert_no_pack(pack_of({"a": np.ones(3, dtype)}, protocol), "byte order")


@every_protocol
@pytest.mark.parametrize("dtype", ["U3", "S3", "M8[s]", "V4", np.complex128, "i4,f8"])
def test_arrays_of_anything_but_numbers_are_refused(protocol, dtype):
    assert_no_pack(pack_of({"a": np.zeros(3, dtype)}, protocol))


@every_protocol
def test_an_array_of_objects_within_a_pack_is_refused(protocol):
    assert_no_pack(pack_of({"a": np.array([1, "b"], dtype=object)}, protocol))


def test_arrays_out_of_band_are_refused():
    assert_no_pack(pack_of(CONTENT, 5), "opcode BYTEARRAY8|has no need of")


@every_protocol
@pytest.mark.parametrize("content", [5, 1.5, "text", b"bytes", None, True], ids=repr)
def test_what_is_no_dictionary_is_no_pack(protocol, content):
    assert_no_pack(pack_of(content, protocol))


def test_an_object_that_is_no_dictionary_is_no_pack():
    for value in (b"]", b")", EMPTY_ARRAY, TWO_NUMBERS, b"cnumpy\nndarray\n", b"c_codecs\nencode\n"):
        assert_no_pack(packed(value))
    for pickled in (b"}.", b"N.", EMPTY_ARRAY + b".", TWO_NUMBERS + b".", b"cnumpy\nndarray\n."):
        assert_no_pack(npy_of(b"\x80\x04" + pickled))


OTHER_FILES = {
    "nothing": b"",
    "text": b"hello world",
    "a magic": b"\x93NUMPY\x01\x00",
    "no pickle": npy_of(b""),
    "a pickle alone": pickle.dumps(CONTENT, 4),
    "version 2": npy_of(pickle.dumps(np.array({}, dtype=object), 4)).replace(b"NUMPY\x01", b"NUMPY\x02"),
    "numbers": npy_of(b"").replace(b"'|O'", b"'<f8'") + bytes(64),
    "a zip": b"PK\x03\x04" * 100,
}


@pytest.mark.parametrize("data", OTHER_FILES.values(), ids=OTHER_FILES)
def test_another_file_is_no_pack(data):
    assert_no_pack(data)


def test_a_pack_is_no_cifar_file_and_the_other_way_round():
    with pytest.raises(DataDamagedError):
        read_pickled_dict(pickle.dumps(CONTENT, 4), "file")
    with pytest.raises(DataDamagedError):
        read_pickled_dict(pickle.dumps({"a": np.ones(2)}, 3), "file")
    assert_no_pack(python2.dumps(RECORD))


def test_a_truncated_pack_is_refused_wherever_it_ends():
    for protocol in (2, 3, 4):
        data = pack_of(CONTENT, protocol)
        for length in range(len(data)):
            with pytest.raises(DataDamagedError):
                read_pack(data[:length], "pack")


@pytest.mark.parametrize("name", attacks("marker"))
def test_a_malicious_pack_is_refused_and_does_not_run(name, tmp_path):
    assert_no_pack(npy_of(attacks(tmp_path / "marker")[name]))
    assert not (tmp_path / "marker").exists()


def nested_attacks(marker):
    """Return packs with something that makes a file, by name."""
    evil = Evil(os.system, f"echo > '{marker}'")
    arguments = text(f"echo > '{marker}'") + b"\x85R"
    stack_global = text("os") + text("system") + b"\x93" + arguments
    found = {
        "global in a value": packed(b"}" + text("a") + name_of("os", "system") + arguments + b"s"),
        "global in a key": packed(b"}" + name_of("os", "system") + arguments + TWO_NUMBERS + b"s"),
        "stack global in a value": packed(b"}" + text("a") + stack_global + b"s"),
        "stack global beside the dictionary": packed(b"}a" + stack_global),
        "in a shape": packed(b"}" + text("a") + TWO_NUMBERS.replace(b"(K\x02t", b"(" + stack_global + b"t") + b"s"),
        "in a code": packed(b"}" + text("a") + TWO_NUMBERS.replace(string(b"f8"), stack_global) + b"s"),
        "after the pack": pack_of(CONTENT)[:-1] + stack_global + b".",
    }
    for protocol in range(2, 6):
        found |= {
            f"value {protocol}": pack_of({"a": evil}, protocol),
            f"nested {protocol}": pack_of({"a": {"b": [evil]}}, protocol),
            f"array {protocol}": pack_of({"a": np.array([evil], dtype=object)}, protocol),
            f"alone {protocol}": pack_of(evil, protocol),
        }
    return found


@pytest.mark.parametrize("name", nested_attacks("marker"))
def test_malice_deep_in_a_pack_is_refused_and_does_not_run(name, tmp_path):
    assert_no_pack(nested_attacks(tmp_path / "marker")[name])
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", nested_attacks("marker"))
def test_the_malicious_packs_would_run_elsewhere(name, tmp_path):
    data = nested_attacks(tmp_path / "marker")[name]
    with contextlib.suppress(Exception):
        np.load(io.BytesIO(data), allow_pickle=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "spell", [name_of, lambda *names: b"".join(map(text, names)) + b"\x93"], ids=["global", "stack"]
)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("_codecs", "decode"),
        ("codecs", "encode"),
        ("numpy", "dtype.__init__.__globals__"),
        ("_codecs", "encode.__globals__"),
    ],
)
def test_no_other_name_is_looked_up_in_a_pack(spell, module, name):
    assert_no_pack(packed(b"}" + text("a") + spell(module, name) + b"s"), "which this file has no need of")


@pytest.mark.parametrize("encoding", ["utf-8", "rot13", "idna", "Latin1", ""])
def test_bytes_are_made_in_one_encoding_only(encoding):
    call = name_of("_codecs", "encode") + text("ab") + text(encoding) + b"\x86R"
    assert_no_pack(packed(b"}" + call + TWO_NUMBERS + b"s"), "encoding")


@pytest.mark.parametrize(
    "arguments",
    [b")", text("ab") + b"\x85", b"K\x01K\x02\x86", text("ab") + b"N\x86", text("ab") + text("latin1") + b"N\x87"],
)
def test_other_arguments_make_no_bytes(arguments):
    assert_no_pack(packed(b"}" + text("a") + name_of("_codecs", "encode") + arguments + b"Rs"))


def test_text_outside_latin_1_makes_no_bytes():
    assert_no_pack(
        packed(b"}" + text("a") + name_of("_codecs", "encode") + text("\u20ac") + text("latin1") + b"\x86Rs")
    )


DEFAULTS = b"N}" + text("__defaults__") + text("latin1") + b"\x85s\x86b"
"""A state that gives a function's last argument a default."""


@pytest.mark.parametrize("state", [SLOTS, DICT, DEFAULTS], ids=["setattr", "dict", "defaults"])
@pytest.mark.parametrize(
    "target",
    [
        name_of("numpy", "ndarray"),
        name_of("numpy", "dtype"),
        name_of("numpy.core.multiarray", "_reconstruct"),
        name_of("_codecs", "encode"),
        EMPTY_ARRAY,
        TWO_NUMBERS,
    ],
    ids=["ndarray", "dtype", "reconstruct", "encode", "an array", "a full array"],
)
def test_no_attribute_of_a_stand_in_can_be_set_by_a_pack(target, state):
    before, defaults = memory_of_stand_ins(), defaults_of_stand_ins()
    assert_no_pack(packed(b"}" + text("a") + target + state + b"s"))
    assert (memory_of_stand_ins(), defaults_of_stand_ins()) == (before, defaults)


@pytest.mark.parametrize(
    "value",
    [
        name_of("numpy", "ndarray"),
        name_of("numpy", "dtype"),
        name_of("numpy", "dtype") + string(b"f8") + b"\x85R",
        name_of("numpy.core.multiarray", "_reconstruct"),
        name_of("_codecs", "encode"),
        EMPTY_ARRAY + array_state((), b"", b"O8").replace(string(b""), b"]" + EMPTY_ARRAY + b"a"),
    ],
    ids=["ndarray", "dtype", "a dtype", "reconstruct", "encode", "an object"],
)
def test_a_stand_in_as_a_value_does_not_come_out(value):
    with contextlib.suppress(DataDamagedError):
        arrays = read_pack(packed(b"}" + text("a") + value + text("b") + TWO_NUMBERS + b"ss"), "pack")
        assert {key: array.tolist() for key, array in arrays.items()} == {"b": [1.5, -2.0]}


@pytest.mark.parametrize(
    "key",
    [
        name_of("numpy", "ndarray"),
        name_of("numpy", "dtype"),
        name_of("numpy", "dtype") + string(b"f8") + b"\x85R",
        name_of("numpy.core.multiarray", "_reconstruct"),
        name_of("_codecs", "encode"),
        EMPTY_ARRAY,
        TWO_NUMBERS,
    ],
    ids=["ndarray", "dtype", "a dtype", "reconstruct", "encode", "an array", "a full array"],
)
def test_a_stand_in_is_no_key(key):
    assert_no_pack(packed(b"}" + key + TWO_NUMBERS + b"s"))


@pytest.mark.parametrize("content", [{1: np.ones(1), "1": np.zeros(1)}, {"a": {"b": np.ones(1)}, "a/b": np.zeros(1)}])
def test_two_arrays_of_one_name_do_not_replace_each_other_without_a_word(content):
    with contextlib.suppress(DataDamagedError):
        assert len(read_pack(pack_of(content), "pack")) == 2


@pytest.mark.parametrize("code", [b"O8", b"O", b"u2", b"f2", b"S1", b"V1", b"<f8", b"f8,f8", b"", b"\xff"])
def test_an_array_of_another_code_is_refused_in_a_pack(code):
    assert_no_pack(packed(b"}" + text("a") + EMPTY_ARRAY + array_state((2,), bytes(16), code) + b"s"))


@pytest.mark.parametrize("shape", [(-2,), (-1, 2), (-2, -1), (2, 2**40), (2**62, 4), (0, -1), (3,), (1,), (0,)])
def test_a_shape_that_is_not_the_bytes_is_refused_in_a_pack(shape):
    data = packed(b"}" + text("a") + EMPTY_ARRAY + array_state(shape, bytes(16), b"f8") + b"s")
    content, peak = peak_of(read_pack, data)
    assert content is None
    assert peak < 1_000_000


@pytest.mark.parametrize("shape", [b"G" + struct.pack(">d", 2.0), b"K\x02\x85", b"N", text("2"), EMPTY_ARRAY])
def test_a_shape_of_anything_but_whole_numbers_is_refused(shape):
    state = array_state((2,), bytes(16), b"f8").replace(b"(K\x02t", b"(" + shape + b"t")
    assert_no_pack(packed(b"}" + text("a") + EMPTY_ARRAY + state + b"s"))


@pytest.mark.parametrize(
    "dtype",
    [
        b"N",
        EMPTY_ARRAY,
        name_of("numpy", "dtype"),
        name_of("numpy", "ndarray"),
        string(b"f8"),
        name_of("numpy", "dtype") + b")R",
        name_of("numpy", "dtype") + b"N\x85R",
        name_of("numpy", "dtype") + b"]\x85R",
    ],
)
def test_an_array_without_a_code_is_refused(dtype):
    state = b"(K\x01K\x02\x85" + dtype + b"\x89" + string(bytes(16)) + b"tb"
    assert_no_pack(packed(b"}" + text("a") + EMPTY_ARRAY + state + b"s"))


@pytest.mark.parametrize("data", [b"]", b"N", string(bytes(8)), b"]K\x01aK\x02a", b"}"])
def test_an_object_array_holds_one_object(data):
    assert_no_pack(packed(b"", array_state((), b"", b"O8").replace(string(b""), data)))
    assert_no_pack(packed(b"", array_state((1,), b"", b"O8").replace(string(b""), b"]}a")))


CYCLES = {
    "dictionary": packed(b"}q\x01" + text("a") + b"h\x01s"),
    "dictionary, twice": packed(b"}q\x01" + text("a") + b"h\x01s" + text("b") + b"h\x01s"),
    "dictionary in dictionary": packed(b"}q\x01" + text("a") + b"}" + text("b") + b"h\x01ss"),
    "list": packed(b"]q\x01h\x01a"),
    "object": npy_of(
        b"\x80\x04" + EMPTY_ARRAY + b"q\x01" + array_state((), b"", b"O8").replace(string(b""), b"]h\x01a") + b"."
    ),
    "deep dictionary": packed((b"}" + text("a")) * 20_000 + TWO_NUMBERS + b"s" * 20_000),
}


@pytest.mark.parametrize("data", CYCLES.values(), ids=CYCLES)
def test_what_holds_itself_is_refused(data):
    content, peak = peak_of(read_pack, data)
    assert content is None
    assert peak < 30_000_000


def test_a_list_that_holds_itself_does_no_harm():
    with contextlib.suppress(DataDamagedError):
        assert list(read_pack(packed(b"}" + text("a") + b"]q\x01h\x01as" + text("b") + TWO_NUMBERS + b"s"), "p")) == [
            "b"
        ]


def test_doubling_dictionaries_give_no_more_arrays_than_the_file_has_bytes():
    value = TWO_NUMBERS
    for level in range(11):
        value = b"}" + text("a") + value + b"q" + bytes([level]) + b"s" + text("b") + b"h" + bytes([level]) + b"s"
    content, peak = peak_of(read_pack, packed(value))
    assert len(content or ()) <= len(packed(value))
    assert peak < 4_000_000


def test_a_long_name_on_every_level_buys_no_memory():
    data = packed(b"}" + text("k" * 2000) + b"q\x01" + b"}h\x01" * 300 + TWO_NUMBERS + b"s" * 301)
    _, peak = peak_of(read_pack, data)
    assert peak < 4_000_000


def test_one_text_encoded_many_times_buys_no_memory():
    call = name_of("_codecs", "encode") + b"q\x01" + text("x" * 10_000) + text("latin1") + b"\x86q\x02R"
    data = packed(b"}" + text("a") + b"](" + call + b"h\x01h\x02R" * 1000 + b"es")
    _, peak = peak_of(read_pack, data)
    assert peak < 4_000_000


@pytest.mark.parametrize("put", [b"r" + struct.pack("<I", 1 << 22), b"p4194304\n"], ids=["binary", "text"])
def test_a_huge_memo_index_buys_no_memory_in_a_pack(put):
    content, peak = peak_of(read_pack, packed(b"}" + put))
    assert content is None
    assert peak < 4_000_000


HUGE = {
    "frame": b"\x95" + struct.pack("<Q", 1 << 40),
    "bytes": b"B" + struct.pack("<I", 1 << 31),
    "long bytes": b"\x8e" + struct.pack("<Q", 1 << 40),
    "text": b"X" + struct.pack("<I", 1 << 31),
    "a number": b"\x8b" + struct.pack("<i", 1 << 30),
    "string": b"T" + struct.pack("<i", 1 << 30),
}


@pytest.mark.parametrize("opcode", HUGE.values(), ids=HUGE)
def test_a_huge_declared_length_buys_no_memory(opcode):
    content, peak = peak_of(read_pack, packed(b"}" + text("a") + opcode + b"s"))
    assert content is None
    assert peak < 4_000_000


def test_a_pack_makes_no_giant_message():
    doubling = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(16))
    for value in (
        name_of("numpy", "dtype") + doubling + b"\x85R",
        name_of("_codecs", "encode") + text("a") + doubling + b"\x86R",
        TWO_NUMBERS.replace(string(b"|"), doubling),
        name_of("x" * 5000, "y" * 5000),
    ):
        with pytest.raises(DataDamagedError) as caught:
            read_pack(packed(b"}" + text("a") + value + b"s"), "pack")
        assert len(str(caught.value)) < 1000


def assert_pack_or_damage(data):
    with stand_ins_restored():
        before, defaults = memory_of_stand_ins(), defaults_of_stand_ins()
        content, peak = peak_of(read_pack, data)
        assert (memory_of_stand_ins(), defaults_of_stand_ins()) == (before, defaults)
    assert peak < 8_000_000
    for key, array in (content or {}).items():
        assert (type(key), type(array)) == (str, np.ndarray)
        assert array.dtype in (np.uint8, np.int64, np.float32, np.float64)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([2, 3, 4]), st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_pack_is_read_or_damaged(protocol, edits):
    assert_pack_or_damage(edited(pack_of(CONTENT, protocol), edits))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([2, 3, 4]), st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_pickle_in_a_pack_is_read_or_damaged(protocol, edits):
    assert_pack_or_damage(npy_of(edited(pickle.dumps(np.array(CONTENT, dtype=object), protocol), edits)))


PACK_PIECES = [
    *PIECES,
    *(name_of(*name) for name in sorted(pickle_reader._PACK_NAMES)),
    TWO_NUMBERS,
    EMPTY_ARRAY + array_state((), b"", b"O8").replace(string(b""), b"]}a"),
    b"\x93",
    b"\x94",
    text("_codecs"),
    text("encode"),
    text("latin1"),
    text("__defaults__"),
    b"G" + bytes(8),
]


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(PACK_PIECES), min_size=1, max_size=25))
def test_any_sequence_of_opcodes_admitted_in_packs_is_read_or_damaged(pieces):
    assert_pack_or_damage(npy_of(b"\x80\x04" + b"".join(pieces) + b"."))
    assert_pack_or_damage(packed(b"}" + text("a") + b"".join(pieces) + b"s"))


def saved(content):
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object))
    return buffer.getvalue()


def test_a_fortran_array_of_a_pack_is_read_in_its_order():
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(read_pack(saved({"a": np.asfortranarray(array)}), "PACK")["a"], array)


def test_dictionaries_may_not_be_nested_without_end():
    content = {"a": np.ones(2)}
    for _ in range(pickle_reader.MAX_DEPTH + 2):
        content = {"b": content}
    with pytest.raises(DataDamagedError, match="too deep"):
        read_pack(saved(content), "PACK")


def test_no_text_passes_for_a_name():
    call = string(b"numpy.dtype") + b"(" + string(b"u1") + b"tR"
    with pytest.raises(DataDamagedError, match="it calls"):
        read_pickled_dict(in_dict(call), "file")


def test_names_are_text():
    for pair in (b"K\x01K\x02", b")K\x01", b"K\x01)"):
        with pytest.raises(DataDamagedError, match="a name that is no text"):
            read_pack(packed(b"}X\x01\x00\x00\x00a" + pair + b"\x93s"), "PACK")
