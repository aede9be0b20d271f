"""When the next picture is due: as often as the browser paints them, and no oftener than it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable

from ssl_lab.cores import usable_cores

TICK = 0.18
"""Least seconds from picture to picture."""

FRUGAL_TICK = 0.4
"""Least seconds from picture to picture where there are few cores: each picture takes 30 ms of a core, which engine,
kernel and often the browser share. What somebody asks for comes at once in any case."""

PICTURE_COST = 0.04
"""Seconds of a core that a picture takes in its kernel and in the server."""

PICTURE_SHARE = 0.5
"""Most of all cores that the pictures of all pages may take together: the rest is for the steps."""

SLOWEST = 2.0
"""Most seconds from picture to picture, however slow the browser; also how long one that is silent is waited for."""

BUSY_SHARE = 0.25
"""Most of the time that drawing may take of the kernel's thread."""

BROWSER_SHARE = 0.5
"""Most of the time that a picture may take from its last message to its paint: the rest is for the person's hands."""

AHEAD = 2
"""Most pictures without their answer when somebody asks for one more; else there is one."""

ASK_AGAIN = 0.5
"""Seconds between questions to a page that is quick: an answer costs the kernel and the server as much as a third of a
picture. One that is not quick is asked after each picture."""

QUICK = TICK / 2
"""Seconds within which a quick page answers."""


def tick_here(pages: int = 1) -> float:
    """Least seconds from picture to picture on this machine, where so many pages are open."""
    cores = usable_cores()
    least = TICK if cores > 2 else FRUGAL_TICK
    return min(max(least, pages * PICTURE_COST / (PICTURE_SHARE * cores)), SLOWEST)


class Pace:
    """Numbers pictures, hears when the browser has painted them, and says how long to wait with the next one.

    A slow phone or a slowed down tab takes in messages more slowly than a kernel sends them, and no queue on the way
    says so: only the page can. Until it has answered once nobody is waited for, as in a notebook without a display.

    Only :meth:`answered` may be called from another thread.

    Args:
        clock: seconds.
        tick: least seconds from picture to picture, or what says them: other pages come and go.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, tick: float | Callable[[], float] = TICK) -> None:
        self._clock, self._least = clock, tick
        self._number = 0
        self._underway: list[tuple[int, float]] = []
        self._note: tuple[int, float] | None = None
        self._answers = False
        self._delay = 0.0
        self._asked_last = float("-inf")
        self._begun = self._ended = float("-inf")

    def answered(self, number: int) -> None:
        """The page has painted this picture, and so all before it."""
        self._note = number, self._clock()

    def back(self) -> None:
        """A page looks again: what it was sent before it went says nothing of it."""
        self._underway, self._delay, self._asked_last = [], 0.0, float("-inf")

    def took(self, begun: float) -> None:
        """A look for news that began at this time is over, whether there were any or not."""
        self._begun, self._ended = begun, self._clock()

    def sent(self) -> int | None:
        """A picture is on its way; gives its number if the page is to answer it."""
        now = self._clock()
        if self._delay <= QUICK and not self._underway and now < self._asked_last + ASK_AGAIN:
            return None
        self._asked_last = now
        self._number += 1
        self._underway = [*self._underway, (self._number, now)][-AHEAD:]
        return self._number

    @property
    def _tick(self) -> float:
        return self._least if isinstance(self._least, (int, float)) else self._least()

    def wait(self, asked: bool) -> float:
        """Seconds until the next picture; 0 if it is due.

        Args:
            asked: a person did something and waits for it.
        """
        self._read_note()
        cost = max(self._ended - self._begun, 0.0) if self._ended > float("-inf") else 0.0
        if asked:
            # A person who drags gets pictures as fast as half of the time allows, and always the latest.
            due = self._ended + min(cost, self._tick)
        else:
            due = self._begun + min(max(self._tick, cost / BUSY_SHARE, self._delay / BROWSER_SHARE), SLOWEST)
        most = AHEAD if asked else 1
        if self._answers and len(self._underway) >= most:
            patience = self._underway[-most][1] + SLOWEST
            if self._clock() >= patience:
                self._delay = SLOWEST
            due = max(due, patience)
        return max(due - self._clock(), 0.0)

    def _read_note(self) -> None:
        note, self._note = self._note, None
        if note is None:
            return
        number, when = note
        self._answers = True
        for sent, time_sent in self._underway:
            if sent == number:
                self._delay = (self._delay + max(when - time_sent, 0.0)) / 2
        self._underway = [(sent, time_sent) for sent, time_sent in self._underway if sent > number]
