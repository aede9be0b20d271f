"""The one thread that writes display widgets, a few times a second, the latest picture winning."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from lab.browser import Browser

log = logging.getLogger(__name__)

TICK = 0.18
"""Seconds between two pictures."""

BUSY_SHARE = 0.25
"""Most of the time that drawing may take of this thread: on a slow machine the pictures come slower."""

GONE = 90.0
"""Seconds without a heartbeat of the browser after which nobody is there: some slow a hidden tab to a beat a minute."""


class _Page(Protocol):
    def __call__(self, visible: bool) -> None: ...


class Publisher:
    """Calls ``tick(visible)`` until stopped.

    Voila never culls a kernel that keeps sending, and a browser piles up what a hidden tab is sent: so nothing is
    written while the tab is hidden, or when the browser has not been heard of for a while.

    Args:
        browser: the page's eyes.
        tick: does what was asked and writes what changed; told whether a page is looking.
        present: called about every two seconds while a page is there, hidden or not.
    """

    def __init__(self, browser: Browser, tick: _Page, present: Callable[[], None] | None = None) -> None:
        self._browser, self._tick = browser, tick
        self._present = present
        self.soon: float | None = None
        """Seconds until the next round, where the tick wants it sooner than the next picture is due."""
        self._stop = threading.Event()
        self._poked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._heard = time.monotonic()
        self._ever = False
        self._browser.observe(self._on_alive, names="alive")

    def _on_alive(self, _change: object) -> None:
        self._heard, self._ever = time.monotonic(), True

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def poke(self) -> None:
        """Draws at once: somebody did something and waits for the picture. Costs nothing in a callback."""
        self._poked.set()

    def stop(self) -> None:
        """Ends after the tick under way."""
        self._stop.set()
        self._poked.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=10.0)

    def here(self) -> bool:
        """Whether a page is there; a bench that no browser ever showed counts as watched by its notebook."""
        return not self._ever or time.monotonic() - self._heard < GONE

    def _run(self) -> None:
        said = 0.0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                here = self.here()
                self._tick(here and bool(self._browser.visible))
                if here and self._present is not None and begun - said >= 2.0:
                    said = begun
                    self._present()
            except Exception:
                # A picture that fails must not end all pictures; what is wrong stands in the kernel's log.
                log.exception("A picture could not be drawn")
                self._stop.wait(1.0)
            cost = time.monotonic() - begun
            # A person who drags gets pictures as fast as half of the time allows, and always the latest.
            self._stop.wait(min(cost, TICK))
            rest = max(TICK - cost, cost * (1 / BUSY_SHARE - 1)) - min(cost, TICK)
            self._poked.wait(max(rest, 0.0) if self.soon is None else min(max(rest, 0.0), self.soon))
            self._poked.clear()
