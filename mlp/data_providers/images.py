"""Labelled images in memory, and batches of them ready for a network."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.checks import check_positive_int, check_shape
from mlp.data_providers.augmentation import PADDING, crop_and_flip
from mlp.rng import stream


class ImageSet(NamedTuple):
    """Images (N, H, W, C) uint8 and labels (N,) int64."""

    pixels: Array
    labels: Array

    def take(self, indices: Array | slice) -> "ImageSet":
        """Return the images at these indices, in this order."""
        return ImageSet(self.pixels[indices], self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """A data set: its three parts, its classes, and the mean and deviation (per channel, of 0..1) to normalise by."""

    name: str
    train: ImageSet
    valid: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def limited(self, train_limit: int | None) -> "ImageData":
        """Return the data with no more than `train_limit` training images, the first ones (None: all)."""
        if train_limit is None:
            return self
        return replace(self, train=self.train.take(slice(check_positive_int("train_limit", train_limit))))

    def fingerprint(self) -> str:
        """Return the SHA-256 of all pixels and labels: two runs saw the same data if it is the same."""
        digest = hashlib.sha256()
        for images in (self.train, self.valid, self.test):
            digest.update(np.ascontiguousarray(images.pixels).data)
            digest.update(np.ascontiguousarray(images.labels).data)
        return digest.hexdigest()


class ImageDataProvider:
    """Batches (inputs (N, C, H, W), labels (N,)) of an image set, normalised: (pixel / 255 - mean) / std.

    With `shuffle_order` the order of an epoch is a permutation drawn from (seed, epoch); with `augment` each image
    is cropped and flipped as `crop_and_flip` does. Both are functions of (seed, epoch) and the image alone, so any
    batch of any epoch can be had at any time: ``batch(epoch, index)``. The last batch may be smaller. Iterating
    gives one epoch after the other. Memory is channels-last.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 0,
        shuffle_order: bool = False,
        augment: bool = False,
    ) -> None:
        check_shape("ImageDataProvider: pixels", images.pixels, ("N", "H", "W", len(mean)), integers=True)
        check_shape("ImageDataProvider: labels", images.labels, (len(images.pixels),), integers=True)
        check_shape("ImageDataProvider: std", np.asarray(std), (len(mean),))
        if images.pixels.dtype != np.uint8 or images.labels.dtype.kind not in "iu" or min(std) <= 0:
            raise ValueError("ImageDataProvider: expected pixels of uint8, integer labels, and a std above 0")
        self.images = images
        self.batch_size = check_positive_int("ImageDataProvider: batch_size", batch_size)
        self.seed, self.shuffle_order, self.augment, self.padding = seed, shuffle_order, augment, PADDING
        self.scale = (1.0 / (255.0 * np.array(std))).astype(np.float32)
        self.shift = (np.array(mean) / np.array(std)).astype(np.float32)
        self.epoch = 0
        self._order: tuple[int | None, Array] = (None, np.arange(0))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch, the incomplete last one included."""
        return -(-len(self.images.labels) // self.batch_size)

    def order(self, epoch: int) -> Array:
        """Return the indices of the images in the order of this epoch."""
        if self._order[0] != epoch:
            count = len(self.images.labels)
            order = stream(self.seed, "order", epoch).permutation(count) if self.shuffle_order else np.arange(count)
            self._order = (epoch, order)
        return self._order[1]

    def batch(self, epoch: int, index: int) -> tuple[Array, Array]:
        """Return batch number `index` of this epoch."""
        if not 0 <= index < self.num_batches:
            raise IndexError(f"ImageDataProvider.batch: index is {index}, expected 0..{self.num_batches - 1}")
        chosen = self.order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        pixels = self.images.pixels[chosen]
        if self.augment:
            pixels = crop_and_flip(pixels, chosen, self.seed, epoch, self.padding)
        lines, columns = pixels.reshape(len(pixels) * pixels.shape[1], -1), pixels.shape[2]
        inputs = lines * np.tile(self.scale, columns)  # whole lines: three numbers at a time would take longer
        inputs -= np.tile(self.shift, columns)
        inputs = inputs.reshape(pixels.shape)
        return inputs.transpose(0, 3, 1, 2), self.images.labels[chosen]

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for index in range(self.num_batches):
            yield self.batch(epoch, index)


def split(images: ImageSet, num_train: int, stratified: bool = False) -> tuple[ImageSet, ImageSet]:
    """Return (train, valid): `num_train` images chosen by RandomState(0), and the rest in increasing order.

    The report's split, ``choice(N, num_train, replace=False)``, is not stratified; with `stratified` every class is
    divided in the same proportion instead.
    """
    rng, count = np.random.RandomState(0), len(images.labels)
    if check_positive_int("split: num_train", num_train) >= count:
        raise ValueError(f"split: num_train is {num_train}, expected less than the {count} images there are")
    if stratified:
        ranks = np.empty(count)
        for label in np.unique(images.labels):
            members = np.flatnonzero(images.labels == label)
            ranks[members] = (rng.permutation(len(members)) + 0.5) / len(members)
        chosen = np.argsort(ranks, kind="stable")[:num_train]
    else:
        chosen = rng.choice(count, num_train, replace=False)
    rest = np.setdiff1d(np.arange(count), chosen)
    return images.take(chosen), images.take(rest)
