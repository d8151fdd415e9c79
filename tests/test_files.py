"""Files that appear whole or not at all, and folders that one process holds."""

import ast
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlp import files
from mlp.files import FolderInUseError, FolderLock, make_folder, write_atomic

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


WITHOUT_FCNTL = f"""
import sys
sys.modules["fcntl"] = None  # as on Windows
{HOLDER}"""


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


@pytest.mark.parametrize("broken", ["open", "write", "sync", "replace"])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_failure_leaves_the_old_content(tmp_path, monkeypatch, broken, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with monkeypatch.context() as patch:
        patch.setattr(files.disk, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if before is None else ["file"])
    assert (path.read_text() if path.exists() else None) == before
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failure_in_the_middle_of_writing_leaves_the_old_content_and_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    real, written = files.disk.write, []

    def half(number, data):
        if written:
            fail()
        written.append(real(number, data[: len(data) // 2]))
        return written[0]

    with monkeypatch.context() as patch:
        patch.setattr(files.disk, "write", half)
        with pytest.raises(OSError, match=r"No space left.*\.file\.part"):
            write_atomic(path, "new content")
    assert written == [5]
    assert path.read_text() == "old"


def test_a_disk_that_takes_little_at_once_is_given_all(tmp_path, monkeypatch):
    real = files.disk.write
    monkeypatch.setattr(files.disk, "write", lambda number, data: real(number, data[:3]))
    write_atomic(tmp_path / "file", "new content")
    assert (tmp_path / "file").read_text() == "new content"


def test_the_old_file_is_kept_under_another_name(tmp_path):
    path, kept = tmp_path / "file", tmp_path / "kept"
    for content, before in (("1", None), ("2", "1"), ("3", "2")):
        write_atomic(path, content, kept)
        assert path.read_text() == content
        assert (kept.read_text() if kept.exists() else None) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "kept"]


def test_folders_are_brought_to_disk_with_those_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files.disk, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")
    make_folder(tmp_path / "a", exist_ok=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file", exist_ok=True)


WRITING = (
    "write_text write_bytes fsync mkdir makedirs unlink rmdir rename touch hardlink_to symlink_to savez tofile".split()
)


def writes(path):
    """Return the calls in a module that reach the disk around `files`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in WRITING]
    found += [call for call in calls if ast.unparse(call.func).endswith(".replace") and len(call.args) == 1]
    opened = [call for call in calls if ast.unparse(call.func).split(".")[-1] == "open" and call.args]
    modes = [(call, call.args[-1].value) for call in opened if isinstance(call.args[-1], ast.Constant)]
    found += [call for call, mode in modes if isinstance(mode, str) and set(mode) & set("wax+")]
    return [ast.unparse(call) for call in found]


def test_nothing_in_the_library_writes_around_the_disk():
    package = Path(files.__file__).parent
    assert len(writes(package / "files.py")) == 5  # so it is seen where there are any
    others = {path: writes(path) for path in sorted(package.rglob("*.py")) if path.name != "files.py"}
    assert {path: calls for path, calls in others.items() if calls} == {}


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
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    expected = rf"{tmp_path} is in use by {owner}, which took it \d+ s ago: wait for it, or stop it\n"
    assert re.fullmatch(expected, refused.stdout)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90_000, "1 d 1 h"), (-50, "0 s")],
)
def test_the_age_of_a_lock_is_said(tmp_path, monkeypatch, seconds, said):
    with FolderLock(tmp_path):
        (tmp_path / ".lock").write_text("process 5 on elsewhere\n1000000\n")
        monkeypatch.setattr(files.time, "time", lambda: 1_000_000.0 + seconds)
        with pytest.raises(FolderInUseError, match=f"process 5 on elsewhere, which took it {said} ago:"):
            FolderLock(tmp_path).__enter__()


def test_a_lock_that_says_nothing_is_another_processs(tmp_path):
    with FolderLock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(FolderInUseError, match="in use by another process:"), FolderLock(tmp_path):
            pass


def test_being_refused_does_not_take_the_owner_away(tmp_path):
    with FolderLock(tmp_path):
        for _ in range(3):
            with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on "), FolderLock(tmp_path):
                pass


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["at its end", "after SIGKILL"])
def test_a_folder_is_free_when_its_owner_is_gone(tmp_path, number):
    process = holder(tmp_path)
    try:
        with pytest.raises(FolderInUseError, match=f"process {process.pid} on "), FolderLock(tmp_path):
            pass
    finally:
        assert end(process, number) == (0 if number is None else -number)
    said = []
    with FolderLock(tmp_path, say=said.append):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on {socket.gethostname()}\n")
    assert [f"process {process.pid} on " in line and "that process has ended" in line for line in said] == (
        [] if number is None else [True]
    )
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_waits_gets_the_folder(tmp_path):
    """Also where the file that it waits for is removed under its hands, as an owner does at its end."""
    process, said, held = holder(tmp_path), [], []

    def wait():
        with FolderLock(tmp_path, wait=True, say=said.append):
            held.append((tmp_path / ".lock").read_text().splitlines()[0])

    thread = threading.Thread(target=wait)
    thread.start()
    while not said:
        time.sleep(0.01)
    assert held == []
    end(process)
    thread.join(timeout=60)
    assert held == [f"process {os.getpid()} on {socket.gethostname()}"]
    (line,) = said
    assert f"is held by process {process.pid} on " in line
    assert list(tmp_path.iterdir()) == []


def test_that_it_waits_is_said_once_though_it_waits_twice(tmp_path, monkeypatch):
    """The file that was waited for is gone, and the one in its place is another process's again."""
    path, said, refusals = tmp_path / ".lock", [], iter("ab")

    def flock(file, how):
        if how & fcntl.LOCK_NB:
            next(refusals)
            raise BlockingIOError
        if path.read_text():
            path.unlink()

    path.write_text("process 5 on elsewhere\n")
    monkeypatch.setattr(files.fcntl, "flock", flock)
    with FolderLock(tmp_path, wait=True, say=said.append):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert list(refusals) == []
    assert said == [f"{path} is held by process 5 on elsewhere: waiting for it"]


def test_a_lock_that_cannot_be_written_is_given_back_and_the_error_is_the_first_one(tmp_path, monkeypatch):
    def keep(_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(files.disk, "write", fail)
        patch.setattr(files.disk, "remove", keep)
        with pytest.raises(OSError, match="No space left"):
            FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path, say=lambda _: None):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_without_fcntl_a_folder_is_not_guarded_and_its_lock_is_removed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)], input="", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")
    assert list(tmp_path.iterdir()) == []
