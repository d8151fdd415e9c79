"""The command line: what it says, what it writes, and what it refuses."""

import csv
import errno
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cifar_decoders as others
from mlp import files
from mlp.backend import GpuStatus
from mlp.data_providers import DataMissingError, cifar_content
from mlp.data_providers.cifar_content import content_hash
from mlp.experiments import commands, runner
from mlp.experiments.configs import EXPERIMENTS
from mlp.files import FolderLock
from mlp.records import RunFolder

from ..data_providers.test_cifar import archive_bytes, expect_archive, write_archive, write_folder
from . import tiny
from .conftest import OPTIONS

NAMES = list(EXPERIMENTS)
CONTENT = ["checkpoints", "config.json", "environment.json", "figures"]
CONTENT += ["gradient_flow.csv", "metrics.csv", "test.json"]
FIGURES = ["gradient_flow.pdf", "gradient_flow.png", "training_curves.pdf", "training_curves.png"]


@pytest.fixture
def copy(finished, tmp_path):
    """Return a copy of a finished run, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "copies" / finished.name))


@pytest.fixture
def half(copy):
    """Return a run whose test is still to come."""
    (copy / "test.json").unlink()
    return copy


@pytest.fixture
def asked():
    """The files that were asked for on the network."""
    return []


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch, asked):
    """For every test here: no data on this machine and no network. Returns the empty working directory."""

    def fail(remote, *_args, **_kwargs):
        asked.append(remote.name)
        raise DataMissingError(f"{remote.url} could not be downloaded (no network).")

    for module in ("mlp.data_providers.download", "mlp.data_providers.cifar"):
        monkeypatch.setattr(f"{module}.user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr("mlp.data_providers.cifar.fetch", fail)
    monkeypatch.delenv("MLP_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(call, capsys, *argv, status=2):
    """Run a command that must be refused; return what it says."""
    capsys.readouterr()
    assert call(*argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


# --- wrong use


def test_an_unknown_experiment_is_answered_with_the_known(call, capsys):
    err = refused(call, capsys, "vgg99")
    assert "vgg99" in err
    for name in [*NAMES, "list", "data", "profile", "plot", "compare"]:
        assert f"'{name}'" in err or f" {name}," in err


def test_an_unknown_option_is_answered_with_the_known(call, capsys):
    err = refused(call, capsys, "vgg08", "--depth", "8")
    assert "--depth" in err
    known = ["dataset", "data-dir", "epochs", "batch-size", "learning-rate", "seed", "device", "train-limit"]
    assert [name for name in [*known, "runs-dir", "resume", "quiet"] if f"--{name}" not in err] == []


def test_no_command_is_wrong_use(call, capsys):
    assert "COMMAND" in refused(call, capsys)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("--dataset", ["cifar100", "cifar10", "digits", "shapes"]),
        ("--device", ["auto", "cpu", "gpu"]),
        ("--engine", ["plan", "layers"]),
    ],
)
def test_an_unknown_choice_is_answered_with_the_known(call, capsys, option, choices):
    err = refused(call, capsys, "vgg08", option, "imagenet")
    assert option in err
    assert all(choice in err for choice in choices)


def test_data_knows_its_actions_and_sets(call, capsys):
    assert all(word in refused(call, capsys, "data", "eat") for word in ("fetch", "check", "where"))
    assert "cifar100" in refused(call, capsys, "data", "where", "imagenet")


BAD = {
    "--epochs": ["0", "-1", "1.5", "x", "", "1e3", "²"],
    "--batch-size": ["0", "-100", "x"],
    "--train-limit": ["0", "-5", "3.0", "all"],
    "--seed": ["-1", "0.5", "x", str(2**63)],
    "--learning-rate": ["0", "-0.1", "nan", "inf", "x", ""],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD.items() for value in values])
def test_a_bad_number_is_refused(call, capsys, tmp_path, option, value):
    err = refused(call, capsys, "vgg08", *OPTIONS, option, value, "--runs-dir", tmp_path / "runs")
    assert option in err.splitlines()[-1]
    assert repr(value) in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("request_", ["plot", "compare"])
def test_a_folder_that_is_no_run_is_refused(call, capsys, tmp_path, request_):
    err = refused(call, capsys, request_, tmp_path)
    assert err == f"mlp.experiments: {tmp_path} is no run folder: it has no config.json\n"


def test_compare_needs_a_run(call, capsys):
    assert "RUN" in refused(call, capsys, "compare")


def test_a_runs_dir_that_is_a_file_is_refused(call, capsys, tiny_data, tmp_path):
    (tmp_path / "file").write_text("mine")
    err = refused(call, capsys, "vgg08", *OPTIONS, "--runs-dir", tmp_path / "file")
    assert str(tmp_path / "file") in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_gpu_that_cannot_be_used_is_refused_with_the_reason(call, capsys, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("mlp.backend.usable_gpu", lambda: GpuStatus(False, "the driver is from 1999"))
    err = refused(call, capsys, "vgg08", *OPTIONS, "--device", "gpu", "--runs-dir", tmp_path / "runs")
    assert "the driver is from 1999" in err
    assert not (tmp_path / "runs").exists()


def test_auto_takes_the_cpu_where_there_is_no_gpu(train, tmp_path, monkeypatch):
    monkeypatch.setattr("mlp.backend.usable_gpu", lambda: GpuStatus(False, "CuPy cannot be imported (none)"))
    path = train(tmp_path, "--device", "auto", "--epochs", "1", "--train-limit", "20")
    assert json.loads((path / "environment.json").read_text())["parts"][-1]["device"] == "cpu"


# --- what a run writes and says


def test_a_run_folder_holds_what_is_promised(finished):
    assert re.fullmatch(r"vgg08-\d{8}-\d{6}", finished.name)
    assert sorted(path.name for path in finished.iterdir()) == CONTENT
    assert sorted(path.name for path in (finished / "figures").iterdir()) == FIGURES
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "previous.safetensors",
    ]


def test_metrics_have_the_promised_columns(finished):
    with (finished / "metrics.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert header == "epoch,learning_rate,train_loss,train_acc,val_loss,val_acc,seconds".split(",")
    assert [row[0] for row in rows] == ["1", "2"]
    rates = [2e-5 + (1e-3 - 2e-5) * (1 + math.cos(math.pi * e / 2)) / 2 for e in (0, 1)]
    assert [float(row[1]) for row in rows] == pytest.approx(rates, rel=1e-15)
    assert all(0.0 <= float(row[i]) <= 100.0 for row in rows for i in (3, 5))


def test_gradient_flow_has_a_row_an_epoch_and_layer(finished):
    with (finished / "gradient_flow.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert header == ["epoch", "layer", "mean_abs_gradient"]
    layers = ["input_conv_conv_0", "input_conv_bn_0"]
    layers += [f"reduction_block_{stage}_conv_{i}" for stage in range(3) for i in range(2)]
    layers += ["logit_linear_layer"]
    assert [row[:2] for row in rows] == [[str(epoch), layer] for epoch in (1, 2) for layer in layers]
    assert all(float(row[2]) > 0 for row in rows)


def test_the_test_is_of_the_best_epoch(finished):
    content = json.loads((finished / "test.json").read_text())
    rows = RunFolder(finished).metrics()
    assert content["epoch"] == max(rows, key=lambda row: row.val_acc).epoch
    assert content["images"] == 60
    assert 0.0 <= content["test_acc"] <= 100.0


def test_the_configuration_is_enough_to_run_again(finished, train, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    assert config["experiment"] == {
        **EXPERIMENTS["vgg08"].to_dict(),
        "dataset": "shapes",
        "train_limit": 100,
        "batch_size": 40,
        "epochs": 2,
    }
    assert config["data_sha256"] == tiny.shapes().limited(100).fingerprint()
    experiment = config["experiment"]
    options = [
        f"--{key.replace('_', '-')}={experiment[key]}" for key in ("epochs", "batch_size", "learning_rate", "seed")
    ]
    again = train(tmp_path, *options, name=experiment["name"])
    tiny.assert_same_results(again, finished)


def test_the_environment_is_recorded(finished):
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["parameters"] == 59_716
    (part,) = environment["parts"]
    assert part["device"] == "cpu"
    assert {"mlp", "python", "numpy", "platform", "blas", "threads", "data"} <= set(part)


def test_a_run_resumed_elsewhere_says_so_and_records_both(call, capsys, tiny_data, half):
    path = half / "environment.json"
    environment = json.loads(path.read_text())
    environment["parts"][0]["numpy"] = "1.0"
    path.write_text(json.dumps(environment))
    assert call("vgg08", "--resume", half, "--device", "cpu", "--quiet") == 0
    assert "not bound to give the same bits: numpy '1.0' -> " in capsys.readouterr().err
    assert [part["numpy"] == "1.0" for part in json.loads(path.read_text())["parts"]] == [True, False]


def test_what_changes_no_bit_is_recorded_without_a_word(call, capsys, tiny_data, half):
    path = half / "environment.json"
    environment = json.loads(path.read_text())
    environment["parts"][0].update(threads=99, matplotlib="1.0")
    path.write_text(json.dumps(environment))
    assert call("vgg08", "--resume", half, "--device", "cpu", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert len(json.loads(path.read_text())["parts"]) == 2


def test_a_configuration_alone_is_enough_to_run_it_again(call, tiny_data, finished, tmp_path):
    path = tmp_path / "again"
    path.mkdir()
    shutil.copy(finished / "config.json", path)
    assert call("vgg08", "--resume", path, "--device", "cpu", "--quiet") == 0
    tiny.assert_same_results(path, finished)


def test_looking_at_a_run_changes_nothing_in_it(call, finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished, path)
    shutil.rmtree(path / "checkpoints")
    names = sorted(file.name for file in path.iterdir())
    assert call("compare", path) == 0
    assert sorted(file.name for file in path.iterdir()) == names


def test_a_run_without_its_last_checkpoint_is_not_begun_anew(call, capsys, tiny_data, finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished, path)
    shutil.rmtree(path / "checkpoints")
    before = (path / "metrics.csv").read_bytes()
    assert "last.safetensors is gone" in refused(call, capsys, "vgg08", "--resume", path, "--device", "cpu")
    assert (path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rate", "1e-6"], "the learning rate 1e-06 is below 2e-05"),
        (["--stratified"], "'shapes' has a fixed split"),
    ],
)
def test_what_does_not_go_together_is_refused(call, capsys, tiny_data, tmp_path, options, message):
    assert message in refused(call, capsys, "vgg08", *OPTIONS, *options, "--runs-dir", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [["vgg08"], ["data", "where"], ["data", "check"]], ids=" ".join)
def test_a_data_dir_that_is_none_is_refused_and_not_made(call, capsys, tmp_path, asked, command):
    err = refused(call, capsys, *command, "--data-dir", tmp_path / "typo", status=3)
    assert f"--data-dir {tmp_path / 'typo'} does not exist: name a folder that does, or make it" in err
    assert not (tmp_path / "typo").exists()
    assert asked == []


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("command", [["vgg08"], ["data", "where"], ["data", "check"], ["data", "fetch"]], ids=" ".join)
def test_a_data_dir_that_is_the_data_itself_is_refused(call, capsys, nowhere, monkeypatch, asked, command, form):
    archive, folder = write_archive(monkeypatch, nowhere, "cifar100", form), write_folder(nowhere, "cifar100", form)
    for place, words in (
        (archive, "is no folder but a file: name the folder that holds it"),
        (folder, "is the unpacked folder of cifar100 itself: name the folder that holds it"),
    ):
        assert f"--data-dir {place} {words}" in refused(call, capsys, *command, "--data-dir", place, status=3)
    assert asked == []


def test_loose_files_beside_the_data_do_not_matter(call, capsys, nowhere):
    folder = write_folder(nowhere, "cifar100", 1)
    for file in folder.iterdir():
        (nowhere / file.name).write_bytes(file.read_bytes())
    assert call("data", "where", "--data-dir", nowhere) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"cifar100: {folder}"


def test_another_seed_gives_another_run(finished, train, tmp_path):
    other = tiny.results(train(tmp_path, "--seed", "1"))
    mine = tiny.results(finished)
    assert [name for name in mine if mine[name] == other[name]] == []
    assert [row[2] for row in mine["metrics.csv"]] != [row[2] for row in other["metrics.csv"]]


@pytest.mark.parametrize(("limit", "images"), [("1", "1"), ("7", "7"), ("1000", "28")])
def test_train_limit_takes_the_first_images(call, capsys, tiny_data, tmp_path, limit, images):
    options = [*OPTIONS, "--train-limit", limit, "--epochs", "1", "--runs-dir", tmp_path]
    assert call("vgg08", *options) == 0
    assert f" {images} training images of shapes " in capsys.readouterr().out


def test_quiet_prints_the_table_only(call, capsys, tiny_data, tmp_path):
    capsys.readouterr()
    assert call("vgg08", *OPTIONS, "--epochs", "1", "--quiet", "--runs-dir", tmp_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (path,) = tmp_path.iterdir()
    assert call("compare", path) == 0
    assert out == capsys.readouterr().out


def test_a_run_says_what_it_does(call, capsys, tiny_data, tmp_path):
    capsys.readouterr()
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path) == 0
    out, err = capsys.readouterr()
    (path,) = tmp_path.iterdir()
    lines = out.splitlines()
    assert lines[0] == f"vgg08: 59,716 parameters, 28 training images of shapes (tests), on the cpu, into {path}"
    assert re.fullmatch(
        r"epoch 1/2  lr 1\.00e-03  train loss \d\.\d{3} acc \d+\.\d\d %  val loss \d\.\d{3} acc \d+\.\d\d %  \d+\.\d s",
        lines[2],
    )
    assert lines[1].startswith("memory: ")
    assert lines[3].startswith("epoch 2/2  ")
    assert lines[4].startswith("model ")
    assert f"  {path / 'figures' / 'training_curves.png'}" in lines
    assert err == ""


def test_all_that_is_written_is_in_the_run_folder(call, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("vgg08", *OPTIONS, "--epochs", "1", "--quiet") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == 1


# --- going on


@pytest.mark.parametrize("file", ["test.json", "figures", "metrics.csv"])
def test_going_on_with_a_finished_run_draws_and_shows_it(call, capsys, tiny_data, copy, finished, file):
    if file != "metrics.csv":
        shutil.rmtree(copy / file) if file == "figures" else (copy / file).unlink()
    assert call("vgg08", "--resume", copy, "--quiet", "--device", "cpu") == 0
    tiny.assert_same_results(copy, finished)
    assert sorted(path.name for path in (copy / "figures").iterdir()) == FIGURES
    assert "vgg08" in capsys.readouterr().out


def test_the_same_options_may_be_said_again(call, tiny_data, half, finished):
    assert call("vgg08", *OPTIONS, "--resume", half, "--quiet") == 0
    tiny.assert_same_results(half, finished)


def test_another_configuration_is_refused_with_the_difference(call, capsys, tiny_data, half):
    before = tiny.results(half)
    changes = ["--epochs", "3", "--learning-rate", "0.5", "--seed", "4", "--train-limit", "20", "--batch-size", "10"]
    err = refused(call, capsys, "vgg08", "--resume", half, *changes)
    assert str(half) in err
    for line in (
        "epochs: 2 here, 3 asked for",
        "learning_rate: 0.001 here, 0.5 asked for",
        "seed: 0 here, 4 asked for",
        "train_limit: 100 here, 20 asked for",
        "batch_size: 40 here, 10 asked for",
    ):
        assert f"  {line}\n" in err
    assert "dataset" not in err
    assert tiny.results(half) == before


def test_another_data_set_is_refused(call, capsys, tiny_data, half):
    assert "dataset: 'shapes' here" in refused(call, capsys, "vgg08", "--resume", half, "--dataset", "digits")


def test_another_name_is_refused(call, capsys, tiny_data, half):
    err = refused(call, capsys, "vgg38_bn", "--resume", half)
    assert "name: 'vgg08' here, 'vgg38_bn' asked for" in err


def test_other_data_of_the_same_name_is_refused(call, capsys, tiny_data, half, monkeypatch):
    monkeypatch.setattr(commands, "load_shapes", lambda: tiny.shapes(28, 60, 50))
    err = refused(call, capsys, "vgg08", "--resume", half)
    assert "other data" in err
    assert tiny.shapes().limited(100).fingerprint() in err


def test_a_run_in_use_is_refused(call, capsys, tiny_data, half):
    with FolderLock(half):
        err = refused(call, capsys, "vgg08", "--resume", half)
    owner = rf"process {os.getpid()} on {socket.gethostname()}, which took it \d+ s ago"
    assert re.fullmatch(rf"mlp\.experiments: {half} is in use by {owner}: wait for it, or stop it\n", err)
    assert not (half / "test.json").exists()


@pytest.mark.parametrize("where", ["", "nothing/here"])
def test_going_on_with_no_run_is_refused(call, capsys, tiny_data, tmp_path, where):
    err = refused(call, capsys, "vgg08", "--resume", tmp_path / where, "--runs-dir", tmp_path / "runs")
    assert "is no run folder" in err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_name_of_a_run_starts_no_new_one(call, capsys, tiny_data, tmp_path):
    """``--resume "$RUN"`` with RUN not set."""
    refused(call, capsys, "vgg08", *OPTIONS, "--epochs", "1", "--resume", "", "--runs-dir", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"experiment": {}}', '{"experiment": {"depth": 8}}', '{"experiment": 3}'],
)
def test_a_damaged_configuration_is_refused_by_name(call, capsys, tiny_data, half, text):
    (half / "config.json").write_text(text)
    assert str(half / "config.json") in refused(call, capsys, "vgg08", "--resume", half)


def test_a_damaged_best_checkpoint_is_refused_by_name(call, capsys, tiny_data, half):
    path = half / "checkpoints" / "best.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refused(call, capsys, "vgg08", "--resume", half, "--quiet", "--device", "cpu")
    assert path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize("cut", [None, 0, 1, 1000, -1], ids=["gone", "empty", "one byte", "1000 bytes", "all but one"])
def test_with_a_damaged_last_checkpoint_a_run_goes_on_from_the_one_before(call, capsys, tiny_data, half, finished, cut):
    path = half / "checkpoints" / "last.safetensors"
    whole = path.read_bytes()
    path.unlink() if cut is None else path.write_bytes(whole[:cut])
    capsys.readouterr()
    assert call("vgg08", "--resume", half, "--quiet", "--device", "cpu") == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{path} is gone. " if cut is None else f"{path} cannot be read as a checkpoint: ")
    assert f"Going on from the checkpoint before it, {path.with_name('previous.safetensors')}" in first
    assert second.startswith(f"{half}: metrics.csv and gradient_flow.csv are cut back to epoch 1")
    tiny.assert_same_results(half, finished)
    aside = path.with_name("last.safetensors.damaged")
    assert (aside.read_bytes() if aside.exists() else None) == (None if cut is None else whole[:cut])


@pytest.mark.parametrize("name", [".last.safetensors.part", ".metrics.csv.part", ".gradient_flow.csv.part"])
def test_a_full_disk_stops_a_run_that_can_be_gone_on_with(
    call, capsys, tiny_data, finished, tmp_path, monkeypatch, name
):
    real, opened = files.disk.open, []

    def full(path, how):
        opened.append(path.name)
        if opened.count(name) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, how)

    with monkeypatch.context() as patch:
        patch.setattr(files.disk, "open", full)
        assert call("vgg08", *OPTIONS, "--quiet", "--runs-dir", tmp_path) == 1
    (path,) = tmp_path.iterdir()
    first, command = capsys.readouterr().err.splitlines()
    assert first.startswith("Stopped by the system ([Errno 28] No space left on device: ")
    assert first.endswith(f"{name}'); what was saved before is whole. To go on:")
    assert call(*shlex.split(command)[3:], "--quiet") == 0
    tiny.assert_same_results(path, finished)


def test_two_damaged_checkpoints_are_refused_by_name(call, capsys, tiny_data, half):
    paths = [half / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous")]
    for path in paths:
        path.write_bytes(b"rubbish")
    before = (half / "metrics.csv").read_bytes()
    err = refused(call, capsys, "vgg08", "--resume", half, "--quiet", "--device", "cpu")
    assert all(str(path) in err for path in paths)
    assert [path.read_bytes() for path in paths] == [b"rubbish"] * 2
    assert (half / "metrics.csv").read_bytes() == before


def interrupted(call, capsys, monkeypatch, *argv):
    """Run a command in which Ctrl-C is pressed in the second step; return what it says."""
    real, steps = runner.train_step, []

    def train_step(*args):
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train_step", train_step)
        assert call(*argv) == 130
    return capsys.readouterr().err


STEPPED = ["--dataset", "shapes", "--batch-size", "8", "--epochs", "2"]


def test_ctrl_c_prints_the_command_that_goes_on(call, capsys, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("mlp.backend.usable_gpu", lambda: GpuStatus(False, "CuPy cannot be imported (none)"))
    runs = tmp_path / "my runs; and 'more'"
    err = interrupted(call, capsys, monkeypatch, "vgg08", *STEPPED, "--quiet", "--runs-dir", runs)
    said, command = err.splitlines()
    assert said == "Stopped; everything is saved. To go on:"
    arguments = shlex.split(command)
    (path,) = runs.iterdir()
    assert arguments == ["python", "-m", "mlp.experiments", "vgg08", "--resume", str(path), "--device", "cpu"]
    assert call(*arguments[3:]) == 0
    assert call("vgg08", *STEPPED, "--quiet", "--runs-dir", tmp_path / "whole") == 0
    tiny.assert_same_results(path, *(tmp_path / "whole").iterdir())


def test_the_command_that_goes_on_keeps_the_device(call, capsys, tiny_data, tmp_path, monkeypatch):
    """Another device rounds otherwise: without it the rest of the run would not be the same to the bit."""
    err = interrupted(call, capsys, monkeypatch, "vgg08", *STEPPED, "--device", "cpu", "--runs-dir", tmp_path)
    assert shlex.join(["--device", "cpu"]) in err.splitlines()[-1]


def test_a_run_stops_after_an_epoch_and_goes_on(call, capsys, tiny_data, finished, tmp_path):
    capsys.readouterr()
    assert call("vgg08", *OPTIONS, "--stop-after", "1", "--runs-dir", tmp_path / "runs") == 0
    out, err = capsys.readouterr()
    (path,) = (tmp_path / "runs").iterdir()
    assert [row.epoch for row in RunFolder(path).metrics()] == [1]
    assert not (path / "test.json").exists()
    assert sorted(figure.name for figure in (path / "figures").iterdir()) == FIGURES
    command = shlex.split(next(line for line in (out + err).splitlines() if "--resume" in line))
    assert command[:3] == ["python", "-m", "mlp.experiments"]
    assert call(*command[3:]) == 0
    tiny.assert_same_results(path, finished)


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_a_bad_epoch_to_stop_after_is_refused(call, capsys, value):
    assert "--stop-after" in refused(call, capsys, "vgg08", *OPTIONS, "--stop-after", value)


def test_quiet_prints_the_table_only_when_stopped_too(call, capsys, tiny_data, tmp_path):
    capsys.readouterr()
    assert call("vgg08", *OPTIONS, "--stop-after", "1", "--quiet", "--runs-dir", tmp_path / "runs") == 0
    assert capsys.readouterr().out.startswith("model ")


def test_ctrl_c_twice_stops_at_once_without_a_traceback(call, capsys, tiny_data, tmp_path, monkeypatch):
    def train_step(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(runner, "train_step", train_step)
    before = signal.getsignal(signal.SIGINT)
    assert "stopped at once" in refused(call, capsys, "vgg08", *OPTIONS, "--quiet", "--runs-dir", tmp_path, status=130)
    assert signal.getsignal(signal.SIGINT) == before


# --- data


def test_missing_data_is_answered_with_all_that_helps(call, capsys, nowhere):
    err = refused(call, capsys, "vgg08", "--runs-dir", "runs", status=3)
    assert_helps(err, nowhere)
    assert not (nowhere / "runs").exists()


def assert_helps(err, folder):
    """Where it looked, which file to put there, and what to do without a network."""
    for place in (folder / "data", folder / "cache"):
        assert str(place) in err
    for part in ("cifar-100-binary.tar.gz", "168,513,733 bytes", "03b5dce01913d631647c71ecec9e9cb8"):
        assert part in err
    for part in ("cifar-100-python.tar.gz", "169,001,437 bytes", "eb9058c3a382ffc7106e4002c42a8d85"):
        assert part in err
    for part in ("no network", "data fetch cifar100", "--dataset shapes", "--dataset digits"):
        assert part in err


def test_missing_data_was_looked_for_in_order(call, capsys, nowhere, monkeypatch):
    monkeypatch.setenv("MLP_DATA_DIR", str(nowhere / "from the environment"))
    (nowhere / "asked for").mkdir()
    err = refused(call, capsys, "vgg08", "--data-dir", nowhere / "asked for", status=3)
    places = [err.index(f"    {nowhere / name}\n") for name in ("asked for", "from the environment", "data", "cache")]
    assert places == sorted(places)


def test_missing_cifar10_is_its_own_file(call, capsys, nowhere):
    err = refused(call, capsys, "vgg08", "--dataset", "cifar10", status=3)
    assert "cifar-10-binary.tar.gz" in err
    assert "c32a1d4ab5d03f1284b67883e8d87530" in err
    assert "cifar-100" not in err


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_truncated_archive_is_named_and_left(call, capsys, nowhere, cut):
    archive = nowhere / "data" / "cifar-100-binary.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"\x1f\x8b" * (cut // 2))
    err = refused(call, capsys, "vgg08", "--runs-dir", "runs", status=3)
    assert str(archive.relative_to(nowhere)) in err
    assert "168,513,733" in err
    assert archive.stat().st_size == cut
    assert not (nowhere / "runs").exists()


def test_data_where_lists_folders_and_finds_nothing(call, capsys, nowhere):
    assert call("data", "where") == 3
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "cifar100: not found"
    assert str(nowhere / "cache") in out
    assert err == ""


def test_data_where_finds_a_folder(call, capsys, nowhere):
    (nowhere / "mine" / "cifar-100-python").mkdir(parents=True)
    assert call("data", "where", "cifar100", "--data-dir", nowhere / "mine") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"cifar100: {nowhere / 'mine' / 'cifar-100-python'}"


@pytest.mark.parametrize("dataset", ["shapes", "digits"])
def test_data_where_knows_what_needs_no_file(call, capsys, nowhere, dataset):
    assert call("data", "where", dataset) == 0
    assert f"{dataset} needs no file" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["check", "fetch"])
def test_data_check_counts_images(call, capsys, tiny_data, action):
    assert call("data", action, "shapes") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["train", "28", "images"],
        ["valid", "60", "images"],
        ["test", "60", "images"],
        ["classes", "100"],
        ["source", "tests"],
        ["SHA-256", tiny.shapes().fingerprint()],
    ]


def test_data_check_says_what_an_archive_was_compared_by(call, capsys, nowhere, monkeypatch):
    (nowhere / "data").mkdir()
    path = write_archive(monkeypatch, nowhere / "data", "cifar100", 0)
    assert call("data", "check", "cifar100") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4] == f"source  {path.relative_to(nowhere)}"
    assert lines[-1] == "content that of the official cifar100, by size, MD5 and SHA-256 of its archive"


def test_data_fetch_that_fails_says_what_helps(call, capsys, nowhere, asked):
    assert_helps(refused(call, capsys, "data", "fetch", "cifar100", status=3), nowhere)
    assert asked == ["cifar-100-binary.tar.gz"]


@pytest.fixture
def bad_data(nowhere, monkeypatch):
    """Folders in all places that are searched, which cannot be read; and a network that has the archive."""
    monkeypatch.setenv("MLP_DATA_DIR", str(nowhere / "environment"))
    for name in ("environment", "data", "cache"):
        (nowhere / name / "cifar-100-python").mkdir(parents=True)
    archive = archive_bytes("cifar100", 0)
    expect_archive(monkeypatch, "cifar100", 0, archive)

    def fetch(remote, folder, quiet):
        folder.mkdir(exist_ok=True)
        (folder / remote.name).write_bytes(archive)
        return folder / remote.name

    monkeypatch.setattr("mlp.data_providers.cifar.fetch", fetch)


@pytest.mark.parametrize("made", [False, True])
def test_data_fetch_has_the_files_in_the_folder_that_is_named(call, capsys, nowhere, bad_data, monkeypatch, made):
    """Whatever lies elsewhere; and what is there already is not downloaded again."""
    if made:
        (nowhere / "new").mkdir()
    assert call("data", "fetch", "cifar100", "--data-dir", nowhere / "new") == 0
    assert f"source  {nowhere / 'new' / 'cifar-100-binary.tar.gz'}" in capsys.readouterr().out
    monkeypatch.setattr("mlp.data_providers.cifar.fetch", lambda *_: pytest.fail("a download"))
    assert call("data", "fetch", "cifar100", "--data-dir", nowhere / "new") == 0
    assert call("data", "check", "cifar100", "--data-dir", nowhere / "new") == 0


def test_without_a_name_what_is_found_is_checked_and_damage_says_what_helps(call, capsys, bad_data):
    for action in ("fetch", "check"):
        err = refused(call, capsys, "data", action, "cifar100", status=3)
        assert "cifar-100-python is not complete" in err
        assert "move or delete it and unpack the archive again" in err
        assert "or fetch it to another folder (python -m mlp.experiments data fetch cifar100 --data-dir" in err
        assert "and name that with --data-dir" in err
        assert err.count("\n") == 1


def test_a_fetch_to_a_folder_that_fails_names_that_folder_alone(call, capsys, nowhere, asked):
    err = refused(call, capsys, "data", "fetch", "cifar100", "--data-dir", "my data", status=3)
    assert f"Looked in:\n    {nowhere / 'my data'}\nPut" in err
    assert "data check cifar100 --data-dir 'my data'\n" in err
    assert asked == ["cifar-100-binary.tar.gz"]


def test_advice_is_another_command_than_the_one_that_failed(call, capsys):
    err = refused(call, capsys, "data", "fetch", "cifar100", status=3)
    command = "python -m mlp.experiments data fetch cifar100"
    assert f"On another machine with internet: {command} --data-dir D, and copy the file from D\n" in err
    assert err.count(command) == 1
    assert f"To download it: {command}\n" in refused(call, capsys, "data", "check", "cifar100", status=3)


def test_data_check_downloads_nothing(call, capsys, nowhere, asked):
    err = refused(call, capsys, "data", "check", "cifar100", status=3)
    assert "cifar-100-binary.tar.gz" in err
    assert asked == []


@pytest.mark.parametrize("changed", [False, True])
def test_data_check_tells_whether_a_folder_is_the_official_cifar_100(call, capsys, nowhere, monkeypatch, changed):
    folder = write_folder(nowhere, "cifar100", 1)
    hashes = [content_hash(others.by_pickle(folder / part)) for part in ("train", "test")]
    monkeypatch.setitem(cifar_content.GOLDEN, "cifar100", tuple(hashes[::-1] if changed else hashes))
    status = call("data", "check", "cifar100", "--data-dir", nowhere)
    out, err = capsys.readouterr()
    assert "train      38 images" in out
    if changed:
        assert status == 3
        assert "content NOT that of the official cifar100: 40 training images, expected 6; 6 test images" in out
        assert f"mlp.experiments: {folder} is not what its name says, the complete official cifar100." in err
        assert "data fetch cifar100 --data-dir" in err
    else:
        assert status == 0
        assert "content that of the official cifar100, by the SHA-256 of its images and labels in any order" in out


def test_data_check_says_so_where_it_cannot_tell(call, capsys, nowhere):
    write_folder(nowhere, "cifar10", 0)
    assert call("data", "check", "cifar10", "--data-dir", nowhere) == 0
    assert (
        "content complete, and makes sense; only the archives of cifar10 have checksums to compare with"
        in capsys.readouterr().out
    )


# --- list, plot, compare


def test_list_shows_the_seven_with_their_sizes(call, capsys):
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    counts = [re.search(r"([\d,]+) parameters", line)[1] for line in lines]
    assert counts == ["59,716", "336,196", "338,500", "336,196", "338,500", "338,500", "338,500"]
    assert [line.split()[-1] for line in lines] == ["0.001"] * 5 + ["0.01"] * 2
    assert "VGG08 " in lines[0]
    assert "VGG38 BN+RC" in lines[4]


def test_plot_draws_the_figures_again_to_the_bit(call, capsys, copy):
    before = {path.name: path.read_bytes() for path in (copy / "figures").iterdir()}
    shutil.rmtree(copy / "figures")
    assert call("plot", copy) == 0
    assert sorted(Path(line).name for line in capsys.readouterr().out.splitlines()) == FIGURES
    assert {path.name: path.read_bytes() for path in (copy / "figures").iterdir()} == before


def test_plot_needs_the_records_only(call, copy):
    for name in ("checkpoints", "figures"):
        shutil.rmtree(copy / name)
    for name in ("test.json", "environment.json"):
        (copy / name).unlink()
    assert call("plot", copy) == 0
    assert sorted(path.name for path in (copy / "figures").iterdir()) == FIGURES


def test_compare_shows_runs_in_their_order(call, capsys, finished, copy):
    (copy / "test.json").unlink()
    assert call("compare", copy, finished, copy) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:5]]
    assert [row[:5] for row in rows] == [["vgg08", "shapes[:100]", "2/2", "0.001", "59,716"]] * 3
    tested = f"{json.loads((finished / 'test.json').read_text())['test_acc']:.2f}"
    assert [row[-2] for row in rows] == ["-", tested, "-"]


def test_compare_names_a_damaged_run(call, capsys, finished, copy):
    (copy / "metrics.csv").write_text("rubbish\n")
    assert str(copy / "metrics.csv") in refused(call, capsys, "compare", finished, copy)


# --- real processes


def process(*argv, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mlp.experiments", *map(str, argv)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_process_exits_with_2_for_wrong_use(tmp_path):
    done = process("vgg99", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m mlp.experiments ")
    assert "vgg38_bn_rc_lr1e-2" in done.stderr


def test_a_process_exits_with_3_for_damaged_data(tmp_path):
    (tmp_path / "data" / "cifar-100-python").mkdir(parents=True)
    done = process("vgg08", "--device", "cpu", cwd=tmp_path, MLP_DATA_DIR="")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("mlp.experiments: data/cifar-100-python is not complete: ")
    assert "Traceback" not in done.stderr


def test_a_process_compares_runs(finished, tmp_path):
    done = process("compare", finished, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "59,716" in done.stdout


def test_a_bad_number_of_threads_is_refused(finished, tmp_path):
    done = process("vgg08", *OPTIONS, "--epochs", "1", cwd=tmp_path, MLP_NUM_THREADS="none")
    assert done.returncode == 2
    assert "MLP_NUM_THREADS is 'none'" in done.stderr
    assert "Traceback" not in done.stderr


# --- engines, and where the time goes


def test_both_engines_give_the_same_run_up_to_rounding(train, tmp_path):
    by_plans, by_layers = (train(tmp_path / kind, "--engine", kind) for kind in ("plan", "layers"))
    for path, kind in ((by_plans, "plan"), (by_layers, "layers")):
        part = json.loads((path / "environment.json").read_text())["parts"][-1]
        assert (part["engine"], part["convolution"]) == (kind, "auto")
    assert (by_plans / "config.json").read_text() == (by_layers / "config.json").read_text()
    rows = [RunFolder.open(path).metrics() for path in (by_plans, by_layers)]
    losses = [[row.train_loss for row in some] for some in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_going_on_with_the_other_engine_is_said(call, tiny_data, half, capsys):
    assert call("vgg08", *OPTIONS, "--resume", half, "--engine", "layers") == 0
    assert "not bound to give the same bits: engine 'plan' -> 'layers'" in capsys.readouterr().err


def test_profile_prints_where_the_time_of_a_step_goes(call, capsys):
    assert call("profile", "vgg08", "--batch-size", "3") == 0
    out = capsys.readouterr().out
    assert re.search(r"A training step of 3 images takes [\d.]+ ms on \d+ threads: \d+ GFLOP/s", out)
    assert [word for word in ("what", "share %", "GFLOP/s", "MB") if word not in out] == []
    assert re.search(r"Convolution forward \(32, 16, 16\) +2 times ", out)
    merged = len(out.splitlines())
    assert call("profile", "vgg08", "--batch-size", "3", "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) > merged


def test_profile_knows_the_experiments(call, capsys):
    assert "'vgg08'" in refused(call, capsys, "profile", "vgg99")


def test_a_wrong_setting_leaves_no_folder(call, capsys, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLP_CONV", "fast")
    assert "MLP_CONV is 'fast'" in refused(call, capsys, "vgg08", *OPTIONS, "--runs-dir", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_tf32_needs_plans_and_a_gpu(call, capsys):
    err = refused(call, capsys, "vgg08", "--device", "cpu", "--precision", "tf32")
    assert "--precision tf32 is for a GPU, and this is on the CPU (--device cpu): leave it out" in err
    err = refused(call, capsys, "vgg08", "--device", "cpu", "--precision", "tf32", "--engine", "layers")
    assert "--precision tf32 is for plans, and --engine layers" in err
