"""How runs that are drawn together differ, in words."""

from __future__ import annotations

import numpy as np

from lab.view import RunView


def differences(view: RunView) -> list[str]:
    """A sentence for each run that is drawn with the shown one: accuracy, effective rank and aligned directions."""
    return [_against(view, other) for other in view.others]


def _against(view: RunView, other: RunView) -> str:
    where = f"At step {view.step:,} against {other.name}"
    if other.step < view.step:
        where += f" (whose last step is {other.step:,})"
    if view.newest is None or other.newest is None:
        lacking = view.name if view.newest is None else other.name
        return f"{where}: {lacking} has no spectrum yet."
    if _same(view, other):
        return f"{where}: the same to the last bit."
    mine, theirs = view.newest.spectrum, other.newest.spectrum
    parts = []
    if view.knn and other.knn:
        percent, before = 100 * view.knn[1], 100 * other.knn[1]
        parts.append(f"kNN {percent:.1f} % instead of {before:.1f} % ({percent - before:+.1f})")
    parts.append(
        f"effective rank {mine.effective_rank:.1f} instead of {theirs.effective_rank:.1f} "
        f"({mine.effective_rank - theirs.effective_rank:+.1f})"
    )
    of = f" of {len(mine.alignment)}" if len(mine.alignment) == len(theirs.alignment) else ""
    parts.append(
        f"{mine.aligned}{of} directions aligned instead of {theirs.aligned} ({mine.aligned - theirs.aligned:+d})"
    )
    return f"{where}: {', '.join(parts)}."


def _same(view: RunView, other: RunView) -> bool:
    assert view.newest is not None
    assert other.newest is not None
    mine, theirs = view.newest, other.newest
    return (
        view.metrics is not None
        and other.metrics is not None
        and (view.metrics.step, view.metrics.loss) == (other.metrics.step, other.metrics.loss)
        and mine.step == theirs.step
        and np.array_equal(mine.spectrum.f_eigenvalues, theirs.spectrum.f_eigenvalues)
        and np.array_equal(mine.spectrum.wp_eigenvalues, theirs.spectrum.wp_eigenvalues)
    )
