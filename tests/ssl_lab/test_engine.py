"""The engine process and its desk, where it does not go well."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ssl_lab import RunStore, Trainer, desk
from ssl_lab.batched import Verdict
from ssl_lab.desk import EngineDesk
from ssl_lab.engine import Engine
from ssl_lab.errors import WriteError
from ssl_lab.family import FAMILY, Membership
from ssl_lab.loop import drive
from ssl_lab.store import open_run


@pytest.fixture
def front(tmp_path: Path) -> Iterator[EngineDesk]:
    made = EngineDesk(tmp_path)
    yield made
    made.close()


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def test_no_more_runs_are_awake_than_the_engine_takes(
    front: EngineDesk, tmp_path: Path, make_trainer: Callable[..., Trainer]
) -> None:
    for name in ("one", "two", "three"):
        RunStore.create(name, make_trainer().config, tmp_path).close()
    engine = Engine(tmp_path, front, most_awake=2)
    try:
        for name in ("one", "two", "three"):
            engine.host(name)
        assert engine.awake() == 2
        with open_run("three", tmp_path) as store:
            wait_for(lambda: "2 runs awake" in store.status().message)
            assert store.status().state == "asleep"
            with open_run("one", tmp_path) as first:
                wait_for(first.driven)
                first.send("sleep")
                wait_for(lambda: engine.awake() == 1)
            engine.host("three")
            wait_for(lambda: store.status().state == "paused")
            assert store.status().message == ""
    finally:
        engine.stop.set()
        wait_for(lambda: engine.awake() == 0)


def test_a_beat_that_cannot_be_written_is_not_the_last(
    front: EngineDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, beats = Engine(tmp_path, front), []

    def beat(runs: int, message: str | None = None) -> None:
        beats.append(runs)
        if len(beats) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        engine.stop.set()

    monkeypatch.setattr(front, "beat", beat)
    engine.beat()
    assert len(beats) == 2


def test_one_engine_a_folder_whatever_the_clock_says(front: EngineDesk, tmp_path: Path) -> None:
    assert not front.status().alive
    assert front.take_seat()
    front.introduce("CPU", "2")
    other = EngineDesk(tmp_path)
    try:
        assert not other.take_seat()
        assert other.status().alive
        # The clock is set a day on: what was heard a moment ago was heard a moment ago.
        real = time.time
        time.time = lambda: real() + 86_400  # type: ignore[assignment]
        try:
            assert other.status().alive
            other.ensure_engine()
            assert other._child is None
        finally:
            time.time = real
        front.leave_seat()
        assert not other.status().alive
    finally:
        other.close()


def test_an_engine_that_hangs_is_ended_for_another_one(front: EngineDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "SILENCE", 1.5)
    monkeypatch.setattr(desk, "HUNG", 2.0)
    front.ensure_engine()
    wait_for(lambda: front.status().seated and front.status().device)
    first = front._child
    assert first is not None
    try:
        first.send_signal(signal.SIGSTOP)
        wait_for(lambda: front.status().silence > 2.0)
        front.ensure_engine()
        assert front._child is not first
        assert first.wait(30) == -signal.SIGKILL
        wait_for(lambda: front.status().seated and front.status().alive)
        assert front.status().pid == front._child.pid  # type: ignore[union-attr]
    finally:
        for process in (first, front._child):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def test_where_nothing_can_be_written_no_engine_is_begun(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(WriteError, match="results cannot be written"):
        EngineDesk(tmp_path / "results")


def test_a_family_is_stepped_as_one_where_that_pays(
    front: EngineDesk, tmp_path: Path, make_trainer: Callable[..., Trainer]
) -> None:
    """On a CPU an engine does so for tests alone: a run of it is replayed bit by bit."""
    from ssl_lab.together import Families

    parent = make_trainer("byol-one-layer")
    with RunStore.create("parent", parent.config, tmp_path) as store:
        drive(parent, store, owner="train", until=5)
        for place, name in enumerate(("one", "two")):
            with store.fork(name, 5) as fork:
                fork.set_meta(FAMILY, Membership("ab" * 16, "ema", fork.status().knobs.ema, place, 2).kept())
    engine = Engine(tmp_path, front)
    engine.companies = Families(everywhere=True, measure=kept, patience=5.0, settled=0.0)
    try:
        with open_run("one", tmp_path) as one, open_run("two", tmp_path) as two:
            for run in (one, two):
                engine.host(run.name)
            wait_for(lambda: one.status().state == two.status().state == "paused")
            (company,) = engine.companies.companies()
            for run in (one, two):
                run.send("run")
            wait_for(lambda: company.shared >= 5, 200)
            one.send("sleep")
            wait_for(lambda: len(company.members) == 1, 200)
            before = two.status().step
            wait_for(lambda: two.status().step > before, 200)
            assert one.losses()[:6] == pytest.approx(two.losses()[:6], abs=1e-4)
    finally:
        engine.stop.set()
        wait_for(lambda: engine.awake() == 0)


def kept(_: Sequence[Trainer]) -> Verdict:
    return Verdict(alone=[1.0], together=[2.0], apart=0.0, captured=False)
