"""What the runs of a study came to, read from their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ssl_lab.errors import StoreError
from ssl_lab.foreign import NUMBER, SHARE, from_json, understood
from ssl_lab.reproduce.progress import SUPERVISED, look
from ssl_lab.reproduce.rows import ROWS, Job
from ssl_lab.store import COST, PROBED, SpectrumRecord, open_run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that is trained and probed. Accuracies are in per cent of the test images."""

    job: Job
    """Which run."""
    probe: float
    """By S's probe, last epoch; of the supervised row, its own accuracy."""
    authors_last: float | None = None
    """By the authors' probe, last epoch."""
    authors_best: float | None = None
    """By the authors' probe, its best epoch on the test images: an upper bound."""
    reused: float | None = None
    """By S's probe on top of the projector layers that the row keeps."""
    knn: float | None = None
    """kNN accuracy of the encoder's features, as last measured on the way."""
    spectra: Sequence[SpectrumRecord] = ()
    """At the end of each epoch."""
    cost: dict[str, Any]
    """Seconds, images, device, torch, precision, numbers of images."""
    probe_epochs: int = 0
    """Passes of the probes."""

    @property
    def last(self) -> SpectrumRecord | None:
        """The spectrum at the end."""
        return self.spectra[-1] if self.spectra else None

    @property
    def images_per_second(self) -> float | None:
        """Training images a second, each in two views."""
        seconds = float(self.cost.get("seconds", 0.0))
        return float(self.cost["images"]) / seconds if seconds and self.cost.get("images") else None


def read_outcome(job: Job, folder: Path) -> Outcome | None:
    """What a run came to; None if it is not trained and probed yet."""
    if not look(job, folder).done:
        return None
    if ROWS[job.row].kind == "supervised":
        path = folder / job.name / SUPERVISED
        with understood(path, "result"):
            if path.stat().st_size > 100_000:
                raise ValueError(f"expected a few numbers, found {path.stat().st_size:,} bytes")
            said = from_json(path.read_text(encoding="utf-8"))
            probe, seconds = SHARE.validate_python(said["accuracy"]), NUMBER.validate_python(said["seconds"])
        return Outcome(job=job, probe=100 * probe, cost={"seconds": seconds})
    with open_run(job.name, folder, readonly=True) as store:

        def accuracy(kind: str) -> float | None:
            found = store.newest_evaluation(kind)
            return None if found is None else 100 * found[1]

        seed_probe, cost = accuracy("probe"), store.meta(COST) or {}
        if seed_probe is None:
            raise StoreError(f"{store.path} is broken: expected the accuracy of a probe, found none.")
        with understood(store.path, "cost"):
            for name in ("seconds", "images"):
                NUMBER.validate_python(cost.get(name, 0))
        return Outcome(
            job=job,
            probe=seed_probe,
            authors_last=accuracy("authors-last"),
            authors_best=accuracy("authors-best"),
            reused=accuracy("reused"),
            knn=accuracy("knn"),
            spectra=[r for r in store.spectra() if abs(r.epoch - round(r.epoch)) < 1e-9],
            cost=cost,
            probe_epochs=int(store.meta(PROBED)),
        )


@dataclass(frozen=True)
class Seeds:
    """A number over seeds."""

    values: tuple[float, ...]
    """One a seed."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1); None for one seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.spread is None else f" ± {self.spread:.2f}")


def over_seeds(values: Sequence[float | None]) -> Seeds | None:
    """The numbers that are there; None if none is."""
    there = tuple(value for value in values if value is not None)
    return Seeds(there) if there else None
