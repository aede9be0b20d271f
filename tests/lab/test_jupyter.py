"""What a Jupyter server that is not ours is told."""

from __future__ import annotations

import json
from pathlib import Path

from lab.jupyter import install
from lab.serve import LABEXTENSIONS, TEMPLATE


def test_the_template_and_the_settings_are_written(tmp_path: Path) -> None:
    written = install(tmp_path)
    assert all(path.exists() for path in written)
    template = tmp_path / "share" / "jupyter" / "nbconvert" / "templates" / TEMPLATE
    assert (template / "index.html.j2").is_file()
    voila = json.loads((tmp_path / "etc" / "jupyter" / "voila.json").read_text())["VoilaConfiguration"]
    assert voila["template"] == TEMPLATE
    assert voila["extension_allowlist"] == list(LABEXTENSIONS)
    assert voila["resources"] == {"ssl_lab": {"theme": "auto", "home": "ssl-lab/"}}
    server = json.loads((tmp_path / "etc" / "jupyter" / "jupyter_server_config.json").read_text())
    assert server["ZMQChannelsWebsocketConnection"]["iopub_msg_rate_limit"] > 1000
    extensions = tmp_path / "etc" / "jupyter" / "jupyter_server_config.d" / "ssl-lab.json"
    assert json.loads(extensions.read_text())["ServerApp"]["jpserver_extensions"] == {"lab.jupyter": True}
    # Somebody's long computation in JupyterLab is not ours to end.
    assert server["MappingKernelManager"]["cull_connected"] is False
    assert server["MappingKernelManager"]["cull_busy"] is False


def test_what_was_set_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "jupyter" / "jupyter_server_config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"ServerApp": {"port": 9000}, "MappingKernelManager": {"default_kernel_name": "other"}}))
    install(tmp_path)
    install(tmp_path)
    settings = json.loads(path.read_text())
    assert settings["ServerApp"] == {"port": 9000}
    assert settings["MappingKernelManager"]["default_kernel_name"] == "other"
    assert settings["MappingKernelManager"]["buffer_offline_messages"] is False
