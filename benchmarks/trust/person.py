"""A person at a real bench: every control is worked by the message that the browser sends, and answered like one."""

from __future__ import annotations

import queue
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ipywidgets as w

from benchmarks.trust.whole import faults, turned
from benchmarks.trust.witness import Witness
from lab import Bench
from lab.catalogue import recordings
from lab.exports import FORMS
from lab.hosts import KernelHost
from ssl_lab import Trainer
from ssl_lab.config import Knobs
from ssl_lab.errors import NonFiniteLossError
from ssl_lab.store import FILE_NAME, RunStore, Status, list_runs, open_run

PATIENCE = 30.0
"""Seconds after which something waits for ever."""

UPLOAD_PIECE = 512 * 1024


class TrustError(AssertionError):
    """Something that must hold does not."""


def update(widget: w.Widget, **state: Any) -> None:
    """The page changes traits of a widget."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})


def custom(widget: w.Widget, content: Any, buffers: Sequence[bytes] = ()) -> None:
    """The page sends a widget a message of its own."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": list(buffers)})


def click(button: w.Button) -> None:
    """The page presses a button."""
    custom(button, {"event": "click"})


class Diverged:
    """Hears of every loss that is not finite where it arises, whatever the loop makes of it."""

    def __init__(self) -> None:
        self.steps: list[tuple[Trainer, int]] = []
        """Who was to make which step."""
        self._step = Trainer.step

    def __enter__(self) -> Diverged:
        step, steps = self._step, self.steps

        def watched(trainer: Trainer) -> Any:
            try:
                return step(trainer)
            except NonFiniteLossError:
                steps.append((trainer, trainer.step_count + 1))
                raise

        Trainer.step = watched  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        Trainer.step = self._step  # type: ignore[method-assign]


class _PageHost(KernelHost):
    """As a page under Voila has it, where there is no trainer of a notebook, but in a thread of this process."""

    def __init__(self, trainer: Trainer, results: Path) -> None:
        super().__init__(trainer, results)
        self._given = None


class _Downloads:
    """The page's side of the files: asks for the pieces of what is offered, sends those of what was dropped."""

    def __init__(self) -> None:
        self.files: Any = None
        self.saved: list[tuple[str, bytes]] = []
        self.refused: list[str] = []
        self._mail: queue.SimpleQueue[tuple[dict[str, Any], list[bytes]]] = queue.SimpleQueue()
        self._coming: dict[int, tuple[str, int, bytearray]] = {}
        self._going: dict[int, bytes] = {}
        self._number = 0

    def listen(self, files: Any) -> None:
        self.files = files
        self._coming, self._going = {}, {}
        files.send = lambda content, buffers=None: self._mail.put((content, list(buffers or [])))

    @property
    def busy(self) -> bool:
        return bool(self._coming or self._going) or not self._mail.empty()

    def drop(self, name: str, content: bytes) -> None:
        self._number += 1
        self._going[self._number] = content
        custom(self.files, {"drop": self._number, "name": name, "size": len(content)})

    def work(self) -> None:
        while not self._mail.empty():
            content, pieces = self._mail.get()
            if (number := content.get("offer")) is not None and number not in self._coming:
                self._coming[number] = (content["name"], content["size"], bytearray())
                self._want(number)
            elif (number := content.get("piece")) in self._coming:
                name, size, have = self._coming[number]
                have += pieces[0]
                if len(have) >= size:
                    del self._coming[number]
                    self.saved.append((name, bytes(have)))
                    custom(self.files, {"done": number})
                else:
                    self._want(number)
            elif (number := content.get("gone")) in self._coming:
                name, _, _ = self._coming.pop(number)
                self.refused.append(f"{name} was offered and then gone")
            elif (number := content.get("got")) in self._going:
                at, whole = content["at"], self._going[number]
                if at >= len(whole):
                    del self._going[number]
                else:
                    custom(self.files, {"drop": number, "at": at}, [whole[at : at + UPLOAD_PIECE]])
            elif (number := content.get("refused")) in self._going:
                del self._going[number]
                self.refused.append(f"a dropped file was refused: {content['why']}")

    def _want(self, number: int) -> None:
        custom(self.files, {"want": number, "at": len(self._coming[number][2])})


class Person:
    """Works a bench and looks whether all that must hold does.

    Args:
        trainer: of the notebook.
        used: counts how often each control was used.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, used: Counter[str], witness: Witness, diverged: Diverged
    ) -> None:
        self.folder, self.used, self._witness, self._diverged = folder, used, witness, diverged
        self.done: list[str] = []
        """What was done, for the one who reads of a failure."""
        self.stops = 0
        """Losses that were not finite."""
        self._downloads = _Downloads()
        self._bare: list[tuple[str, Any]] = []
        """Turns that found the engine's value there already."""
        self._fresh: list[dict[str, Any]] = []
        """Turns of which it is not known yet which run they are for."""
        self._turns: dict[str, list[tuple[dict[str, Any], bool]]] = {}
        """What was turned at each run, and whether it must have been taken."""
        self._steps: dict[Trainer, str] = {}
        """Which run a trainer steps."""
        self._foreign: set[str] = set()
        """Runs of which a notebook's turn may still lie before its step."""
        self._trainer = trainer
        self.bench = Bench(trainer, results=folder)
        self._sit_down()

    def _sit_down(self) -> None:
        bench = self.bench
        assert bench.files is not None
        self._downloads.listen(bench.files)
        bench.files.rate = 8_000_000
        self._heard: list[Any] = []
        here = threading.get_ident()

        def hear(change: Mapping[str, Any]) -> None:
            if threading.get_ident() == here:
                self._heard.append(change["new"])

        for control in bench.knobs.controls.values():
            control.control.observe(hear, names="value")

    # ------------------------------------------------------------ looking

    @property
    def store(self) -> RunStore:
        """The file of the run that is shown."""
        assert self.bench.store is not None
        return self.bench.store

    @property
    def host(self) -> KernelHost:
        """Who steps it."""
        return cast(KernelHost, self.bench._host)

    @property
    def steers(self) -> bool:
        """Whether the run that is shown may be steered."""
        return not self.bench._why_not

    def runs(self) -> list[str]:
        """What the shelf can open."""
        own = sorted(path.parent.name for path in self.folder.glob(f"*/{FILE_NAME}"))
        return own + [f"recording: {path.stem}" for path in recordings()]

    def settle(self) -> None:
        """Waits until all that was asked for is done, and looks whether everything holds."""
        end = time.monotonic() + PATIENCE
        while not self._still():
            if time.monotonic() > end:
                raise TrustError(f"something waits for ever: {self._waits()}")
            time.sleep(0.001)
        self._attribute()
        self._look()

    def _still(self) -> bool:
        self._downloads.work()
        bench = self.bench
        if not bench._actions.empty() or bench._acting or bench.store is None or self._downloads.busy:
            return False
        if any("(_write_file)" in thread.name for thread in threading.enumerate()):
            return False
        try:
            if not self.steers:
                return True
            if bench.store.waiting():
                return False
            status = bench.store.status()
        except sqlite3.ProgrammingError:
            # Another run has just taken its place.
            return False
        return status.state in ("paused", "running", "failed", "done") and not self._diverging(status)

    def _diverging(self, status: Status) -> bool:
        """Whether the loop has still to say that a loss was not finite: it has a second for that."""
        return status.state == "running" and any(trainer is self.host.trainer for trainer, _ in self._diverged.steps)

    def _waits(self) -> str:
        store, bench = self.bench.store, self.bench
        if store is None:
            return "no run is there"
        return (
            f"{store.name} is {store.status().state}, commands {[c.kind for c in store.waiting()]}, actions "
            f"{not bench._actions.empty()}, acting {bench._acting}, files {self._downloads.busy}, loss not finite at "
            f"{[step for _, step in self._diverged.steps]}"
        )

    def _attribute(self) -> None:
        """Those turned since are for the run that is shown now: changes of the run are waited for before and after."""
        if self._fresh:
            must = self.steers and self.store.status().state != "done"
            # What is from elsewhere may be called like a run of one's own.
            if ":" not in self.bench._key:
                self._turns.setdefault(self.store.name, []).extend((payload, must) for payload in self._fresh)
            self._fresh = []

    def _look(self) -> None:
        seen = self._witness.take()
        if seen:
            raise TrustError("; ".join(seen))
        if not self.bench.publisher._thread.is_alive():
            raise TrustError("the publisher's thread has ended")
        if self._downloads.refused:
            raise TrustError("; ".join(self._downloads.refused))
        store = self.store
        self._look_at_stops()
        ours = ":" not in self.bench._key
        if wrong := faults(store, knobs=store.name not in self._foreign, commands=ours):
            raise TrustError(f"{store.name}: {'; '.join(wrong)}")
        if ours:
            self._look_for_lost(store)
        status = store.status()
        for name, value in self._bare:
            if self.steers and status.state != "done" and getattr(status.knobs, name) != value:
                raise TrustError(f"{name} was turned to {value} and the bench has not heard of it")
        self._bare = []

    def _look_at_stops(self) -> None:
        """Each loss that was not finite must be a stop that is named, also of a run that was just left."""
        if self.steers and self.host._name == self.store.name:
            self._steps[self.host.trainer] = self.store.name
        # The last word of each trainer counts: it may have been told to go on and have failed again.
        last = dict(self._diverged.steps)
        self.stops += len(self._diverged.steps)
        self._diverged.steps.clear()
        for trainer, step in last.items():
            with open_run(self._steps[trainer], self.folder, readonly=True) as store:
                status = store.status()
                if status.state != "failed" or f"step {step}" not in status.message or "lower" not in status.message:
                    raise TrustError(
                        f"the loss of {store.name} was not finite at step {step}, and the run is {status.state}: "
                        f"{status.message!r}"
                    )
                if store.last_step() >= step:
                    raise TrustError(f"{store.name} has a record of step {step}, whose loss was not finite")

    def _look_for_lost(self, store: RunStore) -> None:
        """Each turn is one command and each command one turn, in order; turns of a run that is done may be none."""
        commands = [dict(command.payload) for command in turned(store)]
        turns = self._turns.get(store.name, [])
        ends = {0}
        for place, (payload, must) in enumerate(turns):
            taken = {end + 1 for end in ends if end < len(commands) and commands[end] == payload}
            ends = taken if must else taken | ends
            if not ends:
                raise TrustError(
                    f"{store.name}: turn {place + 1} of {[turn for turn, _ in turns]} is not among the commands "
                    f"{commands}; it is {store.status().state}, and the page says {self.bench._complaint!r}"
                )
        if len(commands) not in ends:
            raise TrustError(f"{store.name}: turned were {[turn for turn, _ in turns]}, and commands are {commands}")

    # ------------------------------------------------------------ knobs and transport

    def _use(self, control: str, words: str = "") -> None:
        self.used[control] += 1
        self.done.append(f"{control} {words}".strip())

    def turn(self, name: str, share: float) -> None:
        """Turns a knob's control to a place in its range: 0 is the left end, 1 the right."""
        control = self.bench.knobs.controls[name].control
        state: dict[str, Any]
        if isinstance(control, w.Dropdown):
            place = min(int(share * len(control.options)), len(control.options) - 1)
            state, value = {"index": place}, control.options[place][1]
        elif isinstance(control, w.Checkbox):
            value = not control.value
            state = {"value": value}
        else:
            low, high = control.min, control.max
            value = low + share * (high - low)
            if isinstance(control, w.FloatLogSlider):
                value = min(max(control.base**value, control.base**low), control.base**high)
            elif isinstance(control, w.BoundedIntText):
                value = round(low * (high / low) ** share)
            state = {"value": value}
        self._use(f"knob {name}", f"to {value}")
        before = control.value
        self._heard.clear()
        update(control, **state)
        heard = list(self._heard)
        if heard and heard != [value]:
            raise TrustError(f"{name} was turned to {value}, and the bench took it for {heard}")
        if heard:
            self._fresh.append({name: value})
        elif before != value:
            self._bare.append((name, value))

    def press(self, button: str) -> None:
        """``run``, ``pause``, ``step`` or ``step10``."""
        self._use(f"button {button}")
        click(getattr(self.bench.transport, button))

    def dive(self) -> None:
        """Turns a knob and another as far as they go and steps, until the numbers overflow or a while is over."""
        self.settle()
        for name in ("lr", "weight_decay"):
            self.turn(name, 1.0)
        for _ in range(8):
            self.press("step10")
            self.settle()
            if not self.steers or self.store.status().state != "paused":
                return

    def surface(self, way: str) -> None:
        """Goes on from a loss that was not finite: by another run, from before, or with the knob turned back."""
        self.settle()
        status = self.store.status()
        if status.state != "failed":
            return
        if way == "knob":
            self.turn("lr", 0.2)
            self.settle()
            status = self._step_once()
            if status.state not in ("paused", "failed"):
                raise TrustError(f"after the turn and a step the run is {status.state}")
            return
        if way == "fork":
            self.drag([0.0])
            self.fork()
        else:
            self.reset(wait=True)
        step = self.store.status().step
        after = self._step_once()
        if self.steers and (after.state, after.step) != ("paused", step + 1):
            raise TrustError(f"by {way}, the run is {after.state} at step {after.step}: {after.message}")

    def _step_once(self) -> Status:
        self.press("step")
        end = time.monotonic() + PATIENCE
        self.settle()
        while self.store.status().state == "running" and time.monotonic() < end:
            time.sleep(0.002)
        self.settle()
        return self.store.status()

    def speed(self, place: int) -> None:
        """Another place in the list of speeds."""
        self._use("speed")
        speed = self.bench.transport.speed
        update(speed, index=place % len(speed.options))

    def key(self, key: str) -> None:
        """``run_pause`` is the space bar, ``step`` the full stop."""
        self._use(f"key {key}")
        custom(self.bench.browser, {"key": key})

    # ------------------------------------------------------------ timeline

    def drag(self, shares: Sequence[float]) -> None:
        """Drags through the run."""
        self._use("timeline drag")
        for share in shares:
            update(self.bench.timeline, step=int(share * self.bench.timeline.last))

    def live(self) -> None:
        """Back to the run."""
        self._use("timeline live")
        update(self.bench.timeline, step=-1)

    def fork(self) -> None:
        """Fork here."""
        self.settle()
        before, step = self.store.name, self.bench.timeline.step
        self._use("timeline fork", f"at {step}")
        custom(self.bench.timeline, {"do": "fork", "step": step})
        self._changed("fork", before)

    def undo(self, place: int) -> None:
        """Undo beside an event of the list, if there is one."""
        self.settle()
        events = self.store.events()
        if not events:
            return
        before, number = self.store.name, events[place % len(events)].number
        self._use("timeline undo", f"of {number}")
        custom(self.bench.timeline, {"do": "undo", "event": number})
        self._changed("undo", before)

    def _changed(self, what: str, before: str) -> None:
        """Another run must be shown now, or why not."""
        self.settle()
        if self.store.name == before and not self.bench._complaint:
            raise TrustError(f"{what} at {before} came to nothing, without a word")

    # ------------------------------------------------------------ shelf

    def tick(self, place: int) -> None:
        """Ticks a run, or takes the tick away."""
        assert self.bench.shelf is not None
        runs, ticked = self.runs(), list(self.bench.shelf.ticked)
        name = runs[place % len(runs)]
        self._use("shelf tick", name)
        update(self.bench.shelf, ticked=[n for n in ticked if n != name] if name in ticked else [*ticked, name])

    def open(self, place: int) -> None:
        """Opens a run of the shelf."""
        self.settle()
        runs = self.runs()
        name = runs[place % len(runs)]
        self._use("shelf open", name)
        custom(self.bench.shelf, {"open": name})
        self.settle()
        if self.store.name != name.removeprefix("recording: "):
            raise TrustError(f"{name} was opened and {self.store.name} is shown: {self.bench._complaint}")

    # ------------------------------------------------------------ runs

    def new(self, *, wait: bool) -> None:
        """New run; without ``wait`` the next is done before it is there."""
        self._begin("new", self.bench.new, wait)

    def reset(self, *, wait: bool) -> None:
        """Reset."""
        self._begin("reset", self.bench.reset, wait)

    def _begin(self, name: str, button: w.Button, wait: bool) -> None:
        self.settle()
        before = self.store.name
        self._use(f"button {name}", "" if wait else "in haste")
        click(button)
        if wait:
            self._changed(name, before)

    def choose_preset(self, place: int) -> None:
        """Another preset in the list."""
        self._use("preset")
        update(self.bench.preset, index=place % len(self.bench.preset.options))

    def choose_dataset(self, place: int) -> None:
        """Looks through the list of data sets, and takes the digits."""
        self._use("data set")
        options = [value for _, value in self.bench.dataset.options]
        update(self.bench.dataset, index=place % len(options))
        update(self.bench.dataset, index=options.index("digits"))

    def restart(self) -> None:
        """Start the engine again: a page that is slow may still show it."""
        self._use("button restart")
        click(self.bench.restart)

    # ------------------------------------------------------------ files

    def export(self, place: int) -> None:
        """Downloads the run in one of the forms."""
        self.settle()
        assert self.bench.export is not None
        form, download = self.bench.export.form, self.bench.export.download
        kind = FORMS[place % len(FORMS)][1]
        self._use(f"export {kind}")
        update(form, index=place % len(FORMS))
        self.bench._complaint = ""
        saved = len(self._downloads.saved)
        click(download)
        self.settle()
        if len(self._downloads.saved) == saved:
            if not self.bench._complaint:
                raise TrustError(f"the download as {kind} came to nothing, without a word")
            return
        name, content = self._downloads.saved.pop()
        if not content:
            raise TrustError(f"{name} is empty")
        if kind == "sqlite":
            self._look_into(content)

    def _look_into(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.sqlite"
            path.write_bytes(content)
            with RunStore.open(path, readonly=True) as copy:
                if copy.altered_event() is not None or len(copy.events()) > len(self.store.events()):
                    raise TrustError("the copy of the record has other events")

    def picture(self, place: int, kind: str) -> None:
        """Saves a picture as ``png`` or ``svg``."""
        self._use(f"export {kind}")
        export = self.bench.export
        assert export is not None
        update(export.picture, index=place % len(export.picture.options))
        click(export.png if kind == "png" else export.svg)

    def drop(self) -> None:
        """Drops a run's file on the page."""
        self.settle()
        self._use("drop", self.store.name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "copy.sqlite"
            self.store.copy_to(path)
            content = path.read_bytes()
        self._downloads.drop("from elsewhere.sqlite", content)
        self.settle()
        if not self.bench._key.startswith("file:"):
            raise TrustError(f"a file was dropped and {self.bench._key} is shown: {self.bench._complaint}")

    # ------------------------------------------------------------ pages come and go

    def link(self, query: Mapping[str, str]) -> None:
        """Closes the page and follows a link; ``{}`` in a value stands for the name of the run."""
        self.settle()
        own = [name for name in self.runs() if ":" not in name]
        filled = {key: value.replace("{}", own[len(own) // 2]) for key, value in query.items()}
        self._use("link", str(filled))
        self._leave()
        self.bench = Bench(results=self.folder)
        self.bench._host.close()
        self.bench._host = _PageHost(self._trainer, self.folder)
        self._sit_down()
        update(self.bench.browser, query=filled)
        self.settle()

    def reopen(self) -> None:
        """Closes the bench and opens it on the same run, or on the last of one's own."""
        self.settle()
        name = self.store.name if self.steers else [name for name in self.runs() if ":" not in name][-1]
        self._use("close and open", name)
        self._leave()
        self.bench = Bench(self._trainer, run=name, results=self.folder)
        self._sit_down()
        self.settle()
        if self.store.name != name:
            raise TrustError(f"{name} was to be opened again and {self.store.name} is shown")

    def again(self) -> None:
        """Runs the notebook's cell again: another bench takes the trainer over."""
        self.settle()
        self._use("cell again")
        self._trainer = self.host.trainer
        if self._trainer.bench is not self.bench:
            self._leave()
        old = self.bench
        self.bench = Bench(self._trainer, results=self.folder)
        if old.publisher._thread.is_alive():
            raise TrustError("the bench before has not let go")
        self._foreign.clear()
        self._sit_down()
        self.settle()

    def notebook(self, name: str, share: float) -> None:
        """A cell of the notebook turns a knob while the bench steers."""
        self.settle()
        host, trainer = self.host, self.host.trainer
        alive = host._thread is not None and host._thread.is_alive()
        if not self.steers or not alive or host._name != self.store.name or self.store.status().state == "done":
            return
        control = self.bench.knobs.controls[name].control
        if isinstance(control, w.Dropdown):
            value: Any = control.options[min(int(share * len(control.options)), len(control.options) - 1)][1]
        elif isinstance(control, w.Checkbox):
            value = share < 0.5
        else:
            value = round(share * 10) if isinstance(control, w.BoundedIntText) else share
            value = max(value, 1) if isinstance(control, w.BoundedIntText) else value
        self._use("trainer.set", f"{name} to {value}")
        trainer.set(**{name: value})
        self._foreign.add(self.store.name)

    def _leave(self) -> None:
        if isinstance(self.host, KernelHost):
            self._trainer = self.host.trainer
        self.bench.close()
        self._foreign.clear()

    def close(self) -> None:
        """Closes the bench and looks through all runs."""
        self.settle()
        self._leave()
        if seen := self._witness.take():
            raise TrustError("; ".join(seen))
        for run in list_runs(self.folder):
            with open_run(run.name, self.folder, readonly=True) as store:
                if wrong := faults(store):
                    raise TrustError(f"{run.name}, at the end: {'; '.join(wrong)}")
                self._look_for_lost(store)
                if store.driven():
                    raise TrustError(f"{run.name} is still claimed by process {store.status().pid}")
        names = len(list(self.folder.glob(f"*/{FILE_NAME}")))
        if names != len(list_runs(self.folder)):
            raise TrustError("a run cannot be read any more")

    def abandon(self) -> None:
        """Closes the bench after a failure, whatever comes of it."""
        self.bench.close()
        self._witness.take()
        self._diverged.steps.clear()


def knob_names() -> list[str]:
    """All knobs."""
    return list(Knobs.model_fields)
