"""The timeline, the shelf and the files in a real page: by mouse, by keyboard, wide and narrow, light and dark."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import (
    Server,
    Watched,
    eventually,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    write_notebook,
)

CELL = """
import hashlib, json, tempfile, threading, time
from pathlib import Path
import ipywidgets as w
from lab.files import Files
from lab.shelf import Shelf
from lab.style import CSS
from lab.timeline import Timeline

texts = ["predictor directpred → none", "EMA rate 0.996 → 0.9", "predictor none → directpred",
         "stop-gradient on → off, learning rate 0.05 → 0.02", "augmentation 1 → 0.5", "weight decay 0.0004 → 0",
         "stop-gradient off → on"]
steps = [120, 300, 460, 470, 478, 700, 930]
timeline = Timeline(
    last=1000, can_fork=True, fork_why="A second run from this moment", more=12, checkpoints=list(range(0, 1001, 100)),
    marks=[{"step": s, "numbers": "5–7" if s == 478 else str(i + 1), "text": f"step {s:,}: {x}"}
           for i, (s, x) in enumerate(zip(steps, texts))],
    events=[{"number": i + 1, "step": s, "text": x} for i, (s, x) in reversed(list(enumerate(zip(steps, texts))))],
)
runs = [
    ("directpred-12", 0, "running", 1000, "98.2 %", "", True, "#2a8fd4"),
    ("directpred-12-fork", 1, "paused", 640, "97.9 %", "from directpred-12 at step 300", False, ""),
    ("directpred-12-fork-2", 2, "asleep", 700, "12.1 %", "from directpred-12-fork at step 410", False, ""),
    ("what-happens-without-a-predictor-and-without-the-stop-gradient", 0, "failed", 12345, "", "", False, ""),
    ("recording:collapse", 0, "", 3000, "10.4 %", "recording", False, ""),
    ("byol-3", 0, "done", 60000, "99.1 %", "", False, ""),
]
shelf = Shelf(more=3, runs=[
    dict(zip(("name", "depth", "state", "step", "knn", "origin", "shown", "colour"), run), preset="directpred",
         data="digits", deletable=run[0] in ("byol-3", "directpred-12-fork-2")) for run in runs])
files = Files()
files.rate = 3_000_000
said = w.Label("nothing")
state = w.Label()
said.add_class("said"), state.add_class("state")

def hear(_widget, content, _buffers):
    said.value = json.dumps(content)

timeline.on_msg(hear)
shelf.on_msg(hear)
steps_told = []
timeline.observe(lambda change: steps_told.append(change["new"]), "step")

def show(_change=None):
    state.value = json.dumps({"step": timeline.step, "told": len(steps_told), "ticked": shelf.ticked})

timeline.observe(show, "step")
shelf.observe(show, "ticked")

def dropped(path, name):
    said.value = f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"

files.dropped = dropped
data = bytes(i * i % 253 for i in range(1_500_000))

def offer(_button):
    path = Path(tempfile.mkdtemp()) / "spectra.bin"
    path.write_bytes(data)
    files.offer("spectra.bin", "application/octet-stream", path)

def grow(_button):
    timeline.last += 1000
    timeline.events = [{"number": 8, "step": 1000, "text": "predictor off"}, *timeline.events]
    timeline.marks = [*timeline.marks, {"step": 1000, "numbers": "8", "text": "predictor off"}]
    timeline.note = "spectra of step 298"
    shelf.runs = [{**shelf.runs[-1], "name": "new", "shown": False}, *shelf.runs]
    show()

def link(_button):
    timeline.step = 345

def button(words, act):
    made = w.Button(description=words)
    made.on_click(act)
    return made

def pump():
    while True:
        files.pump()
        time.sleep(0.05)

threading.Thread(target=pump, daemon=True).start()
show()
buttons = w.HBox([button("offer", offer), button("grow", grow), button("link", link), said, state])
buttons.layout.flex_flow = "row wrap"
box = w.VBox([w.HTML(f"<style>{CSS}</style>"), timeline, shelf, files, buttons])
box.add_class("ssl-bench")
box
"""


@pytest.fixture(scope="module")
def voila(serve_voila: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    notebooks = tmp_path_factory.mktemp("notebooks")
    write_notebook(notebooks / "01-bench.ipynb", CELL)
    return serve_voila(notebooks)


@pytest.fixture
def open_widgets(voila: Server, open_page: Callable[..., Watched]) -> Callable[..., Watched]:
    def open_them(**how: Any) -> Watched:
        page = open_page(voila.at("/"), **how)
        ready(page)
        page.page.wait_for_selector("#loading", state="detached")
        return page

    return open_them


def ready(page: Watched) -> None:
    page.page.wait_for_selector(".ssl-timeline .ssl-mark", timeout=60_000)
    page.page.wait_for_selector(".ssl-shelf tbody tr")
    page.page.wait_for_selector(".ssl-open-file")


def state(page: Watched) -> Any:
    return json.loads(page.page.locator(".state").inner_text() or "{}")


def said(page: Watched) -> str:
    return str(page.page.locator(".said").inner_text())


def press(page: Watched, name: str) -> None:
    page.page.get_by_role("button", name=name, exact=True).click()


def is_at(page: Watched, step: int) -> None:
    eventually(lambda: state(page)["step"] == step, f"step {step} in Python")


def is_about(page: Watched, step: int) -> None:
    """A pixel of the bar is about a step."""
    eventually(lambda: abs(state(page)["step"] - step) <= 2, f"about step {step} in Python")


def bar(page: Watched) -> Any:
    return page.page.get_by_role("slider", name="Step shown")


def where(page: Watched) -> str:
    return str(page.page.locator(".ssl-where span").inner_text())


# ---------------------------------------------------------------- the timeline


def test_the_bar_by_keyboard(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    keys = page.page.keyboard
    assert where(page) == "live · step 1,000"
    assert bar(page).get_attribute("aria-valuetext") == "step 1,000 of 1,000, live"
    live = page.page.get_by_role("button", name="Live", exact=True)
    assert live.get_attribute("aria-pressed") == "true"
    heard = page.page.evaluate("document.addEventListener('keydown', (e) => (window.keys = (window.keys ?? 0) + 1))")
    bar(page).focus()
    for key, step in (
        ("ArrowLeft", 999), ("PageDown", 949), ("PageUp", 999), ("ArrowRight", -1), ("Home", 0), ("ArrowRight", 1),
        ("Shift+ArrowRight", 101), ("End", -1), ("ArrowDown", 999), ("Escape", -1), ("PageDown", 950),
    ):  # fmt: skip
        keys.press(key)
        is_at(page, step)
    # Shift alone is a key too.
    assert page.page.evaluate("window.keys") == 1, heard
    assert where(page) == "step 950 of 1,000"
    assert bar(page).get_attribute("aria-valuetext") == "step 950 of 1,000"
    assert live.get_attribute("aria-pressed") == "false"
    live.click()
    is_at(page, -1)
    press(page, "link")
    eventually(lambda: where(page) == "step 345 of 1,000", "the step that Python set")
    assert bar(page).input_value() == "345"
    page_is_clean(page)


def test_the_bar_by_mouse_and_python_writes_the_while(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    mouse = page.page.mouse
    box = bar(page).bounding_box()
    middle = box["y"] + box["height"] / 2

    def at(share: float) -> float:
        return float(box["x"] + 12 + share * (box["width"] - 24))

    mouse.move(at(1.0), middle)
    mouse.down()
    for i in range(60):
        mouse.move(at(1.0 - i / 100), middle)
    is_about(page, 410)
    # Told at a pace that Python can follow, and the last place whatever the pace.
    assert state(page)["told"] < 60
    # While the thumb is held, a longer run neither moves it nor the scale.
    page.page.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === 'grow').click()")
    page.page.wait_for_selector("li:has-text('predictor off')")
    assert abs(int(bar(page).input_value()) - 410) <= 2
    assert bar(page).get_attribute("max") == "1000"
    mouse.move(at(0.3), middle)
    is_about(page, 300)
    mouse.up()
    eventually(lambda: bar(page).get_attribute("max") == "2000", "the longer scale")
    assert abs(int(bar(page).input_value()) - 300) <= 2
    assert where(page) == f"step {bar(page).input_value()} of 2,000"
    is_at(page, int(bar(page).input_value()))
    assert page.page.locator(".ssl-where small").inner_text() == "spectra of step 298"
    assert page.page.locator(".ssl-mark").count() == 8
    mouse.click(at(1.0), middle)
    is_at(page, -1)
    page_is_clean(page)


def test_a_finger_drags_the_bar(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets(width=420, height=800)
    box = bar(page).bounding_box()
    touch = page.page.context.new_cdp_session(page.page)
    y = box["y"] + box["height"] / 2
    right, left = box["x"] + box["width"] - 12, box["x"] + 12

    def finger(kind: str, *at: float) -> None:
        points = [{"x": x, "y": y} for x in at]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    finger("touchStart", right)
    for i in range(1, 11):
        finger("touchMove", right + (left - right) * i / 20)
    finger("touchEnd")
    eventually(lambda: abs(state(page)["step"] - 500) < 15, "the middle of the bar")
    page_is_clean(page)


def test_marks_say_what_was_turned_and_lead_there(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    marks, bubble = page.page.locator(".ssl-mark"), page.page.locator(".ssl-bubble")
    assert marks.nth(1).get_attribute("aria-label") == "step 300: EMA rate 0.996 → 0.9"
    assert bubble.is_hidden()
    box, mark = bar(page).bounding_box(), marks.nth(1).bounding_box()
    assert mark["x"] + mark["width"] / 2 == pytest.approx(box["x"] + 12 + 0.3 * (box["width"] - 24), abs=1)
    # One of them is in the order of Tab, arrows lead to the others.
    page.page.get_by_role("button", name="Live", exact=True).focus()
    page.page.keyboard.press("Tab")
    assert "predictor directpred → none" in bubble.inner_text()
    page.page.keyboard.press("ArrowRight")
    assert "EMA rate" in bubble.inner_text()
    screenshot(page, "widgets-bubble")
    page.page.keyboard.press("Enter")
    is_at(page, 300)
    page.page.keyboard.press("Escape")
    assert bubble.is_hidden()
    marks.nth(6).hover()
    assert "stop-gradient off → on" in bubble.inner_text()
    edge = bubble.bounding_box()
    assert edge["x"] + edge["width"] <= 1400
    marks.nth(6).click()
    is_at(page, 930)
    page.page.mouse.move(5, 5)
    page.page.keyboard.press("Tab")
    assert bar(page).evaluate("(node) => node === document.activeElement")
    assert bubble.is_hidden()
    page_is_clean(page)


def test_fork_show_and_undo(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    rows = page.page.locator(".ssl-event-list li")
    assert rows.count() == 7
    assert rows.first.locator("span").inner_text() == "7 step 930: stop-gradient off → on"
    assert page.page.get_by_text("and 12 before").is_visible()
    rows.nth(5).get_by_role("button", name="Show", exact=True).click()
    is_at(page, 300)
    fork = page.page.get_by_role("button", name="Fork here", exact=True)
    assert fork.get_attribute("title") == "A second run from this moment"
    fork.click()
    eventually(lambda: said(page) == '{"do": "fork", "step": 300}', "the fork")
    undo = rows.nth(6).get_by_role("button", name="Undo", exact=True)
    undo.click()
    eventually(lambda: said(page) == '{"do": "undo", "event": 1}', "the undo")
    # What comes in leaves the focus where it is.
    page.page.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === 'grow').click()")
    page.page.wait_for_selector("li:has-text('predictor off')")
    assert rows.count() == 8
    assert rows.nth(7).get_by_role("button", name="Undo").evaluate("(node) => node === document.activeElement")
    page_is_clean(page)


# ---------------------------------------------------------------- the shelf


def test_runs_are_ticked_and_opened(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    assert page.page.locator(".ssl-shelf tbody tr").count() == 6
    boxes = page.page.locator(".ssl-shelf").get_by_role("checkbox")
    assert boxes.count() == 5

    def box(name: str) -> Any:
        return page.page.get_by_role("checkbox", name=f"draw {name} too", exact=True)

    for name in ("byol-3", "directpred-12-fork", "recording:collapse"):
        box(name).focus()
        page.page.keyboard.press("Space")
    ticked = ["byol-3", "directpred-12-fork", "recording:collapse"]
    eventually(lambda: state(page)["ticked"] == ticked, "three ticks in Python, in order")
    other = box("directpred-12-fork-2")
    assert other.is_disabled()
    assert "At most 4 runs" in other.locator("xpath=..").get_attribute("title")
    # What comes in leaves ticks and focus where they are.
    page.page.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === 'grow').click()")
    page.page.wait_for_selector(".ssl-shelf tr:has-text('new')")
    assert box("recording:collapse").evaluate("(node) => node === document.activeElement")
    assert box("new").is_disabled()
    box("byol-3").click()
    eventually(lambda: state(page)["ticked"] == ticked[1:], "one less")
    assert other.is_enabled()
    row = page.page.locator(".ssl-shelf tr", has_text="what-happens")
    row.get_by_role("button", name="Open", exact=True).click()
    eventually(lambda: "what-happens-without" in said(page), "the run to open")
    shown = page.page.locator(".ssl-shelf tr[aria-current]")
    assert shown.count() == 1
    assert shown.get_by_role("button").count() == shown.get_by_role("checkbox").count() == 0
    assert page.page.get_by_text("Tick up to three runs to draw them with this one.").is_visible()
    page_is_clean(page)


def test_a_run_is_deleted_by_two_presses(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    shelf = page.page.locator(".ssl-shelf")
    assert shelf.get_by_role("button", name="Delete", exact=True).count() == 2
    row = page.page.locator(".ssl-shelf tr", has_text="byol-3")
    delete, sure = (row.get_by_role("button", name=name, exact=True) for name in ("Delete", "Really delete?"))
    delete.click()
    assert sure.is_visible()
    assert shelf.get_by_role("status").inner_text() == "byol-3: press again to delete it for good."
    # Whoever looks elsewhere, thinks better of it or falls asleep has deleted nothing.
    row.get_by_role("button", name="Open", exact=True).focus()
    assert delete.is_visible()
    delete.focus()
    page.page.keyboard.press("Enter")
    assert sure.is_visible()
    page.page.keyboard.press("Escape")
    assert delete.is_visible()
    page.page.keyboard.press("Space")
    assert sure.is_visible()
    delete.wait_for(state="visible", timeout=8_000)
    assert "delete" not in said(page)
    # What comes in meanwhile takes nothing back.
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("Enter")
    eventually(lambda: said(page) == '{"delete": "byol-3"}', "the run to delete")
    page_is_clean(page)


# ---------------------------------------------------------------- files


def test_a_file_is_saved_by_the_browser(open_widgets: Callable[..., Watched]) -> None:
    page = open_widgets()
    for _ in range(2):
        with page.page.expect_download(timeout=30_000) as waiting:
            press(page, "offer")
        assert waiting.value.suggested_filename == "spectra.bin"
        saved = Path(waiting.value.path()).read_bytes()
        assert saved == bytes(i * i % 253 for i in range(1_500_000))
        eventually(lambda: page.page.locator(".ssl-progress").inner_text() == "", "the end of the progress")
    page_is_clean(page)


def test_a_file_is_opened_or_dropped(open_widgets: Callable[..., Watched], tmp_path: Path) -> None:
    import hashlib

    page = open_widgets()
    path = tmp_path / "first.sqlite"
    path.write_bytes(bytes(i * 7 % 251 for i in range(1_200_000)))
    page.page.locator(".ssl-files input[type=file]").set_input_files(path)
    want = hashlib.sha256(path.read_bytes()).hexdigest()
    eventually(lambda: said(page) == f"first.sqlite {want}", "the opened file")

    drop = """([size, kind]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(size).map((_, i) => (i * 11) % 241)], "second.sqlite"));
      document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.page.evaluate(drop, [1_200_000, "dragover"])
    assert page.page.locator(".ssl-drop-here").inner_text() == "Drop a run's file to look at it"
    screenshot(page, "widgets-drop")
    page.page.evaluate(drop, [1_200_000, "drop"])
    want = hashlib.sha256(bytes(i * 11 % 241 for i in range(1_200_000))).hexdigest()
    eventually(lambda: said(page) == f"second.sqlite {want}", "the dropped file")
    assert page.page.locator(".ssl-drop-here").count() == 0

    page.page.evaluate(drop, [0, "drop"])
    eventually(lambda: page.page.get_by_role("alert").inner_text() != "", "what is wrong with an empty file")
    # Held over the page and taken away again, without a word of leaving.
    page.page.evaluate(drop, [10, "dragover"])
    page.page.wait_for_selector(".ssl-drop-here")
    page.page.wait_for_selector(".ssl-drop-here", state="detached")
    page_is_clean(page)


# ---------------------------------------------------------------- looks


@pytest.mark.parametrize("widths", [(1400, 680), (420,)], ids=["wide", "phone"])
def test_nothing_is_wider_than_the_page(open_widgets: Callable[..., Watched], widths: tuple[int, ...]) -> None:
    page = open_widgets(width=widths[0], height=900)
    page.page.locator(".ssl-event-list li").nth(5).get_by_role("button", name="Show").click()
    page.page.get_by_role("checkbox", name="draw byol-3 too").check()
    is_at(page, 300)
    for width in widths:
        page.page.set_viewport_size({"width": width, "height": 900})
        for dark in (False, True):
            page.page.emulate_media(color_scheme="dark" if dark else "light")
            eventually(lambda dark=dark: page.page.locator("body.theme-dark").count() == dark, "the other theme")
            nothing_is_wider(page, width, dark)
    page_is_clean(page)


def nothing_is_wider(page: Watched, width: int, dark: bool) -> None:
    row = page.page.locator(".ssl-shelf tr", has_text="directpred-12-fork-2")
    delete = row.get_by_role("button", name="Delete", exact=True)
    # It asks whether that was meant, for a while, which is as wide as it gets.
    if delete.count():
        delete.click()
    time.sleep(0.2)
    screenshot(page, f"widgets-{width}-{'dark' if dark else 'light'}")
    wide = page.page.evaluate(
        """() => [...document.querySelectorAll(".ssl-timeline, .ssl-shelf, .ssl-files, .ssl-wide *")]
          .filter((node) => node.getBoundingClientRect().right > window.innerWidth
                            || node.getBoundingClientRect().left < 0)
          .filter((node) => !node.closest(".ssl-unseen, .ssl-bubble, thead")).map((node) => node.outerHTML)"""
    )
    assert wide == []
    assert page.page.evaluate("document.scrollingElement.scrollWidth") <= width
    for target in page.page.locator(".ssl-do:visible, .ssl-tick:visible").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 24


def test_jupyterlab_leaves_the_keys_to_the_widgets(
    serve_jupyterlab: Callable[..., Server], open_page: Callable[..., Watched]
) -> None:
    jupyterlab = serve_jupyterlab()
    write_notebook(jupyterlab.root / "widgets.ipynb", CELL, "'another cell'")
    page = run_in_jupyterlab(open_page, jupyterlab, "widgets.ipynb")
    ready(page)
    bar(page).focus()
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("ArrowLeft")
    is_at(page, 998)
    page.page.locator(".ssl-mark").first.focus()
    page.page.keyboard.press("Enter")
    is_at(page, 120)
    screenshot(page, "widgets-jupyterlab")
    with page.page.expect_download(timeout=30_000) as waiting:
        press(page, "offer")
    assert Path(waiting.value.path()).stat().st_size == 1_500_000
    page_is_clean(page)
