"""Who steps the runs of a bench: a thread of this kernel, or the engine process."""

from __future__ import annotations

import atexit
import contextlib
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ssl_lab.config import RunConfig
from ssl_lab.desk import MOST_AWAKE, EngineDesk
from ssl_lab.errors import SSLLabError
from ssl_lab.store import RunStore, free_name, open_run

if TYPE_CHECKING:
    from ssl_lab.trainer import Trainer


class Host(Protocol):
    """Makes runs and keeps them awake."""

    results: Path
    families: bool
    """Whether several runs step side by side."""

    def start(self, config: RunConfig, meta: Mapping[str, str], *, first: bool = False) -> RunStore:
        """A new run that stands and waits for commands.

        Args:
            meta: is written into its file.
            first: it is what the bench was opened with.
        """

    def wake(self, store: RunStore) -> None:
        """Has the run awake, so that it takes commands."""

    def wake_all(self, stores: Sequence[RunStore]) -> None:
        """Has the runs awake, side by side."""

    def room_for(self, runs: int) -> None:
        """Whether so many more runs can be awake.

        Raises:
            SSLLabError: they cannot; the message says why.
        """

    def enter(self, most: int | None) -> bool:
        """Says that the page is here; False if there is no room for it."""

    def pages(self) -> int:
        """Pages that are open on this machine, as far as known."""

    def trouble(self, store: RunStore) -> str:
        """What is wrong with the host itself, in words; empty if nothing is."""

    def waiting_for(self) -> str:
        """What a person has to wait for, in words; empty if for nothing."""

    def restart(self) -> None:
        """Starts what is gone again."""

    def close(self) -> None:
        """Lets go of everything."""


class EngineHost:
    """The engine process of a results folder; this kernel never imports torch."""

    families = True

    def __init__(self, results: Path, *, lazily: bool = False) -> None:
        """With ``lazily`` nothing is made in the folder until something is to run there."""
        self.results = results
        self._desk = None if lazily else EngineDesk(results)
        self._visitor = uuid.uuid4().hex
        self._wanted = False
        self._leaves = False

    @property
    def desk(self) -> EngineDesk:
        """The folder's desk."""
        if self._desk is None:
            self._desk = EngineDesk(self.results)
        return self._desk

    def start(self, config: RunConfig, meta: Mapping[str, str], *, first: bool = False) -> RunStore:
        store = RunStore.create(free_name(config.preset, self.results), config, self.results)
        for key, value in meta.items():
            store.set_meta(key, value)
        self.wake(store)
        return store

    def wake(self, store: RunStore) -> None:
        self.wake_all([store])

    def wake_all(self, stores: Sequence[RunStore]) -> None:
        self._wanted = True
        self.desk.ensure_engine()
        for store in stores:
            self.desk.ask(store.name)

    def room_for(self, runs: int) -> None:
        awake = self.desk.status().runs
        if awake + runs > MOST_AWAKE:
            raise SSLLabError(
                f"A family of {runs} does not fit: the engine has {awake} runs awake and takes {MOST_AWAKE}. Runs that "
                "nobody looks at fall asleep after a while: try again then."
            )

    def enter(self, most: int | None) -> bool:
        if self._desk is None:
            return True
        if not self._leaves:
            # A kernel that is ended with its page: its place is free for whoever comes next, and at once.
            self._leaves = True
            atexit.register(_leave, weakref.ref(self))
        return self._desk.enter(self._visitor, most)

    def pages(self) -> int:
        return 1 if self._desk is None else max(self._desk.visitors, 1)

    def trouble(self, store: RunStore) -> str:
        if self._desk is None:
            return ""
        status = self._desk.status()
        # An engine that left in good order has no process on record; the next command starts another one.
        ours = self._wanted or (store.status().owner == "engine" and not store.readonly)
        if ours and not status.alive and status.pid is not None:
            return (
                f"The engine has not answered for {status.silence:.0f} s. Nothing recorded is lost: start it again, "
                "and the run goes on from its last checkpoint."
            )
        return ""

    def waiting_for(self) -> str:
        if self._desk is None:
            return ""
        status = self._desk.status()
        return "The engine is starting (it loads torch)." if status.alive and not status.device else ""

    def restart(self) -> None:
        self.desk.ensure_engine()

    def close(self) -> None:
        if self._desk is not None:
            self._desk.leave(self._visitor)
            self._desk.close()


def _leave(host: weakref.ref[EngineHost]) -> None:
    here = host()
    if here is not None:
        # At the end of a process nobody is left to be told what went wrong.
        with contextlib.suppress(sqlite3.Error):
            here.close()


class KernelHost:
    """A thread of this kernel for one run at a time; the first is of a trainer that the notebook made."""

    families = False

    def __init__(self, trainer: Trainer, results: Path) -> None:
        self.results = results
        self.trainer = trainer
        self._given: Trainer | None = trainer
        self._given_name = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._name = ""

    def start(self, config: RunConfig, meta: Mapping[str, str], *, first: bool = False) -> RunStore:
        name = free_name(config.preset, self.results)
        store = RunStore.create(name, config, self.results)
        for key, value in meta.items():
            store.set_meta(key, value)
        # Any other run is not the notebook's trainer's: it would be stepped by rules that its record does not say.
        given = self._given if first else None
        if given is not None:
            self._given_name = name
        self._launch(name, given)
        return store

    def wake(self, store: RunStore) -> None:
        if self._name == store.name and self._thread is not None and self._thread.is_alive():
            return
        if store.driven():
            return
        # The notebook's own trainer goes on with its run, if nobody has stepped it meanwhile.
        given = self._given if store.name == self._given_name else None
        if given is not None and (given.step_count != store.last_step() or given.knobs != store.status().knobs):
            given = None
        self._launch(store.name, given, seen=len(store.events()))

    def wake_all(self, stores: Sequence[RunStore]) -> None:
        for store in stores:
            self.wake(store)

    def room_for(self, runs: int) -> None:
        if runs > 1:
            raise SSLLabError("A kernel steps one run at a time: a family needs the engine, as in Bench().")

    def _launch(self, name: str, trainer: Trainer | None, seen: int = 0) -> None:
        # The run before it is saved and let go: it holds weights and images, and stands still anyway.
        self._end()
        self._stop, self._name = threading.Event(), name
        self._thread = threading.Thread(
            target=self._drive, args=(name, trainer, seen, self._stop), name=f"run-{name}", daemon=True
        )
        self._thread.start()

    def _drive(self, name: str, trainer: Trainer | None, seen: int, stop: threading.Event) -> None:
        from ssl_lab.loop import drive, resume
        from ssl_lab.trainer import Trainer

        with open_run(name, self.results) as store:
            config = store.config()
            try:
                if trainer is None:
                    store.set_status(state="loading", message=f"Loading {config.dataset}.")
                    # The images in memory serve again if the new run is on the same ones.
                    data = self.trainer.dataset if _same_data(config, self.trainer.config) else None
                    trainer = Trainer(config, data)
                    self.trainer = trainer
                    seen = resume(trainer, store)
                elif not seen and (turned := config.knobs.difference(trainer.knobs)):
                    before = {name: getattr(config.knobs, name) for name in turned}
                    seen = store.add_event(trainer.step_count, before, turned, "notebook")
                until = None if config.epochs is None else config.epochs * trainer.steps_per_epoch
                drive(
                    trainer, store, owner="notebook", until=until, running=False, stay=True, events_seen=seen, stop=stop
                )
            except SSLLabError as error:
                store.set_status(state="failed", message=str(error))
            except Exception as error:
                store.set_status(state="failed", message=f"The run stopped: {type(error).__name__}: {error}")
                raise

    def enter(self, most: int | None) -> bool:
        return True

    def pages(self) -> int:
        return 1

    def trouble(self, store: RunStore) -> str:
        return ""

    def waiting_for(self) -> str:
        return ""

    def restart(self) -> None:
        return None

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=30.0)


def _same_data(a: RunConfig, b: RunConfig) -> bool:
    names = ("dataset", "data_dir", "image_size", "train_limit", "test_limit")
    return all(getattr(a, name) == getattr(b, name) for name in names)
