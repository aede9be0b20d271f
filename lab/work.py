"""``Work``: what a page starts as a process of its own in a folder, which outlives the page, and whoever looks sees."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ssl_lab.atomic import CANNOT_WRITE, cannot_write
from ssl_lab.errors import SSLLabError

STARTED = "started"
"""A file in the folder that is as old as the last process that a page started."""
LOADING = 30.0
"""Seconds that a process may take to load torch, before it takes its seat."""
NICENESS = 10
"""Pages go first."""

State = Literal["none", "begun", "starting", "working", "stopping", "done"]


class Work(ABC):
    """Starts, stops and looks after the work in a folder that pages start.

    Whoever looks at the folder sees the same one: a seat in it says whether somebody works on it, and a file there asks
    them to let go.

    Args:
        results: the results folder.
        name: of the folder in it.
    """

    record: str
    """The file that is there once the work has begun."""
    log: str
    """What the process says, in the folder."""
    stop_file: str
    """Asks whoever works on it to save and let go."""

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name = results, name
        self._child: subprocess.Popen[bytes] | None = None
        self._seated = False
        self._said_from = 0
        self.trouble = ""
        """What went wrong with the last process, for a person."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.results / self.name

    @property
    def begun(self) -> bool:
        """Whether there is something of it."""
        return (self.folder / self.record).is_file()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The words of the process."""

    @abstractmethod
    def worked_on(self) -> bool:
        """Whether a process has the seat."""

    def ended_well(self, status: int, said: bytes) -> bool:
        """Whether a process came to its end, or was stopped: then its exit status is no news."""
        return status in (0, 130)

    def state(self, finished: bool) -> State:
        """How it stands.

        Args:
            finished: whether its record says that all is done.
        """
        starting = self._child is not None and self._child.poll() is None
        if self._child is not None and not starting:
            self._buried(self._child.wait())
        if self.worked_on():
            self._seated = True
            return "stopping" if (self.folder / self.stop_file).exists() else "working"
        if starting:
            # After its work it is there for a moment still.
            return "working" if self._seated else "starting"
        if finished:
            return "done"
        if self._loads():
            return "starting"
        return "begun" if self.begun else "none"

    def _loads(self) -> bool:
        """Whether a page, perhaps another one, has started a process of which nothing is seen yet."""
        try:
            started = (self.folder / STARTED).stat().st_mtime_ns
        except OSError:
            return False
        with contextlib.suppress(OSError):
            if (self.folder / self.record).stat().st_mtime_ns > started:
                return False
        return abs(time.time() - started / 1e9) < LOADING

    def start(self) -> None:
        """Begins, or goes on; nothing to do where somebody works on it.

        Raises:
            SSLLabError: it could not be started.
        """
        if self.state(False) in ("starting", "working", "stopping"):
            return
        self.trouble, self._seated = "", False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / self.stop_file).unlink(missing_ok=True)
            (self.folder / STARTED).touch()
            # Not emptied: where two start it at once, the other one writes there too.
            with (self.folder / self.log).open("ab") as log:
                self._said_from = log.tell()
                self._child = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except CANNOT_WRITE as error:
            raise cannot_write(self.folder, error) from None
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._child.pid, NICENESS)

    def stop(self) -> None:
        """Asks whoever works on it to save and let go.

        Raises:
            SSLLabError: that could not be written.
        """
        if not (self.worked_on() or self._child is not None or self._loads()):
            return
        try:
            (self.folder / self.stop_file).touch()
        except OSError as error:
            raise cannot_write(self.folder, error) from None

    def set_aside(self) -> str:
        """Gives what is finished another name, so that it can begin anew; gives the name.

        Raises:
            SSLLabError: somebody works on it.
        """
        if self.worked_on():
            raise SSLLabError("Somebody works on the study right now: stop it first.")
        name = next(n for i in range(1, 10_000) if not (self.results / (n := f"{self.name}-{i}")).exists())
        try:
            os.rename(self.folder, self.results / name)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        return name

    def _buried(self, status: int) -> None:
        """Its process has ended: how?"""
        self._child = None
        said = b""
        with contextlib.suppress(OSError):
            (self.folder / STARTED).unlink(missing_ok=True)
            said = (self.folder / self.log).read_bytes()[self._said_from :][-20_000:]
        if self.ended_well(status, said):
            return
        lines = said.decode("utf-8", "replace").splitlines()
        last = next((text.strip() for text in reversed(lines) if text.strip()), "")
        what = f"It was ended by signal {-status}" if status < 0 else "It could not go on"
        why = f": {last[:400]}" if last else "."
        self.trouble = f"{what}{why} Nothing recorded is lost; {self.log} in its folder has more."
