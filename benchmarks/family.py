"""Section ``family``: steps a second of a family of five on the embedded default, over those of one run alone.

The family and the run of one are stepped in turn, A B A B ..., by one engine process: in the engine's own folder with
nothing but a heartbeat that says somebody looks, and in the app's with a page in Chromium that draws all five.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.app import NO_BROWSER, Served, _cpu_seconds, executable, open_bench, press, run_name
from benchmarks.paired import interleaved, ratios
from benchmarks.plan import Plan
from benchmarks.table import Entry, Missing, Row, number
from ssl_lab.config import preset
from ssl_lab.desk import EngineDesk
from ssl_lab.family import FAMILY, Membership, family_values
from ssl_lab.store import CommandKind, RunStore, open_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WHERE = "DirectPred, batch 128, CPU"
KNOB = "ema"
ALONE, FAMILY_OF, ONE_OF = "one run alone", "a family of 5, all members together", "one run alone, before and after"
LOOK = 0.2
"""Seconds between looks at how far the members have come."""
WARM = 1.5
"""Seconds after the start that do not count."""


class Together:
    """Runs that are stepped for a while and otherwise stand.

    Args:
        stores: their files.
        engine: the process that steps them.
        begun: steps done where they began.
    """

    def __init__(self, stores: Sequence[RunStore], engine: int | None, begun: int = 0) -> None:
        self.stores, self.engine, self.begun = stores, engine, begun
        self.costs: list[float] = []
        """For each measurement the engine's milliseconds on a core for a step: what else runs hardly changes them."""
        self.lags: list[float] = []
        """For each measurement the greatest lag of a member: steps behind the first one, over what that has done."""

    def rate(self, seconds: float, go: Callable[[], None], stand: Callable[[], None], *, touch: bool) -> float:
        """Steps a second of all together over some seconds."""
        go()
        begun = time.monotonic()
        lag, next_touch, cores = 0.0, begun, 0.0
        first: list[tuple[int, float]] = []
        while time.monotonic() < begun + WARM + seconds:
            if touch and time.monotonic() >= next_touch:
                next_touch += 1.0
                for store in self.stores:
                    store.touch_viewer()
            if not first and time.monotonic() >= begun + WARM:
                first, cores = self._stand(), self._cpu()
            steps = [step - self.begun for step, _ in self._stand()]
            lag = max(lag, (max(steps) - min(steps)) / max(1, max(steps)))
            time.sleep(LOOK)
        last, cores = self._stand(), self._cpu() - cores
        stand()
        while any(store.status().state == "running" for store in self.stores):
            time.sleep(0.02)
        self.lags.append(100 * lag)
        self.costs.append(1000 * cores / max(1, sum(b[0] - a[0] for a, b in zip(first, last, strict=True))))
        return sum((b[0] - a[0]) / max(b[1] - a[1], 1e-9) for a, b in zip(first, last, strict=True))

    def _stand(self) -> list[tuple[int, float]]:
        """(steps done, seconds since the epoch when the driver wrote that) of each."""
        found = [store.status() for store in self.stores]
        return [(status.step, status.heartbeat) for status in found]

    def _cpu(self) -> float:
        return _cpu_seconds(self.engine) if self.engine else 0.0

    def send(self, kind: CommandKind, **payload: int) -> None:
        """Sends all of them a command."""
        for store in self.stores:
            store.touch_viewer()
            store.send(kind, payload)

    def set_out(self, steps: int = 100) -> None:
        """Makes the first steps, of which a lag of two or three would be a great share."""
        self.send("step", steps=steps)
        while any(status.step < steps or status.state != "paused" for status in (s.status() for s in self.stores)):
            for store in self.stores:
                store.touch_viewer()
            time.sleep(LOOK)


def measure(plan: Plan) -> Iterator[Entry]:
    """Rows of both rates, of their ratio and of the greatest lag, without a page and with one."""
    rounds, seconds = (2, 2.0) if plan.quick else (8, 8.0)
    with ExitStack() as stack:
        results = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        desk = EngineDesk(results)
        stack.callback(desk.close)
        stack.enter_context(desk.engine_beside())
        alone, family = _runs(desk, results)
        family.set_out()
        found = interleaved(
            {
                ALONE: lambda: _headless(alone, seconds),
                FAMILY_OF: lambda: _headless(family, seconds),
                ONE_OF: lambda: _headless(alone, seconds),
            },
            rounds,
        )
    yield from _rows(found, alone, family, "no page")
    if executable() is None:
        yield Missing("a family with a page open", NO_BROWSER)
        return
    yield from _with_page(*plan.stage.up(), rounds, seconds)


def _runs(desk: EngineDesk, results: Path) -> tuple[Together, Together]:
    """A run, and a family of five that goes on from its first step; all awake, all standing."""
    parent = RunStore.create("alone", preset("directpred", device="cpu"), results)
    desk.ask("alone")
    _until_awake([parent])
    identity, values = uuid.uuid4().hex, family_values(KNOB, parent.config().knobs.ema)
    members = []
    for place, value in enumerate(values):
        member = parent.fork(f"member-{place}", 0)
        member.set_meta(FAMILY, Membership(identity, KNOB, value, place, len(values)).kept())
        member.send("set", {KNOB: value})
        desk.ask(member.name)
        members.append(member)
    _until_awake(members)
    engine = desk.status().pid
    return Together([parent], engine), Together(members, engine)


def _until_awake(stores: Sequence[RunStore], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while any(store.status().state != "paused" for store in stores):
        if time.monotonic() > end:
            raise TimeoutError("the runs do not wake")
        time.sleep(0.05)


def _headless(runs: Together, seconds: float) -> float:
    return runs.rate(seconds, lambda: runs.send("run"), lambda: runs.send("pause"), touch=True)


def _rows(found: dict[str, list[float]], alone: Together, family: Together, where: str) -> Iterator[Entry]:
    # The run alone is measured on both sides of the family: a machine that drifts drifts under both.
    beside = [(a + b) / 2 for a, b in zip(found[ALONE], found[ONE_OF], strict=True)]
    yield Row(f"{ALONE}, {where}, {WHERE}", "steps/s", beside, ["mean of before and after each of the family's"])
    yield Row(f"{FAMILY_OF}, {where}, {WHERE}", "steps/s", found[FAMILY_OF])
    yield Row(f"family over one run, {where}, {WHERE}", "times", ratios(found[FAMILY_OF], beside), ["side by side"])
    costs = [(a + b) / 2 for a, b in zip(alone.costs[::2], alone.costs[1::2], strict=True)]
    if all(costs):
        words = [f"a step of one run takes {number(statistics.median(costs))} ms of a core"]
        yield Row(f"a step's time on a core, family over one run, {where}", "times", ratios(family.costs, costs), words)
    besides = [f"a look each {LOOK} s; steps behind the first member, over what that has done since the fork"]
    yield Row(f"greatest lag of a member, {where}, {WHERE}", "%", [max(lag, 1e-9) for lag in family.lags], besides)


def _with_page(served: Served, browser: Browser, rounds: int, seconds: float) -> Iterator[Entry]:
    """The same with a page that draws the one run, or the family; a page whose run stands costs nothing."""
    one = open_bench(browser, served.bench)
    name = run_name(one)
    several = open_bench(browser, f"{served.url}?run={name}")
    before = {path.name for path in served.results.iterdir()}
    several.locator(f".ssl-knob-{KNOB} .ssl-family").click()
    several.wait_for_function("() => document.querySelectorAll('.ssl-member').length === 5", timeout=180_000)
    several.wait_for_selector(".ssl-state.ssl-running")
    press(several, "Pause")
    several.wait_for_selector(".ssl-state.ssl-paused")
    members = sorted({path.name for path in served.results.iterdir()} - before)
    desk = EngineDesk(served.results)
    engine = desk.status().pid
    desk.close()
    family = Together([open_run(member, served.results) for member in members], engine)
    alone = Together([open_run(name, served.results)], engine)
    _until_awake(family.stores)
    family.set_out()
    served.settle(opened=True)

    def live(runs: Together, page: Page) -> float:
        return runs.rate(seconds, lambda: _go(page), lambda: press(page, "Pause"), touch=False)

    found = interleaved(
        {ALONE: lambda: live(alone, one), FAMILY_OF: lambda: live(family, several), ONE_OF: lambda: live(alone, one)},
        rounds,
    )
    for page in (one, several):
        page.close()
    for runs in (alone, family):
        for store in runs.stores:
            store.close()
    yield from _rows(found, alone, family, "every panel live in Chromium")


def _go(page: Page) -> None:
    press(page, "Run")
    page.wait_for_selector(".ssl-state.ssl-running")
