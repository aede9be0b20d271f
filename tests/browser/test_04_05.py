"""Notebooks 04 and 05 as apps, by keyboard alone: the picture changes, and a bet is judged from the files."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from lab.catalogue import recordings
from lab.lessons.direct import ARMS, winner
from ssl_lab import RunStore
from ssl_lab.desk import EngineDesk
from ssl_lab.store import open_run
from tests.browser.bench_page import curves
from tests.browser.conftest import (
    Server,
    Watched,
    axe,
    eventually,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    sideways,
)

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., Watched]


def card(page: Watched) -> str:
    return str(page.page.locator(".ssl-card section").inner_text())


def bet(page: Watched, answer: int) -> None:
    page.page.locator(".ssl-card input[type=radio]").first.focus()
    page.page.keyboard.press("Space")
    for _ in range(answer):
        page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")


def by_mouse(page: Watched, answer: int) -> None:
    page.page.locator(".ssl-card input[type=radio]").nth(answer).check()
    page.page.get_by_role("button", name="Bet", exact=True).click()


def press(page: Watched, name: str) -> None:
    page.page.get_by_role("button", name=name, exact=True).press("Enter")


def offered(page: Watched) -> list[str]:
    """What there is to press below the bet, all read at one moment."""
    words = page.page.locator(".ssl-card .ssl-buttons-row button").evaluate_all(
        "all => all.filter(b => b.offsetParent).map(b => b.innerText)"
    )
    return [str(word) for word in words]


def fits(page: Watched) -> None:
    """On a phone nothing is wider than the page."""
    page.page.set_viewport_size({"width": 380, "height": 800})
    eventually(lambda: sideways(page) == 0, "a page as wide as the phone")


def test_alignment_from_recordings(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/voila/render/04-eigenspace.ipynb"))
    page.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    eventually(lambda: "A recording, at step 312" in card(page), "the recording of the first question", 60)
    axe(page)

    # The main control: another recording is another picture.
    before = curves(page, "Alignment")
    chooser = page.page.get_by_label("Recording", exact=True)
    chooser.focus()
    page.page.keyboard.type("BYOL with")
    eventually(lambda: "cifar10-byol-symmetric" in page.page.locator(".ssl-headline").inner_text(), "that recording")
    eventually(lambda: curves(page, "Alignment") != before, "another picture")
    chooser.focus()
    page.page.keyboard.press("Home")
    eventually(lambda: "A recording, at step 312" in card(page), "the question's own recording, where it was")

    # A bet, and its verdict from the recording's file.
    bet(page, 0)
    press(page, "Show what happened")
    eventually(lambda: "Measured in" in card(page), "a verdict", 60)
    with RunStore.open(next(p for p in recordings() if p.stem == "cifar10-byol"), readonly=True) as store:
        first, last = store.newest_spectrum(upto=312), store.newest_spectrum(upto=1248)
    assert first is not None
    assert last is not None
    assert f"aligned directions {first.spectrum.aligned} → {last.spectrum.aligned}" in card(page)
    assert "So: Those with the largest eigenvalues of F" in card(page)
    screenshot(page, "alignment-verdict")
    axe(page)

    # Two recordings in one picture, and what the files say of them.
    press(page, "Next question")
    eventually(lambda: "A recording, at step 312" in card(page), "the second question", 60)
    eventually(lambda: page.page.locator(".ssl-legend .ssl-key").count() == 2, "both recordings")
    bet(page, 1)
    press(page, "Show what happened")
    eventually(lambda: "Measured in" in card(page), "a verdict", 60)
    assert re.search(r"aligned directions 4 → 49; in plain BYOL 2 → 16", card(page))
    assert "So: The symmetric one" in card(page)
    fits(page)
    screenshot(page, "alignment-380")
    page_is_clean(page)


def test_four_forks_side_by_side(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/voila/render/05-set-the-predictor.ipynb"))
    page.page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
    eventually(lambda: "The run is ready" in card(page), "the moment that all forks grow from", 120)
    bet(page, 3)
    before = curves(page, "Gain by direction")
    press(page, "Fork: DirectCopy")
    left = [f"Fork: {arm.words}" for arm in ARMS if arm.words != "DirectCopy"]
    eventually(lambda: offered(page) == [*left, "All, one after the other"], "one fork at its end", 120)
    assert page.page.locator(".ssl-knob-predictor .ssl-engine-value [data-value]").get_attribute("data-value") == (
        "directcopy"
    )
    assert curves(page, "Gain by direction") != before
    press(page, "All, one after the other")
    eventually(lambda: "Measured in" in card(page), "a verdict", 240)
    eventually(lambda: page.page.locator(".ssl-legend .ssl-key").count() == 4, "four runs in each picture")

    ranks = []
    for arm in ARMS:
        with open_run(f"{arm.name}-1", app.root, readonly=True) as store:
            assert store.parent is not None
            start = store.parent.step
            record = store.newest_spectrum(upto=start + 300)
        assert record is not None
        ranks.append(record.spectrum.effective_rank)
        assert f"{arm.words} {ranks[-1]:.2f}" in card(page)
    assert f"So: {ARMS[winner(ranks, 3)].words}" in card(page)
    screenshot(page, "predictor-verdict")
    axe(page)
    fits(page)
    screenshot(page, "predictor-380")
    page_is_clean(page)


def test_the_notebooks_in_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    """As lessons: 04 comes to a verdict with no engine at all, 05 to a fork."""
    root = jupyterlab_server.root
    for name in ("04-eigenspace", "05-set-the-predictor"):
        (root / f"{name}.ipynb").write_bytes((ROOT / "notebooks" / f"{name}.ipynb").read_bytes())
    page = run_in_jupyterlab(open_page, jupyterlab_server, "04-eigenspace.ipynb", height=1000)
    page.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    eventually(lambda: "A recording, at step 312" in card(page), "the recording", 60)
    before = curves(page, "Alignment")
    by_mouse(page, 2)
    press(page, "Show what happened")
    eventually(lambda: "Measured in" in card(page), "a verdict", 60)
    assert "aligned directions 2 → 12" in card(page)
    assert curves(page, "Alignment") != before
    desk = EngineDesk(root / "results")
    try:
        assert desk.status().pid is None
        page_is_clean(page)
        page.page.close()
        page = run_in_jupyterlab(open_page, jupyterlab_server, "05-set-the-predictor.ipynb", height=1000)
        eventually(lambda: "The run is ready" in card(page), "the moment that all forks grow from", 120)
        by_mouse(page, 0)
        press(page, "Fork: Least squares")
        eventually(lambda: "least-squares-1" in page.page.locator(".ssl-headline").inner_text(), "the fork", 60)
        page_is_clean(page)
    finally:
        pid = desk.status().pid
        desk.close()
        if pid:
            os.kill(pid, signal.SIGTERM)
