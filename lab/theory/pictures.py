"""The pictures of the flow: the plane of (s, p), and p, s and tau over time.

Many curves of one look are one line with gaps: to the browser that is one path, however many modes there are.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.lean import bq
from lab.panels.base import MARK, NOW, THEORY, Panel, float32, round_up
from lab.theory.flow import MODES, SPAN, Flow, edge, edge_of_start, rates, target
from ssl_lab.theory import parabola

Array = NDArray[np.float64]

EDGE = "#cc79a7"
"""Colour of the edge of the basin of collapse and of p-."""

QUIET = "#8f8f8f"

P_MOST = 1.2
"""Largest gain that is drawn. What is learned is at most 1 where tau is."""

TRAIL = 24.0
"""Time that a mode's trail goes back."""

AGES = 3
"""Parts of a trail, each fainter than the next."""

PIECES = 8
"""Points of a part."""

AHEAD_POINTS = 50
"""Points of the way that a mode will go."""

MOMENTS = 76
"""Moments over time."""

FIELD = (13, 10)
"""Arrows in s and in p."""

TAU_SEEN = 0.02
"""Change of tau that the arrows follow."""


def gapped(curves: Array, shown: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Curves (n, T) as one line with a gap after each; those not shown are all gap. Always n (T + 1) + 1 numbers.

    The last is none of a curve: the browser looks for a line's end to put its name there, and must find a place.
    """
    line = np.full((len(curves), curves.shape[1] + 1), np.nan)
    line[:, :-1] = curves
    if shown is not None:
        line[~shown] = np.nan
    return float32(np.append(line.ravel(), 0.0))


class Picture(Panel):
    """A panel that shows a flow instead of a run."""

    height = "172px"

    def __init__(self, x: bq.Scale, y: bq.Scale, marks: list[bq.Mark]) -> None:
        super().__init__(x, y, marks)
        self.figure.layout.height = self.height

    def update(self, view: Any) -> None:
        """Draws a :class:`Flow` as it is now."""
        self.move(view)

    @abstractmethod
    def turn(self, flow: Flow) -> None:
        """Draws what a turn changes: the way ahead, and what is there to be seen of the theory."""

    @abstractmethod
    def move(self, flow: Flow) -> None:
        """Draws what changes as time goes by."""


def put(mark: bq.Mark, x: Any, y: Any) -> None:
    """Moves a mark in one message, and shows it; hides it where there is nothing: data never shrink to nothing."""
    if x is None or len(x) == 0:
        if mark.visible:
            mark.visible = False
        return
    with mark.hold_sync():
        mark.x, mark.y = float32(x), float32(y)
        mark.visible = True


class Plane(Picture):
    """Modes as points in the plane of (s, p), where they came from and where they go."""

    title = "Modes in the (s, p) plane"
    caption = (
        "Arrows: the flow. Green: the parabola s = p²/αₚ, its rest points filled where stable, hollow where "
        "not. Dashed: the edge of the basin of collapse; a mode that starts to the left of it dies."
    )
    x_label = "s, eigenvalue of F"
    y_label = "p, gain of the predictor"
    height = "560px"

    def __init__(self) -> None:
        x, y = bq.LinearScale(min=0.0, max=1.0), bq.LinearScale(min=0.0, max=P_MOST)
        scales = {"x": x, "y": y}
        some = {"x": float32([0, 1]), "y": float32([0, 0]), "scales": scales, "visible": False}

        def lines(colour: str, **how: Any) -> bq.Lines:
            return bq.Lines(**some, colors=[colour], **{"stroke_width": 1.5, **how})

        def points(colour: str, marker: str, size: int, **how: Any) -> bq.Scatter:
            return bq.Scatter(**some, colors=[colour], marker=marker, default_size=size, **how)

        self.field = lines(QUIET, stroke_width=1, opacities=[0.55])
        self.parabola = lines(THEORY, stroke_width=2)
        self.edge = lines(EDGE, line_style="dashed", stroke_width=2)
        self.ways = {True: lines(NOW, stroke_width=1, opacities=[0.5]),
                     False: lines(MARK, stroke_width=1, line_style="dashed", opacities=[0.5])}  # fmt: skip
        fade = np.linspace(0.25, 0.9, AGES).round(2).tolist()
        self.trails = bq.Lines(
            x=float32(np.zeros((2 * AGES, 2))), y=float32(np.zeros((2 * AGES, 2))), scales=scales, visible=False,
            colors=[NOW] * AGES + [MARK] * AGES, opacities=fade + fade, stroke_width=2.5,
        )  # fmt: skip
        self.modes = {True: points(NOW, "circle", 70), False: points(MARK, "triangle-down", 70)}
        self.stable = points(THEORY, "diamond", 130)
        self.unstable = points(THEORY, "diamond", 130, fill=False, stroke_width=2)
        self.names = bq.Label(
            x=float32([0]), y=float32([0]), text=["0"], scales=scales, colors=[THEORY], default_size=15, x_offset=11,
            y_offset=-6, font_weight="bold", visible=False,
        )  # fmt: skip
        self._tau = 1.0
        self.close_up = False
        """Whether what lies around p- fills the picture."""
        self.edge_wanted = False
        """Whether :meth:`draw_edge` has something to do."""
        super().__init__(x, y, [
            self.field, self.parabola, self.edge, *self.ways.values(), self.trails, self.stable, self.unstable,
            self.names, self.modes[False], self.modes[True],
        ])  # fmt: skip

    @property
    def s_most(self) -> float:
        """Right end of the plane."""
        return float(self.x.max)

    @property
    def p_most(self) -> float:
        """Upper end of the plane."""
        return float(self.y.max)

    def fit(self, flow: Flow) -> None:
        """Moves the ends to what there is to be seen, or to what lies around p-; they do not jump at every turn."""
        rest, at = flow.settings.rest(), flow.settings
        if self.close_up:
            p = round_up(3.0 * rest[0] if rest and rest[0] > 0 else 0.15)
            self.set_range(self.y, 0.0, min(p, P_MOST))
            self.set_range(self.x, 0.0, round_up(0.6 * p * p / at.alpha_p))
            return
        self.set_range(self.y, 0.0, P_MOST)
        there = [1.25 * rest[1] ** 2 / at.alpha_p] if rest else []
        self.set_range(self.x, 0.0, round_up(max(*there, 1.05 * float(np.square(flow.ahead.states[:, 1]).max()), 0.05)))

    def turn(self, flow: Flow) -> None:
        at = flow.settings
        self.fit(flow)
        self._draw_field(flow)
        # Theory's curves are of what both predictor and stop-gradient hold up.
        p = np.linspace(0.0, min(self.p_most, np.sqrt(at.alpha_p * self.s_most)), 60)
        put(self.parabola, parabola(p, at.alpha_p) if at.protected else None, p)
        # With a target of its own the edge takes following hundreds of modes: not while something is dragged.
        self.edge_wanted = at.follows
        self._put_edge(None if at.follows else edge(at, self.s_most, self.p_most))
        self._draw_rest(flow)
        ahead = flow.ahead_of_now(AHEAD_POINTS)
        for fate, way in self.ways.items():
            put(way, *self._paths(np.square(ahead[:, 1]), ahead[:, 0], flow.learns == fate))

    def draw_edge(self, flow: Flow) -> None:
        """Draws the edge where :meth:`turn` has left it out."""
        self.edge_wanted = False
        self._put_edge(edge_of_start(flow.settings, self.s_most, self.p_most))

    def _put_edge(self, line: Array | None) -> None:
        put(self.edge, None if line is None else line[:, 0], None if line is None else line[:, 1])

    def _draw_rest(self, flow: Flow) -> None:
        at, rest = flow.settings, flow.settings.rest()
        ends = [("p₊", rest[1])] if rest and rest[1] <= self.p_most else []
        # 0 is stable if anything pulls there; without weight decay p- has come to it.
        stable = [*ends, *([("0", 0.0)] if at.eta > 0 or not at.protected else [])]
        unstable = [] if rest is None else [("p₋", rest[0])] if at.eta > 0 else [("0", 0.0)]
        unstable = [(name, p) for name, p in unstable if p <= self.p_most and p * p <= at.alpha_p * self.s_most]
        for mark, found in ((self.stable, stable), (self.unstable, unstable)):
            gains = np.array([p for _, p in found])
            put(mark, gains**2 / at.alpha_p, gains)
        named = [*stable, *unstable] if at.predictor else []
        gains = np.array([p for _, p in named])
        names = [name for name, _ in named]
        with self.names.hold_sync():
            if names and self.names.text.tolist() != names:
                self.names.text = names
            put(self.names, gains**2 / at.alpha_p, gains)

    def _draw_field(self, flow: Flow) -> None:
        at = flow.settings
        self._tau = tau = float(np.median(np.clip(flow.tau, 0.0, 2.0))) if at.follows else 1.0
        columns, rows = FIELD
        s = (np.arange(columns) + 0.6) / columns * self.s_most
        # Without a predictor p is 1 and nothing else.
        p = (np.arange(rows) + 0.5) / rows * self.p_most if at.predictor else np.ones(1)
        s, p = (axis.ravel() for axis in np.meshgrid(s, p))
        w = np.sqrt(s)
        change = rates(np.stack([p, w, tau * w]), at)
        # In widths and heights of the picture, which is about 1.3 times as wide as high.
        across, up = 1.3 * 2 * w * change[1] / self.s_most, change[0] / self.p_most
        speed = np.hypot(across, up)
        usual = max(float(np.median(speed)), 1e-9)
        length = np.where(speed > 1e-7, 0.075 * (0.3 + 0.7 * speed / (speed + usual)), 0.0)
        across, up = (part / np.maximum(speed, 1e-12) * length for part in (across, up))
        x = np.empty((len(s), 6))
        y = np.empty((len(s), 6))
        # Tail, tip, one barb, tip, other barb: one stroke.
        for i, (along, aside) in enumerate([(-0.5, 0.0), (0.5, 0.0), (0.2, 0.14), (0.5, 0.0), (0.2, -0.14)]):
            x[:, i] = s + (along * across - aside * up) / 1.3 * self.s_most
            y[:, i] = p + (along * up + aside * across) * self.p_most
        x[:, 5], y[:, 5] = x[:, 4], np.nan
        y[-1, 5] = y[-1, 4]
        put(self.field, np.clip(x, 0.0, self.s_most).ravel(), np.clip(y, 0.0, self.p_most).ravel())

    def move(self, flow: Flow) -> None:
        if flow.settings.follows and abs(float(np.median(np.clip(flow.tau, 0.0, 2.0))) - self._tau) > TAU_SEEN:
            self._draw_field(flow)
        learns = flow.learns
        there = (flow.s <= self.s_most) & (flow.p <= self.p_most) if self.close_up else np.ones_like(learns)
        for fate, mark in self.modes.items():
            chosen = (learns == fate) & there
            put(mark, np.minimum(flow.s[chosen], self.s_most), np.clip(flow.p[chosen], 0.0, self.p_most))
        self._draw_trails(flow)

    def _paths(self, s: Array, p: Array, shown: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Paths (T, n) as one line with gaps; what lies outside of the plane is a gap too."""
        outside = (s > 1.02 * self.s_most) | (p > 1.02 * self.p_most)
        return gapped(s.T), gapped(np.where(outside, np.nan, p).T, shown)

    def _draw_trails(self, flow: Flow) -> None:
        count = AGES * PIECES
        times = flow.time - TRAIL + TRAIL * np.arange(count + 1) / count
        states = flow.states(np.maximum(times, max(flow.earliest, flow.jumped)))
        s, p = np.square(states[:, 1]), states[:, 0]
        xs, ys = [], []
        for fate in (True, False):
            for age in range(AGES):
                part = slice(age * PIECES, (age + 1) * PIECES + 1)
                x, y = self._paths(s[part], p[part], flow.learns == fate)
                xs.append(x)
                ys.append(y)
        with self.trails.hold_sync():
            self.trails.x, self.trails.y, self.trails.visible = float32(np.stack(xs)), float32(np.stack(ys)), True


class OverTime(Picture):
    """One number of each mode over time: what was, and beyond the cursor what will be."""

    x_label = "time"

    def __init__(self, top: float, *, guides: bool) -> None:
        x, y = bq.LinearScale(min=0.0, max=SPAN), bq.LinearScale(min=0.0, max=top)
        scales = {"x": x, "y": y}
        self._start = 0.0
        self.grid = np.linspace(0.0, SPAN, MOMENTS)
        nothing = float32(np.append(np.full(MODES * (MOMENTS + 1), np.nan), 0.0))
        x_data = self._times()

        def curves(colour: str, style: str) -> bq.Lines:
            return bq.Lines(x=x_data, y=nothing, scales=scales, colors=[colour], line_style=style, stroke_width=1.5)

        def level(colour: str, style: str) -> bq.Lines:
            return bq.Lines(
                x=float32([0.0, SPAN]), y=float32([0, 0]), scales=scales, colors=[colour], line_style=style,
                stroke_width=1.5, visible=False,
            )  # fmt: skip

        self.curves = {True: curves(NOW, "solid"), False: curves(MARK, "dashed")}
        self.high, self.low = level(THEORY, "solid"), level(EDGE, "dashed")
        self.cursor = bq.Lines(
            x=float32([0, 0]), y=float32([0, 100.0]), scales=scales, colors=[QUIET], stroke_width=1.5,
        )  # fmt: skip
        levels = [self.high, self.low] if guides else []
        super().__init__(x, y, [*levels, self.curves[False], self.curves[True], self.cursor])
        self.figure.fig_margin = {"top": 6, "bottom": 36, "left": 60, "right": 12}

    def _times(self) -> NDArray[np.float32]:
        line = np.append(self.grid, self.grid[-1])
        return float32(np.append(np.tile(line, MODES), self.grid[0]))

    @abstractmethod
    def values(self, states: Array) -> Array:
        """What is drawn of states (T, 3, n): (T, n)."""

    def levels(self, flow: Flow) -> tuple[float | None, float | None]:
        """Where the lines of p+ and p- stand."""
        return None, None

    def fit(self, flow: Flow, values: Array) -> None:
        """Moves the upper end."""

    def turn(self, flow: Flow) -> None:
        start = 0.0 if flow.time <= SPAN * 2 / 3 else SPAN / 3 * np.ceil((flow.time - SPAN * 2 / 3) / (SPAN / 3))
        moved = start != self._start
        if moved:
            self._start, self.grid = float(start), start + np.linspace(0.0, SPAN, MOMENTS)
            self.set_range(self.x, self._start, self._start + SPAN)
        values = self.values(flow.states(np.maximum(self.grid, flow.earliest)))
        self.fit(flow, values)
        # Over the top lies nothing to be seen, and a path far outside takes the browser longer.
        values = np.clip(values, -1.0, 2 * float(self.y.max))
        for fate, mark in self.curves.items():
            with mark.hold_sync():
                if moved:
                    mark.x = self._times()
                mark.y = gapped(values.T, flow.learns == fate)
        for level, at in zip((self.high, self.low), self.levels(flow), strict=True):
            if level in self.figure.marks:
                put(level, None if at is None else [self._start, self._start + SPAN], [at, at])

    def move(self, flow: Flow) -> None:
        if flow.time > self._start + SPAN * 2 / 3 or flow.time < self._start:
            self.turn(flow)
        self.cursor.x = float32([flow.time, flow.time])


class Gains(OverTime):
    """p over time."""

    title = "Gain p of each mode"
    caption = "Beyond the grey line: where it is heading. Green p₊, dashed p₋."
    y_label = "p"

    def __init__(self) -> None:
        super().__init__(P_MOST, guides=True)

    def values(self, states: Array) -> Array:
        return np.asarray(states[:, 0])

    def levels(self, flow: Flow) -> tuple[float | None, float | None]:
        rest = flow.settings.rest()
        return (None, None) if rest is None else (rest[1], rest[0])


class Eigenvalues(OverTime):
    """s over time."""

    title = "Eigenvalue s of each mode"
    caption = "s = 0 in every mode: the network has collapsed."
    y_label = "s"

    def __init__(self) -> None:
        super().__init__(1.0, guides=True)

    def values(self, states: Array) -> Array:
        return np.square(states[:, 1])

    def fit(self, flow: Flow, values: Array) -> None:
        self.set_range(self.y, 0.0, round_up(max(1.1 * float(values.max()), 0.05)))

    def levels(self, flow: Flow) -> tuple[float | None, float | None]:
        rest, rate = flow.settings.rest(), flow.settings.alpha_p
        return (None, None) if rest is None else (rest[1] ** 2 / rate, rest[0] ** 2 / rate)


class Targets(OverTime):
    """tau over time."""

    title = "Target over network, τ"
    caption = "1 without EMA (SimSiam). A slow target lags: τ falls while a mode grows, and rises while one dies."
    y_label = "τ"

    def __init__(self) -> None:
        super().__init__(1.5, guides=False)

    def values(self, states: Array) -> Array:
        return target(states, 3.0)

    def fit(self, flow: Flow, values: Array) -> None:
        self.set_range(self.y, 0.0, 1.5 if float(values.max()) <= 1.5 else 3.0)
