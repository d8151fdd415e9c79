"""The loop that meets with crashes: it saves checkpoints and records as a run does at the end of an epoch."""

from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.crash_disks import CountingDisk, in_place
from mlp.checkpoints import load_newest_checkpoint, save_checkpoint
from mlp.initialisers import ConstantInit
from mlp.layers import AffineLayer
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import SingleLayerModel
from mlp.records import EpochMetrics, LayerGradient, RunFolder

SIZE = 48
RECORDS = ("metrics.csv", "gradient_flow.csv")
Files = dict[str, bytes]


def loop(folder: RunFolder, epochs: int, saved: Callable[[int], object]) -> None:
    """Go on from where the folder stands, as a run does, and tell `saved` the epoch of every checkpoint."""
    model = SingleLayerModel(AffineLayer(SIZE, SIZE, ConstantInit(0.5)))
    rule = KingmaAdamLearningRule(0.01)
    rule.initialise(model.params)
    last, previous = folder.last_checkpoint, folder.previous_checkpoint
    if last.exists() or previous.exists():
        done = load_newest_checkpoint(last, previous, model, rule, lambda _: None)["epoch"]
        folder.cut_back(done)
    else:
        done = -1
    for epoch in range(done + 1, epochs + 1):
        if epoch:
            grads = [np.random.default_rng(epoch).standard_normal(param.shape) for param in model.params]
            rule.update_params(grads)
            gradient = LayerGradient(epoch, "affine", float(abs(grads[0]).mean()))
            folder.add_epoch(EpochMetrics(epoch, 0.01, 1 / epoch, 50.0, 2 / epoch, 40.0, 1.0), [gradient])
        save_checkpoint(last, model, rule, {"epoch": epoch}, previous)
        saved(epoch)


def new_folder(path: Path) -> RunFolder:
    """Make the folder of a loop."""
    (path / "checkpoints").mkdir(parents=True)
    return RunFolder(path)


def found(folder: RunFolder) -> Files:
    """Return the files that have their names, those that are being written left out."""
    paths = (path for path in folder.path.rglob("*") if path.is_file() and path.suffix != ".part")
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


@cache
def states(epochs: int) -> tuple[Files, ...]:
    """Return the files of a loop without mishap after each epoch."""
    kept: list[Files] = []
    with TemporaryDirectory() as place, in_place(CountingDisk()):
        folder = new_folder(Path(place) / "run")
        loop(folder, epochs, lambda _: kept.append(found(folder)))
    return tuple(kept)


LAST, PREVIOUS = "checkpoints/last.safetensors", "checkpoints/previous.safetensors"


def problems(folder: RunFolder, saved: int) -> dict[str, str]:
    """Return what is wrong with a folder in which the checkpoint of epoch `saved` (-1: none) was saved, by kind."""
    files, whole = found(folder), states(horizon(saved + 3))
    last, previous = (_epoch_of(files.pop(name, None), LAST, whole, -1) for name in (LAST, PREVIOUS))
    records = [_epoch_of(files.pop(name, None), name, whole, 0) for name in RECORDS]
    wrong = {}
    if files or None in (last, previous, *records):
        wrong["unreadable"] = f"last {last}, previous {previous}, records {records}, others {sorted(files)}"
        return wrong
    newest = max(last, previous)
    behind = newest < saved or (last > 0 and previous != last - 1)
    if behind or not newest <= min(records) <= max(records) <= newest + 1:
        wrong["lost"] = f"saved {saved}, found last {last}, previous {previous}, records {records}"
    return wrong


def horizon(epochs: int) -> int:
    """Round up, so that few loops without mishap need to be run."""
    return -(-epochs // 64) * 64


def _epoch_of(content: bytes | None, name: str, whole: Sequence[Files], absent: int) -> int | None:
    """Return the epoch after which a file is this, `absent` where it is not there, None where it is no whole file."""
    if content is None:
        return absent
    contents = [files.get(name) for files in whole]
    return contents.index(content) if content in contents else None


def victim(path: Path, connection: Connection) -> None:
    """Run the loop in a process that is to be killed."""
    connection.send(-1)  # it is at work
    loop(RunFolder(path), 10_000, connection.send)
