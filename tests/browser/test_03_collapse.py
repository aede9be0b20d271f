"""The lesson on collapse as an app: bet by keyboard, have the knob turned, and read in the run's file what came out."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from ssl_lab.desk import EngineDesk
from ssl_lab.store import open_run
from tests.browser.bench_page import curves, engine_value, ready, state
from tests.browser.conftest import Server, Watched, axe, eventually, page_is_clean, run_in_jupyterlab, screenshot

ROOT = Path(__file__).resolve().parents[2]
PAGE = "/voila/render/03-collapse.ipynb"
Open = Callable[..., Watched]


def card(page: Watched) -> str:
    return str(page.page.locator(".ssl-card section").inner_text())


def focused(page: Watched) -> str:
    return str(page.page.evaluate("document.activeElement?.innerText ?? ''"))


def test_a_question_by_keyboard_alone(app: Server, open_page: Open) -> None:
    page = open_page(app.at(PAGE))
    ready(page)
    assert page.page.locator(".ssl-panel").count() == 4
    eventually(lambda: "The run is ready" in card(page), "a run that is where the question starts", 90)
    before = curves(page, "Effective rank of F")
    bet = page.page.get_by_role("button", name="Bet", exact=True)
    assert bet.is_disabled()

    # To the answers, the second of them, and back to the first; Enter bets.
    page.page.locator(".ssl-card input[type=radio]").first.focus()
    page.page.keyboard.press("Space")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowUp")
    page.page.keyboard.press("Enter")
    eventually(lambda: focused(page) == "Do it for me", "the focus on what comes next")
    eventually(lambda: page.page.locator(".ssl-knob-predictor.ssl-asked").count() == 1, "a mark at the knob")
    screenshot(page, "collapse-bet")
    page.page.keyboard.press("Enter")
    eventually(lambda: "Watching: step" in card(page), "a word on what goes on")
    eventually(lambda: "Measured in" in card(page), "a verdict", 90)
    assert engine_value(page, "predictor") == "none"
    eventually(lambda: state(page) == "paused", "a run that stands")
    eventually(lambda: "Measured in" in focused(page), "the focus on the verdict")

    # What is said is what the file holds.
    name = page.page.locator(".ssl-headline b").first.inner_text()
    with open_run(name, app.root, readonly=True) as store:
        (event,) = store.events()
        assert (event.changes, store.last_step()) == ({"predictor": "none"}, event.step + 300)
        old, new = store.newest_spectrum(upto=event.step), store.newest_spectrum(upto=event.step + 300)
        assert old is not None
        assert new is not None
    ranks = f"effective rank of F {old.spectrum.effective_rank:.2f} → {new.spectrum.effective_rank:.2f}"
    assert ranks in card(page)
    assert f"Measured in {name}, steps {event.step} to {event.step + 300}" in card(page)
    came = "It collapses" if new.spectrum.effective_rank < 3 else "It loses some"
    assert re.search(rf"So: {came}", card(page))
    assert page.page.locator(".ssl-card label.ssl-came").count() == 1
    # A screen reader is told, and the picture is another one.
    assert ranks in page.page.locator(".ssl-card [role=status]").inner_text()
    assert curves(page, "Effective rank of F") != before
    screenshot(page, "collapse-verdict")

    # On a phone it is one column, and nothing is wider.
    page.page.set_viewport_size({"width": 380, "height": 800})
    eventually(lambda: page.page.evaluate("document.documentElement.scrollWidth") <= 380, "a page as wide as the phone")
    axe(page)
    screenshot(page, "collapse-380")

    # The next question goes on with this run.
    page.page.get_by_role("button", name="Next question", exact=True).press("Enter")
    eventually(lambda: "The way back" in card(page) and "The run is ready" in card(page), "the next question")
    assert focused(page) == "The way back"
    assert page.page.locator(".ssl-headline b").first.inner_text() == name
    page_is_clean(page)


def test_the_notebook_in_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    """As a lesson: cells above and below, the run in an engine process that the kernel starts."""
    root = jupyterlab_server.root
    (root / "03-collapse.ipynb").write_bytes((ROOT / "notebooks" / "03-collapse.ipynb").read_bytes())
    page = run_in_jupyterlab(open_page, jupyterlab_server, "03-collapse.ipynb", height=1000)
    try:
        ready(page)
        eventually(lambda: "The run is ready" in card(page), "a run that is where the question starts", 90)
        page.page.locator(".ssl-card input[type=radio]").nth(1).check()
        page.page.get_by_role("button", name="Bet", exact=True).click()
        before = curves(page, "Effective rank of F")
        # By hand, at the control.
        page.page.locator(".ssl-knob-predictor select").select_option(label="none")
        eventually(lambda: "Measured in" in card(page), "a verdict", 90)
        assert "You bet “It loses some, and keeps 3 or more”" in card(page)
        assert curves(page, "Effective rank of F") != before
        screenshot(page, "collapse-jupyterlab")
        page_is_clean(page)
    finally:
        desk = EngineDesk(root / "results")
        pid = desk.status().pid
        desk.close()
        if pid:
            os.kill(pid, signal.SIGTERM)
