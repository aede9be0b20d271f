"""The one table: rows of figures, printed as Markdown while they come in, and kept as JSON beside it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

HEAD = "| section | what | n | median | unit | spread | besides |\n| --- | --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Row:
    """One thing that was measured ``len(values)`` times."""

    what: str
    """What it is, and under which conditions."""
    unit: str
    """Of the values."""
    values: Sequence[float]
    """Every measurement, in the order in which they were made."""
    besides: Sequence[str] = ()
    """What else is to be said: a share of the peak, a percentile, a mark that the figure is derived."""

    def __post_init__(self) -> None:
        """Refuses a row without a figure: what was not measured has no row.

        Raises:
            ValueError: no values, or one that is not a number.
        """
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"{self.what}: {list(self.values)} are not measurements")

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def line(self, section: str) -> str:
        """The row as Markdown."""
        spread = f"{number(min(self.values))} to {number(max(self.values))}" if len(self.values) > 1 else "one value"
        cells = (section, self.what, len(self.values), number(self.median), self.unit, spread, "; ".join(self.besides))
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"

    def state(self, section: str) -> dict[str, Any]:
        """The row for a JSON file."""
        return {
            "section": section, "what": self.what, "n": len(self.values), "median": self.median, "unit": self.unit,
            "least": min(self.values), "most": max(self.values), "besides": list(self.besides),
            "values": list(self.values),
        }  # fmt: skip


@dataclass(frozen=True)
class Missing:
    """What could not be measured here, and why: it has no row."""

    what: str
    why: str


Entry = Row | Missing


@dataclass
class Table:
    """Prints entries as they come, and writes them all into a file."""

    about: Mapping[str, Any]
    """Hardware, versions and date, printed above the table."""
    out: TextIO
    file: Path | None = None
    rows: list[tuple[str, Row]] = field(default_factory=list)
    missing: list[tuple[str, Missing]] = field(default_factory=list)

    def begin(self) -> None:
        """Prints what stands above the rows."""
        for name, value in self.about.items():
            print(f"{name}: {value}", file=self.out)
        print(f"\n{HEAD}", file=self.out, flush=True)

    def take(self, section: str, entries: Iterator[Entry]) -> None:
        """Prints the entries of a section one by one; the file is written at its end, so that a cut leaves something.

        What fails is said below the table and does not take the other sections along.
        """
        try:
            for entry in entries:
                if isinstance(entry, Missing):
                    self.missing.append((section, entry))
                    continue
                self.rows.append((section, entry))
                print(entry.line(section), file=self.out, flush=True)
        except Exception as error:
            reason = f"it failed: {type(error).__name__}: {error}".splitlines()[0]
            self.missing.append((section, Missing("what has no row above", reason)))
        self.write()

    @property
    def failed(self) -> bool:
        """Whether a section ended with an error."""
        return any(entry.why.startswith("it failed") for _, entry in self.missing)

    def end(self) -> None:
        """Prints what could not be measured."""
        if self.missing:
            print("\nLeft out:\n", file=self.out)
            for section, entry in self.missing:
                print(f"* {section}: {entry.what}: {entry.why}", file=self.out)
        if self.file is not None:
            print(f"\nEvery value: {self.file}", file=self.out)
        self.out.flush()

    def write(self) -> None:
        """Writes everything so far as JSON."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.state(), indent=1) + "\n")

    def state(self) -> dict[str, Any]:
        """Everything so far, for a JSON file."""
        return {
            "about": dict(self.about),
            "rows": [row.state(section) for section, row in self.rows],
            "left_out": [{"section": s, "what": entry.what, "why": entry.why} for s, entry in self.missing],
        }


def number(value: float) -> str:
    """With three figures that count, or all those before the point.

    >>> [number(x) for x in (12345.6, 123.45, 12.345, 1.2345, 0.012345, 0.0)]
    ['12,346', '123', '12.3', '1.23', '0.0123', '0']
    """
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(digits, 0)}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least ``share`` (0 to 1) of the values do not exceed.

    >>> percentile([4, 1, 3, 2], 0.5)
    2
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def high(values: Sequence[float], unit: str) -> str:
    """The 95th percentile in words."""
    return f"95th percentile {number(percentile(values, 0.95))} {unit}"
