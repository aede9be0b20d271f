"""The bench's pictures: one small class each, with ``widget``, ``update(view)`` and ``close()``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from lab.panels.base import Panel
from lab.panels.eigenspace import AlignmentPanel, CorrelationPanel, PlanePanel, PredictorPanel
from lab.panels.history import AccuracyPanel, AsymmetryPanel, EffectiveRankPanel, LossPanel

PANELS: Mapping[str, Callable[[], Panel]] = MappingProxyType(
    {
        panel.key: panel
        for panel in (
            CorrelationPanel, PredictorPanel, AlignmentPanel, PlanePanel,
            EffectiveRankPanel, AsymmetryPanel, LossPanel, AccuracyPanel,
        )
    }
)  # fmt: skip
"""Every panel of the bench by its key, in reading order."""


def make_panels(keys: Iterable[str] = tuple(PANELS)) -> list[Panel]:
    """The panels with these keys."""
    return [PANELS[key]() for key in keys]


__all__ = [
    "PANELS",
    "AccuracyPanel",
    "AlignmentPanel",
    "AsymmetryPanel",
    "CorrelationPanel",
    "EffectiveRankPanel",
    "LossPanel",
    "Panel",
    "PlanePanel",
    "PredictorPanel",
    "make_panels",
]
