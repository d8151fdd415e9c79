"""Augmentation of training images: random crops of the zero-padded image, and random horizontal flips."""

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import check_shape
from mlp.rng import hash_bits, hash_integers

PADDING = 4
"""The zeros around an image that it is cropped out of, on every side: the report's."""


def crop_and_flip(pixels: Array, samples: Array, seed: int, epoch: int, padding: int = PADDING) -> Array:
    """Return images (N, H, W, C), each padded with zeros, cropped back to H x W at random, and flipped or not.

    Every one of the (2 padding + 1)^2 crops is equally likely, and a flip has probability 1/2. The draws are a hash
    of (seed, epoch, sample), with `samples` (N,) the images' numbers in their set: they depend on nothing else.
    """
    check_shape("crop_and_flip: pixels", pixels, ("N", "H", "W", "C"), integers=True)
    check_shape("crop_and_flip: samples", samples, (len(pixels),), like=pixels, integers=True)
    xp = array_module(pixels)
    n, height, width, channels = pixels.shape
    tops, lefts = (_draw(samples, seed, epoch, draw, 2 * padding + 1) for draw in (0, 1))
    flips = _draw(samples, seed, epoch, 2, 2)
    padded = xp.zeros((n, height + 2 * padding, width + 2 * padding, channels), pixels.dtype)
    padded[:, padding : padding + height, padding : padding + width] = pixels
    rows = tops[:, None] + xp.arange(height)
    across = xp.arange(width)
    cols = lefts[:, None] + xp.where(flips[:, None] == 1, width - 1 - across, across)
    lines = xp.arange(n)[:, None] * padded.shape[1] + rows
    return xp.take(padded.reshape(-1, channels), lines[:, :, None] * padded.shape[2] + cols[:, None, :], axis=0)


def _draw(samples: Array, seed: int, epoch: int, draw: int, high: int) -> Array:
    return hash_integers(hash_bits(seed, "augmentation", epoch, samples.astype(np.int64), draw), high)
