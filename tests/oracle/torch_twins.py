"""For every public layer: a strategy that draws the layer, its inputs' shape, and the same function in PyTorch.

Where PyTorch has the function under the same conventions it is PyTorch's own, else a few lines of PyTorch whose
gradients autograd takes.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

from mlp import layers

torch.set_num_threads(1)


def tensor(array, requires_grad=False):
    """Return a copy of an array, whatever its strides."""
    return torch.from_numpy(np.array(array, order="C")).requires_grad_(requires_grad)


class Twin(NamedTuple):
    """A layer, the shape of its inputs, and the same function in PyTorch."""

    layer: layers.Layer
    shape: tuple
    function: Callable
    """function(inputs, params, training) -> outputs, of tensors; in training it updates `states` in place."""
    states: tuple = ()
    training: bool = True
    rounds: int = 0
    """Training passes, each on other inputs, before the one that is compared."""


def of_inputs(layer, shape, function):
    """Return the twin of a layer without parameters, function(inputs) in PyTorch."""
    return Twin(layer, shape, lambda inputs, params, training: function(inputs))


def of_params(layer, shape, function):
    """Return the twin of a layer with parameters, function(inputs, *params) in PyTorch."""
    return Twin(layer, shape, lambda inputs, params, training: function(inputs, *params))


def integers(draw, low, high, count):
    return tuple(draw(st.integers(low, high)) for _ in range(count))


def spelled(draw, sizes):
    """Return sizes as a tuple, or as one whole number where they are alike."""
    return sizes[0] if len(set(sizes)) == 1 and draw(st.booleans()) else sizes


def drawn_padding(draw, highest):
    """Return (before, after) for each axis, alike or not, up to its highest number."""
    if draw(st.booleans()):
        return tuple((size, size) for size in (draw(st.integers(0, high)) for high in highest))
    return tuple(integers(draw, 0, high, 2) for high in highest)


def spelled_padding(draw, pads):
    """Return paddings as pairs, or where before and after are alike perhaps as `spelled` does."""
    if is_symmetric(pads) and draw(st.booleans()):
        return spelled(draw, tuple(before for before, _ in pads))
    return pads


def is_symmetric(pads):
    return all(before == after for before, after in pads)


def padded(inputs, pads, value=0.0):
    """Return inputs with the last axes padded, or cut where a number is negative."""
    return F.pad(inputs, [size for pair in reversed(pads) for size in pair], value=value)


def reaches(kernel, dilation):
    return tuple(step * (size - 1) + 1 for size, step in zip(kernel, dilation, strict=True))


@st.composite
def shapes(draw, low=1, high=4):
    return integers(draw, 1, 5, draw(st.integers(low, high)))


# Convolutions.


def as_pairs(padding, axes):
    """Return a padding, however it is spelled, as a pair (before, after) for each axis."""
    padding = padding if isinstance(padding, tuple) else (padding,) * axes
    return tuple(pair if isinstance(pair, tuple) else (pair, pair) for pair in padding)


def convolution(shape, outputs, *, padding=0, stride=1, dilation=1, groups=1, **given):
    """Return the twin of a convolution of inputs of this shape to a number of channels, for our arguments."""
    axes = len(shape) - 2
    kind = (layers.Convolution1DLayer, layers.Convolution2DLayer, layers.Convolution3DLayer)[axes - 1]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    layer = kind(shape[1], outputs, padding=padding, stride=stride, dilation=dilation, groups=groups, **given)
    pads = as_pairs(padding, axes)

    def function(inputs, kernels, biases=None):
        if is_symmetric(pads):
            own = [before for before, _ in pads]
            return convolve(inputs, kernels, biases, stride, own, dilation, groups)
        return convolve(padded(inputs, pads), kernels, biases, stride, 0, dilation, groups)

    return of_params(layer, shape, function)


def transposed_convolution(shape, outputs, *, padding=0, stride=1, dilation=1, groups=1, output_padding=0, **given):
    """Return the twin of a transposed convolution: unequal padding is cut off the outputs without any."""
    axes = len(shape) - 2
    kind = (
        layers.ConvolutionTranspose1DLayer,
        layers.ConvolutionTranspose2DLayer,
        layers.ConvolutionTranspose3DLayer,
    )[axes - 1]
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    sizes = {"padding": padding, "stride": stride, "dilation": dilation, "output_padding": output_padding}
    layer = kind(shape[1], outputs, **sizes, groups=groups, **given)
    pads = as_pairs(padding, axes)

    def function(inputs, kernels, biases=None):
        own = [before for before, _ in pads] if is_symmetric(pads) else 0
        whole = transpose(inputs, kernels, biases, stride, own, output_padding, groups, dilation)
        return whole if is_symmetric(pads) else padded(whole, [(-before, -after) for before, after in pads])

    return of_params(layer, shape, function)


def drawn_convolution(draw, axes):
    """Return what convolutions and transposed ones have in common: channels, sizes, and our arguments for them."""
    groups = draw(st.integers(1, 3))
    channels = tuple(groups * number for number in integers(draw, 1, 2, 2))
    most = 4 if axes < 3 else 2
    kernel, stride, dilation = (integers(draw, 1, high, axes) for high in (most, 3, most - 1))
    pads = drawn_padding(draw, [most - 1] * axes)
    given = {
        "kernel_size": spelled(draw, kernel),
        "stride": spelled(draw, stride),
        "padding": spelled_padding(draw, pads),
        "dilation": spelled(draw, dilation),
        "bias": draw(st.booleans()),
        "groups": groups,
    }
    return channels, stride, pads, reaches(kernel, dilation), given


@st.composite
def convolutions(draw, axes):
    (channels, outputs), _, pads, reach, given = drawn_convolution(draw, axes)
    least = [max(1, length - sum(pad)) for length, pad in zip(reach, pads, strict=True)]
    size = [length + draw(st.integers(0, 6 if axes < 3 else 2)) for length in least]
    return convolution((draw(st.integers(1, 4)), channels, *size), outputs, **given)


@st.composite
def transposed_convolutions(draw, axes):
    (channels, outputs), stride, pads, reach, given = drawn_convolution(draw, axes)
    extra = tuple(draw(st.integers(0, step - 1)) for step in stride)
    size = []
    for step, length, pad, more in zip(stride, reach, pads, extra, strict=True):
        least = max(1, -((length + more - sum(pad) - 1) // step) + 1)  # so that there is an output
        size.append(least + draw(st.integers(0, 3 if axes < 3 else 1)))
    shape = (draw(st.integers(1, 3)), channels, *size)
    return transposed_convolution(shape, outputs, **given, output_padding=spelled(draw, extra))


@st.composite
def true_convolutions(draw):
    channels, kernel = integers(draw, 1, 3, 2), integers(draw, 1, 4, 2)
    size = tuple(length + draw(st.integers(0, 4)) for length in kernel)
    if draw(st.booleans()):
        layer = layers.ConvolutionalLayer(*channels, *size, *kernel)
    else:
        older = dict(zip(("input_dim_1", "input_dim_2", "kernel_dim_1", "kernel_dim_2"), (*size, *kernel), strict=True))
        layer = layers.ConvolutionalLayer(*channels, **older)
    shape = (draw(st.integers(1, 4)), channels[0], *size)
    return of_params(layer, shape, lambda inputs, w, b: F.conv2d(inputs, w.flip(2, 3), b))


# Pooling.


class Windows(NamedTuple):
    """The windows of a pooling, one size per axis."""

    kernel: tuple
    stride: tuple
    pads: tuple
    dilation: tuple
    ceil_mode: bool

    def counts(self, size):
        """Return how many windows there are along each axis, as PyTorch's documentation has it."""
        counts = []
        for length, reach, step, (before, after) in zip(
            size, reaches(self.kernel, self.dilation), self.stride, self.pads, strict=True
        ):
            room = length + before + after - reach
            count = (-(-room // step) if self.ceil_mode else room // step) + 1
            counts.append(count - 1 if self.ceil_mode and (count - 1) * step >= length + before else count)
        return tuple(counts)

    def gather(self, inputs, firsts, counts, value=0.0):
        """Return (N, C, *counts, places in a window), the first window at minus `firsts`; around stands `value`."""
        for i, (first, count, reach, step, dilation) in enumerate(
            zip(firsts, counts, reaches(self.kernel, self.dilation), self.stride, self.dilation, strict=True)
        ):
            pads = [(0, 0)] * inputs.ndim
            pads[2 + i] = (first, (count - 1) * step + reach - inputs.shape[2 + i] - first)
            inputs = padded(inputs, pads, value).unfold(2 + i, reach, step)[..., ::dilation]
        return inputs.flatten(2 + len(counts))

    def maxima(self, inputs):
        return self.gather(inputs, self.befores, self.counts(inputs.shape[2:]), -torch.inf).amax(-1)

    def means(self, inputs, count_include_pad):
        counts = self.counts(inputs.shape[2:])
        return self.gather(inputs, self.befores, counts).sum(-1) / self.places(inputs.shape[2:], count_include_pad)

    def places(self, size, count_include_pad):
        """Return how many places each window has in the image, or in the padded image."""
        image = torch.ones(1, 1, *size, dtype=torch.float64)
        firsts = self.befores
        if count_include_pad:
            image, firsts = padded(image, self.pads, 1.0), [0] * len(size)
        return self.gather(image, firsts, self.counts(size)).sum(-1)

    @property
    def befores(self):
        return [before for before, _ in self.pads]

    def are_torchs(self, size, average=False):
        """Return whether PyTorch has such a pooling of images of this size."""
        if average and (set(self.dilation) != {1} or any(n < k for n, k in zip(size, self.kernel, strict=True))):
            return False  # (avg_pool3d forgets the padding when it compares image and window.)
        return is_symmetric(self.pads) and all(b <= k // 2 for b, k in zip(self.befores, self.kernel, strict=True))

    def torchs_maxima(self, inputs):
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.kernel) - 1]
        return pool(inputs, self.kernel, self.stride, self.befores, self.dilation, self.ceil_mode)

    def torchs_means(self, inputs, count_include_pad):
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(self.kernel) - 1]
        return pool(inputs, self.kernel, self.stride, self.befores, self.ceil_mode, count_include_pad)


@st.composite
def windows(draw, axes, torchs=False):
    """Return (windows, (N, C, *size)) where every window sees a pixel; with `torchs`, ones that PyTorch has."""
    most = 4 if axes < 3 else 3
    kernel, stride = integers(draw, 1, most, axes), integers(draw, 1, most, axes)
    dilation = integers(draw, 1, most - 1, axes) if draw(st.booleans()) else (1,) * axes
    if torchs or draw(st.booleans()):
        pads = tuple((p, p) for p in (draw(st.integers(0, size // 2)) for size in kernel))
    else:
        pads = tuple(integers(draw, 0, reach // 2 + 1, 2) for reach in reaches(kernel, dilation))
    drawn = Windows(kernel, draw(st.sampled_from([stride, kernel])), pads, dilation, draw(st.booleans()))
    least = [max(1, reach - sum(pad)) for reach, pad in zip(reaches(kernel, dilation), pads, strict=True)]
    size = [length + draw(st.integers(0, 6 if axes < 3 else 3)) for length in least]
    assume(drawn.places(size, False).min() > 0)
    return drawn, (*integers(draw, 1, 3, 2), *size)


def pooling_arguments(draw, drawn):
    stride = {} if drawn.stride == drawn.kernel and draw(st.booleans()) else {"stride": spelled(draw, drawn.stride)}
    return stride | {
        "size": spelled(draw, drawn.kernel),
        "padding": spelled_padding(draw, drawn.pads),
        "dilation": spelled(draw, drawn.dilation),
        "ceil_mode": drawn.ceil_mode,
    }


@st.composite
def max_poolings(draw, axes, torchs=False):
    drawn, shape = draw(windows(axes, torchs))
    layer = (layers.MaxPooling1DLayer, layers.MaxPooling2DLayer, layers.MaxPooling3DLayer)[axes - 1]
    own = drawn.torchs_maxima if drawn.are_torchs(shape[2:]) else drawn.maxima
    sizes = shape[2:] if axes == 2 and draw(st.booleans()) else ()
    return of_inputs(layer(*sizes, **pooling_arguments(draw, drawn)), shape, own)


@st.composite
def average_poolings(draw, axes):
    drawn, shape = draw(windows(axes))
    layer = (layers.AveragePooling1DLayer, layers.AveragePooling2DLayer, layers.AveragePooling3DLayer)[axes - 1]
    include = draw(st.booleans())
    own = drawn.torchs_means if drawn.are_torchs(shape[2:], average=True) else drawn.means
    layer = layer(**pooling_arguments(draw, drawn), count_include_pad=include)
    return of_inputs(layer, shape, lambda inputs: own(inputs, include))


@st.composite
def global_average_poolings(draw, axes):
    layer = (
        layers.GlobalAveragePooling1DLayer,
        layers.GlobalAveragePooling2DLayer,
        layers.GlobalAveragePooling3DLayer,
    )[axes - 1]
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[axes - 1]
    return of_inputs(layer(), integers(draw, 1, 5, 2 + axes), lambda inputs: pool(inputs, 1).flatten(1))


@st.composite
def courseworks_max_poolings(draw):
    size = draw(st.integers(1, 4))
    shape = (*draw(shapes(1, 3)), size * draw(st.integers(1, 4)))
    return of_inputs(layers.MaxPoolingLayer(size), shape, lambda x: x.unflatten(-1, (-1, size)).max(-1).values)


# Normalisation.

epsilons = st.sampled_from([1e-8, 1e-5, 1e-3, 0.1])


@st.composite
def batch_normalisations(draw, shape=None, epsilons=epsilons):
    shape = draw(shapes(2, 5)) if shape is None else shape
    channels, count = shape[1], prod(shape) // shape[1]
    epsilon, momentum = draw(epsilons), draw(st.floats(0.0, 1.0))
    weighs, variance = draw(st.sampled_from(["batch", "running"])), draw(st.sampled_from(["unbiased", "biased"]))
    layer = layers.BatchNormalizationLayer(
        channels, None, epsilon, momentum, momentum_weighs=weighs, running_variance=variance
    )
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    layer.running_mean[...], layer.running_var[...] = rng.normal(size=channels), rng.uniform(0.5, 2.0, channels)
    mean, var = tensor(layer.running_mean), tensor(layer.running_var)
    of_batch = momentum if weighs == "batch" else 1 - momentum

    def function(inputs, params, training):
        if not training or variance == "unbiased":
            return F.batch_norm(inputs, mean, var, *params, training, of_batch, epsilon)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        batch_var, batch_mean = torch.var_mean(inputs.detach(), axes, correction=0)
        mean.lerp_(batch_mean, of_batch)
        var.lerp_(batch_var, of_batch)
        return F.batch_norm(inputs, None, None, *params, True, 0.0, epsilon)

    training = count > 1 and draw(st.booleans())
    rounds = draw(st.integers(0, 4)) if count > 1 else 0
    return Twin(layer, shape, function, (mean, var), training, rounds)


def offset_alone(inputs, gamma, beta):
    """Return what is left where each number is its own mean, which PyTorch refuses or cannot tell from rounding."""
    return 0.0 * inputs * gamma + beta


@st.composite
def layer_normalisations(draw, shape=None, epsilons=epsilons):
    shape = draw(shapes(2, 4)) if shape is None else shape
    trailing = shape[draw(st.integers(1, len(shape) - 1)) :]
    epsilon = draw(epsilons)
    layer = layers.LayerNormalizationLayer(spelled(draw, trailing) if len(trailing) == 1 else trailing, epsilon)
    if prod(trailing) == 1:
        return of_params(layer, shape, offset_alone)
    return of_params(layer, shape, lambda x, gamma, beta: F.layer_norm(x, trailing, gamma, beta, epsilon))


@st.composite
def group_normalisations(draw):
    groups, each = integers(draw, 1, 3, 2)
    shape = (draw(st.integers(1, 4)), groups * each, *draw(shapes(0, 3)))
    epsilon = draw(epsilons)
    layer = layers.GroupNormalizationLayer(groups, shape[1], epsilon)
    if prod(shape[1:]) == groups:
        spread = (-1, *[1] * (len(shape) - 2))
        return of_params(layer, shape, lambda x, gamma, beta: offset_alone(x, gamma.view(spread), beta.view(spread)))
    return of_params(layer, shape, lambda x, gamma, beta: F.group_norm(x, groups, gamma, beta, epsilon))


@st.composite
def local_response_normalisations(draw):
    size, shape = draw(st.integers(1, 7)), draw(shapes(2, 5))
    alpha, beta, bias = draw(st.floats(0.0, 3.0)), draw(st.floats(0.0, 2.0)), draw(st.floats(0.1, 3.0))
    layer = layers.LocalResponseNormalizationLayer(size, alpha, beta, bias)

    def function(inputs):
        # Of an even number of channels PyTorch takes one more before; ours, as ONNX, takes one more after.
        inputs = inputs if size % 2 else inputs.flip(1)
        outputs = F.local_response_norm(inputs[..., None], size, alpha, beta, bias)[..., 0]  # three axes at least
        return outputs if size % 2 else outputs.flip(1)

    return of_inputs(layer, shape, function)


# Elementwise, softmax, dropout, shapes.

slopes = st.floats(-2.0, 3.0)


def elementwise(make, function):
    """Return a strategy for layers without arguments."""
    return shapes().map(lambda shape: of_inputs(make(), shape, function))


@st.composite
def leaky_relus(draw):
    alpha = draw(slopes)
    return of_inputs(layers.LeakyReluLayer(alpha), draw(shapes()), lambda x: F.leaky_relu(x, alpha))


@st.composite
def elus(draw):
    alpha = draw(slopes)
    return of_inputs(layers.ELULayer(alpha), draw(shapes()), lambda x: F.elu(x, alpha))


@st.composite
def selus(draw):
    alpha, gamma = draw(st.sampled_from([(1.6733, 1.0507), None])) or (draw(slopes), draw(slopes))
    layer = layers.SELULayer() if (alpha, gamma) == (1.6733, 1.0507) else layers.SELULayer(alpha, gamma)
    return of_inputs(layer, draw(shapes()), lambda x: gamma * F.elu(x, alpha))


@st.composite
def softmaxes(draw, kind, function):
    shape = draw(shapes(2, 4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    layer = kind() if axis == -1 and draw(st.booleans()) else kind(axis)
    return of_inputs(layer, shape, lambda x: function(x, axis))


@st.composite
def dropouts(draw, shape=None):
    shape = draw(shapes()) if shape is None else shape
    seed, kept = draw(st.integers(0, 999)), draw(st.floats(0.05, 1.0))
    shared, rescale = draw(st.booleans()), draw(st.booleans())
    layer = layers.DropoutLayer(np.random.RandomState(seed), kept, shared, rescale=rescale)
    rng = np.random.RandomState(seed)

    def function(inputs, params, training):
        if not training:
            return inputs if rescale else inputs * kept
        mask = rng.uniform(size=(1, *inputs.shape[1:]) if shared else tuple(inputs.shape)) < kept
        return inputs * torch.from_numpy(mask) / (kept if rescale else 1.0)

    return Twin(layer, shape, function, (), draw(st.booleans()), draw(st.integers(0, 2)))


@st.composite
def affines(draw):
    return affine(integers(draw, 1, 6, 2), draw(st.integers(1, 5)))


def affine(shape, outputs):
    return of_params(layers.AffineLayer(shape[1], outputs), shape, F.linear)


@st.composite
def reshapes(draw):
    factors = [draw(st.sampled_from([0, 1, 2, 2, 3, 4])) for _ in range(draw(st.integers(1, 4)))]
    shape = (draw(st.integers(1, 4)), *factors)
    cut = draw(st.integers(0, len(factors)))
    wanted = [prod(factors[:cut]), *draw(st.permutations(factors[cut:]))]
    if prod(factors) and draw(st.booleans()):
        wanted[draw(st.integers(0, len(wanted) - 1))] = -1
    if draw(st.booleans()):
        return of_inputs(layers.ReshapeLayer(), shape, lambda x: x.flatten(1))
    return reshaped(shape, tuple(wanted))


# Layers made of layers.


def in_a_row(twins):
    """Return the function and the states of twins applied one after the other."""
    counts = [len(layer_params(twin.layer)) for twin in twins]

    def function(inputs, params, training):
        params = list(params)
        for twin, count in zip(twins, counts, strict=True):
            inputs, params = twin.function(inputs, params[:count], training), params[count:]
        return inputs

    return function, tuple(state for twin in twins for state in twin.states)


def layer_params(layer):
    return layer.params if isinstance(layer, layers.LayerWithParameters) else []


def output_shape(twin, shape):
    params = [torch.zeros(param.shape, dtype=torch.float64) for param in layer_params(twin.layer)]
    with torch.no_grad():
        return tuple(twin.function(torch.zeros(shape, dtype=torch.float64), params, False).shape)


def to_channels(draw, shape, channels):
    """Return a layer with parameters that gives this number of channels, or features, and leaves the other axes."""
    if len(shape) == 2:
        return affine(shape, channels)
    dilation = draw(st.integers(1, 2))
    return convolution(shape, channels, kernel_size=3, padding=dilation, dilation=dilation)


def link(draw, shape, depth):
    """Return a twin for inputs (N, C) or (N, C, H, W) that changes at most the number of channels."""
    large = st.sampled_from([1e-3, 0.1])  # so that a row of normalisations does not blow rounding errors up
    kinds = [
        lambda: to_channels(draw, shape, draw(st.integers(1, 4))),
        lambda: of_inputs(layers.TanhLayer(), shape, torch.tanh),
        lambda: of_inputs(layers.LeakyReluLayer(0.2), shape, lambda x: F.leaky_relu(x, 0.2)),
        lambda: draw(dropouts(shape)),
        lambda: draw(layer_normalisations(shape, large)),
    ]
    if prod(shape) > shape[1]:
        kinds.append(lambda: draw(batch_normalisations(shape, large)))
    if depth:
        kinds.append(lambda: draw(residuals(shape, depth - 1)))
    return draw(st.sampled_from(kinds))()


def links(draw, shape, least, most, depth=1):
    """Return twins in a row, and the shape that they end with."""
    twins = []
    for _ in range(draw(st.integers(least, most))):
        twins.append(link(draw, shape, depth))
        shape = output_shape(twins[-1], shape)
    return twins, shape


def image_or_row_shapes(draw):
    return (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *draw(st.sampled_from([(), (1, 1), (3, 2), (2, 4)])))


def composite(draw, layer, shape, function, states):
    training = draw(st.booleans())
    return Twin(layer, shape, function, states, training, draw(st.integers(0, 2)))


@st.composite
def chains(draw):
    shape = image_or_row_shapes(draw)
    twins, _ = links(draw, shape, 1, 4)
    return composite(draw, layers.ChainLayer([twin.layer for twin in twins]), shape, *in_a_row(twins))


@st.composite
def residuals(draw, shape=None, depth=1):
    shape = image_or_row_shapes(draw) if shape is None else shape
    twins, end = links(draw, shape, 1, 3, depth)
    if end != shape:
        twins.append(to_channels(draw, end, shape[1]))
    function, states = in_a_row(twins)
    layer = layers.ResidualLayer([twin.layer for twin in twins])
    return composite(draw, layer, shape, lambda x, *rest: x + function(x, *rest), states)


def spelled_branch(draw, twins):
    """Return a branch as a list of layers, or a single one perhaps as itself."""
    return twins[0].layer if len(twins) == 1 and draw(st.booleans()) else [twin.layer for twin in twins]


def side_by_side(draw, kind, branches, shape, combine, **given):
    """Return the twin of branches (lists of twins) on the same inputs, whose outputs `combine` takes."""
    layer = kind([spelled_branch(draw, branch) for branch in branches], **given)
    functions, states = zip(*map(in_a_row, branches), strict=True)
    counts = [sum(len(layer_params(twin.layer)) for twin in branch) for branch in branches]

    def function(inputs, params, training):
        outputs, params = [], list(params)
        for branch, count in zip(functions, counts, strict=True):
            outputs.append(branch(inputs, params[:count], training))
            params = params[count:]
        return combine(outputs)

    return composite(draw, layer, shape, function, sum(states, ()))


def branch_to(draw, shape, channels):
    """Return twins in a row that end with this number of channels; none at all where nothing need be done."""
    twins, end = links(draw, shape, 0, 2)
    return [*twins, to_channels(draw, end, channels)] if end[1] != channels else twins


def reshaped(shape, wanted):
    return of_inputs(layers.ReshapeLayer(wanted), shape, lambda x: x.reshape(len(x), *wanted))


@st.composite
def additions(draw):
    shape = image_or_row_shapes(draw)
    channels, branches = draw(st.integers(1, 4)), []
    for _ in range(draw(st.integers(1, 3))):
        wanted = draw(st.sampled_from([channels, channels, 1]))
        branches.append(branch_to(draw, shape, wanted))
        if len(shape) == 4 and draw(st.booleans()):
            branches[-1].append(of_inputs(layers.GlobalAveragePooling2DLayer(), None, lambda x: x.mean((2, 3))))
            branches[-1].append(reshaped(None, (wanted, 1, 1)))
    return side_by_side(draw, layers.AdditionLayer, branches, shape, sum)


@st.composite
def concatenations(draw):
    shape = image_or_row_shapes(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    channels, branches = draw(st.integers(1, 4)), []
    for _ in range(draw(st.integers(1, 3))):
        wanted = draw(st.integers(1, 4)) if axis % len(shape) == 1 else channels
        branches.append(branch_to(draw, shape, wanted))
        if axis % len(shape) > 1 and draw(st.booleans()):
            size = [1, 1]
            size[axis % len(shape) - 2] = draw(st.integers(1, shape[axis]))
            branches[-1].append(averaged(tuple(size)))
    given = {} if axis == 1 else {"axis": axis}
    return side_by_side(
        draw, layers.ConcatenationLayer, branches, shape, lambda outputs: torch.cat(outputs, axis), **given
    )


def averaged(size):
    layer = layers.AveragePooling2DLayer(size, stride=1)
    return of_inputs(layer, None, lambda x: F.avg_pool2d(x, size, 1))


@st.composite
def matrix_products(draw):
    shape, left, right = draw(st.sampled_from([factors_of_stacks, factors_as_they_come, factors_of_one_matrix]))(draw)
    return side_by_side(draw, layers.MatrixProductLayer, [left, right], shape, lambda outputs: torch.matmul(*outputs))


def factors_of_stacks(draw):
    """Return (N, D) inputs and two branches to stacks of matrices, (N, ...), that broadcast."""
    n, features, rows, inner, columns = integers(draw, 1, 4, 5)
    stack = draw(shapes(0, 2))
    branches = []
    for matrix in ((rows, inner), (inner, columns)):
        wanted = (*(draw(st.sampled_from([length, 1])) for length in stack), *matrix)
        branches.append([affine((n, features), prod(wanted)), reshaped(None, wanted)])
    return (n, features), *branches


def factors_as_they_come(draw):
    """Return inputs of any number of axes whose product with themselves, in another shape, exists."""
    rows, columns = integers(draw, 1, 4, 2)
    shape = draw(st.sampled_from([(rows,), (rows, rows), (columns, rows, rows), (columns, 2, rows, rows)]))
    bent = of_inputs(layers.TanhLayer(), shape, torch.tanh)
    choices = [[], [bent]]
    if len(shape) == 1:
        choices.append([reshaped(shape, (1,))])
    return (
        shape,
        draw(st.sampled_from([[], [of_inputs(layers.SigmoidLayer(), shape, torch.sigmoid)]])),
        draw(st.sampled_from(choices)),
    )


def factors_of_one_matrix(draw):
    """Return (N, ...) inputs, a stack of matrices, and branches: they themselves, and one matrix (N, ...)."""
    n, rows, columns = integers(draw, 1, 4, 3)
    flat = of_inputs(layers.ReshapeLayer(), None, lambda x: x.flatten(1))
    if draw(st.booleans()):
        return (n, rows, n), [], [flat, affine((n, rows * n), columns)]
    return (n, rows, columns), [flat, affine((n, rows * columns), rows)], []


@st.composite
def exponential_linear_units(draw):
    alpha = draw(st.floats(0.01, 2.0))
    return of_inputs(layers.ExponentialLinearUnitLayer(alpha), draw(shapes()), lambda x: F.elu(x, alpha))


@st.composite
def parametric_relus(draw):
    return of_params(layers.ParametricReluLayer(draw(st.floats(-1.0, 2.0))), draw(shapes()), F.prelu)


@st.composite
def random_relus(draw):
    """With one slope to draw from, as PyTorch's own stream cannot be ours."""
    slope = draw(st.floats(0.0, 1.0))
    return of_inputs(layers.RandomReluLayer(slope, slope), draw(shapes()), lambda x: F.rrelu(x, slope, slope, True))


@st.composite
def radial_bases(draw):
    grid, dims = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    intervals = [(low, low + draw(st.floats(0.5, 3.0))) for low in (draw(st.floats(-2.0, 1.0)) for _ in range(dims))]
    lines = [torch.linspace(*interval, grid, dtype=torch.float64) for interval in intervals]
    centres = torch.stack([mesh.reshape(-1) for mesh in torch.meshgrid(*lines, indexing="xy")])
    scales = torch.tensor([[(high - low) / grid] for low, high in intervals], dtype=torch.float64)

    def function(inputs):
        return torch.exp(-(((inputs[..., None] - centres) / scales) ** 2)).flatten(1)

    return of_inputs(layers.RadialBasisFunctionLayer(grid, intervals), (draw(st.integers(1, 5)), dims), function)


TWINS = {
    "AdditionLayer": additions(),
    "AffineLayer": affines(),
    "AveragePooling1DLayer": average_poolings(1),
    "AveragePooling2DLayer": average_poolings(2),
    "AveragePooling3DLayer": average_poolings(3),
    "BatchNormalizationLayer": batch_normalisations(),
    "ChainLayer": chains(),
    "ConcatenationLayer": concatenations(),
    "Convolution1DLayer": convolutions(1),
    "Convolution2DLayer": convolutions(2),
    "Convolution3DLayer": convolutions(3),
    "ConvolutionTranspose1DLayer": transposed_convolutions(1),
    "ConvolutionTranspose2DLayer": transposed_convolutions(2),
    "ConvolutionTranspose3DLayer": transposed_convolutions(3),
    "ConvolutionalLayer": true_convolutions(),
    "DropoutLayer": dropouts(),
    "ELULayer": elus(),
    "ExponentialLinearUnitLayer": exponential_linear_units(),
    "ParametricReluLayer": parametric_relus(),
    "RadialBasisFunctionLayer": radial_bases(),
    "RandomReluLayer": random_relus(),
    "GlobalAveragePooling1DLayer": global_average_poolings(1),
    "GlobalAveragePooling2DLayer": global_average_poolings(2),
    "GlobalAveragePooling3DLayer": global_average_poolings(3),
    "GroupNormalizationLayer": group_normalisations(),
    "IdentityLayer": elementwise(layers.IdentityLayer, lambda x: x.clone()),
    "LayerNormalizationLayer": layer_normalisations(),
    "LeakyReluLayer": leaky_relus(),
    "LocalResponseNormalizationLayer": local_response_normalisations(),
    "LogSoftmaxLayer": softmaxes(layers.LogSoftmaxLayer, torch.log_softmax),
    "MatrixProductLayer": matrix_products(),
    "MaxPooling1DLayer": max_poolings(1),
    "MaxPooling2DLayer": max_poolings(2),
    "MaxPooling3DLayer": max_poolings(3),
    "MaxPoolingLayer": courseworks_max_poolings(),
    "ReluLayer": elementwise(layers.ReluLayer, torch.relu),
    "ReshapeLayer": reshapes(),
    "ResidualLayer": residuals(),
    "SELULayer": selus(),
    "SigmoidLayer": elementwise(layers.SigmoidLayer, torch.sigmoid),
    "SoftmaxLayer": softmaxes(layers.SoftmaxLayer, torch.softmax),
    "TanhLayer": elementwise(layers.TanhLayer, torch.tanh),
}
"""A strategy of twins for every public layer."""

KINKED = {name: TWINS[name] for name in ("ReluLayer", "LeakyReluLayer", "ELULayer", "SELULayer")} | {
    f"MaxPooling{axes}DLayer": max_poolings(axes, torchs=True) for axes in (1, 2, 3)
}
"""Strategies of twins that have the same gradient at kinks and ties too."""

LARGE = {
    "1d": lambda: convolution((64, 32, 200), 24, kernel_size=7, padding=3),
    "2d": lambda: convolution((40, 16, 16, 16), 24, kernel_size=3, padding=1),
    "2d, unequal padding, stride, dilation, groups": lambda: convolution(
        (40, 16, 17, 16), 8, kernel_size=3, padding=((2, 1), (0, 2)), stride=2, dilation=2, groups=4
    ),
    "2d, depthwise, no bias": lambda: convolution(
        (40, 8, 24, 24), 16, kernel_size=(3, 5), stride=(1, 2), groups=8, bias=False
    ),
    "3d": lambda: convolution((12, 8, 8, 8, 8), 8, kernel_size=3, padding=1),
    "1d, transposed": lambda: transposed_convolution((64, 32, 100), 24, kernel_size=4, stride=2, padding=1),
    "2d, transposed, unequal padding": lambda: transposed_convolution(
        (40, 16, 8, 8), 16, kernel_size=4, stride=2, padding=((1, 0), (2, 1)), output_padding=1
    ),
    "2d, transposed, groups": lambda: transposed_convolution((40, 16, 16, 16), 8, kernel_size=3, padding=1, groups=4),
    "3d, transposed, dilation": lambda: transposed_convolution(
        (12, 8, 5, 5, 5), 8, kernel_size=3, stride=2, padding=1, dilation=2
    ),
}
"""Functions that build twins with inputs so large that a convolution takes its batch in several parts."""
