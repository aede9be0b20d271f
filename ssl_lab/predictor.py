"""The correlation F, the rules that make Wp from it, and what happens to Wp when the mode changes mid-run.

Sources: P (arXiv 2102.06810) sections 3 and 5; C (arXiv 2110.04947); S for the order of things and for
symmetrising. Matrices are (d, d); projections f are (rows, d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_lab.config import NormMode, PredictorMode
from ssl_lab.networks import initialise, mlp

# P, footnote to eq. 18 as run by its authors: no eigenvalue of Wp falls below this.
SMALLEST_GAIN = 1e-4


# Share of F's mean eigenvalue that keeps the least-squares problem solvable where F has no variance.
RIDGE = 1e-3


def correlation(f: Tensor, z: Tensor | None = None, *, centred: bool = False) -> Tensor:
    """E[f f^T] over the rows of ``f`` (rows, d), or E[z f^T]: (d, d). Centred it is the covariance (P sec. 5)."""
    f = f.detach().float()
    z = f if z is None else z.detach().float()
    if centred:
        f, z = f - f.mean(0), z - z.mean(0)
    found: Tensor = z.T @ f / f.shape[0]
    return found


def directpred(f: Tensor, eps: float) -> Tensor:
    """Wp of DirectPred (P eq. 18, scaled as it is run): (d, d), symmetric positive definite.

    ``F = U diag(s) U^T; s <- max(s, 0) / max s; p = max(sqrt(s) + eps, 1e-4); Wp = U diag(p) U^T``.
    An F of zeros gives ``eps I``.

    Raises:
        torch.linalg.LinAlgError: F is not finite.
    """
    s, u = torch.linalg.eigh(f)
    s = s.clamp(min=0)
    s = s / s[-1].clamp(min=torch.finfo(s.dtype).tiny)
    p = (s.sqrt() + eps).clamp(min=SMALLEST_GAIN)
    wp: Tensor = (u * p) @ u.T
    return wp


def directcopy(f: Tensor, eps: float, norm: NormMode) -> Tensor:
    """Wp of DirectCopy (C): ``F / |F| + eps I``, (d, d); the norm is Frobenius, spectral or none."""
    tiny = torch.finfo(f.dtype).tiny
    if norm == "fro":
        f = f / torch.linalg.matrix_norm(f).clamp(min=tiny)
    elif norm == "spectral":
        f = f / torch.linalg.matrix_norm(f, ord=2).clamp(min=tiny)
    return f + eps * torch.eye(f.shape[0], dtype=f.dtype, device=f.device)


def optimal(f: Tensor, cross: Tensor) -> Tensor:
    """Wp that minimises E|Wp f - z|^2 (P table 1): ``E[z f^T] F^-1``, (d, d), not symmetric.

    Args:
        f: F = E[f f^T], (d, d).
        cross: E[z f^T], (d, d), z being the target's projection of the other view.

    F gets ``RIDGE`` times its mean eigenvalue on the diagonal; an F of zeros gives zeros.
    """
    d = f.shape[0]
    ridge = (RIDGE * f.trace() / d).clamp(min=torch.finfo(f.dtype).tiny)
    # W F = C; the solver takes the unknown on the right of a symmetric matrix.
    wp: Tensor = torch.linalg.solve(f + ridge * torch.eye(d, dtype=f.dtype, device=f.device), cross.T).T
    return wp


def balanced_factors(wp: Tensor, hidden: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """W1 (hidden, d) and W2 (d, hidden) with ``W2 W1 = Wp`` and ``W2^T W2 = W1 W1^T`` (balanced).

    The hidden basis is a random orthonormal one: with BN and ReLU between the factors, a basis along the
    axes would leave all but d hidden units dead.

    Raises:
        ValueError: ``hidden`` is smaller than d.
    """
    d = wp.shape[0]
    if hidden < d:
        raise ValueError(f"{hidden} hidden units cannot hold a {d} x {d} matrix")
    u, s, vt = torch.linalg.svd(wp.double().cpu())
    q, _ = torch.linalg.qr(torch.randn(hidden, d, generator=generator, dtype=torch.float64))
    root = s.sqrt()
    w1 = q @ (root[:, None] * vt)
    w2 = (u * root) @ q.T
    return w1.to(wp), w2.to(wp)


class Predictor(nn.Module):
    """f (B, d) -> q (B, d), in one of the six modes; Wp outlives every change of mode.

    Both forms are always there, a one-layer map and a two-layer MLP, and one of them holds Wp: the mode's
    own, or in mode ``none`` the one that held it last.
    """

    def __init__(self, dim: int, hidden: int, mode: PredictorMode, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):
            self.linear = nn.Linear(dim, dim, bias=False)
            self.mlp = mlp(dim, hidden, dim, 2)
        self.to_empty(device="cpu")
        initialise(self, generator)
        self.dim, self.hidden = dim, hidden
        self.mode: PredictorMode = mode
        self.holds_mlp = mode == "mlp"

    def forward(self, f: Tensor) -> Tensor:
        if self.mode == "none":
            return f
        out: Tensor = self.mlp(f) if self.holds_mlp else self.linear(f)
        return out

    def matrix(self) -> Tensor:
        """Wp (d, d) that the projections meet: W2 W1 (BN and ReLU left out), the weight, or the identity."""
        if self.mode == "none":
            return torch.eye(self.dim, device=self.linear.weight.device)
        return self.kept_matrix()

    def kept_matrix(self) -> Tensor:
        """Wp (d, d) that is kept, also while the mode is ``none``."""
        if not self.holds_mlp:
            return self.linear.weight
        first, last = self._factors()
        return last @ first

    def _factors(self) -> tuple[Tensor, Tensor]:
        return self.mlp[0].weight, self.mlp[-1].weight  # type: ignore[return-value]

    @torch.no_grad()
    def set_mode(self, mode: PredictorMode, generator: torch.Generator) -> None:
        """Changes the mode and keeps Wp: factors start balanced with W2 W1 = Wp, one layer starts at W2 W1."""
        if mode != "none" and (mode == "mlp") != self.holds_mlp:
            if mode == "mlp":
                first, last = balanced_factors(self.linear.weight, self.hidden, generator)
                for part in self.mlp:
                    if isinstance(part, nn.Linear):
                        part.bias.zero_()
                    elif isinstance(part, nn.BatchNorm1d):
                        part.reset_running_stats()
                self._factors()[0].copy_(first)
                self._factors()[1].copy_(last)
            else:
                self.linear.weight.copy_(self.kept_matrix())
            self.holds_mlp = mode == "mlp"
        self.mode = mode

    @torch.no_grad()
    def set_matrix(self, wp: Tensor) -> None:
        """Overwrites a one-layer Wp (d, d), as the modes that set it do."""
        self.linear.weight.copy_(wp)

    @torch.no_grad()
    def symmetrise(self) -> None:
        """S's hard symmetry: W <- (W + W^T)/2, or W1 <- (W1 + W2^T)/2 and W2 <- W1^T (Wp symmetric PSD)."""
        if self.mode == "none":
            return
        if self.holds_mlp:
            first, last = self._factors()
            first.copy_((first + last.T) / 2)
            last.copy_(first.T)
        else:
            weight = self.linear.weight
            weight.copy_((weight + weight.T) / 2)

    def asymmetry_penalty(self) -> Tensor:
        """1/2 |Wp - Wp^T|_F^2, a scalar; its gradient on the antisymmetric part A of a one-layer Wp is 4 A."""
        wp = self.matrix()
        return 0.5 * (wp - wp.T).square().sum()
