"""Section ``page``: how soon each notebook draws its first picture, and how much memory a visitor takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.app import (
    NO_BROWSER,
    Served,
    app,
    executable,
    first_picture,
    kernel_of,
    kernels_at,
    kernels_of,
    open_bench,
    open_page,
    press,
    run_name,
)
from benchmarks.plan import Plan
from benchmarks.table import Entry, Missing, Row

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of each notebook's first picture, without and with a kernel ready, and of a visitor's memory."""
    if executable() is None:
        yield Missing("first picture and memory", NO_BROWSER)
        return
    notebooks = _notebooks()
    besides = ["from the address to the frame that shows its first figure, the engine already there"]
    served, browser = plan.stage.up()
    count = 1 if plan.quick else 8
    memory: dict[str, list[float]] = {name: [] for name in notebooks}
    with tempfile.TemporaryDirectory() as name, app(Path(name), preheat=False) as cold:
        for notebook in notebooks:
            seconds = []
            for _ in range(count):
                cold.settle()
                seconds.append(_first(browser, cold.page(notebook)))
            yield Row(f"first picture of {notebook}, no kernel ready", "s", seconds, besides)
    for notebook in notebooks:
        seconds = []
        for _ in range(count):
            served.settle(opened=True)
            page = open_page(browser, served.page(notebook))
            seconds.append(first_picture(page))
            memory[notebook] += [pss for pss, _ in kernels_at(served.pid, page_kernel=kernel_of(page))]
            page.close()
        yield Row(f"first picture of {notebook}, a kernel ready", "s", seconds, besides)
    for notebook, sizes in memory.items():
        if sizes:
            yield Row(f"kernel of {notebook} at its first picture", "MB", sizes, ["proportional set size"])
    yield from _memory(served, browser, *((1, 3.0) if plan.quick else (5, 15.0)))


def _notebooks() -> list[str]:
    folder = Path(__file__).resolve().parents[1] / "notebooks"
    return sorted(path.name for path in folder.glob("*.ipynb"))


def _first(browser: Browser, url: str) -> float:
    page = open_page(browser, url)
    try:
        return first_picture(page)
    finally:
        page.close()


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
