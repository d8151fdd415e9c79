import numpy as np
import pytest

from mlp import layers
from mlp.models import MultipleLayerModel, SingleLayerModel, summary, vgg


class Doubling(layers.Layer):
    """A layer as a user would write it."""

    def fprop(self, inputs):
        return 2 * inputs


def test_rows_hold_shapes_parameters_work_and_bytes():
    model = MultipleLayerModel(
        [
            layers.Convolution2DLayer(3, 4, 3, stride=2),
            Doubling(),
            layers.ReshapeLayer(),
            layers.AffineLayer(4 * 3 * 2, 5),
        ]
    )
    table = summary(model, (3, 7, 5))
    shapes = [row.output_shape for row in table.rows]
    assert shapes == [(4, 3, 2), (4, 3, 2), (24,), (5,)]
    assert [row.parameters for row in table.rows] == [4 * 27 + 4, 0, 0, 24 * 5 + 5]
    assert [row.multiply_adds for row in table.rows] == [4 * 27 * 6, 0, 0, 24 * 5]
    assert table.rows[0].parameter_bytes == 8 * 112
    assert table.rows[0].activation_bytes == 8 * 24
    assert (table.parameters, table.multiply_adds) == (112 + 125, 648 + 120)


def test_layers_inside_residual_connections_have_rows_of_their_own():
    table = summary(vgg(1, batch_norm=True, residual=True), (3, 32, 32))
    assert "block_0_0_conv_1" in [row.name for row in table.rows]
    assert table.parameters == sum(param.size for param in vgg(1, True, True).params)


def test_it_prints_as_a_table_and_changes_nothing():
    model = vgg(0)
    before = [array.copy() for array in model.named_arrays().values()]
    lines = repr(summary(model, (3, 32, 32))).splitlines()
    assert lines[0].split()[0] == "name"
    assert lines[-1].split()[:2] == ["total", "59,716"]
    assert len({len(line) for line in lines[:1] + lines[2:-2]}) == 1
    for old, new in zip(before, model.named_arrays().values(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="input_shape is 0"):
        summary(SingleLayerModel(layers.AffineLayer(3, 2)), (0,))
