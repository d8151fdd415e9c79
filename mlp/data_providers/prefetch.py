"""The next batch, made by a thread while the present one is trained on."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from mlp.backend import Array
from mlp.data_providers.images import ImageDataProvider
from mlp.kernels.parallel import submit


class Prefetcher:
    """Gives the batches of a provider, ``batch(epoch, index)``, and has the one after each made in the background.

    A context manager: its thread ends with the block. Batches are the provider's, whatever the order they are asked
    in; an error in making one is raised where that batch is asked for.
    """

    def __init__(self, provider: ImageDataProvider) -> None:
        self.provider = provider
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlp-prefetch")
        self._next: tuple[int, int] | None = None
        self._batch: Future[tuple[Array, Array]] | None = None

    def batch(self, epoch: int, index: int) -> tuple[Array, Array]:
        """Return batch number `index` of this epoch."""
        waiting, self._batch = self._batch, None
        if waiting is None or self._next != (epoch, index):
            waiting = submit(self._thread, self.provider.batch, epoch, index)
        batch = waiting.result()
        self._next = (epoch, index + 1)
        last = index + 1 >= self.provider.num_batches
        self._batch = None if last else submit(self._thread, self.provider.batch, epoch, index + 1)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
