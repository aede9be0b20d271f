"""Seconds that steps take: alone, and as the loop makes them that records everything."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.machine import wait_for
from benchmarks.plan import Plan
from ssl_lab.loop import drive
from ssl_lab.store import RunStore
from ssl_lab.trainer import StepRecord, Trainer

_SKIPPED = 2
"""Steps of a recorded block before the clock starts: what a loop does when it begins lies before the second."""


def bare_seconds(trainer: Trainer, steps: int) -> float:
    """Seconds of ``steps`` calls of :meth:`Trainer.step`."""
    wait_for(trainer.device)
    begun = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    wait_for(trainer.device)
    return time.perf_counter() - begun


def recorded_block(plan: Plan, seconds: float) -> int:
    """Steps of ``seconds`` each that make a block in which what the loop does besides stepping falls due.

    It looks at the nearest neighbours at most every 0.7 s, and the less often the longer that takes.
    """
    return 2 if plan.tiny else max(1, round((2.0 if plan.quick else 4.0) / seconds))


@dataclass(frozen=True)
class Recorder:
    """A trainer and the file that its steps are written into."""

    trainer: Trainer
    store: RunStore

    def seconds(self, steps: int) -> float:
        """Seconds of ``steps`` steps of :func:`drive`, metrics, spectra, kNN and checkpoints as they fall due.

        The first steps of the loop and its end (a checkpoint) are left out: they are of a call, not of a step.
        """
        first = self.trainer.step_count + _SKIPPED
        marks: dict[int, float] = {}

        def note(record: StepRecord) -> None:
            if record.step in (first, first + steps):
                wait_for(self.trainer.device)
                marks[record.step] = time.perf_counter()

        drive(self.trainer, self.store, owner="train", until=first + steps, on_record=note)
        return marks[first + steps] - marks[first]


@contextmanager
def recorder(trainer: Trainer) -> Iterator[Recorder]:
    """Records the trainer into a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, RunStore.create("run", trainer.config, folder) as store:
        yield Recorder(trainer, store)
