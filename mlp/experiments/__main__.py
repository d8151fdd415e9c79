"""The command line: ``python -m mlp.experiments --help``.

Exit status: 0 done, 1 the system refused (no space, no right) or the doctor found a problem, 2 wrong use, 3 data
missing or damaged, 4 the numbers of a training broke, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from mlp.backend import DeviceError
from mlp.checkpoints import CheckpointError
from mlp.data_providers import DataError
from mlp.engine import ENGINES, PRECISIONS, WorkspaceError
from mlp.experiments import commands
from mlp.experiments.configs import EXPERIMENTS, ExperimentError
from mlp.experiments.crash import TrainingBrokeError
from mlp.experiments.doctor import doctor
from mlp.files import FolderInUseError
from mlp.kernels import SettingError
from mlp.records import RecordError

_WRONG_USE = (
    RecordError,
    CheckpointError,
    FolderInUseError,
    DeviceError,
    SettingError,
    ExperimentError,
    WorkspaceError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args, unknown = _parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status: int = args.command(args)
        return status
    except DataError as error:
        print(f"mlp.experiments: {error}", file=sys.stderr)
        return 3
    except _WRONG_USE as error:
        print(f"mlp.experiments: {error}", file=sys.stderr)
        return 2
    except TrainingBrokeError as error:
        print(f"mlp.experiments: {error}", file=sys.stderr)
        return commands.BROKE
    except MemoryError as error:
        print(f"mlp.experiments: out of memory ({error}): free some, or use a smaller --batch-size", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mlp.experiments: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlp.experiments: stopped at once", file=sys.stderr)
        return commands.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlp.experiments",
        description="Train the networks of a report on vanishing gradients, and draw its table and figures.",
    )
    parts = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name in EXPERIMENTS:
        part = parts.add_parser(name, help=f"run the experiment {name}")
        part.set_defaults(command=commands.run, name=name, parser=part)
        _add_run_options(part)
    part = parts.add_parser("list", help="list the experiments")
    part.set_defaults(command=commands.list_experiments, parser=part)
    part = parts.add_parser("data", help="fetch, check or find a data set")
    part.add_argument("action", choices=("fetch", "check", "where"))
    part.add_argument("dataset", nargs="?", default="cifar100", choices=commands.DATASETS)
    part.add_argument("--data-dir", metavar="D", help="look here first; fetch looks here alone, and downloads to here")
    part.set_defaults(command=commands.data, parser=part)
    _add_profile_options(parts.add_parser("profile", help="print where the time of a training step goes"))
    _add_commands_on_runs(parts)
    _add_doctor_options(parts.add_parser("doctor", help="print what an issue report needs, and try the library"))
    return parser


def _add_commands_on_runs(parts: Any) -> None:
    part = parts.add_parser("plot", help="draw a run's figures again")
    part.add_argument("run", metavar="RUN", help="a run's folder")
    part.set_defaults(command=commands.plot, parser=part)
    part = parts.add_parser("compare", help="print a table of runs")
    part.add_argument("runs", metavar="RUN", nargs="+", help="runs' folders")
    part.set_defaults(command=commands.compare, parser=part)
    part = parts.add_parser("replay", help="run the step again at which the numbers of a training broke")
    part.add_argument("pack", metavar="PACK", help="a crash pack: the folder that the run named")
    part.set_defaults(command=commands.replay_pack, parser=part)


def _add_doctor_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("--json", action="store_true", help="print it as JSON")
    part.add_argument("--data-dir", metavar="D", help="look for data here first")
    part.add_argument("--runs-dir", metavar="DIR", default="runs", help="where run folders go; default: runs")
    part.set_defaults(command=doctor, parser=part)


_PRECISION_HELP = "of products in 3x3 convolutions on a GPU; default: fp32"


def _add_run_options(part: argparse.ArgumentParser) -> None:
    """Add the options of a run. Those that change the result default to None: the experiment's own value."""
    part.add_argument("--dataset", choices=commands.DATASETS, help="default: cifar100")
    part.add_argument("--data-dir", metavar="D", help="look for data here first, and download to here")
    part.add_argument("--epochs", metavar="E", type=_positive_int, help="epochs to anneal over; default: 100")
    part.add_argument("--batch-size", metavar="B", type=_positive_int, help="default: 100")
    part.add_argument("--learning-rate", metavar="LR", type=_positive_float, help="default: the experiment's")
    part.add_argument("--seed", metavar="S", type=_seed, help="default: 0")
    part.add_argument("--train-limit", metavar="N", type=_positive_int, help="use the first N training images only")
    part.add_argument(
        "--stratified",
        action="store_const",
        const=True,
        help="validation images in equal parts from all classes",
    )
    part.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: auto")
    part.add_argument("--engine", choices=ENGINES, default="plan", help="how to run the layers; default: plan")
    part.add_argument("--precision", choices=PRECISIONS, default="fp32", help=_PRECISION_HELP)
    part.add_argument(
        "--workspace-mb", metavar="M", type=_positive_int, help="megabytes that plans may take; default: what they need"
    )
    part.add_argument("--runs-dir", metavar="DIR", default="runs", help="where run folders go; default: runs")
    part.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    part.add_argument(
        "--stop-after", metavar="E", type=_positive_int, help="stop at the end of epoch E, to be gone on with later"
    )
    part.add_argument("--quiet", action="store_true", help="print the final table only")


def _add_profile_options(part: argparse.ArgumentParser) -> None:
    part.add_argument("name", metavar="NAME", choices=EXPERIMENTS, help="an experiment, as `list` prints them")
    part.add_argument("--batch-size", metavar="B", type=_positive_int, help="default: 100")
    part.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: auto")
    part.add_argument("--precision", choices=PRECISIONS, default="fp32", help=_PRECISION_HELP)
    part.add_argument("--all", action="store_true", help="every step of the plan, not those of a kind together")
    part.set_defaults(command=commands.profile_plan, parser=part)


def _positive_int(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number >= 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number in 0 .. 2^63 - 1")
    return int(text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
