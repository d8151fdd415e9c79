"""A run whose numbers break stops before it changes a parameter, and leaves a pack that shows the same again."""

import json

import numpy as np
import pytest

from mlp.checkpoints import load_checkpoint
from mlp.experiments.__main__ import main
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.runner import Runner

COMMAND = "vgg08 --dataset shapes --epochs 2 --batch-size 5 --quiet".split()


@pytest.fixture
def broken(tiny_data, tmp_path, monkeypatch, capsys):
    """The folder of a run that broke in its eighth step, which is the second of epoch 2; what it said."""
    step = Runner._train_step

    def hurt(self, *arguments):
        if (self.position.epoch, self.position.step) == (1, 1):
            self.model.params[3][2, 1, 0, 2] = np.inf
        return step(self, *arguments)

    monkeypatch.setattr(Runner, "_train_step", hurt)
    with np.errstate(all="ignore"):
        assert main([*COMMAND, "--runs-dir", str(tmp_path)]) == 4
    (run,) = tmp_path.iterdir()
    return run, capsys.readouterr().err


def test_the_step_the_layer_and_the_index_are_named(broken):
    run, said = broken
    pack = run / "crash" / "epoch-2-step-2"
    assert (
        "the training broke in epoch 2. step 8: reduction_block_0_conv_0, parameter: kernels[2, 1, 0, 2] is inf" in said
    )
    assert f"python -m mlp.experiments replay {pack}" in said
    content = json.loads((pack / "pack.json").read_text())
    assert content["finding"]["where"] == "reduction_block_0_conv_0"
    assert {"mlp", "python", "numpy"} <= content["versions"].keys()


def test_no_parameter_was_changed_by_the_step(broken):
    run, _ = broken
    model = EXPERIMENTS["vgg08"].build_model(100)
    assert load_checkpoint(run / "crash" / "epoch-2-step-2" / "state.safetensors", model) == {"epoch": 2, "step": 2}
    assert [int((~np.isfinite(param)).sum()) for param in model.params] == [0, 0, 0, 1, *[0] * (len(model.params) - 4)]


def test_a_replay_finds_the_same(broken, capsys):
    run, _ = broken
    with np.errstate(all="ignore"):
        assert main(["replay", str(run / "crash" / "epoch-2-step-2")]) == 4
    then, now, verdict = capsys.readouterr().out.splitlines()
    assert then.removeprefix("then").strip() == now.removeprefix("now").strip()
    assert "kernels[2, 1, 0, 2] is inf" in now
    assert verdict == "the same"


def test_a_replay_says_where_nothing_is_found_any_more(broken, capsys):
    run, _ = broken
    pack = run / "crash" / "epoch-2-step-2"
    content = json.loads((pack / "pack.json").read_text())
    good = run / "checkpoints" / "last.safetensors"
    (pack / "state.safetensors").write_bytes(good.read_bytes())
    assert main(["replay", str(pack)]) == 0
    assert content["message"] in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pack.json", "batch.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_pack_is_said(broken, capsys, name, damage):
    run, _ = broken
    path = run / "crash" / "epoch-2-step-2" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    assert main(["replay", str(path.parent)]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_pack_whose_numbers_do_not_fit_together_is_said(broken, capsys):
    run, _ = broken
    pack = run / "crash" / "epoch-2-step-2"
    content = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps({**content, "engine": "slow"}))
    assert main(["replay", str(pack)]) == 2
    assert f"{pack} is no crash pack, or damaged: " in capsys.readouterr().err


def test_the_run_can_be_gone_on_with_from_its_last_checkpoint(broken, monkeypatch, capsys):
    run, _ = broken
    monkeypatch.undo()
    assert main(["vgg08", "--resume", str(run), "--quiet"]) == 0
    assert (run / "test.json").exists()
