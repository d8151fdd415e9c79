"""Whole steps on a GPU, one after the other without the host: gather a batch, forward, backward, learn, count.

The data set lies on the device, and so does what changes from step to step (`Control` in kernels/cuda/training.cu): a
step is then a CUDA graph in which nothing changes, and the host only starts it.
"""

import logging
import operator
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from mlp.backend import Array, array_module, to_device
from mlp.checks import ShapeError, check_positive_int
from mlp.data_providers import ImageDataProvider
from mlp.engine.gpu.graph import CapturedLaunches
from mlp.engine.gpu.plan import GpuPlan
from mlp.engine.passes import Step
from mlp.kernels import Pieces
from mlp.kernels.gpu import Launch, gpu_kernels
from mlp.learning_rules import AdamLearningRule, GradientDescentLearningRule, KingmaAdamLearningRule
from mlp.models import Model

logger = logging.getLogger(__name__)

CONTROL = np.dtype(
    [(name, np.int64) for name in ("epoch", "batch", "steps")]
    + [(name, np.float64) for name in ("learning_rate", "beta_1", "beta_2", "epsilon")]
    + [("epsilon_corrected", np.int64), ("bias_correction", np.int64), ("loss_sum", np.float64)]
    + [("correct", np.int64), ("images", np.int64)]
)
"""`Control`, as the host writes and reads it."""

STEPS_AHEAD = 128
"""The host starts at most so many steps, or twice that, before the device has done them."""

Sums = tuple[float, int, int]
"""The losses, the right answers and the number of the examples so far."""


class UnfitError(Exception):
    """Steps cannot be one row of launches, for the reason that is given."""


class GpuSession:
    """Steps through an image provider's batches: training steps with a learning rule, or evaluation without.

    Made by `Engine.gpu_session`. `run` takes steps and returns the sums over their examples. `plan_for` gives the plan
    of a batch of so many images, always the same one while the model does not change. What is changed of the provider
    or the learning rule between two runs counts from the next one on. `alone` keeps others from using the plans
    meanwhile.
    """

    def __init__(
        self,
        plan_for: Callable[[int], GpuPlan],
        alone: Callable[[], AbstractContextManager[None]],
        model: Model,
        provider: ImageDataProvider,
        rule: GradientDescentLearningRule | None = None,
    ) -> None:
        self._plan_for, self._alone, self._model = plan_for, alone, model
        self.provider, self.rule = provider, rule
        self._params: Any = model.flat_params()
        self._xp, self._kernels = array_module(self._params), gpu_kernels(self._params)
        self._control = self._moved(np.zeros(CONTROL.itemsize, np.uint8))
        self._loss = self._moved(np.zeros(1, np.float32))
        self._steps: dict[int, tuple[GpuPlan, CapturedLaunches]] = {}
        self._known: list[Any] = []
        self.last: GpuPlan | None = None
        self._found: tuple[Array, Array, Pieces] | None = None
        self._look(0, 0)

    def run(self, epoch: int, start: int, stop: int, sums: Sums = (0.0, 0, 0)) -> Sums:
        """Take the steps start..stop - 1 of an epoch; return the sums, which go on from `sums`.

        Raises IndexError where the epoch has not these steps, ValueError where the parameters have been replaced.
        """
        epoch, start, stop = (
            check_positive_int(f"GpuSession.run: {name}", value, 0)
            for name, value in (("epoch", epoch), ("start", start), ("stop", stop))
        )
        with self._alone():
            self._look(start, stop)
            self._order[...] = self._moved(self.provider.order(epoch).astype(np.int64))
            self._write_control(epoch, start, sums)
            self._take([self._size(index) for index in range(start, stop)])
            if self.rule is not None:
                self.rule.step_count += stop - start
            control = np.frombuffer(self._control.get().tobytes(), CONTROL)[0]
            if self.rule is not None and self.last is not None and stop > start:  # others may use the plan after this
                self._found = self._loss.copy(), self.last.rows.copy(), self.last.copied_grads()
        return float(control["loss_sum"]), int(control["correct"]), int(control["images"])

    def _look(self, start: int, stop: int) -> None:
        """Raise where these steps cannot be taken; forget what was made of things that have changed since."""
        provider, rule = self.provider, self.rule
        if not 0 <= start <= stop <= provider.num_batches:
            raise IndexError(
                f"GpuSession.run: steps {start}..{stop - 1}, expected within 0..{provider.num_batches - 1}"
            )
        if self._params is not self._model.flat_params() or not _rule_fits(rule, self._model.params):
            raise ValueError(
                "GpuSession.run: the model's parameters, or those of the learning rule, are other arrays than when the "
                "session was made: ask the engine for a new session"
            )
        images, moments = (
            provider.images,
            [] if rule is None else [getattr(rule, name).flat for name in rule.state_names],
        )
        settings = [provider.batch_size, provider.seed, provider.augment, provider.padding]
        present = [images.pixels, images.labels, provider.scale, provider.shift, *moments, *settings]
        if len(present) != len(self._known) or not all(map(operator.is_, present, self._known)):
            self._known, self._moments = present, moments
            self._steps.clear()
            self._pixels, self._labels = self._moved(images.pixels), self._moved(images.labels.astype(np.int64))
            self._scale, self._shift = self._moved(provider.scale), self._moved(provider.shift)
            self._order = self._moved(np.arange(len(images.labels)))

    def _take(self, sizes: list[int]) -> None:
        """Start steps with batches of these sizes, and keep not more than twice `STEPS_AHEAD` waiting."""
        steps, done = {size: self._step(size) for size in set(sizes)}, list[Any]()
        for number, size in enumerate(sizes, start=1):
            self.last, step = steps[size]
            step.run()
            if number % STEPS_AHEAD == 0:
                done.append(self._xp.cuda.Event())
                done[-1].record()
                if len(done) > 1:
                    done[-2].synchronize()

    def last_step(self) -> Step:
        """Return the last training step's mean loss, outputs and gradients. Raises LookupError before there was one."""
        if self._found is None:
            raise LookupError("GpuSession.last_step: there was no step yet: call run first")
        loss, outputs, grads = self._found
        return Step(float(loss[0]), outputs, grads)

    def launches(self, batch: int) -> list[Launch]:
        """Return the launches of a step with a batch of this size."""
        return list(self._step(batch)[1].launches)

    def _size(self, index: int) -> int:
        whole = self.provider.batch_size
        return min(whole, len(self.provider.images.labels) - index * whole)

    def _write_control(self, epoch: int, start: int, sums: Sums) -> None:
        control = np.zeros((), CONTROL)
        control["epoch"], control["batch"] = epoch, start
        control["loss_sum"], control["correct"], control["images"] = sums
        if isinstance(self.rule, AdamLearningRule):
            for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "bias_correction"):
                control[name] = float(getattr(self.rule, name))
            control["steps"] = self.rule.step_count
            control["epsilon_corrected"] = type(self.rule) is KingmaAdamLearningRule
        self._control[...] = self._moved(np.frombuffer(control.tobytes(), np.uint8))

    def _step(self, batch: int) -> tuple[GpuPlan, CapturedLaunches]:
        plan = self._plan_for(batch)
        if batch not in self._steps or self._steps[batch][0] is not plan:
            launches = [self._gather(plan, batch), *plan.launches, *self._after(plan, batch)]
            what = "training" if self.rule is not None else "evaluation"
            self._steps[batch] = plan, CapturedLaunches(self._xp, launches, f"a step of {what} of {batch} images")
        return self._steps[batch]

    def _gather(self, plan: GpuPlan, batch: int) -> Launch:
        provider = self.provider
        _, height, width, channels = provider.images.pixels.shape
        padding = provider.padding if provider.augment else -1
        words = np.uint64(provider.seed % 2**64), np.uint64(zlib.crc32(b"augmentation"))
        arrays = (self._pixels, self._labels, self._order, self._control, plan.inputs, plan.labels)
        whole = min(provider.batch_size, len(provider.images.labels))
        sizes = (batch, whole, height, width, channels, padding)
        args = (*arrays, *sizes, *words, self._scale, self._shift)
        return self._kernels.over("gather_batch", batch * height * width, *args)

    def _after(self, plan: GpuPlan, batch: int) -> list[Launch]:
        """Return what follows the backward pass: the sums, the learning rule, the next batch."""
        args = (plan.losses, plan.hits, batch, self._loss, self._control)
        launches = [self._kernels.launch("count_batch", (1,), 256, *args)]
        if self.rule is not None:
            arrays = (self._params, plan.grads.flat, *self._moments)
            count = np.int64(self._params.size)
            launches.append(self._kernels.elementwise("adam", int(count), *arrays, count, self._control))
        learned = int(self.rule is not None)
        return [*launches, self._kernels.launch("next_batch", (1,), 1, self._control, learned)]

    def _moved(self, array: Array) -> Array:
        return to_device(np.ascontiguousarray(array), "gpu")


def open_session(
    planned: Callable[[Array], tuple[int, Any]],
    alone: Callable[[], AbstractContextManager[None]],
    model: Model,
    error: Any,
    provider: ImageDataProvider,
    rule: GradientDescentLearningRule | None,
) -> GpuSession | None:
    """Return a session, or None, with the reason in the log, where a step cannot be one row of launches.

    `planned` makes a plan for inputs like an array, and says how many layers it goes through.
    """
    xp, shape = array_module(model.params[0]), provider.images.pixels.shape

    def plan_for(batch: int) -> GpuPlan:
        stop, plan = planned(xp.empty((batch, shape[3], *shape[1:3]), np.float32))
        if not isinstance(plan, GpuPlan) or stop < len(model.layers):
            layer = model.layers[stop if isinstance(plan, GpuPlan) else stop - 1]
            raise UnfitError(f"no plan on a GPU takes batches of {batch} through {layer!r}, or it is not in float32")
        if plan.error is None or plan.has_penalties():
            raise UnfitError("no plan on a GPU knows " + ("penalties" if plan.error else repr(error)))
        return plan

    try:
        if model.flat_params() is None:
            raise UnfitError("the parameters are not views of one array: make the model by to_gpu() last")
        if not _rule_fits(rule, model.params):
            raise UnfitError(f"no kernel knows {rule!r}")
        rest = shape[0] % provider.batch_size
        plans = [plan_for(batch) for batch in {min(provider.batch_size, shape[0]), rest or provider.batch_size}]
    except UnfitError as reason:
        logger.info("steps are taken one by one: %s", reason)
        return None
    low, high, classes = int(provider.images.labels.min()), int(provider.images.labels.max()), plans[0].rows.shape[1]
    if low < 0 or high >= classes:
        raise ShapeError(f"Engine.gpu_session: labels are {low}..{high}, expected 0..{classes - 1}, one per output")
    return GpuSession(plan_for, alone, model, provider, rule)


def _rule_fits(rule: GradientDescentLearningRule | None, params: list[Array]) -> bool:
    """Return whether the kernel of Adam can be a learning rule: one of the two forms, its moments flat on the GPU."""
    if rule is None:
        return True
    known = type(rule) in (AdamLearningRule, KingmaAdamLearningRule)
    same = len(rule.params) == len(params) and all(a is b for a, b in zip(rule.params, params, strict=True))
    moments = [getattr(rule, name, None) for name in rule.state_names]
    return known and same and all(isinstance(found, Pieces) and found.flat is not None for found in moments)
