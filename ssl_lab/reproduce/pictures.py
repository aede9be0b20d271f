"""The figures of a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ssl_lab.figures import spectra_figure
from ssl_lab.reproduce.published import Published
from ssl_lab.reproduce.reference import Reference
from ssl_lab.reproduce.results import Outcome, Seeds
from ssl_lab.theory import fixed_points, growth, integrate_modes, parabola

DOTS = 110
"""Dots an inch of a figure in a report: sharp on a screen, and small enough to be sent by mail."""
EVERY = 5
"""Epochs between the curves of an eigenspace."""

# Okabe and Ito's: told apart by every kind of colour vision, and in grey.
_WITH, _WITHOUT, _PRINT = "#0072B2", "#E69F00", "#222222"


def eigenspace(outcome: Outcome, title: str, reference: Reference | None) -> Figure:
    """The four panels of a run; what is known of it from elsewhere is laid over as dotted black curves."""
    records = outcome.spectra
    figure = spectra_figure(
        [record.epoch for record in records],
        [record.spectrum for record in records],
        title=title,
        every=EVERY if len(records) > 2 * EVERY else 1,
    )
    if reference is not None:
        _lay_over(figure, reference, records[-1].epoch)
    return figure


def _lay_over(figure: Figure, reference: Reference, last: float) -> None:
    near = int(np.abs(reference.epochs - last).argmin())
    index = np.arange(1, reference.f_eigenvalues.shape[1] + 1)
    epoch = f"reference, epoch {reference.epochs[near]:g}"
    rows = (reference.f_eigenvalues, reference.wp_eigenvalues, reference.alignment)
    style = {"color": _PRINT, "linestyle": ":", "linewidth": 1.8}
    for axis, values in zip(figure.axes, rows, strict=False):
        axis.plot(index, values[near], label=epoch, **style)  # type: ignore[arg-type]
        axis.legend(fontsize=8, frameon=False)
    upto = reference.epochs <= max(last, reference.epochs[near])
    over_time, twin = figure.axes[3], figure.axes[-2]
    over_time.plot(reference.epochs[upto], reference.asymmetry[upto], label="reference", **style)  # type: ignore[arg-type]
    high = float(max(reference.asymmetry[upto].max(), over_time.get_ylim()[1]))
    over_time.set_ylim(top=1.05 * high)
    if twin is not over_time:
        ranks = reference.effective_rank[upto]
        twin.plot(reference.epochs[upto], ranks, color=_PRINT, linestyle="-.", linewidth=1.2)
        twin.set_ylim(top=1.1 * float(max(ranks.max(), twin.get_ylim()[1])))
    over_time.legend(fontsize=8, frameon=False, loc="upper right")


def bars(
    pairs: Sequence[tuple[str, str, str]], accuracy: Mapping[str, Seeds], printed: Mapping[str, Published]
) -> Figure:
    """One-layer predictors, with and without EMA: our mean and deviation over seeds, and what is in print as a line.

    Args:
        pairs: (name of the rule, row with EMA, row without).
        accuracy: row -> accuracy in per cent; rows that are not there yet are left out.
        printed: row -> what is in print.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axis = figure.subplots()
    width = 0.38
    for side, (column, colour, label) in enumerate(((1, _WITH, "with EMA"), (2, _WITHOUT, "without EMA"))):
        rows = [pair[column] for pair in pairs]
        for place, row in enumerate(rows):
            x = place + (side - 0.5) * width
            found, known = accuracy.get(row), printed.get(row)
            if found is not None:
                axis.bar(x, found.mean, width * 0.94, color=colour, yerr=found.spread, capsize=4, ecolor=_PRINT)
                top = found.mean + (found.spread or 0.0)
                axis.annotate(
                    f"{found.mean:.1f}", (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=9
                )
            if known is not None:
                axis.hlines(known.accuracy, x - width / 2, x + width / 2, color=_PRINT, linestyle=(0, (2, 1)))
        axis.bar(0, 0, color=colour, label=label)
    if printed:
        axis.hlines([], 0, 0, color=_PRINT, linestyle=(0, (2, 1)), label="published")
    axis.set_xticks(range(len(pairs)), [pair[0] for pair in pairs])
    axis.set_ylabel("linear probe, % of the test images")
    values = [s.mean for s in accuracy.values()] + [p.accuracy for p in printed.values()]
    if values:
        axis.set_ylim(max(0.0, 10 * np.floor(min(values) / 10) - 10), min(100.0, max(values) + 8))
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    return figure


SIGMA2, ETA = 0.3, 0.05
"""The setting of the theory's test values."""
STARTS = (0.0511, 0.0564)
"""On either side of the edge of the basin of collapse."""
LONG = 600.0
"""Time by which a mode has come to rest."""


def theory() -> Figure:
    """The flow of a mode on its parabola with its fixed points, and two modes that start on either side of the edge."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    flow, paths = figure.subplots(1, 2)
    p = np.linspace(0, 0.85, 400)
    flow.plot(p, p * growth(p, sigma2=SIGMA2, eta=ETA), color=_WITH)
    flow.axhline(0, color="0.6", linewidth=0.8)
    points = fixed_points(ETA, SIGMA2)
    assert points.p_minus is not None
    assert points.p_plus is not None
    ends = ((points.p_minus, "p₋, edge of collapse", _WITHOUT), (points.p_plus, "p₊, learned", _WITH))
    for x, word, colour in ends:
        flow.plot([x], [0], "o", color=colour, markersize=7)
        flow.annotate(f"{word}\n{x:.4f}", (x, 0), (4, -30), textcoords="offset points", fontsize=9)
    flow.plot([0], [0], "o", color=_PRINT, markersize=7)
    flow.set_xlabel("p, gain of a mode")
    flow.set_ylabel("dp/dt on s = p²/αp")
    flow.set_title("(a) Where a mode goes", fontsize=11, loc="left")
    for start, colour in zip(STARTS, (_WITHOUT, _WITH), strict=True):
        path = integrate_modes(start, parabola(start), times=np.linspace(0, LONG, 500), sigma2=SIGMA2, eta=ETA)
        paths.plot(path.times, path.p[:, 0], color=colour, label=f"p(0) = {start}")
    paths.axhline(points.p_plus, color="0.6", linewidth=0.8, linestyle=":")
    paths.set_xlabel("time")
    paths.set_ylabel("p")
    paths.set_title("(b) Two modes on either side of the edge", fontsize=11, loc="left")
    paths.legend(frameon=False)
    for axis in (flow, paths):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def data_address(figure: Figure) -> str:
    """A figure as the address of a PNG that holds it, so that a report is one file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
