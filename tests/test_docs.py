"""The documentation has a page for every layer, and every page has what a page must have."""

import re
from pathlib import Path

import pytest

from mlp import layers

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted((DOCS / "layers").glob("*.md"))
ABSTRACT = {"Layer", "LayerWithParameters", "StochasticLayer", "StochasticLayerWithParameters"}


def test_every_layer_has_its_page():
    shown = {name for page in PAGES for name in re.findall(r":pyobject: (\w+)", page.read_text())}
    needed = {re.sub("[13]DLayer", "2DLayer", name) for name in layers.__all__}  # the axes share one class
    assert needed - ABSTRACT - shown == set()


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem not in ("index", "base")], ids=lambda page: page.stem)
def test_a_page_has_formula_gradients_example_proof_and_code(page):
    text = page.read_text()
    assert text.count("$") >= 4
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "Formula"
    assert "Example" in headings
    assert headings[-1] == "Code"
    assert any("gradient" in heading.lower() for heading in headings)
    assert "```{doctest}" in text
    assert re.search(r"check_gradients\(.*\)\.worst < 1e-1[12]\nTrue", text, re.DOTALL)
    assert "```{literalinclude}" in text


@pytest.mark.parametrize("folder", ["layers", "how-to", "api", "."])
def test_every_page_is_in_the_table_of_contents(folder):
    index = (DOCS / folder / "index.md").read_text()
    listed = set(re.findall(r"^([\w/-]+)$", index, re.MULTILINE))
    pages = {path.stem for path in (DOCS / folder).glob("*.md")} - {"index"}
    assert pages <= listed


def test_every_module_is_in_the_reference():
    named = set(re.findall(r"automodule:: ([\w.]+)", "".join(p.read_text() for p in (DOCS / "api").glob("*.md"))))
    package = DOCS.parent / "mlp"
    modules = {f"mlp.{path.stem}" for path in package.glob("[a-z]*.py")}
    packages = {f"mlp.{path.parent.name}" for path in package.glob("*/__init__.py")}
    inner = {"mlp.bars", "mlp.kernels", "mlp.experiments"}
    assert (modules | packages) - inner <= named
