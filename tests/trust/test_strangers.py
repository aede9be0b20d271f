"""A stranger at the bench, with few messages; ``python -m benchmarks.trust --only strangers`` sends many more."""

from __future__ import annotations

from pathlib import Path

from benchmarks.trust.strangers import CASES

(CASE,) = CASES


def test_a_stranger_does_no_harm(tmp_path: Path) -> None:
    found = CASE.run(CASE.quick, tmp_path)
    assert found.tried == CASE.quick
    assert found.failures == []


def test_a_bench_on_which_everybody_steers_is_found_out(tmp_path: Path) -> None:
    assert CASE.fault is not None
    assert any("somebody else" in line for line in CASE.fault(tmp_path).failures)
