"""Labels at the ends of a family's curves: which is which, for eyes that go by neither colour nor dashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lab.lean import bq
from lab.looks import SHOWN
from lab.members import value_word
from lab.panels.base import float32
from lab.view import RunView
from ssl_lab.pyramid import Curve

if TYPE_CHECKING:
    from lab.panels.history import Over

LINE = 0.075
"""Height of a label, as a share of the picture's: as near as two of them may come."""

SILL = 0.02
"""Share of the picture's height that labels keep off its lower edge, under which they would be cut."""


class Ends:
    """One mark with a label for each member, made when it is first needed."""

    def __init__(self, panel: Over) -> None:
        self._panel = panel
        self.labels: bq.Label | None = None

    def draw(self, view: RunView, curves: list[Curve]) -> None:
        """Labels the last point of each member's curve.

        Args:
            view: the shown run, with those that are drawn with it.
            curves: theirs, in the same order.
        """
        panel = self._panel
        # In the order of the range, so that members that are level keep their order from picture to picture.
        drawn = zip((view, *view.others), curves, strict=True)
        members = [(run, curve) for run, curve in drawn if run.family is not None]
        members.sort(key=lambda member: member[0].family.place if member[0].family else 0)
        named = [
            (run.family, (run.look or SHOWN).colour, steps[-1], values[-1])
            for run, (steps, values) in members
            if run.family is not None and len(steps)
        ]
        if len(named) < 2:
            if self.labels is not None and self.labels.visible:
                self.labels.visible = False
            return
        low, high = panel.y.min, panel.y.max
        # To the picture's own fineness: else the last digits of what is level would have them change places.
        heights = apart([round((float(value) - low) / (high - low), 2) for _, _, _, value in named])
        if self.labels is None:
            self.labels = bq.Label(
                x=float32([0]), y=float32([0]), text=["0"], scales={"x": panel.x, "y": panel.y}, default_size=10,
                x_offset=5, y_offset=3, font_weight="bold", visible=False,
            )  # fmt: skip
            panel.add_mark(self.labels)
        with self.labels.hold_sync():
            # All at one place along the axis: members that are a step apart would jump to and fro.
            self.labels.x = float32(np.full(len(named), max(step for _, _, step, _ in named)))
            self.labels.y = float32([low + height * (high - low) for height in heights])
            words = [value_word(family.knob, family.value) for family, _, _, _ in named]
            if self.labels.text is None or list(self.labels.text) != words:
                self.labels.text = words
            colours = [colour for _, colour, _, _ in named]
            if self.labels.colors != colours:
                self.labels.colors = colours
            self.labels.visible = True


def apart(heights: list[float], least: float = LINE) -> list[float]:
    """Heights (0 to 1) moved as little as that no two lie nearer than ``least``, in the same order.

    >>> [round(height, 3) for height in apart([0.5, 0.1, 0.51])]
    [0.468, 0.1, 0.542]
    >>> [round(height, 4) for height in apart([0.0, 1.0])]
    [0.0575, 0.9625]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    # Those that touch move as one block about their middle, until no blocks touch.
    blocks: list[list[int]] = []
    middles: list[float] = []
    for i in order:
        blocks.append([i])
        middles.append(_within(heights[i], least / 2))
        while len(blocks) > 1 and middles[-1] - middles[-2] < least * (len(blocks[-1]) + len(blocks[-2])) / 2:
            last, before = blocks.pop(), blocks.pop()
            a, b = middles.pop(), middles.pop()
            blocks.append([*before, *last])
            middles.append((a * len(last) + b * len(before)) / (len(last) + len(before)))
            middles[-1] = _within(middles[-1], least * len(blocks[-1]) / 2)
    placed = list(heights)
    for block, middle in zip(blocks, middles, strict=True):
        for rank, i in enumerate(block):
            placed[i] = middle + (rank - (len(block) - 1) / 2) * least
    return placed


def _within(middle: float, half: float) -> float:
    """The middle of a block of this half height, inside the picture."""
    return min(max(middle, half + SILL), 1.0 - half)
