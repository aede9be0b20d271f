"""Which kernels cuDNN may take: a setting of the whole process, which the threads of many runs have in turn."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

Way = tuple[bool, bool, bool]
"""Whether cuDNN tries its kernels and keeps the fastest, takes those only whose sums have one order, and TF32."""

FASTEST: Way = (True, False, True)
IN_FULL: Way = (False, True, False)


class Kernels:
    """Any number of threads have cuDNN set one way at a time; those that need it another way wait for them, and come
    next."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._way: Way | None = None
        """How it is set, or was last."""
        self._holders: set[int] = set()
        """Threads that have it so."""
        self._asked: Counter[Way] = Counter()
        """Threads that wait, by the way in which they need it."""
        self._flags: AbstractContextManager[None] | None = None

    @contextmanager
    def having(self, way: Way) -> Iterator[None]:
        """Inside, cuDNN is set that way."""
        thread = threading.get_ident()
        if thread in self._holders:
            # Within another: nothing to wait for, which would be this thread itself.
            with _flags(way):
                yield
            return
        with self._change:
            self._asked[way] += 1
            try:
                while not self._free(way):
                    self._change.wait()
            finally:
                self._asked[way] -= 1
                self._change.notify_all()
            if not self._holders:
                self._flags = _flags(way)
                self._flags.__enter__()
                self._way = way
            self._holders.add(thread)
        try:
            yield
        finally:
            with self._change:
                self._holders.discard(thread)
                if not self._holders and self._flags is not None:
                    self._flags.__exit__(None, None, None)
                    self._flags = None
                self._change.notify_all()

    def _free(self, way: Way) -> bool:
        if way != self._way:
            return not self._holders
        # Nobody joins those that have it while others wait for them: they would wait for ever.
        return not any(count for other, count in self._asked.items() if other != way)


def _flags(way: Way) -> AbstractContextManager[None]:
    benchmark, deterministic, tf32 = way
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=benchmark, deterministic=deterministic, allow_tf32=tf32
    )
    return flags


_kernels = Kernels()
"""As the setting is the process's, so is who has it."""


@contextmanager
def fastest_kernels(device: torch.device) -> Iterator[None]:
    """cuDNN tries its kernels on the first step of each shape and keeps the fastest."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), _kernels.having(FASTEST):
        yield


@contextmanager
def full_digits(device: torch.device) -> Iterator[None]:
    """No TF32 and one order of sums, for comparisons; the steps of other threads wait meanwhile."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), _kernels.having(IN_FULL):
        yield
