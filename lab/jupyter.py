"""Sets up a Jupyter server that is not ours, such as Binder's, so that Voila shows the apps by our template.

    python -m lab.jupyter

writes into the environment's own Jupyter folders: the template, Voila's configuration, what the server has to know of
widgets that change many times a second, and this module as its extension. ``ssl-lab app`` needs none of it.

On such a server the front page is at ``ssl-lab/``, and the apps are behind it; on a JupyterHub that is where a student
arrives.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import tornado.web
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.utils import url_path_join
from voila.configuration import VoilaConfiguration
from voila.paths import collect_template_paths
from voila.server_extension import load_config_file
from voila.tornado.handler import TornadoVoilaHandler
from voila.utils import create_include_assets_functions

from lab.gallery import Gallery, address, names
from lab.house import House
from lab.links import WORDS
from lab.routes import Goodbye
from lab.serve import BENCH, TEMPLATE, TEMPLATES, jupyter_config, notebooks_dir
from ssl_lab.stage import Audience
from ssl_lab.store import results_dir

FRONT = "ssl-lab"
"""Where the front page is on such a server."""

LESSONS = "SSL_LAB_NOTEBOOKS"
"""Environment variable: a folder that gets copies of the notebooks, to be opened and changed in JupyterLab."""

OF_VOILA = "VoilaConfiguration"
OF_THE_SERVER = ("MappingKernelManager", "ZMQChannelsWebsocketConnection")

FROM_THE_PAGE = ("classic_tree",)
"""What only our own server's pages go with."""


def install(prefix: Path) -> list[Path]:
    """Writes template and configuration under ``prefix``; gives what was written.

    Args:
        prefix: the environment that the Jupyter server runs in, such as ``sys.prefix``.
    """
    config = jupyter_config()
    voila: dict[str, Any] = {name: value for name, value in config[OF_VOILA].items() if name not in FROM_THE_PAGE}
    # Light or dark as the visitor's system prefers; without a word Voila says light.
    voila["resources"] = {"ssl_lab": {"theme": "auto", "home": f"{FRONT}/"}}
    server: dict[str, Any] = {name: dict(config[name]) for name in OF_THE_SERVER}
    # A notebook in JupyterLab may compute for hours while nobody looks.
    server["MappingKernelManager"].update(cull_connected=False, cull_busy=False)
    folder = prefix / "share" / "jupyter" / "nbconvert" / "templates" / TEMPLATE
    shutil.copytree(TEMPLATES / "nbconvert" / "templates" / TEMPLATE, folder, dirs_exist_ok=True)
    return [
        folder,
        _merge(prefix / "etc" / "jupyter" / "voila.json", {OF_VOILA: voila}),
        _merge(prefix / "etc" / "jupyter" / "jupyter_server_config.json", server),
        _merge(
            prefix / "etc" / "jupyter" / "jupyter_server_config.d" / "ssl-lab.json",
            {"ServerApp": {"jpserver_extensions": {"lab.jupyter": True}}},
        ),
    ]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lab.jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """The front page, the apps, and an end for the kernel of a page that was closed.

    Voila's own handler for that end wants a token that its page does not send (voila issue 1458). Extensions are loaded
    by name, so that this one comes before it, and the first handler of an address counts. Whoever asks is logged in all
    the same.
    """
    base = app.web_app.settings["base_url"]
    handlers: list[tuple[Any, ...]] = [(url_path_join(base, r"/voila/api/shutdown/([\w-]+)"), Goodbye)]
    notebooks, house = notebooks_dir(), House.here()
    audience = Audience(Path(house.stage)) if house.stage and not house.instructor else None
    configuration = VoilaConfiguration(parent=app)
    if (local := load_config_file()) is not None:
        configuration.update_config(local)
    page = {
        "config": app.config,
        "template_paths": collect_template_paths(["voila", "nbconvert"], TEMPLATE),
        "voila_configuration": configuration,
    }
    contents = AsyncLargeFileManager(parent=app, root_dir=str(notebooks))
    gallery = Gallery(notebooks, results_dir(), audience)
    handlers += [
        (url_path_join(base, FRONT, "?"), Home, {"gallery": gallery, "notebooks": notebooks, "lessons": lend(app)}),
        (url_path_join(base, FRONT, r"([^/]+\.ipynb)"), App, {"notebooks": notebooks, "contents": contents, **page}),
    ]
    app.web_app.add_handlers(".*$", handlers)


def lend(app: Any) -> str:
    """Copies the notebooks into the folder that the environment names, but those that are there already.

    Returns:
        The folder as JupyterLab names it; empty if there is none.
    """
    said = os.environ.get(LESSONS)
    if not said:
        return ""
    folder = Path(said).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names(notebooks_dir()):
            if not (folder / name).exists():
                shutil.copyfile(notebooks_dir() / name, folder / name)
        return folder.resolve().relative_to(Path(app.root_dir).resolve()).as_posix()
    except (OSError, ValueError) as error:
        app.log.warning("No notebooks in %s for JupyterLab: %s", folder, error)
        return ""


class Home(JupyterHandler):
    """The front page; an address that asks for something of the bench leads there, with all that it asks for."""

    def initialize(self, gallery: Gallery, notebooks: Path, lessons: str) -> None:
        self._gallery, self._notebooks, self._lessons = gallery, notebooks, lessons

    @tornado.web.authenticated
    async def get(self) -> None:
        home = url_path_join(self.base_url, FRONT)
        asked = parse_qs(self.request.query, keep_blank_values=True)
        there = BENCH in names(self._notebooks)
        if there and asked.keys() & WORDS:
            self.redirect(f"{url_path_join(home, quote(BENCH))}?{self.request.query}")
            return
        along = urlencode([(name, asked[name][-1]) for name in ("theme", "voila-theme") if name in asked])
        page = await self._gallery.page()
        template = self.settings["voila_jinja2_env"].get_template("gallery.html")
        assets = create_include_assets_functions(TEMPLATE, self.base_url)
        self.finish(
            template.render(
                **page, **assets, base_url=self.base_url, home=home, render=home, along=along, bench=there,
                address=address, places=self._places(), ssl_lab_theme="auto",
            )
        )  # fmt: skip

    def _places(self) -> list[tuple[str, str]]:
        """What else there is for whoever is here: words and addresses."""
        lessons = quote(f"lab/tree/{self._lessons}" if self._lessons else "lab")
        found = [("The notebooks in JupyterLab", url_path_join(self.base_url, lessons))]
        if hub := os.environ.get("JUPYTERHUB_BASE_URL"):
            who = os.environ.get("JUPYTERHUB_USER", "")
            found.append((f"Sign out {who}".strip(), url_path_join(hub, "hub", "logout")))
        return found


class App(TornadoVoilaHandler):  # type: ignore[misc]
    """One of the lab's notebooks as an app, wherever the server's own folder lies."""

    def initialize(self, notebooks: Path, contents: AsyncLargeFileManager, **page: Any) -> None:
        super().initialize(**page)
        self._notebooks, self._contents = notebooks, contents

    @property
    def contents_manager(self) -> AsyncLargeFileManager:
        return self._contents

    @tornado.web.authenticated
    async def get(self, path: str | None = None) -> None:
        if path not in names(self._notebooks):
            raise tornado.web.HTTPError(404)
        async for html in self.get_generator(path=path):
            self.write(html)
            self.flush()


def _merge(path: Path, news: dict[str, dict[str, Any]]) -> Path:
    """Writes ``news`` into a JSON file of settings; what else stands there stays."""
    settings: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    for name, values in news.items():
        settings[name] = {**settings.get(name, {}), **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")
    return path


if __name__ == "__main__":
    for written in install(Path(sys.prefix)):
        print(f"Wrote {written}.")
