"""The page of sweeps: studies of many runs, while they run and afterwards."""

from __future__ import annotations

from lab.sweeping.page import Sweeps

__all__ = ["Sweeps"]
