"""``Look``: how a run is drawn where several are drawn together, told apart by colour, by line and by width."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_lab.family import MOST


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of a run."""

    colour: str
    line: str
    """``solid``, ``dashed``, ``dotted`` or ``dash_dotted``, as bqplot has them."""
    marker: str = "circle"
    width: float = 2.0
    """Of the line, in pixels."""


# Okabe and Ito's colours, told apart by colour-blind eyes and on white as on black.
SHOWN = Look("#2a8fd4", "solid")
OTHERS = (
    Look("#cc79a7", "dashed", "square"),
    Look("#e69f00", "dotted", "diamond"),
    Look("#8f8f8f", "dash_dotted", "triangle-up"),
)
"""Looks of the runs that are drawn with the shown one."""

ALONG = (
    Look("#582bfa", "solid", "circle", 1.5),
    Look("#bd24b4", "dotted", "square", 2.5),
    Look("#887e78", "dash_dotted", "triangle-up", 2.0),
    Look("#bc875a", "dashed", "diamond", 2.0),
    Look("#7eb604", "dashed", "cross", 4.0),
    Look("#4ec9d3", "solid", "triangle-down", 4.0),
)
"""Looks along a knob's range, darker to lighter, so that a grey print keeps their order. Any two of the colours lie at
least 26 apart in CIELAB for usual eyes and, simulated, for those without one kind of cones; no two lines are alike."""

_PICKED = {1: (0,), 2: (0, 5), 3: (0, 3, 5), 4: (0, 1, 3, 5), 5: (0, 1, 2, 3, 5), 6: (0, 1, 2, 3, 4, 5)}


def family_look(place: int, size: int) -> Look:
    """The look of the member at a place along the range, of a family of so many."""
    picked = _PICKED[min(max(size, 1), MOST)]
    return ALONG[picked[min(max(place, 0), len(picked) - 1)]]
