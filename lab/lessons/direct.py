"""Lesson 05: set the predictor instead of training it. Four forks of one moment, each with its own rule."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lab.lesson import Lesson, Moment, Verdict, _key
from lab.questions import EFFECTIVE_RANK, KNN, Leg, Place, Question, Start, effective_rank
from lab.show import compact
from lab.view import RunView, ViewReader
from ssl_lab.errors import SSLLabError
from ssl_lab.store import open_run

MOMENT, STEPS = 60, 300
"""Steps of the run that all forks grow from, and of each fork after that."""

ALIKE = 0.9
"""Ranks within this ratio of the best count as won too: DirectPred and DirectCopy lie closer than two seeds do."""


@dataclass(frozen=True)
class Arm:
    """A fork: how it makes its predictor."""

    name: str
    """What its run is called."""
    words: str
    """What the page calls it."""
    knobs: Mapping[str, Any]
    """What is turned at the moment; empty for the one that goes on as it was."""


ARMS = (
    Arm("directpred", "DirectPred", MappingProxyType({"predictor": "directpred", "eps": 0.1, "rho": 0.3})),
    Arm("directcopy", "DirectCopy", MappingProxyType({"predictor": "directcopy", "eps": 0.3, "rho": 0.5})),
    Arm("least-squares", "Least squares", MappingProxyType({"predictor": "optimal", "rho": 0.3})),
    Arm("trained", "Trained on by SGD", MappingProxyType({})),
)


def winner(ranks: list[float], bet: int | None) -> int:
    """The arm with the most directions; the one that was bet on, if it is as good but for ``ALIKE``."""
    best = max(range(len(ranks)), key=ranks.__getitem__)
    return bet if bet is not None and ranks[bet] >= ALIKE * ranks[best] else best


def rank_moves(before: RunView, after: RunView) -> int | None:
    """0: the effective rank grows by a tenth or more; 1: it falls by as much; 2: neither."""
    first, last = effective_rank(before), effective_rank(after)
    if first is None or last is None:
        return None
    return 0 if last > 1.1 * first else 1 if last < 0.9 * first else 2


RACE = Question(
    title="Which predictor keeps the most directions?",
    text=f"<p>A network with a predictor of one layer, trained by SGD for {MOMENT} steps. From this very moment four "
    "forks "
    f"go on for {STEPS} steps, with the same images in the same order:</p><ul><li><b>DirectPred</b> and "
    "<b>DirectCopy</b> set Wp from F at every step;</li><li><b>least squares</b> sets the Wp that predicts the "
    "target best;"
    "</li><li>the last one <b>trains it on</b>.</li></ul><p>Which one ends with the largest effective rank?</p>",
    answers=tuple(arm.words for arm in ARMS),
    judge=lambda _before, _after: None,
    measures=(EFFECTIVE_RANK, KNN),
    start=Start(preset="byol-one-layer", legs=(Leg(steps=MOMENT),)),
    steps=STEPS,
    explanation="<p>Training turns Wp towards F's eigenvectors, with gains p = √(αp s) for a direction of eigenvalue "
    "s, where weight decay has had its time. "
    "That can "
    "be had at once:</p><span class='ssl-equation'>DirectPred: &nbsp; F = U diag(s) Uᵀ, &nbsp; p = √(s / s₁) + ε, "
    "&nbsp; "
    "Wp = U diag(p) Uᵀ</span><span class='ssl-equation'>DirectCopy: &nbsp; Wp = F / ‖F‖ + ε I</span><p>s₁ is the "
    "largest s; "
    "DirectCopy needs no eigenvectors. Least squares,</p><span class='ssl-equation'>Wp = E[z fᵀ] F⁻¹,</span><p>has the "
    "smallest error of them all, and loses the directions: to predict well is not what the predictor is "
    "for.</p><p>In print, "
    "CIFAR-10, ResNet-18, 100 epochs, linear probe, 5 runs: DirectPred 85.21 ± .23 %, one layer trained by SGD "
    "84.49 ± .20 %; least squares does badly. kNN on digits hardly tells them apart.</p>",
    source="Tian, Chen &amp; Ganguli 2021, eq. 18, tables 1 and 8; Wang, Chen, Du &amp; Tian 2021 (DirectCopy).",
    typical="Effective rank of 32 after 300 steps, mean of 5 runs [least to most]: DirectPred 3.0 [2.7–3.9], "
    "DirectCopy 3.1 [2.7–4.1], trained 1.9 [1.8–2.1], least squares 1.2 [1.1–1.2]; kNN 97.0, 97.0, 97.0 and 96.3 %.",
    panels=("effective_rank", "plane"),
)  # fmt: skip

QUESTIONS = (
    RACE,
    Question(
        title="What is ε for?",
        text="<p>A DirectPred of 200 steps, ε = .1. It lifts the gain of the small directions, so that they are not "
        "left behind. Ten times as much, ε = 1: what will the effective rank do in 300 steps?</p>",
        answers=("Grow on", "Fall", "Stay as it is"),
        judge=rank_moves,
        measures=(EFFECTIVE_RANK, KNN),
        start=Start(preset="directpred"),
        turn={"eps": 1.0},
        steps=300,
        explanation="<p>A cosine forgets the scale of Wp, so that only ε beside the largest gain, 1 + ε, counts. As "
        "ε grows</p>"
        "<span class='ssl-equation'>Wp / ε = I + U diag(√(s/s₁)) Uᵀ / ε → I:</span><p>no predictor at all, and "
        "without one "
        "(theorem 2) the directions go. A little ε helps directions that have nearly died; much of it undoes the "
        "predictor.</p><p><b>set every</b> (freq): with 5, Wp is set at every fifth step and trained by SGD in "
        "between; in print 84.93 ± .29 % instead of 85.21 ± .23 %.</p>",
        source="Tian, Chen &amp; Ganguli 2021, eq. 18, theorem 2 and table 8.",
        typical="Seeds 0 to 4 fell from 6.5–7.0 to 3.7–4.4; with ε = .1 they went on to 8.2–9.6. Here, ε = 0 did "
        "better still: 9.4–10.6.",
        usual=1,
        panels=("effective_rank", "plane"),
    ),
)  # fmt: skip


def _accuracy(view: RunView, goal: int) -> str:
    """The last kNN accuracy in words, with its step where that is not the goal: it is measured now and then."""
    if view.knn is None:
        return ""
    step, share = view.knn
    return f" (kNN {100 * share:.1f} %{'' if step == goal else f' at step {step:,}'})"


class Direct(Lesson):
    """The lesson; its first question makes a fork for each button."""

    def __init__(self, **options: Any) -> None:
        self.forks: dict[int, str] = {}
        """Runs by their arm."""
        self.done: set[int] = set()
        """Arms that have come to their end."""
        self._busy: int | None = None
        """The arm on its way."""
        self._all = False
        """Whether the others follow by themselves."""
        self._from: tuple[str, int, int] | None = None
        """The run, step and number of knob events that the forks grow from."""
        show = compact(
            panels=("effective_rank", "f", "plane", "alignment", "wp", "knn"),
            knobs=("predictor", "eps", "freq", "norm"),
        )
        super().__init__(QUESTIONS, show=show, **options)

    # ------------------------------------------------------------ what a person does

    def _act(self, content: dict[Any, Any]) -> None:
        asked = str(content.get("do"))
        if self.question is not RACE or content.get("at") != self.at or not asked.startswith("fork"):
            super()._act(content)
            return
        if self.at not in self.bets or self._busy is not None or self._from is None:
            return
        if asked == "fork-all":
            self._all = True
            return
        number = next((number for number, arm in enumerate(ARMS) if asked == f"fork-{arm.name}"), None)
        if number is not None and number not in self.done:
            self._fork(number)

    def _fork(self, number: int) -> None:
        """Has an arm grow from the moment, and draws those that are there beside it."""
        assert self._from is not None
        run, step, seen = self._from
        arm, self._busy = ARMS[number], number
        self.forks.pop(number, None)
        self._awaited = 0.0

        def there(name: str) -> None:
            self.forks[number] = name
            self.bench.compare(*(self.forks[other] for other in sorted(self.done)))

        # Only of this very run: nothing is forked if it is gone.
        self.bench.visit(
            run,
            then=lambda _: self.bench.fork(
                step, events=seen, compare=False, knobs=arm.knobs, name=arm.name, then=there, otherwise=self._gave_up
            ),
            otherwise=self._gave_up,
        )

    def _gave_up(self, why: str) -> None:
        self._busy, self._all = None, False
        self._could_not(why)

    def _prepare(self) -> None:
        self.forks, self._busy, self._all, self._from = {}, None, False, None
        self.done.clear()
        self.bench.compare()
        super()._prepare()

    # ------------------------------------------------------------ what the runs do

    def _follow(self, view: RunView) -> None:
        if self.question is not RACE:
            super()._follow(view)
        elif self._busy is not None:
            self._follow_fork(view, self._busy)
        elif self._from is None:
            place = self._place(view)
            if place.kind not in ("ready", "watching", "done"):
                super()._follow(view)
                return
            self._from = self.bench.shown, view.status.step, place.seen
            assert RACE.start is not None
            self._moments.setdefault(_key(RACE.start), Moment(*self._from))
            self._offer(view)
        elif len(self.done) == len(ARMS):
            self._finish()
        else:
            self._offer(view)

    def _follow_fork(self, view: RunView, number: int) -> None:
        """An arm on its way."""
        assert self._from is not None
        arm, name, goal = ARMS[number], self.forks.get(number), self._from[1] + STEPS
        status = view.status
        if name is None or self.bench.shown == self._from[0]:
            self._say(words=f"{arm.words}: a fork is made…")
            return
        if self.bench.shown != name:
            self._again(f"{view.name}, which is on the page, is not the fork that was being made.")
        elif status.state == "failed":
            self._again(f"The fork failed. {status.message}")
        elif view.events[self._from[2] + bool(arm.knobs) :] and not self._whole(view, number, goal):
            self._again(f"Something else was turned before step {goal:,}, so that this fork does not compare.")
        elif min(status.step, view.last) >= goal:
            if self._measured(view, goal) is None:
                self._say(words=f"{arm.words}: measuring…", share=1.0)
                return
            self.done.add(number)
            self._busy = None
            self._ordered = ()
        elif status.state == "done":
            assert RACE.start is not None
            self._moments.pop(_key(RACE.start), None)
            self._again(f"{name} is done at step {status.step:,} and goes no further.")
        else:
            place = Place(kind="watching", goal=goal, seen=number)
            stands = self._order("step", view, place, lambda: self.bench.step(goal - status.step))
            gone = max(status.step - self._from[1], 0)
            words = f"{arm.words}: step {gone:,} of {STEPS:,}"
            self._say(words=words, share=gone / STEPS, buttons=self._on_button(stands))

    def _whole(self, view: RunView, number: int, goal: int) -> bool:
        """Whether nothing was turned in an arm before its end but what belongs to it."""
        assert self._from is not None
        turned = [event for event in view.events[self._from[2] :] if event.step < goal]
        return len(turned) <= bool(ARMS[number].knobs)

    def _again(self, why: str) -> None:
        self._busy, self._all = None, False
        self._failed = why

    def _offer(self, view: RunView) -> None:
        """The buttons of the forks that are not there yet."""
        left = [number for number in range(len(ARMS)) if number not in self.done]
        if self.at not in self.bets:
            self._say(words=f"The run is ready, at step {view.status.step:,}.", trouble=self.bench.obstacle)
        elif self._all:
            self._fork(left[0])
        else:
            buttons = [(f"fork-{ARMS[number].name}", f"Fork: {ARMS[number].words}", False) for number in left]
            words = "From the same moment, a fork for each:" if len(left) == len(ARMS) else "Still to come:"
            self._say(words=words, buttons=[*buttons, ("fork-all", "All, one after the other", True)])

    def _ask_text(self) -> str:
        if self.question is RACE:
            return ""
        return super()._ask_text()

    # ------------------------------------------------------------ the verdict

    def _finish(self) -> None:
        """The four runs at their end, from their files."""
        assert self._from is not None
        assert self.bench.store is not None
        goal, folder = self._from[1] + STEPS, self.bench.store.path.parents[1]
        ranks, said = [], []
        for number, arm in enumerate(ARMS):
            try:
                with open_run(self.forks[number], folder, readonly=True) as store:
                    view = ViewReader(store).read(goal)
            except (SSLLabError, sqlite3.Error, OSError) as error:
                self._again(str(error))
                return
            rank = effective_rank(view)
            if rank is None or view.newest is None or view.newest.step <= self._from[1]:
                self._again(f"{self.forks[number]} has no spectrum up to step {goal:,}: there is no verdict.")
                return
            ranks.append(rank)
            when = "" if view.newest.step == goal else f" at step {view.newest.step:,}"
            said.append(f"{arm.words} {rank:.2f}{when}{_accuracy(view, goal)}")
        outcome = winner(ranks, self.bets.get(self.at))
        near = [arm.words for arm, rank in zip(ARMS, ranks, strict=True) if rank >= ALIKE * max(ranks)]
        alike = f"; {' and '.join(near)} count as alike" if len(near) > 1 else ""
        where = f"the four forks at step {goal:,}"
        self.verdicts[self.at] = Verdict(outcome, f"effective rank {', '.join(said)}{alike}", where)
        self._show_verdict()


def direct(**options: Any) -> Lesson:
    """The lesson; display it as the last line of a cell.

    Args:
        **options: of :class:`lab.lesson.Lesson`, such as ``results``.
    """
    return Direct(**options)
