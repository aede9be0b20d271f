"""Section ``digits``: steps a second of the embedded default, alone, recorded, and with every panel live in Chromium.

The three are measured in turn, A B C A B C ..., each in the process that it belongs to: the live run in the engine of
``ssl-lab app`` with a page that draws it, the others here, while that run stands and Chromium shows an empty page.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks.app import NO_BROWSER, Served, executable, open_bench, press, run_name
from benchmarks.paired import interleaved, ratios
from benchmarks.plan import Plan
from benchmarks.stepping import bare_seconds, recorder
from benchmarks.table import Entry, Missing, Row
from ssl_lab.config import preset
from ssl_lab.store import RunStore, open_run
from ssl_lab.trainer import Trainer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WHERE = "DirectPred, batch 128, CPU"


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of the three rates, and of the live rate over the recorded one."""
    steps, rounds = plan.pick(gpu=600, cpu=600, quick=120, tiny=5), plan.pick(gpu=8, cpu=8, quick=2, tiny=2)
    config = preset("directpred", device="cpu")
    alone, recorded = Trainer(config), Trainer(config)
    bare_seconds(alone, 20)
    with recorder(recorded) as recording:
        measures = {
            "step alone": lambda: steps / bare_seconds(alone, steps),
            "recorded, no page": lambda: steps / recording.seconds(steps),
        }
        if executable() is None:
            found = interleaved(measures, rounds)
            yield Missing("with every panel live", NO_BROWSER)
        else:
            live = _Live(*plan.stage.up(), 2.0 if plan.quick else 10.0)
            found = interleaved({LIVE: live.rate, **measures}, rounds)
    for what, rates in found.items():
        yield Row(f"{what}, {WHERE}", "steps/s", rates)
    besides = ["side by side"]
    yield Row(
        f"recorded over alone, {WHERE}", "times", ratios(found["recorded, no page"], found["step alone"]), besides
    )
    if LIVE in found:
        yield Row(f"live over recorded, {WHERE}", "times", ratios(found[LIVE], found["recorded, no page"]), besides)


LIVE = "recorded, every panel live in Chromium"


class _Live:
    """A run of the app, drawn by a page while it is measured and standing otherwise."""

    def __init__(self, served: Served, browser: Browser, seconds: float) -> None:
        self._served, self._browser, self._seconds = served, browser, seconds
        self._name: str | None = None

    def rate(self) -> float:
        """Steps a second while a page draws every panel; the page is gone and the run stands when it returns."""
        page = open_bench(self._browser, f"{self._served.url}?run={self._name}" if self._name else self._served.bench)
        self._name = run_name(page)
        self._served.settle(opened=True)
        press(page, "Run")
        page.wait_for_selector(".ssl-state.ssl-running")
        time.sleep(1.0)
        with open_run(self._name, self._served.results, readonly=True) as store:
            first = _stand(store)
            page.wait_for_timeout(1000 * self._seconds)
            last = _stand(store)
        press(page, "Pause")
        page.wait_for_selector(".ssl-state.ssl-paused")
        page.close()
        self._served.settle()
        return (last[0] - first[0]) / (last[1] - first[1])


def _stand(store: RunStore) -> tuple[int, float]:
    """(steps done, seconds since the epoch when the driver wrote that)."""
    status = store.status()
    return status.step, status.heartbeat
