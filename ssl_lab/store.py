"""``RunStore``: one SQLite file a run, the spine that everything is drawn from and turned through.

Append-only, crash-safe (WAL), one driver and many readers, in this process or another. Nothing here imports
torch. A file holds the config, the numbered knob events, the metrics of every step, spectra and evaluations
at a cadence, the commands that people sent, and the state and heartbeat of whoever drives the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from ssl_lab import __version__, keep, pyramid
from ssl_lab.atomic import CANNOT_WRITE, cannot_write, sync_folder
from ssl_lab.config import Knobs, RunConfig, check_together, portable_dataset
from ssl_lab.database import (
    PAGE_OPERATIONS,
    Budget,
    check_shape,
    connect,
    points_elsewhere,
    scan_operations,
    told,
    transaction,
)
from ssl_lab.errors import ConfigError, RunExistsError, RunMissingError, SSLLabError, StoreError, WriteError, shown
from ssl_lab.foreign import (
    NUMBER,
    SHARE,
    SHORT_WORDS,
    STEP,
    Finite,
    ShortWords,
    Step,
    Turned,
    Words,
    from_json,
    understood,
)
from ssl_lab.mirror import Mirror, writable
from ssl_lab.seat import Seat, taken
from ssl_lab.spectrum import Spectrum

SCHEMA = 2
FILE_NAME = "run.sqlite"

FILES = (
    FILE_NAME,
    f"{FILE_NAME}-wal",
    f"{FILE_NAME}-shm",
    "driver.lock",
    "reserve",
    "encoder.safetensors",
    "classifier.safetensors",
    "eigenspace.png",
)
"""All that a run keeps in its folder, besides its checkpoints."""

GOAL = "goal"
"""Under this key a run's file keeps the number of steps after which it ends, where it is not by epochs."""

COST = "study"
"""Where a run's file keeps its seconds, images, device and precision."""

PROBED = "probed"
"""Where a run's file keeps how long its probes were, once all are done."""

DRIVER_SEAT = "driver.lock"
"""Whoever drives a run holds the lock on this file of its folder."""

DRIVER_SILENCE = 120.0
"""Seconds without a heartbeat after which a driver on another machine is taken for gone."""

STAGED = "staged"
"""What the file of a run on stage has besides: it is a copy that nobody drives or steers."""

FOLLOWING = 0.5
"""Least seconds between looks at a file that is followed."""

RunState = Literal["queued", "loading", "running", "paused", "done", "failed", "asleep"]
CommandKind = Literal["set", "run", "pause", "step", "speed", "save", "sleep"]
LIVE_STATES: tuple[RunState, ...] = ("loading", "running", "paused")

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE status (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL, message TEXT NOT NULL, step INTEGER NOT NULL, epoch REAL NOT NULL,
    knobs TEXT NOT NULL, speed REAL, steps_per_second REAL NOT NULL,
    host TEXT, pid INTEGER, owner TEXT, heartbeat REAL NOT NULL, viewer REAL NOT NULL
);
CREATE TABLE events (
    number INTEGER PRIMARY KEY, step INTEGER NOT NULL, time REAL NOT NULL,
    changes TEXT NOT NULL, before TEXT NOT NULL, origin TEXT NOT NULL, digest TEXT NOT NULL
);
CREATE INDEX events_by_step ON events (step);
CREATE TABLE commands (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
    origin TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting', answer TEXT NOT NULL DEFAULT '', step INTEGER
);
CREATE INDEX commands_waiting ON commands (id) WHERE state = 'waiting';
CREATE TABLE metrics (step INTEGER PRIMARY KEY, epoch REAL NOT NULL, loss REAL NOT NULL, penalty REAL NOT NULL);
CREATE TABLE spectra (
    number INTEGER PRIMARY KEY, step INTEGER NOT NULL UNIQUE, epoch REAL NOT NULL,
    f BLOB NOT NULL, wp BLOB NOT NULL, alignment BLOB NOT NULL, diagonal BLOB NOT NULL,
    asymmetry REAL NOT NULL, effective_rank REAL NOT NULL, aligned INTEGER NOT NULL
);
CREATE TABLE evaluations (
    number INTEGER PRIMARY KEY, step INTEGER NOT NULL, kind TEXT NOT NULL, value REAL NOT NULL, UNIQUE (kind, step)
);
"""


@dataclass(frozen=True)
class Status:
    """What the driver last said of the run."""

    state: RunState
    """queued, loading, running, paused, done, failed, or asleep (on disk only, can be woken)."""
    message: Words
    """Why it is so, for a person; empty if there is nothing to say."""
    step: Step
    """Steps done."""
    epoch: Finite
    """Passes over the training images done."""
    knobs: Knobs
    """The rules the driver steps by now."""
    speed: Finite | None
    """Limit in steps per second; None for as fast as it goes."""
    steps_per_second: Finite
    """Measured over the last seconds; 0 when it stands."""
    host: ShortWords | None
    """Machine of the driver."""
    pid: Annotated[int, Field(ge=1, lt=2**31, strict=True)] | None
    """Process of the driver; None if nobody drives."""
    owner: ShortWords | None
    """Kind of driver: ``train``, ``engine`` or ``notebook``."""
    heartbeat: Finite
    """When the driver last wrote, seconds since the epoch."""
    viewer: Finite
    """When a page last looked, seconds since the epoch; 0 for never."""


@dataclass(frozen=True)
class Parent:
    """Where a fork comes from."""

    name: ShortWords
    """The run that it was forked from."""
    id: ShortWords
    """That run's id, should another one have its name by now."""
    step: Step
    """Steps that both have in common."""
    events: Step
    """Knob events that both have in common."""


_STATUS = tuple(field.name for field in fields(Status))

# A file from elsewhere may hold anything in any column.
_STATUS_TYPE = TypeAdapter(Status)

_Scalar = bool | int | Finite | Words | None
_Made = Annotated[list[dict[ShortWords, _Scalar]], Field(max_length=10_000)]
_ENTRIES: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {
        "schema": TypeAdapter(int),
        "id": SHORT_WORDS,
        "name": SHORT_WORDS,
        "created": NUMBER,
        "config": TypeAdapter(dict[str, Any]),
        "ssl_lab": SHORT_WORDS,
        "fingerprints": TypeAdapter(_Made),
        "parent": TypeAdapter(Parent),
        "seal": TypeAdapter(dict[Literal["count", "digest"], Step | ShortWords]),
        "schedule": TypeAdapter(list[tuple[Step, Turned]]),
        "planned_done": STEP,
        "goal": STEP,
        "probed": STEP,
        "job": SHORT_WORDS,
        "study": TypeAdapter(dict[ShortWords, _Scalar]),
    }
)
"""What the entries of ``meta`` hold that are there in a run's file, whoever writes them."""

BLOCK = 64
"""Rows that are fetched before they are weighed."""

HEAVIEST = 64_000_000
"""Bytes of text and blobs that a query may give at once; all knob events of the longest run are far less."""


@dataclass(frozen=True)
class Event:
    """Knobs turned between two steps."""

    number: int
    """1, 2, 3, ... in the order they took effect."""
    step: int
    """Steps done when it took effect: step + 1 is the first that follows the new rule."""
    time: float
    """Seconds since the epoch."""
    changes: dict[str, Any]
    """New value of each knob turned."""
    before: dict[str, Any]
    """Value of the same knobs before."""
    origin: str
    """Who turned it: ``page``, ``command line``, ``notebook``."""
    digest: str = ""
    """Of this event and all before it, so that one that is dropped or altered later is found out."""

    def describe(self) -> str:
        """In words, such as ``predictor directpred -> none``."""
        # Of a file that was altered, a value before may be missing.
        return ", ".join(
            f"{name} {_word(self.before.get(name, '?'))} → {_word(value)}" for name, value in self.changes.items()
        )


_EVENTS_TYPE: TypeAdapter[Any] = TypeAdapter(list[tuple[Step, Step, Finite, Turned, Turned, ShortWords, ShortWords]])


def event_digest(previous: str, step: int, changes: Mapping[str, Any], before: Mapping[str, Any], origin: str) -> str:
    """The digest of an event that follows one with the digest ``previous`` (empty for the first)."""
    text = json.dumps([previous, step, dict(changes), dict(before), origin], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


@dataclass(frozen=True)
class Command:
    """Something a person asked of the run."""

    id: int
    kind: CommandKind
    payload: dict[str, Any]
    origin: str
    state: Literal["waiting", "done", "refused"]
    answer: str
    """Why it was refused, for the person."""
    step: int | None = None
    """Steps done when it was answered."""


_COMMAND = tuple(field.name for field in fields(Command))
_COMMAND_TYPE: TypeAdapter[Any] = TypeAdapter(
    tuple[Step, ShortWords, dict[str, Any], ShortWords, Literal["waiting", "done", "refused"], Words, Step | None]
)
"""Whether there is such a kind, and what a payload means, is for whoever obeys."""

MOST_COMMANDS = 10_000
"""Commands that are read at once; the others are when these are answered."""


@dataclass(frozen=True)
class SpectrumRecord:
    """A spectrum at a step, as it is kept (float32 on disk)."""

    number: int
    """Place in the file: 1, 2, 3, ... by time of writing."""
    step: int
    epoch: float
    spectrum: Spectrum


@dataclass(frozen=True)
class Metrics:
    """What is kept of every step."""

    step: int
    epoch: float
    loss: float
    penalty: float


_RESERVED = re.compile(r"engine\.(sqlite|log|lock|seat).*", re.IGNORECASE)
"""Files of the engine in the results folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """A run's name is also its folder's.

    Raises:
        SSLLabError: something else than letters, digits, ``.``, ``_`` and ``-``, or the name of an engine's file.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SSLLabError(
            f"A run cannot be called {shown(name)}: use 1 to 100 letters, digits, '.', '_', '-', a letter or digit "
            "first."
        )
    if _RESERVED.fullmatch(name):
        raise SSLLabError(f"A run cannot be called {name!r}: that is a file of the engine.")
    return name


def results_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: as given, else ``SSL_LAB_RESULTS``, else ``results`` here."""
    return Path(given or os.environ.get("SSL_LAB_RESULTS") or "results").expanduser().absolute()


class RunStore:
    """The file of one run. Safe to use from several threads; every process or room opens its own.

    Use :meth:`create` for a new run and :meth:`open` for one that is there.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self._connection = connection
        self._lock = threading.RLock()
        self._seen_version = -1
        self._apart = False
        self._mirror: Mirror | None = None
        self._seat: Seat | None = None
        self._inode: tuple[int, int] | None = None
        self._budget = Budget(connection)

    # ------------------------------------------------------------ making and opening

    @classmethod
    def create(
        cls,
        name: str,
        config: RunConfig,
        results: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        fill: Callable[[sqlite3.Connection], None] | None = None,
    ) -> RunStore:
        """A new run's file ``results/NAME/run.sqlite``.

        Args:
            fill: writes into the new file before anybody can see it.

        Raises:
            RunExistsError: the name is taken and ``overwrite`` was not asked for.
            SSLLabError: the name cannot be a folder's name, or somebody drives the run that would be lost.
            WriteError: nothing can be written there.
        """
        try:
            return cls._create(name, config, results, overwrite, fill)
        except SSLLabError:
            raise
        except CANNOT_WRITE as error:
            raise cannot_write(results_dir(results) / name, error) from None

    @classmethod
    def _create(
        cls,
        name: str,
        config: RunConfig,
        results: str | os.PathLike[str] | None,
        overwrite: bool,
        fill: Callable[[sqlite3.Connection], None] | None,
    ) -> RunStore:
        folder = results_dir(results) / check_name(name)
        path = folder / FILE_NAME
        if path.exists():
            if not overwrite:
                raise RunExistsError(
                    f"There is a run {name!r} in {folder.parent} already. Take another name, go on with it "
                    "(--resume), or lose it (--overwrite)."
                )
            if cls._being_driven(path):
                raise SSLLabError(f"The run {name!r} is being trained right now; stop it before overwriting it.")
        folder.mkdir(parents=True, exist_ok=True)
        # Of a run that is overwritten, or that lost its file: its weights and journal must not pass for the new one's.
        for old_file in FILES:
            (folder / old_file).unlink(missing_ok=True)
        shutil.rmtree(folder / keep.FOLDER, ignore_errors=True)
        # Made whole under another name, so that no reader ever meets half a file and, of two that create the
        # same run at once, one is refused instead of both writing into it.
        temporary = folder / f".{FILE_NAME}.{os.getpid()}.{threading.get_ident()}"
        connection = connect(temporary)
        try:
            connection.executescript(_TABLES + pyramid.TABLE)
            now = time.time()
            meta = {
                "schema": SCHEMA,
                "id": uuid.uuid4().hex,
                "name": name,
                "created": now,
                "config": json.loads(config.model_dump_json()),
                "ssl_lab": __version__,
            }
            connection.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
            connection.execute(
                "INSERT INTO status VALUES (1, 'queued', '', 0, 0, ?, NULL, 0, NULL, NULL, NULL, ?, 0)",
                (config.knobs.model_dump_json(), now),
            )
            if fill is not None:
                fill(connection)
            connection.close()
            os.link(temporary, path)
            sync_folder(folder)
        except FileExistsError:
            raise RunExistsError(f"Somebody just made a run {name!r} in {folder.parent}. Take another name.") from None
        finally:
            connection.close()
            temporary.unlink(missing_ok=True)
            # A run that came to nothing does not occupy its name.
            with suppress(OSError):
                folder.rmdir()
        store = cls.open(path)
        store._connection.execute("PRAGMA journal_mode = WAL")
        return store

    @classmethod
    def _being_driven(cls, path: Path) -> bool:
        try:
            with cls.open(path) as old:
                return old.driven()
        except SSLLabError:
            # Of another version, or broken: nobody of this version drives it.
            return False

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, readonly: bool = False, elsewhere: bool = False, apart: bool = False
    ) -> RunStore:
        """Opens ``run.sqlite``, the one in the folder ``path``, or a recording (a run's file under any name).

        Read-only, a file in a folder where nothing can be written is looked at too, see :class:`ssl_lab.mirror.Mirror`.

        Args:
            path: the file, or its folder.
            readonly: nothing is written.
            elsewhere: another machine may be writing it, over a shared folder: look at a copy, as SQLite's journal does
                not cross machines. Only with ``readonly``.
            apart: read-only, and as a copy that follows a file which somebody else replaces as a whole, as on a stage:
                no lock and no write ever goes to where it lies, whoever may write there.

        Raises:
            RunMissingError: there is no such file.
            StoreError: the file is no run, or is broken.
            SSLLabError: it cannot be read, or was written by a newer version.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise RunMissingError(f"There is no run at {path}.")
        mirror = None
        readonly = readonly or apart
        if apart or (readonly and (elsewhere or not writable(path))):
            mirror = Mirror(path, apart=True, patience=FOLLOWING) if apart else Mirror(path)
            try:
                connection = connect(mirror.look(), immutable=True)
            except StoreError:
                mirror.close()
                raise
            except (OSError, sqlite3.Error) as error:
                mirror.close()
                raise SSLLabError(f"{path} cannot be read: {error}.") from None
        else:
            if points_elsewhere(path):
                raise StoreError(
                    f"{path} is broken: expected a journal of its own beside it, found one that names another file."
                )
            with told(path):
                connection = connect(path, readonly=readonly)
        store = cls(path, connection, readonly=readonly)
        store._mirror, store._apart = mirror, apart
        try:
            # In WAL mode NORMAL loses nothing when the process dies, only the last moments when the machine does.
            store._rows("PRAGMA synchronous = NORMAL")
            store._check_tables()
            if not readonly and store.meta(STAGED):
                raise SSLLabError(
                    f"{path} is a copy by which others follow a run: whoever steps that run never reads it, so that "
                    "nothing can be asked of the run here. Open it for reading only, or fork it."
                )
        except BaseException:
            store.close()
            raise
        return store

    def _check_tables(self) -> None:
        """The file is one of this version, and has what it writes and nothing else.

        Raises:
            SSLLabError: it is not.
        """
        with self._lock, told(self.path), self._budget.given(PAGE_OPERATIONS / 10):
            # A file may ask for any number of pages to be held in memory.
            self._connection.execute("PRAGMA cache_size = -2000")
            ((encoding,),) = self._connection.execute("PRAGMA encoding").fetchall()
            if encoding != "UTF-8":
                raise StoreError(f"{self.path} is broken: expected text in UTF-8, found it in {encoding}.")
            if self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone() is None:
                raise StoreError(f"{self.path} is not a run's file: expected a table 'meta', found none.")
        schema = self.meta("schema")
        if schema != SCHEMA:
            raise SSLLabError(
                f"{self.path} was written by another version of ssl-lab (format {shown(schema)}, here {SCHEMA})."
            )
        with self._lock, told(self.path), self._budget.given(PAGE_OPERATIONS / 10):
            try:
                check_shape(self._connection, _TABLES + pyramid.TABLE)
            except StoreError as error:
                raise StoreError(f"{self.path} is not a run's file, or is broken: {error}.") from None

    def refresh(self) -> None:
        """Looks again at a file that is written elsewhere; nothing to do for one that this machine shares."""
        if self._mirror is None:
            return
        with self._lock:
            try:
                new = self._mirror.look_again()
                if new is not None:
                    connection = connect(new, immutable=True)
                    self._connection.close()
                    self._connection, self._budget = connection, Budget(connection)
                    self._mirror.forget_old()
                    self._check_tables()
            except (OSError, sqlite3.Error) as error:
                raise SSLLabError(f"{self.path} cannot be read any more: {error}.") from None

    @property
    def apart(self) -> bool:
        """Whether it is read as a copy of a file that somebody else replaces."""
        return self._apart

    def overtaken(self) -> None:
        """Has the next :meth:`refresh` read the file anew: somebody says that it has changed."""
        if self._mirror is not None:
            self._mirror.overtaken()

    def close(self) -> None:
        """Closes the file; the store cannot be used any more."""
        with self._lock:
            if self._seat is not None:
                self._seat.leave()
                self._seat = None
            self._connection.close()
            if self._mirror is not None:
                self._mirror.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The run's folder, where its weights and figures go."""
        return self.path.parent

    def _rows(
        self, query: str, values: Sequence[Any] = (), operations: float = PAGE_OPERATIONS
    ) -> list[tuple[Any, ...]]:
        """All that is read of the file goes through here: what is broken is said to be, and too much is not read.

        Raises:
            StoreError: the file is broken.
            sqlite3.OperationalError: the file is in use by somebody else, or the disk fails.
        """
        found: list[tuple[Any, ...]] = []
        weight = 0
        with self._lock, told(self.path), self._budget.given(operations):
            cursor = self._connection.execute(query, values)
            while block := cursor.fetchmany(BLOCK):
                found += block
                weight += sum(len(value) for row in block for value in row if isinstance(value, str | bytes))
                if weight > HEAVIEST:
                    raise StoreError(
                        f"{self.path} is broken: expected at most {HEAVIEST:,} bytes of rows, found more than that."
                    )
                if len(block) < BLOCK:
                    break
        return found

    def _scan(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query that goes through all steps."""
        return self._rows(query, (), scan_operations(self.path))

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """What is read inside is the file at one moment, whoever writes meanwhile."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All the writes inside, or none of them.

        Args:
            durable: they outlive a machine that stops, and not only a process that does; costs a write to the disk.
        """
        if self.readonly:
            raise WriteError(
                f"The run {self.path} is open for reading only: nothing can be written into it or asked of whoever "
                "steps it. Fork it to go on with a run of your own."
            )
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            try:
                with transaction(self._connection) as db:
                    yield db
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous = NORMAL")

    # ------------------------------------------------------------ config and status

    def meta(self, key: str) -> Any:
        """One entry of what is known of the run: ``name``, ``created``, ``config``, ``fingerprint``, ...; or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows:
            return None
        with understood(self.path, f"entry {key!r}"):
            said = from_json(rows[0][0])
            if key in _ENTRIES and said is not None:
                # Held against what it should be, and given as it is.
                _ENTRIES[key].validate_python(said)
            return said

    def set_meta(self, key: str, value: Any) -> None:
        """Keeps one entry (anything JSON holds)."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    @property
    def name(self) -> str:
        """The run's name: its folder's, under which it is found, or what a file from elsewhere says."""
        folder = self.path.parent.name
        if self.path.name == FILE_NAME and _NAME.fullmatch(folder):
            return folder
        said = self.meta("name")
        # It becomes the name of a file when the run is written out, and of a run that is forked from it.
        with understood(self.path, "name"):
            if not isinstance(said, str) or not _NAME.fullmatch(said):
                raise ValueError(f"expected 1 to 100 letters, digits, '.', '_', '-', found {shown(said)}")
        return said

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            SSLLabError: what stands there is none.
        """
        try:
            return check_together(RunConfig.model_validate_json(json.dumps(self.meta("config"))))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part)[:40] for part in first["loc"][:4]) or "all of it"
            raise StoreError(
                f"The config in {self.path} cannot be read: {where}: {first['msg']}, found {shown(first['input'])}."
            ) from None
        except ConfigError as error:
            raise StoreError(f"The config in {self.path} cannot be read: {error}") from None

    def fingerprints(self) -> list[dict[str, Any]]:
        """On what the numbers were made, first to last: ``step`` from which on, versions, device, threads."""
        made = list(self.meta("fingerprints") or [])
        with understood(self.path, "entry 'fingerprints'"):
            for one in made:
                STEP.validate_python(one.get("step"))
        return made

    def note_fingerprint(self, step: int, found: Mapping[str, Any]) -> None:
        """Says on what the numbers after ``step`` are made, if it is something else than before."""
        known = self.fingerprints()
        new = {"ssl_lab": __version__, **found}
        if not known or {**known[-1], "step": step} != {**new, "step": step}:
            self.set_meta("fingerprints", [*known, {"step": step, **new}])

    @property
    def parent(self) -> Parent | None:
        """The run that this one was forked from; None for one that began at step 0."""
        said = self.meta("parent")
        if not said:
            return None
        with understood(self.path, "parent"):
            return Parent(**said)

    def fork(
        self,
        name: str,
        step: int | None = None,
        *,
        events: int | None = None,
        results: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> RunStore:
        """A new run that has this one's config, seed and record up to a step, and goes on from there by itself.

        The record is copied, so that the new run can be drawn, replayed and exported alone; this one is only read.
        Woken, it goes on from the nearest checkpoint at or before ``step``, and through the record up to there.

        Args:
            name: of the new run.
            step: steps done; default the last that is recorded.
            events: knob events seen; default all up to ``step``. With ``event.number - 1`` and the step of an event
                it is the moment just before that event.
            results: folder of the new run; default that of this one.
            settings: of its config that are not the parent's, such as ``device``; none that the numbers depend on.

        Raises:
            SSLLabError: the step or the event is not on record, or the moment cannot be reached.
            RunExistsError: the name is taken.
        """
        last = self.last_step()
        step = last if step is None else step
        if not 0 <= step <= last:
            raise SSLLabError(f"The run {self.name!r} has no step {step:,}: it is recorded up to step {last:,}.")
        known = self.events(until=step)
        seen = len(known) if events is None else events
        if not 0 <= seen <= len(known) or any(event.step < step for event in known[seen:]):
            raise SSLLabError(f"The run {self.name!r} had not seen {seen} knob events at step {step:,}.")
        checkpoints = keep.before(keep.kept(self.folder), step, seen)
        if self.first_step() > 1 and not checkpoints:
            raise SSLLabError(
                f"The run {self.name!r} began from a trainer that had been stepped before, and there is no checkpoint "
                f"from which step {step:,} could be reached."
            )
        origin = Parent(name=self.name, id=str(self.meta("id")), step=step, events=seen)
        with self._lock:
            source = self._connection.execute("PRAGMA database_list").fetchone()[2]

        def fill(db: sqlite3.Connection) -> None:
            way = "immutable=1" if self._mirror is not None else "mode=ro"
            with told(self.path):
                db.execute("ATTACH ? AS parent", (f"{Path(source).as_uri()}?{way}",))
            with told(self.path), transaction(db), Budget(db).given(2 * scan_operations(self.path)):
                _copy_record(db, step, seen)
                _check_copied(db, self.path)
                # Of those on which the parent went on after this moment, the fork knows nothing.
                made = [f for i, f in enumerate(self.fingerprints()) if i == 0 or f["step"] < step]
                meta = {"parent": asdict(origin), "fingerprints": made}
                if seen:
                    meta["seal"] = {"count": seen, "digest": known[seen - 1].digest}
                db.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
                db.execute(
                    "UPDATE status SET step = ?, knobs = ?, "
                    "epoch = coalesce((SELECT epoch FROM metrics WHERE step = ?), 0)",
                    (step, self.knobs_after(seen).model_dump_json(), step),
                )
            db.execute("DETACH parent")

        folder = self.folder.parent if results is None else results_dir(results)
        config = self.config().model_copy(update=dict(settings or {}))
        child = RunStore.create(name, config, folder, fill=fill)
        keep.hand_on(checkpoints, child.folder, link=self._mirror is None)
        return child

    def copy_to(self, path: Path) -> None:
        """Copies the run, as it is at one moment, to a single file that opens anywhere.

        It says nothing of this machine but what the numbers were made on: no driver, no keeper, no commands, no folder
        for downloads, and of a folder of images only its name. Where a folder of that name lies in the working
        directory, the run can be done again from it.
        """
        copy = connect(path)
        try:
            with told(self.path), Budget(copy).given(4 * scan_operations(self.path)):
                self._copy_into(copy)
        finally:
            copy.close()

    def snapshot_to(self, path: Path) -> None:
        """The same for others to follow the run by: it says of the run's state what the driver last said.

        A few milliseconds for a run of some thousand steps, and nobody waits for it.
        """
        copy = connect(path)
        try:
            # The copy is of no use to anybody before it is whole.
            copy.execute("PRAGMA synchronous = OFF")
            with told(self.path), Budget(copy).given(4 * scan_operations(self.path)):
                self._copy_into(copy, live=True)
        finally:
            copy.close()

    def _copy_into(self, copy: sqlite3.Connection, *, live: bool = False) -> None:
        with self._lock:
            self._connection.backup(copy)
        # No file beside it, and none needed to read it.
        copy.execute("PRAGMA journal_mode = DELETE")
        # What is deleted below would stay in the file's pages otherwise.
        copy.execute("PRAGMA secure_delete = ON")
        with transaction(copy) as db:
            if not live:
                db.execute(
                    "UPDATE status SET state = 'asleep', message = '' WHERE state NOT IN ('done', 'failed', 'asleep')"
                )
                db.execute("UPDATE status SET speed = NULL, steps_per_second = 0")
            db.execute("UPDATE status SET host = NULL, pid = NULL, owner = NULL, viewer = 0")
            db.execute("DELETE FROM commands")
            db.execute("DELETE FROM meta WHERE key IN ('keeper', ?)", (STAGED,))
            if live:
                db.execute("INSERT INTO meta VALUES (?, 'true')", (STAGED,))
            with understood(self.path, "config"):
                config = dict(self.meta("config"))
                config |= {"data_dir": None, "dataset": portable_dataset(config["dataset"])}
            db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
        if not live:
            # What was deleted before is still in the file's pages until it is written anew.
            copy.execute("VACUUM")

    def status(self) -> Status:
        """What the driver last said."""
        rows = self._rows(f"SELECT {', '.join(_STATUS)} FROM status LIMIT 2")
        with understood(self.path, "status"):
            if len(rows) != 1:
                raise ValueError(f"expected one row, found {len(rows) or 'none'}{' or more' * (len(rows) > 1)}")
            said = dict(zip(_STATUS, rows[0], strict=True))
            return _STATUS_TYPE.validate_python({**said, "knobs": Knobs.model_validate(from_json(said["knobs"]))})

    def set_status(self, **news: Any) -> None:
        """Writes fields of :class:`Status`, and the heartbeat."""
        if "knobs" in news:
            news["knobs"] = news["knobs"].model_dump_json()
        news.setdefault("heartbeat", time.time())
        names = ", ".join(f"{name} = ?" for name in news)
        with self.transaction() as db:
            db.execute(f"UPDATE status SET {names}", tuple(news.values()))

    def touch_viewer(self) -> None:
        """A page says that somebody is looking."""
        with self.transaction() as db:
            db.execute("UPDATE status SET viewer = ?", (time.time(),))

    def claim(self, owner: str) -> None:
        """Makes this process the driver of the run.

        Raises:
            SSLLabError: somebody else drives it.
            WriteError: nothing can be written in its folder.
        """
        seat = Seat(self.folder / DRIVER_SEAT)
        try:
            alone = seat.take()
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        try:
            with self.transaction():
                if not alone or self.rival():
                    status = self.status()
                    raise SSLLabError(
                        f"The run {self.name!r} is already being driven by process {status.pid} on {status.host}. "
                        f"Watch and steer it there: ssl-lab watch {self.name}"
                    )
                self.set_status(host=socket.gethostname(), pid=os.getpid(), owner=owner)
        except BaseException:
            seat.leave()
            raise
        self._seat = seat

    def rival(self) -> str:
        """Who drives the run, in words, if it is a machine that this one cannot reach; else empty."""
        status = self.status()
        alive = status.host is not None and self._beats(status)
        return status.host or "" if alive and status.host != socket.gethostname() else ""

    def release(self) -> None:
        """This process drives the run no more."""
        try:
            self.set_status(host=None, pid=None, owner=None, steps_per_second=0.0)
        finally:
            if self._seat is not None:
                self._seat.leave()
                self._seat = None

    def driven(self) -> bool:
        """Whether somebody drives the run."""
        status = self.status()
        if status.pid is None:
            return False
        if status.host == socket.gethostname():
            held = taken(self.folder / DRIVER_SEAT)
            # Read-only, or where there are no locks, the process has to do.
            return _alive(status.pid) if held is None else held
        return self._beats(status)

    @staticmethod
    def _beats(status: Status) -> bool:
        """Whether a driver elsewhere has been heard of lately, by clocks that may differ."""
        return abs(time.time() - status.heartbeat) < DRIVER_SILENCE

    def vanished(self) -> bool:
        """Whether the run's file is not where it was opened: somebody removed or replaced it."""
        with self._lock:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                return True
            if self._inode is None:
                self._inode = (found.st_dev, found.st_ino)
            return self._inode != (found.st_dev, found.st_ino)

    def changed_elsewhere(self) -> bool:
        """Whether another connection wrote since the last call; costs microseconds."""
        seen = self._rows("PRAGMA data_version")[0][0]
        changed = bool(seen != self._seen_version)
        self._seen_version = seen
        return changed

    def look_again(self) -> None:
        """Has :meth:`changed_elsewhere` say yes once."""
        self._seen_version = -1

    # ------------------------------------------------------------ commands

    def send(self, kind: CommandKind, payload: Mapping[str, Any] | None = None, *, origin: str = "page") -> int:
        """Leaves a command for the driver; it is taken at the next step boundary. Gives the command's number."""
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO commands (time, kind, payload, origin) VALUES (?, ?, ?, ?)",
                (time.time(), kind, json.dumps(dict(payload or {})), origin),
            )
            # The file's own counter does not count what this connection writes, and the driver may share it.
            self._seen_version = -1
            return int(cursor.lastrowid or 0)

    def waiting(self) -> list[Command]:
        """Commands that nobody has answered, oldest first."""
        return self._commands("state = 'waiting'")

    def command(self, number: int) -> Command:
        """The command of this number, with its answer."""
        found = self._commands("id = ?", (number,))
        if not found:
            raise StoreError(f"{self.path} is broken: expected the command {number}, found none.")
        return found[0]

    def refused(self, after: int = 0) -> list[Command]:
        """Commands with a higher number than ``after`` that were refused."""
        return self._commands("state = 'refused' AND id > ?", (after,))

    def _commands(self, where: str, values: Sequence[Any] = ()) -> list[Command]:
        rows = self._rows(
            f"SELECT {', '.join(_COMMAND)} FROM commands WHERE {where} ORDER BY id LIMIT {MOST_COMMANDS}", values
        )
        with understood(self.path, "list of commands"):
            return [Command(*_COMMAND_TYPE.validate_python((*r[:2], from_json(r[2]), *r[3:]))) for r in rows]

    def answer(self, command: Command, step: int, refused: str = "") -> None:
        """The driver's word: done, or refused and why."""
        with self.transaction() as db:
            db.execute(
                "UPDATE commands SET state = ?, answer = ?, step = ? WHERE id = ?",
                ("refused" if refused else "done", refused, step, command.id),
            )

    # ------------------------------------------------------------ events

    def add_event(self, step: int, before: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> int:
        """Logs knobs about to be turned; gives the event's number."""
        with self.transaction(durable=True) as db:
            number, last = db.execute(
                "SELECT number, digest FROM events UNION ALL SELECT 0, '' ORDER BY number DESC LIMIT 1"
            ).fetchone()
            number, digest = number + 1, event_digest(last, step, changes, before, origin)
            db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, step, time.time(), json.dumps(dict(changes)), json.dumps(dict(before)), origin, digest),
            )
            self.set_meta("seal", {"count": number, "digest": digest})
            return int(number)

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """Events with a higher number than ``after``, in order; those that took effect at step ``until`` or before."""
        rows = self._rows(
            "SELECT number, step, time, changes, before, origin, digest FROM events "
            "WHERE number > ? AND step <= ? ORDER BY number",
            (after, 2**62 if until is None else until),
        )
        with understood(self.path, "list of knob events"):
            # All at once: a run of a class may have thousands.
            read = [(*r[:3], from_json(r[3]), from_json(r[4]), *r[5:]) for r in rows]
            return [Event(*event) for event in _EVENTS_TYPE.validate_python(read)]

    def altered_event(self) -> int | None:
        """Number of the first event that is not as it was logged, or is missing; None if all are as they were."""
        digest = ""
        with self._one_moment():
            events, seal = self.events(), self.meta("seal") or {"count": 0, "digest": ""}
        for number, event in enumerate(events, start=1):
            digest = event_digest(digest, event.step, event.changes, event.before, event.origin)
            if event.number != number or event.digest != digest:
                return number
        if (seal.get("count"), seal.get("digest")) != (len(events), digest):
            return len(events) + 1
        return None

    def knobs_after(self, events: int) -> Knobs:
        """The knobs at step 0 with the first ``events`` events applied."""
        knobs = self.config().knobs
        for event in self.events()[:events]:
            knobs = knobs.changed(event.changes)
        return knobs

    # ------------------------------------------------------------ what was measured

    def add_metrics(self, rows: Iterable[Metrics]) -> None:
        """Keeps the metrics of steps. A step that was recorded before a crash and is redone is written over."""
        values = [(m.step, m.epoch, m.loss, m.penalty) for m in rows]
        if not values:
            return
        with self.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", values)
            pyramid.grow(db, "loss", min(v[0] for v in values), max(v[0] for v in values))

    def add_spectrum(self, step: int, epoch: float, s: Spectrum) -> None:
        """Keeps a spectrum, once a step."""
        blobs = [
            np.ascontiguousarray(part, dtype="<f4").tobytes()
            for part in (s.f_eigenvalues, s.wp_eigenvalues, s.alignment, s.wp_diagonal)
        ]
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO spectra (step, epoch, f, wp, alignment, diagonal, asymmetry, effective_rank, "
                "aligned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (step, epoch, *blobs, s.asymmetry, s.effective_rank, s.aligned),
            )
            for curve in ("asymmetry", "effective_rank", "aligned"):
                pyramid.grow(db, curve, step, step)

    def add_evaluation(self, step: int, kind: str, value: float) -> None:
        """Keeps an accuracy in [0, 1], such as ``knn`` or ``probe``."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO evaluations (step, kind, value) VALUES (?, ?, ?)", (step, kind, float(value))
            )
            if kind == "knn":
                pyramid.grow(db, "knn", max(step, 1), max(step, 1))

    def last_step(self) -> int:
        """The last step with metrics; 0 if there is none."""
        return self._end("max")

    def first_step(self) -> int:
        """The first step with metrics; 0 if there is none, 1 if the run was recorded from its beginning."""
        return self._end("min")

    def _end(self, which: str) -> int:
        rows = self._rows(f"SELECT coalesce({which}(step), 0) FROM metrics")
        with understood(self.path, "metrics"):
            return STEP.validate_python(rows[0][0])

    def metrics(self, upto: int | None = None) -> Metrics | None:
        """The metrics of the latest step, or of the latest up to ``upto``."""
        rows = self._rows(
            "SELECT step, epoch, loss, penalty FROM metrics WHERE step <= ? ORDER BY step DESC LIMIT 1",
            (2**62 if upto is None else upto,),
        )
        with understood(self.path, "metrics"):
            return (
                Metrics(STEP.validate_python(rows[0][0]), *map(NUMBER.validate_python, rows[0][1:])) if rows else None
            )

    def losses(self) -> NDArray[np.float64]:
        """Losses of all steps (steps,), for comparing runs."""
        return self.recorded_losses()[1]

    def recorded_losses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(steps, losses) of all that is recorded."""
        rows = self._scan("SELECT step, loss FROM metrics ORDER BY step")
        with understood(self.path, "metrics"):
            _check_numbers(rows)
            return np.array([row[0] for row in rows], dtype=np.int64), np.array([row[1] for row in rows], np.float64)

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query for numbers, some at a time: for exports, however long the run is.

        Raises:
            StoreError: the file is broken, or something is no number.
        """
        cursor = self._connection.cursor()
        left, block = scan_operations(self.path), [()]
        with self._lock, told(self.path), self._budget.given(left):
            cursor.execute(query, values)
        while block:
            with self._lock, told(self.path), self._budget.given(left):
                block = cursor.fetchmany(BLOCK)
                left = self._budget.left
            with understood(self.path, "record"):
                _check_numbers(block)
            yield from block

    def curve(self, name: str, upto: int | None = None, points: int = 400) -> pyramid.Curve:
        """(steps, values) of ``loss``, ``asymmetry``, ``effective_rank``, ``aligned`` or ``knn``.

        At most about ``points`` of each, up to step ``upto``; costs what it gives, not what is stored.
        """
        last = self.last_step()
        with understood(self.path, f"curve {name!r}"):
            return pyramid.read(self._rows, name, last if upto is None else min(upto, last), points)

    def spectra(self, numbers: Sequence[int] | None = None) -> list[SpectrumRecord]:
        """Spectra by their place in the file, or all of them, in the order of steps."""
        where = "" if numbers is None else f" WHERE number IN ({','.join('?' * len(numbers))})"
        query = f"{_SPECTRA}{where} ORDER BY step"
        rows = self._scan(query) if numbers is None else self._rows(query, list(numbers))
        with understood(self.path, "spectra"):
            found = [_spectrum_record(row) for row in rows]
            sizes = sorted({len(record.spectrum.f_eigenvalues) for record in found})
            if len(sizes) > 1:
                raise ValueError(f"expected as many eigenvalues in each, found {sizes[0]} and {sizes[-1]}")
            return found

    def newest_spectrum(self, upto: int | None = None) -> SpectrumRecord | None:
        """The spectrum of the latest step that has one, or of the latest up to ``upto``."""
        rows = self._rows(f"{_SPECTRA} WHERE step <= ? ORDER BY step DESC LIMIT 1", (2**62 if upto is None else upto,))
        with understood(self.path, "spectra"):
            return _spectrum_record(rows[0]) if rows else None

    def newest_evaluation(self, kind: str, upto: int | None = None) -> tuple[int, float] | None:
        """(step, accuracy) of the latest evaluation of a kind, or of the latest up to ``upto``."""
        rows = self._rows(
            "SELECT step, value FROM evaluations WHERE kind = ? AND step <= ? ORDER BY step DESC LIMIT 1",
            (kind, 2**62 if upto is None else upto),
        )
        with understood(self.path, "evaluations"):
            return (STEP.validate_python(rows[0][0]), SHARE.validate_python(rows[0][1])) if rows else None


_SPECTRA = "SELECT number, step, epoch, f, wp, alignment, diagonal, asymmetry, effective_rank FROM spectra"


def _copy_record(db: sqlite3.Connection, step: int, events: int) -> None:
    """Copies what is recorded up to a step from the attached ``parent``."""
    db.execute("INSERT INTO metrics SELECT * FROM parent.metrics WHERE step <= ?", (step,))
    columns = "step, epoch, f, wp, alignment, diagonal, asymmetry, effective_rank, aligned"
    db.execute(
        f"INSERT INTO spectra ({columns}) SELECT {columns} FROM parent.spectra WHERE step <= ? ORDER BY step", (step,)
    )
    db.execute(
        "INSERT INTO evaluations (step, kind, value) SELECT step, kind, value FROM parent.evaluations "
        "WHERE step <= ? ORDER BY step",
        (step,),
    )
    db.execute("INSERT INTO events SELECT * FROM parent.events WHERE number <= ?", (events,))
    # The stretches that end before the step are the same; those that it lies in are not.
    db.execute(
        f"INSERT INTO pyramid SELECT * FROM parent.pyramid WHERE ((bucket + 1) << ({pyramid.BITS} * level)) <= ?",
        (step,),
    )
    if step > 0:
        for curve in pyramid.CURVES:
            pyramid.grow(db, curve, step, step)


def _check_numbers(rows: Sequence[tuple[Any, ...]]) -> None:
    for row in rows:
        for value in row:
            if value is not None and (not isinstance(value, int | float) or not abs(value) < float("inf")):
                raise ValueError(f"expected a number, found {shown(value)}")


_CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "metrics": "step < 1 OR typeof(epoch) != 'real' OR typeof(loss) != 'real' OR typeof(penalty) != 'real' "
        "OR max(abs(epoch), abs(loss), abs(penalty)) >= 9e999",
        "spectra": "step < 0 OR typeof(epoch) != 'real' OR typeof(f) != 'blob' OR typeof(wp) != 'blob' "
        "OR typeof(alignment) != 'blob' OR typeof(diagonal) != 'blob' OR typeof(asymmetry) != 'real' "
        "OR typeof(effective_rank) != 'real' OR typeof(aligned) != 'integer'",
        "evaluations": "typeof(step) != 'integer' OR typeof(kind) != 'text' OR typeof(value) != 'real' "
        "OR value NOT BETWEEN 0 AND 1",
        "pyramid": "typeof(curve) != 'integer' OR typeof(level) != 'integer' OR typeof(bucket) != 'integer' "
        "OR typeof(low) != 'real' OR typeof(high) != 'real'",
    }
)
"""What no row of a table is."""


def _check_copied(db: sqlite3.Connection, source: Path) -> None:
    """What a fork takes over of a file from elsewhere is as this version writes it."""
    for table, wrong in _CHECKS.items():
        if db.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone() is not None:
            raise StoreError(f"{source} is broken: expected numbers in its {table}, found something else.")


MOST_EIGENVALUES = 4096
"""Of the largest projector."""


def _spectrum_record(row: tuple[Any, ...]) -> SpectrumRecord:
    for blob in row[3:7]:
        if not isinstance(blob, bytes) or len(blob) != len(row[3]) or len(blob) % 4 or not blob:
            raise ValueError(
                f"expected four curves of as many 4-byte numbers, found "
                f"{', '.join(f'{len(b)} bytes' if isinstance(b, bytes) else shown(b) for b in row[3:7])}"
            )
    if len(row[3]) > 4 * MOST_EIGENVALUES:
        raise ValueError(f"expected at most {MOST_EIGENVALUES} eigenvalues, found {len(row[3]) // 4}")
    parts = [np.frombuffer(blob, dtype="<f4").astype(np.float64) for blob in row[3:7]]
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError("expected finite eigenvalues, found infinite ones or none")
    f, wp, alignment, diagonal = parts
    return SpectrumRecord(
        STEP.validate_python(row[0]),
        STEP.validate_python(row[1]),
        NUMBER.validate_python(row[2]),
        Spectrum(
            f_eigenvalues=f,
            wp_eigenvalues=wp,
            alignment=alignment,
            wp_diagonal=diagonal,
            asymmetry=NUMBER.validate_python(row[7]),
            effective_rank=NUMBER.validate_python(row[8]),
        ),
    )


def _alive(pid: int) -> bool:
    if os.name == "nt":
        # Signal 0 asks whether a process lives, except on Windows, where it would end it.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    try:
        # A process that ended and whose parent has not asked for it yet still has its number.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


@dataclass(frozen=True)
class RunSummary:
    """A line of the list of runs."""

    name: str
    config: RunConfig
    status: Status
    created: float
    knn: float | None
    """Latest kNN accuracy in [0, 1]."""
    probe: float | None
    """Accuracy of the linear probe in [0, 1]."""
    parent: Parent | None = None
    """What it was forked from."""
    id: str = ""
    """Tells runs of one name apart."""


def summary(store: RunStore) -> RunSummary:
    """A run's line of the list."""
    knn, probe = store.newest_evaluation("knn"), store.newest_evaluation("probe")
    status = store.status()
    with understood(store.path, "date and id"):
        created, id_ = NUMBER.validate_python(store.meta("created")), SHORT_WORDS.validate_python(store.meta("id"))
    if status.state in LIVE_STATES and not store.driven():
        status = replace(status, state="asleep", steps_per_second=0.0)
    return RunSummary(
        store.name, store.config(), status, created, knn[1] if knn else None,
        probe[1] if probe else None, store.parent, id_,
    )  # fmt: skip


def list_runs(results: str | os.PathLike[str] | None = None) -> list[RunSummary]:
    """All runs of a results folder, newest first; folders that hold no readable run are passed over."""
    found = []
    for path in results_dir(results).glob(f"*/{FILE_NAME}"):
        try:
            with RunStore.open(path, readonly=True) as store:
                found.append(summary(store))
        except (SSLLabError, sqlite3.Error, ValueError, TypeError):
            continue
    return sorted(found, key=lambda run: run.created, reverse=True)


def open_run(
    name: str, results: str | os.PathLike[str] | None = None, *, readonly: bool = False, elsewhere: bool = False
) -> RunStore:
    """The file of the run called ``name``.

    Raises:
        RunMissingError: there is none; the message names those that are there.
    """
    folder = results_dir(results)
    path = folder / check_name(name) / FILE_NAME
    if not path.is_file():
        near = ", ".join(sorted(p.parent.name for p in folder.glob(f"*/{FILE_NAME}"))[:10]) or "none yet"
        raise RunMissingError(f"There is no run {name!r} in {folder}. Runs there: {near}.")
    return RunStore.open(path, readonly=readonly, elsewhere=elsewhere)


def free_name(stem: str, results: str | os.PathLike[str] | None = None) -> str:
    """A run name that is not taken: ``stem-1``, ``stem-2``, ..."""
    folder = results_dir(results)
    taken = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"
