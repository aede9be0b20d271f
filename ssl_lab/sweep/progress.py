"""How far a study is, by its folder; no torch.

``sweep.json`` is the plan as it was started, ``runner.json`` the word of whoever works on it, and ``TRIAL/trial.json``
the word of whoever trains the trial, anew every second. All are small and written whole, so that a page or a terminal
on any machine that has the folder mounted can read them at any moment. A trial's run, ``TRIAL/run.sqlite``, is written
by nobody but the one who trains it, and until it is done it is looked at on that machine alone, read-only: SQLite's
journal does not cross machines.
"""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ssl_lab.atomic import write_whole
from ssl_lab.config import RunConfig, check_together
from ssl_lab.errors import ConfigError, RunMissingError, StoreError, shown
from ssl_lab.foreign import Finite, Share, ShortWords, Step, Turned, understood
from ssl_lab.seat import taken
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import RunStore, check_name
from ssl_lab.sweep.plan import MOST_TRIALS, Resources, Sweep, Trial

PLAN = "sweep.json"
"""The plan as it was started, in the study's folder."""

RUNNER = "runner.json"
"""The word of whoever works on the study, in its folder."""

RECORD = "trial.json"
"""How far a trial is, in the trial's folder."""

LOCK = "sweep.lock"
"""The seat of whoever works on the study, in its folder."""

STOP = "stop-asked"
"""A file in the study's folder that asks whoever works on it to save and let go."""

SILENCE = 60.0
"""Seconds without a word after which whoever works on a study from another machine is taken for gone."""

PICTURE = 16
"""Eigenvalues of F that a trial's record holds: enough for a small picture."""

LARGEST_RECORD = 100_000
LARGEST_PLAN = 64_000_000
"""Bytes of the largest files that are read."""

WHERE = ("device", "data_dir")
"""Settings that say where a run is computed and where its images lie, on which no number depends."""

TrialState = Literal["waiting", "running", "retrying", "cut", "done", "failed"]
"""``retrying``: its process or machine was lost, and it is to go on; ``cut``: it was left on the way, and the same
command goes on with it."""

SweepState = Literal["waiting", "running", "stopped", "done", "failed"]
"""``failed``: nobody works on it, and some trials could not be had."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TrialRecord(_Part):
    """How far a trial is, as the one who trains it says."""

    format: Literal[1] = 1
    state: TrialState = "waiting"
    step: Step = 0
    """Steps done."""
    of: Step = 0
    """Steps in all."""
    steps_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    loss: Finite | None = None
    """Of the last step."""
    knn: Share | None = None
    """kNN accuracy, as last measured on the way."""
    accuracy: Share | None = None
    """Of the linear probe, at the end."""
    effective_rank: Finite | None = None
    """Of F, as last measured."""
    asymmetry: Finite | None = None
    """Of Wp, as last measured."""
    aligned: Step | None = None
    """Eigenvectors of F that are Wp's too."""
    spectrum: Annotated[tuple[Finite, ...], Field(max_length=PICTURE)] = ()
    """Some of F's eigenvalues, largest first: evenly spaced in their order, the first and the last among them."""
    attempts: Step = 0
    """How often it was begun or gone on with."""
    resumed: Step = 0
    """Steps that were there when the last attempt began."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of training and probing, of all attempts that came to an end."""
    node: ShortWords = ""
    """Machine of the last attempt."""
    device: ShortWords = ""
    """What it was trained on."""
    turned_by_hand: Step = 0
    """Knobs that somebody turned while it ran, besides its schedule."""
    error: Annotated[str, Field(max_length=2_000)] = ""
    """Why it could not be had, or why it is begun again."""
    heard: Finite = 0.0
    """When whoever trains it last said so, seconds since the epoch; 0 when it was let go."""
    time: Finite = 0.0
    """When this was written, seconds since the epoch."""


class RunnerRecord(_Part):
    """The word of whoever works on a study."""

    format: Literal[1] = 1
    state: SweepState = "running"
    with_ray: bool = False
    """Whether a Ray cluster computes."""
    machines: Step = 1
    """That compute."""
    host: ShortWords = ""
    message: Annotated[str, Field(max_length=2_000)] = ""
    """What there is to say, for a person."""
    left_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """To the end, as estimated; None where that is not known."""
    beat: Step = 0
    """Goes up each time that it is written."""
    time: Finite = 0.0
    """When this was written, seconds since the epoch."""


class _Planned(_Part):
    """A trial in the plan."""

    name: ShortWords
    label: ShortWords
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    values: Annotated[dict[ShortWords, Any], Field(max_length=100)]
    config: RunConfig
    turns: Annotated[tuple[tuple[Step, Turned], ...], Field(max_length=1_000)] = ()
    steps: Step | None = None
    probe_epochs: Step = 50


class _Plan(_Part):
    """``sweep.json``."""

    format: Literal[1] = 1
    name: ShortWords
    resources: Resources
    trials: Annotated[tuple[_Planned, ...], Field(max_length=MOST_TRIALS)]
    dropped: Annotated[tuple[_Planned, ...], Field(max_length=MOST_TRIALS)] = ()
    """Begun once, and no longer asked for: what their folders hold was computed with these settings."""


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """How far a trial is."""

    trial: Trial
    """Which."""
    state: TrialState
    """As a person would say it: what its record says, held against whether anybody works on the study."""
    record: TrialRecord
    """All else that is known."""

    @property
    def name(self) -> str:
        """Of the trial; its run lies in the folder of that name."""
        return self.trial.name

    @property
    def label(self) -> str:
        """Of the trial, without the seed."""
        return self.trial.label

    @property
    def seed(self) -> int:
        """Of the trial."""
        return self.trial.seed

    @property
    def step(self) -> int:
        """Steps done."""
        return self.record.step

    @property
    def of(self) -> int:
        """Steps in all; an estimate before it has begun."""
        return self.record.of or self.trial.of

    @property
    def share(self) -> float:
        """How much of its training is done, in [0, 1]."""
        return 1.0 if self.state == "done" else min(self.step / self.of, 1.0) if self.of else 0.0

    @property
    def steps_per_second(self) -> float:
        """Now; 0 when it stands."""
        return self.record.steps_per_second if self.state == "running" else 0.0

    @property
    def knn(self) -> float | None:
        """kNN accuracy in [0, 1], as last measured."""
        return self.record.knn

    @property
    def accuracy(self) -> float | None:
        """Of the linear probe, in [0, 1]."""
        return self.record.accuracy

    @property
    def spectrum(self) -> tuple[float, ...]:
        """At most :data:`PICTURE` of F's eigenvalues, largest first; empty before the first was measured."""
        return self.record.spectrum

    @property
    def attempts(self) -> int:
        """How often it was begun or gone on with."""
        return self.record.attempts

    @property
    def node(self) -> str:
        """Machine of the last attempt."""
        return self.record.node

    @property
    def error(self) -> str:
        """Why it could not be had, or why it is begun again."""
        return self.record.error


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """How far a study is."""

    name: str
    """Of the study."""
    folder: Path
    """Where it lies; the run of a trial in the folder of the trial's name."""
    state: SweepState
    """Of the whole."""
    runner: RunnerRecord
    """The word of whoever works on it, or did."""
    resources: Resources
    """What one trial takes."""
    trials: tuple[TrialView, ...]
    """In the order of the plan."""

    @property
    def working(self) -> bool:
        """Whether somebody works on it."""
        return self.state == "running"

    @property
    def labels(self) -> tuple[str, ...]:
        """The configurations, in the order of the plan."""
        return tuple(dict.fromkeys(view.label for view in self.trials))

    def of_label(self, label: str) -> list[TrialView]:
        """The trials of a configuration, one a seed."""
        return [view for view in self.trials if view.label == label]

    def count(self, state: TrialState) -> int:
        """Trials in a state."""
        return sum(view.state == state for view in self.trials)

    @property
    def done(self) -> int:
        """Trials that are trained and probed."""
        return self.count("done")

    @property
    def share(self) -> float:
        """How much of the training is done, in [0, 1]."""
        of = sum(view.of for view in self.trials)
        return sum(view.share * view.of for view in self.trials) / of if of else 1.0


def look(folder: Path) -> SweepView:
    """How far the study in a folder is, and who works on it; reads small files only.

    Raises:
        RunMissingError: there is no study in it.
        StoreError: one of its files is broken.
    """
    plan, runner = read_plan(folder), read_runner(folder)
    return view(plan, folder, runner, working=worked_on(folder, runner))


def view(
    plan: tuple[str, Resources, Sequence[Trial]],
    folder: Path,
    runner: RunnerRecord,
    *,
    working: bool,
    read: Callable[[Path, str], TrialRecord] | None = None,
) -> SweepView:
    """:func:`look` for one who knows the plan and whether somebody works on it.

    Args:
        plan: name, resources and trials.
        folder: of the study.
        runner: the word of whoever works on it.
        working: whether somebody does.
        read: gives a trial's record; default :func:`read_record`.
    """
    name, resources, trials = plan
    read = read or read_record
    seen = []
    for trial in trials:
        record = read(folder, trial.name)
        state = record.state
        if not working and state in ("running", "retrying"):
            # Without anybody to hand it on, it goes on when the command is given again.
            state = "cut"
        seen.append(TrialView(trial=trial, state=state, record=record))
    whole: SweepState = "stopped"
    if working:
        whole = "running"
    elif all(v.state == "done" for v in seen):
        whole = "done"
    elif all(v.state == "waiting" for v in seen):
        whole = "waiting"
    elif all(v.state in ("done", "failed") for v in seen):
        whole = "failed"
    return SweepView(
        name=name, folder=folder, state=whole, runner=runner, resources=resources, trials=tuple(seen)
    )  # fmt: skip


def is_sweep(folder: Path) -> bool:
    """Whether there is a study in a folder; reads nothing."""
    return (folder / PLAN).is_file()


def worked_on(folder: Path, runner: RunnerRecord) -> bool:
    """Whether somebody works on the study in a folder, here or, by its last word, on another machine."""
    if runner.state != "running":
        return False
    if runner.host == socket.gethostname():
        held = taken(folder / LOCK)
        if held:
            # Whoever looks holds the seat for a moment, and may be all that was seen.
            time.sleep(0.005)
            held = taken(folder / LOCK)
        if held is not None:
            return held
    return abs(time.time() - runner.time) < SILENCE


def read_runner(folder: Path) -> RunnerRecord:
    """The word of whoever works on the study in a folder, or did.

    Raises:
        StoreError: it is broken.
    """
    return _read(folder / RUNNER, RunnerRecord, LARGEST_RECORD) or RunnerRecord(state="waiting")


def read_record(folder: Path, name: str) -> TrialRecord:
    """How far a trial is, as its own file says.

    Raises:
        StoreError: it is broken.
    """
    return _read(folder / name / RECORD, TrialRecord, LARGEST_RECORD) or TrialRecord()


def write_record(folder: Path, name: str, record: TrialRecord) -> None:
    """Says how far a trial is.

    Raises:
        WriteError: it cannot be written.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    _write(folder / name / RECORD, record.model_copy(update={"time": time.time()}))


def write_runner(folder: Path, record: RunnerRecord) -> None:
    """Says how whoever works on the study fares.

    Raises:
        WriteError: it cannot be written.
    """
    _write(folder / RUNNER, record.model_copy(update={"time": time.time(), "host": socket.gethostname()}))


def picture(spectrum: Spectrum) -> tuple[float, ...]:
    """At most :data:`PICTURE` of F's eigenvalues: evenly spaced in their order, the first and the last among them."""
    values = spectrum.f_eigenvalues
    count = min(PICTURE, len(values))
    places = [round(i * (len(values) - 1) / max(1, count - 1)) for i in range(count)]
    return tuple(float(values[place]) for place in places)


# ------------------------------------------------------------------ the plan


def write_plan(folder: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Keeps the plan; what is there of the same name stays, whatever else the file now asks for.

    Of a trial that was begun and is no longer asked for, the settings are kept: it may be asked for again.

    Raises:
        ConfigError: a trial that is there was set up in another way, or too many are no longer asked for; nothing was
            written.
        StoreError: the plan that is there is broken.
        WriteError: it cannot be written.
    """
    dropped: list[Trial] = []
    if is_sweep(folder):
        check_same(folder, trials)
        asked = {trial.name for trial in trials}
        before = _trials_ever(folder).values()
        dropped = [trial for trial in before if trial.name not in asked and (folder / trial.name).exists()]
        if len(dropped) > MOST_TRIALS:
            raise ConfigError(
                f"{folder} holds {len(dropped):,} trials that are no longer asked for. Take another folder with --out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    plan = _Plan(
        name=sweep.name or Path(sweep.file).stem,
        resources=sweep.resources,
        trials=tuple(_planned(trial) for trial in trials),
        dropped=tuple(_planned(trial) for trial in dropped),
    )
    _write(folder / PLAN, plan)


def read_plan(folder: Path) -> tuple[str, Resources, list[Trial]]:
    """Name, resources and trials of the study in a folder, as it was started.

    Raises:
        RunMissingError: there is no study in it.
        StoreError: the plan is broken.
    """
    plan = _read_plan(folder)
    return plan.name, plan.resources, [_trial(t) for t in plan.trials]


def _read_plan(folder: Path) -> _Plan:
    plan = _read(folder / PLAN, _Plan, LARGEST_PLAN)
    if plan is None:
        raise RunMissingError(f"There is no study in {folder}. Begin one with: ssl-lab sweep STUDY.toml --out {folder}")
    with understood(folder / PLAN, "plan"):
        for t in (*plan.trials, *plan.dropped):
            # Each is the name of a folder in here, and of no other place.
            check_name(t.name)
            check_together(t.config)
    return plan


def _trials_ever(folder: Path) -> dict[str, Trial]:
    """Those of the plan and those that were begun and are no longer asked for, by name."""
    plan = _read_plan(folder)
    return {t.name: _trial(t) for t in (*plan.dropped, *plan.trials)}


def _trial(t: _Planned) -> Trial:
    return Trial(
        name=t.name, label=t.label, seed=t.seed, values=t.values, config=t.config, turns=t.turns, steps=t.steps,
        probe_epochs=t.probe_epochs,
    )  # fmt: skip


def _planned(t: Trial) -> _Planned:
    return _Planned(
        name=t.name, label=t.label, seed=t.seed, values=t.values, config=t.config, turns=t.turns, steps=t.steps,
        probe_epochs=t.probe_epochs,
    )  # fmt: skip


def check_same(folder: Path, trials: Sequence[Trial]) -> None:
    """Trials that are or once were in a folder's plan, and were begun, are set up as asked for now.

    Raises:
        ConfigError: one is not; says which, and in what.
    """
    before = _trials_ever(folder)
    for trial in trials:
        old = before.get(trial.name)
        if old is None or not (folder / trial.name).exists():
            continue
        was, now = _fixed(old), _fixed(trial)
        different = sorted(key for key in now if was.get(key) != now[key])
        if different:
            key = different[0]
            raise ConfigError(
                f"{folder} holds the trial {trial.name!r}, which was set up in another way: its {key} is "
                f"{shown(was.get(key))}, and {shown(now[key])} is asked for. Take another folder with --out, give the "
                "trial another name, or the same settings."
            )


def check_setup(name: str, config: RunConfig, store: RunStore, folder: Path) -> None:
    """A run of a study's folder is set up as the study says, wherever it was computed.

    Raises:
        ConfigError: it was set up in another way.
    """
    there, here = (json.loads(c.model_dump_json()) for c in (store.config(), config))
    different = sorted(key for key in here if there.get(key) != here[key] and key not in WHERE)
    if different:
        key = different[0]
        raise ConfigError(
            f"{folder} holds a run {name!r} that was set up in another way: its {key} is {there.get(key)!r}, and "
            f"{here[key]!r} is asked for. Take another folder with --out, or the same settings."
        )


def _fixed(trial: Trial) -> dict[str, Any]:
    """All that a trial's numbers depend on, by the name that a person gives it; where it is computed is not of it."""
    said = json.loads(trial.config.model_dump_json(exclude=set(WHERE)))
    knobs = said.pop("knobs")
    turns = json.loads(json.dumps(trial.turns))
    return {**said, **knobs, "schedule": turns, "steps": trial.steps, "probe_epochs": trial.probe_epochs}


# ------------------------------------------------------------------ files

_Kind = TypeVar("_Kind", bound=_Part)


def _read(path: Path, kind: type[_Kind], most: int) -> _Kind | None:
    """None if there is no such file."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            # A stranger's folder may hold a pipe, on which one would wait for ever, or a link to any file.
            raise StoreError(f"{path} is broken: it is not a plain file.")
        if found.st_size > most:
            raise StoreError(f"{path} is broken: it has {found.st_size:,} bytes.")
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from None
    with understood(path, "content"):
        return kind.model_validate_json(text)


def _write(path: Path, record: BaseModel) -> None:
    write_whole(path, [(record.model_dump_json(indent=1) + "\n").encode()])
