"""A replay lands on the record's numbers to the bit, and tells a record that was altered from one that was not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_lab import RunStore, Trainer, cli
from ssl_lab.errors import SSLLabError
from ssl_lab.loop import drive
from ssl_lab.replay import replay
from ssl_lab.store import open_run
from tests.ssl_lab.conftest import small_config

TURNS: dict[int, dict[str, Any]] = {
    7: {"predictor": "none"}, 15: {"predictor": "mlp", "symmetry": "hard"}, 22: {"ema": 0.5, "lr": 0.1},
    31: {"predictor": "directcopy", "norm": "spectral", "eps": 0.3}, 40: {"stop_gradient": False, "augmentation": 0.5},
}  # fmt: skip


@pytest.fixture
def recorded(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Path:
    """A run of 60 steps with five interventions, each sent while it runs."""
    trainer = make_trainer("directpred", spectrum_every=5)
    with RunStore.create("run", trainer.config, tmp_path) as store, open_run("run", tmp_path) as page:

        def turn(record: Any) -> None:
            if record.step in TURNS:
                page.send("set", TURNS[record.step])

        drive(trainer, store, owner="train", until=60, on_record=turn)
        assert [event.step for event in store.events()] == list(TURNS)
    return tmp_path


def alter(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "run" / "run.sqlite") as db:
        db.execute(statement)
    db.close()


def test_bit_equal(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", "run", "--results", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert "Bit-equal: 60 losses and 17 spectra" in out or "Bit-equal: 60 losses" in out


@pytest.mark.parametrize("number", range(1, 6))
def test_a_dropped_event_is_noticed(number: int, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = list(TURNS)[number - 1]
    alter(recorded, f"DELETE FROM events WHERE number = {number}")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.DIFFERENT
    out = capsys.readouterr().out
    assert "Not the same" in out
    assert f"knob event {number} is missing or not as it was logged" in out
    with open_run("run", recorded, readonly=True) as store:
        found = replay(store).first_difference
    assert found is not None
    assert step < found <= step + 2


def test_an_altered_event_is_noticed(recorded: Path) -> None:
    alter(recorded, """UPDATE events SET changes = '{"ema": 0.51, "lr": 0.1}' WHERE number = 3""")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.DIFFERENT


def test_a_replay_that_diverges_is_not_the_same(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the event that tamed it, a run may not get to its end at all."""
    alter(recorded, """UPDATE events SET changes = '{"ema": 0.5, "lr": 100, "weight_decay": 1}' WHERE number = 3""")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.DIFFERENT
    assert "the replay cannot go on, which the record could" in capsys.readouterr().out
    with open_run("run", recorded, readonly=True) as store:
        report = replay(store)
    assert report.broke_off is not None
    assert report.first_difference is not None
    assert 22 < report.first_difference <= report.broke_off == report.steps + 1 <= 60
    assert 0 < report.spectra < 17


def test_an_event_that_no_trainer_takes_is_an_altered_one(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter(recorded, """UPDATE events SET changes = '{"lr": -5}' WHERE number = 3""")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.DIFFERENT
    assert "knob event 3 is missing or not as it was logged" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["before", "origin", "step"])
def test_all_of_an_event_is_sealed(column: str, recorded: Path) -> None:
    value = {"before": """'{"ema": 0.9, "lr": 0.1}'""", "origin": "'nobody'", "step": "21"}[column]
    alter(recorded, f"UPDATE events SET {column} = {value} WHERE number = 3")
    with open_run("run", recorded, readonly=True) as store:
        assert store.altered_event() == 3


def test_an_altered_record_is_told_from_another_machine(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where bits may differ anyway, the list of events gives it away."""
    with open_run("run", recorded) as store:
        store.set_meta("fingerprints", [{**made, "torch": "1.0"} for made in store.fingerprints()])
    alter(recorded, "DELETE FROM events WHERE number = 5")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.DIFFERENT
    assert "knob event 5 is missing" in capsys.readouterr().out


def test_elsewhere_it_can_only_be_close(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run("run", recorded) as store:
        (made,) = store.fingerprints()
        store.set_meta("fingerprints", [{**made, "torch": "1.0"}])
    # Bits that are the same are the same, wherever they came from.
    assert cli.main(["replay", "run", "--results", str(recorded)]) == 0
    alter(recorded, "UPDATE metrics SET loss = loss + 1e-7")
    assert cli.main(["replay", "run", "--results", str(recorded)]) == cli.CLOSE
    out = capsys.readouterr().out
    assert "torch was 1.0" in out
    assert "up to 1e-07" in out


def test_what_cannot_be_replayed(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    with RunStore.create("run", small_config(), tmp_path) as store:
        with pytest.raises(SSLLabError, match="no steps"):
            replay(store)
        trainer = make_trainer()
        trainer.step()
        drive(trainer, store, owner="train", until=4)
        with pytest.raises(SSLLabError, match="had been stepped before"):
            replay(store)
