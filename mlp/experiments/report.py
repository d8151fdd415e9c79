"""The report's Table 1, from run folders, and the table of a profile."""

from collections.abc import Sequence
from textwrap import shorten

from mlp.engine import Profile
from mlp.experiments.configs import EXPERIMENTS, REPORT, Experiment
from mlp.records import RunFolder, best_epoch

TITLES = "model|data|epochs|LR|params|train loss|train acc %|val loss|val acc %|test acc %|run".split("|")
LEFT = {0, 1, len(TITLES) - 1}
NOTE = (
    "Figures of a run's best epoch, the one with the highest validation accuracy; the test set sees its weights, once."
)


_THREADS_NOTE = (
    "ms: of all threads together. MB: values read and written. A convolution by Winograd's algorithm computes less."
)
_GPU_NOTE = (
    "ms: of each launch by itself, the time that the host needs to launch it included. MB: arrays read and written."
)


def table(runs: Sequence[RunFolder]) -> str:
    """Return a table of runs, each CIFAR-100 run followed by what the report says of it."""
    rows = [TITLES]
    for run in runs:
        experiment = Experiment.of_run(run)
        rows.append(_row(run, experiment))
        said = REPORT.get(experiment.name)
        if said and experiment.dataset == "cifar100":
            rate = f"{EXPERIMENTS[experiment.name].learning_rate:g}"
            scores = [f"{score:.2f}" for score in said]
            rows.append(["  in the report", "cifar100", "100", rate, rows[-1][4], *scores, "-", ""])
    widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
    lines = ["  ".join(map(_aligned, row, widths, range(len(row)))) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", NOTE])


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in LEFT else cell.rjust(width)


def _row(run: RunFolder, experiment: Experiment) -> list[str]:
    metrics = run.metrics()
    limit = f"[:{experiment.train_limit}]" if experiment.train_limit else ""
    known = (run.path / "environment.json").exists()  # not where a run was killed in its first moment
    head = [
        experiment.name,
        experiment.dataset + limit,
        f"{len(metrics)}/{experiment.epochs}",
        f"{experiment.learning_rate:g}",
        f"{run.read_number('environment.json', 'parameters'):,}" if known else "-",
    ]
    if not metrics:
        return [*head, *("-",) * 5, run.path.name]
    best = best_epoch(metrics)
    scores = [f"{score:.2f}" for score in (best.train_loss, best.train_acc, best.val_loss, best.val_acc)]
    test = f"{run.read_number('test.json', 'test_acc'):.2f}" if run.is_complete() else "-"
    return [*head, *scores, test, run.path.name]


def profile_table(found: Profile, batch_size: int, every: bool) -> str:
    """Return a table of a training step's costs: those of a kind together, or `every` step of the plan."""
    rows = ["what|where|ms|share %|GFLOP/s|MB".split("|")]
    total = sum(cost.seconds for cost in found.costs)
    for cost in found.costs if every else found.merged():
        speed = f"{cost.gflops:.1f}" if cost.flops else "-"
        share = 100.0 * cost.seconds / total
        ms, where = f"{1e3 * cost.seconds:.{2 if found.threads else 4}f}", shorten(cost.label, 60)
        rows.append([cost.what, where, ms, f"{share:.1f}", speed, f"{cost.bytes / 1e6:.1f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(_aligned(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    gflops = sum(cost.flops for cost in found.costs) / found.seconds / 1e9
    head = (
        f"A training step of {batch_size} images takes {1e3 * found.seconds:.4g} ms "
        f"{f'on {found.threads} threads' if found.threads else 'on the GPU'}: "
        f"{gflops:.0f} GFLOP/s, counted as plain sums, without the learning rule."
    )
    return "\n".join([head, "", *lines, "", _THREADS_NOTE if found.threads else _GPU_NOTE])
