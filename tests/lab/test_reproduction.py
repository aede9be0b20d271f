"""The page of the reproduction: the numbers of small studies made here, bets, the one study that pages start."""

from __future__ import annotations

import html.parser
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.house import House, digest
from lab.reproduction import Reproduction
from lab.reproduction.bets import BETS, Finding
from lab.reproduction.command import CommandBox
from lab.reproduction.numbers import Gap, Sample, gap, gap_of_pairs, line
from lab.reproduction.page import WATCH_ONLY
from lab.reproduction.pipeline import LOG, Pipeline, Size
from lab.reproduction.studies import SHIPPED, SILENT, Studies, shipped
from lab.reproduction.table import table
from lab.reproduction.words import about, verdict
from lab.work import LOADING, STARTED
from ssl_lab import cli
from ssl_lab.errors import SSLLabError, StoreError
from ssl_lab.reproduce.progress import LOCK, STOP
from ssl_lab.reproduce.record import RECORD, RunRecord, StudyRecord, read_record, write_record
from ssl_lab.reproduce.rows import ITEMS
from ssl_lab.seat import Seat, taken
from tests.lab.class_room import tell
from tests.lab.conftest import wait_for

CLASS = House(own_only=True, host_key=digest("teacher's"))
TINY = Size(seeds=1, epochs=1, items=("figure3",))


def made(rows: dict[str, list[float]], ranks: dict[str, list[float]] | None = None, **more: Any) -> StudyRecord:
    """A study whose rows came to these probes, one a seed."""
    runs = [
        RunRecord(
            row=row, seed=seed, state="done", step=100, of=100, probe=probe, authors_best=probe + 0.5, knn=probe - 1,
            effective_rank=(ranks or {}).get(row, [8.0] * 9)[seed], aligned=seed + 1, directions=32, seconds=60.0,
        )
        for row, probes in rows.items() for seed, probe in enumerate(probes)
    ]  # fmt: skip
    said = {"items": ("table1", "figure1"), "scale": "paper", "data": "cifar10", "seeds": 2, "epochs": 101}
    said |= {"encoder": "resnet18", "width": 64}
    return StudyRecord(**{**said, "runs": tuple(runs), **more})


def findings(name: str, record: StudyRecord) -> dict[str, Finding]:
    (bet,) = (bet for bet in BETS if bet.name == name)
    return {finding.who: finding for finding in bet.judge(record)}


# ---------------------------------------------------------------- numbers


def test_a_difference_has_welch_s_interval() -> None:
    # P's table 8, by hand: standard error .1363, 7.85 degrees of freedom, rounded down to 7: t = 2.365.
    found = gap(Sample(85.21, 0.23, 5), Sample(84.49, 0.20, 5))
    assert found.value == pytest.approx(0.72)
    assert found.half == pytest.approx(2.365 * (0.23**2 / 5 + 0.20**2 / 5) ** 0.5)
    assert found.decided
    # Two runs each: the same difference says nothing.
    assert not gap(Sample(85.21, 0.23, 2), Sample(84.49, 0.20, 2)).decided
    # One run each has no interval, and neither have runs that agree to the last digit.
    assert gap(Sample(84.7, None, 1), Sample(83.3, None, 1)) == Gap(pytest.approx(1.4), None)
    assert gap(Sample(84.7, 0.0, 3), Sample(83.3, 0.0, 3)).half is None
    pairs = gap_of_pairs([5.0, 6.0, 7.0])
    assert (pairs.value, pairs.half) == (6.0, pytest.approx(4.303 / 3**0.5))
    assert gap_of_pairs([5.0]).half is None


class _Cells(html.parser.HTMLParser):
    """The rows of a table as texts, and what is wrong with it for a screen reader."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.scopes: list[str] = []
        self._in = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self._in = True
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope") or "none")

    def handle_endtag(self, tag: str) -> None:
        self._in = self._in and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._in:
            self.rows[-1][-1] += data


def cells(record: StudyRecord, hidden: set[str], row: str) -> list[str]:
    found = _Cells(table(record, hidden, "A study"))
    assert "none" not in found.scopes
    (there,) = (cells for cells in found.rows if cells[0].endswith(f" {row}"))
    return there[1:]


def test_the_table_says_what_the_study_s_file_says(tmp_path: Path) -> None:
    record = made({"untrained": [30.0, 31.0], "directpred": [85.0, 86.0], "byol-one-layer": [84.0]})
    write_record(tmp_path, record)
    read = read_record(tmp_path / RECORD)
    assert read == record
    # Mean and standard deviation by hand: 85.5 and .7071.
    assert cells(read, set(), "directpred") == [
        "84.7 n = 1 (+0.8 here)", "85.21 ± 0.23 n = 5 (+0.8 here)", "n = 2", "85.5 ± 0.71", "86.0 ± 0.71", "84.5",
        "8.0", "2 of 32", "60",
    ]  # fmt: skip
    assert cells(read, set(), "byol-one-layer")[3] == "84.0"
    assert cells(read, set(), "simsiam")[:3] == ["79.4 n = 1", "– none in print", "– not in this study"]
    assert cells(read, {"directpred"}, "directpred") == ["bet first"]
    # Nor does what it is called give it away.
    assert "SimSiam with a symmetric predictor: collapses" in table(read, set(), "A study")
    assert "collapse" not in table(read, {"simsiam-symmetric"}, "A study")
    # Nothing is said of a difference to numbers of another size.
    assert "here" not in table(read.model_copy(update={"scale": "small"}), set(), "A study")


def test_a_study_under_way_says_how_far_each_row_is() -> None:
    runs = (
        RunRecord(row="byol", seed=0, state="done", step=10, of=10, probe=50.0),
        RunRecord(row="byol", seed=1, state="running", step=5, of=10),
        RunRecord(row="simsiam", seed=0, state="waiting", of=10),
        RunRecord(row="directpred", seed=0, state="failed", why="It broke <here>.", of=10),
    )
    record = made({}, runs=runs, state="running")
    assert cells(record, set(), "byol")[2:4] == ["1 of 2, training", "50.0"]
    assert cells(record, set(), "simsiam")[2] == "0 of 1, waits"
    assert "It broke &lt;here&gt;." in table(record, set(), "A study")


def test_the_study_that_comes_with_the_lab_is_whole() -> None:
    record = shipped().record
    assert (record.state, record.scale, record.data, record.seeds) == ("done", "small", "cifar10", 2)
    needed = {"untrained", "supervised", *ITEMS["table1"].rows, *ITEMS["figure1"].rows}
    assert set(record.rows) == needed
    assert (len(record.runs), record.done) == (28, 28)
    assert all(run.probe is not None and run.probe > 5 for run in record.runs)
    for run in record.runs:
        if run.row not in ("untrained", "supervised"):
            assert None not in (run.authors_best, run.knn, run.effective_rank, run.aligned, run.seconds), run
            assert run.step == run.of == 936
            assert run.torch
    text = about(record)
    assert "narrow ResNet-18" in text
    assert "5,000 training images at 16x16 pixels" in text
    assert "not the papers’ size" in text
    # It was made somewhere; where is nobody's business.
    assert "/" not in "".join(json.loads(json.dumps(record.data_note)))
    # The bets can be judged by it.
    for bet in BETS:
        assert bet.judge(record)[-1].who == "In this study"
        assert "not in it" not in bet.judge(record)[-1].text


# ---------------------------------------------------------------- bets


def test_whether_directpred_is_ahead_is_decided_by_enough_seeds_only() -> None:
    rows = {"directpred": [85.0, 85.2, 85.4, 85.1], "byol-one-layer": [84.3, 84.6, 84.4, 84.5]}
    found = findings("directpred", made(rows))
    assert found["P, CIFAR-10"].choice == 0
    assert found["S, CIFAR-10"].choice is None
    assert found["In this study"].choice == 0
    assert [found["In this study"].judge(bet) for bet in (0, 1, None)] == ["holds", "fails", "open"]
    swapped = findings("directpred", made({"directpred": rows["byol-one-layer"], "byol-one-layer": rows["directpred"]}))
    assert swapped["In this study"].choice == 1
    few = findings("directpred", made({row: probes[:2] for row, probes in rows.items()}))["In this study"]
    assert few.choice is None
    assert "n = 2 runs do not decide it" in few.why_open
    missing = findings("directpred", made({"directpred": [85.0]}))["In this study"]
    assert (missing.choice, missing.text) == (None, "byol-one-layer is not in it.")


def test_collapse_is_told_by_the_effective_rank() -> None:
    def judged(probe: float, *ranks: float) -> Finding:
        rows = {"simsiam": [79.0, 79.5], "simsiam-symmetric": [probe] * len(ranks)}
        return findings("symmetric", made(rows, {"simsiam-symmetric": list(ranks)}))["In this study"]

    assert judged(20.0, 1.1, 1.3).choice == 2
    assert judged(78.0, 7.0, 8.0).choice == 0
    assert judged(60.0, 7.0, 8.0).choice == 1
    assert "some of its runs collapsed" in judged(50.0, 1.1, 8.0).why_open
    assert findings("symmetric", made({}))["S, CIFAR-10"].choice == 2
    assert findings("symmetric", made({}, data="stl10"))["P, STL-10"].choice == 2
    # It is judged before plain SimSiam is there, if it has collapsed.
    alone = made({"simsiam-symmetric": [20.0]}, {"simsiam-symmetric": [1.1]})
    assert findings("symmetric", alone)["In this study"].choice == 2


def test_what_is_lost_without_ema_is_judged_by_pairs_of_one_seed() -> None:
    kept = {"byol-one-layer": [84.0, 80.0, 82.0], "directpred": [85.0, 81.0, 83.0], "directcopy": [85.0, 81.0, 83.0]}
    lost = {"simsiam-one-layer": 5.5, "directpred-simsiam": 6.0, "directcopy-simsiam": 6.5}
    rows = kept | {
        row: [value - loss - 0.1 * seed for seed, value in enumerate(kept[with_ema])]
        for (row, loss), with_ema in zip(lost.items(), kept, strict=True)
    }
    found = findings("ema", made(rows))
    assert found["S, CIFAR-10"].choice == 1
    # The seeds lie four points apart, and what each loses does not.
    assert found["In this study"].choice == 1
    assert "lose 5.6, 6.1, 6.6 points; together 6.1" in found["In this study"].text
    assert "not EMA alone" not in found["In this study"].text
    assert "collapse" not in found["In this study"].text
    ranks = {row: [1.2, 1.3, 1.1] for row in lost}
    assert (
        "they collapse here (effective rank 1.2, 1.2, 1.2)" in findings("ema", made(rows, ranks))["In this study"].text
    )
    small = findings("ema", made(rows, scale="small"))["In this study"]
    assert "not EMA alone" in small.text
    one = findings("ema", made({row: probes[:1] for row, probes in rows.items()}))["In this study"]
    assert (one.choice, one.why_open) == (None, "no spread is known")
    wide = rows | {"simsiam-one-layer": [84.0, 60.0, 70.0]}
    assert "more than one answer" in findings("ema", made(wide))["In this study"].why_open


def test_what_is_lost_without_ema_is_of_seeds_that_have_all_six_rows() -> None:
    seeds = {"byol-one-layer": (1, 2), "directpred": (0, 1), "directcopy": (0, 1, 2)}
    seeds |= {f"{row}-simsiam": seeds[row] for row in ("directpred", "directcopy")}
    seeds["simsiam-one-layer"] = seeds["byol-one-layer"]
    with_ema = ("byol-one-layer", "directpred", "directcopy")
    # Of seed 1 each loses 5 points; of the others 20.
    runs = tuple(
        RunRecord(row=row, seed=seed, state="done", probe=80.0 - (row not in with_ema) * (5 if seed == 1 else 20))
        for row in seeds for seed in seeds[row]
    )  # fmt: skip
    one = findings("ema", made({}, runs=runs))["In this study"]
    assert "lose 5.0, 5.0, 5.0 points; together 5.0 (n = 1 seed)" in one.text
    assert one.why_open == "no spread is known"
    none = findings("ema", made({}, runs=tuple(run for run in runs if run.seed != 1)))["In this study"]
    assert none.text == "No seed has all six rows."


def test_a_verdict_says_what_became_of_the_bet() -> None:
    bet = BETS[1]
    found = bet.judge(made({"simsiam-symmetric": [20.0, 21.0]}, {"simsiam-symmetric": [1.1, 1.2]}))
    assert verdict(bet, 2, found).count("Your bet holds") == 2
    assert verdict(bet, 0, found).count("Your bet does not hold: it collapses") == 2
    assert "Your bet" not in verdict(bet, None, found)


# ---------------------------------------------------------------- which studies there are


def test_the_studies_of_a_folder(tmp_path: Path) -> None:
    now = 0.0
    studies = Studies(tmp_path / "none", clock=lambda: now)
    assert [key for _, key in studies.names()] == [SHIPPED]
    studies = Studies(tmp_path, clock=lambda: now)
    (tmp_path / "a-run").mkdir()
    folder = tmp_path / "box"
    folder.mkdir()
    write_record(folder, made({"byol": [50.0]}, state="running", beat=1))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / RECORD).write_text("{")
    assert [key for _, key in studies.names()] == [SHIPPED, "folder:box", "folder:broken"]
    with pytest.raises(StoreError, match="record of a study"):
        studies.get("folder:broken")
    with pytest.raises(SSLLabError, match="not there any more"):
        studies.get("folder:gone")
    # Of one on another machine there is no lock: its beat says that somebody works on it.
    assert not studies.get("folder:box").live
    write_record(folder, made({"byol": [50.0, 51.0]}, state="running", beat=2, left_seconds=600.0))
    found = studies.get("folder:box")
    assert found.live
    assert found.words == "2 of 2 runs done, about 10 min left"
    now = SILENT + 1
    gone = studies.get("folder:box")
    assert not gone.live
    assert "the same command goes on" in gone.words
    # Of one on this machine there is.
    seat = Seat(folder / LOCK)
    assert seat.take()
    assert studies.get("folder:box").live
    seat.leave()
    assert not studies.get("folder:box").live
    write_record(folder, made({"byol": [50.0, 51.0]}, state="done", beat=3))
    assert studies.get("folder:box").words == "All 2 runs done"


# ---------------------------------------------------------------- the study that runs here


def test_a_size_is_a_command_that_the_command_line_understands(tmp_path: Path) -> None:
    assert Size().name == "reproduce-digits-lesson"
    assert TINY.name == "reproduce-digits-lesson-figure3-1x1"
    assert "--seeds" not in Size().words
    words = Pipeline(tmp_path, TINY).command()
    assert words[:3] == [sys.executable, "-m", "ssl_lab.cli"]
    # Nothing is trained: only what the words mean.
    assert cli.main([*words[3:], "--report-only"]) == 0
    record = read_record(tmp_path / TINY.name / RECORD)
    assert (record.scale, record.data, record.seeds, record.epochs, len(record.runs)) == ("lesson", "digits", 1, 1, 4)


def test_a_study_is_started_seen_by_all_stopped_and_gone_on_with(tmp_path: Path) -> None:
    size = Size(seeds=1, epochs=300, items=("figure1",))
    mine, other = Pipeline(tmp_path, size), Pipeline(tmp_path, size)
    assert mine.state(False) == "none"
    mine.start()
    try:
        wait_for(lambda: mine.state(False) == "working")
        # Another page sees the same one, and cannot start a second one.
        assert other.state(False) == "working"
        other.start()
        assert other._child is None
        with pytest.raises(SSLLabError, match="stop it first"):
            other.set_aside()
        wait_for((mine.folder / RECORD).is_file)
        record = wait_for(
            lambda: (r := read_record(mine.folder / RECORD)).done >= 2 and any(x.step for x in r.runs) and r
        )
        assert record.state == "running"
        other.stop()
    finally:
        mine.stop()
    wait_for(lambda: mine.state(False) == "begun")
    stopped = read_record(mine.folder / RECORD)
    assert stopped.state == "stopped"
    assert not mine.trouble
    assert not (mine.folder / STOP).exists()
    other.start()
    try:
        wait_for(lambda: taken(other.folder / LOCK))
        # What is done is not done again.
        assert read_record(other.folder / RECORD).done >= stopped.done
    finally:
        other.stop()
        wait_for(lambda: other.state(False) == "begun")


def test_a_process_that_loads_is_seen_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = [sys.executable, "-c", "import time; print('first', flush=True); time.sleep(60)"]
    monkeypatch.setattr(Pipeline, "command", lambda _: loading)
    mine, other = Pipeline(tmp_path, TINY), Pipeline(tmp_path, TINY)
    mine.start()
    child = mine._child
    assert child is not None
    try:
        wait_for(lambda: (mine.folder / LOG).read_text() == "first\n", 20)
        assert other.state(False) == "starting"
        other.start()
        assert other._child is None
        other.stop()
        assert (mine.folder / STOP).exists()
    finally:
        child.kill()
    wait_for(lambda: mine.state(False) == "none", 10)
    assert other.state(False) == "none"
    # The next one adds to what was said, and is judged by its own words.
    (mine.folder / LOG).write_text("Report: of another day\n")
    monkeypatch.setattr(Pipeline, "command", lambda _: [sys.executable, "-c", "import sys; sys.exit('It broke')"])
    other.start()
    wait_for(lambda: other.state(False) == "none", 20)
    assert "It broke" in other.trouble
    assert (mine.folder / LOG).read_text() == "Report: of another day\nIt broke\n"
    # Once it has written its record, it does not load any more; and a start is not believed for ever.
    stamp = mine.folder / STARTED
    stamp.touch()
    assert mine.state(False) == "starting"
    os.utime(stamp, (time.time() - LOADING - 1,) * 2)
    assert mine.state(False) == "none"
    os.utime(stamp, (time.time() - 1,) * 2)
    write_record(mine.folder, made({}))
    assert mine.state(False) == "begun"


def test_a_process_that_breaks_off_is_said(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, Size(seeds=1, epochs=1, items=("table9",)))
    pipeline.start()
    wait_for(lambda: pipeline.state(False) == "none")
    assert "There is no 'table9' to reproduce" in pipeline.trouble
    assert LOG in pipeline.trouble


# ---------------------------------------------------------------- the page

Open = Callable[..., Reproduction]


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Open]:
    pages: list[Reproduction] = []

    def make(**options: Any) -> Reproduction:
        page = Reproduction(results=tmp_path, **options)
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.pipeline.stop()
        wait_for(lambda page=page: page.pipeline.state(False) not in ("starting", "working", "stopping"))
        page.close()


def come(page: Reproduction, key: str = "") -> None:
    tell(page.browser, query={}, visible=True, alive=1, **({"key": key} if key else {}))


def choose(page: Reproduction, title: str) -> None:
    wait_for(lambda: title in [name for name, _ in page.choose.options], 10)
    tell(page.choose, index=[name for name, _ in page.choose.options].index(title))


def test_the_picture_is_there_with_the_page_and_follows_the_study(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_record(tmp_path / "mine", made({"byol": [60.0, 62.0], "untrained": [20.0, 20.0]}))
    page = open_page()
    byol = line(page.studies.shipped.record, "byol").probe
    assert byol is not None
    # As float32, as bqplot gets it.
    assert page.charts[0].ours.y[0] == pytest.approx(byol.mean, abs=1e-4)
    assert page.charts[0].printed.y[0] == pytest.approx(84.2, abs=1e-4)
    assert "not the papers’ size" in page.about.value
    come(page)
    choose(page, "mine")
    wait_for(lambda: page.charts[0].ours.y[0] == 61.0, 10)
    assert "may be compared" in page.about.value
    assert page.charts[0].whiskers["ours"].x[0].tolist() == pytest.approx([61 - 2**0.5, 61 + 2**0.5])
    # A study under way is drawn as it grows, without a touch.
    write_record(tmp_path / "mine", made({"byol": [70.0, 72.0]}, state="running", beat=2))
    wait_for(lambda: page.charts[0].ours.y[0] == 71.0, 10)
    (tmp_path / "mine" / RECORD).write_text("{}")
    wait_for(lambda: "record of a study" in page.banner.value, 10)


def test_a_report_that_is_a_link_or_a_pipe_is_not_put_into_the_page(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "strangers"
    folder.mkdir()
    write_record(folder, made({"byol": [60.0]}))
    (tmp_path / "secret").write_text("of the host")
    page = open_page()
    report = folder / "report.html"
    report.symlink_to(tmp_path / "secret")
    assert page._link(page.studies.get("folder:strangers")) == ""
    report.unlink()
    os.mkfifo(report)
    assert page._link(page.studies.get("folder:strangers")) == ""
    report.unlink()
    report.write_text("<p>Mine")
    assert "Save it" in page._link(page.studies.get("folder:strangers"))


def test_numbers_wait_for_their_bet(open_page: Open) -> None:
    page = open_page()
    come(page)
    place = page.charts[1].rows.index("directpred")
    assert page.charts[1].ours.y[place] == page.charts[1].printed.y[place] == 0
    assert page.charts[1].labels["s"].text[place] == "bet first"
    assert "85.21" not in page.table.value
    tell(page.bets[0].choice, index=0)
    wait_for(lambda: "Your bet holds" in page.bets[0].verdict.value, 10)
    # What is on the page is written one after the other.
    wait_for(lambda: page.charts[1].printed.y[place] == pytest.approx(84.7, abs=1e-4), 10)
    wait_for(lambda: "85.21 ± 0.23" in page.table.value, 10)
    wait_for(lambda: page.bets[0].choice.disabled, 10)
    # The others still wait, and the first word counts.
    assert page.bets[1].verdict.value == ""
    tell(page.bets[0].choice, index=1)
    time.sleep(0.5)
    assert "Your bet holds" in page.bets[0].verdict.value
    page.reveal.click()
    wait_for(lambda: all(box.verdict.value for box in page.bets), 10)
    wait_for(lambda: "bet first" not in page.table.value, 10)


def test_a_page_sets_what_is_a_person_s_to_set(open_page: Open) -> None:
    page = open_page()
    come(page)
    options, value = page.choose.options, page.table.value
    tell(page.choose, _options_labels=["x"], index=99)
    tell(page.table, value="<script>")
    tell(page.begin, description="Press me", disabled=True)
    tell(page.bets[0].choice, index=7)
    tell(page.command.seeds, value=10**9)
    tell(page.command.seeds, max=10**9)
    time.sleep(0.3)
    assert (page.choose.options, page.choose.value, page.table.value) == (options, SHIPPED, value)
    assert page.begin.description == "Run the study here"
    assert page.bets[0].chosen is None
    assert page.command.seeds.value == 20
    wait_for(lambda: "--seeds 20" in page.command.text.value, 10)


def test_in_a_class_only_the_host_starts_and_stops(open_page: Open) -> None:
    visitor, host = open_page(house=CLASS, size=TINY), open_page(house=CLASS, size=TINY)
    come(visitor, "ann's")
    come(host, "teacher's")
    wait_for(lambda: WATCH_ONLY in visitor.work_words.value, 10)
    wait_for(lambda: not host.begin.disabled, 10)
    assert visitor.begin.disabled
    # A page may say that its button was pressed, whatever it looks like.
    for button in (visitor.begin, visitor.stop):
        button.click()
        wait_for(lambda: WATCH_ONLY in visitor.banner.value, 10)
    assert not visitor.pipeline.folder.exists()
    host.begin.click()
    # Both see it grow, and neither has to ask.
    wait_for(lambda: visitor.pipeline.state(False) == "working")
    visitor.stop.click()
    time.sleep(0.5)
    assert not (visitor.pipeline.folder / STOP).exists()
    choose(visitor, TINY.name)
    wait_for(lambda: host._finished(), 120)
    for page in (visitor, host):
        wait_for(lambda page=page: "All 4 runs done" in page.status.value, 20)
        wait_for(lambda page=page: page.charts[0].ours.y[2] > 50, 10)
    wait_for(lambda: "Save it" in host.about.value, 10)
    assert "data:text/html;base64," in host.about.value
    wait_for(lambda: host.begin.description == "Run it again", 20)
    # It is kept when another one begins.
    host.begin.click()
    wait_for(lambda: (host.studies.results / f"{TINY.name}-1" / RECORD).is_file(), 10)
    wait_for(lambda: host.pipeline.state(False) == "working")


def test_a_page_that_is_opened_again_shows_the_study_that_runs(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / TINY.name
    folder.mkdir()
    write_record(folder, made({"byol": [60.0]}, state="running"))
    seat = Seat(folder / LOCK)
    assert seat.take()
    try:
        page = open_page(size=TINY)
        come(page)
        wait_for(lambda: TINY.name in page.status.value, 10)
        assert page.choose.value == f"folder:{TINY.name}"
        wait_for(lambda: page.begin.description == "Running…", 10)
        assert page.begin.disabled
        assert not page.stop.disabled
    finally:
        seat.leave()


def test_the_command_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    box = CommandBox(lambda: None)
    assert box.command() == "ssl-lab reproduce table1 figure1 --dataset cifar10 --seeds 3 --epochs 101 --device cuda"
    tell(box.source, index=2)
    tell(box.seeds, value=5)
    tell(box.minutes, value=9)
    assert box.update()
    assert "--dataset FOLDER --data cifar10 --seeds 5 --epochs 101 --device cuda --minutes 9" in box.text.value
    # What is shown is understood: only the folder is not there.
    assert cli.main(box.command().split()[1:]) == 2
    assert "FOLDER" in capsys.readouterr().err
