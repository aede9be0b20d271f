"""What axe-core finds on our pages, and whether they can be used without a mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from lab import gate
from lab.routes import full
from lab.serve import TEMPLATES
from tests.browser.bench_page import BENCH, engine_value, ready
from tests.browser.conftest import (
    Server,
    Watched,
    axe,
    axe_faults,
    eventually,
    page_is_clean,
    run_in_jupyterlab,
    sideways,
    write_notebook,
)

RECORDED = "/?run=recording:%20collapse-and-return"
LOOKS = ((1400, "light"), (1400, "dark"), (380, "light"), (380, "dark"))


def written(tmp_path: Path, body: str) -> str:
    """The address of a page that holds ``body``."""
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><html lang=en><title>A page</title><body><main><h1>A page</h1>{body}</main>")
    return path.as_uri()


def test_axe_finds_what_is_wrong_and_says_where(open_page: Callable[..., Watched], tmp_path: Path) -> None:
    good = open_page(written(tmp_path, "<label>Rate <input></label>"))
    axe(good)
    bad = open_page(written(tmp_path, "<input id=nameless><p id=faint style='color:#ccc;background:#fff'>Hardly seen"))
    assert {fault.rule for fault in axe_faults(bad)} == {"label", "color-contrast"}
    with pytest.raises(AssertionError, match=r"(?s)^2 that axe finds grave.*#nameless"):
        axe(bad)
    axe(bad, within="h1")


def named(page: Watched) -> None:
    """Until the page script has given names to what it found."""
    handles = page.page.locator(".ssl-bench .noUi-handle")
    count = "all => all.length > 0 && all.every(handle => handle.getAttribute('aria-label'))"
    eventually(lambda: handles.evaluate_all(count), "names of the sliders")


def test_axe_finds_nothing_grave_on_the_bench(app: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(app.at(RECORDED))
    page.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    page.page.wait_for_selector("#loading", state="detached")
    named(page)
    for width, scheme in LOOKS:
        page.page.emulate_media(color_scheme=scheme)
        page.page.set_viewport_size({"width": width, "height": 900})
        page.page.wait_for_timeout(400)
        axe(page)
        assert sideways(page) == 0, (width, scheme)
    pictures = page.page.locator(".bqplot > svg[role=img]")
    labels = pictures.evaluate_all("all => all.map(svg => svg.getAttribute('aria-label'))")
    assert len(labels) >= 6
    assert all(len(label) > 20 for label in labels), labels
    assert page.page.get_by_role("main").count() == 1
    assert page.page.get_by_role("heading", level=1).count() == 1
    # A logarithmic slider says what it is set to, and not its exponent.
    rate = page.page.locator(".ssl-knob-lr .noUi-handle")
    assert str(rate.get_attribute("aria-label")).startswith("learning rate")
    assert float(rate.get_attribute("aria-valuetext") or "") == pytest.approx(0.03, rel=0.1)
    switch = page.page.locator(".ssl-knob-stop_gradient input")
    assert str(switch.get_attribute("aria-label")).startswith("stop-gradient")
    page_is_clean(page)


@pytest.mark.parametrize("refusal", [gate.NO_TOKEN, gate.NO_SUCH_PAGE, full(3)], ids=lambda refusal: refusal.title)
def test_axe_finds_nothing_grave_at_the_door(refusal: Any, open_page: Callable[..., Watched], tmp_path: Path) -> None:
    folder = TEMPLATES / "nbconvert" / "templates" / "ssl-lab"
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    path = tmp_path / "door.html"
    path.write_text(environment.get_template("door.html").render(refusal=refusal))
    page = open_page(path.as_uri())
    for width, scheme in LOOKS:
        page.page.emulate_media(color_scheme=scheme)
        page.page.set_viewport_size({"width": width, "height": 600})
        axe(page)
        assert sideways(page) == 0


FOCUSED = """() => {
  const it = document.activeElement;
  if (!it || it === document.body) return null;
  const style = getComputedStyle(it);
  const ring = (s) => (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0) || s.boxShadow !== "none";
  const label = it.getAttribute("aria-label") || it.labels?.[0]?.textContent || it.textContent || it.title || "";
  // The scrub bar's ring is around its thumb, which no script can see.
  return [it.tagName + "." + it.className, label.trim(), ring(style) || it.matches("[type=range]")];
}"""


def test_the_bench_works_by_keyboard_alone(app: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(app.at(BENCH))
    ready(page)
    page.page.wait_for_selector("#loading", state="detached")
    named(page)
    keyboard = page.page.keyboard
    seen: list[Any] = []
    turned = ""
    for _ in range(120):
        keyboard.press("Tab")
        focused = page.page.evaluate(FOCUSED)
        if focused is None:
            break
        seen.append(focused)
        if not turned and page.page.evaluate("!!document.activeElement.closest('.ssl-knob-predictor')"):
            before = engine_value(page, "predictor")
            keyboard.press("ArrowDown")
            eventually(lambda before=before: engine_value(page, "predictor") != before, "another predictor", 90)
            turned = "predictor"
        elif turned == "predictor" and page.page.evaluate("!!document.activeElement.closest('.ssl-knob-ema')"):
            before = engine_value(page, "ema")
            keyboard.press("ArrowLeft")
            eventually(lambda before=before: engine_value(page, "ema") != before, "another EMA rate", 90)
            turned = "both"
    assert turned == "both", seen
    assert len(seen) > 30, "Tab goes on to the page's end, and is held nowhere"
    assert len({name for name, _, _ in seen}) > 6
    assert not [name for name, label, _ in seen if not label], "each says what it is"
    assert not [(name, label) for name, label, ring in seen if not ring], "each shows that it has the focus"
    keyboard.press("Shift+Tab")
    assert page.page.evaluate(FOCUSED) is not None
    page_is_clean(page)


def test_names_are_given_in_jupyterlab_too(jupyterlab_server: Server, open_page: Callable[..., Watched]) -> None:
    write_notebook(
        jupyterlab_server.root / "bench.ipynb",
        "import ipywidgets\nipywidgets.IntSlider(description='of another one')",
        "from importlib.resources import files\nfrom lab import Bench\n"
        "Bench.open(files('lab') / 'recordings' / 'collapse-and-return.sqlite')",
    )
    page = run_in_jupyterlab(open_page, jupyterlab_server, "bench.ipynb")
    page.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    named(page)
    axe(page, within=".ssl-bench")
    # What has a name keeps it, and what is not the bench's is left alone.
    assert page.page.locator(".ssl-bench input[aria-label='Step shown']").count() == 1
    others = page.page.locator(".noUi-handle:not(.ssl-bench *)")
    assert [handle.get_attribute("aria-label") for handle in others.all()] == [None]
    page_is_clean(page)
