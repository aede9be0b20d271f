"""A page without a browser: what Chromium was seen to send when it opens the bench, sent by a program.

``served`` runs a real ``ssl-lab app``; :class:`Visitor` is a page of it, and speaks as JupyterLab's widget manager and
``lab/static/browser.js`` do: the state of all widgets, the address, a beat every two seconds, an answer to each
picture that asks for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from benchmarks.app import _family, _words

T = TypeVar("T")

PROTOCOL = "v1.kernel.websocket.jupyter.org"
TOKEN = "a-word-of-the-harness"

APP = "import sys; from ssl_lab.cli import main; sys.exit(main(['app', '--no-browser', *sys.argv[1:]]))"

BARE = (
    "import sys; from pathlib import Path; from lab.serve import serve; "
    "serve(Path(sys.argv[1]), notebooks=Path(sys.argv[2]), port=int(sys.argv[3]), token=sys.argv[4], "
    "open_browser=False, preheat=int(sys.argv[5]))"
)
"""The server alone over a folder of notebooks, without an engine beside it."""


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def kernels(self) -> list[int]:
        """The processes of its kernels."""
        return [pid for pid in _family(self.pid) if b"ipykernel" in _words(pid)]


@contextlib.contextmanager
def served(
    results: Path,
    *options: str,
    planted: str = "",
    notebooks: Path | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float = 90.0,
    preheat: int = 0,
) -> Iterator[Served]:
    """The app over a folder of runs, as the command line starts it, with a token.

    Args:
        results: folder of the runs.
        options: further flags of ``ssl-lab app``.
        planted: Python that is run before, in the server's process: a fault.
        notebooks: serve these instead, without an engine.
        environment: added to that of this process.
        patience: seconds until it has to answer.
        preheat: kernels that are kept ready, of a server over other notebooks.
    """
    results.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    if notebooks is None:
        words = [APP, "--port", str(port), "--results", str(results), "--token", TOKEN, *options]
    else:
        words = [BARE, str(results), str(notebooks), str(port), TOKEN, str(preheat)]
    log = results.parent / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{planted}\n{words[0]}", *words[1:]],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not come up:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield Served(port, process.pid, log)
    finally:
        left = _family(process.pid)[1:]
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, 9)


def alone(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end, also beside a loop that runs in this thread, such as Playwright's."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(begin())).result()


async def get(at: Served, path: str, cookie: str = "", seconds: float = 60.0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an address, written to the wire just as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nConnection: close\r\n"
        head += f"Cookie: {cookie}\r\n" if cookie else ""
        writer.write((head + "\r\n").encode("utf-8", "surrogateescape"))
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), seconds)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    words = lines[0].split()
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(words[1]) if len(words) > 1 else 0, headers, body


async def cookie_of(at: Served) -> str:
    """What a browser remembers after it was let in."""
    _, headers, _ = await get(at, f"/?token={TOKEN}")
    return headers["set-cookie"].partition(";")[0]


def message(kind: str, content: Mapping[str, Any], session: str = "s", **more: Any) -> dict[str, Any]:
    """A message as a page makes one; ``more`` takes the place of its parts."""
    header = {
        "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": session, "username": "",
        "date": "2026-01-01T00:00:00.000Z", "version": "5.2", **more.pop("header", {}),
    }  # fmt: skip
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": [], **more}


def v1_frame(said: Mapping[str, Any], channel: str = "shell") -> bytes:
    """The framing that pages use."""
    parts = [channel.encode()]
    parts += [json.dumps(said[name]).encode() for name in ("header", "parent_header", "metadata", "content")]
    parts += [bytes(buffer) for buffer in said["buffers"]]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join([n.to_bytes(8, "little") for n in (len(offsets), *offsets)] + parts)


def read_v1(frame: bytes) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Channel, header, parent header and content."""
    count = int.from_bytes(frame[:8], "little")
    offsets = [int.from_bytes(frame[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    parts = [frame[a:b] for a, b in pairwise(offsets)]
    return parts[0].decode(), json.loads(parts[1]), json.loads(parts[2]), json.loads(parts[4])


@dataclass
class Visitor:
    """A page that is open."""

    at: Served
    cookie: str
    kernel: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """By which the visitor is known again."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every widget: its model's name, and the state it had when the page was opened."""
    asked: float = 0.0
    first_picture: float | None = None
    """Seconds from the request to the picture that showed the run."""
    pictures: int = 0
    run: str = ""
    trouble: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    stamped: float = 0.0
    _socket: Any = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _session: str = field(default_factory=lambda: uuid.uuid4().hex)
    _drawn: bool = False
    _picture: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def open(cls, at: Served, cookie: str, query: str = "", seconds: float = 60.0) -> Visitor:
        """Opens the bench.

        Raises:
            Closed: it was refused; says what the page said.
        """
        page = cls(at, cookie, asked=time.monotonic())
        status, _, body = await get(at, f"/voila/render/01-bench.ipynb{query}", cookie, seconds)
        found = re.search(rb'"kernelId":\s*"([\w-]+)"', body)
        if status != 200 or found is None:
            raise Closed(status, body.decode("utf-8", "replace"))
        page.kernel = found[1].decode()
        await page.connect(seconds)
        return page

    async def connect(self, seconds: float = 60.0) -> None:
        """Opens the socket, asks for all widgets, and says where the page is."""
        self._socket = await channel(self.at, self.kernel, self.cookie, self._session)
        states: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.append(asyncio.create_task(self._listen(states)))
        await self.say("kernel_info_request", {})
        control = await self.control()
        await self.say("comm_msg", {"comm_id": control, "data": {"method": "request_states"}})
        await asyncio.wait_for(states, seconds)
        await self.say("comm_close", {"comm_id": control, "data": {}})
        eyes = self.named("query", "painted")
        look = {"visible": True, "width": 1400, "dark": False}
        await self.set(eyes, {"painted": 0, "key": self.key, "query": {}})
        await self.set(eyes, {"alive": 1, **look})
        self._tasks.append(asyncio.create_task(self._beat(eyes, look)))

    async def control(self) -> str:
        """Opens the comm by which a page asks for all widgets."""
        comm = uuid.uuid4().hex
        await self.say(
            "comm_open", {"comm_id": comm, "target_name": "jupyter.widget.control", "data": {}},
            metadata={"version": "1.0.0"},
        )  # fmt: skip
        return comm

    async def say(self, kind: str, content: Mapping[str, Any], **more: Any) -> None:
        """Sends a message."""
        await self._socket.write_message(v1_frame(message(kind, content, self._session, **more)), binary=True)

    async def set(self, model: str, state: Mapping[str, Any]) -> None:
        """Changes a widget's traits, as a page does."""
        await self.say("comm_msg", {"comm_id": model, "data": {"method": "update", "state": state, "buffer_paths": []}})

    async def press(self, button: str) -> None:
        """Presses a button."""
        model = self.described(button)
        await self.say("comm_msg", {"comm_id": model, "data": {"method": "custom", "content": {"event": "click"}}})

    def named(self, *traits: str) -> str:
        """The widget that has these traits."""
        return next(name for name, model in self.models.items() if set(traits) <= set(model["state"]))

    def described(self, words: str) -> str:
        """The button with these words on it."""
        return next(
            name
            for name, model in self.models.items()
            if model["model_name"] == "ButtonModel" and model["state"].get("description") == words
        )

    async def until_picture(self, seconds: float = 60.0) -> None:
        """Waits for the picture that shows the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._picture.wait(), seconds)

    async def close(self) -> None:
        """Closes the page, which ends its kernel."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            # Until the server has said goodbye too.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_drain(self._socket), 5.0)

    async def _beat(self, eyes: str, look: Mapping[str, Any]) -> None:
        beats = 1
        while not self.closed.is_set():
            await asyncio.sleep(2.0)
            beats += 1
            await self.set(eyes, {"alive": beats, **look})

    async def _listen(self, states: asyncio.Future[None]) -> None:
        eyes = ""
        while True:
            frame = await self._socket.read_message()
            if frame is None:
                self.closed.set()
                self.trouble = f"the socket was closed: {self._socket.close_code} {self._socket.close_reason}"
                self._socket.close()
                return
            _, header, _, content = read_v1(frame)
            if header["msg_type"] != "comm_msg":
                continue
            data = content["data"]
            if data.get("method") == "update_states":
                self.models = data["states"]
                eyes = self.named("query", "painted")
                if not states.done():
                    states.set_result(None)
            elif data.get("method") in ("update", "echo_update"):
                await self._see(content["comm_id"], data, eyes)

    async def _see(self, model: str, data: Mapping[str, Any], eyes: str) -> None:
        state = data["state"]
        known = self.models.get(model)
        if known is not None and known["model_module"] == "bqplot" and self.run and data.get("buffer_paths"):
            self._drawn = True
        if model != eyes:
            return
        self.run = state.get("run") or self.run
        if "picture" in state:
            self.pictures += 1
            if self.run and self._drawn and self.first_picture is None:
                self.first_picture = time.monotonic() - self.asked
                self._picture.set()
            await self.set(eyes, {"painted": state["picture"]})


async def _drain(here: Any) -> None:
    while await here.read_message() is not None:
        pass


class Closed(Exception):
    """A page that was refused."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body[:200]}")
        self.status, self.body = status, body


async def channel(
    at: Served, kernel: str, cookie: str, session: str, protocols: Sequence[str] = (PROTOCOL,), origin: str | None = ""
) -> Any:
    """A socket to a kernel; a page's own origin unless told otherwise."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    headers = {"Cookie": cookie} if cookie else {}
    if origin is not None:
        headers["Origin"] = origin or at.url
    url = f"ws://{urlsplit(at.url).netloc}/api/kernels/{kernel}/channels?session_id={session}"
    return await websocket_connect(
        HTTPRequest(url, headers=headers, request_timeout=60, connect_timeout=60),
        subprotocols=list(protocols), max_message_size=100_000_000,
    )  # fmt: skip


def memory(pid: int) -> int:
    """Proportional set size of a process, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
