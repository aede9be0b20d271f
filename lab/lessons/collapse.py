"""Collapse: what keeps it away? Four rules, each turned by hand, and what the run itself says.

A lesson is data: questions, each with the run it starts from, the knob to turn, and a judge that looks at the run
before and after. To write one of your own, copy this file, and end a notebook with ``my_lesson()``.

Numbers in ``typical`` are effective ranks of F on the digits, seeds 0 to 4, presets as they come (EMA rate 0.996,
learning rate 0.03, batch 128), measured on two CPU cores.
"""

from __future__ import annotations

from typing import Any

from lab.lesson import Lesson
from lab.questions import EFFECTIVE_RANK, LOSS, Question, Recorded, Start, effective_rank
from lab.show import compact
from lab.view import RunView

COLLAPSED = 3.0
"""Effective rank of F, of 32, below which these questions speak of collapse."""

FATES = (
    "It collapses: fewer than 3 directions are left",
    "It loses some, and keeps 3 or more",
    "It keeps them, or gains more",
)


def fate(before: RunView, after: RunView) -> int | None:
    """Which of FATES came out, by the effective rank of F."""
    was, now = effective_rank(before), effective_rank(after)
    if was is None or now is None:
        return None
    if now < COLLAPSED:
        return 0
    return 1 if now < 0.9 * was else 2


def survives(_before: RunView, after: RunView) -> int | None:
    """0: collapsed; 1: not."""
    now = effective_rank(after)
    return None if now is None else int(now >= COLLAPSED)


P = "Tian, Chen &amp; Ganguli 2021, <a href='https://arxiv.org/abs/2102.06810'>arXiv 2102.06810</a>"

TRAINED = Start(preset="directpred")
"""DirectPred, 200 steps from the beginning."""

TWO_LAYERS = Start(preset="simsiam")
"""SimSiam with a predictor of two layers that SGD trains: 200 steps."""

NO_PREDICTOR = {"predictor": "none"}

QUESTIONS = (
    Question(
        title="Without a predictor",
        text="<p>For 200 steps DirectPred has set the predictor from what the network sees. The <b>effective rank of F"
        "</b> says how many directions the projections use, of 32. Now the predictor is taken out: the network has to "
        "match the target directly. What does the rank do in the next 300 steps?</p>",
        answers=FATES,
        start=TRAINED,
        turn=NO_PREDICTOR,
        judge=fate,
        measures=(EFFECTIVE_RANK, LOSS),
        usual=0,
        typical="Seeds 0 to 4 came from 6.5–7.0 down to 1.6–1.7.",
        explanation="<p>The loss got <i>better</i>: views agree most easily if there is nothing left to disagree on. "
        "In the linear model, without predictor and with the network as its own target,"
        "<span class='ssl-equation'>dW/dt = −W (X′ + η I)</span>"
        "where X′ is the variance that augmentation gives to views of one image. Nothing on the right pushes up: every "
        "direction shrinks, soonest those that augmentation changes most. The cosine loss does not see the "
        "length: here one direction is left.</p>",
        source=f"{P}, theorem 2, for W<sub>p</sub> = I.",
        recorded=Recorded(key="recording: collapse-and-return", before=300, after=600),
        panels=("f", "effective_rank"),
    ),
    Question(
        title="The way back",
        text="<p>The run has collapsed. Its encoder still sees, but nearly all that the projections say lies in one "
        "direction. Now the predictor is set by DirectPred again, from this very F. Within 300 steps?</p>",
        answers=("It stays collapsed: fewer than 3 directions", "It comes back: 3 directions or more"),
        start=TRAINED.then(NO_PREDICTOR, 300),
        turn={"predictor": "directpred"},
        judge=survives,
        measures=(EFFECTIVE_RANK, LOSS),
        usual=1,
        typical="Seeds 0 to 4 came from 1.6–1.7 back to 4.2–5.0, and to 5.7–6.7 in 600 steps.",
        explanation="<p>DirectPred gives direction j, with eigenvalue s<sub>j</sub> of F, the gain"
        "<span class='ssl-equation'>p<sub>j</sub> = √(s<sub>j</sub> / s<sub>max</sub>) + ε</span>"
        "which is never less than ε. In the linear model a direction obeys"
        "<span class='ssl-equation'>ds/dt = 2ps [τ − (1+σ²) p] − 2ηs</span>"
        "and grows while p is neither tiny nor beyond τ/(1+σ²). The weak directions have just such a p: as long as a "
        "trace of them is left, they grow again.</p>",
        source=f"{P}, eq. 18 (here as it is run) and section 3.3.",
        recorded=Recorded(key="recording: collapse-and-return", before=600, after=900),
        panels=("f", "plane", "effective_rank"),
    ),
    Question(
        title="Without stop-gradient",
        text="<p>Again DirectPred at 200 steps, with its predictor in place. So far only one branch learns; the target "
        "is held still (stop-gradient). Now the gradient goes through both. What does the rank do in 300 steps?</p>",
        answers=FATES,
        start=TRAINED,
        turn={"stop_gradient": False},
        judge=fate,
        measures=(EFFECTIVE_RANK, LOSS),
        usual=0,
        typical="Seeds 0 to 4 came from 6.5–7.0 down to 1.02, the loss to −2.00: the best there is.",
        explanation="<p>Now the network descends a loss that a constant output makes perfect. In the linear model the "
        "loss is a quadratic form in W, so that"
        "<span class='ssl-equation'>d vec(W)/dt = −H vec(W), &nbsp; H ⪰ 0</span>"
        "whatever the predictor is: W can only shrink. That the target does not move with the gradient is what leaves "
        "a term that pushes W up.</p>",
        source=f"{P}, theorem 2.",
        panels=("f", "effective_rank", "loss"),
    ),
    Question(
        title="Without EMA",
        text="<p>DirectPred at 200 steps once more. The target follows the network slowly: it keeps a share 0.996 of "
        "itself at each step. With a rate of 0 it is the network itself, as in SimSiam. What does the rank do in 300 "
        "steps?</p>",
        answers=FATES,
        start=TRAINED,
        turn={"ema": 0.0},
        judge=fate,
        measures=(EFFECTIVE_RANK, LOSS),
        usual=2,
        typical="Seeds 0 to 4 went up, from 6.5–7.0 to 11.2–12.1.",
        explanation="<p>EMA does not keep collapse away: predictor and stop-gradient do. In the linear model the "
        "target is W<sub>a</sub> = τW, and a direction grows until its gain reaches"
        "<span class='ssl-equation'>p = τ / (1+σ²) &nbsp; (η = 0)</span>"
        "While the network grows, a slow target lags behind: τ is below 1 and holds the growth back. Without EMA τ is "
        "1 at once. More directions are not a better network: on CIFAR-10 a reproduction of the paper got 84.7 % with "
        "EMA, and 78.6 % without (linear probe).</p>",
        source=f"{P}, section 3.3. The percentages: a course reproduction of it, ResNet-18.",
        panels=("f", "effective_rank"),
    ),
    Question(
        title="Symmetric, and without EMA",
        text="<p>Another run: SimSiam, with a predictor of two layers that is trained, and no EMA; 200 steps. Now W"
        "<sub>p</sub> is made symmetric after each step. On CIFAR-10 just that ended in collapse: 20.3 % instead of "
        "79.4 %. And on these small digits, within 300 steps?</p>",
        answers=("It collapses: fewer than 3 directions are left", "It keeps 3 directions or more"),
        start=TWO_LAYERS,
        turn={"symmetry": "hard"},
        judge=survives,
        measures=(EFFECTIVE_RANK, LOSS),
        usual=1,
        typical="Seeds 0 to 4 went from 8.7–10.2 to 6.2–9.2: fewer, and far from collapse.",
        explanation="<p>In the linear model a symmetric predictor has a basin of collapse: directions whose gain "
        "starts below"
        "<span class='ssl-equation'>p<sub>−</sub> = [τ − √(τ² − 4η(1+σ²))] / [2(1+σ²)]</span>"
        "die, the others grow. On which side of such an edge a real network starts depends on its data, its size and "
        "its rates; the linear model does not say. Ours is small and its images are 8 × 8: what is true of it need not "
        "be true of a ResNet-18, nor the other way round.</p>",
        source=f"{P}, section 3.3. The percentages: a course reproduction of it, ResNet-18, linear probe.",
        panels=("f", "effective_rank"),
    ),
)


def collapse(**options: Any) -> Lesson:
    """The lesson; display it as the last line of a cell.

    Args:
        **options: of :class:`lab.lesson.Lesson`, such as ``results``.
    """
    show = compact(
        panels=("f", "effective_rank", "loss", "plane"),
        knobs=("predictor", "ema", "stop_gradient", "symmetry"),
    )
    return Lesson(QUESTIONS, show=show, **options)
