"""The benchmark for a GPU, as far as it goes without one: on the stand-in for CuPy, with networks of a few numbers.

Nothing here is a measurement: the times are those of a CPU that runs the CUDA sources.
"""

import json
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu, gpu_costs, gpu_measure, gpu_rows, gpu_tiles, machine, ours, ours_gpu
from benchmarks.measure import DisagreementError
from mlp.backend import to_cpu, to_gpu
from mlp.engine import Engine
from mlp.engine.gpu.graph import CapturedLaunches
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS
from mlp.kernels.gpu import Launch, conv_tile

from .. import strict_cupy
from ..strict_cupy import Graph, StrictCupy

SIZE, BATCH = 8, 2


class Event(strict_cupy.Event):
    """An event that knows when it was recorded."""

    def record(self, stream=None):
        self.at = time.perf_counter()


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, with what only a benchmark asks of CuPy."""
    module = StrictCupy()
    properties = {"name": b"stand-in", "totalGlobalMem": 2**30, "multiProcessorCount": 1}
    module.cuda.runtime = SimpleNamespace(
        getDeviceProperties=lambda _: properties, driverGetVersion=lambda: 13020, runtimeGetVersion=lambda: 12090
    )
    module.cuda.Event = Event
    module.cuda.get_elapsed_time = lambda start, end: 1e3 * (end.at - start.at)
    module.get_default_memory_pool = lambda: SimpleNamespace(used_bytes=lambda: 3, total_bytes=lambda: 4)
    module.RawKernel = lambda code, name: lambda grid, block, args: None
    module.__version__ = "0"
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def small(cupy, monkeypatch):
    """Few and small images, few and short timings, and PyTorch on one thread of the CPU."""
    pytorch_gpu = pytest.importorskip("benchmarks.pytorch_gpu", exc_type=ImportError)
    monkeypatch.setattr(pytorch_gpu, "DEVICE", "cpu")
    threads = pytorch_gpu.torch.get_num_threads()
    pytorch_gpu.torch.set_num_threads(1)
    images, provider = batch_of(BATCH), ours_gpu.provider
    monkeypatch.setattr(ours, "images", lambda: images)
    monkeypatch.setattr(ours, "BATCH", BATCH)
    monkeypatch.setattr(ours_gpu, "provider", lambda *_: provider(10 * BATCH, SIZE, BATCH))
    monkeypatch.setattr(gpu_rows, "SHAPE", (3, SIZE, SIZE))
    monkeypatch.setattr(gpu_rows, "copy_bandwidth", lambda: 1e9)
    monkeypatch.setattr(gpu_measure, "SECONDS", 1e-6)
    monkeypatch.setattr(gpu_measure, "FEWEST", 1)
    monkeypatch.setattr(gpu_measure, "WARM_UP", 1)
    yield pytorch_gpu
    pytorch_gpu.torch.set_num_threads(threads)


def batch_of(count):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count, SIZE, SIZE, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    return inputs, rng.integers(0, 100, count)


def a_trainer(precision="fp32", network="vgg08"):
    return ours_gpu.Trainer(ours.network(network, 4), precision, ours_gpu.provider(10 * BATCH, SIZE, BATCH))


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *words])
    return gpu.main()


def asked_for(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *words])
    return gpu._arguments()


# ---- The command ----


def test_the_command_needs_neither_cupy_nor_pytorch_to_be_imported():
    code = "import sys, benchmarks.gpu; print([m for m in ('cupy', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=machine.ROOT, check=True)
    assert found.stdout == "[]\n"


def test_help_names_every_row(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, "--help")
    text = "".join(capsys.readouterr().out.split())
    assert all(name in text for name in gpu_rows.ROWS)


def test_without_a_gpu_it_says_why_and_ends_with_2(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert run(monkeypatch) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "benchmarks.gpu: there is no GPU to use: CuPy cannot be imported" in written.err


def test_there_is_a_row_for_everything_that_was_promised():
    nets = ["vgg08", "vgg38", "vgg38_bn", "vgg38_rc", "vgg38_bn_rc", "vgg38_bn_rc-64", "vgg38_bn_rc-128"]
    assert [name for name in gpu_rows.ROWS if name.startswith("train-")] == [f"train-{net}" for net in nets]
    others = ["memory-vgg38_bn_rc", "memory-vgg38_bn_rc-128", "launches-vgg38_bn_rc", "tiles"]
    others += ["epoch-fp32", "epoch-tf32", "compile-vgg38", "compile-vgg38_bn_rc"]
    assert list(gpu_rows.ROWS)[len(nets) :] == others


def test_rows_are_chosen_by_patterns(monkeypatch, capsys):
    assert asked_for(monkeypatch, "--rows", "tiles", "compile-*", "--quick").rows == [
        "tiles",
        "compile-vgg38",
        "compile-vgg38_bn_rc",
    ]
    assert asked_for(monkeypatch).rows == list(gpu_rows.ROWS)
    quick = asked_for(monkeypatch, "--quick")
    assert quick.rows == [name for name in gpu_rows.ROWS if not name.startswith("compile")]
    assert (quick.rounds, asked_for(monkeypatch).rounds) == (7, 11)
    with pytest.raises(SystemExit):
        asked_for(monkeypatch, "--rows", "trains-*")
    assert "--rows trains-*: no such row, expected some of train-vgg08" in capsys.readouterr().err


def test_the_card_and_its_software_are_named(cupy, monkeypatch):
    said = SimpleNamespace(returncode=0, stdout="580.1\n580.1\n")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: said)
    found = machine.gpu()
    assert (found["card"], found["memory"]) == ("stand-in", "1 GiB")
    assert (found["driver"], found["CUDA runtime"]) == ("580.1, for CUDA 13.2", "12.9")
    said.returncode = 9
    assert machine.gpu()["driver"] == "not known, for CUDA 13.2"


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """What the command makes of a child that runs some lines of Python."""

    def rows_of(code, limit=20.0):
        (tmp_path / "child_of_a_test.py").write_text(f"import os, sys, time\n{code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return gpu.measured("a-row", 7, limit, "child_of_a_test")

    return rows_of


A_ROW = """print('noise')
print('{"row": "a-row/1", "note": "one"}', flush=True)"""


def test_rows_of_a_child_are_read_line_by_line(rows_of):
    (row,) = rows_of(f"assert sys.argv[1:] == ['a-row', '7']\n{A_ROW}")
    assert (row["row"], row["note"]) == ("a-row/1", "one")
    assert row["took"] > 0


def test_a_child_that_hangs_or_dies_loses_only_what_was_not_there_yet(rows_of, capsys):
    first, last = rows_of(f"{A_ROW}\ntime.sleep(60)", limit=1.0)
    assert (first["note"], last["note"], last["failed"]) == ("one", "failed: given up after 1 s", True)
    first, last = rows_of(f"{A_ROW}\nsys.stderr.write('the reason')\nsys.stderr.flush()\nos.abort()")
    assert (first["note"], last["note"]) == ("one", "failed: ended with status -6")
    assert "the reason" in capsys.readouterr().err
    assert [row["note"] for row in rows_of("pass")] == ["failed: nothing was measured"]
    assert [row["note"] for row in rows_of("", limit=0.5)] == ["failed: no time is left"]


def test_what_a_child_has_started_ends_with_it(rows_of, tmp_path):
    mark = tmp_path / "mark"
    later = f"import time, pathlib; time.sleep(0.3); pathlib.Path({str(mark)!r}).touch()"
    rows_of(f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {later!r}])\n{A_ROW}")
    time.sleep(0.7)
    assert not mark.exists()


def test_a_failed_row_makes_the_exit_status_1_and_the_others_go_on(cupy, monkeypatch, capsys, tmp_path):
    rows = {"tiles": [{"row": "tiles", "note": "failed: of itself", "failed": True, "took": 1.0}]}
    fine = [{"row": "x", "note": "fine", "lines": ["more"], "took": 2.0}]
    monkeypatch.setattr(gpu, "measured", lambda name, *_: rows.get(name, fine))
    file = tmp_path / "all.json"
    assert run(monkeypatch, "--rows", "tiles", "epoch-fp32", "--json", str(file)) == 1
    content = json.loads(file.read_text())
    assert content["rows"] == rows["tiles"] + fine
    assert content["gpu"]["card"] == "stand-in"
    text = capsys.readouterr().out
    assert all(part in text for part in ("card stand-in", "CuPy 0", "mlp ", "torch ", "failed: of itself", "fine  2 s"))
    assert run(monkeypatch, "--rows", "epoch-fp32") == 0


def test_a_rows_own_error_is_a_row(monkeypatch, capsys):
    def broken(label, rounds):
        yield {"row": label, "note": "first"}
        raise ValueError("two\nlines")

    monkeypatch.setitem(gpu_rows.ROWS, "tiles", gpu_rows.Entry(broken, 1))
    gpu_rows.main("tiles", 7)
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["note"], last["note"], last["failed"]) == ("first", "failed: ValueError: two", True)


# ---- What is counted ----


def test_operations_of_a_step_are_counted_as_plain_sums():
    flops = gpu_costs.step_flops(ours.network("vgg38"), (3, 32, 32), 100)
    assert round(flops / 1e9, 1) == 84.0
    first, rest = 9 * 3 * 4 * 64, 9 * 4 * 4 * (64 + 16 + 16 + 4 + 4 + 1) + 4 * 100
    tiny = gpu_costs.step_flops(ours.network("vgg08", 4), (3, 8, 8), 5)
    assert tiny == 2 * 5 * (2 * first + 3 * rest)


def test_bytes_are_those_of_all_arrays_of_all_launches(cupy):
    a, b = to_gpu(np.zeros(10, np.float32)), to_gpu(np.zeros((2, 3)))
    launches = [
        Launch(None, (1,), (1,), (a, b, np.uint64(0), np.int32(7)), label="one conv_0"),
        Launch(None, (1,), (1,), (a, a), label="two"),
        Launch(None, (1,), (1,), (b,), label="gather_batch"),
    ]
    assert gpu_costs.step_bytes(launches) == 3 * 40 + 48
    costs = gpu_costs.by_name([*launches, launches[0]], np.array([1.0, 5.0, 2.0, 0.5]))
    assert costs == [("two", 1, 5.0), ("gather_batch", 1, 2.0), ("one", 2, 1.5)]


def test_steps_take_turns_and_are_timed_by_events(cupy, monkeypatch):
    monkeypatch.setattr(gpu_measure, "SECONDS", 1e-6)
    taken = []
    takes = {name: lambda steps, name=name: taken.append((name, steps)) for name in "ab"}
    times = gpu_measure.in_turns(takes, 2)
    warm_up = [(name, gpu_measure.WARM_UP) for name in "aabb"]
    assert taken[:4] == warm_up
    assert [name for name, _ in taken[4:]] == ["a", "b", "b", "a"]
    assert all(values.shape == (2,) and values.min() >= 0 for values in times.values())
    assert gpu_measure.copy_bandwidth(4000) > 0


def test_a_timing_has_more_steps_where_a_step_is_short(cupy, monkeypatch):
    for step, expected in ((1.0, gpu_measure.FEWEST), (0.005, 10), (1e-9, gpu_measure.MOST)):
        monkeypatch.setattr(gpu_measure, "seconds", lambda call, step=step: step * gpu_measure.WARM_UP)
        assert gpu_measure.steps_for(lambda steps: None) == expected


# ---- Our side ----


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_our_two_ways_take_the_same_steps(cupy, precision):
    one_by_one, by_graph = a_trainer(precision), a_trainer(precision)
    one_by_one.eagerly(5)
    replayed = Graph.count
    by_graph.by_graph(5)
    assert Graph.count == replayed + 3
    pairs = list(zip(one_by_one.model.params, by_graph.model.params, ours.network("vgg08", 4).params, strict=True))
    assert all(np.array_equal(to_cpu(a), to_cpu(b)) for a, b, _ in pairs)
    assert not any(np.array_equal(to_cpu(a), first) for a, _, first in pairs)


def test_our_loss_is_that_of_the_same_weights_on_the_cpu(cupy):
    inputs, labels = batch_of(BATCH)
    expected = Engine(ours.network("vgg08", 4), CrossEntropySoftmaxError()).forward_backward(inputs, labels).loss
    for precision, limit in (("fp32", 1e-5), ("tf32", 1e-3)):
        assert a_trainer(precision).loss(inputs, labels) == pytest.approx(expected, rel=limit)


def test_steps_without_a_graph_are_not_passed_off_as_one(cupy, monkeypatch):
    a_trainer().warm_up()

    def refused(self):
        raise RuntimeError("no capture today")

    monkeypatch.setattr(strict_cupy.Stream, "begin_capture", refused)
    with pytest.raises(RuntimeError, match="runs without a CUDA graph: RuntimeError: no capture today"):
        a_trainer().warm_up()


def test_an_epoch_of_the_runner_is_timed(cupy):
    data = ours_gpu.random_data((5 * BATCH, BATCH, 1), SIZE)
    experiment = replace(EXPERIMENTS["vgg08"], num_filters=4, batch_size=BATCH)
    assert 0 < ours_gpu.second_epoch(experiment, data, "tf32") < 60


def test_table_1_is_extrapolated_from_an_epoch_of_each_network(monkeypatch):
    monkeypatch.setattr(ours_gpu, "random_data", lambda: None)
    ran = []
    monkeypatch.setattr(ours_gpu, "second_epoch", lambda e, _, precision: ran.append((e.name, precision)) or 2.0)
    *rows, last = gpu_rows.epochs("epoch-tf32", 7)
    assert ran == [(name, "tf32") for name in ours.NETWORKS]
    assert [row["row"] for row in rows] == [f"epoch-tf32/{name}" for name in ours.NETWORKS]
    assert (last["seconds"], last["extrapolated"]) == (7 * 100 * 2.0, True)
    assert "23.3 minutes for Table 1, 7 experiments of 100 epochs: extrapolated, not run" in last["note"]


# ---- Rows ----


def test_a_row_of_training_is_whole_where_pytorch_makes_no_graphs(small):
    found = {row["row"]: row for row in gpu_rows.training("t", 2, "vgg08", 4)}
    json.dumps(found)
    for precision in ("fp32", "tf32"):  # there is no CUDA here
        graph = found.pop(f"t/{precision}-graph")
        assert graph["failed"]
        assert f"failed: PyTorch {precision} graph channels_last: " in graph["note"]
    assert list(found) == ["t/tf32-eager", "t/fp32-eager", "t/all", "t/rates"]
    assert found["t/tf32-eager"]["ours"] == "ours tf32 graph"
    assert found["t/tf32-eager"]["other"].startswith("PyTorch tf32 eager c")
    sides = [f"ours {p} {way}" for p in ("fp32", "tf32") for way in ("eager", "graph")]
    sides += [f"PyTorch {p} eager {layout}" for p in ("fp32", "tf32") for layout in ("channels_last", "contiguous")]
    assert list(found["t/all"]["times"]) == sides
    assert "GFLOP a step" in found["t/rates"]["note"]
    assert len(found["t/rates"]["lines"]) == 2
    assert all(gpu.line(row) for row in found.values())


def test_another_loss_fails_the_row(small, monkeypatch):
    contest = gpu_rows.Contest("t", "vgg08", 4, ("fp32",))
    contest.losses["fp32"] *= 1.0001
    with pytest.raises(DisagreementError, match="ours fp32, PyTorch fp32 eager channels_last differ by"):
        contest.join("fp32", "eager")
    contest.losses["fp32"] = float("nan")
    with pytest.raises(DisagreementError):
        contest.join("fp32", "eager")
    assert contest.theirs() == []


def test_compiled_sides_join_the_graph_one_by_one(small, monkeypatch):
    whole = small.Trainer

    def eager_for_all(*args):
        *before, way, layout, num_filters = args
        if way == "autotune":
            raise RuntimeError("no compiler")
        return whole(*before, "eager", layout, num_filters)

    monkeypatch.setattr(small, "Trainer", eager_for_all)
    network = ours.network
    monkeypatch.setattr(ours, "network", lambda name, _: network(name, 4))
    monkeypatch.setattr(gpu_rows.Contest.__init__, "__defaults__", (4, ("tf32",)))
    compared, times, failed = gpu_rows.compiling("c", 2, "vgg08")
    assert (compared["row"], compared["ours"]) == ("c/best-with-compile", "ours tf32 graph")
    others = [f"PyTorch tf32 {way} channels_last" for way in ("graph", "compile")]
    assert list(times["times"]) == ["ours tf32 eager", "ours tf32 graph", *others]
    assert (failed["row"], failed["failed"]) == ("c/tf32-autotune", True)
    assert "PyTorch tf32 autotune channels_last: RuntimeError: no compiler" in failed["note"]


def test_pytorchs_loss_is_always_that_of_the_first_weights(small):
    model, batch = ours.network("vgg38_bn_rc", 4), batch_of(BATCH)
    trainer = small.Trainer("vgg38_bn_rc", model.params, batch, "fp32", "eager", "contiguous", 4)
    first = trainer.loss()
    trainer.take(2)
    assert trainer.loss() == pytest.approx(first, rel=1e-5)
    assert first == pytest.approx(a_trainer(network="vgg38_bn_rc").loss(*batch), rel=1e-5)


def test_pytorchs_graph_is_a_whole_step_after_three_others(small, monkeypatch):
    cuda, done = small.torch.cuda, []

    class FakeGraph:
        def replay(self):
            done.append("replay")

    @contextmanager
    def capturing(graph):
        before = len(done)
        yield
        assert done[before:] == ["step"]
        done[before:] = ["captured step"]

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in (("Stream", lambda: stream), ("current_stream", lambda: stream), ("CUDAGraph", FakeGraph)):
        monkeypatch.setattr(cuda, name, value)
    monkeypatch.setattr(cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda, "graph", capturing)
    step = small.Trainer._eager_step
    monkeypatch.setattr(small.Trainer, "_eager_step", lambda self: done.append("step") or step(self))
    trainer = small.Trainer("vgg08", ours.network("vgg08", 4).params, batch_of(BATCH), "tf32", "graph", num_filters=4)
    trainer.take(2)
    assert done == ["step"] * 3 + ["captured step"] + ["replay"] * 2
    assert trainer.loss() > 0


def test_the_row_of_memory_says_what_pytorch_lacks(small):
    ours_alone, failed = gpu_rows.memory("m", 7, "vgg08", 4)  # there is no CUDA to ask
    assert ours_alone["bytes"]["plan"] > 0
    assert (ours_alone["bytes"]["used"], ours_alone["bytes"]["reserved"], failed["failed"]) == (3, 4, True)


def test_the_row_of_memory_is_a_ratio(small, monkeypatch):
    monkeypatch.setattr(small, "peak_memory", lambda trainer: (6, 8))
    (row,) = gpu_rows.memory("m", 7, "vgg08", 4)
    assert (row["ratio"], row["unit"], len(row["lines"])) == (0.5, "MB", 2)
    assert "0 MB" in gpu.line(row)


def test_every_launch_of_a_step_is_timed(small, monkeypatch):
    network = ours.network
    monkeypatch.setattr(ours, "network", lambda name, filters=4: network(name, filters))
    rows = list(gpu_rows.launches("l", 2, "vgg08"))
    json.dumps(rows)
    assert [row["row"] for row in rows] == ["l-fp32", "l-tf32"]
    for row, precision in zip(rows, ("fp32", "tf32"), strict=True):
        labels = [launch[0] for launch in row["launches"]]
        assert labels == [launch.label for launch in a_trainer(precision).launches()]
        assert len(row["lines"]) == gpu_rows.DEAREST
        assert row["note"].startswith(f"{len(labels)} launches, ")


def test_a_convolution_in_every_tile_computes_the_same(cupy):
    found = {pixels: gpu_tiles.convolution_launch(2, SIZE, 4, "tf32", pixels) for pixels in gpu_tiles.PIXELS}
    assert found[256] is None  # four maps of 8x8 with their frames are too large for the shared memory
    assert [found[pixels].block for pixels in (128, 64)] == [(128,), (64,)]
    outputs = [to_cpu(found[pixels].args[2]) for pixels in (128, 64)]
    assert np.array_equal(*outputs)
    assert np.abs(outputs[0]).max() > 0


def test_the_chosen_tile_is_compared_with_the_others(small, monkeypatch):
    monkeypatch.setattr(gpu_tiles, "CONVOLUTIONS", 2)
    rows = list(gpu_rows.tiles("tiles", 2, maps=(SIZE,), filters=(4,)))
    json.dumps(rows)
    assert [row["row"] for row in rows] == ["tiles-8x8-4-fp32", "tiles-8x8-4-tf32"]
    assert all(row["ours"] == f"{conv_tile(BATCH, SIZE, SIZE).pixels} pixels" for row in rows)
    assert all("256 pixels do not fit" in row["lines"][0] for row in rows)


def test_repeated_convolutions_are_one_graph(cupy):
    ran = []
    take = gpu_tiles.repeated(Launch(lambda *_, **__: ran.append(1), (1,), (1,), ()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CapturedLaunches, "_make_graph", lambda self: None)
        take(2)
    assert len(ran) == 2 * gpu_tiles.CONVOLUTIONS
