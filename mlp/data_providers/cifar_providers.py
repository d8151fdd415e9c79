"""The coursework's providers of CIFAR-10 and CIFAR-100."""

from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.checks import check_flag
from mlp.data_providers.base import DataDamagedError, DataMissingError, OneOfKDataProvider
from mlp.data_providers.cifar import read_cifar, say_if_partial
from mlp.data_providers.download import find_file
from mlp.data_providers.npz import check_examples, check_names, check_set, read_npz
from mlp.rng import Rng

TRAINING_IMAGES = 40_000
"""As many of the 50,000 as the coursework has in its training part; the rest validate."""


class CIFAR10DataProvider(OneOfKDataProvider):
    """Batches of CIFAR-10: inputs (N, 3072) float32, targets one-hot (N, 10) float64; `label_map` names the classes.

    `which_set` is 'train' or 'valid'. Read from the coursework's cifar-10-SET.npz, whose inputs are taken as they
    are, in float32; without it from the official archive, found or downloaded as in `load_cifar`: pixels / 255,
    channel by channel, the first 40,000 training images in the file's order, or the last 10,000. Raises
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
        data_dir: str | Path | None = None,
    ) -> None:
        self.which_set = check_set(type(self), which_set, ("train", "valid"))
        inputs, targets, self.label_map = _load("cifar10", which_set, data_dir, "", self.num_classes)
        super().__init__(inputs, targets, batch_size, max_num_batches, shuffle_order, rng)


class CIFAR100DataProvider(OneOfKDataProvider):
    """Batches of CIFAR-100, as `CIFAR10DataProvider`'s: 100 classes or, with `use_coarse_targets`, 20 superclasses."""

    def __init__(
        self,
        which_set: str = "train",
        use_coarse_targets: bool = False,
        batch_size: int = 100,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        data_dir: str | Path | None = None,
    ) -> None:
        self.which_set = check_set(type(self), which_set, ("train", "valid"))
        self.use_coarse_targets = check_flag("CIFAR100DataProvider: use_coarse_targets", use_coarse_targets)
        self.num_classes = 20 if use_coarse_targets else 100
        kind = "coarse_" if use_coarse_targets else "fine_"
        inputs, targets, self.label_map = _load("cifar100", which_set, data_dir, kind, self.num_classes)
        super().__init__(inputs, targets, batch_size, max_num_batches, shuffle_order, rng)


def _load(
    dataset: str, which_set: str, data_dir: str | Path | None, kind: str, classes: int
) -> tuple[Array, Array, Array]:
    """Return (inputs, labels (N,), the classes' names); `kind` is "fine_" or "coarse_" where there is a choice."""
    name = f"cifar-{dataset.removeprefix('cifar')}-{which_set}.npz"
    path = find_file(name, data_dir)
    if path is None:
        try:
            return _load_official(dataset, which_set, data_dir, kind == "coarse_")
        except DataMissingError as error:
            raise DataMissingError(f"The coursework's {name} was not found, nor the official files: {error}") from error
    inputs, targets, label_map = read_npz(path, "inputs", "targets", f"{kind}label_map")
    if kind:
        if targets.ndim != 2 or targets.shape[1] != 2:
            raise DataDamagedError(f"{path}: targets {targets.shape}, expected (N, 2): fine and coarse labels")
        targets = targets[:, int(kind == "coarse_")]
    check_examples(path, inputs, targets, classes)
    check_names(path, label_map, classes)
    if inputs.size != 3072 * len(inputs):
        raise DataDamagedError(f"{path}: inputs {inputs.shape}, expected (N, 3072)")
    return inputs.reshape(len(inputs), -1).astype(np.float32), targets.astype(np.int64), label_map


def _load_official(
    dataset: str, which_set: str, data_dir: str | Path | None, coarse: bool
) -> tuple[Array, Array, Array]:
    images, test, names, place = read_cifar(dataset, data_dir, coarse=coarse)
    say_if_partial(dataset, images, test, place)
    images = images.take(slice(TRAINING_IMAGES) if which_set == "train" else slice(TRAINING_IMAGES, None))
    channels_first = images.pixels.transpose(0, 3, 1, 2).reshape(len(images.pixels), -1)
    return channels_first.astype(np.float32) / np.float32(255.0), images.labels, np.array(names)
