"""A family: runs that go on from one moment, each with one knob at another value of its range.

Which values those are, and how a run's file says that it is a member. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_lab.config import Knobs, knob_choices, knob_meta, knob_range

FAMILY = "family"
"""What a member's file keeps of its family, in its meta."""

MOST = 6
"""Most members: more curves than that nobody tells apart."""

ALONG: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "eps": (0.0, 0.01, 0.1, 0.3, 1.0),
        "rho": (0.0, 0.3, 0.5, 0.9, 0.99),
        "freq": (1, 2, 5, 10, 50),
        "ema": (0.0, 0.5, 0.9, 0.99, 0.999),
        "symmetry_strength": (0.0, 0.1, 1.0, 3.0, 10.0),
        "weight_decay": (0.0, 1e-4, 4e-4, 1e-3, 1e-2),
        "weight_decay_predictor": (0.0, 1e-4, 4e-4, 1e-3, 1e-2),
        "augmentation": (0.0, 0.5, 1.0, 1.5, 2.0),
    }
)
"""Values along the range of a knob whose zero, ends and usual values mean something."""

NEAR_ONE = ("ema", "rho")
"""Shares that are kept at each step: what counts is how far they are from 1."""

RATIOS = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)
"""A learning rate's family, as multiples of the present one."""


def family_values(name: str, present: Any) -> tuple[Any, ...]:
    """The values of a family along the knob ``name``, in the order of its range; ``present`` is one of them.

    >>> family_values("ema", 0.99)
    (0.0, 0.5, 0.9, 0.99, 0.999)
    >>> family_values("ema", 0.996)
    (0.0, 0.5, 0.9, 0.996, 0.999)
    >>> family_values("lr", 0.03)
    (0.0033, 0.01, 0.03, 0.09, 0.27)
    >>> family_values("stop_gradient", True)
    (False, True)
    """
    if choices := knob_choices(name):
        return choices[:MOST] if present in choices[:MOST] else (*choices[: MOST - 1], present)
    if (span := knob_range(name)) is None:
        return (False, True)
    if knob_meta(name).scale == "log":
        return _multiples(float(present), *span)
    values = list(ALONG[name])
    scale = [_toward_one(value) for value in values] if name in NEAR_ONE else values
    here = _place(scale, _toward_one(present) if name in NEAR_ONE else present)
    # In the place of the value that it is nearest to on its way along the range, so that the others keep theirs.
    values[round(here)] = present
    return tuple(values)


def _toward_one(value: float) -> float:
    """0.9, 0.99 and 0.999 as 1, 2 and (almost) 3."""
    return -math.log10(1.0 - value + 1e-6)


def _place(values: Sequence[float], value: float) -> float:
    """Where a value lies among sorted ones: 1.5 is half way from the second to the third."""
    if value <= values[0] or value >= values[-1]:
        return 0.0 if value <= values[0] else len(values) - 1.0
    after = next(i for i, known in enumerate(values) if known >= value)
    return after - (values[after] - value) / (values[after] - values[after - 1])


def _multiples(present: float, low: float, high: float) -> tuple[float, ...]:
    if present <= 0:
        return (present, 1e-3, 1e-2, 1e-1, 1.0)
    values = (present if ratio == 1 else _rounded(ratio * present) for ratio in RATIOS)
    return tuple(sorted({value for value in values if low <= value <= high}))


def _rounded(value: float) -> float:
    """With two figures that count."""
    return round(value, 1 - math.floor(math.log10(value)))


@dataclass(frozen=True)
class Membership:
    """Of which family a run is, and where it stands in it."""

    id: str
    """The same for all members."""
    knob: str
    value: Any
    """The knob's value with which this one set out."""
    place: int
    """From 0, along the knob's range."""
    size: int
    """Members that the family began with."""

    def kept(self) -> dict[str, Any]:
        """As a run's file keeps it."""
        return asdict(self)


class _Kept(BaseModel):
    """What a file may say: it may come from anywhere."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    id: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    knob: str = Field(max_length=100)
    value: bool | int | float | str
    place: int = Field(ge=0, lt=MOST)
    size: int = Field(ge=1, le=MOST)


def membership(said: object) -> Membership | None:
    """What a run's meta says of its family; None if it is of none, or says nothing that makes sense."""
    try:
        kept = _Kept.model_validate(said)
        Knobs().changed({kept.knob: kept.value})
    except (ValidationError, ValueError, TypeError):
        return None
    return Membership(**kept.model_dump())
