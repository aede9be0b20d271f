"""A lesson's questions as data, and where a run stands in one: a pure function of the run's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from lab.members import VALUE_WORDS
from lab.view import RunView
from ssl_lab.config import Knobs, RunConfig, knob_meta, preset
from ssl_lab.store import Event

LATEST_START = 1_000
"""Steps after its start at which a question may be begun: a run that was left on its way is another one by then."""

LONGEST_TURN = 200
"""Steps that may lie between the first touch of a knob and the asked value: before and after are of one moment."""


@dataclass(frozen=True)
class Measure:
    """A number that a verdict is made from."""

    name: str
    of: Callable[[RunView], float | None]
    """Its value at a moment; None if none was recorded before."""
    form: str = "{:.2f}"

    def say(self, before: RunView, after: RunView) -> str:
        """``effective rank of F 6.86 → 1.50``."""
        return f"{self.name} {self._text(before)} → {self._text(after)}"

    def _text(self, view: RunView) -> str:
        value = self.of(view)
        return "?" if value is None else self.form.format(value).replace("-", "−")


def effective_rank(view: RunView) -> float | None:
    """exp(entropy of F's normalised eigenvalues): between 1 and the projections' dimension d."""
    return view.newest.spectrum.effective_rank if view.newest else None


def aligned(view: RunView) -> float | None:
    """Eigenvectors of F along which Wp acts by at least cos .9."""
    return float(view.newest.spectrum.aligned) if view.newest else None


def asymmetry(view: RunView) -> float | None:
    """sum |Wp - Wp^T| / sum |Wp|."""
    return view.newest.spectrum.asymmetry if view.newest else None


def loss(view: RunView) -> float | None:
    """-cos(q1, z2) - cos(q2, z1), between -2 and 2."""
    return view.metrics.loss if view.metrics else None


def knn(view: RunView) -> float | None:
    """kNN accuracy of the encoder's features, in percent."""
    return 100.0 * view.knn[1] if view.knn else None


EFFECTIVE_RANK = Measure("effective rank of F", effective_rank)
ALIGNED = Measure("aligned directions", aligned, "{:.0f}")
ASYMMETRY = Measure("asymmetry of Wp", asymmetry, "{:.3f}")
LOSS = Measure("loss", loss)
KNN = Measure("kNN accuracy in %", knn, "{:.1f}")


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A stretch of a run: knobs that are turned, and the steps that follow at the least."""

    steps: int
    turn: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The condition in which a question begins: a new run that has gone through some legs."""

    preset: str = "directpred"
    dataset: str = "digits"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Of step 0, where they are not the preset's."""
    legs: tuple[Leg, ...] = (Leg(steps=200),)
    """The first one turns nothing."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``RunConfig`` that are not the preset's, such as ``seed``."""

    def config(self) -> RunConfig:
        """What such a run begins as."""
        return preset(self.preset, dataset=self.dataset, knobs=self.knobs, **self.settings)

    def then(self, turn: Mapping[str, Any], steps: int) -> Start:
        """The same, with one more leg: where the question before leads to."""
        return replace(self, legs=(*self.legs, Leg(steps=steps, turn=turn)))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The same in a recording, for where training is slow."""

    key: str
    """As the shelf calls it, such as ``recording: collapse-and-return``."""
    before: int
    """Step at which the knob was turned."""
    after: int
    """Step at which it is judged."""


Judge = Callable[[RunView, RunView], int | None]
"""From the moments before and after: which answer is right, counted from 0; None if the run lies between them."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a lesson. Texts are HTML."""

    title: str
    text: str
    answers: tuple[str, ...]
    """What can be bet on."""
    judge: Judge
    measures: tuple[Measure, ...]
    """The numbers that the verdict shows."""
    explanation: str
    """Why, with the equation."""
    source: str
    """Where it is from: paper and section."""
    turn: Mapping[str, Any] = field(default_factory=dict)
    """What has to be done: each knob's new value. Empty: the run just goes on."""
    steps: int = 300
    """After how many steps it is judged."""
    start: Start | None = None
    """None for a question that is only asked of a recording."""
    recorded: Recorded | None = None
    typical: str = ""
    """How the runs came out that were tried before, with how many they were."""
    usual: int | None = None
    """The answer that they gave."""
    panels: tuple[str, ...] = ()
    """Pictures to look at, by key."""

    def __post_init__(self) -> None:
        if self.start is None and self.recorded is None:
            raise ValueError(f"The question {self.title!r} has neither a start nor a recording.")
        Knobs().changed(self.turn)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The way from step 0 to the verdict."""
        start = self.start.legs if self.start is not None else ()
        return (*start, Leg(steps=self.steps, turn=self.turn))


Kind = Literal["elsewhere", "getting", "ready", "halfway", "watching", "done", "astray"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run stands in a question."""

    kind: Kind
    """Not a run of this question; on its way to the start; there; the asked knob turned, not to the asked value;
    turned and on the way to the verdict; there; something else was turned, or it was turned too late."""
    goal: int = 0
    """getting: the step to come to; watching, done: that of the verdict."""
    turn: Mapping[str, Any] = field(default_factory=dict)
    """getting: what has to be turned at the goal."""
    before: int = 0
    """watching, done: the step at which the knob was turned, or began to be."""
    since: int = 0
    """watching, done: the step at which it had the asked value."""
    event: Event | None = None
    """astray: what was turned; done: none."""
    why: str = ""
    """astray, where nothing else was turned: what is wrong, in words."""
    seen: int = 0
    """Knob events that belong to the question."""


def locate(question: Question, view: RunView, *, begun: int | None = None) -> Place:
    """Where the run of ``view`` stands in a question, as its file says; whoever turned the knobs.

    Args:
        begun: for a question that turns nothing, the step at which it was begun; None if it was not.
    """
    start = question.start
    if start is None or not _same(view.config, start.config()):
        return Place(kind="elsewhere")
    events, now = list(view.events), view.status.step
    knobs, since, seen = view.config.knobs, 0, 0
    legs = question.legs
    for number, (leg, following) in enumerate(pairwise(legs), 1):
        last = number == len(legs) - 1
        goal = since + leg.steps
        come = events[0].step if events else now if begun is None or begun < goal or following.turn else begun
        if come > goal + LATEST_START:
            why = f"The run has come to step {come:,}, too far from step {goal:,}, which this question is about."
            return Place(kind="astray", why=why, seen=seen)
        if last and not following.turn:
            if events:
                return Place(kind="astray", event=events[0], seen=seen)
            if begun is None or begun < goal:
                return Place(kind="ready" if now >= goal else "getting", goal=goal, seen=seen)
            before = since = begun
            break
        if not events:
            if now >= goal and last:
                return Place(kind="ready", goal=goal, seen=seen)
            return Place(kind="getting", goal=goal, turn={} if last else following.turn, seen=seen)
        wanted = knobs.changed(following.turn)
        before, first = events[0].step, seen
        if before < goal:
            return Place(kind="astray", event=events[0], seen=seen)
        # A slider that is moved by the arrow keys takes many turns to come to its value, and two knobs take two.
        # One that is dragged past its value is not there yet.
        while events and (knobs != wanted or (events[0].step == since and set(events[0].changes) <= {*following.turn})):
            event = events.pop(0)
            if not set(event.changes) <= set(following.turn):
                return Place(kind="astray", event=event, seen=first)
            knobs, since, seen = knobs.changed(event.changes), event.step, event.number
        if (since if knobs == wanted else now) > before + LONGEST_TURN:
            why = (
                f"More than {LONGEST_TURN} steps went by while it was turned, so that before and after do not compare."
            )
            return Place(kind="astray", why=why, seen=first)
        if knobs != wanted:
            return Place(kind="halfway" if last else "getting", goal=max(now, goal), turn=following.turn, seen=first)
    end = since + question.steps
    meanwhile = next((event for event in events if event.step < end), None)
    if meanwhile is not None:
        return Place(kind="astray", event=meanwhile, seen=seen)
    return Place(
        kind="done" if min(now, view.last) >= end else "watching", goal=end, before=before, since=since, seen=seen
    )


def _same(one: RunConfig, other: RunConfig) -> bool:
    """Whether two runs begin alike, but for their random draws and the machine that they are on."""
    own = {"seed", "device", "data_dir", "epochs", "spectrum_every"}
    return one.model_dump(exclude=own) == other.model_dump(exclude=own)


def turn_in_words(turn: Mapping[str, Any]) -> str:
    """``<b>mode</b> (Predictor) to <b>none</b>``: knobs as the page calls them."""
    return " and ".join(
        f"<b>{knob_meta(name).label}</b> ({knob_meta(name).group}) to <b>{value_in_words(name, value)}</b>"
        for name, value in turn.items()
    )


def value_in_words(name: str, value: Any) -> str:
    """A knob's value as the page calls it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return VALUE_WORDS.get(name, {}).get(str(value)) or (f"{value:g}" if isinstance(value, int | float) else str(value))


def by_threshold(measure: Callable[[RunView], float | None], *limits: float) -> Judge:
    """Judges by a number after the turn: answer 0 below the first limit, 1 between it and the second, and so on."""
    ends: Sequence[float] = sorted(limits)

    def judge(_before: RunView, after: RunView) -> int | None:
        value = measure(after)
        return None if value is None else sum(value >= end for end in ends)

    return judge
