"""A run's knob events as the timeline shows them: marks on the bar, and a list as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_lab.store import Event

MARKS = 120
"""Most marks on the bar: what lies closer together is one mark."""

LISTED = 50
"""Events in the list, the newest first."""


def mark_width(events: int, last: int) -> int:
    """Steps that share a mark: 1, or a power of two, so that marks stay where they are while the run grows."""
    width = 1
    while events > MARKS and width * MARKS < last:
        width *= 2
    return width


def marks(events: Sequence[Event], width: int) -> list[dict[str, Any]]:
    """Marks for the bar: ``step``, ``numbers`` and ``text``; events within ``width`` steps share one."""
    groups: dict[int, list[Event]] = {}
    for event in events:
        groups.setdefault(event.step // width, []).append(event)
    return [_mark(group) for group in groups.values()]


def _mark(group: list[Event]) -> dict[str, Any]:
    first, last = group[0], group[-1]
    if first is last:
        text = f"step {first.step:,}: {first.describe()}"
        return {"step": first.step, "numbers": str(first.number), "text": text}
    where = f"step {first.step:,}" if first.step == last.step else f"steps {first.step:,} to {last.step:,}"
    if len(group) <= 4:
        what = "; ".join(event.describe() for event in group)
    else:
        what = f"{len(group)} knobs turned, from {first.describe()} to {last.describe()}"
    return {"step": first.step, "numbers": f"{first.number}–{last.number}", "text": f"{where}: {what}"}


def rows(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Rows for the list: ``number``, ``step`` and ``text``, the newest first."""
    return [
        {"number": event.number, "step": event.step, "text": event.describe()} for event in reversed(events[-LISTED:])
    ]
