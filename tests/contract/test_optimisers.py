"""The Optimiser, and whole trainings that print the same digits as a naive loop."""

import logging
import math
import re
from collections import OrderedDict

import numpy as np
import pytest

from mlp import layers, learning_rules, models, optimisers, schedulers
from mlp.data_providers import DataProvider, MNISTDataProvider
from mlp.errors import CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.initialisers import ConstantInit, GlorotUniformInit
from mlp.penalties import L2Penalty

from .common import REQUIRED, check_signature, same_state
from .naive import NaiveData, NaiveNet, NaiveRule, train
from .test_learning_rules import SIGNATURES

SEED = 31102016
HIDDEN = 12
RATES = {
    "GradientDescentLearningRule": 0.1,
    "MomentumLearningRule": 0.05,
    "NesterovMomentumLearningRule": 0.05,
    "AdamLearningRule": 0.002,
    "AdamLearningRuleWithWeightDecay": 0.002,
    "AdaGradLearningRule": 0.02,
    "RMSPropLearningRule": 0.002,
}
KEYS = ["error(train)", "acc(train)", "error(valid)", "acc(valid)"]
LINE = re.compile(r"Epoch (\d+): \d+\.\d{1}s to complete\n    (.*)")


def accuracy(outputs, targets):
    return (outputs.argmax(-1) == targets.argmax(-1)).mean()


def write_digits(folder, which_set, count, seed):
    """Write blurred digits of sorts as the coursework's files hold them; return pixels and labels."""
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 10
    centres = np.random.RandomState(0).uniform(0, 256, (10, 784))
    pixels = np.floor(np.clip(centres[labels] + rng.normal(0, 60, (count, 784)), 0, 255)) / 256
    inputs = pixels.astype(np.float16)
    np.savez(folder / f"mnist-{which_set}.npz", inputs=inputs, targets=labels.astype(np.int8))
    return inputs, labels


class Course:
    """A notebook's set-up, twice: the library's and the naive one, each with a random stream of its own."""

    def __init__(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path))
        files = [write_digits(tmp_path, "train", 64, 1), write_digits(tmp_path, "valid", 33, 2)]
        self.rng, self.naive_rng = np.random.RandomState(SEED), np.random.RandomState(SEED)
        self.sets = [MNISTDataProvider(name, batch_size=10, rng=self.rng) for name in ("train", "valid")]
        self.naive_sets = [NaiveData(*arrays, 10, self.naive_rng) for arrays in files]
        for rng, sets in ((self.rng, self.sets), (self.naive_rng, self.naive_sets)):
            rng.seed(SEED)
            for data in sets:
                data.reset()
        for data, naive in zip(self.sets, self.naive_sets, strict=True):
            data.batch_size = naive.batch_size = 8

    def build(self, name, activation="relu", l2=0.0, keep=None, **options):
        """Return (the library's Optimiser, the naive net, the naive rule)."""
        init = GlorotUniformInit(rng=self.rng)
        zero, penalty = ConstantInit(0.0), L2Penalty(l2) if l2 else None
        between = [layers.ReluLayer() if activation == "relu" else layers.SigmoidLayer()]
        if keep is not None:
            between.insert(0, layers.DropoutLayer(np.random.RandomState(77), keep))
        model = models.MultipleLayerModel(
            [
                layers.AffineLayer(784, HIDDEN, init, zero, penalty),
                *between,
                layers.AffineLayer(HIDDEN, 10, init, zero, penalty),
            ]
        )
        dropout = None if keep is None else (np.random.RandomState(77), keep)
        net = NaiveNet([784, HIDDEN, 10], self.naive_rng, activation, l2, dropout)
        settings = SIGNATURES[name] | {"learning_rate": RATES[name]}
        rule = getattr(learning_rules, name)(**settings)
        optimiser = optimisers.Optimiser(
            model, CrossEntropySoftmaxError(), rule, *self.sets, {"acc": accuracy}, **options
        )
        return optimiser, net, NaiveRule(name, settings, net.params)

    def check(self, optimiser, net, caplog, stats, expected, epochs, names=KEYS):
        """Compare statistics, logged lines, parameters and the state of the random stream."""
        np.testing.assert_allclose(stats, expected, rtol=1e-12)
        lines = [record for record in caplog.records if record.name == "mlp.optimisers"]
        assert len(lines) == len(epochs) == len(expected) - 1
        for record, epoch, row in zip(lines, epochs, expected[1:], strict=True):
            assert record.levelno == logging.INFO
            found = LINE.fullmatch(record.getMessage())
            assert int(found[1]) == epoch
            assert found[2] == ", ".join(f"{name}={value:.2e}" for name, value in zip(names, row, strict=True))
        for ours, theirs in zip(optimiser.model.params, net.params, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
        assert same_state(self.rng, self.naive_rng)


@pytest.fixture
def course(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    return Course(tmp_path, monkeypatch)


# --- whole trainings


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(("num_epochs", "stats_interval"), [(4, 1), (5, 2)])
def test_a_training_prints_the_digits_of_the_naive_loop(course, caplog, name, num_epochs, stats_interval):
    optimiser, net, rule = course.build(name)
    stats, keys, _ = optimiser.train(num_epochs=num_epochs, stats_interval=stats_interval)
    expected = train(net, rule, course.naive_sets, num_epochs, stats_interval)
    assert keys == {key: column for column, key in enumerate(KEYS)}
    assert expected[-1, 0] < expected[0, 0]
    course.check(optimiser, net, caplog, stats, expected, range(stats_interval, num_epochs + 1, stats_interval))


@pytest.mark.parametrize("name", ["GradientDescentLearningRule", "AdamLearningRule"])
def test_a_training_with_dropout_and_penalties(course, caplog, name):
    optimiser, net, rule = course.build(name, "sigmoid", 0.01, 0.8)
    stats, _, _ = optimiser.train(3, stats_interval=-1)
    expected = train(net, rule, course.naive_sets, 3, 1)
    course.check(optimiser, net, caplog, stats, expected, [1, 2, 3])
    assert same_state(optimiser.model.layers[1].rng, net.dropout[0])


@pytest.mark.parametrize("schedule", ["exponential", "none"])
def test_a_training_with_schedulers_reports_the_penalty_last(course, caplog, schedule):
    given = [schedulers.ExponentialLearningRateScheduler(0.1, 2.0)] if schedule == "exponential" else []
    optimiser, net, rule = course.build("GradientDescentLearningRule", l2=0.01, schedulers=given)
    stats, keys, _ = optimiser.train(3, stats_interval=1)
    rates = [0.1 * math.exp(-epoch / 2) if given else 0.1 for epoch in range(3)]
    expected = train(net, rule, course.naive_sets, 3, 1, rates, with_penalty=True)
    assert list(keys) == [*KEYS, "params_penalty"]
    assert list(keys.values()) == [0, 1, 2, 3, 4]
    course.check(optimiser, net, caplog, stats, expected, [1, 2, 3], [*KEYS, "params_penalty"])


# --- details


def lines_of_numbers(count=20, batch_size=5, seed=0):
    rng = np.random.RandomState(seed)
    inputs = rng.normal(size=(count, 3))
    targets = inputs @ np.array([[1.0], [-2.0], [0.5]]) + 0.1
    return DataProvider(inputs, targets, batch_size, rng=rng)


def regression(*extra, model=None, **options):
    model = model or models.SingleLayerModel(layers.AffineLayer(3, 1))
    rule = learning_rules.GradientDescentLearningRule(0.1)
    return optimisers.Optimiser(model, SumOfSquaredDiffsError(), rule, lines_of_numbers(), *extra, **options)


def test_signatures():
    check_signature(
        optimisers.Optimiser,
        model=REQUIRED,
        error=REQUIRED,
        learning_rule=REQUIRED,
        train_dataset=REQUIRED,
        valid_dataset=None,
        data_monitors=None,
        notebook=False,
    )
    check_signature(optimisers.Optimiser.train, num_epochs=REQUIRED, stats_interval=5)
    check_signature(optimisers.Optimiser.eval_monitors, dataset=REQUIRED, label=REQUIRED)
    check_signature(optimisers.Optimiser.log_stats, epoch=REQUIRED, epoch_time=REQUIRED, stats=REQUIRED)
    check_signature(optimisers.Optimiser.do_training_epoch)
    check_signature(optimisers.Optimiser.get_epoch_stats)


def test_attributes_and_the_rule_shares_the_models_arrays():
    valid = lines_of_numbers(10, seed=1)
    model, error = models.SingleLayerModel(layers.AffineLayer(3, 1)), SumOfSquaredDiffsError()
    rule, data = learning_rules.MomentumLearningRule(0.1), lines_of_numbers()
    built = optimisers.Optimiser(model, error, rule, data, valid, {"twice": lambda y, t: 2.0}, False)
    assert built.model is model
    assert built.error is error
    assert built.learning_rule is rule
    assert built.train_dataset is data
    assert built.valid_dataset is valid
    assert list(built.data_monitors) == ["error", "twice"]
    assert all(a is b for a, b in zip(rule.params, model.params, strict=True))


def test_monitors_are_means_over_batches_in_evaluation_mode():
    dropout = layers.DropoutLayer(np.random.RandomState(0), 0.4)
    affine = layers.AffineLayer(3, 1)
    data = lines_of_numbers()
    monitors = {"size": lambda y, t: np.abs(y).max(), "first": lambda y, t: float(t[0, 0])}
    built = regression(None, monitors, model=models.MultipleLayerModel([dropout, affine]))
    data.shuffle_order = False
    found = built.eval_monitors(data, "(somewhere)")
    assert isinstance(found, OrderedDict)
    assert list(found) == ["error(somewhere)", "size(somewhere)", "first(somewhere)"]
    errors, sizes, firsts = [], [], []
    for i in range(0, 20, 5):
        y, t = (0.4 * data.inputs[i : i + 5]) @ affine.weights.T + affine.biases, data.targets[i : i + 5]
        errors.append(0.5 * ((y - t) ** 2).sum() / 5)
        sizes.append(np.abs(y).max())
        firsts.append(t[0, 0])
    np.testing.assert_allclose(list(found.values()), [np.mean(errors), np.mean(sizes), np.mean(firsts)], rtol=1e-12)
    assert same_state(dropout.rng, np.random.RandomState(0))


def test_the_statistics_of_an_epoch():
    assert list(regression().get_epoch_stats()) == ["error(train)"]
    both = regression(lines_of_numbers(10, seed=1), {"one": lambda y, t: 1.0}).get_epoch_stats()
    assert list(both) == ["error(train)", "one(train)", "error(valid)", "one(valid)"]
    assert both["one(valid)"] == 1.0


def test_evaluation_passes_over_the_training_data_draw_an_order_too():
    built = regression(lines_of_numbers(10, seed=1))
    train_rng, valid_rng = np.random.RandomState(0), np.random.RandomState(1)
    train_rng.normal(size=(20, 3))
    valid_rng.normal(size=(10, 3))
    built.train(4, stats_interval=2)
    for _ in range(1 + 1 + 4 + 2):  # made, evaluated first, trained, evaluated
        train_rng.permutation(20)
    for _ in range(1 + 1 + 2):
        valid_rng.permutation(10)
    assert same_state(built.train_dataset.rng, train_rng)
    assert same_state(built.valid_dataset.rng, valid_rng)


def test_a_training_epoch_is_one_pass_of_updates():
    built, data = regression(), lines_of_numbers()
    weights, biases = (param.copy() for param in built.model.params)
    for inputs, targets in data:
        g = (inputs @ weights.T + biases - targets) / 5
        weights, biases = weights - 0.1 * g.T @ inputs, biases - 0.1 * g.sum(axis=0)
    built.do_training_epoch()
    np.testing.assert_allclose(built.model.params[0], weights, rtol=1e-12)
    np.testing.assert_allclose(built.model.params[1], biases, rtol=1e-11)
    assert same_state(built.train_dataset.rng, data.rng)


@pytest.mark.parametrize(
    ("num_epochs", "interval", "rows"), [(10, 5, 3), (9, 5, 2), (3, -1, 4), (3, 1, 4), (4, 5, 1), (0, 1, 1)]
)
def test_the_rows_of_the_statistics(num_epochs, interval, rows):
    stats, keys, run_time = regression(lines_of_numbers(10, seed=1)).train(num_epochs, interval)
    assert isinstance(stats, np.ndarray)
    assert stats.shape == (rows, 2)
    assert keys == {"error(train)": 0, "error(valid)": 1}
    assert isinstance(run_time, float)
    assert run_time >= 0
    first, later = stats[0, 0], stats[1:, 0]
    assert (later < first).all()


def test_the_interval_is_5_by_default():
    assert regression().train(10)[0].shape == (3, 1)


def test_the_line_of_an_epoch(caplog):
    caplog.set_level(logging.INFO)
    stats = OrderedDict([("error(train)", 0.012345), ("acc(train)", 1.0), ("error(valid)", 1234.5)])
    regression().log_stats(17, 2.3456, stats)
    (record,) = caplog.records
    assert record.name == "mlp.optimisers"
    assert record.levelno == logging.INFO
    text = "Epoch 17: 2.3s to complete\n    error(train)=1.23e-02, acc(train)=1.00e+00, error(valid)=1.23e+03"
    assert record.getMessage() == text


def test_a_handler_of_the_root_logger_prints_the_lines(capsys):
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    root.addHandler(handler)
    try:
        regression().train(2, 1)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert (
        len(re.findall(r"Epoch \d: \d\.\ds to complete\n    error\(train\)=\d\.\d\de[+-]\d\d", capsys.readouterr().err))
        == 2
    )


@pytest.mark.parametrize("notebook", [True, False])
def test_progress_bars(capsys, notebook):
    stats, _, _ = regression(notebook=notebook).train(2, 1)
    assert stats.shape == (3, 1)
    if notebook:
        printed = capsys.readouterr()
        assert "Exp Prog" in printed.out + printed.err
        assert "Ep Prog" in printed.out + printed.err


def test_schedulers_are_called_at_the_start_of_an_epoch_counted_from_0():
    class Scheduler:
        def __init__(self):
            self.calls = []

        def update_learning_rule(self, learning_rule, epoch_number):
            self.calls.append((learning_rule, epoch_number, learning_rule.params[0].copy()))

    schedule = [Scheduler(), Scheduler()]
    built = regression(schedulers=schedule)
    initial = built.model.params[0].copy()
    built.train(3, 5)
    for scheduler in schedule:
        assert [call[:2] for call in scheduler.calls] == [(built.learning_rule, epoch) for epoch in range(3)]
        np.testing.assert_array_equal(scheduler.calls[0][2], initial)
        assert (scheduler.calls[1][2] != initial).all()


@pytest.mark.parametrize("options", [{}, {"notebook": False}, {"use_stochastic_eval": False}])
def test_without_schedulers_no_penalty_is_reported(options):
    affine = layers.AffineLayer(3, 1, weights_penalty=L2Penalty(0.1))
    _, keys, _ = regression(model=models.SingleLayerModel(affine), **options).train(1, 1)
    assert list(keys) == ["error(train)"]


def test_with_an_empty_list_of_schedulers_the_penalty_is_reported():
    _, keys, _ = regression(schedulers=[]).train(1, 1)
    assert list(keys) == ["error(train)", "params_penalty"]


def test_stochastic_evaluation():
    dropout = layers.DropoutLayer(np.random.RandomState(0), 0.4)
    model = models.MultipleLayerModel([dropout, layers.AffineLayer(3, 1)])
    data, rng = lines_of_numbers(), np.random.RandomState(0)
    data.shuffle_order = False
    found = regression(model=model, use_stochastic_eval=True).eval_monitors(data, "")
    errors = []
    for i in range(0, 20, 5):
        x = data.inputs[i : i + 5] * (rng.uniform(size=(1, 3)) < 0.4)
        y = x @ model.params[0].T + model.params[1]
        errors.append(0.5 * ((y - data.targets[i : i + 5]) ** 2).sum() / 5)
    assert found["error"] == pytest.approx(np.mean(errors), rel=1e-12)
    assert same_state(dropout.rng, rng)


@pytest.mark.parametrize("column", [True, False])
def test_radial_basis_functions_train(column):
    rng = np.random.RandomState(0)
    inputs = rng.uniform(-1, 1, 30)
    targets = np.sin(3 * inputs)[:, None]
    data = DataProvider(inputs[:, None] if column else inputs, targets, 10, rng=rng)
    model = models.MultipleLayerModel(
        [layers.RadialBasisFunctionLayer(6, [[-1.0, 1.0]]), layers.AffineLayer(6, 1, ConstantInit(0.0))]
    )
    rule = learning_rules.GradientDescentLearningRule(0.2)
    stats, _, _ = optimisers.Optimiser(model, SumOfSquaredDiffsError(), rule, data).train(5, -1)
    assert stats.shape == (6, 1)
    assert (np.diff(stats[:, 0]) < 0).all()


def test_every_kind_of_parameter_learns():
    model = models.MultipleLayerModel(
        [
            layers.AffineLayer(3, 6),
            layers.BatchNormalizationLayer(6),
            layers.ParametricReluLayer(),
            layers.RandomReluLayer(),
            layers.AffineLayer(6, 1),
        ]
    )
    before = [param.copy() for param in model.params]
    stats, _, _ = regression(model=model).train(5, 1)
    assert stats[-1, 0] < stats[0, 0]
    assert all((a != b).any() for a, b in zip(before, model.params, strict=True))
