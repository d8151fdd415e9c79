"""Checkpoints: everything that a run needs to go on exactly, and nothing that can run code.

A checkpoint is one safetensors file. Arrays: ``model/LAYER.ARRAY`` for parameters and running statistics, and
``rule/STATE/LAYER.PARAMETER`` for the learning rule's state. Its one metadata entry, `content`, is JSON: the progress,
the rule's step count, the states of the layers' random streams (dropout's), and the SHA-256 of all this and the arrays,
so that a damaged number is found. A data provider's random stream is not in it: save what it needs in the progress.
"""

import copy
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
from mlp.reading import MAX_JSON, open_file, parse_json, shown
from mlp.rng import Rng

MAX_FILE = 2**36
"""Bytes of a checkpoint, which is in memory as a whole."""
MAX_STEPS = 2**53
MT_WORDS = 624
"""Numbers in the state of a Mersenne twister, and its last position."""


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
        _check_header(data[: 8 + MAX_JSON])
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot hold these arrays and this progress: {error}") from error
    write_atomic(Path(path), data, None if keep is None else Path(keep))


def load_checkpoint(
    path: str | Path, model: Model, learning_rule: GradientDescentLearningRule | None = None
) -> dict[str, Any]:
    """Copy a checkpoint into a model and a learning rule (both built as when it was saved); return its progress.

    Without a rule, only the model is restored. Nothing is changed unless the file holds just the arrays that are
    wanted, each with its shape and dtype. Raises CheckpointError where not, and where the file is damaged.
    """
    stored, content = _read(path)
    streams = {name: (rng, copy.deepcopy(rng)) for name, rng in _streams(model).items()}
    if learning_rule is None:
        stored = {name: array for name, array in stored.items() if name.startswith("model/")}
    elif "step_count" not in content:
        raise CheckpointError(f"{path} holds a model without a learning rule's state")
    arrays = _arrays(model, learning_rule)
    for name in (*arrays, *(name for name in stored if name not in arrays)):
        wanted, found = (_describe(group.get(name)) for group in (arrays, stored))
        if wanted != found:
            what = f"{found} as {shown(name)}, expected {wanted}"
            raise CheckpointError(f"{path} holds {what}: it is of another model or rule")
    if streams.keys() != content["streams"].keys():
        found = shown(list(content["streams"]))
        raise CheckpointError(f"{path} holds random streams of {found}, expected {list(streams)}")
    for name, (_, trial) in streams.items():
        _try_stream_state(f"{path} holds a random stream", name, trial, content["streams"][name])
    for name, array in arrays.items():
        array[...] = to_device(stored[name], device_of(array))
    for name, (rng, _) in streams.items():
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
            raise CheckpointError(
                f"{error}; nor can the one before it be used: {other}; put one of them back, or start anew"
            ) from other
        aside = ""
        if path.exists():
            rename(path, path.with_name(f"{path.name}.damaged"))
            aside = f"; the damaged one is now {path.name}.damaged"
        say(f"{error}. Going on from the checkpoint before it, {kept}{aside}")
        return progress


def _read(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file and the rest of its content."""
    try:
        with open_file(Path(path), MAX_FILE) as stream:
            _check_header(stream.read(8 + MAX_JSON))
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            content = parse_json((file.metadata() or {})["content"])
        _check_content(content)
        intact = content.pop("sha256") == _digest(arrays, content)
    except FileNotFoundError as error:
        raise CheckpointDamagedError(f"{path} is gone") from error
    except (PermissionError, MemoryError) as error:  # which say nothing of the file
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {shown(error)}") from error
    except Exception as error:  # a damaged or foreign file can fail in any way
        raise CheckpointDamagedError(f"{path} cannot be read as a checkpoint: {shown(error)}") from error
    if not intact:
        raise CheckpointDamagedError(f"{path} is damaged: its numbers do not have the SHA-256 that was saved with them")
    return arrays, content


def _check_header(start: bytes) -> None:
    """Raise ValueError unless a safetensors file's header is short, and JSON that names nothing twice."""
    if len(start) < 8:
        raise ValueError(f"it has {len(start)} bytes, expected a header at least")
    size = int.from_bytes(start[:8], "little")
    if size > len(start) - 8:
        raise ValueError(f"its header has {size:,} bytes, of which there are {len(start) - 8:,} (at most {MAX_JSON:,})")
    parse_json(start[8 : 8 + size].decode())


def _check_content(content: Any) -> None:
    """Raise ValueError unless the content that is no array has the form in which it is saved."""
    kinds = {"progress": dict, "streams": dict, "sha256": str, "step_count": int}
    if not isinstance(content, dict) or not {"progress", "streams", "sha256"} <= content.keys() <= kinds.keys():
        raise ValueError("its content is not that of a checkpoint")
    for key, value in content.items():
        if type(value) is not kinds[key]:
            raise ValueError(f"its {key} is a {type(value).__name__}, expected {kinds[key].__name__}")
    if not 0 <= content.get("step_count", 0) < MAX_STEPS:
        raise ValueError(f"its step_count is {content['step_count']}, expected 0..{MAX_STEPS:,}")


def _digest(arrays: dict[str, Array], content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {_describe(arrays[name])} ".encode())
        digest.update(arrays[name].reshape(-1).view(np.uint8))
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


def _try_stream_state(what: str, name: str, trial: Rng, state: Any) -> None:
    """Give a copy of a random stream its new state; raise CheckpointError unless it then has just that."""
    kind = _stream_state(trial)["bit_generator"]
    found = state.get("bit_generator") if isinstance(state, dict) else None
    if found != kind:
        raise CheckpointError(f"{what} of kind {shown(found)} for {name}, expected {kind}")
    try:
        position = state["state"].get("pos", 0)
        if type(position) is not int or not 0 <= position <= MT_WORDS:  # NumPy would read beyond its memory
            raise ValueError(f"its position is {position}, expected 0..{MT_WORDS}")
        _set_stream_state(trial, state)
        found, wanted = (json.dumps(value, sort_keys=True, allow_nan=False) for value in (_stream_state(trial), state))
        if found != wanted:
            raise ValueError("it is not one that such a stream can have")
    except Exception as error:  # NumPy checks some of it
        raise CheckpointError(f"{what} for {name} with a damaged state: {shown(error)}") from error


def _set_stream_state(rng: Rng, state: Any) -> None:
    if isinstance(rng, np.random.RandomState):
        rng.set_state(state)
    else:
        rng.bit_generator.state = state
