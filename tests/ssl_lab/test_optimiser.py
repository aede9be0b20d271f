"""Our SGD against torch.optim's."""

from __future__ import annotations

import pytest
import torch

from ssl_lab.optimiser import SGD


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_as_torchs(decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(5, 3, generator=generator, requires_grad=True), torch.randn(4, generator=generator)]
    theirs = [p.detach().clone().requires_grad_(p.requires_grad) for p in ours]
    sgd = SGD(ours, momentum=0.9)
    other = torch.optim.SGD([theirs[0]], lr=0.0, momentum=0.9, weight_decay=decay)
    for step in range(6):
        sgd.lr = other.param_groups[0]["lr"] = 0.1 / (1 + step)
        sgd.decay = decay
        for first in (ours[0], theirs[0]):
            first.grad = None
            (first**3).sum().backward()
        sgd.step()
        other.step()
        torch.testing.assert_close(ours[0], theirs[0])
    # A weight without a gradient is left alone, decay and all.
    assert torch.equal(ours[1], theirs[1])
    assert ours[0].grad is None
