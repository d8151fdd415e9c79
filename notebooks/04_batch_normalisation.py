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
# # Batch normalisation
#
# After this notebook you can
#
# - write batch normalisation for training and for evaluation, with its running statistics,
# - derive the three terms of its gradient, and say what each of them is for,
# - tell what goes wrong without a term, and why a falling training error does not prove a gradient right,
# - explain how batch normalisation keeps both passes of a deep network at one size, and what it costs
#   backward,
# - fold a trained normalisation into the convolution below it.
#
# You need to know what a layer's forward and backward passes are (notebook 1), and why VGG38 does not learn
# (notebook 3).

# %%
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from mlp.data_providers import ImageDataProvider, ImageSet, load_shapes
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.runner import Runner
from mlp.layers import (
    AffineLayer,
    BatchNormalizationLayer,
    Convolution2DLayer,
    LayerWithParameters,
    LeakyReluLayer,
)
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import MultipleLayerModel, vgg38, vgg38_bn
from mlp.plots import gradient_flow
from mlp.records import RunFolder
from mlp.testing import GradientError, check_gradients

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## Normalise, scale and shift
#
# Batch normalisation treats every channel by itself. Take one channel, and let $x_1, \dots, x_m$ be all its
# values in a mini-batch: $m = N$ for inputs $(N, C)$, and $m = N H W$ for images $(N, C, H, W)$, as all
# pixels of a channel share their statistics. In training, with the batch's own mean and variance,
#
# $$\mu = \frac1m \sum_i x_i, \qquad v = \frac1m \sum_i (x_i - \mu)^2, \qquad s = \sqrt{v + \epsilon},
# \qquad \hat x_i = \frac{x_i - \mu}{s}, \qquad y_i = \gamma\, \hat x_i + \beta .$$
#
# The $\hat x_i$ have mean 0 and variance 1 (a little less, for $\epsilon = 10^{-5}$). The parameters
# $\gamma$ and $\beta$, one of each per channel, start at 1 and 0. With them the layer can represent any
# other mean and variance, its inputs' own among them.
#
# An evaluation has no batch: an answer must not depend on what else is asked. So each training pass moves
# **running statistics** towards those of its batch, by the share $\alpha = 0.1$,
#
# $$\bar\mu \leftarrow (1 - \alpha)\, \bar\mu + \alpha\, \mu, \qquad
# \bar v \leftarrow (1 - \alpha)\, \bar v + \alpha\, \frac{m}{m - 1}\, v ,$$
#
# which start at 0 and 1, and evaluation takes them for $\mu$ and $v$. The factor $\frac{m}{m - 1}$ makes the
# batch's variance, which is on average too small, an unbiased estimate. These are the report's equations 3
# (normalise), 4 (scale and shift) and 5 (running statistics).
#
# **Exercise 1.** Write both modes for images. It is checked against `BatchNormalizationLayer`. The solution
# is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def batch_norm(x, gamma, beta, running_mean, running_var, training, momentum=0.1, epsilon=1e-5):
    """Return y (N, C, H, W) for images x (N, C, H, W); gamma, beta and both running statistics are (C,).

    In training, normalise with the batch's mean and biased variance, and move running_mean and running_var in
    place, by the share `momentum`, towards the batch's mean and unbiased variance. In evaluation, normalise
    with the running statistics and leave them as they are. x is not changed.
    """
    ### BEGIN SOLUTION
    if training:
        m = x.size // x.shape[1]
        mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (m / (m - 1) * var - running_var)
    else:
        mean, var = running_mean, running_var
    normalised = (x - mean[:, None, None]) / np.sqrt(var + epsilon)[:, None, None]
    return gamma[:, None, None] * normalised + beta[:, None, None]
    ### END SOLUTION


# %% tags=["check"]
generator = np.random.default_rng(1)
layer = BatchNormalizationLayer(3)
layer.params = [generator.standard_normal(3), generator.standard_normal(3)]
running_mean, running_var = np.zeros(3), np.ones(3)
for batch in range(3):
    x = 0.01 * generator.standard_normal((2, 3, 2, 3)) + np.array([1.0, 2.0, -3.0])[:, None, None]
    before, case = x.copy(), f"training batch {batch + 1}"
    y = batch_norm(x, *layer.params, running_mean, running_var, training=True)
    expected = layer.fprop(x)
    assert np.array_equal(x, before), "x was changed"
    assert np.shape(y) == x.shape, f"y has shape {np.shape(y)}, expected {x.shape}"
    assert np.allclose(y, expected), f"{case}: y is wrong by up to {abs(y - expected).max():.2g}"
    text = f"{case}: running_mean is {running_mean}, expected {layer.running_mean}, changed in place"
    assert np.allclose(running_mean, layer.running_mean, rtol=1e-9), text
    text = f"{case}: running_var is {running_var}, expected {layer.running_var}, of unbiased variances"
    assert np.allclose(running_var, layer.running_var, rtol=1e-9, atol=0), text
state = running_mean.copy(), running_var.copy()
y, expected = batch_norm(x, *layer.params, *state, training=False), layer.fprop(x, stochastic=False)
assert np.allclose(y, expected), f"evaluation: y is wrong by up to {abs(y - expected).max():.2g}"
assert np.array_equal(state, (running_mean, running_var)), "evaluation changed the running statistics"
print("Exercise 1: right")

# %% [markdown]
# ## Two modes, two outputs
#
# One channel, values drawn from a normal distribution of mean 3 and variance 4. Left, how the running
# statistics find them. Right, what becomes of *one and the same* example, $x = 5$, in many random batches.

# %%
generator = np.random.default_rng(2)
layer, history = BatchNormalizationLayer(1), [(0.0, 1.0)]
for _ in range(60):
    layer.fprop(generator.normal(3.0, 2.0, (20, 1)))
    history.append((layer.running_mean[0], layer.running_var[0]))

outputs = {}
for size in (4, 16, 64):
    batches = generator.normal(3.0, 2.0, (2000, size, 1))
    batches[:, 0] = 5.0
    outputs[size] = [BatchNormalizationLayer(1).fprop(batch)[0, 0] for batch in batches]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
steps = np.arange(61)
means, variances = np.array(history).T
left.plot(steps, variances, color=RED, label=r"running variance $\bar v$")
left.plot(steps, means, color=BLUE, label=r"running mean $\bar\mu$")
left.plot(steps, 4.0 - 3.0 * 0.9**steps, ":", color=GREY, label="expected")
left.plot(steps, 3.0 - 3.0 * 0.9**steps, ":", color=GREY)
left.set(xlabel="training batches of 20", ylabel="running statistics", ylim=(0, 6))
left.legend(frameon=False, loc="lower right")
for (size, values), colour in zip(outputs.items(), (AMBER, TEAL, BLUE), strict=True):
    style = {"histtype": "step", "color": colour, "linewidth": 1.8}
    right.hist(values, np.linspace(-1, 3, 81), label=f"$m = {size}$", **style)
right.axvline((5.0 - 3.0) / 2.0, color=GREY, linestyle="--", linewidth=1.2, label="evaluation")
right.set(xlabel=r"$\hat x$ of $x = 5$", ylabel="number of batches, of 2000")
right.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# Left: the running statistics follow the dotted curves, $3 (1 - 0.9^t)$ for the mean; after 22 batches 90 %
# of the way is done ($0.9^{22} \approx 0.1$), and they go on fluctuating with the batches. Where the weights
# below change fast, they lag behind. Right: in training the output depends on the rest of the batch, the
# more the smaller the batch; evaluation (dashed, with statistics of the distribution) gives one answer. The
# two modes agree only in so far as batches are large and running statistics up to date.
#
# ## Three ways backward
#
# Now the gradient, in training. Let $G_i = \partial E / \partial y_i$ be what comes from above. The
# parameters act on all values of their channel:
#
# $$\frac{\partial E}{\partial \gamma} = \sum_i G_i\, \hat x_i , \qquad
# \frac{\partial E}{\partial \beta} = \sum_i G_i .$$
#
# With $\hat G_i = \partial E / \partial \hat x_i = \gamma\, G_i$ an input $x_i$ acts in three ways: on its
# own $\hat x_i$; on *all* $\hat x_j$ through $\mu$; and on all of them through $v$. Take the last two as
# intermediate quantities,
#
# $$\frac{\partial \hat x_j}{\partial \mu} = -\frac1s , \qquad
# \frac{\partial \hat x_j}{\partial v} = -\frac{x_j - \mu}{2 s^3} = -\frac{\hat x_j}{2 s^2} , \qquad
# \frac{\partial \mu}{\partial x_i} = \frac1m , \qquad
# \frac{\partial v}{\partial x_i} = \frac{2 (x_i - \mu)}{m} = \frac{2 s\, \hat x_i}{m} .$$
#
# (That $v$ depends on $x_i$ through $\mu$ too adds nothing: $\partial v / \partial \mu
# = -\frac2m \sum_j (x_j - \mu) = 0$.) The chain rule adds the three ways:
#
# $$\frac{\partial E}{\partial x_i}
# = \hat G_i \cdot \frac1s
# + \Big( \sum_j \hat G_j \cdot \frac{-1}{s} \Big) \frac1m
# + \Big( \sum_j \hat G_j \cdot \frac{-\hat x_j}{2 s^2} \Big) \frac{2 s\, \hat x_i}{m}$$
#
# $$\boxed{\ \frac{\partial E}{\partial x_i} = \frac{\gamma}{s} \Big( G_i
# \underbrace{{}- \frac1m \sum_j G_j}_{\text{by the mean}}
# \underbrace{{}- \hat x_i\, \frac1m \sum_j G_j\, \hat x_j}_{\text{by the variance}} \Big) \ }$$
#
# In evaluation the statistics are constants, and only the first way is left.
#
# **Exercise 2.** Write the three gradients for inputs $(N, C)$. `check_gradients` decides. The solution is
# folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def batch_norm_backward(x, gamma, grads_wrt_outputs, epsilon=1e-5):
    """Return (dE/dx (N, C), dE/dgamma (C,), dE/dbeta (C,)) of batch normalisation in training.

    x (N, C) are the inputs, gamma (C,) the scales, grads_wrt_outputs (N, C) is dE/dy, with the 1/N of the
    error in it. No argument is changed.
    """
    ### BEGIN SOLUTION
    std = np.sqrt(x.var(axis=0) + epsilon)
    normalised = (x - x.mean(axis=0)) / std
    by_mean = grads_wrt_outputs.mean(axis=0)
    by_variance = normalised * (grads_wrt_outputs * normalised).mean(axis=0)
    grads_wrt_inputs = gamma / std * (grads_wrt_outputs - by_mean - by_variance)
    return grads_wrt_inputs, (grads_wrt_outputs * normalised).sum(axis=0), grads_wrt_outputs.sum(axis=0)
    ### END SOLUTION


# %% tags=["check"]
class MyBatchNorm(LayerWithParameters):
    """Batch normalisation of (N, C), in training, with your gradients."""

    param_names = ("gamma", "beta")

    def __init__(self, dim):
        self.gamma, self.beta = np.ones(dim), np.zeros(dim)

    def fprop(self, inputs):
        """Return y (N, C)."""
        centred = inputs - inputs.mean(axis=0)
        return self.gamma * centred / np.sqrt((centred * centred).mean(axis=0) + 1e-5) + self.beta

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        return batch_norm_backward(inputs, self.gamma, grads_wrt_outputs)[0]

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/dgamma, dE/dbeta]."""
        return list(batch_norm_backward(inputs, self.gamma, grads_wrt_outputs)[1:])


check_gradients(MyBatchNorm(3), (6, 3))
check_gradients(MyBatchNorm(2), 0.01 * np.random.default_rng(0).standard_normal((4, 2)))
print("Exercise 2: right")

# %% [markdown]
# ## Without a term
#
# What are the two subtractions for? Here is the layer with a switch for each.


# %%
class BatchNorm(LayerWithParameters):
    """Batch normalisation of (N, C) in training; its gradient by the inputs can leave terms out."""

    param_names = ("gamma", "beta")
    bias_names = ("beta",)

    def __init__(self, dim, by_mean=True, by_variance=True):
        self.gamma, self.beta = np.ones(dim), np.zeros(dim)
        self.by_mean, self.by_variance = by_mean, by_variance

    def normalised(self, inputs):
        """Return the normalised inputs and the standard deviation."""
        centred = inputs - inputs.mean(axis=0)
        std = np.sqrt((centred * centred).mean(axis=0) + 1e-5)
        return centred / std, std

    def fprop(self, inputs):
        """Return y (N, C)."""
        return self.gamma * self.normalised(inputs)[0] + self.beta

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx (N, C), or what is left of it."""
        g, (normalised, std) = grads_wrt_outputs, self.normalised(inputs)
        by_mean = g.mean(axis=0) if self.by_mean else 0.0
        by_variance = normalised * (g * normalised).mean(axis=0) if self.by_variance else 0.0
        return self.gamma / std * (g - by_mean - by_variance)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/dgamma, dE/dbeta]."""
        return [(grads_wrt_outputs * self.normalised(inputs)[0]).sum(axis=0), grads_wrt_outputs.sum(axis=0)]


# %%
for by_mean, by_variance in ((True, True), (False, True), (True, False)):
    try:
        report = check_gradients(BatchNorm(3, by_mean, by_variance), (6, 3))
        print(f"all terms: right, worst error {report.worst:.0e}\n")
    except GradientError as error:
        print("without", "the variance's term:" if by_mean else "the mean's term:")
        print(f"{error.cause}\n")

# %% [markdown]
# The checker finds both, and sees which term is missing. Each term stands for something that the layer does
# not see:
#
# - **The mean's term.** Adding a constant to all $x_i$ changes no output, so
#   $\sum_i \partial E / \partial x_i = 0$. (Sum the boxed formula over $i$:
#   $\sum_i G_i - \sum_j G_j - 0$.) A bias $b$ below the normalisation is such a constant, so
#   $\partial E / \partial b = 0$: it never moves, and one can do without it, as VGG38's processing blocks do.
# - **The variance's term.** Multiplying all $x_i$ by a constant changes no output (but for $\epsilon$), so
#   $\sum_i \hat x_i\, \partial E / \partial x_i \approx 0$. The weights $w$ of a unit below are multiplied
#   by a constant with it, so $w \cdot \partial E / \partial w \approx 0$: the gradient is perpendicular to
#   the weights.
#
# Does it matter to training? A network of ten fully connected layers with normalisations, on two
# interleaved spirals, trained with each of the three gradients from the same three sets of initial weights.


# %%
def spirals(count, generator):
    """Return points (count, 2) on two noisy spirals, and which of them each is on."""
    t, arm = generator.uniform(0.3, 1.0, count), generator.integers(0, 2, count)
    angle = 3.0 * np.pi * t + np.pi * arm
    points = np.stack([t * np.cos(angle), t * np.sin(angle)], axis=1)
    return 2.0 * (points + generator.normal(0.0, 0.02, points.shape)) + 1.0, arm


def network(terms, generator, width=32, depth=10):
    """Return `depth` times affine map, normalisation and LeakyReLU, and an affine map to 2 outputs."""
    layers = []
    for below, above in pairwise([2, *[width] * depth, 2]):
        affine = AffineLayer(below, above)
        affine.weights[...] = generator.standard_normal((above, below)) / np.sqrt(below)
        layers += [affine, BatchNorm(above, *terms), LeakyReluLayer()]
    return MultipleLayerModel(layers[:-2])


# %%
def train_spirals(terms, seed, steps=300):
    """Return rows of (error, RMS of a bias, |cosine| between a layer's weights and their gradient)."""
    generator = np.random.default_rng(seed)
    points, arms = spirals(1000, generator)
    model, error, rows = network(terms, generator), CrossEntropySoftmaxError(), []
    rule, fourth = KingmaAdamLearningRule(2e-3), model.layers[9]
    rule.initialise(model.params)
    for _ in range(steps):
        chosen = generator.integers(0, 1000, 100)
        activations = model.fprop(points[chosen])
        upstream = error.grad(activations[-1], arms[chosen])
        grads = model.grads_wrt_params(activations, upstream)
        weights, grad = fourth.weights, grads[12]  # four arrays an affine map and its normalisation
        cosine = abs((weights * grad).sum()) / np.sqrt((weights**2).sum() * (grad**2).sum())
        bias = np.sqrt((fourth.biases**2).mean())
        rows.append((error(activations[-1], arms[chosen]), bias, cosine))
        rule.update_params(grads)
    return np.array(rows)


variants = {"all terms": (True, True), "no mean's term": (False, True), "no variance's term": (True, False)}
runs = {name: [train_spirals(terms, seed) for seed in range(3)] for name, terms in variants.items()}


# %%
def smooth(values, width=20):
    """Return the means over windows of `width` steps."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for (name, curves), colour in zip(runs.items(), (BLUE, RED, AMBER), strict=True):
    for seed, rows in enumerate(curves):
        for panel, values in zip(axes, rows.T, strict=True):
            curve = smooth(values)
            panel.plot(np.arange(len(curve)) + 10, curve, color=colour, label=None if seed else name)
axes[0].set(ylabel="training error", ylim=(0, 0.75))
axes[1].set(ylabel="bias of layer 4: RMS")
axes[2].set(ylabel="layer 4: |cos(weights, gradient)|", yscale="log")
for panel in axes:
    panel.set_xlabel("step")
axes[0].legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# Error, bias of the fourth layer, and the cosine of the angle between its weights and their gradient, each
# the mean of 20 steps; three runs a colour.
#
# - Without the mean's term (red) the training fails: the error falls at first, and then rises. The middle
#   panel shows what Ioffe and Szegedy warn of in section 2 of their paper: the bias, which changes no
#   output, walks and walks. (With the other gradients it stays at 0.) The gradient of each weight gets the
#   same useless push, times the mean of its input.
# - Without the variance's term (amber) *the error falls as it should*. The right panel shows the fault:
#   neither wrong gradient is perpendicular to the weights, as the right one (blue) is but for $\epsilon$.
#
# So a wrong gradient can train as well as the right one, here. A training curve does not prove a gradient
# right; a gradient check does. (And not one with an upstream gradient of ones: for $G_i = 1$ the boxed
# formula gives 0 whatever $x$ is, as $\sum_j \hat x_j = 0$.)
#
# ## What it does to 38 layers
#
# Notebook 3 found the gain of a convolution and its activation, the factor on the root mean square of
# activations (forward) and gradients (backward): $\sqrt{9 C \sigma^2 / 2} \approx 0.41$ for weights of
# variance $\sigma^2 = \frac{1}{27 C}$. With a normalisation between the two, for $\alpha \approx 0$:
#
# **Forward.** The activation's input $z$ has mean 0 and variance 1 in every layer, whatever stands below. If
# it is about normal, $a = \max(z, 0)$ has
#
# $$\mathbb{E}[a] = \frac{1}{\sqrt{2 \pi}} , \qquad \mathbb{E}[a^2] = \frac12 , \qquad
# \operatorname{Var}[a] = \frac12 - \frac{1}{2\pi} .$$
#
# **Backward.** The convolution above turns these into values of variance
# $s^2 = 9 C \sigma^2 \operatorname{Var}[a]$; the mean of $a$ only adds to $\mu$. On the way back, the
# activation has the mean square slope $\frac12$, the normalisation divides by $s$ (its two subtractions
# take 2 of $m$ dimensions, which is little) and the convolution multiplies by $\sqrt{9 K \sigma^2}$. With
# $K = C$,
#
# $$\text{gain} = \sqrt{\frac12} \cdot \frac1s \cdot \sqrt{9 C \sigma^2}
# = \sqrt{\frac{1/2}{\operatorname{Var}[a]}} = \sqrt{\frac{\pi}{\pi - 1}} \approx 1.21 .$$
#
# The variance of the weights has cancelled: batch normalisation makes the network indifferent to it. But the
# gain is not 1. Forward the size stays; backward it *grows*, by 1.21 a layer. Measured, at the initial
# weights, on the images of notebook 3 (drawn shapes, 16 x 16 pixels, 5 colours as classes):

# %%
COLOURS = ("red", "green", "blue", "yellow", "violet")


def reduced(images):
    """Return the images at half the size, with the colour, 0 to 4, as the label."""
    pixels = images.pixels.reshape(len(images.labels), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return ImageSet(np.rint(pixels).astype(np.uint8), images.labels // 4 % 5)


shapes = load_shapes()
parts = {name: reduced(getattr(shapes, name)) for name in ("train", "valid", "test")}
data = replace(shapes, **parts, class_names=COLOURS).limited(2000)
images, labels = ImageDataProvider(data.train, 100, data.mean, data.std).batch(0, 0)


# %%
def sizes(model):
    """Return the RMS of the outputs of every LeakyReLU, and that of dE/d outputs."""
    activations = model.fprop(images)
    grads, found = CrossEntropySoftmaxError().grad(activations[-1], labels), []
    for i in reversed(range(len(model.layers))):
        if isinstance(model.layers[i], LeakyReluLayer):
            found.insert(0, [np.sqrt(np.mean(np.square(a))) for a in (activations[i + 1], grads)])
        grads, _ = model.layers[i].backprop(activations[i], activations[i + 1], grads)
    return np.array(found).T


plain, normalised = (
    sizes(build(num_filters=16, num_classes=5, rng=np.random.default_rng(0), dtype=np.float64))
    for build in (vgg38, vgg38_bn)
)
inside = normalised[1][1:11]  # the first stage, without the entry block
gain = (inside[0] / inside[-1]) ** (1 / (len(inside) - 1))
print(f"backward gain in the first stage: {gain:.2f}, predicted {np.sqrt(np.pi / (np.pi - 1)):.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4.0), layout="constrained")
for found, name, colour in ((plain, "VGG38", RED), (normalised, "VGG38 BN", TEAL)):
    for panel, values in zip(axes, found, strict=True):
        panel.semilogy(values, "o-", color=colour, markersize=4, label=name)
for first, last in ((0, 11), (12, 23), (24, 35)):  # between two pools
    slope = normalised[1][last] * np.sqrt(np.pi / (np.pi - 1)) ** np.arange(last - first, -1, -1)
    axes[1].semilogy(range(first, last + 1), slope, color=AMBER, label=None if first else "1.21 a layer")
axes[0].set_ylabel("activations: RMS")
axes[1].set_ylabel(r"$\partial E / \partial a$: RMS")
for panel in axes:
    panel.set_xlabel("activation (0: entry block)")
axes[1].legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# Left, forward: with batch normalisation (teal) every layer's activations have one size, without it (red)
# they die away between the biases of the reduction blocks. Right, backward: without it the gradient vanishes
# towards the input on the left; with it, it grows by about 1.21 a layer (amber), with a step back at every
# pool of 2 x 2. At 38 layers this mild explosion does no harm. With several hundred it would, as
# $1.21^{300} \approx 7 \cdot 10^{24}$: batch normalisation alone does not make networks of any depth
# trainable (Yang et al. 2019).
#
# ## VGG38 learns
#
# The report's experiment in miniature, as in notebook 3: 2000 images, 8 epochs, Adam.


# %%
def train(name, epochs=8):
    """Train an experiment on our data; return its metrics and gradient flow, rows of one epoch each."""
    changes = {"num_filters": 16, "learning_rate": 2e-3, "batch_size": 50, "epochs": epochs}
    experiment = replace(EXPERIMENTS[name], dataset="shapes", **changes)
    with TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder), name)
        Runner(experiment, data, run, "cpu", quiet=True).run()
        return run.metrics(), run.gradient_flow()


metrics, flows = {}, {}
for name in ("vgg38", "vgg38_bn"):
    metrics[name], flows[name] = train(name)
    last = metrics[name][-1]
    print(f"{name}: accuracy: training {last.train_acc:.1f} %, validation {last.val_acc:.1f} %")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for name, label, colour in (("vgg38", "VGG38", RED), ("vgg38_bn", "VGG38 BN", TEAL)):
    for part, text, line in (("train", "training", "--"), ("val", "validation", "-")):
        for panel, quantity in zip(axes, ("loss", "acc"), strict=True):
            values = [getattr(row, f"{part}_{quantity}") for row in metrics[name]]
            panel.plot(range(1, 9), values, line, color=colour, marker=".", label=f"{label}, {text}")
axes[0].set(xlabel="epoch", ylabel="cross-entropy error", ylim=(0, 1.8))
axes[1].set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
axes[1].text(8, 14.0, "guessing: 20 %", color=GREY, ha="right", fontsize=9)
axes[0].legend(frameon=False, fontsize=9, loc="lower left")
plt.show()

# %% [markdown]
# The plain network (red) guesses to the end; the same network with batch normalisation (teal) learns from
# the first epoch on. Training figures are means over an epoch in training mode, validation figures are taken
# at its end in evaluation mode, so the second can be the better one.

# %%
convolutions = [row for row in flows["vgg38_bn"] if "_bn_" not in row.layer]
gradient_flow(convolutions, "VGG38 BN: gradient flow")

# %% [markdown]
# The gradients of all layers in every epoch (those of $\gamma$, which the report draws too, are left out to
# keep the names legible). Within an epoch they span two or three powers of ten; those of the plain network
# span about fifteen.
#
# ## Folded away
#
# In evaluation batch normalisation is a fixed map of each channel, and so is a bias. A convolution with a
# normalisation behind it is then one convolution.
#
# **Exercise 3.** Fold the running statistics, $\gamma$ and $\beta$ into kernels and biases: find $w'$ and
# $b'$ such that the convolution with these gives
# $\gamma\, (w * x + b - \bar\mu) / \sqrt{\bar v + \epsilon} + \beta$. It is checked on the two layers in
# evaluation mode. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def fold(kernels, biases, gamma, beta, running_mean, running_var, epsilon=1e-5):
    """Return (kernels (K, C, KH, KW), biases (K,)) of the one convolution that does both.

    kernels (K, C, KH, KW) and biases (K,) are the convolution's, all others (K,) the normalisation's. The
    arguments are not changed.
    """
    ### BEGIN SOLUTION
    scale = gamma / np.sqrt(running_var + epsilon)
    return kernels * scale[:, None, None, None], (biases - running_mean) * scale + beta
    ### END SOLUTION


# %% tags=["check"]
generator = np.random.default_rng(4)
conv, norm = Convolution2DLayer(3, 4, 3, padding=1), BatchNormalizationLayer(4)
norm.params = [generator.standard_normal(4), generator.standard_normal(4)]
norm.running_mean[...], norm.running_var[...] = generator.standard_normal(4), [0.5, 2.0, 1e-5, 3.0]
x = generator.standard_normal((2, 3, 6, 5))
arguments = [*conv.params, *norm.params, norm.running_mean, norm.running_var]
before = [array.copy() for array in arguments]
folded = Convolution2DLayer(3, 4, 3, padding=1)
folded.params = list(fold(*arguments))
assert all(map(np.array_equal, arguments, before)), "an argument was changed"
expected, found = norm.fprop(conv.fprop(x), stochastic=False), folded.fprop(x)
for channel in range(4):
    error = abs(found - expected)[:, channel].max() / abs(expected[:, channel]).max()
    hint = " (whose running variance is as small as epsilon)" if channel == 2 else ""
    assert error < 1e-9, f"channel {channel}{hint}: wrong by {error:.1e} of its largest value"
print("Exercise 3: right")

# %% [markdown]
# ## What we saw
#
# The gradient flow of the first epoch, with and without, on one scale:

# %%
figure, axes = plt.subplots(figsize=(8.5, 4.0), layout="constrained")
for name, label, colour in (("vgg38", "VGG38", RED), ("vgg38_bn", "VGG38 BN", TEAL)):
    rows = [row for row in flows[name] if row.epoch == 1 and "bn" not in row.layer]
    values = [row.mean_abs_gradient for row in rows]
    axes.semilogy(range(1, len(rows) + 1), values, "o-", color=colour, markersize=4, label=label)
axes.set_xlabel("layer (1: first convolution, 38: affine layer on top)")
axes.set_ylabel(r"mean $|\partial E / \partial w|$, epoch 1")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0.02, 0.7))
plt.show()

# %% [markdown]
# With batch normalisation (teal) the weights of all 38 layers get gradients of about one size; without it
# (red) those of the lower layers are many orders of magnitude smaller.
#
# - Training normalises with the batch, evaluation with running statistics. An output in training depends on
#   the other examples of the batch.
# - This dependence is what the two subtractions in the gradient are for. They make the gradient blind to
#   shifts and, but for $\epsilon$, to scales, as the layer is.
# - Without the mean's term the training failed; without the variance's term it did not, and the gradient was
#   wrong all the same.
# - Batch normalisation sets the size of the activations anew in every layer, so the size of the weights no
#   longer matters. Backward it lets gradients grow mildly, by about 1.21 a layer.
# - VGG38, which did not learn, learns.
#
# ## Further reading
#
# - S. Ioffe and C. Szegedy, *Batch normalization: accelerating deep network training by reducing internal
#   covariate shift*, ICML 2015: algorithms 1 and 2, and section 2 on the missing term.
# - S. Santurkar, D. Tsipras, A. Ilyas and A. Madry, *How does batch normalization help optimization?*,
#   NeurIPS 2018: a different explanation than that of the title above.
# - G. Yang, J. Pennington, V. Rao, J. Sohl-Dickstein and S. S. Schoenholz, *A mean field theory of batch
#   normalization*, ICLR 2019: the growth of the gradient with depth.
