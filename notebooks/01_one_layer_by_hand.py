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
# # One layer by hand
#
# After this notebook you can
#
# - derive the gradients of an affine layer in index notation and turn them into matrix products,
# - write a layer with `fprop`, `bprop` and `grads_wrt_params`, and prove it with `check_gradients`,
# - recognise the usual mistakes (a missing sum over the batch, transposed weights, a mean for a sum) by
#   what the checker says of them,
# - write a gradient checker of your own, and say how exact each kind can be,
# - explain why a check with an upstream gradient of ones does not see a wrong softmax.
#
# You need to know the chain rule for functions of several variables, matrix products, and NumPy's
# broadcasting.

# %%
import matplotlib.pyplot as plt
import numpy as np

from mlp.layers import AffineLayer, LayerWithParameters, LogSoftmaxLayer, SoftmaxLayer
from mlp.testing import GradientError, check_gradients

rng = np.random.default_rng(1)
BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

# %% [markdown]
# ## The layer in index notation
#
# A batch is a matrix $X$ of $N$ rows, the examples, with $D$ numbers each. An affine layer has weights $W$
# $(K, D)$ and biases $b$ $(K,)$, and maps every row to $K$ numbers:
#
# $$y_{nk} = \sum_{d=1}^{D} W_{kd}\, x_{nd} + b_k .$$
#
# Behind the layer stands the rest of the network, which turns $Y$ into one number, the error $E$.
# Backpropagation hands down what the rest found: the **upstream gradient**
#
# $$G_{nk} = \frac{\partial E}{\partial y_{nk}}, \qquad \text{of the shape of } Y .$$
#
# If the error is a mean over the batch, its $1/N$ is in $G$ already. The layer has to say how $E$ changes
# with each of *its* numbers. Whatever number $\theta$ that is, it acts on $E$ through all outputs, so the
# chain rule sums over all of them:
#
# $$\frac{\partial E}{\partial \theta}
# = \sum_{m=1}^{N} \sum_{k=1}^{K} G_{mk} \frac{\partial y_{mk}}{\partial \theta} .$$

# %% [markdown]
# ## Three derivatives
#
# Write $\delta_{mn}$ for 1 where $m = n$ and 0 elsewhere. Each $\delta$ removes one sum.
#
# **By an input.** $\partial y_{mk} / \partial x_{nd} = \delta_{mn} W_{kd}$: an input acts on the outputs of
# its own row alone. So
#
# $$\frac{\partial E}{\partial x_{nd}} = \sum_{m,k} G_{mk}\, \delta_{mn} W_{kd} = \sum_k G_{nk} W_{kd}
# \qquad\Longrightarrow\qquad \frac{\partial E}{\partial X} = G\, W .$$
#
# **By a weight.** $\partial y_{mj} / \partial W_{kd} = \delta_{jk}\, x_{md}$: a weight acts on its own
# output, in *every* row. So
#
# $$\frac{\partial E}{\partial W_{kd}} = \sum_{m,j} G_{mj}\, \delta_{jk}\, x_{md} = \sum_m G_{mk}\, x_{md}
# \qquad\Longrightarrow\qquad \frac{\partial E}{\partial W} = G^\top X .$$
#
# **By a bias.** $\partial y_{mj} / \partial b_k = \delta_{jk}$, in every row again:
#
# $$\frac{\partial E}{\partial b_k} = \sum_m G_{mk} \qquad\Longrightarrow\qquad
# \frac{\partial E}{\partial b} = G^\top \mathbf{1} .$$
#
# The sum over the batch in the last two is not a choice. It is there because all rows share one $W$ and one
# $b$.
#
# To turn indices into a matrix product, look for the index that is summed: it must be the last of the left
# factor and the first of the right one. In $\sum_k G_{nk} W_{kd}$ it is so; in $\sum_m G_{mk}\, x_{md}$ the
# left factor must be transposed. `np.einsum` takes the index notation as it stands, which makes a good
# first test:

# %%
N, D, K = 5, 4, 3
X, W, G = rng.standard_normal((N, D)), rng.standard_normal((K, D)), rng.standard_normal((N, K))

print("dE/dX:", np.allclose(np.einsum("nk,kd->nd", G, W), G @ W), (G @ W).shape)
print("dE/dW:", np.allclose(np.einsum("mk,md->kd", G, X), G.T @ X), (G.T @ X).shape)
print("dE/db:", np.allclose(np.einsum("mk->k", G), G.sum(axis=0)), G.sum(axis=0).shape)

# %% [markdown]
# Every gradient has the shape of what it is the gradient of. That alone finds many mistakes, but not where
# $D = K$.
#
# ## The layer as a class
#
# In this library a layer is a class with two passes. `fprop` computes $Y$. The backward pass gets $X$, $Y$
# and $G$ handed back, so the layer keeps nothing: `bprop` returns $\partial E / \partial X$ for the layer
# below, and `grads_wrt_params` the gradients of the parameters, in the order of `param_names`.


# %%
class MyAffineLayer(LayerWithParameters):
    """y = x W' + b for each row of x (N, D); W (K, D), b (K,)."""

    param_names = ("weights", "biases")

    def __init__(self, input_dim, output_dim):
        self.weights = np.random.default_rng(0).standard_normal((output_dim, input_dim))
        self.biases = np.zeros(output_dim)

    def fprop(self, inputs):
        """Return y (N, K)."""
        return inputs @ self.weights.T + self.biases

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx (N, D)."""
        return grads_wrt_outputs @ self.weights

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/dW (K, D), dE/db (K,)]."""
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)]


check_gradients(MyAffineLayer(4, 3), (5, 4))

# %% [markdown]
# The checker has no rest of the network, so it makes one: $E = \sum_{n,k} R_{nk}\, y_{nk}$ with random
# numbers $R$. Then $G = R$, and the right derivative by any number $\theta$ can be found from the forward
# pass alone, by moving $\theta$ a little. It did so for each of the 20 inputs, 12 weights and 3 biases, in
# two ways, which the rest of this notebook explains. The columns are the largest wrong derivative, relative
# to the largest derivative.
#
# **Exercise 1.** A layer squares its inputs before it weighs them:
#
# $$y_{nk} = \sum_d W_{kd}\, x_{nd}^2 .$$
#
# Derive $\partial E / \partial x_{nd}$ and $\partial E / \partial W_{kd}$ in index notation, and write them
# as NumPy expressions without loops. The next but one cell puts your function into a layer and calls
# `check_gradients`. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def quadratic_backward(inputs, weights, grads_wrt_outputs):
    """Return (dE/dx, dE/dW) of y_nk = sum over d of W_kd x_nd^2.

    inputs x (N, D), weights W (K, D), grads_wrt_outputs G (N, K); the results have the shapes of x and of W.
    """
    ### BEGIN SOLUTION
    grads_wrt_inputs = 2.0 * inputs * (grads_wrt_outputs @ weights)
    grads_wrt_weights = grads_wrt_outputs.T @ inputs**2
    return grads_wrt_inputs, grads_wrt_weights
    ### END SOLUTION


# %% tags=["check"]
class QuadraticLayer(LayerWithParameters):
    """The layer of exercise 1, with your backward pass."""

    param_names = ("weights",)

    def __init__(self, input_dim, output_dim):
        self.weights = np.random.default_rng(0).standard_normal((output_dim, input_dim))

    def fprop(self, inputs):
        """Return y (N, K)."""
        return inputs**2 @ self.weights.T

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return the first of what your function returns."""
        return quadratic_backward(inputs, self.weights, grads_wrt_outputs)[0]

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return the second."""
        return [quadratic_backward(inputs, self.weights, grads_wrt_outputs)[1]]


check_gradients(QuadraticLayer(4, 3), (5, 4))
check_gradients(QuadraticLayer(3, 3), (5, 3))
print("Exercise 1: right")

# %% [markdown]
# ## Broken on purpose
#
# A checker is worth what it finds. So we break the affine layer in eight plausible ways. The weights are
# square here, $K = D = 4$, so that a wrong transpose does not give itself away by its shape.


# %%
class AveragedOverTheBatch(MyAffineLayer):
    """Means where there must be sums: the 1/N of the error is counted twice."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return wrong gradients."""
        return [grads_wrt_outputs.T @ inputs / len(inputs), grads_wrt_outputs.mean(axis=0)]


class NoSumOverTheBatch(MyAffineLayer):
    """The biases' gradient keeps the axis of the batch."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return wrong gradients."""
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs]


class FirstExampleOnly(MyAffineLayer):
    """The right shape at last, by taking one row for all."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return wrong gradients."""
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs[0]]


# %%
class WeightsTransposed(MyAffineLayer):
    """G W' for G W: fits where W is square."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return a wrong gradient."""
        return grads_wrt_outputs @ self.weights.T


class GradientTransposed(MyAffineLayer):
    """X' G for G' X."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return wrong gradients."""
        return [inputs.T @ grads_wrt_outputs, grads_wrt_outputs.sum(axis=0)]


class UpstreamForgotten(MyAffineLayer):
    """The layer's own derivative, without the chain rule."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return a wrong gradient."""
        return np.ones_like(grads_wrt_outputs) @ self.weights


# %% [markdown]
# The last two compute the right derivatives and still do harm. One writes into an array that belongs to the
# layer below; the other keeps the inputs itself, and uses those of whichever batch came last.


# %%
class WritesIntoItsInputs(MyAffineLayer):
    """Doubles its inputs in place, and halves them in the product."""

    def fprop(self, inputs):
        """Return y, and change x on the way."""
        inputs *= 2.0
        return 0.5 * inputs @ self.weights.T + self.biases


class KeepsItsInputs(MyAffineLayer):
    """Uses the inputs of the last forward pass, whatever it is asked for."""

    def fprop(self, inputs):
        """Return y, and keep x."""
        self.kept = inputs
        return super().fprop(inputs)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return the gradients for the kept x."""
        return [grads_wrt_outputs.T @ self.kept, grads_wrt_outputs.sum(axis=0)]


# %%
def verdict(layer, shape):
    """Print what the checker says of a layer; return the worst error, None where there is no number."""
    try:
        report = check_gradients(layer, shape)
        print(f"{type(layer).__name__}: right")
    except GradientError as error:
        print(f"{type(layer).__name__}: {error.cause}")
        report = error.report
    return None if report is None else report.worst


broken = [AveragedOverTheBatch, NoSumOverTheBatch, FirstExampleOnly, WeightsTransposed, GradientTransposed]
broken += [UpstreamForgotten, WritesIntoItsInputs, KeepsItsInputs]
errors = {kind.__name__: verdict(kind(4, 4), (5, 4)) for kind in [MyAffineLayer, *broken]}

# %% [markdown]
# Six of the eight are named. Two are only found: for the first row alone and for the transposed weights the
# checker says that it sees no simple relation, and then the numbers help. A `GradientError` holds the whole
# table and, for one wrong entry, what was got and what is right:

# %%
try:
    check_gradients(WeightsTransposed(4, 4), (5, 4))
except GradientError as error:
    print(error)

# %% [markdown]
# Read such a table by rows. Here `weights` and `biases` are right, so `fprop` and `grads_wrt_params` are
# not to blame: the mistake is in `bprop`.
#
# ## A checker of your own: central differences
#
# How does one find the right derivative without knowing it? Taylor's series at $x$, for a step $h$ up and
# one down:
#
# $$f(x \pm h) = f(x) \pm h f'(x) + \tfrac{h^2}{2} f''(x) \pm \tfrac{h^3}{6} f'''(x) + \dots$$
#
# The difference of the two, divided by $2h$, has no $f''$ left:
#
# $$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \tfrac{h^2}{6} f'''(x) + O(h^4) .$$
#
# The error falls as $h^2$, so one is tempted to take a tiny $h$. But $f$ is computed with a rounding error
# of about $\varepsilon |f|$, $\varepsilon = 2.2 \cdot 10^{-16}$ in float64. The difference of two nearly
# equal numbers keeps that error and loses everything else, and dividing by $2h$ blows it up to about
# $\varepsilon |f| / h$. The best $h$ is where both errors are of one size,
# $h \approx (3 \varepsilon |f| / |f'''|)^{1/3}$: near $10^{-5}$ for numbers of the order of 1, with an
# error near $10^{-10}$ or $10^{-11}$.
#
# We need a number to differentiate that is not linear in the weights, as a linear one has $f''' = 0$. Take
# the affine layer with the cross-entropy of a softmax behind it, for targets $t_n$:
#
# $$f(W) = \frac{1}{N} \sum_n \Big( \ln \sum_k e^{y_{nk}} - y_{n t_n} \Big), \qquad
# G_{nk} = \frac{1}{N} \Big( \frac{e^{y_{nk}}}{\sum_j e^{y_{nj}}} - \delta_{k t_n} \Big) .$$

# %%
targets = np.array([0, 2, 1, 1, 0])
rows = np.arange(N)


def f(weights):
    """Return the mean cross-entropy of the rows X for weights (K, D)."""
    outputs = X @ weights.T
    return np.mean(np.log(np.exp(outputs).sum(axis=1)) - outputs[rows, targets])


def gradient_of_f(weights):
    """Return df/dW (K, D), by hand."""
    outputs = X @ weights.T
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    return (probabilities - np.eye(K)[targets]).T @ X / N


# %%
def central_differences(function, x, h=1e-5):
    """Return the gradient of a function of an array, one entry after the other."""
    gradient = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[place] = h
        gradient[place] = (function(x + step) - function(x - step)) / (2.0 * h)
    return gradient


gap = np.abs(central_differences(f, W) - gradient_of_f(W)).max() / np.abs(gradient_of_f(W)).max()
print(f"largest difference, relative to the largest derivative: {gap:.0e}")

# %% [markdown]
# ## The complex step
#
# The subtraction is what costs the digits. It can be avoided by a step in another direction: $f$ is made of
# analytic functions, which take complex numbers as well. Taylor's series for an *imaginary* step is
#
# $$f(x + ih) = f(x) + i h f'(x) - \tfrac{h^2}{2} f''(x) - \tfrac{i h^3}{6} f'''(x) + \dots$$
#
# and its imaginary part alone, divided by $h$, is
#
# $$\frac{\operatorname{Im} f(x + ih)}{h} = f'(x) - \tfrac{h^2}{6} f'''(x) + O(h^4) .$$
#
# Nothing is subtracted: $f(x)$ and $f'(x)$ travel apart, one in the real part and one in the imaginary
# part. So $h$ may be as small as one likes. With $h = 10^{-30}$ the term $h^2 f''' / 6$ is far below
# rounding, and the derivative is as exact as the arithmetic.


# %%
def complex_step(function, x, h=1e-30):
    """Return the gradient of an analytic function of an array, one entry after the other."""
    gradient = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        step = np.zeros(x.shape, complex)
        step[place] = 1j * h
        gradient[place] = function(x + step).imag / h
    return gradient


gap = np.abs(complex_step(f, W) - gradient_of_f(W)).max() / np.abs(gradient_of_f(W)).max()
print(f"largest difference, relative to the largest derivative: {gap:.0e}")

# %% [markdown]
# The figure that tells them apart: derivatives along ten random directions $V$, that is
# $\frac{d}{ds} f(W + sV)$ at $s = 0$, for steps $h$ from 1 down to $10^{-20}$. Shown is the root mean
# square of the ten errors over that of the ten derivatives. One-sided differences, $(f(x + h) - f(x)) / h$,
# are there for comparison; their error is $\frac{h}{2} f''$.

# %%
directions = rng.standard_normal((10, *W.shape))
slopes = np.array([(gradient_of_f(W) * V).sum() for V in directions])
quotients = {
    "one-sided differences": lambda V, h: (f(W + h * V) - f(W)) / h,
    "central differences": lambda V, h: (f(W + h * V) - f(W - h * V)) / (2.0 * h),
    "complex step": lambda V, h: f(W + 1j * h * V).imag / h,
}


def relative_error(quotient, h):
    """Return the root mean square error over all directions, relative to that of the derivatives."""
    found = np.array([quotient(V, h) for V in directions])
    return np.sqrt(np.mean((found - slopes) ** 2) / np.mean(slopes**2))


steps = np.logspace(0, -20, 161)
curves = {name: [relative_error(quotient, h) for h in steps] for name, quotient in quotients.items()}

# %%
figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
for (name, curve), colour in zip(curves.items(), (AMBER, RED, BLUE), strict=True):
    axes.loglog(steps, curve, color=colour, linewidth=1.8, label=name)
axes.axhline(np.finfo(float).eps, color=GREY, linestyle=":", linewidth=1)
axes.text(1e-4, 4e-16, r"$\varepsilon = 2.2 \cdot 10^{-16}$", color=GREY)
axes.text(4e-4, 3e-9, r"$\propto h^2$")
axes.text(2e-6, 1e-5, r"$\propto h$")
axes.text(2e-12, 2e-3, r"$\propto \varepsilon / h$")
axes.set(xlabel="step $h$ (smaller to the left)", ylabel="relative error of the derivative", ylim=(1e-17, 20))
axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.35), frameon=False)
plt.show()

# %% [markdown]
# Read from the right. Both kinds of differences improve while $h$ shrinks, until rounding takes over and
# they get worse again: a V. At its lowest point one-sided differences have an error near $10^{-8}$, central
# ones near $10^{-11}$. At the left end the two values of $f$ are the same float64 number, the difference is
# 0 and the error 100 %. The complex step falls as $h^2$, as central differences do, and then stays on the
# floor of the arithmetic for every smaller $h$:

# %%
for h in (1e-30, 1e-100, 1e-300):
    print(f"h = {h:.0e}: relative error {relative_error(quotients['complex step'], h):.0e}")

# %% [markdown]
# The price: $f$ must be analytic, and computed by analytic operations. `abs`, `astype(float)`, a comparison
# of complex numbers, or a transposition that conjugates break it. Branches are fine where they look at the
# real part only, as $\max(x, 0)$ written as `x * (x.real > 0)`. Where a layer's `fprop` does not take
# complex numbers, `check_gradients` says so and lets central differences decide.


# %%
class AbsoluteAffineLayer(MyAffineLayer):
    """y = |x| W' + b: right, but |x| of a complex number is real."""

    def fprop(self, inputs):
        """Return y (N, K)."""
        return np.abs(inputs) @ self.weights.T + self.biases

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx (N, D)."""
        return np.sign(inputs.real) * (grads_wrt_outputs @ self.weights)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        """Return [dE/dW (K, D), dE/db (K,)]."""
        return [grads_wrt_outputs.T @ np.abs(inputs), grads_wrt_outputs.sum(axis=0)]


print(check_gradients(AbsoluteAffineLayer(4, 3), (5, 4)))

# %% [markdown]
# **Exercise 2.** One evaluation of $f$ per entry is too much for a layer with a million weights. But one
# evaluation gives the derivative along any *direction* $V$, and the gradient $g$ under test claims that it
# is $\sum_i g_i V_i$. A wrong gradient is caught by a random direction unless its error happens to be
# perpendicular to it.
#
# Write a checker by random directions with the complex step. It is checked with a right gradient, with one
# in which a single entry is off by a thousandth, and with a count of the evaluations of $f$. The solution
# is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def directional_error(function, x, gradient, generator, count=10):
    """Return the largest error of a claimed gradient along random directions, relative to its length.

    function takes an array of the shape of x, real or complex, and returns a number; gradient has the shape
    of x. Draw `count` directions v with generator.standard_normal(x.shape), call function once for each, and
    return the largest |Im f(x + ihv) / h - sum(gradient * v)|, divided by the square root of
    sum(gradient**2). Take h = 1e-30.
    """
    ### BEGIN SOLUTION
    h, largest = 1e-30, 0.0
    for _ in range(count):
        direction = generator.standard_normal(x.shape)
        found = function(x + 1j * h * direction).imag / h
        largest = max(largest, abs(found - (gradient * direction).sum()))
    return largest / np.sqrt((gradient**2).sum())
    ### END SOLUTION


# %% tags=["check"]
calls = []


def counted(weights):
    """Return f, and note the call."""
    calls.append(weights)
    return f(weights)


right, wrong, before = gradient_of_f(W), gradient_of_f(W), W.copy()
wrong[1, 2] += 1e-3 * np.sqrt((right**2).sum())
error = directional_error(counted, W, right, np.random.default_rng(0))
assert len(calls) == 10, f"function was called {len(calls)} times, expected once for each of 10 directions"
assert all(np.iscomplexobj(w) for w in calls), "the step is to be imaginary: x + 1j * h * direction"
assert np.array_equal(W, before), "x was changed: make a new array x + ..."
assert error < 1e-14, f"the error of the right gradient is {error:.1e}, expected about 1e-16"
error = directional_error(f, W, wrong, np.random.default_rng(0), count=40)
assert 1e-3 < error < 5e-3, f"the error of a gradient with a wrong entry is {error:.1e}, expected about 2e-3"
first = directional_error(f, W, wrong, np.random.default_rng(0), count=1)
mirrored = directional_error(f, W, 2.0 * right - wrong, np.random.default_rng(0), count=1)
assert np.isclose(first, mirrored, rtol=0.05), "too large and too small count alike: take absolute values"
assert error > first, f"{error:.1e} for 40 directions and {first:.1e} for the first: return the largest"
print("Exercise 2: right")

# %% [markdown]
# `check_gradients` does the same: arrays of up to 40 entries are checked entry by entry, larger ones along
# 40 random directions, and the report then says `40 ways`.
#
# ## What an upstream gradient of ones does not see
#
# A checker without a rest of the network needs some $G$. It is tempting to take $E = \sum_{n,k} y_{nk}$,
# the plain sum of the outputs, for which $G_{nk} = 1$. For the affine layer that would do. For a softmax it
# does not:
#
# $$p_k = \frac{e^{x_k}}{\sum_j e^{x_j}}, \qquad
# \frac{\partial p_k}{\partial x_d} = p_k (\delta_{kd} - p_d), \qquad
# \frac{\partial E}{\partial x_d} = \sum_k G_k\, p_k (\delta_{kd} - p_d)
# = p_d \Big( G_d - \sum_k G_k\, p_k \Big) .$$
#
# The outputs of a row sum to 1 whatever the inputs. So their sum has the gradient **zero**; and indeed with
# $G = 1$ the bracket is $1 - \sum_k p_k = 0$. A backward pass that is wrong by a factor, has the wrong
# sign, subtracts the wrong mean or just returns zeros gives zero as well, and passes.


# %%
def centred(p, g):
    """Return g minus its mean weighed with p, along each row."""
    return g - (g * p).sum(axis=1, keepdims=True)


softmax_backward = {
    "right": lambda p, g: p * centred(p, g),
    "wrong sign": lambda p, g: -p * centred(p, g),
    "twice the right one": lambda p, g: 2.0 * p * centred(p, g),
    "factor $p$ forgotten": lambda p, g: centred(p, g),
    "plain mean for weighed": lambda p, g: p * (g - g.mean(axis=1, keepdims=True)),
    "all zeros": lambda p, g: np.zeros_like(p),
    "diagonal of Jacobian only": lambda p, g: p * (1.0 - p) * g,
}

# %% [markdown]
# Each is compared with the complex step twice: for $G = 1$ and for random $G$. The error is relative to the
# largest entry of the Jacobian, so that both are on one scale.


# %%
def softmax(x):
    """Return exp(x_k) / sum over j of exp(x_j), along each row."""
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def softmax_errors(upstream):
    """Return the largest error of every backward pass above, for one upstream gradient."""
    found = complex_step(lambda x: (upstream * softmax(x)).sum(), X)
    p = softmax(X)
    largest = np.abs(p * (1.0 - p)).max()
    return [np.abs(backward(p, upstream) - found).max() / largest for backward in softmax_backward.values()]


by_ones = softmax_errors(np.ones_like(X))
by_random = softmax_errors(rng.standard_normal(X.shape))

# %%
figure, axes = plt.subplots(figsize=(8, 4.0), layout="constrained")
places = np.arange(len(softmax_backward))[::-1]
axes.plot(by_ones, places + 0.12, "o", color=AMBER, markersize=9, label="upstream gradient of ones")
axes.plot(by_random, places - 0.12, "s", color=BLUE, markersize=8, label="random upstream gradient")
axes.axvline(1e-11, color=GREY, linestyle="--", linewidth=1)
axes.text(2e-11, 6.4, "found wrong beyond this line", color=GREY, fontsize=9)
axes.set(xscale="log", xlim=(3e-19, 30), ylim=(-0.6, 6.8), xlabel="error of the softmax's backward pass")
axes.set_yticks(places, list(softmax_backward))
axes.grid(axis="y", color="0.9")
axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2, frameon=False)
plt.show()

# %% [markdown]
# With ones, five wrong backward passes have errors at the level of rounding, as the right one has; only the
# last shows. With a random upstream gradient, all six are wrong by more than a percent.
#
# In general, let $J$ be the right Jacobian and $J'$ the coded one. One upstream gradient $G$ tests the
# single row $G^\top (J - J')$. For $G = 1$ that is the sum of all rows, and for every layer whose outputs
# have a constant sum (softmax, batch normalisation before its scale) the sum of the rows of $J$ is zero.
# For a random $G$, a wrong $J'$ passes with probability 0. This is why `check_gradients` weighs the outputs
# with random numbers.
#
# **Exercise 3.** The logarithm of the softmax, $y_k = x_k - \ln \sum_j e^{x_j}$. Derive
# $\partial y_k / \partial x_d$, then $\partial E / \partial x_d$ for an upstream gradient $G$, and write it
# in terms of $y$ and $G$. Would an upstream gradient of ones be blind here too? `check_gradients` decides
# about the code. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def log_softmax_backward(outputs, grads_wrt_outputs):
    """Return dE/dx (N, K) of y = ln softmax(x), for outputs y (N, K) and grads_wrt_outputs dE/dy (N, K).

    dy_k/dx_d = delta_kd - p_d with p = exp(y), and sum over k of p_k = 1 in every row.
    """
    ### BEGIN SOLUTION
    # For G = 1 this is 1 - K p, which is not 0: ones are not blind here.
    return grads_wrt_outputs - np.exp(outputs) * grads_wrt_outputs.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% tags=["check"]
class MyLogSoftmaxLayer(LogSoftmaxLayer):
    """The library's forward pass with your backward pass."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return what your function returns."""
        return log_softmax_backward(outputs, grads_wrt_outputs)


check_gradients(MyLogSoftmaxLayer(), (5, 4))
check_gradients(MyLogSoftmaxLayer(), (4, 4))
print("Exercise 3: right")

# %% [markdown]
# ## What we saw
#
# The errors of this notebook's layers, where they are numbers, as `check_gradients` measures them, with the
# library's own layers beside them:


# %%
class MySoftmaxLayer(SoftmaxLayer):
    """The library's forward pass with one of the backward passes above."""

    def __init__(self, backward):
        super().__init__()
        self.backward = backward

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        """Return dE/dx."""
        return self.backward(outputs, grads_wrt_outputs)


def worst(layer):
    """Return the worst relative error that the checker finds."""
    try:
        return check_gradients(layer, (5, 4)).worst
    except GradientError as error:
        return error.report.worst


mine = {name: error for name, error in errors.items() if error is not None}
mine |= {f"softmax: {name}": worst(MySoftmaxLayer(backward)) for name, backward in softmax_backward.items()}
mine |= {"library's AffineLayer": worst(AffineLayer(4, 3)), "library's SoftmaxLayer": worst(SoftmaxLayer())}

# %%
ranked = sorted(mine.items(), key=lambda item: item[1])
values = np.array([value for _, value in ranked])
figure, axes = plt.subplots(figsize=(8, 5.0), layout="constrained")
axes.axvspan(1e-18, 1e-11, color=TEAL, alpha=0.10, linewidth=0)
axes.axvline(1e-11, color=GREY, linestyle="--", linewidth=1)
axes.scatter(values, range(len(values)), s=60, c=np.where(values < 1e-11, TEAL, RED), zorder=3)
axes.text(1.5e-18, len(values) - 0.4, "right, to rounding", color=TEAL)
axes.text(2e-11, len(values) - 0.4, "wrong", color=RED)
axes.set(xscale="log", xlim=(1e-18, 30), ylim=(-0.7, len(values) + 0.4))
axes.set_xlabel("worst relative error by the complex step")
axes.set_yticks(range(len(values)), [name for name, _ in ranked])
axes.grid(axis="y", color="0.9")
plt.show()

# %% [markdown]
# Right layers lie at $10^{-16}$, wrong ones above $10^{-2}$, and between them are more than ten orders of
# magnitude of nothing. No judgement is needed where to draw the line: that is what the complex step buys.
#
# - The gradients of a layer follow from the chain rule over *all* outputs. Each $\delta$ removes a sum;
#   what is left tells where the batch is summed and which factor is transposed.
# - A gradient has the shape of its array; where sizes coincide, shapes prove nothing.
# - Central differences lose about a third of the digits at the best step, the complex step none at any
#   small one.
# - A gradient is tested along the upstream gradient that one chooses. Choose a random one.
#
# ## Further reading
#
# - W. Squire and G. Trapp, *Using complex variables to estimate derivatives of real functions*, SIAM Review
#   40(1), 1998, pages 110-112.
# - J. R. R. A. Martins, P. Sturdza and J. J. Alonso, *The complex-step derivative approximation*, ACM
#   Transactions on Mathematical Software 29(3), 2003, pages 245-262.
# - D. E. Rumelhart, G. E. Hinton and R. J. Williams, *Learning representations by back-propagating errors*,
#   Nature 323, 1986, pages 533-536.
