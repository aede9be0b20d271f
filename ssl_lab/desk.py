"""The engine's front desk: how pages that do not import torch reach the engine process.

One SQLite file for a results folder, ``engine.sqlite``: requests to wake a run, the engine's heartbeat, and the
visitors that are here.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_lab.atomic import CANNOT_WRITE, cannot_write
from ssl_lab.database import transaction
from ssl_lab.errors import EngineError
from ssl_lab.seat import Seat, taken

FILE_NAME = "engine.sqlite"
LOG_NAME = "engine.log"
SEAT_NAME = "engine.lock"
"""The engine of a folder holds the lock on this file."""

SILENCE = 6.0
"""Seconds without a heartbeat after which the engine is taken for gone: it beats once a second."""

HUNG = 30.0
"""Seconds without a heartbeat after which an engine that is still there may be ended for another one."""

VISITOR_SILENCE = 30.0
"""Seconds without a sign of a page after which its place is free; a hidden tab says so every ten."""

IDLE_END = 900.0
"""Seconds without a run awake after which an engine that a page started ends: nobody else would end it."""

MOST_AWAKE = 64
"""Runs that an engine has awake at once: each has weights, a thread and a part of the time."""

_TABLES = """
CREATE TABLE IF NOT EXISTS engine (
    id INTEGER PRIMARY KEY CHECK (id = 1), pid INTEGER, heartbeat REAL NOT NULL, device TEXT NOT NULL,
    torch TEXT NOT NULL, runs INTEGER NOT NULL, message TEXT NOT NULL
);
INSERT OR IGNORE INTO engine VALUES (1, NULL, 0, '', '', 0, '');
CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS visitors (id TEXT PRIMARY KEY, time REAL NOT NULL);
"""


@dataclass(frozen=True)
class EngineStatus:
    """What the engine last said of itself."""

    pid: int | None
    """Its process; None if it left in good order or never came."""
    silence: float
    """Seconds since its last heartbeat."""
    device: str
    """What it computes on; empty while it starts."""
    torch: str
    """Version of torch; empty while it starts."""
    runs: int
    """Runs that are awake."""
    message: str
    """What it does while it starts."""
    seated: bool | None
    """Whether an engine holds the folder's seat; None where that cannot be told."""

    @property
    def alive(self) -> bool:
        """Whether it is there, or just being started, and has been heard of lately."""
        starts = not self.device
        return self.pid is not None and self.silence < SILENCE and (self.seated is not False or starts)


class EngineDesk:
    """Both sides of the desk: pages ask and look, the engine takes requests and beats.

    Raises:
        WriteError: nothing can be written in the folder.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.visitors = 0
        """Pages that were open when one of this desk's last said that it is."""
        self._lock = threading.RLock()
        self._seat = Seat(results / SEAT_NAME)
        self._child: subprocess.Popen[bytes] | None = None
        self._beat: tuple[float, float] | None = None
        """The last heartbeat that was seen, and when by a clock that does not jump."""
        try:
            results.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                results / FILE_NAME, timeout=10.0, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_TABLES)
        except CANNOT_WRITE as error:
            raise cannot_write(results, error) from None

    def close(self) -> None:
        """Closes the desk's file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._connection) as db:
            yield db

    # ------------------------------------------------------------ the pages' side

    def status(self) -> EngineStatus:
        """What the engine last said."""
        with self._lock:
            row = self._connection.execute("SELECT pid, heartbeat, device, torch, runs, message FROM engine").fetchone()
            pid, beat, device, torch, runs, message = row
        seated = taken(self.results / SEAT_NAME)
        return EngineStatus(pid, self._silence(beat), device, torch, runs, message, seated)

    def _silence(self, beat: float) -> float:
        """Seconds since the heartbeat, whatever the clocks did after it was first seen."""
        now = time.monotonic()
        if self._beat is None or self._beat[0] != beat:
            # Of the first one that is seen, its own time is all there is to go by.
            age = max(0.0, time.time() - beat) if self._beat is None else 0.0
            self._beat = beat, now - age
        return now - self._beat[1]

    def ask(self, run: str) -> None:
        """Asks for the run to be awake."""
        with self._write() as db:
            db.execute("INSERT INTO requests (run, time) VALUES (?, ?)", (run, time.time()))

    def enter(self, visitor: str, most: int | None) -> bool:
        """Says that a page is here; False if the house is full and this page was not in it yet."""
        now = time.time()
        with self._write() as db:
            # One from the future was written before the clock was set back.
            db.execute("DELETE FROM visitors WHERE time < ? OR time > ?", (now - VISITOR_SILENCE, now + 5.0))
            here = db.execute("SELECT 1 FROM visitors WHERE id = ?", (visitor,)).fetchone()
            count = db.execute("SELECT count(*) FROM visitors").fetchone()[0]
            self.visitors = count + (here is None)
            if here is None and most is not None and count >= most:
                self.visitors = count
                return False
            db.execute("INSERT OR REPLACE INTO visitors VALUES (?, ?)", (visitor, now))
        return True

    def leave(self, visitor: str) -> None:
        """Says that a page is gone."""
        with self._write() as db:
            db.execute("DELETE FROM visitors WHERE id = ?", (visitor,))

    def ensure_engine(self) -> None:
        """Starts an engine if none is there; it outlives this process. One that hangs is ended first.

        Raises:
            EngineError: the process could not be started.
            WriteError: nothing can be written in the folder, and so no engine could do anything.
        """
        status = self.status()
        if status.alive:
            return
        try:
            # One that cannot write cannot say that it lives either: another one could not do better.
            with self._write() as db:
                db.execute("UPDATE engine SET runs = runs")
        except CANNOT_WRITE as error:
            raise cannot_write(self.results, error) from None
        if status.seated:
            if status.silence < HUNG or status.pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(status.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._start_engine("--idle-end", f"{IDLE_END:.0f}")

    def _start_engine(self, *words: str) -> None:
        with (self.results / LOG_NAME).open("ab") as log_file:
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "ssl_lab.engine", "--results", str(self.results), *words],
                    stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise EngineError(f"The engine could not be started: {error}.") from None
        # So that the pages that look in the next second do not start another one.
        with self._write() as db:
            db.execute(
                "UPDATE engine SET pid = ?, heartbeat = ?, device = '', message = 'Starting.'",
                (self._child.pid, time.time()),
            )

    @contextmanager
    def engine_beside(self) -> Iterator[None]:
        """An engine that lives as long as the block, or this process; one that serves the folder already is used."""
        if self.status().alive:
            yield
            return
        self._start_engine("--parent", str(os.getpid()))
        try:
            yield
        finally:
            if self._child is not None:
                self._child.terminate()
                try:
                    self._child.wait(timeout=30.0)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()

    # ------------------------------------------------------------ the engine's side

    def take_seat(self) -> bool:
        """Makes this process the one engine of the folder; False if another living process is.

        The seat is a lock on a file of its own that the system gives back however the process ends.
        """
        if not self._seat.take():
            return False
        with self._write() as db:
            db.execute("UPDATE engine SET pid = ?, device = '', torch = '', runs = 0, message = ''", (os.getpid(),))
        return True

    def leave_seat(self) -> None:
        """This process is the engine no more."""
        try:
            with self._write() as db:
                db.execute("UPDATE engine SET pid = NULL, runs = 0, message = ''")
        finally:
            self._seat.leave()

    def beat(self, runs: int, message: str | None = None) -> None:
        """Says that the engine lives."""
        with self._write() as db:
            db.execute(
                "UPDATE engine SET heartbeat = ?, runs = ?, message = coalesce(?, message)",
                (time.time(), runs, message),
            )

    def introduce(self, device: str, torch: str) -> None:
        """Says what the engine computes with; it is ready."""
        with self._write() as db:
            db.execute(
                "UPDATE engine SET device = ?, torch = ?, message = '', heartbeat = ?", (device, torch, time.time())
            )

    def take_requests(self) -> list[str]:
        """Names of the runs that were asked for since the last call."""
        with self._lock:
            if self._connection.execute("SELECT 1 FROM requests LIMIT 1").fetchone() is None:
                return []
        with self._write() as db:
            rows = db.execute("SELECT run FROM requests ORDER BY id").fetchall()
            db.execute("DELETE FROM requests")
        return [row[0] for row in rows]
