"""What the rows came to where they were published: linear probe, per cent of the test images.

**P** Tian, Chen & Ganguli 2021, arXiv 2102.06810 (table 8; 5 seeds; the best test epoch of the probe); **S** the course
reproduction of P by Höppe, Miszkurka & Wilkman (one seed; the probe's last epoch). ResNet-18; CIFAR-10 and STL-10 at
about 100 epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Protocol = Literal["S", "P"]
"""Whose probe: the reproduction's (last epoch), or the authors' (best epoch)."""


@dataclass(frozen=True)
class Published:
    """A number in print."""

    accuracy: float
    """Per cent."""
    protocol: Protocol
    """Whose, and so by which probe."""
    spread: float | None = None
    """Standard deviation over seeds in points, where it was given."""
    note: str = ""
    """What must be known about it."""
    n: int | None = None
    """Runs behind it, where that is known."""


def _s(accuracy: float, note: str = "") -> Published:
    """A number of S: one run each."""
    return Published(accuracy, "S", note=note, n=1)


def _p(accuracy: float, spread: float) -> Published:
    """A number of P's table 8: five seeds."""
    return Published(accuracy, "P", spread, n=5)


_CIFAR10: Mapping[str, tuple[Published, ...]] = {
    "byol": (_s(84.2),),
    "byol-symmetric": (_s(85.7),),
    "simsiam": (_s(79.4),),
    "simsiam-symmetric": (_s(20.3, "collapse"),),
    "simsiam-symmetric-stable": (_s(79.2),),
    "byol-one-layer": (_s(83.3), _p(84.49, 0.20)),
    "directpred": (_s(84.7), _p(85.21, 0.23)),
    "directcopy": (_s(84.6),),
    "simsiam-one-layer": (_s(77.8),),
    "directpred-simsiam": (_s(78.6),),
    "directcopy-simsiam": (_s(78.3),),
    "directpred-freq5": (_p(84.93, 0.29),),
    "directpred-deeper": (_s(82.3),),
}

_STL10: Mapping[str, tuple[Published, ...]] = {
    "byol": (Published(78.85, "P"),),
    "byol-one-layer": (Published(75.06, "P"),),
    "directpred": (Published(77.86, "P", 0.16),),
    "simsiam-symmetric": (Published(36.6, "P", note="collapse"),),
}

REUSED = _s(80.7, "the probe keeps the projector's first layer")
"""``directpred-deeper`` on CIFAR-10, with a layer of its projector kept for the probe."""

PUBLISHED: Mapping[str, Mapping[str, tuple[Published, ...]]] = MappingProxyType({"cifar10": _CIFAR10, "stl10": _STL10})
"""Data set -> row -> what is in print."""


def published(dataset: str, row: str, protocol: Protocol) -> Published | None:
    """The number of a row by one probe; None where there is none in print."""
    found = (p for p in PUBLISHED.get(dataset, {}).get(row, ()) if p.protocol == protocol)
    return next(found, None)
