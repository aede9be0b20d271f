"""A long run with all panels open: is the memory of engine, kernel and page flat, and does nothing pile up?"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.app import NO_BROWSER, Served, app, chromium, executable, open_bench, press, run_name
from benchmarks.trust.case import Case, Verdict
from ssl_lab.desk import EngineDesk
from ssl_lab.store import RunStore, open_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

STEPS = 100_000

SAMPLES = 10
"""Measurements after the warm-up, which is as long as the way from one to the next."""

MOST_GROWTH = 10.0
"""Megabytes that anything may grow by from the end of the warm-up to the end of the run."""

MOST_MORE = 2
"""Threads, handles or comms by which a count may differ: a look at the list of runs opens a file for a moment."""

LOOKS = 5
"""Looks of which the least counts, for what comes and goes."""

MOST_LISTENERS = 100
"""Event listeners of the page that may be more: a handful are made and freed with each picture."""

MARK_LISTENERS = 6
"""Event listeners of a mark on the timeline's bar, of which there are as many as knobs turned, and a bound."""

FILL = 130
"""Knobs turned before all: so many that the page draws no more marks than it has."""

PATIENCE = 120.0
"""Seconds without a step after which the run has got stuck."""

Sample = Mapping[str, float]
"""What was measured: memory in megabytes under names that end in ``MB``, and counts."""


def process_sample(name: str, pid: int) -> dict[str, float]:
    """Memory that is a process's own, its threads and its open files."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup if line.endswith(" kB")}
    looks = []
    for look in range(LOOKS):
        time.sleep(0.05 if look else 0.0)
        looks.append((len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))))
    return {
        f"{name} MB": (sizes["Private_Clean"] + sizes["Private_Dirty"]) * 1024 / 1e6,
        f"{name} threads": min(threads for threads, _ in looks),
        f"{name} handles": min(handles for _, handles in looks),
    }


def growth(values: Sequence[float]) -> float:
    """How much a series has grown from its first value to its last, by the median of the slopes between all pairs.

    One value that stands out, such as a measurement in the middle of a picture, does not count.
    """
    slopes = [
        (values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))
    ]  # fmt: skip
    return statistics.median(slopes) * (len(values) - 1) if slopes else 0.0


def judge(samples: Sequence[Sample]) -> Verdict:
    """Each name of the samples is a case."""
    verdict = Verdict(tried=len(samples[0]) if samples else 0)
    for name in samples[0] if samples else ():
        values = [sample[name] for sample in samples]
        grown = growth(values)
        most = MOST_GROWTH if name.endswith("MB") else MOST_LISTENERS if name.endswith("listeners") else MOST_MORE
        if grown > most:
            verdict.failures.append(f"{name} grew by {grown:.1f}: {', '.join(f'{value:.4g}' for value in values)}")
        verdict.notes.append(f"{name} {values[0]:.4g} to {values[-1]:.4g} ({grown:+.2g})")
    return verdict


# ------------------------------------------------------------ the page


@dataclass
class _Watched:
    """A page whose memory is looked at, and the comms that its kernel has opened and not closed."""

    page: Page
    session: CDPSession
    browser: CDPSession
    comms: list[int]

    def sample(self) -> dict[str, float]:
        self.session.send("HeapProfiler.collectGarbage")
        self.session.send("HeapProfiler.collectGarbage")
        metrics = {entry["name"]: entry["value"] for entry in self.session.send("Performance.getMetrics")["metrics"]}
        found = {
            "page heap MB": metrics["JSHeapUsedSize"] / 1e6,
            "page listeners": metrics["JSEventListeners"]
            - MARK_LISTENERS * self.page.locator(".ssl-marks > *").count(),
            "comms opened": float(self.comms[0]),
        }
        processes = self.browser.send("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [process_sample("page", int(p["id"])) for p in processes if p["type"] == "renderer"]
        found["page process MB"] = sum(sample["page MB"] for sample in renderers)
        return found


@contextlib.contextmanager
def _watched(browser: Browser, url: str) -> Iterator[_Watched]:
    """The bench in a page of its own."""
    comms = [0]

    def count(payload: str | bytes) -> None:
        text = payload.encode() if isinstance(payload, str) else payload
        # The header stands at the beginning of a message; what a picture holds need not be searched.
        head = text[:2000]
        comms[0] += b'"comm_open"' in head
        comms[0] -= b'"comm_close"' in head

    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.on("page", lambda page: page.on("websocket", lambda ws: ws.on("framereceived", count)))

    class _Context:
        """What :func:`open_bench` asks for a page."""

        @staticmethod
        def new_page(**_: Any) -> Page:
            return context.new_page()

    page = open_bench(_Context(), url)  # type: ignore[arg-type]
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.enable")
    try:
        yield _Watched(page, session, browser.new_browser_cdp_session(), comms)
    finally:
        context.close()


def _kernel_of(run: Path) -> int:
    """The process of the kernel that has a run's file open."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ipykernel" not in (process / "cmdline").read_bytes():
                continue
            if str(run.resolve()) in {str(Path(handle).readlink()) for handle in (process / "fd").iterdir()}:
                return int(process.name)
    raise ProcessLookupError(f"no kernel has {run} open")


def _engine_of(folder: Path) -> int:
    desk = EngineDesk(folder)
    pid = desk.status().pid
    desk.close()
    assert pid is not None
    return pid


def _walk(store: RunStore, count: int, look: Callable[[], Sample], turn: Callable[[int], None]) -> list[Sample]:
    """Lets a running run go on for ``count`` steps after a warm-up; measures, and turns a knob, at a cadence."""
    every = max(1, count // SAMPLES)
    first, samples = store.last_step(), []
    for place in range(SAMPLES + 1):
        for part in range(1, 6):
            goal, seen, since = first + every * place + every * part // 5, -1, time.monotonic()
            while (step := store.status().step) < goal:
                if step != seen:
                    seen, since = step, time.monotonic()
                if time.monotonic() - since > PATIENCE:
                    raise TimeoutError(f"the run stands at step {step}, {store.status().state}")
                time.sleep(0.2)
            if part % 2:
                turn(place * 5 + part)
        samples.append(look())
        print(f"    long: step {store.last_step():,}: {_line(samples[-1])}", file=sys.stderr, flush=True)
    return samples


def _line(sample: Sample) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sample.items())


def run(count: int, folder: Path) -> Verdict:
    """``count`` steps of the default run, watched in Chromium."""
    if executable() is None:
        return Verdict(notes=[NO_BROWSER])
    with app(folder) as served, chromium() as browser:
        served.settle()
        with _watched(browser, served.bench) as watched:
            return _watch(count, folder, served, watched)


_DRAG = """(step) => {
  const bar = document.querySelector('.ssl-timeline input[type=range]');
  bar.value = step;
  bar.dispatchEvent(new Event('input', { bubbles: true }));
}"""


def _hear_comms(watched: _Watched) -> None:
    """Drags to an earlier moment and back: the first time, marks are made for it, and their comms must be heard of."""
    page = watched.page
    page.wait_for_function("() => Number(document.querySelector('.ssl-headline b[data-step]')?.dataset.step) > 50")
    page.evaluate(_DRAG, 20)
    page.wait_for_selector(".ssl-headline b[data-step='20']")
    page.locator(".ssl-timeline .ssl-live").click()
    if watched.comms[0] <= 0:
        raise AssertionError("comms were opened and not heard of")


def _watch(count: int, folder: Path, served: Served, watched: _Watched) -> Verdict:
    page = watched.page
    name = run_name(page)
    engine, kernel = _engine_of(folder), _kernel_of(folder / name / "run.sqlite")
    served.settle(opened=True)
    press(page, "Run")
    _hear_comms(watched)
    modes = page.locator(".ssl-knob-norm select")
    with open_run(name, folder) as other_page:
        for number in range(FILL):
            other_page.send("set", {"eps": 0.1 + 0.001 * (number % 2)})
            time.sleep(0.05)
    with open_run(name, folder, readonly=True) as store:

        def look() -> Sample:
            return {**process_sample("engine", engine), **process_sample("kernel", kernel), **watched.sample()}

        def turn(place: int) -> None:
            modes.select_option(index=place % 3)

        samples = _walk(store, count, look, turn)
        verdict = judge(samples)
        shown = page.locator(".ssl-headline b[data-step]").get_attribute("data-step")
        if store.last_step() - int(shown or 0) > count / 2:
            verdict.failures.append(f"the page shows step {shown} of {store.last_step()}")
        verdict.tried += 1
        verdict.notes.insert(0, f"{store.last_step():,} steps, {len(store.events())} knobs turned")
    return verdict


def engine_alone(count: int, folder: Path) -> Verdict:
    """The same for the engine without a page: where there is no browser."""
    desk = EngineDesk(folder)
    with desk.engine_beside():
        from ssl_lab.config import preset

        with RunStore.create("run", preset("directpred"), folder) as store:
            desk.ask("run")
            end = time.monotonic() + PATIENCE
            while not store.driven() and time.monotonic() < end:
                time.sleep(0.05)
            store.send("run")

            def turn(place: int) -> None:
                store.touch_viewer()
                store.send("set", {"ema": 0.99 + 0.0001 * (place % 7)})

            samples = _walk(store, count, lambda: process_sample("engine", _engine_of(folder)), turn)
    desk.close()
    return judge(samples)


# ------------------------------------------------------------ planted faults

_KEEPS = """
import sys, threading, time
kept, files = [], []
print("ready", flush=True)
while True:
    kept.append(bytearray(b"x" * 2_000_000))
    files.append(open("/dev/null"))
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    time.sleep(0.05)
"""
"""A process that keeps every picture, never closes a file and lets go of no thread."""

_STEADY = """
import time
print("ready", flush=True)
while True:
    picture = bytearray(b"x" * 2_000_000)
    time.sleep(0.05)
"""


def stand_in(program: str, samples: int = SAMPLES) -> Verdict:
    """A process that does nothing but this, measured as engine and kernel are."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            seen = []
            for _ in range(samples):
                time.sleep(0.1)
                seen.append(process_sample("process", process.pid))
            return judge(seen)
        finally:
            process.kill()


def fault(_folder: Path) -> Verdict:
    """What keeps all it has is caught in each of the three; what does not is left alone."""
    steady, keeps = stand_in(_STEADY), stand_in(_KEEPS)
    if steady.failed or keeps.failed != 3:
        return Verdict(keeps.tried, [], [*steady.failures, *keeps.notes])
    return keeps


CASES = (
    Case(
        name="long", what=f"{STEPS:,} steps with panels open: engine, kernel and page grow by less than "
        f"{MOST_GROWTH:.0f} MB after warm-up; comms, threads and handles stay",
        whole=STEPS, quick=3000, run=run, fault=fault,
        fault_words="a process that keeps every picture, file and thread",
    ),
)  # fmt: skip
