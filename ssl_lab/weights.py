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
        named.sort(key=lambda pair: pair[0].endswith("bias"))
        decayed = sum(p.numel() for name, p in named if not name.endswith("bias"))
        ordered = [p for _, p in named]
        self.names = [name for name, _ in named]
        """Of each of :attr:`parameters`, in its module."""
        self.parameters: list[nn.Parameter] = ordered
        self.flat = torch.cat([_in_memory_order(p.detach()).reshape(-1) for p in ordered])
        """(weights,) float32."""
        self.velocity = torch.zeros_like(self.flat)
        """(weights,) SGD's momentum buffer."""
        self.decayed = slice(0, decayed)
        """Which of them are decayed."""
        self._point()

    def _point(self) -> None:
        for parameter, piece in zip(self.parameters, self.pieces(self.flat), strict=True):
            parameter.data = piece

    def move(self, flat: Tensor, velocity: Tensor | None = None) -> None:
        """Has the weights and their momentum lie in these tensors from now on, which hold their values already."""
        self.flat = flat
        self.velocity = self.velocity if velocity is None else velocity
        self._point()

    def velocities(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its momentum, of its shape; a view."""
        return zip(self.parameters, self.pieces(self.velocity), strict=True)

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """``flat`` cut into the parameters' shapes, each with its parameter's order in memory; views."""
        parts = torch.split(flat, [p.numel() for p in self.parameters])
        return [_shaped(part, p) for part, p in zip(parts, self.parameters, strict=True)]

    def gathered(self, gradients: Sequence[Tensor]) -> Tensor:
        """(weights,): gradients, one for each parameter and of its shape, in the order of :attr:`flat`."""
        pairs = zip(gradients, self.parameters, strict=True)
        return torch.cat([_in_memory_order(g, like=p).reshape(-1) for g, p in pairs])


class Statistics:
    """The running means and variances of a network's batch norms, to be gathered in one piece.

    Args:
        module: the network; what else it keeps in buffers (counts of batches, which nothing reads) is left out.
    """

    def __init__(self, module: nn.Module) -> None:
        self._places = [
            (part, f"{path}.{name}" if path else name, name)
            for path, part in module.named_modules()
            for name, buffer in part.named_buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        self.names = [full for _, full, _ in self._places]
        """Of each of them, in its module."""

    def flat(self) -> Tensor:
        """(numbers,): a copy of all of them, one after the other; empty if there are none."""
        found = [part.get_buffer(name) for part, _, name in self._places]
        return torch.cat([buffer.reshape(-1) for buffer in found]) if found else torch.empty(0)

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """``flat`` (numbers,) cut into them; views."""
        return list(torch.split(flat, [part.get_buffer(name).numel() for part, _, name in self._places]))

    def move(self, flat: Tensor) -> None:
        """Has them lie in ``flat`` from now on, which holds their values already."""
        for (part, _, name), piece in zip(self._places, self.pieces(flat), strict=True):
            part.register_buffer(name, piece)


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
