"""Tasks handed to whoever computes, until all are done or somebody asks to stop; no torch.

One loop for both crews: worker processes of this machine (:mod:`~ssl_lab.sweep.local`) and a Ray cluster
(:mod:`~ssl_lab.sweep.on_ray`). What fails is left; what was lost with its process or machine is begun again.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ssl_lab.errors import SSLLabError

STALE = 60.0
"""Seconds after which a file that asks to let go was meant for a process of before."""

LOOK = 0.5
"""Seconds between looks."""


@dataclass(frozen=True)
class Task:
    """Something to compute: a function of a module, which gives "" or why it could not, and what it is called with."""

    name: str
    """Tells it from the others."""
    do: Callable[..., str]
    """Called as ``do(*arguments)`` in another process; it saves and returns soon after the flag's file is there."""
    arguments: tuple[Any, ...]
    """All that can be pickled."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    """Which."""
    why: str = ""
    """Why it could not be had; empty if it could, or was let go on purpose."""
    lost: bool = False
    """Whether its process or machine went, instead of it."""


class Crew(Protocol):
    """Those who compute."""

    with_ray: bool
    """Whether they are a Ray cluster."""
    slots: int | None
    """Tasks at once; None if the others may be handed over too and wait there."""
    pause: float
    """Seconds between looks at how far all is: files of other machines are not to be read all the time."""

    @property
    def machines(self) -> int:
        """That compute now."""

    def hand(self, task: Task) -> None:
        """Has a task computed."""

    def ended(self, seconds: float) -> list[Outcome]:
        """The tasks that ended; waits for one, so long at most."""

    def let_go(self) -> None:
        """Drops the tasks that wait and have not begun; those that have are told by their flag."""

    def trouble(self) -> str:
        """Why nothing moves, in words; empty if there is nothing to say."""

    def close(self) -> None:
        """Ends it; waits for what is under way."""


def outcome_of(name: str, error: BaseException) -> Outcome:
    """Of a task that raised something."""
    return Outcome(name, str(error) if isinstance(error, SSLLabError) else f"{type(error).__name__}: {error}")


def work_off(
    tasks: Sequence[Task],
    crew: Crew,
    *,
    flag: Path,
    asked: Callable[[], bool],
    retries: int,
    on_look: Callable[[], None],
    on_failure: Callable[[str, str], None],
    on_lost: Callable[[str, str], None] | None = None,
) -> None:
    """Has all tasks computed.

    Args:
        tasks: those that are left to do.
        crew: who computes.
        flag: the file that tells tasks under way to save and let go; made when that is asked, or something goes wrong.
        asked: whether all is to be saved and let go.
        retries: how often a task is begun again whose process or machine was lost.
        on_look: called every half second, or as often as the crew bears.
        on_failure: called with the name of a task that cannot be had and why; the others go on.
        on_lost: called with the name of a task that is begun again and why.
    """
    waiting, lost = list(tasks), Counter[str]()
    running: dict[str, Task] = {}
    looked = float("-inf")
    try:
        while waiting or running:
            if asked() and not flag.exists():
                flag.touch()
            if flag.exists():
                waiting.clear()
                crew.let_go()
            while waiting and (crew.slots is None or len(running) < crew.slots):
                task = waiting.pop(0)
                running[task.name] = task
                crew.hand(task)
            for outcome in crew.ended(LOOK) if running else ():
                task = running.pop(outcome.name)
                if outcome.lost and (asked() or flag.exists()):
                    # Ctrl-C goes to every process of the terminal: one that still loaded was ended by it.
                    continue
                if outcome.lost and lost[task.name] < retries:
                    lost[task.name] += 1
                    if on_lost is not None:
                        on_lost(task.name, outcome.why)
                    # Behind the others: what ended it may be there still.
                    waiting.append(task)
                elif outcome.lost:
                    times = f" It was begun {lost[task.name] + 1} times." if lost[task.name] else ""
                    on_failure(task.name, f"{outcome.why}{times}")
                elif outcome.why:
                    on_failure(task.name, outcome.why)
            if time.monotonic() - looked >= crew.pause:
                on_look()
                looked = time.monotonic()
        on_look()
    finally:
        flag.touch()
        crew.close()
        flag.unlink(missing_ok=True)


def new_flag(folder: Path, stop: str) -> Path:
    """Where the flag of this process is put; what another process left of that kind is removed.

    Args:
        folder: of the study.
        stop: name of the file by which anybody may ask for an end. One that was meant for a process of before is
            removed; what came while this one started is meant for it.
    """
    flag = folder / f".stop-{os.getpid()}"
    flag.unlink(missing_ok=True)
    with suppress(OSError):
        if time.time() - (folder / stop).stat().st_mtime > STALE:
            (folder / stop).unlink()
    return flag
