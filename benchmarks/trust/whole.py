"""Is the record of a run whole? Every command answered by exactly its event, every step there once."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_lab.config import Knobs
from ssl_lab.errors import KnobError
from ssl_lab.store import Event, RunStore


@dataclass(frozen=True)
class Turned:
    """A ``set`` command of the record."""

    id: int
    payload: Mapping[str, Any]
    state: str
    answer: str
    step: int | None


def _read(store: RunStore, query: str) -> list[tuple[Any, ...]]:
    """Rows as they stand there, also those that the lab would not take."""
    with contextlib.closing(sqlite3.connect(store.path, timeout=10.0)) as db:
        return db.execute(query).fetchall()


def turned(store: RunStore) -> list[Turned]:
    """All ``set`` commands, in the order in which they were sent."""
    rows = _read(store, "SELECT id, payload, state, answer, step FROM commands WHERE kind = 'set' ORDER BY id")
    return [Turned(r[0], json.loads(r[1]), r[2], r[3], r[4]) for r in rows]


def faults(store: RunStore, *, knobs: bool = True, commands: bool = True) -> list[str]:
    """What is wrong with a run's record, in words; empty if nothing is.

    Args:
        commands: the file has the commands beside the events, as one from elsewhere has not.
        knobs: the status must have the knobs after the last event. Not so between a notebook's turn and the step
            before which it is logged.
    """
    found = []
    events = store.events()
    own = events[store.parent.events if store.parent else 0 :]
    if [event.number for event in events] != list(range(1, len(events) + 1)):
        found.append(f"events are numbered {[event.number for event in events]}")
    if (altered := store.altered_event()) is not None:
        found.append(f"event {altered} is missing or not as it was logged")
    if knobs and (difference := store.knobs_after(len(events)).difference(store.status().knobs)):
        found.append(f"the status has {difference}, which no event says")
    sets = turned(store)
    start = store.knobs_after(len(events) - len(own))
    done = [command for command in sets if command.state == "done"]
    if commands and not _fit(start, own, done):
        found.append(
            f"{len(done)} obeyed commands {[dict(c.payload) for c in done][-6:]} and {len(own)} events "
            f"{[e.changes for e in own][-6:]} do not belong together"
        )
    found += [f"the command {c.id} was refused without a word" for c in sets if c.state == "refused" and not c.answer]
    count, least, most, largest = _read(
        store, "SELECT count(*), coalesce(min(step), 0), coalesce(max(step), 0), max(abs(loss)) FROM metrics"
    )[0]
    if count and count != most - least + 1:
        found.append(f"of the steps {least} to {most}, {count} are on record")
    if largest is not None and not math.isfinite(largest):
        found.append("a loss on record is not finite")
    return found


def _fit(knobs: Knobs, events: Sequence[Event], commands: Sequence[Turned]) -> bool:
    """Whether each command that changed something has its event and each event its command, in this order.

    A notebook's turns have no command.
    """
    # At most two ways go on from each place: a notebook's turn may stand before or after a command of the same step.
    ways = [(knobs, 0, 0)]
    seen = set()
    while ways:
        now, event, command = ways.pop()
        if event == len(events) and command == len(commands):
            return True
        if (event, command) in seen:
            continue
        seen.add((event, command))
        logged = events[event] if event < len(events) else None
        if logged is not None and any(getattr(now, name) != value for name, value in logged.before.items()):
            continue
        if logged is not None and logged.origin != "page" and logged.changes:
            ways.append((now.changed(logged.changes), event + 1, command))
        if command < len(commands):
            try:
                after = now.changed(commands[command].payload)
            except KnobError:
                continue
            changes = now.difference(after)
            if not changes:
                ways.append((now, event, command + 1))
            elif (
                logged is not None
                and (logged.origin, logged.changes) == ("page", changes)
                and (logged.step == commands[command].step)
            ):
                ways.append((after, event + 1, command + 1))
    return False
