"""Our rules against other people's code: the lightly package, scikit-learn, and float64."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_lab import Trainer
from ssl_lab.networks import mlp

# It would look on the network for a newer version of itself.
os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("lightly")
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum

Make = Callable[..., Trainer]


def as_lightlys(ours: nn.Sequential, head: Any) -> Any:
    """A head of lightly's with the weights of ours.

    Its first layer has no bias, which a BN behind it takes out anyway; its BN has gains, which are 1 at the start.
    """
    theirs = head.layers
    with torch.no_grad():
        theirs[0].weight.copy_(ours[0].weight)
        theirs[3].weight.copy_(ours[3].weight)
        theirs[3].bias.copy_(ours[3].bias)
    return head


@pytest.mark.parametrize(
    ("head", "sizes"), [("projector", (64, 96, 32)), ("predictor", (32, 96, 32))], ids=["projector", "predictor"]
)
def test_heads(head: str, sizes: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    ours = mlp(*sizes, 2)
    made = (BYOLProjectionHead if head == "projector" else BYOLPredictionHead)(*sizes)
    theirs = as_lightlys(ours, made)
    x = torch.randn(40, sizes[0])
    torch.testing.assert_close(ours(x), theirs(x), atol=2e-5, rtol=1e-4)


def test_a_whole_byol_step_as_lightly_writes_it(make_trainer: Make) -> None:
    """Loss, gradients through SGD, and the EMA of the target, from the same weights on the same views."""
    trainer = make_trainer("byol")
    trainer.set(weight_decay=0.0, weight_decay_predictor=0.0)
    online, target = copy.deepcopy(trainer.online), copy.deepcopy(trainer.target)
    projector, dims = online.projector, trainer.config
    head = as_lightlys(projector, BYOLProjectionHead(online.features, dims.projector_hidden, dims.projector_dim))
    target_head = as_lightlys(
        target.projector, BYOLProjectionHead(online.features, dims.projector_hidden, dims.projector_dim)
    )
    predictor = as_lightlys(
        trainer.predictor.mlp, BYOLPredictionHead(dims.projector_dim, dims.predictor_hidden, dims.projector_dim)
    )
    # Ours has no gains in BN.
    for part in (head, target_head, predictor):
        part.layers[1].requires_grad_(False)
    for network in (online, target):
        network.stack_views(1, together=True)
    x0, x1 = trainer._views.at(0, 1.0).chunk(2)
    criterion = NegativeCosineSimilarity()
    weights = [*online.encoder.parameters(), *head.parameters(), *predictor.parameters()]
    sgd = torch.optim.SGD([w for w in weights if w.requires_grad], lr=0.03, momentum=0.9)
    p0, p1 = predictor(head(online.encoder(x0))), predictor(head(online.encoder(x1)))
    with torch.no_grad():
        z0, z1 = target_head(target.encoder(x0)), target_head(target.encoder(x1))
    loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
    # Theirs is the mean of the two directions and ours, as the papers', their sum.
    (2 * loss).backward()
    sgd.step()
    update_momentum(online.encoder, target.encoder, m=0.996)
    update_momentum(head, target_head, m=0.996)

    record = trainer.step()
    assert record.loss == pytest.approx(2 * float(loss.detach()), abs=1e-5)
    pairs = [
        *zip(trainer.online.encoder.parameters(), online.encoder.parameters(), strict=True),
        *zip(trainer.target.encoder.parameters(), target.encoder.parameters(), strict=True),
        (trainer.online.projector[3].weight, head.layers[3].weight),
        (trainer.target.projector[0].weight, target_head.layers[0].weight),
        (trainer.predictor.mlp[0].weight, predictor.layers[0].weight),
        (trainer.predictor.mlp[3].weight, predictor.layers[3].weight),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
def test_f_and_its_spectrum_in_fp32_against_float64(device: str, make_trainer: Make) -> None:
    """The running F on the device, in fp32, beside the same sums in float64 on the CPU."""
    trainer = make_trainer("directpred", device=device)
    kept: list[np.ndarray] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        kept.append(output.detach().double().cpu().numpy())

    hook = trainer.online.register_forward_hook(keep)
    f: np.ndarray | None = None
    for _ in range(12):
        kept.clear()
        trainer.step()
        rows = np.concatenate(kept)
        batch = rows.T @ rows / len(rows)
        f = batch if f is None else 0.3 * f + 0.7 * batch
    hook.remove()
    assert f is not None
    largest = np.abs(f).max()
    np.testing.assert_allclose(trainer.correlation.double().cpu().numpy(), f, atol=1e-5 * largest)
    exact = np.linalg.eigvalsh(f)[::-1]
    found = trainer.spectrum()
    np.testing.assert_allclose(found.f_eigenvalues, exact, atol=1e-5 * exact[0])
    share = exact / exact.sum()
    rank = np.exp(-np.sum(share[share > 0] * np.log(share[share > 0])))
    assert found.effective_rank == pytest.approx(rank, rel=1e-3)
    s, u = np.linalg.eigh(f)
    wp = u @ np.diag(np.sqrt(np.maximum(s, 0) / s.max()) + 0.1) @ u.T
    # In fp32 the square root of an eigenvalue that is rounding is a thousandth of the largest.
    np.testing.assert_allclose(trainer.predictor.matrix().detach().double().cpu().numpy(), wp, atol=2e-3)
