"""Trains and probes every run of a study, wherever there is room; all is kept in run files, so that it can be cut."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lab.cores import usable_cores
from ssl_lab.errors import SSLLabError
from ssl_lab.reproduce.progress import STOP, Progress, check_same, look
from ssl_lab.reproduce.rows import ROWS, Job
from ssl_lab.store import FILE_NAME, PROBED, RunStore, open_run
from ssl_lab.sweep.local import LocalCrew
from ssl_lab.sweep.work import Crew, Task, new_flag, work_off

if TYPE_CHECKING:
    from ssl_lab.trainer import Trainer

RETRIES = 2
"""How often a run whose process or machine was lost is begun again, from its last checkpoint."""


def run_study(
    jobs: Sequence[Job],
    folder: Path,
    *,
    workers: int,
    probe_epochs: int,
    threads: int | None = None,
    crew: Crew | None = None,
    deadline: float | None = None,
    stop: threading.Event | None = None,
    on_change: Callable[[list[Progress]], None] | None = None,
    on_failure: Callable[[Job, str], None] | None = None,
) -> bool:
    """Trains and probes what is not done yet; gives whether all of it is now.

    Args:
        jobs: the runs.
        folder: of their files.
        workers: processes at once; with more than one, each computes on its share of the cores.
        probe_epochs: passes of each probe.
        threads: of each run; default its share of this machine's cores.
        crew: who computes; default so many processes of this machine.
        deadline: ``time.time()`` at which runs are saved and let go, to be gone on with by another call.
        stop: set it for the same; so does a file :data:`~ssl_lab.reproduce.progress.STOP` in the folder.
        on_change: called twice a second, of other machines every few seconds, with the runs that are under way or done.
        on_failure: called with a run that cannot be had and why; the others go on.

    Raises:
        ConfigError: a run of one of the names was set up in another way; nothing was started.
    """
    stop = stop or threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    flag = new_flag(folder, STOP)
    if threads is None:
        threads = max(1, usable_cores() // workers)
    crew = crew or LocalCrew(workers)
    elsewhere = crew.with_ray
    by_name = {job.name: job for job in jobs}
    last = {job.name: look(job, folder, elsewhere=elsewhere) for job in jobs}
    tasks = [
        Task(job.name, run_job, (job, folder, threads, probe_epochs, flag)) for job in jobs if not last[job.name].done
    ]

    def asked() -> bool:
        return stop.is_set() or (folder / STOP).exists() or (deadline is not None and time.time() > deadline)

    def show() -> None:
        if on_change is None:
            return
        for job in jobs:
            # A file that another machine writes or closes this moment may not be had; the next look has it.
            with suppress(SSLLabError):
                last[job.name] = look(job, folder, elsewhere=elsewhere)
        on_change([last[job.name] for job in jobs])

    def failed(name: str, why: str) -> None:
        if on_failure is not None:
            on_failure(by_name[name], why)

    work_off(tasks, crew, flag=flag, asked=asked, retries=RETRIES, on_look=show, on_failure=failed)
    (folder / STOP).unlink(missing_ok=True)
    return all(look(job, folder, elsewhere=elsewhere).done for job in jobs)


# ------------------------------------------------------------------ in a worker


def run_job(job: Job, folder: Path, threads: int, probe_epochs: int, flag: Path) -> str:
    """One run, from where it was cut to its probes; gives "", or why it failed. ``flag`` is a file that says stop."""
    from ssl_lab.pretrain import dataset_of, told_by

    with told_by(flag, threads) as stop:
        try:
            if ROWS[job.row].kind == "supervised":
                from ssl_lab.reproduce.supervised import supervised

                return supervised(job, folder, dataset_of(job.config), stop)
            return _pretrained(job, folder, probe_epochs, stop)
        except SSLLabError as error:
            return str(error)


def _pretrained(job: Job, folder: Path, probe_epochs: int, stop: threading.Event) -> str:
    from ssl_lab.pretrain import dataset_of, pretrain
    from ssl_lab.trainer import Trainer

    trainer = Trainer(job.config, dataset_of(job.config))
    fresh = not (folder / job.name / FILE_NAME).is_file()
    store = RunStore.create(job.name, job.config, folder) if fresh else open_run(job.name, folder)
    with store:
        check_same(job, store, folder)
        if not pretrain(trainer, store, (job.config.epochs or 0) * trainer.steps_per_epoch, stop) or stop.is_set():
            return ""
        _probe(store, trainer, job, probe_epochs)
    shutil.rmtree(folder / job.name / "checkpoints", ignore_errors=True)
    return ""


def _probe(store: RunStore, trainer: Trainer, job: Job, epochs: int) -> None:
    """Both protocols, and the one that keeps layers of the projector."""
    from ssl_lab.evaluation import AUTHORS_PROBE, SEED_PROBE
    from ssl_lab.pretrain import probe

    step = trainer.step_count
    seeds = probe(trainer, replace(SEED_PROBE, epochs=epochs))
    authors = probe(trainer, replace(AUTHORS_PROBE, epochs=epochs))
    store.add_evaluation(step, "probe", seeds.accuracy_last)
    store.add_evaluation(step, "authors-last", authors.accuracy_last)
    store.add_evaluation(step, "authors-best", authors.accuracy_best)
    layers = ROWS[job.row].reused_layers
    if layers:
        reused = probe(trainer, replace(SEED_PROBE, epochs=epochs), layers)
        store.add_evaluation(step, "reused", reused.accuracy_last)
    store.set_meta(PROBED, epochs)
