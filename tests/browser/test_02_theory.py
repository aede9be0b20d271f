"""The linear theory in a real browser: turned by keyboard, seen to move, taken apart, bet on; wide, narrow, dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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

NOTEBOOK = "02-theory.ipynb"
Open = Callable[..., Watched]


def ready(page: Watched) -> Watched:
    page.page.wait_for_selector(".ssl-theory .bqplot path.line", timeout=60_000)
    eventually(lambda: time_of(page) > 0, "a flow that moves")
    return page


def time_of(page: Watched) -> float:
    there = page.page.locator(".ssl-headline [data-time]")
    return float(there.get_attribute("data-time")) if there.count() else 0.0


def words(page: Watched) -> str:
    return str(page.page.locator(".ssl-words").inner_text())


def drawn(page: Watched, place: str) -> list[str]:
    lines = page.page.locator(f".ssl-at-{place} svg path.line")
    return [str(d) for d in lines.evaluate_all("all => all.map(p => p.getAttribute('d'))")]


def slider(page: Watched, name: str) -> Any:
    return page.page.locator(f".ssl-turn[data-name={name}] input")


@pytest.fixture
def theory(voila_server: Server, open_page: Open) -> Callable[..., Watched]:
    def open_it(**how: Any) -> Watched:
        return ready(open_page(voila_server.at(f"/voila/render/{NOTEBOOK}"), **how))

    return open_it


def test_by_keyboard_alone(theory: Callable[..., Watched]) -> None:
    page = theory(width=1400)
    moved = drawn(page, "plane")
    eventually(lambda: drawn(page, "plane") != moved, "modes that move")

    # The space bar holds the flow still; what is turned is drawn all the same.
    page.page.keyboard.press("Space")
    eventually(lambda: "paused" in page.page.locator(".ssl-headline").inner_text(), "a pause")
    stood, plane, times = time_of(page), drawn(page, "plane"), drawn(page, "times")
    assert "p₊ = 0.715" in words(page)
    slider(page, "eta").focus()
    for _ in range(10):
        page.page.keyboard.press("ArrowRight")
    eventually(lambda: "p₊ = 0.651; below p₋ = 0.118" in words(page), "what weight decay 0.1 makes of it")
    assert page.page.locator(".ssl-turn[data-name=eta] output").inner_text() == "0.100"
    eventually(lambda: drawn(page, "plane") != plane and drawn(page, "times") != times, "pictures of it")
    assert time_of(page) == stood
    page.page.keyboard.press("End")
    eventually(lambda: "beyond the critical 0.192" in words(page), "collapse")
    assert page.page.locator("[role=status]").filter(has_text="modes").count() > 0
    page.page.keyboard.press("Home")
    eventually(lambda: "All modes learn" in words(page), "no collapse without weight decay")
    page.page.keyboard.press(".")
    eventually(lambda: time_of(page) == pytest.approx(stood + 5, abs=0.11), "a step")

    # Taking away and putting back.
    for name, formula in (("Predictor", "dW/dt = −W (X′ + η I)"), ("Stop-gradient", "−H vec(W)")):
        switch = page.page.get_by_role("switch", name=name)
        switch.focus()
        page.page.keyboard.press("Space")
        eventually(lambda: "all 12 modes die" in words(page), f"collapse without {name}")
        assert formula in page.page.locator(".ssl-switch", has=switch).inner_text()
        page.page.keyboard.press("Space")
        eventually(lambda: "modes learn" in words(page), f"life with {name}")
    ema = page.page.get_by_role("switch", name="EMA")
    assert "No effect now" in page.page.locator(".ssl-turn[data-name=beta]").inner_text()
    ema.focus()
    page.page.keyboard.press("Space")
    eventually(
        lambda: "No effect now" not in page.page.locator(".ssl-turn[data-name=beta]").inner_text(), "an EMA rate"
    )
    page_is_clean(page)


def test_a_bet_is_judged_by_the_flow(theory: Callable[..., Watched]) -> None:
    page = theory(width=420)
    assert sideways(page) == 0
    question = page.page.locator(".ssl-bet[data-question='2']")
    show = question.get_by_role("button", name="Show me")
    assert show.is_disabled()
    question.get_by_label("They go on learning").check()
    question.get_by_role("button", name="Bet").click()
    eventually(lambda: "Switch the predictor off." in question.inner_text(), "what is to be turned")
    assert not question.locator(".ssl-verdict b").inner_text()
    page.page.get_by_role("switch", name="Predictor").uncheck()
    said = question.locator(".ssl-verdict")
    eventually(lambda: "every mode dies" in said.inner_text(), "a verdict", 90)
    assert "Your bet was wrong" in said.inner_text()
    assert "theorem 2" in said.inner_text()
    assert "Without predictor W goes to 0" in words(page)
    screenshot(page, "theory-voila-420")
    page_is_clean(page)


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (380, True)])
def test_anybody_can_use_it(theory: Callable[..., Watched], width: int, dark: bool) -> None:
    page = theory(width=width, dark=dark)
    page.page.get_by_label("Zoom in").check()
    ticks = page.page.locator(".ssl-at-plane svg .tick text")
    eventually(lambda: "0.15" in ticks.all_text_contents(), "the close-up's axis")
    assert sideways(page) == 0
    axe(page)
    screenshot(page, f"theory-voila-{width}")
    page_is_clean(page)


def test_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    source = Path(__file__).resolve().parents[2] / "notebooks" / NOTEBOOK
    (jupyterlab_server.root / NOTEBOOK).write_text(source.read_text())
    page = ready(run_in_jupyterlab(open_page, jupyterlab_server, NOTEBOOK))
    before = drawn(page, "times")
    slider(page, "eta").focus()
    page.page.keyboard.press("End")
    eventually(lambda: "beyond the critical 0.192" in words(page), "collapse")
    eventually(lambda: drawn(page, "times") != before, "curves of it")
    # An arrow on a slider is the slider's, not the notebook's.
    assert slider(page, "eta").evaluate("node => node === document.activeElement")
    axe(page, within=".ssl-bench")
    screenshot(page, "theory-jupyterlab")
    page_is_clean(page)
