"""``ssl-lab reproduce``: what the command line says, and the lines it prints while a study goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ssl_lab.config import DATASETS, dataset_info
from ssl_lab.cores import usable_cores
from ssl_lab.errors import ConfigError, SSLLabError
from ssl_lab.interrupt import Interruptible
from ssl_lab.reproduce.progress import LOCK, look, worked_on
from ssl_lab.reproduce.rows import SCALES, Item, Job, Scale, chosen, jobs
from ssl_lab.seat import Seat
from ssl_lab.store import results_dir
from ssl_lab.sweep.plan import make_resources

if TYPE_CHECKING:
    from ssl_lab.reproduce.progress import Progress
    from ssl_lab.reproduce.recorder import Recorder
    from ssl_lab.reproduce.reference import Reference
    from ssl_lab.sweep.work import Crew

INTERRUPTED = 130
"""Exit status of a study that was cut; the same command goes on with it."""
FAILED = 1
"""Exit status of a study of which some runs cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train and probe every configuration of the papers' tables and figures, and write one report.

    table1: two-layer predictors; figure1: one-layer predictors with and without EMA; figure2 to figure4: eigenspaces of
    BYOL, SimSiam, and symmetric SimSiam with other rates; table2: the family of directly set predictors; theory: the
    linear model. What is done is not done again, and what was cut goes on where it was.
    """

    items: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """What to reproduce: table1, figure1, figure2, figure3, figure4, table2, theory, all."""
    dataset: str = "cifar10"
    """A data set by name, or the path of a folder of images."""
    data: str | None = None
    """Which published numbers stand beside: cifar10 or stl10; default the data set's name. A folder of CIFAR-10 as
    JPEGs is --dataset FOLDER --data cifar10."""
    scale: str = "paper"
    """paper; small: the same study at a size for two cores; lesson: on the digits, a few minutes."""
    seeds: int | None = None
    """Runs of each configuration; default 3, small 2."""
    epochs: int | None = None
    """Epochs of pre-training; default 101, small 6, lesson 40."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int | None = None
    """Runs at once; default 1, small and lesson one for each core."""
    ray: bool = False
    """Compute on a Ray cluster; without --address on one that is started on this machine."""
    address: str | None = None
    """Ray cluster to compute on: auto for the one that this machine is part of, or HOST:PORT. Goes with --ray."""
    cpus: float = 1
    """Processor cores of a run on a Ray cluster."""
    gpus: float = 0
    """GPUs of a run on a Ray cluster; 0.25 lets four share one."""
    minutes: float | None = None
    """Stop after so many minutes, to be gone on with by the same command."""
    reference: tuple[str, ...] = ()
    """Recorded eigenspaces to lay over: FILE.npz whose name ends with a row's, or ROW=FILE.npz."""
    out: str | None = None
    """Folder of the study; default reproduce-DATASET-SCALE in the results folder."""
    data_dir: str | None = None
    """Folder for downloads; default SSL_LAB_DATA or ./data."""
    report_only: Annotated[bool, tyro.conf.arg(help="Write the report of what is there, and train nothing.")] = False

    def run(self) -> int:
        """Trains, probes and reports; gives the exit status."""
        from ssl_lab.reproduce.recorder import Recorder
        from ssl_lab.reproduce.reference import distances, read_reference
        from ssl_lab.reproduce.results import read_outcome

        items = chosen(self.items)
        with_ray = self.ray or self.address is not None
        device = self.device
        if with_ray:
            # On the GPU that it takes, or on none.
            device = "cuda" if self.gpus else "cpu" if device == "auto" else device
        scale = self._scale()
        dataset = str(Path(self.dataset).expanduser().absolute()) if Path(self.dataset).is_dir() else self.dataset
        if not dataset_info(dataset).labelled:
            raise ConfigError(f"The papers' tables are accuracies, and {dataset} has no classes to tell apart.")
        needed = jobs(
            items, scale, dataset=dataset, seeds=scale.seeds, epochs=scale.epochs, device=device,
            data_dir=self.data_dir,
        )  # fmt: skip
        references = [read_reference(word) for word in self.reference]
        name = Path(dataset).name
        folder = results_dir(None) / f"reproduce-{name}-{scale.name}" if self.out is None else Path(self.out)
        recorder = Recorder(folder, items, needed, scale, self.data or name, self._note(dataset))
        # One at a time: two would write the same runs, and each other's record.
        seat = Seat(folder / LOCK)
        if not self.report_only:
            self._check(needed, folder)
            folder.mkdir(parents=True, exist_ok=True)
            if not seat.take():
                raise SSLLabError(f"Somebody works on the study in {folder} right now. Wait for its end, or stop it.")
        try:
            status = 0 if self.report_only else self._train(needed, folder, scale, recorder)
            page, text = self._write(folder, items, needed, scale, recorder, references)
        finally:
            seat.leave()
        for reference in references:
            job = next((job for job in needed if job.row == reference.row), None)
            outcome = None if job is None else read_outcome(job, folder)
            if outcome is not None and outcome.spectra:
                print(f"{outcome.job.name} beside its reference:")
                for d in distances(outcome.spectra, reference):
                    print(
                        f"  epoch {d.epoch:g}: aligned {d.aligned[0]} ({d.aligned[1]}), effective rank "
                        f"{d.effective_rank[0]:.1f} ({d.effective_rank[1]:.1f}), asymmetry {d.asymmetry[0]:.3f} "
                        f"({d.asymmetry[1]:.3f})"
                    )
        for run, why in recorder.failures.items():
            print(f"{run} could not be had: {why}", file=sys.stderr)
        print(f"Report: {page} and {text}")
        return status

    @staticmethod
    def _check(needed: Sequence[Job], folder: Path) -> None:
        """Whether what lies in the folder is of this study, before anything is written there."""
        if folder.is_dir():
            for job in needed:
                look(job, folder)

    def _write(
        self,
        folder: Path,
        items: Sequence[Item],
        needed: Sequence[Job],
        scale: Scale,
        recorder: Recorder,
        references: Sequence[Reference],
    ) -> tuple[Path, Path]:
        """The report, and the record, which says that the report is there."""
        from ssl_lab.reproduce.report import write_report

        folder.mkdir(parents=True, exist_ok=True)
        paths = write_report(
            folder, items, needed, scale, dataset=recorder.data, data_note=recorder.data_note,
            references=references, failures=recorder.failures,
        )  # fmt: skip
        if self.report_only and worked_on(folder):
            # Whoever works on the study writes its record.
            return paths
        whole = all(look(job, folder).done for job in needed)
        recorder.write("done" if whole else "failed" if recorder.failures else "stopped")
        return paths

    def _scale(self) -> Scale:
        if self.scale not in SCALES:
            raise ConfigError(f"There is no scale {self.scale!r}. There are: {', '.join(SCALES)}.")
        scale = SCALES[self.scale]
        for name, value in (("seeds", self.seeds), ("epochs", self.epochs), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} takes a whole number from 1 on, and not {value}.")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"--minutes takes a number above 0, and not {self.minutes:g}.")
        if self.data is not None and self.data not in DATASETS:
            raise ConfigError(f"There are no published numbers of {self.data!r}. There are of: cifar10, stl10.")
        return replace(scale, seeds=self.seeds or scale.seeds, epochs=self.epochs or scale.epochs)

    def _note(self, dataset: str) -> str:
        if dataset in DATASETS:
            return DATASETS[dataset].title
        note = f"a folder of images, {Path(dataset).name}"
        if self.data is not None:
            note += (
                f", taken for {DATASETS[self.data].title}; if its images were compressed with losses, expect a point "
                "or two less than in print, and look at the supervised row for what these images allow"
            )
        return note

    def _crew(self, folder: Path) -> tuple[Crew | None, int | None]:
        """The cluster, if one is asked for, and the threads of each run there."""
        if not self.ray and self.address is None:
            return None, None
        from ssl_lab.sweep.on_ray import RayCrew

        resources = make_resources(cpus=self.cpus, gpus=self.gpus)
        return RayCrew(folder.absolute(), resources, self.address), resources.threads

    def _train(self, needed: Sequence[Job], folder: Path, scale: Scale, recorder: Recorder) -> int:
        from ssl_lab.reproduce.study import run_study

        workers = self.workers or (1 if scale.name == "paper" else usable_cores())
        deadline = None if self.minutes is None else time.time() + 60 * self.minutes
        crew, threads = self._crew(folder)
        with closing(crew) if crew else nullcontext(), Interruptible() as stop, _Lines(needed) as lines:
            recorder.write("running")

            def show(progress: list[Progress]) -> None:
                lines.show(progress)
                recorder.show(progress)

            whole = run_study(
                needed, folder, workers=workers, probe_epochs=scale.probe_epochs, threads=threads, crew=crew,
                deadline=deadline, stop=stop, on_change=show,
                on_failure=lambda job, why: recorder.failures.update({job.name: why}),
            )  # fmt: skip
        if recorder.failures:
            return FAILED
        if not whole:
            print("Stopped before the end; nothing is lost. The same command goes on.")
            return INTERRUPTED
        return 0


class _Lines:
    """Bars for the whole and for each run under way, with the time left; in a log file a line for each run."""

    def __init__(self, needed: Sequence[Job]) -> None:
        from tqdm import tqdm

        self._terminal = sys.stderr.isatty()
        self._of = len(needed)
        self._bar: Any = tqdm(
            total=1, desc="whole study", unit="step", dynamic_ncols=True, mininterval=0.5, disable=not self._terminal
        )
        self._runs: dict[str, Any] = {}
        self._tqdm = tqdm
        self._said: set[str] = set()
        self._begun, self._first = time.monotonic(), -1
        self._before: dict[str, int] = {}

    def show(self, runs: list[Progress]) -> None:
        """Called twice a second."""
        total, done = sum(p.of for p in runs), sum(p.of if p.done else min(p.steps, p.of) for p in runs)
        if self._first < 0:
            self._first = done
            self._said = {p.job.name for p in runs if p.done}
            self._before = {p.job.name: p.steps for p in runs}
            # What was there before says nothing of how fast it goes.
            self._bar.initial = self._bar.n = done
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        finished = sum(p.done for p in runs)
        self._bar.set_postfix_str(f"{finished} of {len(runs)} runs", refresh=False)
        for p in runs:
            moving = not p.done and p.steps != self._before.get(p.job.name, 0)
            if moving and self._terminal:
                self._bar_of(p).update(p.steps - self._bar_of(p).n)
            if p.done and p.job.name not in self._said:
                self._said.add(p.job.name)
                if p.job.name in self._runs:
                    self._runs.pop(p.job.name).close()
                if not self._terminal:
                    print(f"[{finished}/{len(runs)}] {p.job.name}: done; {self._left(total, done)}", flush=True)

    def _bar_of(self, p: Progress) -> Any:
        name = p.job.name
        if name not in self._runs:
            free = next(i for i in range(1, 100) if all(bar.pos != -i for bar in self._runs.values()))
            start = self._before.get(name, 0)
            self._runs[name] = self._tqdm(
                total=p.of, initial=start, desc=name, unit="step", leave=False, position=free, dynamic_ncols=True
            )
        return self._runs[name]

    def _left(self, total: int, done: int) -> str:
        gone, since = time.monotonic() - self._begun, done - self._first
        if since <= 0:
            return "the time left is not known yet"
        return f"about {gone * (total - done) / since / 60:.0f} min left"

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in (*self._runs.values(), self._bar):
            bar.close()
