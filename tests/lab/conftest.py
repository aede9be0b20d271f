"""Benches of the tests, and the engine that they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from ssl_lab.desk import EngineDesk


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits until the condition holds; a page waits for the publisher in the same way."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def end_engine(folder: Path, number: int = signal.SIGTERM) -> None:
    """Ends the engine of a results folder and waits until it is gone."""
    desk = EngineDesk(folder)
    pid = desk.status().pid
    desk.close()
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

    def gone() -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(gone)


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Opens benches on a folder of their own; closes them and the engine at the end."""
    benches: list[Bench] = []

    def make(*arguments: Any, **options: Any) -> Bench:
        bench = Bench(*arguments, results=tmp_path, **options)
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        bench.close()
    if (tmp_path / "engine.sqlite").exists():
        end_engine(tmp_path)
