"""The coursework's data providers: batches of arrays, in an order that is shuffled every epoch."""

from typing import Any, Self

import numpy as np

from mlp.backend import Array
from mlp.checks import ArgumentError, DTypeError, ShapeError, check_array, check_flag, check_positive_int, check_shape
from mlp.rng import Rng, default_rng


class DataError(RuntimeError):
    """A data set cannot be used."""


class DataMissingError(DataError, AssertionError):
    """A data set is nowhere to be found; the message says where it was looked for and how to get it.

    (An AssertionError too, as the coursework's providers raise there.)
    """


class DataDamagedError(DataError):
    """A data file is damaged, truncated, or not what it claims to be; the message names it. It is left as it is."""


class DataProvider:
    """Iterates over `inputs` and `targets` in batches of `batch_size`.

    A last, incomplete batch is dropped; `max_num_batches` (-1: no limit) caps an epoch. With `shuffle_order` one
    permutation of `rng` is drawn per epoch, and one at construction. At the end of an epoch the provider is ready
    for the next one. Change `batch_size` between epochs: what counts inside one is batches, not examples.

    >>> import numpy as np
    >>> from mlp.data_providers import DataProvider
    >>> provider = DataProvider(np.arange(10.0)[:, None], np.arange(10), batch_size=4, shuffle_order=False)
    >>> [targets.tolist() for inputs, targets in provider]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    def __init__(
        self,
        inputs: Array,
        targets: Array,
        batch_size: int,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        smooth_labels: bool = False,
    ) -> None:
        who = type(self).__name__
        check_shape(f"{who}: inputs", inputs, ("N", "..."), integers=True)
        check_shape(f"{who}: targets", targets, ("N", "..."), integers=True)
        if len(inputs) != len(targets):
            raise ShapeError(f"{who}: {len(inputs)} inputs and {len(targets)} targets, expected as many of both")
        self.inputs, self.targets = inputs, targets
        self.shuffle_order, self.smooth_labels = check_flag(f"{who}: shuffle_order", shuffle_order), smooth_labels
        self.rng = default_rng(rng)
        self._batch_size = check_positive_int(f"{who}: batch_size", batch_size)
        self._current_order = np.arange(len(inputs))
        self._curr_batch = 0
        self.max_num_batches = max_num_batches
        self.new_epoch()

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = check_positive_int(f"{type(self).__name__}: batch_size", value)
        self._update_num_batches()

    @property
    def max_num_batches(self) -> int:
        """The most batches of an epoch, or -1 for no limit."""
        return self._max_num_batches

    @max_num_batches.setter
    def max_num_batches(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value == 0 or value < -1:
            raise ArgumentError(f"{type(self).__name__}: max_num_batches is {value}, expected -1 or a number >= 1")
        self._max_num_batches = value
        self._update_num_batches()

    def _update_num_batches(self) -> None:
        possible = len(self.inputs) // self._batch_size
        self.num_batches = possible if self._max_num_batches == -1 else min(self._max_num_batches, possible)

    def __iter__(self) -> Self:
        return self

    def new_epoch(self) -> None:
        """Start an epoch, with a new order if `shuffle_order`."""
        self._curr_batch = 0
        if self.shuffle_order:
            self.shuffle()

    def shuffle(self) -> None:
        """Permute inputs and targets alike, by one permutation of `rng`."""
        self._permute(self.rng.permutation(len(self.inputs)))

    def reset(self) -> None:
        """Undo all permutations, then start an epoch: what follows depends on the state of `rng` alone."""
        self._permute(np.argsort(self._current_order))
        self.new_epoch()

    def _permute(self, permutation: Array) -> None:
        self._current_order = self._current_order[permutation]
        self.inputs, self.targets = self.inputs[permutation], self.targets[permutation]

    def __next__(self) -> tuple[Any, Any]:
        return self.next()

    def next(self) -> tuple[Any, Any]:
        """Return the next batch (inputs, targets); at the end of an epoch start a new one and raise StopIteration."""
        if self._curr_batch + 1 > self.num_batches:
            self.new_epoch()
            raise StopIteration
        batch = slice(self._curr_batch * self._batch_size, (self._curr_batch + 1) * self._batch_size)
        self._curr_batch += 1
        return self.inputs[batch], self.targets[batch]


class OneOfKDataProvider(DataProvider):
    """A provider of whole-number labels whose batches hold one-hot rows; `num_classes` says how many columns.

    A subclass that gives its targets another form overrides `encode`.
    """

    num_classes: int

    def next(self) -> tuple[Any, Any]:
        """Return the next batch (inputs, one-hot targets)."""
        inputs, labels = super().next()
        return inputs, self.encode(labels)

    def encode(self, labels: Array) -> Array:
        """Return the targets of a batch for its labels (N,): one-hot rows."""
        return self.to_one_of_k(labels)

    def to_one_of_k(self, int_targets: Array) -> Array:
        """Return labels (N,) as one-hot rows (N, num_classes), float64."""
        check_array(f"{type(self).__name__}: labels", int_targets, integers=True)
        if int_targets.dtype.kind not in "iu" or int_targets.ndim != 1:
            found = f"{int_targets.dtype} {int_targets.shape}"
            raise DTypeError(f"{type(self).__name__}: labels are {found}, expected whole numbers (N,)")
        if len(int_targets) and not 0 <= int_targets.min() <= int_targets.max() < self.num_classes:
            raise ShapeError(f"{type(self).__name__}: labels outside 0..{self.num_classes - 1}")
        one_hot = np.zeros((len(int_targets), self.num_classes))
        one_hot[np.arange(len(int_targets)), int_targets] = 1.0
        return one_hot
