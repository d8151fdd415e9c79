"""The budgets of the house: short files, short functions, documented parts, and no word twice."""

import ast
import tomllib
from pathlib import Path

import pytest

import mlp

FILES = sorted(Path(mlp.__file__).parent.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def functions(path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def body_lines(function):
    """Return the lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@every_file
def test_files_have_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


@every_file
def test_function_bodies_have_at_most_25_lines(path):
    assert {f.name: body_lines(f) for f in functions(path) if body_lines(f) > 25} == {}


@every_file
def test_modules_say_what_they_are_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@every_file
def test_no_assert_guards_a_users_argument(path):
    asserts = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert all("is not None" in ast.unparse(node.test) for node in asserts)


def test_all_files_of_the_package_are_shipped():
    root = Path(mlp.__file__).parent
    with (root.parent / "pyproject.toml").open("rb") as stream:
        patterns = tomllib.load(stream)["tool"]["setuptools"]["package-data"]["mlp"]
    shipped = {path for pattern in patterns for path in root.glob(pattern)}
    others = {path for path in root.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others == shipped


def test_the_package_is_typed_and_has_a_version():
    assert (Path(mlp.__file__).parent / "py.typed").exists()
    assert mlp.__version__.count(".") == 2
    assert mlp.DEFAULT_SEED == 123456
