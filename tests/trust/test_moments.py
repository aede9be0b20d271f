"""Bad moments, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.trust.moments import CASES, MOMENTS, NotHere


@pytest.mark.parametrize("name", MOMENTS)
def test_a_bad_moment_ends_in_a_named_state(name: str, tmp_path: Path) -> None:
    try:
        MOMENTS[name](tmp_path)
    except NotHere as error:
        pytest.skip(str(error))


def test_a_planted_fault_is_caught(tmp_path: Path) -> None:
    (case,) = CASES
    assert case.fault is not None
    assert case.fault(tmp_path).failed
