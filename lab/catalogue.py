"""The runs that can be put on the bench: those of the results folder, shipped recordings, files that were dropped."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import get_args

from ssl_lab.errors import SSLLabError, shown
from ssl_lab.family import FAMILY, Membership, membership
from ssl_lab.mirror import writable
from ssl_lab.stage import Audience, OnStage, run_on_stage
from ssl_lab.store import FILE_NAME, LIVE_STATES, RunState, RunStore, RunSummary, check_name, summary
from ssl_lab.sweep.progress import TrialRecord, read_record, read_runner, worked_on

INSTRUCTOR = "instructor: "
"""What the key of the run on stage begins with."""

COPIES = 10
"""Of so many copies that come to the stage, a list reads one: each is read whole, and who follows the run reads all."""

LISTED = 40
"""Most runs on the shelf: the newest, with their forks."""

TRIAL = "trial: "
"""How the key of a trial of a sweep begins, whose run lies in the sweep's folder: ``trial: SWEEP/NAME``."""


@dataclass(frozen=True)
class Entry:
    """A run on the shelf."""

    key: str
    """What the shelf calls it: a run's name, ``recording: NAME``, ``trial: SWEEP/NAME`` or ``instructor: NAME``."""
    path: Path
    run: RunSummary
    recording: bool
    """Whether it can only be looked at and forked."""
    keeper: str = ""
    """Digest of the key of the visitor who keeps it; empty if nobody says so. Not for the page."""
    family: Membership | None = None
    """Of which family it is."""
    stamp: tuple[int, ...] = ()
    """Of the file when it was read; changes with it."""

    @property
    def grouped(self) -> Membership | None:
        """The family under whose heading it stands: what can only be looked at stands by itself."""
        return None if self.recording else self.family

    @property
    def staged(self) -> bool:
        """Whether it is the run that the instructor shows."""
        return self.key.startswith(INSTRUCTOR)


class Catalogue:
    """Lists runs again and again; a file is opened again only when it has changed.

    Args:
        results: folder of all runs.
        audience: looks at the stage, whose run is listed first.
    """

    def __init__(self, results: Path, audience: Audience | None = None) -> None:
        self.results, self._audience = results, audience
        self.loose: dict[str, Path] = {}
        """Files from elsewhere than the folder's runs, by key."""
        self._seen: dict[Path, tuple[tuple[int, ...], Entry | None]] = {}
        self._program: OnStage | None = None
        self._copy_due = 0.0

    @property
    def follows(self) -> bool:
        """Whether it lists what somebody else shows."""
        return self._audience is not None

    def entries(self) -> list[Entry]:
        """All runs that can be read, the one on stage first, then the newest; recordings last."""
        own = [(path.parent.name, path, False) for path in self.results.glob(f"*/{FILE_NAME}")]
        kept = [(f"recording: {path.stem}", path, True) for path in recordings()]
        loose = [(key, path, True) for key, path in self.loose.items() if self._may_look(key)]
        places = (*self._on_stage(), *own, *loose, *kept)
        found = [entry for key, path, recording in places if (entry := self._entry(key, path, recording))]
        known = {path for _, path, _ in places}
        self._seen = {path: seen for path, seen in self._seen.items() if path in known}
        return sorted(found, key=lambda entry: (not entry.staged, entry.recording, -entry.run.created))

    def _on_stage(self) -> list[tuple[str, Path, bool]]:
        self._program = program = self._audience.look() if self._audience else None
        if program is None or self._audience is None:
            return []
        return [(f"{INSTRUCTOR}{program.run}", run_on_stage(self._audience.folder, program.run), True)]

    def open(self, key: str) -> RunStore:
        """The file of an entry, to be steered if it can be.

        Raises:
            SSLLabError: there is no such run, or it cannot be read.
        """
        if key.startswith(TRIAL):
            # A folder may hold hundreds of them: one is listed once it has been asked for.
            self.loose[key] = self._trial(key)
        for entry in self.entries():
            if entry.key == key:
                if entry.staged:
                    return RunStore.open(entry.path, apart=True)
                return RunStore.open(entry.path, readonly=entry.recording or not writable(entry.path))
        raise SSLLabError(f"There is no run {shown(key)} any more.")

    def _may_look(self, key: str) -> bool:
        """Whether a file from elsewhere may be opened now: a trial may have come to another machine since."""
        if key.startswith(TRIAL):
            try:
                self._trial(key)
            except (SSLLabError, OSError):
                return False
        return True

    def _trial(self, key: str) -> Path:
        sweep, _, name = key.removeprefix(TRIAL).partition("/")
        folder = self.results / check_name(sweep)
        path = folder / check_name(name) / FILE_NAME
        if not path.is_file():
            raise SSLLabError(f"The sweep {sweep} has no run of a trial {name}: it is gone, or has not begun.")
        if not here(read_record(folder, name)) and worked_on(folder, read_runner(folder)):
            # SQLite's journal does not cross machines.
            raise SSLLabError(f"The trial {name} is trained on another machine: its run can be opened when it is done.")
        return path

    def _entry(self, key: str, path: Path, recording: bool) -> Entry | None:
        if key.startswith(INSTRUCTOR) and self._program is not None:
            return self._staged(key, path, self._program)
        stamp = _stamp(path)
        seen = self._seen.get(path)
        # What a driver wrote into its journal counts too; where nobody writes, nothing changes.
        # Whether a driver lives is not said by the file.
        if seen is None or seen[0] != stamp or (seen[1] and seen[1].run.status.state in LIVE_STATES):
            self._seen[path] = seen = (stamp, _read(key, path, recording, stamp))
        return seen[1]

    def _staged(self, key: str, path: Path, program: OnStage) -> Entry | None:
        """The run on stage: how it stands says the stage itself, so that its file is seldom read."""
        seen, now, stamp = self._seen.get(path), time.monotonic(), _stamp(path)
        other = seen is not None and seen[1] is not None and seen[1].run.id != program.id
        if seen is None or (seen[0] != stamp and (other or now >= self._copy_due)):
            self._seen[path] = seen = (stamp, _read(key, path, True, stamp))
            self._copy_due = now + program.period * (COPIES if seen[1] is not None else 1)
        entry = seen[1]
        if entry is None:
            return None
        status = replace(entry.run.status, step=program.step)
        for state in get_args(RunState):
            if state == program.state:
                status = replace(status, state=state)
        return replace(entry, run=replace(entry.run, status=status))


def _read(key: str, path: Path, recording: bool, stamp: tuple[int, ...]) -> Entry | None:
    """The entry of a file; None if it cannot be read."""
    try:
        staged = key.startswith(INSTRUCTOR)
        with RunStore.open(path, readonly=True, apart=staged) as store:
            keeper, run = store.meta("keeper"), summary(store)
            if staged:
                # Who drives it is not here to be asked: what the copy says of the run is all there is.
                run = replace(run, status=store.status())
            keeper = keeper if isinstance(keeper, str) else ""
            return Entry(key, path, run, recording, keeper, membership(store.meta(FAMILY)), stamp)
    except (SSLLabError, sqlite3.Error, ValueError, TypeError, OSError):
        return None


def here(record: TrialRecord) -> bool:
    """Whether no other machine is at a trial's run, if anybody works on its sweep."""
    return record.state not in ("running", "retrying") or record.node in ("", socket.gethostname())


def recordings() -> list[Path]:
    """The recordings that come with the lab."""
    folder = resources.files("lab") / "recordings"
    return sorted(path for path in Path(str(folder)).glob("*.sqlite")) if folder.is_dir() else []


def tree(entries: Iterable[Entry], most: int = LISTED) -> tuple[list[tuple[int, Entry]], int]:
    """Entries with their depth, forks under what they were forked from; and how many are left out.

    Families stand in the order of ``entries``, by their youngest member.
    """
    entries = list(entries)
    # A file that was dropped may be a copy of a run that is here.
    by_id: Mapping[str, Entry] = {entry.run.id: entry for entry in reversed(entries)}

    def parent(entry: Entry) -> Entry | None:
        origin = entry.run.parent
        found = by_id.get(origin.id) if origin else None
        # Whatever files from elsewhere say, no run is its own ancestor.
        return found if found is not None and found.run.created < entry.run.created else None

    children: dict[str, list[Entry]] = {}
    roots: list[Entry] = []
    for entry in entries:
        root = entry
        while (above := parent(root)) is not None:
            root = above
        if root not in roots:
            roots.append(root)
        if root is not entry and (above := parent(entry)) is not None:
            children.setdefault(above.key, []).append(entry)
    rows: list[tuple[int, Entry]] = []

    def add(entry: Entry, depth: int) -> None:
        rows.append((depth, entry))
        for child in _side_by_side(sorted(children.get(entry.key, []), key=lambda e: e.run.created)):
            add(child, depth + 1)

    for root in _side_by_side(roots):
        add(root, 0)
    return rows[:most], max(0, len(rows) - most)


def _side_by_side(entries: list[Entry]) -> list[Entry]:
    """The same, with the members of a family one after the other where its first one stands."""
    first: dict[str, int] = {}
    for place, entry in enumerate(entries):
        if entry.grouped is not None:
            first.setdefault(entry.grouped.id, place)

    def place_of(at: tuple[int, Entry]) -> tuple[int, int]:
        place, entry = at
        return (place, 0) if entry.grouped is None else (first[entry.grouped.id], entry.grouped.place)

    return [entry for _, entry in sorted(enumerate(entries), key=place_of)]


def _stamp(path: Path) -> tuple[int, ...]:
    stamp: list[int] = []
    for part in (path, path.with_name(path.name + "-wal")):
        try:
            found = part.stat()
        except OSError:
            continue
        # An empty journal is what a reader leaves.
        if not found.st_size:
            continue
        stamp += [found.st_mtime_ns, found.st_size]
    return tuple(stamp)
