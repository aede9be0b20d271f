"""``Theory``: the linear theory as an instrument. Sliders on the left, the flow on the right, a lesson beneath.

    from lab import Theory
    Theory()

This kernel integrates the modes itself: no run, no engine, no torch.
"""

from __future__ import annotations

import html
import queue
import time
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from lab.browser import Browser
from lab.controls import guarded
from lab.doors import close_doors, is_whole, parts
from lab.house import House
from lab.locks import lock_kernel
from lab.panels.base import MARK, NOW
from lab.publisher import Publisher
from lab.style import CSS
from lab.theory.bets import Bets
from lab.theory.board import SPEEDS, Board
from lab.theory.flow import RANGES, SWITCHES, Flow, Settings
from lab.theory.lesson import Lesson
from lab.theory.pictures import Eigenvalues, Gains, Picture, Plane, Targets
from lab.theory.words import going_on, idle, reasons
from lab.words import READING, Changes

FRAME = 0.07
"""Least seconds from picture to picture while something moves."""

CLASS_FRAME = 0.2
"""The same in a class, whose pages share the cores; what somebody turns is drawn at once in any case."""

STILL_FRAME = 0.25
"""The same while nothing moves."""

LONGEST_FRAME = 0.25
"""Most seconds that a picture moves the flow by: a page that was hidden goes on where it was."""

STEP = 5.0
"""Units of time of a step by hand."""

ACTIONS_A_ROUND = 5
"""What is done of it before the next picture: one may follow every mode for a while."""

MOST_ACTIONS = 100
"""What was pressed and waits to be done; anything more is passed over."""

SETTLED = 0.3
"""Seconds without a turn after which what takes long to find is looked for."""

SAID_AGAIN = 0.3
"""Least seconds between two changes of the words that count along."""

_CSS = """
.ssl-theory .ssl-body { grid-template-rows: none;
  grid-template-columns: minmax(280px, 340px) minmax(0, 1.2fr) minmax(0, 1fr);
  grid-template-areas: "top top top" "board plane times"; gap: 8px 18px; }
.ssl-theory .ssl-top { grid-area: top; width: 100%; }
.ssl-theory .ssl-at-board { grid-area: board; width: 100%; min-width: 0; overflow: visible; }
.ssl-theory .ssl-at-plane { grid-area: plane; width: 100%; position: sticky; top: 4px; }
.ssl-theory .ssl-at-times { grid-area: times; width: 100%; display: flex; flex-direction: column; gap: 10px; }
.ssl-theory .ssl-at-lesson { width: 100%; margin-top: 10px; }
.ssl-theory .ssl-legend { font-size: 13px; }
.ssl-theory .ssl-words .widget-html-content { min-height: 1.35em; }
.ssl-theory .ssl-key { font-weight: 400; }
@container (max-width: 1080px) {
  .ssl-theory .ssl-body { grid-template-columns: minmax(260px, 320px) minmax(0, 1fr);
    grid-template-areas: "top top" "board plane" "times times"; }
  .ssl-theory .ssl-at-times { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); }
}
@container (max-width: 640px) {
  .ssl-theory .ssl-body { display: flex; flex-direction: column; align-items: stretch; }
  .ssl-theory .ssl-at-plane { order: 1; position: sticky; top: 0; z-index: 20; }
  .ssl-theory .ssl-at-plane .bqplot { height: 280px !important; }
  .ssl-theory .ssl-at-plane .ssl-panel-note { display: none; }
  .ssl-theory .ssl-words .widget-html-content { min-height: 4.05em; }
  .ssl-theory .ssl-at-board { order: 2; }
  /* What has the focus is not to lie under the plane, which stays in sight. */
  .ssl-theory .ssl-at-board :is(input, button, select) { scroll-margin-top: 350px; }
  .ssl-theory .ssl-at-times { order: 3; }
}
"""


class Theory:
    """The flow of the linear theory, live; display it as the last line of a cell.

    Args:
        settings: what the page begins with.
        clock: seconds.
    """

    def __init__(self, settings: Settings | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        lock_kernel()
        self._clock = clock
        self._house = House.here()
        self.flow = Flow(settings)
        self.lesson = Lesson()
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.playing = True
        self._moved = self._drawn_at = self._turned_at = clock()
        self._stale = True
        self._shown: tuple[Any, ...] = ()
        self._said_at = self._read_at = float("-inf")
        self._read = ""

        self.browser = Browser()
        at = self.flow.settings
        self.board = Board(
            values={name: getattr(at, name) for name in RANGES},
            switches={name: getattr(at, name) for name in SWITCHES},
            why=reasons(at),
            idle=idle(at),
        )
        self.bets = Bets(questions=self.lesson.state())
        self.plane, self.gains, self.eigenvalues, self.targets = Plane(), Gains(), Eigenvalues(), Targets()
        self.pictures: tuple[Picture, ...] = (self.plane, self.gains, self.eigenvalues, self.targets)
        self.headline, self.words = w.HTML(), w.HTML()
        self.headline.add_class("ssl-headline")
        self.words.add_class("ssl-words")
        self.legend = w.HTML(_LEGEND)
        self.legend.add_class("ssl-legend")
        # The first picture is in the page when it opens.
        self._draw()
        self._build()
        close_doors(parts(self.widget))
        # Around the doors, which put themselves in the place of what takes a page's words in.
        self._lock = guarded(self.board)
        self.publisher = Publisher(self.browser, self._tick, tick_pause=self._pause, served=self._house.served)
        self.board.observe(lambda _: self.publisher.poke(), names=["values", "switches", "speed", "zoom"])
        self.board.on_msg(self._on_board)
        self.bets.on_msg(self._on_bets)
        self.browser.on_msg(self._on_key)
        self.publisher.start()

    def _build(self) -> None:
        top = w.VBox([self.headline, self.words, self.legend])
        boxes = {"top": top, "at-board": w.VBox([self.board]), "at-plane": w.VBox([self.plane.widget]),
                 "at-times": w.VBox([picture.widget for picture in self.pictures[1:]])}  # fmt: skip
        for name, box in boxes.items():
            box.add_class(f"ssl-{name}")
        self.plane.note.add_class("ssl-panel-note")
        body = w.GridBox(list(boxes.values()))
        body.add_class("ssl-body")
        lesson = w.VBox([self.bets])
        lesson.add_class("ssl-at-lesson")
        self.widget = w.VBox([w.HTML(f"<style>{CSS}{_CSS}</style>"), self.browser, body, lesson])
        self.widget.add_class("ssl-bench")
        self.widget.add_class("ssl-theory")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------ what a person does: leaves word, no more

    def _ask(self, action: Callable[[], None]) -> None:
        if self._actions.qsize() < MOST_ACTIONS:
            self._actions.put(action)
            self.publisher.poke()

    def _on_board(self, _board: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict):
            self._do(content.get("do"))

    def _on_key(self, _browser: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if is_whole(number := content.get("ping")):
            # The page wants to know whether this kernel lives; nothing waits for the publisher.
            self.browser.send({"pong": number})
        else:
            self._do({"run_pause": "toggle", "step": "step"}.get(str(content.get("key"))))

    def _do(self, what: Any) -> None:
        actions = {
            "play": lambda: self._play(True),
            "pause": lambda: self._play(False),
            "toggle": lambda: self._play(not self.playing),
            "step": self._step,
            "restart": self._restart,
        }
        if isinstance(what, str) and what in actions:
            self._ask(actions[what])

    def _on_bets(self, _bets: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        question, choice = content.get("question"), content.get("choice")
        if not is_whole(question, 0):
            return
        if content.get("do") == "bet" and is_whole(choice, 0):
            self._ask(lambda: self._bet(question, choice))
        elif content.get("do") == "show":
            self._ask(lambda: self._show_me(question))

    # ------------------------------------------------------------ the publisher's thread

    def _play(self, playing: bool) -> None:
        self.playing = playing

    def _step(self) -> None:
        self.playing = False
        self.flow.advance(STEP)

    def _restart(self) -> None:
        self.flow.restart()
        self.playing = self._stale = True

    def _bet(self, question: int, choice: int) -> None:
        self.lesson.bet(question, choice)
        self._said_at = float("-inf")

    def _show_me(self, question: int) -> None:
        if not self.lesson.show(question, self.flow):
            return
        self._said_at = float("-inf")
        self.playing = self._stale = True
        at = self.flow.settings
        with self._lock:
            state = Changes(self.board)
            state.set("values", {name: getattr(at, name) for name in RANGES})
            state.set("switches", {name: getattr(at, name) for name in SWITCHES})
            if self.lesson.questions[question].fast:
                state.set("speed", SPEEDS[-1][1])

    def _turn(self) -> None:
        """Takes over what the sliders and the switches say now."""
        with self._lock:
            asked = {**self.board.values, **self.board.switches}
        if self.flow.turn(asked):
            self._stale = True
        if self.plane.close_up != self.board.zoom:
            self.plane.close_up, self._stale = self.board.zoom, True

    @property
    def moving(self) -> bool:
        """Whether time goes by."""
        return self.playing and not self.flow.resting

    def _pause(self) -> float:
        if not self.moving:
            return STILL_FRAME
        return CLASS_FRAME if self._house.own_only else FRAME

    def _tick(self, draw: bool) -> bool:
        now = self._clock()
        if self.browser.query is None:
            # A kernel that is kept ready waits for its page with the flow at its start.
            self._moved = now
            return False
        if not draw and not self.publisher.looking:
            # Nobody looks: time stands still, and this kernel is at rest, so that it is culled once its page is gone.
            self._moved, self.publisher.soon = now, None
            return False
        if not draw:
            # A flow that moves is worth a picture as much as a turn: the browser's answers alone bound it.
            due = self._drawn_at + self._pause() - now
            if self.moving and due <= 0:
                self.publisher.poke()
            self.publisher.soon = max(due, 0.02) if self.moving else None
            return False
        # Turns first: where an action asks for the settings, it asks for those of the page.
        self._turn()
        for _ in range(ACTIONS_A_ROUND):
            if self._actions.empty():
                break
            self._actions.get()()
        if self.moving:
            self.flow.advance(min(now - self._moved, LONGEST_FRAME) * self.board.speed)
        self._moved = self._drawn_at = now
        self.lesson.look(self.flow)
        drawn = self._draw()
        self.publisher.soon = self._pause() if self.moving else None
        return drawn

    def _draw(self) -> bool:
        """Draws what has changed; whether anything had."""
        self._speak()
        state = (self.flow.time, self.flow.settings, self.playing, self.moving)
        if self.plane.edge_wanted and not self._stale and self._clock() - self._turned_at > SETTLED:
            self.plane.draw_edge(self.flow)
        elif state == self._shown and not self._stale:
            return False
        self._shown = state
        if self._stale:
            self._stale, self._turned_at = False, self._clock()
            for picture in self.pictures:
                picture.turn(self.flow)
        for picture in self.pictures:
            picture.move(self.flow)
        return True

    def _speak(self) -> None:
        now, at = self._clock(), self.flow.settings
        board = Changes(self.board)
        board.set("playing", self.playing)
        if self._stale:
            board.set("why", reasons(at))
            board.set("idle", idle(at))
        words = going_on(self.flow)
        Changes(self.words).set("value", html.escape(words))
        if now - self._said_at > SAID_AGAIN:
            self._said_at = now
            state = "at rest" if self.flow.resting else "moving" if self.playing else "paused"
            kind = "running" if state == "moving" else "paused"
            Changes(self.headline).set(
                "value",
                f"<span class='ssl-state ssl-{kind}'>{state}</span> "
                f"time <b data-time='{self.flow.time:.1f}'>{self.flow.time:.0f}</b>",
            )
            Changes(self.bets).set("questions", self.lesson.state())
        if words != self._read and now - self._read_at > READING:
            self._read, self._read_at = words, now
            self.browser.announce = words

    def close(self) -> None:
        """Stops publishing and frees the widgets."""
        self.publisher.stop()
        self.browser.unobserve_all()
        self.board.unobserve_all()
        for picture in self.pictures:
            picture.close()
        for part in (self.board, self.bets, self.headline, self.words, self.legend, self.browser, self.widget):
            part.close()


def _key(picture: str, words: str) -> str:
    return f"<span class='ssl-key'><svg width='16' height='14' aria-hidden='true'>{picture}</svg> {words}</span>"


_LEGEND = _key(f"<circle cx='8' cy='7' r='5' fill='{NOW}'/>", "a mode that learns") + _key(
    f"<path d='M2 3h12l-6 9z' fill='{MARK}'/>", "a mode that dies"
)
