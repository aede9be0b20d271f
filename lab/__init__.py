"""The laboratory: live panels and knobs for runs of ssl-lab, in JupyterLab and under Voila.

    from lab import Bench
    Bench(trainer)   # in a notebook
    Bench()          # the run belongs to the engine process

Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.bench import Bench

__all__ = ["Bench"]


def __getattr__(name: str) -> Any:
    if name == "Bench":
        from lab.bench import Bench

        return Bench
    raise AttributeError(f"module 'lab' has no attribute {name!r}")
