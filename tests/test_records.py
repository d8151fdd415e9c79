"""The files of a run folder."""

import re

import pytest

from mlp import records
from mlp.records import EpochMetrics, LayerGradient, RecordError, RunFolder, best_epoch

ODD = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 8.0e-19, 4.605170185988092, 1e22]


def metrics(epoch, val_acc=10.0):
    return EpochMetrics(epoch, 1e-3 / 3, ODD[0] * epoch, ODD[1], ODD[5], val_acc, 12.345)


def flow(epoch):
    return [LayerGradient(epoch, "input_conv_conv_0", ODD[4] * epoch), LayerGradient(epoch, "logit", ODD[1])]


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, "vgg08")


def test_floats_come_back_exactly(run):
    first = EpochMetrics(1, *ODD[:6])
    gradients = [LayerGradient(1, f"layer_{i}", value) for i, value in enumerate(ODD)]
    run.add_epoch(first, gradients)
    assert run.metrics() == [first]
    assert run.gradient_flow() == gradients
    assert [type(value) for value in run.metrics()[0]] == [int, *[float] * 6]


def test_infinity_and_nan_come_back(run):
    run.add_epoch(EpochMetrics(1, 1e30, float("nan"), 1.0, float("inf"), 1.0, 0.5), [])
    row = run.metrics()[0]
    assert row.train_loss != row.train_loss
    assert row.val_loss == float("inf")


def test_csv_files_have_the_promised_headers(run):
    run.add_epoch(metrics(1), flow(1))
    lines = (run.path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,learning_rate,train_loss,train_acc,val_loss,val_acc,seconds"
    assert len(lines) == 2
    lines = (run.path / "gradient_flow.csv").read_text().splitlines()
    assert lines[0] == "epoch,layer,mean_abs_gradient"
    assert lines[1] == "1,input_conv_conv_0,8e-19"


def test_epochs_are_added_behind(run):
    for epoch in (1, 2, 3):
        run.add_epoch(metrics(epoch), flow(epoch))
    assert run.metrics() == [metrics(1), metrics(2), metrics(3)]
    assert run.gradient_flow() == [*flow(1), *flow(2), *flow(3)]


def test_an_epoch_replaces_itself_and_later_ones(run):
    for epoch in (1, 2, 3, 4):
        run.add_epoch(metrics(epoch), flow(epoch))
    again = metrics(2, val_acc=99.0)
    run.add_epoch(again, flow(2)[:1])
    assert run.metrics() == [metrics(1), again]
    assert run.gradient_flow() == [*flow(1), *flow(2)[:1]]


def test_a_new_run_has_no_rows(run):
    assert run.metrics() == []
    assert run.gradient_flow() == []
    assert not run.is_complete()


def test_a_run_is_complete_with_its_test(run):
    run.write_json("test.json", {"test_acc": 1.0})
    assert run.is_complete()


def test_json_comes_back(run):
    content = {"a": ODD, "b": None, "c": {"d": [True, "ü"]}}
    run.write_json("config.json", content)
    assert run.read_json("config.json") == content
    assert (run.path / "config.json").read_text().endswith("}\n")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "[1]", "3", b"\xff\xfe\x00", "nul"])
def test_damaged_json_is_refused_by_name(run, text):
    path = run.path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecordError, match=re.escape(str(path))):
        run.read_json("config.json")


def test_missing_json_is_refused_by_name(run):
    with pytest.raises(RecordError, match=re.escape(str(run.path / "test.json"))):
        run.read_json("test.json")


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_records_are_cut_back_to_an_epoch_and_made_again_the_same(run, epoch):
    for added in (1, 2, 3):
        run.add_epoch(metrics(added), flow(added))
    names = "metrics.csv", "gradient_flow.csv"
    before = [(run.path / name).read_bytes() for name in names]
    assert run.cut_back(epoch)
    assert [row.epoch for row in run.metrics()] == [1, 2, 3][:epoch]
    assert [row.epoch for row in run.gradient_flow()] == [1, 1, 2, 2, 3, 3][: 2 * epoch]
    assert not run.cut_back(epoch)
    for added in range(epoch + 1, 4):
        run.add_epoch(metrics(added), flow(added))
    assert [(run.path / name).read_bytes() for name in names] == before


def test_records_that_reach_no_further_are_left_as_they_are(run):
    assert not run.cut_back(0)
    run.add_epoch(metrics(1), flow(1))
    before = {path: path.stat().st_mtime_ns for path in run.path.iterdir()}
    assert not run.cut_back(1)
    assert {path: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


HEADER = "epoch,learning_rate,train_loss,train_acc,val_loss,val_acc,seconds\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n1,2\n",
        b"1,0.001,4.6,1,4.6,1,2\n",
        HEADER.encode() + b"1,0.001,4.6,1,4.6\n",
        HEADER.encode() + b"1,0.001,4.6,1,4.6,1,2,3\n",
        HEADER.encode() + b"one,0.001,4.6,1,4.6,1,2\n",
        HEADER.encode() + b"1,0.001,4.6,1,4.6,1,\n",
        HEADER.encode() + b"1.5,0.001,4.6,1,4.6,1,2\n",
        HEADER.encode() + b"\n",
        HEADER.encode() + b"\xff\xff\n",
        b"\x00" * 300,
        b"\x00" * 200_000,
        b"x" * 200_000,
    ],
    ids=[
        "empty",
        "other header",
        "no header",
        "row too short",
        "row too long",
        "no number",
        "number lacking",
        "half an epoch",
        "empty row",
        "no text",
        "few zeros",
        "many zeros",
        "one long field",
    ],
)
def test_damaged_metrics_are_refused_by_name(run, content):
    path = run.path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=re.escape(str(path))):
        run.metrics()
    assert path.read_bytes() == content


def test_damaged_gradient_flow_is_refused_by_name(run):
    path = run.path / "gradient_flow.csv"
    path.write_text("epoch,layer,mean_abs_gradient\n1,logit\n")
    with pytest.raises(RecordError, match=re.escape(str(path))):
        run.gradient_flow()


def test_an_epoch_is_not_added_to_damaged_records(run):
    (run.path / "metrics.csv").write_text("rubbish\n")
    with pytest.raises(RecordError):
        run.add_epoch(metrics(1), flow(1))
    assert (run.path / "metrics.csv").read_text() == "rubbish\n"


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(records.time, "strftime", lambda _: "20240102-030405")
    names = [RunFolder.create(tmp_path / "deep" / "runs", "vgg38").path.name for _ in range(4)]
    stem = "vgg38-20240102-030405"
    assert names == [stem, f"{stem}-2", f"{stem}-3", f"{stem}-4"]


def test_a_thousandth_run_of_one_second_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records.time, "strftime", lambda _: "20240102-030405")
    for suffix in ["", *(f"-{i}" for i in range(2, 1000))]:
        (tmp_path / f"vgg38-20240102-030405{suffix}").mkdir()
    with pytest.raises(RecordError, match="vgg38-20240102-030405 and 998 more of this name exist: name another"):
        RunFolder.create(tmp_path, "vgg38")


def test_a_folder_is_named_by_experiment_and_time(run):
    assert re.fullmatch(r"vgg08-\d{8}-\d{6}", run.path.name)
    assert (run.path / "checkpoints").is_dir()
    assert run.last_checkpoint == run.path / "checkpoints" / "last.safetensors"
    assert run.best_checkpoint == run.path / "checkpoints" / "best.safetensors"


def test_open_takes_a_run_only(run, tmp_path):
    run.write_json("config.json", {})
    assert RunFolder.open(run.path).path == run.path
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RecordError, match=re.escape(f"{path} is no run folder")):
            RunFolder.open(path)


def test_best_epoch_is_the_first_of_equals():
    rows = [metrics(1, 10.0), metrics(2, 20.0), metrics(3, 20.0), metrics(4, 5.0)]
    assert best_epoch(rows).epoch == 2
