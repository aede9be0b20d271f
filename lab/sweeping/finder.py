"""The sweeps of a results folder, read again and again: only what has changed is read anew."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from lab.catalogue import here
from ssl_lab.errors import SSLLabError, StoreError
from ssl_lab.store import check_name
from ssl_lab.sweep.plan import Resources, Trial
from ssl_lab.sweep.progress import (
    PLAN,
    RECORD,
    SweepView,
    TrialRecord,
    TrialView,
    read_plan,
    read_record,
    read_runner,
    view,
    worked_on,
)

MOST = 40
"""Sweeps that are listed; the newest ones."""

Plan = tuple[str, Resources, Sequence[Trial]]
Stamp = tuple[int, int, int]


class Finder:
    """Lists the sweeps of a folder, and says how far one is.

    Args:
        results: the folder; it need not be there.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._plan: tuple[str, Stamp, Plan | StoreError] | None = None
        """Of the sweep that was looked at last."""
        self._records: dict[str, tuple[Stamp, TrialRecord]] = {}

    def names(self) -> list[str]:
        """The folders that hold a sweep, the one that was begun last first."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.results) as entries:
            for entry in entries:
                with contextlib.suppress(OSError, SSLLabError):
                    found.append((os.stat(Path(entry.path) / PLAN).st_mtime, check_name(entry.name)))
        return [name for _, name in sorted(found, reverse=True)[:MOST]]

    def get(self, name: str) -> SweepView:
        """How far a sweep is.

        Raises:
            SSLLabError: it is gone, or one of its files is broken.
        """
        folder = self.results / check_name(name)
        plan = self._read_plan(name, folder)
        runner = read_runner(folder)
        return view(plan, folder, runner, working=worked_on(folder, runner), read=self._record)

    def _read_plan(self, name: str, folder: Path) -> Plan:
        stamp = _stamp(folder / PLAN)
        if stamp is None:
            raise SSLLabError(f"There is no sweep {name} in the results folder, or not any more.")
        if self._plan is None or self._plan[:2] != (name, stamp):
            found: Plan | StoreError
            try:
                found = read_plan(folder)
            except StoreError as error:
                found = error
            self._plan, self._records = (name, stamp, found), {}
        if isinstance(self._plan[2], StoreError):
            raise self._plan[2]
        return self._plan[2]

    def _record(self, folder: Path, name: str) -> TrialRecord:
        stamp = _stamp(folder / name / RECORD)
        if stamp is None:
            return TrialRecord()
        known = self._records.get(name)
        if known is None or known[0] != stamp:
            try:
                record = read_record(folder, name)
            except StoreError as error:
                # One broken file does not hide the others.
                record = TrialRecord(state="failed", error=str(error)[:2_000])
            self._records[name] = known = (stamp, record)
        return known[1]


def openable(trial: TrialView, working: bool) -> bool:
    """Whether a trial's run can be opened here: it is there, and no other machine writes into it meanwhile.

    Args:
        trial: the trial.
        working: whether somebody works on its sweep.
    """
    return bool(trial.attempts) and (not working or here(trial.record))


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
