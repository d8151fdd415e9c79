"""Settings of the tests' processes and of those that they start. The fixture `gpu`. The last lines of a run.

Nothing reaches the network; warnings are errors; where several workers run the tests, each takes one thread.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from .offline import sitecustomize

OFFLINE = str(Path(sitecustomize.__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [OFFLINE, os.environ.get("PYTHONPATH")]))
os.environ["PYTHONWARNINGS"] = "error"
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("MLP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(params=["stand-in", pytest.param("card", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    """Something that answers to `import cupy`: the stand-in, which runs CUDA sources on the CPU, or CuPy on a GPU."""
    from mlp.backend import usable_gpu  # not before the threads are set

    from .strict_cupy import StrictCupy

    if request.param == "stand-in":
        if shutil.which("g++") is None:
            pytest.skip("no g++ to compile the CUDA sources for the CPU")
        monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    else:
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        if not usable_gpu().usable:
            pytest.skip(f"no usable GPU: {usable_gpu().reason}")
    return request.param


def pytest_terminal_summary(terminalreporter, config):
    """Say in which order the tests ran, and count those that say how many of them there are, on all workers."""
    if (seed := config.getoption("randomly_seed", None)) is not None:
        terminalreporter.write_line(f"Order of the tests: --randomly-seed={seed}")
    what, stats = "ONNX node tests", terminalreporter.stats
    seen = [
        (outcome, dict(report.user_properties)[what])
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        if what in dict(report.user_properties)
    ]
    if seen:
        passed, total = sum(outcome == "passed" for outcome, _ in seen), seen[0][1]
        terminalreporter.write_line(f"{what}: {passed} of {total} passed")
