"""How far the runs of a study are, by their files; no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ssl_lab.config import total_steps
from ssl_lab.reproduce.rows import ROWS, Job
from ssl_lab.seat import taken
from ssl_lab.store import FILE_NAME, PROBED, RunStore, open_run
from ssl_lab.sweep.progress import check_setup

SUPERVISED = "supervised.json"
"""What the ceiling came to, in the folder of its name."""

LOCK = "study.lock"
"""The seat of whoever works on a study, in its folder."""

STOP = "stop-asked"
"""A file in a study's folder that asks whoever works on it to save and let go."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    job: Job
    """Which."""
    steps: int
    """Steps done."""
    of: int
    """Steps in all."""
    done: bool
    """Trained and probed."""


def look(job: Job, folder: Path, *, elsewhere: bool = False) -> Progress:
    """How far a run is, by its file; ``elsewhere``: another machine may be writing it.

    Raises:
        ConfigError: a run of that name was set up in another way.
    """
    of = total_steps(job.config)
    if ROWS[job.row].kind == "supervised":
        return Progress(job, 0, 0, (folder / job.name / SUPERVISED).is_file())
    if not (folder / job.name / FILE_NAME).is_file():
        return Progress(job, 0, of, False)
    with open_run(job.name, folder, readonly=True, elsewhere=elsewhere) as store:
        check_same(job, store, folder)
        return Progress(job, store.last_step(), of, store.meta(PROBED) is not None)


def worked_on(folder: Path) -> bool:
    """Whether a process of this machine works on the study in a folder."""
    if not taken(folder / LOCK):
        return False
    # Whoever looks holds the seat for a moment, and may be all that was seen.
    time.sleep(0.005)
    return bool(taken(folder / LOCK))


def check_same(job: Job, store: RunStore, folder: Path) -> None:
    """A study's run is set up as the job says, wherever it was computed.

    Raises:
        ConfigError: it was set up in another way.
    """
    check_setup(job.name, job.config, store, folder)
