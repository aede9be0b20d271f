"""What a study must show, and whether it does: the claims of the papers as sentences that numbers decide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from ssl_lab.reproduce.results import Outcome

LEARNED = 5.0
"""Points by which a pre-trained encoder must be above an untrained one."""
EDGE = 2.0
"""Effective rank below which a run has collapsed by its end."""
BAND = 0.6
"""Points around the published mean in which ours counts as the same, on the papers' images."""


@dataclass(frozen=True)
class Finding:
    """A claim and what was found of it."""

    claim: str
    """In words."""
    found: str
    """The numbers that decide."""
    holds: bool
    """Whether it shows."""


def findings(outcomes: Mapping[str, Sequence[Outcome]], *, papers: bool) -> list[Finding]:
    """Of all claims whose rows are there.

    Args:
        outcomes: row -> its runs.
        papers: whether these are CIFAR-10's images at the papers' scale, so that accuracies may be compared.
    """
    found: list[Finding] = []
    probe = {row: mean(o.probe for o in runs) for row, runs in outcomes.items() if runs}
    for row in ("directpred", "directcopy"):
        if row in probe and "untrained" in probe:
            above = probe[row] - probe["untrained"]
            claim = f"{row} is at least {LEARNED:g} points above the untrained encoder"
            found.append(Finding(claim, f"{above:+.1f} points", above >= LEARNED))
    ranks = {row: _rank(runs) for row, runs in outcomes.items()}
    expected = {"simsiam-symmetric": True, "simsiam": False}
    if papers:
        # Its high rates begin with a collapse from which a short study has no time to come back.
        expected["simsiam-symmetric-stable"] = False
    for row, collapses in expected.items():
        rank = ranks.get(row)
        if rank is not None:
            claim = f"{row} {'collapses' if collapses else 'does not collapse'} (effective rank, edge at {EDGE:g})"
            found.append(Finding(claim, f"{rank:.2f}", (rank < EDGE) == collapses))
    aligned = _aligned_by_epoch(outcomes.get("byol", ()))
    if len(aligned) > 1:
        grows = all(later >= earlier for earlier, later in itertools.pairwise(aligned))
        numbers = ", ".join(f"{count:g}" for count in aligned)
        claim = "byol aligns: ever more eigenvectors of F are ones of Wp, epoch by epoch"
        found.append(Finding(claim, numbers, grows and aligned[-1] > aligned[0]))
    best = {row: _best(runs) for row, runs in outcomes.items()}
    if papers:
        for row, published in (("directpred", 85.2), ("byol-one-layer", 84.5)):
            ours = best.get(row)
            if ours is not None:
                claim = f"{row} is within {BAND} points of P's {published}"
                found.append(Finding(claim, f"{ours:.2f}", abs(ours - published) <= BAND))
        ours, sgd = best.get("directpred"), best.get("byol-one-layer")
        if ours is not None and sgd is not None:
            found.append(Finding("directpred is above one layer trained by SGD", f"{ours - sgd:+.2f}", ours > sgd))
    return found


def _rank(runs: Sequence[Outcome]) -> float | None:
    ends = [o.last.spectrum.effective_rank for o in runs if o.last is not None]
    return mean(ends) if ends else None


def _best(runs: Sequence[Outcome]) -> float | None:
    values = [o.authors_best for o in runs if o.authors_best is not None]
    return mean(values) if values else None


def _aligned_by_epoch(runs: Sequence[Outcome]) -> list[float]:
    """Mean over the seeds, at the end of each epoch that all have."""
    counts = [[record.spectrum.aligned for record in o.spectra] for o in runs]
    return [mean(values) for values in zip(*counts, strict=False)]
