"""What the bench watches: the eigenvalues of F and Wp, how the two line up, and what that says in words.

Pure functions of numpy arrays. F is the (d, d) correlation E[f f^T] of the projector's outputs, not centred; Wp is
the (d, d) predictor. Sources: **P** Tian, Chen & Ganguli 2021, arXiv 2102.06810, section 3 and figure 3; **S** the
course reproduction of P, figure 2. "Healthy" and "collapsed" values below are from S's recordings (d = 128) and from
this package's digits (d = 32).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ALIGNED = 0.9
"""An eigenvector of F counts as aligned above this cosine. S's count; two random directions of 32 dimensions have a
cosine of about 0.18, and none in a million comes near 0.9."""
COLLAPSED_RANK = 1.5
"""F has collapsed below this effective rank: it holds one direction and traces of others. On the digits, runs
that collapse (no predictor, no stop-gradient) pass it within two epochs and settle at 1.0 to 1.2; S's BYOL starts at
1.9 and recovers."""
NARROW_RANK = 3.0
"""Below this effective rank a run may still go either way: DirectPred on the digits dips to 2.6 and recovers."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """F and Wp at one moment of a run; arrays are (d,) float64 and ordered by F's eigenvalues, largest first."""

    f_eigenvalues: Array
    """(d,) eigenvalues of F, descending. Healthy: many of similar size. Collapsed: one large, the others near 0."""
    wp_eigenvalues: Array
    """(d,) real parts of Wp's eigenvalues, descending: its own order, not F's."""
    alignment: Array
    """(d,) cos(Wp v_i, v_i) of F's eigenvectors v_i, see :func:`alignment`. Healthy: toward 1 from the left."""
    wp_diagonal: Array
    """(d,) v_i^T Wp v_i: the predictor's gain on eigenvector i, the p_j of the theory. Healthy: grows with the root of
    F's eigenvalue (P theorem 1, s = p^2 / alpha_p). Collapsed: falls to 0 with it."""
    asymmetry: float
    """See :func:`asymmetry`. Healthy: falls from 1.4 at the start toward 0.2; 0 for a symmetric predictor."""
    effective_rank: float
    """Of F, see :func:`effective_rank`."""

    @property
    def aligned(self) -> int:
        """Number of F's eigenvectors with an alignment above ``ALIGNED``. Healthy: grows with the epochs."""
        return int((self.alignment > ALIGNED).sum())


def spectrum(f: ArrayLike, wp: ArrayLike) -> Spectrum:
    """The spectrum of F (d, d) and Wp (d, d), in float64; F is symmetrised first (it is symmetric but for rounding).

    Raises:
        ValueError: a matrix is not square, the two differ in size, or an entry is not finite.
    """
    f, wp = _square("F", f), _square("Wp", wp)
    if f.shape != wp.shape:
        raise ValueError(f"F is {f.shape[0]} x {f.shape[0]} but Wp is {wp.shape[0]} x {wp.shape[0]}.")
    with one_blas_thread():
        values, vectors = np.linalg.eigh((f + f.T) / 2)
        values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
        # The symmetric solver gives the same numbers several times sooner.
        gains = np.linalg.eigvalsh(wp) if np.array_equal(wp, wp.T) else np.linalg.eigvals(wp).real
        cosines, diagonal = alignment(wp, vectors), np.sum(vectors * (wp @ vectors), axis=0)
    return Spectrum(
        f_eigenvalues=values,
        wp_eigenvalues=np.sort(gains)[::-1].copy(),
        alignment=cosines,
        wp_diagonal=diagonal,
        asymmetry=asymmetry(wp),
        effective_rank=effective_rank(values),
    )


def effective_rank(eigenvalues: ArrayLike) -> float:
    """exp of the entropy of the normalised eigenvalues (d,): how many directions F really uses, from 1 to d.

    Negative eigenvalues count as 0 (F has none but for rounding); all zeros give 0. Healthy: grows, 36 (BYOL) and 59
    (symmetric BYOL) of 128 at S's epoch 100. Collapsed: 1. Source: Roy & Vetterli 2007, "The effective rank".
    """
    s = np.clip(np.asarray(eigenvalues, dtype=np.float64), 0, None)
    if not s.any():
        return 0.0
    s = s / s.max()
    p = s / s.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def asymmetry(wp: ArrayLike) -> float:
    """sum |Wp - Wp^T| / sum |Wp| of a (d, d) matrix: 0 if symmetric, 2 if antisymmetric, about 1.4 if random (S).

    Healthy: falls. A matrix of zeros gives 0.
    """
    wp = _square("Wp", wp)
    total = np.abs(wp).sum()
    return float(np.abs(wp - wp.T).sum() / total) if total > 0 else 0.0


def alignment(wp: ArrayLike, vectors: ArrayLike) -> Array:
    """cos(Wp v_i, v_i) for the columns v_i of ``vectors`` (d, n): (n,), in [-1, 1]; 0 where Wp v_i is 0 (S, P fig. 3).

    1: v_i is an eigenvector of Wp too, with a positive eigenvalue, as P's theorem 3 says of a network that learns.
    About 0: Wp turns v_i somewhere else, as at the start. An identity Wp gives 1 everywhere and means nothing.
    """
    wp, vectors = _square("Wp", wp), np.asarray(vectors, dtype=np.float64)
    turned = wp @ vectors
    lengths = np.linalg.norm(turned, axis=0)
    scale = np.linalg.norm(vectors, axis=0)
    # A Wp v_i that should be 0 comes out as rounding, whose direction means nothing.
    nothing = lengths <= len(wp) * np.finfo(np.float64).eps * np.linalg.norm(wp) * scale
    cosines = np.sum(vectors * turned, axis=0) / np.where(nothing, 1.0, lengths * scale)
    return np.clip(np.where(nothing, 0.0, cosines), -1.0, 1.0)


def describe(spectrum: Spectrum, predictor: str) -> str:
    """What is going on, in one line of plain words.

    Args:
        spectrum: the moment to describe.
        predictor: the knob's value; with "none" Wp is the identity and alignment is left out.
    """
    d, rank = len(spectrum.f_eigenvalues), spectrum.effective_rank
    if rank == 0:
        return "Collapsed: F is zero, every output of the projector is 0."
    if rank < COLLAPSED_RANK:
        return f"Collapsing: nearly all of F lies in 1 direction (effective rank {rank:.1f} of {d})."
    # Of very few dimensions even all are a low rank.
    narrow = rank < min(NARROW_RANK, d / 2)
    state = "narrow, close to collapse" if narrow else "not collapsing"
    if predictor == "none":
        without = "without a predictor Wp is the identity, and alignment means nothing"
        return f"Effective rank {rank:.1f} of {d}; {state}; {without}."
    return f"{spectrum.aligned} of {d} eigenvectors aligned; effective rank {rank:.1f} of {d}; {state}."


_blas_lock = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Holds numpy's BLAS to one thread: a 128 x 128 ``eigh`` takes 1 ms so, and up to 200 ms when threads fight.

    One caller at a time: the limit belongs to the process, and two that overlap would put back each other's.
    """
    with _blas_lock, _blas().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas() -> Any:
    # Finding the libraries costs a millisecond, so once; by then numpy has loaded its own, the only one used here.
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _square(name: str, matrix: ArrayLike) -> Array:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"{name} must be a square matrix, and has the shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        count = int((~np.isfinite(matrix)).sum())
        raise ValueError(f"{name} has {count} of {matrix.size} entries that are not finite: the run has diverged.")
    return matrix
