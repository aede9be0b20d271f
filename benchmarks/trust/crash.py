"""Processes killed at random steps and in the middle of writes; what comes out is held against a run never killed.

The run never killed is a bare ``Trainer``, stepped and turned as the record says: no loop, no file, no checkpoint.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trust.case import Case, Verdict
from ssl_lab import atomic, checkpoint, keep
from ssl_lab import store as stores
from ssl_lab.config import Knobs, preset
from ssl_lab.database import transaction
from ssl_lab.loop import Pace, drive, resume
from ssl_lab.store import RunStore, open_run
from ssl_lab.trainer import Trainer

STEPS = 600
"""Steps of a run; it is killed several times on the way."""

KILLS = 4
"""Kills of each run."""

PACE = Pace(
    flush=0.02, live_spectrum=0.02, checkpoint=0.1, checkpoint_share=1.0, knn_pause=0.2, knn_share=0.1, watched=1e9
)
"""Far more writes than a page asks for, so that there is something to be killed in."""

SIZES: dict[str, Any] = {
    "width": 4,
    "projector_hidden": 16,
    "projector_dim": 8,
    "predictor_hidden": 16,
    "batch_size": 32,
}

PRESETS = ("directpred", "byol", "directcopy", "simsiam-one-layer", "optimal")

TURNS: tuple[dict[str, Any], ...] = (
    {"ema": 0.9}, {"predictor": "directcopy", "eps": 0.2}, {"symmetry": "hard", "lr": 0.02}, {"predictor": "linear"},
    {"augmentation": 0.5}, {"predictor": "directpred", "rho": 0.6}, {"ema": 0.0}, {"predictor": "mlp"}, {"freq": 3},
    {"centred": True}, {"norm": "spectral", "freq": 1}, {"weight_decay": 0.001}, {"ema": 0.99},
)  # fmt: skip

POINTS = ("write", "fsync", "replace", "replaced", "commit")
"""Where in a write a process ends itself: half of the bytes written, all of them, before and after the new name is
there; and in the middle of a transaction of the record."""


@dataclass
class Gauge:
    """What a process says of itself while it lives."""

    step: Any
    saved: Any
    resumed: Any
    inside: Any


def live(folder: str, gauge: Gauge, point: tuple[str, int] | None, fault: str) -> None:
    """The process that is killed: goes on with the run to its end.

    Args:
        point: one of ``POINTS`` and how many times it is passed before the process ends itself there.
        fault: a fault to plant; empty for none.
    """
    torch.set_num_threads(1)
    _plant(fault)
    _watch_saves(gauge)
    if point is not None:
        _die_at(*point, gauge)
    with open_run("run", folder) as store:
        trainer = Trainer(store.config())
        seen = resume(trainer, store)
        gauge.resumed.value = trainer.step_count

        def on_record(record: Any) -> None:
            gauge.step.value = record.step

        drive(trainer, store, owner="train", until=STEPS, events_seen=seen, pace=PACE, on_record=on_record)


def _watch_saves(gauge: Gauge) -> None:
    real = checkpoint.save_state

    def save_state(path: Path, state: Any, events: int) -> None:
        real(path, state, events)
        gauge.saved.value = state["counters"]["step"]

    checkpoint.save_state = save_state


def _die_at(point: str, times: int, gauge: Gauge) -> None:
    left = times

    def pass_by(here: str) -> None:
        nonlocal left
        if here == point:
            left -= 1
            if left <= 0:
                gauge.inside.value = 1
                os.kill(os.getpid(), signal.SIGKILL)

    class Disk:
        """``os`` for the writer of whole files, with an end in the middle."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, handle: int, piece: memoryview) -> int:
            if point == "write" and left <= 1:
                os.write(handle, piece[: max(1, len(piece) // 2)])
            pass_by("write")
            return os.write(handle, piece)

        def fsync(self, handle: int) -> None:
            pass_by("fsync")
            os.fsync(handle)

        def replace(self, old: Path, new: Path) -> None:
            pass_by("replace")
            os.replace(old, new)
            pass_by("replaced")

    setattr(atomic, "os", Disk())  # noqa: B010
    real = transaction

    @contextlib.contextmanager
    def deadly(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        with real(connection) as db:
            yield db
            pass_by("commit")

    setattr(stores, "transaction", deadly)  # noqa: B010


def _plant(fault: str) -> None:
    if fault == "momentum":
        real = Trainer.state_dict

        def forgetful(self: Trainer) -> dict[str, Any]:
            state = real(self)
            for name, tensor in state["tensors"].items():
                if name.startswith("momentum."):
                    tensor.zero_()
            return state

        Trainer.state_dict = forgetful  # type: ignore[method-assign]


def killed(count: int, folder: Path, fault: str = "", seed: int = 0) -> Verdict:
    """Kills processes ``count`` times, a few times each run, and compares each run at its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.trust.crash"])
    chance, verdict = random.Random(seed), Verdict()
    inside = redone = sent = 0
    number = 0
    while verdict.tried < count:
        config = preset(PRESETS[number % len(PRESETS)], seed=number, spectrum_every=23, device="cpu", **SIZES)
        place = folder / str(number)
        number += 1
        RunStore.create("run", config, place).close()
        history = _History(place)
        for attempt in range(KILLS + 1):
            last = attempt == KILLS or verdict.tried >= count
            gauge = Gauge(*(context.Value("i", 0) for _ in range(4)))
            point = (POINTS[(verdict.tried // 2) % len(POINTS)], chance.randint(1, 12)) if verdict.tried % 2 else None
            process = context.Process(target=live, args=(str(place), gauge, None if last else point, fault))
            reached = history.last_step
            process.start()
            goal = chance.randint(reached + 10, max(reached + 20, STEPS - 60 * (KILLS - attempt)))
            sent += history.steer(process, gauge, chance, None if last or point else goal)
            killed_now = process.exitcode == -signal.SIGKILL
            if not last and killed_now:
                verdict.tried += 1
                inside += gauge.inside.value
                if history.saved and gauge.resumed.value < history.saved and gauge.resumed.value:
                    verdict.failures.append(
                        f"run {number}: resumed from {gauge.resumed.value}, with a checkpoint at {history.saved}"
                    )
                history.saved = max(history.saved, gauge.saved.value)
                redone = max(redone, history.look() - history.saved)
            elif last and process.exitcode != 0:
                verdict.failures.append(f"run {number} did not come to its end: exit status {process.exitcode}")
            verdict.failures += [f"run {number}, attempt {attempt}: {line}" for line in history.lost()]
        verdict.failures += [f"run {number}: {line}" for line in differences(place)]
    verdict.notes += [
        f"{inside} inside a write", f"{number} runs of {STEPS} steps", f"{sent} turns by a page",
        f"at most {redone} steps past the last checkpoint",
    ]  # fmt: skip
    return verdict


class _History:
    """What a page saw of a run before its process was killed: none of it may be gone afterwards."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._events: list[tuple[int, int, str]] = []
        self._done: set[int] = set()
        self.last_step = self.saved = 0
        self._missing: list[str] = []

    def look(self) -> int:
        """Looks at the run as a page does; gives its last step."""
        with open_run("run", self._place, readonly=True) as store:
            events = [(e.number, e.step, e.digest) for e in store.events()]
            if events[: len(self._events)] != self._events:
                self._missing.append(f"of {len(self._events)} events that were seen, some are gone or others: {events}")
            self._events, self.last_step = events, store.last_step()
            return self.last_step

    def lost(self) -> list[str]:
        """What was seen and is there no more, since the last call."""
        self.look()
        missing, self._missing = self._missing, []
        return missing

    def steer(self, process: Any, gauge: Gauge, chance: random.Random, goal: int | None) -> int:
        """Turns knobs as a page does until the process ends, or kills it at a step; gives the number of turns."""
        turns, due = 0, self.last_step + chance.randint(5, 60)
        with open_run("run", self._place) as store:
            while process.is_alive():
                step = gauge.step.value
                if goal is not None and step >= goal:
                    time.sleep(chance.random() * 0.004)
                    self.look()
                    process.kill()
                    break
                if step >= due and step < STEPS - 20:
                    store.send("set", chance.choice(TURNS))
                    turns, due = turns + 1, step + chance.randint(20, 90)
                if chance.random() < 0.02:
                    self.look()
                time.sleep(0.0005)
        process.join()
        return turns


def differences(place: Path) -> list[str]:
    """Where a run differs from one that was never killed, bit by bit."""
    found: list[str] = []
    with open_run("run", place) as store:
        steps, losses = store.recorded_losses()
        if steps.tolist() != list(range(1, STEPS + 1)):
            return [f"the record has {len(steps)} steps and should have each from 1 to {STEPS}"]
        penalties = [row[0] for row in store.rows("SELECT penalty FROM metrics ORDER BY step")]
        events = store.events()
        if (altered := store.altered_event()) is not None or [e.number for e in events] != list(
            range(1, len(events) + 1)
        ):
            found.append(f"event {altered} is missing, doubled or altered")
        spectra = {record.step: record.spectrum for record in store.spectra()}
        found += [f"no spectrum at step {step}" for step in range(23, STEPS + 1, 23) if step not in spectra]
        torch.set_num_threads(1)
        trainer, pending = Trainer(store.config()), list(events)
        for step, loss, penalty in zip(steps.tolist(), losses, penalties, strict=True):
            while pending and pending[0].step < step:
                trainer.set(**pending.pop(0).changes)
            record = trainer.step()
            if (record.loss, record.penalty) != (loss, penalty):
                return [*found, f"the loss at step {step} is {loss!r} and would have been {record.loss!r}"]
            if step in spectra and not _same(trainer.spectrum(), spectra[step]):
                return [*found, f"the spectrum at step {step} is another one"]
        while pending:
            trainer.set(**pending.pop(0).changes)
        kept = keep.kept(store.folder)[-1]
        state, seen = checkpoint.load_state(kept.path)
        if (kept.step, seen) != (STEPS, len(events)):
            return [
                *found,
                f"the last state is of step {kept.step} with {seen} events and not {STEPS} with {len(events)}",
            ]
        here = trainer.state_dict()
        found += [
            f"{name} differs in its bits"
            for name, tensor in here["tensors"].items()
            if not torch.equal(_bits(tensor), _bits(state["tensors"][name]))
        ]
        if (mine := dict(here["counters"])) != (theirs := {k: v for k, v in state["counters"].items() if k in mine}):
            found.append(f"the counters are {theirs} and would have been {mine}")
        if store.status().knobs != Knobs.model_validate(here["counters"]["knobs"]):
            found.append("the knobs on the page are not those of the state")
    return found


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def _same(found: Any, kept: Any) -> bool:
    curves: Callable[[Any], list[bytes]] = lambda s: [  # noqa: E731
        np.float32(getattr(s, name)).tobytes()
        for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal")
    ]
    return curves(found) == curves(kept) and (found.asymmetry, found.effective_rank) == (
        kept.asymmetry,
        kept.effective_rank,
    )


def _forgetful(folder: Path) -> Verdict:
    return killed(4, folder / "momentum", "momentum")


CASES = (
    Case(
        name="crash",
        what="killed at random steps and inside writes, a run comes to the bits of one never killed; no event is lost",
        whole=40, quick=8, run=killed, fault=_forgetful, fault_words="a checkpoint without the momentum",
    ),
)  # fmt: skip
