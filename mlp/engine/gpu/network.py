"""A model as the GPU sees it: units of a main layer with what follows it, fused, on numbered values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mlp.engine.catalogue import output_shape
from mlp.kernels import Sizes
from mlp.layers import (
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    Layer,
    LayerWithParameters,
    LeakyReluLayer,
    ReluLayer,
    ResidualLayer,
)


@dataclass(eq=False)
class Value:
    """A feature map, or rows, between two units. `shape` is that of one example, (H, W, C) or (D,).

    `readers` counts who reads it. `slope` is that of the activation that it comes out of for inputs <= 0; None without
    one: where it is known, the gradient by the activation's inputs can be read off the outputs' sign.
    """

    shape: Sizes
    readers: int = 0
    slope: float | None = None

    @property
    def channels(self) -> int:
        """The number of channels, or of features."""
        return self.shape[-1]

    def pixels(self, n: int) -> int:
        """Return how many rows of channels n examples have."""
        return n * prod(self.shape[:-1])


@dataclass(eq=False)
class Unit:
    """A main layer (None: none), a batch normalisation after a convolution, a sum with `skip`, an activation."""

    main: Any
    inputs: Value
    outputs: Value
    norm: Any = None
    skip: Value | None = None

    @property
    def slope(self) -> float:
        """The slope of the activation for inputs <= 0; 1 without one."""
        return 1.0 if self.outputs.slope is None else self.outputs.slope

    @property
    def activated(self) -> Value | None:
        """The outputs, where an activation made them."""
        return None if self.outputs.slope is None else self.outputs

    def layers(self) -> list[LayerWithParameters]:
        """Return the layers with parameters, in order."""
        return [layer for layer in (self.main, self.norm) if isinstance(layer, LayerWithParameters)]

    @property
    def label(self) -> str:
        """What to call it: the name of its first layer."""
        layer = self.main if self.main is not None else self.norm
        return "sum" if layer is None else layer.name or repr(layer)


@dataclass(eq=False)
class _Node:
    """A layer, or None: the sum of `inputs` and `skip`."""

    layer: Layer | None
    inputs: Value
    outputs: Value
    skip: Value | None = None


class Network:
    """Layers in a row as units, for a batch of examples of a shape (H, W, C) or (D,)."""

    def __init__(self, layers: Sequence[Layer], shape: Sizes, batch: int) -> None:
        self._batch = batch
        self.inputs = Value(shape, readers=0)
        self._nodes: list[_Node] = []
        self.outputs = self._flatten(layers, self.inputs)
        for node in self._nodes:
            node.inputs.readers += 1
            if node.skip is not None:
                node.skip.readers += 1
        self.outputs.readers += 1
        self.units = list(self._units())

    def _flatten(self, layers: Sequence[Layer], value: Value) -> Value:
        for layer in layers:
            if isinstance(layer, ChainLayer):
                inside = self._flatten(layer.layers, value)
                if isinstance(layer, ResidualLayer):
                    total = Value(inside.shape)
                    self._nodes.append(_Node(None, inside, total, skip=value))
                    inside = total
                value = inside
            else:
                outputs = Value(_after(layer, value.shape, self._batch))
                self._nodes.append(_Node(layer, value, outputs))
                value = outputs
        return value

    def _units(self) -> Iterator[Unit]:
        """Yield units: convolution [- normalisation] [- sum] [- activation], and what else there is, with its tail."""
        nodes = list(self._nodes)
        while nodes:
            node = nodes.pop(0)
            if isinstance(node.layer, ReluLayer | LeakyReluLayer) or node.layer is None:
                unit = Unit(None, node.inputs, node.outputs, skip=node.skip)
                if node.layer is not None:
                    unit.outputs.slope = slope_of(node.layer)
            elif isinstance(node.layer, BatchNormalizationLayer):
                unit = Unit(None, node.inputs, node.outputs, norm=node.layer)
            else:
                unit = Unit(node.layer, node.inputs, node.outputs)
            self._take(unit, nodes)
            yield unit

    def _take(self, unit: Unit, nodes: list[_Node]) -> None:
        """Take the nodes that follow into a unit, where nobody else reads what comes between."""
        while nodes and nodes[0].inputs is unit.outputs and unit.outputs.readers == 1 and unit.outputs.slope is None:
            following = nodes[0].layer
            convolution = type(unit.main) in (Convolution2DLayer, ConvolutionalLayer)
            if (
                isinstance(following, BatchNormalizationLayer)
                and convolution
                and unit.norm is None
                and unit.skip is None
            ):
                unit.norm = following
            elif following is None and unit.skip is None and takes_tail(unit) and nodes[0].skip is not unit.outputs:
                unit.skip = nodes[0].skip
            elif isinstance(following, ReluLayer | LeakyReluLayer) and takes_tail(unit):
                nodes[0].outputs.slope = slope_of(following)
            else:
                return
            unit.outputs = nodes.pop(0).outputs


def takes_tail(unit: Unit) -> bool:
    """Return whether a unit can end with a sum or an activation: convolutions, normalisations and sums can."""
    return unit.main is None or type(unit.main) in (Convolution2DLayer, ConvolutionalLayer)


def slope_of(layer: Layer) -> float:
    """Return the slope of an activation for inputs <= 0."""
    return float(layer.alpha) if isinstance(layer, LeakyReluLayer) else 0.0


def _after(layer: Layer, shape: Sizes, batch: int) -> Sizes:
    """Return the shape (H, W, C) or (D,) of one example of a layer's outputs."""
    first = output_shape(layer, (shape[-1], *shape[:-1]), batch)
    assert first is not None
    return (*first[1:], first[0])
