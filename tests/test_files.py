"""Files that appear whole or not at all, and folders that one process holds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlp.files import FolderInUseError, FolderLock, write_atomic

HOLDER = """
import sys
from pathlib import Path
from mlp.files import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TAKER = """
import sys
from pathlib import Path
from mlp.files import FolderInUseError, FolderLock
try:
    with FolderLock(Path(sys.argv[1])):
        print("taken")
except FolderInUseError as error:
    print(error)
"""


def fail(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def holder(folder):
    """Start a process that holds a folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process, number=None):
    """End a process that this test started."""
    if number is not None:
        process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize(
    ("data", "stored"), [("naïve\n", "naïve\n".encode()), (b"\x00\xff\r\n", b"\x00\xff\r\n"), ("", b"")]
)
def test_writes_text_as_utf8_and_bytes_as_they_are(tmp_path, data, stored):
    write_atomic(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == stored


def test_replaces_a_file_and_leaves_nothing_beside_it(tmp_path):
    write_atomic(tmp_path / "file", "a long first content")
    write_atomic(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("broken", ["open", "fsync", "replace"])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_leaves_the_old_content(tmp_path, monkeypatch, broken, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with monkeypatch.context() as patch:
        patch.setattr(os if broken == "fsync" else Path, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new")
    assert (path.read_text() if path.exists() else None) == before
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failure_in_the_middle_of_writing_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    real = Path.open

    def half(self, *args, **kwargs):
        stream = real(self, *args, **kwargs)

        class Half:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                stream.close()

            def write(self, data):
                stream.write(data[: len(data) // 2])
                fail()

        return Half()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", half)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new content")
    assert path.read_text() == "old"


def test_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    path, events = tmp_path / "file", []
    path.write_text("old")
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(number):
        events.append("folder" if os.path.isdir(f"/dev/fd/{number}") else "content")  # noqa: PTH112
        real_fsync(number)

    def replace(self, target):
        assert self.read_text() == "new"
        assert path.read_text() == "old"
        events.append("name")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(path, "new")
    assert events == ["content", "name", "folder"]


def test_a_folder_is_held_once_in_a_process(tmp_path):
    with FolderLock(tmp_path), pytest.raises(FolderInUseError, match=str(os.getpid())), FolderLock(tmp_path):
        pass
    with FolderLock(tmp_path):
        pass


def test_two_folders_can_be_held(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with FolderLock(tmp_path / "a"), FolderLock(tmp_path / "b"):
        pass


def test_an_error_inside_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path):
        raise KeyError
    with FolderLock(tmp_path):
        pass


def test_a_second_process_is_told_the_owner(tmp_path):
    with FolderLock(tmp_path):
        refused = subprocess.run(
            [sys.executable, "-c", TAKER, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
        )
    assert refused.stdout == f"{tmp_path} is in use by process {os.getpid()}: wait for it, or stop it\n"


def test_being_refused_does_not_take_the_owner_away(tmp_path):
    with FolderLock(tmp_path):
        for _ in range(3):
            with pytest.raises(FolderInUseError, match=f"process {os.getpid()}:"), FolderLock(tmp_path):
                pass


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["at its end", "after SIGKILL"])
def test_a_folder_is_free_when_its_owner_is_gone(tmp_path, number):
    process = holder(tmp_path)
    try:
        with pytest.raises(FolderInUseError, match=f"process {process.pid}:"), FolderLock(tmp_path):
            pass
    finally:
        assert end(process, number) == (0 if number is None else -number)
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()}"
