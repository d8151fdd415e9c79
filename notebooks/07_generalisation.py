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
# # Generalisation
#
# After this notebook you can
#
# - recognise overfitting in training and validation curves,
# - explain dropout, L1 and L2 penalties, label smoothing and augmentation by their formulas, and use the
#   library's,
# - say what each of them does to the weights, to the outputs, or to the data,
# - choose an augmentation that keeps the labels true,
# - stop a training early, and compare methods without fooling yourself.
#
# You need to know cross-entropy, softmax and gradient descent with momentum (notebook 6).

# %%
import matplotlib.pyplot as plt
import numpy as np

from mlp.data_providers import crop_and_flip, load_digits, load_shapes
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.initialisers import GlorotUniformInit
from mlp.layers import AffineLayer, DropoutLayer, ReluLayer
from mlp.learning_rules import MomentumLearningRule
from mlp.models import MultipleLayerModel
from mlp.optimisers import evaluate, train_step
from mlp.penalties import L1Penalty, L2Penalty

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## A task that invites overfitting
#
# A network **generalises** if it is as good on new data as on the data that it was trained on, and
# **overfits** as far as it is not. To see it clearly we take handwritten digits of 8 x 8 pixels, only 300
# of them to train, and give a fifth of these a wrong label, as careless labelling would. A network that has
# understood digits agrees with about four fifths of these labels. One that agrees with more has learnt some
# of the 300 by heart.
#
# 250 other digits, with right labels, are for validation: we look at them as often as we like. The test set
# is all the rest. It is looked at once, at the end.

# %%
digits = load_digits()
NUM_TRAIN, NUM_CLASSES = 300, 10


def images_of(part):
    """Return images (N, 8, 8, 1) of 0 to 1, float32; the data set holds each pixel as a block of 4 x 4."""
    return part.pixels[:, ::4, ::4, :1].astype(np.float32) / 255


images, labels = images_of(digits.train)[:NUM_TRAIN], digits.train.labels[:NUM_TRAIN].copy()
rng = np.random.default_rng(0)
wrong = rng.permutation(NUM_TRAIN)[: NUM_TRAIN // 5]
labels[wrong] = (labels[wrong] + rng.integers(1, NUM_CLASSES, len(wrong))) % NUM_CLASSES

valid_images, valid_labels = images_of(digits.valid), digits.valid.labels
test_images = np.concatenate([images_of(digits.test), images_of(digits.train)[NUM_TRAIN:]])
test_labels = np.concatenate([digits.test.labels, digits.train.labels[NUM_TRAIN:]])
print(f"{len(images)} to train, {len(valid_images)} to validate, {len(test_images)} to test")

figure, axes = plt.subplots(2, 12, figsize=(12, 2.6), layout="constrained")
is_wrong = np.isin(np.arange(NUM_TRAIN), wrong)
for i, axis in enumerate(axes.flat):
    axis.imshow(images[i, :, :, 0], cmap="gray_r")
    axis.set_title(labels[i], color=RED if is_wrong[i] else "black", fontsize=12)
    axis.axis("off")
plt.show()

# %% [markdown]
# *Two dozen training images with the labels that the network is told. The red ones are wrong.*
#
# The network has two hidden layers of 100 units, some 17,000 weights for 300 images. `train` runs 150
# epochs. It records error and accuracy after each, in evaluation mode, on the training images with the
# labels that they were given, and on the validation images. It keeps the weights of the epoch with the
# lowest validation error beside the last ones. Its options are the rest of this notebook.


# %%
NUM_EPOCHS, BATCH_SIZE = 150, 50
ERROR = CrossEntropySoftmaxError()


def make_model(incl_prob, penalty, rng):
    """Return the network; each hidden unit is kept with this probability while it is trained."""
    init, layers, width = GlorotUniformInit(rng=rng), [], 64
    for _ in range(2):
        layers += [AffineLayer(width, 100, init, None, penalty), ReluLayer()]
        layers += [DropoutLayer(rng, incl_prob, False, rescale=True)] if incl_prob < 1 else []
        width = 100
    layers += [AffineLayer(width, NUM_CLASSES, init, None, penalty)]
    return MultipleLayerModel(layers).astype(np.float32)


def flat(images):
    """Return images as rows."""
    return images.reshape(len(images), -1)


def scores(engine):
    """Return (error, accuracy in percent) on training images, then on validation images."""
    parts = ((images, labels), (valid_images, valid_labels))
    found = [evaluate(engine, [(flat(batch), targets)]) for batch, targets in parts]
    return [number for part in found for number in (part.loss, part.accuracy)]


# %%
def train(incl_prob=1.0, penalty=None, smoothing=0.0, augment=None, seed=0):
    """Return (history (epochs, 4), model with the last weights, weights of the best epoch).

    `augment(images, epoch)` returns the images of an epoch.
    """
    rng = np.random.RandomState(seed)
    model = make_model(incl_prob, penalty, rng)
    engine, rule = Engine(model, ERROR), MomentumLearningRule(0.03, mom_coeff=0.9)
    rule.initialise(engine.params)
    targets = (1 - smoothing) * np.eye(NUM_CLASSES)[labels] + smoothing / NUM_CLASSES
    history, best = [], []
    for epoch in range(NUM_EPOCHS):
        inputs = flat(augment(images, epoch) if augment else images)
        order = rng.permutation(NUM_TRAIN)
        for i in range(0, NUM_TRAIN, BATCH_SIZE):
            batch = order[i : i + BATCH_SIZE]
            train_step(engine, rule, inputs[batch], targets[batch].astype(np.float32))
        history.append(scores(engine))
        if history[-1][2] == min(row[2] for row in history):
            best = [param.copy() for param in engine.params]
    return np.array(history), model, best


# %%
def draw(ax_error, ax_accuracy, history, colour, name):
    """Draw training (dashed) and validation curves."""
    epochs = np.arange(1, len(history) + 1)
    for axis, column in ((ax_error, 0), (ax_accuracy, 1)):
        axis.plot(epochs, history[:, column], "--", color=colour, linewidth=1.3, label=f"{name}, training")
        axis.plot(epochs, history[:, column + 2], color=colour, linewidth=2, label=f"{name}, validation")
    ax_error.set(xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, 1.5))
    ax_accuracy.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(44, 102))


runs = {"plain": train()}
history = runs["plain"][0]
figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4), layout="constrained")
draw(left, right, history, BLUE, "plain")
best = history[:, 2].argmin() + 1
for axis in (left, right):
    label = f"lowest validation error (epoch {best})"
    axis.axvline(best, color=GREY, linewidth=1, linestyle=":", label=label)
right.axhline(80, color=AMBER, linewidth=1.5, label="share of right training labels")
left.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.12))
right.legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# *Left: the training error falls towards zero, while the validation error falls, turns, and rises. Right:
# at the turning point the network agrees with about as many training labels as are right. From there on it
# learns the wrong labels one by one, and pays for each with validation images that look like it.*
#
# The methods below are ways to have the first part without the second. Each is compared with this plain
# network.


# %%
def compare(name, *others):
    """Draw runs against the plain one."""
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 3.8), layout="constrained")
    draw(*axes, runs["plain"][0], "#b5b5b5", "plain")
    for other, colour in zip((name, *others), (BLUE, RED), strict=False):
        draw(*axes, runs[other][0], colour, other)
    axes[1].axhline(80, color=AMBER, linewidth=1.5)
    axes[1].legend(frameon=False, fontsize=8.5, loc="lower right")
    plt.show()


# %% [markdown]
# ## Dropout
#
# In every training step, each hidden unit is kept with probability $p$ and set to zero otherwise
# (Srivastava et al. 2014):
#
# $$y_i = \frac{m_i}{p}\, x_i, \qquad m_i \sim \text{Bernoulli}(p), \qquad
# \mathbb{E}[y_i] = \frac{p \cdot 1 + (1 - p) \cdot 0}{p}\, x_i = x_i .$$
#
# The division by $p$ keeps the mean, so in evaluation the layer does nothing, $y = x$. (This is *inverted*
# dropout. The library's `DropoutLayer` does not divide by default, the paper's and the coursework's
# convention, and multiplies by $p$ in evaluation instead; `rescale=True` gives the form above.) The
# gradient is that of a product with a constant:
# $\partial E / \partial x_i = (m_i / p)\, \partial E / \partial y_i$, with the same $m$.
#
# A unit cannot rely on another one being there, so what a training image needs must be spread over many
# units; and every step trains another one of the $2^{200}$ networks that can be had by leaving out units,
# all with the same weights. The network in evaluation mode stands for their average.
#
# **Exercise 1.** Write the forward pass of inverted dropout, with a draw of its own for every entry. The
# check looks at the values that occur, at how often, and at the mean. The solution is folded in the next
# cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def dropout(inputs, incl_prob, rng):
    """Return (outputs, factors), both of the inputs' shape: outputs = factors * inputs.

    Each entry is kept with probability `incl_prob`, a number in (0, 1]; `rng` is a `numpy.random.Generator`.
    """
    ### BEGIN SOLUTION
    factors = (rng.random(inputs.shape) < incl_prob) / incl_prob
    return factors * inputs, factors
    ### END SOLUTION


# %% tags=["check"]
x = np.random.default_rng(1).standard_normal((400, 300))
y, factors = dropout(x.copy(), 0.8, np.random.default_rng(2))
assert np.shape(factors) == x.shape, f"the factors have shape {np.shape(factors)}, expected {x.shape}"
assert np.allclose(y, factors * x), "outputs are not factors * inputs"
values = np.unique(factors)
assert len(values) == 2, f"the factors take {len(values)} values, expected 2: 0 and 1 / incl_prob"
assert np.allclose(values, [0, 1 / 0.8]), f"the factors are {values}, expected 0 and 1 / 0.8 = 1.25"
shares = (factors > 0).mean(axis=0)
assert 0 < shares.min() < shares.max() < 1, "examples share their draws: every entry needs one of its own"
kept = (factors > 0).mean()
assert abs(kept - 0.8) < 0.01, f"a share of {kept:.3f} is kept, expected about incl_prob = 0.8"
assert (dropout(x, 1.0, np.random.default_rng(3))[0] == x).all(), "incl_prob = 1 must change nothing"
print("Exercise 1: right")

# %%
runs["dropout"] = train(incl_prob=0.5)
compare("dropout")

# %% [markdown]
# *Dropout with $p = 0.5$ in both hidden layers. Learning by heart takes far longer (dashed), the validation
# error stays low, and the validation accuracy stays high. The training curves are measured in evaluation
# mode, without dropout.*
#
# ## Penalties on the weights
#
# A penalty is added to the error. It says that of two networks with the same error, the one with smaller
# weights is to be preferred. Its gradient is added to every step of gradient descent:
#
# $$\begin{aligned}
# \text{L2:} \quad & E + \tfrac{c}{2} \sum_i w_i^2, & w_i &\leftarrow w_i - \eta\, (g_i + c\, w_i)
# = (1 - \eta c)\, w_i - \eta\, g_i \\
# \text{L1:} \quad & E + c \sum_i |w_i|, & w_i &\leftarrow w_i - \eta\, g_i - \eta c\, \text{sign}(w_i)
# \end{aligned}$$
#
# L2 shrinks a weight by a *share* of itself: large ones are pulled hard, and none reaches zero. L1 shrinks
# all weights by the same *amount*: what the error does not defend against a pull of $c$ goes to zero. In
# the library a layer with parameters takes penalties, as in
# `AffineLayer(..., weights_penalty=L2Penalty(0.01))`; their gradients are added in `grads_wrt_params`. The
# reported error is without them.

# %%
runs["L2"] = train(penalty=L2Penalty(0.02))
runs["L1"] = train(penalty=L1Penalty(0.004))
compare("L2", "L1")

# %% [markdown]
# *Both penalties make it dear to learn a wrong label: the training accuracy stays near the share of right
# labels for much longer, or altogether, and the validation accuracy keeps more of its height. The price is
# an error that cannot fall far, in training and in validation: small weights make cautious outputs.*
#
# The two leave different weights behind:

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), sharey=True, layout="constrained")
for axis, name, colour in zip(axes, ("plain", "L2", "L1"), (GREY, BLUE, RED), strict=True):
    weights = np.concatenate([param.ravel() for param in runs[name][1].params if param.ndim == 2])
    small = 100 * (abs(weights) < 0.005).mean()
    axis.hist(weights, bins=np.linspace(-0.6, 0.6, 121), color=colour)
    axis.set(yscale="log", ylim=(0.8, 2e4), xlabel="weight")
    axis.set_title(f"{name}: {small:.0f} % within ±0.005", fontsize=11)
axes[0].set_ylabel("number of weights")
plt.show()

# %% [markdown]
# *The weights of all layers after training, on a logarithmic scale. Plain: a broad distribution. L2: all
# weights have been drawn in towards zero, the large ones most. L1: nearly all weights lie in the bins
# beside zero, and a few large ones do the work. (Gradient descent steps across zero and back, so they are
# small rather than exactly zero; the library's subgradient at zero is zero.)*
#
# ## Augmentation
#
# More data is the best cure. **Augmentation** makes new images out of old ones by changes that should not
# matter: it says which changes keep the label. The library's `crop_and_flip` is the usual one for
# photographs: pad with zeros, crop at a random place, and flip left and right or not, with probability one
# half. Every epoch sees another version.

# %%
shapes = load_shapes()
figure, axes = plt.subplots(5, 10, figsize=(12, 6.2), layout="constrained")
three, seven = (np.flatnonzero(digits.train.labels == digit)[0] for digit in (3, 7))
rows = [(shapes.train, 0), (shapes.train, 1), (shapes.train, 5), (digits.train, three), (digits.train, seven)]
for lines, (part, sample) in zip(axes, rows, strict=True):
    pixels, samples = part.pixels[sample : sample + 1], np.array([sample])
    versions = [pixels, *(crop_and_flip(pixels, samples, seed=0, epoch=epoch) for epoch in range(9))]
    for column, (axis, version) in enumerate(zip(lines, versions, strict=True)):
        axis.imshow(version[0])
        axis.set_title("original" if column == 0 else f"epoch {column}", fontsize=9)
        axis.axis("off")
plt.show()

# %% [markdown]
# *Each row is an image, with nine augmented versions of it. Above, three of the library's drawn shapes:
# every version could have been in the data set. Below, two digits: shifted they are still digits, but
# flipped they are none.*
#
# So for digits we take the shifts alone. `crop_and_flip` on 8 x 8 pixels, with a padding of 1, is trained
# for comparison.


# %%
def shift(images, epoch):
    """Return each image moved by -1, 0 or 1 pixels along both axes, with zeros coming in."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tops, lefts = np.random.default_rng([7, epoch]).integers(0, 3, (2, count))
    places = zip(range(count), tops, lefts, strict=True)
    return np.stack([padded[i, top : top + height, left : left + width] for i, top, left in places])


def shift_and_flip(images, epoch):
    """Return each image moved in the same way, and flipped or not."""
    return crop_and_flip(images, np.arange(len(images)), seed=7, epoch=epoch, padding=1)


runs["shifts"] = train(augment=shift)
runs["shifts and flips"] = train(augment=shift_and_flip)
compare("shifts", "shifts and flips")

# %% [markdown]
# *With shifts (blue) the network learns far more slowly by heart, as each epoch shows other images. With
# flips as well (red) it has to learn digits that do not exist, and is worse on those that do for most of
# the training: an augmentation is a claim about the data, and this one is false.*
#
# ## Label smoothing
#
# Cross-entropy with a target of exactly 1 is never content: the error can always be lowered by making the
# outputs larger. **Label smoothing** (Szegedy et al. 2016) asks for less. With $K$ classes and a one-hot
# row $t$, the target is
#
# $$t' = (1 - \alpha)\, t + \frac{\alpha}{K} .$$
#
# Cross-entropy is least where softmax$(z) = t'$, and there the outputs of the right class and of any other
# one differ by
#
# $$z_{\text{right}} - z_{\text{other}} = \ln \frac{1 - \alpha + \alpha / K}{\alpha / K}
# = \ln \frac{K (1 - \alpha) + \alpha}{\alpha},$$
#
# a finite number (for $\alpha \to 0$ it goes to infinity).
#
# **Exercise 2.** Write the smoothed targets. The check compares them with the formula, and tries them with
# the library's error. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def smooth_labels(labels, num_classes, alpha):
    """Return the targets t' (N, num_classes), floats, for whole-number labels (N,); alpha in [0, 1)."""
    ### BEGIN SOLUTION
    targets = np.full((len(labels), num_classes), alpha / num_classes)
    targets[np.arange(len(labels)), labels] += 1 - alpha
    return targets
    ### END SOLUTION


# %% tags=["check"]
t = smooth_labels(np.array([2, 0, 2, 1]), 4, 0.2)
assert np.shape(t) == (4, 4), f"the targets have shape {np.shape(t)}, expected (4, 4)"
assert np.allclose(t.sum(axis=1), 1), f"the rows sum to {t.sum(axis=1)}, expected 1"
assert (t.argmax(axis=1) == [2, 0, 2, 1]).all(), "the largest entry of a row is not at its label"
assert np.allclose(t[0], [0.05, 0.05, 0.85, 0.05]), f"the first row is {t[0]}, expected [0.05 0.05 0.85 0.05]"
assert (smooth_labels(np.array([1]), 3, 0.0) == [[0, 1, 0]]).all(), "with alpha = 0 the rows are one-hot"
least = CrossEntropySoftmaxError()(np.log(t), t)  # softmax(ln t') = t'
assert np.allclose(least, -(t * np.log(t)).sum() / 4), "the least cross-entropy is not the targets' entropy"
print("Exercise 2: right")

# %%
ALPHA = 0.2
runs["label smoothing"] = train(smoothing=ALPHA)
compare("label smoothing")
wanted = np.log((NUM_CLASSES * (1 - ALPHA) + ALPHA) / ALPHA)
for name in ("plain", "label smoothing"):
    engine = Engine(runs[name][1], ERROR)
    z, outputs = engine.predict(flat(images)), engine.predict(flat(valid_images))
    right_z = z[np.arange(NUM_TRAIN), labels]
    gap = (right_z - (z.sum(axis=1) - right_z) / (NUM_CLASSES - 1)).mean()
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    confidence = 100 * (shares.max(axis=1) / shares.sum(axis=1)).mean()
    accuracy = runs[name][0][-1, 3]
    print(f"{name:16} gap {gap:5.2f}; on validation images {confidence:.0f} % sure, {accuracy:.0f} % right")
print(f"{'by the formula':16} gap {wanted:5.2f}")

# %% [markdown]
# *The curves are cross-entropies with the labels as they are, not smoothed, so that they can be compared:
# the training error of the smoothed network (dashed blue) cannot fall below
# $-\ln(1 - \alpha + \alpha/K) \approx 0.20$ once its targets are met. It still learns all wrong labels, but
# less is asked of it for each, and the accuracy falls less. The printed lines show the gap between the
# output of an image's training label and the mean of the others, which comes close to the formula, and what
# it does to the largest probability: the plain network is surer of itself than it should be, the smoothed
# one less sure.*
#
# ## Early stopping
#
# The simplest cure is to stop. One keeps the weights with the lowest validation error so far, and stops
# once there has been no new lowest for a number of epochs, the **patience**.
#
# **Exercise 3.** Write the rule. The check tries it on made-up errors, and on the plain network's. The
# solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def early_stopping(errors, patience):
    """Return (best, last): the epoch whose weights are kept, and the last epoch that is trained, from 0.

    `errors` holds the validation error of each epoch. Training stops after an epoch `last` that is `patience`
    epochs after the best one so far (the first of equals), or at the end of `errors`.
    """
    ### BEGIN SOLUTION
    best = 0
    for epoch, error in enumerate(errors):
        if error < errors[best]:
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(errors) - 1
    ### END SOLUTION


# %% tags=["check"]
for errors, patience, expected in (
    ([5, 4, 3, 4, 5, 6], 2, (2, 4)),
    ([5, 4, 5, 3, 4, 4, 2], 2, (3, 5)),
    ([5, 4, 5, 3, 4, 4, 2], 3, (6, 6)),
    ([5, 4, 4, 4, 1], 2, (1, 3)),
    ([3, 2, 1], 5, (2, 2)),
    ([1, 2, 3, 0], 3, (3, 3)),
):
    got = early_stopping(errors, patience)
    assert got == expected, f"errors {errors}, patience {patience}: got {got}, expected {expected}"
best, last = early_stopping(list(runs["plain"][0][:, 2]), 20)
assert last - best == 20, f"the plain network: stopped {last - best} epochs after the best, expected 20"
print("Exercise 3: right")

# %%
PATIENCES = (1, 3, 10)
errors = runs["plain"][0][:, 2]
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.plot(np.arange(1, NUM_EPOCHS + 1), errors, color=BLUE, label="plain, validation error")
for patience, marker in zip(PATIENCES, "ovs", strict=True):
    lowest = np.minimum.accumulate(errors)
    first = np.array([np.flatnonzero(errors[: i + 1] == lowest[i])[0] for i in range(NUM_EPOCHS)])
    stops = np.flatnonzero(np.arange(NUM_EPOCHS) - first >= patience)
    kept = first[stops[0]] if len(stops) else first[-1]
    axis.plot(kept + 1, errors[kept], marker, color=RED, markersize=8, label=f"kept with patience {patience}")
axis.set(xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0.3, 1.0))
axis.legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# *The epoch whose weights are kept, for three patiences. Validation errors are noisy: who is impatient
# takes the first small bump for the turn.*
#
# ## What we saw
#
# Now the test set, once, for all of them. A single training says little: initial weights, order and dropout
# are random. So each method is trained with three seeds, and each network is tested twice: with its last
# weights, and with those of its epoch of lowest validation error.


# %%
def accuracy_on_test(model, params=None):
    """Return the accuracy on the test set in percent, with other weights if they are given."""
    if params is not None:
        model.params = params
    return evaluate(Engine(model, ERROR), [(flat(test_images), test_labels)]).accuracy


METHODS = {
    "plain": {},
    "dropout": {"incl_prob": 0.5},
    "L2": {"penalty": L2Penalty(0.02)},
    "L1": {"penalty": L1Penalty(0.004)},
    "shifts": {"augment": shift},
    "label smoothing": {"smoothing": ALPHA},
}
found = {}
for name, options in METHODS.items():
    trained = [runs[name], *(train(**options, seed=seed) for seed in (1, 2))]
    pairs = [(accuracy_on_test(model), accuracy_on_test(model, best)) for _, model, best in trained]
    found[name] = np.array(pairs)
    means = found[name].mean(axis=0)
    print(f"{name:16} last weights {means[0]:.1f} %, best epoch's {means[1]:.1f} %")

# %%
figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
for place, values in enumerate(found.values()):
    for column, colour in enumerate((RED, BLUE)):
        label = ("last epoch", "epoch of lowest validation error")[column] if place == 0 else None
        spot = place + 0.16 * (2 * column - 1)
        axis.plot([spot] * len(values), values[:, column], "o", color=colour, alpha=0.8, label=label)
        axis.hlines(values[:, column].mean(), spot - 0.12, spot + 0.12, color=colour, linewidth=2)
axis.set_xticks(range(len(found)), found)
axis.set(ylabel="test accuracy (%)")
axis.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# *Three networks a method (dots) and their mean (line): tested with the weights of the last epoch (red),
# and with those of the epoch of lowest validation error (blue).*
#
# - Trained to the end, the plain network loses about ten points of accuracy to 60 wrong labels. Every
#   method saves some of them.
# - Early stopping alone saves most of them, for nothing. Where one stops early, the other methods differ by
#   little more than the seeds do: with one seed each, any of several could have "won".
# - Dropout hides units, penalties shrink weights (L2 in proportion, L1 to zero), augmentation widens the
#   data, label smoothing bounds the outputs. They act in different places, so they can be combined.
# - An augmentation must be true of the data: shifts of digits are, flips are not.
# - Choose by validation, test once. A validation set that has chosen among many epochs and methods is no
#   longer new data.
#
# ## Further reading
#
# - N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, Dropout: a simple way to
#   prevent neural networks from overfitting, JMLR 15, 2014.
# - A. Krogh, J. A. Hertz, A simple weight decay can improve generalization, NIPS 1991.
# - R. Tibshirani, Regression shrinkage and selection via the lasso, Journal of the Royal Statistical
#   Society B 58(1), 1996.
# - C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, Rethinking the inception architecture for
#   computer vision, CVPR 2016, section 7 (label smoothing).
# - R. Müller, S. Kornblith, G. Hinton, When does label smoothing help?, NeurIPS 2019.
# - L. Prechelt, Early stopping - but when?, in: Neural networks: tricks of the trade, Springer 1998.
# - C. Zhang, S. Bengio, M. Hardt, B. Recht, O. Vinyals, Understanding deep learning requires rethinking
#   generalization, ICLR 2017.
