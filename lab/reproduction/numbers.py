"""What a study says beside what is in print, as numbers: rows, means, intervals. No widget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ssl_lab.reproduce.published import PUBLISHED, Published
from ssl_lab.reproduce.record import RunRecord, StudyRecord
from ssl_lab.reproduce.results import Seeds, over_seeds

BASELINES: Mapping[str, str] = MappingProxyType({"untrained": "Untrained", "supervised": "With labels"})
TABLE1: Mapping[str, str] = MappingProxyType(
    {
        "byol": "BYOL",
        "byol-symmetric": "BYOL, symmetric",
        "simsiam": "SimSiam",
        "simsiam-symmetric": "SimSiam, sym.",
        "simsiam-symmetric-decay": "… and decay",
        "simsiam-symmetric-stable": "… and high rates",
    }
)
FIGURE1: Mapping[str, str] = MappingProxyType(
    {
        "byol-one-layer": "SGD, EMA",
        "simsiam-one-layer": "SGD, no EMA",
        "directpred": "DirectPred, EMA",
        "directpred-simsiam": "DirectPred, no EMA",
        "directcopy": "DirectCopy, EMA",
        "directcopy-simsiam": "DirectCopy, no EMA",
    }
)
"""Row -> its name in a picture, where there is little room."""

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % points of Student's t for 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Sample:
    """A mean over runs."""

    mean: float
    spread: float | None
    """Standard deviation over the runs (n - 1); None where it is not known."""
    n: int | None
    """Runs; None where it is not known."""

    @classmethod
    def of(cls, seeds: Seeds) -> Sample:
        """Our own."""
        return cls(seeds.mean, seeds.spread, len(seeds.values))

    @classmethod
    def printed(cls, known: Published) -> Sample:
        """In print."""
        return cls(known.accuracy, known.spread, known.n)

    def __str__(self) -> str:
        return f"{self.mean:.2f}".removesuffix("0") + ("" if self.spread is None else f" ± {self.spread:.2f}")


@dataclass(frozen=True)
class Gap:
    """A difference of two means, with its 95 % interval where the runs allow one."""

    value: float
    half: float | None
    """Half the width of the interval; None where a spread or a number of runs is not known."""

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half is None else self.value - self.half

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half is None else self.value + self.half

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.half is not None and abs(self.value) > self.half

    def __str__(self) -> str:
        interval = "" if self.half is None else f" (95 % interval {self.low:+.1f} to {self.high:+.1f})"
        return f"{self.value:+.1f} points{interval}".replace("-", "−")


def gap(a: Sample, b: Sample) -> Gap:
    """a - b, with Welch's interval.

    Degrees of freedom are rounded down, which makes it a little wider.
    """
    value = a.mean - b.mean
    if a.spread is None or b.spread is None or not a.n or not b.n or min(a.n, b.n) < 2:
        return Gap(value, None)
    one, other = a.spread**2 / a.n, b.spread**2 / b.n
    if one + other == 0:
        # Runs that agree to the last digit, as on few test images: they say nothing of how far others would be.
        return Gap(value, None)
    freedom = (one + other) ** 2 / (one**2 / (a.n - 1) + other**2 / (b.n - 1))
    return Gap(value, student(freedom) * math.sqrt(one + other))


def gap_of_pairs(differences: Sequence[float]) -> Gap:
    """The mean of differences within pairs, with Student's interval."""
    found = Seeds(tuple(differences))
    n, spread = len(found.values), found.spread
    if spread is None or spread == 0:
        return Gap(found.mean, None)
    return Gap(found.mean, student(n - 1) * spread / math.sqrt(n))


def student(freedom: float) -> float:
    """The 97.5 % point of Student's t; beyond 30 degrees of freedom that of 30."""
    return T_975[max(1, min(int(freedom), len(T_975))) - 1]


@dataclass(frozen=True)
class Line:
    """What a study says of one row."""

    row: str
    runs: Sequence[RunRecord]

    def over(self, name: str) -> Seeds | None:
        """A number of the runs that have it."""
        return over_seeds([getattr(run, name) for run in self.runs])

    @property
    def probe(self) -> Sample | None:
        """By S's probe."""
        found = self.over("probe")
        return None if found is None else Sample.of(found)

    @property
    def best(self) -> Sample | None:
        """By the authors' probe, its best epoch."""
        found = self.over("authors_best")
        return None if found is None else Sample.of(found)

    @property
    def rank(self) -> Seeds | None:
        """Effective rank of F at the end."""
        return self.over("effective_rank")

    @property
    def done(self) -> int:
        """Runs that are trained and probed."""
        return sum(run.state == "done" for run in self.runs)


def line(record: StudyRecord, row: str) -> Line:
    """What a study says of a row; of one that it has not, nothing."""
    return Line(row, record.of_row(row))


def in_print(data: str, row: str) -> dict[str, Published]:
    """By whom (S, P) -> what. A study on other images than the papers' stands beside CIFAR-10's numbers."""
    there = PUBLISHED.get(data) or PUBLISHED["cifar10"]
    return {str(known.protocol): known for known in there.get(row, ())}


def printed_data(data: str) -> str:
    """Whose numbers stand beside a study."""
    return {"stl10": "STL-10"}.get(data, "CIFAR-10")


def chance(data: str) -> float | None:
    """Per cent of the test images that a guess gets right; None where the number of classes is not known."""
    return 10.0 if data in ("cifar10", "stl10", "digits", "fashion-mnist") else None


def pairs(record: StudyRecord, one: str, other: str) -> dict[int, float]:
    """Seed -> the difference of S's probe between two rows, for each seed that both have."""
    there = {run.seed: run.probe for run in record.of_row(other) if run.probe is not None}
    return {
        run.seed: run.probe - there[run.seed]
        for run in record.of_row(one)
        if run.probe is not None and run.seed in there
    }
