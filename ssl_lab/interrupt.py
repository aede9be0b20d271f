"""Ctrl-C as a request to stop at the next step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interruptible:
    """Turns the first Ctrl-C into a request to stop at the next step; a second one is a Ctrl-C.

    SIGTERM and a terminal that is closed count as one; what ``nohup`` has told the process to ignore does not.

    ``with Interruptible() as stop:`` gives the event that is set; outside the main thread nothing is caught.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> threading.Event:
        if threading.current_thread() is threading.main_thread():
            for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self._stop

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
