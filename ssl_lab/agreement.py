"""The losses: how far two networks' outputs for two views point the same way (P and S), or lie apart (P's theory)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# As torch's cosine_similarity: a vector shorter than this counts as this long.
_SHORTEST = 1e-8


class _MeanCosine(torch.autograd.Function):
    """Mean cosine of the rows of q and z with its gradient written out: six operations back, where autograd takes
    thirty, each of which costs more to launch than to compute."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, z: Tensor) -> Tensor:
        q_length = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_(min=_SHORTEST)
        z_length = torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp_(min=_SHORTEST)
        scale = (q_length * z_length).reciprocal_()
        cosine = (q * z).sum(-1, keepdim=True).mul_(scale)
        ctx.save_for_backward(q, z, q_length, z_length, scale, cosine)
        return cosine.mean() if q.ndim == 2 else cosine.mean((-2, -1))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        q, z, q_length, z_length, scale, cosine = ctx.saved_tensors
        share = gradients[0] / q.shape[-2]
        if q.ndim > 2:
            share = share[..., None, None]
        scale, cosine = scale * share, cosine * share
        # d cos / dq = z / (|q| |z|) - cos q / |q|^2
        to_q = torch.addcmul(z * scale, q, cosine / q_length.square(), value=-1) if ctx.needs_input_grad[0] else None
        to_z = torch.addcmul(q * scale, z, cosine / z_length.square(), value=-1) if ctx.needs_input_grad[1] else None
        return to_q, to_z


def mean_cosine(q: Tensor, z: Tensor) -> Tensor:
    """Mean over rows of cos(q_i, z_i) of two (rows, d) tensors: a scalar in [-1, 1]; a row of zeros counts as 0.

    Of several networks' outputs (networks, rows, d) it is one for each: (networks,).
    """
    found: Tensor = _MeanCosine.apply(q, z)
    return found


def half_square(q: Tensor, z: Tensor) -> Tensor:
    """Mean over rows of 1/2 |q_i - z_i|^2 of two (rows, d) tensors, a scalar: P's J, see :mod:`ssl_lab.theory`.

    Of several networks' outputs (networks, rows, d) it is one for each: (networks,).
    """
    if q.ndim > 2:
        return functional.mse_loss(q, z, reduction="none").mean((-2, -1)) * (q.shape[-1] / 2)
    return functional.mse_loss(q, z) * (q.shape[1] / 2)
