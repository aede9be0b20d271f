"""What is wrong and nobody can say: no room to write it down, or nobody there to write."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ssl_lab.store import RunStore, Status

LITTLE = 5_000_000
"""Free bytes below which a disk counts as full: a run's file grows by pages, and its journal needs room too."""

DISK_PAUSE = 3.0
"""Seconds between looks at the disk."""

SILENCE = 10.0
"""Seconds without a heartbeat of a driver, which beats every second, after which it does not answer."""

GONE = (
    "This run is gone: its folder was deleted or moved. What you see is the last that was read of it. Open another run "
    "on the shelf, or start a new one."
)


class Watch:
    """Looks after the run that is shown and the disk that it is on.

    Args:
        results: folder of all runs.
        clock: seconds that go on whatever is done to the time of day.
        free: free bytes of a folder's disk.
    """

    def __init__(
        self,
        results: Path,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._results, self._clock, self._free = results, clock, free
        self._beat: tuple[float, float] | None = None
        self._place: tuple[int, int] | None = None
        self._disk_words, self._disk_due = "", float("-inf")
        self.refused = ""
        """What the last attempt to write came to, if it failed."""

    def begin(self, store: RunStore) -> None:
        """From now on it is about this run."""
        # A file that is replaced again and again is another one each time.
        self._beat, self._place, self.refused = None, None if store.apart else _place(store.path), ""

    def gone(self, store: RunStore) -> bool:
        """Whether the run's file is not where it was any more, or is another one."""
        return self._place is not None and _place(store.path) != self._place

    def silence(self, status: Status) -> float:
        """Seconds for which the driver of a live run has not been heard of, if they are too many; else 0.

        What counts is when a heartbeat was seen to change: the clocks of two machines differ, and one may be set.
        """
        now = self._clock()
        if self._beat is None or self._beat[0] != status.heartbeat:
            self._beat = status.heartbeat, now
        if status.state not in ("running", "paused") or status.pid is None:
            return 0.0
        silent = now - self._beat[1]
        return silent if silent >= SILENCE else 0.0

    def disk(self) -> str:
        """Why nothing can be written, in words; empty if it can."""
        now = self._clock()
        if now >= self._disk_due:
            self._disk_due = now + DISK_PAUSE
            self._disk_words = self._look_at_disk()
        if not self._disk_words and self.refused:
            return (
                f"The run's file cannot be written ({self.refused}): nothing is recorded until it can be. What is "
                "recorded is kept. Look after the disk that the runs are on."
            )
        return self._disk_words

    def _look_at_disk(self) -> str:
        try:
            free = self._free(self._results)
        except OSError:
            # Nobody has made it yet, or it is gone with all runs: that is said of the run.
            return ""
        if free < LITTLE:
            return (
                f"The disk that the runs are on is full: {max(free, 0) / 1e6:.1f} MB are free. Nothing can be "
                "recorded, so that runs stop; what is recorded is kept. Delete runs on the shelf or make room on that "
                "disk, then press Run."
            )
        if not os.access(self._results, os.W_OK):
            return (
                "The folder of the runs cannot be written: nothing can be recorded, and no run made. What is recorded "
                "can be looked at. Whoever serves this page can give the folder back its right to be written."
            )
        return ""


def unanswered(status: Status) -> str:
    """What to do about a driver that does not answer, in words."""
    return (
        f"Process {status.pid} on {status.host}, which steps this run, does not answer. Nothing recorded is lost. If "
        "it stays so, end that process: the run goes on from its last checkpoint when it is opened again."
    )


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
