"""Worker processes of this machine; no torch."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from ssl_lab.sweep.work import Outcome, Task, outcome_of

LAST_WORDS = 60.0
"""Seconds that a worker has to save what it computes when the process that started it is gone."""


def _leave_with_parent() -> None:
    """Has a worker end when the process that started it was killed: nobody hands it anything any more."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            time.sleep(LAST_WORDS)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_leave_with_parent)


class LocalCrew:
    """So many worker processes, each of which keeps what it has loaded for its next task.

    Each is a pool of its own: one that is killed takes nothing with it but its own task.

    Args:
        workers: processes at once.
    """

    with_ray = False
    pause = 0.0
    machines = 1

    def __init__(self, workers: int) -> None:
        self.slots: int | None = workers
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[str], tuple[str, ProcessPoolExecutor]] = {}

    def hand(self, task: Task) -> None:
        """Has a task computed."""
        pool = self._idle.pop() if self._idle else _pool()
        try:
            future = pool.submit(task.do, *task.arguments)
        except BrokenProcessPool:
            # It was killed while it had nothing to do.
            pool.shutdown()
            pool = _pool()
            future = pool.submit(task.do, *task.arguments)
        self._busy[future] = task.name, pool

    def ended(self, seconds: float) -> list[Outcome]:
        """The tasks that ended; waits for one, so long at most."""
        if not self._busy:
            time.sleep(seconds)
        finished, _ = wait(self._busy, timeout=seconds, return_when=FIRST_COMPLETED)
        found = []
        for future in finished:
            name, pool = self._busy.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                pool.shutdown()
                why = "Its process was killed, by somebody or by the system for want of memory."
                found.append(Outcome(name, why, lost=True))
                continue
            if error is None:
                found.append(Outcome(name, future.result()))
            elif isinstance(error, Exception):
                found.append(outcome_of(name, error))
            else:
                # Ctrl-C met it before it ignored that; raised here, it would end all the others too.
                found.append(Outcome(name, f"Its process was interrupted ({type(error).__name__}).", lost=True))
            self._idle.append(pool)
        return found

    def let_go(self) -> None:
        """None waits here."""

    def trouble(self) -> str:
        """There is none here."""
        return ""

    def close(self) -> None:
        """Ends the processes; waits for what is under way."""
        for pool in (*self._idle, *(pool for _, pool in self._busy.values())):
            pool.shutdown()
        self._idle, self._busy = [], {}
