"""What the benchmark runs on: machine and versions."""

import os
import platform
import subprocess
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

from mlp import __version__
from mlp.kernels import conv_method, num_threads

ROOT = Path(__file__).parents[1]


def machine() -> dict[str, object]:
    """Return what the machine is, and how busy it was with other things."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return {
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": num_threads(),
        "OS": platform.platform(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of all that computes."""
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        "mlp": " ".join([__version__, *_commit()]),
        "convolution": conv_method(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "BLAS": ", ".join(f"{b.get('internal_api')} {b.get('version')} {b.get('architecture')}" for b in blas),
        "torch": _version("torch"),
        "autograd": _version("autograd"),
    }


def gpu() -> dict[str, str]:
    """Return what the GPU is, and what runs it, as CuPy and the driver say."""
    runtime = import_module("cupy").cuda.runtime
    properties = runtime.getDeviceProperties(0)
    return {
        "card": properties["name"].decode(),
        "memory": f"{properties.get('totalGlobalMem', 0) / 2**30:.0f} GiB",
        "multiprocessors": str(properties.get("multiProcessorCount")),
        "driver": f"{_driver()}, for CUDA {_cuda(runtime.driverGetVersion())}",
        "CUDA runtime": _cuda(runtime.runtimeGetVersion()),
        "CuPy": import_module("cupy").__version__,
    }


def busy_seconds() -> float | None:
    """Return the processor seconds that all of this machine's processes have taken since its start; Linux only."""
    table = Path("/proc/stat")
    if not table.exists():
        return None
    user, nice, system, _idle, _wait, *more = map(int, table.read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str:
    """Return the driver's version, as its own tool says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "not known"
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout else "not known"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> list[str]:
    """Return the commit and whether files differ from it, or nothing outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return []
    return [found.stdout.strip()] if found.returncode == 0 else []


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
