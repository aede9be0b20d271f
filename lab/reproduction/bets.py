"""The bets: a question, its choices, and a judge that reads the numbers in print and those of a study. No widget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lab.reproduction.numbers import Gap, Sample, gap, gap_of_pairs, in_print, line, pairs, printed_data
from ssl_lab.reproduce.record import StudyRecord

COLLAPSED = 2.0
"""Effective rank below which a run has collapsed by its end, as the report has it."""

LIKE = 5.0
"""Points within which a row does as well as another one."""

Answer = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class Finding:
    """What one source says of a question."""

    who: str
    """``In print`` or ``In this study``."""
    text: str
    """The numbers, in words."""
    choice: int | None
    """The choice that is right by it; None where it decides nothing."""
    why_open: str = ""
    """Why it decides nothing."""

    def judge(self, bet: int | None) -> Answer:
        """Of a bet on one of the choices."""
        if self.choice is None or bet is None:
            return "open"
        return "holds" if bet == self.choice else "fails"


@dataclass(frozen=True)
class Bet:
    """A question about numbers that are hidden until somebody has bet."""

    name: str
    question: str
    choices: tuple[str, ...]
    hides: frozenset[str]
    """Rows whose numbers would give it away."""
    judge: Callable[[StudyRecord], tuple[Finding, ...]]
    """What is in print, and what the study says."""
    lesson: str
    """What is to be learned from it, for any study."""


def _missing(record: StudyRecord, *rows: str) -> Finding | None:
    gone = [row for row in rows if line(record, row).probe is None]
    if not gone:
        return None
    going = record.state == "running" and any(row in record.rows for row in gone)
    text = f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} not {'done yet' if going else 'in it'}."
    return Finding("In this study", text, None, "nothing to judge by")


def _seeds(record: StudyRecord, *rows: str) -> str:
    counts = sorted({line(record, row).done for row in rows})
    return f"n = {' and '.join(map(str, counts))}"


# ------------------------------------------------------------------ eigenvectors or SGD

AHEAD, BEHIND = 0, 1


def _directpred(record: StudyRecord) -> tuple[Finding, ...]:
    found = []
    printed, trained = in_print(record.data, "directpred"), in_print(record.data, "byol-one-layer")
    for who in ("P", "S"):
        if who in printed and who in trained:
            a, b = Sample.printed(printed[who]), Sample.printed(trained[who])
            found.append(_ahead(f"{who}, {printed_data(record.data)}", a, b))
    missing = _missing(record, "directpred", "byol-one-layer")
    if missing is not None:
        return *found, missing
    ours, theirs = line(record, "directpred").probe, line(record, "byol-one-layer").probe
    assert ours is not None
    assert theirs is not None
    return *found, _ahead("In this study", ours, theirs)


def _ahead(who: str, a: Sample, b: Sample) -> Finding:
    difference = gap(a, b)
    runs = f"n = {_runs(a)} each" if a.n == b.n else f"n = {_runs(a)} and {_runs(b)}"
    runs = "one run each" if (a.n, b.n) == (1, 1) else runs
    text = f"DirectPred {a}, trained by SGD {b} ({runs}): {difference}."
    if difference.decided:
        return Finding(who, text, AHEAD if difference.value > 0 else BEHIND)
    if difference.half is None:
        return Finding(who, text, None, "no spread is known, so that it decides nothing by itself")
    return Finding(who, text, None, f"the interval holds 0, so that n = {_runs(a)} runs do not decide it")


def _runs(sample: Sample) -> str:
    return "?" if sample.n is None else str(sample.n)


# ------------------------------------------------------------------ symmetric SimSiam

LIKE_PLAIN, HALF, COLLAPSE = 0, 1, 2


def _symmetric(record: StudyRecord) -> tuple[Finding, ...]:
    found = []
    for who, known in in_print(record.data, "simsiam-symmetric").items():
        collapsed = "collapse" in known.note
        plain = in_print(record.data, "simsiam").get(who)
        beside = f"; without symmetry {plain.accuracy}" if plain else ""
        runs = ", one run" if known.n == 1 else ""
        text = f"{known.accuracy} %{' (collapse)' if collapsed else ''}{runs}{beside}."
        found.append(Finding(f"{who}, {printed_data(record.data)}", text, COLLAPSE if collapsed else None))
    missing = _missing(record, "simsiam-symmetric")
    if missing is not None:
        return *found, missing
    here, plain_here = line(record, "simsiam-symmetric"), line(record, "simsiam")
    assert here.probe is not None
    text = f"{here.probe} % ({_seeds(record, 'simsiam-symmetric')}"
    rank = here.rank
    if rank is not None:
        text += f"; effective rank {rank.mean:.1f}, and below {COLLAPSED:g} is collapse"
    text += ")"
    if plain_here.probe is not None:
        text += f"; without symmetry {plain_here.probe} %"
    collapsed_here = rank is not None and max(rank.values) < COLLAPSED
    if rank is not None and not collapsed_here and min(rank.values) < COLLAPSED:
        return *found, Finding("In this study", f"{text}.", None, "some of its runs collapsed and some did not")
    if collapsed_here:
        return *found, Finding("In this study", f"{text}. It collapsed.", COLLAPSE)
    if plain_here.probe is None:
        return *found, Finding("In this study", f"{text}. It did not collapse.", None, "plain SimSiam is not there yet")
    like = abs(here.probe.mean - plain_here.probe.mean) <= LIKE
    text += ". It did not collapse."
    if not like:
        return *found, Finding("In this study", f"{text} It is in between.", HALF)
    return *found, Finding("In this study", f"{text} It does about as well as without.", LIKE_PLAIN)


# ------------------------------------------------------------------ without EMA

EDGES = (3.0, 10.0)
"""Points between the choices."""
WITH_AND_WITHOUT = (
    ("byol-one-layer", "simsiam-one-layer"),
    ("directpred", "directpred-simsiam"),
    ("directcopy", "directcopy-simsiam"),
)


def _ema(record: StudyRecord) -> tuple[Finding, ...]:
    found = []
    losses = [
        (has["S"].accuracy - lost["S"].accuracy)
        for one, other in WITH_AND_WITHOUT
        if "S" in (has := in_print(record.data, one)) and "S" in (lost := in_print(record.data, other))
    ]
    if losses:
        each = ", ".join(f"{loss:.1f}" for loss in losses)
        text = f"SGD, DirectPred and DirectCopy lose {each} points (one run each)."
        found.append(Finding(f"S, {printed_data(record.data)}", text, _step(sum(losses) / len(losses))))
    missing = _missing(record, *(row for pair in WITH_AND_WITHOUT for row in pair))
    if missing is not None:
        return *found, missing
    by_rule = [pairs(record, one, other) for one, other in WITH_AND_WITHOUT]
    seeds = sorted(set(by_rule[0]).intersection(*by_rule[1:]))
    if not seeds:
        return *found, Finding("In this study", "No seed has all six rows.", None, "nothing to judge by")
    n = len(seeds)
    loss = gap_of_pairs([sum(rule[seed] for rule in by_rule) / len(by_rule) for seed in seeds])
    each = ", ".join(f"{sum(rule[seed] for seed in seeds) / n:.1f}" for rule in by_rule).replace("-", "−")
    runs = f"n = {n} seed{'s' * (n != 1)}"
    text = f"SGD, DirectPred and DirectCopy lose {each} points; together {_loss(loss)} ({runs})."
    ranks = [rank.mean for _, other in WITH_AND_WITHOUT if (rank := line(record, other).rank) is not None]
    if ranks and max(ranks) < COLLAPSED:
        text += f" Without EMA they collapse here (effective rank {', '.join(f'{rank:.1f}' for rank in ranks)})."
    if record.scale == "small":
        text += " At this size the rows with EMA also have milder augmentation and other rates: it is not EMA alone."
    low, high = loss.low, loss.high
    if low is None or high is None:
        return *found, Finding("In this study", text, None, "no spread is known")
    if _step(low) != _step(high):
        return *found, Finding("In this study", text, None, f"the interval holds more than one answer, by {runs}")
    return *found, Finding("In this study", text, _step(loss.value))


def _loss(loss: Gap) -> str:
    interval = "" if loss.half is None else f", 95 % interval {loss.low:.1f} to {loss.high:.1f}"
    return f"{loss.value:.1f}{interval}".replace("-", "−")


def _step(points: float) -> int:
    return sum(points > edge for edge in EDGES)


BETS: tuple[Bet, ...] = (
    Bet(
        name="directpred",
        question="DirectPred sets its predictor from eigenvectors and never trains it. Does it beat the same one-layer "
        "predictor trained by SGD, on CIFAR-10?",
        choices=("Yes, it is ahead", "No, the trained one is ahead"),
        hides=frozenset({"directpred", "byol-one-layer"}),
        judge=_directpred,
        lesson="A difference of less than a point takes several seeds to be seen: look at the spread before the mean.",
    ),
    Bet(
        name="symmetric",
        question="BYOL gets better when its predictor is made symmetric. SimSiam, which is BYOL without EMA, reaches "
        "79 % on CIFAR-10 as it is. And with a symmetric predictor?",
        # In words: 79 % and 20 % are CIFAR-10's, and the bet is judged on other images too.
        choices=("about as well as without", "in between", "it collapses (about 20 % on CIFAR-10)"),
        hides=frozenset({"simsiam-symmetric"}),
        judge=_symmetric,
        lesson="A symmetric two-layer predictor without EMA needs other learning rates to stay away from collapse: in "
        "print, the row with high rates is as good as plain SimSiam.",
    ),
    Bet(
        name="ema",
        question="Take EMA away, so that the target is the network itself. How many points does a one-layer predictor "
        "lose on CIFAR-10?",
        choices=("less than 3", "3 to 10", "more than 10"),
        hides=frozenset({"simsiam-one-layer", "directpred-simsiam", "directcopy-simsiam"}),
        judge=_ema,
        lesson="In print, what has no EMA still learns and is some points behind: EMA is not what keeps collapse away.",
    ),
)
