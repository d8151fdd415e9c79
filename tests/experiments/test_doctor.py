"""The doctor: what it finds, what it calls a problem, and what it does not tell."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mlp
from mlp import selftest
from mlp.backend import GpuStatus
from mlp.data_providers import DataMissingError, load_ccpp, load_emnist, load_met_office
from mlp.data_providers.mnist import IDX_FILES
from mlp.experiments import doctor as module
from mlp.kernels import SettingError

SECTIONS = ["versions", "machine", "settings", "GPU", "data", "folders", "self-test"]
ROOT = Path(mlp.__file__).parent


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user with a home folder, who works in a folder of it, without data, without a GPU, and who has time."""
    work = tmp_path / "home" / "ada" / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(work.parent))
    monkeypatch.chdir(work)
    for name in [name for name in os.environ if name.startswith("MLP_")]:
        monkeypatch.delenv(name)
    for place in ("mlp.data_providers.download", "mlp.experiments.doctor"):
        monkeypatch.setattr(f"{place}.user_cache", lambda: work.parent / ".cache" / "mlp")
    monkeypatch.setattr(module, "usable_gpu", lambda: GpuStatus(False, "CuPy cannot be imported (none); install it"))
    monkeypatch.setattr(module, "SECONDS", float("inf"))
    return work.parent


@pytest.fixture
def quick(monkeypatch):
    """A self-test of two checks."""
    right = selftest.Section("layers", "that one is one", {"one": lambda: 1e-16, "two": lambda: 3e-16})
    monkeypatch.setattr(module, "sections", lambda gpu, quick: [right])


@pytest.fixture
def diagnose(call, capsys, quick):
    """Return a function that calls the doctor and returns (exit status, what it found)."""

    def run(*options):
        capsys.readouterr()
        status = call("doctor", "--json", *options)
        out, err = capsys.readouterr()
        assert err == ""
        return status, json.loads(out)

    return run


def test_it_tries_the_library_and_says_what_was_proven(call, capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 1e9)  # on a busy machine, too
    assert call("doctor") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "verdict: no problem found"
    kinds = len({type(case.build()) for case in selftest.LAYER_CASES})
    assert re.search(
        rf"layers +{kinds} of {kinds} right, worst error .*: gradients by complex step and central diff", out
    )
    others = {"errors, penalties": 20, "extremes": 5, "threads": 1, "plans": 5}
    for name, count in others.items():
        assert re.search(rf"{name} +{count} of {count} right, worst error", out)
    assert "networks" not in out


def test_a_wrong_layer_is_a_problem_and_the_exit_status(call, capsys, monkeypatch):
    def half():
        return selftest._bounded("outputs differ by", 0.5, 1e-11)

    section = selftest.Section("layers", "that outputs agree", {"tanh": half, "relu": lambda: 0.0})
    monkeypatch.setattr(module, "sections", lambda gpu, quick: [section])
    assert call("doctor") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "PROBLEM: layers: tanh: outputs differ by: 0.5, expected at most 1e-11" in lines
    assert lines[-1] == "verdict: 1 problem, see above"
    assert any(re.fullmatch(r"  layers +1 of 2 right, worst error 0: that outputs agree", line) for line in lines)


def test_what_takes_too_long_is_not_begun_and_that_is_said(diagnose, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", -1.0)
    status, found = diagnose()
    assert found["self-test"]["layers"].startswith("0 of 2 right, worst error 0; 2 not tried, for lack of time")
    assert found["notes"] == ["2 checks were not tried for lack of time: python -m mlp.selftest takes its time"]
    assert (status, found["verdict"]) == (0, "no problem found; see the notes above")


def test_json_and_text_say_the_same(call, capsys, diagnose, monkeypatch):
    monkeypatch.setenv("MLP_OTHER", "x")
    _, found = diagnose("--data-dir", "nowhere")
    assert list(found) == [*SECTIONS, "problems", "notes", "well", "verdict"]
    assert call("doctor", "--data-dir", "nowhere") == 1
    text = capsys.readouterr().out
    assert found["problems"] != []
    assert found["notes"] != []
    for line in [*found["problems"], *found["notes"], found["verdict"]]:
        assert line in text
    for facts in (found[name] for name in SECTIONS):
        assert facts
        for key, value in facts.items():
            if key not in ("memory", "runs", "data cache"):  # they change from moment to moment
                assert re.search(rf"^  {re.escape(key)} +{re.escape(value)}$", text, re.MULTILINE)


# --- versions, machine, settings


def test_every_package_that_is_needed_has_its_version(diagnose):
    with (ROOT.parent / "pyproject.toml").open("rb") as stream:
        needed = tomllib.load(stream)["project"]["dependencies"]
    assert {re.match(r"[\w-]+", name)[0] for name in needed} == {name.lower() for name in module.PACKAGES}
    versions = diagnose()[1]["versions"]
    assert versions["NumPy"] == np.__version__
    assert versions["mlp"] == mlp.__version__
    assert versions["Python"].split()[0] == sys.version.split()[0]
    assert set(module.PACKAGES) | {"mlp", "Python", "CuPy"} == set(versions)


def test_a_package_that_is_missing_is_a_problem_with_its_cure(diagnose, monkeypatch):
    def version(name):
        if name == "matplotlib":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(module, "version", version)
    status, found = diagnose()
    assert found["versions"]["matplotlib"] == "not installed"
    assert found["problems"] == ["matplotlib is not installed, and mlp needs it: pip install matplotlib"]
    assert status == 1


@pytest.mark.parametrize("installed", [[], ["cupy-cuda13x"], ["cupy-cuda12x", "cupy-cuda13x"]])
def test_cupy_is_named_and_two_of_it_are_a_problem(diagnose, monkeypatch, installed):
    names = [*installed, "cupy-xarray", "numpy", None]
    monkeypatch.setattr(module, "distributions", lambda: [SimpleNamespace(name=name) for name in names])
    monkeypatch.setattr(module, "version", lambda name: "14.1")
    _, found = diagnose()
    expected = ", ".join(f"{name} 14.1" for name in installed) or "not installed; only a GPU needs it"
    assert found["versions"]["CuPy"] == expected
    assert any("cupy-cuda12x and cupy-cuda13x overwrite each other" in line for line in found["problems"]) == (
        len(installed) == 2
    )


def test_the_machine_is_described(diagnose, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 64)
    blas = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "Zen", "num_threads": 7}
    others = [{"user_api": "openmp", "filepath": "/secret"}]
    monkeypatch.setattr(module, "threadpool_info", lambda: [blas, *others])
    machine = diagnose()[1]["machine"]
    assert machine["cores"].startswith("3 of 64 may be used")
    assert machine["BLAS"] == "openblas 0.3 Zen, 7 threads"
    assert machine["CPU"]
    assert re.match(r"[\d,]+\.\d GB", machine["memory"])


def test_what_a_file_of_the_system_says_is_found(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n")
    assert module._line(str(tmp_path / "cpuinfo"), r"model name\s*: (.+)") == "AMD EPYC"
    assert module._line(str(tmp_path / "cpuinfo"), r"flags\s*: (.+)") is None
    assert module._line(str(tmp_path / "none"), "(.)") is None


def test_no_sysconf_is_no_problem(diagnose, monkeypatch):
    monkeypatch.delattr(module.os, "sysconf")
    status, found = diagnose()
    assert found["machine"]["memory"].startswith("not known")
    assert status == 0


def test_all_variables_that_mlp_reads_are_shown():
    read = {name for path in ROOT.rglob("*.py") for name in re.findall(r"\bMLP_[A-Z_]+\b", path.read_text())}
    assert read == set(module.SETTINGS)


def test_a_variable_that_mlp_does_not_read_is_noted_and_not_shown(diagnose, monkeypatch):
    monkeypatch.setenv("MLP_THREADS", "a secret")
    status, found = diagnose()
    assert "a secret" not in json.dumps(found)
    assert found["notes"] == ["mlp reads no variable MLP_THREADS, only MLP_DATA_DIR, MLP_NUM_THREADS, MLP_CONV"]
    assert status == 0


def test_a_bad_setting_is_a_problem_and_stops_the_self_test(diagnose, monkeypatch):
    def refuse():
        raise SettingError("MLP_NUM_THREADS is 'x', expected a whole number >= 1")

    monkeypatch.setattr(module, "num_threads", refuse)
    monkeypatch.setenv("MLP_CONV", "fast")
    status, found = diagnose()
    assert [line.split(",")[0] for line in found["problems"]] == ["MLP_NUM_THREADS is 'x'", "MLP_CONV is 'fast'"]
    assert list(found["self-test"]) == ["not run"]
    assert (status, found["verdict"]) == (1, "2 problems, see above")


def test_the_gpu_has_its_reason(diagnose, monkeypatch):
    assert diagnose()[1]["GPU"] == {"GPU": "cannot be used: CuPy cannot be imported (none); install it"}
    monkeypatch.setattr(module, "usable_gpu", lambda: GpuStatus(False, "a first kernel failed; update the driver"))
    status, found = diagnose()
    assert found["GPU"] == {"GPU": "cannot be used: a first kernel failed; update the driver"}
    assert (status, len(found["notes"])) == (0, 1)
    monkeypatch.setattr(module, "usable_gpu", lambda: GpuStatus(True, "H100"))
    assert diagnose()[1]["GPU"] == {"GPU": "can be used: H100"}


def test_on_a_gpu_the_self_test_has_a_part_for_it():
    assert [section.name for section in selftest.sections(gpu=True, quick=True)][-1] == "GPU"
    assert "GPU" not in [section.name for section in selftest.sections(gpu=False, quick=True)]


# --- data and folders


def test_without_data_it_says_what_is_missing_and_how_to_get_it(diagnose):
    status, found = diagnose()
    assert found["data"]["looked in"] == "data, ~/.cache/mlp"
    assert found["data"]["cifar100"] == "not found; python -m mlp.experiments data fetch cifar100"
    assert found["data"]["not found"] == ", ".join(module.COURSEWORK)
    assert status == 0


def test_data_is_found_where_it_lies(diagnose, home, monkeypatch):
    (home / "work" / "data" / "cifar-100-python").mkdir(parents=True)
    (home / "course").mkdir()
    for name in ("mnist-train.npz", "mnist-valid.npz", *(f"{name}" for name in IDX_FILES), "ccpp_data.npz.gz"):
        (home / "course" / name).touch()
    monkeypatch.setenv("MLP_DATA_DIR", str(home / "course"))
    data = diagnose()[1]["data"]
    assert data["looked in"] == "~/course, data, ~/.cache/mlp"
    read = "not read here: python -m mlp.experiments data check cifar100 does that"
    assert data["cifar100"] == f"data/cifar-100-python; {read}"
    named = diagnose("--data-dir", str(home / "work" / "data"))[1]["data"]["cifar100"]
    assert named.endswith("data check cifar100 --data-dir ~/work/data does that")
    assert data["MNIST"] == "~/course; lacks mnist-test.npz"
    assert data["MNIST (original)"] == "~/course"
    assert "CCPP" in data["not found"].split(", ")


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("EMNIST", lambda: load_emnist("valid")),
        ("CCPP", lambda: load_ccpp("train")),
        ("MetOffice", load_met_office),
        ("CIFAR-10 (coursework)", lambda: mlp.data_providers.CIFAR10DataProvider("valid")),
        ("CIFAR-100 (coursework)", lambda: mlp.data_providers.CIFAR100DataProvider("valid")),
        ("MSD 10 genres", lambda: mlp.data_providers.MSD10GenreDataProvider("valid")),
        ("MSD 25 genres", lambda: mlp.data_providers.MSD25GenreDataProvider("valid")),
    ],
)
def test_files_have_the_names_that_the_providers_ask_for(monkeypatch, name, load):
    def fail(remote, *_):
        raise DataMissingError("no network")

    monkeypatch.setattr("mlp.data_providers.cifar.fetch", fail)
    with pytest.raises(DataMissingError) as caught:
        load()
    assert any(file in str(caught.value) for file in module.COURSEWORK[name])


def test_a_data_dir_that_is_none_is_a_problem(diagnose, monkeypatch):
    monkeypatch.setenv("MLP_DATA_DIR", "gone")
    status, found = diagnose("--data-dir", "nowhere")
    assert found["problems"] == ["--data-dir is nowhere, which is no folder: name one that is, or make it"]
    assert found["notes"] == ["$MLP_DATA_DIR is gone, which is no folder: name one that is, or make it"]
    assert status == 1


def test_the_folder_for_runs_is_tried_and_left_as_it_was(diagnose, home):
    _, found = diagnose()
    assert re.fullmatch(r"runs \(not there yet\) can be written to, [\d,.]+ GB free", found["folders"]["runs"])
    assert list((home / "work").iterdir()) == []
    (home / "work" / "mine").mkdir()
    _, found = diagnose("--runs-dir", "mine")
    assert found["folders"]["runs"].startswith("mine can be written to, ")
    assert found["folders"]["data cache"].startswith("~/.cache/mlp (not there yet) can be written to, ")
    assert list((home / "work" / "mine").iterdir()) == []


def test_a_file_in_place_of_the_folder_for_runs_is_a_problem(diagnose, home):
    (home / "work" / "runs").touch()
    status, found = diagnose()
    assert found["folders"]["runs"].startswith("runs cannot be written to")
    (problem,) = found["problems"]
    assert problem.startswith("the folder for runs, runs, cannot be written to ([Errno 20] Not a directory")
    assert status == 1


def test_a_link_to_nowhere_in_place_of_the_folder_for_runs_is_a_problem(diagnose, home):
    (home / "work" / "runs").symlink_to(home / "gone")
    status, found = diagnose()
    assert re.match(r"runs \(not there yet\) cannot be written to, [\d,.]+ GB free", found["folders"]["runs"])
    assert (status, len(found["problems"])) == (1, 1)


def test_a_disk_that_refuses_is_a_problem_for_runs_and_a_note_for_data(diagnose, monkeypatch):
    def refuse(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomic", refuse)
    _, found = diagnose()
    assert ["No space left" in line for line in found["problems"] + found["notes"]] == [True, True]
    assert "runs" in found["problems"][0]
    assert "data cache" in found["notes"][0]


def test_little_space_is_noted(diagnose, monkeypatch):
    monkeypatch.setattr(module, "LITTLE", 10**18)
    status, found = diagnose()
    assert [line.split(":")[0] for line in found["notes"]] == [
        "there is little space for runs, in runs",
        "there is little space for data cache, in ~/.cache/mlp",
    ]
    assert status == 0


# --- what it does not tell, and what it survives


def test_the_home_folder_is_a_tilde_everywhere(call, capsys, home, monkeypatch):
    def fail():
        raise ValueError(f"{home}/work/layer.py is wrong")

    section = selftest.Section("layers", "nothing", {"mine": fail})
    monkeypatch.setattr(module, "sections", lambda gpu, quick: [section])
    monkeypatch.setenv("MLP_DATA_DIR", str(home / "course"))
    for options in ((), ("--json",)):
        assert call("doctor", "--runs-dir", home / "work" / "runs", *options) == 1
        out = capsys.readouterr().out
        assert str(home) not in out
        assert "~/work/layer.py is wrong" in out
        assert "~/work/runs" in out
        assert "~/course" in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada", "~"),
        ("/home/ada/x and '/home/ada/y'", "~/x and '~/y'"),
        ("/home/adam/x", "/home/adam/x"),
        ("/home/ada-2/x", "/home/ada-2/x"),
        ("/mnt/home/ada/x", "/mnt/home/ada/x"),
    ],
)
def test_only_the_home_folder_becomes_a_tilde(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/ada")
    assert module.hide_home({"key": [text]}) == {"key": [expected]}


def test_a_home_that_is_the_root_or_none_changes_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert module.hide_home("/usr/lib") == "/usr/lib"

    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", fail)
    assert module.hide_home("/usr/lib") == "/usr/lib"


def test_a_letter_that_the_terminal_does_not_have_is_spelled(call, monkeypatch, quick):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert call("doctor", "--runs-dir", "kör") == 0
    sys.stdout.flush()
    assert b"k\\xf6r (not there yet) can be written to" in buffer.getvalue()


def test_a_part_that_fails_does_not_stop_the_others(diagnose, monkeypatch):
    def fail(_):
        raise PermissionError(13, "Permission denied", "/proc/cpuinfo")

    monkeypatch.setitem(module.PARTS, "machine", fail)
    status, found = diagnose()
    assert found["machine"] == {}
    (problem,) = found["problems"]
    assert problem.startswith("machine could not be found out (PermissionError: [Errno 13] Permission denied")
    assert found["self-test"]["layers"].startswith("2 of 2 right")
    assert status == 1


def test_a_process_exits_with_the_verdict(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mlp.experiments", "doctor"],
        cwd=tmp_path,
        env={**os.environ, "MLP_CONV": "fast", "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "verdict: 1 problem, see above"
    assert "PROBLEM: MLP_CONV is 'fast'" in done.stdout
