"""The contract of a layer, stated once.

A layer is a differentiable function of a batch. It computes forward with `fprop` and backward with `bprop`, which
gets the forward pass's own arrays handed back, so that most layers keep nothing between the two. What a layer must
remember (a dropout mask, batch statistics) it binds to the very array it belongs to, with `remembered`.

Conventions, the coursework's: `grads_wrt_outputs` already holds the 1/N of the error, so layers sum over the batch;
the gradient of a penalty is added in `grads_wrt_params`, once per batch. Computation follows the data: the dtype and
the device of inputs and parameters, any float or complex dtype, NumPy or CuPy.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from mlp.backend import Array, device_of, to_device
from mlp.checks import ShapeError, StaleStateError, check_shape
from mlp.rng import Rng, default_rng

Shape = tuple[int, ...]
M = TypeVar("M", bound=tuple[Any, ...])


class Penalty(Protocol):
    """A penalty on a parameter: `penalty(parameter)` is its value and `grad` its gradient."""

    def __call__(self, parameter: Array) -> Any: ...  # noqa: D102

    def grad(self, parameter: Array) -> Array: ...  # noqa: D102


class Layer:
    """A differentiable function of a batch, without parameters.

    A subclass writes `fprop` and `bprop`; that is all that a model needs. `name` labels it in tables and files.
    """

    name: str | None = None
    state_names: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that are no parameters and still belong to the trained layer, in order."""
    gives_subgradients: ClassVar[bool] = True
    """Whether `bprop` gives a sub-gradient at kinks and ties; false where a convention asks for something else."""

    runs_in_shards: ClassVar[bool] = False
    """Whether `fprop` and `bprop` treat examples one by one and remember nothing, so that a batch may run in parts."""

    _memory: Any = None

    def fprop(self, inputs: Array) -> Array:
        """Return the layer's outputs for a batch of inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no fprop")

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/d inputs from dE/d outputs, for the `inputs` and `outputs` of a forward pass."""
        raise NotImplementedError(f"{type(self).__name__} has no bprop")

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/d inputs, [dE/d parameter, ...]) of one backward pass.

        What models call. A layer whose two halves share work overrides it; with `need_inputs` false the first may
        be None.
        """
        return (self.bprop(inputs, outputs, grads_wrt_outputs) if need_inputs else None), []

    def children(self) -> Sequence["Layer"]:
        """Return the layers inside this one, in order; none but for containers."""
        return ()

    def array_names(self) -> tuple[str, ...]:
        """Return the names of the arrays that make up the trained layer: parameters, then state."""
        return self.state_names

    def multiply_adds(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return the number of multiply-adds of `fprop` for these shapes, counting matrix products only."""
        return 0

    def astype(self, dtype: Any) -> Self:
        """Return a copy of the layer whose parameters and state have this float or complex dtype."""
        return layers_astype([self], dtype)[0]  # type: ignore[return-value]

    def to_device(self, device: str) -> Self:
        """Return a copy of the layer on ``"cpu"`` or ``"gpu"``."""
        return layers_to_device([self], device)[0]  # type: ignore[return-value]

    def remember(self, memory: tuple[Any, ...]) -> None:
        """Keep a NamedTuple for the backward pass; its first two fields are the inputs and outputs of this `fprop`.

        `remembered` gives it back. Only the last one is kept; it is no part of copies and files.
        """
        self._memory = memory

    def remembered(self, memory: type[M], inputs: Array, outputs: Array | None = None) -> M:
        """Return what the last `fprop` remembered: a tuple `memory` that starts with its inputs and its outputs.

        Raises StaleStateError unless these are that call's inputs and its outputs. Beside its very outputs, inputs may
        be equal ones; without outputs they must be the very inputs, as another pass over equal ones may have had
        another mask or mode. (What a caller changed inside these arrays since then is not seen.)
        """
        known: M = self._memory
        stale = not isinstance(known, memory) or (outputs is not None and known[1] is not outputs)
        if stale or not (known[0] is inputs or (outputs is not None and _equal(known[0], inputs))):
            raise StaleStateError(
                f"{self!r}: the backward pass was asked for with other arrays than those of the last fprop; call "
                f"fprop(inputs) first, and pass on the arrays that it took and returned: no copy of its outputs"
            )
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_memory"}

    def __repr__(self) -> str:
        return type(self).__name__


class LayerWithParameters(Layer):
    """A layer with parameters, which a subclass names in `param_names`, in order, once.

    A parameter that an instance does without is None. Parameters are updated in place and never rebound, so that a
    learning rule and a layer always mean the same arrays.
    """

    param_names: ClassVar[tuple[str, ...]] = ()
    bias_names: ClassVar[tuple[str, ...]] = ("biases",)
    """Which parameters are offsets: left out of gradient-flow figures."""

    def own_param_names(self) -> tuple[str, ...]:
        """Return the names of the parameters that this instance has. Raises TypeError where one is named wrongly."""
        kind = type(self).__name__
        if isinstance(self.param_names, str):
            raise TypeError(f'{kind}.param_names is {self.param_names!r}, expected a tuple: ("{self.param_names}",)')
        missing = [name for name in self.param_names if not hasattr(self, name)]
        if missing:
            raise TypeError(
                f"{kind} names the parameter {missing[0]!r} in param_names, and has no attribute of that name"
            )
        return tuple(name for name in self.param_names if getattr(self, name) is not None)

    def array_names(self) -> tuple[str, ...]:
        """Return the names of the layer's arrays: parameters, then state. Raises TypeError where a name is missing."""
        names = self.own_param_names()
        if len(names) != len(self.params):
            raise TypeError(f"{self!r} has {len(self.params)} params and names {len(names)}: set param_names = (...)")
        return names + self.state_names

    @property
    def params(self) -> list[Array]:
        """The parameters, in the order of `param_names`. Setting copies the values into the present arrays."""
        return [getattr(self, name) for name in self.own_param_names()]

    @params.setter
    def params(self, values: Sequence[Array]) -> None:
        names = self.own_param_names()
        if len(values) != len(names):
            raise ShapeError(f"{self!r}.params: {len(values)} arrays, expected {len(names)}: {', '.join(names)}")
        assign([f"{type(self).__name__}.{name}" for name in names], self.params, values)

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/d parameter, ...] in the order of `params`, penalties included."""
        raise NotImplementedError(f"{type(self).__name__} has no grads_wrt_params")

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/d inputs, [dE/d parameter, ...])."""
        grads_wrt_inputs = self.bprop(inputs, outputs, grads_wrt_outputs) if need_inputs else None
        return grads_wrt_inputs, self.grads_wrt_params(inputs, grads_wrt_outputs)

    def params_penalty(self) -> Any:
        """Return the sum of the penalties on the parameters (0 without any)."""
        return sum(penalty(parameter) for parameter, penalty in self._penalties() if penalty is not None)

    def with_penalties(self, grads: list[Array]) -> list[Array]:
        """Return the gradients of the parameters with the gradients of their penalties added."""
        return [
            grad if penalty is None else grad + penalty.grad(parameter)
            for grad, (parameter, penalty) in zip(grads, self._penalties(), strict=True)
        ]

    def has_penalties(self) -> bool:
        """Return whether any parameter has a penalty."""
        return any(penalty is not None for _, penalty in self._penalties())

    def _penalties(self) -> list[tuple[Array, Penalty | None]]:
        names = self.own_param_names()
        return [(getattr(self, name), getattr(self, f"{name}_penalty", None)) for name in names]


class StochasticLayer(Layer):
    """A layer that does one thing in training (`stochastic` true) and another in evaluation."""

    rng: Rng | None = None

    def __init__(self, rng: Rng | None = None) -> None:
        self.rng = default_rng(rng)

    def fprop(self, inputs: Array, stochastic: bool = True) -> Array:
        """Return the outputs, in training mode or (`stochastic` false) in evaluation mode."""
        raise NotImplementedError(f"{type(self).__name__} has no fprop")


class StochasticLayerWithParameters(StochasticLayer, LayerWithParameters):
    """A layer with parameters that differs between training and evaluation."""


def _equal(known: Array, given: Array) -> bool:
    """Return whether two arrays are equal and of one kind."""
    alike = device_of(known) == device_of(given) and isinstance(given, type(known))
    return alike and known.dtype == given.dtype and known.shape == given.shape and bool((known == given).all())


def assign(whats: Sequence[str], parameters: Sequence[Array], values: Sequence[Array]) -> None:
    """Copy values into parameters; raise ShapeError or TypeError, before any is changed, where one does not fit."""
    for what, parameter, value in zip(whats, parameters, values, strict=True):
        check_shape(what, value, parameter.shape, like=parameter, integers=True)
        if not np.can_cast(value.dtype, parameter.dtype, casting="same_kind"):
            raise TypeError(f"{what} is {parameter.dtype} and cannot hold {value.dtype}: use layer.astype(...) first")
    for parameter, value in zip(parameters, values, strict=True):
        parameter[...] = value


def real_dtype(inputs: Array) -> Any:
    """Return the float dtype in which a layer's constants meet these inputs: theirs, float64 beside integers."""
    return inputs.real.dtype if inputs.dtype.kind in "fc" else np.float64


def initial(what: str, initialiser: Any, shape: Shape) -> Array:
    """Return a new float array of initial values; raise TypeError or ShapeError where the initialiser gives none."""
    if not callable(initialiser):
        raise TypeError(
            f"{what}: the initialiser is {initialiser!r}, expected a function of a shape: ConstantInit(...)?"
        )
    values = initialiser(shape)
    check_shape(f"{what}: the initialiser's array", values, shape, integers=True)
    return values.astype(np.result_type(values, np.float16) if values.dtype.kind in "fc" else np.float64)


def layers_astype(layers: Sequence[Layer], dtype: Any) -> list[Layer]:
    """Return copies of layers whose parameters and state have this dtype; what they share, the copies share."""
    if np.dtype(dtype).kind not in "fc":
        raise TypeError(f"astype: dtype is {dtype!r}, expected a float or complex dtype")
    return _converted(layers, lambda array: array.astype(dtype))


def layers_to_device(layers: Sequence[Layer], device: str) -> list[Layer]:
    """Return copies of layers on ``"cpu"`` or ``"gpu"``; what they share, the copies share."""
    return _converted(layers, lambda array: to_device(array, device))


def _converted(layers: Sequence[Layer], convert: Callable[[Array], Array]) -> list[Layer]:
    clones, converted = copy.deepcopy(list(layers)), dict[int, tuple[Array, Array]]()
    for leaf in (leaf for clone in clones for leaf in walk(clone)):
        for name in leaf.array_names():
            array = getattr(leaf, name)
            if not hasattr(array, "astype"):
                raise TypeError(f"{leaf!r}.{name} is a {type(array).__name__}, expected an array: use np.array(...)")
            if id(array) not in converted:  # layers may share one array: what is tied stays tied
                converted[id(array)] = array, convert(array)
            setattr(leaf, name, converted[id(array)][1])
    return clones


def forward(layer: Layer, inputs: Array, stochastic: bool) -> Array:
    """Return the layer's outputs, passing `stochastic` on to the layers that know it."""
    if isinstance(layer, StochasticLayer):
        return layer.fprop(inputs, stochastic=stochastic)
    return layer.fprop(inputs)


def walk(layer: Layer) -> Iterator[Layer]:
    """Yield the layers with content of their own in this one, in order: itself, or its children's."""
    children = layer.children()
    if not children:
        yield layer
    for child in children:
        yield from walk(child)
