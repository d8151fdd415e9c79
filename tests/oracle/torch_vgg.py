"""The report's networks written in PyTorch, with parameters in the same order as ours."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mlp.layers import BatchNormalizationLayer

NETWORKS = {
    "vgg08": (0, False, False),
    "vgg38": (5, False, False),
    "vgg38_bn": (5, True, False),
    "vgg38_rc": (5, False, True),
    "vgg38_bn_rc": (5, True, True),
}
"""The report's networks: blocks a stage, batch normalisation, residual connections."""


class Block(nn.Module):
    def __init__(self, width, batch_norm, residual, reduction):
        super().__init__()
        self.residual, self.reduction = residual and not reduction, reduction
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=reduction) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) if batch_norm else nn.Identity() for _ in range(2))

    def forward(self, x):
        out = F.leaky_relu(self.norms[0](self.convs[0](x)))
        if self.reduction:
            out = F.avg_pool2d(out, 2)
        out = self.norms[1](self.convs[1](out))
        return F.leaky_relu(out + x if self.residual else out)

    def params_in_order(self):
        return [
            p for conv, norm in zip(self.convs, self.norms, strict=False) for m in (conv, norm) for p in m.parameters()
        ]


class TorchVGG(nn.Module):
    def __init__(self, num_blocks, batch_norm, residual, width=32, num_classes=100):
        super().__init__()
        self.entry = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.entry_norm = nn.BatchNorm2d(width)
        kinds = ([False] * num_blocks + [True]) * 3
        self.blocks = nn.ModuleList(Block(width, batch_norm, residual, kind) for kind in kinds)
        self.logits = nn.Linear(width, num_classes)

    def forward(self, x):
        out = F.leaky_relu(self.entry_norm(self.entry(x)))
        for block in self.blocks:
            out = block(out)
        return self.logits(F.avg_pool2d(out, out.shape[-1]).flatten(1))

    def params_in_order(self):
        inner = [p for block in self.blocks for p in block.params_in_order()]
        return [self.entry.weight, *self.entry_norm.parameters(), *inner, *self.logits.parameters()]

    def norms_in_order(self):
        inner = [n for block in self.blocks for n in block.norms if isinstance(n, nn.BatchNorm2d)]
        return [self.entry_norm, *inner]


def copy_of(model, num_blocks, batch_norm, residual):
    """Return the PyTorch network with the parameters of one of ours, in float64."""
    twin = TorchVGG(num_blocks, batch_norm, residual).double()
    with torch.no_grad():
        for theirs, ours in zip(twin.params_in_order(), model.params, strict=True):
            theirs.copy_(torch.from_numpy(np.ascontiguousarray(ours)))
    return twin


def running_statistics(model):
    norms = [layer for _, layer in model.named_layers() if isinstance(layer, BatchNormalizationLayer)]
    return [(norm.running_mean, norm.running_var) for norm in norms]
