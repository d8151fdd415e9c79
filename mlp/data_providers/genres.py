"""The coursework's providers of music: features of the Million Song Dataset, and their genres.

Bertin-Mahieux, Ellis, Whitman and Lamere, The million song dataset, ISMIR 2011.
"""

from pathlib import Path

import numpy as np

from mlp.data_providers.base import OneOfKDataProvider
from mlp.data_providers.npz import check_examples, check_names, check_set, need_file, read_npz
from mlp.rng import Rng


class MSD10GenreDataProvider(OneOfKDataProvider):
    """Batches of songs in 10 genres: inputs (N, D) float32, each song's features in a row, targets one-hot (N, 10).

    `which_set` is 'train' or 'valid'; `label_map` names the genres. Read from the coursework's
    msd-10-genre-SET.npz in `search_folders(data_dir)`. Raises DataMissingError or DataDamagedError.
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
        name = f"msd-{self.num_classes}-genre-{which_set}.npz"
        path = need_file(name, "The Million Song Dataset's part", data_dir, "It comes with the course's files.")
        inputs, targets, self.label_map = read_npz(path, "inputs", "targets", "label_map")
        check_examples(path, inputs, targets, self.num_classes)
        check_names(path, self.label_map, self.num_classes)
        flat = inputs.reshape(len(inputs), -1).astype(np.float32)  # which holds what check_examples lets through
        super().__init__(flat, targets, batch_size, max_num_batches, shuffle_order, rng)


class MSD25GenreDataProvider(MSD10GenreDataProvider):
    """`MSD10GenreDataProvider` with 25 genres, from msd-25-genre-SET.npz."""

    num_classes = 25
