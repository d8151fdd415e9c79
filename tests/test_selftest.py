"""The self-test finds everything right, and a mistake if there is one."""

import sys

import numpy as np
import pytest

from mlp import selftest
from mlp.backend import device_of
from mlp.kernels import SettingError
from mlp.layers import TanhLayer
from mlp.testing.cases import LayerCase

from .strict_cupy import StrictCupy


class WrongTanh(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1.0 - outputs) * grads_wrt_outputs


class OtherOnGpu(TanhLayer):
    def fprop(self, inputs):
        return super().fprop(inputs) * (0.5 if device_of(inputs) == "gpu" else 1.0)


def test_all_is_right_and_the_device_is_said(capsys):
    assert selftest.main(["--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    count = len(selftest.LAYER_CASES)
    assert f"{count} of {count} right" in printed
    assert "Device: CPU only, as asked for." in printed
    assert "All right: 42 classes of layers" in printed


def test_a_mistake_is_said_and_is_the_exit_status(capsys, monkeypatch):
    monkeypatch.setattr(selftest, "LAYER_CASES", [LayerCase("wrong", WrongTanh, (3, 2))])
    monkeypatch.setattr(selftest, "NETWORKS", {})
    monkeypatch.setattr(
        selftest, "EXTREMES", {"units": lambda: selftest._units(np.float32([1.0]), [selftest.Decimal(2)])}
    )
    assert selftest.main(["--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "0 of 1 right" in printed
    assert "WRONG  layers: wrong: gradients of WrongTanh: WRONG" in printed
    assert "units in the last place: 4.19e+06, expected at most 4" in printed
    assert "2 checks failed." in printed


def test_a_layer_that_raises_is_said_with_its_traceback(capsys, monkeypatch):
    section = selftest.Section("layers", "", {"broken": lambda: 1 / 0})
    (wrong,) = selftest.run(section)
    assert "ZeroDivisionError" in wrong
    assert "0 of 1 right" in capsys.readouterr().out


def test_on_a_gpu_every_layer_is_compared_with_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictCupy())
    section = selftest.sections(gpu=True)[-1]
    assert section.name == "GPU"
    assert len(section.checks) == len(selftest.LAYER_CASES)
    for name in ("conv 3x3", "batch norm 2d", "concatenation"):
        assert section.checks[name]() < 1e-11
    with pytest.raises(AssertionError, match=r"GPU and CPU differ by: 0\.\d+, expected at most 1e-11"):
        selftest._gpu_check(LayerCase("differs", OtherOnGpu, (3, 2)))()


def test_the_gpu_that_was_not_tested_has_its_reason():
    status = selftest.GpuStatus(False, "no driver")
    assert selftest._gpu_words(status) == " only. The GPU was not tested: no driver."
    assert selftest._gpu_words(selftest.GpuStatus(True, "H100")) == " and GPU (H100)."


def test_a_wrong_number_of_threads_is_refused_with_a_sentence(capsys, monkeypatch):
    def refuse():
        raise SettingError("MLP_NUM_THREADS is 'x', expected a whole number >= 1")

    monkeypatch.setattr(selftest, "num_threads", refuse)
    with pytest.raises(SystemExit, match="2"):
        selftest.main(["--device", "cpu"])
    assert "MLP_NUM_THREADS is 'x'" in capsys.readouterr().err
