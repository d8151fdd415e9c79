"""Reading the coursework's npz files: arrays of numbers and names, never objects.

An npz is a zip of npy files, each a header in Python's spelling and the numbers. Both declare sizes, which here have to
agree with each other, with the file and with `most` before memory is taken. No header is evaluated, nothing extracted.
"""

import re
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import numpy as np

from mlp.backend import Array
from mlp.checks import check_choice
from mlp.data_providers.archives import MAX_RATIO, read_bytes
from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.data_providers.download import find_file, search_folders
from mlp.reading import open_file, shown

MOST = 1_250_000_000
"""Bytes of an array: 50,000 images or songs of 3,000 numbers in float64 are no more."""
MAX_DIRECTORY = 2**16
"""Bytes of a zip's list of members."""
MAX_HEADER = 1000
"""Bytes of an npy file's header; NumPy writes 118."""
MAX_INPUT = float(np.finfo(np.float32).max)
_HEADER = re.compile(
    r"\{'descr': '([<>|=][biufcSU][1-9]\d{0,9})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}L?, )*(?:\d{1,18}L?,?)?)\), \}\s*"
)


def read_npz(path: Path, *names: str, most: int = MOST) -> list[Array]:
    """Return the arrays of these names in an npz file, of at most `most` bytes each.

    Raises DataDamagedError where it does not hold them.
    """
    try:
        with open_file(path, most * len(names)) as stream:
            _check_directory(stream)
            with zipfile.ZipFile(stream) as archive:
                members = _members(archive)
                lacking = [name for name in names if name not in members]
                if lacking:
                    held = ", ".join(sorted(members)) or "nothing"
                    raise ValueError(f"it lacks {', '.join(lacking)} and holds {held}")
                return [_read_member(archive, members[name], name, most) for name in names]
    except Exception as error:  # a damaged zip can fail in any way
        reason = shown(error or type(error).__name__)
        raise DataDamagedError(
            f"{path} is damaged or not what it should be: {reason}. It was left as it is."
        ) from error


def _check_directory(stream: BinaryIO) -> None:
    """Raise ValueError unless a zip ends with where its list of members is, and that is short."""
    stream.seek(max(0, stream.seek(0, 2) - 42))
    tail = stream.read()
    before, end = tail[:-22], tail[-22:]
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("it does not end as a zip file does")
    if before.startswith(b"PK\6\7") or int.from_bytes(end[12:16], "little") > MAX_DIRECTORY:
        raise ValueError("it holds too many members, or too large ones")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"it holds {name} twice")
        members[name] = member
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, most: int) -> Array:
    """Return the array in a member, whose size is known and admitted before any of it is read."""
    size = member.file_size
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed by method {member.compress_type}, expected deflate or none")
    if size > most or size > MAX_RATIO * (member.compress_size + 1):
        raise ValueError(
            f"{name} declares {size:,} bytes packed into {member.compress_size:,}, expected at most {most:,}"
        )
    with archive.open(member) as stream:
        dtype, shape, order = _read_header(stream, name)
        data_size = prod(shape) * dtype.itemsize
        if size != stream.tell() + data_size:
            found = f"{dtype} {shown(shape, 100)}, {data_size:,} bytes"
            raise ValueError(f"{name} declares {found}, in a member of {size:,} with {stream.tell()} of header")
        data = read_bytes(stream, data_size)
    array: Array = data.view(dtype).reshape(shape, order=order)
    return array


def _read_header(stream: IO[bytes], name: str) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Return dtype, shape and order, which the header of an npy file tells."""
    version = stream.read(8)
    length = int.from_bytes(stream.read(2 if version[6:7] == b"\1" else 4), "little")
    if version not in (b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"\x93NUMPY\3\0") or length > MAX_HEADER:
        raise ValueError(f"{name} does not begin as an array does")
    text = stream.read(length).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None:
        raise ValueError(f"{name} has the header {shown(text, 100)}, expected that of an array of numbers or names")
    code, fortran, numbers = found.groups()
    return np.dtype(code), tuple(map(int, re.findall(r"\d+", numbers))), "F" if fortran == "True" else "C"


def need_file(name: str, what: str, data_dir: str | Path | None, advice: str) -> Path:
    """Return where a data file lies. Raises DataMissingError, which says what to do, where it is nowhere."""
    path = find_file(name, data_dir)
    if path is None:
        looked = ", ".join(str(folder.absolute() / name) for folder in search_folders(data_dir))
        raise DataMissingError(f"{what} was not found: there is no {looked}. {advice}")
    return path


def check_set(kind: type, which_set: str, sets: tuple[str, ...]) -> str:
    """Return the name of a part of a data set; raise ValueError unless it is one of `sets`."""
    return check_choice(f"{kind.__name__}: which_set", which_set, sets)


def check_examples(path: Path, inputs: Array, labels: Array, num_classes: int) -> None:
    """Raise DataDamagedError unless there is a label in 0..num_classes - 1 for each of the inputs."""
    if inputs.dtype.kind not in "fiu" or labels.dtype.kind not in "iu":
        raise DataDamagedError(f"{path}: arrays of {inputs.dtype} and {labels.dtype}, expected numbers")
    if labels.ndim != 1 or labels.shape != inputs.shape[:1] or not len(labels):
        raise DataDamagedError(f"{path}: inputs {inputs.shape} and labels {labels.shape}, expected as many of both")
    if not inputs.size:
        raise DataDamagedError(f"{path} holds empty inputs {inputs.shape}")
    if not (float(inputs.min()) >= -MAX_INPUT and float(inputs.max()) <= MAX_INPUT):  # not (...), as NaN is neither
        raise DataDamagedError(f"{path} holds inputs that are not finite, or beyond what float32 can hold")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataDamagedError(f"{path}: labels outside 0..{num_classes - 1}")


def check_names(path: Path, names: Array, num_classes: int) -> None:
    """Raise DataDamagedError unless there is a name for each class."""
    if names.shape != (num_classes,) or names.dtype.kind not in "US":
        found = f"{names.dtype} {names.shape}"
        raise DataDamagedError(f"{path}: names of classes {found}, expected texts ({num_classes},)")
    try:
        names.tolist()
    except (ValueError, SystemError) as error:  # NumPy's, of letters that are none
        raise DataDamagedError(f"{path}: the names of classes are no texts: {error}") from error
