"""PyTorch's side: the same networks, and functions that take one step, in each of its memory layouts.

Adam is its fused one, which is faster than the default.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Call
from tests.oracle.torch_vgg import NETWORKS, TorchVGG

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

Arrays = Sequence[np.ndarray]


def network(name: str, params: Arrays = (), num_filters: int = 32) -> TorchVGG:
    """Return one of the report's networks, with these parameters if there are any."""
    model = TorchVGG(*NETWORKS[name], width=num_filters)
    if params:
        _copy(params, model.params_in_order())
    return model


def mlp(params: Arrays) -> nn.Module:
    """Return the MLP with these parameters: weights and biases of each affine map."""
    maps = [nn.Linear(*reversed(weights.shape)) for weights in params[::2]]
    modules = [module for linear in maps for module in (linear, nn.ReLU())]
    model = nn.Sequential(*modules[:-1])
    _copy(params, list(model.parameters()))
    return model


def trainer(model: nn.Module, inputs: np.ndarray, labels: np.ndarray, layout: str) -> Call:
    """Return a function that takes one training step, and returns the loss before it."""
    model = model.to(memory_format=LAYOUTS[layout])
    adam = torch.optim.Adam(model.parameters(), fused=True)
    batch, targets = _placed(inputs, layout), torch.from_numpy(labels)
    return lambda: _step(model, adam, batch, targets)


def predictor(model: nn.Module, inputs: np.ndarray, layout: str) -> Call:
    """Return a function that returns the outputs in evaluation mode."""
    model = model.to(memory_format=LAYOUTS[layout]).eval()
    batch = _placed(inputs, layout)

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return model(batch).numpy()

    return predict


def batch_trainer(model: nn.Module, batches: Sequence[tuple[np.ndarray, np.ndarray]], fused: bool) -> Call:
    """Return a function that takes a step with each batch of vectors, and returns the losses before them."""
    adam = torch.optim.Adam(model.parameters(), fused=fused)
    tensors = [(torch.from_numpy(inputs), torch.from_numpy(labels)) for inputs, labels in batches]
    return lambda: [_step(model, adam, *pair) for pair in tensors]


def _step(model: nn.Module, adam: torch.optim.Adam, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    adam.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    adam.step()
    return loss.item()


def _placed(inputs: np.ndarray, layout: str) -> torch.Tensor:
    return torch.from_numpy(inputs).contiguous(memory_format=LAYOUTS[layout])


def _copy(params: Arrays, tensors: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for tensor, param in zip(tensors, params, strict=True):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(param)))
