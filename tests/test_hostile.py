"""Hostile files: known attacks, each refused in a sentence within its memory; 10,000 mutations; no pickle anywhere."""

import ast
import gzip
import io
import json
import os
import pickle
import random
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlp
from benchmarks import fuzz
from benchmarks.fuzz_readers import READERS, Reader, contents, save_to, signed, use_checkpoint, use_npz
from mlp import records
from mlp.checkpoints import CheckpointError, save_checkpoint
from mlp.data_providers import DataDamagedError, cifar
from mlp.data_providers.archives import read_tar
from mlp.data_providers.mnist import read_idx
from mlp.data_providers.npz import read_npz
from mlp.data_providers.pickle_instructions import MAX_INSTRUCTIONS
from mlp.data_providers.pickle_reader import read_pack, read_pickled_dict
from mlp.experiments.configs import EXPERIMENTS, Experiment
from mlp.reading import MAX_JSON, MAX_JSON_GROUPS, parse_json, shown
from mlp.records import RecordError, RunFolder

ROOM = 64 << 20
EACH = 510


def refused(read, path, kind=DataDamagedError):
    """Return the sentence with which a file is refused, in less memory than twice its size and 64 MiB."""
    size, before = path.stat().st_size, sorted(path.parent.parent.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(kind) as caught:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert isinstance(caught.value, kind)
    assert str(path) in text
    assert text.isprintable()
    assert len(text) < 1_500
    assert peak < 2 * size + ROOM
    assert sorted(path.parent.parent.rglob("*")) == before
    return text


# --- npz


def npy(header, data=b"", version=b"\1\0"):
    header = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(header)) + header + data


def header(shape="(4, 3)", descr="'<f4'", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def zip_of(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def patched(data, **fields):
    """Change a field of a zip's only entry, in the list of members and at the member."""
    data, at = bytearray(data), data.index(b"PK\1\2")
    for name, value in fields.items():
        for where in {"size": (at + 24, 22), "packed": (at + 20, 18), "method": (at + 10, 8)}[name]:
            width = "<H" if name == "method" else "<I"
            data[where : where + struct.calcsize(width)] = struct.pack(width, value)
    return bytes(data)


HEADERS = {
    "8 TiB": header("(1099511627776,)", "'<f8'"),
    "product overflows": header("(4294967296, 4294967296, 4)"),
    "negative": header("(-4, -3)"),
    "NaN": header("(nan, 3)"),
    "infinite": header("(1e999, 3)"),
    "text": header("('4', 3)"),
    "expression": header("(2+2, 3)"),
    "power": header("(9**9**9, 3)"),
    "call": header("(__import__('os').system('touch marker'), 3)"),
    "5,000 digits": header(f"({'9' * 500}, 3)"),
    "deep": "(" * 900,
    "deeper": "-" * 60_000 + "1",
    "objects": header(descr="'|O'"),
    "record of objects": header(descr="[('a', '|O'), ('b', '<f4')]"),
    "nothing wide": header("(1000000000000000000,)", "'<U0'"),
    "empty and huge": header("(0, 1000000000000000000, 1000000000000000000)"),
    "40 axes": header("(" + "1, " * 70 + ")"),
    "key twice": header()[:-3] + "'shape': (4, 3), }\n",
    "another key": header()[:-3] + "'a': 1, }\n",
    "no dictionary": "[1, 2, 3]",
    "empty": "",
    "zeros": b"\0" * 200,
    "no ASCII": "{'descr': '<f4', 'fortran_order': False, 'shape': (٤, 3), }\n",
    "one number lacking": header("(5, 3)"),
    "one number over": header("(3, 3)"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", HEADERS)
def test_an_array_s_header_that_is_wrong_is_refused(tmp_path, name, method):
    path = tmp_path / "run" / "a.npz"
    path.parent.mkdir()
    path.write_bytes(zip_of([("inputs.npy", npy(HEADERS[name], bytes(48)))], method))
    refused(lambda path: read_npz(path, "inputs"), path)


def test_the_right_header_of_these_is_read(tmp_path):
    for version in (b"\1\0", b"\2\0", b"\3\0"):
        (tmp_path / "a.npz").write_bytes(zip_of([("inputs.npy", npy(header("(4L, 3L)"), bytes(48), version))]))
        assert read_npz(tmp_path / "a.npz", "inputs")[0].shape == (4, 3)


def test_236_bytes_that_ask_for_8_tib_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(zip_of([("inputs.npy", npy(HEADERS["8 TiB"].ljust(117) + "\n"))]))
    assert path.stat().st_size < 300
    assert "(1099511627776,), 8,796,093,022,208 bytes, in a member of" in refused(lambda p: read_npz(p, "inputs"), path)


def test_a_zip_bomb_is_refused_whatever_it_declares(tmp_path):
    path, inside = tmp_path / "a.npz", npy(header("(25000000,)", "'|u1'"), bytes(25_000_000))
    whole = zip_of([("inputs.npy", inside)], zipfile.ZIP_DEFLATED)
    assert len(whole) < 40_000
    path.write_bytes(whole)
    read = lambda most: lambda path: read_npz(path, "inputs", most=most)  # noqa: E731
    assert "at most 2,000,000" in refused(read(2_000_000), path)
    for size in (len(inside) - 1, len(inside) + 1, 2_000_000, 2**32 - 2):
        path.write_bytes(patched(whole, size=size))
        refused(read(10**10), path)
    path.write_bytes(patched(whole, packed=2**31))
    refused(read(10**10), path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(tmp_path, method):
    (tmp_path / "a.npz").write_bytes(zip_of([("inputs.npy", npy(header(), bytes(48)))], method))
    assert "expected deflate or none" in refused(lambda p: read_npz(p, "inputs"), tmp_path / "a.npz")


def test_names_in_a_zip_lead_nowhere(tmp_path):
    path, right = tmp_path / "in" / "a.npz", npy(header(), bytes(48))
    path.parent.mkdir()
    names = ["../inputs.npy", "/tmp/inputs.npy", "a/b/inputs.npy", "..\\inputs.npy", "C:inputs.npy"]
    path.write_bytes(zip_of([(name, right) for name in names]))
    assert "it lacks inputs" in refused(lambda p: read_npz(p, "inputs"), path)
    path.write_bytes(zip_of([("inputs.npy", right), ("../x\x1b[2J.npy", right)]))
    assert "\\x1b" in refused(lambda p: read_npz(p, "targets"), path)
    assert read_npz(path, "inputs")[0].shape == (4, 3)
    for twice in (["inputs.npy", "inputs.npy"], ["inputs", "inputs.npy"]):
        path.write_bytes(zip_of([(name, right) for name in twice]))
        assert "it holds inputs twice" in refused(lambda p: read_npz(p, "inputs"), path)


def test_a_zip_of_too_many_members_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(zip_of([(f"{number}", b"") for number in range(3_000)]))
    assert "too many members" in refused(lambda p: read_npz(p, "inputs"), tmp_path / "a.npz")


def test_names_that_are_no_letters_and_numbers_beyond_float32_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    good = npy(header("(4,)", "'<i8'"), bytes(32))
    letters = npy(header("(4,)", "'<U1'"), b"\xff" * 16)
    inputs = npy(header("(4,)", "'<f8'"), np.full(4, 1e300).tobytes())
    fine = npy(header("(4,)", "'<f8'"), bytes(32))
    path.write_bytes(zip_of([("inputs.npy", inputs), ("targets.npy", good), ("label_map.npy", letters)]))
    assert "beyond what float32 can hold" in refused(use_npz, path)
    path.write_bytes(zip_of([("inputs.npy", fine), ("targets.npy", good), ("label_map.npy", letters)]))
    assert "no texts" in refused(use_npz, path)


# --- idx, gzip and tar


@pytest.mark.parametrize("axes", [1, 2, 3, 4, 255])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_an_idx_file_that_declares_too_much_is_refused(tmp_path, axes, packed):
    path = tmp_path / ("a" if packed is bytes else "a.gz")
    for size in (0xFFFFFFFF, 1_000_000, 200):
        path.write_bytes(packed(b"\0\0\x08" + bytes([axes]) + struct.pack(">I", size) * axes + bytes(20)))
        refused(read_idx, path)


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_an_idx_file_of_no_bytes_and_endless_axes_is_refused(tmp_path, packed):
    path = tmp_path / ("a" if packed is bytes else "a.gz")
    path.write_bytes(packed(b"\0\0\x08\3" + struct.pack(">III", 0xFFFFFFFF, 0xFFFFFFFF, 0)))
    refused(read_idx, path)


def gzip_attacks():
    right = gzip.compress(b"\0\0\x08\1\0\0\0\4abcd")
    return {
        "bomb": gzip.compress(b"\0\0\x08\1\x02\0\0\0" + bytes(30_000_000)),
        "more than declared": gzip.compress(b"\0\0\x08\1\0\0\0\4" + bytes(10_000_000)),
        "two members": right + right,
        "many members": right + gzip.compress(b"") * 50_000,
        "rubbish behind": right + b"rubbish",
        "truncated": right[:-1],
        "wrong checksum": right[:-8] + b"abcd" + right[-4:],
        "empty": b"",
    }


@pytest.mark.parametrize("name", gzip_attacks())
def test_a_gzip_file_that_is_wrong_is_refused(tmp_path, name):
    (tmp_path / "a.gz").write_bytes(gzip_attacks()[name])
    refused(read_idx, tmp_path / "a.gz")


def tar_of(*members, form=tarfile.GNU_FORMAT, headers=None):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=form, pax_headers=headers or {}) as archive:
        for name, data, *kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), kind[0] if kind else tarfile.REGTYPE
            member.linkname = "/etc/passwd" if kind else ""
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def archive_of(monkeypatch, path, data):
    """Write an archive, and make the library believe that it is the official one."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    monkeypatch.setattr(cifar, "difference", lambda *_: "")
    return lambda path: cifar._read_archive(path, cifar.FORMS["cifar100"][0])


NAMES = [f"cifar-100-binary/{name}" for name in ("train.bin", "test.bin", "fine_label_names.txt")]
LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]


@pytest.mark.parametrize("kind", LINKS)
def test_links_devices_and_pipes_in_a_tar_are_no_files(monkeypatch, tmp_path, kind):
    path = tmp_path / "in" / "a.tar.gz"
    read = archive_of(monkeypatch, path, tar_of((NAMES[0], b"", kind), *((name, b"x") for name in NAMES[1:])))
    assert "it lacks train.bin" in refused(read, path)


def test_paths_in_a_tar_lead_nowhere(monkeypatch, tmp_path):
    path = tmp_path / "in" / "a.tar.gz"
    names = ["../evil", "/tmp/evil", "a/../../evil", "../" * 20 + "evil", "./" + NAMES[0], "/" + NAMES[0]]
    members = [(name, b"evil") for name in names]
    assert "it lacks" in refused(archive_of(monkeypatch, path, tar_of(*members)), path)
    read = archive_of(monkeypatch, path, tar_of(*members, *((name, b"x") for name in NAMES)))
    assert set(read(path).values()) == {b"x"}
    assert [found.name for found in tmp_path.rglob("*")] == ["in", "a.tar.gz"]


def sized(text):
    """A tar with one header that declares a size of its own."""
    head = bytearray(gzip.decompress(tar_of((NAMES[0], b"x")))[:1024])
    head[124:136] = text
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return gzip.compress(bytes(head))


TARS = {
    "twice": tar_of(*((name, b"x") for name in NAMES * 2)),
    "huge": sized(b"77777777777\0"),
    "huger": sized(b"\x80" + b"\xff" * 11),
    "negative": sized(b"-0000000001\0"),
    "no size": sized(b" " * 12),
    "bomb": gzip.compress(gzip.decompress(sized(b"00100000000\0"))[:512] + bytes(2**24)),
    "endless name": tar_of(("a" * 1_000_000, b"x")),
    "endless PAX header": tar_of(("a", b"x"), form=tarfile.PAX_FORMAT, headers={"comment": "x" * 1_000_000}),
    "many members": gzip.compress(gzip.decompress(tar_of(("a", b"")))[:512] * 3_000),
    "rubbish": gzip.compress(os.urandom(2_000)),
    "wrong checksum": gzip.compress(gzip.decompress(tar_of((NAMES[0], b"x"))).replace(b"train", b"trace")),
    "truncated": tar_of(*((name, b"x" * 999) for name in NAMES))[:-9],
    "no gzip": gzip.decompress(tar_of((NAMES[0], b"x"))),
}


@pytest.mark.parametrize("name", TARS)
def test_a_tar_that_is_wrong_is_refused(monkeypatch, tmp_path, name):
    path = tmp_path / "in" / "a.tar.gz"
    read = archive_of(monkeypatch, path, TARS[name])
    refused(read, path)


def test_a_tar_that_unpacks_to_more_than_was_agreed_is_stopped(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_of(("a", bytes(5_000_000)), ("b", b"x")))
    assert read_tar(tmp_path / "a.tar.gz", {"b"}, 10, 6_000_000) == {"b": b"x"}
    with pytest.raises(ValueError, match="unpacks to more than it should"):
        read_tar(tmp_path / "a.tar.gz", {"b"}, 10, 4_000_000)


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "metrics.csv")
    os.mkfifo(tmp_path / "config.json")
    for name in ("pipe", "zero"):
        for read in (read_idx, lambda path: read_npz(path, "a")):
            assert "no regular file" in refused(read, tmp_path / name)
        assert "no regular file" in refused(use_checkpoint, tmp_path / name, CheckpointError)
    for read in (RunFolder.metrics, lambda run: run.read_json("config.json")):
        with pytest.raises(RecordError, match="no regular file"):
            read(RunFolder(tmp_path))
    form = cifar.FORMS["cifar100"][0]._replace(train=("pipe",), test=())
    with pytest.raises(DataDamagedError, match="no regular file"):
        cifar._read_folder(tmp_path, form)


# --- pickles


class Evil:
    def __reduce__(self):
        return os.system, ("touch marker",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_call_are_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"data": Evil()}, protocol)
    head = b"\x93NUMPY\x01\x00\x06\x00'|O'\n\n"
    for read in (read_pickled_dict, lambda data, what: read_pack(head + data, what)):
        with pytest.raises(DataDamagedError, match="FILE"):
            read(data, "FILE")
    assert not (tmp_path / "marker").exists()
    pickle.loads(data)
    assert (tmp_path / "marker").exists()


PICKLES = {
    "many dictionaries": b"}" * 600_000,
    "many marks": b"(" * 600_000,
    "many memos": b"}" + b"".join(b"r" + struct.pack("<I", number) for number in range(300_000)),
    "text of 4 GiB": b"X\xff\xff\xff\xff",
    "bytes of 4 GiB": b"B\xff\xff\xff\xff",
    "string of 2 GiB": b"T\xff\xff\xff\x7f",
    "long of 2 GiB": b"\x8b\xff\xff\xff\x7f",
    "wide text": b"X" + struct.pack("<I", 30_000_000) + "😀".encode() + b"a" * 29_999_996,
    "long number": b"I" + b"9" * 1_000_000 + b"\n.",
    "memo number": b"}p" + b"9" * 1_000_000 + b"\n.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_want_memory_or_time_are_refused(tmp_path, name):
    (tmp_path / "a").write_bytes(b"\x80\x02" + PICKLES[name])
    refused(lambda path: read_pickled_dict(path.read_bytes(), str(path)), tmp_path / "a")


def test_instructions_are_enough_for_cifar_100():
    with pytest.raises(DataDamagedError, match=f"more than {MAX_INSTRUCTIONS:,} instructions"):
        read_pickled_dict(b"]" * (MAX_INSTRUCTIONS + 1), "file")
    names = [f"image_{number}.png".encode() for number in range(50_000)]
    record = {b"filenames": names, b"fine_labels": [300] * 50_000, b"coarse_labels": [300] * 50_000}
    assert read_pickled_dict(pickle.dumps(record, 2 + 1), "file")["filenames"] == names


# --- JSON, checkpoints and records

JSONS = {
    "10^6 deep": "[" * 1_000_000 + "]" * 1_000_000,
    "10^6 deep objects": '{"a":' * 1_000_000,
    "a few thousand deep": '{"a":' + "[" * 5_000 + "]" * 5_000 + "}",
    "many groups": "[" + "[]," * 1_000_000 + "1]",
    "too long": '{"a": "' + "x" * MAX_JSON + '"}',
    "many keys": "{" + ",".join(f'"{number}":1' for number in range(200_000)) + "} rubbish",
    "key twice": '{"a": 1, "a": 2}',
    "key twice inside": '{"b": [{"a": 1, "a": 2}]}',
    "endless number": '{"a": ' + "9" * 100_000 + "}",
    "no number": '{"a": NaNa}',
}


@pytest.mark.parametrize("name", JSONS)
def test_json_that_is_wrong_is_refused(tmp_path, name):
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()
    path.write_text(JSONS[name])
    refused(lambda path: RunFolder(path.parent).read_json("config.json"), path, RecordError)
    checkpoint = tmp_path / "run" / "a.safetensors"
    checkpoint.write_bytes(signed(JSONS[name].encode()))
    refused(use_checkpoint, checkpoint, CheckpointError)
    length = len(JSONS[name])
    checkpoint.write_bytes(length.to_bytes(8, "little") + JSONS[name].encode())
    refused(use_checkpoint, checkpoint, CheckpointError)


def test_json_at_its_limits_is_read():
    assert len(parse_json("[" + "[]," * (MAX_JSON_GROUPS - 2) + "[]]")) == MAX_JSON_GROUPS - 1
    assert parse_json('{"a": NaN, "b": -Infinity, "c": {"a": 1}}')["c"] == {"a": 1}
    with pytest.raises(ValueError, match="key twice"):
        parse_json('{"a": 1, "\\u0061": 1}')


def test_a_checkpoint_s_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a"
    for size in (2**64 - 1, 2**63, 100_000_000, 9):
        path.write_bytes(size.to_bytes(8, "little") + b"{}")
        assert "its header has" in refused(use_checkpoint, path, CheckpointError)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    from benchmarks.fuzz_readers import model

    for progress in ({"a": "x" * MAX_JSON}, {"a": [[]] * MAX_JSON_GROUPS}):
        with pytest.raises(CheckpointError, match=r"cannot hold these arrays and this progress"):
            save_checkpoint(tmp_path / "a", *model(), progress)
    assert list(tmp_path.iterdir()) == []


def of_content(change):
    """A checkpoint with the right SHA-256 whose content somebody changed."""
    content = json.loads(contents()[0])
    change(content)
    return signed(json.dumps(content).encode())


def twister(content):
    return next(state for state in content["streams"].values() if state["bit_generator"] == "MT19937")


CHANGES = {
    "position beyond": lambda c: twister(c)["state"].update(pos=10**6),
    "position far beyond": lambda c: twister(c)["state"].update(pos=2**31 - 1),
    "position one beyond": lambda c: twister(c)["state"].update(pos=625),
    "position before": lambda c: twister(c)["state"].update(pos=-1),
    "position true": lambda c: twister(c)["state"].update(pos=True),
    "position is text": lambda c: twister(c)["state"].update(pos="1"),
    "short key": lambda c: twister(c)["state"]["key"].pop(),
    "long key": lambda c: twister(c)["state"]["key"].append(1),
    "large key": lambda c: twister(c)["state"]["key"].__setitem__(0, 2**40),
    "NaN": lambda c: twister(c).update(gauss=float("nan")),
    "no state": lambda c: twister(c).pop("state"),
    "state is a list": lambda c: c["streams"].update({name: [] for name in c["streams"]}),
    "streams are a list": lambda c: c.update(streams=[]),
    "no streams": lambda c: c.pop("streams"),
    "another stream": lambda c: c["streams"].update(x={}),
    "progress is a list": lambda c: c.update(progress=[]),
    "negative steps": lambda c: c.update(step_count=-1),
    "huge steps": lambda c: c.update(step_count=2**70),
    "true steps": lambda c: c.update(step_count=True),
    "NaN steps": lambda c: c.update(step_count=float("nan")),
    "more": lambda c: c.update(more=1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_s_content_that_is_wrong_is_refused_and_nothing_changed(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(of_content(CHANGES[name]))
    save_to(tmp_path / "before")
    refused(use_checkpoint, path, CheckpointError)
    save_to(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_the_unchanged_content_is_read(tmp_path):
    (tmp_path / "a").write_bytes(of_content(lambda content: None))
    use_checkpoint(tmp_path / "a")


WRONG_FIELDS = {
    "num_blocks": [10**9, -1, 1.5, "1", True, None],
    "num_filters": [10**9, 0],
    "learning_rate": [float("nan"), float("inf"), "1", None],
    "epochs": [0, 10**20, 1.5],
    "batch_size": [0, [], {}],
    "train_limit": [0, "a", 1.5],
    "batch_norm": [1, "yes"],
    "dtype": ["object", "float16", "O" * 10_000, "\x1b[2J"],
    "name": [1, None],
}


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_an_experiment_that_is_none_is_refused(tmp_path, field):
    for value in WRONG_FIELDS[field]:
        content = EXPERIMENTS["vgg08"].to_dict() | {field: value}
        (tmp_path / "config.json").write_text(json.dumps({"experiment": content}))
        text = refused(lambda path: Experiment.of_run(RunFolder(path.parent)), tmp_path / "config.json", RecordError)
        assert field in text


TABLES = {
    "long line": b"x" * 1_000_000,
    "many rows": b"1,a,1\n" * 5_001,
    "too large": b"1,a,1\n" + b"x" * 2**24,
    "huge epoch": b"9" * 4_000 + b",a,1\n",
    "epoch of no run": b"1000000000000,a,1\n",
    "epoch 0": b"0,a,1\n",
    "endless epoch": b"9" * 10_000 + b",a,1\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_run_that_is_wrong_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(records, "MAX_ROWS", 5_000)
    path = tmp_path / "gradient_flow.csv"
    path.write_bytes(b"epoch,layer,mean_abs_gradient\n" + TABLES[name])
    refused(lambda path: RunFolder(path.parent).gradient_flow(), path, RecordError)


def test_numbers_and_texts_of_a_run_are_such(tmp_path):
    path, run = tmp_path / "test.json", RunFolder(tmp_path)
    for value in ("1", True, None, [], 10**400, 1e300, float("inf"), "\x1b[2J"):
        path.write_text(json.dumps({"a": value}))
        refused(lambda _: run.read_number("test.json", "a"), path, RecordError)
    for value in (1, 1.5, -3):
        path.write_text(json.dumps({"a": value}))
        assert run.read_number("test.json", "a") == value
        refused(lambda _: run.read_text("test.json", "a"), path, RecordError)
    assert run.read_text("test.json", "b") is None


def test_what_is_shown_of_a_file_is_short_and_printable():
    assert shown("ö" * 10) == "ö" * 10
    assert shown("a\x1b[2J\n") == r"a\x1b[2J\n"
    assert shown("a" * 400, 10) == "a" * 10 + "..."


# --- all readers


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_valid_files_are_read(tmp_path, reader):
    for seed in reader.seeds():
        assert fuzz.judged(reader, reader.wrap(seed), tmp_path) == "read"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path, reader):
    @settings(max_examples=EACH, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32))
    def check(number):
        rng = random.Random(number)
        data = reader.wrap(fuzz.mutated(rng.choice(reader.seeds()), rng))
        assert fuzz.judged(reader, data, tmp_path) in ("read", "refused")

    check()


def test_at_least_ten_thousand_mutations_are_read():
    assert EACH * len(READERS) >= 10_000


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (lambda path: None, "read"),
        (lambda path: (_ for _ in ()).throw(DataDamagedError(f"{path} is damaged")), "refused"),
        (lambda path: (_ for _ in ()).throw(DataDamagedError("damaged")), "WRONG no clear sentence"),
        (lambda path: (_ for _ in ()).throw(DataDamagedError(f"{path}\x1b")), "WRONG no clear sentence"),
        (lambda path: {}["key"], "WRONG KeyError"),
        (lambda path: (path.parent / "x").write_text(""), "WRONG wrote"),
    ],
)
def test_the_judge_finds_what_is_wrong(tmp_path, read, found):
    reader = Reader("a", "a", read, (DataDamagedError,), lambda: (b"x",))
    assert fuzz.judged(reader, b"x", tmp_path).startswith(found)


def planted(path):
    """Read well, but for a hang, a crash and a hunger for memory where the file says so."""
    data = path.read_bytes()
    if data == b"seed 5":
        while True:
            pass
    if data == b"seed 6":
        os.kill(os.getpid(), 9)
    if data == b"seed 7":
        bytearray(200 << 20)
    if data == b"seed 8":
        bytearray(1 << 40)


def test_hangs_crashes_and_memory_are_found_and_the_rest_is_read(monkeypatch):
    reader = Reader("planted", "a", planted, (), lambda: (b"first",))
    monkeypatch.setattr(fuzz, "READERS", (reader,))
    monkeypatch.setattr(fuzz, "made", lambda seed: (reader, b"seed %d" % seed))
    found = list(fuzz.run(2, 1e9, 20, 0))
    wrong = sorted((seed, what[:20]) for seed, _, what in (item for item in found if isinstance(item, tuple)))
    assert [seed for seed, _ in wrong] == [5, 6, 7, 8]
    assert [what.split(":")[0] for _, what in wrong] == [
        "WRONG hang",
        "WRONG crash -9",
        "WRONG memory",
        "WRONG MemoryError",
    ]


@pytest.mark.parametrize("dies", [1, 2])
def test_workers_that_end_before_they_read_are_not_replaced_for_ever(monkeypatch, tmp_path, dies):
    """The first worker, or the one that goes on behind it."""

    def seeds():
        begun = tmp_path / str(len(list(tmp_path.iterdir())))
        begun.touch()
        if int(begun.name) + 1 >= dies:
            os._exit(9)
        return (b"first",)

    def crash(path):
        if path.read_bytes() != b"first":
            os._exit(5)

    reader = Reader("planted", "a", crash, (), seeds)
    monkeypatch.setattr(fuzz, "READERS", (reader,))
    monkeypatch.setattr(fuzz, "made", lambda seed: (reader, b"seed %d" % seed))
    with pytest.raises(RuntimeError, match="a worker ended with status 9 before it read an input"):
        list(fuzz.run(1, 1e9, 20, 0))


# --- the library's sources


def calls(tree):
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", sorted(Path(mlp.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_in_the_library_unpickles_evaluates_or_extracts(path):
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    forbidden = {
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "joblib",
        "cloudpickle",
        "marshal",
        "shelve",
        "tarfile",
    }
    if path.stem != "pickle_instructions":
        forbidden.add("pickletools")
    assert imported & forbidden == set()
    named = set(calls(tree))
    assert named & {"eval", "exec", "np.load", "np.fromfile", "np.loadtxt", "json.loads", "json.load"} <= {
        "regression": {"np.loadtxt"},
        "reading": {"json.loads"},
        "checkpoints": {"json.loads"},
    }.get(path.stem, set())
    assert {name for name in named if name.startswith("shutil.")} <= {"shutil.disk_usage"}
    assert not [name for name in named if name.endswith((".extract", ".extractall", ".literal_eval", ".read_pickle"))]
