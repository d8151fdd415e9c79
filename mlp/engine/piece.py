"""A piece of a model: layers that run by one plan, or one layer that runs by itself."""

from collections.abc import Sequence

from mlp.backend import Array
from mlp.engine.memory import AnyPlan
from mlp.layers import Layer
from mlp.layers.base import forward
from mlp.layers.chain import chain_backprop


class Piece:
    """Layers that run by one plan, or one layer that runs by itself, with what they took and gave."""

    def __init__(self, layers: Sequence[Layer], plan: AnyPlan | None, inputs: Array, need_inputs: bool) -> None:
        self.layers, self.plan, self.inputs, self.need_inputs = layers, plan, inputs, need_inputs
        self.found: tuple[float, Array | None, list[Array]] | None = None

    def forward(self, stochastic: bool) -> None:
        """Find the outputs."""
        if self.plan is not None:
            self.outputs = self.plan.outputs(self.inputs)
        else:
            self.outputs = forward(self.layers[0], self.inputs, stochastic)

    def train(self, targets: Array) -> None:
        """Find the outputs and, by a plan that knows the error, all gradients."""
        assert self.plan is not None
        loss, self.outputs, through, grads = self.plan.train(self.inputs, targets)
        self.found = loss, through, grads

    def backward(self, grads_wrt_outputs: Array) -> tuple[Array | None, list[Array]]:
        """Return (dE/d inputs or None, the gradients of all parameters)."""
        if self.plan is not None:
            return self.plan.gradients(grads_wrt_outputs)
        return chain_backprop(self.layers, [self.inputs, self.outputs], grads_wrt_outputs, self.need_inputs)
