"""The training step, the evaluation, and the coursework's Optimiser."""

import logging
import re

import numpy as np
import pytest

from mlp.data_providers import DataProvider, OneOfKDataProvider
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.layers import AffineLayer, BatchNormalizationLayer, DropoutLayer, ReluLayer
from mlp.learning_rules import GradientDescentLearningRule, KingmaAdamLearningRule, MomentumLearningRule
from mlp.models import MultipleLayerModel, SingleLayerModel
from mlp.optimisers import Optimiser, Scores, evaluate, train_step
from mlp.schedulers import ConstantLearningRateScheduler, CosineAnnealing

ERROR = CrossEntropySoftmaxError()


class Blobs(OneOfKDataProvider):
    """Three clouds of points in the plane, one a class."""

    num_classes = 3

    def __init__(self, count=60, batch_size=20, seed=0, **options):
        rng = np.random.RandomState(seed)
        labels = np.arange(count) % 3
        centres = np.array([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
        super().__init__(centres[labels] + 0.3 * rng.randn(count, 2), labels, batch_size, rng=rng, **options)


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets.argmax(1)).mean()


def network(seed=0, extra=()):
    from mlp.initialisers import GlorotUniformInit

    init = GlorotUniformInit(rng=np.random.RandomState(seed))
    return MultipleLayerModel([AffineLayer(2, 8, init), ReluLayer(), *extra, AffineLayer(8, 3, init)])


def optimiser(rule=None, valid=True, monitors=True, seed=0, **options):
    return Optimiser(
        network(seed),
        ERROR,
        rule or GradientDescentLearningRule(0.1),
        Blobs(),
        Blobs(30, 15, seed=1) if valid else None,
        {"acc": accuracy} if monitors else None,
        **options,
    )


def params(model):
    return [param.copy() for param in model.params]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- one step


def test_a_step_descends_along_the_gradient():
    model, rule = network(), GradientDescentLearningRule(0.1)
    rule.initialise(model.params)
    inputs, targets = next(Blobs())
    before = params(model)
    activations = model.fprop(inputs)
    grads = model.grads_wrt_params(activations, ERROR.grad(activations[-1], targets))
    step = train_step(Engine(model, ERROR), rule, inputs, targets)
    assert step.loss == pytest.approx(ERROR(activations[-1], targets), rel=1e-14)
    assert isinstance(step.loss, float)
    np.testing.assert_allclose(step.outputs, activations[-1], rtol=1e-13, atol=1e-14)
    for grad, expected in zip(step.grads, grads, strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-14)
    assert same(model.params, [p - 0.1 * g for p, g in zip(before, step.grads, strict=True)])
    assert rule.step_count == 1


def test_a_step_runs_in_training_mode():
    norm = BatchNormalizationLayer(8)
    model, rule = network(extra=[norm]), GradientDescentLearningRule(0.1)
    rule.initialise(model.params)
    inputs, targets = next(Blobs())
    before = norm.running_mean.copy()
    train_step(Engine(model, ERROR), rule, inputs, targets)
    assert not np.array_equal(norm.running_mean, before)


# --- scores and evaluation


def test_scores_are_means_over_examples():
    outputs = np.eye(3)[[0, 1, 2, 2]]
    scores = Scores().with_batch(2.0, outputs, np.array([0, 1, 2, 0])).with_batch(5.0, outputs[:1], np.array([0]))
    assert scores == Scores(13.0, 4, 5)
    assert scores.loss == 13.0 / 5
    assert scores.accuracy == 80.0


def test_no_examples_score_nothing():
    assert (Scores().loss, Scores().accuracy) == (0.0, 0.0)


def test_evaluation_counts_every_example_of_unequal_batches():
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((25, 2)), rng.integers(0, 3, 25)
    model = network()
    outputs = model.fprop(inputs)[-1]
    batches = [(inputs[i : i + 10], labels[i : i + 10]) for i in (0, 10, 20)]
    scores = evaluate(Engine(model, ERROR), batches)
    assert scores.images == 25
    assert scores.loss == pytest.approx(ERROR(outputs, labels), rel=1e-13)
    assert scores.accuracy == pytest.approx(100.0 * (outputs.argmax(1) == labels).mean(), rel=1e-13)


def test_evaluation_changes_nothing_and_uses_running_statistics():
    norm = BatchNormalizationLayer(8)
    model = network(extra=[norm, DropoutLayer(incl_prob=0.5)])
    inputs, targets = next(Blobs())
    labels = targets.argmax(1)
    before = [array.copy() for array in model.named_arrays().values()]
    alone = [evaluate(Engine(model, ERROR), [(inputs[i : i + 1], labels[i : i + 1])]).loss_sum for i in range(20)]
    together = evaluate(Engine(model, ERROR), [(inputs, labels)])
    assert together.loss_sum == pytest.approx(sum(alone), rel=1e-12)
    assert same(model.named_arrays().values(), before)


def test_evaluation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="there was no batch"):
        evaluate(Engine(network(), ERROR), [])


# --- the Optimiser


def test_the_rule_takes_over_the_parameters():
    rule = KingmaAdamLearningRule(0.01)
    built = optimiser(rule)
    assert all(a is b for a, b in zip(rule.params, built.model.params, strict=True))


def test_train_returns_statistics_keys_and_seconds():
    stats, keys, seconds = optimiser().train(10, stats_interval=5)
    assert isinstance(stats, np.ndarray)
    assert stats.shape == (3, 4)
    assert keys == {"error(train)": 0, "acc(train)": 1, "error(valid)": 2, "acc(valid)": 3}
    assert isinstance(seconds, float)
    assert seconds > 0


def test_without_validation_and_monitors_there_is_the_error_alone():
    stats, keys, _ = optimiser(valid=False, monitors=False).train(2, 1)
    assert keys == {"error(train)": 0}
    assert stats.shape == (3, 1)


def test_the_first_row_is_from_before_training():
    built = optimiser()
    error = ERROR(built.model.fprop(built.train_dataset.inputs)[-1], one_hot(built.train_dataset.targets))
    stats, keys, _ = built.train(1, 1)
    assert stats[0, keys["error(train)"]] == pytest.approx(error, rel=1e-12)
    assert stats[1, keys["error(train)"]] < stats[0, keys["error(train)"]]


def one_hot(labels):
    return np.eye(3)[labels]


def test_training_learns():
    stats, keys, _ = optimiser(KingmaAdamLearningRule(0.05)).train(20, 10)
    assert (np.diff(stats[:, keys["error(train)"]]) < 0).all()
    assert stats[-1, keys["error(valid)"]] < 0.1
    assert stats[-1, keys["acc(train)"]] == 1.0
    assert stats[-1, keys["acc(valid)"]] == 1.0


@pytest.mark.parametrize(
    ("epochs", "interval", "rows"), [(3, -1, 4), (3, 1, 4), (7, 2, 4), (6, 3, 3), (3, 5, 1), (0, 5, 1), (5, 5, 2)]
)
def test_every_interval_gives_its_rows(epochs, interval, rows):
    built = optimiser()
    before = params(built.model)
    stats, _, _ = built.train(epochs, interval)
    assert stats.shape == (rows, 4)
    assert built.learning_rule.step_count == 3 * epochs
    assert same(built.model.params, before) == (epochs == 0)


def test_the_default_interval_is_five():
    assert optimiser().train(10)[0].shape == (3, 4)


def test_the_same_seeds_give_the_same_statistics():
    first, second = (optimiser(KingmaAdamLearningRule(0.01)).train(4, 1)[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, optimiser(KingmaAdamLearningRule(0.01), seed=1).train(4, 1)[0])


def test_an_epoch_takes_every_batch_once():
    seen = []
    provider = DataProvider(np.arange(12.0)[:, None], np.arange(12.0)[:, None], 4, rng=np.random.RandomState(0))

    class Watcher(SumOfSquaredDiffsError):
        def grad(self, outputs, targets):
            seen.append(targets.ravel())
            return super().grad(outputs, targets)

    built = Optimiser(SingleLayerModel(AffineLayer(1, 1)), Watcher(), GradientDescentLearningRule(1e-4), provider)
    built.do_training_epoch()
    assert len(seen) == 3
    assert sorted(np.concatenate(seen)) == list(range(12))


def test_monitors_are_means_over_batches():
    calls = []

    def batch_mean(outputs, targets):
        calls.append(len(outputs))
        return outputs.mean()

    built = optimiser(monitors=False)
    built.data_monitors["mean"] = batch_mean
    outputs = built.model.fprop(built.valid_dataset.inputs)[-1]
    stats = built.eval_monitors(built.valid_dataset, "(valid)")
    assert list(stats) == ["error(valid)", "mean(valid)"]
    assert calls == [15, 15]
    assert stats["mean(valid)"] == pytest.approx(outputs.mean(), rel=1e-12)


def test_epoch_stats_are_train_then_valid():
    assert list(optimiser().get_epoch_stats()) == ["error(train)", "acc(train)", "error(valid)", "acc(valid)"]


def test_the_error_is_monitored_first_whatever_is_asked_for():
    built = Optimiser(network(), ERROR, GradientDescentLearningRule(0.1), Blobs(), None, {"b": accuracy, "a": accuracy})
    assert list(built.get_epoch_stats()) == ["error(train)", "b(train)", "a(train)"]


@pytest.mark.parametrize("stochastic", [False, True])
def test_evaluation_mode_is_for_monitors_unless_told(stochastic):
    model = network(extra=[DropoutLayer(rng=np.random.RandomState(0), incl_prob=0.5)])
    provider = Blobs(shuffle_order=False)
    built = Optimiser(model, ERROR, GradientDescentLearningRule(0.1), provider, use_stochastic_eval=stochastic)
    first, second = (built.eval_monitors(provider, "")["error"] for _ in range(2))
    assert (first == second) == (not stochastic)


# --- what it logs


def test_a_log_line_is_the_courseworks(caplog):
    with caplog.at_level(logging.INFO, "mlp.optimisers"):
        optimiser().log_stats(5, 0.449, {"error(train)": 2.87e-1, "acc(train)": 0.917, "acc(valid)": 1.0})
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mlp.optimisers", "INFO")
    expected = "Epoch 5: 0.4s to complete\n    error(train)=2.87e-01, acc(train)=9.17e-01, acc(valid)=1.00e+00"
    assert record.getMessage() == expected


def test_training_logs_the_recorded_epochs_and_their_statistics(caplog):
    with caplog.at_level(logging.INFO, "mlp.optimisers"):
        stats, keys, _ = optimiser().train(7, 3)
    messages = [record.getMessage() for record in caplog.records if record.name == "mlp.optimisers"]
    assert len(messages) == 2
    for epoch, row, message in zip((3, 6), stats[1:], messages, strict=True):
        values = ", ".join(f"{key}={value:.2e}" for key, value in zip(keys, row, strict=True))
        assert re.fullmatch(rf"Epoch {epoch}: \d+\.\ds to complete\n    {re.escape(values)}", message)


def test_nothing_is_logged_where_nothing_is_recorded(caplog):
    with caplog.at_level(logging.INFO, "mlp.optimisers"):
        optimiser().train(3, 5)
    assert not caplog.records


@pytest.mark.parametrize("notebook", [False, True])
def test_a_log_gets_no_bar_and_a_notebook_gets_one(capsys, notebook):
    optimiser(notebook=notebook).train(2, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("Exp Prog" in err) == notebook
    assert ("Ep Prog" in err) == notebook


# --- schedules


def test_schedulers_are_applied_every_epoch_from_zero():
    rates = []

    class Rule(MomentumLearningRule):
        def update_params(self, grads_wrt_params):
            rates.append(self.learning_rate)
            super().update_params(grads_wrt_params)

    schedule = CosineAnnealing(1e-4, 1e-2, 3)
    optimiser(Rule(5.0), schedulers=[schedule]).train(3, 5)
    assert rates == [schedule.learning_rate_at(epoch) for epoch in (0, 0, 0, 1, 1, 1, 2, 2, 2)]


def test_the_last_of_several_schedulers_has_the_word():
    built = optimiser(schedulers=[ConstantLearningRateScheduler(0.5), ConstantLearningRateScheduler(0.25)])
    built.train(1, 1)
    assert built.learning_rule.learning_rate == 0.25


def test_without_schedulers_the_rate_stays():
    built = optimiser(GradientDescentLearningRule(0.07))
    built.train(2, 1)
    assert built.learning_rule.learning_rate == 0.07


# --- bad input


@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_provider_without_a_batch_is_named(part):
    sets = {"train": Blobs(), "valid": Blobs()}
    sets[part] = Blobs(10, 20)
    built = Optimiser(network(), ERROR, GradientDescentLearningRule(0.1), sets["train"], sets["valid"])
    with pytest.raises(ValueError, match=rf"Optimiser: the provider ?\({part}\) gave no batch.*batch_size"):
        built.train(1, 1)


def test_an_interval_of_zero_is_refused_before_training():
    built = optimiser()
    before = params(built.model)
    with pytest.raises(ValueError, match="stats_interval"):
        built.train(2, stats_interval=0)
    assert same(built.model.params, before)


class Noted:
    """A scheduler that notes its epochs."""

    def __init__(self):
        self.epochs = []

    def update_learning_rule(self, learning_rule, epoch_number):
        self.epochs.append(epoch_number)


def test_schedulers_from_an_iterator_are_applied_in_every_epoch():
    noted = Noted()
    optimiser(schedulers=iter([noted])).train(3, 5)
    assert noted.epochs == [0, 1, 2]


@pytest.mark.parametrize("schedulers", [Noted(), [3], "ab"])
def test_what_are_no_schedulers_is_refused(schedulers):
    with pytest.raises(TypeError, match="schedulers is"):
        optimiser(schedulers=schedulers)


def with_monitors(monitors):
    return Optimiser(network(), ERROR, GradientDescentLearningRule(0.1), Blobs(), None, monitors)


@pytest.mark.parametrize("result", [None, "0.5", np.zeros(3), 1j])
def test_a_monitor_that_returns_no_number_is_named(result):
    with pytest.raises(TypeError, match="monitor 'odd' returned"):
        with_monitors({"odd": lambda y, t: result}).train(1)


def test_pairs_of_monitors_cannot_replace_the_error():
    with pytest.raises(ValueError, match="'error', which is the name of the error itself"):
        with_monitors([("error", lambda y, t: 7.0)])
    with pytest.raises(TypeError, match="expected a name and a function"):
        with_monitors({"acc": 3})


def test_a_new_error_is_reported_too():
    trained = optimiser()
    trained.error = CrossEntropySoftmaxError(reduction="sum")
    assert trained.data_monitors["error"] is trained.error


@pytest.mark.parametrize(
    "arguments", [(2.0,), (-1,), (True,), ("3",), (1, 2.5), (1, None), (1, "1"), (1, float("nan"))]
)
def test_strange_numbers_of_epochs_are_refused_before_training(arguments):
    with pytest.raises((TypeError, ValueError), match=r"Optimiser.train: (num_epochs|stats_interval) is"):
        optimiser().train(*arguments)


def test_a_provider_that_is_used_up_is_noticed():
    class Once:
        num_batches = 3

        def __init__(self, batches):
            self.batches = iter(batches)

        def __iter__(self):
            return self.batches

    trained = optimiser()
    trained.train_dataset = Once(list(Blobs()))
    with pytest.raises(ValueError, match="gave no batch to train on"):
        trained.train(3)


def test_training_goes_on_where_stderr_is_none_or_a_plain_writer(monkeypatch):
    class Writer:
        def write(self, text):
            return len(text)

        def flush(self):
            pass

    for stream in (None, Writer()):
        monkeypatch.setattr("sys.stderr", stream)
        assert len(optimiser().train(1, 1)[0]) == 2


def test_a_figure_that_cannot_be_drawn_does_not_end_a_training(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no figure")

    monkeypatch.setattr("mlp.optimisers.in_notebook", lambda: True)
    monkeypatch.setattr("mlp.plots.monitor_curves", broken)
    assert len(optimiser(notebook=True).train(2, 1)[0]) == 3
    assert "the training curves could not be drawn: no figure" in caplog.text


def test_the_curves_that_grow_are_the_statistics(monkeypatch):
    shown = []
    monkeypatch.setattr("mlp.optimisers.in_notebook", lambda: True)
    monkeypatch.setattr("mlp.plots.LiveFigure.show", lambda self, figure: shown.append(figure))
    stats, keys, _ = optimiser(notebook=True).train(5, 2)
    assert len(shown) == 2
    for count, figure in zip((2, 3), shown, strict=True):
        line = figure.axes[0].lines[0]
        assert list(line.get_xdata()) == [0, 2, 4][:count]
        assert list(line.get_ydata()) == list(stats[:count, keys["error(train)"]])
