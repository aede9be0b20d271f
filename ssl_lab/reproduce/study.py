"""Trains and probes every run of a study, in worker processes; all is kept in run files, so that it can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lab.config import RunConfig
from ssl_lab.cores import usable_cores
from ssl_lab.errors import SSLLabError
from ssl_lab.reproduce.progress import COST, PROBED, STOP, Progress, check_same, look
from ssl_lab.reproduce.rows import ROWS, Job
from ssl_lab.store import FILE_NAME, RunStore, open_run

if TYPE_CHECKING:
    from ssl_lab.datasets import Dataset
    from ssl_lab.evaluation import ProbeConfig, ProbeResult
    from ssl_lab.trainer import Trainer

STALE = 60.0
"""Seconds after which a file that asks to let go was meant for a process of before."""


def run_study(
    jobs: Sequence[Job],
    folder: Path,
    *,
    workers: int,
    probe_epochs: int,
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
        deadline: ``time.time()`` at which runs are saved and let go, to be gone on with by another call.
        stop: set it for the same; so does a file :data:`~ssl_lab.reproduce.progress.STOP` in the folder.
        on_change: called twice a second with the runs that are under way or done.
        on_failure: called with a run that cannot be had and why; the others go on.

    Raises:
        ConfigError: a run of one of the names was set up in another way; nothing was started.
    """
    stop = stop or threading.Event()
    waiting = [job for job in jobs if not look(job, folder).done]
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, usable_cores() // workers)
    running: dict[Future[str], Job] = {}
    flag = folder / f".stop-{os.getpid()}"
    flag.unlink(missing_ok=True)
    # What asked a worker to let go that was killed before it could; what came while we loaded torch is meant for us.
    with contextlib.suppress(OSError):
        if time.time() - (folder / STOP).stat().st_mtime > STALE:
            (folder / STOP).unlink()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                asked = stop.is_set() or (folder / STOP).exists()
                if asked or (deadline is not None and time.time() > deadline):
                    waiting.clear()
                    flag.touch()
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running[pool.submit(run_job, job, folder, threads, probe_epochs, flag)] = job
                finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    job, why = running.pop(future), _outcome(future)
                    if why and on_failure is not None:
                        on_failure(job, why)
                if on_change is not None:
                    on_change([look(job, folder) for job in jobs])
        finally:
            flag.touch()
    flag.unlink(missing_ok=True)
    (folder / STOP).unlink(missing_ok=True)
    return all(look(job, folder).done for job in jobs)


def _outcome(future: Future[str]) -> str:
    """Why a run could not be had; empty if it could, or was cut on purpose."""
    try:
        return future.result()
    except SSLLabError as error:
        return str(error)
    except Exception as error:  # a worker that was killed, a machine without memory
        return f"{type(error).__name__}: {error}"


# ------------------------------------------------------------------ in a worker


def run_job(job: Job, folder: Path, threads: int, probe_epochs: int, flag: Path) -> str:
    """One run, from where it was cut to its probes; gives "", or why it failed. ``flag`` is a file that says stop."""
    import signal

    import torch

    # Ctrl-C and its like go to every process of the terminal; this one is told by the flag, at the end of a step.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    torch.set_num_threads(threads)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(flag, stop), daemon=True)
    watcher.start()
    try:
        if ROWS[job.row].kind == "supervised":
            from ssl_lab.reproduce.supervised import supervised

            return supervised(job, folder, _dataset_of(_data_key(job.config)), stop)
        return _pretrained(job, folder, probe_epochs, stop)
    except SSLLabError as error:
        return str(error)
    finally:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(flag: Path, stop: threading.Event) -> None:
    while not flag.exists():
        if stop.wait(0.3):
            return
    stop.set()


def _pretrained(job: Job, folder: Path, probe_epochs: int, stop: threading.Event) -> str:
    from ssl_lab.loop import Pace, drive, resume
    from ssl_lab.trainer import Trainer

    trainer = Trainer(job.config, _dataset_of(_data_key(job.config)))
    fresh = not (folder / job.name / FILE_NAME).is_file()
    store = RunStore.create(job.name, job.config, folder) if fresh else open_run(job.name, folder)
    with store:
        check_same(job, store, folder)
        seen = resume(trainer, store)
        until = (job.config.epochs or 0) * trainer.steps_per_epoch
        if until > trainer.step_count:
            begun, first = time.perf_counter(), trainer.step_count
            # The newest checkpoint is all that going on needs.
            state = drive(trainer, store, owner="train", until=until, events_seen=seen, stop=stop, pace=Pace(disk=1))
            _note_cost(store, trainer, time.perf_counter() - begun, trainer.step_count - first)
            if state != "done":
                return ""
        elif not until:
            _note_cost(store, trainer, 0.0, 0)
            store.set_status(state="done")
        if stop.is_set():
            return ""
        _probe(store, trainer, job, probe_epochs)
    shutil.rmtree(folder / job.name / "checkpoints", ignore_errors=True)
    return ""


def _probe(store: RunStore, trainer: Trainer, job: Job, epochs: int) -> None:
    """Both protocols, and the one that keeps layers of the projector."""
    from ssl_lab.evaluation import AUTHORS_PROBE, SEED_PROBE

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


def probe(trainer: Trainer, config: ProbeConfig, layers: int = 0) -> ProbeResult:
    """A linear probe on the trainer's frozen encoder and the first ``layers`` of its projector."""
    from ssl_lab.evaluation import linear_probe

    data = trainer.dataset
    return linear_probe(
        trainer.features(data.labelled.images, layers=layers), data.labelled.labels.to(trainer.device),
        trainer.features(data.test.images, layers=layers), data.test.labels.to(trainer.device),
        config, seed=trainer.config.seed, num_classes=len(data.classes),
    )  # fmt: skip


def _note_cost(store: RunStore, trainer: Trainer, seconds: float, steps: int) -> None:
    """Adds to what the run has cost so far."""
    from ssl_lab.loop import fingerprint

    spent: dict[str, Any] = store.meta(COST) or {"seconds": 0.0, "images": 0}
    made = fingerprint(trainer)
    store.set_meta(
        COST,
        {
            "seconds": spent["seconds"] + seconds,
            "images": spent["images"] + steps * trainer.config.batch_size,
            "device": made["device_name"] or made["device"],
            "threads": made["threads"],
            "torch": made["torch"],
            "precision": "fp32",
            "train": len(trainer.dataset.train.images),
            "test": len(trainer.dataset.test.images),
        },
    )


def _data_key(config: RunConfig) -> RunConfig:
    """The parts of a config that decide which images are read, so that a worker reads them once."""
    fields = ("dataset", "data_dir", "image_size", "train_limit", "test_limit")
    return RunConfig(**{name: getattr(config, name) for name in fields})


@lru_cache(maxsize=1)
def _dataset_of(key: RunConfig) -> Dataset:
    from ssl_lab.datasets import load_dataset

    return load_dataset(key)
