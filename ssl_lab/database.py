"""Transactions on SQLite that are whole or nothing, for the run's file and the engine's desk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
