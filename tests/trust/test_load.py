"""Many runs in one engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trust import load
from benchmarks.trust.load import CASES

(CASE,) = CASES


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are counted for a part of the time."""
    monkeypatch.setattr(load, "SECONDS", 5.0)


def test_runs_have_fair_turns_and_no_failure_reaches_another(tmp_path: Path) -> None:
    verdict = CASE.run(CASE.quick, tmp_path)
    assert verdict.failures == []
    assert verdict.tried == CASE.quick + 4


def test_a_planted_fault_is_caught(tmp_path: Path) -> None:
    assert CASE.fault is not None
    assert CASE.fault(tmp_path).failed
