"""How layers are built: what stands where nothing is given, what they call themselves, and what they refuse."""

import numpy as np
import pytest

from mlp import layers
from mlp.initialisers import ConstantInit
from mlp.layers.base import LayerWithParameters

TANH = layers.TanhLayer()


def case_id(value):
    return value if isinstance(value, str) else ""


SPELLINGS = [
    (lambda: layers.AffineLayer(4, 3), "AffineLayer(input_dim=4, output_dim=3)"),
    (lambda: layers.IdentityLayer(), "IdentityLayer"),
    (lambda: layers.ReshapeLayer(), "ReshapeLayer(output_shape=(-1,))"),
    (lambda: layers.ReshapeLayer((3, 2)), "ReshapeLayer(output_shape=(3, 2))"),
    (lambda: layers.Convolution1DLayer(2, 3, 4), "Convolution1DLayer(2, 3, kernel_size=(4,))"),
    (lambda: layers.Convolution2DLayer(2, 3, 4), "Convolution2DLayer(2, 3, kernel_size=(4, 4))"),
    (
        lambda: layers.Convolution2DLayer(2, 3, 4, padding=((0, 0), (0, 0))),
        "Convolution2DLayer(2, 3, kernel_size=(4, 4))",
    ),
    (
        lambda: layers.Convolution2DLayer(2, 4, 3, 2, ((0, 1), (1, 1)), (1, 2), False, groups=2),
        "Convolution2DLayer(2, 4, kernel_size=(3, 3), stride=(2, 2), padding=((0, 1), (1, 1)), dilation=(1, 2), "
        "groups=2, bias=False)",
    ),
    (
        lambda: layers.Convolution3DLayer(1, 1, 2, padding=(0, 1, 0)),
        "Convolution3DLayer(1, 1, kernel_size=(2, 2, 2), padding=(0, 1, 0))",
    ),
    (lambda: layers.ConvolutionalLayer(3, 2, 5, 6, 2, 3), "ConvolutionalLayer(3, 2, kernel_size=(2, 3))"),
    (lambda: layers.ConvolutionTranspose1DLayer(2, 3, 4), "ConvolutionTranspose1DLayer(2, 3, kernel_size=(4,))"),
    (
        lambda: layers.ConvolutionTranspose2DLayer(2, 3, 4, 2, output_padding=(0, 1), bias=False),
        "ConvolutionTranspose2DLayer(2, 3, kernel_size=(4, 4), stride=(2, 2), output_padding=(0, 1), bias=False)",
    ),
    (lambda: layers.ConvolutionTranspose3DLayer(2, 3, 1), "ConvolutionTranspose3DLayer(2, 3, kernel_size=(1, 1, 1))"),
    (lambda: layers.BatchNormalizationLayer(3), "BatchNormalizationLayer(input_dim=3)"),
    (lambda: layers.LayerNormalizationLayer(3), "LayerNormalizationLayer(normalized_shape=(3,))"),
    (lambda: layers.LayerNormalizationLayer([3, 2]), "LayerNormalizationLayer(normalized_shape=(3, 2))"),
    (lambda: layers.GroupNormalizationLayer(2, 6), "GroupNormalizationLayer(num_groups=2, num_channels=6)"),
    (
        lambda: layers.LocalResponseNormalizationLayer(5),
        "LocalResponseNormalizationLayer(size=5, alpha=0.0001, beta=0.75, bias=1.0)",
    ),
    (lambda: layers.SoftmaxLayer(), "SoftmaxLayer"),
    (lambda: layers.SoftmaxLayer(1), "SoftmaxLayer(axis=1)"),
    (lambda: layers.LogSoftmaxLayer(-2), "LogSoftmaxLayer(axis=-2)"),
    (lambda: layers.DropoutLayer(), "DropoutLayer(incl_prob=0.5)"),
    (lambda: layers.DropoutLayer(incl_prob=0.8, rescale=True), "DropoutLayer(incl_prob=0.8, rescale=True)"),
    (lambda: layers.MaxPoolingLayer(), "MaxPoolingLayer(pool_size=2)"),
    (lambda: layers.MaxPooling1DLayer(), "MaxPooling1DLayer(size=(2,), stride=(2,))"),
    (lambda: layers.MaxPooling2DLayer(), "MaxPooling2DLayer(size=(2, 2), stride=(2, 2))"),
    (
        lambda: layers.MaxPooling2DLayer(None, None, 3, 2, 1, 2, True),
        "MaxPooling2DLayer(size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), ceil_mode=True)",
    ),
    (lambda: layers.MaxPooling3DLayer((1, 2, 3)), "MaxPooling3DLayer(size=(1, 2, 3), stride=(1, 2, 3))"),
    (lambda: layers.AveragePooling1DLayer(3), "AveragePooling1DLayer(size=(3,), stride=(3,))"),
    (
        lambda: layers.AveragePooling2DLayer(3, 1, ((0, 1), (1, 0)), count_include_pad=False),
        "AveragePooling2DLayer(size=(3, 3), stride=(1, 1), padding=((0, 1), (1, 0)), count_include_pad=False)",
    ),
    (lambda: layers.AveragePooling3DLayer(), "AveragePooling3DLayer(size=(2, 2, 2), stride=(2, 2, 2))"),
    (lambda: layers.GlobalAveragePooling1DLayer(), "GlobalAveragePooling1DLayer"),
    (lambda: layers.GlobalAveragePooling2DLayer(), "GlobalAveragePooling2DLayer"),
    (lambda: layers.GlobalAveragePooling3DLayer(), "GlobalAveragePooling3DLayer"),
    (lambda: layers.ReluLayer(), "ReluLayer"),
    (lambda: layers.LeakyReluLayer(0.2), "LeakyReluLayer"),
    (lambda: layers.ELULayer(), "ELULayer"),
    (lambda: layers.SELULayer(), "SELULayer"),
    (lambda: layers.ExponentialLinearUnitLayer(), "ExponentialLinearUnitLayer"),
    (lambda: layers.ParametricReluLayer(0.1), "ParametricReluLayer"),
    (lambda: layers.RandomReluLayer(), "RandomReluLayer"),
    (lambda: layers.RadialBasisFunctionLayer(4), "RadialBasisFunctionLayer(grid_dim=4)"),
    (lambda: layers.SigmoidLayer(), "SigmoidLayer"),
    (lambda: TANH, "TanhLayer"),
    (lambda: layers.ChainLayer([TANH, layers.ReluLayer()]), "ChainLayer([TanhLayer, ReluLayer])"),
    (lambda: layers.ResidualLayer(TANH), "ResidualLayer([TanhLayer])"),
    (lambda: layers.AdditionLayer([TANH, []]), "AdditionLayer([TanhLayer, IdentityLayer])"),
    (lambda: layers.ConcatenationLayer([[TANH], []]), "ConcatenationLayer([ChainLayer([TanhLayer]), IdentityLayer])"),
    (lambda: layers.ConcatenationLayer([TANH, []], axis=-1), "ConcatenationLayer([TanhLayer, IdentityLayer], axis=-1)"),
    (lambda: layers.MatrixProductLayer([[], TANH]), "MatrixProductLayer([IdentityLayer, TanhLayer])"),
]


@pytest.mark.parametrize(("build", "spelling"), SPELLINGS, ids=case_id)
def test_a_layer_says_how_it_was_built(build, spelling):
    assert repr(build()) == spelling


def test_every_layer_is_spelt():
    abstract = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}
    assert {type(build()).__name__ for build, _ in SPELLINGS} == set(layers.__all__) - abstract


CONV_DEFAULTS = {"kernels_penalty": None, "biases_penalty": None}
POOL_DEFAULTS = {"size": (2, 2), "stride": (2, 2)}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: layers.LeakyReluLayer(), {"alpha": 0.01}),
        (lambda: layers.ELULayer(), {"alpha": 1.0, "gamma": 1.0}),
        (lambda: layers.SELULayer(), {"alpha": 1.6733, "gamma": 1.0507}),
        (lambda: layers.SoftmaxLayer(), {"axis": -1}),
        (lambda: layers.LogSoftmaxLayer(), {"axis": -1}),
        (lambda: layers.DropoutLayer(), {"incl_prob": 0.5, "share_across_batch": True, "rescale": False}),
        (lambda: layers.MaxPoolingLayer(), {"pool_size": 2, "gives_subgradients": False}),
        (lambda: layers.MaxPooling2DLayer(), {**POOL_DEFAULTS, "input_height": None, "input_width": None}),
        (lambda: layers.MaxPooling2DLayer(7, 8), {"input_height": 7, "input_width": 8, "gives_subgradients": True}),
        (lambda: layers.MaxPooling1DLayer(3), {"size": (3,), "stride": (3,)}),
        (lambda: layers.AveragePooling2DLayer(), {**POOL_DEFAULTS, "count_include_pad": True}),
        (lambda: layers.AveragePooling3DLayer((1, 2, 3), 4), {"size": (1, 2, 3), "stride": (4, 4, 4)}),
        (
            lambda: layers.BatchNormalizationLayer(3),
            {"epsilon": 1e-5, "momentum": 0.1, "momentum_weighs": "batch", "running_variance": "unbiased", "rng": None},
        ),
        (lambda: layers.LayerNormalizationLayer(3), {"epsilon": 1e-5, "normalized_shape": (3,)}),
        (lambda: layers.LayerNormalizationLayer((3, 4), 1e-3), {"epsilon": 1e-3, "normalized_shape": (3, 4)}),
        (lambda: layers.GroupNormalizationLayer(2, 4), {"epsilon": 1e-5, "num_groups": 2, "num_channels": 4}),
        (lambda: layers.LocalResponseNormalizationLayer(5), {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}),
        (lambda: layers.ConcatenationLayer([[], TANH]), {"axis": 1}),
        (lambda: layers.ReshapeLayer(), {"output_shape": (-1,)}),
        (
            lambda: layers.AffineLayer(3, 2),
            {"input_dim": 3, "output_dim": 2, "weights_penalty": None, "biases_penalty": None},
        ),
        (
            lambda: layers.Convolution2DLayer(3, 2, 1),
            {**CONV_DEFAULTS, "num_input_channels": 3, "num_output_channels": 2},
        ),
        (lambda: layers.Convolution2DLayer(2, 4, 3, groups=2), {"kernels_shape": (4, 1, 3, 3)}),
        (lambda: layers.ConvolutionTranspose2DLayer(2, 4, 3, groups=2), {"kernels_shape": (2, 2, 3, 3)}),
        (lambda: layers.ConvolutionTranspose1DLayer(2, 3, 2), {**CONV_DEFAULTS, "output_padding": (0,)}),
        (lambda: layers.ConvolutionalLayer(3, 2, 4, 5, 2, 3), {**CONV_DEFAULTS, "inputs_shape": (None, 3, 4, 5)}),
    ],
)
def test_what_is_not_given_has_its_default(build, expected):
    layer = build()
    assert {name: getattr(layer, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("build", "names", "offsets"),
    [
        (lambda: layers.AffineLayer(3, 2), ("weights", "biases"), ("biases",)),
        (lambda: layers.Convolution2DLayer(3, 2, 1), ("kernels", "biases"), ("biases",)),
        (lambda: layers.Convolution2DLayer(3, 2, 1, bias=False), ("kernels",), ("biases",)),
        (lambda: layers.ConvolutionTranspose1DLayer(3, 2, 1), ("kernels", "biases"), ("biases",)),
        (lambda: layers.BatchNormalizationLayer(3), ("gamma", "beta", "running_mean", "running_var"), ("beta",)),
        (lambda: layers.LayerNormalizationLayer(3), ("gamma", "beta"), ("beta",)),
        (lambda: layers.GroupNormalizationLayer(1, 3), ("gamma", "beta"), ("beta",)),
    ],
)
def test_arrays_have_the_names_of_the_coursework(build, names, offsets):
    layer = build()
    assert layer.array_names() == names
    assert layer.own_param_names() == tuple(name for name in names if name not in layer.state_names)
    assert layer.bias_names == offsets
    assert layer.name is None


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (layers.BatchNormalizationLayer, (3,)),
        (layers.LayerNormalizationLayer, ((3, 2),)),
        (layers.GroupNormalizationLayer, (1, 3)),
    ],
)
def test_normalisation_starts_as_the_identity_of_normalised_numbers(kind, shape):
    layer = kind(*shape)
    starts = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
    for name in layer.array_names():
        array = getattr(layer, name)
        assert array.dtype == np.float64
        assert (array == starts[name]).all()


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda **kw: layers.AffineLayer(3, 2, **kw), ("weights_initialiser", "biases_initialiser")),
        (lambda **kw: layers.Convolution2DLayer(3, 2, 2, **kw), ("kernels_init", "biases_init")),
        (lambda **kw: layers.ConvolutionTranspose2DLayer(3, 2, 2, **kw), ("kernels_init", "biases_init")),
        (lambda **kw: layers.ConvolutionalLayer(3, 2, 4, 5, 2, 3, **kw), ("kernels_init", "biases_init")),
    ],
    ids=["affine", "convolution", "transposed", "coursework's"],
)
def test_initialisers_and_penalties_reach_their_parameters(build, names):
    penalties = [object(), object()]
    first, second = (name.split("_")[0] for name in names)
    layer = build(
        **{names[0]: ConstantInit(2.0), names[1]: ConstantInit(3.0)},
        **{f"{first}_penalty": penalties[0], f"{second}_penalty": penalties[1]},
    )
    assert [np.unique(param).tolist() for param in layer.params] == [[2.0], [3.0]]
    assert getattr(layer, f"{first}_penalty") is penalties[0]
    assert getattr(layer, f"{second}_penalty") is penalties[1]


@pytest.mark.parametrize("kind", [layers.Convolution2DLayer, layers.ConvolutionTranspose2DLayer])
def test_a_convolutions_default_parameters_lie_within_one_over_the_root_of_its_fan_in(kind):
    layer = kind(64, 64, 4)  # of 64 biases all are small in one draw of 2 ** 64, of 8 in one of 256
    bound = 1 / np.sqrt(64 * 16)
    for param in layer.params:
        assert 0.5 * bound < np.abs(param).max() <= bound
    assert not np.array_equal(layer.kernels, kind(64, 64, 4).kernels)
    assert not np.array_equal(layer.biases, kind(64, 64, 4).biases)


def test_the_courseworks_convolution_starts_with_small_kernels_and_without_biases():
    layer = layers.ConvolutionalLayer(8, 8, 4, 4, 4, 4)
    assert 0.005 < layer.kernels.max() <= 0.01
    assert -0.01 <= layer.kernels.min() < -0.005
    assert (layer.biases == 0).all()
    assert layer.fprop(np.ones((2, 8, 4, 4))).shape == (2, 8, 1, 1)
    assert not np.array_equal(layer.kernels, layers.ConvolutionalLayer(8, 8, 4, 4, 4, 4).kernels)


@pytest.mark.parametrize(
    ("build", "inputs", "outputs", "expected"),
    [
        (lambda: layers.AffineLayer(4, 3), (5, 4), (5, 3), 5 * 4 * 3),
        (lambda: layers.Convolution2DLayer(4, 6, (2, 3)), (5, 4, 7, 8), (5, 6, 6, 6), 5 * 36 * 6 * 4 * 6),
        (lambda: layers.Convolution2DLayer(4, 6, (2, 3), groups=2), (5, 4, 7, 8), (5, 6, 6, 6), 5 * 36 * 6 * 2 * 6),
        (lambda: layers.Convolution1DLayer(2, 3, 4), (5, 2, 7), (5, 3, 4), 5 * 4 * 3 * 2 * 4),
        (lambda: layers.ConvolutionTranspose2DLayer(4, 6, (2, 3)), (5, 4, 7, 8), (5, 6, 8, 10), 5 * 56 * 4 * 6 * 6),
        (lambda: layers.BatchNormalizationLayer(3), (5, 3), (5, 3), 0),
        (lambda: layers.TanhLayer(), (5, 3), (5, 3), 0),
    ],
)
def test_multiply_adds_are_those_of_the_matrix_products(build, inputs, outputs, expected):
    layer = build()
    assert layer.fprop(np.ones(inputs)).shape == outputs
    assert layer.multiply_adds(inputs, outputs) == expected


WHOLE = "expected a whole number >= 1"
conv, transposed, true = layers.Convolution2DLayer, layers.ConvolutionTranspose2DLayer, layers.ConvolutionalLayer
line, most, mean = layers.Convolution1DLayer, layers.MaxPooling2DLayer, layers.AveragePooling2DLayer
affine, batch, group = layers.AffineLayer, layers.BatchNormalizationLayer, layers.GroupNormalizationLayer
within, local = layers.LayerNormalizationLayer, layers.LocalResponseNormalizationLayer
spread = "expected a list of layers or of lists of layers"


REFUSALS = [
    (lambda: affine(0, 2), f"AffineLayer: input_dim is 0, {WHOLE}"),
    (lambda: affine(2, 1.5), f"AffineLayer: output_dim is 1.5 (float), {WHOLE}"),
    (
        lambda: affine(2, 2, 0.0),
        "AffineLayer: weights: the initialiser is 0.0, expected a function of a shape: ConstantInit(...)?",
    ),
    (
        lambda: affine(2, 3, None, "zeros"),
        "AffineLayer: biases: the initialiser is 'zeros', expected a function of a shape: ConstantInit(...)?",
    ),
    (
        lambda: affine(2, 3, lambda shape: np.zeros((2, 2))),
        "AffineLayer: weights: the initialiser's array has shape (2, 2), expected (3, 2): axis 0 is 2, not 3",
    ),
    (
        lambda: affine(2, 3, None, lambda shape: [0.0] * 3),
        "AffineLayer: biases: the initialiser's array is a list, expected a NumPy or CuPy array: use np.asarray(...)",
    ),
    (lambda: conv(0, 1, 1), f"Convolution2DLayer: num_input_channels is 0, {WHOLE}"),
    (lambda: conv(1, 0, 1), f"Convolution2DLayer: num_output_channels is 0, {WHOLE}"),
    (lambda: conv(1, 1, (1, 0)), f"Convolution2DLayer: kernel_size is 0, {WHOLE}"),
    (
        lambda: line(1, 1, (1, 2)),
        "Convolution1DLayer: kernel_size is (1, 2), expected one whole number or 1, one per spatial axis",
    ),
    (lambda: conv(1, 1, 1, 0), f"Convolution2DLayer: stride is 0, {WHOLE}"),
    (lambda: conv(1, 1, 1, 1, -1), "Convolution2DLayer: padding is -1, expected a whole number >= 0"),
    (
        lambda: conv(1, 1, 1, 1, ((0, 1),)),
        "Convolution2DLayer: padding is ((0, 1),), expected 2 pairs (before, after), one per spatial axis",
    ),
    (lambda: conv(1, 1, 1, 1, 0, 0), f"Convolution2DLayer: dilation is 0, {WHOLE}"),
    (lambda: conv(1, 1, 1, groups=0), f"Convolution2DLayer: groups is 0, {WHOLE}"),
    (lambda: conv(3, 4, 1, groups=2), "Convolution2DLayer: 2 groups do not divide the channels (3, 4)"),
    (lambda: conv(4, 3, 1, groups=2), "Convolution2DLayer: 2 groups do not divide the channels (4, 3)"),
    (lambda: transposed(4, 3, 1, groups=4), "ConvolutionTranspose2DLayer: 4 groups do not divide the channels (4, 3)"),
    (
        lambda: conv(1, 1, 1, kernels_init=1),
        "Convolution2DLayer: kernels: the initialiser is 1, expected a function of a shape: ConstantInit(...)?",
    ),
    (
        lambda: conv(1, 1, 1, biases_init=1),
        "Convolution2DLayer: biases: the initialiser is 1, expected a function of a shape: ConstantInit(...)?",
    ),
    (
        lambda: transposed(1, 1, 3, 2, output_padding=2),
        "ConvolutionTranspose2DLayer: output_padding is 2, expected less than the stride (2, 2)",
    ),
    (
        lambda: transposed(1, 1, 3, 2, output_padding=-1),
        "ConvolutionTranspose2DLayer: output_padding is -1, expected a whole number >= 0",
    ),
    (
        lambda: true(1, 1, None, 5, 2, 3),
        "ConvolutionalLayer: give input_height (or its older name input_dim_1), one of the two",
    ),
    (
        lambda: true(1, 1, 5, 5, 2, 3, input_dim_2=5),
        "ConvolutionalLayer: give input_width (or its older name input_dim_2), one of the two",
    ),
    (
        lambda: true(1, 1, 5, 5, kernel_width=2),
        "ConvolutionalLayer: give kernel_height (or its older name kernel_dim_1), one of the two",
    ),
    (
        lambda: true(1, 1, 5, 5, kernel_height=2),
        "ConvolutionalLayer: give kernel_width (or its older name kernel_dim_2), one of the two",
    ),
    (lambda: true(1, 1, 0, 5, 2, 3), f"ConvolutionalLayer: input_height is 0, {WHOLE}"),
    (lambda: true(1, 1, 5, 5, 2, kernel_dim_2=0), f"ConvolutionalLayer: kernel_width is 0, {WHOLE}"),
    (lambda: true(1, 1, 3, 5, 4, 5), "ConvolutionalLayer: kernels (4, 5) do not fit into inputs (3, 5)"),
    (lambda: most(0, 1), f"MaxPooling2DLayer: input_height is 0, {WHOLE}"),
    (lambda: most(1, 1.0), f"MaxPooling2DLayer: input_width is 1.0 (float), {WHOLE}"),
    (lambda: most(2), "MaxPooling2DLayer: give input_height and input_width, or none; is size=2 meant?"),
    (
        lambda: most(input_width=3),
        "MaxPooling2DLayer: give input_height and input_width, or none; is size=3 meant?",
    ),
    (lambda: most(size=0), f"MaxPooling2DLayer: size is 0, {WHOLE}"),
    (lambda: mean(2, 0), f"AveragePooling2DLayer: stride is 0, {WHOLE}"),
    (lambda: mean(2, 1, -1), "AveragePooling2DLayer: padding is -1, expected a whole number >= 0"),
    (lambda: mean(2, 1, 0, 0), f"AveragePooling2DLayer: dilation is 0, {WHOLE}"),
    (lambda: layers.MaxPoolingLayer(0), f"MaxPoolingLayer: pool_size is 0, {WHOLE}"),
    (lambda: batch(0), f"BatchNormalizationLayer: input_dim is 0, {WHOLE}"),
    (
        lambda: batch(3, None, 0.0),
        "BatchNormalizationLayer: epsilon is 0.0, expected a finite number in (0.0, inf]",
    ),
    (
        lambda: batch(3, momentum=-0.1),
        "BatchNormalizationLayer: momentum is -0.1, expected a finite number in [0.0, 1.0]",
    ),
    (
        lambda: batch(3, momentum=1.1),
        "BatchNormalizationLayer: momentum is 1.1, expected a finite number in [0.0, 1.0]",
    ),
    (
        lambda: batch(3, momentum_weighs="old"),
        "BatchNormalizationLayer: momentum_weighs is 'old', expected one of 'batch', 'running'",
    ),
    (
        lambda: batch(3, running_variance="none"),
        "BatchNormalizationLayer: running_variance is 'none', expected one of 'unbiased', 'biased'",
    ),
    (lambda: within(0), f"LayerNormalizationLayer: normalized_shape is 0, {WHOLE}"),
    (lambda: within((3, 1.0)), f"LayerNormalizationLayer: normalized_shape is 1.0 (float), {WHOLE}"),
    (lambda: within(()), "LayerNormalizationLayer: normalized_shape is empty, expected one size or more"),
    (lambda: within(3, 0), "LayerNormalizationLayer: epsilon is 0, expected a finite number in (0.0, inf]"),
    (lambda: group(0, 4), f"GroupNormalizationLayer: num_groups is 0, {WHOLE}"),
    (lambda: group(1, 0), f"GroupNormalizationLayer: num_channels is 0, {WHOLE}"),
    (lambda: group(3, 4), "GroupNormalizationLayer: 3 groups do not divide 4 channels"),
    (lambda: group(1, 4, 0.0), "GroupNormalizationLayer: epsilon is 0.0, expected a finite number in (0.0, inf]"),
    (lambda: local(0), f"LocalResponseNormalizationLayer: size is 0, {WHOLE}"),
    (
        lambda: local(3, alpha=-1.0),
        "LocalResponseNormalizationLayer: alpha is -1.0, expected a finite number in [0.0, inf]",
    ),
    (
        lambda: local(3, beta=-1.0),
        "LocalResponseNormalizationLayer: beta is -1.0, expected a finite number in [0.0, inf]",
    ),
    (lambda: local(3, bias=0), "LocalResponseNormalizationLayer: bias is 0, expected a finite number in (0.0, inf]"),
    (lambda: layers.LeakyReluLayer("a"), "LeakyReluLayer: alpha is 'a' (str), expected a number"),
    (
        lambda: layers.LeakyReluLayer(-float("inf")),
        "LeakyReluLayer: alpha is -inf, expected a finite number in [-inf, inf]",
    ),
    (lambda: layers.ELULayer(None), "ELULayer: alpha is None (NoneType), expected a number"),
    (lambda: layers.ELULayer(float("nan")), "ELULayer: alpha is nan, expected a finite number in [-inf, inf]"),
    (lambda: layers.SELULayer("a"), "SELULayer: alpha is 'a' (str), expected a number"),
    (lambda: layers.SELULayer(gamma="a"), "SELULayer: gamma is 'a' (str), expected a number"),
    (
        lambda: layers.SELULayer(gamma=float("inf")),
        "SELULayer: gamma is inf, expected a finite number in [-inf, inf]",
    ),
    (lambda: layers.SoftmaxLayer(1.0), "SoftmaxLayer: axis is 1.0 (float), expected a whole number"),
    (lambda: layers.LogSoftmaxLayer(None), "LogSoftmaxLayer: axis is None (NoneType), expected a whole number"),
    (
        lambda: layers.DropoutLayer(incl_prob=0.0),
        "DropoutLayer: incl_prob is 0.0, expected a finite number in (0.0, 1.0]",
    ),
    (
        lambda: layers.DropoutLayer(incl_prob=1.1),
        "DropoutLayer: incl_prob is 1.1, expected a finite number in (0.0, 1.0]",
    ),
    (lambda: layers.DropoutLayer(3), "rng is 3, expected a numpy.random.RandomState, a Generator or None"),
    (lambda: layers.ReshapeLayer([3]), "ReshapeLayer: output_shape is [3], expected a tuple of whole numbers"),
    (lambda: layers.ReshapeLayer((3.0,)), "ReshapeLayer: output_shape is (3.0,), expected a tuple of whole numbers"),
    *(
        (
            lambda shape=shape: layers.ReshapeLayer(shape),
            f"ReshapeLayer: output_shape is {shape}, expected sizes >= 0, or sizes >= 1 and one -1",
        )
        for shape in ((-2,), (-1, -1), (0, -1), (3, -2))
    ),
    (lambda: conv(1, 1, 1, bias=None), "Convolution2DLayer: bias is None (NoneType), expected True or False"),
    (lambda: transposed(1, 1, 1, bias=0), "ConvolutionTranspose2DLayer: bias is 0 (int), expected True or False"),
    (lambda: most(ceil_mode=1), "MaxPooling2DLayer: ceil_mode is 1 (int), expected True or False"),
    (
        lambda: mean(count_include_pad="no"),
        "AveragePooling2DLayer: count_include_pad is 'no' (str), expected True or False",
    ),
    (
        lambda: layers.DropoutLayer(share_across_batch=1),
        "DropoutLayer: share_across_batch is 1 (int), expected True or False",
    ),
    (lambda: layers.DropoutLayer(rescale=None), "DropoutLayer: rescale is None (NoneType), expected True or False"),
    (lambda: layers.ChainLayer([]), "ChainLayer: layers is empty"),
    (lambda: layers.ResidualLayer([TANH, 3]), "ResidualLayer: layers holds 3, no Layer"),
    (
        lambda: layers.ChainLayer([TANH, layers.ResidualLayer([TANH])]),
        "ChainLayer: one layer object is there twice: build a layer for each place",
    ),
    (lambda: layers.AdditionLayer([]), f"AdditionLayer: branches is [], {spread}"),
    (lambda: layers.AdditionLayer(TANH), f"AdditionLayer: branches is TanhLayer, {spread}"),
    (lambda: layers.ConcatenationLayer([3]), "ConcatenationLayer: layers holds 3, no Layer"),
    (
        lambda: layers.ConcatenationLayer([TANH, []], axis=0.5),
        "ConcatenationLayer: axis is 0.5 (float), expected a whole number",
    ),
    (lambda: layers.MatrixProductLayer([[], [], []]), "MatrixProductLayer: 3 branches, expected 2"),
]


@pytest.mark.parametrize(("build", "message"), REFUSALS, ids=case_id)
def test_a_bad_argument_is_refused_by_name(build, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "build",
    [
        lambda: layers.DropoutLayer(incl_prob=1.0),
        lambda: batch(3, momentum=0.0),
        lambda: batch(3, momentum=1.0),
        lambda: local(3, alpha=0.0, beta=0.0),
        lambda: within(3, 0.5),
        lambda: layers.ReshapeLayer(()),
        lambda: layers.ReshapeLayer((0, 3)),
        lambda: layers.LeakyReluLayer(-2.0),
        lambda: layers.SELULayer(-1.0, -1.0),
        lambda: transposed(1, 1, 3, 2, output_padding=1),
        lambda: most(1, 1),
        lambda: affine(1, 1),
    ],
)
def test_the_ends_of_the_allowed_are_allowed(build):
    layer = build()
    assert isinstance(layer, layers.Layer)
    assert isinstance(layer, LayerWithParameters) == bool(getattr(layer, "param_names", ()))
