"""Figures: what they show, and that the same records give the same files."""

import io
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlp import plots
from mlp.records import EpochMetrics, LayerGradient, RunFolder

LAYERS = ["input_conv_conv_0", "input_conv_bn_0", "reduction_block_0_conv_0", "a_layer_out_of_the_alphabet", "logit"]
NAMES = {f"{stem}.{kind}" for stem in ("training_curves", "gradient_flow") for kind in ("png", "pdf")}


def metrics(epochs=4):
    return [EpochMetrics(e, 1e-3, 4.0 / e, 10.0 * e, 4.5 / e, 8.0 * e, 1.5) for e in range(1, epochs + 1)]


def flow(epochs=4, layers=LAYERS):
    rng = np.random.default_rng(3)
    return [LayerGradient(e, name, float(rng.uniform(1e-9, 1e-2))) for e in range(1, epochs + 1) for name in layers]


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path / "vgg08-1")


def recorded(path, epochs=3):
    path.mkdir(parents=True)
    run = RunFolder(path)
    for row in metrics(epochs):
        run.add_epoch(row, [g for g in flow(epochs) if g.epoch == row.epoch])
    return run


def test_figures_are_png_and_pdf(run):
    files = plots.plot_run(run)
    assert {file.name for file in files} == NAMES
    assert {file.name for file in run.figures.iterdir()} == NAMES
    for file in files:
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n" if file.suffix == ".png" else b"%PDF-")
        assert len(data) > 5000


def test_the_same_records_give_the_same_bytes(run, tmp_path):
    twin = recorded(tmp_path / "elsewhere" / "vgg08-1")
    for mine, theirs in zip(plots.plot_run(run), plots.plot_run(twin), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    before = {file.name: file.read_bytes() for file in run.figures.iterdir()}
    plots.plot_run(run)
    assert {file.name: file.read_bytes() for file in run.figures.iterdir()} == before


def test_other_records_give_another_picture(run):
    before = {file.name: file.read_bytes() for file in plots.plot_run(run)}
    run.add_epoch(metrics(4)[3], flow(4)[-len(LAYERS) :])
    assert all(file.read_bytes() != before[file.name] for file in plots.plot_run(run))


def test_training_curves_hold_the_records():
    rows = metrics()
    error, accuracy = plots.training_curves(rows, "a run").axes
    for axes, train, valid in ((error, "train_loss", "val_loss"), (accuracy, "train_acc", "val_acc")):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines) == ["training", "validation"]
        for line, column in zip(lines.values(), (train, valid), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3, 4]
            assert list(line.get_ydata()) == [getattr(row, column) for row in rows]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
        assert axes.get_xlabel() == "epoch"
    assert error.get_ylabel() == "cross-entropy error"
    assert accuracy.get_ylabel() == "accuracy (%)"


def test_training_and_validation_differ_in_colour():
    train, valid = plots.training_curves(metrics(), "").axes[0].get_lines()
    assert train.get_color() != valid.get_color()


def test_one_epoch_can_be_seen():
    for axes in plots.training_curves(metrics(1), "").axes:
        assert all(line.get_marker() not in ("", "None", None) for line in axes.get_lines())


def test_figures_are_called_by_their_run():
    assert plots.training_curves(metrics(), "vgg08-x").get_suptitle() == "vgg08-x"
    assert plots.gradient_flow(flow(), "vgg08-x").get_suptitle() == "vgg08-x"


def test_gradient_flow_has_a_line_an_epoch_in_each_panel():
    rows = flow(epochs=4)
    linear, logarithmic = plots.gradient_flow(rows, "").axes[:2]
    for axes in (linear, logarithmic):
        lines = axes.get_lines()
        assert len(lines) == 4
        for epoch, line in enumerate(lines, start=1):
            assert list(line.get_xdata()) == list(range(len(LAYERS)))
            assert list(line.get_ydata()) == [row.mean_abs_gradient for row in rows if row.epoch == epoch]
        assert axes.get_ylabel().startswith("mean |dE/dw| (")
        assert len({line.get_color() for line in lines}) == 4
    assert linear.get_yscale() == "linear"
    assert logarithmic.get_yscale() == "log"


def test_gradient_flow_names_the_layers_in_their_order():
    axes = plots.gradient_flow(flow(), "").axes[1]
    assert [text.get_text() for text in axes.get_xticklabels()] == LAYERS
    assert list(axes.get_xticks()) == list(range(len(LAYERS)))


def test_gradient_flow_says_which_colour_is_which_epoch():
    assert plots.gradient_flow(flow(4), "").axes[2].get_ylabel() == "epoch"
    single = plots.gradient_flow(flow(1), "").axes
    assert len(single) == 2
    assert single[0].get_title() == "epoch 1"


def test_gradient_flow_leaves_a_gap_where_a_value_is_lacking():
    rows = [row for row in flow(2) if (row.epoch, row.layer) != (2, LAYERS[2])]
    values = plots.gradient_flow(rows, "").axes[0].get_lines()[1].get_ydata()
    assert [math.isnan(value) for value in values] == [False, False, True, False, False]


@pytest.mark.parametrize("value", [0.0, float("nan"), 5e-324])
def test_vanished_and_lost_gradients_can_be_drawn(tmp_path, value):
    rows = [LayerGradient(e, name, value if i < 2 else 1e-3) for e in (1, 2) for i, name in enumerate(LAYERS)]
    assert plots.save(plots.gradient_flow(rows, ""), tmp_path / "some")
    rows = [LayerGradient(1, name, value) for name in LAYERS]
    assert plots.save(plots.gradient_flow(rows, ""), tmp_path / "all")


def test_a_diverged_run_can_be_drawn(tmp_path):
    nan = float("nan")
    rows = [
        metrics(1)[0],
        EpochMetrics(2, 1e-3, nan, 1.0, float("inf"), 1.0, 1.0),
        EpochMetrics(3, 1, nan, 1, nan, 1, 1),
    ]
    assert plots.save(plots.training_curves(rows, ""), tmp_path / "curves")


def test_a_run_before_its_first_epoch_can_be_drawn(tmp_path):
    run = RunFolder(tmp_path)
    assert {file.name for file in plots.plot_run(run)} == NAMES


def test_a_hundred_epochs_of_many_layers_can_be_drawn(tmp_path):
    figure = plots.gradient_flow(flow(100, [f"layer_{i}" for i in range(75)]), "")
    assert [len(axes.get_lines()) for axes in figure.axes[:2]] == [100, 100]
    assert plots.save(figure, tmp_path / "figure")


def test_a_figure_appears_whole_or_not_at_all(run, monkeypatch):
    before = {file: file.read_bytes() for file in plots.plot_run(run)}
    real = Figure.savefig

    def half(self, target, **options):
        whole = io.BytesIO()
        real(self, whole, **{"format": getattr(target, "suffix", ".png")[1:], **options})
        data = whole.getvalue()[: len(whole.getvalue()) // 2]
        target.write_bytes(data) if hasattr(target, "write_bytes") else target.write(data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space left"):
        plots.plot_run(run)
    assert {file: file.read_bytes() for file in before} == before


def test_no_figure_stays_open(run):
    import matplotlib.pyplot as plt

    plots.plot_run(run)
    assert plt.get_fignums() == []


KEYS = {"error(train)": 0, "acc(train)": 1, "error(valid)": 2, "acc(valid)": 3, "params_penalty": 4}


def test_monitors_have_a_panel_each_with_both_lines():
    rows = [[2.0, 0.1, 2.1, 0.2, 5.0], [1.0, 0.5, 1.5, 0.4, 6.0], [0.5, 0.9, 1.2, 0.6, 7.0]]
    panels = plots.monitor_curves([0, 5, 10], rows, KEYS).axes
    assert [axes.get_ylabel() for axes in panels] == ["error", "acc", "params_penalty"]
    drawn = [[(line.get_label(), list(line.get_ydata())) for line in axes.lines] for axes in panels]
    assert drawn[0] == [("training", [2.0, 1.0, 0.5]), ("validation", [2.1, 1.5, 1.2])]
    assert drawn[1] == [("training", [0.1, 0.5, 0.9]), ("validation", [0.2, 0.4, 0.6])]
    assert [values for _, values in drawn[2]] == [[5.0, 6.0, 7.0]]
    assert all(list(line.get_xdata()) == [0, 5, 10] for axes in panels for line in axes.lines)
    assert [axes.get_legend() is None for axes in panels] == [False, False, True]
