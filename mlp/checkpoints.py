"""Checkpoints: everything that a run needs to go on exactly, and nothing that can run code.

A checkpoint is one safetensors file. Arrays: ``model/LAYER.ARRAY`` for parameters and running statistics, and
``rule/STATE/LAYER.PARAMETER`` for the learning rule's state. Its one metadata entry, `content`, is JSON: the progress,
the rule's step count, the states of the layers' random streams (dropout's), and the SHA-256 of all this and the arrays,
so that a damaged number is found. A data provider's random stream is not in it: save what it needs in the progress.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mlp.backend import Array, device_of, to_cpu, to_device
from mlp.files import rename, write_atomic
from mlp.layers import Layer
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import Model
from mlp.rng import Rng


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another model."""


class CheckpointDamagedError(CheckpointError):
    """A checkpoint is not there, or not as it was saved."""


def save_checkpoint(
    path: str | Path,
    model: Model,
    learning_rule: GradientDescentLearningRule | None,
    progress: dict[str, Any],
    keep: str | Path | None = None,
) -> None:
    """Write model, learning rule (None: without) and `progress` (JSON values) to `path`, whole or not at all.

    With `keep`, another name in the same folder, the checkpoint that was at `path` gets that name: one of the two is
    whole at any moment, and `load_newest_checkpoint` finds it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from mlp.checkpoints import load_checkpoint, save_checkpoint
    >>> from mlp.layers import AffineLayer
    >>> from mlp.models import SingleLayerModel
    >>> model = SingleLayerModel(AffineLayer(3, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(Path(folder) / "a.safetensors", model, None, {"epoch": 3})
    ...     load_checkpoint(Path(folder) / "a.safetensors", model)
    {'epoch': 3}
    """
    arrays = {name: np.asarray(to_cpu(array), order="C") for name, array in _arrays(model, learning_rule).items()}
    content: dict[str, Any] = {
        "progress": progress,
        "streams": {name: _stream_state(rng) for name, rng in _streams(model).items()},
    }
    if learning_rule is not None:
        content["step_count"] = learning_rule.step_count
    content["sha256"] = _digest(arrays, content)
    try:
        data = save(arrays, {"content": json.dumps(content, sort_keys=True)})
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot hold these arrays: {error}") from error
    write_atomic(Path(path), data, None if keep is None else Path(keep))


def load_checkpoint(
    path: str | Path, model: Model, learning_rule: GradientDescentLearningRule | None = None
) -> dict[str, Any]:
    """Copy a checkpoint into a model and a learning rule (both built as when it was saved); return its progress.

    Without a rule, only the model is restored. Nothing is changed unless the file holds just the arrays that are
    wanted, each with its shape and dtype. Raises CheckpointError where not, and where the file is damaged.
    """
    stored, content = _read(path)
    step_count, streams = content.get("step_count"), _streams(model)
    if learning_rule is None:
        stored = {name: array for name, array in stored.items() if name.startswith("model/")}
    elif not isinstance(step_count, int):
        raise CheckpointError(f"{path} holds a model without a learning rule's state")
    arrays = _arrays(model, learning_rule)
    for name in (*arrays, *(name for name in stored if name not in arrays)):
        wanted, found = (_describe(group.get(name)) for group in (arrays, stored))
        if wanted != found:
            raise CheckpointError(f"{path} holds {found} as {name}, expected {wanted}: it is of another model or rule")
    if streams.keys() != content["streams"].keys():
        raise CheckpointError(f"{path} holds random streams of {list(content['streams'])}, expected {list(streams)}")
    for name, rng in streams.items():
        wanted, found = (state.get("bit_generator") for state in (_stream_state(rng), content["streams"][name]))
        if wanted != found:
            raise CheckpointError(f"{path} holds a random stream of kind {found} for {name}, expected {wanted}")
    for name, array in arrays.items():
        array[...] = to_device(stored[name], device_of(array))
    for name, rng in streams.items():
        _set_stream_state(rng, content["streams"][name])
    if learning_rule is not None:
        learning_rule.step_count = content["step_count"]
    progress: dict[str, Any] = content["progress"]
    return progress


def load_newest_checkpoint(
    path: Path, kept: Path, model: Model, learning_rule: GradientDescentLearningRule, say: Callable[[str], object]
) -> dict[str, Any]:
    """Load `path` as `load_checkpoint` does or, where that is damaged or gone, the one that was kept before it.

    Then this is said, and a damaged file is moved to NAME.damaged, lest it be kept in place of the whole one.
    """
    try:
        return load_checkpoint(path, model, learning_rule)
    except CheckpointDamagedError as error:
        if not kept.exists():
            raise
        try:
            progress = load_checkpoint(kept, model, learning_rule)
        except CheckpointError as other:
            raise CheckpointError(f"{error}; nor can the one before it be used: {other}") from other
        aside = ""
        if path.exists():
            rename(path, path.with_name(f"{path.name}.damaged"))
            aside = f"; the damaged one is now {path.name}.damaged"
        say(f"{error}. Going on from the checkpoint before it, {kept}{aside}")
        return progress


def _read(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file and the rest of its content."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            content: dict[str, Any] = json.loads((file.metadata() or {})["content"])
        intact = content.pop("sha256") == _digest(arrays, content)
    except FileNotFoundError as error:
        raise CheckpointDamagedError(f"{path} is gone") from error
    except (PermissionError, MemoryError) as error:  # which say nothing of the file
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    except Exception as error:  # a damaged or foreign file can fail in any way
        raise CheckpointDamagedError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not intact:
        raise CheckpointDamagedError(f"{path} is damaged: its numbers do not have the SHA-256 that was saved with them")
    return arrays, content


def _digest(arrays: dict[str, Array], content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {_describe(arrays[name])} ".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _describe(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype} {array.shape}"


def _arrays(model: Model, learning_rule: GradientDescentLearningRule | None) -> dict[str, Array]:
    arrays = {f"model/{name}": array for name, array in model.named_arrays().items()}
    if learning_rule is not None:
        learning_rule.check_owns(model.params)
        for state in learning_rule.state_names:
            for (layer, key, _), array in zip(model.param_keys(), getattr(learning_rule, state), strict=True):
                arrays[f"rule/{state}/{layer}.{key}"] = array
    return arrays


def _streams(model: Model) -> dict[str, Rng]:
    """Return the random streams that layers draw from, by the layers' names."""
    found = [(name, getattr(layer, "rng", None)) for name, layer in model.named_layers()]
    found += [(f"container {i}", getattr(layer, "rng", None)) for i, layer in enumerate(_containers(model.layers))]
    named = [(name, rng) for name, rng in found if isinstance(rng, Rng)]
    if len(dict(named)) != len(named):
        raise ValueError("two layers with random streams have one name; give each layer a name of its own")
    return dict(named)


def _containers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers that hold others, from the outside in."""
    for layer in layers:
        if layer.children():
            yield layer
            yield from _containers(layer.children())


def _stream_state(rng: Rng) -> Any:
    """Return the state of a random stream as JSON values."""
    state = rng.get_state(legacy=False) if isinstance(rng, np.random.RandomState) else rng.bit_generator.state
    return json.loads(json.dumps(state, default=lambda value: value.tolist()))


def _set_stream_state(rng: Rng, state: Any) -> None:
    if isinstance(rng, np.random.RandomState):
        rng.set_state(state)
    else:
        rng.bit_generator.state = state
