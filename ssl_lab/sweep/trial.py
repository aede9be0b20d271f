"""One trial in this process: from where it was cut to its probe, with a word on how far it is every second.

A trial that was cut, or whose process was killed, goes on from its last checkpoint and comes to the same bits.
"""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lab.errors import ConfigError, SSLLabError, StoreError, WriteError
from ssl_lab.sweep.plan import Trial
from ssl_lab.sweep.progress import TrialRecord, TrialState, check_setup, picture, read_record, write_record

if TYPE_CHECKING:
    from ssl_lab.store import RunStore
    from ssl_lab.trainer import Trainer

BEAT = 1.0
"""Seconds between words on how far a trial is."""

GONE = 600.0
"""Seconds for which a trial waits until the machine that trained it before is known to be gone."""

LONGEST = 2_000
"""Characters of an error that are kept."""


def run_trial(trial: Trial, folder: Path, threads: int, flag: Path, device: str | None = None, node: str = "") -> str:
    """Trains and probes; gives "", or why it failed.

    Args:
        trial: which.
        folder: of the study.
        threads: that it computes with.
        flag: a file that says stop: the trial is saved and let go.
        device: where it is computed, if not as its settings say.
        node: what this machine is called; default its host name.
    """
    if flag.exists():
        return ""
    from ssl_lab.pretrain import told_by

    with told_by(flag, threads) as stop:
        report = _Report(trial, folder, node or socket.gethostname())
        try:
            done = _trained_and_probed(trial, folder, stop, report, device)
        except _Cut:
            done = False
        except Exception as error:
            why = str(error) if isinstance(error, SSLLabError) else f"{type(error).__name__}: {error}"
            report.say("failed", error=why)
            return why
        unsaid = report.say("done" if done else "cut", error="")
        # What is done and cannot be said is not in the tables: the next start says it.
        return unsaid if done else ""


class _Cut(Exception):
    """It was asked to stop while it was probed."""


def _trained_and_probed(trial: Trial, folder: Path, stop: threading.Event, report: _Report, device: str | None) -> bool:
    from ssl_lab import checkpoint
    from ssl_lab.evaluation import SEED_PROBE
    from ssl_lab.pretrain import dataset_of, pretrain, probe
    from ssl_lab.store import PROBED
    from ssl_lab.trainer import Trainer

    config = trial.config if device is None else trial.config.model_copy(update={"device": device})
    trainer = Trainer(config, dataset_of(config))
    until = (config.epochs or 0) * trainer.steps_per_epoch if trial.steps is None else trial.steps
    late = next((step for step, _ in trial.turns if step > until), None)
    if late is not None:
        raise ConfigError(f"It ends after {until:,} steps, and its schedule turns a knob at step {late:,}.")
    _let_go_of(report, stop)
    if stop.is_set():
        return False
    with _store(trial, folder) as store:
        check_setup(trial.name, trial.config, store, folder)
        _alone(store, stop, report)
        if stop.is_set():
            return False
        # Whoever had it before may have brought it to its end.
        if store.meta(PROBED) is None:
            with report.on(store, trainer, until):
                ended = pretrain(trainer, store, until, stop)
            if not ended or stop.is_set():
                return False
            if trial.probe_epochs and trainer.dataset.info.labelled:

                def cut(_done: int, _of: int) -> None:
                    if stop.is_set():
                        raise _Cut
                    report.beat()

                result = probe(trainer, replace(SEED_PROBE, epochs=trial.probe_epochs), on_epoch=cut)
                about = {"classes": list(trainer.dataset.classes), "epochs": trial.probe_epochs}
                checkpoint.save(store.folder / checkpoint.CLASSIFIER, result.state(), about)
                store.add_evaluation(trainer.step_count, "probe", result.accuracy_last)
            said = {"config": json.loads(config.model_dump_json()), "step": trainer.step_count}
            checkpoint.save(store.folder / checkpoint.ENCODER, trainer.online.state_dict(), said)
            store.set_meta(PROBED, trial.probe_epochs)
        report.read(store)
    shutil.rmtree(folder / trial.name / "checkpoints", ignore_errors=True)
    return True


def _store(trial: Trial, folder: Path) -> RunStore:
    """The trial's run; a new one holds its schedule and its end from the first moment."""
    from ssl_lab.loop import SCHEDULE, schedule_entry
    from ssl_lab.store import FILE_NAME, GOAL, RunStore, open_run

    if (folder / trial.name / FILE_NAME).is_file():
        return open_run(trial.name, folder)

    def fill(db: sqlite3.Connection) -> None:
        entries: dict[str, Any] = {}
        if trial.turns:
            entries[SCHEDULE] = schedule_entry(trial.turns)
        if trial.steps is not None:
            entries[GOAL] = trial.steps
        db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in entries.items()])

    return RunStore.create(trial.name, trial.config, folder, fill=fill)


def _let_go_of(report: _Report, stop: threading.Event) -> None:
    """Waits until no other machine is heard to train it; before its run is opened, which two machines must not.

    Raises:
        SSLLabError: one is still heard after a long time.
    """
    if report.elsewhere is None:
        return
    machine, heard = report.elsewhere
    begun = time.monotonic()
    while _fresh(heard) and not stop.is_set():
        if time.monotonic() - begun > GONE:
            raise SSLLabError(f"{machine} still trains it. End it there, and start again.")
        report.say("retrying", error=f"Waiting until it is sure that {machine} trains it no more.", heard=heard)
        stop.wait(BEAT)
        heard = max(heard, report.newest().heard)
    if not stop.is_set():
        report.settle()


def _fresh(heard: float) -> bool:
    """Whether that is lately, by clocks that may differ."""
    from ssl_lab.store import DRIVER_SILENCE

    return abs(time.time() - heard) < DRIVER_SILENCE


def _machine(node: str) -> str:
    """A node's host name: a cluster may have several nodes on one machine, each with a number behind it."""
    return node.partition(" (")[0]


def _alone(store: RunStore, stop: threading.Event, report: _Report) -> None:
    """Waits until nobody drives the run: of a machine that died nobody knows before its heart is silent for long."""
    begun = time.monotonic()
    while store.driven() and not stop.is_set() and time.monotonic() - begun < GONE:
        status = store.status()
        report.say("retrying", error=f"Waiting until it is sure that {status.host} trains it no more.")
        stop.wait(BEAT)


class _Report:
    """What ``trial.json`` says; written by whoever trains the trial, and nobody else meanwhile."""

    def __init__(self, trial: Trial, folder: Path, node: str) -> None:
        self._name, self._folder = trial.name, folder
        self._begun = self._said = time.monotonic()
        before, self._node = read_record(folder, trial.name), node[:300]
        self.elsewhere: tuple[str, float] | None = None
        """Another machine that was heard to train it lately, and when; of this one the lock of the run tells."""
        machine = _machine(before.node)
        if machine and machine != _machine(self._node) and _fresh(before.heard):
            self.elsewhere = machine, before.heard
        self._spent = before.seconds
        self._lock = threading.Lock()
        self._record = before.model_copy(
            update={
                "attempts": before.attempts + 1, "of": before.of or trial.of, "error": "",
                "steps_per_second": 0.0, "state": "running", "resumed": 0,
            }
        )  # fmt: skip
        if self.elsewhere is None:
            self.settle()
        write_record(folder, trial.name, self._record)

    def say(self, state: TrialState, *, error: str, heard: float | None = None) -> str:
        """Writes it, with a state; gives "", or why it cannot be written.

        Args:
            state: of the trial.
            error: why it could not be had, or waits.
            heard: when another machine was last heard to train it; default now where it runs, and never where it was
                let go.
        """
        with self._lock:
            still = {} if state == "running" else {"steps_per_second": 0.0}
            if heard is None:
                # What is let go before another machine was silent for long is still that machine's.
                mine = self._record.node == self._node
                heard = self._record.heard if not mine else time.time() if state == "running" else 0.0
            self._record = self._record.model_copy(
                update={
                    "state": state, "error": error[:LONGEST], "heard": heard, **still,
                    "seconds": self._spent + time.monotonic() - self._begun,
                }
            )  # fmt: skip
            self._said = time.monotonic()
            try:
                write_record(self._folder, self._name, self._record)
            except WriteError as error_of_writing:
                # A disk that is full for a while: training is not ended by it.
                return str(error_of_writing)
        return ""

    def beat(self) -> None:
        """Says now and then that it is still at it, so that no other machine takes it for gone while it is probed."""
        if time.monotonic() - self._said > BEAT:
            self.say("running", error="")

    def settle(self) -> None:
        """From the next word on it is this machine's; before, one that is killed leaves word of the other."""
        self._record = self._record.model_copy(update={"node": self._node})

    def newest(self) -> TrialRecord:
        """What stands there now; the own last word where that cannot be read this moment."""
        try:
            return read_record(self._folder, self._name)
        except StoreError:
            return self._record

    def read(self, store: RunStore) -> None:
        """Takes over what the run's file says by now."""
        from ssl_lab.loop import SCRIPT

        status, metrics, spectrum = store.status(), store.metrics(), store.newest_spectrum()
        knn, probe = store.newest_evaluation("knn"), store.newest_evaluation("probe")
        news: dict[str, Any] = {
            "step": max(status.step, store.last_step()),
            "steps_per_second": max(0.0, status.steps_per_second),
            "turned_by_hand": sum(event.origin != SCRIPT for event in store.events()),
        }
        if metrics is not None:
            news["loss"] = metrics.loss
        if knn is not None:
            news["knn"] = knn[1]
        if probe is not None:
            news["accuracy"] = probe[1]
        if spectrum is not None:
            s = spectrum.spectrum
            news |= {
                "effective_rank": s.effective_rank, "asymmetry": s.asymmetry, "aligned": s.aligned,
                "spectrum": picture(s),
            }  # fmt: skip
        with self._lock:
            self._record = self._record.model_copy(update=news)

    @contextmanager
    def on(self, store: RunStore, trainer: Trainer, until: int) -> Iterator[None]:
        """While the run is stepped: says every second how far it is."""
        from ssl_lab import keep

        kept = [c.step for c in keep.kept(store.folder) if c.step <= store.last_step()]
        device = str(trainer.device)
        update = {"of": until, "resumed": max(kept, default=0), "device": device}
        self._record = self._record.model_copy(update=update)
        over = threading.Event()

        def beat() -> None:
            while True:
                # A disk that is full for a while has the run stand, and the run's own message says so.
                with suppress(sqlite3.Error):
                    self.read(store)
                    self.say("running", error="")
                if over.wait(BEAT):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(sqlite3.Error):
                self.read(store)
