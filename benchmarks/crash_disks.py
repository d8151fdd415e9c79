"""Disks that fail: put one in the place of `mlp.files.disk`."""

import errno
import os
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlp import files
from mlp.files import Disk


class StoppedError(BaseException):
    """The end of the process, as far as files can tell: nothing in the library catches it."""


@contextmanager
def in_place(disk: Disk) -> Iterator[Disk]:
    """Let the library use this disk."""
    before, files.disk = files.disk, disk
    try:
        yield disk
    finally:
        files.disk = before


class CountingDisk(Disk):
    """Calls `event` with the call's name before and after each call, and counts the calls.

    It does not wait for the machine's own disk: no trial takes the machine's power.
    """

    def __init__(self) -> None:
        self.calls = 0

    def event(self, name: str, after: bool) -> None:
        """Do nothing."""

    def _call(self, name: str, call: Callable[..., Any], *args: object) -> Any:
        self.calls += 1
        self.event(name, after=False)
        result = call(*args)
        self.event(name, after=True)
        return result

    def open(self, path: Path, how: int) -> int:
        return self._call("open", super().open, path, how)

    def write(self, file: int, data: bytes | memoryview) -> int:
        return self._call("write", super().write, file, data)

    def sync(self, file: int) -> None:
        self._call("sync", lambda: None)

    def close(self, file: int) -> None:
        """Close the file, come what may: a closed file is closed also where an error is reported."""
        super().close(file)
        self._call("close", lambda: None)

    def replace(self, path: Path, target: Path) -> None:
        self._call("replace", super().replace, path, target)

    def remove(self, path: Path) -> None:
        self._call("remove", super().remove, path)

    def make_folder(self, path: Path) -> None:
        self._call("make_folder", super().make_folder, path)

    def sync_folder(self, path: Path) -> None:
        self._call("sync_folder", lambda: None)


EVERY = ("open", "write", "sync", "close", "replace", "remove", "make_folder", "sync_folder")
CALLS = {
    errno.ENOSPC: ("open", "write", "sync", "close", "replace", "make_folder"),
    errno.EIO: EVERY,
    errno.EROFS: ("open", "write", "sync", "replace", "remove", "make_folder"),
}
"""Which calls can meet with an error."""


class FailingDisk(CountingDisk):
    """Raises an error in the `at`-th call or the first after it that can have it, and with `lasting` in all later ones.

    A write that fails has written a part.
    """

    def __init__(self, number: int, at: int, lasting: bool) -> None:
        super().__init__()
        self.number, self.at, self.lasting, self.failed = number, at, lasting, 0

    def event(self, name: str, after: bool) -> None:
        due = self.calls >= self.at and (self.lasting or not self.failed)
        if due and not after and name in CALLS[self.number]:
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))

    def write(self, file: int, data: bytes | memoryview) -> int:
        try:
            return super().write(file, data)
        except OSError:
            Disk.write(self, file, data[: len(data) // 2])
            raise


class ShortDisk(CountingDisk):
    """Writes less than it is asked to, and ends the process at the `at`-th call."""

    def __init__(self, rng: random.Random, at: int) -> None:
        super().__init__()
        self.rng, self.at = rng, at

    def event(self, name: str, after: bool) -> None:
        if self.calls >= self.at and not after:
            raise StoppedError

    def write(self, file: int, data: bytes | memoryview) -> int:
        return super().write(file, data[: self.rng.randint(1, len(data))])


class PowerDisk(CountingDisk):
    """Keeps, when the power fails in the `at`-th call, what was brought to disk, and of the rest what chance keeps.

    Of a file: the content of its last `sync`; where that is not all, then as chance will have it that, a part of what
    came since, or its length with zeros at the end. Of names: what was done before the last `sync_folder` of the
    folder, and of the later changes none, some or all, each by itself. `without` names calls that are forgotten.
    """

    def __init__(self, rng: random.Random, at: int, without: Collection[str] = ()) -> None:
        super().__init__()
        self.rng, self.at, self.before, self.without = rng, at, rng.random() < 0.5, without
        self.names: dict[Path, int] = {}  # path: number of its file
        self.content: dict[int, bytes] = {}
        self.opened: dict[int, int] = {}
        self.safe_names: dict[Path, int] = {}
        self.safe_content: dict[int, bytes] = {}
        self.changes: list[tuple[Path, Path | None, int]] = []  # the name that a file gets, and the one it loses

    def event(self, name: str, after: bool) -> None:
        if self.calls >= self.at and after != self.before:
            raise StoppedError

    def open(self, path: Path, how: int) -> int:
        number = self.names.setdefault(path, len(self.content))
        if number not in self.content:
            self.changes.append((path, None, number))
        if number not in self.content or how & os.O_TRUNC:
            self.content[number] = b""
        file = super().open(path, how)
        self.opened[file] = number
        return file

    def write(self, file: int, data: bytes | memoryview) -> int:
        self.content[self.opened[file]] += bytes(data)
        return super().write(file, data)

    def sync(self, file: int) -> None:
        super().sync(file)
        if "sync" not in self.without:
            self.safe_content[self.opened[file]] = self.content[self.opened[file]]

    def replace(self, path: Path, target: Path) -> None:
        number = self.names.pop(path)
        self.names[target] = number
        self.changes.append((target, path, number))
        super().replace(path, target)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        if "sync_folder" not in self.without:
            for change in self.changes:
                if change[0].parent == path:
                    self._keep(*change)
            self.changes = [change for change in self.changes if change[0].parent != path]

    def fail(self, root: Path) -> None:
        """Leave under `root` the files that are found when the power is back."""
        chance = self.rng.choice((0.0, 0.5, 1.0))
        for change in self.changes:
            if self.rng.random() < chance:
                self._keep(*change)
        for path in [path for path in root.rglob("*") if path.is_file()]:
            path.unlink()
        for path, number in self.safe_names.items():
            path.write_bytes(self._found(number))

    def _keep(self, name: Path, lost: Path | None, number: int) -> None:
        self.safe_names[name] = number
        if lost is not None and self.safe_names.get(lost) == number:
            del self.safe_names[lost]

    def _found(self, number: int) -> bytes:
        content, safe = self.content[number], self.safe_content.get(number, b"")
        if content == safe:
            return content
        part = content[: self.rng.randint(0, len(content))]
        return self.rng.choice((safe, part, part.ljust(len(content), b"\0")))
