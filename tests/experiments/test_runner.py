"""A run, and the promise that a run which was stopped or killed ends as if it had not been."""

import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlp.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from mlp.data_providers import ImageDataProvider
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments import runner
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.interrupt import Interrupted, StopAfterStep
from mlp.experiments.runner import Position, Runner
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.optimisers import Scores, evaluate
from mlp.records import RecordError, RunFolder, best_epoch

from . import tiny

NETWORKS = {"vgg08": tiny.VGG, "with BN": tiny.VGG_BN}
STEPS = {"vgg08": 18, "with BN": 12}


def new_folder(runs_dir, experiment):
    folder = RunFolder.create(runs_dir, experiment.name)
    folder.write_json("config.json", {"experiment": experiment.to_dict()})
    return folder


def run(folder, experiment, data=None):
    """Run from wherever the folder stands, with all objects new."""
    Runner(experiment, data or tiny.shapes(), RunFolder.open(folder.path), "cpu", quiet=True).run()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return the folders of uninterrupted runs."""
    folders = {}
    for name, experiment in NETWORKS.items():
        folders[name] = new_folder(tmp_path_factory.mktemp("runs"), experiment)
        run(folders[name], experiment)
    return folders


# --- what a run writes


def provider(experiment, data, part="train", batch_size=None):
    training = part == "train"
    images, size = getattr(data, part), batch_size or experiment.batch_size
    return ImageDataProvider(images, size, data.mean, data.std, experiment.seed, training, training)


def test_the_records_are_those_of_a_plain_loop(uninterrupted):
    """The facts of the experiment, written down once more without the runner."""
    experiment, data, error = tiny.VGG, tiny.shapes(), CrossEntropySoftmaxError()
    model = experiment.build_model(100)
    rule = KingmaAdamLearningRule(0.001)
    rule.initialise(model.params)
    batches = provider(experiment, data)
    folder = uninterrupted["vgg08"]
    for row in folder.metrics():
        rule.learning_rate = 2e-5 + (1e-3 - 2e-5) * (1 + math.cos(math.pi * (row.epoch - 1) / 3)) / 2
        losses, hits = [], 0
        for inputs, labels in batches:
            activations = model.fprop(inputs)
            losses.append(float(error(activations[-1], labels)) * len(labels))
            hits += int((activations[-1].argmax(1) == labels).sum())
            grads = model.grads_wrt_params(activations, error.grad(activations[-1], labels))
            rule.update_params(grads)
        valid = evaluate(Engine(model, error), provider(experiment, data, "valid", 100))
        assert row.learning_rate == pytest.approx(rule.learning_rate, rel=1e-15)
        assert row.train_loss == pytest.approx(math.fsum(losses) / 28, rel=1e-12)
        assert row.train_acc == pytest.approx(100.0 * hits / 28, rel=1e-14)
        assert row.val_loss == pytest.approx(valid.loss, rel=1e-6)
        assert row.val_acc == valid.accuracy
        assert row.seconds > 0
        flow = [entry for entry in folder.gradient_flow() if entry.epoch == row.epoch]
        weights = [entry.mean_abs_gradient for entry in flow if entry.layer != "input_conv_bn_0"]
        means = [np.abs(grad.astype(np.float64)).mean() for grad in grads]
        assert weights == pytest.approx([m for m, grad in zip(means, grads, strict=True) if grad.ndim > 1], rel=2e-5)
        assert flow[1].mean_abs_gradient == pytest.approx(means[1], rel=2e-5)


def test_every_epoch_is_recorded_once(uninterrupted):
    for name, folder in uninterrupted.items():
        epochs = list(range(1, NETWORKS[name].epochs + 1))
        assert [row.epoch for row in folder.metrics()] == epochs
        flow = folder.gradient_flow()
        assert sorted({row.epoch for row in flow}) == epochs
        assert len(flow) == len(epochs) * len({row.layer for row in flow})


def test_the_best_epochs_weights_are_kept_and_tested(uninterrupted):
    for name, folder in uninterrupted.items():
        experiment, data = NETWORKS[name], tiny.shapes()
        model = experiment.build_model(100)
        best = best_epoch(folder.metrics())
        assert load_checkpoint(folder.best_checkpoint, model) == {"epoch": best.epoch}
        error = CrossEntropySoftmaxError()
        valid = evaluate(Engine(model, error), provider(experiment, data, "valid", 100))
        assert (valid.loss, valid.accuracy) == (best.val_loss, best.val_acc)
        test = evaluate(Engine(model, error), provider(experiment, data, "test", 100))
        assert folder.read_json("test.json") == {
            "epoch": best.epoch,
            "test_loss": test.loss,
            "test_acc": test.accuracy,
            "images": 60,
        }


def test_the_test_set_is_seen_once_at_the_end(tmp_path, monkeypatch):
    data, seen = tiny.shapes(), []
    real = runner.ImageDataProvider

    def watched(images, *args, **options):
        seen.append("test" if images is data.test else "valid" if images is data.valid else "train")
        return real(images, *args, **options)

    monkeypatch.setattr(runner, "ImageDataProvider", watched)
    run(new_folder(tmp_path, tiny.VGG), tiny.VGG)
    assert seen == ["train", "valid", "valid", "valid", "test"]


def test_gradient_flow_names_the_layers_of_vgg38_in_order(tmp_path):
    experiment = replace(EXPERIMENTS["vgg38_bn_rc"], num_filters=2, batch_size=10, epochs=1)
    folder = new_folder(tmp_path, experiment)
    run(folder, experiment, tiny.shapes(10, 10, 10))
    expected = ["input_conv_conv_0", "input_conv_bn_0"]
    for stage in range(3):
        for block in [*(f"block_{stage}_{block}" for block in range(5)), f"reduction_block_{stage}"]:
            expected += [f"{block}_{part}_{i}" for i in range(2) for part in ("conv", "bn")]
    assert [row.layer for row in folder.gradient_flow()] == [*expected, "logit_linear_layer"]


def test_gradient_flow_leaves_out_biases_and_betas(uninterrupted):
    names = [row.layer for row in uninterrupted["vgg08"].gradient_flow() if row.epoch == 1]
    reductions = [f"reduction_block_{stage}_conv_{i}" for stage in range(3) for i in range(2)]
    assert names == ["input_conv_conv_0", "input_conv_bn_0", *reductions, "logit_linear_layer"]


def test_the_same_run_twice_gives_the_same_files(uninterrupted, tmp_path):
    folder = new_folder(tmp_path, tiny.VGG)
    run(folder, tiny.VGG)
    tiny.assert_same_results(folder.path, uninterrupted["vgg08"].path)


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 2e-3}, {"batch_size": 4}, {"epochs": 4}])
def test_another_configuration_gives_other_files(uninterrupted, tmp_path, change):
    experiment = replace(tiny.VGG, **change)
    folder = new_folder(tmp_path, experiment)
    run(folder, experiment)
    mine, theirs = tiny.results(folder.path), tiny.results(uninterrupted["vgg08"].path)
    assert mine["metrics.csv"] != theirs["metrics.csv"]
    assert mine["checkpoints/last.safetensors"] != theirs["checkpoints/last.safetensors"]


def test_a_finished_run_is_left_as_it_is(uninterrupted, monkeypatch):
    folder = uninterrupted["vgg08"]

    def files():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.path.rglob("*") if path.is_file()}

    before = files()
    monkeypatch.setattr(runner, "train_step", None)
    run(folder, tiny.VGG)
    assert files() == before


def test_a_checkpoint_of_another_network_is_refused(uninterrupted, tmp_path):
    folder = new_folder(tmp_path, tiny.VGG)
    folder.last_checkpoint.write_bytes(uninterrupted["with BN"].last_checkpoint.read_bytes())
    with pytest.raises(CheckpointError):
        run(folder, tiny.VGG)


def test_a_position_comes_back_exactly():
    position = Position(3, 7, Scores(0.1 + 0.2, 5, 60), 1.5)
    assert Position.from_dict(position.to_dict()) == replace(position, seconds=0.0)


# --- stopping after a step


@pytest.fixture
def stop_at(monkeypatch):
    """Return a function that asks for a stop during a certain step, and counts the steps taken in `steps`."""
    stops, real = [], runner.train_step

    class Watched(StopAfterStep):
        def __enter__(self):
            stops.append(self)
            return super().__enter__()

    def ask(step):
        ask.steps = 0

        def train_step(*args):
            ask.steps += 1
            stops[-1].requested = stops[-1].requested or ask.steps == step
            return real(*args)

        monkeypatch.setattr(runner, "train_step", train_step)

    monkeypatch.setattr(runner, "StopAfterStep", Watched)
    return ask


@pytest.mark.parametrize("network", NETWORKS)
def test_stopped_at_any_step_a_run_ends_the_same(uninterrupted, tmp_path, stop_at, network):
    experiment = NETWORKS[network]
    for step in range(1, STEPS[network] + 1):
        folder = new_folder(tmp_path, experiment)
        stop_at(step)
        try:
            run(folder, experiment)
        except Interrupted:
            assert step < STEPS[network]
            assert not folder.is_complete()
            run(folder, experiment)
        tiny.assert_same_results(folder.path, uninterrupted[network].path)


def test_stopped_after_every_step_a_run_ends_the_same(uninterrupted, tmp_path, stop_at):
    folder, stopped = new_folder(tmp_path, tiny.VGG_BN), 0
    while not folder.is_complete():
        stop_at(1)
        try:
            run(folder, tiny.VGG_BN)
        except Interrupted:
            stopped += 1
    assert 9 <= stopped <= 12
    tiny.assert_same_results(folder.path, uninterrupted["with BN"].path)


@pytest.mark.parametrize("step", [1, 5, 6, 7, 12])
def test_after_a_request_no_further_step_is_taken(tmp_path, stop_at, step):
    """Six steps make an epoch: a request in an epoch's last step counts too."""
    stop_at(step)
    with pytest.raises(Interrupted):
        run(new_folder(tmp_path, tiny.VGG), tiny.VGG)
    assert stop_at.steps == step


def test_a_run_of_one_step_an_epoch_can_be_stopped(tmp_path, stop_at):
    experiment = replace(tiny.VGG, batch_size=500)
    folder = new_folder(tmp_path, experiment)
    stop_at(1)
    with pytest.raises(Interrupted):
        run(folder, experiment)
    assert stop_at.steps == 1


def test_a_real_signal_is_such_a_request(tmp_path, monkeypatch):
    real, steps = runner.train_step, []

    def train_step(*args):
        steps.append(1)
        if len(steps) == 4:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(runner, "train_step", train_step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        run(new_folder(tmp_path, tiny.VGG), tiny.VGG)
    assert len(steps) == 4
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("epoch", [1, 2, 3, 9])
def test_stopped_after_an_epoch_a_run_ends_the_same(uninterrupted, tmp_path, epoch):
    folder = new_folder(tmp_path, tiny.VGG)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=epoch)
    assert [row.epoch for row in folder.metrics()] == [1, 2, 3][:epoch]
    assert folder.is_complete() == (epoch >= 3)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=1)
    assert len(folder.metrics()) == min(epoch, 3)
    run(folder, tiny.VGG)
    tiny.assert_same_results(folder.path, uninterrupted["vgg08"].path)


# --- death at any moment


class KilledError(BaseException):
    """The end of the process, as far as files can tell: nothing in the library catches it."""


@pytest.fixture
def die(monkeypatch):
    """Return a function that lets the process die at a certain event; the moments of writing a file are events."""
    real_fsync, real_replace, real_step = os.fsync, Path.replace, runner.train_step
    left = {"events": -1}

    def event():
        left["events"] -= 1
        return left["events"] == 0

    def fsync(number):
        if event():
            if not os.path.isdir(f"/dev/fd/{number}"):  # noqa: PTH112
                os.ftruncate(number, os.fstat(number).st_size // 2)
            raise KilledError
        real_fsync(number)

    def replace_file(self, target):
        if event():
            raise KilledError
        result = real_replace(self, target)
        if event():
            raise KilledError
        return result

    def train_step(*args):
        step = real_step(*args)
        if event():
            raise KilledError
        return step

    def at(event_number):
        left["events"] = event_number

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace_file)
    monkeypatch.setattr(runner, "train_step", train_step)
    return at


SHORT = replace(tiny.VGG_BN, epochs=2, num_blocks=0)
SHORT_SIZES = (12, 20, 20)


def short(runs_dir):
    folder = new_folder(runs_dir, SHORT)
    run(folder, SHORT, tiny.shapes(*SHORT_SIZES))
    return folder


def resumed(folder, die, event):
    """Run until the event, and say whether it came before the end."""
    die(event)
    try:
        run(folder, SHORT, tiny.shapes(*SHORT_SIZES))
    except KilledError:
        return True
    return False


@pytest.mark.parametrize("seconds", [-1.0, 1e9], ids=["saving every step", "saving every epoch"])
def test_killed_at_any_event_a_run_ends_the_same(tmp_path, monkeypatch, die, seconds):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    whole = short(tmp_path)
    event, died = 0, True
    while died:
        event += 1
        die(-1)
        folder = new_folder(tmp_path, SHORT)
        died = resumed(folder, die, event)
        assert not resumed(folder, die, -1)
        tiny.assert_same_results(folder.path, whole.path)
        assert not list(folder.path.rglob("*.part"))
    assert event > (50 if seconds < 0 else 30)


def test_killed_again_and_again_a_run_ends_the_same(tmp_path, monkeypatch, die):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    whole = short(tmp_path)
    rng = random.Random(5)
    for _ in range(5):
        die(-1)
        folder = new_folder(tmp_path, SHORT)
        while resumed(folder, die, rng.randint(15, 30)):
            pass
        tiny.assert_same_results(folder.path, whole.path)


def test_checkpoints_are_saved_within_an_epoch_when_it_is_time(tmp_path, monkeypatch, stop_at):
    saved, real = [], runner.save_checkpoint
    monkeypatch.setattr(runner, "save_checkpoint", lambda *args: (saved.append(args[3]), real(*args)))
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    run(new_folder(tmp_path, tiny.VGG), replace(tiny.VGG, epochs=1))
    assert [progress["step"] for progress in saved if "step" in progress] == [0, 1, 2, 3, 4, 5, 0]
    saved.clear()
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    run(new_folder(tmp_path, tiny.VGG), replace(tiny.VGG, epochs=1))
    assert [progress["step"] for progress in saved if "step" in progress] == [0, 0]


@pytest.mark.parametrize("network", NETWORKS)
def test_with_a_flipped_bit_at_any_step_a_run_ends_the_same(
    uninterrupted, tmp_path, monkeypatch, stop_at, capsys, network
):
    """Wherever it stopped, the newest checkpoint is not used, the one before it is, and that is said."""
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    experiment, rng = NETWORKS[network], random.Random(3)
    for step in range(2, STEPS[network], 3):
        folder = new_folder(tmp_path, experiment)
        stop_at(step)
        with pytest.raises(Interrupted):
            run(folder, experiment)
        content = bytearray(folder.last_checkpoint.read_bytes())
        content[-rng.randrange(1, 2000)] ^= 1 << rng.randrange(8)
        folder.last_checkpoint.write_bytes(content)
        stop_at(0)
        capsys.readouterr()
        run(folder, experiment)
        first, *_ = capsys.readouterr().err.splitlines()
        assert f"{folder.last_checkpoint} is damaged: its numbers do not have the SHA-256" in first
        assert f"Going on from the checkpoint before it, {folder.previous_checkpoint}" in first
        tiny.assert_same_results(folder.path, uninterrupted[network].path)
        aside = folder.last_checkpoint.with_name("last.safetensors.damaged")
        assert aside.read_bytes() == content


def edited(row):
    cells = row.split(",")
    cells[5] = str(float(cells[5]) + 1.0)
    return ",".join(cells)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("metrics.csv", lambda lines: [lines[0], edited(lines[1]), *lines[2:]]),
        ("metrics.csv", lambda lines: [lines[0], *lines[2:]]),
        ("metrics.csv", lambda _: None),
        ("gradient_flow.csv", lambda lines: [*lines[:-2], lines[-1]]),
        ("gradient_flow.csv", lambda _: None),
    ],
    ids=["a digit", "a row", "all", "a layer", "all layers"],
)
def test_records_that_are_not_the_checkpoint_s_are_refused(tmp_path, name, change):
    """They would decide over the best epoch, and nobody would know."""
    folder = new_folder(tmp_path, tiny.VGG)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=2)
    path = folder.path / name
    lines = change(path.read_text().splitlines())
    path.unlink() if lines is None else path.write_text("\n".join(lines) + "\n")
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    with pytest.raises(
        RecordError, match=rf": the rows of {name} changed after the checkpoint was saved: .* Put it back"
    ):
        run(folder, tiny.VGG)
    assert before == {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}


def test_a_checkpoint_from_before_records_were_hashed_is_gone_on_from(tmp_path, uninterrupted):
    folder = new_folder(tmp_path, tiny.VGG)
    part = Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True)
    part.run(stop_after=2)
    save_checkpoint(folder.last_checkpoint, part.model, part.rule, part.position.to_dict())
    run(folder, tiny.VGG)
    tiny.assert_same_results(folder.path, uninterrupted["vgg08"].path)


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("learning_rate", 0.005), ("epochs", 4)])
def test_a_config_that_was_edited_is_refused(tmp_path, field, value):
    """Half of the run would be another one's."""
    folder = new_folder(tmp_path, tiny.VGG)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=1)
    before = getattr(tiny.VGG, field)
    with pytest.raises(RecordError, match=rf"config\.json \({field} was {before!r}\) changed after the checkpoint"):
        Runner(replace(tiny.VGG, **{field: value}), tiny.shapes(), folder, "cpu", quiet=True)


@pytest.mark.parametrize("epochs", [2, 3], ids=["half-way", "complete"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_best_checkpoint_is_noticed_when_a_run_goes_on(tmp_path, epochs, damage):
    """Not after all the epochs that are left."""
    folder = new_folder(tmp_path, tiny.VGG)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=epochs)
    content = bytearray(folder.best_checkpoint.read_bytes())
    content[-5] ^= 1
    folder.best_checkpoint.unlink() if damage == "gone" else folder.best_checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True)


def test_the_seconds_of_an_epoch_are_no_part_of_the_result(tmp_path, uninterrupted):
    folder = new_folder(tmp_path, tiny.VGG)
    Runner(tiny.VGG, tiny.shapes(), folder, "cpu", quiet=True).run(stop_after=2)
    path = folder.path / "metrics.csv"
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join([f"{lines[0]},seconds", *(f"{line},7.5" for line in lines[1:])]) + "\n")
    run(folder, tiny.VGG)
    tiny.assert_same_results(folder.path, uninterrupted["vgg08"].path)


# --- real processes

DRIVER = Path(__file__).with_name("driver.py")
ARGUMENTS = ["--dataset", "shapes", "--train-limit", "180", "--batch-size", "50"]
VGG08 = ["vgg08", *ARGUMENTS, "--epochs", "4"]


def start(folder, mishap, *arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MLP_DATA_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, str(DRIVER), mishap, *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, line=None):
    """Wait for a process, after giving it a line to read; return its exit status and what it wrote."""
    out, err = process.communicate(line, timeout=120)
    return process.returncode, out, err


def only_run(folder, runs_dir="runs"):
    (run_folder,) = (folder / runs_dir).iterdir()
    return run_folder


def complete(folder, *arguments):
    """Run to the end without a mishap; return the run's folder."""
    status, _, err = finish(start(folder, "none", *arguments))
    assert status == 0, err
    return only_run(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an uninterrupted run of VGG08, in a process of its own."""
    return complete(tmp_path_factory.mktemp("whole"), *VGG08)


def test_sigkill_at_random_events_changes_nothing(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    arguments = ["vgg38_bn", *ARGUMENTS, "--epochs", "3", "--quiet"]
    expected = complete(whole, *arguments)
    rng = random.Random(11)
    for kill in range(4):
        command = arguments if kill == 0 else ["vgg38_bn", "--resume", only_run(broken), "--quiet"]
        status, _, err = finish(start(broken, f"kill {rng.randint(12, 34)}", *command))
        assert status == -signal.SIGKILL, err
    found = complete(broken, "vgg38_bn", "--resume", only_run(broken), "--quiet")
    tiny.assert_same_results(found, expected)


def test_sigkill_at_random_times_changes_nothing(tmp_path, whole):
    """Wherever the kills fall, and be it after the end: the files must be the same."""
    rng = random.Random(12)
    for kill in range(3):
        process = start(tmp_path, "none", *(VGG08 if kill == 0 else ["vgg08", "--resume", only_run(tmp_path)]))
        try:
            assert process.stdout.readline().startswith("vgg08: ")
            time.sleep(rng.uniform(0.0, 0.3))
        finally:
            process.kill()
            finish(process)
    tiny.assert_same_results(complete(tmp_path, "vgg08", "--resume", only_run(tmp_path)), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_says_how_to_go_on_and_that_works(tmp_path, whole, number):
    process = start(tmp_path, "pause 6", *VGG08, "--runs-dir", "runs of mine")
    while (line := process.stdout.readline()) != "paused\n":
        assert line, process.stderr.read()
    process.send_signal(number)
    status, _, err = finish(process, "go on\n")
    assert status == 130
    assert "Traceback" not in err
    folder = only_run(tmp_path, "runs of mine")
    assert not (folder / "test.json").exists()
    said, command = err.splitlines()[-2:]
    assert said == "Stopped; everything is saved. To go on:"
    arguments = shlex.split(command)
    expected = ["vgg08", "--resume", f"runs of mine/{folder.name}", "--device", "cpu"]
    assert arguments == ["python", "-m", "mlp.experiments", *expected]
    status, _, err = finish(start(tmp_path, "none", *arguments[3:]))
    assert status == 0, err
    tiny.assert_same_results(folder, whole)
