"""Progress of a run: a bar in a terminal or a notebook, lines in a log file, nothing when quiet."""

import sys
import time
from types import TracebackType

from mlp.bars import in_notebook, in_terminal, progress_bar
from mlp.optimisers import Scores
from mlp.plots import LiveFigure, training_curves
from mlp.records import RunFolder

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows loss, accuracy, images per second and the time left of a run over `total` images.

    A context. `done` images count as done before the start.
    """

    def __init__(self, total: int, done: int, quiet: bool) -> None:
        notebook = in_notebook()
        interactive = in_terminal() or notebook
        self.total, self.done, self.quiet = total, done, quiet
        self.as_lines = not interactive and not quiet
        self.live = LiveFigure() if notebook and not quiet else None
        self.bar = progress_bar(
            total=total,
            initial=done,
            disable=quiet or not interactive,
            unit="image",
            unit_scale=True,
            smoothing=0.1,
            dynamic_ncols=True,
        )
        self.start, self.last_line, self.first = time.monotonic(), time.monotonic(), done

    def step(self, epoch: int, epochs: int, images: int, scores: Scores) -> None:
        """Count a step's images and show the epoch's scores so far."""
        self.done += images
        self.bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
        self.bar.set_postfix(loss=f"{scores.loss:.3f}", acc=f"{scores.accuracy:.1f}%", refresh=False)
        self.bar.update(images)
        now = time.monotonic()
        if self.as_lines and now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            rate = (self.done - self.first) / (now - self.start)
            print(
                f"epoch {epoch}/{epochs}  {100.0 * self.done / self.total:.1f} %  loss {scores.loss:.3f}  "
                f"acc {scores.accuracy:.1f} %  {rate:.0f} images/s  {_clock((self.total - self.done) / rate)} left",
                file=sys.stderr,
                flush=True,
            )

    def draw(self, run: RunFolder) -> None:
        """Draw the run's training curves, in a notebook, in the place of the last ones."""
        if self.live is not None:
            self.live.show(training_curves(run.metrics(), run.path.name))

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        if not self.quiet:
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
