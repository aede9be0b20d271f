"""``Kernels``: the kernels of all pages, some ready before their page is there, never more than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from voila.utils import ENV_VARIABLE
from voila.voila_kernel_manager import voila_kernel_manager_factory

log = logging.getLogger(__name__)

KERNEL_BYTES = 150_000_000
"""What a visitor's kernel takes of the memory."""

FREE_SHARE = 0.25
"""Most of the free memory that kernels without a page may take."""

START_PATIENCE = 90.0
"""Seconds that a page may take from its kernel's start to its first word to it; a visitor of this kind is none."""

TROUBLE_REST = 10.0
"""Seconds until another kernel is started after one that could not be."""


@dataclass(eq=False)
class Place:
    """A visitor's place in the house."""

    kernel: str | None = None
    """The kernel that the visitor got; None while it is under way."""
    since: float = field(default_factory=time.monotonic)
    spoke: bool = False
    """Whether a page has opened its socket."""


_place: ContextVar[Place | None] = ContextVar("place", default=None)
"""The place for which a kernel is wanted, in the request that wants it."""

_Voila: Any = voila_kernel_manager_factory(AsyncMappingKernelManager, True, 0)


class Kernels(_Voila):  # type: ignore[misc]
    """Voila's kernels, with a number of places and a pool that is filled one by one.

    Voila itself starts a whole pool at once, and starts a kernel for whoever asks.
    """

    most: int | None = None
    """Places in the house: pages with a kernel, or on their way to one."""
    wanted: int = 0
    """Kernels that shall be kept ready."""
    front: str | None = None
    """The notebook for which they are kept ready."""
    rest: float = 4.0
    """Seconds after a page has opened before the next kernel is started: two that start at once are both late."""

    def __init__(self, **traits: Any) -> None:
        self._places: list[Place] = []
        self._resting = 0.0
        self._closing = False
        super().__init__(**traits)

    # ------------------------------------------------------------ places

    def in_use(self) -> int:
        """Places that are taken."""
        self._places = [place for place in self._places if place.kernel is None or place.kernel in self]
        return len(self._places)

    async def enter(self, patience: float = 0.0) -> Place | None:
        """A place for a page that is opened; None if there is none for ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while self.most is not None and self.in_use() >= self.most:
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(0.1)
        place = Place()
        self._places.append(place)
        return place

    @contextmanager
    def seated(self, place: Place) -> Iterator[None]:
        """What is started inside is for this place, which is given back if nothing was."""
        mark = _place.set(place)
        try:
            yield
        finally:
            # A page's request may end in another context than it began in.
            with contextlib.suppress(ValueError):
                _place.reset(mark)
            if place.kernel is None and place in self._places:
                self._places.remove(place)

    async def start_kernel(self, **arguments: Any) -> str:
        """Starts a kernel, for the place of this request if it has one."""
        place = _place.get()
        if place is not None:
            # A kernel that waits for another notebook's page makes room.
            await self._shrink()
        kernel = str(await super().start_kernel(**arguments))
        if place is not None:
            place.kernel = kernel
        return kernel

    async def get_rendered_notebook(self, notebook_name: str, **arguments: Any) -> Any:
        """A kernel of the pool, for the place of this request."""
        rendered = await super().get_rendered_notebook(notebook_name, **arguments)
        place = _place.get()
        if place is not None:
            place.kernel = rendered[2]
        return rendered

    def notify_connect(self, kernel_id: str) -> None:
        """A page has opened its socket."""
        for place in self._places:
            if place.kernel == kernel_id:
                place.spoke = True
        super().notify_connect(kernel_id)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """Ends a kernel that nobody needs: its page has been silent for long, or has never come."""
        for place in self._places:
            late = time.monotonic() - place.since > START_PATIENCE
            if place.kernel == kernel_id and not place.spoke and late:
                await self.shutdown_kernel(kernel_id)
                return
        await super().cull_kernel_if_idle(kernel_id)

    # ------------------------------------------------------------ the pool

    def fill_if_needed(self, *_: Any, **__: Any) -> None:
        """Voila calls this when a kernel was taken: the next one may wait."""
        self._resting = time.monotonic() + self.rest

    def room(self) -> int:
        """Kernels that may be in the pool now."""
        free = self.wanted if self.most is None else min(self.wanted, self.most - self.in_use())
        return 0 if self._closing or self.front is None else max(free, 0)

    async def keep_warm(self) -> None:
        """Fills the pool, one kernel after the other, until the kernels are ended."""
        while not self._closing:
            pool = self._pools.setdefault(self.front, [])
            if len(pool) < self.room() and time.monotonic() >= self._resting:
                await self._heat(pool)
            else:
                await self._shrink()
                await asyncio.sleep(0.2)

    async def _heat(self, pool: list[asyncio.Future[Any]]) -> None:
        assert self.front is not None
        environment = {
            **os.environ,
            ENV_VARIABLE.VOILA_BASE_URL: self.parent.base_url,
            ENV_VARIABLE.VOILA_SERVER_URL: self.parent.server_url,
            ENV_VARIABLE.VOILA_APP_PORT: str(self.parent.port),
            ENV_VARIABLE.VOILA_PREHEAT: "True",
        }
        started = asyncio.ensure_future(
            self._initialize(self.front, None, path=str(Path(self.front).parent), env=environment)
        )
        pool.append(started)
        try:
            await asyncio.shield(asyncio.wait_for((await started)["task"], START_PATIENCE))
        except Exception:
            log.exception("A kernel could not be started before its page")
            if started in pool:
                pool.remove(started)
            self._resting = time.monotonic() + TROUBLE_REST

    async def _shrink(self) -> None:
        pool = self._pools.get(self.front, [])
        while len(pool) > self.room() and pool[-1].done():
            kernel = pool.pop().result()["kernel_id"]
            if kernel in self:
                await self.shutdown_kernel(kernel)

    async def shutdown_all(self, *arguments: Any, **named: Any) -> None:
        """Ends them all."""
        self._closing = True
        await super().shutdown_all(*arguments, **named)


def affordable(most: int, free: Callable[[], int | None] | None = None) -> int:
    """How many of ``most`` kernels can be kept ready in a part of the free memory; at least one."""
    bytes_free = (free or free_memory)()
    return most if bytes_free is None else max(1, min(most, int(bytes_free * FREE_SHARE / KERNEL_BYTES)))


def free_memory() -> int | None:
    """Bytes that are free for this process; None if the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        # A group without a limit says "max", or a number beyond all machines.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return min(found, default=None)
