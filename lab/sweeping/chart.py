"""A sweep's labels as dots with bars: each seed a dot, their mean a diamond, their standard deviation a bar."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w
import numpy as np

from lab.lean import bq
from lab.panels.base import NOW, float32, set_mark, ticks
from lab.sweeping.summary import Line, best

INK = "var(--jp-ui-font-color1, #222)"
"""The colour of text, on light as on dark."""
ROW_HEIGHT = 40
"""Pixels of a label."""
MOST = 16
"""Labels that are drawn; beyond, the best ones."""
BELOW, ABOVE = -0.22, 0.2
"""Of the dots and of the words from the middle of their row."""
LONGEST = 64
"""Characters of a label in the picture; the table beside it has all of them."""


class LabelChart:
    """Only the publisher's thread calls :meth:`update`."""

    def __init__(self) -> None:
        self.across = bq.LinearScale(min=0.0, max=100.0, allow_padding=False)
        self.down = bq.LinearScale(min=-0.5, max=0.5, allow_padding=False)
        # Where the words begin does not depend on the numbers.
        self.share = bq.LinearScale(min=0.0, max=1.0, allow_padding=False)
        scales, nothing = {"x": self.across, "y": self.down}, float32([0.0])
        ends = float32(np.zeros((2, 2)))
        self.bars = bq.Lines(x=ends, y=ends, scales=scales, colors=[INK] * 2, stroke_width=1.8, visible=False)
        # A faint line leads the eye from the words to the dots.
        self.rows = bq.Lines(
            x=ends, y=ends, scales={"x": self.share, "y": self.down}, colors=["#8f8f8f"] * 2, stroke_width=1,
            opacities=[0.35] * 2,
        )  # fmt: skip
        self.dots = bq.Scatter(
            x=nothing, y=nothing, scales=scales, colors=[NOW], stroke=NOW, stroke_width=1.4, fill=False,
            default_size=34, visible=False,
        )  # fmt: skip
        self.means = bq.Scatter(
            x=nothing, y=nothing, scales=scales, colors=[NOW], marker="diamond", default_size=72, stroke=INK,
            stroke_width=0.8, visible=False,
        )  # fmt: skip
        self.words = bq.Label(
            x=nothing, y=nothing, text=[""], scales={"x": self.share, "y": self.down}, colors=[INK], default_size=12,
            font_weight="normal", x_offset=0, y_offset=4,
        )  # fmt: skip
        self.leader = bq.Label(
            x=nothing, y=nothing, text=[""], scales={"x": self.share, "y": self.down}, colors=[INK], default_size=12,
            font_weight="bold", x_offset=0, y_offset=4,
        )  # fmt: skip
        self.axis = bq.Axis(
            scale=self.across, label="%", grid_lines="solid", label_offset="30px", tick_format="~g",
            grid_color="rgba(143, 143, 143, .3)",
        )  # fmt: skip
        self.figure = bq.Figure(
            marks=[self.rows, self.bars, self.dots, self.means, self.words, self.leader], axes=[self.axis],
            animation_duration=0,
            fig_margin={"top": 4, "bottom": 40, "left": 14, "right": 14}, padding_x=0.0, padding_y=0.0,
            min_aspect_ratio=0.01, max_aspect_ratio=100,
            layout=w.Layout(width="100%", height=f"{ROW_HEIGHT + 46}px", min_width="0"),
        )  # fmt: skip
        self.heading = w.HTML("<h3>By label</h3>")
        self.note = w.HTML()
        self.widget = w.VBox([self.heading, self.figure, self.note])
        self.widget.add_class("ssl-panel")

    def update(self, found: Sequence[Line], measure: str) -> bool:
        """Draws the lines; says whether anything changed.

        Args:
            found: one for each label.
            measure: what their numbers are, in words.
        """
        drawn = list(found)
        if len(drawn) > MOST:
            kept = sorted(drawn, key=lambda line: line.mean is None or -line.mean)[:MOST]
            drawn = [line for line in drawn if line in kept]
        count = max(len(drawn), 1)
        # The first row is on top, so that positions go down.
        places = np.arange(count, dtype=float)[::-1]
        changed = self._size(count) | self._range(drawn)
        twice = list(places) * 2 if count == 1 else list(places)
        changed |= set_mark(
            self.rows, x=[[0.0, 1.0] for _ in twice], y=[[place + BELOW] * 2 for place in twice],
            colors=["#8f8f8f"] * len(twice), opacities=[0.35] * len(twice),
        )  # fmt: skip
        changed |= name_axis(self.axis, f"{measure}, % of the test images")
        dots = [(value, place) for line, place in zip(drawn, places, strict=False) for value in line.values]
        changed |= self._points(self.dots, dots)
        rows = list(zip(drawn, places, strict=False))
        changed |= self._points(self.means, [(line.mean, place) for line, place in rows if line.mean is not None])
        bars = [
            (line.mean, line.spread, place + BELOW) for line, place in rows if line.mean is not None and line.spread
        ]
        if bars:
            # bqplot takes a single row for one curve of two points: it is drawn twice.
            bars = bars * 2 if len(bars) == 1 else bars
            changed |= set_mark(
                self.bars, x=[[mean - spread, mean + spread] for mean, spread, _ in bars],
                y=[[place, place] for *_, place in bars], colors=[INK] * len(bars), visible=True,
            )  # fmt: skip
        else:
            changed |= set_mark(self.bars, visible=False)
        leader = best(drawn)
        for mark, bold in ((self.words, False), (self.leader, True)):
            text = ["" if (line is leader) != bold else _words(line, bold) for line in drawn] or [""]
            changed |= set_mark(mark, x=np.zeros(count), y=places + ABOVE, text=text)
        note = "Each circle is a seed, the diamond their mean, the bar ± one standard deviation."
        if len(found) > MOST:
            note += f" The best {MOST} of {len(found)} labels are drawn; the table has all."
        if self.note.value != f"<p>{note}</p>":
            self.note.value = f"<p>{note}</p>"
        return changed

    @staticmethod
    def _points(mark: bq.Scatter, points: Sequence[tuple[float, float]]) -> bool:
        if not points:
            return set_mark(mark, visible=False)
        x, y = zip(*points, strict=True)
        return set_mark(mark, x=x, y=np.asarray(y) + BELOW, visible=True)

    def _size(self, count: int) -> bool:
        height = f"{ROW_HEIGHT * count + 46}px"
        if self.figure.layout.height == height and self.down.max == count - 0.5:
            return False
        with self.down.hold_sync():
            self.down.min, self.down.max = -0.5, count - 0.5
        self.figure.layout.height = height
        return True

    def _range(self, drawn: Sequence[Line]) -> bool:
        ends = [end for line in drawn for end in line.values]
        for line in drawn:
            if line.mean is not None:
                spread = line.spread or 0.0
                ends += [max(0.0, line.mean - spread), min(100.0, line.mean + spread)]
        low, high = around(min(ends), max(ends)) if ends else (0.0, 100.0)
        if (self.across.min, self.across.max) == (low, high) and self.axis.tick_values is not None:
            return False
        self.axis.tick_values = ticks(low, high)
        with self.across.hold_sync():
            self.across.min, self.across.max = low, high
        return True

    def close(self) -> None:
        """Frees the widgets in the browser."""
        parts = (*self.figure.marks, self.axis, self.across, self.down, self.share, self.figure)
        for part in (*parts, self.heading, self.note, self.widget):
            part.close()


def around(low: float, high: float) -> tuple[float, float]:
    """Round ends of an axis of per cents that holds both, with some room.

    >>> around(96.2, 97.9), around(50.0, 50.0), around(10.0, 99.0)
    ((96.0, 98.5), (49.0, 51.0), (0.0, 100.0))
    """
    span = max(high - low, 1.0)
    step = next(s for s in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if span / s <= 6 or s == 20.0)
    low, high = low - 0.02 * span, high + 0.02 * span
    below, above = np.floor(low / step) * step, np.ceil(high / step) * step
    if above - below < 2.0:
        below, above = below - 0.5, above + 0.5
    return max(0.0, float(below)), min(100.0, float(above))


def name_axis(axis: bq.Axis, label: str) -> bool:
    """Gives an axis its label, in a message only where that is a change."""
    if axis.label == label:
        return False
    axis.label = label
    return True


def _words(line: Line, leads: bool) -> str:
    label = line.label if len(line.label) <= LONGEST else f"{line.label[: LONGEST - 1]}…"
    # The axis says that it is per cent, and the circles are counted at a glance: there is little room on a phone.
    words = line.words.replace(" %", "").partition(" (n")[0]
    return f"{label}: {words}" + (", best" if leads else "")
