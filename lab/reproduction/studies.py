"""The studies that a page can show: one that comes with the lab, and those in the results folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from ssl_lab.errors import SSLLabError, StoreError
from ssl_lab.reproduce.progress import worked_on
from ssl_lab.reproduce.record import RECORD, StudyRecord, read_record

SHIPPED = "cifar10-small"
"""Key of the study that comes with the lab."""

MOST = 40
"""Studies that are listed; the newest ones."""

SILENT = 20.0
"""Seconds without a word after which nobody works on a study."""


@dataclass(frozen=True)
class Study:
    """A study at a moment."""

    key: str
    title: str
    record: StudyRecord
    live: bool
    """Whether somebody works on it."""
    folder: Path | None
    """Where it lies; None for the one that comes with the lab."""

    @property
    def words(self) -> str:
        """How it stands."""
        record = self.record
        count = f"{record.done} of {len(record.runs)} runs"
        if self.live:
            return f"{count} done{_left(record.left_seconds)}"
        if record.state == "running":
            return f"{count} done; whoever worked on it is gone, and the same command goes on with it"
        if record.state == "stopped":
            return f"{count} done; stopped, and the same command goes on with it"
        if record.state == "failed":
            return f"{count} done; the others could not be had"
        return f"All {len(record.runs)} runs done"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ", the time left is not known yet"
    return f", about {max(1, round(seconds))} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"


def shipped() -> Study:
    """The study that comes with the lab."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(as_file(files("lab.reproduction") / f"{SHIPPED}.json"))
        # An installer may have put a link there; of this one we know where it leads.
        record = read_record(path.resolve())
    return Study(SHIPPED, "CIFAR-10, small (comes with the lab)", record, live=False, folder=None)


class Studies:
    """The studies of a results folder.

    Args:
        results: the folder; it need not be there.
        clock: seconds.
    """

    def __init__(self, results: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.results, self._clock = results, clock
        self._read: dict[str, tuple[tuple[int, int], StudyRecord | StoreError]] = {}
        self._beats: dict[str, tuple[int, float]] = {}
        """Key -> the last beat that was seen, and when it was new."""
        self.shipped = shipped()

    def names(self) -> list[tuple[str, str]]:
        """(title, key) of all, the shipped one first, then the newest."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.results) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if not entry.name.startswith(".") and entry.is_dir():
                        found.append((os.stat(Path(entry.path) / RECORD).st_ctime, entry.name))
        newest = sorted(found, reverse=True)[:MOST]
        # By name, so that the list does not jump while one of them is worked on.
        return [(self.shipped.title, SHIPPED), *((name, f"folder:{name}") for name in sorted(n for _, n in newest))]

    def get(self, key: str) -> Study:
        """A study as it stands now.

        Raises:
            SSLLabError: it is gone, or its record cannot be read.
        """
        if key == SHIPPED:
            return self.shipped
        name = key.removeprefix("folder:")
        folder = self.results / name
        record = self._record(name, folder / RECORD)
        return Study(key, name, record, live=self._live(name, folder, record), folder=folder)

    def _record(self, name: str, path: Path) -> StudyRecord:
        try:
            found = path.stat()
            seen = (found.st_mtime_ns, found.st_size)
            known = self._read.get(name)
            if known is None or known[0] != seen:
                try:
                    known = (seen, read_record(path))
                except StoreError as error:
                    known = (seen, error)
                self._read[name] = known
        except OSError:
            self._read.pop(name, None)
            raise SSLLabError(f"The study {name} is not there any more.") from None
        if isinstance(known[1], StoreError):
            raise known[1]
        return known[1]

    def _live(self, name: str, folder: Path, record: StudyRecord) -> bool:
        """Whether somebody works on it: here by the lock, on another machine by its beats."""
        if record.state != "running":
            self._beats.pop(name, None)
            return False
        now = self._clock()
        beat, since = self._beats.get(name, (record.beat, float("-inf")))
        if beat != record.beat:
            since = now
        self._beats[name] = (record.beat, since)
        return worked_on(folder) or now - since < SILENT
