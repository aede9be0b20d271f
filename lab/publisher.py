"""The one thread that writes display widgets, a few times a second, the latest picture winning."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from lab.browser import Browser
from lab.pace import TICK, Pace

log = logging.getLogger(__name__)

GONE = 90.0
"""Seconds without a heartbeat after which nobody is there: some browsers slow a hidden tab to a beat a minute."""

SILENT = 20.0
"""The same for a tab in front, which beats every two seconds: a laptop was closed, or its network is gone."""

UNSEEN = 1.0
"""Seconds between rounds while nobody looks."""

SAY_HERE = 2.0
"""Seconds between calls of ``present``."""


class _Page(Protocol):
    def __call__(self, draw: bool) -> bool: ...


class Publisher:
    """Calls ``tick(draw)`` until stopped.

    Voila never culls a kernel that keeps sending, and a browser piles up what a hidden tab is sent: so nothing is
    written while the tab is hidden, or when the browser has not been heard of for a while. Else a picture goes out
    when :class:`~lab.pace.Pace` says so; the last message of it may be its number, which the page answers with.

    Args:
        browser: the page's eyes.
        tick: does what was asked and, if it is to draw, writes what changed; says whether there was a new picture.
        present: called about every two seconds while a page is there, hidden or not.
        clock: seconds.
        tick_pause: least seconds from picture to picture, or what says them.
        served: whether pages come and go by our own server. Else a page that was never heard of may be a notebook's
            cell, and one that is silent may have its kernel busy with another cell.
    """

    def __init__(
        self,
        browser: Browser,
        tick: _Page,
        present: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        tick_pause: float | Callable[[], float] = TICK,
        served: bool = False,
    ) -> None:
        self._browser, self._tick, self._present, self._clock = browser, tick, present, clock
        self.soon: float | None = None
        """Seconds until the next round, where the tick wants it sooner than the next picture is due."""
        self._pace = Pace(clock, tick_pause)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._asked = False
        self._looking = False
        self._said = float("-inf")
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._heard = clock()
        self._served = self._ever = served
        self._browser.observe(self._on_alive, names=["alive", "query"])
        self._browser.observe(lambda _: self.poke(), names="visible")
        self._browser.observe(self._on_painted, names="painted")

    def _on_alive(self, _change: object) -> None:
        here, self._heard, self._ever = self.here(), self._clock(), True
        if not here:
            self.poke()

    def _on_painted(self, change: Any) -> None:
        self._pace.answered(change["new"])
        self._wake.set()

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def poke(self) -> None:
        """Draws at once: somebody did something and waits for the picture. Costs nothing in a callback."""
        self._asked = True
        self._wake.set()

    def wake(self) -> None:
        """Has a round at once, and the next picture when it is due."""
        self._wake.set()

    def stop(self) -> None:
        """Ends after the tick under way."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=10.0)

    def here(self) -> bool:
        """Whether a page is there, in front or hidden."""
        patience = SILENT if self._served and self._browser.visible else GONE
        return not self._ever or self._clock() - self._heard < patience

    @property
    def looking(self) -> bool:
        """Whether somebody looks at the page: it is there, and in front."""
        return self._looking

    def round(self) -> float:
        """Ticks, with a picture if one is due; gives the seconds until the next round."""
        begun = self._clock()
        here = self.here()
        looking = here and bool(self._browser.visible)
        if looking and not self._looking:
            self._pace.back()
        self._looking = looking
        draw = looking and self._pace.wait(self._asked) <= 0
        if draw:
            # Before the tick: what is asked for meanwhile may come too late for this picture.
            self._asked = False
        drawn = self._tick(draw)
        if draw:
            self._pace.took(begun)
            if drawn and (number := self._pace.sent()) is not None:
                self._browser.picture = number
        if here and self._present is not None and begun - self._said >= SAY_HERE:
            self._said = begun
            self._present()
        rest = self._pace.wait(self._asked) if looking else UNSEEN
        return rest if self.soon is None else min(rest, self.soon)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                rest = self.round()
            except Exception:
                # A picture that fails must not end all pictures; what is wrong stands in the kernel's log.
                log.exception("A picture could not be drawn")
                self._stop.wait(1.0)
                rest = 0.0
            self._wake.wait(rest)
            self._wake.clear()
