"""Serves the notebooks as apps with Voila: ``ssl-lab app``.

This process renders pages and starts kernels; it imports neither torch nor the engine.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import tornado.ioloop
import tornado.web
from tornado.httpserver import HTTPServer
from traitlets.config import Config
from voila.app import Voila
from voila.utils import create_include_assets_functions

from lab.exporter import compile_templates_once
from lab.gallery import Gallery, names
from lab.gate import Gate, is_loopback
from lab.house import House, digest
from lab.messages import LARGEST
from lab.pool import Kernels, affordable
from lab.routes import NotFound, doors
from ssl_lab.errors import SSLLabError
from ssl_lab.store import results_dir

BENCH = "01-bench.ipynb"
"""The notebook that is the bench: links to runs lead to it."""

FIRST_PORT = 8866
PORTS_TRIED = 50

TEMPLATES = Path(__file__).parent / "voila"
"""Laid out as a Jupyter data folder. The template lies under ``nbconvert/`` because Voila takes the first ``voila/``
folder of the path for the home of its own themes."""

TEMPLATE = "ssl-lab"

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

MAX_VISITORS = 40
"""Pages that may be open at once, unless told otherwise."""

CLASS_RUNS = 20
"""Runs that a visitor of a class may keep, unless told otherwise."""

CLASS_MEGABYTES = 500
"""Megabytes on disk that the runs of a visitor of a class may take, unless told otherwise."""

SHORTEST_TOKEN = 6

MOST_BODY = 64 * 1024
"""Bytes of a request: pages send everything else through their socket."""

MOST_HEADERS = 32 * 1024


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
    preheat: int | None = None,
    ip: str = "127.0.0.1",
    token: str | None = None,
    own_only: bool | None = None,
    max_visitors: int | None = MAX_VISITORS,
    max_runs: int | None = None,
    max_bytes: int | None = None,
    dark: bool | None = None,
    notebook: str | None = None,
    notebooks: Path | None = None,
    beside: AbstractContextManager[object] | None = None,
    query: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> None:
    """Serves the notebooks until Ctrl-C or SIGTERM; when it returns, their kernels have ended.

    What listens to this machine alone is a home: whoever comes steers every run. What others can reach is a class:
    visitors have to know a token and steer their own runs, and a second address, with a key, is the host's.

    Args:
        results: folder of all runs; the kernels get it as ``SSL_LAB_RESULTS``.
        port: port to listen on; default the first free one from 8866.
        open_browser: open the front page in the default browser, if there is one.
        preheat: kernels that are kept ready, so that the next pages open in two seconds; default one at home, and in a
            class as many as there are places, within a quarter of the memory.
        ip: address to listen on.
        token: word that visitors have to know; default none at home, and a random one in a class.
        own_only: whether visitors steer their own runs only; default in a class.
        max_visitors: how many pages may be open at once; further ones are told so, and try again.
        max_runs: how many runs a visitor may keep; default 20 in a class.
        max_bytes: how much disk a visitor's runs may take; default 500 MB in a class.
        dark: dark or light theme; default what the visitor's system prefers. ``?voila-theme=dark`` in the address
            outdoes it.
        notebook: the notebook that the address without a path opens; default a page that shows all of them, the runs
            and the recordings. A folder of one notebook has that one.
        notebooks: folder to serve; default :func:`notebooks_dir`.
        query: what the address that is opened and printed asks for, such as ``{"run": "first", "step": "300"}``.
        file: a run's file that every page shows unless its address asks for a run; the kernels get it as
            ``SSL_LAB_OPEN``.
        beside: what shall be there while pages are served, such as an engine: entered before, left when all kernels
            have ended.

    Raises:
        SSLLabError: what was asked for would not be safe, or cannot be had.
    """
    folder = (notebooks or notebooks_dir()).resolve()
    front = _front(folder, notebook)
    known = _token(ip, token)
    house, key = _house(ip, own_only, max_visitors, max_runs, max_bytes)
    chosen = _port(ip, port)
    if preheat is None:
        preheat = 1 if is_loopback(ip) else affordable(max_visitors or MAX_VISITORS)
    environment = {
        "SSL_LAB_RESULTS": str(results.resolve()),
        # Voila finds templates, and kernels their Python, by the Jupyter path of this process.
        "JUPYTER_PATH": os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")])),
        "JUPYTER_PREFER_ENV_PATH": "1",
        **house.environment(),
        **({"SSL_LAB_OPEN": str(file)} if file is not None else {}),
    }
    with _environment(environment), beside or nullcontext(), _quiet_server_log():
        app = _Server(config=_config())
        app.root_dir, app.ip, app.port, app.port_retries = str(folder), ip, chosen, 0
        app.open_browser, app.front, app.dark = open_browser, front, dark
        app.house, app.gate_token, app.host_key, app.preheat = house, known, key, preheat
        app.query = dict(query or {})
        app.config_file_paths = []
        with _keep_signals():
            app.initialize([])
            app.start()


def _house(
    ip: str, own_only: bool | None, max_visitors: int | None, max_runs: int | None, max_bytes: int | None
) -> tuple[House, str]:
    """The rules for the kernels, and the host's key; empty where every visitor steers all runs anyway."""
    a_class = not is_loopback(ip)
    own = a_class if own_only is None else own_only
    key = secrets.token_urlsafe(16) if own else ""
    house = House(
        served=True,
        own_only=own,
        host_key=digest(key),
        max_visitors=max_visitors,
        max_runs=CLASS_RUNS if a_class and max_runs is None else max_runs,
        max_bytes=CLASS_MEGABYTES * 1_000_000 if a_class and max_bytes is None else max_bytes,
    )
    return house, key


def _config() -> Config:
    config = Config()
    config.Voila.log_level = logging.ERROR
    voila = config.VoilaConfiguration
    voila.template = TEMPLATE
    voila.allow_template_override = "NO"
    voila.allow_theme_override = "NO"
    voila.file_allowlist = []
    voila.classic_tree = True
    voila.strip_sources = True
    voila.show_tracebacks = False
    voila.extension_allowlist = list(LABEXTENSIONS)
    # Ours has its own pool.
    voila.preheat_kernel = False
    config.VoilaExecutor.cell_error_instruction = "The window in which ssl-lab was started says why."
    config.KernelManager.client_factory = "lab.pool.Client"
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
    """Voila behind our gate and with our doors; opens the front page, and says where it is."""

    front: str | None = None
    dark: bool | None = None
    query: Mapping[str, str] = MappingProxyType({})
    house: House = House()
    gate_token: str = ""
    host_key: str = ""
    preheat: int = 1
    gallery: Gallery

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
        # Voila makes its own without places, and has started nothing with it yet.
        self.kernel_manager = settings["kernel_manager"] = Kernels(
            parent=self, connection_dir=self.connection_dir, kernel_spec_manager=self.kernel_spec_manager
        )
        kernels = self.kernel_manager
        kernels.most, kernels.rest = self.house.max_visitors, REFILL_AFTER
        kernels.wanted = self.preheat
        return {
            **settings,
            "assets": create_include_assets_functions(TEMPLATE, self.base_url),
            "default_handler_class": NotFound,
            "websocket_max_message_size": LARGEST,
            "log_function": _log_request,
        }

    def init_handlers(self) -> list[Any]:
        compile_templates_once()
        self.gallery = Gallery(Path(self.root_dir), results_dir())
        return doors(
            notebooks=Path(self.root_dir),
            gallery=self.gallery,
            front=self.front,
            bench=BENCH,
            server_url=self.server_url,
            base_url=self.base_url,
            most=self.house.max_visitors,
            template=TEMPLATE,
            static_paths=self.static_paths,
            extensions=LABEXTENSIONS,
            extension_paths=self.labextensions_path,
            page={
                "template_paths": self.template_paths,
                "config": self.config,
                "voila_configuration": self.voila_configuration,
            },
        )

    def gate(self) -> Gate:
        """The application behind its gate."""
        return Gate(self.app, token=self.gate_token, port=self.port, loopback=is_loopback(self.ip))

    def _handle_signal_stop(self, number: int, _frame: object) -> None:
        # A second Ctrl-C ends the process at once, as anywhere.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.ioloop.add_callback_from_signal(self.ioloop.stop)

    def listen(self) -> None:
        """Listens until told to stop. Voila's own takes another port without a word and has no signal for Ctrl-C."""
        HTTPServer(self.gate(), max_body_size=MOST_BODY, max_header_size=MOST_HEADERS).listen(self.port, self.ip)
        self.ioloop = tornado.ioloop.IOLoop.current()
        signal.signal(signal.SIGINT, self._handle_signal_stop)
        signal.signal(signal.SIGTERM, self._handle_signal_stop)
        self.ioloop.add_callback(self.kernel_manager.keep_warm)
        visitor, host = self.addresses()
        print(_welcome(visitor, host), flush=True)
        if self.open_browser:
            _open(host or visitor)
        try:
            self.ioloop.start()
        finally:
            self.stop()

    def addresses(self) -> tuple[str, str]:
        """The address for visitors, and the one for the host, which is empty where all visitors are at home."""
        asked = {"token": self.gate_token} if self.gate_token else {}
        words = {**asked, **self.query}
        key = {**asked, "key": self.host_key, **self.query} if self.host_key else None
        base = _address(self.ip, self.port)
        return _link(base, words), "" if key is None else _link(base, key)

    def stop(self) -> None:
        print("  Ending the kernels…", flush=True)
        self.gallery.close()
        super().stop()


def _welcome(visitor: str, host: str) -> str:
    if not host:
        return f"\n  The lab is open at  {visitor}\n  Ctrl-C ends it; runs are kept.\n"
    return (
        f"\n  For the class:  {visitor}\n  For the host:   {host}\n"
        "  A visitor steers the runs that they made; the host's address steers every run, so keep it.\n"
        "  Ctrl-C ends it; runs are kept.\n"
    )


def _link(base: str, words: Mapping[str, str]) -> str:
    return base + (f"?{urlencode(words)}" if words else "")


def _token(ip: str, token: str | None) -> str:
    """The token that visitors have to know; empty for none, which only this machine may have."""
    home = is_loopback(ip)
    if token is None:
        return "" if home else secrets.token_urlsafe(16)
    if not token and not home:
        raise SSLLabError(
            f"Whoever reaches {ip or 'this machine'} could come in without a token. Leave --token out to get one made, "
            "or listen to this machine alone: --ip 127.0.0.1."
        )
    if token and len(token) < SHORTEST_TOKEN:
        raise SSLLabError(f"A token of {len(token)} characters is soon guessed: give at least {SHORTEST_TOKEN}.")
    return token


def _log_request(handler: tornado.web.RequestHandler) -> None:
    """A full house is no trouble of the server, and says so at every page that waits for a place."""
    if handler.get_status() >= 500 and handler.get_status() != 503:
        logging.getLogger("tornado.access").error("%d %s", handler.get_status(), handler.request.path)


def _front(folder: Path, notebook: str | None) -> str | None:
    """The notebook behind the bare address; None for the front page."""
    found = names(folder)
    if notebook is not None:
        if notebook not in found:
            raise SSLLabError(
                f"There is no notebook {notebook!r} in {folder}; there are: {', '.join(found) or 'none'}."
            )
        return notebook
    return found[0] if len(found) == 1 and folder != notebooks_dir().resolve() else None


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
