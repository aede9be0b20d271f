"""``RunStore``: one SQLite file a run, the spine that everything is drawn from and turned through.

Append-only, crash-safe (WAL), one driver and many readers, in this process or another. Nothing here imports
torch. A file holds the config, the numbered knob events, the metrics of every step, spectra and evaluations
at a cadence, the commands that people sent, and the state and heartbeat of whoever drives the run.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_lab import __version__
from ssl_lab.config import Knobs, RunConfig
from ssl_lab.database import transaction
from ssl_lab.errors import RunExistsError, RunMissingError, SSLLabError
from ssl_lab.spectrum import Spectrum

SCHEMA = 1
FILE_NAME = "run.sqlite"

FILES = (
    FILE_NAME,
    f"{FILE_NAME}-wal",
    f"{FILE_NAME}-shm",
    "checkpoint.safetensors",
    "encoder.safetensors",
    "classifier.safetensors",
    "eigenspace.png",
)
"""All that a run keeps in its folder."""

DRIVER_SILENCE = 120.0
"""Seconds without a heartbeat after which nobody drives: process numbers are given anew after a restart."""

RunState = Literal["queued", "loading", "running", "paused", "done", "failed", "asleep"]
CommandKind = Literal["set", "run", "pause", "step", "speed", "sleep"]
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
    changes TEXT NOT NULL, before TEXT NOT NULL, origin TEXT NOT NULL
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
    message: str
    """Why it is so, for a person; empty if there is nothing to say."""
    step: int
    """Steps done."""
    epoch: float
    """Passes over the training images done."""
    knobs: Knobs
    """The rules the driver steps by now."""
    speed: float | None
    """Limit in steps per second; None for as fast as it goes."""
    steps_per_second: float
    """Measured over the last seconds; 0 when it stands."""
    host: str | None
    """Machine of the driver."""
    pid: int | None
    """Process of the driver; None if nobody drives."""
    owner: str | None
    """Kind of driver: ``train``, ``engine`` or ``notebook``."""
    heartbeat: float
    """When the driver last wrote, seconds since the epoch."""
    viewer: float
    """When a page last looked, seconds since the epoch; 0 for never."""


_STATUS = tuple(field.name for field in fields(Status))


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

    def describe(self) -> str:
        """In words, such as ``predictor directpred -> none``."""
        return ", ".join(f"{name} {_word(self.before[name])} → {_word(value)}" for name, value in self.changes.items())


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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """A run's name is also its folder's.

    Raises:
        SSLLabError: something else than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise SSLLabError(
            f"A run cannot be called {name!r}: use 1 to 100 letters, digits, '.', '_', '-', a letter or digit first."
        )
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

    # ------------------------------------------------------------ making and opening

    @classmethod
    def create(
        cls,
        name: str,
        config: RunConfig,
        results: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> RunStore:
        """A new run's file ``results/NAME/run.sqlite``.

        Raises:
            RunExistsError: the name is taken and ``overwrite`` was not asked for.
            SSLLabError: the name cannot be a folder's name, or somebody drives the run that would be lost.
        """
        folder = results_dir(results) / check_name(name)
        path = folder / FILE_NAME
        if path.exists():
            if not overwrite:
                raise RunExistsError(
                    f"There is a run {name!r} in {folder.parent} already. Take another name, go on with it "
                    "(--resume), or lose it (--overwrite)."
                )
            with cls.open(path) as old:
                if old.driven():
                    raise SSLLabError(f"The run {name!r} is being trained right now; stop it before overwriting it.")
        folder.mkdir(parents=True, exist_ok=True)
        # Of a run that is overwritten, or that lost its file: its weights and journal must not pass for the new one's.
        for old_file in FILES:
            (folder / old_file).unlink(missing_ok=True)
        # Made whole under another name, so that no reader ever meets half a file and, of two that create the
        # same run at once, one is refused instead of both writing into it.
        temporary = folder / f".{FILE_NAME}.{os.getpid()}.{threading.get_ident()}"
        connection = cls._connect(temporary)
        try:
            connection.executescript(_TABLES)
            now = time.time()
            meta = {
                "schema": SCHEMA,
                "name": name,
                "created": now,
                "config": json.loads(config.model_dump_json()),
                "fingerprint": {"ssl_lab": __version__, **(fingerprint or {})},
            }
            connection.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
            connection.execute(
                "INSERT INTO status VALUES (1, 'queued', '', 0, 0, ?, NULL, 0, NULL, NULL, NULL, ?, 0)",
                (config.knobs.model_dump_json(), now),
            )
            connection.close()
            os.link(temporary, path)
        except FileExistsError:
            raise RunExistsError(f"Somebody just made a run {name!r} in {folder.parent}. Take another name.") from None
        finally:
            connection.close()
            temporary.unlink(missing_ok=True)
        store = cls.open(path)
        store._connection.execute("PRAGMA journal_mode = WAL")
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = False) -> RunStore:
        """Opens ``run.sqlite``, or the one in the folder ``path``.

        Raises:
            RunMissingError: there is no such file.
            SSLLabError: the file is no run, or was written by a newer version.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise RunMissingError(f"There is no run at {path.parent}.")
        connection = cls._connect(path, readonly=readonly)
        store = cls(path, connection, readonly=readonly)
        try:
            # In WAL mode NORMAL loses nothing when the process dies, only the last moments when the machine does.
            connection.execute("PRAGMA synchronous = NORMAL")
            schema = store.meta("schema")
        except sqlite3.DatabaseError as error:
            connection.close()
            raise SSLLabError(f"{path} is not a run's file, or is broken: {error}.") from None
        if schema != SCHEMA:
            connection.close()
            raise SSLLabError(f"{path} was written by another version of ssl-lab (format {schema}, here {SCHEMA}).")
        return store

    @staticmethod
    def _connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
        # autocommit: a transaction is begun where one is meant.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}",
            uri=True,
            timeout=10.0,
            isolation_level=None,
            check_same_thread=False,
        )
        return connection

    def close(self) -> None:
        """Closes the file; the store cannot be used any more."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The run's folder, where its weights and figures go."""
        return self.path.parent

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All the writes inside, or none of them."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            with transaction(self._connection) as db:
                yield db

    # ------------------------------------------------------------ config and status

    def meta(self, key: str) -> Any:
        """One entry of what is known of the run: ``name``, ``created``, ``config``, ``fingerprint``, ...; or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        """Keeps one entry (anything JSON holds)."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.meta("name"))

    def config(self) -> RunConfig:
        """The run's configuration."""
        return RunConfig.model_validate_json(json.dumps(self.meta("config")))

    def status(self) -> Status:
        """What the driver last said."""
        row = self._rows(f"SELECT {', '.join(_STATUS)} FROM status")[0]
        said = dict(zip(_STATUS, row, strict=True))
        return Status(**{**said, "knobs": Knobs.model_validate_json(said["knobs"])})

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
            SSLLabError: another living process drives it.
        """
        with self.transaction():
            if self.driven():
                status = self.status()
                raise SSLLabError(
                    f"The run {self.name!r} is already being driven by process {status.pid} on {status.host}."
                )
            self.set_status(host=socket.gethostname(), pid=os.getpid(), owner=owner)

    def release(self) -> None:
        """This process drives the run no more."""
        self.set_status(host=None, pid=None, owner=None, steps_per_second=0.0)

    def driven(self) -> bool:
        """Whether a living process drives the run."""
        status = self.status()
        if status.pid is None or time.time() - status.heartbeat > DRIVER_SILENCE:
            return False
        # Signal 0 asks whether a process lives, except on Windows, where it would end it.
        if status.host == socket.gethostname() and os.name != "nt":
            return _alive(status.pid)
        return True

    def changed_elsewhere(self) -> bool:
        """Whether another connection wrote since the last call; costs microseconds."""
        seen = self._rows("PRAGMA data_version")[0][0]
        changed = bool(seen != self._seen_version)
        self._seen_version = seen
        return changed

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
        return self._commands("id = ?", (number,))[0]

    def refused(self, after: int = 0) -> list[Command]:
        """Commands with a higher number than ``after`` that were refused."""
        return self._commands("state = 'refused' AND id > ?", (after,))

    def _commands(self, where: str, values: Sequence[Any] = ()) -> list[Command]:
        rows = self._rows(
            f"SELECT id, kind, payload, origin, state, answer FROM commands WHERE {where} ORDER BY id", values
        )
        return [Command(r[0], r[1], json.loads(r[2]), r[3], r[4], r[5]) for r in rows]

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
        with self.transaction() as db:
            cursor = db.execute(
                "INSERT INTO events (step, time, changes, before, origin) VALUES (?, ?, ?, ?, ?)",
                (step, time.time(), json.dumps(dict(changes)), json.dumps(dict(before)), origin),
            )
            return int(cursor.lastrowid or 0)

    def events(self, after: int = 0) -> list[Event]:
        """Events with a higher number than ``after``, in order."""
        rows = self._rows(
            "SELECT number, step, time, changes, before, origin FROM events WHERE number > ? ORDER BY number", (after,)
        )
        return [Event(r[0], r[1], r[2], json.loads(r[3]), json.loads(r[4]), r[5]) for r in rows]

    # ------------------------------------------------------------ what was measured

    def add_metrics(self, rows: Iterable[Metrics]) -> None:
        """Keeps the metrics of steps. A step that was recorded before a crash and is redone is written over."""
        with self.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)",
                [(m.step, m.epoch, m.loss, m.penalty) for m in rows],
            )

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

    def add_evaluation(self, step: int, kind: str, value: float) -> None:
        """Keeps an accuracy in [0, 1], such as ``knn`` or ``probe``."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO evaluations (step, kind, value) VALUES (?, ?, ?)", (step, kind, float(value))
            )

    def last_step(self) -> int:
        """The last step with metrics; 0 if there is none."""
        return int(self._rows("SELECT coalesce(max(step), 0) FROM metrics")[0][0])

    def losses(self) -> NDArray[np.float64]:
        """Losses of all steps (steps,), for comparing runs."""
        return np.array([row[0] for row in self._rows("SELECT loss FROM metrics ORDER BY step")])

    def recorded_losses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(steps, losses) of all that is recorded."""
        rows = self._rows("SELECT step, loss FROM metrics ORDER BY step")
        return np.array([row[0] for row in rows], dtype=np.int64), np.array([row[1] for row in rows])

    def loss_curve(self, points: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(steps, losses), at most ``points`` of each, evenly over the run; costs what it gives, not what is stored."""
        last = self.last_step()
        if last == 0:
            return np.empty(0), np.empty(0)
        wanted = np.unique(np.linspace(1, last, min(points, last)).round().astype(int)).tolist()
        marks = ",".join("?" * len(wanted))
        rows = self._rows(f"SELECT step, loss FROM metrics WHERE step IN ({marks}) ORDER BY step", wanted)
        table = np.array(rows, dtype=float).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def evaluation_curve(self, kind: str, points: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(steps, accuracies in [0, 1]) of one kind, thinned to about ``points``."""
        count = int(self._rows("SELECT count(*) FROM evaluations WHERE kind = ?", (kind,))[0][0])
        stride = max(1, -(-count // points))
        rows = self._rows(
            "SELECT step, value FROM (SELECT step, value, row_number() OVER (ORDER BY step) AS place FROM evaluations "
            "WHERE kind = ?) WHERE place % ? = 0 ORDER BY step",
            (kind, stride),
        )
        table = np.array(rows, dtype=float).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def spectrum_curve(self, points: int = 400) -> NDArray[np.float64]:
        """(n, 4): step, asymmetry, effective rank and aligned directions, n about ``points`` at most."""
        newest = int(self._rows("SELECT coalesce(max(number), 0) FROM spectra")[0][0])
        if newest == 0:
            return np.empty((0, 4))
        wanted = np.unique(np.linspace(1, newest, min(points, newest)).round().astype(int)).tolist()
        marks = ",".join("?" * len(wanted))
        rows = self._rows(
            f"SELECT step, asymmetry, effective_rank, aligned FROM spectra WHERE number IN ({marks}) ORDER BY step",
            wanted,
        )
        return np.array(rows, dtype=float).reshape(-1, 4)

    def spectra(self, numbers: Sequence[int] | None = None) -> list[SpectrumRecord]:
        """Spectra by their place in the file, or all of them, in the order of steps."""
        query = "SELECT number, step, epoch, f, wp, alignment, diagonal, asymmetry, effective_rank FROM spectra"
        if numbers is not None:
            query += f" WHERE number IN ({','.join('?' * len(numbers))})"
        return [_spectrum_record(row) for row in self._rows(query + " ORDER BY step", list(numbers or ()))]

    def newest_spectrum(self) -> SpectrumRecord | None:
        """The spectrum of the latest step that has one."""
        rows = self._rows(
            "SELECT number, step, epoch, f, wp, alignment, diagonal, asymmetry, effective_rank FROM spectra "
            "ORDER BY step DESC LIMIT 1"
        )
        return _spectrum_record(rows[0]) if rows else None

    def newest_evaluation(self, kind: str) -> tuple[int, float] | None:
        """(step, accuracy) of the latest evaluation of a kind."""
        rows = self._rows("SELECT step, value FROM evaluations WHERE kind = ? ORDER BY step DESC LIMIT 1", (kind,))
        return (int(rows[0][0]), float(rows[0][1])) if rows else None


def _spectrum_record(row: tuple[Any, ...]) -> SpectrumRecord:
    parts = [np.frombuffer(blob, dtype="<f4").astype(np.float64) for blob in row[3:7]]
    f, wp, alignment, diagonal = parts
    return SpectrumRecord(
        row[0],
        row[1],
        row[2],
        Spectrum(
            f_eigenvalues=f,
            wp_eigenvalues=wp,
            alignment=alignment,
            wp_diagonal=diagonal,
            asymmetry=row[7],
            effective_rank=row[8],
        ),
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
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


def list_runs(results: str | os.PathLike[str] | None = None) -> list[RunSummary]:
    """All runs of a results folder, newest first; folders that hold no readable run are passed over."""
    found = []
    for path in results_dir(results).glob(f"*/{FILE_NAME}"):
        try:
            with RunStore.open(path) as store:
                knn, probe = store.newest_evaluation("knn"), store.newest_evaluation("probe")
                status = store.status()
                if status.state in LIVE_STATES and not store.driven():
                    status = replace(status, state="asleep", steps_per_second=0.0)
                found.append(
                    RunSummary(
                        store.name,
                        store.config(),
                        status,
                        float(store.meta("created")),
                        knn[1] if knn else None,
                        probe[1] if probe else None,
                    )
                )
        except (SSLLabError, sqlite3.Error, ValueError):
            continue
    return sorted(found, key=lambda run: run.created, reverse=True)


def open_run(name: str, results: str | os.PathLike[str] | None = None, *, readonly: bool = False) -> RunStore:
    """The file of the run called ``name``.

    Raises:
        RunMissingError: there is none; the message names those that are there.
    """
    folder = results_dir(results)
    path = folder / check_name(name) / FILE_NAME
    if not path.is_file():
        near = ", ".join(sorted(p.parent.name for p in folder.glob(f"*/{FILE_NAME}"))[:10]) or "none yet"
        raise RunMissingError(f"There is no run {name!r} in {folder}. Runs there: {near}.")
    return RunStore.open(path, readonly=readonly)


def free_name(stem: str, results: str | os.PathLike[str] | None = None) -> str:
    """A run name that is not taken: ``stem-1``, ``stem-2``, ..."""
    folder = results_dir(results)
    taken = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"
