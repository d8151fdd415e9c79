"""Reading the coursework's npz files: arrays of numbers and names, never objects."""

from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.checks import check_choice
from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.data_providers.download import find_file, search_folders


def read_npz(path: Path, *names: str) -> list[Array]:
    """Return the arrays of these names in an npz file. Raises DataDamagedError where it does not hold them."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            lacking = [name for name in names if name not in content]
            if lacking:
                raise ValueError(f"it lacks {', '.join(lacking)} and holds {', '.join(sorted(content)) or 'nothing'}")
            arrays = [content[name] for name in names]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            raise ValueError("its members are no arrays")
        return arrays
    except Exception as error:  # a damaged zip can fail in any way
        raise DataDamagedError(f"{path} is damaged or not what it should be: {error}. It was left as it is.") from error


def need_file(name: str, what: str, data_dir: str | Path | None, advice: str) -> Path:
    """Return where a data file lies. Raises DataMissingError, which says what to do, where it is nowhere."""
    path = find_file(name, data_dir)
    if path is None:
        looked = ", ".join(str(folder.absolute() / name) for folder in search_folders(data_dir))
        raise DataMissingError(f"{what} was not found: there is no {looked}. {advice}")
    return path


def check_set(kind: type, which_set: str, sets: tuple[str, ...]) -> str:
    """Return the name of a part of a data set; raise ValueError unless it is one of `sets`."""
    return check_choice(f"{kind.__name__}: which_set", which_set, sets)


def check_examples(path: Path, inputs: Array, labels: Array, num_classes: int) -> None:
    """Raise DataDamagedError unless there is a label in 0..num_classes - 1 for each of the inputs."""
    if inputs.dtype.kind not in "fiu" or labels.dtype.kind not in "iu":
        raise DataDamagedError(f"{path}: arrays of {inputs.dtype} and {labels.dtype}, expected numbers")
    if labels.ndim != 1 or labels.shape != inputs.shape[:1] or not len(labels):
        raise DataDamagedError(f"{path}: inputs {inputs.shape} and labels {labels.shape}, expected as many of both")
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise DataDamagedError(f"{path} holds inputs that are not finite")
    if not inputs.size:
        raise DataDamagedError(f"{path} holds empty inputs {inputs.shape}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataDamagedError(f"{path}: labels outside 0..{num_classes - 1}")


def check_names(path: Path, names: Array, num_classes: int) -> None:
    """Raise DataDamagedError unless there is a name for each class."""
    if names.shape != (num_classes,):
        raise DataDamagedError(f"{path}: names of classes {names.shape}, expected ({num_classes},)")
