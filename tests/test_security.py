"""What SECURITY.md promises: each promise names tests that exist, and some of them are here."""

import ast
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import mlp
from mlp.checkpoints import CheckpointError, load_checkpoint
from mlp.data_providers import cifar, load_cifar
from mlp.data_providers.download import RemoteFile
from mlp.data_providers.mnist import IDX_FILES
from mlp.layers import AffineLayer
from mlp.models import MultipleLayerModel

from .data_providers.test_cifar import archive_bytes, files_of, write_archive

PACKAGE = Path(mlp.__file__).parent
TEXT = (PACKAGE.parent / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
PROMISES = re.findall(r"^### (.*?)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_every_test_that_is_named_exists(file, test):
    names = {node.name for node in ast.walk(ast.parse((PACKAGE.parent / file).read_text())) if hasattr(node, "name")}
    assert not test or test in names


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_every_promise_names_a_test(title, text):
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", text)


def test_there_are_promises():
    assert len(PROMISES) >= 6


# --- nothing that is read can run


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_uses_what_runs_code_out_of_files_or_extracts(path):
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "import os, shelve",
        "eval(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "os.system(text)",
        "import subprocess",
    ],
)
def test_each_danger_would_be_seen(line):
    assert len(dangers(line)) == 1


def dangers(source):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found += names & {"pickle", "marshal", "shelve", "dill", "joblib", "subprocess"}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)
            extracts = name.rpartition(".")[2] in ("extract", "extractall", "unpack_archive")
            if extracts or name in ("eval", "exec", "os.system", "os.popen") or (name == "np.load" and not safe):
                found.append(name)
    return found


class Malice:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_place_of_a_checkpoint_does_not_run(tmp_path):
    sign, path = tmp_path / "it ran", tmp_path / "last.safetensors"
    path.write_bytes(pickle.dumps(Malice(sign)))
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(path, MultipleLayerModel([AffineLayer(2, 2)]))
    assert not sign.exists()
    pickle.loads(path.read_bytes())
    assert sign.exists()


# --- archives and addresses


@pytest.mark.parametrize("name", ["extra.bin", "../outside", "../../outside"])
def test_an_archive_leaves_no_file_behind(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tarfile.TarFile, "extract", None)
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    (tmp_path / "data").mkdir()
    plain = archive_bytes("cifar100", 0)
    more = archive_bytes("cifar100", 0, {**files_of("cifar100", 0), name: b"evil"})
    assert plain != more
    path = write_archive(monkeypatch, tmp_path / "data", "cifar100", 0, more)
    assert len(load_cifar("cifar100", tmp_path / "data", download=False).test.labels) > 0
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_every_address_is_https_and_every_file_has_its_checksums():
    files = [form.archive for forms in cifar.FORMS.values() for form in forms] + list(IDX_FILES.values())
    assert len(files) == 8
    for file in files:
        assert isinstance(file, RemoteFile)
        assert file.url.startswith("https://")
        assert file.size > 0
        assert re.fullmatch(r"[0-9a-f]{32}", file.md5)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert [path for path in SOURCES if "http://" in path.read_text()] == []


# --- the network


WATCH = """
import os, sys
CALLS = "connect getaddrinfo gethostbyname gethostbyaddr sendto sendmsg".split()
def watch(event, arguments):
    if event.partition("socket.")[2] in CALLS:
        print(event, file=sys.stderr, flush=True)
        os._exit(77)
sys.addaudithook(watch)
"""
WORK = """
import importlib, pkgutil
import mlp
modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(mlp.__path__, "mlp.")]
from mlp.experiments import doctor
from mlp.experiments.__main__ import main
doctor.SECONDS = 0.0
options = "--dataset shapes --train-limit 20 --batch-size 20 --epochs 1 --device cpu --quiet".split()
assert main(["vgg08", *options]) == 0
assert main(["data", "where", "cifar100"]) == 3
assert main(["data", "check", "cifar100"]) == 3
main(["doctor"])
print(len(modules), "modules")
"""
FETCH = "from mlp.experiments.__main__ import main\nmain(['data', 'fetch', 'cifar100'])\n"


def watched(script, folder):
    """Run a script that is stopped, with status 77, at the first attempt to reach another machine."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("MLP_")}
    return subprocess.run(
        [sys.executable, "-c", WATCH + script],
        cwd=folder,
        env={**keep, "PYTHONPATH": str(PACKAGE.parent), "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_training_search_check_and_doctor_reach_for_no_network(tmp_path):
    done = watched(WORK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 100


def test_a_fetch_does_so_the_watch_sees_it(tmp_path):
    assert watched(FETCH, tmp_path).returncode == 77
