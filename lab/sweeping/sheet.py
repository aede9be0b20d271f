"""A sweep as a table of its trials, for a spreadsheet."""

from __future__ import annotations

import csv
import io

from ssl_lab.sweep.progress import SweepView

COLUMNS = (
    "trial", "label", "seed", "state", "step", "of", "accuracy", "knn", "effective_rank", "asymmetry", "aligned",
    "loss", "seconds", "attempts", "node", "device", "error",
)  # fmt: skip


def as_csv(view: SweepView) -> str:
    """A row for each trial in the order of the plan, with what sets it apart; accuracies are shares in [0, 1]."""
    keys = list(dict.fromkeys(key for trial in view.trials for key in trial.trial.values))
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    # What the study sets may have the name of something that comes out.
    sheet.writerow([*COLUMNS[:3], *(f"set {key}" if key in COLUMNS else key for key in keys), *COLUMNS[3:]])
    for trial in view.trials:
        record = trial.record
        sheet.writerow(
            [trial.name, trial.label, trial.seed, *(trial.trial.values.get(key, "") for key in keys), trial.state,
             trial.step, trial.of, trial.accuracy, trial.knn, record.effective_rank, record.asymmetry, record.aligned,
             record.loss, record.seconds, trial.attempts, trial.node, record.device, trial.error.strip()]
        )  # fmt: skip
    return text.getvalue()
