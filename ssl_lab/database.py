"""SQLite as the run's file and the engine's desk use it: connections, and transactions that are whole or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ssl_lab.errors import StoreError, shown

LIMITS: Mapping[int, int] = MappingProxyType(
    {
        sqlite3.SQLITE_LIMIT_LENGTH: 4_000_000,
        sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
        sqlite3.SQLITE_LIMIT_COLUMN: 100,
        sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
        sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
        sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
        sqlite3.SQLITE_LIMIT_ATTACHED: 1,
    }
)
"""What SQLite takes of a file, at most: bytes of a value or a row, columns of a table, and so on."""

STRIDE = 10_000
"""Operations of SQLite's machine between two looks at what a query has used up."""

PAGE_OPERATIONS = 5_000_000
"""Operations that a query may take which costs what it gives: well under a second. The largest of them reads all knob
events."""

SCAN_OPERATIONS = 4
"""Operations that a query may take besides for each byte of the file, where it goes through all steps: a row of a step
and its stretches has 40 bytes, and an export's join takes some 50 operations for it."""


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
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    # A file from elsewhere may hold views and triggers that call functions: they get none.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    # A file that somebody cuts short while it is read is an error then, and not the end of the process.
    connection.execute("PRAGMA mmap_size = 0")
    return connection


class Budget:
    """Ends a query that takes more than an honest file's can: the pages of a crafted one may refer to each other, so
    that a few of them hold rows without end. Counts operations, so that a busy machine is no reason.

    Args:
        connection: whose queries are counted while one is :meth:`given <given>`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.left: float = float("inf")
        """Operations that are left."""
        connection.set_progress_handler(self._spend, STRIDE)

    def _spend(self) -> int:
        self.left -= STRIDE
        return int(self.left < 0)

    @contextmanager
    def given(self, operations: float) -> Iterator[None]:
        """Inside, queries are ended with ``sqlite3.OperationalError`` when they have taken so many operations."""
        before, self.left = self.left, operations
        try:
            yield
        finally:
            self.left = before


def scan_operations(path: Path) -> float:
    """What a query may take that goes through the whole of a file."""
    journal = path.with_name(path.name + "-wal")
    size = sum(part.stat().st_size for part in (path, journal) if part.is_file())
    return PAGE_OPERATIONS + SCAN_OPERATIONS * size


NOT_THE_FILE = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
    }
)  # fmt: skip
"""SQLite's reasons that say nothing against what is in the file: it is in use, the disk is full or fails, and so on."""


def is_broken(error: sqlite3.Error) -> bool:
    """Whether SQLite's error speaks of what is in the file, and not of one in use or of a full disk."""
    # The low byte is the reason, the others say more of it. Text that is no UTF-8 has none.
    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_CORRUPT) & 0xFF not in NOT_THE_FILE


Shape = Mapping[str, tuple[tuple[object, ...], ...]]
"""Tables by name, each with its columns: name, type, NOT NULL, place in the primary key, hidden."""

_OBJECTS = "SELECT type, name, tbl_name, substr(sql, 1, 30) FROM sqlite_schema LIMIT 100"
_COLUMNS = 'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?) LIMIT 100'


@cache
def shape_of(tables: str) -> Shape:
    """The tables and columns that these CREATE statements make."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(tables)
        return _shape(connection)
    finally:
        connection.close()


def _shape(connection: sqlite3.Connection) -> Shape:
    found = {}
    for kind, name, table, sql in connection.execute(_OBJECTS).fetchall():
        if not isinstance(name, str) or not isinstance(table, str):
            raise StoreError("expected tables and indexes, found one whose name is no text")
        if kind not in ("table", "index"):
            raise StoreError(f"expected tables and indexes alone, found the {shown(kind)[1:-1]} {shown(name)}")
        if str(sql or "").upper().lstrip().startswith("CREATE VIRTUAL"):
            raise StoreError(f"expected tables and indexes alone, found the virtual table {shown(name)}")
        # SQLite's own, such as the counter of AUTOINCREMENT, is nothing that is read here.
        if kind == "table" and not name.startswith("sqlite_"):
            found[name] = tuple(tuple(row) for row in connection.execute(_COLUMNS, (name,)).fetchall())
    return found


def check_shape(connection: sqlite3.Connection, tables: str) -> None:
    """Holds a file's tables against the statements that make them; views, triggers and more columns are none of ours.

    Raises:
        StoreError: what was expected and what was found, without the file's name.
        sqlite3.Error: the file's list of tables cannot be read.
    """
    here, there = shape_of(tables), _shape(connection)
    for name in sorted(set(there) - set(here)):
        raise StoreError(f"expected the tables {', '.join(here)}, found {shown(name)} besides")
    for name, columns in here.items():
        if name not in there:
            raise StoreError(f"expected a table {name!r}, found none")
        if there[name] != columns:
            expected, found = (_in_words(part) for part in (columns, there[name]))
            raise StoreError(f"expected the table {name!r} to hold {expected}, found {found}")


def _in_words(columns: tuple[tuple[object, ...], ...]) -> str:
    extra = {2: " generated", 3: " generated"}
    words = (f"{str(c[0])[:40]} {str(c[1])[:20]}{extra.get(c[4], '')}" for c in columns[:14])  # type: ignore[call-overload]
    return ", ".join(words) or "nothing"


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What SQLite says of a broken file is said as :class:`StoreError`; that it is in use stays as it is."""
    try:
        yield
    except MemoryError:
        # Asked for by what the file says of its own sizes: what we ask for is bounded.
        raise StoreError(f"{path} is not a run's file, or is broken: expected rows that fit into memory.") from None
    except UnicodeDecodeError:
        # SQLite's own message held a name out of the file.
        raise StoreError(f"{path} is not a run's file, or is broken: expected names in UTF-8, found others.") from None
    except sqlite3.Error as error:
        if not is_broken(error):
            raise
        reason = "expected the record of a run, found rows that refer to each other without end or are far too many"
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
            reason = f"expected the record of a run, found what SQLite cannot read: {str(error)[:300]}"
        raise StoreError(f"{path} is not a run's file, or is broken: {reason}.") from None


def points_elsewhere(path: Path) -> bool:
    """Whether the journal beside a file names another one, which SQLite would read, and then delete.

    A transaction over several files leaves that; none of this project's writes to more than one.
    """
    journal = path.with_name(path.name + "-journal")
    try:
        with journal.open("rb") as file:
            file.seek(max(0, journal.stat().st_size - 16))
            end = file.read(16)
    except OSError:
        return False
    return end[-8:] == bytes.fromhex("d9d505f920a163d7")


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
