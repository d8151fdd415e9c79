"""A table of a model's layers: output shapes, parameters, multiply-adds and bytes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.checks import check_positive_int
from mlp.layers.base import Layer, LayerWithParameters, Shape
from mlp.models.base import Model


class SummaryRow(NamedTuple):
    """One layer: shapes without the batch axis; multiply-adds and activation bytes for one example."""

    name: str
    layer: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    parameter_bytes: int
    activation_bytes: int


class Summary(NamedTuple):
    """The rows of a model and their totals; prints as a table, in a notebook too."""

    rows: tuple[SummaryRow, ...]

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of one forward pass of one example."""
        return sum(row.multiply_adds for row in self.rows)

    def __repr__(self) -> str:
        titles = (
            "name",
            "layer",
            "output shape",
            "parameters",
            "multiply-adds",
            "param. bytes",
            "output bytes",
        )
        cells = [[str(value) if i < 3 else f"{value:,}" for i, value in enumerate(row)] for row in self.rows]
        totals = [f"{sum(column):,}" for column in list(zip(*self.rows, strict=True))[3:]]
        table = [titles, *cells, ("total", "", "", *totals)]
        widths = [max(len(row[i]) for row in table) for i in range(len(titles))]
        lines = [
            "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in table
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(model: Model, input_shape: Sequence[int]) -> Summary:
    """Return the table of a model for inputs of `input_shape`, without the batch axis, e.g. (3, 32, 32).

    Found by passing one example of zeros through the model in evaluation mode, so it works for any layer.
    """
    shape = tuple(check_positive_int("summary: input_shape", size) for size in input_shape)
    params = model.params
    inputs = np.zeros((1, *shape), params[0].dtype if params else np.float64)
    model = model.to_device("cpu")
    rows: list[SummaryRow] = []
    for name, layer in model.named_layers():
        layer.fprop = _traced(name, layer, rows)  # type: ignore[method-assign]  # in the copy, which is dropped
    model.fprop(inputs, evaluation=True)
    return Summary(tuple(rows))


def _traced(name: str, layer: Layer, rows: list[SummaryRow]) -> Callable[..., Array]:
    """Return the layer's `fprop`, which also appends its row."""
    fprop = layer.fprop

    def traced(inputs: Array, **mode: bool) -> Array:
        outputs = fprop(inputs, **mode)
        params = layer.params if isinstance(layer, LayerWithParameters) else []
        rows.append(
            SummaryRow(
                name,
                type(layer).__name__,
                outputs.shape[1:],
                sum(param.size for param in params),
                layer.multiply_adds(inputs.shape, outputs.shape),
                sum(param.nbytes for param in params),
                outputs.nbytes,
            )
        )
        return outputs

    return traced
