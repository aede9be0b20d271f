"""A run written out: as a script or a command line that do it again from nothing, as tables, arrays, or one file.

Nothing here imports torch, and pyarrow only where it is asked for. Tables are written as they are read, so that
a run of a million steps takes no more memory than one of a thousand.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ssl_lab import __version__
from ssl_lab.config import PRESETS, Knobs, RunConfig, preset
from ssl_lab.errors import SSLLabError, StoreError
from ssl_lab.store import Event, RunStore

KINDS: Mapping[str, str] = MappingProxyType(
    {"script": ".py", "command": ".sh", "csv": ".csv", "parquet": ".parquet", "npz": ".npz", "sqlite": ".sqlite"}
)
"""What a run can be written as, and how such a file's name ends."""

FLAGS = (
    "data_dir",
    "image_size",
    "train_limit",
    "test_limit",
    "device",
    "batch_size",
    "precision",
    "encoder",
    "stem",
    "width",
)
"""Settings that ``ssl-lab train`` has a flag for, besides preset, data set, seed, steps and knobs."""

MEASURED = ("step", "epoch", "loss", "penalty", "asymmetry", "effective_rank", "aligned", "knn", "probe")
"""Columns of a table before those of the knobs."""

COLUMNS = (*MEASURED, *Knobs.model_fields)
"""All columns of a table."""

BATCH = 50_000
"""Rows that are in memory at once on their way to a Parquet file."""

LINE = 100
"""Characters of a line of the script above which a call is broken into lines."""


# ------------------------------------------------------------------ again from nothing


def _from_nothing(store: RunStore) -> tuple[int, list[Event]]:
    """(steps, events up to there) of a run that can be done again.

    Raises:
        SSLLabError: it has no steps, or began from a state that is not on record.
        KnobError: an event that was altered, so that no trainer takes it.
    """
    # One look for all three: the run may be stepping.
    ((count, first, last),) = store.rows("SELECT count(*), coalesce(min(step), 0), coalesce(max(step), 0) FROM metrics")
    if count == 0:
        raise SSLLabError(f"The run {store.name!r} has no steps; there is nothing to do again.")
    if first != 1 or count != last:
        raise SSLLabError(
            f"The run {store.name!r} has no record of each step from 1 to {last}: it began from a trainer that had "
            "been stepped before, and cannot be done again from nothing."
        )
    events = store.events(until=last)
    knobs = store.config().knobs
    for event in events:
        knobs = knobs.changed(event.changes)
    return int(last), events


def _given(config: RunConfig) -> dict[str, Any] | None:
    """What ``preset`` has to be given besides name and data set to come to ``config``; None if it cannot."""
    try:
        base = preset(config.preset, dataset=config.dataset)
        # The sizes go by the encoder and the stem by the images' size, if they are given.
        leading = {name: getattr(config, name) for name in ("encoder", "image_size")}
        leading = {name: value for name, value in leading.items() if value != getattr(base, name)}
        base = preset(config.preset, dataset=config.dataset, **leading)
        given: dict[str, Any] = {"seed": config.seed}
        if knobs := base.knobs.difference(config.knobs):
            given["knobs"] = knobs
        for name in RunConfig.model_fields:
            value = getattr(config, name)
            if name not in ("preset", "dataset", "seed", "knobs") and (name in leading or value != getattr(base, name)):
                given[name] = value
        same = preset(config.preset, dataset=config.dataset, **given) == config
    except SSLLabError:
        # A preset of another version, or a folder that is not on this machine.
        return None
    return given if same else None


def script(store: RunStore) -> str:
    """A short Python script that does the run again from nothing and prints how its end compares with the record.

    Raises:
        SSLLabError: the run has no steps, or began from a state that is not on record.
    """
    steps, events = _from_nothing(store)
    config = store.config()
    given = _given(config)
    if given is None:
        names = "RunConfig, Trainer"
        made = _call("RunConfig.model_validate", [f"{k!r}: {v!r}" for k, v in config.model_dump().items()], "({", "})")
    else:
        names = "Trainer, preset"
        arguments = [f"{name}={value!r}" for name, value in given.items()]
        made = _call("preset", [repr(config.preset), f"dataset={config.dataset!r}", *arguments])
    turns: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        turns.setdefault(event.step, []).append(event.changes)
    planned = "".join(f"    {step!r}: {changes!r},\n" for step, changes in turns.items())
    metrics, spectrum = store.metrics(steps), store.newest_spectrum(steps)
    assert metrics is not None
    recorded: dict[str, float | int | None] = {"loss": metrics.loss, "effective rank": None, "aligned directions": None}
    if spectrum is not None and spectrum.step == steps:
        s = spectrum.spectrum
        recorded |= {"effective rank": s.effective_rank, "aligned directions": s.aligned}
    return _SCRIPT.format(
        head="\n".join(f"# {line}" for line in _head(store, steps, len(events))),
        names=names,
        config=made,
        steps=steps,
        turns=f"{{\n{planned}}}" if planned else "{}",
        recorded=repr(recorded),
    )


_SCRIPT = '''\
{head}

from ssl_lab import {names}

config = {config}
steps = {steps}
# Steps done -> knobs turned then, in this order.
turns = {turns}
# What the last step came to; None where it is not on record.
recorded = {recorded}


def run(on_step=None) -> Trainer:
    """The trainer after all steps and turns; on_step(trainer, record) is called after each step."""
    trainer = Trainer(config)
    for done in range(steps + 1):
        for changes in turns.get(done, []):
            trainer.set(**changes)
        if done < steps:
            record = trainer.step()
            if on_step is not None:
                on_step(trainer, record)
    return trainer


def compare(trainer, record) -> None:
    """Prints what the last step came to, beside what is on record."""
    if record.step == steps:
        s = trainer.spectrum()
        print(f"step {{record.step}}")
        again = {{"loss": record.loss, "effective rank": s.effective_rank, "aligned directions": s.aligned}}
        for name, value in again.items():
            print(f"{{name}} {{value!r}} (on record {{recorded[name]!r}})")


if __name__ == "__main__":
    run(compare)
'''


def _head(store: RunStore, steps: int, turns: int) -> Iterator[str]:
    """What there is to say of a run, a line each."""
    yield (
        f"The run {store.name!r} again, from nothing: {steps:,} step{'s' * (steps != 1)}, "
        f"{turns:,} turn{'s' * (turns != 1)} of its knobs."
    )
    yield f"Written by ssl-lab {__version__}."
    for number, made in enumerate(store.fingerprints()):
        # A file from elsewhere may hold anything: within a comment nothing may begin a new line.
        said = {key: repr(str(value))[1:-1] for key, value in made.items()}
        device = f"{said.get('device', '?')} {said.get('device_name', '')}".strip()
        when = f"From step {said.get('step', '?')} on made" if number else "Made"
        yield (
            f"{when} with ssl-lab {said.get('ssl_lab', '?')}, torch {said.get('torch', '?')}, on {device}, threads: "
            f"{said.get('threads', '?')}."
        )
    yield "On the same versions, device and threads it comes to the same numbers, to the last bit on a CPU."


def _call(name: str, arguments: Sequence[str], before: str = "(", after: str = ")") -> str:
    line = f"{name}{before}{', '.join(arguments)}{after}"
    if len(line) <= LINE:
        return line
    return "\n".join([f"{name}{before}", *(f"    {argument}," for argument in arguments), after])


def command(store: RunStore) -> str:
    """One line, ``ssl-lab train ...``, that does the run again from nothing, without a probe.

    Raises:
        SSLLabError: the run has no steps, or began from a state that is not on record.
    """
    steps, events = _from_nothing(store)
    config = store.config()
    name, given = config.preset, _given(config)
    if given is None:
        # Everything that there is, so that nothing is left to the preset but its name.
        name = name if name in PRESETS else "byol"
        given = {key: value for key, value in config.model_dump().items() if value is not None}
    fixed = {key: value for key, value in given.items() if key not in ("preset", "dataset", "seed", "epochs", "knobs")}
    words = ["ssl-lab", "train", "--preset", name, "--dataset", config.dataset, "--seed", str(config.seed)]
    for key in FLAGS:
        if key in fixed:
            words += [f"--{key.replace('_', '-')}", str(fixed.pop(key))]
    if fixed:
        words += ["--config", *(f"{key}={_word(value)}" for key, value in fixed.items())]
    if "knobs" in given:
        words += ["--set", *_assignments(given["knobs"])]
    words += ["--steps", str(steps), "--epochs-finetuning", "0"]
    if events:
        words += ["--at", *(f"{event.step}:{','.join(_assignments(event.changes))}" for event in events)]
    # A name has at most 100 characters.
    words += ["--name", f"{store.name[:94]}-again"]
    return f"{shlex.join(words)}\n"


def _assignments(knobs: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_word(value)}" for name, value in knobs.items()]


def _word(value: Any) -> str:
    """As the command line takes it and a table shows it; a float reads back to the same bits."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------ tables


_ROWS = """
SELECT m.step, m.epoch, m.loss, m.penalty, s.asymmetry, s.effective_rank, s.aligned, k.value, p.value
FROM metrics AS m
LEFT JOIN spectra AS s ON s.step = m.step
LEFT JOIN evaluations AS k ON k.kind = 'knn' AND k.step = m.step
LEFT JOIN evaluations AS p ON p.kind = 'probe' AND p.step = m.step
WHERE m.step <= ? ORDER BY m.step
"""


def _stretches(store: RunStore) -> Iterator[tuple[Knobs, Iterator[tuple[Any, ...]]]]:
    """The rows of ``MEASURED``, those that one set of knobs made at a time."""
    # The end first: what a step follows is on record before the step is.
    last = store.last_step()
    events = store.events(until=last)
    knobs = store.config().knobs
    if store.first_step() > 1:
        # It began from a trainer whose knobs had been turned before.
        for event in reversed(events):
            knobs = knobs.changed(event.before)
    steps = [event.step for event in events]
    made = 0
    # An event at step s is followed by step s + 1 first.
    for seen, rows in itertools.groupby(store.rows(_ROWS, (last,)), key=lambda row: bisect_left(steps, row[0])):
        for event in events[made:seen]:
            knobs = knobs.changed(event.changes)
        made = seen
        yield knobs, rows


def csv_lines(store: RunStore) -> Iterator[str]:
    """The run as CSV: a header, then a line for each step. Empty where nothing was measured at that step."""
    yield f"{','.join(COLUMNS)}\n"
    for knobs, rows in _stretches(store):
        made_by = ",".join(_word(value) for value in knobs.model_dump().values())
        for row in rows:
            yield f"{','.join('' if value is None else repr(value) for value in row)},{made_by}\n"


def _write_csv(store: RunStore, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(csv_lines(store))


def _write_parquet(store: RunStore, path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SSLLabError(
            "A Parquet file is written by pyarrow, which is not installed here: pip install pyarrow"
        ) from None

    kinds: dict[Any, Any] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    whole = ("step", "aligned")
    schema = pa.schema(
        [(name, pa.int64() if name in whole else pa.float64()) for name in MEASURED]
        + [(name, kinds.get(field.annotation, pa.string())) for name, field in Knobs.model_fields.items()]
    )
    rows = (
        (*row, *made_by)
        for knobs, stretch in _stretches(store)
        for made_by in [knobs.model_dump().values()]
        for row in stretch
    )
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(itertools.islice(rows, BATCH)):
            columns = zip(*batch, strict=True)
            writer.write_batch(
                pa.record_batch([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            )


def _write_npz(store: RunStore, path: Path) -> None:
    last = store.last_step()
    events = store.events(until=last)
    config = store.config()
    measured = ("step", "epoch", "loss", "penalty")
    table = np.fromiter(
        store.rows(f"SELECT {', '.join(measured)} FROM metrics WHERE step <= ? ORDER BY step", (last,)),
        dtype=[(name, np.int64 if name == "step" else np.float64) for name in measured],
    )
    arrays: dict[str, Any] = {name: table[name] for name in measured}
    spectra = [record for record in store.spectra() if record.step <= last]
    arrays["spectrum_step"] = np.array([record.step for record in spectra], dtype=np.int64)
    arrays["spectrum_epoch"] = np.array([record.epoch for record in spectra], dtype=np.float64)
    for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal"):
        parts = [getattr(record.spectrum, name) for record in spectra]
        arrays[name] = np.array(parts, dtype=np.float64).reshape(len(parts), -1 if parts else config.projector_dim)
    for name in ("asymmetry", "effective_rank"):
        arrays[name] = np.array([getattr(record.spectrum, name) for record in spectra], dtype=np.float64)
    arrays["aligned"] = np.array([record.spectrum.aligned for record in spectra], dtype=np.int64)
    for kind in ("knn", "probe"):
        found = list(
            store.rows("SELECT step, value FROM evaluations WHERE kind = ? AND step <= ? ORDER BY step", (kind, last))
        )
        arrays[f"{kind}_step"] = np.array([step for step, _ in found], dtype=np.int64)
        arrays[kind] = np.array([value for _, value in found], dtype=np.float64)
    about = {
        "name": store.name,
        "config": json.loads(config.model_dump_json()),
        "events": [
            {"number": e.number, "step": e.step, "time": e.time, "changes": e.changes, "origin": e.origin}
            for e in events
        ],
        "fingerprints": store.fingerprints(),
        "ssl_lab": __version__,
    }
    with path.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


# ------------------------------------------------------------------ files


def _write_script(store: RunStore, path: Path) -> None:
    path.write_bytes(script(store).encode())


def _write_command(store: RunStore, path: Path) -> None:
    path.write_bytes(command(store).encode())


_WRITERS: Mapping[str, Callable[[RunStore, Path], None]] = MappingProxyType(
    {
        "script": _write_script,
        "command": _write_command,
        "csv": _write_csv,
        "parquet": _write_parquet,
        "npz": _write_npz,
        "sqlite": RunStore.copy_to,
    }
)


def write(store: RunStore, kind: str, path: str | os.PathLike[str]) -> None:
    """Writes the run to ``path`` as one of ``KINDS``, whole or not at all.

    Raises:
        SSLLabError: there is no such kind, the run cannot be written so, or the file cannot be written.
    """
    path = Path(path)
    if kind not in KINDS:
        raise SSLLabError(f"A run cannot be written as {kind!r}. The kinds are: {', '.join(KINDS)}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        if path.exists() and path.samefile(store.path):
            raise SSLLabError(f"{path} is the run's own file. Take another name.")
        _WRITERS[kind](store, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, sqlite3.Error) as error:
        raise SSLLabError(f"{path} could not be written: {error}.") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        if isinstance(error, SSLLabError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise StoreError(f"{store.path} is broken: it cannot be written out as {kind} ({reason}).") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
