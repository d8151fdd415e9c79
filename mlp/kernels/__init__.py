"""Primitives below the layers: convolution as matrix products, functions that stay finite, threads for a batch.

A kernel takes arrays and a geometry, knows nothing of layers, and runs where its arrays lie.
"""

from mlp.kernels.convolution import (
    ConvGeometry,
    conv2d,
    conv2d_grad_inputs,
    conv2d_grad_kernels,
    conv2d_grads,
)
from mlp.kernels.functions import log_softmax, sigmoid, softmax, softplus
from mlp.kernels.parallel import SettingError, num_threads, run_parts

__all__ = [
    "ConvGeometry",
    "SettingError",
    "conv2d",
    "conv2d_grad_inputs",
    "conv2d_grad_kernels",
    "conv2d_grads",
    "log_softmax",
    "num_threads",
    "run_parts",
    "sigmoid",
    "softmax",
    "softplus",
]
