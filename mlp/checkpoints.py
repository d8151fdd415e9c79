"""Checkpoints: everything that a run needs to go on exactly, and nothing that can run code.

A checkpoint is one safetensors file. Arrays: ``model/LAYER.ARRAY`` for parameters and running statistics, and
``rule/STATE/LAYER.PARAMETER`` for the learning rule's state. Its one metadata entry, `progress`, is JSON; it holds the
SHA-256 of all arrays, so that a damaged number is found.
"""

import hashlib
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
    arrays = {name: np.asarray(to_cpu(array), order="C") for name, array in _arrays(model, learning_rule).items()}
    content = {**progress, "sha256": _digest(arrays)}
    if learning_rule is not None:
        content["step_count"] = learning_rule.step_count
    write_atomic(path, save(arrays, {"progress": json.dumps(content, sort_keys=True)}))


def load_checkpoint(
    path: Path, model: Model, learning_rule: GradientDescentLearningRule | None = None
) -> dict[str, Any]:
    """Copy a checkpoint into a model and a learning rule (both built as when it was saved); return its progress.

    Without a rule, only the model is restored. Nothing is changed unless the file holds just the arrays that are
    wanted, each with its shape and dtype. Raises CheckpointError where not, and where the file is damaged.
    """
    stored, progress = _read(path)
    step_count = progress.pop("step_count", None)
    if learning_rule is None:
        stored = {name: array for name, array in stored.items() if name.startswith("model/")}
    elif step_count is None:
        raise CheckpointError(f"{path} holds a model without a learning rule's state")
    arrays = _arrays(model, learning_rule)
    for name in (*arrays, *(name for name in stored if name not in arrays)):
        wanted, found = (_describe(group.get(name)) for group in (arrays, stored))
        if wanted != found:
            raise CheckpointError(f"{path} holds {found} as {name}, expected {wanted}: it is of another model or rule")
    for name, array in arrays.items():
        array[...] = to_device(stored[name], device_of(array))
    if learning_rule is not None:
        learning_rule.step_count = step_count
    return progress


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file and its progress."""
    try:
        with safe_open(path, framework="numpy") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            progress: dict[str, Any] = json.loads((content.metadata() or {})["progress"])
        intact = progress.pop("sha256") == _digest(arrays)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not intact:
        raise CheckpointError(f"{path} is damaged: its numbers do not have the SHA-256 that was saved with them")
    return arrays, progress


def _digest(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {_describe(arrays[name])} ".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _describe(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype} {array.shape}"


def _arrays(model: Model, learning_rule: GradientDescentLearningRule | None) -> dict[str, Array]:
    arrays = {f"model/{name}": array for name, array in model.named_arrays().items()}
    if learning_rule is not None:
        for state in learning_rule.state_names:
            for (layer, key, _), array in zip(model.param_keys(), getattr(learning_rule, state), strict=True):
                arrays[f"rule/{state}/{layer}.{key}"] = array
    return arrays
