"""What the commands of ``python -m mlp.experiments`` do."""

import argparse
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from mlp.backend import to_device
from mlp.data_providers import (
    DataDamagedError,
    DataMissingError,
    ImageData,
    find_cifar,
    load_cifar,
    load_digits,
    load_shapes,
    search_folders,
)
from mlp.data_providers.cifar import have_cifar
from mlp.data_providers.cifar_content import content_of
from mlp.data_providers.cifar_forms import FORMS
from mlp.engine import Engine, profile
from mlp.errors import CrossEntropySoftmaxError
from mlp.experiments.configs import EXPERIMENTS, Experiment
from mlp.experiments.crash import replay
from mlp.experiments.environment import Setup, record_environment
from mlp.experiments.interrupt import Interrupted
from mlp.experiments.report import profile_table, table
from mlp.experiments.runner import EVALUATION_BATCH, Runner, engine_for
from mlp.files import FolderLock
from mlp.models import summary
from mlp.plots import plot_run
from mlp.records import RecordError, RunFolder

DATASETS = ("cifar100", "cifar10", "digits", "shapes")
INTERRUPTED, BROKE = 130, 4


def load_data(experiment: Experiment, data_dir: str | None, quiet: bool, download: bool = True) -> ImageData:
    """Return an experiment's data."""
    if experiment.dataset == "shapes":
        data = load_shapes()
    elif experiment.dataset == "digits":
        data = load_digits()
    else:
        data = load_cifar(experiment.dataset, data_dir, experiment.stratified, download, quiet)
    return data.limited(experiment.train_limit)


def _check_data_dir(data_dir: str | None, may_be_made: bool = False) -> None:
    """Raise DataMissingError where --data-dir cannot be a folder that data lies in."""
    folder = Path(data_dir or ".").expanduser()
    if not folder.exists():
        if not may_be_made:
            raise DataMissingError(f"--data-dir {data_dir} does not exist: name a folder that does, or make it")
    elif not folder.is_dir():
        raise DataMissingError(f"--data-dir {data_dir} is no folder but a file: name the folder that holds it")
    for dataset, forms in FORMS.items() if data_dir else ():
        unpacked = any(all((folder / name).is_file() for name in (*form.train, form.names)) for form in forms)
        if unpacked and not find_cifar(dataset, folder, only_there=True):
            raise DataMissingError(
                f"--data-dir {data_dir} is the unpacked folder of {dataset} itself: name the folder that holds it"
            )


def run(args: argparse.Namespace) -> int:
    """Run or resume an experiment."""
    _check_data_dir(args.data_dir)
    setup = Setup.of(args.device, args.engine, args.precision, args.workspace_mb)
    given = {f.name: value for f in fields(Experiment) if (value := getattr(args, f.name, None)) is not None}
    folder = None if args.resume is None else RunFolder.open(Path(args.resume))
    stored = folder.read_json("config.json") if folder else None
    base = Experiment.of_run(folder) if folder else EXPERIMENTS[args.name]
    experiment = replace(base, **given)
    if stored and (lines := base.differences(experiment)):
        raise RecordError(f"{args.resume} is another run and cannot be gone on with:\n  " + "\n  ".join(lines))
    data_dir = args.data_dir or (folder.read_text("config.json", "data_dir") if folder else None)
    data = load_data(experiment, data_dir, args.quiet)
    config = {
        "experiment": experiment.to_dict(),
        "data_dir": args.data_dir and str(Path(args.data_dir).expanduser().absolute()),
        "data_sha256": data.fingerprint(),
    }
    if stored and (before := stored.get("data_sha256")) != (now := config["data_sha256"]):
        raise RecordError(f"{args.resume} was trained on other data: SHA-256 {before}, {data.source} has {now}")
    memory = _memory(experiment, data, setup)
    if folder is None:
        folder = RunFolder.create(Path(args.runs_dir), experiment.name)
        folder.write_json("config.json", config)
    with FolderLock(folder.path):
        return _run_in(folder, experiment, data, setup, args, memory)


def _run_in(
    folder: RunFolder, experiment: Experiment, data: ImageData, setup: Setup, args: argparse.Namespace, memory: str
) -> int:
    """Run in a folder that is locked."""
    command = ["python", "-m", "mlp.experiments", experiment.name, "--resume", str(folder.path), *setup.options()]
    if args.data_dir:
        command += ["--data-dir", args.data_dir]
    runner = Runner(experiment, data, folder, quiet=args.quiet, **setup._asdict())
    record_environment(folder, setup, data.source, _num_parameters(runner))
    if not args.quiet:
        print(_head(runner, setup), memory, sep="\n", flush=True)
    try:
        runner.run(args.stop_after)
        files = plot_run(folder)
    except Interrupted:
        return _stopped("Stopped; everything is saved", command, INTERRUPTED)
    except KeyboardInterrupt:
        return _stopped("stopped at once; the last checkpoint is saved", command, INTERRUPTED)
    except OSError as error:
        return _stopped(f"Stopped by the system ({error}); what was saved before is whole", command, 1)
    if not folder.is_complete():
        _stopped("Stopped; everything is saved", command, 0)
    _print_results(folder, files, args.quiet)
    return 0


def _num_parameters(runner: Runner) -> int:
    return sum(param.size for param in runner.model.params)


def _head(runner: Runner, setup: Setup) -> str:
    """Say what is run, on what, and into which folder."""
    data, folder = runner.data, runner.folder
    where = f"{len(data.train.labels):,} training images of {data.name} ({data.source}), on the {setup.device}"
    done = ", which is complete" if folder.is_complete() else runner.position
    return f"{runner.experiment.name}: {_num_parameters(runner):,} parameters, {where}, into {folder.path}{done}"


def _memory(experiment: Experiment, data: ImageData, setup: Setup) -> str:
    """Say how much memory a run takes, before it does. Raises WorkspaceError where it may not take so much."""
    images = f"{sum(part.pixels.nbytes for part in (data.train, data.valid, data.test)) / 1e6:.1f} MB of images"
    if setup.device == "gpu":
        return f"memory: {images}"
    height, width, channels = data.train.pixels.shape[1:]
    engine = engine_for(experiment.build_model(data.num_classes), *setup[1:])
    found = [
        engine.memory((min(most, len(part.labels)), channels, height, width), np.float32, training)
        for part, most, training in ((data.train, experiment.batch_size, True), (data.valid, EVALUATION_BATCH, False))
    ]
    if None in found:
        return f"memory: {images}"
    step, evaluation = (f"{size / 1e6:.1f} MB" for size in found if size is not None)
    return f"memory: {step} for a training step and {evaluation} for an evaluation, beside {images}"


def _stopped(how: str, command: list[str], status: int) -> int:
    """Say how a run was stopped and which command goes on; return the exit status."""
    print(f"{how}. To go on:\n  {shlex.join(command)}", file=sys.stderr)
    return status


def _print_results(folder: RunFolder, files: list[Path], quiet: bool) -> None:
    print(table([folder]))
    if not quiet:
        print("\nFigures:", *(str(file) for file in files if file.suffix == ".png"), sep="\n  ")


def replay_pack(args: argparse.Namespace) -> int:
    """Run a crash pack's step again; the status is that of the run where the same is found, 0 where it is not."""
    then, now = replay(Path(args.pack))
    print(f"then  {then}\nnow   {now}\n{'the same' if then == now else 'not the same'}")
    return BROKE if then == now else 0


def list_experiments(_: argparse.Namespace) -> int:
    """Print the experiments."""
    for experiment in EXPERIMENTS.values():
        sizes = summary(experiment.build_model(100), (3, 32, 32))
        extras = [text for on, text in ((experiment.batch_norm, "BN"), (experiment.residual, "RC")) if on]
        net = " ".join([f"VGG{8 + 6 * experiment.num_blocks:02d}", "+".join(extras)]).strip()
        rate = f"learning rate {experiment.learning_rate:g}"
        print(f"{experiment.name:20} {net:12} {sizes.parameters:8,} parameters  {rate}")
    return 0


def data(args: argparse.Namespace) -> int:
    """Fetch, check or find a data set."""
    _check_data_dir(args.data_dir, may_be_made=args.action == "fetch")
    if args.action == "where":
        return _where(args)
    if args.action == "fetch" and args.data_dir and args.dataset in FORMS:
        have_cifar(args.dataset, args.data_dir)  # not elsewhere: what lies there may be what is to be replaced
    experiment = replace(EXPERIMENTS["vgg08"], dataset=args.dataset)
    images = load_data(experiment, args.data_dir, quiet=False, download=args.action == "fetch")
    for part in ("train", "valid", "test"):
        print(f"{part:6} {len(getattr(images, part).labels):6,} images")
    print(f"classes {images.num_classes}\nsource  {images.source}\nSHA-256 {images.fingerprint()}")
    return _say_content(args.dataset, images.source, args.data_dir) if args.dataset in FORMS else 0


def _say_content(dataset: str, source: str, data_dir: str | None) -> int:
    """Say whether what was read is the official data set; return the exit status."""
    content = content_of(dataset, data_dir)
    print(f"content {content.words}")
    if content.official is not False:
        return 0
    raise DataDamagedError(
        f"{source} is not what its name says, the complete official {dataset}. It can be trained on, as other data; "
        f"for the official files: python -m mlp.experiments data fetch {dataset} --data-dir AN_EMPTY_FOLDER, then name "
        f"that folder with --data-dir"
    )


def _where(args: argparse.Namespace) -> int:
    if args.dataset not in FORMS:
        print(f"{args.dataset} needs no file")
        return 0
    places = [folder.absolute() for folder in search_folders(args.data_dir)]
    print(f"{args.dataset} is looked for in:", *places, sep="\n  ")
    names = [name for form in FORMS[args.dataset] for name in (form.archive.name, f"{form.folder}/")]
    print(f"as {', '.join(names)}")
    found = find_cifar(args.dataset, args.data_dir)
    print(f"{args.dataset}: {found[1].absolute() if found else 'not found'}")
    return 0 if found else 3


def profile_plan(args: argparse.Namespace) -> int:
    """Print where the time of a training step goes."""
    experiment = replace(EXPERIMENTS[args.name], batch_size=args.batch_size or EXPERIMENTS[args.name].batch_size)
    model, rng = experiment.build_model(100), np.random.default_rng(0)
    inputs = rng.standard_normal((experiment.batch_size, 32, 32, 3)).astype(experiment.dtype).transpose(0, 3, 1, 2)
    setup = Setup.of(args.device, "plan", args.precision)
    engine = Engine(model.to_device(setup.device), CrossEntropySoftmaxError(), precision=setup.precision)
    batch = inputs, rng.integers(0, 100, experiment.batch_size)
    found = profile(engine, *(to_device(array, setup.device) for array in batch))
    print(profile_table(found, experiment.batch_size, args.all))
    return 0


def plot(args: argparse.Namespace) -> int:
    """Draw a run's figures again."""
    print(*plot_run(RunFolder.open(Path(args.run))), sep="\n")
    return 0


def compare(args: argparse.Namespace) -> int:
    """Print a table of runs."""
    print(table([RunFolder.open(Path(path)) for path in args.runs]))
    return 0
