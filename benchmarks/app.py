"""``ssl-lab app`` on a free port and a Chromium that opens its pages."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_COLD = (
    "import sys; from pathlib import Path; from lab.serve import serve; from ssl_lab.desk import EngineDesk; "
    "folder = Path(sys.argv[1]); desk = EngineDesk(folder); "
    "serve(folder, port=int(sys.argv[2]), open_browser=False, preheat=False, beside=desk.engine_beside())"
)

_REFILL = 4.5
"""Seconds: a little more than ``lab.serve.REFILL_AFTER``, which cannot be read without Voila."""

NO_BROWSER = "there is no chromium with playwright on this machine"


def executable() -> str | None:
    """Where Chromium is, if it can be driven here."""
    with contextlib.suppress(ImportError):
        import playwright  # noqa: F401

        return os.environ.get("SSL_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    return None


@dataclass(frozen=True)
class Served:
    """A running app."""

    url: str
    results: Path
    pid: int
    preheated: bool

    @property
    def bench(self) -> str:
        """Where the bench is with a new run."""
        return self.page("01-bench.ipynb")

    def page(self, notebook: str) -> str:
        """Where a notebook is."""
        return f"{self.url}voila/render/{notebook}"

    def settle(self, *, opened: bool = False, seconds: float = 60.0) -> None:
        """Waits until the app stands still: the engine has loaded torch, and the next kernel is there if one is due.

        Still means less than a fifth of a core over a second, all processes taken together. ``opened`` says that a page
        was opened just now: the kernel for the next one starts only some seconds after that.
        """
        deadline = time.monotonic() + seconds
        if opened and self.preheated:
            time.sleep(_REFILL)
        while time.monotonic() < deadline:
            before, begun = _cpu_seconds(self.pid), time.monotonic()
            time.sleep(1.0)
            kernels = sum(b"ipykernel" in _words(pid) for pid in _family(self.pid))
            still = _cpu_seconds(self.pid) - before < 0.2 * (time.monotonic() - begun)
            if still and (kernels or not self.preheated):
                return


@contextlib.contextmanager
def app(results: Path, *, preheat: bool = True) -> Iterator[Served]:
    """The app over a folder of runs, as the command line starts it; without ``preheat`` no kernel is kept ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-c", _COLD, str(results), str(port)]
    if preheat:
        options = ["--no-browser", "--port", str(port), "--results", str(results)]
        command = [sys.executable, "-m", "ssl_lab.cli", "app", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), urllib.request.urlopen(url + "voila/static/voila.js", timeout=2):
                    break
                time.sleep(0.2)
            yield Served(url, results, process.pid, preheat)
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions"]
        browser = playwright.chromium.launch(executable_path=executable(), args=flags)
        yield browser
        browser.close()


class Stage:
    """One app with a preheated kernel and one Chromium, started when they are first asked for, for all sections."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._there: tuple[Served, Browser] | None = None

    def up(self) -> tuple[Served, Browser]:
        """Both, the app standing still."""
        if self._there is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            browser = self._stack.enter_context(chromium())
            self._there = self._stack.enter_context(app(folder)), browser
        self._there[0].settle()
        return self._there

    def close(self) -> None:
        """Ends both."""
        self._there = None
        self._stack.close()


# Looks at every change of the page from its first moment on, so that nobody has to ask from outside.
_FIRST = """() => {
  const seen = new MutationObserver(() => {
    if (!document.querySelector('.bqplot svg, .ssl-sweeps .ssl-none')) return;
    seen.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.firstPicture = performance.now(); }));
  });
  seen.observe(document, { childList: true, subtree: true });
}"""


def open_page(browser: Browser, url: str, *, width: int = 1400) -> Page:
    """A page of its own, once it has drawn; ``window.firstPicture`` is when it first did.

    That of sweeps draws nothing where there is none: there its words count.
    """
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(90_000)
    page.add_init_script(f"({_FIRST})()")
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => window.firstPicture !== undefined")
    return page


def open_bench(browser: Browser, url: str, *, width: int = 1400) -> Page:
    """A page of its own with the bench, once its run takes commands."""
    page = open_page(browser, url, width=width)
    page.wait_for_selector(".ssl-state:is(.ssl-paused, .ssl-running)")
    return page


def kernel_of(page: Page) -> str:
    """The kernel that a page speaks to."""
    return str(page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"))


def first_picture(page: Page) -> float:
    """Seconds from the address to the first picture, by the page's own clock: panels are there and a frame is drawn."""
    return float(page.evaluate("window.firstPicture")) / 1000


def press(page: Page, button: str) -> None:
    """Presses a button of the transport."""
    page.locator(".ssl-bench").get_by_role("button", name=button, exact=True).first.click()


def run_name(page: Page) -> str:
    """The run that the page shows."""
    return page.locator(".ssl-headline b").first.inner_text()


def kernels_of(run: Path) -> list[tuple[float, float]]:
    """(proportional, resident) megabytes of every kernel that has the run's file open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ipykernel" not in _words(int(process.name)):
                continue
            if str(run.resolve()) in {str(Path(handle).readlink()) for handle in (process / "fd").iterdir()}:
                found.append(_sizes(int(process.name)))
    return found


def kernels_at(pid: int, page_kernel: str) -> list[tuple[float, float]]:
    """(proportional, resident) megabytes of the kernel of that name among what a server has started."""
    found = []
    for member in _family(pid):
        # A kernel's connection file is called by it.
        if page_kernel.encode() in _words(member):
            with contextlib.suppress(OSError):
                found.append(_sizes(member))
    return found


def _sizes(pid: int) -> tuple[float, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = dict(line.split(":")[:2] for line in lines if line.count(":") == 1)
    return int(sizes["Pss"].split()[0]) * 1024 / 1e6, int(sizes["Rss"].split()[0]) * 1024 / 1e6


def _words(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += _family(int(child))
    return found


def _cpu_seconds(pid: int) -> float:
    total = 0.0
    for member in _family(pid):
        with contextlib.suppress(OSError):
            # The name may hold spaces; what follows it does not.
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
