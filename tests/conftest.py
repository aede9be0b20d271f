"""What holds for all tests: two at a time, a second try where browsers and servers are driven, signals that arrive."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

DRIVEN = ("browser/", "trust/", "test_words.py", "lab/test_culling.py", "lab/test_pool.py", "lab/test_reproduction.py")
"""Tests that drive real browsers, servers and processes: on a machine that does much else one may come too late."""

ALONE = ("browser/",)
"""Of these, never two at once: two browsers on two cores are too slow for anybody."""

WORKERS = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """All tests are run by two workers; some of them, as files or by name, in this process as ever."""
    if (
        config.pluginmanager.hasplugin("xdist")
        and not hasattr(config, "workerinput")
        and config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and config.option.numprocesses is None
        and not (config.option.usepdb or config.option.keyword or config.option.markexpr or config.option.lf)
        and (os.cpu_count() or 1) >= WORKERS
    ):
        config.option.numprocesses, config.option.dist = WORKERS, "loadgroup"
        # The browser's come first, and they are what takes longest by one worker.
        config.option.loadscopereorder = False


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored in all that they start, and ``nohup`` a
    closed terminal. A handler of our own does as much for us, and is not handed on to another program."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _not_for_us)


def _not_for_us(_number: int, _frame: object) -> None:
    pass


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is driven has one second try; never are two browsers open at once.

    What is computed has none: it is right, or it is not. Its files are handed out one by one.
    """
    again, together = (config.pluginmanager.hasplugin(name) for name in ("rerunfailures", "xdist"))
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        file = item.path.relative_to(HERE).as_posix()
        if again and file.startswith(DRIVEN):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if together:
            item.add_marker(pytest.mark.xdist_group("driven" if file.startswith(ALONE) else file))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """What was on the pages and in the servers' logs when a test failed, kept with its report."""
    report: Any = yield
    if report.failed and call.excinfo is not None:
        for fixture in getattr(item, "funcargs", {}).values():
            # Fixtures that have something to tell of a failure say so themselves.
            if hasattr(type(fixture), "when_failed"):
                report.sections += fixture.when_failed(item.name)
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why the first try of a test failed whose second one may have passed: no second try goes unseen."""
    tried = terminalreporter.stats.get("rerun", [])
    if tried:
        terminalreporter.section("first tries that failed", sep="=", purple=True, bold=True)
    for report in tried:
        terminalreporter.section(f"{report.nodeid} ({report.when})", sep="_")
        terminalreporter.write_line(report.longreprtext)
        for title, words in report.sections:
            terminalreporter.section(title, sep="-")
            terminalreporter.write_line(words[-6000:])
