"""SQLite as the run's file and the engine's desk use it: connections, and transactions that are whole or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def connect(path: Path, *, readonly: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode: a transaction is begun where one is meant. Any thread may use it, one at a time.

    Args:
        readonly: nothing can be written through it.
        immutable: nobody writes to the file; no lock and no file beside it is needed.
    """
    way = "immutable=1" if immutable else f"mode={'ro' if readonly else 'rwc'}"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{way}", uri=True, timeout=10.0, isolation_level=None, check_same_thread=False
    )
    # A file from elsewhere may hold views and triggers that call functions: they get none.
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All the writes inside, or none of them; the connection is in autocommit mode and this thread's alone."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # Also when the commit itself failed, on a full disk, say: left open, it would swallow all later writes.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
