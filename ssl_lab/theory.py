"""The linear model of P: why a predictor and a stop-gradient keep the trivial solution away.

**P** is Tian, Chen & Ganguli 2021, arXiv 2102.06810, sections 3 and 4 and its appendix. A linear online network W, a
linear predictor Wp and a linear target Wa follow the gradient of ``1/2 E |Wp W x1 - sg(Wa x2)|^2``. Symbols, all pure
numbers: ``sigma2`` variance of the augmentation (relative to the data's); ``eta`` weight decay; ``alpha_p`` rate of the
predictor relative to the network's; ``beta`` rate of the EMA; ``tau`` such that Wa = tau W, 1 for SimSiam; F = W W^T.
In the common eigenbasis of F and Wp, mode j has the gain p_j of the predictor and the eigenvalue s_j of F.

A real run differs (cosine loss, momentum, batch norm), so numbers carry over as tendencies only. torch's weight decay
lambda shrinks a weight by lr * lambda a step; in the units of this flow, where a step lasts lr, eta is lambda, and a
momentum of 0.9 makes ten steps of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]


@dataclass(frozen=True)
class FixedPoints:
    """Where a mode's gain p rests on the parabola s = p^2 / alpha_p, besides the collapse p = 0."""

    p_minus: float
    """Unstable: the edge of the basin of collapse. A mode that starts below it dies."""
    p_plus: float
    """Stable: what a mode that starts above p_minus learns."""


def critical_eta(sigma2: float, tau: float = 1.0) -> float:
    """The weight decay beyond which every mode collapses: tau^2 / (4 (1 + sigma2))."""
    return tau**2 / (4 * (1 + sigma2))


def fixed_points(sigma2: float, eta: float, tau: float = 1.0) -> FixedPoints | None:
    """p+- = [tau +- sqrt(tau^2 - 4 eta (1 + sigma2))] / (2 (1 + sigma2)), whatever alpha_p; None past the critical eta.

    Without weight decay p- is 0 (nothing collapses but what starts at 0) and p+ is tau / (1 + sigma2).
    """
    if not (sigma2 >= 0 and eta >= 0 and tau >= 0):
        raise ValueError(f"sigma2, eta and tau cannot be negative: {sigma2}, {eta}, {tau}.")
    inside = tau**2 - 4 * eta * (1 + sigma2)
    if inside < 0 or tau == 0:
        return None
    p_plus = (tau + math.sqrt(inside)) / (2 * (1 + sigma2))
    # The product of the roots is eta / (1 + sigma2); the difference in the formula would lose digits at small eta.
    return FixedPoints(p_minus=eta / ((1 + sigma2) * p_plus), p_plus=p_plus)


def parabola(p: ArrayLike, alpha_p: float = 1.0) -> Array:
    """s = p^2 / alpha_p: the curve that weight decay draws every mode (p, s) onto; of the shape of ``p``."""
    return np.asarray(np.square(np.asarray(p, dtype=np.float64)) / alpha_p)


def growth(p: ArrayLike, *, sigma2: float, eta: float, tau: ArrayLike = 1.0) -> Array:
    """D = p [tau - (1 + sigma2) p] - eta, the rate at which a mode grows: on the parabola dp/dt = p D."""
    p, tau = np.asarray(p, dtype=np.float64), np.asarray(tau, dtype=np.float64)
    return np.asarray(p * (tau - (1 + sigma2) * p) - eta)


def stays_aligned(
    p: ArrayLike, s: ArrayLike, *, sigma2: float, eta: float, alpha_p: float = 1.0, tau: ArrayLike = 1.0
) -> NDArray[np.bool_]:
    """Where a mode both learns and stays aligned: 0 < D < 1/2 [alpha_p (1 + sigma2) s + eta] (P section 3)."""
    d = growth(p, sigma2=sigma2, eta=eta, tau=tau)
    return np.asarray((d > 0) & (d < (alpha_p * (1 + sigma2) * np.asarray(s, dtype=np.float64) + eta) / 2))


def mode_flow(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    sigma2: float,
    eta: float,
    alpha_p: float = 1.0,
    beta: float | None = None,
) -> tuple[Array, Array, Array]:
    """(dp/dt, ds/dt, dtau/dt) of modes, each of the shape of ``p``; ``beta`` None holds tau where it is.

    ``dp/dt = alpha_p s [tau - (1 + sigma2) p] - eta p``, ``ds/dt = 2 p s [tau - (1 + sigma2) p] - 2 eta s``,
    ``dtau/dt = beta (1 - tau) - tau (ds/dt) / (2 s)`` (P section 3).
    """  # fmt: skip
    p, s, tau = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (p, s, tau)))
    pull = tau - (1 + sigma2) * p
    rate = p * pull - eta  # (ds/dt) / (2 s), written so that s = 0 is no division by zero.
    dtau = np.zeros_like(p) if beta is None else beta * (1 - tau) - tau * rate
    return np.asarray(alpha_p * s * pull - eta * p), np.asarray(2 * s * rate), np.asarray(dtau)


def mode_invariant(p: ArrayLike, s: ArrayLike, time: ArrayLike, *, eta: float, alpha_p: float = 1.0) -> Array:
    """c = exp(2 eta t) (s - p^2 / alpha_p), which no mode ever changes (P theorem 1; its main text flips c's sign)."""
    time, s = np.asarray(time, dtype=np.float64), np.asarray(s, dtype=np.float64)
    return np.asarray(np.exp(2 * eta * time) * (s - parabola(p, alpha_p)))


@dataclass(frozen=True, eq=False)
class ModePath:
    """n modes followed through T times."""

    times: Array
    """(T,)"""
    p: Array
    """(T, n) gain of the predictor."""
    s: Array
    """(T, n) eigenvalue of F."""
    tau: Array
    """(T, n) target over online network."""


def integrate_modes(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    times: ArrayLike,
    sigma2: float,
    eta: float,
    alpha_p: float = 1.0,
    beta: float | None = None,
) -> ModePath:
    """Follows modes from (p, s, tau), scalars or (n,), at ``times[0]`` through ``times`` (T,), increasing.

    Raises:
        RuntimeError: the integrator gave up, in its own words.
    """  # fmt: skip
    # scipy's integrators take longer to import than everything else here, and drawing a curve needs none.
    from scipy.integrate import solve_ivp

    when = np.asarray(times, dtype=np.float64)
    start = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (p, s, tau))))

    def flow(_time: float, y: Array) -> Array:
        return np.concatenate(mode_flow(*y.reshape(start.shape), sigma2=sigma2, eta=eta, alpha_p=alpha_p, beta=beta))

    found = solve_ivp(flow, (when[0], when[-1]), start.ravel(), "LSODA", when, rtol=1e-10, atol=1e-13)
    if not found.success:
        raise RuntimeError(f"The modes could not be followed: {found.message}")
    path = np.asarray(found.y, dtype=np.float64).T.reshape(len(when), *start.shape)
    return ModePath(when, path[:, 0], path[:, 1], path[:, 2])


def matrix_flow(
    wp: Array, f: Array, *, sigma2: float, eta: float, alpha_p: float = 1.0, tau: float = 1.0
) -> tuple[Array, Array]:
    """(dWp/dt, dF/dt) for a symmetric predictor and white data, with {A, B} = AB + BA (P section 3), each (d, d).

    ``dWp/dt = -(alpha_p / 2) (1 + sigma2) {Wp, F} + alpha_p tau F - eta Wp`` and
    ``dF/dt = -(1 + sigma2) {Wp^2, F} + tau {Wp, F} - 2 eta F``.
    """
    both, square = wp @ f + f @ wp, wp @ wp
    dwp = -alpha_p / 2 * (1 + sigma2) * both + alpha_p * tau * f - eta * wp
    return dwp, -(1 + sigma2) * (square @ f + f @ square) + tau * both - 2 * eta * f


def integrate_matrices(
    wp: Array,
    f: Array,
    *,
    steps: int,
    dt: float = 1e-2,
    sigma2: float,
    eta: float,
    alpha_p: float = 1.0,
    tau: float = 1.0,
) -> tuple[Array, Array]:
    """Wp and F at times 0, dt, ..., steps dt by RK4: two arrays (steps + 1, d, d)."""  # fmt: skip

    def flow(y: State) -> State:
        return matrix_flow(*y, sigma2=sigma2, eta=eta, alpha_p=alpha_p, tau=tau)

    wps, fs = _rk4(flow, (wp, f), steps, dt)
    return wps, fs


def commutator_gain(wp: Array, f: Array, *, sigma2: float, eta: float, alpha_p: float = 1.0, tau: float = 1.0) -> Array:
    """K = (1 + sigma2) [alpha_p F / 2 + Wp^2 - tau Wp / (1 + sigma2)] + 3/2 eta I of P's theorem 3, (d, d)."""
    return (1 + sigma2) * (alpha_p * f / 2 + wp @ wp) - tau * wp + 1.5 * eta * np.eye(len(f))


def alignment_rate(wp: Array, f: Array, *, sigma2: float, eta: float, alpha_p: float = 1.0, tau: float = 1.0) -> float:
    """l0, the smallest eigenvalue of K: while it is at least l0 > 0, |[F, Wp]| <= exp(-2 l0 t) |[F, Wp](0)|."""
    return float(np.linalg.eigvalsh(commutator_gain(wp, f, sigma2=sigma2, eta=eta, alpha_p=alpha_p, tau=tau))[0])


def theorem3_residual(
    wp: Array, f: Array, *, sigma2: float, eta: float, alpha_p: float = 1.0, tau: float = 1.0
) -> float:
    """Largest entry of |dL/dt + L K + K L| for L = [F, Wp] under :func:`matrix_flow`; 0 but for rounding."""
    dwp, df = matrix_flow(wp, f, sigma2=sigma2, eta=eta, alpha_p=alpha_p, tau=tau)
    k = commutator_gain(wp, f, sigma2=sigma2, eta=eta, alpha_p=alpha_p, tau=tau)
    commutator = f @ wp - wp @ f
    change = df @ wp - wp @ df + f @ dwp - dwp @ f
    return float(np.abs(change + commutator @ k + k @ commutator).max())


def weight_flow(
    wp: Array,
    w: Array,
    wa: Array,
    *,
    x: Array,
    x_aug: Array,
    eta: float,
    alpha_p: float = 1.0,
    beta: float | None = None,
) -> tuple[Array, Array, Array]:
    """(dWp/dt, dW/dt, dWa/dt) of the whole model: Wp (d, d), W and Wa (d, n), any data (P section 3).

    ``x`` is X = E[x x^T] and ``x_aug`` X' = E Cov(x'|x), both (n, n). With ``E = -Wp W (X + X') + Wa X``:
    ``dWp/dt = alpha_p E W^T - eta Wp``, ``dW/dt = Wp^T E - eta W``, ``dWa/dt = beta (W - Wa)``. ``beta`` None is
    SimSiam: W stands in for Wa throughout.
    """  # fmt: skip
    error = -wp @ w @ (x + x_aug) + (w if beta is None else wa) @ x
    dw = wp.T @ error - eta * w
    return alpha_p * error @ w.T - eta * wp, dw, dw if beta is None else beta * (w - wa)


def integrate_weights(
    wp: Array,
    w: Array,
    wa: Array,
    *,
    steps: int,
    dt: float = 1e-2,
    x: Array,
    x_aug: Array,
    eta: float,
    alpha_p: float = 1.0,
    beta: float | None = None,
) -> tuple[Array, Array, Array]:
    """Wp, W and Wa at times 0, dt, ..., steps dt by RK4, each with a leading axis of steps + 1."""  # fmt: skip

    def flow(y: State) -> State:
        return weight_flow(*y, x=x, x_aug=x_aug, eta=eta, alpha_p=alpha_p, beta=beta)

    wps, ws, was = _rk4(flow, (wp, w, wa), steps, dt)
    return wps, ws, was


def theorem1_residual(wp: Array, w: Array, times: ArrayLike, *, eta: float, alpha_p: float = 1.0) -> float:
    """Largest entry of |W W^T - Wp^T Wp / alpha_p - exp(-2 eta t) C| over a path; 0 but for rounding (P theorem 1).

    Args:
        wp, w: the path, (T, d, d) and (T, d, n); C is taken from the first moment.
        times: (T,), counted from the first.
        eta, alpha_p: as in the flow.
    """
    gap = w @ w.transpose(0, 2, 1) - wp.transpose(0, 2, 1) @ wp / alpha_p
    fade = np.exp(-2 * eta * (np.asarray(times, dtype=np.float64) - np.asarray(times)[0]))
    return float(np.abs(gap - fade[:, None, None] * gap[0]).max())


def _rk4(flow: Callable[[State], State], start: Sequence[Array], steps: int, dt: float) -> list[Array]:
    y: State = tuple(np.asarray(part, dtype=np.float64) for part in start)
    path = [np.empty((steps + 1, *part.shape)) for part in y]

    def ahead(slope: State, by: float) -> State:
        return tuple(part + by * k for part, k in zip(y, slope, strict=True))

    for step in range(steps + 1):
        for kept, part in zip(path, y, strict=True):
            kept[step] = part
        k1 = flow(y)
        k2 = flow(ahead(k1, dt / 2))
        k3 = flow(ahead(k2, dt / 2))
        k4 = flow(ahead(k3, dt))
        y = ahead(tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)), dt / 6)
    return path
