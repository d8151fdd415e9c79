"""The notebooks run from a clean kernel, without network, in the students' version; checks refuse what is wrong."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
_spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

SOURCES = make.sources()
every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Proactor"),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """No data folder, and no way out: a proxy that is not there."""
    monkeypatch.setenv("MLP_DATA_DIR", "/nowhere")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def errors(cell):
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def test_there_are_nine():
    assert [source.stem[:2] for source in SOURCES] == [f"{i:02d}" for i in range(1, 10)]


SPOIL = """
def _spoiled(value):
    import numpy as np
    from mlp.layers import ChainLayer, Layer, TanhLayer
    if isinstance(value, Layer):
        return ChainLayer([value, TanhLayer()])
    if isinstance(value, dict):
        return {key: _spoiled(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_spoiled(part) for part in value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, np.ndarray, np.number)):
        return 1.5 * value + 0.25
    return value + value if hasattr(value, "__add__") else value


def _spoil(function):
    return lambda *arguments, **options: _spoiled(function(*arguments, **options))
"""


def spoiled(code):
    """Return an exercise's code with every function that was to be written returning something else."""
    lines = code.splitlines()
    marked = [i + 1 for i, line in enumerate(lines) if line.strip() == make.BEGIN]
    names = []
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = [
                (f"{node.name}.{f.name}", f) for f in ast.walk(node) if isinstance(f, ast.FunctionDef) and f is not node
            ]
            parts = [(node.name, node)] if isinstance(node, ast.FunctionDef) else inner
            names += [name for name, f in parts if any(f.lineno <= i <= f.end_lineno for i in marked)]
    assert names
    return "\n".join([code, SPOIL, *(f"{name} = _spoil({name})" for name in names)])


@every_notebook
def test_it_runs_and_each_check_fails_until_its_exercise_is_solved(source):
    """One run: the students' version, all of it; then, in the same kernel, each exercise wrongly and rightly solved."""
    blank, solved = make.student(make.read(source)), make.read(source)
    exercises, checks = tagged(solved, "exercise"), tagged(solved, "check")
    count = len(blank.cells)
    for exercise, check in zip(exercises, checks, strict=True):
        for code in (spoiled(exercise.source), check.source, exercise.source, check.source):
            blank.cells.append(nbformat.v4.new_code_cell(code, id=f"solved-{len(blank.cells)}"))
    cells = make.run(blank, allow_errors=True).cells
    handed_out, tried = cells[:count], cells[count:]
    assert [bool(errors(cell)) for cell in tried[1::4]] == [True] * len(checks), "a check takes a wrong answer"
    solutions = [cell for i, cell in enumerate(tried) if i % 4 >= 2]
    wrong = [cell.source for cell in handed_out if errors(cell) and "check" not in cell.metadata.get("tags", [])]
    assert wrong == []
    assert all(errors(cell) for cell in handed_out if "check" in cell.metadata.get("tags", []))
    assert [errors(cell) for cell in solutions] == [[]] * len(solutions)
    for cell in solutions[1::2]:
        assert "right" in "".join(output.get("text", "") for output in cell.outputs)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    assert "Traceback" not in "".join(output.get("text", "") for output in outputs)
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) >= 3
    closing = handed_out[next(i for i, cell in enumerate(handed_out) if "## What we saw" in cell.source) - 1 :]
    assert any("image/png" in output.get("data", {}) for cell in closing for output in cell.get("outputs", []))


def test_a_solved_notebook_runs_from_top_to_bottom(tmp_path):
    assert make.main(["run", "01", "--to", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    notebook = nbformat.read(path, as_version=4)
    assert not any(errors(cell) for cell in notebook.cells)
    assert all(cell.outputs for cell in tagged(notebook, "check"))


@every_notebook
def test_the_notebook_is_its_source(source):
    paired = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert paired == nbformat.from_dict(make.read(source)), "run: python notebooks/make.py sync"


@every_notebook
def test_it_says_what_one_will_be_able_to_do_and_has_exercises(source):
    notebook = make.read(source)
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert "After this notebook you can" in first
    assert 3 <= len(re.findall(r"^[*-] ", first, re.MULTILINE)) <= 6
    assert any(re.search(r"^## What we saw", cell.source, re.MULTILINE) for cell in notebook.cells)
    exercises = tagged(notebook, "exercise")
    assert 2 <= len(exercises) == len(tagged(notebook, "check")) <= 4
    for cell in exercises:
        assert make.BEGIN in cell.source
        assert cell.metadata["jupyter"] == {"source_hidden": True}


@every_notebook
def test_no_solution_is_left_in_the_students_version(source):
    notebook, blank = make.read(source), make.student(make.read(source))
    for before, after in zip(notebook.cells, blank.cells, strict=True):
        if "exercise" in before.metadata.get("tags", []):
            solution = re.findall(rf"{make.BEGIN}\n(.*?)\n\s*{make.END}", before.source, re.DOTALL)
            assert solution
            assert all(part.strip() not in after.source for part in solution)
            assert "raise NotImplementedError" in after.source
        elif before.cell_type == "code":
            assert before.source == after.source
        assert make.BEGIN not in after.source
        assert "is folded in" not in after.source


def test_blanking_keeps_the_indentation():
    code = f'def f(x):\n    """Return x."""\n    {make.BEGIN}\n    return x\n    {make.END}\n\n\nf(1)'
    assert make.blanked(code) == (
        'def f(x):\n    """Return x."""\n    # YOUR CODE HERE\n'
        '    raise NotImplementedError("write your solution here")\n\n\nf(1)'
    )


@pytest.mark.parametrize("code", ["{end}", "{begin}", "{begin}\n{begin}\n{end}", "{begin}\n{end}\n{end}"])
def test_marks_without_their_pair_are_refused(code):
    with pytest.raises(make.SolutionError):
        make.blanked(code.format(begin=make.BEGIN, end=make.END))


def test_the_command_writes_the_students_version(tmp_path, capsys):
    assert make.main(["student", "01", "--to", str(tmp_path / "new")]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{SOURCES[0].stem}.ipynb"]
    assert f"{SOURCES[0].stem}.ipynb" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["student"], ["run", "99", "--to", "x"], ["student", "--to", str(FOLDER)], ["hand-in"]]
)
def test_a_wrong_command_ends_with_a_sentence(words, capsys):
    with pytest.raises(SystemExit) as caught:
        make.main(words)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["## BEGIN SOLUTION", "###BEGIN SOLUTION", "### Begin solution", "### END SOLUTION:"])
def test_what_is_nearly_a_mark_is_refused(mark):
    with pytest.raises(make.SolutionError, match=r"nearly a mark|other mark"):
        make.blanked(f"x = 1\n{mark}\ny = 2")


def test_a_mark_in_text_is_refused():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"a\n{make.BEGIN}\nb")])
    with pytest.raises(make.SolutionError, match="in text"):
        make.student(notebook)
