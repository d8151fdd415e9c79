"""Runs on small data, through the command line."""

import pytest

from mlp.experiments import commands
from mlp.experiments.__main__ import main

from . import tiny


@pytest.fixture(scope="session")
def call():
    """Return a function that runs a command line and returns its exit status."""

    def run(*argv):
        try:
            return main([str(arg) for arg in argv])
        except SystemExit as stopped:
            return stopped.code

    return run


@pytest.fixture(scope="session")
def tiny_data():
    """Let ``--dataset shapes`` mean a small data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "load_shapes", tiny.shapes)
        yield


OPTIONS = ["--dataset", "shapes", "--train-limit", "100", "--batch-size", "40", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="session")
def train(call, tiny_data):
    """Return a function that trains VGG08 for two short epochs into a folder and returns the run's folder."""

    def run(runs_dir, *options, name="vgg08"):
        assert call(name, *OPTIONS, "--quiet", "--runs-dir", runs_dir, *options) == 0
        return max(runs_dir.iterdir())

    return run


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """Return the folder of a finished run. Not to be changed: copy it."""
    return train(tmp_path_factory.mktemp("finished"))
