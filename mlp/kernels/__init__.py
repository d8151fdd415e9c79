"""Primitives below the layers: convolution as matrix products, functions that stay finite, threads for a batch.

A kernel takes arrays and a geometry and knows nothing of layers. Those that the layers call run where their arrays lie;
those of the engine's plans, `winograd`, `columns` and `products`, are NumPy's alone, as are `scratch` and `parallel`.
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
    label_losses_and_minus,
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
from mlp.kernels.pieces import Pieces, chunks, listed, zeros_like_all
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
    "chunks",
    "conv",
    "conv_grad_inputs",
    "conv_grad_kernels",
    "conv_grads",
    "conv_method",
    "label_losses_and_minus",
    "listed",
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
