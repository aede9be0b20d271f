"""``Pacer``: the members of a family step side by side in one process, none far ahead and none left behind.

Nobody waits for one that is far behind, such as after a long pause, or that was told to go slower than the others.

Threads that step whenever they can wait for one another's Python lock in no fair order. Here each asks for a turn
before a step, and the member that has come least far gets the next one. What a turn costs is one wake of one thread,
and what a run computes does not depend on when it computes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

LEAD = (4, 24)
"""Fewest and most steps that a member may be ahead of the last one; in between it is :data:`LEAD_SHARE` of the way."""

LEAD_SHARE = 0.05
"""Share of what the last member has done since the family began by which another may be ahead of it."""

CATCH_UP = 200
"""Most steps that a member may be behind the first one for the others to wait until it has caught up."""

PATIENCE = 4.0
"""Seconds for which the others wait for a member that does not ask for a turn: its disk may be slow, its turn long."""

WAKING = 10.0
"""Seconds for which the others wait for a member that is being woken, so that all set out together."""

AT_ONCE = 1
"""Members that step at the same time. A step of a small network is made by one thread that holds Python's lock for
much of it: two at a time make hardly more steps than one, see ``benchmarks/family.py``."""


@dataclass
class _Member:
    step: int
    seen: float
    """When it was last heard of."""
    woken: threading.Condition
    speed: float = inf
    """Most steps a second that it was told to make."""
    waits: bool = False
    granted: bool = False


@dataclass
class Pacer:
    """Gives turns to the members of one family.

    Args:
        begun: steps done where the family began.
        at_once: members that step at the same time.
    """

    begun: int = 0
    at_once: int = AT_ONCE
    patience: float = PATIENCE
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _members: dict[str, _Member] = field(default_factory=dict)

    def expect(self, name: str, step: int) -> None:
        """The member is being woken, and stands at this step."""
        with self._lock:
            seen = time.monotonic() + WAKING - self.patience
            self._members.setdefault(name, _Member(step, seen, threading.Condition(self._lock)))

    def take(self, name: str, step: int, patience: float, speed: float = inf) -> bool:
        """Waits for a turn; False if none came within ``patience`` seconds, so that the run can look around meanwhile.

        Args:
            name: of the member; it is one of those that step from now on until it leaves.
            step: steps that it has done.
            patience: seconds to wait.
            speed: most steps a second that it was told to make.
        """
        with self._lock:
            member = self._members.get(name)
            if member is None:
                member = self._members[name] = _Member(step, 0.0, threading.Condition(self._lock))
            member.step, member.speed, member.seen, member.waits = step, speed, time.monotonic(), True
            self._pass_on()
            until = time.monotonic() + patience
            while not member.granted and (rest := until - time.monotonic()) > 0:
                member.woken.wait(rest)
            member.waits = False
            return member.granted

    def give(self, name: str, step: int) -> None:
        """The member has made its step, or has not: its turn is over."""
        with self._lock:
            if (member := self._members.get(name)) is not None:
                member.step, member.seen, member.granted = step, time.monotonic(), False
            self._pass_on()

    def leave(self, name: str) -> None:
        """The member stands, and is not waited for."""
        with self._lock:
            self._members.pop(name, None)
            self._pass_on()

    def members(self) -> dict[str, int]:
        """Those that step, with the steps that each has done."""
        with self._lock:
            return {name: member.step for name, member in self._members.items()}

    def _pass_on(self) -> None:
        """Wakes those whose turn it is: of those that wait, the one that has come least far."""
        now = time.monotonic()
        heard = [m for m in self._members.values() if now - m.seen <= self.patience or m.waits]
        busy = sum(member.granted for member in heard)
        last = min(_waited_for(heard), default=0)
        lead = min(max(LEAD[0], int(LEAD_SHARE * (last - self.begun))), LEAD[1])
        waiting = sorted((m for m in heard if m.waits and not m.granted), key=lambda member: member.step)
        for member in waiting[: max(0, self.at_once - busy)]:
            if member.step - last <= lead:
                member.granted = True
                member.woken.notify()


def _waited_for(members: Sequence[_Member]) -> list[int]:
    """Steps of those that the others wait for: of none that was told to go slower, or would be long in catching up."""
    fastest = max((member.speed for member in members), default=inf)
    steps = [member.step for member in members if member.speed >= fastest]
    return [step for step in steps if max(steps) - step <= CATCH_UP]


@dataclass(frozen=True)
class Turns:
    """A member's own side of its family's pacer."""

    pacer: Pacer
    name: str

    def take(self, step: int, patience: float, speed: float = inf) -> bool:
        """See :meth:`Pacer.take`."""
        return self.pacer.take(self.name, step, patience, speed)

    def give(self, step: int) -> None:
        """See :meth:`Pacer.give`."""
        self.pacer.give(self.name, step)

    def leave(self) -> None:
        """See :meth:`Pacer.leave`."""
        self.pacer.leave(self.name)
