"""The table of runs."""

import re
from dataclasses import replace

import pytest

from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.report import NOTE, TITLES, table
from mlp.records import EpochMetrics, LayerGradient, RecordError, RunFolder

ROWS = [
    EpochMetrics(1, 1e-3, 4.261, 5.5, 4.1, 6.4, 1.0),
    EpochMetrics(2, 1e-3, 3.941, 11.25, 3.9, 12.4, 1.0),
    EpochMetrics(3, 1e-3, 3.68, 15.0, 3.7, 12.0, 1.0),
]


def recorded(path, experiment, rows=ROWS, test=None, parameters=59716):
    path.mkdir()
    run = RunFolder(path)
    run.write_json("config.json", {"experiment": experiment.to_dict()})
    run.write_json("environment.json", {"parameters": parameters})
    for row in rows:
        run.add_epoch(row, [LayerGradient(row.epoch, "logit", 0.1)])
    if test is not None:
        run.write_json("test.json", {"test_acc": test})
    return run


def cells(text):
    """Return the table's rows as lists of cells: columns are two or more spaces apart."""
    lines = text.split("\n")
    assert set(lines[1]) == {"-"}
    assert len({len(line) for line in lines[:-2]}) == 1
    return [re.split(r"\s{2,}", line.strip()) for line in lines[2:-2]]


@pytest.fixture
def shapes():
    return replace(EXPERIMENTS["vgg08"], dataset="shapes", epochs=5)


def test_a_row_holds_the_best_epoch_and_the_test(tmp_path, shapes):
    text = table([recorded(tmp_path / "a", shapes, test=12.345)])
    assert cells(text)[0] == [
        "vgg08",
        "shapes",
        "3/5",
        "0.001",
        "59,716",
        "3.94",
        "11.25",
        "3.90",
        "12.40",
        "12.35",
        "a",
    ]
    assert len(cells(text)) == 1
    assert text.endswith(NOTE)
    for title in TITLES:
        assert title in text.splitlines()[0]


def test_a_run_without_its_test_has_a_dash(tmp_path, shapes):
    assert cells(table([recorded(tmp_path / "a", shapes)]))[0][-3:] == ["12.40", "-", "a"]


def test_a_run_before_its_first_epoch_has_dashes(tmp_path, shapes):
    text = table([recorded(tmp_path / "a", shapes, rows=[])])
    assert cells(text)[0] == ["vgg08", "shapes", "0/5", "0.001", "59,716", *["-"] * 5, "a"]


def test_a_run_killed_in_its_first_moment_has_a_dash_for_parameters(tmp_path, shapes):
    run = recorded(tmp_path / "a", shapes, rows=[])
    (run.path / "environment.json").unlink()
    assert cells(table([run]))[0] == ["vgg08", "shapes", "0/5", "0.001", *["-"] * 6, "a"]


def test_cifar100_is_followed_by_what_the_report_says(tmp_path):
    text = table([recorded(tmp_path / "a", EXPERIMENTS["vgg08"])])
    assert cells(text)[1] == [
        "in the report",
        "cifar100",
        "100",
        "0.001",
        "59,716",
        "1.74",
        "51.59",
        "1.95",
        "46.84",
        "-",
    ]


def test_the_reports_row_holds_the_reports_learning_rate(tmp_path):
    run = recorded(tmp_path / "a", replace(EXPERIMENTS["vgg38_bn"], learning_rate=0.05), parameters=338500)
    text = table([run])
    assert cells(text)[0][3] == "0.05"
    assert cells(text)[1][3] == "0.001"


@pytest.mark.parametrize("dataset", ["cifar10", "digits", "shapes"])
def test_the_report_says_nothing_of_other_data(tmp_path, dataset):
    assert "report" not in table([recorded(tmp_path / "a", replace(EXPERIMENTS["vgg08"], dataset=dataset))])


def test_runs_are_in_the_order_asked_for(tmp_path, shapes):
    runs = [recorded(tmp_path / name, replace(shapes, name=name)) for name in ("vgg38", "vgg08", "vgg38_bn")]
    assert [row[0] for row in cells(table(runs))] == ["vgg38", "vgg08", "vgg38_bn"]


def test_a_damaged_run_is_named(tmp_path, shapes):
    run = recorded(tmp_path / "a", shapes)
    (run.path / "metrics.csv").write_text("rubbish")
    with pytest.raises(RecordError, match=r"metrics\.csv"):
        table([run])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {}),
        ("config.json", {"experiment": {"name": "vgg08"}}),
        ("config.json", {"experiment": "vgg08"}),
        ("environment.json", {}),
        ("test.json", {}),
    ],
    ids=["no experiment", "half an experiment", "no object", "no parameters", "no test accuracy"],
)
def test_records_that_lack_something_are_named(tmp_path, shapes, name, content):
    run = recorded(tmp_path / "a", shapes, test=1.0)
    run.write_json(name, content)
    with pytest.raises(RecordError, match=name):
        table([run])
