"""Right layers as a student writes them, who knows nothing of complex numbers: none of them may be rejected."""

import math

import numpy as np

from mlp.layers import Layer, LayerWithParameters


class Softplus(Layer):
    """`math` takes real numbers only."""

    def fprop(self, inputs):
        outputs = np.zeros(inputs.shape)
        for i, row in enumerate(inputs):
            for j, x in enumerate(row):
                outputs[i, j] = math.log1p(math.exp(x))
        return outputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs / (1 + np.exp(-inputs))


class Loops(LayerWithParameters):
    """An affine layer entry by entry, into an array of real zeros."""

    param_names = ("weights", "biases")

    def __init__(self):
        rng = np.random.default_rng(0)
        self.weights, self.biases = rng.standard_normal((4, 3)), rng.standard_normal(4)

    def fprop(self, inputs):
        outputs = np.zeros((len(inputs), 4))
        for n in range(len(inputs)):
            for k in range(4):
                outputs[n, k] = sum(self.weights[k, d] * inputs[n, d] for d in range(3)) + self.biases[k]
        return outputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs @ self.weights

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)]


class Normalised(Layer):
    """x / |x|, row by row: `norm` takes absolute values, and with them the complex step away."""

    def fprop(self, inputs):
        return inputs / np.linalg.norm(inputs, axis=1, keepdims=True)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        along = (outputs * grads_wrt_outputs).sum(axis=1, keepdims=True)
        return (grads_wrt_outputs - outputs * along) / np.linalg.norm(inputs, axis=1, keepdims=True)


class Absolute(Layer):
    def fprop(self, inputs):
        return np.abs(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.sign(inputs) * grads_wrt_outputs


class HardTanh(Layer):
    def fprop(self, inputs):
        return np.clip(inputs, -1, 1)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (np.abs(inputs) < 1) * grads_wrt_outputs


class CastToFloat(Layer):
    """Squares of what was made float64 first."""

    def fprop(self, inputs):
        return np.asarray(inputs, dtype=np.float64) ** 2

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2 * inputs * grads_wrt_outputs


class RealPart(Layer):
    """`.real` drops what the complex step looks for, without a warning."""

    def fprop(self, inputs):
        return inputs.real**3

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 3 * inputs**2 * grads_wrt_outputs


class Conjugate(Layer):
    """x conj(x), as for |x|^2: the complex step sees nothing."""

    def fprop(self, inputs):
        return inputs * np.conj(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2 * inputs * grads_wrt_outputs


class Vdot(Layer):
    """`vdot` conjugates its first argument."""

    def fprop(self, inputs):
        return np.array([[np.vdot(row, row)] for row in inputs])

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 2 * inputs * grads_wrt_outputs


class Sorted(Layer):
    def fprop(self, inputs):
        return np.sort(inputs, axis=1)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.empty_like(inputs)
        np.put_along_axis(grads, np.argsort(inputs, axis=1), grads_wrt_outputs, axis=1)
        return grads


class PlainSoftmax(Layer):
    def fprop(self, inputs):
        exps = np.exp(inputs - np.max(inputs, axis=1, keepdims=True))
        return exps / np.sum(exps, axis=1, keepdims=True)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * (grads_wrt_outputs - (outputs * grads_wrt_outputs).sum(axis=1, keepdims=True))


class NothingAtAll(Layer):
    """A constant: every gradient is 0."""

    def fprop(self, inputs):
        return np.ones((len(inputs), 2)) + 0 * inputs[:, :1]

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.zeros_like(inputs)


class Remembering(Layer):
    """Keeps what it needs by hand, and looks it up by the outputs that it belongs to."""

    def __init__(self):
        self.known = []

    def fprop(self, inputs):
        outputs = np.tanh(inputs)
        self.known.append((outputs, 1 - outputs**2))
        return outputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        slopes = next(slopes for known, slopes in self.known if known is outputs)
        return slopes * grads_wrt_outputs
