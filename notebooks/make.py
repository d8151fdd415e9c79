"""Makes the notebooks from their sources, the plain-text .py files beside this one.

    python notebooks/make.py sync                    # write each .ipynb from its .py
    python notebooks/make.py student --to FOLDER     # the students' version: solutions blanked, checks kept
    python notebooks/make.py run --to FOLDER [NAME]  # run them from a clean kernel; outputs into FOLDER

In a source, a solution stands between two lines, nbgrader's: ### BEGIN SOLUTION and ### END SOLUTION.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HINT = r"\s*The\s+solution\s+is\s+folded\s+in\s+the\s+next\s+cell;\s+write\s+your\s+own\s+first\."
LIKE_A_MARK = r"(?i)^\s*#*\s*(begin|end)\s+solution\b"
BLANK = ("# YOUR CODE HERE", 'raise NotImplementedError("write your solution here")')


class SolutionError(ValueError):
    """The marks of a solution do not come in pairs."""


def sources(names: list[str] | None = None) -> list[Path]:
    """Return the notebooks' sources, in order; with `names`, those whose names begin with one of them."""
    found = sorted(path for path in HERE.glob("[0-9]*.py"))
    chosen = [path for path in found if not names or any(path.stem.startswith(name) for name in names)]
    lacking = [name for name in names or () if not any(path.stem.startswith(name) for path in found)]
    if lacking:
        raise FileNotFoundError(
            f"no notebook begins with {', '.join(lacking)}; there are {', '.join(p.stem for p in found)}"
        )
    return chosen


def read(source: Path) -> NotebookNode:
    """Return the notebook of a source: no outputs, and the same identifiers every time."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    return notebook


def blanked(code: str) -> str:
    """Return code with its solutions replaced by a line that raises; SolutionError for a mark without its pair."""
    lines, inside = [], False
    for line in code.splitlines():
        mark = line.strip()
        if re.match(LIKE_A_MARK, mark) and mark not in (BEGIN, END):
            raise SolutionError(f"{mark} is nearly a mark: write {BEGIN} or {END}, in: {code}")
        if mark in (BEGIN, END):
            if inside is (mark == BEGIN):
                raise SolutionError(f"{mark} stands where the other mark was expected, in: {code}")
            inside = mark == BEGIN
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + blank for blank in BLANK] if inside else []
        elif not inside:
            lines.append(line)
    if inside:
        raise SolutionError(f"{BEGIN} without {END}, in: {code}")
    return "\n".join(lines)


def student(notebook: NotebookNode) -> NotebookNode:
    """Return the students' version: solutions blanked and their cells unfolded; checks and all else as they are."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kept, cell.source = cell.source, blanked(cell.source)
            if cell.source != kept:
                cell.metadata.pop("jupyter", None)
        else:
            if re.search(LIKE_A_MARK, cell.source, re.MULTILINE):
                raise SolutionError(f"a mark of a solution stands in text: {cell.source}")
            cell.source = re.sub(HINT, "", cell.source).rstrip()
    return notebook


def run(notebook: NotebookNode, allow_errors: bool = False) -> NotebookNode:
    """Return the notebook with the outputs of a clean kernel, in this folder."""
    resources = {"metadata": {"path": str(HERE)}}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources, allow_errors=allow_errors
    )
    return client.execute()


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sync", "student", "run"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names, such as 03; default: all")
    parser.add_argument("--to", type=Path, help="the folder to write into")
    args = parser.parse_intermixed_args(arguments)
    if args.to is None and args.command != "sync":
        parser.error(f"{args.command} needs --to FOLDER")
    if args.to is not None and args.to.resolve() == HERE.resolve():
        parser.error("--to is the folder of the sources; choose another one")
    try:
        chosen = sources(args.names)
    except FileNotFoundError as error:
        parser.error(str(error))
    folder = HERE if args.to is None else args.to
    if folder.exists() and not folder.is_dir():
        parser.error(f"--to {folder} is a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for source in chosen:
        start, notebook = time.perf_counter(), read(source)
        if args.command == "run":
            notebook = run(notebook)
        elif args.command == "student":
            notebook = student(notebook)
        target = folder / f"{source.stem}.ipynb"
        nbformat.write(notebook, target)
        print(f"{target}  {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
