"""A place for data that is the only one."""

import socket

import pytest

from mlp.data_providers import cifar, download


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of $MLP_DATA_DIR; nothing lies in the other places, and there is no network."""

    def no_network(*args, **options):
        raise socket.gaierror("no network")

    for name in ("folder", "work", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path / "folder"))
    for module in (cifar, download):
        monkeypatch.setattr(module, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    return tmp_path / "folder"
