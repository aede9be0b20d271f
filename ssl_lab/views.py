"""The training images of each step as two augmented views, made for several steps at a time.

Small batches cost more to launch than to compute: the many small operations of the augmentation are paid once for a
block of steps. The block of a step, and the random numbers in it, depend on the run's seed and the step alone, so any
step can be reached again without those before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ssl_lab.augment import augment
from ssl_lab.config import Recipe
from ssl_lab.ranks import chosen
from ssl_lab.seeds import stream_seed

LONGEST = 8
"""Most steps of a block: turning the augmentation's strength throws the rest of a block away."""
_NUMBERS = {"cpu": 1 << 17, "cuda": 1 << 23}
"""Pixels of a block: on a CPU it should stay in the caches, on a GPU it should fill the device."""


def steps_ahead(numbers: int, device: torch.device) -> int:
    """Steps of a block, a power of two, for steps of ``numbers`` pixels (both views, all channels)."""
    most = min(LONGEST, max(1, _NUMBERS.get(device.type, 1) // numbers))
    return int(2 ** (most.bit_length() - 1))


class SharedBlocks:
    """Blocks of views that several streams show: forks of one run see the same views at the same step.

    Args:
        most: blocks that are kept, the last ones that were asked for.
    """

    def __init__(self, most: int = 5) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The block of this key, made if nobody has yet; who asks meanwhile waits for it."""
        with self._lock:
            block = self._blocks.get(key)
            if block is None:
                while len(self._blocks) >= self._most:
                    self._blocks.popitem(last=False)
                block = self._blocks[key] = make()
            self._blocks.move_to_end(key)
            return block


class ViewStream:
    """The two views of any step, stacked: first all of view 1, then all of view 2.

    Args:
        images: (N, C, S, S) uint8, on the device that does the work.
        recipe: their augmentation at strength 1.
        prepare: what the network makes of float images before its first weight; rows stay rows.
        seed: the run's.
        batch_size: images a step, of all ranks together.
        own: which of a step's images are made here; all of them by default. Random numbers are drawn for all in any
            case, so that ranks see between them what one process sees.
    """

    def __init__(
        self, images: Tensor, recipe: Recipe, prepare: Callable[[Tensor], Tensor], seed: int, batch_size: int,
        own: slice | None = None,
    ) -> None:  # fmt: skip
        self._images, self._recipe, self._prepare = images, recipe, prepare
        self._seed, self._size = seed, batch_size
        self.steps_per_epoch = len(images) // batch_size
        """Steps of a pass over the images; the short last batch is left out."""
        self.source = (images.data_ptr(), recipe, seed, batch_size)
        """Equal for streams that show the same views at the same step and strength."""
        self.ahead = steps_ahead(2 * batch_size * images[0].numel(), images.device)
        """Steps of a block."""
        self._generator = torch.Generator(device=images.device)
        self._order: tuple[int, Tensor] | None = None
        self._block: tuple[int, float, Tensor] | None = None
        self.shared: SharedBlocks | None = None
        """Where blocks are that others make too; None for a stream that makes its own."""
        self.kind: Hashable = None
        """Equal for streams whose ``prepare`` does the same; of those that share."""
        self._rows = batch_size if own is None else own.stop - own.start
        self._mine: Tensor | None = None
        """Which rows of a block's images, both views of each step, are made here; None for all."""
        if own is not None:
            self._mine = torch.tensor(chosen(2 * self.ahead, batch_size, own), device=images.device)

    def rows(self, step: int) -> Tensor:
        """(B,) int64 on the device: which images step ``step`` (from 0) shows; shuffled anew each epoch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(stream_seed(self._seed, "order", epoch))
            order = torch.randperm(len(self._images), generator=generator)
            self._order = (epoch, order.to(self._images.device))
        return self._order[1][place * self._size : (place + 1) * self._size]

    def at(self, step: int, strength: float) -> Tensor:
        """(2B, ...) prepared views of step ``step`` (from 0), augmented with ``strength``; not to be written to.

        B counts this rank's own images.
        """
        number, place = divmod(step, self.ahead)
        if self._block is None or self._block[:2] != (number, strength):
            self._block = None  # its memory is there for the next
            self._block = (number, strength, self._found(number, strength))
        rows = 2 * self._rows
        return self._block[2][place * rows : (place + 1) * rows]

    def _found(self, number: int, strength: float) -> Tensor:
        if self.shared is None or self._mine is not None:
            return self._made(number, strength)
        return self.shared.get((self.kind, self.source, number, strength), lambda: self._made(number, strength))

    def _made(self, number: int, strength: float) -> Tensor:
        first = number * self.ahead
        pairs = []
        for step in range(first, first + self.ahead):
            rows = self.rows(step)
            pairs += [rows, rows]
        shown = torch.cat(pairs)
        images = self._images[shown if self._mine is None else shown[self._mine]]
        self._generator.manual_seed(stream_seed(self._seed, "views", number))
        return self._prepare(augment(images, self._recipe, self._generator, strength, of=len(shown), rows=self._mine))
