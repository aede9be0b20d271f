"""Many hands on one run, shortly; ``python -m benchmarks.trust --only versions,numbers,claims,pages`` is the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trust.case import Case
from benchmarks.trust.races import CASES

QUICK = {"versions": 60, "numbers": 60, "claims": 20, "pages": 24}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_races(case: Case, tmp_path: Path) -> None:
    verdict = case.run(QUICK[case.name], tmp_path)
    assert verdict.failures == []
    assert verdict.tried >= QUICK[case.name]


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "pages"], ids=lambda case: case.name)
def test_races_see_the_planted_fault(case: Case, tmp_path: Path) -> None:
    assert case.fault is not None
    assert case.fault(tmp_path).failed > 0
