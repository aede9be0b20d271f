"""A run's file from elsewhere may hold anything: it is shown, or said to be broken, and runs nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lab import RunStore, Trainer, checkpoint, cli, export, preset
from ssl_lab.config import make_config, parse_knobs
from ssl_lab.database import Budget, connect, told
from ssl_lab.datasets import Dataset
from ssl_lab.errors import ConfigError, KnobError, SSLLabError, StoreError, shown
from ssl_lab.loop import drive
from ssl_lab.mirror import Mirror
from ssl_lab.store import check_name, open_run, results_dir, summary
from tests.ssl_lab.conftest import small_config

CRAFTED = "{__import__('pathlib').Path('owned').touch()}"


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, which nobody changes."""
    trainer, results = Trainer(small_config(spectrum_every=5), digits), tmp_path_factory.mktemp("trained")
    with RunStore.create("run", trainer.config, results) as store:
        store.send("set", {"ema": 0.5})
        drive(trainer, store, owner="train", until=10)
    return results / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The file of a run of the test's own."""
    return Path(shutil.copytree(trained, tmp_path / "run")) / "run.sqlite"


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


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


def test_tables_are_those_that_this_version_writes(run: Path, tmp_path: Path) -> None:
    crafted = {
        "the view 'metrics'": [
            "DROP TABLE metrics",
            f"CREATE VIEW metrics AS {ENDLESS} i AS step, 0.1 AS epoch, -1.0 AS loss, 0.0 AS penalty FROM n",
        ],
        "the trigger 't'": ["CREATE TRIGGER t AFTER UPDATE ON status BEGIN DELETE FROM events; END"],
        "generated": [
            "DROP TABLE metrics",
            "CREATE TABLE metrics (step INTEGER PRIMARY KEY, epoch REAL NOT NULL, loss REAL GENERATED ALWAYS AS "
            "(hex(zeroblob(100000000))) VIRTUAL, penalty REAL NOT NULL)",
        ],
        "a table 'pyramid', found none": ["DROP TABLE pyramid"],
        "the table 'metrics' to hold step INTEGER": ["ALTER TABLE metrics DROP COLUMN penalty"],
        "found 'notes' besides": ["CREATE TABLE notes (text)"],
        "the virtual table 'metrics'": [
            "DROP TABLE metrics",
            "CREATE VIRTUAL TABLE metrics USING fts5(step, epoch, loss, penalty)",
        ],
    }
    for words, statements in crafted.items():
        copy = tmp_path / "crafted.sqlite"
        shutil.copyfile(run, copy)
        for statement in statements:
            craft(copy, statement)
        with pytest.raises(StoreError, match=words) as caught:
            RunStore.open(copy, readonly=True)
        assert str(copy) in str(caught.value)
        assert "expected" in str(caught.value)


def test_text_of_another_encoding(run: Path) -> None:
    """No file of this version has it, and none could be forked from it."""
    data = bytearray(run.read_bytes())
    data[56:60] = (2).to_bytes(4, "big")
    run.write_bytes(data)
    with pytest.raises(StoreError, match="is broken"):
        RunStore.open(run, readonly=True)


def test_names_in_a_file_that_are_no_text(run: Path) -> None:
    """Such a name is in SQLite's own message."""
    with sqlite3.connect(run) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET name = CAST(x'ff6d' AS TEXT), sql = 'CREATE x' WHERE name = 'events'")
    db.close()
    with pytest.raises(StoreError):
        RunStore.open(run, readonly=True)


def test_meta_that_never_ends(run: Path) -> None:
    """It is read first, before the tables are looked at."""
    craft(run, "DROP TABLE meta")
    craft(run, f"CREATE VIEW meta AS {ENDLESS} 'schema' AS key, CASE WHEN i < 0 THEN '2' END AS value FROM n")
    with pytest.raises(StoreError, match="without end"):
        RunStore.open(run, readonly=True)


@pytest.mark.parametrize(
    ("statement", "values", "read", "words"),
    [
        ("UPDATE status SET message = CAST(? AS TEXT)", (b"\xff\xfe",), lambda s: s.status(), "UTF-8"),
        ("UPDATE status SET step = ?", (2**62,), lambda s: s.status(), "step: expected .* found 4611686018427387904"),
        ("UPDATE status SET pid = ?", (2**40,), lambda s: s.status(), "pid"),
        ("UPDATE status SET epoch = ?", (float("inf"),), lambda s: s.status(), "epoch: expected a finite number"),
        ("DELETE FROM status WHERE 1 OR ?", (1,), lambda s: s.status(), "expected one row, found none"),
        ("UPDATE meta SET value = ? WHERE key = 'config'", ("[" * 100_000,), lambda s: s.config(), "nested too deep"),
        ("UPDATE meta SET value = ? WHERE key = 'id'", ("9" * 5000,), lambda s: s.meta("id"), "expected a JSON text"),
        (
            "UPDATE meta SET value = ? WHERE key = 'fingerprints'",
            ('[{"step": "x"}]',),
            lambda s: s.fingerprints(),
            "'x'",
        ),
        ("UPDATE meta SET value = ? WHERE key = 'created'", ('"x"',), summary, "found 'x'"),
        ("UPDATE meta SET value = ? WHERE key = 'created'", ("null",), summary, "date and id"),
        ("DELETE FROM meta WHERE key = ?", ("id",), summary, "date and id"),
        ("UPDATE spectra SET f = zeroblob(?)", (5_000_000,), lambda s: s.spectra(), "too big"),
        ("UPDATE spectra SET f = zeroblob(?)", (1_000_000,), lambda s: s.spectra(), "four curves"),
        ("UPDATE spectra SET f = zeroblob(?)", (0,), lambda s: s.newest_spectrum(), "four curves"),
        ("UPDATE spectra SET wp = ?", (b"\0\0\xc0\x7f" * 8,), lambda s: s.newest_spectrum(), "finite"),
        ("UPDATE metrics SET step = step - ?", (100,), lambda s: s.first_step(), "greater than or equal to 0"),
        ("UPDATE metrics SET loss = ?", (float("inf"),), lambda s: s.recorded_losses(), "found inf"),
        ("UPDATE metrics SET loss = ?", (float("-inf"),), lambda s: s.curve("loss"), "found -inf"),
        ("UPDATE evaluations SET value = ?", (7.0,), lambda s: s.newest_evaluation("knn"), "less than or equal to 1"),
        ("UPDATE events SET changes = ?", ('{"ema": 1e999}',), lambda s: s.events(), "found inf"),
        ("UPDATE events SET changes = ?", ('{"freq": ' + "9" * 400 + "}",), lambda s: s.events(), "999"),
        ("UPDATE commands SET payload = ?", ("[]",), lambda s: s.command(1), "expected a valid dictionary"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_expected(
    statement: str, values: tuple[Any, ...], read: Callable[[RunStore], Any], words: str, run: Path
) -> None:
    craft(run, statement, values)
    with RunStore.open(run, readonly=True) as store, pytest.raises(StoreError, match=words) as caught:
        read(store)
    assert str(run) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_name_inside_a_file_is_a_name(run: Path, tmp_path: Path) -> None:
    """It becomes a file's name where the run is written out."""
    loose = tmp_path / "loose.sqlite"
    shutil.copyfile(run, loose)
    craft(loose, "UPDATE meta SET value = ? WHERE key = 'name'", (json.dumps("../../outside"),))
    with RunStore.open(loose, readonly=True) as store, pytest.raises(StoreError, match="its name cannot be read"):
        assert store.name


def test_a_query_without_end_is_ended(tmp_path: Path) -> None:
    connection = connect(tmp_path / "any.sqlite")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreError, match="without end"), told(tmp_path), Budget(connection).given(100_000):
        connection.execute(endless).fetchall()
    connection.close()


def test_a_file_in_use_is_not_called_broken(run: Path) -> None:
    craft(run, "PRAGMA journal_mode = DELETE")
    with RunStore.open(run) as store:
        store._connection.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(run, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                store.status()
        finally:
            other.close()


def test_a_journal_that_names_another_file_is_not_followed(run: Path, tmp_path: Path) -> None:
    """SQLite would look into the file that it names, and then delete it."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    journal = run.with_name("run.sqlite-journal")
    name = str(victim).encode()
    checksum = sum(name).to_bytes(4, "big")
    journal.write_bytes(
        b"\0" * 512 + name + len(name).to_bytes(4, "big") + checksum + bytes.fromhex("d9d505f920a163d7")
    )
    with pytest.raises(StoreError, match="names another file"):
        RunStore.open(run)
    assert victim.read_text() == "mine"


def test_a_fork_takes_over_no_words_in_the_place_of_numbers(run: Path) -> None:
    craft(run, "UPDATE metrics SET penalty = ? WHERE step = 3", (CRAFTED,))
    with RunStore.open(run, readonly=True) as store, pytest.raises(StoreError, match="expected numbers in its metrics"):
        store.fork("child")
    assert not (run.parents[1] / "child").exists()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "a\0b", "a\n", "é", "-rf", ".x", "a" * 101, "a" * 10**6,
     "engine.sqlite", "ENGINE.sqlite-wal", "engine.log", "engine.seat", "engine.lock"],
)  # fmt: skip
def test_what_is_no_name_of_a_run(name: str, run: Path) -> None:
    results = run.parents[1]
    before = sorted(results.rglob("*"))
    with open_run("run", results) as store:
        for attempt in (
            lambda: check_name(name), lambda: open_run(name, results),
            lambda: RunStore.create(name, store.config(), results), lambda: store.fork(name),
        ):  # fmt: skip
            with pytest.raises(SSLLabError) as caught:
                attempt()
            assert len(str(caught.value)) < 500
    assert sorted(results.rglob("*")) == before


def test_a_folder_that_its_owner_has_linked_is_a_run_of_the_folder(run: Path, tmp_path: Path) -> None:
    """A name leads nowhere else; a link in the results folder is the word of whoever may write there."""
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    (elsewhere / "linked").symlink_to(run.parent)
    with open_run("linked", results_dir(elsewhere)) as store:
        assert store.last_step() == 10


# ------------------------------------------------------------------ checkpoints


def saved(run: Path) -> Path:
    return max((run.parent / "checkpoints").iterdir())


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["correlation"].update(shape=[2**40, 2**40]), "within the file"),
        (lambda h: h["correlation"].update(shape=[4]), "expected 16 bytes for 'correlation', found 256"),
        (lambda h: h["correlation"].update(dtype="F4"), "F4"),
        (lambda h: h["correlation"].update(data_offsets=[0]), "not enough values"),
        (lambda h: h.update(__metadata__={}), "not written by ssl-lab"),
        (lambda h: h.update(__metadata__={"ssl_lab": "[1]"}), "expected a JSON object"),
        (lambda h: h.update(__metadata__={"ssl_lab": "[" * 100_000}), "nested too deep"),
        (lambda h: h.update(__metadata__={"ssl_lab": '{"events": -1}'}), "found -1"),
        (lambda h: [h], "expected a header that is a JSON object"),
    ],
)
def test_a_checkpoints_header_is_held_against_the_file(change: Callable[[Any], Any], words: str, run: Path) -> None:
    path = saved(run)
    rewritten(path, change)
    with pytest.raises(StoreError, match=words) as caught:
        checkpoint.load_state(path)
    assert str(path) in str(caught.value)


def test_a_header_of_any_length_takes_no_memory(run: Path) -> None:
    whole = saved(run).read_bytes()
    for length in (0, 10**8, 2**63, 2**64 - 1):
        saved(run).write_bytes(length.to_bytes(8, "little") + whole[8:])
        with pytest.raises(StoreError, match="expected a header of 2 to"):
            checkpoint.load_state(saved(run))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s["counters"].update(step=-1), "its 'step' should be a whole number from 0 on and is -1"),
        (lambda s: s["counters"].update(step=True), "its 'step' should be"),
        (lambda s: s["counters"].pop("knobs"), "its 'knobs' should be"),
        (lambda s: s["counters"].update(knobs={"predictor": "x"}), "cannot be 'x'"),
        (lambda s: s["counters"].update(holds_mlp=1), "true or false and is 1"),
        (lambda s: s["tensors"].update(correlation=torch.zeros(8, 8, dtype=torch.float64)), "of float32 and is"),
        (lambda s: s["tensors"].update(x=torch.zeros(1)), "'x' has no place"),
        (lambda s: s["tensors"].pop("online.encoder.0.weight", None) or s["tensors"].pop("correlation"), "it has no"),
    ],
)
def test_a_state_is_taken_over_whole_or_not_at_all(
    spoil: Callable[[Any], Any], words: str, make_trainer: Callable[..., Trainer]
) -> None:
    trainer, other = make_trainer(), make_trainer(seed=1)
    other.step()
    before, state = trainer.state_dict(), other.state_dict()
    spoil(state)
    with pytest.raises(SSLLabError, match=words):
        trainer.load_state_dict(state)
    after = trainer.state_dict()
    assert before["counters"] == after["counters"]
    assert all(torch.equal(before["tensors"][name], after["tensors"][name]) for name in before["tensors"])


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "text",
    ["ema=" + "9" * 5000, "ema=" + "[" * 100_000, "ema=NaN", "ema=[1]", "ema={}", "\ud800=1", "x" * 10**6 + "=1"],
)
def test_words_that_are_no_knobs(text: str) -> None:
    with pytest.raises(KnobError) as caught:
        parse_knobs(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "fields",
    [{"preset": None}, {"preset": []}, {"preset": "byol", "dataset": 3}, {"preset": "byol", "dataset": "a\0b"},
     {"preset": "byol", "image_size": "x"}, {"preset": "byol", "dataset": "x" * 10**6},
     {"preset": "byol", "width": 10**400}],
)  # fmt: skip
def test_settings_of_another_kind(fields: dict[str, Any]) -> None:
    name = fields.pop("preset")
    with pytest.raises(ConfigError) as caught:
        preset(name, **fields)
    assert len(str(caught.value)) < 1000


def test_settings_are_checked_together_wherever_they_come_from(run: Path) -> None:
    with pytest.raises(ConfigError, match="probe_layers"):
        make_config(projector_layers=1, probe_layers=3)
    craft(run, "UPDATE meta SET value = json_set(value, '$.probe_layers', 7) WHERE key = 'config'")
    with RunStore.open(run, readonly=True) as store, pytest.raises(StoreError, match="probe_layers"):
        store.config()


@pytest.mark.parametrize("device", ["meta", "x", "cuda:99999999999999999999", "cuda:-5", "mps", "", "\0"])
def test_a_device_that_cannot_be(device: str, make_trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(ConfigError, match="device"):
        make_trainer(device=device)


def test_what_is_repeated_in_a_message_is_short() -> None:
    assert shown("x" * 10**6).endswith("...")
    assert len(shown(["x"] * 1000)) < 200
    assert "too large" in shown(10**5000)
    assert shown(3) == "3"


def test_a_parent_with_other_fields_is_refused_in_words(run: Path) -> None:
    parent = json.dumps({"name": "a", "id": "b", "step": 1, "events": 0, "..": 1})
    craft(run, "INSERT OR REPLACE INTO meta VALUES ('parent', ?)", (parent,))
    with (
        RunStore.open(run, readonly=True) as store,
        pytest.raises(SSLLabError, match=r"its (parent|entry).* cannot be"),
    ):
        _ = store.parent


@pytest.mark.parametrize("error", [MemoryError(), UnicodeDecodeError("utf-8", b"\x80", 0, 1, "invalid start byte")])
def test_what_sqlite_stumbles_over_is_said_to_be_broken(
    error: Exception, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SSLLabError, match="is not a run's file, or is broken"), told(run):
        raise error
    # Also while a copy is made of a file whose journal lies beside it, where nothing can be written.
    shutil.copyfile(run, tmp_path / "copy.sqlite")
    (tmp_path / "copy.sqlite-wal").write_bytes(b"journal")

    class Stumbling:
        def execute(self, _: str) -> None:
            raise error

        def close(self) -> None:
            return

    monkeypatch.setattr("ssl_lab.mirror.connect", lambda _: Stumbling())
    mirror = Mirror(tmp_path / "copy.sqlite")
    with pytest.raises(SSLLabError, match="is broken"):
        mirror.look()
    mirror.close()
