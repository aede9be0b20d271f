"""Freed memory that is kept for the next step, instead of being fetched from the system anew."""

from __future__ import annotations

import ctypes
import sys

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for what comes next; gives whether it could be told (glibc only).

    A step allocates the same blocks as the one before. By default glibc gives each block of 128 kB or more back to the
    system and gets it anew, and every first touch of a page is a fault: ResNet-18 at batch 128 met 640,000 of them a
    step, a tenth of its time, and the digits 50. At most 2 GB are held; :func:`give_back` returns them.
    """
    libc = _glibc()
    if libc is None:
        return False
    return all(libc.mallopt(*pair) for pair in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 26)))


def give_back() -> None:
    """Returns freed memory to the system: a run has ended that may have needed much."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except OSError:
        return None
