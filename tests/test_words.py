"""Every command and every piece of Python that the README and the docs show is run.

A command that is not in the table below fails the test: whoever writes one says how it is run. What is the same in
several places is run once. All of them share one folder, as a reader's commands do.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


# ---------------------------------------------------------------- how each command is run


@dataclass(frozen=True)
class Run:
    """Word for word, or with what is named here put in place of other words; ``more`` is added at the end."""

    instead: tuple[tuple[str, str], ...] = ()
    more: str = ""
    says: str = ""
    """A pattern that its words must match."""
    leaves: str = ""
    """A file that must be there then."""


@dataclass(frozen=True)
class Serve:
    """Until it has said its address and the page there has answered; then Ctrl-C."""

    says: str
    """A pattern whose first group is the address."""
    more: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """Another file of the tests, or what they run, holds the very words."""

    file: str
    words: str


SMALL_STUDY = "--dataset images --data cifar10 --scale small --seeds 1 --epochs 1 --minutes 2"
ADDRESS = r"(http://\S+)"

TURNED = (
    "uv run ssl-lab train --preset directpred --name turned --steps 900 "
    "--at 300:predictor=none 600:predictor=directpred"
)

HOW: dict[str, Run | Serve | Elsewhere] = {
    "uv run pytest": Elsewhere(".ci/run", "pip install uv && uv run pytest"),
    "uv run ssl-lab": Serve(ADDRESS),
    "uv run ssl-lab app --ip 0.0.0.0 --max-visitors 30": Serve(rf"For the class:\s+{ADDRESS}", more="--preheat 0"),
    "uv run ssl-lab app --theme dark --no-browser --checkpoint-mb 200": Serve(ADDRESS),
    "uv run jupyter lab notebooks": Serve(
        r"(http://(?:localhost|127\.0\.0\.1):\d+/lab\?token=\w+)", more="--no-browser --allow-root -y"
    ),
    "uv run ssl-lab train --model directpred --dataset digits --name first --epochs-pretraining 60": Run(
        says=r"Accuracy: 9[89]\.\d\d%", leaves="results/first/encoder.safetensors"
    ),
    "uv run ssl-lab test --name first": Run(says=r"Accuracy: 9[89]\.\d\d%", leaves="results/first/eigenspace.png"),
    "uv run ssl-lab runs": Run(says=r"first +done +660"),
    "uv run ssl-lab watch first": Serve(ADDRESS),
    "uv run ssl-lab fork first --step 300": Run(leaves="results/first-fork-1/run.sqlite"),
    "uv run ssl-lab export first --as script": Run(leaves="first.py"),
    "uv run ssl-lab export first --as sqlite --out first.sqlite": Run(leaves="first.sqlite"),
    "uv run ssl-lab export first --as csv --out first.csv": Run(leaves="first.csv"),
    "uv run ssl-lab export first --as npz --out first.npz": Run(leaves="first.npz"),
    "uv run ssl-lab replay first": Run(says="Bit-equal"),
    TURNED: Run(
        instead=(("--steps 900", "--steps 90"), (" 300:", " 30:"), (" 600:", " 60:")), more="--epochs-finetuning 2"
    ),
    "uv run ssl-lab train --model byol --name shared --steps 200 --gpus 2 --device cpu": Run(
        instead=(("--steps 200", "--steps 20"),), more="--width 4 --epochs-finetuning 2",
        says=r"shared by 2 ranks \(gloo\)[\s\S]*Accuracy: ", leaves="results/shared/encoder.safetensors",
    ),
    "uv run torchrun --nproc-per-node 2 -m ssl_lab train --model byol --name ours --steps 200 --device cpu": Run(
        instead=(("--steps 200", "--steps 20"),), more="--width 4 --epochs-finetuning 0",
        says=r"shared by 2 ranks \(gloo\)[\s\S]*20 steps done", leaves="results/ours/run.sqlite",
    ),
    "uv run ssl-lab reproduce all --dataset cifar10 --seeds 3 --epochs 101": Run(
        instead=((" --dataset cifar10 --seeds 3 --epochs 101", ""), (" all", " figure2")), more=SMALL_STUDY
    ),
    "uv run ssl-lab reproduce all --scale small": Run(
        instead=((" --scale small", ""), (" all", " figure2")), more=SMALL_STUDY
    ),
    "uv run ssl-lab reproduce table1 figure1 --dataset digits --scale lesson": Run(
        instead=(("table1 figure1", "figure3"),), more="--seeds 1 --epochs 1 --minutes 2"
    ),
    "uv run ssl-lab train --preset linear --dataset gaussian --name modes --steps 3000": Run(
        says="3000 steps done", leaves="results/modes/run.sqlite"
    ),
    "uv run ssl-lab reproduce figure2 --reference FILE.npz": Run(
        instead=(("FILE.npz", "byol.npz"),), more=SMALL_STUDY, says="byol-seed0 beside its reference"
    ),
    "uv run ssl-lab sweep docs/study.toml --dry-run": Run(
        says=r"10 trials of 5 configurations; each takes 1 CPU\. Nothing was started"
    ),
    "uv run ssl-lab sweep docs/study.toml": Run(
        instead=(("docs/study.toml", "study.toml"),), says=r"study: 3 of 3 trials done\.",
        leaves="results/sweep-study/summary.parquet",
    ),
    "pip install ssl-lab[ray]": Elsewhere("pyproject.toml", 'ray = ["ray>='),
    "uv run ssl-lab sweep docs/study.toml --ray": Run(
        instead=(("docs/study.toml", "study.toml"),), more="--out rayed", says=r"study: 3 of 3 trials done\.",
        leaves="rayed/results.csv",
    ),
    # A cluster of two, of Ray's own making.
    "ray start --head": Elsewhere("tests/ssl_lab/test_sweep.py", "Cluster(initialize_head=True"),
    "ray start --address HOST:PORT": Elsewhere("tests/ssl_lab/test_sweep.py", "add_node("),
    "uv run ssl-lab sweep docs/study.toml --address auto --out /shared/study": Elsewhere(
        "tests/ssl_lab/test_sweep.py", '"--out", str(folder), "--address", cluster.address'
    ),
    "uv run python -m benchmarks.scaling": Elsewhere("tests/test_benchmarks.py", "scaling.main()"),
    "uv run mkdocs build --strict": Elsewhere("tests/browser/test_docs.py", '"mkdocs", "build", "--strict"'),
    "uv run python -m benchmarks.trust --list": Run(says="crash"),
    "python -m lab.jupyter": Elsewhere("binder/postBuild", "python -m lab.jupyter"),
    "npm install -g configurable-http-proxy": Elsewhere(".ci/run", "npm install -g configurable-http-proxy"),
    "uv run --extra hub jupyterhub -f hub/jupyterhub_config.py": Elsewhere(
        "tests/browser/test_hub.py", '"-f", str(ROOT / "hub" / "jupyterhub_config.py")'
    ),
    # Of a cluster there is none here: the words stand in the file that they are about, which test_hub_files.py reads.
    **{
        command: Elsewhere("hub/kubernetes/values.yaml", command)
        for command in (
            "repo2docker --no-run --target-repo-dir /srv/ssl-lab --image-name REGISTRY/ssl-lab:TAG .",
            "docker push REGISTRY/ssl-lab:TAG",
            "helm repo add jupyterhub https://hub.jupyter.org/helm-chart/",
            "kubectl create namespace ssl-lab",
            "kubectl apply --namespace ssl-lab --filename hub/kubernetes/stage.yaml",
            "helm upgrade --install ssl-lab jupyterhub/jupyterhub --namespace ssl-lab "
            "--values hub/kubernetes/values.yaml",
        )
    },
}  # fmt: skip


# ---------------------------------------------------------------- what the pages say


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            if match[1] == language:
                yield str(page.relative_to(ROOT)), match[2]


def commands() -> list[str]:
    """Each once, in the order of the pages, without remarks. CI itself installs uv before all."""
    found: dict[str, None] = {}
    for _, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = " ".join(shlex.split(line, comments=True)).removeprefix("pip install uv && ")
            if command:
                found.setdefault(command)
    return list(found)


def test_the_pages_have_commands_and_only_known_languages() -> None:
    assert len(commands()) > 15
    for page in PAGES:
        languages = {match[1] for match in BLOCK.finditer(page.read_text())}
        assert languages <= {"bash", "python", "toml"}, f"{page}: say how blocks of {languages} are tested"


def test_every_study_that_the_pages_show_can_be_run() -> None:
    import tomllib

    from ssl_lab.sweep.plan import read_sweep, understand

    shown = [understand(tomllib.loads(block), page).trials() for page, block in blocks("toml")]
    assert [len(trials) for trials in shown] == [8]
    assert len(read_sweep(ROOT / "docs" / "study.toml").trials()) == 10


def test_every_command_is_known_and_no_entry_is_stale() -> None:
    unknown, stale = set(commands()) - set(HOW), set(HOW) - set(commands())
    assert not unknown, f"say in HOW how these are run: {sorted(unknown)}"
    assert not stale, f"no page says these any more: {sorted(stale)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text):
        place = target[0] or target[1]
        if not urlsplit(place).scheme:
            assert (page.parent / place).exists(), f"{page} points to {place}"


# ---------------------------------------------------------------- running them


@dataclass(frozen=True)
class Clone:
    """A folder that looks like a clone of the repository, with results of its own."""

    path: Path

    def words(self, command: str) -> list[str]:
        """What ``uv run`` runs: the environment's own program."""
        program, *rest = shlex.split(command.removeprefix("uv run "))
        return [sys.executable if program == "python" else str(Path(sys.executable).parent / program), *rest]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SSL_LAB")}
        # A browser that cannot be used: no window of the person who runs the tests shall open.
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "BROWSER": "true"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    path = tmp_path_factory.mktemp("clone")
    for name in ("notebooks", "benchmarks", "docs", "mkdocs.yml", "README.md"):
        (path / name).symlink_to(ROOT / name)
    generator = np.random.default_rng(0)
    for part, count in (("train", 70), ("test", 10)):
        for label in ("cat", "dog"):
            folder = path / "images" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    epochs = np.arange(0, 3)
    values = np.sort(generator.random((3, 16)))[:, ::-1]
    np.savez(
        path / "byol.npz", epoch=epochs, f_eigenvalues=values, wp_eigenvalues=values, alignment=values,
        asymmetry=np.ones(3),
    )  # fmt: skip
    # The docs' study, at a size for a test.
    text = (ROOT / "docs" / "study.toml").read_text()
    small = text.replace("seeds = [0, 1]", "seeds = [0]").replace("epochs = 20", "epochs = 1\nprobe_epochs = 2")
    small = small[: small.index('[[trials]]\nname = "loses')]
    assert small.count("epochs") == 2
    (path / "study.toml").write_text(small.replace("ema = [0.0, 0.9, 0.99]", "ema = [0.0, 0.9]"))
    return Clone(path)


@pytest.mark.parametrize("command", commands())
def test_the_command_does_what_the_page_says(command: str, clone: Clone) -> None:
    how = HOW.get(command)
    if how is None:
        pytest.fail("nobody has said how this is run")
    if isinstance(how, Elsewhere):
        assert how.words in (ROOT / how.file).read_text()
    elif isinstance(how, Serve):
        served(f"{command} {how.more}", how, clone)
    else:
        ran(command, how, clone)


def ran(command: str, how: Run, clone: Clone) -> None:
    for old, new in how.instead:
        assert old in command
        command = command.replace(old, new)
    done = subprocess.run(
        clone.words(f"{command} {how.more}"), cwd=clone.path, env=clone.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(how.says, done.stdout), done.stdout
    assert not how.leaves or (clone.path / how.leaves).is_file(), done.stdout


def served(command: str, how: Serve, clone: Clone) -> None:
    log = clone.path / "served.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            clone.words(command), cwd=clone.path, env=clone.environment(), stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while (match := re.search(how.says, log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        # Of all that this machine is called, its own number is sure to be known here.
        url = re.sub(r"//[^/:]+", "//127.0.0.1", match[1], count=1)
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(url, timeout=60) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read(4000)
    finally:
        stop(process)
    assert process.returncode == 0, log.read_text()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and once more for a server that asks whether it was meant."""
    for patience in (40, 10):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


RUN_BLOCKS = """
import ast, json, sys

for page, block in json.loads(sys.stdin.read()):
    print(page, flush=True)
    tree = ast.parse(block)
    names = {}
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, page, "exec"), names)
    if last is not None:
        # The last line of a cell is what it shows.
        shown = eval(compile(ast.Expression(last.value), page, "eval"), names)
        if hasattr(shown, "close"):
            assert shown._repr_mimebundle_() is not None
            shown.close()
print("all done")
"""


def test_every_piece_of_python_runs(clone: Clone) -> None:
    import json

    pieces: dict[str, str] = {}
    for page, block in blocks("python"):
        pieces.setdefault(block, page)
    assert pieces
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", RUN_BLOCKS], cwd=clone.path, env=clone.environment(),
        input=json.dumps([[page, block] for block, page in pieces.items()]), capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all done" in done.stdout
