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
# # Why 38 layers do not learn
#
# After this notebook you can
#
# - show that a network of 38 layers fails where one of 8 layers succeeds, and that overfitting is not the
#   cause,
# - draw and read a gradient-flow figure, the report's figures 2 and 3,
# - derive by what factor a convolution and its activation shrink the gradient, and predict the gradient
#   after 36 of them,
# - explain why the forward pass dies of the same cause, and what the network then learns instead,
# - choose initial weights that let both passes through.
#
# You need to know backpropagation, convolutions, and how variances of independent numbers add up.

# %%
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from mlp.data_providers import ImageDataProvider, ImageSet, load_shapes
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.experiments.runner import Runner
from mlp.layers import Convolution2DLayer, LeakyReluLayer
from mlp.models import MultipleLayerModel, vgg08, vgg38
from mlp.plots import gradient_flow
from mlp.records import RunFolder

rng = np.random.default_rng(3)
BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## An easy task
#
# The report trains on CIFAR-100. Its effect does not need that much: here the images are the library's own
# `shapes`, drawn figures on a noisy background, reduced to 16 x 16 pixels by averaging 2 x 2. A label of
# `shapes` counts forms, colours and textures; we keep the colour alone, so there are 5 classes, equally
# frequent. 2000 images are for training and 1000 for validation.

# %%
COLOURS = ("red", "green", "blue", "yellow", "violet")


def reduced(images):
    """Return the images at half the size, with the colour, 0 to 4, as the label."""
    pixels = images.pixels.reshape(len(images.labels), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return ImageSet(np.rint(pixels).astype(np.uint8), images.labels // 4 % 5)


shapes = load_shapes()
parts = {name: reduced(getattr(shapes, name)) for name in ("train", "valid", "test")}
data = replace(shapes, **parts, class_names=COLOURS).limited(2000)
print("training images of each colour:", np.bincount(data.train.labels))

# %%
figure, axes = plt.subplots(2, 5, figsize=(8, 3.6), layout="constrained")
for colour in range(5):
    for row, image in enumerate(np.flatnonzero(data.train.labels == colour)[:2]):
        axes[row, colour].imshow(data.train.pixels[image])
        axes[row, colour].axis("off")
    axes[0, colour].set_title(COLOURS[colour])
plt.show()

# %% [markdown]
# Two images of each class, 16 x 16 pixels. The colour of the figure is the answer; its form, place, size
# and texture and the colour of the background are not.
#
# ## The two networks
#
# Both are the report's, with 16 instead of 32 filters in each convolution. VGG08 has an entry block, three
# reduction blocks that halve height and width, and an affine layer on the means of the last channels. VGG38
# has five processing blocks of two convolutions more before each reduction block. All else is the same.

# %%
small = vgg08(num_filters=16, num_classes=5, rng=np.random.default_rng(0))
large = vgg38(num_filters=16, num_classes=5, rng=np.random.default_rng(0))
for name, model in (("VGG08", small), ("VGG38", large)):
    layers = sum(type(layer).__name__ in ("Convolution2DLayer", "AffineLayer") for layer in model.layers)
    print(f"{name}: {layers} layers with weights, {sum(p.size for p in model.params):,} parameters")
print("a processing block of VGG38:", *large.layers[3:7], sep="\n    ")

# %% [markdown]
# VGG38 can represent all that VGG08 can: a processing block that passes its inputs on is nearly the
# identity. So it need not be worse, if training finds what there is to find.
#
# ## Training
#
# `mlp.experiments` has the report's experiments as dataclasses; a variant is a `replace`. Its `Runner`
# trains a model with Adam and cosine annealing and writes a run, which is a folder: here a temporary one, of
# which we keep two files, the metrics and the gradient flow.

# %%
EPOCHS = 8


def train(name, initialise=None):
    """Train an experiment on our data; return its metrics and gradient flow, rows of one epoch each."""
    changes = {"num_filters": 16, "learning_rate": 2e-3, "batch_size": 50, "epochs": EPOCHS}
    experiment = replace(EXPERIMENTS[name], dataset="shapes", **changes)
    with TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder), name)
        runner = Runner(experiment, data, run, "cpu", quiet=True)
        if initialise:
            initialise(runner.model)
        runner.run()
        return run.metrics(), run.gradient_flow()


metrics, flows = {}, {}
for name in ("vgg08", "vgg38"):
    metrics[name], flows[name] = train(name)
    last = metrics[name][-1]
    print(f"{name}: accuracy after {last.epoch} epochs: training {last.train_acc:.1f} %, ", end="")
    print(f"validation {last.val_acc:.1f} %")


# %%
def draw_curves(metrics, styles):
    """Draw error and accuracy of several runs against epochs, training dashed and validation solid."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for name, (label, colour) in styles.items():
        epochs = [row.epoch for row in metrics[name]]
        for panel, quantity in zip(axes, ("loss", "acc"), strict=True):
            for part, line in (("train", "--"), ("val", "-")):
                values = [getattr(row, f"{part}_{quantity}") for row in metrics[name]]
                text = f"{label}, {'training' if part == 'train' else 'validation'}"
                panel.plot(epochs, values, line, color=colour, marker="o", markersize=3.5, label=text)
    for panel, chance in zip(axes, (np.log(5), 20.0), strict=True):
        panel.axhline(chance, color=GREY, linewidth=1, linestyle=":")
        panel.set_xlabel("epoch")
    axes[0].text(EPOCHS, np.log(5) + 0.05, "guessing: ln 5", color=GREY, ha="right", fontsize=9)
    axes[1].text(EPOCHS, 14.0, "guessing: 20 %", color=GREY, ha="right", fontsize=9)
    axes[0].set(ylabel="cross-entropy error", ylim=(0, 1.8))
    axes[1].set(ylabel="accuracy (%)", ylim=(0, 102))
    axes[0].legend(frameon=False, fontsize=9)
    plt.show()


draw_curves(metrics, {"vgg08": ("VGG08", BLUE), "vgg38": ("VGG38", RED)})

# %% [markdown]
# Figure 1 of the report, in miniature. VGG08 learns. VGG38 stays where a network is that gives each of the
# 5 classes the probability 1/5, whatever the image: at an error of $\ln 5 \approx 1.61$ and an accuracy of
# 20 %. (In the report, with 100 classes, at $\ln 100 \approx 4.61$ and 1 %.)
#
# This is not overfitting: an overfitted network is good on its *training* data. This one has not learnt
# these either. It is the training that fails.
#
# ## Gradient flow
#
# Training follows the gradient, so we look at it. The report plots, for each array of weights $W$ in the
# order of the layers, the mean absolute gradient
#
# $$\frac{1}{|W|} \sum_{w \in W} \left| \frac{\partial E}{\partial w} \right|$$
#
# of the last mini-batch of every epoch; biases are left out.
#
# **Exercise 1.** Write the function that computes these means for one batch. It is checked against
# gradients found in another way, by the library's `Engine`. The solution is folded in the next cell; write
# your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def mean_absolute_gradients(model, images, labels):
    """Return {layer name: mean |dE/dw|} of one batch in training mode, in the order of the layers.

    images (N, C, H, W), labels (N,) whole numbers, E the CrossEntropySoftmaxError. model.fprop(images)
    returns all activations, the outputs last; error.grad(outputs, labels) is dE/d outputs; and
    model.grads_wrt_params(activations, grads) gives a list of arrays, in the order of model.param_keys(),
    whose entries are (layer name, parameter name, whether it is a bias or another offset). Leave the
    offsets out.
    """
    ### BEGIN SOLUTION
    activations = model.fprop(images)
    upstream = CrossEntropySoftmaxError().grad(activations[-1], labels)
    grads = model.grads_wrt_params(activations, upstream)
    return {
        layer: float(np.abs(grad).mean())
        for (layer, _, is_offset), grad in zip(model.param_keys(), grads, strict=True)
        if not is_offset
    }
    ### END SOLUTION


# %% tags=["check"]
provider = ImageDataProvider(data.train, 50, data.mean, data.std)
images, labels = provider.batch(0, 0)
found = mean_absolute_gradients(small, images, labels)
names = ["input_conv_conv_0", "input_conv_bn_0"]
names += [f"reduction_block_{stage}_conv_{conv}" for stage in range(3) for conv in range(2)]
names += ["logit_linear_layer"]
assert list(found) == names, f"the layers are {list(found)}, expected {names}"
step = Engine(small, CrossEntropySoftmaxError()).forward_backward(images, labels)
keys = dict(zip([key[:2] for key in small.param_keys()], step.grads, strict=True))
for name, key in zip(names, ["kernels", "gamma", *["kernels"] * 6, "weights"], strict=True):
    grad = keys[name, key]
    assert not np.isclose(found[name], abs(grad.mean())), f"{name}: take the mean of |g|, not |mean of g|"
    assert not np.isclose(found[name], np.abs(grad).sum()), f"{name}: this is the sum, expected the mean"
    expected = np.abs(grad).mean()
    assert np.isclose(found[name], expected, rtol=1e-3), f"{name}: {found[name]:.3e}, expected {expected:.3e}"
print("Exercise 1: right")

# %% [markdown]
# The runs have written the same numbers into their records, and `mlp.plots` draws them: above on a linear
# scale, as in the report, and below on a logarithmic one.

# %%
gradient_flow(flows["vgg08"], "VGG08: gradient flow")

# %% [markdown]
# Figure 2 of the report, VGG08, from the input on the left to the output on the right. In every epoch the
# gradients of all layers lie within about two powers of ten.

# %%
gradient_flow(flows["vgg38"], "VGG38: gradient flow")

# %% [markdown]
# Figure 3 of the report, VGG38. On the linear scale only the last layers have a gradient. The logarithmic
# one shows stairs: flat steps, with several powers of ten between one and the next, down to less than
# $10^{-16}$ at the input. (The second value is the batch normalisation of the entry block, which both
# networks have.)
#
# Two questions. Why so small? And why *flat* between the steps: should a gradient that shrinks from layer to
# layer not fall steadily on its way to the input?
#
# ## A product of Jacobians
#
# Let $a_l$ be the outputs of layer $l$ and $\delta_l = \partial E / \partial a_l$. With the Jacobian
# $J_l = \partial a_l / \partial a_{l-1}$ the chain rule says
#
# $$\delta_{l-1} = J_l^\top \delta_l , \qquad
# \delta_l = J_{l+1}^\top J_{l+2}^\top \cdots J_L^\top \delta_L .$$
#
# What a layer makes of the *size* of $\delta$ is its **gain**. We measure size by the root mean square, RMS.
# The gains multiply: 36 gains of 0.4 make $0.4^{36} \approx 5 \cdot 10^{-15}$, and 36 gains of 1.5 make
# $2 \cdot 10^6$.
#
# **The gain of a convolution.** Number $c$ of the channels below, at pixel $p$, is fed by all $K$ channels
# above at the 9 pixels $p - q$ around it:
#
# $$\delta^{\text{in}}_{c,p} = \sum_{k=1}^{K} \sum_{q} w_{k,c,q}\, \delta^{\text{out}}_{k,p-q} .$$
#
# The initial weights are independent, with mean 0 and variance $\sigma^2$. So the mean over all possible
# weights of the square has no mixed terms,
#
# $$\mathbb{E}\big[(\delta^{\text{in}}_{c,p})^2\big]
# = \sigma^2 \sum_{k,q} (\delta^{\text{out}}_{k,p-q})^2
# \qquad\Longrightarrow\qquad \text{gain}^2 = 9 K \sigma^2 \quad \text{(in the interior)} .$$
#
# At the border some of the 9 pixels do not exist. Of $s \times s$ pixels with 9 neighbours each, a share
# $\big(\frac{3s - 2}{3s}\big)^2$ does, which is 0.92 for $s = 16$, and 0.69 for $s = 4$.
#
# **The gain of LeakyReLU.** The slope is 1 or $\alpha = 0.01$. Where half of the inputs are negative, the
# mean square slope is $\frac{1 + \alpha^2}{2}$.
#
# **The initial weights** are the report's, PyTorch's default: uniform in $\pm 1 / \sqrt{\text{fan-in}}$ with
# the fan-in $9 C$, the number of inputs of one output. A uniform number in $\pm b$ has the variance
# $b^2 / 3$, so $\sigma^2 = \frac{1}{27\, C}$. With as many channels above as
# below, $K = C$, both together have in the interior
#
# $$\text{gain} = \sqrt{9 K \cdot \frac{1}{27\, C} \cdot \frac{1 + \alpha^2}{2}}
# = \sqrt{\frac{1 + \alpha^2}{6}} \approx 0.41 .$$
#
# **Exercise 2.** Put this together for any number of channels, bound and size. It is checked on convolutions
# of random weights. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def predicted_gain(num_output_channels, bound, size, alpha=0.01):
    """Return the RMS gain, backward, of a 3x3 convolution followed by LeakyReLU(alpha).

    The weights are uniform in +-bound, the images are size x size with a frame of zeros one pixel wide, and
    half of the activation's inputs are negative. The borders are taken into account.
    """
    ### BEGIN SOLUTION
    variance = bound**2 / 3.0
    inside = ((3 * size - 2) / (3 * size)) ** 2
    return np.sqrt(9 * num_output_channels * variance * inside * (1 + alpha**2) / 2)
    ### END SOLUTION


# %% tags=["check"]
def measured_gain(num_inputs, num_outputs, bound, size, alpha):
    """Return the RMS gain, backward, of one convolution and its activation, mean of 40 draws of weights."""
    ratios = []
    for draw in range(40):
        generator = np.random.default_rng(draw)
        conv = Convolution2DLayer(num_inputs, num_outputs, 3, padding=1, bias=False)
        conv.params = [generator.uniform(-bound, bound, conv.kernels.shape)]
        model = MultipleLayerModel([conv, LeakyReluLayer(alpha)])
        activations = model.fprop(generator.standard_normal((4, num_inputs, size, size)))
        upstream = generator.standard_normal(activations[-1].shape)
        ratios.append((model.bprop(activations, upstream)[0] ** 2).mean() / (upstream**2).mean())
    return np.sqrt(np.mean(ratios))


cases = [(16, 16, 1 / 12, 16, 0.01), (8, 24, 0.2, 12, 0.01), (16, 16, 0.1, 3, 0.01), (16, 16, 0.1, 12, 0.5)]
for case in cases:
    expected, got = measured_gain(*case), predicted_gain(*case[1:])
    text = "{} channels in, {} out, bound {:.3g}, size {}, alpha {}".format(*case)
    assert abs(got / expected - 1) < 0.04, f"{text}: gain {got:.3f}, and {expected:.3f} was measured"
print("Exercise 2: right")

# %% [markdown]
# ## The product, measured
#
# Now the whole of VGG38, at its initial weights and in float64. We walk backward layer by layer and note
# the size of $\delta$. Beside it stands the prediction, a product of the gains that we derived, and of three
# more: an average pool of 2 x 2 gives every pixel a quarter of the gradient (gain 1/4), the last one over
# 2 x 2 pixels too, and the affine layer has $\sqrt{5 \cdot \frac{1}{3 \cdot 16}}$.


# %%
def rms(x):
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def walk_back(model, images, labels):
    """Return the activations and, for each of them, dE/d activation."""
    activations = model.fprop(images)
    deltas = [CrossEntropySoftmaxError().grad(activations[-1], labels)]
    for i in reversed(range(len(model.layers))):
        deltas.insert(0, model.layers[i].backprop(activations[i], activations[i + 1], deltas[0])[0])
    return activations, deltas


images, labels = ImageDataProvider(data.train, 100, data.mean, data.std).batch(0, 0)
images = images.astype(np.float64)
activations, deltas = walk_back(large.astype(np.float64), images, labels)
kinds = [type(layer).__name__ for layer in large.layers]
after_activation = [i + 1 for i, kind in enumerate(kinds) if kind == "LeakyReluLayer"]
print(f"RMS of dE/d a: outputs {rms(deltas[-1]):.1e}, entry block {rms(deltas[after_activation[0]]):.1e}")


# %%
def predicted_square_gain(i):
    """Return the mean square gain of layer i of VGG38, backward, by the formulas above."""
    kind, size = kinds[i], activations[i].shape[-1]
    if kind == "Convolution2DLayer":
        return 1.0 / 3.0 * ((3 * size - 2) / (3 * size)) ** 2
    if kind == "LeakyReluLayer":
        return (1.0 + 0.01**2) / 2.0
    return 5 / 48 if kind == "AffineLayer" else 1 / 16  # a pool of 2 x 2


predicted = [rms(deltas[-1])]
for i in reversed(range(after_activation[0], len(kinds))):
    predicted.insert(0, predicted[0] * np.sqrt(predicted_square_gain(i)))
predicted = dict(zip(range(after_activation[0], len(kinds) + 1), predicted, strict=True))
sizes = [rms(deltas[i]) for i in after_activation]
gains = [below / above for below, above in pairwise(sizes)]

# %%
figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.5, 5.6), sharex=True, layout="constrained")
blocks = np.arange(len(after_activation))
top.bar(blocks[:-1] + 0.5, gains, width=0.8, color=BLUE, label="measured")
ratios = [predicted[a] / predicted[b] for a, b in pairwise(after_activation)]
top.plot(blocks[:-1] + 0.5, ratios, "_", color=AMBER, markersize=12, markeredgewidth=2.5, label="predicted")
top.set(ylabel="gain, backward", ylim=(0, 1.1))
top.axhline(1.0, color=GREY, linewidth=1, linestyle=":")
top.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0.0, 0.93))
bottom.semilogy(blocks, sizes, "o-", color=BLUE, markersize=4, label="measured")
bottom.semilogy(blocks, [predicted[i] for i in after_activation], "--", color=AMBER, label="predicted")
bottom.set(ylabel=r"RMS of $\partial E / \partial a_l$")
bottom.set_xlabel("outputs of convolution $l$ and its activation (0: entry block, nearest to the input)")
bottom.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# Above, the gain from one activation down to the one below, about 0.4; the three lowest bars have an
# average pool in between. Below, their product, from the right to the left: on the logarithmic scale nearly
# straight, as the formula says. So much for the size. But this line falls steadily, and the gradients of
# the weights are flat in steps.
#
# ## Forward, the same
#
# The gradient of a weight has a second factor. For a convolution
#
# $$\frac{\partial E}{\partial w_{k,c,q}}
# = \sum_{n,p} \delta^{\text{out}}_{n,k,p}\, a^{\text{in}}_{n,c,p+q} :$$
#
# what comes from above times what comes from below. For the forward pass the same argument gives
# $\text{gain}^2 = 9 C \sigma^2 \cdot \frac{1 + \alpha^2}{2}$ (fan-in in the place of fan-out), the same
# number here. So going up by one layer, $a$ shrinks by 0.41 and $\delta$ grows by $1 / 0.41$. Their product
# stays: the flat steps.
#
# The jumps are the reduction blocks. Their convolutions have biases, of size $1 / \sqrt{3 \cdot 144} = 0.05$,
# from which a dying $a$ starts anew. Look at what starts there: a bias is the same for every image.

# %%
spread = [rms(activations[i] - activations[i].mean(axis=0)) for i in after_activation]
size = [rms(activations[i]) for i in after_activation]
figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
axes.semilogy(blocks, size, "o-", color=BLUE, markersize=4, label="activations: RMS")
axes.semilogy(blocks, spread, "s-", color=RED, markersize=4, label="differences between images: RMS")
precision = np.finfo(np.float32).eps / 2.0
axes.semilogy(blocks, precision * np.array(size), ":", color=GREY, label="rounding error of float32")
for block in (10.5, 22.5, 34.5):
    axes.axvspan(block, block + 2, color=GREY, alpha=0.12, linewidth=0)
    axes.text(block + 1, 4.0, "reduction", color=GREY, ha="center", fontsize=9)
axes.set(xlabel="convolution $l$ and its activation (0: entry block)", ylabel="$a_l$", ylim=(1e-19, 40))
axes.legend(frameon=False, loc="lower left")
plt.show()

# %% [markdown]
# The activations (blue) fall by 0.41 a layer and are lifted by the biases of the reduction blocks. What they
# say of the image, their deviation from the mean over the batch (red), only ever falls. From the second
# reduction block on it is smaller than the rounding error of float32 in the activations that carry it
# (dotted): in float32 it no longer exists.

# %%
for model, name in ((small, "VGG08"), (large, "VGG38")):
    outputs = model.fprop(images.astype(np.float32))[-1]
    print(f"{name}: between 100 images the outputs differ by up to {np.ptp(outputs, axis=0).max():.1e}")

# %% [markdown]
# VGG08 starts with small differences between images, VGG38 with none. A network whose outputs are the same
# for every image can learn one distribution for all, and the best one is how frequent the classes are: here
# 1/5 each, an error of $\ln 5$. This it does learn, by the affine layer on top. Adam divides a gradient by
# its size and so does not mind small ones, but not those below its $\epsilon = 10^{-8}$; and no rule can
# make a direction out of information that is not there.
#
# ## Initial weights
#
# The derivation also says what to do. Both gains are 1 if
#
# $$9\, C\, \sigma^2 \cdot \frac{1 + \alpha^2}{2} = 1
# \qquad\Longrightarrow\qquad \sigma^2 = \frac{2}{(1 + \alpha^2)\, \text{fan-in}} ,$$
#
# six times the variance of the default: the initialisation of He et al. (2015). (The gain backward has the
# fan-out $9K$ in its place. They are equal in all but the entry and the affine layer, and each network has
# only one of these.)
#
# **Exercise 3.** Write it. It is checked by its mean and variance, and by 30 convolutions in a row. The
# solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def he_normal(shape, generator, alpha=0.01):
    """Return normal random weights whose layer, with LeakyReLU(alpha) behind it, has a forward gain of 1.

    shape is (outputs, inputs) of an affine layer or (K, C, KH, KW) of a convolution; the fan-in is the
    product of all axes but the first. Draw with generator.standard_normal(shape).
    """
    ### BEGIN SOLUTION
    fan_in = np.prod(shape[1:])
    return generator.standard_normal(shape) * np.sqrt(2.0 / ((1.0 + alpha**2) * fan_in))
    ### END SOLUTION


# %% tags=["check"]
for shape, alpha in [((200, 300), 0.01), ((40, 30, 3, 3), 0.01), ((30, 40, 5, 3), 0.5)]:
    weights = he_normal(shape, np.random.default_rng(0), alpha)
    assert weights.shape == shape, f"the weights have shape {weights.shape}, expected {shape}"
    std = np.sqrt(2 / (1 + alpha**2) / np.prod(shape[1:]))
    assert abs(weights.mean()) < std / 20, f"{shape}: the mean is {weights.mean():.2g}, expected about 0"
    text = f"{shape}, alpha {alpha}: standard deviation {weights.std():.4f}, expected about {std:.4f}"
    assert abs(weights.std() / std - 1) < 0.03, text
x, generator = np.random.default_rng(1).standard_normal((4, 32, 12, 12)), np.random.default_rng(2)
start = rms(x)
for _ in range(30):
    conv = Convolution2DLayer(32, 32, 3, padding=1, bias=False)
    conv.params = [he_normal(conv.kernels.shape, generator)]
    x = LeakyReluLayer().fprop(conv.fprop(x))
assert 0.01 < rms(x) / start < 10, f"30 layers multiply the RMS by {rms(x) / start:.1e}"
print("Exercise 3: right")


# %% [markdown]
# How much does it matter to hit the variance? We multiply the default's weights by one factor in all
# convolutions of VGG38 and look at the gradient of the first convolution and at what the outputs tell of the
# image.


# %%
def scaled(model, factor):
    """Return a copy of a model, in float64, with the kernels of all convolutions times a factor."""
    model = model.astype(np.float64)
    for (_, key, _), parameter in zip(model.param_keys(), model.params, strict=True):
        if key == "kernels":
            parameter *= factor
    return model


factors = np.geomspace(0.5, 8.0, 17)
first, told = [], []
for factor in factors:
    model = scaled(large, factor)
    step = Engine(model, CrossEntropySoftmaxError()).forward_backward(images, labels)
    first.append(np.abs(step.grads[0]).mean())
    told.append(rms(step.outputs - step.outputs.mean(axis=0)) / rms(step.outputs))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.0), layout="constrained")
left.loglog(factors, first, "o-", color=BLUE, markersize=4)
left.set_ylabel(r"first convolution: mean $|\partial E / \partial w|$")
right.loglog(factors, told, "o-", color=RED, markersize=4)
right.axhline(precision, color=GREY, linestyle=":", linewidth=1)
right.text(0.5, 1.3 * precision, "float32", color=GREY, va="bottom", fontsize=9)
right.set_ylabel("outputs: differences / RMS")
for axes in (left, right):
    axes.set_xlabel("factor on the default's weights")
    axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    for place, text, colour in ((1.0, "default", AMBER), (np.sqrt(6 / (1 + 0.01**2)), "He", TEAL)):
        axes.axvline(place, color=colour, linewidth=1.2, linestyle="--")
        axes.text(place, 1.01, text, color=colour, ha="center", transform=axes.get_xaxis_transform())
plt.show()

# %% [markdown]
# Left: each doubling of the weights multiplies the gradient by about $2^{36}$, as 36 convolutions stand above
# the first. The default lies far in the region where it vanishes; twice He's weights are in the one where it
# explodes. Right: the differences between images (RMS of the deviation from the batch's mean), as a share of
# the outputs. At the default they are below the rounding error of float64, in which this is computed, and at
# He's weights well above that of float32 (dotted). (They get as large as the outputs a little further to the
# right: borders and pooling shrink too, which the formula for $\sigma^2$ leaves out.)
#
# Does the same network, with the same training, learn from other initial weights? Only the kernels of the
# convolutions are drawn anew, with the variance of exercise 3:


# %%
def he_kernels(model):
    """Draw the kernels of all convolutions anew, in place, with the variance 2 / ((1 + 0.01^2) fan-in)."""
    generator = np.random.default_rng(0)
    for (_, key, _), parameter in zip(model.param_keys(), model.params, strict=True):
        if key == "kernels":
            fan_in = parameter[0].size
            parameter[...] = np.sqrt(2 / (1 + 0.01**2) / fan_in) * generator.standard_normal(parameter.shape)


metrics["he"], flows["he"] = train("vgg38", he_kernels)
runs = {"vgg08": ("VGG08", BLUE), "vgg38": ("VGG38", RED), "he": ("VGG38, He's weights", TEAL)}
draw_curves(metrics, {name: runs[name] for name in ("vgg38", "he")})

# %% [markdown]
# With He's initial weights (teal) VGG38 leaves the plateau and learns. But initial weights set the gains at
# the start only. The report's two cures act all the time, and are the subjects of the next two notebooks:
# *batch normalisation* brings the activations back to one size in every layer and step, and *residual
# connections* add the identity to the Jacobian of every block.
#
# ## What we saw
#
# The gradient flow of the first epoch, all three networks on one scale. To compare 8 and 38 layers, the
# place of a layer is given as its share of the depth:

# %%
figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
for name, (label, colour) in runs.items():
    rows = [row for row in flows[name] if row.epoch == 1 and "bn" not in row.layer]
    values = [row.mean_abs_gradient for row in rows]
    axes.semilogy(np.linspace(0, 1, len(rows)), values, "o-", color=colour, markersize=4, label=label)
axes.set_xlabel("depth (0: first convolution, 1: affine layer on top)")
axes.set_ylabel(r"mean $|\partial E / \partial w|$, epoch 1")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# VGG08 and VGG38 with He's weights have gradients of one size in all layers; VGG38 with default weights lies
# many orders of magnitude below, in three steps.
#
# - The gradient is a product of Jacobians. With the default's initial weights each convolution and its
#   activation multiply it by about 0.41; 36 of them, with pools and borders, by less than $10^{-15}$.
# - The forward pass has the same gain. What the activations tell of the image is lost to rounding before it
#   reaches the outputs, and the network learns the frequencies of the classes.
# - A weight's gradient is a product of both, so it is flat between the reduction blocks, whose biases start
#   the activations anew.
# - It is no overfitting: the training error does not fall.
# - A variance of 2 / fan-in makes both gains 1, and the same network learns. Between vanishing and explosion
#   lies a factor of a few in the weights, the narrower the deeper the network.
#
# To see the report's own experiment: `python -m mlp.experiments vgg38` trains on CIFAR-100.
#
# ## Further reading
#
# - X. Glorot and Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
#   AISTATS 2010: the variances of both passes.
# - K. He, X. Zhang, S. Ren and J. Sun, *Delving deep into rectifiers: surpassing human-level performance on
#   ImageNet classification*, ICCV 2015, section 2.2: the same with rectifiers.
# - S. S. Schoenholz, J. Gilmer, S. Ganguli and J. Sohl-Dickstein, *Deep information propagation*, ICLR 2017:
#   how deep a signal reaches.
# - K. Simonyan and A. Zisserman, *Very deep convolutional networks for large-scale image recognition*, ICLR
#   2015: the networks' model.
