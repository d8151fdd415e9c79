"""Something that answers to `import cupy`: the stand-in, which runs the CUDA sources on the CPU, or CuPy on a GPU."""

import shutil
import sys

import pytest

from mlp.backend import usable_gpu

from ...strict_cupy import StrictCupy


@pytest.fixture(params=["stand-in", pytest.param("card", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    if request.param == "stand-in":
        if shutil.which("g++") is None:
            pytest.skip("no g++ to compile the CUDA sources for the CPU")
        monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    else:
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        if not usable_gpu().usable:
            pytest.skip(f"no usable GPU: {usable_gpu().reason}")
    return request.param
