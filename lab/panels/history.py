"""Curves over the steps of a run, with a mark at each step where a knob was turned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab.lean import bq
from lab.looks import SHOWN
from lab.panels.base import MARK, NOW, Panel, dress, float32, looks, round_up
from lab.panels.ends import Ends
from lab.view import CurveName, RunView
from ssl_lab.config import DATASETS
from ssl_lab.pyramid import Curve

MARKS = 60
"""Most events marked in a panel; the list under the panels has them all."""


ROOM = 1.12
"""Width of the axis over that of the curves where their ends are labelled."""


class Over(Panel):
    """One curve over the steps."""

    x_label = "step"
    name: CurveName

    def __init__(self, low: float, high: float) -> None:
        x, y = bq.LinearScale(min=0.0, max=100.0), bq.LinearScale(min=low, max=high)
        self.line = bq.Lines(
            x=float32([0, 1]), y=float32([0, 0]), scales={"x": x, "y": y}, colors=[NOW], stroke_width=2, visible=False
        )
        # A scale of its own, so that the marks reach from bottom to top wherever the curve is.
        height = bq.LinearScale(min=0.0, max=1.0)
        self.marks = bq.Lines(
            x=float32([[0, 0], [0, 0]]), y=float32([[0, 1], [0, 1]]), scales={"x": x, "y": height}, colors=[MARK],
            opacities=[0.8], stroke_width=1.5, line_style="dashed", visible=False,
        )  # fmt: skip
        self.numbers = bq.Label(
            x=float32([0]), y=float32([0.93]), text=["1"], scales={"x": x, "y": height}, colors=[MARK],
            default_size=11, x_offset=4, font_weight="bold", visible=False,
        )  # fmt: skip
        self._marked: tuple[str, int] = ("", 0)
        self.ahead = True
        """Whether an earlier moment shows, faintly, what came later; a lesson that asks for it does not."""
        self.others: list[bq.Lines] = []
        self.ends = Ends(self)
        self.later: bq.Lines | None = None
        self.cursor: bq.Lines | None = None
        super().__init__(x, y, [self.marks, self.line, self.numbers])

    def curve(self, curves: Mapping[CurveName, Curve]) -> Curve:
        """(steps, values) of a run."""
        return curves[self.name]

    def fit(self, low: float, high: float) -> None:
        """Moves the vertical range to the values shown."""

    def say(self, caption: str) -> None:
        """Puts a caption under the picture, in one message and only if it is another."""
        if self.note.value != (said := f"<p>{caption}</p>"):
            self.note.value = said

    def update(self, view: RunView) -> None:
        steps, values = self.curve(view.curves)
        whole = self.curve(view.whole)
        others = [self.curve(o.whole if view.shown is None else o.curves) for o in view.others]
        room = ROOM if view.members else 1.0
        self.set_range(self.x, 0.0, max(round_up(view.right_end * room), 100.0))
        self._mark(view)
        seen = np.concatenate([whole[1], values, *(curve[1] for curve in others)])
        if len(seen):
            self.fit(float(seen.min()), float(seen.max()))
        self.draw_others(self.others, others, looks(view), self._other)
        self.ends.draw(view, [(steps, values), *others])
        self._move_cursor(view, whole)
        dress(self.line, view.look or SHOWN)
        if len(steps) == 0:
            self.line.visible = False
            return
        if len(steps) == 1:
            steps, values = np.repeat(steps, 2), np.repeat(values, 2)
        with self.line.hold_sync():
            self.line.x, self.line.y = float32(steps), float32(values)
            self.line.visible = True

    def _move_cursor(self, view: RunView, whole: Curve) -> None:
        """At an earlier moment: a line where it is, and faintly what came later."""
        if view.shown is None:
            for mark in (self.cursor, self.later):
                if mark is not None and mark.visible:
                    mark.visible = False
            return
        if self.cursor is None or self.later is None:
            scales = {"x": self.x, "y": self.y}
            self.later = bq.Lines(
                x=float32([0, 1]), y=float32([0, 0]), scales=scales, colors=[NOW], opacities=[0.25], stroke_width=2,
                visible=False,
            )  # fmt: skip
            self.cursor = bq.Lines(
                x=float32([0, 0]), y=float32([0, 1]), scales=self.marks.scales, colors=["#8f8f8f"], stroke_width=1.5,
                visible=False,
            )  # fmt: skip
            self.add_mark(self.later)
            self.add_mark(self.cursor)
        with self.cursor.hold_sync():
            self.cursor.x, self.cursor.visible = float32([view.step, view.step]), True
        if not self.ahead:
            self.later.visible = False
        elif len(whole[0]) > 1:
            with self.later.hold_sync():
                self.later.x, self.later.y, self.later.visible = float32(whole[0]), float32(whole[1]), True

    def _other(self) -> bq.Lines:
        scales = {"x": self.x, "y": self.y}
        return bq.Lines(
            x=float32([0, 1]), y=float32([0, 0]), scales=scales, colors=[NOW], stroke_width=2, visible=False
        )

    def _mark(self, view: RunView) -> None:
        if not view.events:
            self.marks.visible = self.numbers.visible = False
            self._marked = ("", 0)
            return
        if (view.id, view.events[-1].number) == self._marked:
            return
        shown = view.events[-MARKS:]
        self._marked = (view.id, shown[-1].number)
        steps = np.array([event.step for event in shown], dtype=float)
        # bqplot takes a single row for one curve of two points: a lone event is drawn twice.
        ends = steps.repeat(2) if len(steps) == 1 else steps
        with self.marks.hold_sync():
            self.marks.x = float32(np.stack([ends, ends], axis=1))
            self.marks.y = float32(np.tile([0.0, 1.0], (len(ends), 1)))
            self.marks.colors = [MARK] * len(ends)
            self.marks.visible = True
        with self.numbers.hold_sync():
            self.numbers.x, self.numbers.y = float32(steps), float32(np.full(len(shown), 0.93))
            self.numbers.text = [str(event.number) for event in shown]
            self.numbers.visible = True


class EffectiveRankPanel(Over):
    """exp(entropy of F's normalised eigenvalues)."""

    name: CurveName = "effective_rank"
    key = "effective_rank"
    title = "Effective rank of F"
    caption = "How many directions the projections use. Near 1 is collapse."
    y_label = "directions"

    def __init__(self) -> None:
        super().__init__(0.0, 10.0)

    def fit(self, low: float, high: float) -> None:
        self.set_range(self.y, 0.0, max(round_up(high), 2.0))


class AsymmetryPanel(Over):
    """sum |Wp - Wp^T| / sum |Wp|."""

    name: CurveName = "asymmetry"
    key = "asymmetry"
    title = "Asymmetry of Wp"
    caption = "Σ|Wp − Wpᵀ| / Σ|Wp|: 0 is symmetric, about 1.4 a random matrix."
    y_label = "asymmetry"

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)

    def fit(self, low: float, high: float) -> None:
        self.set_range(self.y, -0.02, max(round_up(high), 0.1))


class LossPanel(Over):
    """-cos(q1, z2) - cos(q2, z1)."""

    name: CurveName = "loss"
    key = "loss"
    title = "Loss"
    caption = "From −2 (the two views agree) to 2. A collapsed network reaches −2 too: look at the rank."
    caption_of_distance = "½ |Wp f − z|², from 0 on. A collapsed network reaches 0: look at the rank."
    y_label = "loss"
    distance = False

    def __init__(self) -> None:
        super().__init__(-2.05, 0.0)

    def update(self, view: RunView) -> None:
        self.distance = view.config.loss == "euclidean"
        self.say(self.caption_of_distance if self.distance else self.caption)
        super().update(view)

    def fit(self, low: float, high: float) -> None:
        if self.distance:
            self.set_range(self.y, 0.0, round_up(high))
            return
        top = next(t for t in (-1.5, -1.0, 0.0, 1.0, 2.0, np.inf) if t >= high)
        self.set_range(self.y, -2.05, 2.1 if top == np.inf else top)


class AccuracyPanel(Over):
    """kNN accuracy of the encoder's features on held-out images."""

    name: CurveName = "knn"
    key = "knn"
    title = "kNN accuracy"
    caption = "Share of held-out images whose 20 nearest training images vote for the right class."
    y_label = "accuracy, %"

    def __init__(self) -> None:
        super().__init__(0.0, 100.0)

    def curve(self, curves: Mapping[CurveName, Curve]) -> Curve:
        steps, values = super().curve(curves)
        return steps, 100.0 * values

    def update(self, view: RunView) -> None:
        info = DATASETS.get(view.config.dataset)
        self.say(self.caption if info is None or info.labelled else "There is none: these data have no classes.")
        super().update(view)

    def fit(self, low: float, high: float) -> None:
        floor = next(f for f in (90.0, 80.0, 60.0, 40.0, 0.0) if f <= low)
        self.set_range(self.y, floor, 100.0)
