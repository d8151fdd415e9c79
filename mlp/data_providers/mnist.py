"""MNIST, from the coursework's npz files or from the original idx files.

LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998).
"""

import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.data_providers.archives import MAX_RATIO, read_bytes, unpacked
from mlp.data_providers.base import DataDamagedError, DataError, DataMissingError, OneOfKDataProvider
from mlp.data_providers.download import RemoteFile, check_file, fetch, find_file, search_folders
from mlp.data_providers.npz import check_examples, check_set, read_npz
from mlp.reading import open_file
from mlp.rng import Rng

MAX_IDX = 100_000_000
"""Bytes of an idx file, packed or not; the largest, EMNIST's training images, have 88 million."""

SERVER = "https://ossci-datasets.s3.amazonaws.com/mnist/"
IDX_FILES = {
    name: RemoteFile(name, SERVER + name, size, md5, sha256)
    for name, size, md5, sha256 in (
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "9fb629c4189551a2d022fa330f9573f3",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )
}
"""MD5s from torchvision, whose server this is; SHA-256s from TensorFlow Datasets, of files of these names and sizes."""
MAX_NPZ = 400_000_000
"""Bytes of an array in the coursework's files: 50,000 images in float64 have 314 million."""
PARTS = {
    "train": ("train", slice(0, 50_000)),
    "valid": ("train", slice(50_000, None)),
    "test": ("t10k", slice(None)),
}


class MNISTDataProvider(OneOfKDataProvider):
    """Batches of MNIST: inputs (N, 784) float32 in [0, 1), targets one-hot (N, 10) float64.

    `which_set` is 'train' (50,000 images), 'valid' (10,000) or 'test' (10,000; in the coursework of 2016 'eval').
    Read from the coursework's mnist-SET.npz, or from the original idx files (plain or .gz; their pixels k of 0..255
    become k / 256, as in the coursework's), found in `search_folders(data_dir)`, or downloaded. Raises
    DataMissingError or DataDamagedError.
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
        self.which_set = check_set(type(self), "test" if which_set == "eval" else which_set, tuple(PARTS))
        inputs, targets = load_mnist(self.which_set, data_dir)
        super().__init__(inputs, targets, batch_size, max_num_batches, shuffle_order, rng, smooth_labels)


class AugmentedMNISTDataProvider(MNISTDataProvider):
    """`MNISTDataProvider` whose batches of inputs go through `transformer(inputs, rng)`, with the provider's rng."""

    def __init__(
        self,
        which_set: str = "train",
        batch_size: int = 100,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        transformer: Callable[[Array, Rng], Array] | None = None,
        smooth_labels: bool = False,
        data_dir: str | Path | None = None,
    ) -> None:
        if transformer is not None and not callable(transformer):
            raise TypeError(f"AugmentedMNISTDataProvider: transformer is {transformer!r}, expected a function or None")
        self.transformer = transformer
        super().__init__(which_set, batch_size, max_num_batches, shuffle_order, rng, smooth_labels, data_dir)

    def next(self) -> tuple[Array, Array]:
        """Return the next batch (transformed inputs, one-hot targets)."""
        inputs, targets = super().next()
        if self.transformer is None:
            return inputs, targets
        transformed = self.transformer(inputs.copy(), self.rng)
        if not isinstance(transformed, np.ndarray) or len(transformed) != len(targets):
            found = getattr(transformed, "shape", type(transformed).__name__)
            raise DataError(
                f"AugmentedMNISTDataProvider: transformer returned {found}, expected an array of {len(targets)} inputs"
            )
        return transformed, targets


class MNISTAutoencoderDataProvider(MNISTDataProvider):
    """`MNISTDataProvider` whose targets are the inputs."""

    def next(self) -> tuple[Array, Array]:
        """Return the next batch (inputs, inputs)."""
        inputs, _ = super().next()
        return inputs, inputs


def load_mnist(which_set: str, data_dir: str | Path | None = None) -> tuple[Array, Array]:
    """Return (inputs (N, 784) float32, labels (N,) int64) of 'train', 'valid' or 'test'.

    Raises DataMissingError or DataDamagedError.
    """
    check_set(MNISTDataProvider, which_set, tuple(PARTS))
    npz = find_file(f"mnist-{which_set}.npz", data_dir)
    if npz:
        (inputs, labels), path = read_npz(npz, "inputs", "targets", most=MAX_NPZ), npz
    else:
        inputs, labels, path = _read_idx_pair(which_set, data_dir)
    check_examples(path, inputs, labels, MNISTDataProvider.num_classes)
    if inputs.ndim != 2 or inputs.shape[1] != 784:
        raise DataDamagedError(f"{path}: inputs {inputs.shape}, expected (N, 784)")
    return inputs.astype(np.float32), labels.astype(np.int64)


def _read_idx_pair(which_set: str, data_dir: str | Path | None) -> tuple[Array, Array, Path]:
    """Return inputs, labels, and the file of the inputs."""
    prefix, part = PARTS[which_set]
    names = (f"{prefix}-{kind}" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    path, labels_path = (_find_idx(name, which_set, data_dir) for name in names)
    images, labels = read_idx(path), read_idx(labels_path)
    if images.ndim != 3 or labels.shape != (len(images),):
        raise DataDamagedError(f"{path} and {labels_path}: images {images.shape} and labels {labels.shape}")
    return images.reshape(len(images), prod(images.shape[1:]))[part] / np.float32(256.0), labels[part], path


def read_idx(path: Path) -> Array:
    """Return the array of bytes in an idx file, plain or .gz, with up to three axes.

    It holds 0, 0, 8 (for bytes), the number of axes, the length of each in 4 bytes, and the data.
    """
    try:
        with open_file(path, MAX_IDX) as file:
            packed = path.suffix == ".gz"
            most = min(MAX_IDX, path.stat().st_size * MAX_RATIO)
            stream = unpacked(file, MAX_IDX) if packed else file
            start = stream.read(4)
            axes = start[3] if len(start) == 4 and start[:3] == b"\0\0\x08" else 0
            shape = tuple(int.from_bytes(stream.read(4), "big") for _ in range(min(axes, 3)))
            if not 0 < axes <= 3 or prod(shape) > most:
                raise ValueError(f"it begins with {start!r} and {shape}, too large for {path.stat().st_size:,} bytes")
            data = read_bytes(stream, prod(shape))
            if stream.read(1):
                raise ValueError("there is more in it than it declares")
            return data.reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataDamagedError(f"{path} cannot be read: {error}. It was left as it is.") from error


def _find_idx(name: str, which_set: str, data_dir: str | Path | None) -> Path:
    """Return where an idx file lies, plain or packed, after a download if need be."""
    packed = f"{name}.gz"
    path = find_file(name, data_dir) or find_file(packed, data_dir) or _fetch_idx(packed, which_set, data_dir)
    if path.suffix == ".gz":
        check_file(path, IDX_FILES[packed])
    return path


def _fetch_idx(name: str, which_set: str, data_dir: str | Path | None) -> Path:
    try:
        return fetch(IDX_FILES[name], Path(data_dir).expanduser() if data_dir else None)
    except DataMissingError as error:
        looked = ", ".join(str(folder.absolute()) for folder in search_folders(data_dir))
        raise DataMissingError(
            f"MNIST was not found: no mnist-{which_set}.npz and no {name} in {looked}. {error} Put the coursework's "
            f"npz files or {', '.join(IDX_FILES)} ({name}: {IDX_FILES[name].described()}) into one of these folders."
        ) from None
