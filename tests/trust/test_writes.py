"""Writes that fail, at every call."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trust.case import Case
from benchmarks.trust.writes import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_there_or_all_of_the_new_is_there(case: Case, tmp_path: Path) -> None:
    verdict = case.run(case.quick, tmp_path)
    assert verdict.failures == []
    assert verdict.tried > 5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_planted_fault_is_caught(case: Case, tmp_path: Path) -> None:
    assert case.fault is not None
    assert case.fault(tmp_path).failed
