"""Layers in a row as one layer, and the residual connection around them."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple

from mlp.backend import Array
from mlp.checks import ShapeError, check_same_shape
from mlp.layers.base import (
    Layer,
    LayerWithParameters,
    StochasticLayer,
    StochasticLayerWithParameters,
    assign,
    forward,
    walk,
)


class MissingReturnError(TypeError):
    """A backward pass returned None."""


class Activations(NamedTuple):
    """What a chain took and gave, and what every layer of it put out."""

    inputs: Array
    outputs: Array
    inner: list[Array]


class ContainerLayer(StochasticLayerWithParameters):
    """A layer made of layers, its `children`. Its parameters are theirs, in order."""

    rng = None

    def own_param_names(self) -> tuple[str, ...]:
        """Return no names: a container's parameters are its layers'."""
        return ()

    @property
    def params(self) -> list[Array]:
        """The parameters of all layers, in order. Setting copies the values into the present arrays."""
        return chain_params(self.children())

    @params.setter
    def params(self, values: Sequence[Array]) -> None:
        set_chain_params(repr(self), self.children(), values)

    def params_penalty(self) -> Any:
        """Return the sum of the penalties on all layers' parameters."""
        return sum(layer.params_penalty() for layer in self.children() if isinstance(layer, LayerWithParameters))

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx, through all layers."""
        grads_wrt_inputs, _ = self.backprop(inputs, outputs, grads_wrt_outputs)
        assert grads_wrt_inputs is not None
        return grads_wrt_inputs

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return the gradients of all layers' parameters, in the order of `params`."""
        return self._backprop(inputs, None, grads_wrt_outputs, need_inputs=False)[1]

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/dx or None, [dE/d parameter, ...])."""
        return self._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)

    def _backprop(
        self, inputs: Array, outputs: Array | None, grads_wrt_outputs: Array, need_inputs: bool
    ) -> tuple[Array | None, list[Array]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.children())})"


class ChainLayer(ContainerLayer):
    """Layers applied one after the other: y = f_L(... f_1(x)). Its parameters are its layers', in order."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = check_layers(type(self).__name__, layers)

    def children(self) -> Sequence[Layer]:
        """Return the layers of the chain."""
        return self.layers

    def fprop(self, inputs: Array, stochastic: bool = True) -> Array:
        """Return the last layer's outputs."""
        inner = chain_fprop(self.layers, inputs, stochastic)
        outputs = self._outputs(inputs, inner[-1])
        self.remember(Activations(inputs, outputs, inner))
        return outputs

    def _backprop(
        self, inputs: Array, outputs: Array | None, grads_wrt_outputs: Array, need_inputs: bool
    ) -> tuple[Array | None, list[Array]]:
        inner = self.remembered(Activations, inputs, outputs).inner
        check_same_shape(f"{type(self).__name__}.bprop: grads_wrt_outputs", grads_wrt_outputs, inner[-1])
        return chain_backprop(self.layers, inner, grads_wrt_outputs, need_inputs)

    def _outputs(self, inputs: Array, last: Array) -> Array:
        """Return the chain's outputs, from its inputs and its last layer's outputs."""
        return last


class ResidualLayer(ChainLayer):
    """A residual connection around a chain: y = x + F(x), F the layers in a row.

    F must keep the shape. dE/dx = dE/dy + dE/dF dF/dx: the gradient has a way around F that does not shrink it. He,
    Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016, equation 1.
    """

    def _outputs(self, inputs: Array, last: Array) -> Array:
        """Return x + F(x)."""
        if last.shape != inputs.shape:
            raise ShapeError(
                f"ResidualLayer.fprop: F(x) has shape {last.shape} and x {inputs.shape}: F must keep the shape"
            )
        return inputs + last

    def _backprop(
        self, inputs: Array, outputs: Array | None, grads_wrt_outputs: Array, need_inputs: bool
    ) -> tuple[Array | None, list[Array]]:
        """Return (dE/dy + F's own dE/dx, [dE/d parameter, ...])."""
        through, grads = super()._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return (None if through is None else grads_wrt_outputs + through), grads


def check_layers(who: str, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers as a list; raise TypeError or ValueError unless they are distinct layers, at least one."""
    layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]  # type: ignore[list-item]
    wrong = [layer for layer in layers if not isinstance(layer, Layer)]
    if wrong or not layers:
        raise TypeError(f"{who}: layers holds {wrong[0]!r}, no Layer" if wrong else f"{who}: layers is empty")
    modal = [layer for layer in layers if "stochastic" in signature(layer.fprop).parameters]
    wrong = [layer for layer in modal if not isinstance(layer, StochasticLayer)]
    if wrong:
        raise TypeError(
            f"{who}: {wrong[0]!r} takes `stochastic` and is no StochasticLayer, so evaluation would miss it"
        )
    leaves = [id(leaf) for layer in layers for leaf in walk(layer)]
    if len(set(leaves)) < len(leaves):
        raise ValueError(f"{who}: one layer object is there twice: build a layer for each place")
    return layers


def chain_fprop(layers: Sequence[Layer], inputs: Array, stochastic: bool) -> list[Array]:
    """Return [inputs, outputs of the first layer, ..., outputs of the last]."""
    activations = [inputs]
    for layer in layers:
        activations.append(forward(layer, activations[-1], stochastic))
    return activations


def chain_backprop(
    layers: Sequence[Layer], activations: Sequence[Array], grads_wrt_outputs: Array, need_inputs: bool
) -> tuple[Array | None, list[Array]]:
    """Return (dE/d inputs or None, the gradients of all parameters in order) for a forward pass's activations."""
    if len(activations) != len(layers) + 1:
        raise ShapeError(f"{len(activations)} activations for {len(layers)} layers, expected all that fprop returned")
    grads: Array | None = grads_wrt_outputs
    grads_wrt_params: list[Array] = []
    for i in reversed(range(len(layers))):
        assert grads is not None
        needed = need_inputs or i > 0
        grads, of_layer = layers[i].backprop(activations[i], activations[i + 1], grads, needed)
        if (needed and grads is None) or of_layer is None:
            method = "bprop" if of_layer is not None else "grads_wrt_params"
            raise MissingReturnError(f"{layers[i]!r}.{method} returned None: is a return missing?")
        if not isinstance(of_layer, (list, tuple)):
            what = type(of_layer).__name__
            raise TypeError(
                f"{layers[i]!r}.grads_wrt_params returned one {what}, expected a list with one per parameter"
            )
        grads_wrt_params[:0] = of_layer
    return (grads if need_inputs else None), grads_wrt_params


def chain_params(layers: Sequence[Layer]) -> list[Array]:
    """Return the parameters of all layers, in order."""
    return [param for layer in layers if isinstance(layer, LayerWithParameters) for param in layer.params]


def set_chain_params(who: str, layers: Sequence[Layer], values: Sequence[Array]) -> None:
    """Copy values into the parameters of all layers, in order."""
    count = len(chain_params(layers))
    if len(values) != count:
        raise ShapeError(f"{who}.params: {len(values)} arrays, expected {count}")
    assign([f"{who}.params[{i}]" for i in range(count)], chain_params(layers), values)
