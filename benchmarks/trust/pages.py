"""What pages do in processes of their own, as kernels do, without torch: steer a run, log events, claim a run."""

from __future__ import annotations

import json
import multiprocessing as mp
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from ssl_lab import seat
from ssl_lab.errors import SSLLabError
from ssl_lab.store import RunStore, event_digest

PAIRS: Sequence[tuple[str, str]] = (("lr", "lr_predictor"), ("eps", "rho"))
"""Knobs that are always turned together, to one value."""

PATIENCE = 60.0
"""Seconds that processes wait for each other."""


def pair(turn: int) -> dict[str, float]:
    """The knobs of a turn, which no other turn has."""
    value = 0.01 + turn * 1e-6
    return dict.fromkeys(PAIRS[turn % 2], value)


def torn(knobs: Any) -> list[str]:
    """Pairs that do not agree."""
    return [
        f"{a} {getattr(knobs, a)}, {b} {getattr(knobs, b)}" for a, b in PAIRS if getattr(knobs, a) != getattr(knobs, b)
    ]


def steer(path: Path, first: int, turns: int, start: Barrier, report: Any) -> None:
    """A page: turns pairs as fast as it can, and looks at what it reads meanwhile."""
    wrong: list[str] = []
    start.wait(PATIENCE)
    with RunStore.open(path) as store:
        for turn in range(first, first + turns):
            store.send("set", pair(turn))
            if turn % 5 == 0:
                wrong += [f"a page read {words}" for words in torn(store.status().knobs)]
                numbers = [event.number for event in store.events()]
                if numbers != list(range(1, len(numbers) + 1)):
                    wrong.append(f"a page read events numbered {numbers[-5:]}")
    report.put(wrong)


def log(path: Path, first: int, count: int, start: Barrier, report: Any, naive: bool) -> None:
    """Logs events as fast as it can; ``naive`` numbers them before it has the file to itself."""
    wrong: list[str] = []
    start.wait(PATIENCE)
    with RunStore.open(path) as store:
        add = _add_by_count if naive else RunStore.add_event
        for turn in range(first, first + count):
            changes = pair(turn)
            try:
                add(store, 0, changes, changes, "page")
            except Exception as error:
                wrong.append(f"an event could not be logged: {type(error).__name__}: {error}")
    report.put(wrong)


def _add_by_count(
    store: RunStore, step: int, before: Mapping[str, Any], changes: Mapping[str, Any], origin: str
) -> int:
    """Planted: the number is found outside of the transaction that uses it."""
    events = store.events()
    number = len(events) + 1
    digest = event_digest(events[-1].digest if events else "", step, changes, before, origin)
    row = (number, step, time.time(), json.dumps(dict(changes)), json.dumps(dict(before)), origin, digest)
    with store.transaction() as db:
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        store.set_meta("seal", {"count": number, "digest": digest})
    return number


def claim(path: Path, tries: int, together: Barrier, report: Any, naive: bool) -> None:
    """Tries to become the driver at the same moment as others, again and again; reports when it was."""
    got = []
    # Nobody looks at the seat here, for whom the one who loses would have to wait.
    seat.PATIENCE = 0.1
    with RunStore.open(path) as store:
        for _ in range(tries):
            together.wait(PATIENCE)
            mine = False
            with suppress(SSLLabError):
                _claim_apart(store) if naive else store.claim("train")
                mine = True
            got.append(mine)
            together.wait(PATIENCE)
            if mine:
                with suppress(SSLLabError):
                    store.release()
    report.put(got)


def _claim_apart(store: RunStore) -> None:
    """Planted: looks whether somebody drives, and then takes the run."""
    if store.driven():
        raise SSLLabError("Somebody drives.")
    import os
    import socket

    store.set_status(host=socket.gethostname(), pid=os.getpid(), owner="train")


@contextmanager
def processes(count: int, target: Callable[..., None], arguments: Callable[[int], tuple[Any, ...]]) -> Iterator[Any]:
    """So many processes that begin together; gives a function that waits for all reports.

    ``target`` is called with the process's own arguments, then the barrier and the queue of reports; what further
    arguments it takes stand last in a second tuple.
    """
    context = mp.get_context("spawn")
    start, report = context.Barrier(count), context.Queue()
    started = []
    for number in range(count):
        own, further = arguments(number)
        process = context.Process(target=target, args=(*own, start, report, *further), daemon=True)
        process.start()
        started.append(process)

    def wait() -> list[Any]:
        found = [report.get(timeout=10 * PATIENCE) for _ in started]
        for process in started:
            process.join(timeout=PATIENCE)
        return found

    try:
        yield wait
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
            process.join()
