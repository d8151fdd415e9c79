"""MNIST, from the coursework's npz files or from the original idx files.

LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).
"""

import gzip
from math import prod
from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.data_providers.base import DataDamagedError, DataMissingError, OneOfKDataProvider
from mlp.data_providers.download import RemoteFile, check_file, fetch, find_file, search_folders
from mlp.rng import Rng

SERVER = "https://ossci-datasets.s3.amazonaws.com/mnist/"
IDX_FILES = {
    name: RemoteFile(name, SERVER + name, size, md5)
    for name, size, md5 in (
        ("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
    )
}
PARTS = {
    "train": ("train", slice(0, 50_000)),
    "valid": ("train", slice(50_000, None)),
    "test": ("t10k", slice(None)),
}


class MNISTDataProvider(OneOfKDataProvider):
    """Batches of MNIST: inputs (N, 784) float32 in [0, 1), targets one-hot (N, 10) float64.

    `which_set` is 'train' (50,000 images), 'valid' (10,000) or 'test' (10,000). Read from the coursework's
    mnist-SET.npz, or from the original idx files (plain or .gz; their pixels k of 0..255 become k / 256, as in the
    coursework's), found in `search_folders(data_dir)`, or downloaded.
    """

    num_classes = 10

    def __init__(
        self,
        which_set: str = "train",
        batch_size: int = 100,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        smooth_labels: bool = False,
        data_dir: str | Path | None = None,
    ) -> None:
        if which_set not in PARTS:
            raise ValueError(f"MNISTDataProvider: which_set is {which_set!r}, expected one of {', '.join(PARTS)}")
        self.which_set = which_set
        inputs, targets = load_mnist(which_set, data_dir)
        super().__init__(inputs, targets, batch_size, max_num_batches, shuffle_order, rng, smooth_labels)


def load_mnist(which_set: str, data_dir: str | Path | None = None) -> tuple[Array, Array]:
    """Return (inputs (N, 784) float32, labels (N,) int64) of 'train', 'valid' or 'test'."""
    npz = find_file(f"mnist-{which_set}.npz", data_dir)
    inputs, labels, what = _read_npz(npz) if npz else _read_idx_pair(which_set, data_dir)
    if any(array.dtype.kind not in kinds for array, kinds in ((inputs, "fiu"), (labels, "iu"))):
        raise DataDamagedError(f"{what}: arrays of {inputs.dtype} and {labels.dtype}, expected numbers")
    if inputs.ndim != 2 or inputs.shape[1] != 784 or labels.shape != (len(inputs),) or not len(labels):
        raise DataDamagedError(f"{what}: arrays {inputs.shape} and {labels.shape}, expected (N, 784) and (N,)")
    if labels.min() < 0 or labels.max() > 9:
        raise DataDamagedError(f"{what}: labels outside 0..9")
    return inputs.astype(np.float32), labels.astype(np.int64)


def _read_npz(path: Path) -> tuple[Array, Array, str]:
    """Return inputs, labels, and where they are from."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            inputs, targets = arrays["inputs"], arrays["targets"]
        if not isinstance(inputs, np.ndarray) or not isinstance(targets, np.ndarray):
            raise ValueError("its members are no arrays")
        return inputs, targets, str(path)
    except Exception as error:  # a damaged zip can fail in any way
        raise DataDamagedError(f"{path} is damaged or no MNIST file: {error}. It was left as it is.") from error


def _read_idx_pair(which_set: str, data_dir: str | Path | None) -> tuple[Array, Array, str]:
    """Return inputs, labels, and where they are from."""
    prefix, part = PARTS[which_set]
    (images, path), (labels, _) = (
        _read_idx(f"{prefix}-{kind}", data_dir) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    what = f"{path} and its labels, part {which_set}"
    return images.reshape(len(images), prod(images.shape[1:]))[part] / np.float32(256.0), labels[part], what


def _read_idx(name: str, data_dir: str | Path | None) -> tuple[Array, Path]:
    """Return the array in an idx file, and the file.

    It holds 0, 0, 8 (for bytes), the number of axes, the length of each in 4 bytes, and the data.
    """
    path = find_file(name, data_dir) or find_file(f"{name}.gz", data_dir) or _fetch_idx(f"{name}.gz", data_dir)
    try:
        if path.suffix == ".gz":
            check_file(path, IDX_FILES[f"{name}.gz"])
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataDamagedError(f"{path} cannot be read: {error}. It was left as it is.") from error
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    if not axes or len(data) != 4 + 4 * axes + prod(shape):
        raise DataDamagedError(f"{path} is no idx file of bytes, or truncated. It was left as it is.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape), path


def _fetch_idx(name: str, data_dir: str | Path | None) -> Path:
    try:
        return fetch(IDX_FILES[name], Path(data_dir).expanduser() if data_dir else None)
    except DataMissingError as error:
        looked = ", ".join(str(folder.absolute()) for folder in search_folders(data_dir))
        raise DataMissingError(
            f"MNIST was not found: no mnist-SET.npz and no {name} in {looked}. {error} Put the coursework's npz "
            f"files or {', '.join(IDX_FILES)} into one of these folders."
        ) from None
