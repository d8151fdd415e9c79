"""What a pass through a model is for, and what it computed."""

from typing import NamedTuple

from mlp.backend import Array


class Step(NamedTuple):
    """What one pass forward and backward computed."""

    loss: float
    outputs: Array
    grads: list[Array]


class Purpose(NamedTuple):
    """What a plan is for: the mode of the layers; whether it goes backward too, from the error, and to the inputs."""

    stochastic: bool
    backward: bool
    with_error: bool = False
    need_inputs: bool = False
