"""Downloads from a server on this machine: whole, interrupted, wrong, and gone."""

import gzip
import hashlib
import itertools
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError, DataMissingError, download, fetch, search_folders, user_cache
from mlp.data_providers.download import RemoteFile, check_file, find_file
from mlp.data_providers.transfer import ATTEMPTS

DATA = np.random.default_rng(0).bytes(1_500_000)


def sums(data):
    return {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        assert server.answers.wait(60)
        asked = self.headers.get("Range")
        server.asked.append(asked)
        server.kept.append(server.part.read_bytes() if server.part.exists() else b"")
        if server.status:
            self.send_response(server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = re.fullmatch(r"bytes=(\d+)-", asked or "") if server.ranges else None
        start = int(found[1]) if found else 0
        if start and start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.data[start:]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        count = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[: count - 1])
        server.seen_before_the_end.append(server.watched.exists())
        self.wfile.write(body[count - 1 : count])

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    """Serves `data` to all who ask; `cuts` are the bytes it sends of its next answers before it hangs up."""

    def __init__(self, watched):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.lengths, self.status, self.encoding = DATA, True, True, None, None
        self.cuts, self.asked, self.kept, self.seen_before_the_end = [], [], [], []
        self.answers = threading.Event()
        self.answers.set()
        self.watched, self.part = watched, watched.with_name(f"{watched.name}.part")

    def remote(self, **changes):
        remote = RemoteFile("file.bin", f"http://127.0.0.1:{self.server_port}/file.bin", len(DATA), **sums(DATA))
        return remote._replace(**changes)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "some" / "folder"


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(folder / "file.bin") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_whole(folder, data=DATA):
    assert (folder / "file.bin").read_bytes() == data
    assert names_in(folder) == ["file.bin"]


@pytest.mark.parametrize("quiet", [True, False])
def test_a_file_arrives_whole_under_its_name(server, folder, quiet):
    assert fetch(server.remote(), folder, quiet=quiet) == folder / "file.bin"
    assert_whole(folder)
    assert server.asked == [None]


def test_a_file_that_is_there_is_not_downloaded_again(server, folder):
    fetch(server.remote(), folder, quiet=True)
    assert fetch(server.remote(), folder, quiet=True) == folder / "file.bin"
    assert len(server.asked) == 1


def test_a_file_of_unknown_size_can_be_had(server, folder):
    fetch(server.remote(size=None), folder, quiet=True)
    assert_whole(folder)


def test_an_empty_file_can_be_had(server, folder):
    server.data = b""
    fetch(server.remote(size=0, **sums(b"")), folder, quiet=True)
    assert_whole(folder, b"")


def test_without_a_folder_it_goes_to_the_user_cache(server, folder, monkeypatch):
    monkeypatch.setattr(download, "user_cache", lambda: folder)
    assert fetch(server.remote(), quiet=True) == folder / "file.bin"
    assert_whole(folder)


def test_a_connection_cut_a_few_times_is_gone_on_with(server, folder):
    server.cuts = [200_000, 300_000, 500_000, 100_000]
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)
    assert len(server.asked) == 5
    assert server.asked == [None, *(f"bytes={len(kept)}-" for kept in server.kept[1:])]
    assert all(DATA.startswith(kept) for kept in server.kept)
    for before, after in itertools.pairwise(server.kept):
        assert len(after) > len(before)


def test_a_server_without_ranges_starts_anew(server, folder):
    server.ranges, server.cuts = False, [500_000, 200_000]
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)
    assert server.asked == [None, *(f"bytes={len(kept)}-" for kept in server.kept[1:])]
    assert 0 < len(server.kept[2]) <= 200_000 < len(server.kept[1])


def test_the_file_is_never_there_before_it_is_whole(server, folder):
    server.cuts = [200_000, 300_000]
    fetch(server.remote(), folder, quiet=True)
    assert server.seen_before_the_end == [False, False, False]


def test_an_answer_without_a_length_that_ends_early_is_gone_on_with(server, folder):
    server.lengths, server.cuts = False, [200_000, 300_000]
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)
    assert server.asked == [None, "bytes=200000-", "bytes=500000-"]


def test_an_interrupted_download_is_gone_on_with_by_the_next_call(server, folder):
    server.cuts = [200_000] * ATTEMPTS
    with pytest.raises(DataMissingError) as caught:
        fetch(server.remote(), folder, quiet=True)
    assert names_in(folder) == ["file.bin.part"]
    kept = (folder / "file.bin.part").read_bytes()
    assert len(kept) > 200_000
    assert DATA.startswith(kept)
    assert f"{len(kept):,} bytes are kept in {folder / 'file.bin.part'}" in str(caught.value)
    server.asked.clear()
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)
    assert server.asked == [f"bytes={len(kept)}-"]


def test_it_gives_up_after_some_attempts(server, folder):
    server.cuts = [200_000] * (ATTEMPTS + 1)
    with pytest.raises(DataMissingError):
        fetch(server.remote(), folder, quiet=True)
    assert len(server.asked) == ATTEMPTS


def test_a_part_that_is_whole_is_only_renamed(server, folder):
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(DATA)
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)
    assert server.asked == [f"bytes={len(DATA)}-"]


@pytest.mark.parametrize("part", [b"other", DATA + b"more"], ids=["other", "longer"])
def test_a_wrong_part_is_set_aside_and_the_file_downloaded_anew(server, folder, part, capsys):
    """As where the server has another version now than when the part came."""
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(part)
    fetch(server.remote(), folder)
    assert server.asked == [f"bytes={len(part)}-", None]
    assert f"{folder / 'file.bin.damaged'} does not fit together (has " in capsys.readouterr().err
    assert (folder / "file.bin.damaged").read_bytes() == part + DATA[len(part) :]
    (folder / "file.bin.damaged").unlink()
    assert_whole(folder)


def test_a_wrong_part_of_a_wrong_file_is_damage(server, folder):
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(b"other")
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(DataDamagedError, match=r"gave a wrong file, which was left in .*file\.bin\.damaged"):
        fetch(server.remote(), folder, quiet=True)
    assert server.asked == ["bytes=5-", None]
    assert names_in(folder) == ["file.bin.damaged"]


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_bytes_are_damage_and_no_file(server, folder, ranges):
    server.data, server.ranges = DATA[:-1] + bytes([DATA[-1] ^ 1]), ranges
    with pytest.raises(DataDamagedError, match=re.escape(server.remote().url)):
        fetch(server.remote(), folder, quiet=True)
    assert (folder / "file.bin.damaged").read_bytes() == server.data
    assert names_in(folder) == ["file.bin.damaged"]
    (folder / "file.bin.damaged").unlink()
    server.data = DATA
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_error_of_the_server_is_a_missing_file(server, folder, status):
    server.status = status
    with pytest.raises(DataMissingError, match=str(status)) as caught:
        fetch(server.remote(), folder, quiet=True)
    assert server.remote().url in str(caught.value)
    assert names_in(folder) == []


def test_an_error_of_the_server_is_not_asked_for_again(server, folder):
    server.status = 404
    with pytest.raises(DataMissingError):
        fetch(server.remote(), folder, quiet=True)
    assert len(server.asked) == 1


def test_an_error_of_the_server_keeps_what_was_there(server, folder):
    server.cuts = [200_000] * ATTEMPTS
    with pytest.raises(DataMissingError):
        fetch(server.remote(), folder, quiet=True)
    server.status = 404
    with pytest.raises(DataMissingError, match="bytes are kept"):
        fetch(server.remote(), folder, quiet=True)
    server.status = None
    fetch(server.remote(), folder, quiet=True)
    assert_whole(folder)


def test_a_server_that_does_not_end_is_left(server, folder):
    server.lengths, server.data = False, DATA + bytes(20_000_000)
    with pytest.raises(DataDamagedError, match="wrong file"):
        fetch(server.remote(), folder, quiet=True)
    assert names_in(folder) == ["file.bin.damaged"]
    assert (folder / "file.bin.damaged").stat().st_size < len(DATA) + 200_000


def test_no_server_is_a_missing_file(folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
        with pytest.raises(DataMissingError, match=re.escape(url)):
            fetch(RemoteFile("file.bin", url, 1, "0" * 32), folder, quiet=True)
    assert names_in(folder) == []


def test_a_folder_that_cannot_be_made_is_a_missing_file(server, folder):
    folder.parent.mkdir()
    folder.write_bytes(b"a file")
    with pytest.raises(DataMissingError, match="could not be downloaded"):
        fetch(server.remote(), folder, quiet=True)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_gz_file_that_the_server_calls_encoded_arrives_as_it_is(server, folder, encoding):
    server.data, server.encoding = gzip.compress(DATA, 1, mtime=0), encoding
    remote = server.remote(size=len(server.data), **sums(server.data))
    fetch(remote, folder, quiet=True)
    assert_whole(folder, server.data)


@pytest.mark.parametrize("data", [DATA[:-1], DATA[:-1] + bytes([DATA[-1] ^ 1]), b""], ids=["short", "wrong", "empty"])
def test_a_damaged_file_that_is_there_is_told_and_left(server, folder, data):
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(data)
    with pytest.raises(DataDamagedError, match=r"file\.bin.*left as it is.*http://"):
        fetch(server.remote(), folder, quiet=True)
    assert_whole(folder, data)
    assert server.asked == []


FETCHER = """
import sys
from pathlib import Path
from mlp.data_providers.download import RemoteFile, fetch
print("ready", flush=True)
name, url, size, *sums, folder = sys.stdin.readline().split()
print("asking", flush=True)
print(fetch(RemoteFile(name, url, int(size), *sums), Path(folder), quiet=True))
"""


@pytest.fixture
def fetchers():
    """Return eight processes that are ready to fetch a file; any that are left are killed at the end."""
    command = [sys.executable, "-c", FETCHER]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, **pipes, text=True) for _ in range(8)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_eight_processes_download_a_file_once(server, folder, fetchers):
    """The server says nothing until all of them are asking."""
    server.answers.clear()
    for process in fetchers:
        assert process.stdout.readline() == "ready\n"
    for process in fetchers:
        process.stdin.write(" ".join([*map(str, server.remote()), str(folder)]) + "\n")
        process.stdin.flush()
    for process in fetchers:
        assert process.stdout.readline() == "asking\n"
    server.answers.set()
    for process in fetchers:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, f"{folder / 'file.bin'}\n", "")
    assert server.asked == [None]
    assert_whole(folder)


def test_a_process_that_is_killed_leaves_the_download_to_the_next(server, folder, fetchers, capsys):
    server.answers.clear()
    process = fetchers[0]
    process.stdin.write(" ".join([*map(str, server.remote()), str(folder)]) + "\n")
    process.stdin.flush()
    while not (folder / ".file.bin.lock").exists() or not (folder / ".file.bin.lock").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.answers.set()
    fetch(server.remote(), folder)
    assert f"process {process.pid} on " in capsys.readouterr().err
    assert_whole(folder)


def test_check_file_looks_at_size_and_all_checksums(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    right = RemoteFile("x", "http://host/x", 3, **sums(b"abc"))
    check_file(path, right)
    check_file(path, right._replace(size=None))
    check_file(path, right._replace(sha256=None))
    with pytest.raises(DataDamagedError, match="3 bytes, expected 4"):
        check_file(path, right._replace(size=4))
    none = {"md5": "0" * 32, "sha256": "1" * 64}
    md5, sha256 = f"MD5 {right.md5}, expected {none['md5']}", f"SHA-256 {right.sha256}, expected {none['sha256']}"
    for wrong, found in (("md5",), md5), (("sha256",), sha256), (("md5", "sha256"), f"{md5} and {sha256}"):
        with pytest.raises(DataDamagedError, match=f"x has {found}: it is damaged or another file. It was left as it"):
            check_file(path, right._replace(**{name: none[name] for name in wrong}))
    assert path.read_bytes() == b"abc"


def test_all_checksums_are_made_in_one_reading(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    path.write_bytes(DATA)
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: opened.append(path) or real(path, *mode))
    check_file(path, RemoteFile("file.bin", "http://host/file.bin", len(DATA), **sums(DATA)))
    assert opened == [path]


def test_the_folders_looked_in_come_in_order(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "user_cache", lambda: tmp_path)
    monkeypatch.setenv("MLP_DATA_DIR", "/environment")
    assert search_folders("/given") == [Path("/given"), Path("/environment"), Path("data"), tmp_path]
    assert search_folders() == [Path("/environment"), Path("data"), tmp_path]
    monkeypatch.setenv("MLP_DATA_DIR", "")
    assert search_folders() == [Path("data"), tmp_path]
    monkeypatch.delenv("MLP_DATA_DIR")
    assert search_folders(Path("given")) == [Path("given"), Path("data"), tmp_path]


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("MLP_DATA_DIR", "~/environment")
    assert search_folders("~/given")[:2] == [Path("/home/someone/given"), Path("/home/someone/environment")]


def test_the_user_cache_is_a_folder_of_our_own():
    assert user_cache().is_absolute()
    assert user_cache().name == "mlp"


def test_find_file_takes_the_first_place(monkeypatch, tmp_path):
    given, environment = tmp_path / "given", tmp_path / "environment"
    given.mkdir()
    environment.mkdir()
    monkeypatch.setattr(download, "user_cache", lambda: tmp_path)
    monkeypatch.setenv("MLP_DATA_DIR", str(environment))
    monkeypatch.chdir(given)
    assert find_file("x", given) is None
    for folder in (tmp_path, environment, given):
        (folder / "x").write_bytes(b"")
        assert find_file("x", given) == folder / "x"
