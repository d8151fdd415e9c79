"""Where data files are looked for, how they are checked, and downloads that go on where they stopped."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import pooch

from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.data_providers.transfer import BLOCK, TransferError, transfer
from mlp.files import FolderLock, make_folder, rename, warn


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
    if found := difference(path, remote):
        raise DataDamagedError(f"{path} {found}. It was left as it is; remove it and fetch it again, from {remote.url}")


def difference(path: Path, remote: RemoteFile) -> str:
    """Return what a file has and `remote` has not, as the rest of a sentence, or an empty string; read it once."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"has {size:,} bytes, expected {remote.size:,}: it is truncated or another file"
    expected = remote.sums()
    machines = {name: hashlib.new(name.replace("-", ""), usedforsecurity=name != "MD5") for name in expected}
    with path.open("rb") as stream:
        while block := stream.read(16 * BLOCK):
            for machine in machines.values():
                machine.update(block)
    found = {name: machine.hexdigest() for name, machine in machines.items()}
    wrong = [f"{name} {found[name]}, expected {expected[name]}" for name in expected if found[name] != expected[name]]
    return f"has {' and '.join(wrong)}: it is damaged or another file" if wrong else ""


def fetch(remote: RemoteFile, folder: Path | None = None, quiet: bool = False) -> Path:
    """Download a file into `folder` (default: the user cache), or take it from there; return its path.

    Of processes that ask for one file at a time, one downloads it, and the others wait for that.
    An interrupted download stays as NAME.part and is gone on with, also by a later call. The file appears under its
    name only whole and with the right checksums; a wrong one is left as NAME.damaged, and if it was put together out of
    several answers, it is downloaded anew, once. Raises DataMissingError where the file cannot be had, DataDamagedError
    where it is wrong.
    """
    folder = folder or user_cache()
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.exists():
        check_file(target, remote)
        return target
    say = _say_nothing if quiet else warn
    try:
        make_folder(folder, exist_ok=True)
        with FolderLock(folder, f".{remote.name}.lock", wait=True, say=say):
            if not target.exists():  # nor has the process that was waited for made it
                _download(remote, part, quiet)
                rename(part, target)
    except (TransferError, OSError) as error:
        reason = f"{remote.url} could not be downloaded: {error}."
        if part.exists():
            reason += f" {part.stat().st_size:,} bytes are kept in {part}; the same command goes on there."
        raise DataMissingError(reason) from error
    return target


def _say_nothing(_: str) -> None:
    """Take the place of `warn`."""


def _download(remote: RemoteFile, part: Path, quiet: bool) -> None:
    """Download what `part` lacks; where that does not fit what was there, all of it."""
    damaged = part.with_name(f"{remote.name}.damaged")
    again = False
    while True:
        whole = transfer(remote.url, part, remote.size, quiet)
        found = difference(part, remote)
        if not found:
            return
        rename(part, damaged)
        if whole or again:
            raise DataDamagedError(
                f"{remote.url} gave a wrong file, which was left in {damaged}: it {found}. Try again; where it stays "
                f"so, something on the way changes it: try another network, or download it by hand"
            )
        (_say_nothing if quiet else warn)(f"{damaged} does not fit together ({found}): downloading all of it anew")
        again = True
