"""A step as one CUDA graph: launched at once instead of kernel by kernel, where the host would be the slower one.

A graph freezes what it was captured with: the addresses of tensors and every number of the host. So a step that is to
be captured reads its input from one place, its rates from tensors of the device, and is captured anew for each set of
rules that takes another path through it; each is captured once and kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

Work = Callable[[], None]

_capturing = threading.Lock()
"""Runs of one process capture one after the other: they share torch's stream for it."""

KEPT = 16
"""Graphs kept; past it the one that was not used for longest goes."""


class StepGraphs:
    """Does a step's work, from its third time on as a replay of a captured graph.

    The first time with a key is done plainly: libraries choose their kernels and allocate what they need then, which a
    capture must not. The second time is captured, which does nothing, and replayed. So every call does its work once.

    Args:
        device: of the work. On a CPU, which has no graphs, a capture keeps the work itself and a replay calls it: the
            same path, for tests.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: OrderedDict[Hashable, Work | None] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.captures = 0
        """Captures made."""

    def run(self, key: Hashable, work: Work) -> None:
        """Does ``work`` once.

        Args:
            key: equal for two calls only if ``work`` would do the same operations on the same tensors.
            work: writes nothing but tensors that live on outside of it; reads no number back to the host.
        """
        if key not in self._known:
            work()
            self._known[key] = None
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            return
        self._known.move_to_end(key)
        replay = self._known[key]
        if replay is None:
            replay = self._known[key] = self._captured(work)
        replay()

    def _captured(self, work: Work) -> Work:
        self.captures += 1
        if self._device.type != "cuda":
            return work
        graph = torch.cuda.CUDAGraph()
        # Other runs of this process may allocate meanwhile, in threads of their own.
        capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with _capturing, torch.cuda.device(self._device), capture:
            work()
        return graph.replay
