"""What an issue report asks for: ``python -m mlp.experiments doctor`` finds it, tries the library, and gives a verdict.

Nothing is sent anywhere, no data is read, and nothing stays written. The user's home folder is written ``~``.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_info

from mlp import __version__
from mlp.backend import usable_gpu
from mlp.data_providers import find_cifar, search_folders, user_cache
from mlp.data_providers.download import find_file
from mlp.files import FolderLock, write_atomic
from mlp.kernels import SettingError, conv_method, num_threads
from mlp.selftest import examine, sections

SECONDS = 8.0
"""No check of the self-test begins later than this."""

PACKAGES = tuple("NumPy matplotlib Pillow safetensors pooch requests threadpoolctl tqdm urllib3".split())
SETTINGS = ("MLP_DATA_DIR", "MLP_NUM_THREADS", "MLP_CONV")
_TRAIN_VALID = ("train", "valid")
_ALL = (*_TRAIN_VALID, "test")
COURSEWORK = {
    "MNIST": [f"mnist-{part}.npz" for part in _ALL],
    "MNIST (original)": [f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")],
    "EMNIST": [f"emnist-{part}.npz" for part in _ALL],
    "EMNIST (original)": [
        f"emnist-balanced-{p}-{k}-ubyte" for p in ("train", "test") for k in ("images-idx3", "labels-idx1")
    ],
    "CIFAR-10 (coursework)": [f"cifar-10-{part}.npz" for part in _TRAIN_VALID],
    "CIFAR-100 (coursework)": [f"cifar-100-{part}.npz" for part in _TRAIN_VALID],
    "CCPP": ["ccpp_data.npz"],
    "CCPP (original)": ["Folds5x2_pp.csv"],
    "MetOffice": ["HadSSP_daily_qc.txt"],
    "MSD 10 genres": [f"msd-10-genre-{part}.npz" for part in _TRAIN_VALID],
    "MSD 25 genres": [f"msd-25-genre-{part}.npz" for part in _TRAIN_VALID],
    "debug packs": ["activation_debug_pack.npy", "regularization_debug_pack.npy"],
}
LITTLE = 500_000_000
"""Bytes free below which the disk space is worth a note."""

Facts = dict[str, str]


class Diagnosis:
    """What was found: facts in sections, problems that make the verdict bad, and notes that do not."""

    def __init__(self, data_dir: str | None, runs_dir: str) -> None:
        self.data_dir, self.runs_dir = data_dir, runs_dir
        self.sections: dict[str, Facts] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def run(self) -> None:
        """Find all facts; what cannot be found out is a problem, and the others are found still."""
        for name, part in PARTS.items():
            try:
                self.sections[name] = part(self)
            except Exception as error:  # the doctor is called where things are broken
                self.sections[name] = {}
                self.problems.append(f"{name} could not be found out ({type(error).__name__}: {error})")

    def verdict(self) -> str:
        """Return the last line."""
        if self.problems:
            return f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}, see above"
        return "no problem found" + ("; see the notes above" if self.notes else "")

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON values, the home folder as ``~``."""
        judged = {"problems": self.problems, "notes": self.notes, "well": not self.problems, "verdict": self.verdict()}
        found: dict[str, Any] = hide_home({**self.sections, **judged})
        return found


def doctor(args: argparse.Namespace) -> int:
    """Print a diagnosis; return 0 where all is well, 1 where something is wrong."""
    diagnosis = Diagnosis(args.data_dir, args.runs_dir)
    diagnosis.run()
    found = diagnosis.to_dict()
    text, encoding = json.dumps(found, indent=2) if args.json else _text(found), sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 0 if found["well"] else 1


def hide_home(value: Any) -> Any:
    """Return texts, also in lists and dictionaries, with the home folder as ``~``."""
    if isinstance(value, dict):
        return {hide_home(key): hide_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hide_home(inner) for inner in value]
    if isinstance(value, str):
        for folder in _homes():
            value = re.sub(rf"(?<![\w.~-]){re.escape(folder)}(?![\w-])", "~", value)
    return value


def _homes() -> set[str]:
    """Return the home folder as it is named and as it is; nothing where there is none, or it is the root."""
    try:
        home = Path.home()
    except RuntimeError:
        return set()
    return {str(home), str(home.resolve())} - {home.anchor}


def _text(found: dict[str, Any]) -> str:
    parts = []
    for name, facts in found.items():
        if isinstance(facts, dict):
            parts.append("\n".join([name, *(f"  {key:22} {value}" for key, value in facts.items())]))
    judged = [f"note: {note}" for note in found["notes"]] + [f"PROBLEM: {problem}" for problem in found["problems"]]
    return "\n\n".join([*parts, "\n".join([*judged, f"verdict: {found['verdict']}"])])


def _versions(diagnosis: Diagnosis) -> Facts:
    facts = {"mlp": __version__, "Python": f"{platform.python_version()} ({platform.python_implementation()})"}
    for name in PACKAGES:
        try:
            facts[name] = version(name.lower())
        except PackageNotFoundError:
            facts[name] = "not installed"
            diagnosis.problems.append(f"{name} is not installed, and mlp needs it: pip install {name.lower()}")
    cupy = sorted({d.name for d in distributions() if re.fullmatch(r"cupy(-(cuda|rocm)[\w-]+)?", d.name or "")})
    facts["CuPy"] = ", ".join(f"{name} {version(name)}" for name in cupy) or "not installed; only a GPU needs it"
    if len(cupy) > 1:
        diagnosis.problems.append(f"{' and '.join(cupy)} overwrite each other: uninstall all, then install one")
    return facts


def _machine(_: Diagnosis) -> Facts:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    usable = len(affinity(0)) if affinity else os.cpu_count()
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {
        "system": platform.platform(),
        "CPU": _line("/proc/cpuinfo", r"model name\s*: (.+)") or platform.processor() or platform.machine(),
        "cores": f"{usable} of {os.cpu_count()} may be used{_limit('cpu.max', 'quota and period')}",
        "memory": _memory() + _limit("memory.max", "bytes"),
        "BLAS": "; ".join(
            f"{b['internal_api']} {b['version']} {b.get('architecture', '')}, {b['num_threads']} threads" for b in blas
        )
        or "none that threadpoolctl knows: its threads cannot be limited",
    }


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "not known"
    available = _line("/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    return _size(total) + (f", {_size(1024 * int(available))} available" if available else "")


def _limit(name: str, unit: str) -> str:
    """Return a limit of the container that the process is in, in words."""
    found = _line(f"/sys/fs/cgroup/{name}", r"(\d.*)")
    return f", limited by the container to {found} ({unit})" if found else ""


def _line(path: str, pattern: str) -> str | None:
    """Return what a pattern finds at the start of a line of a file, or None."""
    try:
        found = re.search(f"^{pattern}$", Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


def _settings(diagnosis: Diagnosis) -> Facts:
    facts = {name: os.environ.get(name, "not set") for name in SETTINGS}
    for name in sorted(set(os.environ) - set(SETTINGS)):
        if name.startswith("MLP_"):
            facts[name] = "set; not shown, as mlp does not read it"
            diagnosis.notes.append(f"mlp reads no variable {name}, only {', '.join(SETTINGS)}")
    for check in (num_threads, conv_method):
        try:
            facts[check.__name__] = str(check())
        except SettingError as error:
            diagnosis.problems.append(str(error))
    return facts


def _gpu(diagnosis: Diagnosis) -> Facts:
    status = usable_gpu()
    if status.usable:
        return {"GPU": f"can be used: {status.reason}"}
    if "cannot be imported" not in status.reason:
        diagnosis.notes.append("CuPy is installed, and the GPU cannot be used: see there")
    return {"GPU": f"cannot be used: {status.reason}"}


def _data(diagnosis: Diagnosis) -> Facts:
    data_dir = diagnosis.data_dir
    named = {
        "--data-dir": (data_dir, diagnosis.problems),
        "$MLP_DATA_DIR": (os.environ.get("MLP_DATA_DIR"), diagnosis.notes),
    }
    for what, (folder, said) in named.items():
        if folder and not Path(folder).expanduser().is_dir():
            said.append(f"{what} is {folder}, which is no folder: name one that is, or make it")
    facts = {"looked in": ", ".join(str(folder) for folder in search_folders(data_dir))}
    for name in ("cifar100", "cifar10"):
        cifar = find_cifar(name, data_dir)
        command = "python -m mlp.experiments data"
        there = f" --data-dir {data_dir}" if data_dir else ""
        read = f"not read here: {command} check {name}{there} does that"
        facts[name] = f"{cifar[1]}; {read}" if cifar else f"not found; {command} fetch {name}"
    for name, files in COURSEWORK.items():
        places = [_find(file, data_dir) for file in files]
        folders = dict.fromkeys(str(place.parent) for place in places if place)
        lacking = [file for file, place in zip(files, places, strict=True) if not place]
        if folders:
            facts[name] = ", ".join(folders) + (f"; lacks {', '.join(lacking)}" if lacking else "")
    facts["not found"] = ", ".join(name for name in COURSEWORK if name not in facts) or "nothing"
    facts["digits"] = "comes with scikit-learn" if find_spec("sklearn") else "pip install scikit-learn brings it"
    return {**facts, "shapes": "needs no file"}


def _find(file: str, data_dir: str | None) -> Path | None:
    packed = file.endswith("-ubyte")
    return find_file(file, data_dir) or (find_file(f"{file}.gz", data_dir) if packed else None)


def _folders(diagnosis: Diagnosis) -> Facts:
    facts = {}
    for what, path, said in (
        ("runs", Path(diagnosis.runs_dir), diagnosis.problems),
        ("data cache", user_cache(), diagnosis.notes),
    ):
        around = (path, *path.absolute().parents)
        place = next(folder for folder in around if folder.exists() or folder.is_symlink())
        free = shutil.disk_usage(next(folder for folder in around if folder.exists())).free
        new = "" if path.exists() else " (not there yet)"
        try:
            _try_to_write(place)
            can = "can be written to"
        except (OSError, RuntimeError) as error:
            can = "cannot be written to"
            said.append(
                f"the folder for {what}, {path}, cannot be written to ({error}): name another, or mend its rights"
            )
        if free < LITTLE:
            diagnosis.notes.append(f"there is little space for {what}, in {path}: {free:,} bytes")
        facts[what] = f"{path}{new} {can}, {_size(free)} free"
    return facts


def _try_to_write(folder: Path) -> None:
    """Do in a folder of its own what a run does, and remove it."""
    with TemporaryDirectory(prefix=".doctor-", dir=folder) as temporary, FolderLock(Path(temporary)):
        write_atomic(Path(temporary) / "file", b"written by the doctor")


def _self_test(diagnosis: Diagnosis) -> Facts:
    try:
        num_threads(), conv_method()
    except SettingError as error:
        return {"not run": str(error)}
    end, facts, left = perf_counter() + SECONDS, {}, 0
    for section in sorted(sections(usable_gpu().usable, quick=True), key=lambda section: len(section.checks)):
        outcome = examine(section, end - perf_counter())
        facts[section.name] = f"{outcome.words(section)}: {section.proves}"
        diagnosis.problems += outcome.wrong
        left += len(section.checks) - outcome.tried
    if left:
        diagnosis.notes.append(f"{left} checks were not tried for lack of time: python -m mlp.selftest takes its time")
    return facts


PARTS: dict[str, Callable[[Diagnosis], Facts]] = {
    "versions": _versions,
    "machine": _machine,
    "settings": _settings,
    "GPU": _gpu,
    "data": _data,
    "folders": _folders,
    "self-test": _self_test,
}
