"""The paper's figure, live: eigenvalues of F and Wp and their alignment, by index; earlier moments stay faint."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from lab.lean import bq
from lab.looks import SHOWN
from lab.panels.base import NOW, Panel, dress, float32, looks, round_up
from lab.view import EARLIER, RunView
from ssl_lab.spectrum import Spectrum

FLOOR = 1e-9
"""Least eigenvalue drawn on the log axis: what is below is rounding of float32."""


class _ByIndex(Panel):
    """Curves over the index of an eigenvalue, the newest on top of earlier ones."""

    x_label = "index, largest eigenvalue of F first"

    def __init__(self, y: bq.Scale) -> None:
        # One mark for all curves: one message a tick. Line i of the 2-D y is older than line i + 1.
        self.lines = bq.Lines(
            x=float32([1, 2]),
            y=float32(np.ones((EARLIER + 1, 2))),
            scales={"x": bq.LinearScale(min=0.0, max=32.0), "y": y},
            colors=[NOW] * (EARLIER + 1),
            opacities=[*np.linspace(0.12, 0.4, EARLIER).round(2).tolist(), 1.0],
            stroke_width=2,
            visible=False,
        )
        self.others: list[bq.Lines] = []
        super().__init__(self.lines.scales["x"], y, [self.lines])

    @abstractmethod
    def values(self, spectrum: Spectrum) -> NDArray[np.float64]:
        """What is drawn of a spectrum, (d,)."""

    def fit(self, values: NDArray[np.float64]) -> None:
        """Moves the vertical range to the values shown."""

    def update(self, view: RunView) -> None:
        if view.newest is None:
            self.lines.visible = False
            return
        # Beside other runs, earlier moments would be too much in one picture.
        earlier = [] if view.others else view.earlier
        curves = [self.values(record.spectrum) for record in (*earlier, view.newest)]
        beside = [(o.newest, look) for o, look in zip(view.others, looks(view), strict=True) if o.newest is not None]
        others = [self.values(newest.spectrum) for newest, _ in beside]
        # While there are few moments the oldest stands in for those that are not there yet.
        curves = [curves[0]] * (EARLIER + 1 - len(curves)) + curves[-(EARLIER + 1) :]
        stack = np.stack(curves)
        self.fit(np.concatenate([stack.ravel(), *others]))
        self.set_range(self.x, 0.0, float(max(stack.shape[1], *map(len, others), 0)))
        with self.lines.hold_sync():
            if len(self.lines.x) != stack.shape[1]:
                self.lines.x = float32(np.arange(1, stack.shape[1] + 1))
            self.lines.y = float32(stack)
            self.lines.visible = True
        drawn = [(np.arange(1.0, len(values) + 1), values) for values in others]
        self.draw_others(self.others, drawn, [look for _, look in beside], self._other)
        dress(self.lines, view.look or SHOWN)

    def _other(self) -> bq.Lines:
        scales = {"x": self.x, "y": self.y}
        return bq.Lines(
            x=float32([1, 2]), y=float32([1, 1]), scales=scales, colors=[NOW], stroke_width=2, visible=False
        )


class CorrelationPanel(_ByIndex):
    """Eigenvalues of F, log axis."""

    key = "f"
    title = "Eigenvalues of F"
    caption = "How the projections' variance is shared. A learning network keeps many directions; collapse leaves one."
    y_label = "eigenvalue (log)"

    def __init__(self) -> None:
        super().__init__(bq.LogScale(min=1e-6, max=1.0))

    def values(self, spectrum: Spectrum) -> NDArray[np.float64]:
        return np.maximum(spectrum.f_eigenvalues, FLOOR)

    def fit(self, values: NDArray[np.float64]) -> None:
        low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
        self.set_range(self.y, float(10.0**low), float(10.0 ** max(high, low + 1)))


class PredictorPanel(_ByIndex):
    """Real parts of the eigenvalues of Wp."""

    key = "wp"
    title = "Eigenvalues of Wp"
    caption = "Real parts, largest first. DirectPred makes them the square roots of F's, plus ε."
    x_label = "index, largest first"
    y_label = "eigenvalue"

    def __init__(self) -> None:
        super().__init__(bq.LinearScale(min=0.0, max=1.0))

    def values(self, spectrum: Spectrum) -> NDArray[np.float64]:
        return spectrum.wp_eigenvalues

    def fit(self, values: NDArray[np.float64]) -> None:
        low = float(values.min())
        self.set_range(self.y, 0.0 if low >= 0 else -round_up(-low), round_up(float(values.max())))


class AlignmentPanel(_ByIndex):
    """cos(Wp v_i, v_i) for each eigenvector v_i of F."""

    key = "alignment"
    title = "Alignment"
    caption = "1: the direction is an eigenvector of Wp too, as the theory says of a network that learns."
    y_label = "cos(Wp v, v)"

    def __init__(self) -> None:
        super().__init__(bq.LinearScale(min=-0.2, max=1.05))

    def values(self, spectrum: Spectrum) -> NDArray[np.float64]:
        return spectrum.alignment

    def fit(self, values: NDArray[np.float64]) -> None:
        self.set_range(self.y, -1.05 if values.min() < -0.2 else -0.2, 1.05)
