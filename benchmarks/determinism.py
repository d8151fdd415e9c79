"""The same seed gives the same bits: a training on several numbers of threads, and once more, step by step.

    python -m benchmarks.determinism [--filters 8] [--steps 1000] [--threads 1 2 3]

The report's VGG38 with batch normalisation and residual connections, batches of 100 augmented images of `shapes`, Adam
with the report's schedule, on the CPU: as a run of `mlp.experiments` does it, but for the files. Each training is a
process of its own, with its own number of threads for this library and for the BLAS and its own seed of Python's
hashes, and the first number of threads comes twice. Every tenth of the steps it prints the SHA-256 of all losses so
far, parameters, running statistics and moments. The exit status is 1 where two trainings differ, and what was printed
shows from when on.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.machine import ROOT, machine, versions
from mlp.data_providers import ImageDataProvider, Prefetcher, load_shapes
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.optimisers import train_step
from mlp.schedulers import CosineAnnealing

TIMES = 10
"""How often a training prints its hash."""


def train(filters: int, steps: int) -> Iterator[tuple[int, str]]:
    """Train, and yield (steps done, the SHA-256 of all numbers there are), `TIMES` times."""
    experiment = replace(EXPERIMENTS["vgg38_bn_rc"], num_filters=filters, dataset="shapes")
    data = load_shapes()
    images = ImageDataProvider(
        data.train, experiment.batch_size, data.mean, data.std, experiment.seed, shuffle_order=True, augment=True
    )
    model, rule = experiment.build_model(data.num_classes), KingmaAdamLearningRule(experiment.learning_rate)
    engine = Engine(model, CrossEntropySoftmaxError())
    rule.initialise(model.params)
    schedule = CosineAnnealing(experiment.min_learning_rate, experiment.learning_rate, experiment.epochs)
    digest = hashlib.sha256()
    with Prefetcher(images) as batches:
        for step in range(steps):
            epoch, index = divmod(step, images.num_batches)
            schedule.update_learning_rule(rule, epoch)
            found = train_step(engine, rule, *batches.batch(epoch, index))
            digest.update(np.float64(found.loss).tobytes())
            if (step + 1) % max(steps // TIMES, 1) == 0:
                for array in [*model.named_arrays().values(), *rule.moms_1, *rule.moms_2]:
                    digest.update(array.tobytes())
                yield step + 1, digest.hexdigest()


def main() -> int:
    """Train on each number of threads and print the hashes; return 1 where two trainings differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        for step, value in train(args.filters, args.steps):
            print(step, value, flush=True)
        return 0
    for part in (machine(), versions()):
        print("  ".join(f"{key} {value}" for key, value in part.items()))
    found = []
    for turn, threads in enumerate([*args.threads, args.threads[0]]):
        start = time.perf_counter()
        found.append(_lines_of(args, threads, turn))
        print(f"{threads} threads, {time.perf_counter() - start:.0f} s", flush=True)
        print(*found[-1], sep="\n", flush=True)
    same = all(lines == found[0] for lines in found)
    print("the same bits" if same else "NOT the same bits")
    return 0 if same else 1


def _lines_of(args: argparse.Namespace, threads: int, turn: int) -> list[str]:
    """Return what a training prints in a process of its own."""
    settings = {"MLP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(turn * 123)}
    settings |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks.determinism", "--child"]
    command += ["--filters", str(args.filters), "--steps", str(args.steps)]
    process = subprocess.run(
        command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True
    )
    return process.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
