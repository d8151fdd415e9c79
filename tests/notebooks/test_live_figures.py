"""In a kernel, training draws its curves in place; elsewhere it says lines."""

import base64

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

OPTIMISER = """
import numpy as np
from mlp.data_providers import DataProvider
from mlp.errors import SumOfSquaredDiffsError
from mlp.layers import AffineLayer
from mlp.learning_rules import GradientDescentLearningRule
from mlp.models import SingleLayerModel
from mlp.optimisers import Optimiser

rng = np.random.RandomState(0)
data = DataProvider(rng.normal(size=(20, 3)), rng.normal(size=(20, 1)), 10, rng=rng)
model, error = SingleLayerModel(AffineLayer(3, 1)), SumOfSquaredDiffsError()
optimiser = Optimiser(model, error, GradientDescentLearningRule(), data, data, notebook={notebook})
stats = optimiser.train(4, stats_interval=1)[0]
"""

EXPERIMENT = """
import tempfile
from mlp.experiments.__main__ import main

with tempfile.TemporaryDirectory() as folder:
    main(["vgg08", "--dataset", "shapes", "--epochs", "2", "--train-limit", "100", "--runs-dir", folder])
"""


def pictures(code):
    """Return the PNG outputs of a cell, each as it stands at the end, after all updates."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    return [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def test_an_optimiser_draws_one_figure_and_updates_it():
    pngs = pictures(OPTIMISER.format(notebook=True))
    assert len(pngs) == 1
    assert pngs[0].startswith(b"\x89PNG")


def test_an_optimiser_that_was_not_asked_to_draws_nothing():
    assert pictures(OPTIMISER.format(notebook=False)) == []


def test_an_experiment_draws_one_figure_and_updates_it():
    assert len(pictures(EXPERIMENT)) == 1


def test_the_figure_is_updated_in_place(monkeypatch):
    """The second figure takes the place of the first: same identifier."""
    import sys
    from types import ModuleType

    from matplotlib.figure import Figure

    from mlp.plots import LiveFigure

    shown = []

    class Handle:
        def update(self, image):
            shown.append(("update", image))

    fake = ModuleType("IPython.display")
    fake.Image = lambda content, format, alt: content
    fake.display = lambda image, display_id: shown.append(("display", image)) or Handle()
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    live = LiveFigure()
    for height in (1, 2, 3):
        live.show(Figure(figsize=(1, height)))
    assert [kind for kind, _ in shown] == ["display", "update", "update"]
    assert len({image for _, image in shown}) == 3
