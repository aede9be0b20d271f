"""What is kept of a session at the bench: scrub, fork, compare, take with you, do again; watch, steer, open a file."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from lab.catalogue import recordings
from ssl_lab.store import open_run
from tests.browser.bench_page import BENCH, curves, engine_value, press, ready, state, step
from tests.browser.conftest import (
    Server,
    Watched,
    end,
    eventually,
    free_port,
    page_is_clean,
    screenshot,
    server,
)

Open = Callable[..., Watched]


def name(page: Watched) -> str:
    return str(page.page.locator(".ssl-headline b").first.inner_text())


def query(page: Watched) -> dict[str, list[str]]:
    # Asked of the page: Playwright's own word for it lags behind.
    return parse_qs(page.page.evaluate("location.search.slice(1)"), keep_blank_values=True)


def alerts(page: Watched) -> str:
    return " ".join(page.page.locator(".ssl-banner [role=alert]").all_inner_texts())


def hints(page: Watched) -> str:
    return " ".join(page.page.locator(".ssl-banner .ssl-hint").all_inner_texts())


def choose(page: Watched, knob: str, label: str, value: str) -> None:
    page.page.locator(f".ssl-knob-{knob} select").select_option(label=label)
    eventually(lambda: engine_value(page, knob) == value, f"the engine's {knob}")


def drag_to(page: Watched, share: float) -> int:
    """The thumb, by the mouse, to a share of the bar; gives the step, once it is shown."""
    box = page.page.locator(".ssl-timeline input[type=range]").bounding_box()
    now = page.page.locator(".ssl-timeline .ssl-fill").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.page.mouse.move(min(now["x"] + now["width"], box["x"] + box["width"] - 12), middle)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + share * box["width"], middle, steps=8)
    page.page.mouse.up()
    bar = page.page.locator(".ssl-timeline input[type=range]")

    def near() -> bool:
        top = int(bar.get_attribute("max"))
        return abs(int(bar.input_value()) - share * top) < 0.06 * top

    eventually(near, "the thumb")
    there = int(bar.input_value())
    eventually(lambda: step(page) == there, "the pictures of the step under the thumb")
    return there


def saved(page: Watched, button: str) -> tuple[str, bytes]:
    with page.page.expect_download(timeout=30_000) as waiting:
        press(page, button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def export(page: Watched, label: str) -> tuple[str, bytes]:
    page.page.locator(".ssl-export select").first.select_option(label=label)
    return saved(page, "Download")


def test_turn_scrub_fork_compare_and_do_it_again(app: Server, open_page: Open, tmp_path: Path) -> None:
    page = open_page(app.at(BENCH))
    ready(page)
    parent = name(page)
    # Run, and turn two knobs.
    press(page, "Run")
    eventually(lambda: step(page) > 60, "sixty steps")
    choose(page, "predictor", "one layer", "linear")
    turned = step(page)
    eventually(lambda: step(page) > turned + 60, "sixty steps more")
    choose(page, "symmetry", "hard", "hard")
    stood = step(page)
    eventually(lambda: step(page) > stood + 60, "and sixty more")
    press(page, "Pause")
    eventually(lambda: state(page) == "paused", "a pause")
    last = step(page)
    eventually(lambda: page.page.locator(".ssl-mark").count() == 2, "two marks on the bar")
    rows = page.page.locator(".ssl-event-list li")
    assert "predictor directpred → linear" in rows.nth(1).inner_text()
    page.page.locator(".ssl-mark").first.hover()
    assert "predictor directpred → linear" in page.page.locator(".ssl-bubble").inner_text()

    # Scrub back: every picture is drawn as it was.
    live = curves(page, "Eigenvalues of Wp")
    shown = drag_to(page, 0.5)
    assert shown < last
    eventually(lambda: query(page).get("step") == [str(shown)], "the step in the address")
    assert f"You look at step {shown}" in hints(page)
    eventually(lambda: curves(page, "Eigenvalues of Wp") != live, "the eigenvalues of then")
    press(page, "Live")
    eventually(lambda: step(page) == last and curves(page, "Eigenvalues of Wp") == live, "the eigenvalues of now")
    shown = drag_to(page, 0.5)
    screenshot(page, "record-scrubbed")

    # Fork, and turn a third.
    press(page, "Fork here")
    eventually(lambda: name(page) == f"{parent}-fork-1" and state(page) == "paused", "the fork", 60)
    fork = name(page)
    eventually(lambda: step(page) == shown, "the step that was shown")
    assert query(page)["run"] == [fork]
    choose(page, "predictor", "none", "none")
    press(page, "Run")
    eventually(lambda: step(page) > shown + 50, "steps of the fork")
    press(page, "Pause")
    eventually(lambda: state(page) == "paused", "a pause")

    # Compare: both in every picture, a legend, the differences in words, the tree on the shelf.
    final = step(page)
    words = page.page.locator(".ssl-difference")
    eventually(lambda: f"At step {final} against {parent}" in words.first.inner_text(), "words on both runs")
    said = words.first.inner_text()
    assert re.search(r"effective rank \d+\.\d instead of \d+\.\d \([+-]", said)
    assert re.search(r"\d+ of 32 directions aligned instead of \d+", said)
    assert re.search(r"kNN \d+\.\d % instead of", said)
    assert page.page.locator(".ssl-key").all_inner_texts() == [fork, parent]
    for panel in ("Eigenvalues of F", "Eigenvalues of Wp", "Alignment", "Effective rank of F", "Loss"):
        both = "all => new Set(all.map(p => getComputedStyle(p).stroke)).size"
        box = page.page.locator(".ssl-panel", has=page.page.get_by_role("heading", name=panel, exact=True))
        assert box.locator("svg path.line").evaluate_all(both) >= 2, panel
    row = page.page.locator(".ssl-shelf tr", has_text=fork)
    eventually(lambda: f"from {parent} at step {shown}" in row.inner_text(), "the fork's place in the tree")
    screenshot(page, "record-compared")

    # Take it along, and do it again from nothing in a process that knows only the script.
    file, script = export(page, "Python script that does it again")
    assert file == f"{fork}.py"
    (tmp_path / file).write_bytes(script)
    again = subprocess.run(
        [sys.executable, str(tmp_path / file)], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=240
    ).stdout
    with open_run(fork, app.root, readonly=True) as store:
        loss, spectrum = float(store.losses()[-1]), store.newest_spectrum()
        assert [(e.step, dict(e.changes)) for e in store.events()][-1] == (shown, {"predictor": "none"})
        assert len(store.events()) == 2 + (stood <= shown)
    assert f"step {final}\n" in again
    assert f"loss {loss!r} (on record {loss!r})" in again
    assert spectrum is not None
    rank = re.search(r"effective rank (\S+) \(on record (\S+)\)", again)
    assert rank is not None
    assert rank[1] == rank[2]
    page_is_clean(page)


def test_the_record_as_files(app: Server, open_page: Open, tmp_path: Path) -> None:
    page = open_page(app.at(BENCH))
    ready(page)
    press(page, "10 steps")
    eventually(lambda: step(page) == 10 and state(page) == "paused", "ten steps")
    file, csv = export(page, "Numbers of every step (CSV)")
    lines = csv.decode().splitlines()
    assert lines[0].startswith("step,epoch,loss,")
    assert len(lines) == 11
    # Any picture.
    page.page.locator(".ssl-export select").nth(1).select_option(label="Effective rank of F")
    file, picture = saved(page, "PNG")
    assert file == f"{name(page)}-effective-rank-of-f.png"
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5_000
    file, drawing = saved(page, "SVG")
    assert file.endswith(".svg")
    assert b"<svg" in drawing
    assert b"<path" in drawing
    assert b"directions" in drawing
    # The whole record, and opened again on the page.
    file, whole = export(page, "The whole record (SQLite), to be opened on any bench")
    path = tmp_path / file
    path.write_bytes(whole)
    page.page.locator(".ssl-files input[type=file]").set_input_files(path)
    eventually(lambda: name(page) == f"file: {file}", "the opened file")
    assert step(page) == 10
    assert "This is a recording" in hints(page)
    assert page.page.get_by_role("button", name="Run", exact=True).is_disabled()
    # The one that comes with the lab: collapse, and back.
    page.page.locator(".ssl-shelf tr", has_text="recording: collapse-and-return").get_by_role("button").click()
    eventually(lambda: step(page) == 900, "the recording")
    page.page.locator(".ssl-event-list li", has_text="predictor none → directpred").get_by_role(
        "button", name="Show"
    ).click()
    eventually(lambda: step(page) == 600 and "close to collapse" in page.page.locator(".ssl-words").inner_text(), "it")
    screenshot(page, "record-recording")
    page_is_clean(page)


def test_a_run_of_the_command_line_is_steered_from_the_page(app: Server, open_page: Open) -> None:
    words = ["train", "--preset", "directpred", "--steps", "100000", "--name", "box", "--results", str(app.root)]
    training = subprocess.Popen(
        [sys.executable, "-m", "ssl_lab.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: (app.root / "box" / "run.sqlite").exists(), "a run", 60)
        page = open_page(app.at("/?run=box"))
        eventually(lambda: state(page) == "running" and step(page) > 10, "its steps", 60)
        choose(page, "predictor", "one layer", "linear")
        press(page, "Pause")
        eventually(lambda: state(page) == "paused", "a pause")
        with open_run("box", app.root, readonly=True) as store:
            assert store.status().owner == "train"
            assert [(e.origin, dict(e.changes)) for e in store.events()] == [("page", {"predictor": "linear"})]
        press(page, "Run")
        eventually(lambda: state(page) == "running", "the run going on")
        training.send_signal(signal.SIGINT)
        assert training.wait(timeout=60) == 130
        page_is_clean(page)
    finally:
        end(training)


@pytest.fixture
def watch(tmp_path: Path) -> Any:
    """``ssl-lab watch ...`` as a person starts it, in an empty folder."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*words: str) -> Server:
            port = free_port()
            root = tmp_path / "home"
            root.mkdir()
            command = [sys.executable, "-m", "ssl_lab.cli", "watch", *words, "--no-browser", "--port", str(port)]
            return stack.enter_context(server(command, port, root, {}, ready="/voila/static/voila.js"))

        yield start


def test_watch_a_file_from_anywhere(watch: Callable[..., Server], open_page: Open, tmp_path: Path) -> None:
    lesson = tmp_path / "lesson.sqlite"
    shutil.copyfile(recordings()[0], lesson)
    before = lesson.read_bytes()
    running = watch(str(lesson), "--step", "450")
    address = re.search(r"http://\S+", running.log.read_text())
    assert address is not None
    page = open_page(address[0])
    page.page.wait_for_selector(".ssl-bench .bqplot", timeout=60_000)
    eventually(lambda: name(page) == "file: lesson.sqlite" and step(page) == 450, "the moment asked for", 60)
    assert page.page.get_by_role("button", name="Run", exact=True).is_disabled()
    assert page.page.locator(".ssl-knob-predictor select").is_disabled()
    press(page, "Fork here")
    eventually(lambda: name(page) == "collapse-and-return-fork-1" and state(page) == "paused", "a run of one's own", 90)
    press(page, "10 steps")
    eventually(lambda: step(page) == 460, "its own steps")
    assert (running.root / "results" / "collapse-and-return-fork-1" / "run.sqlite").is_file()
    assert lesson.read_bytes() == before
    page_is_clean(page)


def test_links_set_up_a_bench(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/?preset=simsiam&knobs=predictor=linear,lr=0.05&seed=3"))
    ready(page)
    assert name(page).startswith("simsiam-")
    assert (engine_value(page, "predictor"), engine_value(page, "lr")) == ("linear", "0.05")
    with open_run(name(page), app.root, readonly=True) as store:
        assert store.config().seed == 3
    page_is_clean(page)
    for link, said in (("preset=moco", "'moco'"), ("preset=byol&knobs=ema=7", "'ema'"), ("knobs=tau", "KNOB=VALUE")):
        page = open_page(app.at(f"/?{link}"))
        ready(page)
        eventually(lambda page=page, said=said: said in alerts(page), "what is wrong with the link")
        assert "Here is the usual bench" in alerts(page)
        assert name(page).startswith("directpred-")
        page_is_clean(page)
