"""Files that appear whole or not at all, and folders that one process writes at a time."""

import os
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows has no fcntl: there a folder is not guarded against a second process
    fcntl = None  # type: ignore[assignment]


class FolderInUseError(RuntimeError):
    """Another process works in this folder."""


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name beside it, bring it to disk, then give it its name.

    After a crash at any moment `path` is the old file or the new one, whole.
    """
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as stream:
        stream.write(data.encode() if isinstance(data, str) else data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class FolderLock:
    """Holds a folder for this process, as a context: ``with FolderLock(path): ...``.

    The lock is the operating system's, on the file `.lock` in the folder: it ends with the process, however that
    ends, so it is never stale. Raises FolderInUseError where another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"

    def __enter__(self) -> "FolderLock":
        self.stream = self.path.open("a+")
        if fcntl is not None:
            try:
                fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.stream.seek(0)
                owner = self.stream.read().strip()
                self.stream.close()
                raise FolderInUseError(
                    f"{self.path.parent} is in use by {owner or 'another process'}: wait for it, or stop it"
                ) from None
        self.stream.seek(0)
        self.stream.truncate()
        self.stream.write(f"process {os.getpid()}")
        self.stream.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
