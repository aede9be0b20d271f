"""The laboratory: live panels and knobs for runs of ssl-lab, in JupyterLab and under Voila.

    from lab import Bench
    Bench(trainer)   # in a notebook
    Bench()          # the run belongs to the engine process

    from lab import Theory
    Theory()         # the paper's linear model, integrated here; no run

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.bench import Bench
    from lab.theory.app import Theory

__all__ = ["Bench", "Theory"]


def __getattr__(name: str) -> Any:
    if name == "Bench":
        from lab.bench import Bench

        return Bench
    if name == "Theory":
        from lab.theory.app import Theory

        return Theory
    raise AttributeError(f"module 'lab' has no attribute {name!r}")
