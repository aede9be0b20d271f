"""The laboratory: live panels and knobs for runs of ssl-lab, in JupyterLab and under Voila.

    from lab import Bench
    Bench(trainer)   # in a notebook
    Bench()          # the run belongs to the engine process

    from lab import Theory
    Theory()         # the paper's linear model, integrated here; no run

    from lab import Reproduction
    Reproduction()   # the papers' table 1 and figure 1, in print and as a study has them

    from lab import Sweeps
    Sweeps()         # studies of many runs, by `ssl-lab sweep`, while they run and afterwards

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.bench import Bench
    from lab.reproduction import Reproduction
    from lab.sweeping import Sweeps
    from lab.theory.app import Theory

__all__ = ["Bench", "Reproduction", "Sweeps", "Theory"]


def __getattr__(name: str) -> Any:
    if name == "Bench":
        from lab.bench import Bench

        return Bench
    if name == "Theory":
        from lab.theory.app import Theory

        return Theory
    if name == "Reproduction":
        from lab.reproduction import Reproduction

        return Reproduction
    if name == "Sweeps":
        from lab.sweeping import Sweeps

        return Sweeps
    raise AttributeError(f"module 'lab' has no attribute {name!r}")
