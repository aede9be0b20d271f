"""``ssl-lab sweep``: what the command line says, and who keeps the study's files up to date while it goes on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from ssl_lab.cores import usable_cores
from ssl_lab.errors import ConfigError, SSLLabError, StoreError, WriteError
from ssl_lab.interrupt import Interruptible
from ssl_lab.seat import Seat
from ssl_lab.store import FILE_NAME, results_dir
from ssl_lab.sweep.live import Live, headline, percent
from ssl_lab.sweep.plan import Resources, Sweep, Trial, read_sweep
from ssl_lab.sweep.progress import (
    LOCK,
    STOP,
    RunnerRecord,
    SweepState,
    SweepView,
    check_same,
    is_sweep,
    look,
    read_record,
    view,
    write_plan,
    write_record,
    write_runner,
)
from ssl_lab.sweep.table import summary, write_tables
from ssl_lab.sweep.work import Crew, Task, new_flag, work_off

INTERRUPTED = 130
"""Exit status of a study that was cut; the same command goes on with it."""
FAILED = 1
"""Exit status of a study of which some trials cannot be had."""

PAUSE = 1.5
"""Seconds between words on how the study fares."""


@dataclass(frozen=True, kw_only=True)
class SweepStudy:
    """Run a study: a grid or a list of presets, settings, knobs, seeds and schedules of knob turns, from one TOML file.

    Each trial is trained and probed in a process of its own, here one after another or on a Ray cluster side by side.
    What is done is not done again, what was cut goes on where it was, and what failed is tried again; the others go on.
    The results lie in results.csv, results.parquet, summary.csv and summary.parquet of the study's folder.
    """

    study: tyro.conf.Positional[str]
    """File of the study, such as study.toml."""
    out: str | None = None
    """Folder of the study; default sweep-NAME in the results folder. With machines that share no disk but a mounted
    folder, one in there."""
    ray: bool = False
    """Compute on a Ray cluster; without --address on one that is started on this machine."""
    address: str | None = None
    """Ray cluster to compute on: auto for the one that this machine is part of, or HOST:PORT. Goes with --ray."""
    workers: int = 1
    """Trials at once, without Ray."""
    minutes: float | None = None
    """Stop after so many minutes, to be gone on with by the same command."""
    dry_run: bool = False
    """Check the file, print its trials, and start nothing."""

    def run(self) -> int:
        """Runs the study; gives the exit status."""
        if self.workers < 1:
            raise ConfigError(f"--workers takes a whole number from 1 on, and not {self.workers}.")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"--minutes takes a number above 0, and not {self.minutes:g}.")
        sweep = read_sweep(Path(self.study))
        trials = sweep.trials()
        if self.dry_run:
            _print_trials(sweep, trials)
            return 0
        folder = results_dir(None) / f"sweep-{sweep.name}" if self.out is None else Path(self.out).expanduser()
        folder = folder.absolute()
        if (folder / FILE_NAME).exists():
            raise ConfigError(f"{folder} is the folder of a run. Give another one for the study: --out DIR.")
        if is_sweep(folder):
            check_same(folder, trials)
        folder.mkdir(parents=True, exist_ok=True)
        # One at a time: two would train the same runs.
        seat = Seat(folder / LOCK)
        if not seat.take():
            raise SSLLabError(f"Somebody works on the study in {folder} right now. Wait for its end, or stop it.")
        try:
            return self._work(sweep, trials, folder)
        finally:
            seat.leave()

    def _work(self, sweep: Sweep, trials: Sequence[Trial], folder: Path) -> int:
        write_plan(folder, sweep, trials)
        if all(read_record(folder, trial.name).state == "done" for trial in trials):
            write_runner(folder, RunnerRecord(state="done"))
            return self._end(folder, None)
        with_ray = self.ray or self.address is not None
        do: Callable[..., str]
        if with_ray:
            from ssl_lab.sweep.on_ray import run_trial_here

            do = run_trial_here
        else:
            from ssl_lab.sweep.trial import run_trial

            do = run_trial
        deadline = None if self.minutes is None else time.time() + 60 * self.minutes
        crew = make_crew(folder, sweep.resources, self.workers, with_ray=with_ray, address=self.address)
        with closing(crew), Interruptible() as stop, Live() as live:
            runner = Runner(sweep, trials, folder, crew, live)

            def asked() -> bool:
                late = deadline is not None and time.time() > deadline
                return stop.is_set() or late or (folder / STOP).exists()

            flag = new_flag(folder, STOP)
            tasks = [
                Task(t.name, do, (t, folder, sweep.resources.threads, flag, device_of(t, sweep.resources, with_ray)))
                for t in trials
                if read_record(folder, t.name).state != "done"
            ]
            runner.begin()
            work_off(
                tasks, crew, flag=flag, asked=asked, retries=sweep.resources.retries, on_look=runner.look,
                on_failure=runner.failed, on_lost=runner.lost,
            )  # fmt: skip
            (folder / STOP).unlink(missing_ok=True)
            runner.end()
        return self._end(folder, runner)

    def _end(self, folder: Path, runner: Runner | None) -> int:
        """What came out, in words, and the exit status."""
        now = view((*_plan_of(folder),), folder, RunnerRecord(state="stopped"), working=False)
        paths = write_tables(now)
        print(f"{now.name}: {headline(now)}.")
        for row in summary(now):
            if row["accuracy_n"]:
                sd = "" if row["accuracy_sd"] is None else f" ± {100 * row['accuracy_sd']:.2f}"
                print(f"  {row['label']}: accuracy {percent(row['accuracy_mean'])}{sd}, n = {row['accuracy_n']}")
        print(f"Tables: {', '.join(str(path) for path in paths)}")
        failed = [trial for trial in now.trials if trial.state == "failed"]
        for trial in failed:
            print(f"{trial.name} failed: {trial.error}", file=sys.stderr)
        left = [trial.name for trial in now.trials if trial.state not in ("done", "failed")]
        if left:
            few = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            print(f"Stopped before the end; nothing is lost. Left: {few}.")
        if left or failed:
            words = " and tries again what failed" if failed else ""
            print(f"The same command goes on{words}: ssl-lab sweep {shlex.join(self._words())}")
        return FAILED if failed else INTERRUPTED if left else 0

    def _words(self) -> list[str]:
        words = [self.study]
        words += ["--out", self.out] if self.out is not None else []
        words += ["--ray"] if self.ray else []
        words += ["--address", self.address] if self.address is not None else []
        words += ["--workers", str(self.workers)] if self.workers != 1 else []
        return words + (["--minutes", f"{self.minutes:g}"] if self.minutes is not None else [])


def make_crew(folder: Path, resources: Resources, workers: int, *, with_ray: bool, address: str | None) -> Crew:
    """Those who compute a study.

    Raises:
        SSLLabError: there is no Ray, no such cluster, or one of its machines does not reach the folder.
    """
    if with_ray:
        from ssl_lab.sweep.on_ray import RayCrew

        return RayCrew(folder, resources, address)
    from ssl_lab.sweep.local import LocalCrew

    if workers * resources.threads > usable_cores():
        print(
            f"{workers} trials at once with {resources.threads} thread{'s' * (resources.threads != 1)} each are more "
            f"than the {usable_cores()} cores that this machine gives; they will wait for each other.",
            file=sys.stderr,
        )
    return LocalCrew(workers)


def device_of(trial: Trial, resources: Resources, with_ray: bool) -> str | None:
    """Where a trial is computed, if not as its settings say: on a cluster, on the GPU that it takes, or on none."""
    if not with_ray:
        return None
    if resources.gpus:
        return "cuda"
    return "cpu" if trial.config.device == "auto" else None


class Runner:
    """Keeps a study's files up to date while it goes on.

    Args:
        sweep: the study.
        trials: all of them, done or not.
        folder: of the study.
        crew: who computes.
        live: where it is shown.
    """

    def __init__(self, sweep: Sweep, trials: Sequence[Trial], folder: Path, crew: Crew, live: Live) -> None:
        self._plan = sweep.name, sweep.resources, trials
        self._folder, self._crew, self._live = folder, crew, live
        self._beat, self._written = 0, float("-inf")
        self._begun, self._first = time.monotonic(), 0.0
        self._record = RunnerRecord(with_ray=crew.with_ray, machines=crew.machines)
        self._failures: dict[str, str] = {}

    def begin(self) -> None:
        """Says that somebody works on it; trials that failed before wait again, and none is under way yet."""
        for trial in self._plan[2]:
            record = read_record(self._folder, trial.name)
            if record.state in ("failed", "retrying"):
                write_record(self._folder, trial.name, record.model_copy(update={"state": "waiting", "error": ""}))
            elif record.state == "running":
                # Whoever worked on it was killed, with no time for a last word.
                cut = {"state": "cut", "steps_per_second": 0.0}
                write_record(self._folder, trial.name, record.model_copy(update=cut))
        self._say("running")
        self._first = self._view().share

    def look(self) -> None:
        """Called twice a second."""
        self._say_failures()
        try:
            shown = self._view()
        except StoreError:
            # Over a network a file that is replaced this moment may not be had; the next look has it.
            return
        if time.monotonic() - self._written >= PAUSE:
            gone, since = time.monotonic() - self._begun, shown.share - self._first
            left = gone * (1 - shown.share) / since if since > 0.01 else None
            update = {"left_seconds": left, "message": self._crew.trouble(), "machines": self._crew.machines}
            self._record = self._record.model_copy(update=update)
            try:
                self._say("running")
            except WriteError:
                # The study goes on: a disk that is full for a while has its runs stand, and they say so themselves.
                self._written = time.monotonic()
        self._live.show(shown)

    def failed(self, name: str, why: str) -> None:
        """A trial cannot be had."""
        self._failures[name] = why
        self._say_failures()

    def lost(self, name: str, why: str) -> None:
        """A trial's process or machine is gone, and it is begun again."""
        with suppress(WriteError, StoreError):
            self._note(name, "retrying", why)

    def end(self) -> None:
        """Says that nobody works on it any more, and how it stands."""
        self._say_failures()
        self._record = self._record.model_copy(update={"left_seconds": None, "message": ""})
        shown = view(self._plan, self._folder, self._record, working=False)
        self._say(shown.state)

    def _say_failures(self) -> None:
        """Those of which nothing is said yet: a disk that is full for a while is no reason to end the others."""
        for name, why in list(self._failures.items()):
            with suppress(WriteError, StoreError):
                record = read_record(self._folder, name)
                if (record.state, record.error) != ("failed", why[:2_000]):
                    self._note(name, "failed", why)
                del self._failures[name]

    def _note(self, name: str, state: str, why: str) -> None:
        record = read_record(self._folder, name)
        news = {"state": state, "error": why[:2_000], "steps_per_second": 0.0}
        write_record(self._folder, name, record.model_copy(update=news))

    def _view(self) -> SweepView:
        return view(self._plan, self._folder, self._record, working=True)

    def _say(self, state: SweepState) -> None:
        self._beat += 1
        self._record = self._record.model_copy(update={"state": state, "beat": self._beat})
        write_runner(self._folder, self._record)
        self._written = time.monotonic()


def _plan_of(folder: Path) -> tuple[str, Resources, Sequence[Trial]]:
    seen = look(folder)
    return seen.name, seen.resources, [v.trial for v in seen.trials]


def _print_trials(sweep: Sweep, trials: Sequence[Trial]) -> None:
    width = max(len(trial.name) for trial in trials)
    for trial in trials:
        turns = "; ".join(
            f"{step:,}: " + ", ".join(f"{knob}={value}" for knob, value in knobs.items()) for step, knobs in trial.turns
        )
        about = f"{trial.config.preset} on {Path(trial.config.dataset).name}, {trial.of:,} steps"
        print(f"{trial.name:<{width}}  {about}" + (f", turns {turns}" if turns else ""))
    r = sweep.resources
    print(
        f"{len(trials)} trials of {len({trial.label for trial in trials})} configurations; each takes {r.cpus:g} CPU"
        + (f" and {r.gpus:g} GPU" if r.gpus else "")
        + ". Nothing was started."
    )
