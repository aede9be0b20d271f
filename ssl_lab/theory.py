"""The linear model of P: why a predictor and a stop-gradient keep the trivial solution away.

**P** is Tian, Chen & Ganguli 2021, arXiv 2102.06810, sections 3 and 4 and its appendix. A linear online network W, a
linear predictor Wp and a linear target Wa follow the gradient of ``1/2 E |Wp W x1 - sg(Wa x2)|^2``. Symbols, all pure
numbers: ``sigma2`` variance of the augmentation (relative to the data's); ``eta`` weight decay; ``alpha_p`` rate of the
predictor relative to the network's; ``beta`` rate of the EMA; ``tau`` such that Wa = tau W, 1 for SimSiam; F = W W^T.
In the common eigenbasis of F and Wp, mode j has the gain p_j of the predictor and the eigenvalue s_j of F.

What a run's knobs are in these symbols, and how far that goes, stands in :mod:`ssl_lab.mapping`: exact for the preset
``linear``, a tendency for any real run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]

# ---------------------------------------------------------------- where a mode can rest


@dataclass(frozen=True)
class FixedPoint:
    """A gain at which a mode on the parabola s = p^2 / alpha_p rests."""

    p: float
    """The gain."""
    stable: bool
    """Whether a mode a little off it, on either side that there is, comes back."""


@dataclass(frozen=True)
class FixedPoints:
    """Where a mode's gain p rests on the parabola s = p^2 / alpha_p, whatever alpha_p."""

    zero: FixedPoint
    """Collapse: stable with weight decay, and not without."""
    minus: FixedPoint | None
    """Unstable: the edge of the basin of collapse; None past the critical weight decay."""
    plus: FixedPoint | None
    """Stable: what a mode that starts above p- learns; None past the critical weight decay."""

    @property
    def p_minus(self) -> float | None:
        """p-, if there is one."""
        return None if self.minus is None else self.minus.p

    @property
    def p_plus(self) -> float | None:
        """p+, if there is one."""
        return None if self.plus is None else self.plus.p


def critical_eta(sigma2: float, tau: float = 1.0) -> float:
    """The weight decay beyond which every mode collapses: tau^2 / (4 (1 + sigma2))."""
    return tau**2 / (4 * (1 + sigma2))


def fixed_points(eta: float, sigma2: float, tau: float = 1.0) -> FixedPoints:
    """0 and p+- = [tau +- sqrt(tau^2 - 4 eta (1 + sigma2))] / (2 (1 + sigma2)) with their stability (P section 3).

    Without weight decay p- meets 0 (of the parabola nothing collapses but what starts at 0) and p+ is
    tau / (1 + sigma2). At the critical weight decay p- and p+ meet, and what lies a little below them collapses.

    Raises:
        ValueError: a parameter is negative or not finite.
    """
    if not all(math.isfinite(x) and x >= 0 for x in (eta, sigma2, tau)):
        raise ValueError(f"eta, sigma2 and tau must be finite and cannot be negative: {eta}, {sigma2}, {tau}.")
    zero = FixedPoint(0.0, stable=eta > 0)
    inside = tau**2 - 4 * eta * (1 + sigma2)
    if inside < 0 or tau == 0:
        return FixedPoints(zero, None, None)
    p_plus = (tau + math.sqrt(inside)) / (2 * (1 + sigma2))
    # The product of the roots is eta / (1 + sigma2); the difference in the formula would lose digits at small eta.
    p_minus = eta / ((1 + sigma2) * p_plus)
    return FixedPoints(zero, FixedPoint(p_minus, stable=False), FixedPoint(p_plus, stable=inside > 0))


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


# ---------------------------------------------------------------- modes


def mode_flow(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    sigma2: ArrayLike,
    eta: ArrayLike,
    alpha_p: ArrayLike = 1.0,
    beta: ArrayLike | None = None,
    stop_gradient: bool = True,
    predictor: bool = True,
) -> tuple[Array, Array, Array]:
    """(dp/dt, ds/dt, dtau/dt) of modes, of the shape that all arguments broadcast to.

    ``dp/dt = alpha_p s [tau - (1 + sigma2) p] - eta p``, ``ds/dt = 2 p s [tau - (1 + sigma2) p] - 2 eta s``,
    ``dtau/dt = beta (1 - tau) - tau (ds/dt) / (2 s)`` (P section 3).

    Args:
        p, s, tau: gain, eigenvalue of F, and target over online network.
        sigma2, eta, alpha_p: as in the module's text.
        beta: rate of the EMA; None holds tau where it is.
        stop_gradient: without, the online network is its own target (tau is 1, whatever it is said to be) and the
            gradient flows through both of its passes: ``ds/dt = -2 s [(1 - p)^2 + sigma2 (1 + p^2) + eta]``, never
            above ``-2 s (sigma2 + eta)``, so that every mode dies (P theorem 2); dp/dt is as with tau = 1.
        predictor: without, p stays where it is; at p = 1, the identity, ``ds/dt = -2 s (1 + sigma2 - tau + eta)``.
    """  # fmt: skip
    given = p, s, tau, sigma2, eta, alpha_p, 0.0 if beta is None else beta
    p, s, tau, sigma2, eta, alpha_p, follow = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in given))
    if not stop_gradient:
        tau = np.ones_like(p)
    pull = tau - (1 + sigma2) * p
    # (ds/dt) / (2 s), written so that s = 0 is no division by zero.
    rate = p * pull - eta if stop_gradient else -((1 - p) ** 2 + sigma2 * (1 + p**2) + eta)
    dp = alpha_p * s * pull - eta * p if predictor else np.zeros_like(p)
    moves = stop_gradient and beta is not None
    dtau = follow * (1 - tau) - tau * rate if moves else np.zeros_like(p)
    return np.asarray(dp), np.asarray(2 * s * rate), np.asarray(dtau)


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
    """(T, n) target over online network; nan for a mode that is dead while its target still moves."""


def integrate_modes(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    times: ArrayLike,
    sigma2: ArrayLike,
    eta: ArrayLike,
    alpha_p: ArrayLike = 1.0,
    beta: ArrayLike | None = None,
    stop_gradient: bool = True,
    predictor: bool = True,
) -> ModePath:
    """Follows modes from (p, s, tau) at ``times[0]`` through ``times`` (T,), increasing, to 1e-10 of each.

    All else is as in :func:`mode_flow`: scalars or (n,), so that each mode may have settings of its own.

    Raises:
        RuntimeError: the integrator gave up, in its own words.
    """  # fmt: skip
    # scipy's integrators take longer to import than everything else here, and drawing a curve needs none.
    from scipy.integrate import solve_ivp

    when = np.asarray(times, dtype=np.float64)
    given = (p, s, tau, sigma2, eta, alpha_p, 0.0 if beta is None else beta)
    p, s, tau, sigma2, eta, alpha_p, follow = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in given)
    )
    moves = stop_gradient and beta is not None
    root = np.sqrt(s)

    def flow(_time: float, y: Array) -> Array:
        if moves:
            p, w, wa = y.reshape(-1, 3).T
            pull = wa - (1 + sigma2) * p * w
            dp = alpha_p * w * pull - eta * p if predictor else np.zeros_like(p)
            return np.stack([dp, p * pull - eta * w, follow * (w - wa)], axis=1).ravel()
        p, s = y.reshape(-1, 2).T
        dp, ds, _ = mode_flow(
            p, s, tau, sigma2=sigma2, eta=eta, alpha_p=alpha_p, stop_gradient=stop_gradient, predictor=predictor
        )
        return np.stack([dp, ds], axis=1).ravel()

    # With an EMA as w = sqrt(s) and wa = tau w: the tau of a mode that dies may grow without end.
    start = np.stack([p, root, tau * root] if moves else [p, s], axis=1)
    # A mode's numbers lie side by side and depend on no other mode's, hence the band: with a full Jacobian the time
    # would go with the cube of the number of modes.
    band = start.shape[1] - 1
    found = solve_ivp(
        flow, (when[0], when[-1]), start.ravel(), "LSODA", when, rtol=1e-10, atol=1e-13, lband=band, uband=band
    )  # fmt: skip
    if not found.success:
        raise RuntimeError(f"The modes could not be followed: {found.message}")
    path = np.asarray(found.y, dtype=np.float64).T.reshape(len(when), *start.shape)
    if not moves:
        return ModePath(
            when, path[..., 0], path[..., 1], np.broadcast_to(tau if stop_gradient else 1.0, path.shape[:2])
        )
    w, wa = path[..., 1], path[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.abs(w) > _DEAD, wa / w, np.nan)
    return ModePath(when, path[..., 0], w**2, ratio)


_DEAD = 1e-9
"""Below this root of s a mode is dead, and what its target is in units of it means nothing."""


# ---------------------------------------------------------------- basins


def basin_edge(s: ArrayLike, *, eta: float, sigma2: float, alpha_p: float = 1.0, tau: float = 1.0) -> Array:
    """p(s) of the shape of ``s``: a mode that starts at s below this gain collapses; inf where any gain does.

    See :func:`basin_edges`, which has the edge above too.
    """
    return basin_edges(s, eta=eta, sigma2=sigma2, alpha_p=alpha_p, tau=tau)[0]


def basin_edges(
    s: ArrayLike, *, eta: float, sigma2: float, alpha_p: float = 1.0, tau: float = 1.0
) -> tuple[Array, Array]:
    """(low, high) of the shape of ``s``: a mode that starts at (s, p) is learned if low < p < high, else it collapses.

    The two are one curve, the stable manifold of p- in the plane of (s, p), found by following the flow backwards from
    p-. On the parabola low is p-. Above the parabola (large s) a smaller gain is enough, at last even a negative one;
    below it more is needed, until no gain is enough (low and high are inf). A gain far above p+ is too much: it shrinks
    s faster than p itself comes down, hence high.

    Without weight decay the invariant s - p^2 / alpha_p stays as it is, and the edges are those of its hyperbolas that
    end on the collapsed branch s = 0: ``low = -sqrt(alpha_p s)``, ``high^2 = (tau / (1 + sigma2))^2 + alpha_p s``.

    Args:
        s: eigenvalues of F, not negative, of any shape.
        eta, sigma2, alpha_p, tau: as in :func:`mode_flow`, tau being held.

    Raises:
        ValueError: a parameter is negative, alpha_p is not positive, or an s is negative.
    """
    s = np.asarray(s, dtype=np.float64)
    if not (alpha_p > 0 and math.isfinite(alpha_p)) or (s < 0).any():
        raise ValueError(f"alpha_p must be positive and no s negative: alpha_p = {alpha_p}, smallest s = {s.min()}.")
    points = fixed_points(eta, sigma2, tau)
    nowhere = np.full(s.shape, np.inf)
    if points.minus is None or points.plus is None or not points.plus.stable:
        return nowhere, nowhere.copy()
    alive = s > 0
    if eta == 0:
        low, high = -np.sqrt(alpha_p * s), np.sqrt((tau / (1 + sigma2)) ** 2 + alpha_p * s)
        return np.where(alive, low, np.inf), np.where(alive, high, np.inf)
    # With x = (1 + sigma2) p / tau and y = alpha_p s ((1 + sigma2) / tau)^2 one number is left of the four.
    unit = tau / (1 + sigma2)
    log_y = np.log(np.where(alive, alpha_p * s / unit**2, 1.0))
    # In steps, so that curves of similar extent are the same curve.
    top = 4.0 * math.ceil(max(float(log_y.max(initial=0.0)), 0.0) / 4.0 + 0.25)
    edges = _separatrix(eta * (1 + sigma2) / tau**2, top)
    found = [
        np.where(alive & (log_y >= edge_y[0]), np.interp(log_y, edge_y, edge_x), np.inf) for edge_x, edge_y in edges
    ]
    low, high = (np.where(np.isfinite(x), unit * x, np.inf) for x in found)
    return np.asarray(low), np.asarray(high)


@lru_cache(maxsize=64)
def _separatrix(h: float, top: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The edges ((x, log y), (x, log y)), the low one and the high one, each with log y rising to ``top``.

    In the units of :func:`basin_edges`, ``dx/dt = y (1 - x) - h x`` and ``dy/dt = 2 y [x (1 - x) - h]``, 0 < h < 1/4.
    Backwards from x- along the stable manifold x goes one way for good, so that it can stand for the time.
    """
    from scipy.integrate import solve_ivp

    root = math.sqrt(1 - 4 * h)
    x_plus = (1 + root) / 2
    x_minus = h / x_plus

    def slope(x: float, log_y: Array) -> Array:
        # With little weight decay the curve is steep: a trial step may go far beyond the top.
        y = np.exp(np.minimum(log_y, top + 10))
        return np.asarray(2 * (x * (1 - x) - h) / (y * (1 - x) - h * x))

    def over(_x: float, log_y: Array) -> float:
        return float(log_y[0] - top)

    over.terminal, over.direction = True, 1  # type: ignore[attr-defined]  # where solve_ivp looks for them

    def branch(side: int, start: float) -> tuple[Array, Array]:
        # A little off the saddle along its stable direction, dy/dx = x- (x-^2 - h) / h.
        x0 = x_minus * (1 + side * start)
        y0 = x_minus**2 + x_minus * (x_minus**2 - h) / h * (x0 - x_minus)
        end = x0 + side * (2 + 2 * math.exp(top / 2))
        found = solve_ivp(
            slope, (x0, end), [math.log(y0)], "LSODA", rtol=1e-10, atol=1e-10, dense_output=True, events=over
        )  # fmt: skip
        if not found.success:
            raise RuntimeError(f"The edge of the basin could not be followed: {found.message}")
        knots = np.concatenate([np.linspace(a, b, 12, endpoint=False) for a, b in pairwise(found.t)])
        x = np.append(knots, found.t[-1])
        assert found.sol is not None
        return x, found.sol(x)[0]

    down_x, down_y = branch(-1, 1e-6)
    up_x, up_y = branch(1, 1e-6)
    # Past x+ the curve turns back to larger y.
    turn = int(up_y.argmin())
    low = (
        np.concatenate([up_x[turn::-1], [x_minus], down_x]),
        np.concatenate([up_y[turn::-1], [2 * math.log(x_minus)], down_y]),
    )
    return low, (up_x[turn:], up_y[turn:])


@dataclass(frozen=True, eq=False)
class PhaseMap:
    """Where modes end and how fast; arrays of the shape that all that was given broadcasts to."""

    learned: NDArray[np.bool_]
    """Whether a mode ends at p+; else it collapses, or nothing was decided."""
    p: Array
    """The gain at which it ends; nan where nothing was decided."""
    time: Array
    """When the end is near and certain; inf where nothing was decided. See :func:`phase_map`."""


def phase_map(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    *,
    sigma2: ArrayLike,
    eta: ArrayLike,
    alpha_p: ArrayLike = 1.0,
    beta: ArrayLike | None = None,
    near: float = 0.01,
    longest: float = 1e5,
) -> PhaseMap:
    """Where modes of many starts or settings end, all of them at once: 200 x 200 within two seconds.

    Each mode is followed with steps of its own (Dormand & Prince's pair of orders 5 and 4, to 1e-6) until its end is
    certain: p+ where p, sqrt(alpha_p s) and tau are all within ``near`` of theirs (a share of p+ less p-, of tau's of
    1), collapse where they are all small enough that nothing leads back, and within ``near`` of tau / (1 + sigma2), or
    where s has fallen below 1e-300.

    Args:
        p, s, tau, sigma2, eta, alpha_p, beta: as in :func:`mode_flow`, anything that broadcasts.
        near: how near an end counts as reached.
        longest: time after which nothing is decided, such as right on the edge of a basin.

    Raises:
        ValueError: sigma2, eta, tau or an s is negative, or alpha_p is not positive.
    """  # fmt: skip
    given = (p, s, tau, sigma2, eta, alpha_p, np.nan if beta is None else beta)
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in given))
    p, s, tau, sigma2, eta, alpha_p, follow = (x.ravel() for x in arrays)
    if any((x < 0).any() for x in (s, tau, sigma2, eta)) or (alpha_p <= 0).any():
        raise ValueError("No s, tau, sigma2 or eta can be negative, and alpha_p must be positive.")
    shape, count = arrays[0].shape, p.size
    learned, end, time = np.zeros(count, dtype=bool), np.full(count, np.nan), np.full(count, np.inf)
    for first in range(0, count, _BLOCK):
        part = slice(first, first + _BLOCK)
        # alpha_p s is all that alpha_p is in.
        modes = _Modes(
            p[part], np.sqrt(alpha_p[part] * s[part]), tau[part], sigma2[part], eta[part],
            None if beta is None else follow[part], near,
        )  # fmt: skip
        learned[part], end[part], time[part] = modes.followed(longest)
    return PhaseMap(learned.reshape(shape), end.reshape(shape), time.reshape(shape))


_BLOCK = 4096
"""Modes that are followed at a time: their numbers should stay in a processor's cache."""

# Dormand & Prince 1980, the pair of orders 5 and 4; the sixth stage's weights are also the solution's.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_RELATIVE, _ABSOLUTE = 1e-6, 1e-300
_GONE = 1e-150
"""A root of s below this is gone: double precision, let alone a network's, holds nothing that could come back."""


class _Modes:
    """Modes on their way, each with its own step. With A = sqrt(alpha_p s) and B = tau A the flow is

    ``dp/dt = A E - eta p, dA/dt = p E - eta A, dB/dt = beta (A - B), E = B - (1 + sigma2) p A``.
    """

    def __init__(
        self, p: Array, a: Array, tau: Array, sigma2: Array, eta: Array, beta: Array | None, near: float
    ) -> None:
        self.k, self.eta, self.beta, self.near = 1 + sigma2, eta, beta, near
        # With an EMA tau ends at 1, whatever it is now.
        self.tau = tau if beta is None else np.ones_like(tau)
        self.y = np.stack([p, a] if beta is None else [p, a, tau * a])
        self.time = np.zeros_like(p)
        self.step = 0.01 / (1 + self.k * (a**2 + p**2) + eta)
        inside = self.tau**2 - 4 * eta * self.k
        with np.errstate(invalid="ignore", divide="ignore"):
            self.p_plus = np.where(self.tau > 0, (self.tau + np.sqrt(inside)) / (2 * self.k), np.nan)
            p_minus = eta / (self.k * self.p_plus)
            # Box p, A <= c, B <= b: nothing leads out of it where c <= b < eta. Hence collapse is certain in it.
            box = 0.999 * eta / np.where(self.tau > 0, np.maximum(self.tau, 1.0), 1.0)
        self.close = near * (self.p_plus - p_minus)
        # Without weight decay a mode stays on its hyperbola of the invariant, and on no parabola.
        self.a_plus = np.where(eta == 0, np.sqrt(np.maximum(self.p_plus**2 + a**2 - p**2, 0)), self.p_plus)
        self.box = np.minimum(near * np.where(self.tau > 0, self.tau, 1.0) / self.k, box)

        # Without weight decay a mode may end where s = 0, on a hyperbola of the invariant, p wherever it is then.
        beyond = (p**2 - a**2 > (self.tau / self.k) ** 2) | ((p < 0) & (p**2 >= a**2))
        self.lost = (eta == 0) & ((a == 0) | (beyond & (beta is None)))
        self.dead_end = np.where(self.lost, np.copysign(np.sqrt(np.maximum(p**2 - a**2, 0)), p), 0.0)

    _OF_EACH = ("k", "eta", "beta", "tau", "time", "step", "p_plus", "a_plus", "close", "box", "lost", "dead_end")

    def followed(self, longest: float) -> tuple[NDArray[np.bool_], Array, Array]:
        """(learned, end, time) of each."""
        count = len(self.time)
        learned, end, time = np.zeros(count, dtype=bool), np.full(count, np.nan), np.full(count, np.inf)
        rows = np.arange(count)
        before = self._distances()
        slopes = self._flow(self.y)
        begun = np.zeros(len(rows))
        while len(rows):
            slopes = self._advance(slopes)
            after = self._distances()
            done = (after <= 1).any(0) | (self.time > longest)
            if done.any():
                at = rows[done]
                reached = after[:, done] <= 1
                learned[at] = reached[0]
                end[at] = np.where(reached[0], self.p_plus[done], np.where(reached[1], self.dead_end[done], np.nan))
                # Either end is come near to exponentially: the moment is where the logarithm would cross.
                first, last = (np.where(reached[0], d[0, done], d[1, done]) for d in (before, after))
                with np.errstate(divide="ignore", invalid="ignore"):
                    share = np.nan_to_num(np.log(first) / np.log(first / last)).clip(0, 1)
                when = begun[done] + np.where(first > 1, share, 0) * (self.time[done] - begun[done])
                time[at] = np.where(reached.any(0), when, np.inf)
                slopes = slopes[:, ~done]
                rows, after = self._keep(~done, rows, after)
            before, begun = after, self.time.copy()
        return learned, end, time

    def _keep(
        self, kept: NDArray[np.bool_], rows: NDArray[np.intp], distances: Array
    ) -> tuple[NDArray[np.intp], Array]:
        for name in self._OF_EACH:
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[kept])
        self.y = self.y[:, kept]
        return rows[kept], distances[:, kept]

    def _distances(self) -> Array:
        """(2, n): how far each mode is from p+ and from certain collapse, in units of what counts as there."""
        p, a = self.y[:2]
        with np.errstate(divide="ignore", invalid="ignore"):
            to_plus = np.maximum(np.abs(p - self.p_plus), np.abs(a - self.a_plus)) / self.close
        size = np.maximum(np.abs(p), a)
        if self.beta is not None:
            to_plus = np.maximum(to_plus, np.abs(self.y[2] - a) / (self.near * np.maximum(a, 1e-300)))
            size = np.maximum(size, self.y[2])
        with np.errstate(divide="ignore", invalid="ignore"):
            to_plus = np.where(self.lost, np.inf, to_plus)
            small = np.minimum(size / self.box, a / _GONE)
            to_zero = np.where(self.lost, a * self.k / (self.near * self.tau), small)
        return np.asarray(np.nan_to_num(np.stack([to_plus, to_zero]), nan=np.inf, posinf=np.inf))

    def _flow(self, y: Array) -> Array:
        p, a = y[:2]
        b = self.tau * a if self.beta is None else y[2]
        error = b - self.k * p * a
        out = np.empty_like(y)
        np.subtract(a * error, self.eta * p, out=out[0])
        np.subtract(p * error, self.eta * a, out=out[1])
        if self.beta is not None:
            np.multiply(self.beta, a - b, out=out[2])
        return out

    def _advance(self, first: Array) -> Array:
        """One try of a step of each, from the slopes where they are; gives the slopes where they are then."""
        slopes, step = [first], self.step
        for weights in _STAGES:
            ahead = sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
            y = self.y + step * ahead
            slopes.append(self._flow(y))
        error = step * sum(w * k for w, k in zip(_ERROR, slopes, strict=True) if w)
        # Relative to each: a mode can come back from a tiny s. Only p may pass through 0.
        size = np.maximum(np.abs(self.y), np.abs(y))
        size[0] += size[1]
        bound = _RELATIVE * size + _ABSOLUTE
        with np.errstate(invalid="ignore", over="ignore"):
            ratio = np.nan_to_num((np.abs(error) / bound).max(0), nan=1e10, posinf=1e10)
        moved = ratio <= 1
        self.y = np.where(moved, y, self.y)
        self.time = np.where(moved, self.time + step, self.time)
        self.step = step * np.clip(0.9 * np.maximum(ratio, 1e-10) ** -0.2, 0.2, 5.0)
        return np.where(moved, slopes[-1], first)


# ---------------------------------------------------------------- matrices


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
    stop_gradient: bool = True,
    predictor: bool = True,
) -> tuple[Array, Array, Array]:
    """(dWp/dt, dW/dt, dWa/dt) of the whole model: Wp (d, d), W and Wa (d, n), any data (P section 3).

    ``x`` is X = E[x x^T] and ``x_aug`` X' = E Cov(x'|x), both (n, n). With ``E = -Wp W (X + X') + Wa X``:
    ``dWp/dt = alpha_p E W^T - eta Wp``, ``dW/dt = Wp^T E - eta W``, ``dWa/dt = beta (W - Wa)``. ``beta`` None is
    SimSiam: W stands in for Wa throughout.

    Without ``stop_gradient`` it stands in for Wa too, and dW/dt gets the gradient through the second view besides,
    ``Wp W X - W (X + X')``. Without ``predictor`` Wp stays as it is (give the identity).
    """  # fmt: skip
    own = beta is None or not stop_gradient
    error = -wp @ w @ (x + x_aug) + (w if own else wa) @ x
    dw = wp.T @ error - eta * w
    if not stop_gradient:
        dw += wp @ w @ x - w @ (x + x_aug)
    dwp = alpha_p * error @ w.T - eta * wp if predictor else np.zeros_like(wp)
    return dwp, dw, dw if beta is None or not stop_gradient else beta * (w - wa)


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
    stop_gradient: bool = True,
    predictor: bool = True,
) -> tuple[Array, Array, Array]:
    """Wp, W and Wa at times 0, dt, ..., steps dt by RK4, each with a leading axis of steps + 1.

    See :func:`weight_flow`. For P's theorem 2 the two flows that collapse are those with ``stop_gradient=False``, and
    with ``predictor=False`` and Wp the identity.
    """  # fmt: skip

    def flow(y: State) -> State:
        return weight_flow(
            *y, x=x, x_aug=x_aug, eta=eta, alpha_p=alpha_p, beta=beta, stop_gradient=stop_gradient, predictor=predictor
        )

    wps, ws, was = _rk4(flow, (wp, w, wa), steps, dt)
    return wps, ws, was


# ---------------------------------------------------------------- the three theorems


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


def collapse_matrix(wp: Array, *, x: Array, x_aug: Array, eta: float, stop_gradient: bool) -> Array:
    """H (d n, d n), symmetric, of P's theorem 2: ``d vec(W)/dt = -H vec(W)`` in the two flows that collapse.

    Without stop-gradient ``H = X' kron (Wp^T Wp + I) + X kron (Wp - I)^T (Wp - I) + eta I``, whatever Wp is; with it
    and without a predictor (SimSiam, Wp = I) ``H = X' kron I + eta I``. vec stacks columns.

    Args:
        wp: (d, d); the identity with ``stop_gradient``.
        x, x_aug, eta: as in :func:`weight_flow`.
        stop_gradient: which of the two.
    """
    one = np.eye(len(wp))
    if stop_gradient:
        h = np.kron(x_aug, one)
    else:
        h = np.kron(x_aug, wp.T @ wp + one) + np.kron(x, (wp - one).T @ (wp - one))
    return np.asarray(h + eta * np.eye(len(h)))


def collapse_rate(wp: Array, *, x: Array, x_aug: Array, eta: float, stop_gradient: bool) -> float:
    """l0, the smallest eigenvalue of :func:`collapse_matrix`: while it is at least l0, |W| <= exp(-l0 t) |W(0)|.

    It is never below the smallest eigenvalue of X' plus eta: whatever the augmentation changes in every direction, or
    any weight decay, has the network vanish.
    """
    return float(np.linalg.eigvalsh(collapse_matrix(wp, x=x, x_aug=x_aug, eta=eta, stop_gradient=stop_gradient))[0])


def theorem2_residual(wp: Array, w: Array, *, x: Array, x_aug: Array, eta: float, stop_gradient: bool) -> float:
    """Largest entry of |d vec(W)/dt + H vec(W)| under :func:`weight_flow`; 0 but for rounding (P theorem 2)."""
    dw = weight_flow(wp, w, w, x=x, x_aug=x_aug, eta=eta, stop_gradient=stop_gradient)[1]
    h = collapse_matrix(wp, x=x, x_aug=x_aug, eta=eta, stop_gradient=stop_gradient)
    return float(np.abs(dw.T.ravel() + h @ w.T.ravel()).max())


def theorem2_excess(w: Array, times: ArrayLike, rate: float) -> float:
    """Largest ``|W(t)| / (exp(-rate t) |W(0)|) - 1`` along a path: at most 0, but for rounding, if theorem 2 holds.

    Args:
        w: the path, (T, d, n).
        times: (T,), counted from the first.
        rate: the least :func:`collapse_rate` along it.
    """
    sizes = np.linalg.norm(w, axis=(1, 2))
    since = np.asarray(times, dtype=np.float64) - np.asarray(times)[0]
    return float((sizes / (sizes[0] * np.exp(-rate * since)) - 1).max())


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
