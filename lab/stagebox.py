"""``StageBox``: what a page has to do with the stage. An instructor shows a run there; everybody else follows it."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from lab.house import House
from lab.words import Changes
from ssl_lab import stage
from ssl_lab.errors import SSLLabError
from ssl_lab.stage import Audience, OnStage
from ssl_lab.store import RunStore

LOOK = 0.5
"""Seconds between looks at the stage."""

STEERED = "The instructor steers this run. Fork here to go on with one of your own."
WAITING = "Nothing is shown yet. This page follows as soon as the instructor shows a run."
WITHDRAWN = "The instructor has stopped showing this run. You see the last of it: look at any moment, or fork it."


class StageBox:
    """A line of words and the buttons that go with it; shown only where there is something to say or to do.

    Args:
        house: who comes, and where the stage is.
        results: folder of the page's own runs.
        show: called in the page's thread when *Show to the class* is pressed.
        stop: the same for *Stop showing*.
        follow: the same for *Follow*.
    """

    def __init__(
        self,
        house: House,
        results: Path,
        show: Callable[[], object],
        stop: Callable[[], object],
        follow: Callable[[], object],
    ) -> None:
        self.instructor, self.folder, self._results = house.instructor, Path(house.stage), results
        self.audience = Audience(self.folder)
        self.program: OnStage | None = None
        """What is on stage, as it was seen last."""
        self._due = float("-inf")
        self.words = w.HTML()
        self.words.add_class("ssl-stage-words")
        self.show = w.Button(
            description="Show to the class",
            icon="",
            tooltip="Everybody's page can follow this run live; nobody else steers it",
        )
        self.stop = w.Button(description="Stop showing", tooltip="Takes what the class sees down again")
        self.follow = w.Button(
            description="Follow", button_style="primary", tooltip="See the instructor's run live; your own runs stay"
        )
        self.show.on_click(lambda _: show())
        self.stop.on_click(lambda _: stop())
        self.follow.on_click(lambda _: follow())
        self.buttons = w.HBox([self.show, self.stop] if self.instructor else [self.follow])
        self.buttons.add_class("ssl-buttons")
        self.widget = w.VBox([self.words, self.buttons])
        self.widget.add_class("ssl-stage")
        self._visible(self.widget, self.instructor)
        self._visible(self.stop, False)

    def look(self) -> bool:
        """Looks at the stage if it is time to; whether there is something new."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + LOOK
        before, self.program = self.program, self.audience.look()
        return self.program != before

    def poke(self) -> None:
        """Has the next look be a look."""
        self._due = float("-inf")

    # ------------------------------------------------------------ the instructor's side, on the publisher's thread

    def put(self, store: RunStore) -> None:
        """Puts a run on stage."""
        stage.show(store, self.folder)
        self.poke()

    def withdraw(self) -> None:
        """Takes down what is there."""
        stage.withdraw(self._results, self.folder)
        self.poke()

    def tell_instructor(self, store: RunStore | None, own: bool) -> None:
        """Says what the class sees.

        Args:
            store: the run on the page.
            own: whether it is one of the page's own, which can be shown.
        """
        try:
            wanted = stage.wish(self._results)
        except SSLLabError:
            wanted = None
        program = self.program
        words, here = "", False
        if wanted is not None:
            here = store is not None and own and (wanted.run, wanted.id) == (store.name, store.meta("id"))
            if program is None or program.token != wanted.token:
                words = (
                    f"Somebody else shows <b>{html.escape(program.run)}</b>." if program else "The class sees nothing."
                )
                here = False
            elif silent := self.audience.left_alone:
                words = f"The class has had nothing new of <b>{html.escape(wanted.run)}</b> for {lasting(silent)}."
            elif here:
                words = f"The class sees this run, now at step {program.step:,}."
            else:
                words = f"The class sees <b>{html.escape(wanted.run)}</b>, not this run."
        Changes(self.words).set("value", words)
        self._visible(self.words, bool(words))
        self._visible(self.show, not here)
        self._visible(self.stop, wanted is not None)
        show = Changes(self.show)
        show.set("description", "Show this run instead" if words and not here else "Show to the class")
        show.set("disabled", store is None or not own)

    # ------------------------------------------------------------ everybody else's

    def tell_follower(self, following: RunStore | None, waiting: bool) -> None:
        """Says what there is to follow.

        Args:
            following: the instructor's run, if it is on the page.
            waiting: whether the page waits for one.
        """
        program, words = self.program, ""
        if following is not None:
            if program is None:
                words = WITHDRAWN
            elif not self.audience.left_alone:
                words = "You follow the instructor’s run, live."
        elif program is not None:
            words = f"The instructor shows <b>{html.escape(program.run)}</b>, live."
        elif waiting:
            words = WAITING
        Changes(self.words).set("value", words)
        can_follow = program is not None and following is None
        self._visible(self.buttons, can_follow)
        self._visible(self.widget, bool(words))

    @property
    def left(self) -> str:
        """What to say of a run that has not moved for long, whose instructor has gone; empty if there is none."""
        silent = self.audience.left_alone
        if not silent:
            return ""
        return (
            f"The instructor’s run has stood for {lasting(silent)}: nothing new has come of it. What you see is kept: "
            "look at any moment of it, or fork it."
        )

    @staticmethod
    def _visible(widget: w.DOMWidget, visible: bool) -> None:
        display = None if visible else "none"
        if widget.layout.display != display:
            widget.layout.display = display

    def close(self) -> None:
        """Frees the widgets in the browser."""
        for part in (self.show, self.stop, self.follow, self.words, self.buttons, self.widget):
            part.close()


def lasting(seconds: float) -> str:
    """How long, in words.

    >>> lasting(42.3), lasting(200), lasting(8000)
    ('42 s', '3 min', '2 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
