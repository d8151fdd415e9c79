"""The rows of the table. Each is measured in a process of its own, whose memory is gone after it.

    python -m benchmarks.rows NAME PAIRS

prints what it measured as JSON. What only one side needs is imported when that side is built.
"""

import json
import sys
from contextlib import ExitStack
from functools import partial
from typing import Protocol

import numpy as np

from benchmarks import ours
from benchmarks.children import TABLE, memory_of, stepper
from benchmarks.measure import Call, Row, compared, differences, in_turns
from mlp.kernels import num_threads

Calls = dict[str, Call]


class Measurement(Protocol):
    """Measures with so many pairs, and returns a row of the table, or several."""

    def __call__(self, label: str, pairs: int) -> list[Row]: ...  # noqa: D102


def training(label: str, pairs: int, network: str, num_filters: int = 32, most: int = sys.maxsize) -> list[Row]:
    """Compare training steps: forward, cross-entropy, backward, Adam."""
    from benchmarks import pytorch

    model, batch = ours.network(network, num_filters), ours.images()
    calls = {
        f"PyTorch {layout}": pytorch.trainer(pytorch.network(network, model.params, num_filters), *batch, layout)
        for layout in pytorch.LAYOUTS
    }
    return _against_pytorch(label, {"ours": ours.trainer(model, *batch), **calls}, min(pairs, most))


def inference(label: str, pairs: int, network: str) -> list[Row]:
    """Compare outputs in evaluation mode."""
    from benchmarks import pytorch

    model, (inputs, _) = ours.network(network), ours.images()
    calls = {
        f"PyTorch {layout}": pytorch.predictor(pytorch.network(network, model.params), inputs, layout)
        for layout in pytorch.LAYOUTS
    }
    return _against_pytorch(label, {"ours": ours.predictor(model, inputs), **calls}, pairs)


def vectors(label: str, pairs: int) -> list[Row]:
    """Compare many steps of the MLP, whose inputs are vectors: no layouts, but two of PyTorch's Adams."""
    from benchmarks import pytorch

    adams = {"PyTorch fused Adam": True, "PyTorch default Adam": False}

    def sides(batches: list[ours.Batch]) -> Calls:
        model = ours.mlp()
        theirs = {name: pytorch.mlp(model.params) for name in adams}
        calls = {name: pytorch.batch_trainer(theirs[name], batches, fused) for name, fused in adams.items()}
        return {"ours": ours.mlp_trainer(model, batches), **calls}

    batches = ours.mlp_batches()
    return _against_pytorch(label, sides(batches), pairs, checked=sides(batches[:5]))


def _against_pytorch(label: str, calls: Calls, pairs: int, checked: Calls | None = None) -> list[Row]:
    """Compare calls after a check: of the calls themselves, or, where rounding errors would grow, of shorter ones."""
    import torch

    torch.set_num_threads(num_threads())
    found = differences(checked or calls)
    times = in_turns(calls, pairs, warm_up=1 if checked else 0)
    return [compared(label, times, "ours", list(calls)[1:], differences=found)]


def engines(label: str, pairs: int, network: str) -> list[Row]:
    """Compare our two ways to run a model."""
    calls = {kind: ours.trainer(ours.network(network), *ours.images(), kind) for kind in ("plan", "layers")}
    found = differences(calls)
    return [compared(label, in_turns(calls, pairs), "plan", ["layers"], differences=found)]


def memory(label: str, pairs: int, most: int = 3) -> list[Row]:
    """Compare peaks of resident memory of training processes."""
    if not TABLE.exists():
        return [{"row": label, "note": f"needs {TABLE}"}]
    sides = {"ours": "ours", "PyTorch channels_last": "channels_last", "PyTorch contiguous": "contiguous"}
    runs = [{name: memory_of(side, num_threads()) for name, side in sides.items()} for _ in range(min(pairs, most))]
    peaks, imports = (
        {name: np.array([run[name][key] for run in runs]) for name in sides} for key in ("peak", "imports")
    )
    note = "after imports " + ", ".join(f"{name} {np.median(sizes):.0f} MB" for name, sizes in imports.items())
    return [compared(label, peaks, "ours", list(sides)[1:], unit="MB", note=note)]


def growth(label: str, pairs: int, counts: tuple[int, ...] = (25, 50, 200, 400), most: int = 7) -> list[Row]:
    """Compare our times per image at several sizes of the batch with that at 100 images."""
    calls = {
        f"{count} images": ours.trainer(ours.network("vgg38_bn_rc"), *ours.images(count)) for count in (100, *counts)
    }
    times = in_turns(calls, min(pairs, most), warm_up=2)
    each = {name: values / int(name.split()[0]) for name, values in times.items()}
    return [compared(f"{label}-{count}", each, f"{count} images", ["100 images"], unit="s/image") for count in counts]


def threads(label: str, pairs: int) -> list[Row]:
    """Compare our step on two threads with that on one. The losses must be the same to the bit."""
    with ExitStack() as stack:
        calls = {name: stack.enter_context(stepper(n)) for name, n in (("2 threads", 2), ("1 thread", 1))}
        found = differences(calls, limits=(0.0, 0.0))
        return [compared(label, in_turns(calls, pairs), "2 threads", ["1 thread"], differences=found)]


def data_path(label: str, pairs: int, batches: int = 10) -> list[Row]:
    """Compare making one training batch with taking a step with it."""
    made = ours.data_batches()
    step = ours.trainer(ours.network("vgg38"), *ours.images())
    times = in_turns({"batch": lambda: [next(made) for _ in range(batches)], "step": step}, pairs, warm_up=2)
    times["batch"] /= batches
    return [compared(label, times, "batch", ["step"])]


def peer(label: str, pairs: int, most: int = 2) -> list[Row]:
    """Compare our training step with that of HIPS/autograd."""
    from benchmarks import autograd_vgg

    model, batch = ours.network("vgg08"), ours.images()
    calls = {"autograd": autograd_vgg.trainer(model.params, *batch), "ours": ours.trainer(model, *batch)}
    found = differences(calls)
    times = in_turns(calls, min(pairs, most))
    return [compared(label, times, "ours", ["autograd"], differences=found)]


ROWS: dict[str, Measurement] = {
    **{f"train-{name}": partial(training, network=name) for name in ours.NETWORKS},
    **{f"infer-{name}": partial(inference, network=name) for name in ours.NETWORKS},
    "train-vgg38_bn_rc-64": partial(training, network="vgg38_bn_rc", num_filters=64, most=7),
    "train-vgg38_bn_rc-128": partial(training, network="vgg38_bn_rc", num_filters=128, most=5),
    "mlp": vectors,
    "plan-vgg38": partial(engines, network="vgg38"),
    "plan-vgg38_bn_rc": partial(engines, network="vgg38_bn_rc"),
    "memory-vgg38_bn_rc": memory,
    "growth-vgg38_bn_rc": growth,
    "threads-vgg38_bn_rc": threads,
    "data-vgg38": data_path,
    "autograd-vgg08": peer,
}


def main(name: str, pairs: int) -> None:
    """Print a row as JSON; where the other side is not installed, the row says so."""
    try:
        rows = ROWS[name](name, pairs)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "autograd"):
            raise
        rows = [{"row": name, "note": f"{error.name} is not installed"}]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
