"""The checkpoints that a run keeps: which there are, which go when the disk is full enough, which a fork begins from.

``checkpoints/00000250-3.safetensors`` in the run's folder is the state after 250 steps that has seen 3 knob events.
The names are the index, so that it cannot disagree with the files. No torch; what is inside is
:mod:`ssl_lab.checkpoint`'s affair.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = "checkpoints"

LIMIT = "SSL_LAB_CHECKPOINT_MB"
"""Environment variable: megabytes that the checkpoints of one run may take."""

DISK = 1_000_000_000
"""Bytes that they may take if it says nothing."""

AT_A_CADENCE = 48
"""Most checkpoints kept that no event asked for: as the run grows they lie further and further apart."""

_NAME = re.compile(r"(\d{8,})-(\d+)\.safetensors")


@dataclass(frozen=True, order=True)
class Kept:
    """A checkpoint on disk."""

    step: int
    """Steps done."""
    events: int
    """Knob events that the state has seen."""
    path: Path
    bytes: int


def disk_limit() -> int:
    """Bytes that the checkpoints of one run may take: ``SSL_LAB_CHECKPOINT_MB``, else ``DISK``."""
    text = os.environ.get(LIMIT, "")
    try:
        return int(float(text) * 1e6) if text else DISK
    except (ValueError, OverflowError):
        return DISK


def kept_path(folder: Path, step: int, events: int) -> Path:
    """Where the checkpoint of a run's folder at this step and number of events seen is kept."""
    return folder / FOLDER / f"{step:08d}-{events}.safetensors"


def kept(folder: Path) -> list[Kept]:
    """The checkpoints of a run's folder, by step; empty for a run that has none."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder / FOLDER):
            match = _NAME.fullmatch(entry.name)
            if match:
                # One that is being thinned out this moment is none.
                with contextlib.suppress(OSError):
                    found.append(Kept(int(match[1]), int(match[2]), Path(entry.path), entry.stat().st_size))
    return sorted(found)


def before(checkpoints: Iterable[Kept], step: int, events: int) -> list[Kept]:
    """Those from which ``step`` with ``events`` seen can be reached by going on, the nearest first."""
    return sorted((c for c in checkpoints if c.step <= step and c.events <= events), reverse=True)


def surplus(
    checkpoints: Collection[Kept], event_steps: Collection[int], limit: int, pinned: int | None = None
) -> list[Kept]:
    """Those that are to go, so that the others take ``limit`` bytes at most.

    The newest stays, and the one at step ``pinned``. Of the others those at an event go last; else the one goes
    whose neighbours lie closest together for its age, so that what stays lies denser toward the present.
    """
    stay, at_events = sorted(checkpoints), set(event_steps)
    gone: list[Kept] = []

    def cost(place: int) -> tuple[bool, float]:
        here = stay[place]
        previous = stay[place - 1].step if place else 0
        gap = stay[place + 1].step - previous
        return here.step in at_events, gap / (stay[-1].step - here.step + 1) ** 0.5

    while True:
        total = sum(c.bytes for c in stay)
        free = [i for i in range(len(stay) - 1) if stay[i].step != pinned]
        cadence = [i for i in free if stay[i].step not in at_events]
        if not free or (total <= limit and len(cadence) <= AT_A_CADENCE):
            return gone
        gone.append(stay.pop(min(free if total > limit else cadence, key=cost)))


def sweep(folder: Path) -> None:
    """Removes what a process that was killed while it wrote has left of a checkpoint."""
    for half in (folder / FOLDER).glob(".*.safetensors.*"):
        half.unlink(missing_ok=True)


def hand_on(checkpoints: Iterable[Kept], folder: Path, *, link: bool = True) -> None:
    """Gives a run's folder checkpoints of another one: files are never written twice, so links do.

    Where nothing can be linked, as between disks, the first that can be copied is, and no more; the same without
    ``link``, for those of somebody else.
    """
    given = 0
    for checkpoint in checkpoints:
        target = kept_path(folder, checkpoint.step, checkpoint.events)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not link:
                raise OSError("not to be linked")
            os.link(checkpoint.path, target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            continue  # Thinned out this moment.
        except OSError:
            if given:
                continue
            try:
                shutil.copyfile(checkpoint.path, target)
            except FileNotFoundError:
                continue
        given += 1
