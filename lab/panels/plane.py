"""The theory's (s, p) plane: each direction a point, its rule a curve, and where the theory says it comes to rest."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lab.lean import bq
from lab.looks import SHOWN
from lab.panels.base import MARK, NOW, THEORY, Panel, dress, float32, looks, round_up
from lab.view import RunView
from ssl_lab.config import SET_MODES, Knobs
from ssl_lab.mapping import TheoryKnobs, theory_of
from ssl_lab.pyramid import Curve
from ssl_lab.spectrum import Spectrum
from ssl_lab.theory import basin_edge, fixed_points, parabola

Array = NDArray[np.float64]

FLOOR = 1e-9
"""Least eigenvalue that is divided by."""

GRID = 80
"""Points of a curve."""

SEEN = 0.01
"""p- as a share of p+ from which on the edge of the basin is drawn: below, it is a dot in the corner, and not worth the
integrator that finds it, which takes a kernel a second and 60 MB."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What is drawn beside the points. Curves are (s, p) arrays of GRID numbers; of none, None."""

    curve: Curve | None
    """Where the mode's own rule puts a direction."""
    edge: Curve | None
    """The edge of the basin of collapse: what lies under it dies."""
    stable: Sequence[tuple[float, float]]
    """(s, p) where a direction comes to rest."""
    unstable: Sequence[tuple[float, float]]
    """(s, p) that every direction leaves."""
    words: str
    """What the curve is, for a person."""
    mapped: bool
    """Whether the theory's flow is what the curve and the points of rest are taken from."""


def rule_of(theory: TheoryKnobs, knobs: Knobs, f: Array, *, absolute: bool) -> Rule:
    """The rule by which the present knobs put a gain p on a direction of eigenvalue s.

    Args:
        theory: the knobs in the theory's terms.
        knobs: the knobs.
        f: F's eigenvalues (d,), none below 0, which a directly set predictor divides by.
        absolute: s and p as they are; else each over its largest, so that s+ and p+ are at 1.
    """
    if knobs.predictor in SET_MODES:
        return _set_rule(theory, knobs, f, absolute=absolute)
    collapse = ((0.0, 0.0),) if theory.eta > 0 else ()
    # Theorem 2 needs something that pulls, and a network that learns.
    moves = theory.time_per_step > 0 and theory.eta + theory.sigma2 > 0
    if knobs.predictor == "none":
        s = np.linspace(0, _top(theory, f) if absolute else 1.0, GRID)
        if not moves:
            words = "Line: without a predictor p = 1 for all. Nothing moves s: rate, or σ² and η, are 0."
            return Rule((s, np.ones(GRID)), None, (), (), words, mapped=False)
        words = "Line: without a predictor p = 1 for all, and by theorem 2 every s falls to 0"
        # In units of the largest, the largest is at 1 however small it becomes.
        rest = ((0.0, 1.0),) if absolute else ()
        words += " (filled)." if absolute else "; a cosine shows it by the others falling behind the largest."
        return Rule((s, np.ones(GRID)), None, rest, (), words, mapped=False)
    if not theory.stop_gradient:
        if not moves:
            return Rule(None, None, (), (), "No curve: rate, or σ² and η, are 0.", mapped=False)
        words = "Without stop-gradient every mode goes to 0, by theorem 2"
        rest = ((0.0, 0.0),) if absolute else ()
        return Rule(None, None, rest, (), f"{words} (filled)." if absolute else f"{words}.", mapped=False)
    if not theory.curves:
        return Rule(None, None, (), (), "No curve: one of the two learning rates is 0.", mapped=False)
    return _trained_rule(theory, f, collapse, absolute=absolute)


def _trained_rule(theory: TheoryKnobs, f: Array, collapse: Sequence[tuple[float, float]], *, absolute: bool) -> Rule:
    """The parabola of weight decay, with its fixed points and the edge of the basin of collapse."""
    points = fixed_points(eta=theory.eta, sigma2=theory.sigma2, tau=theory.tau)
    line = "Line: the theory's parabola s = p² / αp"
    if points.p_plus is None or points.p_minus is None or not (points.plus and points.plus.stable):
        # Nothing but 0 is left; a parabola has the same shape in whatever units.
        top = np.sqrt(theory.alpha_p * _top(theory, f)) if absolute else 1.0
        p = np.linspace(0, top, GRID)
        words = f"{line}. η is at or beyond its critical value: every mode collapses to 0 (filled)."
        return Rule((parabola(p, theory.alpha_p if absolute else 1.0), p), None, collapse, (), words, mapped=True)
    s_plus = float(parabola(points.p_plus, theory.alpha_p))
    # In normalised units p+ and s+ are 1, which is where the largest direction is drawn.
    s_unit, p_unit = (1.0, 1.0) if absolute else (s_plus, points.p_plus)
    top = max(np.sqrt(theory.alpha_p * _top(theory, f)), points.p_plus * 1.05) if absolute else points.p_plus * 1.01
    p = np.linspace(0, top, GRID)
    curve = parabola(p, theory.alpha_p) / s_unit, p / p_unit

    def place(gain: float) -> tuple[float, float]:
        return float(parabola(gain, theory.alpha_p)) / s_unit, gain / p_unit

    share, edge = points.p_minus / points.p_plus, None
    if share >= SEEN:
        # Closer together where the edge is steep.
        last = top**2 / theory.alpha_p
        s = np.geomspace(min(float(parabola(points.p_minus, theory.alpha_p)), last) / 20, last, GRID)
        gain = basin_edge(s, eta=theory.eta, sigma2=theory.sigma2, alpha_p=theory.alpha_p, tau=theory.tau)
        drawn = np.isfinite(gain) & (gain >= 0)
        edge = (s[drawn] / s_unit, gain[drawn] / p_unit) if drawn.sum() > 1 else None
    stable, unstable = (*collapse, place(points.p_plus)), (place(points.p_minus),)
    if theory.eta > 0:
        rest = f"filled: it rests at 0 or at p+ = {points.p_plus:.2g}; hollow: p− = {points.p_minus:.2g}, "
        rest += f"{100 * share:.2g} % of p+; "
        rest += "left of the dashed edge a mode dies" if edge else "a mode that starts below it dies"
    else:
        rest = f"filled: it rests at p+ = {points.p_plus:.2g}; hollow: 0, to which nothing falls without weight decay"
    return Rule(curve, edge, stable, unstable, f"{line}; {rest}.", mapped=True)


def _set_rule(theory: TheoryKnobs, knobs: Knobs, f: Array, *, absolute: bool) -> Rule:
    """A directly set predictor: its own equation."""
    x = np.linspace(0, 1, GRID)
    top = max(float(f.max(initial=0.0)), FLOOR)
    if knobs.predictor == "optimal":
        # E[z f^T] = tau W X W^T and F = W (X + X') W^T: for white data their quotient is one number.
        p = np.full(GRID, theory.tau / (1 + theory.sigma2))
        words = "Line: least squares, Wp = E[z fᵀ] F⁻¹; in the linear theory p = τ / (1 + σ²) for all"
    elif knobs.predictor == "directpred":
        p = np.maximum(np.sqrt(x) + knobs.eps, 1e-4)
        words = f"Line: DirectPred's rule p = √(s / s₁) + ε, ε = {knobs.eps:g}"
    else:
        norm = {"fro": float(np.linalg.norm(f)), "spectral": top, "none": 1.0}[knobs.norm]
        p = x * top / max(norm, FLOOR) + knobs.eps
        divisor = {"fro": "s / ‖F‖", "spectral": "s / s₁", "none": "s"}[knobs.norm]
        words = f"Line: DirectCopy's rule p = {divisor} + ε, ε = {knobs.eps:g}"
    if knobs.freq > 1:
        words += f", every {knobs.freq} steps; in between SGD trains Wp"
    curve = (x * top / theory.f_over_s, p) if absolute else (x, p / max(float(p[-1]), FLOOR))
    return Rule(curve, None, (), (), f"{words}.", mapped=knobs.predictor == "optimal")


def _top(theory: TheoryKnobs, f: Array) -> float:
    """The theory's largest s."""
    return max(float(f.max(initial=0.0)) / theory.f_over_s, FLOOR)


class PlanePanel(Panel):
    """Each direction as a point: its share of F against the predictor's gain on it, with what the theory says of it."""

    key = "plane"
    title = "Gain by direction"
    caption = "A point for each eigenvector of F: its eigenvalue, and the predictor's gain on it."
    x_label = "s, eigenvalue of F over the largest"
    y_label = "p, gain over the largest"

    def __init__(self) -> None:
        x, y = bq.LinearScale(min=-0.04, max=1.05), bq.LinearScale(min=-0.1, max=1.15)
        scales = {"x": x, "y": y}
        two = float32([0, 1])
        self.points = bq.Scatter(
            x=two, y=two, scales=scales, colors=[NOW], default_size=28, opacities=[0.8], visible=False
        )
        self.rule = bq.Lines(x=two, y=two, scales=scales, colors=[THEORY], stroke_width=1.5, visible=False)
        self.edge = bq.Lines(
            x=two, y=two, scales=scales, colors=[MARK], stroke_width=1.5, line_style="dashed", visible=False
        )
        self.stable = bq.Scatter(x=two, y=two, scales=scales, colors=[THEORY], default_size=130, visible=False)
        self.unstable = bq.Scatter(
            x=two, y=two, scales=scales, colors=[MARK], default_size=150, fill=False, stroke_width=2, visible=False
        )
        self.others: list[bq.Scatter] = []
        self._said = ""
        super().__init__(x, y, [self.edge, self.rule, self.unstable, self.stable, self.points])

    def update(self, view: RunView) -> None:
        # Six clouds of points in one picture nobody tells apart: of a family there is the run on the page.
        drawn = zip(view.others, looks(view), strict=True)
        beside = [] if view.members else [(other, look) for other, look in drawn if other.newest is not None]
        views = [view, *(other for other, _ in beside)]
        # Where the loss is a cosine, Wp's scale means nothing.
        absolute = all(shown.config.loss == "euclidean" for shown in views)
        theory = theory_of(view.config, view.knobs)
        f = np.ones(1) if view.newest is None else np.maximum(view.newest.spectrum.f_eigenvalues, 0)
        rule = rule_of(theory, view.knobs, f, absolute=absolute)
        clouds = [
            _cloud(shown.newest.spectrum, theory_of(shown.config, shown.knobs).f_over_s if absolute else None)
            for shown in views
            if shown.newest is not None
        ]
        self._fit(rule, clouds, theory, absolute=absolute)
        _draw(self.rule, rule.curve)
        _draw(self.edge, rule.edge)
        _draw(self.stable, _arrays(rule.stable))
        _draw(self.unstable, _arrays(rule.unstable))
        self._say(view, theory, rule, absolute=absolute)
        if view.newest is None:
            self.points.visible = False
            return
        _draw(self.points, clouds[0])
        dress(self.points, replace(view.look or SHOWN, marker="circle"))
        self.draw_others(self.others, clouds[1:], [look for _, look in beside], self._other)

    def _fit(self, rule: Rule, clouds: list[Curve], theory: TheoryKnobs, *, absolute: bool) -> None:
        """The axes' ends and names."""
        names = (self.x_label, self.y_label)
        if absolute:
            over = "s, eigenvalue of F over 1 + σ²" if theory.linear else "s, eigenvalue of F"
            names = (over, "p, gain of Wp")
        for axis, name in zip((self.axis_x, self.axis_y), names, strict=True):
            if axis.label != name:
                axis.label = name
        lowest = min((float(gains.min()) for _, gains in clouds), default=0.0)
        if not absolute:
            self.set_range(self.x, -0.04, 1.05)
            self.set_range(self.y, next(low for low in (-0.1, -0.3, -0.6, -1.15) if low < lowest), 1.15)
            return
        rests = _arrays((*rule.stable, *rule.unstable)) or (np.zeros(1), np.zeros(1))
        right = max(float(s.max()) for s, _ in (*clouds, rests))
        high = max(float(p.max()) for _, p in (*clouds, rests))
        high = round_up(1.08 * high)
        right = round_up(1.05 * right)
        self.set_range(self.x, -0.04 * right, right)
        self.set_range(self.y, -round_up(-lowest) if lowest < -0.1 * high else -0.1 * high, high)

    def _say(self, view: RunView, theory: TheoryKnobs, rule: Rule, *, absolute: bool) -> None:
        """The caption; one message, and only if it changed."""
        units = "" if absolute else " A cosine forgets scale, so both axes are over their largest"
        if not absolute:
            units += ": s+ and p+ are 1." if rule.unstable else "."
        mapping = ""
        if rule.mapped:
            decay = f"η = weight decay {theory.eta:g}"
            parts = [decay, f"αp = {theory.alpha_p:.3g}", f"σ² = {theory.sigma2:.2g}", f"τ = {theory.tau:g}"]
            kind = "the theory is linear, this run is not: read it as a tendency"
            if theory.linear:
                kind = "exact but for the length of a step" if theory.exact else "not quite the theory's rules"
            mapping = f" <details><summary>{', '.join(parts)}: {kind}.</summary>{html.escape(theory.words)}</details>"
        whose = " of the run on the page alone" if view.members else ""
        said = f"<p>A point for each eigenvector of F{whose}. {html.escape(rule.words)}{units}</p>{mapping}"
        if said != self._said:
            self._said = said
            self.note.value = said

    def _other(self) -> bq.Scatter:
        scales = {"x": self.x, "y": self.y}
        two = float32([0, 1])
        return bq.Scatter(x=two, y=two, scales=scales, colors=[NOW], default_size=28, opacities=[0.8], visible=False)


def _draw(mark: bq.Mark, curve: Curve | None) -> None:
    """Shows the mark with these points, or hides it; no message where nothing changed."""
    if curve is None or len(curve[0]) == 0:
        if mark.visible:
            mark.visible = False
        return
    x, y = float32(curve[0]), float32(curve[1])
    with mark.hold_sync():
        if not np.array_equal(mark.x, x):
            mark.x = x
        if not np.array_equal(mark.y, y):
            mark.y = y
        if not mark.visible:
            mark.visible = True


def _arrays(points: Sequence[tuple[float, float]]) -> Curve | None:
    if not points:
        return None
    s, p = zip(*points, strict=True)
    return np.array(s), np.array(p)


def _cloud(spectrum: Spectrum, f_over_s: float | None) -> Curve:
    """(s, p) of the directions: the theory's own, or without ``f_over_s`` each over its largest."""
    s, p = np.maximum(spectrum.f_eigenvalues, 0), spectrum.wp_diagonal
    if f_over_s is not None:
        return s / f_over_s, p
    return s / max(float(s.max()), FLOOR), p / max(float(np.abs(p).max()), FLOOR)
