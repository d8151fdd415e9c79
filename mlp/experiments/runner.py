"""Runs one experiment into its folder, from the start or from where it was stopped."""

import shlex
import time
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from mlp.backend import Array, array_module, to_device
from mlp.checkpoints import CheckpointError, load_checkpoint, load_newest_checkpoint, save_checkpoint
from mlp.data_providers import ImageData, ImageDataProvider, ImageSet, Prefetcher
from mlp.engine import Engine, GpuSession, Step
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import Experiment
from mlp.experiments.crash import Broken, TrainingBrokeError, write_pack
from mlp.experiments.interrupt import Interrupted, StopAfterStep
from mlp.experiments.position import Position
from mlp.experiments.progress import Progress
from mlp.files import make_folder, warn
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import Model
from mlp.optimisers import Scores, evaluate, train_step
from mlp.records import EpochMetrics, LayerGradient, RecordError, RunFolder, best_epoch
from mlp.schedulers import CosineAnnealing
from mlp.watch import NumbersError, is_finite

SECONDS_BETWEEN_CHECKPOINTS = 60.0
SECONDS_BETWEEN_LOOKS, STEPS_OF_A_FIRST_LOOK = 2.0, 20
"""How long a GPU works without the host: Ctrl-C, the progress bar and checkpoints wait so long."""
EVALUATION_BATCH = 100


def engine_for(model: Model, kind: str, precision: str, workspace_mb: int | None) -> Engine:
    """Return the engine of a run."""
    workspace = None if workspace_mb is None else workspace_mb * 1_000_000
    return Engine(model, CrossEntropySoftmaxError(), kind, precision, workspace)


class Runner:
    """One run: model, learning rule, data and folder, and the position between them.

    ``Runner(...).run()`` goes on from the folder's last checkpoint, or from the start, to the end: it writes the
    records and checkpoints, and at the end evaluates the best epoch's weights on the test set, once.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: ImageData,
        folder: RunFolder,
        device: str,
        quiet: bool = False,
        engine: str = "plan",
        precision: str = "fp32",
        workspace_mb: int | None = None,
    ) -> None:
        self.experiment, self.data, self.folder = experiment, data, folder
        self.device, self.quiet = device, quiet
        self.model = experiment.build_model(data.num_classes).to_device(device)
        self.engine = engine_for(self.model, engine, precision, workspace_mb)
        self.rule = KingmaAdamLearningRule(experiment.learning_rate)
        self.rule.initialise(self.model.params)
        self.schedule = CosineAnnealing(experiment.min_learning_rate, experiment.learning_rate, experiment.epochs)
        self.train_batches = self._batches(data.train, experiment.batch_size, training=True)
        self.session = self.engine.gpu_session(self.train_batches, self.rule)
        self._validation: GpuSession | None = None
        self.steps_between_looks = STEPS_OF_A_FIRST_LOOK
        self.position = Position()
        self.saved_at = time.monotonic()
        if folder.last_checkpoint.exists() or folder.previous_checkpoint.exists():
            self._recover()
        elif folder.metrics() or folder.is_complete():
            raise CheckpointError(
                f"{folder.last_checkpoint} is gone, and the run cannot go on without: start a new one"
            )
        else:
            make_folder(folder.last_checkpoint.parent, exist_ok=True)
            self._save()

    def run(self, stop_after: int | None = None) -> None:
        """Train to the last epoch, then test; or, to go on later, train to the end of epoch `stop_after` only.

        Raises Interrupted after a step during which Ctrl-C was pressed.
        """
        last_epoch = min(self.experiment.epochs, stop_after or self.experiment.epochs)
        images = len(self.data.train.labels)
        done = self.position.epoch * images + self.position.scores.images
        progress = Progress(images * self.experiment.epochs, done, self.quiet)
        quiet = np.errstate(all="ignore")  # what breaks is named by the alarm
        with StopAfterStep() as stop, progress, Prefetcher(self.train_batches) as batches, quiet:
            while self.position.epoch < last_epoch:
                last = self._train_epoch(batches, stop, progress)
                self._end_epoch(last, progress)
                if stop.requested and self.position.epoch < last_epoch:
                    raise Interrupted
            if self.position.epoch == self.experiment.epochs and not self.folder.is_complete():
                self._test()

    def _batches(self, images: ImageSet, batch_size: int, training: bool) -> ImageDataProvider:
        return ImageDataProvider(
            images,
            batch_size,
            self.data.mean,
            self.data.std,
            self.experiment.seed,
            training,
            augment=training,
        )

    def _train_epoch(self, batches: Prefetcher, stop: StopAfterStep, progress: Progress) -> Step:
        """Take the epoch's remaining steps; return the last."""
        self.schedule.update_learning_rule(self.rule, self.position.epoch)
        last = None
        while self.position.step < self.train_batches.num_batches:
            last = self._train_on_gpu(batches, progress) if self.session else self._train_step(batches, progress)
            at_end = self.position.step == self.train_batches.num_batches
            if not at_end and time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
            if stop.requested and not at_end:
                self._save()
                raise Interrupted
        assert last is not None
        return last

    def _train_step(self, batches: Prefetcher, progress: Progress) -> Step:
        start, position = time.perf_counter(), self.position
        batch, labels = batches.batch(position.epoch, position.step)
        inputs, targets = to_device(batch, self.device), to_device(labels, self.device)

        def break_off(alarm: NumbersError) -> None:
            self._break_off(inputs, targets, alarm)

        step = train_step(self.engine, self.rule, inputs, targets, break_off)
        scores = position.scores.with_batch(step.loss, step.outputs, targets)
        self.position = replace(position, step=position.step + 1, scores=scores)
        self.position.seconds += time.perf_counter() - start
        progress.step(position.epoch + 1, self.experiment.epochs, len(labels), scores)
        return step

    def _break_off(self, inputs: Array, targets: Array, alarm: NumbersError) -> None:
        """Leave a crash pack, and raise TrainingBrokeError, before any parameter is changed."""
        broken = Broken(self.experiment, self.model, self.rule, inputs, targets, self.engine.kind)
        pack = write_pack(self.folder, broken, self.position.epoch + 1, self.position.step + 1, alarm)
        raise TrainingBrokeError(
            f"the training broke in epoch {self.position.epoch + 1}. {alarm}. To see it again: "
            f"python -m mlp.experiments replay {shlex.quote(str(pack))}"
        )

    def _train_on_gpu(self, batches: Prefetcher, progress: Progress) -> Step:
        """Take steps without the host, for about `SECONDS_BETWEEN_LOOKS` or to the epoch's end; return the last."""
        assert self.session is not None
        start, position = time.perf_counter(), self.position
        stop = min(position.step + self.steps_between_looks, self.train_batches.num_batches)
        sums = position.scores.loss_sum, position.scores.correct, position.scores.images
        scores = Scores(*self.session.run(position.epoch, position.step, stop, sums))
        params = self.model.flat_params()
        assert params is not None
        if not is_finite(scores.loss_sum, params, []):
            self._find_break(position.step + 1, stop, batches, progress)
        self.position = replace(position, step=stop, scores=scores)
        seconds = time.perf_counter() - start
        self.position.seconds += seconds
        pace = (stop - position.step) / max(seconds, 1e-9)
        self.steps_between_looks = max(STEPS_OF_A_FIRST_LOOK, int(SECONDS_BETWEEN_LOOKS * pace))
        images = scores.images - position.scores.images
        progress.step(position.epoch + 1, self.experiment.epochs, images, scores)
        return self.session.last_step()

    def _find_break(self, first: int, last: int, batches: Prefetcher, progress: Progress) -> NoReturn:
        """Go back to the last checkpoint and on step by step, under the alarm, to the step that broke."""
        epoch = self.position.epoch + 1
        where = f"in epoch {epoch}, between steps {first} and {last}"
        warn(f"the training broke {where}. Going back to the last checkpoint, and on one by one, to find the step")
        self._recover()
        if self.position.epoch < epoch - 1:
            raise TrainingBrokeError(
                f"the training broke {where}, and there is no checkpoint of that epoch to find the step from, but one "
                f"of epoch {self.position.epoch + 1}: resume the run from there (--resume), so that there is one"
            )
        while self.position.step < last:
            self._train_step(batches, progress)
        raise TrainingBrokeError(f"the training broke {where}; step by step from the last checkpoint on, it does not")

    def _end_epoch(self, last: Step, progress: Progress) -> None:
        """Validate, record the epoch, and keep its weights if they are the best so far."""
        start, position = time.perf_counter(), self.position
        valid = self._evaluate(self.data.valid)
        epoch = position.epoch + 1
        metrics = EpochMetrics(
            epoch,
            self.rule.learning_rate,
            position.scores.loss,
            position.scores.accuracy,
            valid.loss,
            valid.accuracy,
            round(position.seconds + time.perf_counter() - start, 3),
        )
        self.folder.add_epoch(metrics, self._gradient_flow(epoch, last))
        if best_epoch(self.folder.metrics()).epoch == epoch:
            save_checkpoint(self.folder.best_checkpoint, self.model, None, {"epoch": epoch})
        self.position = Position(epoch=epoch)
        self._save()
        progress.say(
            f"epoch {epoch}/{self.experiment.epochs}  lr {metrics.learning_rate:.2e}  "
            f"train loss {metrics.train_loss:.3f} acc {metrics.train_acc:.2f} %  "
            f"val loss {metrics.val_loss:.3f} acc {metrics.val_acc:.2f} %  {metrics.seconds:.1f} s"
        )
        progress.draw(self.folder)

    def _gradient_flow(self, epoch: int, last: Step) -> list[LayerGradient]:
        """Return mean |dE/dw| of every parameter that is not an offset, in layer order."""
        xp = array_module(last.outputs)
        return [
            LayerGradient(epoch, layer, float(xp.abs(grad.astype(np.float64)).mean()))
            for (layer, _, is_offset), grad in zip(self.model.param_keys(), last.grads, strict=True)
            if not is_offset
        ]

    def _evaluate(self, images: ImageSet) -> Scores:
        batches = self._batches(images, EVALUATION_BATCH, training=False)
        if images is not self.data.valid:  # the test set is evaluated once
            return self._evaluated(batches, self.engine.gpu_session(batches))
        self._validation = self._validation or self.engine.gpu_session(batches)
        return self._evaluated(batches, self._validation)

    def _evaluated(self, batches: ImageDataProvider, session: GpuSession | None) -> Scores:
        if session is None:
            return evaluate(self.engine, batches, self.device)
        return Scores(*session.run(0, 0, batches.num_batches))

    def _recover(self) -> None:
        """Go back to the newest whole checkpoint, and the records with it."""
        last, previous = self.folder.last_checkpoint, self.folder.previous_checkpoint
        progress = load_newest_checkpoint(last, previous, self.model, self.rule, warn)
        self.position = Position.from_dict(progress)
        if self.folder.cut_back(self.position.epoch):
            rows = f"metrics.csv and gradient_flow.csv are cut back to epoch {self.position.epoch}"
            warn(f"{self.folder.path}: {rows}, its checkpoint's; the rows behind it are made again")
        self._compare(progress)

    def _compare(self, progress: dict[str, Any]) -> None:
        """Raise RecordError or CheckpointError unless the run's other files are those of its checkpoint."""
        now = self.folder.digests()
        before = progress.get("records", now)
        changed = [f"the rows of {name}" for name in now if now[name] != before.get(name)]
        fields = self.experiment.to_dict()
        then = {key: value for key, value in progress.get("experiment", fields).items() if value != fields.get(key)}
        changed += [f"config.json ({key} was {value!r})" for key, value in then.items()]
        if changed:
            raise RecordError(
                f"{self.folder.path}: {' and '.join(changed)} changed after the checkpoint was saved: lost, damaged or "
                f"edited. Put it back as it was, or start a new run"
            )
        if self.folder.metrics():
            load_checkpoint(self.folder.best_checkpoint, self.experiment.build_model(self.data.num_classes))

    def _save(self) -> None:
        last, previous = self.folder.last_checkpoint, self.folder.previous_checkpoint
        known = {"records": self.folder.digests(), "experiment": self.experiment.to_dict()}
        progress = {**self.position.to_dict(), **known}
        save_checkpoint(last, self.model, self.rule, progress, previous)
        self.saved_at = time.monotonic()

    def _test(self) -> None:
        """Evaluate the best epoch's weights on the test set."""
        epoch = load_checkpoint(self.folder.best_checkpoint, self.model)["epoch"]
        scores = self._evaluate(self.data.test)
        content = {
            "epoch": epoch,
            "test_loss": scores.loss,
            "test_acc": scores.accuracy,
            "images": scores.images,
        }
        self.folder.write_json("test.json", content)
