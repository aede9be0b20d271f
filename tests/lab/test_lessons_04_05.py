"""The lessons on alignment and on setting the predictor: what they say is what the files hold."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.catalogue import recordings
from lab.lesson import Lesson
from lab.lessons import alignment as four
from lab.lessons import direct as five
from lab.questions import Leg, Start
from lab.view import RunView, ViewReader
from ssl_lab import RunStore, Trainer, preset
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import open_run
from tests.lab.class_room import say
from tests.lab.conftest import wait_for
from tests.lab.test_lesson import SIZES

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., Any]


@pytest.fixture
def open_lesson(tmp_path: Path) -> Iterator[Open]:
    lessons: list[Lesson] = []

    def make(kind: Callable[..., Lesson], **options: Any) -> Lesson:
        lesson = kind(results=tmp_path, **options)
        lessons.append(lesson)
        lesson.bench.start()
        return lesson

    yield make
    for lesson in lessons:
        lesson.close()


def press(lesson: Lesson, **content: Any) -> None:
    """As the page sends it."""
    say(lesson.card, {**content, "at": lesson.card.state["at"]})


def bet(lesson: Lesson, answer: int) -> None:
    press(lesson, bet=answer)
    wait_for(lambda: lesson.card.state["bet"] == answer)


def judged(lesson: Lesson) -> Any:
    return wait_for(lambda: lesson.card.state["stage"] == "verdict" and lesson.card.state, 180)


def view_of(tmp_path: Path, name: str, *, aligned: Any = (), d: int = 20, asymmetry: float = 0.5) -> RunView:
    """A run of one spectrum, whose directions with these places are aligned."""
    cosines = np.zeros(d)
    cosines[list(aligned)] = 0.95
    s = 0.5 ** np.arange(d)
    made = Spectrum(
        f_eigenvalues=s, wp_eigenvalues=s, alignment=cosines, wp_diagonal=s, asymmetry=asymmetry, effective_rank=2.0
    )
    with RunStore.create(name, preset("byol"), tmp_path) as store:
        store.add_spectrum(1, 0.1, made)
        store.set_status(step=1)
        return ViewReader(store).read()


# ------------------------------------------------------------------ judges


def test_which_directions_are_aligned(tmp_path: Path) -> None:
    def judge(name: str, aligned: Any) -> int | None:
        view = view_of(tmp_path, name, aligned=aligned)
        return four.largest_first(view, view)

    assert judge("large", (0, 1, 3)) == 0
    assert judge("small", (19, 16)) == 1
    assert judge("all-over", (0, 10, 19)) == 2
    assert judge("too-few", (0,)) is None


def test_how_asymmetry_moves(tmp_path: Path) -> None:
    half, low, high, none = (
        view_of(tmp_path, f"a{number}", asymmetry=value) for number, value in enumerate((0.5, 0.3, 0.9, 0.0))
    )
    assert four.asymmetry_moves(half, low) == 0
    assert four.asymmetry_moves(half, high) == 1
    assert four.asymmetry_moves(half, half) == 2
    assert four.asymmetry_moves(none, low) is None


def test_who_wins_the_race() -> None:
    assert five.winner([3.0, 3.1, 1.1, 1.8], None) == 1
    assert five.winner([3.0, 3.1, 1.1, 1.8], 0) == 0  # As good, but for a tenth.
    assert five.winner([3.0, 3.1, 1.1, 1.8], 3) == 1
    assert five.winner([1.0, 1.0, 5.0, 1.0], 0) == 2


# ------------------------------------------------------------------ 04


def test_every_recording_that_is_asked_about_is_there_and_says_so(open_lesson: Open) -> None:
    """All recorded questions, from the bet to the verdict; what is measured is read from the files again."""
    lesson = open_lesson(four.alignment)
    wait_for(lambda: "A recording" in lesson.card.going["words"])
    assert {key for _, key in lesson.chooser.options} <= {f"recording: {path.stem}" for path in recordings()}
    outcomes = []
    for number, question in enumerate(four.QUESTIONS[:-1]):
        recorded = question.recorded
        assert recorded is not None
        wait_for(lambda n=number: lesson.card.state["at"] == n and "A recording" in lesson.card.going["words"])  # type: ignore[misc]
        assert lesson.bench.shown == lesson.chooser.value == recorded.key
        # Nothing on the page gives the answer away.
        assert lesson.bench.timeline.step == recorded.before
        wait_for(lambda: not seen_ahead(lesson))
        bet(lesson, 0)
        lesson.bench.timeline.step = recorded.after
        outcomes.append(judged(lesson)["came"])
        name = recorded.key.removeprefix("recording: ")
        with RunStore.open(next(p for p in recordings() if p.stem == name), readonly=True) as store:
            spectrum = store.newest_spectrum(upto=recorded.after)
        assert spectrum is not None
        assert f"→ {spectrum.spectrum.aligned}" in lesson.card.state["verdict"]
        press(lesson, do="next")
    assert outcomes == [0, 0, 0, 1]


def test_a_recording_is_chosen(open_lesson: Open) -> None:
    lesson = open_lesson(four.alignment)
    # The question has its own recording on the page; what is chosen before that would be overtaken by it.
    wait_for(lambda: "A recording" in lesson.card.going["words"] and lesson.bench.panels[0].lines.visible)
    before = np.array(lesson.bench.panels[0].lines.y)
    say_index(lesson.chooser, 1)
    wait_for(lambda: lesson.bench.shown == "recording: cifar10-byol-symmetric")
    wait_for(lambda: not np.array_equal(lesson.bench.panels[0].lines.y, before))
    # What the list says follows the page; a page sets nothing else of it.
    lesson.bench.visit("recording: cifar10-simsiam-symmetric")
    wait_for(lambda: lesson.chooser.value == "recording: cifar10-simsiam-symmetric")
    lesson.chooser.set_state({"index": 0, "_options_labels": ["nothing"], "disabled": True})
    wait_for(lambda: lesson.bench.shown == "recording: cifar10-byol")
    assert not lesson.chooser.disabled


def test_what_is_chosen_is_not_set_back(open_lesson: Open) -> None:
    """A picture that goes out before the recording is on the page."""
    lesson = open_lesson(four.alignment)
    wait_for(lambda: "A recording" in lesson.card.going["words"])
    lesson.bench.publisher.stop()
    free: list[bool] = []

    def other_thread(_change: Any) -> None:
        thread = threading.Thread(target=lambda: free.append(lesson._choose_lock.acquire(blocking=False)))
        thread.start()
        thread.join()

    lesson.chooser.observe(other_thread, names="value")
    say_index(lesson.chooser, 1)
    # Nobody else writes the list while a page's word is taken in.
    assert free == [False]
    lesson._on_view(lesson._view)
    assert lesson.chooser.value == "recording: cifar10-byol-symmetric"
    lesson.bench._tick(True)
    assert lesson.bench.shown == lesson.chooser.value == "recording: cifar10-byol-symmetric"


def seen_ahead(lesson: Lesson) -> list[Any]:
    """Pictures that show what came later."""
    return [panel for panel in lesson.bench.panels if getattr(panel, "later", None) and panel.later.visible]  # type: ignore[attr-defined]


def say_index(chooser: Any, index: int) -> None:
    """As a page sets a list."""
    chooser.set_state({"index": index})


def test_images_that_are_not_here_are_no_fork(open_lesson: Open) -> None:
    lesson = open_lesson(four.alignment)
    wait_for(lambda: "Its images are not here" in lesson.bench.banner.value)
    say(lesson.bench.timeline, {"do": "fork", "step": 312})
    wait_for(lambda: "which are not here" in lesson.bench.banner.value)


# ------------------------------------------------------------------ 05


@pytest.fixture
def small_race(monkeypatch: pytest.MonkeyPatch) -> five.Question:
    """The race with small networks and few steps."""
    start = Start(preset="byol-one-layer", settings=SIZES, legs=(Leg(steps=20),))
    race = replace(five.RACE, start=start, steps=30)
    monkeypatch.setattr(five, "RACE", race)
    monkeypatch.setattr(five, "STEPS", 30)
    monkeypatch.setattr(five, "QUESTIONS", (race, *five.QUESTIONS[1:]))
    return race


def offered(lesson: Lesson) -> list[str]:
    return [button["do"] for button in lesson.card.going["buttons"]]


def test_four_forks_of_one_moment(small_race: Any, open_lesson: Open, tmp_path: Path) -> None:
    lesson = open_lesson(five.direct, trainer=Trainer(small_race.start.config()))
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    root = lesson.bench.shown
    # Without a bet no fork is made.
    press(lesson, do="fork-directpred")
    assert offered(lesson) == []
    bet(lesson, 2)
    wait_for(lambda: "fork-all" in offered(lesson))
    press(lesson, do="fork-least-squares")
    wait_for(lambda: 2 in lesson.done)
    wait_for(lambda: offered(lesson) == ["fork-directpred", "fork-directcopy", "fork-trained", "fork-all"])
    press(lesson, do="fork-all")
    said = judged(lesson)
    assert set(lesson.forks) == {0, 1, 2, 3}
    ranks = []
    for number, arm in enumerate(five.ARMS):
        with open_run(lesson.forks[number], tmp_path, readonly=True) as store:
            parent = store.parent
            assert parent is not None
            assert (parent.name, parent.step) == (root, 20)
            events = store.events()
            assert [(e.step, {k: v for k, v in arm.knobs.items() if k in e.changes}) for e in events] == (
                [(20, dict(events[0].changes))] if arm.knobs else []
            )
            record = store.newest_spectrum(upto=50)
            assert record is not None
            assert record.step == 50
            ranks.append(record.spectrum.effective_rank)
            assert f"{arm.words} {record.spectrum.effective_rank:.2f}" in said["verdict"]
    assert said["came"] == five.winner(ranks, 2)
    # All four are on the page.
    assert len(lesson.bench._compared) == 3
    assert sorted([lesson.bench.shown, *lesson.bench._compared]) == sorted(lesson.forks.values())


def test_a_fork_in_which_something_else_is_turned_does_not_count(small_race: Any, open_lesson: Open) -> None:
    lesson = open_lesson(five.direct, trainer=Trainer(small_race.start.config()))
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    bet(lesson, 0)
    lesson.bench.speed(20)
    wait_for(lambda: "fork-all" in offered(lesson))
    press(lesson, do="fork-directpred")
    wait_for(lambda: 0 in lesson.forks and lesson.bench.shown == lesson.forks[0])
    lesson.bench.turn(eps=0.9)
    wait_for(lambda: "does not compare" in lesson.card.going["trouble"])
    assert lesson.done == set()
    press(lesson, do="anew")
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    assert lesson.forks == {}


def test_a_fork_counts_when_its_last_spectrum_is_there(small_race: Any, open_lesson: Open) -> None:
    lesson = open_lesson(five.direct, trainer=Trainer(small_race.start.config()))
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    bet(lesson, 0)
    wait_for(lambda: "fork-all" in offered(lesson))
    lesson._measured = lambda *_: None
    press(lesson, do="fork-directpred")
    wait_for(lambda: "DirectPred: measuring…" in lesson.card.going["words"])
    assert lesson.done == set()
    del lesson._measured
    wait_for(lambda: lesson.done == {0})


def test_a_race_that_cannot_be_judged(small_race: Any, open_lesson: Open, tmp_path: Path) -> None:
    """A fork that is gone, or that has no spectrum after the moment; and a start that is gone."""
    lesson = open_lesson(five.direct, trainer=Trainer(small_race.start.config()))
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    root = lesson.bench.shown
    for name, why in (("never-was", "never-was"), (root, "has no spectrum up to step 50")):
        bet(lesson, 0)
        wait_for(lambda: "fork-all" in offered(lesson))

        def end(name: str = name) -> None:
            lesson.forks = dict.fromkeys(range(4), name)
            lesson.done.update(range(4))

        lesson.bench.do(end)
        wait_for(lambda w=why: w in lesson.card.going["trouble"])  # type: ignore[misc]
        assert lesson.verdicts == {}
        press(lesson, do="anew")
        wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    bet(lesson, 0)
    wait_for(lambda: "fork-all" in offered(lesson))
    lesson._from = ("gone", 20, 0)
    press(lesson, do="fork-directpred")
    wait_for(lambda: "gone" in lesson.card.going["trouble"])
    assert lesson.forks == {}
    assert [path.parent.name for path in tmp_path.glob("*/run.sqlite")] == [root]


def test_a_fork_that_ends_before_its_goal(small_race: Any, open_lesson: Open) -> None:
    """An epoch is 44 steps here, and a fork is to go on to 50."""
    lesson = open_lesson(five.direct, trainer=Trainer(small_race.start.config().model_copy(update={"epochs": 1})))
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])
    bet(lesson, 0)
    wait_for(lambda: "fork-all" in offered(lesson))
    press(lesson, do="fork-directpred")
    wait_for(lambda: "and goes no further" in lesson.card.going["trouble"])
    press(lesson, do="anew")
    wait_for(lambda: "The run is ready" in lesson.card.going["words"])


# ------------------------------------------------------------------ notebooks


@pytest.mark.parametrize("name", ["04-eigenspace", "05-set-the-predictor"])
def test_a_notebook_is_a_question_a_cell_and_an_answer(name: str) -> None:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "markdown"]
    assert set(notebook["metadata"]["ssl_lab"]) == {"title", "line", "picture"}
    for text in ("".join(cell["source"]) for cell in notebook["cells"]):
        assert "$" not in text  # No equation that a script from elsewhere would have to draw.
