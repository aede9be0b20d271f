"""The linear theory of P against its test values: fixed points, basins of collapse, and two theorems along a path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_lab.reproduce.pictures import ETA, LONG, SIGMA2, STARTS
from ssl_lab.theory import (
    fixed_points,
    integrate_modes,
    integrate_weights,
    parabola,
    theorem1_residual,
    theorem3_residual,
)


@dataclass(frozen=True)
class Check:
    """A number of the theory beside what it must be."""

    what: str
    """In words."""
    found: float
    """Computed here."""
    expected: float
    """By the theory; for a residual 0."""
    tolerance: float
    """Largest difference that is rounding."""

    @property
    def holds(self) -> bool:
        """Whether it is as it must be."""
        return abs(self.found - self.expected) <= self.tolerance


def checks() -> list[Check]:
    """All of them, in a second."""
    points = fixed_points(ETA, SIGMA2)
    assert points.p_minus is not None
    assert points.p_plus is not None
    found = [
        Check("p₋, edge of the basin of collapse", points.p_minus, 0.053757, 5e-7),
        Check("p₊, what is learned", points.p_plus, 0.715474, 5e-7),
    ]
    for start, end in zip(STARTS, (0.0, 0.715474), strict=True):
        path = integrate_modes(start, parabola(start), times=np.array([0.0, LONG]), sigma2=SIGMA2, eta=ETA)
        found.append(Check(f"a mode from p = {start} comes to", float(path.p[-1, 0]), end, 1e-6))
    rng = np.random.default_rng(0)
    d, steps, dt = 6, 2_000, 1e-3
    wp, w = (0.3 * rng.normal(size=(d, d)) for _ in range(2))
    wp = wp + wp.T
    x = np.eye(d)
    wps, ws, _ = integrate_weights(wp, w, w, steps=steps, dt=dt, eta=ETA, x=x, x_aug=SIGMA2 * x)
    residual = theorem1_residual(wps, ws, dt * np.arange(steps + 1), eta=ETA)
    found.append(Check("theorem 1 along a path, largest residual", residual, 0.0, 1e-11))
    f = w @ w.T
    found.append(Check("theorem 3, largest residual", theorem3_residual(wp, f, sigma2=SIGMA2, eta=ETA), 0.0, 1e-12))
    return found
