"""Learning rules and running statistics as plain arithmetic, apart from the library: what its own are held against.

A formula of a learning rule says where a parameter stands after a list of gradients. Numbers are longdouble.
"""

import numpy as np

ONE = np.longdouble(1)


def gradient_descent(learning_rate):
    def formula(start, grads):
        return start - learning_rate * sum(grads, start=0 * start)

    return formula


def momentum(learning_rate, mom_coeff):
    def formula(start, grads):
        velocity, place = 0 * start, start
        for grad in grads:
            velocity = mom_coeff * velocity - learning_rate * grad
            place = place + velocity
        return place

    return formula


def nesterov(learning_rate, mom_coeff):
    """The parameter is the point looked ahead to, where the gradient was taken: place + mom velocity."""

    def formula(start, grads):
        velocity, place = 0 * start, start
        for grad in grads:
            velocity = mom_coeff * velocity - learning_rate * grad
            place = place + velocity
        return place + mom_coeff * velocity

    return formula


def average(values, beta):
    """Return (1 - beta) times the sum of beta^(how long ago) value."""
    total = 0 * values[0]
    for value in values:
        total = beta * total + (ONE - beta) * value
    return total


def adam(learning_rate, beta_1, beta_2, epsilon, bias_correction=True, weight_decay=0.0):
    """The coursework's: epsilon is added to the root of the uncorrected second moment."""

    def formula(start, grads):
        place = start
        for t in range(1, len(grads) + 1):
            first, second = average(grads[:t], beta_1), average([g * g for g in grads[:t]], beta_2)
            size = learning_rate * ONE
            if bias_correction:
                size = size * np.sqrt(ONE - (ONE * beta_2) ** t) / (ONE - (ONE * beta_1) ** t)
            place = place - size * first / (np.sqrt(second) + epsilon) - weight_decay * place
        return place

    return formula


def kingma_adam(learning_rate, beta_1, beta_2, epsilon, bias_correction=True):
    def formula(start, grads):
        place = start
        for t in range(1, len(grads) + 1):
            first, second = average(grads[:t], beta_1), average([g * g for g in grads[:t]], beta_2)
            if bias_correction:
                first, second = first / (ONE - (ONE * beta_1) ** t), second / (ONE - (ONE * beta_2) ** t)
            place = place - learning_rate * first / (np.sqrt(second) + epsilon)
        return place

    return formula


def adagrad(learning_rate, epsilon, epsilon_inside_root=True):
    def formula(start, grads):
        place = start
        for t, grad in enumerate(grads, 1):
            squares = sum(g * g for g in grads[:t])
            place = place - learning_rate * grad / root(squares, epsilon, epsilon_inside_root)
        return place

    return formula


def rmsprop(learning_rate, beta, epsilon, epsilon_inside_root=True):
    def formula(start, grads):
        place = start
        for t, grad in enumerate(grads, 1):
            squares = average([g * g for g in grads[:t]], beta)
            place = place - learning_rate * grad / root(squares, epsilon, epsilon_inside_root)
        return place

    return formula


def root(squares, epsilon, inside):
    return np.sqrt(squares + epsilon) if inside else np.sqrt(squares) + epsilon


def running_statistics(mean, var, batches, momentum=0.1, momentum_weighs="batch", running_variance="unbiased"):
    """Return the running mean and variance of batch normalisation after these batches (N, C, ...), from their start."""
    weight = momentum if momentum_weighs == "batch" else 1 - momentum
    for batch in batches:
        values = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
        centred = values - values.sum(axis=1, keepdims=True) / values.shape[1]
        count = values.shape[1] - (1 if running_variance == "unbiased" else 0)
        mean = (1 - weight) * mean + weight * values.sum(axis=1) / values.shape[1]
        var = (1 - weight) * var + weight * (centred * centred).sum(axis=1) / count
    return mean, var


def check_running_statistics(layer, shape, **options):
    """Run a batch normalisation on three batches; raise AssertionError unless its running statistics are right.

    Evaluation must leave them as they are.
    """
    batches = list(np.random.default_rng(0).standard_normal((3, *shape)) * 2 + 1)
    mean, var = running_statistics(layer.running_mean.copy(), layer.running_var.copy(), batches, **options)
    for batch in batches:
        layer.fprop(batch)
        kept = layer.running_mean.copy(), layer.running_var.copy()
        layer.fprop(batch, stochastic=False)
        for name, before in zip(("running_mean", "running_var"), kept, strict=True):
            np.testing.assert_array_equal(getattr(layer, name), before, f"evaluation changed {name}")
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12, err_msg="running_mean is wrong")
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-12, err_msg="running_var is wrong")
