"""The experiments: the seven rows of the report's Table 1, each a frozen dataclass, each a `replace` of another."""

import math
from dataclasses import asdict, dataclass, fields, replace
from inspect import formatannotation
from typing import Any, NamedTuple

import numpy as np

from mlp.models import MultipleLayerModel, vgg
from mlp.reading import shown
from mlp.records import RecordError, RunFolder
from mlp.rng import stream

MAX_NUMBERS = {"num_blocks": 1_000, "num_filters": 10_000}
"""What a network can be built of without a memory of its own."""


class ExperimentError(ValueError):
    """An experiment asks for what does not go together."""


@dataclass(frozen=True)
class Experiment:
    """All that decides the result of a run, and nothing else. The defaults are the report's."""

    name: str
    num_blocks: int
    batch_norm: bool = False
    residual: bool = False
    num_filters: int = 32
    learning_rate: float = 1e-3
    min_learning_rate: float = 2e-5
    epochs: int = 100
    batch_size: int = 100
    seed: int = 0
    dataset: str = "cifar100"
    train_limit: int | None = None
    stratified: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self._check_values()
        if self.learning_rate < self.min_learning_rate:
            raise ExperimentError(
                f"the learning rate {self.learning_rate:g} is below {self.min_learning_rate:g}, to which it is annealed"
            )
        if self.stratified and self.dataset not in ("cifar100", "cifar10"):
            raise ExperimentError(f"the data set {self.dataset!r} has a fixed split, which cannot be stratified")

    def _check_values(self) -> None:
        """Raise ExperimentError unless every field is of its kind and within reason."""
        kinds = {"str": (str,), "bool": (bool,), "int": (int,), "int | None": (int, type(None)), "float": (int, float)}
        for field in fields(self):
            value, kind = getattr(self, field.name), formatannotation(field.type)
            if type(value) not in kinds[kind]:
                raise ExperimentError(f"{field.name} is {shown(repr(value), 60)}, expected {kind}")
            least, most = 0 if field.name in ("num_blocks", "seed") else 1, MAX_NUMBERS.get(field.name, 2**63 - 1)
            if type(value) is int and kind.startswith("int") and not least <= value <= most:
                raise ExperimentError(f"{field.name} is {shown(value, 60)}, expected {least}..{most:,}")
            if kind == "float" and not 0 <= value < math.inf:
                raise ExperimentError(f"{field.name} is {shown(value, 60)}, expected a finite number from 0 on")
        if self.dtype not in ("float32", "float64"):
            raise ExperimentError(f"dtype is {shown(repr(self.dtype), 60)}, expected 'float32' or 'float64'")

    def build_model(self, num_classes: int) -> MultipleLayerModel:
        """Return the network, its initial weights drawn from the stream "init" of the seed."""
        return vgg(
            self.num_blocks,
            self.batch_norm,
            self.residual,
            self.num_filters,
            num_classes,
            dtype=np.dtype(self.dtype),
            rng=stream(self.seed, "init"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def of_run(cls, folder: RunFolder) -> "Experiment":
        """Return the experiment that a run's config.json holds; raise RecordError where it holds none."""
        return cls.of_file(folder, "config.json")

    @classmethod
    def of_file(cls, folder: RunFolder, name: str) -> "Experiment":
        """Return the experiment that a JSON file of a folder holds; raise RecordError where it holds none."""
        content = folder.read_field(name, "experiment")
        if not isinstance(content, dict) or content.keys() != {f.name for f in fields(cls)}:
            names = ", ".join(f.name for f in fields(cls))
            raise RecordError(f"{folder.path / name} describes {shown(content)}, expected an experiment: {names}")
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{folder.path / name} describes no experiment: {error}") from error

    def differences(self, other: "Experiment") -> list[str]:
        """Return a line for every field in which `other` differs."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [f"{name}: {mine!r} here, {theirs!r} asked for" for name, mine, theirs in pairs if mine != theirs]


class ReportRow(NamedTuple):
    """What the report's Table 1 says of an experiment after 100 epochs; accuracies in percent."""

    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float


_VGG08 = Experiment("vgg08", num_blocks=0)
_VGG38 = Experiment("vgg38", num_blocks=5)
_VGG38_BN = replace(_VGG38, name="vgg38_bn", batch_norm=True)
_VGG38_RC = replace(_VGG38, name="vgg38_rc", residual=True)
_VGG38_BN_RC = replace(_VGG38_BN, name="vgg38_bn_rc", residual=True)

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        _VGG08,
        _VGG38,
        _VGG38_BN,
        _VGG38_RC,
        _VGG38_BN_RC,
        replace(_VGG38_BN, name="vgg38_bn_lr1e-2", learning_rate=1e-2),
        replace(_VGG38_BN_RC, name="vgg38_bn_rc_lr1e-2", learning_rate=1e-2),
    )
}

REPORT = {
    "vgg08": ReportRow(1.74, 51.59, 1.95, 46.84),
    "vgg38": ReportRow(4.61, 1.0, 4.61, 1.0),  # the report prints 00.01, the share, for 1 %
    "vgg38_bn": ReportRow(1.68, 52.67, 1.93, 46.84),
    "vgg38_rc": ReportRow(1.33, 61.52, 1.84, 52.32),
    "vgg38_bn_rc": ReportRow(1.26, 62.99, 1.73, 53.76),
    "vgg38_bn_lr1e-2": ReportRow(1.70, 52.28, 1.99, 46.72),
    "vgg38_bn_rc_lr1e-2": ReportRow(1.00, 70.15, 1.60, 59.20),
}
