"""F, the rules that make Wp, symmetrising and changes of mode, against plain numpy and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_lab.predictor import (
    Predictor,
    balanced_factors,
    correlations,
    directcopy,
    directpred,
    directpred_by_products,
    largest_eigenvalue,
    optimal,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(f: Tensor, z: Tensor | None = None, *, centred: bool = False) -> Tensor:
    """E[f f^T], or E[z f^T]."""
    both = correlations(f, f if z is None else z, centred=centred)
    return both[:, : f.shape[1]] if z is None else both[:, f.shape[1] :].T


def random_f(d: int = 12, seed: int = 1) -> torch.Tensor:
    return correlation(torch.randn(40, d, generator=generator(seed), dtype=torch.float64)).double()


def test_correlation_is_the_mean_of_outer_products_not_centred() -> None:
    f = torch.randn(6, 3, generator=generator()) + 5.0
    plain = np.zeros((3, 3))
    for row in f.double().numpy():
        plain += np.outer(row, row) / len(f)
    np.testing.assert_allclose(correlation(f).numpy(), plain, rtol=1e-5)


def test_centred_it_is_the_covariance() -> None:
    f = torch.randn(50, 3, generator=generator()) + 5.0
    z = f @ torch.randn(3, 3, generator=generator(1)) - 2.0
    expected = np.cov(f.double().numpy().T, z.double().numpy().T, bias=True)
    np.testing.assert_allclose(correlation(f, centred=True).numpy(), expected[:3, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(correlation(f, z, centred=True).numpy(), expected[3:, :3], rtol=1e-4, atol=1e-5)


def test_the_optimal_predictor_is_the_least_squares_one() -> None:
    f = torch.randn(400, 6, generator=generator(), dtype=torch.float64)
    true = torch.randn(6, 6, generator=generator(1), dtype=torch.float64)
    z = f @ true.T + 0.1 * torch.randn(400, 6, generator=generator(2), dtype=torch.float64)
    wp = optimal(f.T @ f / 400, z.T @ f / 400)
    expected = np.linalg.lstsq(f.numpy(), z.numpy(), rcond=None)[0].T
    # The ridge is a thousandth of the variance.
    np.testing.assert_allclose(wp.numpy(), expected, atol=5e-3)

    def error(w: np.ndarray) -> float:
        return float(np.mean((f.numpy() @ w.T - z.numpy()) ** 2))

    assert error(wp.numpy()) < error(expected) * (1 + 1e-3)
    assert error(wp.numpy()) < 0.5 * error(true.numpy() * 0.9)
    assert torch.equal(optimal(torch.zeros(3, 3), torch.zeros(3, 3)), torch.zeros(3, 3))


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 0.5])
def test_directpred_against_numpy(eps: float) -> None:
    f = random_f()
    s, u = np.linalg.eigh(f.numpy())
    s = np.maximum(s, 0)
    p = np.maximum(np.sqrt(s / s.max()) + eps, 1e-4)
    np.testing.assert_allclose(directpred(f, eps).numpy(), u @ np.diag(p) @ u.T, atol=1e-12)


def test_directpred_is_the_square_root_plus_eps() -> None:
    # REFERENCE.md section 1 [D]: for eps >= 1e-4 it is (F / lambda_max)^(1/2) + eps I.
    f = random_f()
    root = directpred(f, 0.2) - 0.2 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(root @ root, f / torch.linalg.eigvalsh(f)[-1], atol=1e-12, rtol=0)


def test_directpred_of_a_diagonal_and_of_zeros() -> None:
    f = torch.diag(torch.tensor([4.0, 1.0, 0.0]))
    torch.testing.assert_close(directpred(f, 0.1), torch.diag(torch.tensor([1.1, 0.6, 0.1])))
    torch.testing.assert_close(directpred(f, 0.0).diagonal(), torch.tensor([1.0, 0.5, 1e-4]))
    torch.testing.assert_close(directpred(torch.zeros(3, 3), 0.1), 0.1 * torch.eye(3))


@pytest.mark.parametrize(("norm", "order"), [("fro", "fro"), ("spectral", 2)])
def test_directcopy_norms(norm, order) -> None:  # type: ignore[no-untyped-def]
    f = random_f()
    expected = f.numpy() / np.linalg.norm(f.numpy(), order) + 0.3 * np.eye(12)
    np.testing.assert_allclose(directcopy(f, 0.3, norm).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(directcopy(f, 0.3, "none").numpy(), f.numpy() + 0.3 * np.eye(12), atol=1e-12)
    torch.testing.assert_close(directcopy(torch.zeros(3, 3), 0.3, norm), 0.3 * torch.eye(3))


def test_balanced_factors() -> None:
    wp = torch.randn(6, 6, generator=generator(), dtype=torch.float64)
    first, last = balanced_factors(wp, 15, generator())
    torch.testing.assert_close(last @ first, wp)
    torch.testing.assert_close(last.T @ last, first @ first.T)
    # No hidden unit is left dead.
    assert (first.norm(dim=1) > 1e-3).all()
    with pytest.raises(ValueError, match="5 hidden"):
        balanced_factors(wp, 5, generator())


def test_symmetrise_one_layer() -> None:
    predictor = Predictor(5, 9, "linear", generator())
    before = predictor.matrix().detach().clone()
    predictor.symmetrise()
    torch.testing.assert_close(predictor.matrix(), (before + before.T) / 2)


def test_symmetrise_two_layers() -> None:
    predictor = Predictor(5, 9, "mlp", generator())
    first, last = (predictor.mlp[i].weight.detach().clone() for i in (0, -1))
    predictor.symmetrise()
    torch.testing.assert_close(predictor.mlp[0].weight, (first + last.T) / 2)
    assert torch.equal(predictor.mlp[-1].weight, predictor.mlp[0].weight.T)
    wp = predictor.matrix().detach()
    torch.testing.assert_close(wp, wp.T)
    assert torch.linalg.eigvalsh(wp.double()).min() > -1e-6


def test_penalty_and_its_gradient() -> None:
    predictor = Predictor(4, 9, "linear", generator())
    wp = predictor.matrix().detach().double().numpy()
    plain = 0.5 * sum((wp[i, j] - wp[j, i]) ** 2 for i in range(4) for j in range(4))
    penalty = predictor.asymmetry_penalty()
    assert float(penalty.detach()) == pytest.approx(plain, rel=1e-6)
    penalty.backward()
    np.testing.assert_allclose(predictor.linear.weight.grad.numpy(), 2 * (wp - wp.T), rtol=1e-5)


MODES = ["mlp", "linear", "directpred", "directcopy", "optimal", "none"]


@pytest.mark.parametrize("start", MODES)
@pytest.mark.parametrize("end", MODES)
def test_a_change_of_mode_keeps_wp(start, end) -> None:  # type: ignore[no-untyped-def]
    predictor = Predictor(6, 11, start, generator())
    kept = predictor.kept_matrix().detach().clone()
    predictor.set_mode(end, generator(2))
    torch.testing.assert_close(predictor.kept_matrix().detach(), kept, atol=1e-6, rtol=1e-5)
    f = torch.randn(8, 6, generator=generator(3))
    if end == "none":
        assert torch.equal(predictor(f), f)
        assert torch.equal(predictor.matrix(), torch.eye(6))
    elif end != "mlp":
        torch.testing.assert_close(predictor(f), f @ kept.T, atol=1e-5, rtol=1e-4)
    else:
        hidden = predictor.mlp[0](f)
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(predictor(f), hidden.relu() @ predictor.mlp[-1].weight.T + predictor.mlp[-1].bias)


def test_one_layer_and_direct_modes_share_the_matrix_to_the_bit() -> None:
    predictor = Predictor(6, 11, "linear", generator())
    kept = predictor.matrix().detach().clone()
    for mode in ("directpred", "none", "directcopy", "optimal", "linear"):
        predictor.set_mode(mode, generator())
        assert torch.equal(predictor.kept_matrix(), kept)


def psd(d: int, spectrum: Tensor, scale: float) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator(5), dtype=torch.float64))
    return (q * spectrum.double() * scale) @ q.T


SPECTRA = {
    "flat": lambda d: torch.ones(d),
    "condition 1e4": lambda d: torch.logspace(0, -4, d),
    "condition 1e6": lambda d: torch.logspace(0, -6, d),
    "condition 1e8": lambda d: torch.logspace(0, -8, d),
    "one direction": lambda d: (torch.arange(d) == 0).float(),
    "half of them": lambda d: (torch.arange(d) < d // 2).float(),
    "nothing": lambda d: torch.zeros(d),
}


@pytest.mark.parametrize("d", [2, 32, 128])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("name", SPECTRA)
def test_directpred_by_products_is_directpred(name: str, scale: float, d: int) -> None:
    """To 1e-3 of the largest entry, against the eigendecomposition in float64."""
    f = psd(d, SPECTRA[name](d), scale)
    for eps in (0.0, 0.1):
        exact, found = directpred(f, eps), directpred_by_products(f.float(), eps)
        # The exact rule lifts eigenvalues to 1e-4, which an eps of 0 shows.
        allowed = 1e-3 * float(exact.abs().max()) + (1e-4 if eps == 0 else 0.0)
        assert float((found - exact).abs().max()) <= allowed
        assert torch.equal(found, found.T)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_largest_eigenvalue_by_products(name: str) -> None:
    f = psd(32, SPECTRA[name](32), 3.0)
    assert float(largest_eigenvalue(f.float())) == pytest.approx(
        float(torch.linalg.eigvalsh(f)[-1]), rel=1e-4, abs=1e-6
    )


def test_two_largest_eigenvalues_close_together() -> None:
    spectrum = torch.linspace(1.0, 0.99, 32)
    assert float(largest_eigenvalue(psd(32, spectrum, 1.0).float())) == pytest.approx(1.0, rel=1e-3)


def test_an_f_that_is_not_finite_gives_a_wp_that_is_not() -> None:
    f = torch.eye(4)
    f[1, 2] = f[2, 1] = float("nan")
    assert not directpred_by_products(f, 0.1).isfinite().all()


def test_the_correlation_with_another_output_is_the_mean_of_outer_products() -> None:
    f, z = (torch.randn(10, 4, generator=generator(seed)) + 1 for seed in (1, 2))
    plain = sum(np.outer(b, a) for a, b in zip(f.double().numpy(), z.double().numpy(), strict=True)) / len(f)
    np.testing.assert_allclose(correlation(f, z).numpy(), plain, rtol=1e-5, atol=1e-6)
