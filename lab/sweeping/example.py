"""The example that a page starts here: ``ssl-lab sweep`` on the study that comes with the lab."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from lab.work import Work
from ssl_lab.errors import StoreError
from ssl_lab.sweep.progress import PLAN, STOP, read_runner, worked_on

NAME = "sweep-example"
"""Of its folder: the same that the command line gives it."""
LOG = "sweep.log"
"""What the process says, in its folder."""
FILE = "example.toml"


def shipped() -> Path:
    """The study that comes with the lab."""
    return Path(str(resources.files("lab.sweeping") / FILE))


class Example(Work):
    """The one sweep of a results folder that pages start.

    Args:
        results: the results folder.
        file: the study; default the one that comes with the lab.
        name: of its folder.
    """

    record, log, stop_file = PLAN, LOG, STOP

    def __init__(self, results: Path, file: Path | None = None, name: str = NAME) -> None:
        super().__init__(results, name)
        self.file = file or shipped()

    def command(self) -> Sequence[str]:
        """The words of the process."""
        return [sys.executable, "-m", "ssl_lab.cli", "sweep", str(self.file), "--out", str(self.folder)]

    def ended_well(self, status: int, said: bytes) -> bool:
        """Whether a process came to its end, or was stopped."""
        # With 1 it ends too where some trials could not be had, which their rows say.
        return super().ended_well(status, said) or (status == 1 and b"Tables: " in said)

    @property
    def finished(self) -> bool:
        """Whether all its trials are done, by the last word of whoever worked on it."""
        try:
            return read_runner(self.folder).state == "done"
        except StoreError:
            return False

    def worked_on(self) -> bool:
        """Whether a process has the seat."""
        try:
            return worked_on(self.folder, read_runner(self.folder))
        except StoreError:
            return False
