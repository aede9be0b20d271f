"""The loss with its written-out gradient against autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

from ssl_lab.agreement import mean_cosine


@pytest.mark.parametrize("both", [False, True])
def test_value_and_gradient_as_autograds(both: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(12, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    z = torch.randn(12, 5, generator=generator, dtype=torch.float64, requires_grad=both)
    wanted = [q, z] if both else [q]
    plain, ours = nnf.cosine_similarity(q, z).mean(), mean_cosine(q, z)
    torch.testing.assert_close(ours, plain)
    for a, b in zip(torch.autograd.grad(-2 * ours, wanted), torch.autograd.grad(-2 * plain, wanted), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(mean_cosine, (q, z))


def test_one_tensor_for_both_sides() -> None:
    q = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = mean_cosine(q, torch.cat(q.chunk(2)[::-1]))
    (ours,) = torch.autograd.grad(loss, q)
    (theirs,) = torch.autograd.grad(nnf.cosine_similarity(q, torch.cat(q.chunk(2)[::-1])).mean(), q)
    torch.testing.assert_close(ours, theirs)


def test_a_row_of_zeros_counts_as_nothing_and_spoils_nothing() -> None:
    q, z = torch.ones(2, 3, requires_grad=True), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    loss = mean_cosine(q, z)
    assert float(loss.detach()) == pytest.approx(0.5)
    (gradient,) = torch.autograd.grad(loss, q)
    assert gradient.isfinite().all()
