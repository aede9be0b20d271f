"""The figures for print, drawn without pyplot, so that any thread or process may draw one.

Sources: **P** Tian, Chen & Ganguli 2021, arXiv 2102.06810, figures 2 and 3; **S** the course reproduction of P,
figure 2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ssl_lab.errors import SSLLabError
from ssl_lab.spectrum import Spectrum

Array = NDArray[np.float64]

SUFFIXES = (".png", ".svg", ".pdf")
"""Kinds of file that :func:`save_figure` writes."""
SMALLEST_SHOWN = 1e-8
"""Eigenvalues of F below this share of the largest are rounding (F is kept in float32) and are left off the axis."""

# Okabe and Ito's blue and vermilion: told apart by every kind of colour vision, and in grey.
_ASYMMETRY, _RANK = "#0072B2", "#D55E00"
_LABEL, _TICK, _TITLE = 10.0, 9.0, 11.0


def eigenspace_figure(
    epochs: Sequence[float],
    f_eigenvalues: ArrayLike,
    wp_eigenvalues: ArrayLike,
    alignment: ArrayLike,
    asymmetry: ArrayLike,
    effective_rank: ArrayLike | None,
    *,
    title: str,
    every: int = 5,
) -> Figure:
    """The eigenspace of a run as S and P draw it, in four panels, one curve for each of some epochs.

    (a) eigenvalues of F, logarithmic; (b) real parts of Wp's eigenvalues; (c) alignment cos(Wp v, v) of F's
    eigenvectors; (d) over the epochs, asymmetry of Wp and effective rank of F.

    Args:
        epochs: (T,) of the records, ascending; need not be whole.
        f_eigenvalues: (T, d), each row descending, as ``Spectrum`` has them.
        wp_eigenvalues: (T, d), each row descending.
        alignment: (T, d), ordered as ``f_eigenvalues``.
        asymmetry: (T,).
        effective_rank: (T,), or None to leave it out.
        title: over the figure.
        every: curves are drawn of the epochs that are multiples of this, and of the first and last record.

    Raises:
        ValueError: no records, or arrays that do not fit one another.
    """
    when, f, wp, cosines = (np.asarray(x, dtype=np.float64) for x in (epochs, f_eigenvalues, wp_eigenvalues, alignment))
    asymmetries = np.asarray(asymmetry, dtype=np.float64)
    ranks = None if effective_rank is None else np.asarray(effective_rank, dtype=np.float64)
    _check(when, f, wp, cosines, asymmetries, ranks, every)
    drawn = shown_records(when, every)

    figure = Figure(figsize=(9.6, 7.0), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(title, fontsize=_TITLE + 2)
    axes: list[Axes] = list(figure.subplots(2, 2).flat)
    # The light end of viridis is lost on white paper.
    colours = LinearSegmentedColormap.from_list("viridis-print", colormaps["viridis"](np.linspace(0, 0.92, 256)))
    first, last = when[drawn[0]], when[drawn[-1]]
    norm = Normalize(first, last) if last > first else Normalize(min(first, 0), max(last, 1))
    index = np.arange(1, f.shape[1] + 1)
    panels = (
        (f, "(a) Eigenvalues of F", "eigenvalue of F"),
        (wp, "(b) Eigenvalues of the predictor Wp", "real part of eigenvalue of Wp"),
        (cosines, "(c) Alignment of F and Wp", "cos(Wp vᵢ, vᵢ)"),
    )
    for axis, (rows, heading, label) in zip(axes, panels, strict=False):
        for record in drawn:
            axis.plot(index, rows[record], color=colours(norm(when[record])), linewidth=1.4)
        _dress(axis, heading, "index i, by eigenvalue of " + ("Wp" if rows is wp else "F") + " (1 = largest)", label)
        # The first curve's end often drops steeply, and would be lost on the frame.
        margin = 0.5 + 0.01 * len(index)
        axis.set_xlim(1 - margin, len(index) + margin)
        ticks = np.asarray(MaxNLocator(7, integer=True).tick_values(1, len(index)))
        axis.set_xticks([1, *ticks[(ticks > 1) & (ticks <= len(index))].tolist()])
    _log_axis(axes[0], f[drawn])
    axes[1].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[2].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[2].set_ylim(min(-0.05, float(cosines[drawn].min()) - 0.05), 1.05)
    _over_time(axes[3], when, asymmetries, ranks, f.shape[1])
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, aspect=40, pad=0.02)
    bar.set_label("epoch", fontsize=_LABEL)
    bar.ax.tick_params(labelsize=_TICK)
    if last == first:
        bar.set_ticks([float(last)])
    return figure


def spectra_figure(epochs: Sequence[float], spectra: Sequence[Spectrum], *, title: str, every: int = 5) -> Figure:
    """:func:`eigenspace_figure` of the spectra at some epochs, both (T,)."""
    return eigenspace_figure(
        epochs,
        np.stack([s.f_eigenvalues for s in spectra]),
        np.stack([s.wp_eigenvalues for s in spectra]),
        np.stack([s.alignment for s in spectra]),
        np.array([s.asymmetry for s in spectra]),
        np.array([s.effective_rank for s in spectra]),
        title=title,
        every=every,
    )


def shown_records(epochs: ArrayLike, every: int) -> list[int]:
    """Places of the records whose epoch is a multiple of ``every``, and of the first and the last, ascending."""
    when = np.asarray(epochs, dtype=np.float64)
    whole = np.abs(when / every - np.round(when / every)) < 1e-6
    return sorted({0, len(when) - 1, *np.flatnonzero(whole).tolist()})


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG (200 dots an inch), SVG or PDF, by the path's ending, whole or not at all.

    Raises:
        SSLLabError: another ending, or the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise SSLLabError(f"A figure cannot be written as {target.name!r}: the ending must be {', '.join(SUFFIXES)}.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    # A date in the file would make two drawings of the same run differ.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    try:
        figure.savefig(temporary, format=suffix[1:], dpi=200, facecolor="white", metadata=dated)
        os.replace(temporary, target)
    except OSError as error:
        raise SSLLabError(f"{target} could not be written: {error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _over_time(axis: Axes, when: Array, asymmetry: Array, ranks: Array | None, d: int) -> None:
    alone = len(when) == 1
    axis.plot(when, asymmetry, color=_ASYMMETRY, linewidth=1.8, marker="o" if alone else "")
    heading = "(d) Asymmetry of Wp" + ("" if ranks is None else " and effective rank of F")
    _dress(axis, heading, "epoch", "asymmetry Σ|Wp − Wpᵀ| / Σ|Wp|")
    _from_zero(axis, max(0.1, 1.08 * float(asymmetry.max())))
    margin = 0.5 if when[-1] == when[0] else 0.01 * float(when[-1] - when[0])
    axis.set_xlim(float(when[0]) - margin, float(when[-1]) + margin)
    if ranks is None:
        return
    axis.yaxis.label.set_color(_ASYMMETRY)
    axis.tick_params(axis="y", colors=_ASYMMETRY)
    other = axis.twinx()
    other.plot(when, ranks, color=_RANK, linewidth=1.8, linestyle="--", marker="s" if alone else "")
    other.set_ylabel(f"effective rank of F, of {d} (dashed)", fontsize=_LABEL, color=_RANK)
    other.tick_params(axis="y", colors=_RANK, labelsize=_TICK)
    _from_zero(other, max(1.0, 1.25 * float(ranks.max())))
    other.spines["top"].set_visible(False)


def _from_zero(axis: Axes, high: float) -> None:
    # A little below 0, so that the line of a symmetric predictor is not lost on the frame.
    axis.set_ylim(-0.03 * high, high)


def _log_axis(axis: Axes, rows: Array) -> None:
    positive = rows[rows > 0]
    if not positive.size:
        return  # A logarithmic axis of nothing but zeros has no place to put them.
    axis.set_yscale("log", nonpositive="mask")
    high = float(positive.max())
    low = max(float(positive.min()), SMALLEST_SHOWN * high)
    axis.set_ylim(low / 1.6, high * 1.6)


def _dress(axis: Axes, heading: str, below: str, beside: str) -> None:
    axis.set_title(heading, fontsize=_TITLE, loc="left")
    axis.set_xlabel(below, fontsize=_LABEL)
    axis.set_ylabel(beside, fontsize=_LABEL)
    axis.tick_params(labelsize=_TICK)
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines["top"].set_visible(False)
    axis.spines["right"].set_visible(False)


def _check(when: Array, f: Array, wp: Array, cosines: Array, asymmetry: Array, ranks: Array | None, every: int) -> None:
    if when.ndim != 1 or not len(when):
        raise ValueError("There are no records to draw.")
    if every < 1:
        raise ValueError(f"every must be 1 or more, and is {every}.")
    if f.ndim != 2 or f.shape[1] == 0:
        raise ValueError(f"f_eigenvalues must be (T, d), and is {f.shape}.")
    shapes = {"f_eigenvalues": f, "wp_eigenvalues": wp, "alignment": cosines}
    for name, array in shapes.items():
        if array.shape != (len(when), f.shape[1]):
            raise ValueError(f"{name} must be {(len(when), f.shape[1])}, and is {array.shape}.")
    for name, array in {"asymmetry": asymmetry, **({} if ranks is None else {"effective_rank": ranks})}.items():
        if array.shape != when.shape:
            raise ValueError(f"{name} must be {when.shape}, and is {array.shape}.")
