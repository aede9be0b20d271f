"""The page of sweeps in a real browser: a sweep started from it, a trial that fails, the table, the bench."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.sweeping.example import NAME
from ssl_lab.sweep.plan import read_sweep
from ssl_lab.sweep.progress import TrialRecord, look, write_plan, write_record
from tests.browser.conftest import (
    Server,
    Watched,
    axe,
    eventually,
    page_is_clean,
    run_in_jupyterlab,
    screenshot,
    sideways,
    write_notebook,
)

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., Watched]

TINY = """
seeds = [0, 1]
[base]
dataset = "digits"
steps = 1500
probe_epochs = 3
[grid]
ema = [0.5]
[[trials]]
name = "diverges"
lr = 100.0
weight_decay = 1.0
"""


@pytest.fixture(scope="module")
def served(serve_voila: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The notebook as it comes, the bench, and the page with an example that is done in seconds."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in ("01-bench.ipynb", "07-sweep.ipynb"):
        (folder / name).write_bytes((ROOT / "notebooks" / name).read_bytes())
    (folder / "tiny.toml").write_text(TINY)
    write_notebook(folder / "08-tiny.ipynb", f"from lab import Sweeps\nSweeps(example={str(folder / 'tiny.toml')!r})")
    return serve_voila(folder)


def finished(folder: Path, file: Path) -> None:
    """A sweep's folder as one finds it afterwards, without the minutes that it would take."""
    file.write_text(TINY)
    sweep = read_sweep(file)
    trials = sweep.trials()
    write_plan(folder, sweep, trials)
    for trial in trials:
        failed = trial.label == "diverges"
        said: dict[str, Any] = {"state": "done", "step": 1500}
        if failed:
            said = {"state": "failed", "error": "Traceback\nValueError: It broke."}
        accuracy = None if failed else 0.9 + 0.01 * trial.seed
        spectrum = tuple(0.5**k for k in range(16))
        write_record(folder, trial.name, TrialRecord(of=1500, attempts=1, accuracy=accuracy, spectrum=spectrum, **said))


def opened(page: Watched) -> Watched:
    page.page.wait_for_selector("#loading", state="detached", timeout=60_000)
    page.page.wait_for_selector(".ssl-sweeps", timeout=60_000)
    return page


def sentence(page: Watched) -> str:
    there = page.page.locator(".ssl-sentence")
    return str(there.first.inner_text()) if there.count() else ""


def names(page: Watched) -> list[str]:
    """Of the trials that are shown, in their order."""
    return [str(text) for text in page.page.locator(".ssl-trial:not([hidden]) .ssl-who").all_inner_texts()]


def share(page: Watched) -> float:
    """How far all trials have come together: one may be done between two looks."""
    bars = page.page.locator(".ssl-trial progress")
    return sum(float(value) for value in bars.evaluate_all("all => all.map(bar => bar.value)"))


def press(page: Watched, control: Any, key: str = "Enter") -> None:
    """By keyboard: the control has the focus, and can be seen to have it."""
    control.focus()
    page.page.keyboard.press(key)


@pytest.mark.timeout(420)
def test_a_sweep_is_started_here_fails_in_part_and_is_looked_at(served: Server, open_page: Open) -> None:
    # Of a first try.
    shutil.rmtree(served.root / "results" / NAME, ignore_errors=True)
    page = opened(open_page(served.at("/voila/render/08-tiny.ipynb")))
    view = page.page
    view.get_by_text("No sweep yet").wait_for()
    assert "[grid]" in view.locator("pre").inner_text()
    assert view.get_by_role("textbox", name="The command").input_value() == "ssl-lab sweep study.toml"
    axe(page)
    screenshot(page, "sweep-none")
    press(page, view.get_by_role("button", name="Run the example here"))
    # Rows are seen to move.
    eventually(lambda: len(names(page)) == 4, "the trials", 120)
    eventually(lambda: view.locator(".ssl-badge[data-state=running]").count() > 0, "a trial that runs", 120)
    early = eventually(lambda: share(page), "steps", 120)
    eventually(lambda: share(page) > early, "more steps", 60)
    eventually(lambda: "2 of 4 trials done, 2 failed; best: ema-0.5, " in sentence(page), "the end", 240)
    assert "sweep=sweep-example" in view.url
    folder = served.root / "results" / NAME
    eventually(lambda: not look(folder).working, "the process to end", 60)
    seen = {trial.name: trial for trial in look(folder).trials}

    # By keyboard: sorted, filtered, an error in full.
    press(page, view.get_by_role("button", name="Accuracy"))
    best = max(("ema-0.5-seed0", "ema-0.5-seed1"), key=lambda name: seen[name].accuracy or 0.0)
    eventually(lambda: names(page)[0] == best and "diverges" in names(page)[-1], "the best first")
    assert view.locator("th[aria-sort=descending]").inner_text() == "Accuracy"
    press(page, view.get_by_role("button", name="Accuracy"))
    eventually(lambda: names(page)[1] == best and "diverges" in names(page)[-1], "the best of the known last")
    view.get_by_role("searchbox", name="Filter").focus()
    view.keyboard.type("diverges")
    eventually(lambda: names(page) == ["diverges-seed0", "diverges-seed1"], "two of them")
    more = view.get_by_role("button", name="Whole error").first
    press(page, more)
    whole = view.get_by_label("error of diverges-seed0")
    eventually(lambda: "step was not applied" in whole.inner_text(), "the error")
    assert whole.inner_text().strip() == seen["diverges-seed0"].error.strip()
    axe(page)
    screenshot(page, "sweep-error")
    view.get_by_role("searchbox", name="Filter").fill("")
    with view.expect_download() as saving:
        press(page, view.get_by_role("button", name="Save as CSV"))
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(Path(saving.value.path()).read_text()))}
    assert saving.value.suggested_filename == f"{NAME}.csv"
    assert {name: row["state"] for name, row in rows.items()} == {name: t.state for name, t in seen.items()}
    assert float(rows[best]["accuracy"]) == seen[best].accuracy
    # The same numbers as picture, in words, and in the files that the process wrote.
    (mean,) = view.locator(".ssl-lines tbody tr:first-child td:nth-child(2)").all_inner_texts()
    values = [100 * (seen[f"ema-0.5-seed{seed}"].accuracy or 0.0) for seed in (0, 1)]
    assert mean == f"{sum(values) / 2:.2f}"
    assert f"ema-0.5: {sum(values) / 2:.1f}" in view.locator(".ssl-sweeps .bqplot").first.inner_text()
    eventually((folder / "results.csv").is_file, "the table", 60)
    assert (folder / "results.csv").read_text().startswith("name,label,seed,state")
    axe(page)
    assert sideways(page) == 0
    screenshot(page, "sweep-1400")

    # Both on the bench, where they can be looked at and not be steered.
    for name in ("ema-0.5-seed0", "ema-0.5-seed1"):
        press(page, view.get_by_role("checkbox", name=f"draw {name} on the bench"), "Space")
    there = view.get_by_role("link", name="Draw 2 together on the bench")
    assert there.get_attribute("target") == "_blank"
    address = str(there.evaluate("a => a.href"))
    page_is_clean(page)
    bench = open_page(address)
    bench.page.wait_for_selector(".ssl-bench .bqplot path.line", timeout=60_000)
    headline, legend = bench.page.locator(".ssl-headline"), bench.page.locator(".ssl-legend")
    eventually(lambda: f"trial: {NAME}/ema-0.5-seed0" in headline.inner_text(), "the trial", 60)
    eventually(lambda: "ema-0.5-seed1" in legend.inner_text(), "the other one")
    assert "This is a trial of a sweep" in bench.page.locator(".ssl-banner").inner_text()
    page_is_clean(bench)


@pytest.mark.parametrize(("width", "dark"), [(380, True), (420, False)])
def test_on_a_phone(served: Server, open_page: Open, width: int, dark: bool, tmp_path: Path) -> None:
    finished(served.root / "results" / f"phone-{width}", tmp_path / "study.toml")
    page = opened(open_page(served.at(f"/voila/render/07-sweep.ipynb?sweep=phone-{width}"), width=width, dark=dark))
    view = page.page
    eventually(lambda: "2 of 4 trials done, 2 failed" in sentence(page), "the sweep", 60)
    view.wait_for_selector(".ssl-sweeps .bqplot svg")
    assert sideways(page) == 0
    # Heads of columns have no room: what they do stands above the table.
    view.get_by_role("combobox", name="Sort by").select_option(label="Accuracy")
    eventually(lambda: names(page)[0] == "ema-0.5-seed1", "the best first")
    view.get_by_role("combobox", name="State").select_option(label="failed")
    eventually(lambda: len(names(page)) == 2, "the failed ones")
    press(page, view.get_by_role("button", name="Whole error").first)
    eventually(lambda: "Traceback" in view.get_by_label("error of diverges-seed0").inner_text(), "the error")
    assert sideways(page) == 0
    axe(page)
    screenshot(page, f"sweep-{width}-{'dark' if dark else 'light'}")
    page_is_clean(page)


def test_the_notebook_in_jupyterlab(jupyterlab_server: Server, open_page: Open, tmp_path: Path) -> None:
    root = jupyterlab_server.root
    (root / "07-sweep.ipynb").write_bytes((ROOT / "notebooks" / "07-sweep.ipynb").read_bytes())
    finished(root / "results" / "mine", tmp_path / "study.toml")
    page = run_in_jupyterlab(open_page, jupyterlab_server, "07-sweep.ipynb", height=1000)
    view = page.page
    view.wait_for_selector(".ssl-sweeps .bqplot svg", timeout=60_000)
    eventually(lambda: "2 of 4 trials done, 2 failed" in sentence(page), "the sweep")
    # An address leads into no notebook here: the cell that shows the trial is said instead.
    assert view.locator(".ssl-who a").count() == 0
    view.get_by_role("checkbox", name="draw ema-0.5-seed0 on the bench").check()
    eventually(lambda: 'Bench(run="trial: mine/ema-0.5-seed0")' in view.locator(".ssl-sweep").inner_text(), "the cell")
    axe(page, within=".ssl-sweeps")
    screenshot(page, "sweep-jupyterlab")
    page_is_clean(page)
