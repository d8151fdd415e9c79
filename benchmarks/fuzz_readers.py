"""Every reader of files in the library, with valid files to begin from, and the exceptions that it documents."""

import gzip
import hashlib
import io
import json
import pickle
import random
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlp.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from mlp.data_providers import DataDamagedError, cifar, regression
from mlp.data_providers.archives import read_tar
from mlp.data_providers.mnist import read_idx
from mlp.data_providers.npz import check_examples, check_names, read_npz
from mlp.data_providers.pickle_reader import read_pack, read_pickled_dict
from mlp.experiments.configs import EXPERIMENTS, Experiment
from mlp.experiments.report import table
from mlp.layers import AffineLayer, DropoutLayer
from mlp.learning_rules import AdamLearningRule
from mlp.models import MultipleLayerModel
from mlp.reading import shown
from mlp.records import RecordError, RunFolder


class Reader(NamedTuple):
    """A reader: `read(path)` a file of this name, which `wrap` makes of a mutation of one of the `seeds`."""

    name: str
    file: str
    read: Callable[[Path], object]
    documented: tuple[type[Exception], ...]
    seeds: Callable[[], tuple[bytes, ...]]
    wrap: Callable[[bytes], bytes] = bytes

    def place(self, folder: Path, data: bytes) -> Path:
        """Write a file and return where it is."""
        path = folder / self.file
        path.write_bytes(data)
        return path


def saved(write: Callable[..., None], *arguments: Any, **arrays: Any) -> bytes:
    """Return the bytes that NumPy writes."""
    stream = io.BytesIO()
    write(stream, *arguments, **arrays)
    return stream.getvalue()


ARRAYS = {
    "inputs": np.arange(12, dtype=np.float32).reshape(4, 3),
    "targets": np.arange(4),
    "label_map": np.array(["a", "ö", "b", "c"]),
}


@cache
def npz_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return saved(np.savez, **ARRAYS), saved(np.savez_compressed, **ARRAYS)


@cache
def npy_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return tuple(saved(np.save, array) for array in (*ARRAYS.values(), np.asfortranarray(ARRAYS["inputs"])))


def zipped(member: bytes) -> bytes:
    """Return an npz whose members are all these bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", member)
    return stream.getvalue()


def use_npz(path: Path) -> None:
    """Read a file as the library does."""
    inputs, targets, names = read_npz(path, *ARRAYS)
    check_examples(path, inputs, targets, 4)
    check_names(path, names, 4)


@cache
def idx_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    arrays = (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.arange(9, dtype=np.uint8))
    return tuple(b"\0\0\x08" + struct.pack(f">B{a.ndim}I", a.ndim, *a.shape) + a.tobytes() for a in arrays)


def packed(data: bytes) -> bytes:
    """Return a gzip file of these bytes."""
    return gzip.compress(data, 1, mtime=0)


@cache
def packed_idx_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return tuple(map(packed, idx_files()))


@cache
def tar_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for name, kind in (
                ("d", tarfile.DIRTYPE),
                ("d/a", tarfile.REGTYPE),
                ("d/l", tarfile.SYMTYPE),
                ("d/b", tarfile.REGTYPE),
            ):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, "../x", 700 if kind == tarfile.REGTYPE else 0
                member.pax_headers = {"comment": "ü"} if form == tarfile.PAX_FORMAT else {}
                archive.addfile(member, io.BytesIO(bytes(700)))
        found.append(stream.getvalue())
    return tuple(found)


@cache
def packed_tar_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return tuple(map(packed, tar_files()))


def use_tar(path: Path) -> None:
    """Read a file as the library does."""
    try:
        read_tar(path, {"d/a", "d/b"}, 10_000, 100_000)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # as read_tar documents
        raise DataDamagedError(f"{path} cannot be read: {shown(error)}") from error


def summed(data: bytes) -> bytes:
    """Return a tar, packed, whose headers have right checksums wherever they stand."""
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if any(found[at : at + 512]) and found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return packed(bytes(found))


FORM = cifar.FORMS["cifar100"][0]._replace(train=("train.txt",), test=(), names="names.txt")


@cache
def cifar_files() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    rows = np.arange(2 * 3074, dtype=np.uint8).reshape(2, 3074)
    rows[:, :2] %= 20
    return (rows.tobytes(),)


def use_cifar(path: Path) -> None:
    """Read a file as the library does."""
    form = FORM._replace(names="train.txt")
    cifar._decode(form, cifar._read_folder(path.parent, form), form.train, path, 100)


@cache
def class_names() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return ("\n".join(f"class{number}" for number in range(100)).encode(),)


def use_names(path: Path) -> None:
    """Read a file as the library does."""
    form = FORM._replace(train=())
    cifar._class_names(form, cifar._read_folder(path.parent, form), path, 100)


@cache
def pickles() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    record = {b"fine_labels": [3, 99, 2**40], b"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"a": (b"x", None)}
    texts = {key.decode(): value for key, value in record.items()}
    python_2 = b"\x80\x02}q\x00(U\x06labelsq\x01]q\x02(K\x01M\x01\x02eT\x05\0\0\0namesq\x03]q\x04(U\x01aU\x01beu."
    return python_2, pickle.dumps(record, 3), pickle.dumps(texts, 3)


@cache
def packs() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    pack = {"a": np.arange(6.0).reshape(2, 3), "b": {"c": np.float64(2), "d": 3, "e": np.asfortranarray(np.eye(2))}}
    head = saved(np.save, np.array({}, dtype=object))
    start = head[: 10 + int.from_bytes(head[8:10], "little")]
    return tuple(start + pickle.dumps(np.array(pack, dtype=object), protocol) for protocol in (2, 3, 4))


@cache
def model() -> tuple[MultipleLayerModel, AdamLearningRule]:
    """Return a small model with both kinds of random streams, and a learning rule with state."""
    layers = [AffineLayer(3, 2), DropoutLayer(np.random.RandomState(0)), DropoutLayer(np.random.default_rng(0))]
    made, rule = MultipleLayerModel(layers), AdamLearningRule()
    rule.initialise(made.params)
    return made, rule


def save_to(path: Path) -> None:
    """Save the model, with progress of every kind."""
    save_checkpoint(path, *model(), {"epoch": 3, "loss": float("nan"), "sums": [1, 2.5, "ü"]})


@cache
def checkpoints() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    with tempfile.TemporaryDirectory() as folder:
        save_to(Path(folder) / "a")
        return ((Path(folder) / "a").read_bytes(),)


def use_checkpoint(path: Path) -> None:
    """Load, and draw from the random streams that the file has set."""
    load_checkpoint(path, *model())
    for layer in model()[0].layers[1:]:
        assert isinstance(layer, DropoutLayer)
        layer.rng.uniform(size=3)


@cache
def contents() -> tuple[bytes, ...]:
    """Return the JSON content of a checkpoint, short enough for mutations to meet what matters."""
    (data,) = checkpoints()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"]["content"])
    del content["sha256"]
    content["streams"] = {
        name: dict(reversed(list(state.items()))) if "gauss" in state else state
        for name, state in content["streams"].items()
    }
    return (json.dumps(content).encode(),)


def signed(text: bytes) -> bytes:
    """Return a checkpoint with this content, and the right SHA-256 where the content is JSON at all."""
    (data,) = checkpoints()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    shown = text.decode("utf-8", "replace")
    try:
        content = json.loads(shown)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        for name in sorted(header.keys() - {"__metadata__"}):
            begin, end = header[name]["data_offsets"]
            kind = {"F64": "float64", "F32": "float32"}[header[name]["dtype"]]
            digest.update(f"{name} {kind} {tuple(header[name]['shape'])} ".encode())
            digest.update(data[8 + size + begin : 8 + size + end])
        content["sha256"] = digest.hexdigest()
        header["__metadata__"]["content"] = json.dumps(content)
    except (ValueError, TypeError, RecursionError):
        header["__metadata__"]["content"] = shown
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + data[8 + size :]


@cache
def configs() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return (json.dumps({"experiment": EXPERIMENTS["vgg08"].to_dict(), "data_dir": None}, indent=2).encode(),)


def use_config(path: Path) -> None:
    """Read a file as the library does."""
    run = RunFolder.open(path.parent)
    run.read_text("config.json", "data_dir")
    table([run])
    assert isinstance(Experiment.of_run(run).differences(EXPERIMENTS["vgg08"]), list)


@cache
def metrics() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    head = b"epoch,learning_rate,train_loss,train_acc,val_loss,val_acc,seconds\n"
    return (head + b"".join(b"%d,0.001,4.6,1.5,nan,2.5,12.3\r\n" % epoch for epoch in range(1, 4)),)


@cache
def flows() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return (b"epoch,layer,mean_abs_gradient\n" + b'1,"conv, 0",8e-19\n1,logit,0.25\n' * 3,)


@cache
def results() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    return (b'{"test_acc": 46.84, "test_loss": NaN, "parameters": 59716, "parts": [{"cores": 2, "device": "cpu"}]}',)


def use_results(path: Path) -> None:
    """Read a file as the library does."""
    run = RunFolder(path.parent)
    for key in ("test_acc", "parameters"):
        f"{run.read_number(path.name, key):,}"
        f"{run.read_number(path.name, key):.2f}"


@cache
def tables() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    rng = random.Random(0)
    return (
        b"AT,V,AP,RH,PE\n" + b"".join(b"%f,%f,%f,%fe3,-%f\n" % tuple(rng.random() for _ in range(5)) for _ in range(8)),
    )


def use_table(path: Path) -> None:
    """Read a file as the library does."""
    regression._standardised(path, regression._read_table(path, delimiter=",", skiprows=1))


@cache
def rains() -> tuple[bytes, ...]:
    """Return valid files to begin from."""
    row = b" ".join(b"%.2f" % (day / 7) for day in range(30))
    return (b"a\nb\nc\n" + b"".join(b"1931 %d %s -99.99\n" % (month, row) for month in (1, 2)),)


DAMAGED, RECORDS = (DataDamagedError,), (RecordError,)
READERS = (
    Reader("npz", "a.npz", use_npz, DAMAGED, npz_files),
    Reader("npy in npz", "a.npz", lambda path: read_npz(path, *ARRAYS), DAMAGED, npy_files, zipped),
    Reader("idx", "a", read_idx, DAMAGED, idx_files),
    Reader("idx.gz", "a.gz", read_idx, DAMAGED, packed_idx_files),
    Reader("idx in gz", "a.gz", read_idx, DAMAGED, idx_files, packed),
    Reader("tar.gz", "a.tar.gz", use_tar, DAMAGED, packed_tar_files),
    Reader("tar in gz", "a.tar.gz", use_tar, DAMAGED, tar_files, packed),
    Reader("tar, right checksums", "a.tar.gz", use_tar, DAMAGED, tar_files, summed),
    Reader("CIFAR binary", "train.txt", use_cifar, DAMAGED, cifar_files),
    Reader("CIFAR names", "names.txt", use_names, DAMAGED, class_names),
    Reader("CIFAR pickle", "a", lambda path: read_pickled_dict(path.read_bytes(), str(path)), DAMAGED, pickles),
    Reader("pack", "a.npy", lambda path: read_pack(path.read_bytes(), str(path)), DAMAGED, packs),
    Reader("checkpoint", "a.safetensors", use_checkpoint, (CheckpointError,), checkpoints),
    Reader("content of checkpoint", "a.safetensors", use_checkpoint, (CheckpointError,), contents, signed),
    Reader("config.json", "config.json", use_config, RECORDS, configs),
    Reader("metrics.csv", "metrics.csv", lambda path: RunFolder(path.parent).metrics(), RECORDS, metrics),
    Reader(
        "gradient_flow.csv", "gradient_flow.csv", lambda path: RunFolder(path.parent).gradient_flow(), RECORDS, flows
    ),
    Reader("test.json", "test.json", use_results, RECORDS, results),
    Reader("power plant", "a.csv", use_table, DAMAGED, tables),
    Reader("rain", regression.MET_OFFICE_FILE, lambda path: regression.load_met_office(path.parent), DAMAGED, rains),
)
