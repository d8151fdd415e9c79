"""Reads files that a stranger may have written: none but regular ones, and none larger than it should be."""

import json
import stat
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON = 2**21
"""Bytes of a JSON text; our own have some 10,000. As objects it needs up to 26 times as many."""
MAX_JSON_GROUPS = 60_000
"""Objects and lists in a JSON text, which take most of the memory."""


def open_file(path: Path, most: int) -> BinaryIO:
    """Open a regular file of at most `most` bytes; raise ValueError for another, OSError for none."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes, expected at most {most:,}")
    return path.open("rb")


def read_file(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file. Raises ValueError and OSError as `open_file`."""
    with open_file(path, most) as stream:
        return stream.read()


def shown(text: object, most: int = 300) -> str:
    """Return a text that may come from a file as a message can hold it: short, in one line, nothing but letters."""
    line = str(text)[: most + 1]
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) <= most else f"{line[:most]}..."


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; raise ValueError for none, and for one too large, too deep, or with a key twice.

    NaN and Infinity are let through: a run that diverged writes them.
    """
    groups = text.count("{") + text.count("[")
    if len(text) > MAX_JSON or groups > MAX_JSON_GROUPS:
        raise ValueError(
            f"{len(text):,} letters of JSON with {groups:,} groups, more than {MAX_JSON:,} or {MAX_JSON_GROUPS:,}"
        )
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("its JSON holds a key twice")
    return content
