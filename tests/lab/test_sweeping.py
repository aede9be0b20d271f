"""The page of sweeps: what it reads, what it makes of it, its widgets, and the example that pages start."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.catalogue import Catalogue
from lab.house import House, digest
from lab.sweeping import Sweeps
from lab.sweeping.chart import MOST, LabelChart, around
from lab.sweeping.example import NAME, Example, shipped
from lab.sweeping.finder import Finder, openable
from lab.sweeping.page import WATCH_ONLY
from lab.sweeping.summary import Line, best, lines, measure, sentence, standing, table
from lab.sweeping.table import MOST as ROWS
from lab.sweeping.table import NOTE, heights, listed
from lab.work import Work
from ssl_lab.errors import SSLLabError, StoreError
from ssl_lab.seat import Seat
from ssl_lab.sweep import progress
from ssl_lab.sweep.plan import Trial, read_sweep, understand
from ssl_lab.sweep.progress import LOCK, PLAN, RECORD, STOP, RunnerRecord, TrialRecord, write_runner
from tests.lab.class_room import make_run, say, tell
from tests.lab.conftest import wait_for

CLASS = House(own_only=True, host_key=digest("teacher's"))
Open = Callable[..., Sweeps]
GRID: dict[str, list[Any]] = {"ema": [0.0, 0.5, 0.99]}


def begun(folder: Path, grid: dict[str, list[Any]] = GRID, seeds: int = 2, **base: Any) -> list[Trial]:
    """A sweep's folder with its plan, and nothing computed; gives its trials."""
    said = {"preset": "directpred", "dataset": "digits", "steps": 40, **base}
    asked = {"name": "study", "seeds": list(range(seeds)), "base": said, "grid": grid}
    sweep = understand(asked, "study.toml")
    trials = sweep.trials()
    progress.write_plan(folder, sweep, trials)
    return trials


def wrote(folder: Path, trial: Trial | str, **record: Any) -> None:
    """What the one who trains a trial says of it."""
    name = trial if isinstance(trial, str) else trial.name
    said = {"attempts": 1, "of": 40, "step": 40 if record.get("state") == "done" else 20, "node": "here"}
    progress.write_record(folder, name, TrialRecord(**{**said, **record}))


def seated(folder: Path) -> Seat:
    """Somebody works on the sweep."""
    seat = Seat(folder / LOCK)
    assert seat.take()
    write_runner(folder, RunnerRecord(state="running", left_seconds=240.0))
    return seat


# ---------------------------------------------------------------- reading


def test_the_sweeps_of_a_folder_newest_first(tmp_path: Path) -> None:
    finder = Finder(tmp_path / "none")
    assert finder.names() == []
    finder = Finder(tmp_path)
    (tmp_path / "a-run").mkdir()
    for age, name in enumerate(("new", "older", "oldest")):
        begun(tmp_path / name)
        os.utime(tmp_path / name / PLAN, (1_000_000 - age, 1_000_000 - age))
    begun(tmp_path / ".hidden")
    assert finder.names() == ["new", "older", "oldest"]
    for wrong in ("gone", "a-run", "../new", ".hidden"):
        with pytest.raises(SSLLabError):
            finder.get(wrong)
    (tmp_path / "older" / PLAN).write_text("{")
    for _ in range(2):
        with pytest.raises(StoreError, match=PLAN):
            finder.get("older")


def test_only_what_has_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    trials = begun(folder, {"lr": list(np.linspace(0.01, 0.1, 60))})
    for trial in trials:
        wrote(folder, trial, state="done", accuracy=0.9)
    finder = Finder(tmp_path)
    assert finder.get("study").done == 120
    read: list[str] = []
    usual = progress.TrialRecord.model_validate_json
    monkeypatch.setattr("lab.sweeping.finder.read_plan", lambda _: pytest.fail("the plan is as it was"))
    monkeypatch.setattr(
        "lab.sweeping.finder.read_record",
        lambda folder, name: read.append(name) or usual((folder / name / RECORD).read_bytes()),
    )
    assert finder.get("study").done == 120
    assert read == []
    wrote(folder, trials[7], state="failed", error="It broke.")
    seen = finder.get("study")
    assert read == [trials[7].name]
    assert (seen.done, seen.trials[7].error) == (119, "It broke.")


def test_a_broken_file_hides_nothing_but_itself(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    trials = begun(folder)
    wrote(folder, trials[0], state="done", accuracy=0.9)
    (folder / trials[1].name).mkdir()
    (folder / trials[1].name / RECORD).write_text("{")
    (folder / trials[2].name).mkdir()
    # One would wait for ever on a pipe that nobody writes.
    os.mkfifo(folder / trials[2].name / RECORD)
    seen = Finder(tmp_path).get("study")
    assert [trial.state for trial in seen.trials[:3]] == ["done", "failed", "failed"]
    assert RECORD in seen.trials[1].error


def test_a_run_that_another_machine_trains_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    trials = begun(folder)
    make_run(folder, trials[0].name)
    key = f"trial: study/{trials[0].name}"

    def at(node: str, state: str = "running") -> bool:
        wrote(folder, trials[0], state=state, node=node)
        seen = Finder(tmp_path).get("study")
        said = openable(seen.trials[0], seen.working)
        if said:
            Catalogue(tmp_path).open(key).close()
        else:
            with pytest.raises(SSLLabError, match="another machine"):
                Catalogue(tmp_path).open(key)
        return said

    seat = seated(folder)
    try:
        assert at(socket.gethostname())
        assert not at("gpu-box")
        assert at("gpu-box", "done")
        # A list that had it open once asks again at every look.
        wrote(folder, trials[0], state="running", node=socket.gethostname())
        kept = Catalogue(tmp_path)
        kept.open(key).close()
        assert key in [entry.key for entry in kept.entries()]
        wrote(folder, trials[0], state="running", node="gpu-box")
        assert key not in [entry.key for entry in kept.entries()]
        wrote(folder, trials[0], state="done", node="gpu-box")
        assert key in [entry.key for entry in kept.entries()]
    finally:
        seat.leave()
    # Nobody works on it any more: nobody writes.
    assert at("gpu-box")
    assert not openable(Finder(tmp_path).get("study").trials[1], working=False)


def test_reading_a_sweep_imports_no_torch() -> None:
    heavy = "{'torch', 'pyarrow', 'pandas', 'sklearn', 'ray'}"
    code = f"import sys; from lab import Sweeps; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- what it came to


def test_means_over_seeds_and_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    trials = begun(folder, seeds=3)
    by_name = {trial.name: trial for trial in trials}
    for seed, accuracy in enumerate((0.968, 0.972, 0.976)):
        wrote(folder, by_name[f"ema-0.99-seed{seed}"], state="done", accuracy=accuracy)
    wrote(folder, by_name["ema-0.0-seed0"], state="done", accuracy=0.5)
    wrote(folder, by_name["ema-0.0-seed1"], state="failed", error="It broke.")
    wrote(folder, by_name["ema-0.5-seed0"], state="running", accuracy=None)
    seat = seated(folder)
    try:
        seen = Finder(tmp_path).get("study")
    finally:
        seat.leave()
    by = measure(seen)
    assert by is not None
    assert by.name == "linear probe"
    found = lines(seen, by)
    assert [(line.label, line.of, line.failed, len(line.values)) for line in found] == [
        ("ema-0.0", 3, 1, 1), ("ema-0.5", 3, 0, 0), ("ema-0.99", 3, 0, 3),
    ]  # fmt: skip
    # By hand: 97.2, and the root of (0.4^2 + 0.4^2) / 2.
    assert found[2].mean == pytest.approx(97.2)
    assert found[2].spread == pytest.approx(0.4)
    assert found[0].spread is None
    assert best(found) is found[2]
    assert [line.words for line in found] == ["50.0 % (n = 1)", "nothing yet", "97.2 ± 0.4 % (n = 3)"]
    assert sentence(seen, found) == (
        "4 of 9 trials done, 1 running, 1 failed; best so far: ema-0.99, 97.2 ± 0.4 % (n = 3)."
    )
    assert standing(seen) == "Somebody works on it; about 4 min left."
    # Without anybody at work what ran was cut; and nothing is "so far" any more once all have come to their end.
    seen = Finder(tmp_path).get("study")
    assert "1 cut short, 1 failed" in sentence(seen, found)
    assert "same command goes on" in standing(seen)
    for trial in trials:
        if "ema-0.99" not in trial.name:
            wrote(folder, trial, state="failed", error="It broke.")
    seen = Finder(tmp_path).get("study")
    assert sentence(seen, lines(seen, by)) == "3 of 9 trials done, 6 failed; best: ema-0.99, 97.2 ± 0.4 % (n = 3)."
    assert lines(seen, by)[0].words == "failed"
    rows = table(lines(seen, by), by)
    assert rows.index("ema-0.99") < rows.index("ema-0.0<")
    assert "<td>97.20</td><td>0.40</td><td>3 of 3</td>" in rows
    assert "<td></td><td></td><td>0 of 3, 3 failed</td>" in rows


def test_what_has_no_probe_is_compared_by_knn_and_what_has_no_labels_not_at_all(tmp_path: Path) -> None:
    knn = begun(tmp_path / "knn", probe_epochs=0)
    wrote(tmp_path / "knn", knn[0], state="done", knn=0.8)
    wrote(tmp_path / "knn", knn[1], state="running", knn=0.9)
    seen = Finder(tmp_path).get("knn")
    by = measure(seen)
    assert by is not None
    assert by.name == "kNN"
    # One that is under way says nothing of where it ends.
    assert [line.values for line in lines(seen, by)] == [(80.0,), (), ()]
    plain = begun(tmp_path / "plain", preset="linear", dataset="gaussian", grid={"ema": [0.0]})
    wrote(tmp_path / "plain", plain[0], state="done", spectrum=(1.0, 0.5))
    seen = Finder(tmp_path).get("plain")
    assert measure(seen) is None
    assert sentence(seen, lines(seen, None)) == "1 of 2 trials done."


def test_small_spectra() -> None:
    assert heights((2.0, 0.02, 2e-9, 0.0, -1e-12)) == [100, 60, 0, 0, 0]
    assert heights((0.0, 0.0)) == [0, 0]
    assert heights((float("nan"), 1.0)) == [0, 0]
    assert heights(()) == []


def test_of_thousands_those_around_the_work_are_listed(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    trials = begun(folder, {"lr": list(np.linspace(0.01, 0.1, 2_600))}, seeds=1)
    page = open_page("study")
    page.publisher.stop()
    page._show()
    assert [row[0] for row in page.table.trials] == [trial.name for trial in trials[:ROWS]]
    assert f"The trials 1 to {ROWS:,} of 2,600" in page.standing.value
    assert page.lines.value.count("<tr>") == 201
    seen = Finder(tmp_path).get("study")

    def done(count: int) -> range:
        changed = tuple(
            dataclasses.replace(trial, state="done" if place < count else "waiting")
            for place, trial in enumerate(seen.trials)
        )
        return listed(dataclasses.replace(seen, trials=changed))

    assert done(600) == range(250, 250 + ROWS)
    assert done(2_550) == range(2_600 - ROWS, 2_600)
    assert done(2_600) == range(ROWS)


def test_an_axis_holds_what_it_shows() -> None:
    for low, high in ((97.0, 97.0), (96.2, 97.9), (0.0, 100.0), (99.9, 100.0), (10.0, 98.0), (0.0, 0.4)):
        below, above = around(low, high)
        assert 0 <= below <= low <= high <= above <= 100, (low, high)
        assert below < above


def test_the_picture_by_label() -> None:
    chart = LabelChart()
    try:
        found = [Line("a", 2, 0, (0, 1), (96.0, 98.0)), Line("b", 2, 0, (0,), (90.0,)), Line("c", 2, 1, (), ())]
        assert chart.update(found, "linear probe")
        assert not chart.update(found, "linear probe")
        assert sorted(chart.dots.x.tolist()) == [90.0, 96.0, 98.0]
        assert chart.means.x.tolist() == [97.0, 90.0]
        # One bar, which bqplot wants twice: of one seed there is no spread.
        assert chart.bars.visible
        assert chart.bars.x[0] == pytest.approx([97 - 2**0.5, 97 + 2**0.5])
        assert list(chart.leader.text) == ["a: 97.0 ± 1.4, best", "", ""]
        assert list(chart.words.text) == ["", "b: 90.0", "c: nothing yet"]
        assert chart.dots.y[0] > chart.dots.y[2] > chart.down.min
        # Nothing yet: what was drawn is hidden, and not taken away.
        chart.update([Line("c", 2, 1, (), ())], "kNN")
        assert [mark.visible for mark in (chart.dots, chart.means, chart.bars)] == [False] * 3
        assert len(chart.dots.x) == 3
        many = [Line(f"row {i}", 1, 0, (0,), (float(i),)) for i in range(MOST + 10)]
        chart.update(many, "kNN")
        assert len(chart.means.x) == MOST
        assert min(chart.means.x) == 10
        assert f"best {MOST} of {MOST + 10}" in chart.note.value
    finally:
        chart.close()


# ---------------------------------------------------------------- the page


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Open]:
    pages: list[Sweeps] = []

    def make(*words: str, **options: Any) -> Sweeps:
        page = Sweeps(*words, results=tmp_path, **options)
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.example.stop()
        wait_for(lambda page=page: page.example.state(False) not in ("starting", "working", "stopping"))
        page.close()


def come(page: Sweeps, key: str = "", **query: str) -> None:
    tell(page.browser, query=query, visible=True, alive=1, **({"key": key} if key else {}))


def sent(page: Sweeps, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the page's table is sent besides its traits."""
    found: list[Any] = []
    monkeypatch.setattr(page.table, "send", lambda content, buffers=None: found.append(content))
    return found


def test_without_a_sweep_it_says_what_one_is(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    come(page)
    assert "No sweep yet" in page.nothing.value
    # A figure that has no place cannot be laid out.
    assert page.main.children == (page.banner, page.nothing)
    assert "ssl-lab sweep study.toml" in page.widget.children[2].children[1].children[-1].value
    about = page.widget.children[2].children[1].children[0].value
    assert "[grid]" in about
    assert not tmp_path.joinpath(NAME).exists()
    # One that begins elsewhere shows up by itself.
    begun(tmp_path / "mine")
    wait_for(lambda: page.table.sweep == "mine", 20)
    assert page.nothing.value == ""
    assert page.browser.sweep == "mine"


def test_a_sweep_is_followed_in_few_messages(open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    trials = begun(folder)
    page = open_page()
    page.publisher.stop()
    seat = seated(folder)
    try:
        page._show()
        assert [row[:3] for row in page.table.trials] == [[trial.name, trial.label, trial.seed] for trial in trials]
        assert {row[0] for row in page.table.live} == {"waiting"}
        wrote(folder, trials[0], state="running", steps_per_second=123.4, knn=0.5, spectrum=(1.0, 0.01))
        wrote(folder, trials[1], state="failed", error="Traceback\n" + "x" * 500 + "\nValueError: " + "y" * 300)
        wrote(folder, trials[2], state="done", accuracy=0.97, knn=0.96)
        count: list[str] = []
        usual = type(page.table)._send
        monkeypatch.setattr(
            "ipywidgets.Widget._send",
            lambda self, msg, buffers=None: (count.append(type(self).__name__), usual(self, msg, buffers))[1],
        )
        assert page._show()
        assert count.count("SweepTable") == 1
        assert len(count) <= 15, count
        running, failed, done = page.table.live[:3]
        assert running == ["running", 20, 40, 123, 50.0, None, [100, 60], 1, "here", "", False, False]
        assert failed[9].startswith("ValueError: yyy")
        assert len(failed[9]) == NOTE + 1
        assert failed[11]
        assert done[4:6] == [96.0, 97.0]
        assert "ssl-running" in page.status.value
        assert "1 of 6 trials done, 1 running, 1 failed" in page.status.value
        assert page.browser.announce.startswith("0 of 6") or page.browser.announce.startswith("1 of 6")
        assert page.chart.dots.x.tolist() == [97.0]
        count.clear()
        assert not page._show()
        assert count == []
    finally:
        seat.leave()


def test_errors_and_the_table_are_sent_when_they_are_asked_for(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    trials = begun(folder)
    whole = "Traceback\n  File <here>\nValueError: It broke."
    wrote(folder, trials[1], state="failed", error=whole)
    wrote(folder, trials[2], state="done", accuracy=0.97)
    page = open_page("study")
    come(page)
    found = sent(page, monkeypatch)
    say(page.table, {"error": trials[1].name})
    wait_for(lambda: found == [{"error": trials[1].name, "text": whole}], 10)
    for nonsense in ({"error": 7}, {"error": "none"}, {"csv": "yes"}, "csv", None, {"error": ["x"]}):
        say(page.table, nonsense)
    say(page.table, {"csv": True})
    wait_for(lambda: len(found) == 2, 10)
    assert found[1]["save"] == "study.csv"
    rows = list(csv.DictReader(io.StringIO(found[1]["text"])))
    assert [row["name"] for row in rows] == [trial.name for trial in trials]
    assert rows[1]["error"] == whole
    assert (rows[2]["accuracy"], rows[2]["ema"], rows[2]["seed"]) == ("0.97", "0.99", "0")


def test_an_address_leads_to_a_sweep_or_says_why_not(open_page: Open, tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        begun(tmp_path / name)
        os.utime(tmp_path / name / PLAN, (1_000_000 - age, 1_000_000 - age))
    page = open_page()
    assert page.table.sweep == "new"
    come(page, sweep="old")
    wait_for(lambda: page.table.sweep == "old" and page.choose.value == "old", 10)
    assert page.banner.value == ""
    tell(page.choose, index=list(page.choose.options).index("new"))
    wait_for(lambda: page.table.sweep == page.browser.sweep == "new", 10)
    for wrong in ("gone", "../old", "x" * 3000):
        other = open_page()
        come(other, sweep=wrong)
        if len(wrong) < 2000:
            wait_for(lambda other=other: "The link cannot be followed" in other.banner.value, 10)
        assert other.table.sweep == "new"
    # What a page may set is the choice, and nothing else.
    tell(page.choose, _options_labels=["x"], index=99)
    tell(page.table, live=[], trials=[], sweep="old")
    tell(page.begin, description="Press me", disabled=True)
    tell(page.status, value="<script>")
    assert page.table.sweep == "new"
    assert len(page.table.trials) == 6
    assert (page.begin.description, page.choose.value) == ("Run the example here", "new")


def test_in_a_class_only_the_host_starts_and_stops(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    begun(folder)
    seat = seated(folder)
    try:
        visitor, host = open_page(house=CLASS), open_page(house=CLASS)
        come(visitor, "ann's")
        come(host, "teacher's")
        wait_for(lambda: not host.stop.disabled, 10)
        assert WATCH_ONLY in visitor.words.value
        assert visitor.begin.disabled
        assert visitor.stop.disabled
        # A page may say that its button was pressed, whatever it looks like.
        for button in (visitor.begin, visitor.stop):
            button.click()
            wait_for(lambda: WATCH_ONLY in visitor.banner.value, 10)
        assert not (folder / STOP).exists()
        assert not visitor.example.folder.exists()
        host.stop.click()
        wait_for((folder / STOP).exists, 10)
    finally:
        seat.leave()


def test_in_a_class_errors_do_not_say_where_the_host_s_folders_lie(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    trials = begun(folder)
    error = f'File "/home/host/lib/torch/nn.py", line 3\nOSError: {folder}/run.sqlite: 0.5 steps/s, see https://a.b/c'
    wrote(folder, trials[1], state="failed", error=error)
    write_runner(folder, RunnerRecord(state="stopped", message=f"{folder}/sweep.toml was changed."))
    visitor, host = open_page("study", house=CLASS), open_page("study", house=CLASS)
    come(visitor, "ann's")
    come(host, "teacher's")
    told = 'File "nn.py", line 3\nOSError: study/run.sqlite: 0.5 steps/s, see https://a.b/c'
    for page, words in ((visitor, told), (host, error)):
        found = sent(page, monkeypatch)
        say(page.table, {"error": trials[1].name})
        wait_for(lambda: {"error": trials[1].name, "text": words} in found, 10)  # noqa: B023
        note = words.rpartition("\n")[2]
        wait_for(lambda: page.table.live[1][9] in (note, f"{note[:NOTE]}…"), 10)  # noqa: B023
        say(page.table, {"csv": True})
        wait_for(lambda: any("save" in message for message in found), 10)  # noqa: B023
        (csv,) = [message["text"] for message in found if "save" in message]
        assert (str(tmp_path) in csv or "/home/host" in csv) == (page is host)
        wait_for(lambda: "sweep.toml was changed." in page.standing.value, 10)  # noqa: B023
        assert (str(tmp_path) in page.standing.value) == (page is host)


def test_the_example_beside_another_sweep_is_not_read_as_a_whole(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / NAME)
    begun(tmp_path / "study")
    page = open_page("study")
    page.publisher.stop()
    plans: list[Path] = []
    monkeypatch.setattr("lab.sweeping.finder.read_plan", plans.append)
    for state, words in (("stopped", "begun"), ("done", "done"), ("failed", "begun")):
        write_runner(tmp_path / NAME, RunnerRecord(state=state))  # type: ignore[arg-type]
        page._show()
        assert page.example.state(page.example.finished) == words
    assert plans == []
    # A broken word is nobody's word.
    (tmp_path / NAME / "runner.json").write_text("{")
    page._show()
    assert page.begin.description == "Go on with the example"


def test_what_a_stranger_wrote_is_shown_as_text(open_page: Open, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    folder = tmp_path / "study"
    trials = begun(folder)
    wrote(folder, trials[0], state="done", accuracy=0.5)
    plan = (folder / PLAN).read_text().replace('"label": "ema-0.0"', f'"label": "{evil}"')
    (folder / PLAN).write_text(plan)
    write_runner(folder, RunnerRecord(state="stopped", message=evil))
    page = open_page("study")
    come(page)
    assert evil in {row[1] for row in page.table.trials}
    for widget in (page.status, page.standing, page.lines):
        assert "&lt;img" in widget.value
        assert "<img" not in widget.value


def test_only_what_lies_where_the_bench_looks_is_linked_to_it(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_page().table.folder == str(tmp_path)
    monkeypatch.setenv("SSL_LAB_RESULTS", str(tmp_path))
    assert open_page().table.folder == ""


# ---------------------------------------------------------------- the example


def test_the_example_is_small_and_can_be_run() -> None:
    trials = read_sweep(shipped()).trials()
    assert len(trials) == 8
    assert sum(trial.of for trial in trials) < 2_000
    assert all(trial.config.dataset == "digits" for trial in trials)
    assert Example(Path()).name == NAME == f"sweep-{read_sweep(shipped()).name}"


def test_a_process_that_ends_with_failed_trials_has_come_to_its_end(tmp_path: Path) -> None:
    work: Work = Example(tmp_path)
    assert work.ended_well(0, b"")
    assert work.ended_well(130, b"")
    assert work.ended_well(1, b"Tables: a.csv\n")
    assert not work.ended_well(1, b"It broke.\n")
    assert not work.ended_well(-9, b"Tables: a.csv\n")


def test_the_page_starts_a_sweep_stops_it_and_goes_on(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(
        'seeds = [0]\n[base]\ndataset = "digits"\nsteps = 3000\nprobe_epochs = 0\n[grid]\nema = [0.0, 0.9]\n'
    )
    page, other = open_page(example=file), open_page(example=file)
    come(page)
    come(other)
    page.begin.click()
    wait_for(lambda: page.begin.description in ("Starting…", "Running…"), 10)
    wait_for(lambda: any(row[1] > 0 for row in page.table.live), 120)
    # Another page sees the same, without having asked, and cannot start a second one.
    wait_for(lambda: other.begin.description == "Running…" and other.begin.disabled and other.table.sweep == NAME, 20)
    assert page.table.live[0][0] == "running"
    other.stop.click()
    wait_for(lambda: page.begin.description == "Go on with the example", 60)
    wait_for(lambda: "stopped" in page.status.value and page.stop.disabled, 20)
    assert page.table.live[0][0] == "cut"
    assert page.table.live[0][10]
    assert not page.example.trouble
    assert not (page.example.folder / STOP).exists()
