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
# # Optimisers and schedules
#
# After this notebook you can
#
# - derive for which learning rates gradient descent converges in a valley, and why momentum helps there,
# - write down the updates of momentum, Nesterov's momentum, AdaGrad, RMSProp, Adam and AdamW, and say what
#   each adds to the one before,
# - explain what Adam's bias correction corrects, and why a penalty inside Adam is not weight decay,
# - say what a decreasing learning rate is for, and draw cosine annealing with warm restarts,
# - find a good learning rate for a network with a range test.
#
# You need to know gradients, eigenvalues of a symmetric matrix, and what a mini-batch is.

# %%
import matplotlib.pyplot as plt
import numpy as np

from mlp.data_providers import DataProvider, load_digits
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.initialisers import GlorotUniformInit
from mlp.layers import AffineLayer, ReluLayer
from mlp.learning_rules import (
    AdaGradLearningRule,
    AdamLearningRule,
    AdamLearningRuleWithWeightDecay,
    GradientDescentLearningRule,
    KingmaAdamLearningRule,
    MomentumLearningRule,
    NesterovMomentumLearningRule,
    RMSPropLearningRule,
)
from mlp.models import MultipleLayerModel
from mlp.optimisers import evaluate, train_step
from mlp.schedulers import CosineAnnealing, CosineAnnealingWithWarmRestarts

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## A valley
#
# Near a minimum $c$ every smooth error is close to a quadratic function,
#
# $$E(p) = \tfrac12 (p - c)^\top H (p - c), \qquad \nabla E(p) = H (p - c),$$
#
# with the Hessian $H$, whose eigenvalues $\lambda_i > 0$ are the curvatures along its eigenvectors. Ours
# has two parameters and the curvatures 1 and 25: a valley, flat along and steep across. Real errors are
# like it, with many more directions and far larger ratios.
#
# A learning rule of the library keeps a list of parameters, and `update_params` changes them in place,
# given their gradients. This is all that is needed to follow one:

# %%
HESSIAN, MINIMUM, START = np.diag([1.0, 25.0]), np.array([1.0, 0.5]), np.array([-2.0, 1.3])


def error(points, hessian=HESSIAN):
    """Return E for points (..., 2)."""
    offsets = points - MINIMUM
    return 0.5 * np.einsum("...i,ij,...j->...", offsets, hessian, offsets)


def path(rule, num_steps, hessian=HESSIAN, start=START):
    """Return the points (num_steps + 1, 2) that a learning rule visits."""
    point = start.copy()
    rule.initialise([point])
    points = [point.copy()]
    for _ in range(num_steps):
        rule.update_params([hessian @ (point - MINIMUM)])
        points.append(point.copy())
    return np.array(points)


def draw_path(axis, points, colour, hessian=HESSIAN):
    """Draw the contours of E, its minimum, and a path."""
    p1, p2 = np.meshgrid(np.linspace(-2.6, 2.4, 200), np.linspace(-2.0, 2.4, 200))
    values = error(np.stack([p1, p2], axis=-1), hessian)
    axis.contour(p1, p2, values, levels=np.geomspace(0.05, 40, 9), colors="#c9c9c9", linewidths=0.8)
    axis.plot(*points.T, ".-", color=colour, markersize=4, linewidth=1.2)
    axis.plot(*MINIMUM, "+", color="black", markersize=11, zorder=3)
    axis.set(xlim=(-2.6, 2.4), ylim=(-0.9, 1.9), xlabel="$p_1$")


# %% [markdown]
# ## Gradient descent and its limit
#
# **The rule.** Of all small steps, take the best one for the first-order model of $E$, where "small" costs
# $\lVert \Delta \rVert^2 / 2\eta$:
#
# $$\Delta = \arg\min_\Delta \; g^\top \Delta + \frac{\lVert \Delta \rVert^2}{2 \eta} = -\eta\, g,
# \qquad p \leftarrow p - \eta\, g, \qquad g = \nabla E(p).$$
#
# **In the valley.** Along an eigenvector with curvature $\lambda$, the offset $d$ from the minimum has the
# gradient $\lambda d$, so
#
# $$d_{t+1} = (1 - \eta\lambda)\, d_t .$$
#
# It shrinks if and only if $|1 - \eta\lambda| < 1$, that is $\eta < 2/\lambda$. The steepest direction sets
# the limit, $\eta < 2/\lambda_{\max} = 0.08$, and the flattest one pays for it: its factor stays above
# $1 - 2\lambda_{\min} / \lambda_{\max}$. The slower of the two is fastest where
# $1 - \eta\lambda_{\min} = \eta\lambda_{\max} - 1$, at $\eta = 2 / (\lambda_{\min} + \lambda_{\max})$, with
# the factor $(\kappa - 1)/(\kappa + 1)$, $\kappa = \lambda_{\max} / \lambda_{\min}$ being the condition
# number.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True, layout="constrained")
for axis, rate, colour in zip(axes, (0.02, 2 / 26, 0.0815), (BLUE, TEAL, RED), strict=True):
    points = path(GradientDescentLearningRule(rate), 30)
    draw_path(axis, points, colour)
    factors = "  and  ".join(f"${1 - rate * curvature:.2f}$" for curvature in (1, 25))
    axis.set_title(f"$\\eta$ = {rate:.4f}: factors {factors}", fontsize=11)
axes[0].set_ylabel("$p_2$")
plt.show()

# %% [markdown]
# *Thirty steps of gradient descent from the same point (+: the minimum). Left: a small rate comes down the
# steep side at once and then creeps along the valley. Middle: the best rate swings from side to side, and
# both directions shrink by the same factor. Right: just beyond 0.08 the steep direction's factor is below
# -1, and the path swings further and further out.*
#
# ## Momentum
#
# **The rule.** Keep a velocity $m$, which a share $\mu$ of survives a step:
#
# $$m \leftarrow \mu\, m - \eta\, g, \qquad p \leftarrow p + m, \qquad\text{so}\quad
# m_t = -\eta \sum_{s \le t} \mu^{\,t-s} g_s .$$
#
# Where gradients agree, the sum grows towards $-\eta g / (1 - \mu)$, as if the rate were $1/(1-\mu)$ times
# larger. Where they alternate in sign, across the valley, they cancel.
#
# **In the valley.** Put $m_t = d_t - d_{t-1}$ into the rule:
# $d_{t+1} = (1 + \mu - \eta\lambda)\, d_t - \mu\, d_{t-1}$, a linear recurrence. Solutions are combinations
# of $z^t$ for the two roots of
#
# $$z^2 - (1 + \mu - \eta\lambda)\, z + \mu = 0 .$$
#
# The roots' product is $\mu$. If they are complex, they are conjugates, so each has the modulus $\sqrt\mu$:
# *all* directions whose roots are complex shrink by the same factor $\sqrt\mu$ a step, on average, whatever
# their curvature. With the best $\eta$ and $\mu$ that factor is $(\sqrt\kappa - 1)/(\sqrt\kappa + 1)$
# (Polyak 1964): the square root of the condition number takes the place of the condition number.
#
# **Nesterov's momentum** takes the gradient where the velocity is about to carry the point:
#
# $$m' = \mu\, m - \eta\, \nabla E(p + \mu m), \qquad p' = p + m' .$$
#
# A learning rule is given the gradient at the point that it keeps. So it keeps the point looked ahead to,
# $q = p + \mu m$:
#
# $$m' = \mu\, m - \eta\, \nabla E(q), \qquad
# q' = p' + \mu m' = p + m' + \mu m' = q - \mu m + (1 + \mu)\, m' .$$
#
# **Exercise 1.** Write one step of Nesterov's momentum in this second form. The check compares forty steps
# with the library's rule, and with the first form. The solution is folded in the next cell; write your own
# first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def nesterov_step(point, velocity, gradient, rate, momentum):
    """Return the new (point, velocity) of Nesterov's momentum, as new arrays.

    `point` (D,) is q, the point looked ahead to, and `gradient` (D,) the gradient there; `velocity` (D,) is
    m, `rate` eta and `momentum` mu.
    """
    ### BEGIN SOLUTION
    new_velocity = momentum * velocity - rate * gradient
    return point - momentum * velocity + (1 + momentum) * new_velocity, new_velocity
    ### END SOLUTION


# %% tags=["check"]
expected = path(NesterovMomentumLearningRule(0.03, 0.8), 40)
point, velocity, p, m = START.copy(), np.zeros(2), START.copy(), np.zeros(2)
for step in range(1, 41):
    point, velocity = nesterov_step(point, velocity, HESSIAN @ (point - MINIMUM), 0.03, 0.8)
    m = 0.8 * m - 0.03 * HESSIAN @ (p + 0.8 * m - MINIMUM)
    p = p + m
    assert np.allclose(velocity, m), f"step {step}: the velocity is {velocity}, expected {m}"
    behind = point - 0.8 * velocity
    assert np.allclose(behind, p), f"step {step}: q - mu m is {behind}, expected p = {p}"
    assert np.allclose(point, expected[step]), f"step {step}: got {point}, the library {expected[step]}"
print("Exercise 1: right")

# %% [markdown]
# ## A rate for every parameter
#
# Momentum still has one rate for all directions. The next rules divide each parameter's step by a measure
# of the size of its own past gradients (all operations are elementwise; $\epsilon$ only avoids a division
# by zero).
#
# $$\begin{aligned}
# \text{AdaGrad:} \quad & s \leftarrow s + g^2, & \Delta p &= -\eta\, g / \sqrt{s + \epsilon} \\
# \text{RMSProp:} \quad & v \leftarrow \beta v + (1 - \beta)\, g^2,
# & \Delta p &= -\eta\, g / \sqrt{v + \epsilon} \\
# \text{Adam:} \quad & m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \quad
# v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,
# & \Delta p &= -\eta\, \hat m / (\sqrt{\hat v} + \epsilon) \\
# \text{AdamW:} \quad & m, v \text{ as Adam's}, & \Delta p &= -\eta\, \hat m / (\sqrt{\hat v} + \epsilon)
# - (\eta_t / \eta_0)\, w\, p
# \end{aligned}$$
#
# - **AdaGrad** sums the squares up, so its steps become smaller all the time: with gradients of a constant
#   size, like $\eta/\sqrt t$. That suits convex problems and rare features, and is too much for long
#   trainings.
# - **RMSProp** forgets: $v$ is a running mean of squares, over about $1/(1-\beta)$ steps.
# - **Adam** puts a running mean of gradients, a momentum, on top, and corrects both means for their start
#   at zero: $\hat m = m / (1 - \beta_1^t)$, $\hat v = v / (1 - \beta_2^t)$.
# - **AdamW** adds weight decay beside the step: $w$ is the decay, $\eta_t / \eta_0$ how far a schedule has
#   brought the rate down.
#
# Multiply $E$ by 1000: the steps of AdaGrad, RMSProp and Adam stay the same (but for $\epsilon$), and each
# parameter moves by about $\eta$ at first. So $\eta$ is a length in the space of parameters, where for
# gradient descent it is a length *per gradient*, and their values cannot be compared.

# %%
RULES = {
    "Gradient descent": (GradientDescentLearningRule(0.07), GREY),
    "Momentum": (MomentumLearningRule(0.02, mom_coeff=0.8), BLUE),
    "Nesterov": (NesterovMomentumLearningRule(0.02, mom_coeff=0.8), TEAL),
    "AdaGrad": (AdaGradLearningRule(0.5), AMBER),
    "RMSProp": (RMSPropLearningRule(0.1), RED),
    "Adam": (KingmaAdamLearningRule(0.2), "black"),
    "AdamW": (AdamLearningRuleWithWeightDecay(0.2, weight_decay=0.05), "#7b4fa3"),
}
figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
for axis, (name, (rule, colour)) in zip(axes.flat, RULES.items(), strict=False):
    points = path(rule, 60)
    draw_path(axis, points, colour)
    axis.set_title(f"{name}, $\\eta$ = {rule.learning_rate:g}", fontsize=11, color=colour)
    axes[1, 3].semilogy(error(points), color=colour, linewidth=1.4)
axes[1, 2].plot(0, 0, "o", color="black", markersize=4)
axes[1, 3].set_title("Error $E$, in the colours of the titles", fontsize=11)
axes[1, 3].set(xlabel="step", ylim=(1e-9, 50))
for axis in axes[:, 0]:
    axis.set_ylabel("$p_2$")
plt.show()

# %% [markdown]
# *Sixty steps of each rule, with a rate that suits it (chosen by hand, so this is no contest). Gradient
# descent swings across the valley; momentum swings too, but gathers speed along it; Nesterov's momentum,
# with the same $\mu$ and $\eta$, sees the other side coming and swings less. AdaGrad and the lower row
# start along a diagonal: each parameter moves by about the same amount, although the gradient across the
# valley is almost seven times as large. Adam has a momentum on top, and overshoots. AdamW adds a small pull
# towards the origin (dot) to every step, and swings less far beyond the minimum.*
#
# A rate for each parameter is a diagonal matrix in front of the gradient. It undoes differences in
# curvature along the *axes*, and nothing else. Turn the valley by 45 degrees:

# %%
turn = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
turned, turned_start = turn @ HESSIAN @ turn.T, MINIMUM + turn @ (START - MINIMUM)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
draw_path(left, path(RMSPropLearningRule(0.1), 60, turned, turned_start), RED, turned)
left.set(ylabel="$p_2$", ylim=(-2, 2.4), title="RMSProp in the turned valley")
for name, make in {
    "Gradient descent": lambda: GradientDescentLearningRule(0.07),
    "RMSProp": lambda: RMSPropLearningRule(0.1),
}.items():
    colour = RULES[name][1]
    right.semilogy(error(path(make(), 60)), color=colour, label=f"{name}, valley along an axis")
    points = path(make(), 60, turned, turned_start)
    right.semilogy(error(points, turned), "--", color=colour, linewidth=2.2, label=f"{name}, turned by 45°")
right.set(xlabel="step", ylabel="error $E$", ylim=(1e-9, 50), title="Error against steps")
right.legend(fontsize=9, frameon=False)
plt.show()

# %% [markdown]
# *Right: gradient descent does not notice the turn (its curves lie on each other). RMSProp at the same rate
# needs far more steps to get as low, as both parameters now see gradients of the same size, and dividing by
# it changes nothing about the valley's shape.*
#
# ## Adam's bias correction
#
# Unrolled from $m_0 = 0$, Adam's mean is $m_t = (1 - \beta_1) \sum_{s=1}^{t} \beta_1^{\,t-s} g_s$. If the
# gradients have one expected value $\mathbb{E}[g]$, then
#
# $$\mathbb{E}[m_t] = \mathbb{E}[g]\, (1 - \beta_1) \sum_{s=1}^{t} \beta_1^{\,t-s}
# = \mathbb{E}[g]\, (1 - \beta_1^{\,t}),$$
#
# too small at first, and likewise $\mathbb{E}[v_t] = \mathbb{E}[g^2]\, (1 - \beta_2^{\,t})$. Dividing by
# what stands in brackets makes both unbiased. One could think that two means which are both too small make
# no difference to their ratio; but $\beta_2$ is closer to 1 and $v$ stands under a root. With a constant
# gradient, the step without the correction is
#
# $$\eta\, \frac{1 - \beta_1^{\,t}}{\sqrt{1 - \beta_2^{\,t}}} .$$

# %%
steps = np.arange(1, 3001)
figure, axis = plt.subplots(figsize=(8, 3.7), layout="constrained")
for correct, colour in ((True, BLUE), (False, RED)):
    rule, weight = AdamLearningRule(1.0, bias_correction=correct), np.zeros(1)
    rule.initialise([weight])
    places = [0.0]
    for _ in steps:
        rule.update_params([np.ones(1)])
        places.append(weight[0])
    label = "with bias correction" if correct else "without"
    axis.loglog(steps, -np.diff(places), color=colour, linewidth=3, label=f"Adam {label}")
axis.loglog(steps, (1 - 0.9**steps) / np.sqrt(1 - 0.999**steps), "--", color="black", label="the formula")
axis.set(xlabel="step $t$", ylabel="size of the step, in units of $\\eta$", ylim=(0.5, 12))
axis.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
axis.minorticks_off()
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# *The library's Adam on a gradient that is always 1. With the correction every step is $\eta$. Without it,
# the first step is about 3 times as long, steps around the tenth more than 6 times, and it takes some
# thousand steps until the difference is gone: at the start, when the network knows least, it would be
# trained with the largest steps.*
#
# **Exercise 2.** Write one step of Adam, algorithm 1 of Kingma and Ba: $\epsilon$ is added after the
# correction, $\sqrt{\hat v} + \epsilon$. The check compares twenty steps with the library's
# `KingmaAdamLearningRule`; the gradients are small, so that the place of $\epsilon$ shows. The solution is
# folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def adam_step(point, mean, square, gradient, t, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Return the new (point, mean, square) after step number t = 1, 2, ... of Adam, as new arrays.

    `point`, `gradient`, `mean` (m) and `square` (v) have one shape, whatever it is; m and v are those without
    the correction, zero before the first step.
    """
    ### BEGIN SOLUTION
    mean = beta_1 * mean + (1 - beta_1) * gradient
    square = beta_2 * square + (1 - beta_2) * gradient**2
    mean_hat = mean / (1 - beta_1**t)
    square_hat = square / (1 - beta_2**t)
    return point - rate * mean_hat / (np.sqrt(square_hat) + epsilon), mean, square
    ### END SOLUTION


# %% tags=["check"]
rng = np.random.default_rng(2)
rule, kept = KingmaAdamLearningRule(1e-3), np.ones((2, 3))
rule.initialise([kept])
state = (np.ones((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)))
for step in range(1, 21):
    gradient = 1e-7 * rng.standard_normal((2, 3))
    state = adam_step(*state, gradient, step)
    rule.update_params([gradient])
    went, right = 1 - state[0].ravel()[0], 1 - kept.ravel()[0]
    assert state[0].shape == (2, 3), f"the point has shape {state[0].shape}, expected (2, 3)"
    assert np.allclose(state[1], rule.moms_1[0], rtol=1e-9, atol=0), f"step {step}: the mean is not m"
    assert np.allclose(state[2], rule.moms_2[0], rtol=1e-9, atol=0), f"step {step}: the square is not v"
    assert np.allclose(1 - state[0], 1 - kept, rtol=1e-9, atol=1e-15), (
        f"after step {step} the first entry has moved by {went:.6g}, expected {right:.6g}"
    )
print("Exercise 2: right")

# %% [markdown]
# ## Weight decay is not a penalty
#
# For gradient descent, the penalty $\frac{w}{2} \lVert p \rVert^2$ on the error and a decay of the
# parameters are the same thing: the penalty's gradient $w p$ makes the step $-\eta\, w\, p$. In Adam they
# are not. A penalty's gradient goes into $m$ and $v$ with the rest and is divided by $\sqrt{\hat v}$: the
# parameters with the *largest* gradients are held back *least*. AdamW (Loshchilov and Hutter 2019) takes
# the decay out of the gradient.
#
# To see it bare, let the error have no slope at all, only the noise of mini-batches: two parameters, whose
# gradients are random numbers of deviation 0.1 and 10. Only the penalty, or the decay, has a direction.

# %%
deviations, steps = np.array([0.1, 10.0]), np.arange(1001)
noise = np.random.default_rng(3).standard_normal((1000, 2)) * deviations
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
runs = {
    "Adam, penalty of coefficient 0.2 in the gradient": (AdamLearningRule(1e-3), 0.2),
    "AdamW, decay $w$ = 0.002": (AdamLearningRuleWithWeightDecay(1e-3, weight_decay=0.002), 0.0),
}
for axis, (title, (rule, penalty)) in zip(axes, runs.items(), strict=True):
    weights = np.ones(2)
    rule.initialise([weights])
    values = [weights.copy()]
    for gradient in noise:
        rule.update_params([gradient + penalty * weights])
        values.append(weights.copy())
    for column, colour in enumerate((BLUE, RED)):
        label = f"gradients of deviation {deviations[column]:g}"
        axis.plot(steps, np.array(values)[:, column], color=colour, label=label)
    axis.set(xlabel="step $t$", ylim=(0, 1.1))
    axis.set_title(title, fontsize=11)
axes[1].plot(steps, 0.998**steps, "--", color="black", linewidth=1.2, label="$(1 - 0.002)^t$")
axes[0].set_ylabel("parameter")
for axis in axes:
    axis.legend(frameon=False, fontsize=10, loc="lower left")
plt.show()

# %% [markdown]
# *Left: with the penalty inside Adam, the parameter with small gradients decays and the one with large
# gradients hardly moves. Right: AdamW makes both decay by the same factor a step (dashed), up to the
# noise.*
#
# In the library the decay is $w$ times how far a schedule has brought the rate down, $\eta_t / \eta_0$. It
# does not depend on $\eta_0$, as in algorithm 2 of the paper. (Where it is multiplied by the rate itself,
# as in PyTorch's AdamW, the coefficient is $w / \eta_0$.)
#
# ## Schedules: what a smaller rate is for
#
# A mini-batch gives the gradient with noise, $g = H(p - c) + \xi$. Let $\xi$ have mean 0 and variance
# $\sigma^2$ in every direction. Along an eigenvector $d_{t+1} = (1 - \eta\lambda)\, d_t - \eta\, \xi_t$,
# and the variance of $d$ settles where a step leaves it as it is:
#
# $$V = (1 - \eta\lambda)^2\, V + \eta^2 \sigma^2
# \quad\Longrightarrow\quad V = \frac{\eta\, \sigma^2}{\lambda\,(2 - \eta\lambda)}, \qquad
# E_\infty = \sum_i \tfrac12 \lambda_i V_i = \sum_i \frac{\eta\, \sigma^2}{2\,(2 - \eta\lambda_i)} .$$
#
# A constant rate does not converge. It reaches a floor that is proportional to $\eta$, for small $\eta$. A
# large rate gets there fast and a small one gets low, so take a large one first and a small one last.
# **Cosine annealing** does it without a corner,
#
# $$\eta(e) = \eta_{\min} + (\eta_{\max} - \eta_{\min})\, \frac{1 + \cos(\pi e / T)}{2},
# \qquad e = 0, \dots, T ,$$
#
# and **warm restarts** (Loshchilov and Hutter 2017) begin it anew, with periods that grow from restart to
# restart. A scheduler of the library sets a rule's rate for an epoch; here an epoch is a single step.

# %%
NUM_STEPS = 350
SCHEDULES = {
    "constant, 0.04": (CosineAnnealing(0.04, 0.04, NUM_STEPS), RED),
    "constant, 0.004": (CosineAnnealing(0.004, 0.004, NUM_STEPS), AMBER),
    "cosine annealing": (CosineAnnealing(0.0, 0.04, NUM_STEPS), BLUE),
    "warm restarts": (CosineAnnealingWithWarmRestarts(0.0, 0.04, 50, 1.0, 2.0), TEAL),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4), layout="constrained")
for name, (scheduler, colour) in SCHEDULES.items():
    noise = np.random.default_rng(4).standard_normal((NUM_STEPS, 1000, 2))
    points, rule = np.tile(START, (1000, 1)), GradientDescentLearningRule(0.04)
    rule.initialise([points])
    rates, errors = [], [error(points).mean()]
    for step in range(NUM_STEPS):
        rates.append(scheduler.update_learning_rule(rule, step))
        rule.update_params([(points - MINIMUM) @ HESSIAN + noise[step]])
        errors.append(error(points).mean())
    left.plot(rates, color=colour, label=name)
    right.semilogy(errors, color=colour)
floor = sum(0.04 / (2 * (2 - 0.04 * curvature)) for curvature in (1, 25))
right.axhline(floor, linestyle="--", color="black", linewidth=1)
right.annotate("$E_\\infty$ for $\\eta$ = 0.04", (NUM_STEPS, 1.2 * floor), ha="right", fontsize=10)
left.set(xlabel="step", ylabel="learning rate $\\eta$")
left.legend(frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.97))
right.set(xlabel="step", ylabel="error $E$, mean of 1,000 runs")
plt.show()

# %% [markdown]
# *Noisy gradient descent in the valley, with $\sigma = 1$. Left: the four schedules. Right: the large
# constant rate (red) falls to the floor that the formula gives, and stays there; the small one (amber) is
# still on its way. Cosine annealing (blue) goes almost as fast at first, and below the floor as the rate
# falls. Warm restarts (teal) are below it at the end of the second period, climb back to it with the rate,
# and come down again: one may stop at the end of any period.*
#
# Whether the way back up is worth it is another question: this valley has one minimum, so a restart finds
# nothing new. In a network it leaves the neighbourhood of one solution, and the ends of the periods are
# different networks.
#
# **Exercise 3.** Write cosine annealing with warm restarts: period $n = 0, 1, \dots$ lasts $T_0\, k^n$
# epochs and starts again from $\eta_{\max}$. At the epoch in which a period would end, the next one begins.
# The check compares 200 epochs with the library's scheduler, for several $T_0$ and $k$. The solution is
# folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def warm_restarts(epoch, lowest, highest, first_period, growth):
    """Return the learning rate of an epoch (a whole number, from 0), a float.

    The rate falls from `highest` towards `lowest`; `first_period` is T_0, in epochs, and `growth` is k >= 1.
    """
    ### BEGIN SOLUTION
    period = first_period
    while epoch >= period:
        epoch -= period
        period *= growth
    return lowest + (highest - lowest) * (1 + np.cos(np.pi * epoch / period)) / 2
    ### END SOLUTION


# %% tags=["check"]
for first_period, growth in ((10, 1), (10, 2), (7, 3), (4, 1.5)):
    scheduler = CosineAnnealingWithWarmRestarts(0.01, 0.5, first_period, 1.0, growth)
    for epoch in range(200):
        got = warm_restarts(epoch, 0.01, 0.5, first_period, growth)
        expected = scheduler.learning_rate_at(epoch)
        assert got is not None, "the function returns None: is there a return?"
        assert abs(got - expected) < 1e-9, (
            f"T_0 = {first_period}, k = {growth}, epoch {epoch}: got {got}, expected {expected:.6f}"
        )
print("Exercise 3: right")

# %% [markdown]
# ## A network, and a range test
#
# A network's curvatures are not known, so which rate is too large must be tried. A **range test** (Smith
# 2017) does it in one short training: let the rate grow by a constant factor from batch to batch, over
# several powers of ten, and watch the loss. Ours is a small network on handwritten digits of 8 x 8 pixels.

# %%
digits = load_digits()
pixels = {name: getattr(digits, name).pixels[:, ::4, ::4, 0] for name in ("train", "valid")}
inputs = {name: values.reshape(len(values), 64) / 255.0 for name, values in pixels.items()}
labels = {name: getattr(digits, name).labels for name in inputs}
print({name: values.shape for name, values in inputs.items()})


def make_model():
    """Return a new network, always with the same initial weights."""
    init = GlorotUniformInit(rng=np.random.RandomState(0))
    return MultipleLayerModel([AffineLayer(64, 100, init), ReluLayer(), AffineLayer(100, 10, init)])


def provider(name, batch_size):
    """Return batches of digits in an order that is always the same."""
    return DataProvider(inputs[name], labels[name], batch_size, rng=np.random.RandomState(1))


def range_test(rule, rates):
    """Return the loss of the training batches met while the learning rate takes these values."""
    engine, batches, losses = Engine(make_model(), CrossEntropySoftmaxError()), provider("train", 50), []
    rule.initialise(engine.params)
    while len(losses) < len(rates):
        for batch, targets in batches:
            if len(losses) < len(rates):
                rule.learning_rate = rates[len(losses)]
                losses.append(train_step(engine, rule, batch, targets).loss)
    return np.array(losses)


# %% [markdown]
# Each batch's loss is noisy, as every batch is other digits, so a mean over neighbours is drawn with it.
# Two rates are marked: where the smoothed loss falls fastest (per factor in the rate), and where it is
# lowest.


# %%
def smooth(losses, width=9):
    """Return the mean over `width` neighbours (fewer at the ends) of each loss."""
    ones = np.ones(width)
    return np.convolve(losses, ones, "same") / np.convolve(np.ones(len(losses)), ones, "same")


def marks(rates, losses):
    """Return the rate at which the smoothed loss falls fastest, and that at which it is lowest."""
    smoothed = smooth(losses)
    lowest, apart = int(np.argmin(smoothed)), 16  # the slope between two points that are 16 batches apart
    slopes = smoothed[apart : lowest + 1] - smoothed[: lowest + 1 - apart]
    return rates[np.argmin(slopes) + apart // 2], rates[lowest]


rates = np.geomspace(1e-3, 10, 200)
with np.errstate(all="ignore"):  # the largest rates are meant to overflow
    losses = range_test(GradientDescentLearningRule(), rates)
fastest, lowest = marks(rates, losses)
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.semilogx(rates, losses, ".", color="#b5b5b5", label="loss of a batch")
axis.semilogx(rates, smooth(losses), color=BLUE, linewidth=2, label="mean of 9 neighbours")
axis.axvline(fastest, color=TEAL, linestyle="--", label=f"falls fastest at {fastest:.2g}")
axis.axvline(lowest, color=AMBER, linestyle="--", label=f"lowest at {lowest:.2g}")
axis.set(xlabel="learning rate $\\eta$ (grows by 5 % a batch)", ylabel="cross-entropy (nats)", ylim=(0, 5))
axis.legend(frameon=False, fontsize=10, loc="upper left")
plt.show()

# %% [markdown]
# *Read it from left to right. Where the rate is far too small nothing happens; then the loss falls; then it
# rises steeply: the rates there are beyond the limit. A good rate for a training lies below the lowest
# point, where the test is about to fail, and not far below the steepest place.*
#
# ## What we saw
#
# Does the test say the truth? For three rules, we run the test, and then real trainings of six epochs, each
# from the start and with one constant rate.


# %%
def sweep(make_rule, rates, num_epochs=6):
    """Return the validation error after a training with each of these rates."""
    found = []
    for rate in rates:
        engine, rule = Engine(make_model(), CrossEntropySoftmaxError()), make_rule(rate)
        batches = provider("train", 50)
        rule.initialise(engine.params)
        for _ in range(num_epochs):
            for batch, targets in batches:
                train_step(engine, rule, batch, targets)
        found.append(evaluate(engine, provider("valid", 250)).loss)
    return np.array(found)


# %%
cases = {
    "Gradient descent": (GradientDescentLearningRule, 1e-3, 10, BLUE),
    "Momentum, $\\mu$ = 0.9": (MomentumLearningRule, 1e-4, 1, TEAL),
    "Adam": (KingmaAdamLearningRule, 1e-5, 1, RED),
}
figure, axes = plt.subplots(2, 3, figsize=(12.5, 6), sharex="col", sharey="row", layout="constrained")
for (top, bottom), (name, (rule, low, high, colour)) in zip(axes.T, cases.items(), strict=True):
    rates, tried = np.geomspace(low, high, 200), np.geomspace(low, high, 13)
    with np.errstate(all="ignore"):
        losses, found = range_test(rule(), rates), sweep(rule, tried)
    top.semilogx(rates, smooth(losses), color=colour, linewidth=2)
    bottom.loglog(tried, found, "o-", color=colour)
    for axis in (top, bottom):
        for rate, shade in zip(marks(rates, losses), (GREY, "black"), strict=True):
            axis.axvline(rate, color=shade, linestyle="--", linewidth=1.2)
    top.set(title=name, ylim=(0, 4))
    bottom.set(xlabel="learning rate $\\eta$", ylim=(0.06, 10))
axes[0, 0].set_ylabel("range test:\nloss of the batches (nats)")
axes[1, 0].set_ylabel("after 6 epochs:\nvalidation error (nats)")
plt.show()

# %% [markdown]
# *Above, the range test of each rule; below, one point for each training. Dashed: where the test's loss
# falls fastest (grey) and is lowest (black). The best trainings lie between these two rates or close by;
# far to the left six epochs are not enough, and beyond the black line trainings get worse, or fail. The
# good rates of the three rules differ by up to two powers of ten.*
#
# - In a valley, the steepest direction limits the rate and the flattest one sets the time. Momentum
#   replaces the condition number by its square root.
# - AdaGrad, RMSProp and Adam divide by the size of past gradients, parameter by parameter: a rate of theirs
#   is a length in the space of parameters. They undo differences in scale along the axes, not a turned
#   valley.
# - Adam's two means start at zero, and dividing by $1 - \beta^t$ corrects both. Decay inside its gradient
#   is divided away; AdamW's is not.
# - With noise a constant rate ends at a floor proportional to it; schedules that end at small rates go
#   below.
# - A range test costs a few epochs and finds the rates worth trying, for any rule.
#
# ## Further reading
#
# - B. T. Polyak, Some methods of speeding up the convergence of iteration methods, USSR Computational
#   Mathematics and Mathematical Physics 4(5), 1964.
# - I. Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum in deep
#   learning, ICML 2013.
# - J. Duchi, E. Hazan, Y. Singer, Adaptive subgradient methods for online learning and stochastic
#   optimization, JMLR 12, 2011.
# - T. Tieleman, G. Hinton, Lecture 6.5: RMSProp, Neural networks for machine learning, Coursera 2012.
# - D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR 2015.
# - I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.
# - I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019.
# - L. N. Smith, Cyclical learning rates for training neural networks, WACV 2017, section 3.3.
# - G. Goh, Why momentum really works, Distill, 2017.
