"""What holds for all tests: a second try where browsers and servers are driven, and signals that reach children."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

DRIVEN = ("browser/", "trust/", "test_words.py", "lab/test_culling.py", "lab/test_pool.py", "lab/test_reproduction.py")
"""Tests that drive real browsers, servers and processes: on a machine that does much else one may come too late."""


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored in all that they start, and ``nohup`` a
    closed terminal. A handler of our own does as much for us, and is not handed on to another program."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _not_for_us)


def _not_for_us(_number: int, _frame: object) -> None:
    pass


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One second try for what is driven; none for what is computed, which is right or is not."""
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).as_posix().startswith(DRIVEN):
            item.add_marker(pytest.mark.flaky(reruns=1))


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
