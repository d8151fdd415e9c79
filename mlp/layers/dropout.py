"""Dropout."""

from typing import NamedTuple

from mlp.backend import Array, array_module
from mlp.checks import check_flag, check_number, check_same_shape, check_shape
from mlp.layers.base import StochasticLayer
from mlp.rng import Rng


class DropoutMask(NamedTuple):
    """The factors that a dropout layer multiplied its inputs by."""

    inputs: Array
    outputs: Array
    factors: Array | float


class DropoutLayer(StochasticLayer):
    """Dropout, by default in the coursework's convention, without rescaling in training.

    In training y = x mask, where each unit stays with probability `incl_prob`; in evaluation y = x incl_prob, the
    expected value. With `rescale` (inverted dropout, PyTorch's and ONNX's convention) y = x mask / incl_prob in
    training and y = x in evaluation. With `share_across_batch` the examples of a batch share one mask. Srivastava et
    al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 15 (2014), section 4; section 10
    has the inverted form.
    """

    def __init__(
        self,
        rng: Rng | None = None,
        incl_prob: float = 0.5,
        share_across_batch: bool = True,
        *,
        rescale: bool = False,
    ) -> None:
        super().__init__(rng)
        self.incl_prob = check_number("DropoutLayer: incl_prob", incl_prob, 0.0, 1.0, low_open=True)
        self.share_across_batch = check_flag("DropoutLayer: share_across_batch", share_across_batch)
        self.rescale = check_flag("DropoutLayer: rescale", rescale)

    def fprop(self, inputs: Array, stochastic: bool = True) -> Array:
        """Return y, of x's shape; in training mode one draw of the random stream per call."""
        check_shape("DropoutLayer.fprop: inputs", inputs, ("N", "..."))
        factors: Array | float = 1.0 if self.rescale else self.incl_prob
        if stochastic:
            shape = (1, *inputs.shape[1:]) if self.share_across_batch else inputs.shape
            assert self.rng is not None
            mask = self.rng.uniform(size=shape) < self.incl_prob
            factors = array_module(inputs).asarray(mask)
            if self.rescale:
                factors = factors.astype(inputs.real.dtype) / self.incl_prob
        outputs = inputs * factors
        self.remember(DropoutMask(inputs, outputs, factors))
        return outputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy times the factors, mask and scale, of the last `fprop`."""
        check_same_shape("DropoutLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, inputs)
        return grads_wrt_outputs * self.remembered(DropoutMask, inputs, outputs).factors

    def __repr__(self) -> str:
        return f"DropoutLayer(incl_prob={self.incl_prob:.1f}{', rescale=True' if self.rescale else ''})"
