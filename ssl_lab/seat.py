"""A place that one holder has at a time: a lock on a file, which the system gives back however its process ends.

No clock and no process number is asked, so that neither a clock that jumps nor a number that is given anew matters.
"""

from __future__ import annotations

import stat
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 1.0
"""Seconds for which a seat is waited for: whoever looks whether it is taken holds it for a moment."""


class Seat:
    """The right to do something alone, such as to drive a run.

    Args:
        path: the file of the lock; it stays when the seat is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None

    def take(self) -> bool:
        """Takes the seat; False if another process, or another ``Seat`` of this one, has it.

        Raises:
            OSError: the file cannot be made here.
        """
        if self._lock is not None:
            return True
        # Taken in one thread, left in another.
        lock = FileLock(self._path, timeout=PATIENCE, thread_local=False)
        try:
            lock.acquire(poll_interval=0.01)
        except Timeout:
            return False
        except NotImplementedError:
            # A file system without locks: the heartbeat is all there is.
            return True
        self._lock = lock
        return True

    def leave(self) -> None:
        """Gives the seat back; nothing to do for one that was not taken."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def taken(path: Path) -> bool | None:
    """Whether somebody has the seat of this file; None where that cannot be told."""
    try:
        # A stranger's folder may hold a link to any file: to take a lock may make it anew, empty.
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
    except OSError:
        return None
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None
    lock.release()
    return False
