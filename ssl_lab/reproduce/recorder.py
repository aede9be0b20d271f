"""Keeps a study's record up to date while somebody works on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_lab import __version__
from ssl_lab.errors import SSLLabError, WriteError
from ssl_lab.reproduce.progress import Progress, look
from ssl_lab.reproduce.record import RunRecord, StudyRecord, StudyState, write_record
from ssl_lab.reproduce.results import Outcome, read_outcome
from ssl_lab.reproduce.rows import ROWS, Item, Job, Scale

PAUSE = 1.5
"""Seconds between records."""

PROBES = 0.25
"""What the probes of a run cost, as a share of the training of the longest run."""


@dataclass
class Recorder:
    """Writes ``results.json`` of a study.

    Args:
        folder: of the study.
        items, jobs, scale: what is done, and at which size.
        data: whose published numbers stand beside it.
        data_note: what the images are, without a path.
        clock: seconds.
    """

    folder: Path
    items: Sequence[Item]
    jobs: Sequence[Job]
    scale: Scale
    data: str
    data_note: str
    clock: Callable[[], float] = time.monotonic
    failures: dict[str, str] = field(default_factory=dict)
    """Run -> why it could not be had."""

    def __post_init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._runs: dict[str, RunRecord] = {}
        self._beat = 0
        self._written = float("-inf")
        self._finished = -1
        self._begun, self._first = 0.0, -1.0

    def show(self, progress: Sequence[Progress]) -> None:
        """Called twice a second with how far the runs are; writes where that is worth it."""
        finished = sum(p.done for p in progress)
        if self._finished == finished and self.clock() - self._written < PAUSE:
            return
        self._finished = finished
        try:
            self.write("running", progress)
        except WriteError:
            # The study goes on: a disk that is full for a while has its runs stand, and they say so themselves.
            self._written = self.clock()

    def write(self, state: StudyState, progress: Sequence[Progress] | None = None, message: str = "") -> Path:
        """Writes the record of this moment; gives its path.

        Raises:
            WriteError: it cannot be written.
        """
        if progress is None:
            progress = [look(job, self.folder) for job in self.jobs]
        self._beat += 1
        path = write_record(self.folder, self._record(state, progress, message))
        self._written = self.clock()
        return path

    def _record(self, state: StudyState, progress: Sequence[Progress], message: str) -> StudyRecord:
        runs = tuple(self._run(p) for p in progress)
        configs = [job.config for job in self.jobs if ROWS[job.row].kind == "pretrained"]
        costs = [outcome.cost for outcome in self._outcomes.values() if outcome.cost.get("device")]
        config, cost = next(iter(configs), None), next(iter(costs), {})
        return StudyRecord(
            items=tuple(item.name for item in self.items),
            scale=self.scale.name,
            scale_title=self.scale.title,
            data=self.data,
            data_note=self.data_note,
            seeds=len({job.seed for job in self.jobs}),
            epochs=(config.epochs or 0) if config else 0,
            probe_epochs=self.scale.probe_epochs,
            batch_size=config.batch_size if config else 0,
            encoder=config.encoder if config else "",
            width=config.width if config else 0,
            image_size=config.image_size if config else None,
            train=cost.get("train"),
            test=cost.get("test"),
            ssl_lab=__version__,
            written=time.strftime("%Y-%m-%d"),
            state=state,
            message=message[:1_000],
            left_seconds=self._left(progress) if state == "running" else None,
            beat=self._beat,
            runs=runs,
        )

    def _run(self, p: Progress) -> RunRecord:
        name = p.job.name
        if p.done and name not in self._runs:
            try:
                outcome = read_outcome(p.job, self.folder)
            except SSLLabError as error:
                return RunRecord(row=p.job.row, seed=p.job.seed, state="failed", why=str(error)[:300])
            if outcome is not None:
                # A run that is done changes no more.
                self._outcomes[name], self._runs[name] = outcome, run_record(outcome, p)
        if name in self._runs:
            return self._runs[name]
        if why := self.failures.get(name, ""):
            return RunRecord(row=p.job.row, seed=p.job.seed, state="failed", step=p.steps, of=p.of, why=why[:300])
        state = "running" if p.steps else "waiting"
        return RunRecord(row=p.job.row, seed=p.job.seed, state=state, step=p.steps, of=p.of)

    def _left(self, progress: Sequence[Progress]) -> float | None:
        """Seconds to the end, by what was done since the beginning of this piece of work."""
        longest = max((p.of for p in progress), default=0)
        probes = PROBES * longest if longest else 1.0
        done = sum(min(p.steps, p.of) + (probes + p.of - min(p.steps, p.of) if p.done else 0.0) for p in progress)
        total = sum(p.of + probes for p in progress)
        now = self.clock()
        if self._first < 0:
            self._begun, self._first = now, done
        since = done - self._first
        return (now - self._begun) * (total - done) / since if since > 0 and now - self._begun > 3 else None


def run_record(outcome: Outcome, progress: Progress) -> RunRecord:
    """What a run came to, as the record keeps it."""
    cost: Mapping[str, object] = outcome.cost
    end = outcome.last.spectrum if outcome.last is not None else None
    threads = cost.get("threads")
    return RunRecord(
        row=outcome.job.row,
        seed=outcome.job.seed,
        state="done",
        step=progress.steps,
        of=progress.of,
        probe=outcome.probe,
        authors_last=outcome.authors_last,
        authors_best=outcome.authors_best,
        reused=outcome.reused,
        knn=outcome.knn,
        effective_rank=None if end is None else end.effective_rank,
        aligned=None if end is None else end.aligned,
        directions=None if end is None else len(end.alignment),
        asymmetry=None if end is None else end.asymmetry,
        seconds=float(outcome.cost.get("seconds", 0.0)),
        device=str(cost.get("device", ""))[:300],
        threads=threads if isinstance(threads, int) else None,
        precision=str(cost.get("precision", ""))[:300],
        torch=str(cost.get("torch", ""))[:300],
    )
