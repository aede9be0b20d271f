"""``Show``: which parts of a bench a page has. What is left out is not made, so that the first picture comes sooner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.panels import PANELS
from ssl_lab.config import Knobs
from ssl_lab.errors import ConfigError, shown


@dataclass(frozen=True, kw_only=True)
class Show:
    """The parts of a bench; by default all of them.

    Headline, transport and timeline are always there.

    Raises:
        ConfigError: there is no such panel or knob; the message says which there are.
    """

    panels: tuple[str, ...] = tuple(PANELS)
    """Pictures by their ``key``, in reading order."""
    knobs: tuple[str, ...] = tuple(Knobs.model_fields)
    """Knobs by name; they stand in the order of ``Knobs``, under their headings."""
    setup: bool = True
    """Preset and data set, *New run*, *Reset*."""
    shelf: bool = True
    """The list of runs. A house that bounds what a visitor keeps has it in any case: there runs are let go."""
    family: bool = True
    """A button at each knob that begins a family of runs along it."""
    export: bool = True
    """*Take it with you*, and files that are dropped on the page."""

    def __post_init__(self) -> None:
        for what, names, known in (
            ("panel", self.panels, tuple(PANELS)),
            ("knob", self.knobs, tuple(Knobs.model_fields)),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(f"There is no {what} {shown(name)}. The {what}s are: {', '.join(known)}.")


EVERYTHING = Show()


def compact(*, panels: Iterable[str], knobs: Iterable[str], shelf: bool = False) -> Show:
    """A calm page: a few pictures, a few knobs, the transport and the timeline."""
    return Show(panels=tuple(panels), knobs=tuple(knobs), setup=False, shelf=shelf, export=False, family=False)
