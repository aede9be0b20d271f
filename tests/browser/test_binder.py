"""What Binder builds and starts, as far as one machine can tell: names, bounds, ``postBuild``, ``start``, notebooks.

Binder gives 2 GB and one CPU. conda's packages are not here: the clean environment has the project alone, installed by
``postBuild`` itself, and borrows everything else from the environment that runs the tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.browser.bench_page import press, ready, step
from tests.browser.conftest import (
    Watched,
    end,
    eventually,
    free_port,
    page_is_clean,
    screenshot,
    server,
)

ROOT = Path(__file__).resolve().parents[2]
BINDER = ROOT / "binder"
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

OF_CONDA = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base", "jupyter-server": "jupyter_server"}
"""Names that differ on conda-forge."""

ONLY_CONDA = {"python", "pip"}
"""What pyproject.toml does not list."""

MOST_BYTES = 2_000_000_000

REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)\s*(.*)")


# ---------------------------------------------------------------- names and bounds


def bounds(words: list[str]) -> dict[str, set[str]]:
    found = {}
    for word in words:
        match = REQUIREMENT.fullmatch(word)
        assert match, word
        found[match[1]] = {part.strip() for part in match[2].split(",") if part.strip()}
    return found


def of_conda(path: Path) -> dict[str, set[str]]:
    """All of an environment.yml, what pip brings included."""
    words: list[str] = []
    for entry in yaml.safe_load(path.read_text())["dependencies"]:
        words += entry["pip"] if isinstance(entry, dict) else [entry]
    return bounds(words)


def of_the_project() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {OF_CONDA.get(name, name): bound for name, bound in bounds(project["dependencies"]).items()}


def test_the_environments_ask_for_what_the_project_asks_for() -> None:
    conda = of_conda(ROOT / "environment.yml")
    assert {name: bound for name, bound in conda.items() if name not in ONLY_CONDA} == of_the_project()
    (python,) = conda["python"]
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, python.strip("=").split("."))) >= tuple(map(int, least.strip(">=").split(".")))


def test_binder_has_the_same_environment() -> None:
    # A file of its own: a link would not be followed everywhere where Binder looks.
    assert not (BINDER / "environment.yml").is_symlink()
    assert (BINDER / "environment.yml").read_text() == (ROOT / "environment.yml").read_text()


def test_binder_can_run_its_scripts() -> None:
    for name in ("postBuild", "start"):
        assert os.access(BINDER / name, os.X_OK), name
        assert (BINDER / name).read_text().startswith("#!"), name


# ---------------------------------------------------------------- a clean environment


@dataclass(frozen=True)
class Environment:
    """An environment that ``postBuild`` has built."""

    prefix: Path
    results: Path

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    def variables(self) -> dict[str, str]:
        """The process environment on Binder: its Python first, nothing of the checkout."""
        borrowed = Path(sys.prefix)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "JUPYTER", "SSL_LAB", "VIRTUAL_ENV"))
        }
        return {
            **kept,
            "PATH": f"{self.prefix / 'bin'}:{borrowed / 'bin'}:{kept['PATH']}",
            "HOME": str(self.results.parent),
            "SSL_LAB_RESULTS": str(self.results),
            # The extensions that came with the borrowed packages. On Binder both are one environment.
            "JUPYTER_PATH": f"{self.prefix / 'share' / 'jupyter'}:{borrowed / 'share' / 'jupyter'}",
            "JUPYTER_CONFIG_PATH": f"{self.prefix / 'etc' / 'jupyter'}:{borrowed / 'etc' / 'jupyter'}",
            "JUPYTER_PREFER_ENV_PATH": "1",
        }

    def started(self, *words: str) -> list[str]:
        """The command on one CPU and through ``start``, as Binder runs it."""
        code = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])]); os.execv(sys.argv[2], sys.argv[2:])"
        one = str(min(os.sched_getaffinity(0)))
        return [str(self.python), "-c", code, one, str(BINDER / "start"), *words]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Runs ``postBuild`` in a clean environment."""
    root = tmp_path_factory.mktemp("binder")
    built = Environment(root / "env", root / "home" / "results")
    subprocess.run([sys.executable, "-m", "venv", str(built.prefix)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(built.prefix), "platbase": str(built.prefix)}))
    # At the end of the path, and without following its own links: what is installed here comes first, and an editable
    # checkout of the project over there does not come at all.
    (site / "borrowed.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n")
    built.results.parent.mkdir()
    done = subprocess.run(
        [str(BINDER / "postBuild")], cwd=ROOT, env=built.variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return built


def test_the_project_is_installed_whole(environment: Environment) -> None:
    code = (
        "import lab.serve, ssl_lab; from importlib.metadata import version; from importlib.resources import files;"
        "print(ssl_lab.__file__); print(version('ssl-lab')); print(lab.serve.notebooks_dir());"
        "print(*(path.name for path in files('lab').joinpath('recordings').iterdir()))"
    )
    words = [str(environment.python), "-c", code]
    said = subprocess.run(words, cwd="/", env=environment.variables(), capture_output=True, text=True, check=True)
    where, version, notebooks, recordings = said.stdout.splitlines()
    assert Path(where).is_relative_to(environment.prefix)
    assert Path(notebooks).is_relative_to(environment.prefix)
    assert sorted(path.name for path in Path(notebooks).glob("*.ipynb")) == NOTEBOOKS
    assert "collapse-and-return.sqlite" in recordings
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_start_says_how_many_threads_and_where_runs_go(environment: Environment) -> None:
    words = environment.started("sh", "-c", "echo $OMP_NUM_THREADS $MKL_NUM_THREADS; echo $SSL_LAB_RESULTS")
    variables = environment.variables()
    said = subprocess.run(words, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["1 1", str(environment.results)]
    assert environment.results.is_dir()
    del variables["SSL_LAB_RESULTS"]
    (environment.results.parent / "file").write_text("")
    for home, found in ((environment.results.parent, environment.results), (environment.results.parent / "file", None)):
        variables["HOME"] = str(home)
        said = subprocess.run(words, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()
        # Where nothing can be made at home, a folder is found that takes the runs.
        assert Path(said[1]) == found if found else os.access(said[1], os.W_OK)


# ---------------------------------------------------------------- memory


@dataclass
class Memory:
    """The memory of all processes with one results folder in their environment: server, kernels, engine."""

    results: Path
    most: int = 0
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)
    """What each process held when it was most."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            parts = {pid: (proportional(pid), words(pid)) for pid in ours(self.results)}
            total = sum(amount for amount, _ in parts.values())
            if total > self.most:
                self.most, self.parts = total, parts

    def check(self) -> None:
        said = "\n".join(
            f"{amount / 1e6:7.0f} MB  {word}" for amount, word in sorted(self.parts.values(), reverse=True)
        )
        print(f"{self.most / 1e6:.0f} MB at most\n{said}")
        assert 0 < self.most < MOST_BYTES, said


def ours(results: Path) -> list[int]:
    mark = f"SSL_LAB_RESULTS={results}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def proportional(pid: int) -> int:
    """Bytes of a process, with its share of what it has in common with others; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(match[1]) if match else 0


def words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return ""


# ---------------------------------------------------------------- every notebook


RUN_ALL = """
import sys
import nbformat
from nbclient import NotebookClient

for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    # As in JupyterLab: the kernel's folder is the notebook's.
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": path.rpartition("/")[0]}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            # A warning in front of a student is a fault too.
            assert output["output_type"] != "stream" or output["name"] != "stderr", (path, output["text"])
    print(path, flush=True)
"""


@pytest.mark.timeout(600)
def test_every_notebook_runs_from_top_to_end(environment: Environment, tmp_path: Path) -> None:
    places = [str(ROOT / "notebooks" / name) for name in NOTEBOOKS]
    command = environment.started(str(environment.python), "-c", RUN_ALL, *places)
    variables = {**environment.variables(), "SSL_LAB_RESULTS": str(tmp_path / "results")}
    with Memory(tmp_path / "results") as memory:
        process = subprocess.Popen(
            command, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=500)
        finally:
            for pid in ours(tmp_path / "results"):
                kill(pid)
    assert process.returncode == 0, said
    assert [line for line in said.splitlines() if line in places] == places
    memory.check()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- as a page


TOKEN = "word-of-the-hub"
BASE = "/user/someone-else/"
"""On Binder the server's addresses begin somewhere else, and everything asks for a token."""


@pytest.fixture(scope="module")
def jupyter(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A Jupyter server as Binder starts one, over the repository; gives the address of a path on it."""
    port = free_port()
    command = environment.started(
        str(environment.python), "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.base_url={BASE}",
        f"--ServerApp.root_dir={ROOT}", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--ServerApp.log_level=WARN",
    )  # fmt: skip
    root = tmp_path_factory.mktemp("jupyter")
    with server(command, port, root, environment.variables(), ready=f"{BASE}api") as running:
        try:
            yield lambda path: running.at(f"{BASE.strip('/')}/{path}{'&' if '?' in path else '?'}token={TOKEN}")
        finally:
            end(running.process)
            for pid in ours(environment.results):
                kill(pid)


@pytest.mark.timeout(600)
def test_the_bench_runs_as_a_page(
    environment: Environment,
    jupyter: Callable[[str], str],
    open_page: Callable[..., Watched],
) -> None:
    with Memory(environment.results) as memory:
        page = open_page(jupyter("voila/render/notebooks/01-bench.ipynb"))
        ready(page)
        # Our template, not Voila's: the page scrolls, and asks nobody else for anything.
        assert page.page.evaluate("document.body.dataset.voila") == "voila"
        press(page, "Run")
        eventually(lambda: step(page) > 20, "steps", 90)
        screenshot(page, "binder")
        page_is_clean(page)
        stays_here(page)
        memory.check()
    leave(page)
    eventually(lambda: not kernels(environment.results), "the kernel to end", 90)


@pytest.mark.timeout(600)
def test_every_notebook_opens_as_a_page(
    environment: Environment,
    jupyter: Callable[[str], str],
    open_page: Callable[..., Watched],
) -> None:
    with Memory(environment.results) as memory:
        for name in NOTEBOOKS[1:]:
            page = open_page(jupyter(f"voila/render/notebooks/{name}"))
            page.page.wait_for_selector("#rendered_cells .jupyter-widgets:not(:empty)", timeout=60_000)
            page.page.wait_for_selector("#loading", state="detached", timeout=60_000)
            page_is_clean(page)
            stays_here(page)
            leave(page)
        # Closed pages leave no kernels behind: ten of them would fill the machine.
        eventually(lambda: not kernels(environment.results), "the kernels to end", 90)
    if NOTEBOOKS[1:]:
        memory.check()


def stays_here(page: Watched) -> None:
    """No link of a page leaves the visitor's own server for the hub that it stands behind."""
    for link in page.page.locator("a[href]").evaluate_all("all => all.map(a => a.href)"):
        parts = urlsplit(link)
        assert parts.hostname != "127.0.0.1" or parts.path.startswith(BASE), link


def leave(page: Watched) -> None:
    """Closes a page as a person does, who has it say goodbye."""
    page.leaving = True
    page.page.close(run_before_unload=True)


def kernels(results: Path) -> list[int]:
    return [pid for pid in ours(results) if "ipykernel_launcher" in words(pid)]


def test_the_readme_links_to_every_notebook() -> None:
    """As an app and in JupyterLab, in the repository that pyproject.toml names."""
    written = runpy.run_path(str(BINDER / "links.py"))
    text = (ROOT / "README.md").read_text()
    assert text == written["rewritten"](text), "run python binder/links.py"
    for name in NOTEBOOKS:
        app, lesson = written["links"](name)
        assert app.endswith(f"?urlpath=voila%2Frender%2Fnotebooks%2F{name}")
        assert lesson.endswith(f"?urlpath=lab%2Ftree%2Fnotebooks%2F{name}")
        assert app in text
        assert lesson in text
    # A badge is a picture of ours: no page asks Binder for one.
    assert "mybinder.org/badge" not in text
