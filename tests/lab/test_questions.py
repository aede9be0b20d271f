"""Where a run stands in a question: read from a real recording, and from what its file could have held instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.catalogue import recordings
from lab.lessons.collapse import COLLAPSED, QUESTIONS, TRAINED, fate, survives
from lab.questions import (
    EFFECTIVE_RANK,
    LOSS,
    Leg,
    Question,
    Start,
    by_threshold,
    effective_rank,
    locate,
    turn_in_words,
)
from lab.view import RunView, ViewReader
from ssl_lab.errors import KnobError
from ssl_lab.store import Event, RunStore


@pytest.fixture(scope="module")
def reader() -> Iterator[ViewReader]:
    (path,) = (path for path in recordings() if path.stem == "collapse-and-return")
    store = RunStore.open(path, readonly=True)
    yield ViewReader(store)
    store.close()


@pytest.fixture(scope="module")
def recorded(reader: ViewReader) -> RunView:
    """Predictor off at 300, on again at 600, 900 steps."""
    return reader.read()


def question(turn: dict[str, Any], **fields: Any) -> Question:
    given: dict[str, Any] = {
        "title": "?", "text": "?", "answers": ("a", "b"), "judge": lambda _before, _after: 0, "measures": (),
        "explanation": "", "source": "", "start": TRAINED, "turn": turn, **fields,
    }  # fmt: skip
    return Question(**given)


def at(view: RunView, step: int, *turns: tuple[int, dict[str, Any]]) -> RunView:
    """The same run, had it come so far and been turned so."""
    knobs, events = view.config.knobs, []
    for number, (when, changes) in enumerate(turns, 1):
        before = {name: getattr(knobs, name) for name in changes}
        events.append(Event(number, when, 0.0, changes, before, "page"))
        knobs = knobs.changed(changes)
    return replace(view, events=events, last=step, status=replace(view.status, step=step, knobs=knobs))


OFF = {"predictor": "none"}
ASKED = question(OFF)


def test_the_recording_answers_the_first_two_questions(recorded: RunView, reader: ViewReader) -> None:
    first, second = QUESTIONS[:2]
    place = locate(first, recorded)
    assert (place.kind, place.before, place.since, place.goal, place.seen) == ("done", 300, 300, 600, 1)
    before, after = reader.read(300), reader.read(600)
    assert fate(before, after) == first.usual == 0
    assert EFFECTIVE_RANK.say(before, after) == "effective rank of F 7.15 → 1.85"
    assert LOSS.say(before, after).startswith("loss −1.")
    place = locate(second, recorded)
    assert (place.kind, place.before, place.goal, place.seen) == ("done", 600, 900, 2)
    assert survives(after, reader.read(900)) == second.usual == 1
    for asked in (first, second):
        assert asked.recorded is not None
        assert (asked.recorded.before, asked.recorded.after) == (
            locate(asked, recorded).before,
            locate(asked, recorded).goal,
        )


@pytest.mark.parametrize(
    ("step", "turns", "kind"),
    [
        (0, [], "getting"),
        (199, [], "getting"),
        (200, [], "ready"),
        (700, [], "ready"),
        (200, [(200, OFF)], "watching"),
        (499, [(200, OFF)], "watching"),
        (500, [(200, OFF)], "done"),
        (800, [(500, OFF)], "done"),
        (150, [(150, OFF)], "astray"),
        (200, [(200, {"ema": 0.5})], "astray"),
        (200, [(200, {"predictor": "linear"})], "halfway"),
        (300, [(200, {"predictor": "linear"}), (240, OFF)], "watching"),
        (300, [(200, OFF), (240, {"lr": 0.1})], "astray"),
        (300, [(200, OFF), (240, {"predictor": "directpred"})], "astray"),
        (900, [(200, OFF), (500, {"lr": 0.1})], "done"),
        (900, [(200, OFF), (499, {"lr": 0.1})], "astray"),
        # Dragged past the wanted value, and back to it.
        (200, [(200, OFF), (200, {"predictor": "linear"})], "halfway"),
        (200, [(200, OFF), (200, {"predictor": "linear"}), (200, OFF)], "watching"),
        (200, [(200, OFF), (200, {"lr": 0.1})], "astray"),
        # Left on its way, and begun or turned too late.
        (1200, [], "ready"),
        (1201, [], "astray"),
        (1300, [(1200, OFF)], "watching"),
        (1300, [(1201, OFF)], "astray"),
        (400, [(200, {"predictor": "linear"})], "halfway"),
        (401, [(200, {"predictor": "linear"})], "astray"),
        (600, [(200, {"predictor": "linear"}), (400, OFF)], "watching"),
        (600, [(200, {"predictor": "linear"}), (401, OFF)], "astray"),
    ],
)
def test_where_a_run_stands(recorded: RunView, step: int, turns: list[Any], kind: str) -> None:
    assert locate(ASKED, at(recorded, step, *turns)).kind == kind


def test_what_the_place_says(recorded: RunView) -> None:
    place = locate(ASKED, at(recorded, 260, (200, {"predictor": "linear"}), (240, OFF)))
    # Before is before anything was touched; steps are counted from when it was as it should be.
    assert (place.before, place.since, place.goal, place.seen) == (200, 240, 540, 2)
    place = locate(ASKED, at(recorded, 300, (200, OFF), (240, {"lr": 0.1})))
    assert place.event is not None
    assert (place.event.number, place.event.changes) == (2, {"lr": 0.1})
    assert locate(ASKED, at(recorded, 120)).goal == 200
    place = locate(ASKED, at(recorded, 1300))
    assert place.event is None
    assert "has come to step 1,300, too far from step 200" in place.why
    place = locate(ASKED, at(recorded, 600, (200, {"predictor": "linear"}), (500, OFF)))
    assert place.event is None
    assert "while it was turned" in place.why


def test_two_knobs_are_two_turns_in_any_order(recorded: RunView) -> None:
    both = question({"ema": 0.0, "symmetry": "hard"})
    one = at(recorded, 260, (200, {"symmetry": "hard"}))
    assert locate(both, one).kind == "halfway"
    place = locate(both, at(recorded, 260, (200, {"symmetry": "hard"}), (230, {"ema": 0.5}), (250, {"ema": 0.0})))
    assert (place.kind, place.before, place.since) == ("watching", 200, 250)


def test_a_question_that_goes_on_where_another_ended(recorded: RunView) -> None:
    back = question({"predictor": "directpred"}, start=TRAINED.then(OFF, 300))
    assert locate(back, at(recorded, 450, (200, OFF))).kind == "getting"
    assert locate(back, at(recorded, 200)).turn == OFF
    assert locate(back, at(recorded, 500, (200, OFF))).kind == "ready"
    assert locate(back, at(recorded, 500, (200, OFF), (400, {"predictor": "directpred"}))).kind == "astray"
    place = locate(back, at(recorded, 800, (200, OFF), (500, {"predictor": "directpred"})))
    assert (place.kind, place.before, place.goal) == ("done", 500, 800)


def test_a_question_that_turns_nothing(recorded: RunView) -> None:
    wait = question({}, steps=100)
    assert locate(wait, at(recorded, 200)).kind == "ready"
    assert locate(wait, at(recorded, 250), begun=210).kind == "watching"
    assert locate(wait, at(recorded, 310), begun=210).kind == "done"
    assert locate(wait, at(recorded, 5000), begun=210).kind == "done"
    assert locate(wait, at(recorded, 5000)).kind == "astray"
    # What was begun of one question says nothing of another on the same run.
    assert locate(ASKED, at(recorded, 5000), begun=210).kind == "astray"
    assert locate(wait, at(recorded, 310, (250, OFF)), begun=210).kind == "astray"


def test_a_run_that_began_otherwise(recorded: RunView) -> None:
    assert locate(question(OFF, start=Start(preset="byol")), recorded).kind == "elsewhere"
    other = replace(recorded, config=recorded.config.model_copy(update={"seed": 9, "device": "cuda"}))
    assert locate(ASKED, at(other, 200)).kind == "ready"


def test_a_question_says_what_it_cannot_be() -> None:
    with pytest.raises(KnobError, match="'tau'"):
        question({"tau": 1})
    with pytest.raises(ValueError, match="neither a start nor a recording"):
        question(OFF, start=None)


def test_words() -> None:
    assert turn_in_words({"predictor": "linear"}) == "<b>mode</b> (Predictor) to <b>one layer</b>"
    assert turn_in_words({"ema": 0.0, "stop_gradient": False}) == (
        "<b>EMA rate</b> (Target) to <b>0</b> and <b>stop-gradient</b> (Target) to <b>off</b>"
    )


def test_judging_by_thresholds(recorded: RunView, reader: ViewReader) -> None:
    judge = by_threshold(effective_rank, 3.0, 6.0)
    assert [judge(recorded, reader.read(step)) for step in (600, 900, 300)] == [0, 1, 2]
    nothing = replace(recorded, newest=None)
    assert judge(recorded, nothing) is None
    assert fate(nothing, recorded) is None
    assert EFFECTIVE_RANK.say(nothing, nothing) == "effective rank of F ? → ?"


def test_the_lesson_s_questions_are_whole() -> None:
    assert Leg(steps=1).turn == {}
    assert 1 < COLLAPSED < 6
    for asked in QUESTIONS:
        assert asked.usual in range(len(asked.answers))
        assert "Seeds 0 to 4" in asked.typical
        assert "arxiv.org/abs/2102.06810" in asked.source
        assert "ssl-equation" in asked.explanation
