"""SGD with momentum and L2, as torch.optim's, in a few calls over all weights.

Why not ``torch.optim``: the first step of any of its optimisers imports torch's compiler, which was measured to take
6.7 s and much memory here; a page waits for that, and Binder has little of either. It is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SGD:
    """``g <- grad + decay w; v <- momentum v + g; w <- w - lr v`` for one group of weights.

    Args:
        parameters: the weights; those without a gradient are left alone, momentum included.
        momentum: share of v that is kept at each step.
    """

    def __init__(self, parameters: Sequence[Tensor], momentum: float) -> None:
        self.parameters = list(parameters)
        self.momentum = momentum
        self.lr = 0.0
        self.decay = 0.0
        self.velocity = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients that are there, which are used up."""
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not used:
            return
        weights = [self.parameters[i] for i in used]
        velocity = [self.velocity[i] for i in used]
        gradients: list[Tensor] = [w.grad for w in weights if w.grad is not None]
        if self.decay:
            torch._foreach_add_(gradients, weights, alpha=self.decay)
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_add_(velocity, gradients)
        torch._foreach_add_(weights, velocity, alpha=-self.lr)
        for weight in weights:
            weight.grad = None
