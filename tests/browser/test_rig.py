"""The rig itself, on a small notebook: the template, the page's eyes, both servers, nothing asked of the network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import (
    Server,
    Watched,
    eventually,
    kernel_pids,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    wait_for_kernels,
    write_notebook,
)

CELL = """
import bqplot as bq
import ipywidgets as w
import numpy as np
from lab.browser import Browser

x = np.linspace(0, 6, 100, dtype="float32")
sx, sy = bq.LinearScale(), bq.LinearScale()
line = bq.Lines(x=x, y=np.sin(x), scales={"x": sx, "y": sy})
axes = [bq.Axis(scale=sx, label="x"), bq.Axis(scale=sy, orientation="vertical", label="y")]
figure = bq.Figure(marks=[line], axes=axes, min_aspect_ratio=0.1, max_aspect_ratio=100,
                   layout=w.Layout(width="100%", height="220px"))
slider = w.IntSlider(value=1, min=1, max=9, description="k")
answer, eyes, key, painted = w.Label("k=1"), w.Label(), w.Label("no key"), w.Label()
button = w.Button(description="go", icon="play")
browser = Browser()

def turned(change):
    line.y = np.sin(x * change["new"])
    answer.value = f"k={change['new']}"
    browser.picture = 70 + change["new"]

def looked(change):
    eyes.value = f"{browser.query} {browser.width} {browser.visible} {browser.dark} {browser.alive}"
    if change["name"] == "query":
        browser.run, browser.title, browser.announce = "first", "first · ssl-lab", "all is well"

slider.observe(turned, "value")
browser.observe(looked, ["query", "width", "visible", "dark", "alive"])
browser.observe(lambda change: setattr(painted, "value", str(change["new"])), "painted")
browser.on_msg(lambda _, content, __: setattr(key, "value", content["key"]))
answer.add_class("answer"), eyes.add_class("eyes"), key.add_class("key"), painted.add_class("painted")
box = w.VBox([browser, slider, button, w.Text(), figure, answer, eyes, key, painted])
box.add_class("ssl-bench")
box
"""


@pytest.fixture(scope="module")
def voila(serve_voila: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    notebooks = tmp_path_factory.mktemp("notebooks")
    write_notebook(notebooks / "01-bench.ipynb", CELL)
    return serve_voila(notebooks)


def ready(page: Watched) -> None:
    page.page.wait_for_selector(".bqplot path.line", timeout=60_000)
    eventually(lambda: text(page, ".eyes"), "the page's eyes")


def text(page: Watched, selector: str) -> str:
    return str(page.page.locator(selector).first.inner_text())


def page_kernel(page: Watched) -> str:
    return str(page.page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"))


def turn_the_slider(page: Watched) -> None:
    eventually(lambda: text(page, ".painted") == "0", "the page's word that it can answer")
    curve = page.page.locator(".bqplot path.line").first
    before = curve.get_attribute("d")
    page.page.locator(".widget-slider [role=slider]").focus()
    page.page.keyboard.press("ArrowRight")
    eventually(lambda: text(page, ".answer") == "k=2", "Python's answer to the slider")
    eventually(lambda: curve.get_attribute("d") != before, "another curve")
    eventually(lambda: text(page, ".painted") == "72", "the page's answer to a picture")


def test_a_page_of_voila_goes_there_and_back(voila: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(voila.at("/?preset=byol&step=7"))
    page.page.wait_for_selector("#loading")
    ready(page)
    page.page.wait_for_selector("#loading", state="detached")
    turn_the_slider(page)

    query, width, visible, dark, alive = text(page, ".eyes").rsplit(" ", 4)
    assert (query, width, visible, dark) == ("{'preset': 'byol', 'step': '7'}", "1400", "True", "False")
    eventually(lambda: int(text(page, ".eyes").rsplit(" ", 1)[1]) > int(alive), "another heartbeat")
    page.page.set_viewport_size({"width": 420, "height": 800})
    eventually(lambda: text(page, ".eyes").split(" ")[-4] == "420", "the new width")
    figure = page.page.locator(".bqplot").bounding_box()
    assert figure["height"] == pytest.approx(220, abs=1)
    assert 300 < figure["width"] <= 420

    address = urlsplit(page.page.url)
    assert address.path.endswith("01-bench.ipynb")
    assert parse_qs(address.query) == {"step": ["7"], "run": ["first"]}
    assert page.page.title() == "first · ssl-lab"
    assert page.page.locator("html").get_attribute("lang") == "en"
    assert page.page.locator("[aria-live=polite]", has_text="all is well").count() == 1
    screenshot(page, "rig-voila-phone")
    page_is_clean(page)


def test_keys_are_heard_but_for_those_of_a_field(voila: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(voila.at("/"))
    ready(page)
    page.page.locator(".ssl-bench input[type=text]").last.click()
    page.page.keyboard.type(". .")
    page.page.get_by_role("button", name="go").focus()
    page.page.keyboard.press(" ")
    page.page.evaluate("document.activeElement.blur()")
    assert text(page, ".key") == "no key"
    page.page.keyboard.press(".")
    eventually(lambda: text(page, ".key") == "step", "the step key")
    page.page.keyboard.press(" ")
    eventually(lambda: text(page, ".key") == "run_pause", "the space bar")
    page_is_clean(page)


def test_the_theme_is_the_system_s_and_the_address_outdoes_it(voila: Server, open_page: Callable[..., Watched]) -> None:
    system = open_page(voila.at("/"), dark=True)
    asked = open_page(voila.at("/?voila-theme=light"), dark=True)
    for page, dark, paint in ((system, "True", "rgb(17, 17, 17)"), (asked, "False", "rgb(255, 255, 255)")):
        ready(page)
        assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == paint
        assert text(page, ".eyes").split(" ")[-2] == dark
        screenshot(page, f"rig-voila-dark-{dark}")
        page_is_clean(page)


def test_a_reload_begins_a_new_kernel_at_the_same_run(voila: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(voila.at("/"))
    ready(page)
    turn_the_slider(page)
    first = page_kernel(page)
    page.reload_page()
    ready(page)
    assert text(page, ".answer") == "k=1"
    assert text(page, ".eyes").startswith("{'run': 'first'}")
    assert page_kernel(page) != first
    eventually(lambda: page.page.request.get(voila.at(f"/api/kernels/{first}")).status == 404, "the old kernel's end")
    page_is_clean(page)


def test_a_page_says_that_its_kernel_has_ended(voila: Server, open_page: Callable[..., Watched]) -> None:
    page = open_page(voila.at("/"))
    ready(page)
    page.page.request.post(voila.at(f"/voila/api/shutdown/{page_kernel(page)}"))
    page.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.page.get_by_role("alert").get_by_role("button", name="Reload").click()
    ready(page)
    assert page.page.get_by_role("alert").count() == 0


def test_the_server_ends_its_kernels(
    serve_voila: Callable[..., Server], tmp_path: Path, open_page: Callable[..., Watched]
) -> None:
    write_notebook(tmp_path / "only.ipynb", CELL)
    server = serve_voila(tmp_path)
    page = open_page(server.at("/"))
    ready(page)
    wait_for_kernels(server, 1)
    kernels = kernel_pids(server)
    assert not any("torch" in Path(f"/proc/{pid}/maps").read_text() for pid in [*kernels, server.process.pid])
    os.kill(server.process.pid, signal.SIGINT)
    assert server.process.wait(timeout=90) == 0, server.log.read_text()
    assert not [pid for pid in kernels if Path(f"/proc/{pid}").exists()]
    # Also of a kernel that was only just made ready.
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def test_jupyterlab_shows_the_same(serve_jupyterlab: Callable[..., Server], open_page: Callable[..., Watched]) -> None:
    jupyterlab = serve_jupyterlab(dark=True)
    write_notebook(jupyterlab.root / "rig.ipynb", CELL)
    page = run_in_jupyterlab(open_page, jupyterlab, "rig.ipynb")
    ready(page)
    turn_the_slider(page)
    # The address is JupyterLab's: not read, not written.
    assert text(page, ".eyes").startswith("{} 1400 True True")
    assert "run=" not in page.page.url
    assert "first" not in page.page.title()

    page.page.locator(".key").click()
    page.page.keyboard.press(".")
    eventually(lambda: text(page, ".key") == "step", "the step key")
    screenshot(page, "rig-jupyterlab")
    page_is_clean(page)
