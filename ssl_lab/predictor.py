"""The correlation F, the rules that make Wp from it, and what happens to Wp when the mode changes mid-run.

Sources: P (arXiv 2102.06810) sections 3 and 5; C (arXiv 2110.04947); S for the order of things and for
symmetrising. Matrices are (d, d); projections f are (rows, d).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_lab.config import NormMode, PredictorMode
from ssl_lab.networks import initialise, mlp

# P, footnote to eq. 18 as run by its authors: no eigenvalue of Wp falls below this.
SMALLEST_GAIN = 1e-4


# Share of F's mean eigenvalue that keeps the least-squares problem solvable where F has no variance.
RIDGE = 1e-3


def correlations(
    f: Tensor, z: Tensor, *, centred: bool = False, mean: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """F = E[f f^T] and E[f z^T] side by side, (d, 2d), in one product over the rows of ``f`` and ``z`` (rows, d).

    Centred they are covariances (P sec. 5). Where the rows are this rank's share of a batch, ``mean`` makes the mean
    over all ranks of a tensor, in place: it is asked for the centres alone, and the result is still to be averaged.
    """
    f, z = (x.detach().to(torch.promote_types(x.dtype, torch.float32)) for x in (f, z))
    if centred and mean is not None:
        centre = mean(torch.cat((f.mean(0), z.mean(0))))
        f, z = f - centre[: f.shape[1]], z - centre[f.shape[1] :]
    elif centred:
        f, z = f - f.mean(0), z - z.mean(0)
    return f.T @ torch.cat((f, z), 1) / len(f)


def directpred(f: Tensor, eps: float | Tensor) -> Tensor:
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


# Steps of the iterations below. 16 give (F / max)^(1/2) to 4e-4 of its largest entry at a condition of 1e8, where the
# error is largest (measured); 12 squarings give the largest eigenvalue to a part in 1e4 however close the second is.
_ROOT_STEPS = 16
_SQUARINGS = 12


def largest_eigenvalue(f: Tensor) -> Tensor:
    """Of a symmetric positive semi-definite (d, d) matrix, by products alone: a () tensor, 0 for zeros.

    A GPU's solvers make the host wait for it; products do not, and a CUDA graph can hold them. F^(2^k), scaled to trace
    1 at every squaring, tends to the projector on the largest eigenvalue's space, and its product with F has that
    eigenvalue for trace.
    """
    tiny = torch.finfo(f.dtype).tiny
    trace = f.trace().clamp(min=tiny)
    scaled = f / trace
    power = scaled
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / power.trace().clamp(min=tiny)
    found: Tensor = (power * scaled).sum() * trace
    return found


def directpred_by_products(f: Tensor, eps: float | Tensor) -> Tensor:
    """:func:`directpred` without an eigendecomposition, to 1e-3 of its largest entry: (d, d).

    ``(F / max)^(1/2) + eps I``, the root by the coupled Newton-Schulz iteration (Higham 2008, "Functions of
    Matrices", eq. 6.35). No eigenvalue of Wp falls below eps; the floor of 1e-4 of :func:`directpred` is left out,
    which an eps below it would feel. An F that is not finite gives a Wp that is not.
    """
    eye = torch.eye(f.shape[0], dtype=f.dtype, device=f.device)
    root, inverse = f / largest_eigenvalue(f).clamp(min=torch.finfo(f.dtype).tiny), eye
    for _ in range(_ROOT_STEPS):
        step = 1.5 * eye - 0.5 * (inverse @ root)
        root, inverse = root @ step, step @ inverse
    return (root + root.T) / 2 + eps * eye


def directcopy(f: Tensor, eps: float | Tensor, norm: NormMode, *, by_products: bool = False) -> Tensor:
    """Wp of DirectCopy (C): ``F / |F| + eps I``, (d, d); the norm is Frobenius, spectral or none.

    ``by_products`` spares a GPU's host the wait for a decomposition; the spectral norm is then good to a part in 1e3.
    """
    tiny = torch.finfo(f.dtype).tiny
    if norm == "fro":
        f = f / torch.linalg.vector_norm(f).clamp(min=tiny)
    elif norm == "spectral":
        # F is symmetric and has no negative eigenvalue, so its spectral norm is its largest one.
        largest = largest_eigenvalue(f) if by_products else torch.linalg.matrix_norm(f, ord=2)
        f = f / largest.clamp(min=tiny)
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
    # Without the check for a singular matrix, for which a GPU's host would have to wait; the ridge rules it out.
    wp: Tensor = torch.linalg.solve_ex(f + ridge * torch.eye(d, dtype=f.dtype, device=f.device), cross.T)[0].T
    return wp


def matrix_of(
    moments: Tensor, eps: float | Tensor, mode: PredictorMode, norm: NormMode, *, by_products: bool
) -> Tensor:
    """Wp (d, d) as a mode that sets it makes it from F and E[f z^T], side by side in ``moments`` (d, 2 d).

    Raises:
        torch.linalg.LinAlgError: F is not finite, and not ``by_products``.
    """
    dim = len(moments)
    f = moments[:, :dim]
    if mode == "optimal":
        return optimal(f, moments[:, dim:].T)
    if mode == "directcopy":
        return directcopy(f, eps, norm, by_products=by_products)
    return directpred_by_products(f, eps) if by_products else directpred(f, eps)


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
    """f (rows, d) -> q (rows, d), in one of the six modes; Wp outlives every change of mode.

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
            return torch.eye(self.dim, device=self.linear.weight.device, dtype=self.linear.weight.dtype)
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
