"""The state machine over the real widgets, shortly; ``python -m benchmarks.trust --only machine`` is the whole."""

from __future__ import annotations

from pathlib import Path

from benchmarks.trust.machine import ACTIONS, CONTROLS, FAULTS, fault, machine
from benchmarks.trust.whole import faults
from ssl_lab import RunStore
from tests.ssl_lab.conftest import small_config


def test_nothing_is_lost_and_nothing_is_silent() -> None:
    session = machine(6, ACTIONS // 2)
    assert session.verdict.failures == []
    assert session.verdict.tried >= 6
    assert set(session.used) <= set(CONTROLS)
    assert sum(session.used.values()) >= 6 * ACTIONS // 2
    assert session.replayed > 0


def test_the_machine_sees_each_planted_fault(tmp_path: Path) -> None:
    found = fault(tmp_path)
    for words in FAULTS:
        assert any(line.startswith(words) for line in found.failures), (words, found.notes)


def test_a_record_that_is_not_whole_is_found_out(tmp_path: Path) -> None:
    with RunStore.create("run", small_config(), tmp_path) as store:
        for ema in (0.5, 0.6):
            number = store.send("set", {"ema": ema})
            before = store.knobs_after(len(store.events()))
            store.add_event(0, {"ema": before.ema}, {"ema": ema}, "page")
            store.answer(store.command(number), 0)
            store.set_status(knobs=before.changed({"ema": ema}))
        assert faults(store) == []
        # A command without its event.
        store.answer(store.command(store.send("set", {"rho": 0.9})), 0)
        assert len(faults(store)) == 1
        # An event without a command, and knobs that no event says.
        store.add_event(0, {"ema": 0.6}, {"ema": 0.7}, "page")
        assert any("do not belong together" in line for line in faults(store))
        assert any("which no event says" in line for line in faults(store))
        with store.transaction() as db:
            db.execute("DELETE FROM events WHERE number = 1")
        assert any("event 1 is missing" in line for line in faults(store))
        with store.transaction() as db:
            db.executemany("INSERT INTO metrics VALUES (?, 0, ?, 0)", [(1, 0.0), (2, float("inf")), (4, 0.0)])
        assert any("3 are on record" in line for line in faults(store))
        assert any("is not finite" in line for line in faults(store))
