"""Who comes in: the whole server, with all its routes, in this process, asked by a client without manners."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from benchmarks.trust.client import alone
from lab.gallery import names
from lab.gate import HEADERS, is_loopback, is_plain
from lab.house import House
from lab.pool import Place
from lab.serve import CULL_AFTER, LABEXTENSIONS, TEMPLATES, _house, _Server, _token, jupyter_config
from ssl_lab.errors import SSLLabError

TOKEN = "a-word-for-tests"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


class _Built(_Server):
    """Built and not started: it listens where the test says, as long as the test runs."""

    def listen(self) -> None:
        self.port = 8866


async def ask(port: int, path: str, *lines: str, method: str = "GET", host: str = "") -> Answer:
    """Writes a request just as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", "Connection: close", *lines]
    if method == "POST":
        head.append("Content-Length: 0")
    writer.write("\r\n".join([*head, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    top, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    first, *rest = top.split("\r\n")
    pairs = (line.split(": ", 1) for line in rest if ": " in line)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)


Use = Callable[[_Built, int], Awaitable[None]]


@pytest.fixture
def behind_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a coroutine with the server and its port."""
    monkeypatch.setenv("JUPYTER_PATH", str(TEMPLATES))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setattr("lab.gate.SLOW", 0.0)
    # Only a main thread may say what a signal does, and this server has none of its own.
    monkeypatch.setattr("signal.signal", lambda *_: None)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "01-bench.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')

    def run(
        use: Use, *, token: str = "", ip: str = "127.0.0.1", most: int | None = 3, front: str | None = "01-bench.ipynb"
    ) -> None:
        async def go() -> None:
            app = _Built(config=jupyter_config())
            app.root_dir, app.ip, app.front = str(folder), "127.0.0.1", front
            app.house, app.gate_token, app.preheat = House(served=True, max_visitors=most), token, 0
            app.config_file_paths = []
            app.initialize([])
            app.start()
            socket, app.port = bind_unused_port()
            server = HTTPServer(app.gate())
            server.add_sockets([socket])
            try:
                await use(app, app.port)
            finally:
                server.stop()
                await server.close_all_connections()

        alone(go)

    return run


KERNEL = "8fe28e53-fcdd-4c3f-9d91-f24304fd6976"


def addresses(app: _Server) -> list[str]:
    """An address for each route of the running application."""
    rules = [inner for rule in app.app.default_router.rules for inner in getattr(rule.target, "rules", [])]
    found = []
    for rule in rules:
        text = getattr(rule.matcher, "regex", re.compile("/")).pattern.rstrip("$")
        text = re.sub(r"\(\?P<kernel_id>.*?\)", KERNEL, text)
        text = re.sub(r"\(\(\?:([^|)]*)[^)]*\)/\.\+\)", r"\1/x.js", text)
        text = re.sub(r"\((ssl-lab/static/)\.\+\)", r"\1x.css", text)
        found.append(re.sub(r"\(.*?\)", "01-bench.ipynb", text).replace("\\", ""))
    return found


def test_without_the_token_nothing_answers(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, port: int) -> None:
        routes = addresses(app)
        assert len(routes) >= 8, routes
        assert "/" in routes
        assert f"/api/kernels/{KERNEL}/channels" in routes
        socket = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
        for path in [*routes, "/voila/static/voila.js", "/nowhere", "/login"]:
            for lines in ((), socket, (f"Cookie: ssl-lab-{port}=guess",), ("Authorization: token x",)):
                for method in ("GET", "HEAD", "POST"):
                    answer = await ask(port, path, *lines, method=method)
                    assert answer.status == 403, (method, path, lines, answer.status)
            for asked in ("?token=", "?token=wrong-word", f"?token={TOKEN}&token=wrong"):
                assert (await ask(port, path + asked)).status == 403
        assert "write its token here" in (await ask(port, "/")).body
        assert app.kernel_manager.list_kernel_ids() == [], "nobody got a kernel"

    behind_gate(use, token=TOKEN)


def test_the_token_lets_in_once_and_a_cookie_from_then_on(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, port: int) -> None:
        first = await ask(port, f"/?run=a%20b&token={TOKEN}&step=3&key=k")
        assert first.status == 302
        assert first.headers["location"] == "/?run=a%20b&step=3&key=k", "what the link asks for goes along"
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert TOKEN not in cookie
        shown = f"Cookie: other=1; {cookie.partition(';')[0]}"
        second = await ask(port, "/?run=a%20b&step=3", shown)
        assert (second.status, second.headers["location"]) == (302, "/voila/render/01-bench.ipynb?run=a%20b&step=3")
        assert (await ask(port, "/voila/static/voila.js", shown)).status == 200
        assert (await ask(port, f"/api/kernels/{KERNEL}", shown)).status == 404
        # Deep in the house the token lets in as well, and stays on the way.
        deep = await ask(port, f"/voila/render/01-bench.ipynb?token={TOKEN}")
        assert (deep.status, deep.headers["location"]) == (302, "/voila/render/01-bench.ipynb")

    behind_gate(use, token=TOKEN)


def test_another_site_gets_nothing_of_a_bench_at_home(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, port: int) -> None:
        own = f"http://127.0.0.1:{port}"
        assert (await ask(port, "/")).status == 302
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "192.168.1.7", "[::]", "a b"):
            answer = await ask(port, "/", host=host)
            assert answer.status in (400, 403), host
        for host in (f"localhost:{port}", "localhost", f"[::1]:{port}", "127.8.8.8"):
            assert (await ask(port, "/", host=host)).status == 302, host
        channels = f"/api/kernels/{KERNEL}/channels"
        for origin in ("http://evil.example", "null", f"http://localhost:{port}", f"http://127.0.0.1:{port + 1}"):
            socket = (f"Origin: {origin}", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
            assert (await ask(port, channels, *socket)).status == 403, origin
            goodbye = await ask(port, f"/voila/api/shutdown/{KERNEL}", f"Origin: {origin}", method="POST")
            assert goodbye.status == 403, origin
        assert (await ask(port, f"/voila/api/shutdown/{KERNEL}", f"Origin: {own}", method="POST")).status == 204
        # A picture or a frame of another site; a link on it is followed.
        page = "/voila/render/01-bench.ipynb"
        for site, kind in (("cross-site", "image"), ("cross-site", "iframe"), ("same-site", "empty")):
            assert (await ask(port, page, f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Dest: {kind}")).status == 403
        assert (await ask(port, "/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document")).status == 302
        assert (await ask(port, page, "Sec-Purpose: prefetch;prerender")).status == 503
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await ask(port, f"/api/kernels/{KERNEL}", method=method)).status == 405
        assert app.kernel_manager.list_kernel_ids() == []

    behind_gate(use)


def test_every_answer_says_how_it_may_be_used(behind_gate: Callable[..., None]) -> None:
    async def use(_app: _Built, port: int) -> None:
        for path in (
            "/",
            "/voila/static/voila.js",
            f"/api/kernels/{KERNEL}",
            "/nowhere",
            "/voila/render/x.ipynb",
            "/../x",
        ):
            answer = await ask(port, path)
            for name, value in HEADERS.items():
                assert answer.headers[name.lower()] == value, (path, name)
            assert "server" not in answer.headers
            if "html" in answer.headers["content-type"]:
                assert answer.headers["cache-control"] == "no-store", path

    behind_gate(use)


def test_there_are_no_other_doors(behind_gate: Callable[..., None]) -> None:
    async def use(_app: _Built, port: int) -> None:
        for path in (
            "/voila/files/01-bench.ipynb", "/voila/tree", "/voila/api/contents/", "/voila/api/themes/x", "/login",
            "/logout", "/api/kernels", "/api/contents", f"/voila/query/{KERNEL}", f"/voila/execution/{KERNEL}",
            "/voila/templates/lab/static/index.css", "/voila/labextensions/@jupyterlab/x/y.js",
            f"/api/kernels/{KERNEL}/restart", f"/api/kernels/{KERNEL}/interrupt", "/files/x",
            "/voila/render/other.ipynb", "/voila/render/01-bench", "/voila/render/", "/static/x",
        ):  # fmt: skip
            answer = await ask(port, path)
            assert answer.status == 404, path
            assert "There is no such page" in answer.body
        assert (await ask(port, "/voila/templates/ssl-lab/static/index.css")).status == 200

    behind_gate(use)


def test_the_one_too_many_is_told_so_and_gets_no_kernel(
    behind_gate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.routes.LEAVING", 0.0)

    async def use(app: _Built, port: int) -> None:
        app.kernel_manager._places += [Place(), Place(), Place()]
        answer = await ask(port, "/voila/render/01-bench.ipynb")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "10"
        assert "The house is full" in answer.body
        assert "3 pages are open" in answer.body
        assert '<meta http-equiv="refresh" content="10">' in answer.body
        assert app.kernel_manager.list_kernel_ids() == []

    behind_gate(use)


def test_the_list_of_notebooks_is_of_our_own(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, port: int) -> None:
        folder = Path(app.root_dir)
        (folder / "two.ipynb").write_text("{}")
        (folder / "link.ipynb").symlink_to("/etc/passwd")
        (folder / "notes.txt").write_text("x")
        assert names(folder) == ["01-bench.ipynb", "two.ipynb"]
        answer = await ask(port, "/")
        assert 'href="/voila/render/two.ipynb"' in answer.body
        assert "link" not in answer.body.partition('id="notebooks"')[2].partition("</section>")[0]
        assert (await ask(port, "/voila/render/link.ipynb")).status == 404

    behind_gate(use, front=None)


def test_what_is_known_to_be_dangerous_is_off(behind_gate: Callable[..., None]) -> None:
    async def use(app: _Built, _port: int) -> None:
        voila, kernels = app.voila_configuration, app.kernel_manager
        assert (voila.allow_template_override, voila.allow_theme_override) == ("NO", "NO")
        assert voila.file_allowlist == []
        assert voila.strip_sources
        assert not voila.show_tracebacks
        assert not kernels.buffer_offline_messages
        assert (kernels.cull_idle_timeout, kernels.cull_connected, kernels.cull_busy) == (CULL_AFTER, True, False)
        assert voila.extension_allowlist == list(LABEXTENSIONS)

    behind_gate(use)


# ------------------------------------------------------------------ rules without a server


@pytest.mark.parametrize(
    ("ip", "home"),
    [
        ("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("LOCALHOST", True), ("", False),
        ("0.0.0.0", False), ("::", False), ("192.168.0.2", False), ("localhost.evil.example", False), ("lab-3", False),
    ],
)  # fmt: skip
def test_what_is_a_home(ip: str, home: bool) -> None:
    assert is_loopback(ip) is home


def test_a_class_has_a_token_a_key_and_bounds_and_a_home_has_none() -> None:
    assert _token("127.0.0.1", None) == ""
    assert _token("127.0.0.1", "") == ""
    assert len(_token("0.0.0.0", None)) >= 20
    assert _token("0.0.0.0", None) != _token("0.0.0.0", None)
    assert _token("0.0.0.0", "our-class") == "our-class"
    for ip in ("0.0.0.0", "", "::", "192.168.0.2"):
        with pytest.raises(SSLLabError, match="without a token"):
            _token(ip, "")
    with pytest.raises(SSLLabError, match="soon guessed"):
        _token("127.0.0.1", "abc")
    home, key = _house("127.0.0.1", None, 40, None, None)
    assert (home, key) == (House(served=True, max_visitors=40), "")
    of_class, key = _house("0.0.0.0", None, 30, None, None)
    assert of_class.own_only
    assert (of_class.max_runs, of_class.max_bytes, of_class.max_visitors) == (20, 500_000_000, 30)
    assert len(key) >= 20
    assert of_class.host_key not in ("", key)
    shared, key = _house("0.0.0.0", False, 30, 5, 7)
    assert (shared.own_only, shared.host_key, key) == (False, "", "")
    assert (shared.max_runs, shared.max_bytes) == (5, 7)
    assert _house("::1", True, 30, None, None)[0].own_only


@pytest.mark.parametrize(
    "path", ["/", "/voila/static/a-b.js", "/voila/labextensions/@a/b/c%20d.js", "/x/Übung%20(1).ipynb"]
)
def test_a_plain_path(path: str) -> None:
    assert is_plain(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "x", "//x", "/a//b", "/../x", "/a/..", "/%2e%2e/x", "/%252e%252e/x", "/..%2fx", "/a\\b", "/a%5cb",
        "/a%00b", "/a%0ab",
        "/.hidden", "/a/.git/config", "/~root", "/%c0%ae%c0%ae/x", "/a%25b", "/%2f%2fevil.example", "*",
    ],
)  # fmt: skip
def test_a_path_that_is_not(path: str) -> None:
    assert not is_plain(path)


def test_two_addresses_for_a_class_and_one_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "lab-3")
    app = _Server(config=jupyter_config())
    app.ip, app.port, app.query = "0.0.0.0", 8866, {"run": "first run"}
    app.gate_token, app.host_key = "T+T", "K"
    assert app.addresses() == (
        "http://lab-3:8866/?token=T%2BT&run=first+run", "http://lab-3:8866/?token=T%2BT&key=K&run=first+run",
    )  # fmt: skip
    app.ip, app.gate_token, app.host_key, app.query = "127.0.0.1", "", "", {}
    assert app.addresses() == ("http://127.0.0.1:8866/", "")
    assert "JUPYTER_TOKEN" not in os.environ
