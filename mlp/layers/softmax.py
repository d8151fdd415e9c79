"""The softmax layer."""

from mlp.backend import Array
from mlp.checks import check_same_shape, check_shape
from mlp.kernels import softmax
from mlp.layers.base import Layer


class SoftmaxLayer(Layer):
    """Softmax over the last axis: y_k = exp(x_k) / sum over j of exp(x_j), computed from x - max x."""

    def fprop(self, inputs: Array) -> Array:
        """Return y, of the inputs' shape; each row sums to 1."""
        check_shape("SoftmaxLayer.fprop: inputs", inputs, ("N", "K", "..."))
        return softmax(inputs)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return y (dE/dy - sum over the last axis of y dE/dy)."""
        check_same_shape("SoftmaxLayer.bprop: inputs", inputs, outputs)
        check_same_shape("SoftmaxLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        common = (outputs * grads_wrt_outputs).sum(axis=-1, keepdims=True)
        return outputs * (grads_wrt_outputs - common)
