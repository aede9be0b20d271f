"""The run's file: what is written is read back, by others too; names and files that cannot be are refused."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ssl_lab import RunStore, preset
from ssl_lab.errors import RunExistsError, RunMissingError, SSLLabError
from ssl_lab.spectrum import spectrum
from ssl_lab.store import Metrics, free_name, list_runs, open_run, results_dir

CONFIG = preset("directpred", seed=3)


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with RunStore.create("first", CONFIG, tmp_path) as made:
        yield made


def rows(count: int, first: int = 1) -> list[Metrics]:
    return [Metrics(step, step / 11, -step / 1000, 0.0) for step in range(first, first + count)]


def test_a_new_run_is_queued_with_its_config(store: RunStore, tmp_path: Path) -> None:
    assert store.config() == CONFIG
    assert (store.status().state, store.status().step, store.status().knobs) == ("queued", 0, CONFIG.knobs)
    assert store.path == tmp_path / "first" / "run.sqlite"
    with sqlite3.connect(store.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_a_name_is_not_taken_twice(store: RunStore, tmp_path: Path) -> None:
    store.add_metrics(rows(3))
    with pytest.raises(RunExistsError, match=r"first.*--resume.*--overwrite"):
        RunStore.create("first", CONFIG, tmp_path)
    assert store.last_step() == 3
    store.close()
    with RunStore.create("first", CONFIG, tmp_path, overwrite=True) as new:
        assert new.last_step() == 0
    assert [p.name for p in (tmp_path / "first").glob(".*")] == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 101])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SSLLabError, match="cannot be called"):
        RunStore.create(name, CONFIG, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_foreign_files(tmp_path: Path, store: RunStore) -> None:
    with pytest.raises(RunMissingError, match=r"'second'.*first"):
        open_run("second", tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.sqlite").write_text("hello, this is not a database at all, only text")
    with pytest.raises(SSLLabError, match="not a run's file"):
        open_run("text", tmp_path)
    store.set_meta("schema", 99)
    with pytest.raises(SSLLabError, match="99"):
        open_run("first", tmp_path)


def test_steps_redone_after_a_crash_are_written_over(store: RunStore) -> None:
    store.add_metrics(rows(10))
    store.add_metrics(rows(10, first=6))
    assert store.last_step() == 15
    assert len(store.losses()) == 15


def test_a_spectrum_comes_back(store: RunStore) -> None:
    f = np.diag([4.0, 1.0, 0.0])
    wp = np.array([[1.0, 0.2, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    found = spectrum(f, wp)
    store.add_metrics(rows(9))
    store.add_spectrum(7, 0.5, found)
    store.add_spectrum(7, 0.5, spectrum(wp, f))  # once a step
    (record,) = store.spectra()
    assert (record.step, record.epoch, record.number) == (7, 0.5, 1)
    for name in ("f_eigenvalues", "wp_eigenvalues", "alignment", "wp_diagonal"):
        np.testing.assert_allclose(getattr(record.spectrum, name), getattr(found, name), rtol=1e-6, atol=1e-7)
    assert record.spectrum.asymmetry == found.asymmetry
    assert record.spectrum.effective_rank == found.effective_rank
    assert store.newest_spectrum() is not None
    for curve in ("asymmetry", "effective_rank", "aligned"):
        steps, values = store.curve(curve)
        assert (steps.tolist(), values.tolist()) == ([7.0], [getattr(found, curve)])
    store.add_spectrum(9, 0.7, spectrum(wp, f))
    assert [store.newest_spectrum(upto).step for upto in (7, 8, 9, None)] == [7, 7, 9, 9]  # type: ignore[union-attr]
    assert store.newest_spectrum(6) is None


def test_evaluations(store: RunStore) -> None:
    assert store.newest_evaluation("knn") is None
    store.add_metrics(rows(1000))
    for step in range(1, 1001):
        store.add_evaluation(step, "knn", step / 1000)
    store.add_evaluation(5, "probe", 0.5)
    steps, values = store.curve("knn", points=50)
    assert 25 <= len(steps) <= 54
    assert (values[0], values[-1]) == (0.001, 1.0)
    assert store.newest_evaluation("knn") == (1000, 1.0)
    assert store.newest_evaluation("knn", upto=77) == (77, 0.077)


def test_events_are_numbered_and_say_what_changed(store: RunStore) -> None:
    store.add_event(10, {"predictor": "directpred", "ema": 0.996}, {"predictor": "none", "ema": 0.5}, "page")
    store.add_event(20, {"stop_gradient": True}, {"stop_gradient": False}, "page")
    first, second = store.events()
    assert (first.number, first.step, second.number) == (1, 10, 2)
    assert first.describe() == "predictor directpred → none, ema 0.996 → 0.5"
    assert second.describe() == "stop_gradient on → off"
    assert store.events(after=1) == [second]
    assert store.events(until=19) == [first]
    assert store.altered_event() is None
    assert store.knobs_after(1) == CONFIG.knobs.changed(first.changes)


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("DELETE FROM events WHERE number = 1", 1),
        ("DELETE FROM events WHERE number = 3", 3),
        ("UPDATE events SET step = 11 WHERE number = 2", 2),
        ("""UPDATE events SET changes = '{"ema": 0.25}' WHERE number = 3""", 3),
        ("INSERT INTO events SELECT 4, step, time, changes, before, origin, digest FROM events WHERE number = 3", 4),
        ("DELETE FROM events", 1),
    ],
)
def test_events_that_were_altered_are_found_out(statement: str, number: int, store: RunStore) -> None:
    for value in (0.5, 0.6, 0.7):
        store.add_event(10, {"ema": 0.9}, {"ema": value}, "page")
    assert store.altered_event() is None
    with store.transaction() as db:
        db.execute(statement)
    assert store.altered_event() == number


def test_commands_wait_until_answered(store: RunStore, tmp_path: Path) -> None:
    with open_run("first", tmp_path) as page:
        assert store.changed_elsewhere()
        assert not store.changed_elsewhere()
        number = page.send("set", {"ema": 7})
        page.send("pause")
        assert store.changed_elsewhere()
        turn, pause = store.waiting()
        assert (turn.kind, turn.payload, pause.kind) == ("set", {"ema": 7}, "pause")
        store.answer(turn, 4, refused="no")
        store.answer(pause, 4)
        assert store.waiting() == []
        assert page.command(number).answer == "no"
        assert [c.id for c in page.refused()] == [number]
        assert page.refused(after=number) == []


def test_a_transaction_is_whole_or_nothing(store: RunStore) -> None:
    def half() -> None:
        with store.transaction():
            store.add_metrics(rows(3))
            store.set_status(step=3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert (store.last_step(), store.status().step) == (0, 0)


def test_many_readers_and_one_writer(store: RunStore, tmp_path: Path) -> None:
    """Readers in other threads see a count that only grows while rows are being written."""
    done, wrong = threading.Event(), []

    def read() -> None:
        last = 0
        with open_run("first", tmp_path, readonly=True) as page:
            while not done.is_set():
                now = page.last_step()
                if now < last:
                    wrong.append((last, now))
                last = now

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for block in range(60):
        store.add_metrics(rows(10, first=1 + 10 * block))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert store.last_step() == 600


def test_only_one_process_drives(store: RunStore) -> None:
    """A run is claimed by a living process; one that died leaves no claim behind."""
    assert not store.driven()
    code = (
        "import sys; from ssl_lab.store import RunStore; s = RunStore.open(sys.argv[1]); s.claim('train');"
        "print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        assert store.driven()
        with pytest.raises(SSLLabError, match=str(other.pid)):
            store.claim("engine")
        with pytest.raises(SSLLabError, match="being trained"):
            RunStore.create("first", CONFIG, store.folder.parent, overwrite=True)
        other.kill()
        # Not waited for yet: a process that ended still has its number, but drives nothing.
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not store.driven()
    assert not store.driven()
    store.claim("engine")
    assert store.status().owner == "engine"
    store.release()
    assert store.status().pid is None


def test_the_list_of_runs(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_evaluation(5, "knn", 0.75)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "run.sqlite").write_text("junk that is long enough to look like a file of something")
    RunStore.create("directpred-1", CONFIG, tmp_path).close()
    assert [run.name for run in list_runs(tmp_path)] == ["directpred-1", "first"]
    assert list_runs(tmp_path)[1].knn == 0.75
    assert free_name("directpred", tmp_path) == "directpred-2"
    monkeypatch.setenv("SSL_LAB_RESULTS", str(tmp_path))
    assert results_dir() == tmp_path
    assert results_dir(tmp_path / "x") == tmp_path / "x"


def test_the_config_is_readable_json(store: RunStore) -> None:
    with sqlite3.connect(store.path) as db:
        ((text,),) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchall()
    db.close()
    assert json.loads(text)["knobs"]["predictor"] == "directpred"


def test_a_process_number_given_anew_drives_nothing(store: RunStore, tmp_path: Path) -> None:
    store.claim("engine")
    store.set_status(state="running")
    assert store.driven()
    assert list_runs(tmp_path)[0].status.state == "running"
    store.close()
    # The status still says that this process drives it, which lives and does not.
    with RunStore.open(tmp_path / "first") as again:
        assert again.status().pid == os.getpid()
        assert not again.driven()
        assert list_runs(tmp_path)[0].status.state == "asleep"
        again.claim("train")


@pytest.mark.parametrize("heartbeat", [0.0, 4e9])
def test_a_clock_that_jumps_hands_a_run_to_nobody_else(heartbeat: float, store: RunStore, tmp_path: Path) -> None:
    store.claim("engine")
    store.set_status(state="running", heartbeat=heartbeat)
    with RunStore.open(store.path) as other:
        assert other.driven()
        with pytest.raises(SSLLabError, match="ssl-lab watch first"):
            other.claim("train")
    assert list_runs(tmp_path)[0].status.state == "running"
    # On another machine there is only the heartbeat, by clocks that need not agree.
    store.set_status(host="far", heartbeat=time.time() + 60)
    assert store.driven()
    store.set_status(host="far", heartbeat=heartbeat)
    assert not store.driven()


def test_a_run_whose_file_was_removed_or_replaced_is_found_out(store: RunStore, tmp_path: Path) -> None:
    assert not store.vanished()
    store.path.rename(tmp_path / "elsewhere.sqlite")
    assert store.vanished()
    (tmp_path / "elsewhere.sqlite").rename(store.path)
    assert not store.vanished()
    other = store.path.with_name("other")
    other.write_bytes(store.path.read_bytes())
    other.replace(store.path)
    assert store.vanished()


def test_what_an_old_run_left_is_not_the_new_ones(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    for name in ("encoder.safetensors", "run.sqlite-wal", "notes.txt"):
        (folder / name).write_text("old")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "00000003-0.safetensors").write_text("old")
    RunStore.create("first", CONFIG, tmp_path).close()
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("run.sqlite-")) == [
        "notes.txt",
        "run.sqlite",
    ]


def test_an_event_that_is_logged_meanwhile_does_not_look_like_an_altered_one(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_event(0, {"ema": 0.5}, {"ema": 0.6}, "page")
    read = store.events

    def read_slowly(after: int = 0, until: int | None = None):  # type: ignore[no-untyped-def]
        found = read(after, until)
        with RunStore.open(store.path) as driver:
            driver.add_event(1, {"ema": 0.6}, {"ema": 0.7}, "page")
        return found

    monkeypatch.setattr(store, "events", read_slowly)
    assert store.altered_event() is None
    monkeypatch.undo()
    assert store.altered_event() is None
    assert len(store.events()) == 2
