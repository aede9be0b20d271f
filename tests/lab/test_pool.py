"""Places before kernels, and kernels before pages: never more of both than the house holds."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from voila.utils import ENV_VARIABLE

from benchmarks.trust.client import alone, served
from lab.pool import FREE_SHARE, KERNEL_BYTES, READY, START_PATIENCE, Kernels, Place, _result, affordable
from tests.lab.conftest import wait_for


class _Fake(Kernels):
    """No process is started."""

    default_kernel_name = "python3"

    def __init__(self) -> None:
        self.alive: dict[str, SimpleNamespace] = {}
        self.ended: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.broken = self.silent = False
        self._places, self._ready, self._resting, self._closing = [], [], 0.0, False
        self.most, self.wanted, self.rest = 3, 3, 0.0

    parent = SimpleNamespace(base_url="/", server_url="/", port=1)  # type: ignore[assignment]

    def __contains__(self, kernel: object) -> bool:
        return kernel in self.alive

    def get_kernel(self, kernel_id: str) -> Any:
        return self.alive[kernel_id]

    async def _launch(self, **_: Any) -> str:
        name = f"k{len(self.alive) + len(self.ended)}"
        self.alive[name] = SimpleNamespace(last_activity=None)
        return name

    async def _tell(self, kernel: str, code: str) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise RuntimeError("it fails")
        if self.silent:
            await asyncio.Event().wait()
        self.told.append((kernel, code))

    async def shutdown_kernel(self, kernel_id: str, *_: Any, **__: Any) -> None:
        self.alive.pop(kernel_id, None)
        self.ended.append(kernel_id)

    def has(self, *names: str) -> None:
        """Kernels of pages."""
        self.alive.update({name: SimpleNamespace(last_activity=None) for name in names})

    async def filled(self, count: int) -> None:
        """Until so many are ready."""
        async with asyncio.timeout(10):
            while sum(ready.done() for ready in self._ready) < count:
                await asyncio.sleep(0.01)


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
        house.has("a")
        with house.seated(second):
            second.kernel = "a"
        assert house.in_use() == 2
        house.alive.pop("a")
        assert house.in_use() == 1, "nor does one whose kernel has ended"

    alone(go)


def test_a_page_that_is_reloaded_waits_for_the_place_that_it_leaves() -> None:
    async def go() -> None:
        house = _Fake()
        house._places = [Place("a"), Place("b"), Place("c")]
        house.has("a", "b", "c")
        asyncio.get_running_loop().call_later(0.15, house.alive.pop, "b")
        assert await house.enter(patience=10.0) is not None
        assert await house.enter() is None

    alone(go)


def test_the_pool_is_filled_and_never_beyond_the_house() -> None:
    async def go() -> None:
        house = _Fake()
        warm = asyncio.create_task(house.keep_warm())
        await house.filled(3)
        assert [code for _, code in house.told] == [READY] * 3
        # Two pages come for which no ready kernel is right: their places are taken from those that wait.
        house._places = [Place("x"), Place("y")]
        house.has("x", "y")
        await house._shrink()
        assert len(house._ready) == 1
        assert len(house.alive) == 3
        house._closing = True
        await warm

    alone(go)


def test_a_page_takes_a_ready_kernel_and_its_environment_goes_along() -> None:
    async def go() -> None:
        house = _Fake()
        house.most, house.wanted = 1, 1
        warm = asyncio.create_task(house.keep_warm())
        await house.filled(1)
        place = await house.enter()
        assert place is not None
        # It is on its way, and the only kernel of the house is not ended before it is there.
        await asyncio.sleep(0.5)
        with house.seated(place):
            env = {**os.environ, ENV_VARIABLE.QUERY_STRING: "run=a'b"}
            assert await house.start_kernel(kernel_name="python3", path="", env=env) == "k0"
        assert place.kernel == "k0"
        kernel, code = house.told[-1]
        assert kernel == "k0"
        told: dict[str, str] = {}
        exec(code.replace("__import__('os').environ", "told"), {"told": told})
        assert told == {"QUERY_STRING": "run=a'b"}
        await asyncio.sleep(0.3)
        assert list(house.alive) == ["k0"], "no other one is made while there is no place for it"
        house._closing = True
        await warm

    alone(go)


def test_a_page_of_another_kind_gets_a_kernel_of_its_own_and_so_does_one_whose_kernel_fails() -> None:
    async def go() -> None:
        house = _Fake()
        house.wanted = 1
        await house._heat()
        place, second = await house.enter(), await house.enter()
        assert place is not None
        assert second is not None
        with house.seated(place):
            assert await house.start_kernel(kernel_name="ir", path="", env={}) == "k1"
        assert [_result(ready) for ready in house._ready] == ["k0"]
        house.broken = True
        with house.seated(second):
            assert await house.start_kernel(kernel_name="python3", path="", env={}) == "k2"
        assert house.ended == ["k0"]
        # One that cannot be made ready leaves nothing behind.
        await house._heat()
        assert house._ready == []
        assert sorted(house.alive) == ["k1", "k2"]
        assert house._resting > time.monotonic()

    alone(go)


@pytest.mark.parametrize("leaves", [False, True], ids=["patience", "cancelled"])
def test_a_kernel_that_is_given_up_while_it_comes_is_ended(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        house = _Fake()
        house.wanted, house.silent = 1, True
        if not leaves:
            monkeypatch.setattr("lab.pool.START_PATIENCE", 0.1)
        heat = asyncio.create_task(house._heat())
        await asyncio.sleep(0)
        place = await house.enter()
        assert place is not None
        with house.seated(place):
            opening = asyncio.create_task(house.start_kernel(kernel_name="python3", path="", env={}))
            await asyncio.sleep(0)
            if leaves:
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening
            else:
                assert await opening == "k1"
        async with asyncio.timeout(10):
            while "k0" not in house.ended:
                await asyncio.sleep(0.01)
            # Nor is the filling of the pool at its end.
            await heat
        assert list(house.alive) == ([] if leaves else ["k1"])

    alone(go)


def test_a_ready_kernel_is_not_culled_however_long_it_waits() -> None:
    async def go() -> None:
        house = _Fake()
        house.wanted = 1
        await house._heat()
        await house.cull_kernel_if_idle("k0")
        assert house.ended == []
        place = await house.enter()
        assert place is not None
        with house.seated(place):
            await house.start_kernel(kernel_name="python3", path="", env={})
        assert house.alive["k0"].last_activity is not None, "nor as soon as it is taken"

    alone(go)


def test_a_kernel_whose_page_never_came_is_ended() -> None:
    async def go() -> None:
        house = _Fake()
        house.has("a", "b")
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


def test_one_that_cannot_be_ended_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def end(manager: str, *, asked: bool) -> None:
        if manager == "stuck":
            raise TimeoutError("It does not end")
        await asyncio.sleep(0)
        ended.append(manager)

    async def rest(*_: Any, **__: Any) -> None:
        ended.append("Jupyter's turn")

    monkeypatch.setattr("lab.pool._end", end)
    monkeypatch.setattr(Kernels.__mro__[1], "shutdown_all", rest)
    house = _Fake()
    house._begun, house._pending_kernels = {"a": "stuck", "b": "other"}, {}  # type: ignore[assignment]
    asyncio.run(house.shutdown_all())
    assert ended == ["other", "Jupyter's turn"]


@pytest.mark.parametrize("coming", [False, True], ids=["before its kernel", "while it comes"])
def test_ctrl_c_ends_a_kernel_that_is_only_coming_without_a_word(coming: bool, tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    with served(tmp_path / "results", notebooks=notebooks, preheat=1) as at:
        wait_for(at.kernels) if coming else wait_for(lambda: "The lab is open" in at.log.read_text())
        server = psutil.Process(at.pid)
        kernels = [psutil.Process(pid) for pid in at.kernels()]
        os.kill(at.pid, signal.SIGINT)
        wait_for(lambda: server.status() == psutil.STATUS_ZOMBIE)
        kernels += [psutil.Process(pid) for pid in at.kernels()]
        assert not [kernel for kernel in kernels if kernel.is_running()]
    assert "Traceback" not in at.log.read_text(), at.log.read_text()
    assert at.log.read_text().rstrip().endswith("Ending the kernels…")
