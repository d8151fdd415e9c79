"""Progress bars with tqdm and without it, and whether there is a notebook."""

import ast
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlp
from mlp.bars import SilentBar, in_notebook, progress_bar
from mlp.experiments.progress import Progress
from mlp.optimisers import Scores

tqdm = pytest.importorskip("tqdm.auto").tqdm

USERS = ("optimisers.py", "data_providers/transfer.py", "experiments/progress.py")
BARS = ("bar", "batches")


@pytest.fixture
def no_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # importing it fails


def calls(path):
    """The calls of a bar's methods, and those that make a bar, in a file."""
    tree = ast.parse((Path(mlp.__file__).parent / path).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [call for call in found if getattr(call.func, "id", None) == "progress_bar"]
    methods = [call for call in found if isinstance(call.func, ast.Attribute)]
    return made, [
        c for c in methods if (getattr(c.func.value, "id", None) or getattr(c.func.value, "attr", "")) in BARS
    ]


CALLS = [call for path in USERS for call in calls(path)[1]]


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function):
    return [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]


def test_with_tqdm_a_bar_is_tqdm_s():
    with progress_bar([1, 2], disable=True, desc="x") as bar:
        assert isinstance(bar, tqdm)
        assert list(bar) == [1, 2]


def test_the_options_reach_tqdm(capsys):
    with progress_bar(total=7, initial=3, desc="Some words", unit="image", leave=False, disable=False) as bar:
        assert (bar.total, bar.n, bar.unit, bar.leave) == (7, 3, "image", False)
    printed = capsys.readouterr()
    assert "Some words" in printed.out + printed.err


@pytest.mark.parametrize("items", [[1, 2, 3], range(3), (), "abc"])
def test_without_tqdm_items_pass_by_in_silence(no_tqdm, capsys, items):
    bar = progress_bar(items, desc="x", total=3, leave=False, disable=None)
    assert type(bar) is SilentBar
    assert list(bar) == list(items)
    assert capsys.readouterr() == ("", "")


def test_without_tqdm_a_generator_is_not_drawn_ahead(no_tqdm):
    drawn = []
    bar = iter(progress_bar(drawn.append(i) or i for i in range(3)))
    assert next(bar) == 0
    assert drawn == [0]


def test_without_tqdm_a_bar_without_items_counts_by_hand(no_tqdm, capsys):
    with progress_bar(total=10, unit="B", unit_scale=True) as bar:
        assert bar.update(5) is None
        assert bar.update() is None
        assert list(bar) == []
    assert capsys.readouterr() == ("", "")


def test_without_tqdm_an_error_within_a_bar_goes_on(no_tqdm):
    with pytest.raises(KeyError), progress_bar(total=1):
        raise KeyError


def test_without_tqdm_lines_are_printed_where_they_are_asked_for(no_tqdm, capsys):
    bar = progress_bar(total=1)
    bar.write("to stdout")
    bar.write("to stdout too", file=sys.stdout)
    bar.write("to stderr", file=sys.stderr)
    assert capsys.readouterr() == ("to stdout\nto stdout too\n", "to stderr\n")


def test_a_broken_tqdm_is_no_silent_bar(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise ZeroDivisionError

    monkeypatch.setitem(sys.modules, "tqdm.auto", Broken())
    with pytest.raises(ZeroDivisionError):
        progress_bar([1])


def test_every_method_of_the_silent_bar_is_one_of_tqdm_s():
    methods = public(SilentBar)
    assert methods == {"update", "set_description", "set_postfix", "close", "write"}
    assert methods <= public(tqdm)
    for name in ("__iter__", "__enter__", "__exit__"):
        assert callable(getattr(SilentBar, name))
        assert callable(getattr(tqdm, name))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: ast.unparse(call.func))
@pytest.mark.parametrize("kind", [SilentBar, tqdm])
def test_every_call_of_a_bar_fits_both(kind, call):
    arguments = [None] * len(call.args), {keyword.arg: None for keyword in call.keywords}
    function = inspect.getattr_static(kind, call.func.attr)
    is_static = isinstance(function, (staticmethod, classmethod))
    inspect.signature(getattr(kind, call.func.attr)).bind(*([] if is_static else [None]), *arguments[0], **arguments[1])


def test_the_calls_are_all_found():
    assert {call.func.attr for call in CALLS} == public(SilentBar)
    assert [len(calls(path)[0]) for path in USERS] == [1, 1, 1]


def test_no_other_module_makes_bars():
    root = Path(mlp.__file__).parent
    makers = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "progress_bar(" in path.read_text()}
    assert makers == {*USERS, "bars.py"}


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_works_without_tqdm(no_tqdm, capsys, quiet):
    with Progress(10, 0, quiet) as progress:
        assert type(progress.bar) is SilentBar
        progress.step(1, 2, 5, Scores(1.0, 3, 5))
        progress.say("a line")
    assert capsys.readouterr() == ("" if quiet else "a line\n", "")


@pytest.mark.parametrize(
    ("shell", "expected"),
    [(None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)],
    ids=["IPython imported only", "terminal", "kernel"],
)
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch, shell, expected):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook() is expected


def test_without_ipython_there_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert in_notebook() is False
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert in_notebook() is False
