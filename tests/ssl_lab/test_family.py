"""Families in the engine: which values, who gets the next turn, and what a member computes is what it would alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from ssl_lab import RunStore, Trainer
from ssl_lab.config import Knobs, knob_choices
from ssl_lab.desk import EngineDesk
from ssl_lab.engine import Engine
from ssl_lab.family import FAMILY, MOST, Membership, family_values, membership
from ssl_lab.loop import drive, resume
from ssl_lab.pacer import CATCH_UP, LEAD, LEAD_SHARE, Pacer, Turns
from tests.ssl_lab.test_engine import wait_for
from tests.ssl_lab.test_loop import Driven


@pytest.mark.parametrize("name", Knobs.model_fields)
def test_every_knob_has_a_family_with_the_present_value_in_it(name: str) -> None:
    usual = getattr(Knobs(), name)
    for present in (usual, *family_values(name, usual)):
        values = family_values(name, present)
        assert present in values
        assert 2 <= len(values) <= MOST
        assert len(set(values)) == len(values)
        for value in values:
            assert getattr(Knobs().changed({name: value}), name) == value
        if knob_choices(name):
            assert values == knob_choices(name)
        else:
            assert list(values) == sorted(values)
    assert len(family_values(name, usual)) == 5 or not isinstance(usual, float | int) or isinstance(usual, bool)


def test_a_family_keeps_what_means_something() -> None:
    assert family_values("ema", 0.9) == (0.0, 0.5, 0.9, 0.99, 0.999)
    assert family_values("ema", 0.996) == (0.0, 0.5, 0.9, 0.996, 0.999)
    assert family_values("ema", 1.0) == (0.0, 0.5, 0.9, 0.99, 1.0)
    assert family_values("stop_gradient", False) == (False, True)
    assert family_values("lr", 100.0) == (11.0, 33.0, 100.0)
    assert family_values("lr", 0.0) == (0.0, 1e-3, 1e-2, 1e-1, 1.0)
    assert family_values("freq", 3) == (1, 3, 5, 10, 50)


def test_a_file_may_say_of_its_family_what_it_likes() -> None:
    good = Membership("ab" * 16, "ema", 0.5, 1, 5).kept()
    assert membership(good) == Membership("ab" * 16, "ema", 0.5, 1, 5)
    for said in (
        None, 3, "x", [], {}, {**good, "id": "../x"}, {**good, "place": 6}, {**good, "place": -1}, {**good, "size": 0},
        {**good, "knob": "nothing"}, {**good, "value": 7.0}, {**good, "value": "<b>"}, {**good, "value": float("nan")},
        {**good, "more": 1},
    ):  # fmt: skip
        assert membership(said) is None, said


def test_the_one_that_has_come_least_far_is_next() -> None:
    pacer = Pacer()
    order: list[str] = []
    steps = {"a": 0, "b": 0, "c": 0}

    def go(name: str) -> None:
        while steps[name] < 40:
            if pacer.take(name, steps[name], 0.05):
                order.append(name)
                steps[name] += 1
                pacer.give(name, steps[name])
                if name == "b":
                    # It has more to do between its steps than the others.
                    time.sleep(0.002)
        pacer.leave(name)

    threads = [threading.Thread(target=go, args=(name,)) for name in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert steps == {"a": 40, "b": 40, "c": 40}
    done = dict.fromkeys(steps, 0)
    for name in order:
        done[name] += 1
        # Before all three are there the first ones have nobody to wait for.
        if min(done.values()) > 0 and max(done.values()) < 40:
            assert max(done.values()) - min(done.values()) <= LEAD[0] + 1
    assert not pacer.members()


def test_nobody_is_waited_for_who_stands_or_is_stuck() -> None:
    pacer = Pacer(patience=0.2)
    assert pacer.take("slow", 0, 0.0)
    # While one steps, nobody else does.
    assert not pacer.take("fast", 0, 0.05)
    pacer.give("slow", 1)
    for step in range(1 + LEAD[0]):
        assert pacer.take("fast", step + 1, 1.0)
        pacer.give("fast", step + 2)
    assert not pacer.take("fast", 2 + LEAD[0], 0.05), "as far ahead as it may be"
    time.sleep(0.2)
    assert pacer.take("fast", 2 + LEAD[0], 0.05), "one that is not heard of does not hold up the others"
    pacer.give("fast", 3 + LEAD[0])
    pacer.leave("slow")
    assert pacer.take("fast", 100, 0.05)
    pacer.give("fast", 101)
    # All set out together: one that is being woken is waited for.
    pacer.expect("late", 100)
    time.sleep(0.25)
    for step in range(101, 101 + LEAD[0]):
        if pacer.take("fast", step, 0.05):
            pacer.give("fast", step + 1)
    assert not pacer.take("fast", 106, 0.05)
    pacer.leave("late")
    assert pacer.take("fast", 106, 0.05)
    pacer.give("fast", 107)


def goes(pacer: Pacer, name: str, steps: range, speed: float = inf) -> bool:
    """Whether it gets a turn for each of these steps."""
    for step in steps:
        if not pacer.take(name, step, 0.02, speed):
            return False
        pacer.give(name, step + 1)
    return True


def test_nobody_is_waited_for_who_is_far_behind() -> None:
    """It was paused for long; once it is near, the others wait until it is among them."""
    pacer = Pacer(patience=600.0)
    assert goes(pacer, "back", range(100, 101))
    assert goes(pacer, "front", range(1000, 1040))
    assert goes(pacer, "back", range(101, 1040 - CATCH_UP - 2))
    assert goes(pacer, "front", range(1040, 1042))
    assert goes(pacer, "back", range(838, 1042 - CATCH_UP))
    assert not goes(pacer, "front", range(1042, 1043)), "the other is near now"
    pacer.leave("front")
    assert goes(pacer, "back", range(842, 1040))
    assert goes(pacer, "front", range(1042, 1043))


def test_nobody_is_waited_for_who_was_told_to_go_slower() -> None:
    pacer = Pacer(patience=600.0)
    assert goes(pacer, "slow", range(1), 2.0)
    assert goes(pacer, "a", range(4))
    assert goes(pacer, "b", range(2))
    assert goes(pacer, "a", range(4, 6))
    assert not goes(pacer, "a", range(6, 9)), "those that go as fast wait for each other as always"
    assert goes(pacer, "slow", range(1, 2), 2.0)
    # All as slow as it, and then freely again.
    pacer = Pacer(patience=600.0)
    assert goes(pacer, "a", range(3), 2.0)
    assert goes(pacer, "b", range(1), 2.0)
    assert not goes(pacer, "a", range(3, 9), 2.0)
    assert goes(pacer, "b", range(1, 60))
    assert goes(pacer, "a", range(3, 4))
    assert not goes(pacer, "b", range(60, 61))


def test_a_run_says_how_fast_it_may_go(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    speeds: list[float] = []

    class Heard(Turns):
        def take(self, step: int, patience: float, speed: float = inf) -> bool:
            speeds.append(speed)
            return super().take(step, patience, speed)

    with Driven(make_trainer(), tmp_path, turns=Heard(Pacer(), "run")) as run:
        run.steps(3)
        run.ask("speed", {"steps_per_second": 400.0})
        run.steps(3)
        run.ask("speed", {})
        run.steps(1)
    assert speeds == [inf] * 3 + [400.0] * 3 + [inf]


def by_hand(parent: RunStore, step: int, make: Callable[..., Trainer], turn: dict[str, Any], steps: int) -> list[float]:
    """Losses of a fork that somebody makes, turns and steps alone."""
    with parent.fork(f"hand-{len(list(parent.folder.parent.iterdir()))}", step) as fork:
        trainer = make()
        resume(trainer, fork)
        while trainer.step_count < step:
            trainer.step()
        if turn:
            trainer.set(**turn)
        return [trainer.step().loss for _ in range(steps)]


def test_members_go_side_by_side_and_each_is_what_it_would_be_alone(
    tmp_path: Path, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five members and beside them a family of two; one is paused for a while, one fails."""
    step_once = Trainer.step_alone

    def breaks(trainer: Trainer) -> Any:
        if trainer.knobs.rho == 0.77:
            raise RuntimeError("It breaks.")
        return step_once(trainer)

    monkeypatch.setattr(Trainer, "step_alone", breaks)
    trainer = make_trainer()
    with RunStore.create("parent", trainer.config, tmp_path) as parent:
        drive(trainer, parent, owner="train", until=10)
    desk = EngineDesk(tmp_path)
    engine = Engine(tmp_path, desk)
    parent = RunStore.open(tmp_path / "parent")
    first = {f"ema-{value}": {"ema": value} for value in (0.0, 0.5, 0.9, 0.996, 0.999)}
    first["ema-0.996"] = {}
    second: dict[str, dict[str, Any]] = {"sg-off": {"stop_gradient": False}, "sg-on": {}}
    stores: dict[str, RunStore] = {}
    try:
        for number, (family, turns) in enumerate((("ab" * 16, first), ("cd" * 16, second))):
            for place, (name, turn) in enumerate(turns.items()):
                store = stores[name] = parent.fork(name, 10)
                knob, value = ("ema", 0.996) if number == 0 else ("stop_gradient", True)
                store.set_meta(FAMILY, Membership(family, knob, turn.get(knob, value), place, len(turns)).kept())
                if turn:
                    store.send("set", turn)
                store.send("run")
        for name in stores:
            engine.host(name)

        looked = 0.0

        def done(names: Any) -> list[int]:
            nonlocal looked
            if time.monotonic() - looked > 2.0:
                # As a page does: else they pause after a while.
                looked = time.monotonic()
                for store in stores.values():
                    store.touch_viewer()
            # The recorded steps lag behind by what is not written yet, for all alike; the pacer's own count does not.
            pacers = list(engine.families.values())
            counts = {name: step for pacer in pacers for name, step in pacer.members().items()}
            return [counts[name] - 10 for name in names if name in counts]

        def together(names: Any, until: int) -> None:
            seen = 0

            def look() -> bool:
                nonlocal seen
                steps = done(names)
                if len(steps) == len(list(names)):
                    apart = max(steps) - min(steps) > max(LEAD[0], LEAD_SHARE * min(steps)) + 1
                    # Whoever was awake first may be ahead until the last one is there too, and then never again.
                    assert not (apart and seen), steps
                    seen += not apart
                return bool(steps) and len(steps) == len(list(names)) and min(steps) >= until

            wait_for(look, 120)
            assert seen > 10

        together(first, 40)
        assert engine.relatives("ab" * 16) == set(first)
        assert engine.relatives("cd" * 16) == set(second)
        wait_for(lambda: min(done(second), default=0) >= 40, 120)
        # One that stands holds up nobody; when it goes on, the others wait until it is among them again.
        stores["ema-0.9"].send("pause")
        wait_for(lambda: stores["ema-0.9"].status().state == "paused")
        stood, rest = stores["ema-0.9"].status().step, [name for name in first if name != "ema-0.9"]
        wait_for(lambda: min(done(rest)) + 10 > stood + 30, 120)
        stores["ema-0.9"].send("run")
        wait_for(lambda: len(done(first)) == 5 and max(done(first)) - min(done(first)) <= LEAD[1], 120)
        # One that fails holds up nobody either.
        stores["ema-0.5"].send("set", {"rho": 0.77})
        wait_for(lambda: stores["ema-0.5"].status().state == "failed", 120)
        far = max(done(rest))
        wait_for(lambda: min(done([name for name in rest if name != "ema-0.5"])) > far + 10, 120)
    finally:
        engine.stop.set()
        wait_for(lambda: engine.awake() == 0)
    assert engine.families == {}
    for name, turn in (*first.items(), *second.items()):
        losses = stores[name].losses().tolist()[10:50]
        assert losses == by_hand(parent, 10, make_trainer, turn, 40), name
        assert [event.changes for event in stores[name].events()][:1] == ([turn] if turn else [])
        stores[name].close()
    parent.close()
    desk.close()
