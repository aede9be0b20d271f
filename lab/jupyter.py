"""Sets up a Jupyter server that is not ours, such as Binder's, so that Voila shows the apps by our template.

    python -m lab.jupyter

writes into the environment's own Jupyter folders: the template, Voila's configuration, what the server has to know of
widgets that change many times a second, and this module as its extension. ``ssl-lab app`` needs none of it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from jupyter_server.utils import url_path_join

from lab.routes import Goodbye
from lab.serve import TEMPLATE, TEMPLATES, jupyter_config

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
    voila["resources"] = {"ssl_lab": {"theme": "auto"}}
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
    """Has a closed page end its kernel.

    Voila's own handler wants a token that its page does not send (voila issue 1458). Extensions are loaded by name, so
    that this one comes before it, and the first handler of an address counts. Whoever asks is logged in all the same.
    """
    address = url_path_join(app.web_app.settings["base_url"], r"/voila/api/shutdown/([\w-]+)")
    app.web_app.add_handlers(".*$", [(address, Goodbye)])


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
