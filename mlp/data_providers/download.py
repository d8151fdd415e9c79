"""Where data files are looked for, and downloads that go on where they stopped."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import pooch
import requests

from mlp.bars import progress_bar
from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.files import MORE, NEW, FolderLock, Output, make_folder, rename, warn

ATTEMPTS = 5
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte


class RemoteFile(NamedTuple):
    """A file on a server: its name, its address, its size in bytes (None: not known), its MD5 and its SHA-256.

    The SHA-256 is None where no source has published one.
    """

    name: str
    url: str
    size: int | None
    md5: str
    sha256: str | None = None

    def sums(self) -> dict[str, str]:
        """Return the file's known checksums, by the names of their algorithms."""
        return {"MD5": self.md5} | ({"SHA-256": self.sha256} if self.sha256 else {})

    def described(self) -> str:
        """Return how one can know the file, in words."""
        size = "" if self.size is None else f"{self.size:,} bytes, "
        return size + ", ".join(f"{name} {value}" for name, value in self.sums().items())


def user_cache() -> Path:
    """Return the folder that downloads go to by default."""
    return Path(pooch.os_cache("mlp"))


def search_folders(data_dir: str | Path | None = None) -> list[Path]:
    """Return the folders where data is looked for, in order: `data_dir`, $MLP_DATA_DIR, data/, the user cache."""
    named = [data_dir, os.environ.get("MLP_DATA_DIR") or None, "data", user_cache()]
    return [Path(folder).expanduser() for folder in named if folder is not None]


def find_file(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Return the first place where a file or folder of this name lies, or None."""
    places = (folder / name for folder in search_folders(data_dir))
    return next((place for place in places if place.exists()), None)


def check_file(path: Path, remote: RemoteFile) -> None:
    """Raise DataDamagedError unless the file at `path` has the size and all the checksums of `remote`."""
    if found := _difference(path, remote):
        raise DataDamagedError(f"{path} {found}. It was left as it is; remove it and fetch it again, from {remote.url}")


def _difference(path: Path, remote: RemoteFile) -> str:
    """Return what a file has and `remote` has not, as the rest of a sentence, or an empty string; read it once."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"has {size:,} bytes, expected {remote.size:,}: it is truncated or another file"
    expected = remote.sums()
    machines = {name: hashlib.new(name.replace("-", ""), usedforsecurity=name != "MD5") for name in expected}
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            for machine in machines.values():
                machine.update(block)
    found = {name: machine.hexdigest() for name, machine in machines.items()}
    wrong = [f"{name} {found[name]}, expected {expected[name]}" for name in expected if found[name] != expected[name]]
    return f"has {' and '.join(wrong)}: it is damaged or another file" if wrong else ""


def fetch(remote: RemoteFile, folder: Path | None = None, quiet: bool = False) -> Path:
    """Download a file into `folder` (default: the user cache), or take it from there; return its path.

    Of processes that ask for one file at a time, one downloads it, and the others wait for that.
    An interrupted download stays as NAME.part and is gone on with, also by a later call. The file appears under its
    name only whole and with the right checksums; a wrong one is left as NAME.damaged. Raises DataMissingError where the
    file cannot be had, DataDamagedError where it is wrong.
    """
    folder = folder or user_cache()
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.exists():
        check_file(target, remote)
        return target
    try:
        make_folder(folder, exist_ok=True)
        with FolderLock(folder, f".{remote.name}.lock", wait=True, say=_say_nothing if quiet else warn):
            if not target.exists():  # nor has the process that was waited for made it
                _download_whole(remote, part, quiet)
                rename(part, target)
    except (requests.RequestException, OSError) as error:
        kept = (
            f" {part.stat().st_size:,} bytes are kept in {part}; the same command goes on there."
            if part.exists()
            else ""
        )
        raise DataMissingError(f"{remote.url} could not be downloaded ({error}).{kept}") from error
    return target


def _say_nothing(_: str) -> None:
    """Take the place of `warn`."""


def _download_whole(remote: RemoteFile, part: Path, quiet: bool) -> None:
    """Download what `part` lacks, in some attempts."""
    for left in reversed(range(ATTEMPTS)):
        try:
            _download(remote.url, part, quiet, remote.size)
            _check_download(part, remote)
            return
        except requests.HTTPError:
            raise
        except (requests.RequestException, OSError):
            if left == 0:
                raise


def _check_download(part: Path, remote: RemoteFile) -> None:
    try:
        check_file(part, remote)
    except DataDamagedError as error:
        damaged = part.with_name(f"{remote.name}.damaged")
        rename(part, damaged)
        raise DataDamagedError(f"{remote.url} gave a wrong file, which was left in {damaged}: {error}") from error


def _download(url: str, part: Path, quiet: bool, most: int | None) -> None:
    """Append to `part` what it lacks of the file at `url`, or start anew; stop after `most` bytes."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking; the checksum decides
        response.raise_for_status()
        response.raw.headers.discard("Content-Encoding")  # some servers call a .gz file so: it is to stay packed
        resumed = response.status_code == requests.codes.partial_content
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        start = have if resumed else 0
        bar = progress_bar(total=total, initial=start, unit="B", unit_scale=True, disable=quiet, desc=part.stem)
        with bar, Output(part, MORE if resumed else NEW) as output:
            for block in response.iter_content(1 << 16):
                output.write(block)
                bar.update(len(block))
                start += len(block)
                if most is not None and start > most:
                    return  # a server that never ends would fill the disk; the size decides
        if total is not None and part.stat().st_size < total:
            raise requests.ConnectionError(f"the server stopped after {part.stat().st_size:,} of {total:,} bytes")
