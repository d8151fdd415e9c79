import subprocess
import sys
import types

import numpy as np
import pytest

from mlp import backend


@pytest.fixture
def cupy(monkeypatch):
    """A module called cupy whose one kernel gives `.answer`."""
    module = types.ModuleType("cupy")
    module.answer = 140.0
    module.arange = lambda n, dtype: np.full(1, module.answer**0.5)
    module.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceProperties=lambda i: {"name": b"a card"})
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_numpy_is_the_module_of_numpy_arrays():
    x = np.ones(3)
    assert backend.array_module(x) is np
    assert backend.device_of(x) == "cpu"
    assert backend.to_cpu(x) is x
    assert backend.to_device(x, "cpu") is x


def test_a_gpu_is_used_where_its_kernel_gives_the_right_number(cupy):
    assert backend.usable_gpu() == (True, "a card")
    assert backend.select_device("auto") == backend.select_device("gpu") == "gpu"


def test_a_wrong_number_is_no_usable_gpu(cupy):
    cupy.answer = 139.0
    assert "gave a wrong number" in backend.usable_gpu().reason
    with pytest.warns(RuntimeWarning, match="the GPU is not used: .* wrong number"):
        assert backend.select_device("auto") == "cpu"


def test_a_failing_kernel_is_no_usable_gpu(cupy):
    def fail(n, dtype):
        raise RuntimeError("no driver")

    cupy.arange = fail
    with pytest.raises(backend.DeviceError, match="RuntimeError: no driver"):
        backend.select_device("gpu")


def test_without_cupy_auto_is_the_cpu_and_gpu_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert backend.select_device("auto") == backend.select_device("cpu") == "cpu"
    with pytest.raises(backend.DeviceError, match=r"pip install 'cupy-cuda12x\[ctk\]'"):
        backend.select_device("gpu")


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="request is 'tpu', expected 'auto', 'cpu' or 'gpu'"):
        backend.select_device("tpu")


@pytest.mark.parametrize("module", ["mlp", "mlp.layers", "mlp.models", "mlp.optimisers"])
def test_importing_loads_nothing_heavy(module):
    heavy = ("matplotlib", "cupy", "torch", "sklearn", "scipy")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
