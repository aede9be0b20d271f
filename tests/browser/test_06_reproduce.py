"""The page of the reproduction in a real browser: a picture at once, studies, bets, and a study that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.reproduction.pipeline import Size
from lab.reproduction.studies import shipped
from ssl_lab.reproduce.progress import LOCK
from ssl_lab.reproduce.record import RECORD, read_record, write_record
from ssl_lab.seat import taken
from tests.browser.conftest import (
    Server,
    Watched,
    axe,
    eventually,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    sideways,
    write_notebook,
)

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., Watched]

TINY = Size(seeds=1, epochs=2, items=("figure3",))
CELL = (
    "from lab import Reproduction\nfrom lab.reproduction.pipeline import Size\n"
    f"Reproduction(size=Size(seeds={TINY.seeds}, epochs={TINY.epochs}, items={TINY.items!r}))"
)


@pytest.fixture(scope="module")
def served(serve_voila: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The notebook as it comes, and the same page with a study that is done in seconds."""
    notebooks = tmp_path_factory.mktemp("notebooks")
    (notebooks / "06-reproduce.ipynb").write_text((ROOT / "notebooks" / "06-reproduce.ipynb").read_text())
    write_notebook(notebooks / "07-tiny.ipynb", CELL)
    server = serve_voila(notebooks)
    folder = server.root / "results" / "another"
    folder.mkdir(parents=True)
    record = shipped().record
    runs = tuple(run.model_copy(update={"probe": 75.0 + run.seed}) for run in record.runs)
    write_record(folder, record.model_copy(update={"runs": runs}))
    return server


def bars(page: Watched) -> list[str]:
    """Widths of all bars, in the order in which they are drawn."""
    found = page.page.locator(".ssl-charts rect.bar").evaluate_all("all => all.map(r => r.getAttribute('width'))")
    return [str(width) for width in found]


def seen(page: Watched, what: str) -> str:
    return str(page.page.locator(what).first.inner_text())


def opened(page: Watched) -> Watched:
    page.page.wait_for_selector(".ssl-reproduction .bqplot rect.bar", timeout=60_000, state="attached")
    page.page.wait_for_selector("#loading", state="detached")
    return page


def choose(page: Watched, name: str) -> None:
    page.page.get_by_role("combobox", name="Study").select_option(label=name)


def test_a_picture_at_once_studies_and_bets(served: Server, open_page: Open) -> None:
    page = opened(open_page(served.at("/voila/render/06-reproduce.ipynb")))
    before = eventually(lambda: bars(page), "bars")
    assert len(before) == 24
    # What waits for its bet has no bar.
    assert sum(float(width) > 0 for width in before) == 11
    eventually(lambda: page.page.get_by_role("combobox", name="Study").locator("option").count() == 2, "the studies")
    choose(page, "another")
    eventually(lambda: "another" in seen(page, ".ssl-right p b"), "the other study")
    eventually(lambda: bars(page) != before, "other bars")
    assert "75.5 ± 0.71" in seen(page, ".ssl-table")
    row = page.page.locator(".ssl-table tr", has=page.page.get_by_text("directpred", exact=True))
    assert "bet first" in row.inner_text()
    screenshot(page, "reproduce-1400")
    # By keyboard alone: Tab to the first question, the arrow makes the bet.
    page.page.locator(".ssl-bet").first.get_by_role("radio").first.focus()
    page.page.keyboard.press("Space")
    eventually(lambda: "Your bet holds" in seen(page, ".ssl-bet .ssl-verdict"), "a verdict")
    assert "Not decided" in seen(page, ".ssl-bet .ssl-verdict")
    eventually(lambda: "85.21 ± 0.23" in row.inner_text(), "the row's numbers")
    page.page.get_by_role("button", name="Show all numbers without betting").click()
    eventually(lambda: page.page.locator(".ssl-verdict").count() == 3, "all verdicts")
    eventually(lambda: sum(float(width) > 0 for width in bars(page)) == 23, "all bars")
    axe(page)
    assert sideways(page) == 0
    page.page.get_by_role("spinbutton", name="Seeds").fill("5")
    page.page.keyboard.press("Tab")
    command = page.page.get_by_role("textbox", name="The command")
    eventually(lambda: "--seeds 5" in command.input_value(), "the command")
    page_is_clean(page)


@pytest.mark.parametrize(("width", "dark"), [(380, True), (420, False)])
def test_on_a_phone(served: Server, open_page: Open, width: int, dark: bool) -> None:
    page = opened(open_page(served.at("/voila/render/06-reproduce.ipynb"), width=width, dark=dark))
    page.page.get_by_role("button", name="Show all numbers without betting").click()
    eventually(lambda: page.page.locator(".ssl-verdict").count() == 3, "all verdicts")
    assert sideways(page) == 0
    # The table is wider than the phone, and scrolls in its own box, also by keyboard.
    box = page.page.locator(".ssl-table")
    wide: Any = box.evaluate("b => [b.scrollWidth, b.clientWidth]")
    assert wide[0] > wide[1]
    page.page.get_by_role("button", name="Run the study here").focus()
    page.page.keyboard.press("Shift+Tab")
    assert page.page.evaluate("document.activeElement.tagName") == "TABLE"
    page.page.keyboard.press("ArrowRight")
    eventually(lambda: box.evaluate("b => b.scrollLeft") > 0, "the table scrolled")
    axe(page)
    screenshot(page, f"reproduce-{width}-{'dark' if dark else 'light'}")
    page_is_clean(page)


def test_a_study_runs_here_and_outlives_the_page(served: Server, open_page: Open) -> None:
    page = opened(open_page(served.at("/voila/render/07-tiny.ipynb")))
    folder = served.root / "results" / TINY.name
    page.page.get_by_role("button", name="Show all numbers without betting").click()
    page.page.get_by_role("button", name="Run the study here").click()
    eventually(lambda: page.page.locator(".ssl-work progress").count() == 1, "a bar", 60)
    page.reload_page()
    opened(page)
    # The page that was opened anew shows the study that was started by the old one.
    eventually(lambda: TINY.name in seen(page, ".ssl-right p b"), "the study", 60)
    page.page.get_by_role("button", name="Show all numbers without betting").click()
    eventually(lambda: "All 4 runs done" in seen(page, ".ssl-work"), "the end", 120)
    eventually(lambda: sum(float(width) > 0 for width in bars(page)) == 11 + 2, "its bars")
    record = read_record(folder / RECORD)
    assert record.state == "done"
    assert not taken(folder / LOCK)
    (run,) = record.of_row("simsiam")
    assert f"{run.probe:.2f}".removesuffix("0") in seen(page, ".ssl-table")
    assert json.loads((folder / RECORD).read_text())["data"] == "digits"
    # Its report is saved from the page, which serves no files.
    with page.page.expect_download() as saving:
        page.page.get_by_role("link", name="Save it").click()
    assert Path(saving.value.path()).read_bytes() == (folder / "report.html").read_bytes()
    screenshot(page, "reproduce-here")
    page_is_clean(page)


def test_the_notebook_in_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    root = jupyterlab_server.root
    (root / "06-reproduce.ipynb").write_bytes((ROOT / "notebooks" / "06-reproduce.ipynb").read_bytes())
    folder = root / "results" / "another"
    folder.mkdir(parents=True)
    record = shipped().record
    runs = tuple(run.model_copy(update={"probe": 75.0 + run.seed}) for run in record.runs)
    write_record(folder, record.model_copy(update={"runs": runs}))
    page = run_in_jupyterlab(open_page, jupyterlab_server, "06-reproduce.ipynb", height=1000)
    page.page.wait_for_selector(".ssl-reproduction .bqplot rect.bar", timeout=60_000, state="attached")
    before = eventually(lambda: bars(page), "bars")
    eventually(lambda: page.page.get_by_role("combobox", name="Study").locator("option").count() == 2, "the studies")
    choose(page, "another")
    eventually(lambda: bars(page) != before, "other bars")
    axe(page, within=".ssl-reproduction")
    page_is_clean(page)
