import threading

import numpy as np
import pytest

from mlp.data_providers import ImageDataProvider, ImageSet, Prefetcher


@pytest.fixture
def provider():
    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 23))
    return ImageDataProvider(images, 5, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), seed=3, shuffle_order=True, augment=True)


def same(batch, other):
    return all(np.array_equal(a, b) for a, b in zip(batch, other, strict=True))


def test_batches_are_the_providers_in_order_and_out_of_order(provider):
    asked = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (4, 3), (0, 2), (0, 2)]
    with Prefetcher(provider) as batches:
        assert all(same(batches.batch(*where), provider.batch(*where)) for where in asked)


def test_the_next_batch_is_made_on_another_thread_before_it_is_asked_for(provider, monkeypatch):
    made, real, second = [], provider.batch, threading.Event()

    def batch(epoch, index):
        made.append((epoch, index, threading.get_ident()))
        if index == 1:
            second.set()
        return real(epoch, index)

    monkeypatch.setattr(provider, "batch", batch)
    with Prefetcher(provider) as batches:
        batches.batch(0, 0)
        assert second.wait(30)
    assert [entry[:2] for entry in made] == [(0, 0), (0, 1)]
    assert threading.get_ident() not in {entry[2] for entry in made}


def test_an_error_is_raised_where_its_batch_is_asked_for(provider, monkeypatch):
    real = provider.batch

    def batch(epoch, index):
        if index == 2:
            raise OSError("the disk is gone")
        return real(epoch, index)

    monkeypatch.setattr(provider, "batch", batch)
    with Prefetcher(provider) as batches:
        batches.batch(0, 0)
        batches.batch(0, 1)
        with pytest.raises(OSError, match="the disk is gone"):
            batches.batch(0, 2)
        assert same(batches.batch(0, 3), real(0, 3))
        with pytest.raises(IndexError, match=r"index is 5, expected 0\.\.4"):
            batches.batch(0, 5)


def test_its_thread_ends_with_the_block(provider):
    before = threading.active_count()
    with Prefetcher(provider) as batches:
        batches.batch(0, 0)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
