"""A table or figure as bars: what is in print, with its spread, and what a study came to, with its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as w
import numpy as np

from lab.lean import bq
from lab.panels.base import NOW, float32, set_mark, ticks
from lab.reproduction.numbers import Sample

PRINT, AUTHORS = "#8f8f8f", "#d55e00"
INK = "var(--jp-ui-font-color1, #222)"
"""The colour of text, on light as on dark."""
ROW_HEIGHT = 44
"""Pixels of a row's bars."""
OFFSET = 0.2
"""Of a bar from the middle of its row."""
BAR = 0.62
"""Share of a row that is not taken by one bar."""
LAST = 100.0
ROOM = 0.17
"""Of the axis, for the number beside a bar that is full."""


@dataclass(frozen=True)
class Shown:
    """What is drawn of a row."""

    ours: Sample | None = None
    s: Sample | None = None
    p: Sample | None = None
    hidden: bool = False
    """Whether its numbers wait for a bet."""


class StudyChart:
    """Horizontal bars, a pair for each row. Only the publisher's thread calls :meth:`update`.

    Args:
        title: heading.
        caption: how to read it.
        rows: row -> its name.
        least: where the axis begins at the earliest; it goes down in tens to what there is to see.
    """

    def __init__(self, title: str, caption: str, rows: Mapping[str, str], *, least: float = 0.0) -> None:
        self.rows, self._names, self._least, self._caption = tuple(rows), tuple(rows.values()), least, caption
        count = len(rows)
        # The first row is on top, so that positions go down.
        self._places = np.arange(count, dtype=float)[::-1]
        self.across = bq.LinearScale(min=0.0, max=(1 + ROOM) * LAST, allow_padding=False)
        self.down = bq.LinearScale(min=-0.5, max=count - 0.5, allow_padding=False)
        bars, points = {"x": self.down, "y": self.across}, {"x": self.across, "y": self.down}
        nothing, ends = np.zeros(count), np.zeros((2, 2))

        def bar(offset: float, colour: str, opacity: float) -> bq.Bars:
            return bq.Bars(
                x=float32(self._places + offset), y=float32(nothing), scales=bars, orientation="horizontal",
                colors=[colour], opacities=[opacity] * count, stroke=colour, padding=BAR, base=0.0,
            )  # fmt: skip

        def lines(colour: str, width: float, style: str = "solid") -> bq.Lines:
            return bq.Lines(
                x=float32(ends), y=float32(ends), scales=points, colors=[colour] * 2, stroke_width=width,
                line_style=style, visible=False,
            )  # fmt: skip

        def words(colour: str, weight: str = "normal") -> bq.Label:
            return bq.Label(
                x=float32(nothing), y=float32(self._places), text=[""] * count, scales=points, colors=[colour],
                default_size=11, font_weight=weight, x_offset=6, y_offset=4,
            )  # fmt: skip

        self.printed, self.ours = bar(OFFSET, PRINT, 0.45), bar(-OFFSET, NOW, 1.0)
        self.whiskers = {"ours": lines(INK, 1.8), "p": lines(AUTHORS, 1.8)}
        self.baselines = {"untrained": lines(NOW, 1.5, "dashed"), "supervised": lines(NOW, 1.5, "dotted")}
        self.authors = bq.Scatter(
            x=float32(nothing), y=float32(self._places + OFFSET), scales=points, colors=[AUTHORS], marker="diamond",
            default_size=44, opacities=[0.0] * count,
        )  # fmt: skip
        self.labels = {"s": words(INK), "ours": words(INK, "bold")}
        self.axis_across = bq.Axis(
            scale=self.across, label="linear probe, % of the test images", grid_lines="solid", label_offset="30px",
            grid_color="rgba(143, 143, 143, .3)", tick_format="~g",
        )  # fmt: skip
        self.axis_down = bq.Axis(
            scale=self.down, side="left", grid_lines="none", tick_values=self._places,
            tick_labels={f"{place:g}": name for place, name in zip(self._places, self._names, strict=True)},
        )  # fmt: skip
        self.figure = bq.Figure(
            marks=[*self.baselines.values(), self.printed, self.ours, *self.whiskers.values(), self.authors,
                   *self.labels.values()],
            axes=[self.axis_across, self.axis_down], animation_duration=0,
            fig_margin={"top": 6, "bottom": 40, "left": 118, "right": 8}, padding_x=0.0, padding_y=0.0,
            min_aspect_ratio=0.1, max_aspect_ratio=20,
            layout=w.Layout(width="100%", height=f"{ROW_HEIGHT * count + 46}px", min_width="0"),
        )  # fmt: skip
        self.heading = w.HTML(f"<h3>{title}</h3>")
        self.note = w.HTML(f"<p>{caption}</p>")
        self.widget = w.VBox([self.heading, self.figure, self.note])
        self.widget.add_class("ssl-panel")
        self._range(least)

    def update(self, rows: Mapping[str, Shown], baselines: Mapping[str, Sample]) -> bool:
        """Draws them; says whether anything changed.

        Args:
            rows: row -> what is known of it; one that is left out has nothing.
            baselines: untrained, supervised -> what the study came to.
        """
        shown = [rows.get(row, Shown()) for row in self.rows]
        seen = [s for row in shown if not row.hidden for s in (row.ours, row.s, row.p) if s is not None]
        seen += baselines.values()
        lows = [s.mean - (s.spread or 0.0) for s in seen]
        low = min([self._least, *(10.0 * np.floor(max(0.0, value) / 10.0) for value in lows)])
        changed = self._range(float(low))
        ours = [None if row.hidden else row.ours for row in shown]
        s = [None if row.hidden else row.s for row in shown]
        p = [None if row.hidden else row.p for row in shown]
        changed |= set_mark(self.printed, y=_values(s))
        changed |= set_mark(self.ours, y=_values(ours))
        changed |= self._whiskers("ours", zip(self._places - OFFSET, ours, strict=True))
        changed |= self._whiskers("p", zip(self._places + OFFSET, p, strict=True))
        changed |= set_mark(
            self.authors, x=[max(low, sample.mean) if sample else low for sample in p],
            opacities=[1.0 if sample else 0.0 for sample in p],
        )  # fmt: skip
        beyond = [max(_end(a), _end(b), low) for a, b in zip(s, p, strict=True)]
        changed |= set_mark(
            self.labels["s"], x=beyond, y=self._places + OFFSET,
            text=["bet first" if row.hidden else f"{a.mean:.1f}" if a else "" for row, a in zip(shown, s, strict=True)],
        )  # fmt: skip
        ends = [max(_end(a), low) for a in ours]
        changed |= set_mark(
            self.labels["ours"], x=ends, y=self._places - OFFSET, text=[f"{a.mean:.1f}" if a else "" for a in ours]
        )
        height = (-0.5, len(self.rows) - 0.5)
        for name, mark in self.baselines.items():
            sample = baselines.get(name)
            if sample is None:
                changed |= set_mark(mark, visible=False)
            else:
                # bqplot takes a single row for one curve of two points: it is drawn twice.
                changed |= set_mark(mark, x=[[sample.mean] * 2] * 2, y=[height] * 2, visible=True)
        return changed

    def _whiskers(self, name: str, places: Iterable[tuple[float, Sample | None]]) -> bool:
        mark = self.whiskers[name]
        there = [(place, a.mean, a.spread) for place, a in places if a is not None and a.spread is not None]
        if not there:
            return set_mark(mark, visible=False)
        there = there * 2 if len(there) == 1 else there
        x = [[mean - spread, mean + spread] for _, mean, spread in there]
        y = [[place, place] for place, _, _ in there]
        return set_mark(mark, x=x, y=y, colors=[mark.colors[0]] * len(there), visible=True)

    def _range(self, low: float) -> bool:
        if self.across.min == low and self.axis_across.tick_values is not None:
            return False
        self.axis_across.tick_values = ticks(low, LAST)
        with self.across.hold_sync():
            self.across.min, self.across.max = low, LAST + ROOM * (LAST - low)
        # A bar that begins elsewhere than at nothing must say so.
        cut = f" The axis begins at {low:g} %." if low else ""
        self.note.value = f"<p>{self._caption}{cut}</p>"
        return True

    def close(self) -> None:
        """Frees the widgets in the browser."""
        parts = (*self.figure.marks, self.axis_across, self.axis_down, self.across, self.down, self.figure)
        for part in (*parts, self.heading, self.note, self.widget):
            part.close()


def _values(samples: Sequence[Sample | None]) -> list[float]:
    return [sample.mean if sample else 0.0 for sample in samples]


def _end(sample: Sample | None) -> float:
    """Where a bar ends with its whisker."""
    return 0.0 if sample is None else sample.mean + (sample.spread or 0.0)
