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


_CIFAR10: Mapping[str, tuple[Published, ...]] = {
    "byol": (Published(84.2, "S"),),
    "byol-symmetric": (Published(85.7, "S"),),
    "simsiam": (Published(79.4, "S"),),
    "simsiam-symmetric": (Published(20.3, "S", note="collapse"),),
    "simsiam-symmetric-stable": (Published(79.2, "S"),),
    "byol-one-layer": (Published(83.3, "S"), Published(84.49, "P", 0.20)),
    "directpred": (Published(84.7, "S"), Published(85.21, "P", 0.23)),
    "directcopy": (Published(84.6, "S"),),
    "simsiam-one-layer": (Published(77.8, "S"),),
    "directpred-simsiam": (Published(78.6, "S"),),
    "directcopy-simsiam": (Published(78.3, "S"),),
    "directpred-freq5": (Published(84.93, "P", 0.29),),
    "directpred-deeper": (Published(82.3, "S"),),
}

_STL10: Mapping[str, tuple[Published, ...]] = {
    "byol": (Published(78.85, "P"),),
    "byol-one-layer": (Published(75.06, "P"),),
    "directpred": (Published(77.86, "P", 0.16),),
    "simsiam-symmetric": (Published(36.6, "P", note="collapse"),),
}

REUSED = Published(80.7, "S", note="the probe keeps the projector's first layer")
"""``directpred-deeper`` on CIFAR-10, with a layer of its projector kept for the probe."""

PUBLISHED: Mapping[str, Mapping[str, tuple[Published, ...]]] = MappingProxyType({"cifar10": _CIFAR10, "stl10": _STL10})
"""Data set -> row -> what is in print."""


def published(dataset: str, row: str, protocol: Protocol) -> Published | None:
    """The number of a row by one probe; None where there is none in print."""
    found = (p for p in PUBLISHED.get(dataset, {}).get(row, ()) if p.protocol == protocol)
    return next(found, None)
