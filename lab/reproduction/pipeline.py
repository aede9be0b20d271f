"""The study that a page starts here: ``ssl-lab reproduce`` as a process of its own, which outlives the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.work import Work
from ssl_lab.reproduce.progress import STOP, worked_on
from ssl_lab.reproduce.record import RECORD
from ssl_lab.reproduce.rows import LESSON

ITEMS = ("table1", "figure1")
LOG = "reproduce.log"
"""What the process says, in the study's folder."""


@dataclass(frozen=True)
class Size:
    """What is run here."""

    seeds: int = LESSON.seeds
    epochs: int = LESSON.epochs
    items: tuple[str, ...] = ITEMS

    @property
    def name(self) -> str:
        """Of the study's folder."""
        usual = Size()
        own = "" if self == usual else f"-{'-'.join(self.items)}-{self.seeds}x{self.epochs}"
        return f"reproduce-digits-{LESSON.name}{own}"

    @property
    def words(self) -> tuple[str, ...]:
        """The command line, after ``ssl-lab``."""
        more = () if (self.seeds, self.epochs) == (LESSON.seeds, LESSON.epochs) else (
            "--seeds", str(self.seeds), "--epochs", str(self.epochs)
        )  # fmt: skip
        return ("reproduce", *self.items, "--dataset", "digits", "--scale", LESSON.name, "--device", "cpu", *more)


class Pipeline(Work):
    """The one study of a results folder that pages start.

    Args:
        results: the results folder.
        size: what is run.
    """

    record, log, stop_file = RECORD, LOG, STOP

    def __init__(self, results: Path, size: Size | None = None) -> None:
        self.size = size or Size()
        super().__init__(results, self.size.name)

    def command(self) -> Sequence[str]:
        """The words of the process."""
        return [sys.executable, "-m", "ssl_lab.cli", *self.size.words, "--out", str(self.folder)]

    def worked_on(self) -> bool:
        """Whether a process has the seat."""
        return worked_on(self.folder)

    def ended_well(self, status: int, said: bytes) -> bool:
        """Whether a process came to its end, or was stopped."""
        # With 1 it ends too where some runs could not be had, which its record says.
        return super().ended_well(status, said) or (status == 1 and b"Report: " in said)
