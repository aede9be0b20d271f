"""Looking at a run's file where nothing can be written: a mounted folder, a package's resource, a medium.

SQLite needs to write beside a file that somebody else is writing. Where it cannot, the file is read as it stands, or,
if part of it still lies in its journal, as a copy; and again when it has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

from ssl_lab.database import connect, told

PATIENCE = 2.0
"""Least seconds between two looks at a file that changes; longer if copying it takes long."""

TRIES = 5
"""Copies that are tried of a file that is written meanwhile."""


def writable(path: Path) -> bool:
    """Whether a file and its folder can be written here."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


class Mirror:
    """A file to read that is the file ``path``, or a copy of it.

    Args:
        path: the file.
        apart: always a copy, for a file that somebody replaces as a whole again and again: over a network it may go
            away while it is read. When it is gone, the last copy stays.
        patience: least seconds between two looks.

    Raises:
        OSError: the file cannot be read, or there is no room for the copy.
        StoreError: the file or its journal is broken.
    """

    def __init__(self, path: Path, *, apart: bool = False, patience: float = PATIENCE) -> None:
        self._apart, self._patience = apart, patience
        self._path, self._journal = path, path.with_name(path.name + "-wal")
        self._folder: Path | None = None
        self._old: list[Path] = []
        self._seen: tuple[int, ...] = ()
        # A page's kernel may end without a word.
        self._finalizer = weakref.finalize(self, _remove, self._old)
        self._due = 0.0

    def _stamp(self) -> tuple[int, ...]:
        stamp: list[int] = []
        for path in (self._path, self._journal):
            try:
                found = path.stat()
            except OSError:
                continue
            stamp += [found.st_mtime_ns, found.st_size]
        return tuple(stamp)

    def look(self) -> Path:
        """The file to open; what was given before may be used until :meth:`forget_old`."""
        begun = time.monotonic()
        seen = self._stamp()
        try:
            self._path.stat()
            found, folder = self._path, None
            journal = self._journal_size()
            if journal or self._apart:
                folder = Path(tempfile.mkdtemp(prefix="ssl-lab-"))
                self._old.append(folder)
                copy = folder / self._path.name
                found = self._copy(copy) if journal else self._copy_alone(copy)
        finally:
            # After a look that failed too: what changes too fast is not asked for at once again.
            now = time.monotonic()
            self._due = now + max(self._patience, 10 * (now - begun))
        self._seen, self._folder = seen, folder
        return found

    def _journal_size(self) -> int:
        """Bytes; 0 if there is none."""
        try:
            return self._journal.stat().st_size
        except FileNotFoundError:
            return 0

    def forget_old(self) -> None:
        """Removes copies that were given before the last one."""
        _remove(self._old, but=self._folder)

    def _copy(self, copy: Path) -> Path:
        """The file and its journal in one piece, as they were at one moment."""
        for _ in range(TRIES):
            before = self._era()
            shutil.copyfile(self._path, copy)
            beside = copy.with_name(copy.name + "-wal")
            try:
                shutil.copyfile(self._journal, beside)
            except FileNotFoundError:
                # Who wrote it has closed it: all is in the file by now, which the next try copies alone.
                beside.unlink(missing_ok=True)
            # What is added to the journal meanwhile does no harm; what is moved from it into the file does.
            if self._era() == before:
                break
        else:
            raise OSError(f"{self._path} changes too fast to be copied")
        connection = connect(copy)
        try:
            with told(self._path):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        return copy

    def _copy_alone(self, copy: Path) -> Path:
        """A file that is replaced as a whole: what is open is one of them, or, over a network, is gone."""
        for last in (False,) * (TRIES - 1) + (True,):
            try:
                shutil.copyfile(self._path, copy)
                break
            except OSError:
                if last or not self._path.is_file():
                    raise
        return copy

    def _era(self) -> tuple[float, int, bytes]:
        """Changes when SQLite writes into the file itself or begins its journal anew."""
        found = self._path.stat()
        try:
            with self._journal.open("rb") as journal:
                head = journal.read(32)
        except FileNotFoundError:
            head = b""
        return found.st_mtime_ns, found.st_size, head

    def look_again(self) -> Path | None:
        """Another file to open if it has changed and the last look is long enough ago; else None."""
        if time.monotonic() < self._due:
            return None
        if self._stamp() == self._seen:
            self._due = time.monotonic() + self._patience
            return None
        if self._apart and not self._path.is_file():
            self._due = time.monotonic() + PATIENCE
            return None
        return self.look()

    def overtaken(self) -> None:
        """Has the next look be a new one: the file has changed, which over a network is seen late."""
        self._seen, self._due = (), 0.0

    def close(self) -> None:
        """Removes the copies."""
        self._finalizer()


def _remove(folders: list[Path], but: Path | None = None) -> None:
    for folder in [folder for folder in folders if folder != but]:
        shutil.rmtree(folder, ignore_errors=True)
        folders.remove(folder)
