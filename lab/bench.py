"""``Bench``: the whole instrument. Controls on the left, pictures on the right, one thread that writes them all.

Bench(trainer)   # in a notebook: runs the trainer in a thread of this kernel
Bench()          # under Voila: its run is stepped by the engine process; this kernel never imports torch
"""

from __future__ import annotations

import html
import logging
import os
import queue
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from lab.browser import Browser
from lab.catalogue import Catalogue, tree
from lab.compare import differences
from lab.controls import KnobBoard, Transport, waiting_knobs
from lab.exports import ExportBox
from lab.files import Files
from lab.hosts import EngineHost, Host, KernelHost
from lab.links import linked_config, linked_names, linked_step
from lab.locks import lock_kernel
from lab.marks import mark_width, marks, rows
from lab.pace import tick_here
from lab.panels import all_panels
from lab.panels.base import NOW, OTHERS
from lab.publisher import Publisher
from lab.shelf import Shelf
from lab.style import CSS
from lab.timeline import Timeline
from lab.view import RunView, ViewReader
from ssl_lab import keep
from ssl_lab.config import DATASETS, PRESETS, RunConfig, preset
from ssl_lab.errors import ConfigError, SSLLabError
from ssl_lab.mirror import writable
from ssl_lab.store import (
    FILE_NAME,
    LIVE_STATES,
    CommandKind,
    RunStore,
    check_name,
    free_name,
    open_run,
    results_dir,
)

if TYPE_CHECKING:
    from ssl_lab.trainer import Trainer

log = logging.getLogger(__name__)

SHELF_PAUSE = 3.0
"""Seconds between looks at the folder of runs."""

FAR = 3_000
"""A run whose newest checkpoint lies more steps back than this is woken when somebody steers it, not when it is opened:
to come to its end again takes a while."""


ANSWER_PAUSE = 0.015
"""Seconds between looks for the driver's answer to a command."""

ANSWER_PATIENCE = 0.4
"""Seconds for which a picture waits for the answer to a command, so that it shows what the command did."""

AT_HOME: Mapping[str, Any] = {"device": "auto", "data_dir": None}
"""Settings that a run of one's own takes from this machine, and not from the file that it grew from."""


class Bench:
    """A live run with its knobs and pictures; display it as the last line of a cell.

    :meth:`open` shows a run's file from anywhere, to be looked at and forked.

    Args:
        trainer: a trainer to step in a thread of this kernel; while the bench is open, turn its knobs here or by
            ``trainer.set``, and leave stepping to the bench. Without one the run belongs to the engine process.
        preset: what a new run begins as (with a trainer, its own preset).
        dataset: what a new run trains on.
        run: a run to open instead of a new one, or the path of a run's file.
        results: folder of all runs; default ``SSL_LAB_RESULTS`` or ``./results``.
    """

    @classmethod
    def open(cls, file: str | os.PathLike[str] | Traversable, *, results: str | Path | None = None) -> Bench:
        """A bench that shows a run's file: ``Bench.open("file.sqlite")``, a run's folder, or a package's resource.

        Nothing is computed, torch is not loaded, and nothing is written until the run is forked.

        Raises:
            RunMissingError: there is no such file.
            SSLLabError: the file is no run.
        """
        with ExitStack() as stack:
            path = stack.enter_context(as_file(file)) if isinstance(file, Traversable) else Path(file)
            RunStore.open(path, readonly=True).close()
            bench = cls(run=str(path), results=results)
            # What was unpacked for the bench goes with it.
            bench._resources = stack.pop_all()
        bench.start()
        return bench

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        preset: str = "directpred",
        dataset: str = "digits",
        run: str | None = None,
        results: str | Path | None = None,
    ) -> None:
        if trainer is not None:
            # The cell was run again: the bench that it made before lets go of the trainer.
            if isinstance(trainer.bench, Bench):
                trainer.bench.close()
            trainer.bench = self
        folder = results_dir(results)
        # To look at a file, nothing need be made in the folder of runs.
        looking = run is not None and (os.sep in run or run.endswith(".sqlite"))
        lock_kernel()
        self._host: Host = EngineHost(folder, lazily=looking) if trainer is None else KernelHost(trainer, folder)
        self._resources = ExitStack()
        self._config = self._default(preset, dataset) if trainer is None else trainer.config
        self._wanted_run = run or os.environ.get("SSL_LAB_OPEN")
        self._store: RunStore | None = None
        self._reader: ViewReader | None = None
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._refusal_seen = 0
        self._refusal = ""
        self._refusal_time = 0.0
        self._complaint = ""
        self._awaited: tuple[RunStore, int, float] | None = None
        """The last command that was sent: where, its number, and how long its answer is worth waiting for."""
        self._full = False
        self._acting = False
        self._said = ""
        self._said_time = 0.0
        most = os.environ.get("SSL_LAB_MAX_VISITORS")
        self._most_visitors = int(most) if most else None
        self._drawn: tuple[Any, ...] = ()
        self._why_not = ""
        """Why the visitor may not steer the run that is shown; empty if they may."""
        self._watching = False
        self._key = ""
        """What the shelf calls the run that is shown."""
        self._compared: dict[str, ViewReader] = {}
        self._shelf_due = 0.0
        self._listed: tuple[Any, ...] = ()
        self.catalogue = Catalogue(folder)

        self.browser = Browser()
        self.transport = Transport(self._send)
        self.knobs = KnobBoard(self._config.knobs, self._send)
        self.panels = all_panels()
        self.timeline, self.shelf, self.files = Timeline(), Shelf(), Files()
        self.export = ExportBox(self.panels, self._do, lambda: self._store, self.files, self._complain)
        self._build()
        self.browser.observe(self._on_query, names="query")
        self.browser.on_msg(self._on_key)
        self.publisher = Publisher(
            self.browser, self._tick, self.present, tick_pause=lambda: tick_here(self._host.pages())
        )
        self.timeline.observe(lambda _: self.publisher.poke(), names="step")
        self.timeline.on_msg(self._on_timeline)
        # What is ticked when it comes to be done counts: it is written here too.
        self.shelf.observe(lambda _: self._do(lambda: self._compare(self.shelf.ticked)), names="ticked")
        self.shelf.on_msg(self._on_shelf)
        self.files.poke, self.files.dropped = self.publisher.poke, self._on_drop
        if os.environ.get("SSL_LAB_MAX_VISITORS"):
            # Served by our own Voila, whose limits are known; elsewhere a server drops what comes too fast.
            self.files.rate = 8_000_000
        self.publisher.start()
        if trainer is not None:
            # The trainer is there whether a page looks or not.
            self.start()

    @staticmethod
    def _default(name: str, dataset: str) -> RunConfig:
        return preset(name, dataset=dataset)

    def _build(self) -> None:
        names = {p.title: p.name for p in PRESETS.values()}
        if self._config.preset not in PRESETS:
            names[self._config.preset] = self._config.preset
        sets = {info.title: info.name for info in DATASETS.values()}
        if self._config.dataset not in sets.values():
            sets[f"Folder {Path(self._config.dataset).name}"] = self._config.dataset
        auto = w.Layout(width="auto", min_width="0")
        self.preset = w.Dropdown(options=list(names.items()), value=self._config.preset, layout=auto)
        self.dataset = w.Dropdown(options=list(sets.items()), value=self._config.dataset, layout=auto)
        self.new = w.Button(description="New run", tooltip="Start a new run with this preset on this data set")
        self.reset = w.Button(description="Reset", tooltip="Start again from step 0 as this run began, as a new run")
        self.restart = w.Button(
            description="Start the engine again", button_style="warning", layout=w.Layout(display="none")
        )
        self.new.on_click(lambda _: self._do(self._new_run))
        self.reset.on_click(lambda _: self._do(self._reset_run))
        self.restart.on_click(lambda _: self._do(self._restart_engine))

        self.banner = w.HTML()
        self.banner.add_class("ssl-banner")
        self.headline = w.HTML("<b>ssl-lab</b>")
        self.headline.add_class("ssl-headline")
        self.words = w.HTML("Starting…")
        self.words.add_class("ssl-words")
        self.legend = w.HTML()
        self.legend.add_class("ssl-legend")

        setup = w.GridBox([w.HTML("Preset"), self.preset, w.HTML("Data"), self.dataset])
        setup.add_class("ssl-setup")
        begin = w.HBox([self.new, self.reset])
        begin.add_class("ssl-buttons")
        left = w.VBox([setup, begin, self.transport.widget])
        left.add_class("ssl-left")
        grid = w.GridBox([*(panel.widget for panel in self.panels), self.export.widget])
        grid.add_class("ssl-panels")
        top = w.VBox([self.headline, self.words, self.legend, self.banner, self.restart])
        top.add_class("ssl-top")
        right = w.VBox([top, grid, self.timeline, self.shelf])
        right.add_class("ssl-right")
        body = w.GridBox([left, right, self.knobs.widget])
        body.add_class("ssl-body")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}</style>"), self.browser, body])
        self.widget.add_class("ssl-bench")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _do(self, action: Callable[[], None]) -> None:
        """Has the publisher's thread do something at once."""
        self._actions.put(action)
        self.publisher.poke()

    def _complain(self, words: str) -> None:
        self._complaint = words

    def _send(self, kind: str, payload: Mapping[str, Any]) -> None:
        command: CommandKind = kind  # type: ignore[assignment]

        def send() -> None:
            if self._store is None:
                return
            if self._why_not:
                raise SSLLabError(self._why_not)
            if self._store.status().state == "done":
                raise SSLLabError("This run is done. Start a new one to go on.")
            self._host.wake(self._store)
            self._await(self._store, self._store.send(command, payload))

        store = self._store
        free = not self._acting and self._actions.empty() and not self._why_not
        if store is not None and free and store.driven():
            # The usual way: straight into the file, taken at the next step boundary.
            self._await(store, store.send(command, payload))
            self.publisher.wake()
        else:
            # Behind what was asked before, such as a new run that this is meant for.
            self._do(send)

    def _await(self, store: RunStore, number: int) -> None:
        self._awaited = store, number, time.monotonic() + ANSWER_PATIENCE

    def _answer_is_near(self) -> bool:
        """Whether a command is just being taken; asks for a picture when it has been, or takes too long."""
        if self._awaited is None:
            return False
        store, number, until = awaited = self._awaited
        if store is self._store and time.monotonic() < until and store.command(number).state == "waiting":
            return True
        if self._awaited is awaited:
            self._awaited = None
        self.publisher.poke()
        return False

    def _on_query(self, change: Mapping[str, Any]) -> None:
        self._do(lambda: self._open_page(dict(change["new"])))

    def _on_timeline(self, _timeline: Any, content: Any, _buffers: Any) -> None:
        asked = content.get("do") if isinstance(content, dict) else None
        if asked == "fork":
            # The message may overtake the trait: what it says itself counts.
            step = content.get("step", self.timeline.step)
            if isinstance(step, int) and not isinstance(step, bool) and step >= -1:
                self._do(lambda: self._fork_here(step))
        elif asked == "undo" and isinstance(content.get("event"), int):
            self._do(lambda: self._undo(content["event"]))

    def _on_shelf(self, _shelf: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and isinstance(content.get("open"), str):
            self._do(lambda: self._show_entry(content["open"]))

    def _on_drop(self, path: Path, name: str) -> None:
        def take() -> None:
            try:
                self._take_in(path, name)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

        self._do(take)

    def _on_key(self, _browser: Any, content: Any, _buffers: Any) -> None:
        key = content.get("key") if isinstance(content, dict) else None
        if key == "step":
            self._send("step", {"steps": 1})
        elif key == "run_pause" and self._store is not None:
            self._send("pause" if self._store.status().state == "running" else "run", {})

    # ------------------------------------------------------------ what the publisher's thread does

    def start(self) -> None:
        """Opens the run that was asked for, or makes a new one, without waiting for a page to show the bench."""
        self._do(lambda: self._open_page({}))

    def _open_page(self, query: Mapping[str, Any]) -> None:
        if self._store is not None:
            return
        if not self._host.enter(self._most_visitors):
            self._full = True
            return
        self._watching = "watch" in query
        wanted = str(query.get("run") or self._wanted_run or "")
        if wanted:
            try:
                # A path is the word of whoever started this kernel; an address has only names.
                if wanted == self._wanted_run and not query.get("run") and Path(wanted).exists():
                    path = Path(wanted)
                    self._take_in(path, path.parent.name if path.name == FILE_NAME else path.name)
                else:
                    self._show_entry(wanted)
            except SSLLabError as error:
                self._complaint = f"{error} Here is a new run instead."
            else:
                self._follow_link(query)
                return
        config = self._config
        try:
            config = linked_config(query, config)
        except SSLLabError as error:
            self._complaint = f"The link cannot be followed. {error} Here is the usual bench."
        self._begin(config)

    def _follow_link(self, query: Mapping[str, Any]) -> None:
        """The step and the other runs that an address asks for."""
        assert self._store is not None
        try:
            step = linked_step(query, self._store.last_step())
            self.timeline.step = -1 if step is None else step
            self._compare([name for name in linked_names(query, "compare") if name != self._key])
        except SSLLabError as error:
            self._complaint = f"The link cannot be followed to its end. {error}"

    def _begin(self, config: RunConfig) -> None:
        store = self._host.start(config)
        self._compare([])
        self._attach(store)

    def _show_entry(self, key: str) -> None:
        """Opens a run of the shelf, or one that is not listed any more."""
        if ":" in key:
            self._attach(self.catalogue.open(key), key)
            return
        path = self._host.results / check_name(key)
        self._attach(open_run(key, self._host.results, readonly=path.exists() and not writable(path / FILE_NAME)))

    def _take_in(self, path: Path, name: str) -> None:
        """Shows a run's file from elsewhere."""
        store = RunStore.open(path, readonly=True)
        try:
            # Read once before it takes the place of what is shown: a file from elsewhere may hold anything.
            rows(ViewReader(store).read().events)
        except BaseException:
            store.close()
            raise
        key = f"file: {name}"
        self.catalogue.loose[key] = store.path
        self._attach(store, key)

    def _attach(self, store: RunStore, key: str = "") -> None:
        old, self._store = self._store, store
        old_key, self._key = self._key, key or store.name
        if old is not None:
            status = old.status()
            if status.state in LIVE_STATES and status.owner != "train" and not self._why_not:
                # The engine has better to do than stepping what nobody looks at.
                old.send("pause")
            old.close()
        if self._key in self._compared:
            # What was drawn with the other run changes places with it.
            self._compare([old_key if name == self._key else name for name in self._compared])
        self._why_not = self._reason_not_to_steer(store)
        self._reader = ViewReader(store)
        self._refusal_seen = max((c.id for c in store.refused()), default=0)
        self._refusal, self._drawn, self._shelf_due = "", (), 0.0
        self.timeline.step = -1
        config = store.config()
        if self._from_elsewhere():
            # A file from elsewhere does not say what is read or written here, nor on which card it is computed.
            config = config.model_copy(update=AT_HOME)
        self._config = config
        if config.preset in PRESETS:
            self.preset.value = config.preset
        values = [value for _, value in self.dataset.options]
        if config.dataset not in values and not self._from_elsewhere():
            self.dataset.options = [*self.dataset.options, (f"Folder {Path(config.dataset).name}", config.dataset)]
            values.append(config.dataset)
        if config.dataset in values:
            self.dataset.value = config.dataset
        self.browser.run = "" if self._key.startswith("file:") else self._key
        self.browser.title = f"{store.name} · ssl-lab"
        if self._why_not:
            return
        store.touch_viewer()
        # A run that is done is looked at and left as it is.
        if not store.driven() and store.status().state != "done" and self._near(store):
            try:
                self._host.wake(store)
            except SSLLabError as error:
                self._complaint = str(error)

    def _from_elsewhere(self) -> bool:
        """Whether what is shown is a file that a stranger may have made."""
        return self._key.startswith(("file:", "recording:"))

    def _check_data(self) -> None:
        """A run of one's own from a stranger's file is on a data set of this project, not on some folder."""
        if self._from_elsewhere() and self._config.dataset not in DATASETS:
            raise ConfigError(f"This recording is of images in {self._config.dataset!r}, which are not here.")

    def _reason_not_to_steer(self, store: RunStore) -> str:
        if self._watching:
            return "This page only watches. Fork here to go on with a run of your own."
        rival = store.rival()
        if rival:
            return f"This run is trained on {rival}, which cannot be reached from here. Fork here to go on by yourself."
        if self._from_elsewhere():
            return "This is a recording: look at any moment of it. Fork here to go on from one with a run of your own."
        if store.readonly:
            return "This run's folder cannot be written here, so that it can be looked at only. Fork here to go on."
        return ""

    @staticmethod
    def _near(store: RunStore) -> bool:
        checkpoints = keep.kept(store.folder)
        return store.last_step() - (checkpoints[-1].step if checkpoints else 0) <= FAR

    # ------------------------------------------------------------ fork, undo, compare

    def _fork_here(self, step: int) -> None:
        """A second run from the moment that is shown; -1 is now."""
        if self._store is None:
            return
        if step < 0:
            step = self._saved_now(self._store)
        self._fork(step, None)

    def _saved_now(self, store: RunStore) -> int:
        """Has the driver save where it stands, so that the fork is there at once; gives the step."""
        if not self._why_not and store.driven():
            number = store.send("save")
            deadline = time.monotonic() + 3.0
            while time.monotonic() < deadline:
                command = store.command(number)
                if command.step is not None:
                    return min(command.step, store.last_step())
                time.sleep(0.01)
        return store.last_step()

    def _undo(self, number: int) -> None:
        """A run that goes on from just before an event."""
        if self._store is None:
            return
        event = next((event for event in self._store.events() if event.number == number), None)
        if event is None:
            raise SSLLabError(f"There is no knob event {number} in this run.")
        self._fork(event.step, number - 1)

    def _fork(self, step: int, events: int | None) -> None:
        assert self._store is not None
        store, key = self._store, self._key
        self._check_data()
        settings = AT_HOME if store.readonly else {}
        stem = re.sub(r"-fork-\d+$", "", store.name)
        name = free_name(f"{stem[:80]}-fork", self._host.results)
        child = store.fork(name, step, events=events, results=self._host.results, settings=settings)
        self._complaint = ""
        beside = [key, *(other for other in self._compared if other != key)][: len(OTHERS)]
        self._watching = False
        self._attach(child)
        self._compare(beside)

    def _compare(self, keys: Sequence[str]) -> None:
        """Draws these runs with the one that is shown."""
        wanted = [key for key in dict.fromkeys(keys) if key != self._key][: len(OTHERS)]
        if wanted == list(self._compared) == list(self.shelf.ticked):
            return
        for key in [key for key in self._compared if key not in wanted]:
            self._compared.pop(key).store.close()
        try:
            for key in wanted:
                if key not in self._compared:
                    self._compared[key] = ViewReader(self._open_to_look(key))
        finally:
            # In the order in which they were asked for: it decides the colours.
            self._compared = {key: self._compared[key] for key in wanted if key in self._compared}
            if list(self.shelf.ticked) != list(self._compared):
                self.shelf.ticked = list(self._compared)
            self._drawn, self._shelf_due = (), 0.0
            self.browser.compare = ",".join(key for key in self._compared if ":" not in key)

    def _open_to_look(self, key: str) -> RunStore:
        if ":" in key:
            return self.catalogue.open(key)
        return open_run(key, self._host.results, readonly=True)

    def _new_run(self) -> None:
        self._complaint = ""
        fixed: dict[str, Any] = {"seed": self._config.seed, "device": self._config.device}
        name = self.preset.value if self.preset.value in PRESETS else "byol"
        self._watching = False
        self._begin(preset(name, dataset=self.dataset.value, **fixed))

    def _reset_run(self) -> None:
        self._complaint, self._watching = "", False
        self._check_data()
        self._begin(self._config)

    def _restart_engine(self) -> None:
        self._host.restart()
        if self._store is not None and not self._why_not:
            self._host.wake(self._store)

    def _tick(self, draw: bool) -> bool:
        """One round of the publisher: do what was asked, then write what changed; whether there was a new picture."""
        while True:
            try:
                action = self._actions.get_nowait()
            except queue.Empty:
                break
            self._acting = True
            try:
                action()
            except (SSLLabError, sqlite3.Error, OSError) as error:
                self._complaint = str(error)
            except Exception as error:
                log.exception("What was asked for failed")
                self._complaint = f"{type(error).__name__}: {error}"
            finally:
                self._acting = False
        if self._full:
            self._say_full()
            return False
        # While a file is under way to the page or from it, the next round comes sooner.
        self.publisher.soon = self.files.pump()
        if self._answer_is_near():
            self.publisher.soon = ANSWER_PAUSE
            return False
        if not draw:
            return False
        if self._store is None or self._reader is None:
            self._banner([self._complaint] if self._complaint else [], [])
            return False
        waiting = waiting_knobs(self._store)
        shown = self.timeline.step
        try:
            view = self._reader.read(None if shown < 0 else shown, list(self._compared.values()))
        except (SSLLabError, sqlite3.Error) as error:
            # What is drawn stays; the next round may read it again.
            self._banner([str(error)], [])
            return False
        self.transport.show(view.status, bool(self._why_not))
        self.knobs.show(view.status, waiting, bool(self._why_not))
        self._show_timeline(view, shown)
        drawn = self._draw(view)
        self._show_words(view)
        self._show_trouble(view)
        if time.monotonic() >= self._shelf_due:
            self._shelf_due = time.monotonic() + SHELF_PAUSE
            self._show_shelf()
        return drawn

    def present(self) -> None:
        """Says that the page is still here; called by the publisher every two seconds while it is."""
        if self._full and self._host.enter(self._most_visitors):
            self._full = False
            self._actions.put(lambda: self._open_page(dict(self.browser.query)))
        elif not self._full and self._store is not None:
            self._host.enter(None)
            if not self._why_not:
                self._store.touch_viewer()

    def _draw(self, view: RunView) -> bool:
        key = tuple(
            (v.id, v.shown, v.step, v.last, v.newest.number if v.newest else 0, len(v.events), v.knn, v.status.knobs)
            for v in (view, *view.others)
        )
        if key == self._drawn:
            return False
        self._drawn = key
        for panel in self.panels:
            panel.update(view)
        return True

    def _show_timeline(self, view: RunView, asked: int) -> None:
        timeline, state = self.timeline, _Changes(self.timeline)
        state.set("last", max(view.last, 1))
        # A step that the run has not; unless the page has moved on since it was read.
        if view.shown is not None and asked != view.shown and timeline.step == asked:
            state.set("step", view.shown)
        width = mark_width(len(view.events), view.last)
        listed = (view.id, len(view.events), width)
        if listed != self._listed:
            self._listed = listed
            state.set("marks", marks(view.events, width))
            state.set("events", rows(view.events))
            state.set("more", len(view.events) - len(timeline.events))
        assert self._store is not None
        checkpoints = sorted({c.step for c in keep.kept(self._store.folder)}) if not self._store.readonly else []
        state.set("checkpoints", checkpoints[-100:])
        away = view.newest is not None and view.shown is not None and view.newest.step != view.shown
        state.set("note", f"spectra of step {view.newest.step:,}" if away and view.newest else "")
        state.set("can_fork", view.last > 0)
        state.set(
            "fork_why",
            "A second run from this moment, with the same random streams" if view.last else "There is no step yet",
        )
        self.browser.step = view.shown

    def _show_shelf(self) -> None:
        entries, more = tree(self.catalogue.entries())
        colours = {self._key: NOW, **{key: OTHERS[i][0] for i, key in enumerate(self._compared)}}
        runs = []
        for depth, entry in entries:
            run, parent = entry.run, entry.run.parent
            origin = "recording" if entry.recording else ""
            if parent is not None:
                origin = f"from {parent.name} at step {parent.step:,}"
            runs.append(
                {
                    "name": entry.key, "depth": depth, "state": "" if entry.recording else run.status.state,
                    "step": run.status.step, "preset": run.config.preset, "data": Path(run.config.dataset).name,
                    "knn": f"{100 * run.knn:.1f} %" if run.knn is not None else "", "origin": origin,
                    "shown": entry.key == self._key, "colour": colours.get(entry.key, ""),
                }
            )  # fmt: skip
        state = _Changes(self.shelf)
        state.set("runs", runs)
        state.set("more", more)

    def _show_words(self, view: RunView) -> None:
        status, state = view.status, html.escape(view.status.state)
        loss = f" · loss {view.metrics.loss:.3f}" if view.metrics else ""
        knn = f" · kNN {100 * view.knn[1]:.1f} %" if view.knn else ""
        rate = f" · {status.steps_per_second:.0f} steps/s" if status.steps_per_second and view.shown is None else ""
        of = "" if view.shown is None else f" of {view.last:,}"
        headline = (
            f"<b>{html.escape(self._key)}</b> <span class='ssl-state ssl-{state}'>{state}</span> "
            f"<span class='ssl-numbers'>step <b data-step='{view.step}'>{view.step:,}</b>{of}"
            f" · epoch {view.epoch:.1f}{loss}{knn}{rate}</span>"
        )
        if self.headline.value != headline:
            self.headline.value = headline
        if self.words.value != view.words:
            self.words.value = view.words
        legend = self._legend(view)
        if self.legend.value != legend:
            self.legend.value = legend
        # A screen reader is told when it has had time to read the last line, not at every tick.
        if view.words != self._said and time.monotonic() - self._said_time > 8.0:
            self._said, self._said_time = view.words, time.monotonic()
            self.browser.announce = view.words

    def _legend(self, view: RunView) -> str:
        """Which colour is which run, and how they differ, in words."""
        if not view.others:
            return ""
        keys = [self._key, *self._compared]
        styles = [(NOW, "solid"), *((colour, style) for colour, style, _ in OTHERS)]
        names = "".join(
            f"<span class='ssl-key'><svg width='30' height='10' aria-hidden='true'><line x1='1' x2='29' y1='5' y2='5' "
            f"stroke='{colour}' stroke-width='3' stroke-dasharray='{_DASHES[style]}'/></svg> {html.escape(key)}</span>"
            for key, (colour, style) in zip(keys, styles, strict=False)
        )
        words = "".join(f"<p class='ssl-difference'>{html.escape(line)}</p>" for line in differences(view))
        return f"<p>{names}</p>{words}"

    def _show_trouble(self, view: RunView) -> None:
        assert self._store is not None
        for command in self._store.refused(after=self._refusal_seen):
            self._refusal_seen, self._refusal, self._refusal_time = command.id, command.answer, time.monotonic()
        if self._refusal and time.monotonic() - self._refusal_time > 20.0:
            self._refusal = ""
        gone = self._host.trouble(self._store)
        lines, hints = [gone, self._complaint, self._refusal], [] if gone else [self._host.waiting_for()]
        (lines if view.status.state == "failed" else hints).append(view.status.message)
        hints.append(self._why_not)
        if view.shown is not None and not self._why_not and view.status.state != "done":
            hints.append(
                f"You look at step {view.shown:,}; the run stands at step {view.status.step:,}, and there a knob that "
                "is turned takes effect. Live goes there; Fork here begins a second run at the moment shown."
            )
        self._banner([line for line in lines if line], [hint for hint in hints if hint and hint not in lines])
        display = None if gone else "none"
        if self.restart.layout.display != display:
            self.restart.layout.display = display

    def _say_full(self) -> None:
        self._banner(
            [
                f"The house is full: {self._most_visitors} pages are open, which is as many as this machine serves. "
                "This page comes to life when another one closes; leave it open, or try again later."
            ],
            [],
        )

    def _banner(self, errors: list[str], hints: list[str]) -> None:
        value = "".join(f"<p role='alert' class='ssl-error'>{html.escape(line)}</p>" for line in dict.fromkeys(errors))
        value += "".join(f"<p class='ssl-hint'>{html.escape(line)}</p>" for line in hints)
        if self.banner.value != value:
            self.banner.value = value

    # ------------------------------------------------------------ for a notebook

    @property
    def store(self) -> RunStore | None:
        """The file of the run that is shown; None until the page is there."""
        return self._store

    def close(self) -> None:
        """Stops publishing, leaves the run saved, and frees the widgets."""
        self.publisher.stop()
        self.browser.unobserve_all()
        self._host.close()
        if self._store is not None:
            self._store.close()
        for reader in self._compared.values():
            reader.store.close()
        self._resources.close()
        self.files.close()
        self.export.close()
        for panel in self.panels:
            panel.close()
        self.timeline.close()
        self.shelf.close()
        self.knobs.close()
        self.transport.close()
        self.widget.close()


_DASHES = {"solid": "none", "dashed": "8 4", "dotted": "2 4", "dash_dotted": "8 4 2 4"}


class _Changes:
    """Writes a widget's trait only if it changes: each is a message."""

    def __init__(self, widget: w.Widget) -> None:
        self._widget = widget

    def set(self, name: str, value: Any) -> None:
        if getattr(self._widget, name) != value:
            setattr(self._widget, name, value)
