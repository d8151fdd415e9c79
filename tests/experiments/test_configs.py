"""The seven experiments of the report's Table 1."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from mlp.experiments.configs import EXPERIMENTS, REPORT, Experiment
from mlp.records import RecordError, RunFolder

NAMES = ["vgg08", "vgg38", "vgg38_bn", "vgg38_rc", "vgg38_bn_rc", "vgg38_bn_lr1e-2", "vgg38_bn_rc_lr1e-2"]
PARAMETERS = {0: 59_716, 5: 336_196}


def test_the_names_are_the_seven():
    assert list(EXPERIMENTS) == NAMES
    assert [experiment.name for experiment in EXPERIMENTS.values()] == NAMES


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=NAMES)
def test_an_experiment_is_what_its_name_says(experiment):
    assert experiment.num_blocks == (0 if "08" in experiment.name else 5)
    assert experiment.batch_norm == ("_bn" in experiment.name)
    assert experiment.residual == ("_rc" in experiment.name)
    assert experiment.learning_rate == (1e-2 if "1e-2" in experiment.name else 1e-3)


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=NAMES)
def test_the_rest_is_the_reports(experiment):
    assert experiment.min_learning_rate == 2e-5
    assert (experiment.epochs, experiment.batch_size, experiment.seed) == (100, 100, 0)
    assert (experiment.dataset, experiment.train_limit, experiment.stratified) == ("cifar100", None, False)
    assert (experiment.num_filters, experiment.dtype) == (32, "float32")


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=NAMES)
def test_the_parameters_are_as_many_as_in_the_report(experiment):
    model = experiment.build_model(100)
    expected = 338_500 if experiment.batch_norm else PARAMETERS[experiment.num_blocks]
    assert sum(param.size for param in model.params) == expected
    assert {param.dtype for param in model.params} == {np.dtype("float32")}


def test_an_experiment_is_frozen():
    with pytest.raises(FrozenInstanceError):
        EXPERIMENTS["vgg08"].epochs = 5


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=NAMES)
def test_a_run_brings_its_experiment_back(experiment, tmp_path):
    changed = replace(experiment, learning_rate=0.1 + 0.2, train_limit=7, seed=2**63 - 1)
    for one in (experiment, changed):
        run = RunFolder(tmp_path)
        run.write_json("config.json", {"experiment": one.to_dict()})
        assert Experiment.of_run(run) == one


def test_another_configuration_is_refused(tmp_path):
    run, content = RunFolder(tmp_path), EXPERIMENTS["vgg08"].to_dict()
    run.write_json("config.json", {"experiment": {**content, "depth": 8}})
    with pytest.raises(RecordError, match="depth"):
        Experiment.of_run(run)
    del content["num_blocks"]
    run.write_json("config.json", {"experiment": content})
    with pytest.raises(RecordError, match="num_blocks"):
        Experiment.of_run(run)


def test_differences_say_field_and_both_values():
    base = EXPERIMENTS["vgg08"]
    assert base.differences(base) == []
    assert base.differences(replace(base, epochs=5, train_limit=300)) == [
        "epochs: 100 here, 5 asked for",
        "train_limit: None here, 300 asked for",
    ]


def test_variants_differ_in_one_thing():
    def fields(one, other):
        lines = EXPERIMENTS[one].differences(EXPERIMENTS[other])
        return [line.split(":")[0] for line in lines if not line.startswith("name")]

    assert fields("vgg08", "vgg38") == ["num_blocks"]
    assert fields("vgg38", "vgg38_bn") == ["batch_norm"]
    assert fields("vgg38", "vgg38_rc") == ["residual"]
    assert fields("vgg38_bn", "vgg38_bn_rc") == ["residual"]
    assert fields("vgg38_bn", "vgg38_bn_lr1e-2") == ["learning_rate"]
    assert fields("vgg38_bn_rc", "vgg38_bn_rc_lr1e-2") == ["learning_rate"]


def test_the_weights_are_the_seeds():
    def weights(seed):
        return [param.tobytes() for param in replace(EXPERIMENTS["vgg08"], seed=seed).build_model(100).params]

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


def test_the_report_is_its_table_1():
    assert {name: tuple(row) for name, row in REPORT.items()} == {
        "vgg08": (1.74, 51.59, 1.95, 46.84),
        "vgg38": (4.61, 1.0, 4.61, 1.0),
        "vgg38_bn": (1.68, 52.67, 1.93, 46.84),
        "vgg38_rc": (1.33, 61.52, 1.84, 52.32),
        "vgg38_bn_rc": (1.26, 62.99, 1.73, 53.76),
        "vgg38_bn_lr1e-2": (1.70, 52.28, 1.99, 46.72),
        "vgg38_bn_rc_lr1e-2": (1.00, 70.15, 1.60, 59.20),
    }
    assert list(REPORT["vgg08"]._fields) == ["train_loss", "train_acc", "val_loss", "val_acc"]
