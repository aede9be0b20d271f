"""The lesson of the theory: questions with a bet, judged by what the flow on the page does, and why it does so.

A question waits until the person has turned what it asks for, notes the modes as they are at that moment, and watches
until they show which of its answers has come true. Nothing knows beforehand which one will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.theory.flow import Flow, Settings, Way, begin, follow

Array = NDArray[np.float64]

DIED = 0.1
"""Share of what a mode was below which it counts as dying, where it does not come back."""

WATCHED = 60.0
"""Time after which what has not happened is taken not to happen; or sooner, if all is at rest."""

SLOW = 0.05
"""An EMA rate that counts as slow."""

THERE = 1e-6
"""Eigenvalue s above which a mode is not dead yet."""

ALIVE = 0.01
"""Eigenvalue s from which on a mode is there to be lost."""


@dataclass(frozen=True, eq=False)
class Mark:
    """The flow at the moment at which the person had turned what the question asks for."""

    time: float
    p: Array
    s: Array
    learned: NDArray[np.bool_]
    """(n,) modes that had come to p+ before the turn."""


@dataclass(frozen=True)
class Seen:
    """What the flow has shown so far."""

    answer: int | None = None
    """Which choice has come true; None while that cannot be said yet."""
    words: str = ""
    """What was seen, in numbers; or while there is no answer, what is still to be done."""


@dataclass(frozen=True)
class Question:
    """A question, its choices, and how the flow answers it."""

    text: str
    choices: tuple[str, ...]
    task: str
    """What the person turns."""
    why: str
    equation: str
    ready: Callable[[Flow], str]
    """Empty once what is asked for was turned; else what is missing."""
    look: Callable[[Flow, Mark], Seen]
    show: Callable[[Flow], None]
    """Turns it."""
    fast: bool = False
    """Whether it takes hundreds of units of time to see."""


def count(many: int, of: int) -> str:
    """A count in words."""
    return {0: f"none of {of} modes", of: f"all {of} modes"}.get(many, f"{many} of {of} modes")


def _over(flow: Flow, mark: Mark) -> bool:
    return flow.time - mark.time >= WATCHED or flow.resting


def _dying(flow: Flow, mark: Mark) -> NDArray[np.bool_]:
    """Which modes have lost most of their s since, and do not come back under these settings."""
    return np.asarray((flow.s < DIED * mark.s) & ~flow.learns)


# ---------------------------------------------------------------- 1: without weight decay


def _no_decay_ready(flow: Flow) -> str:
    if not flow.settings.protected:
        return "Put predictor and stop-gradient back first."
    return "" if flow.settings.eta == 0 else "Set the weight decay η to 0."


def _no_decay_look(flow: Flow, mark: Mark) -> Seen:
    there = mark.s > THERE
    if not there.any():
        return Seen(words="Every mode was dead already. Press Restart.")
    # A gain far above p+ kills slowly, but as surely.
    died, of = int((~flow.learns & there).sum()), int(there.sum())
    if not _over(flow, mark):
        return Seen(words=f"Watching: {count(died, of)} dying so far.")
    least = float((flow.s / mark.s)[there].min())
    fate = "died" if died == 0 else "died or will: p stands so far above p₊ that s is gone before it is down"
    words = f"Since η = 0, {count(died, of)} {fate}; the one that did worst has {least:.3g} times the s it had."
    return Seen(0 if died == 0 else 2 if died == of else 1, words)


def _no_decay_show(flow: Flow) -> None:
    flow.turn({**_WHOLE, "eta": 0.0, "ema": False})
    flow.restart()


# ---------------------------------------------------------------- 2: beyond the critical weight decay


def _too_much_ready(flow: Flow) -> str:
    at = flow.settings
    if not at.protected:
        return "Put predictor and stop-gradient back first."
    if at.eta > at.critical:
        return ""
    first = "" if flow.arrived.any() else "Wait until a mode has come to p₊; then "
    words = f"{first}raise η beyond {at.critical:.3f}."
    return words[0].upper() + words[1:]


def _too_much_look(flow: Flow, mark: Mark) -> Seen:
    if not mark.learned.any():
        return Seen(words="No mode had learned when η was raised. Lower η, Restart, let one come to p₊, raise it.")
    died = _dying(flow, mark)[mark.learned]
    if not died.all() and not _over(flow, mark):
        kept = float((flow.s / mark.s)[mark.learned].max())
        return Seen(words=f"Watching: the learned modes have {kept:.0%} of their s, or less.")
    kept = float((flow.s / mark.s)[mark.learned].max())
    words = (
        f"{count(int(mark.learned.sum()), len(flow.s)).capitalize()} had learned; the best keeps {kept:.2g} of its s."
    )
    return Seen(2 if died.all() else 0 if kept > 0.9 else 1, words)


def _too_much_show(flow: Flow) -> None:
    flow.turn({**_WHOLE, "eta": min(0.05, 0.25 * flow.settings.critical), "ema": False})
    if not flow.arrived.any():
        _let_learn(flow)
    flow.turn({"eta": 1.25 * flow.settings.critical})


def _let_learn(flow: Flow) -> None:
    """From the start to where modes have learned, if any do."""
    flow.restart()
    for _ in range(24):
        if not flow.learns.any() or flow.arrived.any():
            break
        flow.advance(5.0)


# ---------------------------------------------------------------- 3: without a predictor


def _no_predictor_ready(flow: Flow) -> str:
    at = flow.settings
    if not at.stop_gradient:
        return "Put the stop-gradient back first: the question is about the predictor alone."
    if at.eta + at.sigma2 < 0.05:
        return "With neither augmentation nor weight decay nothing moves at all: raise σ² or η."
    return "Switch the predictor off." if at.predictor else ""


def _no_predictor_look(flow: Flow, mark: Mark) -> Seen:
    there = mark.s > ALIVE
    if not there.any():
        return Seen(words="Every mode was dead already. Press Restart with the predictor on, then take it away.")
    died = _dying(flow, mark)[there]
    if not died.all() and not _over(flow, mark):
        return Seen(words=f"Watching: {count(int(died.sum()), int(there.sum()))} that were there are dying so far.")
    kept = float((flow.s / mark.s)[there].max())
    words = (
        f"Of {int(there.sum())} modes that were there, {int(died.sum())} died within {flow.time - mark.time:.0f} units "
        f"of time; the best has {kept:.2g} of its s."
    )
    return Seen(1 if died.all() else 0 if not died.any() else 2, words)


def _no_predictor_show(flow: Flow) -> None:
    at = flow.settings
    flow.turn({**_WHOLE, "sigma2": max(at.sigma2, 0.1), "eta": min(at.eta, 0.5 * at.critical)})
    if not flow.arrived.any():
        _let_learn(flow)
    flow.turn({"predictor": False})


# ---------------------------------------------------------------- 4: a slow EMA


def _slow_ready(flow: Flow) -> str:
    at = flow.settings
    if not at.protected:
        return "Put predictor and stop-gradient back first."
    if at.rest() is None:
        return f"Lower η below {at.critical:.3f}, so that there is a p₊."
    if not at.ema or at.beta > SLOW:
        return f"Switch EMA on, set β to {SLOW} or less, and press Restart."
    if not flow.began.ema or flow.began.beta > SLOW:
        return "Press Restart, so that the whole way goes with the slow target."
    return ""


def _slow_look(flow: Flow, mark: Mark) -> Seen:
    if not flow.learns.any():
        return Seen(words="No mode learns from this start. Raise the largest p at start, and press Restart.")
    best = int(np.argmax(np.where(flow.learns, flow.s, -1.0)))
    way = _without_ema(flow.settings)
    end, its_end = float(way.end[0, best]), float(flow.p[best])
    settled = flow.resting or (flow.time >= 100.0 and abs(flow.p_rate[best]) < 3e-5)
    if not settled:
        return Seen(words=f"Watching: its best mode has p = {its_end:.3f}; without EMA it ends at {end:.3f}.")
    times, states = flow.way()
    s, plain_s = np.square(states[:, 1, best]), np.square(way.states[:, 1, best])
    slow, quick = _reached(times, s), _reached(way.times, plain_s)
    words = (
        f"The best mode ended at p = {its_end:.3f}, and without EMA at {end:.3f}. Its s was there, to a tenth, at "
        f"t = {slow:.0f}, and without EMA at t = {quick:.0f}."
    )
    return Seen(2 if abs(its_end - end) < 0.01 else 0 if its_end > end else 1, words)


@lru_cache(maxsize=1)
def _without_ema(at: Settings) -> Way:
    """The way from the same start, under the same settings but for the target."""
    plain = at.turned({"ema": False})
    return follow(begin(plain), plain)


def _reached(times: Array, s: Array) -> float:
    """When it came within a tenth of its end for good."""
    off = np.flatnonzero(np.abs(s / max(float(s[-1]), 1e-9) - 1) > 0.1)
    return float(times[min(off[-1] + 1, len(times) - 1)]) if len(off) else float(times[0])


def _slow_show(flow: Flow) -> None:
    flow.turn({**_WHOLE, "eta": 0.05, "sigma2": 0.3, "ema": True, "beta": 0.03, "gain": 0.45, "tau": 1.0})
    flow.restart()


_WHOLE = {"stop_gradient": True, "predictor": True}

QUESTIONS: tuple[Question, ...] = (
    Question(
        text="Weight decay is set to 0. Which modes collapse?",
        choices=("None of them", "The small ones", "All of them"),
        task="Set the weight decay η to 0 and press Restart.",
        why="What pulls a mode to zero is weight decay: without it p₋ is 0, and no mode is too small. Only a gain far "
        "above p₊ still kills. "
        "But small modes creep: near 0 a mode grows only as fast as its own p, and nothing draws it onto the parabola.",
        equation="dp/dt = p D,  D = p [τ − (1+σ²) p] − η;  p₋ = 0 where η = 0  (s = p²/αₚ)",
        ready=_no_decay_ready, look=_no_decay_look, show=_no_decay_show,
    ),
    Question(
        text="A mode has learned. Then weight decay is raised beyond τ²/(4(1+σ²)). What becomes of the mode?",
        choices=("It stays at p₊", "It settles at a smaller p", "It dies"),
        task="Let a mode come to p₊, then raise η beyond the critical weight decay.",
        why="p₋ and p₊ move towards each other as η grows, meet at the critical weight decay, and are gone: no place "
        "is left to rest at but 0. Up to there p₊ only becomes smaller.",
        equation="p± = [τ ± √(τ² − 4η(1+σ²))] / (2(1+σ²))",
        ready=_too_much_ready, look=_too_much_look, show=_too_much_show,
    ),
    Question(
        text="The predictor is taken away (Wp = I), the stop-gradient stays. What becomes of the modes?",
        choices=("They go on learning", "Every mode dies", "Only those below p₋ die"),
        task="Switch the predictor off.",
        why="With Wp = I nothing pulls W up: augmentation and weight decay shrink it, however large it is. "
        "A slow target only delays it.",
        equation="dW/dt = −W (X′ + η I), so that w → 0  (theorem 2, Wa = W)",
        ready=_no_predictor_ready, look=_no_predictor_look, show=_no_predictor_show,
    ),
    Question(
        text="The target follows as a slow EMA (β ≤ 0.05) instead of at once. What becomes of p₊?",
        choices=("It is larger", "It is smaller", "It is the same; the way there differs"),
        task="Switch EMA on, set β to 0.05 or less, and press Restart.",
        why="While W grows the target lags, τ falls, and with it the gain that p is drawn to. At rest the target has "
        "caught up: τ = 1, whatever β.",
        equation="dτ/dt = β (1 − τ) − τ (ds/dt)/(2s), so that τ → 1 where s rests",
        ready=_slow_ready, look=_slow_look, show=_slow_show, fast=True,
    ),
)  # fmt: skip


class Lesson:
    """The bets of a page and how they stand. All but :meth:`state` is for the publisher's thread."""

    def __init__(self, questions: tuple[Question, ...] = QUESTIONS) -> None:
        self.questions = questions
        self.bets: dict[int, int] = {}
        self.verdicts: dict[int, Seen] = {}
        self._marks: dict[int, Mark] = {}
        self._open: int | None = None

    def bet(self, question: int, choice: int) -> None:
        """A person bets; a question that is bet on is the one that is watched."""
        if not (0 <= question < len(self.questions) and 0 <= choice < len(self.questions[question].choices)):
            return
        self.bets[question] = choice
        self.verdicts.pop(question, None)
        self._marks.pop(question, None)
        self._open = question

    def show(self, question: int, flow: Flow) -> bool:
        """Turns what the question asks for; only who has bet is shown, which it says."""
        if question not in self.bets:
            return False
        self.bet(question, self.bets[question])
        self.questions[question].show(flow)
        return True

    def look(self, flow: Flow) -> None:
        """Looks at the flow for the question that was bet on."""
        number = self._open
        if number is None:
            return
        question = self.questions[number]
        if missing := question.ready(flow):
            self._marks.pop(number, None)
            self.verdicts[number] = Seen(words=missing)
            return
        mark = self._marks.get(number)
        if mark is None or flow.time < mark.time:
            mark = self._marks[number] = Mark(flow.time, flow.p.copy(), flow.s.copy(), flow.learned)
        seen = question.look(flow, mark)
        self.verdicts[number] = seen
        if seen.answer is not None:
            self._open = None

    def state(self) -> list[dict[str, Any]]:
        """The questions as the page shows them."""
        return [self._shown(number, question) for number, question in enumerate(self.questions)]

    def _shown(self, number: int, question: Question) -> dict[str, Any]:
        bet, seen = self.bets.get(number), self.verdicts.get(number)
        shown = {
            "text": question.text, "choices": list(question.choices), "bet": bet, "task": question.task,
            "says": "" if seen is None else seen.words, "verdict": "", "why": "", "equation": "",
        }  # fmt: skip
        if bet is not None and seen is not None and seen.answer is not None:
            came = question.choices[seen.answer].lower()
            won = seen.answer == bet
            shown["verdict"] = f"Your bet was right: {came}." if won else f"Your bet was wrong. What came: {came}."
            shown["won"] = won
            shown["why"], shown["equation"] = question.why, question.equation
        return shown
