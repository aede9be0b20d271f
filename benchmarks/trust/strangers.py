"""A page that sends whatever it likes to the widgets of a real bench: values, messages, floods.

In process, by the way that a comm takes. The visitor has a run of their own that a thread steps, watches the run of
somebody else for half of the time, and has another kernel's worth of luck with every kind of value.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.trust.case import Case, Verdict
from lab import Bench
from lab.doors import parts
from lab.house import House, digest
from lab.owners import KEEPER, Owners
from ssl_lab import Knobs, RunStore, Trainer, preset
from ssl_lab.config import RunConfig, knob_choices, knob_range
from ssl_lab.desk import EngineDesk
from ssl_lab.errors import SSLLabError
from ssl_lab.loop import drive

HOUSE = House(
    served=True, own_only=True, host_key=digest("teacher"), max_visitors=20, max_runs=6, max_bytes=200_000_000
)

ROUND = 500
"""Messages between two looks at whether all still holds."""

MEMORY = 150_000_000
"""Bytes by which the process may have grown in the end: what Python and SQLite keep for later, and no more."""

FOREIGN, OWN = "theirs", "mine"


def _config() -> RunConfig:
    return preset(
        "directpred", dataset="digits", batch_size=32, width=4, projector_hidden=16, projector_dim=8,
        predictor_hidden=16, device="cpu", spectrum_every=10,
    )  # fmt: skip


@contextlib.contextmanager
def _stepped(folder: Path, name: str, key: str) -> Iterator[RunStore]:
    """A run that a thread steps as an engine does."""
    stop, config = threading.Event(), _config()
    with RunStore.create(name, config, folder) as mine, RunStore.open(folder / name, readonly=True) as store:
        mine.set_meta(KEEPER, digest(key))
        options: dict[str, Any] = {"owner": "engine", "running": False, "stay": True, "stop": stop}
        thread = threading.Thread(target=drive, args=(Trainer(config), mine), kwargs=options, daemon=True)
        thread.start()
        try:
            _wait(lambda: store.driven() and store.status().state == "paused", "a driver")
            yield store
        finally:
            stop.set()
            thread.join(60.0)


def _wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SSLLabError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


# ---------------------------------------------------------------- what a stranger sends


def _anything(chance: random.Random, depth: int = 0) -> Any:
    """A value such as JSON can hold, and some that it should not."""
    kind = chance.randrange(12 if depth < 3 else 9)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.randint(-5, 50)
    if kind == 2:
        return chance.choice([2**31, -(2**63), 2**64, 10**40, -1, 0])
    if kind == 3:
        return chance.choice([float("nan"), float("inf"), float("-inf"), -0.0, 1e308, 5e-324])
    if kind == 4:
        return chance.uniform(-10, 10)
    if kind == 5:
        return chance.choice(
            ["", OWN, FOREIGN, "../..", "a/b", "recording: collapse-and-return", "file: x", "0.5", "none"]
        )
    if kind == 6:
        return "".join(
            chr(chance.choice([0, 10, 39, 60, 62, 65, 955, 0xD800, 0x1F600])) for _ in range(chance.randrange(40))
        )
    if kind == 7:
        return "x" * chance.choice([10, 1_000, 100_000])
    if kind == 8:
        return chance.choice(["IPY_MODEL_0", "run", "step", [0] * 20_000])
    if kind == 9:
        return [_anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 10:
        return {str(_anything(chance, 3))[:30]: _anything(chance, depth + 1) for _ in range(chance.randrange(4))}
    return {chance.choice(["run", "step", "compare", "knobs", "seed", "key"]): _anything(chance, depth + 1)}


def _message(chance: random.Random, widget: Any) -> dict[str, Any]:
    """A message of a comm to a widget: state of any trait, its own words with any content, or no message at all."""
    kind = chance.random()
    # Their own run they may delete, and then there is nothing more to try.
    spared = chance.choice([FOREIGN, f"{OWN}/", f"../{FOREIGN}", _anything(chance)])
    buffers = [memoryview(bytes(chance.randrange(50))) for _ in range(chance.randrange(3))]
    if kind < 0.5:
        names = chance.sample(list(widget.keys), min(len(widget.keys), chance.randint(1, 3)))
        data: Any = {"method": "update", "state": {name: _anything(chance) for name in names}}
        if chance.random() < 0.1:
            data["buffer_paths"] = _anything(chance)
    elif kind < 0.97:
        content = chance.choice(
            [
                {"event": "click"}, {"key": "step"}, {"key": "run_pause"}, {"ping": _anything(chance)},
                {"open": chance.choice([OWN, FOREIGN, _anything(chance)])},
                {"delete": FOREIGN if spared == OWN else spared},
                {"do": "fork", "step": _anything(chance)}, {"do": "undo", "event": _anything(chance)},
                {"drop": 1, "name": _anything(chance), "size": _anything(chance)}, {"drop": 1, "at": _anything(chance)},
                {"want": _anything(chance), "at": _anything(chance)}, {"done": _anything(chance)}, _anything(chance),
            ]
        )  # fmt: skip
        data = {"method": "custom", "content": content}
    else:
        data = chance.choice([{"method": _anything(chance)}, {"method": "request_state"}, {"method": "update"}, {}])
    return {"content": {"data": data}, "buffers": buffers}


def _plausible(chance: random.Random, widget: Any) -> dict[str, Any]:
    """A value that a control takes, so that what comes through is tried as well."""
    if hasattr(widget, "index"):
        state: dict[str, Any] = {"index": chance.randrange(6)}
    else:
        state = {"value": chance.choice([True, False, 1, 3, 0.5, 0.01, 1e300, -1e300, 10**15, 0])}
    return {"content": {"data": {"method": "update", "state": state}}, "buffers": []}


# ---------------------------------------------------------------- what must hold


def _trace(store: RunStore) -> list[Any]:
    """What whoever steers leaves in a run's file."""
    status = store.status()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        commands = db.execute("SELECT id, time, kind, payload, origin, state FROM commands ORDER BY id").fetchall()
    return [commands, store.events(), status.state, status.speed, status.viewer, status.step, store.meta(KEEPER)]


def _out_of_range(store: RunStore) -> list[str]:
    """Knobs on record that no knob may be."""
    found = []
    for number in range(len(store.events()) + 1):
        knobs: Knobs = store.knobs_after(number)
        for name in Knobs.model_fields:
            value, span = getattr(knobs, name), knob_range(name)
            if span is not None and not span[0] <= value <= span[1]:
                found.append(f"{name} = {value} after event {number}")
            elif span is None and not isinstance(value, bool) and value not in knob_choices(name):
                found.append(f"{name} = {value!r} after event {number}")
    return found


def _memory() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _tell(widget: Any, **state: Any) -> None:
    widget._handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})


def _say(widget: Any, content: Any) -> None:
    widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def _look_at(bench: Bench, name: str) -> None:
    _wait(lambda: bench._actions.empty(), "an end of what was asked for")
    deadline = time.monotonic() + 60.0
    while bench._key != name or not bench._actions.empty():
        if time.monotonic() > deadline:
            raise SSLLabError(f"the run {name} does not come to the page any more: {bench.banner.value[:500]}")
        _say(bench.shelf, {"open": name})
        time.sleep(0.05)


def _usable(bench: Bench, own: RunStore) -> None:
    """The visitor's own run comes to the page, and a press of Step is a step, or a named stop."""
    if not bench.publisher._thread.is_alive():
        raise SSLLabError("the publisher's thread has ended")
    _tell(bench.browser, visible=True, alive=bench.browser.alive % 1000 + 1)
    _tell(bench.timeline, step=-1)
    _look_at(bench, OWN)
    _say(bench.transport.pause, {"event": "click"})
    _wait(lambda: own.status().state in ("paused", "failed") and not own.waiting(), "a run that stands")
    before = own.status().step
    if own.status().state == "paused":
        _say(bench.transport.step, {"event": "click"})
        _wait(lambda: own.status().step == before + 1 or own.status().state == "failed", "a step")
    _wait(lambda: f"data-step='{own.status().step}'" in bench.headline.value, "a picture of it")


# ---------------------------------------------------------------- the harness


def run(count: int, folder: Path) -> Verdict:
    """``count`` messages, most of them to what a person can turn."""
    verdict = Verdict()
    logging.disable(logging.CRITICAL)
    # No process is started: the own run has its driver, and runs that are made beside it stay where they are.
    quiet = mock.patch.object(EngineDesk, "ensure_engine", return_value=None)
    try:
        with quiet, _stepped(folder, FOREIGN, "bob") as theirs, _stepped(folder, OWN, "ann") as own:
            _attack(verdict, count, folder, theirs, own)
    finally:
        logging.disable(logging.NOTSET)
    return verdict


def _attack(verdict: Verdict, count: int, folder: Path, theirs: RunStore, own: RunStore) -> None:
    before = _trace(theirs)
    bench = Bench(results=folder, house=replace(HOUSE))
    chance, seed = random.Random(0), 0
    try:
        _tell(bench.browser, key="ann", query={"run": OWN}, visible=True, alive=1)
        _wait(lambda: bench._key == OWN, "the bench")
        everything = list(parts(bench.widget))
        assert bench.export is not None
        hands = [control.control for control in bench.knobs.controls.values()]
        hands += [bench.preset, bench.dataset, bench.transport.speed, bench.export.form, bench.export.picture]
        buttons = [bench.new, bench.reset, *bench.transport.buttons.children, bench.export.download]
        eyes = [bench.browser, bench.timeline, bench.shelf, bench.files]
        _look_at(bench, FOREIGN)
        warm = 0
        while verdict.tried < count:
            seed += 1
            chance = random.Random(seed)
            for _ in range(min(ROUND, count - verdict.tried)):
                verdict.tried += 1
                widget = chance.choice(chance.choice([everything, hands, buttons, eyes]))
                plausible = widget in hands and chance.random() < 0.3
                widget._handle_msg(_plausible(chance, widget) if plausible else _message(chance, widget))
            try:
                if _trace(theirs) != before:
                    verdict.failures.append(f"round {seed}: the run of somebody else was steered")
                    before = _trace(theirs)
                verdict.failures += [f"round {seed}: {line}" for line in _out_of_range(own)]
                _usable(bench, own)
                _look_at(bench, chance.choice([FOREIGN, OWN]))
            except SSLLabError as error:
                verdict.failures.append(f"round {seed}: {error}")
                break
            if seed == 4:
                warm = _memory()
        kept = [name for name in os.listdir(folder) if (folder / name / "run.sqlite").exists()]
        most = HOUSE.max_runs or 0
        if len(kept) > most + 1:
            verdict.failures.append(f"{len(kept) - 1} runs are kept, and {most} may be")
        if not (folder / FOREIGN / "run.sqlite").exists():
            verdict.failures.append("the run of somebody else was deleted")
        grown = _memory() - warm if warm else 0
        if grown > MEMORY:
            verdict.failures.append(f"the process has grown by {grown / 1e6:.0f} MB")
        verdict.notes += [f"{len(own.events())} knobs turned", f"grown by {grown / 1e6:.0f} MB", f"{len(kept)} runs"]
    finally:
        bench.close()


def open_house(folder: Path) -> Verdict:
    """The same where everybody may steer everything."""
    with mock.patch.object(Owners, "may_steer", return_value=True):
        return run(2 * ROUND, folder)


CASES = (
    Case(
        name="strangers",
        what="whatever a page sends to its widgets, the bench stays usable, its memory bounded, every knob in its "
        "range, and nobody else's run is touched",
        whole=30_000,
        quick=1_500,
        run=run,
        fault=open_house,
        fault_words="a bench on which everybody may steer",
    ),
)
