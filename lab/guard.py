"""``Guard``: how much the pages of one kernel may say, however many sockets they open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.messages import Refused, admit

MOST_SOCKETS = 4
"""A page has one; while it comes back from sleep it may have two."""

MOST_COMMS = 32
"""Comms that pages have opened and not closed; a page that is well has one, for a moment."""

MOST_REFUSED = 200
"""Refused messages after which a socket is closed. A page of ours sends none."""

MESSAGES = (200.0, 1_000.0)
"""Messages a second, and at once. What a person drags sends its next message when the kernel has answered the last."""

BYTES = (16.0 * 1024 * 1024, 32.0 * 1024 * 1024)
"""Bytes a second, and at once: what comes faster waits in the network, so that a kernel that is busy piles up no more
than this."""

ALL_STATES = (0.5, 6.0)
"""Requests for the state of all widgets a second, and at once: each answer is large. A page asks once."""


class Bucket:
    """Gives so much a second, and so much at once after a rest."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        self._left, self._seen = most, clock()

    def take(self, amount: float) -> float:
        """Takes it; gives the seconds after which it was there to be taken."""
        self._fill()
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def spare(self, amount: float) -> bool:
        """Takes it if it is there."""
        self._fill()
        if self._left < amount:
            return False
        self._left -= amount
        return True

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._most, self._left + max(0.0, now - self._seen) * self._rate)
        self._seen = now


@dataclass(frozen=True)
class Heard:
    """What is to be done with a frame."""

    message: dict[str, Any] | None
    """What goes on to the kernel; None if nothing does."""
    why_not: str
    """Why it does not."""
    wait: float
    """Seconds to wait before anything else is read from this socket."""


class Guard:
    """Looks at all that the pages of one kernel send."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages, self._bytes = Bucket(*MESSAGES, clock), Bucket(*BYTES, clock)
        self._states = Bucket(*ALL_STATES, clock)
        self._opened: set[str] = set()
        self.sockets = 0
        """Sockets that are open."""

    def hear(self, frame: str | bytes) -> Heard:
        """Whether and when a frame goes on."""
        wait = max(self._messages.take(1.0), self._bytes.take(len(frame)))
        try:
            message = admit(frame)
            self._count(message["header"]["msg_type"], message["content"])
        except Refused as error:
            return Heard(None, str(error), wait)
        return Heard(message, "", wait)

    def _count(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "comm_open":
            if len(self._opened) >= MOST_COMMS and content["comm_id"] not in self._opened:
                raise Refused(f"{MOST_COMMS} comms are open")
            self._opened.add(content["comm_id"])
        elif kind == "comm_close":
            self._opened.discard(content["comm_id"])
        elif kind == "comm_msg" and content["data"]["method"] == "request_states" and not self._states.spare(1.0):
            raise Refused("the state of all widgets was sent just now")
