"""The bench's pictures: one small class each, with ``widget``, ``update(view)`` and ``close()``."""

from __future__ import annotations

from lab.panels.base import Panel
from lab.panels.eigenspace import AlignmentPanel, CorrelationPanel, PredictorPanel
from lab.panels.history import AccuracyPanel, AsymmetryPanel, EffectiveRankPanel, LossPanel
from lab.panels.plane import PlanePanel


def all_panels() -> list[Panel]:
    """Every panel of the bench, in reading order."""
    return [
        CorrelationPanel(), PredictorPanel(), AlignmentPanel(), PlanePanel(),
        EffectiveRankPanel(), AsymmetryPanel(), LossPanel(), AccuracyPanel(),
    ]  # fmt: skip


__all__ = [
    "AccuracyPanel",
    "AlignmentPanel",
    "AsymmetryPanel",
    "CorrelationPanel",
    "EffectiveRankPanel",
    "LossPanel",
    "Panel",
    "PlanePanel",
    "PredictorPanel",
    "all_panels",
]
