"""Softmax and its logarithm."""

from mlp.backend import Array, array_module
from mlp.checks import ShapeError, check_same_shape, check_shape, check_whole_number
from mlp.kernels import log_softmax, softmax
from mlp.layers.base import Layer


class SoftmaxLayer(Layer):
    """Softmax along an axis (the last): y_k = exp(x_k) / sum over j of exp(x_j), computed from x - max x."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = check_whole_number(f"{type(self).__name__}: axis", axis)

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape; along the axis it sums to 1."""
        self._check("fprop", inputs)
        return softmax(inputs, self.axis)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return y (dE/dy - sum along the axis of y dE/dy)."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        common = (outputs * grads_wrt_outputs).sum(axis=self.axis, keepdims=True)
        return outputs * (grads_wrt_outputs - common)

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
        """Return dE/dy - exp(y) (sum along the axis of dE/dy)."""
        self._check("bprop", inputs, outputs, grads_wrt_outputs)
        total = grads_wrt_outputs.sum(axis=self.axis, keepdims=True)
        return grads_wrt_outputs - array_module(outputs).exp(outputs) * total
