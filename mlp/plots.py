"""Figures drawn from a run's records: the report's training curves and its gradient flow."""

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlp.files import make_folder, write_atomic
from mlp.records import EpochMetrics, LayerGradient, RunFolder

TRAIN, VALID = "#1f6fb4", "#d1495b"
EPOCH_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0.85, 0.0, 256)), "epochs")  # without the pale end


def plot_run(run: RunFolder) -> list[Path]:
    """Draw a run's figures into its folder, each as PNG and PDF; return the files."""
    title = run.path.name
    files = save(training_curves(run.metrics(), title), run.figures / "training_curves")
    return files + save(gradient_flow(run.gradient_flow(), title), run.figures / "gradient_flow")


def training_curves(metrics: Sequence[EpochMetrics], title: str) -> Figure:
    """Return error and accuracy against epochs, training and validation: the report's figures 1 and 4."""
    figure = _figure(9.0, 3.6)
    figure.suptitle(title)
    epochs = [row.epoch for row in metrics]
    marker = "o" if len(metrics) <= 20 else ""
    panels = (
        ("cross-entropy error", [row.train_loss for row in metrics], [row.val_loss for row in metrics]),
        ("accuracy (%)", [row.train_acc for row in metrics], [row.val_acc for row in metrics]),
    )
    for axes, (label, train, valid) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(epochs, train, color=TRAIN, marker=marker, markersize=3.5, label="training")
        axes.plot(epochs, valid, color=VALID, marker=marker, markersize=3.5, label="validation")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def gradient_flow(rows: Sequence[LayerGradient], title: str) -> Figure:
    """Return mean absolute gradients against layers, a line an epoch: the report's figures 2, 3 and 5.

    Above on a linear scale, as in the report; below the same on a logarithmic one, where a vanishing gradient shows
    how far it vanishes.
    """
    layers = list(dict.fromkeys(row.layer for row in rows))
    epochs = sorted({row.epoch for row in rows})
    values = {(row.epoch, row.layer): row.mean_abs_gradient for row in rows}
    figure = _figure(max(7.0, 1.5 + 0.19 * len(layers)), 7.2)
    figure.suptitle(title)
    linear, logarithmic = figure.subplots(2, 1, sharex=True)
    norm = Normalize(epochs[0] if len(epochs) > 1 else 0, max(epochs, default=1))
    scale = ScalarMappable(norm, EPOCH_COLOURS)
    for epoch in epochs:
        line = [values.get((epoch, layer), float("nan")) for layer in layers]
        for axes in (linear, logarithmic):
            axes.plot(range(len(layers)), line, color=scale.cmap(float(norm(epoch))), linewidth=1.2, alpha=0.8)
    if any(row.mean_abs_gradient > 0 for row in rows):
        logarithmic.set_yscale("log")
    logarithmic.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    for axes, scale_name in ((linear, "linear"), (logarithmic, "logarithmic")):
        axes.set_ylabel(f"mean |dE/dw| ({scale_name})")
        axes.grid(alpha=0.3)
    if len(epochs) > 1:
        _colour_bar(figure, scale, [linear, logarithmic])
    else:
        linear.set_title(f"epoch {epochs[0]}" if epochs else "no epoch yet", fontsize=9)
    return figure


_LINES = (("(train)", TRAIN, "training"), ("(valid)", VALID, "validation"), ("", TRAIN, None))
"""How the names of statistics end, and the line of each."""


def monitor_curves(epochs: Sequence[int], rows: Sequence[Sequence[float]], keys: Mapping[str, int]) -> Figure:
    """Return a panel for every monitor of an `Optimiser`: its statistics against epochs, training and validation."""
    names = list(dict.fromkeys(key.removesuffix("(train)").removesuffix("(valid)") for key in keys))
    figure = _figure(4.5 * len(names), 3.6)
    marker = "o" if len(epochs) <= 20 else ""
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for suffix, colour, label in _LINES:
            if name + suffix in keys:
                values = [row[keys[name + suffix]] for row in rows]
                axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if name not in keys:
            axes.legend()
    return figure


class LiveFigure:
    """A figure in a notebook that every `show` draws anew, in its place. Needs IPython, which every notebook has."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Figure) -> None:
        """Show a figure in place of the last one."""
        ipython: Any = import_module("IPython.display")
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=100)
        image = ipython.Image(content.getvalue(), format="png", alt="training curves")
        if self._handle is None:
            self._handle = ipython.display(image, display_id=True)
        else:
            self._handle.update(image)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF, each whole or not at all, the same figure as the same bytes; return the files."""
    make_folder(stem.parent, exist_ok=True)
    files = []
    for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=150, metadata=metadata)
        files.append(stem.with_suffix(suffix))
        write_atomic(files[-1], content.getvalue())
    return files


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colour_bar(figure: Figure, scale: ScalarMappable, panels: list[Axes]) -> None:
    bar = figure.colorbar(scale, ax=panels, label="epoch", aspect=40, pad=0.01)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
