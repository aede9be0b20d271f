"""What a page may set of the widgets that show a bench. All else that it sends is passed over.

A page is told of every synced trait, and by the protocol of widgets it may set every one: also a limit, a label, the
base of a slider's logarithm. Here each kind of widget has the few that are a person's to set, each with a check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeGuard

import ipywidgets as w
from ipywidgets.widgets.widget_selection import _Selection
from traitlets import TraitError

from lab.browser import Browser
from lab.shelf import Shelf
from lab.theory.board import Board, are_switches, are_values, is_speed
from lab.timeline import Timeline

log = logging.getLogger(__name__)

LONGEST = 2_000
"""Characters of a text that a page may set: an address is not longer."""

MOST_NAMES = 16
"""Entries of a list of names, and parameters of an address."""

LARGEST = 2**53
"""Whole numbers of a browser end here."""

Check = Callable[[Any], bool]


def is_whole(value: object, low: int = -LARGEST, high: int = LARGEST) -> TypeGuard[int]:
    """Whether it is a whole number between the two."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_text(value: object, longest: int = LONGEST) -> TypeGuard[str]:
    """Whether it is a text of at most so many characters."""
    return isinstance(value, str) and len(value) <= longest


def _is_number(value: object) -> bool:
    # Of what is not a number, no comparison holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) <= MOST_NAMES and all(map(is_text, value))


def _is_query(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MOST_NAMES
        and all(is_text(name, 100) and is_text(word) for name, word in value.items())
    )


_DOORS: tuple[tuple[type, Mapping[str, Check]], ...] = (
    (
        Browser,
        {
            "query": _is_query,
            "key": is_text,
            "visible": _is_truth,
            "alive": is_whole,
            "width": is_whole,
            "dark": _is_truth,
            "painted": is_whole,
        },
    ),
    (Timeline, {"step": lambda value: is_whole(value, -1)}),
    (Shelf, {"ticked": _are_names}),
    (Board, {"values": are_values, "switches": are_switches, "speed": is_speed, "zoom": _is_truth}),
    (_Selection, {"index": lambda value: is_whole(value, 0)}),
    (w.Checkbox, {"value": _is_truth}),
    (w.BoundedIntText, {"value": is_whole}),
    (w.FloatSlider, {"value": _is_number}),
    (w.FloatLogSlider, {"value": _is_number}),
    (w.BoundedFloatText, {"value": _is_number}),
)


def doors(widget: w.Widget) -> Mapping[str, Check]:
    """The traits of a widget that a page may set, each with its check."""
    return next((doors for kind, doors in _DOORS if isinstance(widget, kind)), {})


def close_doors(widgets: Iterable[w.Widget]) -> None:
    """From now on a page sets of these widgets what it may, and nothing else."""
    for widget in widgets:
        # What is there before may be more than the class's own, such as one that holds a control's lock meanwhile.
        widget.set_state = partial(_set_state, widget, widget.set_state)


def _set_state(widget: w.Widget, take: Callable[[dict[str, Any]], None], sent: Any) -> None:
    if not isinstance(sent, dict):
        return
    allowed = doors(widget)
    state = {name: value for name, value in sent.items() if name in allowed and allowed[name](value)}
    if not state:
        return
    try:
        take(state)
    except (TraitError, ValueError, TypeError, ArithmeticError) as error:
        # Out of a list's range, say: the control stays as it is.
        log.debug("A page set %s of %s: %s", list(state), type(widget).__name__, error)


def parts(widget: w.Widget) -> Iterator[w.Widget]:
    """A widget and all that it is made of, each once."""
    seen: set[int] = set()
    waiting: list[Any] = [widget]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, w.Widget) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [getattr(part, name) for name in part.keys if name != "comm"]
