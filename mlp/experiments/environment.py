"""What a run ran on: versions, machine, device. The same bits are promised on the same of these."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Any, NamedTuple

from threadpoolctl import threadpool_info

from mlp import __version__
from mlp.backend import DeviceError, select_device, usable_gpu
from mlp.kernels import conv_method, num_threads
from mlp.reading import shown
from mlp.records import RecordError, RunFolder

PACKAGES = ("numpy", "safetensors", "matplotlib")


DECISIVE = ("mlp", "numpy", "blas", "device", "gpu", "cores", "engine", "convolution", "precision", "workspace_mb")
"""What the bits of a run depend on. Not on the number of threads, and its data is compared by SHA-256."""


class Setup(NamedTuple):
    """How a run is computed, which is no part of what decides its result but for the last bits."""

    device: str
    engine: str = "plan"
    precision: str = "fp32"
    workspace_mb: int | None = None

    @classmethod
    def of(cls, device: str, engine: str, precision: str, workspace_mb: int | None = None) -> "Setup":
        """Return the set-up for a request; raise DeviceError or SettingError where it cannot be had."""
        num_threads(), conv_method()  # raise before anything is written
        found = select_device(device)
        if precision != "fp32" and engine == "layers":
            raise DeviceError(
                f"--precision {precision} is for plans, and --engine layers computes in fp32: leave one out"
            )
        if precision != "fp32" and found != "gpu":
            why = "--device cpu" if device == "cpu" else usable_gpu().reason
            raise DeviceError(f"--precision {precision} is for a GPU, and this is on the CPU ({why}): leave it out")
        if workspace_mb is not None and (engine == "layers" or found == "gpu"):
            where = "--engine layers" if engine == "layers" else "a GPU"
            raise DeviceError(f"--workspace-mb is for plans on the CPU, and this is for {where}: leave it out")
        return cls(found, engine, precision, workspace_mb)

    def options(self) -> list[str]:
        """Return the command line's options that ask for it."""
        default = Setup(self.device)
        pairs = [(name, value) for name, value in self._asdict().items() if value != getattr(default, name)]
        words = (word for name, value in pairs for word in (f"--{name.replace('_', '-')}", str(value)))
        return ["--device", self.device, *words]


def record_environment(folder: RunFolder, setup: Setup, data: str, parameters: int) -> None:
    """Write environment.json: the parameter count, and under `parts` what each part of the run ran on.

    A resumed run adds a part only where something changed. Where that may change its numbers' last bits against those
    of a run in one part, it is said.
    """
    how = {**setup._asdict(), "convolution": conv_method(), "data": data}
    now = {**versions(), **_machine(setup.device), **how}
    exists = (folder.path / "environment.json").exists()
    parts: list[dict[str, Any]] = folder.read_field("environment.json", "parts") if exists else []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RecordError(
            f"{folder.path / 'environment.json'}: 'parts' is {shown(parts, 60)}, expected a list of objects"
        )
    if parts and parts[-1] == now:
        return
    before = parts[-1] if parts else now
    changes = [f"{key} {before.get(key)!r} -> {now[key]!r}" for key in DECISIVE if before.get(key) != now[key]]
    if changes:
        print(f"This part of the run is not bound to give the same bits: {'; '.join(changes)}", file=sys.stderr)
    folder.write_json("environment.json", {"parameters": parameters, "parts": [*parts, now]})


def versions() -> dict[str, Any]:
    """Return the versions of this library, of Python and of what the numbers depend on."""
    return {"mlp": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _machine(device: str) -> dict[str, Any]:
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        "platform": platform.platform(),
        "blas": ", ".join(f"{b.get('internal_api')} {b.get('version')} {b.get('architecture')}" for b in blas),
        "cores": os.cpu_count(),
        "threads": num_threads(),
        "device": device,
        "gpu": usable_gpu().reason if device == "gpu" else None,
    }
