"""Elementwise nonlinearities, for inputs of any shape.

Where a function branches, it branches on the real part, so that every layer is analytic away from its kinks and can
be checked by the complex step.
"""

from typing import NamedTuple

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import check_number, check_same_shape, check_shape
from mlp.kernels import sigmoid, sigmoid_slope
from mlp.layers.base import Layer, LayerWithParameters, real_dtype
from mlp.rng import Rng, default_rng


class SigmoidLayer(Layer):
    """y = 1 / (1 + exp(-x)), computed without overflow."""

    runs_in_shards = True

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape("SigmoidLayer.fprop: inputs", inputs, ("N", "..."))
        return sigmoid(inputs)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy y (1 - y), from x, as 1 - y has no digits left where y rounds to 1."""
        check_same_shape("SigmoidLayer.bprop: inputs", inputs, outputs)
        check_same_shape("SigmoidLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        return grads_wrt_outputs * sigmoid_slope(inputs)


class TanhLayer(Layer):
    """y = tanh(x)."""

    runs_in_shards = True

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape("TanhLayer.fprop: inputs", inputs, ("N", "..."))
        return array_module(inputs).tanh(inputs)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy (1 - y^2)."""
        check_same_shape("TanhLayer.bprop: inputs", inputs, outputs)
        check_same_shape("TanhLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        return (1.0 - outputs * outputs) * grads_wrt_outputs


class ReluLayer(Layer):
    """y = max(x, 0). At x = 0 the gradient is taken as 0."""

    runs_in_shards = True

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape("ReluLayer.fprop: inputs", inputs, ("N", "..."))
        return array_module(inputs).maximum(inputs, 0)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy where x > 0, else 0."""
        check_same_shape("ReluLayer.bprop: inputs", inputs, outputs)
        check_same_shape("ReluLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        return (outputs.real > 0) * grads_wrt_outputs


class LeakyReluLayer(Layer):
    """y = x where x > 0, else alpha x. At x = 0 the gradient is taken as alpha.

    Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, ICML workshop 2013.
    """

    runs_in_shards = True

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = check_number("LeakyReluLayer: alpha", alpha, -float("inf"))

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape("LeakyReluLayer.fprop: inputs", inputs, ("N", "..."))
        return inputs * self._slopes(inputs)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy where x > 0, else alpha dE/dy."""
        check_same_shape("LeakyReluLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, inputs)
        return grads_wrt_outputs * self._slopes(inputs)

    def _slopes(self, inputs: Array) -> Array:
        """Return dy/dx: 1 where x > 0, else alpha."""
        xp = array_module(inputs)
        slopes: Array = xp.multiply(inputs.real <= 0, self.alpha, dtype=real_dtype(inputs))
        slopes += inputs.real > 0
        return slopes


class ELULayer(Layer):
    """y = x where x > 0, else alpha (exp(x) - 1). At x = 0 the gradient is taken as alpha.

    Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear units (ELUs),
    ICLR 2016, section 3.
    """

    runs_in_shards = True

    gamma = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number(f"{type(self).__name__}: alpha", alpha, -float("inf"))

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape(f"{type(self).__name__}.fprop: inputs", inputs, ("N", "..."))
        xp, positive = array_module(inputs), inputs.real > 0
        bent = self.alpha * xp.expm1(xp.where(positive, 0, inputs))
        return self.gamma * xp.where(positive, inputs, bent)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy where x > 0, else alpha exp(x) dE/dy; for SELU times gamma."""
        check_same_shape(f"{type(self).__name__}.bprop: grads_wrt_outputs", grads_wrt_outputs, inputs)
        xp, positive = array_module(inputs), inputs.real > 0
        slopes = xp.where(positive, 1, self.alpha * xp.exp(xp.where(positive, 0, inputs)))
        return self.gamma * grads_wrt_outputs * slopes


class SELULayer(ELULayer):
    """y = gamma x where x > 0, else gamma alpha (exp(x) - 1).

    The constants are the coursework's, rounded to four decimals. Klambauer, Unterthiner, Mayr and Hochreiter,
    Self-normalizing neural networks, NIPS 2017, equation 2 (gamma is its lambda).
    """

    def __init__(self, alpha: float = 1.6733, gamma: float = 1.0507) -> None:
        super().__init__(alpha)
        self.gamma = check_number("SELULayer: gamma", gamma, -float("inf"))


class ExponentialLinearUnitLayer(ELULayer):
    """`ELULayer` under the name that the coursework of 2019 gave it, with its default of alpha."""

    def __init__(self, alpha: float = 0.01) -> None:
        super().__init__(alpha)


class ParametricReluLayer(LayerWithParameters):
    """y = x where x > 0, else alpha x, with one alpha, a parameter, for all entries. At x = 0 the gradient is alpha.

    `alpha` is an array (1,). He, Zhang, Ren and Sun, Delving deep into rectifiers, ICCV 2015, equation 1, in the
    channel-shared variant of section 2.1.
    """

    param_names = ("alpha",)

    def __init__(self, alpha: float = 0.25) -> None:
        self.alpha: Array = np.array([check_number("ParametricReluLayer: alpha", alpha, -float("inf"))])

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape."""
        check_shape("ParametricReluLayer.fprop: inputs", inputs, ("N", "..."), like=self.alpha)
        return array_module(inputs).where(inputs.real > 0, inputs, self.alpha * inputs)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy where x > 0, else alpha dE/dy."""
        self._check_grads("bprop", inputs, grads_wrt_outputs)
        return array_module(inputs).where(inputs.real > 0, grads_wrt_outputs, self.alpha * grads_wrt_outputs)

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/d alpha], the sum of dE/dy x over all entries with x < 0."""
        self._check_grads("grads_wrt_params", inputs, grads_wrt_outputs)
        negative = array_module(inputs).where(inputs.real < 0, inputs, 0)
        return [(grads_wrt_outputs * negative).sum().reshape(1)]

    def _check_grads(self, method: str, inputs: Array, grads_wrt_outputs: Array) -> None:
        check_shape(f"ParametricReluLayer.{method}: inputs", inputs, ("N", "..."), like=self.alpha)
        check_same_shape(f"ParametricReluLayer.{method}: grads_wrt_outputs", grads_wrt_outputs, inputs)


class Leakiness(NamedTuple):
    """The slopes that a random rectifier gave its negative inputs."""

    inputs: Array
    outputs: Array
    slopes: Array | float


class RandomReluLayer(Layer):
    """y = x where x > 0, else r x, with slopes r drawn anew for every entry, uniform in [lower, upper).

    As in the coursework there is no evaluation mode: each `fprop` draws, unless it is given the `leakiness`, as in
    ``fprop(inputs, leakiness=0.5 * (layer.lower + layer.upper))``. At x = 0 the gradient is r. `bprop` raises
    StaleStateError for arrays other than those of the last `fprop`. Xu, Wang, Chen and Li,
    Empirical evaluation of rectified activations in convolutional network, 2015, section 2.4.
    """

    def __init__(self, lower: float = 0.125, upper: float = 1.0 / 3.0, rng: Rng | None = None) -> None:
        self.lower = check_number("RandomReluLayer: lower", lower, -float("inf"))
        self.upper = check_number("RandomReluLayer: upper", upper, self.lower)
        check_number("RandomReluLayer: upper - lower", self.upper - self.lower, 0.0)
        self.rng = np.random.RandomState(seed=1234) if rng is None else default_rng(rng)

    def fprop(self, inputs: Array, leakiness: Array | float | None = None) -> Array:
        """Return y, of the inputs' shape, with the slopes `leakiness` or, without, with one draw for every entry."""
        check_shape("RandomReluLayer.fprop: inputs", inputs, ("N", "..."))
        xp = array_module(inputs)
        if leakiness is None:
            leakiness = self.rng.uniform(self.lower, self.upper, size=inputs.shape)
        elif getattr(leakiness, "ndim", 0):
            check_same_shape("RandomReluLayer.fprop: leakiness", leakiness, inputs)
        else:
            leakiness = check_number("RandomReluLayer.fprop: leakiness", leakiness, -float("inf"))
        slopes = xp.asarray(leakiness, dtype=real_dtype(inputs))
        outputs = xp.where(inputs.real > 0, inputs, slopes * inputs)
        self.remember(Leakiness(inputs, outputs, slopes))
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy where x > 0, else r dE/dy, with the slopes of the last `fprop`."""
        check_same_shape("RandomReluLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, inputs)
        slopes = self.remembered(Leakiness, inputs, outputs).slopes
        return array_module(inputs).where(inputs.real > 0, grads_wrt_outputs, slopes * grads_wrt_outputs)
