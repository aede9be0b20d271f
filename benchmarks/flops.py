"""How many floating-point operations a step needs, counted on the networks that the trainer makes."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.images import random_cifar
from ssl_lab.config import RunConfig
from ssl_lab.trainer import Trainer

_BATCH = 2
"""Images that are counted over: batch norm takes no fewer, and the count goes with their number."""


def counted(network: nn.Module, views: Tensor, *, backward: bool) -> int:
    """FLOP of one pass over ``views``, with or without that back to the weights: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = network(views)
        if backward:
            out.sum().backward()
    return int(counter.get_total_flops())


@lru_cache(maxsize=64)
def step_flop(config: RunConfig) -> float:
    """FLOP that one image needs in a step: two views through the online network and back, and the target's two passes.

    Without EMA (SimSiam) the target's output is the online network's own, so that its passes are not needed: they do
    not count, whether they are made or not. Augmentation, F and Wp are not counted.
    """
    small = config.model_copy(update={"batch_size": _BATCH, "device": "cpu"})
    trainer = Trainer(small, random_cifar(2 * _BATCH, _BATCH))
    size, channels = trainer.dataset.info.image_size, trainer.dataset.info.channels
    # Both views in one batch, as the trainer gives them.
    views = trainer.online.prepare(torch.zeros(2 * _BATCH, channels, size, size))
    online = nn.Sequential(trainer.online, trainer.predictor)
    total = counted(online, views, backward=True)
    if config.knobs.ema > 0:
        total += counted(trainer.target, views, backward=False)
    return total / _BATCH
