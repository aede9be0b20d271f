"""``FamilyDesk``: what a bench does with families. One click on a knob makes the members and has them run; they are
drawn together and steered together until the page goes to another run.

Everything here runs on the publisher's thread, but for the two buttons, which only leave word.
"""

from __future__ import annotations

import contextlib
import html
import re
import shutil
import sqlite3
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from lab.doors import is_text
from lab.looks import OTHERS, SHOWN, family_look
from lab.members import knob_word
from lab.owners import delete_runs, keeper_of
from lab.view import RunView, ViewReader
from lab.words import Changes
from ssl_lab.config import idle_knobs
from ssl_lab.errors import SSLLabError
from ssl_lab.family import FAMILY, Membership, family_values, membership
from ssl_lab.store import LIVE_STATES, RunStore, free_name, open_run

if TYPE_CHECKING:
    from lab.bench import Bench

TOGETHER = frozenset({"run", "pause", "step", "speed"})
"""What is done to all members at once. A knob that is turned is the business of the run on the page alone: turned in
all of them there would be no family any more."""


class FamilyDesk:
    """The families of a bench.

    Args:
        bench: whose page it is.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._hands: dict[str, RunStore] = {}
        """The other members on the page, to be steered, by what the shelf calls them."""
        self.id = ""
        """The family on the page; empty if there is none."""
        self._words = w.HTML()
        self.close_button = w.Button(
            description="Close family", tooltip="Pause all members and go back to the run that they grew from"
        )
        self.close_button.on_click(lambda _: bench.do(self.close))
        self.widget = w.HBox([self._words, self.close_button], layout=w.Layout(display="none"))
        self.widget.add_class("ssl-family-bar")

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def ask(self, knob: str) -> None:
        """A family along a knob is asked for."""
        key = self._bench.shown

        def start() -> None:
            # A second click, while the first one's family is being begun, is not meant for one of its members.
            if self._bench.shown == key:
                self.start(knob)
            elif not self.id:
                raise SSLLabError(f"{key} has left the page meanwhile, so that no family was begun from it.")

        self._bench._ask(start)

    def on_shelf(self, content: Mapping[str, Any]) -> None:
        """What the shelf's headings of families are pressed for."""
        if is_text(opened := content.get("open_family")):
            self._bench._ask(lambda: self.open(opened))
        elif is_text(deleted := content.get("delete_family")):
            self._bench._ask(lambda: self.delete(deleted))

    # ------------------------------------------------------------ a family begins

    def start(self, knob: str) -> None:
        """Makes a family along a knob from the moment shown, has it run, and puts it on the page; all of it or nothing.

        Raises:
            SSLLabError: it cannot be; the message says why, and nothing is left behind.
        """
        bench = self._bench
        store = bench.store
        if store is None:
            raise SSLLabError("There is no run to go on from.")
        if not bench._host.families:
            raise SSLLabError("A kernel steps one run at a time: a family needs the engine, as in a bench of its own.")
        step = bench._saved_now(store) if bench.timeline.step < 0 else bench.timeline.step
        knobs = store.knobs_after(len(store.events(until=step)))
        if why := idle_knobs(knobs).get(knob):
            raise SSLLabError(f"At this moment the {knob_word(knob)} has no effect: {why}. All would be the same run.")
        if store.status().state == "done" and step >= store.last_step():
            raise SSLLabError("This run is done. Drag the bar to an earlier moment and start the family there.")
        present = getattr(knobs, knob)
        values = family_values(knob, present)
        settings = bench._fork_settings(len(values))
        bench._host.room_for(len(values))
        made: list[RunStore] = []
        try:
            identity = uuid.uuid4().hex
            for place, value in enumerate(values):
                child = store.fork(
                    _name(store.name, knob, value, bench), step, results=bench._host.results, settings=settings
                )
                made.append(child)
                for entry, said in bench._meta().items():
                    child.set_meta(entry, said)
                child.set_meta(FAMILY, Membership(identity, knob, value, place, len(values)).kept())
                if value != present:
                    child.send("set", {knob: value})
                child.send("run")
            bench._host.wake_all(made)
        except BaseException:
            for child in made:
                child.close()
                shutil.rmtree(child.folder, ignore_errors=True)
            raise
        names = [child.name for child in made]
        shown = values.index(present)
        for child in made[:shown] + made[shown + 1 :]:
            child.close()
        bench._complaint, bench._watching = "", False
        bench._attach(made[shown])
        bench._compare([name for name in names if name != names[shown]])
        bench.browser.announce = f"A family of {len(names)} runs along {knob_word(knob)} has begun."

    # ------------------------------------------------------------ while it is on the page

    def arrived(self) -> None:
        """Another run is on the page: if it is of no kin to the one before, the members leave with that one."""
        bench, left = self._bench, self.id
        if left and bench.store is not None and not self.related(bench.store):
            members = {key for key, one in bench._compared.items() if one.family and one.family.id == left}
            bench._compare([key for key in bench._compared if key not in members])
        self.settle()

    def settle(self) -> None:
        """Gives the members on the page their looks, and lets go of those that have left it."""
        bench = self._bench
        reader, family = bench._reader, None
        fellows: dict[str, ViewReader] = {}
        if reader is not None and (family := reader.family) is not None:
            fellows = {key: r for key, r in bench._compared.items() if r.family and r.family.id == family.id}
        together = bool(fellows)
        for one in (reader, *bench._compared.values()):
            if one is not None:
                alike = together and (one is reader or one in fellows.values())
                one.look = family_look(one.family.place, one.family.size) if alike and one.family else None
        self.id = family.id if family is not None and together else ""
        for key in [key for key in self._hands if key not in fellows]:
            hand = self._hands.pop(key)
            with contextlib.suppress(SSLLabError, sqlite3.Error):
                # The engine has better to do than stepping what nobody looks at.
                status = hand.status()
                live = status.state in LIVE_STATES and status.owner != "train"
                if key != bench.shown and live and bench.owners.minds(keeper_of(hand)):
                    hand.send("pause")
            hand.close()
        for key in fellows:
            if key not in self._hands and ":" not in key and not bench._why_not:
                with contextlib.suppress(SSLLabError, sqlite3.Error):
                    hand = open_run(key, bench._host.results)
                    if hand.readonly or not bench.owners.may_steer(keeper_of(hand)):
                        hand.close()
                        continue
                    self._hands[key] = hand
        if self._hands:
            self.look()

    def settled(self, readers: Mapping[str, ViewReader]) -> dict[str, ViewReader]:
        """Of runs to be drawn with the shown one: all of its family, and so many others; the rest is closed."""
        kept = self._bench._compared = self._fitting(readers)
        self.settle()
        return kept

    def _fitting(self, readers: Mapping[str, ViewReader]) -> dict[str, ViewReader]:
        reader = self._bench._reader
        own = reader.family.id if reader is not None and reader.family is not None else None
        kept: dict[str, ViewReader] = {}
        others = 0
        for key, one in readers.items():
            member = own is not None and one.family is not None and one.family.id == own
            others += not member
            if member or others <= len(OTHERS):
                kept[key] = one
            else:
                one.store.close()
        return kept

    def related(self, store: RunStore) -> bool:
        """Whether a run is of the family on the page."""
        found = membership(store.meta(FAMILY))
        return bool(self.id) and found is not None and found.id == self.id

    def colours(self) -> dict[str, str]:
        """In which colour each run on the page is drawn, by what the shelf calls it."""
        reader, free = self._bench._reader, iter(OTHERS)
        shown = (reader.look if reader is not None else None) or SHOWN
        others = {key: (one.look or next(free, OTHERS[-1])).colour for key, one in self._bench._compared.items()}
        return {self._bench.shown: shown.colour, **others}

    def tell(self, kind: str, payload: Mapping[str, Any]) -> tuple[bool, str]:
        """Has the other members do what the run on the page is told.

        Returns:
            Whether there was one that could, and why some were passed over; empty if none was.
        """
        if kind not in TOGETHER:
            return False, ""
        waking, told, jam = [], False, ""
        for hand in self._hands.values():
            if hand.vanished() or hand.status().state == "done":
                continue
            if why := self._bench._jam(hand):
                jam = why
                continue
            if kind != "pause" and not hand.driven():
                waking.append(hand)
            hand.send(kind, payload)  # type: ignore[arg-type]
            told = True
        if waking:
            self._bench._host.wake_all(waking)
        return told, jam

    def stand(self, keeper: str | None) -> None:
        """Has those of the other members pause that run and are kept by somebody."""
        for hand in self._hands.values():
            with contextlib.suppress(sqlite3.Error, SSLLabError):
                if not hand.vanished() and keeper_of(hand) == keeper and hand.status().state == "running":
                    hand.send("pause")

    def look(self) -> None:
        """Says in the other members' files that somebody looks, which keeps them going."""
        for hand in self._hands.values():
            with contextlib.suppress(sqlite3.Error, SSLLabError):
                if not hand.vanished():
                    hand.touch_viewer()

    def show(self, view: RunView) -> None:
        """The line over the pictures: which family it is, and what acts on all of it."""
        state = Changes(self.widget.layout)
        members = view.members
        if len(members) < 2 or view.family is None:
            state.set("display", "none")
            return
        origin = self._bench.store.parent if self._bench.store is not None else None
        where = f" from {html.escape(origin.name)} at step {origin.step:,}" if origin else ""
        words = f"<b>A family of {len(members)} along {html.escape(knob_word(view.family.knob))}</b>{where}."
        if self._hands:
            words += " Run, Pause, Step and Speed act on all of them; a knob turns only in the run on the page."
        Changes(self._words).set("value", words)
        state.set("display", "")

    def close(self) -> None:
        """Pauses all members and goes back to the run that they grew from."""
        bench = self._bench
        store = bench.store
        if store is None or not self.id:
            return
        origin = store.parent
        if not bench._why_not and store.status().state == "running":
            store.send("pause")
        _, bench._complaint = self.tell("pause", {})
        parent = next((e for e in bench.catalogue.entries() if origin and e.run.id == origin.id), None)
        bench._compare([])
        if parent is not None and origin is not None:
            bench._show_entry(parent.key)
            bench.timeline.step = origin.step
        elif origin is not None:
            bench._complaint = (
                f"The members are paused. {origin.name}, from which they grew, is not among the runs here, so that "
                f"{bench.shown} stays on the page."
            )

    def open(self, identity: str) -> None:
        """Puts all of a family on the page; the member that is shown stays."""
        bench = self._bench
        found = self._entries(identity)
        if not found:
            raise SSLLabError("There is no such family any more.")
        keys = [entry.key for entry in found]
        if bench.shown not in keys:
            bench._show_entry(keys[0])
        bench._compare([key for key in keys if key != bench.shown])

    def delete(self, identity: str) -> None:
        """Lets all members go for good; the page has asked twice."""
        bench = self._bench
        if bench._watching:
            raise SSLLabError("This page only watches, so that it deletes nothing.")
        found = self._entries(identity)
        for entry in found:
            if not bench.owners.may_steer(entry.keeper):
                raise SSLLabError(f"The run {entry.key} is somebody else's, so that you cannot delete its family.")
        if identity == self.id:
            self.close()
        if any(entry.key == bench.shown for entry in found):
            raise SSLLabError(f"{bench.shown} is the run on the page: open another one first, then delete its family.")
        bench._compare([key for key in bench._compared if key not in {entry.key for entry in found}])
        delete_runs([entry.key for entry in found], bench._host.results, bench.owners)
        bench._complaint, bench._shelf_due, bench._weigh_due = "", 0.0, 0.0
        bench.browser.announce = f"The family of {len(found)} runs is deleted."

    def _entries(self, identity: str) -> list[Any]:
        found = [e for e in self._bench.catalogue.entries() if e.family is not None and e.family.id == identity]
        return sorted((e for e in found if not e.recording), key=lambda entry: entry.family.place)

    def end(self) -> None:
        """Frees the widgets and lets go of the files."""
        for hand in self._hands.values():
            hand.close()
        self._hands = {}
        for part in (self._words, self.close_button, self.widget):
            part.close()


def _name(parent: str, knob: str, value: Any, bench: Bench) -> str:
    """What a member is called: byol-ema-0.99, with a number if there is such a run already."""
    stem = re.sub(r"(-fork)?-\d+$", "", parent)[:50]
    word = ("on" if value else "off") if isinstance(value, bool) else value if isinstance(value, str) else f"{value:g}"
    name = f"{stem}-{knob.replace('_', '-')}-{word}"
    return free_name(name, bench._host.results) if (bench._host.results / name).exists() else name
