"""One 3x3 convolution of our kernels on a GPU, with a tile of outputs that is chosen here."""

from importlib import import_module
from unittest.mock import patch

import numpy as np

from benchmarks.gpu_measure import Take
from mlp.backend import to_gpu
from mlp.engine import Engine, GpuPlan
from mlp.engine.gpu import convolution
from mlp.engine.gpu.graph import CapturedLaunches
from mlp.initialisers import FanInUniformInit
from mlp.kernels.gpu import ConvTile, Launch, conv_tile
from mlp.layers import Convolution2DLayer
from mlp.models import SingleLayerModel
from mlp.rng import stream

PIXELS = (256, 128, 64)
CONVOLUTIONS = 50
"""So many convolutions, on the same arrays, make one graph: what the host takes to start them does not count."""


def convolution_launch(batch: int, size: int, filters: int, precision: str, pixels: int) -> Launch | None:
    """Return the launch of a convolution of maps of size x size, in tiles of so many pixels, or None if none fits.

    The engine makes it as ever; only its choice of the tile is replaced.
    """

    def chosen(n: int, height: int, width: int, given: tuple[int, ...] = (pixels,)) -> ConvTile:
        return conv_tile(n, height, width, given)

    init = FanInUniformInit(rng=stream(0, "init"))
    layer = Convolution2DLayer(filters, filters, kernel_size=3, padding=1, bias=False, kernels_init=init)
    engine = Engine(SingleLayerModel(layer).astype(np.float32).to_gpu(), precision=precision)
    inputs = np.random.default_rng(0).standard_normal((batch, size, size, filters)).astype(np.float32)
    try:
        with patch.object(convolution, "conv_tile", chosen):
            engine.predict(to_gpu(inputs.transpose(0, 3, 1, 2)))
    except IndexError:  # `conv_tile` found none
        return None
    launches = [launch for plan in engine.plans() if isinstance(plan, GpuPlan) for launch in plan.launches]
    (launch,) = (launch for launch in launches if launch.label.startswith("conv3x3_"))
    return launch


def repeated(launch: Launch) -> Take:
    """Return a function that launches a graph of `CONVOLUTIONS` times the same so many times."""
    graph = CapturedLaunches(import_module("cupy"), [launch] * CONVOLUTIONS, "a sweep of tiles")

    def take(steps: int) -> None:
        for _ in range(steps):
            graph.run()

    return take
