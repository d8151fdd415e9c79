"""Runs a model for a training loop: by plans where they know the layers, and by the layers' own passes elsewhere."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from threading import Lock
from typing import Any

import numpy as np

from mlp.backend import Array, is_gpu_array
from mlp.checks import check_choice, check_positive_int
from mlp.data_providers import ImageDataProvider
from mlp.engine.catalogue import is_known, output_shape
from mlp.engine.gpu import GpuPlan, GpuSession
from mlp.engine.gpu.plan import PRECISIONS, arrays_fit, error_fits
from mlp.engine.gpu.session import open_session
from mlp.engine.memory import AnyPlan, Planned, Plans, layers_that_change
from mlp.engine.passes import Purpose, Step
from mlp.engine.piece import Piece
from mlp.engine.plan import Plan
from mlp.errors import is_mean_over_examples, value_and_grad
from mlp.kernels import Sizes, conv_method
from mlp.kernels.parallel import single_threaded_blas
from mlp.kernels.scratch import Measure
from mlp.layers import Layer, LayerWithParameters
from mlp.layers.chain import chain_params
from mlp.models import Model

ENGINES = ("plan", "layers")

_running: ContextVar[frozenset[int]] = ContextVar("running", default=frozenset())
"""The engines that run in this context, which the threads of the pool share."""


class Engine:
    """A model and the way to run it: ``"plan"``, or ``"layers"`` for `Model.fprop` and the layers' own passes.

    `error` is one of `mlp.errors`, or any object with ``error(outputs, targets)`` and ``error.grad(outputs, targets)``;
    only `forward_backward` needs it. Both kinds compute the same numbers, up to rounding; ``"layers"`` is the one to
    step through with a debugger. A plan is made when a batch of a new shape comes, and kept; it holds
    memory for that shape. Layers that plans do not know (a user's own, those that remember something, other dtypes:
    on a GPU all but float32) run by their own passes between the plans of the others. When the model has changed -
    layers added or replaced, an attribute of a layer set to another object - all plans are made anew. `precision` is
    that of products in 3x3 convolutions on a GPU: ``"fp32"``, or ``"tf32"`` on tensor cores, whose factors have 10 bits
    of fraction.

    `workspace` bounds the bytes that plans on the CPU take at a time. Where they would take more, they work on fewer
    examples at once, or on fewer threads; where that is not enough, WorkspaceError says what is needed. Where memory
    runs out (MemoryError), a line in the log says so, and the pass is repeated with half as many examples at once: its
    numbers are the same up to rounding. What layers hold under `state_names`, and their random streams, are put back
    before.

    >>> import numpy as np
    >>> from mlp.engine import Engine
    >>> from mlp.errors import CrossEntropySoftmaxError
    >>> from mlp.models import vgg08
    >>> engine = Engine(vgg08(num_classes=10), CrossEntropySoftmaxError())
    >>> images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    >>> step = engine.forward_backward(images, np.arange(4))
    >>> step.outputs.shape, len(step.grads) == len(engine.params)
    ((4, 10), True)
    """

    def __init__(
        self,
        model: Model,
        error: Any = None,
        kind: str = "plan",
        precision: str = "fp32",
        workspace: int | None = None,
    ) -> None:
        self.model, self.error = model, error
        self.kind = check_choice("Engine: kind", kind, ENGINES)
        self.precision = check_choice("Engine: precision", precision, PRECISIONS)
        if kind == "layers" and (precision != "fp32" or workspace is not None):
            raise ValueError(
                f"Engine: precision is {precision!r} and workspace {workspace!r}, which are for plans, and kind is "
                "'layers': leave them out, or use 'plan'"
            )
        self._plans = Plans(None if workspace is None else check_positive_int("Engine: workspace", workspace))
        self._known: list[Any] = []
        self._params: list[Array] = []
        self._changing: list[Layer] = []
        self._lock = Lock()

    def __reduce__(self) -> Any:
        return type(self), (self.model, self.error, self.kind, self.precision, self._plans.workspace)

    @property
    def params(self) -> list[Array]:
        """The model's parameters, in order."""
        self._look()
        return self._params

    def predict(self, inputs: Array, stochastic: bool = False) -> Array:
        """Return the model's outputs, in evaluation mode or (`stochastic`) in training mode."""
        if not self._has_plans():
            with single_threaded_blas():
                return self.model.fprop(inputs, evaluation=not stochastic)[-1]
        with self._alone():
            self._check(inputs)
            purpose = Purpose(stochastic, backward=False)
            return self._plans.run(self._changing, lambda: self._forward(inputs, purpose)[-1].outputs)

    def forward_backward(self, inputs: Array, targets: Array) -> Step:
        """Return the error, the outputs and the gradients of all parameters, of a batch in training mode."""
        if self.error is None:
            raise ValueError("Engine.forward_backward: there is no error: make the engine with Engine(model, error)")
        if not self._has_plans():
            with single_threaded_blas():
                return self._by_layers(inputs, targets)
        with self._alone():
            self._check(inputs)
            return self._plans.run(self._changing, lambda: self._by_plans(inputs, targets))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads waiting. Raises RuntimeError where a layer or an error calls the engine that runs it."""
        if id(self) in _running.get():
            raise RuntimeError("Engine: a layer or an error called the engine that runs it: use a second Engine")
        with self._lock, single_threaded_blas():
            token = _running.set(_running.get() | {id(self)})
            self._plans.begin()
            try:
                yield
            finally:
                _running.reset(token)
                self._plans.end()

    def _has_plans(self) -> bool:
        """Return whether plans run this: not a model with passes of its own."""
        model = type(self.model)
        own = model.fprop is not Model.fprop or model.grads_wrt_params is not Model.grads_wrt_params
        own = own or bool({"fprop", "grads_wrt_params"} & vars(self.model).keys())
        return self.kind == "plan" and not own

    def plans(self) -> list[AnyPlan]:
        """Return the plans that are there, in use last the last."""
        return self._plans.present()

    def plans_in_use(self) -> list[AnyPlan]:
        """Return the plans of the last pass."""
        return self._plans.in_use()

    def memory(self, shape: Sizes, dtype: Any = np.float32, training: bool = True) -> int | None:
        """Return how many bytes a pass over inputs of this shape will take on the CPU, beside inputs and parameters.

        That is what the plan takes when it first runs, the outputs and, in training, the gradients. None where no plan
        goes through the whole model: what layers take that run by their own passes is not known. Of those that do so
        in shards (pooling by maxima, sigmoids, reshaping, ...) it is not counted: a few arrays of a shard a thread.
        """
        shape = tuple(check_positive_int("Engine.memory: a length in shape", length, 0) for length in shape)
        if not self._has_plans():
            return None
        with self._alone():
            self._look()
            purpose = Purpose(training, backward=training, with_error=training)
            stop, plan = self._planned(0, Measure.array(shape, dtype), purpose)
            if not isinstance(plan, Plan) or stop < len(self.model.layers):
                return None
            grads = sum(param.nbytes for param in self._params) if training else 0
            outputs: int = shape[0] * prod(plan.last.shape) * plan.dtype.itemsize
            return plan.num_bytes() + int(grads) + outputs

    def _by_layers(self, inputs: Array, targets: Array) -> Step:
        activations = self.model.fprop(inputs)
        value, grads = value_and_grad(self.error, activations[-1], targets)
        return Step(float(value), activations[-1], self.model.grads_wrt_params(activations, grads))

    def _by_plans(self, inputs: Array, targets: Array) -> Step:
        trail = self._forward(inputs, Purpose(stochastic=True, backward=True, with_error=True), targets)
        last = trail[-1]
        if last.found is not None:
            loss, through, grads = last.found
            trail.pop()
        else:
            value, through = value_and_grad(self.error, last.outputs, targets)
            loss, grads = float(value), []
        for piece in reversed(trail):
            if through is None:  # nothing below has parameters
                break
            through, of_piece = piece.backward(through)
            grads = of_piece + grads if grads else of_piece
        return Step(loss, last.outputs, grads)

    def _forward(self, inputs: Array, purpose: Purpose, targets: Array | None = None) -> list[Piece]:
        """Run forward, piece by piece; with targets, the last piece goes on to the gradients where it can."""
        layers, trail, start = self.model.layers, [], 0
        while start < len(layers):
            stop, plan = self._planned(start, inputs, purpose)
            if plan is not None and plan.error is not None and not plan.takes(targets):
                stop, plan = self._planned(start, inputs, purpose._replace(with_error=False))
            piece = Piece(layers[start:stop], plan, inputs, need_inputs=bool(chain_params(layers[:start])))
            if plan is not None and plan.error is not None:
                piece.train(targets)
            else:
                piece.forward(purpose.stochastic)
            trail.append(piece)
            inputs, start = piece.outputs, stop
        return trail

    def _planned(self, start: int, inputs: Array, purpose: Purpose) -> Planned:
        """Return how far a plan can go from layer `start`, and the plan; where it cannot, the next layer and None."""
        if not isinstance(inputs, np.ndarray) and not is_gpu_array(inputs):  # the next layer says so
            return start + 1, None
        on_gpu = is_gpu_array(inputs)
        key = (start, on_gpu, inputs.shape, inputs.dtype, purpose, self.precision if on_gpu else conv_method())
        return self._plans.get(key, lambda: self._new_plan(start, inputs, purpose))

    def _new_plan(self, start: int, inputs: Array, purpose: Purpose) -> Planned:
        layers, stop, shape, on_gpu = self.model.layers, start, inputs.shape[1:], is_gpu_array(inputs)
        while stop < len(layers) and inputs.ndim > 1 and inputs.size:
            after = output_shape(layers[stop], shape, len(inputs), on_gpu)
            if after is None:
                break
            stop, shape = stop + 1, after
        dtype = np.result_type(inputs.dtype, *(param.dtype for param in chain_params(layers[start:stop])))
        here = not any(map(is_gpu_array, chain_params(layers[start:stop]))) and dtype in (np.float32, np.float64)
        known = arrays_fit(layers[start:stop], inputs) if on_gpu else here
        if stop == start or inputs.dtype.kind != "f" or not known:
            return start + 1, None
        goes_on = purpose.with_error and stop == len(layers) and is_mean_over_examples(self.error)
        need_inputs = purpose.backward and bool(chain_params(layers[:start]))
        purpose = purpose._replace(need_inputs=need_inputs)
        if on_gpu:
            error = self.error if goes_on and error_fits(self.error, shape) else None
            return stop, GpuPlan(layers[start:stop], inputs, purpose, error, self.precision)
        error = self.error if goes_on else None

        def make(most: int | None) -> Plan:
            return Plan(layers[start:stop], inputs.shape, dtype, purpose, error, most)

        return stop, self._plans.fitted(make)

    def gpu_session(self, provider: ImageDataProvider, rule: Any = None) -> GpuSession | None:
        """Return a session that takes steps on the GPU without the host: of training with a rule, else of evaluation.

        None where steps must be taken one by one: on the CPU, with ``kind="layers"``, and, with a line in the log,
        where a layer, the error or the learning rule is none that a plan on a GPU can go through. Raises ShapeError
        where the provider's labels are no classes of the model's outputs.
        """
        if not self._has_plans() or not self.params or not is_gpu_array(self._params[0]):
            return None
        purpose = Purpose(stochastic=rule is not None, backward=rule is not None, with_error=True)

        model, error = self.model, self.error

        def planned(like: Array) -> Planned:
            if self.model is not model or self.error is not error:
                raise ValueError("GpuSession: the engine has another model or error now: ask it for a new session")
            self._look()
            return self._planned(0, like, purpose)

        return open_session(planned, self._alone, self.model, self.error, provider, rule)

    def _check(self, inputs: Array) -> None:
        """Raise what `Model.fprop` would for these inputs; forget all plans where the model has changed."""
        self._look()
        self.model.check_inputs(inputs, self._params)

    def _look(self) -> None:
        """Forget all plans where the model has changed since the last look."""
        present: list[Any] = [self.error, *getattr(self.error, "__dict__", {}).values()]
        _fingerprint(self.model.layers, present)
        if len(present) != len(self._known) or not all(map(operator.is_, present, self._known)):
            self._plans.clear()
            self._known, self._params = present, self.model.params
            self._changing = layers_that_change(self.model.layers)


def _fingerprint(layers: Sequence[Layer], found: list[Any]) -> None:
    """Add all that plans are made from: every layer, and of those that they know all that its attributes name.

    What other layers keep may change with every forward pass; of them only the parameters count.
    """
    for layer in layers:
        attributes = vars(layer)
        known = is_known(layer)
        found += [layer, type(layer), known]
        if not known:
            found += layer.params if isinstance(layer, LayerWithParameters) else []
            continue
        if "_memory" in attributes:  # changes with every forward pass
            attributes = {name: value for name, value in attributes.items() if name != "_memory"}
        found += attributes.values()
        _fingerprint(layer.children(), found)
