"""The flow of the modes with and without predictor, stop-gradient and EMA, and what becomes of each mode.

**P** is Tian, Chen & Ganguli 2021, arXiv 2102.06810. In the common eigenbasis of W, Wp and Wa, and with white data
(X = I, X' = sigma2 I), a mode is three numbers: the predictor's gain p, the online weight w and the target's weight a.
P writes s = w^2 and tau = a / w; here w and a are what is integrated, because a / w grows without bound where w dies
faster than its target forgets, and neither of the two does.

**With stop-gradient**, from P's ``E = -Wp W (X + X') + Wa X``::

    e = a - (1 + sigma2) p w
    dp/dt = alpha_p e w - eta p        dw/dt = p e - eta w        da/dt = beta (w - a)

which is, in s and tau, ``ssl_lab.theory.mode_flow``. Without EMA (SimSiam) a = w throughout. Without a predictor p = 1
and stays there, so that without EMA ``dw/dt = -(sigma2 + eta) w``: w dies (P theorem 2).

**Without stop-gradient** the target is W itself and gradients go through both sides. The views are independent given
the image, so that E[x1 x1^T] = E[x2 x2^T] = X + X' and E[x1 x2^T] = X. Hence ::

    J = 1/2 E |Wp W x1 - W x2|^2
      = 1/2 tr[Wp W (X + X') W^T Wp^T] - tr[Wp W X W^T] + 1/2 tr[W (X + X') W^T]
    dJ/dW  = (Wp^T Wp + I) W X' + (Wp - I)^T (Wp - I) W X
    dJ/dWp = Wp W (X + X') W^T - W X W^T

and in modes ::

    dp/dt = alpha_p w^2 [1 - (1 + sigma2) p] - eta p
    dw/dt = -h w,   h = (1 + p^2) sigma2 + (1 - p)^2 + eta

where h is the eigenvalue of P's H(t) (theorem 2) on this mode: it is never negative, so w never grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_lab import theory

Array = NDArray[np.float64]

MODES = 12

SPAN = 150.0
"""Time that is looked ahead, and that the pictures over time show."""

EVERY = 0.5
"""Time between the moments that are kept of what has been."""

ERROR = 1e-7
"""Error of a step in p, w and a that is allowed."""

LONGEST = 1.5
"""Longest step: cubics between the moments of a path are right to some 1e-5."""

MOST_STEPS = 600
"""Most steps of a path, failed ones included: it costs a bounded time. A usual one takes about 130."""

LOOKS = 3
"""How often modes that are still under way at the end of a path are followed for twice as long again."""

EDGE_ROWS, EDGE_COLUMNS = 24, 14
"""Starts in p and in s by which the edge of the basin is looked for where there is an EMA."""

STILL = 1e-5
"""Change of p and s in a unit of time below which nothing is seen to move."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a setting is: its name, its limits and a line of help. Values beyond the limits are clamped."""

    label: str
    symbol: str
    low: float
    high: float
    step: float
    help: str
    log: bool = False

    def clamp(self, value: float) -> float:
        """The nearest value within the limits; of what is no number, the lower limit."""
        return self.low if math.isnan(value) else min(max(value, self.low), self.high)


RANGES: Mapping[str, Range] = {
    "eta": Range(label="Weight decay", symbol="η", low=0.0, high=0.3, step=0.005,
                 help="Pulls p and W to zero. Draws modes onto the parabola, and widens the basin of collapse."),
    "sigma2": Range(label="Augmentation", symbol="σ²", low=0.0, high=1.5, step=0.05,
                    help="Variance that augmentation adds, over the data's own. Lowers the gain p that is learned."),
    "alpha_p": Range(label="Predictor's rate", symbol="αₚ", low=0.1, high=10.0, step=0.05, log=True,
                     help="Learning rate of the predictor over the network's. Narrows the parabola."),
    "beta": Range(label="EMA rate", symbol="β", low=0.002, high=1.0, step=0.05, log=True,
                  help="How fast the target follows the network: small is slow."),
    "gain": Range(label="Largest p at start", symbol="p(0)", low=0.02, high=1.1, step=0.01,
                  help="The modes start with gains p from near 0 up to this one."),
    "offset": Range(label="Start off the parabola", symbol="c", low=0.0, high=0.4, step=0.01,
                    help="How far s starts from p²/αₚ, up or down; 0 is on it."),
    "tau": Range(label="Target at start", symbol="τ(0)", low=0.1, high=1.0, step=0.05,
                 help="Target's weight over the network's when the flow starts; 1 is a copy."),
}  # fmt: skip
"""What can be turned, in the order of the page."""

SWITCHES = ("stop_gradient", "predictor", "ema")
"""What can be taken away."""

START = ("gain", "offset", "tau")
"""What says where the modes start: turning one of these starts again."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that can be turned; see :data:`RANGES`."""

    eta: float = 0.05
    sigma2: float = 0.3
    alpha_p: float = 1.0
    beta: float = 0.1
    gain: float = 0.45
    offset: float = 0.03
    tau: float = 1.0
    stop_gradient: bool = True
    predictor: bool = True
    ema: bool = False

    def turned(self, changes: Mapping[str, Any]) -> Settings:
        """With these changes as far as there are such settings, clamped to their limits."""
        clean: dict[str, Any] = {n: RANGES[n].clamp(float(v)) for n, v in changes.items() if n in RANGES}
        clean |= {n: bool(v) for n, v in changes.items() if n in SWITCHES}
        return replace(self, **clean)

    @property
    def follows(self) -> bool:
        """Whether there is a target of its own: without stop-gradient the network is its own target."""
        return self.ema and self.stop_gradient

    @property
    def protected(self) -> bool:
        """Whether both predictor and stop-gradient are there, without which theorem 2 has everything collapse."""
        return self.stop_gradient and self.predictor

    def rest(self) -> tuple[float, float] | None:
        """(p-, p+) where there are such rest points, at tau = 1, which an EMA comes to; None where there are none."""
        if not self.protected:
            return None
        found: Any = theory.fixed_points(eta=self.eta, sigma2=self.sigma2, tau=1.0)
        if found is None or found.p_plus is None:
            return None
        return float(found.p_minus or 0.0), float(found.p_plus)

    @property
    def critical(self) -> float:
        """The weight decay beyond which everything collapses."""
        return theory.critical_eta(self.sigma2)


def rates(y: Array, at: Settings) -> Array:
    """d(p, w, a)/dt of modes; see the module's words.

    Args:
        y: (3, n), p, w and a.
        at: the settings.
    """
    p, w, a = y
    spread = 1.0 + at.sigma2
    out = np.empty_like(y)
    if at.stop_gradient:
        error = a - spread * p * w
        out[0] = at.alpha_p * error * w - at.eta * p
        out[1] = p * error - at.eta * w
    else:
        out[0] = at.alpha_p * w * w * (1.0 - spread * p) - at.eta * p
        out[1] = -hessian(p, at) * w
    if not at.predictor:
        out[0] = 0.0
    out[2] = at.beta * (w - a) if at.follows else out[1]
    return out


def hessian(p: Array, at: Settings) -> Array:
    """(1 + p^2) sigma2 + (1 - p)^2 + eta, the eigenvalue of H(t) on a mode of gain p (P theorem 2)."""
    return np.asarray((1.0 + p * p) * at.sigma2 + np.square(1.0 - p) + at.eta)


# The fifth-order pair of Dormand and Prince (1980): nodes are not needed, the flow knows no time of its own.
_STAGES = np.array([
    [1 / 5, 0, 0, 0, 0, 0],
    [3 / 40, 9 / 40, 0, 0, 0, 0],
    [44 / 45, -56 / 15, 32 / 9, 0, 0, 0],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
])  # fmt: skip
_ERROR = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])


@dataclass(frozen=True, eq=False)
class Way:
    """A path of modes as it was integrated: what lies between its moments is a cubic through states and slopes."""

    times: Array
    """(T,), from 0, unevenly spaced."""
    states: Array
    """(T, 3, n)"""
    slopes: Array
    """(T, 3, n), in 1 / time."""

    @property
    def end(self) -> Array:
        """(3, n), the last state."""
        return np.asarray(self.states[-1])

    def at(self, times: Array) -> Array:
        """(len(times), 3, n), the states at these times within the path."""
        i = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 2)
        h = self.times[i + 1] - self.times[i]
        u = np.clip((times - self.times[i]) / h, 0.0, 1.0)[:, None, None]
        h = h[:, None, None]
        y0, y1, d0, d1 = self.states[i], self.states[i + 1], self.slopes[i], self.slopes[i + 1]
        v = 1.0 - u
        return np.asarray(v * v * (1 + 2 * u) * y0 + u * u * (1 + 2 * v) * y1 + h * u * v * (v * d0 - u * d1))


def follow(y: Array, at: Settings, span: float = SPAN, longest: float = LONGEST, error: float = ERROR) -> Way:
    """Follows modes from ``y`` (3, n) for a time, in steps as long as an error of so much a step in p, w and a allows.

    Takes at most :data:`MOST_STEPS` steps; a path that needs more ends sooner.
    """
    shape, size = y.shape, y.size
    slopes = np.empty((7, size))
    slopes[0] = rates(y, at).ravel()
    flat = y.ravel().copy()
    times, states, kept = [0.0], [flat], [slopes[0].copy()]
    time, h = 0.0, 0.1
    for _ in range(MOST_STEPS):
        h = min(h, longest, span - time)
        ahead = flat
        for stage in range(6):
            ahead = flat + (h * _STAGES[stage, : stage + 1]) @ slopes[: stage + 1]
            slopes[stage + 1] = rates(ahead.reshape(shape), at).ravel()
        worst = float(np.abs((h * _ERROR) @ slopes).max()) / error
        if worst <= 1.0:
            time, flat = time + h, ahead
            slopes[0] = slopes[6]
            times.append(time)
            states.append(flat)
            kept.append(slopes[0].copy())
            if time >= span * (1 - 1e-12):
                break
        # Written so that a step that went beyond all numbers is tried again, shorter.
        h *= min(0.9 * max(worst, 1e-10) ** -0.2, 5.0) if worst <= 1e3 else 0.2
    length = len(times)
    return Way(np.array(times), np.array(states).reshape(length, *shape), np.array(kept).reshape(length, *shape))


def begin(at: Settings, modes: int = MODES) -> Array:
    """Where the modes start, (3, n): gains from near 0 to ``at.gain``, s beside the parabola by up to ``at.offset``."""
    place = (np.arange(modes) + 0.5) / modes
    p = at.gain * place**2
    # The golden ratio's multiples: spread evenly, in no order that shows, and the same at every start.
    side = 2.0 * ((np.arange(1, modes + 1) * 0.6180339887498949) % 1.0) - 1.0
    s = np.maximum(theory.parabola(p, at.alpha_p) + at.offset * side * place, 1e-4)
    w = np.sqrt(s)
    return settled(np.stack([p, w, at.tau * w]), at)


def settled(y: Array, at: Settings) -> Array:
    """The modes where the settings hold p or a: Wp = I without a predictor, Wa = W without a target of its own."""
    p, w, a = y
    return np.stack([p if at.predictor else np.ones_like(p), w, a if at.follows else w])


def learned(y: Array, at: Settings) -> NDArray[np.bool_]:
    """Which modes do not collapse, (n,), of those that have come to ``y``: they are followed until it is plain."""
    rest = at.rest()
    if rest is None:
        # Theorem 2, or beyond the critical weight decay: only a mode on which there is no force at all stands.
        for _ in range(LOOKS):
            if float(np.abs(rates(y, at)).max()) < STILL:
                break
            y = follow(y, at, 2 * SPAN, 20.0).end
        w = y[1]
        return np.asarray((w > 1e-3) & (np.abs(rates(y, at)[1]) <= 1e-7 * w))
    low, high = rest
    if low == 0:
        # Without weight decay p^2 - alpha_p s is kept: a mode whose gain is so far above p+ that it cannot come down to
        # it before s is gone dies, if slowly; of the others only one with next to no s.
        return np.asarray((y[1] > 1e-6) & (y[0] ** 2 - at.alpha_p * y[1] ** 2 < high**2))
    middle = math.sqrt(low * high)
    for _ in range(LOOKS):
        p, q = y[0], math.sqrt(at.alpha_p) * y[1]
        # Well past the edge on one side or the other, in p as in the square root of alpha_p s that goes with it.
        if bool(np.all(((p > middle) & (q > middle)) | ((p < low / 2) & (q < low / 2)))):
            break
        y = follow(y, at, 2 * SPAN, 20.0).end
    return np.asarray(y[0] > low)


def edge(at: Settings, s_most: float, p_most: float) -> Array | None:
    """The edge of the basin of collapse at tau = 1 in the plane of (s, p), (T, 2); None where there is no saddle.

    It is the way into the saddle (p-^2 / alpha_p, p-), gone backwards: along it c = s - p^2 / alpha_p fades as
    exp(-2 eta t) (P theorem 1), so that backwards c grows, up on one branch and down on the other, and p follows by
    ``dp/dt = (p^2 + alpha_p c) [1 - (1 + sigma2) p] - eta p``.
    """
    rest = at.rest()
    if rest is None or at.eta <= 0 or rest[0] <= 0:
        return None
    low, eta, alpha, spread = rest[0], at.eta, at.alpha_p, 1.0 + at.sigma2

    def rate(p: float, c: float) -> float:
        return (p * p + alpha * c) * (1 - spread * p) - eta * p

    # The eigenvector of the eigenvalue -2 eta: p' = (dp/dp + 2 eta) p + (dp/dc) c = 0 in deviations from the saddle.
    slope = -alpha * (1 - spread * low) / (low * (1 - 2 * spread * low) + 2 * eta)
    branches = []
    for sign in (1.0, -1.0):
        c = sign * 1e-3 * low * low / alpha
        p = low + slope * c
        points = [(p * p / alpha + c, p)]
        for _ in range(400):
            # Steps of like length in the picture, and short enough for RK4.
            ds, dp = 2 * p * rate(p, c) / alpha - 2 * eta * c, rate(p, c)
            fast = math.hypot(ds / s_most, dp / p_most)
            stiff = spread * (3 * p * p + alpha * abs(c)) + 2 * p + eta
            h = -min(0.015 / max(fast, 1e-9), 0.3 / stiff, 0.3 / eta)
            half, full = c * math.exp(-eta * h), c * math.exp(-2 * eta * h)
            k1 = dp
            k2 = rate(p + h / 2 * k1, half)
            k3 = rate(p + h / 2 * k2, half)
            k4 = rate(p + h * k3, full)
            p, c = p + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), full
            s = p * p / alpha + c
            if not (0 <= s <= 1.2 * s_most and 0 <= p <= 1.2 * p_most):
                break
            points.append((s, p))
        branches.append(points)
    up, down = branches
    points = [*reversed(down), (low * low / alpha, low), *up]
    return np.array(points[:: max(1, len(points) // 100)])


def edge_of_start(at: Settings, s_most: float, p_most: float) -> Array | None:
    """The edge of the basin of collapse for modes that start with the target at ``at.tau``: (s, p), (T, 2).

    With a target of its own a mode is three numbers, and its fate hangs on all of them: so modes are started all over
    the plane and followed, and for each p the least s that lives is sought between its neighbours once more.
    None where nothing lives or nothing dies.
    """
    rest = at.rest()
    if rest is None or rest[0] <= 0:
        return None
    p = p_most * (np.arange(EDGE_ROWS) + 0.5) / EDGE_ROWS
    # Between the root of the least and of the most, evenly: basins are narrow in s.
    low, high = np.full(EDGE_ROWS, 1e-3), np.full(EDGE_ROWS, 1.1)
    there = np.ones(EDGE_ROWS, dtype=bool)
    for _ in range(2):
        share = low + (high - low) * np.linspace(0.0, 1.0, EDGE_COLUMNS)[:, None]
        w = np.sqrt(s_most) * share**2
        y = np.stack([np.broadcast_to(p, w.shape), w, at.tau * w]).reshape(3, -1)
        end = follow(y, at, 4 * SPAN, 20.0, 1e-4).end
        lives = (end[0] > rest[0]).reshape(w.shape)
        first = np.argmax(lives, axis=0)
        there &= lives.any(axis=0) & (first > 0)
        columns = np.arange(EDGE_ROWS)
        low, high = share[np.maximum(first - 1, 0), columns], share[first, columns]
    middle = (low + high) / 2
    line = np.stack([s_most * middle**4, p], axis=1)[there]
    return line if len(line) > 1 else None


class Flow:
    """The modes under way: where they are, how they came there, and where they are heading under the settings.

    Deterministic: without a turn the way ahead is computed once, and time only uncovers it.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.restart()

    def restart(self) -> None:
        """From the start."""
        self.time = 0.0
        self.began = self.settings
        """The settings at the start."""
        self.jumped = 0.0
        """When modes last jumped: Wp put to I, or Wa to W."""
        self.learned = np.zeros(MODES, dtype=bool)
        """(n,) which modes had come to p+ before the last turn."""
        self._past_times = np.zeros(0)
        self._past = np.zeros((0, 3, MODES))
        self._look_ahead(begin(self.settings))

    def _look_ahead(self, y: Array) -> None:
        self._from, self._now = self.time, settled(y, self.settings)
        self.ahead = follow(self._now, self.settings)
        self.learns = learned(self.ahead.end, self.settings)
        """(n,) which modes do not collapse under these settings."""

    def turn(self, changes: Mapping[str, Any]) -> bool:
        """Turns settings from this moment on, or starts again if they say where the start is; whether any changed."""
        before, after = self.settings, self.settings.turned(changes)
        if after == before:
            return False
        if before.rest() is not None:
            self.learned = self.arrived
        self.settings = after
        # Before anything has moved, a turn is of the start as well: modes on the parabola stay on it.
        if self.time == 0 or any(getattr(before, name) != getattr(self.settings, name) for name in START):
            self.restart()
        else:
            self._keep()
            held = settled(self._now, self.settings)
            if not np.array_equal(held[0], self._now[0]):
                self.jumped = self.time
            self._look_ahead(held)
        return True

    def _keep(self) -> None:
        """Puts what has been of the way ahead behind."""
        times, past = self.way()
        kept = times >= self.time - SPAN
        self._past_times, self._past = times[kept], past[kept]

    def advance(self, time: float) -> None:
        """Lets time go by."""
        if not 0 < time <= SPAN / 2:
            return
        self.time += time
        gone = self.time - self._from
        self._now = self.ahead.at(np.array([gone]))[0]
        if gone > SPAN / 3:
            # The way ahead must not end before the picture does.
            self._keep()
            self._look_ahead(self._now)

    def _gone(self) -> tuple[Array, Array]:
        """Times and states from the last turn until now."""
        gone = self.time - self._from
        times = np.append(np.arange(0.0, gone, EVERY), gone)
        return self._from + times, self.ahead.at(times)

    def way(self) -> tuple[Array, Array]:
        """Times (T,) and states (T, 3, n) from the earliest that is kept until now."""
        times, states = self._gone()
        return np.concatenate([self._past_times, times]), np.concatenate([self._past, states])

    def states(self, times: Array) -> Array:
        """(len(times), 3, n): what was and what will be, at times from the earliest that is kept; before, the first."""
        states = self.ahead.at(np.clip(times - self._from, 0.0, SPAN))
        before = times < self._from
        if before.any() and len(self._past_times):
            i = np.clip(np.searchsorted(self._past_times, times[before], side="right") - 1, 0, None)
            states[before] = self._past[i]
        return states

    def ahead_of_now(self, count: int) -> Array:
        """(count, 3, n): where the modes will go from now on, at moments that lie closer together at first."""
        left = float(self.ahead.times[-1]) - (self.time - self._from)
        return self.ahead.at(self.time - self._from + max(left, 0.0) * np.linspace(0.0, 1.0, count) ** 2)

    @property
    def earliest(self) -> float:
        """The earliest time that is kept."""
        return float(self._past_times[0]) if len(self._past_times) else self._from

    @property
    def now(self) -> Array:
        """(3, n): p, w and a of the modes."""
        return np.asarray(self._now)

    @property
    def p(self) -> Array:
        """(n,) gains."""
        return np.asarray(self._now[0])

    @property
    def s(self) -> Array:
        """(n,) eigenvalues of F."""
        return np.asarray(np.square(self._now[1]))

    @property
    def tau(self) -> Array:
        """(n,) target over network."""
        return target(self._now)

    @property
    def arrived(self) -> NDArray[np.bool_]:
        """(n,) which modes have come to p+, or stand above one that has moved away beneath them."""
        rest = self.settings.rest()
        if rest is None:
            return np.zeros(MODES, dtype=bool)
        return np.asarray((self.p > 0.9 * rest[1]) & (self.settings.alpha_p * self.s > 0.8 * rest[1] ** 2))

    @property
    def p_rate(self) -> Array:
        """(n,) dp/dt."""
        return np.asarray(rates(self._now, self.settings)[0])

    @property
    def resting(self) -> bool:
        """Whether nothing is seen to move any more."""
        change = rates(self._now, self.settings)
        return float(np.abs(change[0]).max()) < STILL and float(np.abs(2 * self._now[1] * change[1]).max()) < STILL


def target(y: Array, most: float = 10.0) -> Array:
    """tau = a / w of states (..., 3, n), within bounds where w has died."""
    w, a = y[..., 1, :], y[..., 2, :]
    return np.clip(a / np.maximum(w, 1e-9), 0.0, most)
