"""One run from where it is to its end, and its probes: what the command line, the papers' study and a sweep share."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch

from ssl_lab.config import RunConfig
from ssl_lab.datasets import Dataset, load_dataset
from ssl_lab.evaluation import SEED_PROBE, ProbeConfig, ProbeResult, linear_probe
from ssl_lab.loop import Pace, drive, fingerprint, resume
from ssl_lab.store import COST, RunStore
from ssl_lab.trainer import Trainer

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float64": "fp64"}
"""A precision as records and reports of studies call it."""


def pretrain(trainer: Trainer, store: RunStore, until: int, stop: threading.Event | None = None) -> bool:
    """Steps a fresh trainer from the run's last checkpoint to its end; gives whether it came there.

    Args:
        trainer: of the run's config.
        store: the run.
        until: steps in all.
        stop: set it to have the run saved and let go.
    """
    seen = resume(trainer, store)
    begun, first, state = time.perf_counter(), trainer.step_count, store.status().state
    if until > first:
        # The newest checkpoint is all that going on needs.
        state = drive(trainer, store, owner="train", until=until, events_seen=seen, stop=stop, pace=Pace(disk=1))
    elif state != "done":
        state = "done"
        store.set_status(state=state)
    note_cost(store, trainer, time.perf_counter() - begun if until > first else 0.0, trainer.step_count - first)
    return state == "done"


def probe(
    trainer: Trainer,
    config: ProbeConfig = SEED_PROBE,
    layers: int = 0,
    on_epoch: Callable[[int, int], object] | None = None,
) -> ProbeResult:
    """A linear probe on the trainer's frozen encoder and the first ``layers`` of its projector.

    Args:
        trainer: at the end of its run.
        config: the protocol; default S's: Adam from 5e-2 to 5e-4, last epoch.
        layers: of the projector that are kept.
        on_epoch: called with (epochs done, epochs in all) after every epoch.
    """
    data = trainer.dataset
    return linear_probe(
        trainer.features(data.labelled.images, layers=layers), data.labelled.labels.to(trainer.device),
        trainer.features(data.test.images, layers=layers), data.test.labels.to(trainer.device),
        config, seed=trainer.config.seed, num_classes=len(data.classes), on_epoch=on_epoch,
    )  # fmt: skip


def note_cost(store: RunStore, trainer: Trainer, seconds: float, steps: int) -> None:
    """Adds to what the run has cost so far."""
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
            "precision": SHORT.get(made["precision"], made["precision"]),
            "train": len(trainer.dataset.train.images),
            "test": len(trainer.dataset.test.images),
        },
    )


@contextmanager
def told_by(flag: Path, threads: int) -> Iterator[threading.Event]:
    """Around a run in a process of its own: it computes with so many threads, stops when the file ``flag`` is there.

    It stops too when the process that started this one is gone: nobody would put the flag there any more.

    Ctrl-C and its like go to every process of the terminal; inside, they are ignored: the flag tells it, at the end of
    a step.
    """
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    torch.set_num_threads(threads)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(flag, stop), daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(flag: Path, stop: threading.Event) -> None:
    parent = parent_process()
    while not flag.exists() and (parent is None or parent.is_alive()):
        if stop.wait(0.3):
            return
    stop.set()


def dataset_of(config: RunConfig) -> Dataset:
    """The images of a run; those of the last one that asked, if they are the same: a worker reads them once."""
    fields = ("dataset", "data_dir", "image_size", "train_limit", "test_limit")
    return _dataset_of(RunConfig(**{name: getattr(config, name) for name in fields}))


@lru_cache(maxsize=1)
def _dataset_of(key: RunConfig) -> Dataset:
    return load_dataset(key)
