"""A lesson in process, with a real trainer in a thread: asked, bet, turned, judged from the run's own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.card import Card
from lab.doors import doors
from lab.house import House, digest
from lab.lesson import Lesson
from lab.lessons.collapse import QUESTIONS
from lab.owners import KEEPER
from lab.questions import EFFECTIVE_RANK, LOSS, Leg, Question, Recorded, Start, effective_rank
from lab.show import compact
from ssl_lab import RunStore, Trainer
from ssl_lab.spectrum import Spectrum
from ssl_lab.store import Metrics, open_run
from tests.lab.class_room import say, tell
from tests.lab.conftest import wait_for

SIZES = {
    "width": 4, "projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16, "batch_size": 32, "device": "cpu",
}  # fmt: skip
START = Start(settings=SIZES, legs=(Leg(steps=20),))
SHOW = compact(panels=("f", "effective_rank"), knobs=("predictor", "ema"))
OFF = {"predictor": "none"}


def rose(before: Any, after: Any) -> int:
    was, now = effective_rank(before), effective_rank(after)
    assert was is not None
    assert now is not None
    return int(now > was)


def ask(turn: Any, **fields: Any) -> Question:
    given: dict[str, Any] = {
        "title": "A title", "text": "<p>A question</p>", "answers": ("It falls", "It rises"), "judge": rose,
        "turn": turn, "measures": (EFFECTIVE_RANK, LOSS), "explanation": "<p>Because.</p>", "source": "P",
        "start": START, "steps": 30, "panels": ("f",), **fields,
    }  # fmt: skip
    return Question(**given)


FIRST, BACK, EMA = ask(OFF), ask({"predictor": "directpred"}, start=START.then(OFF, 30)), ask({"ema": 0.0})


@pytest.fixture
def open_lesson(tmp_path: Path) -> Iterator[Callable[..., Lesson]]:
    lessons: list[Lesson] = []

    def make(*questions: Question, trainer: Trainer | None = None, **options: Any) -> Lesson:
        lesson = Lesson(questions, show=SHOW, trainer=trainer, results=tmp_path, **options)
        lessons.append(lesson)
        return lesson

    yield make
    for lesson in lessons:
        lesson.close()


@pytest.fixture
def lesson(open_lesson: Callable[..., Lesson]) -> Lesson:
    """At the first of three questions, with its run ready."""
    lesson = open_lesson(FIRST, BACK, EMA, trainer=Trainer(START.config()))
    wait_for(lambda: "is ready" in words(lesson))
    return lesson


def words(lesson: Lesson) -> str:
    return str(lesson.card.going["words"])


def trouble(lesson: Lesson) -> str:
    return str(lesson.card.going["trouble"])


def buttons(lesson: Lesson) -> list[str]:
    return [button["do"] for button in lesson.card.going["buttons"]]


def press(lesson: Lesson, **content: Any) -> None:
    """As the page sends it."""
    say(lesson.card, {**content, "at": lesson.card.state["at"]})


def bet(lesson: Lesson, answer: int) -> None:
    press(lesson, bet=answer)
    wait_for(lambda: lesson.card.state["bet"] == answer)


def judged(lesson: Lesson) -> Any:
    return wait_for(lambda: lesson.card.state["stage"] == "verdict" and lesson.card.state["verdict"])


def measured(store: RunStore, before: int, after: int) -> str:
    """The verdict's numbers, from the file."""
    old, new = store.newest_spectrum(upto=before), store.newest_spectrum(upto=after)
    first, last = store.metrics(upto=before), store.metrics(upto=after)
    assert old
    assert new
    assert first
    assert last
    text = (
        f"effective rank of F {old.spectrum.effective_rank:.2f} → {new.spectrum.effective_rank:.2f}; "
        f"loss {first.loss:.2f} → {last.loss:.2f}"
    )
    return text.replace("-", "−")


def test_from_the_bet_to_the_next_question(lesson: Lesson, tmp_path: Path) -> None:
    bench = lesson.bench
    store = bench.store
    assert store is not None
    assert store.last_step() == 20
    assert lesson.card.state["answers"] == ["It falls", "It rises"]
    assert lesson.card.state["verdict"] == lesson.card.state["why"] == ""
    # Nothing is marked on the controls before the bet.
    assert "ssl-asked" not in bench.knobs.controls["predictor"].widget._dom_classes
    assert "ssl-look" in bench.panels[0].widget._dom_classes
    bet(lesson, 1)
    wait_for(lambda: buttons(lesson)[:1] == ["turn"])
    assert "mode</b> (Predictor) to <b>none" in lesson.card.state["ask"]
    wait_for(lambda: "ssl-asked" in bench.knobs.controls["predictor"].widget._dom_classes)
    press(lesson, do="turn")
    press(lesson, do="turn")
    verdict = judged(lesson)
    # Exactly so many steps, by one turn, on record as if a person had made it.
    (event,) = store.events()
    assert (event.step, event.changes, event.origin) == (20, OFF, "page")
    wait_for(lambda: store.status().state == "paused")
    assert store.last_step() == 50
    assert measured(store, 20, 50) in verdict
    old, new = store.newest_spectrum(upto=20), store.newest_spectrum(upto=50)
    assert old
    assert new
    assert new.step == 50
    came = int(new.spectrum.effective_rank > old.spectrum.effective_rank)
    assert lesson.card.state["came"] == came
    assert f"So: <b>{FIRST.answers[came]}" in verdict
    assert ("You bet on that." in verdict) == (came == 1)
    assert "Because." in lesson.card.state["why"]
    assert "Measured in directpred-1" in lesson.card.said
    assert "ssl-asked" not in bench.knobs.controls["predictor"].widget._dom_classes

    # The next question goes on where this one ended; no run is made for it.
    press(lesson, do="next")
    wait_for(lambda: lesson.card.state["at"] == 1 and "is ready" in words(lesson))
    assert bench.store is store
    # The third starts where the first did: a fork from there.
    press(lesson, go=2)
    wait_for(lambda: lesson.card.state["at"] == 2 and "directpred-1-fork-1" in words(lesson))
    wait_for(lambda: "is ready" in words(lesson))
    with open_run("directpred-1-fork-1", tmp_path, readonly=True) as fork:
        assert fork.parent is not None
        assert (fork.parent.name, fork.last_step(), fork.events()) == ("directpred-1", 20, [])
    # Back: what came out is still there.
    press(lesson, go=0)
    wait_for(lambda: lesson.card.state["at"] == 0)
    assert lesson.card.state["verdict"] == verdict
    press(lesson, do="over")
    wait_for(lambda: lesson.card.state["judged"] == [] and "is ready" in words(lesson))


def test_a_start_with_a_turn_in_it_is_made(lesson: Lesson) -> None:
    """Straight to the second question: its run is trained, turned and trained again."""
    press(lesson, go=1)
    wait_for(lambda: lesson.card.state["at"] == 1 and "is ready" in words(lesson))
    store = lesson.bench.store
    assert store is not None
    assert [(event.step, event.changes) for event in store.events()] == [(20, OFF)]
    assert store.last_step() == 50
    bet(lesson, 1)
    press(lesson, do="turn")
    verdict = judged(lesson)
    assert measured(store, 50, 80) in verdict


def test_a_knob_that_is_turned_by_hand(lesson: Lesson) -> None:
    bet(lesson, 0)
    lesson.bench.knobs.controls["predictor"].control.value = "linear"
    wait_for(lambda: "It stands at one layer now, and the question asks for none" in words(lesson))
    lesson.bench.knobs.controls["predictor"].control.value = "none"
    verdict = judged(lesson)
    store = lesson.bench.store
    assert store is not None
    assert measured(store, 20, 50) in verdict
    assert [event.changes for event in store.events()] == [{"predictor": "linear"}, OFF]


def test_a_run_that_goes_on_by_itself_is_judged_at_the_step(lesson: Lesson) -> None:
    bet(lesson, 0)
    store = lesson.bench.store
    assert store is not None
    # At full speed so small a run goes through all 30 steps from one spectrum to the next.
    lesson.bench.speed(40.0)
    lesson.bench.run()
    wait_for(lambda: store.last_step() > 40)
    press(lesson, do="turn")
    verdict = judged(lesson)
    (event,) = store.events()
    assert measured(store, event.step, event.step + 30) in verdict
    # The pictures stay where the verdict is from.
    wait_for(lambda: store.status().state == "paused")


def test_who_makes_no_bet_is_left_alone(lesson: Lesson) -> None:
    """A lecturer turns knobs and presses Run; the questions do not meddle."""
    store = lesson.bench.store
    assert store is not None
    lesson.bench.turn(**OFF)
    wait_for(lambda: "Watching: step 0 of 30" in words(lesson))
    wait_for(lambda: lesson.bench.headline.value)
    assert store.waiting() == []
    assert store.last_step() == 20
    lesson.bench.speed(40.0)
    lesson.bench.run()
    verdict = judged(lesson)
    assert "You bet" not in verdict
    assert measured(store, 20, 50) in verdict
    stood = store.last_step()
    wait_for(lambda: store.last_step() > stood + 20)
    lesson.bench.pause()


def test_something_else_is_turned(lesson: Lesson, tmp_path: Path) -> None:
    bet(lesson, 0)
    lesson.bench.turn(ema=0.5)
    wait_for(lambda: "At step 20 something else was turned: ema 0.996 → 0.5" in trouble(lesson))
    assert buttons(lesson)[0] == "anew"
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson) and "fork" in words(lesson))
    assert lesson.card.state["bet"] is None
    store = lesson.bench.store
    assert store is not None
    assert (store.last_step(), store.events(), store.status().knobs.ema) == (20, [], 0.996)
    # While it is watched, too.
    bet(lesson, 0)
    press(lesson, do="turn")
    lesson.bench.speed(5.0)
    wait_for(lambda: "Watching: step" in words(lesson))
    lesson.bench.turn(lr=0.1)
    wait_for(lambda: "something else was turned: lr 0.03 → 0.1" in trouble(lesson))


def test_a_run_that_fails(lesson: Lesson) -> None:
    bet(lesson, 0)
    trainer: Any = lesson.bench._host.trainer  # type: ignore[attr-defined]

    def fail() -> None:
        raise RuntimeError("planted")

    trainer.step = fail
    press(lesson, do="turn")
    wait_for(lambda: "The run failed." in trouble(lesson) and "planted" in trouble(lesson))
    del trainer.step
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson))


def left(folder: Path, name: str, steps: int, *, turned: int | None = None) -> None:
    """A run that is done after so many steps, with one spectrum, of step 20."""
    s = 0.5 ** np.arange(8)
    made = Spectrum(f_eigenvalues=s, wp_eigenvalues=s, alignment=s, wp_diagonal=s, asymmetry=0.5, effective_rank=2.0)
    with RunStore.create(name, START.config(), folder) as store:
        store.add_metrics(Metrics(step, 0.1, -1.0, 0.0) for step in range(1, steps + 1))
        store.add_spectrum(20, 0.1, made)
        if turned is not None:
            store.add_event(turned, {"predictor": "directpred"}, OFF, "page")
        store.set_status(state="done", step=steps)


def test_a_run_that_ends_before_the_question_does(lesson: Lesson, tmp_path: Path) -> None:
    left(tmp_path, "short", 11)
    left(tmp_path, "shorter", 30)
    left(tmp_path, "shortest", 30, turned=20)
    for name, steps in (("short", 11), ("shorter", 30), ("shortest", 30)):
        lesson.bench.visit(name)
        wait_for(lambda n=name, s=steps: f"{n} is done at step {s} and goes no further" in trouble(lesson))  # type: ignore[misc]
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson))
    assert lesson.bench.store is not None
    assert lesson.bench.store.parent is None


def test_a_run_that_went_on_for_long(lesson: Lesson, tmp_path: Path) -> None:
    left(tmp_path, "long", 1100)
    lesson.bench.visit("long")
    wait_for(lambda: "The run has come to step 1,100, too far from step 20" in trouble(lesson))
    assert buttons(lesson)[0] == "anew"


def test_no_verdict_by_what_was_before_the_turn(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.lesson.PATIENCE", 0.1)
    left(tmp_path, "wide", 60, turned=20)
    lesson.bench.visit("wide")
    wait_for(lambda: "No spectrum was recorded from step 20 to 50: there is no verdict" in trouble(lesson))
    assert lesson.verdicts == {}
    assert lesson._awaited > 0
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson))
    assert lesson._awaited == 0.0


def test_a_person_s_pause_counts(lesson: Lesson) -> None:
    bet(lesson, 0)
    lesson.bench.speed(10.0)
    press(lesson, do="turn")
    wait_for(lambda: "Watching: step" in words(lesson) and (lesson.card.going["share"] or 0) > 0)
    lesson.bench.pause()
    wait_for(lambda: buttons(lesson)[:1] == ["on"])
    lesson.bench.speed(None)
    press(lesson, do="on")
    judged(lesson)


def test_another_run_on_the_page(lesson: Lesson) -> None:
    lesson.bench.visit("recording: collapse-and-return")
    wait_for(lambda: "collapse-and-return, which is on the page, is not a run of this question" in trouble(lesson))
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson))


def test_a_question_that_turns_nothing(open_lesson: Callable[..., Lesson]) -> None:
    lesson = open_lesson(ask({}), trainer=Trainer(START.config()))
    wait_for(lambda: "is ready" in words(lesson))
    bet(lesson, 0)
    wait_for(lambda: lesson.card.going["buttons"][0]["words"] == "Go on for 30 steps")
    press(lesson, do="turn")
    verdict = judged(lesson)
    assert lesson.bench.store is not None
    assert lesson.bench.store.events() == []
    assert measured(lesson.bench.store, 20, 50) in verdict


RECORDED = Recorded(key="recording: collapse-and-return", before=300, after=600)


def test_a_question_asked_of_a_recording(open_lesson: Callable[..., Lesson], tmp_path: Path) -> None:
    """Nothing is stepped, and no run is made."""
    lesson = open_lesson(ask(OFF, start=None, recorded=RECORDED))
    lesson.bench.browser.query = {}
    wait_for(lambda: words(lesson) == "A recording, at step 300.")
    assert lesson.bench.timeline.step == 300
    bet(lesson, 0)
    wait_for(lambda: buttons(lesson)[:1] == ["play"])
    press(lesson, do="play")
    seen = set()
    wait_for(lambda: seen.add(lesson.bench.timeline.step) or lesson.card.state["stage"] == "verdict")
    assert len([step for step in seen if 300 < step < 600]) > 3
    assert lesson.bench.store is not None
    assert measured(lesson.bench.store, 300, 600) in lesson.card.state["verdict"]
    assert list(tmp_path.glob("*/run.sqlite")) == []


def test_who_takes_the_bar_in_hand_stops_the_recording(open_lesson: Callable[..., Lesson]) -> None:
    lesson = open_lesson(ask(OFF, start=None, recorded=RECORDED))
    lesson.bench.browser.query = {}
    wait_for(lambda: words(lesson) == "A recording, at step 300.")
    bet(lesson, 0)
    wait_for(lambda: buttons(lesson)[:1] == ["play"])
    press(lesson, do="play")
    wait_for(lambda: lesson.bench.timeline.step > 300)
    lesson.bench.timeline.step = 310
    wait_for(lambda: lesson._playing is None and "step 10 of 300" in words(lesson))
    assert lesson.bench.timeline.step == 310
    assert buttons(lesson) == ["play"]


def test_from_the_run_to_the_recording_and_back(open_lesson: Callable[..., Lesson]) -> None:
    lesson = open_lesson(ask(OFF, recorded=RECORDED), trainer=Trainer(START.config()))
    wait_for(lambda: "is ready" in words(lesson))
    press(lesson, do="record")
    wait_for(lambda: words(lesson) == "A recording, at step 300.")
    # The bar does as well as the button.
    bet(lesson, 0)
    lesson.bench.timeline.step = 700
    judged(lesson)
    press(lesson, do="anew")
    wait_for(lambda: "is ready" in words(lesson))
    assert lesson.bench.store is not None
    assert lesson.bench.store.name.startswith("directpred-1")


def test_who_may_not_steer_is_told_and_gets_a_run_of_their_own(
    open_lesson: Callable[..., Lesson], tmp_path: Path
) -> None:
    theirs = RunStore.create("theirs", START.config(), tmp_path)
    theirs.set_meta(KEEPER, digest("somebody else"))
    theirs.close()
    lesson = open_lesson(FIRST, house=House(served=True, own_only=True))
    tell(lesson.bench.browser, key="mine", query={"run": "theirs"})
    wait_for(lambda: "somebody else's" in trouble(lesson))
    assert buttons(lesson)[0] == "anew"
    press(lesson, do="turn")
    with open_run("theirs", tmp_path, readonly=True) as store:
        assert store.waiting() == []


def test_a_full_house(open_lesson: Callable[..., Lesson]) -> None:
    house = House(served=True, max_visitors=1)
    first = open_lesson(ask(OFF, start=None, recorded=RECORDED), house=house)
    first.bench._host.desk.enter("another page", None)  # type: ignore[attr-defined]
    first.bench.browser.query = {}
    wait_for(lambda: "The house is full" in trouble(first))
    press(first, bet=0)
    assert first.card.state["bet"] is None


def test_no_room_for_another_run(open_lesson: Callable[..., Lesson], tmp_path: Path) -> None:
    with RunStore.create("mine-1", Start(preset="byol").config(), tmp_path) as store:
        store.set_meta(KEEPER, digest("mine"))
        store.set_status(state="done")
    lesson = open_lesson(FIRST, house=House(max_runs=1))
    tell(lesson.bench.browser, key="mine", query={"run": "mine-1"})
    wait_for(lambda: "is not a run of this question" in trouble(lesson))
    press(lesson, do="anew")
    wait_for(lambda: "a visitor may keep 1 here. Delete one on the shelf" in trouble(lesson))
    assert lesson.bench.shelf is not None
    assert buttons(lesson) == ["anew"]
    assert [path.parent.name for path in tmp_path.glob("*/run.sqlite")] == ["mine-1"]


def test_hostile_messages_change_nothing(lesson: Lesson) -> None:
    before = dict(lesson.card.state)
    for content in (
        None, 7, [], {}, {"bet": 9}, {"bet": -1}, {"bet": True}, {"bet": "0"}, {"go": 3}, {"go": None}, {"do": 4},
        {"do": "close"}, {"do": ["turn"]}, {"do": "turn"}, {"do": "play"}, {"do": "x" * 10**6},
    ):  # fmt: skip
        say(lesson.card, {"at": 0, **content} if isinstance(content, dict) else content)
    # Of a question that is gone.
    say(lesson.card, {"at": 2, "bet": 0})
    done: list[int] = []
    lesson.bench.do(lambda: done.append(1))
    wait_for(lambda: done)
    assert lesson.card.state == before
    assert lesson.bench.store is not None
    assert lesson.bench.store.events() == []
    assert doors(lesson.card) == {}
    tell(lesson.card, state={"at": 1}, going={}, said="x")
    assert lesson.card.state == before
    assert isinstance(lesson.card, Card)


def test_the_lesson_that_comes_with_the_lab_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from lab.lessons.collapse import collapse; "
        f"lesson = collapse(results={str(tmp_path)!r}); lesson.close(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(QUESTIONS) == 5
