"""``Bench``: the whole instrument. Controls on the left, pictures on the right, one thread that writes them all.

Bench(trainer)   # in a notebook: runs the trainer in a thread of this kernel
Bench()          # under Voila: its run is stepped by the engine process; this kernel never imports torch
"""

from __future__ import annotations

import html
import logging
import os
import queue
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from lab.browser import Browser
from lab.controls import KnobBoard, Transport, waiting_knobs
from lab.hosts import EngineHost, Host, KernelHost
from lab.panels import all_panels
from lab.publisher import Publisher
from lab.style import CSS
from lab.view import RunView, ViewReader
from ssl_lab.config import DATASETS, PRESETS, RunConfig, preset
from ssl_lab.errors import SSLLabError
from ssl_lab.store import LIVE_STATES, CommandKind, RunStore, open_run, results_dir

if TYPE_CHECKING:
    from ssl_lab.trainer import Trainer

log = logging.getLogger(__name__)

EVENTS_LISTED = 12
"""Events listed under the panels; the newest come first."""


class Bench:
    """A live run with its knobs and pictures; display it as the last line of a cell.

    Args:
        trainer: a trainer to step in a thread of this kernel; while the bench is open, turn its knobs here or by
            ``trainer.set``, and leave stepping to the bench. Without one the run belongs to the engine process.
        preset: what a new run begins as (with a trainer, its own preset).
        dataset: what a new run trains on.
        run: a run to open instead of a new one.
        results: folder of all runs; default ``SSL_LAB_RESULTS`` or ``./results``.
    """

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
        self._host: Host = EngineHost(folder) if trainer is None else KernelHost(trainer, folder)
        self._config = self._default(preset, dataset) if trainer is None else trainer.config
        self._wanted_run = run
        self._store: RunStore | None = None
        self._reader: ViewReader | None = None
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._refusal_seen = 0
        self._refusal = ""
        self._refusal_time = 0.0
        self._complaint = ""
        self._full = False
        self._acting = False
        self._said = ""
        self._said_time = 0.0
        most = os.environ.get("SSL_LAB_MAX_VISITORS")
        self._most_visitors = int(most) if most else None
        self._drawn: tuple[Any, ...] = ()

        self.browser = Browser()
        self.transport = Transport(self._send)
        self.knobs = KnobBoard(self._config.knobs, self._send)
        self.panels = all_panels()
        self._build()
        self.browser.observe(self._on_query, names="query")
        self.browser.on_msg(self._on_key)
        self.publisher = Publisher(self.browser, self._tick, self.present)
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
        self.new.on_click(lambda _: self._actions.put(self._new_run))
        self.reset.on_click(lambda _: self._actions.put(self._reset_run))
        self.restart.on_click(lambda _: self._actions.put(self._restart_engine))

        self.banner = w.HTML()
        self.banner.add_class("ssl-banner")
        self.headline = w.HTML("<b>ssl-lab</b>")
        self.headline.add_class("ssl-headline")
        self.words = w.HTML("Starting…")
        self.words.add_class("ssl-words")
        self.event_list = w.HTML("<p>No knob turned yet.</p>")
        self.event_list.add_class("ssl-events")

        setup = w.GridBox([w.HTML("Preset"), self.preset, w.HTML("Data"), self.dataset])
        setup.add_class("ssl-setup")
        begin = w.HBox([self.new, self.reset])
        begin.add_class("ssl-buttons")
        left = w.VBox([setup, begin, self.transport.widget])
        left.add_class("ssl-left")
        events = w.VBox([w.HTML("<h3>Knobs turned</h3>"), self.event_list])
        events.add_class("ssl-panel")
        grid = w.GridBox([*(panel.widget for panel in self.panels), events])
        grid.add_class("ssl-panels")
        top = w.VBox([self.headline, self.words, self.banner, self.restart])
        top.add_class("ssl-top")
        right = w.VBox([top, grid])
        right.add_class("ssl-right")
        body = w.GridBox([left, right, self.knobs.widget])
        body.add_class("ssl-body")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}</style>"), self.browser, body])
        self.widget.add_class("ssl-bench")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _send(self, kind: str, payload: Mapping[str, Any]) -> None:
        command: CommandKind = kind  # type: ignore[assignment]

        def send() -> None:
            if self._store is None:
                return
            if self._store.status().state == "done":
                raise SSLLabError("This run is done. Start a new one to go on.")
            self._host.wake(self._store)
            self._store.send(command, payload)

        store = self._store
        if store is not None and not self._acting and self._actions.empty() and store.driven():
            # The usual way: straight into the file, taken at the next step boundary.
            store.send(command, payload)
        else:
            # Behind what was asked before, such as a new run that this is meant for.
            self._actions.put(send)

    def _on_query(self, change: Mapping[str, Any]) -> None:
        self._actions.put(lambda: self._open_page(dict(change["new"])))

    def _on_key(self, _browser: Any, content: Any, _buffers: Any) -> None:
        key = content.get("key") if isinstance(content, dict) else None
        if key == "step":
            self._send("step", {"steps": 1})
        elif key == "run_pause" and self._store is not None:
            self._send("pause" if self._store.status().state == "running" else "run", {})

    # ------------------------------------------------------------ what the publisher's thread does

    def start(self) -> None:
        """Opens the run that was asked for, or makes a new one, without waiting for a page to show the bench."""
        self._actions.put(lambda: self._open_page({}))

    def _open_page(self, query: Mapping[str, Any]) -> None:
        if self._store is not None:
            return
        if not self._host.enter(self._most_visitors):
            self._full = True
            return
        wanted = str(query.get("run") or self._wanted_run or "")
        if wanted:
            try:
                self._attach(open_run(wanted, self._host.results))
                return
            except SSLLabError as error:
                self._complaint = f"{error} Here is a new run instead."
        config = self._config
        try:
            name, data = str(query.get("preset") or config.preset), str(query.get("dataset") or config.dataset)
            if (name, data) != (config.preset, config.dataset):
                config = preset(name, dataset=data)
        except SSLLabError as error:
            self._complaint = f"The link cannot be followed. {error} Here is the usual bench."
        self._begin(config)

    def _begin(self, config: RunConfig) -> None:
        store = self._host.start(config)
        self._attach(store)

    def _attach(self, store: RunStore) -> None:
        old, self._store = self._store, store
        if old is not None:
            status = old.status()
            if status.state in LIVE_STATES and status.owner != "train":
                # The engine has better to do than stepping what nobody looks at.
                old.send("pause")
            old.close()
        self._reader = ViewReader(store)
        self._refusal_seen = max((c.id for c in store.refused()), default=0)
        self._refusal, self._drawn = "", ()
        config = store.config()
        self._config = config
        if config.preset in PRESETS:
            self.preset.value = config.preset
        values = [value for _, value in self.dataset.options]
        if config.dataset not in values:
            self.dataset.options = [*self.dataset.options, (f"Folder {Path(config.dataset).name}", config.dataset)]
        self.dataset.value = config.dataset
        self.browser.run = store.name
        self.browser.title = f"{store.name} · ssl-lab"
        store.touch_viewer()
        # A run that is done is looked at and left as it is.
        if not store.driven() and store.status().state != "done":
            try:
                self._host.wake(store)
            except SSLLabError as error:
                self._complaint = str(error)

    def _new_run(self) -> None:
        self._complaint = ""
        fixed: dict[str, Any] = {"seed": self._config.seed, "device": self._config.device}
        name = self.preset.value if self.preset.value in PRESETS else "byol"
        self._begin(preset(name, dataset=self.dataset.value, **fixed))

    def _reset_run(self) -> None:
        self._complaint = ""
        self._begin(self._config)

    def _restart_engine(self) -> None:
        self._host.restart()
        if self._store is not None:
            self._host.wake(self._store)

    def _tick(self, visible: bool) -> None:
        """One round of the publisher: do what was asked, then write what changed."""
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
            return
        if not visible:
            return
        if self._store is None or self._reader is None:
            self._banner([self._complaint] if self._complaint else [], [])
            return
        waiting = waiting_knobs(self._store)
        view = self._reader.read()
        self.transport.show(view.status)
        self.knobs.show(view.status, waiting)
        self._draw(view)
        self._show_words(view)
        self._show_trouble(view)

    def present(self) -> None:
        """Says that the page is still here; called by the publisher every two seconds while it is."""
        if self._full and self._host.enter(self._most_visitors):
            self._full = False
            self._actions.put(lambda: self._open_page(dict(self.browser.query)))
        elif not self._full and self._store is not None:
            self._host.enter(None)
            self._store.touch_viewer()

    def _draw(self, view: RunView) -> None:
        newest = view.newest.step if view.newest else 0
        key = (view.name, view.status.step, newest, len(view.events), len(view.knn[0]), view.status.knobs)
        if key == self._drawn:
            return
        turned = key[3] != (self._drawn[3] if self._drawn else -1)
        self._drawn = key
        for panel in self.panels:
            panel.update(view)
        if turned:
            self._list_events(view)

    def _list_events(self, view: RunView) -> None:
        rows = [
            f"<li><b>{event.number}</b> step {event.step:,}: {html.escape(event.describe())}</li>"
            for event in reversed(view.events[-EVENTS_LISTED:])
        ]
        more = len(view.events) - EVENTS_LISTED
        tail = f"<p>and {more} before</p>" if more > 0 else ""
        self.event_list.value = f"<ul>{''.join(rows)}</ul>{tail}" if rows else "<p>No knob turned yet.</p>"

    def _show_words(self, view: RunView) -> None:
        status = view.status
        loss = f" · loss {view.loss[1][-1]:.3f}" if len(view.loss[1]) else ""
        knn = f" · kNN {100 * view.knn[1][-1]:.1f} %" if len(view.knn[1]) else ""
        rate = f" · {status.steps_per_second:.0f} steps/s" if status.steps_per_second else ""
        headline = (
            f"<b>{html.escape(view.name)}</b> <span class='ssl-state ssl-{status.state}'>{status.state}</span> "
            f"<span class='ssl-numbers'>step <b data-step='{status.step}'>{status.step:,}</b>"
            f" · epoch {status.epoch:.1f}{loss}{knn}{rate}</span>"
        )
        if self.headline.value != headline:
            self.headline.value = headline
        if self.words.value != view.words:
            self.words.value = view.words
        # A screen reader is told when it has had time to read the last line, not at every tick.
        if view.words != self._said and time.monotonic() - self._said_time > 8.0:
            self._said, self._said_time = view.words, time.monotonic()
            self.browser.announce = view.words

    def _show_trouble(self, view: RunView) -> None:
        assert self._store is not None
        for command in self._store.refused(after=self._refusal_seen):
            self._refusal_seen, self._refusal, self._refusal_time = command.id, command.answer, time.monotonic()
        if self._refusal and time.monotonic() - self._refusal_time > 20.0:
            self._refusal = ""
        gone = self._host.trouble(self._store)
        lines, hints = [gone, self._complaint, self._refusal], [] if gone else [self._host.waiting_for()]
        (lines if view.status.state == "failed" else hints).append(view.status.message)
        self._banner([line for line in lines if line], [hint for hint in hints if hint])
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
        for panel in self.panels:
            panel.close()
        self.knobs.close()
        self.transport.close()
        self.widget.close()
