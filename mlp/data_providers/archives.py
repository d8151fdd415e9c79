"""Packed files as streams that take no more memory than was agreed on: gzip, and tar in gzip. Nothing is extracted."""

import io
import re
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from mlp.backend import Array
from mlp.reading import open_file

MAX_RATIO = 1032
"""As many bytes at most deflate makes of one."""
BLOCK = 512
CHUNK = 1 << 17


class _Unpacked(io.RawIOBase):
    """What a gzip file holds: one member, and at most `most` bytes, beyond which reading raises ValueError."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self.stream, self.left = stream, most
        self.machine = zlib.decompressobj(31)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it; return how many bytes were read, 0 at the end."""
        while not self.machine.eof:
            data = self.machine.unconsumed_tail or self.stream.read(CHUNK)
            found = self.machine.decompress(data, len(buffer))
            if found:
                self.left -= len(found)
                if self.left < 0:
                    raise ValueError("it unpacks to more than it should")
                buffer[: len(found)] = found
                return len(found)
            if not data:
                raise EOFError("it ends before its data do")
        if (self.machine.unused_data[:CHUNK] + self.stream.read(CHUNK)).strip(b"\0"):
            raise ValueError("something follows the packed data")
        return 0


def unpacked(stream: BinaryIO, most: int) -> BinaryIO:
    """Return what a gzip file holds as a stream, with a buffer."""
    return io.BufferedReader(_Unpacked(stream, most), CHUNK)


def read_bytes(stream: IO[bytes], size: int) -> Array:
    """Return the next bytes of a stream (size,), with no second copy of them; raise EOFError where there are fewer."""
    data = np.empty(size, np.uint8)
    for at in range(0, size, CHUNK):
        part = np.frombuffer(stream.read(min(CHUNK, size - at)), np.uint8)
        if len(part) != min(CHUNK, size - at):
            raise EOFError("it ends early")
        data[at : at + CHUNK] = part
    return data


def read_tar(path: Path, wanted: Collection[str], most: int, most_in_all: int) -> dict[str, bytes]:
    """Return files of up to `most` bytes in a .tar.gz, by their names; what is no plain file is passed over.

    Raises ValueError, EOFError, OSError or zlib.error where it is damaged, or unpacks to over `most_in_all` bytes.
    """
    files: dict[str, bytes] = {}
    with open_file(path, most_in_all) as packed, unpacked(packed, most_in_all) as stream:
        while (head := stream.read(BLOCK)).strip(b"\0"):
            name, size = _member(head)
            if name in files:
                raise ValueError(f"it holds {name} twice")
            if name is not None and name in wanted and size <= most:
                files[name] = _read(stream, size)
            else:
                _skip(stream, size)
            _skip(stream, -size % BLOCK)
        while stream.read(CHUNK):  # to the checksum
            pass
    return files


def _member(head: bytes) -> tuple[str | None, int]:
    """Return the name of a plain file, None of anything else, and its size, of which a header in a tar tells."""
    size, checksum = (re.fullmatch(rb"[ \0]*([0-7]+)[ \0]*", field) for field in (head[124:136], head[148:156]))
    right = sum(head) - sum(head[148:156]) + 8 * ord(" ")
    if len(head) < BLOCK or not size or not checksum or int(checksum[1], 8) != right:
        raise ValueError("what should be a member's header is none")
    prefix = head[345:500].partition(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    name = (prefix + b"/" if prefix else b"") + head[:100].partition(b"\0")[0]
    return name.decode("ascii", "replace") if head[156:157] in (b"0", b"\0") else None, int(size[1], 8)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends in the middle of a member")
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        size -= len(_read(stream, min(size, CHUNK)))
