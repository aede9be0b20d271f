"""Files written whole or not at all, and what is said when they cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from ssl_lab.errors import WriteError

CANNOT_WRITE = (OSError, sqlite3.OperationalError)
"""What a disk that is full, read-only or broken raises, through Python or through SQLite."""


def write_whole(path: Path, pieces: Iterable[bytes | memoryview], *, durable: bool = True) -> None:
    """Writes a file under another name, has it on the disk, and gives it its name: temp, fsync, rename, fsync.

    Whatever happens on the way, ``path`` holds what it held before or all of the new; what is half written is removed.

    Args:
        path: the file.
        pieces: what it shall hold.
        durable: it outlives a machine that stops; without it, only what other processes see is whole.

    Raises:
        WriteError: it could not be written; why, and what to do.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        # Not its parents: the folder of a run that somebody removed must not come back.
        path.parent.mkdir(exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            for piece in pieces:
                _write_all(handle, memoryview(piece).cast("B"))
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        # On a disk that is read-only by now nothing can be removed either; a sweep does it later.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_all(handle: int, piece: memoryview) -> None:
    while piece:
        # A disk that fills up takes a part, and says so only when asked for the rest.
        piece = piece[os.write(handle, piece) :]


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk: a new name is there only when its folder is."""
    # Windows cannot open one.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cannot_write(path: Path, error: Exception) -> WriteError:
    """Why a file or folder could not be written, and what to do, in words."""
    number = getattr(error, "errno", None)
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    text = reason.lower()
    if number in (errno.ENOSPC, errno.EDQUOT) or "is full" in text:
        left = _free(path)
        size = "" if left is None else f" ({left / 1e6:,.1f} MB are left)"
        return WriteError(f"{path} cannot be written: the disk is full{size}. Make room on it.")
    # SQLite only says that it is unable to open a file.
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or "readonly" in text or not _may_write(path):
        if isinstance(error, sqlite3.Error):
            reason = "it is read-only here"
        return WriteError(
            f"{path} cannot be written: {reason}. Make it writable, or take another folder (--results or "
            "SSL_LAB_RESULTS)."
        )
    return WriteError(f"{path} cannot be written: {reason}. Look after its disk.")


def _may_write(path: Path) -> bool:
    return next((os.access(folder, os.W_OK) for folder in (path, *path.parents) if folder.exists()), True)


def _free(path: Path) -> int | None:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


class Reserve:
    """A file that does nothing but take up room, given back when the disk is full: the last words need some.

    Args:
        path: the file; the same for whoever has the reserve after this one.
        size: bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def take(self) -> None:
        """Takes up the room.

        Raises:
            OSError: there is none, or nothing can be written here.
        """
        if self._path.is_file() and self._path.stat().st_size == self._size:
            return
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                # Not zeros: some file systems store those as nothing.
                _write_all(handle, memoryview(os.urandom(4096) * (self._size // 4096)))
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Lets others have the room."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
