"""A study as one TOML file: what every trial has, what is tried in every combination, what is listed; no torch.

All values are checked before anything starts, and what is wrong is said with the file, the table and the key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ssl_lab.config import DATASETS, PRESETS, Knobs, RunConfig, dataset_info, portable_dataset, preset, total_steps
from ssl_lab.errors import ConfigError, KnobError, SSLLabError, shown
from ssl_lab.store import check_name

MOST_TRIALS = 10_000
"""Trials of a study; a grid that is larger is a slip of the pen."""

LARGEST = 1_000_000
"""Bytes of the largest file that is read."""

PLAIN = "none"
"""The schedule that turns nothing."""

OWN = ("preset", "dataset", "epochs", "steps", "probe_epochs", "schedule")
"""What a trial is given by, besides knobs and settings."""

SETTINGS = tuple(name for name in RunConfig.model_fields if name not in (*OWN, "seed", "knobs"))
"""Fields of :class:`~ssl_lab.config.RunConfig` that a study may set."""

KNOBS = tuple(Knobs.model_fields)
"""Knobs that a study may set or turn."""

VALUES = (*OWN, *SETTINGS, *KNOBS)
"""All that may stand in ``[base]``, ``[grid]`` and ``[[trials]]``."""

BARE = ("preset", "dataset", "schedule")
"""What stands in a trial's name by its value alone."""

Turn = tuple[Annotated[int, Field(ge=0, strict=True)], dict[str, Any]]

Values = dict[str, Any]
"""Knobs, settings and :data:`OWN`, by name."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Schedule(_Table):
    """Knobs that are turned on the way, as a list that trials can name."""

    name: str = Field(max_length=100)
    """By which ``schedule = "..."`` asks for it."""
    turns: Annotated[tuple[Turn, ...], Field(min_length=1, max_length=1_000)]
    """``[[steps done, {knob = value, ...}], ...]``."""


class Listed(BaseModel):
    """A trial, or a part of the study that is not a grid, by its own name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(max_length=100)
    """Of the trial; its runs are called NAME-seedN."""

    @property
    def values(self) -> Values:
        """What differs from ``[base]``."""
        return dict(self.model_extra or {})


class Resources(_Table):
    """What one trial takes of the machines."""

    cpus: Annotated[float, Field(gt=0, le=4096, strict=True)] = 1
    """Processor cores of a trial; also the threads that it computes with, at least one."""
    gpus: Annotated[float, Field(ge=0, le=4096, strict=True)] = 0
    """GPUs of a trial on a Ray cluster; 0.25 lets four small trials share one."""
    retries: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    """How often a trial whose process or machine was lost is begun again, from its last checkpoint."""

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("above 1 it takes whole GPUs")
        return value

    @property
    def threads(self) -> int:
        """With which a trial computes, wherever it does, so that its numbers are the same everywhere."""
        return max(1, int(self.cpus))


def make_resources(**fields: float) -> Resources:
    """What a trial takes, as flags of a command line say it.

    Raises:
        ConfigError: names the flag, and what it takes.
    """
    try:
        return Resources.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").replace("Input should be", "it takes a number that is")
        raise ConfigError(f"--{first['loc'][0]} cannot be {shown(first['input'])}: {what}.") from None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a study."""

    name: str
    """Of the run and of its folder; unique in the study."""
    label: str
    """All but the seed: what its numbers are averaged over seeds under."""
    seed: int
    """Of the run."""
    values: Values
    """What sets it apart: what the grid or the list gives it."""
    config: RunConfig
    """All that is fixed for the run, knobs at step 0 included."""
    turns: tuple[tuple[int, dict[str, Any]], ...] = ()
    """Knobs that are turned after so many steps."""
    steps: int | None = None
    """Steps of the run, where it is not by epochs."""
    probe_epochs: int = 50
    """Passes of the linear probe; 0 for none."""

    @property
    def of(self) -> int:
        """Steps in all; an estimate where the size of the data set is not known before it is read."""
        return total_steps(self.config) if self.steps is None else self.steps


class Sweep(_Table):
    """A study: its file, understood. :meth:`trials` gives the runs."""

    name: str = Field(default="", max_length=100)
    """Of the study; default the file's name."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...], Field(min_length=1)] = (0,)
    """Each configuration is run once for each of them."""
    base: Values = Field(default_factory=dict)
    """What every trial has: preset, dataset, epochs or steps, probe_epochs, schedule, any setting and any knob."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Lists of values; every combination of them is a configuration."""
    listed: tuple[Listed, ...] = Field(default=(), alias="trials")
    """Configurations that are given one by one, each with a name and what differs from ``[base]``."""
    schedules: tuple[Schedule, ...] = ()
    """Knob turns that ``schedule = "NAME"`` asks for in ``[base]``, ``[grid]`` or ``[[trials]]``."""
    resources: Resources = Field(default_factory=Resources)
    """What one trial takes of the machines."""
    file: str = Field(default="study.toml", exclude=True)
    """Where it stands, for what is said about it; no key of the file."""

    def trials(self) -> list[Trial]:
        """The runs, all configurations of a seed before the next seed; checked, and always the same.

        Raises:
            ConfigError: a value that cannot be; says in which file, table and key.
        """
        self._check()
        made = [
            self._trial(label, values, where, seed)
            for seed in self.seeds
            for label, values, where in self._configurations()
        ]
        seen: dict[str, Trial] = {}
        for trial in made:
            other = seen.setdefault(trial.name, trial)
            if other is not trial:
                raise self._error(
                    "", f"two trials come to the name {trial.name!r}. Give values that differ, or list them by name."
                )
        return made

    def _configurations(self) -> Iterable[tuple[str, Values, str]]:
        """Label, what sets it apart, and where that stands."""
        if self.grid:
            for values in product(*self.grid.values()):
                own = dict(zip(self.grid, values, strict=True))
                yield "_".join(_piece(key, value) for key, value in own.items()), own, "[grid]"
        for number, entry in enumerate(self.listed, 1):
            yield entry.name, entry.values, f"[[trials]] {number} ({entry.name})"
        if not self.grid and not self.listed:
            yield self.name or Path(self.file).stem, {}, "[base]"

    def _check(self) -> None:
        if not self.base and not self.grid and not self.listed:
            raise self._error("", "it asks for nothing: it has none of the tables [base], [grid] and [[trials]]")
        if len(set(self.seeds)) < len(self.seeds):
            raise self._error("", "seeds: a seed stands there twice; its runs would be the same")
        count = len(self.listed)
        size = 1
        for values in self.grid.values():
            size *= len(values)
        count += size if self.grid else 0
        if count * len(self.seeds) > MOST_TRIALS:
            raise self._error(
                "[grid]",
                f"it comes to {count * len(self.seeds):,} trials with its seeds; a study has {MOST_TRIALS:,} at most",
            )
        self._check_schedules()
        for key, value in self.base.items():
            self._check_value("[base]", key, value)
        for key, values in self.grid.items():
            if not values:
                raise self._error("[grid]", f"{key}: it has no values to try")
            for place, value in enumerate(values):
                self._check_value("[grid]", key, value)
                if any(type(value) is type(other) and value == other for other in values[:place]):
                    raise self._error("[grid]", f"{key}: {shown(value)} stands there twice")
        for number, entry in enumerate(self.listed, 1):
            where = f"[[trials]] {number} ({entry.name})"
            try:
                check_name(entry.name)
            except SSLLabError as error:
                raise self._error(where, f"name: {error}") from None
            for key, value in entry.values.items():
                self._check_value(where, key, value)

    def _check_schedules(self) -> None:
        names = [schedule.name for schedule in self.schedules]
        asked = [
            self.base.get("schedule"),
            *self.grid.get("schedule", ()),
            *(e.values.get("schedule") for e in self.listed),
        ]
        for number, schedule in enumerate(self.schedules, 1):
            where = f"[[schedules]] {number} ({schedule.name})"
            if schedule.name == PLAIN or names.count(schedule.name) > 1:
                reason = (
                    f"the name {PLAIN} is for no turns at all" if schedule.name == PLAIN else "another one has it too"
                )
                raise self._error(where, f"name: it cannot be called {schedule.name!r}: {reason}")
            if schedule.name not in asked:
                raise self._error(
                    where, f'no trial asks for it; write schedule = "{schedule.name}" in [base], [grid] or [[trials]]'
                )
            for step, knobs in schedule.turns:
                if not knobs:
                    raise self._error(where, f"turns: nothing is turned at step {step:,}")
                try:
                    Knobs().changed(knobs)
                except KnobError as error:
                    raise self._error(where, f"turns, at step {step:,}: {error}") from None

    def _check_value(self, where: str, key: str, value: Any) -> None:
        """One key of one table, by itself."""
        if key not in VALUES:
            if key in ("seed", "seeds"):
                raise self._error(where, f"{key}: seeds stand at the top of the file, as in seeds = [0, 1, 2]")
            near = difflib.get_close_matches(key, VALUES, n=1)
            hint = f" Is {near[0]!r} meant?" if near else f" There are: {', '.join(VALUES)}."
            raise self._error(where, f"{key}: there is no knob and no setting of that name.{hint}")
        if key in KNOBS:
            try:
                Knobs().changed({key: value})
            except KnobError as error:
                raise self._error(where, f"{key}: {_without_end(str(error))}") from None
        elif key == "schedule":
            names = [PLAIN, *(schedule.name for schedule in self.schedules)]
            if value not in names:
                raise self._error(
                    where, f"schedule: there is none called {shown(value)}. There are: {', '.join(names)}"
                )
        elif key == "preset":
            if not isinstance(value, str) or value not in PRESETS:
                raise self._error(
                    where, f"preset: there is none called {shown(value)}. There are: {', '.join(PRESETS)}"
                )
        elif key == "dataset":
            try:
                dataset_info(self._place(value))
            except ConfigError as error:
                raise self._error(where, f"dataset: {error}") from None
        elif key in ("steps", "probe_epochs"):
            least = 1 if key == "steps" else 0
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**53:
                raise self._error(where, f"{key}: it takes a whole number from {least} on, and not {shown(value)}")
        else:
            try:
                RunConfig.model_validate({key: value})
            except ValidationError as error:
                raise self._error(where, f"{key}: it cannot be {shown(value)}: {error.errors()[0]['msg']}") from None

    def _place(self, dataset: Any) -> Any:
        """A data set as a run names it: a folder by its whole path; one that is given in part lies beside the file."""
        if not isinstance(dataset, str) or dataset in DATASETS:
            return dataset
        return str(Path(self.file).absolute().parent / Path(dataset).expanduser())

    def _trial(self, label: str, own: Values, where: str, seed: int) -> Trial:
        values = {**self.base, **own}
        if "epochs" in own and "steps" not in own:
            values.pop("steps", None)
        if "steps" in own and "epochs" not in own:
            values.pop("epochs", None)
        steps, epochs = values.get("steps"), values.get("epochs")
        if steps is not None and epochs is not None:
            raise self._error(where, "epochs and steps are both given; a run ends by one of them")
        if steps is None and epochs is None:
            raise self._error("[base]", "epochs: it says nowhere how long a run is; write epochs = 20, or steps = 1000")
        name = f"{label}-seed{seed}"
        try:
            check_name(name)
        except SSLLabError as error:
            raise self._error(where, f"{error} List the trial by a shorter name in [[trials]].") from None
        dataset = self._place(values["dataset"]) if "dataset" in values else None
        settings = {key: values[key] for key in SETTINGS if key in values}
        if isinstance(settings.get("data_dir"), str):
            settings["data_dir"] = str(Path(self.file).absolute().parent / Path(settings["data_dir"]).expanduser())
        try:
            knobs = {key: values[key] for key in KNOBS if key in values}
            row = values.get("preset", "byol")
            config = preset(row, dataset=dataset, knobs=knobs, seed=seed, epochs=epochs, **settings)
            turns = self._turns(values.get("schedule", PLAIN), config.knobs)
        except SSLLabError as error:
            raise self._error(where, f"the trial {name!r} cannot be: {error}") from None
        trial = Trial(
            name=name, label=label, seed=seed, values=own, config=config, turns=turns, steps=steps,
            probe_epochs=values.get("probe_epochs", 50),
        )  # fmt: skip
        # Of data whose size is known only when it is read, a turn beyond the end is found there.
        known = steps is not None or config.dataset in DATASETS
        late = next((step for step, _ in turns if known and step > trial.of), None)
        if late is not None:
            raise self._error(
                where,
                f"the trial {name!r} ends after {trial.of:,} steps, and its schedule turns a knob at step {late:,}",
            )
        return trial

    def _turns(self, name: str, knobs: Knobs) -> tuple[tuple[int, dict[str, Any]], ...]:
        found = next((schedule.turns for schedule in self.schedules if schedule.name == name), ())
        for _, changes in sorted(found, key=lambda turn: turn[0]):
            knobs = knobs.changed(changes)
        return tuple((step, dict(changes)) for step, changes in sorted(found, key=lambda turn: turn[0]))

    def _error(self, where: str, what: str) -> ConfigError:
        return said(self.file, where, what)


def said(file: str, where: str, what: str) -> ConfigError:
    """What is wrong in a study's file."""
    what = what.replace("Input should be", "it takes")
    return ConfigError(f"{file}: {where + ' ' if where else ''}{what}{'' if what.endswith(('.', '?')) else '.'}")


def read_sweep(path: Path) -> Sweep:
    """The study that a file asks for.

    Raises:
        ConfigError: there is no such file, or it is no study; says where and what is wrong.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} is no study: it has more than {LARGEST:,} bytes.")
        asked = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}. Give the file of a study.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.") from None
    return understand(asked, str(path))


def understand(asked: Mapping[str, Any], file: str) -> Sweep:
    """A study from what its file says.

    Args:
        asked: the tables of the file.
        file: its path, for what is said about it.

    Raises:
        ConfigError: it is no study; says where and what is wrong.
    """
    keys = [field.alias or key for key, field in Sweep.model_fields.items() if key != "file"]
    for key in asked:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            if not near and key in VALUES:
                raise said(file, "", f"{key}: it stands above all tables; write it under [base]")
            hint = f"Is {near[0]!r} meant?" if near else f"There are: {', '.join(keys)}."
            raise said(file, "", f"{key}: a study has no such key or table. {hint}")
    try:
        found = Sweep.model_validate({"name": Path(file).stem, **asked, "file": file})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, what = _where(first["loc"], asked), first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise said(file, "", f"{where}: it is missing") from None
        if first["type"] == "extra_forbidden":
            raise said(file, "", f"{where}: there is no such key") from None
        raise said(file, "", f"{where}: it cannot be {shown(first['input'])}: {what}") from None
    try:
        check_name(found.name)
    except SSLLabError as error:
        raise said(file, "", f"name: {error}") from None
    return found


def _where(place: Sequence[int | str], asked: Mapping[str, Any]) -> str:
    """``("resources", "gpus")`` as a person finds it: ``[resources] gpus``."""
    table, *rest = place
    if not rest or table in ("name", "seeds"):
        return str(table)
    inside = ", ".join(str(part + 1) if isinstance(part, int) else part for part in rest)
    if table in ("trials", "schedules"):
        first = asked[table][rest[0]] if isinstance(rest[0], int) else {}
        name = first.get("name") if isinstance(first, Mapping) else None
        number, _, key = inside.partition(", ")
        return f"[[{table}]] {number}" + (f" ({shown(name)})" if name else "") + (f" {key}" if key else "")
    return f"[{table}] {inside}"


def _piece(key: str, value: Any) -> str:
    """A value as a part of a name: ``ema-0.5``, ``simsiam``, ``centred-on``."""
    if isinstance(value, bool):
        word = "on" if value else "off"
    elif key == "dataset":
        word = portable_dataset(str(value))
    else:
        word = str(value)
    word = re.sub(r"[^A-Za-z0-9.-]+", "-", word.replace("+", "")).strip("-.") or "x"
    return word if key in BARE and word[0].isalnum() else f"{key}-{word}"


def _without_end(words: str) -> str:
    return words.removesuffix(" Nothing was changed.")
