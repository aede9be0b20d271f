"""The browser rig: a real Chromium, real servers, and a record of all that a page did.

``open_page(url)`` gives a :class:`Watched` page; ``page_is_clean(page)`` fails with a list of what was seen on it:
console errors, uncaught errors, failed requests, answers of 400 and above, requests to another host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
OUR_HOSTS = {"127.0.0.1", "localhost"}

KNOWN_NOISE: tuple[tuple[str, str], ...] = ()
"""Foreign noise: a pattern that a line of the record must match whole, and the reason why it is not ours to mend."""

# ---------------------------------------------------------------- pages


@dataclass
class Watched:
    """A page and what happened on it."""

    page: Any
    seen: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    """Bytes of each change that a kernel sent to a widget."""
    _leaving: bool = False
    _open: set[Any] = field(default_factory=set)
    """Requests that have no answer yet."""
    _left: set[Any] = field(default_factory=set)
    """Those that had none when their page was left."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    @property
    def leaving(self) -> bool:
        """Set while a page is left on purpose: what it then breaks off has not failed, however late that is said."""
        return self._leaving

    @leaving.setter
    def leaving(self, now: bool) -> None:
        if self._leaving and not now:
            self._left |= self._open
        self._leaving = now

    def watch(self) -> Watched:
        """Begins the record."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.seen.append(f"page error: {error}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)
        self.page.on("requestfinished", lambda request: self._open.discard(request))
        self.page.on("response", self._response)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._frame))
        return self

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.seen.append(f"console error: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Any) -> None:
        self.requests.append(request.url)
        self._open.add(request)
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in OUR_HOSTS:
            self.seen.append(f"foreign request: {request.url}")

    def _frame(self, frame: str | bytes) -> None:
        text = frame.encode() if isinstance(frame, str) else frame
        # That a kernel lives is said every few seconds, and is no picture.
        if b'"method"' in text and b'"pong"' not in text:
            self.pictures.append(len(frame))

    def _failed(self, request: Any) -> None:
        self._open.discard(request)
        if not self.leaving and not (request in self._left and "ABORTED" in str(request.failure)):
            self.seen.append(f"failed request: {request.method} {request.url}: {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.seen.append(f"HTTP {response.status}: {response.url}")

    def reload_page(self) -> None:
        """Reloads; what the old page breaks off does not count."""
        self.leaving = True
        self.page.reload(wait_until="commit")
        self.leaving = False


def page_is_clean(page: Watched, noise: Sequence[tuple[str, str]] = KNOWN_NOISE) -> None:
    """Asserts that nothing went wrong on the page, but for the listed noise."""
    ours = [line for line in page.seen if not any(re.fullmatch(pattern, line, re.DOTALL) for pattern, _ in noise)]
    assert not ours, "seen on the page:\n  " + "\n  ".join(ours)


@dataclass(frozen=True)
class Fault:
    """What axe finds wrong with a part of a page."""

    rule: str
    impact: str
    help: str
    target: str
    """Where: selectors, from the page inwards."""
    html: str
    why: str

    def __str__(self) -> str:
        return f"{self.impact}: {self.rule}: {self.help}\n      {self.target}\n      {self.html}\n      {self.why}"


GRAVE = ("serious", "critical")


def axe_faults(page: Watched, within: str | None = None, impacts: Sequence[str] = GRAVE) -> list[Fault]:
    """What axe-core finds on the page, or within a selector of it, of the given impacts."""
    axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.page.evaluate(axe_module.Axe().axe_script)
    found = page.page.evaluate(
        "async (within) => (await axe.run(within ?? document, { resultTypes: ['violations'] })).violations", within
    )
    return [
        Fault(
            rule=violation["id"], impact=str(node["impact"] or violation["impact"]), help=violation["help"],
            target=" > ".join(map(str, node["target"])), html=node["html"][:300],
            why="; ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind]),
        )
        for violation in found
        for node in violation["nodes"]
        if (node["impact"] or violation["impact"]) in impacts
    ]  # fmt: skip


def axe(page: Watched, within: str | None = None) -> None:
    """Asserts that axe-core finds nothing serious or critical on the page.

    Args:
        page: the page, as it stands at this moment: wait for what it shows first.
        within: a selector, such as the bench's on a page of JupyterLab, whose own markup is not ours to mend.
    """
    faults = axe_faults(page, within)
    assert not faults, f"{len(faults)} that axe finds grave on {page.page.url}:\n  " + "\n  ".join(map(str, faults))


def sideways(page: Watched) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def screenshot(page: Watched, name: str, *, full: bool = True) -> Path:
    """A picture of the page in ``./screenshots``, for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.page.screenshot(path=path, full_page=full)
    return path


def eventually(ask: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true answer; fails after ``seconds``, saying what was waited for and the last answer."""
    deadline = time.monotonic() + seconds
    answer: Any = None
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    pytest.fail(f"waited {seconds:.0f} s for {what}; the last answer was {answer!r}")


def _no_browser(why: str) -> None:
    if os.environ.get("SSL_LAB_REQUIRE_BROWSER") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    path = os.environ.get("SSL_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _no_browser("there is no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            # A root user in a container has neither a sandbox nor a large /dev/shm.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions"],
        )
        yield browser
        browser.close()


class Pages:
    """Opens pages that are watched from the first request on, and closes them at the end."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium
        self._opened: list[Watched] = []

    def __call__(self, url: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> Watched:
        scheme = "dark" if dark else "light"
        context = self._chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        page = Watched(context.new_page()).watch()
        self._opened.append(page)
        page.page.goto(url, wait_until="commit")
        return page

    def when_failed(self, test: str) -> Iterator[tuple[str, str]]:
        """What is on the pages now, as a picture each, and what happened on them."""
        for number, page in enumerate(self._opened, 1):
            place = f"failed-{re.sub(r'[^A-Za-z0-9]+', '-', test).strip('-')}-{number}"
            # A test that fails because of a page may have one of which no picture can be taken.
            try:
                picture = str(screenshot(page, f"{place}-{uuid.uuid4().hex[:4]}", full=False).relative_to(ROOT))
            except sync_api.Error as error:
                picture = f"no picture: {error.message.splitlines()[0]}"
            yield f"page {number}", "\n".join([page.page.url, picture, *page.seen])

    def close(self) -> None:
        """Closes them all."""
        for page in self._opened:
            page.page.context.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Pages]:
    """Opens pages that are watched from the first request on."""
    pages = Pages(chromium)
    yield pages
    pages.close()


# ---------------------------------------------------------------- servers


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    root: Path
    process: subprocess.Popen[bytes]
    log: Path

    def at(self, path: str) -> str:
        """The address of a path on it."""
        return f"{self.url}/{path.lstrip('/')}"

    def when_failed(self, _test: str) -> Iterator[tuple[str, str]]:
        """The end of what it has said."""
        yield f"log of {self.url}", self.log.read_text(errors="replace")[-6000:]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


@contextmanager
def server(command: Sequence[str], port: int, root: Path, env: Mapping[str, str], ready: str = "/") -> Iterator[Server]:
    """Runs a server on ``port`` until it is no longer needed, then ends it and all that it started."""
    log = root / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=root, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not _answers(url + ready):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not come up: {' '.join(command)}\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield Server(url, root, process, log)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], seconds: float = 20.0) -> int:
    """Asks a server to stop, with force after a while; gives its exit status."""
    children = _descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    # Kernels and engines have sessions of their own, so the server's end is not theirs.
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return process.wait()


def _descendants(pid: int) -> list[int]:
    """All that a process has started, by /proc; empty where there is none."""
    found: list[int] = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        try:
            children = [int(word) for word in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


VoilaCommand = Callable[[int, Path, Path | None], list[str]]


@pytest.fixture(scope="session")
def voila_command() -> VoilaCommand:
    """The command that serves the apps: (port, results, notebooks) -> words. Override it to serve in another way."""

    def command(port: int, results: Path, notebooks: Path | None) -> list[str]:
        folder = "None" if notebooks is None else f"Path({str(notebooks)!r})"
        code = (
            "from pathlib import Path; from lab.serve import serve; "
            f"serve(Path({str(results)!r}), port={port}, open_browser=False, notebooks={folder})"
        )
        return [sys.executable, "-c", code]

    return command


@pytest.fixture(scope="module")
def serve_voila(
    voila_command: VoilaCommand, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Starts Voila over a folder of notebooks (default: the lab's own); all are ended with the module."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(notebooks: Path | None = None, env: Mapping[str, str] | None = None) -> Server:
            root = tmp_path_factory.mktemp("voila")
            port = free_port()
            command = voila_command(port, root / "results", notebooks)
            # The ready address starts no kernel.
            return stack.enter_context(server(command, port, root, env or {}, ready="/voila/static/voila.js"))

        yield start


@pytest.fixture(scope="module")
def voila_server(serve_voila: Callable[..., Server]) -> Server:
    """Voila over the lab's notebooks."""
    return serve_voila()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``ssl-lab app``, as a person starts it."""
    root = tmp_path_factory.mktemp("app")
    port = free_port()
    command = [sys.executable, "-m", "ssl_lab.cli", "app", "--no-browser", "--port", str(port), "--results", str(root)]
    with server(command, port, root, {}, ready="/voila/static/voila.js") as running:
        yield running


def wait_for_kernels(at: Server, count: int, seconds: float = 90.0) -> None:
    """Waits until the server's log-free witness, its child processes, says that ``count`` kernels are running."""

    def kernels() -> bool:
        return len(kernel_pids(at)) >= count

    eventually(kernels, f"{count} kernels", seconds)


def kernel_pids(at: Server) -> list[int]:
    """The processes of a server's kernels."""
    found = []
    for pid in _descendants(at.process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"ipykernel" in words:
            found.append(pid)
    return found


@pytest.fixture(scope="module")
def serve_jupyterlab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts JupyterLab over a folder of its own, with none of the user's settings, and the network left alone."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(env: Mapping[str, str] | None = None, *, dark: bool = False) -> Server:
            root = tmp_path_factory.mktemp("jupyterlab")
            port = free_port()
            home = root / ".jupyter"
            settings = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
            settings.mkdir(parents=True)
            quiet = {"fetchNews": "false", "checkForUpdates": False}
            (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
            theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
            (settings / "themes.jupyterlab-settings").write_text(json.dumps(theme))
            command = [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
                "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={root}",
                "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                "--LabApp.extension_manager=readonly", "--ServerApp.log_level=WARN",
            ]  # fmt: skip
            own = {
                "JUPYTER_CONFIG_DIR": str(home),
                "JUPYTER_PREFER_ENV_PATH": "1",
                "SSL_LAB_RESULTS": str(root / "results"),
                **(env or {}),
            }
            return stack.enter_context(server(command, port, root, own, ready="/api"))

        yield start


@pytest.fixture(scope="module")
def jupyterlab_server(serve_jupyterlab: Callable[..., Server]) -> Server:
    """JupyterLab over an empty folder; put notebooks into its ``root``."""
    return serve_jupyterlab()


# ---------------------------------------------------------------- notebooks


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells."""
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{i}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": cell,
            }
            for i, cell in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))
    return path


def run_in_jupyterlab(open_page: Callable[..., Watched], at: Server, notebook: str, **how: Any) -> Watched:
    """Opens a notebook in JupyterLab, with the file browser out of the way, and runs all its cells."""
    page = open_page(at.at(f"lab/tree/{notebook}?reset"), **how)
    page.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    # Nothing runs before the kernel is there: the status bar and the toolbar's dot say so at different times.
    page.page.wait_for_selector(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    # A notebook that is run before it has its kernel asks which one it shall be.
    kernel = page.page.locator(".jp-NotebookPanel .jp-Toolbar-kernelName").first
    eventually(lambda: "Python" in kernel.inner_text(), "the notebook's kernel", 60.0)
    prompt = page.page.locator(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt").first

    def started() -> bool:
        # An order given while the session is still settling is dropped without a word.
        page.page.get_by_role("menuitem", name="Run", exact=True).click()
        page.page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()
        for _ in range(20):
            if str(prompt.inner_text()).strip("[]: ") != "":
                return True
            time.sleep(0.1)
        return False

    eventually(started, "the first cell to run", 60.0)
    return page
