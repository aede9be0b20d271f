"""What a bench says in words: the headline, what is going on, which colour is which run, and what is wrong."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

import ipywidgets as w

from lab.compare import differences
from lab.looks import SHOWN, Look
from lab.members import family_legend, key_of
from lab.panels.base import looks
from lab.view import RunView

READING = 8.0
"""Seconds that a screen reader gets for a line before it is told the next one."""


class Changes:
    """Writes a widget's traits only where they change: each is a message."""

    def __init__(self, widget: w.Widget) -> None:
        self._widget = widget

    def set(self, name: str, value: Any) -> None:
        """Gives the trait this value."""
        if getattr(self._widget, name) != value:
            setattr(self._widget, name, value)


def mark(widget: w.DOMWidget, name: str, wanted: bool) -> None:
    """Gives a widget a CSS class or takes it away, in a message only where that is a change."""
    if wanted != (name in widget._dom_classes):
        (widget.add_class if wanted else widget.remove_class)(name)


class Words:
    """Four places for text above the pictures. Written by the publisher's thread alone."""

    def __init__(self) -> None:
        self.headline = w.HTML("<b>ssl-lab</b>")
        self.headline.add_class("ssl-headline")
        self.words = w.HTML("Starting…")
        self.words.add_class("ssl-words")
        self.legend = w.HTML()
        self.legend.add_class("ssl-legend")
        self.banner = w.HTML()
        self.banner.add_class("ssl-banner")
        self._read, self._read_time = "", float("-inf")

    def show(self, view: RunView, keys: Sequence[str], state: str = "") -> None:
        """The moment in words.

        Args:
            keys: what the shelf calls the run that is shown, and those that are drawn with it.
            state: what is wrong with the run, where its own state does not say so.
        """
        status = view.status
        loss = f" · loss {view.metrics.loss:.3f}" if view.metrics else ""
        knn = f" · kNN {100 * view.knn[1]:.1f} %" if view.knn else ""
        going = status.steps_per_second and view.shown is None and not state
        rate = f" · {status.steps_per_second:.0f} steps/s" if going else ""
        of = "" if view.shown is None else f" of {view.last:,}"
        badge = html.escape(state or status.state)
        kind = "failed" if state else badge
        headline = (
            f"<b>{html.escape(keys[0])}</b> <span class='ssl-state ssl-{kind}'>{badge}</span> "
            f"<span class='ssl-numbers'>step <b data-step='{view.step}'>{view.step:,}</b>{of}"
            f" · epoch {view.epoch:.1f}{loss}{knn}{rate}</span>"
        )
        Changes(self.headline).set("value", headline)
        Changes(self.words).set("value", view.words)
        Changes(self.legend).set("value", _legend(view, keys))

    def to_be_read(self, view: RunView) -> str:
        """What a screen reader shall read out now; empty if it is still at the last line, or has read this one."""
        if view.words == self._read or time.monotonic() - self._read_time <= READING:
            return ""
        self._read, self._read_time = view.words, time.monotonic()
        return view.words

    def nothing(self, why: str) -> None:
        """There is no run to speak of."""
        Changes(self.words).set("value", html.escape(why))

    def warn(self, errors: Iterable[str], hints: Iterable[str] = ()) -> None:
        """What is wrong, and what there is to know; each line once."""
        errors = [line for line in dict.fromkeys(errors) if line]
        hints = [line for line in dict.fromkeys(hints) if line and line not in errors]
        value = "".join(f"<p role='alert' class='ssl-error'>{html.escape(line)}</p>" for line in errors)
        value += "".join(f"<p class='ssl-hint'>{html.escape(line)}</p>" for line in hints)
        Changes(self.banner).set("value", value)


def _legend(view: RunView, keys: Sequence[str]) -> str:
    """Which colour is which run, and how they differ."""
    if not view.others:
        return ""
    runs = [view, *view.others]
    if len(view.members) > 1:
        family = family_legend(view, {run.id: key for run, key in zip(runs, keys, strict=False)})
        strangers = [(key, run) for key, run in zip(keys, runs, strict=False) if run.family is None]
        if not strangers:
            return family
        return f"{family}<p>{_keys([(key, looks_of(view, run)) for key, run in strangers])}</p>"
    drawn = [(key, looks_of(view, run)) for key, run in zip(keys, runs, strict=False)]
    lines = "".join(f"<p class='ssl-difference'>{html.escape(line)}</p>" for line in differences(view))
    return f"<p>{_keys(drawn)}</p>{lines}"


def looks_of(view: RunView, run: RunView) -> Look:
    """How one of the runs that are drawn looks."""
    if run is view:
        return view.look or SHOWN
    return looks(view)[next(place for place, other in enumerate(view.others) if other is run)]


def _keys(drawn: Sequence[tuple[str, Look]]) -> str:
    return "".join(f"<span class='ssl-key'>{key_of(look)} {html.escape(key)}</span>" for key, look in drawn)
