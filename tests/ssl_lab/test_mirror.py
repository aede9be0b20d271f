"""A run's file is read where nothing can be written: on a real read-only mount, where this machine lets us make one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ssl_lab import RunStore, preset
from ssl_lab.database import connect
from ssl_lab.errors import SSLLabError
from ssl_lab.mirror import Mirror, writable
from ssl_lab.store import Metrics


def rows(count: int, first: int = 1) -> list[Metrics]:
    return [Metrics(step, step / 11, -step / 1000, 0.0) for step in range(first, first + count)]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no folder could be written; root may write anywhere."""
    monkeypatch.setattr("ssl_lab.store.writable", lambda _: False)


def test_what_lies_in_the_journal_is_seen(tmp_path: Path, locked: None) -> None:
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.add_metrics(rows(5))
        assert (tmp_path / "run" / "run.sqlite-wal").stat().st_size > 0
        before = sorted((tmp_path / "run").iterdir())
        with RunStore.open(store.path, readonly=True) as look:
            assert look.last_step() == 5
            folder = look._mirror._folder  # type: ignore[union-attr]
            assert folder is not None
            assert folder.is_dir()
            # It is looked at again when it has changed, and not too often.
            store.add_metrics(rows(5, first=6))
            look.refresh()
            assert look.last_step() == 5
            look._mirror._due = 0.0  # type: ignore[union-attr]
            look.refresh()
            assert look.last_step() == 10
            with look.fork("child", 7, results=tmp_path / "own") as child:
                assert child.last_step() == 7
            assert sorted((tmp_path / "run").iterdir()) == before
            folder = look._mirror._folder  # type: ignore[union-attr]
        assert folder is not None
        assert not folder.exists()


def test_a_file_that_nobody_writes_is_read_where_it_lies(tmp_path: Path, locked: None) -> None:
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.add_metrics(rows(5))
    assert not (tmp_path / "run" / "run.sqlite-wal").exists()
    with RunStore.open(tmp_path / "run", readonly=True) as look:
        assert look.last_step() == 5
        assert look._mirror is not None
        assert look._mirror._folder is None
        with pytest.raises(Exception, match="for reading only"):
            look.set_meta("x", 1)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.sqlite"]


def test_copies_of_a_file_that_is_written_meanwhile_are_whole(tmp_path: Path) -> None:
    """A writer that moves its journal into the file all the time, and a reader that copies: never half a state."""
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.add_metrics(rows(10))
    code = textwrap.dedent("""
        import sys
        from ssl_lab.store import Metrics, RunStore
        with RunStore.open(sys.argv[1]) as store:
            print("ready", flush=True)
            for block in range(1, 100_000):
                store.add_metrics([Metrics(10 * block + i, 0.0, float(block), 0.0) for i in range(1, 11)])
                if block % 7 == 0:
                    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    """)
    whole = refused = 0
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(40):
            mirror = Mirror(tmp_path / "run" / "run.sqlite")
            try:
                connection = connect(mirror.look(), immutable=True)
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                count, last = connection.execute("SELECT count(*), max(step) FROM metrics").fetchone()
                assert count == last
                assert count % 10 == 0
                connection.close()
                whole += 1
            except OSError:
                refused += 1
            finally:
                mirror.close()
        writer.kill()
    assert whole >= 10, (whole, refused)


def test_a_read_only_mount(tmp_path: Path) -> None:
    """What ``ssl-lab train`` leaves on a folder that is mounted read-only can be watched, its journal too."""
    source, mounted = tmp_path / "source", tmp_path / "mounted"
    mounted.mkdir()
    with RunStore.create("run", preset("byol"), source) as store:
        store.add_metrics(rows(20))
        made = subprocess.run(["mount", "--bind", str(source), str(mounted)], capture_output=True)
        if made.returncode != 0:
            pytest.skip("this machine lets nobody mount")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(mounted)], check=True)
            assert not writable(mounted / "run" / "run.sqlite")
            with RunStore.open(mounted / "run", readonly=True) as look:
                assert look.last_step() == 20
                store.add_metrics(rows(5, first=21))
                look._mirror._due = 0.0  # type: ignore[union-attr]
                look.refresh()
                assert look.last_step() == 25
        finally:
            subprocess.run(["umount", str(mounted)], check=True)


def test_a_file_that_goes_away_is_said(tmp_path: Path, locked: None) -> None:
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.add_metrics(rows(5))
        with RunStore.open(store.path, readonly=True) as look:
            shutil.rmtree(tmp_path / "run")
            look._mirror._due = 0.0  # type: ignore[union-attr]
            with pytest.raises(SSLLabError, match="any more"):
                look.refresh()


def test_a_look_that_failed_loses_nothing_and_is_tried_again(tmp_path: Path, locked: None) -> None:
    with RunStore.create("run", preset("byol"), tmp_path) as store:
        store.add_metrics(rows(5))
        with RunStore.open(store.path, readonly=True) as look:
            mirror = look._mirror
            assert mirror is not None
            store.add_metrics(rows(5, first=6))
            copy, mirror._copy = mirror._copy, _too_fast  # type: ignore[method-assign]
            mirror._due = 0.0
            with pytest.raises(SSLLabError, match="too fast"):
                look.refresh()
            # What was shown can still be read, and it is not asked for again at once.
            assert look.last_step() == 5
            look.refresh()
            mirror._copy, mirror._due = copy, 0.0  # type: ignore[method-assign]
            # The writer has stopped; its last words are seen all the same.
            look.refresh()
            assert look.last_step() == 10
            (kept,) = mirror._old
        assert not kept.exists()


def test_a_journal_that_is_taken_away_meanwhile_is_another_try(
    tmp_path: Path, locked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunStore.create("run", preset("byol"), tmp_path)
    store.add_metrics(rows(5))
    copyfile = shutil.copyfile

    def closed_meanwhile(source: Path, to: Path) -> None:
        copyfile(source, to)
        # After the file, before its journal.
        store.close()

    monkeypatch.setattr("ssl_lab.mirror.shutil.copyfile", closed_meanwhile)
    with RunStore.open(store.path, readonly=True) as look:
        assert not Path(f"{store.path}-wal").exists()
        assert look.last_step() == 5


def _too_fast(_: Path) -> Path:
    raise OSError("it changes too fast to be copied")
