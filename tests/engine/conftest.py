"""How a batch is cut, and into how many threads' hands it comes, for one test."""

import pytest

from mlp.kernels import parallel


@pytest.fixture
def small_shards(monkeypatch):
    """Cut batches into shards of 4 examples at most, so that small ones have several."""
    monkeypatch.setattr("mlp.engine.plan._SHARD_BYTES", 1)


@pytest.fixture
def threads(monkeypatch):
    """Set the number of threads."""

    def clear():
        parallel.num_threads.cache_clear()
        parallel._pool.cache_clear()

    def use(count):
        monkeypatch.setenv("MLP_NUM_THREADS", str(count))
        clear()

    clear()
    yield use
    clear()
