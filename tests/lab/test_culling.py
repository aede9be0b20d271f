"""A page that is gone without a word does not keep its kernel: on a real server, with a short patience."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.trust.client import Served, Visitor, alone, cookie_of, served

SHORT = "import lab.serve; lab.serve.CULL_AFTER, lab.serve.CULL_INTERVAL = 6, 1"


def test_a_page_that_beats_keeps_its_kernel_and_one_that_is_silent_does_not(tmp_path: Path) -> None:
    # The server alone would do, but a bench that nobody looks at must fall silent by itself to be culled at all.
    with served(tmp_path / "results", "--preheat", "0", planted=SHORT) as at:
        alone(lambda: _two_pages(at))


async def _two_pages(at: Served) -> None:
    cookie = await cookie_of(at)
    here, gone = await Visitor.open(at, cookie), await Visitor.open(at, cookie)
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
    # Far longer than a page may be silent: the other one goes on.
    pictures = here.pictures
    await here.press("Run")
    await asyncio.sleep(8.0)
    assert here.pictures > pictures
    assert not here.closed.is_set()
    assert len(at.kernels()) == 1
    await asyncio.gather(here.close(), gone.close())
