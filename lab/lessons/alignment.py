"""Lesson 04: the predictor lines up with the eigenvectors of F; from recordings on CIFAR-10, and live on digits."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ipywidgets as w
import numpy as np

from lab.catalogue import recordings
from lab.controls import guarded
from lab.lesson import Lesson
from lab.panels.history import Over
from lab.questions import (
    ALIGNED,
    ASYMMETRY,
    EFFECTIVE_RANK,
    Leg,
    Measure,
    Question,
    Recorded,
    Start,
    aligned,
    asymmetry,
    by_threshold,
)
from lab.show import compact
from lab.view import RunView, ViewReader
from lab.words import Changes
from ssl_lab.spectrum import ALIGNED as ALIGNED_COSINE
from ssl_lab.store import RunStore

PLAIN, SYMMETRIC, COLLAPSED = "cifar10-byol", "cifar10-byol-symmetric", "cifar10-simsiam-symmetric"

EPOCH = 312
"""Steps of an epoch of these recordings."""

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        PLAIN: "BYOL on CIFAR-10, 40 epochs",
        SYMMETRIC: "BYOL with a symmetric predictor, 40 epochs",
        COLLAPSED: "Symmetric SimSiam (no EMA), 20 epochs",
    }
)
"""The recordings that can be chosen, in words."""

SCALE = (
    "Small runs of our own, and not the paper's: 10,000 CIFAR-10 images (JPEG) at 16×16, ResNet-18 of width 8, batch "
    "32, seed 0; BYOL with EMA .98, predictor's rate .2 and half the augmentation."
)

FEW = 2
"""Aligned directions from which on one may ask where they lie."""


def _key(name: str) -> str:
    """What the shelf calls a recording."""
    return f"recording: {name}"


def _moment(name: str, step: int) -> RunView:
    """A moment of a recording, from its file."""
    path = next(path for path in recordings() if path.stem == name)
    with RunStore.open(path, readonly=True) as store:
        return ViewReader(store).read(step)


def place_of_aligned(view: RunView) -> float | None:
    """Mean place of the aligned directions in the order of F's eigenvalues: 0 the largest, 1 the smallest.

    About .5 if alignment had nothing to do with the eigenvalue; None while fewer than ``FEW`` are aligned.
    """
    if view.newest is None:
        return None
    cosines = view.newest.spectrum.alignment
    where = np.flatnonzero(cosines > ALIGNED_COSINE)
    return float(where.mean() / (len(cosines) - 1)) if len(where) >= FEW else None


def largest_first(_before: RunView, after: RunView) -> int | None:
    """0: those that are aligned have large eigenvalues; 1: small ones; 2: neither."""
    place = place_of_aligned(after)
    if place is None:
        return None
    return 0 if place < 0.3 else 1 if place > 0.7 else 2


def symmetric_sooner(_before: RunView, after: RunView) -> int | None:
    """0: more directions are aligned than in the plain run at the same step; 1: fewer; 2: as many, within a quarter."""
    mine, plain = aligned(after), aligned(_moment(PLAIN, after.step))
    if mine is None or plain is None:
        return None
    return 0 if mine > 1.25 * plain else 1 if mine < 0.8 * plain else 2


def asymmetry_moves(before: RunView, after: RunView) -> int | None:
    """0: it falls below four fifths; 1: it rises by a quarter; 2: neither. None of a Wp that is symmetric by rule."""
    first, last = asymmetry(before), asymmetry(after)
    if first is None or last is None or first < 1e-6:
        return None
    return 0 if last < 0.8 * first else 1 if last > 1.25 * first else 2


def keeps_directions(_before: RunView, after: RunView) -> int | None:
    """0: F keeps directions to align with; 1: it is down to one or two."""
    rank = EFFECTIVE_RANK.of(after)
    return None if rank is None else int(rank < 3)


QUESTIONS = (
    Question(
        title="Which directions align first?",
        text="<p>BYOL trains its predictor Wp by gradient descent. Nobody tells it of F, the correlation of the "
        "projections; yet one eigenvector of F after the other becomes one of Wp. Which ones first?</p>",
        answers=("Those with the largest eigenvalues of F", "Those with the smallest eigenvalues", "In no order"),
        judge=largest_first,
        measures=(ALIGNED, Measure("mean place in F's order (0 largest, 1 smallest)", place_of_aligned)),
        recorded=Recorded(key=_key(PLAIN), before=EPOCH, after=4 * EPOCH),
        explanation="<p>In the linear theory the misfit L = F Wp − Wp F shrinks by</p>"
        "<span class='ssl-equation'>dL/dt = −L K − K L, &nbsp; K = (1 + σ²) [αp F/2 + Wp² − τ Wp/(1 + σ²)] + (3/2) η I"
        "</span><p>K is large along the large eigenvalues of F: there the misfit goes soonest.</p>",
        source="Tian, Chen &amp; Ganguli 2021, theorem 3.",
        typical="On digits, live, the aligned ones were among the 8 largest of 32 in 5 of 5 runs of 600 steps.",
        usual=0,
        panels=("alignment",),
    ),
    Question(
        title="Does it help to make Wp symmetric?",
        text="<p>The theory takes Wp to be symmetric. Here it is made so after every step (blue), beside the BYOL of "
        "before (dashed). After 40 epochs, which one has more directions aligned?</p>",
        answers=("The symmetric one", "The plain one", "They are alike"),
        judge=symmetric_sooner,
        measures=(ALIGNED, Measure("in plain BYOL", lambda view: aligned(_moment(PLAIN, view.step)), "{:.0f}")),
        recorded=Recorded(key=_key(SYMMETRIC), before=EPOCH, after=40 * EPOCH),
        explanation="<p>Theorem 3 asks for a symmetric Wp. Trained freely, Wp has to lose its antisymmetric part "
        "first; by rule it has none. See the cliff in both spectra, where alignment ends: a direction lives, with its "
        "gain, or dies, as the theory's two resting places p+ and 0 have it.</p><p>In print, at full scale (ResNet-18, "
        "128 directions): after 20 and 100 epochs BYOL has 14 and 59 aligned, the symmetric one 124 and 101.</p>",
        source="Tian, Chen &amp; Ganguli 2021, section 3; the counts: Höppe, Miszkurka &amp; Wilkman, figure 2.",
        panels=("alignment",),
    ),
    Question(
        title="What does asymmetry do meanwhile?",
        text="<p>Plain BYOL again. Asymmetry is Σ|Wp − Wpᵀ| / Σ|Wp|: 0 for a symmetric matrix, about 1.4 for a "
        "random one. Nothing in the loss asks for symmetry. From epoch 1 to 40 it…</p>",
        answers=("falls", "rises", "stays about the same"),
        judge=asymmetry_moves,
        measures=(ASYMMETRY, ALIGNED),
        recorded=Recorded(key=_key(PLAIN), before=EPOCH, after=40 * EPOCH),
        explanation="<p>F is symmetric, so its eigenvectors U are orthonormal. A Wp that shares them all is</p>"
        "<span class='ssl-equation'>Wp = U diag(p) Uᵀ</span><p>and that is symmetric. As directions align, asymmetry "
        "has to go.</p>",
        source="Tian, Chen &amp; Ganguli 2021, section 3 and figure 3.",
        typical="On digits, live, it fell from 1.3 at step 25 to .66 at step 600 (mean of 5 runs).",
        usual=0,
        panels=("asymmetry",),
    ),
    Question(
        title="Symmetric, and without EMA?",
        text="<p>Now SimSiam: the target is the online network itself, and Wp is symmetric by rule. Which will it "
        "be?</p>",
        answers=("Many directions stay, and align", "F is left with one or two directions: collapse"),
        judge=keeps_directions,
        measures=(EFFECTIVE_RANK, ALIGNED),
        # From the first step on: an epoch later it shows.
        recorded=Recorded(key=_key(COLLAPSED), before=0, after=20 * EPOCH),
        explanation="<p>Alignment alone does not save a network: a mode whose gain falls below p− dies, whatever it is "
        "aligned with. In print the same rule ends at 20.3 % where plain SimSiam has 79.4 %.</p>",
        source="The percentages: Höppe, Miszkurka &amp; Wilkman, CIFAR-10, linear probe.",
        panels=("f",),
    ),
    Question(
        title="Live: symmetric from here on",
        text="<p>A BYOL on digits, trained for 200 steps: hardly any of its 32 directions is aligned yet. Make Wp "
        "symmetric. After 300 steps more, how many are?</p>",
        answers=("Fewer than 4", "4 to 7", "8 or more"),
        judge=by_threshold(aligned, 4, 8),
        measures=(ALIGNED, ASYMMETRY, EFFECTIVE_RANK),
        start=Start(preset="byol", legs=(Leg(steps=200),)),
        turn={"symmetry": "hard"},
        steps=300,
        explanation="<p>Of the two layers, W1 becomes (W1 + W2ᵀ)/2 and W2 its transpose after every step, so that Wp "
        "= W2 W1 is symmetric, with no eigenvalue below 0.</p>",
        source="Höppe, Miszkurka &amp; Wilkman; Tian, Chen &amp; Ganguli 2021, section 3.",
        typical="Seeds 0 to 4 had 0–2 at step 200, and 10–21 after 300 steps with a symmetric Wp; without, 2–4.",
        usual=2,
        panels=("alignment",),
    ),
)  # fmt: skip


class Alignment(Lesson):
    """The lesson, with a list of the recordings: each can be looked at on its own."""

    def __init__(self, **options: Any) -> None:
        self.chooser = w.Dropdown(
            options=[(words, _key(name)) for name, words in ABOUT.items()], value=_key(PLAIN), description="Recording",
            layout=w.Layout(width="auto", min_width="0"),
        )  # fmt: skip
        self.chooser.add_class("ssl-recording")
        self.about = w.HTML(f"<p>{html.escape(SCALE)}</p>")
        self.about.add_class("ssl-about")
        self._choose_lock = threading.RLock()
        super().__init__(
            QUESTIONS,
            show=compact(panels=("f", "wp", "alignment", "asymmetry", "effective_rank", "knn"), knobs=("symmetry",)),
            below=(self.chooser, self.about),
            **options,
        )
        self._look_ahead(ahead=False)
        # After the doors are closed, which give each control a way in of its own.
        self._choose_lock = guarded(self.chooser)
        self.chooser.observe(lambda change: self._chosen(str(change["new"])), names="value")

    def _chosen(self, key: str) -> None:
        """Puts the recording on the page, unless the list only follows the page."""
        if key == self.bench.shown:
            return
        recorded = self.question.recorded
        if recorded is not None and recorded.key == key and self.at not in self.verdicts:
            # The question's own: back to where it is asked.
            self.bench.do(self._look_at_recording)
        else:
            self.bench.visit(key)
            self.bench.compare()

    def _look_ahead(self, *, ahead: bool) -> None:
        """Whether the curves show faintly what came later: not before the bet, which is on that."""
        for panel in self.bench.panels:
            if isinstance(panel, Over):
                panel.ahead = ahead

    def _show_verdict(self) -> None:
        self._look_ahead(ahead=True)
        super()._show_verdict()

    def _look_at_recording(self) -> None:
        self._look_ahead(ahead=False)
        super()._look_at_recording()
        # Only the question about the two draws them together.
        recorded = self.question.recorded
        beside = recorded is not None and recorded.key == _key(SYMMETRIC)
        self.bench.compare(*([_key(PLAIN)] if beside else []))

    def _on_view(self, view: RunView | None) -> None:
        super()._on_view(view)
        keys = [key for _, key in self.chooser.options]
        with self._choose_lock:
            # What was just chosen is not on the page yet.
            if self.bench.shown in keys and not self.bench.waiting:
                Changes(self.chooser).set("value", self.bench.shown)

    def close(self) -> None:
        super().close()
        self.chooser.close()
        self.about.close()


def alignment(**options: Any) -> Lesson:
    """The lesson; display it as the last line of a cell.

    Args:
        **options: of :class:`lab.lesson.Lesson`, such as ``results``.
    """
    return Alignment(**options)
