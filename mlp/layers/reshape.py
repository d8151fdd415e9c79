"""The reshape layer."""

from math import prod

from mlp.backend import Array
from mlp.checks import ShapeError, check_same_shape, check_shape
from mlp.layers.base import Layer


class ReshapeLayer(Layer):
    """Each example in another shape: (N, ...) to (N, *output_shape); with no shape given, to (N, D).

    `output_shape` leaves the batch axis out and may hold one -1, which takes what is left.
    """

    runs_in_shards = True

    def __init__(self, output_shape: tuple[int, ...] | None = None) -> None:
        self.output_shape = (-1,) if output_shape is None else output_shape
        if not isinstance(self.output_shape, tuple) or any(type(size) is not int for size in self.output_shape):
            raise TypeError(f"ReshapeLayer: output_shape is {output_shape!r}, expected a tuple of whole numbers")
        free = self.output_shape.count(-1)
        if min(self.output_shape, default=0) < -1 or free > 1 or (free and 0 in self.output_shape):
            raise ValueError(
                f"ReshapeLayer: output_shape is {output_shape}, expected sizes >= 0, or sizes >= 1 and one -1"
            )

    def fprop(self, inputs: Array) -> Array:
        """Return the inputs as (N, *output_shape)."""
        self._check("fprop", inputs)
        return inputs.reshape(len(inputs), *self.output_shape)

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy in the shape of the inputs."""
        self._check("bprop", inputs)
        check_same_shape("ReshapeLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, outputs)
        check_shape("ReshapeLayer.bprop: outputs", outputs, self.fprop(inputs).shape, like=inputs)
        return grads_wrt_outputs.reshape(inputs.shape)

    def _check(self, method: str, inputs: Array) -> None:
        check_shape(f"ReshapeLayer.{method}: inputs", inputs, ("N", "..."))
        size, known = prod(inputs.shape[1:]), abs(prod(self.output_shape))
        if size % known if -1 in self.output_shape else size != known:
            raise ShapeError(
                f"ReshapeLayer.{method}: inputs has shape {inputs.shape}: {size} numbers an example do not fit "
                f"output_shape {self.output_shape}"
            )

    def __repr__(self) -> str:
        return f"ReshapeLayer(output_shape={self.output_shape})"
