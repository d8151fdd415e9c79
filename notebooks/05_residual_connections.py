# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Residual connections
#
# After this notebook you can
#
# - derive the gradient of $y = F(x) + x$, and say why a product of such layers does not vanish,
# - predict the gain of a residual block from the gain of its branch, and along how many blocks the gradient
#   travels,
# - build identity, zero-padded and projection shortcuts from containers, and check their gradients,
# - read the gradient flow of VGG38 with residual connections, and find in it where connections are missing.
#
# You need to know the gain of a layer and why VGG38 does not learn (notebook 3). Batch normalisation
# (notebook 4) is used at the end.

# %%
from dataclasses import replace
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from mlp.data_providers import ImageDataProvider, ImageSet, load_shapes
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.runner import Runner
from mlp.initialisers import FanInUniformInit
from mlp.layers import (
    AdditionLayer,
    AffineLayer,
    AveragePooling2DLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    GlobalAveragePooling2DLayer,
    Layer,
    LeakyReluLayer,
    ResidualLayer,
    TanhLayer,
)
from mlp.models import MultipleLayerModel, vgg38, vgg38_rc
from mlp.plots import gradient_flow
from mlp.records import RunFolder
from mlp.testing import check_gradients

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## One connection
#
# A residual connection adds to the outputs of some layers, the **branch** $F$, their inputs:
#
# $$y = F(x) + x ,$$
#
# the report's equation 6. $F$ must keep the shape. It need not find the wanted map, but what is missing from
# the identity: the residual. If nothing is to be done, weights of 0 do it.
#
# Let $G = \partial E / \partial y$ come from above and $J_F = \partial F / \partial x$. Number all entries
# in a row. With $\partial y_b / \partial x_a = \delta_{ab} + \partial F_b / \partial x_a$,
#
# $$\frac{\partial E}{\partial x_a} = \sum_b G_b \Big( \delta_{ab} + \frac{\partial F_b}{\partial x_a} \Big)
# \qquad\Longrightarrow\qquad
# \boxed{\ \frac{\partial E}{\partial x} = G + J_F^\top G \ }$$
#
# what comes from above, unchanged, plus what the branch's own backward pass makes of it. The branch itself
# gets $\partial E / \partial F = G$, so its parameters have the gradients that they would have without the
# connection.
#
# **Exercise 1.** Write the backward pass for a branch of layers in a row. It is checked against
# `ResidualLayer`. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def residual_backprop(layers, activations, grads_wrt_outputs):
    """Return (dE/dx, [dE/d parameter, ...]) of y = F(x) + x.

    F is the `layers` in a row and activations are [x, outputs of the first layer, ..., F(x)]. For each of
    them, layer.backprop(inputs, outputs, dE/d outputs) returns (dE/d inputs, [dE/d parameter, ...]). The
    gradients of the parameters are in the order of the layers. grads_wrt_outputs, dE/dy, is not changed.
    """
    ### BEGIN SOLUTION
    grads, grads_wrt_params = grads_wrt_outputs, []
    for i in reversed(range(len(layers))):
        grads, of_layer = layers[i].backprop(activations[i], activations[i + 1], grads)
        grads_wrt_params = of_layer + grads_wrt_params
    return grads_wrt_outputs + grads, grads_wrt_params
    ### END SOLUTION


# %% tags=["check"]
def check_residual_backprop(branch, x):
    """Compare with ResidualLayer, for a random dE/dy."""
    layer, upstream = ResidualLayer(branch), np.random.default_rng(0).standard_normal(x.shape)
    before, expected = upstream.copy(), layer.backprop(x, layer.fprop(x), upstream)
    activations = [x]
    for inner in branch:
        activations.append(inner.fprop(activations[-1]))
    found = residual_backprop(branch, activations, upstream)
    assert np.array_equal(upstream, before), "grads_wrt_outputs was changed: make a new array"
    assert len(found[1]) == len(expected[1]), f"{len(found[1])} gradients of {len(expected[1])} parameters"
    for i, (mine, right) in enumerate(zip(found[1], expected[1], strict=True)):
        text = f"the gradient of parameter {i} has shape {np.shape(mine)}, expected {right.shape}"
        assert np.shape(mine) == right.shape, text
        assert np.allclose(mine, right), f"the gradient of parameter {i} is wrong"
    assert not np.allclose(found[0], expected[0] - upstream), "dE/dx lacks the way past the branch"
    assert np.allclose(found[0], expected[0]), "dE/dx is wrong"


x = np.random.default_rng(1).standard_normal((5, 3))
check_residual_backprop([AffineLayer(3, 4), TanhLayer(), AffineLayer(4, 3)], x)
check_residual_backprop([TanhLayer()], x)
check_residual_backprop([AffineLayer(3, 3), BatchNormalizationLayer(3), AffineLayer(3, 3)], x)
print("Exercise 1: right")

# %% [markdown]
# ## Many connections
#
# The Jacobians of $L$ layers in a row multiply. With branches $F_1, \dots, F_L$ of Jacobians
# $J_1, \dots, J_L$,
#
# $$\text{plain: } \; J_L \cdots J_2 J_1 , \qquad
# \text{residual: } \; (1 + J_L) \cdots (1 + J_2)(1 + J_1)
# = 1 + \sum_i J_i + \sum_{i < j} J_j J_i + \dots + J_L \cdots J_1 .$$
#
# The plain product is one single term of the residual one, the last. It vanishes if the $J$ are small; the
# sum keeps its 1.
#
# **Gains.** How large is the gradient? As in notebook 3 we take the mean over random initial weights, and the
# slopes of the activations as independent of them. Let $g$ be the backward gain of a branch:
# $\mathbb{E}\,|J^\top G|^2 = g^2 |G|^2$. Let the branch be an affine map, LeakyReLU and an affine map, each
# of $D$ to $D$ numbers, its weights uniform in
# $\pm 1 / \sqrt{D}$, hence of variance $\frac{1}{3D}$. Each affine map has the square gain
# $D \cdot \frac{1}{3D} = \frac13$, and the activation $\frac{1 + \alpha^2}{2} \approx \frac12$:
#
# $$g^2 = \tfrac13 \cdot \tfrac12 \cdot \tfrac13 = \tfrac1{18} , \qquad g \approx 0.24 .$$
#
# With the connection,
#
# $$\mathbb{E}\, \big| G + J^\top G \big|^2 = |G|^2 + 2\, \mathbb{E}\big[ G^\top J^\top G \big]
# + \mathbb{E}\, \big| J^\top G \big|^2 = (1 + g^2)\, |G|^2 ,$$
#
# as $J$ is linear in the second map's weights, whose mean is 0. So the plain stack has the gain $g^L$, and
# the residual one $(1 + g^2)^{L/2}$. Fifty of them, with the default's weights and with He's, which have 6
# times the variance and so $g^2 = 36 / 18 = 2$:


# %%
def stack(residual, scale, count=50, width=64):
    """Return `count` branches in a row, each within a residual connection or not."""
    init, layers = FanInUniformInit(rng=np.random.default_rng(0)), []
    for _ in range(count):
        branch = [AffineLayer(width, width, init), LeakyReluLayer(), AffineLayer(width, width, init)]
        for affine in branch[::2]:
            affine.weights *= scale
        layers += [ResidualLayer(branch)] if residual else branch
    return MultipleLayerModel(layers)


def gradient_sizes(model, count=50):
    """Return |dE/dx| for the inputs of every branch, the lowest first, and 1 for the outputs: |dE/dy| = 1."""
    generator = np.random.default_rng(1)
    activations = model.fprop(generator.standard_normal((20, 64)))
    grads = generator.standard_normal(activations[-1].shape)
    start, sizes = np.sqrt((grads**2).sum()), [1.0]
    for i in reversed(range(len(model.layers))):
        grads, _ = model.layers[i].backprop(activations[i], activations[i + 1], grads)
        sizes.insert(0, np.sqrt((grads**2).sum()) / start)
    return sizes[:: len(model.layers) // count]


# %%
cases = {
    "plain": (False, 1.0, RED, (1 / 18) ** 0.5),
    "residual": (True, 1.0, BLUE, (1 + 1 / 18) ** 0.5),
    "plain, He's weights": (False, 6**0.5, AMBER, 2**0.5),
    "residual, He's weights": (True, 6**0.5, TEAL, 3**0.5),
}
figure, axes = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
below = np.arange(50, -1, -1)
for name, (residual, scale, colour, gain) in cases.items():
    axes.semilogy(below, gradient_sizes(stack(residual, scale)), color=colour, linewidth=3, label=name)
    axes.semilogy(below, gain**below, ":", color="black", linewidth=1.2)
axes.semilogy([], [], ":", color="black", linewidth=1.2, label="predicted")
axes.set(xlabel="number of branches that the gradient has passed", ylabel="size of the gradient")
axes.legend(frameon=False, loc="lower left")
plt.show()

# %% [markdown]
# The gradient on its way down through 50 branches, and the predictions (dotted). Without connections it
# vanishes for the default's weights (red) and explodes for He's in front of a map without an activation
# (amber). With connections the default's weights are just right (blue): $1.027^{50} \approx 4$. He's are not
# (teal): each block adds its branch to what is there, and the sum grows. A residual network wants branches
# that are *small* beside the identity. (With batch normalisation at the end of the branch, its $\gamma$ sets
# how small.)
#
# ## The paths
#
# Multiply out: each term of the residual product is a path that goes through some branches and past the
# others. $\binom{L}{k}$ paths go through $k$ branches, and each brings $g^{2k}$ of the mean square. (The
# terms do not mix in the mean: each is linear in weights that another lacks.) So the share of all paths of
# length $k$ is
#
# $$\binom{L}{k} \frac{g^{2k}}{(1 + g^2)^L} ,$$
#
# a binomial distribution with probability $p = \frac{g^2}{1 + g^2}$. For $L = 15$ branches, as many as VGG38
# has processing blocks (its activations behind the sums left aside):

# %%
lengths, L = np.arange(16), 15
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
bars = ((-0.2, 1 / 18, "g² = 1/18", BLUE), (0.2, 2.0, "g² = 2 (He's weights)", TEAL))
for shift, square, label, colour in bars:
    shares = [comb(L, k) * square**k / (1 + square) ** L for k in lengths]
    axes.bar(lengths + shift, shares, width=0.4, color=colour, label=label)
    print(f"{label}: the mean path goes through {np.dot(lengths, shares):.1f} of {L} branches")
axes.set(xlabel="branches on the path", ylabel="share of the squared gradient", xticks=lengths)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# With the default's weights (blue) almost all of the gradient goes through none, one or two of the 15
# branches: to the gradient the deep network looks like many shallow ones (Veit et al. 2016).
#
# ## Shortcuts where the shape changes
#
# $F(x) + x$ needs equal shapes. Where a block halves height and width or has more channels, the report, like
# VGG38 RC here, does without a connection. It names two others, and both are sums of two branches:
#
# $$y = F(x) + S(x) .$$
#
# - **Projection**: $S$ is a convolution of 1 x 1 with stride 2 (He et al. 2016, equation 2). It has weights.
# - **Zero-padded identity**: $S$ halves the size by average pooling, and adds channels of zeros (Han et al.
#   2017). It has none.
#
# A sum of branches is the library's `AdditionLayer`; a branch is a layer or a list of layers. What it lacks
# is a layer that adds channels of zeros.
#
# **Exercise 2.** Write it. `check_gradients` decides. The solution is folded in the next cell; write your
# own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def pad_channels(x, num_output_channels):
    """Return x (N, C, H, W) with channels of zeros behind its own, (N, num_output_channels, H, W).

    The result has the dtype of x, which may be complex.
    """
    ### BEGIN SOLUTION
    zeros = np.zeros((len(x), num_output_channels - x.shape[1], *x.shape[2:]), x.dtype)
    return np.concatenate([x, zeros], axis=1)
    ### END SOLUTION


def pad_channels_backward(x, grads_wrt_outputs):
    """Return dE/dx (N, C, H, W) for x (N, C, H, W) and dE/dy (N, num_output_channels, H, W)."""
    ### BEGIN SOLUTION
    return grads_wrt_outputs[:, : x.shape[1]]
    ### END SOLUTION


# %% tags=["check"]
class MyPadChannelsLayer(Layer):
    """Your two functions as a layer."""

    def fprop(self, inputs):
        """Return y (N, 5, H, W)."""
        return pad_channels(inputs, 5)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        return pad_channels_backward(inputs, grads_wrt_outputs)


x = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
y = pad_channels(x, 5)
assert np.shape(y) == (2, 5, 4, 6), f"the result has shape {np.shape(y)}, expected (2, 5, 4, 6)"
assert np.array_equal(y[:, :3], x), "the first channels are those of x"
assert not y[:, 3:].any(), "the last channels are zeros"
assert y.dtype == np.float32, f"x is float32, the result {y.dtype}"
check_gradients(MyPadChannelsLayer(), (2, 3, 4, 6))
check_gradients(MyPadChannelsLayer(), (2, 5, 3, 3))
print("Exercise 2: right")


# %% [markdown]
# The same as a class, and the three kinds of blocks. Here the branch is two convolutions, in the last two
# kinds from 8 to 12 channels and with stride 2.


# %%
class PadChannelsLayer(Layer):
    """y is x with channels of zeros behind it."""

    def __init__(self, num_zeros):
        self.num_zeros = num_zeros

    def fprop(self, inputs):
        """Return y (N, C + num_zeros, H, W) for x (N, C, H, W)."""
        return np.pad(inputs, ((0, 0), (0, self.num_zeros), (0, 0), (0, 0)))

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx, the first C channels of dE/dy."""
        return grads_wrt_outputs[:, : inputs.shape[1]]


def branch(num_outputs, stride):
    """Return two 3x3 convolutions with a LeakyReLU in between, from 8 channels."""
    first = Convolution2DLayer(8, num_outputs, 3, stride=stride, padding=1, bias=False)
    return [first, LeakyReluLayer(), Convolution2DLayer(num_outputs, num_outputs, 3, padding=1, bias=False)]


blocks = {
    "identity": ResidualLayer(branch(8, stride=1)),
    "zero-padded": AdditionLayer([branch(12, stride=2), [AveragePooling2DLayer(2), PadChannelsLayer(4)]]),
    "projection": AdditionLayer([branch(12, stride=2), Convolution2DLayer(8, 12, 1, stride=2, bias=False)]),
}
images = np.random.default_rng(0).standard_normal((2, 8, 6, 6))
for name, block in blocks.items():
    report = check_gradients(block, (2, 8, 6, 6))
    parameters = sum(p.size for p in block.params)
    text = f"{name}: (2, 8, 6, 6) to {block.fprop(images).shape}, {parameters:,} parameters, "
    print(text + f"gradients right to {report.worst:.0e}")

# %% [markdown]
# All three are layers like any other: they can stand in a model, in a checkpoint, and in another block.
#
# **Exercise 3.** He et al. put the activation behind the sum at first, as VGG38 RC does:
# $x_{l+1} = f(x_l + F(x_l))$. Then $f$ stands on the way of the identity. In their second paper they move it
# into the branch, in front of each convolution, with a batch normalisation before it (*pre-activation*), and
# nothing is left on the way past the branches. Build this block. The solution is folded in the next cell;
# write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def pre_activation_block(channels):
    """Return the layer y = x + F(x) for x (N, channels, H, W).

    F is twice: batch normalisation, LeakyReLU, 3x3 convolution (padding 1, no bias) that keeps the channels.
    """
    ### BEGIN SOLUTION
    layers = []
    for _ in range(2):
        conv = Convolution2DLayer(channels, channels, 3, padding=1, bias=False)
        layers += [BatchNormalizationLayer(channels), LeakyReluLayer(), conv]
    return ResidualLayer(layers)
    ### END SOLUTION


# %% tags=["check"]
block = pre_activation_block(4)
assert isinstance(block, Layer), f"this is {block!r}, expected a layer"
shapes_of_params = [param.shape for param in block.params]
expected = [(4,), (4,), (4, 4, 3, 3)] * 2
assert shapes_of_params == expected, f"the parameters have shapes {shapes_of_params}, expected {expected}"
x = 3.0 + np.random.default_rng(0).standard_normal((5, 4, 6, 6))
y = block.fprop(x)
assert y.shape == x.shape, f"y has shape {y.shape}, expected {x.shape}"
norm, act = BatchNormalizationLayer(4), LeakyReluLayer()
first, second = (Convolution2DLayer(4, 4, 3, padding=1, bias=False) for _ in range(2))
first.params, second.params = [block.params[2]], [block.params[5]]
inner = second.fprop(act.fprop(norm.fprop(first.fprop(act.fprop(norm.fprop(x))))))
assert not np.allclose(y, inner), "this is F(x) without x"
assert np.allclose(y, x + inner), "y is not x + F(x): is the order normalisation, LeakyReLU, convolution?"
block.params = [np.zeros_like(param) for param in block.params]
assert np.array_equal(block.fprop(x), x), "with weights of 0 the block is not the identity"
check_gradients(pre_activation_block(3), (4, 3, 4, 4))
print("Exercise 3: right")

# %% [markdown]
# ## VGG38 with residual connections
#
# The images of notebook 3: drawn shapes of 16 x 16 pixels, 5 colours as classes, and VGG38 with 16 filters.
# First the gradient at the initial weights, at the inputs of all blocks. Four networks: plain, with
# connections (RC), and RC with a shortcut around the reduction blocks too. There, as the number of channels
# stays, the pooled identity needs no zeros; the projection is a 1 x 1 convolution.

# %%
COLOURS = ("red", "green", "blue", "yellow", "violet")


def reduced(images):
    """Return the images at half the size, with the colour, 0 to 4, as the label."""
    pixels = images.pixels.reshape(len(images.labels), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return ImageSet(np.rint(pixels).astype(np.uint8), images.labels // 4 % 5)


shapes = load_shapes()
parts = {name: reduced(getattr(shapes, name)) for name in ("train", "valid", "test")}
data = replace(shapes, **parts, class_names=COLOURS).limited(2000)


def build(network):
    """Return a network of 16 filters for our 5 classes, in float64."""
    return network(num_filters=16, num_classes=5, dtype=np.float64, rng=np.random.default_rng(0))


# %%
def with_shortcuts(model, shortcut):
    """Return a model of the same layers, but for a shortcut() around every reduction block."""
    layers, left = [], list(model.layers)
    while left:
        if (left[0].name or "").startswith("reduction_block"):
            end = [i for i, layer in enumerate(left) if isinstance(layer, LeakyReluLayer)][1]
            layers.append(AdditionLayer([left[:end], shortcut()]))
            left = left[end:]
        else:
            layers.append(left.pop(0))
    return MultipleLayerModel(layers)


def projection():
    """Return a 1x1 convolution that halves height and width."""
    init = FanInUniformInit(rng=np.random.default_rng(5))
    return Convolution2DLayer(16, 16, 1, stride=2, bias=False, kernels_init=init)


networks = {
    "VGG38": (build(vgg38), RED),
    "RC": (build(vgg38_rc), BLUE),
    "RC, projections": (with_shortcuts(build(vgg38_rc), projection), AMBER),
    "RC, pooled identities": (with_shortcuts(build(vgg38_rc), lambda: AveragePooling2DLayer(2)), TEAL),
}
chain, shortcut = networks["RC, projections"][0].layers[13].children()
print("a reduction block's branch:", *chain.children(), sep="\n    ")
print("its shortcut:", shortcut, sep="\n    ")


# %%
def starts_block(layer):
    """Return whether a layer is the first of a block behind the entry block, or of the head."""
    containers = (ResidualLayer, AdditionLayer, GlobalAveragePooling2DLayer)
    return isinstance(layer, containers) or (layer.name or "").endswith("_conv_0")


def block_gradients(model, images, labels):
    """Return the RMS of dE/dx at the inputs x of every block and of the head."""
    activations = model.fprop(images)
    grads, sizes = CrossEntropySoftmaxError().grad(activations[-1], labels), []
    for i in reversed(range(1, len(model.layers))):
        grads, _ = model.layers[i].backprop(activations[i], activations[i + 1], grads)
        if starts_block(model.layers[i]):
            sizes.insert(0, np.sqrt(np.mean(grads**2)))
    return sizes


images, labels = ImageDataProvider(data.train, 100, data.mean, data.std).batch(0, 0)
figure, axes = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
for name, (model, colour) in networks.items():
    sizes = block_gradients(model, images.astype(np.float64), labels)
    axes.semilogy(sizes, "o-", color=colour, markersize=4, label=name)
for block in (5, 11, 17):
    axes.axvspan(block, block + 1, color=GREY, alpha=0.12, linewidth=0)
    axes.text(block + 0.5, 0.1, "reduction", color=GREY, ha="center", fontsize=9)
axes.set(xlabel="input of block (0: behind the entry block, 18: of the head)", ylim=(1e-22, 1))
axes.set_xticks(range(0, 19, 2))
axes.set_ylabel(r"$\partial E / \partial x$: RMS")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# The plain network's gradient (red) vanishes. With residual connections (blue) it stays almost level within
# a stage and falls in the three reduction blocks (grey), which have no connection. With a shortcut there
# (amber, teal) it falls less: by 4 in a pooled identity, as each of 4 pixels gets a quarter. From the output
# down to the input the plain network loses about seventeen powers of ten, the one with connections five, and
# those with shortcuts everywhere two.
#
# ## Training
#
# The report's figures 4 and 5 in miniature: 2000 images, 8 epochs, Adam.


# %%
def train(name, epochs=8):
    """Train an experiment on our data; return its metrics and gradient flow, rows of one epoch each."""
    changes = {"num_filters": 16, "learning_rate": 2e-3, "batch_size": 50, "epochs": epochs}
    experiment = replace(EXPERIMENTS[name], dataset="shapes", **changes)
    with TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder), name)
        Runner(experiment, data, run, "cpu", quiet=True).run()
        return run.metrics(), run.gradient_flow()


styles = {"vgg38": ("VGG38", RED), "vgg38_rc": ("VGG38 RC", BLUE), "vgg38_bn_rc": ("VGG38 BN+RC", TEAL)}
metrics, flows = {}, {}
for name in styles:
    metrics[name], flows[name] = train(name)
    last = metrics[name][-1]
    print(f"{name}: accuracy: training {last.train_acc:.1f} %, validation {last.val_acc:.1f} %")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for name, (label, colour) in styles.items():
    for part, text, line in (("train", "training", "--"), ("val", "validation", "-")):
        for panel, quantity in zip(axes, ("loss", "acc"), strict=True):
            values = [getattr(row, f"{part}_{quantity}") for row in metrics[name]]
            panel.plot(range(1, 9), values, line, color=colour, marker=".", label=f"{label}, {text}")
axes[0].set(xlabel="epoch", ylabel="cross-entropy error", ylim=(0, 1.8))
axes[1].set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
axes[1].text(8, 14.0, "guessing: 20 %", color=GREY, ha="right", fontsize=9)
handles, names = axes[0].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# The plain network guesses to the end. The same layers with residual connections learn, without one
# parameter more; with batch normalisation too, they learn faster.

# %%
gradient_flow(flows["vgg38_rc"], "VGG38 RC: gradient flow")

# %% [markdown]
# The gradient flow with residual connections, as in the report's figure 5. No layer is without a gradient:
# within an epoch they span two to four powers of ten, and they do not fall towards the input.
#
# ## What we saw
#
# The gradient flow of the first epoch, with and without connections, on one scale:

# %%
figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
for name, (label, colour) in styles.items():
    rows = [row for row in flows[name] if row.epoch == 1 and "bn" not in row.layer]
    values = [row.mean_abs_gradient for row in rows]
    axes.semilogy(range(1, len(rows) + 1), values, "o-", color=colour, markersize=4, label=label)
axes.set_xlabel("layer (1: first convolution, 38: affine layer on top)")
axes.set_ylabel(r"mean $|\partial E / \partial w|$, epoch 1")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0.02, 0.6))
plt.show()

# %% [markdown]
# Both residual networks (blue, teal) have gradients of about one size in all 38 layers; those of the plain
# network (red) vanish towards the input.
#
# - $y = F(x) + x$ gives $\partial E / \partial x = G + J_F^\top G$: the gradient has a way past the branch.
# - In a product of $L$ such Jacobians the 1 survives. The gain of a block is $\sqrt{1 + g^2}$ where that of a
#   plain one is $g$; the smaller the branch, the nearer it is to 1.
# - Most of the gradient goes through few branches.
# - Other shortcuts are sums of branches too: a projection, or a pooled and padded identity. Where a network
#   has none, there the gradient falls.
# - VGG38 learns with the connections, and with batch normalisation besides it learns faster. The two cures
#   are different ones: the one opens a way past the layers, the other keeps what goes through them at one
#   size.
#
# ## Further reading
#
# - K. He, X. Zhang, S. Ren and J. Sun, *Deep residual learning for image recognition*, CVPR 2016: equations
#   1 (identity) and 2 (projection).
# - K. He, X. Zhang, S. Ren and J. Sun, *Identity mappings in deep residual networks*, ECCV 2016:
#   pre-activation.
# - A. Veit, M. Wilber and S. Belongie, *Residual networks behave like ensembles of relatively shallow
#   networks*, NIPS 2016: the paths.
# - D. Han, J. Kim and J. Kim, *Deep pyramidal residual networks*, CVPR 2017: zero-padded shortcuts.
