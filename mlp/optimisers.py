"""Training: one step, an evaluation, and the coursework's loop around them."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlp.backend import Array, device_of, to_cpu, to_device
from mlp.bars import in_notebook, in_terminal, progress_bar
from mlp.checks import check_choice, check_positive_int, check_shape, check_whole_number
from mlp.engine import ENGINES, Engine, Step
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import Model
from mlp.watch import NumbersError, find, is_finite

logger = logging.getLogger(__name__)

Monitor = Callable[[Array, Array], Any]
Draw = Callable[[Sequence[int], Sequence[Sequence[float]]], None]
Batches = Iterable[tuple[Array, Array]]


class Error(Protocol):
    """An error function, as in `mlp.errors`."""

    def __call__(self, outputs: Array, targets: Array) -> Any: ...  # noqa: D102

    def grad(self, outputs: Array, targets: Array) -> Array: ...  # noqa: D102


class Scheduler(Protocol):
    """A schedule, as in `mlp.schedulers`."""

    def update_learning_rule(self, learning_rule: Any, epoch_number: int) -> Any: ...  # noqa: D102


class Scores(NamedTuple):
    """Sums over examples; the means follow. Sums, so that parts of an epoch add up exactly as the whole does."""

    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0

    def with_batch(self, loss: float, outputs: Array, labels: Array) -> "Scores":
        """Return the scores with one more batch, whose mean loss is `loss`."""
        check_shape("Scores.with_batch: labels", labels, (len(outputs),), like=outputs, integers=True)
        hits = int((outputs.argmax(axis=1) == labels).sum())
        return Scores(self.loss_sum + loss * len(labels), self.correct + hits, self.images + len(labels))

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """The share of right answers, in percent."""
        return 100.0 * self.correct / max(self.images, 1)


Alarm = Callable[[NumbersError], None]


def sound(alarm: NumbersError) -> None:
    """Raise the alarm."""
    raise alarm


def train_step(
    engine: Engine,
    learning_rule: GradientDescentLearningRule,
    inputs: Array,
    targets: Array,
    alarm: Alarm | None = sound,
) -> Step:
    """Run one batch forward and backward and let the learning rule change the parameters.

    Where the loss or a gradient is NaN or infinite, `alarm` is called first, with a NumbersError that names the layer,
    the pass, the array and the index where it began; by default it is raised, and no parameter is changed.
    With None nothing is looked at.
    """
    learning_rule.check_owns(engine.params)
    step = engine.forward_backward(inputs, targets)
    if alarm is not None and not is_finite(step.loss, step.outputs, step.grads):
        finding = find(engine.model, engine.error, learning_rule, inputs, targets)
        alarm(NumbersError(finding, learning_rule.step_count + 1))
    learning_rule.update_params(step.grads)
    return step


def evaluate(engine: Engine, batches: Batches, device: str = "cpu") -> Scores:
    """Return loss and accuracy of a model in evaluation mode, over batches of inputs and whole-number labels."""
    scores = Scores()
    for batch, labels in batches:
        inputs, targets = to_device(batch, device), to_device(labels, device)
        outputs = engine.predict(inputs)
        scores = scores.with_batch(float(engine.error(outputs, targets)), outputs, targets)
    if not scores.images:
        raise ValueError("evaluate: there was no batch")
    return scores


class Optimiser:
    """Trains a model on a data provider, as in the coursework.

    `data_monitors` maps names to functions (outputs, targets) -> number, means over a batch, reported beside the error
    as means over the examples. `schedulers` are applied at the start of each epoch, counted from 0; where they are
    given (an empty list counts), the statistics end with `params_penalty`, as in the coursework of 2016. Progress bars
    are shown in a terminal and, with `notebook`, elsewhere too; in a notebook's kernel the training curves are then
    drawn, anew in their place for every row of the statistics. `engine` is ``"plan"``, the fast
    way to run the model, or ``"layers"``, the layers' own passes; both compute the same numbers, up to rounding.
    Batches are moved to where the model's parameters lie: with ``model.to_gpu()`` the training runs on the GPU, and
    monitors get its arrays.

    >>> import numpy as np
    >>> from mlp.data_providers import DataProvider
    >>> from mlp.errors import SumOfSquaredDiffsError
    >>> from mlp.layers import AffineLayer
    >>> from mlp.learning_rules import GradientDescentLearningRule
    >>> from mlp.models import SingleLayerModel
    >>> from mlp.optimisers import Optimiser
    >>> inputs = np.random.RandomState(0).normal(size=(100, 2))
    >>> data = DataProvider(inputs, inputs @ np.array([[1.0], [-2.0]]), batch_size=10)
    >>> model, rule = SingleLayerModel(AffineLayer(2, 1)), GradientDescentLearningRule(0.1)
    >>> stats, keys, seconds = Optimiser(model, SumOfSquaredDiffsError(), rule, data).train(20, stats_interval=10)
    >>> stats.shape, keys
    ((3, 1), {'error(train)': 0})
    >>> model.params[0].round(3)
    array([[ 1., -2.]])
    """

    def __init__(
        self,
        model: Model,
        error: Error,
        learning_rule: GradientDescentLearningRule,
        train_dataset: Any,
        valid_dataset: Any = None,
        data_monitors: Mapping[str, Monitor] | None = None,
        notebook: bool = False,
        schedulers: Sequence[Scheduler] | None = None,
        use_stochastic_eval: bool = False,
        engine: str = "plan",
    ) -> None:
        self.engine = Engine(model, error, check_choice("Optimiser: engine", engine, ENGINES))
        self.learning_rule = learning_rule
        self.learning_rule.initialise(model.params)
        self.train_dataset, self.valid_dataset = train_dataset, valid_dataset
        monitors = OrderedDict(data_monitors or {})
        if "error" in monitors:
            raise ValueError("Optimiser: data_monitors holds 'error', which is the name of the error itself")
        self.data_monitors: OrderedDict[str, Monitor] = OrderedDict([("error", error), *monitors.items()])
        for name, monitor in self.data_monitors.items():
            if not isinstance(name, str) or not callable(monitor):
                raise TypeError(f"Optimiser: data_monitors holds {name!r}: {monitor!r}, expected a name and a function")
        self.notebook, self.use_stochastic_eval = notebook, use_stochastic_eval
        self.alarm: Alarm | None = self._warn
        self.schedulers = None if schedulers is None else _checked_schedulers(schedulers)

    @property
    def model(self) -> Model:
        """The model."""
        return self.engine.model

    @model.setter
    def model(self, model: Model) -> None:
        self.engine.model = model

    @property
    def error(self) -> Error:
        """The error."""
        error: Error = self.engine.error
        return error

    @error.setter
    def error(self, error: Error) -> None:
        self.engine.error = error
        self.data_monitors["error"] = error

    def do_training_epoch(self) -> None:
        """Train on every batch of the training provider once."""
        batches = self._progress(self.train_dataset, "Ep Prog", self.train_dataset.num_batches)
        loss = None
        for inputs, targets in map(self._placed, batches):
            loss = train_step(self.engine, self.learning_rule, inputs, targets, self.alarm).loss
            batches.set_postfix(error=f"{loss:.2e}")
        if loss is None:
            raise ValueError(
                "Optimiser: train_dataset gave no batch to train on: can it be iterated over more than once?"
            )

    def _warn(self, alarm: NumbersError) -> None:
        """Say where the training broke, and look no further; it goes on, as in the coursework."""
        self.alarm = None
        logger.warning("Training goes on with numbers that are not finite. %s", alarm)

    def eval_monitors(self, dataset: Any, label: str) -> "OrderedDict[str, float]":
        """Return every monitor's mean over the examples of a provider, its name followed by `label`."""
        sums = dict.fromkeys(self.data_monitors, 0.0)
        count = 0
        for inputs, targets in map(self._placed, dataset):
            outputs = self.engine.predict(inputs, stochastic=self.use_stochastic_eval)
            for name, monitor in self.data_monitors.items():
                sums[name] += len(outputs) * _number(name, monitor(outputs, targets))
            count += len(outputs)
        if not count:
            raise ValueError(f"Optimiser: the provider{label} gave no batch: is batch_size larger than its data?")
        return OrderedDict((name + label, total / count) for name, total in sums.items())

    def get_epoch_stats(self) -> "OrderedDict[str, float]":
        """Return the monitors on the training data and, if there is any, on the validation data."""
        stats = self.eval_monitors(self.train_dataset, "(train)")
        if self.valid_dataset is not None:
            stats.update(self.eval_monitors(self.valid_dataset, "(valid)"))
        if self.schedulers is not None:
            stats["params_penalty"] = float(to_cpu(self.model.params_penalty()))
        return stats

    def log_stats(self, epoch: int, epoch_time: float, stats: Mapping[str, float]) -> None:
        """Log an epoch's statistics, in the coursework's format."""
        values = ", ".join(f"{name}={value:.2e}" for name, value in stats.items())
        logger.info("Epoch %d: %.1fs to complete\n    %s", epoch, epoch_time, values)

    def train(self, num_epochs: int, stats_interval: int = 5) -> tuple[Array, dict[str, int], float]:
        """Train; return (statistics, the column of each name, seconds).

        The first row of the statistics is from before training; then one for every `stats_interval` epochs (-1: for
        every epoch).
        """
        num_epochs = check_positive_int("Optimiser.train: num_epochs", num_epochs, minimum=0)
        if check_whole_number("Optimiser.train: stats_interval", stats_interval) == 0:
            raise ValueError("Optimiser.train: stats_interval is 0, expected a number of epochs, or -1 for every epoch")
        start = time.perf_counter()
        stats = self.get_epoch_stats()
        keys = {name: column for column, name in enumerate(stats)}
        epochs, rows = [0], [list(stats.values())]
        draw = self._live_curves(keys)
        for epoch in self._progress(range(1, num_epochs + 1), "Exp Prog", num_epochs):
            epoch_start = time.perf_counter()
            for scheduler in self.schedulers or ():
                scheduler.update_learning_rule(self.learning_rule, epoch - 1)
            self.do_training_epoch()
            if epoch % stats_interval == 0:
                epoch_stats = self.get_epoch_stats()
                self.log_stats(epoch, time.perf_counter() - epoch_start, epoch_stats)
                epochs.append(epoch)
                rows.append(list(epoch_stats.values()))
                if draw is not None:
                    draw(epochs, rows)
        return np.array(rows), keys, time.perf_counter() - start

    def _placed(self, batch: tuple[Array, Array]) -> tuple[Array, Array]:
        """Return a batch on the device of the model."""
        device = device_of(self.learning_rule.params[0]) if self.learning_rule.params else "cpu"
        return to_device(batch[0], device), to_device(batch[1], device)

    def _live_curves(self, keys: Mapping[str, int]) -> Draw | None:
        """Return what draws the statistics so far, where that was asked for and there is a notebook."""
        if not (self.notebook and in_notebook()):
            return None
        from mlp.plots import LiveFigure, monitor_curves

        live = LiveFigure()

        def draw(epochs: Sequence[int], rows: Sequence[Sequence[float]]) -> None:
            try:
                live.show(monitor_curves(epochs, rows, keys))
            except Exception as error:  # a figure is never worth a training
                logger.warning("the training curves could not be drawn: %s", error)

        return draw

    def _progress(self, items: Iterable[Any], description: str, total: int) -> Any:
        hidden = not (self.notebook or in_terminal())
        return progress_bar(items, desc=description, total=total, leave=False, disable=hidden)


def _checked_schedulers(schedulers: Iterable[Scheduler]) -> list[Scheduler]:
    """Return the schedulers as a list; raise TypeError unless they are schedulers."""
    kept = list(schedulers) if isinstance(schedulers, Iterable) else [schedulers]
    wrong = [scheduler for scheduler in kept if not hasattr(scheduler, "update_learning_rule")]
    if wrong or not isinstance(schedulers, Iterable):
        raise TypeError(f"Optimiser: schedulers is {schedulers!r}, expected a list of schedulers (mlp.schedulers)")
    return kept


def _number(name: str, value: Any) -> float:
    """Return what a monitor returned as a number; raise TypeError unless it is one."""
    array = np.asarray(to_cpu(value))
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise TypeError(f"Optimiser: the monitor {name!r} returned {value!r}, expected a number")
    return float(array.reshape(()))
