"""Normalisation within each example: layer, group, and local response normalisation. No batch statistics."""

from typing import NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.checks import ShapeError, check_number, check_positive_int, check_same_shape, check_shape, check_sizes
from mlp.initialisers import ConstantInit
from mlp.kernels import Moments, moments
from mlp.layers.base import Layer, LayerWithParameters, Shape


class ExampleStatistics(NamedTuple):
    """What a layer normalised its inputs with, one row for every normalised group."""

    inputs: Array
    outputs: Array
    moments: Moments


class _ExampleNormalizationLayer(LayerWithParameters):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta, mean and (biased) var over groups of M numbers of an example.

    The same in training and in evaluation. `gamma` starts at 1 and `beta` at 0.
    """

    param_names = ("gamma", "beta")
    bias_names = ("beta",)

    def __init__(self, params_shape: Shape, epsilon: float) -> None:
        self.epsilon = check_number(f"{type(self).__name__}: epsilon", epsilon, 0.0, low_open=True)
        self.gamma, self.beta = ConstantInit(1.0)(params_shape), ConstantInit(0.0)(params_shape)

    def fprop(self, inputs: Array) -> Array:
        """Return y, of x's shape."""
        self._check("fprop", inputs)
        rows = inputs if inputs.dtype.kind in "fc" else inputs.astype(np.float64)
        rows = rows.reshape(-1, self._group_size(inputs))
        centred, found = moments(rows, rows[:, :1], _mean)
        centred /= found.std(self.epsilon)
        normalised = centred.reshape(inputs.shape)
        outputs = normalised * self._spread(self.gamma, inputs) + self._spread(self.beta, inputs)
        self.remember(ExampleStatistics(inputs, outputs, found))
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx = 1 / std (g - mean(g) - xhat mean(g xhat)), g = gamma dE/dy, means over each group."""
        self._check("bprop", inputs, grads_wrt_outputs)
        normalised, inverse_std = self._normalised(inputs, outputs)
        grads = (grads_wrt_outputs * self._spread(self.gamma, inputs)).reshape(normalised.shape)
        grads = grads - _mean(grads) - normalised * _mean(grads * normalised)
        return (inverse_std * grads).reshape(inputs.shape)

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/dgamma = sum of xhat dE/dy, dE/dbeta = sum of dE/dy]."""
        self._check("grads_wrt_params", inputs, grads_wrt_outputs)
        normalised = self._normalised(inputs)[0].reshape(inputs.shape)
        return [self._collected(grads_wrt_outputs * normalised), self._collected(grads_wrt_outputs)]

    def _normalised(self, inputs: Array, outputs: Array | None = None) -> tuple[Array, Array]:
        """Return xhat and 1 / std, a row for each group."""
        found = self.remembered(ExampleStatistics, inputs, outputs).moments
        std = found.std(self.epsilon)
        return found.centred(inputs.reshape(len(std), -1)) / std, found.unit / std

    def _group_size(self, inputs: Array) -> int:
        """Return M."""
        raise NotImplementedError

    def _spread(self, parameter: Array, inputs: Array) -> Array:
        """Return a parameter in a shape that broadcasts against the inputs."""
        return parameter

    def _collected(self, grads: Array) -> Array:
        """Return the sum of grads, of the inputs' shape, over all that shares one parameter."""
        raise NotImplementedError

    def _check(self, method: str, inputs: Array, *grads_wrt_outputs: Array) -> None:
        who = f"{type(self).__name__}.{method}"
        check_shape(f"{who}: inputs", inputs, self._expected(inputs), like=self.gamma)
        if 0 in inputs.shape:
            raise ShapeError(f"{who}: inputs has shape {inputs.shape}: an axis is empty")
        for grads in grads_wrt_outputs:
            check_same_shape(f"{who}: grads_wrt_outputs", grads, inputs)

    def _expected(self, inputs: Array) -> tuple[int | str, ...]:
        raise NotImplementedError


class LayerNormalizationLayer(_ExampleNormalizationLayer):
    """Layer normalisation over the last axes of an example: y = gamma (x - mean) / sqrt(var + epsilon) + beta.

    x (N, ..., *normalized_shape); mean and (biased) var over the axes of `normalized_shape`, a whole number or a
    tuple; `gamma` and `beta` of that shape, 1 and 0 at first. The same in training and in evaluation.

    Ba, Kiros and Hinton, Layer normalization, 2016, equations 3 and 4.
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], epsilon: float = 1e-5) -> None:
        axes = len(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else 1
        self.normalized_shape = check_sizes("LayerNormalizationLayer: normalized_shape", normalized_shape, axes)
        if not self.normalized_shape:
            raise ValueError("LayerNormalizationLayer: normalized_shape is empty, expected one size or more")
        super().__init__(self.normalized_shape, epsilon)

    def _group_size(self, inputs: Array) -> int:
        return int(self.gamma.size)

    def _collected(self, grads: Array) -> Array:
        return grads.reshape(-1, *self.normalized_shape).sum(axis=0)

    def _expected(self, inputs: Array) -> tuple[int | str, ...]:
        between = getattr(inputs, "ndim", 0) - 1 - len(self.normalized_shape)
        return "N", *(f"A{i}" for i in range(1, between + 1)), *self.normalized_shape

    def __repr__(self) -> str:
        return f"LayerNormalizationLayer(normalized_shape={self.normalized_shape})"


class GroupNormalizationLayer(_ExampleNormalizationLayer):
    """Group normalisation of (N, C, ...): mean and (biased) var of each example over each group of C / G channels.

        y = gamma (x - mean) / sqrt(var + epsilon) + beta

    G = `num_groups` divides C = `num_channels`; `gamma` and `beta` (C,), 1 and 0 at first. One group is layer
    normalisation with parameters per channel, C groups are instance normalisation. The same in training and in
    evaluation. Wu and He, Group normalization, ECCV 2018, section 3.
    """

    def __init__(self, num_groups: int, num_channels: int, epsilon: float = 1e-5) -> None:
        self.num_groups = check_positive_int("GroupNormalizationLayer: num_groups", num_groups)
        self.num_channels = check_positive_int("GroupNormalizationLayer: num_channels", num_channels)
        if self.num_channels % self.num_groups:
            raise ValueError(f"GroupNormalizationLayer: {num_groups} groups do not divide {num_channels} channels")
        super().__init__((self.num_channels,), epsilon)

    def _group_size(self, inputs: Array) -> int:
        return int(inputs[0].size) // self.num_groups

    def _spread(self, parameter: Array, inputs: Array) -> Array:
        return parameter.reshape(-1, *[1] * (inputs.ndim - 2))

    def _collected(self, grads: Array) -> Array:
        return grads.reshape(*grads.shape[:2], -1).sum(axis=2).sum(axis=0)

    def _expected(self, inputs: Array) -> tuple[int | str, ...]:
        return "N", self.num_channels, "..."

    def __repr__(self) -> str:
        return f"GroupNormalizationLayer(num_groups={self.num_groups}, num_channels={self.num_channels})"


class LocalResponseNormalizationLayer(Layer):
    """Local response normalisation across neighbouring channels of (N, C, ...).

        y_c = x_c / s_c^beta,   s_c = bias + alpha / size sum of x_j^2

    over the channels j from c - floor((size - 1) / 2) to c + ceil((size - 1) / 2) that exist.
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012,
    section 3.3. There alpha is not divided by the size; here, in ONNX and in PyTorch it is. For an even size the window
    is ONNX's, which reaches one channel further up than down; PyTorch's is the other way round.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> None:
        who = "LocalResponseNormalizationLayer"
        self.size = check_positive_int(f"{who}: size", size)
        self.alpha = check_number(f"{who}: alpha", alpha, 0.0)
        self.beta = check_number(f"{who}: beta", beta, 0.0)
        self.bias = check_number(f"{who}: bias", bias, 0.0, low_open=True)

    def fprop(self, inputs: Array) -> Array:
        """Return y, of x's shape."""
        check_shape("LocalResponseNormalizationLayer.fprop: inputs", inputs, ("N", "C", "..."))
        return inputs * self._scales(inputs) ** -self.beta

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx_j = g_j s_j^-beta - 2 alpha beta / size x_j (sum of g_c y_c / s_c, all c that see j)."""
        check_shape("LocalResponseNormalizationLayer.bprop: inputs", inputs, ("N", "C", "..."))
        for name, array in (("outputs", outputs), ("grads_wrt_outputs", grads_wrt_outputs)):
            check_same_shape(f"LocalResponseNormalizationLayer.bprop: {name}", array, inputs)
        scales = self._scales(inputs)
        seen = _windowed_sum(grads_wrt_outputs * outputs / scales, self.size // 2, (self.size - 1) // 2)
        return grads_wrt_outputs * scales**-self.beta - (2.0 * self.alpha * self.beta / self.size) * inputs * seen

    def _scales(self, inputs: Array) -> Array:
        """Return s."""
        squares = _windowed_sum(inputs * inputs, (self.size - 1) // 2, self.size // 2)
        return self.bias + (self.alpha / self.size) * squares

    def __repr__(self) -> str:
        values = f"size={self.size}, alpha={self.alpha}, beta={self.beta}, bias={self.bias}"
        return f"LocalResponseNormalizationLayer({values})"


def _mean(rows: Array) -> Array:
    return rows.mean(axis=1, keepdims=True)


def _windowed_sum(x: Array, before: int, after: int) -> Array:
    """Return, for each channel c of (N, C, ...), the sum of the channels c - before .. c + after that exist."""
    total, channels = x.copy(), x.shape[1]
    for shift in (shift for shift in range(-before, after + 1) if 0 < abs(shift) < channels):
        here, there = slice(max(0, -shift), channels - max(0, shift)), slice(max(0, shift), channels + min(0, shift))
        total[:, here] += x[:, there]
    return total
