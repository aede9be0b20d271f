"""Our SGD against torch.optim's, and the weights in one piece that it works on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_lab.optimiser import sgd_step
from ssl_lab.weights import FlatWeights


def network(memory_format: torch.memory_format) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4))
    return made.to(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_as_torchs(decay: float, memory_format: torch.memory_format) -> None:
    ours, theirs = network(memory_format), network(memory_format)
    weights = FlatWeights(ours)
    named = list(theirs.named_parameters())
    groups = [
        {"params": [p for n, p in named if n.endswith("bias") == biases], "weight_decay": 0.0 if biases else decay}
        for biases in (False, True)
    ]
    other = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        images = torch.randn(6, 3, 4, 4, generator=generator).contiguous(memory_format=memory_format)
        lr = 0.1 / (1 + step)
        gradients = torch.autograd.grad((ours(images) ** 2).sum(), weights.parameters)
        sgd_step(weights, gradients, lr=torch.tensor(lr), decay=torch.tensor(decay), momentum=0.9)
        other.zero_grad()
        (theirs(images) ** 2).sum().backward()
        for group in other.param_groups:
            group["lr"] = lr
        other.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, msg=name)
    momenta = {id(p): v for p, v in weights.velocities()}
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(momenta[id(a)], other.state[b]["momentum_buffer"])


def test_the_weights_are_one_piece_and_stay_what_they_were() -> None:
    plain, module = network(torch.channels_last), network(torch.channels_last)
    weights = FlatWeights(module)
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    assert len(weights.flat) == sum(p.numel() for p in plain.parameters())
    assert weights.decayed == slice(0, len(weights.flat) - 5 - 5 - 4)
    weights.flat.zero_()
    assert not any(p.any() for p in module.parameters())


def test_gradients_are_gathered_in_the_weights_order_in_memory() -> None:
    weights = FlatWeights(network(torch.channels_last))
    copies = [p.detach().clone(memory_format=torch.contiguous_format) for p in weights.parameters]
    assert torch.equal(weights.gathered(copies), weights.flat)
