"""Section ``page``: how soon the bench draws its first picture, and how much memory a visitor takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.app import NO_BROWSER, app, chromium, executable, first_picture, kernels_of, open_bench, press, run_name
from benchmarks.plan import Plan
from benchmarks.table import Entry, Missing, Row


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of the first picture, cold and preheated, and of a visitor's memory."""
    if executable() is None:
        yield Missing("first picture and memory", NO_BROWSER)
        return
    rounds, visitors = (2, 2) if plan.quick else (8, 4)
    besides = ["from the address to the frame that shows the panels, the engine already there"]
    for words, preheat in (("no kernel ready", False), ("a kernel preheated", True)):
        with tempfile.TemporaryDirectory() as name, app(Path(name), preheat=preheat) as served, chromium() as browser:
            seconds = []
            for _ in range(rounds):
                served.settle()
                page = open_bench(browser, served.url)
                seconds.append(first_picture(page))
                if preheat:
                    # The next kernel is made some seconds after a page has opened.
                    time.sleep(4.0)
                page.close()
            yield Row(f"first picture, {words}", "s", seconds, besides)
            if preheat:
                pages = [open_bench(browser, served.url)]
                run = run_name(pages[0])
                for _ in range(visitors - 1):
                    time.sleep(4.0)
                    served.settle()
                    pages.append(open_bench(browser, f"{served.url}?run={run}&watch"))
                press(pages[0], "Run")
                pages[0].wait_for_timeout(5_000)
                sizes = kernels_of(Path(name) / run / "run.sqlite")
                if sizes:
                    said = [f"proportional set size of a kernel, {len(sizes)} visitors watch one run"]
                    yield Row("memory of a visitor", "MB", [pss for pss, _ in sizes], said)
                    yield Row("memory of a visitor, shared pages counted whole", "MB", [rss for _, rss in sizes])
                else:
                    yield Missing("memory of a visitor", "this system does not tell the memory of a process")
