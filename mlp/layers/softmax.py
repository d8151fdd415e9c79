"""Softmax and its logarithm."""

from mlp.backend import Array, array_module
from mlp.checks import ShapeError, check_same_shape, check_shape, check_whole_number
from mlp.kernels import log_softmax, softmax, softmax_minus
from mlp.layers.base import Layer


class SoftmaxLayer(Layer):
    """Softmax along an axis (the last): y_k = exp(x_k) / sum over j of exp(x_j), computed from x - max x."""

    runs_in_shards = True

    def __init__(self, axis: int = -1) -> None:
        self.axis = check_whole_number(f"{type(self).__name__}: axis", axis)

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape; along the axis it sums to 1."""
        self._check("fprop", inputs)
        return softmax(inputs, self.axis)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return y (g - sum along the axis of y g) for g = dE/dy - dE/dy at the largest x.

        A constant added to dE/dy changes nothing; taken from the largest y, it spares the sum a cancellation.
        """
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        xp = array_module(outputs)
        first = xp.expand_dims(xp.argmax(inputs.real, axis=self.axis), self.axis)
        grads = grads_wrt_outputs - xp.take_along_axis(grads_wrt_outputs, first, axis=self.axis)
        return outputs * (grads - (outputs * grads).sum(axis=self.axis, keepdims=True))

    def _check(self, method: str, inputs: Array, *like_inputs: Array) -> None:
        who = f"{type(self).__name__}.{method}"
        check_shape(f"{who}: inputs", inputs, ("N", "K", "..."))
        if not -inputs.ndim <= self.axis < inputs.ndim:
            raise ShapeError(f"{who}: inputs has shape {inputs.shape}, and no axis {self.axis}")
        for name, array in zip(("outputs", "grads_wrt_outputs"), like_inputs, strict=False):
            check_same_shape(f"{who}: {name}", array, inputs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{'' if self.axis == -1 else f'(axis={self.axis})'}"


class LogSoftmaxLayer(SoftmaxLayer):
    """ln softmax along an axis (the last): y_k = z_k - ln sum over j of exp(z_j), z = x - max x."""

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape; never above 0."""
        self._check("fprop", inputs)
        return log_softmax(inputs, self.axis)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy - softmax(x) (sum along the axis of dE/dy)."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        return -softmax_minus(inputs, grads_wrt_outputs, self.axis)
