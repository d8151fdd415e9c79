import os
import subprocess
import sys

import numpy as np
import pytest

from mlp.kernels import num_threads, parallel, run_parts


@pytest.fixture
def threads(monkeypatch):
    """Set the number of threads for one test."""

    def clear():
        parallel.num_threads.cache_clear()
        parallel._pool.cache_clear()

    def use(count):
        monkeypatch.setenv("MLP_NUM_THREADS", str(count))
        clear()

    clear()
    yield use
    clear()


@pytest.mark.parametrize("count", [1, 5, 8, 9, 100])
@pytest.mark.parametrize("grain", [1, 3, 200])
def test_parts_cover_the_range_in_order(threads, count, grain):
    threads(3)
    parts = run_parts(lambda start, stop: (start, stop), count, grain)
    assert len(parts) <= parallel.PARTS
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(count))
    assert all(start % grain == 0 for start, _ in parts)


def test_parts_do_not_depend_on_the_number_of_threads(threads):
    seen = []
    for count in (1, 2, 5):
        threads(count)
        assert num_threads() == count
        seen.append(run_parts(lambda start, stop: (start, stop), 37, 2))
    assert seen[0] == seen[1] == seen[2]


def test_an_error_in_a_part_comes_out_as_it_is(threads):
    threads(2)

    def work(start, stop):
        if start:
            raise FloatingPointError("in a part")

    with pytest.raises(FloatingPointError, match="in a part"):
        run_parts(work, 10, 1)


def test_a_wrong_number_of_threads_is_refused(threads):
    threads("two")
    with pytest.raises(ValueError, match="MLP_NUM_THREADS is 'two', expected a whole number"):
        num_threads()


_STEP = """
import numpy as np
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.models import vgg
from mlp.optimisers import train_step
model, rule = vgg(1, True, True, num_filters=8, rng=np.random.RandomState(1)), KingmaAdamLearningRule()
rule.initialise(model.params)
rng = np.random.default_rng(0)
for _ in range(3):
    train_step(Engine(model, CrossEntropySoftmaxError()), rule, rng.standard_normal((60, 3, 32, 32)).astype("f"),
               rng.integers(0, 100, 60))
import hashlib
print(hashlib.sha256(b"".join(p.tobytes() for p in model.params)).hexdigest())
"""


def test_training_gives_the_same_bits_on_any_number_of_threads():
    prints = {
        subprocess.run(
            [sys.executable, "-c", _STEP],
            env={**os.environ, "MLP_NUM_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in ("1", "2", "3")
    }
    assert len(prints) == 1


def test_a_forked_child_makes_its_own_threads(threads):
    threads(2)
    run_parts(lambda start, stop: np.ones(3).sum(), 20, 1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"%d" % len(run_parts(lambda start, stop: start, 20, 1)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"7"
