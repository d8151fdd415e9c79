"""Named random streams, and a counter-based hash for random numbers that belong to a sample, not to a sequence.

A stream is named, so drawing from one never shifts another: adding a dropout layer leaves the initial weights and
the data order as they were. The hash has no state at all: the random crop of sample 17 in epoch 3 is a function of
(seed, epoch, sample), whatever batch the sample is in and wherever a run was resumed.
"""

import zlib

import numpy as np

from mlp import DEFAULT_SEED
from mlp.backend import Array, array_module

Rng = np.random.RandomState | np.random.Generator
"""What every `rng` argument accepts. The coursework passes RandomState."""


def default_rng(rng: Rng | None) -> Rng:
    """Return `rng`, or for None a fresh ``RandomState(DEFAULT_SEED)``."""
    if rng is None:
        return np.random.RandomState(DEFAULT_SEED)
    if not isinstance(rng, (np.random.RandomState, np.random.Generator)):
        raise TypeError(f"rng is {rng!r}, expected a numpy.random.RandomState, a Generator or None")
    return rng


def stream(seed: int, name: str, *counters: int) -> np.random.Generator:
    """Return the random stream called `name` of a run with this seed, e.g. ``stream(0, "order", epoch)``.

    Use a name with the same number of counters everywhere: with a last counter of 0 it is the stream without it.

    >>> from mlp.rng import stream
    >>> stream(0, "order", 1).permutation(4).tolist() == stream(0, "order", 1).permutation(4).tolist()
    True
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *counters])


def hash_bits(seed: int, name: str, epoch: int, samples: Array, draw: int) -> Array:
    """Return one 64-bit random word for each entry of `samples`, a pure function of the arguments.

    Each word w in turn is absorbed by h <- mix(h g xor (w + g)), with g the golden ratio's 64 bits and `mix` the
    finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014;
    the constants are those of D. Stafford's variant 13). `draw` numbers the draws of one sample. Runs on the device
    of `samples`; both devices give the same bits.
    """
    xp = array_module(samples)
    state = xp.zeros(samples.shape, dtype=np.uint64)
    for word in (seed & _MASK, zlib.crc32(name.encode()), epoch, samples, draw):
        words = xp.zeros(samples.shape, dtype=np.uint64)
        words[...] = word
        state = _mix(state * _GOLDEN ^ (words + _GOLDEN))
    return state


def hash_integers(bits: Array, high: int) -> Array:
    """Return whole numbers in [0, high) from random 64-bit words (from their upper 32 bits; high <= 2**32)."""
    return ((bits >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


_MASK = 0xFFFFFFFFFFFFFFFF
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
