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
# # Write your own layer
#
# After this notebook you can
#
# - go from a formula to a layer with a trainable parameter, and prove its gradients,
# - sum the gradient of a shared parameter over the right axes,
# - train a network with your layer through `Optimiser`, save and resume it, and see what the layer costs,
# - write a layer that remembers something of its forward pass, and say what `StaleStateError` protects you
#   from.
#
# You need notebook 1, *One layer by hand*: derivatives in index notation, `fprop` and `bprop`,
# `check_gradients`.

# %%
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ["MLP_NUM_THREADS"] = "1"  # the times below are those of one thread

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.checks import StaleStateError
from mlp.data_providers import DataProvider
from mlp.engine import Engine, profile
from mlp.errors import CrossEntropySoftmaxError
from mlp.initialisers import GlorotUniformInit
from mlp.kernels import sigmoid, softplus
from mlp.layers import AffineLayer, Layer, LayerWithParameters, ReluLayer, StochasticLayer
from mlp.learning_rules import AdamLearningRule
from mlp.models import MultipleLayerModel, summary
from mlp.optimisers import Optimiser
from mlp.testing import GradientError, check_gradients

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## The formula
#
# Swish (Ramachandran, Zoph and Le 2017) is an elementwise nonlinearity with a trainable parameter $\beta$:
#
# $$y = x\, \sigma(\beta x), \qquad \sigma(z) = \frac{1}{1 + e^{-z}} .$$
#
# With $\beta = 1$ it is also called SiLU. For $\beta \to 0$ it becomes the straight line $x / 2$, for
# $\beta \to \infty$ the ReLU, $\max(x, 0)$. So a network can choose for itself how sharp a bend it wants.

# %%
x = np.linspace(-5.0, 5.0, 401)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for beta, colour in ((0.1, GREY), (0.5, TEAL), (1.0, BLUE), (3.0, AMBER), (10.0, RED)):
    s = sigmoid(beta * x)
    left.plot(x, x * s, color=colour, linewidth=1.8, label=rf"$\beta = {beta:g}$")
    right.plot(x, s + beta * x * s * (1.0 - s), color=colour, linewidth=1.8)
left.set(xlabel="$x$", ylabel="$y$")
right.set(xlabel="$x$", ylabel=r"$\partial y / \partial x$")
left.legend(frameon=False)
plt.show()

# %% [markdown]
# Left the function, right its slope. Unlike a ReLU it has no kink, and it is not monotonic: it has a
# minimum at a negative $x$, to the left of which the slope is negative. As the slopes at $x$ and $-x$ sum
# to 1, it is above 1 on the other side.
#
# ## The derivatives
#
# Write $s = \sigma(\beta x)$. As $\sigma' = \sigma (1 - \sigma)$,
#
# $$\frac{\partial y}{\partial x} = s + \beta x\, s (1 - s) = s + \beta y\, (1 - s), \qquad
# \frac{\partial y}{\partial \beta} = x \cdot x\, s (1 - s) = x y\, (1 - s) .$$
#
# Each input acts on its own output alone, so `bprop` multiplies elementwise. But there is only one $\beta$:
# it acts on *every* output, so with the upstream gradient $G = \partial E / \partial y$ the chain rule sums
# over the batch and over all features:
#
# $$\frac{\partial E}{\partial x_i} = G_i \big( s_i + \beta y_i (1 - s_i) \big), \qquad
# \frac{\partial E}{\partial \beta} = \sum_i G_i\, x_i\, y_i\, (1 - s_i) .$$


# %%
class SwishLayer(LayerWithParameters):
    """y = x sigmoid(beta x), elementwise, with one beta (1,) for all; for inputs of any shape."""

    param_names = ("beta",)

    def __init__(self, beta=1.0):
        self.beta = np.array([beta])

    def fprop(self, inputs):
        """Return y, of the inputs' shape."""
        return inputs * sigmoid(self.beta * inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        s = sigmoid(self.beta * inputs)
        return grads_wrt_outputs * (s + self.beta * outputs * (1.0 - s))

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/d beta (1,)]."""
        s = sigmoid(self.beta * inputs)
        return [(grads_wrt_outputs * inputs**2 * s * (1.0 - s)).sum().reshape(1)]


check_gradients(SwishLayer(), (5, 4))

# %% [markdown]
# `param_names` is all that the library needs to know: in this order the learning rules see the parameters,
# checkpoints name them and tables count them. The parameter is an array, although it is a single number,
# because learning rules change parameters in place. The layer computes in whatever dtype comes in; that is
# why the complex step could pass through it.
#
# ## What a start at 1 hides
#
# Here is a plausible mistake: in $\partial y / \partial x$ the factor $\beta$ is forgotten. Compared with
# central differences at $\beta = 1$, where the layer starts, it is invisible.


# %%
class BetaForgotten(SwishLayer):
    """A wrong layer: right at beta = 1 alone."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return a wrong dE/dx."""
        s = sigmoid(self.beta * inputs)
        return grads_wrt_outputs * (s + outputs * (1.0 - s))


for beta in (1.0, 1.3):
    layer, h = BetaForgotten(beta), 1e-5
    differences = (layer.fprop(x + h) - layer.fprop(x - h)) / (2.0 * h)
    error = np.abs(layer.bprop(x, layer.fprop(x), 1.0) - differences).max()
    print(f"beta = {beta}: largest error {error:.0e}")

try:
    check_gradients(BetaForgotten(), (5, 4))
except GradientError as error:
    print(error)

# %% [markdown]
# `check_gradients` was given the layer with $\beta = 1$ and found it all the same: before it checks, it
# moves parameters and running statistics by about a tenth, in a copy.
#
# Two more things that a formula does not show. A sigmoid written as `1 / (1 + np.exp(-z))` overflows for
# large negative $z$; `mlp.kernels.sigmoid` takes the exponential of $-|z|$ only. And it branches on the
# real part, so that the complex step passes.

# %%
z = np.array([-1000.0, 0.0, 1000.0], np.float32)
with np.errstate(over="raise"):
    print("mlp.kernels.sigmoid:", sigmoid(z))
    try:
        print(1.0 / (1.0 + np.exp(-z)))
    except FloatingPointError as error:
        print("as it stands:", error)

# %% [markdown]
# **Exercise 1.** Softplus with a trainable sharpness is a smooth ReLU too:
#
# $$y = \frac{1}{\beta} \ln \big( 1 + e^{\beta x} \big) .$$
#
# Derive $\partial y / \partial x$ and $\partial y / \partial \beta$, and write the backward pass.
# `check_gradients` decides. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
class SoftplusLayer(LayerWithParameters):
    """y = ln(1 + exp(beta x)) / beta, elementwise, with one beta (1,) for all; for inputs of any shape."""

    param_names = ("beta",)

    def __init__(self, beta=1.0):
        self.beta = np.array([beta])

    def fprop(self, inputs):
        """Return y, of the inputs' shape."""
        return softplus(self.beta * inputs) / self.beta

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx, for inputs x, outputs y and grads_wrt_outputs dE/dy, all of one shape."""
        ### BEGIN SOLUTION
        return grads_wrt_outputs * sigmoid(self.beta * inputs)
        ### END SOLUTION

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/d beta], an array of shape (1,) in a list, for inputs x and grads_wrt_outputs dE/dy."""
        ### BEGIN SOLUTION
        slopes = (inputs * sigmoid(self.beta * inputs) - self.fprop(inputs)) / self.beta
        return [(grads_wrt_outputs * slopes).sum().reshape(1)]
        ### END SOLUTION


# %% tags=["check"]
check_gradients(SoftplusLayer(), (5, 4))
check_gradients(SoftplusLayer(2.5), (2, 3, 4, 4))
print("Exercise 1: right")

# %% [markdown]
# **Exercise 2.** One $\beta$ for all features is little freedom. Give every feature, or every channel of an
# image, its own: for inputs $(N, C)$ or $(N, C, H, W)$,
#
# $$y_{nc\dots} = x_{nc\dots}\; \sigma(\beta_c\, x_{nc\dots}) .$$
#
# Which axes must $\partial E / \partial \beta_c$ sum over? `shaped` gives $\beta$ the shape that broadcasts
# over the inputs. `check_gradients` decides, for matrices and for images. The solution is folded in the
# next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
class ChannelSwishLayer(LayerWithParameters):
    """y = x sigmoid(beta_c x) with a beta (C,) for axis 1 of inputs (N, C) or (N, C, H, W)."""

    param_names = ("beta",)

    def __init__(self, channels):
        self.beta = np.ones(channels)

    def shaped(self, inputs):
        """Return beta as (C,) for inputs (N, C), as (C, 1, 1) for (N, C, H, W)."""
        return self.beta.reshape(-1, *[1] * (inputs.ndim - 2))

    def fprop(self, inputs):
        """Return y, of the inputs' shape."""
        return inputs * sigmoid(self.shaped(inputs) * inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx, of the inputs' shape."""
        s = sigmoid(self.shaped(inputs) * inputs)
        return grads_wrt_outputs * (s + self.shaped(inputs) * outputs * (1.0 - s))

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/d beta], an array (C,) in a list, for inputs x and grads_wrt_outputs dE/dy."""
        ### BEGIN SOLUTION
        s = sigmoid(self.shaped(inputs) * inputs)
        every_axis_but_1 = (0, *range(2, inputs.ndim))
        return [(grads_wrt_outputs * inputs**2 * s * (1.0 - s)).sum(axis=every_axis_but_1)]
        ### END SOLUTION


# %% tags=["check"]
check_gradients(ChannelSwishLayer(4), (5, 4))
check_gradients(ChannelSwishLayer(3), (2, 3, 4, 5))
check_gradients(ChannelSwishLayer(4), (4, 4, 4, 4))
print("Exercise 2: right")

# %% [markdown]
# ## In a network
#
# The task: two spirals in the plane, 600 points to train and 600 to validate. The network has two hidden
# layers of 32 units.


# %%
def spirals(count, seed):
    """Return points (count, 2) on two spirals, with noise, and their classes as one-hot rows (count, 2)."""
    rng = np.random.default_rng(seed)
    radius, labels = rng.uniform(0.15, 1.0, count), np.arange(count) % 2
    angle = 3.0 * np.pi * radius + np.pi * labels
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return 3.0 * points + 0.06 * rng.standard_normal((count, 2)), np.eye(2)[labels]


def network(nonlinearity, width=32, seed=3):
    """Return a network with two hidden layers; nonlinearity() makes the layer behind each."""
    init = GlorotUniformInit(rng=np.random.RandomState(seed))
    return MultipleLayerModel(
        [
            AffineLayer(2, width, init),
            nonlinearity(),
            AffineLayer(width, width, init),
            nonlinearity(),
            AffineLayer(width, 2, init),
        ]
    )


train, valid = spirals(600, seed=1), spirals(600, seed=2)
summary(network(SwishLayer), (2,))

# %% [markdown]
# `Optimiser` takes the model as it would any other. Its monitors are functions of a batch's outputs and
# targets, but nothing keeps them from looking elsewhere: two of them report $\beta$ after every epoch.


# %%
def trained(model, epochs=80):
    """Train a model on the spirals; return the statistics and their columns."""
    monitors = {"accuracy": lambda y, t: (y.argmax(axis=1) == t.argmax(axis=1)).mean()}
    for number, layer in enumerate(layer for layer in model.layers if isinstance(layer, SwishLayer)):
        monitors[f"beta {number}"] = lambda y, t, layer=layer: layer.beta[0]
    batches = DataProvider(*train, batch_size=50, rng=np.random.RandomState(5))
    others = DataProvider(*valid, batch_size=100, shuffle_order=False)
    error, rule = CrossEntropySoftmaxError(), AdamLearningRule(5e-3)
    optimiser = Optimiser(model, error, rule, batches, others, monitors)
    stats, keys, _ = optimiser.train(epochs, stats_interval=1)
    return stats, keys


swish, relu = network(SwishLayer), network(ReluLayer)
swish_run, relu_run = trained(swish), trained(relu)
for name, (stats, keys) in (("Swish", swish_run), ("ReLU", relu_run)):
    print(f"{name}: validation accuracy {100 * stats[-1, keys['accuracy(valid)']]:.1f} %")

# %%
figure, parts = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
figure.get_layout_engine().set(w_pad=0.12)
for name, (stats, keys), colour in (("Swish", swish_run, BLUE), ("ReLU", relu_run, AMBER)):
    for part, style in (("train", "-"), ("valid", "--")):
        error = stats[:, keys[f"error({part})"]]
        parts[0].semilogy(error, color=colour, linestyle=style, label=f"{name}, {part}")
parts[0].set(xlabel="epoch", ylabel="cross-entropy, nats")
parts[0].legend(frameon=False, fontsize=9)

for number, colour in enumerate((TEAL, RED)):
    betas = swish_run[0][:, swish_run[1][f"beta {number}(train)"]]
    parts[1].plot(betas, color=colour, label=f"layer {number + 1}")
parts[1].axhline(1.0, color=GREY, linestyle=":", linewidth=1)
parts[1].set(xlabel="epoch", ylabel=r"$\beta$ of the Swish network", ylim=(0, None))
parts[1].legend(frameon=False, fontsize=9)

grid = np.stack(np.meshgrid(np.linspace(-3.4, 3.4, 161), np.linspace(-3.4, 3.4, 161)), axis=-1)
scores = Engine(swish).predict(grid.reshape(-1, 2)).reshape(161, 161, 2)
regions = scores[..., 0] > scores[..., 1]
parts[2].contourf(grid[..., 0], grid[..., 1], regions, levels=1, colors=("#f7d9dc", "#d3e3f2"))
for label, colour in enumerate((BLUE, RED)):
    parts[2].plot(*valid[0][valid[1][:, label] == 1].T, ".", color=colour, markersize=3)
parts[2].set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
plt.show()

# %% [markdown]
# Left: both networks learn the spirals. Middle: the two $\beta$ start at 1 and are learned with everything
# else; they move away from it, each layer its own way. Right: the regions of the trained Swish network
# follow the arms. (One data set and one seed say nothing about which nonlinearity is better.)
#
# ## Saved and resumed
#
# A checkpoint has to hold all that a run needs to go on: parameters, the learning rule's state, and what
# you put in `progress`. Your layer's arrays are found by `param_names`. The test: 20 epochs at once,
# against 12 epochs, a file, a *new* model with other initial weights, and 8 more. (A provider's random
# stream is not in a checkpoint; here the order is fixed.)


# %%
def optimiser_for(model):
    """Return an optimiser on the training points, in a fixed order."""
    batches = DataProvider(*train, batch_size=50, shuffle_order=False)
    return Optimiser(model, CrossEntropySoftmaxError(), AdamLearningRule(5e-3), batches)


at_once, first, second = network(SwishLayer), network(SwishLayer), network(SwishLayer, seed=99)
optimiser_for(at_once).train(20)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "swish.safetensors"
    optimiser = optimiser_for(first)
    optimiser.train(12)
    save_checkpoint(path, first, optimiser.learning_rule, {"epoch": 12})
    resumed = optimiser_for(second)  # its learning rule starts at zero; the checkpoint fills it
    progress = load_checkpoint(path, second, resumed.learning_rule)
    names = [name for name in load_file(path) if "Swish" in name]
resumed.train(20 - progress["epoch"])

print("arrays of the Swish layers in the file:", *sorted(names), sep="\n    ")
same = all(np.array_equal(a, b) for a, b in zip(at_once.params, second.params, strict=True))
print("the same bits as without the interruption:", same)

# %% [markdown]
# ## A layer that remembers
#
# `SwishLayer` computes the same sigmoid three times: in `fprop`, in `bprop` and in `grads_wrt_params`. It
# could keep it. The obvious way is an attribute:


# %%
class HiddenCacheLayer(SwishLayer):
    """Swish that keeps its sigmoids in an attribute: a trap."""

    def fprop(self, inputs):
        """Return y, and keep sigmoid(beta x)."""
        self.s = sigmoid(self.beta * inputs)
        return inputs * self.s

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx from the sigmoids of the last forward pass."""
        return grads_wrt_outputs * (self.s + self.beta * outputs * (1.0 - self.s))

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/d beta] from the sigmoids of the last forward pass."""
        return [(grads_wrt_outputs * inputs**2 * self.s * (1.0 - self.s)).sum().reshape(1)]


rng = np.random.default_rng(0)
batch, other = rng.standard_normal((2, 50, 32))
g = rng.standard_normal(batch.shape)
layer = HiddenCacheLayer()
y = layer.fprop(batch)
before = layer.bprop(batch, y, g)
layer.fprop(other)  # a look at a validation batch, say
after = layer.bprop(batch, y, g)

# %%
right_one = SwishLayer().bprop(batch, y, g)
figure, axes = plt.subplots(figsize=(5.2, 4.4), layout="constrained")
for found, colour, label in (
    (after, RED, "after fprop of another batch"),
    (before, BLUE, "straight after its own fprop"),
):
    axes.plot(right_one.ravel(), found.ravel(), ".", color=colour, markersize=3, label=label)
axes.set_xlabel(r"right $\partial E / \partial x$")
axes.set_ylabel(r"$\partial E / \partial x$ of the layer with the cache")
axes.set_aspect("equal")
axes.legend(frameon=False, fontsize=9, markerscale=3, loc="upper left")
plt.show()

# %% [markdown]
# One dot an entry of $\partial E / \partial x$. Called straight after its own forward pass the layer is
# right: all blue dots lie on the diagonal. With another forward pass in between, the same call with the
# same arguments returns the red cloud, without an error. It still looks like a gradient, and training with
# it would only be worse, for reasons that are hard to find.
#
# That happens whenever a layer is used twice before its backward pass: weights shared by two inputs, a
# validation batch in the middle of a step, gradients for the last batch but one. `check_gradients` tries it
# with every layer:

# %%
try:
    check_gradients(HiddenCacheLayer(), (5, 4))
except GradientError as error:
    print(error)

# %% [markdown]
# The remedy: what is kept is bound to the very arrays it belongs to. A `NamedTuple` starts with the inputs
# and the outputs of the forward pass and goes on with what is to be kept; `remember` stores it, and
# `remembered` hands it out only for these inputs, and these outputs if they are given.


# %%
class Swished(NamedTuple):
    """What a forward pass leaves behind."""

    inputs: Any
    outputs: Any
    sigmoids: Any


class RememberingSwishLayer(SwishLayer):
    """Swish that computes its sigmoids once."""

    def fprop(self, inputs):
        """Return y, and remember sigmoid(beta x)."""
        s = sigmoid(self.beta * inputs)
        outputs = inputs * s
        self.remember(Swished(inputs, outputs, s))
        return outputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        s = self.remembered(Swished, inputs, outputs).sigmoids
        return grads_wrt_outputs * (s + self.beta * outputs * (1.0 - s))

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/d beta (1,)]."""
        _, outputs, s = self.remembered(Swished, inputs)
        return [(grads_wrt_outputs * inputs * outputs * (1.0 - s)).sum().reshape(1)]


check_gradients(RememberingSwishLayer(), (5, 4))

# %% [markdown]
# The same sequence of calls as above now ends in a sentence, not in a wrong gradient:

# %%
layer = RememberingSwishLayer()
y = layer.fprop(batch)
layer.fprop(other)
try:
    layer.bprop(batch, y, g)
except StaleStateError as error:
    print(f"StaleStateError: {error}")

# %% [markdown]
# Equal arrays are not enough: a copy is refused too, as the comparison is by identity, which costs nothing.
# What a caller changes *inside* these arrays is not seen. And only the last forward pass is kept, so a
# layer that is to be used twice before its backward pass must be two layers.
#
# **Exercise 3.** The randomised leaky ReLU (Xu et al. 2015) has a new random slope for every negative
# input:
#
# $$y = x \text{ where } x > 0, \qquad y = a x \text{ elsewhere}, \qquad
# a \sim U(\text{low}, \text{high}) \text{ in training.}$$
#
# In evaluation $a$ is the mean, $(\text{low} + \text{high}) / 2$. (The paper divides by its $a$.) The
# backward pass needs the very slopes of its forward pass: they must be remembered. It is checked with
# `check_gradients` in both modes, by the statistics of the slopes, and by a stale call. The solution is
# folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
class Slopes(NamedTuple):
    """What a forward pass leaves behind: dy/dx of every entry."""

    inputs: Any
    outputs: Any
    slopes: Any


class RandomReluLayer(StochasticLayer):
    """y = x where x > 0, else a x, with random a in training and the mean of a in evaluation."""

    def __init__(self, low=0.1, high=0.3, rng=None):
        super().__init__(rng)  # self.rng, a stream of random numbers
        self.low, self.high = low, high

    def fprop(self, inputs, stochastic=True):
        """Return y, of the inputs' shape; remember the slopes.

        In training (stochastic true) draw a slope for every entry with self.rng.uniform(low, high, size=...).
        """
        ### BEGIN SOLUTION
        slopes = 0.5 * (self.low + self.high)
        if stochastic:
            slopes = self.rng.uniform(self.low, self.high, size=inputs.shape)
        slopes = np.where(inputs.real > 0, 1.0, slopes)
        outputs = inputs * slopes
        self.remember(Slopes(inputs, outputs, slopes))
        return outputs
        ### END SOLUTION

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx, with the slopes of the forward pass of these inputs and outputs."""
        ### BEGIN SOLUTION
        return grads_wrt_outputs * self.remembered(Slopes, inputs, outputs).slopes
        ### END SOLUTION


# %% tags=["check"]
check_gradients(RandomReluLayer(), (5, 4))
check_gradients(RandomReluLayer(0.0, 1.0), (2, 3, 4, 4))
layer, ones = RandomReluLayer(0.1, 0.3, np.random.RandomState(0)), np.ones((100, 100))
drawn = -layer.fprop(-ones)
assert 0.1 <= drawn.min() < drawn.max() <= 0.3, "slopes in training must lie between low and high"
assert len(np.unique(drawn)) > 9_000, "every entry has a slope of its own in training"
assert np.allclose((drawn.mean(), drawn.std()), (0.2, 0.2 / 12**0.5), atol=0.01), "slopes must be uniform"
assert np.array_equal(layer.fprop(ones), ones), "positive inputs stay as they are"
assert np.allclose(layer.fprop(-ones, stochastic=False), -0.2), "in evaluation the slope is (low + high) / 2"
inputs = -ones
outputs = layer.fprop(inputs)
layer.fprop(ones)
try:
    layer.bprop(inputs, outputs, ones)
    raise AssertionError("a stale backward pass was answered: use self.remember and self.remembered")
except StaleStateError:
    print("Exercise 3: right")

# %% [markdown]
# ## What it costs
#
# `Engine`, which `Optimiser` uses, runs the layers that the library knows by *plans*, and your layer by its
# own passes between them. `profile` times every action of the plans; what is left of a training step is
# your layer's. A layer **without** parameters that treats examples one by one and remembers nothing may say
# `runs_in_shards = True`; then it runs inside the plans, a few images at a time while they are in the
# cache. SiLU, with $\beta$ fixed at 1, is one:


# %%
class SiluLayer(Layer):
    """y = x sigmoid(x), elementwise."""

    runs_in_shards = True

    def fprop(self, inputs):
        """Return y, of the inputs' shape."""
        return inputs * sigmoid(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        s = sigmoid(inputs)
        return grads_wrt_outputs * (s + outputs * (1.0 - s))


check_gradients(SiluLayer(), (5, 4))
points, targets = train[0][:500].astype(np.float32), train[1][:500].astype(np.float32)


def engine_for(nonlinearity):
    """Return an engine for a network with 256 units in each hidden layer, in float32."""
    return Engine(network(nonlinearity, width=256).astype(np.float32), CrossEntropySoftmaxError())


step = profile(engine_for(SiluLayer), points, targets, repeats=20)
for cost in step.merged()[:6]:
    share = 100 * cost.seconds / step.seconds
    print(f"{cost.what:32s} {1e6 * cost.seconds:6.0f} microseconds, {share:4.1f} % of a step")

# %% [markdown]
# The dearest actions of a training step with 500 points; `SiluLayer` appears as `Layer forward` and
# `Layer backward`, with the shape of an example's outputs. Now all four ways in turns, so that a busy
# moment of the machine meets all of them:

# %%
kinds = {
    "ReluLayer (library)": ReluLayer,
    "SiluLayer, runs in shards": SiluLayer,
    "RememberingSwishLayer": RememberingSwishLayer,
    "SwishLayer": SwishLayer,
}
engines = {name: engine_for(kind) for name, kind in kinds.items()}
whole, outside = {name: [] for name in kinds}, {name: [] for name in kinds}
for _ in range(15):
    for name, engine in engines.items():
        step = profile(engine, points, targets, repeats=5)
        whole[name].append(step.seconds)
        outside[name].append(step.seconds - sum(cost.seconds for cost in step.costs))

# %% [markdown]
# ## What we saw

# %%
figure, axes = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
relu_seconds = np.array(whole["ReluLayer (library)"])
for place, name in enumerate(kinds):
    low, middle, high = np.percentile(whole[name] / relu_seconds, (25, 50, 75))
    own = np.median(outside[name] / relu_seconds)
    axes.barh(place, middle - own, color=BLUE, height=0.6)
    axes.barh(place, own, left=middle - own, color=AMBER, height=0.6)
    axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color="black", capsize=4)
axes.set_yticks(range(len(kinds)), list(kinds))
axes.invert_yaxis()
axes.set_xlabel("time of a training step; with ReLU: 1")
axes.legend(["in plans", "outside plans"], frameon=False, loc="upper right")
plt.show()

# %% [markdown]
# The time of a training step with each nonlinearity, relative to the library's ReLU, one thread; the black
# lines are the quartiles of 15 rounds. Amber is what runs outside the plans: your layer's own passes, and a
# little Python. A layer that remembers spares two of three sigmoids; one that runs in shards has no amber
# part worth mentioning.
#
# - From formula to layer: derive, write `fprop`, `bprop`, `grads_wrt_params`, name the parameters, and let
#   `check_gradients` judge before anything is trained.
# - A parameter's gradient sums over everything that shares it. Mistakes that vanish at the start values 0
#   and 1 are found by moving off them.
# - A named parameter is trained, counted, saved and restored by the library without another line.
# - What the backward pass needs from the forward pass is bound to its arrays with `remember`; a
#   `StaleStateError` is a wrong gradient that did not happen.
#
# ## Further reading
#
# - P. Ramachandran, B. Zoph and Q. V. Le, *Searching for activation functions*, arXiv:1710.05941, 2017.
# - S. Elfwing, E. Uchibe and K. Doya, *Sigmoid-weighted linear units for neural network function
#   approximation in reinforcement learning*, Neural Networks 107, 2018, pages 3-11.
# - B. Xu, N. Wang, T. Chen and M. Li, *Empirical evaluation of rectified activations in convolutional
#   network*, arXiv:1505.00853, 2015.
# - The section *Write your own layer* of the README, and *The ideas* in `docs/architecture.md`.
