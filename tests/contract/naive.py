"""The coursework's training loop once more, for networks of affine layers, in nothing but NumPy and float64."""

from itertools import pairwise

import numpy as np

from .common import softmax
from .test_learning_rules import STATES


class NaiveData:
    """The order of a provider: one permutation when it is made, one when it is reset, one after every pass."""

    def __init__(self, inputs, labels, batch_size, rng, num_classes=10):
        self.original = inputs.astype(np.float64), np.eye(num_classes)[labels]
        self.order, self.batch_size, self.rng = np.arange(len(labels)), batch_size, rng
        self.permute()

    def permute(self):
        self.order = self.order[self.rng.permutation(len(self.order))]

    def reset(self):
        self.order = np.arange(len(self.order))
        self.permute()

    def batches(self):
        """Yield the batches of one pass, then draw the next order."""
        for i in range(len(self.order) // self.batch_size):
            part = self.order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self.original[0][part], self.original[1][part]
        self.permute()


class NaiveNet:
    """affine - [dropout] - activation - affine - softmax with cross-entropy; weights uniform as Glorot says."""

    def __init__(self, sizes, rng, activation="relu", l2=0.0, dropout=None):
        self.activation, self.l2, self.dropout = activation, l2, dropout
        self.params = []
        for inputs, outputs in pairwise(sizes):
            bound = np.sqrt(6.0 / (inputs + outputs))
            self.params += [rng.uniform(-bound, bound, (outputs, inputs)), np.zeros(outputs)]

    def forward(self, x, mask):
        w1, b1, w2, b2 = self.params
        a = (x @ w1.T + b1) * mask
        h = {"relu": lambda v: np.maximum(v, 0.0), "sigmoid": lambda v: 1 / (1 + np.exp(-v))}[self.activation](a)
        return a, h, h @ w2.T + b2

    def predict(self, x):
        return self.forward(x, 1.0 if self.dropout is None else self.dropout[1])[2]

    def grads(self, x, t):
        mask = 1.0
        if self.dropout is not None:
            rng, keep = self.dropout
            mask = (rng.uniform(size=(1, len(self.params[1]))) < keep).astype(float)
        a, h, y = self.forward(x, mask)
        g = (softmax(y) - t) / len(x)
        back = (g @ self.params[2]) * ((a > 0) if self.activation == "relu" else h * (1 - h)) * mask
        weights = [back.T @ x + self.l2 * self.params[0], g.T @ h + self.l2 * self.params[2]]
        return [weights[0], back.sum(axis=0), weights[1], g.sum(axis=0)]

    def penalty(self):
        return 0.5 * self.l2 * sum((w**2).sum() for w in self.params[::2])


class NaiveRule:
    """A learning rule with the given options on a list of arrays."""

    def __init__(self, name, options, params):
        self.name, self.options, self.params, self.step = name, options, params, 0
        self.learning_rate = options["learning_rate"]
        self.state = {key: [np.zeros(p.shape) for p in params] for key in STATES[name]}

    def update(self, grads):
        self.step += 1
        for i, g in enumerate(grads):
            self.params[i] = self.params[i] + self.change(i, g)

    def change(self, i, g):
        """Return what is added to parameter `i`."""
        o, s, lr, t = self.options, self.state, self.learning_rate, self.step
        if self.name == "GradientDescentLearningRule":
            return -lr * g
        if "Momentum" in self.name:
            old = s["moms"][i]
            new = s["moms"][i] = o["mom_coeff"] * old - lr * g
            return (1 + o["mom_coeff"]) * new - o["mom_coeff"] * old if "Nesterov" in self.name else new
        if self.name == "AdaGradLearningRule":
            s["sum_sq_grads"][i] = s["sum_sq_grads"][i] + g**2
            return -lr * g / np.sqrt(s["sum_sq_grads"][i] + o["epsilon"])
        if self.name == "RMSPropLearningRule":
            s["moms_2"][i] = o["beta"] * s["moms_2"][i] + (1 - o["beta"]) * g**2
            return -lr * g / np.sqrt(s["moms_2"][i] + o["epsilon"])
        m1 = s["moms_1"][i] = o["beta_1"] * s["moms_1"][i] + (1 - o["beta_1"]) * g
        m2 = s["moms_2"][i] = o["beta_2"] * s["moms_2"][i] + (1 - o["beta_2"]) * g**2
        alpha = lr * np.sqrt(1 - o["beta_2"] ** t) / (1 - o["beta_1"] ** t)
        decay = lr / o["learning_rate"] * o.get("weight_decay", 0.0) * self.params[i]
        return -alpha * m1 / (np.sqrt(m2) + o["epsilon"]) - decay


def evaluate(net, data):
    """Return the means over the batches of one pass of the error and of the accuracy."""
    errors, hits = [], []
    for x, t in data.batches():
        y = net.predict(x)
        errors.append(-(t * np.log(softmax(y))).sum() / len(x))
        hits.append((y.argmax(axis=1) == t.argmax(axis=1)).mean())
    return [np.mean(errors), np.mean(hits)]


def train(net, rule, sets, num_epochs, stats_interval, rates=None, with_penalty=False):
    """Return the rows of statistics; `rates` are the learning rates of the epochs, if they change."""

    def row():
        return [v for data in sets for v in evaluate(net, data)] + ([net.penalty()] if with_penalty else [])

    rows = [row()]
    for epoch in range(1, num_epochs + 1):
        rule.learning_rate = rates[epoch - 1] if rates else rule.learning_rate
        for x, t in sets[0].batches():
            rule.update(net.grads(x, t))
            net.params = rule.params
        if epoch % stats_interval == 0:
            rows.append(row())
    return np.array(rows)
