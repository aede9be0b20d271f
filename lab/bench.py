"""``Bench``: the whole instrument. Controls on the left, pictures on the right, one thread that writes them all.

Bench(trainer)   # in a notebook: runs the trainer in a thread of this kernel
Bench()          # under Voila: its run is stepped by the engine process; this kernel never imports torch
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from lab.browser import Browser
from lab.catalogue import INSTRUCTOR, TRIAL, Catalogue, Entry, tree
from lab.controls import KnobBoard, Transport, waiting_knobs
from lab.doors import MOST_NAMES, close_doors, is_text, is_whole, parts
from lab.exports import ExportBox
from lab.family import FamilyDesk
from lab.files import LARGEST_IN, Files
from lab.hosts import EngineHost, Host, KernelHost
from lab.house import House
from lab.links import linked_config, linked_names, linked_step, linked_text
from lab.listing import shelf_rows
from lab.locks import lock_kernel
from lab.looks import OTHERS
from lab.marks import mark_width, marks, rows
from lab.owners import FOREIGN, KEEPER, CapError, Owners, delete_run, keeper_of
from lab.pace import tick_here
from lab.panels import make_panels
from lab.publisher import Publisher
from lab.setup import Setup
from lab.shelf import Shelf
from lab.show import EVERYTHING, Show
from lab.stagebox import LOOK, STEERED, WAITING, StageBox
from lab.style import CSS
from lab.timeline import Timeline
from lab.trouble import GONE, Watch, unanswered
from lab.view import RunView, ViewReader
from lab.words import Changes, Words, mark
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
    summary,
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
MOST_ACTIONS = 200
"""What was asked for and waits to be done; anything more is passed over."""

ACTIONS_A_ROUND = 20
"""What is done of it before the next picture."""

MOST_COMMANDS = 1_000
"""Commands that wait in a run's file; a driver takes them at its next step."""

WEIGH_PAUSE = 10.0
"""Seconds between looks at what a visitor's runs take on disk."""

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
        config: what a new run begins as, in place of the two.
        run: a run to open instead of a new one, or the path of a run's file.
        results: folder of all runs; default ``SSL_LAB_RESULTS`` or ``./results``.
        house: the rules of the house; default as the kernel's environment says.
        show: the parts that the page has; default all.
        beside: widgets of one's own at the head of the left column.
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
        config: RunConfig | None = None,
        run: str | None = None,
        results: str | Path | None = None,
        house: House | None = None,
        show: Show = EVERYTHING,
        beside: w.Widget | Sequence[w.Widget] = (),
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
        self._config = trainer.config if trainer is not None else config or self._default(preset, dataset)
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
        self.house = house or House.here()
        self.owners = Owners(self.house)
        self._opened = self._full = False
        self._acting = False
        self._watch = Watch(folder)
        self._gone = False
        self._overweight, self._weigh_due = "", 0.0
        self._drawn: tuple[Any, ...] = ()
        self._why_not = ""
        """Why the visitor may not steer the run that is shown; empty if they may."""
        self._watching = False
        self._key = ""
        """What the shelf calls the run that is shown."""
        self._compared: dict[str, ViewReader] = {}
        self._shelf_due = 0.0
        self._listed: tuple[Any, ...] = ()
        self._followers: list[Callable[[RunView | None], None]] = []
        self.stage: StageBox | None = None
        self._waiting = False
        """Whether the page has no run yet, and follows as soon as the instructor shows one."""
        self._stage_trouble, self._follow_due = "", float("inf")
        """Why what is on stage could not be opened, and when that is tried again."""
        self._announced = ""
        """What was last put on stage, as far as the page has said so."""
        # A lesson is about its own run: whoever is in one is not led away from it.
        if self.house.stage and (self.house.instructor or show.setup):
            self.stage = StageBox(
                self.house,
                folder,
                *(partial(self._ask, act) for act in (self._put_on_stage, self._withdraw, self._follow)),
            )
        # Whoever shows runs has them on the shelf already.
        following = self.stage is not None and not self.house.instructor
        self.catalogue = Catalogue(folder, self.stage.audience if self.stage and following else None)

        self.browser = Browser()
        self.transport = Transport(self._send)
        self.family = FamilyDesk(self)
        along = self.family.ask if show.family and self._host.families else None
        self.knobs = KnobBoard(self._config.knobs, self._send, show.knobs, along)
        self.panels = make_panels(show.panels)
        self.timeline = Timeline()
        self.setup: Setup | None = None
        self.shelf: Shelf | None = None
        self.files: Files | None = None
        self.export: ExportBox | None = None
        if show.setup:
            self.setup = Setup(self._config, lambda: self._ask(self._new_run), lambda: self._ask(self._reset_run))
            self.preset, self.dataset = self.setup.preset, self.setup.dataset
            self.new, self.reset = self.setup.new, self.setup.reset
        if show.shelf or self.house.keeps_account:
            self.shelf = Shelf()
        if show.export:
            self.files = Files(limit=min(LARGEST_IN, self.house.max_bytes or LARGEST_IN))
            self.export = ExportBox(
                self.panels, self._ask, lambda: self._store, self.files, self._complain,
                lambda: {key: reader.store for key, reader in self._compared.items()},
            )  # fmt: skip
        self._build(beside)
        close_doors(parts(self.widget))
        self.browser.observe(self._on_page, names=["query", "visitor"])
        self.browser.on_msg(self._on_key)
        self.publisher = Publisher(
            self.browser,
            self._tick,
            self.present,
            tick_pause=lambda: tick_here(self._host.pages()),
            served=self.house.served,
        )
        self.timeline.observe(lambda _: self.publisher.poke(), names="step")
        self.timeline.on_msg(self._on_timeline)
        if self.shelf is not None:
            # What is ticked when it comes to be done counts: it is written here too.
            self.shelf.observe(lambda _: self._ask(lambda: self._compare(self._ticked())), names="ticked")
            self.shelf.on_msg(self._on_shelf)
        if self.files is not None:
            self.files.poke, self.files.dropped = self.publisher.poke, self._on_drop
            if self.house.served or self.house.max_visitors is not None:
                # Served by our own Voila, whose limits are known; elsewhere a server drops what comes too fast.
                self.files.rate = 8_000_000
        self.publisher.start()
        if trainer is not None:
            # The trainer is there whether a page looks or not.
            self.start()

    @staticmethod
    def _default(name: str, dataset: str) -> RunConfig:
        return preset(name, dataset=dataset)

    def _build(self, beside: w.Widget | Sequence[w.Widget]) -> None:
        self.restart = w.Button(
            description="Start the engine again", button_style="warning", layout=w.Layout(display="none")
        )
        self.restart.on_click(lambda _: self._ask(self._restart_engine))

        self.said = Words()
        self.banner, self.headline = self.said.banner, self.said.headline
        self.words, self.legend = self.said.words, self.said.legend

        head = (beside,) if isinstance(beside, w.Widget) else tuple(beside)
        setup = () if self.setup is None else self.setup.rows
        stage = () if self.stage is None else (self.stage.widget,)
        left = w.VBox([*head, *stage, *setup, self.transport.widget])
        left.add_class("ssl-left")
        pictures = [panel.widget for panel in self.panels]
        grid = w.GridBox(pictures if self.export is None else [*pictures, self.export.widget])
        grid.add_class("ssl-panels")
        top = w.VBox([self.headline, self.words, self.family.widget, self.legend, self.banner, self.restart])
        top.add_class("ssl-top")
        below = [part for part in (self.timeline, self.shelf) if part is not None]
        right = w.VBox([top, grid, *below])
        right.add_class("ssl-right")
        body = w.GridBox([left, right, self.knobs.widget])
        body.add_class("ssl-body")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}</style>"), self.browser, body])
        self.widget.add_class("ssl-bench")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _do(self, action: Callable[[], None]) -> bool:
        """Has the publisher's thread do something at once; False if so much waits already that it is passed over."""
        if self._actions.qsize() >= MOST_ACTIONS:
            self._complaint = "More was asked for than could be done: what came last was passed over. Try again."
            return False
        self._actions.put(action)
        self.publisher.poke()
        return True

    def _ask(self, action: Callable[[], None], otherwise: Callable[[str], None] | None = None) -> bool:
        """Has done what a visitor asks for; where there is no seat for them, ``otherwise`` is told."""

        def admitted() -> None:
            if self._seated():
                action()
            elif otherwise is not None:
                otherwise(self.obstacle or "There is no seat for this page.")

        return self._do(admitted)

    def _seated(self) -> bool:
        """Whether there is a seat for this page, where seats are counted."""
        return not self._full and (self._opened or self.house.max_visitors is None)

    def _complain(self, words: str) -> None:
        self._complaint = words

    def _send(self, kind: str, payload: Mapping[str, Any]) -> None:
        command: CommandKind = kind  # type: ignore[assignment]

        def send() -> None:
            store = self._store
            if store is None:
                return
            if why := self._reason_not_to_send(store, kind):
                raise SSLLabError(why)
            told, why = self.family.tell(kind, payload)
            if store.status().state != "done":
                self._host.wake(store)
                self._await(store, store.send(command, payload))
            elif not told:
                why = why or "This run is done. Start a new one to go on."
            if why:
                raise SSLLabError(why)

        # One look: the publisher may put another run on the page at any moment.
        store = self._store
        if store is not None and not self._acting and self._actions.empty():
            # What does not go the usual way goes the long one, which says what is wrong.
            with contextlib.suppress(SSLLabError, sqlite3.Error):
                if not self._reason_not_to_send(store, kind) and store.driven():
                    # The usual way: straight into the file, taken at the next step boundary.
                    self._await(store, store.send(command, payload))
                    if self.family.id:
                        self._ask(lambda: self._complain(self.family.tell(kind, payload)[1] or self._complaint))
                    self.publisher.wake()
                    return
        # Behind what was asked before, such as a new run that this is meant for.
        self._ask(send)

    def _await(self, store: RunStore, number: int) -> None:
        self._awaited = store, number, time.monotonic() + ANSWER_PATIENCE

    def _answer_is_near(self) -> bool:
        """Whether a command is just being taken; asks for a picture when it has been, or takes too long."""
        if self._awaited is None:
            return False
        store, number, until = awaited = self._awaited
        with contextlib.suppress(SSLLabError, sqlite3.Error):
            if store is self._store and time.monotonic() < until and store.command(number).state == "waiting":
                return True
        if self._awaited is awaited:
            self._awaited = None
        self.publisher.poke()
        return False

    def _on_page(self, _change: object) -> None:
        # The address and who comes may be told in any order.
        query = self.browser.query
        if query is not None:
            self._do(lambda: self._open_page(dict(query)))

    def _on_timeline(self, _timeline: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        asked = content.get("do")
        if asked == "fork":
            # The message may overtake the trait: what it says itself counts.
            step = content.get("step", self.timeline.step)
            if is_whole(step, -1):
                self._ask(lambda: self._fork_here(step))
        elif asked == "undo" and is_whole(number := content.get("event")):
            self._ask(lambda: self._undo(number))

    def _on_shelf(self, _shelf: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if is_text(name := content.get("open")):
            self._ask(lambda: self._show_entry(name))
        elif is_text(gone := content.get("delete")):
            self._ask(lambda: self._delete(gone))
        else:
            self.family.on_shelf(content)

    def _on_drop(self, path: Path, name: str) -> None:
        def take() -> None:
            try:
                if self._seated():
                    self._take_in(path, name)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

        if not self._do(take):
            path.unlink(missing_ok=True)

    def _on_key(self, _browser: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if is_whole(number := content.get("ping")):
            # The page wants to know whether this kernel lives; nothing waits for the publisher.
            self.browser.send({"pong": number})
            return
        key = content.get("key")
        if key == "step":
            self._send("step", {"steps": 1})
        elif key == "run_pause":
            # Behind what was asked before: the run that is about to be left is not the one that is meant.
            self._do(self._run_or_pause)

    def _run_or_pause(self) -> None:
        if self._store is not None:
            self._send("pause" if self._store.status().state == "running" else "run", {})

    # ------------------------------------------------------------ what the publisher's thread does

    def start(self) -> None:
        """Opens the run that was asked for, or makes a new one, without waiting for a page to show the bench."""
        self._do(lambda: self._open_page({}, by_page=False))

    def _open_page(self, query: Mapping[str, Any], *, by_page: bool = True) -> None:
        if self.owners.visitor is None and self.browser.visitor is not None:
            self.owners = Owners(self.house, self.browser.visitor)
            if self._store is not None:
                self._why_not = self._reason_not_to_steer(self._store)
        if self._opened or (by_page and not self.owners.known):
            return
        if not self._host.enter(self.house.max_visitors):
            self._full = True
            return
        self._opened = True
        self._watching = "watch" in query
        try:
            linked = linked_text(query, "run")
        except SSLLabError as error:
            self._complaint, query, linked = f"The link cannot be followed. {error} Here is the usual bench.", {}, ""
        wanted = linked or self._wanted_run or ""
        if self.catalogue.follows and not wanted and ("follow" in query or self.house.follow):
            wanted = INSTRUCTOR
        if wanted:
            try:
                # A path is the word of whoever started this kernel; an address has only names.
                if wanted == self._wanted_run and not linked and Path(wanted).exists():
                    path = Path(wanted)
                    self._take_in(path, path.parent.name if path.name == FILE_NAME else path.name)
                else:
                    self._show_entry(wanted)
            except (SSLLabError, sqlite3.Error, OSError) as error:
                if wanted.startswith(INSTRUCTOR) and self.catalogue.follows:
                    # A copy that cannot be read at this moment is no reason for a run, and an engine, of one's own.
                    self._wait_for_stage(error)
                    return
                self._complaint = f"{error} Here is a new run instead."
            else:
                if not self._waiting:
                    self._follow_link(query)
                return
        config = self._config
        try:
            config = linked_config(query, config)
        except SSLLabError as error:
            self._complaint = f"The link cannot be followed. {error} Here is the usual bench."
        try:
            self._begin(config, first=True)
        except CapError as error:
            # Somebody who comes back and can have no new run finds an old one.
            own = (e for e in self.catalogue.entries() if not e.recording and e.keeper == self.owners.visitor)
            newest = next(own, None)
            self._complaint = f"{error} Here is your latest run." if newest else str(error)
            if newest is not None:
                self._show_entry(newest.key)

    def _follow_link(self, query: Mapping[str, Any]) -> None:
        """The step and the other runs that an address asks for."""
        assert self._store is not None
        try:
            step = linked_step(query, self._store.last_step())
            self.timeline.step = -1 if step is None else step
            self._compare([name for name in linked_names(query, "compare") if name != self._key])
        except SSLLabError as error:
            self._complaint = f"The link cannot be followed to its end. {error}"

    def _begin(self, config: RunConfig, *, first: bool = False) -> None:
        self._room_for()
        store = self._host.start(config, self._meta(), first=first)
        self._watching = False
        self._compare([])
        self._attach(store)

    def _room_for(self, more: int = 0, runs: int = 1) -> None:
        """Whether more runs may be made, which needs no look at the others where there is no bound."""
        self.owners.room_for(self.catalogue.entries() if self.house.keeps_account else (), more, runs)

    def _meta(self) -> dict[str, str]:
        """What a run that is made here holds of its maker."""
        return {KEEPER: self.owners.visitor} if self.house.keeps_account and self.owners.visitor else {}

    def _show_entry(self, key: str) -> None:
        """Opens a run of the shelf, or one that is not listed any more."""
        if key.startswith(INSTRUCTOR):
            self._follow()
            return
        if ":" in key:
            self._attach(self.catalogue.open(key), key)
            return
        path = self._host.results / check_name(key)
        readonly = path.exists() and not writable(path / FILE_NAME)
        store = open_run(key, self._host.results, readonly=readonly or self.house.own_only)
        if self.house.own_only and not readonly and self.owners.keeps_awake(keeper_of(store)):
            store.close()
            store = open_run(key, self._host.results)
        self._attach(store)

    def _put_on_stage(self) -> None:
        """Shows the run on the page to the class, in place of what it sees now."""
        assert self.stage is not None
        if not self.house.instructor:
            raise SSLLabError("The instructor alone shows runs to the class.")
        if self._store is None or self._from_elsewhere() or self._why_not:
            raise SSLLabError(
                self._why_not or "Only a run of your own can be shown: fork this one, then show the fork."
            )
        self._complaint = ""
        self.stage.put(self._store)
        self.browser.announce = f"The class sees {self._store.name}."

    def _withdraw(self) -> None:
        """Takes down what the class sees."""
        assert self.stage is not None
        if not self.house.instructor:
            raise SSLLabError("The instructor alone shows runs to the class.")
        self._complaint = ""
        self.stage.withdraw()
        self.browser.announce = "The class sees nothing any more."

    def _follow(self) -> None:
        """Puts the instructor's run on the page, or waits for one."""
        if not self.catalogue.follows or self.stage is None:
            raise SSLLabError("There is no instructor here whose runs could be followed.")
        program = self.stage.audience.look()
        if program is not None:
            self._attach(self.stage.audience.open(program), f"{INSTRUCTOR}{program.run}")
        elif self._store is None:
            self._waiting = True
        else:
            raise SSLLabError("The instructor shows nothing at the moment.")

    def _look_at_stage(self) -> None:
        """Goes along with what is on stage."""
        if self.stage is None or not (self.stage.look() or time.monotonic() >= self._follow_due):
            return
        self._stage_trouble, self._follow_due = "", float("inf")
        program = self.stage.program
        if program is None or not self.catalogue.follows:
            return
        following = self._store is not None and self._store.apart
        # By what its reader holds: the file itself may be another run's already.
        shown = self._reader.id if self._reader is not None else ""
        if self._waiting or (following and shown != program.id):
            try:
                self._follow()
            except (SSLLabError, sqlite3.Error, OSError) as error:
                self._wait_for_stage(error)
        elif following and self._store is not None:
            self._store.overtaken()
        elif program.token != self._announced:
            self.browser.announce = f"The instructor shows {program.run}."
        for key, reader in list(self._compared.items()):
            if reader.store.apart and key == f"{INSTRUCTOR}{program.run}" and reader.id != program.id:
                keys = list(self._compared)
                self._compared.pop(key).store.close()
                self._compare(keys)
            elif reader.store.apart:
                reader.store.overtaken()
        self._announced = program.token

    def _wait_for_stage(self, error: Exception) -> None:
        """What is on stage could not be opened: it is tried again."""
        self._waiting = self._waiting or self._reader is None
        self._stage_trouble, self._follow_due = str(error), time.monotonic() + LOOK

    def _take_in(self, path: Path, name: str) -> None:
        """Shows a run's file from elsewhere."""
        store = RunStore.open(path, readonly=True)
        try:
            # Read once before it takes the place of what is shown: a file from elsewhere may hold anything.
            rows(ViewReader(store).read().events)
            summary(store)
        except BaseException:
            store.close()
            raise
        key = f"file: {name}"
        self.catalogue.loose[key] = store.path
        self._attach(store, key)

    def _attach(self, store: RunStore, key: str = "") -> None:
        self._waiting = False
        old, self._store = self._store, store
        old_key, self._key = self._key, key or store.name
        if old is not None:
            # However it stands with the old one, the new one comes.
            with contextlib.suppress(SSLLabError, sqlite3.Error):
                if not self.family.related(store):
                    self._leave(old)
            old.close()
        if self._key in self._compared:
            # What was drawn with the other run changes places with it.
            self._compare([old_key if name == self._key else name for name in self._compared])
        self._watch.begin(store)
        self._gone, self._weigh_due = False, 0.0
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
        if self.setup is not None:
            self.setup.show(config, add=not self._from_elsewhere())
        self.family.arrived()
        self.browser.run = "" if self._key.startswith("file:") else self._key
        self.browser.title = f"{store.name[:100]} · ssl-lab"
        self._look(store)
        if self._why_not:
            return
        # A run that is done is looked at and left as it is.
        if not store.driven() and store.status().state != "done" and self._near(store):
            try:
                self._host.wake(store)
            except SSLLabError as error:
                self._complaint = str(error)

    def _leave(self, store: RunStore) -> None:
        """The engine has better to do than stepping what nobody looks at."""
        status = store.status()
        live = status.state in LIVE_STATES and status.owner != "train"
        if live and not self._why_not and self.owners.minds(keeper_of(store)):
            store.send("pause")

    def _look(self, store: RunStore) -> None:
        """Says in the run's file that somebody looks, which keeps it going; not where it is another visitor's."""
        foreign = self._why_not == FOREIGN and not store.readonly and self.owners.keeps_awake(keeper_of(store))
        if self._why_not and not foreign:
            return
        try:
            store.touch_viewer()
        except sqlite3.Error as error:
            self._watch.refused = str(error)
        else:
            self._watch.refused = ""

    def _from_elsewhere(self) -> bool:
        """Whether what is shown is a file that a stranger may have made."""
        return self._key.startswith(("file:", "recording:", INSTRUCTOR))

    def _check_data(self) -> None:
        """A run of one's own from a stranger's file is on a data set of this project, not on some folder."""
        if self._from_elsewhere() and self._config.dataset not in DATASETS:
            raise ConfigError(f"This recording is of images in {self._config.dataset!r}, which are not here.")

    def _reason_not_to_steer(self, store: RunStore) -> str:
        """Why the visitor may not steer this run, in words; empty if they may. Every way to a run's file asks it."""
        if self._watch.gone(store):
            return GONE
        if store.apart:
            return STEERED
        if self._key.startswith(TRIAL):
            # A knob turned here would make it another trial than the sweep's file says.
            return "This is a trial of a sweep: look at any moment of it. Fork here to go on with a run of your own."
        if self._watching:
            return "This page only watches. Fork here to go on with a run of your own."
        if not self._from_elsewhere() and not self.owners.may_steer(keeper_of(store)):
            return FOREIGN
        rival = store.rival()
        if rival:
            return f"This run is trained on {rival}, which cannot be reached from here. Fork here to go on by yourself."
        if self._from_elsewhere():
            look = "This is a recording: look at any moment of it."
            here = store.config().dataset in DATASETS
            return (
                f"{look} Fork here to go on from one with a run of your own."
                if here
                else f"{look} Its images are not here."
            )
        if store.readonly:
            return "This run's folder cannot be written here, so that it can be looked at only. Fork here to go on."
        return ""

    def _reason_not_to_send(self, store: RunStore, kind: str) -> str:
        """Why this command may not go into the run's file now; empty if it may."""
        if why := self._reason_not_to_steer(store):
            return why
        if self._overweight and kind != "pause":
            return self._overweight
        return self._jam(store)

    @staticmethod
    def _jam(store: RunStore) -> str:
        """Whether a run was told more than its driver takes, in words; empty if not."""
        ((waiting,),) = store.rows("SELECT count(*) FROM commands WHERE state = 'waiting'")
        if waiting >= MOST_COMMANDS:
            return f"{waiting:,} commands wait for the driver of {store.name} already. Wait until they are answered."
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
        self._fork(self._saved_now(self._store) if step < 0 else step, None)

    def _fork_settings(self, runs: int = 1) -> Mapping[str, Any]:
        """What forks of the run that is shown take from this machine.

        Raises:
            SSLLabError: so many may not be made, or not from this run.
        """
        assert self._store is not None
        self._check_data()
        path = self._store.path
        self._room_for(runs * (path.stat().st_size if path.exists() else 0), runs)
        return AT_HOME if self._from_elsewhere() or not writable(path) else {}

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

    def _fork(self, step: int, events: int | None, name: str = "") -> None:
        assert self._store is not None
        store, key, settings = self._store, self._key, self._fork_settings()
        stem = re.sub(r"-fork-\d+$", "", store.name)
        name = free_name(name or f"{stem[:80]}-fork", self._host.results)
        child = store.fork(name, step, events=events, results=self._host.results, settings=settings)
        for entry, value in self._meta().items():
            child.set_meta(entry, value)
        self._complaint = ""
        beside = [key, *(other for other in self._compared if other != key)][: len(OTHERS)]
        self._watching = False
        self._attach(child)
        self._compare(beside)

    def _compare(self, keys: Sequence[str]) -> None:
        """Draws these runs with the one that is shown."""
        wanted = [key for key in dict.fromkeys(keys) if key != self._key][:MOST_NAMES]
        if wanted == list(self._compared) == self._ticked():
            return
        for key in [key for key in self._compared if key not in wanted]:
            self._compared.pop(key).store.close()
        try:
            for key in wanted:
                if key not in self._compared:
                    self._compared[key] = ViewReader(self._open_to_look(key))
        finally:
            # In the order in which they were asked for: it decides the colours.
            self._compared = self.family.settled({k: self._compared[k] for k in wanted if k in self._compared})
            if self.shelf is not None and self._ticked() != list(self._compared):
                self.shelf.ticked = list(self._compared)
            self._drawn, self._shelf_due = (), 0.0
            self.browser.compare = ",".join(k for k in self._compared if ":" not in k or k.startswith(TRIAL))

    def _ticked(self) -> list[str]:
        """What is ticked on the shelf; without one, what is drawn."""
        return list(self._compared if self.shelf is None else self.shelf.ticked)

    def _open_to_look(self, key: str) -> RunStore:
        """A run to be drawn with the one that is shown."""
        if ":" in key:
            return self.catalogue.open(key)
        return open_run(key, self._host.results, readonly=True)

    def _new_run(self) -> None:
        self._complaint = ""
        fixed: dict[str, Any] = {"seed": self._config.seed, "device": self._config.device}
        assert self.setup is not None
        name = self.preset.value if self.preset.value in PRESETS else "byol"
        self._begin(preset(name, dataset=PRESETS[name].dataset or self.dataset.value, **fixed))

    def _reset_run(self) -> None:
        self._complaint = ""
        self._check_data()
        self._begin(self._config)

    def _delete(self, key: str) -> None:
        """A run of one's own goes for good; the page has asked twice."""
        if ":" in key:
            raise SSLLabError("A recording is not deleted from a page.")
        if self._watching:
            raise SSLLabError("This page only watches, so that it deletes nothing.")
        if key == self._key:
            raise SSLLabError(f"{key} is the run on the page: open another one first, then delete it.")
        self._compare([name for name in self._compared if name != key])
        delete_run(key, self._host.results, self.owners)
        self._complaint, self._shelf_due, self._weigh_due = "", 0.0, 0.0
        self.browser.announce = f"{key} is deleted."

    def _restart_engine(self) -> None:
        self._host.restart()
        if self._store is not None and not self._why_not:
            self._host.wake(self._store)

    def _tick(self, draw: bool) -> bool:
        """One round of the publisher: do what was asked, then write what changed; whether there was a new picture."""
        for _ in range(ACTIONS_A_ROUND):
            # Before it leaves the queue: else, for a moment, nothing would seem to be under way, and a knob that is
            # turned just then would go to the run that is about to be left.
            self._acting = True
            try:
                action = self._actions.get_nowait()
            except queue.Empty:
                self._acting = False
                break
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
            self.publisher.soon = None
            self.said.warn([self.obstacle])
            self._tell(None)
            return False
        # While a file is under way to the page or from it, the next round comes sooner.
        self.publisher.soon = 0.0 if not self._actions.empty() else self.files.pump() if self.files else None
        if self._answer_is_near():
            self.publisher.soon = ANSWER_PAUSE
            return False
        if not draw:
            return False
        try:
            return self._show()
        except (SSLLabError, sqlite3.Error, OSError) as error:
            # What is drawn stays; the next round may read it again.
            self.said.warn([GONE if self._gone else str(error), self._watch.disk()])
            return False

    def _show(self) -> bool:
        """Writes what changed; whether there was a new picture."""
        self._look_at_stage()
        if self._store is None or self._reader is None:
            if self._waiting and self.stage is not None:
                self.transport.lock()
                self.knobs.lock(True)
                self.stage.tell_follower(None, True)
                self.said.nothing(WAITING)
                self.said.warn([self._complaint, self._stage_trouble, self._watch.disk()])
                self._show_shelf()
                self._tell(None)
                return False
            self.said.warn([self._complaint, self._watch.disk() if self._opened else ""])
            if self._opened:
                self.said.nothing("No run is open.")
                self._show_shelf()
                self._tell(None)
            return False
        gone = self._watch.gone(self._store)
        if gone != self._gone:
            self._gone, self._why_not = gone, self._reason_not_to_steer(self._store)
        waiting = waiting_knobs(self._store)
        shown = self.timeline.step
        view = self._reader.read(None if shown < 0 else shown, list(self._compared.values()))
        silent = 0.0 if gone else self._watch.silence(view.status)
        self.transport.show(view.status, bool(self._why_not))
        self.knobs.show(view.status, waiting, bool(self._why_not), shown=view.knobs, forks=not gone)
        self.family.show(view)
        self._show_timeline(view, shown)
        drawn = self._draw(view)
        state = "gone" if gone else f"not answering for {silent:.0f} s" if silent else self._stage_state()
        self.said.show(view, [self._key, *self._compared], state)
        if line := self.said.to_be_read(view):
            self.browser.announce = line
        self._show_trouble(view, bool(silent))
        self._show_shelf()
        self._tell(view)
        return drawn

    def _stage_state(self) -> str:
        """What is to be said of a run on stage in place of its last word, which does not hold any more."""
        if self.stage is None or self._store is None or not self._store.apart:
            return ""
        if self.stage.program is None:
            return "no longer shown"
        return "left alone" if self.stage.left else ""

    def _tell(self, view: RunView | None) -> None:
        """Hands what was read to those who follow."""
        for follow in self._followers:
            try:
                follow(view)
            except Exception as error:
                # No picture of the bench depends on one that follows.
                log.exception("What follows the bench failed")
                self._complaint = f"{type(error).__name__}: {error}"

    def present(self) -> None:
        """Says that the page is still here; called by the publisher every two seconds while it is."""
        try:
            if self._full and self._host.enter(self.house.max_visitors):
                self._full = False
                self._do(lambda: self._open_page(dict(self.browser.query or {})))
            elif not self._full and (self._store is not None or self._waiting):
                # Who waits for the instructor keeps their seat too.
                self._host.enter(None)
                if self._store is None:
                    return
                self._look(self._store)
                self.family.look()
                self._weigh(self._store)
        except (SSLLabError, sqlite3.Error, OSError) as error:
            # Said by the next picture; nothing else hangs on it.
            self._watch.refused = str(error)

    def _weigh(self, store: RunStore) -> None:
        """A visitor's run that has grown beyond what they may keep pauses."""
        if self.house.max_bytes is None or time.monotonic() < self._weigh_due:
            return
        self._weigh_due = time.monotonic() + WEIGH_PAUSE
        self._overweight = self.owners.overweight(self.catalogue.entries())
        mine = not self._why_not and keeper_of(store) == self.owners.visitor
        if not self._overweight:
            return
        if mine and store.status().state == "running":
            store.send("pause")
        self.family.stand(self.owners.visitor)

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
        timeline, state = self.timeline, Changes(self.timeline)
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
        checkpoints = sorted({c.step for c in keep.kept(self._store.folder)}) if writable(self._store.path) else []
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
        if self.shelf is None or time.monotonic() < self._shelf_due:
            return
        self._shelf_due = time.monotonic() + SHELF_PAUSE
        every = self.catalogue.entries()
        entries, more = tree(every)
        colours, state = self.family.colours(), Changes(self.shelf)
        state.set("most", 1 + max(len(OTHERS), len(self._compared)))
        state.set("runs", shelf_rows(entries, self._key, colours, self._may_delete, every))
        state.set("more", more)

    def _may_delete(self, entry: Entry) -> bool:
        return not self._watching and writable(entry.path) and self.owners.may_steer(entry.keeper)

    def _show_trouble(self, view: RunView, silent: bool) -> None:
        assert self._store is not None
        for command in self._store.refused(after=self._refusal_seen):
            self._refusal_seen, self._refusal, self._refusal_time = command.id, command.answer, time.monotonic()
        if self._refusal and time.monotonic() - self._refusal_time > 20.0:
            self._refusal = ""
        status, steered = view.status, not self._why_not
        engine = self._host.trouble(self._store)
        errors = [engine, self._complaint, self._refusal, self._stage_trouble]
        hints = [] if engine else [self._host.waiting_for()]
        if not self._from_elsewhere():
            errors.append(self._watch.disk())
        if silent and not engine:
            errors.append(unanswered(status))
        if self.stage is not None:
            if self.house.instructor:
                self.stage.tell_instructor(self._store, not self._from_elsewhere() and steered)
            else:
                following = self._store if self._store.apart else None
                self.stage.tell_follower(following, False)
                if following is not None and (left := self.stage.left):
                    errors.append(left)
        (errors if self._gone else hints).append(self._why_not)
        (errors if status.state == "failed" else hints).append(status.message)
        if steered:
            errors.append(self._overweight)
        if view.shown is not None and steered and status.state != "done":
            hints.append(
                f"You look at step {view.shown:,}; the run stands at step {status.step:,}, and there a knob that "
                "is turned takes effect. Live goes there; Fork here begins a second run at the moment shown."
            )
        self.said.warn(errors, hints)
        display = None if engine else "none"
        if self.restart.layout.display != display:
            self.restart.layout.display = display

    # ------------------------------------------------------------ for a lesson: does what a person's hand does

    def on_view(self, follow: Callable[[RunView | None], None]) -> None:
        """Has ``follow`` told of every view that is read, a few times a second while the page is in front.

        It is called on the publisher's thread, where widgets may be written; with None where there is no run to show,
        and :attr:`obstacle` then says why.
        """
        self._followers.append(follow)

    @property
    def obstacle(self) -> str:
        """Why the run that is shown cannot be steered from this page, in words; empty if it can."""
        if self._full:
            return (
                f"The house is full: {self.house.max_visitors} pages are open, which is as many as this machine "
                "serves. This page comes to life when another one closes; leave it open, or try again later."
            )
        if self._store is None:
            return self._complaint
        return self._why_not or self._overweight or self._host.trouble(self._store)

    @property
    def full(self) -> bool:
        """Whether there is no seat for this page."""
        return self._full

    @property
    def waiting(self) -> bool:
        """Whether something that was asked for is still to be done."""
        return not self._actions.empty()

    @property
    def shown(self) -> str:
        """What the shelf calls the run that is shown."""
        return self._key

    def do(self, action: Callable[[], None], otherwise: Callable[[str], None] | None = None) -> None:
        """Has the publisher's thread do something, unless there is no seat for this page.

        Args:
            action: what to do; an :class:`SSLLabError` of it is said in the banner.
            otherwise: is told on the same thread, besides, why it could not be done; at once, where too much waits.
        """

        def try_it() -> None:
            try:
                action()
            except (SSLLabError, sqlite3.Error, OSError) as error:
                if otherwise is not None:
                    otherwise(str(error))
                raise

        if not self._ask(try_it, otherwise) and otherwise is not None:
            otherwise(self._complaint)

    def turn(self, **knobs: Any) -> None:
        """Turns knobs of the run that is shown, as a person does: ``bench.turn(predictor="none")``."""
        self._send("set", knobs)

    def run(self) -> None:
        """Has the run step until paused."""
        self._send("run", {})

    def pause(self) -> None:
        """Has the run stand."""
        self._send("pause", {})

    def step(self, steps: int = 1) -> None:
        """Has the run make so many steps, and then stand."""
        self._send("step", {"steps": steps})

    def speed(self, steps_per_second: float | None) -> None:
        """Has the run make at most so many steps a second; None for as fast as it goes."""
        self._send("speed", {"steps_per_second": steps_per_second})

    def begin(
        self,
        config: RunConfig,
        then: Callable[[str], None] | None = None,
        otherwise: Callable[[str], None] | None = None,
    ) -> None:
        """Begins a new run, which stands at step 0.

        Args:
            then: is told the run's name on the publisher's thread, when it is on the page.
            otherwise: is told there why there is none.
        """

        def do() -> None:
            self._complaint = ""
            self._begin(config)
            if then is not None:
                then(self._key)

        self.do(do, otherwise)

    def fork(
        self,
        step: int | None = None,
        *,
        events: int | None = None,
        compare: bool = True,
        knobs: Mapping[str, Any] | None = None,
        name: str = "",
        then: Callable[[str], None] | None = None,
        otherwise: Callable[[str], None] | None = None,
    ) -> None:
        """Goes on with a fork of the run that is shown, with the same random streams.

        Args:
            step: steps done where it begins; default now.
            events: knob events seen there; default all up to ``step``, see :meth:`ssl_lab.store.RunStore.fork`.
            compare: draw it with the run that it grew from.
            knobs: turned in the fork before its next step.
            name: what it is called, with a number; default after the run that it grew from.
            then: is told the fork's name on the publisher's thread, when it is on the page.
            otherwise: is told there why there is none.
        """

        def do() -> None:
            if self._store is None:
                raise SSLLabError("There is no run to fork.")
            self._fork(self._saved_now(self._store) if step is None else step, events, name)
            if not compare:
                self._compare([])
            if knobs:
                self._store.send("set", knobs)
            if then is not None:
                then(self._key)

        self.do(do, otherwise)

    def visit(
        self,
        key: str,
        step: int | None = None,
        then: Callable[[str], None] | None = None,
        otherwise: Callable[[str], None] | None = None,
    ) -> None:
        """Puts a run of the shelf on the page, such as ``recording: collapse-and-return``, at a step or now."""

        def do() -> None:
            self._complaint = ""
            if key != self._key:
                self._show_entry(key)
            self.timeline.step = -1 if step is None else step
            if then is not None:
                then(self._key)

        self.do(do, otherwise)

    def compare(self, *keys: str) -> None:
        """Draws these runs of the shelf with the one that is shown, and no others."""
        self.do(lambda: self._compare(keys))

    def view_at(self, step: int) -> RunView:
        """The run that is shown at a step that it has made. On the publisher's thread, as in :meth:`on_view`."""
        if self._reader is None:
            raise SSLLabError("There is no run on the page.")
        return self._reader.read(step)

    def point_at(self, *, knobs: Collection[str] = (), panels: Collection[str] = ()) -> None:
        """Marks these knobs and pictures, and no others. On the publisher's thread."""
        for name, control in self.knobs.controls.items():
            mark(control.widget, "ssl-asked", name in knobs)
        for panel in self.panels:
            mark(panel.widget, "ssl-look", panel.key in panels)

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
        self.family.end()
        self._resources.close()
        for part in (
            self.files, self.export, *self.panels, self.timeline, self.shelf, self.knobs, self.transport, self.stage
        ):  # fmt: skip
            if part is not None:
                part.close()
        self.widget.close()
