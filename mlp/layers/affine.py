"""The fully connected layer."""

from mlp.backend import Array
from mlp.checks import check_positive_int, check_shape
from mlp.initialisers import ConstantInit, Initialiser, UniformInit
from mlp.layers.base import LayerWithParameters, Penalty, Shape, initial


class AffineLayer(LayerWithParameters):
    """Affine map y = x W' + b of each row of a batch.

    N rows, D inputs (`input_dim`), K outputs (`output_dim`); `weights` (K, D), `biases` (K,), initialised in this
    order. The defaults are the coursework's: U(-0.1, 0.1) and 0.
    """

    param_names = ("weights", "biases")

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        weights_initialiser: Initialiser | None = None,
        biases_initialiser: Initialiser | None = None,
        weights_penalty: Penalty | None = None,
        biases_penalty: Penalty | None = None,
    ) -> None:
        self.input_dim = check_positive_int("AffineLayer: input_dim", input_dim)
        self.output_dim = check_positive_int("AffineLayer: output_dim", output_dim)
        init = _default_weights if weights_initialiser is None else weights_initialiser
        self.weights = initial("AffineLayer: weights", init, (self.output_dim, self.input_dim))
        init = ConstantInit(0.0) if biases_initialiser is None else biases_initialiser
        self.biases = initial("AffineLayer: biases", init, (self.output_dim,))
        self.weights_penalty = weights_penalty
        self.biases_penalty = biases_penalty

    def fprop(self, inputs: Array) -> Array:
        """Return y (N, K) for x (N, D)."""
        check_shape("AffineLayer.fprop: inputs", inputs, ("N", self.input_dim), like=self.weights)
        return inputs @ self.weights.T + self.biases

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dx = dE/dy W, (N, D)."""
        self._check_grads("bprop", inputs, grads_wrt_outputs)
        return grads_wrt_outputs @ self.weights

    def grads_wrt_params(self, inputs: Array, grads_wrt_outputs: Array) -> list[Array]:
        """Return [dE/dW = dE/dy' x, dE/db = sum over the batch of dE/dy]."""
        self._check_grads("grads_wrt_params", inputs, grads_wrt_outputs)
        return self.with_penalties([grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)])

    def multiply_adds(self, input_shape: Shape, output_shape: Shape) -> int:
        """Return N D K."""
        return output_shape[0] * self.input_dim * self.output_dim

    def _check_grads(self, method: str, inputs: Array, grads_wrt_outputs: Array) -> None:
        check_shape(f"AffineLayer.{method}: inputs", inputs, ("N", self.input_dim), like=self.weights)
        expected = (len(inputs), self.output_dim)
        check_shape(f"AffineLayer.{method}: grads_wrt_outputs", grads_wrt_outputs, expected, like=self.weights)

    def __repr__(self) -> str:
        return f"AffineLayer(input_dim={self.input_dim}, output_dim={self.output_dim})"


_default_weights = UniformInit(-0.1, 0.1)  # shared by all layers without an initialiser, as in the coursework
