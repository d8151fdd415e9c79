"""A peer: VGG08 in HIPS/autograd, which differentiates NumPy, as its users write it.

The convolution is slices and one matrix product. (autograd's own `scipy.signal.convolve` is an einsum without a BLAS:
it took five times as long.)
"""

from collections.abc import Sequence
from typing import Any

import autograd.numpy as np
from autograd import value_and_grad
from autograd.misc.optimizers import adam

from benchmarks.measure import Call

Params = list[Any]


def trainer(params: Params, inputs: Any, labels: Any) -> Call:
    """Return a function that takes one training step of VGG08 from these parameters, and returns the loss before it.

    Its Adam keeps no state between calls, and computes in float64: what it returns is rounded.
    """
    params = [np.array(param) for param in params]
    batch = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    loss_and_gradient = value_and_grad(lambda params: _loss(params, batch, labels))
    losses: list[float] = []

    def gradient(params: Params, _: int) -> Params:
        loss, grads = loss_and_gradient(params)
        losses.append(float(loss))
        return grads

    def step() -> float:
        params[:] = [param.astype(np.float32) for param in adam(gradient, params, num_iters=1)]
        return losses.pop()

    return step


def _loss(params: Params, batch: Any, labels: Any) -> Any:
    outputs = _vgg08(params, batch)
    shifted = outputs - np.max(outputs, axis=1, keepdims=True)
    logs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(logs[np.arange(len(labels)), labels])


def _vgg08(params: Params, x: Any) -> Any:
    kernels, gamma, beta, *blocks, weights, biases = params
    x = _leaky_relu(_normalised(_convolution(x, kernels), gamma, beta))
    for i in range(0, len(blocks), 4):
        x = _reduction(x, blocks[i : i + 4])
    return np.dot(np.mean(x, axis=(1, 2)), weights.T) + biases


def _reduction(x: Any, params: Sequence[Any]) -> Any:
    x = _leaky_relu(_convolution(x, params[0]) + params[1])
    n, height, width, channels = x.shape
    x = np.mean(np.reshape(x, (n, height // 2, 2, width // 2, 2, channels)), axis=(2, 4))
    return _leaky_relu(_convolution(x, params[2]) + params[3])


def _convolution(x: Any, kernels: Any) -> Any:
    """Return the cross-correlation of x (N, H, W, C) with kernels (K, C, 3, 3)."""
    _, height, width, _ = x.shape
    framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant")
    columns = np.concatenate([framed[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=3)
    return np.dot(columns, np.reshape(np.transpose(kernels, (2, 3, 1, 0)), (-1, len(kernels))))


def _normalised(x: Any, gamma: Any, beta: Any) -> Any:
    centred = x - np.mean(x, axis=(0, 1, 2))
    return gamma * centred / np.sqrt(np.mean(centred**2, axis=(0, 1, 2)) + 1e-5) + beta


def _leaky_relu(x: Any) -> Any:
    return np.maximum(x, 0.01 * x)
