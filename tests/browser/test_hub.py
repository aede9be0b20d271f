"""A class on a real JupyterHub: the shipped configuration, the real proxy, an instructor and two students in Chromium.

The students see the instructor's run move; one of them forks it and goes on alone, and can steer the instructor's
neither by what the page has nor by what it has not.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from ssl_lab.store import RunStore, open_run
from tests.browser.bench_page import curves, engine_value, press, ready, state, step
from tests.browser.conftest import (
    Server,
    Watched,
    _no_browser,
    axe,
    eventually,
    free_port,
    page_is_clean,
    screenshot,
    server,
    sideways,
)

ROOT = Path(__file__).resolve().parents[2]
STUDENTS, INSTRUCTOR = "a-word-for-all", "a-word-for-the-instructor-alone-of-32"

NOISE = (
    (
        r"failed request: GET http://127\.0\.0\.1:\d+/hub/api/users/\w+/server/progress\S*: net::ERR_ABORTED",
        "JupyterHub's own page of a server that starts leaves off listening when it has started",
    ),
)

RANK = "Effective rank of F"

PATIENCE = 120_000
"""Milliseconds for whatever waits for a server to start: three of them do, and two cores are few for that."""


@dataclass(frozen=True)
class Hub:
    """A running hub, and what it keeps."""

    at: Server
    home: Path

    @property
    def stage(self) -> Path:
        return self.home / "stage"

    def run(self, user: str, name: str) -> RunStore:
        return open_run(name, self.home / "users" / user / "results", readonly=True)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """JupyterHub as ``hub/jupyterhub_config.py`` sets it up, on ports of its own."""
    pytest.importorskip("jupyterhub")
    if shutil.which("configurable-http-proxy") is None:
        _no_browser("there is no configurable-http-proxy on the PATH: npm install -g configurable-http-proxy")
    root = tmp_path_factory.mktemp("hub")
    home, port = root / "class", free_port()
    command = [
        sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "hub" / "jupyterhub_config.py"),
        f"--JupyterHub.bind_url=http://127.0.0.1:{port}", f"--JupyterHub.hub_port={free_port()}",
        f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{free_port()}",
    ]  # fmt: skip
    settings = {
        "SSL_LAB_HUB_DIR": str(home),
        "SSL_LAB_HUB_PASSWORD": STUDENTS,
        "SSL_LAB_HUB_INSTRUCTOR_PASSWORD": INSTRUCTOR,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        # What runs the tests may have settings of its own for the processes that are started here.
        "PYTHONWARNINGS": "",
    }
    with server(command, port, root, settings, ready="/hub/login") as running:
        try:
            # The proxy is there before the hub, and says that it knows no such page.
            eventually(lambda: "username_input" in text_of(running.at("/hub/login")), "the hub's door", 90)
            yield Hub(running, home)
        finally:
            # Engines outlive the servers of the pages that started them.
            for pid in with_stage(home / "stage"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def text_of(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def with_stage(stage: Path) -> list[int]:
    """Servers, kernels and engines of a hub."""
    mark = f"SSL_LAB_STAGE={stage}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def kernels(hub: Hub, user: str) -> list[int]:
    """Kernels of a user's pages."""
    mark = f"SSL_LAB_RESULTS={hub.home / 'users' / user / 'results'}".encode()
    found = []
    for pid in with_stage(hub.stage):
        with contextlib.suppress(OSError):
            proc = Path(f"/proc/{pid}")
            if mark in (proc / "environ").read_bytes().split(b"\0") and b"ipykernel" in (proc / "cmdline").read_bytes():
                found.append(pid)
    return found


def sign_in(open_page: Callable[..., Watched], hub: Hub, name: str, password: str, **how: object) -> Watched:
    """Signs somebody in, whose server then starts: :func:`arrived` waits for it."""
    page = open_page(hub.at.at("/hub/login?next=%2Fhub%2Fspawn"), **how)
    page.page.set_default_timeout(PATIENCE)
    page.page.fill("#username_input", name)
    page.page.fill("#password_input", password)
    page.page.click("#login_submit", no_wait_after=True)
    return page


def arrived(page: Watched) -> None:
    page.page.wait_for_selector("h2#notebooks", timeout=PATIENCE)


def go(page: Watched, address: str) -> None:
    page.leaving = True
    page.page.goto(address, wait_until="commit")
    page.leaving = False
    page.page.wait_for_selector(".ssl-bench .bqplot", timeout=PATIENCE)
    page.page.wait_for_selector("#loading", state="detached", timeout=PATIENCE)


def banner(page: Watched) -> str:
    return " ".join(page.page.locator(".ssl-banner p").all_inner_texts())


def stage_words(page: Watched) -> str:
    words = page.page.locator(".ssl-stage-words")
    return str(words.inner_text()) if words.count() else ""


def moves(page: Watched, what: str) -> None:
    """Steps rise, and the picture changes."""
    before, drawn = step(page), curves(page, RANK)
    eventually(lambda: step(page) > before and curves(page, RANK) != drawn, f"{what} to move", 60)


EXECUTE = """async ([address, code]) => new Promise((resolve) => {
  const socket = new WebSocket(address);
  const id = crypto.randomUUID();
  socket.onopen = () => socket.send(JSON.stringify({
    channel: "shell", parent_header: {}, metadata: {}, buffers: [],
    header: { msg_id: id, msg_type: "execute_request", username: "", session: id, version: "5.3", date: "" },
    content: { code, silent: false, store_history: false, user_expressions: {}, allow_stdin: false },
  }));
  socket.onmessage = (event) => {
    // Pictures come as bytes.
    if (typeof event.data !== "string") return;
    const message = JSON.parse(event.data);
    if (message.parent_header.msg_id === id && message.msg_type === "execute_reply") {
      socket.close();
      resolve(message.content.evalue ?? "it was done");
    }
  };
})"""


def kernel(page: Watched) -> str:
    return str(page.page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"))


def forge(page: Watched) -> None:
    """What a page's own controls would say, were they not disabled: real messages through the page's own socket."""
    page.page.evaluate(
        """() => {
          const all = [...document.querySelectorAll(".ssl-bench button")];
          for (const name of ["Pause", "Step", "10 steps"]) {
            const button = all.find((b) => b.textContent.trim() === name);
            button.disabled = false;
            button.click();
          }
          const select = document.querySelector(".ssl-knob-predictor select");
          select.disabled = false;
          select.selectedIndex = [...select.options].findIndex((o) => o.textContent === "none");
          select.dispatchEvent(new Event("change", { bubbles: true }));
        }"""
    )
    page.page.locator("body").press(".")
    page.page.locator("body").press(" ")


@pytest.mark.timeout(420)
def test_a_class_follows_the_instructor(hub: Hub, open_page: Callable[..., Watched]) -> None:
    # All at once: servers take their time to start.
    teacher = sign_in(open_page, hub, "teacher", INSTRUCTOR)
    ann = sign_in(open_page, hub, "ann", STUDENTS)
    bob = sign_in(open_page, hub, "bob", STUDENTS)
    arrived(teacher)
    base = "/user/teacher/ssl-lab/01-bench.ipynb"
    teacher.page.get_by_role("link", name="The bench", exact=True).click(no_wait_after=True)

    # Ann's page waits, at the address that is handed out; Bob looks at something else; neither needs an engine.
    arrived(ann)
    go(ann, hub.at.at("/hub/user-redirect/ssl-lab/?follow=1"))
    eventually(lambda: "Nothing is shown yet" in stage_words(ann), "the page to wait")
    assert ann.page.get_by_role("button", name="Run", exact=True).is_disabled()
    arrived(bob)
    axe(bob)
    # All that leads on stays on Bob's own server, but for the way out.
    links = bob.page.locator("a[href]:not([href^='#'])").evaluate_all("all => all.map(a => new URL(a.href).pathname)")
    assert len(links) > 8
    assert {path for path in links if not path.startswith("/user/bob/")} == {"/hub/logout"}
    go(bob, hub.at.at(f"/user/bob/ssl-lab/01-bench.ipynb?run={quote('recording: collapse-and-return')}"))

    ready(teacher)
    assert base in teacher.page.url
    press(teacher, "Run")
    press(teacher, "Show to the class")
    eventually(lambda: "The class sees this run" in stage_words(teacher), "the instructor's page to say so", 60)
    name = teacher.page.locator(".ssl-headline b").first.inner_text()

    # Ann follows by herself, Bob when he is told and wants to.
    eventually(lambda: "You follow the instructor" in stage_words(ann), "the run on Ann's page", 60)
    eventually(lambda: "The instructor shows" in stage_words(bob), "word of it on Bob's page", 60)
    screenshot(bob, "hub-student-told")
    press(bob, "Follow")
    eventually(lambda: "You follow the instructor" in stage_words(bob), "the run on Bob's page", 60)
    for student in (ann, bob):
        moves(student, "the instructor's run")
        assert student.page.locator(".ssl-headline b").first.inner_text() == f"instructor: {name}"
        assert "The instructor steers this run. Fork here to go on with one of your own." in banner(student)

    # A knob that the instructor turns is turned on their pages too.
    teacher.page.locator(".ssl-knob-predictor select").select_option("DirectCopy")
    for student in (ann, bob):
        eventually(lambda: engine_value(student, "predictor") == "directcopy", "the turned knob", 60)  # noqa: B023
    screenshot(teacher, "hub-instructor-1400-light")
    screenshot(bob, "hub-student-1400-light")

    # Nothing that Bob does reaches the run.
    buttons = bob.page.locator(".ssl-left .ssl-buttons button")
    for control in ("Run", "Pause", "Step", "10 steps"):
        assert buttons.get_by_text(control, exact=True).is_disabled()
    assert bob.page.locator(".ssl-knob-predictor select").is_disabled()
    assert bob.page.locator(".ssl-knob input:enabled, .ssl-knob .noUi-target:not([disabled])").count() == 0
    with hub.run("teacher", name) as run:
        commands = list(run.rows("SELECT count(*) FROM commands"))
    forge(bob)
    mine = hub.at.at(f"/user/bob/api/kernels/{kernel(bob)}/channels").replace("http", "ws")
    copied, original = hub.stage / name, hub.home / "users" / "teacher" / "results" / name
    said = bob.page.evaluate(
        EXECUTE, [mine, f"from ssl_lab.store import RunStore; RunStore.open({str(copied)!r}).send('pause')"]
    )
    assert "nothing can be asked of the run here" in said
    said = bob.page.evaluate(
        EXECUTE,
        [
            mine,
            "from pathlib import Path; from ssl_lab.stage import Audience\n"
            f"audience = Audience(Path({str(hub.stage)!r})); audience.open(audience.look()).send('set', {{'lr': 1.0}})",
        ],
    )
    assert "is open for reading only" in said
    # The instructor's server does not know Bob.
    theirs = f"/user/teacher/api/kernels/{kernel(teacher)}"
    assert bob.page.request.get(hub.at.at("/user/teacher/api/kernels")).status == 403
    assert bob.page.request.get(hub.at.at(f"{theirs}/channels")).status == 403
    assert bob.page.request.post(hub.at.at(f"{theirs}/interrupt")).status == 403
    moves(bob, "the instructor's run all the same")
    assert state(teacher) == "running"
    assert engine_value(teacher, "predictor") == "directcopy"
    with hub.run("teacher", name) as run:
        assert list(run.rows("SELECT count(*) FROM commands")) == commands
        assert [event.changes for event in run.events()] == [{"predictor": "directcopy"}]
    assert original.is_dir()

    # Bob's own fork goes on in Bob's own engine.
    press(bob, "Fork here")
    eventually(lambda: f"run={name}-fork-1" in bob.page.evaluate("location.search"), "the fork's address", 60)
    ready(bob)
    eventually(lambda: "The instructor shows" in stage_words(bob), "a way back")
    begun = step(bob)
    with hub.run("bob", f"{name}-fork-1") as fork:
        assert fork.parent is not None
        assert fork.parent.name == name
        assert fork.parent.step == begun > 0
    press(bob, "Run")
    eventually(lambda: step(bob) > begun + 5, "steps of the fork", 90)
    bob.page.locator(".ssl-knob-predictor select").select_option("none")
    eventually(lambda: engine_value(bob, "predictor") == "none", "a knob of Bob's own", 60)
    moves(teacher, "the instructor's own page")
    assert engine_value(teacher, "predictor") == "directcopy"
    press(bob, "Pause")
    screenshot(bob, "hub-student-fork")

    # What a student's page looks like, wide and narrow, by day and by night.
    moves(ann, "the run on Ann's page")
    axe(ann)
    for page, who in ((ann, "student"), (teacher, "instructor")):
        for width, scheme in ((1400, "dark"), (420, "light"), (420, "dark"), (380, "light")):
            page.page.set_viewport_size({"width": width, "height": 900})
            page.page.emulate_media(color_scheme=scheme)
            eventually(lambda: sideways(page) == 0, f"a page of {width} pixels", 10)  # noqa: B023
            if width != 380:
                time.sleep(0.3)
                screenshot(page, f"hub-{who}-{width}-{scheme}")
    axe(teacher)

    press(teacher, "Stop showing")
    eventually(lambda: "The instructor has stopped showing this run" in stage_words(ann), "the end of it", 60)
    last = step(ann)
    assert re.search("no longer shown", ann.page.locator(".ssl-headline").inner_text())
    assert [path.name for path in hub.stage.iterdir() if path.name != ".stage.lock"] == ["stage.json"]
    assert last > 0
    for page in (teacher, ann, bob):
        page_is_clean(page, NOISE)

    # A page that is closed leaves no kernel behind on its student's server.
    assert kernels(hub, "bob")
    bob.leaving = True
    bob.page.close(run_before_unload=True)
    eventually(lambda: not kernels(hub, "bob"), "the kernel of a closed page to end", 60)
    assert kernels(hub, "ann")
