"""What a run leaves behind where its numbers broke - a crash pack - and how that is replayed.

A pack is a folder: state.safetensors (parameters, running statistics, the learning rule's state, before the step that
broke), batch.safetensors, pack.json (the experiment, what was found, versions, how it was run).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mlp.backend import Array, to_cpu
from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import Experiment
from mlp.experiments.environment import versions
from mlp.files import make_folder, write_atomic
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import Model
from mlp.reading import read_file, shown
from mlp.records import RecordError, RunFolder
from mlp.watch import Finding, NumbersError, find, is_finite

MAX_BATCH = 2**30
"""Bytes of a batch in a pack."""


class TrainingBrokeError(RuntimeError):
    """A run's numbers are not finite any more; the message says where, and how to see it again."""


class Broken(NamedTuple):
    """The step that broke: what was trained, by what, on what."""

    experiment: Experiment
    model: Model
    learning_rule: KingmaAdamLearningRule
    inputs: Array
    labels: Array
    engine: str


def write_pack(run: RunFolder, broken: Broken, epoch: int, step: int, alarm: NumbersError) -> Path:
    """Write the crash pack of a step (epoch and step counted from 1) into the run's folder; return its folder."""
    folder = run.path / "crash" / f"epoch-{epoch}-step-{step}"
    make_folder(folder, exist_ok=True)
    save_checkpoint(folder / "state.safetensors", broken.model, broken.learning_rule, {"epoch": epoch, "step": step})
    batch = {"inputs": broken.inputs, "labels": broken.labels}
    write_atomic(folder / "batch.safetensors", save({k: np.ascontiguousarray(to_cpu(v)) for k, v in batch.items()}))
    content = {
        "experiment": broken.experiment.to_dict(),
        "num_classes": int(broken.model.params[-1].size),
        "learning_rate": broken.learning_rule.learning_rate,
        "engine": broken.engine,
        "finding": None if alarm.finding is None else _as_json(alarm.finding),
        "message": str(alarm),
        "versions": versions(),
    }
    write_atomic(folder / "pack.json", json.dumps(content, indent=2) + "\n")
    return folder


def replay(folder: Path) -> tuple[str, str]:
    """Run a crash pack's step again; return (what was found then, what is found now), in words.

    Raises RecordError or CheckpointError where the pack is damaged.
    """
    try:
        return _replay(folder, RunFolder(folder))
    except (ValueError, TypeError) as error:  # numbers and arrays that do not fit together
        raise RecordError(f"{folder} is no crash pack, or damaged: {shown(error)}") from error


def _replay(folder: Path, pack: RunFolder) -> tuple[str, str]:
    experiment = Experiment.of_file(pack, "pack.json")
    model = experiment.build_model(pack.read_field("pack.json", "num_classes"))
    rule = KingmaAdamLearningRule(pack.read_field("pack.json", "learning_rate"))
    rule.initialise(model.params)
    load_checkpoint(folder / "state.safetensors", model, rule)
    try:
        batch = load(read_file(folder / "batch.safetensors", MAX_BATCH))
        inputs, labels = batch["inputs"], batch["labels"]
    except (OSError, KeyError, SafetensorError) as error:
        raise RecordError(f"{folder / 'batch.safetensors'} cannot be read: {error}") from error
    loss = CrossEntropySoftmaxError()
    engine = Engine(model, loss, pack.read_field("pack.json", "engine"))
    with np.errstate(all="ignore"):
        step = engine.forward_backward(inputs, labels)
    now = "all numbers are finite"
    if not is_finite(step.loss, step.outputs, step.grads):
        now = str(NumbersError(find(model, loss, rule, inputs, labels), rule.step_count + 1))
    return pack.read_field("pack.json", "message"), now


def _as_json(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "index": list(finding.index), "value": str(finding.value)}
