"""Places before kernels, and kernels before pages: never more of both than the house holds."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.trust.client import alone
from lab.pool import FREE_SHARE, KERNEL_BYTES, START_PATIENCE, Kernels, Place, affordable


class _Fake(Kernels):
    """No process is started."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.ended: list[str] = []
        self._places, self._resting, self._closing = [], 0.0, False
        self._pools, self.front, self.most, self.wanted = {}, "front.ipynb", 3, 3

    parent = SimpleNamespace(base_url="/", server_url="/", port=1)  # type: ignore[assignment]

    def __contains__(self, kernel: object) -> bool:
        return kernel in self.alive

    async def _initialize(self, *_: Any, **__: Any) -> dict[str, Any]:
        name = f"k{len(self.alive) + len(self.ended)}"
        self.alive.add(name)
        done = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        return {"task": done, "renderer": None, "kernel_id": name}

    async def shutdown_kernel(self, kernel_id: str, *_: Any, **__: Any) -> None:
        self.alive.discard(kernel_id)
        self.ended.append(kernel_id)


def test_there_are_as_many_places_as_said_and_one_that_is_left_is_free() -> None:
    async def go() -> None:
        house = _Fake()
        places = [await house.enter() for _ in range(4)]
        assert [place is not None for place in places] == [True, True, True, False]
        first = places[0]
        assert first is not None
        with house.seated(first):
            pass
        assert house.in_use() == 2, "a page that got no kernel leaves its place"
        second = places[1]
        assert second is not None
        house.alive.add("a")
        with house.seated(second):
            second.kernel = "a"
        assert house.in_use() == 2
        house.alive.discard("a")
        assert house.in_use() == 1, "nor does one whose kernel has ended"

    alone(go)


def test_a_page_that_is_reloaded_waits_for_the_place_that_it_leaves() -> None:
    async def go() -> None:
        house = _Fake()
        house._places = [Place("a"), Place("b"), Place("c")]
        house.alive = {"a", "b", "c"}
        asyncio.get_running_loop().call_later(0.15, house.alive.discard, "b")
        assert await house.enter(patience=10.0) is not None
        assert await house.enter() is None

    alone(go)


def test_the_pool_is_filled_and_never_beyond_the_house() -> None:
    async def go() -> None:
        house = _Fake()
        warm = asyncio.create_task(house.keep_warm())
        while len(house.alive) < 3:
            await asyncio.sleep(0.01)
        pool = house._pools["front.ipynb"]
        assert len(pool) == 3
        # Two pages of another notebook come: their places are taken from those that wait.
        house._places = [Place("x"), Place("y")]
        house.alive |= {"x", "y"}
        await house._shrink()
        assert len(pool) == 1
        assert len(house.alive) == 3
        house._closing = True
        await warm

    alone(go)


def test_a_kernel_whose_page_never_came_is_ended() -> None:
    async def go() -> None:
        house = _Fake()
        house.alive = {"a", "b"}
        house._places = [
            Place("a", since=time.monotonic() - START_PATIENCE - 1),
            Place("b", since=time.monotonic() - START_PATIENCE - 1, spoke=True),
        ]
        await house.cull_kernel_if_idle("a")
        assert house.ended == ["a"]

    alone(go)


@pytest.mark.parametrize(("free", "kept"), [(None, 30), (24_000_000_000, 30), (6_000_000_000, 10), (1, 1)])
def test_kernels_are_kept_ready_within_a_part_of_the_memory(free: int | None, kept: int) -> None:
    assert affordable(30, lambda: free) == kept
    assert free is None or kept == 1 or kept * KERNEL_BYTES <= free * FREE_SHARE
