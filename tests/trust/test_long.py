"""The code that measures a long run; ``python -m benchmarks.trust --only long`` is the whole, in a browser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.trust.long import _KEEPS, _STEADY, engine_alone, growth, judge, stand_in

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")


def test_growth_is_that_of_the_series_and_not_of_one_value() -> None:
    assert growth([100.0] * 10) == 0.0
    assert growth([float(n) for n in range(11)]) == pytest.approx(10.0)
    assert growth([100.0] * 5 + [400.0] + [100.0] * 4) == 0.0
    assert growth([1.0]) == 0.0


def test_what_grows_is_named() -> None:
    samples = [{"kernel MB": 100.0 + 2.0 * n, "kernel threads": 5.0, "page handles": 10.0 + n} for n in range(10)]
    verdict = judge(samples)
    assert verdict.tried == 3
    assert [line.split(" grew")[0] for line in verdict.failures] == ["kernel MB", "page handles"]


def test_a_process_that_keeps_everything_is_caught_and_a_steady_one_is_not() -> None:
    assert stand_in(_STEADY).failures == []
    assert len(stand_in(_KEEPS).failures) == 3


def test_the_engine_stays_as_it_is_over_a_thousand_steps(tmp_path: Path) -> None:
    verdict = engine_alone(1000, tmp_path)
    assert verdict.failures == []
    assert verdict.tried == 3
