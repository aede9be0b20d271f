"""What holds for all tests: a second try where browsers and servers are driven, signals that arrive, workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

DRIVEN = (
    "browser/", "lab/", "trust/", "test_words.py", "ssl_lab/test_cli.py", "ssl_lab/test_distributed.py",
    "ssl_lab/test_engine.py", "ssl_lab/test_reproduce.py", "ssl_lab/test_stage.py", "ssl_lab/test_sweep.py",
)  # fmt: skip
"""Tests that drive real browsers, servers, processes, and pages that a thread of their own writes: on a machine that
does much else one may come too late."""

WORKERS = "SSL_LAB_TEST_WORKERS"
"""How many processes run the tests, where pytest-xdist is installed; one unless it is said."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Hands all tests out to workers, if so many are asked for; some of them, by name, are run here as ever."""
    if (
        os.environ.get(WORKERS, "1") != "1"
        and config.pluginmanager.hasplugin("xdist")
        and not hasattr(config, "workerinput")
        and config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and config.option.numprocesses is None
        and not config.option.usepdb
    ):
        config.option.numprocesses, config.option.dist = int(os.environ[WORKERS]), "loadscope"
        # What is in a browser comes first, and takes one worker longest.
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out whole files, and all that is in a browser to one worker: two browsers at once are slow for anybody."""
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "browser" if "browser/" in file else file

    return Rooms(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored in all that they start, and ``nohup`` a
    closed terminal. A handler of our own does as much for us, and is not handed on to another program."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _not_for_us)


def _not_for_us(_number: int, _frame: object) -> None:
    pass


def pytest_itemcollected(item: pytest.Item) -> None:
    """One second try for what is driven; none for what is computed, which is right or is not."""
    if not item.path.is_relative_to(HERE) or not item.config.pluginmanager.hasplugin("rerunfailures"):
        return
    if item.path.relative_to(HERE).as_posix().startswith(DRIVEN):
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
