"""Which layers a plan knows, which step runs them, and what shape comes out."""

from typing import Any

import numpy as np

from mlp.engine.builder import Step
from mlp.engine.steps.convolution import ConvolutionStep
from mlp.engine.steps.elementwise import ReluStep
from mlp.engine.steps.normalisation import BatchNormStep
from mlp.engine.steps.pooling import AveragePoolingStep, GlobalAverageStep
from mlp.engine.steps.rows import AffineStep, LayerStep
from mlp.kernels import Sizes
from mlp.layers import (
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LayerWithParameters,
    LeakyReluLayer,
    ReluLayer,
    ResidualLayer,
    StochasticLayer,
)

_KNOWN = {
    AffineLayer,
    BatchNormalizationLayer,
    ChainLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    ResidualLayer,
}


def output_shape(layer: Layer, shape: Sizes, batch: int, gpu: bool = False) -> Sizes | None:
    """Return the shape of one example of a layer's outputs, or None where a plan cannot run the layer on `shape`.

    Only the very classes of this library are known: a subclass may do something else, and runs as it is. Plans on a
    GPU know no layers that run by their own passes in shards.
    """
    if type(layer) in (ChainLayer, ResidualLayer) and is_known(layer):
        inside: Sizes | None = shape
        for child in layer.children():
            inside = None if inside is None else output_shape(child, inside, batch, gpu)
        return inside if type(layer) is ChainLayer or inside == shape else None
    kind = _step_type(layer, shape, batch)
    if gpu and kind is LayerStep:
        return None
    if kind in (ReluStep, BatchNormStep):
        return shape
    if kind is ConvolutionStep:
        return (layer.num_output_channels, *layer.output_size(shape[1:]))  # type: ignore[attr-defined]
    if kind is AffineStep:
        return (layer.output_dim,)  # type: ignore[attr-defined]
    if kind is AveragePoolingStep:
        return (shape[0], *(length // size for length, size in zip(shape[1:], layer.size, strict=True)))  # type: ignore[attr-defined]
    return shape[:1] if kind is GlobalAverageStep else _shape_of_one(layer, shape) if kind is LayerStep else None


def is_known(layer: Layer) -> bool:
    """Return whether plans run layers of this class at all; not where the object has passes of its own."""
    if {"fprop", "bprop", "backprop", "grads_wrt_params"} & vars(layer).keys():
        return False
    return type(layer) in _KNOWN or _runs_in_shards(layer)


def step_for(layer: Layer, shape: Sizes, batch: int, label: str) -> Step:
    """Return a new step for a layer that `output_shape` accepts."""
    kind = _step_type(layer, shape, batch)
    assert kind is not None
    return kind(layer, label)


def _step_type(layer: Layer, shape: Sizes, batch: int) -> type[Step] | None:
    is_map = len(shape) == 3
    if not is_known(layer) or not _arrays_have_their_shapes(layer):
        return None
    match layer:
        case _ if type(layer) in (Convolution2DLayer, ConvolutionalLayer):
            return ConvolutionStep if _convolution_fits(layer, shape) else None
        case BatchNormalizationLayer() if type(layer) is BatchNormalizationLayer:
            fits = len(shape) in (1, 3) and shape[0] == layer.input_dim and batch * int(np.prod(shape[1:])) > 1
            return BatchNormStep if fits else None
        case AffineLayer() if type(layer) is AffineLayer:
            return AffineStep if shape == (layer.input_dim,) else None
        case AveragePooling2DLayer() if type(layer) is AveragePooling2DLayer and is_map and _tiles(layer, shape):
            return AveragePoolingStep
        case GlobalAveragePooling2DLayer() if type(layer) is GlobalAveragePooling2DLayer and is_map:
            return GlobalAverageStep
        case ReluLayer() if type(layer) is ReluLayer:
            return ReluStep
        case LeakyReluLayer() if type(layer) is LeakyReluLayer and 0.0 <= layer.alpha <= 1.0:
            return ReluStep
    return LayerStep if _runs_in_shards(layer) and _axis_of(layer, shape) != 0 else None


def _arrays_have_their_shapes(layer: Any) -> bool:
    """Return whether parameters and state have the layer's shapes; others are for the layer to take or refuse."""
    kind, expected = type(layer), dict[str, Sizes]()
    if kind is BatchNormalizationLayer:
        expected = dict.fromkeys(kind.param_names + kind.state_names, (layer.input_dim,))
    elif kind is AffineLayer:
        expected = {"weights": (layer.output_dim, layer.input_dim), "biases": (layer.output_dim,)}
    elif kind in (Convolution2DLayer, ConvolutionalLayer):
        filters, geometry = layer.num_output_channels, layer.geometry
        expected = {"kernels": (filters, layer.num_input_channels // geometry.groups, *geometry.kernel)}
        if layer.biases is not None:
            expected["biases"] = (filters,)
    return all(getattr(getattr(layer, name), "shape", None) == shape for name, shape in expected.items())


def _convolution_fits(layer: Any, shape: Sizes) -> bool:
    if len(shape) != 3 or shape[0] != layer.num_input_channels or layer.geometry.groups > 1:
        return False
    expected = layer.inputs_shape[1:] if isinstance(layer, ConvolutionalLayer) else shape
    return shape == tuple(expected) and min(layer.output_size(shape[1:])) > 0


def _tiles(layer: AveragePooling2DLayer, shape: Sizes) -> bool:
    """Return whether the windows neither overlap nor leave a pixel out."""
    geometry = layer.geometry
    whole = all(length % size == 0 and length for length, size in zip(shape[1:], layer.size, strict=True))
    plain = layer.stride == layer.size and not any(map(any, geometry.padding)) and set(geometry.dilation) == {1}
    return whole and plain


def _runs_in_shards(layer: Layer) -> bool:
    """Return whether a class says so itself: what a subclass elsewhere inherits may not be true of it."""
    kind = type(layer)
    if isinstance(layer, LayerWithParameters | StochasticLayer):
        return False
    return kind.runs_in_shards and (kind.__module__.startswith("mlp.layers.") or "runs_in_shards" in vars(kind))


def _axis_of(layer: Layer, shape: Sizes) -> int:
    """Return the axis that a layer works along, counted from the batch's; 1 where it has none."""
    axis: int = getattr(layer, "axis", 1)
    return axis + len(shape) + 1 if axis < 0 else axis


def _shape_of_one(layer: Layer, shape: Sizes) -> Sizes | None:
    try:
        with np.errstate(all="ignore"):
            return tuple(layer.fprop(np.ones((1, *shape))).shape[1:])
    except (ValueError, TypeError):  # the layer itself will say it to the user
        return None
