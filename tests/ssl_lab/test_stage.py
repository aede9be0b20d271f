"""The stage: whole copies of a run in a folder that others only read, and no way from there to the run itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lab import keep, preset, stage
from ssl_lab.errors import SSLLabError, WriteError
from ssl_lab.spectrum import Spectrum
from ssl_lab.stage import Attendant, Audience
from ssl_lab.store import Metrics, RunStore


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def rows(count: int, first: int = 1) -> list[Metrics]:
    return [Metrics(i, i / 10, 1 / i, 0.0) for i in range(first, first + count)]


def stepped(store: RunStore, upto: int) -> None:
    """Steps as a driver records them: metrics, a spectrum, and the status with its step, in one transaction."""
    last = store.last_step()
    with store.transaction():
        store.add_metrics(rows(upto - last, last + 1))
        values = np.linspace(1.0, 0.1, 4)
        store.add_spectrum(upto, upto / 10, Spectrum(values, values, values, values, 0.0, 3.0))
        store.set_status(state="running", step=upto)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create("lesson", preset("directpred"), tmp_path / "instructor") as store:
        stepped(store, 10)
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


@pytest.fixture
def attendant(run: RunStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attendant]:
    monkeypatch.setattr(stage, "CADENCE", 0.05)
    monkeypatch.setattr(stage, "BEAT", 0.3)
    monkeypatch.setattr(stage, "LEND", 0.05)
    monkeypatch.setattr(stage, "LOOK", 0.02)
    here = Attendant(run, folder)
    yield here
    here.close()


def look(folder: Path) -> RunStore:
    audience = Audience(folder)
    program = audience.look()
    assert program is not None
    return audience.open(program)


# ---------------------------------------------------------------- what those who look see


def test_nothing_is_on_an_empty_stage(folder: Path) -> None:
    assert stage.on_stage(folder) is None
    assert Audience(folder).look() is None
    assert stage.wish(folder) is None


def test_a_run_on_stage_is_followed_live(run: RunStore, folder: Path, attendant: Attendant) -> None:
    stage.show(run, folder)
    program = stage.on_stage(folder)
    assert program is not None
    assert (program.run, program.id, program.step, program.state) == ("lesson", run.meta("id"), 10, "running")
    with look(folder) as seen:
        assert seen.name == "lesson"
        assert seen.last_step() == 10
        # Live: the state is the run's own, and nothing of the machine that steps it.
        status = seen.status()
        assert (status.state, status.host, status.pid) == ("running", None, None)
        for upto in (20, 35):
            stepped(run, upto)
            until(lambda: (seen.refresh(), seen.last_step())[1] == upto)  # noqa: B023
            newest = seen.newest_spectrum()
            assert newest is not None
            assert newest.step == upto
        run.add_event(35, {"predictor": "directpred"}, {"predictor": "none"}, "page")
        run.set_status(knobs=run.config().knobs.changed({"predictor": "none"}))
        until(lambda: (seen.refresh(), len(seen.events()))[1] == 1)
        assert seen.status().knobs.predictor == "none"
        assert seen.altered_event() is None


def test_the_run_goes_on_because_it_is_shown(run: RunStore, folder: Path, attendant: Attendant) -> None:
    assert run.status().viewer == 0
    time.sleep(0.2)
    assert run.status().viewer == 0
    stage.show(run, folder)
    until(lambda: run.status().viewer > 0)


def test_signs_of_life_come_while_nothing_changes(run: RunStore, folder: Path, attendant: Attendant) -> None:
    stage.show(run, folder)
    first = stage.on_stage(folder)
    assert first is not None
    file = stage.run_on_stage(folder, "lesson")
    until(lambda: stage.on_stage(folder).time > first.time + 0.25)  # type: ignore[union-attr]
    stamp = file.stat().st_mtime_ns
    latest = stage.on_stage(folder)
    assert latest is not None
    # A beat of the driver is nothing to be seen, and no reason for another copy.
    run.set_status()
    until(lambda: stage.on_stage(folder).time > latest.time)  # type: ignore[union-attr]
    assert file.stat().st_mtime_ns == stamp


def test_the_driver_s_last_word_is_shown(run: RunStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Attendant(run, folder)
    stage.show(run, folder)
    stepped(run, 12)
    run.set_status(state="asleep")
    here.close()
    program = stage.on_stage(folder)
    assert program is not None
    assert (program.step, program.state) == (12, "asleep")
    assert not program.moves


def test_who_has_gone_is_noticed(run: RunStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.show(run, folder)
    audience = Audience(folder)
    now = time.monotonic()
    monkeypatch.setattr(stage.time, "monotonic", lambda: now)
    audience.look()
    assert audience.left_alone == 0
    monkeypatch.setattr(stage.time, "monotonic", lambda: now + 100)
    assert audience.left_alone == pytest.approx(100, abs=5)
    # A run that was paused on purpose stands, and that is all.
    stage.withdraw(run.folder.parent, folder)
    run.set_status(state="paused")
    stage.show(run, folder)
    audience.look()
    monkeypatch.setattr(stage.time, "monotonic", lambda: now + 300)
    assert audience.left_alone == 0


# ---------------------------------------------------------------- on and off


def test_what_is_withdrawn_is_gone_for_those_who_come(run: RunStore, folder: Path, attendant: Attendant) -> None:
    stage.show(run, folder)
    with look(folder) as seen:
        stage.withdraw(run.folder.parent, folder)
        assert stage.on_stage(folder) is None
        assert not (folder / "lesson").exists()
        stepped(run, 30)
        # Whoever followed keeps the last copy, and may fork it.
        seen.overtaken()
        seen.refresh()
        assert seen.last_step() == 10
        with seen.fork("own", 5, results=run.folder.parent.parent / "student") as fork:
            assert fork.last_step() == 5
    time.sleep(0.3)
    assert sorted(path.name for path in folder.iterdir()) == [".stage.lock", "stage.json"]


def test_another_run_takes_the_place(run: RunStore, folder: Path, attendant: Attendant) -> None:
    stage.show(run, folder)
    with RunStore.create("second", preset("byol"), run.folder.parent) as second:
        second.add_metrics(rows(3))
        stage.show(second, folder)
    stepped(run, 40)
    time.sleep(0.3)
    program = stage.on_stage(folder)
    assert program is not None
    assert program.run == "second"
    assert sorted(path.name for path in folder.iterdir()) == [".stage.lock", "second", "stage.json"]


def test_a_run_that_takes_a_name_over_is_not_shown_unasked(
    run: RunStore, folder: Path, attendant: Attendant, tmp_path: Path
) -> None:
    stage.show(run, folder)
    attendant.close()
    results = run.folder.parent
    # It went without a word to the stage, as whoever removes its folder by hand has it.
    run.folder.rename(tmp_path / "grave")
    with RunStore.create("lesson", preset("byol"), results) as other:
        other.add_metrics(rows(3))
        here = Attendant(other, folder)
        time.sleep(0.3)
        here.close()
        program = stage.on_stage(folder)
        assert program is not None
        assert (program.id, program.step) == (run.meta("id"), 10)
        assert other.status().viewer == 0
        # What was deleted takes down itself alone.
        stage.forget(results, "lesson", str(other.meta("id")))
        assert stage.on_stage(folder) is not None
        stage.forget(results, "lesson", program.id)
        assert stage.on_stage(folder) is None
        assert stage.wish(results) is None
        assert not (folder / "lesson").exists()


def test_no_checkpoint_of_another_run_stays_beside_a_copy(run: RunStore, folder: Path, tmp_path: Path) -> None:
    stage.show(run, folder)
    (folder / "lesson" / keep.FOLDER).mkdir(exist_ok=True)
    keep.kept_path(folder / "lesson", 5, 0).write_bytes(b"weights of another run")
    wanted = stage.wish(run.folder.parent)
    assert wanted is not None
    stage._put(run, folder, wanted)
    assert keep.kept(folder / "lesson")
    # Somebody puts another run of that name there while nobody looks.
    with RunStore.create("lesson", preset("byol"), tmp_path / "other") as other:
        stage._put(other, folder, replace(wanted, id=str(other.meta("id"))))
    assert keep.kept(folder / "lesson") == []


def test_two_who_show_do_not_fight(run: RunStore, folder: Path, attendant: Attendant, tmp_path: Path) -> None:
    """The one who came last has the stage; the first one's driver and page leave it alone."""
    stage.show(run, folder)
    with RunStore.create("lesson", preset("byol"), tmp_path / "other") as other:
        other.add_metrics(rows(3))
        stage.show(other, folder)
        stepped(run, 50)
        time.sleep(0.3)
        stage.withdraw(run.folder.parent, folder)
        program = stage.on_stage(folder)
        assert program is not None
        assert program.id == other.meta("id")
        with look(folder) as seen:
            assert seen.last_step() == 3


def test_a_broken_program_is_nobody_s_end(run: RunStore, folder: Path) -> None:
    stage.show(run, folder)
    audience = Audience(folder)
    good = audience.look()
    for text in ("{", '{"run": "../../etc"}', json.dumps({**vars(good), "run": "../other"}), "[1]", "9" * 20_000):
        (folder / "stage.json").write_text(text)
        with pytest.raises(SSLLabError):
            stage.on_stage(folder)
        assert audience.look() == good


# ---------------------------------------------------------------- nothing goes back


def test_nothing_can_be_asked_of_a_run_on_stage(run: RunStore, folder: Path, attendant: Attendant) -> None:
    stage.show(run, folder)
    with look(folder) as seen:
        for write in (
            lambda: seen.send("pause"),
            lambda: seen.set_status(state="paused"),
            lambda: seen.touch_viewer(),
            lambda: seen.claim("engine"),
        ):
            with pytest.raises(WriteError, match="for reading only"):
                write()
    # Where all are one user of the system, the copy could be written: it is not opened for that ...
    with pytest.raises(SSLLabError, match="a copy by which others follow a run"):
        RunStore.open(folder / "lesson")
    # ... and whoever writes into it all the same has written to a copy.
    forged = sqlite3.connect(folder / "lesson" / "run.sqlite")
    forged.execute("INSERT INTO commands (time, kind, payload, origin) VALUES (0, 'pause', '{}', 'page')")
    forged.commit()
    forged.close()
    stepped(run, 11)
    until(lambda: stage.on_stage(folder).step == 11)  # type: ignore[union-attr]
    assert run.waiting() == []
    with look(folder) as seen:
        assert seen.waiting() == []


def test_what_the_owner_alone_needs_is_not_shown(run: RunStore, folder: Path) -> None:
    run.set_meta("keeper", "secret-digest")
    run.send("set", {"lr": 0.123456789})
    stage.show(run, folder)
    raw = stage.run_on_stage(folder, "lesson").read_bytes()
    assert b"secret-digest" not in raw
    assert b"0.123456789" not in raw


def test_no_lock_and_no_file_is_left_where_others_look(run: RunStore, folder: Path) -> None:
    stage.show(run, folder)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    # Held as SQLite would hold it for writing: those who follow do not ask.
    holder = sqlite3.connect(folder / "lesson" / "run.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with look(folder) as seen, seen.fork("own", results=run.folder.parent.parent / "student") as fork:
            assert fork.last_step() == 10
    finally:
        holder.close()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


AS_NOBODY = """
import os, sys
from pathlib import Path
from ssl_lab import preset, stage
from ssl_lab.errors import SSLLabError
from ssl_lab.store import RunStore

def follow_and_fork(own):
    audience = stage.Audience(folder)
    with audience.open(audience.look()) as store, store.fork("mine", 7, results=own) as fork:
        return fork.last_step(), [path.name for path in (own / "mine" / "checkpoints").iterdir()]

folder, own, rehearsal = map(Path, sys.argv[1:])
# Once before: what Python loads only then may lie where nobody may read.
follow_and_fork(rehearsal)
os.setgid(65534)
os.setuid(65534)
print(*follow_and_fork(own))
with RunStore.create("show", preset("byol"), own) as mine:
    try:
        stage.show(mine, folder)
    except SSLLabError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_of_the_system_only_reads(run: RunStore, folder: Path, tmp_path: Path) -> None:
    """What a class gets with users of its own: the stage can be read and not written."""
    (run.folder / keep.FOLDER).mkdir()
    keep.kept_path(run.folder, 5, 0).write_bytes(b"weights")
    stage.show(run, folder)
    stage.lend(run.folder, folder / "lesson", set())
    with tempfile.TemporaryDirectory() as place:
        # pytest's own folders are its user's alone.
        Path(place).chmod(0o755)
        shutil.copytree(folder, Path(place) / "stage")
        own = Path(place) / "student"
        own.mkdir()
        os.chown(own, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(Path(place) / "stage"), str(own), str(tmp_path / "rehearsal")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "7 ['00000005-0.safetensors']"
    assert "cannot be written" in second


# ---------------------------------------------------------------- whole, whatever happens


def test_every_copy_is_whole_while_the_run_grows(run: RunStore, folder: Path, attendant: Attendant) -> None:
    """A driver that writes all the time, and readers that look all the time: never half a state."""
    stage.show(run, folder)
    stop = threading.Event()

    def drive() -> None:
        with RunStore.open(run.path) as own:
            step = 10
            # Not so fast that on a busy machine the file outgrows what a reader's query may take.
            while not stop.wait(0.005):
                step += 7
                stepped(own, step)

    driver = threading.Thread(target=drive)
    driver.start()
    seen_steps = set()
    try:
        with look(folder) as seen:
            deadline = time.monotonic() + 60
            while len(seen_steps) < 8 and time.monotonic() < deadline:
                seen.overtaken()
                seen.refresh()
                status, newest = seen.status(), seen.newest_spectrum()
                assert newest is not None
                # Written in one transaction: they are of one moment.
                assert seen.last_step() == status.step == newest.step
                assert seen._rows("PRAGMA integrity_check") == [("ok",)]
                seen_steps.add(status.step)
    finally:
        stop.set()
        driver.join()
    assert len(seen_steps) >= 8


def test_who_is_killed_while_copying_leaves_a_whole_copy(run: RunStore, folder: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from ssl_lab import stage
        from ssl_lab.store import RunStore
        with RunStore.open(sys.argv[1]) as store:
            stage.show(store, Path(sys.argv[2]))
            wanted = stage.wish(store.folder.parent)
            print("shown", flush=True)
            while True:
                stage._put(store, Path(sys.argv[2]), wanted)
    """)
    run.add_metrics(rows(30_000))
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(run.path), str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "shown\n"
        time.sleep(0.05 + 0.1 * np.random.default_rng().random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with look(folder) as seen:
            assert seen.last_step() == 30_000
            assert seen._rows("PRAGMA integrity_check") == [("ok",)]
    # A lock is given back with its process, so that the next one shows.
    stage.show(run, folder)
    assert [path.name for path in (folder / "lesson").iterdir()] == ["run.sqlite"]


def test_a_larger_file_is_copied_less_often(run: RunStore, folder: Path) -> None:
    stage.show(run, folder)
    small = stage.on_stage(folder)
    run.add_metrics(rows(120_000))
    stage.show(run, folder)
    large = stage.on_stage(folder)
    assert small is not None
    assert large is not None
    size = stage.run_on_stage(folder, "lesson").stat().st_size
    assert size > 3_000_000
    # Nobody who follows has to read more than this a second.
    assert large.period >= size / stage.READ_RATE - 0.001
    assert large.period > small.period


# ---------------------------------------------------------------- checkpoints


def test_checkpoints_are_lent_within_a_bound(run: RunStore, folder: Path) -> None:
    (run.folder / keep.FOLDER).mkdir()
    stage.show(run, folder)
    for step in range(100, 1100, 100):
        keep.kept_path(run.folder, step, 0).write_bytes(b"x" * 1000)
    place = folder / "lesson"
    stage.lend(run.folder, place, {300}, limit=4000)
    there = keep.kept(place)
    assert sum(c.bytes for c in there) <= 4000
    # The newest, and the one at a knob event.
    assert {1000, 300} <= {c.step for c in there}
    # Copies: whoever could write on the stage would not write into the run.
    assert all(c.path.stat().st_nlink == 1 for c in there)
    # What the run has let go of goes here too.
    for checkpoint in keep.kept(run.folder):
        if checkpoint.step != 1000:
            checkpoint.path.unlink()
    stage.lend(run.folder, place, {300}, limit=4000)
    assert [c.step for c in keep.kept(place)] == [1000]


def test_a_fork_of_what_is_shown_shares_no_file_with_it(run: RunStore, folder: Path, tmp_path: Path) -> None:
    (run.folder / keep.FOLDER).mkdir()
    keep.kept_path(run.folder, 8, 0).write_bytes(b"weights")
    stage.show(run, folder)
    stage.lend(run.folder, folder / "lesson", set())
    with look(folder) as seen, seen.fork("own", 9, results=tmp_path / "student") as fork:
        assert fork.parent is not None
        assert (fork.parent.name, fork.parent.id, fork.parent.step) == ("lesson", run.meta("id"), 9)
        (mine,) = keep.kept(fork.folder)
        assert (mine.step, mine.path.stat().st_nlink) == (8, 1)
        # A run like any other.
        fork.send("run")
    RunStore.open(tmp_path / "student" / "own").close()
    with RunStore.open(tmp_path / "student" / "own") as fork:
        assert fork.meta("staged") is None


def test_an_export_of_what_is_shown_is_a_file_like_any_other(run: RunStore, folder: Path, tmp_path: Path) -> None:
    stage.show(run, folder)
    with look(folder) as seen:
        seen.copy_to(tmp_path / "export.sqlite")
    RunStore.open(tmp_path / "export.sqlite").close()


def test_a_stage_that_cannot_be_written_is_said_and_the_run_goes_on(
    run: RunStore, folder: Path, attendant: Attendant, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        stage.show(run, tmp_path / "file" / "stage")
    stage.show(run, folder)
    (folder / "lesson" / "run.sqlite").unlink()
    (folder / "lesson").rename(folder / "away")
    (folder / "lesson").write_text("in the way")
    stepped(run, 20)
    time.sleep(0.2)
    (folder / "lesson").unlink()
    (folder / "away").rename(folder / "lesson")
    assert attendant._thread.is_alive()


# ---------------------------------------------------------------- what a stage never touches


@pytest.mark.parametrize("where", [".", "..", "stage", "lesson", "../again"])
def test_a_stage_among_the_runs_is_refused(
    run: RunStore, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However its path is spelled: showing a run would write over it, and showing another would remove it."""
    results = run.folder.parent
    (tmp_path / "again").symlink_to(results)
    RunStore.create("other", preset("byol"), results).close()
    with RunStore.open(results / "other") as other:
        for store in (run, other):
            with pytest.raises(SSLLabError, match="Set SSL_LAB_STAGE to a folder of its own"):
                stage.show(store, results / where)
    assert {path.name for path in results.iterdir()} == {"lesson", "other"}
    assert run.losses().tolist() == [1 / i for i in range(1, 11)]
    assert not run.vanished()
    # Whoever drives goes on without a stage.
    monkeypatch.setenv(stage.WHERE, str(results / where))
    assert stage.attend(run) is None


def test_a_run_of_somebody_else_s_on_the_stage_is_left_alone(run: RunStore, folder: Path) -> None:
    """Results of another owner lie where the stage is: no clean-up and no copy reaches them."""
    for name in ("lesson", "theirs"):
        with RunStore.create(name, preset("byol"), folder) as store:
            store.add_metrics(rows(3))
            with pytest.raises(SSLLabError, match="was not put on stage") if name == "lesson" else nullcontext():
                stage._clear(folder, name)
                if name == "lesson":
                    stage.show(run, folder)
            assert not store.vanished()
            assert store.last_step() == 3
    assert stage.wish(run.folder.parent) is None


def test_of_a_folder_on_stage_only_what_was_put_there_goes(run: RunStore, folder: Path) -> None:
    stage.show(run, folder)
    other = folder / "lesson" / "notes.txt"
    other.write_text("Mine.")
    stage.withdraw(run.folder.parent, folder)
    assert [path.name for path in (folder / "lesson").iterdir()] == ["notes.txt"]
    other.unlink()
    stage.show(run, folder)
    stage.withdraw(run.folder.parent, folder)
    assert not (folder / "lesson").exists()


def test_what_could_not_be_put_on_stage_is_not_wished_for(
    run: RunStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish comes before the word of what is on stage, which nobody could take down without it."""
    seen: list[Any] = []

    def full(*_: Any) -> float:
        seen.append(stage.wish(run.folder.parent))
        raise WriteError("The disk is full.")

    for before in (None, "lesson"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, "_put", full)
            with pytest.raises(WriteError):
                stage.show(run, folder)
        wanted = stage.wish(run.folder.parent)
        assert (wanted and wanted.run) == before
        assert seen[-1] is not None
        assert seen[-1] != wanted
        if before is None:
            stage.show(run, folder)
    stage.withdraw(run.folder.parent, folder)
    assert stage.on_stage(folder) is None
