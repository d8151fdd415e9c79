"""What several files of this folder use."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

REQUIRED = inspect.Parameter.empty
BY_BEHAVIOUR = object()
"""A default that is an object, checked elsewhere by what it does."""
ROOT = Path(__file__).parent.parent.parent


def check_signature(function, **expected):
    """Assert that the arguments (after `self`) start with the expected ones, in order, and others have defaults."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    ours = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ours[: len(expected)]] == list(expected)
    for parameter, (name, default) in zip(ours, expected.items(), strict=False):
        if default is not REQUIRED and default is not BY_BEHAVIOUR:
            same = parameter.default is default or parameter.default == default
            assert same, f"{name} defaults to {parameter.default!r}, not {default!r}"
            assert type(parameter.default) is type(default) or default in ([], ()), name
        elif default is BY_BEHAVIOUR:
            assert parameter.default is not REQUIRED, name
    extra = [p for p in parameters if p.name not in expected]
    wild = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    assert [p.name for p in extra if p.default is REQUIRED and p.kind not in wild] == []


def run_python(code, tmp_path):
    """Run code in a fresh interpreter, in an empty folder, and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "MLP_DATA_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same_state(ours, theirs):
    """Return whether two RandomStates will draw the same numbers from now on."""
    (a, keys_a, *rest_a), (b, keys_b, *rest_b) = ours.get_state(), theirs.get_state()
    return a == b and np.array_equal(keys_a, keys_b) and rest_a == rest_b


def softmax(x):
    """Return the softmax of every row, by loops."""
    y = np.zeros(x.shape)
    for i, row in enumerate(x):
        powers = np.exp(row - row.max())
        y[i] = powers / powers.sum()
    return y


def numeric_grad(function, x, step=1e-6):
    """Return the gradient of a scalar function by central differences."""
    grad = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        high, low = x.copy(), x.copy()
        high[place] += step
        low[place] -= step
        grad[place] = (function(high) - function(low)) / (2 * step)
    return grad
