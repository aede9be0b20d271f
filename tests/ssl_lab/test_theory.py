"""The linear model against closed forms, conserved quantities and the numbers that P's equations give."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ssl_lab import theory

SET = {"sigma2": 0.3, "eta": 0.05}


def commuting_pair(d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    p = np.linspace(0.02, 0.6, d)
    return u, p, theory.parabola(p, 1.0)


def test_fixed_points_of_the_worked_example() -> None:
    points = theory.fixed_points(**SET)
    assert points is not None
    assert points.p_minus == pytest.approx(0.053757, abs=5e-7)
    assert points.p_plus == pytest.approx(0.715474, abs=5e-7)
    for p in (points.p_minus, points.p_plus):
        assert theory.growth(p, **SET) == pytest.approx(0, abs=1e-15)


def test_fixed_points_at_the_ends_of_the_weight_decay() -> None:
    free = theory.fixed_points(0.3, 0.0, tau=0.8)
    assert free == theory.FixedPoints(0.0, pytest.approx(0.8 / 1.3))
    edge = theory.critical_eta(0.3)
    assert edge == pytest.approx(1 / 5.2)
    assert theory.fixed_points(0.3, edge * (1 + 1e-9)) is None
    meeting = theory.fixed_points(0.3, edge * (1 - 1e-9))
    assert meeting is not None
    assert meeting.p_minus == pytest.approx(meeting.p_plus, rel=1e-3)
    tiny = theory.fixed_points(0.3, 1e-18)
    assert tiny is not None
    assert tiny.p_minus == pytest.approx(1e-18, rel=1e-12)
    assert theory.fixed_points(0.3, 0.0, tau=0.0) is None
    with pytest.raises(ValueError, match="cannot be negative"):
        theory.fixed_points(0.3, -0.1)


@pytest.mark.parametrize("alpha_p", [0.5, 1.0, 4.0])
def test_the_basin_of_collapse_ends_at_p_minus(alpha_p: float) -> None:
    p = np.array([0.0511, 0.0564])
    path = theory.integrate_modes(p, theory.parabola(p, alpha_p), times=[0, 2000], alpha_p=alpha_p, **SET)
    assert path.p[-1] == pytest.approx([0, 0.715474], abs=1e-6)
    np.testing.assert_allclose(path.s, theory.parabola(path.p, alpha_p), atol=1e-10)


def test_too_much_weight_decay_collapses_from_anywhere() -> None:
    path = theory.integrate_modes(0.9, 2.0, times=[0, 200], sigma2=0.3, eta=0.2)
    assert path.p[-1, 0] == pytest.approx(0, abs=1e-6)


def test_modes_keep_their_invariant_with_a_moving_target() -> None:
    times = np.linspace(0, 30, 16)
    p, s = np.array([0.1, 0.3, 0.5]), np.array([0.5, 0.1, 0.3])
    path = theory.integrate_modes(p, s, 0.2, times=times, alpha_p=2.0, beta=0.4, **SET)
    c = theory.mode_invariant(path.p, path.s, times[:, None], eta=0.05, alpha_p=2.0)
    np.testing.assert_allclose(c, np.broadcast_to(s - p**2 / 2, c.shape), atol=1e-8)
    assert path.p.shape == path.s.shape == path.tau.shape == (16, 3)


def test_a_slow_target_catches_up_and_the_gain_with_it() -> None:
    path = theory.integrate_modes(0.1, 0.2, 0.3, times=[0, 4000], sigma2=0.3, eta=0.0, beta=0.05)
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


def test_matrices_in_a_common_basis_are_the_modes() -> None:
    u, p, s = commuting_pair()
    wps, fs = theory.integrate_matrices((u * p) @ u.T, (u * s) @ u.T, steps=200, dt=0.01, **SET)
    path = theory.integrate_modes(p, s, times=[0, 2], **SET)
    np.testing.assert_allclose(np.diag(u.T @ wps[-1] @ u), path.p[-1], atol=1e-8)
    np.testing.assert_allclose(np.diag(u.T @ fs[-1] @ u), path.s[-1], atol=1e-8)
    np.testing.assert_allclose(fs[-1] @ wps[-1], wps[-1] @ fs[-1], atol=1e-12)


def test_white_data_makes_the_full_model_the_aligned_one() -> None:
    u, p, s = commuting_pair()
    w = (u * np.sqrt(s)) @ u.T
    eye = np.eye(4)
    wps, ws, was = theory.integrate_weights((u * p) @ u.T, w, w, steps=200, dt=0.01, x=eye, x_aug=0.3 * eye, eta=0.05)
    path = theory.integrate_modes(p, s, times=[0, 2], **SET)
    np.testing.assert_allclose(np.diag(u.T @ wps[-1] @ u), path.p[-1], atol=1e-8)
    np.testing.assert_allclose(np.diag(u.T @ ws[-1] @ ws[-1].T @ u), path.s[-1], atol=1e-8)
    np.testing.assert_array_equal(ws, was)


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


def test_theorem_2_without_a_predictor_the_network_vanishes() -> None:
    rng = np.random.default_rng(2)
    w = rng.standard_normal((3, 3))
    eye = np.eye(3)
    for _ in range(300):
        w = w + 0.1 * theory.weight_flow(eye, w, w, x=eye, x_aug=0.3 * eye, eta=0.0)[1]
    assert np.abs(w).max() < 1e-3


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
