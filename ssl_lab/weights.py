"""The weights of a network in one piece of memory: an update of all of them is one operation, not one for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class FlatWeights:
    """All parameters of some modules as views of one tensor, and their momentum likewise.

    The decayed weights come first, then the biases, which have no decay (S; a BN shift is called bias too).

    Args:
        modules: on their device and in their memory format already; their parameters are moved into the one tensor,
            and must not be moved out of it again (no ``.to``).
    """

    def __init__(self, *modules: nn.Module) -> None:
        named = [(name, p) for module in modules for name, p in module.named_parameters()]
        ordered = [p for name, p in named if not name.endswith("bias")]
        decayed = sum(p.numel() for p in ordered)
        ordered += [p for name, p in named if name.endswith("bias")]
        self.parameters: list[nn.Parameter] = ordered
        self.flat = torch.cat([_in_memory_order(p.detach()).reshape(-1) for p in ordered])
        """(weights,) float32."""
        self.velocity = torch.zeros_like(self.flat)
        """(weights,) SGD's momentum buffer."""
        self.decayed = slice(0, decayed)
        """Which of them are decayed."""
        for parameter, piece in zip(ordered, self._pieces(self.flat), strict=True):
            parameter.data = piece

    def velocities(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its momentum, of its shape; a view."""
        return zip(self.parameters, self._pieces(self.velocity), strict=True)

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """``flat`` cut into the parameters' shapes, each with its parameter's order in memory; views."""
        parts = torch.split(flat, [p.numel() for p in self.parameters])
        return [_shaped(part, p) for part, p in zip(parts, self.parameters, strict=True)]

    def gathered(self, gradients: Sequence[Tensor]) -> Tensor:
        """(weights,): gradients, one for each parameter and of its shape, in the order of :attr:`flat`."""
        pairs = zip(gradients, self.parameters, strict=True)
        return torch.cat([_in_memory_order(g, like=p).reshape(-1) for g, p in pairs])


def _channels_innermost(p: Tensor) -> bool:
    return p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last)


def _in_memory_order(x: Tensor, like: Tensor | None = None) -> Tensor:
    """``x`` with its dimensions in the order in which ``like`` (itself by default) has them in memory."""
    return x.permute(0, 2, 3, 1) if _channels_innermost(x if like is None else like) else x


def _shaped(part: Tensor, like: Tensor) -> Tensor:
    if not _channels_innermost(like):
        return part.view(like.shape)
    out, channels, height, width = like.shape
    return part.view(out, height, width, channels).permute(0, 3, 1, 2)
