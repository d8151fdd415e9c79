"""Progress: tqdm's bars where it is installed, silence where not; and whether a notebook is there to draw in."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TextIO


class SilentBar:
    """What is used of tqdm's bar, without a bar."""

    def __init__(self, items: Iterable[Any] = (), **options: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __enter__(self) -> "SilentBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, count: float = 1) -> None:
        """Do nothing."""

    def set_description(self, text: str | None = None, refresh: bool = True) -> None:
        """Do nothing."""

    def set_postfix(self, *values: Any, refresh: bool = True, **named: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def write(self, text: str, file: TextIO | None = None) -> None:
        """Print a line."""
        print(text, file=file)


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return ``tqdm(items, **options)``, or a `SilentBar` where tqdm is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ipywidgets is not there: the bar is then one of text
            from tqdm.auto import tqdm
    except ImportError:
        return SilentBar(() if items is None else items, **options)
    return tqdm(items, **options)


def in_terminal() -> bool:
    """Return whether messages go to a terminal, where a bar can be drawn."""
    isatty = getattr(sys.stderr, "isatty", None)  # what stands for stderr need not have it
    return isatty is not None and bool(isatty())


def in_notebook() -> bool:
    """Return whether this code runs in the kernel of a notebook, which can show figures."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
