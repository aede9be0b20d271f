"""Random sessions at the bench by the real widgets, for the tests and for ``python -m benchmarks.record``."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w

from lab import Bench
from ssl_lab import Trainer
from ssl_lab.config import Knobs, idle_knobs, presets
from ssl_lab.datasets import Dataset
from ssl_lab.replay import replay
from ssl_lab.store import open_run
from tests.lab.conftest import wait_for
from tests.ssl_lab.conftest import small_config

STEPS = 200

# Rates at which a tiny network still learns something: what diverges ends, and has nothing more to replay.
SANE = {
    "lr": 0.05,
    "lr_predictor": 0.05,
    "symmetry_strength": 0.2,
    "weight_decay": 0.01,
    "weight_decay_predictor": 0.01,
    "freq": 6,
}


@dataclass(frozen=True)
class Session:
    """What a random session came to."""

    seed: int
    steps: int
    events: int
    bit_equal: bool
    unnoticed: tuple[int, ...]
    """Events that could be dropped without making the replay's numbers differ."""


def session(seed: int, folder: Path, data: Dataset | None = None) -> Session:
    """Steps and turns at random, then a replay without a page, and one without each of the events."""
    chance = random.Random(seed)
    config = small_config(chance.choice(list(presets())), seed=seed, spectrum_every=25)
    tamed = {name: min(most, getattr(config.knobs, name)) for name, most in SANE.items()}
    config = config.model_copy(update={"knobs": config.knobs.changed(tamed)})
    trainer = Trainer(config, data)
    bench = Bench(trainer, results=folder)
    try:
        wait_for(lambda: bench.store is not None and _state(bench).state == "paused")
        turns = chance.randint(5, 8)
        for place in range(turns):
            _advance(bench, chance, STEPS * (place + 1) // (turns + 1))
            _turn(bench, chance)
        bench.transport.pause.click()
        _advance(bench, chance, STEPS)
        assert bench.store is not None
        name, events = bench.store.name, len(bench.store.events())
    finally:
        bench.close()
    with open_run(name, folder, readonly=True) as store:
        found = replay(store)
    unnoticed = []
    for number in range(1, events + 1):
        with open_run(name, folder, readonly=True) as store, store.fork(f"{name}-without-{number}") as copy:
            _drop(copy.path, number)
            if replay(copy).first_difference is None:
                unnoticed.append(number)
    return Session(seed, found.steps, events, found.equal, tuple(unnoticed))


def _drop(path: Path, number: int) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("DELETE FROM events WHERE number = ?", (number,))
    db.close()


def _state(bench: Bench) -> Any:
    assert bench.store is not None
    status = bench.store.status()
    assert status.state != "failed", status.message
    return status


def _stands_at(bench: Bench, step: int) -> bool:
    status = _state(bench)
    return bool(status.step == step and status.state == "paused")


def _advance(bench: Bench, chance: random.Random, goal: int) -> None:
    """To a step, by the buttons; sometimes on the run, so that the next knob is turned at any moment."""
    if goal < STEPS and chance.random() < 0.4:
        bench.transport.speed.value = 30.0
        bench.transport.run.click()
        wait_for(lambda: _state(bench).step >= goal - 8)
        return
    bench.transport.pause.click()
    wait_for(lambda: _state(bench).state == "paused")
    bench.transport.speed.value = 0.0
    while (left := goal - _state(bench).step) > 0:
        before = _state(bench).step
        count = 10 if left >= 10 else 1
        (bench.transport.step10 if count == 10 else bench.transport.step).click()
        wait_for(partial(_stands_at, bench, before + count))


def _turn(bench: Bench, chance: random.Random) -> None:
    """Turns a knob that has an effect now, to another value, by its control."""
    knobs: Knobs = _state(bench).knobs
    name = chance.choice([name for name in Knobs.model_fields if name not in idle_knobs(knobs)])
    control, before = bench.knobs.controls[name].control, len(bench.store.events())  # type: ignore[union-attr]
    value = _another(control, name, getattr(knobs, name), chance)
    # The page's control shows the engine's value by now, or it would not be turned at all.
    wait_for(lambda: bench.knobs.controls[name]._shows(getattr(knobs, name)))
    control.value = value
    wait_for(lambda: len(bench.store.events()) == before + 1)  # type: ignore[union-attr]


def _another(control: Any, name: str, now: Any, chance: random.Random) -> Any:
    if isinstance(control, w.Dropdown):
        return chance.choice([value for _, value in control.options if value != now])
    if isinstance(control, w.Checkbox):
        return not now
    while True:
        if isinstance(control, w.FloatLogSlider):
            value = 10 ** chance.uniform(-3, 0)
        elif isinstance(control, w.BoundedIntText):
            value = chance.randint(1, SANE.get(name, 10))  # type: ignore[arg-type]
        else:
            value = chance.uniform(control.min, control.max)
        value = min(value, SANE.get(name, value))
        if abs(value - now) > 0.05 * abs(now):
            return value
