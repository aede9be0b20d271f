"""A class arrives: visitors in real kernels, each with a run of its own in one engine, one every two seconds.

Each is a page without a browser (see :mod:`benchmarks.trust.client`) that opens the bench, waits for its first picture,
presses Run, and looks on.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.app import _cpu_seconds, _family, _words
from benchmarks.trust.case import Case, Verdict
from benchmarks.trust.client import Closed, Served, Visitor, alone, cookie_of, memory, served

EVERY = 2.0
"""Seconds from visitor to visitor."""

LOOK_ON = 60.0
"""Seconds for which all look on after the last has come; where few come, until a run has made a number of steps."""

ENOUGH_STEPS = 50
"""That number."""

MOST_MEMORY = 150_000_000
"""Proportional set size of a visitor's kernel, in bytes."""

MEDIAN, LATE = 2.0, 10.0
"""Seconds to the first picture: at the median, and at the 95th percentile."""

LEAST_SHARE = 0.5
"""Steps of the slowest run, as a part of the mean."""

A_CLASS = 20
"""Visitors from which on times count."""

READY_WITHIN = 240.0
"""Seconds until the kernels of a class are ready, before anybody comes."""


def _ready(at: Served, kernels: int) -> None:
    """Waits until the engine has loaded and so many kernels stand by: a class is prepared before it comes."""
    deadline = time.monotonic() + READY_WITHIN
    calm = 0
    while time.monotonic() < deadline and calm < 3:
        before = _cpu_seconds(at.pid)
        time.sleep(1.0)
        still = _cpu_seconds(at.pid) - before < 0.3
        calm = calm + 1 if still and len(at.kernels()) >= kernels else 0


def _steps(results: Path, names: Mapping[str, str]) -> dict[str, int]:
    from ssl_lab.store import RunStore

    found = {}
    for name in names:
        with RunStore.open(results / name, readonly=True) as store:
            found[name] = store.last_step()
    return found


def _speed(page: Visitor, words: str) -> tuple[str, int]:
    """The list of speeds, and where these words stand in it."""
    for name, model in page.models.items():
        labels = model["state"].get("_options_labels", ())
        if words in labels:
            return name, list(labels).index(words)
    raise LookupError(f"there is no speed of {words}")


async def _come(
    at: Served, cookie: str, number: int, every: float, verdict: Verdict, slow: str | None
) -> Visitor | None:
    await asyncio.sleep(number * every)
    try:
        page = await Visitor.open(at, cookie, seconds=120)
        await page.until_picture(120)
        if slow is not None:
            model, index = _speed(page, slow)
            await page.set(model, {"index": index})
        await page.press("Run")
    except Closed as error:
        verdict.failures.append(f"visitor {number + 1} was refused: {error}")
        return None
    except Exception as error:
        verdict.failures.append(f"visitor {number + 1} has no bench: {type(error).__name__}: {error}")
        return None
    return page


async def _class(at: Served, results: Path, count: int, verdict: Verdict, starve: bool) -> None:
    cookie = await cookie_of(at)
    # Few that come to try the harness need not wait for each other.
    every = EVERY if count >= A_CLASS else EVERY / 4
    came = await asyncio.gather(
        *(_come(at, cookie, n, every, verdict, "1 step/s" if starve and n == 0 else None) for n in range(count))
    )
    pages = [page for page in came if page is not None]
    verdict.tried += count
    names = {page.run: page.run for page in pages if page.run}
    begun = _steps(results, names)
    started = time.monotonic()

    def steps_made() -> dict[str, int]:
        return {name: steps - begun[name] for name, steps in _steps(results, names).items()}

    await asyncio.sleep(LOOK_ON if count >= A_CLASS else 1.0)
    while max(steps_made().values(), default=0) < ENOUGH_STEPS and time.monotonic() - started < LOOK_ON:
        await asyncio.sleep(0.5)
    made = steps_made()
    seconds = time.monotonic() - started
    # The house is full now.
    verdict.tried += 1
    try:
        extra = await Visitor.open(at, cookie, seconds=30)
        verdict.failures.append("one more than the house holds was let in")
        await extra.close()
    except Closed as error:
        if error.status != 503 or "house is full" not in error.body:
            verdict.failures.append(f"one more than the house holds was refused without words: {error}")
    sizes = [memory(pid) for pid in _family(at.pid) if b"ipykernel" in _words(pid)]
    _judge(pages, made, sizes, seconds, verdict)
    await asyncio.gather(*(page.close() for page in pages))


def _judge(pages: list[Visitor], made: Mapping[str, int], sizes: list[int], seconds: float, verdict: Verdict) -> None:
    for page in pages:
        if page.closed.is_set():
            verdict.failures.append(f"the page of {page.run} lost its kernel: {page.trouble}")
    pictures = sorted(page.first_picture for page in pages if page.first_picture is not None)
    if len(pictures) < len(pages):
        verdict.failures.append(f"{len(pages) - len(pictures)} pages had no picture")
    if pictures:
        median, late = statistics.median(pictures), pictures[min(len(pictures) - 1, int(0.95 * len(pictures)))]
        verdict.notes.append(f"first picture {median:.1f} s at the median, {late:.1f} s at 95 %")
        # Few that come to try the harness say nothing of time.
        timed = len(pages) >= A_CLASS
        if timed and median > MEDIAN:
            verdict.failures.append(f"the first picture took {median:.1f} s at the median")
        if timed and late > LATE:
            verdict.failures.append(f"the first picture took {late:.1f} s at the 95th percentile")
    if made:
        mean, least = statistics.mean(made.values()), min(made.values())
        verdict.notes.append(f"{mean / seconds:.1f} steps/s a run, the slowest {least / seconds:.1f}")
        for name, steps in made.items():
            if steps < LEAST_SHARE * mean or steps == 0:
                verdict.failures.append(f"{name} was starved: {steps:,} steps where the mean is {mean:,.0f}")
    if sizes:
        verdict.notes.append(f"{max(sizes) / 1e6:.0f} MB the largest of {len(sizes)} kernels")
        for size in sizes:
            if size > MOST_MEMORY:
                verdict.failures.append(f"a kernel takes {size / 1e6:.0f} MB")


def crowd(count: int, folder: Path, *, starve: bool = False) -> Verdict:
    """So many visitors, in a house that has just that many places."""
    verdict = Verdict()
    results = folder / "results"
    words = ["--max-visitors", str(count), "--own-only", "--preheat", str(count)]
    with served(results, *words) as at:
        _ready(at, count)
        alone(lambda: _class(at, results, count, verdict, starve))
    return verdict


def crowd_fault(folder: Path) -> Verdict:
    """The same with a run that is held at one step a second."""
    verdict = crowd(3, folder, starve=True)
    verdict.failures = [line for line in verdict.failures if "starved" in line]
    return verdict


CASES = (
    Case(
        name="crowd", what="a class in one engine: all have pictures soon, none is starved, one too many is told so",
        whole=30, quick=3, run=crowd, fault=crowd_fault, fault_words="a run held at one step a second",
    ),
)  # fmt: skip
