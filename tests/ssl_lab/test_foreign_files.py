"""A run's file from elsewhere may hold anything: it is shown, or said to be broken, and runs nothing."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_lab import RunStore, Trainer, cli, export
from ssl_lab.errors import SSLLabError
from ssl_lab.loop import drive
from ssl_lab.store import open_run

CRAFTED = "{__import__('pathlib').Path('owned').touch()}"


@pytest.fixture
def run(make_trainer: Callable[..., Trainer], tmp_path: Path) -> Path:
    trainer = make_trainer(spectrum_every=5)
    with RunStore.create("run", trainer.config, tmp_path) as store:
        store.send("set", {"ema": 0.5})
        drive(trainer, store, owner="train", until=10)
    return tmp_path / "run" / "run.sqlite"


def craft(path: Path, statement: str, values: tuple[Any, ...] = ()) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE metrics SET loss = ?", lambda store: store.metrics()),
        ("UPDATE spectra SET effective_rank = ?", lambda store: store.newest_spectrum()),
        ("UPDATE spectra SET f = ?", lambda store: store.spectra()),
        ("UPDATE evaluations SET value = ?", lambda store: store.newest_evaluation("knn")),
        ("UPDATE events SET changes = ?", lambda store: store.events()),
        ("UPDATE events SET before = ?", lambda store: store.events()),
        ("UPDATE metrics SET loss = ?", lambda store: store.curve("loss")),
        ("UPDATE status SET state = ?", lambda store: store.status()),
        ("UPDATE status SET heartbeat = ?", lambda store: store.status()),
    ],
)
def test_words_in_the_place_of_numbers_are_refused(statement: str, read: Callable[[RunStore], Any], run: Path) -> None:
    craft(run, statement, (CRAFTED,))
    with RunStore.open(run, readonly=True) as store, pytest.raises(SSLLabError, match="is broken"):
        read(store)


def test_nothing_of_a_file_runs_in_the_script_that_is_written_from_it(run: Path, tmp_path: Path) -> None:
    for statement in ("UPDATE metrics SET loss = ? WHERE step = 10", "UPDATE spectra SET effective_rank = ?"):
        copy = tmp_path / "crafted.sqlite"
        shutil.copyfile(run, copy)
        craft(copy, statement, (CRAFTED,))
        with RunStore.open(copy, readonly=True) as store, pytest.raises(SSLLabError, match="is broken"):
            export.script(store)
    # What is a number in the file's eyes is one in the script's, whatever its digits.
    with RunStore.open(run, readonly=True) as store:
        script = tmp_path / "again.py"
        script.write_text(export.script(store))
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "step 10" in out.stdout
    assert not (tmp_path / "owned").exists()


def test_a_run_is_called_as_its_folder(run: Path) -> None:
    """A folder that was copied under another name is another run, and a loose file is what it says."""
    results = run.parents[1]
    shutil.copytree(run.parent, results / "copied")
    with open_run("copied", results) as store:
        assert store.name == "copied"
    shutil.copyfile(run, results / "loose.sqlite")
    with RunStore.open(results / "loose.sqlite", readonly=True) as store:
        assert store.name == "run"


def test_a_fork_knows_nothing_of_where_its_parent_went_on(run: Path) -> None:
    with RunStore.open(run) as store:
        (made,) = store.fingerprints()
        store.set_meta("fingerprints", [made, {**made, "step": 7, "torch": "other"}])
        with store.fork("early", 7) as early, store.fork("late", 8) as late:
            assert [f["torch"] for f in early.fingerprints()] == [made["torch"]]
            assert [f["torch"] for f in late.fingerprints()] == [made["torch"], "other"]


def test_an_export_overwrites_nothing_unasked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").write_text("mine")
    words = ["export", "run", "--as", "script", "--results", str(run.parents[1])]
    assert cli.main(words) == 2
    assert (tmp_path / "run.py").read_text() == "mine"
    assert cli.main([*words, "--out", "run.py"]) == 0
    assert "def run" in (tmp_path / "run.py").read_text()


def test_a_broken_file_does_not_keep_its_name(run: Path, make_trainer: Callable[..., Trainer]) -> None:
    craft(run, "UPDATE meta SET value = '1' WHERE key = 'schema'")
    RunStore.create("run", make_trainer().config, run.parents[1], overwrite=True).close()
    with open_run("run", run.parents[1]) as store:
        assert store.last_step() == 0


def test_a_run_that_came_to_nothing_leaves_no_folder(run: Path) -> None:
    results = run.parents[1]

    def fail(_: sqlite3.Connection) -> None:
        raise SSLLabError("no")

    with open_run("run", results) as store, pytest.raises(SSLLabError):
        RunStore.create("half", store.config(), results, fill=fail)
    assert not (results / "half").exists()
