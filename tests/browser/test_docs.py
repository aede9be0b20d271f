"""The docs build without a warning, ask nobody for anything, and name only what is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import griffe
import pytest
import yaml

from tests.browser.conftest import Watched, eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = ["mkdocs", "build", "--strict"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_have_what_the_code_says(site: Path) -> None:
    theory = (site / "api" / "theory.html").read_text()
    assert "fixed_points" in theory
    config = (site / "api" / "config.html").read_text()
    for word in ("simsiam-symmetric-stable", "stop_gradient", "projector_hidden"):
        assert word in config, word
    for page in site.rglob("*.html"):
        # Marks that should have been replaced, and roles that only Sphinx knows.
        assert not re.search(r"&lt;!-- |:(?:func|class|meth|mod):", page.read_text()), page


def test_every_module_of_the_engine_that_people_call_has_a_page() -> None:
    import ssl_lab

    text = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    for name in ssl_lab.__all__:
        module = getattr(ssl_lab, name).__module__
        assert module in text, f"{name} of {module} has no page"


@pytest.mark.parametrize("package", ["ssl_lab", "lab"])
def test_docstrings_name_parameters_that_are_there(package: str) -> None:
    wrong = []

    def look(thing: griffe.Object) -> None:
        for member in thing.members.values():
            if member.is_alias:
                continue
            if member.is_function or member.is_class:
                wrong.extend(f"{member.path}: {name}" for name in missing(member))
            if member.is_module or member.is_class:
                look(member)

    look(griffe.load(package, search_paths=[str(ROOT)]))
    assert not wrong, "no such parameter:\n" + "\n".join(wrong)


def missing(thing: griffe.Object) -> set[str]:
    if thing.docstring is None:
        return set()
    options = {"warn_unknown_params": False, "warn_missing_types": False, "warnings": False}
    named: set[str] = set()
    for section in thing.docstring.parse("google", **options):
        if section.kind is griffe.DocstringSectionKind.parameters:
            for parameter in section.value:
                named |= {name.strip().lstrip("*") for name in parameter.name.split(",")}
    known = {parameter.name for parameter in thing.parameters}
    return named - known


def test_the_menu_has_every_page() -> None:
    class Loader(yaml.SafeLoader):
        pass

    # Names of Python objects, if there were any, are of no interest here.
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    listed = re.findall(r"[\w/-]+\.md", str(config["nav"]))
    assert sorted(listed) == sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))
    assert config["theme"]["font"] is False


def test_pages_opened_as_files_are_whole_without_a_network(
    site: Path,
    open_page: Callable[..., Watched],
) -> None:
    for name, width, dark in (("index", 1400, False), ("teachers", 380, True), ("api/config", 380, False)):
        page = open_page(f"file://{site}/{name}.html", width=width, dark=dark)
        page.page.wait_for_load_state("networkidle")
        assert not page.seen, page.seen
        assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in page.requests)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.page.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)")
        assert all(pictures)
    # The search too, for which a page of a server would start a worker.
    page.page.set_viewport_size({"width": 1400, "height": 900})
    results = page.page.locator(".md-search-result__meta")

    def found() -> bool:
        page.page.keyboard.press("Escape")
        page.page.keyboard.press("/")
        page.page.wait_for_timeout(300)
        page.page.keyboard.press("Control+a")
        page.page.keyboard.type("effective rank")
        page.page.wait_for_timeout(700)
        return "matching" in results.inner_text()

    eventually(found, "an answer of the search")
    assert not page.seen, page.seen


def test_the_citation_is_of_this_version_and_place() -> None:
    import ssl_lab

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert cited["version"] == ssl_lab.__version__
    assert cited["repository-code"] == urls["Repository"]
    for field in ("cff-version", "message", "title", "authors", "license"):
        assert cited[field], field
