"""``Kernels``: the kernels of all pages, some ready before their page is there, never more than there is room for.

A ready kernel has imported what every notebook of the lab imports, and has run nothing: it serves any page.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from voila.utils import ENV_VARIABLE

log = logging.getLogger(__name__)

KERNEL_BYTES = 150_000_000
"""What a visitor's kernel takes of the memory."""

FREE_SHARE = 0.25
"""Most of the free memory that kernels without a page may take."""

START_PATIENCE = 90.0
"""Seconds that a page may take from its kernel's start to its first word to it; a visitor of this kind is none."""

TROUBLE_REST = 10.0
"""Seconds until another kernel is started after one that could not be."""

READY = "import lab.bench"
"""What a kernel does before its page is there: every notebook of the lab needs most of this."""


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


_Manager: Any = AsyncMappingKernelManager


class Kernels(_Manager):  # type: ignore[misc]
    """The kernels, with a number of places and a pool that is filled one by one.

    Voila's own has a pool for each notebook, of kernels that have run it: six notebooks would take the memory of a
    small machine before anybody comes. It starts a whole pool at once, and a kernel for whoever asks.
    """

    notebook_data: Mapping[str, Any] = MappingProxyType({})
    """Voila's pages that are there before they are asked for: none."""

    most: int | None = None
    """Places in the house: pages with a kernel, or on their way to one."""
    wanted: int = 0
    """Kernels that shall be kept ready."""
    rest: float = 4.0
    """Seconds after a page has opened before the next kernel is started: two that start at once are both late."""

    def __init__(self, **traits: Any) -> None:
        self._places: list[Place] = []
        self._ready: list[asyncio.Future[str]] = []
        self._resting = 0.0
        self._closing = False
        self._begun: WeakValueDictionary[str, Any] = WeakValueDictionary()
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
        """Starts a kernel, or takes a ready one, for the place of this request if it has one."""
        place = _place.get()
        if place is None:
            return await self._launch(**arguments)
        kernel = await self._take(**arguments)
        if kernel is None:
            # A kernel that waits for another kind of page makes room.
            await self._shrink()
            kernel = await self._launch(**arguments)
        self._resting = time.monotonic() + self.rest
        place.kernel = kernel
        return kernel

    async def _launch(self, **arguments: Any) -> str:
        return str(await super().start_kernel(**arguments))

    def pre_start_kernel(self, kernel_name: str | None, kwargs: Any) -> Any:
        """A kernel is known by its manager before it has a process: Jupyter lists it only when it has started."""
        manager, name, kernel = super().pre_start_kernel(kernel_name, kwargs)
        self._begun[kernel] = manager
        return manager, name, kernel

    def get_pool_size(self, _notebook: str) -> int:
        """Voila asks how many pages are there already."""
        return 0

    def notify_connect(self, kernel_id: str) -> None:
        """A page has opened its socket."""
        for place in self._places:
            if place.kernel == kernel_id:
                place.spoke = True
        super().notify_connect(kernel_id)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """Ends a kernel that nobody needs: its page has been silent for long, or has never come."""
        if any(ready.done() and _result(ready) == kernel_id for ready in self._ready):
            return
        for place in self._places:
            late = time.monotonic() - place.since > START_PATIENCE
            if place.kernel == kernel_id and not place.spoke and late:
                await self.shutdown_kernel(kernel_id)
                return
        await super().cull_kernel_if_idle(kernel_id)

    # ------------------------------------------------------------ the pool

    def room(self) -> int:
        """Kernels that may be in the pool now."""
        free = self.wanted if self.most is None else min(self.wanted, self.most - self.in_use())
        return 0 if self._closing else max(free, 0)

    async def keep_warm(self) -> None:
        """Fills the pool, one kernel after the other, until the kernels are ended."""
        while not self._closing:
            if len(self._ready) < self.room() and time.monotonic() >= self._resting:
                await self._heat()
            else:
                await self._shrink(sum(place.kernel is None for place in self._places))
                await asyncio.sleep(0.2)

    async def _heat(self) -> None:
        ready = asyncio.ensure_future(self._make_ready())
        self._ready.append(ready)
        try:
            # Shielded: a page may have taken it meanwhile.
            await asyncio.wait_for(asyncio.shield(ready), START_PATIENCE)
        except asyncio.CancelledError:
            # Either the page that took it has given it up, or it is we who shall end.
            if not ready.cancelled():
                raise
        except Exception:
            log.exception("A kernel could not be started before its page")
            self._resting = time.monotonic() + TROUBLE_REST
            if ready in self._ready:
                self._ready.remove(ready)
                ready.cancel()

    async def _make_ready(self) -> str:
        """A kernel that has imported what notebooks import."""
        environment = {
            **os.environ,
            ENV_VARIABLE.VOILA_BASE_URL: self.parent.base_url,
            ENV_VARIABLE.VOILA_SERVER_URL: self.parent.server_url,
            ENV_VARIABLE.VOILA_APP_PORT: str(self.parent.port),
            ENV_VARIABLE.VOILA_PREHEAT: "True",
        }
        started = asyncio.ensure_future(self._launch(kernel_name=self.default_kernel_name, path="", env=environment))
        try:
            kernel = await asyncio.shield(started)
            await self._tell(kernel, READY)
        except BaseException:
            # No process is left behind, also where it was not waited for.
            with contextlib.suppress(Exception):
                await self.shutdown_kernel(await started, now=True)
            raise
        return kernel

    async def _take(self, kernel_name: str | None = None, path: str = "", env: Any = None, **_: Any) -> str | None:
        """A kernel of the pool, also one that is only just made ready; None if none is right for the page."""
        if kernel_name not in (None, self.default_kernel_name) or path:
            return None
        if not self._ready:
            return None
        # One that is there before one that is coming.
        ready = min(self._ready, key=lambda one: not one.done())
        if ready.done() and (waiting := _result(ready)) in self:
            # It has been idle for long, and shall not be culled now.
            self.get_kernel(waiting).last_activity = datetime.now(UTC)
        self._ready.remove(ready)
        try:
            kernel = await asyncio.wait_for(asyncio.shield(ready), START_PATIENCE)
            page = {str(getattr(name, "value", name)): word for name, word in (env or {}).items()}
            page = {name: word for name, word in page.items() if os.environ.get(name) != word}
            await self._tell(kernel, f"__import__('os').environ.update({page!r})")
        except BaseException as error:
            # It is in no list any more. One that is only coming ends its own process.
            if not ready.cancel() and (lost := _result(ready)) in self:
                await self.shutdown_kernel(lost, now=True)
            if not isinstance(error, Exception):
                raise
            log.exception("A kernel that was ready cannot be used")
            return None
        return kernel

    async def _tell(self, kernel: str, code: str) -> None:
        """Has a kernel run something that no page hears of, also one that is only just starting.

        Raises:
            RuntimeError: it fails; says how.
            Empty: nothing is heard of it.
        """
        client = self.get_kernel(kernel).client()
        client.start_channels()
        try:
            said = client.execute(code, silent=True, store_history=False, allow_stdin=False)
            while True:
                answer = await client.get_shell_msg(timeout=START_PATIENCE)
                if answer["parent_header"].get("msg_id") == said:
                    break
        finally:
            client.stop_channels()
        content = answer["content"]
        if content.get("status") != "ok":
            raise RuntimeError(f"{content.get('ename')}: {content.get('evalue')}")

    async def _shrink(self, coming: int = 0) -> None:
        """Ends ready kernels beyond the house's places; pages that are ``coming`` will take theirs from the pool."""
        while len(self._ready) > self.room() + coming and self._ready[-1].done():
            kernel = _result(self._ready.pop())
            if kernel is not None and kernel in self:
                await self.shutdown_kernel(kernel)

    async def shutdown_all(self, *arguments: Any, **named: Any) -> None:
        """Ends them all. The loop that made them ready may have stopped.

        Jupyter begins with an interrupt, even of a kernel that shall end at once, and whatever runs there prints a
        traceback into the window where Ctrl-C was pressed. So none has a process any more when Jupyter's turn comes.
        """
        self._closing = True
        self._ready = []
        heard = {place.kernel for place in self._places if place.spoke}
        ends = (_end(manager, asked=name in heard) for name, manager in self._begun.items())
        # One that cannot be ended keeps none of the others from it, nor Jupyter from its turn.
        for failed in [end for end in await asyncio.gather(*ends, return_exceptions=True) if end is not None]:
            log.error("A kernel could not be ended", exc_info=failed)
        # What had only begun is in no list of Jupyter's to be ended, and ends for it with an error.
        for name in [name for name in self._pending_kernels if name not in self]:
            self._pending_kernels.pop(name)
        await super().shutdown_all(*arguments, **named)


async def _end(manager: Any, *, asked: bool) -> None:
    """Ends a kernel's process: one that a page speaks to is asked to say goodbye, any other one is not."""
    manager.shutting_down = True
    manager.stop_restarter()
    if not manager.has_kernel:
        return
    if asked:
        await manager.request_shutdown()
        await manager.finish_shutdown()
    else:
        await manager.provisioner.kill()
        await manager.provisioner.wait()


class Client(AsyncKernelClient):
    """A client that begins when its kernel is heard, and not the two tenths of a second of silence later that the usual
    one waits for."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Waits until the kernel has answered on both ways that a cell's answers take.

        Raises:
            RuntimeError: it has ended, or does not answer.
        """
        deadline = time.monotonic() + (timeout if timeout is not None else START_PATIENCE)
        pause = 0.25
        while True:
            self.kernel_info()
            with contextlib.suppress(Empty):
                answer = await self.shell_channel.get_msg(timeout=pause)
                # What it says to all comes only once we are subscribed to it; before that, ask again.
                await self.iopub_channel.get_msg(timeout=pause)
                self._handle_kernel_info_reply(answer)
                return
            if not await self.is_alive():
                raise RuntimeError("The kernel has ended before it answered")
            if time.monotonic() > deadline:
                raise RuntimeError("The kernel does not answer")
            pause = 1.0


def _result(ready: asyncio.Future[str]) -> str | None:
    """The kernel that was made ready, if it was."""
    return None if ready.cancelled() or ready.exception() is not None else ready.result()


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
