"""A study as one small file: what each run came to, or how far it is; no torch.

Whoever works on a study writes ``results.json`` anew every few seconds, so that a page on this machine, or on one that
has the folder mounted, need read nothing else. A finished one may be sent around: it names no path.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ssl_lab.atomic import write_whole
from ssl_lab.errors import StoreError
from ssl_lab.foreign import Finite, ShortWords, Step, understood

RECORD = "results.json"
"""Name of the file, in a study's folder."""

FORMAT = 1
"""What this version writes and reads."""

LARGEST = 1_000_000
"""Bytes of the largest record that is read; a study of all rows and ten seeds takes a tenth of it."""

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""An accuracy, per cent of the test images."""
Count = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""Something that is counted or measured and never below nothing."""
RunState = Literal["waiting", "running", "done", "failed"]
StudyState = Literal["running", "done", "stopped", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RunRecord(_Part):
    """One run of a study."""

    row: ShortWords
    """Which configuration."""
    seed: Step
    state: RunState = "waiting"
    step: Step = 0
    """Steps done."""
    of: Step = 0
    """Steps in all."""
    why: ShortWords = ""
    """Why it could not be had."""
    probe: Percent | None = None
    """By S's probe, last epoch; of the supervised row, its own accuracy."""
    authors_last: Percent | None = None
    """By the authors' probe, last epoch."""
    authors_best: Percent | None = None
    """By the authors' probe, its best epoch on the test images: an upper bound."""
    reused: Percent | None = None
    """By S's probe on top of the projector layers that the row keeps."""
    knn: Percent | None = None
    """kNN accuracy of the encoder's features, as last measured."""
    effective_rank: Count | None = None
    """Of F, at the end."""
    aligned: Step | None = None
    """Eigenvectors v of F with cos(Wp v, v) above .9, at the end."""
    directions: Step | None = None
    """Eigenvectors of F in all."""
    asymmetry: Finite | None = None
    """Sum of abs(Wp - Wp^T) over sum of abs(Wp), at the end."""
    seconds: Count | None = None
    """Of training."""
    device: ShortWords = ""
    threads: Step | None = None
    precision: ShortWords = ""
    torch: ShortWords = ""
    """Version."""

    @property
    def share(self) -> float:
        """How much of its training is done."""
        return 1.0 if self.state == "done" else min(self.step / self.of, 1.0) if self.of else 0.0


_WHOLE: Mapping[str, int] = MappingProxyType({"cifar10": 50_000, "stl10": 100_000})
"""Training images of the papers' sets; of STL-10 those without labels."""

_EPOCHS = 100
"""Epochs of the shortest studies in print."""


class StudyRecord(_Part):
    """A study and its runs."""

    format: Literal[1] = 1
    items: Annotated[tuple[ShortWords, ...], Field(max_length=50)]
    """Tables and figures."""
    scale: ShortWords
    """Its size, by name."""
    scale_title: Annotated[str, Field(max_length=1_000)] = ""
    """Its size, in words."""
    data: ShortWords
    """Whose published numbers stand beside it: ``cifar10``, ``stl10``, or what the images are called."""
    data_note: Annotated[str, Field(max_length=1_000)] = ""
    """What the images are."""
    seeds: Step
    epochs: Step
    probe_epochs: Step = 0
    batch_size: Step = 0
    encoder: ShortWords = ""
    width: Step = 0
    image_size: Step | None = None
    train: Step | None = None
    """Training images."""
    test: Step | None = None
    """Test images."""
    ssl_lab: ShortWords = ""
    """Version."""
    written: ShortWords = ""
    """Date."""
    state: StudyState = "done"
    message: Annotated[str, Field(max_length=1_000)] = ""
    """What is wrong, for a person."""
    left_seconds: Count | None = None
    """To its end, as whoever works on it estimates; None where that is not known."""
    beat: Step = 0
    """Goes up each time that it is written, so that one who looks knows that somebody works on it."""
    runs: Annotated[tuple[RunRecord, ...], Field(max_length=2_000)] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """The configurations, in order."""
        return tuple(dict.fromkeys(run.row for run in self.runs))

    def of_row(self, row: str) -> list[RunRecord]:
        """The runs of a row."""
        return [run for run in self.runs if run.row == row]

    @property
    def done(self) -> int:
        """Runs that are trained and probed."""
        return sum(run.state == "done" for run in self.runs)

    @property
    def papers(self) -> bool:
        """Whether its numbers may be compared with those in print: the papers' network, images and epochs."""
        network = (self.encoder, self.width, self.image_size) == ("resnet18", 64, None)
        whole = self.train is None or self.train >= _WHOLE.get(self.data, 0)
        return self.scale == "paper" and self.data in _WHOLE and network and whole and self.epochs >= _EPOCHS


def read_record(path: Path) -> StudyRecord:
    """What a file says; one that a stranger made is held against what this version writes.

    Raises:
        StoreError: it is no record of a study, or one of another format.
        OSError: it cannot be read.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        # A stranger's folder may hold a pipe, on which one would wait for ever, or a link to any file of this machine.
        raise StoreError(f"{path} is no record of a study: it is not a plain file.")
    if found.st_size > LARGEST:
        raise StoreError(f"{path} is no record of a study: it has {found.st_size:,} bytes.")
    with understood(path, "record of a study"):
        return StudyRecord.model_validate_json(path.read_text(encoding="utf-8"))


def write_record(folder: Path, record: StudyRecord) -> Path:
    """Writes it into a study's folder, whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    path = folder / RECORD
    write_whole(path, [(record.model_dump_json(indent=1, exclude_none=True) + "\n").encode()])
    return path
