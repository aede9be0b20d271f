"""``python -m benchmarks``: steps per second of the embedded default, without a page and with all panels live.

Each row carries n, the median and the spread; the hardware and the versions stand above the table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ssl_lab import RunStore, Trainer, preset
from ssl_lab.loop import drive
from ssl_lab.store import open_run


def hardware() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, Python {platform.python_version()}, torch {torch.__version__}"


def bare(steps: int) -> float:
    """Steps per second of ``Trainer.step`` alone."""
    trainer = Trainer(preset("directpred", device="cpu"))
    for _ in range(20):
        trainer.step()
    begun = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    return steps / (time.perf_counter() - begun)


def recorded(steps: int) -> float:
    """Steps per second of the loop that records, kNN and all, with nobody looking."""
    trainer = Trainer(preset("directpred", device="cpu"))
    for _ in range(20):
        trainer.step()
    with tempfile.TemporaryDirectory() as folder, RunStore.create("run", trainer.config, folder) as store:
        begun = time.perf_counter()
        drive(trainer, store, owner="train", until=20 + steps)
        return steps / (time.perf_counter() - begun)


@contextlib.contextmanager
def app(folder: Path) -> Iterator[str]:
    """``ssl-lab app`` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [
        sys.executable,
        "-m",
        "ssl_lab.cli",
        "app",
        "--no-browser",
        "--port",
        str(port),
        "--results",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), urllib.request.urlopen(url + "voila/static/voila.js", timeout=2):
                    break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def live(seconds: float) -> tuple[float, float]:
    """(steps per second with every panel live in Chromium, seconds from the address to the first picture)."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, app(Path(name)) as url, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        time.sleep(12)  # the engine loads torch, and a kernel is preheated
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        begun = time.perf_counter()
        page.goto(url)
        page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
        first = time.perf_counter() - begun
        page.wait_for_selector(".ssl-state.ssl-paused", timeout=60_000)
        page.locator(".ssl-bench").get_by_role("button", name="Run", exact=True).first.click()
        time.sleep(8)  # the next kernel is preheated meanwhile
        with open_run("directpred-1", name, readonly=True) as store:
            step, begun = store.last_step(), time.perf_counter()
            time.sleep(seconds)
            rate = (store.last_step() - step) / (time.perf_counter() - begun)
        browser.close()
    return rate, first


def row(name: str, unit: str, measure: Callable[[], float], n: int) -> str:
    """A row of the table from ``n`` measurements."""
    values = [measure() for _ in range(n)]
    return line(name, unit, values)


def line(name: str, unit: str, values: list[float]) -> str:
    """A row of the table."""
    return (
        f"| {name} | {len(values)} | {statistics.median(values):.1f} {unit} | {min(values):.1f} to {max(values):.1f} |"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    quick = parser.parse_args().quick
    n, steps, seconds = (2, 200, 8.0) if quick else (5, 500, 20.0)
    print(hardware(), time.strftime("%Y-%m-%d"), sep="\n")
    print("\n| digits, batch 128, DirectPred | n | median | spread |\n| --- | --- | --- | --- |", flush=True)
    print(row("step alone", "steps/s", lambda: bare(steps), n), flush=True)
    print(row("recorded, no page", "steps/s", lambda: recorded(steps), n), flush=True)
    if shutil.which("chromium") is None:
        print("\nNo chromium here: the live rows are left out.")
        return
    rates, firsts = zip(*(live(seconds) for _ in range(n)), strict=True)
    print(line("recorded, every panel live in Chromium", "steps/s", list(rates)))
    print(line("first picture, preheated kernel", "s", list(firsts)))


if __name__ == "__main__":
    main()
