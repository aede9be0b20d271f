"""Numbers on their way from a device to the host, without the host waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Transfer:
    """Copies of tensors as they are now (in the order of the device's work), on the CPU once they have arrived.

    Args:
        tensors: all on one device.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        if not tensors or tensors[0].device.type != "cuda":
            self._copies = [t.detach().clone() for t in tensors]
            return
        self._copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
        for copy, tensor in zip(self._copies, tensors, strict=True):
            copy.copy_(tensor.detach(), non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(tensors[0].device))

    def arrived(self) -> bool:
        """Whether :meth:`result` would come without waiting."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def result(self) -> list[Tensor]:
        """The copies; waits for them."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
