"""NumPy or CuPy: computation follows the data. The only module that imports CuPy.

There is no global device. ``xp = array_module(x)`` gives the module that owns an array, and code written against
`xp` runs where its data lies.
"""

import warnings
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of either module, of any dtype: more than NumPy's stubs can describe, so not checked further."""


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why."""


class GpuStatus(NamedTuple):
    """Whether the GPU can be used, and the reason in words."""

    usable: bool
    reason: str


def is_gpu_array(x: object) -> bool:
    """Return whether `x` is a CuPy array, without importing CuPy."""
    return type(x).__module__.partition(".")[0] == "cupy"


def array_module(x: object) -> ModuleType:
    """Return the module that owns the array `x`: `cupy` for CuPy's arrays, `numpy` for all else."""
    return import_module("cupy") if is_gpu_array(x) else np


def device_of(x: object) -> str:
    """Return ``"gpu"`` for a CuPy array and ``"cpu"`` for all else."""
    return "gpu" if is_gpu_array(x) else "cpu"


def to_cpu(x: Array) -> Array:
    """Return `x` as a NumPy array (a copy only if it lies on a GPU)."""
    return x.get() if is_gpu_array(x) else x


def to_gpu(x: Array) -> Array:
    """Return `x` as a CuPy array (a copy only if it lies on the CPU)."""
    if is_gpu_array(x):
        return x
    try:
        return import_module("cupy").asarray(x)
    except (ImportError, AttributeError, RuntimeError) as error:  # no CuPy, a broken one, no driver, no device
        status = usable_gpu()
        if status.usable:
            raise
        raise DeviceError(f"the GPU cannot be used: {status.reason}") from error


def to_device(x: Array, device: str) -> Array:
    """Return `x` on ``"cpu"`` or ``"gpu"``."""
    if device not in ("cpu", "gpu"):
        raise ValueError(f"to_device: device is {device!r}, expected 'cpu' or 'gpu'")
    return to_gpu(x) if device == "gpu" else to_cpu(x)


_CURES = {
    "InsufficientDriver": "is there an NVIDIA driver, and is it recent enough for this CuPy? Update it, or take CuPy "
    "for an older CUDA: pip install 'cupy-cuda12x[ctk]'",
    "NoDevice": "no NVIDIA GPU is to be seen: is CUDA_VISIBLE_DEVICES set?",
    "MemoryAllocation": "another program holds the GPU's memory",
    "nvrtc": "CUDA's compiler is missing: pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]' brings it",
}


def usable_gpu() -> GpuStatus:
    """Run one small kernel on the GPU and say whether its number came out right, and if not, why."""
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        hint = "pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]', after the driver's CUDA"
        return GpuStatus(False, f"CuPy cannot be imported ({error}); {hint}")
    try:
        total = float((cupy.arange(8, dtype=np.float32) ** 2).sum())
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except Exception as error:  # CuPy raises many kinds: no driver, no device, no compiler, no memory
        cures = [f"; {cure}" for sign, cure in _CURES.items() if sign in str(error)]
        return GpuStatus(False, f"a first kernel failed ({type(error).__name__}: {error}){''.join(cures[:1])}")
    if total != 140.0:
        return GpuStatus(False, f"a first kernel gave a wrong number: {total}, not 140.0")
    return GpuStatus(True, name)


def check_tf32(array: Array) -> None:
    """Raise DeviceError unless the GPU that an array lies on has tensor cores for TF32."""
    capability = array_module(array).cuda.Device().compute_capability
    if int(capability) < _TF32_SINCE:
        raise DeviceError(
            f"the precision is 'tf32', and this GPU has compute capability {capability}, expected {_TF32_SINCE} "
            f"(Ampere) or more: use 'fp32'"
        )


_TF32_SINCE = 80


def select_device(request: str) -> str:
    """Return the device to use, ``"cpu"`` or ``"gpu"``, for a request ``"auto"``, ``"cpu"`` or ``"gpu"``.

    ``"auto"`` takes the GPU where one can be used; where CuPy is installed and its GPU is not usable, it warns and
    takes the CPU. Raises DeviceError where ``"gpu"`` is asked for and cannot be used.
    """
    if request not in ("auto", "cpu", "gpu"):
        raise ValueError(f"select_device: request is {request!r}, expected 'auto', 'cpu' or 'gpu'")
    if request == "cpu":
        return "cpu"
    status = usable_gpu()
    if status.usable:
        return "gpu"
    if request == "gpu":
        raise DeviceError(f"the GPU cannot be used: {status.reason}. Use --device cpu, or mend the cause.")
    if "cannot be imported" not in status.reason:
        warnings.warn(f"the GPU is not used: {status.reason}", RuntimeWarning, stacklevel=2)
    return "cpu"
