"""Files that appear whole or not at all, and names that one process holds at a time.

All that the library does to a disk goes through the calls of `disk`, so that a test can put one in its place that fails
or loses its power.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows has no fcntl: there a folder is not guarded against a second process
    fcntl = None  # type: ignore[assignment]

NEW, MORE = os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND
"""How a file is opened to be written: empty, or to be gone on with."""


class FolderInUseError(RuntimeError):
    """Another process works in this folder."""


class Disk:
    """The calls by which anything reaches the disk. Files are known by their descriptors; errors are OSErrors."""

    def open(self, path: Path, how: int) -> int:
        """Open a file to be read and written."""
        return os.open(path, os.O_RDWR | how | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Write some of the data, from its start; return how many bytes."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Return when the file's content is on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close a file."""
        os.close(file)

    def replace(self, path: Path, target: Path) -> None:
        """Give a file another name, in place of a file that has it."""
        path.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        path.mkdir()

    def sync_folder(self, path: Path) -> None:
        """Return when the names in a folder are on the disk."""
        if os.name == "posix":  # pragma: no branch (Windows opens no folder)
            folder = os.open(path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


disk = Disk()


class Output:
    """A file that is written to, as a context; at its end the content is on the disk, and an error names the file."""

    def __init__(self, path: Path, how: int = NEW) -> None:
        self.path, self.how = path, how

    def write(self, data: bytes) -> None:
        """Write all of the data, however little the disk takes at once."""
        rest = memoryview(data)
        while rest:
            rest = rest[disk.write(self.file, rest) :]

    def __enter__(self) -> "Output":
        self.file = disk.open(self.path, self.how)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                disk.sync(self.file)
        except OSError as failed:
            error = failed
            raise
        finally:
            disk.close(self.file)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.path)


def write_atomic(path: Path, data: bytes | str, keep: Path | None = None) -> None:
    """Write a file under a temporary name beside it, bring it to disk, then give it its name.

    After a crash at any moment `path` is the old file or the new one, whole. With `keep`, another name in its folder,
    the old file gets that name: one of the two is there at any moment, and when this returns both are.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with Output(temporary) as output:
            output.write(data.encode() if isinstance(data, str) else data)
        if keep is not None and path.exists():
            rename(path, keep)
        rename(temporary, path)
    except OSError:
        _try_to_remove(temporary)  # a full disk needs its space
        raise


def rename(path: Path, target: Path) -> None:
    """Give a file another name in its folder, in place of a file that has it, and bring that to disk."""
    disk.replace(path, target)
    disk.sync_folder(target.parent)


def make_folder(path: Path, exist_ok: bool = False) -> None:
    """Make a folder and those above it that are not there, and bring that to disk.

    Raises FileExistsError where it is there, with `exist_ok` where a file is.
    """
    if not path.parent.exists():
        make_folder(path.parent, exist_ok=True)
    try:
        disk.make_folder(path)
    except FileExistsError:
        if not (exist_ok and path.is_dir()):
            raise
    else:
        disk.sync_folder(path.parent)


def warn(line: str) -> None:
    """Say a line that is no result, on the standard error."""
    print(line, file=sys.stderr)


def _try_to_remove(path: Path) -> None:
    try:
        disk.remove(path)
    except OSError:
        return  # what failed before is raised


class FolderLock:
    """Holds a folder for this process, as a context: ``with FolderLock(path): ...``.

    The lock is the operating system's, on a file `name` in the folder that says who holds it: it ends with the process,
    however that ends. Where another process holds it, raises FolderInUseError or, with `wait`, waits. What is worth
    knowing is told to `say` in a line: that it waits, or that the last owner was killed and left the file.
    """

    def __init__(
        self, folder: Path, name: str = ".lock", wait: bool = False, say: Callable[[str], object] = warn
    ) -> None:
        self.path, self.wait, self.say = folder / name, wait, say
        self._said = False

    def __enter__(self) -> "FolderLock":
        self.file = disk.open(self.path, MORE)
        while not self._hold():
            disk.close(self.file)  # the owner removed the file between our opening and locking it
            self.file = disk.open(self.path, MORE)
        try:
            if owner := self._owner():
                self.say(f"{self.path} says {owner}; that process has ended, and this one takes over")
            os.ftruncate(self.file, 0)
            disk.write(self.file, f"process {os.getpid()} on {socket.gethostname()}\n{time.time():.0f}\n".encode())
        except OSError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fcntl is None:  # Windows removes no open file
            disk.close(self.file)
            _try_to_remove(self.path)
        else:
            _try_to_remove(self.path)
            disk.close(self.file)

    def _hold(self) -> bool:
        """Lock the file; return whether it still has its name."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait_or_raise()
        try:
            return os.path.samestat(os.fstat(self.file), self.path.stat())
        except FileNotFoundError:
            return False

    def _wait_or_raise(self) -> None:
        owner = self._owner() or "another process"
        if not self.wait:
            disk.close(self.file)
            raise FolderInUseError(f"{self.path.parent} is in use by {owner}: wait for it, or stop it") from None
        if not self._said:
            self.say(f"{self.path} is held by {owner}: waiting for it")
            self._said = True
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def _owner(self) -> str:
        """Return what the file says of its owner, or an empty string."""
        os.lseek(self.file, 0, os.SEEK_SET)
        name, _, since = os.read(self.file, 1000).decode(errors="replace").strip().partition("\n")
        return f"{name}, which took it {_duration(time.time() - int(since))} ago" if since.isdecimal() else name


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, whole = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (whole, "s")) if count]
    return " ".join(parts[:2]) or "0 s"
