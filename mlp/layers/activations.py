"""Elementwise nonlinearities, for inputs of any shape.

Where a function branches, it branches on the real part, so that every layer is analytic away from its kinks and can
be checked by the complex step.
"""

import numpy as np

from mlp.backend import Array, array_module
from mlp.checks import check_number, check_same_shape, check_shape
from mlp.kernels import sigmoid, sigmoid_slope
from mlp.layers.base import Layer


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
        dtype = inputs.real.dtype if inputs.dtype.kind in "fc" else np.float64
        slopes: Array = xp.multiply(inputs.real <= 0, self.alpha, dtype=dtype)
        slopes += inputs.real > 0
        return slopes


class ELULayer(Layer):
    """y = x where x > 0, else alpha (exp(x) - 1). At x = 0 the gradient is taken as alpha.

    Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear units (ELUs),
    ICLR 2016, section 3.
    """

    runs_in_shards = True

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number(f"{type(self).__name__}: alpha", alpha, -float("inf"))
        self.gamma = 1.0

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
