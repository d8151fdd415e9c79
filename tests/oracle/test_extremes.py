"""Functions, errors, normalisations and learning rules at the ends of float32 and float64, against mpmath.

An exact result is the formula of the docstring at 700 digits, on the very numbers that the inputs hold. Where it is
representable, ours is finite, comes without a warning, and lies within 4 units in the last place. Wider claims say why.
"""

from types import SimpleNamespace

import numpy as np
import pytest

mpmath = pytest.importorskip("mpmath", reason="pip install 'mlp[oracle]'")

from mlp import errors, layers  # noqa: E402
from mlp import learning_rules as rules  # noqa: E402
from mlp.kernels import log_softmax, sigmoid, softmax, softplus  # noqa: E402
from mlp.layers.base import forward  # noqa: E402

MP = mpmath.mp.clone()
MP.dps = 700

float32_and_float64 = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def _no_overflow_and_nothing_invalid():
    """Underflow is how small results are rounded, and NumPy does not report it; all else raises."""
    with np.errstate(all="raise", under="ignore"):
        yield


# The judge.

exactly = np.frompyfunc(lambda x: MP.mpf(float(x)), 1, 1)
exact_exp, exact_log, exact_expm1, exact_log1p, exact_tanh, exact_cosh = (
    np.frompyfunc(f, 1, 1) for f in (MP.exp, MP.log, MP.expm1, MP.log1p, MP.tanh, MP.cosh)
)


def units(sizes, dtype):
    """Return the units in the last place of numbers of these sizes; for denormal ones, the smallest denormal."""
    limits = np.finfo(dtype)

    def unit(size):
        exponent = MP.frexp(size)[1] - 1 if size else limits.minexp
        return MP.ldexp(1, int(max(exponent, limits.minexp)) - limits.nmant)

    return np.frompyfunc(unit, 1, 1)(np.abs(np.asarray(sizes, dtype=object)))


def smallest(dtype):
    return MP.mpf(float(np.finfo(dtype).smallest_subnormal))


def representable(exact, dtype):
    return np.all(np.abs(exact) <= MP.mpf(float(np.finfo(dtype).max)))


def assert_within(got, exact, dtype, limit=4, sizes=None, slack=0):
    """Assert that `got` is off by at most `limit` (units of the exact result, or of `sizes`, + `slack`)."""
    got, exact = np.asarray(got), np.asarray(exact, dtype=object)
    assert got.dtype == dtype
    assert got.shape == exact.shape
    assert representable(exact, dtype), "the case asks for a number that the dtype does not have"
    assert np.isfinite(got).all(), f"not finite: {got[~np.isfinite(got)]}, exact {exact[~np.isfinite(got)]}"
    allowed = units(exact if sizes is None else sizes, dtype) + slack
    off = np.asarray(np.abs(exactly(got) - exact) / allowed).ravel()
    worst = max(range(off.size), key=off.__getitem__)
    text = f"{float(off[worst]):.3g} units off: {got.ravel()[worst]!r}, exactly {MP.nstr(exact.ravel()[worst], 12)}"
    assert off[worst] <= limit, text


# Elementwise functions.


def points(dtype):
    """Return numbers of both signs from the smallest denormal to 1e38 (float64: 1e300), densest around 1."""
    limits = np.finfo(dtype)
    ends = [limits.smallest_subnormal, limits.smallest_normal * 0.3, limits.smallest_normal, 1e-38, 1e-30, 1e-20, 1e-8]
    middle = [
        1e-4,
        1e-3,
        0.1,
        0.3,
        0.5,
        0.9,
        1,
        2,
        3,
        5,
        8,
        9,
        12,
        16,
        17,
        20,
        30,
        36,
        40,
        50,
        70,
        86,
        88,
        95,
        103,
        104,
    ]
    large = [150, 350, 372, 700, 709, 730, 745, 746, 1e4, 1e10, 1e30, 1e38] + [1e300] * (dtype == np.float64)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.uniform(0, 4, 60), rng.uniform(0, 40, 60), 10 ** rng.uniform(-9, 2, 60)])
    sizes = np.concatenate([ends, middle, large, drawn]).astype(dtype)
    return np.concatenate([-sizes[::-1], np.zeros(1, dtype), sizes])


def exact_sigmoid(x):
    return 1 / (1 + exact_exp(-x))


def exact_sigmoid_slope(x):
    return exact_sigmoid(x) * exact_sigmoid(-x)


def exact_elu(alpha, gamma=1.0):
    alpha, gamma = MP.mpf(alpha), MP.mpf(gamma)

    def value(x):
        return gamma * np.where(x > 0, x, alpha * exact_expm1(np.minimum(x, 0)))

    def slope(x):
        return gamma * np.where(x > 0, 1, alpha * exact_exp(np.minimum(x, 0)))

    return value, slope


KERNELS = {"sigmoid": (sigmoid, exact_sigmoid), "softplus": (softplus, lambda x: exact_log1p(exact_exp(x)))}
ACTIVATIONS = {
    "sigmoid": (lambda: layers.SigmoidLayer(), exact_sigmoid, exact_sigmoid_slope),
    "tanh": (lambda: layers.TanhLayer(), exact_tanh, lambda x: 1 / exact_cosh(x) ** 2),
    "elu": (lambda: layers.ELULayer(), *exact_elu(1.0)),
    "elu 0.3": (lambda: layers.ELULayer(0.3), *exact_elu(0.3)),
    "selu": (lambda: layers.SELULayer(), *exact_elu(1.6733, 1.0507)),
}
activations = pytest.mark.parametrize(
    ("build", "value", "slope"), ACTIVATIONS.values(), ids=[name.replace(" ", "-") for name in ACTIVATIONS]
)


@float32_and_float64
@pytest.mark.parametrize(("function", "exact"), KERNELS.values(), ids=KERNELS)
def test_kernels_are_right_from_end_to_end(function, exact, dtype):
    x = points(dtype)
    assert_within(function(x), exact(exactly(x)), dtype)


@float32_and_float64
@activations
def test_activations_are_right_from_end_to_end(build, value, slope, dtype):
    x = points(dtype)[:, None]
    assert_within(build().fprop(x), value(exactly(x)), dtype)


@float32_and_float64
@pytest.mark.parametrize("upstream", [1.0, -0.7, 1e30, 1e-30])
@activations
def test_slopes_of_activations_are_right_from_end_to_end(build, value, slope, upstream, dtype):
    # At 0 a slope is a convention. Where the slope itself is denormal, its own last place times the upstream gradient
    # is what can be asked for.
    x = points(dtype)[points(dtype) != 0][:, None]
    layer = build()
    grads = np.full_like(x, upstream)
    got = layer.bprop(x, layer.fprop(x), grads)
    exact_grads = exactly(grads)
    slack = np.abs(exact_grads) * smallest(dtype)
    # A slope is exp(-|x|) / (1 + exp(-|x|))^2: 2.5 units of NumPy's exp in float32, and three roundings. That of tanh
    # is 1 - y^2, as everywhere: right in units of 1, not of itself, where y rounds to 1.
    limit = 5 if dtype == np.float32 else 4
    sizes = np.abs(exact_grads) if isinstance(layer, layers.TanhLayer) else None
    assert_within(got, exact_grads * slope(exactly(x)), dtype, limit, slack=slack, sizes=sizes)


# Softmax.


def rows(dtype):
    """Return logits (N, 4) by name."""
    limits, rng = np.finfo(dtype), np.random.default_rng(1)
    end = 1e38 if dtype == np.float32 else 1e300
    groups = {
        "all equal": [[c] * 4 for c in (0.0, -0.0, 1e4, -1e30, end, -end, 1e-30, limits.smallest_subnormal)],
        "wide": [[1e4, -1e4, 0, 9990], [1e30, -1e30, 0, 1], [-1e30, -1e30, 1e30, 1e30], [-1e4, -1e4, -10090, -1e4]],
        "ends": [[end, -end, 0, end], [end, 0, -1, 3], [-end, -end, -end, -1], [1e-38, -1e-38, 1e-30, 0]],
        "sure": [[20, 0, -3, 1], [80.1, 0.3, -7.7, 3], [0.1, 90.3, 1.7, 2], [40.2, 0.7, 0.3, 0.9], [9, 0.5, 700, 1]],
        "mixed": [[1e-30, 3, -1e-30, 0.1], [1e4, 1e-30, 9999.3, 9950.7], [1e30, 1e4, 1, 1e-38], [5, -1e30, 4.3, -87]],
        "close and large": [[1000.123, 1000.01, 980.5, 920.3], [-1e4, -9999.1, -9940.7, -9999.9]],
        "ordinary": rng.standard_normal((40, 4)),
        "spread": rng.standard_normal((40, 4)) * 30,
    }
    return {name: np.array(group).astype(dtype) for name, group in groups.items()}


def exact_softmax(x):
    exps = exact_exp(x - x.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def exact_log_softmax(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - exact_log(exact_exp(shifted).sum(axis=-1, keepdims=True))


every_row = pytest.mark.parametrize("name", rows(np.float32))
UPSTREAMS = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.3, -1.7, 0.2, 1.1], [1e30, -1e30, 1e-30, 0.0], [0.7] * 4]


@float32_and_float64
@every_row
def test_softmax_is_right(name, dtype):
    x = rows(dtype)[name]
    for y in (softmax(x), layers.SoftmaxLayer().fprop(x)):
        assert_within(y, exact_softmax(exactly(x)), dtype)


@float32_and_float64
def test_softmax_takes_the_whole_range(dtype):
    limits = np.finfo(dtype)
    x = np.array([[limits.max, limits.min, 0, 1], [limits.min, limits.min, 3, limits.max], [limits.min] * 4])
    assert_within(softmax(x.astype(dtype)), exact_softmax(exactly(x)), dtype)


@float32_and_float64
@every_row
def test_log_softmax_is_right(name, dtype):
    x = rows(dtype)[name]
    for y in (log_softmax(x), layers.LogSoftmaxLayer().fprop(x)):
        assert_within(y, exact_log_softmax(exactly(x)), dtype)


@float32_and_float64
@pytest.mark.parametrize("spread", [1, 30])
def test_a_thousand_logits_are_as_good_as_four(spread, dtype):
    x = (np.random.default_rng(2).standard_normal((1, 1000)) * spread).astype(dtype)
    assert_within(softmax(x), exact_softmax(exactly(x)), dtype)
    assert_within(log_softmax(x), exact_log_softmax(exactly(x)), dtype)


@float32_and_float64
@pytest.mark.parametrize("upstream", UPSTREAMS, ids=str)
@every_row
def test_slopes_of_softmax_are_right(name, upstream, dtype):
    # dx_k = y_k sum of y_j (g_k - g_j), whose terms may cancel: the claim is relative to their sizes, and is 6 units,
    # since a term has two y, and a y may be 2.5 units off.
    x, layer = rows(dtype)[name], layers.SoftmaxLayer()
    grads = np.broadcast_to(np.array(upstream, dtype), x.shape).copy()
    got = layer.bprop(x, layer.fprop(x), grads)
    y, g = exact_softmax(exactly(x)), exactly(grads)
    terms = y[:, :, None] * y[:, None, :] * (g[:, :, None] - g[:, None, :])
    slack = smallest(dtype) * np.abs(g).max()
    assert_within(got, terms.sum(axis=-1), dtype, limit=6, sizes=np.abs(terms).sum(axis=-1), slack=slack)


@float32_and_float64
@pytest.mark.parametrize("upstream", UPSTREAMS, ids=str)
@every_row
def test_slopes_of_log_softmax_are_right(name, upstream, dtype):
    # dx_k = (1 - p_k) g_k - p_k (sum of the other g): the claim is relative to the sizes of these terms.
    x, layer = rows(dtype)[name], layers.LogSoftmaxLayer()
    grads = np.broadcast_to(np.array(upstream, dtype), x.shape).copy()
    got = layer.bprop(x, layer.fprop(x), grads)
    p, g = exact_softmax(exactly(x)), exactly(grads)
    sizes = (1 - p) * np.abs(g) + p * (np.abs(g).sum(axis=-1, keepdims=True) - np.abs(g))
    slack = smallest(dtype) * np.abs(g).max()
    assert_within(got, g - p * g.sum(axis=-1, keepdims=True), dtype, sizes=sizes, slack=slack)


# Cross-entropies.

SHARES = [0.25, 0.5, 0.0, 0.25]


def all_targets(n, dtype):
    """Yield hard targets of every class, as labels and as one-hot rows, and soft ones, with their exact rows."""
    for label in range(4):
        one_hot = np.tile(np.eye(4, dtype=dtype)[label], (n, 1))
        yield np.full(n, label), one_hot
        yield one_hot, one_hot
    soft = np.tile(np.array(SHARES, dtype), (n, 1))
    yield soft, soft


@float32_and_float64
@every_row
def test_cross_entropy_of_softmax_is_right(name, dtype):
    error, x = errors.CrossEntropySoftmaxError(), rows(dtype)[name]
    exact, n = exactly(x), len(x)
    logs, y = exact_log_softmax(exact), exact_softmax(exact)
    for targets, t in all_targets(n, dtype):
        t = exactly(t)
        total = -(t * logs).sum()
        if representable(total, dtype):  # the sum, not only the mean
            assert_within(error(x, targets), total / n, dtype)
        for i in range(n):
            one = x[i : i + 1], targets[i : i + 1]
            for value in (error(*one), error.value_and_grad(*one)[0]):
                assert_within(value, -(t[i] * logs[i]).sum(), dtype)
        hard = ((t == 0) | (t == 1)).all()
        sizes = None if hard else np.maximum(y, t) / n  # with soft targets the two may cancel
        with np.errstate(over="ignore" if not representable(total, dtype) else "warn"):
            both = error.value_and_grad(x, targets)
        for grads in (error.grad(x, targets), both[1]):
            assert_within(grads, (y - t) / n, dtype, sizes=sizes)


def probabilities(dtype):
    limits = np.finfo(dtype)
    below = 1 - limits.epsneg
    some = np.random.default_rng(3).dirichlet(np.ones(4), 30)
    ends = [
        [0.25] * 4,
        [below, 1e-30, 1e-38, limits.smallest_normal],
        [1e-30, below, 1e-8, 1e-38],
        [1e-38, 1e-30, 0.7, 0.3],
        [0.5, 0.5, 0.0, 1e-38],
    ]
    return np.concatenate([ends, some]).astype(dtype)


def exact_terms(t, y, function):
    """Return t function(y), which is 0 where t is, whatever y: 0 ln 0 = 0."""
    return np.where(t == 0, 0 * t, t * function(np.where(t == 0, 1 + 0 * y, y)))


@float32_and_float64
def test_cross_entropy_is_right(dtype):
    error, y = errors.CrossEntropyError(), probabilities(dtype)
    for targets, t in all_targets(len(y), dtype):
        for i in range(len(y)):
            if ((y[i] == 0) & (t[i] != 0)).any():
                continue  # the exact result is infinite
            exact, share = exactly(y[i : i + 1]), exactly(t[i : i + 1])
            value, slope = exact_terms(share, exact, exact_log), exact_terms(share, exact, lambda v: 1 / v)
            assert_within(error(y[i : i + 1], targets[i : i + 1]), -value.sum(), dtype)
            assert_within(error.grad(y[i : i + 1], targets[i : i + 1]), -slope, dtype)


@float32_and_float64
def test_cross_entropy_of_small_probabilities_is_averaged_without_overflow(dtype):
    y = np.full((8, 4), np.finfo(dtype).smallest_normal / 8 * 1.3, dtype)
    got = errors.CrossEntropyError().grad(y, np.zeros(8, int))[:, 0]
    assert_within(got, -1 / (8 * exactly(y[:, 0])), dtype)


YES_NO = [0.0, 0.25, 0.75, 1.0]


@float32_and_float64
@pytest.mark.parametrize("target", YES_NO)
def test_binary_cross_entropy_is_right(target, dtype):
    # The gradient's terms (1 - t) / (1 - y) and t / y may cancel: the claim is relative to the larger one.
    limits, error = np.finfo(dtype), errors.BinaryCrossEntropyError()
    values = [limits.smallest_normal, 1e-37, 1e-30, 1e-8, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1 - limits.epsneg]
    values += [0.0] * (target == 0) + [limits.smallest_subnormal] * (target == 0) + [1.0] * (target == 1)
    for y in (np.array([[value]], dtype) for value in values):
        t = np.array([[target]], dtype)
        exact, share = exactly(y), exactly(t)
        value = exact_terms(share, exact, exact_log) + exact_terms(1 - share, -exact, exact_log1p)
        assert_within(error(y, t), -value.sum(), dtype)
        up, down = exact_terms(1 - share, 1 - exact, lambda v: 1 / v), exact_terms(share, exact, lambda v: 1 / v)
        assert_within(error.grad(y, t), up - down, dtype, sizes=np.maximum(up, down))


@float32_and_float64
@pytest.mark.parametrize("target", YES_NO)
def test_binary_cross_entropy_of_sigmoid_is_right(target, dtype):
    error, y = errors.BinaryCrossEntropySigmoidError(), points(dtype)[:, None]
    t = np.full_like(y, target)
    exact, share = exactly(y), exactly(t)
    values = exact_log1p(exact_exp(-np.abs(exact))) + np.maximum(exact, 0) - exact * share
    for i in range(len(y)):
        assert_within(error(y[i : i + 1], t[i : i + 1]), values[i, 0], dtype)
    up, down = (1 - share) * exact_sigmoid(exact), share * exact_sigmoid(-exact)
    sizes = None if target in (0, 1) else np.maximum(up, down) / len(y)  # they may cancel
    assert_within(error.grad(y, t), (up - down) / len(y), dtype, sizes=sizes)
    ordinary = np.abs(y[:, 0]) < 1e4
    assert_within(error(y[ordinary], t[ordinary]), values[ordinary].sum() / int(ordinary.sum()), dtype)


# Normalisations.


def channels(dtype):
    """Return the values of one channel, by name."""
    limits, rng = np.finfo(dtype), np.random.default_rng(4)
    end = 1e38 if dtype == np.float32 else 1e300
    tiny = float(limits.smallest_subnormal)
    spread = np.array([1.0, -0.4, 0.3, 0.9, -1.0])
    constants = {"0.1": 0.1, "1000.1": 1000.1, "-1e30": -1e30, "1e-30": 1e-30, "end": end, "denormal": 3 * tiny}
    groups = {
        "ordinary": rng.standard_normal(8),
        "two": [0.3, -1.2],
        "zeros": [0.0] * 4,
        "denormal": [tiny, 0.0, 3 * tiny, -2 * tiny],
        "1e-38": spread * 1e-38,
        "1e-30": spread * 1e-30,
        "1e-3": spread * 1e-3,
        "1e4": spread * 1e4,
        "1e18": spread * 1e18,
        "1e20": spread * 1e20,
        "1e30": spread * 1e30,
        "end": spread * end,
        "ends": [end, -end, end, end, end, end, end],
        "mixed": [1e30, 1.0, 1e-30, -1.0],
        "one large": [1e4, 1e-4, 2e-4, -1e-4, 0.0],
    }
    groups |= {f"constant {text} x {n}": [c] * n for text, c in constants.items() for n in (2, 3, 7)}
    return {name: np.array(group).astype(dtype) for name, group in groups.items()}


def exact_normalisation(x, gamma, beta, epsilon, g, mean=None, var=None):
    """Return what a normalisation of the values `x` gives and, for the upstream gradient `g`, its gradients."""
    batch = mean is None
    if batch:
        mean = x.sum() / len(x)
        var = ((x - mean) ** 2).sum() / len(x)
    inverse_std = 1 / MP.sqrt(var + epsilon)
    normalised = (x - mean) * inverse_std
    grads = g - g.sum() / len(x) - normalised * (g * normalised).sum() / len(x) if batch else g
    return SimpleNamespace(
        mean=mean,
        var=var,
        normalised=normalised,
        outputs=gamma * normalised + beta,
        sizes=abs(beta) + abs(gamma) * max(np.abs(normalised)),
        grads=gamma * inverse_std * grads,
        grads_sizes=abs(gamma) * inverse_std * max(np.abs(g)),
        grad_gamma=(g * normalised).sum(),
        each_size=np.abs(g) * max(np.abs(normalised)),
        grad_gamma_size=np.abs(g * normalised).sum(),
        inverse_std=inverse_std,
        grad_beta=g.sum(),
        grad_beta_size=np.abs(g).sum(),
    )


def batch_norm():
    return layers.BatchNormalizationLayer(1)


NORMALISATIONS = {
    "batch": (batch_norm, lambda x: x[:, None]),
    "batch, spatial": (batch_norm, lambda x: x[None, None]),
    "layer": (None, lambda x: x[None]),
    "group": (lambda: layers.GroupNormalizationLayer(1, 1), lambda x: x[None, None]),
}
normalisations = pytest.mark.parametrize("kind", NORMALISATIONS)
every_channel = pytest.mark.parametrize("name", channels(np.float32))
SCALES = [(1.0, 0.0), (-0.7, 0.5), (1e-10, 0.0), (1e20, -1e20)]


def normalisation(kind, x, gamma, beta, dtype):
    """Return the layer and its inputs for one channel of values `x`."""
    build, shaped = NORMALISATIONS[kind]
    layer = (build or (lambda: layers.LayerNormalizationLayer(len(x))))().astype(dtype)
    layer.gamma[...], layer.beta[...] = gamma, beta
    return layer, np.ascontiguousarray(shaped(x))


def fprop(layer, inputs):
    # The running variance of large numbers is not representable: it may, and does, overflow.
    large = np.abs(inputs).max() > np.sqrt(np.finfo(inputs.dtype).max) / 4
    with np.errstate(over="ignore" if large else "raise"):
        return forward(layer, inputs, True)


@float32_and_float64
@pytest.mark.parametrize(("gamma", "beta"), SCALES)
@every_channel
@normalisations
def test_normalisations_are_right(kind, name, gamma, beta, dtype):
    # y = gamma xhat + beta may cancel: the claim is relative to the largest |gamma xhat| + |beta| of the channel.
    x = channels(dtype)[name]
    layer, inputs = normalisation(kind, x, gamma, beta, dtype)
    exact = exact_normalisation(exactly(x), exactly(dtype(gamma)), exactly(dtype(beta)), layer.epsilon, exactly(x))
    slack = abs(exactly(dtype(gamma))) * exact.inverse_std * smallest(dtype)  # x - mean may be half a denormal
    assert_within(fprop(layer, inputs).ravel(), exact.outputs, dtype, sizes=[exact.sizes] * len(x), slack=slack)


@float32_and_float64
@pytest.mark.parametrize("upstream", [1.0, 1e30, 1e-30])
@every_channel
@normalisations
def test_slopes_of_normalisations_are_right(kind, name, upstream, dtype):
    # g, its mean and xhat mean(g xhat) cancel (for two values, all but wholly): the claim on dE/dx is relative to the
    # largest |gamma g| / std of the channel, and that on the sums to the sum of their terms' sizes.
    x, gamma = channels(dtype)[name], dtype(-0.7)
    layer, inputs = normalisation(kind, x, gamma, 0.5, dtype)
    g = (np.random.default_rng(5).uniform(0.2, 1.0, len(x)) * [1, -1, 1, 1, -1, -1, 1, 1][: len(x)] * upstream).astype(
        dtype
    )
    exact = exact_normalisation(exactly(x), exactly(gamma), 0, layer.epsilon, exactly(g))
    grads, (grad_gamma, grad_beta) = layer.backprop(inputs, fprop(layer, inputs), g.reshape(inputs.shape))
    assert_within(grads.ravel(), exact.grads, dtype, sizes=[exact.grads_sizes] * len(x))
    slack = np.abs(exactly(g)).sum() * exact.inverse_std * smallest(dtype)  # as above
    if kind == "layer":
        assert_within(grad_gamma, exactly(g) * exact.normalised, dtype, sizes=exact.each_size, slack=slack)
        assert_within(grad_beta, exactly(g), dtype)
    else:
        assert_within(grad_gamma, [exact.grad_gamma], dtype, sizes=[exact.grad_gamma_size], slack=slack)
        assert_within(grad_beta, [exact.grad_beta], dtype, sizes=[exact.grad_beta_size])


@float32_and_float64
@pytest.mark.parametrize("options", [{}, {"momentum_weighs": "running", "running_variance": "biased"}], ids=str)
@every_channel
def test_running_statistics_are_right(name, options, dtype):
    # The mean may cancel: the claim is relative to the largest value. A variance that is not representable is infinite.
    x = channels(dtype)[name]
    layer = layers.BatchNormalizationLayer(1, **options).astype(dtype)
    fprop(layer, x[:, None])
    exact = exact_normalisation(exactly(x), 1, 0, layer.epsilon, exactly(x))
    new = MP.mpf(layer.momentum) if not options else 1 - MP.mpf(layer.momentum)
    assert_within(layer.running_mean, [new * exact.mean], dtype, sizes=[new * max(np.abs(exactly(x)))])
    var = (1 - new) + new * exact.var * (1 if options else MP.mpf(len(x)) / (len(x) - 1))
    if representable(var, dtype):
        assert_within(layer.running_var, [var], dtype)
    else:
        assert np.isposinf(layer.running_var).all()


@float32_and_float64
def test_channels_of_all_sizes_do_not_disturb_each_other(dtype):
    chosen = {name: x[:4] for name, x in channels(dtype).items() if len(x) >= 4}
    layer = layers.BatchNormalizationLayer(len(chosen)).astype(dtype)
    outputs = fprop(layer, np.stack(list(chosen.values()), axis=1))
    for x, y in zip(chosen.values(), outputs.T, strict=True):
        exact = exact_normalisation(exactly(x), 1, 0, layer.epsilon, exactly(x))
        assert_within(y, exact.outputs, dtype, sizes=[exact.sizes] * 4, slack=exact.inverse_std * smallest(dtype))


@float32_and_float64
@normalisations
def test_nearly_constant_values_are_right_for_nearly_these_values(kind, dtype):
    # Where the mean is far larger than the standard deviation, a change of x in its last place changes y a lot. The
    # fair claim is that y is right for inputs that are 4 units off.
    step = np.spacing(dtype(1000.1))
    for x in (dtype(1000.1) + step * np.array(ks, dtype) for ks in ([0, 1], [0, 0, 1], [3, -2, 0, 5, 1])):
        layer, inputs = normalisation(kind, x, 1.0, 0.0, dtype)
        exact = exact_normalisation(exactly(x), 1, 0, layer.epsilon, exactly(x))
        shift = 4 * MP.mpf(float(step)) / MP.sqrt(exact.var + layer.epsilon)
        assert_within(fprop(layer, inputs).ravel(), exact.outputs, dtype, limit=1, slack=shift)


STATISTICS = [(0.0, 1.0), (0.3, 0.0), (-1e30, 1e30), (1e-30, 1e-38), (5.0, 1e38), (1e38, 1.0), (0.0, 1e-45)]


@float32_and_float64
@pytest.mark.parametrize(("mean", "var"), STATISTICS)
@every_channel
def test_batch_normalisation_in_evaluation_is_right(name, mean, var, dtype):
    # y is compared with the larger of |gamma xhat| and |beta|, which may cancel.
    x, g = channels(dtype)[name], np.ones(1, dtype)
    layer = layers.BatchNormalizationLayer(1).astype(dtype)
    layer.gamma[...], layer.beta[...] = -0.7, 0.5
    layer.running_mean[...], layer.running_var[...] = mean, var
    statistics = [exactly(array)[0] for array in (layer.gamma, layer.beta, layer.running_mean, layer.running_var)]
    for value in x:
        inputs = np.full((1, 1), value, dtype)
        gamma, beta, exact_mean, exact_var = statistics
        exact = exact_normalisation(exactly(inputs[0]), gamma, beta, layer.epsilon, exactly(g), exact_mean, exact_var)
        if not representable(exact.outputs, dtype):
            continue  # 1e38 / 0.003 in float32
        outputs = forward(layer, inputs, False)
        assert_within(outputs[0], exact.outputs, dtype, sizes=[exact.sizes])
        grads, (grad_gamma, grad_beta) = layer.backprop(inputs, outputs, g[:, None])
        assert_within(grads[0], exact.grads, dtype)
        assert_within(grad_gamma, [exact.grad_gamma], dtype)
        assert_within(grad_beta, [exact.grad_beta], dtype)


# Learning rules. The exact rules below are the docstrings', step by step.


def exact_adam(gs, lr, b1, b2, epsilon, form):
    p = m1 = m2 = MP.mpf(0)
    for t, g in enumerate(gs, 1):
        m1, m2 = b1 * m1 + (1 - b1) * g, b2 * m2 + (1 - b2) * g**2
        if form == "kingma":
            step = lr * (m1 / (1 - b1**t)) / (MP.sqrt(m2 / (1 - b2**t)) + epsilon)
        else:
            correction = MP.sqrt(1 - b2**t) / (1 - b1**t) if form == "corrected" else 1
            step = lr * correction * m1 / (MP.sqrt(m2) + epsilon)
        p -= step
        yield p


def exact_adagrad(gs, lr, epsilon, inside):
    p = s = MP.mpf(0)
    for g in gs:
        s += g**2
        p -= lr * g / (MP.sqrt(s + epsilon) if inside else MP.sqrt(s) + epsilon)
        yield p


def exact_rmsprop(gs, lr, beta, epsilon, inside):
    p = s = MP.mpf(0)
    for g in gs:
        s = beta * s + (1 - beta) * g**2
        p -= lr * g / (MP.sqrt(s + epsilon) if inside else MP.sqrt(s) + epsilon)
        yield p


LR, B1, B2, EPSILON = (MP.mpf(x) for x in (1e-3, 0.9, 0.999, 1e-8))
RULES = {
    "adam": (lambda: rules.AdamLearningRule(1e-3), lambda gs: exact_adam(gs, LR, B1, B2, EPSILON, "corrected")),
    "adam, uncorrected": (
        lambda: rules.AdamLearningRule(1e-3, bias_correction=False),
        lambda gs: exact_adam(gs, LR, B1, B2, EPSILON, "uncorrected"),
    ),
    "adam, no memory": (
        lambda: rules.AdamLearningRule(1e-3, 0.0, 0.0),
        lambda gs: exact_adam(gs, LR, MP.mpf(0), MP.mpf(0), EPSILON, "corrected"),
    ),
    "adam, decay of 0": (  # parameters start at 0, and what the decay takes of a small step is left out
        lambda: rules.AdamLearningRuleWithWeightDecay(1e-3, weight_decay=0.0),
        lambda gs: exact_adam(gs, LR, B1, B2, EPSILON, "corrected"),
    ),
    "kingma": (lambda: rules.KingmaAdamLearningRule(1e-3), lambda gs: exact_adam(gs, LR, B1, B2, EPSILON, "kingma")),
    "adagrad": (lambda: rules.AdaGradLearningRule(1e-3), lambda gs: exact_adagrad(gs, LR, EPSILON, True)),
    "adagrad, epsilon outside": (
        lambda: rules.AdaGradLearningRule(1e-3, epsilon_inside_root=False),
        lambda gs: exact_adagrad(gs, LR, EPSILON, False),
    ),
    "rmsprop": (lambda: rules.RMSPropLearningRule(1e-3), lambda gs: exact_rmsprop(gs, LR, B1, EPSILON, True)),
    "rmsprop, epsilon outside": (
        lambda: rules.RMSPropLearningRule(1e-3, epsilon_inside_root=False),
        lambda gs: exact_rmsprop(gs, LR, B1, EPSILON, False),
    ),
}
every_rule = pytest.mark.parametrize(("build", "exact"), RULES.values(), ids=RULES)
STEPS = [1.0, 2.3, 0.7, 1.1]  # of one sign: first moments of gradients that cancel lose digits as any sum does


def check_rule(build, exact, size, dtype):
    """Take four steps from 0 with gradients of this size, and compare the parameter after each."""
    param, rule = np.zeros(1, dtype), build()
    rule.initialise([param])
    gs = (np.array(STEPS) * size).astype(dtype)
    # A denormal first moment is off by its own last place, which the step divides by epsilon and by 1 - beta_1 = 0.1.
    slack = 10 * LR / EPSILON * smallest(dtype) if hasattr(rule, "moms_1") else 0
    for g, p in zip(gs, exact(exactly(gs)), strict=True):
        rule.update_params([np.array([g])])
        assert_within(param, [p], dtype, slack=slack)


@float32_and_float64
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-36, 1e-30, 1e-20, 1e-10, 1e-8, 1e-4, 1.0, 1e4, 1e10, 1e18])
@every_rule
def test_steps_are_right_for_gradients_of_all_sizes(build, exact, size, dtype):
    check_rule(build, exact, size, dtype)
    check_rule(build, exact, -size, dtype)


# The step would be of the order of lr, but the state, the mean of g^2, has no number for it: what is promised is a
# warning, and a parameter that stays where it is.
@float32_and_float64
@pytest.mark.parametrize("power", [0.55, 0.8, 0.98])
@every_rule
def test_gradients_whose_squares_overflow_are_warned_of_and_move_nothing(build, exact, power, dtype):
    param, rule = np.full(2, 3.0, dtype), build()
    rule.initialise([param])
    with np.errstate(over="warn"), pytest.warns(RuntimeWarning, match="overflow"):
        rule.update_params([np.full(2, float(np.finfo(dtype).max) ** power, dtype)])
    np.testing.assert_array_equal(param, np.full(2, 3.0, dtype))


@float32_and_float64
@pytest.mark.parametrize("decay", [1e-5, 0.1])
@pytest.mark.parametrize("size", [1e-30, 1e-8, 1.0, 1e18])
@pytest.mark.parametrize("start", [1e-30, 1.0, -3e4, 1e30])
def test_weight_decay_is_right(start, size, decay, dtype):
    # The claim is relative to the largest of the parameter and Adam's step, which may cancel.
    param, rule = np.full(1, start, dtype), rules.AdamLearningRuleWithWeightDecay(1e-3, weight_decay=decay)
    rule.initialise([param])
    p, (g,) = exactly(param)[0], exactly(np.array([size], dtype))
    (moved,) = exact_adam([g], LR, B1, B2, EPSILON, "corrected")
    rule.update_params([np.array([size], dtype)])
    assert_within(param, [p + moved - MP.mpf(decay) * p], dtype, sizes=[max(abs(p), abs(moved))])
