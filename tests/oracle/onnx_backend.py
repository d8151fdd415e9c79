"""The library as an ONNX backend: a table from an operator to the layer, error or learning rule that runs its nodes.

Attributes and types are translated here (padding, axes, names, defaults). Whatever is computed, the library computes.
"""

from itertools import islice
from math import prod

import numpy as np
from onnx import helper

from mlp import errors, layers, learning_rules, penalties, schedulers
from mlp.layers.base import Layer, forward
from mlp.layers.example_normalisation import ExampleStatistics


class Given(Layer):
    """A branch whose outputs are a given array, whatever the inputs: an operator's further operands."""

    def __init__(self, array):
        self.array = array

    def fprop(self, inputs):
        return self.array


class Mirrored(np.random.RandomState):
    """Draws 1 - u where NumPy's stream draws u: ONNX keeps a unit where u >= ratio, we where u < 1 - ratio."""

    def uniform(self, *args, **kwargs):
        return 1.0 - super().uniform(*args, **kwargs)


def run(node, inputs):
    """Return the outputs of a node as the library returns them: float32 stays float32 without any cast here.

    Integers are computed in int64, and the first output gets its input's own type back.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    integers = inputs[0].dtype.kind in "iu"
    wide = [array.astype(np.int64) if array.dtype.kind in "iu" else array for array in inputs]
    first, *others = islice(OPERATORS[node.op_type](attributes, *wide), len(node.output))
    assert first.dtype == wide[0].dtype
    return [first.astype(inputs[0].dtype) if integers else first, *others]


def with_params(layer, *params):
    layer = layer.astype(params[0].dtype)
    layer.params = params
    return layer


def as_one_example(layer, x):
    return layer.fprop(x[None])[0]


# Windows: convolutions and pooling


def of_rank(x, name):
    """Return the layer class of this name for the spatial axes of x: `name` with 1D, 2D or 3D in the place of nD."""
    return getattr(layers, name.replace("nD", f"{x.ndim - 2}D"))


def halves(auto_pad, total):
    """Return a padding's (before, after): the larger half after for SAME_UPPER, else before."""
    return (total // 2, total - total // 2) if auto_pad == "SAME_UPPER" else (total - total // 2, total // 2)


def geometry(attributes, size):
    """Return the strides, pairs of padding (what is explicit) and dilations, one per spatial axis."""
    axes = len(size)
    strides, dilations = (tuple(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * (2 * axes))
    return strides, tuple(zip(pads[:axes], pads[axes:], strict=True)), dilations


def windows(attributes, x, size):
    """Return stride, padding and dilation of windows of this size; padding SAME gives ceil(inputs / stride) outputs."""
    strides, padding, dilations = geometry(attributes, size)
    auto_pad = attributes.get("auto_pad", "NOTSET")
    if auto_pad.startswith("SAME"):
        spans = [dilation * (width - 1) + 1 for dilation, width in zip(dilations, size, strict=True)]
        padding = tuple(
            halves(auto_pad, max((-(-length // stride) - 1) * stride + span - length, 0))
            for length, stride, span in zip(x.shape[2:], strides, spans, strict=True)
        )
    return {"stride": strides, "padding": padding, "dilation": dilations}


def convolution(attributes, x, kernels, *biases):
    size, groups = kernels.shape[2:], attributes.get("group", 1)
    layer = of_rank(x, "ConvolutionnDLayer")(
        x.shape[1], len(kernels), size, **windows(attributes, x, size), bias=bool(biases), groups=groups
    )
    return [with_params(layer, kernels, *biases).fprop(x)]


def convolution_transpose(attributes, x, kernels, *biases):
    size, groups = kernels.shape[2:], attributes.get("group", 1)
    strides, padding, dilations = geometry(attributes, size)
    extra = attributes.get("output_padding", [0] * len(size))
    auto_pad = attributes.get("auto_pad", "NOTSET")
    lengths = attributes.get("output_shape")
    if auto_pad.startswith("SAME"):
        lengths = [length * stride for length, stride in zip(x.shape[2:], strides, strict=True)]
    if lengths is not None:  # what the full output has too much is cut by padding, what it lacks is added at the end
        full = [
            (n - 1) * stride + dilation * (width - 1) + 1 + more
            for n, stride, dilation, width, more in zip(x.shape[2:], strides, dilations, size, extra, strict=True)
        ]
        padding = [halves(auto_pad, have - want) for have, want in zip(full, lengths, strict=True)]
        extra = [more + max(-after, 0) for more, (_, after) in zip(extra, padding, strict=True)]
        padding = tuple((before, max(after, 0)) for before, after in padding)
    layer = of_rank(x, "ConvolutionTransposenDLayer")(
        x.shape[1],
        groups * kernels.shape[1],
        size,
        strides,
        padding,
        dilations,
        bool(biases),
        output_padding=tuple(extra),
        groups=groups,
    )
    return [with_params(layer, kernels, *biases).fprop(x)]


def max_pooling(attributes, x):
    size, ceil_mode = tuple(attributes["kernel_shape"]), bool(attributes.get("ceil_mode", 0))
    layer = of_rank(x, "MaxPoolingnDLayer")(size=size, ceil_mode=ceil_mode, **windows(attributes, x, size))
    outputs = layer.fprop(x)
    yield outputs
    order = "F" if attributes.get("storage_order", 0) else "C"
    yield np.array([place_of(layer, x, outputs, i, order) for i in range(outputs.size)]).reshape(outputs.shape)


def place_of(layer, x, outputs, i, order):
    """Return the place of the one input that gets the i-th output's gradient, counted in this order in its image."""
    upstream = np.zeros_like(outputs)
    upstream.flat[i] = 1
    grads = layer.bprop(x, outputs, upstream).reshape(-1, *x.shape[2:])
    ((image, place),) = np.argwhere([channel.ravel(order) for channel in grads])
    assert grads.sum() == 1
    return image * grads[0].size + place


def average_pooling(attributes, x):
    size, ceil_mode = tuple(attributes["kernel_shape"]), bool(attributes.get("ceil_mode", 0))
    layer = of_rank(x, "AveragePoolingnDLayer")(
        size=size,
        ceil_mode=ceil_mode,
        count_include_pad=bool(attributes.get("count_include_pad", 0)),
        **windows(attributes, x, size),
    )
    return [layer.fprop(x)]


def global_average_pooling(attributes, x):
    keep_axes = layers.ReshapeLayer((x.shape[1],) + (1,) * (x.ndim - 2))
    return [layers.ChainLayer([of_rank(x, "GlobalAveragePoolingnDLayer")(), keep_axes]).fprop(x)]


# Normalisation


def batch_normalization(attributes, x, scale, bias, mean, var):
    layer = layers.BatchNormalizationLayer(
        x.shape[1],
        epsilon=attributes.get("epsilon", 1e-5),
        momentum=attributes.get("momentum", 0.9),
        momentum_weighs="running",
        running_variance="biased",
    )
    layer = with_params(layer, scale, bias)
    layer.running_mean[...], layer.running_var[...] = mean, var
    outputs = forward(layer, x, stochastic=bool(attributes.get("training_mode", 0)))
    return [outputs, layer.running_mean, layer.running_var]


def layer_normalization(attributes, x, scale, bias):
    axis = attributes.get("axis", -1) % x.ndim
    layer = with_params(layers.LayerNormalizationLayer(x.shape[axis:], attributes.get("epsilon", 1e-5)), scale, bias)
    inputs = x if axis else x[None]
    outputs = layer.fprop(inputs)
    statistics = layer.remembered(ExampleStatistics, inputs, outputs)
    shape = x.shape[:axis] + (1,) * (x.ndim - axis)
    inverse_std = statistics.moments.unit / statistics.moments.std(layer.epsilon)
    return [outputs.reshape(x.shape), statistics.moments.mean().reshape(shape), inverse_std.reshape(shape)]


def group_normalization(attributes, x, scale, bias):
    layer = layers.GroupNormalizationLayer(attributes["num_groups"], x.shape[1], attributes.get("epsilon", 1e-5))
    return [with_params(layer, scale, bias).fprop(x)]


def local_response_normalization(attributes, x):
    size, bias = attributes["size"], attributes.get("bias", 1.0)
    alpha, beta = attributes.get("alpha", 1e-4), attributes.get("beta", 0.75)
    return [layers.LocalResponseNormalizationLayer(size, alpha, beta, bias).fprop(x)]


# Elementwise and along an axis


def softmax(attributes, x):
    return [along(layers.SoftmaxLayer, attributes, x)]


def log_softmax(attributes, x):
    return [along(layers.LogSoftmaxLayer, attributes, x)]


def along(layer_class, attributes, x):
    """Return the layer's outputs along an axis; along the first, the array is one example."""
    axis = attributes.get("axis", -1)
    return as_one_example(layer_class(axis=1), x) if axis == 0 else layer_class(axis=axis).fprop(x)


def selu(attributes, x):
    alpha = attributes.get("alpha", 1.67326319217681884765625)
    return [layers.SELULayer(alpha, attributes.get("gamma", 1.05070102214813232421875)).fprop(x)]


def dropout(attributes, x, ratio=0.5, training=False):
    """Yield the outputs and the mask: the places where an array of ones comes through the same draw."""
    for inputs in (x, np.ones_like(x)):
        keep = 1.0 - float(attributes.get("ratio", ratio))
        layer = layers.DropoutLayer(Mirrored(attributes.get("seed")), keep, share_across_batch=False, rescale=True)
        outputs = forward(layer, inputs, stochastic=bool(training))
        yield outputs if inputs is x else outputs != 0


def softmax_cross_entropy(attributes, x, labels, class_weights=None):
    reduction = attributes.get("reduction", "mean")
    yield errors.CrossEntropySoftmaxError(class_weights, attributes.get("ignore_index"), reduction)(x, labels)
    yield layers.LogSoftmaxLayer(axis=1).fprop(x)


# Shapes and several operands


def reshape(attributes, x, sizes):
    kept = not attributes.get("allowzero", 0)
    shape = tuple(x.shape[i] if size == 0 and kept else int(size) for i, size in enumerate(sizes))
    return [as_one_example(layers.ReshapeLayer(shape), x)]


def flatten(attributes, x):
    axis = attributes.get("axis", 1)
    return [as_one_example(layers.ReshapeLayer((prod(x.shape[:axis]), prod(x.shape[axis:]))), x)]


def addition(attributes, x, *others):
    return [layers.AdditionLayer([[], *map(Given, others)]).fprop(x)]


def concatenation(attributes, x, *others):
    return [layers.ConcatenationLayer([[], *map(Given, others)], axis=attributes["axis"]).fprop(x)]


def matrix_product(attributes, x, other):
    return [layers.MatrixProductLayer([[], Given(other)]).fprop(x)]


def gemm(attributes, a, b, c=None):
    """Return alpha A B + beta C: an affine layer of the rows of A, with C as its biases where all rows share one."""
    a = a.T if attributes.get("transA", 0) else a
    weights = attributes.get("alpha", 1.0) * (b if attributes.get("transB", 0) else b.T)
    affine = layers.AffineLayer(weights.shape[1], weights.shape[0])
    biases = np.zeros((), a.dtype) if c is None else attributes.get("beta", 1.0) * c
    if prod(biases.shape[:-1]) == 1:
        return [with_params(affine, weights, np.broadcast_to(biases.ravel(), len(weights))).fprop(a)]
    affine = with_params(affine, weights, np.zeros(len(weights), a.dtype))
    return [layers.AdditionLayer([affine, Given(biases)]).fprop(a)]


# Learning rules: the inputs are R, T, then all X, all G and each list of states


def split(arrays, lists):
    """Return the arrays as so many lists of equal length."""
    length = len(arrays) // lists
    return [arrays[i * length : (i + 1) * length] for i in range(lists)]


def regularised(attributes, params, grads):
    """Return the gradients with those of the penalty added."""
    norm = attributes.get("norm_coefficient", 0.0)
    penalty = penalties.L2Penalty(norm) if norm else None
    return [grad + penalty.grad(param) if norm else grad for param, grad in zip(params, grads, strict=True)]


def step(rule, params, grads, states, step_count=0):
    """Return the parameters after one step of the rule from these states, whose lists become the rule's."""
    params = [param.copy() for param in params]
    rule.initialise(params)
    rule.step_count = step_count
    for name, values in zip(rule.state_names, states, strict=True):
        for state, value in zip(getattr(rule, name), values, strict=True):
            state[...] = value
    rule.update_params(grads)
    return params


def adam(attributes, rate, count, *arrays):
    params, grads, moms_1, moms_2 = split(arrays, 4)
    rule = learning_rules.AdamLearningRule(
        float(rate),
        attributes.get("alpha", 0.9),
        attributes.get("beta", 0.999),
        attributes.get("epsilon", 0.0),
        bias_correction=bool(count > 0),
    )
    count = max(int(count) - 1, 0)
    params = step(rule, params, regularised(attributes, params, grads), [moms_1, moms_2], count)
    return [*params, *rule.moms_1, *rule.moms_2]


def momentum(attributes, rate, count, *arrays):
    """ONNX's V is ours divided by -R, and its gradient enters V with a weight, beta, which is 1 at first."""
    params, grads, moms = split(arrays, 3)
    weight = attributes["beta"] if count > 0 else 1.0
    grads = [weight * grad for grad in regularised(attributes, params, grads)]
    rules = {"standard": learning_rules.MomentumLearningRule, "nesterov": learning_rules.NesterovMomentumLearningRule}
    rule = rules[attributes["mode"]](float(rate), attributes["alpha"])
    params = step(rule, params, grads, [[-rule.learning_rate * mom for mom in moms]])
    return [*params, *(mom / -rule.learning_rate for mom in rule.moms)]


def adagrad(attributes, rate, count, *arrays):
    params, grads, sums = split(arrays, 3)
    rule = learning_rules.AdaGradLearningRule(float(rate), attributes.get("epsilon", 0.0), epsilon_inside_root=False)
    if attributes.get("decay_factor", 0.0):
        schedule = schedulers.ReciprocalLearningRateScheduler(rule.learning_rate, 1.0 / attributes["decay_factor"])
        schedule.update_learning_rule(rule, int(count))
    return [*step(rule, params, regularised(attributes, params, grads), [sums]), *rule.sum_sq_grads]


OPERATORS = {
    "Adagrad": adagrad,
    "Adam": adam,
    "Add": addition,
    "AveragePool": average_pooling,
    "BatchNormalization": batch_normalization,
    "Concat": concatenation,
    "Conv": convolution,
    "ConvTranspose": convolution_transpose,
    "Dropout": dropout,
    "Elu": lambda attributes, x: [layers.ELULayer(attributes.get("alpha", 1.0)).fprop(x)],
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pooling,
    "GroupNormalization": group_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": lambda attributes, x: [layers.LeakyReluLayer(attributes.get("alpha", 0.01)).fprop(x)],
    "LogSoftmax": log_softmax,
    "MatMul": matrix_product,
    "MaxPool": max_pooling,
    "Momentum": momentum,
    "Relu": lambda attributes, x: [layers.ReluLayer().fprop(x)],
    "Reshape": reshape,
    "Selu": selu,
    "Sigmoid": lambda attributes, x: [layers.SigmoidLayer().fprop(x)],
    "Softmax": softmax,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "Tanh": lambda attributes, x: [layers.TanhLayer().fprop(x)],
}
