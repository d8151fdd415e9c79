"""The time of one training step (forward, backward, Adam) of the report's networks, ours against PyTorch's.

    python -m benchmarks.vgg_step [--pairs 9] [--networks vgg08 vgg38 ...] [--json FILE]

Both sides take the same float32 batch of 100 images, in turns, on the same number of threads. PyTorch runs in both
its memory layouts, and the faster one counts. Printed is the median of the ratios of neighbouring steps, and their
quartiles: a machine that is slow for a while is slow for both.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mlp import models
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.kernels import num_threads
from mlp.learning_rules import KingmaAdamLearningRule
from mlp.optimisers import train_step
from tests.oracle.torch_vgg import NETWORKS, TorchVGG

BATCH = 100


def our_step(network: tuple[int, bool, bool], inputs: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return a function that takes one training step with this library."""
    model, rule = models.vgg(*network), KingmaAdamLearningRule()
    engine = Engine(model, CrossEntropySoftmaxError())
    rule.initialise(model.params)
    return lambda: train_step(engine, rule, inputs, labels) and None


def torch_step(
    network: tuple[int, bool, bool], inputs: np.ndarray, labels: np.ndarray, layout: torch.memory_format
) -> Callable[[], None]:
    """Return a function that takes one training step with PyTorch."""
    model = TorchVGG(*network).to(memory_format=layout)
    adam = torch.optim.Adam(model.parameters())
    images, targets = torch.from_numpy(inputs).contiguous(memory_format=layout), torch.from_numpy(labels)

    def step() -> None:
        adam.zero_grad()
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        adam.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(network: tuple[int, bool, bool], pairs: int) -> dict[str, float]:
    """Return the median and the quartiles of our time over PyTorch's, and both medians in seconds."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((BATCH, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    labels = rng.integers(0, 100, BATCH)
    layouts = (torch.channels_last, torch.contiguous_format)
    theirs = [torch_step(network, inputs, labels, layout) for layout in layouts]
    for step in theirs:
        step()
    best = min(theirs, key=lambda step: min(seconds(step) for _ in range(3)))
    ours = our_step(network, inputs, labels)
    ours()
    times = np.array([(seconds(ours), seconds(best)) for _ in range(pairs)])
    low, median, high = np.percentile(times[:, 0] / times[:, 1], (25, 50, 75))
    medians = np.median(times, axis=0)
    return {"ratio": median, "low": low, "high": high, "ours": medians[0], "pytorch": medians[1]}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(num_threads())
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "threads": num_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "batch": BATCH,
        "pairs": args.pairs,
    }
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'network':12}  ours / PyTorch (quartiles)   ours s  PyTorch s")
    rows = {}
    for name in args.networks:
        rows[name] = row = compare(NETWORKS[name], args.pairs)
        print(
            f"{name:12}  {row['ratio']:14.2f} ({row['low']:.2f} - {row['high']:.2f})"
            f"{row['ours']:10.3f} {row['pytorch']:10.3f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
