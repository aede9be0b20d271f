"""A family of runs in a real browser: one press on a knob's button, and five curves."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from ssl_lab.store import open_run
from tests.browser.bench_page import BENCH, curves, press, ready, state, step
from tests.browser.conftest import Server, Watched, axe, eventually, page_is_clean, screenshot, sideways

EMA = ["0", "0.5", "0.9", "0.996", "0.999"]
NAMES = [f"directpred-ema-{value}" for value in EMA]


def legend(page: Watched) -> list[str]:
    """The values in the legend, without the word on which one is on the page."""
    found = page.page.locator(".ssl-legend .ssl-member").all_inner_texts()
    return [text.replace("on the page", "").strip() for text in found]


def test_one_press_on_a_knob_begins_a_family(app: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(app.at(BENCH), width=1400)
    ready(page)
    # By keyboard, and with a name of its own for a screen reader.
    button = page.page.get_by_role("button", name="Family along EMA rate", exact=True)
    eventually(lambda: button.count() == 1, "a button that says what it is of")
    button.focus()
    page.page.keyboard.press("Enter")
    eventually(lambda: legend(page) == EMA, "five entries in the legend", 60)
    eventually(lambda: step(page) > 20, "steps", 120)
    for panel in ("Loss", "Effective rank of F"):
        before = curves(page, panel)
        eventually(
            lambda panel=panel, before=before: (
                sum(a != b for a, b in zip(before, curves(page, panel), strict=False)) >= 5
            ),
            f"five curves of {panel} that move",
            60,
        )
        box = page.page.locator(".ssl-panel", has=page.page.get_by_role("heading", name=panel, exact=True))
        texts = box.locator("svg text").all_text_contents()
        assert all(value in texts for value in EMA), "no label at the end of a curve"
        dashes = box.locator("svg path.line").evaluate_all(
            "all => all.filter(p => p.getBoundingClientRect().width > 0)"
            ".map(p => getComputedStyle(p).strokeDasharray + getComputedStyle(p).strokeWidth)"
        )
        assert len(set(dashes)) >= 5, "lines that only a colour tells apart"
    assert "by EMA rate: 0: effective rank" in page.page.locator(".ssl-legend .ssl-difference").inner_text()
    address = parse_qs(urlsplit(page.page.url).query)
    assert [*address["run"], *address["compare"][0].split(",")] == [NAMES[3], *NAMES[:3], NAMES[4]]
    screenshot(page, "family-1400")

    # One press on Pause is for all of them.
    stores = [open_run(name, app.root, readonly=True) for name in NAMES]
    press(page, "Pause")
    eventually(lambda: all(store.status().state == "paused" for store in stores), "five that stand", 60)
    eventually(lambda: state(page) == "paused", "a page that says so")
    done = [store.status().step for store in stores]
    assert max(done) - min(done) <= 0.1 * max(done) + 5, done

    # On the shelf they are one group, which folds away by keyboard.
    shelf = page.page.locator(".ssl-shelf")
    member = shelf.locator("tr", has_text=NAMES[1])
    eventually(member.is_visible, "the members of the family on the page")
    fold = shelf.get_by_role("button", name="runs of the family along EMA rate")
    fold.focus()
    page.page.keyboard.press("Enter")
    eventually(lambda: not member.is_visible(), "a family that is folded away")
    assert fold.get_attribute("aria-expanded") == "false"
    page.page.keyboard.press("Enter")
    eventually(member.is_visible, "and is unfolded again")
    axe(page)

    # On a phone, by the same address.
    page.page.set_viewport_size({"width": 380, "height": 800})
    page.reload_page()
    ready(page)
    eventually(lambda: legend(page) == EMA, "the same family after a reload", 60)
    eventually(lambda: sum(len(d) > 40 for d in curves(page, "Loss")) >= 5, "its five curves")
    assert sideways(page) == 0
    axe(page)
    screenshot(page, "family-380")
    press(page, "Step")
    eventually(lambda: [store.status().step for store in stores] == [n + 1 for n in done], "one step of all five", 60)
    press(page, "Close family")
    eventually(lambda: legend(page) == [], "the page without the family")
    eventually(lambda: page.page.locator(".ssl-headline b").first.inner_text() == "directpred-1", "its parent")
    for store in stores:
        store.close()
    page_is_clean(page)
