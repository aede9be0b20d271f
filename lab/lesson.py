"""``Lesson``: a bench that asks. Bet on what a knob will do, turn it, and see what came out in the run itself."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from lab.bench import Bench
from lab.card import Card
from lab.doors import is_whole
from lab.house import House
from lab.questions import Place, Question, Start, locate, turn_in_words, value_in_words
from lab.show import Show
from lab.view import RunView
from lab.words import Changes

if TYPE_CHECKING:
    from ssl_lab.trainer import Trainer

PATIENCE = 1.5
"""Seconds for which a run that stands is taken to be starting, and a second press for the first."""

LAST_SPECTRUM = 10.0
"""Most seconds for which the spectrum of the last step is waited for where the run stands at it: it is on its way."""

PLAYING = 4.0
"""Seconds that a recording takes from before to after."""

SLOW = 15.0
"""Steps a second below which the recording is recommended."""


@dataclass(frozen=True)
class Verdict:
    """What came out."""

    outcome: int | None
    measured: str
    """The numbers, in words."""
    where: str
    """Which steps of which run they are of."""


@dataclass(frozen=True)
class Moment:
    """A moment of a run at which a start was reached: other questions may go on from it."""

    key: str
    step: int
    seen: int


class Lesson:
    """Questions beside a bench; display it as the last line of a cell.

    Where a run stands in a question is read from the run's own file, whoever turned its knobs: by hand at the control,
    or the lesson, which only sends what a person could send. A question makes the run that it starts from.

    Args:
        questions: one or more.
        show: the parts of the bench that the page has.
        trainer: steps the first run in this kernel, and others are stepped here too; default the engine process.
        results: folder of all runs, as of the bench.
        house: the rules of the house; default as the kernel's environment says.
        below: what else stands under the card.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        *,
        show: Show,
        trainer: Trainer | None = None,
        results: str | Path | None = None,
        house: House | None = None,
        below: Sequence[w.Widget] = (),
    ) -> None:
        self.questions = tuple(questions)
        self.card = Card()
        self.at = 0
        self.bets: dict[int, int] = {}
        self.verdicts: dict[int, Verdict] = {}
        self._recorded = False
        self._playing: float | None = None
        """When the recording began to move."""
        self._played: int | None = None
        """Where it was last moved to."""
        self._fetching = False
        """Whether a run of the question is on its way to the page."""
        self._failed = ""
        """Why there is none."""
        self._ordered: tuple[Any, ...] = ()
        """What was last asked of the run; asked once, so that a person's Pause counts."""
        self._stood = 0.0
        """Since when the run stands though it was asked to step."""
        self._pressed = float("-inf")
        """When it was last turned for the person: who presses twice means it once."""
        self._awaited = 0.0
        """Since when the last spectrum is waited for."""
        self._begun: dict[str, int] = {}
        """Of questions that turn nothing: the step at which they began, by run."""
        self._moments: dict[str, Moment] = {}
        self._view: RunView | None = None
        self._said = ("", "")
        start = self.questions[0].start
        self.bench = Bench(
            trainer, config=start.config() if start is not None else None, run=self._first_recording(), show=show,
            beside=(self.card, *below), results=results, house=house,
        )  # fmt: skip
        self.card.on_msg(self._on_message)
        self._say(words="Opening…")
        self.bench.on_view(self._on_view)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.bench._repr_mimebundle_(**kwargs)

    def close(self) -> None:
        """Closes the bench and frees the widgets."""
        self.bench.close()
        self.card.close()

    @property
    def question(self) -> Question:
        """The one that is on the page."""
        return self.questions[self.at]

    def _first_recording(self) -> str | None:
        first = self.questions[0]
        return first.recorded.key if first.start is None and first.recorded is not None else None

    # ------------------------------------------------------------ what a person does

    def _on_message(self, _card: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict):
            self.bench.do(lambda: self._act(content))

    def _act(self, content: dict[Any, Any]) -> None:
        """On the publisher's thread: what was pressed on the card; a page may send anything."""
        if content.get("at") != self.at:
            # Pressed on a question that has gone meanwhile.
            return
        if is_whole(bet := content.get("bet"), 0, len(self.question.answers) - 1):
            if self.at not in self.verdicts:
                self.bets.setdefault(self.at, bet)
        elif is_whole(to := content.get("go"), 0, len(self.questions) - 1):
            self._go(to)
        else:
            acts = {
                "turn": self._do_it, "play": self._play, "next": lambda: self._go(self.at + 1), "anew": self._anew,
                "on": self._go_on, "record": self._look_at_recording, "live": self._anew, "over": self._start_over,
            }  # fmt: skip
            act = acts.get(str(content.get("do")))
            if act is not None:
                act()

    def _go(self, to: int) -> None:
        if not 0 <= to < len(self.questions) or to == self.at:
            return
        self.at, self._playing, self._failed, self._awaited = to, None, "", 0.0
        if to not in self.verdicts:
            self._prepare()

    def _anew(self) -> None:
        """The same question once more, from its start."""
        self.bets.pop(self.at, None)
        self.verdicts.pop(self.at, None)
        self._prepare()

    def _start_over(self) -> None:
        self.bets.clear()
        self.verdicts.clear()
        self.at = 0
        self._prepare()

    def _do_it(self) -> None:
        """What the question asks for, in the person's place."""
        view = self._view
        if view is None or self.at not in self.bets or self._recorded:
            return
        place, now = self._place(view), time.monotonic()
        if place.kind not in ("ready", "halfway") or now < self._pressed + PATIENCE:
            return
        self._pressed = now
        if self.question.turn:
            self.bench.turn(**self.question.turn)
        else:
            self._begun[view.id] = view.status.step

    def _go_on(self) -> None:
        """Has a run go on that stands before its goal."""
        self._ordered = ()

    def _play(self) -> None:
        if self._recorded and self._playing is None:
            self._playing, self._played = time.monotonic(), None

    # ------------------------------------------------------------ the run that a question starts from

    def _prepare(self) -> None:
        """Has a run on the page that stands where the question starts, or is on its way there."""
        self._recorded, self._playing, self._failed, self._ordered, self._awaited = False, None, "", (), 0.0
        start, view = self.question.start, self._view
        if start is None:
            self._look_at_recording()
            return
        if view is None and not self.bench.obstacle:
            # The page is just opening: its first run is looked at when it is there.
            return
        if view is not None and not self.bench.obstacle:
            self._begun.pop(view.id, None)
            if view.status.state not in ("done", "failed") and self._place(view).kind in ("ready", "getting"):
                return
        self._fetching = True
        moment = self._moments.get(_key(start))
        if moment is None:
            self._begin(start)
            return
        # Another run is there already: from the moment at which it was where this question starts.
        self.bench.visit(
            moment.key,
            then=lambda _: self.bench.fork(
                moment.step, events=moment.seen, compare=False, then=self._is_there,
                otherwise=lambda _: self._begin(start),
            ),
            otherwise=lambda _: self._begin(start),
        )  # fmt: skip

    def _begin(self, start: Start) -> None:
        self._moments.pop(_key(start), None)
        self.bench.begin(start.config(), then=self._is_there, otherwise=self._could_not)

    def _is_there(self, _name: str) -> None:
        self._fetching = False

    def _could_not(self, why: str) -> None:
        self._fetching, self._failed = False, why

    def _look_at_recording(self) -> None:
        recorded = self.question.recorded
        if recorded is None:
            return
        self._fetching, self._playing, self._failed = True, None, ""

        def there(_name: str) -> None:
            self._fetching, self._recorded = False, True

        self.bench.visit(recorded.key, recorded.before, then=there, otherwise=self._could_not)

    # ------------------------------------------------------------ what the run does

    def _place(self, view: RunView) -> Place:
        return locate(self.question, view, begun=self._begun.get(view.id))

    def _on_view(self, view: RunView | None) -> None:
        self._view = view
        if self.at in self.verdicts:
            self._show_verdict()
        elif self._failed:
            self._say(trouble=self._failed, buttons=[("anew", "Try again", True), *self._ways_out()])
        elif view is None:
            why = self.bench.obstacle
            again = [("anew", "Try again", True)] if why and not self.bench.full else []
            self._say(words="" if why else "Opening…", trouble=why, buttons=again)
        elif self._fetching:
            self._say(words="A run is made ready…")
        elif self.question.start is None and not self._recorded:
            self._look_at_recording()
        elif self._recorded:
            self._follow_recording(view)
        else:
            self._follow(view)

    def _follow(self, view: RunView) -> None:
        place, status = self._place(view), view.status
        name = view.name
        if status.state == "failed":
            self._in_trouble(f"The run failed. {status.message}")
        elif place.kind == "elsewhere":
            self._in_trouble(f"{name}, which is on the page, is not a run of this question.")
        elif place.kind == "astray" and place.event is None:
            self._in_trouble(place.why)
        elif place.kind == "astray":
            assert place.event is not None
            self._in_trouble(
                f"At step {place.event.step:,} something else was turned: {place.event.describe()}. What comes now "
                "does not answer this question. Look at it as long as you like."
            )
        elif status.state == "done" and place.kind != "done":
            if self.question.start is not None:
                # Nor would a fork of it go further.
                self._moments.pop(_key(self.question.start), None)
            self._in_trouble(f"{name} is done at step {status.step:,} and goes no further.")
        elif place.kind == "getting":
            self._get_ready(view, place)
        elif place.kind in ("ready", "halfway"):
            self._await_turn(view, place)
        elif place.kind == "watching":
            self._watch(view, place)
        else:
            self._judge(view, place)

    def _in_trouble(self, words: str) -> None:
        first = "Begin this question anew" if self.at in self.bets else "Make a run ready for this question"
        self._say(trouble=words, buttons=[("anew", first, True), *self._ways_out()])

    def _get_ready(self, view: RunView, place: Place) -> None:
        if obstacle := self.bench.obstacle:
            self._in_trouble(obstacle)
            return
        step = view.status.step
        if step >= place.goal:
            self._order("turn", view, place, lambda: self.bench.turn(**place.turn))
            self._say(words=f"Turned for you: {_plain(turn_in_words(place.turn))}.")
            return
        stands = self._order("step", view, place, lambda: self.bench.step(place.goal - step))
        words = f"Getting the run ready: step {step:,} of {place.goal:,}"
        self._say(words=words, share=step / place.goal, buttons=[*self._on_button(stands), *self._ways_out(skip=False)])

    def _await_turn(self, view: RunView, place: Place) -> None:
        if place.kind == "ready" and self.question.start is not None:
            self._moments.setdefault(_key(self.question.start), Moment(self.bench.shown, view.status.step, place.seen))
        obstacle = self.bench.obstacle
        if self.at not in self.bets:
            words = f"The run is ready: {view.name}, step {view.status.step:,}."
            self._say(words=words, trouble=obstacle, buttons=self._ways_out(skip=False))
            return
        if place.kind == "halfway":
            now = ", ".join(value_in_words(name, getattr(view.status.knobs, name)) for name in self.question.turn)
            words = f"It stands at {now} now, and the question asks for {self._wanted()}."
        else:
            words = f"Waiting for you, at step {view.status.step:,}."
        do = "Do it for me" if self.question.turn else f"Go on for {self.question.steps:,} steps"
        buttons = [("turn", do, True, bool(obstacle))]
        if obstacle:
            words += " Whoever steers this run may turn it."
            buttons.append(("anew", "Begin with a run of my own", False, False))
        self._say(words=words, trouble=obstacle, buttons=[*buttons, *self._ways_out(skip=False)])

    def _watch(self, view: RunView, place: Place) -> None:
        done, steps = view.status.step - place.since, place.goal - place.since
        stands = False
        if self.at in self.bets and not self.bench.obstacle:
            # Without a bet nobody plays: whoever turns knobs here is left alone.
            stands = self._order("step", view, place, lambda: self.bench.step(steps - done))
        words = f"Watching: step {done:,} of {steps:,} after the turn" if self.question.turn else (
            f"Watching: step {done:,} of {steps:,}"
        )  # fmt: skip
        rate = view.status.steps_per_second
        if self.question.recorded and 0 < rate < SLOW:
            words += f". This machine makes {rate:.0f} steps a second; the recording shows it at once."
        self._say(
            words=words, share=done / steps, buttons=[*self._on_button(stands), *self._ways_out(skip=False)],
        )  # fmt: skip

    def _order(self, what: str, view: RunView, place: Place, act: Callable[[], None]) -> bool:
        """Asks something of a run that stands, once; whether it stands all the same."""
        key = (what, view.id, place.kind, place.goal, place.seen)
        if view.status.state not in ("paused", "asleep", "queued"):
            self._stood = 0.0
            return False
        if self._ordered != key:
            self._ordered, self._stood = key, 0.0
            act()
            return False
        store = self.bench.store
        if view.status.state != "paused" or (store is not None and store.waiting()):
            self._stood = 0.0
            return False
        # A view may be older than the answer to what was asked.
        self._stood = self._stood or time.monotonic()
        return time.monotonic() - self._stood > PATIENCE

    def _follow_recording(self, view: RunView) -> None:
        recorded = self.question.recorded
        assert recorded is not None
        if self.bench.shown != recorded.key:
            self._in_trouble(f"{view.name}, which is on the page, is not the recording of this question.")
            return
        step = view.step if view.shown is not None else view.last
        span = recorded.after - recorded.before
        if self.at not in self.bets:
            self._say(words=f"A recording, at step {step:,}.", buttons=self._ways_out(skip=False))
            return
        if self._played not in (None, self.bench.timeline.step):
            # Somebody has taken the bar in hand.
            self._playing = None
        if self._playing is not None:
            gone = min((time.monotonic() - self._playing) / PLAYING, 1.0)
            wanted = recorded.before + round(gone * span)
            if gone >= 1.0:
                self._playing = None
            self.bench.timeline.step = step = self._played = wanted
        if step >= recorded.after:
            self._conclude(view, recorded.before, recorded.after)
        elif step > recorded.before or self._playing is not None:
            done = max(step - recorded.before, 0)
            again = [] if self._playing is not None else [("play", "Show what happened", True)]
            words = f"The recording, step {done:,} of {span:,} after the turn"
            self._say(words=words, share=done / span, buttons=again)
        else:
            self._say(
                words=f"A recording, at step {step:,}.",
                buttons=[("play", "Show what happened", True), *self._ways_out(skip=False)],
            )

    # ------------------------------------------------------------ the verdict

    def _judge(self, view: RunView, place: Place) -> None:
        newest = self._measured(view, place.goal)
        if newest is None:
            self._say(words="Measuring…", share=1.0)
            return
        if newest <= place.since:
            self._in_trouble(
                f"No spectrum was recorded from step {place.since:,} to {place.goal:,}: there is no verdict."
            )
            return
        self._awaited = 0.0
        if self.at in self.bets and view.status.state == "running" and not self.bench.obstacle:
            # So that the pictures stay where the verdict is from.
            self.bench.pause()
        self._conclude(view, place.before, place.goal)

    def _measured(self, view: RunView, goal: int) -> int | None:
        """The step of the newest spectrum up to the goal, -1 for none; None while that of the goal may be to come."""
        newest = self.bench.view_at(goal).newest
        if newest is None or newest.step < goal:
            # A run that has gone on may have none of this very step.
            stands = view.status.state != "running" and view.status.step == goal
            self._awaited = self._awaited or time.monotonic()
            if time.monotonic() - self._awaited < (LAST_SPECTRUM if stands else PATIENCE):
                return None
        return newest.step if newest else -1

    def _conclude(self, view: RunView, before: int, after: int) -> None:
        earlier, later = self.bench.view_at(before), self.bench.view_at(after)
        measured = "; ".join(measure.say(earlier, later) for measure in self.question.measures)
        where = f"{view.name}, steps {before:,} to {after:,}"
        self.verdicts[self.at] = Verdict(self.question.judge(earlier, later), measured, where)
        self._show_verdict()

    def _show_verdict(self) -> None:
        last = self.at == len(self.questions) - 1
        onward = ("over", "Start over", True) if last else ("next", "Next question", True)
        self._say(buttons=[onward, ("anew", "Once more", False)])

    def _verdict_text(self) -> str:
        verdict, bet, answers = self.verdicts[self.at], self.bets.get(self.at), self.question.answers
        mine = "" if bet is None else f"“{html.escape(answers[bet])}”"
        if verdict.outcome is None:
            out = "None of the answers: this run lies between them."
        else:
            came = f"So: <b>{html.escape(answers[verdict.outcome])}</b>."
            out = f"{came} You bet on that." if bet == verdict.outcome else f"{came} You bet {mine}." if mine else came
        usual = self.question.usual
        typical = self.question.typical
        if usual is not None and verdict.outcome != usual:
            typical = f"Yours came out otherwise than those that were tried before. {typical}"
        numbers = f"Measured in {html.escape(verdict.where)}: <b>{html.escape(verdict.measured)}</b>."
        return f"<p>{numbers}</p><p>{out}</p>" + (f"<p>{typical}</p>" if typical else "")

    # ------------------------------------------------------------ what the card says

    def _wanted(self) -> str:
        return " and ".join(value_in_words(name, value) for name, value in self.question.turn.items())

    def _stage(self) -> str:
        if self.at in self.verdicts:
            return "verdict"
        return "turn" if self.at in self.bets else "ask"

    def _ask_text(self) -> str:
        if self._stage() != "turn":
            return ""
        if self._recorded:
            return "<p>Now see what happened in the recording: press <i>Show what happened</i>, or drag the bar.</p>"
        if not self.question.turn:
            return f"<p>Now let it go on for {self.question.steps:,} steps.</p>"
        return f"<p>Now turn {turn_in_words(self.question.turn)} at the control marked ▶, or have it done.</p>"

    def _ways_out(self, *, skip: bool = True) -> list[tuple[str, str, bool]]:
        ways = []
        if self._recorded and self.question.start is not None:
            ways.append(("live", "Do it live instead", False))
        elif self.question.recorded is not None and not self._recorded:
            ways.append(("record", "See it in a recording", False))
        if skip and self.at < len(self.questions) - 1:
            ways.append(("next", "Next question", False))
        return ways

    @staticmethod
    def _on_button(stands: bool) -> list[tuple[str, str, bool]]:
        return [("on", "Go on", True)] if stands else []

    def _say(
        self,
        *,
        words: str = "",
        share: float | None = None,
        trouble: str = "",
        buttons: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        """Writes the card: what is asked, and what is going on."""
        question, stage = self.question, self._stage()
        judged = stage == "verdict"
        verdict = self._verdict_text() if judged else ""
        why = f"{question.explanation}<p class='ssl-source'>{question.source}</p>" if judged else ""
        Changes(self.card).set("state", {
            "at": self.at, "titles": [one.title for one in self.questions], "judged": sorted(self.verdicts),
            "stage": stage, "text": question.text, "answers": list(question.answers), "bet": self.bets.get(self.at),
            "came": self.verdicts[self.at].outcome if judged else None, "locked": stage != "ask",
            "ask": self._ask_text(), "verdict": verdict, "why": why,
        })  # fmt: skip
        shown = [
            {"do": do, "words": label, "first": first, "off": bool(off and off[0])}
            for do, label, first, *off in buttons
        ]
        Changes(self.card).set("going", {"words": words, "share": share, "trouble": trouble, "buttons": shown})
        if self._view is not None:
            turning = stage == "turn" and not self._recorded
            self.bench.point_at(knobs=tuple(question.turn) if turning else (), panels=question.panels)
        self._read_out(stage, words, trouble, verdict)

    def _read_out(self, stage: str, words: str, trouble: str, verdict: str) -> None:
        """What a screen reader is told: when something has come about, and not at each step."""
        # What counts steps is said once.
        phase = re.sub(r"[\d,.]+", "", words)
        key = (stage, verdict or trouble or phase)
        if key != self._said:
            self._said = key
            self.card.said = _plain(verdict) or trouble or words


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))).strip()


def _key(start: Start) -> str:
    return repr(start)
