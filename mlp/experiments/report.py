"""The report's Table 1, from run folders."""

from collections.abc import Sequence

from mlp.experiments.configs import EXPERIMENTS, REPORT, Experiment
from mlp.records import RunFolder, best_epoch

TITLES = (
    "model",
    "data",
    "epochs",
    "LR",
    "params",
    "train loss",
    "train acc %",
    "val loss",
    "val acc %",
    "test acc %",
)
NOTE = "Figures of the epoch with the best validation accuracy; the test set was run once, with its weights."


def table(runs: Sequence[RunFolder]) -> str:
    """Return a table of runs, each CIFAR-100 run followed by what the report says of it."""
    rows: list[tuple[str, ...]] = [TITLES]
    for run in runs:
        experiment = Experiment.of_run(run)
        rows.append(_row(run, experiment))
        said = REPORT.get(experiment.name)
        if said and experiment.dataset == "cifar100":
            scores = (
                f"{said.train_loss:.2f}",
                f"{said.train_acc:.2f}",
                f"{said.val_loss:.2f}",
                f"{said.val_acc:.2f}",
            )
            rate = f"{EXPERIMENTS[experiment.name].learning_rate:g}"
            rows.append(("  in the report", "cifar100", "100", rate, rows[-1][4], *scores, "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", NOTE])


def _row(run: RunFolder, experiment: Experiment) -> tuple[str, ...]:
    metrics = run.metrics()
    head = (
        experiment.name,
        experiment.dataset,
        f"{len(metrics)}/{experiment.epochs}",
        f"{experiment.learning_rate:g}",
    )
    params = f"{run.read_field('environment.json', 'parameters'):,}"
    if not metrics:
        return (*head, params, *("-",) * 5)
    best = best_epoch(metrics)
    test = f"{run.read_field('test.json', 'test_acc'):.2f}" if run.is_complete() else "-"
    scores = (
        f"{best.train_loss:.2f}",
        f"{best.train_acc:.2f}",
        f"{best.val_loss:.2f}",
        f"{best.val_acc:.2f}",
    )
    return (*head, params, *scores, test)
