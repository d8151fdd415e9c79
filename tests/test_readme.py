"""What the README shows is what happens."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mlp.experiments.__main__ import _parser
from mlp.testing import GradientError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0] for line in README.splitlines() if "-m mlp.experiments" in line and "`" not in line]


def test_the_example_trains_on_mnist(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for part in ("train", "valid"):
        inputs = (rng.integers(0, 256, (200, 784)) / 256).astype(np.float16)
        np.savez(tmp_path / f"mnist-{part}.npz", inputs=inputs, targets=rng.integers(0, 10, 200).astype(np.int8))
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path))
    names = {}
    exec(PYTHON[0], names)
    assert names["stats"].shape == (6, 2)
    assert names["stats"][-1, 0] < names["stats"][0, 0]


def test_the_example_layer_is_right_and_prints_what_is_shown(capsys):
    exec(PYTHON[1], {})
    printed = capsys.readouterr().out
    shown = re.search(r"```\n(gradients of ScaleLayer.*?)```", README, re.DOTALL)[1]
    blur = re.compile(r"\d\.\de-\d\d")
    assert blur.sub("", printed) == blur.sub("", shown)


def test_the_layer_that_remembers_is_right():
    exec(PYTHON[2], {})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_that_the_parser_takes(line):
    words = shlex.split(line.split("&&")[-1])
    _parser().parse_args(words[words.index("mlp.experiments") + 1 :])


def test_the_mistake_it_speaks_of_is_found():
    wrong = PYTHON[1].replace(".sum(axis=0)", ".mean(axis=0)")
    assert wrong != PYTHON[1]
    shown = re.search(r"  (scale\[2\]: got .*?, expected .*?; .*)", README)[1]
    with pytest.raises(GradientError) as caught:
        exec(wrong, {})
    assert str(caught.value).endswith(shown)


def test_nothing_is_left_to_fill_in():
    assert re.findall(r"@[A-Z0-9]+@", README) == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
