"""The linear model against closed forms, conserved quantities and the numbers that P's equations give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ssl_lab import theory

SET = {"sigma2": 0.3, "eta": 0.05}


def commuting_pair(d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    p = np.linspace(0.02, 0.6, d)
    return u, p, theory.parabola(p, 1.0)


def gain(p: float | None) -> float:
    assert p is not None
    return p


def test_fixed_points_of_the_worked_example() -> None:
    points = theory.fixed_points(0.05, 0.3)
    assert points == theory.fixed_points(**SET, tau=1.0)
    assert points.p_minus == pytest.approx(0.053757, abs=5e-7)
    assert points.p_plus == pytest.approx(0.715474, abs=5e-7)
    assert points.minus is not None
    assert points.plus is not None
    assert (points.zero.p, points.zero.stable, points.minus.stable, points.plus.stable) == (0.0, True, False, True)
    for p in (points.minus.p, points.plus.p):
        assert theory.growth(p, **SET) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("alpha_p", [0.2, 1.0, 7.0])
@pytest.mark.parametrize(
    ("eta", "sigma2", "tau"), [(0.05, 0.3, 1.0), (0.01, 0.1, 0.6), (0.0, 0.3, 0.8), (0.2, 0.0, 1.0)]
)
def test_what_is_called_stable_draws_modes_to_it_and_what_is_not_drives_them_off(
    eta: float, sigma2: float, tau: float, alpha_p: float
) -> None:
    points = theory.fixed_points(eta, sigma2, tau)
    for point in (points.zero, points.minus, points.plus):
        assert point is not None
        near = point.p + np.array([1e-3] if point.p == 0 else [-1e-3, 1e-3])
        speed = theory.mode_flow(near, theory.parabola(near, alpha_p), tau, eta=eta, sigma2=sigma2, alpha_p=alpha_p)[0]
        assert ((speed * (near - point.p) < 0) == point.stable).all()


def test_fixed_points_at_the_ends_of_the_weight_decay() -> None:
    free = theory.fixed_points(0.0, 0.3, tau=0.8)
    assert free.zero == theory.FixedPoint(0.0, stable=False)
    assert (free.p_minus, free.p_plus) == (0.0, pytest.approx(0.8 / 1.3))
    edge = theory.critical_eta(0.3)
    assert edge == pytest.approx(1 / 5.2)
    assert theory.critical_eta(0.3, 0.5) == pytest.approx(edge / 4)
    past = theory.fixed_points(edge * (1 + 1e-9), 0.3)
    assert (past.minus, past.plus, past.p_minus, past.p_plus) == (None, None, None, None)
    assert past.zero.stable
    meeting = theory.fixed_points(edge * (1 - 1e-9), 0.3)
    assert meeting.p_minus == pytest.approx(gain(meeting.p_plus), rel=1e-3)
    assert meeting.p_plus == pytest.approx(1 / 2.6, rel=1e-3)
    # Exactly critical: 4 eta (1 + sigma2) = tau^2 = 1.
    both = theory.fixed_points(0.25, 0.0)
    assert (both.p_minus, both.p_plus) == (0.5, 0.5)
    assert both.plus is not None
    assert not both.plus.stable
    assert theory.fixed_points(1e-18, 0.3).p_minus == pytest.approx(1e-18, rel=1e-12)
    assert theory.fixed_points(0.0, 0.3, tau=0.0).p_plus is None
    for wrong in ((-0.1, 0.3), (0.1, -0.3), (0.1, 0.3, -1.0), (float("nan"), 0.3)):
        with pytest.raises(ValueError, match="cannot be negative"):
            theory.fixed_points(*wrong)


def test_a_smaller_tau_or_more_weight_decay_enlarges_the_basin_of_collapse() -> None:
    by_tau = [gain(theory.fixed_points(**SET, tau=tau).p_minus) for tau in (1.0, 0.8, 0.6)]
    by_eta = [gain(theory.fixed_points(eta, 0.3).p_minus) for eta in (0.01, 0.05, 0.15)]
    assert by_tau == sorted(by_tau)
    assert by_eta == sorted(by_eta)
    assert by_tau[2] > 1.5 * by_tau[0]


@pytest.mark.parametrize("alpha_p", [0.1, 0.5, 1.0, 4.0, 20.0])
def test_the_basin_of_collapse_ends_at_p_minus(alpha_p: float) -> None:
    p = np.array([0.0511, 0.0564])
    path = theory.integrate_modes(p, theory.parabola(p, alpha_p), times=[0, 2000], alpha_p=alpha_p, **SET)
    assert path.p[-1] == pytest.approx([0, 0.715474], abs=1e-6)
    np.testing.assert_allclose(path.s, theory.parabola(path.p, alpha_p), atol=1e-10)


def test_too_much_weight_decay_collapses_from_anywhere() -> None:
    eta = theory.critical_eta(0.3) * 1.04
    p, s = (x.ravel() for x in np.meshgrid([0.1, 0.4, 0.9], [0.1, 0.5, 2.0]))
    path = theory.integrate_modes(p, s, times=[0, 400], sigma2=0.3, eta=eta)
    assert path.p[-1] == pytest.approx(np.zeros(9), abs=1e-6)
    found = theory.phase_map(p, s, sigma2=0.3, eta=eta)
    assert not found.learned.any()
    assert np.isfinite(found.time).all()
    assert np.isinf(theory.basin_edge(s, eta=eta, sigma2=0.3)).all()


def test_without_weight_decay_a_mode_is_learned_or_loses_its_s() -> None:
    # Along the hyperbolas of the invariant: from p = 1.2 the gain cannot come below 1.1 while s is there.
    path = theory.integrate_modes([0.1, 1.2], [0.05, 0.23], times=[0, 3000], sigma2=0.3, eta=0.0)
    assert path.p[-1] == pytest.approx([1 / 1.3, np.sqrt(1.44 - 0.23)], abs=1e-6)
    assert path.s[-1] == pytest.approx([(1 / 1.3) ** 2 + 0.05 - 0.01, 0], abs=1e-6)
    assert theory.mode_flow(0.4, 0.0, sigma2=0.3, eta=0.0)[:2] == (0, 0)


@pytest.mark.parametrize(
    "rules",
    [
        {"eta": 0.05, "sigma2": 0.3},
        {"eta": 0.05, "sigma2": 0.3, "alpha_p": 4.0, "tau": 0.7},
        {"eta": 0.15, "sigma2": 0.1, "alpha_p": 0.3},
        {"eta": 0.002, "sigma2": 0.3},
        {"eta": 4e-4, "sigma2": 0.6},
        {"eta": 0.0, "sigma2": 0.3, "alpha_p": 2.0},
    ],
)
def test_on_either_side_of_the_basins_edges_modes_end_otherwise(rules: dict[str, float]) -> None:
    scale = 1 / rules.get("alpha_p", 1.0)
    s = scale * np.geomspace(1e-4, 3.0, 12)
    low, high = theory.basin_edges(s, **rules)
    assert np.array_equal(theory.basin_edge(s, **rules), low)
    s, low, high = (x[np.isfinite(low)] for x in (s, low, high))
    assert len(s) >= 6
    assert (np.diff(low) < 0).all()
    assert (np.diff(high) > 0).all()
    inside = {name: rules[name] for name in rules if name != "tau"}
    # From just below the high edge a mode comes back from an s of exp(-1 / eta) or so, which no number holds at last.
    for edge, sign in ((low, 1), (high, -1))[: 2 if rules["eta"] != 4e-4 else 1]:
        step = 2e-4 * np.abs(edge) + 1e-6
        starts = np.concatenate([edge + sign * step, edge - sign * step])
        found = theory.phase_map(starts, np.concatenate([s, s]), rules.get("tau", 1.0), **inside)
        assert found.learned.tolist() == [True] * len(s) + [False] * len(s)
        assert np.isfinite(found.time).all()


def test_the_basins_edge_passes_through_p_minus_and_ends_where_no_gain_is_enough() -> None:
    points = theory.fixed_points(**SET)
    p_minus = gain(points.p_minus)
    for alpha_p in (0.5, 3.0):
        edge = theory.basin_edge(theory.parabola(p_minus, alpha_p), alpha_p=alpha_p, **SET)
        assert edge == pytest.approx(p_minus, rel=1e-5)
    s = np.array([[0.0, 1e-30], [1e-3, 1.0]])
    low, high = theory.basin_edges(s, **SET)
    assert np.isinf(low).tolist() == np.isinf(high).tolist() == [[True, True], [False, False]]
    assert not theory.phase_map(np.linspace(-1, 3, 50), 1e-30, **SET).learned.any()
    assert np.isinf(theory.basin_edge(0.0, eta=0.0, sigma2=0.3))
    with pytest.raises(ValueError, match="alpha_p must be positive"):
        theory.basin_edge(s, alpha_p=0.0, **SET)
    with pytest.raises(ValueError, match="no s negative"):
        theory.basin_edge(-s, **SET)


def test_a_faster_predictor_makes_a_smaller_basin_of_collapse_and_a_looser_bound_for_alignment() -> None:
    p, s = np.meshgrid(np.linspace(0, 0.3, 12), np.geomspace(1e-4, 0.1, 12))
    died = [1 - theory.phase_map(p, s, alpha_p=alpha_p, **SET).learned.mean() for alpha_p in (0.3, 1.0, 4.0)]
    assert died[0] > died[1] > died[2] > 0
    edges = np.array([theory.basin_edge(s[:, 0], alpha_p=alpha_p, **SET) for alpha_p in (0.3, 1.0, 4.0)])
    assert (edges[0] > edges[1]).all()
    assert (edges[1] > edges[2]).all()
    # A mode that grows too fast for one predictor to stay aligned, and not for a faster one.
    fast = {"p": 0.3, "s": 0.1, **SET}
    assert [bool(theory.stays_aligned(alpha_p=alpha_p, **fast)) for alpha_p in (0.3, 4.0)] == [False, True]
    # And too fast a predictor stops s: it is at its balance before s has grown.
    grown = [
        theory.integrate_modes(0.1, 0.01, times=[0, 60], alpha_p=alpha_p, **SET).s[-1, 0] for alpha_p in (1, 10, 100)
    ]
    assert grown[0] > 5 * grown[1] > 25 * grown[2]


def test_more_weight_decay_forgets_the_start_sooner() -> None:
    left = []
    for eta in (0.0, 0.02, 0.1):
        path = theory.integrate_modes(0.3, 0.5, times=[0, 40], sigma2=0.3, eta=eta)
        left.append(float(path.s[-1, 0] - theory.parabola(path.p[-1, 0])))
        assert left[-1] == pytest.approx(0.41 * np.exp(-2 * eta * 40), abs=1e-8)
    assert left == sorted(left, reverse=True)


def test_a_phase_map_says_what_following_each_mode_says() -> None:
    rng = np.random.default_rng(5)
    p, s, tau = rng.uniform(-0.3, 1.2, 60), rng.uniform(0, 0.3, 60), rng.uniform(0.2, 1.0, 60)
    eta, sigma2, alpha_p = rng.uniform(0.01, 0.2, 60), rng.uniform(0, 0.6, 60), rng.uniform(0.3, 3, 60)
    for beta in (None, 0.3):
        rules = {"eta": eta, "sigma2": sigma2, "alpha_p": alpha_p, "beta": beta}
        found = theory.phase_map(p, s, tau, **rules)
        path = theory.integrate_modes(p, s, tau, times=[0, 20_000], **rules)
        np.testing.assert_allclose(path.p[-1], found.p, atol=1e-4)
        assert 10 < found.learned.sum() < 55
        assert ((path.s[-1] > 1e-3) == found.learned).all()
    grid = theory.phase_map(0.2, 0.05, eta=np.linspace(0.01, 0.2, 4)[:, None], sigma2=np.linspace(0, 1, 3))
    assert grid.learned.shape == grid.p.shape == grid.time.shape == (4, 3)
    assert theory.phase_map(0.2, 0.05, **SET).learned.shape == ()


def test_the_time_of_a_phase_map_is_when_the_end_is_near() -> None:
    found = theory.phase_map(0.2, 0.04, near=0.01, **SET)
    points = theory.fixed_points(**SET)
    path = theory.integrate_modes(0.2, 0.04, times=[0, found.time], **SET)
    width = gain(points.p_plus) - gain(points.p_minus)
    assert float(gain(points.p_plus) - path.p[-1, 0]) == pytest.approx(0.01 * width, rel=0.05)
    # Right on the edge nothing is decided.
    never = theory.phase_map(gain(points.p_minus), gain(points.p_minus) ** 2, longest=50.0, **SET)
    assert (bool(never.learned), float(never.time)) == (False, np.inf)
    assert np.isnan(never.p)
    with pytest.raises(ValueError, match="can be negative"):
        theory.phase_map(0.1, -0.1, **SET)


def test_a_slower_target_wastes_time_and_a_small_tau_can_cost_a_mode_its_life() -> None:
    found = theory.phase_map(0.2, 0.2, 0.3, beta=np.array([0.5, 0.1, 0.02, 0.004]), **SET)
    assert found.learned.all()
    assert (np.diff(found.time) > 0).all()
    ends = theory.phase_map(0.15, 0.0225, np.array([1.0, 0.3]), **SET)
    assert ends.learned.tolist() == [True, False]


def test_modes_keep_their_invariant_with_a_moving_target() -> None:
    times = np.linspace(0, 30, 16)
    p, s = np.array([0.1, 0.3, 0.5]), np.array([0.5, 0.1, 0.3])
    path = theory.integrate_modes(p, s, 0.2, times=times, alpha_p=2.0, beta=0.4, **SET)
    c = theory.mode_invariant(path.p, path.s, times[:, None], eta=0.05, alpha_p=2.0)
    np.testing.assert_allclose(c, np.broadcast_to(s - p**2 / 2, c.shape), atol=1e-9)
    assert path.p.shape == path.s.shape == path.tau.shape == (16, 3)


def test_a_slow_target_catches_up_and_the_gain_with_it() -> None:
    path = theory.integrate_modes(0.1, 0.2, 0.3, times=[0, 4000], sigma2=0.3, eta=0.0, beta=0.05)
    assert (np.diff(path.tau[:, 0]) > 0).all()
    assert path.tau[-1, 0] == pytest.approx(1, abs=1e-6)
    assert path.p[-1, 0] == pytest.approx(1 / 1.3, abs=1e-6)


def test_a_dead_mode_stays_dead_and_divides_by_nothing() -> None:
    dp, ds, dtau = theory.mode_flow(0.0, 0.0, 0.5, beta=0.1, **SET)
    assert (dp, ds) == (0, 0)
    assert dtau == pytest.approx(0.1 * 0.5 + 0.5 * 0.05)
    assert theory.mode_flow(0.3, 0.2, **SET)[2] == 0


def test_stays_aligned_is_the_inequality() -> None:
    p, s = np.array([0.03, 0.2, 0.2, 0.9]), np.array([1.0, 1.0, 0.01, 1.0])
    assert theory.stays_aligned(p, s, **SET).tolist() == [False, True, False, False]


def test_the_condition_for_staying_aligned_is_theorem_3s_for_a_mode_that_grows() -> None:
    u = commuting_pair()[0]
    rng = np.random.default_rng(6)
    seen = set()
    for _ in range(200):
        p, s = rng.uniform(0, 0.9, 4), rng.uniform(0, 1.5, 4)
        rules = {"sigma2": 0.3, "eta": float(rng.uniform(0, 0.2)), "alpha_p": float(rng.uniform(0.2, 3)), "tau": 0.9}
        k = theory.commutator_gain((u * p) @ u.T, (u * s) @ u.T, **rules)
        grows = theory.growth(p, sigma2=rules["sigma2"], eta=rules["eta"], tau=rules["tau"]) > 0
        holds = theory.stays_aligned(p, s, **rules)
        assert holds.tolist() == (grows & (np.diag(u.T @ k @ u) > 0)).tolist()
        assert theory.alignment_rate((u * p) @ u.T, (u * s) @ u.T, **rules) == pytest.approx(np.diag(u.T @ k @ u).min())
        seen |= set(holds[grows].tolist())
    assert seen == {True, False}


@pytest.mark.parametrize("rules", [{}, {"alpha_p": 3.0}, {"alpha_p": 0.5, "tau": 0.6}])
def test_matrices_in_a_common_basis_are_the_modes(rules: dict[str, float]) -> None:
    u, p, s = commuting_pair()
    wps, fs = theory.integrate_matrices((u * p) @ u.T, (u * s) @ u.T, steps=200, dt=0.01, **SET, **rules)
    path = theory.integrate_modes(p, s, times=[0, 2], **SET, **rules)
    np.testing.assert_allclose(np.diag(u.T @ wps[-1] @ u), path.p[-1], atol=1e-9)
    np.testing.assert_allclose(np.diag(u.T @ fs[-1] @ u), path.s[-1], atol=1e-9)
    np.testing.assert_allclose(fs[-1] @ wps[-1], wps[-1] @ fs[-1], atol=1e-12)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"alpha_p": 3.0, "beta": 0.7},
        {"stop_gradient": False},
        {"stop_gradient": False, "beta": 0.7, "alpha_p": 2.0},
        {"predictor": False},
        {"predictor": False, "beta": 0.2},
        {"predictor": False, "stop_gradient": False},
    ],
)
def test_white_data_makes_the_full_model_the_modes(rules: dict[str, Any]) -> None:
    u, p, s = commuting_pair()
    p = p if rules.get("predictor", True) else np.ones(4)
    w = (u * np.sqrt(s)) @ u.T
    start, eye = (0.4 if "beta" in rules else 1.0), np.eye(4)
    wps, ws, was = theory.integrate_weights(
        (u * p) @ u.T, w, start * w, steps=200, dt=0.01, x=eye, x_aug=0.3 * eye, eta=0.05, **rules
    )
    path = theory.integrate_modes(p, s, start, times=[0, 2], **SET, **rules)
    np.testing.assert_allclose(np.diag(u.T @ wps[-1] @ u), path.p[-1], atol=1e-9)
    np.testing.assert_allclose(np.diag(u.T @ ws[-1] @ ws[-1].T @ u), path.s[-1], atol=1e-9)
    if "beta" in rules and rules.get("stop_gradient", True):
        np.testing.assert_allclose(np.diag(u.T @ was[-1] @ ws[-1].T @ u), path.tau[-1] * path.s[-1], atol=1e-9)
    if not rules:
        np.testing.assert_array_equal(ws, was)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_flow_is_the_gradient_of_j(stop_gradient: bool) -> None:
    rng = np.random.default_rng(8)
    wp, w, wa = rng.standard_normal((3, 3)), rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    a, b = rng.standard_normal((2, 4, 4))
    x, x_aug = a @ a.T, b @ b.T

    def j(wp: np.ndarray, w: np.ndarray, target: np.ndarray) -> float:
        # 1/2 E |Wp W x1 - Wa x2|^2 with E x1 x1^T = E x2 x2^T = X + X' and E x1 x2^T = X.
        q = wp @ w
        both = q @ (x + x_aug) @ q.T + target @ (x + x_aug) @ target.T - 2 * q @ x @ target.T
        return float(np.trace(both)) / 2

    def slope(of: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
        out = np.empty_like(at)
        for i in np.ndindex(at.shape):
            step = np.zeros_like(at)
            step[i] = 1e-5
            out[i] = (of(at + step) - of(at - step)) / 2e-5
        return out

    own = not stop_gradient
    dwp, dw, _ = theory.weight_flow(
        wp, w, wa, x=x, x_aug=x_aug, eta=0.1, alpha_p=2.0, beta=0.3, stop_gradient=stop_gradient
    )
    np.testing.assert_allclose(dwp, -2 * slope(lambda m: j(m, w, w if own else wa), wp) - 0.1 * wp, atol=1e-6)
    np.testing.assert_allclose(dw, -slope(lambda m: j(wp, m, m if own else wa), w) - 0.1 * w, atol=1e-6)


@pytest.mark.parametrize("beta", [None, 0.3])
def test_theorem_1_holds_for_any_data_and_target(beta: float | None) -> None:
    rng = np.random.default_rng(1)
    wp, w, wa = 0.4 * rng.standard_normal((3, 3)), 0.4 * rng.standard_normal((3, 5)), 0.4 * rng.standard_normal((3, 5))
    a, b = rng.standard_normal((2, 5, 5)) / 3
    keep = {"x": a @ a.T, "x_aug": b @ b.T, "eta": 0.05, "alpha_p": 2.0, "beta": beta}
    wps, ws, _ = theory.integrate_weights(wp, w, w if beta is None else wa, steps=1000, dt=1e-3, **keep)
    times = 1e-3 * np.arange(1001)
    assert theory.theorem1_residual(wps, ws, times, eta=0.05, alpha_p=2.0) < 1e-12
    assert theory.theorem1_residual(wps, ws, times, eta=0.06, alpha_p=2.0) > 1e-4
    assert theory.theorem1_residual(wps, ws, times + 7, eta=0.05, alpha_p=2.0) < 1e-12


def some_data(d: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, n, n)) / 2
    return rng.standard_normal((d, d)), rng.standard_normal((d, n)), a @ a.T, b @ b.T


@pytest.mark.parametrize(("stop_gradient", "eta"), [(False, 0.0), (False, 0.05), (True, 0.0), (True, 0.05)])
def test_theorem_2_the_network_vanishes_at_least_as_fast_as_it_says(stop_gradient: bool, eta: float) -> None:
    wp, w, x, x_aug = some_data(3, 4)
    wp = np.eye(3) if stop_gradient else wp
    data: dict[str, Any] = {"x": x, "x_aug": x_aug, "eta": eta}
    wps, ws, _ = theory.integrate_weights(
        wp, w, w, steps=2000, dt=1e-2, stop_gradient=stop_gradient, predictor=not stop_gradient, **data
    )
    some = list(zip(wps[::100], ws[::100], strict=True))
    assert max(theory.theorem2_residual(m, v, stop_gradient=stop_gradient, **data) for m, v in some) < 1e-12
    rate = min(theory.collapse_rate(m, stop_gradient=stop_gradient, **data) for m in wps[::10])
    assert rate >= np.linalg.eigvalsh(x_aug)[0] + eta - 1e-12
    assert rate > 0
    times = 1e-2 * np.arange(2001)
    assert theory.theorem2_excess(ws, times, rate) <= 1e-9
    # A rate that no theorem promises is not kept.
    assert theory.theorem2_excess(ws, times, 3 * rate + 1) > 1


def test_theorem_2_needs_what_it_says() -> None:
    wp, w, x, x_aug = some_data(3, 4)
    # With stop-gradient and a predictor the network lives on.
    _, ws, _ = theory.integrate_weights(np.eye(3) / 2, w, w, steps=4000, dt=1e-2, x=x, x_aug=x_aug, eta=0.001)
    assert np.abs(ws[-1]).max() > 0.05
    assert theory.theorem2_residual(wp, w, x=x, x_aug=x_aug, eta=0.0, stop_gradient=True) > 0.1


def test_modes_without_stop_gradient_or_predictor_die_as_fast_as_theorem_2_says() -> None:
    times = np.linspace(0, 10, 21)
    for rules in ({"stop_gradient": False}, {"predictor": False}, {"stop_gradient": False, "predictor": False}):
        p = np.ones(3) if not rules.get("predictor", True) else np.array([0.1, 0.5, 1.5])
        path = theory.integrate_modes(p, [0.1, 0.5, 2.0], times=times, **SET, **rules)
        bound = path.s[0] * np.exp(-2 * 0.35 * times)[:, None]
        assert (path.s <= bound * (1 + 1e-9)).all()
        assert path.s[-1].max() < 1e-2


def test_theorem_3_the_commutator_obeys_its_equation_and_its_bound() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 4, 4)) / 4
    keep = {**SET, "alpha_p": 4.0, "tau": 0.3}
    wps, fs = theory.integrate_matrices(
        a @ a.T + 0.5 * np.eye(4), b @ b.T + 0.3 * np.eye(4), steps=2000, dt=1e-3, **keep
    )
    assert max(theory.theorem3_residual(wp, f, **keep) for wp, f in zip(wps[::50], fs[::50], strict=True)) < 1e-12
    rate = min(theory.alignment_rate(wp, f, **keep) for wp, f in zip(wps, fs, strict=True))
    assert rate > 0.1
    sizes = np.linalg.norm(fs @ wps - wps @ fs, axis=(1, 2))
    bound = sizes[0] * np.exp(-2 * rate * 1e-3 * np.arange(2001))
    assert (sizes <= bound * (1 + 1e-9)).all()


def test_torch_is_not_imported_and_scipy_only_when_needed() -> None:
    code = "import ssl_lab.theory, sys; assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
