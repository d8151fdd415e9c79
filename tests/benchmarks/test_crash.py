"""Crashes at random moments, a few of each kind; `python -m benchmarks.crash` has a thousand."""

import pytest

from benchmarks import crash
from benchmarks.crash_loop import horizon, loop, new_folder, problems, states
from mlp import checkpoints, files, records
from mlp.files import Output

COUNT = {"kill": 6, "power": 30}


@pytest.fixture(scope="module", autouse=True)
def _right():
    """What a loop of the right library does is found out and kept before a test puts a careless one in its place."""
    crash._calls()
    states(horizon(crash.EPOCHS + 3))


@pytest.mark.parametrize("kind", crash.MISHAPS)
def test_after_a_crash_everything_is_whole_and_nothing_lost(kind):
    wrong, lines = crash.trials(kind, COUNT.get(kind, 15), seed=1)
    assert lines == []
    assert wrong == {}


def test_the_command_says_so(capsys):
    assert crash.main(["--trials", "11", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["trials", "unreadable", "lost", "other", "end"]
    assert out.splitlines()[-1].split() == ["all", "11", "0", "0", "0"]
    assert err.strip() == ""


# --- trials of libraries that are careless must go wrong


def in_place(path, data, keep=None):
    """Write a file where it stands."""
    with Output(path) as output:
        output.write(data.encode() if isinstance(data, str) else data)
    files.disk.sync_folder(path.parent)


def without_keeping(real):
    return lambda path, data, keep=None: real(path, data)


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "short", "power"])
def test_files_written_in_place_are_found_out(monkeypatch, kind):
    for module in (checkpoints, records):
        monkeypatch.setattr(module, "write_atomic", in_place)
    wrong, _ = crash.trials(kind, 60 if kind == "power" else 20, seed=1)
    assert wrong["unreadable"] > 2


def test_a_checkpoint_that_is_not_kept_is_found_out(monkeypatch):
    monkeypatch.setattr(checkpoints, "write_atomic", without_keeping(checkpoints.write_atomic))
    wrong, _ = crash.trials("power", 15, seed=1)
    assert wrong["lost"] > 2


@pytest.mark.parametrize(("forgotten", "how"), [("sync", "unreadable"), ("sync_folder", "lost")])
def test_what_is_not_brought_to_disk_is_found_out(forgotten, how):
    wrong, _ = crash.trials("power", 25, seed=1, without=[forgotten])
    assert wrong[how] > 2


def test_a_loop_that_forgets_something_is_found_out(monkeypatch):
    real = crash.loop
    monkeypatch.setattr(crash, "loop", lambda folder, epochs, saved: real(folder, epochs - 1, saved))
    wrong, _ = crash.trials("EIO", 5, seed=1)
    assert wrong["other end"] == 5


@pytest.mark.parametrize(
    ("spoil", "how"),
    [
        (lambda run: run.last_checkpoint.write_bytes(run.last_checkpoint.read_bytes()[:-1]), "unreadable"),
        (lambda run: run.previous_checkpoint.write_bytes(b""), "unreadable"),
        (lambda run: (run.path / "metrics.csv").write_bytes(b"epoch"), "unreadable"),
        (lambda run: (run.path / "other").write_bytes(b""), "unreadable"),
        (lambda run: run.last_checkpoint.unlink(), "lost"),
        (lambda run: run.previous_checkpoint.unlink(), "lost"),
        (lambda run: (run.path / "gradient_flow.csv").unlink(), "lost"),
        (lambda run: run.last_checkpoint.write_bytes(run.previous_checkpoint.read_bytes()), "lost"),
    ],
)
def test_a_spoiled_folder_is_found_out(tmp_path, spoil, how):
    run = new_folder(tmp_path / "run")
    loop(run, 4, lambda _: None)
    assert problems(run, 4) == {}
    spoil(run)
    assert list(problems(run, 4)) == [how]


def test_every_state_is_another():
    for name in ("checkpoints/last.safetensors", "metrics.csv", "gradient_flow.csv"):
        contents = [state[name] for state in states(64)[1:]]
        assert len(set(contents)) == 64
