"""EMNIST's balanced set, from the coursework's npz files or from the original idx files.

Cohen, Afshar, Tapson and van Schaik, EMNIST: an extension of MNIST to handwritten letters, 2017.
"""

from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.checks import check_flag, check_number
from mlp.data_providers.base import DataDamagedError, OneOfKDataProvider
from mlp.data_providers.download import find_file
from mlp.data_providers.mnist import read_idx
from mlp.data_providers.npz import check_examples, check_set, need_file, read_npz
from mlp.rng import Rng

PARTS = {"train": ("train", slice(0, -18_800)), "valid": ("train", slice(-18_800, None)), "test": ("test", slice(None))}
SOURCE = "https://www.nist.gov/itl/products-and-services/emnist-dataset"


class EMNISTDataProvider(OneOfKDataProvider):
    """Batches of EMNIST balanced, 47 classes: inputs (N, 784) float32 in [0, 1], targets one-hot (N, 47) float64.

    `which_set` is 'train', 'valid' or 'test'. With `smooth_labels` the targets are `label_smoothing`'s; without
    `flatten` (the coursework of 2018 to 2020) the inputs are (N, 1, 28, 28). Read from the coursework's
    emnist-SET.npz, or from the original emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte (plain or .gz),
    whose last 18,800 training images, the paper's validation set, are then 'valid'; in `search_folders(data_dir)`.
    Raises DataMissingError or DataDamagedError.
    """

    num_classes = 47

    def __init__(
        self,
        which_set: str = "train",
        batch_size: int = 100,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        smooth_labels: bool = False,
        flatten: bool = True,
        data_dir: str | Path | None = None,
    ) -> None:
        self.which_set = check_set(type(self), which_set, tuple(PARTS))
        check_flag("EMNISTDataProvider: smooth_labels", smooth_labels)
        inputs, targets = load_emnist(which_set, data_dir)
        if not check_flag("EMNISTDataProvider: flatten", flatten):
            inputs = inputs.reshape(-1, 1, 28, 28)
        super().__init__(inputs, targets, batch_size, max_num_batches, shuffle_order, rng, smooth_labels)

    def encode(self, labels: Array) -> Array:
        """Return the targets of a batch for its labels (N,): one-hot rows, smoothed if `smooth_labels`."""
        return self.label_smoothing(labels) if self.smooth_labels else self.to_one_of_k(labels)

    def label_smoothing(self, int_targets: Array, alpha: float = 0.1) -> Array:
        """Return (1 - alpha) one-hot + alpha / num_classes, (N, num_classes), for labels (N,).

        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the inception architecture for computer vision, CVPR
        2016, section 7.
        """
        alpha = check_number("EMNISTDataProvider.label_smoothing: alpha", alpha, 0.0, 1.0)
        return (1.0 - alpha) * self.to_one_of_k(int_targets) + alpha / self.num_classes


def load_emnist(which_set: str, data_dir: str | Path | None = None) -> tuple[Array, Array]:
    """Return (inputs (N, 784) float32 in [0, 1], labels (N,) int64) of 'train', 'valid' or 'test'.

    Raises DataMissingError or DataDamagedError.
    """
    prefix, part = PARTS[check_set(EMNISTDataProvider, which_set, tuple(PARTS))]
    stem = f"emnist-balanced-{prefix}"
    images = find_file(f"{stem}-images-idx3-ubyte", data_dir) or find_file(f"{stem}-images-idx3-ubyte.gz", data_dir)
    if images is None or find_file(f"emnist-{which_set}.npz", data_dir):
        advice = (
            f"Put the coursework's file there, or the original {stem}-images-idx3-ubyte.gz and its labels: {SOURCE}"
        )
        path = need_file(f"emnist-{which_set}.npz", "EMNIST", data_dir, advice)
        inputs, labels = read_npz(path, "inputs", "targets")
    else:
        path = images
        name = f"{stem}-labels-idx1-ubyte"
        labels_path = find_file(name, data_dir) or find_file(f"{name}.gz", data_dir)
        labels_path = labels_path or need_file(name, "EMNIST", data_dir, f"Put it there, plain or as .gz: {SOURCE}")
        inputs, labels = read_idx(images), read_idx(labels_path)
        if inputs.shape[1:] != (28, 28) or labels.shape != (len(inputs),):
            raise DataDamagedError(f"{path} and {labels_path}: images {inputs.shape} and labels {labels.shape}")
        inputs, labels = inputs.swapaxes(1, 2)[part], labels[part]  # the original images lie on their side
    check_examples(path, inputs, labels, EMNISTDataProvider.num_classes)
    if inputs.size != len(inputs) * 784:
        raise DataDamagedError(f"{path}: inputs {inputs.shape}, expected (N, 784) or (N, 28, 28)")
    return inputs.reshape(-1, 784).astype(np.float32) / np.float32(255.0), labels.astype(np.int64)
