"""ssl-lab: watch and steer self-supervised learning without contrasts.

    from ssl_lab import Trainer, preset, presets

    trainer = Trainer(preset("directpred", dataset="digits", seed=0))
    record = trainer.step()
    trainer.set(predictor="directcopy", ema=0.99)
    spectrum = trainer.spectrum()

Importing this package does not import torch; the names that need it load it when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from ssl_lab.config import Knobs, RunConfig, preset, presets
from ssl_lab.errors import SSLLabError

if TYPE_CHECKING:
    from ssl_lab.loop import drive
    from ssl_lab.spectrum import Spectrum
    from ssl_lab.store import RunStore
    from ssl_lab.trainer import StepRecord, Trainer

_LAZY = {
    "Trainer": "ssl_lab.trainer",
    "StepRecord": "ssl_lab.trainer",
    "Spectrum": "ssl_lab.spectrum",
    "RunStore": "ssl_lab.store",
    "drive": "ssl_lab.loop",
}

__all__ = [
    "Knobs",
    "RunConfig",
    "RunStore",
    "SSLLabError",
    "Spectrum",
    "StepRecord",
    "Trainer",
    "drive",
    "preset",
    "presets",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ssl_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
