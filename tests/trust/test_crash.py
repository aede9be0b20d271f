"""Processes that are killed, a few of them; ``python -m benchmarks.trust`` kills more."""

from __future__ import annotations

from pathlib import Path

from benchmarks.trust.crash import CASES

(CASE,) = CASES


def test_a_run_that_was_killed_comes_to_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    verdict = CASE.run(CASE.quick, tmp_path)
    assert verdict.failures == []
    assert verdict.tried == CASE.quick


def test_a_planted_fault_is_caught(tmp_path: Path) -> None:
    assert CASE.fault is not None
    assert CASE.fault(tmp_path).failed
