"""What a page does with files that a stranger made, with clicks that come faster than it looks, and with its litter."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from lab.catalogue import Catalogue
from ssl_lab import RunStore, Trainer
from ssl_lab.loop import drive, resume
from tests.lab.conftest import wait_for
from tests.lab.test_bench import ready
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]


def stranger(folder: Path, name: str = "theirs", turn: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A loose file of a run of 12 steps with a knob turned at step 4, whose config then says something else."""
    config = small_config(device="cpu", spectrum_every=3)
    with RunStore.create(name, config, folder / "far") as store:
        drive(Trainer(config), store, owner="train", until=4)
        store.send("set", turn or {"ema": 0.5})
        trainer = Trainer(config)
        drive(trainer, store, owner="train", until=12, events_seen=resume(trainer, store))
        if changes:
            store.set_meta("config", {**store.meta("config"), **changes})
        path = folder / f"{name}.sqlite"
        store.copy_to(path)
    if changes:
        # A stranger does not take out what an export takes out.
        with sqlite3.connect(path) as db:
            db.execute("UPDATE meta SET value = json_patch(value, ?) WHERE key = 'config'", (json.dumps(changes),))
        db.close()
    return path


def dropped(bench: Bench, path: Path) -> Path:
    """The file, as it comes in from a page."""
    folder = path.parent / "in"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / "dropped.sqlite")
    bench.files.dropped(folder / "dropped.sqlite", path.name)
    return folder / "dropped.sqlite"


def test_it_says_neither_what_is_read_nor_where_it_is_computed(open_bench: Open, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    options = list(bench.dataset.options)
    path = stranger(tmp_path, dataset=str(secret), data_dir=str(secret), device="cuda:7")
    dropped(bench, path)
    wait_for(lambda: "file: theirs.sqlite" in bench.headline.value)
    assert list(bench.dataset.options) == options
    for begin in (bench.reset.click, lambda: bench._on_timeline(bench.timeline, {"do": "fork", "step": 5}, [])):
        bench._complaint = ""
        begin()
        wait_for(lambda: "which are not here" in bench.banner.value)
        assert "file: theirs.sqlite" in bench.headline.value
    bench.new.click()
    wait_for(lambda: "file:" not in bench.headline.value)
    assert bench.store is not None
    config = bench.store.config()
    assert (config.dataset, config.data_dir, config.device) == (bench.dataset.value, None, "auto")
    # On a data set of this project it can be forked, with this machine's own folder and device.
    dropped(bench, stranger(tmp_path, name="others", data_dir=str(secret), device="cuda:7"))
    wait_for(lambda: "file: others.sqlite" in bench.headline.value)
    bench._on_timeline(bench.timeline, {"do": "fork", "step": 5}, [])
    wait_for(lambda: bench.store is not None and bench.store.name == "others-fork-1")
    assert (bench.store.config().data_dir, bench.store.config().device) == (None, "auto")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE status SET state = '<img src=x onerror=alert(1)>'",
        "UPDATE events SET before = '[]'",
        "UPDATE metrics SET loss = '<b>'",
    ],
)
def test_a_crafted_file_is_refused_and_leaves_nothing(statement: str, open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    path = stranger(tmp_path)
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    incoming = dropped(bench, path)
    wait_for(lambda: "is broken" in bench.banner.value)
    assert "<img" not in bench.headline.value + bench.banner.value
    assert "file:" not in bench.headline.value
    assert not incoming.exists()


def test_two_runs_of_one_name_are_told_apart(open_bench: Open, tmp_path: Path) -> None:
    bench = open_bench(Trainer(small_config()))
    ready(bench)
    dropped(bench, stranger(tmp_path / "a", name="same", turn={"ema": 0.5}))
    wait_for(lambda: [e["text"] for e in bench.timeline.events] == ["EMA rate 0.996 → 0.5"] or bench.timeline.events)
    first = bench.timeline.events[0]["text"]
    dropped(bench, stranger(tmp_path / "b", name="same", turn={"lr": 0.01}))
    wait_for(lambda: bench.timeline.events and bench.timeline.events[0]["text"] != first)
    assert "0.01" in bench.timeline.events[0]["text"]


def test_ticks_that_come_faster_than_the_page_looks(open_bench: Open, tmp_path: Path) -> None:
    config = small_config(epochs=1)
    for name in ("one", "two", "three"):
        with RunStore.create(name, config, tmp_path) as store:
            drive(Trainer(config), store, owner="train", until=11)
    bench = open_bench(run="three")
    bench.start()
    wait_for(lambda: bench.store is not None and "three" in bench.headline.value)
    # Both while the publisher is busy with something else.
    busy, free = threading.Event(), threading.Event()
    bench._do(lambda: (busy.set(), free.wait(30))[0])
    assert busy.wait(30)
    bench.shelf.ticked = ["one"]
    bench.shelf.ticked = ["one", "two"]
    free.set()
    wait_for(lambda: list(bench._compared) == ["one", "two"] and bench._actions.empty())
    bench.shelf.ticked = ["two"]
    wait_for(lambda: list(bench._compared) == ["two"] and bench._actions.empty())
    bench.timeline.step = 5
    wait_for(lambda: "data-step='5'" in bench.headline.value)


def test_the_shelf_sees_that_a_driver_has_died(tmp_path: Path) -> None:
    config = small_config()
    with RunStore.create("run", config, tmp_path) as store:
        drive(Trainer(config), store, owner="train", until=5)
        store.set_status(state="running", host=socket.gethostname(), pid=_dead_pid(), owner="train")
        catalogue = Catalogue(tmp_path)
        (entry,) = (entry for entry in catalogue.entries() if not entry.recording)
        assert entry.run.status.state == "asleep"
        driver = RunStore.open(store.path)
        driver.claim("train")
        driver.set_status(state="running")
        assert next(iter(catalogue.entries())).run.status.state == "running"
        # The file does not change when a process dies.
        before = store.path.stat().st_mtime_ns
        driver.close()
        os.utime(store.path, ns=(before, before))
        assert store.status().pid == os.getpid()
        assert next(iter(catalogue.entries())).run.status.state == "asleep"


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
