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
# # From CPU to GPU
#
# After this notebook you can
#
# - write functions that compute wherever their arrays lie, and move a model and its batches to a GPU,
# - estimate the memory that a training needs, and what TF32 costs in accuracy,
# - explain why sums in another order have other bits, and how a library can still give the same bits twice,
# - compare plans with plain layers, and measure a training step without fooling yourself,
# - read a profile of a step, and say what could be made faster.
#
# You need to know what a convolution costs (notebook 2) and how floating-point numbers are stored. No GPU
# is needed: where there is none, everything runs on the CPU.

# %%
import math
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from mlp.backend import array_module, device_of, to_cpu, to_device, usable_gpu
from mlp.checkpoints import load_checkpoint, save_checkpoint
from mlp.data_providers import ImageDataProvider, load_digits
from mlp.engine import Engine, profile
from mlp.errors import CrossEntropySoftmaxError
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import summary, vgg08, vgg38_bn_rc
from mlp.optimisers import evaluate, train_step

BLUE, RED, TEAL, AMBER, GREY = "#1f6fb4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a7a7a"
plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.spines.top": False})
plt.rcParams["axes.spines.right"] = False

status = usable_gpu()
DEVICE = "gpu" if status.usable else "cpu"
print(f"This notebook runs on the {DEVICE.upper()}.")
print(f"GPU: {status.reason}")

# %% [markdown]
# `usable_gpu` runs one small kernel and looks at its result, rather than believe that a GPU which is listed
# can be used. If it says no, it says why.
#
# **What is known about the library on a GPU.** In the README's words: *not yet run on a GPU.* What there is
# has been tested without a card: all CUDA sources are compiled for the CPU and run there, launch by launch,
# through a strict stand-in for CuPy, and compared with the layers; `nvcc` compiles them for sm_80 and sm_90
# (and, but for TF32, sm_75). So this notebook promises no speed on a GPU. It shows what to change, and how
# to find out. (The README of your version may know more.)
#
# ## Computation follows the data
#
# CuPy has NumPy's functions for arrays in the memory of an NVIDIA GPU. The library has no switch for the
# device: an array *is* somewhere, and what is computed from it is computed there. `array_module(x)` returns
# the module that owns `x`, which by custom is called `xp`.


# %%
def gelu_tanh(x):
    """Return the tanh form of GELU, elementwise, on the device of x."""
    xp = array_module(x)
    return 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


x = to_device(np.linspace(-2, 2, 5, dtype=np.float32), DEVICE)
y = gelu_tanh(x)
print(f"module {array_module(y).__name__}, device {device_of(y)}, dtype {y.dtype}")
print(to_cpu(y))

# %% [markdown]
# `np.tanh(x)` would work on the CPU alone: NumPy cannot compute on a GPU, and CuPy refuses to be mixed with
# it. (The library does so too, with a sentence, at a model's door.) A constant is a Python number, from
# `math`: it takes on the dtype of the array. `np.sqrt(2 / np.pi)` is a NumPy float64, and would turn a
# float32 batch into a float64 one, on either device; and float64 is slow on most GPUs.
#
# **Exercise 1.** Write $\ln \sum_j \exp x_{ij}$ for each row, in a form that does not overflow,
#
# $$\ln \sum_j e^{x_{ij}} = m_i + \ln \sum_j e^{x_{ij} - m_i}, \qquad m_i = \max_j x_{ij},$$
#
# so that it runs on either device. The check tries extreme rows and both float types, and looks whether the
# function mentions NumPy. The solution is folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def log_sum_exp(x):
    """Return ln sum_j exp(x_ij), shape (N,), for x (N, K), on the device and in the dtype of x."""
    ### BEGIN SOLUTION
    xp = array_module(x)
    largest = x.max(axis=1, keepdims=True)
    return largest[:, 0] + xp.log(xp.exp(x - largest).sum(axis=1))
    ### END SOLUTION


# %% tags=["check"]
rows = np.array([[0.0, 0.0, 0.0], [1000.0, 1000.0, 0.0], [-1000.0, -1001.0, -1002.0]])
with np.errstate(all="ignore"):
    got = to_cpu(log_sum_exp(to_device(rows, DEVICE)))
    single = log_sum_exp(to_device(rows.astype(np.float32), DEVICE))
expected = np.array([np.log(3), 1000 + np.log(2), -1000 + np.log(1 + np.exp(-1) + np.exp(-2))])
assert got.shape == (3,), f"the result has shape {got.shape}, expected (3,)"
assert np.allclose(got, expected, rtol=1e-12), f"got {got}, expected {expected}"
assert single.dtype == np.float32, f"float32 inputs gave {single.dtype}"
names = set(log_sum_exp.__code__.co_names) & {"np", "numpy"}
assert not names, f"the function uses {names.pop()}, which cannot compute on a GPU: use array_module(x)"
print("Exercise 1: right")

# %% [markdown]
# ## What changes in a training
#
# One thing: the model is moved. `model.to_gpu()`, or `model.to_device("gpu")`, returns a copy there. On the
# command line it is `--device gpu` (default `auto`), and `Optimiser` moves the batches to where the model
# is. In a loop of one's own, as here, `to_device` does.

# %%
digits = load_digits().limited(500)
train_data = ImageDataProvider(digits.train, 50, digits.mean, digits.std, shuffle_order=True)
valid_data = ImageDataProvider(digits.valid, 50, digits.mean, digits.std)

options = {"num_filters": 8, "num_classes": 10, "batch_norm": True}
model = vgg08(**options, rng=np.random.RandomState(0)).to_device(DEVICE)
engine, rule = Engine(model, CrossEntropySoftmaxError()), KingmaAdamLearningRule(1e-2)
rule.initialise(model.params)
for epoch in range(6):
    for inputs, labels in train_data:
        train_step(engine, rule, to_device(inputs, DEVICE), to_device(labels, DEVICE))
    found = evaluate(engine, valid_data, DEVICE)
    print(f"epoch {epoch + 1}: validation error {found.loss:.2f}, accuracy {found.accuracy:.0f} %")

# %% [markdown]
# The rule is initialised with the parameters of the *moved* model: a copy has arrays of its own, and a rule
# that holds the old ones would train a model that nobody uses. (`train_step` refuses that.)
#
# Checkpoints know no device. What was trained on one can be gone on with, or used, on the other:

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "model.safetensors"
    save_checkpoint(file, model, rule, {"epoch": 6})
    fresh = vgg08(**options)  # on the CPU
    progress = load_checkpoint(file, fresh)
same = all(np.array_equal(to_cpu(a), b) for a, b in zip(model.params, fresh.params, strict=True))
print(f"progress {progress}; device {device_of(fresh.params[0])}; same parameters: {same}")

# %% [markdown]
# ## Will it fit?
#
# A GPU's memory is smaller than the computer's, and a training needs three kinds of it:
#
# - the parameters, their gradients, and what the learning rule keeps (Adam: two numbers each), $4 P$
#   numbers;
# - the activations: the backward pass needs what each layer put out, $A$ numbers an example;
# - working memory, which is small beside the others.
#
# `summary` counts $P$ and $A$.
#
# **Exercise 2.** Write the estimate. The check compares it with numbers worked out by hand. The solution is
# folded in the next cell; write your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def training_bytes(parameters, activations, batch_size, bytes_per_number=4):
    """Return the bytes that a training with Adam needs, without working memory.

    `parameters` is P, and `activations` is A, the numbers that all layers put out for one example.
    """
    ### BEGIN SOLUTION
    return bytes_per_number * (4 * parameters + batch_size * activations)
    ### END SOLUTION


# %% tags=["check"]
for arguments, right_bytes in (((10, 0, 7), 160), ((0, 10, 7), 280), ((10, 100, 3, 8), 2720)):
    got = training_bytes(*arguments)
    assert got == right_bytes, f"training_bytes{arguments} is {got}, expected {right_bytes}"
print("Exercise 2: right")

# %% [markdown]
# How good is it? `tracemalloc` sees what NumPy allocates on the CPU. A step of the report's deepest network
# with 50 images, by the plain layers, and by a plan, which works in place where nobody reads the input
# again and gives memory out anew after its last reader:

# %%
rng = np.random.default_rng(0)


def batch_of(count):
    """Return random images (count, 3, 32, 32), channels-last in memory, and labels, on the CPU."""
    inputs = rng.standard_normal((count, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    return inputs, rng.integers(0, 100, count)


network, inputs_and_labels = vgg38_bn_rc(rng=np.random.RandomState(0)), batch_of(50)
sizes = summary(network, (3, 32, 32))
numbers = sum(row.activation_bytes for row in sizes.rows) // 4
estimate = 4 * (2 * sizes.parameters + 50 * numbers)
print(f"estimate {estimate / 1e6:6.1f} MB: parameters, their gradients, activations")
for kind in ("layers", "plan"):
    runner = Engine(network, CrossEntropySoftmaxError(), kind=kind)
    tracemalloc.start()
    runner.forward_backward(*inputs_and_labels)
    print(f"{kind:8} {tracemalloc.get_traced_memory()[1] / 1e6:6.1f} MB at the most")
    tracemalloc.stop()

# %% [markdown]
# The plain layers take somewhat more than the estimate, for gradients and working memory, and the plan
# somewhat less: good enough to say which batches cannot fit.

# %%
figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
batch_sizes = np.geomspace(1, 4096, 40)
for filters, colour in ((32, BLUE), (64, TEAL), (128, RED)):
    sizes = summary(vgg38_bn_rc(num_filters=filters), (3, 32, 32))
    numbers = sum(row.activation_bytes for row in sizes.rows) // 4
    needed = 4 * (4 * sizes.parameters + batch_sizes * numbers) / 2**30
    axis.loglog(batch_sizes, needed, color=colour, label=f"VGG38 BN+RC, {filters} filters")
for memory in (8, 24, 80):
    axis.axhline(memory, color=GREY, linewidth=1, linestyle="--")
    axis.annotate(f"a card with {memory} GiB", (1, 1.08 * memory), fontsize=9, color=GREY)
axis.set(xlabel="batch size", ylabel="memory by the estimate (GiB)", ylim=(0.005, 200))
axis.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# *The estimate for the same network, with Adam, at three widths. For small batches the parameters matter,
# from a few images on only the activations: twice the filters, twice the memory; twice the batch, twice the
# memory.*
#
# ## Precision
#
# Trainings run in float32, 23 bits of fraction. Products on tensor cores can take their factors in
# **TF32**, which has float32's range of exponents and 10 bits of fraction, and add up in float32
# (`precision="tf32"`, for 3x3 convolutions on a GPU). What that costs can be seen on any machine: round the
# factors, and multiply in float32.
#
# A float32 is 32 bits: one of sign, 8 of exponent, 23 of fraction. To round the fraction to 10 bits, to the
# nearest, add half of the last bit that stays, and clear the 13 bits below it. Where the fraction
# overflows, the carry goes into the exponent, which is right.
#
# **Exercise 3.** Write the rounding. (`x.view(np.uint32)` are the same bits, taken as whole numbers.) The
# check looks at chosen numbers, and at the error of many. The solution is folded in the next cell; write
# your own first.


# %% jupyter={"source_hidden": true} tags=["exercise"]
def to_tf32(x):
    """Return x, float32 of any shape, rounded to 10 bits of fraction, to the nearest, ties away from zero."""
    ### BEGIN SOLUTION
    bits = x.view(np.uint32) + np.uint32(1 << 12)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)
    ### END SOLUTION


# %% tags=["check"]
u = 2.0**-10  # the last bit that stays, for numbers from 1 to 2
large = 2.0**127
chosen = np.array([1, 1 + u, 1 + u / 2, 1 + u / 4, -1 - u / 2, 2 - u / 4, 0, large + large * u], np.float32)
expected = np.array([1, 1 + u, 1 + u, 1, -1 - u, 2, 0, large + large * u], np.float32)
kept = chosen.copy()
got = to_tf32(chosen)
assert (chosen == kept).all(), "the argument was changed"
assert got.dtype == np.float32, f"the result is {got.dtype}, expected float32"
for number, value, wanted in zip(chosen, got, expected, strict=True):
    assert value == wanted, f"{float(number)!r} became {float(value)!r}, expected {float(wanted)!r}"
many = np.random.default_rng(5).standard_normal((300, 300)).astype(np.float32)
worst = (abs(to_tf32(many).astype(np.float64) - many) / abs(many)).max()
assert worst <= 2.0**-11, f"the largest relative error is {worst:.2g}, more than 2^-11 = {2.0**-11:.2g}"
assert worst > 2.0**-12, f"the largest relative error is {worst:.2g}: is that more than 10 bits of fraction?"
print("Exercise 3: right")


# %%
def rounded(x, bits):
    """Return float32 numbers with so many bits of fraction, by a way that needs no bit patterns."""
    fraction, exponent = np.frexp(x.astype(np.float64))  # x = fraction * 2^exponent, 1/2 <= |fraction| < 1
    return np.ldexp(np.rint(fraction * 2.0 ** (bits + 1)), exponent - bits - 1).astype(np.float32)


terms = 2 ** np.arange(2, 14)
errors = {"float32": [], "TF32 factors, float32 sums": []}
for count in terms:
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, count), (count, 64)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    for found, product in zip(errors.values(), (a @ b, rounded(a, 10) @ rounded(b, 10)), strict=True):
        found.append(np.sqrt(np.mean((product - exact) ** 2) / np.mean(exact**2)))
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, found), colour in zip(errors.items(), (BLUE, RED), strict=True):
    axis.loglog(terms, found, "o-", color=colour, label=name)
for bits, colour in ((24, BLUE), (11, RED)):
    axis.axhline(2.0**-bits, color=colour, linestyle=":", linewidth=1.4, label=f"$2^{{-{bits}}}$")
axis.set(xlabel="terms in a sum, $K$", ylabel="relative error (r.m.s.)", xlim=(3, 12000), ylim=(1e-8, 1e-2))
axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.57))
plt.show()

# %% [markdown]
# *The error of a matrix product with random entries, relative to the exact one. Dotted: half a unit in the
# last place of a factor. TF32's error is some thousand times float32's, and does not grow with $K$: each
# term has its own rounding error, and errors add up as the terms do, like random numbers. A convolution of
# the report's networks has $K = 288$.*
#
# Whether a training minds is a question for an experiment. A gradient check does: prove gradients in
# float64, where all layers run too.
#
# ## The same bits twice
#
# Floating-point addition is not associative: $(a + b) + c$ and $a + (b + c)$ are rounded in other places. A
# sum by many threads, each adding to the total when it is done, depends on which one is done first.

# %%
values = rng.standard_normal(100_000).astype(np.float32)
exact = values.astype(np.float64).sum()
sums = []
for _ in range(200):
    parts = rng.permutation(values).reshape(-1, 100).sum(axis=1)  # 1,000 partial sums
    sums.append(np.add.accumulate(parts)[-1])  # added up one after the other
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
axis.hist((np.array(sums, np.float64) - exact) * 1e4, bins=40, color=BLUE)
axis.set(xlabel="sum, minus the exact one ($10^{-4}$)", ylabel="number of orders")
plt.show()
print(f"{len(set(sums))} different sums of the same 100,000 numbers in 200 orders")

# %% [markdown]
# *The same 100,000 numbers of float32, summed in 200 orders. None of the results is wrong; each is one
# rounding of many.*
#
# So a library that wants the same bits twice must fix the order. Here a batch is cut in a way that does not
# depend on the number of threads, and partial results are added in the order of the parts. On the GPU all
# sums are made in a fixed order, without atomic additions, so that two runs should give the same bits. On
# the CPU we can try. The number of threads is read once, from `MLP_NUM_THREADS`, so each number gets a
# process of its own:

# %%
SCRIPT = """
import hashlib, time
import numpy as np
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.models import vgg08
rng = np.random.default_rng(0)
images, labels = rng.standard_normal((100, 3, 32, 32)).astype(np.float32), rng.integers(0, 100, 100)
engine, times = Engine(vgg08(rng=np.random.RandomState(0)), CrossEntropySoftmaxError()), []
for _ in range(6):
    start = time.perf_counter()
    step = engine.forward_backward(images, labels)
    times.append(time.perf_counter() - start)
digest = hashlib.sha256(b"".join(grad.tobytes() for grad in step.grads)).hexdigest()
print(digest, sorted(times[1:])[2])
"""
digests, times = {}, {}
for threads in (1, 2, 3):
    settings = {**os.environ, "MLP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    digests[threads], seconds = done.stdout.split()
    times[threads] = float(seconds)
    speed = times[1] / times[threads]
    print(f"MLP_NUM_THREADS={threads}: gradients {digests[threads][:16]}..., {speed:.2f} times as fast as 1")
print("the same bits:", len(set(digests.values())) == 1)

# %% [markdown]
# The digits are the start of the SHA-256 of all gradients. The speed depends on your machine's cores, and
# on what else they have to do.
#
# ## Plans against plain layers
#
# `Engine(model, error)` runs a model by **plans**: parts of a batch go through several layers while they
# are in the cache, on threads, into memory that is given out beforehand; on a GPU the layers run as fused
# kernels. `kind="layers"` runs the layers' own passes, which is what to step through with a debugger. They
# must agree:

# %%
double = vgg08(rng=np.random.RandomState(0), dtype=np.float64)
inputs, labels = batch_of(20)
steps = [
    Engine(double, CrossEntropySoftmaxError(), kind=kind).forward_backward(inputs.astype(np.float64), labels)
    for kind in ("plan", "layers")
]
worst = max(abs(p - q).max() / abs(q).max() for p, q in zip(steps[0].grads, steps[1].grads, strict=True))
print(f"in float64, largest difference of a gradient, relative to its largest entry: {worst:.0e}")

# %% [markdown]
# How much faster is a plan? A time by itself says little on a machine that does other things too. So we
# time pairs, one right after the other, and look at the ratio, its median and its quartiles. Two rules
# besides: the first steps are not counted (plans are made, memory is touched for the first time, kernels
# are compiled), and on a GPU one must *wait*: the host only starts kernels, and a clock that is stopped
# without waiting has measured how fast they are started.


# %%
def wait():
    """Wait until the GPU has done all that it was told."""
    if DEVICE == "gpu":
        array_module(to_device(np.zeros(1), DEVICE)).cuda.Device().synchronize()


def seconds(run):
    """Return the time that a function takes."""
    wait()
    start = perf_counter()
    run()
    wait()
    return perf_counter() - start


network = vgg08(rng=np.random.RandomState(0)).to_device(DEVICE)
batch = [to_device(array, DEVICE) for array in batch_of(100)]
engines = {kind: Engine(network, CrossEntropySoftmaxError(), kind=kind) for kind in ("plan", "layers")}
for runner in engines.values():
    for _ in range(3):
        runner.forward_backward(*batch)
plan_step, layers_step = (lambda r=runner: r.forward_backward(*batch) for runner in engines.values())
pairs = [(seconds(plan_step), seconds(layers_step)) for _ in range(7)]
low, middle, high = np.percentile([plan / layers for plan, layers in pairs], (25, 50, 75))
print(f"VGG08, 100 images: a plan takes {middle:.2f} ({low:.2f} - {high:.2f}) of the layers' time")

# %% [markdown]
# The batch matters too. Each step has costs that do not depend on the batch: calls, launches, threads to
# wake. A model of it is $t(N) = t_0 + N\, t_1$, so an image takes $t_0 / N + t_1$. Where the machine
# computes fast, $t_1$ is small, and $t_0$ rules for longer: the reason why a GPU wants large batches.

# %%
batch_sizes = np.array([1, 2, 5, 10, 25, 50, 100, 200])
per_image = []
for count in batch_sizes:
    batch = [to_device(array, DEVICE) for array in batch_of(int(count))]
    engines["plan"].forward_backward(*batch)
    repeats = [seconds(lambda b=batch: engines["plan"].forward_backward(*b)) for _ in range(5)]
    per_image.append(1e3 * min(repeats) / count)
slope, offset = np.polyfit(batch_sizes, batch_sizes * per_image, 1, w=1 / (batch_sizes * per_image))
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.semilogx(batch_sizes, per_image, "o", color=BLUE, markersize=7, label="measured (fastest of 5)")
many = np.geomspace(1, 200, 100)
label = f"$t_0/N + t_1$ with $t_0$ = {offset:.2g} ms, $t_1$ = {slope:.2g} ms"
axis.semilogx(many, offset / many + slope, color=RED, label=label)
axis.set_xticks(batch_sizes, batch_sizes)
axis.minorticks_off()
axis.set_title(f"A training step of VGG08, {DEVICE.upper()}")
axis.set(xlabel="batch size $N$", ylabel="ms per image", ylim=(0, None))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# *The time of a training step, without the learning rule, divided by the batch. Small batches pay the fixed
# costs for few images. The line is the model, fitted; on a CPU it is crude, as batches of different sizes
# are also cut differently.*
#
# ## Where the time goes
#
# `profile` times every action of a plan (on a GPU, every launch), with the operations and the bytes that it
# needs. On the command line it is `python -m mlp.experiments profile vgg08`, for each of the report's
# experiments. We put together what is of one kind:

# %%
batch = [to_device(array, DEVICE) for array in batch_of(100)]
found = profile(engines["plan"], *batch, repeats=5)
kinds = {}
for cost in found.costs:
    name = cost.what.split(" (")[0]
    spent, flops, moved = kinds.get(name, (0.0, 0, 0))
    kinds[name] = (spent + cost.seconds, flops + cost.flops, moved + cost.bytes)
total = sum(spent for spent, _, _ in kinds.values())
top = sorted(kinds.items(), key=lambda item: -item[1][0])[:10]
figure, axis = plt.subplots(figsize=(9, 4.4), layout="constrained")
for place, (_, (spent, flops, moved)) in enumerate(top):
    axis.barh(place, 100 * spent / total, color=BLUE if flops else AMBER)
    rate = f"{flops / spent / 1e9:.0f} GFLOP/s" if flops else f"{moved / spent / 1e9:.1f} GB/s"
    axis.annotate(f" {rate}", (100 * spent / total, place), va="center", fontsize=9)
axis.set_yticks(range(len(top)), [name for name, _ in top])
axis.invert_yaxis()
axis.set_title(f"A training step of VGG08, 100 images, {DEVICE.upper()}")
axis.set(xlabel="share of the time of all threads (%)", xlim=(0, 118 * top[0][1][0] / total))
axis.bar(0, 0, color=BLUE, label="matrix products")
axis.bar(0, 0, color=AMBER, label="everything else")
axis.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# *The ten dearest kinds of action. Convolutions (blue) are judged by their operations a second, counted as
# the plain sums are (Winograd's algorithm, notebook 2, computes less, so the figure may exceed what the
# machine can do). The rest (amber) computes next to nothing for each number that it reads: it is judged by
# the bytes that it moves.*
#
# What could be faster follows from the kind. A convolution that is far from the machine's peak wants larger
# products or a better algorithm. What moves bytes wants to move fewer of them, so it is fused with its
# neighbours: that is what plans do on a CPU by keeping parts of the batch in the cache, and on a GPU by
# finishing a convolution's outputs before they go to memory. And what takes no time need not be made
# faster.
#
# ## What we saw
#
# - The array decides where it is computed. To train on a GPU, move the model; batches and checkpoints
#   follow.
# - The memory of a training is its activations, $A$ numbers an image, and for small batches four numbers a
#   parameter.
# - TF32 rounds factors to 10 bits: relative errors of some $10^{-4}$ a product, whatever the length of the
#   sum.
# - Another order of a sum has other bits. With a fixed order, 1, 2 and 3 threads gave the same gradients to
#   the bit.
# - Time pairs, give the spread, leave out the first steps, and on a GPU wait before looking at the clock.
# - None of this says how fast the library is on a GPU. With a card, after
#   `pip install -e '.[test,cuda13]'`, `python -m pytest -m gpu` shows whether it is right there, and
#   `python -m benchmarks.gpu --json FILE`, with a PyTorch for CUDA as the other side, how fast.
#
# ## Further reading
#
# - D. Goldberg, What every computer scientist should know about floating-point arithmetic, ACM Computing
#   Surveys 23(1), 1991.
# - S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model for multicore
#   architectures, Communications of the ACM 52(4), 2009.
# - A. Lavin, S. Gray, Fast algorithms for convolutional neural networks, CVPR 2016 (Winograd's algorithm).
# - R. Okuta, Y. Unno, D. Nishino, S. Hido, C. Loomis, CuPy: a NumPy-compatible library for NVIDIA GPU
#   calculations, Workshop on Machine Learning Systems at NIPS 2017.
