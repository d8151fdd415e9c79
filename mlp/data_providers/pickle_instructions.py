"""The instructions of a pickle one by one, each admitted before its argument is read."""

import io
import pickletools
from collections.abc import Collection, Iterator
from typing import Any

MAX_INSTRUCTIONS = 500_000
"""CIFAR-100's 50,000 names and 100,000 labels take some 200,000 of them."""
MAX_TEXT = 12_000_000
"""Bytes of a text, which may need four times as many in memory."""
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_TEXTS = {"SHORT_BINUNICODE": 1, "BINUNICODE": 4}
_BYTES = {"SHORT_BINSTRING": 1, "BINSTRING": 4, "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
_COUNTS = _TEXTS | _BYTES
"""Bytes of the count before what an instruction carries."""


class PickleError(ValueError):
    """A pickle is not what the reader admits."""


def instructions(data: bytes, admitted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and argument of each instruction before STOP; raise PickleError for another, or without STOP."""
    stream = io.BytesIO(data)
    for _ in range(MAX_INSTRUCTIONS):
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None or opcode.name not in admitted:
            found = f"opcode {opcode.name if opcode else repr(code)} at byte {stream.tell() - 1} is not admitted"
            raise PickleError(found if code else "it has no end")
        if opcode.name == "STOP":
            return
        if opcode.name in _COUNTS:
            yield opcode.name, _carried(stream, opcode.name)
        else:
            yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None
    raise PickleError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")


def _carried(stream: io.BytesIO, name: str) -> str | bytes:
    """Return the text or the bytes that an instruction carries."""
    size = int.from_bytes(stream.read(_COUNTS[name]), "little")
    if name in _TEXTS and size > MAX_TEXT:
        raise PickleError(f"a text of {size:,} bytes")
    content = stream.read(min(size, 2**62))
    if len(content) < size:
        raise PickleError("it ends in the middle of an instruction")
    return content.decode("utf-8", "surrogatepass") if name in _TEXTS else content
