"""Batch normalisation."""

from typing import NamedTuple

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import ShapeError, check_choice, check_number, check_positive_int, check_shape
from mlp.initialisers import ConstantInit
from mlp.kernels import Moments, channels_first, channels_last, moments
from mlp.layers.base import StochasticLayerWithParameters
from mlp.rng import Rng


class BatchStatistics(NamedTuple):
    """What a batch-normalisation layer normalised its inputs with."""

    inputs: Array
    outputs: Array
    moments: Moments
    of_the_batch: bool


class BatchNormalizationLayer(StochasticLayerWithParameters):
    """Batch normalisation of (N, C) inputs, or channel by channel of inputs with spatial axes, as (N, C, H, W).

        y = gamma (x - mean) / sqrt(var + epsilon) + beta

    In training, mean and var (the biased variance) are those of the batch, over N, H and W: m values a channel. In
    evaluation they are the running ones. By default `momentum` weighs the **new** batch, and the running variance
    takes the **unbiased** variance (PyTorch's conventions):

        running <- (1 - momentum) running + momentum (batch mean, or batch var m / (m - 1))

    With `momentum_weighs="running"` it is running <- momentum running + (1 - momentum) batch, and with
    `running_variance="biased"` the batch's var itself: ONNX's conventions are both (and there momentum=0.9).
    Ioffe and Szegedy, Batch normalization, ICML 2015, algorithms 1 and 2. `gamma` starts at 1 and `beta` at 0; `rng` is
    the coursework's and not used.
    """

    param_names = ("gamma", "beta")
    bias_names = ("beta",)
    state_names = ("running_mean", "running_var")
    cache = None
    """The coursework's attribute. What a backward pass needs is remembered with its arrays instead."""

    def __init__(
        self,
        input_dim: int,
        rng: Rng | None = None,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        *,
        momentum_weighs: str = "batch",
        running_variance: str = "unbiased",
    ) -> None:
        self.rng = rng
        who = "BatchNormalizationLayer"
        self.momentum_weighs = check_choice(f"{who}: momentum_weighs", momentum_weighs, ("batch", "running"))
        self.running_variance = check_choice(f"{who}: running_variance", running_variance, ("unbiased", "biased"))
        self.input_dim = check_positive_int("BatchNormalizationLayer: input_dim", input_dim)
        self.epsilon = check_number("BatchNormalizationLayer: epsilon", epsilon, 0.0, low_open=True)
        self.momentum = check_number("BatchNormalizationLayer: momentum", momentum, 0.0, 1.0)
        self.gamma, self.running_var = (ConstantInit(1.0)(self.input_dim) for _ in range(2))
        self.beta, self.running_mean = (ConstantInit(0.0)(self.input_dim) for _ in range(2))

    def fprop(self, inputs: Array, stochastic: bool = True) -> Array:
        """Return y, of x's shape; in training mode (`stochastic`) also update the running statistics."""
        self._check("fprop: inputs", inputs)
        rows = _rows(inputs if inputs.dtype.kind in "fc" else inputs.astype(np.float64))
        if stochastic:
            centred, found = moments(rows, rows[:1, :1], _mean)
            self.update_running(found.mean()[0, 0], found.variance()[0, 0], rows.size // self.input_dim)
        else:
            found = Moments(self.running_mean, 0, self.running_var)
            centred = found.centred(rows)
        outputs = _like(inputs, centred * (self.gamma / found.std(self.epsilon)) + self.beta)
        self.remember(BatchStatistics(inputs, outputs, found, stochastic))
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx = gamma / std (g - mean(g) - xhat mean(g xhat)), g = dE/dy; in evaluation gamma / std g.

        The means are over N, H and W: the batch's own mean and variance depend on x too.
        """
        return self._backprop("bprop", inputs, outputs, grads_wrt_outputs)[0]

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/dgamma = sum of g xhat, dE/dbeta = sum of g]."""
        return self._backprop("grads_wrt_params", inputs, None, grads_wrt_outputs)[1]

    def backprop(
        self, inputs: Array, outputs: Array, grads_wrt_outputs: Array, need_inputs: bool = True
    ) -> tuple[Array, list[Array]]:
        """Return (dE/dx, [dE/dgamma, dE/dbeta])."""
        return self._backprop("backprop", inputs, outputs, grads_wrt_outputs)

    def _backprop(
        self, method: str, inputs: Array, outputs: Array | None, grads_wrt_outputs: Array
    ) -> tuple[Array, list[Array]]:
        self._check(f"{method}: inputs", inputs)
        who = f"BatchNormalizationLayer.{method}"
        check_shape(f"{who}: grads_wrt_outputs", grads_wrt_outputs, inputs.shape, inputs)
        _, _, found, of_the_batch = self.remembered(BatchStatistics, inputs, outputs)
        std = found.std(self.epsilon)
        grads, normalised = _rows(grads_wrt_outputs), found.centred(_rows(inputs))
        normalised /= std
        count = grads.size // self.input_dim
        grad_beta = count * _mean(grads)[0, 0]
        grad_gamma = count * _mean(grads * normalised)[0, 0]
        if of_the_batch:
            normalised *= grad_gamma / count
            grads = grads - grad_beta / count
            grads -= normalised
        return _like(inputs, grads * (self.gamma * (found.unit / std))), [grad_gamma, grad_beta]

    def update_running(self, mean: Array, var: Array, count: int) -> None:
        """Move the running statistics towards a batch's mean and (biased) variance, of `count` values a channel."""
        if count == 1 and self.running_variance == "unbiased":
            raise ShapeError(
                "BatchNormalizationLayer.fprop: inputs has one value per channel, whose variance is not defined: "
                "train on a larger batch, or pass stochastic=False"
            )
        if self.running_variance == "unbiased":
            var = var * (count / (count - 1))
        weight = self.momentum if self.momentum_weighs == "batch" else 1.0 - self.momentum
        for running, batch in ((self.running_mean, mean), (self.running_var, var)):
            running *= 1.0 - weight
            running += weight * batch.real

    def _check(self, what: str, inputs: Array) -> None:
        check_shape(f"BatchNormalizationLayer.{what}", inputs, ("N", self.input_dim, "..."), like=self.gamma)
        if 0 in inputs.shape:
            raise ShapeError(f"BatchNormalizationLayer.{what} has shape {inputs.shape}: an axis is empty")

    def __repr__(self) -> str:
        return f"BatchNormalizationLayer(input_dim={self.input_dim})"


def _rows(x: Array) -> Array:
    """Return (N, C, H, W) as (N, H W, C), and (N, C) as (1, N, C): a view where memory is channels-last."""
    if x.ndim == 2:
        return x[None]
    return channels_last(x).reshape(len(x), -1, x.shape[1])


def _like(x: Array, rows: Array) -> Array:
    """Return rows (see `_rows`) in the shape of `x`."""
    if x.ndim == 2:
        return rows[0]
    return channels_first(rows.reshape(len(x), *x.shape[2:], x.shape[1]))


def _mean(rows: Array) -> Array:
    """Return the mean (1, 1, C) over the first two axes, image by image and then over the images."""
    xp = array_module(rows)
    ones = xp.ones((1, rows.shape[1]), rows.dtype)
    return xp.matmul(ones, rows).sum(axis=0, keepdims=True) / (rows.shape[0] * rows.shape[1])
