"""Models: layers with the passes through all of them."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Self

from mlp.backend import Array
from mlp.checks import check_array
from mlp.kernels import Pieces, zeros_like_all
from mlp.layers.base import Layer, LayerWithParameters, layers_astype, layers_to_device, walk
from mlp.layers.chain import chain_backprop, chain_fprop, chain_params, check_layers, set_chain_params


class Model:
    """Layers in a row. Forward gives every activation, and backward takes them."""

    _pieces: Pieces | None = None

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = check_layers(type(self).__name__, layers)

    @property
    def params(self) -> list[Array]:
        """The parameters of all layers, in order. Setting copies the values into the present arrays."""
        return chain_params(self.layers)

    @params.setter
    def params(self, values: Sequence[Array]) -> None:
        set_chain_params(type(self).__name__, self.layers, values)

    def fprop(self, inputs: Array, evaluation: bool = False, stochastic: bool | None = None) -> list[Array]:
        """Return [inputs, outputs of the first layer, ..., outputs of the last].

        `evaluation` runs dropout and batch normalisation in evaluation mode. (`stochastic` is its opposite, the
        coursework's older spelling.) Raises DeviceMixError where inputs and parameters lie on two devices.
        """
        if evaluation and stochastic:
            raise ValueError(f"{type(self).__name__}.fprop: evaluation and stochastic are opposites, and both are true")
        self.check_inputs(inputs, self.params)
        return chain_fprop(self.layers, inputs, not evaluation if stochastic is None else stochastic)

    def check_inputs(self, inputs: Array, params: Sequence[Array]) -> None:
        """Raise DTypeError unless the inputs are an array, DeviceMixError unless they lie where the parameters do."""
        check_array(f"{type(self).__name__}.fprop: inputs", inputs, like=params[0] if params else None)

    def grads_wrt_params(self, activations: Sequence[Array], grads_wrt_outputs: Array) -> list[Array]:
        """Return the gradients of all parameters, in the order of `params`, for the activations of `fprop`."""
        return chain_backprop(self.layers, activations, grads_wrt_outputs, need_inputs=False)[1]

    def bprop(self, activations: Sequence[Array], grads_wrt_outputs: Array) -> tuple[Array, list[Array]]:
        """Return (dE/d inputs, the gradients of all parameters) for the activations of `fprop`."""
        grads, grads_wrt_params = chain_backprop(self.layers, activations, grads_wrt_outputs, need_inputs=True)
        assert grads is not None
        return grads, grads_wrt_params

    def params_penalty(self) -> Any:
        """Return the sum of the penalties on all parameters."""
        return sum(layer.params_penalty() for layer in self.layers if isinstance(layer, LayerWithParameters))

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield (name, layer) for every layer with content of its own, in order, containers opened.

        A layer without a name is called by its class and its place, as in ``AffineLayer_2``.
        """
        leaves = [leaf for layer in self.layers for leaf in walk(layer)]
        for i, leaf in enumerate(leaves):
            yield leaf.name or f"{type(leaf).__name__}_{i}", leaf

    def named_arrays(self) -> dict[str, Array]:
        """Return every array of the trained model, ``{"layer.weights": array, ...}``: parameters and state."""
        arrays = {
            f"{name}.{key}": getattr(layer, key) for name, layer in self.named_layers() for key in layer.array_names()
        }
        expected = sum(len(layer.array_names()) for _, layer in self.named_layers())
        if len(arrays) != expected:
            raise ValueError(f"{type(self).__name__}: two layers have one name; give each layer a name of its own")
        return arrays

    def param_keys(self) -> list[tuple[str, str, bool]]:
        """Return, for each array of `params`: its layer's name, its own, and whether it is an offset (bias, beta)."""
        return [
            (name, key, key in layer.bias_names)
            for name, layer in self.named_layers()
            if isinstance(layer, LayerWithParameters)
            for key in layer.array_names()[: len(layer.params)]
        ]

    def astype(self, dtype: Any) -> Self:
        """Return a copy of the model whose parameters and state have this dtype."""
        return self._with_layers(layers_astype(self.layers, dtype))

    def to_device(self, device: str) -> Self:
        """Return a copy of the model on ``"cpu"`` or ``"gpu"``.

        On a GPU the parameters are views of one array, which a learning rule can change in one pass: `flat_params`.
        """
        clone = self._with_layers(layers_to_device(self.layers, device))
        if device == "gpu":
            clone._flatten()
        return clone

    def to_gpu(self) -> Self:
        """Return a copy of the model on the GPU. Raises DeviceError where there is none that can be used."""
        return self.to_device("gpu")

    def to_cpu(self) -> Self:
        """Return a copy of the model on the CPU."""
        return self.to_device("cpu")

    def flat_params(self) -> Array | None:
        """Return the array that all parameters are views of, in order; None where they are arrays of their own."""
        pieces, params = self._pieces, self.params
        if not isinstance(pieces, Pieces) or len(pieces) != len(params) or not all(map(operator.is_, pieces, params)):
            return None
        return pieces.flat

    def _flatten(self) -> None:
        """Make the parameters views of one array."""
        params = self.params
        pieces = zeros_like_all(params) if params else None
        if not isinstance(pieces, Pieces) or len({id(param) for param in params}) < len(params):
            return
        views = iter(pieces)
        for layer in (leaf for top in self.layers for leaf in walk(top) if isinstance(leaf, LayerWithParameters)):
            for name in layer.own_param_names():
                view = next(views)
                view[...] = getattr(layer, name)
                setattr(layer, name, view)
        self._pieces = pieces

    def _with_layers(self, layers: list[Layer]) -> Self:
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone.layers, clone._pieces = layers, None
        return clone


class SingleLayerModel(Model):
    """A model of one layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__([layer])

    @property
    def layer(self) -> Layer:
        """The layer."""
        return self.layers[0]

    def __repr__(self) -> str:
        return f"SingleLayerModel({self.layer!r})"


class MultipleLayerModel(Model):
    """A model of layers in a row.

    >>> import numpy as np
    >>> from mlp.layers import AffineLayer, ReluLayer
    >>> from mlp.models import MultipleLayerModel
    >>> model = MultipleLayerModel([AffineLayer(4, 3), ReluLayer(), AffineLayer(3, 2)])
    >>> activations = model.fprop(np.ones((5, 4)))
    >>> [activation.shape for activation in activations]
    [(5, 4), (5, 3), (5, 3), (5, 2)]
    >>> grads = model.grads_wrt_params(activations, np.ones((5, 2)))
    >>> [grad.shape for grad in grads] == [param.shape for param in model.params]
    True
    """

    def __repr__(self) -> str:
        lines = "\n    ".join(str(layer) for layer in self.layers)
        return f"MultiLayerModel(\n    {lines}\n)"
