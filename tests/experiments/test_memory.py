"""The memory of a run: said before it is taken, bounded by --workspace-mb, and what happens where it ends."""

import json
import re

import pytest

from mlp.engine import Engine
from mlp.experiments import commands, runner
from mlp.experiments.environment import Setup

from . import tiny
from .conftest import OPTIONS

pytestmark = pytest.mark.usefixtures("tiny_data")


def test_a_run_says_how_much_memory_it_will_take(call, tmp_path, capsys, monkeypatch):
    engines, real = [], Engine

    def kept(*arguments):
        engines.append(real(*arguments))
        return engines[-1]

    monkeypatch.setattr(runner, "Engine", kept)
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path) == 0
    line = re.search(
        r"^memory: ([\d.]+) MB for a training step and ([\d.]+) MB for an evaluation, beside [\d.]+ MB of images$",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    engine = engines[-1]
    assert line[1] == f"{engine.memory((28, 3, 8, 8)) / 1e6:.1f}"
    assert line[2] == f"{engine.memory((60, 3, 8, 8), training=False) / 1e6:.1f}"


def test_a_workspace_is_kept_to_and_recorded_and_asked_for_again(call, tmp_path, capsys):
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path, "--workspace-mb", 5, "--stop-after", 1) == 0
    out, err = capsys.readouterr()
    said = re.search(r"memory: ([\d.]+) MB for a training step and ([\d.]+) MB", out)
    assert max(float(said[1]), float(said[2])) <= 5.5  # outputs and gradients are beside the plan
    assert "--workspace-mb 5" in err  # the command that goes on
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "environment.json").read_text())["parts"][0]["workspace_mb"] == 5
    assert call("vgg08", "--resume", run, "--device", "cpu") == 0
    assert "workspace_mb 5 -> None" in capsys.readouterr().err


def test_a_workspace_too_small_is_wrong_use(call, tmp_path, capsys):
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path, "--workspace-mb", 1) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not list(tmp_path.iterdir())
    assert re.fullmatch(
        r"mlp\.experiments: a batch of shape \(28, 3, 8, 8\) needs [\d.]+ MB of memory, and the workspace has 1\.0 "
        r"MB for it: allow more \(workspace, --workspace-mb\), or use a smaller batch\n",
        err,
    )


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "much"])
def test_a_workspace_is_a_whole_number_of_megabytes(call, tmp_path, capsys, text):
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path, "--workspace-mb", text) == 2
    assert "argument --workspace-mb" in capsys.readouterr().err


def test_a_workspace_is_for_plans(call, tmp_path, capsys):
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path, "--workspace-mb", 100, "--engine", "layers") == 2
    assert "--workspace-mb is for plans on the CPU, and this is for --engine layers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_memory_is_not_enough_at_all_one_sentence_says_what_to_do(call, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(runner, "train_step", full)
    assert call("vgg08", *OPTIONS, "--runs-dir", tmp_path, "--quiet") == 1
    said = capsys.readouterr().err
    advice = "free some, or use a smaller --batch-size"
    assert said == f"mlp.experiments: out of memory (Unable to allocate 1 TiB): {advice}\n"


def test_of_a_gpu_only_the_images_are_told():
    """`Engine.memory` is of the CPU's."""
    assert commands._memory(tiny.VGG, tiny.shapes(), Setup("gpu")) == "memory: 0.0 MB of images"
    assert "MB for a training step" in commands._memory(tiny.VGG, tiny.shapes(), Setup("cpu"))
    assert commands._memory(tiny.VGG, tiny.shapes(), Setup("cpu", "layers")) == "memory: 0.0 MB of images"
