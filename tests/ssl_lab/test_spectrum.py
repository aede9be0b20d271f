"""Spectra of matrices whose answer is known, and of random ones against a slow literal reference."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssl_lab.spectrum import Spectrum, alignment, asymmetry, describe, effective_rank, one_blas_thread, spectrum

D = 6
VALUES = np.array([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])


def rotation(seed: int = 0, d: int = D) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def made_of(values: np.ndarray, u: np.ndarray) -> np.ndarray:
    return (u * values) @ u.T


def moment(rank: float, cosines: np.ndarray) -> Spectrum:
    d = len(cosines)
    return Spectrum(np.ones(d), np.ones(d), cosines, np.ones(d), 0.0, rank)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_known_spectrum_is_found_in_any_basis(seed: int | None) -> None:
    u = np.eye(D)[:, [3, 0, 5, 1, 4, 2]] if seed is None else rotation(seed)
    found = spectrum(made_of(VALUES, u), made_of(np.sqrt(VALUES), u))
    np.testing.assert_allclose(found.f_eigenvalues, VALUES, atol=1e-12)
    np.testing.assert_allclose(found.wp_eigenvalues, np.sqrt(VALUES), atol=1e-12)
    np.testing.assert_allclose(found.wp_diagonal, np.sqrt(VALUES), atol=1e-12)
    np.testing.assert_allclose(found.alignment, 1, atol=1e-12)
    assert found.aligned == D
    assert found.asymmetry < 1e-12


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.ones(8) / 8) == pytest.approx(8)
    assert effective_rank([1, 0, 0, 0]) == pytest.approx(1)
    assert effective_rank([2, 2, 0, -1e-9]) == pytest.approx(2)
    assert effective_rank([0.5, 0.25, 0.25]) == pytest.approx(2**1.5)
    assert effective_rank(1e300 * VALUES) == pytest.approx(effective_rank(VALUES))
    assert effective_rank(np.zeros(4)) == 0
    assert effective_rank([-1.0, -2.0]) == 0


def test_rank_one_and_zero() -> None:
    v = np.arange(1.0, D + 1)
    one = spectrum(np.outer(v, v), np.zeros((D, D)))
    assert one.f_eigenvalues[0] == pytest.approx(v @ v)
    assert one.effective_rank == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(one.alignment, 0)
    assert one.asymmetry == 0
    assert one.aligned == 0
    zero = spectrum(np.zeros((D, D)), np.eye(D))
    assert zero.effective_rank == 0
    np.testing.assert_allclose(zero.alignment, 1)


def test_asymmetry_of_known_parts() -> None:
    symmetric, turn = np.full((3, 3), 2.0), np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0.0]])
    assert asymmetry(symmetric) == 0
    assert asymmetry(turn) == pytest.approx(2)
    assert asymmetry(symmetric + turn) == pytest.approx(4 / 18)


def test_a_predictor_that_swaps_or_turns_round_eigenvectors_is_not_aligned() -> None:
    u = rotation(3)
    swap = np.eye(D)[[1, 0, 3, 2, 5, 4]]
    found = spectrum(made_of(VALUES, u), u @ swap @ u.T)
    np.testing.assert_allclose(found.alignment, 0, atol=1e-12)
    np.testing.assert_allclose(found.wp_diagonal, 0, atol=1e-12)
    np.testing.assert_allclose(found.wp_eigenvalues, [1, 1, 1, -1, -1, -1], atol=1e-12)
    np.testing.assert_allclose(spectrum(made_of(VALUES, u), -np.eye(D)).alignment, -1)


def test_alignment_is_zero_where_nothing_but_rounding_is_left() -> None:
    u = rotation(4)
    gains = np.array([1.0, 1.0, 1.0, 0, 0, 0])
    np.testing.assert_allclose(alignment(made_of(gains, u), u), gains, atol=1e-12)
    np.testing.assert_allclose(alignment(made_of(gains, u), 7 * u), gains, atol=1e-12)


def test_a_random_pair_agrees_with_the_definitions_read_literally() -> None:
    rng = np.random.default_rng(5)
    x, wp = rng.standard_normal((50, D)), rng.standard_normal((D, D))
    f = x.T @ x / 50
    found = spectrum(f.astype(np.float32), wp)
    values, vectors = (part.real for part in np.linalg.eig(f))
    order = sorted(range(D), key=lambda i: -values[i])
    total = sum(values)
    for place, i in enumerate(order):
        v = vectors[:, i]
        w = [sum(wp[a, b] * v[b] for b in range(D)) for a in range(D)]
        dot = sum(w[a] * v[a] for a in range(D))
        length = math.sqrt(sum(a * a for a in w)) * math.sqrt(sum(a * a for a in v))
        assert found.f_eigenvalues[place] == pytest.approx(values[i], rel=1e-5)
        assert found.alignment[place] == pytest.approx(dot / length, abs=1e-5)
        assert found.wp_diagonal[place] == pytest.approx(dot, abs=1e-5)
    entropy = -sum(s / total * math.log(s / total) for s in values)
    assert found.effective_rank == pytest.approx(math.exp(entropy), rel=1e-5)
    np.testing.assert_allclose(found.wp_eigenvalues, sorted((e.real for e in np.linalg.eigvals(wp)), reverse=True))
    upper = sum(abs(wp[a, b] - wp[b, a]) for a in range(D) for b in range(D))
    assert found.asymmetry == pytest.approx(upper / sum(abs(wp[a, b]) for a in range(D) for b in range(D)))


def test_scaling_f_or_wp_changes_no_angle() -> None:
    rng = np.random.default_rng(6)
    x, wp = rng.standard_normal((20, D)), rng.standard_normal((D, D))
    one, other = spectrum(x.T @ x, wp), spectrum(1e-9 * x.T @ x, 1e9 * wp)
    np.testing.assert_allclose(one.alignment, other.alignment, atol=1e-10)
    assert one.effective_rank == pytest.approx(other.effective_rank)
    assert one.asymmetry == pytest.approx(other.asymmetry)


def test_the_input_is_not_changed_and_the_arrays_are_float64() -> None:
    rng = np.random.default_rng(7)
    f, wp = rng.standard_normal((2, D, D)).astype(np.float32)
    before = f.copy(), wp.copy()
    found = spectrum(f, wp)
    np.testing.assert_array_equal(before, (f, wp))
    for part in (found.f_eigenvalues, found.wp_eigenvalues, found.alignment, found.wp_diagonal):
        assert part.dtype == np.float64
        assert part.shape == (D,)
        assert part.flags.c_contiguous


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(bad: float) -> None:
    broken = np.eye(D)
    broken[1, 2] = bad
    with pytest.raises(ValueError, match=r"^F has 1 of 36 entries that are not finite"):
        spectrum(broken, np.eye(D))
    with pytest.raises(ValueError, match=r"^Wp has 1 of 36 entries"):
        spectrum(np.eye(D), broken)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"F must be a square matrix, and has the shape \(2, 3\)"):
        spectrum(np.ones((2, 3)), np.eye(2))
    with pytest.raises(ValueError, match="F is 2 x 2 but Wp is 3 x 3"):
        spectrum(np.eye(2), np.eye(3))


def test_the_words() -> None:
    some = np.array([1.0] * 8 + [0.9] + [0.1] * 23)
    assert describe(moment(14.2, some), "mlp") == (
        "8 of 32 eigenvectors aligned; effective rank 14.2 of 32; not collapsing."
    )
    assert describe(moment(2.0, some), "linear").endswith("effective rank 2.0 of 32; narrow, close to collapse.")
    assert describe(moment(1.2, some), "mlp") == (
        "Collapsing: nearly all of F lies in 1 direction (effective rank 1.2 of 32)."
    )
    assert describe(moment(0.0, some), "mlp").startswith("Collapsed: F is zero")
    alone = describe(moment(14.2, np.ones(32)), "none")
    assert "aligned" not in alone
    assert "Wp is the identity, and alignment means nothing" in alone
    assert describe(moment(1.9, np.ones(2)), "mlp").endswith("not collapsing.")


def test_blas_threads_are_put_back_though_threads_overlap() -> None:
    from threadpoolctl import threadpool_info

    def counts() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = counts()
    f = np.eye(D)
    threads = [threading.Thread(target=lambda: [spectrum(f, f) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts() == before
    with one_blas_thread():
        assert 1 in counts() or not before


def test_torch_is_not_imported() -> None:
    code = "import ssl_lab.spectrum, sys; assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
