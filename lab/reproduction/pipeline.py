"""The study that a page starts here: ``ssl-lab reproduce`` as a process of its own, which outlives the page."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_lab.atomic import CANNOT_WRITE, cannot_write
from ssl_lab.errors import SSLLabError
from ssl_lab.reproduce.progress import STOP, worked_on
from ssl_lab.reproduce.record import RECORD
from ssl_lab.reproduce.rows import LESSON

ITEMS = ("table1", "figure1")
LOG = "reproduce.log"
"""What the process says, in the study's folder."""
STARTED = "started"
"""A file in the study's folder that is as old as the last process that a page started."""
LOADING = 30.0
"""Seconds that a process may take to load torch, before it takes its seat."""
NICENESS = 10
"""Pages go first."""

State = Literal["none", "begun", "starting", "working", "stopping", "done"]


@dataclass(frozen=True)
class Size:
    """What is run here."""

    seeds: int = LESSON.seeds
    epochs: int = LESSON.epochs
    items: tuple[str, ...] = ITEMS

    @property
    def name(self) -> str:
        """Of the study's folder."""
        usual = Size()
        own = "" if self == usual else f"-{'-'.join(self.items)}-{self.seeds}x{self.epochs}"
        return f"reproduce-digits-{LESSON.name}{own}"

    @property
    def words(self) -> tuple[str, ...]:
        """The command line, after ``ssl-lab``."""
        more = () if (self.seeds, self.epochs) == (LESSON.seeds, LESSON.epochs) else (
            "--seeds", str(self.seeds), "--epochs", str(self.epochs)
        )  # fmt: skip
        return ("reproduce", *self.items, "--dataset", "digits", "--scale", LESSON.name, "--device", "cpu", *more)


class Pipeline:
    """Starts, stops and looks after the one study of a results folder that pages start.

    Whoever looks at the folder sees the same one: a seat in it says whether somebody works on it, and a file there asks
    them to let go.

    Args:
        results: the results folder.
        size: what is run.
    """

    def __init__(self, results: Path, size: Size | None = None) -> None:
        self.results, self.size = results, size or Size()
        self._child: subprocess.Popen[bytes] | None = None
        self._seated = False
        self._said_from = 0
        self.trouble = ""
        """What went wrong with the last process, for a person."""

    @property
    def name(self) -> str:
        """Of the study."""
        return self.size.name

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.results / self.size.name

    def state(self, finished: bool) -> State:
        """How it stands.

        Args:
            finished: whether its record says that all runs are done.
        """
        starting = self._child is not None and self._child.poll() is None
        if self._child is not None and not starting:
            self._buried(self._child.wait())
        if worked_on(self.folder):
            self._seated = True
            return "stopping" if (self.folder / STOP).exists() else "working"
        if starting:
            # After its work it is there for a moment still.
            return "working" if self._seated else "starting"
        if finished:
            return "done"
        if self._loads():
            return "starting"
        return "begun" if (self.folder / RECORD).is_file() else "none"

    def _loads(self) -> bool:
        """Whether a page, perhaps another one, has started a process of which nothing is seen yet."""
        try:
            started = (self.folder / STARTED).stat().st_mtime_ns
        except OSError:
            return False
        with contextlib.suppress(OSError):
            if (self.folder / RECORD).stat().st_mtime_ns > started:
                return False
        return abs(time.time() - started / 1e9) < LOADING

    def start(self) -> None:
        """Begins the study, or goes on with it; nothing to do where somebody works on it.

        Raises:
            SSLLabError: it could not be started.
        """
        if self.state(False) in ("starting", "working", "stopping"):
            return
        self.trouble, self._seated = "", False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / STOP).unlink(missing_ok=True)
            (self.folder / STARTED).touch()
            # Not emptied: where two start it at once, the other one writes there too.
            with (self.folder / LOG).open("ab") as log:
                self._said_from = log.tell()
                self._child = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except CANNOT_WRITE as error:
            raise cannot_write(self.folder, error) from None
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._child.pid, NICENESS)

    def command(self) -> Sequence[str]:
        """The words of the process."""
        return [sys.executable, "-m", "ssl_lab.cli", *self.size.words, "--out", str(self.folder)]

    def stop(self) -> None:
        """Asks whoever works on it to save and let go.

        Raises:
            SSLLabError: that could not be written.
        """
        if not (worked_on(self.folder) or self._child is not None or self._loads()):
            return
        try:
            (self.folder / STOP).touch()
        except OSError as error:
            raise cannot_write(self.folder, error) from None

    def set_aside(self) -> str:
        """Gives the finished study another name, so that a new one can begin; gives the name.

        Raises:
            SSLLabError: somebody works on it.
        """
        if worked_on(self.folder):
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
            said = (self.folder / LOG).read_bytes()[self._said_from :][-20_000:]
        # 130: it was stopped. With 1 it ends too where some runs could not be had, which its record says.
        if status in (0, 130) or (status == 1 and b"Report: " in said):
            return
        lines = said.decode("utf-8", "replace").splitlines()
        last = next((text.strip() for text in reversed(lines) if text.strip()), "")
        what = f"It was ended by signal {-status}" if status < 0 else "It could not go on"
        why = f": {last[:400]}" if last else "."
        self.trouble = f"{what}{why} Nothing recorded is lost; {LOG} in its folder has more."
