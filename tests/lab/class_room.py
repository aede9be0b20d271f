"""A class at the bench: runs of several people on one folder, each stepped by a thread as an engine does."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import Bench
from lab.house import House, digest
from lab.owners import KEEPER
from ssl_lab import RunStore, Trainer
from ssl_lab.loop import drive
from tests.lab.conftest import wait_for
from tests.ssl_lab.conftest import small_config

CLASS = House(served=True, own_only=True, host_key=digest("teacher"), max_visitors=20)


def make_run(folder: Path, name: str, key: str = "", steps: int = 12) -> Path:
    """A run that stands on disk, kept by whoever has the key; gives its folder."""
    config = small_config(device="cpu", spectrum_every=3)
    with RunStore.create(name, config, folder) as store:
        if key:
            store.set_meta(KEEPER, digest(key))
        drive(Trainer(config), store, owner="train", until=steps, stay=False)
        store.set_status(state="paused")
    return folder / name


@contextmanager
def stepped(folder: Path, name: str, key: str = "") -> Iterator[RunStore]:
    """A run that a thread steps and that takes commands."""
    config = small_config(device="cpu", spectrum_every=5)
    stop = threading.Event()
    with RunStore.create(name, config, folder) as mine, RunStore.open(folder / name) as store:
        if key:
            mine.set_meta(KEEPER, digest(key))
        options: dict[str, Any] = {"owner": "engine", "running": False, "stay": True, "stop": stop}
        thread = threading.Thread(target=drive, args=(Trainer(config), mine), kwargs=options, daemon=True)
        thread.start()
        try:
            wait_for(lambda: store.driven() and store.status().state == "paused")
            yield store
        finally:
            stop.set()
            thread.join(30.0)


def come(bench: Bench, key: str | None, **query: str) -> None:
    """The page is there, as it says so itself."""
    said = {"query": query, "visible": True, "alive": 1}
    tell(bench.browser, **said, **({"key": key} if key is not None else {}))


def tell(widget: Any, **state: Any) -> None:
    """What a page sends when it sets traits."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})


def say(widget: Any, content: Any, buffers: Any = ()) -> None:
    """A custom message of the page."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": list(buffers)})


def trace(store: RunStore) -> list[Any]:
    """All that somebody who steers leaves in a run's file."""
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        commands = db.execute("SELECT id, kind, payload, origin, state FROM commands ORDER BY id").fetchall()
    return [commands, store.events(), store.status().speed, store.status().viewer]
