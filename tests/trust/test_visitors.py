"""The harnesses of visitors with few cases, and their planted faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trust.crowd import CASES as CROWD
from benchmarks.trust.visitors import CASES

# A hostile client has no manners: sockets that the server closed on it are left lying about.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

ALL = {case.name: case for case in (*CASES, *CROWD)}


@pytest.mark.parametrize("name", ALL)
def test_it_holds(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    verdict = case.run(case.quick, tmp_path)
    assert verdict.tried >= case.quick
    assert not verdict.failures


@pytest.mark.parametrize("name", ALL)
def test_the_planted_fault_is_caught(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    assert case.fault is not None
    assert case.fault(tmp_path).failed > 0
