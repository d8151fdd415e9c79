"""The CUDA sources compiled by NVIDIA's compiler, where there is one."""

import re
import shutil
import subprocess

import pytest

from mlp.kernels.gpu import source

from ..cuda.on_cpu import kernel_names

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")

NVCC = ["nvcc", "-std=c++17", "-cubin", "-Werror", "all-warnings", "-Xptxas", "-v"]
RESOURCES = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
    re.DOTALL,
)


def compiled(code, folder, *options):
    """Return the compiler's exit status and what it says."""
    (folder / "kernels.cu").write_text(code)
    command = [*NVCC, *options, "-o", str(folder / "kernels.cubin"), str(folder / "kernels.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_all_kernels_compile_and_keep_their_numbers_in_registers(arch, tmp_path):
    status, said = compiled(source(), tmp_path, f"-arch={arch}")
    assert status == 0, said
    found = {name: [int(size) for size in sizes] for name, *sizes in RESOURCES.findall(said)}
    assert sorted(found) == sorted(kernel_names(source()))
    assert {name: sizes for name, sizes in found.items() if any(sizes)} == {}


def test_cards_without_tf32_get_all_else(tmp_path):
    command = [part for part in NVCC if part not in ("-Werror", "all-warnings")]  # nvcc warns that sm_75 is old
    (tmp_path / "kernels.cu").write_text(source())
    command += ["-arch=sm_75", "-o", str(tmp_path / "kernels.cubin"), str(tmp_path / "kernels.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_registers_that_do_not_suffice_are_seen(tmp_path):
    """So that the test above can fail."""
    status, said = compiled(source(), tmp_path, "-arch=sm_80", "-maxrregcount=32")
    assert status == 0, said
    assert any(int(stores) for _, _, stores, _ in RESOURCES.findall(said))
