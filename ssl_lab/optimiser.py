"""SGD with momentum and L2, as torch.optim's, in four operations over all weights.

Why not ``torch.optim``: the first step of any of its optimisers imports torch's compiler, which was measured to take
6.7 s and much memory here; a page waits for that, and Binder has little of either. And its L2 is a number of the host,
which a CUDA graph would freeze; here rates may be tensors of the device. It is tested against torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lab.weights import FlatWeights


@torch.no_grad()
def sgd_step(weights: FlatWeights, gradients: Sequence[Tensor], *, lr: Tensor, decay: Tensor, momentum: float) -> None:
    """``g <- gradient + decay w; v <- momentum v + g; w <- w - lr v``; biases have no decay.

    Args:
        weights: changed in place, momentum included.
        gradients: one for each of ``weights.parameters``.
        lr: () tensor on the weights' device.
        decay: () tensor, likewise.
        momentum: share of v that is kept.
    """
    gradient = weights.gathered(gradients)
    descend(weights.flat, weights.velocity, gradient, weights.decayed, lr=lr, decay=decay, momentum=momentum)


@torch.no_grad()
def descend(
    flat: Tensor, velocity: Tensor, gradient: Tensor, decayed: slice, *, lr: Tensor, decay: Tensor, momentum: float
) -> None:
    """:func:`sgd_step` on flat weights (..., weights), of one network or of several at once.

    Args:
        flat: changed in place, as ``velocity`` is.
        velocity: of the same shape.
        gradient: of the same shape; overwritten.
        decayed: which of the last dimension are decayed.
        lr: broadcast over ``flat``: (), or (networks, 1).
        decay: likewise.
        momentum: share of v that is kept.
    """
    gradient[..., decayed].addcmul_(flat[..., decayed], decay)
    velocity.mul_(momentum).add_(gradient)
    flat.addcmul_(velocity, lr, value=-1)
