"""Whatever is done by hand is done again by the record, to the bit; ``python -m benchmarks.record`` tries many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_lab.datasets import Dataset, load_dataset
from tests.lab.random_scripts import session
from tests.ssl_lab.conftest import small_config


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(small_config())


@pytest.mark.parametrize("seed", range(4))
def test_a_random_session_replays_bit_equal(seed: int, tmp_path: Path, digits: Dataset) -> None:
    found = session(seed, tmp_path, digits)
    assert found.bit_equal
    assert found.steps >= 200
    assert found.events >= 5
    assert found.unnoticed == ()
