"""Small pictures for the front page, as SVG: of recorded runs and of the linear theory, drawn once and kept."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssl_lab.store import Event, SpectrumRecord

Array = NDArray[np.float64]

WIDTH, HEIGHT = 320, 150
"""Of a picture on a card."""

LEAST = 1e-5
"""Lower end of the logarithmic axis of eigenvalues as parts of the largest; its upper end is 1."""


@dataclass(frozen=True)
class Picture:
    """A drawing and what it shows, in words."""

    svg: str
    words: str


def svg(body: str, words: str, width: float = WIDTH, height: float = HEIGHT, kind: str = "") -> Picture:
    """A picture that takes its colours from the page and says what it shows."""
    label = f'role="img" aria-label="{html.escape(words, quote=True)}"' if words else 'aria-hidden="true"'
    box = f'viewBox="0 0 {width:g} {height:g}"' + (' preserveAspectRatio="none"' if kind else "")
    return Picture(f"<svg {box} {label}{f' class={kind}' if kind else ''}>{body}</svg>", words)


def path(x: ArrayLike, y: ArrayLike, kind: str = "line") -> str:
    """A line through points in the picture's own units; gaps where a number is missing."""
    words, pen = [], "M"
    for a, b in zip(np.asarray(x, float), np.asarray(y, float), strict=True):
        if not (np.isfinite(a) and np.isfinite(b)):
            pen = "M"
            continue
        words.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L"
    return f'<path class="{kind}" d="{"".join(words)}"/>' if len(words) > 1 else ""


def scaled(values: ArrayLike, low: float, high: float, start: float, end: float) -> Array:
    """Values between ``low`` and ``high`` to a place between ``start`` and ``end``; those outside stay at the ends."""
    share = (np.asarray(values, float) - low) / ((high - low) or 1.0)
    return np.asarray(start + np.clip(share, 0, 1) * (end - start))


def sparkline(steps: ArrayLike, values: ArrayLike, words: str) -> str:
    """A run's curve beside its name: ``steps`` to the right, from nought to the largest value upwards."""
    x, y = np.asarray(steps, float), np.asarray(values, float)
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) < 2:
        return ""
    top = max(float(y.max()), 1e-9)
    return svg(path(scaled(x, x[0], x[-1], 1, 89), scaled(y, 0, top, 23, 2)), words, 90, 24, "spark").svg


def _turned(events: Sequence[Event], last: int) -> str:
    places = scaled([event.step for event in events], 0, last, 8, WIDTH - 8)
    return "".join(f'<path class="mark" d="M{x:.1f} 8V{HEIGHT - 8}"/>' for x in places)


def shares(spectra: Sequence[SpectrumRecord]) -> Array:
    """Eigenvalues of F as parts of the largest of their moment, (moments, directions)."""
    values = np.array([record.spectrum.f_eigenvalues for record in spectra], float)
    return np.asarray(np.maximum(values, 0) / np.maximum(values.max(axis=1, keepdims=True), 1e-30))


def _log(values: ArrayLike) -> Array:
    return scaled(np.log10(np.clip(np.asarray(values, float), LEAST, 1)), np.log10(LEAST), 0, HEIGHT - 10, 8)


def bench(spectra: Sequence[SpectrumRecord], events: Sequence[Event]) -> Picture:
    """The eigenvalues of F over a run."""
    last = spectra[-1].step
    x = scaled([record.step for record in spectra], 0, last, 8, WIDTH - 8)
    values = shares(spectra)
    lines = "".join(path(x, _log(values[:, k]), "line thin") for k in range(0, values.shape[1], 2))
    return svg(
        _turned(events, last) + lines,
        "Eigenvalues of F, as parts of the largest, over a recorded run: they fall when one knob is turned, and rise "
        "after another.",
    )


def collapse(spectra: Sequence[SpectrumRecord], events: Sequence[Event]) -> Picture:
    """The effective rank of F over a run."""
    last = spectra[-1].step
    x = scaled([record.step for record in spectra], 0, last, 8, WIDTH - 8)
    rank = np.array([record.spectrum.effective_rank for record in spectra])
    y = scaled(rank, 0, max(rank.max(), 1.0), HEIGHT - 10, 12)
    area = f'<path class="area" d="M{x[0]:.1f} {HEIGHT - 10}' + "".join(
        f"L{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)
    )
    area += f'L{x[-1]:.1f} {HEIGHT - 10}Z"/>'
    return svg(
        area + _turned(events, last) + path(x, y),
        "Effective rank of a recorded run: it falls to one without a predictor, and rises again with one.",
    )


def alignment(spectra: Sequence[SpectrumRecord], _events: Sequence[Event]) -> Picture:
    """How far Wp keeps each eigenvector of F, early and late in a run."""
    early, late = spectra[0].spectrum.alignment, spectra[-1].spectrum.alignment
    x = scaled(np.arange(len(late)), 0, len(late) - 1, 12, WIDTH - 12)
    body = f'<path class="axis" d="M8 {_one(1.0):.1f}H{WIDTH - 8}"/>'
    for values, kind in ((early, "dot hollow"), (late, "dot")):
        body += "".join(
            f'<circle class="{kind}" cx="{a:.1f}" cy="{_one(b):.1f}" r="3.4"/>' for a, b in zip(x, values, strict=True)
        )
    return svg(body, "Alignment of each direction of Wp with F at the first and the last spectrum of a recorded run.")


def _one(value: float) -> float:
    return float(scaled(value, 0, 1, HEIGHT - 10, 14))


def predictor(spectra: Sequence[SpectrumRecord], _events: Sequence[Event]) -> Picture:
    """Eigenvalues of Wp over those of F, with DirectPred's square root."""
    newest = spectra[-1].spectrum
    top = float(np.max(newest.f_eigenvalues))
    low, high = float(np.min(newest.wp_diagonal)), float(np.max(newest.wp_diagonal))
    x = scaled(np.sqrt(newest.f_eigenvalues / top), 0, 1, 12, WIDTH - 12)
    y = scaled(newest.wp_diagonal, 0, high, HEIGHT - 10, 14)
    dots = "".join(f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3.4"/>' for a, b in zip(x, y, strict=True))
    line = path([12, WIDTH - 12], scaled([low, high], 0, high, HEIGHT - 10, 14), "line ghost")
    return svg(
        line + dots, "Gain of the predictor by direction over the square root of F's eigenvalues, recorded: a line."
    )


def reproduce(runs: Sequence[tuple[ArrayLike, ArrayLike]]) -> Picture:
    """Accuracy over several runs, each given as (steps, accuracies)."""
    curves = [(_halved(x), _halved(y)) for x, y in runs if len(np.asarray(x)) > 1]
    last = max((float(x[-1]) for x, _ in curves), default=1.0)
    top = 1.15 * max((float(y.max()) for _, y in curves), default=1.0)
    lines = "".join(
        path(
            scaled(x, 0, last, 8, WIDTH - 8),
            scaled(y, 0, top, HEIGHT - 10, 10),
            ("line", "line ghost", "line turned")[k % 3],
        )
        for k, (x, y) in enumerate(curves)
    )
    axis = f'<path class="axis" d="M8 8V{HEIGHT - 10}H{WIDTH - 8}"/>'
    return svg(axis + lines, "Accuracy by kNN over recorded runs, from nought upwards.")


def sweep(runs: Sequence[tuple[ArrayLike, float]]) -> Picture:
    """A row for each of a few runs, given as (shares of F's eigenvalues, accuracy in [0, 1]): bars, and a dot."""
    height = (HEIGHT - 16) / max(len(runs), 1)
    body = ""
    for row, (values, accuracy) in enumerate(runs):
        foot = 8 + height * (row + 1) - 6
        tops = scaled(np.log10(np.clip(np.asarray(values, float)[:12], LEAST, 1)), np.log10(LEAST), 0, 0, height - 12)
        body += f'<path class="axis" d="M12 {foot:.1f}H{WIDTH - 12}"/>'
        bars = "".join(f"M{18 + 10 * k:.1f} {foot:.1f}v{-max(top, 1.0):.1f}" for k, top in enumerate(tops))
        body += f'<path class="bar" d="{bars}"/>'
        x = float(scaled(accuracy, 0, 1, 160, WIDTH - 18))
        middle = foot - height / 2 + 6
        body += f'<path class="line ghost" d="M160 {middle:.1f}H{x:.1f}"/>'
        body += f'<circle class="dot" cx="{x:.1f}" cy="{middle:.1f}" r="5"/>'
    return svg(body, "Recorded runs, a row each: the eigenvalues of F as bars, and accuracy by kNN as a dot.")


def _halved(values: ArrayLike) -> Array:
    """Means of neighbours, where a curve holds the least and the greatest of each stretch."""
    array = np.asarray(values, float)
    return array[: len(array) // 2 * 2].reshape(-1, 2).mean(axis=1) if len(array) > 20 else array


def theory(sigma2: float = 0.3, eta: float = 0.05) -> Picture:
    """Paths of the linear theory's modes in the plane of s and p, at tau = 1 and alpha_p = 1.

    dp/dt = s [1 - (1 + sigma2) p] - eta p        ds/dt = 2 p s [1 - (1 + sigma2) p] - 2 eta s
    """

    def flow(state: Array) -> Array:
        p, s = state
        drive = 1 - (1 + sigma2) * p
        return np.array([s * drive - eta * p, 2 * p * s * drive - 2 * eta * s])

    start = np.array([(p, s) for p in np.linspace(0.02, 0.98, 7) for s in np.linspace(0.02, 0.98, 5)]).T
    states, dt = [start], 0.05
    for _ in range(400):
        a = flow(states[-1])
        b = flow(states[-1] + dt / 2 * a)
        c = flow(states[-1] + dt / 2 * b)
        d = flow(states[-1] + dt * c)
        states.append(states[-1] + dt / 6 * (a + 2 * b + 2 * c + d))
    paths = np.array(states)[::3]

    def place(p: ArrayLike, s: ArrayLike) -> tuple[Array, Array]:
        return scaled(s, 0, 1, 8, WIDTH - 8), scaled(p, 0, 1, HEIGHT - 10, 8)

    lines = "".join(path(*place(paths[:, 0, k], paths[:, 1, k]), "line thin") for k in range(start.shape[1]))
    gains = np.linspace(0, 1, 60)
    parabola = path(*place(gains, gains**2), "line ghost")
    dots = ""
    root = np.sqrt(1 - 4 * eta * (1 + sigma2))
    for p, kind in (
        (0.0, "dot"),
        ((1 - root) / (2 * (1 + sigma2)), "dot hollow"),
        ((1 + root) / (2 * (1 + sigma2)), "dot"),
    ):
        x, y = place(p, p**2)
        dots += f'<circle class="{kind}" cx="{float(x):.1f}" cy="{float(y):.1f}" r="4.5"/>'
    return svg(
        lines + parabola + dots,
        "Flow of the linear theory: paths come to the parabola, and end at collapse or at the learned fixed point.",
    )


def plain(name: str) -> Picture:
    """For a notebook that has no picture: bars of falling height, the sign of the lab."""
    heights = (1.0, 0.82, 0.6, 0.38, 0.2)
    bars = "".join(
        f'<path class="bar wide" d="M{60 + 50 * k} {HEIGHT - 20}V{HEIGHT - 20 - 105 * h:.0f}"/>'
        for k, h in enumerate(heights)
    )
    return svg(bars, "")


OF_RUN: Mapping[str, Callable[[Sequence[SpectrumRecord], Sequence[Event]], Picture]] = {
    "bench": bench,
    "collapse": collapse,
    "alignment": alignment,
    "predictor": predictor,
}
"""Pictures that are drawn from a recorded run's spectra and events."""

BY_NUMBER = ("bench", "theory", "collapse", "alignment", "predictor", "reproduce", "sweep")
"""Pictures of the notebooks 01 to 07, where they do not say which."""
