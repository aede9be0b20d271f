"""What a study came to, as files that other programs read: a row a trial, and a row a configuration over its seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ssl_lab.atomic import write_whole
from ssl_lab.config import Knobs, RunConfig, portable_dataset
from ssl_lab.sweep.progress import SweepView, TrialView

RESULTS, SUMMARY = "results", "summary"
"""Names of both tables, each as ``.csv`` and ``.parquet`` in the study's folder."""

MEASURED = ("accuracy", "knn", "effective_rank", "final_loss")
"""What is averaged over seeds."""

_FIXED = tuple(name for name in RunConfig.model_fields if name not in ("knobs", "seed", "device", "data_dir", "loss"))

Row = dict[str, Any]


def results(view: SweepView) -> list[Row]:
    """A row for each trial: what it came to, then all its settings and its knobs at step 0."""
    return [_row(trial) for trial in view.trials]


def summary(view: SweepView) -> list[Row]:
    """A row for each configuration: mean, standard deviation (n - 1) and number of its done trials; None for none."""
    rows = []
    for label in view.labels:
        trials = view.of_label(label)
        done = [_row(trial) for trial in trials if trial.state == "done"]
        row: Row = {"label": label, "trials": len(trials), "done": len(done)}
        row["failed"] = sum(trial.state == "failed" for trial in trials)
        for name in MEASURED:
            there = [row_[name] for row_ in done if row_[name] is not None]
            row[f"{name}_mean"] = mean(there) if there else None
            row[f"{name}_sd"] = stdev(there) if len(there) > 1 else None
            row[f"{name}_n"] = len(there)
        rows.append(row)
    return rows


def write_tables(view: SweepView) -> list[Path]:
    """Writes both tables into the study's folder; gives their paths. Without pyarrow there is only the CSV.

    Raises:
        WriteError: one cannot be written.
    """
    written = []
    for name, rows in ((RESULTS, results(view)), (SUMMARY, summary(view))):
        for suffix, data in ((".csv", as_csv(rows)), (".parquet", _parquet(rows))):
            if data is not None:
                path = view.folder / f"{name}{suffix}"
                write_whole(path, [data])
                written.append(path)
    return written


def _row(view: TrialView) -> Row:
    trial, record, config = view.trial, view.record, view.trial.config
    row: Row = {
        "name": trial.name, "label": trial.label, "seed": trial.seed, "state": view.state, "accuracy": record.accuracy,
        "knn": record.knn, "effective_rank": record.effective_rank, "asymmetry": record.asymmetry,
        "aligned": record.aligned, "final_loss": record.loss, "step": record.step, "of": view.of,
        "attempts": record.attempts, "seconds": record.seconds, "device": record.device, "node": record.node,
        "turned_by_hand": record.turned_by_hand, "error": record.error,
        "schedule": json.dumps(trial.turns) if trial.turns else "", "steps": trial.steps,
        "probe_epochs": trial.probe_epochs, "loss": config.loss,
    }  # fmt: skip
    row |= {name: getattr(config, name) for name in _FIXED}
    # A table is sent around; where somebody's folder lies is not for others.
    row["dataset"] = portable_dataset(config.dataset)
    return row | {name: getattr(config.knobs, name) for name in Knobs.model_fields}


def as_csv(rows: Sequence[Row]) -> bytes:
    """A table as CSV, in UTF-8."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes | None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    columns = {name: _column(pyarrow, [row[name] for row in rows]) for name in rows[0]}
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def _column(pyarrow: Any, values: Sequence[Any]) -> Any:
    there = [value for value in values if value is not None]
    # A column that is empty still, such as the accuracies of a study that has just begun, has its kind all the same.
    return pyarrow.array(values, None if there else pyarrow.float64())
