"""What needs a process of its own: a peak of memory, a number of threads.

    python -m benchmarks.children memory ours|channels_last|contiguous THREADS
    python -m benchmarks.children steps

The first trains for some steps and prints megabytes; the second takes a step of our library for every line that
comes, and prints the loss.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from benchmarks.measure import Call

NETWORK = "vgg38_bn_rc"
STEPS = 5
ROOT = Path(__file__).parents[1]
TABLE = Path("/proc/self/status")
PEAK, PRESENT = "VmHWM", "VmRSS"


def command(*words: object) -> list[str]:
    """Return the command line of a child."""
    return [sys.executable, "-m", "benchmarks.children", *map(str, words)]


def memory_of(side: str, threads: int) -> dict[str, float]:
    """Return the megabytes of a fresh training process, at its peak and after its imports."""
    output = subprocess.run(command("memory", side, threads), check=True, capture_output=True, text=True, cwd=ROOT)
    result: dict[str, float] = json.loads(output.stdout)
    return result


@contextmanager
def stepper(threads: int) -> Iterator[Call]:
    """Give a function that lets a process with this number of threads take a step, and returns the loss."""
    variables = {**os.environ, "MLP_NUM_THREADS": str(threads)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command("steps"), **pipes, text=True, bufsize=1, cwd=ROOT, env=variables) as child:

        def step() -> float:
            child.stdin.write("\n")
            return float(child.stdout.readline())

        try:
            yield step
        finally:
            child.stdin.close()


def _memory(side: str, threads: int) -> None:
    step_of = _our_step if side == "ours" else _torch_step
    step, imports = step_of(side, threads)
    for _ in range(STEPS):
        step()
    if side == "ours" and "torch" in sys.modules:
        raise RuntimeError("our side imported PyTorch")
    print(json.dumps({"peak": _megabytes(PEAK), "imports": imports}))


def _our_step(_: str, threads: int) -> tuple[Call, float]:
    from benchmarks import ours

    os.environ["MLP_NUM_THREADS"] = str(threads)
    imports = _megabytes(PRESENT)
    return ours.trainer(ours.network(NETWORK), *ours.images()), imports


def _torch_step(layout: str, threads: int) -> tuple[Call, float]:
    _leave_out_our_layers()
    import numpy as np

    from benchmarks import pytorch

    pytorch.torch.set_num_threads(threads)
    imports = _megabytes(PRESENT)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((100, 32, 32, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    return pytorch.trainer(pytorch.network(NETWORK), inputs, rng.integers(0, 100, 100), layout), imports


def _leave_out_our_layers() -> None:
    """Spare PyTorch's process our library, from which `tests.oracle.torch_vgg` takes a class that is not used here."""
    module = ModuleType("mlp.layers")
    module.BatchNormalizationLayer = None
    sys.modules["mlp.layers"] = module


def _megabytes(field: str) -> float:
    """Return a size of this process in MB, from Linux's table of it.

    (`getrusage` would count what the parent had before it started this process.)
    """
    lines = TABLE.read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(field))
    return int(kilobytes) * 1024 / 1e6


def _steps() -> None:
    from benchmarks import ours

    step = ours.trainer(ours.network(NETWORK), *ours.images())
    for _ in sys.stdin:
        print(step(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        _memory(sys.argv[2], int(sys.argv[3]))
    else:
        _steps()
