"""The doors of the house: all that the server answers, and nothing else.

Voila has more of them (files, folders, themes, a login); what the bench's pages do not need is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import tornado.web
from jupyter_client.jsonutil import json_default
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamBufferFullError
from tornado.websocket import WebSocketClosedError
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from lab.gallery import Gallery, address, names
from lab.gate import NO_SUCH_PAGE, Refusal, refuse
from lab.guard import MOST_REFUSED, MOST_SOCKETS, Guard
from lab.links import WORDS as BENCH_WORDS
from lab.messages import PROTOCOL
from lab.pool import Kernels

log = logging.getLogger(__name__)

TRY_AGAIN = 10
"""Seconds after which a page that found no place asks again."""

LEAVING = 2.0
"""Seconds for which a page waits for a place: one that is reloaded comes before it has left."""

MOST_WAITING = 32 * 1024 * 1024
"""Most bytes that wait for a page that reads more slowly than its kernel writes; then its socket is closed."""

TOO_MUCH = 1008
"""How a socket that is closed says that what came was against the rules."""

_KERNEL = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"


def doors(
    *,
    notebooks: Path,
    gallery: Gallery,
    front: str | None,
    bench: str,
    server_url: str,
    base_url: str,
    most: int | None,
    template: str,
    static_paths: Sequence[str],
    extensions: Sequence[str],
    extension_paths: Sequence[str],
    page: dict[str, Any],
) -> list[tuple[Any, ...]]:
    """The routes of the application.

    Args:
        notebooks: the folder whose notebooks are pages.
        gallery: what the front page shows.
        front: the notebook behind the bare address; None for the front page.
        bench: the notebook that is the bench.
        server_url: where the server's addresses begin.
        base_url: where they begin for the browser.
        most: places in the house.
        template: the template whose files the page loads.
        static_paths: folders of Voila's own files.
        extensions: names of the JupyterLab extensions that the page loads.
        extension_paths: folders in which they lie.
        page: what Voila's handler of pages wants to know.
    """
    guards = Guards()

    def at(path: str) -> str:
        return url_path_join(server_url, path)

    first: tuple[Any, ...] = (
        (server_url, Front, {"gallery": gallery, "notebooks": notebooks, "bench": bench, "base_url": base_url})
        if front is None
        else (server_url, ToFront, {"to": url_path_join(base_url, "voila/render", quote(front))})
    )
    listed = "|".join(name.replace(".", r"\.") for name in extensions)
    return [
        first,
        (at(r"/voila/render/(.+)"), Page, {"notebooks": notebooks, "most": most, **page}),
        (at(rf"/api/kernels/{_KERNEL}"), Kernel),
        (at(rf"/api/kernels/{_KERNEL}/channels"), Channels, {"guards": guards}),
        (at(r"/voila/api/shutdown/([\w-]+)"), Goodbye),
        (at(rf"/voila/templates/({template}/static/.+)"), TemplateFile),
        (at(r"/voila/static/(.+)"), MultiStaticFileHandler, {"paths": list(static_paths)}),
        (at(rf"/voila/labextensions/((?:{listed})/.+)"), FileFindHandler, {"path": list(extension_paths)}),
    ]


class Guards:
    """A guard for each kernel, as long as there is a socket to it, and a while longer if it was given something."""

    def __init__(self) -> None:
        self._guards: dict[str, Guard] = {}

    def of(self, kernel: str, alive: Callable[[str], bool]) -> Guard:
        """The kernel's guard; those of kernels that have ended are forgotten."""
        for gone in [name for name in self._guards if not alive(name)]:
            del self._guards[gone]
        return self._guards.setdefault(kernel, Guard())


class ToFront(tornado.web.RequestHandler):
    """One notebook is the front: the address without a path leads to it, with a link's parameters."""

    def initialize(self, to: str) -> None:
        self._to = to

    def get(self) -> None:
        query = self.request.query
        self.redirect(f"{self._to}?{query}" if query else self._to)


class Front(tornado.web.RequestHandler):
    """The front page; an address that asks for something of the bench leads there, with all that it asks for."""

    def initialize(self, gallery: Gallery, notebooks: Path, bench: str, base_url: str) -> None:
        self._gallery, self._notebooks, self._bench, self._base_url = gallery, notebooks, bench, base_url

    async def get(self) -> None:
        query = self.request.query
        asked = parse_qs(query, keep_blank_values=True)
        render = url_path_join(self._base_url, "voila/render")
        there = self._bench in names(self._notebooks)
        if there and asked.keys() & BENCH_WORDS:
            self.redirect(f"{url_path_join(render, quote(self._bench))}?{query}")
            return
        along = urlencode([(name, asked[name][-1]) for name in ("theme", "voila-theme") if name in asked])
        page = await self._gallery.page()
        template = self.settings["voila_jinja2_env"].get_template("gallery.html")
        assets = self.settings["assets"]
        self.finish(
            template.render(
                **page, **assets, base_url=self._base_url, home=self._base_url, render=render, along=along, bench=there,
                address=address, places=(),
            )
        )  # fmt: skip


class Page(TornadoVoilaHandler):  # type: ignore[misc]
    """A notebook as a page, with a kernel of its own, if there is a place for it."""

    def initialize(self, notebooks: Path, most: int | None, **page: Any) -> None:
        super().initialize(**page)
        self._notebooks, self._most = notebooks, most

    @tornado.web.authenticated
    async def get(self, path: str | None = None) -> None:
        if path not in names(self._notebooks):
            self.finish(refuse(self, NO_SUCH_PAGE))
            return
        kernels: Kernels = self.kernel_manager
        place = await kernels.enter(LEAVING)
        if place is None:
            self.finish(refuse(self, full(self._most)))
            return
        with kernels.seated(place):
            async for html in self.get_generator(path=path):
                self.write(html)
                self.flush()


def full(most: int | None) -> Refusal:
    """What a visitor reads who is one too many."""
    return Refusal(
        status=503, title="The house is full", again=TRY_AGAIN,
        words=f"{most} page{'s are' if most != 1 else ' is'} open, which is as many as this machine serves. This page "
        "opens the bench when another one closes: leave it open, or come back later.",
    )  # fmt: skip


class Kernel(KernelHandler):
    """Says to a page whether its kernel is still there. It is ended by closing the page, not by a request for that."""

    SUPPORTED_METHODS = ("GET",)

    async def get(self, kernel_id: str) -> None:
        if kernel_id not in self.kernel_manager:
            raise tornado.web.HTTPError(404)
        kernels: Any = self.kernel_manager
        model = await ensure_async(kernels.kernel_model(kernel_id))
        self.finish(json.dumps(model, default=json_default))


class Goodbye(VoilaShutdownKernelHandler):  # type: ignore[misc]
    """Ends the kernel of a page that was closed or reloaded.

    Voila asks for a token that a server without a password never gave to the page (voila issue 1458), so that every
    closed page would leave its kernel behind until it is culled. The gate has looked at where the request comes from.
    """

    def check_xsrf_cookie(self) -> None:
        return None

    async def post(self, kernel_id: str) -> None:
        if kernel_id in self.kernel_manager:
            await super().post(kernel_id)
        else:
            self.set_status(204)


class TemplateFile(TemplateStaticFileHandler):  # type: ignore[misc]
    """A file of our template."""

    def parse_url_path(self, path: str) -> str:
        if len(path.split("/", 2)) < 3:
            raise tornado.web.HTTPError(404)
        return str(super().parse_url_path(path))


class Channels(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A page's messages to its kernel, as far as a page has any business to send them, and what the kernel answers.

    Answers are sent when they are there. Left to itself the socket holds small ones back until the browser has
    confirmed those before, which takes 40 ms: a picture of ten messages would come in pieces, and be painted in pieces.
    """

    def initialize(self, guards: Guards) -> None:
        super().initialize()
        self._guards = guards
        self._guard: Guard | None = None
        self._refused = 0

    async def get(self, kernel_id: str) -> None:
        if kernel_id not in self.kernel_manager:
            raise tornado.web.HTTPError(404)
        spoken = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in [word.strip() for word in spoken.split(",")]:
            raise tornado.web.HTTPError(400, reason=f"Speak {PROTOCOL}")
        guard = self._guards.of(kernel_id, lambda kernel: kernel in self.kernel_manager)
        if guard.sockets >= MOST_SOCKETS:
            raise tornado.web.HTTPError(429)
        self._guard = guard
        guard.sockets += 1
        try:
            # For as long as the socket is open.
            await super().get(kernel_id)
        finally:
            guard.sockets -= 1

    async def open(self, kernel_id: str) -> None:
        self.set_nodelay(True)
        with contextlib.suppress(AttributeError):
            self.ws_connection.stream.max_write_buffer_size = MOST_WAITING
        await super().open(kernel_id)

    async def on_message(self, frame: str | bytes) -> None:
        guard = self._guard
        if guard is None:
            return
        heard = guard.hear(frame)
        if heard.wait:
            # Nothing else is read meanwhile: what comes too fast waits with whoever sends it.
            await asyncio.sleep(heard.wait)
        if heard.message is None:
            self._refused += 1
            log.info("A message of a page does not go through: %s", heard.why_not)
            if self._refused > MOST_REFUSED:
                self.close(TOO_MUCH, "Too many messages that a page does not send")
            return
        # A kernel that does not take its messages in has no more of them read from its pages.
        while (stream := self._shell()) is not None and stream.sending():
            await asyncio.sleep(0.001)
        if stream is not None:
            self.connection.session.send(stream, heard.message)

    def _shell(self) -> Any:
        """The way to the kernel; None once it is gone."""
        stream = self.connection.channels.get("shell") if self.connection is not None else None
        return None if stream is None or stream.closed() else stream

    def write_message(self, message: Any, binary: bool = False) -> Any:
        """Sends; a page that does not read what it is sent loses its socket, and the server no memory."""
        # Without a socket the kernel's words come in an older framing, whose first bytes Voila would take for a number
        # of parts, and count to it: the whole house would wait.
        if self.ws_connection is None or (isinstance(message, bytes) and not may_be_v1(message)):
            raise WebSocketClosedError
        try:
            return super().write_message(message, binary)
        except StreamBufferFullError:
            if self.ws_connection is not None:
                self.ws_connection.stream.close()
            raise WebSocketClosedError from None


MOST_PARTS = 4_096
"""Parts of a message of the kernel: five and a buffer for each array."""


def may_be_v1(message: bytes) -> bool:
    """Whether a message in the kernel's v1 framing can begin so: with the number of its parts."""
    return len(message) >= 8 and int.from_bytes(message[:8], "little") <= MOST_PARTS


class NotFound(tornado.web.RequestHandler):
    """Whatever is not behind a door."""

    def prepare(self) -> None:
        self.finish(refuse(self, NO_SUCH_PAGE))
