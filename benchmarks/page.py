"""Section ``page``: how soon the bench draws its first picture, and how much memory a visitor takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.app import NO_BROWSER, Served, app, executable, first_picture, kernels_of, open_bench, press, run_name
from benchmarks.plan import Plan
from benchmarks.table import Entry, Missing, Row

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of the first picture, cold and preheated, and of a visitor's memory."""
    if executable() is None:
        yield Missing("first picture and memory", NO_BROWSER)
        return
    besides = ["from the address to the frame that shows the panels, the engine already there"]
    seconds = []
    served, browser = plan.stage.up()
    with tempfile.TemporaryDirectory() as name, app(Path(name), preheat=False) as cold:
        for _ in range(1 if plan.quick else 8):
            cold.settle()
            page = open_bench(browser, cold.bench)
            seconds.append(first_picture(page))
            page.close()
    yield Row("first picture, no kernel ready", "s", seconds, besides)
    seconds = []
    for _ in range(1 if plan.quick else 8):
        served.settle(opened=bool(seconds))
        page = open_bench(browser, served.bench)
        seconds.append(first_picture(page))
        page.close()
    yield Row("first picture, a kernel preheated", "s", seconds, besides)
    yield from _memory(served, browser, *((1, 3.0) if plan.quick else (5, 15.0)))


def _memory(served: Served, browser: Browser, visitors: int, seconds: float) -> Iterator[Entry]:
    """One visitor trains, and all look on for some seconds."""
    served.settle(opened=True)
    pages = [open_bench(browser, served.bench)]
    run = run_name(pages[0])
    while len(pages) < visitors:
        served.settle(opened=True)
        pages.append(open_bench(browser, f"{served.url}?run={run}&watch"))
    press(pages[0], "Run")
    pages[0].wait_for_timeout(1000 * seconds)
    sizes = kernels_of(served.results / run / "run.sqlite")
    press(pages[0], "Pause")
    pages[0].wait_for_selector(".ssl-state.ssl-paused")
    for page in pages:
        page.close()
    if not sizes:
        yield Missing("memory of a visitor", "this system does not tell the memory of a process")
        return
    besides = [f"proportional set size of a visitor's kernel; {len(sizes)} watch one run"]
    yield Row("memory of a visitor", "MB", [pss for pss, _ in sizes], besides)
    yield Row("memory of a visitor, shared pages counted whole", "MB", [rss for _, rss in sizes])
