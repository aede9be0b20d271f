"""JupyterHub on one machine: every student has a server, runs and an engine of their own, and follows the instructor's.

    SSL_LAB_CLASS=class.toml SSL_LAB_HUB_DIR=~/ssl-lab-class jupyterhub -f hub/jupyterhub_config.py

It needs the extra ``ssl-lab[hub]`` and Node's ``configurable-http-proxy`` (``npm install -g configurable-http-proxy``).
What it is for and what it is not: docs/hub.md.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tomllib
from pathlib import Path

from lab.jupyter import FRONT, install

c = get_config()  # noqa: F821  (JupyterHub gives it)

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("SSL_LAB_HUB_DIR", "~/ssl-lab-class")).expanduser().absolute()
"""All that the hub keeps: its own files, the stage, and a folder for each user."""


def read_class() -> tuple[list[str], list[str]]:
    """Instructors and students, as the file says."""
    path = Path(os.environ.get("SSL_LAB_CLASS", HERE / "class.toml")).expanduser()
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{path} cannot be read: {error}. It says who comes: see hub/class.toml. SSL_LAB_CLASS names another.")
    for name in ("instructors", "students"):
        # A text would be taken for the list of its letters.
        if not isinstance(said.get(name, []), list):
            sys.exit(f'{path}: {name} has to be a list of names, such as {name} = ["ann"].')
    groups = [said.get(name, []) for name in ("instructors", "students")]
    for name in [name for group in groups for name in group]:
        # Names become folders and addresses.
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name):
            sys.exit(f"{path}: {name!r} cannot be a user: use 1 to 32 small letters, digits and '-', a letter first.")
    if not groups[0] or set(groups[0]) & set(groups[1]):
        sys.exit(f"{path} has to name at least one instructor, and nobody as both instructor and student.")
    return groups[0], groups[1]


INSTRUCTORS, STUDENTS = read_class()
(HOME / "users").mkdir(parents=True, exist_ok=True)
(HOME / "stage").mkdir(exist_ok=True)

# ---------------------------------------------------------------- the hub

# This machine alone. For a room: "http://0.0.0.0:8000", and TLS in front of it (c.JupyterHub.ssl_key and ssl_cert).
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.db_url = f"sqlite:///{HOME / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HOME / "jupyterhub_cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(HOME / "jupyterhub-proxy.pid")
# Servers end with the hub: there is no other one to look after them.
c.JupyterHub.cleanup_servers = True
c.JupyterHub.log_level = "WARN"

# ---------------------------------------------------------------- who comes in

c.Authenticator.allowed_users = {*INSTRUCTORS, *STUDENTS}
c.Authenticator.admin_users = set(INSTRUCTORS)

# For trying, and for a room in which people trust each other: one password for all students, who could come in under
# each other's names, and another one for the instructor. On a real machine put your own sign-in here in place of it:
#   c.JupyterHub.authenticator_class = "pam"  # this machine's accounts; OAuth and LTI have packages of their own
c.JupyterHub.authenticator_class = "shared-password"


def password(variable: str, length: int, whose: str) -> str:
    """As the environment says; else a new one, which is printed."""
    said = os.environ.get(variable)
    if said is None:
        said = secrets.token_urlsafe(length)[:length]
        print(f"  Password for {whose}:  {said}", flush=True)
    elif len(said) < length:
        sys.exit(f"{variable} has {len(said)} characters; give at least {length}.")
    return said


c.SharedPasswordAuthenticator.user_password = password("SSL_LAB_HUB_PASSWORD", 8, "students")
# JupyterHub wants it this long.
c.SharedPasswordAuthenticator.admin_password = password("SSL_LAB_HUB_INSTRUCTOR_PASSWORD", 32, "the instructor")

# ---------------------------------------------------------------- everybody's server

# Processes of the user who runs the hub: simple, and no wall between students. See docs/hub.md for what is one.
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = f"{HOME}/users/{{username}}"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [
    # Light: the front page and the apps, and JupyterLab for whoever wants to write code. No terminals.
    "--ServerApp.terminals_enabled=False",
    # A server whose student has left ends after an hour; runs are kept.
    "--ServerApp.shutdown_no_activity_timeout=3600",
    "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]
c.Spawner.default_url = f"/{FRONT}/"
c.Spawner.notebook_dir = f"{HOME}/users/{{username}}"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 60
# Starting thirty at once makes all of them late.
c.JupyterHub.concurrent_spawn_limit = 2 * (os.cpu_count() or 1)

# Our template and settings, beside and not in the environment, which may be others' too.
install(HOME / "jupyter")
c.Spawner.environment = {
    "SSL_LAB_STAGE": str(HOME / "stage"),
    "SSL_LAB_RESULTS": lambda spawner: f"{HOME}/users/{spawner.user.name}/results",
    "SSL_LAB_NOTEBOOKS": lambda spawner: f"{HOME}/users/{spawner.user.name}/notebooks",
    "SSL_LAB_INSTRUCTOR": lambda spawner: "1" if spawner.user.name in INSTRUCTORS else "",
    "SSL_LAB_CHECKPOINT_MB": os.environ.get("SSL_LAB_CHECKPOINT_MB", "200"),
    "JUPYTER_PATH": str(HOME / "jupyter" / "share" / "jupyter"),
    "JUPYTER_CONFIG_PATH": str(HOME / "jupyter" / "etc" / "jupyter"),
    "JUPYTER_PREFER_ENV_PATH": "1",
}
