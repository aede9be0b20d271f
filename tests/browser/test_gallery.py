"""The front page, as a person sees it who typed the first command and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.bench_page import BENCH, ready
from tests.browser.conftest import (
    Server,
    Watched,
    axe,
    eventually,
    kernel_pids,
    page_is_clean,
    screenshot,
    sideways,
)

Open = Callable[..., Watched]


def heights(page: Watched) -> list[str]:
    bars = page.page.locator("#film rect")
    return [str(height) for height in bars.evaluate_all("all => all.map(bar => bar.getAttribute('height'))")]


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (380, True)])
def test_the_front_page_moves_and_can_be_stopped(app: Server, open_page: Open, width: int, dark: bool) -> None:
    page = open_page(app.at("/"), width=width, dark=dark)
    page.page.wait_for_selector("#film rect")
    first = heights(page)
    eventually(lambda: heights(page) != first, "another moment of the recording")
    pause = page.page.get_by_role("button", name="Pause the moving picture")
    pause.click()
    held = heights(page)
    page.page.wait_for_timeout(400)
    assert heights(page) == held
    axe(page)
    assert sideways(page) == 0
    assert page.page.title() == "ssl-lab"
    assert page.page.get_by_role("heading", level=1).inner_text() == "ssl-lab"
    assert "no predictor" not in page.page.locator("#film-now").inner_text() or heights(page) != first
    page.page.get_by_role("button", name="Play the moving picture").click()
    eventually(lambda: "no predictor" in page.page.locator("#film-now").inner_text(), "the second part", 90)
    screenshot(page, f"gallery-{width}-{'dark' if dark else 'light'}")
    page_is_clean(page)


def test_whoever_wants_no_motion_has_none(app: Server, open_page: Open) -> None:
    page = open_page("about:blank")
    page.page.emulate_media(reduced_motion="reduce")
    page.page.goto(app.at("/"))
    play = page.page.get_by_role("button", name="Play the moving picture")
    play.wait_for()
    first = heights(page)
    page.page.wait_for_timeout(500)
    assert heights(page) == first
    play.click()
    eventually(lambda: heights(page) != first, "motion that was asked for")
    page_is_clean(page)


def test_by_keyboard_to_a_notebook_and_back(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/?voila-theme=dark"))
    page.page.wait_for_selector(".cards")
    for _ in range(30):
        page.page.keyboard.press("Tab")
        if page.page.evaluate("document.activeElement.matches('.card')"):
            break
    focused = page.page.locator(":focus")
    assert focused.get_attribute("href") == f"{BENCH}?voila-theme=dark"
    assert page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.page.keyboard.press("Enter")
    # Until the page has begun a run: one that is left before has none to show.
    ready(page)
    page.page.wait_for_selector("#loading", state="detached")
    home = page.page.get_by_role("link", name="ssl-lab", exact=True)
    home.focus()
    page.leaving = True
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".cards")
    page.leaving = False
    assert page.page.url.endswith("/?voila-theme=dark")

    def listed() -> bool:
        page.reload_page()
        page.page.wait_for_selector(".runs li")
        return bool(page.page.locator(".runs .state").count())

    eventually(listed, "the run that was begun")
    page_is_clean(page)


def test_a_recording_opens_on_the_bench(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/"))
    page.page.get_by_role("link", name="collapse-and-return").click()
    page.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    eventually(lambda: "step 900" in page.page.locator(".ssl-headline").inner_text().lower(), "the recording's end")
    page_is_clean(page)


def test_the_host_s_key_is_kept_and_not_shown(app: Server, open_page: Open) -> None:
    before = len(kernel_pids(app))
    page = open_page(app.at("/?key=the%20host%27s&theme=light"), dark=True)
    page.page.wait_for_selector(".cards")
    eventually(lambda: page.page.url == app.at("/?theme=light"), "an address without the key")
    assert page.page.evaluate("localStorage.getItem('ssl-lab-visitor')") == "the host's"
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(kernel_pids(app)) <= before + 1, "no page of its own, at most the kernel that is kept ready"
