"""What all panels share: a figure with two axes that fills its place, and a caption that says how to read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import ipywidgets as w
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.doors import close_doors
from lab.lean import bq
from lab.looks import OTHERS, SHOWN, Look
from lab.view import RunView
from ssl_lab.pyramid import Curve

NOW = SHOWN.colour
MARK = "#d55e00"
THEORY = "#009e73"


def float32(values: ArrayLike) -> NDArray[np.float32]:
    """As bqplot sends it: contiguous, four bytes a number."""
    return np.ascontiguousarray(values, dtype=np.float32)


class Panel(ABC):
    """One picture of a run. Subclasses make ``marks`` and draw a view in :meth:`update`.

    Only the publisher's thread calls :meth:`update`.
    """

    key: ClassVar[str]
    """What a page asks for it by."""
    title: str
    caption: str
    x_label: str
    y_label: str

    def __init__(self, x: bq.Scale, y: bq.Scale, marks: list[bq.Mark]) -> None:
        self.x, self.y = x, y
        self.axis_x = bq.Axis(scale=x, label=self.x_label, grid_lines="none", label_offset="30px")
        self.axis_y = bq.Axis(scale=y, label=self.y_label, side="left", label_offset="46px")
        # The numbers stand off the line that they belong to.
        self.axis_y.tick_style = {"transform": "translateX(-4px)"}
        for scale in (x, y):
            scale.allow_padding = False
            self.set_range(scale, scale.min, scale.max)
        self.figure = bq.Figure(
            marks=marks,
            axes=[self.axis_x, self.axis_y],
            animation_duration=0,
            fig_margin={"top": 10, "bottom": 40, "left": 60, "right": 16},
            padding_x=0.0,
            padding_y=0.0,
            min_aspect_ratio=0.1,
            max_aspect_ratio=20,
            layout=w.Layout(width="100%", height="210px", min_width="0"),
        )
        self.heading = w.HTML(f"<h3>{self.title}</h3>")
        self.note = w.HTML(f"<p>{self.caption}</p>")
        self.widget = w.VBox([self.heading, self.figure, self.note])
        self.widget.add_class("ssl-panel")

    def set_range(self, scale: bq.Scale, low: float, high: float) -> None:
        """Moves an axis' ends and its ticks, in one message each and only if they changed."""
        axis = self.axis_x if scale is self.x else self.axis_y
        if scale.min == low and scale.max == high and axis.tick_values is not None:
            return
        logarithmic = isinstance(scale, bq.LogScale)
        with axis.hold_sync():
            axis.tick_values = decades(low, high) if logarithmic else ticks(low, high)
            axis.tick_format = ".0e" if logarithmic else "~g"
        with scale.hold_sync():
            scale.min, scale.max = low, high

    @abstractmethod
    def update(self, view: RunView) -> None:
        """Draws the view."""

    def add_mark(self, mark: bq.Mark) -> None:
        """One more mark under the others, made when it is first needed: most pages never need it."""
        # It comes after the page's doors were closed.
        close_doors([mark])
        self.figure.marks = [mark, *self.figure.marks]

    def draw_others(
        self, marks: list[bq.Mark], curves: list[Curve], looks: list[Look], make: Callable[[], bq.Mark]
    ) -> None:
        """Draws a curve or cloud for each run that is drawn with the shown one, and hides the marks left over.

        Args:
            marks: those that were made so far.
            looks: one for each curve.
            make: makes one more.
        """
        while len(marks) < len(curves):
            marks.append(make())
            self.add_mark(marks[-1])
        for mark, (x, y), look in zip(marks, curves, looks, strict=False):
            dress(mark, look)
            if len(x) == 0:
                mark.visible = False
                continue
            if len(x) == 1:
                x, y = np.repeat(x, 2), np.repeat(y, 2)
            with mark.hold_sync():
                mark.x, mark.y, mark.visible = float32(x), float32(y), True
        for mark in marks[len(curves) :]:
            if mark.visible:
                mark.visible = False

    def close(self) -> None:
        """Frees the widgets in the browser."""
        for part in (*self.figure.marks, self.axis_x, self.axis_y, self.x, self.y, self.figure):
            part.close()
        for part in (self.heading, self.note, self.widget):
            part.close()


def dress(mark: bq.Mark, look: Look) -> None:
    """Has a mark look so, in a message only where that is a change."""
    colours = [look.colour] * max(1, len(mark.colors))
    with mark.hold_sync():
        if mark.colors != colours:
            mark.colors = colours
        if isinstance(mark, bq.Lines):
            if mark.line_style != look.line:
                mark.line_style = look.line
            if mark.stroke_width != look.width:
                mark.stroke_width = look.width
        elif mark.marker != look.marker:
            mark.marker = look.marker


def looks(view: RunView) -> list[Look]:
    """How the runs that are drawn with the shown one look."""
    free = iter(OTHERS)
    return [other.look or next(free, OTHERS[-1]) for other in view.others]


def ticks(low: float, high: float, most: int = 6) -> NDArray[np.float64]:
    """At most ``most`` round numbers from low to high.

    >>> ticks(-0.2, 1.05).tolist()
    [0.0, 0.5, 1.0]
    """
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(s * power for s in (1, 2, 5, 10, 20, 50) if (high - low) / (s * power) < most)
    numbers = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1)
    return np.asarray(np.round(numbers * step, 12), dtype=np.float64)


def decades(low: float, high: float, most: int = 5) -> NDArray[np.float64]:
    """Powers of ten from low to high, every second or third one if there are many."""
    first, last = round(np.log10(low)), round(np.log10(high))
    return np.asarray(10.0 ** np.arange(first, last + 1, 1 + (last - first) // most))


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7.5, 10 times a power of ten: a range that does not jump at every tick."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= value * (1 - 1e-9)))


def set_mark(mark: bq.Mark, **traits: object) -> bool:
    """Gives a mark what is new, in one message; says whether anything was."""
    new: dict[str, object] = {}
    for name, value in traits.items():
        if name in ("x", "y"):
            array = float32(value)  # type: ignore[arg-type]
            if not _same(getattr(mark, name), array):
                new[name] = array
        elif _plain(getattr(mark, name)) != value:
            new[name] = value
    if new:
        with mark.hold_sync():
            for name, value in new.items():
                setattr(mark, name, value)
    return bool(new)


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _same(a: ArrayLike | None, b: ArrayLike) -> bool:
    return a is not None and np.array_equal(np.asarray(a), np.asarray(b))
