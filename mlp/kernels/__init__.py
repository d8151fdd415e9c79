"""Primitives below the layers: convolution as matrix products, functions that stay finite, threads for a batch.

A kernel takes arrays and a geometry, knows nothing of layers, and runs where its arrays lie.
"""

from mlp.kernels.convolution import (
    ConvGeometry,
    channels_first,
    channels_last,
    conv,
    conv_grad_inputs,
    conv_grad_kernels,
    conv_grads,
)
from mlp.kernels.functions import (
    log_softmax,
    log_softmax_and_minus,
    sigmoid,
    sigmoid_slope,
    softmax,
    softmax_minus,
    softplus,
)
from mlp.kernels.moments import Moments, moments
from mlp.kernels.parallel import SettingError, num_threads, run_parts
from mlp.kernels.pieces import Pieces, zeros_like_all
from mlp.kernels.windows import Padding, PoolGeometry, Sizes
from mlp.kernels.winograd import conv_method

__all__ = [
    "ConvGeometry",
    "Moments",
    "Padding",
    "Pieces",
    "PoolGeometry",
    "SettingError",
    "Sizes",
    "channels_first",
    "channels_last",
    "conv",
    "conv_grad_inputs",
    "conv_grad_kernels",
    "conv_grads",
    "conv_method",
    "log_softmax",
    "log_softmax_and_minus",
    "moments",
    "num_threads",
    "run_parts",
    "sigmoid",
    "sigmoid_slope",
    "softmax",
    "softmax_minus",
    "softplus",
    "zeros_like_all",
]
