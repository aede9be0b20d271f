"""A class in real pages: each with a key of its own, the teacher with the host's, and runs that are somebody's."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.house import House, digest
from ssl_lab import RunStore, preset
from ssl_lab.store import Metrics
from tests.browser.bench_page import press, state, step
from tests.browser.conftest import Server, Watched, eventually, page_is_clean, screenshot, write_notebook

Open = Callable[..., Watched]

CELL = "from lab import Bench\nBench()"
FULL = "from lab import Bench\nbench = Bench()\nbench._watch._free = lambda _: 900_000\nbench"


@pytest.fixture(scope="module")
def house(serve_voila: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    notebooks = tmp_path_factory.mktemp("notebooks")
    write_notebook(notebooks / "01-bench.ipynb", CELL)
    write_notebook(notebooks / "02-full.ipynb", FULL)
    rules = House(served=True, own_only=True, host_key=digest("teacher's"), max_visitors=20, max_runs=2)
    server = serve_voila(notebooks, env=rules.environment())
    for name, key in (("bobs", "bob's"), ("anns", "ann's"), ("anns-second", "ann's")):
        # Runs that are done: nobody is to step them here.
        with RunStore.create(name, preset("directpred"), server.root / "results") as store:
            store.set_meta("keeper", digest(key))
            store.add_metrics(Metrics(i, i / 10, 1 / i, 0.0) for i in range(1, 41))
            store.set_status(state="done", step=40)
    return server


def opened(page: Watched, name: str) -> Watched:
    page.page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
    page.page.wait_for_selector("#loading", state="detached")
    eventually(lambda: page.page.locator(".ssl-headline b").first.inner_text() == name, f"the run {name}", 60)
    return page


def hints(page: Watched) -> str:
    return " ".join(page.page.locator(".ssl-banner p").all_inner_texts())


def query(page: Watched) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.page.url).query)


def deletable(page: Watched) -> list[str]:
    rows = page.page.locator(".ssl-shelf tbody tr", has=page.page.get_by_role("button", name="Delete", exact=True))
    return [str(text) for text in rows.locator(".ssl-name b").all_inner_texts()]


@pytest.mark.parametrize("width", [1400, 420])
def test_somebody_else_s_run_is_watched(house: Server, open_page: Open, width: int) -> None:
    page = opened(open_page(house.at("/?run=bobs&key=ann%27s"), width=width), "bobs")
    eventually(lambda: "somebody else's" in hints(page), "whose run it is")
    assert query(page) == {"run": ["bobs"]}
    assert "ann's" not in page.page.url
    buttons = page.page.locator(".ssl-left .ssl-buttons button")
    for name in ("Run", "Pause", "Step", "10 steps"):
        assert buttons.get_by_text(name, exact=True).is_disabled()
    assert page.page.locator(".ssl-knob-predictor select").is_disabled()
    eventually(lambda: deletable(page) == ["anns-second", "anns"], "one's own runs")
    assert step(page) == 40
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        dark = scheme == "dark"
        eventually(lambda dark=dark: page.page.locator("body.theme-dark").count() == dark, "the other theme")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"class-watching-{width}-{scheme}")
    page_is_clean(page)


def test_who_a_visitor_is_outlives_a_reload_and_the_cap_is_said(house: Server, open_page: Open) -> None:
    page = opened(open_page(house.at("/?run=bobs&key=ann%27s")), "bobs")
    page.reload_page()
    opened(page, "bobs")
    eventually(lambda: deletable(page) == ["anns-second", "anns"], "the same visitor")
    press(page, "New run")
    eventually(lambda: "You keep 2 runs, and a visitor may keep 2 here" in hints(page), "the bound and the way out")
    screenshot(page, "class-cap")
    # Two presses on the shelf are the way out.
    row = page.page.locator(".ssl-shelf tbody tr", has_text="anns-second")
    for name in ("Delete", "Really delete?"):
        row.get_by_role("button", name=name, exact=True).click()
    eventually(lambda: row.count() == 0, "a run less")
    assert not (house.root / "results" / "anns-second").exists()
    assert (house.root / "results" / "anns").exists()
    page_is_clean(page)


def test_whoever_has_no_key_gets_one_and_the_host_has_the_host_s(house: Server, open_page: Open) -> None:
    stranger = opened(open_page(house.at("/?run=bobs")), "bobs")
    key = stranger.page.evaluate("localStorage.getItem('ssl-lab-visitor')")
    assert len(key) == 32
    assert eventually(lambda: "somebody else's" in hints(stranger), "whose run it is")
    assert deletable(stranger) == []
    host = opened(open_page(house.at("/?run=bobs&key=teacher%27s")), "bobs")
    eventually(lambda: "anns" in deletable(host), "all runs but the one on the page")
    assert "somebody else's" not in hints(host)
    assert state(host) == "done"


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (420, True)])
def test_a_full_disk_is_said(house: Server, open_page: Open, width: int, dark: bool) -> None:
    address = house.at("/voila/render/02-full.ipynb?run=bobs&key=teacher%27s")
    page = opened(open_page(address, width=width, dark=dark), "bobs")
    eventually(lambda: "The disk that the runs are on is full: 0.9 MB are free" in hints(page), "a word on the disk")
    assert page.page.locator(".ssl-banner [role=alert]").count() == 1
    screenshot(page, f"class-full-{width}-{'dark' if dark else 'light'}")
    page_is_clean(page)
