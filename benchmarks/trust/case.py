"""A harness: what is tried, how often, and a planted fault that it must catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Verdict:
    """What a harness found."""

    tried: int = 0
    """Cases that were tried."""
    failures: list[str] = field(default_factory=list)
    """One line for each case that failed: which it was, and what was seen."""
    notes: list[str] = field(default_factory=list)
    """What else was counted or measured, such as "12 inside a write"."""

    @property
    def failed(self) -> int:
        """Cases that failed."""
        return len(self.failures)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A harness and its sizes."""

    name: str
    """How ``--only`` calls it."""
    what: str
    """What must hold, in words."""
    whole: int
    """Cases of the whole."""
    quick: int
    """Cases of a first look, in seconds; the tests take no more."""
    run: Callable[[int, Path], Verdict]
    """Tries so many cases in an empty folder."""
    fault: Callable[[Path], Verdict] | None
    """Tries the same with a planted fault, and so must fail; None where nothing can be planted."""
    fault_words: str = ""
    """What the planted fault is."""
