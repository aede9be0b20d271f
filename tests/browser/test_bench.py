"""The bench in a real browser, under Voila and in JupyterLab: run, see, turn, step, reload, go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ssl_lab.desk import EngineDesk
from ssl_lab.store import RunStore, open_run
from tests.browser.bench_page import BENCH, curves, engine_value, press, ready, state, step
from tests.browser.conftest import (
    Server,
    Watched,
    eventually,
    kernel_pids,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    write_notebook,
)

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., Watched]


def marks(page: Watched) -> int:
    """Event numbers drawn in the panel of the loss."""
    box = page.page.locator(".ssl-panel", has=page.page.get_by_role("heading", name="Loss", exact=True))
    orange = "all => all.filter(t => getComputedStyle(t).fill === 'rgb(213, 94, 0)').map(t => t.textContent)"
    return len(box.locator("svg text").evaluate_all(orange))


def turn_by_hand(page: Watched) -> None:
    """Predictor mode, EMA rate and symmetry, each by its own control."""
    page.page.locator(".ssl-knob-predictor select").select_option(label="one layer")
    eventually(lambda: engine_value(page, "predictor") == "linear", "the engine's mode")
    readout = page.page.locator(".ssl-knob-ema .widget-readout")
    readout.click()
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type("0.9")
    page.page.keyboard.press("Enter")
    eventually(lambda: engine_value(page, "ema") == "0.9", "the engine's EMA rate")
    page.page.locator(".ssl-knob-symmetry select").select_option(label="hard")
    eventually(lambda: engine_value(page, "symmetry") == "hard", "the engine's symmetry")


def use_the_bench(page: Watched) -> RunStore:
    """What a visitor does; gives the run's file, which must agree with what was seen."""
    ready(page)
    press(page, "Run")
    eventually(lambda: step(page) > 30, "steps")
    for panel in ("Eigenvalues of F", "Eigenvalues of Wp", "Effective rank of F", "Loss"):
        before = eventually(lambda panel=panel: curves(page, panel), f"curves of {panel}")
        eventually(lambda panel=panel, before=before: curves(page, panel) != before, f"moving curves of {panel}")
    turn_by_hand(page)
    events = page.page.locator(".ssl-event-list li")
    eventually(lambda: events.count() == 3, "three events in the list")
    assert "predictor directpred → linear" in events.last.inner_text()
    assert "symmetry off → hard" in events.first.inner_text()
    eventually(lambda: marks(page) == 3, "three marked events")
    press(page, "Pause")
    eventually(lambda: state(page) == "paused", "a pause")
    stood = step(page)
    press(page, "Step")
    eventually(lambda: step(page) == stood + 1 and state(page) == "paused", "one step")
    assert page.page.locator(".ssl-banner [role=alert]").count() == 0
    words = page.page.locator(".ssl-words").first.inner_text()
    assert "effective rank" in words.lower()
    return open_run(page.page.locator(".ssl-headline b").first.inner_text(), results_of(page))


_RESULTS: dict[int, Path] = {}


def results_of(page: Watched) -> Path:
    return _RESULTS[id(page)]


def opened(page: Watched, results: Path) -> Watched:
    _RESULTS[id(page)] = results
    return page


def test_voila(app: Server, open_page: Open) -> None:
    page = opened(open_page(app.at(BENCH), width=1400), app.root)
    with use_the_bench(page) as store:
        status = store.status()
        assert (status.knobs.predictor, status.knobs.ema, status.knobs.symmetry) == ("linear", 0.9, "hard")
        assert status.owner == "engine"
        assert [list(event.changes) for event in store.events()] == [["predictor"], ["ema"], ["symmetry"]]
        screenshot(page, "bench-voila-1400")
        stood = step(page)
        assert parse_qs(urlsplit(page.page.url).query)["run"] == [store.name]

        # A reload ends the page's kernel, not the run.
        page.reload_page()
        ready(page)
        eventually(lambda: step(page) == stood, "the same run")
        assert engine_value(page, "ema") == "0.9"
        chosen = page.page.locator(".ssl-knob-predictor select").evaluate("s => s.selectedOptions[0].text")
        assert chosen.split() == ["one", "layer"]
        assert page.page.locator(".ssl-event-list li").count() == 3
        press(page, "Run")
        eventually(lambda: step(page) > stood + 20, "the run going on")
        press(page, "Pause")
        page.page.set_viewport_size({"width": 420, "height": 900})
        eventually(lambda: state(page) == "paused", "a pause")
        # One column, and nothing wider than the phone.
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 420
        screenshot(page, "bench-voila-420")
    page_is_clean(page)


def test_what_goes_wrong_is_said_on_the_page(app: Server, open_page: Open) -> None:
    page = open_page(app.at("/?run=never-was&preset=byol"))
    ready(page)
    alert = page.page.locator(".ssl-banner [role=alert]")
    eventually(lambda: "never-was" in alert.first.inner_text(), "a word on the run that is not there")
    # Data that cannot be had here.
    page.page.locator(".ssl-setup select").nth(1).select_option(label="CIFAR-10")
    press(page, "New run")
    eventually(lambda: state(page) == "failed", "a failed run", 60)
    eventually(lambda: "could not be downloaded" in " ".join(alert.all_inner_texts()), "the reason and the way out")
    page.page.locator(".ssl-setup select").nth(1).select_option(label="Digits (8x8, embedded)")
    press(page, "New run")
    eventually(lambda: state(page) == "paused", "a run that works", 60)
    eventually(lambda: alert.count() == 0, "no complaint any more")
    # The engine dies without a word.
    press(page, "Run")
    eventually(lambda: step(page) > 20, "steps")
    desk = EngineDesk(app.root)
    os.kill(desk.status().pid or 0, signal.SIGKILL)
    desk.close()
    eventually(lambda: "has not answered" in " ".join(alert.all_inner_texts()), "a word on the engine", 90)
    press(page, "Start the engine again")
    eventually(lambda: alert.count() == 0, "an engine", 60)
    eventually(lambda: state(page) == "paused", "the run, awake", 60)
    stood = step(page)
    press(page, "10 steps")
    eventually(lambda: step(page) == stood + 10, "ten steps more")
    page_is_clean(page)


def test_dark(app: Server, open_page: Open) -> None:
    page = open_page(app.at(BENCH), dark=True)
    ready(page)
    press(page, "10 steps")
    eventually(lambda: step(page) == 10, "ten steps")
    label = page.page.locator(".ssl-panel svg .axislabel").first
    light = page.page.evaluate(
        "e => getComputedStyle(e).fill.match(/\\d+/g).slice(0, 3).every(c => c > 150)", label.element_handle()
    )
    assert light, "an axis label that cannot be read on a dark page"
    screenshot(page, "bench-voila-dark")
    page_is_clean(page)


SEEN = """(state) => {
  Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_hidden_tab_costs_nothing_and_catches_up_when_it_is_back(app: Server, open_page: Open) -> None:
    page = open_page(app.at(BENCH))
    ready(page)
    press(page, "Run")
    eventually(lambda: step(page) > 30, "steps")
    # Frames are counted while the browser is asked something.
    eventually(lambda: step(page) and len(page.pictures) > 50, "pictures")
    with open_run(page.page.locator(".ssl-headline b").first.inner_text(), app.root, readonly=True) as store:
        page.page.evaluate(SEEN, "hidden")
        # What is on its way still comes.
        page.page.wait_for_timeout(1_500)
        stood, seen, hidden = step(page), len(page.pictures), store.last_step()
        page.page.wait_for_timeout(5_000)
        assert page.pictures[seen:] == []
        assert step(page) == stood
        assert store.last_step() > hidden, "the run goes on by itself"
        before = curves(page, "Loss")
        now = store.last_step()
        page.page.evaluate(SEEN, "visible")
        eventually(lambda: step(page) >= now, "the moment that the run has come to")
        eventually(lambda: curves(page, "Loss") != before, "its curve")
        later = step(page)
        eventually(lambda: step(page) > later + 10, "a run that is followed again")
    press(page, "Pause")
    eventually(lambda: state(page) == "paused", "a pause")
    # A run that stands sends nothing either, but for what the shelf has to say of others.
    page.page.wait_for_timeout(4_000)
    seen = len(page.pictures)
    page.page.wait_for_timeout(4_000)
    assert len(page.pictures) - seen <= 2
    page_is_clean(page)


def lost(page: Watched) -> str:
    """What the page says of itself where it answers nothing any more."""
    return str(page.page.evaluate("document.querySelector('#ssl-lost[role=alert]')?.innerText ?? ''"))


def test_what_a_page_has_lost_is_said_and_can_be_had_again(app: Server, open_page: Open) -> None:
    """A kernel that is killed, and a server that cannot be reached: two pages, which take their time to be sure."""
    killed, cut_off = open_page(app.at(BENCH)), open_page(app.at(BENCH))
    ready(killed)
    press(killed, "10 steps")
    eventually(lambda: step(killed) == 10 and state(killed) == "paused", "ten steps")
    ready(cut_off)
    config = killed.page.locator("#jupyter-config-data").text_content()
    kernel = json.loads(config)["kernelId"]
    (pid,) = [pid for pid in kernel_pids(app) if kernel.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, signal.SIGKILL)
    cut_off.page.context.set_offline(True)

    words = eventually(lambda: lost(killed), "a word on the kernel", 60)
    assert "kernel" in words
    assert "What is recorded is not lost." in words
    screenshot(killed, "bench-kernel-killed")
    eventually(lambda: "The server does not answer" in lost(cut_off), "a word on the server", 60)
    cut_off.page.context.set_offline(False)

    killed.leaving = True
    killed.page.get_by_role("button", name="Reload the page", exact=True).click()
    killed.page.wait_for_selector("#ssl-lost", state="detached")
    killed.leaving = False
    ready(killed)
    eventually(lambda: step(killed) == 10, "the same run")
    assert lost(killed) == ""
    eventually(lambda: lost(cut_off) == "", "a page that is well", 60)
    press(cut_off, "Step")
    eventually(lambda: step(cut_off) == 1, "a step")


TRAINER_CELL = """
from lab import Bench
from ssl_lab import Trainer, preset
bench = Bench(Trainer(preset("directpred", dataset="digits", seed=0)))
bench
"""


def test_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    root = jupyterlab_server.root
    write_notebook(root / "trainer.ipynb", TRAINER_CELL)
    page = run_in_jupyterlab(open_page, jupyterlab_server, "trainer.ipynb", height=1000)
    with use_the_bench(opened(page, root / "results")) as store:
        status = store.status()
        assert (status.knobs.predictor, status.knobs.ema, status.knobs.symmetry) == ("linear", 0.9, "hard")
        assert status.owner == "notebook"
        stood = step(page)
        press(page, "Run")
        eventually(lambda: step(page) > stood + 20, "the run going on")
        screenshot(page, "bench-jupyterlab")
        press(page, "Pause")
        eventually(lambda: state(page) == "paused", "a pause")
    page_is_clean(page)


def test_the_notebook_in_jupyterlab(jupyterlab_server: Server, open_page: Open) -> None:
    """The app's notebook as it is: its run is in an engine process, which the page starts itself."""
    root = jupyterlab_server.root
    (root / "01-bench.ipynb").write_bytes((ROOT / "notebooks" / "01-bench.ipynb").read_bytes())
    page: Any = run_in_jupyterlab(open_page, jupyterlab_server, "01-bench.ipynb")
    try:
        ready(page)
        press(page, "10 steps")
        eventually(lambda: step(page) == 10 and state(page) == "paused", "ten steps")
        page_is_clean(page)
    finally:
        desk = EngineDesk(root / "results")
        pid = desk.status().pid
        desk.close()
        if pid:
            os.kill(pid, signal.SIGTERM)
