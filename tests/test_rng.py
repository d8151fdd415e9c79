"""Named streams and the counter-based hash."""

import zlib

import numpy as np
import pytest

from mlp import DEFAULT_SEED
from mlp.rng import default_rng, hash_bits, hash_integers, stream

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def hash_of_one(seed, name, epoch, sample, draw):
    """The hash as it is documented, in Python's own whole numbers."""
    state = 0
    for word in (seed & MASK, zlib.crc32(name.encode()), epoch, sample, draw):
        state = mix((state * GOLDEN & MASK) ^ (word + GOLDEN & MASK))
    return state


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


def test_none_is_a_fresh_stream_of_the_default_seed():
    expected = np.random.RandomState(DEFAULT_SEED).uniform(size=5)
    for _ in range(2):
        np.testing.assert_array_equal(default_rng(None).uniform(size=5), expected)


@pytest.mark.parametrize("rng", [np.random.RandomState(1), np.random.default_rng(1)], ids=["legacy", "generator"])
def test_a_given_rng_is_used_as_it_is(rng):
    assert default_rng(rng) is rng


@pytest.mark.parametrize("rng", [0, "seed", np.random, np.random.RandomState])
def test_what_is_no_rng_is_a_type_error(rng):
    with pytest.raises(TypeError, match="RandomState"):
        default_rng(rng)


def test_a_stream_is_a_function_of_seed_name_and_counters():
    np.testing.assert_array_equal(stream(3, "order", 7).random(4), stream(3, "order", 7).random(4))


def test_streams_that_differ_in_anything_differ():
    streams = [
        stream(0, "order"),
        stream(1, "order"),
        stream(0, "weights"),
        stream(0, "order", 1),
        stream(0, "order", 2),
        stream(0, "order", 1, 2),
        stream(0, "order", 2, 1),
    ]
    assert len({s.integers(2**63) for s in streams}) == len(streams)


def test_drawing_from_one_stream_does_not_shift_another():
    expected = stream(0, "b").random(3)
    first, second = stream(0, "a"), stream(0, "b")
    first.random(1000)
    np.testing.assert_array_equal(second.random(3), expected)


@pytest.mark.parametrize("seed", [0, 1, DEFAULT_SEED, 2**63 + 11, 2**64 - 1, 2**64 + 5, -1])
@pytest.mark.parametrize(("name", "epoch", "draw"), [("augmentation", 0, 0), ("é", 99, 2), ("", 2**40, 2**33)])
def test_hash_bits_are_those_of_whole_number_arithmetic(seed, name, epoch, draw):
    samples = np.array([0, 1, 2, 49_999, 2**31, 2**62 + 3])
    bits = hash_bits(seed, name, epoch, samples, draw)
    assert bits.dtype == np.uint64
    assert bits.tolist() == [hash_of_one(seed, name, epoch, sample, draw) for sample in samples.tolist()]


def test_hash_bits_are_pinned():
    assert hash_bits(0, "augmentation", 0, np.arange(2), 0).tolist() == [0xB4AC9578421BDA59, 0xC4D45C3A935296B1]


@pytest.mark.parametrize("shape", [(0,), (1,), (6,), (2, 3), (3, 1, 2)])
def test_hash_bits_have_the_shape_of_the_samples(shape):
    samples = np.arange(np.prod(shape)).reshape(shape)
    bits = hash_bits(5, "x", 1, samples, 0)
    assert bits.shape == shape
    assert bits.ravel().tolist() == [hash_of_one(5, "x", 1, sample, 0) for sample in range(samples.size)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_hash_bits_do_not_depend_on_the_type_of_the_samples(dtype):
    np.testing.assert_array_equal(
        hash_bits(0, "x", 0, np.arange(9, dtype=dtype), 0), hash_bits(0, "x", 0, np.arange(9), 0)
    )


def test_hash_bits_leave_the_samples_alone():
    samples = np.arange(5)
    hash_bits(0, "x", 0, samples, 0)
    np.testing.assert_array_equal(samples, np.arange(5))


def test_every_argument_changes_the_hash():
    base = (0, "x", 0, np.arange(100), 0)
    others = [
        (1, *base[1:]),
        (0, "y", *base[2:]),
        (0, "x", 1, *base[3:]),
        (*base[:4], 1),
        (0, "x", 0, base[3] + 100, 0),
    ]
    words = np.concatenate([hash_bits(*arguments) for arguments in (base, *others)])
    assert len(np.unique(words)) == 600


def test_each_bit_of_the_hash_is_set_half_of_the_time():
    bits = hash_bits(0, "x", 0, np.arange(20_000), 0)
    ones = (bits[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).sum(0, dtype=int)
    assert abs(ones - 10_000).max() < 5 * np.sqrt(20_000 / 4)


@pytest.mark.parametrize("neighbour", ["epoch", "sample", "draw"])
def test_neighbouring_hashes_share_half_of_their_bits(neighbour):
    samples = np.arange(5_000)
    first = hash_bits(0, "x", 0, samples, 0)
    second = hash_bits(0, "x", neighbour == "epoch", samples + (neighbour == "sample"), int(neighbour == "draw"))
    different = np.unpackbits((first ^ second).view(np.uint8)).sum(dtype=int)
    assert abs(different - 160_000) < 5 * np.sqrt(320_000 / 4)


@pytest.mark.parametrize("high", [1, 2, 9, 1000, 2**16 - 1])
def test_hash_integers_are_the_upper_bits_scaled(high):
    bits = hash_bits(0, "x", 0, np.arange(1000), 0)
    numbers = hash_integers(bits, high)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [(word >> 32) * high >> 32 for word in bits.tolist()]


@pytest.mark.parametrize("high", [1, 9, 2**16 - 1])
def test_hash_integers_reach_both_ends_and_no_further(high):
    assert hash_integers(np.array([0, MASK], np.uint64), high).tolist() == [0, high - 1]


def test_hash_integers_are_about_equally_often():
    counts = np.bincount(hash_integers(hash_bits(0, "x", 0, np.arange(90_000), 0), 9), minlength=9)
    assert chi_square(counts) < 8 + 5 * np.sqrt(16)
