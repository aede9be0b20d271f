"""What goes wrong without anybody saying so is said on the page."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from lab.trouble import DISK_PAUSE, LITTLE, SILENCE, Watch, unanswered
from ssl_lab import RunStore, Trainer
from ssl_lab.store import open_run
from tests.lab.class_room import make_run, tell
from tests.lab.conftest import wait_for
from tests.lab.test_bench import ready
from tests.lab.test_controls import status
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_driver_that_falls_silent(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch(tmp_path, clock)
    # The clock of the other machine says what it likes.
    live = status(state="running", pid=5, host="box", heartbeat=9e9)
    assert watch.silence(live) == 0
    clock.now = SILENCE - 0.1
    assert watch.silence(live) == 0
    clock.now = SILENCE + 2
    assert watch.silence(live) == SILENCE + 2
    assert "Process 5 on box" in unanswered(live)
    # It is heard of again, though its clock was set back; and one that stands still, or has gone, is not waited for.
    assert watch.silence(replace(live, heartbeat=1.0)) == 0
    clock.now += 100
    assert watch.silence(replace(live, heartbeat=1.0, state="paused")) == 100
    for gone in (replace(live, heartbeat=1.0, state="asleep"), replace(live, heartbeat=1.0, pid=None)):
        assert watch.silence(gone) == 0


def test_a_full_disk(tmp_path: Path) -> None:
    clock, free = Clock(), [LITTLE]
    watch = Watch(tmp_path, clock, lambda _: free[0])
    assert watch.disk() == ""
    free[0] = LITTLE - 1
    assert watch.disk() == ""
    clock.now = DISK_PAUSE
    assert "is full: 5.0 MB are free" in watch.disk()
    free[0] = 10 * LITTLE
    clock.now = 2 * DISK_PAUSE
    assert watch.disk() == ""
    watch.refused = "disk I/O error"
    assert "cannot be written (disk I/O error)" in watch.disk()
    # A folder that is not there yet is nothing to worry about.
    assert Watch(tmp_path / "none").disk() == ""


def test_the_page_says_that_the_disk_is_full(open_bench: Open) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    bench._watch._free = lambda _: 1_000_000
    bench._watch._disk_due = 0.0
    wait_for(lambda: "is full: 1.0 MB are free" in bench.banner.value)
    assert "role='alert'" in bench.banner.value
    bench._watch._free = lambda _: 10**9
    bench._watch._disk_due = 0.0
    wait_for(lambda: "is full" not in bench.banner.value)


def test_a_file_that_cannot_be_written_stops_no_pictures(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)

    def full(_store: RunStore) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RunStore, "touch_viewer", full)
    wait_for(lambda: "cannot be written (database or disk is full)" in bench.banner.value)
    bench.transport.step.click()
    wait_for(lambda: "data-step='1'" in bench.headline.value)
    monkeypatch.undo()
    wait_for(lambda: "cannot be written" not in bench.banner.value)


def test_the_page_says_that_nobody_answers(open_bench: Open, tmp_path: Path) -> None:
    import os
    import socket

    make_run(tmp_path, "run")
    with open_run("run", tmp_path) as store:
        store.set_status(state="running", pid=os.getpid(), host=socket.gethostname(), owner="engine")
        bench = open_bench(run="run")
        clock = Clock()
        bench._watch._clock = clock
        bench.start()
        wait_for(lambda: "ssl-running'>running" in bench.headline.value)
        clock.now = 60.0
        wait_for(lambda: "ssl-failed'>not answering for 60 s" in bench.headline.value)
        # Headline and banner are written one after the other.
        wait_for(lambda: "does not answer. Nothing recorded is lost" in bench.banner.value)
        store.set_status(state="paused")
        wait_for(lambda: "ssl-paused'>paused" in bench.headline.value)
        wait_for(lambda: "does not answer" not in bench.banner.value)


def test_a_results_folder_that_vanishes_does_not_end_the_page(open_bench: Open, tmp_path: Path) -> None:
    import shutil

    results = tmp_path / "results"
    make_run(results, "run")
    bench = Bench(run="run", results=results)
    try:
        # Only looked at: nobody is to be woken here.
        tell(bench.browser, query={"watch": ""}, alive=1)
        wait_for(lambda: "data-step='12'" in bench.headline.value)
        shutil.rmtree(results)
        wait_for(lambda: "This run is gone" in bench.banner.value)
        # What it has of the run it can still draw.
        tell(bench.timeline, step=5)
        wait_for(lambda: "data-step='5'" in bench.headline.value or "gone" in bench.banner.value)
        assert bench.publisher._thread.is_alive()
    finally:
        bench.close()


def test_what_cannot_be_drawn_is_said_and_drawn_again(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    read: Any = bench._reader.read  # type: ignore[union-attr]

    def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(bench._reader, "read", broken)
    wait_for(lambda: "unable to open database file" in bench.banner.value)
    monkeypatch.setattr(bench._reader, "read", read)
    wait_for(lambda: "unable to open" not in bench.banner.value)
