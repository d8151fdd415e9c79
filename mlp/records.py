"""A run is a folder. This module says what is in it, and reads and writes it; plots and tables need nothing else.

config.json         the experiment (enough to run it again), and which data it saw
environment.json    versions, machine, device
metrics.csv         one row an epoch, accuracies in percent
gradient_flow.csv   one row an epoch and layer: mean |dE/dw| of the epoch's last batch
test.json           the test set, with the best epoch's weights; written when the run is complete
checkpoints/        last.safetensors, previous.safetensors (the one before it), best.safetensors
figures/            drawn from the above
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mlp.files import make_folder, write_atomic
from mlp.reading import MAX_JSON, open_file, parse_json, read_file, shown

MAX_TABLE = 2**24
"""Bytes of a CSV file; 100 epochs of VGG38 have some 200,000."""
MAX_ROWS = 200_000
MAX_EPOCH = 10**9


class RecordError(RuntimeError):
    """A run folder does not hold what it should; the message names the file."""


class EpochMetrics(NamedTuple):
    """One row of metrics.csv. Epochs count from 1; losses are means over examples, accuracies percent."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    seconds: float


class LayerGradient(NamedTuple):
    """One row of gradient_flow.csv: the mean absolute gradient of a layer's weights at the end of an epoch."""

    epoch: int
    layer: str
    mean_abs_gradient: float


Row = TypeVar("Row", EpochMetrics, LayerGradient)


class RunFolder:
    """The files of one run, at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures = path / "figures"
        self.last_checkpoint = path / "checkpoints" / "last.safetensors"
        self.previous_checkpoint = path / "checkpoints" / "previous.safetensors"
        self.best_checkpoint = path / "checkpoints" / "best.safetensors"

    @classmethod
    def create(cls, runs_dir: Path, name: str) -> "RunFolder":
        """Make a new folder NAME-YYYYMMDD-HHMMSS, with a number behind it where that is taken."""
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
            path = runs_dir / f"{stem}{suffix}"
            try:
                make_folder(path)
                make_folder(path / "checkpoints")
                return cls(path)
            except FileExistsError:
                continue
            except OSError as error:
                raise RecordError(f"{path} cannot be made: {error}") from error
        raise RecordError(f"{runs_dir / stem} and 998 more of this name exist: name another --runs-dir")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run at `path`; raise RecordError where there is none."""
        if not (path / "config.json").is_file():
            raise RecordError(f"{path} is no run folder: it has no config.json")
        return cls(path)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write one of the JSON files."""
        write_atomic(self.path / name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of one of the JSON files."""
        try:
            content = parse_json(read_file(self.path / name, MAX_JSON).decode())
        except (OSError, ValueError) as error:
            raise RecordError(f"{self.path / name} cannot be read: {shown(error)}") from error
        if not isinstance(content, dict):
            raise RecordError(f"{self.path / name} holds no JSON object")
        return content

    def read_field(self, name: str, key: str) -> Any:
        """Return one field of one of the JSON files; raise RecordError where it is not there."""
        content = self.read_json(name)
        if key not in content:
            raise RecordError(f"{self.path / name} lacks {key!r}")
        return content[key]

    def read_number(self, name: str, key: str) -> float:
        """Return one field of one of the JSON files, a number; raise RecordError where it is none."""
        value = self.read_field(name, key)
        if type(value) not in (int, float) or abs(value) > 1e15:
            raise RecordError(f"{self.path / name}: {key!r} is {shown(value, 60)}, expected a number")
        return float(value) if isinstance(value, float) else int(value)

    def read_text(self, name: str, key: str) -> str | None:
        """Return one field of one of the JSON files, a text or None; raise RecordError where it is neither."""
        value = self.read_json(name).get(key)
        if not isinstance(value, str | None):
            raise RecordError(f"{self.path / name}: {key!r} is {shown(value, 60)}, expected a text")
        return value

    def is_complete(self) -> bool:
        """Return whether the run came to its end."""
        return (self.path / "test.json").is_file()

    def metrics(self) -> list[EpochMetrics]:
        """Return the rows of metrics.csv."""
        return self._read("metrics.csv", EpochMetrics)

    def gradient_flow(self) -> list[LayerGradient]:
        """Return the rows of gradient_flow.csv."""
        return self._read("gradient_flow.csv", LayerGradient)

    def add_epoch(self, metrics: EpochMetrics, gradients: Sequence[LayerGradient]) -> None:
        """Add an epoch's rows, in place of any that are there of this epoch or a later one."""
        self._write("metrics.csv", EpochMetrics, [*_up_to(metrics.epoch - 1, self.metrics()), metrics])
        flow = _up_to(metrics.epoch - 1, self.gradient_flow())
        self._write("gradient_flow.csv", LayerGradient, [*flow, *gradients])

    def cut_back(self, epoch: int) -> bool:
        """Remove the rows of epochs after this one, which are to be run again; return whether there were any."""
        metrics, flow = self.metrics(), self.gradient_flow()
        if max([row.epoch for row in metrics] + [row.epoch for row in flow], default=0) <= epoch:
            return False
        self._write("metrics.csv", EpochMetrics, _up_to(epoch, metrics))
        self._write("gradient_flow.csv", LayerGradient, _up_to(epoch, flow))
        return True

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each table's rows, but for the seconds, which are no part of a run's result."""
        metrics = [row._replace(seconds=0.0) for row in self.metrics()]
        tables: dict[str, Sequence[Any]] = {"metrics.csv": metrics, "gradient_flow.csv": self.gradient_flow()}
        return {name: hashlib.sha256(json.dumps(rows).encode()).hexdigest() for name, rows in tables.items()}

    def _write(self, name: str, kind: type[Row], rows: Iterable[Row]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(kind._fields)
        writer.writerows(rows)
        write_atomic(self.path / name, text.getvalue())

    def _read(self, name: str, kind: type[Row]) -> list[Row]:
        path = self.path / name
        if not path.exists():
            return []
        try:
            with io.TextIOWrapper(open_file(path, MAX_TABLE), "utf-8", newline="") as lines:
                return list(_rows(lines, kind))
        except (OSError, ValueError, csv.Error) as error:
            raise RecordError(f"{path} cannot be read: {shown(error)}") from error


def _rows(lines: Iterable[str], kind: type[Row]) -> Iterator[Row]:
    """Yield the rows of a table; raise ValueError where it is none."""
    types = kind.__annotations__.values()
    table = csv.reader(lines)
    if tuple(next(table, ())) != kind._fields:
        raise ValueError(f"its first line is not {','.join(kind._fields)}")
    for count, row in enumerate(table):
        if count >= MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS:,} rows")
        try:
            found = kind(*(parse(text) for parse, text in zip(types, row, strict=True)))
        except ValueError as error:
            raise ValueError(f"row {count + 1}: {error}") from error
        if not 0 < found.epoch <= MAX_EPOCH:
            raise ValueError(f"a row is of epoch {found.epoch}, expected 1..{MAX_EPOCH:,}")
        yield found


def _up_to(epoch: int, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.epoch <= epoch]


def best_epoch(metrics: Sequence[EpochMetrics]) -> EpochMetrics:
    """Return the epoch with the highest validation accuracy, the first of equals."""
    return max(metrics, key=lambda row: row.val_acc)
