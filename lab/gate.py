"""``Gate``: who comes in, decided once, before anything of the server is reached.

It stands before the whole application, so that no page, file, socket or route of a later day can be forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from tornado import httputil, routing, web

SLOW = 0.5
"""Seconds that a wrong token waits for its answer."""

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    # The token, and the host's key, stand in addresses.
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'; form-action 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer says."""


def is_loopback(ip: str) -> bool:
    """Whether only this machine reaches what listens on this address."""
    if ip.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(ip.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A page in words instead of what was asked for."""

    status: int
    title: str
    words: str
    again: int | None = None
    """Seconds after which the page tries again by itself."""
    ask_token: bool = False
    """Whether it has a field for the token."""
    slow: bool = False
    """Whether the answer is kept back for a moment, so that guessing takes its time."""


NO_TOKEN = Refusal(
    status=403, title="The door is closed", ask_token=True,
    words="This bench is open to those who have its whole address, with the token in it. It stands in the window in "
    "which ssl-lab was started: open that address, or write its token here.",
)  # fmt: skip
WRONG_TOKEN = Refusal(
    status=403, title="That token is another one", ask_token=True, slow=True,
    words="Each start of ssl-lab has a token of its own unless it is given one. The window in which it was started "
    "says the address: open that, or write its token here.",
)  # fmt: skip
NO_SUCH_PAGE = Refusal(
    status=404, title="There is no such page", words="The front page is at the address without a path."
)
OTHER_SITE = Refusal(
    status=403, title="Another site asks for this",
    words="The bench answers its own pages only. To open it, write its address into the browser.",
)  # fmt: skip
OTHER_HOST = Refusal(
    status=403, title="This bench is of this machine only",
    words="It listens on this machine alone, and answers to the names localhost and 127.0.0.1. To let others in, "
    "start it with: ssl-lab app --ip 0.0.0.0",
)  # fmt: skip
NO_METHOD = Refusal(status=405, title="That cannot be done here", words="The bench is looked at, and no more.")
NOT_YET = Refusal(
    status=503, title="Not before it is looked at", words="A kernel is started for a page that somebody opens.", again=1
)


class Gate(routing.Router):
    """Lets requests through to the application, or answers them with a :class:`Refusal`.

    Args:
        app: what is behind it.
        token: what a visitor has to know; empty if nothing.
        port: port that is listened on; a browser sends its cookies to all ports of a host.
        loopback: whether only this machine is listened to.
    """

    def __init__(self, app: web.Application, *, token: str, port: int, loopback: bool) -> None:
        self._app, self._token, self._loopback = app, token, loopback
        self.cookie = f"ssl-lab-{port}"
        """Name of the cookie that stands for the token once it was shown."""
        # Of the token alone: a server that is started again with the token it had knows its pages again.
        self._pass = hmac.new(token.encode("utf-8", "surrogatepass"), b"ssl-lab gate", hashlib.sha256).hexdigest()
        app.transforms.append(SafeHeaders)

    def find_handler(self, request: httputil.HTTPServerRequest, **_: Any) -> httputil.HTTPMessageDelegate | None:
        refusal = self._why_not(request)
        if refusal is not None:
            return self._app.get_handler_delegate(request, Refuse, {"refusal": refusal})
        if self._token:
            shown = parse_qs(request.query, keep_blank_values=True).get("token", [])
            if shown and not _same(shown[-1], self._token):
                return self._app.get_handler_delegate(request, Refuse, {"refusal": WRONG_TOKEN})
            if shown and request.method in ("GET", "HEAD") and not _is_socket(request):
                return self._app.get_handler_delegate(
                    request, LetIn, {"cookie": self.cookie, "value": self._pass, "query": _without_token(request.query)}
                )
            if not shown and not _same(_cookie(request, self.cookie), self._pass):
                return self._app.get_handler_delegate(request, Refuse, {"refusal": NO_TOKEN})
        return self._app.find_handler(request)

    def _why_not(self, request: httputil.HTTPServerRequest) -> Refusal | None:
        if self._loopback and not _is_local_name(request.host):
            # A name of somebody's own that they have pointed at this machine: their pages could read ours.
            return OTHER_HOST
        if request.method not in ("GET", "HEAD", "POST"):
            return NO_METHOD
        if not is_plain(request.path):
            return NO_SUCH_PAGE
        headers = request.headers
        if (request.method == "POST" or _is_socket(request)) and not _same_origin(headers, request.host):
            return OTHER_SITE
        # What another site only embeds, such as a picture or a frame, would start a kernel unseen.
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and (
            headers.get("Sec-Fetch-Dest", "document") != "document"
        ):
            return OTHER_SITE
        return NOT_YET if "prefetch" in headers.get("Sec-Purpose", "") else None


def is_plain(path: str) -> bool:
    """Whether an address' path names what it says: nothing above, nothing hidden, nothing encoded twice."""
    words = unquote(path)
    if not words.startswith("/") or "//" in words:
        return False
    if any(c in "%\\\ufffd" or not c.isprintable() for c in words):
        return False
    return not any(part.startswith((".", "~")) for part in words.split("/"))


class Refuse(web.RequestHandler):
    """Answers with a page in words, whatever was asked."""

    def initialize(self, refusal: Refusal) -> None:
        self._refusal = refusal

    async def prepare(self) -> None:
        refusal = self._refusal
        if refusal.slow:
            await asyncio.sleep(SLOW)
        self.finish(refuse(self, refusal))

    def compute_etag(self) -> None:
        return None


def refuse(handler: web.RequestHandler, refusal: Refusal) -> str:
    """The page of a refusal; the handler's status and headers are set to go with it."""
    handler.set_status(refusal.status)
    handler.set_header("Content-Type", "text/html; charset=UTF-8")
    handler.set_header("Cache-Control", "no-store")
    if refusal.again is not None:
        handler.set_header("Retry-After", str(refusal.again))
    environment = handler.settings["voila_jinja2_env"]
    return str(environment.get_template("door.html").render(refusal=refusal))


class LetIn(web.RequestHandler):
    """Takes the token out of the address, which people copy and show, and remembers it in a cookie."""

    def initialize(self, cookie: str, value: str, query: str) -> None:
        self._cookie, self._value, self._query = cookie, value, query

    def get(self) -> None:
        self.set_cookie(self._cookie, self._value, httponly=True, samesite="Lax", path="/")
        self.set_header("Cache-Control", "no-store")
        self.redirect(self.request.path + (f"?{self._query}" if self._query else ""))

    head = get


class SafeHeaders(web.OutputTransform):
    """Says :data:`HEADERS` with every answer, whoever gives it, and has no page kept."""

    def transform_first_chunk(
        self, status_code: int, headers: httputil.HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, httputil.HTTPHeaders, bytes]:
        for name, value in HEADERS.items():
            headers[name] = value
        headers.pop("Server", None)
        if headers.get("Content-Type", "text/html").startswith(("text/html", "application/json")):
            headers["Cache-Control"] = "no-store"
        return status_code, headers, chunk


def _same(said: str, wanted: str) -> bool:
    return hmac.compare_digest(said.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def _cookie(request: httputil.HTTPServerRequest, name: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(request.headers.get("Cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _without_token(query: str) -> str:
    return "&".join(part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) != "token")


def _is_socket(request: httputil.HTTPServerRequest) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _same_origin(headers: httputil.HTTPHeaders, host: str) -> bool:
    """Whether a page of ours asks; what is no browser names no origin."""
    origin = headers.get("Origin") or headers.get("Sec-WebSocket-Origin")
    return origin is None or urlsplit(origin.lower()).netloc == host.lower()


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)
