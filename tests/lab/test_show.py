"""A bench with chosen parts, and what a lesson does with it: every act goes the way of a person's hand."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Bench
from lab.doors import parts
from lab.house import House
from lab.show import Show, compact
from lab.view import RunView
from ssl_lab import Trainer, preset
from ssl_lab.errors import ConfigError
from ssl_lab.store import open_run
from tests.lab.conftest import wait_for
from tests.lab.test_bench import ready, state
from tests.ssl_lab.conftest import small_config

Open = Callable[..., Bench]
FEW = compact(panels=("f", "effective_rank"), knobs=("predictor", "ema"))


@pytest.fixture
def bench(open_bench: Open) -> Bench:
    bench = open_bench(Trainer(small_config()), show=FEW)
    ready(bench)
    return bench


def test_what_is_not_shown_is_not_made(bench: Bench) -> None:
    assert [panel.title for panel in bench.panels] == ["Eigenvalues of F", "Effective rank of F"]
    assert list(bench.knobs.controls) == ["predictor", "ema"]
    assert (bench.setup, bench.shelf, bench.files, bench.export) == (None, None, None, None)
    assert len(list(parts(bench.widget))) < 150
    bench.step(10)
    wait_for(lambda: "data-step='10'" in bench.headline.value)
    wait_for(lambda: all(mark.visible for mark in (bench.panels[0].lines, bench.panels[1].line)))  # type: ignore[attr-defined]
    assert bench.banner.value == ""


def test_a_part_that_there_is_not_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no panel 'loss2'. The panels are: f, wp, .*knn"):
        compact(panels=("loss2",), knobs=())
    with pytest.raises(ConfigError, match=r"no knob 'tau'. The knobs are: predictor, .*augmentation"):
        Show(knobs=("tau",))


def test_where_runs_are_bounded_they_can_be_let_go(open_bench: Open) -> None:
    bench = open_bench(show=FEW, house=House(max_runs=3))
    assert bench.shelf is not None


def test_a_lesson_s_hand(bench: Bench, tmp_path: Path) -> None:
    """Turns, steps, forks, visits and begins; each is in the run's file as if a person had done it."""
    seen: list[RunView | None] = []
    threads = set()

    def follow(view: RunView | None) -> None:
        seen.append(view)
        threads.add(threading.current_thread().name)

    bench.on_view(follow)
    bench.step(10)
    wait_for(lambda: seen and seen[-1] is not None and seen[-1].step == 10 and seen[-1].status.state == "paused")
    assert threads == {"publisher"}
    bench.turn(predictor="none", ema=0.5)
    wait_for(lambda: seen[-1] is not None and seen[-1].events)
    (event,) = seen[-1].events  # type: ignore[union-attr]
    assert (event.step, event.changes, event.origin) == (10, {"predictor": "none", "ema": 0.5}, "page")
    wait_for(lambda: bench.knobs.controls["predictor"].control.value == "none")
    bench.step(10)
    wait_for(lambda: state(bench).step == 20 and state(bench).state == "paused")

    # A moment that has passed, and the marks that lead the eye.
    found: list[Any] = []
    bench.do(lambda: found.append(bench.view_at(7)))
    bench.do(lambda: bench.point_at(knobs=("ema",), panels=("f",)))
    wait_for(lambda: found and "ssl-look" in bench.panels[0].widget._dom_classes)
    assert (found[0].step, found[0].knobs.predictor) == (7, "directpred")
    assert "ssl-asked" in bench.knobs.controls["ema"].widget._dom_classes
    assert "ssl-asked" not in bench.knobs.controls["predictor"].widget._dom_classes

    # From just before the event, another rule.
    names: list[str] = []
    bench.fork(10, events=0, compare=False, knobs={"ema": 0.9}, then=names.append)
    wait_for(lambda: names == ["directpred-1-fork-1"] and state(bench).state == "paused")
    wait_for(lambda: state(bench).knobs.ema == 0.9 and state(bench).knobs.predictor == "directpred")
    assert bench._compared == {}
    bench.compare("directpred-1")
    wait_for(lambda: list(bench._compared) == ["directpred-1"])
    bench.visit("directpred-1", 5, then=names.append)
    wait_for(lambda: names[-1] == "directpred-1" and bench.timeline.step == 5)
    bench.begin(small_config(seed=3), then=names.append)
    wait_for(lambda: names[-1] == "directpred-2" and state(bench).state == "paused")
    with open_run("directpred-2", tmp_path, readonly=True) as store:
        assert store.config().seed == 3


def test_who_asks_for_too_much_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    monkeypatch.setattr("lab.bench.MOST_ACTIONS", 0)
    bench.begin(small_config(), otherwise=reasons.append)
    assert len(reasons) == 1
    assert "More was asked for than could be done" in reasons[0]


def test_why_nothing_can_be_done_is_told(bench: Bench) -> None:
    reasons: list[str] = []
    assert bench.obstacle == ""
    bench.fork(5, otherwise=reasons.append)
    bench.visit("never-was", otherwise=reasons.append)
    wait_for(lambda: len(reasons) == 2)
    assert "no step 5" in reasons[0]
    assert "never-was" in reasons[1]
    names: list[str] = []
    bench.visit("recording: collapse-and-return", 300, then=names.append)
    wait_for(lambda: names)
    assert "recording" in bench.obstacle
    bench.turn(ema=0.1)
    wait_for(lambda: "recording" in bench.banner.value)


def test_one_that_follows_and_fails_ends_no_picture(bench: Bench) -> None:
    def fail(_view: object) -> None:
        raise RuntimeError("planted")

    bench.on_view(fail)
    bench.step(3)
    wait_for(lambda: "data-step='3'" in bench.headline.value)
    wait_for(lambda: "planted" in bench.banner.value)


def test_a_full_house_is_told_to_those_who_follow(open_bench: Open) -> None:
    bench, seen = open_bench(house=House(served=True, max_visitors=1), show=FEW), []
    bench._host.desk.enter("another page", None)  # type: ignore[attr-defined]
    bench.on_view(lambda view: seen.append((view, bench.obstacle)))
    bench.browser.query = {}
    wait_for(lambda: seen)
    assert seen[-1][0] is None
    assert "The house is full" in seen[-1][1]
    assert bench.full
    reasons: list[str] = []
    bench.visit("recording: collapse-and-return", otherwise=reasons.append)
    wait_for(lambda: reasons)
    assert "The house is full" in reasons[0]
    # What the round before left: the kernel of a page that waits for a seat must not go round and round.
    bench.publisher.soon = 0.0
    bench.publisher.poke()
    wait_for(lambda: bench.publisher.soon is None, 5.0)


def test_what_a_new_run_begins_as(open_bench: Open) -> None:
    bench = open_bench(show=FEW, config=preset("byol", knobs={"ema": 0.9}))
    bench.browser.query = {}
    wait_for(lambda: bench.store is not None)
    assert bench.store is not None
    config = bench.store.config()
    assert (config.preset, config.knobs.ema) == ("byol", 0.9)


def test_show_needs_no_torch() -> None:
    code = "import sys, lab.show; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
