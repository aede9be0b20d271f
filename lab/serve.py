"""Serves the notebooks as apps with Voila: ``ssl-lab app``.

This process renders pages and starts kernels; it imports neither torch nor the engine.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import tornado.ioloop
import tornado.web
from jupyter_server.utils import url_path_join
from traitlets.config import Config
from voila.app import Voila
from voila.shutdown_kernel_handler import VoilaShutdownKernelHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from ssl_lab.errors import SSLLabError

BENCH = "01-bench.ipynb"
"""The notebook that a bare ``ssl-lab`` opens."""

FIRST_PORT = 8866
PORTS_TRIED = 50

TEMPLATES = Path(__file__).parent / "voila"
"""Laid out as a Jupyter data folder. The template lies under ``nbconvert/`` because Voila takes the first ``voila/``
folder of the path for the home of its own themes."""

LABEXTENSIONS = (
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "anywidget",
    "bqplot",
    "bqscales",
)
"""All that the page loads. Whatever else is installed in the environment may ask the network for things."""

CULL_AFTER = 300
"""Seconds without a word from the page's heartbeat after which its kernel is ended. Browsers slow hidden tabs down to
one word a minute, and a laptop may sleep: the run is not in the kernel, and the page offers to reload."""
CULL_INTERVAL = 30

REFILL_AFTER = 4.0
"""Seconds after a page has opened before the next kernel is preheated: two kernels that start at once are both late."""


def notebooks_dir() -> Path:
    """The folder of the apps: ``notebooks/`` of a source checkout, ``lab/notebooks`` of an installed package."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "notebooks", package / "notebooks"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise SSLLabError(f"There are no notebooks beside {package}. Is this installation of ssl-lab whole?")


def serve(
    results: Path,
    *,
    port: int | None = None,
    open_browser: bool = True,
    preheat: bool = True,
    ip: str = "127.0.0.1",
    max_visitors: int = 20,
    dark: bool | None = None,
    notebook: str | None = None,
    notebooks: Path | None = None,
    beside: AbstractContextManager[object] | None = None,
    query: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> None:
    """Serves the notebooks until Ctrl-C or SIGTERM; when it returns, their kernels have ended.

    Args:
        results: folder of all runs; the kernels get it as ``SSL_LAB_RESULTS``.
        port: port to listen on; default the first free one from 8866.
        open_browser: open the bench in the default browser, if there is one.
        preheat: keep one kernel ready, so that the next page opens in two seconds.
        ip: address to listen on.
        max_visitors: how many pages may be open at once; the kernels get it as ``SSL_LAB_MAX_VISITORS``, and the bench
            tells those who are too many.
        dark: dark or light theme; default what the visitor's system prefers. ``?voila-theme=dark`` in the address
            outdoes it.
        notebook: the notebook that the address without a path opens; default the bench.
        notebooks: folder to serve; default :func:`notebooks_dir`.
        query: what the address that is opened and printed asks for, such as ``{"run": "first", "step": "300"}``.
        file: a run's file that every page shows unless its address asks for a run; the kernels get it as
            ``SSL_LAB_OPEN``.
        beside: what shall be there while pages are served, such as an engine: entered before, left when all kernels
            have ended.
    """
    folder = (notebooks or notebooks_dir()).resolve()
    front = _front(folder, notebook)
    chosen = _port(ip, port)
    environment = {
        "SSL_LAB_RESULTS": str(results.resolve()),
        "SSL_LAB_MAX_VISITORS": str(max_visitors),
        # Voila finds templates, and kernels their Python, by the Jupyter path of this process.
        "JUPYTER_PATH": os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")])),
        "JUPYTER_PREFER_ENV_PATH": "1",
        **({"SSL_LAB_OPEN": str(file)} if file is not None else {}),
    }
    with _environment(environment), beside or nullcontext(), _quiet_server_log():
        app = _Server(config=_config(preheat=preheat, front=front))
        app.root_dir, app.ip, app.port, app.port_retries = str(folder), ip, chosen, 0
        app.open_browser, app.front, app.dark = open_browser, front, dark
        app.query = urlencode(query or {})
        app.config_file_paths = []
        with _keep_signals():
            app.initialize([])
            app.start()


def _config(*, preheat: bool, front: str | None) -> Config:
    config = Config()
    config.Voila.log_level = logging.ERROR
    voila = config.VoilaConfiguration
    voila.template = "ssl-lab"
    voila.allow_template_override = "NO"
    voila.classic_tree = True
    voila.strip_sources = True
    voila.show_tracebacks = False
    voila.extension_allowlist = list(LABEXTENSIONS)
    voila.preheat_kernel = preheat
    config.VoilaExecutor.cell_error_instruction = "The window in which ssl-lab was started says why."
    config.VoilaKernelManager.kernel_pools_config = {
        "default": {"pool_size": 0},
        **({front: {"pool_size": 1}} if front else {}),
    }
    config.VoilaKernelManager.fill_delay = REFILL_AFTER
    kernels = config.MappingKernelManager
    kernels.cull_idle_timeout = CULL_AFTER
    kernels.cull_interval = CULL_INTERVAL
    # A frozen tab keeps its connection for days. An open page beats, so it never counts as idle.
    kernels.cull_connected = True
    # A bench that is away for a while wants the newest picture, not all that it missed.
    kernels.buffer_offline_messages = False
    kernels.transport_encryption = "auto"
    channel = config.ZMQChannelsWebsocketConnection
    channel.limit_rate = True
    # Widgets that are being made come as a burst, and dropping one of those breaks the page.
    channel.iopub_msg_rate_limit = 2000
    channel.iopub_data_rate_limit = 20_000_000
    return config


class _Server(Voila):  # type: ignore[misc]
    """Voila that opens the bench, and says where it is on one line."""

    front: str | None = None
    dark: bool | None = None
    query: str = ""

    @property
    def theme(self) -> str:
        return {True: "dark", False: "light", None: "auto"}[self.dark]

    def setup_template_dirs(self) -> None:
        super().setup_template_dirs()
        self.config.VoilaConfiguration.resources = {"ssl_lab": {"theme": self.theme}}
        self.voila_configuration.update_config(self.config)

    def init_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = super().init_settings()
        settings["voila_jinja2_env"].globals["ssl_lab_theme"] = self.theme
        return settings

    def init_handlers(self) -> list[Any]:
        handlers: list[Any] = super().init_handlers()
        handlers.insert(0, (url_path_join(self.server_url, r"/voila/api/shutdown/(.*)"), _Goodbye))
        handlers.insert(0, (url_path_join(self.server_url, r"/api/kernels/(?P<kernel_id>[\w-]+)/channels"), _Channels))
        if self.front is not None:
            to = url_path_join(self.base_url, "voila/render", quote(self.front))
            handlers.insert(0, (self.server_url, _ToFront, {"to": to}))
        return handlers

    def _handle_signal_stop(self, number: int, _frame: object) -> None:
        # A second Ctrl-C ends the process at once, as anywhere.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.ioloop.add_callback_from_signal(self.ioloop.stop)

    def listen(self) -> None:
        """Listens until told to stop. Voila's own takes another port without a word and has no signal for Ctrl-C."""
        self.app.listen(self.port, self.ip)
        self.ioloop = tornado.ioloop.IOLoop.current()
        signal.signal(signal.SIGINT, self._handle_signal_stop)
        signal.signal(signal.SIGTERM, self._handle_signal_stop)
        url = _address(self.ip, self.port) + (f"?{self.query}" if self.query else "")
        print(f"\n  The bench is open at  {url}\n  Ctrl-C ends it; runs are kept.\n", flush=True)
        if self.open_browser:
            _open(url)
        try:
            self.ioloop.start()
        finally:
            self.stop()

    def stop(self) -> None:
        print("  Ending the kernels…", flush=True)
        super().stop()


class _Goodbye(VoilaShutdownKernelHandler):  # type: ignore[misc]
    """Ends the kernel of a page that was closed or reloaded.

    Voila asks for a token that a server without a password never gave to the page (voila issue 1458), so that every
    closed page would leave its kernel behind until it is culled.
    """

    def check_xsrf_cookie(self) -> None:
        if not self.check_origin():
            raise tornado.web.HTTPError(403)

    async def post(self, kernel_id: str) -> None:
        if kernel_id in self.kernel_manager:
            await super().post(kernel_id)
        else:
            self.set_status(204)


class _Channels(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A kernel's messages, each sent when it is there.

    Left to itself the socket holds small messages back until the browser has confirmed those before, which takes 40 ms:
    a picture of ten messages would come in pieces, and be painted in pieces.
    """

    async def open(self, kernel_id: str) -> None:
        self.set_nodelay(True)
        await super().open(kernel_id)


class _ToFront(tornado.web.RequestHandler):
    """The address without a path is the bench; a link's parameters go along."""

    def initialize(self, to: str) -> None:
        self._to = to

    def get(self) -> None:
        query = self.request.query
        self.redirect(f"{self._to}?{query}" if query else self._to)


def _front(folder: Path, notebook: str | None) -> str | None:
    """The notebook behind the bare address; None for a table of contents."""
    names = sorted(path.name for path in folder.glob("*.ipynb"))
    if notebook is not None:
        if notebook not in names:
            raise SSLLabError(
                f"There is no notebook {notebook!r} in {folder}; there are: {', '.join(names) or 'none'}."
            )
        return notebook
    if BENCH in names:
        return BENCH
    return names[0] if len(names) == 1 else None


def _open(url: str) -> None:
    """Opens a browser, if there is one; a text browser in the terminal would be none."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if not isinstance(browser, webbrowser.GenericBrowser) or isinstance(browser, webbrowser.BackgroundBrowser):
        threading.Thread(target=browser.open, args=(url,), daemon=True).start()


def _address(ip: str, port: int) -> str:
    host = {"": socket.gethostname(), "0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(ip, ip)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _port(ip: str, port: int | None) -> int:
    if port is not None:
        if not _free(ip, port):
            raise SSLLabError(f"Port {port} of {ip or 'this machine'} cannot be used. Try another one, or none.")
        return port
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _free(ip, candidate):
            return candidate
    raise SSLLabError(f"No port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} is free. Say one with --port.")


def _free(ip: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as trial:
        if os.name == "posix":
            # A server that has just ended leaves its port in waiting, which does not hinder the next one.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ip, port))
        except OSError:
            return False
    return True


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _keep_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_server_log() -> Iterator[None]:
    """Keeps what is no trouble out of the window: an aborted request, a page that left while it was written to."""
    loggers = [logging.getLogger(name) for name in ("tornado.access", "tornado.general")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
