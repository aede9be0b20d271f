"""A page that is gone without a word does not keep its kernel: on a real server, with a short patience."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.trust.client import Served, Visitor, alone, cookie_of, served

SHORT = "import lab.serve; lab.serve.CULL_AFTER, lab.serve.CULL_INTERVAL = 8, 1"
LONG = 16.0
"""Seconds: far longer than a page may be silent."""


def test_a_page_that_beats_keeps_its_kernel_and_one_that_is_silent_does_not(tmp_path: Path) -> None:
    # The server alone would do, but a bench that nobody looks at must fall silent by itself to be culled at all.
    with served(tmp_path / "results", "--preheat", "0", planted=SHORT) as at:
        alone(lambda: _two_pages(at))


async def _two_pages(at: Served) -> None:
    cookie = await cookie_of(at)
    here, gone = await asyncio.gather(Visitor.open(at, cookie), Visitor.open(at, cookie))
    opened = time.monotonic()
    for page in (here, gone):
        await page.until_picture()
        assert page.first_picture is not None, page.trouble
    assert len(at.kernels()) == 2
    # Its laptop is shut: no beat, and no goodbye.
    for task in gone._tasks[1:]:
        task.cancel()
    deadline = time.monotonic() + 120
    while len(at.kernels()) > 1:
        assert time.monotonic() < deadline, "the silent page still has its kernel"
        await asyncio.sleep(0.5)
    # The other one has beaten for longer than it might have been silent, and goes on.
    await asyncio.sleep(opened + LONG - time.monotonic())
    pictures = here.pictures
    await here.press("Run")
    while here.pictures == pictures:
        assert time.monotonic() < deadline, "the page that beats draws nothing"
        await asyncio.sleep(0.1)
    assert not here.closed.is_set()
    assert len(at.kernels()) == 1
    await asyncio.gather(here.close(), gone.close())
