"""Checkpoints: everything that a run needs to go on exactly, and nothing that can run code.

A checkpoint is one safetensors file. Arrays: ``model/LAYER.ARRAY`` for parameters and running statistics, and
``rule/STATE/LAYER.PARAMETER`` for the learning rule's state. Its one metadata entry, `progress`, is JSON.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mlp.backend import Array, device_of, to_cpu, to_device
from mlp.files import write_atomic
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import Model


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another model."""


def save_checkpoint(
    path: Path, model: Model, learning_rule: GradientDescentLearningRule | None, progress: dict[str, Any]
) -> None:
    """Write model, learning rule (None: without) and `progress` (JSON values) to `path`, whole or not at all."""
    arrays = {name: np.ascontiguousarray(to_cpu(array)) for name, array in _arrays(model, learning_rule).items()}
    steps = {} if learning_rule is None else {"step_count": learning_rule.step_count}
    metadata = {"progress": json.dumps({**progress, **steps}, sort_keys=True)}
    write_atomic(path, save(arrays, metadata))


def load_checkpoint(
    path: Path, model: Model, learning_rule: GradientDescentLearningRule | None = None
) -> dict[str, Any]:
    """Copy a checkpoint into a model and a learning rule (both built as when it was saved); return its progress.

    Nothing is changed unless every array is there with its shape and dtype. Raises CheckpointError where not, and
    where the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as content:
            stored = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            progress: dict[str, Any] = json.loads((content.metadata() or {})["progress"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    arrays = _arrays(model, learning_rule)
    for name, array in arrays.items():
        found = stored.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise CheckpointError(f"{path} holds {what} as {name}, expected {array.dtype} {array.shape}")
    for name, array in arrays.items():
        array[...] = to_device(stored[name], device_of(array))
    if learning_rule is not None:
        learning_rule.step_count = progress.pop("step_count")
    return progress


def _arrays(model: Model, learning_rule: GradientDescentLearningRule | None) -> dict[str, Array]:
    arrays = {f"model/{name}": array for name, array in model.named_arrays().items()}
    if learning_rule is not None:
        for state in learning_rule.state_names:
            for (layer, key, _), array in zip(model.param_keys(), getattr(learning_rule, state), strict=True):
                arrays[f"rule/{state}/{layer}.{key}"] = array
    return arrays
